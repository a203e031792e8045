//! Posting once: every message of a turn is at Chatwoot exactly once where that can be known, and never twice.
//!
//! That a message may be sent is durable before it is. If the answer to a post is lost, the message may be there or
//! not, and Chatwoot has no way to ask for "only if new". So before it is sent again we look: for its echo among our
//! deliveries, in the message list (with a user token), at the conversation's last message (with the bot token). It is
//! sent again only when one of the last two shows that it is not there, and only after Chatwoot has certainly stopped
//! working on the first try. When nothing can tell, it is not sent, and the conversation is a human's.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::known::NotOurs;
use super::lane::{Conversation, Waited};
use super::retry::Tries;
use crate::chatwoot::client::{CallClass, CallError, Outgoing};
use crate::chatwoot::event::TurnMark;
use crate::chatwoot::text;
use crate::conversation::choice::Choice;
use crate::inbox::{InboxError, Line, OpenTurn, Post, PostKind, PostState, Voice};

/// Beyond the time a call may take: the other side's clock and the way there.
const SETTLE_MARGIN: Duration = Duration::from_millis(500);
/// Looks that told nothing, or could not be made, before we give up, and the wait between them: an echo may still be
/// on its way.
const LOOKS_MAX: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How delivering went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// All of it is there, or left out for good.
    All,
    /// The conversation is not ours any more: the rest is not sent.
    NotOurs(NotOurs),
    /// There is no such conversation any more.
    Gone,
    /// One message may be there or not, and nothing can tell.
    Unclear,
    /// Chatwoot does not take it.
    Refused,
    /// Chatwoot cannot be reached; the message is certainly not there.
    Later,
    /// The relay is stopping.
    Stopped,
}

/// What became of one message.
enum Fate {
    There(u64),
    /// Not there for certain.
    Unsent(Delivered),
    /// Not known to be there.
    Not(Delivered),
}

/// What a look told.
enum Look {
    There(u64),
    Absent,
    Told(Delivered),
}

/// Posts what is left of a turn, of these kinds, in order. `unsent` is a part that is in state *sending* only because
/// we have just written so. What is for humans yields to nothing and is left out when it cannot be sent.
pub(super) async fn deliver(
    conversation: &mut Conversation,
    turn: &mut OpenTurn,
    kind: PostKind,
    mut unsent: Option<u32>,
) -> Result<Delivered, InboxError> {
    for place in 0..turn.posts.len() {
        let Some(post) = turn.posts.get(place).filter(|post| post.kind == kind).cloned() else { continue };
        let since_ms = match post.state {
            PostState::Posted(_) | PostState::Skipped => continue,
            PostState::Planned => {
                conversation.relay.parts.inbox.sending(turn.id, post.part).await?;
                None
            }
            PostState::Sending(since_ms) => Some(since_ms).filter(|_| unsent != Some(post.part)),
        };
        if kind == PostKind::Reply {
            conversation.catch_up().await?;
            if let Err(why) = conversation.known.ours() {
                return Ok(Delivered::NotOurs(why));
            }
        }
        let state = match post_once(conversation, turn, &post, since_ms).await? {
            Fate::There(message_id) => {
                let next = turn.posts.get(place + 1).filter(|next| next.kind == kind).map(|next| next.part);
                conversation.relay.parts.inbox.posted(turn.id, post.part, message_id, next).await?;
                if let Some(next) = turn.posts.get_mut(place + 1).filter(|post| Some(post.part) == next) {
                    next.state = PostState::Sending(conversation.relay.parts.clock.now_ms());
                }
                unsent = next;
                PostState::Posted(message_id)
            }
            Fate::Not(Delivered::Unclear | Delivered::Refused) if kind != PostKind::Reply => {
                conversation.relay.parts.inbox.skipped(turn.id, post.part).await?;
                PostState::Skipped
            }
            Fate::Unsent(delivered) => {
                // Or the next look would have to prove what we know now.
                conversation.relay.parts.inbox.unsent(turn.id, post.part).await?;
                return Ok(delivered);
            }
            Fate::Not(delivered) => return Ok(delivered),
        };
        if let Some(post) = turn.posts.get_mut(place) {
            post.state = state;
        }
    }
    Ok(Delivered::All)
}

