//! What kind of thing a question wants to know: how long, how much, or where.
//!
//! `how long` and `how much` are made of words that tell nothing by themselves, and between two sections about one
//! matter they are all that tells which is meant. A kind decides between sections; it makes none an answer.

use crate::conversation::words;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// How long, how many days, by when.
    Duration,
    /// How much, and whether it is free.
    Price,
    /// Where.
    Place,
}

/// Words that say the kind alone, in both languages.
const ALONE: &[(&str, Kind)] = &[
    ("cost", Kind::Price),
    ("costs", Kind::Price),
    ("price", Kind::Price),
    ("prices", Kind::Price),
    ("fee", Kind::Price),
    ("fees", Kind::Price),
    ("free", Kind::Price),
    ("coute", Kind::Price),
    ("coutent", Kind::Price),
    ("cout", Kind::Price),
    ("couts", Kind::Price),
    ("prix", Kind::Price),
    ("tarif", Kind::Price),
    ("tarifs", Kind::Price),
    ("frais", Kind::Price),
    ("gratuit", Kind::Price),
    ("gratuite", Kind::Price),
    ("gratuits", Kind::Price),
    ("gratuites", Kind::Price),
    ("payant", Kind::Price),
    ("payante", Kind::Price),
    ("payants", Kind::Price),
    ("payantes", Kind::Price),
    ("duration", Kind::Duration),
    ("delai", Kind::Duration),
    ("delais", Kind::Duration),
    ("duree", Kind::Duration),
    ("durees", Kind::Duration),
    ("when", Kind::Duration),
    ("quand", Kind::Duration),
    ("where", Kind::Place),
];
/// Words that say it together, one after the other.
const TOGETHER: &[(&[&str], Kind)] = &[
    (&["how", "long"], Kind::Duration),
    (&["how", "many", "days"], Kind::Duration),
    (&["how", "much", "time"], Kind::Duration),
    (&["how", "fast"], Kind::Duration),
    (&["combien", "de", "temps"], Kind::Duration),
    (&["combien", "de", "jours"], Kind::Duration),
    (&["how", "much"], Kind::Price),
    (&["combien"], Kind::Price),
    (&["ou", "est"], Kind::Place),
    (&["ou", "se", "trouve"], Kind::Place),
    (&["ou", "sont"], Kind::Place),
];

/// The kind of a question or a heading, if it says one.
pub(super) fn of(text: &str) -> Option<Kind> {
    let words: Vec<String> = words(text).collect();
    let together = TOGETHER.iter().find(|(phrase, _)| {
        words.windows(phrase.len()).any(|some| some.iter().zip(*phrase).all(|(one, two)| one == two))
    });
    together.map(|(_, kind)| *kind).or_else(|| words.iter().find_map(|word| alone(word)))
}

/// Whether a word says nothing but a kind.
pub(super) fn alone(word: &str) -> Option<Kind> {
    ALONE.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_the_words_that_ask() {
        let cases = [
            ("How long does delivery take?", Some(Kind::Duration)),
            ("how much time does it take", Some(Kind::Duration)),
            ("How much is shipping?", Some(Kind::Price)),
            ("Combien de temps prend la livraison ?", Some(Kind::Duration)),
            ("Combien coûte la livraison ?", Some(Kind::Price)),
            ("c'est payant ?", Some(Kind::Price)),
            ("Où est mon colis ?", Some(Kind::Place)),
            ("Can I pay by card?", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
