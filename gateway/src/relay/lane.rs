//! One conversation's work, one turn after the other, until nothing is left of it.
//!
//! A lane is a task that lives as long as its conversation has work. It holds what the deliveries told (not their
//! bodies), a client for the conversation's Chatwoot, and a bell that rings when something new came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};
use uuid::Uuid;

use super::dispatch::{after_trouble, millis};
use super::known::{Ending, Known, SIGNAL};
use super::turn::{self, TurnEnd};
use super::{Payer, Relay, Served, quota, retry};
use crate::admission::ConversationPlace;
use crate::chatwoot::client::Chatwoot;
use crate::config::Channel;
use crate::conversation::{Speaker, Utterance};
use crate::inbox::{
    ConversationKey, ConversationRow, Finish, InboxError, Line, Loaded, OpenTurn, PUT_OFF_MAX_MS, TurnTokens, Voice,
    Work,
};

/// Deliveries read at once.
const PAGE: usize = 256;
/// A conversation whose channel is not configured (any more) is looked at again after this.
const NO_CHANNEL_PAUSE: Duration = Duration::from_secs(600);

/// Rings when a conversation got something new. A ring that nobody waits for is remembered.
#[derive(Debug, Default)]
pub(super) struct Wake {
    rung: AtomicBool,
    bell: Notify,
}

impl Wake {
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Whether it rang since the lane last looked for work.
    pub(super) fn rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Waits for the next ring.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }

    fn looked(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

/// How a lane ended.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// Nothing is left, or the relay is stopping.
    Idle,
    /// Something is left that has to wait this long.
    Later(Duration),
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time has passed.
    Enough,
    /// Something new came.
    Rung,
    /// The relay is stopping.
    Stopping,
}

/// The conversation a lane works on.
pub(super) struct Conversation {
    pub(super) relay: Arc<Relay>,
    pub(super) row: ConversationRow,
    pub(super) key: ConversationKey,
    pub(super) channel: Arc<Channel>,
    /// The plan includes handing over to a human who was asked for.
    pub(super) handoff: bool,
    pub(super) payer: Payer,
    pub(super) client: Chatwoot,
    pub(super) wake: Arc<Wake>,
    pub(super) known: Known,
    /// Its place among the month's conversations, until a reply is planned.
    pub(super) place: Option<ConversationPlace>,
    /// What the agents' answers took in this turn.
    pub(super) tokens: TurnTokens,
    tenant_turns: Arc<Semaphore>,
}

/// Until nothing is left to do now.
pub(super) async fn run(relay: Arc<Relay>, work: Work, tenant_turns: Arc<Semaphore>, wake: Arc<Wake>) -> LaneEnd {
    let Work { row, key } = work;
    loop {
        wake.looked();
        match step(&relay, row, &key, &tenant_turns, &wake).await {
            Ok(Some(TurnEnd::Done)) if !*relay.stop.borrow() => {}
            Ok(None | Some(TurnEnd::Done | TurnEnd::Stopped)) => return LaneEnd::Idle,
            Ok(Some(TurnEnd::Later(later))) => return LaneEnd::Later(later),
            Err(error) => {
                warn!(%error, tenant_id = %key.tenant, "A turn stopped on trouble of the inbox; it will go on.");
                return LaneEnd::Later(after_trouble());
            }
        }
    }
}

/// One turn, on everything that is there; none if nothing is.
async fn step(
    relay: &Arc<Relay>,
    row: ConversationRow,
    key: &ConversationKey,
    tenant_turns: &Arc<Semaphore>,
    wake: &Arc<Wake>,
) -> Result<Option<TurnEnd>, InboxError> {
    let parts = &relay.parts;
    let Some(Loaded { state, turn, deliveries, not_before_ms, .. }) = parts.inbox.load(row, 0, PAGE).await? else {
        return Ok(None);
    };
    if deliveries.is_empty() && turn.is_none() {
        return Ok(None);
    }
    let wait_ms = not_before_ms.saturating_sub(parts.clock.now_ms());
    if (1..=PUT_OFF_MAX_MS).contains(&wait_ms) {
        return Ok(Some(TurnEnd::Later(Duration::from_millis(wait_ms.unsigned_abs()))));
    }
    let served = (parts.channels)(&key.tenant, &key.channel);
    let served = served.filter(|served| served.channel.account_id == key.account_id);
    let Some(Served { channel, handoff, payer }) = served else {
        warn!(tenant_id = %key.tenant, channel = %key.channel, "Deliveries wait for a channel that is not configured.");
        let until = parts.clock.now_ms().saturating_add(millis(NO_CHANNEL_PAUSE));
        parts.inbox.defer(row, until).await?;
        return Ok(Some(TurnEnd::Later(NO_CHANNEL_PAUSE)));
    };
    let more = deliveries.len() >= PAGE;
    let mut conversation = Conversation {
        relay: Arc::clone(relay),
        row,
        key: key.clone(),
        client: relay.chatwoot(&channel),
        handoff,
        payer,
        wake: Arc::clone(wake),
        known: Known::new(channel.bot_id, state),
        channel,
        place: None,
        tokens: TurnTokens::default(),
        tenant_turns: Arc::clone(tenant_turns),
    };
    conversation.known.read(&deliveries);
    // A turn waits for long: their bodies do not.
    drop(deliveries);
    if more {
        conversation.catch_up().await?;
    }
    turn::run(&mut conversation, turn).await.map(Some)
}

impl Conversation {
    /// The number Chatwoot's addresses use.
    pub(super) fn id(&self) -> u64 {
        self.key.conversation_id
    }

