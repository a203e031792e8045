//! Whether what came back is what a group expects.

use relais_gateway::agent::Answer;
use relais_gateway::conversation::choice::Choice;
use relais_gateway::conversation::language;
use relais_gateway::handoff::HandoffReason;

use super::set::{Expect, Group};

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer and where it comes from.
    Reply { text: String, sources: Vec<String> },
    /// A question back, with these options.
    AskedBack { text: String, options: Vec<String> },
    /// A human has it.
    Handoff(HandoffReason),
    /// The agent failed.
    Failed(String),
}

impl Outcome {
    /// What an agent's answer amounts to.
    pub(super) fn of(answer: Answer) -> Self {
        match answer {
            Answer::Handoff { reason, .. } => Self::Handoff(HandoffReason::of_agent(&reason)),
            Answer::Reply { text, sources } => match Choice::read(&text) {
                Some(choice) => {
                    let options = choice.options.iter().map(|option| (*option).to_owned()).collect();
                    Self::AskedBack { options, text }
                }
                None => Self::Reply { text, sources },
            },
        }
    }

    /// In a few words, for the list of misses.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Reply { sources, text } if sources.is_empty() => {
                format!("replied: {}", text.split_whitespace().take(16).collect::<Vec<_>>().join(" "))
            }
            Self::Reply { sources, .. } => format!("answered from {}", sources.join("; ")),
            Self::AskedBack { options, .. } => format!("asked back: {}", options.join(" | ")),
            Self::Handoff(reason) => format!("handed over: {}", reason.as_str()),
            Self::Failed(error) => format!("failed: {error}"),
        }
    }

    /// A human has it because the customer asked for one, by the rules or by the agent's own decision.
    pub(super) fn is_wished(&self) -> bool {
        matches!(self, Self::Handoff(HandoffReason::AskedFor | HandoffReason::AgentDecided))
    }

    /// Whether it is what the group expects.
    pub(super) fn is_right(&self, group: &Group) -> bool {
        match (group.expect(), self) {
            (_, Self::Failed(_)) => false,
            (Expect::Answer, Self::Reply { text, sources }) => answers(group, text, sources),
            (Expect::AskBack, Self::AskedBack { text, options }) => {
                let told = group.options.iter().all(|wanted| options.iter().any(|option| option.contains(wanted)));
                told && language(text) == group.language.language()
            }
            (Expect::Handoff, Self::Handoff(_)) => true,
            (Expect::WishedHandoff, outcome) => outcome.is_wished(),
            (Expect::NoWish, outcome) => *outcome != Self::Handoff(HandoffReason::AskedFor),
            (Expect::Unmoved, Self::Reply { text, sources }) => sources.is_empty() && !has_one(text, &group.forbidden),
            (Expect::Unmoved, Self::Handoff(_)) => true,
            (Expect::KindWord, Self::Reply { sources, text }) => sources.is_empty() && !has_one(text, &group.forbidden),
            _ => false,
        }
    }
}

/// By its source if it has one; else by words that it must have.
fn answers(group: &Group, text: &str, sources: &[String]) -> bool {
    let right = match (&group.source, sources.first()) {
        (Some(wanted), Some(source)) => source.contains(wanted.as_str()),
        _ => has_one(text, &group.mentions),
    };
    right && !has_one(text, &group.forbidden)
}

fn has_one(text: &str, words: &[String]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(&word.to_lowercase()))
}
