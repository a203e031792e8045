//! The ledger: what every tenant used, on disk, and what its account had, so that a crash forgets a second at most.
//!
//! Constraints: no call waits for the disk, or for the ledger; what is on disk always balances; what is read here is
//! what is enforced; after a crash at any moment the last commit is what holds.
//!
//! Layout: one SQLite file, `usage.db`, apart from the inbox's so that trouble on one does not stop the other; one
//! thread that writes it, once a second, in one transaction with one sync:
//!
//! - *deltas*: what calls came to, added up by tenant, key, model, kind, billing period and day;
//! - *checkpoints*: for each account that changed, its counters, wallet and running calls, taken under the account's
//!   lock together with its deltas. Hence the sum of a tenant's deltas is what its wallet spent, in every commit.
//!
//! Each commit bears the next number. When one fails it cannot be known what of it is on disk; so the file is opened
//! anew, its log copied out and synced, and the number tells whether the batch has to be written again. It is never
//! applied twice. Until the disk takes it, later deltas gather in the next batch, which is as large as the number of
//! places that were busy, not of calls; and past a configured amount of charged budget tokens new calls are refused.
//!
//! A question about usage is answered from disk and memory together: rows of the file, and those of batches whose
//! number it does not have yet.
//!
//! Restoring is not done here but where an account is made: the ledger reads all checkpoints when it is opened, and
//! the journal hands each to its account, whenever its tenant turns up. A checkpoint that is damaged is replaced
//! by what the deltas say; a file that is damaged as a whole is not served on.

mod batch;
mod database;
pub mod report;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::civil::Date;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::admission::{Account, Counts, Journal, Kind};
use crate::config;
use crate::metrics::Metrics;
use crate::storage;
use crate::usage::batch::Shared;
use crate::usage::writer::{Order, Question, Reader, Writer};

/// Questions that wait for the reader at one time; more are refused.
const QUESTIONS_MAX: usize = 64;
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What calls of one key, model, kind, billing period and day came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// The day they began on, UTC.
    pub day: Date,
    /// The key's public id.
    pub key: String,
    /// The model, as the caller named it; `other` where there were too many.
    pub model: Arc<str>,
    /// What kind of calls.
    pub kind: Kind,
    /// The billing period they count in: since when it counts, Unix ms.
    pub period_ms: i64,
    /// What they came to.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Why the ledger does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The data directory.
    #[error("making the data directory")]
    Directory(#[source] io::Error),
    /// The file is not there, not ours, damaged or locked.
    #[error("opening usage.db")]
    Open(#[source] rusqlite::Error),
    /// Another version of Relais wrote it.
    #[error("usage.db has version {0}, which this Relais does not know")]
    Version(i64),
    /// No thread.
    #[error("starting a thread of the ledger")]
    Thread(#[source] io::Error),
    /// The disk does not take what was used. It will be tried again.
    #[error("writing to usage.db")]
    Write(#[source] rusqlite::Error),
    /// The disk does not give what is asked for.
    #[error("reading usage.db")]
    Read(#[source] rusqlite::Error),
    /// More rows than one answer may have.
    #[error("more than {0} rows: ask for fewer days")]
    TooManyRows(usize),
    /// Too many questions at once, or the disk is slow.
    #[error("the ledger is busy")]
    Busy,
    /// It was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// The ledger of a process. Dropped without [`Ledger::close`] it writes nothing more, as if the process had died.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    orders: SyncSender<Order>,
    questions: SyncSender<Question>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens or makes `usage.db` in `dir`, and reads what it knows of every account into the journal. Blocks: before
    /// serving, and before accounts are made.
    pub fn open(dir: &Path, metrics: &Arc<Metrics>, limits: &config::Usage) -> Result<Self, LedgerError> {
        storage::make_dir(dir).map_err(LedgerError::Directory)?;
        let db = database::open(dir)?;
        let journal = Arc::new(Journal::default());
        journal.set_unledgered_max(limits.unledgered_tokens_max);
        let loaded = database::load(&db).map_err(LedgerError::Read)?;
        for (tenant_id, past) in loaded.pasts {
            journal.remember(tenant_id, past);
        }
        metrics.ledger.errors.inc_by(loaded.damaged);
        let number = database::number(&db).map_err(LedgerError::Read)?;
        let shared = Arc::new(Shared::new(journal, Arc::clone(metrics), number));
        // One order at a time is enough: whoever gives one waits for it.
        let (orders, ordered) = sync_channel(1);
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let writer =
            Writer::new(dir.to_path_buf(), db, Arc::clone(&shared), ordered, Duration::from_millis(limits.flush_ms));
        let writer = thread("relais-ledger", move || writer.run())?;
        let reader = Reader::new(dir.to_path_buf(), Arc::clone(&shared), asked);
        // It ends when the questions' sender is gone; nobody waits for it.
        let _reader = thread("relais-usage", move || reader.run())?;
        Ok(Self { shared, orders, questions, writer: Mutex::new(Some(writer)) })
    }

    /// Where accounts say that they changed.
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.shared.journal)
    }

    /// Takes over changed limits.
    pub fn apply(&self, limits: &config::Usage) {
        self.shared.journal.set_unledgered_max(limits.unledgered_tokens_max);
    }

    /// What a tenant used on the days from `from_ms` to before `to_ms` (Unix ms; days are whole, UTC), by day, key,
    /// model, kind and period. Running calls are not in it: they count when they end. Waits for a thread of its own,
    /// 5 s at most.
    pub async fn read(&self, account: &Arc<Account>, from_ms: i64, to_ms: i64) -> Result<Vec<UsageRow>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let question = Question { account: Arc::clone(account), from_ms, to_ms, reply };
        self.questions.try_send(question).map_err(|refused| match refused {
            TrySendError::Full(_) => LedgerError::Busy,
            TrySendError::Disconnected(_) => LedgerError::Closed,
        })?;
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(LedgerError::Closed),
            Err(_elapsed) => Err(LedgerError::Busy),
        }
    }

    /// Writes what happened until now. Blocks until it is on disk, or was tried.
    pub fn flush(&self) -> Result<(), LedgerError> {
        self.order(Order::Flush)
    }

    /// Writes what happened until now, and nothing after. Blocks.
    pub fn close(&self) -> Result<(), LedgerError> {
        let outcome = self.order(Order::Close);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            return Err(LedgerError::Closed);
        }
        outcome
    }

    fn order(&self, order: fn(SyncSender<Result<(), LedgerError>>) -> Order) -> Result<(), LedgerError> {
        let (reply, done) = sync_channel(1);
        self.orders.send(order(reply)).map_err(|_gone| LedgerError::Closed)?;
        done.recv().unwrap_or(Err(LedgerError::Closed))
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LedgerError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(LedgerError::Thread)
}
