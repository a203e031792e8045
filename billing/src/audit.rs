//! The audit trail: who did what to which object, before and after, in a chain of hashes.
//!
//! Each entry's hash covers its fields and the hash before it, so an entry that is altered, removed or put in between
//! breaks the chain from there on, and [`verify`] says where. Cutting off its end does not show here: whoever must
//! prove that too keeps the last hash elsewhere. Entries are written inside the change they tell of
//! ([`crate::store::Change::audit`]); they hold no secret.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::AnyConnection;

use crate::error::Error;
use crate::instant::Instant;

/// The hash before the first entry.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Entries read at a time while verifying.
const VERIFY_ROWS: i64 = 500;

/// An entry to be written.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// When, Unix ms.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// What, such as `tenant.create`.
    pub action: &'static str,
    /// To what, such as `tenant:acme`.
    pub object: &'a str,
    /// On which request.
    pub request_id: String,
    /// How it was, as JSON.
    pub before: Option<String>,
    /// How it is, as JSON.
    pub after: Option<String>,
}

/// An entry as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Entry {
    /// Its number: 1, 2, 3 and so on.
    pub seq: i64,
    /// When.
    pub at: Instant,
    /// Who: a token's name, or `system`.
    pub actor: String,
    /// What, such as `tenant.create`.
    pub action: String,
    /// To what, such as `tenant:acme`.
    pub object: String,
    /// On which request; empty where there was none.
    pub request_id: String,
    /// How it was.
    #[schemars(with = "Option<serde_json::Value>")]
    pub before: Option<Box<RawValue>>,
    /// How it is.
    #[schemars(with = "Option<serde_json::Value>")]
    pub after: Option<Box<RawValue>>,
    /// Over this entry and the hash of the one before.
    pub hash: String,
}

/// What became of verifying the chain.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verdict {
    /// Entries that are as they were written, from the first one on.
    pub good: i64,
    /// The number at which the chain breaks; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<i64>,
    /// The hash of the last good entry.
    pub last_hash: String,
}

row! {
    struct Row {
        seq: i64,
        at: i64,
        actor: String,
        action: String,
        object: String,
        request_id: String,
        before_json: Option<String>,
        after_json: Option<String>,
        prev_hash: String,
        hash: String,
    }
}

impl Row {
    fn expected_hash(&self) -> Result<String, Error> {
        hash((
            &self.prev_hash,
            self.seq,
            self.at,
            &self.actor,
            &self.action,
            &self.object,
            &self.request_id,
            self.before_json.as_deref(),
            self.after_json.as_deref(),
        ))
    }

    fn shown(self) -> Result<Entry, Error> {
        let raw = |text: Option<String>| text.map(RawValue::from_string).transpose();
        Ok(Entry {
            seq: self.seq,
            at: Instant(self.at),
            actor: self.actor,
            action: self.action,
            object: self.object,
            request_id: self.request_id,
            before: raw(self.before_json)?,
            after: raw(self.after_json)?,
            hash: self.hash,
        })
    }
}

/// What the hash covers, in this order: the hash before, the number, the moment, the actor, the action, the object,
/// the request, before, after.
type Hashed<'a> = (&'a str, i64, i64, &'a str, &'a str, &'a str, &'a str, Option<&'a str>, Option<&'a str>);

/// JSON of the tuple: quoting keeps neighbouring fields apart.
fn hash(fields: Hashed<'_>) -> Result<String, Error> {
    Ok(blake3::hash(&serde_json::to_vec(&fields)?).to_hex().to_string())
}

