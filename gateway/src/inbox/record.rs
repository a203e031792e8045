//! What the inbox keeps: deliveries, conversations, turns with their posts, and lines of transcript.
//!
//! Every row that is read back carries a checksum over its content *and* over the conversation it belongs to, so
//! that a flipped bit, wherever it falls, makes the row unreadable and never turns it into another customer's
//! message. What changes after the row is written (its state, its outcome) has a seal of its own (`seal`).
//!
//! Nothing here knows Chatwoot's words or reads a body: bodies go in and out as bytes, and the relay parses them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

/// Which conversation. Two installations can share every number, so the tenant and its channel come first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    /// The tenant's id.
    pub tenant: Arc<str>,
    /// The name of its channel.
    pub channel: Arc<str>,
    /// The account at Chatwoot.
    pub account_id: u64,
    /// The conversation's number within that account, as used in Chatwoot's addresses.
    pub conversation_id: u64,
}

/// The inbox's own number of a conversation. Stable as long as the conversation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationRow(pub(super) i64);

impl ConversationRow {
    /// Before every conversation: where paging begins.
    pub const FIRST: Self = Self(0);
}

/// What makes two deliveries one.
#[derive(Debug, Clone, Copy)]
pub enum Sameness<'a> {
    /// The event and the message's id: a message is created once, whoever tells us and however often.
    Message,
    /// The event, the message's id and these parts of it: an update may come many times with other content.
    Content(&'a [&'a [u8]]),
    /// The delivery itself: its id, or its bytes if it has none. For events about a conversation, which may
    /// rightly repeat (opened, pending, opened again).
    Delivery,
}

/// A verified webhook delivery on its way to the disk.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The conversation it is about.
    pub conversation: ConversationKey,
    /// The message it is about; 0 for an event about the conversation itself.
    pub message_id: u64,
    /// Chatwoot's name of the event.
    pub event: Cow<'static, str>,
    /// What makes it the same as another delivery, within its conversation and message.
    pub dedupe: [u8; 16],
    /// `X-Chatwoot-Delivery`, for the operator.
    pub delivery_uuid: Option<Uuid>,
    /// The body as received.
    pub body: Bytes,
    /// When it arrived: Unix ms.
    pub received_at_ms: i64,
}

impl Delivery {
    /// A delivery; computes what it is the same as.
    pub fn new(
        conversation: ConversationKey,
        event: impl Into<Cow<'static, str>>,
        message_id: Option<u64>,
        sameness: Sameness<'_>,
        delivery_uuid: Option<Uuid>,
        body: Bytes,
        received_at_ms: i64,
    ) -> Self {
        let event = event.into();
        let mut hash = Sum::new();
        hash.part(event.as_bytes());
        match sameness {
            Sameness::Message => {}
            Sameness::Content(parts) => parts.iter().for_each(|part| hash.part(part)),
            Sameness::Delivery => match &delivery_uuid {
                Some(uuid) => hash.part(uuid.as_bytes()),
                None => hash.part(&body),
            },
        }
        let dedupe = hash.finish();
        let message_id = message_id.unwrap_or(0);
        Self { conversation, message_id, event, dedupe, delivery_uuid, body, received_at_ms }
    }

    /// The checksum of its row.
    pub(super) fn sum(&self) -> [u8; 16] {
        delivery_sum(&self.conversation, self.message_id, &self.event, &self.dedupe, self.received_at_ms, &self.body)
    }
}

pub(super) fn delivery_sum(
    key: &ConversationKey,
    message_id: u64,
    event: &str,
    dedupe: &[u8],
    received_at_ms: i64,
    body: &[u8],
) -> [u8; 16] {
    let mut sum = Sum::of(key);
    sum.part(&message_id.to_le_bytes());
    sum.part(event.as_bytes());
    sum.part(dedupe);
    sum.part(&received_at_ms.to_le_bytes());
    sum.part(body);
    sum.finish()
}

/// A delivery that is not finished, read back and found whole.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the order of acceptance.
    pub seq: i64,
    /// The message it is about; 0 for an event about the conversation itself.
    pub message_id: u64,
    /// Chatwoot's name of the event.
    pub event: String,
    /// When it arrived: Unix ms.
    pub received_at_ms: i64,
    /// The body as received.
    pub body: Bytes,
}

/// What we know of a conversation between turns. Chatwoot has the truth; this is its last snapshot, for when it
/// cannot be asked, and what it does not tell: whether a human spoke, and what we have answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversationState {
    /// Chatwoot's word for the status.
    pub status: Option<String>,
    /// Who has it, in the relay's words.
    pub owner: Option<String>,
    /// A human spoke in this message and the conversation has not been given back to us since.
    pub human_message_id: Option<u64>,
    /// Newest message seen, from anyone.
    pub seen_message_id: u64,
    /// Newest customer message that has its outcome.
    pub answered_message_id: u64,
}

