//! Every change the inbox knows, and what each does to the tables.
//!
//! All of them run inside the writer's transaction, in the order they were asked for, and each may run again after a
//! rollback. None of them fails because of what is in the tables already: a repeated change is the same change.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use uuid::Uuid;

use super::record::{
    ConversationKey, ConversationRow, ConversationState, Delivery, Line, PostKind, TurnTokens, post_sum,
};
use super::{counted, reader, scrub};

/// Lines kept of one conversation: several times what an agent is given.
const LINES_MAX: i64 = 200;

/// One change.
#[derive(Debug)]
pub(super) enum Write {
    Accept(Delivery),
    Plan(Plan),
    Sending { turn: Uuid, part: u32, now_ms: i64 },
    Posted { turn: Uuid, part: u32, message_id: u64, next: Option<u32>, now_ms: i64 },
    Skipped { turn: Uuid, part: u32 },
    Unsent { turn: Uuid, part: u32 },
    Finish(Finish),
    Defer { conversation: ConversationRow, not_before_ms: i64 },
    Quarantine { conversation: ConversationRow, seqs: Vec<i64>, now_ms: i64 },
    Mend { damaged: Vec<i64>, now_ms: i64 },
    Prune(Prune),
    Probe,
    Stop,
}

/// What a turn has decided to post. For a turn that is open already, these posts follow what it has sent, and what
/// it has not sent is left out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The conversation.
    pub conversation: ConversationRow,
    /// The turn's id, which our messages carry.
    pub turn: Uuid,
    /// It answers the deliveries up to this one.
    pub upto_seq: i64,
    /// Newest message of the conversation that we know: what comes later may be ours.
    pub known_message_id: u64,
    /// Why a human takes over, if that is what it does.
    pub handoff: Option<String>,
    /// The agent whose decision it is, for the operator; none keeps what is there.
    pub agent: Option<String>,
    /// What the agent's answers took; where the turn was planned before, what is more.
    pub tokens: TurnTokens,
    /// The conversation counts in this billing month (since when that counts, Unix ms), unless it does already.
    pub counts_in_ms: Option<i64>,
    /// The first post is sent as soon as this is durable, so it is *sending* by the same sync.
    pub send_now: bool,
    /// What to post, in order.
    pub posts: Vec<(PostKind, String)>,
    /// Unix ms.
    pub now_ms: i64,
}

/// The end of a turn, or of deliveries that need none.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The conversation.
    pub conversation: ConversationRow,
    /// The deliveries that end here, by `seq`, each with how: a word from a closed list.
    pub deliveries: Vec<(i64, &'static str)>,
    /// How the turn ends, if there is one.
    pub outcome: &'static str,
    /// The turn that ends, if one was open.
    pub turn: Option<Uuid>,
    /// What was said, by anyone, in these deliveries and in this turn.
    pub lines: Vec<Line>,
    /// What we know now.
    pub state: ConversationState,
    /// Unix ms.
    pub now_ms: i64,
}

/// One step of forgetting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prune {
    /// Deliveries after this one.
    pub(super) after_seq: i64,
    /// Finished before this.
    pub(super) before_ms: i64,
    /// At most so many are looked at.
    pub(super) limit: i64,
    /// Conversations counted in months before this are forgotten.
    pub(super) counted_before_ms: i64,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The delivery was not known.
    New(ConversationRow),
    /// The delivery was known already.
    Known,
    /// So many deliveries are no longer unfinished; and the conversation is not counted in this month any more.
    Ended { deliveries: u64, uncounted_ms: Option<i64> },
    /// The lists are made anew; so many deliveries are unfinished by them.
    Mended(u64),
    /// Looked at deliveries up to this one; none: to the end of those that are old enough.
    PrunedTo(Option<i64>),
    /// Nothing to tell.
    Done,
}

