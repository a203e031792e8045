//! Giving a conversation to a human: note, team, message, open, in the order that notifies the right people.
//!
//! It is the way out of every failure, so it must not fail itself: what cannot be posted is left out, opening is what
//! counts, and if not even that is possible the turn stays open in the inbox and is tried again until it is.

use tracing::{info, warn};
use uuid::Uuid;

use super::act::{act, add_label, carry_out};
use super::ask::ByAgent;
use super::deliver::{Delivered, deliver, said};
use super::known::NotOurs;
use super::lane::{Conversation, Waited};
use super::retry::Tries;
use super::turn::{Gate, TurnEnd, actions, plan, read_again};
use crate::chatwoot::client::CallClass;
use crate::chatwoot::event::Status;
use crate::chatwoot::text;
use crate::config::{self, HandoffTo};
use crate::conversation::{Action, Language, Speaker, Utterance, language};
use crate::handoff::{self, HandoffReason, Summary};
use crate::inbox::{InboxError, OpenTurn, Post, PostKind, PostState};

/// On conversations whose customer asked for a human and did not get one (D17).
const DECLINED_LABEL: &str = "human-requested";

/// How setting the status went.
pub(super) enum Opened {
    /// It is set.
    Done,
    /// There is no such conversation any more.
    Gone,
    /// Chatwoot cannot be used.
    Later,
    /// The relay is stopping.
    Stopped,
}

/// Decides durably that a human takes over, then does it.
pub(super) async fn hand_over(
    conversation: &mut Conversation,
    turn: Uuid,
    upto_seq: i64,
    reason: HandoffReason,
    by: ByAgent,
) -> Result<TurnEnd, InboxError> {
    hand_over_with(conversation, turn, upto_seq, reason, Vec::new(), by).await
}

/// The same, after a last reply of the agent's.
pub(super) async fn hand_over_with(
    conversation: &mut Conversation,
    turn: Uuid,
    upto_seq: i64,
    reason: HandoffReason,
    reply: Vec<(PostKind, String)>,
    by: ByAgent,
) -> Result<TurnEnd, InboxError> {
    let mut history = conversation.history().await?;
    let language = spoken(&history);
    history.extend(reply.iter().map(|(_, text)| Utterance { from: Speaker::Agent, text: text.clone() }));
    let rules = &conversation.channel.handoff;
    let back = rules.hours.as_ref().and_then(|hours| hours.closed_until(conversation.relay.parts.clock.now_ms()));
    let (contact, agent_note, sources) = (&conversation.known.contact, by.note.as_deref(), &by.sources[..]);
    let note = handoff::note(reason, &Summary { contact, history: &history, agent_note, sources, back });
    // Where the plan has no handoff none is promised, though the conversation is opened (D17).
    let message = match reason {
        HandoffReason::Quota if !conversation.handoff => handoff::quota_notice(rules, language).to_owned(),
        _ => handoff::message(rules, language, back),
    };
    let safe = |text: &str| text::outgoing(text, text::CONTENT_CHARS_MAX);
    let mut posts = reply;
    posts.push((PostKind::Note, safe(&note)));
    posts.extend(actions(&marked(rules, &by.actions)));
    if !message.trim().is_empty() {
        posts.push((PostKind::Message, safe(&message)));
    }
    let named = by.actions.iter().find_map(|action| match action {
        Action::AssignTeam { team_id } => Some(HandoffTo { team_id: Some(*team_id), assignee_id: None }),
        _ => None,
    });
    let to = named.unwrap_or_else(|| usual(rules, reason.as_str()));
    if to != HandoffTo::default() {
        posts.push((PostKind::Remark, safe(&handoff::unknown_target(to))));
    }
    let planned = plan(conversation, turn, upto_seq, Some(reason), by.agent.as_deref(), posts, true).await?;
    let unsent = planned.posts.iter().find(|post| matches!(post.state, PostState::Sending(_))).map(|post| post.part);
    go_on(conversation, planned, unsent).await
}

