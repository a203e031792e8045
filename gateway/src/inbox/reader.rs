//! Threads that read, each with a connection of its own: reading never waits for the writer, nor it for us.
//!
//! A row whose checksum does not fit is reported by its number and never returned.

use std::path::PathBuf;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::record::{
    ConversationKey, ConversationRow, ConversationState, Line, OpenTurn, Post, PostKind, PostState, Stored, Voice,
    delivery_sum, post_sum,
};
use super::writer::Work;
use super::{schema, seal};

use crate::error::chain;

/// A question to the tables; says whether the connection is still good.
pub(super) type Query = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// One reading thread, until everyone who could ask is gone. A question that finds no connection is dropped, and
/// with it the way back, which is how the asker learns.
pub(super) fn run(dir: PathBuf, mut queue: mpsc::Receiver<Query>) {
    let mut connection: Option<Connection> = None;
    while let Some(query) = queue.blocking_recv() {
        if connection.is_none() {
            match schema::connect_reader(&dir) {
                Ok(opened) => connection = Some(opened),
                Err(error) => tracing::warn!(error = %chain(&error), "Inbox not opened for reading."),
            }
        }
        if let Some(open) = &connection
            && !query(open)
        {
            connection = None;
        }
    }
}

/// A conversation with what is unfinished in it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Which one it is.
    pub key: ConversationKey,
    /// What we knew after the last turn.
    pub state: ConversationState,
    /// A turn that has begun to post.
    pub turn: Option<OpenTurn>,
    /// What is not finished, in the order of acceptance.
    pub deliveries: Vec<Stored>,
    /// Not to be worked on before this: Unix ms.
    pub not_before_ms: i64,
    /// Rows that could not be read.
    pub(super) damaged: Vec<i64>,
    /// What we knew of it, or its open turn, is not what was written.
    pub(super) distrusted: bool,
}

/// A pending conversation in which nothing happens.
#[derive(Debug, Clone)]
pub struct IdleConversation {
    /// Which one it is.
    pub key: ConversationKey,
    /// Its newest message.
    pub seen_message_id: u64,
    /// When we last had to do with it: Unix ms.
    pub since_ms: i64,
}

pub(super) fn load(
    db: &Connection,
    conversation: ConversationRow,
    after_seq: i64,
    limit: usize,
) -> Result<Option<Loaded>, rusqlite::Error> {
    // One view of all tables, though the writer goes on.
    let view = db.unchecked_transaction()?;
    let found = view
        .prepare_cached(&format!(
            "SELECT tenant, channel, account_id, number, status, owner, human_message_id, seen_message_id,
             answered_message_id, not_before_ms, seal = {} FROM conversations c WHERE id = ?1",
            seal::CONVERSATION
        ))?
        .query_row([conversation.0], |row| {
            let whole: bool = row.get(10)?;
            let (state, not_before_ms) = if whole { (state(row)?, row.get(9)?) } else { (distrusted(), 0) };
            Ok((key(row, 0)?, state, not_before_ms, whole))
        })
        .optional()?;
    let Some((key, state, not_before_ms, whole)) = found else { return Ok(None) };
    let turn = open_turn(&view, conversation)?;
    let distrusted = !whole || turn.as_ref().is_some_and(|turn| turn.damaged);
    let (deliveries, damaged) = (Vec::new(), Vec::new());
    let mut loaded = Loaded { key, state, turn, deliveries, not_before_ms, damaged, distrusted };
    self::deliveries(&view, conversation, after_seq, limit, &mut loaded)?;
    Ok(Some(loaded))
}

/// What is known of a conversation whose record is damaged: nothing but that a human may have it. So it is shown to
/// one, and not answered.
fn distrusted() -> ConversationState {
    ConversationState { human_message_id: Some(0), ..ConversationState::default() }
}

pub(super) fn key(row: &Row<'_>, first: usize) -> Result<ConversationKey, rusqlite::Error> {
    Ok(ConversationKey {
        tenant: row.get(first)?,
        channel: row.get(first + 1)?,
        account_id: row.get::<_, i64>(first + 2)?.cast_unsigned(),
        conversation_id: row.get::<_, i64>(first + 3)?.cast_unsigned(),
    })
}

