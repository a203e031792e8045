//! What must be true after a crash run: read from the Chatwoot, which saw what customers saw, and from the inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use relais_loadtest::fakes::chatwoot::{
    Author, Conversation, ConversationKey, FakeChatwoot, Message, MessageType, Outcome, Status,
};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

/// A takeover is honoured by what is sent so long after it; what is under way at that moment cannot be called back.
const UNDER_WAY_MS: i64 = 1_500;

/// What humans did to a conversation, as the driver of the run saw it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Humans {
    /// From when to when, in Unix ms, a human had it by a sign that Chatwoot shows to who asks.
    pub(crate) had: Vec<(i64, i64)>,
    /// Messages of humans, by id: they count from when we were told.
    pub(crate) wrote: Vec<u64>,
    /// When it was given back.
    pub(crate) given_back_ms: Vec<i64>,
    /// A human did anything at all.
    pub(crate) touched: bool,
}

struct Row {
    outcome: Option<String>,
    state: i64,
    turn: Option<Uuid>,
}

#[derive(Debug)]
struct Post {
    kind: String,
    state: i64,
}

/// Everything the inbox says.
pub(crate) struct Books {
    /// By conversation and message: the row of `message_created`.
    rows: BTreeMap<(u64, u64), Row>,
    /// By turn: the reason of a handoff, and the outcome.
    turns: BTreeMap<Uuid, (Option<String>, Option<String>)>,
    posts: BTreeMap<(Uuid, u64), Post>,
    damaged: u64,
}

pub(crate) fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    connection
}

impl Books {
    pub(crate) fn read(db: &Connection) -> Self {
        let unsigned = |number: i64| number.cast_unsigned();
        let mut rows = BTreeMap::new();
        let sql = "SELECT c.number, d.message_id, d.outcome, d.state, d.turn FROM deliveries d
                   JOIN conversations c ON c.id = d.conversation WHERE d.event = 'message_created'";
        let mut statement = db.prepare(sql).unwrap();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let turn: Option<[u8; 16]> = row.get(4).unwrap();
            let key = (unsigned(row.get(0).unwrap()), unsigned(row.get(1).unwrap()));
            let value =
                Row { outcome: row.get(2).unwrap(), state: row.get(3).unwrap(), turn: turn.map(Uuid::from_bytes) };
            assert!(rows.insert(key, value).is_none(), "message {key:?} is in the inbox twice");
        }
        let mut statement = db.prepare("SELECT id, handoff, outcome FROM turns").unwrap();
        let turns = statement.query_map([], |row| {
            Ok((Uuid::from_bytes(row.get(0)?), (row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?)))
        });
        let turns = turns.unwrap().map(Result::unwrap).collect();
        let mut statement = db.prepare("SELECT turn, part, kind, state FROM posts").unwrap();
        let posts = statement.query_map([], |row| {
            let key = (Uuid::from_bytes(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned());
            Ok((key, Post { kind: row.get(2)?, state: row.get(3)? }))
        });
        let posts = posts.unwrap().map(Result::unwrap).collect();
        let damaged: i64 =
            db.query_row("SELECT count(*) FROM deliveries WHERE state = 2", [], |row| row.get(0)).unwrap();
        Self { rows, turns, posts, damaged: unsigned(damaged) }
    }
}

/// What is wrong, in words; and how often each outcome came.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) wrong: Vec<String>,
    pub(crate) outcomes: BTreeMap<String, usize>,
    pub(crate) replies: usize,
    pub(crate) unacknowledged: usize,
}

pub(crate) fn judge(chatwoot: &FakeChatwoot, books: &Books, humans: &BTreeMap<ConversationKey, Humans>) -> Verdict {
    let mut verdict = Verdict::default();
    if books.damaged > 0 {
        verdict.wrong.push(format!("{} deliveries were found damaged", books.damaged));
    }
    let open = books.turns.iter().filter(|(_, (_, outcome))| outcome.is_none());
    verdict.wrong.extend(open.map(|(turn, _)| format!("turn {turn} never ended")));
    let accepted = accepted(chatwoot);
    let mut texts = BTreeSet::new();
    for key in chatwoot.conversation_keys() {
        let conversation = chatwoot.conversation(key).unwrap();
        let humans = humans.get(&key).cloned().unwrap_or_default();
        customers(&conversation, &accepted, books, &humans, &mut verdict);
        ours(&conversation, books, &humans, &mut texts, &mut verdict);
        takeovers(&conversation, &accepted, books, &humans, &mut verdict);
    }
    verdict
}

