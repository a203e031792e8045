//! Everything under `conversations`.

use http::Method;
use serde_json::{Map, Value, json};

use super::multipart::{File, Form};
use super::{ApiCall, Reply};
use crate::fakes::chatwoot::Rules;
use crate::fakes::chatwoot::machine::{Draft, Refused, StatusChange};
use crate::fakes::chatwoot::model::{
    Attributes, Author, Conversation, ConversationKey, Message, MessageType, Role, Status,
};
use crate::fakes::chatwoot::state::State;
use crate::fakes::chatwoot::view::{human_view, team_view};

/// Conversations on one page of the list.
const PAGE_CONVERSATIONS: usize = 25;

/// Files one message may have.
const ATTACHMENTS_MAX: usize = 15;

/// The content types there are.
const CONTENT_TYPES: [&str; 13] = [
    "text",
    "input_text",
    "input_textarea",
    "input_email",
    "input_select",
    "cards",
    "form",
    "article",
    "incoming_email",
    "input_csat",
    "integrations",
    "sticker",
    "voice_call",
];

impl State {
    pub(super) fn conversations_answer(
        &mut self,
        call: &ApiCall,
        caller: Author,
        account_id: u64,
        rest: &[&str],
    ) -> Reply {
        let (id, action) = match (&call.method, rest) {
            (&Method::GET, []) => return self.list_conversations(call, account_id),
            (&Method::POST, []) => return self.create_conversation(call, caller, account_id),
            (_, [id]) => (id, None),
            (_, [id, action]) => (id, Some(*action)),
            _ => return Reply::not_found(),
        };
        let Ok(conversation_id) = id.parse() else { return Reply::not_found() };
        let key = ConversationKey { account_id, conversation_id };
        if !self.conversations.contains_key(&key) {
            return Reply::not_found();
        }
        match (call.method.as_str(), action) {
            ("GET", None) => self.show_conversation(key, caller),
            ("PATCH", None) => {
                self.set_priority(key, text_of(&call.parameters(), "priority"));
                self.show_conversation(key, caller)
            }
            ("GET", Some("messages")) => self.list_messages(call, key),
            ("POST", Some("messages")) => self.create_message(call, key, caller),
            ("POST", Some("toggle_status")) => self.toggle_status_call(call, key, caller),
            ("POST", Some("toggle_typing_status")) => {
                let parameters = call.parameters();
                let on = text_of(&parameters, "typing_status").as_deref() == Some("on");
                self.set_typing(key, on, is_true(&parameters, "is_private"), caller);
                Reply::empty()
            }
            ("POST", Some("toggle_priority")) => {
                self.set_priority(key, text_of(&call.parameters(), "priority"));
                Reply::empty()
            }
            ("POST", Some("custom_attributes")) => {
                let attributes = object_of(&call.parameters(), "custom_attributes");
                self.set_custom_attributes(key, attributes.clone());
                Reply::json(json!({ "custom_attributes": attributes }))
            }
            ("GET", Some("labels")) => Reply::json(json!({ "payload": self.labels_of(key) })),
            ("POST", Some("labels")) => {
                let parameters = call.parameters();
                let given = parameters.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
                self.set_labels(key, given.iter().filter_map(Value::as_str).map(str::to_owned).collect());
                Reply::json(json!({ "payload": self.labels_of(key) }))
            }
            ("POST", Some("assignments")) => self.assign_call(call, key, caller),
            _ => Reply::not_found(),
        }
    }

    fn labels_of(&self, key: ConversationKey) -> Vec<String> {
        self.conversations.get(&key).map(|conversation| conversation.labels.clone()).unwrap_or_default()
    }

    fn show_conversation(&self, key: ConversationKey, caller: Author) -> Reply {
        let Some(conversation) = self.conversations.get(&key) else { return Reply::not_found() };
        let is_bot = matches!(caller, Author::Bot(_));
        if is_bot && conversation.team_id.is_some() && self.settings.rules == Rules::V4_15_1 {
            // The team's view asks the caller for its teams, and a bot has none to ask.
            return Reply::error(500, "Internal Server Error");
        }
        Reply::json(self.conversation_view(conversation))
    }

