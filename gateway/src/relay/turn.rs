//! One turn, from a customer's burst of messages to its one outcome.
//!
//! Wait until the burst has ended → still ours? → leave to run → ask the agent → still ours, by Chatwoot's own word?
//! → make the answer durable → post it once → end. Something new is heard all along: a human who speaks or takes the
//! conversation ends the turn at once, a newer message of the customer starts it over with both.
//!
//! Thousands of turns wait for their agents at once, and a future is as large as the largest it holds: so what comes
//! before and after the asking is boxed, and takes memory while it runs only.
//!
//! The order of the phases stands in [`run`] and nowhere else. Whom it asks is `ask`; how a message is posted once is
//! `deliver`; what is done beside it is `act`; how a human gets the conversation is `handover`.

use std::time::Duration;

use uuid::Uuid;

use super::act::{TakenBack, act, take_back};
use super::ask::{Asked, ByAgent, ask};
use super::breaker::{Circle, circle};
use super::deliver::{Delivered, deliver, said};
use super::handover::{self, Opened, hand_over, hand_over_with};
use super::idle::{self, Reopened};
use super::known::{NOT_OURS, NotOurs, SIGNAL, SUPERSEDED};
use super::lane::{Conversation, Waited};
use super::retry::Tries;
use crate::chatwoot::client::CallClass;
use crate::chatwoot::event::Status;
use crate::chatwoot::text;
use crate::conversation::{Action, Speaker};
use crate::handoff::HandoffReason;
use crate::inbox::{InboxError, OpenTurn, Plan, PostKind, PostState};

/// Times a turn is started over for a newer message. Past that the customer gets an answer to what they said so far,
/// and the rest is the next turn's.
const SUPERSEDED_MAX: u32 = 4;
/// A wait for a burst is cut into pieces no longer than this, should the wall clock be set back.
const BURST_STEP: Duration = Duration::from_secs(5);

/// How a turn ended.
#[derive(Debug)]
pub(super) enum TurnEnd {
    /// With an outcome.
    Done,
    /// The relay is stopping; what is left is in the inbox.
    Stopped,
    /// Chatwoot cannot be used; try again after this.
    Later(Duration),
}

/// Whether we may post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It is ours.
    Ours,
    /// It is not.
    NotOurs(NotOurs),
    /// There is no such conversation any more.
    Gone,
    /// Chatwoot cannot be reached.
    Later,
    /// The relay is stopping.
    Stopped,
}

/// Takes a conversation's turn. `open` is one that had begun to post when we last stopped.
pub(super) async fn run(conversation: &mut Conversation, open: Option<OpenTurn>) -> Result<TurnEnd, InboxError> {
    if let Some(turn) = open {
        return Box::pin(resume(conversation, turn)).await;
    }
    if conversation.known.asks().is_empty() {
        match conversation.known.idle {
            Some(message_id) => return Box::pin(idle::settle(conversation, message_id)).await,
            None if Box::pin(left_unanswered(conversation)).await? => conversation.known.ask_again(),
            None => return Box::pin(signals(conversation)).await,
        }
    }
    let mut superseded = 0;
    loop {
        if !burst_ended(conversation).await? {
            return Ok(TurnEnd::Stopped);
        }
        if let Err(why) = conversation.known.ours()
            && let Some(end) = Box::pin(leave_or_take_back(conversation, why)).await?
        {
            return Ok(end);
        }
        if conversation.known.asks().is_empty() {
            // All of it was deleted.
            return Box::pin(signals(conversation)).await;
        }
        let Some(_permits) = conversation.permits().await else { return Ok(TurnEnd::Stopped) };
        let running = conversation.relay.parts.metrics.relay.turns_running.clone();
        running.inc();
        let end = attempt(conversation, superseded < SUPERSEDED_MAX).await;
        running.dec();
        match end? {
            Some(end) => return Ok(end),
            None => {
                superseded += 1;
                conversation.relay.parts.metrics.relay.turns.with_label_values(&[SUPERSEDED]).inc();
            }
        }
    }
}