/// Adds an entry at the end of the chain. The caller's transaction is the only writer.
pub(crate) async fn append(sql: &mut AnyConnection, entry: NewEntry<'_>) -> Result<(), Error> {
    let last: Option<(i64, String)> =
        sqlx::query_as("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(&mut *sql).await?;
    let (last_seq, prev_hash) = last.unwrap_or((0, GENESIS.to_owned()));
    let seq = last_seq + 1;
    let NewEntry { at, actor, action, object, request_id, before, after } = entry;
    let hash = hash((&prev_hash, seq, at, &actor, action, object, &request_id, before.as_deref(), after.as_deref()))?;
    sqlx::query(
        "INSERT INTO audit (seq, at, actor, action, object, request_id, before_json, after_json, prev_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(seq)
    .bind(at)
    .bind(actor)
    .bind(action)
    .bind(object.to_owned())
    .bind(request_id)
    .bind(before)
    .bind(after)
    .bind(prev_hash)
    .bind(hash)
    .execute(sql)
    .await?;
    Ok(())
}

/// Entries with numbers below `before`, newest first, of one object or of all.
pub async fn list(
    sql: &mut AnyConnection,
    object: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM audit WHERE seq < $1 AND ($2 = '' OR object = $2) ORDER BY seq DESC LIMIT $3")
            .bind(before.unwrap_or(i64::MAX))
            .bind(object.unwrap_or_default().to_owned())
            .bind(limit)
            .fetch_all(sql)
            .await?;
    rows.into_iter().map(Row::shown).collect()
}

/// Reads the whole chain and says whether it holds.
pub async fn verify(sql: &mut AnyConnection) -> Result<Verdict, Error> {
    let mut verdict = Verdict { good: 0, broken_at: None, last_hash: GENESIS.to_owned() };
    loop {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(verdict.good)
            .bind(VERIFY_ROWS)
            .fetch_all(&mut *sql)
            .await?;
        if rows.is_empty() {
            return Ok(verdict);
        }
        for row in rows {
            let expected = row.expected_hash()?;
            if row.seq != verdict.good + 1 || row.prev_hash != verdict.last_hash || row.hash != expected {
                verdict.broken_at = Some(verdict.good + 1);
                return Ok(verdict);
            }
            verdict.good = row.seq;
            verdict.last_hash = row.hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Author, Scratch};

    #[tokio::test]
    async fn a_chain_holds_until_somebody_touches_it() {
        let scratch = Scratch::new().await;
        for name in ["one", "two", "three"] {
            let mut change = scratch.store.change(Author::system()).await.unwrap();
            change.audit("thing.create", &format!("thing:{name}"), None, Some(&name)).await.unwrap();
            change.commit().await.unwrap();
        }
        let mut read = scratch.store.read().await.unwrap();
        let whole = verify(&mut read).await.unwrap();
        assert_eq!((whole.good, whole.broken_at), (3, None));
        let listed = list(&mut read, None, None, 2).await.unwrap();
        assert_eq!(listed.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(listed[0].hash, whole.last_hash);
        assert_eq!(list(&mut read, Some("thing:one"), None, 9).await.unwrap().len(), 1);
        assert_eq!(list(&mut read, None, Some(2), 9).await.unwrap()[0].seq, 1);
        drop(read);

        for damage in ["UPDATE audit SET actor = 'mallory' WHERE seq = 2", "DELETE FROM audit WHERE seq = 2"] {
            let mut change = scratch.store.change(Author::system()).await.unwrap();
            sqlx::query(damage).execute(change.sql()).await.unwrap();
            let verdict = verify(change.sql()).await.unwrap();
            assert_eq!((verdict.good, verdict.broken_at), (1, Some(2)), "{damage}");
        }
        scratch.close().await;
    }

    #[tokio::test]
    async fn what_is_not_committed_leaves_no_entry() {
        let scratch = Scratch::new().await;
        let mut change = scratch.store.change(Author::system()).await.unwrap();
        change.audit("thing.create", "thing:one", None, Some(&1)).await.unwrap();
        drop(change);
        let mut change = scratch.store.change(Author::system()).await.unwrap();
        assert_eq!(verify(change.sql()).await.unwrap().good, 0);
        drop(change);
        scratch.close().await;
    }
}
