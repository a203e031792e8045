//! The other endpoints of `/v1`, and what is the same for all: headers, methods, errors, browsers.

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use relais_gateway::clock::Clock;
use relais_gateway::error::Reason;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, LineEnd, Settings, UsageStyle};
use serde_json::{Value, json};

use crate::support::{Answer, DEADLINE, Gateway, KEY, get, post, toml};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
/// 2026-11-10T00:00:00Z; the period began on the 1st and ends 21 days later.
const NOW_MS: i64 = 1_794_268_800_000;
const UNTIL_RESET_MS: u64 = 21 * 86_400_000;

async fn llm() -> FakeLlm {
    FakeLlm::start(Settings::default()).await.unwrap()
}

/// A request for an endpoint, as its clients write it, with more fields.
fn ask(path: &str, more: Value) -> String {
    let prompt = "What do you sell, please? Tell me all about it.";
    let mut body = match path {
        CHAT => json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]}),
        RESPONSES => json!({"model": "gpt-4o", "input": prompt}),
        COMPLETIONS => json!({"model": "gpt-4o", "prompt": prompt}),
        _ => json!({"model": "gpt-4o", "input": [prompt, "And how do you send it?"]}),
    };
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

/// The events of a stream: the name, if it has one, and the data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = answer.text();
    let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let data = field(event, "data: ").unwrap_or_default();
            (field(event, "event: ").unwrap_or_default(), serde_json::from_str(&data).unwrap_or(Value::from(data)))
        })
        .collect()
}

async fn limits(gateway: &Gateway) -> Value {
    gateway.get("/v1/limits").await.json()
}

/// Waits until no call runs, and gives the budget tokens spent.
async fn spent(gateway: &Gateway) -> u64 {
    let waiting = async {
        loop {
            let limits = limits(gateway).await;
            if limits["remaining"]["calls_in_flight"]["running"] == 0 {
                assert_eq!(limits["remaining"]["tokens"]["reserved"], 0);
                return limits["remaining"]["tokens"]["spent"].as_u64().unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("a call never ends")
}

fn generated(llm: &FakeLlm) -> u64 {
    llm.totals().prompt_tokens + llm.totals().completion_tokens
}

#[tokio::test]
async fn every_endpoint_is_passed_through_and_charged_what_the_provider_tells() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000, calls_per_month = 10", ""));
    for (number, path) in [CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS].into_iter().enumerate() {
        let answer = gateway.post(path, ask(path, json!({"x_unknown": {"a": [1, 2]}, "user": "u1"}))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let call = llm.calls().pop().unwrap();
        assert_eq!((call.path, call.model.as_str()), (path, "llama"));
        assert!(call.body.contains(r#""x_unknown":{"a":[1,2]}"#), "{path}: {}", call.body);
        assert_eq!(call.completion_tokens == 0, path == EMBEDDINGS);
        assert_eq!(spent(&gateway).await, generated(&llm), "{path}");
        let calls = limits(&gateway).await["remaining"]["calls_per_month"]["remaining"].clone();
        assert_eq!(calls, 9 - number, "{path} is a call like any other");
    }
    let page = gateway.metrics().await;
    for route in ["chat", "responses", "completions", "embeddings"] {
        assert!(page.contains(&format!("relais_requests_total{{outcome=\"ok\",route=\"{route}\"}} 1")), "{route}");
    }
}

#[tokio::test]
async fn streams_of_every_dialect_pass_whole_and_are_charged() {
    let llm = llm().await;
    for line_end in [LineEnd::Lf, LineEnd::Crlf] {
        llm.set(|behaviour| behaviour.line_end = line_end);
        for path in [CHAT, RESPONSES, COMPLETIONS] {
            let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = \"unlimited\"", ""));
            llm.forget();
            let direct = relais_loadtest::http::exchange(
                Request::post(format!("{}{path}", llm.url()))
                    .body(Full::from(ask(path, json!({"stream": true, "model": "llama"}))))
                    .unwrap(),
                DEADLINE,
            );
            let direct = direct.await.unwrap().into_body().collect().await.unwrap().to_bytes();
            let through = gateway.post(path, ask(path, json!({"stream": true}))).await;
            assert_eq!(through.header("content-type"), Some("text/event-stream; charset=utf-8"));
            assert!(through.header("x-ratelimit-remaining-requests").is_some());
            // Ids and times go on, and the usage is on its way but not shown: all else is the same, byte for byte.
            let plain = |bytes: &[u8]| {
                let text = String::from_utf8_lossy(bytes).replace("],\"usage\":null", "]");
                let pieces: Vec<&str> = text.split_inclusive(|c: char| !c.is_ascii_digit()).collect();
                pieces.into_iter().map(|piece| if piece.len() > 9 { "#" } else { piece }).collect::<String>()
            };
            assert_eq!(plain(&through.body), plain(&direct), "{path}");
            let call = llm.calls().pop().unwrap();
            assert_eq!(spent(&gateway).await, call.prompt_tokens + call.completion_tokens, "{path}");
        }
    }
}

#[tokio::test]
async fn what_only_concerns_the_upstream_goes_there_untouched() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = \"unlimited\"", ""));
    let body = r#"{"model":"llama", "previous_response_id" : "resp_1","store":false,"input":[{"role":"user","content":"hi"}],"include":[] }"#;
    assert_eq!(gateway.post(RESPONSES, body).await.status, 200);
    assert_eq!(llm.calls()[0].body, body);
}

