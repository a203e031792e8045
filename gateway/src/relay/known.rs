//! What a conversation's deliveries tell: what the customer asked, who has the conversation, what of ours arrived.
//!
//! Deliveries come in any order, late and repeatedly. Messages are ordered by their ids; who has the conversation is
//! taken from whatever payload shows the newest state, since Chatwoot does not always send the events made for it
//! (contract 3.5). A human who spoke while the conversation was pending keeps it until some payload shows that it has
//! left *pending*: after that its status alone says whose it is.
//!
//! Pure: it asks nobody and stores nothing.

use std::collections::BTreeMap;

use crate::chatwoot::event::{
    self, Assignee, ConversationView, Event, EventKind, Message, Parsed, Sender, Status, TurnMark,
};
use crate::conversation::{Contact, Medium};
use crate::inbox::{ConversationState, Line, Stored, Voice};

/// Something the customer said that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// The delivery that told us.
    pub(super) seq: i64,
    /// The message.
    pub(super) message_id: u64,
    /// When it reached us: Unix ms.
    pub(super) received_at_ms: i64,
    /// What was said.
    pub(super) text: String,
    /// It holds nothing that can be read: a picture, a sound without a transcript.
    pub(super) unreadable: bool,
}

/// Why a conversation is not ours to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOurs {
    /// Its status is not *pending*.
    Status,
    /// It is pending, but a human spoke or is assigned: nobody would look at it there.
    HumanHidden,
    /// Another bot has it.
    OtherBot,
}

/// A conversation as its deliveries tell it.
#[derive(Debug)]
pub(super) struct Known {
    bot_id: u64,
    pub(super) state: ConversationState,
    /// What the customer asked, as it came. Messages may come late, and a submitted form is an update of our own,
    /// older message: so what is new is told by the delivery, never by the message's id.
    asks: Vec<Ask>,
    /// New lines of the transcript.
    lines: BTreeMap<u64, Line>,
    /// Our own messages that were seen at Chatwoot.
    echoes: Vec<(TurnMark, u64)>,
    /// Deliveries read, and the newest of them.
    seqs: Vec<i64>,
    pub(super) last_seq: i64,
    pub(super) contact: Contact,
    pub(super) medium: Medium,
    /// Chatwoot's inbox it came in by.
    pub(super) chatwoot_inbox_id: Option<u64>,
    /// A human wrote to the customer, in these deliveries.
    pub(super) human_spoke: bool,
    /// The channel could not deliver a message of ours, says one of these deliveries.
    pub(super) undelivered: bool,
    /// The newest message known to the newest snapshot applied.
    snapshot_message_id: u64,
}

impl Known {
    /// What was known before these deliveries.
    pub(super) fn new(bot_id: u64, state: ConversationState) -> Self {
        Self {
            bot_id,
            state,
            asks: Vec::new(),
            lines: BTreeMap::new(),
            echoes: Vec::new(),
            seqs: Vec::new(),
            last_seq: 0,
            contact: Contact::default(),
            medium: Medium::default(),
            chatwoot_inbox_id: None,
            human_spoke: false,
            undelivered: false,
            snapshot_message_id: 0,
        }
    }

    /// Takes in deliveries, in the order of acceptance.
    pub(super) fn read(&mut self, deliveries: &[Stored]) {
        for stored in deliveries {
            self.last_seq = self.last_seq.max(stored.seq);
            self.seqs.push(stored.seq);
            match event::parse(&stored.body) {
                Ok(Parsed::Event(event)) => self.event(stored, &event),
                Ok(Parsed::Ignored(_)) => {}
                // It was read when it was accepted; a newer Relais that reads less would show here.
                Err(error) => tracing::error!(%error, seq = stored.seq, "A stored delivery cannot be read any more."),
            }
        }
    }

    fn event(&mut self, stored: &Stored, event: &Event) {
        let message_id = event.message.as_ref().map_or(0, |message| message.id);
        if let Some(message) = &event.message {
            self.state.seen_message_id = self.state.seen_message_id.max(message.id);
            self.message(stored, event.kind, message, event.conversation.status);
        }
        self.snapshot(&event.conversation, message_id);
    }

