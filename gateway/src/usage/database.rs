//! The file `usage.db`: its tables, one transaction of the writer, and what is read from it.
//!
//! WAL with `synchronous=FULL`: a commit has been synced when it returns. Checkpoint rows carry a checksum over
//! whose they are and what they say, so a flipped bit or a row moved by hand is noticed. Counts are 64 bits with a
//! sign in SQLite; what does not fit is the largest that does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use crate::admission::{AccountState, Counts, KeyState, Kind, Past, PeriodSum};
use crate::usage::LedgerError;
use crate::usage::batch::{Batch, UsedBy};

/// The shape below. A file with another number is refused rather than guessed at.
const VERSION: i64 = 1;
/// How long one connection waits for another's lock. Only copying the log out takes one.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const TABLES: &str = "
CREATE TABLE house (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO house VALUES (1, 0);
CREATE TABLE usage (
  tenant TEXT NOT NULL, day INTEGER NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
  period_ms INTEGER NOT NULL,
  calls INTEGER NOT NULL, estimated_calls INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  budget_tokens INTEGER NOT NULL,
  PRIMARY KEY (tenant, day, key, model, kind, period_ms)
) STRICT, WITHOUT ROWID;
CREATE TABLE accounts (tenant TEXT PRIMARY KEY, state TEXT NOT NULL, sum BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE account_keys (
  tenant TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, sum BLOB NOT NULL, PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
";

/// `MIN` because a sum beyond 2^63 becomes a fraction in SQLite, and would be refused here for ever.
const ADD: &str = "
INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT DO UPDATE SET
  calls = MIN(9223372036854775807, calls + excluded.calls),
  estimated_calls = MIN(9223372036854775807, estimated_calls + excluded.estimated_calls),
  input_tokens = MIN(9223372036854775807, input_tokens + excluded.input_tokens),
  cached_tokens = MIN(9223372036854775807, cached_tokens + excluded.cached_tokens),
  output_tokens = MIN(9223372036854775807, output_tokens + excluded.output_tokens),
  budget_tokens = MIN(9223372036854775807, budget_tokens + excluded.budget_tokens)";

/// Where the file is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("usage.db")
}

/// Opens the file, or makes it.
pub(super) fn open(dir: &Path) -> Result<Connection, LedgerError> {
    let mut db =
        connect(dir, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).map_err(LedgerError::Open)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(LedgerError::Open)?;
    match version {
        0 => create(&mut db).map_err(LedgerError::Open)?,
        VERSION => {}
        other => return Err(LedgerError::Version(other)),
    }
    Ok(db)
}

/// Opens a file that must be there, after trouble: what the log holds is copied into the tables and synced, since
/// nothing that is only in a log whose sync failed may be believed to be on the disk.
pub(super) fn reopen(dir: &Path) -> Result<Connection, rusqlite::Error> {
    let db = connect(dir, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(code, Some("somebody reads the log".to_owned())));
    }
    Ok(db)
}

/// A connection for reading.
pub(super) fn open_for_reading(dir: &Path) -> Result<Connection, rusqlite::Error> {
    let db = connect(dir, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn connect(dir: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open_with_flags(path(dir), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(LOCK_WAIT)?;
    db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    db.pragma_update(None, "synchronous", "full")?;
    Ok(db)
}

fn create(db: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = db.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// The number of the last batch in the file.
pub(super) fn number(db: &Connection) -> Result<u64, rusqlite::Error> {
    db.query_row("SELECT number FROM house", [], |row| unsigned(row, 0))
}

/// Writes a batch in one transaction.
pub(super) fn write(db: &mut Connection, batch: &Batch) -> Result<(), rusqlite::Error> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write_in(&transaction, batch)?;
    transaction.commit()
}

fn write_in(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), rusqlite::Error> {
    let mut add = transaction.prepare_cached(ADD)?;
    let mut put_account = transaction.prepare_cached("INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3)")?;
    let mut put_key = transaction.prepare_cached("INSERT OR REPLACE INTO account_keys VALUES (?1, ?2, ?3, ?4)")?;
    for (tenant_id, tenant) in &batch.tenants {
        for (by, counts) in &tenant.used {
            add.execute(params![
                tenant_id,
                by.day,
                key_text(&by.key),
                by.model,
                by.kind.as_str(),
                by.period_ms,
                signed(counts.calls),
                signed(counts.estimated_calls),
                signed(counts.input_tokens),
                signed(counts.cached_tokens),
                signed(counts.output_tokens),
                signed(counts.budget_tokens),
            ])?;
        }
        let state = to_json(&tenant.account)?;
        put_account.execute(params![tenant_id, state, checksum(tenant_id, "", &state)])?;
        for (key, state) in &tenant.keys {
            let (key, state) = (key_text(key), to_json(state)?);
            put_key.execute(params![tenant_id, key, state, checksum(tenant_id, &key, &state)])?;
        }
    }
    transaction.execute("UPDATE house SET number = ?1", [signed(batch.number)])?;
    Ok(())
}

/// What the file knows of every account.
pub(super) struct Loaded {
    pub(super) pasts: Vec<(Arc<str>, Past)>,
    /// Checkpoints that were damaged, and replaced by what the deltas say.
    pub(super) damaged: u64,
}

/// Reads all checkpoints.
pub(super) fn load(db: &Connection) -> Result<Loaded, rusqlite::Error> {
    let mut loaded = Loaded { pasts: Vec::new(), damaged: 0 };
    let mut keys: BTreeMap<String, Vec<(String, Option<KeyState>)>> = BTreeMap::new();
    let mut statement = db.prepare("SELECT tenant, key, state, sum FROM account_keys")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (tenant_id, key): (String, String) = (row.get(0)?, row.get(1)?);
        let state = from_row(row, 2, &tenant_id, &key);
        keys.entry(tenant_id).or_default().push((key, state));
    }
    let mut statement = db.prepare("SELECT tenant, state, sum FROM accounts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let tenant_id: String = row.get(0)?;
        let state: Option<AccountState> = from_row(row, 1, &tenant_id, "");
        let keys = keys.remove(&tenant_id).unwrap_or_default();
        let past = past(db, &tenant_id, state, keys, &mut loaded.damaged)?;
        loaded.pasts.push((Arc::from(tenant_id), past));
    }
    Ok(loaded)
}

/// Every tenant's account as it was last written, those whose record is damaged left out.
pub(super) fn accounts(db: &Connection) -> Result<Vec<(String, AccountState)>, rusqlite::Error> {
    let mut statement = db.prepare("SELECT tenant, state, sum FROM accounts ORDER BY tenant")?;
    let mut rows = statement.query([])?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant_id: String = row.get(0)?;
        if let Some(state) = from_row(row, 1, &tenant_id, "") {
            accounts.push((tenant_id, state));
        }
    }
    Ok(accounts)
}

/// One account's past. Where a record is damaged, the deltas say what was used; running calls are not known then.
fn past(
    db: &Connection,
    tenant_id: &str,
    state: Option<AccountState>,
    keys: Vec<(String, Option<KeyState>)>,
    damaged: &mut u64,
) -> Result<Past, rusqlite::Error> {
    let sums = if state.is_none() { sums(db, tenant_id)? } else { Vec::new() };
    let since_ms = state.as_ref().map(|state| state.since_ms).or(sums.last().map(|sum| sum.period_ms)).unwrap_or(0);
    let mut known = Vec::with_capacity(keys.len());
    for (key, state) in keys {
        let Some(public_id) = key_id(&key) else { continue };
        let state = match state {
            Some(state) => state,
            None => {
                *damaged += 1;
                error!(tenant_id, key, "A key's checkpoint is damaged. Its counters are those of its recorded usage.");
                key_sum(db, tenant_id, &key, since_ms)?
            }
        };
        known.push((public_id, state));
    }
    if let Some(state) = state {
        match Past::checkpoint(state, known.clone()) {
            Ok(past) => return Ok(past),
            Err(error) => error!(%error, tenant_id, "A checkpoint is not a wallet's."),
        }
    }
    *damaged += 1;
    error!(
        tenant_id,
        "A tenant's checkpoint is damaged. Its counters and its wallet are made from its recorded usage."
    );
    Ok(Past::sums(self::sums(db, tenant_id)?, known))
}

fn sums(db: &Connection, tenant_id: &str) -> Result<Vec<PeriodSum>, rusqlite::Error> {
    let mut statement = db.prepare_cached(
        // What our agents asked is no call of the tenant's.
        "SELECT period_ms, SUM(CASE kind WHEN 'agent' THEN 0 ELSE calls END), SUM(budget_tokens)
         FROM usage WHERE tenant = ?1 GROUP BY 1 ORDER BY 1",
    )?;
    let sum =
        |row: &Row<'_>| Ok(PeriodSum { period_ms: row.get(0)?, calls: unsigned(row, 1)?, spent: unsigned(row, 2)? });
    statement.query_map([tenant_id], sum)?.collect()
}

fn key_sum(db: &Connection, tenant_id: &str, key: &str, since_ms: i64) -> Result<KeyState, rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(budget_tokens), 0) FROM usage
         WHERE tenant = ?1 AND key = ?2 AND period_ms = ?3",
    )?;
    statement.query_row(params![tenant_id, key, since_ms], |row| {
        Ok(KeyState { since_ms, calls: unsigned(row, 0)?, spent: unsigned(row, 1)?, open: Vec::new() })
    })
}

