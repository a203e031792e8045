//! Which section answers a question: ranked by BM25 and by what of the question each knows, then judged.
//!
//! BM25 always finds a best, so finding is not answering. A section answers if it knows enough of what was asked, each
//! word weighing what it tells. What it says in its heading counts for more than what it mentions in its body, where
//! the words asked must stand in one sentence: `work` and `warehouse` three lines apart are about something else.
//! A word that other sections have in their headings, and this one does not know at all, speaks against it. When
//! several fit about equally well, all of them are given: which is meant is the customer's to say.

use std::collections::{BTreeSet, HashMap, HashSet};

use bm25::{Document, SearchEngine, SearchEngineBuilder};
use unicode_segmentation::UnicodeSegmentation as _;

use super::folder::Section;
use super::kind::{self, Kind};
use super::synonyms;
use super::tokens::Tokens;
use crate::conversation::choice::OPTIONS_MAX;
use crate::conversation::{Language, language, words};

/// Share of the question that a section must know. Lower, and questions about things the folder does not mention are
/// answered with what it says about something near; higher, and ordinary questions with a chatty word in them go to a
/// human. Held, like everything here, by `relais agent eval`.
const KNOWN_MIN: f32 = 0.6;
/// The same where the question says everything the section's heading says: it is then about that, whatever else.
const KNOWN_UNDER_HEADING_MIN: f32 = 0.42;
/// The same where nothing asked stands in the section's heading or title: it may only be mentioned in passing.
const KNOWN_IN_BODY_MIN: f32 = 0.75;
/// Outside a heading, what is known must weigh this share of a word that stands in one section only: `order` stands
/// in half of a shop's sections and picks none.
const TELLING_MIN: f32 = 0.5;
/// Sections looked at: BM25 counts repetitions, so the most fitting is not always its first.
const CANDIDATES: usize = 10;
/// How often a heading counts beside the body.
const HEADING_WEIGHT: usize = 3;
/// What the heading's share of the question, and the question's share of the heading, add to what is known.
const HEADED_WEIGHT: f32 = 0.5;
const COVERED_WEIGHT: f32 = 0.25;
/// What being of the kind asked for adds, and being of another takes away.
const KIND_WEIGHT: f32 = 0.2;
/// A word that only means the one asked, or stands only in the file's title, counts this much when ranked.
const SYNONYM_WEIGHT: f32 = 0.8;
const TITLE_WEIGHT: f32 = 0.5;
/// Two sections fit equally well if their ranks differ by no more, and BM25 by no more than this share.
const RANK_TIE: f32 = 0.1;
const SCORE_TIE: f32 = 0.6;
/// A word is taken for a misspelt one only from this length on.
const TYPO_CHARS_MIN: usize = 5;
/// A verb that the stemmers leave apart from its noun: `pay`, `payment`.
const ENDINGS: &[&str] = &["ment", "er", "ing", "able", "ation", "ion", "al", "age", "s"];
const FORM_CHARS_MIN: usize = 3;

/// A folder's sections and how to find one. Never changes: a changed folder is another index.
pub(super) struct Index {
    sections: Vec<Indexed>,
    /// One for each language that has sections.
    by_language: HashMap<Language, OfLanguage>,
}

/// A section and its words.
pub(super) struct Indexed {
    pub(super) section: Section,
    pub(super) language: Language,
    words: HashSet<String>,
    heading: HashSet<String>,
    title: HashSet<String>,
    kind: Option<Kind>,
    /// Heading and body, without the title.
    own: HashSet<String>,
    sentences: Vec<HashSet<String>>,
}

