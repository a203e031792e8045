//! A configuration changed while serving: all of it at once, and nothing that was used is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relais_gateway::reload::{ReloadError, Watcher};
use relais_loadtest::fakes::llm::{FakeLlm, Settings};
use serde_json::json;

use crate::support::{DEADLINE, Gateway, KEY, config, post, toml};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> String {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, is anybody there?"}]}).to_string()
}

async fn llm() -> FakeLlm {
    FakeLlm::start(Settings::default()).await.unwrap()
}

fn take_over(gateway: &Gateway, toml: &str) -> Result<(), ReloadError> {
    gateway.inner().gateway.take_over(config(toml, gateway.dir.path()))
}

async fn left(gateway: &Gateway, header: &str) -> u64 {
    gateway.get("/v1/models").await.header(header).unwrap().parse().unwrap()
}

#[tokio::test]
async fn other_limits_take_effect_and_what_was_used_stays_used() {
    let llm = llm().await;
    let with = |overrides: &str| toml(&llm.url(), overrides, "");
    let gateway = Gateway::start(&with("tokens_per_month = 1000, calls_per_month = 10, calls_per_minute = 10"));
    for _ in 0..4 {
        assert_eq!(gateway.post(CHAT, chat()).await.status, 200);
    }
    let used = 1000 - left(&gateway, "x-ratelimit-remaining-tokens").await;
    take_over(&gateway, &with("tokens_per_month = 5000, calls_per_month = 20, calls_per_minute = 100")).unwrap();
    assert_eq!(left(&gateway, "x-ratelimit-remaining-tokens").await, 5000 - used);
    assert_eq!(left(&gateway, "x-ratelimit-remaining-requests").await, 96);
    take_over(&gateway, &with("tokens_per_month = 10, calls_per_month = 3")).unwrap();
    let refused = gateway.post(CHAT, chat()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "quota_exceeded"));
    take_over(&gateway, &with("tokens_per_month = 1000, calls_per_month = 10, calls_per_minute = 10")).unwrap();
    assert_eq!(left(&gateway, "x-ratelimit-remaining-tokens").await, 1000 - used);
}

#[tokio::test]
async fn a_key_that_is_gone_is_refused_and_a_new_one_let_in() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "", ""));
    let other = KEY.replace("000000000001", "00000000000b");
    assert_eq!(gateway.call(post(gateway.public(), CHAT, &other, chat())).await.status, 401);
    take_over(&gateway, &toml(&llm.url(), "", "").replace(KEY, &other)).unwrap();
    assert_eq!(gateway.call(post(gateway.public(), CHAT, &other, chat())).await.status, 200);
    assert_eq!(gateway.post(CHAT, chat()).await.status, 401);
}

#[tokio::test]
async fn what_only_a_start_can_change_is_refused_by_name_and_nothing_is_taken() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "calls_per_month = 5", ""));
    let changed = toml(&llm.url(), "calls_per_month = 1", "").replace("dir = \"data\"", "dir = \"elsewhere\"");
    let error = take_over(&gateway, &changed).unwrap_err();
    assert!(error.to_string().contains("storage.dir"), "{error}");
    assert!(gateway.get("/v1/models").await.header("ratelimit").unwrap().contains("\"calls\";r=5"));
}

#[tokio::test]
async fn a_broken_file_keeps_what_serves_and_shows() {
    let llm = llm().await;
    let text = toml(&llm.url(), "calls_per_month = 5", "");
    let gateway = Gateway::start(&text);
    let path = gateway.dir.path().join("relais.toml");
    std::fs::write(&path, "[[tenant]]\nid = \"acme\"\nplan = 3\n").unwrap();
    let inner = Arc::clone(&gateway.inner().gateway);
    let watcher = Watcher::start(Arc::clone(&inner), path.clone()).unwrap();
    watcher.reload();
    wait_for(&gateway, "relais_config_ok", 0.0).await;
    assert_eq!(gateway.post(CHAT, chat()).await.status, 200);
    std::fs::write(&path, text.replace("calls_per_month = 5", "calls_per_month = 7")).unwrap();
    // Nobody asks: the change is noticed.
    wait_for(&gateway, "relais_config_ok", 1.0).await;
    assert!(gateway.get("/v1/models").await.header("ratelimit").unwrap().contains("\"calls\";r=6"));
}

