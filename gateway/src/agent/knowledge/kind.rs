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
    ("wheres", Kind::Place),
    ("whereabouts", Kind::Place),
    ("offert", Kind::Price),
    ("offerte", Kind::Price),
    ("gratis", Kind::Price),
];
/// Words that say it together, one after the other; those with the most words first.
const TOGETHER: &[(&str, Kind)] = &[
    ("a partir de quel montant", Kind::Price),
    ("a partir de combien", Kind::Price),
    ("from what amount", Kind::Price),
    ("from which amount", Kind::Price),
    ("free of charge", Kind::Price),
    ("free of charges", Kind::Price),
    ("on the house", Kind::Price),
    ("have to pay for", Kind::Price),
    ("charge for", Kind::Price),
    ("how many days", Kind::Duration),
    ("how many hours", Kind::Duration),
    ("how many weeks", Kind::Duration),
    ("how many years", Kind::Duration),
    ("how much time", Kind::Duration),
    ("how much longer", Kind::Duration),
    ("how long", Kind::Duration),
    ("how fast", Kind::Duration),
    ("how soon", Kind::Duration),
    ("how quickly", Kind::Duration),
    ("by when", Kind::Duration),
    ("at what point", Kind::Duration),
    ("at which point", Kind::Duration),
    ("next day", Kind::Duration),
    ("same day", Kind::Duration),
    ("combien de temps", Kind::Duration),
    ("combien de jours", Kind::Duration),
    ("combien de semaines", Kind::Duration),
    ("combien d heures", Kind::Duration),
    ("combien d annees", Kind::Duration),
    ("combien d ans", Kind::Duration),
    ("a quel moment", Kind::Duration),
    ("jusqu a quand", Kind::Duration),
    ("depuis quand", Kind::Duration),
    ("not arrived", Kind::Place),
    ("nt arrived", Kind::Place),
    ("never arrived", Kind::Place),
    ("not received", Kind::Place),
    ("never received", Kind::Place),
    ("hasnt arrived", Kind::Place),
    ("havent arrived", Kind::Place),
    ("havent received", Kind::Place),
    ("havent got", Kind::Place),
    ("didnt arrive", Kind::Place),
    ("didnt receive", Kind::Place),
    ("nothing has arrived", Kind::Place),
    ("nothing arrived", Kind::Place),
    ("still waiting", Kind::Place),
    ("been waiting", Kind::Place),
    ("never came", Kind::Place),
    ("not turned up", Kind::Place),
    ("nothing has turned up", Kind::Place),
    ("didnt turn up", Kind::Place),
    ("rien recu", Kind::Place),
    ("pas recu", Kind::Place),
    ("jamais recu", Kind::Place),
    ("toujours rien", Kind::Place),
    ("toujours pas la", Kind::Place),
    ("pas arrive", Kind::Place),
    ("jamais arrive", Kind::Place),
    ("pas encore arrive", Kind::Place),
    ("pas encore recu", Kind::Place),
    ("ou en est", Kind::Place),
    ("ou ca en est", Kind::Place),
    ("ou en sont", Kind::Place),
    ("ou est", Kind::Place),
    ("ou se trouve", Kind::Place),
    ("ou sont", Kind::Place),
    ("est ou", Kind::Place),
    ("sont ou", Kind::Place),
    ("trouve ou", Kind::Place),
    ("situe ou", Kind::Place),
    ("attends toujours", Kind::Place),
    ("attends encore", Kind::Place),
    ("how much", Kind::Price),
    ("combien", Kind::Price),
];

/// The kind of a question or a heading, if it says one, and which of its words only say that.
pub(super) fn read(words: &[String]) -> (Option<Kind>, Vec<bool>) {
    let mut says: Vec<bool> = words.iter().map(|word| alone(word).is_some()).collect();
    let mut kind = None;
    for (phrase, is) in TOGETHER {
        let count = phrase.split(' ').count();
        let found = words.windows(count).position(|some| some.iter().map(String::as_str).eq(phrase.split(' ')));
        if let Some(at) = found {
            kind = kind.or(Some(*is));
            says.iter_mut().skip(at).take(count).for_each(|says| *says = true);
        }
    }
    (kind.or_else(|| words.iter().find_map(|word| alone(word))), says)
}

/// Units of what a body tells.
const UNITS: &[(&str, Kind)] = &[
    ("day", Kind::Duration),
    ("days", Kind::Duration),
    ("hour", Kind::Duration),
    ("hours", Kind::Duration),
    ("week", Kind::Duration),
    ("weeks", Kind::Duration),
    ("month", Kind::Duration),
    ("months", Kind::Duration),
    ("year", Kind::Duration),
    ("years", Kind::Duration),
    ("when", Kind::Duration),
    ("until", Kind::Duration),
    ("jour", Kind::Duration),
    ("jours", Kind::Duration),
    ("h", Kind::Duration),
    ("heure", Kind::Duration),
    ("heures", Kind::Duration),
    ("semaine", Kind::Duration),
    ("semaines", Kind::Duration),
    ("mois", Kind::Duration),
    ("an", Kind::Duration),
    ("ans", Kind::Duration),
    ("quand", Kind::Duration),
    ("des", Kind::Duration),
    ("immediatement", Kind::Duration),
    ("once", Kind::Duration),
    ("euro", Kind::Price),
    ("euros", Kind::Price),
    ("eur", Kind::Price),
    ("percent", Kind::Price),
    ("free", Kind::Price),
    ("gratuit", Kind::Price),
    ("gratuits", Kind::Price),
    ("gratuite", Kind::Price),
    ("gratuites", Kind::Price),
    ("frais", Kind::Price),
];

/// What kinds of thing a section's body tells.
pub(super) fn told(body: &str) -> Vec<Kind> {
    let mut told: Vec<Kind> =
        words(body).filter_map(|word| UNITS.iter().find(|(unit, _)| *unit == word)).map(|(_, kind)| *kind).collect();
    if body.contains(['€', '$', '£']) {
        told.push(Kind::Price);
    }
    // A clock's time.
    if body.as_bytes().windows(3).any(|three| matches!(three, [a, b':', c] if a.is_ascii_digit() && c.is_ascii_digit()))
    {
        told.push(Kind::Duration);
    }
    told
}

/// Whether a word says nothing but a kind.
fn alone(word: &str) -> Option<Kind> {
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
            assert_eq!(read(&words(text).collect::<Vec<_>>()).0, expected, "{text}");
        }
    }
}
