//! A client that leaves is noticed, wherever the call stands, and only what was generated is booked.

use std::time::Duration;

use http_body_util::BodyExt;
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Fault, FaultKind, Outcome};
use relais_loadtest::http::exchange;
use serde_json::{Value, json};

use crate::client::{PATIENCE, fake, post};

const CHAT: &str = "/v1/chat/completions";

fn body(stream: bool) -> Value {
    json!({"model": "m", "messages": [], "stream": stream, "user": "acme"})
}

/// Reads a stream until `text` has come, then leaves.
async fn read_until(llm: &FakeLlm, text: &str) {
    let mut stream = exchange(post(llm, CHAT, &body(true)), PATIENCE).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = tokio::time::timeout(PATIENCE, stream.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

async fn left(llm: &FakeLlm) -> u64 {
    assert!(llm.wait_until(|totals| totals.client_left == 1, PATIENCE).await, "{:?}", llm.totals());
    let call = llm.calls().remove(0);
    assert_eq!((call.outcome, llm.totals().in_flight), (Outcome::ClientLeft, 0));
    assert_eq!(llm.truth().by_user["acme"].client_left, 1);
    call.completion_tokens
}

#[tokio::test]
async fn in_the_middle_of_a_paced_stream() {
    // Ten seconds long if nobody noticed: the wait for the books is longer, the figures are not.
    let answer = (1..=1000).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    let llm = fake(Behaviour { answer: Some(answer), gap_ms: 10, ..Behaviour::default() }).await;
    read_until(&llm, "w5 ").await;
    let tokens = left(&llm).await;
    assert!((5..1000).contains(&tokens), "{tokens} tokens");
}

#[tokio::test]
async fn in_a_stream_that_hangs() {
    let faults = vec![Fault::always(FaultKind::HangAfter { tokens: 3 })];
    let llm = fake(Behaviour { answer: Some("a b c d e".into()), faults, ..Behaviour::default() }).await;
    read_until(&llm, "\"c \"").await;
    assert_eq!(left(&llm).await, 3);
}

#[tokio::test]
async fn in_a_stream_faster_than_the_client_reads() {
    // Far more than the buffers between us hold: it stops generating when nobody reads.
    let llm = fake(Behaviour { tokens: 1_000_000, ..Behaviour::default() }).await;
    read_until(&llm, "parcel").await;
    let tokens = left(&llm).await;
    assert!((1..1_000_000).contains(&tokens), "{tokens} tokens");
}

#[tokio::test]
async fn while_a_unary_answer_is_generated() {
    let llm = fake(Behaviour { tokens: 1000, gap_ms: 10, ..Behaviour::default() }).await;
    let request = exchange(post(&llm, CHAT, &body(false)), PATIENCE);
    tokio::select! {
        _ = request => panic!("it takes ten seconds"),
        _ = llm.wait_until(|totals| totals.in_flight == 1, PATIENCE) => {}
    }
    assert!(left(&llm).await < 1000);
}

#[tokio::test]
async fn right_after_the_end_is_not_leaving() {
    let llm = fake(Behaviour::default()).await;
    read_until(&llm, "data: [DONE]").await;
    assert!(llm.wait_until(|totals| totals.in_flight == 0, PATIENCE).await);
    assert_eq!((llm.totals().finished, llm.totals().client_left), (1, 0));
}

#[tokio::test]
async fn stopping_the_fake_breaks_every_stream() {
    let llm = fake(Behaviour { tokens: 1000, gap_ms: 10, ..Behaviour::default() }).await;
    let mut stream = exchange(post(&llm, CHAT, &body(true)), PATIENCE).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    llm.stop().await;
    let broken = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(frame) = stream.frame().await {
            if frame.is_err() {
                return true;
            }
        }
        false
    });
    assert!(broken.await.unwrap(), "the stream broke rather than ended");
}