/// Messages whose `message_created` was acknowledged, and when that was first, in Unix ms.
fn accepted(chatwoot: &FakeChatwoot) -> BTreeMap<u64, i64> {
    let mut accepted = BTreeMap::new();
    for delivery in chatwoot.deliveries() {
        let good = delivery.attempts.iter().filter(|attempt| attempt.status.is_some_and(|status| status < 300));
        let at_ms = good.map(|attempt| attempt.at_ms + i64::try_from(attempt.answer_us / 1000).unwrap()).min();
        if delivery.event == "message_created"
            && delivery.outcome == Outcome::Accepted
            && let (Some(id), Some(at_ms)) = (delivery.message_id, at_ms)
        {
            let first = accepted.entry(id).or_insert(at_ms);
            *first = at_ms.min(*first);
        }
    }
    accepted
}

/// Every acknowledged message of a customer has one outcome, and the outcome is true.
fn customers(
    conversation: &Conversation,
    accepted: &BTreeMap<u64, i64>,
    books: &Books,
    humans: &Humans,
    verdict: &mut Verdict,
) {
    let number = conversation.key.conversation_id;
    let missed = |message: &Message| !accepted.contains_key(&message.id);
    let incoming = || conversation.messages.iter().filter(|message| message.message_type == MessageType::Incoming);
    let handed_off = incoming().any(|message| {
        books.rows.get(&(number, message.id)).is_some_and(|row| row.outcome.as_deref() == Some("handed_off"))
    });
    let answered_together = |row: &Row| {
        row.turn.is_some()
            && incoming().filter_map(|other| books.rows.get(&(number, other.id))).any(|other| {
                other.turn == row.turn && matches!(other.outcome.as_deref(), Some("replied" | "handed_off"))
            })
    };
    for message in incoming() {
        if missed(message) {
            verdict.unacknowledged += 1;
            continue;
        }
        let place = format!("message {} of conversation {number}", message.id);
        let Some(row) = books.rows.get(&(number, message.id)) else {
            verdict.wrong.push(format!("{place} was acknowledged and is not in the inbox"));
            continue;
        };
        let outcome = row.outcome.clone().unwrap_or_else(|| "none".to_owned());
        let turn = row.turn.and_then(|turn| books.turns.get(&turn));
        let of_turn = || books.posts.iter().filter(|((turn, _), _)| Some(*turn) == row.turn);
        let wrong = match outcome.as_str() {
            _ if row.state != 1 => Some("is not finished"),
            "replied" if !of_turn().any(|(_, post)| post.state == 2 && post.kind == "reply") => {
                Some("counts as replied, and nothing was posted")
            }
            "handed_off" if turn.is_none_or(|(reason, _)| reason.is_none()) => {
                Some("counts as handed off by a turn that hands nothing over")
            }
            "handed_off" if conversation.status == Status::Pending && humans.given_back_ms.is_empty() => {
                Some("counts as handed off, and its conversation is hidden from humans")
            }
            "superseded" if !answered_together(row) => {
                Some("counts as superseded, and no newer one was answered with it")
            }
            "not_ours" if !(humans.touched || handed_off || conversation.messages.iter().any(missed)) => {
                Some("counts as not ours, and nobody else had it")
            }
            "replied" | "handed_off" | "superseded" | "not_ours" => None,
            _ => Some("has an outcome that is none"),
        };
        verdict.wrong.extend(wrong.map(|wrong| format!("{place} {wrong} ({outcome})")));
        *verdict.outcomes.entry(outcome).or_default() += 1;
    }
}

