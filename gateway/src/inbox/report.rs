//! What an operator may ask of the inbox: what is unfinished or damaged, and one conversation's whole story.
//!
//! Reads `inbox.db` on a connection that cannot write, beside a gateway that runs, each question in one view of all
//! tables. The two changes an operator may make are single transactions that a running gateway finds by itself: it
//! looks into the table every few seconds.
//!
//! Nothing here prints. Texts are left out unless asked for, and bodies always: they hold credentials of customers.

mod story;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior, params};
use serde::Serialize;

use super::{schema, seal};

pub use story::{DeliveryStory, LineStory, PostStory, Story, TurnStory};

/// How long we wait for the gateway's transaction, or a checkpoint of it.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What is left of each conversation. Two halves, each of which an index holds: a scan of all deliveries is a scan of
/// all bodies.
const LEFT: &str = "
    SELECT conversation, min(received_at_ms) AS oldest, sum(state = 0) AS unfinished, sum(state = 2) AS damaged
    FROM (SELECT conversation, received_at_ms, state FROM deliveries WHERE state = 0
          UNION ALL SELECT conversation, received_at_ms, state FROM deliveries WHERE state = 2)
    GROUP BY conversation";

/// Why the inbox says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no inbox.
    #[error("there is no {}: nothing was accepted yet, or storage.dir is another", .0.display())]
    NoInbox(PathBuf),
    /// Another version of Relais wrote it.
    #[error("{} has version {version}, which this Relais does not know", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// It cannot be read.
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] rusqlite::Error),
    /// The gateway is writing all the time.
    #[error("the gateway is busy writing; nothing was changed, try again")]
    Busy,
    /// It cannot be changed.
    #[error("changing {}", .0.display())]
    Write(PathBuf, #[source] rusqlite::Error),
}

/// Which conversations.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this channel.
    pub channel: Option<String>,
    /// Of this account at Chatwoot.
    pub account_id: Option<u64>,
    /// With this number.
    pub conversation_id: Option<u64>,
}

/// A conversation with something that is not finished, or damaged.
#[derive(Debug, Serialize)]
pub struct Waiting {
    #[serde(flatten)]
    conversation: Named,
    /// `due`, `put_off`, or `damaged` if nothing but damaged deliveries is left.
    pub state: &'static str,
    /// When the oldest of its deliveries that wait arrived: Unix ms.
    pub oldest_at_ms: i64,
    /// Deliveries not finished.
    pub unfinished: u64,
    /// Deliveries set aside because they could not be read back.
    pub damaged: u64,
    /// Times its open turn was put off.
    pub tries: u32,
    /// When it is tried again, if it was put off: Unix ms.
    pub not_before_ms: Option<i64>,
    /// Why a human takes over, if that is what its open turn does.
    pub handoff: Option<String>,
}

impl Waiting {
    /// Which conversation it is.
    pub fn named(&self) -> &Named {
        &self.conversation
    }
}

/// Which conversation it is.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    /// The tenant.
    pub tenant: String,
    /// Its channel.
    pub channel: String,
    /// The account at Chatwoot.
    pub account_id: u64,
    /// The number within the account.
    pub conversation_id: u64,
}

/// What a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Conversations that were put off and are due now.
    pub made_due: usize,
    /// Conversations that were due already.
    pub due_already: usize,
    /// Conversations of which only damaged deliveries are left.
    pub only_damaged: usize,
}

/// The inbox, for reading.
pub struct Report {
    db: Connection,
    path: PathBuf,
}

impl Which {
    fn matches(&self) -> &'static str {
        "(?1 IS NULL OR c.tenant = ?1) AND (?2 IS NULL OR c.channel = ?2) AND (?3 IS NULL OR c.account_id = ?3)
         AND (?4 IS NULL OR c.number = ?4)"
    }

    fn values(&self) -> [Box<dyn rusqlite::ToSql + '_>; 4] {
        let number = |number: Option<u64>| Box::new(number.map(u64::cast_signed));
        [Box::new(&self.tenant), Box::new(&self.channel), number(self.account_id), number(self.conversation_id)]
    }
}

impl Report {
    /// Opens the inbox in the data directory `dir`.
    pub fn open(dir: &Path) -> Result<Self, ReportError> {
        let (db, path) = open(dir, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { db, path })
    }

