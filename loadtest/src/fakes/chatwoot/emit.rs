//! From an event to the deliveries it causes: one per listening bot, subscribed account webhook, API inbox.
//!
//! A bot's body is built at the event, under the lock, so it shows the state of that moment. The other two are built
//! when their job runs and show the state of that later moment; only what changed is from the event. Who hears what
//! is Chatwoot's rule: a bot neither `conversation_created` nor typing, nobody else `conversation_opened`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::delivery::{Body, Outgoing};
use super::model::{Author, ConversationKey, MessageType};
use super::payload::{changed, iso, rails_json};
use super::record::{Delivery, Outcome, Route};
use super::state::{State, now_ms};

/// What an event is about: enough to build its body, at once or later.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Message {
        message_id: u64,
    },
    /// `changed_attributes`: `None` leaves the key out, `Some(null)` sends it empty.
    Conversation {
        changed_attributes: Option<Value>,
    },
    Typing {
        by: Author,
        private: bool,
    },
    Contact {
        contact_id: u64,
        changed_attributes: Option<Value>,
    },
    /// A visitor opened the website's chat window.
    Widget {
        link_id: u64,
        at_ms: i64,
    },
}

impl State {
    pub(super) fn emit_message(&mut self, key: ConversationKey, message_id: u64, event: &'static str) {
        let message = self.conversations.get(&key).and_then(|conversation| conversation.message(message_id));
        if message.is_some_and(|message| message.message_type != MessageType::Activity) {
            self.queue(key, event, &Subject::Message { message_id });
        }
    }

    pub(super) fn emit_conversation(
        &mut self,
        key: ConversationKey,
        event: &'static str,
        changed_attributes: Option<Value>,
    ) {
        self.queue(key, event, &Subject::Conversation { changed_attributes });
    }

    /// `conversation_updated` with these changes, or nothing if there are none.
    pub(super) fn emit_updated(&mut self, key: ConversationKey, mut changes: Vec<Value>) {
        let now = now_ms();
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        if changes.is_empty() {
            return;
        }
        changes.push(changed("updated_at", iso(conversation.updated_at_ms), iso(now)));
        conversation.updated_at_ms = now;
        self.emit_conversation(key, "conversation_updated", Some(Value::Array(changes)));
    }

    pub(super) fn emit_typing(&mut self, key: ConversationKey, on: bool, private: bool, by: Author) {
        let event = if on { "conversation_typing_on" } else { "conversation_typing_off" };
        self.queue(key, event, &Subject::Typing { by, private });
    }

    pub(super) fn emit_contact(&mut self, contact_id: u64, event: &'static str, changed_attributes: Option<Value>) {
        let Some(contact) = self.contacts.get(&contact_id) else { return };
        let key = ConversationKey { account_id: contact.account_id, conversation_id: 0 };
        self.queue(key, event, &Subject::Contact { contact_id, changed_attributes });
    }

    /// Whoever is named by this link opens the chat window.
    pub(super) fn emit_widget(&mut self, link_id: u64) {
        let Some(link) = self.links.get(&link_id) else { return };
        let Some(inbox) = self.inboxes.get(&link.chatwoot_inbox_id) else { return };
        let account_id = inbox.account_id;
        let conversation_id = self.newest_of(link_id).map_or(0, |conversation| conversation.key.conversation_id);
        let key = ConversationKey { account_id, conversation_id };
        self.queue(key, "webwidget_triggered", &Subject::Widget { link_id, at_ms: now_ms() });
    }

    /// An event's body as it is at present; `None` if what it is about is gone.
    pub(super) fn body_of(&self, key: ConversationKey, event: &str, subject: &Subject) -> Option<Bytes> {
        let conversation = self.conversations.get(&key);
        let body = match subject {
            Subject::Message { message_id } => {
                let conversation = conversation?;
                self.message_envelope(conversation, conversation.message(*message_id)?, event)
            }
            Subject::Conversation { changed_attributes } => {
                self.conversation_envelope(conversation?, event, changed_attributes.clone())
            }
            Subject::Typing { by, private } => json!({
                "event": event,
                "user": self.webhook_sender(*by),
                "conversation": self.conversation_block(conversation?),
                "is_private": private,
            }),
            Subject::Contact { contact_id, changed_attributes } => {
                let mut envelope = self.webhook_sender(Author::Contact(*contact_id))?;
                let keys = envelope.as_object_mut()?;
                keys.insert("event".to_owned(), event.into());
                if let Some(changed_attributes) = changed_attributes {
                    keys.insert("changed_attributes".to_owned(), changed_attributes.clone());
                }
                envelope
            }
            Subject::Widget { link_id, at_ms } => self.widget_envelope(*link_id, *at_ms)?,
        };
        Some(Bytes::from(rails_json(&body)))
    }

