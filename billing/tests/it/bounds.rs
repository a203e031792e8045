//! What is too large, too long or broken is refused, and the sidecar goes on.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Sidecar;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn bodies_are_bounded_and_must_be_json_of_the_right_shape() {
    let sidecar = Sidecar::start_with("limits = { body_bytes_max = 1024 }").await;
    for (body, status, code) in [
        (format!("{{\"name\": \"{}\"}}", "x".repeat(2000)), 413, "too_large"),
        ("{".to_owned(), 400, "malformed"),
        ("[]".to_owned(), 422, "invalid"),
        ("{}".to_owned(), 422, "invalid"),
        (String::new(), 422, "invalid"),
        ("{\"name\": \"x\", \"nmae\": \"y\"}".to_owned(), 422, "invalid"),
    ] {
        let answer = sidecar.ask(Method::POST, "/v1/admin/tenants").by("owner").bytes(body.clone()).send().await;
        assert_eq!(answer.expect(status).code(), code, "{body}");
    }
    for path in ["/v1/admin/tenants?limit=0", "/v1/admin/tenants?limit=201", "/v1/admin/tenants?limt=1"] {
        assert_eq!(sidecar.get(path).await.expect(400).code(), "malformed", "{path}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection_and_frees_its_place() {
    let sidecar = Sidecar::start_with("limits = { connections_max = 1 }\ntimeouts = { head_ms = 200 }").await;
    let mut slow = TcpStream::connect(sidecar.api).await.unwrap();
    slow.write_all(b"GET /v1/admin/me HTTP/1.1\r\nhost").await.unwrap();
    // The only place is taken until the slow one is sent away.
    sidecar.get("/v1/admin/me").await.expect(200);
    let mut rest = Vec::new();
    timeout(DEADLINE, slow.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_in_time() {
    let sidecar = Sidecar::start_with("timeouts = { request_ms = 300 }").await;
    let mut slow = TcpStream::connect(sidecar.api).await.unwrap();
    let token = crate::support::token("owner");
    let head = format!(
        "POST /v1/admin/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        token.expose()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(DEADLINE, slow.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_being_answered() {
    let sidecar = Sidecar::start().await;
    let address = sidecar.api;
    let mut open = TcpStream::connect(address).await.unwrap();
    let token = crate::support::token("owner");
    let body = "{\"id\": \"acme\", \"name\": \"Acme\"}";
    let head = format!(
        "POST /v1/admin/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        token.expose(),
        body.len()
    );
    open.write_all(head.as_bytes()).await.unwrap();
    // The head has been read once the sidecar counts the connection: ask for it until it does.
    while !crate::support::ops(&sidecar, "/metrics").await.text().contains("relais_billing_connections 2") {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn(sidecar.stop());
    open.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, open.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    stopping.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