/// What was found.
pub(super) enum Found<'a> {
    /// The section that answers.
    One(&'a Indexed),
    /// Several that fit about equally well: two at least.
    Several(Vec<&'a Indexed>),
    /// None that answers; the nearest, if anything is near.
    Nothing(Option<&'a Indexed>),
}

struct OfLanguage {
    engine: SearchEngine<usize, u32, Tokens>,
    tokens: Tokens,
    /// In how many sections a word stands.
    found_in: HashMap<String, usize>,
    sections: usize,
}

/// A candidate, judged.
struct Judged<'a> {
    indexed: &'a Indexed,
    knows: bool,
    /// Share of the question.
    known: f32,
    /// The question's most telling word stands in the heading.
    is_headed_by_most: bool,
    rank: f32,
    score: f32,
}

impl Index {
    pub(super) fn new(sections: Vec<Section>) -> Self {
        let mut indexed: Vec<Indexed> = sections.into_iter().map(Indexed::new).collect();
        let mut by_language = HashMap::new();
        for language in [Language::English, Language::French] {
            if let Some(one) = OfLanguage::new(language, &mut indexed) {
                by_language.insert(language, one);
            }
        }
        Self { sections: indexed, by_language }
    }

    /// How many sections there are.
    pub(super) fn len(&self) -> usize {
        self.sections.len()
    }

    /// Looks in the customer's language first, then in the other.
    pub(super) fn find(&self, text: &str, spoken: Language) -> Found<'_> {
        self.find_among(text, spoken, |_| true)
    }

    /// The same among sections with these headings.
    pub(super) fn find_titled(&self, text: &str, spoken: Language, titles: &[&str]) -> Found<'_> {
        self.find_among(text, spoken, |indexed| titles.contains(&indexed.title().as_str()))
    }

    /// The section that an option named.
    pub(super) fn titled(&self, title: &str) -> Option<&Indexed> {
        self.sections.iter().find(|indexed| indexed.title() == title)
    }

    /// The one of these whose kind was named, and nothing else: `how long it takes` after a question of ours.
    pub(super) fn of_kind(&self, text: &str, titles: &[&str]) -> Option<&Indexed> {
        let kind = kind::of(text)?;
        if self.by_language.values().all(|one| !one.tokens.telling(&matter(text)).is_empty()) {
            return None;
        }
        let mut fitting = titles.iter().filter_map(|title| self.titled(title)).filter(|one| one.kind == Some(kind));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// The sections nearest to a text that share a telling word with it, whether they answer it or not.
    pub(super) fn near(&self, text: &str, spoken: Language, most: usize) -> Vec<&Indexed> {
        let other = if spoken == Language::French { Language::English } else { Language::French };
        let mut near = Vec::new();
        for one in [spoken, other].iter().filter_map(|language| self.by_language.get(language)) {
            let asked = one.asked(text);
            let found = one.engine.search(text, most);
            let sections = found.iter().filter_map(|found| self.sections.get(found.document.id));
            near.extend(sections.filter(|indexed| one.known(&asked, &indexed.words, 1.0) > 0.0));
        }
        near.truncate(most);
        near
    }

    fn find_among(&self, text: &str, spoken: Language, of: impl Fn(&Indexed) -> bool) -> Found<'_> {
        let other = if spoken == Language::French { Language::English } else { Language::French };
        let mut nearest = None;
        for language in [spoken, other] {
            let Some(one) = self.by_language.get(&language) else { continue };
            match one.find(text, &self.sections, &of) {
                Found::Nothing(near) => nearest = nearest.or(near),
                found => return found,
            }
        }
        Found::Nothing(nearest)
    }
}

impl Indexed {
    fn new(section: Section) -> Self {
        let language = language(&format!("{} {} {}", section.title, section.heading, section.body));
        let (words, heading, title, own) = Default::default();
        let kind = kind::of(&section.heading);
        Self { section, language, words, heading, title, kind, own, sentences: Vec::new() }
    }

    fn read(&mut self, tokens: &Tokens) {
        let set = |text: &str| tokens.telling(text).into_iter().collect::<HashSet<String>>();
        self.heading = set(&self.section.heading);
        self.title = set(&self.section.title);
        self.sentences =
            self.section.body.split_sentence_bounds().map(set).filter(|sentence| !sentence.is_empty()).collect();
        self.own = self.heading.iter().chain(self.sentences.iter().flatten()).cloned().collect();
        self.words = self.own.union(&self.title).cloned().collect();
    }

