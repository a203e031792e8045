//! One conversation's whole story, as the inbox keeps it.

use rusqlite::Connection;
use serde::Serialize;
use uuid::Uuid;

use super::super::schema;
use super::{Named, named};

/// One conversation, all that is kept of it.
#[derive(Debug, Serialize)]
pub struct Story {
    #[serde(flatten)]
    conversation: Named,
    /// Chatwoot's word for the status, as last seen.
    pub status: Option<String>,
    /// Who has it, as last seen: `none`, `us`, `human`, `other`.
    pub owner: Option<String>,
    /// A human spoke in this message and it has not been given back since.
    pub human_message_id: Option<u64>,
    /// Not worked on before: Unix ms; 0 if it is not put off.
    pub not_before_ms: i64,
    /// Billing months in which it counts: since when each counts, Unix ms.
    pub counted_in_ms: Vec<i64>,
    /// In the order of acceptance.
    pub deliveries: Vec<DeliveryStory>,
    /// In the order of planning.
    pub turns: Vec<TurnStory>,
    /// The transcript; only if texts were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineStory>,
}

impl Story {
    /// Which conversation it is.
    pub fn named(&self) -> &Named {
        &self.conversation
    }
}

/// One delivery.
#[derive(Debug, Serialize)]
pub struct DeliveryStory {
    /// Its place in the order of acceptance.
    pub seq: i64,
    /// Chatwoot's name of the event.
    pub event: String,
    /// The message it is about; 0 for an event about the conversation itself.
    pub message_id: u64,
    /// `X-Chatwoot-Delivery`.
    pub delivery_uuid: Option<Uuid>,
    /// Unix ms.
    pub received_at_ms: i64,
    /// `unfinished`, `damaged`, or its outcome.
    pub outcome: String,
    /// Unix ms.
    pub ended_at_ms: Option<i64>,
    /// The turn that ended it.
    pub turn: Option<Uuid>,
}

/// One turn that posted something, or meant to.
#[derive(Debug, Serialize)]
pub struct TurnStory {
    /// Its id, which our messages carry as `relay_turn_id`.
    pub turn: Uuid,
    /// It answers deliveries up to this one.
    pub upto_seq: i64,
    /// Why a human takes over, if that is what it does.
    pub handoff: Option<String>,
    /// The agent that answered, or decided to hand over.
    pub agent: Option<String>,
    /// Model tokens of the prompts, the cached parts included.
    pub input_tokens: u64,
    /// The cached part of the prompts.
    pub cached_tokens: u64,
    /// Model tokens of the answers.
    pub output_tokens: u64,
    /// Times it was put off.
    pub tries: u32,
    /// Unix ms.
    pub planned_at_ms: i64,
    /// None while it is open.
    pub outcome: Option<String>,
    /// Unix ms.
    pub ended_at_ms: Option<i64>,
    /// In order.
    pub posts: Vec<PostStory>,
}

