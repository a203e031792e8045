//! The public API of an API inbox, through which the channel's own software plays the customer. No token.
//!
//! An inbox is named by its identifier and a customer by the source id of their link; both are unguessable, and
//! that is all the protection there is. Here are the calls a self-test needs: contacts, conversations, messages.

use http::Method;
use serde_json::{Value, json};

use super::conversations::{object_of, text_of};
use super::{ApiCall, Reply};
use crate::fakes::chatwoot::NewContact;
use crate::fakes::chatwoot::machine::{Draft, Refused};
use crate::fakes::chatwoot::model::{Author, ChatwootInbox, ConversationKey, MessageType};
use crate::fakes::chatwoot::state::State;

impl State {
    /// `rest` is what follows `/public/api/v1/inboxes`.
    pub(super) fn public_answer(&mut self, call: &ApiCall, rest: &[&str]) -> Reply {
        let [identifier, "contacts", rest @ ..] = rest else { return Reply::not_found() };
        let named = |inbox: &&ChatwootInbox| inbox.channel == "Channel::Api" && inbox.identifier == *identifier;
        let Some(inbox) = self.inboxes.values().find(named) else { return Reply::not_found() };
        let (inbox_id, account_id) = (inbox.id, inbox.account_id);
        let (source_id, rest) = match (&call.method, rest) {
            (&Method::POST, []) => return answered(self.introduce(call, account_id, inbox_id)),
            (_, [source_id, "conversations", rest @ ..]) => (*source_id, rest),
            _ => return Reply::not_found(),
        };
        let mut of_inbox = self.links.values().filter(|link| link.chatwoot_inbox_id == inbox_id);
        let Some(link) = of_inbox.find(|link| link.row.source_id == source_id) else { return Reply::not_found() };
        let (link_id, contact_id) = (link.row.id, link.contact_id);
        match (&call.method, rest) {
            (&Method::POST, []) => answered(self.converse(link_id)),
            (&Method::POST, [id, "messages"]) => {
                let key = ConversationKey { account_id, conversation_id: id.parse().unwrap_or_default() };
                if self.conversations.get(&key).is_none_or(|found| found.contact_inbox.id != link_id) {
                    return Reply::not_found();
                }
                let content = text_of(&call.parameters(), "content").unwrap_or_default();
                answered(self.hear(key, contact_id, &content))
            }
            _ => Reply::not_found(),
        }
    }

    fn introduce(&mut self, call: &ApiCall, account_id: u64, inbox_id: u64) -> Result<Value, Refused> {
        let parameters = call.parameters();
        let contact = NewContact {
            name: text_of(&parameters, "name").unwrap_or_default(),
            email: text_of(&parameters, "email"),
            phone_number: text_of(&parameters, "phone_number"),
            custom_attributes: object_of(&parameters, "custom_attributes"),
        };
        let contact_id = self.add_contact(account_id, contact);
        let link_id = self.add_link(inbox_id, contact_id)?;
        let (link, contact) = (self.links.get(&link_id), self.contacts.get(&contact_id));
        let (Some(link), Some(contact)) = (link, contact) else { return Err(Refused::NotFound) };
        Ok(json!({
            "id": contact.id,
            "source_id": link.row.source_id,
            "pubsub_token": link.row.pubsub_token,
            "name": contact.name,
            "email": contact.email,
            "phone_number": contact.phone_number,
        }))
    }

    fn converse(&mut self, link_id: u64) -> Result<Value, Refused> {
        let key = self.start_linked(link_id)?;
        let conversation = self.conversations.get(&key).ok_or(Refused::NotFound)?;
        Ok(json!({
            "id": key.conversation_id,
            "uuid": conversation.uuid,
            "inbox_id": conversation.chatwoot_inbox_id,
            "contact_last_seen_at": 0,
            "status": conversation.status.as_str(),
            "agent_last_seen_at": 0,
            "messages": [],
            "contact": self.pushed_sender(Author::Contact(conversation.contact_id)),
        }))
    }

    fn hear(&mut self, key: ConversationKey, contact_id: u64, content: &str) -> Result<Value, Refused> {
        let draft = Draft::text(MessageType::Incoming, Some(Author::Contact(contact_id)), content);
        let message_id = self.post(key, draft)?;
        let conversation = self.conversations.get(&key).ok_or(Refused::NotFound)?;
        let message = conversation.message(message_id).ok_or(Refused::NotFound)?;
        Ok(json!({
            "id": message.id,
            "content": message.content,
            "message_type": message.message_type.as_integer(),
            "content_type": message.content_type,
            "content_attributes": message.content_attributes,
            "created_at": message.created_at_ms.div_euclid(1000),
            "conversation_id": key.conversation_id,
            "sender": self.pushed_sender(Author::Contact(contact_id)),
        }))
    }
}

fn answered(done: Result<Value, Refused>) -> Reply {
    done.map_or_else(Reply::from, Reply::json)
}