#[tokio::test]
async fn a_background_response_is_refused_and_costs_nothing() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "calls_per_month = 5, tokens_per_month = 1000", ""));
    let answer = gateway.post(RESPONSES, ask(RESPONSES, json!({"background": true}))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "unsupported_parameter"));
    assert_eq!(answer.json()["error"]["param"], "background");
    assert!(answer.header("ratelimit").unwrap().contains("\"calls\";r=5"), "{:?}", answer.headers);
    assert!(llm.calls().is_empty());
}

#[tokio::test]
async fn a_unary_answer_is_clamped_in_the_endpoint_s_own_field() {
    let llm = llm().await;
    llm.set(|behaviour| behaviour.tokens = 10_000);
    for (path, field, end) in [
        (CHAT, "max_tokens", "/choices/0/finish_reason"),
        (RESPONSES, "max_output_tokens", "/incomplete_details/reason"),
        (COMPLETIONS, "max_tokens", "/choices/0/finish_reason"),
    ] {
        let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 600", ""));
        llm.forget();
        let answer = gateway.post(path, ask(path, json!({field: 5000}))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let why = answer.json().pointer(end).cloned().unwrap();
        assert_eq!(why, if path == RESPONSES { "max_output_tokens" } else { "length" });
        let asked: Value = serde_json::from_str(&llm.calls()[0].body).unwrap();
        assert!((400..600).contains(&asked[field].as_u64().unwrap()), "{path}: {}", asked[field]);
        let mut last = answer;
        while last.status == 200 {
            last = gateway.post(path, ask(path, json!({}))).await;
        }
        assert_eq!((last.status.as_u16(), last.code().as_str()), (402, "token_budget_exhausted"));
        assert!(generated(&llm) <= 600, "{path} overspent: {:?}", llm.totals());
        assert_eq!(spent(&gateway).await, generated(&llm));
    }
}

#[tokio::test]
async fn a_limit_of_another_endpoint_s_name_neither_limits_nor_cheapens() {
    let llm = llm().await;
    llm.set(|behaviour| behaviour.tokens = 300);
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    // The fake obeys any of the three names; a provider obeys its own. So the foreign one must be seen to arrive as
    // it was, and the charge to follow the provider's word.
    for (path, foreign) in [(CHAT, "max_output_tokens"), (RESPONSES, "max_tokens")] {
        let before = spent(&gateway).await;
        let answer = gateway.post(path, ask(path, json!({foreign: 250}))).await;
        assert_eq!(answer.status, 200);
        let asked: Value = serde_json::from_str(&llm.calls().pop().unwrap().body).unwrap();
        assert_eq!(asked[foreign], 250);
        let call = llm.calls().pop().unwrap();
        assert_eq!(spent(&gateway).await - before, call.prompt_tokens + call.completion_tokens);
    }
}

#[tokio::test]
async fn every_prompt_of_a_completion_and_every_answer_is_reserved_for() {
    let llm = llm().await;
    llm.set(|behaviour| behaviour.tokens = 10_000);
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 2000", ""));
    let body = ask(COMPLETIONS, json!({"prompt": ["one", "two", "three", "four"], "n": 2, "best_of": 3}));
    let answer = gateway.post(COMPLETIONS, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"].as_array().unwrap().len(), 8);
    let asked: Value = serde_json::from_str(&llm.calls()[0].body).unwrap();
    let each = asked["max_tokens"].as_u64().unwrap();
    assert!((1..=2000 / 12).contains(&each), "{each} tokens for each of twelve");
    assert!((1500..=2000).contains(&generated(&llm)), "{:?}", llm.totals());
    assert_eq!(spent(&gateway).await, generated(&llm));
}

#[tokio::test]
async fn embeddings_pay_for_their_input_and_reserve_no_output() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 200", ""));
    let answer = gateway.post(EMBEDDINGS, ask(EMBEDDINGS, json!({"encoding_format": "base64"}))).await;
    assert_eq!(answer.status, 200, "a reserve for output would not have fitted: {}", answer.text());
    assert!(answer.json()["data"][1]["embedding"].is_string());
    assert!(!llm.calls()[0].body.contains("max_"), "{}", llm.calls()[0].body);
    let first = spent(&gateway).await;
    assert_eq!(first, answer.json()["usage"]["prompt_tokens"].as_u64().unwrap());

    llm.set(|behaviour| behaviour.usage = UsageStyle::Absent);
    let untold = gateway.post(EMBEDDINGS, ask(EMBEDDINGS, json!({}))).await;
    assert_eq!(untold.status, 200);
    let charged = spent(&gateway).await - first;
    assert!((1..=150).contains(&charged), "only the input, estimated: {charged}");
}

#[tokio::test]
async fn streams_that_outgrow_the_budget_end_in_their_own_protocol() {
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (100_000, 1));
    for path in [RESPONSES, COMPLETIONS] {
        // Two at once: each takes from what the other was told it could have, so both outgrow it.
        let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 1500", ""));
        llm.forget();
        let more = json!({"stream": true, "stream_options": {"include_usage": true}});
        let (one, two) =
            tokio::join!(gateway.post(path, ask(path, more.clone())), gateway.post(path, ask(path, more.clone())));
        for answer in [&one, &two] {
            let events = events(answer);
            if path == RESPONSES {
                let (name, last) = events.last().unwrap();
                assert_eq!(name, "response.incomplete");
                let response = &last["response"];
                assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
                assert_eq!((&response["status"], &response["model"]), (&json!("incomplete"), &json!("llama")));
                assert!(response["usage"]["output_tokens"].as_u64().unwrap() > 100, "{}", response["usage"]);
                let said: String = events
                    .iter()
                    .filter(|(name, _)| name == "response.output_text.delta")
                    .map(|(_, data)| data["delta"].as_str().unwrap())
                    .collect();
                assert_eq!(response["output"][0]["content"][0]["text"], said);
                let numbers: Vec<u64> =
                    events.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
                assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "{numbers:?}");
            } else {
                let [.., (_, end), (_, usage), (_, done)] = events.as_slice() else { panic!("{events:?}") };
                assert_eq!(done, "[DONE]");
                assert_eq!(
                    (&end["object"], &end["choices"][0]["finish_reason"]),
                    (&json!("text_completion"), &json!("length"))
                );
                assert!(usage["usage"]["completion_tokens"].as_u64().unwrap() > 100);
            }
        }
        assert!(llm.wait_until(|totals| totals.in_flight == 0, DEADLINE).await, "runs on: {:?}", llm.totals());
        let spent = spent(&gateway).await;
        assert!((1_400..=1_500).contains(&spent), "{path}: {spent}");
        assert!(generated(&llm).abs_diff(spent) <= 40, "{path}: spent {spent}, {:?}", llm.totals());
    }
}

