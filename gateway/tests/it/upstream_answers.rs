//! What an upstream may answer, and what a client may try: bytes at both edges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use relais_gateway::clock::Clock;
use relais_loadtest::fakes::llm::{FakeLlm, Fault, FaultKind, Settings};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{DEADLINE, Gateway, KEY, post};
use crate::upstreams::{CHAT, NOW_MS, chat, llm, toml, upstream};

/// An upstream that reads a request and answers these bytes, then holds the connection or closes it.
struct Raw {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Raw {
    async fn start(answer: impl Into<Vec<u8>>, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer.into()));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"}") {
                        if !matches!(connection.read_buf(&mut request).await, Ok(1..)) {
                            return;
                        }
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = connection.write_all(&answer).await;
                    if !closes {
                        // Until the other side closes.
                        let _ = connection.read_to_end(&mut Vec::new()).await;
                    }
                });
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// `a` before `b`, on a clock that stands still.
fn before(a: &str, b: &FakeLlm, timeouts: &str) -> Gateway {
    let upstreams = [upstream("a", a, ""), upstream("b", &b.url(), "priority = 1")];
    Gateway::start_at(&toml(&upstreams, timeouts), Clock::manual(NOW_MS))
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
    let (raw, b) = (Raw::start(format!("{interim}{interim}{WHOLE}"), false).await, llm().await);
    let gateway = before(&raw.url, &b, "");
    let answer = gateway.post(CHAT, chat("m", false)).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "{}"));
    assert_eq!(answer.header("link"), None);
    assert_eq!(raw.asked(), 1);
}

#[tokio::test]
async fn heads_that_are_no_answer_are_a_bad_gateway_or_answered_by_the_next() {
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    for answer in [
        "nonsense\r\n\r\n".to_owned(),
        "HTTP/9.9 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-ty".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n{{}}", "y".repeat(300_000)),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n{{}}"),
        String::new(),
    ] {
        let shown = &answer[..answer.len().min(60)];
        let (raw, b) = (Raw::start(answer.clone(), true).await, llm().await);
        let served = before(&raw.url, &b, "").post(CHAT, chat("m", false)).await;
        assert_eq!(served.status, 200, "{shown:?}: {}", served.text());
        let alone = Gateway::start_at(&toml(&[upstream("a", &raw.url, "")], ""), Clock::manual(NOW_MS));
        let refused = alone.post(CHAT, chat("m", false)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (502, "upstream_failed"), "{shown:?}");
        assert!(!refused.text().contains("127.0.0.1"), "an address is told: {}", refused.text());
        assert_eq!(raw.asked(), 1 + 3);
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_a_bad_gateway() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let (raw, b) = (Raw::start(answer, false).await, llm().await);
    let refused = before(&raw.url, &b, "").post(CHAT, chat("m", false)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (502, "upstream_failed"));
}

#[tokio::test]
async fn a_compressed_answer_is_refused_and_not_asked_for_again() {
    let (a, b) = (llm().await, llm().await);
    a.set(|behaviour| {
        behaviour.gzip = true;
        behaviour.headers = vec![("content-encoding".into(), "gzip".into())];
    });
    let gateway = before(&a.url(), &b, "");
    for stream in [false, true] {
        let refused = gateway.post(CHAT, chat("m", stream)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (502, "upstream_failed"));
        assert!(refused.text().contains("compressed"), "{}", refused.text());
    }
    assert_eq!(a.calls()[0].header("accept-encoding"), Some("identity"));
    assert_eq!(b.totals().started, 0, "an answer that exists was asked for twice");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (a, elsewhere) = (llm().await, llm().await);
    let location = format!("{}/v1/chat/completions", elsewhere.url());
    a.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::Redirect { location })]);
    let gateway = Gateway::start(&toml(&[upstream("a", &a.url(), "api_key = \"sk-secret\"")], ""));
    let refused = gateway.post(CHAT, chat("m", false)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (502, "upstream_failed"));
    assert_eq!((a.totals().started, elsewhere.totals().started), (1, 0));
    assert_eq!(refused.header("location"), None);
}

