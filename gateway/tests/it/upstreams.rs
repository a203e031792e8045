//! Several upstreams: who is asked, who takes over, and who is left alone.

use std::time::Duration;

use http_body_util::BodyExt as _;
use relais_gateway::clock::Clock;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, Settings};
use serde_json::json;

use crate::support::{Answer, DEADLINE, Gateway, KEY, config, post};

pub(crate) const CHAT: &str = "/v1/chat/completions";
/// 2026-11-10T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_794_268_800_000;

/// One upstream in the file.
pub(crate) fn upstream(name: &str, url: &str, more: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}/v1\"\n{more}\n")
}

/// A tenant without limits and these upstreams. `timeouts` goes into `[timeouts]`.
pub(crate) fn toml(upstreams: &[String], timeouts: &str) -> String {
    format!(
        r#"
        [listen]
        public = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [storage]
        dir = "data"
        [runtime]
        workers = 1
        [timeouts]
        {timeouts}
        {}
        [[tenant]]
        id = "acme"
        plans = ["app.business", "api.pro", "chatwoot.pro"]
        overrides = {{ tokens_per_month = 100000000, calls_per_minute = "unlimited", calls_in_flight = "unlimited" }}
        [[tenant.key]]
        name = "ci"
        secret = "{KEY}"
        "#,
        upstreams.concat()
    )
}

pub(crate) fn chat(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Is anybody there?"}]})
        .to_string()
}

pub(crate) async fn llm() -> FakeLlm {
    FakeLlm::start(Settings::default()).await.unwrap()
}

/// Two upstreams, `a` before `b`, on a clock that stands still.
async fn first_and_second() -> (FakeLlm, FakeLlm, Gateway, Clock) {
    let (a, b) = (llm().await, llm().await);
    let clock = Clock::manual(NOW_MS);
    let upstreams = [upstream("a", &a.url(), ""), upstream("b", &b.url(), "priority = 1")];
    let gateway = Gateway::start_at(&toml(&upstreams, ""), clock.clone());
    (a, b, gateway, clock)
}

fn status(status: u16) -> FaultKind {
    FaultKind::Status { status, body: None, retry_after: None }
}

fn asks_to_wait(seconds: u32) -> FaultKind {
    FaultKind::Status { status: 429, body: None, retry_after: Some(seconds.to_string()) }
}

fn seen(llm: &FakeLlm) -> u64 {
    llm.totals().started
}

async fn ask(gateway: &Gateway) -> Answer {
    gateway.post(CHAT, chat("m", false)).await
}

async fn state(gateway: &Gateway, name: &str) -> f64 {
    gateway.metric(&format!("relais_upstream_state{{upstream=\"{name}\"}}")).await
}

#[tokio::test]
async fn what_fails_before_an_answer_is_answered_by_the_next() {
    let moved = FaultKind::Redirect { location: "http://127.0.0.1:1/v1/chat/completions".into() };
    for fault in [
        status(500),
        status(502),
        status(503),
        status(504),
        status(429),
        asks_to_wait(9),
        status(401),
        status(403),
        moved,
        FaultKind::CloseBeforeHead,
    ] {
        for stream in [false, true] {
            let (a, b, gateway, _) = first_and_second().await;
            a.set(|behaviour| behaviour.faults = vec![Fault::always(fault.clone())]);
            let answer = gateway.post(CHAT, chat("m", stream)).await;
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
            assert_eq!((seen(&a), seen(&b)), (1, 1), "{fault:?}");
            assert_eq!(gateway.metric("relais_upstream_retries_total{upstream=\"b\"}").await, 1.0);
            assert_eq!(gateway.metric("relais_requests_total{outcome=\"ok\",route=\"chat\"}").await, 1.0);
        }
    }
}

#[tokio::test]
async fn a_refused_connection_is_answered_by_the_next() {
    let gone = llm().await;
    let (url, b) = (gone.url(), llm().await);
    gone.stop().await;
    let upstreams = [upstream("a", &url, ""), upstream("b", &b.url(), "priority = 1")];
    let gateway = Gateway::start(&toml(&upstreams, ""));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(gateway.metric("relais_upstream_requests_total{outcome=\"failed\",upstream=\"a\"}").await, 1.0);
}

