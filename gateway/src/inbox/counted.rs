//! Which conversations are counted in a billing month: a conversation of a managed channel counts once in each, with
//! the turn that first answers it there.
//!
//! A row is written by the transaction that makes the reply durable, before anything is sent, and taken back by the one
//! that ends the turn if nothing of the reply is known to have arrived. Hence no crash forgets or repeats one, and a
//! conversation is in its month's count from the moment it is decided on. Rows outlive what is kept of the
//! conversations themselves: one that is forgotten and comes back in the same month does not count again. They are
//! kept for a few months and no longer.
//!
//! A month is named by the moment since which it counts. What a month or a limit is, nobody here knows.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::record::{ConversationKey, ConversationRow};

/// Made later than the other tables, so it may be missing in a file of this version.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS counted (
  tenant TEXT NOT NULL, channel TEXT NOT NULL, account_id INTEGER NOT NULL, number INTEGER NOT NULL,
  period_ms INTEGER NOT NULL,
  turn BLOB NOT NULL,
  seal INTEGER NOT NULL,
  PRIMARY KEY (tenant, channel, account_id, number, period_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS counted_periods ON counted (period_ms);
";

/// Of a row `n`: see `seal`.
const SEAL: &str = "seal('counted', n.tenant, n.channel, n.account_id, n.number, n.period_ms, n.turn)";

/// Conversations of a tenant that are counted in a billing month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedIn {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The month: since when it counts, Unix ms.
    pub period_ms: i64,
    /// How many.
    pub conversations: u64,
}

/// Counts a conversation in a month, once. What the disk has changed is written anew.
pub(super) fn count(
    db: &Connection,
    conversation: ConversationRow,
    turn: Uuid,
    period_ms: i64,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached(&format!(
        "INSERT INTO counted AS n (tenant, channel, account_id, number, period_ms, turn, seal)
         SELECT tenant, channel, account_id, number, ?2, ?3,
         seal('counted', tenant, channel, account_id, number, ?2, ?3) FROM conversations WHERE id = ?1
         ON CONFLICT DO UPDATE SET turn = excluded.turn, seal = excluded.seal WHERE n.seal <> {SEAL}"
    ))?
    .execute(params![conversation.0, period_ms, turn.as_bytes()])?;
    Ok(())
}

/// A turn ends. If it counted its conversation and nothing of its reply is known to have arrived, it does not count;
/// the month it had counted in.
pub(super) fn uncount(
    db: &Connection,
    conversation: ConversationRow,
    turn: Option<Uuid>,
) -> Result<Option<i64>, rusqlite::Error> {
    let Some(turn) = turn else { return Ok(None) };
    db.prepare_cached(
        "DELETE FROM counted WHERE (tenant, channel, account_id, number) =
         (SELECT tenant, channel, account_id, number FROM conversations WHERE id = ?1) AND turn = ?2
         AND NOT EXISTS (SELECT 1 FROM posts WHERE turn = ?2 AND kind = 'reply' AND state = 2) RETURNING period_ms",
    )?
    .query_row(params![conversation.0, turn.as_bytes()], |row| row.get(0))
    .optional()
}

/// Forgets months that began before `before_ms`, `limit` rows at most.
pub(super) fn forget(db: &Connection, before_ms: i64, limit: i64) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "DELETE FROM counted WHERE (tenant, channel, account_id, number, period_ms) IN
         (SELECT tenant, channel, account_id, number, period_ms FROM counted WHERE period_ms < ?1 LIMIT ?2)",
    )?
    .execute(params![before_ms, limit])?;
    Ok(())
}

/// Whether a conversation is counted in the month that counts since `since_ms`.
pub(super) fn is_counted(db: &Connection, key: &ConversationKey, since_ms: i64) -> Result<bool, rusqlite::Error> {
    db.prepare_cached(&format!(
        "SELECT 1 FROM counted n WHERE tenant = ?1 AND channel = ?2 AND account_id = ?3 AND number = ?4
         AND period_ms >= ?5 AND seal = {SEAL}"
    ))?
    .exists(params![
        key.tenant,
        key.channel,
        key.account_id.cast_signed(),
        key.conversation_id.cast_signed(),
        since_ms
    ])
}

/// How many conversations of each tenant are counted in each month.
pub(super) fn all(db: &Connection) -> Result<Vec<CountedIn>, rusqlite::Error> {
    let sql =
        format!("SELECT tenant, period_ms, count(*) FROM counted n WHERE seal = {SEAL} GROUP BY tenant, period_ms");
    db.prepare(&sql)?
        .query_map([], |row| {
            let conversations = row.get::<_, i64>(2)?.cast_unsigned();
            Ok(CountedIn { tenant: row.get(0)?, period_ms: row.get(1)?, conversations })
        })?
        .collect()
}
