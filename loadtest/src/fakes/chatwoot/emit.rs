//! From an event to the deliveries it causes: one per listening bot and subscribed account webhook.
//!
//! A body is built at the event, under the lock, so it shows the state of that moment. Which events
//! a bot hears is Chatwoot's rule: not `conversation_created`, not typing.

use bytes::Bytes;
use serde_json::{Value, json};

use super::delivery::Outgoing;
use super::model::{Author, ConversationKey, MessageType};
use super::payload::{changed, iso, rails_json};
use super::record::{Delivery, Outcome};
use super::state::{State, now_ms};

impl State {
    pub(super) fn emit_message(&mut self, key: ConversationKey, message_id: u64, event: &'static str) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let Some(message) = conversation.message(message_id) else { return };
        if message.message_type == MessageType::Activity {
            return;
        }
        let body = self.message_envelope(conversation, message, event);
        self.queue(key, Some(message_id), event, &body);
    }

    /// `changed_attributes`: `None` leaves the key out, `Some(null)` sends it empty.
    pub(super) fn emit_conversation(
        &mut self,
        key: ConversationKey,
        event: &'static str,
        changed_attributes: Option<Value>,
    ) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let body = self.conversation_envelope(conversation, event, changed_attributes);
        self.queue(key, None, event, &body);
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
        let Some(conversation) = self.conversations.get(&key) else { return };
        let mut block = self.conversation_envelope(conversation, event, None);
        if let Some(keys) = block.as_object_mut() {
            keys.remove("event");
        }
        let body =
            json!({ "event": event, "user": self.webhook_sender(by), "conversation": block, "is_private": private });
        self.queue(key, None, event, &body);
    }

    fn queue(&mut self, key: ConversationKey, message_id: Option<u64>, event: &'static str, body: &Value) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let heard_by_bots =
            !matches!(event, "conversation_created" | "conversation_typing_on" | "conversation_typing_off");
        let bots = if heard_by_bots { self.listening_bots(conversation) } else { Vec::new() };
        let of_bots = bots.into_iter().filter_map(|bot| Some((Some(bot.id), bot.outgoing_url?, bot.secret)));
        let of_account = self
            .webhooks
            .values()
            .filter(|webhook| webhook.account_id == key.account_id)
            .filter(|webhook| webhook.subscriptions.iter().any(|subscribed| subscribed == event))
            .map(|webhook| (None, webhook.url.clone(), Some(webhook.secret.clone())));
        let receivers: Vec<_> = of_bots.chain(of_account).collect();
        if receivers.is_empty() {
            return;
        }
        let body = Bytes::from(rails_json(body));
        for (bot_id, url, secret) in receivers {
            let delivery_id = self.random_uuid();
            let record = self.deliveries.push(Delivery {
                delivery_id: delivery_id.clone(),
                event,
                bot_id,
                key,
                message_id,
                duplicate: false,
                attempts: Vec::new(),
                outcome: Outcome::Pending,
            });
            let attempts_max = if bot_id.is_some() { self.settings.attempts_max } else { 1 };
            let (attempt, body) = (1, body.clone());
            self.outbox.push(Outgoing {
                record,
                delivery_id,
                bot_id,
                url,
                secret,
                event,
                key,
                message_id,
                body,
                attempt,
                attempts_max,
            });
        }
    }
}