    fn create_conversation(&mut self, call: &ApiCall, caller: Author, account_id: u64) -> Reply {
        let parameters = call.parameters();
        let number = |name| parameters.get(name).and_then(as_id);
        let Some(inbox_id) = number("inbox_id") else { return Reply::not_found() };
        if self.inboxes.get(&inbox_id).is_none_or(|inbox| inbox.account_id != account_id) {
            return Reply::not_found();
        }
        // A contact may be named by the source id of its link as well.
        let source_id = text_of(&parameters, "source_id");
        let mut of_inbox = self.links.values().filter(|link| link.chatwoot_inbox_id == inbox_id);
        let linked = of_inbox.find(|link| source_id.as_deref() == Some(link.row.source_id.as_str()));
        let in_account = |id: &u64| self.contacts.get(id).is_some_and(|contact| contact.account_id == account_id);
        let started = match (linked.map(|link| link.row.id), number("contact_id").filter(in_account)) {
            (Some(link_id), _) => self.start_linked(link_id),
            (None, Some(contact_id)) => self.start_conversation(inbox_id, contact_id),
            (None, None) => return Reply::not_found(),
        };
        let key = match started {
            Ok(key) => key,
            Err(refused) => return refused.into(),
        };
        let first = object_of(&parameters, "message");
        if let Some(content) = text_of(&first, "content")
            && let Err(refused) = self.post(key, Draft::text(MessageType::Outgoing, Some(caller), &content))
        {
            return refused.into();
        }
        self.show_conversation(key, caller)
    }

    fn list_conversations(&self, call: &ApiCall, account_id: u64) -> Reply {
        let status = call.query_text("status").unwrap_or("open");
        let (inbox_id, team_id) = (call.query_u64("inbox_id"), call.query_u64("team_id"));
        let mut found: Vec<&Conversation> = self
            .conversations
            .values()
            .filter(|conversation| conversation.key.account_id == account_id)
            .filter(|conversation| status == "all" || conversation.status.as_str() == status)
            .filter(|conversation| inbox_id.is_none_or(|id| conversation.chatwoot_inbox_id == id))
            .filter(|conversation| team_id.is_none_or(|id| conversation.team_id == Some(id)))
            .collect();
        found.sort_by_key(|conversation| std::cmp::Reverse((conversation.last_activity_at_ms, conversation.key)));
        if call.query_text("sort_by") == Some("last_activity_at_asc") {
            found.reverse();
        }
        let assigned = found.iter().filter(|conversation| conversation.assignee.is_some()).count();
        let page = usize::try_from(call.query_u64("page").unwrap_or(1).max(1)).unwrap_or(usize::MAX);
        let from = (page - 1).saturating_mul(PAGE_CONVERSATIONS);
        let payload: Vec<Value> =
            found.iter().skip(from).take(PAGE_CONVERSATIONS).map(|found| self.conversation_view(found)).collect();
        Reply::json(json!({
            "data": {
                "meta": {
                    "mine_count": 0,
                    "assigned_count": assigned,
                    "unassigned_count": found.len() - assigned,
                    "all_count": found.len(),
                },
                "payload": payload,
            },
        }))
    }

    fn create_message(&mut self, call: &ApiCall, key: ConversationKey, caller: Author) -> Reply {
        let Form { parameters, files } = call.form();
        let mut draft = match self.drafted(&parameters, key, caller) {
            Ok(draft) => draft,
            Err(error) => return Reply::error(422, error),
        };
        if parameters.contains_key("attachments") {
            // No blob was uploaded beforehand, so no signed id can be right.
            return Reply::error(422, "ActiveSupport::MessageVerifier::InvalidSignature");
        }
        if files.len() > ATTACHMENTS_MAX {
            return Reply::error(422, "Validation failed: Attachments exceeded maximum allowed");
        }
        for file in files {
            let mut attachment = self.uploaded(&file);
            self.place(key, &mut attachment);
            draft.attachments.push(attachment);
        }
        let message_id = match self.post(key, draft) {
            Ok(message_id) => message_id,
            Err(Refused::NotFound) => return Reply::not_found(),
            Err(refused) => return refused.into(),
        };
        let Some(conversation) = self.conversations.get(&key) else { return Reply::not_found() };
        let Some(message) = conversation.message(message_id) else { return Reply::not_found() };
        let mut view = self.message_view(conversation, message);
        if let (Some(keys), Some(echo_id)) = (view.as_object_mut(), parameters.get("echo_id")) {
            keys.insert("echo_id".to_owned(), echo_id.clone());
        }
        Reply::json(view)
    }

