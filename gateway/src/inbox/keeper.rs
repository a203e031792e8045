//! What keeps the file in shape, away from those who wait: checkpoints, forgetting, gauges, looking for damage.
//!
//! The log is copied into the database on this thread's connection, when enough has gathered or when it is quiet.
//! Such a checkpoint blocks nobody, but under steady load the log never comes to an end and would grow for ever:
//! past a size the writer is held for the short rest, so that it starts the log anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::mark::Mark;
use super::write::{Prune, Write, Written};
use super::writer::{Board, Job};
use super::{InboxError, reader, schema, scrub};
use crate::clock::Clock;
use crate::error::chain;
use crate::metrics::Metrics;

/// How often it looks.
const TICK: Duration = Duration::from_millis(200);
/// Gauges are read this often.
const GAUGE_EVERY: Duration = Duration::from_secs(5);
/// A checkpoint is due after about this much.
const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;
/// Or when something was written and nothing more for this long.
const QUIET: Duration = Duration::from_secs(1);
/// Pages in the log past which the writer is held: 256 MiB of 8 KiB pages.
const LOG_PAGES_MAX: i64 = 32 * 1024;
/// Deliveries looked at in one step of forgetting: a few ms of the writer.
const PRUNE_STEP: i64 = 256;
/// Steps in one tick: forgetting keeps up with some 20,000 deliveries a second, and lets others in between.
const PRUNE_STEPS: u32 = 16;
/// Deliveries looked at in one step of the search for damage, and steps in one tick: 20,000 deliveries a second.
const SCRUB_STEP: i64 = 256;
const SCRUB_STEPS: u32 = 16;
/// Between two searches. The first begins with the process.
const SCRUB_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Between two tries of a disk that had no room.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How often the mark is synced.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// How long it is known which conversations were counted, from the beginning of their month: longer than a month lasts
/// whose anchor is moved while it runs.
const COUNTED_KEEP_MS: i64 = 100 * 24 * 3_600 * 1_000;
/// Between two rounds of forgetting.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// The keeper thread's own.
pub(super) struct Keeper {
    pub(super) dir: PathBuf,
    /// Closed when the inbox is gone.
    pub(super) gone: Receiver<()>,
    /// Weak: the keeper must not keep the writer alive.
    pub(super) writer: mpsc::WeakSender<Job>,
    pub(super) keep: Duration,
    pub(super) board: Arc<Board>,
    pub(super) mark: Arc<Mark>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

impl Keeper {
    pub(super) fn run(self) {
        let mut connection = None;
        let mut checkpoint = Checkpoint { done_bytes: 0, seen_bytes: 0, quiet_since: Instant::now() };
        let mut gauges_due = Instant::now();
        let mut prune_due = Instant::now();
        let mut prune_after = 0;
        let mut search = Search { due: Instant::now(), after: None };
        let mut probe_due = Instant::now();
        let (mut mark_due, mut marked) = (Instant::now(), 0);
        while self.gone.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !self.board.healthy.load(Ordering::SeqCst) {
                // The writer is looking for a database to trust; a checkpoint from here could stand in its way.
                connection = None;
                continue;
            }
            let now = Instant::now();
            if self.board.refusing.load(Ordering::SeqCst) && now >= probe_due {
                self.probe();
                probe_due = now + PROBE_EVERY;
            }
            let Some(open) = opened(&mut connection, &self.dir) else { continue };
            let mut good = true;
            if checkpoint.due(self.board.logged_bytes.load(Ordering::Relaxed), now) {
                good = self.checkpoint(open);
                checkpoint.done_bytes = checkpoint.seen_bytes;
            }
            if now >= gauges_due {
                good &= self.gauges(open);
                gauges_due = now + GAUGE_EVERY;
            }
            if now >= search.due {
                good &= self.search(open, &mut search, now);
            }
            let commits = self.board.commits.load(Ordering::Relaxed);
            if now >= mark_due && commits != marked {
                (mark_due, marked) = (now + MARK_EVERY, commits);
                if let Err(error) = self.mark.sync() {
                    warn!(%error, "inbox.mark not synced.");
                }
            }
            if !good {
                connection = None;
            }
            for _ in 0..PRUNE_STEPS {
                if now < prune_due {
                    break;
                }
                match self.prune(prune_after) {
                    Some(seq) => prune_after = seq,
                    None => (prune_after, prune_due) = (0, now + PRUNE_EVERY),
                }
            }
        }
    }

    fn checkpoint(&self, db: &Connection) -> bool {
        let result = checkpoint(db, "PASSIVE")
            .and_then(|log_pages| if log_pages > LOG_PAGES_MAX { checkpoint(db, "RESTART") } else { Ok(log_pages) });
        match result {
            Ok(log_pages) => {
                self.metrics.inbox.log_pages.set(log_pages);
                true
            }
            Err(error) => {
                // Nothing is lost by it: the log keeps what could not be copied.
                warn!(%error, "Inbox checkpoint not done.");
                false
            }
        }
    }