pub(super) fn apply(db: &Connection, write: &Write) -> Result<Written, rusqlite::Error> {
    match write {
        Write::Accept(delivery) => accept(db, delivery),
        Write::Plan(plan) => self::plan(db, plan),
        Write::Sending { turn, part, now_ms } => sending(db, *turn, *part, *now_ms),
        Write::Posted { turn, part, message_id, next, now_ms } => {
            db.prepare_cached(
                "UPDATE posts SET state = 2, message_id = ?3, seal = seal('post', turn, part, 2, sending_at_ms, ?3)
                 WHERE turn = ?1 AND part = ?2",
            )?
            .execute(params![turn.as_bytes(), part, message_id.cast_signed()])?;
            next.map_or(Ok(Written::Done), |next| sending(db, *turn, next, *now_ms))
        }
        Write::Skipped { turn, part } => {
            db.prepare_cached(
                "UPDATE posts SET state = 3, seal = seal('post', turn, part, 3, sending_at_ms, message_id)
                 WHERE turn = ?1 AND part = ?2",
            )?
            .execute(params![turn.as_bytes(), part])?;
            Ok(Written::Done)
        }
        Write::Unsent { turn, part } => {
            db.prepare_cached(
                "UPDATE posts SET state = 0, seal = seal('post', turn, part, 0, sending_at_ms, message_id)
                 WHERE turn = ?1 AND part = ?2 AND state = 1",
            )?
            .execute(params![turn.as_bytes(), part])?;
            Ok(Written::Done)
        }
        Write::Finish(finish) => self::finish(db, finish),
        Write::Defer { conversation, not_before_ms } => defer(db, *conversation, *not_before_ms),
        Write::Quarantine { conversation, seqs, now_ms } => quarantine(db, *conversation, seqs, *now_ms),
        Write::Mend { damaged, now_ms } => mend(db, damaged, *now_ms),
        Write::Prune(prune) => self::prune(db, *prune),
        // A probe is the count of transactions alone: whether the disk takes one.
        Write::Probe | Write::Stop => Ok(Written::Done),
    }
}

fn accept(db: &Connection, delivery: &Delivery) -> Result<Written, rusqlite::Error> {
    let conversation = conversation_row(db, &delivery.conversation, delivery.received_at_ms)?;
    let inserted = db
        .prepare_cached(
            "INSERT INTO deliveries (conversation, message_id, event, dedupe, delivery_uuid, received_at_ms, sum, body,
             seal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, seal('delivery', ?1, ?2, ?4, 0, NULL, NULL, NULL))
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            conversation.0,
            delivery.message_id.cast_signed(),
            delivery.event,
            delivery.dedupe,
            delivery.delivery_uuid.as_ref().map(|uuid| uuid.as_bytes()),
            delivery.received_at_ms,
            delivery.sum(),
            &delivery.body[..],
        ])?;
    Ok(if inserted == 1 { Written::New(conversation) } else { Written::Known })
}

fn conversation_row(db: &Connection, key: &ConversationKey, now_ms: i64) -> Result<ConversationRow, rusqlite::Error> {
    let number = key.conversation_id.cast_signed();
    let account_id = key.account_id.cast_signed();
    let known = db
        .prepare_cached(
            "SELECT id FROM conversations WHERE tenant = ?1 AND channel = ?2 AND account_id = ?3 AND number = ?4",
        )?
        .query_row(params![key.tenant, key.channel, account_id, number], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(ConversationRow(id));
    }
    db.prepare_cached(
        "INSERT INTO conversations (tenant, channel, account_id, number, changed_at_ms, seal)
         VALUES (?1, ?2, ?3, ?4, ?5, seal('conversation', ?1, ?2, ?3, ?4, NULL, NULL, NULL, 0, 0, 0))",
    )?
    .execute(params![key.tenant, key.channel, account_id, number, now_ms])?;
    Ok(ConversationRow(db.last_insert_rowid()))
}

fn plan(db: &Connection, plan: &Plan) -> Result<Written, rusqlite::Error> {
    let turn = plan.turn.as_bytes();
    db.prepare_cached(
        "INSERT INTO turns (id, conversation, upto_seq, known_message_id, handoff, planned_at_ms, agent, input_tokens,
         cached_tokens, output_tokens, seal)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, seal('turn', ?1, ?2, ?3, ?4, ?5, 0, NULL, NULL))
         ON CONFLICT (id) DO UPDATE SET handoff = excluded.handoff, known_message_id = excluded.known_message_id,
         agent = coalesce(excluded.agent, agent),
         input_tokens = max(input_tokens, excluded.input_tokens),
         cached_tokens = max(cached_tokens, excluded.cached_tokens),
         output_tokens = max(output_tokens, excluded.output_tokens),
         seal = seal('turn', id, conversation, upto_seq, excluded.known_message_id, excluded.handoff, deferrals,
         outcome, ended_at_ms)",
    )?
    .execute(params![
        turn,
        plan.conversation.0,
        plan.upto_seq,
        plan.known_message_id.cast_signed(),
        plan.handoff,
        plan.now_ms,
        plan.agent,
        tokens(plan.tokens.input),
        tokens(plan.tokens.cached),
        tokens(plan.tokens.output),
    ])?;
    if let Some(period_ms) = plan.counts_in_ms {
        counted::count(db, plan.conversation, plan.turn, period_ms)?;
    }
    db.prepare_cached(
        "UPDATE posts SET state = 3, seal = seal('post', turn, part, 3, sending_at_ms, message_id)
         WHERE turn = ?1 AND state < 2",
    )?
    .execute(params![turn])?;
    let first: u32 = db
        .prepare_cached("SELECT coalesce(max(part) + 1, 0) FROM posts WHERE turn = ?1")?
        .query_row(params![turn], |row| row.get(0))?;
    for (part, (kind, text)) in (first..).zip(&plan.posts) {
        db.prepare_cached(
            "INSERT INTO posts (turn, part, kind, text, sum, state, sending_at_ms, seal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, seal('post', ?1, ?2, ?6, ?7, NULL))",
        )?
        .execute(params![
            turn,
            part,
            kind.as_str(),
            text,
            post_sum(plan.turn, part, kind.as_str(), text),
            i64::from(plan.send_now && part == first),
            plan.now_ms,
        ])?;
    }
    Ok(Written::Done)
}

