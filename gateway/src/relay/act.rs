//! Doing what an agent decided beside its answer: labels, fields, priority, team, end.
//!
//! Actions stand among a turn's posts, so they are durable before anything is sent and survive a restart. Each may be
//! done twice with the effect of once (labels and fields are read, merged and written), so they need none of the care
//! that a message does. One that Chatwoot refuses is left out: none of them is worth a customer's wait.

use tracing::warn;

use super::deliver::Delivered;
use super::lane::{Conversation, Waited};
use super::retry::Tries;
use crate::chatwoot::client::{CallClass, CallError};
use crate::chatwoot::event::Status;
use crate::conversation::Action;
use crate::inbox::{InboxError, OpenTurn, PostKind, PostState};

/// Does what is left of a turn's actions, in order. A reply's are left out once the conversation is not ours.
pub(super) async fn act(conversation: &mut Conversation, turn: &mut OpenTurn) -> Result<Delivered, InboxError> {
    for place in 0..turn.posts.len() {
        let left =
            |kind, state| kind == PostKind::Action && !matches!(state, PostState::Posted(_) | PostState::Skipped);
        let Some(post) = turn.posts.get(place).filter(|post| left(post.kind, post.state)).cloned() else { continue };
        let done = match serde_json::from_str::<Action>(&post.text) {
            Ok(action) => {
                let fits = may(conversation, turn, &action).await?;
                let done = if fits { carry_out(conversation, &action).await } else { Ok(false) };
                let outcome = if matches!(done, Ok(true)) { "done" } else { "left_out" };
                // What comes again is counted when it does.
                if done.is_ok() {
                    let actions = &conversation.relay.parts.metrics.relay.actions;
                    actions.with_label_values(&[action.as_str(), outcome]).inc();
                }
                done
            }
            Err(error) => {
                warn!(%error, turn = %turn.id, part = post.part, "A stored action cannot be read; left out.");
                Ok(false)
            }
        };
        let state = match done {
            Ok(true) => {
                conversation.relay.parts.inbox.posted(turn.id, post.part, 0, None).await?;
                PostState::Posted(0)
            }
            Ok(false) => {
                conversation.relay.parts.inbox.skipped(turn.id, post.part).await?;
                PostState::Skipped
            }
            Err(not_now) => return Ok(not_now),
        };
        if let Some(post) = turn.posts.get_mut(place) {
            post.state = state;
        }
    }
    Ok(Delivered::All)
}

/// Whether an agent's decision still holds. A customer who wrote meanwhile has not ended anything.
async fn may(conversation: &mut Conversation, turn: &OpenTurn, action: &Action) -> Result<bool, InboxError> {
    if turn.handoff.is_some() {
        return Ok(*action != Action::Resolve);
    }
    conversation.catch_up().await?;
    let newer = *action == Action::Resolve && conversation.known.asked_after(turn.upto_seq);
    Ok(conversation.known.ours().is_ok() && !newer)
}

/// True if it is done, false if it is left out; an error if it has to wait.
pub(super) async fn carry_out(conversation: &mut Conversation, action: &Action) -> Result<bool, Delivered> {
    let mut tries = Tries::new(conversation.relay.parts.limits.chatwoot_tries);
    loop {
        let error = match once(conversation, action).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let action = action.as_str();
        warn!(%error, tenant_id = %conversation.key.tenant, action, "An agent's decision was not carried out.");
        let asked = match error.class {
            CallClass::Refused(404) => return Err(Delivered::Gone),
            CallClass::Refused(_) => return Ok(false),
            CallClass::Throttled(asked) => asked,
            CallClass::NotSent | CallClass::Unknown | CallClass::Transient(_) => None,
        };
        match tries.next(asked) {
            Some(wait) if conversation.pause(wait).await == Waited::Stopping => return Err(Delivered::Stopped),
            Some(_) => {}
            // Nothing of Chatwoot can be reached, so nothing else could be done either.
            None if matches!(error.class, CallClass::NotSent | CallClass::Throttled(_)) => {
                return Err(Delivered::Later);
            }
            None => return Ok(false),
        }
    }
}

