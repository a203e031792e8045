//! Tenants, their plans and their contracts, on whichever engine the tests run.

use relais_policies::{Family, Feature, Limit};

use super::overrides::SetOverride;
use super::plans::SetPlan;
use super::*;
use crate::error::Reason;
use crate::store::{Author, Scratch};

fn new(id: &str, plans: &[&str]) -> NewTenant {
    let plans = plans.iter().map(|code| PlanCode::from(*code)).collect();
    NewTenant {
        id: Some(id.to_owned()),
        name: "Acme".to_owned(),
        email: None,
        country: None,
        anchor: None,
        shadow: Vec::new(),
        plans,
    }
}

/// A store with the embedded plans and the tenant `acme`.
async fn with_acme(plans: &[&str]) -> Scratch {
    let scratch = Scratch::new().await;
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    crate::catalog::store_embedded(&mut change, relais_policies::Catalog::embedded()).await.unwrap();
    create(&mut change, &new("acme", plans)).await.unwrap();
    change.commit().await.unwrap();
    scratch
}

async fn compiled(scratch: &Scratch, at_ms: i64) -> relais_policies::TenantPolicy {
    let mut read = scratch.store.read().await.unwrap();
    let compilable = policy::spec(&mut read, "acme", at_ms).await.unwrap();
    relais_policies::TenantPolicy::compile(&compilable.catalog, &compilable.spec).unwrap()
}

#[tokio::test]
async fn a_tenant_is_made_once_and_every_change_has_a_revision_and_an_entry() {
    let scratch = with_acme(&["app.pro"]).await;
    assert_eq!(*scratch.store.revisions().borrow(), 1);
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let twice = create(&mut change, &new("acme", &[])).await.unwrap_err();
    assert_eq!(twice.reason, Reason::Conflict);
    let edit_it = EditTenant { email: Some("a@example.com".to_owned()), ..EditTenant::default() };
    let edited = edit(&mut change, "acme", &edit_it).await.unwrap();
    assert_eq!((edited.name.as_str(), edited.email.as_deref()), ("Acme", Some("a@example.com")));
    set_status(&mut change, "acme", Status::Suspended).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(*scratch.store.revisions().borrow(), 3);
    assert_eq!(compiled(&scratch, scratch.clock.now_ms()).await.status, Status::Suspended);

    let mut read = scratch.store.read().await.unwrap();
    let entries = crate::audit::list(&mut read, Some("tenant:acme"), None, 10).await.unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["tenant.suspend", "tenant.edit", "tenant.create"]);
    drop(read);
    scratch.close().await;
}

#[tokio::test]
async fn one_plan_a_family_and_the_version_that_was_bought_is_kept() {
    let scratch = with_acme(&["app.pro", "api.basic"]).await;
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let two = create(&mut change, &new("other", &["app.pro", "app.free"])).await.unwrap_err();
    assert_eq!(two.reason, Reason::Invalid);
    drop(change);

    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let mut dearer = relais_policies::Catalog::embedded().plan("app.pro").unwrap().clone();
    dearer.version = 2;
    dearer.limits.tokens_per_month = Some(Limit::AtMost(1));
    crate::catalog::add(&mut change, &dearer).await.unwrap();
    change.commit().await.unwrap();
    let now_ms = scratch.clock.now_ms();
    assert_eq!(compiled(&scratch, now_ms).await.limits.tokens_per_month, Limit::AtMost(25_000));

    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let to = |code: &str, version| SetPlan { code: code.into(), version };
    let wrong = plans::set(&mut change, "acme", Family::Api, &to("app.pro", None)).await.unwrap_err();
    assert_eq!(wrong.reason, Reason::Invalid);
    let missing = plans::set(&mut change, "acme", Family::App, &to("app.pro", Some(9))).await.unwrap_err();
    assert_eq!(missing.reason, Reason::Invalid);
    drop(change);

    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let moved = plans::set(&mut change, "acme", Family::App, &to("app.pro", None)).await.unwrap();
    assert_eq!(moved.plans.iter().map(|held| held.version).collect::<Vec<_>>(), [1, 2]);
    plans::end(&mut change, "acme", Family::Api).await.unwrap();
    let nothing = plans::end(&mut change, "acme", Family::Chatwoot).await.unwrap_err();
    assert_eq!(nothing.reason, Reason::NotFound);
    change.commit().await.unwrap();
    let policy = compiled(&scratch, now_ms).await;
    assert_eq!(policy.limits.tokens_per_month, Limit::AtMost(1));
    // Pro opens the API, so its free plan holds.
    assert_eq!(policy.plans.api, Some("api.free".into()));
    scratch.close().await;
}