fn tokens(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn sending(db: &Connection, turn: Uuid, part: u32, now_ms: i64) -> Result<Written, rusqlite::Error> {
    db.prepare_cached(
        "UPDATE posts SET state = 1, sending_at_ms = ?3, seal = seal('post', turn, part, 1, ?3, message_id)
         WHERE turn = ?1 AND part = ?2 AND state < 2",
    )?
    .execute(params![turn.as_bytes(), part, now_ms])?;
    Ok(Written::Done)
}

fn finish(db: &Connection, finish: &Finish) -> Result<Written, rusqlite::Error> {
    let turn = finish.turn.as_ref().map(|turn| turn.as_bytes());
    let mut ended: u64 = 0;
    for (seq, outcome) in &finish.deliveries {
        let changed = db
            .prepare_cached(
                "UPDATE deliveries SET state = 1, outcome = ?2, turn = ?3, ended_at_ms = ?4,
                 seal = seal('delivery', conversation, message_id, dedupe, 1, ?2, ?3, ?4)
                 WHERE seq = ?1 AND state = 0",
            )?
            .execute(params![seq, outcome, turn, finish.now_ms])?;
        ended += u64::from(changed == 1);
    }
    if turn.is_some() {
        db.prepare_cached(
            "UPDATE turns SET outcome = ?2, ended_at_ms = ?3, seal = seal('turn', id, conversation, upto_seq,
             known_message_id, handoff, deferrals, ?2, ?3) WHERE id = ?1",
        )?
        .execute(params![turn, finish.outcome, finish.now_ms])?;
    }
    let uncounted_ms = counted::uncount(db, finish.conversation, finish.turn)?;
    write_lines(db, finish.conversation, &finish.lines)?;
    let state = &finish.state;
    db.prepare_cached(
        "UPDATE conversations SET status = ?2, owner = ?3, human_message_id = ?4, seen_message_id = ?5,
         answered_message_id = ?6, not_before_ms = 0, changed_at_ms = ?7,
         seal = seal('conversation', tenant, channel, account_id, number, ?2, ?3, ?4, ?5, ?6, 0) WHERE id = ?1",
    )?
    .execute(params![
        finish.conversation.0,
        state.status,
        state.owner,
        state.human_message_id.map(u64::cast_signed),
        state.seen_message_id.cast_signed(),
        state.answered_message_id.cast_signed(),
        finish.now_ms,
    ])?;
    Ok(Written::Ended { deliveries: ended, uncounted_ms })
}

fn write_lines(db: &Connection, conversation: ConversationRow, lines: &[Line]) -> Result<(), rusqlite::Error> {
    for line in lines {
        db.prepare_cached(
            "INSERT INTO lines (conversation, message_id, voice, text, sum) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (conversation, message_id)
             DO UPDATE SET voice = excluded.voice, text = excluded.text, sum = excluded.sum",
        )?
        .execute(params![
            conversation.0,
            line.message_id.cast_signed(),
            line.voice.as_str(),
            line.text,
            line.sum(conversation),
        ])?;
    }
    if !lines.is_empty() {
        db.prepare_cached(
            "DELETE FROM lines WHERE conversation = ?1 AND message_id <= (SELECT message_id FROM lines
             WHERE conversation = ?1 ORDER BY message_id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![conversation.0, LINES_MAX])?;
    }
    Ok(())
}

fn defer(db: &Connection, conversation: ConversationRow, not_before_ms: i64) -> Result<Written, rusqlite::Error> {
    db.prepare_cached(
        "UPDATE conversations SET not_before_ms = ?2, seal = seal('conversation', tenant, channel, account_id, number,
         status, owner, human_message_id, seen_message_id, answered_message_id, ?2) WHERE id = ?1",
    )?
    .execute(params![conversation.0, not_before_ms])?;
    db.prepare_cached(
        "UPDATE turns SET deferrals = deferrals + 1, seal = seal('turn', id, conversation, upto_seq, known_message_id,
         handoff, deferrals + 1, NULL, ended_at_ms) WHERE conversation = ?1 AND outcome IS NULL",
    )?
    .execute(params![conversation.0])?;
    Ok(Written::Done)
}

