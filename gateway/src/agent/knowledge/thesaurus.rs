//! Which words mean one thing, which have to do with each other, and which tell nothing: data, by language.
//!
//! Ours is the few words of any shop (`vocabulary.toml`); an operator's folder may add its own in a file of the same
//! form, or leave ours out. Words are compared by their stems. A phrase is read as its line's first entry, in
//! questions and in the folder alike, so that `send them back` is a return. Nobody's knowledge is rewritten for the
//! customer: all this only decides which section answers. It is no dictionary; a wrong synonym is a wrong answer.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::tokens::Stems;
use crate::conversation::{Language, words};

/// Ours.
const OWN: &str = include_str!("vocabulary.toml");
/// How much a word counts that means the one asked, and one that has to do with it.
const SAME: f32 = 0.9;
const NEAR: f32 = 0.5;
/// Words that a `*` stands for at most.
const GAP_MAX: usize = 4;
/// Lines of an operator's file; more is a dictionary.
const LINES_MAX: usize = 5_000;

/// A file of words, as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vocabulary {
    /// Leaves ours out: for an operator whose words mean other things than a shop's.
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    en: Lists,
    #[serde(default)]
    fr: Lists,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    /// Words and phrases of one meaning, a line each.
    #[serde(default)]
    same: Vec<String>,
    /// Words that have to do with each other.
    #[serde(default)]
    near: Vec<String>,
    /// Words that tell nothing unless the folder has them.
    #[serde(default)]
    light: String,
    /// Words that never tell anything.
    #[serde(default)]
    fillers: String,
}

impl Vocabulary {
    /// Reads an operator's file. The error says where it is wrong.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let vocabulary: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let lines = [&vocabulary.en, &vocabulary.fr].map(|lists| lists.same.len() + lists.near.len());
        if lines.iter().sum::<usize>() > LINES_MAX {
            return Err(format!("more than {LINES_MAX} lines"));
        }
        Ok(vocabulary)
    }

    fn of(&self, language: Language) -> &Lists {
        match language {
            Language::English => &self.en,
            Language::French => &self.fr,
        }
    }
}

/// The words of one language.
pub(super) struct Thesaurus {
    related: HashMap<String, Vec<(String, f32)>>,
    /// By their first word.
    phrases: HashMap<String, Vec<Phrase>>,
    fillers: HashSet<String>,
    /// As they are written, for the spelling: those that tell something, and those that do not.
    telling: HashSet<String>,
    /// Those that tell something by themselves, and not only in a phrase.
    alone: HashSet<String>,
    telling_nothing: HashSet<String>,
}

struct Phrase {
    /// Stems; none stands for a few words.
    parts: Vec<Option<String>>,
    means: Vec<String>,
}

