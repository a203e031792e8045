//! Chatwoot's JSON as it comes, webhook and REST alike, and its translation into `event`'s types.
//!
//! Every field is read by itself: one that is missing or of another type than expected is unknown and spoils
//! nothing beside it. The traps are the contract's: `message_type` is a word or a number, `created_at` a date or
//! seconds, a customer's `sender` has no type, an owner may be a kind we have not met.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::chatwoot::event::{
    Assignee, Attachment, AttachmentKind, ConversationView, LastMessage, Message, Sender, Status, TurnMark,
};
use crate::chatwoot::lenient::{Text, lenient, lenient_list, plain};
use crate::conversation::choice;
use crate::conversation::{Contact, Medium, Priority};

/// Where our mark stands in a message's `content_attributes`: Chatwoot keeps and returns keys it does not know.
pub(super) const TURN_ID_KEY: &str = "relay_turn_id";
/// The part of the answer, beside [`TURN_ID_KEY`].
pub(super) const PART_KEY: &str = "relay_part";

/// Contact details are cut here, and custom fields beyond this number are left out: enough for any prompt.
const DETAIL_CHARS_MAX: usize = 200;
const CUSTOM_FIELDS_MAX: usize = 20;
/// More than a form has, and more than a person fills in.
const SUBMITTED_MAX: usize = 50;
const SUBMITTED_CHARS_MAX: usize = 2_000;
/// Chatwoot allows 15.
const ATTACHMENTS_MAX: usize = 15;
const LABELS_MAX: usize = 200;

/// What tells the rest apart.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) event: Option<Text<'a>>,
}

/// `{"id": …}` of something.
#[derive(Debug, Deserialize)]
pub(super) struct Numbered {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) id: Option<u64>,
}

/// A message: top level of a `message_*` delivery, item of a list, or answer of a post.
#[derive(Debug, Deserialize)]
pub(super) struct RawMessage<'a> {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    message_type: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient")]
    private: Option<bool>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    sender: Option<RawSender<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    content_attributes: Option<RawAttributes<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    additional_attributes: Option<RawAdditional>,
    #[serde(borrow, default, deserialize_with = "lenient_list")]
    attachments: Vec<RawAttachment<'a>>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) account: Option<Numbered>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) account_id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) conversation: Option<Box<RawConversation<'a>>>,
}

#[derive(Debug, Deserialize)]
struct RawSender<'a> {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(borrow, rename = "type", default, deserialize_with = "lenient")]
    kind: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct RawAttributes<'a> {
    #[serde(default, deserialize_with = "lenient")]
    relay_turn_id: Option<Uuid>,
    #[serde(default, deserialize_with = "lenient")]
    relay_part: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    external_echo: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    automation_rule_id: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "lenient")]
    external_error: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "lenient")]
    deleted: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    is_unsupported: Option<bool>,
    // A list for choices and forms; an object for surveys, which are no answer to the agent and are left out.
    #[serde(borrow, default, deserialize_with = "lenient_list")]
    submitted_values: Vec<RawSubmitted<'a>>,
    // The answer to Chatwoot's own question for an address.
    #[serde(borrow, default, deserialize_with = "lenient")]
    submitted_email: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_list")]
    items: Vec<RawItem<'a>>,
}

#[derive(Debug, Deserialize)]
struct RawItem<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    title: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct RawAdditional {
    #[serde(default, deserialize_with = "lenient")]
    campaign_id: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct RawSubmitted<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    title: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct RawAttachment<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    file_type: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    transcribed_text: Option<Text<'a>>,
}

/// A conversation: nested in a message, top level of a `conversation_*` delivery, or answer of a read.
#[derive(Debug, Deserialize)]
pub(super) struct RawConversation<'a> {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    inbox_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    account: Option<Numbered>,
    #[serde(default, deserialize_with = "lenient")]
    account_id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    status: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    can_reply: Option<bool>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    channel: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_list")]
    labels: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    priority: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    meta: Option<RawMeta<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_list")]
    messages: Vec<RawMessage<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    last_non_activity_message: Option<Box<RawMessage<'a>>>,
    #[serde(borrow, default)]
    last_activity_at: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct RawMeta<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    sender: Option<RawContact<'a>>,
    // Raw, because one that cannot be read is not the same as none: none may mean that the conversation is ours.
    #[serde(borrow, default)]
    assignee: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    assignee_type: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    team: Option<IgnoredAny>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    channel: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct RawContact<'a> {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    name: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    email: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    phone_number: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    custom_attributes: Option<BTreeMap<String, &'a RawValue>>,
}

