//! What sets off what: messages and statuses, as Chatwoot v4.15.1 behaves.
//!
//! Order matters and is the real thing's: a customer's message first re-opens the conversation (its
//! status events go out), then `message_created` is built, then `waiting_since` changes. A human's
//! reply leaves `pending` as it is. [`Rules::Later`] switches to the ownership rules of the releases
//! after it: a bot owns what is pending in its inbox.

use serde_json::Value;

use super::Rules;
use super::liquid;
use super::model::{Assignee, Attributes, Author, Conversation, ConversationKey, Message, MessageType, Status};
use super::payload::{changed, iso};
use super::record::Happening;
use super::state::{State, now_ms};

/// Characters a message may have.
const CONTENT_CHARACTERS_MAX: usize = 150_000;
/// Calls of the typing indicator remembered per conversation.
const TYPING_KEPT_MAX: usize = 64;

/// A message about to be stored.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) message_type: MessageType,
    pub(super) author: Option<Author>,
    pub(super) content: Option<String>,
    pub(super) content_type: String,
    pub(super) content_attributes: Attributes,
    pub(super) private: bool,
    pub(super) source_id: Option<String>,
    pub(super) attachments: Vec<Value>,
}

impl Draft {
    pub(super) fn text(message_type: MessageType, author: Option<Author>, content: &str) -> Self {
        Self {
            message_type,
            author,
            content: Some(content.to_owned()),
            content_type: "text".to_owned(),
            content_attributes: Attributes::new(),
            private: false,
            source_id: None,
            attachments: Vec::new(),
        }
    }
}

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No conversation, inbox or message of that number.
    #[error("Resource could not be found")]
    NotFound,
    /// More than 150,000 characters.
    #[error("Validation failed: Content is too long (maximum is 150000 characters)")]
    TooLong,
    /// The flood guard: 200 messages a minute in one conversation.
    #[error("Validation failed: Too many messages")]
    Flood,
    /// The fake holds as much as it was told to hold.
    #[error("The fake is full")]
    Full,
}

/// A change of status, and on whose account.
#[derive(Clone, Copy)]
pub(super) struct StatusChange {
    pub(super) to: Status,
    pub(super) by: Option<Author>,
    pub(super) reason: &'static str,
    pub(super) snoozed_until_ms: Option<i64>,
}

impl StatusChange {
    pub(super) fn to(to: Status, by: Option<Author>, reason: &'static str) -> Self {
        Self { to, by, reason, snoozed_until_ms: None }
    }
}

impl State {
    /// Stores a message and does what follows from it. Returns its id.
    pub(super) fn post(&mut self, key: ConversationKey, draft: Draft) -> Result<u64, Refused> {
        self.check(key, &draft)?;
        let content = draft.content.as_deref().map(|content| match draft.message_type {
            MessageType::Outgoing | MessageType::Template => self.rendered(key, draft.author, content),
            MessageType::Incoming | MessageType::Activity => content.to_owned(),
        });
        let now = now_ms();
        self.last_message_id += 1;
        self.messages_count += 1;
        let message_id = self.last_message_id;
        let (message_type, author, private) = (draft.message_type, draft.author, draft.private);
        let delivered = message_type == MessageType::Outgoing && draft.source_id.is_some();
        let external_echo = draft.content_attributes.contains_key("external_echo");
        let conversation = self.conversations.get_mut(&key).ok_or(Refused::NotFound)?;
        conversation.messages.push(Message {
            id: message_id,
            message_type,
            content: content.clone(),
            content_type: draft.content_type,
            content_attributes: draft.content_attributes,
            private,
            status: if delivered { "delivered" } else { "sent" }.to_owned(),
            source_id: draft.source_id,
            author,
            attachments: draft.attachments,
            created_at_ms: now,
            updated_at_ms: now,
        });
        if message_type == MessageType::Activity {
            return Ok(message_id);
        }
        conversation.last_activity_at_ms = now;
        conversation.updated_at_ms = now;
        self.tell(
            key,
            &match message_type {
                MessageType::Incoming => Happening::CustomerSaid { message_id, content },
                _ if private => Happening::NoteAdded { message_id, content, by: author },
                _ => Happening::ReplySeen { message_id, content, by: author },
            },
        );
        if message_type == MessageType::Incoming {
            self.reopen(key, author);
        }
        self.emit_message(key, message_id, "message_created");
        if !private {
            self.update_waiting(key, message_type, author, external_echo);
        }
        if message_type == MessageType::Incoming {
            self.send_templates(key);
        }
        Ok(message_id)
    }