/// What the agent decided beside the handoff, and the labels and priority that every handoff has here.
fn marked(rules: &config::Handoff, by_agent: &[Action]) -> Vec<Action> {
    let mut marks = by_agent.to_vec();
    let labels = rules.labels.iter().map(|label| Action::AddLabel { label: label.clone() });
    marks.extend(labels.filter(|label| !by_agent.contains(label)));
    let set = by_agent.iter().any(|action| matches!(action, Action::SetPriority { .. }));
    marks.extend(rules.priority.filter(|_| !set).map(|priority| Action::RaisePriority { priority }));
    marks
}

/// Who takes over, by the configuration.
fn usual(rules: &config::Handoff, reason: &str) -> HandoffTo {
    let vip = rules.vip.to.filter(|_| reason == HandoffReason::Vip.as_str());
    vip.unwrap_or(rules.to)
}

/// The language of what the customer said last.
fn spoken(history: &[Utterance]) -> Language {
    let last = history.iter().rev().find(|said| said.from == Speaker::Customer);
    last.map_or(Language::English, |said| language(&said.text))
}

/// Tells the operator that the plan has no handoff for this (ENF-6).
pub(super) fn refuse(conversation: &Conversation, reason: HandoffReason) {
    conversation.relay.parts.metrics.relay.handoffs_refused.with_label_values(&[reason.as_str()]).inc();
    info!(
        tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), reason = reason.as_str(),
        "Not handed over: the tenant's plan has no handoff. The agent goes on."
    );
}

/// The same, with a label for who looks at the conversation.
pub(super) async fn refuse_with_label(conversation: &Conversation, reason: HandoffReason) {
    refuse(conversation, reason);
    if let Err(error) = add_label(conversation, DECLINED_LABEL).await {
        warn!(%error, tenant_id = %conversation.key.tenant, "Conversation not labelled as one that wants a human.");
    }
}

/// For a customer who is to get a human where the plan has no handoff: what they read instead, and a label for the
/// operator. The notice is the turn's reply.
pub(super) async fn decline(conversation: &Conversation, reason: HandoffReason) -> Result<String, InboxError> {
    let history = conversation.history().await?;
    refuse_with_label(conversation, reason).await;
    Ok(handoff::notice(&conversation.channel.handoff, spoken(&history)).to_owned())
}

/// Does what is left of a handoff. `unsent` is a part that is in state *sending* only because we have just written so.
pub(super) async fn go_on(
    conversation: &mut Conversation,
    mut turn: OpenTurn,
    unsent: Option<u32>,
) -> Result<TurnEnd, InboxError> {
    let gate = read_again(conversation).await?;
    if let (Gate::Later | Gate::Stopped, Some(part)) = (gate, unsent) {
        // Or somebody would have to prove what we know now.
        conversation.relay.parts.inbox.unsent(turn.id, part).await?;
    }
    match gate {
        // A human spoke meanwhile but it is still hidden: no message any more, but open it.
        Gate::Ours | Gate::NotOurs(NotOurs::HumanHidden) => {}
        // A human, another bot or nobody has it already.
        Gate::NotOurs(_) | Gate::Gone => return end(conversation, &turn).await,
        Gate::Later => return conversation.put_off(Some(&turn)).await,
        Gate::Stopped => return Ok(TurnEnd::Stopped),
    }
    match steps(conversation, &mut turn, unsent).await? {
        Delivered::Later => return conversation.put_off(Some(&turn)).await,
        Delivered::Stopped => return Ok(TurnEnd::Stopped),
        // One step's 404 may be of something else than the conversation: opening tells.
        Delivered::All | Delivered::NotOurs(_) | Delivered::Unclear | Delivered::Refused | Delivered::Gone => {}
    }
    match open(conversation).await {
        Opened::Done | Opened::Gone => end(conversation, &turn).await,
        Opened::Later => conversation.put_off(Some(&turn)).await,
        Opened::Stopped => Ok(TurnEnd::Stopped),
    }
}

