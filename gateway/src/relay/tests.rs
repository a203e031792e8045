//! What deliveries tell, case by case.

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::known::{Ending, Known, NotOurs};
use crate::chatwoot::event::TurnMark;
use crate::inbox::{ConversationState, Stored, Voice};

const BOT: u64 = 7;

/// A message event of conversation 5, pending and nobody's, with `more` laid over it.
fn message(id: u64, kind: &str, more: Value) -> Value {
    let conversation = json!({
        "id": 5, "inbox_id": 3, "status": "pending", "can_reply": true, "channel": "Channel::WebWidget",
        "labels": [], "messages": [], "meta": { "sender": { "id": 1, "name": "Carla" }, "assignee": null,
        "assignee_type": null, "team": null },
    });
    let mut event = json!({
        "event": "message_created", "id": id, "message_type": kind, "content": format!("message {id}"),
        "private": false, "content_type": "text", "content_attributes": {}, "account": { "id": 1 },
        "created_at": "2026-06-18T09:15:00.000Z", "conversation": conversation,
        "sender": { "id": 1, "name": "Carla", "account": { "id": 1 } },
    });
    lay(&mut event, more);
    event
}

fn lay(over: &mut Value, more: Value) {
    match (over, more) {
        (Value::Object(over), Value::Object(more)) => {
            more.into_iter().for_each(|(key, value)| lay(over.entry(key).or_insert(Value::Null), value));
        }
        (over, more) => *over = more,
    }
}

fn asks(id: u64) -> Value {
    message(id, "incoming", json!({}))
}

fn human(id: u64) -> Value {
    message(id, "outgoing", json!({ "sender": { "id": 2, "name": "Hans", "type": "user" } }))
}

/// An update of the conversation itself.
fn updated(last_message_id: u64, more: Value) -> Value {
    let mut event = json!({
        "event": "conversation_updated", "id": 5, "inbox_id": 3, "status": "pending", "can_reply": true,
        "channel": "Channel::WebWidget", "labels": [], "account": { "id": 1 },
        "messages": [{ "id": last_message_id, "message_type": 0, "content": "x", "private": false,
        "content_attributes": {} }],
        "meta": { "sender": { "id": 1 }, "assignee": null, "assignee_type": null, "team": null },
    });
    lay(&mut event, more);
    event
}

fn assigned(kind: &str, id: u64) -> Value {
    json!({ "meta": { "assignee": { "id": id, "name": "x" }, "assignee_type": kind } })
}

fn known(events: &[Value]) -> Known {
    let mut known = Known::new(BOT, ConversationState::default());
    known.read(&stored(1, events));
    known
}

fn stored(first: i64, events: &[Value]) -> Vec<Stored> {
    let one = |(seq, event): (i64, &Value)| Stored {
        seq,
        message_id: 0,
        event: event["event"].as_str().unwrap().to_owned(),
        received_at_ms: 1_000 + seq,
        body: Bytes::from(event.to_string()),
    };
    (first..).zip(events).map(one).collect()
}

#[test]
fn whose_a_conversation_is() {
    let open = json!({ "status": "open" });
    let cases: &[(&str, Vec<Value>, Result<(), NotOurs>)] = &[
        ("asked", vec![asks(1)], Ok(())),
        ("assigned to us", vec![asks(1), updated(1, assigned("AgentBot", BOT))], Ok(())),
        ("assigned to another bot", vec![asks(1), updated(1, assigned("AgentBot", 8))], Err(NotOurs::OtherBot)),
        ("assigned to a human", vec![asks(1), updated(1, assigned("User", 2))], Err(NotOurs::HumanHidden)),
        (
            "assigned to what we do not know",
            vec![asks(1), updated(1, assigned("Captain::Assistant", 2))],
            Err(NotOurs::OtherBot),
        ),
        ("opened", vec![asks(1), updated(1, open.clone())], Err(NotOurs::Status)),
        ("a human wrote", vec![asks(1), human(2)], Err(NotOurs::HumanHidden)),
        ("a human wrote, told late", vec![asks(3), human(2)], Err(NotOurs::HumanHidden)),
        (
            "a phone",
            vec![message(2, "outgoing", json!({ "sender": null, "content_attributes": { "external_echo": true } }))],
            Err(NotOurs::HumanHidden),
        ),
        ("unsigned", vec![message(2, "outgoing", json!({ "sender": null }))], Err(NotOurs::HumanHidden)),
        ("a template", vec![message(2, "template", json!({ "sender": null }))], Ok(())),
        (
            "an automation",
            vec![message(2, "outgoing", json!({ "sender": null, "content_attributes": { "automation_rule_id": 1 } }))],
            Ok(()),
        ),
        (
            "a note",
            vec![message(2, "outgoing", json!({ "private": true, "sender": { "id": 2, "type": "user" } }))],
            Ok(()),
        ),
        ("ourselves", vec![message(2, "outgoing", json!({ "sender": { "id": BOT, "type": "agent_bot" } }))], Ok(())),
        (
            "given back",
            vec![asks(1), human(2), updated(2, open.clone()), updated(2, json!({ "status": "pending" }))],
            Ok(()),
        ),
        ("an old picture", vec![asks(4), updated(2, open.clone())], Ok(())),
        ("the new picture before the old", vec![updated(4, open), asks(2)], Err(NotOurs::Status)),
    ];
    for (what, events, expected) in cases {
        assert_eq!(known(events).ours(), *expected, "{what}");
    }
}

