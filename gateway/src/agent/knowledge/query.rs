//! How a question is read: its words as they were meant, what they weigh, and what else would mean the same.
//!
//! A word weighs by how few sections have it: BM25's inverse document frequency. One that the folder does not have
//! weighs the most, so that a question about something unknown is known to be that; unless it is one of the words that
//! tell nothing, which are then left out.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::kind::{self, Kind};
use super::spelling::Spelling;
use super::thesaurus::{Thesaurus, Vocabulary};
use super::tokens::Stems;
use crate::conversation::{Language, words};

/// Words of a question that are read.
const WORDS_MAX: usize = 400;
/// A verb that the stemmers leave apart from its noun: `pay`, `payment`.
const ENDINGS: &[&str] = &["ment", "er", "ing", "able", "ation", "ion", "al", "age", "s"];
const FORM_CHARS_MIN: usize = 3;
/// What a word that tells nothing weighs, and all of them: a question that has one weak word of the folder's and is
/// otherwise chat is not about that word.
const IDLE_WEIGHT: f32 = 0.5;
const IDLE_WEIGHT_MAX: f32 = 1.2;

/// Reads one language.
pub(super) struct Reader {
    stems: Stems,
    thesaurus: Thesaurus,
    spelling: Spelling,
    /// In how many sections a word stands.
    found_in: HashMap<String, usize>,
    /// Words of titles and headings.
    headed: HashSet<String>,
    sections: usize,
}

/// A question, read.
pub(super) struct Asked {
    /// Ordered, so that sums are repeatable.
    pub(super) words: Vec<Word>,
    /// Its words that tell nothing.
    pub(super) idle_words: Vec<String>,
    /// What the words that tell nothing weigh together: little, and bounded.
    idle: f32,
    pub(super) kind: Option<Kind>,
    /// It has words beside those that say its kind.
    pub(super) is_about_something: bool,
}

/// A word of a question.
pub(super) struct Word {
    pub(super) stem: String,
    pub(super) weight: f32,
    /// Others for it, each with how much it counts.
    pub(super) related: Vec<(String, f32)>,
}

impl Reader {
    /// Of a language, with an operator's own words, for a folder's texts.
    pub(super) fn new(language: Language, vocabulary: &Vocabulary, texts: &[Vec<String>]) -> Self {
        let stems = Stems::new(language);
        let thesaurus = Thesaurus::new(language, vocabulary, &stems);
        let spelling = Spelling::new(texts, &thesaurus, &stems);
        Self { stems, thesaurus, spelling, found_in: HashMap::new(), headed: HashSet::new(), sections: 0 }
    }

