//! `relais chatwoot`: a Chatwoot connected, looked at and disconnected by the command, beside a gateway that runs.

#[path = "onboarding/failures.rs"]
mod failures;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use relais_gateway::reload::Watcher;
use relais_loadtest::fakes::chatwoot::{
    Author, ConversationKey, DeliveryEffect, DeliveryFault, FakeChatwoot, Faults, MessageType, Settings, Templates,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings as LlmSettings};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Gateway, toml};

const USER: &str = "fake-user-token";
const BOT: &str = "fake-bot-token";

/// A gateway that reads its files again, a Chatwoot whose one inbox has a bot of somebody else's, and a model.
struct World {
    chatwoot: FakeChatwoot,
    llm: FakeLlm,
    gateway: Gateway,
    _watcher: Watcher,
}

/// What the command said.
struct Said {
    exit: i32,
    text: String,
    told: Value,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error, "", "{text}");
        Self { exit: output.status.code().unwrap_or(-1), told: serde_json::from_str(&text).unwrap(), text }
    }

    fn changed(&self) -> bool {
        self.told["changed"].as_bool().unwrap()
    }

    /// The states of a step, in order.
    fn states(&self, step: &str) -> Vec<&str> {
        let steps = self.told["steps"].as_array().unwrap().iter();
        steps.filter(|one| one["step"] == step).map(|one| one["state"].as_str().unwrap()).collect()
    }
}

impl World {
    async fn start(settings: Settings) -> Self {
        let chatwoot = FakeChatwoot::start(Settings { retry_wait_ms: 1, ..settings }).await.unwrap();
        let behaviour = Behaviour { answer: Some("Tomorrow.".to_owned()), ..Behaviour::default() };
        let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
        let more = r#"
            [[agent]]
            id = "default"
            kind = "openai"
            upstream = "main"
            model = "fake-model"
            system_prompt = "Answer."
            [relay]
            burst_ms = 10
            burst_max_ms = 20
        "#;
        let toml = format!("include = [\"conf.d/*.toml\"]\n{}", toml(&llm.url(), "", more));
        let gateway = Gateway::start(&toml);
        let path = gateway.dir.path().join("relais.toml");
        std::fs::write(&path, &toml).unwrap();
        let watcher = Watcher::start(Arc::clone(&gateway.inner().gateway), path).unwrap();
        Self { chatwoot, llm, gateway, _watcher: watcher }
    }

    fn config(&self) -> PathBuf {
        self.gateway.dir.path().join("relais.toml")
    }

    fn file(&self) -> PathBuf {
        self.gateway.dir.path().join("conf.d/chatwoot-acme-main.toml")
    }

    fn public(&self) -> String {
        format!("http://{}", self.gateway.public())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command
            .args(["chatwoot", "--config"])
            .arg(self.config())
            .args(arguments)
            .arg("--json")
            .env("RELAIS_CHATWOOT_TOKEN", USER)
            .stdin(Stdio::null());
        command
    }

