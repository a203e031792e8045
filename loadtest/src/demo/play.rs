//! The play: two questions of a customer, the wish for a human, and the addresses to try afterwards.
//!
//! What is printed is what the fake Chatwoot saw happen, never what we expect to happen; what was due
//! and did not come is an error.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::Options;
use super::show::{Show, Voice};
use super::stage::Stage;
use super::watch::{Happening, Watch, tell};
use crate::http::{exchange, read_all};

/// A pause for whoever is reading along.
const PAUSE: Duration = Duration::from_millis(1500);
/// The longest answer of the gateway's that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What the customer writes, and what is due then.
const SCENES: [(&str, Due); 3] = [
    ("Hello! How long does delivery take?", Due::Answer),
    ("And how can I return shoes that do not fit?", Due::Answer),
    ("Thanks. I want to talk to a human, please.", Due::Human),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Answer,
    Human,
}

/// What has come of what is due.
#[derive(Debug, Default)]
struct Come {
    /// The customer has written; what is told before belongs to the scene before.
    asked: bool,
    /// The webhook that carries what the customer wrote, as opposed to those that report our own doings.
    delivery_id: Option<String>,
    acknowledged: bool,
    answered: bool,
    noted: bool,
    opened: bool,
}

impl Come {
    fn is(&self, due: Due) -> bool {
        match due {
            Due::Answer => self.acknowledged && self.answered,
            Due::Human => self.acknowledged && self.answered && self.noted && self.opened,
        }
    }

    /// What is missing, in words.
    fn missing(&self, due: Due) -> String {
        let human = due == Due::Human;
        [
            (self.acknowledged, "the webhook's acknowledgement"),
            (self.answered, "a reply the customer sees"),
            (self.noted || !human, "a private note for the humans"),
            (self.opened || !human, "the conversation's status open"),
        ]
        .iter()
        .filter_map(|(come, what)| (!come).then_some(*what))
        .collect::<Vec<_>>()
        .join(", ")
    }
}

