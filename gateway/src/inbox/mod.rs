//! The durable inbox: an accepted delivery is on the disk before anyone is told so.
//!
//! **What it promises.** `accept` returns only after a sync. What was accepted is unfinished until one transaction
//! finishes it together with its outcome, its transcript and what is now known of the conversation; a crash in
//! between leaves it unfinished, and the relay finds it again by [`Inbox::due`], the same call that finds work when
//! the queue of announcements was too short. Before anything is posted, that it may have been posted is durable.
//!
//! **How.** SQLite, `inbox.db` in the data directory. One thread writes, in groups (`writer`); a few read
//! (`reader`); one keeps the file in shape (`keeper`). A change is a value of `write::Write`. Duplicates are found
//! by a unique index, so a delivery whose sender lost patience and came again is one delivery. Each row has a
//! checksum over its content and a seal over its state (`seal`); a row that does not fit is set aside, loudly, and
//! never handed out (`scrub` looks for those that nobody would read). How far it had come is kept outside the file
//! (`mark`), so that a log cut short is noticed: what is unfinished then goes to humans. Which conversations count in a
//! billing month is in here too (`counted`), by the same transactions.
//!
//! **What it does not.** It does not know what a delivery means, decides nothing, and knows no Chatwoot: the relay
//! does. It does not lock the directory against a second process: the caller does that before opening.

mod counted;
mod keeper;
mod mark;
mod reader;
mod record;
mod schema;
mod scrub;
mod seal;
mod write;
mod writer;

pub mod report;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::error::{Error, Reason, Retry};
use crate::metrics::Metrics;
use crate::storage;

pub use counted::CountedIn;
pub use reader::{IdleConversation, Loaded, Recent};
pub use record::{
    ConversationKey, ConversationRow, ConversationState, Delivery, Line, OpenTurn, Post, PostKind, PostState, Sameness,
    Stored, TurnTokens, Voice,
};
pub use write::{Finish, Plan};
pub use writer::Work;

use mark::Mark;
use write::{Write, Written};
use writer::{Board, Job, WriteFailed, Writer};

/// Threads that read. Reads are short; two keep one slow disk read from standing before everyone.
const READERS: usize = 2;
/// Questions waiting for one of them; whoever asks then waits.
const READ_QUEUE_MAX: usize = 256;
/// A conversation is never put off so long. Where one seems to be, the clock was set back meanwhile, and it is due.
pub const PUT_OFF_MAX_MS: i64 = 15 * 60 * 1_000;
/// Announcements not yet taken; past that the relay looks into the table.
const WORK_QUEUE_MAX: usize = 4_096;

/// The inbox. Clones are handles to the same one; it ends when the last is dropped (as after a crash) or, properly,
/// by [`Inbox::close`].
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    writer: mpsc::Sender<Job>,
    readers: Vec<mpsc::Sender<reader::Query>>,
    /// Taken once, by the relay.
    work: Mutex<Option<mpsc::Receiver<Work>>>,
    board: Arc<Board>,
    limits: config::Inbox,
    /// As it was when the file was opened.
    counted: Vec<CountedIn>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The keeper ends when this is gone.
    _keeper: std::sync::mpsc::SyncSender<()>,
    writer_thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the inbox made of a delivery. Both are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is new, and will be worked on.
    New,
    /// It was here before; nothing changed.
    Duplicate,
}

/// Why a delivery is not accepted. None of these was acknowledged, so its sender has to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// Too much is waiting, for the disk or for the relay.
    #[error("the inbox is full")]
    Full,
    /// Not durable within the time a delivery may wait. It may become so later; coming again is safe.
    #[error("the disk is slow")]
    Slow,
    /// The disk does not take it.
    #[error("the disk does not take it")]
    Disk,
    /// The inbox is closed.
    #[error("the inbox is closed")]
    Closed,
}

