//! How records look in REST answers, which is not how they look in webhooks.
//!
//! Shapes follow the real thing's own views. Of the very large ones (inbox, user) only what a
//! gateway's onboarding reads is here.

use serde_json::{Value, json};

use super::model::{
    AccountWebhook, Assignee, Author, Bot, ChatwootInbox, Contact, Conversation, Human, Message, MessageType, Role,
    Team,
};
use super::payload::iso;
use super::state::State;

/// Seconds since 1970.
fn seconds(at_ms: i64) -> i64 {
    at_ms.div_euclid(1000)
}

impl State {
    /// A message as create and list show it.
    pub(super) fn message_view(&self, conversation: &Conversation, message: &Message) -> Value {
        let mut view = json!({
            "id": message.id,
            "content": message.content,
            "inbox_id": conversation.chatwoot_inbox_id,
            "echo_id": null,
            "conversation_id": conversation.key.conversation_id,
            "message_type": message.message_type.as_integer(),
            "content_type": message.content_type,
            "status": message.status,
            "content_attributes": message.content_attributes,
            "created_at": seconds(message.created_at_ms),
            "private": message.private,
            "source_id": message.source_id,
        });
        if let Some(keys) = view.as_object_mut() {
            if let Some(author) = message.author {
                keys.insert("sender".to_owned(), self.pushed_sender(author));
            }
            if !message.attachments.is_empty() {
                keys.insert("attachments".to_owned(), message.attachments.clone().into());
            }
        }
        view
    }

    /// A conversation as show and list have it.
    pub(super) fn conversation_view(&self, conversation: &Conversation) -> Value {
        let last = conversation.messages.last();
        let talk = conversation.messages.iter().rev().find(|message| message.message_type != MessageType::Activity);
        let block = self.conversation_envelope(conversation, "", None);
        json!({
            "meta": self.meta_view(conversation),
            "id": conversation.key.conversation_id,
            "messages": last.map(|message| self.pushed_message(conversation, message)).into_iter().collect::<Vec<_>>(),
            "account_id": conversation.key.account_id,
            "uuid": conversation.uuid,
            "additional_attributes": conversation.additional_attributes,
            "agent_last_seen_at": seconds(conversation.human_last_seen_at_ms),
            "assignee_last_seen_at": 0,
            "can_reply": self.can_reply(conversation),
            "contact_last_seen_at": 0,
            "custom_attributes": conversation.custom_attributes,
            "inbox_id": conversation.chatwoot_inbox_id,
            "labels": conversation.labels,
            "muted": false,
            "snoozed_until": conversation.snoozed_until_ms.map(iso),
            "status": conversation.status.as_str(),
            "created_at": seconds(conversation.created_at_ms),
            "updated_at": block.get("updated_at"),
            "timestamp": seconds(conversation.last_activity_at_ms),
            "first_reply_created_at": conversation.first_reply_created_at_ms.map_or(0, seconds),
            "unread_count": block.get("unread_count"),
            "last_non_activity_message": talk.map(|message| self.pushed_message(conversation, message)),
            "last_activity_at": seconds(conversation.last_activity_at_ms),
            "priority": conversation.priority,
            "waiting_since": conversation.waiting_since_ms.map_or(0, seconds),
            "sla_policy_id": null,
        })
    }

    fn meta_view(&self, conversation: &Conversation) -> Value {
        let sender = self.contacts.get(&conversation.contact_id).map(contact_view);
        let channel = self.inboxes.get(&conversation.chatwoot_inbox_id).map(|inbox| inbox.channel.as_str());
        let mut meta = json!({
            "sender": sender,
            "channel": channel,
            "hmac_verified": conversation.contact_inbox.hmac_verified,
        });
        let Some(keys) = meta.as_object_mut() else { return meta };
        match conversation.assignee {
            None => {}
            Some(Assignee::Human(id)) => {
                keys.insert("assignee".to_owned(), self.humans.get(&id).map(human_view).unwrap_or_default());
                keys.insert("assignee_type".to_owned(), "User".into());
            }
            Some(Assignee::Bot(id)) => {
                keys.insert("assignee".to_owned(), self.pushed_sender(Author::Bot(id)));
                keys.insert("assignee_type".to_owned(), "AgentBot".into());
            }
        }
        if let Some(team) = conversation.team_id.and_then(|id| self.teams.get(&id)) {
            keys.insert("team".to_owned(), team_view(team));
        }
        meta
    }

    /// The `meta` of a message list.
    pub(super) fn messages_meta_view(&self, conversation: &Conversation) -> Value {
        let assignee = match conversation.assignee {
            Some(Assignee::Human(id)) => self.humans.get(&id).map(human_view),
            Some(Assignee::Bot(id)) => Some(self.pushed_sender(Author::Bot(id))),
            None => None,
        };
        json!({
            "labels": conversation.labels,
            "additional_attributes": conversation.additional_attributes,
            "contact": self.contacts.get(&conversation.contact_id).map(contact_view),
            "assignee": assignee,
            "agent_last_seen_at": seconds(conversation.human_last_seen_at_ms),
            "assignee_last_seen_at": 0,
        })
    }