    /// Takes in what came since.
    pub(super) async fn catch_up(&mut self) -> Result<(), InboxError> {
        loop {
            let Some(loaded) = self.relay.parts.inbox.load(self.row, self.known.last_seq, PAGE).await? else {
                return Ok(());
            };
            self.known.read(&loaded.deliveries);
            if loaded.deliveries.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Waits, unless the relay stops.
    pub(super) async fn pause(&self, wait: Duration) -> Waited {
        let mut stop = self.relay.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => Waited::Enough,
            _ = stop.wait_for(|stop| *stop) => Waited::Stopping,
        }
    }

    /// Waits for something new, at most so long.
    pub(super) async fn listen(&self, wait: Duration) -> Waited {
        tokio::select! {
            () = self.wake.wait() => Waited::Rung,
            waited = self.pause(wait) => waited,
        }
    }

    /// Leave to run a turn, by its tenant and then by all together; none if the relay stops first.
    pub(super) async fn permits(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let mut stop = self.relay.stop.clone();
        let both = async {
            let of_tenant = Arc::clone(&self.tenant_turns).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.relay.turns).acquire_owned().await.ok()?;
            Some((of_tenant, of_all))
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            permits = both => permits,
        }
    }

    /// What was said so far, oldest first, the newest deliveries included.
    pub(super) async fn history(&self) -> Result<Vec<Utterance>, InboxError> {
        let limit = self.relay.parts.limits.history_max.max(1);
        let mut lines = self.relay.parts.inbox.transcript(self.row, limit).await?;
        for new in self.known.lines() {
            lines.retain(|line| line.message_id != new.message_id);
            lines.push(new.clone());
        }
        lines.sort_by_key(|line| line.message_id);
        let skip = lines.len().saturating_sub(limit);
        let speaker = |voice| match voice {
            Voice::Customer => Speaker::Customer,
            Voice::Agent => Speaker::Agent,
            Voice::Human => Speaker::Human,
        };
        // What was picked from a list of ours changes that message of ours, and is no message of its own.
        let is_line = |message_id| {
            self.known.lines().any(|line| line.message_id == message_id && matches!(line.voice, Voice::Customer))
        };
        let picked = self.known.asks().iter().filter(|ask| !ask.text.is_empty() && !is_line(ask.message_id));
        let picked = picked.map(|ask| Utterance { from: Speaker::Customer, text: ask.text.clone() });
        let lines = lines.into_iter().skip(skip).map(|line| Utterance { from: speaker(line.voice), text: line.text });
        Ok(lines.chain(picked).collect())
    }

    /// Ends the deliveries up to `upto_seq`, and the turn if one was open, with what we said in it.
    pub(super) async fn finish(
        &mut self,
        outcome: &'static str,
        upto_seq: i64,
        turn: Option<Uuid>,
        said: Vec<Line>,
    ) -> Result<TurnEnd, InboxError> {
        let now_ms = self.relay.parts.clock.now_ms();
        let Ending { deliveries, answered_message_id } = self.known.ending(outcome, upto_seq);
        let state = &mut self.known.state;
        state.answered_message_id = state.answered_message_id.max(answered_message_id);
        let mut lines: Vec<Line> = self.known.lines().cloned().collect();
        lines.extend(said);
        let state = self.known.state.clone();
        let asked_ms = self.known.asks().iter().filter(|ask| ask.seq <= upto_seq).map(|ask| ask.received_at_ms).max();
        let messages: Vec<&str> = deliveries.iter().map(|(_, outcome)| *outcome).filter(|one| *one != SIGNAL).collect();
        let finish = Finish { conversation: self.row, deliveries, outcome, turn, lines, state, now_ms };
        let uncounted_ms = self.relay.parts.inbox.finish(finish).await?;
        if let Some(period_ms) = uncounted_ms {
            self.payer.account.conversation_uncounted(period_ms);
        }
        if self.payer.by_conversation() {
            self.payer.account.humans_seen(quota::humans(self));
        }
        let metrics = &self.relay.parts.metrics.relay;
        for outcome in messages {
            metrics.messages.with_label_values(&[outcome]).inc();
        }
        if let Some(asked_ms) = asked_ms {
            metrics.turns.with_label_values(&[outcome]).inc();
            // Milliseconds of a turn fit a double exactly.
            metrics
                .turn
                .observe(Duration::from_millis(now_ms.saturating_sub(asked_ms).max(0).unsigned_abs()).as_secs_f64());
            info!(tenant_id = %self.key.tenant, conversation_id = self.id(), outcome, "Turn ended.");
        }
        Ok(TurnEnd::Done)
    }

    /// Leaves the conversation alone for a while. What is left of it is in the inbox.
    pub(super) async fn rest(&self, wait: Duration) -> Result<TurnEnd, InboxError> {
        let parts = &self.relay.parts;
        parts.inbox.defer(self.row, parts.clock.now_ms().saturating_add(millis(wait))).await?;
        Ok(TurnEnd::Later(wait))
    }

    /// Puts the conversation off: Chatwoot cannot be used now. What is left of it is in the inbox.
    pub(super) async fn put_off(&self, turn: Option<&OpenTurn>) -> Result<TurnEnd, InboxError> {
        let parts = &self.relay.parts;
        let wait = retry::deferral(parts.limits.chatwoot_wait, turn.map_or(0, |turn| turn.deferrals));
        warn!(
            tenant_id = %self.key.tenant, conversation_id = self.id(), wait_ms = millis(wait),
            "Chatwoot cannot be used; the conversation is put off."
        );
        parts.metrics.relay.deferred.inc();
        self.rest(wait).await
    }
}
