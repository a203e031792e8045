//! What is wrong with a configuration: every error at once, each with its file, key and line.
//!
//! One error a line, like a compiler, so an editor can jump to it. Values are never quoted where they could be
//! secrets; names (of plans, upstreams, variables) are.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file it stands in.
    pub file: PathBuf,
    /// The key, such as `tenant[0].key[1].secret`; empty for the file as a whole.
    pub key: String,
    /// Where the key stands, or where it is missing.
    pub position: Option<Position>,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// A place in a text; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Finds positions in a text; the line ends are looked for once, since a file may have very many keys.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Byte offsets at which lines begin.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let after_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(after_ends).collect() }
    }

    /// Where a byte offset is.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// One file: its name as shown, and where its keys stand.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    /// By key, such as `tenant[0].key[1].secret`.
    pub(super) positions: HashMap<String, Position>,
}

/// A key in a file.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    source: &'a Source,
    key: String,
}

impl<'a> Place<'a> {
    /// The file as a whole.
    pub(super) fn top(source: &'a Source) -> Self {
        Self { source, key: String::new() }
    }

    /// A key of this table.
    pub(super) fn key(&self, key: &str) -> Self {
        Self { source: self.source, key: join(&self.key, key) }
    }

    /// An element of this array.
    pub(super) fn item(&self, index: usize) -> Self {
        Self { source: self.source, key: format!("{}[{index}]", self.key) }
    }

    /// Where this was said, for an error that names two places.
    pub(super) fn said(&self) -> String {
        match self.position() {
            Some(Position { line, .. }) => format!("{}:{line}", self.source.file.display()),
            None => self.source.file.display().to_string(),
        }
    }

    /// Its position, or for what is missing that of the nearest thing around it.
    fn position(&self) -> Option<Position> {
        let mut key = self.key.as_str();
        loop {
            if let Some(position) = self.source.positions.get(key) {
                return Some(*position);
            }
            key = key.get(..key.rfind(['.', '['])?)?;
        }
    }
}

/// A table's key as it is written in paths.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let dot = if parent.is_empty() { "" } else { "." };
    if bare { format!("{parent}{dot}{key}") } else { format!("{parent}{dot}{key:?}") }
}

/// Where errors are gathered.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<ConfigError>,
}

impl Report {
    /// Notes an error at a place.
    pub(super) fn add(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.push(ConfigError {
            file: place.source.file.clone(),
            key: place.key.clone(),
            position: place.position(),
            message: message.into(),
        });
    }

    /// Notes an error.
    pub(super) fn push(&mut self, error: ConfigError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Something is wrong with this file.
    pub(super) fn holds(&self, file: &Path) -> bool {
        self.errors.iter().any(|error| error.file == file)
    }

    /// Nothing was wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The value, if nothing was wrong.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => {
                let mut files: Vec<PathBuf> = Vec::new();
                for error in &self.errors {
                    if !files.contains(&error.file) {
                        files.push(error.file.clone());
                    }
                }
                self.errors.sort_by_key(|error| (files.iter().position(|file| *file == error.file), error.position));
                Err(ConfigErrors(self.errors))
            }
        }
    }
}

/// The nearest of the known words, as the end of a sentence: `; did you mean "x"?`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|known| format!("; did you mean \"{known}\"?")).unwrap_or_default()
}

/// The nearest of the known words, if it is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        let text = "a = 1\r\nb = \"é\" # x\n\nc";
        let lines = Lines::of(text);
        let at = |needle: &str| {
            let Position { line, column } = lines.position(text.find(needle).unwrap());
            (line, column)
        };
        assert_eq!((at("a"), at("b"), at("#"), at("c")), ((1, 1), (2, 1), (2, 9), (4, 1)));
        assert_eq!(lines.position(text.len()), Position { line: 4, column: 2 });
        assert_eq!(Lines::of("").position(0), Position { line: 1, column: 1 });
    }

    #[test]
    fn what_is_missing_stands_where_the_nearest_thing_around_it_does() {
        let positions = [("a".to_owned(), Position { line: 3, column: 1 })].into();
        let source = Source { file: PathBuf::from("x.toml"), positions };
        let place = Place::top(&source).key("a").item(2).key("b.c");
        let mut report = Report::default();
        report.add(&place, "missing");
        report.add(&Place::top(&source).key("z"), "missing");
        let errors = report.finish(Some(())).unwrap_err();
        assert_eq!(errors.to_string(), "x.toml: z: missing\nx.toml:3:1: a[2].\"b.c\": missing");
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(nearest("calls_per_minut", ["tokens_per_month", "calls_per_minute"]), Some("calls_per_minute"));
        assert_eq!(nearest("zebra", ["tokens_per_month", "calls_per_minute"]), None);
    }
}
