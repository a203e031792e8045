//! The one thread that writes: everything that waits goes into one transaction, one sync answers all of it.
//!
//! While a sync runs the next group gathers behind it, so the group grows with the load by itself and nobody waits
//! for a timer. An answer is sent only after the commit returned.
//!
//! When the disk fails, there are three cases. *No room* (or a lock held too long): the transaction is rolled back,
//! everyone in it is told, the next one tries again, so a freed disk is noticed at once; the keeper tries as well, for
//! when nobody else comes. *One change the tables do
//! not take*: a bug of ours; the group is done again one by one, so it harms only itself. *Anything else*, a failed
//! sync above all: the connection is given up, everyone is told, and new work is refused at the door until a fresh
//! connection has rewritten the log, been checked and written something. A sync is never simply tried again, since
//! the kernel may report success for pages that it has dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::mark::Mark;
use super::record::{ConversationKey, ConversationRow};
use super::write::{Write, Written, apply};
use super::{InboxError, schema};
use crate::error::chain;
use crate::metrics::Metrics;

/// Between two tries to open a database that failed us.
const REOPEN_WAIT: Duration = Duration::from_millis(500);
/// How soon work that arrives meanwhile is told so.
const REFUSE_WAIT: Duration = Duration::from_millis(10);
/// The tables' own bytes for one change, beside the body: about the two index pages it touches.
const CHANGE_BYTES: u64 = 16 * 1024;

/// One change and who waits for it.
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Written, WriteFailed>>,
}

/// The change is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the inbox did not become durable")]
pub(super) struct WriteFailed;

/// A conversation got something new.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its number.
    pub row: ConversationRow,
    /// Which one it is.
    pub key: ConversationKey,
}

/// What the writer shows to the others.
#[derive(Debug)]
pub(super) struct Board {
    /// Writes are taken.
    pub(super) healthy: AtomicBool,
    /// The last transaction did not get in for want of room. The next one may.
    pub(super) refusing: AtomicBool,
    /// Deliveries not finished.
    pub(super) pending: AtomicU64,
    /// Roughly the bytes that went into the log since the start.
    pub(super) logged_bytes: AtomicU64,
    /// Work was not announced because nobody took it: look into the table.
    pub(super) unannounced: AtomicBool,
    /// Transactions in the file.
    pub(super) commits: AtomicU64,
}

/// The writer thread's own.
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) connection: Option<Connection>,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) work: mpsc::Sender<Work>,
    pub(super) batch_max: usize,
    pub(super) board: Arc<Board>,
    pub(super) mark: Arc<Mark>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a failed transaction means for the next.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// It may work next time.
    Passing,
    /// A change does not fit the tables.
    Unfit,
    /// The connection is not to be trusted.
    Broken,
}