fn quarantine(
    db: &Connection,
    conversation: ConversationRow,
    seqs: &[i64],
    now_ms: i64,
) -> Result<Written, rusqlite::Error> {
    let mut ended = 0;
    let only = format!("state = 0 AND conversation = {}", conversation.0);
    for seq in seqs {
        if set_aside(db, *seq, now_ms, &only)? == 0 {
            // The row and the list of unfinished ones disagree.
            return mend(db, seqs, now_ms);
        }
        ended += 1;
    }
    Ok(Written::Ended { deliveries: ended, uncounted_ms: None })
}

/// Makes the indices anew from the rows, then sets aside what is damaged even so, whatever state it claims to be in.
/// Reads the whole table: for damage only.
fn mend(db: &Connection, damaged: &[i64], now_ms: i64) -> Result<Written, rusqlite::Error> {
    if let Err(error) = db.execute_batch("REINDEX deliveries") {
        // Damage made two rows alike: the lists of what is left to do matter most.
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return Err(error);
        }
        db.execute_batch("REINDEX deliveries_unfinished; REINDEX deliveries_waiting; REINDEX deliveries_damaged;")?;
    }
    for seq in damaged {
        // By a broken index a whole row looked damaged.
        if scrub::step(db, seq - 1, 1)?.damaged.contains(seq) {
            set_aside(db, *seq, now_ms, "state <> 2")?;
        }
    }
    Ok(Written::Mended(reader::pending(db)?))
}

fn set_aside(db: &Connection, seq: i64, now_ms: i64, only: &str) -> Result<usize, rusqlite::Error> {
    db.prepare_cached(&format!(
        "UPDATE deliveries SET state = 2, outcome = 'damaged', ended_at_ms = ?2,
         seal = seal('delivery', conversation, message_id, dedupe, 2, 'damaged', turn, ?2) WHERE seq = ?1 AND {only}"
    ))?
    .execute(params![seq, now_ms])
}

/// Forgets what ended long ago, oldest first. Damaged deliveries stay: only a human may decide about them.
fn prune(db: &Connection, prune: Prune) -> Result<Written, rusqlite::Error> {
    let mut last = None;
    let mut old = Vec::new();
    let mut looked: i64 = 0;
    let mut statement = db.prepare_cached(
        "SELECT seq, state, ended_at_ms, conversation FROM deliveries WHERE seq > ?1 AND received_at_ms < ?2
         ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![prune.after_seq, prune.before_ms, prune.limit])?;
    while let Some(row) = rows.next()? {
        let (seq, state, ended_at_ms): (i64, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        looked += 1;
        last = Some(seq);
        if state == 1 && ended_at_ms.is_some_and(|ended| ended < prune.before_ms) {
            old.push((seq, row.get::<_, i64>(3)?));
        }
    }
    for (seq, _) in &old {
        db.prepare_cached("DELETE FROM deliveries WHERE seq = ?1")?.execute(params![seq])?;
    }
    counted::forget(db, prune.counted_before_ms, prune.limit)?;
    old.dedup_by_key(|(_, conversation)| *conversation);
    for (_, conversation) in old {
        prune_turns(db, conversation, prune.before_ms)?;
    }
    Ok(Written::PrunedTo(if looked < prune.limit { None } else { last }))
}

/// Turns and posts go with the deliveries; the conversation and its transcript when nothing else is left of it.
fn prune_turns(db: &Connection, conversation: i64, before_ms: i64) -> Result<(), rusqlite::Error> {
    let ended = "SELECT id FROM turns WHERE conversation = ?1 AND ended_at_ms < ?2";
    db.prepare_cached(&format!("DELETE FROM posts WHERE turn IN ({ended})"))?
        .execute(params![conversation, before_ms])?;
    db.prepare_cached("DELETE FROM turns WHERE conversation = ?1 AND ended_at_ms < ?2")?
        .execute(params![conversation, before_ms])?;
    let gone = db
        .prepare_cached(
            "DELETE FROM conversations WHERE id = ?1 AND changed_at_ms < ?2
             AND NOT EXISTS (SELECT 1 FROM deliveries WHERE conversation = ?1)
             AND NOT EXISTS (SELECT 1 FROM turns WHERE conversation = ?1)",
        )?
        .execute(params![conversation, before_ms])?;
    if gone == 1 {
        db.prepare_cached("DELETE FROM lines WHERE conversation = ?1")?.execute(params![conversation])?;
    }
    Ok(())
}
