//! Deliveries, read leniently: what happened, in which conversation, and whose it is now.
//!
//! Chatwoot's payloads differ by event, route, version and licence, so only what makes an event usable at all is
//! demanded (the account, the conversation, the message's number); anything else may be missing or odd and is then
//! unknown, never an error. Two shapes carry the same things: a message with its conversation inside, and a bare
//! conversation whose top-level `id` is the conversation's. Hence the branch on `event` before any `id` is read.
//!
//! It judges nothing: whether a message is ours to answer is the relay's question. Status and owner are a snapshot
//! from the moment of the event.

use uuid::Uuid;

use crate::chatwoot::wire;
use crate::conversation::{Contact, Medium, Priority};

/// What a delivery turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// Something that can concern a turn.
    Event(Box<Event>),
    /// Acknowledged without effect; the word says why.
    Ignored(&'static str),
}

/// Why a delivery cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not a JSON object.
    #[error("reading the delivery as JSON")]
    Json(#[source] serde_json::Error),
    /// A field is missing without which we do not know what it is about.
    #[error("the delivery has no usable {0}")]
    Missing(&'static str),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Somebody wrote.
    MessageCreated,
    /// A message changed: answered, transcribed, delivered, failed or deleted.
    MessageUpdated,
    /// Owner, team, labels, priority or another field changed.
    ConversationUpdated,
    /// The status changed.
    ConversationStatusChanged,
    /// Opened: a human's now.
    ConversationOpened,
    /// Resolved.
    ConversationResolved,
}

impl EventKind {
    /// Chatwoot's name for it, which is also how the inbox keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageCreated => "message_created",
            Self::MessageUpdated => "message_updated",
            Self::ConversationUpdated => "conversation_updated",
            Self::ConversationStatusChanged => "conversation_status_changed",
            Self::ConversationOpened => "conversation_opened",
            Self::ConversationResolved => "conversation_resolved",
        }
    }

    /// The reverse of [`EventKind::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        const ALL: [EventKind; 6] = [
            EventKind::MessageCreated,
            EventKind::MessageUpdated,
            EventKind::ConversationUpdated,
            EventKind::ConversationStatusChanged,
            EventKind::ConversationOpened,
            EventKind::ConversationResolved,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// In which account.
    pub account_id: u64,
    /// The conversation, as it was then.
    pub conversation: ConversationView,
    /// The message, if the event is about one.
    pub message: Option<Message>,
}

/// A conversation at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationView {
    /// Its number within the account (Chatwoot's display id), as used in addresses.
    pub id: u64,
    /// Chatwoot's inbox: the channel it came in by.
    pub chatwoot_inbox_id: Option<u64>,
    /// Whose turn it is, if we know the word.
    pub status: Option<Status>,
    /// Who owns it.
    pub assignee: Assignee,
    /// A team has it. Reading such a conversation with a bot token fails on some versions.
    pub has_team: bool,
    /// The channel still lets us write. True if not told.
    pub can_reply: bool,
    /// What it runs over.
    pub medium: Medium,
    /// Labels.
    pub labels: Vec<String>,
    /// How soon humans should look, if anybody said so.
    pub priority: Option<Priority>,
    /// The customer.
    pub contact: Contact,
    /// The newest message that is neither private nor an activity, if told.
    pub last_message: Option<LastMessage>,
}

/// The newest message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMessage {
    /// Its number.
    pub id: u64,
    /// Who wrote it.
    pub from: Sender,
    /// Our mark, if we wrote it.
    pub turn: Option<TurnMark>,
}

/// A conversation's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A human's.
    Open,
    /// The agent's.
    Pending,
    /// Done.
    Resolved,
    /// Put off by a human.
    Snoozed,
}

impl Status {
    /// Chatwoot's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
            Self::Resolved => "resolved",
            Self::Snoozed => "snoozed",
        }
    }

    /// The reverse of [`Status::as_str`].
    pub fn named(word: &str) -> Option<Self> {
        [Self::Open, Self::Pending, Self::Resolved, Self::Snoozed].into_iter().find(|status| status.as_str() == word)
    }
}