    fn check(&self, key: ConversationKey, draft: &Draft) -> Result<(), Refused> {
        let conversation = self.conversations.get(&key).ok_or(Refused::NotFound)?;
        if draft.content.as_ref().is_some_and(|content| content.chars().count() > CONTENT_CHARACTERS_MAX) {
            return Err(Refused::TooLong);
        }
        if self.messages_count >= self.settings.bounds.messages_max {
            return Err(Refused::Full);
        }
        let minute_ago = now_ms() - 60_000;
        let recent = conversation.messages.iter().rev().take_while(|message| message.created_at_ms > minute_ago);
        if recent.count() >= self.settings.conversation_messages_per_minute_max {
            return Err(Refused::Flood);
        }
        Ok(())
    }

    /// The text after Liquid, with what its placeholders may name.
    fn rendered(&self, key: ConversationKey, author: Option<Author>, content: &str) -> String {
        let lookup = |path: &str| {
            let conversation = self.conversations.get(&key)?;
            let contact = self.contacts.get(&conversation.contact_id);
            let human = author.and_then(|author| match author {
                Author::Human(id) => self.humans.get(&id),
                _ => None,
            });
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if let Some(name) = path.strip_prefix("contact.custom_attribute.") {
                return contact?.custom_attributes.get(name).map(text);
            }
            if let Some(name) = path.strip_prefix("conversation.custom_attribute.") {
                return conversation.custom_attributes.get(name).map(text);
            }
            match path {
                "contact.name" | "conversation.contact_name" => Some(contact?.name.clone()),
                "contact.first_name" => contact?.name.split(' ').next().map(str::to_owned),
                "contact.last_name" => contact?.name.split(' ').next_back().map(str::to_owned),
                "contact.email" => contact?.email.clone(),
                "contact.phone_number" => contact?.phone_number.clone(),
                "conversation.display_id" => Some(key.conversation_id.to_string()),
                "conversation.recent_messages" => Some(recent_messages(conversation)),
                "agent.name" => match author? {
                    Author::Bot(id) => Some(self.bots.get(&id)?.name.clone()),
                    _ => Some(human?.name.clone()),
                },
                "agent.email" => Some(human?.email.clone()),
                "inbox.name" => Some(self.inboxes.get(&conversation.chatwoot_inbox_id)?.name.clone()),
                "account.name" => Some(self.accounts.get(&key.account_id)?.name.clone()),
                _ => None,
            }
        };
        liquid::render(content, &lookup)
    }

