//! Scenes: what has to happen so that the webhook of a name goes out.

use relais_loadtest::fakes::chatwoot::{Act, Assignee, ConversationKey, FakeChatwoot, NewContact, Templates};
use serde_json::{Value, json};

use crate::harness::{BOT, Got, Receiver, USER, call, on, settled};

/// Scenes that play on WhatsApp, by a part of their name.
const WHATSAPP: [&str; 9] = [
    ".whatsapp",
    "external_echo",
    "deliver",
    "attachment",
    "audio",
    "reply_to",
    "unsupported",
    "other_channel",
    "button_reply",
];

/// Plays one scene and returns the webhook about it.
pub(crate) async fn play(fake: &FakeChatwoot, receiver: &Receiver, name: &str) -> Value {
    let channel = match name {
        _ if name.ends_with(".api_channel") => "Channel::Api",
        _ if name.ends_with(".email") => "Channel::Email",
        _ if WHATSAPP.iter().any(|part| name.contains(part)) => "Channel::Whatsapp",
        _ => "Channel::WebWidget",
    };
    if ["conversation_created", "conversation_typing", "contact_"].iter().any(|event| name.starts_with(event)) {
        // No bot hears of these: an account webhook does.
        let hook = json!({ "url": receiver.url() });
        assert_eq!(call(fake, USER, "POST", "/api/v1/accounts/1/webhooks", hook).await.status, 200);
    }
    let inbox_id = fake.add_inbox("Inbox", channel, true);
    fake.set_templates(inbox_id, templates(name));
    let email = (!name.contains(".input_email")).then(|| "carla@example.com".to_owned());
    let contact = NewContact { email, ..NewContact::default() };
    if name == "webwidget_triggered.first_visit" {
        fake.open_widget(inbox_id, contact.clone()).unwrap();
        settled(fake).await;
    }
    let key = fake.new_conversation_in(inbox_id, contact).unwrap();
    let text = || "Some text".to_owned();
    let act = |act| fake.act(key, act).unwrap();
    let say = || act(Act::CustomerSays { text: text() });
    let post = async |body| on(fake, BOT, key, "POST", "messages", body).await.json()["id"].as_u64().unwrap();
    match name.split_once('.').unwrap_or((name, "")) {
        ("webwidget_triggered", "first_visit") => {}
        ("webwidget_triggered", _) => {
            say();
            post(json!({ "content": "Yes." })).await;
            act(Act::CustomerOpensWidget);
        }
        // Built later: what the customer says right after is in it.
        ("conversation_created", _) => drop(say()),
        ("contact_created", _) => {}
        ("contact_updated", _) => {
            let path = format!("/api/v1/accounts/1/contacts/{}", fake.conversation(key).unwrap().contact_id);
            call(fake, USER, "PUT", &path, json!({ "name": "Carla" })).await;
        }
        ("conversation_typing_on" | "conversation_typing_off", who) => {
            say();
            let on_or_off = if name.contains("_on") { "on" } else { "off" };
            let body = json!({ "typing_status": on_or_off });
            match who {
                "contact" => drop(act(Act::CustomerTypes { on: on_or_off == "on" })),
                "agent_bot" => drop(on(fake, BOT, key, "POST", "toggle_typing_status", body).await),
                _ => {
                    act(Act::HumanTakesOver);
                    on(fake, USER, key, "POST", "toggle_typing_status", body).await;
                }
            }
        }
        (_, "incoming.attachment_audio" | "incoming.audio_transcribed") => {
            let url = "https://chat.example.com/voice.ogg".to_owned();
            let message_id = act(Act::CustomerSendsFile { file_type: "audio".to_owned(), url }).unwrap();
            if name.contains("transcribed") {
                act(Act::Transcribe { message_id, text: text() });
            }
        }
        (_, "incoming.attachment_location") => drop(act(Act::CustomerSendsPlace { title: text() })),
        (_, "incoming.attachment_contact_card") => {
            let (name, phone_number) = ("Example Contact".to_owned(), "+12025550177".to_owned());
            act(Act::CustomerSendsContactCard { name, phone_number });
        }
        (_, "incoming.email") => drop(act(Act::CustomerMails { subject: text(), text: text() })),
        (_, "incoming.unsupported") => drop(act(Act::CustomerSendsUnsupported)),
        (_, "incoming.reply_to" | "incoming.whatsapp_button_reply") => {
            let message_id = post(json!({ "content": "This one?" })).await;
            settled(fake).await;
            receiver.forget();
            act(Act::CustomerRepliesTo { message_id, text: text() });
        }
        (_, "template.greeting" | "template.out_of_office" | "template.input_email") => drop(say()),
        (_, "template.input_email_answered") => {
            say();
            let message_id = fake.seen_by_customer(key).last().unwrap().message_id;
            act(Act::CustomerGivesEmail { message_id, email: "carla@example.com".to_owned() });
        }
        (_, template) if template.starts_with("template.input_csat") => {
            act(Act::Resolve);
            let message_id = fake.seen_by_customer(key).last().unwrap().message_id;
            if template.ends_with("answered") {
                let submitted_values = json!({ "csat_survey_response": { "rating": 5, "feedback_message": "Quick" } });
                act(Act::CustomerAnswers { message_id, submitted_values });
            }
        }
        (_, "outgoing.input_select") => drop(post(interactive("input_select")).await),
        (_, "outgoing.cards") => drop(post(interactive("cards")).await),
        (_, "outgoing.article") => drop(post(interactive("article")).await),
        (_, "outgoing.form") => drop(post(interactive("form")).await),
        (_, "outgoing.form_submitted") => {
            let message_id = post(interactive("form")).await;
            let submitted_values = json!([{ "name": "order_number", "value": "A-1001" }]);
            act(Act::CustomerAnswers { message_id, submitted_values });
        }
        (_, "incoming.attachment_image") => {
            let url = "https://chat.example.com/receipt.png".to_owned();
            act(Act::CustomerSendsFile { file_type: "image".to_owned(), url });
        }
        (_, "incoming.conversation_open_human_assigned") => {
            act(Act::AssignTeam { team_id: fake.world().team_ids.first().copied() });
            act(Act::HumanTakesOver);
            act(Act::HumanReplies { text: text() });
            say();
        }
        (_, "incoming.conversation_assigned_to_bot") => {
            act(Act::AssignBot { bot_id: fake.world().bot_id });
            say();
        }
        ("message_created", incoming) if incoming.starts_with("incoming") => drop(say()),
        (_, "outgoing.agent_bot_own_echo") => {
            say();
            post(json!({ "content": "Yes.", "content_attributes": { "relay_turn_id": "t" } })).await;
        }
        (_, "outgoing.human_agent") => {
            act(Act::HumanTakesOver);
            act(Act::HumanReplies { text: text() });
        }
        (_, "outgoing.human_agent_while_pending") => drop(act(Act::HumanReplies { text: text() })),
        (_, "outgoing.private_note") => {
            act(Act::HumanTakesOver);
            act(Act::HumanReplies { text: text() });
            settled(fake).await;
            receiver.forget();
            act(Act::PrivateNote { text: text() });
        }
        (_, "outgoing.external_echo") => drop(act(Act::ExternalEcho { text: text() })),
        (_, "outgoing.automation_rule") => drop(act(Act::AutomationSays { text: text() })),
        (_, "outgoing.delivered") => {
            let message_id = post(json!({ "content": "x" })).await;
            act(Act::MarkDelivered { message_id });
        }
        (_, "outgoing.delivery_failed") => {
            let message_id = post(json!({ "content": "x" })).await;
            act(Act::MarkFailed { message_id, error: "131047".to_owned() });
        }
        (_, "outgoing.deleted") => {
            act(Act::HumanTakesOver);
            let message_id = fake.human_replies(key, "x").unwrap();
            act(Act::DeleteMessage { message_id });
        }
        (_, "outgoing.input_select_answered") => {
            let picked = json!([{ "title": "A", "value": "a" }]);
            let select =
                json!({ "content": "?", "content_type": "input_select", "content_attributes": { "items": picked } });
            let message_id = post(select).await;
            act(Act::CustomerAnswers { message_id, submitted_values: picked });
        }
        ("conversation_opened", _) | (_, "pending_to_open" | "status_changed") => {
            post(json!({ "content": "x" })).await;
            on(fake, BOT, key, "POST", "toggle_status", json!({ "status": "open" })).await;
        }
        ("conversation_resolved", _) => {
            post(json!({ "content": "x" })).await;
            act(Act::Resolve);
        }
        (_, "resolved_to_pending") => {
            act(Act::HumanTakesOver);
            act(Act::Resolve);
            settled(fake).await;
            receiver.forget();
            say();
        }
        (_, "open_to_resolved") => {
            act(Act::HumanTakesOver);
            post(json!({ "content": "x" })).await;
            settled(fake).await;
            receiver.forget();
            act(Act::Resolve);
        }
        (_, "snoozed") => {
            act(Act::AssignHuman { human_id: Some(fake.world().human_id) });
            post(json!({ "content": "x" })).await;
            act(Act::Snooze { until_s: 1_900_000_000 });
        }
        ("conversation_updated", what) => updated(fake, receiver, key, what).await,
        (event, variant) => panic!("no scene for {event}.{variant}"),
    }
    settled(fake).await;
    let event = name.split('.').next().unwrap();
    let got: Vec<Got> = receiver.got().into_iter().filter(|got| got.event() == event).collect();
    got.last().unwrap_or_else(|| panic!("{name}: no {event} among {:?}", receiver.events())).body.clone()
}

