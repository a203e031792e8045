//! Passages for a model to answer from: what a folder says near a text, without the judgement whether it answers it.
//!
//! A model reads several and leaves what does not fit; so a passage only has to share a word with the text that tells
//! something.

use serde::Serialize;

use super::index::Index;
use super::passage;
use crate::conversation::language;

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

impl Index {
    /// The nearest passages, at most `most`: those in the text's language first.
    pub(super) fn passages(&self, text: &str, most: usize) -> Vec<Passage> {
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        let near = self.near(&text, language(&text), most);
        near.into_iter()
            .map(|near| Passage { source: near.section.source(), text: passage(&near.section.body) })
            .collect()
    }
}
