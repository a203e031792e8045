//! Stops a conversation that goes round in a circle: our answers and another bot's, or our own changes of status and
//! an automation that undoes them (contract 8, 13).
//!
//! No customer makes twenty turns in five minutes, and no team changes a status ten times. Past that a human gets the
//! conversation, once, with a note that says why; and should it come back to us at once, we let it rest until that
//! is over, since a second note would only be the next turn of the circle. What it counts is counted in the inbox,
//! so there is nothing to bound here and nothing to lose in a restart.

use std::time::Duration;

use tracing::warn;

use super::dispatch::millis;
use super::lane::Conversation;
use crate::chatwoot::event::EventKind;
use crate::handoff::HandoffReason;
use crate::inbox::InboxError;

/// What the breaker says of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circle {
    /// There is none.
    None,
    /// There is one: give it to a human.
    Found,
    /// It was given to a human, and has to rest for so long.
    Resting(Duration),
}

/// Whether the conversation goes round in a circle.
pub(super) async fn circle(conversation: &Conversation) -> Result<Circle, InboxError> {
    let parts = &conversation.relay.parts;
    let (limits, now_ms) = (&parts.limits, parts.clock.now_ms());
    let window_ms = millis(limits.loop_window);
    let (event, reason) = (EventKind::ConversationStatusChanged.as_str(), HandoffReason::Looping.as_str());
    let since_ms = now_ms.saturating_sub(window_ms);
    let recent = parts.inbox.recent(conversation.row, since_ms, event, reason).await?;
    if let Some(at_ms) = recent.handed_over_at_ms {
        let left_ms = at_ms.saturating_add(window_ms).saturating_sub(now_ms).clamp(0, window_ms);
        return Ok(Circle::Resting(Duration::from_millis(left_ms.unsigned_abs())));
    }
    let sign = if recent.turns >= limits.loop_turns_max {
        "turns"
    } else if recent.events >= limits.loop_flips_max {
        "status"
    } else {
        return Ok(Circle::None);
    };
    warn!(
        tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), sign, turns = recent.turns,
        status_changes = recent.events, "The conversation goes round in a circle; a human gets it."
    );
    parts.metrics.relay.loops.with_label_values(&[sign]).inc();
    Ok(Circle::Found)
}
