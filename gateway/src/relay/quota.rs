//! What the plan of a managed channel counts: conversations answered in a month, and the humans seen there.
//!
//! A conversation that is not counted in this month yet takes a place in it before an agent is asked, and counts with the
//! transaction that makes the first reply durable (`plan`). Which are counted, the inbox knows; how many, and whether
//! there is one more, the account. Handoffs and the operator's notices are no replies. A reply counts in the month in
//! which it was decided on, however late Chatwoot takes it. If the disk fails at that very moment, the account may
//! know of one less than the inbox until the next start.

use relais_policies::shadow::Shadowed;

use super::Payer;
use super::lane::Conversation;
use crate::inbox::InboxError;

/// Whether the plan includes no answer in this conversation any more. If it is a new one and there is room, it has its
/// place from here on.
pub(super) async fn used_up(conversation: &mut Conversation) -> Result<bool, InboxError> {
    if !conversation.payer.by_conversation() || conversation.place.is_some() {
        return Ok(false);
    }
    let account = &conversation.payer.account;
    let inbox = &conversation.relay.parts.inbox;
    if inbox.is_counted(conversation.key.clone(), account.counts_since_ms()).await? {
        return Ok(false);
    }
    let Ok(place) = account.new_conversation() else { return Ok(true) };
    if place.shadowed {
        conversation.relay.parts.metrics.shadow_denied(Shadowed::ConversationsPerMonth);
    }
    conversation.place = Some(place);
    Ok(false)
}

/// A number for each human who wrote in the deliveries at hand, that tells two apart and nothing else.
pub(super) fn humans(conversation: &Conversation) -> Vec<u64> {
    let url = conversation.channel.url.to_string();
    let number = |id: &u64| {
        let mut hash = blake3::Hasher::new();
        hash.update(b"human").update(&id.to_le_bytes()).update(url.as_bytes());
        let mut short = [0; 8];
        hash.finalize_xof().fill(&mut short);
        u64::from_le_bytes(short)
    };
    conversation.known.humans.iter().map(number).collect()
}

impl Payer {
    /// Replies are paid by the conversation.
    pub(super) fn by_conversation(&self) -> bool {
        self.policy.payer(self.kind) == Some(relais_policies::tenant::Payer::ConversationQuota)
    }
}
