//! When a human takes over, and what is said about it. Pure: texts and signals in, a decision out.
//!
//! The rules are few and in one order, so that one reason is counted. Whether a customer asks for a human is told
//! from phrases, French and English, before any model is asked: it must work with every model and with none. It
//! errs towards the agent (a missed phrase still reaches the model's own handoff tool; a false one would take the
//! customer away from an agent that could have helped).
//!
//! Doing it (the note, the team, the message, opening the conversation) is the relay's, and whether a plan includes
//! handoffs at all is the policy's (D17).

mod note;
mod phrases;
mod texts;

use crate::config::{self, VipWhen};
use crate::conversation::{Speaker, Utterance, words};

pub use note::{Summary, note, unknown_target};
pub use phrases::asks_for_human;
pub use texts::{message, notice, quota_notice, rephrase};

/// Why a human takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandoffReason {
    /// The customer asked for one.
    AskedFor,
    /// We cannot tell whether our reply arrived, and a second might be a double.
    DeliveryUnknown,
    /// Our reply was not taken, or the channel could not deliver it.
    Undelivered,
    /// Turns or changes of status follow each other as no customer makes them.
    Looping,
    /// A label says that it is a human's.
    Vip,
    /// The plan's conversations or tokens are used up.
    Quota,
    /// The customer sent something the agent cannot read.
    Unreadable,
    /// The agent failed as often as it was tried.
    AgentFailed,
    /// The agent does not know.
    Unsure,
    /// The agent did not know, as often in a row as it may.
    FailedRepeatedly,
    /// It is about something the agent is not there for.
    OutOfScope,
    /// The agent decided so, in its own words.
    AgentDecided,
    /// The customer had the last word for long, and no answer.
    Unanswered,
    /// Nothing has happened for long.
    Idle,
}

impl HandoffReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 14] = [
        Self::AskedFor,
        Self::DeliveryUnknown,
        Self::Undelivered,
        Self::Looping,
        Self::Vip,
        Self::Quota,
        Self::Unreadable,
        Self::AgentFailed,
        Self::Unsure,
        Self::FailedRepeatedly,
        Self::OutOfScope,
        Self::AgentDecided,
        Self::Unanswered,
        Self::Idle,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AskedFor => "asked_for",
            Self::DeliveryUnknown => "delivery_unknown",
            Self::Undelivered => "undelivered",
            Self::Looping => "looping",
            Self::Vip => "vip",
            Self::Quota => "quota",
            Self::Unreadable => "unreadable",
            Self::AgentFailed => "agent_failed",
            Self::Unsure => "unsure",
            Self::FailedRepeatedly => "failed_repeatedly",
            Self::OutOfScope => "out_of_scope",
            Self::AgentDecided => "agent_decided",
            Self::Unanswered => "unanswered",
            Self::Idle => "idle",
        }
    }

    /// The reverse of [`HandoffReason::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// An agent's own reason: `unsure` and `out_of_scope` are words we know, anything else is its decision.
    pub fn of_agent(reason: &str) -> Self {
        match words(reason).collect::<Vec<_>>().join("_").as_str() {
            "unsure" => Self::Unsure,
            "out_of_scope" => Self::OutOfScope,
            _ => Self::AgentDecided,
        }
    }

    /// Whether it is the feature that a plan may lack (D17). The others are the safety net, which every plan has: the
    /// agent cannot go on, and a pending conversation is hidden from humans.
    pub fn is_feature(self) -> bool {
        matches!(self, Self::AskedFor | Self::Vip | Self::AgentDecided)
    }

    /// For the humans' note.
    fn sentence(self) -> &'static str {
        match self {
            Self::AskedFor => "The customer asked for a human.",
            Self::DeliveryUnknown => "It is not certain that the last automatic reply arrived. Please check.",
            Self::Undelivered => "The last automatic reply could not be delivered.",
            Self::Looping => {
                "Messages or changes of status follow each other too fast: two automations may be answering each \
                 other. The AI agent has stopped. Please check what else acts on this conversation."
            }
            Self::Vip => "A label says that this conversation is for humans.",
            Self::Quota => "The plan's automatic replies are used up for this period.",
            Self::Unreadable => "The customer sent something the AI agent cannot read.",
            Self::AgentFailed => "The AI agent could not produce an answer.",
            Self::Unsure => "The AI agent does not know the answer.",
            Self::FailedRepeatedly => "The AI agent did not know the answer, several times in a row.",
            Self::OutOfScope => "This is about something the AI agent is not there for.",
            Self::AgentDecided => "The AI agent decided to hand over.",
            Self::Unanswered => "The customer's last message has had no answer for some time.",
            Self::Idle => "Nothing has happened here for some time.",
        }
    }
}