async fn updated(fake: &FakeChatwoot, receiver: &Receiver, key: ConversationKey, what: &str) {
    if matches!(what, "waiting_since_cleared" | "assigned_to_agent_bot") {
        fake.customer(key).says("x").unwrap();
    }
    if what != "assigned_to_agent_bot" {
        on(fake, BOT, key, "POST", "messages", json!({ "content": "x" })).await;
    }
    settled(fake).await;
    if what == "waiting_since_cleared" {
        return;
    }
    receiver.forget();
    match what {
        "labels" => drop(on(fake, BOT, key, "POST", "labels", json!({ "labels": ["billing"] })).await),
        "priority" => drop(on(fake, BOT, key, "POST", "toggle_priority", json!({ "priority": "high" })).await),
        "custom_attributes" => {
            let body = json!({ "custom_attributes": { "relay_state": "handed_off" } });
            on(fake, BOT, key, "POST", "custom_attributes", body).await;
        }
        "team_assigned" => {
            let team_id = fake.world().team_ids.first().copied();
            fake.act(key, Act::AssignTeam { team_id }).unwrap();
        }
        "assigned_to_agent_bot" => {
            fake.act(key, Act::AssignBot { bot_id: fake.world().bot_id }).unwrap();
            assert_eq!(fake.conversation(key).unwrap().assignee, Some(Assignee::Bot(fake.world().bot_id)));
        }
        "auto_assigned_on_handoff" => {
            fake.set_human_online(fake.world().human_id, true);
            on(fake, BOT, key, "POST", "toggle_status", json!({ "status": "open" })).await;
            fake.set_human_online(fake.world().human_id, false);
        }
        other => panic!("no scene for conversation_updated.{other}"),
    }
}

