//! Giving a conversation to a human: note, team, message, open, in the order that notifies the right people.
//!
//! It is the way out of every failure, so it must not fail itself: what cannot be posted is left out, opening is what
//! counts, and if not even that is possible the turn stays open in the inbox and is tried again until it is.

use tracing::{info, warn};
use uuid::Uuid;

use super::act::{act, add_label};
use super::ask::ByAgent;
use super::deliver::{Delivered, deliver, said};
use super::known::NotOurs;
use super::lane::{Conversation, Waited};
use super::retry::Tries;
use super::turn::{Gate, TurnEnd, actions, plan, read_again};
use crate::chatwoot::client::CallClass;
use crate::chatwoot::event::Status;
use crate::chatwoot::text;
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
    let history = conversation.history().await?;
    let contact = &conversation.known.contact;
    let note =
        handoff::note(reason, &Summary { contact, history: &history, agent_note: by.note.as_deref(), sources: &[] });
    let (texts, language) = (&conversation.channel.handoff, spoken(&history));
    // Where the plan has no handoff none is promised, though the conversation is opened (D17).
    let message = match reason {
        HandoffReason::Quota if !conversation.handoff => handoff::quota_notice(texts, language),
        _ => handoff::message(texts, language),
    };
    let safe = |text: &str| text::outgoing(text, text::CONTENT_CHARS_MAX);
    let mut posts = vec![(PostKind::Note, safe(&note))];
    posts.extend(actions(&by.actions));
    posts.push((PostKind::Message, safe(message)));
    let planned = plan(conversation, turn, upto_seq, Some(reason), by.agent.as_deref(), posts, true).await?;
    let unsent = planned.posts.iter().find(|post| post.kind == PostKind::Note).map(|post| post.part);
    go_on(conversation, planned, unsent).await
}

/// The language of what the customer said last.
fn spoken(history: &[Utterance]) -> Language {
    let last = history.iter().rev().find(|said| said.from == Speaker::Customer);
    last.map_or(Language::English, |said| language(&said.text))
}

/// For a customer who asked for a human where the plan has no handoff: what they read instead, and a label for the
/// operator. The notice is the turn's reply.
pub(super) async fn decline(conversation: &Conversation) -> Result<String, InboxError> {
    let history = conversation.history().await?;
    if let Err(error) = add_label(conversation, DECLINED_LABEL).await {
        warn!(%error, tenant_id = %conversation.key.tenant, "Conversation not labelled; the notice goes out without.");
    }
    Ok(handoff::notice(&conversation.channel.handoff, spoken(&history)).to_owned())
}

/// Does what is left of a handoff.
pub(super) async fn go_on(
    conversation: &mut Conversation,
    mut turn: OpenTurn,
    unsent: Option<u32>,
) -> Result<TurnEnd, InboxError> {
    match read_again(conversation).await? {
        // A human spoke meanwhile but it is still hidden: no message any more, but open it.
        Gate::Ours | Gate::NotOurs(NotOurs::HumanHidden) => {}
        // A human, another bot or nobody has it already.
        Gate::NotOurs(_) | Gate::Gone => return end(conversation, &turn).await,
        Gate::Later => return conversation.put_off(Some(&turn)).await,
        Gate::Stopped => return Ok(TurnEnd::Stopped),
    }
    for kind in [PostKind::Note, PostKind::Message] {
        if kind == PostKind::Message {
            match act(conversation, &mut turn).await? {
                Delivered::Later => return conversation.put_off(Some(&turn)).await,
                Delivered::Stopped => return Ok(TurnEnd::Stopped),
                Delivered::Gone => return end(conversation, &turn).await,
                Delivered::All | Delivered::NotOurs(_) | Delivered::Unclear | Delivered::Refused => {}
            }
            if !has_team(&turn) {
                team(conversation).await;
            }
            if conversation.known.ours().is_err() {
                break;
            }
        }
        match deliver(conversation, &mut turn, kind, unsent).await? {
            Delivered::Later => return conversation.put_off(Some(&turn)).await,
            Delivered::Stopped => return Ok(TurnEnd::Stopped),
            Delivered::Gone => return end(conversation, &turn).await,
            Delivered::All | Delivered::NotOurs(_) | Delivered::Unclear | Delivered::Refused => {}
        }
    }
    match open(conversation).await {
        Opened::Done | Opened::Gone => end(conversation, &turn).await,
        Opened::Later => conversation.put_off(Some(&turn)).await,
        Opened::Stopped => Ok(TurnEnd::Stopped),
    }
}

async fn end(conversation: &mut Conversation, turn: &OpenTurn) -> Result<TurnEnd, InboxError> {
    let reason = turn.handoff.as_deref().unwrap_or("unknown");
    conversation.relay.parts.metrics.relay.handoffs.with_label_values(&[reason]).inc();
    info!(tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), reason, "Handed to a human.");
    conversation.finish("handed_off", turn.upto_seq, Some(turn.id), said(turn)).await
}

/// The agent's own choice of a team was taken.
fn has_team(turn: &OpenTurn) -> bool {
    let assigned = |post: &Post| {
        matches!(post.state, PostState::Posted(_))
            && matches!(serde_json::from_str(&post.text), Ok(Action::AssignTeam { .. }))
    };
    turn.posts.iter().filter(|post| post.kind == PostKind::Action).any(assigned)
}

/// Before opening, since opening assigns within the team. Without it the conversation still reaches a human.
async fn team(conversation: &Conversation) {
    let Some(team_id) = conversation.channel.handoff.team_id else { return };
    match conversation.client.assign_team(conversation.id(), team_id).await {
        Ok(true) => {}
        Ok(false) => warn!(tenant_id = %conversation.key.tenant, team_id, "No such team; handed over without one."),
        Err(error) => warn!(%error, tenant_id = %conversation.key.tenant, team_id, "Team not assigned."),
    }
}

/// Opens the conversation and sees that it is.
pub(super) async fn open(conversation: &mut Conversation) -> Opened {
    let opened = set_status(conversation, Status::Open).await;
    if matches!(opened, Opened::Done) {
        conversation.known.state.human_message_id = None;
    }
    opened
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
