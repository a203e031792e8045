//! What the gateway tells of itself, brought to the page: whether it is ready, what is left of the plan, and what became
//! of the latest conversations' messages.
//!
//! Everything is asked as an operator would: `/readyz`, `/v1/limits` and `/v1/usage` with the tenant's key, and
//! `relais inbox show`, which reads the durable inbox beside the running gateway, and so also while it is down. Only the
//! fields below go further; no key, no token, no text.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::stage::Stage;
use super::watch::{Happening, Watch, tell};
use crate::http::{exchange, read_all};

/// How often it is asked though nothing happens: a call to `/v1` makes no happening.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Happenings come in groups: one question for all of them.
const GATHER: Duration = Duration::from_millis(150);
/// The gateway is on this machine; one that does not answer is down.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Conversations whose story is told: those in which something happened last.
const STORIES_MAX: usize = 4;
/// Messages and turns of a story, the latest.
const STORY_LENGTH_MAX: usize = 12;

/// Where and how to ask.
pub(super) struct Observer {
    public_url: String,
    admin_url: String,
    chatwoot_url: String,
    api_key: String,
    /// The gateway's program and its configuration.
    relais: PathBuf,
    config: PathBuf,
    /// Whether somebody is there who crashes the gateway when the page asks.
    can_crash: Arc<AtomicBool>,
}

impl Observer {
    pub(super) fn of(stage: &Stage, can_crash: Arc<AtomicBool>) -> Self {
        Self {
            public_url: stage.public_url(),
            admin_url: stage.admin_url(),
            chatwoot_url: stage.chatwoot_url(),
            api_key: stage.api_key.clone(),
            relais: stage.relais().to_owned(),
            config: stage.config_path(),
            can_crash,
        }
    }