    /// Counts a section's words, and remembers those of its title and headings.
    pub(super) fn count<'a>(&mut self, words: &HashSet<String>, headed: impl Iterator<Item = &'a String>) {
        self.sections += 1;
        self.headed.extend(headed.cloned());
        for word in words {
            *self.found_in.entry(word.clone()).or_default() += 1;
        }
    }

    /// What a text of the folder is about: its telling words, and what its phrases mean.
    pub(super) fn tell(&self, text: &str) -> Vec<String> {
        let said: Vec<String> = words(text).collect();
        let stems: Vec<String> = said.iter().map(|word| self.stems.stem(word)).collect();
        let (meant, _) = self.thesaurus.phrases(&stems);
        let telling = said.iter().zip(stems).filter(|(word, _)| self.tells(word)).map(|(_, stem)| stem);
        telling.chain(meant.into_iter().filter(|stem| !self.stems.is_stop(stem))).collect()
    }

    /// Every word of a text of the folder that not every text has, and what its phrases mean.
    pub(super) fn stems(&self, text: &str) -> Vec<String> {
        let said: Vec<String> = words(text).collect();
        let stems: Vec<String> = said.iter().map(|word| self.stems.stem(word)).collect();
        let (meant, _) = self.thesaurus.phrases(&stems);
        let kept = said.iter().zip(stems).filter(|(word, _)| !self.stems.is_stop(word)).map(|(_, stem)| stem);
        kept.chain(meant).collect()
    }

    /// How many words of a text are written so in the folder or the thesaurus.
    pub(super) fn knows(&self, text: &str) -> usize {
        let telling = words(text).filter(|word| self.tells(word));
        telling.filter(|word| self.spelling.has(word) || self.thesaurus.has(word)).count()
    }

    /// Reads a question.
    pub(super) fn read(&self, text: &str) -> Asked {
        let said = self.spelling.read(words(text).take(WORDS_MAX).collect(), &self.thesaurus, &self.stems);
        let (kind, says_kind) = kind::read(&said);
        let stems: Vec<String> = said.iter().map(|word| self.stems.stem(word)).collect();
        let (meant, taken) = self.thesaurus.phrases(&stems);
        let kept = |with_kind: bool, idle: bool| {
            let all = said.iter().zip(&stems).zip(taken.iter().zip(&says_kind));
            let kept = all.filter(move |((word, stem), (taken, kind))| {
                !**taken && (with_kind || !**kind) && self.tells(word) && self.is_idle(word, stem) == idle
            });
            kept.map(|((_, stem), _)| stem)
        };
        let about = |with_kind: bool| -> BTreeSet<String> {
            let meant = meant.iter().filter(|stem| !self.stems.is_stop(stem));
            kept(with_kind, false).chain(meant).map(|stem| self.form(stem)).collect()
        };
        let (words, is_about_something) = match about(false) {
            words if words.is_empty() => (about(true), false),
            words => (words, true),
        };
        let words = words.into_iter().map(|stem| self.word(stem)).collect();
        let idle_words: Vec<String> =
            kept(false, true).filter(|stem| stem.chars().any(char::is_alphabetic)).cloned().collect();
        let count = f32::from(u8::try_from(idle_words.len()).unwrap_or(u8::MAX));
        let idle = (count * IDLE_WEIGHT).min(IDLE_WEIGHT_MAX);
        Asked { words, idle_words, idle, kind, is_about_something }
    }

    fn word(&self, stem: String) -> Word {
        let related: Vec<(String, f32)> = self
            .thesaurus
            .related(&stem)
            .iter()
            .filter(|(other, _)| self.found_in.contains_key(other))
            .cloned()
            .collect();
        let known = self.found_in.get(&stem).copied();
        let found_in =
            known.or_else(|| related.iter().filter_map(|(other, _)| self.found_in.get(other).copied()).max());
        Word { weight: self.weight_of(found_in.unwrap_or(0)), stem, related }
    }

    /// What a word of the folder weighs.
    pub(super) fn weight(&self, stem: &str) -> f32 {
        self.weight_of(self.found_in.get(stem).copied().unwrap_or(0))
    }

    /// What a word weighs that stands in so many sections.
    pub(super) fn weight_of(&self, found_in: usize) -> f32 {
        let count = |number: usize| f32::from(u16::try_from(number).unwrap_or(u16::MAX));
        let (found, all) = (count(found_in), count(self.sections));
        (1.0 + (all - found + 0.5) / (found + 0.5)).ln()
    }

    fn tells(&self, word: &str) -> bool {
        !self.thesaurus.is_filler(word) && !self.stems.is_stop(word)
    }

    /// A word that the folder does not have and that says nothing about a matter. Numbers among them: `size 45` is
    /// about the size.
    fn is_idle(&self, word: &str, stem: &str) -> bool {
        if self.thesaurus.has_idle(word) && !self.thesaurus.has_alone(word) {
            return !self.headed.contains(stem) || !self.spelling.has(word);
        }
        let is_known = self.found_in.contains_key(stem)
            || self.thesaurus.related(stem).iter().any(|(other, _)| self.found_in.contains_key(other));
        !is_known && word.chars().all(|c| c.is_ascii_digit())
    }

    /// The folder's own form of a word it does not have.
    fn form(&self, stem: &str) -> String {
        let is_known = self.found_in.contains_key(stem) || !self.thesaurus.related(stem).is_empty();
        if is_known || stem.chars().count() < FORM_CHARS_MIN {
            return stem.to_owned();
        }
        let form = |known: &&String| known.strip_prefix(stem).is_some_and(|rest| ENDINGS.contains(&rest));
        // The smallest of several, so that the answer does not depend on a map's order.
        self.found_in.keys().filter(form).min().cloned().unwrap_or_else(|| stem.to_owned())
    }
}

impl Asked {
    /// What is searched for: its words and their others.
    pub(super) fn search(&self) -> String {
        let all = self
            .words
            .iter()
            .flat_map(|word| [&word.stem].into_iter().chain(word.related.iter().map(|(other, _)| other)));
        all.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The weight of all its words.
    pub(super) fn weight(&self) -> f32 {
        self.words.iter().map(|word| word.weight).sum::<f32>() + self.idle
    }

    /// The weight of those words that are known.
    pub(super) fn known(&self, has: impl Fn(&str) -> bool) -> f32 {
        self.words.iter().map(|word| word.weight * word.share(&has)).sum()
    }

    /// How far a word of the folder was said: 0 to 1.
    pub(super) fn says(&self, stem: &str) -> f32 {
        let share = |word: &Word| match word.stem == stem {
            true => 1.0,
            false => word.related.iter().find(|(other, _)| other == stem).map_or(0.0, |(_, share)| *share),
        };
        self.words.iter().map(share).fold(0.0, f32::max)
    }
}

impl Word {
    /// How far it is known: 0 to 1.
    pub(super) fn share(&self, has: impl Fn(&str) -> bool) -> f32 {
        if has(&self.stem) {
            return 1.0;
        }
        self.related.iter().filter(|(other, _)| has(other)).map(|(_, share)| *share).fold(0.0, f32::max)
    }
}
