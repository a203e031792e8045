//! Which section answers a question: ranked by BM25 and by what of the question each knows, then judged.
//!
//! BM25 always finds a best, so finding is not answering. What is an answer is told in `judge`; how a question is read,
//! with its typing errors and its other words for things, in `query`. When several sections fit about equally well,
//! all of them are given: which is meant is the customer's to say. A question of several sentences in which the whole
//! fits nothing is asked sentence by sentence.

use std::collections::{BTreeSet, HashMap, HashSet};

use bm25::{Document, SearchEngine, SearchEngineBuilder};
use unicode_segmentation::UnicodeSegmentation as _;

use super::folder::Section;
use super::judge::{Judged, fitting};
use super::kind::{self, Kind};
use super::query::{Asked, Reader};
use super::thesaurus::Vocabulary;
use super::tokens::Parted;
use crate::conversation::{Language, language, words};

/// Sections looked at: BM25 counts repetitions, so the most fitting is not always its first.
const CANDIDATES: usize = 12;
/// How often a heading counts beside the body.
const HEADING_WEIGHT: usize = 3;
/// Sentences of a question that are asked one by one.
const CLAUSES_MAX: usize = 8;

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
    /// Title, headings and body.
    pub(super) words: HashSet<String>,
    pub(super) title: HashSet<String>,
    /// Its heading and the other ways to ask for it.
    pub(super) headings: Vec<Heading>,
    /// Headings and body, without the title.
    pub(super) own: HashSet<String>,
    pub(super) sentences: Vec<HashSet<String>>,
    /// What its body tells of: how long, how much.
    pub(super) tells: Vec<Kind>,
}

/// A way to ask for a section.
pub(super) struct Heading {
    /// Ordered, so that sums are repeatable.
    pub(super) words: BTreeSet<String>,
    pub(super) kind: Option<Kind>,
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
    engine: SearchEngine<usize, u32, Parted>,
    reader: Reader,
}

impl Index {
    pub(super) fn new(sections: Vec<Section>, vocabulary: &Vocabulary) -> Self {
        let mut indexed: Vec<Indexed> = sections.into_iter().map(Indexed::new).collect();
        let mut by_language = HashMap::new();
        for language in [Language::English, Language::French] {
            if let Some(one) = OfLanguage::new(language, &mut indexed, vocabulary) {
                by_language.insert(language, one);
            }
        }
        Self { sections: indexed, by_language }
    }

    /// How many sections there are.
    pub(super) fn len(&self) -> usize {
        self.sections.len()
    }

    /// Looks in the customer's language first, then in the other; for the whole question first, then for its sentences.
    pub(super) fn find(&self, text: &str, spoken: Language) -> Found<'_> {
        match self.find_among(text, spoken, false, |_| true) {
            Found::Nothing(nearest) => self.find_in_clauses(text, spoken).unwrap_or(Found::Nothing(nearest)),
            found => found,
        }
    }

    /// The same among sections with these headings.
    pub(super) fn find_titled(&self, text: &str, spoken: Language, titles: &[&str]) -> Found<'_> {
        self.find_among(text, spoken, false, |indexed| titles.contains(&indexed.title().as_str()))
    }

    /// The section that an option named.
    pub(super) fn titled(&self, title: &str) -> Option<&Indexed> {
        self.sections.iter().find(|indexed| indexed.title() == title)
    }

    /// The one of these whose kind was named, and nothing else: `how long it takes` after a question of ours.
    pub(super) fn of_kind(&self, text: &str, titles: &[&str]) -> Option<&Indexed> {
        let kind = kind::read(&words(text).collect::<Vec<_>>()).0?;
        if self.by_language.values().all(|one| one.reader.read(text).is_about_something) {
            return None;
        }
        let is_kind = |one: &&Indexed| one.headings.iter().any(|heading| heading.kind == Some(kind));
        let mut fitting = titles.iter().filter_map(|title| self.titled(title)).filter(is_kind);
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// The sections nearest to a text that share a telling word with it, whether they answer it or not.
    pub(super) fn near(&self, text: &str, spoken: Language, most: usize) -> Vec<&Indexed> {
        let mut near = Vec::new();
        for one in [spoken, other(spoken)].iter().filter_map(|language| self.by_language.get(language)) {
            let asked = one.reader.read(text);
            // Words that tell nothing too: a model leaves what does not fit.
            let text = format!("{} {}", asked.search(), asked.idle_words.join(" "));
            let found = one.engine.search(&text, most);
            let sections = found.iter().filter_map(|found| self.sections.get(found.document.id));
            near.extend(sections.filter(|indexed| {
                asked.known(|word| indexed.words.contains(word)) > 0.0
                    || asked.idle_words.iter().any(|word| indexed.words.contains(word))
            }));
        }
        near.truncate(most);
        near
    }

    fn find_among(&self, text: &str, spoken: Language, alone: bool, of: impl Fn(&Indexed) -> bool) -> Found<'_> {
        let mut nearest = None;
        let knows = |language| self.by_language.get(&language).map_or(0, |one| one.reader.knows(text));
        // `remboursement` has no small word that would tell its language.
        let spoken = if knows(other(spoken)) > knows(spoken) { other(spoken) } else { spoken };
        for language in [spoken, other(spoken)] {
            let Some(one) = self.by_language.get(&language) else { continue };
            match one.find(text, &self.sections, alone, &of) {
                Found::Nothing(near) => nearest = nearest.or(near),
                found => return found,
            }
        }
        Found::Nothing(nearest)
    }

    /// The section that one of several sentences asks for; if they ask for two, which of them is the customer's to say.
    fn find_in_clauses(&self, text: &str, spoken: Language) -> Option<Found<'_>> {
        let clauses: Vec<&str> =
            text.split(['.', ',', ';', '!', '?', '\n', '(', ')']).filter(|clause| !clause.trim().is_empty()).collect();
        if !(2..=CLAUSES_MAX).contains(&clauses.len()) {
            return None;
        }
        let mut found: Vec<&Indexed> = Vec::new();
        for clause in clauses {
            if let Found::One(one) = self.find_among(clause, spoken, true, |_| true)
                && !found.iter().any(|before| std::ptr::eq(*before, one))
            {
                found.push(one);
            }
        }
        match found.as_slice() {
            [] => None,
            [one] => Some(Found::One(one)),
            _ => Some(Found::Several(found)),
        }
    }
}

