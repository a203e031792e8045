//! Hello, thank you and goodbye: answered in kind, since nobody needs a human for them.

use crate::conversation::{Language, words};

const GREETINGS: &[&str] = &[
    "hello",
    "hi",
    "hey",
    "hiya",
    "good",
    "morning",
    "afternoon",
    "evening",
    "day",
    "there",
    "everyone",
    "all",
    "dear",
    "how",
    "are",
    "you",
    "bonjour",
    "bonsoir",
    "salut",
    "coucou",
    "allo",
    "comment",
    "allez",
    "vous",
    "ca",
    "va",
    "tu",
    "vas",
    "a",
    "tous",
    "toutes",
    "madame",
    "monsieur",
    "sir",
    "madam",
];
const THANKS: &[&str] = &[
    "thanks",
    "thank",
    "thx",
    "cheers",
    "great",
    "perfect",
    "awesome",
    "cool",
    "nice",
    "ok",
    "okay",
    "got",
    "it",
    "very",
    "much",
    "so",
    "lot",
    "for",
    "your",
    "help",
    "that",
    "s",
    "is",
    "lovely",
    "excellent",
    "merci",
    "beaucoup",
    "parfait",
    "super",
    "genial",
    "bien",
    "tres",
    "d",
    "accord",
    "infiniment",
    "pour",
    "votre",
    "aide",
    "c",
    "est",
    "entendu",
    "top",
    "mille",
    "fois",
];
const GOODBYES: &[&str] = &[
    "bye", "goodbye", "see", "later", "have", "nice", "au", "revoir", "bonne", "journee", "soiree", "bientot",
    "weekend", "week", "end", "night", "nuit", "too", "aussi", "et",
];
/// Each of these alone makes the message what it is; the others only go along.
const GREETS: &[&str] = &[
    "hello", "hi", "hey", "hiya", "good", "morning", "bonjour", "bonsoir", "salut", "coucou", "allo", "how", "comment",
    "va",
];
const THANKING: &[&str] = &[
    "thanks",
    "thank",
    "thx",
    "cheers",
    "great",
    "perfect",
    "awesome",
    "cool",
    "ok",
    "okay",
    "got",
    "lovely",
    "excellent",
    "merci",
    "parfait",
    "super",
    "genial",
    "accord",
    "entendu",
    "top",
    "bien",
];
const PARTING: &[&str] =
    &["bye", "goodbye", "later", "revoir", "journee", "soiree", "bientot", "weekend", "night", "nuit"];
const WORDS_MAX: usize = 10;

/// What to say to a message that is nothing but small talk.
pub(super) fn reply(text: &str, language: Language) -> Option<&'static str> {
    let words: Vec<String> = words(text).collect();
    let french = language == Language::French;
    if words.is_empty() {
        // A thumb up. A lone question mark is a question.
        let is_sign = !text.trim().is_empty() && !text.contains('?');
        return is_sign.then_some(if french { "Avec plaisir !" } else { "With pleasure!" });
    }
    let small = |word: &String| [GREETINGS, THANKS, GOODBYES].iter().any(|kind| kind.contains(&word.as_str()));
    if words.len() > WORDS_MAX || !words.iter().all(small) {
        return None;
    }
    let has = |kind: &[&str]| words.iter().any(|word| kind.contains(&word.as_str()));
    match (has(PARTING), has(THANKING), has(GREETS)) {
        (true, ..) if french => Some("Au revoir, et merci pour votre message !"),
        (true, ..) => Some("Goodbye, and thank you for your message!"),
        (_, true, _) if french => Some("Avec plaisir ! N'hésitez pas si vous avez une autre question."),
        (_, true, _) => Some("You're welcome! Just write if there is anything else."),
        (_, _, true) if french => Some("Bonjour ! Comment puis-je vous aider ?"),
        (_, _, true) => Some("Hello! How can I help you?"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::language;

    #[test]
    fn small_talk_is_answered_in_kind_and_a_question_is_not_small_talk() {
        let cases = [
            ("Hello!", Some("Hello!")),
            ("hi there", Some("Hello!")),
            ("Good morning", Some("Hello!")),
            ("Bonjour", Some("Bonjour")),
            ("Salut, ça va ?", Some("Bonjour")),
            ("thanks a lot", Some("You're welcome")),
            ("Merci beaucoup !", Some("Avec plaisir")),
            ("ok", Some("You're welcome")),
            ("d'accord, merci", Some("Avec plaisir")),
            ("bye", Some("Goodbye")),
            ("Merci, bonne journée", Some("Au revoir")),
            ("👍", Some("With pleasure")),
            ("?", None),
            ("", None),
            ("Hello, where is my order?", None),
            ("Bonjour, où est ma commande ?", None),
            ("help", None),
            ("is it for you", None),
        ];
        for (text, expected) in cases {
            let reply = reply(text, language(text));
            let fits = match (reply, expected) {
                (Some(reply), Some(expected)) => reply.starts_with(expected),
                (reply, expected) => reply == expected,
            };
            assert!(fits, "{text:?} → {reply:?}");
        }
    }
}
