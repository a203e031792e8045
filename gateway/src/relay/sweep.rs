//! Looking after conversations that no delivery tells of: messages that were missed, and conversations gone quiet.
//!
//! Webhooks are no complete log. Chatwoot gives up on one within seconds, so what customers wrote while we were down,
//! or while the inbox took nothing, may never come; and a *pending* conversation is hidden from humans and is never
//! resolved by Chatwoot itself. Two loops see to that, each a task of its own: `missed` after a start and after
//! refusals, `idle` now and then.
//!
//! Neither answers, posts or closes anything. They put into the inbox what a delivery would have put there, and a
//! note that a conversation is quiet; the conversation's own lane does the rest, one thing after the other, after
//! asking Chatwoot again. So neither needs to know what a lane is doing, and a crash loses nothing. They run beside
//! the traffic and delay no start.

mod missed;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{idle, retry};
use crate::chatwoot::client::{CallClass, CallError, Chatwoot};
use crate::chatwoot::installation::Installations;
use crate::clock::Clock;
use crate::config;
use crate::http::client::Client;
use crate::inbox::{AcceptError, Inbox, InboxError};
use crate::metrics::Metrics;

/// How often the loops ask the clock whether something is due.
const TICK: Duration = Duration::from_millis(250);
/// The first wait before a channel whose Chatwoot could not be used is tried again. Doubles.
const RETRY_FIRST: Duration = Duration::from_secs(15);

/// All channels there are, with their tenants. A function, since a reload replaces them.
pub type AllChannels = Arc<dyn Fn() -> Vec<(Arc<str>, Arc<config::Channel>)> + Send + Sync>;

/// What the sweeps work with.
#[derive(Clone)]
pub struct SweepParts {
    /// Where what is found goes.
    pub inbox: Inbox,
    /// Where to look.
    pub channels: AllChannels,
    /// Connections to the Chatwoots, of the runtime the sweeps are started on.
    pub http: Client,
    /// How many calls each Chatwoot takes.
    pub installations: Arc<Installations>,
    /// Time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Bounds and waits.
    pub limits: config::Sweep,
    /// One call to a Chatwoot.
    pub chatwoot_wait: Duration,
}

impl SweepParts {
    fn client(&self, channel: &Arc<config::Channel>) -> Chatwoot {
        let installation = self.installations.at(&channel.url);
        let (channel, metrics) = (Arc::clone(channel), Arc::clone(&self.metrics));
        Chatwoot::new(self.http.clone(), channel, installation, self.chatwoot_wait, metrics)
    }
}

/// The running sweeps. Dropping it ends them where they are: what they had entered is in the inbox.
pub struct SweepHandle {
    _loops: JoinSet<()>,
}

impl SweepHandle {
    /// Starts on the current runtime.
    pub fn start(parts: SweepParts) -> Self {
        let mut loops = JoinSet::new();
        loops.spawn(look_for_missed(parts.clone()));
        loops.spawn(look_for_idle(parts));
        Self { _loops: loops }
    }
}

