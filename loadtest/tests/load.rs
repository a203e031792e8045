//! `relais-load run` as a process against fakes: what it sends, what it counts, and its exit status.
//!
//! Nothing here looks at a time: only at counts and at what must have been sent.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use relais_loadtest::fakes::chatwoot::sign;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, Settings};
use relais_loadtest::http::{Server, reply};
use serde_json::Value;
use tokio::process::Command;

/// Longer than anything here takes; reached only when something hangs that should not.
const PATIENCE: Duration = Duration::from_secs(120);

async fn output(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais-load"));
    command.arg("run").args(args).arg("--quiet").env_remove("RELAIS_LOAD_KEY").env_remove("RELAIS_LOAD_SECRET");
    command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap()
}

/// A run's JSON, and its exit status.
async fn run(args: &[&str]) -> (Value, Option<i32>) {
    let output = output(&[args, &["--json", "-"]].concat()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (json, output.status.code())
}

async fn numbered(tokens: u64) -> FakeLlm {
    let llm = FakeLlm::start(Settings { key: Some("k1".to_owned()), ..Settings::default() }).await.unwrap();
    llm.set(|behaviour| behaviour.answer = Some((0..tokens).map(|number| format!("{number} ")).collect()));
    llm
}

#[tokio::test]
async fn an_open_loop_sends_what_was_asked_for_and_counts_every_answer() {
    let llm = numbered(5).await;
    let url = llm.url();
    let (json, status) =
        run(&["v1", "--url", &url, "--key", "k1", "--rate", "2000", "--requests", "200", "--expect", "errors<=0%"])
            .await;
    assert_eq!(status, Some(0), "{json}");
    assert_eq!((&json["requests"], &json["outcomes"]["ok"], &json["errors"]), (&200.into(), &200.into(), &0.into()));
    assert_eq!(json["times"]["latency"]["count"], 200);
    assert_eq!(llm.totals().started, 200);
}

#[tokio::test]
async fn whole_streams_lose_nothing_and_broken_ones_say_what_was_lost() {
    let llm = numbered(12).await;
    let url = llm.url();
    let args = ["v1", "--url", &url, "--key", "k1", "--stream", "--numbered", "--concurrency", "4", "--requests", "40"];
    let (json, _) = run(&args).await;
    assert_eq!(json["outcomes"]["ok"], 40, "{json}");
    assert_eq!(json["frames"], serde_json::json!({ "seen": 480, "lost": 0, "duplicated": 0 }));
    assert_eq!((&json["times"]["first"]["count"], &json["times"]["gap"]["count"]), (&40.into(), &440.into()));

    llm.set(|behaviour| behaviour.faults = vec![Fault::next(3, FaultKind::EndAfter { tokens: 2 })]);
    let (json, _) = run(&args).await;
    assert_eq!((&json["outcomes"]["ok"], &json["outcomes"]["cut short"]), (&37.into(), &3.into()), "{json}");

    // The model says 2 after 0: 1 is missing; then 2 again.
    llm.set(|behaviour| behaviour.answer = Some("0 2 2 3 ".to_owned()));
    let (json, status) = run(&[&args[..], &["--expect", "lost=0"]].concat()).await;
    assert_eq!((&json["frames"]["lost"], &json["frames"]["duplicated"], status), (&40.into(), &40.into(), Some(3)));
}

#[tokio::test]
async fn who_leaves_is_counted_as_left_and_the_server_sees_it() {
    let llm = numbered(5).await;
    llm.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::HangBeforeHead)]);
    let url = llm.url();
    let args = ["v1", "--url", &url, "--key", "k1", "--rate", "500", "--requests", "50", "--aborts", "100%"];
    let (json, status) = run(&[&args[..], &["--abort-within", "20ms", "--expect", "errors<=0%"]].concat()).await;
    assert_eq!((&json["outcomes"]["aborted"], &json["errors"], status), (&50.into(), &0.into(), Some(0)), "{json}");
}

