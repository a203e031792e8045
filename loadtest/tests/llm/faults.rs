//! What goes wrong goes wrong exactly as told, and is booked as what it was.

use std::time::Duration;

use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Fault, FaultKind, Outcome};
use relais_loadtest::http::{ExchangeError, exchange};
use serde_json::{Value, json};

use crate::client::{PATIENCE, ask, fake, post};

const CHAT: &str = "/v1/chat/completions";

fn body(stream: bool) -> Value {
    json!({"model": "m", "messages": [], "stream": stream, "stream_options": {"include_usage": true}})
}

async fn faulty(kind: FaultKind) -> FakeLlm {
    fake(Behaviour { tokens: 10, faults: vec![Fault::next(1, kind)], ..Behaviour::default() }).await
}

async fn ended(llm: &FakeLlm) -> (Outcome, u64) {
    assert!(llm.wait_until(|totals| totals.in_flight == 0, PATIENCE).await, "the call is over");
    let calls = llm.calls();
    let call = calls.last().unwrap();
    (call.outcome, call.completion_tokens)
}

#[tokio::test]
async fn statuses_come_with_body_and_retry_after_and_then_it_is_well_again() {
    let status = FaultKind::Status { status: 429, body: None, retry_after: Some("7".into()) };
    let llm = faulty(status).await;
    let got = ask(&llm, CHAT, &body(true)).await;
    assert_eq!((got.status, &got.headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(got.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(ended(&llm).await, (Outcome::Refused, 0));
    assert_eq!(ask(&llm, CHAT, &body(true)).await.status, 200);

    let status = FaultKind::Status { status: 500, body: Some("<html>oops".into()), retry_after: None };
    llm.set(|behaviour| behaviour.faults = vec![Fault::always(status)]);
    let got = ask(&llm, CHAT, &body(false)).await;
    assert_eq!((got.status, got.text()), (500, "<html>oops"));
}

#[tokio::test]
async fn a_redirect_is_a_redirect() {
    let llm = faulty(FaultKind::Redirect { location: "http://127.0.0.1:9/".into() }).await;
    let got = ask(&llm, CHAT, &body(false)).await;
    assert_eq!((got.status, &got.headers["location"]), (307, &"http://127.0.0.1:9/".parse().unwrap()));
}

#[tokio::test]
async fn a_stream_is_cut_after_exactly_k_tokens() {
    for k in [0, 1, 4] {
        let llm = faulty(FaultKind::CutAfter { tokens: k }).await;
        let got = ask(&llm, CHAT, &body(true)).await;
        let (events, done) = got.events_and_done();
        let words = events
            .iter()
            .filter(|event| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()));
        // What was written just before the break may be lost with the connection; what is booked is not.
        assert!(!got.whole && !done && words.count() as u64 <= k);
        assert_eq!(ended(&llm).await, (Outcome::Broken, k));
    }
}

#[tokio::test]
async fn a_stream_may_end_without_its_end() {
    let llm = faulty(FaultKind::EndAfter { tokens: 4 }).await;
    let got = ask(&llm, CHAT, &body(true)).await;
    let (events, done) = got.events_and_done();
    assert!(got.whole && !done && events.len() == 1 + 4);
    assert_eq!(ended(&llm).await, (Outcome::Broken, 4));
}

#[tokio::test]
async fn an_error_event_ends_a_stream() {
    let llm = faulty(FaultKind::ErrorAfter { tokens: 2 }).await;
    let (events, done) = ask(&llm, CHAT, &body(true)).await.events_and_done();
    assert!(!done && events.len() == 1 + 2 + 1);
    assert_eq!(events.last().unwrap()["error"]["type"], "server_error");
    assert_eq!(ended(&llm).await, (Outcome::Broken, 2));
}

#[tokio::test]
async fn a_bad_frame_does_not_end_a_stream() {
    let llm = faulty(FaultKind::BadJsonAfter { tokens: 2 }).await;
    let got = ask(&llm, CHAT, &body(true)).await;
    let frames: Vec<_> = got.text().split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
    let bad: Vec<_> =
        frames.iter().enumerate().filter(|(_, frame)| serde_json::from_str::<Value>(frame).is_err()).collect();
    assert_eq!(bad, [(3, &r#"{"id":"chatcmpl-1","choices":[{"#), (frames.len() - 1, &"[DONE]")]);

    let llm = faulty(FaultKind::BadUtf8After { tokens: 2 }).await;
    let got = ask(&llm, CHAT, &body(true)).await;
    assert!(std::str::from_utf8(&got.bytes).is_err() && got.bytes.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(ended(&llm).await, (Outcome::Finished, 10));
}

#[tokio::test]
async fn lines_can_be_giant() {
    let llm = faulty(FaultKind::GiantLine { bytes: 3_000_000 }).await;
    let got = ask(&llm, CHAT, &body(true)).await;
    assert!(got.text().lines().next().unwrap().len() > 3_000_000 && got.events().len() > 10);
    llm.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::GiantLine { bytes: 2_000_000 })]);
    let got = ask(&llm, CHAT, &body(false)).await;
    assert!(got.bytes.len() > 2_000_000 && got.json()["object"] == "chat.completion");
}

#[tokio::test]
async fn unary_answers_break_too() {
    let llm = faulty(FaultKind::CutAfter { tokens: 4 }).await;
    let got = ask(&llm, CHAT, &body(false)).await;
    assert!(!got.whole && got.headers.contains_key("content-length"));
    // All of it was generated, though half of it arrived.
    assert_eq!(ended(&llm).await, (Outcome::Broken, 10));

    for (kind, utf8) in [(FaultKind::BadJsonAfter { tokens: 0 }, true), (FaultKind::BadUtf8After { tokens: 0 }, false)]
    {
        let llm = faulty(kind).await;
        let got = ask(&llm, CHAT, &body(false)).await;
        assert!(got.whole && serde_json::from_slice::<Value>(&got.bytes).is_err());
        assert_eq!(std::str::from_utf8(&got.bytes).is_ok(), utf8);
    }
}

#[tokio::test]
async fn it_hangs_up_without_a_word() {
    let llm = faulty(FaultKind::CloseBeforeHead).await;
    let lost = exchange(post(&llm, CHAT, &body(true)), PATIENCE).await;
    assert!(matches!(lost, Err(ExchangeError::Http(_))), "{lost:?}");
    assert_eq!(ended(&llm).await, (Outcome::Broken, 0));
}

#[tokio::test]
async fn it_hangs_until_the_client_gives_up() {
    let llm = faulty(FaultKind::HangBeforeHead).await;
    let lost = exchange(post(&llm, CHAT, &body(false)), Duration::from_millis(50)).await;
    assert!(matches!(lost, Err(ExchangeError::Deadline(_))), "{lost:?}");
    assert_eq!(ended(&llm).await, (Outcome::ClientLeft, 0));
    assert_eq!(llm.calls()[0].status, 0);
}

#[tokio::test]
async fn a_share_of_calls_fails() {
    let status = FaultKind::Status { status: 503, body: None, retry_after: None };
    let llm = fake(Behaviour { faults: vec![Fault::share(500, status)], ..Behaviour::default() }).await;
    for _ in 0..60 {
        ask(&llm, CHAT, &body(false)).await;
    }
    let totals = llm.totals();
    assert_eq!(totals.refused + totals.finished, 60);
    assert!((15..=45).contains(&totals.refused), "{} of 60 at one in two", totals.refused);
}