/// Asks, looks again, posts. None if it has to start over: the customer said something newer first.
async fn attempt(conversation: &mut Conversation, may_start_over: bool) -> Result<Option<TurnEnd>, InboxError> {
    conversation.catch_up().await?;
    let upto_seq = conversation.known.last_seq;
    let turn = Uuid::now_v7();
    let asked = match conversation.known.ours() {
        Ok(()) => match circle(conversation).await? {
            Circle::None => ask(conversation, upto_seq, may_start_over).await?,
            Circle::Found => Asked::Handoff(HandoffReason::Looping, ByAgent::default()),
            Circle::Resting(left) => return conversation.rest(left).await.map(Some),
        },
        Err(why) => Asked::NotOurs(why),
    };
    if matches!(asked, Asked::Handoff(..) | Asked::LastReply(..))
        && let Some(end) = Box::pin(undo_our_end(conversation)).await?
    {
        return Ok(Some(end));
    }
    let (reply, by) = match asked {
        Asked::Reply(reply, by) => (reply, by),
        Asked::LastReply(reply, by) => {
            let (reply, reason) = (replies(conversation, &reply), HandoffReason::Vip);
            return Box::pin(hand_over_with(conversation, turn, upto_seq, reason, reply, by)).await.map(Some);
        }
        Asked::Handoff(reason, _) if reason.is_feature() && declines(conversation) => {
            (Box::pin(handover::decline(conversation, reason)).await?, ByAgent::default())
        }
        Asked::Superseded => return Ok(None),
        Asked::NotOurs(why) => return Box::pin(leave_or_take_back(conversation, why)).await,
        Asked::Handoff(reason, by) => {
            return Box::pin(hand_over(conversation, turn, upto_seq, reason, by)).await.map(Some);
        }
    };
    let posts = replies(conversation, &reply).into_iter().chain(actions(&by.actions)).collect();
    let by = by.agent.as_deref();
    match read_again(conversation).await? {
        Gate::Ours if may_start_over && conversation.known.asked_after(upto_seq) => return Ok(None),
        Gate::Ours => {}
        Gate::NotOurs(why) => return Box::pin(leave_or_take_back(conversation, why)).await,
        Gate::Gone => return conversation.finish(NOT_OURS, i64::MAX, None, Vec::new()).await.map(Some),
        Gate::Later => {
            // The answer is kept, so that the agent need not be asked again when Chatwoot is back.
            let planned = plan(conversation, turn, upto_seq, None, by, posts, false).await?;
            return conversation.put_off(Some(&planned)).await.map(Some);
        }
        Gate::Stopped => return Ok(Some(TurnEnd::Stopped)),
    }
    let planned = plan(conversation, turn, upto_seq, None, by, posts, true).await?;
    Box::pin(reply_with(conversation, planned, Some(0))).await.map(Some)
}

/// Before a handoff, which opens only what is pending: what we resolved while the customer wrote is made so again. Some
/// if that cannot be, or it was somebody else who resolved it.
async fn undo_our_end(conversation: &mut Conversation) -> Result<Option<TurnEnd>, InboxError> {
    let gate = read_again(conversation).await?;
    let resolved = conversation.known.state.status.as_deref() == Some(Status::Resolved.as_str());
    match gate {
        Gate::NotOurs(NotOurs::Status) if resolved => leave_or_take_back(conversation, NotOurs::Status).await,
        _ => Ok(None),
    }
}

/// Whether a wish for a human is answered with the operator's notice instead (D17).
pub(super) fn declines(conversation: &Conversation) -> bool {
    !conversation.handoff && !conversation.channel.handoff.notice.trim().is_empty()
}

/// A reply as it will be posted: safe for Chatwoot, in parts that fit the channel.
fn replies(conversation: &Conversation, reply: &str) -> Vec<(PostKind, String)> {
    text::split(reply, conversation.known.medium).into_iter().map(|part| (PostKind::Reply, part)).collect()
}

/// What is done beside what is said, as it is kept.
pub(super) fn actions(actions: &[Action]) -> impl Iterator<Item = (PostKind, String)> {
    actions.iter().filter_map(|action| Some((PostKind::Action, serde_json::to_string(action).ok()?)))
}