fn mark(message: &Message) -> Option<(Uuid, u64)> {
    let turn = message.content_attributes.get("relay_turn_id")?.as_str()?.parse().ok()?;
    Some((turn, message.content_attributes.get("relay_part")?.as_u64()?))
}

fn by_bot(message: &&Message) -> bool {
    matches!(message.author, Some(Author::Bot(_)))
}

/// Nothing of ours is there twice, by its mark or by its text; every reply answers a customer of this conversation: a
/// message that the turn ended with, or one that was left unanswered when a human gave the conversation back.
fn ours(
    conversation: &Conversation,
    books: &Books,
    humans: &Humans,
    texts: &mut BTreeSet<String>,
    verdict: &mut Verdict,
) {
    let number = conversation.key.conversation_id;
    let mut marks = BTreeSet::new();
    let said: BTreeSet<&str> = conversation
        .messages
        .iter()
        .filter(|message| message.message_type == MessageType::Incoming)
        .filter_map(|message| Some(message.content.as_deref()?.split_once(':')?.0))
        .collect();
    let asked: BTreeSet<Uuid> = conversation
        .messages
        .iter()
        .filter(|message| message.message_type == MessageType::Incoming)
        .filter_map(|message| books.rows.get(&(number, message.id))?.turn)
        .collect();
    for message in conversation.messages.iter().filter(by_bot) {
        let place = format!("our message {} of conversation {number}", message.id);
        let Some(mark) = mark(message) else {
            verdict.wrong.push(format!("{place} has no mark"));
            continue;
        };
        if !marks.insert(mark) {
            verdict.wrong.push(format!("{place} is there twice: part {} of turn {}", mark.1, mark.0));
        }
        let Some(post) = books.posts.get(&mark) else {
            verdict.wrong.push(format!("{place} was never planned"));
            continue;
        };
        let given_back = humans.given_back_ms.iter().any(|at_ms| *at_ms <= message.created_at_ms);
        if !asked.contains(&mark.0) && !given_back {
            verdict.wrong.push(format!("{place} answers nobody"));
        }
        if post.kind != "reply" {
            continue;
        }
        verdict.replies += 1;
        let text = message.content.clone().unwrap_or_default();
        let to = text.split_once(" to ").and_then(|(_, rest)| rest.split_once('.')).map(|(to, _)| to);
        if mark.1 == 0 && !to.is_some_and(|to| said.contains(to)) {
            verdict.wrong.push(format!("{place} answers what nobody said here: {to:?}"));
        }
        if !texts.insert(text) {
            verdict.wrong.push(format!("{place} says what was said before"));
        }
    }
}

/// Nothing of ours reaches a customer while a human has the conversation.
fn takeovers(
    conversation: &Conversation,
    accepted: &BTreeMap<u64, i64>,
    books: &Books,
    humans: &Humans,
    verdict: &mut Verdict,
) {
    let until = |from: i64| humans.given_back_ms.iter().copied().find(|at| *at >= from).unwrap_or(i64::MAX);
    // From when we were told until it was given back after it was *written*: told late, it may be over already.
    let wrote_ms = |id: &u64| conversation.messages.iter().find(|message| message.id == *id).map(|m| m.created_at_ms);
    let told = humans.wrote.iter().filter_map(|id| Some((*accepted.get(id)?, until(wrote_ms(id)?))));
    let had: Vec<(i64, i64)> = humans.had.iter().copied().chain(told).collect();
    for message in conversation.messages.iter().filter(by_bot).filter(|message| !message.private) {
        let over = |(from, to): &&(i64, i64)| {
            message.created_at_ms > from.saturating_add(UNDER_WAY_MS) && message.created_at_ms < *to
        };
        if let Some((from, _)) = had.iter().find(over) {
            let kind = mark(message).and_then(|mark| books.posts.get(&mark)).map(|post| post.kind.as_str());
            verdict.wrong.push(format!(
                "our message {} of conversation {} ({kind:?}) came {} ms after a human took over",
                message.id,
                conversation.key.conversation_id,
                message.created_at_ms - from
            ));
        }
    }
}