#[tokio::test]
async fn an_override_holds_until_its_end_and_says_who_and_why() {
    let scratch = with_acme(&[]).await;
    let now_ms = scratch.clock.now_ms();
    let day = 86_400_000;
    let set_to = |value: serde_json::Value, until| SetOverride { value, reason: "contract 7".to_owned(), until };
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    for (path, value) in [
        ("tokens_per_moth", 1.into()),
        ("tokens_per_month", "lots".into()),
        ("features", serde_json::json!(["teleport"])),
        ("models", serde_json::json!(["*x"])),
    ] {
        let refused = overrides::set(&mut change, "acme", path, &set_to(value, None)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid, "{path}");
    }
    let past = set_to(1.into(), Some(Instant(now_ms)));
    assert!(overrides::set(&mut change, "acme", "seats", &past).await.is_err());
    drop(change);

    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let until = Some(Instant(now_ms + day));
    overrides::set(&mut change, "acme", "tokens_per_month", &set_to(1.into(), None)).await.unwrap();
    overrides::set(&mut change, "acme", "tokens_per_month", &set_to(7_000.into(), until)).await.unwrap();
    overrides::set(&mut change, "acme", "features", &set_to(serde_json::json!(["sso"]), None)).await.unwrap();
    change.commit().await.unwrap();
    let policy = compiled(&scratch, now_ms).await;
    assert_eq!(policy.limits.tokens_per_month, Limit::AtMost(7_000));
    assert!(policy.has(Feature::Sso));
    assert_eq!(compiled(&scratch, now_ms + day).await.limits.tokens_per_month, Limit::AtMost(500));

    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let listed = overrides::list(change.sql(), "acme").await.unwrap();
    assert_eq!(listed.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["features", "tokens_per_month"]);
    assert_eq!((listed[1].author.as_str(), listed[1].reason.as_str()), ("system", "contract 7"));
    overrides::remove(&mut change, "acme", "features").await.unwrap();
    let gone = overrides::remove(&mut change, "acme", "features").await.unwrap_err();
    assert_eq!(gone.reason, Reason::NotFound);
    change.commit().await.unwrap();
    assert!(!compiled(&scratch, now_ms).await.has(Feature::Sso));
    scratch.close().await;
}

#[tokio::test]
async fn a_deleted_tenant_leaves_its_books_and_nothing_that_names_anybody() {
    let scratch = with_acme(&["app.pro"]).await;
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    let gone = delete(&mut change, "acme").await.unwrap();
    assert_eq!((gone.name.as_str(), gone.plans.len()), ("", 0));
    assert!(gone.deleted_at.is_some());
    for refused in [
        delete(&mut change, "acme").await.unwrap_err(),
        set_status(&mut change, "acme", Status::Active).await.unwrap_err(),
        create(&mut change, &new("acme", &[])).await.unwrap_err(),
    ] {
        assert_eq!(refused.reason, Reason::Conflict);
    }
    let page = Page { after: String::new(), limit: 10 };
    assert!(list(change.sql(), &page, false).await.unwrap().items.is_empty());
    assert_eq!(list(change.sql(), &page, true).await.unwrap().items.len(), 1);
    let op: String = sqlx::query_scalar("SELECT op FROM policy_changes WHERE subject = 'tenant:acme'")
        .fetch_one(change.sql())
        .await
        .unwrap();
    assert_eq!(op, "delete");
    drop(change);
    scratch.close().await;
}

#[tokio::test]
async fn words_that_are_none_are_refused() {
    let scratch = with_acme(&[]).await;
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    for bad in [
        NewTenant { name: " ".to_owned(), ..new("a", &[]) },
        NewTenant { email: Some("nobody".to_owned()), ..new("a", &[]) },
        NewTenant { country: Some("fr".to_owned()), ..new("a", &[]) },
        new("A", &[]),
        new("a", &["app.gold"]),
    ] {
        let refused = create(&mut change, &bad).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid, "{bad:?}");
    }
    drop(change);
    scratch.close().await;
}
