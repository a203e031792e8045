//! Counted to the token: what the gateway charges against what the model really generated, under load and faults.
//!
//! The fake model keeps its own count of every token it generated; that is the truth here. Numbers of calls are
//! small enough for every run; `RELAIS_EXACT_CALLS` makes them as many as you have patience for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, Settings};
use serde_json::json;

use crate::support::{DEADLINE, Gateway, KEY, post, toml};

const CHAT: &str = "/v1/chat/completions";

/// A client with a connection of its own, over which calls run beside each other.
type Http2 = Client<HttpConnector, Full<Bytes>>;

fn clients(count: usize) -> Vec<Http2> {
    (0..count).map(|_| Client::builder(TokioExecutor::new()).http2_only(true).build_http()).collect()
}

fn calls(default: usize) -> usize {
    std::env::var("RELAIS_EXACT_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(default)
}

/// splitmix64: every run of a seed is the same run.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn chat(stream: bool, max_tokens: u64) -> String {
    json!({
        "model": "gpt-4o", "stream": stream, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Tell me everything that you sell, in detail, with all the prices."}],
    })
    .to_string()
}

async fn llm() -> FakeLlm {
    FakeLlm::start(Settings { calls_max: 100_000, ..Settings::default() }).await.unwrap()
}

async fn remaining(gateway: &Gateway) -> u64 {
    gateway.get("/v1/models").await.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

/// Nothing is being served, here or there.
async fn quiet(gateway: &Gateway, llm: &FakeLlm) {
    let waiting = async {
        while gateway.metric("relais_requests_in_flight{route=\"chat\"}").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("calls stay in flight");
    assert!(llm.wait_until(|totals| totals.in_flight == 0, DEADLINE).await, "the model goes on: {:?}", llm.totals());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_on_the_last_tokens_spend_no_more_and_nearly_all() {
    const BUDGET: u64 = 40_000;
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (400, 1));
    let overrides = format!("tokens_per_month = {BUDGET}, calls_in_flight = \"unlimited\", calls_per_minute = 1000000");
    let gateway = Gateway::start(&toml(&llm.url(), &overrides, ""));
    let clients = Arc::new(clients(20));
    let public = gateway.public();
    let mut chance = Chance(7);
    let storm: Vec<_> = (0..1_000)
        .map(|number| {
            let (clients, stream, most) = (Arc::clone(&clients), chance.next(2) == 0, 1 + chance.next(300));
            tokio::spawn(async move {
                let request = post(public, CHAT, KEY, chat(stream, most));
                let response = clients[number % clients.len()].request(request).await.unwrap();
                let status = response.status().as_u16();
                (status, response.into_body().collect().await.unwrap().to_bytes())
            })
        })
        .collect();
    let mut served = 0;
    for call in storm {
        let (status, body) = tokio::time::timeout(DEADLINE, call).await.expect("a call hangs").unwrap();
        match status {
            200 => served += 1,
            402 => {}
            other => panic!("{other}: {}", String::from_utf8_lossy(&body)),
        }
    }
    quiet(&gateway, &llm).await;
    // What others had reserved and did not use is there again; small calls take it.
    while gateway.post(CHAT, chat(false, 16)).await.status == 200 {}
    quiet(&gateway, &llm).await;
    let totals = llm.totals();
    let truth = totals.prompt_tokens + totals.completion_tokens;
    let charged = BUDGET - remaining(&gateway).await;
    eprintln!("served {served} of 1000 at once; generated {truth}, charged {charged} of {BUDGET}; {totals:?}");
    assert!(truth <= BUDGET, "overspent: generated {truth} of {BUDGET}");
    assert!((BUDGET * 95 / 100..=BUDGET).contains(&charged), "charged {charged} of {BUDGET}");
    assert!(truth >= BUDGET * 95 / 100, "only {truth} of {BUDGET} could be used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_faults_the_books_are_the_model_s_own() {
    const BUDGET: u64 = 1_000_000_000;
    let calls = calls(2_000);
    let llm = llm().await;
    llm.set(|behaviour| {
        (behaviour.tokens, behaviour.gap_ms) = (40, 1);
        behaviour.faults = vec![
            Fault::share(30, FaultKind::Status { status: 500, body: None, retry_after: None }),
            Fault::share(30, FaultKind::CloseBeforeHead),
            Fault::share(20, FaultKind::CutAfter { tokens: 9 }),
            Fault::share(20, FaultKind::EndAfter { tokens: 5 }),
            Fault::share(20, FaultKind::ErrorAfter { tokens: 7 }),
            Fault::share(10, FaultKind::HangAfter { tokens: 11 }),
        ];
    });
    let overrides =
        format!("tokens_per_month = {BUDGET}, calls_in_flight = \"unlimited\", calls_per_minute = 10000000");
    let gateway = Gateway::start(&toml(&llm.url(), &overrides, "[timeouts]\nstall_ms = 300\n"));
    let clients = Arc::new(clients(10));
    let public = gateway.public();
    let mut chance = Chance(11);
    // One plain call first, so that the estimate of a prompt is learnt.
    let warm = gateway.post(CHAT, chat(false, 40)).await;
    assert!(warm.status == 200 || warm.status.is_server_error());
    let mut left = 0u64;
    // A hundred at a time: on a busy machine more of them let the model write what nobody had time to read.
    for burst in 0..calls.div_ceil(100) {
        let storm: Vec<_> = (0..100.min(calls - burst * 100))
            .map(|number| {
                let clients = Arc::clone(&clients);
                let leaves_after = (chance.next(5) == 0).then(|| chance.next(30));
                left += u64::from(leaves_after.is_some());
                tokio::spawn(async move {
                    let request = post(public, CHAT, KEY, chat(true, 60));
                    let response = clients[number % clients.len()].request(request).await.unwrap();
                    let mut body = response.into_body();
                    let mut frames = 0;
                    while leaves_after.is_none_or(|most| frames <= most) {
                        let Some(Ok(_)) = body.frame().await else { return };
                        frames += 1;
                    }
                })
            })
            .collect();
        for call in storm {
            tokio::time::timeout(DEADLINE, call).await.expect("a call hangs").unwrap();
        }
    }
    quiet(&gateway, &llm).await;
    let totals = llm.totals();
    let truth = totals.prompt_tokens + totals.completion_tokens;
    let charged = BUDGET - remaining(&gateway).await;
    let cut = totals.client_left + totals.broken;
    eprintln!("{calls} calls, {left} clients left; generated {truth}, charged {charged}, cut {cut}; {totals:?}");
    assert!(cut > calls as u64 / 20, "too few cut streams to prove anything: {totals:?}");
    assert!(charged.abs_diff(truth) <= 5 * cut, "charged {charged}, generated {truth}, {cut} cut streams");
}
