//! What customers, humans and channels do: the acts a test or the demo plays.
//!
//! One list for the handle in process and for `POST /control/conversations/{id}/acts`, so both can do
//! the same. Acts go through the same rules as the real thing's own controllers; none of them edits
//! records behind the machine's back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::{Draft, Refused, StatusChange};
use super::model::{Attributes, Author, Contact, ConversationKey, MessageType, Role, Status};
use super::state::{State, now_ms};

/// A customer to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct NewContact {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: Option<String>,
    /// Telephone number.
    pub phone_number: Option<String>,
    /// Custom attributes.
    pub custom_attributes: Attributes,
}

impl Default for NewContact {
    fn default() -> Self {
        let custom_attributes = Attributes::from_iter([("plan".to_owned(), json!("standard"))]);
        Self {
            name: "Carla Customer".to_owned(),
            email: Some("carla@example.com".to_owned()),
            phone_number: Some("+12025550143".to_owned()),
            custom_attributes,
        }
    }
}

/// Something done in a conversation from outside the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants' docs say it; a field's name is its meaning")]
pub enum Act {
    /// The customer writes.
    CustomerSays { text: String },
    /// The customer sends a file without a word.
    CustomerSendsFile { file_type: String, url: String },
    /// The customer picks from an interactive message of ours: `[{title, value}]` and the like.
    CustomerAnswers { message_id: u64, submitted_values: Value },
    /// A human writes to the customer. A pending conversation stays pending.
    HumanReplies { text: String },
    /// A human opens the conversation and is assigned.
    HumanTakesOver,
    /// A human leaves a private note.
    PrivateNote { text: String },
    /// Someone replies from the channel's own phone app: no sender.
    ExternalEcho { text: String },
    /// Chatwoot sends one of its templates.
    TemplateSays { text: String },
    /// An automation rule sends something.
    AutomationSays { text: String },
    /// A human resolves it.
    Resolve,
    /// A human gives it back to the bot.
    SetPending,
    /// A human opens it without being assigned.
    SetOpen,
    /// A human snoozes it until then.
    Snooze { until_s: i64 },
    /// A human is assigned; `None` unassigns.
    AssignHuman { human_id: Option<u64> },
    /// A bot is assigned.
    AssignBot { bot_id: u64 },
    /// A team is assigned.
    AssignTeam { team_id: Option<u64> },
    /// The channel reports a message as delivered.
    MarkDelivered { message_id: u64 },
    /// The channel could not deliver a message.
    MarkFailed { message_id: u64, error: String },
    /// Chatwoot has written down what a voice note says.
    Transcribe { message_id: u64, text: String },
    /// A human deletes a message.
    DeleteMessage { message_id: u64 },
}

impl State {
    pub(super) fn add_contact(&mut self, account_id: u64, contact: NewContact) -> u64 {
        let id = self.next_row_id();
        let NewContact { name, email, phone_number, custom_attributes } = contact;
        let created_at_ms = now_ms();
        self.contacts
            .insert(id, Contact { id, account_id, name, email, phone_number, custom_attributes, created_at_ms });
        id
    }

