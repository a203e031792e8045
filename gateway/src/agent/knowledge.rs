//! The embedded agent: answers from a folder of Markdown by lexical search, without any model.
//!
//! It says only what stands in the folder: the best section's own words and its title. BM25 finds the section; whether
//! it is an answer is another question, because BM25 always finds a best. That is decided by how much of what the
//! customer asked about the section knows, each word weighing what it tells (rare ones more, those that stand nowhere
//! in the folder most): a question about something the folder never mentions is left to a human, which is the honest
//! answer. Words that tell nothing ("please", "voudrais") do not count, and a letter too many or too few does not
//! make a word unknown.
//!
//! Sections are searched in the customer's language first and then in the other. It does not reread the folder, ask
//! back, or put two sections together.

mod folder;
mod passages;
mod small_talk;
mod synonyms;
mod tokens;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use bm25::{Document, SearchEngine, SearchEngineBuilder};
use unicode_segmentation::UnicodeSegmentation as _;

use super::{Answer, Answered, Question};
use crate::conversation::{Language, Speaker, Utterance, language};
pub use folder::KnowledgeError;
use folder::Section;
pub(super) use passages::Passage;
use tokens::Tokens;

/// Share of the question that a section must know. Lower, and questions about things the folder does not mention are
/// answered with what it says about something near; higher, and ordinary questions with a chatty word in them go to a
/// human. Held by the evaluation in `tests`.
const KNOWN_MIN: f32 = 0.6;
/// The same where the question says everything the section's heading says: it is then about that, whatever else.
const KNOWN_UNDER_HEADING_MIN: f32 = 0.42;
/// The same where nothing asked stands in the section's heading or title: it may only be mentioned in passing.
const KNOWN_IN_BODY_MIN: f32 = 0.75;
/// Outside a heading, what is known must weigh this share of a word that stands in one section only: `order` stands
/// in half of a shop's sections and picks none.
const TELLING_MIN: f32 = 0.5;
/// Sections looked at: BM25 counts repetitions, so the most fitting is not always its first.
const CANDIDATES: usize = 5;
/// How often a heading counts beside the body.
const HEADING_WEIGHT: usize = 3;
/// What is shown of a section.
const PASSAGE_CHARS_MAX: usize = 1_500;
/// What is read of a question.
const QUESTION_CHARS_MAX: usize = 2_000;
/// A word is taken for a misspelt one only from this length on.
const TYPO_CHARS_MIN: usize = 5;
/// A verb that the stemmers leave apart from its noun: `pay`, `payment`.
const ENDINGS: &[&str] = &["ment", "er", "ing", "able", "ation", "ion", "al", "age"];
const FORM_CHARS_MIN: usize = 3;

/// A folder, read and indexed.
pub(super) struct Knowledge {
    sections: Vec<Indexed>,
    /// One index for each language that has sections.
    indexes: HashMap<Language, Index>,
}

struct Indexed {
    section: Section,
    language: Language,
    words: HashSet<String>,
    heading: HashSet<String>,
    title: HashSet<String>,
}

struct Index {
    engine: SearchEngine<usize, u32, Tokens>,
    tokens: Tokens,
    /// In how many sections a word stands.
    found_in: HashMap<String, usize>,
    sections: usize,
}

impl Knowledge {
    /// Reads and indexes a folder.
    pub(super) fn read(dir: &Path) -> Result<Self, KnowledgeError> {
        Ok(Self::index(folder::read(dir)?))
    }

    fn index(sections: Vec<Section>) -> Self {
        let mut indexed: Vec<Indexed> = sections
            .into_iter()
            .map(|section| {
                let language = language(&format!("{} {} {}", section.title, section.heading, section.body));
                Indexed { section, language, words: HashSet::new(), heading: HashSet::new(), title: HashSet::new() }
            })
            .collect();
        let mut indexes = HashMap::new();
        for language in [Language::English, Language::French] {
            if let Some(index) = Index::build(language, &mut indexed) {
                indexes.insert(language, index);
            }
        }
        Self { sections: indexed, indexes }
    }

    /// Answers what the customer said last.
    pub(super) fn answer(&self, question: Question<'_>) -> Answered {
        let text = last_words(question.history);
        let spoken = language(&text);
        let answer = match small_talk::reply(&text, spoken) {
            Some(reply) => Answer::Reply { text: reply.to_owned(), sources: Vec::new() },
            None => self.look_up(&text, spoken),
        };
        Answered { answer, actions: Vec::new(), tokens: None }
    }

    fn look_up(&self, text: &str, spoken: Language) -> Answer {
        let other = if spoken == Language::French { Language::English } else { Language::French };
        let mut nearest = None;
        for language in [spoken, other] {
            let Some(index) = self.indexes.get(&language) else { continue };
            let best = index.best(text, &self.sections);
            match best {
                Some((found, Fit::Knows)) => return reply(found),
                Some((found, Fit::Near)) => nearest = nearest.or(Some(found)),
                None => {}
            }
        }
        let note = nearest
            .map(|near| format!("Nothing in the knowledge base answers this. Nearest: {}", near.section.source()));
        Answer::Handoff { reason: "unsure".to_owned(), note }
    }
}

/// How well a section fits a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It answers it.
    Knows,
    /// It is about something near.
    Near,
}

