//! `relais inbox` beside a gateway that runs: what waits, why, the whole story of it, and trying it again.

use std::process::{Command, Output};
use std::time::Duration;

use relais_loadtest::fakes::chatwoot::{
    Author, CallEffect, CallFault, ConversationKey, Endpoint, FakeChatwoot, Faults, MessageType, Settings,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings as LlmSettings};
use serde_json::Value;

use crate::support::{DEADLINE, Gateway, toml};

const QUESTION: &str = "Where is my parcel?";

/// The command, as an operator gives it.
fn relais(gateway: &Gateway, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["inbox", "--config"])
        .arg(gateway.dir.path().join("relais.toml"))
        .args(arguments)
        .output()
        .unwrap()
}

pub(crate) fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = relais(gateway, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn list(gateway: &Gateway, more: &[&str]) -> Vec<Value> {
    let text = printed(gateway, &[&["list", "--format", "json"], more].concat());
    serde_json::from_str(&text).unwrap()
}

pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("never came")
}

pub(crate) async fn world() -> (FakeChatwoot, FakeLlm, Gateway) {
    let chatwoot = FakeChatwoot::start(Settings::default()).await.unwrap();
    let behaviour = Behaviour { answer: Some("Tomorrow.".to_owned()), ..Behaviour::default() };
    let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
    let more = format!(
        r#"
        [[tenant.chatwoot]]
        channel = "main"
        url = "{}"
        account_id = {}
        bot_id = {}
        bot_token = "fake-bot-token"
        webhook_secret = "fake-bot-secret"
        agent = "default"
        [[agent]]
        id = "default"
        kind = "openai"
        upstream = "main"
        model = "fake-model"
        system_prompt = "Answer."
        [relay]
        burst_ms = 10
        burst_max_ms = 20
        chatwoot_tries = 1
        chatwoot_wait_ms = 600000
        "#,
        chatwoot.url(),
        chatwoot.world().account_id,
        chatwoot.world().bot_id
    );
    let toml = toml(&llm.url(), "", &more);
    let gateway = Gateway::start(&toml);
    std::fs::write(gateway.dir.path().join("relais.toml"), &toml).unwrap();
    chatwoot.set_outgoing_url(&format!("http://{}/chatwoot/acme", gateway.public()));
    (chatwoot, llm, gateway)
}

pub(crate) fn asked(chatwoot: &FakeChatwoot) -> ConversationKey {
    let key = chatwoot.new_conversation().unwrap();
    chatwoot.customer(key).says(QUESTION).unwrap();
    key
}