impl RawMessage<'_> {
    fn is_type(&self, word: &str, number: &str) -> bool {
        let raw = self.message_type.map(RawValue::get).unwrap_or_default();
        raw.trim_matches('"') == word || raw == number
    }

    /// Chatwoot's own line in the conversation ("X assigned this to Y").
    pub(super) fn is_activity(&self) -> bool {
        self.is_type("activity", "2")
    }

    /// Its number.
    pub(super) fn id(&self) -> Option<u64> {
        self.id
    }

    /// The message; `None` if it has no number.
    pub(super) fn message(&self) -> Option<Message> {
        let from = self.from();
        let attributes = self.content_attributes.as_ref();
        let flag = |of: fn(&RawAttributes<'_>) -> bool| attributes.is_some_and(of);
        let mut attachments: Vec<Attachment> =
            self.attachments.iter().take(ATTACHMENTS_MAX).map(RawAttachment::attachment).collect();
        if flag(|attributes| attributes.is_unsupported == Some(true)) {
            attachments.push(Attachment { kind: AttachmentKind::Unsupported, transcript: None });
        }
        Some(Message {
            id: self.id?,
            content: self.content(),
            private: self.private.unwrap_or(false),
            from,
            turn: self.turn(),
            attachments,
            // What Chatwoot asks by itself (an address, how content they are) is answered to Chatwoot.
            submitted: match from {
                Sender::Template => Vec::new(),
                _ => attributes.map(RawAttributes::submitted).unwrap_or_default(),
            },
            deleted: flag(|attributes| attributes.deleted == Some(true)),
            external_error: flag(|attributes| attributes.external_error.is_some()),
            created_at_ms: self.created_at.map(|raw| unix_ms(raw.get())).unwrap_or(0),
        })
    }

    /// The text. What we sent with buttons is the text it was made of again, options and all.
    fn content(&self) -> Option<String> {
        let content = self.content.as_deref().filter(|content| !content.trim().is_empty())?;
        let items = self.content_attributes.as_ref().map_or(&[][..], |attributes| &attributes.items);
        let titles: Vec<&str> = items.iter().filter_map(|item| item.title.as_deref()).collect();
        let ours = self.turn().is_some() && !titles.is_empty();
        Some(if ours { choice::lines(content, titles) } else { content.to_owned() })
    }

    fn from(&self) -> Sender {
        let attributes = self.content_attributes.as_ref();
        if self.is_type("incoming", "0") {
            return Sender::Customer;
        }
        if self.is_type("template", "3") {
            return Sender::Template;
        }
        if attributes.is_some_and(|attributes| attributes.external_echo == Some(true)) {
            return Sender::ExternalEcho;
        }
        if let Some(RawSender { id: Some(id), kind: Some(kind) }) = &self.sender {
            return match &**kind {
                "user" => Sender::Human(*id),
                "agent_bot" => Sender::Bot(*id),
                "captain_assistant" => Sender::Captain,
                _ => Sender::Nobody,
            };
        }
        let by_rule = attributes.is_some_and(|attributes| attributes.automation_rule_id.is_some());
        let by_campaign = self.additional_attributes.as_ref().is_some_and(|more| more.campaign_id.is_some());
        if by_rule || by_campaign { Sender::Automation } else { Sender::Nobody }
    }

    /// Our mark; only on what a bot sent, so that nothing else can pass for ours.
    fn turn(&self) -> Option<TurnMark> {
        let Sender::Bot(_) = self.from() else { return None };
        let attributes = self.content_attributes.as_ref()?;
        Some(TurnMark { turn_id: attributes.relay_turn_id?, part: attributes.relay_part.unwrap_or(0) })
    }
}

impl RawAttributes<'_> {
    fn submitted(&self) -> Vec<String> {
        let values = self.submitted_values.iter().take(SUBMITTED_MAX).filter_map(RawSubmitted::words);
        let email = self.submitted_email.as_deref().map(str::trim).filter(|email| !email.is_empty());
        let email = email.map(|email| format!("email: {email}").chars().take(SUBMITTED_CHARS_MAX).collect());
        values.chain(email).collect()
    }
}

impl RawSubmitted<'_> {
    /// A choice by its title, which is what the customer saw; a form's field as `name: value`.
    fn words(&self) -> Option<String> {
        let value = self.value.and_then(|raw| plain(raw.get()));
        let text = match (&self.title, &self.name, value) {
            (Some(title), _, _) if !title.trim().is_empty() => title.to_string(),
            (_, Some(name), Some(value)) => format!("{}: {value}", name.0),
            (_, _, value) => value?,
        };
        Some(text.chars().take(SUBMITTED_CHARS_MAX).collect())
    }
}