/// Waits until the customer has paused, or has been writing for long enough, and until the words of a voice note have
/// come, or have had their time to come. False if the relay stops first.
async fn burst_ended(conversation: &mut Conversation) -> Result<bool, InboxError> {
    let (burst, burst_max) = (conversation.relay.parts.limits.burst, conversation.relay.parts.limits.burst_max);
    let voice = conversation.relay.parts.limits.voice_wait;
    let begun = conversation.relay.parts.clock.monotonic();
    loop {
        if conversation.known.ours().is_err() {
            return Ok(true);
        }
        // Whatever the wall clock says: set back by an hour, it would have the customer wait for an hour.
        let waited = conversation.relay.parts.clock.monotonic().saturating_sub(begun);
        let Some((first_ms, last_ms)) = conversation.known.burst_ms() else { return Ok(true) };
        let now_ms = conversation.relay.parts.clock.now_ms();
        let left = |since_ms: i64, wait: Duration| {
            wait.saturating_sub(Duration::from_millis(now_ms.saturating_sub(since_ms).max(0).unsigned_abs()))
        };
        let words = conversation.known.wordless_ms().map(|since_ms| left(since_ms, voice));
        let words = words.unwrap_or_default().min(left(first_ms, burst_max + voice));
        let words = words.min((burst_max + voice).saturating_sub(waited));
        let left = left(last_ms, burst).min(left(first_ms, burst_max)).min(burst_max.saturating_sub(waited));
        let left = left.max(words).min(BURST_STEP);
        if left.is_zero() {
            return Ok(true);
        }
        if conversation.listen(left).await == Waited::Stopping {
            return Ok(false);
        }
        conversation.catch_up().await?;
    }
}

/// Posts a planned reply and ends the turn, one way or the other.
async fn reply_with(
    conversation: &mut Conversation,
    mut turn: OpenTurn,
    unsent: Option<u32>,
) -> Result<TurnEnd, InboxError> {
    let reason = match deliver(conversation, &mut turn, PostKind::Reply, unsent).await? {
        Delivered::All => return act_and_end(conversation, turn).await,
        Delivered::NotOurs(why) => return cut_short(conversation, &turn, why).await,
        Delivered::Gone => return cut_short(conversation, &turn, NotOurs::Status).await,
        Delivered::Later => return conversation.put_off(Some(&turn)).await,
        Delivered::Stopped => return Ok(TurnEnd::Stopped),
        Delivered::Unclear => HandoffReason::DeliveryUnknown,
        Delivered::Refused => HandoffReason::Undelivered,
    };
    hand_over(conversation, turn.id, turn.upto_seq, reason, ByAgent::default()).await
}

/// The reply is there: does what else was decided, and ends the turn.
async fn act_and_end(conversation: &mut Conversation, mut turn: OpenTurn) -> Result<TurnEnd, InboxError> {
    match act(conversation, &mut turn).await? {
        Delivered::Later => conversation.put_off(Some(&turn)).await,
        Delivered::Stopped => Ok(TurnEnd::Stopped),
        _ => conversation.finish("replied", turn.upto_seq, Some(turn.id), said(&turn)).await,
    }
}

/// A human came in while a reply was being posted: what is there is there, the rest is not sent.
async fn cut_short(conversation: &mut Conversation, turn: &OpenTurn, why: NotOurs) -> Result<TurnEnd, InboxError> {
    if let Some(end) = show(conversation, why, Some(turn)).await? {
        return Ok(end);
    }
    let begun = turn.posts.iter().any(|post| matches!(post.state, PostState::Posted(_)));
    let outcome = if begun { "replied" } else { NOT_OURS };
    conversation.finish(outcome, turn.upto_seq, Some(turn.id), said(turn)).await
}