#[tokio::test]
async fn a_refusal_of_the_request_is_the_client_s_and_is_not_tried_elsewhere() {
    let (a, b, gateway, _) = first_and_second().await;
    for refused in [400, 404, 413, 422] {
        a.set(|behaviour| behaviour.faults = vec![Fault::always(status(refused))]);
        for _ in 0..6 {
            assert_eq!(ask(&gateway).await.status.as_u16(), refused);
        }
    }
    assert_eq!(seen(&b), 0);
    assert_eq!(state(&gateway, "a").await, 0.0, "refusals opened the breaker");
}

#[tokio::test]
async fn the_only_upstream_is_tried_three_times_and_no_more() {
    let a = llm().await;
    let gateway = Gateway::start_at(&toml(&[upstream("a", &a.url(), "")], ""), Clock::manual(NOW_MS));
    a.set(|behaviour| behaviour.faults = vec![Fault::next(2, status(503))]);
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(seen(&a), 3);
    a.set(|behaviour| behaviour.faults = vec![Fault::always(status(500))]);
    let answer = ask(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "upstream_failed"));
    assert_eq!(seen(&a), 6);
}

#[tokio::test]
async fn each_upstream_gets_the_request_in_its_own_words() {
    let (a, b) = (llm().await, llm().await);
    a.set(|behaviour| behaviour.faults = vec![Fault::always(status(503))]);
    let upstreams = [
        upstream("a", &a.url(), "aliases = { m = \"a-model\" }"),
        upstream("b", &b.url(), "aliases = { m = \"b-model\" }\npriority = 1\nlimit_field = \"max_completion_tokens\""),
    ];
    let toml = toml(&upstreams, "").replace("tokens_per_month = 100000000", "tokens_per_month = 300");
    let gateway = Gateway::start_at(&toml, Clock::manual(NOW_MS));
    assert_eq!(ask(&gateway).await.status, 200);
    let (to_a, to_b) = (&a.calls()[0].body, &b.calls()[0].body);
    assert!(to_a.contains("\"a-model\"") && to_a.contains("\"max_tokens\":"), "{to_a}");
    assert!(to_b.contains("\"b-model\"") && to_b.contains("\"max_completion_tokens\":"), "{to_b}");
    assert!(!to_b.contains("\"max_tokens\""), "{to_b}");
}