fn state(row: &Row<'_>) -> Result<ConversationState, rusqlite::Error> {
    Ok(ConversationState {
        status: row.get(4)?,
        owner: row.get(5)?,
        human_message_id: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        seen_message_id: row.get::<_, i64>(7)?.cast_unsigned(),
        answered_message_id: row.get::<_, i64>(8)?.cast_unsigned(),
    })
}

fn deliveries(
    db: &Connection,
    conversation: ConversationRow,
    after_seq: i64,
    limit: usize,
    loaded: &mut Loaded,
) -> Result<(), rusqlite::Error> {
    // The list of unfinished ones says which, their rows say what; a row that is not there is damage as well.
    let mut statement = db.prepare_cached(&format!(
        "SELECT u.seq, d.message_id, d.event, d.received_at_ms, d.body, d.dedupe, d.sum,
         d.conversation = ?1 AND d.state = 0 AND d.seal = {}
         FROM deliveries u LEFT JOIN deliveries d ON d.seq = u.seq
         WHERE u.conversation = ?1 AND u.seq > ?2 AND u.state = 0 ORDER BY u.seq LIMIT ?3",
        seal::DELIVERY
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![conversation.0, after_seq, limit])?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        match stored(row, seq, &loaded.key) {
            Some(delivery) => loaded.deliveries.push(delivery),
            None => loaded.damaged.push(seq),
        }
    }
    Ok(())
}

/// A whole delivery; none if it is not what was written. A value of another type is damage too, not a failure.
fn stored(row: &Row<'_>, seq: i64, key: &ConversationKey) -> Option<Stored> {
    let sealed: bool = row.get(7).ok()?;
    let message_id = row.get::<_, i64>(1).ok()?.cast_unsigned();
    let event: String = row.get(2).ok()?;
    let received_at_ms = row.get(3).ok()?;
    let body: Vec<u8> = row.get(4).ok()?;
    let dedupe: Vec<u8> = row.get(5).ok()?;
    let sum: Vec<u8> = row.get(6).ok()?;
    (sealed && sum == delivery_sum(key, message_id, &event, &dedupe, received_at_ms, &body)).then(|| Stored {
        seq,
        message_id,
        event,
        received_at_ms,
        body: Bytes::from(body),
    })
}

pub(super) fn open_turn(db: &Connection, conversation: ConversationRow) -> Result<Option<OpenTurn>, rusqlite::Error> {
    // By the list of open ones, or the newest of the conversation's own: a turn that has fallen out of the one
    // is still in the other, and is not begun again.
    let found = db
        .prepare_cached(&format!(
            "SELECT t.id, t.upto_seq, t.known_message_id, t.handoff, t.deferrals, t.conversation = ?1 AND t.seal = {}
             FROM turns t WHERE t.seq IN (
               (SELECT seq FROM turns INDEXED BY turns_open WHERE conversation = ?1 AND outcome IS NULL),
               (SELECT max(seq) FROM turns INDEXED BY turns_of WHERE conversation = ?1))
             AND t.outcome IS NULL AND (t.conversation = ?1 OR t.seal <> {}) ORDER BY t.seq DESC LIMIT 1",
            seal::TURN,
            seal::TURN
        ))?
        .query_row([conversation.0], |row| {
            Ok(OpenTurn {
                id: Uuid::from_bytes(row.get(0)?),
                upto_seq: row.get(1)?,
                known_message_id: row.get::<_, i64>(2)?.cast_unsigned(),
                handoff: row.get(3)?,
                deferrals: row.get(4)?,
                posts: Vec::new(),
                damaged: !row.get::<_, bool>(5)?,
            })
        })
        .optional()?;
    let Some(mut turn) = found else { return Ok(None) };
    let mut statement = db.prepare_cached(&format!(
        "SELECT part, kind, text, sum, state, sending_at_ms, message_id, seal = {} FROM posts p WHERE turn = ?1
         ORDER BY part",
        seal::POST
    ))?;
    let mut rows = statement.query([turn.id.as_bytes()])?;
    while let Some(row) = rows.next()? {
        match post(row, turn.id) {
            Some(post) => turn.posts.push(post),
            None => turn.damaged = true,
        }
    }
    Ok(Some(turn))
}