impl From<AcceptError> for Error {
    fn from(error: AcceptError) -> Self {
        let reason = match error {
            AcceptError::Full | AcceptError::Slow => Reason::Overloaded,
            AcceptError::Closed => Reason::Draining,
            AcceptError::Disk => Reason::Disk,
        };
        let message = match reason {
            Reason::Disk => "The delivery could not be stored.",
            _ => "The delivery cannot be stored now.",
        };
        // Chatwoot comes again after 3 s whatever we say; others may listen.
        Self::new(reason, message).retry(Retry::AfterMs(3_000)).caused_by(error)
    }
}

/// Why the inbox cannot be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The data directory cannot be made.
    #[error("making the data directory")]
    Directory(#[source] std::io::Error),
    /// A thread cannot be started.
    #[error("starting a thread of the inbox")]
    Thread(#[source] std::io::Error),
    /// The database cannot be opened or prepared.
    #[error("opening the inbox's database")]
    Open(#[source] rusqlite::Error),
    /// The mark beside the database cannot be opened or written.
    #[error("opening inbox.mark")]
    Mark(#[source] std::io::Error),
    /// Another version of Relais wrote it.
    #[error("the inbox's database has version {0}, which this Relais does not know")]
    Version(i64),
    /// The database is damaged.
    #[error("the inbox's database is damaged: {0}")]
    Damaged(String),
    /// Somebody reads while the log should be rewritten.
    #[error("the inbox's log is in use")]
    LogBusy,
    /// A question to the tables failed.
    #[error("reading the inbox")]
    Read(#[source] rusqlite::Error),
    /// The disk does not take a change.
    #[error("the inbox did not become durable")]
    Write,
    /// The inbox is closed.
    #[error("the inbox is closed")]
    Closed,
}

impl Inbox {
    /// Opens or makes `inbox.db` in `dir`; checks it if it was not closed. Blocks: call it before serving.
    pub fn open(dir: &Path, limits: &config::Inbox, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, InboxError> {
        storage::make_dir(dir).map_err(InboxError::Directory)?;
        let mut connection = schema::connect(dir)?;
        let (mark, commits) = begin(dir, &mut connection, &metrics)?;
        let mark = Arc::new(mark);
        let pending = reader::pending(&connection).map_err(InboxError::Open)?;
        let counted = counted::all(&connection).map_err(InboxError::Open)?;
        let board = Arc::new(Board {
            healthy: AtomicBool::new(true),
            refusing: AtomicBool::new(false),
            pending: AtomicU64::new(pending),
            logged_bytes: AtomicU64::new(0),
            // What is there from before is not announced.
            unannounced: AtomicBool::new(pending > 0),
            commits: AtomicU64::new(commits),
        });
        metrics.inbox.healthy.set(1);
        metrics.inbox.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));

        let (writer, queue) = mpsc::channel(limits.queue_max.max(1));
        let (announce, work) = mpsc::channel(WORK_QUEUE_MAX);
        let writer_thread = start("inbox-writer", {
            let (board, metrics) = (Arc::clone(&board), Arc::clone(&metrics));
            let (dir, batch_max) = (dir.to_path_buf(), limits.batch_max.max(1));
            let (connection, mark) = (Some(connection), Arc::clone(&mark));
            let writer = Writer { dir, connection, queue, work: announce, batch_max, board, mark, metrics };
            move || writer.run()
        })?;
        let readers = (0..READERS).map(|_| start_reader(dir)).collect::<Result<Vec<_>, _>>()?;
        let (keeper_alive, gone) = std::sync::mpsc::sync_channel(0);
        start("inbox-keeper", {
            let keeper = keeper::Keeper {
                dir: dir.to_path_buf(),
                gone,
                writer: writer.downgrade(),
                keep: limits.keep,
                board: Arc::clone(&board),
                mark,
                clock: clock.clone(),
                metrics: Arc::clone(&metrics),
            };
            move || keeper.run()
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                writer,
                readers,
                work: Mutex::new(Some(work)),
                board,
                limits: limits.clone(),
                counted,
                clock,
                metrics,
                _keeper: keeper_alive,
                writer_thread: Mutex::new(Some(writer_thread)),
            }),
        })
    }

    /// Makes a delivery durable. Never waits longer than `inbox.ack_wait`, and not at all while the disk refuses.
    pub async fn accept(&self, delivery: Delivery) -> Result<Accepted, AcceptError> {
        let accepted = self.try_accept(delivery).await;
        match accepted {
            // Counted by the writer, who also knows of those whose sender left.
            Ok(_) => {}
            Err(AcceptError::Full | AcceptError::Slow) => self.shared.metrics.inbox.shed.inc(),
            Err(AcceptError::Disk | AcceptError::Closed) => self.shared.metrics.inbox.failed.inc(),
        }
        accepted
    }

    async fn try_accept(&self, delivery: Delivery) -> Result<Accepted, AcceptError> {
        let board = &self.shared.board;
        if !board.healthy.load(Ordering::SeqCst) {
            return Err(AcceptError::Disk);
        }
        if board.pending.load(Ordering::Relaxed) >= self.shared.limits.pending_max {
            return Err(AcceptError::Full);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.writer.try_send(Job { write: Write::Accept(delivery), reply }).map_err(
            |refused| match refused {
                mpsc::error::TrySendError::Full(_) => AcceptError::Full,
                mpsc::error::TrySendError::Closed(_) => AcceptError::Closed,
            },
        )?;
        match tokio::time::timeout(self.shared.limits.ack_wait, answer).await {
            Err(_) => Err(AcceptError::Slow),
            Ok(Err(_)) => Err(AcceptError::Closed),
            Ok(Ok(Err(WriteFailed))) => Err(AcceptError::Disk),
            Ok(Ok(Ok(Written::New(_)))) => Ok(Accepted::New),
            Ok(Ok(Ok(_))) => Ok(Accepted::Duplicate),
        }
    }

    /// Writes are taken. For `/readyz`.
    pub fn healthy(&self) -> bool {
        let board = &self.shared.board;
        board.healthy.load(Ordering::SeqCst) && !board.refusing.load(Ordering::SeqCst)
    }

    /// Deliveries not finished.
    pub fn pending(&self) -> u64 {
        self.shared.board.pending.load(Ordering::SeqCst)
    }

    /// The conversations that were counted when the file was opened, by tenant and billing month.
    pub fn counted_before(&self) -> &[CountedIn] {
        &self.shared.counted
    }

    /// Whether a conversation is counted in the billing month that counts since `since_ms`.
    pub async fn is_counted(&self, key: ConversationKey, since_ms: i64) -> Result<bool, InboxError> {
        self.read(ConversationRow::FIRST, move |db| counted::is_counted(db, &key, since_ms)).await
    }

    /// The announcements of new work. There is one receiver: the second call gets none.
    pub fn take_work(&self) -> Option<mpsc::Receiver<Work>> {
        self.shared.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether work was not announced since the last call, and is only to be found by [`Inbox::due`].
    pub fn take_unannounced(&self) -> bool {
        self.shared.board.unannounced.swap(false, Ordering::SeqCst)
    }

    /// Conversations with something unfinished that may be worked on at `now_ms`, those after `after`, in pages.
    pub async fn due(&self, after: ConversationRow, now_ms: i64, limit: usize) -> Result<Vec<Work>, InboxError> {
        self.read(after, move |db| reader::due(db, after, now_ms, limit)).await
    }

    /// A conversation with its unfinished deliveries after `after_seq`, at most `limit` of them. Damaged ones are
    /// set aside before this returns. None if it is not kept any more.
    pub async fn load(
        &self,
        conversation: ConversationRow,
        after_seq: i64,
        limit: usize,
    ) -> Result<Option<Loaded>, InboxError> {
        let loaded = self.read(conversation, move |db| reader::load(db, conversation, after_seq, limit)).await?;
        if let Some(loaded) = &loaded
            && loaded.distrusted
        {
            error!(tenant_id = %loaded.key.tenant, "The record of a conversation is damaged; a human will have it.");
            self.shared.metrics.inbox.distrusted.inc();
        }
        if let Some(loaded) = &loaded
            && !loaded.damaged.is_empty()
        {
            let seqs = loaded.damaged.clone();
            error!(tenant_id = %loaded.key.tenant, ?seqs, "Damaged deliveries set aside; they will not be answered.");
            self.shared.metrics.inbox.quarantined.inc_by(u64::try_from(seqs.len()).unwrap_or(0));
            let now_ms = self.shared.clock.now_ms();
            self.write(Write::Quarantine { conversation, seqs, now_ms }).await?;
        }
        Ok(loaded)
    }

    /// The newest `limit` lines of a conversation, in order.
    pub async fn transcript(&self, conversation: ConversationRow, limit: usize) -> Result<Vec<Line>, InboxError> {
        self.read(conversation, move |db| reader::transcript(db, conversation, limit)).await
    }

    /// What happened in a conversation since `since_ms`: turns, deliveries of `event` (one about the conversation
    /// itself), and whether it was handed over for `reason`.
    pub async fn recent(
        &self,
        conversation: ConversationRow,
        since_ms: i64,
        event: &'static str,
        reason: &'static str,
    ) -> Result<Recent, InboxError> {
        self.read(conversation, move |db| reader::recent(db, conversation, since_ms, event, reason)).await
    }

    /// The turn of a conversation that is open, if any.
    pub async fn open_turn(&self, conversation: ConversationRow) -> Result<Option<OpenTurn>, InboxError> {
        self.read(conversation, move |db| reader::open_turn(db, conversation)).await
    }

    /// The newest message that was known to the conversation's last turn, if that turn was to end the conversation.
    pub async fn resolved_after(&self, conversation: ConversationRow) -> Result<Option<u64>, InboxError> {
        self.read(conversation, move |db| reader::resolved_after(db, conversation)).await
    }

    /// The newest message of a conversation that came before `before_ms`, less those of the last `margin_ms` up to
    /// then: one of them may have overtaken a message that did not come. None if none did.
    pub async fn newest_before(
        &self,
        key: ConversationKey,
        before_ms: i64,
        margin_ms: i64,
    ) -> Result<Option<u64>, InboxError> {
        self.read(ConversationRow::FIRST, move |db| reader::newest_before(db, &key, before_ms, margin_ms)).await
    }

    /// At most `limit` pending conversations of a channel in which nothing is left to do and nothing has happened
    /// since `before_ms`, the quietest first.
    pub async fn idle(
        &self,
        tenant: Arc<str>,
        channel: Arc<str>,
        account_id: u64,
        before_ms: i64,
        limit: usize,
    ) -> Result<Vec<IdleConversation>, InboxError> {
        self.read(ConversationRow::FIRST, move |db| reader::idle(db, &tenant, &channel, account_id, before_ms, limit))
            .await
    }

    /// Makes durable what a turn will post.
    pub async fn plan(&self, plan: Plan) -> Result<(), InboxError> {
        self.write(Write::Plan(plan)).await.map(drop)
    }

    /// Makes durable that a post may have been sent from now on.
    pub async fn sending(&self, turn: Uuid, part: u32) -> Result<(), InboxError> {
        self.write(Write::Sending { turn, part, now_ms: self.shared.clock.now_ms() }).await.map(drop)
    }

    /// A post is stored at Chatwoot. `next`, if any, is then in state *sending*, by the same sync.
    pub async fn posted(&self, turn: Uuid, part: u32, message_id: u64, next: Option<u32>) -> Result<(), InboxError> {
        let now_ms = self.shared.clock.now_ms();
        self.write(Write::Posted { turn, part, message_id, next, now_ms }).await.map(drop)
    }

    /// A post is left out for good.
    pub async fn skipped(&self, turn: Uuid, part: u32) -> Result<(), InboxError> {
        self.write(Write::Skipped { turn, part }).await.map(drop)
    }

    /// A post that was about to be sent was certainly not.
    pub async fn unsent(&self, turn: Uuid, part: u32) -> Result<(), InboxError> {
        self.write(Write::Unsent { turn, part }).await.map(drop)
    }

    /// Ends deliveries, and a turn, with everything that follows from it, in one transaction. If the turn had counted
    /// its conversation and no part of its reply is known to have arrived, it is not counted any more: the month it
    /// had counted in.
    pub async fn finish(&self, finish: Finish) -> Result<Option<i64>, InboxError> {
        match self.write(Write::Finish(finish)).await? {
            Written::Ended { uncounted_ms, .. } => Ok(uncounted_ms),
            _ => Ok(None),
        }
    }

    /// Puts a conversation off: what is unfinished in it stays so, and is due again at `not_before_ms`.
    pub async fn defer(&self, conversation: ConversationRow, not_before_ms: i64) -> Result<(), InboxError> {
        self.write(Write::Defer { conversation, not_before_ms }).await.map(drop)
    }

    /// Finishes what is queued, marks the file as closed and ends. Other handles get errors from then on.
    pub async fn close(self) -> Result<(), InboxError> {
        let result = self.write(Write::Stop).await.map(drop);
        let thread = self.shared.writer_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            error!("The inbox's writer ended in a panic.");
        }
        result
    }

    async fn write(&self, write: Write) -> Result<Written, InboxError> {
        let (reply, answer) = oneshot::channel();
        self.shared.writer.send(Job { write, reply }).await.map_err(|_| InboxError::Closed)?;
        match answer.await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(WriteFailed)) => Err(InboxError::Write),
            Err(_) => Err(InboxError::Closed),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        near: ConversationRow,
        ask: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, InboxError> {
        let place = usize::try_from(near.0.unsigned_abs()).unwrap_or(0) % READERS;
        let reader = self.shared.readers.get(place).ok_or(InboxError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let query: reader::Query = Box::new(move |db| {
            let result = ask(db);
            let good = result.is_ok();
            let _ = reply.send(result);
            good
        });
        reader.send(query).await.map_err(|_| InboxError::Closed)?;
        answer.await.map_err(|_| InboxError::Closed)?.map_err(InboxError::Read)
    }
}

/// Prepares the file, and compares it with the mark: how many transactions it has, and the mark to go on with.
fn begin(dir: &Path, connection: &mut Connection, metrics: &Metrics) -> Result<(Mark, u64), InboxError> {
    let held = schema::begin(connection)?;
    let (mark, marked) = Mark::open(dir).map_err(InboxError::Mark)?;
    if marked.is_none() && held > 0 {
        warn!("inbox.mark is missing or damaged: whether the end of the inbox was lost cannot be told.");
    }
    let commits = held.max(marked.unwrap_or(0));
    if commits > held {
        let handed_over = schema::distrust_unfinished(connection, commits)?;
        error!(
            lost = commits - held,
            handed_over,
            "The end of the inbox is lost: what was acknowledged last is not in it. Conversations with unfinished \
             messages go to humans, since nobody knows what was posted."
        );
        metrics.inbox.lost_commits.inc_by(commits - held);
    }
    mark.set(commits).and_then(|()| mark.sync()).map_err(InboxError::Mark)?;
    Ok((mark, commits))
}

fn start_reader(dir: &Path) -> Result<mpsc::Sender<reader::Query>, InboxError> {
    let (ask, queue) = mpsc::channel(READ_QUEUE_MAX);
    let dir: PathBuf = dir.to_path_buf();
    start("inbox-reader", move || reader::run(dir, queue))?;
    Ok(ask)
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, InboxError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(InboxError::Thread)
}
