//! `Idempotency-Key`: done once, answered alike, and never mistaken for another request.

use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::support::Sidecar;

#[tokio::test]
async fn the_same_request_under_the_same_key_is_done_once() {
    let sidecar = Sidecar::start().await;
    sidecar.tenant("acme", &[]).await;
    let issue = || {
        let path = "/v1/admin/tenants/acme/keys";
        sidecar.ask(Method::POST, path).by("owner").header("idempotency-key", "k-1").json(&json!({ "label": "ci" }))
    };
    let first = issue().send().await.expect(201);
    let again = issue().send().await.expect(201);
    assert_eq!(first.body, again.body);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_ne!(first.headers["x-request-id"], again.headers["x-request-id"]);
    let keys = sidecar.get("/v1/admin/tenants/acme/keys").await.expect(200).json();
    assert_eq!(keys["items"].as_array().unwrap().len(), 1);

    // Another body, address or method under the key is refused and changes nothing.
    for (method, path, body) in [
        (Method::POST, "/v1/admin/tenants/acme/keys", json!({ "label": "other" })),
        (Method::POST, "/v1/admin/tenants", json!({ "label": "ci" })),
        (Method::PATCH, "/v1/admin/tenants/acme", json!({ "name": "x" })),
    ] {
        let asked = sidecar.ask(method, path).by("owner").header("idempotency-key", "k-1").json(&body).send().await;
        assert!(["idempotency_key_reused", "invalid"].contains(&asked.expect(422).code().as_str()));
    }

    // Keys of two tokens are two keys.
    let path = "/v1/admin/tenants/acme/keys";
    let other = sidecar.ask(Method::POST, path).by("operator").header("idempotency-key", "k-1");
    other.json(&json!({ "label": "other" })).send().await.expect(201);

    // A day later the key is forgotten.
    sidecar.clock.advance(24 * 60 * 60 * 1000 + 1);
    assert_ne!(issue().send().await.expect(201).body, first.body);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refusal_is_not_kept_and_a_bad_key_is_refused() {
    let sidecar = Sidecar::start().await;
    let make = || {
        let ask = sidecar.ask(Method::POST, "/v1/admin/tenants/acme/keys").by("owner");
        ask.header("idempotency-key", "k-1").json(&json!({ "label": "ci" }))
    };
    make().send().await.expect(404);
    sidecar.tenant("acme", &[]).await;
    make().send().await.expect(201);
    for bad in ["", "a b", &"x".repeat(256)] {
        let asked = sidecar.ask(Method::POST, "/v1/admin/tenants").by("owner").header("idempotency-key", bad);
        assert_eq!(asked.json(&json!({ "name": "x" })).send().await.expect(400).code(), "malformed");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn twenty_at_once_make_one() {
    let sidecar = Arc::new(Sidecar::start().await);
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let sidecar = Arc::clone(&sidecar);
            tokio::spawn(async move {
                let ask = sidecar.ask(Method::POST, "/v1/admin/tenants").by("owner");
                let body = json!({ "name": "Acme" });
                ask.header("idempotency-key", "k-1").json(&body).send().await.expect(201).body
            })
        })
        .collect();
    let mut bodies = Vec::new();
    for one in asked {
        bodies.push(one.await.unwrap());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let tenants = sidecar.get("/v1/admin/tenants").await.expect(200).json();
    assert_eq!(tenants["items"].as_array().unwrap().len(), 1);
    Arc::into_inner(sidecar).unwrap().stop().await;
}
