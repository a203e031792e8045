//! The relay: from what the inbox holds to exactly one outcome for every customer's message.
//!
//! `dispatch` hears of work and gives each conversation one `lane`; a lane takes one `turn` after the other; a turn
//! waits for the burst to end, asks the agent (`ask`), has `deliver` post the answer once and `act` do what else was
//! decided. What a conversation's deliveries
//! mean is `known`; what the plan counts is `quota`; how long to wait before trying again is `retry`. Everything a turn must remember is in the inbox
//! before it matters, so a restart is the same work done again on what is left there. `breaker` ends what goes round in circles.
//!
//! The outcomes of a message are `replied`, `handed_off`, `superseded` (a newer one was answered together with it, in
//! the same turn, or it was deleted) and `not_ours`; `signal` ends deliveries that ask nothing. A turn is
//! `superseded` when a newer message stopped it. Any failure that trying again cannot cure becomes a handoff, and a handoff that
//! Chatwoot does not take stays in the inbox and is tried again until it does.
//!
//! `sweep` looks for what no delivery tells: messages that were missed, conversations gone quiet (which `idle` ends). It
//! puts both into the inbox, so that they are work like any other.
//!
//! It does not verify or store deliveries: `ingress` does, and the two meet only in the inbox.

mod dispatch;
mod lane;
mod turn;

mod act;
mod ask;
mod breaker;
mod deliver;
mod handover;
mod typing;

mod idle;

pub mod sweep;

mod known;
mod quota;
mod retry;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use relais_policies::rate_card::TokenUsage;
use relais_policies::{ChannelKind, TenantPolicy};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::admission::{Account, Use};
use crate::agent::{Agents, TokenUse};
use crate::chatwoot::client::Chatwoot;
use crate::chatwoot::installation::Installations;
use crate::clock::Clock;
use crate::config;
use crate::http::client::Client;
use crate::inbox::Inbox;
use crate::metrics::Metrics;

/// A channel we serve, and what its plan includes.
#[derive(Debug, Clone)]
pub struct Served {
    /// The channel.
    pub channel: Arc<config::Channel>,
    /// A customer who asks for a human gets one (D17). What the agent cannot do goes to a human on every plan.
    pub handoff: bool,
    /// Whose tokens the agent uses.
    pub payer: Payer,
}

/// Where the tokens that an agent uses are counted. On a managed channel replies are paid by the conversation (GOV-3),
/// so they are only measured; on the tenant's own Chatwoot they are paid from its token budget (GOV-4).
#[derive(Debug, Clone)]
pub struct Payer {
    /// The tenant's account.
    pub account: Arc<Account>,
    /// The tenant's policy, for what tokens cost.
    pub policy: Arc<TenantPolicy>,
    /// What kind of channel the conversation came in by.
    pub kind: ChannelKind,
}

impl Payer {
    fn charged(&self) -> bool {
        !self.by_conversation()
    }

    /// Replies are paid from the budget, and nothing is left of it.
    fn used_up(&self) -> bool {
        self.charged() && self.account.tokens_left() == Some(0)
    }

    /// Counts what one answer took.
    fn count(&self, model: &str, tokens: TokenUse) {
        let TokenUse { input, cached, output, estimated } = tokens;
        let usage = TokenUsage { input, cached_input: cached, output, reasoning: 0 };
        let budget = self.policy.rate_card.cost(model, &usage);
        self.account.agent_used(model, Use { budget, input, cached, output, estimated }, self.charged());
    }
}

/// Finds a channel by tenant and name. A function, since reloading the configuration swaps what is behind it.
pub type Channels = Arc<dyn Fn(&str, &str) -> Option<Served> + Send + Sync>;

/// What the relay works with.
pub struct RelayParts {
    /// Where the work is.
    pub inbox: Inbox,
    /// Whom we work for.
    pub channels: Channels,
    /// Who answers; replaced whole when the configuration is.
    pub agents: Arc<ArcSwap<Agents>>,
    /// Connections to the Chatwoots, of the runtime the relay is started on.
    pub http: Client,
    /// How many calls each Chatwoot takes.
    pub installations: Arc<Installations>,
    /// Time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Bounds and waits.
    pub limits: config::Relay,
}

/// What every lane shares.
struct Relay {
    parts: RelayParts,
    /// Turns running at once.
    turns: Arc<Semaphore>,
    /// True once the relay is stopping.
    stop: watch::Receiver<bool>,
}

impl Relay {
    /// A channel's calls, out of its installation's budget.
    fn chatwoot(&self, channel: &Arc<config::Channel>) -> Chatwoot {
        let RelayParts { http, installations, metrics, limits, .. } = &self.parts;
        let installation = installations.at(&channel.url);
        Chatwoot::new(http.clone(), Arc::clone(channel), installation, limits.chatwoot_wait, Arc::clone(metrics))
    }
}

/// A running relay. Dropping it stops taking new turns, without waiting for those that run.
pub struct RelayHandle {
    stop: watch::Sender<bool>,
    dispatch: JoinHandle<()>,
}

impl RelayHandle {
    /// Starts on the current runtime. None if the inbox's work is taken by another relay already.
    pub fn start(parts: RelayParts) -> Option<Self> {
        let work = parts.inbox.take_work()?;
        let (stop, stopped) = watch::channel(false);
        let turns = Arc::new(Semaphore::new(parts.limits.turns_max.max(1)));
        let relay = Arc::new(Relay { parts, turns, stop: stopped });
        Some(Self { stop, dispatch: tokio::spawn(dispatch::run(relay, work)) })
    }

    /// Starts no new turn and lets those that run come to their end, at most `within`. What does not end is in the
    /// inbox and goes on after the restart. True if all ended.
    pub async fn drain(self, within: Duration) -> bool {
        let _ = self.stop.send(true);
        let mut dispatch = self.dispatch;
        let ended = tokio::time::timeout(within, &mut dispatch).await.is_ok();
        if !ended {
            // Aborting it drops its lanes with it.
            dispatch.abort();
            let _ = dispatch.await;
        }
        ended
    }
}