/// What is known when it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals<'a> {
    /// What the customer wrote since the last reply.
    pub customer_text: &'a str,
    /// Of that, something has no text and cannot be read.
    pub unreadable: bool,
    /// The conversation goes round in a circle.
    pub looping: bool,
    /// A label says that it is a human's, at once.
    pub vip: bool,
    /// The plan pays for no further reply.
    pub quota_used_up: bool,
    /// A reply was sent and nothing can tell whether it arrived.
    pub delivery_unknown: bool,
    /// A reply was not taken, or the channel could not deliver it.
    pub undelivered: bool,
    /// Tries of the agent that failed for good or were the last.
    pub agent_gave_up: bool,
    /// The agent's own reason, if it answered with a handoff.
    pub agent_reason: Option<&'a str>,
}

/// The reason a human takes over now, or none. The first that holds, in the order of [`HandoffReason::ALL`].
pub fn decide(signals: &Signals<'_>) -> Option<HandoffReason> {
    if asks_for_human(signals.customer_text) {
        return Some(HandoffReason::AskedFor);
    }
    let by_fact = [
        (signals.delivery_unknown, HandoffReason::DeliveryUnknown),
        (signals.undelivered, HandoffReason::Undelivered),
        (signals.looping, HandoffReason::Looping),
        (signals.vip, HandoffReason::Vip),
        (signals.quota_used_up, HandoffReason::Quota),
        (signals.unreadable, HandoffReason::Unreadable),
        (signals.agent_gave_up, HandoffReason::AgentFailed),
    ];
    let fact = by_fact.into_iter().find_map(|(holds, reason)| holds.then_some(reason));
    fact.or_else(|| signals.agent_reason.map(HandoffReason::of_agent))
}

/// Whether one of the operator's labels makes a conversation a human's, and when.
pub fn vip(vip: &config::Vip, labels: &[String]) -> Option<VipWhen> {
    let marked = labels.iter().any(|label| vip.labels.iter().any(|vip| vip.to_lowercase() == label.to_lowercase()));
    marked.then_some(vip.when)
}

/// What becomes of a question that the agent has no answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The customer is asked to say it in other words.
    Rephrase,
    /// A human takes over.
    Human(HandoffReason),
}

/// The same question put better may have an answer, so an operator may allow the agent not to know a few times in a
/// row. How often it did not know is read from what it said: there is nothing to keep, and nothing to lose.
pub fn unknown(handoff: &config::Handoff, history: &[Utterance]) -> Unknown {
    let asked = |said: &&Utterance| said.from == Speaker::Agent && texts::is_rephrase(handoff, &said.text);
    let spoken = history.iter().rev().filter(|said| said.from != Speaker::Customer);
    let before = spoken.take_while(asked).count();
    let times = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    match handoff.unsure_max {
        max if times < max => Unknown::Rephrase,
        0 | 1 => Unknown::Human(HandoffReason::Unsure),
        _ => Unknown::Human(HandoffReason::FailedRepeatedly),
    }
}

#[cfg(test)]
mod tests;