#[tokio::test]
async fn a_broken_stream_ends_in_one_error_of_its_own_protocol() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    for kind in [
        FaultKind::CutAfter { tokens: 5 },
        FaultKind::EndAfter { tokens: 5 },
        FaultKind::BadJsonAfter { tokens: 5 },
        FaultKind::BadUtf8After { tokens: 5 },
        FaultKind::ErrorAfter { tokens: 5 },
    ] {
        llm.set(|behaviour| behaviour.faults = vec![Fault::always(kind.clone())]);
        for path in [CHAT, RESPONSES, COMPLETIONS] {
            let before = spent(&gateway).await;
            let events = events(&gateway.post(path, ask(path, json!({"stream": true}))).await);
            let errors: Vec<&Value> =
                events.iter().map(|(_, data)| data).filter(|data| data["error"].is_object()).collect();
            assert_eq!(errors.len(), 1, "{path} {kind:?}: {events:?}");
            assert_eq!(&events.last().unwrap().1, errors[0], "{path} {kind:?}");
            if !matches!(kind, FaultKind::ErrorAfter { .. }) {
                assert_eq!(errors[0]["error"]["code"], "upstream_failed");
                assert_eq!(events.last().unwrap().0, if path == RESPONSES { "error" } else { "" });
            }
            let call = llm.calls().pop().unwrap();
            let charged = spent(&gateway).await - before;
            assert!(charged.abs_diff(call.prompt_tokens + 5) <= 40, "{path} {kind:?}: {charged} for {call:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_usage_is_measured_by_its_words() {
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.usage, behaviour.answer) = (UsageStyle::Absent, Some("1234567 ".repeat(50))));
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000", ""));
    for path in [CHAT, RESPONSES, COMPLETIONS] {
        let before = spent(&gateway).await;
        assert_eq!(gateway.post(path, ask(path, json!({}))).await.status, 200);
        let charged = spent(&gateway).await - before;
        // 400 bytes are some 100 tokens; the prompt a few more.
        assert!((100..=160).contains(&charged), "{path}: {charged}");
    }
}

