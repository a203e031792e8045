//! `POST /v1/chat/completions` and `GET /v1/models`, from a client's side.

use std::time::Duration;

use http_body_util::BodyExt as _;
use relais_gateway::clock::Clock;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, Outcome, Settings, UsageStyle};
use serde_json::json;

use crate::support::{DEADLINE, Gateway, KEY, events, get, post, toml};

const CHAT: &str = "/v1/chat/completions";
/// 2026-11-10T00:00:00Z.
const NOW_MS: i64 = 1_794_268_800_000;

fn chat(stream: bool, more: serde_json::Value) -> String {
    let mut body = json!({
        "model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "What do you sell, please?"}],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

async fn llm() -> FakeLlm {
    FakeLlm::start(Settings::default()).await.unwrap()
}

/// What a tenant has left of its tokens, as it is told.
async fn tokens_left(gateway: &Gateway) -> u64 {
    gateway.get("/v1/models").await.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

/// Waits until it is so; fails if it never is.
async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn an_answer_comes_through_byte_for_byte_and_is_charged() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    let answer = gateway.post(CHAT, chat(false, json!({"seed": 7, "x_unknown": {"a": [1, 2]}}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let usage = answer.json()["usage"].clone();
    let total = usage["total_tokens"].as_u64().unwrap();
    assert_eq!(tokens_left(&gateway).await, 20_000 - total);
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("20000"));
    let call = &llm.calls()[0];
    assert_eq!(call.model, "llama", "the alias was not translated");
    assert!(call.body.contains(r#""seed":7"#) && call.body.contains(r#""x_unknown":{"a":[1,2]}"#), "{}", call.body);
    assert_eq!(gateway.metric("relais_requests_total{outcome=\"ok\",route=\"chat\"}").await, 1.0);
    assert_eq!(
        gateway.metric("relais_tokens_total{direction=\"input\"}").await,
        usage["prompt_tokens"].as_f64().unwrap()
    );
}

#[tokio::test]
async fn a_stream_hides_the_usage_it_was_not_asked_for_and_charges_by_it() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    let plain = gateway.post(CHAT, chat(true, json!({}))).await;
    let frames = events(&plain.text());
    assert_eq!(frames.last().unwrap(), "[DONE]");
    assert!(frames.iter().all(|frame| !frame.contains("\"choices\":[]")), "{frames:?}");
    assert!(llm.calls()[0].body.contains("\"include_usage\":true"));
    let call = &llm.calls()[0];
    eventually("charged", || async {
        tokens_left(&gateway).await == 20_000 - call.prompt_tokens - call.completion_tokens
    })
    .await;
    let asked = gateway.post(CHAT, chat(true, json!({"stream_options": {"include_usage": true}}))).await;
    let frames = events(&asked.text());
    let usage: serde_json::Value = serde_json::from_str(&frames[frames.len() - 2]).unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn every_wrong_key_gets_the_same_answer() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "", ""));
    let mut bodies = std::collections::HashSet::new();
    let mangled = KEY.replace("abcdef", "abcdee");
    let unknown = KEY.replace("000000000001", "000000000002");
    for key in ["", "nonsense", &mangled, &unknown, &KEY[..KEY.len() - 1], &format!("{KEY}x")] {
        let answer = gateway.call(post(gateway.public(), CHAT, key, chat(false, json!({})))).await;
        assert_eq!(answer.status, 401, "{key}");
        assert_eq!(answer.code(), "invalid_api_key");
        bodies.insert(answer.body);
    }
    assert_eq!(bodies.len(), 1);
    let none = http::Request::post(format!("http://{}{CHAT}", gateway.public())).body(Default::default()).unwrap();
    assert_eq!(gateway.call(none).await.status, 401);
    assert!(llm.calls().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name_and_costs_no_call() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "calls_per_month = 5", ""));
    for (body, words) in [
        ("{", "JSON"),
        ("{\"messages\":[]}", "\"model\" is missing"),
        ("{\"model\":\"a\",\"Model\":\"b\"}", "lower case"),
        ("{\"model\":\"a\",\"max_tokens\":-4}", "max_tokens"),
    ] {
        let answer = gateway.post(CHAT, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"), "{body}");
        assert!(answer.text().contains(&words.replace('"', "\\\"")), "{}", answer.text());
    }
    let calls = gateway.get("/v1/models").await;
    assert!(calls.header("ratelimit").unwrap().contains("\"calls\";r=5"), "{:?}", calls.headers);
    let large = gateway.post(CHAT, vec![b' '; 17 << 20]).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "request_too_large"));
    let unknown = gateway.get("/v1/nothing").await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "unknown_route"));
    assert_eq!(gateway.get(CHAT).await.status, 405);
}