/// What we said to the customer in a turn, for the transcript. Messages whose id we do not know come as echoes.
pub(super) fn said(turn: &OpenTurn) -> Vec<Line> {
    let line = |post: &Post| match post.state {
        PostState::Posted(message_id)
            if message_id != 0 && matches!(post.kind, PostKind::Reply | PostKind::Message) =>
        {
            Some(Line { message_id, voice: Voice::Agent, text: post.text.clone() })
        }
        _ => None,
    };
    turn.posts.iter().filter_map(line).collect()
}

/// Posts one message. `since_ms`: it may have been sent already, then.
async fn post_once(
    conversation: &mut Conversation,
    turn: &OpenTurn,
    post: &Post,
    since_ms: Option<i64>,
) -> Result<Fate, InboxError> {
    let wait = conversation.relay.parts.limits.chatwoot_wait;
    let mark = TurnMark { turn_id: turn.id, part: post.part };
    let mut tries = Tries::new(conversation.relay.parts.limits.chatwoot_tries);
    // Some: it may be there; nothing can arrive any more after that moment.
    let mut settled_at = since_ms.map(|since_ms| {
        let passed_ms = conversation.relay.parts.clock.now_ms().saturating_sub(since_ms).max(0).unsigned_abs();
        Instant::now() + (wait + SETTLE_MARGIN).saturating_sub(Duration::from_millis(passed_ms))
    });
    let mut repeated = false;
    loop {
        if let Some(settled_at) = settled_at {
            match look(conversation, turn, post, mark, settled_at).await? {
                Look::There(message_id) => return Ok(Fate::There(message_id)),
                Look::Absent => repeated = true,
                Look::Told(delivered) => return Ok(Fate::Not(delivered)),
            }
        }
        // That took its time, and a human may have come meanwhile. It is certain here that it is not there.
        if repeated
            && !post.kind.is_private()
            && let Err(why) = still_open_to(conversation, post.kind).await?
        {
            return Ok(Fate::Unsent(Delivered::NotOurs(why)));
        }
        repeated = true;
        let outgoing = Outgoing { content: &post.text, private: post.kind.is_private(), mark: Some(mark) };
        let shown = Choice::read(&post.text)
            .filter(|choice| post.kind == PostKind::Reply && text::shows_options(conversation.known.medium, choice));
        let sent_at = Instant::now();
        let sent = match &shown {
            Some(choice) => conversation.client.post_choice(conversation.id(), choice, mark).await,
            None => conversation.client.post(conversation.id(), &outgoing).await,
        };
        let error = match sent {
            Ok(posted) => return Ok(Fate::There(posted.message_id)),
            Err(error) => error,
        };
        warn!(
            error = %error, tenant_id = %conversation.key.tenant, conversation_id = conversation.id(), turn = %turn.id,
            part = post.part, "Message not posted, or not known to be."
        );
        let asked = match error.class {
            CallClass::NotSent => None,
            CallClass::Throttled(asked) => asked,
            CallClass::Unknown | CallClass::Transient(_) => None,
            CallClass::Refused(404) => return Ok(Fate::Not(Delivered::Gone)),
            // Wrong token, no permission: nothing was done, and it is for the operator to mend.
            CallClass::Refused(0 | 401 | 402 | 403) => return Ok(Fate::Unsent(Delivered::Later)),
            CallClass::Refused(_) => return Ok(Fate::Not(Delivered::Refused)),
        };
        settled_at = settles(&error, sent_at, wait);
        match tries.next(asked) {
            Some(pause) => {
                if conversation.pause(pause).await == Waited::Stopping {
                    let certain = settled_at.is_none();
                    return Ok(if certain { Fate::Unsent(Delivered::Stopped) } else { Fate::Not(Delivered::Stopped) });
                }
            }
            None => return last_look(conversation, turn, post, mark, settled_at).await,
        }
    }
}

/// Whether it may still be said, by what came meanwhile and by Chatwoot's own word, if it has one for us.
async fn still_open_to(conversation: &mut Conversation, kind: PostKind) -> Result<Result<(), NotOurs>, InboxError> {
    let view = conversation.client.conversation(conversation.id()).await;
    conversation.catch_up().await?;
    let told = conversation.known.may_post(kind);
    if let Ok(view) = view {
        conversation.known.apply(&view);
    }
    Ok(conversation.known.may_post(kind).and(told))
}

/// From when on it is certain that a failed post does not arrive any more; none if it did not at all.
fn settles(error: &CallError, sent_at: Instant, wait: Duration) -> Option<Instant> {
    match error.class {
        CallClass::NotSent | CallClass::Throttled(_) | CallClass::Refused(_) => None,
        // Chatwoot itself has answered: it is through with it.
        CallClass::Transient(500 | 422) => Some(Instant::now()),
        // A proxy has answered for it, or nobody.
        CallClass::Transient(_) | CallClass::Unknown => Some(sent_at + wait + SETTLE_MARGIN),
    }
}

