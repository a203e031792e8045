//! A folder of Markdown, cut into sections.
//!
//! A file's `# heading` is its title, each `## heading` begins a section; what stands before the first is a section
//! under the title. Deeper headings stay in the text, as does everything within code fences. A comment
//! `<!-- also: … -->` in a section holds other ways to ask for it, and `synonyms.toml` beside the files the operator's
//! own words. Hidden files are left out; everything read is bounded.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::thesaurus::Vocabulary;

/// A help centre has hundreds of pages of a few KB; a folder beyond this is a mistake (or a source tree).
const FILES_MAX: usize = 5_000;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const BYTES_MAX: u64 = 32 * 1024 * 1024;
const SECTIONS_MAX: usize = 50_000;
const DEPTH_MAX: usize = 6;
/// Other ways to ask for one section.
const ALSO_MAX: usize = 50;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeError {
    /// A file or folder cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than this is for.
    #[error("{} is too large: {limit}", path.display())]
    TooLarge {
        /// Where the limit was met.
        path: PathBuf,
        /// The limit, in words.
        limit: &'static str,
    },
    /// The operator's own words are not such a file.
    #[error("{} is not a file of words: {why}", path.display())]
    Words {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// There is nothing to answer from.
    #[error("{} has no Markdown with text in it", .0.display())]
    Empty(PathBuf),
}

/// The operator's own words, in the folder itself.
const WORDS: &str = "synonyms.toml";

/// A folder, read.
#[derive(Debug)]
pub(super) struct Folder {
    /// In the order of their files' paths.
    pub(super) sections: Vec<Section>,
    /// The operator's own words.
    pub(super) vocabulary: Vocabulary,
}

/// A piece of knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// Of the file.
    pub(super) title: String,
    /// Of the section; the title if it has none of its own.
    pub(super) heading: String,
    /// Other ways to ask for it, as its author wrote them down.
    pub(super) also: Vec<String>,
    /// Markdown.
    pub(super) body: String,
}

impl Section {
    /// How it is cited.
    pub(super) fn source(&self) -> String {
        if self.heading == self.title { self.title.clone() } else { format!("{} – {}", self.title, self.heading) }
    }
}

/// Names, sizes and times of every file: differs when one was changed, added or removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, u64, Option<SystemTime>)>);

/// The folder as it is now, without reading any file.
pub(super) fn stamp(dir: &Path) -> Result<Stamp, KnowledgeError> {
    let mut files = Vec::new();
    collect(dir, 0, &mut files)?;
    files.extend(words(dir));
    files.sort();
    let look = |path: PathBuf| {
        let meta = fs::metadata(&path).map_err(|source| KnowledgeError::Read { path: path.clone(), source })?;
        Ok((path, meta.len(), meta.modified().ok()))
    };
    files.into_iter().map(look).collect::<Result<_, _>>().map(Stamp)
}

/// Where the operator's own words are, if there are any.
fn words(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(WORDS)).filter(|path| path.is_file())
}

/// Every section of every `.md` file under `dir`, and the operator's own words.
pub(super) fn read(dir: &Path) -> Result<Folder, KnowledgeError> {
    let vocabulary = match words(dir) {
        Some(path) => Vocabulary::read(&text(&path, BYTES_MAX)?).map_err(|why| KnowledgeError::Words { path, why })?,
        None => Vocabulary::default(),
    };
    Ok(Folder { sections: sections(dir)?, vocabulary })
}

fn sections(dir: &Path) -> Result<Vec<Section>, KnowledgeError> {
    let mut files = Vec::new();
    collect(dir, 0, &mut files)?;
    files.sort();
    let mut sections = Vec::new();
    let mut bytes_left = BYTES_MAX;
    for path in files {
        let text = text(&path, bytes_left)?;
        bytes_left = bytes_left.saturating_sub(u64::try_from(text.len()).unwrap_or(u64::MAX));
        let name = path.file_stem().map(|stem| stem.to_string_lossy().replace(['-', '_'], " ")).unwrap_or_default();
        sections.extend(cut(&text, &name));
        if sections.len() > SECTIONS_MAX {
            return Err(KnowledgeError::TooLarge { path, limit: "at most 50,000 sections in all" });
        }
    }
    if sections.is_empty() {
        return Err(KnowledgeError::Empty(dir.to_owned()));
    }
    Ok(sections)
}

fn collect(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), KnowledgeError> {
    let failed = |source| KnowledgeError::Read { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        // Follows links: mounted configuration is made of them. The depth ends a circle.
        let kind = fs::metadata(&path).map_err(|source| KnowledgeError::Read { path: path.clone(), source })?;
        if kind.is_dir() && depth < DEPTH_MAX {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md")) {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(KnowledgeError::TooLarge { path: dir.to_owned(), limit: "at most 5,000 files" });
        }
    }
    Ok(())
}