/// Why a channel was not swept to the end.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    /// Chatwoot did not tell.
    #[error("asking Chatwoot")]
    Call(#[from] CallError),
    /// The inbox does not take what was found.
    #[error("entering what was found")]
    Accept(#[from] AcceptError),
    /// The inbox cannot be asked.
    #[error("asking the inbox")]
    Inbox(#[from] InboxError),
}

/// A channel that is to be swept for missed messages.
#[derive(Clone)]
struct Todo {
    tenant: Arc<str>,
    channel: Arc<str>,
    /// What came before this is known: Unix ms.
    before_ms: i64,
    /// Not before this: Unix ms.
    due_ms: i64,
    tries: u32,
}

async fn look_for_missed(parts: SweepParts) {
    if parts.limits.missed_age_max.is_zero() {
        return;
    }
    let mut todo = all(&parts, parts.clock.now_ms(), true);
    let mut refusals = Refusals { seen: refused(&parts), since_ms: None, last_ms: 0, looked_ms: parts.clock.now_ms() };
    loop {
        let now_ms = parts.clock.now_ms();
        if let Some(since_ms) = refusals.over(refused(&parts), now_ms, parts.limits.missed_calm) {
            let older = std::mem::replace(&mut todo, all(&parts, since_ms, false));
            // A gap that could not be looked into yet is not forgotten for a younger one.
            for new in &mut todo {
                let same = older.iter().find(|old| old.tenant == new.tenant && old.channel == new.channel);
                new.before_ms = same.map_or(new.before_ms, |old| new.before_ms.min(old.before_ms));
            }
        }
        let (due, later) = todo.into_iter().partition(|todo: &Todo| todo.due_ms <= now_ms);
        todo = later;
        todo.extend(sweep(&parts, due).await);
        tokio::time::sleep(TICK).await;
    }
}

/// Every channel that can be swept. `told`: say which cannot.
fn all(parts: &SweepParts, before_ms: i64, told: bool) -> Vec<Todo> {
    let (able, unable): (Vec<_>, Vec<_>) =
        (parts.channels)().into_iter().partition(|(_, channel)| channel.user_token.is_some());
    if told && !unable.is_empty() {
        let channels = unable.len();
        info!(
            channels,
            "Channels without a user_token: what their customers wrote while we were down is not looked for."
        );
    }
    let todo = |(tenant, channel): (Arc<str>, Arc<config::Channel>)| Todo {
        tenant,
        channel: channel.name.as_str().into(),
        before_ms,
        due_ms: 0,
        tries: 0,
    };
    able.into_iter().map(todo).collect()
}

fn refused(parts: &SweepParts) -> u64 {
    let inbox = &parts.metrics.inbox;
    inbox.shed.get().saturating_add(inbox.failed.get())
}

/// When deliveries were refused.
struct Refusals {
    /// Counted so far.
    seen: u64,
    /// Since when, if they are not dealt with yet.
    since_ms: Option<i64>,
    last_ms: i64,
    looked_ms: i64,
}

impl Refusals {
    /// Since when deliveries were refused, once none has been for `calm`.
    fn over(&mut self, refused: u64, now_ms: i64, calm: Duration) -> Option<i64> {
        if refused != self.seen {
            self.seen = refused;
            self.last_ms = now_ms;
            // They began after we looked last.
            self.since_ms.get_or_insert(self.looked_ms);
        }
        self.looked_ms = now_ms;
        let calm_since = now_ms.saturating_sub(self.last_ms);
        if calm_since < super::dispatch::millis(calm) { None } else { self.since_ms.take() }
    }
}

/// Sweeps channels, a few side by side. Those that are to be tried again.
async fn sweep(parts: &SweepParts, due: Vec<Todo>) -> Vec<Todo> {
    let mut again = Vec::new();
    let mut running = JoinSet::new();
    for todo in due {
        if running.len() >= parts.limits.channels_at_once.max(1) {
            again.extend(running.join_next().await.and_then(Result::ok).flatten());
        }
        running.spawn(sweep_channel(parts.clone(), todo));
    }
    while let Some(swept) = running.join_next().await {
        again.extend(swept.ok().flatten());
    }
    again
}

/// Sweeps one channel; the same again if that may end otherwise later.
async fn sweep_channel(parts: SweepParts, todo: Todo) -> Option<Todo> {
    // It may have gone, or lost its token, since.
    let mut channels = (parts.channels)().into_iter();
    let (tenant, channel) =
        channels.find(|(tenant, channel)| *tenant == todo.tenant && *channel.name == *todo.channel)?;
    let client = parts.client(&channel);
    let lists = client.lists()?;
    let mut found = missed::Found::default();
    let swept = missed::sweep(&parts, &tenant, lists, todo.before_ms, &mut found).await;
    let outcome = if swept.is_ok() { "done" } else { "failed" };
    parts.metrics.sweep.runs.with_label_values(&["missed", outcome]).inc();
    info!(
        tenant_id = %tenant, channel = %channel.name, conversations = found.conversations, entered = found.entered,
        known = found.known, too_old = found.too_old, outcome, "Looked for messages that no delivery brought."
    );
    let error = swept.err()?;
    let error_chain = crate::error::chain(&error);
    if matches!(&error, SweepError::Call(CallError { class: CallClass::Refused(_), .. })) {
        warn!(
            error = %error_chain, tenant_id = %tenant, channel = %channel.name,
            "Chatwoot does not let us look for missed messages: the user_token must be an administrator's of the account."
        );
        return None;
    }
    let wait = retry::deferral(RETRY_FIRST, todo.tries);
    warn!(
        error = %error_chain, tenant_id = %tenant, channel = %channel.name, wait_ms = super::dispatch::millis(wait),
        "Missed messages not all looked for; trying again."
    );
    let due_ms = parts.clock.now_ms().saturating_add(super::dispatch::millis(wait));
    Some(Todo { due_ms, tries: todo.tries.saturating_add(1), ..todo })
}

async fn look_for_idle(parts: SweepParts) {
    let every_ms = super::dispatch::millis(parts.limits.idle_every);
    let mut due_ms = parts.clock.now_ms().saturating_add(every_ms);
    loop {
        tokio::time::sleep(TICK).await;
        let now_ms = parts.clock.now_ms();
        if now_ms < due_ms {
            continue;
        }
        for (tenant, channel) in (parts.channels)() {
            let Some(after) = channel.idle.after else { continue };
            let before_ms = now_ms.saturating_sub(super::dispatch::millis(after));
            let noted = note_idle(&parts, &tenant, &channel, before_ms).await;
            let outcome = if noted.is_ok() { "done" } else { "failed" };
            parts.metrics.sweep.runs.with_label_values(&["idle", outcome]).inc();
            match noted {
                Ok(0) => {}
                Ok(noted) => info!(tenant_id = %tenant, channel = %channel.name, noted, "Conversations are idle."),
                Err(error) => {
                    let error = crate::error::chain(&error);
                    warn!(%error, tenant_id = %tenant, channel = %channel.name, "Idle conversations not all found.");
                }
            }
        }
        due_ms = parts.clock.now_ms().saturating_add(every_ms);
    }
}

/// Notes in the inbox which conversations of a channel are quiet: those it knows, and with a user's token those that
/// Chatwoot lists. How many it noted.
async fn note_idle(
    parts: &SweepParts,
    tenant: &Arc<str>,
    channel: &Arc<config::Channel>,
    before_ms: i64,
) -> Result<usize, SweepError> {
    let limit = parts.limits.idle_per_run_max;
    let name: Arc<str> = channel.name.as_str().into();
    let known = parts.inbox.idle(Arc::clone(tenant), Arc::clone(&name), channel.account_id, before_ms, limit).await?;
    let now_ms = parts.clock.now_ms();
    let mut noted = 0;
    for quiet in known {
        noted += idle::note(&parts.inbox, quiet, now_ms).await?;
    }
    let client = parts.client(channel);
    if let Some(lists) = client.lists() {
        noted += missed::note_idle(parts, tenant, lists, before_ms, limit.saturating_sub(noted)).await?;
    }
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_over_when_none_came_for_long_enough_and_began_after_the_look_before() {
        let calm = Duration::from_millis(100);
        let mut refusals = Refusals { seen: 3, since_ms: None, last_ms: 0, looked_ms: 1_000 };
        assert_eq!(refusals.over(3, 1_050, calm), None);
        assert_eq!(refusals.over(5, 1_100, calm), None);
        assert_eq!(refusals.over(9, 1_150, calm), None);
        assert_eq!(refusals.over(9, 1_249, calm), None);
        assert_eq!(refusals.over(9, 1_250, calm), Some(1_050));
        assert_eq!(refusals.over(9, 9_999, calm), None, "once");
    }
}