impl RawAttachment<'_> {
    fn attachment(&self) -> Attachment {
        let kind = match self.file_type.as_deref().unwrap_or_default() {
            "image" => AttachmentKind::Image,
            "audio" => AttachmentKind::Audio,
            "video" => AttachmentKind::Video,
            "file" => AttachmentKind::File,
            "location" => AttachmentKind::Location,
            "contact" => AttachmentKind::Contact,
            _ => AttachmentKind::Other,
        };
        let transcript = self.transcribed_text.as_deref().filter(|text| !text.trim().is_empty());
        Attachment { kind, transcript: transcript.map(str::to_owned) }
    }
}

impl RawConversation<'_> {
    /// The account, where it is told.
    pub(super) fn account_id(&self) -> Option<u64> {
        self.account_id.or_else(|| self.account.as_ref()?.id)
    }

    /// When anything last happened in it: Unix ms; 0 if not told.
    pub(super) fn last_activity_ms(&self) -> i64 {
        self.last_activity_at.map_or(0, |raw| unix_ms(raw.get()))
    }

    /// The conversation; `None` if it has no number.
    pub(super) fn view(&self) -> Option<ConversationView> {
        let meta = self.meta.as_ref();
        let channel = self.channel.as_ref().or_else(|| meta?.channel.as_ref());
        Some(ConversationView {
            id: self.id?,
            chatwoot_inbox_id: self.inbox_id,
            status: self.status.as_deref().and_then(Status::named),
            assignee: meta.map_or(Assignee::Unknown, RawMeta::assignee),
            has_team: meta.is_some_and(|meta| meta.team.is_some()),
            can_reply: self.can_reply.unwrap_or(true),
            medium: medium(channel.map(|channel| &**channel).unwrap_or_default()),
            priority: self.priority.as_deref().and_then(Priority::named),
            labels: self.labels.iter().take(LABELS_MAX).map(|label| label.to_string()).collect(),
            contact: meta.and_then(|meta| meta.sender.as_ref()).map(RawContact::contact).unwrap_or_default(),
            last_message: self.last_message(),
        })
    }

    fn last_message(&self) -> Option<LastMessage> {
        let listed = self.messages.last();
        let last = self.last_non_activity_message.as_deref().or(listed)?;
        Some(LastMessage { id: last.id?, from: last.from(), turn: last.turn() })
    }
}

impl RawMeta<'_> {
    fn assignee(&self) -> Assignee {
        // A delivery says null, a REST answer leaves the key out. A kind of owner without an owner is neither.
        let Some(raw) = self.assignee else {
            return if self.assignee_type.is_none() { Assignee::None } else { Assignee::Unknown };
        };
        let Ok(assignee) = serde_json::from_str::<RawSender<'_>>(raw.get()) else { return Assignee::Unknown };
        let Some(id) = assignee.id else { return Assignee::Other };
        match self.assignee_type.as_deref().or(assignee.kind.as_deref()) {
            Some("AgentBot" | "agent_bot") => Assignee::Bot(id),
            // Where no type is given (REST answers of older versions) only humans can be owners.
            Some("User" | "user") | None => Assignee::Human(id),
            Some(_) => Assignee::Other,
        }
    }
}

impl RawContact<'_> {
    fn contact(&self) -> Contact {
        let detail = |text: &Option<Text<'_>>| text.as_deref().map(one_line).filter(|text| !text.is_empty());
        let custom = self.custom_attributes.iter().flatten().filter_map(|(name, raw)| {
            let value = one_line(&plain(raw.get())?);
            Some((one_line(name), value)).filter(|(name, value)| !name.is_empty() && !value.is_empty())
        });
        Contact {
            id: self.id,
            name: detail(&self.name),
            email: detail(&self.email),
            phone: detail(&self.phone_number),
            custom: custom.take(CUSTOM_FIELDS_MAX).collect(),
        }
    }
}

/// Cut, on one line, without control characters.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS_MAX).collect();
    line.trim().to_owned()
}

/// `"2026-06-18T09:15:00.123Z"` or `1781774100`, as Unix ms; 0 for anything else.
fn unix_ms(raw: &str) -> i64 {
    let text = raw.trim_matches('"');
    match text.parse::<i64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).unwrap_or(0),
    }
}

fn medium(channel: &str) -> Medium {
    match channel.strip_prefix("Channel::").unwrap_or(channel) {
        "WebWidget" => Medium::Web,
        "Whatsapp" => Medium::Whatsapp,
        "TwilioSms" => Medium::Twilio,
        "FacebookPage" => Medium::Messenger,
        "Instagram" => Medium::Instagram,
        "Telegram" => Medium::Telegram,
        "Line" => Medium::Line,
        "Sms" => Medium::Sms,
        "Tiktok" => Medium::Tiktok,
        "Email" => Medium::Email,
        "Api" => Medium::Api,
        _ => Medium::Other,
    }
}