#[tokio::test]
async fn who_does_not_begin_in_time_is_not_asked_again_nor_anybody_else() {
    let (a, b) = (llm().await, llm().await);
    a.set(|behaviour| behaviour.faults = vec![Fault::always(FaultKind::HangBeforeHead)]);
    let gateway = before(&a.url(), &b, "first_byte_ms = 200");
    for stream in [false, true] {
        let late = gateway.post(CHAT, chat("m", stream)).await;
        assert_eq!((late.status.as_u16(), late.code().as_str()), (504, "upstream_timeout"));
    }
    assert_eq!((a.totals().started, b.totals().started), (2, 0));
    assert!(a.wait_until(|totals| totals.client_left == 2, Duration::from_secs(5)).await, "not cancelled");
    assert_eq!(gateway.metric("relais_upstream_requests_total{outcome=\"timeout\",upstream=\"a\"}").await, 2.0);
    assert_eq!(gateway.metric("relais_upstream_wait_seconds_count{upstream=\"a\"}").await, 2.0);
    // A host that always hangs is left alone in the end.
    for _ in 0..3 {
        gateway.post(CHAT, chat("m", false)).await;
    }
    assert_eq!(gateway.post(CHAT, chat("m", false)).await.status, 200);
    assert_eq!((a.totals().started, b.totals().started), (5, 1));
}

#[tokio::test]
async fn a_connection_that_is_never_made_is_given_up_in_time() {
    // Accepts, and never answers the TLS handshake.
    let (silent, b) = (Raw::start("", false).await, llm().await);
    let gateway = before(&silent.url.replace("http://", "https://"), &b, "connect_ms = 200");
    assert_eq!(gateway.post(CHAT, chat("m", false)).await.status, 200);
    assert_eq!(b.totals().started, 1);
}

