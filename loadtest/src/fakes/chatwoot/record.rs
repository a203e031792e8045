//! What happened, for whoever watches or checks: deliveries, calls, and one line per happening.
//!
//! Every list is a ring with a bound: the oldest goes first, and how many went is counted, so that
//! a check over a long run can tell "it did not happen" from "it is no longer known".

use std::collections::VecDeque;

use serde::Serialize;

use super::model::{Author, ConversationKey, Status};

/// A list that forgets its oldest entries, and counts them.
#[derive(Debug)]
pub(super) struct Ring<T> {
    entries: VecDeque<T>,
    kept_max: usize,
    forgotten: u64,
}

impl<T> Ring<T> {
    pub(super) fn new(kept_max: usize) -> Self {
        Self { entries: VecDeque::new(), kept_max, forgotten: 0 }
    }

    /// Adds an entry and returns its number, which stays valid until it is forgotten.
    pub(super) fn push(&mut self, entry: T) -> u64 {
        if self.entries.len() >= self.kept_max && self.entries.pop_front().is_some() {
            self.forgotten += 1;
        }
        self.entries.push_back(entry);
        self.forgotten + self.entries.len() as u64 - 1
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let at = number.checked_sub(self.forgotten)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// The latest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().rev()
    }

    /// The entries from this number on, with their numbers.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        (self.forgotten..).zip(&self.entries).skip_while(move |(at, _)| *at < number)
    }

    /// The number of the oldest entry that is still known.
    pub(super) fn first_number(&self) -> u64 {
        self.forgotten
    }

    /// The number the next entry will have.
    pub(super) fn next_number(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Waiting, under way or about to be retried.
    Pending,
    /// Answered with a 2xx.
    Accepted,
    /// Given up.
    Failed,
    /// Lost on purpose, because too many were waiting, or because what it shows was deleted.
    Lost,
}

/// Which way a webhook goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// To an agent bot: built at the event, tried again after 429 and 500.
    Bot(u64),
    /// To a webhook of the account: built later, tried once.
    Account,
    /// To an API inbox: built later, tried once; a failure marks the message.
    ApiInbox,
}

/// One try of a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// When it began, ms since 1970.
    pub at_ms: i64,
    /// The status answered, if any was.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<String>,
    /// From the start of the connection to the head of the answer, or to the failure.
    pub answer_us: u64,
}

/// One webhook to one receiver.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    /// `X-Chatwoot-Delivery`: the same on each retry, and on a duplicate.
    pub delivery_id: String,
    /// The event.
    pub event: &'static str,
    /// Whom it is for.
    pub route: Route,
    /// The conversation it is about; number 0 if there is none.
    #[serde(flatten)]
    pub key: ConversationKey,
    /// The message it is about.
    pub message_id: Option<u64>,
    /// A second sending of the same delivery.
    pub duplicate: bool,
    /// The tries so far.
    pub attempts: Vec<Attempt>,
    /// Where it stands.
    pub outcome: Outcome,
}

/// One call to the REST API.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// When, ms since 1970.
    pub at_ms: i64,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Whose token it was.
    pub caller: Option<Author>,
    /// The status answered; `None` if the connection was closed instead.
    pub status: Option<u16>,
}

/// Something that happened, as `GET /control/events` tells it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants' docs say it; a field's name is its meaning")]
pub enum Happening {
    /// The customer wrote.
    CustomerSaid { message_id: u64, content: Option<String> },
    /// The customer was shown something: by a bot, a human, or neither.
    ReplySeen { message_id: u64, content: Option<String>, by: Option<Author> },
    /// A private note was left.
    NoteAdded { message_id: u64, content: Option<String>, by: Option<Author> },
    /// The status changed.
    StatusChanged { from: Status, to: Status, by: Option<Author>, reason: &'static str },
    /// Assignee or team changed.
    AssignmentChanged { assignee_id: Option<u64>, team: Option<String> },
    /// Labels were replaced.
    LabelsChanged { labels: Vec<String> },
    /// The typing indicator was switched.
    TypingChanged { on: bool },
    /// A webhook was sent.
    WebhookSent { delivery_id: String, event: &'static str, attempt: u32 },
    /// A webhook was answered, or was not.
    WebhookAnswered {
        delivery_id: String,
        event: &'static str,
        attempt: u32,
        status: Option<u16>,
        error: Option<String>,
        answer_us: u64,
    },
    /// A webhook was given up.
    WebhookFailed { delivery_id: String, event: &'static str },
    /// A webhook was lost, on purpose or for want of room.
    WebhookLost { delivery_id: String, event: &'static str },
    /// Whoever runs the gateway has told something else of it than before.
    GatewayTold,
    /// Somebody wants to see the gateway crash and start again. The fake only says so: it does not run it.
    CrashAsked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_forgets_the_oldest_and_keeps_its_numbers() {
        let mut ring = Ring::new(2);
        assert_eq!([ring.push('a'), ring.push('b'), ring.push('c')], [0, 1, 2]);
        assert_eq!(ring.get_mut(0), None);
        assert_eq!(ring.get_mut(2), Some(&mut 'c'));
        assert_eq!(ring.since(2).collect::<Vec<_>>(), [(2, &'c')]);
        assert_eq!((ring.iter().count(), ring.next_number()), (2, 3));
    }
}