async fn wait_for(gateway: &Gateway, metric: &str, value: f64) {
    let waiting = async {
        while gateway.metric(metric).await != value {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{metric} is never {value}"));
}

#[tokio::test]
async fn no_call_sees_half_a_configuration() {
    let llm = llm().await;
    let gateway = Gateway::start(&toml(&llm.url(), "calls_per_minute = 1000000", ""));
    // Two states of the world, each whole: the alias and the upstream it leads to change together.
    let states = [toml(&llm.url(), "calls_per_minute = 1000000", ""), {
        toml(&llm.url(), "calls_per_minute = 2000000", "").replace("\"gpt-4o\" = \"llama\"", "\"gpt-4o\" = \"other\"")
    }];
    let stop = Arc::new(AtomicBool::new(false));
    let inner = Arc::clone(&gateway.inner().gateway);
    let dir = gateway.dir.path().to_owned();
    let reloading = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            for state in states.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                inner.take_over(config(state, &dir)).unwrap();
            }
        }
    });
    let mut statuses = Vec::new();
    for _ in 0..200 {
        statuses.push(gateway.post(CHAT, chat()).await.status);
    }
    stop.store(true, Ordering::Relaxed);
    reloading.join().unwrap();
    assert!(statuses.iter().all(|status| *status == 200));
    assert!(llm.calls().iter().all(|call| ["llama", "other"].contains(&call.model.as_str())));
    assert_eq!(gateway.metric("relais_requests_in_flight{route=\"chat\"}").await, 0.0);
}

#[tokio::test]
async fn the_state_of_knowledge_is_told_through_broken_folders_and_reloads() {
    let llm = llm().await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("hours.md");
    std::fs::write(&page, "# Opening hours\n\nFrom 9 to 5.").unwrap();
    let with = |agent: &str| {
        let more = format!("\n[[agent]]\nid = \"{agent}\"\nkind = \"knowledge\"\ndir = {:?}\n", folder.path());
        toml(&llm.url(), "", "") + &more
    };
    let told = |agent: &str| format!("relais_knowledge_ok{{agent=\"{agent}\"}}");
    let gateway = Gateway::start(&with("docs"));
    assert!((gateway.metric(&told("docs")).await - 1.0).abs() < f64::EPSILON);
    let path = gateway.dir.path().join("relais.toml");
    std::fs::write(&path, with("docs")).unwrap();
    let watcher = Watcher::start(Arc::clone(&gateway.inner().gateway), path.clone()).unwrap();
    std::fs::write(&page, b"# Opening hours\n\n\xff\xfe").unwrap();
    watcher.reload();
    wait_for(&gateway, &told("docs"), 0.0).await;
    // A configuration cannot be taken over while its knowledge cannot be read, and what serves is still told to be old.
    std::fs::write(&path, with("other")).unwrap();
    watcher.reload();
    wait_for(&gateway, "relais_config_ok", 0.0).await;
    assert!(gateway.metric(&told("docs")).await.abs() < f64::EPSILON);
    assert!(gateway.metrics().await.contains(&told("docs")), "0 because it is broken, not because it is gone");
    std::fs::write(&page, "# Opening hours\n\nFrom 10 to 4.").unwrap();
    watcher.reload();
    wait_for(&gateway, &told("other"), 1.0).await;
    assert!(!gateway.metrics().await.contains(&told("docs")), "an agent that is gone has no gauge");
    // The folder of the agent that serves is the one that is looked at.
    std::fs::write(&page, b"# Opening hours\n\n\xff\xfe\xff").unwrap();
    wait_for(&gateway, &told("other"), 0.0).await;
    drop(watcher);
}