/// Goes on with a turn that had begun to post.
async fn resume(conversation: &mut Conversation, turn: OpenTurn) -> Result<TurnEnd, InboxError> {
    let Some(_permits) = conversation.permits().await else { return Ok(TurnEnd::Stopped) };
    if turn.handoff.is_some() {
        return handover::go_on(conversation, turn, None).await;
    }
    if turn.damaged {
        return hand_over(conversation, turn.id, turn.upto_seq, HandoffReason::DeliveryUnknown, ByAgent::default())
            .await;
    }
    match read_again(conversation).await? {
        Gate::Ours => reply_with(conversation, turn, None).await,
        Gate::NotOurs(why) => cut_short(conversation, &turn, why).await,
        Gate::Gone => cut_short(conversation, &turn, NotOurs::Status).await,
        Gate::Later => conversation.put_off(Some(&turn)).await,
        Gate::Stopped => Ok(TurnEnd::Stopped),
    }
}

/// A human gave the conversation back, and the customer had the last word.
async fn left_unanswered(conversation: &Conversation) -> Result<bool, InboxError> {
    if !conversation.known.came_back() || conversation.known.ours().is_err() {
        return Ok(false);
    }
    let last = conversation.history().await?.pop();
    Ok(last.is_some_and(|said| said.from == Speaker::Customer))
}

/// Deliveries that ask nothing. A human who spoke in a pending conversation has it shown to them; a message of ours
/// that the channel did not deliver is a human's to deliver.
async fn signals(conversation: &mut Conversation) -> Result<TurnEnd, InboxError> {
    let ours = conversation.known.ours().is_ok();
    if conversation.known.undelivered && (ours || ended_by_us(conversation).await?) {
        if !ours {
            match handover::set_status(conversation, Status::Pending).await {
                Opened::Done | Opened::Gone => {}
                Opened::Later => return conversation.put_off(None).await,
                Opened::Stopped => return Ok(TurnEnd::Stopped),
            }
        }
        let upto_seq = conversation.known.last_seq;
        return hand_over(conversation, Uuid::now_v7(), upto_seq, HandoffReason::Undelivered, ByAgent::default()).await;
    }
    if conversation.known.human_spoke
        && let Err(why) = conversation.known.ours()
        && let Some(end) = show(conversation, why, None).await?
    {
        return Ok(end);
    }
    conversation.finish(SIGNAL, i64::MAX, None, Vec::new()).await
}

/// Whether it was us who resolved it: then nobody else has it.
async fn ended_by_us(conversation: &Conversation) -> Result<bool, InboxError> {
    let inbox = &conversation.relay.parts.inbox;
    Ok(conversation.known.state.status.as_deref() == Some(Status::Resolved.as_str())
        && (conversation.known.closed_by_us || inbox.resolved_after(conversation.row).await?.is_some()))
}

/// Not ours, unless it was us who ended it while the customer wrote: none if it is ours again.
async fn leave_or_take_back(conversation: &mut Conversation, why: NotOurs) -> Result<Option<TurnEnd>, InboxError> {
    match take_back(conversation).await? {
        TakenBack::Yes => Ok(None),
        TakenBack::No => match idle::reopen(conversation, why).await? {
            Reopened::No => leave(conversation, why).await.map(Some),
            Reopened::Yes => Ok(None),
            Reopened::End(end) => Ok(Some(end)),
        },
        TakenBack::Later => conversation.put_off(None).await.map(Some),
    }
}

/// Not ours: everything asked so far ends here.
pub(super) async fn leave(conversation: &mut Conversation, why: NotOurs) -> Result<TurnEnd, InboxError> {
    match show(conversation, why, None).await? {
        Some(end) => Ok(end),
        None => conversation.finish(NOT_OURS, i64::MAX, None, Vec::new()).await,
    }
}

