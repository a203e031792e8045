//! Deliveries read right: the contract's examples one by one, its traps, and payloads broken at random.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn event(body: &Value) -> Event {
    match parse(body.to_string().as_bytes()).unwrap() {
        Parsed::Event(event) => *event,
        Parsed::Ignored(why) => panic!("ignored: {why}"),
    }
}

fn message_body() -> Value {
    json!({
        "event": "message_created", "id": 90001, "content": "Hi", "message_type": "incoming", "private": false,
        "created_at": "2026-06-18T09:15:00.123Z", "account": {"id": 7, "name": "Example"}, "content_attributes": {},
        "sender": {"id": 3391, "name": "Sam"},
        "conversation": {
            "id": 1042, "inbox_id": 21, "status": "pending", "channel": "Channel::WebWidget", "can_reply": true,
            "labels": ["vip"],
            "meta": {"sender": {"id": 3391, "name": "Sam\nIgnore all", "email": "s@example.com",
                "custom_attributes": {"plan": "standard", "seats": 3, "nested": {"a": 1}}},
                "assignee": null, "assignee_type": null, "team": null},
            "messages": [{"id": 90001, "message_type": 0, "created_at": 1_781_774_100, "content": "Hi"}]
        }
    })
}

fn with(path: &str, value: Value) -> Event {
    let mut body = message_body();
    *body.pointer_mut(path).unwrap() = value;
    event(&body)
}

#[test]
fn a_customer_s_message_is_read_whole() {
    let read = event(&message_body());
    assert_eq!((read.kind, read.account_id, read.conversation.id), (EventKind::MessageCreated, 7, 1042));
    let conversation = &read.conversation;
    assert_eq!((conversation.chatwoot_inbox_id, conversation.status), (Some(21), Some(Status::Pending)));
    assert_eq!((conversation.assignee, conversation.medium), (Assignee::None, Medium::Web));
    assert_eq!(conversation.contact.name.as_deref(), Some("Sam Ignore all"));
    assert_eq!(
        conversation.contact.custom.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["plan=standard", "seats=3"]
    );
    assert_eq!(conversation.last_message, Some(LastMessage { id: 90001, from: Sender::Customer, turn: None }));
    let message = read.message.unwrap();
    assert_eq!((message.id, message.from, message.created_at_ms), (90001, Sender::Customer, 1_781_774_100_123));
}

#[test]
fn senders_are_told_apart() {
    let outgoing = |sender: Value, attributes: Value| {
        let mut body = message_body();
        body["message_type"] = "outgoing".into();
        body["sender"] = sender;
        body["content_attributes"] = attributes;
        event(&body).message.unwrap()
    };
    let id = "0192f0c0-0000-7000-8000-000000000001";
    let bot = json!({"id": 5, "type": "agent_bot"});
    let human = json!({"id": 12, "type": "user"});
    assert_eq!(outgoing(human.clone(), json!({})).from, Sender::Human(12));
    assert_eq!(outgoing(human.clone(), json!({"external_echo": true})).from, Sender::ExternalEcho);
    assert_eq!(outgoing(bot.clone(), json!({})).from, Sender::Bot(5));
    assert_eq!(outgoing(json!({"id": 2, "type": "captain_assistant"}), json!({})).from, Sender::Captain);
    assert_eq!(outgoing(json!({"id": 2, "type": "newer"}), json!({})).from, Sender::Nobody);
    assert_eq!(outgoing(Value::Null, json!({})).from, Sender::Nobody);
    assert_eq!(outgoing(Value::Null, json!({"automation_rule_id": 31})).from, Sender::Automation);

    let mark = TurnMark { turn_id: id.parse().unwrap(), part: 2 };
    let marked = json!({"relay_turn_id": id, "relay_part": 2});
    assert_eq!(outgoing(bot, marked.clone()).turn, Some(mark));
    assert_eq!(outgoing(human, marked).turn, None, "only a bot's message can be ours");
}

#[test]
fn owners_are_told_apart_and_an_unknown_kind_is_no_error() {
    let owner = |assignee: Value, kind: Value| {
        let mut body = message_body();
        body["conversation"]["meta"]["assignee"] = assignee;
        body["conversation"]["meta"]["assignee_type"] = kind;
        event(&body).conversation.assignee
    };
    assert_eq!(owner(json!({"id": 12, "type": "user"}), "User".into()), Assignee::Human(12));
    assert_eq!(owner(json!({"id": 5}), "AgentBot".into()), Assignee::Bot(5));
    assert_eq!(owner(json!({"id": 5, "type": "agent_bot"}), Value::Null), Assignee::Bot(5));
    assert_eq!(owner(json!({"id": 5}), "Captain::Assistant".into()), Assignee::Other);
    assert_eq!(owner(json!({"name": "Hans"}), "User".into()), Assignee::Other);
    for odd in [json!("odd"), json!(12), json!(""), json!(false)] {
        assert_eq!(owner(odd.clone(), "User".into()), Assignee::Unknown, "{odd}");
        assert_eq!(owner(odd.clone(), Value::Null), Assignee::Unknown, "{odd}: not nobody's, and so not ours");
    }
    assert_eq!(owner(Value::Null, "User".into()), Assignee::Unknown);
    assert_eq!(owner(Value::Null, Value::Null), Assignee::None);
    assert_eq!(with("/conversation/meta", Value::Null).conversation.assignee, Assignee::Unknown);
}

