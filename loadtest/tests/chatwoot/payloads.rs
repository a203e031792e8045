//! Webhook bodies have the keys the real thing's have, all of them and no others.
//!
//! The examples they are compared with are not in this repository. `RELAIS_CHATWOOT_EVENTS` names
//! their folder; without it `shared/chatwoot/events` beside the workspace is tried. Where neither
//! is there the comparison is skipped, loudly, and the key lists below still hold.

use std::collections::BTreeSet;
use std::path::PathBuf;

use relais_loadtest::fakes::chatwoot::{Act, Assignee, ConversationKey, FakeChatwoot, NewContact};
use serde_json::{Value, json};

use crate::harness::{BOT, Got, Receiver, on, quick, settled, start};

const MESSAGE_KEYS: [&str; 14] = [
    "account",
    "additional_attributes",
    "content",
    "content_attributes",
    "content_type",
    "conversation",
    "created_at",
    "event",
    "id",
    "inbox",
    "message_type",
    "private",
    "sender",
    "source_id",
];

const CONVERSATION_KEYS: [&str; 23] = [
    "account",
    "additional_attributes",
    "agent_last_seen_at",
    "can_reply",
    "channel",
    "contact_inbox",
    "contact_last_seen_at",
    "created_at",
    "custom_attributes",
    "first_reply_created_at",
    "id",
    "inbox_id",
    "labels",
    "last_activity_at",
    "messages",
    "meta",
    "priority",
    "snoozed_until",
    "status",
    "timestamp",
    "unread_count",
    "updated_at",
    "waiting_since",
];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn both_envelopes_and_the_forms_of_their_fields() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    let id = fake.customer(key).says("Hi").unwrap();
    fake.resolve(key).unwrap();
    settled(&fake).await;
    let got = receiver.got();
    let of = |event: &str| got.iter().find(|got| got.event() == event).unwrap().body.clone();
    let message = of("message_created");
    assert_eq!(keys(&message), MESSAGE_KEYS);
    assert_eq!(keys(&message["conversation"]), CONVERSATION_KEYS);
    let inner = &message["conversation"]["messages"][0];
    assert_eq!((&message["id"], &inner["id"]), (&json!(id), &json!(id)));
    assert_eq!((&message["message_type"], &inner["message_type"]), (&json!("incoming"), &json!(0)));
    assert!(message["created_at"].as_str().unwrap().ends_with('Z') && inner["created_at"].is_i64());
    assert!(message["sender"].get("type").is_none(), "the customer has no type at the top");
    assert_eq!(inner["sender"]["type"], "contact");
    assert!(message["conversation"]["updated_at"].is_f64());
    // In the conversation envelope `id` is the conversation's number.
    let resolved = of("conversation_status_changed");
    let mut expected = CONVERSATION_KEYS.to_vec();
    expected.extend(["changed_attributes", "event"]);
    expected.sort_unstable();
    assert_eq!(keys(&resolved), expected);
    assert_eq!(resolved["id"], key.conversation_id);
    assert_eq!(resolved["changed_attributes"], Value::Null);
    assert!(of("conversation_resolved").get("changed_attributes").is_none());
    assert_eq!(of("conversation_updated")["changed_attributes"][0]["status"]["current_value"], "resolved");
}

fn examples() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/chatwoot/events");
    let found = std::env::var_os("RELAIS_CHATWOOT_EVENTS").map_or(beside, PathBuf::from);
    found.is_dir().then_some(found)
}

/// Every path of keys in a value; the elements of a list share one.
fn paths(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            // The widget sends it or not, with what the visitor did; it says nothing about the shape.
            for (key, value) in entries.iter().filter(|(key, _)| *key != "in_reply_to") {
                let path = format!("{at}.{key}");
                into.insert(path.clone());
                paths(value, &path, into);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| paths(element, &format!("{at}[]"), into)),
        _ => {}
    }
}

/// Plays one scene and returns the webhook about it.
async fn scene(fake: &FakeChatwoot, receiver: &Receiver, name: &str) -> Value {
    let channel = match name {
        _ if name.ends_with(".api_channel") => "Channel::Api",
        _ if name.ends_with(".whatsapp")
            || name.ends_with("external_echo")
            || name.contains("deliver")
            || name.contains("attachment") =>
        {
            "Channel::Whatsapp"
        }
        _ => "Channel::WebWidget",
    };
    let inbox_id = fake.add_inbox("Inbox", channel, true);
    let key = fake.new_conversation_in(inbox_id, NewContact::default()).unwrap();
    let text = || "Some text".to_owned();
    let act = |act| fake.act(key, act).unwrap();
    let say = || act(Act::CustomerSays { text: text() });
    let post = async |body| on(fake, BOT, key, "POST", "messages", body).await.json()["id"].as_u64().unwrap();
    match name.split_once('.').unwrap_or((name, "")) {
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
        (_, "template.greeting") => drop(act(Act::TemplateSays { text: text() })),
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

const COMPARED: [&str; 31] = [
    "message_created.incoming.web_widget",
    "message_created.incoming.api_channel",
    "message_created.incoming.whatsapp",
    "message_created.incoming.attachment_image",
    "message_created.incoming.conversation_open_human_assigned",
    "message_created.incoming.conversation_assigned_to_bot",
    "message_created.outgoing.agent_bot_own_echo",
    "message_created.outgoing.human_agent",
    "message_created.outgoing.human_agent_while_pending",
    "message_created.outgoing.private_note",
    "message_created.outgoing.external_echo",
    "message_created.outgoing.automation_rule",
    "message_created.template.greeting",
    "message_updated.outgoing.delivered",
    "message_updated.outgoing.delivery_failed",
    "message_updated.outgoing.deleted",
    "message_updated.outgoing.input_select_answered",
    "conversation_opened",
    "conversation_resolved",
    "conversation_status_changed.pending_to_open",
    "conversation_status_changed.resolved_to_pending",
    "conversation_status_changed.open_to_resolved",
    "conversation_status_changed.snoozed",
    "conversation_updated.status_changed",
    "conversation_updated.labels",
    "conversation_updated.priority",
    "conversation_updated.custom_attributes",
    "conversation_updated.team_assigned",
    "conversation_updated.assigned_to_agent_bot",
    "conversation_updated.auto_assigned_on_handoff",
    "conversation_updated.waiting_since_cleared",
];

#[tokio::test]
async fn key_sets_are_those_of_the_examples() {
    let Some(folder) = examples() else {
        eprintln!("\n*** SKIPPED: no example webhooks here, payload keys were NOT compared with the real thing's ***");
        eprintln!("*** set RELAIS_CHATWOOT_EVENTS to the folder that holds them ***\n");
        return;
    };
    let mut wrong = Vec::new();
    for name in COMPARED {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let example: Value = serde_json::from_str(&text).unwrap();
        let (fake, receiver) = start(quick()).await;
        let ours = scene(&fake, &receiver, name).await;
        let (mut expected, mut actual) = (BTreeSet::new(), BTreeSet::new());
        paths(&example, "", &mut expected);
        paths(&ours, "", &mut actual);
        let missing: Vec<_> = expected.difference(&actual).collect();
        let extra: Vec<_> = actual.difference(&expected).collect();
        if !missing.is_empty() || !extra.is_empty() {
            wrong.push(format!("{name}: missing {missing:?}, extra {extra:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