#[tokio::test]
async fn a_key_s_models_hold_on_every_endpoint() {
    let llm = llm().await;
    let key = "rk_test_000000000002_0123456789abcdef0123456789abcdef";
    let more = format!("[[tenant.key]]\nname = \"small\"\nsecret = \"{key}\"\nmodels = [\"tiny*\"]");
    let gateway = Gateway::start(&toml(&llm.url(), "", &more));
    for path in [CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS] {
        let answer = gateway.call(post(gateway.public(), path, key, ask(path, json!({})))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "model_not_allowed"), "{path}");
        let allowed = gateway.call(post(gateway.public(), path, key, ask(path, json!({"model": "tiny-1"})))).await;
        assert_eq!(allowed.status, 200, "{path}");
    }
    let limits = gateway.call(get(gateway.public(), "/v1/limits", key)).await.json();
    assert_eq!((&limits["key"]["name"], &limits["key"]["models"]), (&json!("small"), &json!(["tiny*"])));
}

#[tokio::test]
async fn one_call_spends_no_more_than_one_may() {
    let llm = llm().await;
    llm.set(|behaviour| behaviour.tokens = 10_000);
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 20000, tokens_per_call = 100", ""));
    for path in [CHAT, RESPONSES, COMPLETIONS] {
        let before = spent(&gateway).await;
        assert_eq!(gateway.post(path, ask(path, json!({}))).await.status, 200, "{path}");
        assert!(spent(&gateway).await - before <= 100, "{path}");
    }
    let long = "word ".repeat(500);
    for path in [CHAT, EMBEDDINGS] {
        let answer = gateway.post(path, ask(path, json!({"input": long, "messages": [{"content": long}]}))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "request_too_large"), "{path}");
    }
    assert_eq!(llm.totals().started, 3);
}