    /// Plays an act. Returns the id of the message it made, if it made one.
    pub(super) fn perform(&mut self, key: ConversationKey, act: Act) -> Result<Option<u64>, Refused> {
        let contact_id = self.conversations.get(&key).ok_or(Refused::NotFound)?.contact_id;
        let human_id = self.human_of(key.account_id).ok_or(Refused::NotFound)?;
        let human = Some(Author::Human(human_id));
        let outgoing = |author, text: &str| Draft::text(MessageType::Outgoing, author, text);
        match act {
            Act::CustomerSays { text } => {
                let draft = self.incoming(key, contact_id, Some(text));
                return self.post(key, draft).map(Some);
            }
            Act::CustomerSendsFile { file_type, url } => {
                let mut draft = self.incoming(key, contact_id, None);
                let (id, message_id) = (self.next_row_id(), self.last_message_id + 1);
                draft.attachments.push(attachment(id, message_id, key.account_id, &file_type, &url));
                return self.post(key, draft).map(Some);
            }
            Act::HumanReplies { text } => return self.post(key, outgoing(human, &text)).map(Some),
            Act::PrivateNote { text } => {
                return self.post(key, Draft { private: true, ..outgoing(human, &text) }).map(Some);
            }
            Act::ExternalEcho { text } => {
                let content_attributes = Attributes::from_iter([("external_echo".to_owned(), json!(true))]);
                let source_id = Some(format!("wamid.{}", self.random_token()));
                return self.post(key, Draft { content_attributes, source_id, ..outgoing(None, &text) }).map(Some);
            }
            Act::TemplateSays { text } => {
                return self.post(key, Draft::text(MessageType::Template, None, &text)).map(Some);
            }
            Act::AutomationSays { text } => {
                let content_attributes = Attributes::from_iter([("automation_rule_id".to_owned(), json!(31))]);
                return self.post(key, Draft { content_attributes, ..outgoing(None, &text) }).map(Some);
            }
            Act::HumanTakesOver => {
                self.set_status(key, StatusChange::to(Status::Open, human, "a human took over"));
                self.assign_human(key, Some(human_id), human);
            }
            Act::Resolve => self.set_status(key, StatusChange::to(Status::Resolved, human, "a human resolved it")),
            Act::SetPending => self.set_status(key, StatusChange::to(Status::Pending, human, "a human gave it back")),
            Act::SetOpen => self.set_status(key, StatusChange::to(Status::Open, human, "a human opened it")),
            Act::Snooze { until_s } => {
                let change = StatusChange::to(Status::Snoozed, human, "a human snoozed it");
                self.set_status(key, StatusChange { snoozed_until_ms: Some(until_s.saturating_mul(1000)), ..change });
            }
            Act::AssignHuman { human_id } => drop(self.assign_human(key, human_id, human)),
            Act::AssignBot { bot_id } => drop(self.assign_bot(key, bot_id, human).ok_or(Refused::NotFound)?),
            Act::AssignTeam { team_id } => drop(self.assign_team(key, team_id)),
            Act::CustomerAnswers { message_id, submitted_values } => {
                self.update_message(key, message_id, |message| {
                    message.content_attributes.insert("submitted_values".to_owned(), submitted_values);
                })?
            }
            Act::MarkDelivered { message_id } => {
                self.update_message(key, message_id, |message| "delivered".clone_into(&mut message.status))?;
            }
            Act::MarkFailed { message_id, error } => self.update_message(key, message_id, |message| {
                "failed".clone_into(&mut message.status);
                message.content_attributes.insert("external_error".to_owned(), error.into());
            })?,
            Act::Transcribe { message_id, text } => self.update_message(key, message_id, |message| {
                let audio = |one: &&mut Value| one.get("file_type").is_some_and(|kind| kind == "audio");
                let notes = message.attachments.iter_mut().filter(audio).filter_map(Value::as_object_mut);
                for note in notes {
                    note.insert("transcribed_text".to_owned(), text.as_str().into());
                }
            })?,
            Act::DeleteMessage { message_id } => self.update_message(key, message_id, |message| {
                message.content = Some("This message was deleted".to_owned());
                message.content_attributes = Attributes::from_iter([("deleted".to_owned(), json!(true))]);
            })?,
        }
        Ok(None)
    }

    fn incoming(&mut self, key: ConversationKey, contact_id: u64, content: Option<String>) -> Draft {
        let inbox_id = self.conversations.get(&key).map(|conversation| conversation.chatwoot_inbox_id);
        let channel = inbox_id.and_then(|id| self.inboxes.get(&id)).map(|inbox| inbox.channel.clone());
        let mut draft = Draft::text(MessageType::Incoming, Some(Author::Contact(contact_id)), "");
        draft.content = content;
        match channel.as_deref() {
            Some("Channel::WebWidget") => drop(draft.content_attributes.insert("in_reply_to".to_owned(), Value::Null)),
            Some("Channel::Whatsapp") => draft.source_id = Some(format!("wamid.{}", self.random_token())),
            _ => {}
        }
        draft
    }

    /// The human who answers customers in this account.
    pub(super) fn human_of(&self, account_id: u64) -> Option<u64> {
        let of_account = || self.humans.values().filter(|human| human.account_id == account_id);
        of_account().find(|human| human.role == Role::Agent).or_else(|| of_account().next()).map(|human| human.id)
    }
}

fn attachment(id: u64, message_id: u64, account_id: u64, file_type: &str, url: &str) -> Value {
    let name = url.rsplit('/').next().unwrap_or_default();
    let mut attachment = json!({
        "id": id,
        "message_id": message_id,
        "file_type": file_type,
        "account_id": account_id,
        "extension": name.rsplit_once('.').map(|(_, extension)| extension),
        "content_type": null,
        "data_url": url,
        "thumb_url": if file_type == "image" { url } else { "" },
        "file_size": 48_213,
        "width": null,
        "height": null,
    });
    // Its words come later, if at all.
    if file_type == "audio"
        && let Some(fields) = attachment.as_object_mut()
    {
        fields.insert("transcribed_text".to_owned(), "".into());
    }
    attachment
}
