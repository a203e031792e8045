//! An operator's work from a new tenant to a deleted one, over the API.

use http::Method;
use serde_json::json;

use crate::support::Sidecar;

#[tokio::test]
async fn from_a_new_tenant_to_a_deleted_one() {
    let sidecar = Sidecar::start().await;
    let acme = sidecar.tenant("acme", &["app.pro", "chatwoot.pro"]).await;
    assert_eq!(acme["plans"][0]["code"], "app.pro");

    let plan = sidecar.put("/v1/admin/tenants/acme/plans/api", json!({ "code": "api.basic" })).await.expect(200).json();
    assert_eq!(plan["plans"].as_array().unwrap().len(), 3);
    sidecar.put("/v1/admin/tenants/acme/plans/gold", json!({ "code": "api.basic" })).await.expect(404);
    sidecar.delete("/v1/admin/tenants/acme/plans/api").await.expect(200);

    let contract = json!({ "value": 7, "reason": "contract 7", "until": "2027-01-01T00:00:00Z" });
    let set = sidecar.put("/v1/admin/tenants/acme/overrides/seats", contract).await.expect(200).json();
    assert_eq!((&set["author"], &set["until"]), (&json!("owner"), &json!("2027-01-01T00:00:00.000Z")));
    let listed = sidecar.get("/v1/admin/tenants/acme/overrides").await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    sidecar.delete("/v1/admin/tenants/acme/overrides/seats").await.expect(200);

    let issued = sidecar.post("/v1/admin/tenants/acme/keys", json!({ "label": "ci" })).await.expect(201).json();
    let key = format!("/v1/admin/tenants/acme/keys/{}", issued["key"]["public_id"].as_str().unwrap());
    let rotated = sidecar.post(&format!("{key}/rotate"), json!({})).await.expect(200).json();
    assert_ne!(issued["secret"], rotated["secret"]);
    assert!(!sidecar.get(&key).await.expect(200).text().contains(rotated["secret"].as_str().unwrap()));
    sidecar.ask(Method::PATCH, &key).by("operator").json(&json!({ "label": "cd" })).send().await.expect(200);
    sidecar.delete(&key).await.expect(200);
    assert_eq!(sidecar.delete(&key).await.expect(409).code(), "conflict");

    sidecar.put("/v1/admin/agents/shop", json!({ "kind": "knowledge", "dir": "faq" })).await.expect(200);
    let model = json!({ "kind": "openai", "upstream": "main", "model": "llama", "temperature": 0.2 });
    sidecar.put("/v1/admin/agents/sales", model).await.expect(200);
    assert_eq!(sidecar.get("/v1/admin/agents").await.expect(200).json()["items"].as_array().unwrap().len(), 2);
    let channel = json!({
        "name": "web", "url": "https://chat.example.com", "account_id": 1, "bot_id": 2, "agent": "shop",
        "handoff": { "team_id": 3 }, "secrets": { "bot_token": "b0tt0ken" },
    });
    let connected = sidecar.post("/v1/admin/tenants/acme/channels", channel).await.expect(201).json();
    let channel = format!("/v1/admin/tenants/acme/channels/{}", connected["channel"]["id"].as_str().unwrap());
    let shown = sidecar.get(&channel).await.expect(200).text();
    assert!(!shown.contains("b0tt0ken"));
    sidecar.delete("/v1/admin/agents/shop").await.expect(409);
    let edit = sidecar.ask(Method::PATCH, &channel).by("operator").json(&json!({ "agent": "sales" }));
    assert_eq!(edit.send().await.expect(200).json()["handoff"]["team_id"], 3);
    sidecar.delete("/v1/admin/agents/shop").await.expect(200);
    sidecar.delete(&channel).await.expect(200);

    sidecar.post("/v1/admin/tenants/acme/suspend", json!({})).await.expect(200);
    assert_eq!(sidecar.post("/v1/admin/tenants/acme/resume", json!({})).await.expect(200).json()["status"], "active");
    sidecar.delete("/v1/admin/tenants/acme").await.expect(200);
    sidecar.post("/v1/admin/tenants/acme/keys", json!({ "label": "x" })).await.expect(409);

    let verdict = sidecar.get("/v1/admin/audit/verify").await.expect(200).json();
    assert!(verdict.get("broken_at").is_none());
    let of_acme = sidecar.get("/v1/admin/audit?object=tenant:acme&limit=1").await.expect(200).json();
    assert_eq!(of_acme["items"][0]["action"], "tenant.delete");
    let next = format!("/v1/admin/audit?object=tenant:acme&after={}", of_acme["next"].as_str().unwrap());
    assert_eq!(sidecar.get(&next).await.expect(200).json()["items"][0]["action"], "tenant.resume");
    sidecar.get("/v1/admin/audit?after=x").await.expect(400);
    sidecar.stop().await;
}

#[tokio::test]
async fn every_change_names_its_request_and_its_author() {
    let sidecar = Sidecar::start().await;
    let ask = sidecar.ask(Method::POST, "/v1/admin/tenants").by("operator");
    let made = ask.json(&json!({ "id": "acme", "name": "Acme" })).send().await.expect(201);
    let entry = sidecar.get("/v1/admin/audit?object=tenant:acme").await.expect(200).json()["items"][0].clone();
    assert_eq!(entry["request_id"], made.headers["x-request-id"].to_str().unwrap());
    assert_eq!((&entry["actor"], &entry["action"]), (&json!("operator"), &json!("tenant.create")));
    assert_eq!((&entry["before"], &entry["after"]["name"]), (&json!(null), &json!("Acme")));
    sidecar.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_that_meet() {
    let sidecar = Sidecar::start().await;
    for n in 0..5 {
        sidecar.tenant(&format!("t{n}"), &[]).await;
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = sidecar.get(&format!("/v1/admin/tenants?limit=2&after={after}")).await.expect(200).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t3", "t4"]);
    sidecar.stop().await;
}

#[tokio::test]
async fn plans_get_versions() {
    let sidecar = Sidecar::start().await;
    let mut plan = sidecar.get("/v1/admin/plans/app.pro").await.expect(200).json()["plan"].clone();
    assert_eq!(sidecar.post("/v1/admin/plans", plan.clone()).await.expect(409).code(), "conflict");
    plan["version"] = json!(2);
    plan["price"]["month_cents"] = json!(3_100);
    sidecar.post("/v1/admin/plans", plan).await.expect(201);
    let latest = sidecar.get("/v1/admin/plans/app.pro").await.expect(200).json();
    assert_eq!((&latest["plan"]["version"], &latest["author"]), (&json!(2), &json!("owner")));
    let first = sidecar.get("/v1/admin/plans/app.pro/1").await.expect(200).json();
    assert_eq!(first["plan"]["price"]["month_cents"], 2_900);
    sidecar.get("/v1/admin/plans/app.pro/9").await.expect(404);
    sidecar.get("/v1/admin/plans/app.pro/x").await.expect(404);
    sidecar.get("/v1/admin/plans/app.gold").await.expect(404);
    sidecar.get("/v1/admin/plans?limit=3").await.expect(200);
    sidecar.stop().await;
}