/// Everything before opening. The team comes before it because opening assigns within the team; a human comes after
/// the message, because with later versions of Chatwoot assigning one opens. Each step may be done again after a crash:
/// what is said is known by its mark, and what is set is set to the same.
async fn steps(
    conversation: &mut Conversation,
    turn: &mut OpenTurn,
    unsent: Option<u32>,
) -> Result<Delivered, InboxError> {
    for kind in [PostKind::Reply, PostKind::Note] {
        if conversation.known.may_post(kind).is_ok() {
            let delivered = deliver(conversation, turn, kind, unsent).await?;
            if ends(delivered) {
                return Ok(delivered);
            }
        }
    }
    let acted = act(conversation, turn).await?;
    if ends(acted) {
        return Ok(acted);
    }
    let to = match named_team(turn) {
        Some(PostState::Posted(_)) => HandoffTo::default(),
        _ => usual(&conversation.channel.handoff, turn.handoff.as_deref().unwrap_or_default()),
    };
    let mut known = !matches!(named_team(turn), Some(PostState::Skipped));
    if let Some(team_id) = to.team_id {
        match carry_out(conversation, &Action::AssignTeam { team_id }).await {
            Ok(assigned) => known &= assigned,
            Err(not_now) => return Ok(not_now),
        }
    }
    // Those were several calls: a human may have spoken.
    conversation.catch_up().await?;
    if conversation.known.may_post(PostKind::Message).is_ok() {
        let delivered = deliver(conversation, turn, PostKind::Message, unsent).await?;
        if ends(delivered) {
            return Ok(delivered);
        }
    }
    if let Some(human_id) = to.assignee_id {
        match carry_out(conversation, &Action::AssignHuman { human_id }).await {
            Ok(assigned) => known &= assigned,
            Err(not_now) => return Ok(not_now),
        }
    }
    if !known {
        return deliver(conversation, turn, PostKind::Remark, unsent).await;
    }
    // There is nothing to remark.
    for remark in turn.posts.iter_mut().filter(|post| post.kind == PostKind::Remark) {
        conversation.relay.parts.inbox.skipped(turn.id, remark.part).await?;
        remark.state = PostState::Skipped;
    }
    Ok(Delivered::All)
}

/// Whether nothing more can be done of a turn now.
fn ends(delivered: Delivered) -> bool {
    matches!(delivered, Delivered::Later | Delivered::Stopped | Delivered::Gone)
}

async fn end(conversation: &mut Conversation, turn: &OpenTurn) -> Result<TurnEnd, InboxError> {
    let reason = turn.handoff.as_deref().unwrap_or("unknown");
    conversation.relay.parts.metrics.relay.handoffs.with_label_values(&[reason]).inc();
    info!(tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), reason, "Handed to a human.");
    conversation.finish("handed_off", turn.upto_seq, Some(turn.id), said(turn)).await
}

/// What became of the agent's own choice of a team, if it made one.
fn named_team(turn: &OpenTurn) -> Option<PostState> {
    let names = |post: &&Post| {
        post.kind == PostKind::Action && matches!(serde_json::from_str(&post.text), Ok(Action::AssignTeam { .. }))
    };
    turn.posts.iter().find(names).map(|post| post.state)
}

/// Opens the conversation and sees that it is.
pub(super) async fn open(conversation: &mut Conversation) -> Opened {
    set_status(conversation, Status::Open).await
}

/// Sets the status and sees that it is set. Saying it again is harmless: the status is always named.
pub(super) async fn set_status(conversation: &mut Conversation, status: Status) -> Opened {
    let mut tries = Tries::new(conversation.relay.parts.limits.chatwoot_tries);
    loop {
        let asked = match conversation.client.set_status(conversation.id(), status).await {
            Ok(set) if set == status => {
                conversation.known.state.status = Some(status.as_str().to_owned());
                return Opened::Done;
            }
            Ok(set) => {
                warn!(wanted = status.as_str(), status = set.as_str(), "Chatwoot took a status and shows another.");
                None
            }
            Err(error) => {
                warn!(%error, tenant_id = %conversation.key.tenant, wanted = status.as_str(), "Status not set.");
                match error.class {
                    CallClass::Refused(404) => return Opened::Gone,
                    CallClass::Refused(_) => return Opened::Later,
                    CallClass::Throttled(asked) => asked,
                    CallClass::NotSent | CallClass::Unknown | CallClass::Transient(_) => None,
                }
            }
        };
        match tries.next(asked) {
            None => return Opened::Later,
            Some(wait) if conversation.pause(wait).await == Waited::Stopping => return Opened::Stopped,
            Some(_) => {}
        }
    }
}