    fn gauges(&self, db: &Connection) -> bool {
        let read = reader::oldest_ms(db)
            .and_then(|oldest| Ok((oldest, reader::handoffs_waiting(db)?, reader::put_off(db, self.clock.now_ms())?)))
            .and_then(|(oldest, waiting, put_off)| Ok((oldest, waiting, put_off, reader::damaged(db)?)));
        match read {
            Ok((oldest, handoffs_waiting, put_off, damaged)) => {
                let age_ms = oldest.map_or(0, |at| self.clock.now_ms().saturating_sub(at).max(0));
                self.metrics.inbox.oldest_age_seconds.set(age_ms / 1000);
                self.metrics.relay.handoffs_waiting.set(handoffs_waiting);
                self.metrics.inbox.put_off.set(put_off);
                self.metrics.inbox.damaged.set(damaged);
                true
            }
            Err(error) => {
                warn!(%error, "Gauges of the inbox not read.");
                false
            }
        }
    }

    /// Goes on with the search for damage. False if the file cannot be read to its end: it is damaged as a whole, and
    /// the search ends, loudly.
    fn search(&self, db: &Connection, search: &mut Search, now: Instant) -> bool {
        let found = match search.after {
            None => schema::check(db).map(|()| Some(0)),
            Some(after) => self.look(db, after).map_err(InboxError::Read),
        };
        match found {
            Ok(Some(after)) => search.after = Some(after),
            Ok(None) => {
                self.metrics.inbox.file_damaged.set(0);
                *search = Search { due: now + SCRUB_EVERY, after: None };
            }
            Err(error) => {
                error!(error = %chain(&error), "The inbox's file is damaged. What can be read of it goes on.");
                self.metrics.inbox.file_damaged.set(1);
                *search = Search { due: now + SCRUB_EVERY, after: None };
                return false;
            }
        }
        true
    }

    /// Some steps of it; where to go on, or none at the end.
    fn look(&self, db: &Connection, mut after: i64) -> Result<Option<i64>, rusqlite::Error> {
        for _ in 0..SCRUB_STEPS {
            let step = scrub::step(db, after, SCRUB_STEP)?;
            if !step.damaged.is_empty() || !step.unlisted.is_empty() {
                let (damaged, unlisted) = (&step.damaged, &step.unlisted);
                error!(?damaged, ?unlisted, "The disk has changed deliveries. Damaged ones are set aside.");
                self.metrics.inbox.quarantined.inc_by(u64::try_from(damaged.len()).unwrap_or(0));
                self.metrics.inbox.unlisted.inc_by(u64::try_from(unlisted.len()).unwrap_or(0));
                let write = Write::Mend { damaged: step.damaged, now_ms: self.clock.now_ms() };
                let (reply, answer) = oneshot::channel();
                let Some(writer) = self.writer.upgrade() else { return Ok(None) };
                let sent = writer.blocking_send(Job { write, reply });
                drop(writer);
                // If it did not become durable, the next search finds it again.
                if sent.is_err() || !matches!(answer.blocking_recv(), Ok(Ok(_))) {
                    warn!("What the disk has changed could not be mended.");
                }
            }
            match step.last {
                Some(last) => after = last,
                None => return Ok(None),
            }
        }
        Ok(Some(after))
    }

    /// Lets the writer try the disk: who looks whether we are ready sends nothing until we are.
    fn probe(&self) {
        let Some(writer) = self.writer.upgrade() else { return };
        let (reply, answer) = oneshot::channel();
        // A full queue is a try as well.
        if writer.try_send(Job { write: Write::Probe, reply }).is_ok() {
            drop(writer);
            let _ = answer.blocking_recv();
        }
    }

    /// One step of forgetting; where to go on, or none when this round is over.
    fn prune(&self, after_seq: i64) -> Option<i64> {
        let writer = self.writer.upgrade()?;
        let keep_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.clock.now_ms();
        let before_ms = now_ms.saturating_sub(keep_ms);
        let (reply, answer) = oneshot::channel();
        let counted_before_ms = now_ms.saturating_sub(COUNTED_KEEP_MS);
        let write = Write::Prune(Prune { after_seq, before_ms, limit: PRUNE_STEP, counted_before_ms });
        // A full queue means that the writer is busy with what matters.
        writer.try_send(Job { write, reply }).ok()?;
        drop(writer);
        match answer.blocking_recv() {
            Ok(Ok(Written::PrunedTo(last))) => last,
            _ => None,
        }
    }
}

/// How far a search for damage is.
struct Search {
    due: Instant,
    /// The last delivery looked at; none: the structure comes first.
    after: Option<i64>,
}

/// When the next one is due.
struct Checkpoint {
    done_bytes: u64,
    seen_bytes: u64,
    quiet_since: Instant,
}

impl Checkpoint {
    fn due(&mut self, logged_bytes: u64, now: Instant) -> bool {
        if logged_bytes != self.seen_bytes {
            self.seen_bytes = logged_bytes;
            self.quiet_since = now;
        }
        let waiting = self.seen_bytes - self.done_bytes;
        waiting >= CHECKPOINT_BYTES || (waiting > 0 && now.duration_since(self.quiet_since) >= QUIET)
    }
}

fn opened<'a>(connection: &'a mut Option<Connection>, dir: &std::path::Path) -> Option<&'a Connection> {
    if connection.is_none() {
        match schema::connect_beside(dir) {
            Ok(open) => *connection = Some(open),
            Err(error) => warn!(error = %chain(&error), "Inbox not opened for checkpoints."),
        }
    }
    connection.as_ref()
}

/// Copies the log; how many pages it has.
fn checkpoint(db: &Connection, mode: &str) -> Result<i64, rusqlite::Error> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