    /// The caller's own profile.
    pub(super) fn profile_view(&self, human: &Human) -> Value {
        let role = role_word(human.role);
        let account_name = self.accounts.get(&human.account_id).map(|account| account.name.as_str());
        json!({
            "id": human.id,
            "name": human.name,
            "available_name": human.name,
            "email": human.email,
            "account_id": human.account_id,
            "role": role,
            "confirmed": true,
            "type": null,
            "access_token": human.access_token,
            "accounts": [{
                "id": human.account_id,
                "name": account_name,
                "status": "active",
                "role": role,
                "permissions": [role],
                "availability": "online",
                "availability_status": if human.online { "online" } else { "offline" },
                "auto_offline": true,
            }],
        })
    }
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::Agent => "agent",
    }
}

pub(super) fn contact_view(contact: &Contact) -> Value {
    json!({
        "additional_attributes": { "city": "", "country": "", "country_code": "", "created_at_ip": "192.0.2.10" },
        "availability_status": "offline",
        "email": contact.email,
        "id": contact.id,
        "name": contact.name,
        "phone_number": contact.phone_number,
        "blocked": false,
        "identifier": null,
        "thumbnail": "",
        "custom_attributes": contact.custom_attributes,
        "created_at": seconds(contact.created_at_ms),
    })
}

pub(super) fn human_view(human: &Human) -> Value {
    json!({
        "id": human.id,
        "account_id": human.account_id,
        "availability_status": if human.online { "online" } else { "offline" },
        "auto_offline": true,
        "confirmed": true,
        "email": human.email,
        "available_name": human.name,
        "name": human.name,
        "role": role_word(human.role),
        "thumbnail": "",
    })
}

pub(super) fn team_view(team: &Team) -> Value {
    json!({
        "id": team.id,
        "name": team.name,
        "description": null,
        "allow_auto_assign": team.allow_auto_assign,
        "account_id": team.account_id,
    })
}

/// A bot as the account API shows it: its secret to administrators only, and of a global bot neither URL nor token.
pub(super) fn bot_view(bot: &Bot, with_secret: bool) -> Value {
    let mut view = json!({
        "id": bot.id,
        "name": bot.name,
        "description": bot.description,
        "thumbnail": "",
        "bot_type": "webhook",
        "bot_config": {},
        "account_id": bot.account_id,
        "system_bot": bot.account_id.is_none(),
    });
    if let (Some(_), Some(keys)) = (bot.account_id, view.as_object_mut()) {
        keys.insert("outgoing_url".to_owned(), bot.outgoing_url.clone().into());
        keys.insert("access_token".to_owned(), bot.access_token.clone().into());
        if let (true, Some(secret)) = (with_secret, &bot.secret) {
            keys.insert("secret".to_owned(), secret.clone().into());
        }
    }
    view
}

/// An inbox; what identifies and signs an API inbox is shown to administrators only.
pub(super) fn inbox_view(inbox: &ChatwootInbox, to_administrator: bool) -> Value {
    let templates = &inbox.templates;
    let mut view = json!({
        "id": inbox.id,
        "avatar_url": "",
        "channel_id": inbox.id,
        "name": inbox.name,
        "channel_type": inbox.channel,
        "greeting_enabled": templates.greeting_enabled,
        "greeting_message": templates.greeting_message,
        "working_hours_enabled": templates.working_hours_enabled,
        "enable_email_collect": templates.enable_email_collect,
        "csat_survey_enabled": templates.csat_survey_enabled,
        "enable_auto_assignment": inbox.auto_assignment,
        "auto_assignment_config": {},
        "out_of_office_message": templates.out_of_office_message,
        "timezone": "UTC",
        "allow_messages_after_resolved": true,
        "lock_to_single_conversation": false,
    });
    if let ("Channel::Api", Some(keys)) = (inbox.channel.as_str(), view.as_object_mut()) {
        keys.insert("webhook_url".to_owned(), inbox.webhook_url.clone().into());
        keys.insert("inbox_identifier".to_owned(), inbox.identifier.clone().into());
        if to_administrator {
            keys.insert("hmac_token".to_owned(), inbox.hmac_token.clone().into());
        }
        if let (true, Some(secret)) = (to_administrator, &inbox.secret) {
            keys.insert("secret".to_owned(), secret.clone().into());
        }
    }
    view
}

pub(super) fn webhook_view(webhook: &AccountWebhook) -> Value {
    json!({
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "account_id": webhook.account_id,
        "subscriptions": webhook.subscriptions,
        "secret": webhook.secret,
        "inbox": null,
    })
}
