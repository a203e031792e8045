//! Inboxes: list, show, create, change, delete; and the bot of each.
//!
//! Setting a bot replaces the one there without a word, and `null` detaches. Conversations keep what they have.

use serde_json::{Map, Value, json};

use super::conversations::{as_id, object_of, text_of};
use super::{ApiCall, Reply};
use crate::fakes::chatwoot::model::{ChatwootInbox, Templates};
use crate::fakes::chatwoot::state::State;
use crate::fakes::chatwoot::view::{bot_view, inbox_view};

impl State {
    pub(super) fn inboxes_answer(
        &mut self,
        call: &ApiCall,
        account_id: u64,
        rest: &[&str],
        is_administrator: bool,
    ) -> Reply {
        let method = call.method.as_str();
        let id = match (method, rest) {
            ("GET", []) => {
                let of_account = self.inboxes.values().filter(|inbox| inbox.account_id == account_id);
                let views: Vec<Value> = of_account.map(|inbox| inbox_view(inbox, is_administrator)).collect();
                return Reply::json(json!({ "payload": views }));
            }
            ("POST", []) => return self.create_inbox(call, account_id),
            (_, [id, ..]) => id.parse().unwrap_or_default(),
            _ => return Reply::not_found(),
        };
        if self.inboxes.get(&id).is_none_or(|inbox| inbox.account_id != account_id) {
            return Reply::not_found();
        }
        match (method, rest.get(1..).unwrap_or_default()) {
            ("GET", []) => {}
            ("PATCH", []) => {
                if let Err(error) = self.change_inbox(id, &call.parameters()) {
                    return Reply::error(422, error);
                }
            }
            ("DELETE", []) => {
                self.inboxes.remove(&id);
                self.links.retain(|_, link| link.chatwoot_inbox_id != id);
                self.conversations.retain(|_, conversation| conversation.chatwoot_inbox_id != id);
                return Reply::json(
                    json!({ "message": "Your inbox deletion request will be processed in some time." }),
                );
            }
            ("GET", ["agent_bot"]) => {
                let bot = self.inboxes.get(&id).and_then(|inbox| self.bots.get(&inbox.bot_id?));
                let view = bot.map_or_else(|| json!({}), |bot| bot_view(bot, is_administrator));
                return Reply::json(json!({ "agent_bot": view }));
            }
            ("POST", ["set_agent_bot"]) => return self.set_agent_bot(call, account_id, id),
            ("POST", ["reset_secret"]) => {
                let fresh = self.random_secret();
                let Some(inbox) = self.inboxes.get_mut(&id) else { return Reply::not_found() };
                if inbox.channel != "Channel::Api" || fresh.is_none() {
                    return Reply::not_found();
                }
                inbox.secret = fresh;
            }
            _ => return Reply::not_found(),
        }
        self.inboxes.get(&id).map_or_else(Reply::not_found, |inbox| Reply::json(inbox_view(inbox, is_administrator)))
    }

    fn create_inbox(&mut self, call: &ApiCall, account_id: u64) -> Reply {
        let parameters = call.parameters();
        let Some(name) = text_of(&parameters, "name") else { return Reply::error(422, "Name can't be blank") };
        let channel = match text_of(&object_of(&parameters, "channel"), "type").as_deref() {
            Some("api") => "Channel::Api",
            Some("web_widget") => "Channel::WebWidget",
            Some("email") => "Channel::Email",
            _ => return Reply::error(422, "Channel type is not one the fake has"),
        };
        let id = self.add_inbox(account_id, &name, channel);
        if let Err(error) = self.change_inbox(id, &parameters) {
            self.inboxes.remove(&id);
            return Reply::error(422, error);
        }
        self.inboxes.get(&id).map_or_else(Reply::not_found, |inbox| Reply::json(inbox_view(inbox, true)))
    }

    /// Takes over what is named, and leaves the rest as it is.
    fn change_inbox(&mut self, id: u64, parameters: &Map<String, Value>) -> Result<(), &'static str> {
        let Some(inbox) = self.inboxes.get_mut(&id) else { return Ok(()) };
        inbox.templates = changed_templates(inbox, parameters)?;
        if let Some(name) = text_of(parameters, "name") {
            inbox.name = name;
        }
        if let Some(wanted) = parameters.get("enable_auto_assignment").and_then(Value::as_bool) {
            inbox.auto_assignment = wanted;
        }
        let channel = object_of(parameters, "channel");
        if let ("Channel::Api", Some(url)) = (inbox.channel.as_str(), channel.get("webhook_url")) {
            let url = url.as_str().filter(|url| !url.is_empty());
            if url.is_some_and(|url| url.chars().count() > 2048) {
                return Err("Webhook url is too long (maximum is 2048 characters)");
            }
            inbox.webhook_url = url.map(str::to_owned);
        }
        Ok(())
    }

    fn set_agent_bot(&mut self, call: &ApiCall, account_id: u64, id: u64) -> Reply {
        let asked = call.parameters().get("agent_bot").and_then(as_id);
        let usable = |bot_id: u64| {
            self.bots.get(&bot_id).is_some_and(|bot| bot.account_id.is_none_or(|owner| owner == account_id))
        };
        if !asked.is_none_or(usable) {
            return Reply::not_found();
        }
        if let Some(inbox) = self.inboxes.get_mut(&id) {
            inbox.bot_id = asked;
        }
        Reply::empty()
    }
}

fn changed_templates(inbox: &ChatwootInbox, parameters: &Map<String, Value>) -> Result<Templates, &'static str> {
    let mut settings = json!(inbox.templates);
    for (name, value) in settings.as_object_mut().into_iter().flatten() {
        if let Some(given) = parameters.get(name) {
            *value = given.clone();
        }
    }
    serde_json::from_value(settings).map_err(|_| "Inbox settings are invalid")
}