#[tokio::test]
async fn shares_follow_the_weights() {
    let (a, b) = (llm().await, llm().await);
    let upstreams = [upstream("a", &a.url(), "weight = 1"), upstream("b", &b.url(), "weight = 3")];
    let gateway = Gateway::start(&toml(&upstreams, ""));
    for _ in 0..200 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    assert!((30..=70).contains(&seen(&a)), "{} of 200 with a weight of 1 in 4", seen(&a));
    assert_eq!(seen(&a) + seen(&b), 200);
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone_and_one_request_goes_to_see() {
    let (a, b, gateway, clock) = first_and_second().await;
    a.set(|behaviour| behaviour.faults = vec![Fault::always(status(503))]);
    for _ in 0..20 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    assert_eq!((seen(&a), seen(&b)), (5, 20), "it was asked after five failures in a row");
    assert_eq!(state(&gateway, "a").await, 2.0);

    // Still failing: one probe a wait, and its client is served by the other.
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!((seen(&a), state(&gateway, "a").await), (6, 2.0));

    // Well again: while the probe is on its way the others go elsewhere.
    a.set(|behaviour| (behaviour.faults, behaviour.first_byte_ms) = (vec![], 500));
    clock.advance(Duration::from_secs(2));
    let probe = gateway.call(post(gateway.public(), CHAT, KEY, chat("m", false)));
    let others = async {
        assert!(a.wait_until(|totals| totals.started == 7, DEADLINE).await);
        assert_eq!(state(&gateway, "a").await, 1.0);
        for _ in 0..4 {
            assert_eq!(ask(&gateway).await.status, 200);
        }
        assert_eq!((seen(&a), seen(&b)), (7, 26));
    };
    let (probe, ()) = tokio::join!(probe, others);
    assert_eq!(probe.status, 200);
    assert_eq!(state(&gateway, "a").await, 0.0);
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(seen(&a), 8);
}

#[tokio::test]
async fn with_nobody_left_the_answer_comes_at_once_and_says_when_to_come_back() {
    let a = llm().await;
    a.set(|behaviour| behaviour.faults = vec![Fault::always(status(502))]);
    let gateway = Gateway::start_at(&toml(&[upstream("a", &a.url(), "")], ""), Clock::manual(NOW_MS));
    for _ in 0..10 {
        assert_eq!(ask(&gateway).await.status, 502);
    }
    assert_eq!(seen(&a), 5);
    let answer = ask(&gateway).await;
    assert_eq!((answer.code().as_str(), answer.header("retry-after-ms")), ("upstream_failed", Some("1000")));
}

#[tokio::test]
async fn an_upstream_that_asks_for_rest_rests_and_the_shortest_rest_is_told() {
    let (a, b, gateway, clock) = first_and_second().await;
    a.set(|behaviour| behaviour.faults = vec![Fault::next(1, asks_to_wait(30))]);
    for _ in 0..5 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    assert_eq!((seen(&a), seen(&b)), (1, 5));
    clock.advance(Duration::from_secs(10));
    b.set(|behaviour| behaviour.faults = vec![Fault::next(1, asks_to_wait(60))]);
    for _ in 0..3 {
        let answer = ask(&gateway).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "upstream_busy"));
        assert_eq!(answer.header("retry-after"), Some("20"));
        assert_eq!(answer.header("retry-after-ms"), Some("20000"));
    }
    assert_eq!((seen(&a), seen(&b)), (1, 6));
    clock.advance(Duration::from_secs(20));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!((seen(&a), seen(&b)), (2, 6));
    assert_eq!(state(&gateway, "a").await, 0.0, "a limit opened the breaker");
}

#[tokio::test]
async fn retries_never_exceed_their_budget() {
    // Both say no and neither may be left alone for it (a 429 without a time), so only the budget holds retries back.
    let (a, b, gateway, clock) = first_and_second().await;
    for llm in [&a, &b] {
        llm.set(|behaviour| behaviour.faults = vec![Fault::always(status(429))]);
    }
    for _ in 0..200 {
        let answer = ask(&gateway).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    }
    assert_eq!((seen(&a), seen(&b)), (200, 40 + 10));
    assert_eq!(gateway.metric("relais_upstream_retries_withheld_total").await, 150.0);
    clock.advance(Duration::from_secs(1));
    ask(&gateway).await;
    assert_eq!(seen(&b), 51, "nothing trickled into the budget");
}

#[tokio::test]
async fn a_total_outage_is_not_made_worse() {
    let (a, b, gateway, clock) = first_and_second().await;
    for llm in [&a, &b] {
        llm.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::CloseBeforeHead)]);
    }
    for _ in 0..300 {
        assert_eq!(ask(&gateway).await.status, 502);
        clock.advance(Duration::from_millis(50));
    }
    let all = seen(&a) + seen(&b);
    assert!(all <= 300 * 12 / 10 + 10, "{all} tries for 300 requests");
    assert!(all < 50, "{all} tries of 300 requests in 15 s, at upstreams that should be left alone");
}