    fn queue(&mut self, key: ConversationKey, event: &'static str, subject: &Subject) {
        let receivers = self.receivers(key, event, subject);
        let to_bots = receivers.iter().any(|receiver| matches!(receiver.route, Route::Bot(_)));
        let built = if to_bots { self.body_of(key, event, subject) } else { None };
        let message_id = match subject {
            Subject::Message { message_id } => Some(*message_id),
            _ => None,
        };
        let link_id = match subject {
            Subject::Contact { .. } => None,
            Subject::Widget { link_id, .. } => Some(*link_id),
            _ => self.conversations.get(&key).map(|conversation| conversation.contact_inbox.id),
        };
        for Receiver { route, url, secret } in receivers {
            let body = match (route, &built) {
                (Route::Bot(_), Some(body)) => Body::Built(body.clone()),
                (Route::Bot(_), None) => continue,
                _ => Body::Later(subject.clone()),
            };
            let delivery_id = self.random_uuid();
            let record = self.deliveries.push(Delivery {
                delivery_id: delivery_id.clone(),
                event,
                route,
                key,
                message_id,
                duplicate: false,
                attempts: Vec::new(),
                outcome: Outcome::Pending,
            });
            let attempts_max = if matches!(route, Route::Bot(_)) { self.settings.attempts_max } else { 1 };
            let attempt = 1;
            self.outbox.push(Outgoing {
                record,
                delivery_id,
                route,
                url,
                secret,
                event,
                key,
                message_id,
                link_id,
                body,
                attempt,
                attempts_max,
            });
        }
    }

    fn receivers(&self, key: ConversationKey, event: &str, subject: &Subject) -> Vec<Receiver> {
        let conversation = self.conversations.get(&key);
        let inbox_id = match subject {
            Subject::Contact { .. } => None,
            Subject::Widget { link_id, .. } => self.links.get(link_id).map(|link| link.chatwoot_inbox_id),
            _ => conversation.map(|conversation| conversation.chatwoot_inbox_id),
        };
        let (typing, created) = (matches!(subject, Subject::Typing { .. }), event == "conversation_created");
        let bots = match inbox_id {
            Some(inbox_id) if !typing && !created => {
                self.listening_bots(inbox_id, conversation.and_then(|conversation| conversation.assignee))
            }
            _ => Vec::new(),
        };
        let of_bots = bots
            .into_iter()
            .filter_map(|bot| Some(Receiver { route: Route::Bot(bot.id), url: bot.outgoing_url?, secret: bot.secret }));
        let of_account = self
            .webhooks
            .values()
            .filter(|webhook| webhook.account_id == key.account_id)
            .filter(|webhook| webhook.subscriptions.iter().any(|subscribed| subscribed == event))
            .map(|webhook| Receiver {
                route: Route::Account,
                url: webhook.url.clone(),
                secret: Some(webhook.secret.clone()),
            });
        let only_for_bots = matches!(event, "conversation_opened" | "conversation_resolved");
        let api_inbox = inbox_id.and_then(|id| self.inboxes.get(&id)).filter(|inbox| {
            inbox.channel == "Channel::Api" && !only_for_bots && !matches!(subject, Subject::Widget { .. })
        });
        let of_inbox = api_inbox.and_then(|inbox| {
            Some(Receiver { route: Route::ApiInbox, url: inbox.webhook_url.clone()?, secret: inbox.secret.clone() })
        });
        of_bots.chain(of_account).chain(of_inbox).collect()
    }
}

/// Who gets a delivery.
struct Receiver {
    route: Route,
    url: String,
    secret: Option<String>,
}
