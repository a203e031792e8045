//! When a human takes over, and what is said about it. Pure: texts and signals in, a decision out.
//!
//! The rules are few and in one order, so that one reason is counted. Whether a customer asks for a human is told
//! from phrases, French and English, before any model is asked: it must work with every model and with none. It
//! errs towards the agent (a missed phrase still reaches the model's own handoff tool; a false one would take the
//! customer away from an agent that could have helped).
//!
//! Doing it (the note, the team, the message, opening the conversation) is the relay's, and whether a plan includes
//! handoffs at all is the policy's (D17).

mod phrases;

use crate::config;
use crate::conversation::{Contact, Language, Speaker, Utterance};

pub use phrases::asks_for_human;

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
    /// The plan's conversations or tokens are used up.
    Quota,
    /// The customer sent something the agent cannot read.
    Unreadable,
    /// The agent failed as often as it was tried.
    AgentFailed,
    /// The agent does not know.
    Unsure,
    /// The agent decided so, in its own words.
    AgentDecided,
    /// The customer had the last word for long, and no answer.
    Unanswered,
    /// Nothing has happened for long.
    Idle,
}

impl HandoffReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 11] = [
        Self::AskedFor,
        Self::DeliveryUnknown,
        Self::Undelivered,
        Self::Looping,
        Self::Quota,
        Self::Unreadable,
        Self::AgentFailed,
        Self::Unsure,
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
            Self::Quota => "quota",
            Self::Unreadable => "unreadable",
            Self::AgentFailed => "agent_failed",
            Self::Unsure => "unsure",
            Self::AgentDecided => "agent_decided",
            Self::Unanswered => "unanswered",
            Self::Idle => "idle",
        }
    }

    /// An agent's own reason: `unsure` is a word we know, anything else is its decision.
    pub fn of_agent(reason: &str) -> Self {
        if reason == "unsure" { Self::Unsure } else { Self::AgentDecided }
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
            Self::Quota => "The plan's automatic replies are used up for this period.",
            Self::Unreadable => "The customer sent something the AI agent cannot read.",
            Self::AgentFailed => "The AI agent could not produce an answer.",
            Self::Unsure => "The AI agent does not know the answer.",
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
        (signals.quota_used_up, HandoffReason::Quota),
        (signals.unreadable, HandoffReason::Unreadable),
        (signals.agent_gave_up, HandoffReason::AgentFailed),
    ];
    let fact = by_fact.into_iter().find_map(|(holds, reason)| holds.then_some(reason));
    fact.or_else(|| signals.agent_reason.map(HandoffReason::of_agent))
}

/// What the customer reads in the languages we speak, unless the operator wrote something else.
const MESSAGE_FRENCH: &str = "Je passe la main à un collègue, qui vous répondra ici.";
const NOTICE_FRENCH: &str =
    "Je ne peux pas transmettre cette conversation à une personne, mais je continue volontiers à vous aider ici.";
const QUOTA_NOTICE_FRENCH: &str =
    "Je ne peux pas répondre ici pour le moment. Votre message nous est bien parvenu et sera lu.";

/// What the customer reads when a human takes over.
pub fn message(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.message, config::HANDOFF_MESSAGE, MESSAGE_FRENCH, language)
}

/// What the customer reads when they asked for a human and the plan has no handoff (D17).
pub fn notice(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.notice, config::HANDOFF_NOTICE, NOTICE_FRENCH, language)
}

/// What the customer reads when the plan's replies are used up and it has no handoff (ENF-5).
pub fn quota_notice(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.quota_notice, config::QUOTA_NOTICE, QUOTA_NOTICE_FRENCH, language)
}

/// Only our own default is translated: the operator's words are the operator's.
fn localised<'a>(configured: &'a str, default: &str, french: &'a str, language: Language) -> &'a str {
    if language == Language::French && configured == default { french } else { configured }
}

/// Utterances quoted in a note, and how much of each.
const QUOTED_MAX: usize = 3;
const QUOTE_CHARS_MAX: usize = 300;
const SUMMARY_CHARS_MAX: usize = 1_500;

/// What the humans should know before they answer.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// Who the customer is.
    pub contact: &'a Contact,
    /// What was said, oldest first.
    pub history: &'a [Utterance],
    /// The agent's own words about it.
    pub agent_note: Option<&'a str>,
    /// Titles of what the agent looked up.
    pub sources: &'a [String],
}

/// The private note: why, who, what they want, what was tried. Plain lines, so that nothing a customer wrote can
/// mention a colleague or look like a part of it; still to be made safe for Chatwoot like every text.
pub fn note(reason: HandoffReason, summary: &Summary<'_>) -> String {
    let mut lines = vec![format!("**Handed over by the AI agent.** {}", reason.sentence())];
    if let Some(who) = who(summary.contact) {
        lines.push(format!("Customer: {who}"));
    }
    let customer = summary.history.iter().filter(|said| said.from == Speaker::Customer);
    let mut wants: Vec<&Utterance> = customer.rev().take(QUOTED_MAX).collect();
    wants.reverse();
    lines.extend(wants.iter().map(|said| format!("Customer wrote: {}", quote(&said.text, QUOTE_CHARS_MAX))));
    match summary.history.iter().rfind(|said| said.from == Speaker::Agent) {
        Some(said) => lines.push(format!("Last automatic reply: {}", quote(&said.text, QUOTE_CHARS_MAX))),
        None => lines.push("No automatic reply was given.".to_owned()),
    }
    if let Some(note) = summary.agent_note.filter(|note| !note.trim().is_empty()) {
        lines.push(format!("The agent's summary: {}", quote(note, SUMMARY_CHARS_MAX)));
    }
    if !summary.sources.is_empty() {
        lines.push(format!("Looked up: {}", quote(&summary.sources.join("; "), SUMMARY_CHARS_MAX)));
    }
    lines.join("\n\n")
}

fn who(contact: &Contact) -> Option<String> {
    let known = [&contact.name, &contact.email, &contact.phone];
    let details: Vec<String> = known.into_iter().flatten().map(|detail| quote(detail, QUOTE_CHARS_MAX)).collect();
    (!details.is_empty()).then(|| details.join(", "))
}

/// One line, cut, with what would be Markdown or a mention taken apart.
fn quote(text: &str, chars_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(chars_max).collect();
    let dots = if cut.len() < line.len() { "…" } else { "" };
    // `[name](mention://user/1/name)` would ring a colleague.
    format!("{}{dots}", cut.replace("](", "] (").replace("://", ":/ /"))
}

#[cfg(test)]
mod tests;
