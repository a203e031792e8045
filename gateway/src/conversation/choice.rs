//! A question with options: how it is written, recognised and answered.
//!
//! It is a plain text of a fixed form (a sentence of ours, then numbered lines), so it needs no place of its own in
//! the inbox or the transcript: whoever reads the text back, also after a restart, finds the options in it. Where a
//! channel has buttons the same text is taken apart and sent as those; everywhere else the lines are the options.
//!
//! Answers come as a title, a value or a number, depending on the channel, or in the customer's own words.

use super::{Language, words};

/// Options of one question: what fits on a screen, and on the smallest of the channels' lists.
pub const OPTIONS_MAX: usize = 5;

const LEAD_ENGLISH: &str = "Which of these do you mean? Answer with its number, or ask in other words.";
const LEAD_FRENCH: &str = "De quoi s'agit-il ? Répondez par le numéro, ou posez la question autrement.";
/// The longest answer that can be nothing but a pick.
const PICK_WORDS_MAX: usize = 6;
/// Words around a number or a place.
const AROUND: &[&str] = &[
    "the", "one", "number", "no", "n", "nr", "option", "please", "answer", "le", "la", "l", "numero", "svp", "reponse",
    "choix", "c", "est", "it", "s", "i", "mean", "merci", "thanks",
];
/// Places, as they are said.
const PLACES: [&[&str]; OPTIONS_MAX] = [
    &["1", "first", "1st", "premier", "premiere", "1er", "1ere"],
    &["2", "second", "2nd", "deuxieme", "seconde", "2e", "2eme"],
    &["3", "third", "3rd", "troisieme", "3e", "3eme"],
    &["4", "fourth", "4th", "quatrieme", "4e", "4eme"],
    &["5", "fifth", "5th", "cinquieme", "5e", "5eme"],
];
const LAST: &[&str] = &["last", "dernier", "derniere"];
/// None of them, in so many words.
const NONE: &[&[&str]] = &[
    &["none"],
    &["none", "of", "these"],
    &["none", "of", "them"],
    &["none", "of", "those"],
    &["neither"],
    &["something", "else"],
    &["aucun"],
    &["aucune"],
    &["aucun", "des", "deux"],
    &["aucune", "des", "deux"],
    &["aucune", "de", "ces", "questions"],
    &["autre", "chose"],
    &["rien", "de", "tout", "ca"],
];

/// A question with options, as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The question.
    pub lead: &'a str,
    /// Titles, in the order of their numbers, which begin at 1.
    pub options: Vec<&'a str>,
}

/// What an answer picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picked {
    /// The option at this place, from 0.
    Option(usize),
    /// None of them, said expressly.
    None,
    /// It is not a pick: another question, or words that have to be looked up.
    Other,
}

/// The text of a question with these options, of which the first [`OPTIONS_MAX`] count.
pub fn write<'a>(language: Language, options: impl IntoIterator<Item = &'a str>) -> String {
    let lead = match language {
        Language::English => LEAD_ENGLISH,
        Language::French => LEAD_FRENCH,
    };
    lines(lead, options)
}

/// A lead and its numbered options: the form that [`Choice::read`] reads.
pub fn lines<'a>(lead: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("{lead}\n");
    for (at, option) in options.into_iter().take(OPTIONS_MAX).enumerate() {
        let line = option.split_whitespace().collect::<Vec<_>>().join(" ");
        text.extend(["\n", &(at + 1).to_string(), ". ", &line]);
    }
    text
}

impl<'a> Choice<'a> {
    /// The choice in a text that is nothing else: one of our own leads, and lines numbered from 1.
    pub fn read(text: &'a str) -> Option<Self> {
        let (lead, rest) = text.trim().split_once('\n')?;
        let lead = lead.trim();
        if ![LEAD_ENGLISH, LEAD_FRENCH].contains(&lead) {
            return None;
        }
        let mut options = Vec::new();
        for line in rest.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let title = line.strip_prefix(&format!("{}. ", options.len() + 1))?.trim();
            options.push(title);
        }
        let usable = (2..=OPTIONS_MAX).contains(&options.len()) && options.iter().all(|option| !option.is_empty());
        usable.then_some(Self { lead, options })
    }

    /// What an answer picks: by number or place, or by an option's title.
    pub fn picked(&self, answer: &str) -> Picked {
        let said: Vec<String> = words(answer).collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        let titled = |option: &&str| words(option).eq(said.iter().copied());
        if let Some(at) = self.options.iter().position(titled) {
            return Picked::Option(at);
        }
        if NONE.contains(&said.as_slice()) {
            return Picked::None;
        }
        if said.len() > PICK_WORDS_MAX {
            return Picked::Other;
        }
        let mut telling = said.iter().filter(|word| !AROUND.contains(word));
        match (telling.next(), telling.next()) {
            (Some(word), None) => self.place(word).map_or(Picked::Other, Picked::Option),
            _ => Picked::Other,
        }
    }

    fn place(&self, word: &str) -> Option<usize> {
        let place = PLACES.iter().position(|names| names.contains(&word));
        let last = LAST.contains(&word).then(|| self.options.len().saturating_sub(1));
        place.or(last).filter(|at| *at < self.options.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_was_written() {
        for language in [Language::English, Language::French] {
            let text = write(language, ["What does it\ncost?", "How long?", "3. Where?"]);
            let choice = Choice::read(&text).unwrap();
            assert_eq!(choice.options, ["What does it cost?", "How long?", "3. Where?"]);
            assert_eq!(lines(choice.lead, choice.options.iter().copied()), text);
        }
        let many = write(Language::English, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(Choice::read(&many).unwrap().options.len(), OPTIONS_MAX);
        let one = write(Language::English, ["a"]);
        let more = format!("{}\nAnd a line more.", write(Language::English, ["a", "b"]));
        for text in ["", "Which?\n1. a\n2. b", &one, &more, LEAD_FRENCH] {
            assert_eq!(Choice::read(text), None, "{text}");
        }
    }

    #[test]
    fn an_option_is_picked_by_number_place_or_title() {
        let text = write(Language::English, ["What does delivery cost?", "Où est mon colis ?", "Opening hours"]);
        let choice = Choice::read(&text).unwrap();
        let cases = [
            ("1", Picked::Option(0)),
            ("2.", Picked::Option(1)),
            ("n°3", Picked::Option(2)),
            ("number 2 please", Picked::Option(1)),
            ("the first one", Picked::Option(0)),
            ("la deuxième", Picked::Option(1)),
            ("the last one", Picked::Option(2)),
            ("OU EST MON COLIS", Picked::Option(1)),
            ("what does delivery cost", Picked::Option(0)),
            ("none of these", Picked::None),
            ("Aucune", Picked::None),
            ("4", Picked::Other),
            ("0", Picked::Other),
            ("2 or 3", Picked::Other),
            ("I ordered 2 pairs of shoes and one is missing", Picked::Other),
            ("the price", Picked::Other),
            ("", Picked::Other),
        ];
        for (answer, expected) in cases {
            assert_eq!(choice.picked(answer), expected, "{answer:?}");
        }
    }
}
