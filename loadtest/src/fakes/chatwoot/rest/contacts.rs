//! Contacts: show, create, change, delete, and their links to inboxes.
//!
//! Deleting one takes its conversations and links along, so that webhooks still on their way are dropped.

use serde_json::{Value, json};

use super::conversations::{as_id, object_of, text_of};
use super::{ApiCall, Reply};
use crate::fakes::chatwoot::NewContact;
use crate::fakes::chatwoot::model::Contact;
use crate::fakes::chatwoot::state::State;
use crate::fakes::chatwoot::view::{contact_view, inbox_view};

impl State {
    pub(super) fn contacts_answer(
        &mut self,
        call: &ApiCall,
        account_id: u64,
        rest: &[&str],
        is_administrator: bool,
    ) -> Reply {
        let method = call.method.as_str();
        let id = match (method, rest) {
            ("POST", []) => return self.create_contact(call, account_id, is_administrator),
            (_, [id, ..]) => id.parse().unwrap_or_default(),
            _ => return Reply::not_found(),
        };
        if self.contacts.get(&id).is_none_or(|contact| contact.account_id != account_id) {
            return Reply::not_found();
        }
        match (method, rest.get(1..).unwrap_or_default()) {
            ("GET", []) => {}
            ("PUT", []) => {
                if let Some(name) = text_of(&call.parameters(), "name") {
                    self.rename_contact(id, name);
                }
            }
            ("DELETE", []) => {
                self.contacts.remove(&id);
                self.links.retain(|_, link| link.contact_id != id);
                self.conversations.retain(|_, conversation| conversation.contact_id != id);
                return Reply::empty();
            }
            ("POST", ["contact_inboxes"]) => {
                let asked = call.parameters().get("inbox_id").and_then(as_id);
                let link = asked.and_then(|inbox_id| self.link_view(account_id, inbox_id, id, is_administrator));
                return link.map_or_else(Reply::not_found, Reply::json);
            }
            _ => return Reply::not_found(),
        }
        self.contacts.get(&id).map_or_else(Reply::not_found, |contact| Reply::json(shown(contact)))
    }

    fn create_contact(&mut self, call: &ApiCall, account_id: u64, is_administrator: bool) -> Reply {
        let parameters = call.parameters();
        let contact = NewContact {
            name: text_of(&parameters, "name").unwrap_or_default(),
            email: text_of(&parameters, "email"),
            phone_number: text_of(&parameters, "phone_number"),
            custom_attributes: object_of(&parameters, "custom_attributes"),
        };
        let id = self.add_contact(account_id, contact);
        let inbox_id = parameters.get("inbox_id").and_then(as_id);
        let link = inbox_id.and_then(|inbox_id| self.link_view(account_id, inbox_id, id, is_administrator));
        let contact = self.contacts.get(&id).map(contact_view);
        Reply::json(json!({ "payload": { "contact": contact, "contact_inbox": link } }))
    }

    /// Links a contact to an inbox of its account, and shows the link.
    fn link_view(&mut self, account_id: u64, inbox_id: u64, contact_id: u64, is_administrator: bool) -> Option<Value> {
        self.inboxes.get(&inbox_id).filter(|inbox| inbox.account_id == account_id)?;
        let link_id = self.add_link(inbox_id, contact_id).ok()?;
        let (link, inbox) = (self.links.get(&link_id)?, self.inboxes.get(&inbox_id)?);
        Some(json!({ "source_id": link.row.source_id, "inbox": inbox_view(inbox, is_administrator) }))
    }
}

fn shown(contact: &Contact) -> Value {
    json!({ "payload": contact_view(contact) })
}
