//! Streams: one token an event, usage where it belongs, and the same words however they are cut.

use std::collections::BTreeSet;

use relais_loadtest::fakes::llm::{Behaviour, Chunking, LineEnd, ToolCall, UsageStyle};
use serde_json::{Value, json};

use crate::client::{PATIENCE, ask, fake, post, send};

const CHAT: &str = "/v1/chat/completions";

fn streamed(extra: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": true});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn with_usage() -> Value {
    streamed(&json!({"stream_options": {"include_usage": true}}))
}

fn words(events: &[Value], choice: u64) -> Vec<String> {
    let of_choice = events.iter().filter_map(|event| event["choices"].get(0)).filter(|found| found["index"] == choice);
    of_choice
        .filter_map(|found| found["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_token_is_an_event_and_usage_comes_last_if_asked_for() {
    let llm = fake(Behaviour { answer: Some("You are welcome.".into()), ..Behaviour::default() }).await;
    let events = ask(&llm, CHAT, &with_usage()).await.events();
    assert_eq!(words(&events, 0), ["You ", "are ", "welcome."]);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(before.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!(events.iter().map(|event| event["id"].as_str().unwrap()).collect::<BTreeSet<_>>().len(), 1);

    let unasked = ask(&llm, CHAT, &streamed(&json!({}))).await.events();
    assert!(unasked.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(words(&unasked, 0), ["You ", "are ", "welcome."]);
    assert!(llm.wait_until(|totals| totals.finished == 2, PATIENCE).await);
    assert_eq!(llm.totals().completion_tokens, 6);
}

#[tokio::test]
async fn limits_reasoning_and_choices_hold_in_streams_too() {
    let llm = fake(Behaviour { tokens: 10, reasoning_tokens: 2, ..Behaviour::default() }).await;
    let body = streamed(&json!({"n": 2, "max_tokens": 6, "stream_options": {"include_usage": true}}));
    let events = ask(&llm, CHAT, &body).await.events();
    assert_eq!((words(&events, 0).len(), words(&events, 1).len()), (4, 4));
    let finishes = events.iter().filter(|event| event["choices"][0]["finish_reason"] == "length").count();
    let usage = &events.last().unwrap()["usage"];
    assert_eq!((finishes, &usage["completion_tokens"]), (2, &json!(12)));
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 4);
    assert!(llm.wait_until(|totals| totals.finished == 1, PATIENCE).await);
    assert_eq!(llm.totals().completion_tokens, 12);
}

#[tokio::test]
async fn other_upstreams_put_usage_elsewhere() {
    let llm = fake(Behaviour { tokens: 3, usage: UsageStyle::InLastContent, ..Behaviour::default() }).await;
    let events = ask(&llm, CHAT, &with_usage()).await.events();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(3))
    );

    llm.set(|behaviour| behaviour.usage = UsageStyle::EveryChunk);
    let events = ask(&llm, CHAT, &with_usage()).await.events();
    let running: Vec<_> = events.iter().filter_map(|event| event["usage"]["completion_tokens"].as_u64()).collect();
    assert_eq!(running, [1, 2, 3, 3, 3]);

    llm.set(|behaviour| behaviour.usage = UsageStyle::Absent);
    assert!(ask(&llm, CHAT, &with_usage()).await.events().iter().all(|event| event["usage"].is_null()));

    llm.set(|behaviour| (behaviour.usage, behaviour.usage_unasked) = (UsageStyle::Honest, true));
    let events = ask(&llm, CHAT, &streamed(&json!({}))).await.events();
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn however_the_bytes_are_cut_the_words_are_the_same() {
    let llm = fake(Behaviour { tokens: 40, ..Behaviour::default() }).await;
    let plain = ask(&llm, CHAT, &with_usage()).await;
    let expected = words(&plain.events(), 0);
    let frames = plain.events().len() + 1;
    for (chunking, line_end, comments) in [
        (Chunking::Split { bytes: 1 }, LineEnd::Lf, false),
        (Chunking::Split { bytes: 7 }, LineEnd::Crlf, true),
        (Chunking::Joined { frames: 3 }, LineEnd::Cr, false),
        (Chunking::Odd, LineEnd::Lf, true),
        (Chunking::Frames, LineEnd::Crlf, false),
    ] {
        llm.set(|behaviour| {
            (behaviour.chunking, behaviour.line_end, behaviour.comments) = (chunking, line_end, comments);
        });
        let got = ask(&llm, CHAT, &with_usage()).await;
        assert_eq!(words(&got.events(), 0), expected, "{chunking:?} {line_end:?}");
        match chunking {
            Chunking::Split { bytes: 1 } => assert!(got.pieces > frames * 10, "{} pieces", got.pieces),
            Chunking::Joined { .. } => assert!(got.pieces < frames, "{} pieces", got.pieces),
            _ => {}
        }
        assert_eq!(got.text().contains(": still here"), comments);
        assert_eq!(got.text().contains("\r\n\r\n"), line_end == LineEnd::Crlf);
    }
}

#[tokio::test]
async fn a_tool_call_streams_its_arguments() {
    let tool_call = ToolCall { name: "add_label".into(), arguments: r#"{"label": "late parcel"}"#.into() };
    let llm = fake(Behaviour { tool_call: Some(tool_call), ..Behaviour::default() }).await;
    let tools = json!([{"type": "function", "function": {"name": "add_label"}}]);
    let events = ask(&llm, CHAT, &streamed(&json!({"tools": tools}))).await.events();
    let calls: Vec<_> = events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!(calls[0]["function"]["name"], "add_label");
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, r#"{"label": "late parcel"}"#);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn responses_stream_typed_numbered_events() {
    let llm = fake(Behaviour { tokens: 4, ..Behaviour::default() }).await;
    for (maximum, last, tokens) in [(None, "response.completed", 4), (Some(2), "response.incomplete", 2)] {
        let body = json!({"model": "m", "input": "Hello", "stream": true, "max_output_tokens": maximum});
        let got = ask(&llm, "/v1/responses", &body).await;
        let (events, done) = got.events_and_done();
        assert!(!done, "this dialect has no [DONE]");
        let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        for event in &events {
            assert!(got.text().contains(&format!("event: {}\ndata: ", event["type"].as_str().unwrap())));
        }
        let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
        let end = events.last().unwrap();
        assert_eq!((&end["type"], &end["response"]["usage"]["output_tokens"]), (&json!(last), &json!(tokens)));
        assert_eq!(end["response"]["output"][0]["content"][0]["text"], deltas);
    }
}

#[tokio::test]
async fn text_completions_stream_too() {
    let llm = fake(Behaviour { answer: Some("One two.".into()), ..Behaviour::default() }).await;
    let body = json!({"model": "m", "prompt": "p", "stream": true, "stream_options": {"include_usage": true}});
    let events = ask(&llm, "/v1/completions", &body).await.events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!((text.as_str(), &events.last().unwrap()["usage"]["completion_tokens"]), ("One two.", &json!(2)));
}

#[tokio::test]
async fn gzip_is_sent_to_those_who_accept_it() {
    let llm = fake(Behaviour { gzip: true, tokens: 2, ..Behaviour::default() }).await;
    let plain = ask(&llm, CHAT, &with_usage()).await;
    assert!(!plain.headers.contains_key("content-encoding") && plain.events().len() == 5);
    for body in [with_usage(), json!({"model": "m", "messages": []})] {
        let mut request = post(&llm, CHAT, &body);
        request.headers_mut().insert("accept-encoding", "gzip, br".parse().unwrap());
        let got = send(request).await;
        assert_eq!(got.headers["content-encoding"], "gzip");
        assert!(got.bytes.starts_with(&[0x1f, 0x8b, 8]));
        // Stored blocks: the length of what is inside stands at the end.
        let length = u32::from_le_bytes(got.bytes[got.bytes.len() - 4..].try_into().unwrap()) as usize;
        assert!(length > 0 && length < got.bytes.len());
    }
}