    fn message(&mut self, stored: &Stored, kind: EventKind, message: &Message, status: Option<Status>) {
        let ours = message.turn.is_some() || matches!(message.from, Sender::Bot(id) if id == self.bot_id);
        if let Some(mark) = &message.turn {
            self.echoes.push((*mark, message.id));
        }
        if message.private {
            return;
        }
        self.undelivered |= ours && message.external_error;
        let text = text_of(message);
        if !message.submitted.is_empty() {
            let answer = message.submitted.join(", ");
            self.ask(stored, message.id, answer, false);
        }
        let voice = match message.from {
            _ if ours => Voice::Agent,
            Sender::Customer => Voice::Customer,
            Sender::Human(_) | Sender::ExternalEcho | Sender::Nobody => Voice::Human,
            // Other bots, templates and automation neither ask nor answer.
            Sender::Bot(_) | Sender::Captain | Sender::Automation | Sender::Template => return,
        };
        match voice {
            Voice::Customer if message.deleted => self.asks.retain(|ask| ask.message_id != message.id),
            Voice::Customer if kind == EventKind::MessageCreated => {
                self.ask(stored, message.id, text.clone(), unreadable(message));
            }
            // A voice note's words come later.
            Voice::Customer => {
                for ask in self.asks.iter_mut().filter(|ask| ask.message_id == message.id) {
                    ask.text.clone_from(&text);
                    ask.unreadable = unreadable(message);
                }
            }
            Voice::Human if kind == EventKind::MessageCreated => {
                self.human_spoke = true;
                if status.is_none_or(|status| status == Status::Pending) {
                    self.state.human_message_id = self.state.human_message_id.max(Some(message.id));
                }
            }
            Voice::Human | Voice::Agent => {}
        }
        if !text.is_empty() && (kind == EventKind::MessageCreated || !ours) {
            self.lines.insert(message.id, Line { message_id: message.id, voice, text });
        }
    }

    fn ask(&mut self, stored: &Stored, message_id: u64, text: String, unreadable: bool) {
        let received_at_ms = stored.received_at_ms;
        self.asks.push(Ask { seq: stored.seq, message_id, received_at_ms, text, unreadable });
    }

    /// Applies what a payload shows of the conversation, unless a newer one was applied already.
    fn snapshot(&mut self, view: &ConversationView, message_id: u64) {
        let age = message_id.max(view.last_message.as_ref().map_or(0, |last| last.id));
        self.contact = view.contact.clone();
        self.medium = view.medium;
        self.chatwoot_inbox_id = view.chatwoot_inbox_id.or(self.chatwoot_inbox_id);
        if age < self.snapshot_message_id {
            return;
        }
        self.snapshot_message_id = age;
        self.apply(view);
    }

    /// Applies what Chatwoot itself answered just now.
    pub(super) fn apply(&mut self, view: &ConversationView) {
        if let Some(last) = &view.last_message {
            self.state.seen_message_id = self.state.seen_message_id.max(last.id);
        }
        if let Some(status) = view.status {
            self.state.status = Some(status.as_str().to_owned());
            if status != Status::Pending {
                self.state.human_message_id = None;
            }
        }
        let owner = match view.assignee {
            Assignee::None => "none",
            Assignee::Bot(id) if id == self.bot_id => "us",
            Assignee::Human(_) => "human",
            Assignee::Bot(_) | Assignee::Other => "other",
            Assignee::Unknown => return,
        };
        self.state.owner = Some(owner.to_owned());
    }

    /// Whether the conversation is ours to answer, as far as we know. A status nobody told us is not in the way:
    /// Chatwoot is asked again before anything is posted.
    pub(super) fn ours(&self) -> Result<(), NotOurs> {
        if self.state.status.as_deref().is_some_and(|status| status != Status::Pending.as_str()) {
            return Err(NotOurs::Status);
        }
        match self.state.owner.as_deref() {
            Some("other") => Err(NotOurs::OtherBot),
            Some("human") => Err(NotOurs::HumanHidden),
            _ if self.state.human_message_id.is_some() => Err(NotOurs::HumanHidden),
            _ => Ok(()),
        }
    }

    /// What the customer asked, as it came.
    pub(super) fn asks(&self) -> &[Ask] {
        &self.asks
    }

    /// Whether the customer asked anything after this delivery.
    pub(super) fn asked_after(&self, seq: i64) -> bool {
        self.asks.iter().any(|ask| ask.seq > seq)
    }

    /// When the burst of asks began and when its newest part reached us: Unix ms.
    pub(super) fn burst_ms(&self) -> Option<(i64, i64)> {
        let first = self.asks.iter().map(|ask| ask.received_at_ms).min()?;
        let last = self.asks.iter().map(|ask| ask.received_at_ms).max()?;
        Some((first, last))
    }

    /// The message id of one of our posts, if its echo came.
    pub(super) fn echo(&self, mark: TurnMark) -> Option<u64> {
        self.echoes.iter().find(|(seen, _)| *seen == mark).map(|(_, message_id)| *message_id)
    }

    /// Deliveries that end with a turn that answers those up to `upto_seq`: all but what was asked later. Also the
    /// newest message that ends with them.
    pub(super) fn ending(&self, upto_seq: i64) -> (Vec<i64>, u64) {
        let later = |seq: &i64| self.asks.iter().any(|ask| ask.seq == *seq && ask.seq > upto_seq);
        let ended = self.asks.iter().filter(|ask| ask.seq <= upto_seq).map(|ask| ask.message_id).max();
        (self.seqs.iter().copied().filter(|seq| !later(seq)).collect(), ended.unwrap_or(0))
    }

    /// New lines, in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values()
    }
}

fn unreadable(message: &Message) -> bool {
    let said = message.content.as_ref().is_some_and(|content| !content.trim().is_empty());
    let heard = message.attachments.iter().any(|attachment| attachment.transcript.is_some());
    !said && !heard
}

fn text_of(message: &Message) -> String {
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
