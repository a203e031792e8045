//! The three processes of a crash run: the real `relais`, which is killed, and in this process a Chatwoot and a model
//! that misbehave.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use relais_loadtest::fakes::chatwoot::{
    Bounds, CallEffect, CallFault, DeliveryEffect, DeliveryFault, Endpoint, FakeChatwoot, Faults, Settings,
};
use relais_loadtest::http::{Hangup, Server, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::schedule::{Dice, Size};

/// Log lines of the process that a failure shows.
const LINES_MAX: usize = 60;

/// Everything of a run.
pub(crate) struct World {
    pub(crate) chatwoot: FakeChatwoot,
    pub(crate) log: Arc<Mutex<VecDeque<String>>>,
    _model: Server,
    config: PathBuf,
    child: Option<Child>,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start(size: Size) -> Self {
        // Both kinds of Chatwoot: one that opens what the bot missed, one that keeps it pending; and channels with
        // and without a token that may read messages.
        let (keep_pending, with_user) = (size.seed % 4 >= 2, size.seed.is_multiple_of(2));
        let bounds = Bounds { deliveries_kept_max: 2_000_000, ..Settings::default().bounds };
        let settings = Settings {
            seed: size.seed,
            channel: "Channel::Instagram".to_owned(),
            keep_pending_on_bot_failure: keep_pending,
            retry_wait_ms: 30,
            workers_max: 40,
            conversation_messages_per_minute_max: 100_000,
            bounds,
            ..Settings::default()
        };
        let chatwoot = FakeChatwoot::start(settings).await.unwrap();
        let model = model(size.seed).await;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("relais.toml");
        // Always the same, so that what was sent while it was down comes back to it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        chatwoot.set_outgoing_url(&format!("http://127.0.0.1:{port}/chatwoot/acme"));
        std::fs::write(&config, toml(&chatwoot, &model, port, with_user)).unwrap();
        let mut world = Self { chatwoot, log: Arc::default(), _model: model, config, child: None, dir };
        world.spawn();
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("it does not start");
        world.chatwoot.set_faults(faults());
        world
    }

    /// Starts the process, and does not wait until it serves.
    pub(crate) fn spawn(&mut self) {
        self.child = Some(relais(&self.config, &self.log));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether the process ended although nobody killed it.
    pub(crate) fn died(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("data/inbox.db")
    }
}

/// The real binary with this configuration; the last of its lines that tell of trouble go to `log`.
pub(crate) fn relais(config: &Path, log: &Arc<Mutex<VecDeque<String>>>) -> Child {
    // Another build of it, such as one for release, can be had by hand.
    let binary = std::env::var_os("RELAIS_CRASH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_relais").into());
    let mut child =
        Command::new(binary).arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|line| !line.contains("\"level\":\"INFO\"")) {
            let mut log = log.lock().unwrap();
            if log.len() >= LINES_MAX {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
    child
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

/// 2 % of posts stored without an answer, 2 % refused with 500, 2 % with 429; now and then the same to other calls.
/// 5 % of deliveries twice, 5 % overtaken, 2 % late.
fn faults() -> Faults {
    let call = |on, effect| CallFault::share(on, 20, effect);
    Faults {
        calls: vec![
            call(Endpoint::CreateMessage, CallEffect::Ambiguous),
            call(Endpoint::CreateMessage, CallEffect::Status(500)),
            call(Endpoint::CreateMessage, CallEffect::Status(429)),
            CallFault::share(Endpoint::CreateMessage, 10, CallEffect::DoneThenStatus(500)),
            CallFault::share(Endpoint::CreateMessage, 50, CallEffect::DelayMs(150)),
            call(Endpoint::ShowConversation, CallEffect::Status(500)),
            call(Endpoint::ShowConversation, CallEffect::Status(429)),
            call(Endpoint::ToggleStatus, CallEffect::Status(500)),
            call(Endpoint::ToggleStatus, CallEffect::Ambiguous),
        ],
        deliveries: vec![
            DeliveryFault::share(50, DeliveryEffect::Duplicate),
            DeliveryFault::share(50, DeliveryEffect::Reorder),
            DeliveryFault::share(20, DeliveryEffect::DelayMs(200)),
        ],
    }
}

/// A model that says which message it answers, and never the same twice. Some answers need two or three parts, some
/// take their time, some calls fail.
async fn model(seed: u64) -> Server {
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.map_err(|_| Hangup)?.to_bytes();
            let mut dice = Dice(seed ^ (call as u64) << 20);
            tokio::time::sleep(Duration::from_millis(dice.below(80) as u64)).await;
            if dice.below(50) == 0 {
                return Ok(json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": {"message": "no"}})));
            }
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let said = asked["messages"].as_array().unwrap().iter().rev().find(|said| said["role"] == "user");
            let text = said.map(|said| said["content"].to_string()).unwrap_or_default();
            let number = last_number(&text);
            let more = if dice.below(6) == 0 { long(call, 1 + dice.below(2)) } else { String::new() };
            let content = format!("Answer {call} to m{number}.{more}");
            Ok(json(
                StatusCode::OK,
                &json!({
                    "id": format!("chatcmpl-{call}"), "object": "chat.completion", "created": 1, "model": "fake-model",
                    "choices": [{
                        "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content},
                    }],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
                }),
            ))
        }
    };
    Server::start(0, answer).await.unwrap()
}

/// The last `m123:` of a text.
fn last_number(text: &str) -> &str {
    let ends = text.match_indices(':').map(|(at, _)| &text[..at]);
    let mut numbers = ends.filter_map(|head| {
        let digits = &head[head.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1)..];
        (!digits.is_empty() && head[..head.len() - digits.len()].ends_with('m')).then_some(digits)
    });
    numbers.next_back().unwrap_or_default()
}

/// So many thousands of characters, none of whose sentences is said twice in a run.
fn long(call: usize, thousands: usize) -> String {
    (0..thousands * 20).map(|at| format!(" Sentence {at} of answer {call} goes on about parcels.")).collect()
}

fn toml(chatwoot: &FakeChatwoot, model: &Server, port: u16, with_user: bool) -> String {
    let world = chatwoot.world();
    let user = if with_user { "user_token = \"fake-user-token\"" } else { "" };
    format!(
        r#"
        [listen]
        public = "127.0.0.1:{port}"
        admin = "127.0.0.1:0"
        [storage]
        dir = "data"
        [runtime]
        workers = 1
        [log]
        access = false
        [relay]
        burst_ms = 60
        burst_max_ms = 400
        agent_wait_ms = 3000
        agent_tries = 2
        chatwoot_wait_ms = 700
        chatwoot_tries = 4
        chatwoot_calls_per_minute = 1000000
        chatwoot_pause_ms = 20
        loop_turns_max = 1000000
        loop_flips_max = 1000000
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
        account_id = {}
        bot_id = {}
        bot_token = "fake-bot-token"
        webhook_secret = "fake-bot-secret"
        {user}
        agent = "default"
        "#,
        model.url(),
        chatwoot.url(),
        world.account_id,
        world.bot_id,
    )
}