/// What a tenant used on these days, `from` included and `to` not, `most` rows at most, and the number of the last
/// batch that is in it.
pub(super) fn used(
    db: &mut Connection,
    tenant_id: &str,
    (from, to): (i64, i64),
    most: usize,
) -> Result<(u64, Vec<(UsedBy, Counts)>), rusqlite::Error> {
    // One snapshot for both.
    let transaction = db.transaction()?;
    let number = number(&transaction)?;
    let mut statement = transaction.prepare_cached(
        "SELECT day, key, model, kind, period_ms,
                calls, estimated_calls, input_tokens, cached_tokens, output_tokens, budget_tokens
         FROM usage WHERE tenant = ?1 AND day >= ?2 AND day < ?3 LIMIT ?4",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![tenant_id, from, to, most], used_row)?.collect::<Result<_, _>>()?;
    Ok((number, rows))
}

fn used_row(row: &Row<'_>) -> Result<(UsedBy, Counts), rusqlite::Error> {
    let (key, kind): (String, String) = (row.get(1)?, row.get(3)?);
    let strange = |column: usize, text: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("\"{text}\" is not ours").into())
    };
    let by = UsedBy {
        day: row.get(0)?,
        key: key_id(&key).ok_or_else(|| strange(1, &key))?,
        model: row.get(2)?,
        kind: Kind::named(&kind).ok_or_else(|| strange(3, &kind))?,
        period_ms: row.get(4)?,
    };
    let counts = Counts {
        calls: unsigned(row, 5)?,
        estimated_calls: unsigned(row, 6)?,
        input_tokens: unsigned(row, 7)?,
        cached_tokens: unsigned(row, 8)?,
        output_tokens: unsigned(row, 9)?,
        budget_tokens: unsigned(row, 10)?,
    };
    Ok((by, counts))
}

/// A state and its checksum, from two columns; `None` if they do not agree, or it cannot be read.
fn from_row<T: DeserializeOwned>(row: &Row<'_>, column: usize, tenant_id: &str, key: &str) -> Option<T> {
    let state: String = row.get(column).ok()?;
    let sum: Vec<u8> = row.get(column + 1).ok()?;
    if sum != checksum(tenant_id, key, &state) {
        return None;
    }
    serde_json::from_str(&state).ok()
}

fn to_json(state: &impl Serialize) -> Result<String, rusqlite::Error> {
    serde_json::to_string(state).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn checksum(tenant_id: &str, key: &str, state: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [tenant_id, key, state] {
        hasher.update(part.as_bytes());
        // In no id, and not in JSON.
        hasher.update(&[0]);
    }
    *hasher.finalize().as_bytes()
}

pub(super) fn key_text(key: &[u8; 12]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn key_id(text: &str) -> Option<[u8; 12]> {
    text.as_bytes().try_into().ok()
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let count: i64 = row.get(column)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