pub(crate) fn replies(chatwoot: &FakeChatwoot, key: ConversationKey) -> usize {
    let seen = chatwoot.seen_by_customer(key).into_iter();
    seen.filter(|seen| seen.message_type == MessageType::Outgoing && matches!(seen.by, Some(Author::Bot(_)))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_off_is_listed_told_and_tried_again() {
    let (chatwoot, _llm, gateway) = world().await;
    assert_eq!(printed(&gateway, &["list"]), "Nothing is waiting.\n");
    // Chatwoot sends and does not answer.
    let calls = vec![CallFault::share(Endpoint::ShowConversation, 1000, CallEffect::Hangup)];
    chatwoot.set_faults(Faults { calls, ..Faults::default() });
    let key = asked(&chatwoot);
    let number = key.conversation_id.to_string();
    let waiting = until(|| list(&gateway, &[]).into_iter().find(|one| one["state"] == "put_off")).await;
    let expected = (key.conversation_id, "acme", "main", 1, 0);
    let told = (
        waiting["conversation_id"].as_u64().unwrap(),
        waiting["tenant"].as_str().unwrap(),
        waiting["channel"].as_str().unwrap(),
        waiting["unfinished"].as_u64().unwrap(),
        waiting["damaged"].as_u64().unwrap(),
    );
    assert_eq!(told, expected, "{waiting}");
    let table = printed(&gateway, &["list", "--tenant", "acme"]);
    // Five minutes, with jitter.
    assert!(table.contains("put_off") && table.contains(" min"), "{table}");
    assert_eq!(printed(&gateway, &["list", "--tenant", "other"]), "Nothing is waiting.\n");

    chatwoot.set_faults(Faults::default());
    let retried = printed(&gateway, &["retry", "--conversation", &number]);
    assert!(retried.starts_with("1 conversation made due now, 0 due already, 0 of which"), "{retried}");
    until(|| (replies(&chatwoot, key) == 1).then_some(())).await;
    until(|| list(&gateway, &[]).is_empty().then_some(())).await;

    let story = printed(&gateway, &["show", "acme", &number]);
    for part in ["message_created", "replied", "part 0, reply, posted as message", "status pending"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert!(!story.contains("parcel") && !story.contains("Tomorrow"), "{story}");
    let texts = printed(&gateway, &["show", "acme", &number, "--texts"]);
    assert!(texts.contains(QUESTION) && texts.contains(": Tomorrow."), "{texts}");
    let export = printed(&gateway, &["export"]);
    let line: Value = serde_json::from_str(export.trim_end()).unwrap();
    assert_eq!(line["turns"][0]["posts"][0]["state"], "posted");
    assert!(line["deliveries"].as_array().unwrap().iter().all(|delivery| delivery["outcome"] != "unfinished"));
    assert!(!export.contains("parcel") && !export.contains("pubsub"), "{export}");
    let nobody = relais(&gateway, &["show", "acme", "4711"]);
    assert!(!nobody.status.success());
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("keeps nothing of conversation 4711"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_delivery_is_seen_until_a_human_has_dismissed_it() {
    let (chatwoot, llm, gateway) = world().await;
    let calls = vec![CallFault::share(Endpoint::ShowConversation, 1000, CallEffect::Hangup)];
    chatwoot.set_faults(Faults { calls, ..Faults::default() });
    let key = asked(&chatwoot);
    let number = key.conversation_id.to_string();
    until(|| list(&gateway, &[]).into_iter().find(|one| one["state"] == "put_off")).await;
    // The answer to that is decided. What comes now waits behind it.
    let asked = llm.totals().started;
    let second = chatwoot.customer(key).says("And my other parcel?").unwrap();
    until(|| list(&gateway, &[]).into_iter().find(|one| one["unfinished"] == 2)).await;
    let db = rusqlite::Connection::open(gateway.dir.path().join("data/inbox.db")).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    let changed = db
        .execute("UPDATE deliveries SET body = x'7b7d' WHERE message_id = ?1", [i64::try_from(second).unwrap()])
        .unwrap();
    assert_eq!(changed, 1);
    chatwoot.set_faults(Faults::default());
    printed(&gateway, &["retry"]);
    until(|| (replies(&chatwoot, key) == 1).then_some(())).await;
    let damaged = until(|| list(&gateway, &["--damaged"]).pop().filter(|one| one["unfinished"] == 0)).await;
    assert_eq!((&damaged["state"], &damaged["damaged"]), (&Value::from("damaged"), &Value::from(1)));
    // Once more changes nothing: it is never answered as something else.
    let retried = printed(&gateway, &["retry"]);
    assert!(retried.contains("0 conversations made due now, 0 due already, 1 of which only damaged"), "{retried}");
    assert_eq!((llm.totals().started, replies(&chatwoot, key)), (asked, 1));
    let gauge = async |wanted: f64| {
        let seen = async {
            while (gateway.metric("relais_inbox_damaged").await - wanted).abs() > 0.5 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, seen).await.expect("the gauge does not show it");
    };
    gauge(1.0).await;
    let dismissed = printed(&gateway, &["dismiss", "--tenant", "acme", "--conversation", &number]);
    assert_eq!(dismissed, "1 damaged delivery dismissed.\n");
    assert!(list(&gateway, &[]).is_empty());
    assert!(printed(&gateway, &["show", "acme", &number]).contains("damaged"));
    gauge(0.0).await;
    assert!(!relais(&gateway, &["dismiss", "--tenant", "acme", "--conversation", &number]).status.success());
}