fn text(path: &Path, bytes_left: u64) -> Result<String, KnowledgeError> {
    let failed = |source| KnowledgeError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > FILE_BYTES_MAX || length > bytes_left {
        return Err(KnowledgeError::TooLarge {
            path: path.to_owned(),
            limit: "at most 1 MiB a file and 32 MiB in all",
        });
    }
    String::from_utf8(bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

pub(super) fn cut(text: &str, file_name: &str) -> Vec<Section> {
    let text = text.trim_start_matches('\u{feff}');
    let mut title = None;
    let mut cuts: Vec<(Option<String>, String)> = vec![(None, String::new())];
    let mut fenced = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        fenced ^= is_fence;
        if !fenced && !is_fence {
            if let (Some(heading), None) = (line.strip_prefix("# "), &title) {
                title = Some(plain(heading));
                continue;
            }
            if let Some(heading) = line.strip_prefix("## ") {
                cuts.push((Some(plain(heading)), String::new()));
                continue;
            }
        }
        if let Some((_, body)) = cuts.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    let title = title.filter(|title| !title.is_empty()).unwrap_or_else(|| file_name.to_owned());
    cuts.into_iter()
        .map(|(heading, body)| {
            let (also, body) = also(&body);
            Section { title: title.clone(), heading: heading.unwrap_or_else(|| title.clone()), also, body }
        })
        .filter(|section| !section.body.is_empty())
        .collect()
}

/// Takes the lines `<!-- also: one way; another -->` out of a body: an author's other ways to ask for the section.
/// A renderer of Markdown shows nothing of them.
fn also(body: &str) -> (Vec<String>, String) {
    let mut ways = Vec::new();
    let mut kept = Vec::new();
    for line in body.lines() {
        let inner = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
        match inner.and_then(|inner| inner.trim().strip_prefix("also:")) {
            Some(list) => {
                let list = list.split(';').map(str::trim).filter(|way| !way.is_empty());
                ways.extend(list.take(ALSO_MAX.saturating_sub(ways.len())).map(str::to_owned));
            }
            None => kept.push(line),
        }
    }
    (ways, kept.join("\n").trim().to_owned())
}

/// A heading without Markdown's closing marks and emphasis.
fn plain(heading: &str) -> String {
    heading.trim().trim_end_matches('#').trim().replace(['*', '`'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, heading: &str, body: &str) -> Section {
        Section { title: title.to_owned(), heading: heading.to_owned(), also: Vec::new(), body: body.to_owned() }
    }

    #[test]
    fn a_file_is_cut_at_its_headings() {
        let text = "\u{feff}# Delivery ##\nIntro.\n\n## How **long**?\nTwo days.\n### By air\nOne.\n```\n## not a heading\n```\n## Empty\n\n";
        assert_eq!(
            cut(text, "file"),
            [
                section("Delivery", "Delivery", "Intro."),
                section("Delivery", "How long?", "Two days.\n### By air\nOne.\n```\n## not a heading\n```"),
            ]
        );
        assert_eq!(cut("Just text", "opening hours"), [section("opening hours", "opening hours", "Just text")]);
        assert_eq!(section("A", "A", "").source(), "A");
        assert_eq!(section("A", "B", "").source(), "A – B");
    }

    #[test]
    fn other_ways_to_ask_are_read_and_not_shown() {
        let text = "# Shop\n## Hours\n<!-- also: Are you open?; when do you close -->\nFrom 9.\n<!-- a note -->\n## Empty\n<!-- also: x -->";
        let [one] = &cut(text, "file")[..] else { panic!("one section has text") };
        assert_eq!(one.also, ["Are you open?", "when do you close"]);
        assert_eq!(one.body, "From 9.\n<!-- a note -->");
        let many = format!("<!-- also: {} -->\ntext", vec!["x"; 100].join(";"));
        assert_eq!(cut(&many, "file")[0].also.len(), ALSO_MAX);
    }

    #[test]
    fn an_operator_s_words_are_read_with_the_folder_and_nonsense_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.md"), "# A\na").unwrap();
        let before = stamp(dir.path()).unwrap();
        fs::write(dir.path().join(WORDS), "[en]\nsame = [\"shoes, clogs\"]").unwrap();
        assert_ne!(stamp(dir.path()).unwrap(), before, "it is looked at like the rest");
        assert_eq!(read(dir.path()).unwrap().sections.len(), 1);
        fs::write(dir.path().join(WORDS), "[de]\nsame = []").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("synonyms.toml is not a file of words") && error.contains("de"), "{error}");
    }

    #[test]
    fn a_folder_is_read_in_order_and_hidden_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("b.md"), "# B\nb").unwrap();
        fs::write(dir.path().join("a.MD"), "# A\na").unwrap();
        fs::write(dir.path().join("sub/c.md"), "# C\nc").unwrap();
        fs::write(dir.path().join(".hidden.md"), "# H\nh").unwrap();
        fs::write(dir.path().join("notes.txt"), "no").unwrap();
        let titles: Vec<_> = read(dir.path()).unwrap().sections.into_iter().map(|section| section.title).collect();
        assert_eq!(titles, ["A", "B", "C"]);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(KnowledgeError::Empty(_))));
        assert!(matches!(read(&dir.path().join("none")), Err(KnowledgeError::Read { .. })));
        fs::write(dir.path().join("x.md"), b"\xff\xfe").unwrap();
        assert!(matches!(read(dir.path()), Err(KnowledgeError::Read { .. })));
        let too_large = "a".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        fs::write(dir.path().join("x.md"), too_large).unwrap();
        assert!(matches!(read(dir.path()), Err(KnowledgeError::TooLarge { .. })));
    }
}