#[test]
fn odd_fields_are_unknown_and_spoil_nothing() {
    assert_eq!(with("/content", json!({"not": "text"})).message.unwrap().content, None);
    assert_eq!(with("/conversation/status", "brand_new".into()).conversation.status, None);
    assert_eq!(with("/conversation/labels", json!([1, 2])).conversation.labels, Vec::<String>::new());
    assert_eq!(with("/created_at", json!(false)).message.unwrap().created_at_ms, 0);
    assert_eq!(with("/created_at", json!(1_781_774_100)).message.unwrap().created_at_ms, 1_781_774_100_000);
    assert!(with("/conversation/messages", json!("x")).conversation.last_message.is_none());
}

#[test]
fn an_odd_entry_of_a_list_leaves_the_others() {
    assert_eq!(with("/conversation/labels", json!(["vip", 2, null, "new"])).conversation.labels, ["vip", "new"]);
    let mut body = message_body();
    body["attachments"] = json!(["odd", {"file_type": "audio", "transcribed_text": "I need help"}, 7]);
    let values = json!([null, {"title": "Billing", "value": 1}, "odd", {"name": "order", "value": "A-1"}]);
    body["content_attributes"] = json!({"submitted_values": values});
    body["conversation"]["messages"] = json!([{"id": 90001, "message_type": 0}, "odd"]);
    let read = event(&body);
    let message = read.message.unwrap();
    assert_eq!(message.submitted, ["Billing", "order: A-1"]);
    assert_eq!(message.attachments.len(), 1);
    assert_eq!(message.attachments[0].transcript.as_deref(), Some("I need help"));
    assert_eq!(read.conversation.last_message.unwrap().id, 90001);
}

#[test]
fn half_a_surrogate_pair_costs_one_character() {
    for (written, expected) in [
        (r"ok \ud83d", "ok \u{fffd}"),
        (r"\ude42 ok", "\u{fffd} ok"),
        (r"a\ud83d\ud83d\ude42b", "a\u{fffd}🙂b"),
        (r"\ud83d\n\u00e9\\ud83d", "\u{fffd}\né\\ud83d"),
        (r"\uD83Dé", "\u{fffd}é"),
        (r"\ud83d\u0041", "\u{fffd}A"),
    ] {
        let body = message_body().to_string().replacen("\"content\":\"Hi\"", &format!("\"content\":\"{written}\""), 2);
        let Parsed::Event(event) = parse(body.as_bytes()).unwrap() else { panic!("{written}") };
        assert_eq!(event.message.unwrap().content.as_deref(), Some(expected), "{written}");
    }
}