impl Writer {
    /// Until everyone who could ask is gone, or one asked to stop.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::with_capacity(self.batch_max);
        while self.gather(&mut jobs) {
            let stop = jobs.iter().any(|job| matches!(job.write, Write::Stop));
            if stop {
                // Nobody new gets in; who is in the queue still gets through.
                self.queue.close();
                while let Ok(job) = self.queue.try_recv() {
                    jobs.push(job);
                }
            }
            self.write(&mut jobs, stop);
            if stop {
                return;
            }
        }
    }

    /// Waits for work, then takes what is there. False when nobody is left.
    fn gather(&mut self, jobs: &mut Vec<Job>) -> bool {
        while self.connection.is_none() {
            if !self.reopen() {
                return false;
            }
        }
        let Some(first) = self.queue.blocking_recv() else { return false };
        jobs.push(first);
        while jobs.len() < self.batch_max {
            match self.queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        true
    }

    fn write(&mut self, jobs: &mut Vec<Job>, stop: bool) {
        match self.commit(jobs) {
            Ok(written) => {
                if stop && let Some(connection) = self.connection.take() {
                    mark_stopped(&connection);
                }
                self.answer(jobs, written);
            }
            Err(Trouble::Unfit) if jobs.len() > 1 => {
                for job in std::mem::take(jobs) {
                    let last = matches!(job.write, Write::Stop);
                    self.write(&mut vec![job], last);
                }
            }
            Err(trouble) => {
                match trouble {
                    Trouble::Broken => {
                        self.board.healthy.store(false, Ordering::SeqCst);
                        self.metrics.inbox.healthy.set(0);
                        self.connection = None;
                    }
                    Trouble::Passing => {
                        self.board.refusing.store(true, Ordering::SeqCst);
                        self.metrics.inbox.healthy.set(0);
                    }
                    Trouble::Unfit => {}
                }
                refuse(jobs.drain(..));
            }
        }
    }

    /// One transaction, one sync.
    fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Written>, Trouble> {
        let Some(connection) = self.connection.as_mut() else { return Err(Trouble::Broken) };
        let begun = Instant::now();
        let commits = self.board.commits.load(Ordering::Relaxed) + 1;
        let result = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let written =
                jobs.iter().map(|job| apply(&transaction, &job.write)).collect::<Result<Vec<_>, rusqlite::Error>>()?;
            transaction.prepare_cached("UPDATE house SET commits = ?1")?.execute([commits.cast_signed()])?;
            transaction.commit()?;
            Ok(written)
        })();
        let written = result.map_err(|error: rusqlite::Error| {
            let trouble = trouble(&error);
            // Once: a full disk refuses every one of them.
            if trouble != Trouble::Passing || !self.board.refusing.load(Ordering::Relaxed) {
                error!(%error, ?trouble, changes = jobs.len(), "Inbox transaction not committed.");
            }
            trouble
        })?;
        self.board.commits.store(commits, Ordering::Relaxed);
        if self.board.refusing.swap(false, Ordering::SeqCst) {
            info!("The disk takes the inbox's transactions again.");
            self.metrics.inbox.healthy.set(1);
        }
        if let Err(error) = self.mark.set(commits) {
            // What is committed is safe all the same; only a later loss might go unnoticed.
            warn!(%error, "inbox.mark not written.");
        }
        self.metrics.inbox.commit.observe(begun.elapsed().as_secs_f64());
        Ok(written)
    }

    /// Everything in the group is durable: count it, announce it, answer.
    fn answer(&self, jobs: &mut Vec<Job>, written: Vec<Written>) {
        let mut bytes = 0;
        let mut deliveries: u32 = 0;
        for (job, written) in jobs.drain(..).zip(written) {
            bytes += CHANGE_BYTES;
            match (&job.write, written) {
                (Write::Accept(delivery), Written::New(row)) => {
                    bytes += u64::try_from(delivery.body.len()).unwrap_or(0);
                    deliveries += 1;
                    self.metrics.inbox.accepted.inc();
                    self.board.pending.fetch_add(1, Ordering::SeqCst);
                    if self.work.try_send(Work { row, key: delivery.conversation.clone() }).is_err() {
                        self.board.unannounced.store(true, Ordering::SeqCst);
                    }
                }
                (Write::Accept(_), Written::Known) => {
                    deliveries += 1;
                    self.metrics.inbox.duplicate.inc();
                }
                (_, Written::Ended { deliveries: ended, .. }) => {
                    // Never below nothing: a wrapped count would turn every delivery away as too many.
                    let less = |pending: u64| Some(pending.saturating_sub(ended));
                    let _ = self.board.pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
                }
                (_, Written::Mended(pending)) => {
                    self.board.pending.store(pending, Ordering::SeqCst);
                    self.board.unannounced.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
            // Who gave up waiting has no need of the answer.
            let _ = job.reply.send(Ok(written));
        }
        if deliveries > 0 {
            self.metrics.inbox.batch.observe(f64::from(deliveries));
        }
        self.board.logged_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.inbox.pending.set(i64::try_from(self.board.pending.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    }

    /// One try to get a database that can be trusted; tells everyone who comes meanwhile. False when nobody is left.
    fn reopen(&mut self) -> bool {
        let until = Instant::now() + REOPEN_WAIT;
        while Instant::now() < until {
            loop {
                match self.queue.try_recv() {
                    Ok(job) if matches!(job.write, Write::Stop) => {
                        self.queue.close();
                        refuse([job]);
                    }
                    Ok(job) => refuse([job]),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return false,
                }
            }
            std::thread::sleep(REFUSE_WAIT);
        }
        match reopened(&self.dir) {
            Ok((connection, commits)) => {
                // What was told durable has to be there; what was told failed may be.
                let told = self.board.commits.fetch_max(commits, Ordering::Relaxed);
                if told > commits {
                    error!(lost = told - commits, "What the inbox had acknowledged is not in it after a failed sync.");
                    self.metrics.inbox.lost_commits.inc_by(told - commits);
                }
                info!("Inbox opened again and found whole.");
                self.connection = Some(connection);
                self.board.healthy.store(true, Ordering::SeqCst);
                self.metrics.inbox.healthy.set(1);
            }
            Err(error) => warn!(error = %chain(&error), "Inbox not opened again yet."),
        }
        true
    }
}

/// A fresh connection, the log rewritten, every structure checked, and one write that got through.
fn reopened(dir: &std::path::Path) -> Result<(Connection, u64), InboxError> {
    let connection = schema::connect(dir)?;
    schema::settle_log(&connection)?;
    schema::check(&connection)?;
    connection.execute("UPDATE house SET stopped_cleanly = 0", []).map_err(InboxError::Open)?;
    let commits = schema::commits(&connection).map_err(InboxError::Open)?;
    Ok((connection, commits))
}

fn mark_stopped(connection: &Connection) {
    if let Err(error) = schema::mark_stopped(connection) {
        warn!(error = %chain(&error), "Inbox not marked as closed; it will be checked at the next start.");
    }
}

fn refuse(jobs: impl IntoIterator<Item = Job>) {
    for job in jobs {
        let _ = job.reply.send(Err(WriteFailed));
    }
}

fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Passing,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) | None => Trouble::Unfit,
        Some(_) => Trouble::Broken,
    }
}
