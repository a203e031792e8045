//! Ending conversations in which nothing happens any more.
//!
//! A pending conversation is hidden from humans and Chatwoot never resolves it. `sweep` finds those that have been
//! quiet and notes each in the inbox, as a delivery of our own ([`note`]); the conversation's lane then asks Chatwoot
//! once more and ends it ([`settle`]). If the customer had the last word and got no answer, a human gets it. If not,
//! it is resolved, or a human's, as the channel is configured: resolving is the default, because nobody waits, a
//! human's list stays short, and the customer's next message brings the conversation back to the agent.
//!
//! Resolving can cross with a message of the customer that was stored just before. Its delivery then finds the
//! conversation resolved, by us: it is made pending again and answered ([`reopen`]).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::info;
use uuid::Uuid;

use super::ask::ByAgent;
use super::handover::{self, Opened, hand_over};
use super::known::NotOurs;
use super::lane::Conversation;
use super::turn::{Gate, TurnEnd, leave, read_again};
use crate::chatwoot::event::{Sender, Status};
use crate::config::IdleEnd;
use crate::conversation::Medium;
use crate::handoff::HandoffReason;
use crate::inbox::{AcceptError, Accepted, Delivery, IdleConversation, Inbox, InboxError, Sameness, Voice};

/// The event of a note. Never Chatwoot's: what it sends under this name is not kept.
pub(super) const EVENT: &str = "relais_idle";
/// The owner of a conversation that we resolved.
pub(super) const CLOSED_BY_US: &str = "closed_by_us";

#[derive(Serialize, Deserialize)]
struct Note {
    /// The newest message when it was found to be quiet.
    message_id: u64,
}

/// Notes that a conversation is quiet; 1 if that was not noted yet.
pub(super) async fn note(inbox: &Inbox, quiet: IdleConversation, now_ms: i64) -> Result<usize, AcceptError> {
    let message_id = quiet.seen_message_id;
    let body = serde_json::to_vec(&Note { message_id }).map(Bytes::from).unwrap_or_default();
    // Once for each time it has become quiet.
    let (message, since) = (message_id.to_le_bytes(), quiet.since_ms.to_le_bytes());
    let delivery = Delivery::new(quiet.key, EVENT, None, Sameness::Content(&[&message, &since]), None, body, now_ms);
    Ok(usize::from(inbox.accept(delivery).await? == Accepted::New))
}

/// The newest message when a conversation was noted to be quiet.
pub(super) fn noted(body: &[u8]) -> Option<u64> {
    serde_json::from_slice(body).ok().map(|note: Note| note.message_id)
}

/// Ends a conversation that was quiet when its newest message was `message_id`, if it still is, and is ours.
pub(super) async fn settle(conversation: &mut Conversation, message_id: u64) -> Result<TurnEnd, InboxError> {
    match read_again(conversation).await? {
        Gate::Ours => {}
        Gate::NotOurs(why) => {
            count(conversation, "left");
            return leave(conversation, why).await;
        }
        Gate::Gone => {
            // Or it would be found again and again.
            conversation.known.state.status = Some("gone".to_owned());
            return left(conversation).await;
        }
        Gate::Later => return conversation.put_off(None).await,
        Gate::Stopped => return Ok(TurnEnd::Stopped),
    }
    let known = &conversation.known;
    if !known.asks().is_empty() {
        // A turn, then, which takes the note with it.
        return Ok(TurnEnd::Done);
    }
    if known.state.seen_message_id > message_id || known.medium == Medium::Email {
        return left(conversation).await;
    }
    match (waits(conversation).await?, conversation.channel.idle.answered) {
        (true, _) => give(conversation, HandoffReason::Unanswered).await,
        (false, IdleEnd::Handoff) => give(conversation, HandoffReason::Idle).await,
        (false, IdleEnd::Resolve) => close(conversation).await,
    }
}

/// Whether the customer had the last word: as Chatwoot tells it, or else by the transcript. If neither tells, yes.
async fn waits(conversation: &Conversation) -> Result<bool, InboxError> {
    match conversation.known.last_word {
        Some(Sender::Customer) => return Ok(true),
        Some(Sender::Bot(id)) if id == conversation.channel.bot_id => return Ok(false),
        // They had it, or gave it back: what they said stands.
        Some(Sender::Human(_) | Sender::ExternalEcho | Sender::Nobody) => return Ok(false),
        // Surveys and greetings answer nothing.
        Some(Sender::Bot(_) | Sender::Captain | Sender::Automation | Sender::Template) | None => {}
    }
    let last = conversation.relay.parts.inbox.transcript(conversation.row, 1).await?.pop();
    Ok(last.is_none_or(|line| line.voice == Voice::Customer))
}

async fn give(conversation: &mut Conversation, reason: HandoffReason) -> Result<TurnEnd, InboxError> {
    count(conversation, "handed_off");
    let upto_seq = conversation.known.last_seq;
    hand_over(conversation, Uuid::now_v7(), upto_seq, reason, ByAgent::default()).await
}

async fn close(conversation: &mut Conversation) -> Result<TurnEnd, InboxError> {
    match handover::set_status(conversation, Status::Resolved).await {
        Opened::Done => {
            conversation.known.state.owner = Some(CLOSED_BY_US.to_owned());
            count(conversation, "resolved");
            info!(tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), "Idle: resolved.");
            conversation.finish("resolved", conversation.known.last_seq, None, Vec::new()).await
        }
        Opened::Gone => left(conversation).await,
        Opened::Later => conversation.put_off(None).await,
        Opened::Stopped => Ok(TurnEnd::Stopped),
    }
}

async fn left(conversation: &mut Conversation) -> Result<TurnEnd, InboxError> {
    count(conversation, "left");
    conversation.finish("signal", conversation.known.last_seq, None, Vec::new()).await
}

fn count(conversation: &Conversation, end: &str) {
    conversation.relay.parts.metrics.sweep.idle.with_label_values(&[end]).inc();
}

/// What became of a conversation that a customer's message found resolved.
pub(super) enum Reopened {
    /// It was not we who resolved it, or it is not resolved.
    No,
    /// It is pending again.
    Yes,
    /// That could not be done now.
    End(TurnEnd),
}

/// Takes back our resolving, if a message of the customer crossed with it. Once: whoever resolves it then means it.
pub(super) async fn reopen(conversation: &mut Conversation, why: NotOurs) -> Result<Reopened, InboxError> {
    let known = &mut conversation.known;
    let resolved = known.state.status.as_deref() == Some(Status::Resolved.as_str());
    if why != NotOurs::Status || !resolved || known.asks().is_empty() || !std::mem::take(&mut known.closed_by_us) {
        return Ok(Reopened::No);
    }
    Ok(match handover::set_status(conversation, Status::Pending).await {
        Opened::Done => Reopened::Yes,
        Opened::Gone => Reopened::No,
        Opened::Later => Reopened::End(conversation.put_off(None).await?),
        Opened::Stopped => Reopened::End(TurnEnd::Stopped),
    })
}