async fn once(conversation: &mut Conversation, action: &Action) -> Result<bool, CallError> {
    let (client, id) = (conversation.client.clone(), conversation.id());
    match action {
        Action::AddLabel { label } => add_label(conversation, label).await?,
        Action::SetPriority { priority } => client.set_priority(id, Some(*priority)).await?,
        Action::RaisePriority { priority } => {
            // The newest picture of it is a moment old.
            if conversation.known.priority.is_none_or(|known| known < *priority) {
                client.set_priority(id, Some(*priority)).await?;
            }
        }
        Action::SetAttribute { name, value } => {
            let mut attributes = client.attributes(id).await?;
            if attributes.get(name) != Some(value) {
                attributes.insert(name.clone(), value.clone());
                client.set_attributes(id, &attributes).await?;
            }
        }
        Action::AssignTeam { team_id } => {
            let assigned = client.assign_team(id, *team_id).await?;
            if !assigned {
                warn!(tenant_id = %conversation.key.tenant, team_id, "No such team; handed over without it.");
            }
            return Ok(assigned);
        }
        Action::AssignHuman { human_id } => {
            let assigned = client.assign_human(id, *human_id).await?;
            if !assigned {
                warn!(tenant_id = %conversation.key.tenant, human_id, "No such human; handed over without them.");
            }
            return Ok(assigned);
        }
        Action::Resolve => {
            let status = client.set_status(id, Status::Resolved).await?;
            conversation.known.state.status = Some(status.as_str().to_owned());
            return Ok(status == Status::Resolved);
        }
    }
    Ok(true)
}

/// Adds a label to those the conversation has.
pub(super) async fn add_label(conversation: &Conversation, label: &str) -> Result<(), CallError> {
    let mut labels = conversation.client.labels(conversation.id()).await?;
    if labels.iter().all(|known| known != label) {
        labels.push(label.to_owned());
        conversation.client.set_labels(conversation.id(), &labels).await?;
    }
    Ok(())
}

/// How a conversation that we had ended stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenBack {
    /// It is ours again.
    Yes,
    /// It is not for us to say.
    No,
    /// Chatwoot cannot be used.
    Later,
}

/// Takes back a conversation that we ended while the customer was writing: had they written a moment later, Chatwoot
/// would have given it back itself. One that a human has ended stays so.
pub(super) async fn take_back(conversation: &mut Conversation) -> Result<TakenBack, InboxError> {
    if conversation.known.state.status.as_deref() != Some(Status::Resolved.as_str()) {
        return Ok(TakenBack::No);
    }
    let newest = conversation.known.asks().iter().map(|ask| ask.message_id).max().unwrap_or(0);
    let ended_by_us = conversation.relay.parts.inbox.resolved_after(conversation.row).await?;
    if ended_by_us.is_none_or(|known_message_id| newest <= known_message_id) {
        return Ok(TakenBack::No);
    }
    let (client, id) = (conversation.client.clone(), conversation.id());
    let status = match client.conversation(id).await {
        Ok(view) if view.status == Some(Status::Resolved) => client.set_status(id, Status::Pending).await,
        Ok(view) => Ok(view.status.unwrap_or(Status::Open)),
        Err(error) => Err(error),
    };
    match status {
        Ok(Status::Pending) => {
            conversation.known.state.status = Some(Status::Pending.as_str().to_owned());
            Ok(TakenBack::Yes)
        }
        Ok(_) => Ok(TakenBack::No),
        Err(error) => {
            warn!(%error, tenant_id = %conversation.key.tenant, "Conversation not taken back.");
            Ok(if error.retriable() { TakenBack::Later } else { TakenBack::No })
        }
    }
}