/// A pending conversation is hidden from humans. If one of them has it, by speaking or by assignment, and the
/// customer or the human has just written, open it, so that nobody waits for an answer that no one sees to.
/// Some if that could not be done now. `open` is the turn that this ends, if one was planned.
async fn show(
    conversation: &mut Conversation,
    why: NotOurs,
    open: Option<&OpenTurn>,
) -> Result<Option<TurnEnd>, InboxError> {
    if why != NotOurs::HumanHidden {
        return Ok(None);
    }
    match read_again(conversation).await? {
        Gate::Later => return conversation.put_off(None).await.map(Some),
        Gate::Stopped => return Ok(Some(TurnEnd::Stopped)),
        Gate::NotOurs(NotOurs::HumanHidden) => {}
        Gate::Ours | Gate::NotOurs(_) | Gate::Gone => return Ok(None),
    }
    match circle(conversation).await? {
        Circle::None => {}
        Circle::Found => {
            let (turn, upto_seq) =
                open.map_or_else(|| (Uuid::now_v7(), conversation.known.last_seq), |open| (open.id, open.upto_seq));
            let reason = HandoffReason::Looping;
            return hand_over(conversation, turn, upto_seq, reason, ByAgent::default()).await.map(Some);
        }
        // Opening it is what is undone each time, and the note that says so is there. It is opened when it has rested.
        Circle::Resting(left) => return conversation.rest(left).await.map(Some),
    }
    match handover::open(conversation).await {
        Opened::Done | Opened::Gone => Ok(None),
        Opened::Later => conversation.put_off(None).await.map(Some),
        Opened::Stopped => Ok(Some(TurnEnd::Stopped)),
    }
}

/// Makes durable what will be posted, and gives the turn as it now is.
pub(super) async fn plan(
    conversation: &mut Conversation,
    turn: Uuid,
    upto_seq: i64,
    reason: Option<HandoffReason>,
    agent: Option<&str>,
    posts: Vec<(PostKind, String)>,
    send_now: bool,
) -> Result<OpenTurn, InboxError> {
    // The agent's first reply of the month counts the conversation; a notice does not.
    let replies = agent.is_some() && posts.iter().any(|(kind, _)| *kind == PostKind::Reply);
    let place = if replies { conversation.place.take() } else { None };
    let inbox = &conversation.relay.parts.inbox;
    let plan = Plan {
        conversation: conversation.row,
        turn,
        upto_seq,
        known_message_id: conversation.known.state.seen_message_id,
        handoff: reason.map(|reason| reason.as_str().to_owned()),
        agent: agent.map(str::to_owned),
        tokens: conversation.tokens,
        counts_in_ms: place.as_ref().map(|place| place.period_ms),
        send_now,
        posts,
        now_ms: conversation.relay.parts.clock.now_ms(),
    };
    inbox.plan(plan).await?;
    if let Some(place) = place {
        place.keep();
    }
    // It was durable a moment ago; if it is not there, the inbox was changed behind our back.
    inbox.open_turn(conversation.row).await?.ok_or(InboxError::Write)
}

/// Asks Chatwoot whose the conversation is, and takes in what came meanwhile: either may show that it is not ours. If
/// Chatwoot cannot say (it fails for a bot when a team has the conversation), the last delivery's word stands.
pub(super) async fn read_again(conversation: &mut Conversation) -> Result<Gate, InboxError> {
    let mut tries = Tries::new(conversation.relay.parts.limits.chatwoot_tries);
    let mut failed = false;
    let view = loop {
        let error = match conversation.client.conversation(conversation.id()).await {
            Ok(view) => break Some(view),
            Err(error) => error,
        };
        let asked = match error.class {
            CallClass::Refused(404) => return Ok(Gate::Gone),
            CallClass::Refused(_) => break None,
            // Once more: it may be a moment's trouble, or what it always says about a team's conversation.
            CallClass::Transient(_) if std::mem::replace(&mut failed, true) => break None,
            CallClass::Transient(_) => None,
            CallClass::Throttled(asked) => asked,
            CallClass::NotSent | CallClass::Unknown => None,
        };
        match tries.next(asked) {
            None if failed => break None,
            None => return Ok(Gate::Later),
            Some(wait) if conversation.pause(wait).await == Waited::Stopping => return Ok(Gate::Stopped),
            Some(_) => {}
        }
    };
    conversation.catch_up().await?;
    let told = conversation.known.ours();
    if let Some(view) = view {
        conversation.known.apply(&view);
    }
    // What Chatwoot says now is the better reason, but either is enough to be silent.
    Ok(conversation.known.ours().and(told).map_or_else(Gate::NotOurs, |()| Gate::Ours))
}