#[tokio::test]
async fn calls_per_minute_are_enforced_and_the_wait_is_told_exactly() {
    let llm = llm().await;
    let clock = Clock::manual(NOW_MS);
    let gateway = Gateway::start_at(&toml(&llm.url(), "calls_per_minute = 3", ""), clock.clone());
    for _ in 0..3 {
        assert_eq!(gateway.post(CHAT, chat(false, json!({}))).await.status, 200);
    }
    let limited = gateway.post(CHAT, chat(false, json!({}))).await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "rate_limited"));
    assert_eq!(limited.header("retry-after-ms"), Some("20001"));
    assert_eq!(limited.header("retry-after"), Some("21"));
    assert_eq!(limited.header("x-ratelimit-remaining-requests"), Some("0"));
    clock.advance(Duration::from_millis(20_001));
    assert_eq!(gateway.post(CHAT, chat(false, json!({}))).await.status, 200);
    assert_eq!(gateway.metric("relais_denials_total{reason=\"rate_limited\"}").await, 1.0);
}

#[tokio::test]
async fn a_spent_month_is_not_retried_and_comes_back_with_the_period() {
    let llm = llm().await;
    let clock = Clock::manual(NOW_MS);
    let gateway = Gateway::start_at(&toml(&llm.url(), "calls_per_month = 2", ""), clock.clone());
    for _ in 0..2 {
        assert_eq!(gateway.post(CHAT, chat(false, json!({}))).await.status, 200);
    }
    let spent = gateway.post(CHAT, chat(false, json!({}))).await;
    assert_eq!((spent.status.as_u16(), spent.code().as_str()), (429, "quota_exceeded"));
    assert_eq!(spent.header("x-should-retry"), Some("false"));
    assert_eq!(spent.header("retry-after"), None);
    clock.advance(Duration::from_secs(21 * 86_400));
    assert_eq!(gateway.post(CHAT, chat(false, json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_budget_clamps_what_it_cannot_cover_and_then_refuses() {
    let llm = llm().await;
    llm.set(|behaviour| behaviour.tokens = 10_000);
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 600", ""));
    let answer = gateway.post(CHAT, chat(false, json!({"max_tokens": 5000}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
    let used = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!((400..=600).contains(&used), "{used}");
    let mut last = gateway.post(CHAT, chat(false, json!({}))).await;
    while last.status == 200 {
        last = gateway.post(CHAT, chat(false, json!({}))).await;
    }
    assert_eq!((last.status.as_u16(), last.code().as_str()), (402, "token_budget_exhausted"));
    assert_eq!(last.header("x-should-retry"), Some("false"));
    let totals = llm.totals();
    assert!(totals.prompt_tokens + totals.completion_tokens <= 600, "overspent: {totals:?}");
}

#[tokio::test]
async fn streams_that_outgrow_the_budget_end_cleanly_and_the_model_is_stopped() {
    let llm = llm().await;
    // A hundred times what there is, slowly: whoever is not stopped is seen to go on.
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (100_000, 1));
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 2000", ""));
    let (one, two) = tokio::join!(
        gateway.post(CHAT, chat(true, json!({"stream_options": {"include_usage": true}}))),
        gateway.post(CHAT, chat(true, json!({"stream_options": {"include_usage": true}}))),
    );
    for answer in [&one, &two] {
        let frames = events(&answer.text());
        assert_eq!(frames.last().unwrap(), "[DONE]");
        let end: serde_json::Value = serde_json::from_str(&frames[frames.len() - 3]).unwrap();
        assert_eq!(end["choices"][0]["finish_reason"], "length", "{frames:?}");
    }
    assert!(llm.wait_until(|totals| totals.in_flight == 0, DEADLINE).await, "a stream runs on: {:?}", llm.totals());
    let spent = llm.totals().prompt_tokens + llm.totals().completion_tokens;
    // What was on its way when the streams were cut was generated, but not delivered.
    assert!((1_900..=2_100).contains(&spent), "{spent}");
    eventually("spent", || async { tokens_left(&gateway).await < 100 }).await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_model_and_pays_for_what_was_generated() {
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (100_000, 2));
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    let response = gateway.send(post(gateway.public(), CHAT, KEY, chat(true, json!({})))).await;
    let mut body = response.into_body();
    for _ in 0..20 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert!(llm.wait_until(|totals| totals.client_left == 1, DEADLINE).await, "the model was not stopped");
    let call = llm.calls().pop().unwrap();
    assert_eq!(call.outcome, Outcome::ClientLeft);
    let truth = call.prompt_tokens + call.completion_tokens;
    eventually("charged", || async { tokens_left(&gateway).await < 20_000 - truth / 2 }).await;
    let charged = 20_000 - tokens_left(&gateway).await;
    // The prompt is an estimate, and a few tokens were under way.
    assert!(charged.abs_diff(truth) <= 40, "charged {charged}, generated {truth}");
    eventually("counted", || async {
        gateway.metric("relais_requests_total{outcome=\"client_left\",route=\"chat\"}").await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_model_that_fails_costs_nothing_and_is_told_apart() {
    let llm = llm().await;
    let clock = Clock::manual(NOW_MS);
    let written = toml(&llm.url(), "tokens_per_month = 20000, calls_per_month = 5", "");
    let gateway = Gateway::start_at(&written, clock.clone());
    let status = |status| FaultKind::Status { status, body: None, retry_after: Some("7".to_owned()) };
    for (kind, expected, code) in [
        (status(500), 502, "upstream_failed"),
        (status(429), 503, "upstream_busy"),
        (status(401), 502, "upstream_failed"),
        (FaultKind::Redirect { location: "http://127.0.0.1:1/".to_owned() }, 502, "upstream_failed"),
        (FaultKind::CloseBeforeHead, 502, "upstream_failed"),
    ] {
        llm.set(|behaviour| behaviour.faults = vec![Fault::always(kind.clone())]);
        let answer = gateway.post(CHAT, chat(true, json!({}))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (expected, code), "{kind:?}");
        if code == "upstream_busy" {
            assert_eq!(answer.header("retry-after"), Some("7"));
        }
        // It rests as it asked for, and is asked again after that.
        clock.advance(Duration::from_secs(60));
    }
    llm.set(|behaviour| {
        behaviour.faults = vec![Fault::always(FaultKind::Status {
            status: 400,
            body: Some("{\"error\":1}".into()),
            retry_after: None,
        })];
    });
    let refused = gateway.post(CHAT, chat(false, json!({}))).await;
    assert_eq!((refused.status.as_u16(), refused.text().as_str()), (400, "{\"error\":1}"));
    let left = gateway.get("/v1/models").await;
    assert!(left.header("ratelimit").unwrap().contains("\"calls\";r=5"), "{:?}", left.headers);
    assert_eq!(left.header("x-ratelimit-remaining-tokens"), Some("20000"));
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_one_error_event_without_done() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    for kind in
        [FaultKind::CutAfter { tokens: 5 }, FaultKind::EndAfter { tokens: 5 }, FaultKind::GiantLine { bytes: 3 << 20 }]
    {
        llm.set(|behaviour| behaviour.faults = vec![Fault::always(kind.clone())]);
        let frames = events(&gateway.post(CHAT, chat(true, json!({}))).await.text());
        let last: serde_json::Value = serde_json::from_str(frames.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "upstream_failed", "{kind:?}: {frames:?}");
        assert!(!frames.contains(&"[DONE]".to_owned()));
    }
}

#[tokio::test]
async fn usage_that_lies_is_bounded() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 2000000", ""));
    for (style, most) in
        [(UsageStyle::Huge, 200), (UsageStyle::Negative, 200), (UsageStyle::Absent, 200), (UsageStyle::Zero, 0)]
    {
        llm.set(|behaviour| behaviour.usage = style.clone());
        for stream in [false, true] {
            let before = tokens_left(&gateway).await;
            assert_eq!(gateway.post(CHAT, chat(stream, json!({"max_tokens": 50}))).await.status, 200);
            eventually("settled", || async {
                gateway.metric("relais_requests_in_flight{route=\"chat\"}").await == 0.0
            })
            .await;
            let charged = before - tokens_left(&gateway).await;
            assert!(charged <= most, "{style:?} stream {stream}: {charged}");
            assert_eq!(charged == 0, style == UsageStyle::Zero, "{style:?} stream {stream}: {charged}");
        }
    }
}

#[tokio::test]
async fn a_plan_without_the_api_is_told_so() {
    let llm = llm().await;
    let more = r#"
        [[tenant]]
        id = "small"
        plans = ["app.starter"]
        [[tenant.key]]
        name = "k"
        secret = "rk_test_000000000002_0123456789abcdef0123456789abcdef"
        models = ["llama"]
    "#;
    let gateway = Gateway::start(&toml(&llm.url(), "", more));
    let key = "rk_test_000000000002_0123456789abcdef0123456789abcdef";
    let answer = gateway.call(post(gateway.public(), CHAT, key, chat(false, json!({})))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "feature_not_in_plan"));
}

#[tokio::test]
async fn models_are_those_that_are_named() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "", ""));
    let list = gateway.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "gpt-4o");
    assert_eq!(gateway.get("/v1/models/gpt-4o").await.json()["object"], "model");
    assert_eq!(gateway.get("/v1/models/other").await.code(), "model_not_found");
}

#[tokio::test]
async fn http_2_by_prior_knowledge_is_served() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "", ""));
    let client: hyper_util::client::legacy::Client<_, http_body_util::Full<bytes::Bytes>> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).http2_only(true).build_http();
    let response = client.request(post(gateway.public(), CHAT, KEY, chat(true, json!({})))).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_drain_finishes_what_is_open_and_takes_nothing_more() {
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (50, 5));
    let gateway = Gateway::start(&toml(&llm.url(), "", ""));
    let (public, admin) = (gateway.public(), gateway.inner().admin);
    let mut body = gateway.send(post(public, CHAT, KEY, chat(true, json!({})))).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(gateway.call(get(admin, "/readyz", "")).await.status, 200);
    let reading = tokio::spawn(async move { body.collect().await.unwrap().to_bytes() });
    gateway.stop().await;
    let rest = reading.await.unwrap();
    assert!(String::from_utf8_lossy(&rest).ends_with("data: [DONE]\n\n"));
    assert!(tokio::net::TcpStream::connect(public).await.is_err(), "it still accepts");
}