fn post(row: &Row<'_>, turn: Uuid) -> Option<Post> {
    let part: u32 = row.get(0).ok()?;
    let kind: String = row.get(1).ok()?;
    let text: String = row.get(2).ok()?;
    let sum: Vec<u8> = row.get(3).ok()?;
    let state = match row.get::<_, i64>(4).ok()? {
        0 => PostState::Planned,
        1 => PostState::Sending(row.get::<_, Option<i64>>(5).ok()?.unwrap_or(0)),
        2 => PostState::Posted(row.get::<_, Option<i64>>(6).ok()?.unwrap_or(0).cast_unsigned()),
        _ => PostState::Skipped,
    };
    let whole = row.get(7).ok()? && sum == post_sum(turn, part, &kind, &text);
    let kind = PostKind::parse(&kind)?;
    whole.then_some(Post { part, kind, text, state })
}

/// The newest lines, oldest of them first. A damaged line is left out of the agent's view, and logged.
pub(super) fn transcript(
    db: &Connection,
    conversation: ConversationRow,
    limit: usize,
) -> Result<Vec<Line>, rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "SELECT message_id, voice, text, sum FROM lines WHERE conversation = ?1 ORDER BY message_id DESC LIMIT ?2",
    )?;
    let mut lines = Vec::new();
    let mut rows = statement.query(params![conversation.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        match line(row, conversation) {
            Some(line) => lines.push(line),
            None => tracing::error!(conversation = conversation.0, "A line of a transcript is damaged and left out."),
        }
    }
    lines.reverse();
    Ok(lines)
}

fn line(row: &Row<'_>, conversation: ConversationRow) -> Option<Line> {
    let voice = Voice::parse(&row.get::<_, String>(1).ok()?)?;
    let line = Line { message_id: row.get::<_, i64>(0).ok()?.cast_unsigned(), voice, text: row.get(2).ok()? };
    (row.get::<_, Vec<u8>>(3).ok()? == line.sum(conversation)).then_some(line)
}

/// The newest message that was known to the conversation's last turn, if that turn was to end the conversation.
pub(super) fn resolved_after(db: &Connection, conversation: ConversationRow) -> Result<Option<u64>, rusqlite::Error> {
    let last = db
        .prepare_cached("SELECT known_message_id, id FROM turns WHERE conversation = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([conversation.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?)))
        .optional()?;
    let Some((known_message_id, turn)) = last else { return Ok(None) };
    let resolve = r#"{"action":"resolve"}"#;
    let ended = db
        .prepare_cached("SELECT 1 FROM posts WHERE turn = ?1 AND kind = 'action' AND text = ?2 AND state < 3")?
        .exists(params![turn, resolve])?;
    Ok(ended.then_some(known_message_id.cast_unsigned()))
}

/// What happened in a conversation lately. Counted in the tables, so that it is known after a restart too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// Turns that had something to post.
    pub turns: u64,
    /// Deliveries of the event asked about.
    pub events: u64,
    /// When the newest turn was planned that hands over for the reason asked about: Unix ms.
    pub handed_over_at_ms: Option<i64>,
}

