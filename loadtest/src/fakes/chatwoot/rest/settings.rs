//! What onboarding uses: bots, webhooks, humans, teams; inboxes and contacts are beside it. A user token only.
//!
//! Reading needs a member of the account, changing an administrator; both are refused with 401, as
//! Chatwoot does. Webhooks only an administrator may even list. Anyone who answers customers may make contacts.

use serde_json::{Value, json};

use super::conversations::{object_of, text_of};
use super::{ApiCall, Reply};
use crate::fakes::chatwoot::model::{AccountWebhook, Author, Role};
use crate::fakes::chatwoot::state::State;
use crate::fakes::chatwoot::view::{bot_view, human_view, team_view, webhook_view};

/// The events an account webhook may ask for.
const SUBSCRIBABLE: [&str; 12] = [
    "conversation_status_changed",
    "conversation_updated",
    "conversation_created",
    "contact_created",
    "contact_updated",
    "message_created",
    "message_updated",
    "webwidget_triggered",
    "inbox_created",
    "inbox_updated",
    "conversation_typing_on",
    "conversation_typing_off",
];

impl State {
    pub(super) fn settings_answer(&mut self, call: &ApiCall, caller: Author, account_id: u64, rest: &[&str]) -> Reply {
        let Author::Human(human_id) = caller else { return Reply::unauthorized("Not for bots") };
        let is_administrator = self.humans.get(&human_id).is_some_and(|human| human.role == Role::Administrator);
        let open_to_members = match (call.method.as_str(), rest) {
            (_, ["webhooks", ..]) | ("DELETE", _) => false,
            ("GET", _) | (_, ["contacts", ..]) => true,
            _ => false,
        };
        if !open_to_members && !is_administrator {
            return Reply::unauthorized("You are not authorized to do this action");
        }
        match (call.method.as_str(), rest) {
            ("GET", ["agents"]) => self.list(account_id, |state| {
                state.humans.values().map(|human| (human.account_id, human_view(human))).collect()
            }),
            ("GET", ["teams"]) => self.list(account_id, |state| {
                state.teams.values().map(|team| (team.account_id, team_view(team))).collect()
            }),
            ("GET", ["agent_bots"]) => self.list(account_id, |state| {
                let bots = state.bots.values();
                bots.map(|bot| (bot.account_id.unwrap_or(account_id), bot_view(bot, is_administrator))).collect()
            }),
            ("POST", ["agent_bots"]) => self.create_bot(call, account_id),
            (method, ["agent_bots", id, rest @ ..]) => {
                self.one_bot(call, method, account_id, id, rest, is_administrator)
            }
            (_, ["inboxes", rest @ ..]) => self.inboxes_answer(call, account_id, rest, is_administrator),
            (_, ["contacts", rest @ ..]) => self.contacts_answer(call, account_id, rest, is_administrator),
            ("GET", ["webhooks"]) => {
                let of_account = self.webhooks.values().filter(|webhook| webhook.account_id == account_id);
                Reply::json(json!({ "payload": { "webhooks": of_account.map(webhook_view).collect::<Vec<_>>() } }))
            }
            ("POST", ["webhooks"]) => self.create_webhook(call, account_id),
            ("DELETE", ["webhooks", id]) => {
                let id: u64 = id.parse().unwrap_or_default();
                if self.webhooks.get(&id).is_none_or(|webhook| webhook.account_id != account_id) {
                    return Reply::not_found();
                }
                self.webhooks.remove(&id);
                Reply::empty()
            }
            _ => Reply::not_found(),
        }
    }

    fn list(&self, account_id: u64, all: impl FnOnce(&Self) -> Vec<(u64, Value)>) -> Reply {
        let of_account = all(self).into_iter().filter(|(of, _)| *of == account_id).map(|(_, view)| view);
        Reply::json(of_account.collect())
    }

    fn create_bot(&mut self, call: &ApiCall, account_id: u64) -> Reply {
        let parameters = call.parameters();
        let Some(name) = text_of(&parameters, "name") else { return Reply::error(422, "Name can't be blank") };
        let id = self.add_bot(Some(account_id), &name, text_of(&parameters, "outgoing_url"));
        let Some(bot) = self.bots.get_mut(&id) else { return Reply::not_found() };
        bot.description = text_of(&parameters, "description").unwrap_or_default();
        Reply::json(bot_view(bot, true))
    }

    fn one_bot(
        &mut self,
        call: &ApiCall,
        method: &str,
        account_id: u64,
        id: &str,
        rest: &[&str],
        with_secret: bool,
    ) -> Reply {
        let (fresh, bot_secrets) = (self.random_token(), self.settings.bot_secrets);
        let found = id.parse().ok().and_then(|id: u64| self.bots.get_mut(&id));
        let Some(bot) = found.filter(|bot| bot.account_id.is_none_or(|of| of == account_id)) else {
            return Reply::not_found();
        };
        match (method, rest) {
            ("GET", []) => {}
            // A global bot can be looked at, not changed.
            _ if bot.account_id.is_none() => return Reply::not_found(),
            ("PATCH", []) => {
                let parameters = call.parameters();
                if let Some(name) = text_of(&parameters, "name") {
                    bot.name = name;
                }
                if let Some(description) = text_of(&parameters, "description") {
                    bot.description = description;
                }
                if let Some(url) = text_of(&parameters, "outgoing_url") {
                    bot.outgoing_url = Some(url);
                }
            }
            ("POST", ["reset_access_token"]) => bot.access_token = fresh,
            ("POST", ["reset_secret"]) if bot_secrets => bot.secret = Some(fresh),
            ("DELETE", []) => {
                let bot_id = bot.id;
                self.bots.remove(&bot_id);
                for inbox in self.inboxes.values_mut().filter(|inbox| inbox.bot_id == Some(bot_id)) {
                    inbox.bot_id = None;
                }
                return Reply::empty();
            }
            _ => return Reply::not_found(),
        }
        Reply::json(bot_view(bot, with_secret))
    }

    fn create_webhook(&mut self, call: &ApiCall, account_id: u64) -> Reply {
        let mut parameters = call.parameters();
        if parameters.contains_key("webhook") {
            parameters = object_of(&parameters, "webhook");
        }
        let url = text_of(&parameters, "url").filter(|url| url.starts_with("http://") || url.starts_with("https://"));
        let Some(url) = url else { return Reply::error(422, "Url is invalid") };
        if self.webhooks.values().any(|webhook| webhook.account_id == account_id && webhook.url == url) {
            return Reply::error(422, "Url has already been taken");
        }
        let asked = parameters.get("subscriptions").and_then(Value::as_array).cloned();
        let subscriptions: Vec<String> = match asked {
            Some(asked) => asked.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => SUBSCRIBABLE.map(str::to_owned).to_vec(),
        };
        if subscriptions.is_empty() || subscriptions.iter().any(|event| !SUBSCRIBABLE.contains(&event.as_str())) {
            return Reply::error(422, "Subscriptions are invalid");
        }
        let (id, secret, name) = (self.next_row_id(), self.random_token(), text_of(&parameters, "name"));
        let webhook = AccountWebhook { id, account_id, name, url, secret, subscriptions };
        let view = webhook_view(&webhook);
        self.webhooks.insert(id, webhook);
        Reply::json(json!({ "payload": { "webhook": view } }))
    }
}
