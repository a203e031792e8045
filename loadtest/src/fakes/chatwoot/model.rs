//! The records a Chatwoot keeps: accounts, humans, bots, inboxes, contacts, conversations, messages.
//!
//! Plain data, as the tables of the real thing hold it. What may change it, and what that sets off,
//! is in `machine.rs`; how it looks from outside is in `payload.rs` and `view.rs`. Times are
//! milliseconds since 1970, because Chatwoot shows the same instant in four different forms.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A free-form JSON object, as Chatwoot keeps attributes.
pub type Attributes = Map<String, Value>;

/// Names one conversation: display ids are counted per account, so neither half is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConversationKey {
    /// The account.
    pub account_id: u64,
    /// The display id, the number in paths and payloads.
    pub conversation_id: u64,
}

/// A conversation's status. `Pending` means that a bot has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Humans see it in their list.
    Open,
    /// Done.
    Resolved,
    /// A bot has it; hidden from humans.
    Pending,
    /// Asleep until a time or the customer's next message.
    Snoozed,
}

impl Status {
    /// The word Chatwoot uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
            Self::Pending => "pending",
            Self::Snoozed => "snoozed",
        }
    }

    /// The status a word names.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Open, Self::Resolved, Self::Pending, Self::Snoozed].into_iter().find(|status| status.as_str() == word)
    }
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// From the customer.
    Incoming,
    /// To the customer (or, if private, to humans).
    Outgoing,
    /// A line about what happened; raises no event.
    Activity,
    /// Made by Chatwoot: greeting, survey.
    Template,
}

impl MessageType {
    /// The word at the top level of a payload.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
            Self::Activity => "activity",
            Self::Template => "template",
        }
    }

    /// The integer inside a conversation and in REST answers.
    #[must_use]
    pub fn as_integer(self) -> u8 {
        match self {
            Self::Incoming => 0,
            Self::Outgoing => 1,
            Self::Activity => 2,
            Self::Template => 3,
        }
    }
}

/// Who wrote a message, or did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The customer, by contact id.
    Contact(u64),
    /// A human of the account, by user id.
    Human(u64),
    /// An agent bot, by bot id.
    Bot(u64),
}

/// Who a conversation is assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignee {
    /// A human, by user id.
    Human(u64),
    /// An agent bot, by bot id.
    Bot(u64),
}

/// One message. `id` is global to the installation and grows.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// The id.
    pub id: u64,
    /// Kind.
    pub message_type: MessageType,
    /// Text as stored, after Liquid ran. `None` for attachments alone.
    pub content: Option<String>,
    /// `text`, `input_select` and so on.
    pub content_type: String,
    /// Attributes as given; unknown keys are kept.
    pub content_attributes: Attributes,
    /// A note for humans.
    pub private: bool,
    /// `sent`, `delivered`, `read` or `failed`.
    pub status: String,
    /// The channel's own id. An outgoing message posted with one is taken as delivered already.
    pub source_id: Option<String>,
    /// Who wrote it; `None` for templates, automation and phone-app echoes.
    pub author: Option<Author>,
    /// Attachment objects as they appear in payloads.
    pub attachments: Vec<Value>,
    /// When it was stored, ms.
    pub created_at_ms: i64,
    /// When it last changed, ms.
    pub updated_at_ms: i64,
}

impl Message {
    /// Whether the customer is shown it.
    #[must_use]
    pub fn is_for_customer(&self) -> bool {
        !self.private && self.message_type != MessageType::Activity
    }
}

/// The link between a contact and an inbox, as payloads show it.
#[derive(Debug, Clone, Serialize)]
pub struct ContactInbox {
    /// Row id.
    pub id: u64,
    /// The channel's name for the customer.
    pub source_id: String,
    /// A credential of the customer: whoever receives it must not log or forward it.
    pub pubsub_token: String,
    /// Whether the site proved who the customer is.
    pub hmac_verified: bool,
}