impl Index {
    fn build(language: Language, all: &mut [Indexed]) -> Option<Self> {
        let tokens = Tokens::new(language);
        let mut found_in: HashMap<String, usize> = HashMap::new();
        let mut documents = Vec::new();
        for (at, indexed) in all.iter_mut().enumerate().filter(|(_, indexed)| indexed.language == language) {
            let Section { title, heading, body, .. } = &indexed.section;
            let text = format!("{title}\n{}{body}", format!("{heading}\n").repeat(HEADING_WEIGHT));
            indexed.words = tokens.telling(&text).into_iter().collect();
            indexed.heading = tokens.telling(heading).into_iter().collect();
            indexed.title = tokens.telling(title).into_iter().collect();
            for word in &indexed.words {
                *found_in.entry(word.clone()).or_default() += 1;
            }
            documents.push(Document::new(at, text));
        }
        let sections = documents.len();
        if sections == 0 {
            return None;
        }
        let engine = SearchEngineBuilder::with_tokenizer_and_documents(Tokens::new(language), documents).build();
        Some(Self { engine, tokens, found_in, sections })
    }

    /// The section that knows most of the question.
    fn best<'a>(&self, text: &str, sections: &'a [Indexed]) -> Option<(&'a Indexed, Fit)> {
        // Spelt as the folder spells it, for the search and the judgement alike; ordered, so that sums are repeatable.
        let asked: BTreeSet<String> = self.tokens.telling(text).into_iter().map(|word| self.spelt(word)).collect();
        if asked.is_empty() {
            return None;
        }
        let mut meant = text.to_owned();
        for word in &asked {
            meant.push(' ');
            meant.push_str(word);
            synonyms::of(word).for_each(|other| meant.extend([" ", other]));
        }
        let found = self.engine.search(&meant, CANDIDATES);
        let judged = found.iter().filter_map(|found| {
            let indexed = sections.get(found.document.id)?;
            let known = self.known(&asked, &indexed.words);
            Some((indexed, known, self.known(&asked, &indexed.heading), found.score))
        });
        let (best, known, headed, _) = judged.max_by(|one, other| {
            one.1.total_cmp(&other.1).then(one.2.total_cmp(&other.2)).then(one.3.total_cmp(&other.3))
        })?;
        Some((best, self.fit(&asked, best, known, headed)))
    }

    fn fit(&self, asked: &BTreeSet<String>, best: &Indexed, known: f32, headed: f32) -> Fit {
        let says = |word: &String| asked.contains(word) || synonyms::of(word).any(|other| asked.contains(other));
        let covered = best.heading.len() > 1 && best.heading.iter().all(says);
        let in_title = self.known(asked, &best.title) > 0.0;
        let all: f32 = asked.iter().map(|word| self.weight(word)).sum();
        let (enough, telling) = match (covered, headed > 0.0 || in_title) {
            (true, _) => (KNOWN_UNDER_HEADING_MIN, true),
            (false, true) => (KNOWN_MIN, true),
            (false, false) => (KNOWN_IN_BODY_MIN, known * all >= TELLING_MIN * self.weight_of(1)),
        };
        if known >= enough && telling { Fit::Knows } else { Fit::Near }
    }

    /// The share of the question's weight that a section knows: 0 to 1.
    fn known(&self, asked: &BTreeSet<String>, words: &HashSet<String>) -> f32 {
        let all: f32 = asked.iter().map(|word| self.weight(word)).sum();
        let knows = |word: &&String| words.contains(*word) || synonyms::of(word).any(|other| words.contains(other));
        let known: f32 = asked.iter().filter(knows).map(|word| self.weight(word)).sum();
        if all > 0.0 { known / all } else { 0.0 }
    }

    /// BM25's inverse document frequency; a word that is not in the folder but means one that is weighs as that.
    fn weight(&self, word: &str) -> f32 {
        let found_in = |word: &str| self.found_in.get(word).copied();
        self.weight_of(found_in(word).or_else(|| synonyms::of(word).filter_map(found_in).max()).unwrap_or(0))
    }

    fn weight_of(&self, found_in: usize) -> f32 {
        let count = |number: usize| f32::from(u16::try_from(number).unwrap_or(u16::MAX));
        let (found, all) = (count(found_in), count(self.sections));
        (1.0 + (all - found + 0.5) / (found + 0.5)).ln()
    }

    /// The folder's own word for one it does not have: another form of it, or one letter apart.
    fn spelt(&self, word: String) -> String {
        let chars = word.chars().count();
        let is_known =
            self.found_in.contains_key(&word) || synonyms::of(&word).any(|other| self.found_in.contains_key(other));
        if is_known || chars < FORM_CHARS_MIN {
            return word;
        }
        let form = |known: &&String| known.strip_prefix(word.as_str()).is_some_and(|rest| ENDINGS.contains(&rest));
        let typo = |known: &&String| {
            let alike = chars >= TYPO_CHARS_MIN && known.chars().next() == word.chars().next();
            alike && strsim::osa_distance(known, &word) == 1
        };
        // The smallest of several, so that the answer does not depend on a map's order.
        let near = self.found_in.keys().filter(form).min().or_else(|| self.found_in.keys().filter(typo).min());
        near.cloned().unwrap_or(word)
    }
}

/// What the customer said since anybody answered.
fn last_words(history: &[Utterance]) -> String {
    let mut said: Vec<&str> =
        history.iter().rev().take_while(|said| said.from == Speaker::Customer).map(|said| said.text.as_str()).collect();
    said.reverse();
    said.join("\n").chars().take(QUESTION_CHARS_MAX).collect()
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
