//! What was used survives a restart and a `kill -9`: the enforced figures, the recorded ones and those that are printed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use relais_gateway::clock::Clock;
use relais_loadtest::fakes::llm::{FakeLlm, Settings};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Gateway, KEY, get, post, toml};

const CHAT: &str = "/v1/chat/completions";
/// 2026-11-10T00:00:00Z.
const NOW_MS: i64 = 1_794_268_800_000;
const BUDGET: u64 = 1_000_000;

fn chat(stream: bool) -> String {
    json!({"model": "llama", "stream": stream, "messages": [{"role": "user", "content": "What do you sell?"}]})
        .to_string()
}

async fn tokens_left(gateway: &Gateway) -> u64 {
    gateway.get("/v1/models").await.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_process_stopped() {
    let llm = FakeLlm::start(Settings::default()).await.unwrap();
    let config = toml(&llm.url(), "tokens_per_month = 20000, calls_per_month = 50", "");
    let gateway = Gateway::start_at(&config, Clock::manual(NOW_MS));
    for stream in [true, false, true] {
        assert_eq!(gateway.post(CHAT, chat(stream)).await.status, 200);
    }
    let told: u64 = llm.calls().iter().map(|call| call.prompt_tokens + call.completion_tokens).sum();
    let dir = gateway.stop().await;
    let gateway = Gateway::start_in(&config, Clock::manual(NOW_MS), dir);
    assert_eq!(tokens_left(&gateway).await, 20_000 - told);
    let calls = gateway.get("/v1/limits").await.json();
    assert_eq!(calls["remaining"]["calls_per_month"]["remaining"], 47);
    // A new month, after another restart.
    let dir = gateway.stop().await;
    let clock = Clock::manual(NOW_MS);
    clock.advance(Duration::from_hours(24 * 21));
    let gateway = Gateway::start_in(&config, clock, dir);
    assert_eq!(tokens_left(&gateway).await, 20_000);
}

#[tokio::test]
async fn a_disk_that_refuses_ends_in_503_and_recovers_without_a_restart() {
    let llm = FakeLlm::start(Settings::default()).await.unwrap();
    let more = "[usage]\nflush_ms = 10\nunledgered_tokens_max = 1";
    let config = format!("{}\n{more}", toml(&llm.url(), "tokens_per_month = 20000", ""));
    let gateway = Gateway::start(&config);
    let ledger = rusqlite::Connection::open(gateway.dir.path().join("data/usage.db")).unwrap();
    ledger
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        .unwrap();
    assert_eq!(gateway.post(CHAT, chat(false)).await.status, 200);
    let refused = until(|| async {
        let answer = gateway.post(CHAT, chat(false)).await;
        (answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("storage_unavailable", Some("1")));
    assert!(gateway.metric("relais_ledger_errors_total").await > 0.0);
    assert!(gateway.metric("relais_ledger_unflushed_tokens").await > 0.0);
    ledger.execute_batch("DROP TRIGGER refuse").unwrap();
    until(|| async { (gateway.post(CHAT, chat(false)).await.status == 200).then_some(()) }).await;
    // Nothing of what was charged meanwhile is lost.
    until(|| async {
        let recorded: i64 = ledger.query_row("SELECT SUM(budget_tokens) FROM usage", [], |row| row.get(0)).unwrap();
        (u64::try_from(recorded).unwrap() == 20_000 - tokens_left(&gateway).await).then_some(())
    })
    .await;
}

/// `relais` as a process of its own, which can be killed.
struct Process {
    child: Child,
    public: SocketAddr,
}

impl Process {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_relais"))
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let public = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let record: Value = serde_json::from_str(&line).ok()?;
            let public =
                [&record["public"], &record["fields"]["public"]].into_iter().find_map(|public| public.as_str());
            public?.parse().ok()
        });
        // Read on, so that the process never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, public: public.expect("it does not serve") }
    }

    fn kill(mut self) {
        // SIGKILL.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_its_books_balance_and_hold_what_was_flushed() {
    let llm = FakeLlm::start(Settings::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relais.toml");
    let config = toml(&llm.url(), &format!("tokens_per_month = {BUDGET}, calls_per_month = 100000"), "");
    let config =
        config.replace("calls_per_month", "calls_per_minute = 100000, calls_in_flight = 1000, calls_per_month");
    std::fs::write(&path, format!("{config}\n[usage]\nflush_ms = 20\n[log]\nformat = \"json\"")).unwrap();
    let mut recorded = (0, 0);
    for round in 0..3_u64 {
        let process = Process::start(&path);
        let load: Vec<_> = (0..8).map(|worker| tokio::spawn(load(process.public, worker % 2 == 0))).collect();
        // Until some of this round's calls are on disk, and others run.
        let flushed = until(|| async {
            let now = printed(&path);
            (now.0 >= recorded.0 + 20 + round * 7).then_some(now)
        })
        .await;
        process.kill();
        for worker in load {
            worker.await.unwrap();
        }
        let process = Process::start(&path);
        // What was cut off is charged, and soon on disk: then the recorded and the enforced are one figure.
        recorded = until(|| async {
            let (calls, tokens) = printed(&path);
            (left(process.public).await == (100_000 - calls, BUDGET - tokens)).then_some((calls, tokens))
        })
        .await;
        assert!(recorded.0 >= flushed.0 && recorded.1 >= flushed.1, "{recorded:?} {flushed:?}");
        process.kill();
    }
    // Through three crashes no call was counted twice.
    let sent = llm.totals().started;
    assert!(recorded.0 <= sent, "{} recorded, {sent} sent", recorded.0);
}

/// Calls until there is nobody to call.
async fn load(to: SocketAddr, stream: bool) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    while let Ok(answer) = client.request(post(to, CHAT, KEY, chat(stream))).await {
        if answer.into_body().collect().await.is_err() {
            return;
        }
    }
}

/// Monthly calls and tokens left, as they are enforced.
async fn left(of: SocketAddr) -> (u64, u64) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request: Request<Full<Bytes>> = get(of, "/v1/limits", KEY);
    let answer = client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let remaining = serde_json::from_slice::<Value>(&answer).unwrap()["remaining"].clone();
    let number = |name: &str| remaining[name]["remaining"].as_u64().unwrap();
    (number("calls_per_month"), number("tokens"))
}

/// Calls and budget tokens, as `relais usage` prints them.
fn printed(config: &Path) -> (u64, u64) {
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["usage", "--by", "tenant", "--format", "json", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| rows[0][name].as_u64().unwrap_or(0);
    (number("calls"), number("budget_tokens"))
}

/// Asks again until there is something; fails if there never is.
async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("never came")
}
