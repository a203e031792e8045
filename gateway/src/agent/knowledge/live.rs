//! A folder in use: its index, and whether the folder has changed since.
//!
//! Whoever asks takes the index that stands at that moment and keeps it to the end of the answer. A look compares the
//! files' names, sizes and times, which costs a few system calls a file, works on every file system, and sees what an
//! editor's rename does to a watch; reading and indexing happen on the looking thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::folder::{self, Stamp};
use super::index::Index;
use super::thesaurus::Vocabulary;
use super::{Answered, KnowledgeError, Passage, Question};

/// One agent's knowledge.
pub(in crate::agent) struct Knowledge {
    index: ArcSwap<Index>,
    /// None: the knowledge is built in and never changes.
    dir: Option<PathBuf>,
    /// The folder as it was when it was last read, well or not.
    seen: Mutex<Option<Stamp>>,
}

/// What a look at the folder found.
pub(in crate::agent) enum Looked {
    /// As before.
    Same,
    /// Changed, and the new index serves: so many sections.
    Reindexed(usize),
    /// Changed, and cannot be used: the index before goes on serving. Said once for each change.
    Broken(KnowledgeError),
}

impl Knowledge {
    /// Reads and indexes a folder.
    pub(in crate::agent) fn read(dir: &Path) -> Result<Self, KnowledgeError> {
        // Before it is read: what changes meanwhile is seen by the next look.
        let seen = folder::stamp(dir).ok();
        let read = folder::read(dir)?;
        let index = Index::new(read.sections, &read.vocabulary);
        Ok(Self { index: ArcSwap::from_pointee(index), dir: Some(dir.to_owned()), seen: Mutex::new(seen) })
    }

    /// Indexes texts: of each its name and its Markdown.
    pub(in crate::agent) fn of_texts(texts: &[(&str, &str)]) -> Self {
        let sections = texts.iter().flat_map(|(name, text)| folder::cut(text, name)).collect();
        let index = Index::new(sections, &Vocabulary::default());
        Self { index: ArcSwap::from_pointee(index), dir: None, seen: Mutex::new(None) }
    }

    /// Answers what the customer said last.
    pub(in crate::agent) fn answer(&self, question: Question<'_>) -> Answered {
        self.index.load_full().answer(question)
    }

    /// The passages nearest to a text, at most `most`.
    pub(in crate::agent) fn passages(&self, text: &str, most: usize) -> Vec<Passage> {
        self.index.load_full().passages(text, most)
    }

    /// Reads the folder again if it changed since the last look.
    pub(in crate::agent) fn look(&self) -> Looked {
        let Some(dir) = &self.dir else { return Looked::Same };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // None: it cannot even be listed, which reading it will explain.
        let now = folder::stamp(dir).ok();
        if *seen == now {
            return Looked::Same;
        }
        *seen = now;
        match folder::read(dir) {
            Ok(read) => {
                let index = Index::new(read.sections, &read.vocabulary);
                let count = index.len();
                self.index.store(Arc::new(index));
                Looked::Reindexed(count)
            }
            Err(error) => Looked::Broken(error),
        }
    }
}