#[tokio::test]
async fn a_full_upstream_is_waited_for_only_if_there_is_no_other() {
    let (a, b) = (llm().await, llm().await);
    a.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (1_000_000, 5));
    let only_a = "models = [\"slow\", \"m\"]\nconnections_max = 1";
    let upstreams = [upstream("a", &a.url(), only_a), upstream("b", &b.url(), "models = [\"m\"]\npriority = 1")];
    let gateway = Gateway::start(&toml(&upstreams, "connect_ms = 300"));
    let mut open = gateway.send(post(gateway.public(), CHAT, KEY, chat("slow", true))).await.into_body();
    open.frame().await.unwrap().unwrap();

    assert_eq!(gateway.post(CHAT, chat("m", false)).await.status, 200);
    assert_eq!((seen(&a), seen(&b)), (1, 1));
    let refused = gateway.post(CHAT, chat("slow", true)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "overloaded"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gateway.metric("relais_upstream_requests_total{outcome=\"full\",upstream=\"a\"}").await, 1.0);

    // Its client leaves: there is room again.
    drop(open);
    assert!(a.wait_until(|totals| totals.in_flight == 0, DEADLINE).await);
    a.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (4, 0));
    for _ in 0..3 {
        assert_eq!(gateway.post(CHAT, chat("slow", false)).await.status, 200);
    }
}

#[tokio::test]
async fn who_waits_for_room_is_served_when_there_is_some() {
    let a = llm().await;
    a.set(|behaviour| behaviour.first_byte_ms = 50);
    let gateway = Gateway::start(&toml(&[upstream("a", &a.url(), "connections_max = 1")], "connect_ms = 20000"));
    let calls = (0..8).map(|_| gateway.post(CHAT, chat("m", false)));
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut most = 0;
    let watching = async {
        loop {
            most = most.max(a.totals().in_flight);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = async {
        let mut answers = Vec::new();
        let running: Vec<_> = calls.iter_mut().map(|call| call.as_mut()).collect();
        for answer in join_all(running).await {
            answers.push(answer.status.as_u16());
        }
        answers
    };
    tokio::select! {
        answers = all => assert_eq!(answers, [200; 8]),
        () = watching => {}
    }
    assert_eq!(most, 1, "more than one connection at once");
}

#[tokio::test]
async fn calls_over_http2_do_not_wait_in_one_connection() {
    // The fake takes 200 streams in a connection; what is more waits in it until others end.
    const CALLS: u64 = 230;
    let a = llm().await;
    a.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::HangBeforeHead)]);
    let gateway = Gateway::start(&toml(&[upstream("a", &a.url(), "http2 = true")], ""));
    let calls = (0..CALLS).map(|_| Box::pin(gateway.post(CHAT, chat("m", false)))).collect();
    tokio::select! {
        _ = join_all(calls) => panic!("the fake does not answer"),
        all = a.wait_until(|totals| totals.in_flight == CALLS, DEADLINE) => assert!(all, "{:?}", a.totals()),
    }
    // On HTTP/2 the name of the host is no header.
    assert!(a.calls().iter().all(|call| call.header("host").is_none()), "not HTTP/2");
}

/// Runs all of them at once.
async fn join_all<F: Future<Output = Answer> + Unpin>(mut running: Vec<F>) -> Vec<Answer> {
    let mut answers = Vec::new();
    std::future::poll_fn(move |cx| {
        running.retain_mut(|call| match std::pin::Pin::new(call).poll(cx) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(std::mem::take(&mut answers)) } else { std::task::Poll::Pending }
    })
    .await
}

#[tokio::test]
async fn a_reload_forgets_nothing_of_an_upstream_that_stays() {
    let (a, b, gateway, _) = first_and_second().await;
    a.set(|behaviour| behaviour.faults = vec![Fault::next(1, asks_to_wait(60))]);
    assert_eq!(ask(&gateway).await.status, 200);
    let written = [upstream("a", &a.url(), "weight = 5"), upstream("b", &b.url(), "priority = 1")];
    gateway.inner().gateway.take_over(config(&toml(&written, ""), gateway.dir.path())).unwrap();
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!((seen(&a), seen(&b)), (1, 2), "it was asked while it rests");
    let without = [upstream("b", &b.url(), "")];
    gateway.inner().gateway.take_over(config(&toml(&without, ""), gateway.dir.path())).unwrap();
    assert_eq!(ask(&gateway).await.status, 200);
    assert!(!gateway.metrics().await.contains("relais_upstream_state{upstream=\"a\"}"));
}