/// Plays the conversation and prints it as it happens. Gives the watch back, for what happens afterwards.
pub(super) async fn conversation(options: &Options, stage: &Stage, show: &Show) -> anyhow::Result<Watch> {
    let chatwoot = stage.chatwoot_url();
    let mut watch = Watch::begin(&chatwoot).await?;
    let started = tell(&chatwoot, "/control/conversations", &json!({})).await.context("starting a conversation")?;
    let id = started.get("conversation_id").and_then(Value::as_u64).context("the conversation has no number")?;
    for (text, due) in SCENES {
        if !options.once {
            tokio::time::sleep(PAUSE).await;
        }
        let acts = format!("/control/conversations/{id}/acts");
        tell(&chatwoot, &acts, &json!({"act": "customer_says", "text": text}))
            .await
            .context("letting the customer write")?;
        let mut come = Come::default();
        let began = Instant::now();
        let scene = async {
            while !come.is(due) {
                one(&watch.next().await?, &mut come, began, show)?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(options.reply_wait_max(), scene).await {
            Ok(done) => done?,
            Err(_) => bail!("within {:?} there did not come: {}", options.reply_wait_max(), come.missing(due)),
        }
    }
    show.plain("\nBoth questions were answered, and the conversation now belongs to a human.")?;
    Ok(watch)
}

/// Prints one happening and notes what has come with it.
fn one(happening: &Happening, come: &mut Come, began: Instant, show: &Show) -> anyhow::Result<()> {
    match happening {
        Happening::CustomerSaid { content } => {
            come.asked = true;
            show.plain("")?;
            show.says(Voice::Customer, content.as_deref().unwrap_or("(no text)"))?;
        }
        _ if !come.asked => {}
        Happening::WebhookSent { delivery_id, event, attempt } => {
            let is_first = come.delivery_id.is_none() && event == "message_created";
            if is_first {
                come.delivery_id = Some(delivery_id.clone());
            }
            if come.delivery_id.as_ref() == Some(delivery_id) {
                let again = if *attempt > 1 { format!(" (try {attempt})") } else { String::new() };
                show.says(Voice::Event, &format!("webhook {event} sent{again}"))?;
            }
        }
        Happening::WebhookAnswered { delivery_id, status, error, answer_us, .. } => {
            if come.delivery_id.as_ref() == Some(delivery_id) {
                come.acknowledged |= status.is_some_and(|status| (200..300).contains(&status));
                show.says(Voice::Event, &answered(*status, error.as_deref(), *answer_us))?;
            }
        }
        Happening::ReplySeen { content, by } => {
            let by_bot = by.as_ref().is_some_and(|by| by.get("bot").is_some());
            come.answered |= by_bot;
            show.says(if by_bot { Voice::Agent } else { Voice::Event }, content.as_deref().unwrap_or("(no text)"))?;
            let ms = began.elapsed().as_millis();
            show.says(Voice::Event, &format!("seen by the customer {ms} ms after the question"))?;
        }
        Happening::NoteAdded { content } => {
            come.noted = true;
            show.says(Voice::Note, &format!("{} (only humans see this)", content.as_deref().unwrap_or("(no text)")))?;
        }
        Happening::StatusChanged { from, to } => {
            come.opened |= to == "open";
            show.says(Voice::Event, &format!("status changed from {from} to {to}"))?;
        }
        Happening::GatewayTold | Happening::CrashAsked | Happening::Other => {}
    }
    Ok(())
}

/// How the webhook fared. The gateway answers 2xx only once the delivery is on its disk.
fn answered(status: Option<u16>, error: Option<&str>, answer_us: u64) -> String {
    let answer = match (status, error) {
        (Some(status), _) => format!("acknowledged with {status}"),
        (None, error) => format!("not answered ({})", error.unwrap_or("no reason given")),
    };
    format!("webhook {answer} after {}.{} ms", answer_us / 1000, answer_us % 1000 / 100)
}

/// Where to look and what to try while the demo stays.
pub(super) async fn addresses(stage: &Stage, show: &Show) -> anyhow::Result<()> {
    let (public, admin, key, model) = (stage.public_url(), stage.admin_url(), &stage.api_key, &stage.model);
    show.title("Try it yourself")?;
    show.plain(&format!("The page, as the customer and as a human: {}\n", stage.page_url()))?;
    show.plain("A streamed answer through the gateway, inside the demo tenant's plan:\n")?;
    show.plain(&format!(
        r#"  curl -N {public}/v1/chat/completions \
    -H "Authorization: Bearer {key}" \
    -H "Content-Type: application/json" \
    -d '{{"model": "{model}", "stream": true, "stream_options": {{"include_usage": true}}, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
"#
    ))?;
    show.plain(&format!("Metrics:        {admin}/metrics"))?;
    if let Some(limits) = limits(&public, key).await? {
        show.plain(&format!("Plan's limits:  curl {public}/v1/limits -H \"Authorization: Bearer {key}\""))?;
        for line in limits.lines() {
            show.aside(&format!("                {line}"))?;
        }
    }
    show.plain(&format!("Configuration:  {}", stage.config_path().display()))?;
    show.plain(&format!("Logs:           {}/*.log", stage.log_dir().display()))?;
    show.plain("\nCtrl-C stops everything.")?;
    Ok(())
}

/// What the gateway says about the demo tenant's limits, if it has such a page.
async fn limits(public_url: &str, api_key: &str) -> anyhow::Result<Option<String>> {
    let request = Request::get(format!("{public_url}/v1/limits")).header("authorization", format!("Bearer {api_key}"));
    let answer = exchange(request.body(Full::<Bytes>::default())?, Duration::from_secs(5)).await?;
    if answer.status() != StatusCode::OK {
        return Ok(None);
    }
    let body = read_all(answer.into_body(), ANSWER_BYTES_MAX).await?;
    let limits: Value = serde_json::from_slice(&body).context("reading the plan's limits")?;
    Ok(Some(serde_json::to_string_pretty(&limits)?))
}