pub(super) fn recent(
    db: &Connection,
    conversation: ConversationRow,
    since_ms: i64,
    event: &str,
    reason: &str,
) -> Result<Recent, rusqlite::Error> {
    let (turns, handed_over_at_ms) = db
        .prepare_cached(
            "SELECT count(*), max(planned_at_ms) FILTER (WHERE handoff = ?3) FROM turns
             WHERE conversation = ?1 AND planned_at_ms >= ?2",
        )?
        .query_row(params![conversation.0, since_ms, reason], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    let events = db
        .prepare_cached(
            "SELECT count(*) FROM deliveries
             WHERE conversation = ?1 AND message_id = 0 AND event = ?3 AND received_at_ms >= ?2",
        )?
        .query_row(params![conversation.0, since_ms, event], |row| row.get::<_, i64>(0))?;
    Ok(Recent { turns: turns.cast_unsigned(), events: events.cast_unsigned(), handed_over_at_ms })
}

/// Conversations with something unfinished that may be worked on now, in the order of their numbers.
pub(super) fn due(
    db: &Connection,
    after: ConversationRow,
    now_ms: i64,
    limit: usize,
) -> Result<Vec<Work>, rusqlite::Error> {
    // A wait that is not what was written could be for ever, and so could one from before the clock was set back.
    let mut statement = db.prepare_cached(&format!(
        "SELECT DISTINCT d.conversation, c.tenant, c.channel, c.account_id, c.number
         FROM deliveries d JOIN conversations c ON c.id = d.conversation
         WHERE d.state = 0 AND d.conversation > ?1 AND (c.not_before_ms <= ?2 OR c.not_before_ms > ?2 + {} OR c.seal <> {})
         ORDER BY d.conversation LIMIT ?3",
        super::PUT_OFF_MAX_MS,
        seal::CONVERSATION
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    statement
        .query_map(params![after.0, now_ms, limit], |row| {
            Ok(Work { row: ConversationRow(row.get(0)?), key: key(row, 1)? })
        })?
        .collect()
}

/// The newest message of a conversation that had come when its deliveries before `before_ms` were `margin_ms` from
/// over; none if nothing had come by then. Deliveries of the last moment may have overtaken one that never came.
pub(super) fn newest_before(
    db: &Connection,
    key: &ConversationKey,
    before_ms: i64,
    margin_ms: i64,
) -> Result<Option<u64>, rusqlite::Error> {
    // Where all came within the margin, everything from the first of them on is ours to know.
    let newest: Option<i64> = db
        .prepare_cached(
            "WITH come AS MATERIALIZED (
               SELECT message_id, received_at_ms FROM deliveries WHERE message_id > 0 AND received_at_ms < ?5
               AND conversation = (SELECT id FROM conversations
                                   WHERE tenant = ?1 AND channel = ?2 AND account_id = ?3 AND number = ?4))
             SELECT coalesce(
               (SELECT max(message_id) FROM come
                WHERE received_at_ms < (SELECT max(received_at_ms) FROM come) - ?6),
               (SELECT min(message_id) - 1 FROM come))",
        )?
        .query_row(
            params![
                key.tenant,
                key.channel,
                key.account_id.cast_signed(),
                key.conversation_id.cast_signed(),
                before_ms,
                margin_ms,
            ],
            |row| row.get(0),
        )?;
    Ok(newest.map(i64::cast_unsigned))
}

/// Pending conversations of a channel without unfinished work in which nothing has happened since `before_ms`, those
/// that have been quiet for longest first.
pub(super) fn idle(
    db: &Connection,
    tenant: &str,
    channel: &str,
    account_id: u64,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<IdleConversation>, rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "SELECT tenant, channel, account_id, number, seen_message_id, changed_at_ms FROM conversations c
         WHERE tenant = ?1 AND channel = ?2 AND account_id = ?3 AND status = 'pending' AND changed_at_ms < ?4
         AND owner IS NOT 'other'
         AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.conversation = c.id AND d.state = 0)
         ORDER BY changed_at_ms LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    statement
        .query_map(params![tenant, channel, account_id.cast_signed(), before_ms, limit], |row| {
            let seen_message_id = row.get::<_, i64>(4)?.cast_unsigned();
            Ok(IdleConversation { key: key(row, 0)?, seen_message_id, since_ms: row.get(5)? })
        })?
        .collect()
}

/// How many deliveries are not finished.
pub(super) fn pending(db: &Connection) -> Result<u64, rusqlite::Error> {
    db.query_row("SELECT count(*) FROM deliveries WHERE state = 0", [], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// How many conversations with something unfinished are put off beyond `now_ms`.
pub(super) fn put_off(db: &Connection, now_ms: i64) -> Result<i64, rusqlite::Error> {
    db.prepare_cached(
        "SELECT count(*) FROM conversations c WHERE c.not_before_ms > 0 AND c.not_before_ms > ?1
         AND EXISTS (SELECT 1 FROM deliveries d WHERE d.conversation = c.id AND d.state = 0)",
    )?
    .query_row([now_ms], |row| row.get(0))
}

/// How many deliveries are set aside as damaged.
pub(super) fn damaged(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.prepare_cached("SELECT count(*) FROM deliveries WHERE state = 2")?.query_row([], |row| row.get(0))
}

/// When the oldest unfinished delivery arrived: Unix ms.
pub(super) fn oldest_ms(db: &Connection) -> Result<Option<i64>, rusqlite::Error> {
    db.prepare_cached("SELECT min(received_at_ms) FROM deliveries WHERE state = 0")?.query_row([], |row| row.get(0))
}

/// Turns that hand over and were put off at least once.
pub(super) fn handoffs_waiting(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.prepare_cached("SELECT count(*) FROM turns WHERE outcome IS NULL AND handoff IS NOT NULL AND deferrals > 0")?
        .query_row([], |row| row.get(0))
}