/// One conversation with everything in it.
#[derive(Debug, Clone, Serialize)]
pub struct Conversation {
    /// Its name.
    #[serde(flatten)]
    pub key: ConversationKey,
    /// The inbox it came through.
    pub chatwoot_inbox_id: u64,
    /// The customer.
    pub contact_id: u64,
    /// Not in payloads, only in REST.
    pub uuid: String,
    /// The status.
    pub status: Status,
    /// Who has it.
    pub assignee: Option<Assignee>,
    /// The team.
    pub team_id: Option<u64>,
    /// Labels in the order given.
    pub labels: Vec<String>,
    /// Custom attributes.
    pub custom_attributes: Attributes,
    /// What the channel knows, such as the browser.
    pub additional_attributes: Value,
    /// `low`, `medium`, `high`, `urgent`.
    pub priority: Option<String>,
    /// End of the snooze, ms.
    pub snoozed_until_ms: Option<i64>,
    /// Since when the customer waits, ms.
    pub waiting_since_ms: Option<i64>,
    /// First answer of a human, ms.
    pub first_reply_created_at_ms: Option<i64>,
    /// Last message, ms.
    pub last_activity_at_ms: i64,
    /// When a human last looked, ms; 0 is never.
    pub human_last_seen_at_ms: i64,
    /// When it began, ms.
    pub created_at_ms: i64,
    /// When it last changed, ms.
    pub updated_at_ms: i64,
    /// The contact's link to the inbox.
    #[serde(skip)]
    pub contact_inbox: ContactInbox,
    /// Whether the survey went out; it does so once.
    pub survey_sent: bool,
    /// What `toggle_typing_status` was told, in order; the newest few.
    pub typing: Vec<bool>,
    /// Ascending by id.
    pub messages: Vec<Message>,
    /// REST calls on it so far: makes a seeded share of faults independent of what others do.
    #[serde(skip)]
    pub calls_count: u64,
    /// Deliveries about it so far, for the same reason.
    #[serde(skip)]
    pub deliveries_count: u64,
}

impl Conversation {
    /// One of its messages.
    #[must_use]
    pub fn message(&self, message_id: u64) -> Option<&Message> {
        let at = self.messages.binary_search_by_key(&message_id, |message| message.id).ok()?;
        self.messages.get(at)
    }

    pub(super) fn message_mut(&mut self, message_id: u64) -> Option<&mut Message> {
        let at = self.messages.binary_search_by_key(&message_id, |message| message.id).ok()?;
        self.messages.get_mut(at)
    }
}

/// A customer account of the installation.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) last_conversation_id: u64,
}

/// Whether a human may change settings, and whether opening a conversation assigns it to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do everything.
    Administrator,
    /// Answers customers.
    Agent,
}

/// A person who works in an account.
#[derive(Debug, Clone)]
pub(super) struct Human {
    pub(super) id: u64,
    pub(super) account_id: u64,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) access_token: String,
    pub(super) role: Role,
    pub(super) online: bool,
}

/// A group of humans.
#[derive(Debug, Clone)]
pub(super) struct Team {
    pub(super) id: u64,
    pub(super) account_id: u64,
    pub(super) name: String,
    pub(super) allow_auto_assign: bool,
    pub(super) human_ids: Vec<u64>,
}

/// An agent bot: where its webhooks go and what signs them.
#[derive(Debug, Clone)]
pub(super) struct Bot {
    pub(super) id: u64,
    /// `None` is a global bot: every account may use it, none is shown its URL, token or secret.
    pub(super) account_id: Option<u64>,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) outgoing_url: Option<String>,
    pub(super) access_token: String,
    pub(super) secret: Option<String>,
}

/// What Chatwoot itself says in an inbox, next to the bot. The names are the API's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Templates {
    /// Sends the greeting to a customer nobody has answered yet.
    pub greeting_enabled: bool,
    /// The greeting.
    pub greeting_message: Option<String>,
    /// Keeps business hours. In the fake an inbox that keeps hours is closed.
    pub working_hours_enabled: bool,
    /// What the first message of a day outside the hours is answered with.
    pub out_of_office_message: Option<String>,
    /// Asks a visitor of the website for a mail address.
    pub enable_email_collect: bool,
    /// Sends the survey when a conversation is resolved.
    pub csat_survey_enabled: bool,
}

/// A contact's link to an inbox. A webhook whose link is gone when its turn comes is not sent.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) contact_id: u64,
    pub(super) chatwoot_inbox_id: u64,
    pub(super) row: ContactInbox,
}

/// A channel of an account.
#[derive(Debug, Clone)]
pub(super) struct ChatwootInbox {
    pub(super) id: u64,
    pub(super) account_id: u64,
    pub(super) name: String,
    pub(super) channel: String,
    pub(super) bot_id: Option<u64>,
    pub(super) auto_assignment: bool,
    pub(super) templates: Templates,
    /// Names an API inbox in the public API.
    pub(super) identifier: String,
    pub(super) hmac_token: String,
    /// Signs an API inbox's webhooks; none before 4.13.0.
    pub(super) secret: Option<String>,
    /// Where an API inbox's webhooks go.
    pub(super) webhook_url: Option<String>,
}

/// A webhook of an account; one attempt, whatever happens.
#[derive(Debug, Clone)]
pub(super) struct AccountWebhook {
    pub(super) id: u64,
    pub(super) account_id: u64,
    pub(super) name: Option<String>,
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) subscriptions: Vec<String>,
}

/// A customer.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) id: u64,
    pub(super) account_id: u64,
    pub(super) name: String,
    pub(super) email: Option<String>,
    pub(super) phone_number: Option<String>,
    pub(super) custom_attributes: Attributes,
    pub(super) created_at_ms: i64,
}