    /// What an option calls it: one line.
    pub(super) fn title(&self) -> String {
        self.section.heading.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl OfLanguage {
    fn new(language: Language, all: &mut [Indexed]) -> Option<Self> {
        let tokens = Tokens::new(language);
        let mut found_in: HashMap<String, usize> = HashMap::new();
        let mut documents = Vec::new();
        for (at, indexed) in all.iter_mut().enumerate().filter(|(_, indexed)| indexed.language == language) {
            indexed.read(&tokens);
            for word in &indexed.words {
                *found_in.entry(word.clone()).or_default() += 1;
            }
            let Section { title, heading, body } = &indexed.section;
            let text = format!("{title}\n{}{body}", format!("{heading}\n").repeat(HEADING_WEIGHT));
            documents.push(Document::new(at, text));
        }
        let sections = documents.len();
        if sections == 0 {
            return None;
        }
        let engine = SearchEngineBuilder::with_tokenizer_and_documents(Tokens::new(language), documents).build();
        Some(Self { engine, tokens, found_in, sections })
    }

    fn find<'a>(&self, text: &str, sections: &'a [Indexed], of: impl Fn(&Indexed) -> bool) -> Found<'a> {
        // Spelt as the folder spells it, for the search and the judgement alike; ordered, so that sums are repeatable.
        let asked = self.asked(text);
        if asked.is_empty() {
            return Found::Nothing(None);
        }
        let kind = kind::of(text);
        let mut meant = text.to_owned();
        for word in &asked {
            meant.push(' ');
            meant.push_str(word);
            synonyms::of(word).for_each(|other| meant.extend([" ", other]));
        }
        let found = self.engine.search(&meant, CANDIDATES);
        let candidates = found.iter().filter_map(|found| Some((sections.get(found.document.id)?, found.score)));
        let mut judged: Vec<Judged<'a>> = candidates
            .filter(|(indexed, _)| of(indexed))
            .map(|(indexed, score)| self.judge(&asked, kind, indexed, score))
            .collect();
        judged.sort_by(|one, other| {
            other.knows.cmp(&one.knows).then(other.rank.total_cmp(&one.rank)).then(other.score.total_cmp(&one.score))
        });
        match judged.first() {
            None => Found::Nothing(None),
            Some(best) if !best.knows => Found::Nothing(Some(best.indexed)),
            Some(best) => {
                let ties = |other: &&Judged<'_>| {
                    let near = best.rank - other.rank <= RANK_TIE;
                    let scores = (other.score.min(best.score), other.score.max(best.score));
                    let equal = other.knows && near && scores.0 >= SCORE_TIE * scores.1;
                    // `return shoes`: the best is headed by the lesser of the two words, another by the greater.
                    let headed = other.is_headed_by_most && !best.is_headed_by_most;
                    equal || (headed && other.known >= KNOWN_UNDER_HEADING_MIN)
                };
                let fitting: Vec<&Indexed> =
                    judged.iter().filter(ties).map(|judged| judged.indexed).take(OPTIONS_MAX).collect();
                if fitting.len() > 1 { Found::Several(fitting) } else { Found::One(best.indexed) }
            }
        }
    }

    /// The words a question is about. Those that only say its kind are left out, unless there are no others, and so
    /// are numbers that stand nowhere in the folder: `size 45` is about the size.
    fn asked(&self, text: &str) -> BTreeSet<String> {
        let spelt = |text: &str| -> BTreeSet<String> {
            let is_number =
                |word: &String| word.chars().all(|c| c.is_ascii_digit()) && !self.found_in.contains_key(word);
            let telling = self.tokens.telling(text).into_iter().filter(|word| !is_number(word));
            telling.map(|word| self.spelt(word)).collect()
        };
        let asked = spelt(&matter(text));
        if asked.is_empty() { spelt(text) } else { asked }
    }

    fn judge<'a>(&self, asked: &BTreeSet<String>, kind: Option<Kind>, indexed: &'a Indexed, score: f32) -> Judged<'a> {
        let known = self.known(asked, &indexed.words, 1.0);
        let headed = self.known(asked, &indexed.heading, 1.0);
        let says = |word: &&String| asked.contains(*word) || synonyms::of(word).any(|other| asked.contains(other));
        let whole = indexed.heading.len() > 1 && indexed.heading.iter().all(|word| says(&word));
        let in_title = self.known(asked, &indexed.title, 1.0) > 0.0;
        let knows = if whole {
            known >= KNOWN_UNDER_HEADING_MIN
        } else if headed > 0.0 || in_title {
            known >= KNOWN_MIN
        } else {
            let at_once = indexed.sentences.iter().map(|sentence| self.known(asked, sentence, 1.0)).fold(0.0, f32::max);
            let all: f32 = asked.iter().map(|word| self.weight(word)).sum();
            at_once >= KNOWN_IN_BODY_MIN && at_once * all >= TELLING_MIN * self.weight_of(1)
        };
        let rank = self.rank(asked, kind, indexed);
        let most = asked.iter().map(|word| self.weight(word)).fold(0.0, f32::max);
        let is_headed_by_most = asked.iter().any(|word| self.weight(word) >= most && indexed.heading.contains(word));
        Judged { indexed, knows, known, is_headed_by_most, rank, score }
    }

    /// How well a section fits, beside others: what it knows, in its heading, of the heading, and of which kind.
    fn rank(&self, asked: &BTreeSet<String>, kind: Option<Kind>, indexed: &Indexed) -> f32 {
        let own = self.known(asked, &indexed.own, SYNONYM_WEIGHT);
        let with_title = self.known(asked, &indexed.words, SYNONYM_WEIGHT);
        let headed = self.known(asked, &indexed.heading, SYNONYM_WEIGHT);
        let says = |word: &&String| asked.contains(*word) || synonyms::of(word).any(|other| asked.contains(other));
        let (kind, is_kind) = match (kind, indexed.kind) {
            (Some(asked), Some(told)) if asked == told => (KIND_WEIGHT, true),
            (Some(_), Some(_)) => (-KIND_WEIGHT, false),
            _ => (0.0, false),
        };
        // `How long` is as much a part of a heading as a telling word is.
        let told = if indexed.kind.is_some() { self.weight_of(2) } else { 0.0 };
        let all: f32 = told + indexed.heading.iter().map(|word| self.weight(word)).sum::<f32>();
        let said: f32 = indexed.heading.iter().filter(says).map(|word| self.weight(word)).sum();
        let covered = if all > 0.0 { (said + if is_kind { told } else { 0.0 }) / all } else { 0.0 };
        own + TITLE_WEIGHT * (with_title - own) + HEADED_WEIGHT * headed + COVERED_WEIGHT * covered + kind
    }

    /// The share of the question's weight that a set of words knows: 0 to 1.
    /// One that only means the word asked counts for `synonym`.
    fn known(&self, asked: &BTreeSet<String>, words: &HashSet<String>, synonym: f32) -> f32 {
        let all: f32 = asked.iter().map(|word| self.weight(word)).sum();
        let share = |word: &String| match words.contains(word) {
            true => 1.0,
            false if synonyms::of(word).any(|other| words.contains(other)) => synonym,
            false => 0.0,
        };
        let known: f32 = asked.iter().map(|word| share(word) * self.weight(word)).sum();
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
            let alike =
                chars.max(known.chars().count()) >= TYPO_CHARS_MIN && known.chars().next() == word.chars().next();
            alike && strsim::osa_distance(known, &word) == 1
        };
        // The smallest of several, so that the answer does not depend on a map's order.
        let near = self.found_in.keys().filter(form).min().or_else(|| self.found_in.keys().filter(typo).min());
        near.cloned().unwrap_or(word)
    }
}

/// A question without the words that only say its kind.
fn matter(text: &str) -> String {
    words(text).filter(|word| kind::alone(word).is_none()).collect::<Vec<_>>().join(" ")
}
