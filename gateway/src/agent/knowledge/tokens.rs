//! Words and their stems: what is compared when sections are searched.
//!
//! The stems and the stop words are bm25's own, for one word at a time, since phrases are found between the two: a
//! phrase may be made of stop words (`not at home`). What is then searched is stems already, so the search itself
//! only parts them.

use bm25::{DefaultTokenizer, Tokenizer};

use crate::conversation::Language;

/// One language's stems and stop words.
pub(super) struct Stems {
    stems: DefaultTokenizer,
    without_stops: DefaultTokenizer,
}

impl Stems {
    /// Of this language.
    pub(super) fn new(language: Language) -> Self {
        let language = || match language {
            Language::English => bm25::Language::English,
            Language::French => bm25::Language::French,
        };
        Self {
            stems: DefaultTokenizer::builder().language_mode(language()).stopwords(false).build(),
            without_stops: DefaultTokenizer::new(language()),
        }
    }

    /// The stem of a word in lower case and without accents.
    pub(super) fn stem(&self, word: &str) -> String {
        self.stems.tokenize(word).concat()
    }

    /// Whether a word is one that every text has.
    pub(super) fn is_stop(&self, word: &str) -> bool {
        self.without_stops.tokenize(word).is_empty()
    }
}

/// Parts what is stems already.
pub(super) struct Parted;

impl Tokenizer for Parted {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_meet() {
        let english = Stems::new(Language::English);
        assert_eq!(english.stem("refunds"), english.stem("refund"));
        assert_eq!(english.stem("cancelling"), english.stem("cancel"));
        assert!(english.is_stop("the") && !english.is_stop("refund"));
        let french = Stems::new(Language::French);
        assert_eq!(french.stem("remboursements"), french.stem("remboursement"));
        assert!(french.is_stop("les") && !french.is_stop("colis"));
    }
}
