//! What humans read about a handoff, as private notes. English: they are the operator's team's, and short.

use super::HandoffReason;
use super::texts::when;
use crate::config::{HandoffTo, Opening};
use crate::conversation::{Contact, Language, Speaker, Utterance};

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
    /// Titles or addresses of what the agent looked up.
    pub sources: &'a [String],
    /// Nobody is there, and the customer was told when somebody is.
    pub back: Option<Opening>,
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
        lines.push(format!("Looked up: {}", plain(&summary.sources.join("; "), SUMMARY_CHARS_MAX)));
    }
    if let Some(back) = summary.back {
        lines.push(format!(
            "Outside of your hours: the customer was told that you are back {}.",
            when(back, Language::English)
        ));
    }
    lines.join("\n\n")
}

fn who(contact: &Contact) -> Option<String> {
    let known = [&contact.name, &contact.email, &contact.phone];
    let details: Vec<String> = known.into_iter().flatten().map(|detail| quote(detail, QUOTE_CHARS_MAX)).collect();
    (!details.is_empty()).then(|| details.join(", "))
}

/// A customer's or a model's words: [`plain`], and nothing to click on.
fn quote(text: &str, chars_max: usize) -> String {
    plain(text, chars_max).replace("://", ":/ /")
}

/// One line, cut, with what would be a link of Markdown or a mention taken apart: `[name](mention://user/1/name)` would
/// ring a colleague.
fn plain(text: &str, chars_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(chars_max).collect();
    let dots = if cut.len() < line.len() { "…" } else { "" };
    format!("{}{dots}", cut.replace("](", "] ("))
}

/// The private note for when the helpdesk does not know who was to get the conversation.
pub fn unknown_target(to: HandoffTo) -> String {
    let team = to.team_id.map(|id| format!("team {id}"));
    let human = to.assignee_id.map(|id| format!("human {id}"));
    let both: Vec<String> = team.into_iter().chain(human).collect();
    let who = if both.is_empty() { "the team the AI agent named".to_owned() } else { both.join(" or ") };
    format!(
        "**Handed over without an owner.** Chatwoot does not know {who} in this account. Whoever runs the gateway \
         should look at `handoff` in its configuration."
    )
}
