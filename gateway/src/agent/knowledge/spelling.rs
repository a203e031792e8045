//! What a customer meant to type: a word nobody knows is read as the one it is nearly.
//!
//! Only words of the folder and of the thesaurus are meant, and the longer a word the more may be wrong with it. A
//! short word is only ever read as itself with two letters exchanged: `sacs` is not `sans`. Words that tell nothing
//! are guessed with more care than those that do, because a guess makes them vanish from the question.

use std::collections::{HashMap, HashSet};

use super::thesaurus::Thesaurus;
use super::tokens::Stems;

/// Letters from which on one, and two, may be wrong; and one in a word that tells nothing.
const ONE_WRONG_CHARS: usize = 5;
const TWO_WRONG_CHARS: usize = 8;
const IDLE_CHARS: usize = 7;
/// Two words written as one, or one as two, are at least this long together.
const JOINED_CHARS: usize = 6;

/// One language's words, as they are written.
pub(super) struct Spelling {
    stems: HashSet<String>,
    /// Words that are written apart in the folder or the thesaurus, by what they are together.
    pairs: HashMap<String, [String; 2]>,
    /// By their first letter; those that tell something, and those that do not.
    telling: HashMap<char, Vec<String>>,
    idle: HashMap<char, Vec<String>>,
    folder: HashSet<String>,
}

impl Spelling {
    /// Of a folder's words, in their order, and a thesaurus's.
    pub(super) fn new(texts: &[Vec<String>], thesaurus: &Thesaurus, stems: &Stems) -> Self {
        let folder: HashSet<String> = texts.iter().flatten().cloned().collect();
        let mut pairs = HashMap::new();
        for pair in texts.iter().flat_map(|text| text.windows(2)) {
            let [first, second] = pair else { continue };
            let joined = format!("{first}{second}");
            if joined.chars().count() >= JOINED_CHARS && !folder.contains(&joined) {
                pairs.insert(joined, [first.clone(), second.clone()]);
            }
        }
        let by_letter = |words: &mut dyn Iterator<Item = &String>| {
            let mut by_letter: HashMap<char, Vec<String>> = HashMap::new();
            for word in words {
                if let Some(first) = word.chars().next().filter(|first| first.is_alphabetic()) {
                    by_letter.entry(first).or_default().push(word.clone());
                }
            }
            // Sorted, so that a guess does not depend on a map's order.
            by_letter.values_mut().for_each(|words| words.sort());
            by_letter
        };
        let telling = by_letter(&mut folder.iter().filter(|word| !stems.is_stop(word)).chain(thesaurus.telling()));
        Self {
            stems: folder
                .iter()
                .chain(thesaurus.telling())
                .chain(thesaurus.idle())
                .map(|word| stems.stem(word))
                .collect(),
            pairs,
            telling,
            idle: by_letter(&mut thesaurus.idle()),
            folder,
        }
    }

    /// Whether the folder has a word, written so.
    pub(super) fn has(&self, word: &str) -> bool {
        self.folder.contains(word)
    }

    /// The words of a question as they were meant.
    pub(super) fn read(&self, said: Vec<String>, thesaurus: &Thesaurus, stems: &Stems) -> Vec<String> {
        let knows = |word: &String| {
            self.folder.contains(word)
                || thesaurus.has(word)
                || thesaurus.has_idle(word)
                || stems.is_stop(word)
                || self.stems.contains(&stems.stem(word))
        };
        let mut read: Vec<String> = Vec::with_capacity(said.len());
        for word in said {
            // `pass word`, where the folder writes it as one.
            let joined = read.last().map(|before| format!("{before}{word}"));
            let joined = joined.filter(|joined| joined.chars().count() >= JOINED_CHARS && self.folder.contains(joined));
            if let Some(joined) = joined {
                read.pop();
                read.push(joined);
            } else if knows(&word) || word.chars().any(|c| c.is_ascii_digit()) {
                read.push(word);
            } else if let Some(pair) = self.pairs.get(&word) {
                read.extend(pair.iter().cloned());
            } else {
                let meant = nearest(&word, &self.telling, ONE_WRONG_CHARS)
                    .or_else(|| nearest(&word, &self.idle, IDLE_CHARS))
                    .cloned();
                read.push(meant.unwrap_or(word));
            }
        }
        read
    }
}

/// The word that is nearest, if one is near enough.
fn nearest<'a>(word: &str, known: &'a HashMap<char, Vec<String>>, one_wrong: usize) -> Option<&'a String> {
    let chars = word.chars().count();
    let most = match chars {
        _ if chars >= TWO_WRONG_CHARS.max(one_wrong) => 2,
        _ if chars >= one_wrong => 1,
        _ => 0,
    };
    let near = known.get(&word.chars().next()?)?.iter().filter(|other| other.chars().count().abs_diff(chars) <= most);
    let distances = near.filter_map(|other| {
        let distance = strsim::osa_distance(other, word);
        // Two wrong ones do not stand at the beginning: `scandale` is not `sandales`.
        let begins = || other.chars().take(2).eq(word.chars().take(2));
        let near = distance <= 1.min(most) || (distance <= most && begins()) || exchanged(other, word);
        (near && distance <= 2).then_some((distance, other))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// Whether two words have the same letters.
fn exchanged(one: &str, other: &str) -> bool {
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    one.chars().count() > 2 && letters(one) == letters(other) && strsim::osa_distance(one, other) == 1
}

#[cfg(test)]
mod tests {
    use super::super::thesaurus::Vocabulary;
    use super::*;
    use crate::conversation::{Language, words};

    #[test]
    fn what_was_meant_is_read_and_what_is_another_word_is_left() {
        let stems = Stems::new(Language::English);
        let thesaurus = Thesaurus::new(Language::English, &Vocabulary::default(), &stems);
        let folder = vec![words("A widget with a turn-table and a flywheel").collect()];
        let spelling = Spelling::new(&folder, &thesaurus, &stems);
        let read = |text: &str| spelling.read(words(text).collect(), &thesaurus, &stems).join(" ");
        for (said, meant) in [
            ("widgte", "widget"),
            ("widgets", "widgets"),
            ("turntable", "turn table"),
            ("fly wheel", "flywheel"),
            ("flywheeels", "flywheel"),
            ("parsel", "parcel"),
            ("teh", "the"),
            ("drone", "drone"),
            ("quux 12345", "quux 12345"),
        ] {
            assert_eq!(read(said), meant, "{said}");
        }
    }
}