/// One message of ours.
#[derive(Debug, Serialize)]
pub struct PostStory {
    /// Its number within the turn.
    pub part: u32,
    /// `reply`, `note`, `message`, or `action` for something done.
    pub kind: String,
    /// `planned`, `sending` (may be there), `posted`, `skipped`.
    pub state: &'static str,
    /// Since when it may have been sent: Unix ms.
    pub sending_at_ms: Option<i64>,
    /// Its id at Chatwoot.
    pub message_id: Option<u64>,
    /// Its text, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// One message of the transcript.
#[derive(Debug, Serialize)]
pub struct LineStory {
    /// Its id at Chatwoot.
    pub message_id: u64,
    /// `customer`, `agent`, `human`.
    pub voice: String,
    /// What was said.
    pub text: String,
}

/// Reads conversation `id`; `texts` includes what was said.
pub(super) fn story(db: &Connection, id: i64, texts: bool) -> Result<Story, rusqlite::Error> {
    let mut story = db
        .prepare_cached(
            "SELECT tenant, channel, account_id, number, status, owner, human_message_id, not_before_ms
             FROM conversations WHERE id = ?1",
        )?
        .query_row([id], |row| {
            Ok(Story {
                conversation: named(row)?,
                status: row.get(4)?,
                owner: row.get(5)?,
                human_message_id: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
                not_before_ms: row.get(7)?,
                counted_in_ms: Vec::new(),
                deliveries: Vec::new(),
                turns: Vec::new(),
                lines: Vec::new(),
            })
        })?;
    let sql = "SELECT seq, event, message_id, delivery_uuid, received_at_ms, state, outcome, ended_at_ms, turn
               FROM deliveries WHERE conversation = ?1 ORDER BY seq";
    let uuid = |bytes: Option<[u8; 16]>| bytes.map(Uuid::from_bytes);
    story.deliveries = db
        .prepare_cached(sql)?
        .query_map([id], |row| {
            Ok(DeliveryStory {
                seq: row.get(0)?,
                event: row.get(1)?,
                message_id: row.get::<_, i64>(2)?.cast_unsigned(),
                delivery_uuid: uuid(row.get(3)?),
                received_at_ms: row.get(4)?,
                outcome: match row.get::<_, i64>(5)? {
                    0 => "unfinished".to_owned(),
                    _ => row.get::<_, Option<String>>(6)?.unwrap_or_default(),
                },
                ended_at_ms: row.get(7)?,
                turn: uuid(row.get(8)?),
            })
        })?
        .collect::<Result<_, _>>()?;
    story.counted_in_ms = counted_in(db, id)?;
    story.turns = turns(db, id, texts)?;
    if texts {
        story.lines = lines(db, id)?;
    }
    Ok(story)
}

fn counted_in(db: &Connection, conversation: i64) -> Result<Vec<i64>, rusqlite::Error> {
    // A file that no gateway of this version has opened yet does not have the table.
    if !db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'counted'")?.exists([])? {
        return Ok(Vec::new());
    }
    db.prepare_cached(
        "SELECT period_ms FROM counted WHERE (tenant, channel, account_id, number) =
         (SELECT tenant, channel, account_id, number FROM conversations WHERE id = ?1) ORDER BY period_ms",
    )?
    .query_map([conversation], |row| row.get(0))?
    .collect()
}

fn turns(db: &Connection, conversation: i64, texts: bool) -> Result<Vec<TurnStory>, rusqlite::Error> {
    // A file that no gateway of this version has opened yet does not have them.
    let agent = if schema::has_column(db, "agent")? { "agent" } else { "NULL" };
    let has_tokens = schema::has_column(db, "output_tokens")?;
    let tokens = if has_tokens { "input_tokens, cached_tokens, output_tokens" } else { "0, 0, 0" };
    let sql = format!(
        "SELECT id, upto_seq, handoff, deferrals, planned_at_ms, outcome, ended_at_ms, {agent}, {tokens} FROM turns
         WHERE conversation = ?1 ORDER BY seq"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let turns = statement.query_map([conversation], |row| {
        Ok(TurnStory {
            turn: Uuid::from_bytes(row.get(0)?),
            upto_seq: row.get(1)?,
            handoff: row.get(2)?,
            tries: row.get(3)?,
            planned_at_ms: row.get(4)?,
            outcome: row.get(5)?,
            ended_at_ms: row.get(6)?,
            agent: row.get(7)?,
            input_tokens: row.get::<_, i64>(8)?.cast_unsigned(),
            cached_tokens: row.get::<_, i64>(9)?.cast_unsigned(),
            output_tokens: row.get::<_, i64>(10)?.cast_unsigned(),
            posts: Vec::new(),
        })
    })?;
    let mut turns = turns.collect::<Result<Vec<_>, _>>()?;
    let sql = "SELECT part, kind, state, sending_at_ms, message_id, text FROM posts WHERE turn = ?1 ORDER BY part";
    for turn in &mut turns {
        let mut statement = db.prepare_cached(sql)?;
        let posts = statement.query_map([turn.turn.as_bytes()], |row| {
            let state = match row.get::<_, i64>(2)? {
                0 => "planned",
                1 => "sending",
                2 => "posted",
                _ => "skipped",
            };
            Ok(PostStory {
                part: row.get(0)?,
                kind: row.get(1)?,
                state,
                sending_at_ms: row.get(3)?,
                message_id: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                text: if texts { Some(row.get(5)?) } else { None },
            })
        })?;
        turn.posts = posts.collect::<Result<_, _>>()?;
    }
    Ok(turns)
}

fn lines(db: &Connection, conversation: i64) -> Result<Vec<LineStory>, rusqlite::Error> {
    let sql = "SELECT message_id, voice, text FROM lines WHERE conversation = ?1 ORDER BY message_id";
    db.prepare_cached(sql)?
        .query_map([conversation], |row| {
            Ok(LineStory { message_id: row.get::<_, i64>(0)?.cast_unsigned(), voice: row.get(1)?, text: row.get(2)? })
        })?
        .collect()
}