#[tokio::test]
async fn a_model_s_name_may_hold_a_slash_however_it_is_written() {
    let gateway = Gateway::start(
        &toml("http://127.0.0.1:1", "", "").replace("models = [\"*\"]", "models = [\"org/model:7b\", \"plain\"]"),
    );
    for path in ["/v1/models/org/model:7b", "/v1/models/org%2Fmodel%3A7b", "/v1/models/org%2fmodel:7b"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &json!("org/model:7b")), "{path}");
    }
    for path in ["/v1/models/org", "/v1/models/%ff", "/v1/models/plain%00"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "model_not_found"), "{path}");
    }
}

#[tokio::test]
async fn limits_are_told_as_they_are_enforced_and_asking_costs_nothing() {
    let llm = llm().await;
    let overrides = "tokens_per_month = 5000, calls_per_month = 7, calls_per_minute = 60, calls_in_flight = 4";
    let gateway = Gateway::start_at(&toml(&llm.url(), overrides, ""), Clock::manual(NOW_MS));
    for _ in 0..3 {
        limits(&gateway).await;
    }
    gateway.post(CHAT, ask(CHAT, json!({}))).await;
    let used = generated(&llm);
    let limits = limits(&gateway).await;
    assert_eq!(
        (&limits["object"], &limits["tenant"], &limits["status"]),
        (&json!("limits"), &json!("acme"), &json!("active"))
    );
    assert_eq!(
        limits["plans"],
        json!({"app": "app.business", "api": "api.pro", "chatwoot": "chatwoot.pro", "selfhosted": null})
    );
    assert!(limits["features"].as_array().unwrap().contains(&json!("api_access")));
    assert_eq!((&limits["models"], &limits["limits"]["tokens_per_month"]), (&json!(["*"]), &json!(5000)));
    assert_eq!(limits["limits"]["tokens_per_call"], "unlimited");
    assert_eq!(limits["period"], json!({"starts_at": 1_793_491_200, "ends_at": 1_796_083_200}));
    assert_eq!(
        limits["remaining"],
        json!({
            "calls_per_minute": {"limit": 60, "remaining": 59, "reset_ms": 1000},
            "calls_per_month": {"limit": 7, "remaining": 6, "reset_ms": UNTIL_RESET_MS},
            "calls_in_flight": {"limit": 4, "running": 0, "remaining": 4},
            "tokens": {"limit": 5000, "remaining": 5000 - used, "spent": used, "reserved": 0, "debt": 0,
                "reset_ms": UNTIL_RESET_MS},
            "conversations_per_month": {"limit": 2000, "used": 0, "remaining": 2000, "reset_ms": UNTIL_RESET_MS},
            "seats": {"limit": 3, "seen": 0},
        })
    );
}

#[tokio::test]
async fn a_running_call_is_seen_in_the_limits() {
    let llm = llm().await;
    llm.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (100_000, 20));
    let gateway = Gateway::start(&toml(&llm.url(), "tokens_per_month = 5000, calls_in_flight = 2", ""));
    let request = post(gateway.public(), RESPONSES, KEY, ask(RESPONSES, json!({"stream": true})));
    let response = gateway.send(request).await;
    let told: u64 = response.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap().parse().unwrap();
    let limits = limits(&gateway).await;
    let remaining = &limits["remaining"];
    assert_eq!(remaining["calls_in_flight"], json!({"limit": 2, "running": 1, "remaining": 1}));
    assert_eq!(remaining["tokens"]["reserved"].as_u64().unwrap() + told, 5000, "what runs is taken off at once");
    drop(response);
    assert!(spent(&gateway).await > 0);
}

