//! Customers and how they come in: contacts, their links to inboxes, and the conversations these begin.
//!
//! With a bot in the inbox a conversation begins as pending, whatever was asked for.

use serde_json::{Value, json};

use super::Rules;
use super::act::NewContact;
use super::machine::Refused;
use super::model::{Assignee, Attributes, Contact, ContactInbox, Conversation, ConversationKey, Link, Status};
use super::payload::{changed, iso};
use super::state::{State, now_ms};

impl State {
    pub(super) fn add_contact(&mut self, account_id: u64, contact: NewContact) -> u64 {
        let id = self.next_row_id();
        let NewContact { name, email, phone_number, custom_attributes } = contact;
        let created_at_ms = now_ms();
        self.contacts
            .insert(id, Contact { id, account_id, name, email, phone_number, custom_attributes, created_at_ms });
        self.emit_contact(id, "contact_created", None);
        id
    }

    pub(super) fn rename_contact(&mut self, id: u64, name: String) {
        let Some(contact) = self.contacts.get_mut(&id) else { return };
        let before = std::mem::replace(&mut contact.name, name.clone());
        if before != name {
            let (then, now) = (iso(contact.created_at_ms), iso(now_ms()));
            let changes = vec![changed("name", before, name), changed("updated_at", then, now)];
            self.emit_contact(id, "contact_updated", Some(Value::Array(changes)));
        }
    }

    /// Starts a conversation of a contact in an inbox. With a bot there it is pending, whatever was asked.
    pub(super) fn start_conversation(&mut self, inbox_id: u64, contact_id: u64) -> Result<ConversationKey, Refused> {
        let link_id = self.add_link(inbox_id, contact_id)?;
        self.start_linked(link_id)
    }

    /// Gives a contact a name in an inbox.
    pub(super) fn add_link(&mut self, inbox_id: u64, contact_id: u64) -> Result<u64, Refused> {
        let is_api = self.inboxes.get(&inbox_id).ok_or(Refused::NotFound)?.channel == "Channel::Api";
        if self.links.len() >= self.settings.bounds.conversations_max {
            return Err(Refused::Full);
        }
        let source_id = self.random_uuid();
        let row = ContactInbox {
            id: self.next_row_id(),
            source_id,
            pubsub_token: self.random_token(),
            hmac_verified: is_api,
        };
        let id = row.id;
        self.links.insert(id, Link { contact_id, chatwoot_inbox_id: inbox_id, row });
        Ok(id)
    }

    /// Starts a conversation of whoever a link names.
    pub(super) fn start_linked(&mut self, link_id: u64) -> Result<ConversationKey, Refused> {
        if self.conversations.len() >= self.settings.bounds.conversations_max {
            return Err(Refused::Full);
        }
        let link = self.links.get(&link_id).ok_or(Refused::NotFound)?;
        let (inbox_id, contact_id, contact_inbox) = (link.chatwoot_inbox_id, link.contact_id, link.row.clone());
        let inbox = self.inboxes.get(&inbox_id).ok_or(Refused::NotFound)?;
        let (account_id, bot_id, channel) = (inbox.account_id, inbox.bot_id, inbox.channel.clone());
        let account = self.accounts.get_mut(&account_id).ok_or(Refused::NotFound)?;
        account.last_conversation_id += 1;
        let key = ConversationKey { account_id, conversation_id: account.last_conversation_id };
        let now = now_ms();
        let conversation = Conversation {
            key,
            chatwoot_inbox_id: inbox_id,
            contact_id,
            uuid: self.random_uuid(),
            status: if bot_id.is_some() { Status::Pending } else { Status::Open },
            assignee: bot_id.filter(|_| self.settings.rules == Rules::Later).map(Assignee::Bot),
            team_id: None,
            labels: Vec::new(),
            custom_attributes: Attributes::new(),
            additional_attributes: origin(&channel, now),
            priority: None,
            snoozed_until_ms: None,
            waiting_since_ms: Some(now),
            first_reply_created_at_ms: None,
            last_activity_at_ms: now,
            human_last_seen_at_ms: 0,
            created_at_ms: now,
            updated_at_ms: now,
            contact_inbox,
            survey_sent: false,
            typing: Vec::new(),
            messages: Vec::new(),
            calls_count: 0,
            deliveries_count: 0,
        };
        self.conversations.insert(key, conversation);
        self.emit_conversation(key, "conversation_created", None);
        Ok(key)
    }
}

/// What the channel tells of where a conversation came from.
fn origin(channel: &str, now_ms: i64) -> Value {
    match channel {
        "Channel::WebWidget" => browser(now_ms),
        "Channel::Email" => json!({
            "source": "email",
            "in_reply_to": null,
            "auto_reply": false,
            "mail_subject": "A question",
            "initiated_at": { "timestamp": iso(now_ms) },
        }),
        _ => json!({}),
    }
}

/// What the website widget reports about the visitor.
pub(super) fn browser(now_ms: i64) -> Value {
    json!({
        "browser": {
            "device_name": "Unknown",
            "browser_name": "Firefox",
            "platform_name": "Linux",
            "browser_version": "139.0",
            "platform_version": "0",
        },
        "referer": "https://www.example.com/",
        "initiated_at": { "timestamp": iso(now_ms) },
        "browser_language": "en",
    })
}