#[tokio::test]
async fn keys_take_turns_and_each_is_told_apart() {
    let llm = numbered(1).await;
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "good k1\nbad k2\n").unwrap();
    let (keys, url) = (keys.to_str().unwrap(), llm.url());
    let (json, _) = run(&["v1", "--url", &url, "--keys", keys, "--concurrency", "2", "--requests", "20"]).await;
    assert_eq!((&json["targets"][0]["name"], &json["targets"][0]["outcomes"]["ok"]), (&"good".into(), &10.into()));
    assert_eq!(json["targets"][1]["outcomes"]["status 401"], 10, "{json}");
    assert!(!json.to_string().contains("k2"), "a report holds no key");
}

#[tokio::test]
async fn a_missed_expectation_is_exit_status_three_and_stands_in_the_report() {
    let llm = numbered(1).await;
    llm.set(|behaviour| {
        behaviour.faults = vec![Fault::always(FaultKind::Status { status: 429, body: None, retry_after: None })];
    });
    let dir = tempfile::tempdir().unwrap();
    let html = dir.path().join("report.html");
    let (html_path, url) = (html.to_str().unwrap(), llm.url());
    let args = ["v1", "--url", &url, "--key", "k1", "--concurrency", "2", "--requests", "10", "--html", html_path];
    let (json, status) = run(&[&args[..], &["--expect", "errors<1%", "--expect", "requests=10"]].concat()).await;
    assert_eq!((status, &json["outcomes"]["status 429"]), (Some(3), &10.into()), "{json}");
    let met: Vec<_> = json["expectations"].as_array().unwrap().iter().map(|verdict| verdict["met"].clone()).collect();
    assert_eq!(met, [false, true]);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("errors&lt;1%") && page.contains("not met") && page.contains("<svg"));
    // A report loads nothing.
    assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    for args in [
        &["v1", "--concurrency", "1", "--expect", "p99<35"][..],
        &["v1", "--concurrency", "1", "--for", "1h", "--expect", "p98<35ms"],
        &["v1"],
        &["v1", "--rate", "5", "--concurrency", "5"],
        &["v1", "--rate", "0", "--requests", "1"],
        &["v1", "--url", "http://192.0.2.1:8080", "--concurrency", "1", "--requests", "1"],
        &["webhooks", "--url", "http://gateway.example/chatwoot/x", "--concurrency", "1"],
    ] {
        let output = output(args).await;
        assert!(!output.status.success() && output.status.code() != Some(3), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[derive(Default)]
struct Received {
    forged: usize,
    deliveries: BTreeSet<String>,
    messages: BTreeSet<u64>,
    conversations: BTreeSet<u64>,
}

async fn receive(received: Arc<Mutex<Received>>, request: Request<Incoming>) -> relais_loadtest::http::Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name: &str| head.headers.get(name).unwrap().to_str().unwrap().to_owned();
    let signed = sign("s3cret", &header("x-chatwoot-timestamp"), &body) == header("x-chatwoot-signature");
    let event: Value = serde_json::from_slice(&body).unwrap();
    let mut received = received.lock().unwrap();
    received.forged += usize::from(!signed);
    received.deliveries.insert(header("x-chatwoot-delivery"));
    received.messages.insert(event.pointer("/id").and_then(Value::as_u64).unwrap());
    received.conversations.insert(event.pointer("/conversation/id").and_then(Value::as_u64).unwrap());
    Ok(reply(StatusCode::OK, "text/plain", ""))
}

#[tokio::test]
async fn deliveries_are_signed_and_each_is_another_over_kept_and_single_connections() {
    for connection in [&[][..], &["--connection-each"]] {
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        let server = Server::start(0, move |request| receive(Arc::clone(&shared), request)).await.unwrap();
        let url = format!("{}/chatwoot/acme", server.url());
        let args = ["webhooks", "--url", &url, "--secret", "s3cret", "--conversations", "7", "--first-message", "1000"];
        let load = ["--rate", "1000", "--requests", "100", "--expect", "errors<=0%"];
        let (json, status) = run(&[&args[..], &load, connection].concat()).await;
        assert_eq!((&json["outcomes"]["ok"], status), (&100.into(), Some(0)), "{json}");
        let received = received.lock().unwrap();
        assert_eq!((received.forged, received.deliveries.len()), (0, 100));
        assert!(received.messages.iter().copied().eq(1000..1100));
        assert!(received.conversations.iter().copied().eq(1..=7));
        let connects = json["times"]["connect"]["count"].as_u64().unwrap();
        assert!(if connection.is_empty() { connects <= 100 } else { connects == 100 }, "{connects}");
    }
}
