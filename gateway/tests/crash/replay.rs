//! A restart with a full inbox: everything is worked off, and memory does not follow the number of deliveries.
//!
//! Small by default. By hand: `RELAIS_REPLAY_DELIVERIES=100000 cargo test -p relais-gateway --test crash replay --
//! --nocapture`, which prints the peak. The Chatwoot here only answers; that no reply is lost or doubled when it
//! misbehaves is the crash run's to show.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use relais_gateway::clock::Clock;
use relais_gateway::config;
use relais_gateway::inbox::{Accepted, ConversationKey, Delivery, Inbox, Sameness};
use relais_gateway::metrics::Metrics;
use relais_loadtest::http::{Server, json};
use serde_json::json;
use tokio::task::JoinSet;

use crate::verdict;
use crate::world::relais;

/// What a customer says at once: five messages make one turn.
const BURST: u64 = 5;
/// As large as what Chatwoot sends (contract 1.8: 2.6 KB in the middle).
const PADDING_BYTES: usize = 2_200;
/// The whole process, whatever waits in its inbox: the 5,000 lanes that one tenant may have, connections to the
/// database with 16 MiB of pages each, and the program itself. 208 MiB were measured for 100,000 deliveries, whose
/// bodies alone are 260 MB.
const PEAK_KB_MAX: u64 = 256 * 1024;
/// Nothing ended for so long: it hangs.
const STANDSTILL: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_is_replayed_without_a_spike() {
    let deliveries: u64 = std::env::var("RELAIS_REPLAY_DELIVERIES").map_or(2_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("data"), deliveries).await;

    let answered: Arc<Mutex<HashSet<String>>> = Arc::default();
    let doubled: Arc<Mutex<Vec<String>>> = Arc::default();
    let chatwoot = chatwoot(Arc::clone(&answered), Arc::clone(&doubled)).await;
    let model = model().await;
    let config = dir.path().join("relais.toml");
    std::fs::write(&config, toml(&chatwoot, &model)).unwrap();
    let begun = Instant::now();
    let log = Arc::default();
    let mut child = relais(&config, &log);
    let peak_kb = work_off(&dir.path().join("data/inbox.db"), child.id()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let (peak_kb, seconds) = (peak_kb.unwrap_or_else(|| panic!("it stands still: {log:?}")), begun.elapsed());
    writeln!(
        std::io::stdout(),
        "{deliveries} deliveries replayed in {:.1} s; peak {} MiB",
        seconds.as_secs_f64(),
        peak_kb / 1024
    )
    .unwrap();
    assert_eq!(answered.lock().unwrap().len() as u64, deliveries.div_ceil(BURST), "each conversation is answered");
    assert!(doubled.lock().unwrap().is_empty(), "{:?}", doubled.lock().unwrap());
    assert!(peak_kb <= PEAK_KB_MAX, "{peak_kb} KiB for {deliveries} deliveries");
}

/// Waits until nothing is left. The most memory the process ever had; none if it comes to a standstill.
async fn work_off(database: &Path, pid: u32) -> Option<u64> {
    let db = verdict::open(database);
    let pending =
        || -> i64 { db.query_row("SELECT count(*) FROM deliveries WHERE state = 0", [], |row| row.get(0)).unwrap() };
    let mut best = (i64::MAX, Instant::now());
    loop {
        let peak_kb = peak_kb(pid)?;
        match pending() {
            0 => return Some(peak_kb),
            left if left < best.0 => best = (left, Instant::now()),
            _ if best.1.elapsed() > STANDSTILL => return None,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The most resident memory of a process so far; none if it is gone.
fn peak_kb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// An inbox as a gateway leaves it that was stopped while these came.
async fn fill(dir: &Path, deliveries: u64) {
    let limits = config::Inbox {
        queue_max: 4_096,
        batch_max: 512,
        ack_wait: Duration::from_secs(60),
        pending_max: u64::MAX,
        keep: Duration::from_secs(7 * 24 * 3_600),
    };
    let inbox = Inbox::open(dir, &limits, Clock::system(), Arc::new(Metrics::new().unwrap())).unwrap();
    let mut running = JoinSet::new();
    for number in 0..deliveries {
        if running.len() >= 1_024 {
            assert_eq!(running.join_next().await.unwrap().unwrap(), Ok(Accepted::New));
        }
        let inbox = inbox.clone();
        running.spawn(async move { inbox.accept(delivery(number)).await });
    }
    while let Some(accepted) = running.join_next().await {
        assert_eq!(accepted.unwrap(), Ok(Accepted::New));
    }
    inbox.close().await.unwrap();
}

fn delivery(number: u64) -> Delivery {
    let (conversation_id, message_id) = (1_000 + number / BURST, 50_000 + number);
    let body = json!({
        "event": "message_created", "id": message_id, "message_type": "incoming", "private": false,
        "content": format!("Question {number}"), "content_attributes": {}, "account": { "id": 1 },
        "created_at": "2026-06-18T09:15:00.000Z", "sender": { "id": 1, "name": "Carla" },
        "conversation": {
            "id": conversation_id, "inbox_id": 3, "status": "pending", "can_reply": true, "messages": [],
            "channel": "Channel::WebWidget", "meta": { "sender": { "id": 1, "name": "Carla" }, "assignee": null },
        },
        "padding": "x".repeat(PADDING_BYTES),
    });
    let key = ConversationKey { tenant: "acme".into(), channel: "main".into(), account_id: 1, conversation_id };
    let now_ms = Clock::system().now_ms();
    let body = Bytes::from(body.to_string());
    Delivery::new(key, "message_created", Some(message_id), Sameness::Message, None, body, now_ms)
}

/// Every conversation is pending and nobody's; what is posted is stored, and the second of a conversation noted.
async fn chatwoot(answered: Arc<Mutex<HashSet<String>>>, doubled: Arc<Mutex<Vec<String>>>) -> Server {
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let path = request.uri().path().to_owned();
        let (answered, doubled) = (Arc::clone(&answered), Arc::clone(&doubled));
        async move {
            let mut parts = path.split('/').skip_while(|part| *part != "conversations").skip(1);
            let id = parts.next().unwrap_or_default().to_owned();
            let body = match (request.method(), parts.next()) {
                (&Method::POST, Some("messages")) => {
                    if !answered.lock().unwrap().insert(id.clone()) {
                        doubled.lock().unwrap().push(id);
                    }
                    json!({ "id": 9_000_000 })
                }
                (&Method::GET, None) => json!({
                    "id": id.parse::<u64>().unwrap_or(0), "account_id": 1, "inbox_id": 3, "status": "pending",
                    "can_reply": true, "messages": [], "meta": { "sender": { "id": 1 }, "channel": "Channel::WebWidget" },
                }),
                _ => json!({}),
            };
            Ok(json(StatusCode::OK, &body))
        }
    };
    Server::start(0, answer).await.unwrap()
}

async fn model() -> Server {
    let answer = |_request: http::Request<hyper::body::Incoming>| async {
        Ok(json(
            StatusCode::OK,
            &json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "fake-model",
                "choices": [{
                    "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "Here it is." },
                }],
                "usage": { "prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20 },
            }),
        ))
    };
    Server::start(0, answer).await.unwrap()
}

fn toml(chatwoot: &Server, model: &Server) -> String {
    format!(
        r#"
        [listen]
        public = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [storage]
        dir = "data"
        [runtime]
        workers = 1
        [relay]
        burst_ms = 0
        burst_max_ms = 0
        chatwoot_calls_per_minute = 10000000
        [[upstream]]
        name = "main"
        base_url = "{}/v1"
        models = ["*"]
        [[agent]]
        id = "default"
        kind = "openai"
        upstream = "main"
        model = "fake-model"
        system_prompt = "Answer."
        [[tenant]]
        id = "acme"
        plans = ["app.business", "chatwoot.pro"]
        [[tenant.chatwoot]]
        channel = "main"
        url = "{}"
        account_id = 1
        bot_id = 7
        bot_token = "fake-bot-token"
        webhook_secret = "fake-bot-secret"
        agent = "default"
        "#,
        model.url(),
        chatwoot.url(),
    )
}
