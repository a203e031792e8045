//! What Chatwoot says by itself next to the bot: greeting, out-of-office text, mail request, survey.
//!
//! They go out in a bot's inbox as in any other, after the customer's message has been dispatched; a bot hears them
//! as `message_created` of type `template` and must not take them for a human. Time zones and opening hours are not
//! here: an inbox that keeps hours is closed.

use super::machine::Draft;
use super::model::{ConversationKey, MessageType};
use super::state::{State, now_ms};

/// A public answer as recent as this keeps the out-of-office text back.
const ANSWERED_LATELY_MS: i64 = 5 * 60 * 1000;
const DAY_MS: i64 = 24 * 3600 * 1000;

impl State {
    /// What a customer's message sets off.
    pub(super) fn send_templates(&mut self, key: ConversationKey) {
        let Some(conversation) = self.conversations.get(&key) else { return };
        let Some(inbox) = self.inboxes.get(&conversation.chatwoot_inbox_id) else { return };
        let templates = &inbox.templates;
        let now = now_ms();
        let of_type = |wanted| conversation.messages.iter().filter(move |message| message.message_type == wanted);
        let answered_lately = of_type(MessageType::Outgoing)
            .any(|message| !message.private && message.created_at_ms > now - ANSWERED_LATELY_MS);
        let told_today = of_type(MessageType::Template).any(|message| message.created_at_ms / DAY_MS == now / DAY_MS);
        let first = of_type(MessageType::Outgoing).chain(of_type(MessageType::Template)).next().is_none();
        let has_mail = self.contacts.get(&conversation.contact_id).is_some_and(|contact| contact.email.is_some());
        let asked = conversation.messages.iter().any(|message| message.content_type == "input_email");

        let mut texts = Vec::new();
        if templates.working_hours_enabled && !answered_lately && !told_today {
            texts.extend(templates.out_of_office_message.clone());
        }
        // The out-of-office text is a template too, and comes first: then there is no greeting.
        if templates.greeting_enabled && first && texts.is_empty() {
            texts.extend(templates.greeting_message.clone());
        }
        let asks = templates.enable_email_collect && inbox.channel == "Channel::WebWidget" && !has_mail && !asked;
        for text in texts {
            self.say(key, Draft::text(MessageType::Template, None, &text));
        }
        if asks {
            self.say(key, Draft::text(MessageType::Template, None, "Give the team a way to reach you."));
            let mut request = Draft::text(MessageType::Template, None, "Get notified by email");
            "input_email".clone_into(&mut request.content_type);
            self.say(key, request);
        }
    }

    /// The survey, once per conversation. Outside the website it is a link.
    pub(super) fn send_survey(&mut self, key: ConversationKey) {
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        let Some(inbox) = self.inboxes.get(&conversation.chatwoot_inbox_id) else { return };
        if !inbox.templates.csat_survey_enabled || conversation.survey_sent {
            return;
        }
        conversation.survey_sent = true;
        let text = match inbox.channel.as_str() {
            "Channel::WebWidget" => "Please rate the conversation".to_owned(),
            _ => {
                format!("Please rate the conversation https://chat.example.com/survey/responses/{}", conversation.uuid)
            }
        };
        let mut survey = Draft::text(MessageType::Template, None, &text);
        "input_csat".clone_into(&mut survey.content_type);
        survey.content_attributes.insert("display_type".to_owned(), "emoji".into());
        self.say(key, survey);
    }

    /// Refused when the conversation is flooded or the fake full; a template is no loss then.
    fn say(&mut self, key: ConversationKey, draft: Draft) {
        let _ = self.post(key, draft);
    }
}
