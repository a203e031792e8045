//! Limits by key, limits in shadow, wrong keys, how a spent budget is told, and one gateway to a directory.

use std::time::Duration;

use http::StatusCode;
use relais_gateway::clock::Clock;
use relais_gateway::{StartError, start};
use relais_loadtest::fakes::llm::{FakeLlm, Settings};
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, KEY, config, get, post, toml};

const CHAT: &str = "/v1/chat/completions";
/// 2026-11-10T00:00:00Z.
const NOW_MS: i64 = 1_794_268_800_000;
const OTHER_KEY: &str = "rk_test_000000000002_0123456789abcdef0123456789abcdef";
const WRONG_KEY: &str = "rk_test_000000000001_ffffffffffffffffffffffffffffffff";

async fn llm() -> FakeLlm {
    FakeLlm::start(Settings::default()).await.unwrap()
}

fn chat(more: Value) -> String {
    let mut body = json!({"model": "llama", "messages": [{"role": "user", "content": "What do you sell?"}]});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    body.to_string()
}

/// The usual tenant, with a second key that has these lines.
fn with_key(llm: &FakeLlm, overrides: &str, key: &str) -> String {
    toml(&llm.url(), overrides, &format!("[[tenant.key]]\nname = \"other\"\nsecret = \"{OTHER_KEY}\"\n{key}"))
}

async fn ask_as(gateway: &Gateway, key: &str) -> Answer {
    gateway.call(post(gateway.public(), CHAT, key, chat(json!({})))).await
}

async fn limits(gateway: &Gateway, key: &str) -> Value {
    gateway.call(get(gateway.public(), "/v1/limits", key)).await.json()
}

#[tokio::test]
async fn a_key_has_limits_of_its_own_below_its_tenant_s() {
    let llm = llm().await;
    let key = "calls_per_minute = 50\ncalls_per_month = 2\ncalls_in_flight = 5\ntokens_per_month = 9000\ntokens_per_call = 60";
    let gateway = Gateway::start_at(&with_key(&llm, "tokens_per_month = 20000", key), Clock::manual(NOW_MS));
    let told = limits(&gateway, OTHER_KEY).await;
    assert_eq!(
        told["key"]["limits"],
        json!({"calls_per_minute": 50, "calls_per_month": 2, "calls_in_flight": 5, "tokens_per_month": 9000,
            "tokens_per_call": 60})
    );
    assert_eq!((&told["shadow"], &told["key"]["shadow"]), (&json!([]), &json!([])));
    for left in [1, 0] {
        assert_eq!(ask_as(&gateway, OTHER_KEY).await.status, 200);
        let remaining = &limits(&gateway, OTHER_KEY).await["remaining"];
        assert_eq!(remaining["calls_per_month"]["remaining"], left);
        assert!(remaining["tokens"]["remaining"].as_u64().unwrap() < 9000, "{remaining}");
    }
    assert!(llm.calls().iter().all(|call| call.completion_tokens <= 60));
    let refused = ask_as(&gateway, OTHER_KEY).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "quota_exceeded"));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(ask_as(&gateway, KEY).await.status, 200);
}

#[tokio::test]
async fn the_smaller_of_the_tokens_per_call_holds() {
    for (tenant, key) in [("5", "5000"), ("5000", "5")] {
        let llm = llm().await;
        let overrides = format!("tokens_per_month = 20000, tokens_per_call = {tenant}");
        let gateway = Gateway::start(&with_key(&llm, &overrides, &format!("tokens_per_call = {key}")));
        let refused = ask_as(&gateway, OTHER_KEY).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (413, "request_too_large"), "{tenant} {key}");
        assert!(refused.text().contains("may spend 5 budget tokens"), "{}", refused.text());
        assert!(llm.calls().is_empty());
    }
}

#[tokio::test]
async fn a_key_s_tokens_end_before_its_tenant_s() {
    let llm = llm().await;
    let gateway = Gateway::start(&with_key(&llm, "tokens_per_month = 20000", "tokens_per_month = 10"));
    let refused = ask_as(&gateway, OTHER_KEY).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (402, "token_budget_exhausted"));
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), Some("10"));
    assert_eq!(ask_as(&gateway, KEY).await.status, 200);
}

