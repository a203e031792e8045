//! The embedded agent: answers from a folder of Markdown by lexical search, without any model.
//!
//! It says only what stands in the folder: one section's own words and its title. Which section that is, and whether
//! it is an answer at all, is told in `judge`; a question about something the folder never mentions is left to a
//! human, which is the honest answer. When several sections fit it asks which is meant, once: the answer is read back
//! from what it asked, and if that does not settle it a human does.
//!
//! The folder is looked at from time to time; a changed one is read and indexed beside the old, then swapped in, so
//! no question waits. A folder that cannot be read leaves the old index in place. It does not put two sections
//! together, and it remembers nothing but what the conversation's history holds.

mod folder;
mod index;
mod judge;
mod kind;
mod live;
mod passages;
mod query;
mod small_talk;
mod spelling;
mod thesaurus;
mod tokens;

use unicode_segmentation::UnicodeSegmentation as _;

use super::{Answer, Answered, Question};
use crate::conversation::choice::{self, Choice, Picked};
use crate::conversation::{Language, Speaker, Utterance, language};
pub use folder::KnowledgeError;
use index::{Found, Index, Indexed};
pub(super) use live::{Knowledge, Looked};
pub(super) use passages::Passage;

/// What is shown of a section.
const PASSAGE_CHARS_MAX: usize = 1_500;
/// What is read of a question.
const QUESTION_CHARS_MAX: usize = 2_000;

impl Index {
    /// Answers what the customer said last.
    fn answer(&self, question: Question<'_>) -> Answered {
        let (text, before) = last_words(question.history);
        let spoken = spoken(&text, before);
        let asked_back =
            before.last().filter(|said| said.from == Speaker::Agent).and_then(|said| Choice::read(&said.text));
        let answer = match small_talk::reply(&text, spoken) {
            _ if asked_back.is_some() => self.settle(&text, spoken, asked_back.as_ref()),
            Some(reply) => Answer::Reply { text: reply.to_owned(), sources: Vec::new() },
            None => self.settle(&text, spoken, None),
        };
        Answered { answer, actions: Vec::new(), tokens: None }
    }

    /// Looks up what was said; if it follows a question of ours, first as the answer to that.
    fn settle(&self, text: &str, spoken: Language, asked_back: Option<&Choice<'_>>) -> Answer {
        let Some(choice) = asked_back else {
            return match self.find(text, spoken) {
                Found::One(found) => reply(found),
                Found::Several(fitting) => ask_back(&fitting, spoken),
                Found::Nothing(near) => unsure(near.into_iter()),
            };
        };
        let offered = || choice.options.iter().filter_map(|title| self.titled(title));
        match choice.picked(text) {
            // The folder may have changed since it was asked.
            Picked::Option(at) => match choice.options.get(at).and_then(|title| self.titled(title)) {
                Some(found) => reply(found),
                None => unsure(offered()),
            },
            Picked::None => unsure(offered()),
            Picked::Other => {
                if let Found::One(found) = self.find_titled(text, spoken, &choice.options) {
                    return reply(found);
                }
                if let Some(found) = self.of_kind(text, &choice.options) {
                    return reply(found);
                }
                match (self.find(text, spoken), small_talk::reply(text, spoken)) {
                    (Found::One(found), _) => reply(found),
                    // Once more would be an interrogation.
                    (Found::Several(fitting), _) => unsure(fitting.into_iter()),
                    (Found::Nothing(_), Some(reply)) => Answer::Reply { text: reply.to_owned(), sources: Vec::new() },
                    (Found::Nothing(near), None) => unsure(near.into_iter()),
                }
            }
        }
    }
}

/// What the customer said since anybody answered, and what was said before.
fn last_words(history: &[Utterance]) -> (String, &[Utterance]) {
    let count = history.iter().rev().take_while(|said| said.from == Speaker::Customer).count();
    let (before, last) = history.split_at(history.len() - count);
    let said: Vec<&str> = last.iter().map(|said| said.text.as_str()).collect();
    (said.join("\n").chars().take(QUESTION_CHARS_MAX).collect(), before)
}

/// The customer's language: of what they said last, or of all they said when that is a word or a number.
fn spoken(text: &str, before: &[Utterance]) -> Language {
    if text.split_whitespace().nth(2).is_some() || language(text) == Language::French {
        return language(text);
    }
    let earlier = before.iter().filter(|said| said.from == Speaker::Customer).map(|said| said.text.as_str());
    language(&earlier.chain([text]).collect::<Vec<_>>().join("\n"))
}

fn reply(found: &Indexed) -> Answer {
    let source = found.section.source();
    let label = match found.language {
        Language::French => "Source :",
        Language::English => "Source:",
    };
    let text = format!("{}\n\n{label} {source}", passage(&found.section.body));
    Answer::Reply { text, sources: vec![source] }
}

fn ask_back(fitting: &[&Indexed], spoken: Language) -> Answer {
    let titles: Vec<String> = fitting.iter().map(|found| found.title()).collect();
    let told = fitting.first().map_or(spoken, |found| found.language);
    // A word alone tells no language: then that of what was found.
    let spoken = if spoken == Language::English { told } else { spoken };
    Answer::Reply { text: choice::write(spoken, titles.iter().map(String::as_str)), sources: Vec::new() }
}

fn unsure<'a>(near: impl Iterator<Item = &'a Indexed>) -> Answer {
    let near: Vec<String> = near.map(|near| near.section.source()).collect();
    let note =
        (!near.is_empty()).then(|| format!("Nothing in the knowledge base answers this. Nearest: {}", near.join("; ")));
    Answer::Handoff { reason: "unsure".to_owned(), note }
}

/// The section's beginning, to the end of a sentence.
fn passage(body: &str) -> String {
    if body.chars().count() <= PASSAGE_CHARS_MAX {
        return body.to_owned();
    }
    let mut kept = String::new();
    let mut left = PASSAGE_CHARS_MAX;
    for sentence in body.split_sentence_bounds() {
        let chars = sentence.chars().count();
        if chars > left {
            break;
        }
        left -= chars;
        kept.push_str(sentence);
    }
    if kept.is_empty() {
        kept = body.chars().take(PASSAGE_CHARS_MAX).collect();
    }
    format!("{} …", kept.trim_end())
}

#[cfg(test)]
mod tests;
