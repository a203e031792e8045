//! Deliveries as no Chatwoot sends them: every value of another type, every byte another.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::message_created;
use crate::chatwoot::event::{self, Parsed};

/// Without these a delivery is about nothing.
const DEMANDED: [&str; 6] = ["/event", "/id", "/account", "/account/id", "/conversation", "/conversation/id"];

fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(keys) => keys.iter().map(|(key, child)| (format!("{at}/{key}"), child)).collect(),
        Value::Array(entries) => entries.iter().enumerate().map(|(n, child)| (format!("{at}/{n}"), child)).collect(),
        _ => Vec::new(),
    };
    for (pointer, child) in children {
        pointers(child, &pointer, found);
        found.push(pointer);
    }
}

#[test]
fn no_field_but_the_ids_can_make_a_delivery_unreadable() {
    let mut found = Vec::new();
    pointers(&message_created(), "", &mut found);
    assert!(found.len() > 50, "{found:?}");
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!([[]]),
        json!({ "id": {} }),
    ];
    for pointer in found.iter().filter(|pointer| !DEMANDED.contains(&pointer.as_str())) {
        for value in &strange {
            let mut body = message_created();
            *body.pointer_mut(pointer).unwrap() = value.clone();
            let parsed = event::parse(body.to_string().as_bytes());
            assert!(matches!(parsed, Ok(Parsed::Event(_))), "{pointer} as {value}: {parsed:?}");
        }
        let mut body = message_created();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match body.pointer_mut(parent).unwrap() {
            Value::Object(keys) => drop(keys.remove(key)),
            Value::Array(entries) => drop(entries.remove(key.parse().unwrap())),
            _ => unreachable!(),
        }
        let parsed = event::parse(body.to_string().as_bytes());
        assert!(matches!(parsed, Ok(Parsed::Event(_))), "without {pointer}: {parsed:?}");
    }
}

#[test]
fn depth_does_not_overflow_the_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for place in ["labels", "meta", "messages", "status", "unknown"] {
        let body = format!(r#"{{"event":"conversation_opened","account":{{"id":1}},"id":2,"{place}":{deep}}}"#);
        assert!(event::parse(body.as_bytes()).is_ok_and(|parsed| matches!(parsed, Parsed::Event(_))), "{place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Reading ends in a value or an error, whatever bytes change; and what is read is bounded by what came.
    #[test]
    fn no_bytes_make_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut: prop::sample::Index) {
        let mut body = message_created().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let whole = event::parse(&body);
        body.truncate(cut.index(body.len()));
        // A truncated object is never taken for a whole one.
        prop_assert!(event::parse(&body).is_err());
        if let Ok(Parsed::Event(event)) = whole {
            prop_assert!(event.message.is_some());
        }
    }
}
