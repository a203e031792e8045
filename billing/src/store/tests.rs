//! What the store promises, on whichever engine the tests run.

use super::*;
use crate::store::Subject;

async fn rev_of(store: &Store) -> i64 {
    let mut read = store.read().await.unwrap();
    sqlx::query_scalar("SELECT rev FROM revision").fetch_one(&mut *read).await.unwrap()
}

#[tokio::test]
async fn a_revision_exists_if_and_only_if_its_change_does() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let mut seen = store.revisions();
    assert_eq!(*seen.borrow_and_update(), 0);

    let mut change = store.change(Author::system()).await.unwrap();
    assert_eq!(change.touched(Subject::Tenant("acme")).await.unwrap(), 1);
    drop(change);
    assert_eq!(rev_of(store).await, 0);
    assert!(!seen.has_changed().unwrap());

    let mut change = store.change(Author::system()).await.unwrap();
    assert_eq!(change.touched(Subject::Tenant("acme")).await.unwrap(), 1);
    assert_eq!(change.removed(Subject::Agent("shop")).await.unwrap(), 2);
    assert_eq!(change.touched(Subject::Tenant("acme")).await.unwrap(), 3);
    change.commit().await.unwrap();
    assert_eq!(*seen.borrow_and_update(), 3);

    // Only the last change of each subject is kept.
    let mut read = store.read().await.unwrap();
    let changes: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT rev, subject, op FROM policy_changes ORDER BY rev").fetch_all(&mut *read).await.unwrap();
    let kept = [(2, "agent:shop".to_owned(), "delete".to_owned()), (3, "tenant:acme".to_owned(), "put".to_owned())];
    assert_eq!(changes, kept);
    drop(read);
    scratch.close().await;
}

#[tokio::test]
async fn changes_come_one_after_the_other_and_are_numbered_so() {
    let scratch = Scratch::new().await;
    let writers = (0..20).map(|n| {
        let store = Arc::clone(&scratch.store);
        tokio::spawn(async move {
            let mut change = store.change(Author::system()).await.unwrap();
            let rev = change.touched(Subject::Tenant(&format!("t{n}"))).await.unwrap();
            change.audit("test", "thing", None, Some(&rev)).await.unwrap();
            change.commit().await.unwrap();
            rev
        })
    });
    let mut revs = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        revs.push(writer.await.unwrap());
    }
    revs.sort_unstable();
    assert_eq!(revs, (1..=20).collect::<Vec<_>>());
    let mut read = scratch.store.read().await.unwrap();
    assert_eq!(crate::audit::verify(&mut read).await.unwrap().good, 20);
    drop(read);
    scratch.close().await;
}

#[tokio::test]
async fn a_second_sidecar_is_kept_out_and_the_epoch_stays() {
    let scratch = Scratch::new().await;
    let vault = || Arc::new(Vault::parse(Scratch::KEYS).unwrap());
    let second = Store::open(&scratch.place.database, Clock::system(), vault()).await;
    assert!(matches!(second, Err(OpenError::InUse)), "{second:?}");

    let epoch = scratch.store.epoch.clone();
    assert_eq!(epoch.len(), 32);
    scratch.store.is_ours().await.unwrap();
    let scratch = scratch.reopened().await;
    assert_eq!(scratch.store.epoch, epoch);
    scratch.close().await;
}

#[tokio::test]
async fn a_reader_sees_one_moment() {
    let scratch = Scratch::new().await;
    let mut read = scratch.store.read().await.unwrap();
    let before: i64 = sqlx::query_scalar("SELECT rev FROM revision").fetch_one(&mut *read).await.unwrap();
    let mut change = scratch.store.change(Author::system()).await.unwrap();
    change.touched(Subject::Tenant("acme")).await.unwrap();
    change.commit().await.unwrap();
    let after: i64 = sqlx::query_scalar("SELECT rev FROM revision").fetch_one(&mut *read).await.unwrap();
    assert_eq!((before, after), (0, 0));
    drop(read);
    assert_eq!(rev_of(&scratch.store).await, 1);
    scratch.close().await;
}

#[test]
fn a_path_is_written_so_that_a_url_does_not_cut_it() {
    assert_eq!(percent_encoded(Path::new("/a b/50%?#.db")), "/a%20b/50%25%3F%23.db");
}