fn other(language: Language) -> Language {
    match language {
        Language::English => Language::French,
        Language::French => Language::English,
    }
}

impl Indexed {
    fn new(section: Section) -> Self {
        let language = language(&format!("{} {} {}", section.title, section.heading, section.body));
        let (words, title, own) = Default::default();
        let tells = kind::told(&section.body);
        Self { section, language, words, title, headings: Vec::new(), own, sentences: Vec::new(), tells }
    }

    fn read(&mut self, reader: &Reader) {
        let set = |text: &str| reader.tell(text).into_iter().collect::<HashSet<String>>();
        let heading = |text: &String| Heading {
            words: reader.tell(text).into_iter().collect(),
            kind: kind::read(&words(text).collect::<Vec<_>>()).0,
        };
        self.title = set(&self.section.title);
        self.headings = std::iter::once(&self.section.heading).chain(&self.section.also).map(heading).collect();
        self.sentences =
            self.section.body.split_sentence_bounds().map(set).filter(|sentence| !sentence.is_empty()).collect();
        let headed = self.headings.iter().flat_map(|heading| &heading.words);
        self.own = headed.chain(self.sentences.iter().flatten()).cloned().collect();
        self.words = self.own.union(&self.title).cloned().collect();
    }

    /// What an option calls it: one line.
    pub(super) fn title(&self) -> String {
        self.section.heading.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl OfLanguage {
    fn new(language: Language, all: &mut [Indexed], vocabulary: &Vocabulary) -> Option<Self> {
        let of_language = || all.iter().enumerate().filter(|(_, indexed)| indexed.language == language);
        let texts: Vec<Vec<String>> = of_language()
            .map(|(_, Indexed { section, .. })| {
                let Section { title, heading, also, body } = section;
                words(&format!("{title}\n{heading}\n{}\n{body}", also.join("\n"))).collect()
            })
            .collect();
        if texts.is_empty() {
            return None;
        }
        let mut reader = Reader::new(language, vocabulary, &texts);
        let mut documents = Vec::new();
        for (at, indexed) in all.iter_mut().enumerate().filter(|(_, indexed)| indexed.language == language) {
            indexed.read(&reader);
            let headed = indexed.headings.iter().flat_map(|heading| &heading.words).chain(&indexed.title);
            reader.count(&indexed.words, headed);
            let Section { title, heading, also, body } = &indexed.section;
            let headings = format!("{heading}\n{}\n", also.join("\n")).repeat(HEADING_WEIGHT);
            documents.push(Document::new(at, reader.stems(&format!("{title}\n{headings}{body}")).join(" ")));
        }
        let engine = SearchEngineBuilder::with_tokenizer_and_documents(Parted, documents).build();
        Some(Self { engine, reader })
    }

    fn find<'a>(&self, text: &str, sections: &'a [Indexed], alone: bool, of: impl Fn(&Indexed) -> bool) -> Found<'a> {
        let asked: Asked = self.reader.read(text);
        if asked.words.is_empty() {
            return Found::Nothing(None);
        }
        let found = self.engine.search(&asked.search(), CANDIDATES);
        let candidates = found.iter().filter_map(|found| Some((sections.get(found.document.id)?, found.score)));
        let judged: Vec<Judged<'a>> = candidates
            .filter(|(indexed, _)| of(indexed))
            .map(|(indexed, score)| Judged::new(&self.reader, &asked, indexed, score, alone))
            .collect();
        fitting(judged)
    }
}