    /// Tells the page for as long as there is one; ends with the fake Chatwoot.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut watch = Watch::begin(&self.chatwoot_url).await?;
        let mut latest = VecDeque::new();
        loop {
            if let Ok(line) = tokio::time::timeout(QUIET_MAX, watch.next_line()).await {
                let line = line?;
                // That was we ourselves: no reason to ask again.
                if line.happening == Happening::GatewayTold {
                    continue;
                }
                remember(&mut latest, &line);
                let gather = tokio::time::sleep(GATHER);
                tokio::pin!(gather);
                loop {
                    tokio::select! {
                        () = &mut gather => break,
                        line = watch.next_line() => remember(&mut latest, &line?),
                    }
                }
            }
            let report = self.report(&latest).await;
            tell(&self.chatwoot_url, "/control/gateway", &report).await?;
        }
    }

    async fn report(&self, latest: &VecDeque<u64>) -> Value {
        let mut stories = Map::new();
        for id in latest {
            // Nothing is kept of a conversation before its first delivery.
            if let Ok(story) = self.story(*id).await {
                stories.insert(id.to_string(), story);
            }
        }
        let ready = self.ask(&format!("{}/readyz", self.admin_url)).await.is_ok();
        let limits = self.json(&format!("{}/v1/limits", self.public_url)).await.ok();
        let usage = self.json(&format!("{}/v1/usage?group_by=kind", self.public_url)).await.ok();
        json!({
            "ready": ready,
            "can_crash": self.can_crash.load(Ordering::Relaxed),
            "plan": limits.as_ref().map(plan_left),
            "used": usage.as_ref().map(used),
            "stories": stories,
        })
    }

    async fn ask(&self, url: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(url).header("authorization", format!("Bearer {}", self.api_key));
        let answer = exchange(request.body(Full::<Bytes>::default())?, ANSWER_WAIT_MAX).await?;
        if answer.status() != StatusCode::OK {
            bail!("the gateway answered {}", answer.status());
        }
        let read = read_all(answer.into_body(), ANSWER_BYTES_MAX);
        Ok(tokio::time::timeout(ANSWER_WAIT_MAX, read).await.context("waiting for the gateway's answer")??)
    }

    async fn json(&self, url: &str) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.ask(url).await?).context("reading the gateway's answer")
    }

    /// `relais inbox show`, without texts.
    async fn story(&self, conversation_id: u64) -> anyhow::Result<Value> {
        let id = conversation_id.to_string();
        let mut command = Command::new(&self.relais);
        command.args(["inbox", "show", "demo", &id, "--format", "json", "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(ANSWER_WAIT_MAX, command.output()).await??;
        let stories: Value = serde_json::from_slice(&output.stdout).context("reading the inbox's story")?;
        Ok(story_told(stories.get(0).context("the inbox tells no story")?))
    }
}

/// Moves a conversation to the front of the latest ones.
fn remember(latest: &mut VecDeque<u64>, line: &super::watch::Line) {
    if line.conversation_id == 0 {
        return;
    }
    latest.retain(|id| *id != line.conversation_id);
    latest.push_front(line.conversation_id);
    latest.truncate(STORIES_MAX);
}

/// The fields of `/v1/limits` that the page shows.
fn plan_left(limits: &Value) -> Value {
    let left = |name: &str| limits.pointer(&format!("/remaining/{name}")).cloned().unwrap_or_default();
    json!({
        "plans": limits.get("plans"),
        "tokens": picked(&left("tokens"), &["limit", "remaining", "spent", "reserved"]),
        "calls_per_month": picked(&left("calls_per_month"), &["limit", "remaining"]),
        "calls_per_minute": picked(&left("calls_per_minute"), &["limit", "remaining"]),
        "conversations_per_month": picked(&left("conversations_per_month"), &["limit", "remaining"]),
    })
}

/// Model tokens of this period, those of the agent's answers apart.
fn used(usage: &Value) -> Value {
    let counts = ["input_tokens", "output_tokens", "calls"];
    let lines = usage.get("data").and_then(Value::as_array);
    let agent = lines.into_iter().flatten().find(|line| line.get("kind").is_some_and(|kind| kind == "agent"));
    json!({
        "agent": agent.map(|line| picked(line, &counts)),
        "total": usage.get("total").map(|total| picked(total, &counts)),
    })
}

/// A story without its identifiers: what became of which message, and each turn.
fn story_told(story: &Value) -> Value {
    let list = |name: &str| story.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let last = |all: Vec<Value>| all.get(all.len().saturating_sub(STORY_LENGTH_MAX)..).unwrap_or_default().to_vec();
    let asked = |one: &&Value| one.get("message_id").is_some_and(|id| *id != 0);
    let fields = ["message_id", "outcome", "received_at_ms", "ended_at_ms", "turn"];
    let messages = list("deliveries").iter().filter(asked).map(|one| picked(one, &fields)).collect();
    let fields = ["turn", "agent", "handoff", "outcome", "tries", "planned_at_ms", "ended_at_ms"];
    let turns = list("turns").iter().map(|one| picked(one, &fields)).collect();
    json!({
        "owner": story.get("owner"),
        "not_before_ms": story.get("not_before_ms"),
        "messages": last(messages),
        "turns": last(turns),
    })
}

/// These fields of an object and no others; null if it is none.
fn picked(from: &Value, fields: &[&str]) -> Value {
    let Some(from) = from.as_object() else { return Value::Null };
    let kept = fields.iter().filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
    Value::Object(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_page_shows_goes_further() {
        let story = json!({
            "tenant": "demo", "owner": "us", "not_before_ms": 0,
            "deliveries": [
                { "seq": 1, "event": "message_created", "message_id": 5, "outcome": "replied", "delivery_uuid": "d" },
                { "seq": 2, "event": "conversation_updated", "message_id": 0, "outcome": "signal" },
            ],
            "turns": [{ "turn": "t", "outcome": "replied", "posts": [{ "text": "private" }] }],
            "lines": [{ "text": "private" }],
        });
        let told = json!({
            "owner": "us", "not_before_ms": 0,
            "messages": [{ "message_id": 5, "outcome": "replied" }],
            "turns": [{ "turn": "t", "outcome": "replied" }],
        });
        assert_eq!(story_told(&story), told);
        let usage = json!({ "data": [{ "kind": "agent", "input_tokens": 7, "key": "k" }], "total": { "calls": 1 } });
        assert_eq!(used(&usage), json!({ "agent": { "input_tokens": 7 }, "total": { "calls": 1 } }));
    }

    #[test]
    fn the_latest_conversations_come_first_and_are_few() {
        let mut latest = VecDeque::new();
        let line = |conversation_id, happening| super::super::watch::Line { conversation_id, happening };
        for id in [1, 2, 3, 4, 5, 3] {
            remember(&mut latest, &line(id, Happening::Other));
        }
        remember(&mut latest, &line(0, Happening::GatewayTold));
        assert_eq!(latest, [3, 5, 4, 2]);
    }
}
