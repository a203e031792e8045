//! The database file: how it is opened, what is in it, and how it is checked.
//!
//! WAL with `synchronous=FULL`: a commit has been synced when it returns. Automatic checkpoints are off, because
//! they would run inside somebody's commit; the keeper does them on a connection of its own. Pages are 8 KiB, so a
//! typical delivery (2.6 KB, contract 1.8) lies in one page and not on an overflow chain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{InboxError, counted, seal};

/// The shape below. A file with another number is refused rather than guessed at.
pub(super) const VERSION: i64 = 2;

/// How long one connection waits for another's lock. Only a checkpoint that restarts the log takes the writer's.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A conversation is unfinished while one of its deliveries is in state 0. A turn ends in the transaction that
/// finishes its deliveries, so there is no second list of unfinished work that could disagree with the first.
///
/// Deliveries are unique by (conversation, message, dedupe) rather than by one hash over everything: neighbours in
/// time are neighbours in the index, and a commit touches few pages.
const TABLES: &str = "
CREATE TABLE conversations (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL, channel TEXT NOT NULL, account_id INTEGER NOT NULL, number INTEGER NOT NULL,
  status TEXT, owner TEXT, human_message_id INTEGER,
  seen_message_id INTEGER NOT NULL DEFAULT 0,
  answered_message_id INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  changed_at_ms INTEGER NOT NULL,
  seal INTEGER NOT NULL,
  UNIQUE (tenant, channel, account_id, number)
) STRICT;
CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL REFERENCES conversations (id),
  message_id INTEGER NOT NULL,
  event TEXT NOT NULL,
  dedupe BLOB NOT NULL,
  delivery_uuid BLOB,
  received_at_ms INTEGER NOT NULL,
  sum BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  outcome TEXT, turn BLOB, ended_at_ms INTEGER,
  seal INTEGER NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (conversation, message_id, dedupe)
) STRICT;
CREATE INDEX deliveries_unfinished ON deliveries (conversation, seq) WHERE state = 0;
CREATE INDEX deliveries_waiting ON deliveries (received_at_ms) WHERE state = 0;
CREATE TABLE turns (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  conversation INTEGER NOT NULL REFERENCES conversations (id),
  upto_seq INTEGER NOT NULL,
  known_message_id INTEGER NOT NULL,
  handoff TEXT,
  deferrals INTEGER NOT NULL DEFAULT 0,
  planned_at_ms INTEGER NOT NULL,
  outcome TEXT, ended_at_ms INTEGER,
  seal INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX turns_open ON turns (conversation) WHERE outcome IS NULL;
CREATE INDEX turns_of ON turns (conversation);
CREATE TABLE posts (
  turn BLOB NOT NULL, part INTEGER NOT NULL,
  kind TEXT NOT NULL, text TEXT NOT NULL, sum BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  sending_at_ms INTEGER, message_id INTEGER,
  seal INTEGER NOT NULL,
  PRIMARY KEY (turn, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE lines (
  conversation INTEGER NOT NULL, message_id INTEGER NOT NULL,
  voice TEXT NOT NULL, text TEXT NOT NULL, sum BLOB NOT NULL,
  PRIMARY KEY (conversation, message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE house (
  only INTEGER PRIMARY KEY CHECK (only = 1), stopped_cleanly INTEGER NOT NULL, commits INTEGER NOT NULL
) STRICT;
INSERT INTO house VALUES (1, 1, 0);
";

/// Made later than the tables, so they may be missing in a file of this version.
const LATER_INDICES: &str = "
CREATE INDEX IF NOT EXISTS deliveries_damaged ON deliveries (conversation) WHERE state = 2;
CREATE INDEX IF NOT EXISTS conversations_put_off ON conversations (not_before_ms) WHERE not_before_ms > 0;
CREATE INDEX IF NOT EXISTS conversations_pending ON conversations (tenant, channel, changed_at_ms)
  WHERE status = 'pending';
";

/// Columns of `turns` that were added later than the tables, so they may be missing in a file of this version: the
/// agent that a turn's decision is of, and the tokens it took.
const LATER_COLUMNS: [(&str, &str); 4] = [
    ("agent", "TEXT"),
    ("input_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("cached_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("output_tokens", "INTEGER NOT NULL DEFAULT 0"),
];

fn add_later_columns(connection: &Connection) -> Result<(), rusqlite::Error> {
    for (name, kind) in LATER_COLUMNS {
        if !has_column(connection, name)? {
            connection.execute_batch(&format!("ALTER TABLE turns ADD COLUMN {name} {kind}"))?;
        }
    }
    Ok(())
}

/// Whether `turns` has this column yet.
pub(super) fn has_column(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    connection.prepare_cached("SELECT 1 FROM pragma_table_info('turns') WHERE name = ?1")?.exists([name])
}

/// Where the file is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("inbox.db")
}

/// Pages the writer keeps: the unfinished part of the tables, the tops of the indices, what one transaction changes.
const WRITER_CACHE_KIB: i64 = 4 * 1024;
/// Pages every other connection keeps: the tops of the indices. The rest is in the system's cache, one copy for all.
const READER_CACHE_KIB: i64 = 1024;

/// The writer's connection.
pub(super) fn connect(dir: &Path) -> Result<Connection, InboxError> {
    open(dir, WRITER_CACHE_KIB)
}

/// Any other that may write: the keeper's, which copies the log.
pub(super) fn connect_beside(dir: &Path) -> Result<Connection, InboxError> {
    open(dir, READER_CACHE_KIB)
}

fn open(dir: &Path, cache_kib: i64) -> Result<Connection, InboxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(dir), flags).map_err(InboxError::Open)?;
    prepare(&connection, cache_kib).map_err(InboxError::Open)?;
    Ok(connection)
}

/// A connection for reading.
pub(super) fn connect_reader(dir: &Path) -> Result<Connection, InboxError> {
    let connection = connect_beside(dir)?;
    connection.pragma_update(None, "query_only", true).map_err(InboxError::Open)?;
    Ok(connection)
}

fn prepare(connection: &Connection, cache_kib: i64) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(LOCK_WAIT)?;
    // Only has an effect on a file that has no page yet, and must come before the log is chosen.
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Negative: KiB.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(64);
    seal::register(connection)
}

/// Makes the tables in an empty file, brings an older one up to date, refuses one of an unknown shape, and checks one
/// that was not closed. From here on the file counts as not closed until [`mark_stopped`]. How many transactions it
/// has.
pub(super) fn begin(connection: &mut Connection) -> Result<u64, InboxError> {
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(InboxError::Open)?;
    match version {
        0 => create(connection).map_err(InboxError::Open)?,
        1 => seal_all(connection).map_err(InboxError::Open)?,
        VERSION => {}
        other => return Err(InboxError::Version(other)),
    }
    let stopped_cleanly: bool =
        connection.query_row("SELECT stopped_cleanly FROM house", [], |row| row.get(0)).map_err(InboxError::Open)?;
    if !stopped_cleanly {
        check(connection)?;
    }
    add_later_columns(connection).map_err(InboxError::Open)?;
    connection.execute_batch(counted::TABLE).map_err(InboxError::Open)?;
    connection.execute_batch(LATER_INDICES).map_err(InboxError::Open)?;
    connection.execute("UPDATE house SET stopped_cleanly = 0", []).map_err(InboxError::Open)?;
    commits(connection).map_err(InboxError::Open)
}

/// How many transactions the file has.
pub(super) fn commits(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection.query_row("SELECT commits FROM house", [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// After the end of the log was lost: nobody knows what was posted meanwhile. What is unfinished is shown to humans
/// (a human "spoke" in it, before every message, and no status is known from which it could have come back) rather than
/// answered, perhaps for a second time; and the count goes on where it had been.
pub(super) fn distrust_unfinished(connection: &mut Connection, commits: u64) -> Result<usize, InboxError> {
    let changed = (|| {
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "UPDATE conversations SET status = NULL, human_message_id = 0, not_before_ms = 0,
             seal = seal('conversation', tenant, channel, account_id, number, NULL, owner, 0, seen_message_id,
             answered_message_id, 0)
             WHERE id IN (SELECT conversation FROM deliveries WHERE state = 0)",
            [],
        )?;
        transaction.execute("UPDATE house SET commits = ?1", [commits.cast_signed()])?;
        transaction.commit()?;
        Ok(changed)
    })();
    changed.map_err(InboxError::Open)
}

fn create(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Version 1 had no seals and did not count.
fn seal_all(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch("ALTER TABLE house ADD COLUMN commits INTEGER NOT NULL DEFAULT 0")?;
    for (table, alias, expression) in [
        ("conversations", "c", seal::CONVERSATION),
        ("deliveries", "d", seal::DELIVERY),
        ("turns", "t", seal::TURN),
        ("posts", "p", seal::POST),
    ] {
        transaction.execute_batch(&format!(
            "ALTER TABLE {table} ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
             UPDATE {table} AS {alias} SET seal = {expression};"
        ))?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// After a failed sync nothing that is only in the log may be believed to be on the disk: the kernel may have
/// dropped the pages and still show them. Copying the log into the database writes them anew and syncs again.
pub(super) fn settle_log(connection: &Connection) -> Result<(), InboxError> {
    let blocked: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(InboxError::Open)?;
    if blocked { Err(InboxError::LogBusy) } else { Ok(()) }
}

/// Reads every page and compares the structures. Rows are checked one by one when they are read, and
/// all of them in time by the keeper.
pub(super) fn check(connection: &Connection) -> Result<(), InboxError> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(InboxError::Open)?;
    if verdict == "ok" { Ok(()) } else { Err(InboxError::Damaged(verdict)) }
}

/// Says that the file is closed and whole.
pub(super) fn mark_stopped(connection: &Connection) -> Result<(), InboxError> {
    connection.execute("UPDATE house SET stopped_cleanly = 1", []).map_err(InboxError::Open)?;
    match settle_log(connection) {
        // A reader is still at it: the log stays, and is as good as the database.
        Err(InboxError::LogBusy) => Ok(()),
        result => result,
    }
}
