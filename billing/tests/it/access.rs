//! Who may do what: tokens and roles, for every operation there is.

use http::Method;
use relais_billing::api::document;
use serde_json::json;

use crate::support::{Sidecar, ops, token};

/// Every operation: method, path with something in its places, and the role it needs.
fn operations() -> Vec<(Method, String, String)> {
    let document = document();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect();
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["x-role"].as_str().unwrap().to_owned();
            all.push((method.to_uppercase().parse().unwrap(), filled.join("/"), role));
        }
    }
    assert!(all.len() >= 30, "only {} operations", all.len());
    all
}

#[tokio::test]
async fn without_a_token_nothing_and_with_a_lesser_one_nothing_either() {
    let sidecar = Sidecar::start().await;
    let lesser = |role: &str| match role {
        "viewer" => vec!["gateway"],
        "operator" => vec!["gateway", "viewer"],
        "owner" => vec!["gateway", "viewer", "operator"],
        _ => vec!["viewer", "operator", "owner"],
    };
    for (method, path, role) in operations() {
        let said = format!("{method} {path}");
        let none = sidecar.ask(method.clone(), &path).send().await.expect(401);
        assert_eq!((none.code().as_str(), &none.headers["www-authenticate"] == "Bearer"), ("invalid_token", true));
        let wrong = sidecar.ask(method.clone(), &path).header("authorization", "Bearer rb_nobody").send().await;
        // Missing and wrong look alike, but for the id.
        assert_eq!(wrong.expect(401).json()["detail"], none.json()["detail"], "{said}");
        for other in lesser(&role) {
            let refused = sidecar.ask(method.clone(), &path).by(other).send().await.expect(403);
            assert_eq!(refused.code(), "forbidden", "{said} by {other}");
        }
        let let_in = sidecar.ask(method.clone(), &path).by(&role).send().await;
        assert!(![401, 403, 405].contains(&let_in.status.as_u16()), "{said} by {role}: {}", let_in.text());
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_token_is_sent_once_and_in_the_right_form() {
    let sidecar = Sidecar::start().await;
    let good = token("viewer");
    for (header, status) in [
        (format!("Bearer {}", good.expose()), 200),
        (format!("bearer  {}", good.expose()), 200),
        (good.expose().to_owned(), 401),
        (format!("Basic {}", good.expose()), 401),
        (format!("Bearer {}x", good.expose()), 401),
        (String::new(), 401),
    ] {
        sidecar.ask(Method::GET, "/v1/admin/me").header("authorization", &header).send().await.expect(status);
    }
    sidecar.ask(Method::GET, "/v1/admin/me").by("viewer").by("owner").send().await.expect(401);
    let me = sidecar.ask(Method::GET, "/v1/admin/me").by("viewer").send().await.expect(200).json();
    assert_eq!((&me["name"], &me["role"]), (&json!("viewer"), &json!("viewer")));
    sidecar.stop().await;
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_with_an_id() {
    let sidecar = Sidecar::start().await;
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "unknown_route"),
        (Method::GET, "/v1/admin/tenants/", 404, "unknown_route"),
        (Method::PUT, "/v1/admin/tenants", 405, "method_not_allowed"),
    ] {
        let answer = sidecar.ask(method, path).by("owner").send().await.expect(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["x-request-id"].to_str().unwrap(), answer.json()["request_id"]);
        assert_eq!(answer.code(), code);
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn health_and_metrics_have_an_address_of_their_own() {
    let sidecar = Sidecar::start().await;
    sidecar.tenant("acme", &[]).await;
    assert_eq!(ops(&sidecar, "/livez").await.expect(200).text(), "alive\n");
    assert_eq!(ops(&sidecar, "/readyz").await.expect(200).text(), "ready\n");
    let metrics = ops(&sidecar, "/metrics").await.expect(200).text();
    for line in [
        "relais_billing_requests_total{method=\"POST\",route=\"/v1/admin/tenants\",status=\"2xx\"} 1",
        "relais_billing_policy_revision 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(!metrics.contains("acme"));
    for path in ["/metrics", "/livez", "/readyz"] {
        sidecar.get(path).await.expect(404);
    }
    ops(&sidecar, "/v1/admin/me").await.expect(404);
    sidecar.stop().await;
}
