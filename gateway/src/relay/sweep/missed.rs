//! One channel's pending conversations, compared with what the inbox knows of them.
//!
//! What came in the last minute before we stopped hearing is compared again, because a delivery that came may have
//! overtaken one that did not; what is there already is found to be the same by the inbox and has no effect, and
//! neither has a webhook that comes after all. Of a conversation that the inbox does not know only what nobody has
//! answered yet is entered: the rest was somebody else's, or was forgotten when its time was over.

use std::sync::Arc;
use std::time::Duration;

use super::{SweepError, SweepParts};
use crate::chatwoot::client::missed::{Listed, Lists, Order, PAGE_CONVERSATIONS, Told};
use crate::chatwoot::event::{EventKind, Sender};
use crate::conversation::Medium;
use crate::inbox::{Accepted, ConversationKey, Delivery, IdleConversation, Sameness};
use crate::relay::{dispatch, idle};

/// Deliveries of so long before we stopped hearing may have overtaken one that never came.
const OVERTAKEN: Duration = Duration::from_secs(60);
/// Messages read of one conversation: more were not missed but are its past.
const MESSAGES_MAX: usize = 1_000;

/// What a sweep came upon.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) conversations: usize,
    pub(super) entered: usize,
    pub(super) known: usize,
    pub(super) too_old: usize,
}

/// Enters into the inbox what customers of a channel wrote and no delivery told. What came before `before_ms` is known.
pub(super) async fn sweep(
    parts: &SweepParts,
    tenant: &Arc<str>,
    lists: Lists<'_>,
    before_ms: i64,
    found: &mut Found,
) -> Result<(), SweepError> {
    let oldest_ms = parts.clock.now_ms().saturating_sub(dispatch::millis(parts.limits.missed_age_max));
    // All lists before any conversation: what happens in one moves it within the list.
    let mut pending = Vec::new();
    for inbox_id in lists.our_inboxes().await? {
        let max = parts.limits.conversations_max.saturating_sub(pending.len());
        let fresh = |listed: &Listed| listed.last_activity_ms >= oldest_ms;
        pending.extend(list(lists, inbox_id, Order::Newest, max, fresh).await?);
    }
    if pending.len() >= parts.limits.conversations_max {
        tracing::warn!(tenant_id = %tenant, "More pending conversations than sweep.conversations_max: not all looked at.");
    }
    for listed in &pending {
        found.conversations += 1;
        conversation(parts, tenant, lists, listed, Times { before_ms, oldest_ms }, found).await?;
    }
    Ok(())
}

/// Between these a message was missed.
#[derive(Clone, Copy)]
struct Times {
    before_ms: i64,
    oldest_ms: i64,
}

/// An inbox's pending conversations in this order as long as they are `wanted`, at most `max`.
async fn list(
    lists: Lists<'_>,
    inbox_id: u64,
    order: Order,
    max: usize,
    wanted: impl Fn(&Listed) -> bool,
) -> Result<Vec<Listed>, SweepError> {
    let mut all: Vec<Listed> = Vec::new();
    let pages_max = u32::try_from(max.div_ceil(PAGE_CONVERSATIONS)).unwrap_or(u32::MAX);
    for page in 1..=pages_max {
        let (listed, on_page) = lists.pending(inbox_id, order, page).await?;
        let (good, other): (Vec<_>, Vec<_>) = listed.into_iter().partition(&wanted);
        all.extend(good);
        if on_page < PAGE_CONVERSATIONS || !other.is_empty() {
            break;
        }
    }
    all.truncate(max);
    Ok(all)
}

async fn conversation(
    parts: &SweepParts,
    tenant: &Arc<str>,
    lists: Lists<'_>,
    listed: &Listed,
    times: Times,
    found: &mut Found,
) -> Result<(), SweepError> {
    let key = key(tenant, lists, listed);
    let known = parts.inbox.newest_before(key.clone(), times.before_ms, dispatch::millis(OVERTAKEN)).await?;
    if listed.view.last_message.is_some_and(|last| known.is_some_and(|known| known >= last.id)) {
        return Ok(());
    }
    let mut after = known;
    let mut looked = 0;
    while looked < MESSAGES_MAX {
        let (mut told, next) = lists.messages(listed, after).await?;
        if known.is_none() {
            let answered = told.iter().rposition(answers).map_or(0, |at| at + 1);
            told.drain(..answered);
        }
        looked += told.len();
        for told in told {
            enter(parts, &key, told, times.oldest_ms, found).await?;
        }
        match next {
            Some(next) if known.is_some() => after = Some(next),
            _ => break,
        }
    }
    Ok(())
}

fn key(tenant: &Arc<str>, lists: Lists<'_>, listed: &Listed) -> ConversationKey {
    let channel = lists.channel();
    ConversationKey {
        tenant: Arc::clone(tenant),
        channel: channel.name.as_str().into(),
        account_id: channel.account_id,
        conversation_id: listed.view.id,
    }
}

/// Somebody spoke to the customer.
fn answers(told: &Told) -> bool {
    let spoke = match told.message.from {
        Sender::Customer | Sender::Template | Sender::Automation => false,
        Sender::Human(_) | Sender::Bot(_) | Sender::Captain | Sender::ExternalEcho | Sender::Nobody => true,
    };
    spoke && !told.message.private
}

async fn enter(
    parts: &SweepParts,
    key: &ConversationKey,
    told: Told,
    oldest_ms: i64,
    found: &mut Found,
) -> Result<(), SweepError> {
    let Told { message, body } = told;
    let missed = &parts.metrics.sweep.missed;
    if message.created_at_ms > 0 && message.created_at_ms < oldest_ms {
        found.too_old += 1;
        missed.with_label_values(&["too_old"]).inc();
        return Ok(());
    }
    let event = EventKind::MessageCreated.as_str();
    let now_ms = parts.clock.now_ms();
    let delivery = Delivery::new(key.clone(), event, Some(message.id), Sameness::Message, None, body, now_ms);
    let result = match parts.inbox.accept(delivery).await? {
        Accepted::New => {
            found.entered += 1;
            "entered"
        }
        Accepted::Duplicate => {
            found.known += 1;
            "known"
        }
    };
    missed.with_label_values(&[result]).inc();
    Ok(())
}

/// Notes which of the conversations that Chatwoot lists are quiet, at most `limit`. How many it noted.
pub(super) async fn note_idle(
    parts: &SweepParts,
    tenant: &Arc<str>,
    lists: Lists<'_>,
    before_ms: i64,
    limit: usize,
) -> Result<usize, SweepError> {
    let mut noted = 0;
    for inbox_id in lists.our_inboxes().await? {
        let quiet = |listed: &Listed| listed.last_activity_ms > 0 && listed.last_activity_ms < before_ms;
        for listed in list(lists, inbox_id, Order::Quietest, parts.limits.conversations_max, quiet).await? {
            if noted >= limit {
                return Ok(noted);
            }
            let Some(last) = listed.view.last_message.filter(|_| listed.view.medium != Medium::Email) else { continue };
            let key = key(tenant, lists, &listed);
            let quiet = IdleConversation { key, seen_message_id: last.id, since_ms: listed.last_activity_ms };
            noted += idle::note(&parts.inbox, quiet, parts.clock.now_ms()).await?;
        }
    }
    Ok(noted)
}