    /// An uploaded file as payloads show it, behind a link nobody could guess.
    fn uploaded(&mut self, file: &File) -> Value {
        let kind = file.content_type.split('/').next().filter(|kind| matches!(*kind, "image" | "audio" | "video"));
        let url = format!(
            "https://chat.example.com/rails/active_storage/blobs/redirect/{}/{}",
            self.random_token(),
            file.name
        );
        let mut attachment = json!({
            "file_type": kind.unwrap_or("file"),
            "extension": file.name.rsplit_once('.').map(|(_, extension)| extension),
            "content_type": file.content_type,
            "thumb_url": if kind == Some("image") { url.as_str() } else { "" },
            "data_url": url,
            "file_size": file.bytes,
            "width": null,
            "height": null,
        });
        if let (Some("audio"), Some(keys)) = (kind, attachment.as_object_mut()) {
            keys.insert("transcribed_text".to_owned(), "".into());
        }
        attachment
    }

    fn drafted(
        &self,
        parameters: &Map<String, Value>,
        key: ConversationKey,
        caller: Author,
    ) -> Result<Draft, &'static str> {
        let conversation = self.conversations.get(&key).ok_or("Conversation must exist")?;
        let channel = self.inboxes.get(&conversation.chatwoot_inbox_id).map(|inbox| inbox.channel.as_str());
        let incoming = match text_of(parameters, "message_type").as_deref() {
            None | Some("outgoing") => false,
            Some("incoming") if channel == Some("Channel::Api") => true,
            Some("incoming") => return Err("Incoming messages are only allowed in Api inboxes"),
            Some(_) => return Err("is not a valid message_type"),
        };
        let content_type = text_of(parameters, "content_type").unwrap_or_else(|| "text".to_owned());
        if !CONTENT_TYPES.contains(&content_type.as_str()) {
            return Err("is not a valid content_type");
        }
        let content_attributes = match parameters.get("content_attributes") {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            _ => object_of(parameters, "content_attributes"),
        };
        check_items(&content_type, &content_attributes)?;
        let named_bot = (text_of(parameters, "sender_type").as_deref() == Some("AgentBot"))
            .then(|| parameters.get("sender_id").and_then(as_id))
            .flatten()
            .filter(|id| self.bots.contains_key(id));
        let author = match named_bot {
            _ if incoming => Author::Contact(conversation.contact_id),
            Some(bot_id) => Author::Bot(bot_id),
            None => caller,
        };
        Ok(Draft {
            message_type: if incoming { MessageType::Incoming } else { MessageType::Outgoing },
            author: Some(author),
            content: text_of(parameters, "content"),
            content_type,
            content_attributes,
            private: is_true(parameters, "private"),
            source_id: text_of(parameters, "source_id"),
            attachments: Vec::new(),
        })
    }

    fn list_messages(&self, call: &ApiCall, key: ConversationKey) -> Reply {
        let Some(conversation) = self.conversations.get(&key) else { return Reply::not_found() };
        let public_only = call.query_text("filter_internal_messages") == Some("true");
        let (after, before) = (call.query_u64("after"), call.query_u64("before"));
        let wanted: Vec<&Message> = conversation
            .messages
            .iter()
            .filter(|message| !public_only || message.is_for_customer())
            .filter(|message| match (after, before) {
                // Alone, `after` excludes its id; as the start of a range it includes it.
                (Some(after), None) => message.id > after,
                (after, before) => {
                    after.is_none_or(|after| message.id >= after) && before.is_none_or(|before| message.id < before)
                }
            })
            .collect();
        let messages = match (after, before) {
            (Some(_), Some(_)) => wanted.get(..wanted.len().min(1000)),
            (Some(_), None) => wanted.get(..wanted.len().min(100)),
            (None, _) => wanted.get(wanted.len().saturating_sub(20)..),
        };
        let payload: Vec<Value> =
            messages.unwrap_or_default().iter().map(|message| self.message_view(conversation, message)).collect();
        Reply::json(json!({ "meta": self.messages_meta_view(conversation), "payload": payload }))
    }

    fn toggle_status_call(&mut self, call: &ApiCall, key: ConversationKey, caller: Author) -> Reply {
        let parameters = call.parameters();
        let asked = text_of(&parameters, "status").filter(|status| !status.is_empty());
        let before = self.conversations.get(&key).map(|conversation| conversation.status);
        let success = match (asked.as_deref().map(Status::named), caller) {
            // No word Chatwoot knows: an unhandled exception there.
            (Some(None), _) => return Reply::error(500, "Internal Server Error"),
            (Some(Some(Status::Open)), Author::Bot(bot_id)) if before == Some(Status::Pending) => {
                self.hand_off(key, bot_id);
                // The real thing forgets to set it on this path.
                Value::Null
            }
            (Some(Some(to)), _) => {
                let snoozed_until_ms =
                    parameters.get("snoozed_until").and_then(as_id).and_then(|until| i64::try_from(until).ok());
                let change = StatusChange::to(to, Some(caller), "set over the API");
                let snoozed_until_ms = snoozed_until_ms.map(|until_s| until_s.saturating_mul(1000));
                self.set_status(key, StatusChange { snoozed_until_ms, ..change });
                true.into()
            }
            (None, _) => {
                self.toggle_status(key, Some(caller));
                true.into()
            }
        };
        let is_open = self.conversations.get(&key).is_some_and(|found| found.status == Status::Open);
        if let (true, Author::Human(id)) = (is_open, caller)
            && self.humans.get(&id).is_some_and(|human| human.role == Role::Agent)
        {
            self.assign_human(key, Some(id), Some(caller));
        }
        let Some(conversation) = self.conversations.get(&key) else { return Reply::not_found() };
        Reply::json(json!({
            "meta": {},
            "payload": {
                "success": success,
                "conversation_id": key.conversation_id,
                "current_status": conversation.status.as_str(),
                "snoozed_until": conversation.snoozed_until_ms.map(|until| until / 1000),
            },
        }))
    }

    /// The assignee wins over the team; an id nobody has unassigns and answers `null`.
    fn assign_call(&mut self, call: &ApiCall, key: ConversationKey, caller: Author) -> Reply {
        let parameters = call.parameters();
        if let Some(assignee) = parameters.get("assignee_id") {
            let id = as_id(assignee);
            if text_of(&parameters, "assignee_type").as_deref() == Some("AgentBot") {
                let bot = id.and_then(|id| self.assign_bot(key, id, Some(caller)));
                return Reply::json(bot.map(|id| self.pushed_sender(Author::Bot(id))).unwrap_or_default());
            }
            let human = self.assign_human(key, id, Some(caller)).and_then(|id| self.humans.get(&id));
            return Reply::json(human.map(human_view).unwrap_or_default());
        }
        if let Some(team) = parameters.get("team_id") {
            let team = self.assign_team(key, as_id(team)).and_then(|id| self.teams.get(&id));
            return Reply::json(team.map(team_view).unwrap_or_default());
        }
        Reply::json(Value::Null)
    }
}