#[tokio::test]
async fn every_answer_to_a_known_caller_says_what_is_left_after_it() {
    let llm = llm().await;
    let overrides = "tokens_per_month = 5000, calls_per_month = 3, calls_per_minute = 100";
    let gateway = Gateway::start_at(&toml(&llm.url(), overrides, ""), Clock::manual(NOW_MS));
    let head = |path: &str| {
        let mut request = get(gateway.public(), path, KEY);
        *request.method_mut() = Method::HEAD;
        request
    };
    let unknown_model = ask(CHAT, json!({"model": ""}));
    let requests = [
        (200, get(gateway.public(), "/v1/models", KEY)),
        (200, head("/v1/models")),
        (404, get(gateway.public(), "/v1/models/none", KEY)),
        (404, get(gateway.public(), "/v1/nothing", KEY)),
        (404, post(gateway.public(), "/v1/responses/resp_1/cancel", KEY, "")),
        (405, get(gateway.public(), RESPONSES, KEY)),
        (405, head(CHAT)),
        (400, post(gateway.public(), EMBEDDINGS, KEY, "{")),
        (400, post(gateway.public(), CHAT, KEY, unknown_model)),
    ];
    for (status, request) in requests {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = gateway.call(request).await;
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"), "{what}");
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("5000"), "{what}");
        assert!(answer.header("ratelimit").unwrap().contains("\"calls\";r=3;t="), "{what}: {:?}", answer.headers);
        assert!(answer.header("ratelimit-policy").unwrap().contains("\"minute\";q=100;w=60"), "{what}");
        if status >= 400 && !what.starts_with("HEAD") {
            assert!(answer.json()["error"]["message"].is_string(), "{what}");
        }
    }
    let answer = gateway.post(COMPLETIONS, ask(COMPLETIONS, json!({}))).await;
    let left = (5000 - generated(&llm)).to_string();
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some(left.as_str()), "after the call, not before");
    assert!(answer.header("ratelimit").unwrap().contains("\"calls\";r=2"));
    for _ in 0..2 {
        gateway.post(COMPLETIONS, ask(COMPLETIONS, json!({}))).await;
    }
    let denied = gateway.post(COMPLETIONS, ask(COMPLETIONS, json!({}))).await;
    assert_eq!((denied.status.as_u16(), denied.code().as_str()), (429, "quota_exceeded"));
    assert!(denied.header("ratelimit").unwrap().contains("\"calls\";r=0"), "{:?}", denied.headers);
}

#[tokio::test]
async fn nobody_without_a_key_is_told_anything() {
    let gateway = Gateway::start(&toml("http://127.0.0.1:1", "", ""));
    for path in [CHAT, "/v1/models", "/v1/limits", "/v1/nothing"] {
        let answer = gateway.call(get(gateway.public(), path, "rk_live_nobody")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "invalid_api_key"), "{path}");
        assert!(answer.header("x-ratelimit-limit-tokens").is_none() && answer.header("x-request-id").is_some());
    }
    let answer = gateway.call(get(gateway.public(), "/", "")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown_route"));
}

