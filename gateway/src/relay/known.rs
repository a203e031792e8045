//! What a conversation's deliveries tell: what the customer asked, who has the conversation, what of ours arrived.
//!
//! Deliveries come in any order, late and repeatedly. Messages are ordered by their ids; who has the conversation is
//! taken from whatever payload shows the newest state, since Chatwoot does not always send the events made for it
//! (contract 3.5). A human who spoke while the conversation was pending keeps it until some payload shows that it has
//! left *pending*: after that its status alone says whose it is.
//!
//! Pure: it asks nobody and stores nothing.

use super::idle::{self, CLOSED_BY_US};
use crate::chatwoot::event::{
    self, Assignee, AttachmentKind, ConversationView, Event, EventKind, Message, Parsed, Sender, Status, TurnMark,
};
use crate::conversation::{Contact, Medium};
use crate::inbox::{ConversationState, Line, Stored, Voice};

/// Something the customer said that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// The delivery that told us.
    pub(super) seq: i64,
    /// The newest delivery that told what was said: another one if the words came later.
    told_seq: i64,
    /// The message.
    pub(super) message_id: u64,
    /// When it reached us: Unix ms.
    pub(super) received_at_ms: i64,
    /// What was said.
    pub(super) text: String,
    /// It holds nothing that can be read: a picture, a sound without a transcript.
    pub(super) unreadable: bool,
    /// It is a voice note whose words may come yet.
    wordless: bool,
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

/// How deliveries end.
pub(super) const NOT_OURS: &str = "not_ours";
/// Answered together with something newer, or taken back.
pub(super) const SUPERSEDED: &str = "superseded";
/// Asks nothing.
pub(super) const SIGNAL: &str = "signal";

/// What ends with a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Deliveries, each with its outcome.
    pub(super) deliveries: Vec<(i64, &'static str)>,
    /// The newest message that was asked in them.
    pub(super) answered_message_id: u64,
}

/// A conversation as its deliveries tell it.
#[derive(Debug)]
pub(super) struct Known {
    bot_id: u64,
    pub(super) state: ConversationState,
    /// What the customer asked, as it came. Messages may come late, and a submitted form is an update of our own,
    /// older message: so what is new is told by the delivery, never by the message's id.
    asks: Vec<Ask>,
    /// Deliveries that asked something which has been deleted since.
    retracted: Vec<i64>,
    /// Words of voice notes that came in updates.
    heard: Vec<(u64, String)>,
    /// New lines of the transcript, by their messages' numbers.
    lines: Vec<Line>,
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
    /// The users of Chatwoot who did, each once.
    pub(super) humans: Vec<u64>,
    /// The channel could not deliver a message of ours, says one of these deliveries.
    pub(super) undelivered: bool,
    /// Noted as quiet when this was its newest message.
    pub(super) idle: Option<u64>,
    /// We resolved it, and nothing has happened since.
    pub(super) closed_by_us: bool,
    /// Who wrote the newest message, as Chatwoot told last.
    pub(super) last_word: Option<Sender>,
    /// The newest message known to the newest snapshot applied.
    snapshot_message_id: u64,
}

impl Known {
    /// What was known before these deliveries.
    pub(super) fn new(bot_id: u64, state: ConversationState) -> Self {
        Self {
            closed_by_us: state.owner.as_deref() == Some(CLOSED_BY_US),
            bot_id,
            state,
            asks: Vec::new(),
            heard: Vec::new(),
            retracted: Vec::new(),
            lines: Vec::new(),
            echoes: Vec::new(),
            seqs: Vec::new(),
            last_seq: 0,
            contact: Contact::default(),
            medium: Medium::default(),
            chatwoot_inbox_id: None,
            human_spoke: false,
            humans: Vec::new(),
            undelivered: false,
            idle: None,
            last_word: None,
            snapshot_message_id: 0,
        }
    }

    /// Takes in deliveries, in the order of acceptance.
    pub(super) fn read(&mut self, deliveries: &[Stored]) {
        for stored in deliveries {
            self.last_seq = self.last_seq.max(stored.seq);
            self.seqs.push(stored.seq);
            if stored.event == idle::EVENT {
                self.idle = self.idle.max(idle::noted(&stored.body));
                continue;
            }
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
            self.ask(stored, message.id, answer, Readable::Yes);
        }
        let voice = match message.from {
            _ if ours => Voice::Agent,
            Sender::Customer => Voice::Customer,
            Sender::Human(_) | Sender::ExternalEcho | Sender::Nobody => Voice::Human,
            // Other bots, templates and automation neither ask nor answer.
            Sender::Bot(_) | Sender::Captain | Sender::Automation | Sender::Template => return,
        };
        match voice {
            Voice::Customer if message.deleted => {
                let gone = self.asks.iter().filter(|ask| ask.message_id == message.id).map(|ask| ask.seq);
                self.retracted.extend(gone);
                self.asks.retain(|ask| ask.message_id != message.id);
            }
            Voice::Customer if kind == EventKind::MessageCreated => {
                // The words may have overtaken the voice note.
                let heard = self.heard.iter().find(|(id, _)| *id == message.id).map(|(_, words)| words.clone());
                match heard {
                    Some(words) => self.ask(stored, message.id, words, Readable::Yes),
                    None => self.ask(stored, message.id, text.clone(), readable(message)),
                }
            }
            // A voice note's words come later.
            Voice::Customer => {
                let readable = readable(message);
                if readable == Readable::Yes {
                    self.heard.push((message.id, text.clone()));
                }
                for ask in self.asks.iter_mut().filter(|ask| ask.message_id == message.id && ask.text != text) {
                    ask.text.clone_from(&text);
                    ask.told_seq = stored.seq;
                    ask.unreadable = readable != Readable::Yes;
                    ask.wordless = readable == Readable::Later;
                }
            }
            Voice::Human if kind == EventKind::MessageCreated => {
                self.human_spoke = true;
                if let Sender::Human(id) = message.from
                    && !self.humans.contains(&id)
                {
                    self.humans.push(id);
                }
                if status.is_none_or(|status| status == Status::Pending) {
                    self.state.human_message_id = self.state.human_message_id.max(Some(message.id));
                }
            }
            Voice::Human | Voice::Agent => {}
        }
        if !text.is_empty() && (kind == EventKind::MessageCreated || !ours) {
            self.line(Line { message_id: message.id, voice, text });
        }
    }

