//! The ledger's two threads: one writes, one answers questions. Each has its own connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::admission::{Account, Counts};
use crate::error::chain;
use crate::usage::batch::{Batch, Shared, UsedBy};
use crate::usage::{LedgerError, UsageRow, database};

/// Rows of one answer.
pub(super) const ROWS_MAX: usize = 50_000;
const DAY_MS: i64 = 86_400_000;

/// What the writer is told to do before its time.
pub(super) enum Order {
    /// Write, and say how it went.
    Flush(SyncSender<Result<(), LedgerError>>),
    /// Write, say how it went, and end.
    Close(SyncSender<Result<(), LedgerError>>),
}

/// The thread that writes.
pub(super) struct Writer {
    dir: PathBuf,
    /// `None` after trouble: what the file holds is then to be found out first.
    db: Option<Connection>,
    shared: Arc<Shared>,
    ordered: Receiver<Order>,
    every: Duration,
    trouble: bool,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        db: Connection,
        shared: Arc<Shared>,
        ordered: Receiver<Order>,
        every: Duration,
    ) -> Self {
        Self { dir, db: Some(db), shared, ordered, every, trouble: false }
    }

    pub(super) fn run(mut self) {
        loop {
            // Nobody is left to hear of an outcome that is not waited for: it is in the log and in the metrics.
            match self.ordered.recv_timeout(self.every) {
                Err(RecvTimeoutError::Timeout) => drop(self.flush()),
                Ok(Order::Flush(reply)) => drop(reply.send(self.flush())),
                Ok(Order::Close(reply)) => {
                    drop(reply.send(self.flush()));
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes all there is.
    fn flush(&mut self) -> Result<(), LedgerError> {
        while let Some((batch, fresh)) = self.shared.next() {
            let metrics = Arc::clone(&self.shared.metrics);
            metrics.ledger.unflushed_tokens.set(gauge(self.shared.unledgered()));
            let started = Instant::now();
            if let Err(error) = self.write(&batch) {
                self.failed(&error);
                return Err(LedgerError::Write(error));
            }
            metrics.ledger.flush.observe(started.elapsed().as_secs_f64());
            self.shared.written();
            self.shared.journal.disk_takes();
            metrics.ledger.unflushed_tokens.set(gauge(self.shared.unledgered()));
            if std::mem::take(&mut self.trouble) {
                info!("The disk takes usage again.");
            }
            // After an old batch comes what gathered behind it.
            if fresh {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), rusqlite::Error> {
        // Taken out, and put back only if all went well.
        let mut db = match self.db.take() {
            Some(db) => db,
            None => {
                let db = database::reopen(&self.dir)?;
                if database::number(&db)? >= batch.number {
                    // It had arrived, though we were told otherwise.
                    self.db = Some(db);
                    return Ok(());
                }
                db
            }
        };
        database::write(&mut db, batch)?;
        self.db = Some(db);
        Ok(())
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        let unledgered_tokens = self.shared.unledgered();
        self.shared.metrics.ledger.errors.inc();
        self.shared.journal.disk_refuses(unledgered_tokens);
        // Once, and not every second.
        if !std::mem::replace(&mut self.trouble, true) {
            error!(error = chain(error), unledgered_tokens, "The disk does not take usage. Trying again every second.");
        }
    }
}

fn gauge(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

/// What did a tenant use?
pub(super) struct Question {
    pub(super) account: Arc<Account>,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) reply: oneshot::Sender<Result<Vec<UsageRow>, LedgerError>>,
}

/// The thread that answers.
pub(super) struct Reader {
    dir: PathBuf,
    shared: Arc<Shared>,
    asked: Receiver<Question>,
}

impl Reader {
    pub(super) fn new(dir: PathBuf, shared: Arc<Shared>, asked: Receiver<Question>) -> Self {
        Self { dir, shared, asked }
    }

    pub(super) fn run(self) {
        let mut db = None;
        while let Ok(question) = self.asked.recv() {
            if question.reply.is_closed() {
                continue;
            }
            let answer = self.answer(&mut db, &question);
            if matches!(answer, Err(LedgerError::Read(_))) {
                db = None;
            }
            // Whoever asked may have left.
            let _ = question.reply.send(answer);
        }
    }

    fn answer(&self, db: &mut Option<Connection>, question: &Question) -> Result<Vec<UsageRow>, LedgerError> {
        let from = question.from_ms.div_euclid(DAY_MS);
        let to = question.to_ms.saturating_add(DAY_MS - 1).div_euclid(DAY_MS);
        // Memory first, then the file: a batch may go from the one to the other meanwhile, but not back.
        let memory = self.shared.used(&question.account, from, to);
        let db = match db {
            Some(db) => db,
            None => db.insert(database::open_for_reading(&self.dir).map_err(LedgerError::Read)?),
        };
        let (number, rows) =
            database::used(db, question.account.tenant_id(), (from, to), ROWS_MAX + 1).map_err(LedgerError::Read)?;
        let mut used: BTreeMap<UsedBy, Counts> = rows.into_iter().collect();
        for (in_batch, rows) in memory {
            if in_batch > number {
                for (by, counts) in rows {
                    used.entry(by).or_default().add(&counts);
                }
            }
        }
        if used.len() > ROWS_MAX {
            return Err(LedgerError::TooManyRows(ROWS_MAX));
        }
        Ok(used.into_iter().map(row).collect())
    }
}

fn row((by, counts): (UsedBy, Counts)) -> UsageRow {
    UsageRow {
        day: date(by.day),
        key: database::key_text(&by.key),
        model: by.model,
        kind: by.kind,
        period_ms: by.period_ms,
        counts,
    }
}

/// The date of a day since 1970; of one that no calendar has, 1970-01-01.
pub(super) fn date(day: i64) -> Date {
    let instant = SignedDuration::from_secs(day.saturating_mul(DAY_MS / 1000));
    let instant = Timestamp::UNIX_EPOCH.checked_add(instant).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(instant).date()
}