#[test]
fn what_is_not_about_a_turn_is_ignored_with_a_reason() {
    let why = |body: &str| match parse(body.as_bytes()).unwrap() {
        Parsed::Ignored(why) => why,
        Parsed::Event(event) => panic!("{event:?}"),
    };
    assert_eq!(why(r#"{"event":"conversation_typing_on","conversation":{"id":1}}"#), "typing");
    assert_eq!(why(r#"{"event":"something.new","id":"odd"}"#), "unknown_event");
    assert_eq!(why(r#"{"event":17}"#), "no_event");
    assert_eq!(why(r#"{"event":"message_created","message_type":2}"#), "activity");
}

#[test]
fn what_says_too_little_is_an_error() {
    let missing = |pointer: &str| {
        let mut body = message_body();
        *body.pointer_mut(pointer).unwrap() = Value::Null;
        match parse(body.to_string().as_bytes()) {
            Err(ParseError::Missing(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(missing("/id"), "id");
    assert_eq!(missing("/conversation"), "conversation");
    assert_eq!(missing("/conversation/id"), "conversation.id");
    assert_eq!(missing("/account"), "account.id");
    assert!(matches!(parse(b"\xff{"), Err(ParseError::Json(_))));
    assert!(matches!(parse(b""), Err(ParseError::Json(_))));
}

/// The contract's examples, in `RELAIS_SHARED` or beside the checkout; absent from a plain clone.
fn examples() -> Vec<(String, Vec<u8>)> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RELAIS_SHARED").map_or(beside, PathBuf::from).join("chatwoot/events");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no example deliveries beside this checkout (../shared/chatwoot/events)");
        return Vec::new();
    }
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn every_example_is_read_or_ignored_as_its_name_says() {
    for (name, body) in examples() {
        let parsed = parse(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
        let kind = EventKind::named(name.split('.').next().unwrap());
        let event = match (parsed, kind) {
            (Parsed::Ignored(why), None) => {
                assert_ne!(why, "unknown_event", "{name}");
                continue;
            }
            (Parsed::Event(event), Some(kind)) if event.kind == kind => event,
            (parsed, kind) => panic!("{name}: {kind:?} became {parsed:?}"),
        };
        assert_eq!((event.account_id, event.conversation.id), (7, 1042), "{name}");
        assert!(event.conversation.status.is_some() && event.conversation.assignee != Assignee::Unknown, "{name}");
        assert_ne!(event.conversation.medium, Medium::Other, "{name}");
        let Some(message) = event.message else { continue };
        assert!(message.created_at_ms > 1_700_000_000_000, "{name}");
        let expected = match name.split('.').nth(1).unwrap() {
            "incoming" => matches!(message.from, Sender::Customer),
            "template" => matches!(message.from, Sender::Template),
            _ => !matches!(message.from, Sender::Customer | Sender::Template),
        };
        assert!(expected, "{name}: {:?}", message.from);
        example_details(&name, &message);
    }
}

fn example_details(name: &str, message: &Message) {
    let case = name.split('.').nth(2).unwrap();
    match case {
        "agent_bot_own_echo" => assert!(message.turn.is_some() && message.from == Sender::Bot(5), "{name}"),
        "private_note" => assert!(message.private, "{name}"),
        "external_echo" => assert_eq!(message.from, Sender::ExternalEcho),
        "automation_rule" => assert_eq!(message.from, Sender::Automation),
        "captain" => assert_eq!(message.from, Sender::Captain),
        "human_agent" | "human_agent_while_pending" => assert!(matches!(message.from, Sender::Human(_)), "{name}"),
        "input_select_answered" => assert_eq!(message.submitted, ["Billing"]),
        "form_submitted" => assert_eq!(message.submitted, ["order_number: A-1001", "reason: late"]),
        "input_csat_answered" => assert_eq!(message.submitted, Vec::<String>::new()),
        "audio_transcribed" => {
            let transcript = message.attachments[0].transcript.as_deref();
            assert_eq!(transcript, Some("I would like to talk to billing please"));
        }
        "attachment_image" => assert_eq!(message.attachments[0].kind, AttachmentKind::Image),
        "unsupported" => assert_eq!(message.attachments[0].kind, AttachmentKind::Unsupported),
        "deleted" => assert!(message.deleted),
        "delivery_failed" => assert!(message.external_error),
        _ => {}
    }
}

/// One value somewhere in the payload replaced by something else.
fn broken(mut body: Value, steps: &[usize], by: &Value) -> Value {
    replace(&mut body, steps, by);
    body
}

fn replace(at: &mut Value, steps: &[usize], by: &Value) {
    let children: Vec<&mut Value> = match at {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    match (steps, children.len()) {
        ([step, rest @ ..], count @ 1..) => replace(children.into_iter().nth(step % count).unwrap(), rest, by),
        _ => *at = by.clone(),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([[[{"id": -1}]]])),
        Just(json!(-9_223_372_036_854_775_808_i64)),
        Just(json!(18_446_744_073_709_551_615_u64)),
        Just(json!(1.5e300)),
        any::<bool>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn broken_payloads_never_panic_and_never_lose_what_is_still_there(
        steps in prop::collection::vec(0..40_usize, 1..7), by in any_value(), cut in 0..1_400_usize
    ) {
        let body = broken(message_body(), &steps, &by);
        if let Ok(Parsed::Event(event)) = parse(body.to_string().as_bytes()) {
            prop_assert_eq!(Some(event.conversation.id), body["conversation"]["id"].as_u64());
            prop_assert_eq!(event.message.map(|message| message.id), body["id"].as_u64());
        }
        let text = message_body().to_string();
        prop_assert!(parse(&text.as_bytes()[..cut.min(text.len() - 1)]).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }
}

#[test]
fn broken_examples_never_panic() {
    let odd = [Value::Null, json!([]), json!("x"), json!(-1), json!({"id": "x"})];
    for (_, body) in examples() {
        let whole: Value = serde_json::from_slice(&body).unwrap();
        for step in 0..30_usize {
            for by in &odd {
                for steps in [vec![step], vec![step, step * 7], vec![step, step * 3, step]] {
                    let _ = parse(broken(whole.clone(), &steps, by).to_string().as_bytes());
                }
            }
        }
    }
}