#[tokio::test]
async fn a_unary_answer_that_stalls_breaks_or_is_too_large_is_one_clear_error() {
    for (fault, status, code) in [
        (FaultKind::HangAfter { tokens: 2 }, 504, "upstream_timeout"),
        (FaultKind::CutAfter { tokens: 2 }, 502, "upstream_failed"),
        (FaultKind::EndAfter { tokens: 2 }, 502, "upstream_failed"),
        (FaultKind::GiantLine { bytes: 2 << 20 }, 502, "upstream_failed"),
    ] {
        let (a, b) = (llm().await, llm().await);
        a.set(|behaviour| behaviour.faults = vec![Fault::always(fault.clone())]);
        let upstreams = [upstream("a", &a.url(), ""), upstream("b", &b.url(), "priority = 1")];
        let limits = "[limits]\nupstream_body_bytes_max = 1048576";
        let gateway = Gateway::start(&toml(&upstreams, &format!("stall_ms = 300\n{limits}")));
        let answer = gateway.post(CHAT, chat("m", false)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{fault:?}");
        assert_eq!((a.totals().started, b.totals().started), (1, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_in_one_error_event_when_its_time_is_up() {
    let (a, b) = (llm().await, llm().await);
    a.set(|behaviour| (behaviour.tokens, behaviour.gap_ms) = (1_000_000, 20));
    let gateway = before(&a.url(), &b, "connect_ms = 400\nfirst_byte_ms = 500\nstall_ms = 500\ntotal_ms = 500");
    let answer = gateway.post(CHAT, chat("m", true)).await;
    let text = answer.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("upstream_timeout") && last.contains("in time"), "{last}");
    assert!(!text.contains("[DONE]"));
    assert!(a.wait_until(|totals| totals.in_flight == 0, Duration::from_secs(5)).await, "not cancelled");
    // A unary answer has the same end.
    let answer = gateway.post(CHAT, chat("m", false)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "upstream_timeout"));
}

#[tokio::test]
async fn a_total_time_holds_for_a_client_that_reads_slowly() {
    let a = llm().await;
    a.set(|behaviour| behaviour.tokens = 1_000_000);
    let times = "connect_ms = 300\nfirst_byte_ms = 300\nstall_ms = 300\ntotal_ms = 300";
    let gateway = Gateway::start(&toml(&[upstream("a", &a.url(), "")], times));
    let mut body = gateway.send(post(gateway.public(), CHAT, KEY, chat("m", true))).await.into_body();
    body.frame().await.unwrap().unwrap();
    // Until then the gateway waits for its client and not for the model, whose next piece is always there.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let rest = tokio::time::timeout(DEADLINE, body.collect()).await.expect("it never ends").unwrap().to_bytes();
    let last = &rest[rest.len().saturating_sub(300)..];
    let last = String::from_utf8_lossy(last);
    assert!(last.contains("upstream_timeout"), "{last}");
}

#[tokio::test]
async fn nothing_a_client_sends_chooses_a_host_a_key_or_a_path() {
    let real = FakeLlm::start(Settings { key: Some("sk-operator".into()), ..Settings::default() }).await.unwrap();
    let (other, decoy) = (llm().await, llm().await);
    let upstreams = [
        upstream("real", &real.url(), "api_key = \"sk-operator\"\nmodels = [\"*\"]"),
        upstream("other", &other.url(), "api_key = \"sk-other\"\npriority = 9\nmodels = [\"other-*\"]"),
    ];
    let gateway = Gateway::start(&toml(&upstreams, ""));
    let evil = decoy.url();
    let host = evil.trim_start_matches("http://").to_owned();
    let models = [
        format!("{evil}/v1"),
        format!("{host}/m"),
        format!("@{host}/"),
        "../../admin".into(),
        "m?api_key=x#".into(),
        "m\r\nhost: evil".into(),
        "m\u{0}".into(),
        "real".into(),
        "other".into(),
        "*".into(),
        "sk-operator".into(),
    ];
    for model in &models {
        let mut body = json!({
            "model": model, "messages": [{"role": "user", "content": "x"}],
            "api_base": evil, "base_url": evil, "api_key": "sk-evil", "host": host, "url": evil,
            "extra_headers": {"authorization": "Bearer sk-evil", "host": host}, "upstream": "other",
            "user": "a\r\nb",
        });
        body["stream"] = json!(model.len() % 2 == 0);
        let mut request = post(gateway.public(), CHAT, KEY, body.to_string());
        for (name, value) in [
            ("x-forwarded-host", host.as_str()),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "host=evil"),
            ("x-api-key", "sk-evil"),
            ("api-key", "sk-evil"),
            ("proxy-authorization", "Bearer sk-evil"),
            ("x-upstream", evil.as_str()),
            ("x-original-url", evil.as_str()),
            ("openai-organization", "org-evil"),
            ("cookie", "a=b"),
            ("accept-encoding", "gzip"),
            ("user-agent", "evil"),
            ("x-request-id", "evil"),
            ("te", "trailers"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let answer = gateway.call(request).await;
        assert_eq!(answer.status, 200, "{model:?}: {}", answer.text());
    }
    assert_eq!((other.totals().started, decoy.totals().started), (0, 0));
    assert_eq!(real.totals().started, models.len() as u64);
    let own = real.url().trim_start_matches("http://").to_owned();
    for call in real.calls() {
        assert_eq!(call.path, "/v1/chat/completions");
        let mut names: Vec<&str> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let wanted = ["accept-encoding", "authorization", "content-length", "content-type", "host", "user-agent"];
        assert_eq!(names, wanted);
        assert_eq!(call.header("host"), Some(own.as_str()));
        assert_eq!(call.header("authorization"), Some("Bearer sk-operator"));
    }
}

#[tokio::test]
async fn a_key_the_upstream_refuses_is_not_the_client_s_affair() {
    let a = FakeLlm::start(Settings { key: Some("sk-right".into()), ..Settings::default() }).await.unwrap();
    let gateway = Gateway::start(&toml(&[upstream("a", &a.url(), "api_key = \"sk-wrong-and-secret\"")], ""));
    let answer = gateway.post(CHAT, chat("m", false)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "upstream_failed"));
    assert!(!answer.text().contains("sk-"), "{}", answer.text());
    assert_eq!(a.totals().started, 1, "the same key was tried twice");
}