    fn ask(&mut self, stored: &Stored, message_id: u64, text: String, readable: Readable) {
        let Stored { seq, received_at_ms, .. } = *stored;
        let (unreadable, wordless) = (readable != Readable::Yes, readable == Readable::Later);
        // Nearly always there is one, and it waits for long.
        self.asks.reserve_exact(1);
        self.asks.push(Ask { seq, told_seq: seq, message_id, received_at_ms, text, unreadable, wordless });
    }

    /// A line, in the place of an earlier form of it if there is one.
    fn line(&mut self, line: Line) {
        match self.lines.binary_search_by_key(&line.message_id, |known| known.message_id) {
            Ok(at) => {
                if let Some(known) = self.lines.get_mut(at) {
                    *known = line;
                }
            }
            Err(at) => {
                self.lines.reserve_exact(1);
                self.lines.insert(at, line);
            }
        }
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
        // What was pending when a delivery was made may have been resolved by us since; Chatwoot's own word tells.
        let closed = self.state.owner.as_deref() == Some(CLOSED_BY_US)
            && view.status == Some(Status::Pending)
            && view.assignee == Assignee::None;
        self.apply(view);
        if closed {
            self.state.owner = Some(CLOSED_BY_US.to_owned());
        }
    }

    /// Applies what Chatwoot itself answered just now.
    pub(super) fn apply(&mut self, view: &ConversationView) {
        if let Some(last) = &view.last_message {
            self.state.seen_message_id = self.state.seen_message_id.max(last.id);
            self.last_word = Some(last.from);
        }
        if view.medium != Medium::Other {
            self.medium = view.medium;
        }
        if let Some(status) = view.status {
            self.state.status = Some(status.as_str().to_owned());
            if status != Status::Pending {
                self.state.human_message_id = None;
            }
        }
        // What follows from our resolving it tells nothing new.
        if self.state.owner.as_deref() == Some(CLOSED_BY_US) && view.status == Some(Status::Resolved) {
            return;
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

    /// Whether the customer asked anything after this delivery, or the words of what they asked came after it.
    pub(super) fn asked_after(&self, seq: i64) -> bool {
        self.asks.iter().any(|ask| ask.told_seq > seq)
    }

    /// When the newest voice note reached us whose words may come yet: Unix ms.
    pub(super) fn wordless_ms(&self) -> Option<i64> {
        self.asks.iter().filter(|ask| ask.wordless).map(|ask| ask.received_at_ms).max()
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

    /// Deliveries that end with a turn that answers those up to `upto_seq`: all but what was asked later. Each with
    /// its own outcome: the newest thing asked has the turn's, what was answered together with it is superseded by
    /// it, and what asks nothing is a signal. What nobody of us answers is not ours, all of it.
    pub(super) fn ending(&self, outcome: &'static str, upto_seq: i64) -> Ending {
        let newest = self.asks.iter().map(|ask| ask.seq).filter(|seq| *seq <= upto_seq).max();
        let of = |seq: i64| {
            if self.retracted.contains(&seq) {
                return Some(SUPERSEDED);
            }
            if !self.asks.iter().any(|ask| ask.seq == seq) {
                return Some(SIGNAL);
            }
            let own = outcome == NOT_OURS || Some(seq) == newest;
            (seq <= upto_seq).then_some(if own { outcome } else { SUPERSEDED })
        };
        let answered = self.asks.iter().filter(|ask| ask.seq <= upto_seq);
        Ending {
            deliveries: self.seqs.iter().filter_map(|seq| Some((*seq, of(*seq)?))).collect(),
            answered_message_id: answered.map(|ask| ask.message_id).max().unwrap_or(0),
        }
    }

    /// New lines, in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }
}

/// Whether a message holds words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readable {
    Yes,
    /// A voice note, whose words come in an update if Chatwoot writes them down (contract 2.8).
    Later,
    No,
}

fn readable(message: &Message) -> Readable {
    let said = message.content.as_ref().is_some_and(|content| !content.trim().is_empty());
    if said || message.attachments.iter().any(|attachment| attachment.transcript.is_some()) {
        return Readable::Yes;
    }
    let voice = message.attachments.iter().any(|attachment| attachment.kind == AttachmentKind::Audio);
    if voice { Readable::Later } else { Readable::No }
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
