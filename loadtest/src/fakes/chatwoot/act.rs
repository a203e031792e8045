//! What customers, humans and channels do: the acts a test or the demo plays.
//!
//! One list for the handle in process and for `POST /control/conversations/{id}/acts`, so both can do
//! the same. Acts go through the same rules as the real thing's own controllers; none of them edits
//! records behind the machine's back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::{Draft, Refused, StatusChange};
use super::model::{Attributes, Author, ConversationKey, MessageType, Role, Status};
use super::payload::iso;
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
    /// The customer sends a place.
    CustomerSendsPlace { title: String },
    /// The customer sends somebody's contact card.
    CustomerSendsContactCard { name: String, phone_number: String },
    /// The customer sends something the channel cannot pass on.
    CustomerSendsUnsupported,
    /// The customer quotes a message while writing.
    CustomerRepliesTo { message_id: u64, text: String },
    /// The customer writes a mail.
    CustomerMails { subject: String, text: String },
    /// The customer begins or stops typing.
    CustomerTypes { on: bool },
    /// The customer opens the website's chat window again.
    CustomerOpensWidget,
    /// The customer answers Chatwoot's request for a mail address.
    CustomerGivesEmail { message_id: u64, email: String },
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
    /// A human sets the labels.
    SetLabels { labels: Vec<String> },
    /// A human sets the priority, or clears it.
    SetPriority { priority: Option<String> },
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
                let draft = self.incoming(key, contact_id, None);
                return self.post_with(key, draft, file(&file_type, &url)).map(Some);
            }
            Act::CustomerSendsPlace { title } => {
                let draft = self.incoming(key, contact_id, None);
                let place = json!({
                    "file_type": "location",
                    "coordinates_lat": 48.8584,
                    "coordinates_long": 2.2945,
                    "fallback_title": title,
                    "data_url": null,
                });
                return self.post_with(key, draft, place).map(Some);
            }
            Act::CustomerSendsContactCard { name, phone_number } => {
                let meta = json!({ "firstName": name, "lastName": "" });
                let draft = self.incoming(key, contact_id, Some(name));
                let card = json!({ "file_type": "contact", "fallback_title": phone_number, "meta": meta });
                return self.post_with(key, draft, card).map(Some);
            }
            Act::CustomerSendsUnsupported => {
                let mut draft = self.incoming(key, contact_id, Some("This message is unsupported.".to_owned()));
                draft.content_attributes.insert("is_unsupported".to_owned(), true.into());
                return self.post(key, draft).map(Some);
            }
            Act::CustomerRepliesTo { message_id, text } => {
                let quoted = self.conversations.get(&key).and_then(|found| found.message(message_id));
                let source_id = quoted.ok_or(Refused::NotFound)?.source_id.clone();
                let mut draft = self.incoming(key, contact_id, Some(text));
                draft.content_attributes.insert("in_reply_to".to_owned(), message_id.into());
                draft.content_attributes.insert("in_reply_to_external_id".to_owned(), source_id.into());
                return self.post(key, draft).map(Some);
            }
            Act::CustomerMails { subject, text } => {
                let mut draft = self.incoming(key, contact_id, Some(text.clone()));
                "incoming_email".clone_into(&mut draft.content_type);
                let message_id = format!("{}@mail.example.com", self.random_token());
                draft.content_attributes.insert("email".to_owned(), mail(&message_id, &subject, &text));
                draft.content_attributes.insert("cc_email".to_owned(), Value::Null);
                draft.content_attributes.insert("bcc_email".to_owned(), Value::Null);
                draft.source_id = Some(message_id);
                return self.post(key, draft).map(Some);
            }
            Act::CustomerTypes { on } => self.emit_typing(key, on, false, Author::Contact(contact_id)),
            Act::CustomerOpensWidget => {
                let link_id = self.conversations.get(&key).ok_or(Refused::NotFound)?.contact_inbox.id;
                self.emit_widget(link_id);
            }
            Act::CustomerGivesEmail { message_id, email } => self.update_message(key, message_id, |message| {
                message.content_attributes.insert("submitted_email".to_owned(), email.into());
            })?,
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
            Act::SetLabels { labels } => self.set_labels(key, labels),
            Act::SetPriority { priority } => self.set_priority(key, priority),
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

    /// Stores a message with one attachment, which is told its place.
    pub(super) fn post_with(
        &mut self,
        key: ConversationKey,
        mut draft: Draft,
        mut attachment: Value,
    ) -> Result<u64, Refused> {
        self.place(key, &mut attachment);
        draft.attachments.push(attachment);
        self.post(key, draft)
    }

    /// Gives an attachment its number, and that of the message to come.
    pub(super) fn place(&mut self, key: ConversationKey, attachment: &mut Value) {
        let (id, message_id) = (self.next_row_id(), self.last_message_id + 1);
        let Some(keys) = attachment.as_object_mut() else { return };
        keys.insert("id".to_owned(), id.into());
        keys.insert("message_id".to_owned(), message_id.into());
        keys.insert("account_id".to_owned(), key.account_id.into());
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

/// A file as payloads show it.
fn file(file_type: &str, url: &str) -> Value {
    let name = url.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let mut file = json!({
        "file_type": file_type,
        "extension": extension,
        "content_type": null,
        "data_url": url,
        "thumb_url": if file_type == "image" { url } else { "" },
        "file_size": 48_213,
        "width": null,
        "height": null,
    });
    if let ("audio", Some(keys)) = (file_type, file.as_object_mut()) {
        // Written down later, if at all.
        keys.insert("transcribed_text".to_owned(), "".into());
    }
    file
}

/// What Chatwoot keeps of a mail.
fn mail(message_id: &str, subject: &str, text: &str) -> Value {
    let body = json!({ "full": text, "reply": text, "quoted": text });
    json!({
        "bcc": null,
        "cc": null,
        "content_type": "text/plain; charset=UTF-8",
        "date": iso(now_ms()),
        "from": ["carla@example.com"],
        "headers": null,
        "html_content": body,
        "in_reply_to": null,
        "message_id": message_id,
        "multipart": true,
        "number_of_attachments": 0,
        "references": [],
        "subject": subject,
        "text_content": body,
        "to": ["support@example.com"],
        "auto_reply": false,
    })
}