impl Thesaurus {
    /// Ours and an operator's.
    pub(super) fn new(language: Language, operators: &Vocabulary, stems: &Stems) -> Self {
        let own = Vocabulary::read(OWN).unwrap_or_default();
        let ours = own.of(language);
        let theirs = operators.of(language);
        let mut made = Self {
            related: HashMap::new(),
            phrases: HashMap::new(),
            fillers: HashSet::new(),
            telling: HashSet::new(),
            alone: HashSet::new(),
            telling_nothing: HashSet::new(),
        };
        for lists in [(!operators.replace).then_some(ours), Some(theirs)].into_iter().flatten() {
            lists.same.iter().for_each(|line| made.relate(line, SAME, stems));
            lists.near.iter().for_each(|line| made.relate(line, NEAR, stems));
        }
        // What tells nothing does so in every trade.
        for lists in [ours, theirs] {
            for word in words(&lists.light) {
                made.telling_nothing.insert(word);
            }
            for word in words(&lists.fillers) {
                made.fillers.insert(word.clone());
                made.telling_nothing.insert(word);
            }
        }
        // The longest first: `pick up point` before `pick up`.
        for phrases in made.phrases.values_mut() {
            phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.parts.len()));
        }
        made
    }

    fn relate(&mut self, line: &str, strength: f32, stems: &Stems) {
        let entries: Vec<Vec<Option<String>>> = line.split(',').map(|entry| self.entry(entry, stems)).collect();
        let means: Vec<String> = entries.first().into_iter().flatten().flatten().cloned().collect();
        let is_phrase = |parts: &Vec<Option<String>>| parts.len() > 1 || means.len() > 1;
        let singles: HashSet<String> =
            entries.iter().filter(|parts| !is_phrase(parts)).flatten().flatten().cloned().collect();
        for word in &singles {
            let known = self.related.entry(word.clone()).or_default();
            for other in singles.iter().filter(|other| *other != word) {
                match known.iter_mut().find(|(name, _)| name == other) {
                    Some((_, before)) => *before = before.max(strength),
                    None => known.push((other.clone(), strength)),
                }
            }
        }
        for parts in entries.iter().filter(|parts| is_phrase(parts)) {
            if let Some(Some(first)) = parts.first() {
                let phrase = Phrase { parts: parts.clone(), means: means.clone() };
                self.phrases.entry(first.clone()).or_default().push(phrase);
            }
        }
    }

    fn entry(&mut self, entry: &str, stems: &Stems) -> Vec<Option<String>> {
        let mut parts = Vec::new();
        if entry.split_whitespace().nth(1).is_none() {
            self.alone.extend(words(entry));
        }
        for piece in entry.split_whitespace() {
            if piece == "*" {
                parts.push(None);
                continue;
            }
            for word in words(piece) {
                parts.push(Some(stems.stem(&word)));
                self.telling.insert(word);
            }
        }
        parts
    }

    /// Other words for this one, each with how much it counts.
    pub(super) fn related(&self, stem: &str) -> &[(String, f32)] {
        self.related.get(stem).map_or(&[], Vec::as_slice)
    }

    /// Whether a word, as it is written, never tells anything.
    pub(super) fn is_filler(&self, word: &str) -> bool {
        self.fillers.contains(word)
    }

    /// Whether a word is written so and tells something.
    pub(super) fn has(&self, word: &str) -> bool {
        self.telling.contains(word)
    }

    /// Whether a word tells something by itself.
    pub(super) fn has_alone(&self, word: &str) -> bool {
        self.alone.contains(word)
    }

    /// Whether a word is written so and tells nothing.
    pub(super) fn has_idle(&self, word: &str) -> bool {
        self.telling_nothing.contains(word)
    }

    /// Words that tell something, as they are written.
    pub(super) fn telling(&self) -> impl Iterator<Item = &String> {
        self.telling.iter()
    }

    /// Words that tell nothing, as they are written.
    pub(super) fn idle(&self) -> impl Iterator<Item = &String> {
        self.telling_nothing.iter()
    }

    /// What phrases among these stems mean, and which of the stems they took. Phrases may lie within each other's gaps.
    pub(super) fn phrases(&self, stems: &[String]) -> (Vec<String>, Vec<bool>) {
        let mut taken = vec![false; stems.len()];
        let mut meant = Vec::new();
        for at in 0..stems.len() {
            if taken.get(at).copied().unwrap_or(true) {
                continue;
            }
            let Some(phrases) = stems.get(at).and_then(|first| self.phrases.get(first)) else { continue };
            if let Some((phrase, places)) = phrases.iter().find_map(|phrase| Some((phrase, phrase.places(stems, at)?)))
            {
                places.into_iter().filter_map(|place| taken.get_mut(place).map(|taken| *taken = true)).for_each(drop);
                meant.extend(phrase.means.iter().cloned());
            }
        }
        (meant, taken)
    }
}

impl Phrase {
    /// Where its words stand if it begins here.
    fn places(&self, stems: &[String], at: usize) -> Option<Vec<usize>> {
        let mut places = Vec::new();
        let mut next = at;
        let mut reach = 0;
        for part in &self.parts {
            let Some(word) = part else {
                reach = GAP_MAX;
                continue;
            };
            let place = (next..=next + reach).find(|place| stems.get(*place) == Some(word))?;
            places.push(place);
            (next, reach) = (place + 1, 0);
        }
        Some(places)
    }
}