    /// Conversations with deliveries that are not finished or damaged, the longest waiting first, at most `limit`;
    /// and how many there are in all. `now_ms` tells what is put off.
    pub fn waiting(
        &self,
        which: &Which,
        damaged_only: bool,
        now_ms: i64,
        limit: usize,
    ) -> Result<(Vec<Waiting>, usize), ReportError> {
        self.read(|db| {
            let [a, b, c, d] = which.values();
            let damaged_only = if damaged_only { "w.damaged > 0" } else { "TRUE" };
            let sql = format!(
                "SELECT c.tenant, c.channel, c.account_id, c.number, c.not_before_ms, w.oldest, w.unfinished, w.damaged,
                 t.deferrals, t.handoff
                 FROM ({LEFT}) w
                 JOIN conversations c ON c.id = w.conversation
                 LEFT JOIN turns t ON t.conversation = c.id AND t.outcome IS NULL
                 WHERE {damaged_only} AND {} ORDER BY w.oldest",
                which.matches()
            );
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params![a, b, c, d])?;
            let (mut waiting, mut count) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                count += 1;
                if waiting.len() < limit {
                    waiting.push(one_waiting(row, now_ms)?);
                }
            }
            Ok((waiting, count))
        })
    }

    /// Calls `each` with every conversation that matches, whole; `texts` includes what was said. Stops when told to.
    pub fn stories<E>(
        &self,
        which: &Which,
        texts: bool,
        mut each: impl FnMut(Story) -> Result<(), E>,
    ) -> Result<Result<(), E>, ReportError> {
        self.read(|db| {
            let [a, b, c, d] = which.values();
            let sql = format!("SELECT c.id FROM conversations c WHERE {} ORDER BY c.id", which.matches());
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params![a, b, c, d])?;
            while let Some(row) = rows.next()? {
                if let Err(stop) = each(story::story(db, row.get(0)?, texts)?) {
                    return Ok(Err(stop));
                }
            }
            Ok(Ok(()))
        })
    }

    /// When the channel's last delivery came, of those that are kept: Unix ms.
    pub fn last_delivery_ms(&self, tenant: &str, channel: &str) -> Result<Option<i64>, ReportError> {
        self.read(|db| {
            let sql = "SELECT max(d.received_at_ms) FROM conversations c JOIN deliveries d ON d.conversation = c.id
                       WHERE c.tenant = ?1 AND c.channel = ?2";
            db.query_row(sql, [tenant, channel], |row| row.get(0))
        })
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>) -> Result<T, ReportError> {
        let view = self.db.unchecked_transaction();
        view.and_then(|view| ask(&view)).map_err(|error| ReportError::Read(self.path.clone(), error))
    }
}

/// Makes what was put off due now. A running gateway finds it within seconds, another at its start. Damaged
/// deliveries are not tried again: what is left of them is not what the customer wrote.
pub fn retry(dir: &Path, which: &Which, now_ms: i64) -> Result<Retried, ReportError> {
    change(dir, |db| {
        let [a, b, c, d] = which.values();
        let sql = format!(
            "SELECT c.id, c.not_before_ms > ?5, w.unfinished > 0 FROM ({LEFT}) w
             JOIN conversations c ON c.id = w.conversation WHERE {}",
            which.matches()
        );
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query(params![a, b, c, d, now_ms])?;
        let mut retried = Retried::default();
        while let Some(row) = rows.next()? {
            let (id, put_off, unfinished): (i64, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            match (unfinished, put_off) {
                (false, _) => retried.only_damaged += 1,
                (true, false) => retried.due_already += 1,
                (true, true) => {
                    db.execute(
                        "UPDATE conversations SET not_before_ms = 0, seal = seal('conversation', tenant, channel,
                         account_id, number, status, owner, human_message_id, seen_message_id, answered_message_id, 0)
                         WHERE id = ?1",
                        [id],
                    )?;
                    retried.made_due += 1;
                }
            }
        }
        Ok(retried)
    })
}

/// Says that a human has seen to the damaged deliveries of these conversations: they count no longer, and are
/// forgotten when their time comes. How many they were.
pub fn dismiss(dir: &Path, which: &Which) -> Result<usize, ReportError> {
    change(dir, |db| {
        let [a, b, c, d] = which.values();
        let sql = format!(
            "UPDATE deliveries SET state = 1, seal = seal('delivery', conversation, message_id, dedupe, 1, outcome,
             turn, ended_at_ms) WHERE state = 2
             AND conversation IN (SELECT c.id FROM conversations c WHERE {})",
            which.matches()
        );
        db.execute(&sql, params![a, b, c, d])
    })
}

fn change<T>(dir: &Path, with: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>) -> Result<T, ReportError> {
    let (mut db, path) = open(dir, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let changed = (|| {
        db.pragma_update(None, "synchronous", "full")?;
        // The gateway's keeper does that.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = with(&transaction)?;
        transaction.commit()?;
        Ok(changed)
    })();
    changed.map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ReportError::Busy,
        _ => ReportError::Write(path, error),
    })
}

fn open(dir: &Path, flags: OpenFlags) -> Result<(Connection, PathBuf), ReportError> {
    let path = schema::path(dir);
    if !path.exists() {
        return Err(ReportError::NoInbox(path));
    }
    let opened = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).and_then(|db| {
        db.busy_timeout(LOCK_WAIT)?;
        seal::register(&db)?;
        let version = db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        Ok((db, version))
    });
    match opened {
        Ok((db, schema::VERSION)) => Ok((db, path)),
        Ok((_, version)) => Err(ReportError::Version { path, version }),
        Err(error) => Err(ReportError::Read(path, error)),
    }
}

fn named(row: &Row<'_>) -> Result<Named, rusqlite::Error> {
    Ok(Named {
        tenant: row.get(0)?,
        channel: row.get(1)?,
        account_id: row.get::<_, i64>(2)?.cast_unsigned(),
        conversation_id: row.get::<_, i64>(3)?.cast_unsigned(),
    })
}

fn one_waiting(row: &Row<'_>, now_ms: i64) -> Result<Waiting, rusqlite::Error> {
    let unfinished = row.get::<_, i64>(6)?.cast_unsigned();
    let not_before_ms = Some(row.get::<_, i64>(4)?).filter(|at_ms| unfinished > 0 && *at_ms > now_ms);
    Ok(Waiting {
        conversation: named(row)?,
        state: match (unfinished, not_before_ms) {
            (0, _) => "damaged",
            (_, Some(_)) => "put_off",
            (_, None) => "due",
        },
        oldest_at_ms: row.get(5)?,
        unfinished,
        damaged: row.get::<_, i64>(7)?.cast_unsigned(),
        tries: row.get::<_, Option<u32>>(8)?.unwrap_or(0),
        not_before_ms,
        handoff: row.get(9)?,
    })
}