#[test]
fn what_was_asked_and_what_was_said() {
    let deleted = json!({ "event": "message_updated", "content_attributes": { "deleted": true } });
    let transcribed = json!({
        "event": "message_updated", "content": null,
        "attachments": [{ "id": 1, "message_id": 2, "file_type": "audio", "transcribed_text": "where is it" }],
    });
    let voice = json!({ "content": null, "attachments": [{ "id": 1, "message_id": 2, "file_type": "audio" }] });
    let chosen = json!({
        "event": "message_updated", "content_type": "input_select", "sender": { "id": BOT, "type": "agent_bot" },
        "content_attributes": { "submitted_values": [{ "title": "Yes please", "value": "yes" }] },
    });
    let cases: &[(&str, Vec<Value>, &[&str])] = &[
        ("in any order", vec![asks(2), asks(1)], &["message 2", "message 1"]),
        ("deleted", vec![asks(1), asks(2), message(1, "incoming", deleted)], &["message 2"]),
        ("a voice note", vec![message(2, "incoming", voice.clone())], &["[voice note]"]),
        (
            "a voice note with its words",
            vec![message(2, "incoming", voice), message(2, "incoming", transcribed)],
            &["where is it"],
        ),
        ("a choice", vec![message(1, "outgoing", chosen)], &["Yes please"]),
        ("others", vec![human(1), message(2, "template", json!({ "sender": null }))], &[]),
    ];
    for (what, events, expected) in cases {
        let known = known(events);
        let texts: Vec<&str> = known.asks().iter().map(|ask| ask.text.as_str()).collect();
        assert_eq!(texts, *expected, "{what}");
    }
    let known = known(&[asks(3), human(2), asks(1)]);
    let lines: Vec<_> = known.lines().map(|line| (line.message_id, line.voice)).collect();
    assert_eq!(lines, [(1, Voice::Customer), (2, Voice::Human), (3, Voice::Customer)]);
}

#[test]
fn a_turn_ends_everything_but_what_was_asked_after_its_question() {
    let mut known = known(&[asks(1), asks(3)]);
    let upto_seq = known.last_seq;
    assert!(!known.asked_after(upto_seq));
    // A message that is older than those answered but came later, and an echo.
    let echo = message(4, "outgoing", json!({ "sender": { "id": BOT, "type": "agent_bot" } }));
    known.read(&stored(3, &[asks(2), echo]));
    assert!(known.asked_after(upto_seq));
    let replied = Ending { deliveries: vec![(1, "superseded"), (2, "replied"), (4, "signal")], answered_message_id: 3 };
    assert_eq!(known.ending("replied", upto_seq), replied);
    let all = |outcome| known.ending(outcome, i64::MAX).deliveries;
    assert_eq!(all("replied"), [(1, "superseded"), (2, "superseded"), (3, "replied"), (4, "signal")]);
    assert_eq!(all("not_ours"), [(1, "not_ours"), (2, "not_ours"), (3, "not_ours"), (4, "signal")]);
    // What was taken back is not what anybody was answered.
    let deleted = json!({ "event": "message_updated", "content_attributes": { "deleted": true } });
    let known = self::known(&[asks(1), asks(2), message(2, "incoming", deleted)]);
    assert_eq!(known.ending("replied", i64::MAX).deliveries, [(1, "replied"), (2, "superseded"), (3, "signal")]);
}

#[test]
fn our_own_message_is_known_by_its_mark_alone() {
    let turn_id = Uuid::from_u128(5);
    let mark = |part| TurnMark { turn_id, part };
    let marks = json!({ "relay_turn_id": turn_id.to_string(), "relay_part": 1 });
    // A bot made anew has another number; what it said before was ours all the same.
    let before = json!({ "sender": { "id": 6, "type": "agent_bot" }, "content_attributes": marks.clone() });
    let ours = known(&[message(9, "outgoing", before)]);
    assert_eq!((ours.echo(mark(1)), ours.echo(mark(0)), ours.ours()), (Some(9), None, Ok(())));
    // A customer who sets it asks nevertheless.
    let forged = known(&[message(9, "incoming", json!({ "content_attributes": marks }))]);
    assert_eq!((forged.echo(mark(1)), forged.asks().len()), (None, 1));
}

#[test]
fn a_body_that_cannot_be_read_ends_without_an_effect() {
    let mut known = Known::new(BOT, ConversationState::default());
    let broken = Stored { body: Bytes::from_static(b"{"), ..stored(1, &[asks(1)]).remove(0) };
    known.read(&[broken]);
    assert_eq!((known.asks().len(), known.ending("signal", i64::MAX).deliveries), (0, vec![(1, "signal")]));
}

/// Ten thousand lanes may wait at once, each for as long as a model thinks, and each is a task of this size.
#[test]
fn a_lane_that_waits_is_small() {
    fn size_of_future<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size_of_future(super::lane::run);
    assert!(bytes < 6 * 1024, "{bytes} bytes");
}
