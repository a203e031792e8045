//! Passages for a model to answer from: what a folder says near a text, without the judgement whether it answers it.
//!
//! A model reads several and leaves what does not fit; so a passage only has to share a word with the text that tells
//! something.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Knowledge, passage};
use crate::conversation::{Language, language};

/// What is read of a text.
const TEXT_CHARS_MAX: usize = 2_000;

/// A section of the folder, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::agent) struct Passage {
    /// How it is cited.
    pub(in crate::agent) source: String,
    /// Its words.
    pub(in crate::agent) text: String,
}

impl Knowledge {
    /// The nearest passages, at most `most`: those in the text's language first.
    pub(in crate::agent) fn passages(&self, text: &str, most: usize) -> Vec<Passage> {
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        let spoken = language(&text);
        let other = if spoken == Language::French { Language::English } else { Language::French };
        let mut passages = Vec::new();
        for index in [spoken, other].iter().filter_map(|language| self.indexes.get(language)) {
            let asked: BTreeSet<String> =
                index.tokens.telling(&text).into_iter().map(|word| index.spelt(word)).collect();
            if asked.is_empty() {
                continue;
            }
            for found in index.engine.search(&text, most) {
                let Some(near) = self.sections.get(found.document.id) else { continue };
                if passages.len() < most && index.known(&asked, &near.words) > 0.0 {
                    passages.push(Passage { source: near.section.source(), text: passage(&near.section.body) });
                }
            }
        }
        passages
    }
}