/// Chatwoot's check of interactive items: known keys only, and the required ones.
fn check_items(content_type: &str, attributes: &Attributes) -> Result<(), &'static str> {
    let known: &[&str] = match content_type {
        "input_select" => &["title", "value"],
        "cards" => &["title", "description", "media_url", "actions"],
        "form" => &[
            "type",
            "placeholder",
            "label",
            "name",
            "options",
            "default",
            "required",
            "pattern",
            "title",
            "pattern_error",
        ],
        "article" => &["title", "description", "link"],
        _ => return Ok(()),
    };
    let items = attributes.get("items").and_then(Value::as_array).ok_or("At least one item is required.")?;
    if items.is_empty() {
        return Err("At least one item is required.");
    }
    for item in items {
        let item = item.as_object().ok_or("Items should be objects.")?;
        if item.keys().any(|key| !known.contains(&key.as_str())) {
            return Err("contains invalid keys for items.");
        }
        if content_type == "cards" && item.get("actions").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err("contains items missing actions.");
        }
    }
    Ok(())
}

pub(super) fn text_of(parameters: &Map<String, Value>, name: &str) -> Option<String> {
    parameters.get(name)?.as_str().map(str::to_owned)
}

pub(super) fn object_of(parameters: &Map<String, Value>, name: &str) -> Attributes {
    parameters.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A number, or the text of one.
pub(super) fn as_id(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn is_true(parameters: &Map<String, Value>, name: &str) -> bool {
    matches!(parameters.get(name), Some(Value::Bool(true))) || text_of(parameters, name).as_deref() == Some("true")
}