/// What Chatwoot itself says in the scene's inbox.
fn templates(name: &str) -> Templates {
    let text = || Some("Some text".to_owned());
    match name.split_once(".template.").map_or("", |(_, template)| template) {
        "greeting" => Templates { greeting_enabled: true, greeting_message: text(), ..Templates::default() },
        "out_of_office" => {
            Templates { working_hours_enabled: true, out_of_office_message: text(), ..Templates::default() }
        }
        "input_email" | "input_email_answered" => Templates { enable_email_collect: true, ..Templates::default() },
        survey if survey.starts_with("input_csat") => Templates { csat_survey_enabled: true, ..Templates::default() },
        _ => Templates::default(),
    }
}

/// A message the customer may answer by a click.
fn interactive(content_type: &str) -> Value {
    let items = match content_type {
        "input_select" => json!([{ "title": "Billing", "value": "billing" }]),
        "cards" => json!([{
            "media_url": "https://www.example.com/plan.png",
            "title": "Standard",
            "description": "Monthly",
            "actions": [
                { "type": "link", "text": "View", "uri": "https://www.example.com/plan" },
                { "type": "postback", "text": "Choose", "payload": "PLAN" },
            ],
        }]),
        "article" => json!([{ "title": "Plans", "description": "How", "link": "https://help.example.com" }]),
        _ => json!([
            { "name": "order_number", "placeholder": "Number", "type": "text", "label": "Number", "required": "required" },
            { "name": "reason", "label": "Why", "type": "select", "options": [{ "label": "Late", "value": "late" }] },
        ]),
    };
    json!({ "content": "?", "content_type": content_type, "content_attributes": { "items": items } })
}
