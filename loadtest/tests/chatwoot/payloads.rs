//! Webhook bodies have the keys the real thing's have, all of them and no others.
//!
//! The examples they are compared with are not in this repository. `RELAIS_SHARED` names the folder that has them as
//! `chatwoot/events`; without it `shared` beside the workspace is tried. Where neither is there the comparison is
//! skipped, loudly, and the key lists below still hold.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{quick, settled, start};
use crate::scenes;

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
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let found = std::env::var_os("RELAIS_SHARED").map_or(beside, PathBuf::from).join("chatwoot/events");
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

/// The examples the fake has nothing like, and why.
const NOT_MADE: [(&str, &str); 6] = [
    ("account_created", "goes to the installation's own URL only"),
    ("automation_event.conversation_updated", "automation rules are not in the fake"),
    ("macro.executed", "macros are not in the fake"),
    ("inbox_created", "off unless an operator switches inbox events on"),
    ("inbox_updated", "off unless an operator switches inbox events on"),
    ("message_created.outgoing.captain", "Captain is not in the fake"),
];

#[tokio::test]
async fn key_sets_are_those_of_the_examples() {
    let Some(folder) = examples() else {
        eprintln!("\n*** SKIPPED: no example webhooks here, payload keys were NOT compared with the real thing's ***");
        eprintln!("*** set RELAIS_SHARED to the folder that holds chatwoot/events ***\n");
        return;
    };
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    let mut wrong = Vec::new();
    for name in names.iter().filter(|name| NOT_MADE.iter().all(|(not_made, _)| not_made != name)) {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let example: Value = serde_json::from_str(&text).unwrap();
        let (fake, receiver) = start(quick()).await;
        let ours = scenes::play(&fake, &receiver, name).await;
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