/// Who said a line of the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The customer.
    Customer,
    /// The AI agent.
    Agent,
    /// A human of the tenant.
    Human,
}

impl Voice {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Agent => "agent",
            Self::Human => "human",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Customer, Self::Agent, Self::Human].into_iter().find(|voice| voice.as_str() == word)
    }
}

/// One message of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The message's id at Chatwoot, which orders them.
    pub message_id: u64,
    /// Who said it.
    pub voice: Voice,
    /// What was said.
    pub text: String,
}

impl Line {
    pub(super) fn sum(&self, conversation: ConversationRow) -> [u8; 16] {
        let mut sum = Sum::new();
        sum.part(&conversation.0.to_le_bytes());
        sum.part(&self.message_id.to_le_bytes());
        sum.part(self.voice.as_str().as_bytes());
        sum.part(self.text.as_bytes());
        sum.finish()
    }
}

/// What a post is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostKind {
    /// A part of the agent's reply.
    Reply,
    /// A private note to the humans.
    Note,
    /// A private note that is left out unless something that was to be done could not be.
    Remark,
    /// What the customer reads when a human takes over.
    Message,
    /// Not a message: something to be done, as JSON.
    Action,
}

impl PostKind {
    /// Humans read it, and the customer does not.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Note | Self::Remark)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Note => "note",
            Self::Remark => "remark",
            Self::Message => "message",
            Self::Action => "action",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Reply, Self::Note, Self::Remark, Self::Message, Self::Action]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// How far a post is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostState {
    /// Certainly not sent.
    Planned,
    /// May have been sent: since when, in Unix ms. Look before sending again.
    Sending(i64),
    /// Stored at Chatwoot under this message id; 0 if we know only that it is there.
    Posted(u64),
    /// Will not be sent, or we shall never know: left out for good.
    Skipped,
}

/// One message we post, or thing we do, in the order of its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Its number within the turn, from 0.
    pub part: u32,
    /// What it is for.
    pub kind: PostKind,
    /// Its text, exactly as it will be sent.
    pub text: String,
    /// How far it is.
    pub state: PostState,
}

pub(super) fn post_sum(turn: Uuid, part: u32, kind: &str, text: &str) -> [u8; 16] {
    let mut sum = Sum::new();
    sum.part(turn.as_bytes());
    sum.part(&part.to_le_bytes());
    sum.part(kind.as_bytes());
    sum.part(text.as_bytes());
    sum.finish()
}

/// Model tokens that a turn's answers took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTokens {
    /// Prompts, the cached parts included.
    pub input: u64,
    /// The parts of the prompts that the upstream had in its cache.
    pub cached: u64,
    /// Answers, reasoning included.
    pub output: u64,
}

impl TurnTokens {
    /// Adds what others took.
    pub fn add(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.cached = self.cached.saturating_add(more.cached);
        self.output = self.output.saturating_add(more.output);
    }
}

/// A turn that has decided what to post and is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurn {
    /// Its id, which our messages carry.
    pub id: Uuid,
    /// It answers the deliveries up to this one.
    pub upto_seq: i64,
    /// Newest message of the conversation we knew when it was planned: what came later may be ours.
    pub known_message_id: u64,
    /// It hands the conversation to a human, for this reason: after its posts, open it.
    pub handoff: Option<String>,
    /// Its posts, in order.
    pub posts: Vec<Post>,
    /// How often delivering it has been put off.
    pub deferrals: u32,
    /// A post could not be read back: what is left cannot be sent as it was.
    pub damaged: bool,
}

/// A checksum over parts, each with its length, so that no two lists of parts are one.
struct Sum(blake3::Hasher);

impl Sum {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn of(key: &ConversationKey) -> Self {
        let mut sum = Self::new();
        sum.part(key.tenant.as_bytes());
        sum.part(key.channel.as_bytes());
        sum.part(&key.account_id.to_le_bytes());
        sum.part(&key.conversation_id.to_le_bytes());
        sum
    }

    fn part(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.update(&length.to_le_bytes());
        self.0.update(bytes);
    }

    /// 128 of the 256 bits: enough that chance never makes two alike, and half the room in every index entry.
    fn finish(self) -> [u8; 16] {
        let mut short = [0; 16];
        self.0.finalize_xof().fill(&mut short);
        short
    }
}