    /// A customer's message wakes a resolved or snoozed conversation.
    fn reopen(&mut self, key: ConversationKey, by: Option<Author>) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let to = match conversation.status {
            Status::Resolved if self.has_active_bot(conversation.chatwoot_inbox_id) => Status::Pending,
            // The bot does not get a snoozed conversation back.
            Status::Resolved | Status::Snoozed => Status::Open,
            Status::Open | Status::Pending => return,
        };
        self.set_status(key, StatusChange::to(to, by, "the customer wrote"));
    }

    fn update_waiting(
        &mut self,
        key: ConversationKey,
        message_type: MessageType,
        author: Option<Author>,
        external_echo: bool,
    ) {
        let now = now_ms();
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let before = conversation.waiting_since_ms;
        let by_human = external_echo || matches!(author, Some(Author::Human(_)));
        let mut changes = Vec::new();
        match message_type {
            MessageType::Incoming if before.is_none() => conversation.waiting_since_ms = Some(now),
            MessageType::Outgoing if by_human || matches!(author, Some(Author::Bot(_))) => {
                conversation.waiting_since_ms = None;
            }
            _ => {}
        }
        if message_type == MessageType::Outgoing && by_human && conversation.first_reply_created_at_ms.is_none() {
            conversation.first_reply_created_at_ms = Some(now);
            changes.push(changed("first_reply_created_at", Value::Null, iso(now)));
        }
        let after = conversation.waiting_since_ms;
        if before != after {
            changes.push(changed("waiting_since", before.map(iso), after.map(iso)));
        }
        self.emit_updated(key, changes);
    }

    /// Changes the status and raises its events; nothing happens if it is that already.
    pub(super) fn set_status(&mut self, key: ConversationKey, change: StatusChange) {
        let now = now_ms();
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let from = conversation.status;
        if from == change.to {
            return;
        }
        conversation.status = change.to;
        conversation.snoozed_until_ms = change.snoozed_until_ms.filter(|_| change.to == Status::Snoozed);
        conversation.last_activity_at_ms = now;
        if change.to == Status::Resolved {
            conversation.waiting_since_ms = None;
        }
        let StatusChange { to, by, reason, .. } = change;
        self.tell(key, &Happening::StatusChanged { from, to, by, reason });
        let assigned = if to == Status::Open { self.auto_assign(key) } else { None };
        if let Some(human_id) = assigned {
            // Assigned within the same save: the status events get lost, as they do in the real thing.
            self.emit_updated(key, vec![changed("assignee_id", Value::Null, human_id)]);
        } else {
            match to {
                Status::Open => self.emit_conversation(key, "conversation_opened", None),
                Status::Resolved => self.emit_conversation(key, "conversation_resolved", None),
                Status::Pending | Status::Snoozed => {}
            }
            self.emit_conversation(key, "conversation_status_changed", Some(Value::Null));
            self.emit_updated(key, vec![changed("status", from.as_str(), to.as_str())]);
        }
        self.note_activity(key, &format!("Conversation is now {}: {reason}", to.as_str()));
        if to == Status::Resolved {
            self.send_survey(key);
        }
    }

    /// A bot gives a pending conversation to humans.
    pub(super) fn hand_off(&mut self, key: ConversationKey, bot_id: u64) {
        let now = now_ms();
        let later = self.settings.rules == Rules::Later;
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        conversation.waiting_since_ms.get_or_insert(now);
        if later && matches!(conversation.assignee, Some(Assignee::Bot(_))) {
            conversation.assignee = None;
        }
        self.set_status(key, StatusChange::to(Status::Open, Some(Author::Bot(bot_id)), "the bot handed off"));
    }

    /// What an empty `toggle_status` does.
    pub(super) fn toggle_status(&mut self, key: ConversationKey, by: Option<Author>) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let to = if conversation.status == Status::Open { Status::Resolved } else { Status::Open };
        self.set_status(key, StatusChange::to(to, by, "toggled"));
    }

    /// A delivery of a message event to a bot was given up: a pending conversation goes to humans.
    pub(super) fn bot_failed(&mut self, key: ConversationKey) {
        let pending = self.conversations.get(&key).is_some_and(|found| found.status == Status::Pending);
        if pending && !self.settings.keep_pending_on_bot_failure {
            self.set_status(key, StatusChange::to(Status::Open, None, "the bot could not be reached"));
        }
    }

    /// A delivery of a message to its API inbox was given up. The same failure twice is no change, and no event.
    pub(super) fn message_failed(&mut self, key: ConversationKey, message_id: u64, why: &str) {
        let conversation = self.conversations.get(&key);
        let Some(message) = conversation.and_then(|conversation| conversation.message(message_id)) else { return };
        let told = message.content_attributes.get("external_error").and_then(Value::as_str) == Some(why);
        if message.status == "failed" && told {
            return;
        }
        // Found above, and nothing has let go of the lock since.
        let _ = self.update_message(key, message_id, |message| {
            "failed".clone_into(&mut message.status);
            message.content_attributes.insert("external_error".to_owned(), why.into());
        });
    }

    /// Changes a stored message and raises `message_updated`.
    pub(super) fn update_message(
        &mut self,
        key: ConversationKey,
        message_id: u64,
        edit: impl FnOnce(&mut Message),
    ) -> Result<(), Refused> {
        let conversation = self.conversations.get_mut(&key).ok_or(Refused::NotFound)?;
        let message = conversation.message_mut(message_id).ok_or(Refused::NotFound)?;
        edit(message);
        message.updated_at_ms = now_ms();
        self.emit_message(key, message_id, "message_updated");
        Ok(())
    }

    /// Notes what `toggle_typing_status` was told.
    pub(super) fn set_typing(&mut self, key: ConversationKey, on: bool, private: bool, by: Author) {
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        if conversation.typing.len() >= TYPING_KEPT_MAX {
            conversation.typing.remove(0);
        }
        conversation.typing.push(on);
        self.tell(key, &Happening::TypingChanged { on });
        self.emit_typing(key, on, private, by);
    }

    fn note_activity(&mut self, key: ConversationKey, text: &str) {
        // Refused when the conversation is flooded or the fake full; an activity line is no loss then.
        let _ = self.post(key, Draft::text(MessageType::Activity, None, text));
    }
}

fn recent_messages(conversation: &Conversation) -> String {
    let shown = conversation.messages.iter().filter(|message| message.is_for_customer());
    let texts: Vec<&str> = shown.rev().take(10).filter_map(|message| message.content.as_deref()).collect();
    texts.into_iter().rev().collect::<Vec<_>>().join("\n")
}
