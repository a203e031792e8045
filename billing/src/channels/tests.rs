//! Channels and their secrets, on whichever engine the tests run.

use super::*;
use crate::error::Reason;
use crate::reseal;
use crate::store::{Author, Scratch};
use crate::tenants::NewTenant;

fn new(name: &str, more: serde_json::Value) -> NewChannel {
    let mut body = serde_json::json!({
        "name": name, "url": "https://chat.example.com/", "account_id": 1, "bot_id": 7, "agent": "shop",
        "secrets": { "bot_token": "b0tt0ken", "webhook_secret": "wh00k" },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(body).unwrap()
}

/// A change of a store with an agent, and tenants with a managed plan and with none.
async fn begun(scratch: &Scratch) -> Change {
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    crate::catalog::store_embedded(&mut change, relais_policies::Catalog::embedded()).await.unwrap();
    let body = serde_json::from_value(serde_json::json!({ "kind": "knowledge", "dir": "faq" })).unwrap();
    agents::set(&mut change, "shop", &body).await.unwrap();
    for (id, plans) in [("acme", vec!["chatwoot.pro"]), ("poor", vec![])] {
        let new = serde_json::json!({ "id": id, "name": id, "plans": plans });
        let new: NewTenant = serde_json::from_value(new).unwrap();
        tenants::create(&mut change, &new).await.unwrap();
    }
    change
}

#[tokio::test]
async fn what_opens_a_chatwoot_is_sealed_and_shown_to_nobody() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let connected = connect(&mut change, "acme", &new("web", serde_json::json!({}))).await.unwrap();
    assert_eq!(connected.channel.kind, ChannelKind::Managed);
    assert_eq!(connected.channel.url, "https://chat.example.com");
    assert_eq!(connected.signed_path, "/chatwoot/acme");
    let path_token = connected.secret_path.strip_prefix("/chatwoot/acme/").unwrap().to_owned();
    assert_eq!(path_token.len(), 48);

    let id = connected.channel.id;
    let row: String = sqlx::query_scalar("SELECT secrets_sealed FROM channels").fetch_one(change.sql()).await.unwrap();
    let trail = crate::audit::list(change.sql(), None, None, 100).await.unwrap();
    let trail = serde_json::to_string(&trail).unwrap();
    for secret in ["b0tt0ken", "wh00k", &path_token] {
        assert!(!row.contains(secret) && !trail.contains(secret));
    }
    let vault = Vault::parse(Scratch::KEYS).unwrap();
    let (opened, opened_path) = secrets(change.sql(), &vault, &id).await.unwrap();
    assert_eq!((opened.bot_token.as_str(), opened.webhook_secret.as_deref()), ("b0tt0ken", Some("wh00k")));
    assert_eq!(opened_path, path_token);

    // New tokens; the address stays.
    let edited = EditChannel {
        secrets: Some(Secrets {
            bot_token: "an0ther".to_owned(),
            webhook_secret: None,
            previous_webhook_secret: None,
            user_token: None,
        }),
        ..EditChannel::default()
    };
    edit(&mut change, "acme", &id, &edited).await.unwrap();
    let (opened, opened_path) = secrets(change.sql(), &vault, &id).await.unwrap();
    assert_eq!((opened.bot_token.as_str(), opened_path), ("an0ther", path_token));
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn a_channel_that_could_not_be_answered_is_refused() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    for (tenant, bad, reason) in [
        ("poor", serde_json::json!({}), Reason::Invalid),
        ("acme", serde_json::json!({ "kind": "selfhosted" }), Reason::Invalid),
        ("acme", serde_json::json!({ "agent": "nobody" }), Reason::Invalid),
        ("acme", serde_json::json!({ "url": "chat.example.com" }), Reason::Invalid),
        ("acme", serde_json::json!({ "bot_id": 0 }), Reason::Invalid),
        ("acme", serde_json::json!({ "secrets": { "bot_token": "a b" } }), Reason::Invalid),
        (
            "acme",
            serde_json::json!({ "secrets": { "bot_token": "a", "previous_webhook_secret": "b" } }),
            Reason::Invalid,
        ),
        ("nobody", serde_json::json!({}), Reason::NotFound),
    ] {
        let refused = connect(&mut change, tenant, &new("web", bad.clone())).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{tenant} {bad}");
    }
    connect(&mut change, "acme", &new("web", serde_json::json!({}))).await.unwrap();
    for twin in [new("web", serde_json::json!({ "bot_id": 8 })), new("other", serde_json::json!({}))] {
        assert_eq!(connect(&mut change, "acme", &twin).await.unwrap_err().reason, Reason::Conflict);
    }
    // An agent that answers somewhere stays.
    assert_eq!(agents::remove(&mut change, "shop").await.unwrap_err().reason, Reason::Conflict);
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn after_a_rotation_the_old_key_is_needed_no_longer() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let id = connect(&mut change, "acme", &new("web", serde_json::json!({}))).await.unwrap().channel.id;
    change.commit().await.unwrap();

    let fresh = format!("k2:{}", "02".repeat(32));
    let scratch = scratch.reopened_with(&format!("{fresh},{}", Scratch::KEYS)).await;
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let done = reseal::all(&mut change).await.unwrap();
    assert_eq!((done.key.as_str(), done.resealed, done.current), ("k2", 1, 0));
    assert_eq!(reseal::all(&mut change).await.unwrap().current, 1);
    change.commit().await.unwrap();

    let scratch = scratch.reopened_with(&fresh).await;
    let mut read = scratch.store.read().await.unwrap();
    let (opened, _) = secrets(&mut read, scratch.store.vault(), &id).await.unwrap();
    assert_eq!(opened.bot_token, "b0tt0ken");
    drop(read);
    scratch.close().await;
}
