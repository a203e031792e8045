//! Keys over their whole life, on whichever engine the tests run.

use relais_policies::key::{ParsedKey, hash_from_hex};

use super::*;
use crate::error::Reason;
use crate::store::{Author, Scratch};
use crate::tenants::NewTenant;

row! {
    struct Kept {
        hash: String,
        previous_hash: Option<String>,
        previous_until: Option<i64>,
    }
}

async fn kept(sql: &mut AnyConnection, public_id: &str) -> Kept {
    sqlx::query_as("SELECT hash, previous_hash, previous_until FROM api_keys WHERE public_id = $1")
        .bind(public_id.to_owned())
        .fetch_one(sql)
        .await
        .unwrap()
}

fn hash_of(secret: &str) -> [u8; 32] {
    ParsedKey::parse(secret).unwrap().hash()
}

/// A change of a store with the tenants `acme` and `other`.
async fn begun(scratch: &Scratch) -> Change {
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    crate::catalog::store_embedded(&mut change, relais_policies::Catalog::embedded()).await.unwrap();
    for id in ["acme", "other"] {
        let new: NewTenant = serde_json::from_value(serde_json::json!({ "id": id, "name": id })).unwrap();
        tenants::create(&mut change, &new).await.unwrap();
    }
    change
}

fn new(scope: serde_json::Value) -> NewKey {
    serde_json::from_value(serde_json::json!({ "label": "ci", "scope": scope })).unwrap()
}

#[tokio::test]
async fn only_the_hash_of_a_secret_is_kept_and_the_gateway_s_code_opens_it() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let issued = issue(&mut change, "acme", &new(serde_json::json!({}))).await.unwrap();
    assert!(issued.secret.starts_with(&format!("rk_live_{}_", issued.key.public_id)));
    let row = kept(change.sql(), &issued.key.public_id).await;
    assert_eq!(hash_from_hex(&row.hash), Some(hash_of(&issued.secret)));
    let trail = crate::audit::list(change.sql(), None, None, 100).await.unwrap();
    let trail = serde_json::to_string(&trail).unwrap();
    let (_, secret) = issued.secret.rsplit_once('_').unwrap();
    assert!(trail.contains("key.issue") && !trail.contains(secret) && !trail.contains(&row.hash));
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn a_rotation_keeps_the_id_and_the_old_secret_for_a_while() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let first = issue(&mut change, "acme", &new(serde_json::json!({}))).await.unwrap();
    let id = first.key.public_id.clone();
    let second = rotate(&mut change, "acme", &id, &RotateKey { overlap_ms: Some(1_000) }).await.unwrap();
    assert_eq!(second.key.public_id, id);
    let row = kept(change.sql(), &id).await;
    assert_eq!(hash_from_hex(&row.hash), Some(hash_of(&second.secret)));
    assert_eq!(row.previous_hash.as_deref().and_then(hash_from_hex), Some(hash_of(&first.secret)));
    assert_eq!(row.previous_until, Some(scratch.clock.now_ms() + 1_000));

    // At once: nothing of the old one stays.
    rotate(&mut change, "acme", &id, &RotateKey { overlap_ms: Some(0) }).await.unwrap();
    let row = kept(change.sql(), &id).await;
    assert_eq!((row.previous_hash, row.previous_until), (None, None));
    for overlap in [-1, OVERLAP_MS_MAX + 1] {
        let refused = rotate(&mut change, "acme", &id, &RotateKey { overlap_ms: Some(overlap) }).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid);
    }
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn a_revoked_key_stays_revoked() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let id = issue(&mut change, "acme", &new(serde_json::json!({}))).await.unwrap().key.public_id;
    rotate(&mut change, "acme", &id, &RotateKey::default()).await.unwrap();
    assert!(revoke(&mut change, "acme", &id).await.unwrap().revoked_at.is_some());
    assert_eq!(kept(change.sql(), &id).await.previous_hash, None);
    for refused in [
        revoke(&mut change, "acme", &id).await.unwrap_err(),
        rotate(&mut change, "acme", &id, &RotateKey::default()).await.unwrap_err(),
        edit(&mut change, "acme", &id, &EditKey::default()).await.unwrap_err(),
    ] {
        assert_eq!(refused.reason, Reason::Conflict);
    }
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn a_key_is_found_with_its_own_tenant_only() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    let id = issue(&mut change, "acme", &new(serde_json::json!({}))).await.unwrap().key.public_id;
    for refused in [
        get(change.sql(), "other", &id).await.unwrap_err(),
        revoke(&mut change, "other", &id).await.unwrap_err(),
        issue(&mut change, "nobody", &new(serde_json::json!({}))).await.unwrap_err(),
    ] {
        assert_eq!(refused.reason, Reason::NotFound);
    }
    let page = Page { after: String::new(), limit: 10 };
    assert!(list(change.sql(), "other", &page).await.unwrap().items.is_empty());
    assert_eq!(list(change.sql(), "acme", &page).await.unwrap().items.len(), 1);
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn limits_of_a_key_are_checked_and_changed_whole() {
    let scratch = Scratch::new().await;
    let mut change = begun(&scratch).await;
    for bad in [
        serde_json::json!({ "calls_per_minute": 0 }),
        serde_json::json!({ "calls_per_minute": 4_294_967_296_u64 }),
        serde_json::json!({ "shadow": ["calls_per_month"] }),
        serde_json::json!({ "models": ["a*b"] }),
    ] {
        let refused = issue(&mut change, "acme", &new(bad.clone())).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid, "{bad}");
    }
    let scope = serde_json::json!({ "calls_per_month": 10, "shadow": ["calls_per_month"], "models": ["gpt-*"] });
    let id = issue(&mut change, "acme", &new(scope)).await.unwrap().key.public_id;
    let edited = EditKey { label: None, scope: Some(Scope::default()) };
    let key = edit(&mut change, "acme", &id, &edited).await.unwrap();
    assert_eq!((key.label.as_str(), key.scope), ("ci", Scope::default()));
    drop(change);
    scratch.close().await;
}