/// All tries are used up: what is the last word?
async fn last_look(
    conversation: &mut Conversation,
    turn: &OpenTurn,
    post: &Post,
    mark: TurnMark,
    settled_at: Option<Instant>,
) -> Result<Fate, InboxError> {
    let Some(settled_at) = settled_at else { return Ok(Fate::Unsent(Delivered::Later)) };
    Ok(match look(conversation, turn, post, mark, settled_at).await? {
        Look::There(message_id) => Fate::There(message_id),
        Look::Absent => Fate::Not(Delivered::Refused),
        Look::Told(delivered) => Fate::Not(delivered),
    })
}

/// Looks for a message that may be there, until something can tell.
async fn look(
    conversation: &mut Conversation,
    turn: &OpenTurn,
    post: &Post,
    mark: TurnMark,
    settled_at: Instant,
) -> Result<Look, InboxError> {
    let (mut looks, mut unasked) = (0, 0);
    loop {
        conversation.catch_up().await?;
        if let Some(message_id) = conversation.known.echo(mark) {
            return Ok(Look::There(message_id));
        }
        // Whether it could still arrive is asked before looking, not after.
        let settled = Instant::now() >= settled_at;
        match evidence(conversation, turn, post, mark).await {
            Evidence::There(message_id) => return Ok(Look::There(message_id)),
            Evidence::Gone => return Ok(Look::Told(Delivered::Gone)),
            Evidence::Absent if settled => return Ok(Look::Absent),
            Evidence::Absent => {}
            Evidence::None if settled => {
                looks += 1;
                if looks >= LOOKS_MAX {
                    return Ok(Look::Told(Delivered::Unclear));
                }
            }
            // Nothing was said because nobody was asked: that is for later, not for a human.
            Evidence::Unasked if settled => {
                unasked += 1;
                if unasked >= LOOKS_MAX {
                    return Ok(Look::Told(Delivered::Later));
                }
            }
            Evidence::None | Evidence::Unasked => {}
        }
        let pause = if settled { LOOK_PAUSE } else { settled_at.saturating_duration_since(Instant::now()) };
        if conversation.listen(pause).await == Waited::Stopping {
            return Ok(Look::Told(Delivered::Stopped));
        }
    }
}

enum Evidence {
    There(u64),
    Absent,
    Gone,
    None,
    /// Chatwoot takes no calls at the moment.
    Unasked,
}

async fn evidence(conversation: &Conversation, turn: &OpenTurn, post: &Post, mark: TurnMark) -> Evidence {
    // Newest message that was there before this one was sent.
    let before =
        turn.posts.iter().filter(|earlier| earlier.part < post.part).fold(turn.known_message_id, |id, earlier| {
            if let PostState::Posted(message_id) = earlier.state { id.max(message_id) } else { id }
        });
    let mut unasked = false;
    match conversation.client.messages_after(conversation.id(), before).await {
        Ok(Some(page)) => {
            if let Some(message) = page.messages.iter().find(|message| message.turn == Some(mark)) {
                return Evidence::There(message.id);
            }
            // More than a page since: too long ago to be worth reading on; the other signs may still tell.
            if !page.more {
                return Evidence::Absent;
            }
        }
        Ok(None) => {}
        Err(error) => {
            unasked = matches!(error.class, CallClass::Throttled(_));
            warn!(%error, "Messages not listed while looking for one of ours.");
        }
    }
    // The last message of a conversation is never a private one.
    if post.kind.is_private() {
        return if unasked { Evidence::Unasked } else { Evidence::None };
    }
    match conversation.client.conversation(conversation.id()).await {
        Ok(view) => match view.last_message {
            Some(last) if last.turn == Some(mark) => Evidence::There(last.id),
            Some(last) if last.id <= before => Evidence::Absent,
            // Somebody wrote after the moment in question: ours may stand before it.
            Some(_) | None => Evidence::None,
        },
        Err(CallError { class: CallClass::Refused(404), .. }) => Evidence::Gone,
        Err(error) => {
            warn!(%error, "Conversation not read while looking for a message of ours.");
            if matches!(error.class, CallClass::Throttled(_)) { Evidence::Unasked } else { Evidence::None }
        }
    }
}