    fn relais(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command(arguments).output().unwrap())
    }

    fn connecting(&self, more: &[&str]) -> Command {
        let (url, public) = (self.chatwoot.url(), self.public());
        self.command(&[&["connect", "--url", &url, "--tenant", "acme", "--public-url", &public], more].concat())
    }

    fn connect(&self, more: &[&str]) -> Said {
        Said::of(&self.connecting(more).output().unwrap())
    }

    /// A call below the account, as an administrator.
    async fn account(&self, method: Method, rest: &str, body: Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/accounts/1/{rest}", self.chatwoot.url()))
            .header("api_access_token", USER)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let answer = self.gateway.call(request).await;
        assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    async fn bots(&self) -> Vec<Value> {
        self.account(Method::GET, "agent_bots", Value::Null).await.as_array().unwrap().clone()
    }

    /// The bot in the first inbox.
    async fn seated(&self) -> Option<u64> {
        let path = format!("inboxes/{}/agent_bot", self.chatwoot.world().chatwoot_inbox_id);
        self.account(Method::GET, &path, Value::Null).await["agent_bot"]["id"].as_u64()
    }

    /// Nobody sits in the first inbox.
    async fn vacate(&self) {
        let path = format!("inboxes/{}/set_agent_bot", self.chatwoot.world().chatwoot_inbox_id);
        self.account(Method::POST, &path, json!({ "agent_bot": null })).await;
    }

    /// What a self-test may not leave: its inbox, conversation or contact.
    async fn is_clean(&self) {
        let inboxes = self.account(Method::GET, "inboxes", Value::Null).await;
        assert_eq!(inboxes["payload"].as_array().unwrap().len(), 1, "{inboxes}");
        assert!(self.chatwoot.conversation_keys().is_empty(), "a conversation is left");
        let calls = self.chatwoot.calls();
        let count = |method: &str, end: fn(&str) -> bool| {
            calls.iter().filter(|call| call.method == method && end(&call.path) && call.status == Some(200)).count()
        };
        let contact = |path: &str| path.contains("/contacts");
        assert_eq!(count("POST", contact), count("DELETE", contact), "a contact is left");
    }

    fn replies(&self, key: ConversationKey) -> usize {
        let seen = self.chatwoot.seen_by_customer(key).into_iter();
        seen.filter(|seen| seen.message_type == MessageType::Outgoing && matches!(seen.by, Some(Author::Bot(_))))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_connects_a_second_changes_nothing_and_a_third_takes_it_away() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::start(Settings::default()).await;
    world.vacate().await;
    let inbox_id = world.chatwoot.world().chatwoot_inbox_id;
    let greeting =
        Templates { greeting_enabled: true, greeting_message: Some("Hi".to_owned()), ..Templates::default() };
    world.chatwoot.set_templates(inbox_id, greeting);

    let first = world.connect(&[]);
    assert_eq!((first.exit, first.changed()), (0, true), "{}", first.text);
    for (step, states) in [
        ("token", vec!["ok"]),
        ("version", vec!["ok"]),
        ("bot", vec!["changed", "note"]),
        ("file", vec!["changed"]),
        ("gateway", vec!["ok"]),
        ("self-test", vec!["ok"]),
        ("inbox", vec!["changed"]),
    ] {
        assert_eq!(first.states(step), states, "{step}: {}", first.text);
    }
    assert!(first.text.contains("greeting") && first.text.contains("auto-assignment"), "{}", first.text);
    world.is_clean().await;
    assert_eq!(world.llm.totals().started, 0, "a self-test asks no agent");
    let text = std::fs::read_to_string(world.file()).unwrap();
    assert_eq!(std::fs::metadata(world.file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains(USER), "an administrator's token is not kept unless asked for");
    let bots = world.bots().await;
    let bot = bots.iter().find(|bot| bot["outgoing_url"].as_str().is_some_and(|url| url.starts_with(&world.public())));
    let bot = bot.unwrap();
    let path_token = bot["outgoing_url"].as_str().unwrap().rsplit_once('/').unwrap().1;
    for secret in [path_token, bot["secret"].as_str().unwrap(), bot["access_token"].as_str().unwrap()] {
        assert!(text.contains(secret) && !first.text.contains(secret) && secret.len() >= 24, "{secret}");
    }
    assert!(!first.text.contains(USER));
    assert_eq!(world.seated().await, bot["id"].as_u64());

    // A customer is answered.
    let key = world.chatwoot.new_conversation().unwrap();
    world.chatwoot.customer(key).says("Where is my parcel?").unwrap();
    world.chatwoot.wait_until(DEADLINE, |_| world.replies(key) == 1).await.unwrap();
    let paths: Vec<PathBuf> = vec![world.file(), world.config()];
    let before: Vec<_> = paths.iter().map(|path| std::fs::metadata(path).unwrap().modified().unwrap()).collect();

    // The public address is known from the bot.
    let url = world.chatwoot.url();
    let second = world.relais(&["connect", "--url", &url, "--tenant", "acme"]);
    assert_eq!((second.exit, second.changed()), (0, false), "{}", second.text);
    let states = (second.states("bot"), second.states("file"), second.states("self-test"), second.states("inbox"));
    assert_eq!(
        states,
        (vec!["unchanged", "note"], vec!["unchanged"], vec!["ok"], vec!["unchanged"]),
        "{}",
        second.text
    );
    assert_eq!(world.bots().await, bots);
    let after: Vec<_> = paths.iter().map(|path| std::fs::metadata(path).unwrap().modified().unwrap()).collect();
    assert_eq!(before, after);

    let status = world.relais(&["status"]);
    assert_eq!((status.exit, status.changed()), (0, false), "{}", status.text);
    for step in ["secret", "deliveries", "bot", "address", "inbox"] {
        assert_eq!(status.states(step), ["ok"], "{step}: {}", status.text);
    }

    let gone = world.relais(&["disconnect", "--tenant", "acme"]);
    assert_eq!((gone.exit, gone.changed()), (0, true), "{}", gone.text);
    assert!(!world.file().exists());
    assert_eq!((world.bots().await.len(), world.seated().await), (1, None));
    let again = world.relais(&["disconnect", "--tenant", "acme"]);
    assert_eq!((again.exit, again.changed()), (0, false), "{}", again.text);
    assert_eq!(world.relais(&["status"]).exit, 1, "nothing is connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_is_taken_up_and_what_it_left_is_removed() {
    let world = World::start(Settings::default()).await;
    world.vacate().await;
    // Killed after the bot was made and before the file was there; another time in the middle of a self-test.
    let token = "a".repeat(40);
    let address = format!("{}/chatwoot/acme/{token}", world.public());
    let made = json!({ "name": "Relais", "outgoing_url": address });
    let bot = world.account(Method::POST, "agent_bots", made).await;
    let left = json!({ "name": "Relais self-test (temporary)", "channel": { "type": "api" } });
    world.account(Method::POST, "inboxes", left).await;

    let said = world.connect(&["--keep-user-token"]);
    assert_eq!((said.exit, said.states("bot")), (0, vec!["unchanged", "note"]), "{}", said.text);
    assert_eq!((world.bots().await.len(), world.seated().await), (2, bot["id"].as_u64()));
    world.is_clean().await;
    let text = std::fs::read_to_string(world.file()).unwrap();
    assert!(text.contains(&token) && text.contains(USER));
    // With the token that was kept, nobody has to give one.
    let status = world.command(&["status"]).env_remove("RELAIS_CHATWOOT_TOKEN").output().unwrap();
    assert_eq!(Said::of(&status).states("inbox"), ["ok"]);

    // The secret is changed at Chatwoot: told, and set right by a further run.
    let reset = world.account(Method::POST, &format!("agent_bots/{}/reset_secret", bot["id"]), Value::Null).await;
    let status = world.relais(&["status"]);
    assert_eq!((status.exit, status.states("secret")), (1, vec!["ok", "failed"]), "{}", status.text);
    let said = world.connect(&[]);
    assert_eq!((said.exit, said.states("file")), (0, vec!["changed"]), "{}", said.text);
    let text = std::fs::read_to_string(world.file()).unwrap();
    let (now, before) = (reset["secret"].as_str().unwrap(), bot["secret"].as_str().unwrap());
    assert!(text.contains(&format!("previous_webhook_secret = \"{before}\"")) && text.contains(now), "{text}");
    assert_eq!(world.relais(&["status"]).exit, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_bot_keeps_its_inbox_unless_it_is_taken_by_force() {
    let world = World::start(Settings::default()).await;
    let other = world.chatwoot.world().bot_id;
    let said = world.connect(&[]);
    assert_eq!((said.exit, said.states("inbox")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("--force"), "{}", said.text);
    assert_eq!(world.seated().await, Some(other));
    let said = world.connect(&["--force", "--inbox", "Website chat"]);
    assert_eq!((said.exit, said.states("inbox")), (0, vec!["changed"]), "{}", said.text);
    assert_ne!(world.seated().await, Some(other));
    let bots = world.bots().await;
    assert_eq!(bots.len(), 2, "the other bot is not touched");
    // A second channel gets a bot of its own, at an address of the same tenant.
    let said = world.connect(&["--channel", "second", "--no-self-test"]);
    assert_eq!((said.exit, said.states("inbox")), (1, vec!["failed"]), "{}", said.text);
    assert_eq!(world.bots().await.len(), 3);
    assert!(bots.iter().all(|bot| bot["id"] == json!(other) || said.text.contains(&format!("{} ", bot["id"]))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chatwoot_too_old_to_sign_is_connected_by_its_address_alone() {
    let world = World::start(Settings { bot_secrets: false, ..Settings::default() }).await;
    world.vacate().await;
    let said = world.connect(&[]);
    assert_eq!((said.exit, said.states("self-test")), (0, vec!["ok"]), "{}", said.text);
    assert!(said.text.contains("older than 4.13"), "{}", said.text);
    assert!(said.text.contains("Chatwoot 4.12.1 signs no bot webhooks"), "{}", said.text);
    assert!(!std::fs::read_to_string(world.file()).unwrap().contains("webhook_secret"));
    assert_eq!(world.relais(&["status"]).states("secret"), ["note"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_in_the_self_test_leaves_nothing_behind() {
    let world = World::start(Settings::default()).await;
    world.vacate().await;
    let deliveries = vec![DeliveryFault::share(1000, DeliveryEffect::Drop)];
    world.chatwoot.set_faults(Faults { deliveries, ..Faults::default() });
    let running = world.connecting(&["--wait", "600"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let written = |chatwoot: &FakeChatwoot| {
        chatwoot.conversation_keys().iter().any(|key| !chatwoot.seen_by_customer(*key).is_empty())
    };
    world.chatwoot.wait_until(DEADLINE, written).await.unwrap();
    let killed = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let said = Said::of(&running.wait_with_output().unwrap());
    assert_eq!(said.exit, 130, "{}", said.text);
    world.is_clean().await;
    assert_eq!(world.seated().await, None, "customers come last");
    // The next run goes on.
    world.chatwoot.set_faults(Faults::default());
    let said = world.connect(&[]);
    assert_eq!((said.exit, said.states("bot"), said.states("file")), (0, vec!["unchanged", "note"], vec!["unchanged"]));
}