#[tokio::test]
async fn every_route_names_its_methods_and_head_has_no_body() {
    let gateway = Gateway::start(&toml("http://127.0.0.1:1", "", ""));
    let request = |method: Method, path: &str, key: &str| {
        let mut request = get(gateway.public(), path, key);
        *request.method_mut() = method;
        request
    };
    for (path, allow) in [
        (CHAT, "POST, OPTIONS"),
        (RESPONSES, "POST, OPTIONS"),
        (COMPLETIONS, "POST, OPTIONS"),
        (EMBEDDINGS, "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/gpt-4o", "GET, HEAD, OPTIONS"),
        ("/v1/limits", "GET, HEAD, OPTIONS"),
        ("/v1/usage", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let wrong = gateway.call(request(Method::DELETE, path, KEY)).await;
        assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, Some(allow)), "{path}");
        assert_eq!(wrong.code(), "method_not_allowed");
        let options = gateway.call(request(Method::OPTIONS, path, "")).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, Some(allow)), "{path}");
        assert!(options.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
        if allow.starts_with("GET") {
            let got = gateway.call(request(Method::GET, path, KEY)).await;
            let head = gateway.call(request(Method::HEAD, path, KEY)).await;
            assert_eq!((head.status, head.body.len()), (got.status, 0), "{path}");
            assert_eq!(head.header("content-length"), Some(got.body.len().to_string().as_str()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_call_and_read_and_no_other() {
    let llm = llm().await;
    let cors = "[cors]\norigins = [\"https://app.example.com\", \"http://localhost:5173\"]\n";
    let gateway = Gateway::start(&format!("{}{cors}", toml(&llm.url(), "", "")));
    let preflight = |origin: &str, path: &str| {
        Request::options(format!("http://{}{path}", gateway.public()))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,x-stainless-lang")
            .body(Full::default())
            .unwrap()
    };
    let allowed = gateway.call(preflight("https://app.example.com", CHAT)).await;
    assert_eq!(allowed.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.com"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-headers", "authorization,content-type,x-stainless-lang"),
        ("access-control-max-age", "7200"),
    ] {
        assert_eq!(allowed.header(name), Some(value));
    }
    let refused = gateway.call(preflight("https://evil.example", CHAT)).await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (204, None));
    assert_eq!(refused.header("vary"), Some("Origin"));

    // Streams, refusals and unknown callers are read by pages too.
    for (key, status, stream) in [(KEY, 200, true), (KEY, 200, false), ("none", 401, false)] {
        let mut request = post(gateway.public(), CHAT, key, ask(CHAT, json!({"stream": stream})));
        request.headers_mut().insert("origin", "http://localhost:5173".parse().unwrap());
        let answer = gateway.call(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (status, Some("http://localhost:5173"))
        );
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in answer
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|name| name.contains("rate") || *name == "x-request-id")
        {
            assert!(exposed.split(", ").any(|exposed| exposed == name), "{name} is not exposed");
        }
    }
    let other = gateway.call(get(gateway.public(), "/openapi.json", "")).await;
    assert_eq!((other.status.as_u16(), other.header("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn any_origin_may_be_allowed() {
    let gateway = Gateway::start(&format!("{}[cors]\norigins = [\"*\"]\n", toml("http://127.0.0.1:1", "", "")));
    let mut request = get(gateway.public(), "/v1/limits", KEY);
    request.headers_mut().insert("origin", "https://anything.example".parse().unwrap());
    let answer = gateway.call(request).await;
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (Some("*"), None));
}

#[tokio::test]
async fn a_suspended_tenant_is_told_why() {
    let more = "[[tenant]]\nid = \"late\"\nplans = [\"app.business\", \"api.pro\"]\nenabled = false\n[[tenant.key]]\nname = \"k\"\n\
                secret = \"rk_test_000000000002_0123456789abcdef0123456789abcdef\"";
    let gateway = Gateway::start(&toml("http://127.0.0.1:1", "", more));
    let key = "rk_test_000000000002_0123456789abcdef0123456789abcdef";
    for path in [CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS] {
        let answer = gateway.call(post(gateway.public(), path, key, ask(path, json!({})))).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (402, "payment_required"), "{path}");
    }
    let limits = gateway.call(get(gateway.public(), "/v1/limits", key)).await;
    assert_eq!((limits.status.as_u16(), &limits.json()["status"]), (200, &json!("suspended")));
}

#[tokio::test]
async fn usage_is_told_by_day_model_key_and_kind_and_adds_up_to_what_is_enforced() {
    let llm = llm().await;
    let other = "rk_test_000000000002_0123456789abcdef0123456789abcdef";
    let more = format!(
        "[[tenant.key]]\nname = \"second\"\nsecret = \"{other}\"\n[[tenant]]\nid = \"stranger\"\nplans = [\"app.business\", \"api.pro\"]\n\
         [[tenant.key]]\nname = \"k\"\nsecret = \"rk_test_000000000003_0123456789abcdef0123456789abcdef\""
    );
    let clock = Clock::manual(NOW_MS);
    let gateway = Gateway::start_at(&toml(&llm.url(), "tokens_per_month = 20000", &more), clock.clone());
    let stranger = "rk_test_000000000003_0123456789abcdef0123456789abcdef";
    for (key, path) in [(KEY, CHAT), (KEY, CHAT), (KEY, EMBEDDINGS), (other, RESPONSES), (stranger, CHAT)] {
        let answer = gateway.call(post(gateway.public(), path, key, ask(path, json!({})))).await;
        assert_eq!(answer.status, 200);
    }
    clock.advance(std::time::Duration::from_secs(86_400));
    gateway.post(COMPLETIONS, ask(COMPLETIONS, json!({"model": "tiny"}))).await;
    let usage = |query: &'static str| {
        let gateway = &gateway;
        async move { gateway.get(&format!("/v1/usage{query}")).await.json() }
    };

    let by_day = usage("").await;
    assert_eq!((&by_day["from"], &by_day["to"]), (&json!("2026-11-01"), &json!("2026-11-11")));
    let days: Vec<(&str, u64)> = by_day["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["day"].as_str().unwrap(), line["calls"].as_u64().unwrap()))
        .collect();
    assert_eq!(days, [("2026-11-10", 4), ("2026-11-11", 1)]);
    assert_eq!(by_day["total"]["budget_tokens"], spent(&gateway).await, "the numbers that are enforced");

    let by_key = usage("?group_by=kind,key").await;
    let lines: Vec<(&str, &str, &str, u64)> = by_key["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap();
            (text("key"), text("key_name"), text("kind"), line["calls"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("000000000001", "ci", "chat", 2),
            ("000000000001", "ci", "completions", 1),
            ("000000000001", "ci", "embeddings", 1),
            ("000000000002", "second", "responses", 1),
        ]
    );

    let last_day = usage("?from=2026-11-11&to=2026-11-11&group_by=model").await;
    let call = llm.calls().pop().unwrap();
    assert_eq!(
        last_day["data"],
        json!([{"model": "tiny", "calls": 1, "estimated_calls": 0, "input_tokens": call.prompt_tokens,
        "cached_tokens": 0, "output_tokens": call.completion_tokens, "budget_tokens": call.prompt_tokens + call.completion_tokens}])
    );
    for nothing in [
        "?from=2026-11-12",
        "?from=2026-11-11&to=2026-11-10",
        "?to=2026-10-31",
        "?from=0001-01-01&to=0001-01-02",
        "?from=9999-12-31&to=9999-12-31",
    ] {
        let told = usage(nothing).await;
        assert_eq!((&told["data"], &told["total"]["calls"]), (&json!([]), &json!(0)), "{nothing}");
    }
    assert_eq!(usage("?from=0001-01-01&to=9999-12-31").await["total"]["calls"], 5);
    for wrong in [
        "?from=yesterday",
        "?from=20261101",
        "?to=2026-02-30",
        "?from=",
        "?group_by=",
        "?group_by=tenant",
        "?group_by=day,day",
        "?to=2026-11-01&to=2026-11-02",
        "?from=%ff",
    ] {
        let answer = gateway.get(&format!("/v1/usage{wrong}")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"), "{wrong}");
    }
}

#[tokio::test]
async fn the_document_names_every_route_every_method_and_every_reason() {
    let gateway = Gateway::start(&toml("http://127.0.0.1:1", "", ""));
    let document = gateway.call(get(gateway.public(), "/openapi.json", "")).await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", "gpt-4o");
        let allow =
            gateway.call(Request::options(format!("http://{}{path}", gateway.public())).body(Full::default()).unwrap());
        let allow = allow.await.header("allow").expect(&path).to_owned();
        let mut named: Vec<String> =
            operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        named.extend(named.contains(&"GET".to_owned()).then(|| "HEAD".to_owned()));
        named.push("OPTIONS".to_owned());
        assert_eq!(allow, named.join(", "), "{path}");
    }
    let error = &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"];
    let mut named: Vec<&str> =
        error["code"]["enum"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    // A delivery's signature is not this API's matter.
    let mut reasons: Vec<&str> =
        Reason::ALL.iter().filter(|reason| **reason != Reason::BadSignature).map(|reason| reason.code()).collect();
    // What a spent budget is called where the operator wants a 429.
    reasons.push("insufficient_quota");
    named.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(named, reasons);
}