#[tokio::test]
async fn limits_in_shadow_are_told_and_refuse_nobody() {
    let llm = llm().await;
    let overrides = "tokens_per_month = 1, calls_per_month = 1, calls_per_minute = 1";
    let shadowed = with_key(&llm, overrides, "calls_per_month = 1\nshadow = [\"calls_per_month\"]").replace(
        "[[tenant.key]]\n        name = \"ci\"",
        "shadow = [\"calls_per_minute\", \"calls_per_month\", \"tokens_per_month\", \"calls_in_flight\"]\n\
         [[tenant.key]]\nname = \"ci\"",
    );
    let gateway = Gateway::start_at(&shadowed, Clock::manual(NOW_MS));
    for _ in 0..3 {
        let answer = ask_as(&gateway, OTHER_KEY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("1"));
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("0"));
    }
    let told: u64 = llm.calls().iter().map(|call| call.prompt_tokens + call.completion_tokens).sum();
    let limits = limits(&gateway, OTHER_KEY).await;
    let all = json!(["calls_per_minute", "calls_per_month", "calls_in_flight", "tokens_per_month"]);
    assert_eq!((&limits["shadow"], &limits["key"]["shadow"]), (&all, &json!(["calls_per_month"])));
    let tokens = &limits["remaining"]["tokens"];
    assert_eq!((&tokens["spent"], &tokens["debt"], &tokens["remaining"]), (&json!(told), &json!(0), &json!(0)));
    let denials = |reason: &str| format!("relais_shadow_denials_total{{reason=\"{reason}\"}}");
    assert_eq!(gateway.metric(&denials("rate_limited")).await, 2.0);
    assert_eq!(gateway.metric(&denials("quota_exceeded")).await, 2.0);
    assert_eq!(gateway.metric(&denials("token_budget_exhausted")).await, 3.0);
    assert_eq!(gateway.metric("relais_denials_total{reason=\"rate_limited\"}").await, 0.0);
    // Taken out of the shadow without a restart, they are enforced on what was used.
    let enforced = with_key(&llm, overrides, "");
    gateway.inner().gateway.take_over(config(&enforced, gateway.dir.path())).unwrap();
    assert_eq!(ask_as(&gateway, OTHER_KEY).await.code(), "quota_exceeded");
}

#[tokio::test]
async fn very_many_wrong_keys_are_answered_alike_and_meet_nobody_else() {
    let llm = llm().await;
    let more = "[limits]\nauth_failures_per_minute = 3";
    let config = format!("{}\n{more}", toml(&llm.url(), "tokens_per_month = 20000", ""));
    let gateway = Gateway::start_at(&config, Clock::manual(NOW_MS));
    let mut answers = Vec::new();
    for key in [WRONG_KEY, OTHER_KEY, "", "nonsense", WRONG_KEY, OTHER_KEY, "rk_live_x"] {
        let answer = ask_as(&gateway, key).await;
        let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        answers.push((answer.status, answer.text(), names));
        // The same address, a good key.
        assert_eq!(gateway.get("/v1/models").await.status, 200);
    }
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(gateway.metric("relais_auth_failures_total").await, 7.0);
    assert_eq!(gateway.metric("relais_auth_throttled_total").await, 4.0);
    assert_eq!(gateway.metric("relais_denials_total{reason=\"invalid_api_key\"}").await, 7.0);
}

#[tokio::test]
async fn a_spent_budget_is_a_429_where_the_operator_wants_it() {
    let llm = llm().await;
    for (told, status, code) in [("402", 402, "token_budget_exhausted"), ("429", 429, "insufficient_quota")] {
        let errors = format!("[errors]\ntokens_used_up = \"{told}\"");
        let config = format!("{}\n{errors}", toml(&llm.url(), "tokens_per_month = 1", ""));
        let gateway = Gateway::start(&config);
        let refused = ask_as(&gateway, KEY).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code));
        assert_eq!(refused.json()["error"]["type"], "insufficient_quota");
        assert_eq!((refused.header("x-should-retry"), refused.header("retry-after")), (Some("false"), None));
        assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("1"));
    }
}

#[tokio::test]
async fn a_second_gateway_on_a_directory_fails_and_says_why() {
    let llm = llm().await;
    let toml = format!("{}\n[timeouts]\ndrain_ms = 0", toml(&llm.url(), "", ""));
    let gateway = Gateway::start(&toml);
    let second = start(config(&toml, gateway.dir.path()), Clock::system());
    let Err(error @ StartError::Storage(_)) = second else { panic!("two serve one directory") };
    let said = error.to_string();
    assert!(said.contains("another Relais") && said.contains(&std::process::id().to_string()), "{said}");
    assert_eq!(ask_as(&gateway, KEY).await.status, 200);
}

#[tokio::test]
async fn a_second_gateway_waits_for_one_that_stops() {
    let llm = llm().await;
    let toml = format!("{}\n[timeouts]\ndrain_ms = 20000", toml(&llm.url(), "", ""));
    let gateway = Gateway::start(&toml);
    let config = config(&toml, gateway.dir.path());
    let (began, started) = (std::sync::mpsc::sync_channel(0), std::thread::spawn);
    let (ready, wait) = began;
    let second = started(move || {
        ready.send(()).unwrap();
        start(config, Clock::system()).map(|running| {
            let public = running.public;
            running.stop();
            public
        })
    });
    wait.recv_timeout(Duration::from_secs(20)).unwrap();
    // Whether it waits already or not: it starts only when this one has stopped.
    let _dir = gateway.stop().await;
    assert!(second.join().unwrap().is_ok());
}
