//! The webhook bodies, key for key as Chatwoot's serializers make them.
//!
//! The same thing looks different depending on where it stands: a message's type is a word at the
//! top and an integer inside the conversation, a time is ISO text, whole seconds or a float. Both
//! forms are here because a receiver that reads the wrong one must fail against the fake too.
//! Sub-millisecond digits are not imitated.

use serde_json::{Map, Value, json};

use super::customer::browser;
use super::model::{Assignee, Author, Contact, Conversation, Human, Message, MessageType};
use super::state::{State, now_ms};

/// Seconds since 1970; 0 stands for "none".
fn seconds(at_ms: Option<i64>) -> i64 {
    at_ms.unwrap_or(0).div_euclid(1000)
}

/// ISO 8601 with milliseconds, UTC.
pub(super) fn iso(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

/// One entry of `changed_attributes`.
pub(super) fn changed(name: &str, previous: impl Into<Value>, current: impl Into<Value>) -> Value {
    let mut entry = Map::new();
    entry.insert(name.to_owned(), json!({ "previous_value": previous.into(), "current_value": current.into() }));
    Value::Object(entry)
}

/// JSON as Rails writes it: `<`, `>`, `&` and the two line separators are escaped.
///
/// In JSON these characters occur only inside strings, so replacing them in the text is safe.
pub(super) fn rails_json(value: &Value) -> String {
    let plain = value.to_string();
    let mut escaped = String::with_capacity(plain.len() + 32);
    for character in plain.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Removes what Chatwoot removes from webhook text: hard-break backslashes and newlines at the end.
fn normalized(content: &str) -> String {
    content.replace("\\\n", "\n").trim_end_matches('\n').to_owned()
}

impl State {
    pub(super) fn account_value(&self, account_id: u64) -> Value {
        let name = self.accounts.get(&account_id).map(|account| account.name.as_str());
        json!({ "id": account_id, "name": name })
    }

    /// `message_created` and `message_updated`.
    pub(super) fn message_envelope(&self, conversation: &Conversation, message: &Message, event: &str) -> Value {
        let inbox_name = self.inboxes.get(&conversation.chatwoot_inbox_id).map(|inbox| inbox.name.as_str());
        let mut envelope = json!({
            "account": self.account_value(conversation.key.account_id),
            "additional_attributes": {},
            "content_attributes": message.content_attributes,
            "content_type": message.content_type,
            "content": message.content.as_deref().map(normalized),
            "conversation": self.conversation_block(conversation),
            "created_at": iso(message.created_at_ms),
            "id": message.id,
            "inbox": { "id": conversation.chatwoot_inbox_id, "name": inbox_name },
            "message_type": message.message_type.as_str(),
            "private": message.private,
            "sender": message.author.and_then(|author| self.webhook_sender(author)),
            "source_id": message.source_id,
            "event": event,
        });
        if let (Some(keys), false) = (envelope.as_object_mut(), message.attachments.is_empty()) {
            keys.insert("attachments".to_owned(), Value::Array(message.attachments.clone()));
        }
        envelope
    }

    /// `conversation_*` events: the conversation itself is the top level.
    pub(super) fn conversation_envelope(
        &self,
        conversation: &Conversation,
        event: &str,
        changed_attributes: Option<Value>,
    ) -> Value {
        let mut envelope = self.conversation_block(conversation);
        if let Some(keys) = envelope.as_object_mut() {
            keys.insert("event".to_owned(), event.into());
            if let Some(changed_attributes) = changed_attributes {
                keys.insert("changed_attributes".to_owned(), changed_attributes);
            }
        }
        envelope
    }

    /// `webwidget_triggered`: who opened the chat window, and the conversation they had, if any.
    pub(super) fn widget_envelope(&self, link_id: u64, at_ms: i64) -> Option<Value> {
        let link = self.links.get(&link_id)?;
        let inbox = self.inboxes.get(&link.chatwoot_inbox_id)?;
        let current = self.newest_of(link_id).map(|conversation| self.conversation_block(conversation));
        let mut event_info = browser(at_ms);
        event_info.as_object_mut()?.insert("widget_language".to_owned(), "en".into());
        Some(json!({
            "id": link_id,
            "contact": self.webhook_sender(Author::Contact(link.contact_id)),
            "inbox": { "id": inbox.id, "name": inbox.name },
            "account": self.account_value(inbox.account_id),
            "current_conversation": current,
            "source_id": link.row.source_id,
            "event": "webwidget_triggered",
            "event_info": event_info,
        }))
    }

    /// The newest conversation of whoever a link names.
    pub(super) fn newest_of(&self, link_id: u64) -> Option<&Conversation> {
        self.conversations.values().rev().find(|conversation| conversation.contact_inbox.id == link_id)
    }

    pub(super) fn conversation_block(&self, conversation: &Conversation) -> Value {
        let newest = conversation.messages.iter().rev().find(|message| message.is_for_customer());
        let link = &conversation.contact_inbox;
        let channel = self.inboxes.get(&conversation.chatwoot_inbox_id).map(|inbox| inbox.channel.as_str());
        let created = iso(conversation.created_at_ms);
        #[expect(clippy::cast_precision_loss, reason = "ms since 1970 stay below 2^53 for 280,000 years")]
        let updated_at = conversation.updated_at_ms as f64 / 1000.0 + 0.000_117;
        json!({
            "additional_attributes": conversation.additional_attributes,
            "can_reply": self.can_reply(conversation),
            "channel": channel,
            "contact_inbox": {
                "id": link.id,
                "contact_id": conversation.contact_id,
                "inbox_id": conversation.chatwoot_inbox_id,
                "source_id": link.source_id,
                "created_at": created,
                "updated_at": created,
                "hmac_verified": link.hmac_verified,
                "pubsub_token": link.pubsub_token,
            },
            "id": conversation.key.conversation_id,
            "inbox_id": conversation.chatwoot_inbox_id,
            "messages": newest.map(|message| self.pushed_message(conversation, message)).into_iter().collect::<Vec<_>>(),
            "labels": conversation.labels,
            "meta": self.conversation_meta(conversation),
            "status": conversation.status.as_str(),
            "custom_attributes": conversation.custom_attributes,
            "snoozed_until": conversation.snoozed_until_ms.map(iso),
            "unread_count": unread_count(conversation),
            "first_reply_created_at": conversation.first_reply_created_at_ms.map(iso),
            "priority": conversation.priority,
            "waiting_since": seconds(conversation.waiting_since_ms),
            "agent_last_seen_at": seconds(Some(conversation.human_last_seen_at_ms)),
            "contact_last_seen_at": 0,
            "last_activity_at": seconds(Some(conversation.last_activity_at_ms)),
            "timestamp": seconds(Some(conversation.last_activity_at_ms)),
            "created_at": seconds(Some(conversation.created_at_ms)),
            "updated_at": updated_at,
            "account": self.account_value(conversation.key.account_id),
        })
    }

    fn conversation_meta(&self, conversation: &Conversation) -> Value {
        let (assignee, assignee_type) = match conversation.assignee {
            None => (Value::Null, Value::Null),
            Some(Assignee::Human(id)) => (self.pushed_sender(Author::Human(id)), "User".into()),
            Some(Assignee::Bot(id)) => (self.pushed_sender(Author::Bot(id)), "AgentBot".into()),
        };
        let team = conversation.team_id.and_then(|id| self.teams.get(&id));
        json!({
            "sender": self.pushed_sender(Author::Contact(conversation.contact_id)),
            "assignee": assignee,
            "assignee_type": assignee_type,
            "team": team.map(|team| json!({ "id": team.id, "name": team.name })),
            "hmac_verified": conversation.contact_inbox.hmac_verified,
        })
    }

    /// A message as it stands inside a conversation.
    pub(super) fn pushed_message(&self, conversation: &Conversation, message: &Message) -> Value {
        let (sender_type, sender_id) = match message.author {
            None => (Value::Null, Value::Null),
            Some(Author::Contact(id)) => ("Contact".into(), id.into()),
            Some(Author::Human(id)) => ("User".into(), id.into()),
            Some(Author::Bot(id)) => ("AgentBot".into(), id.into()),
        };
        let assignee_id = match conversation.assignee {
            Some(Assignee::Human(id)) => Some(id),
            _ => None,
        };
        let mut pushed = json!({
            "id": message.id,
            "content": message.content,
            "account_id": conversation.key.account_id,
            "inbox_id": conversation.chatwoot_inbox_id,
            "conversation_id": conversation.key.conversation_id,
            "message_type": message.message_type.as_integer(),
            "created_at": seconds(Some(message.created_at_ms)),
            "updated_at": iso(message.updated_at_ms),
            "private": message.private,
            "status": message.status,
            "source_id": message.source_id,
            "content_type": message.content_type,
            "content_attributes": message.content_attributes,
            "sender_type": sender_type,
            "sender_id": sender_id,
            "external_source_ids": {},
            "additional_attributes": {},
            "processed_message_content": message.content,
            "sentiment": {},
            "conversation": {
                "assignee_id": assignee_id,
                "unread_count": unread_count(conversation),
                "last_activity_at": seconds(Some(conversation.last_activity_at_ms)),
                "contact_inbox": { "source_id": conversation.contact_inbox.source_id },
            },
        });
        if let Some(keys) = pushed.as_object_mut() {
            if let Some(author) = message.author {
                keys.insert("sender".to_owned(), self.pushed_sender(author));
            }
            if !message.attachments.is_empty() {
                keys.insert("attachments".to_owned(), Value::Array(message.attachments.clone()));
            }
        }
        pushed
    }

    /// A sender at the top level. The customer has no `type` there.
    pub(super) fn webhook_sender(&self, author: Author) -> Option<Value> {
        match author {
            Author::Contact(id) => {
                let contact = self.contacts.get(&id)?;
                let mut sender = contact_value(contact);
                let keys = sender.as_object_mut()?;
                keys.insert("account".to_owned(), self.account_value(contact.account_id));
                keys.insert("avatar".to_owned(), "".into());
                Some(sender)
            }
            Author::Human(id) => {
                let human = self.humans.get(&id)?;
                Some(json!({ "id": id, "name": human.name, "email": human.email, "type": "user" }))
            }
            Author::Bot(id) => Some(json!({ "id": id, "name": self.bots.get(&id)?.name, "type": "agent_bot" })),
        }
    }

    /// A sender inside a conversation.
    pub(super) fn pushed_sender(&self, author: Author) -> Value {
        match author {
            Author::Contact(id) => {
                let mut sender = self.contacts.get(&id).map(contact_value).unwrap_or_default();
                if let Some(keys) = sender.as_object_mut() {
                    keys.insert("type".to_owned(), "contact".into());
                }
                sender
            }
            Author::Human(id) => self.humans.get(&id).map(human_value).unwrap_or_default(),
            Author::Bot(id) => {
                let name = self.bots.get(&id).map(|bot| bot.name.as_str());
                json!({ "id": id, "name": name, "avatar_url": "", "type": "agent_bot" })
            }
        }
    }

    /// WhatsApp takes free text for 24 hours after the customer's last message; the others always.
    pub(super) fn can_reply(&self, conversation: &Conversation) -> bool {
        const WINDOW_MS: i64 = 24 * 3600 * 1000;
        let inbox = self.inboxes.get(&conversation.chatwoot_inbox_id);
        if inbox.is_none_or(|inbox| inbox.channel != "Channel::Whatsapp") {
            return true;
        }
        let mut newest_first = conversation.messages.iter().rev();
        newest_first
            .find(|message| message.message_type == MessageType::Incoming)
            .is_some_and(|message| now_ms() - message.created_at_ms < WINDOW_MS)
    }
}

fn contact_value(contact: &Contact) -> Value {
    json!({
        "additional_attributes": { "city": "", "country": "", "country_code": "", "created_at_ip": "192.0.2.10" },
        "custom_attributes": contact.custom_attributes,
        "email": contact.email,
        "id": contact.id,
        "identifier": null,
        "name": contact.name,
        "phone_number": contact.phone_number,
        "thumbnail": "",
        "blocked": false,
    })
}

pub(super) fn human_value(human: &Human) -> Value {
    json!({
        "id": human.id,
        "name": human.name,
        "available_name": human.name,
        "avatar_url": "",
        "type": "user",
        "availability_status": if human.online { "online" } else { "offline" },
        "thumbnail": "",
    })
}

/// Customer messages no human has looked at, at most 10.
fn unread_count(conversation: &Conversation) -> usize {
    let unread = |message: &&Message| {
        message.message_type == MessageType::Incoming && message.created_at_ms > conversation.human_last_seen_at_ms
    };
    conversation.messages.iter().rev().filter(unread).take(10).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_as_rails_does() {
        let value = json!({ "content": "a < b && c > d\u{2028}" });
        assert_eq!(rails_json(&value), r#"{"content":"a \u003c b \u0026\u0026 c \u003e d\u2028"}"#);
        assert_eq!(serde_json::from_str::<Value>(&rails_json(&value)).unwrap(), value);
    }

    #[test]
    fn times_have_four_forms() {
        assert_eq!(iso(1_781_774_100_123), "2026-06-18T09:15:00.123Z");
        assert_eq!(seconds(Some(1_781_774_100_123)), 1_781_774_100);
        assert_eq!(seconds(None), 0);
    }

    #[test]
    fn webhook_text_loses_hard_breaks_and_newlines_at_the_end() {
        assert_eq!(normalized("one\\\ntwo\n\n"), "one\ntwo");
    }
}