/// Who owns a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignee {
    /// Nobody.
    None,
    /// A bot, ours or another.
    Bot(u64),
    /// A human.
    Human(u64),
    /// Somebody of a kind we do not know.
    Other,
    /// The payload does not tell.
    Unknown,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its number: grows within an installation, so it orders a conversation.
    pub id: u64,
    /// Text, if it has any.
    pub content: Option<String>,
    /// A note among humans that the customer does not see.
    pub private: bool,
    /// Who wrote it.
    pub from: Sender,
    /// Our mark, if we wrote it.
    pub turn: Option<TurnMark>,
    /// What came with it.
    pub attachments: Vec<Attachment>,
    /// What the customer chose or filled in, in the words they saw.
    pub submitted: Vec<String>,
    /// Deleted; the content is then a placeholder.
    pub deleted: bool,
    /// The channel could not deliver it.
    pub external_error: bool,
    /// When it was written: Unix ms; 0 if not told.
    pub created_at_ms: i64,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The customer.
    Customer,
    /// A human in Chatwoot.
    Human(u64),
    /// A bot, ours or another.
    Bot(u64),
    /// Chatwoot's built-in AI.
    Captain,
    /// A rule or a campaign.
    Automation,
    /// A greeting, out-of-office or survey of Chatwoot's.
    Template,
    /// A human, from the channel's own app.
    ExternalEcho,
    /// Outgoing and unsigned, or signed by something newer than this list: take it for a human.
    Nobody,
}

/// Our mark on a message of ours: which turn, and which part of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnMark {
    /// The turn.
    pub turn_id: Uuid,
    /// The part, from 0.
    pub part: u32,
}

/// Something that came with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What it is.
    pub kind: AttachmentKind,
    /// What was said, if it is a voice note that has been transcribed.
    pub transcript: Option<String>,
}

/// What an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentKind {
    /// A picture or sticker.
    Image,
    /// A voice note or other sound.
    Audio,
    /// A film.
    Video,
    /// A document.
    File,
    /// A place.
    Location,
    /// Somebody's details.
    Contact,
    /// A story, a shared post or something newer.
    Other,
    /// Chatwoot could not read it either.
    Unsupported,
}

impl AttachmentKind {
    /// What to call it to the agent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "voice note",
            Self::Video => "video",
            Self::File => "file",
            Self::Location => "location",
            Self::Contact => "contact card",
            Self::Other => "shared item",
            Self::Unsupported => "unsupported message",
        }
    }
}

/// Reads one delivery. Call it on a body that has verified.
pub fn parse(body: &[u8]) -> Result<Parsed, ParseError> {
    let envelope: wire::Envelope<'_> = serde_json::from_slice(body).map_err(ParseError::Json)?;
    let Some(name) = envelope.event else { return Ok(Parsed::Ignored("no_event")) };
    let Some(kind) = EventKind::named(&name) else { return Ok(Parsed::Ignored(why_ignored(&name))) };
    let event = match kind {
        EventKind::MessageCreated | EventKind::MessageUpdated => {
            let raw: wire::RawMessage<'_> = serde_json::from_slice(body).map_err(ParseError::Json)?;
            if raw.is_activity() {
                return Ok(Parsed::Ignored("activity"));
            }
            let conversation = raw.conversation.as_deref().ok_or(ParseError::Missing("conversation"))?;
            let account_id = raw.account_id.or_else(|| raw.account.as_ref()?.id).or_else(|| conversation.account_id());
            Event {
                kind,
                account_id: account_id.ok_or(ParseError::Missing("account.id"))?,
                conversation: conversation.view().ok_or(ParseError::Missing("conversation.id"))?,
                message: Some(raw.message().ok_or(ParseError::Missing("id"))?),
            }
        }
        _ => {
            let raw: wire::RawConversation<'_> = serde_json::from_slice(body).map_err(ParseError::Json)?;
            Event {
                kind,
                account_id: raw.account_id().ok_or(ParseError::Missing("account.id"))?,
                conversation: raw.view().ok_or(ParseError::Missing("id"))?,
                message: None,
            }
        }
    };
    Ok(Parsed::Event(Box::new(event)))
}

/// A closed list, so it can be a metric label.
fn why_ignored(name: &str) -> &'static str {
    match name {
        "conversation_typing_on" | "conversation_typing_off" => "typing",
        // Built later than the messages it announces, so it may carry the wrong one.
        "conversation_created" => "conversation_created",
        "contact_created" | "contact_updated" => "contact",
        "inbox_created" | "inbox_updated" => "chatwoot_inbox",
        "webwidget_triggered" => "webwidget_triggered",
        "account_created" => "account",
        "macro.executed" => "macro",
        _ if name.starts_with("automation_event.") => "automation",
        _ => "unknown_event",
    }
}

#[cfg(test)]
mod tests;
