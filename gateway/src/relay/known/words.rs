//! What a message says, its attachments included.

use crate::chatwoot::event::{AttachmentKind, Message};

/// Whether a message holds words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    Yes,
    /// A voice note, whose words come in an update if Chatwoot writes them down (contract 2.8).
    Later,
    No,
}

/// Whether this one does.
pub(super) fn readable(message: &Message) -> Readable {
    let said = message.content.as_ref().is_some_and(|content| !content.trim().is_empty());
    if said || message.attachments.iter().any(|attachment| attachment.transcript.is_some()) {
        return Readable::Yes;
    }
    let voice = message.attachments.iter().any(|attachment| attachment.kind == AttachmentKind::Audio);
    if voice { Readable::Later } else { Readable::No }
}

/// Its text, with what has none named in brackets.
pub(super) fn text_of(message: &Message) -> String {
    let mut text = message.content.clone().unwrap_or_default();
    for attachment in &message.attachments {
        if !text.is_empty() {
            text.push('\n');
        }
        match &attachment.transcript {
            Some(words) if !words.is_empty() => text.push_str(words),
            _ => {
                text.push('[');
                text.push_str(attachment.kind.as_str());
                text.push(']');
            }
        }
    }
    text
}
