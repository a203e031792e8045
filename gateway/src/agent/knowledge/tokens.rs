//! Words that tell something, stemmed: what is compared when sections are searched.
//!
//! bm25's own tokeniser drops its language's stop words and stems; before it, accents and apostrophes are undone
//! (`l’été` would be one word to it) and words are dropped that fill questions and tell nothing about their matter.

use bm25::{DefaultTokenizer, Tokenizer};

use crate::conversation::{Language, words};

/// Without accents, before stemming. Not in the usual stop lists, because elsewhere they are worth finding.
const FILLERS: &[&str] = &[
    // English
    "hello",
    "hi",
    "hey",
    "please",
    "pls",
    "thanks",
    "thank",
    "want",
    "wanted",
    "need",
    "needed",
    "like",
    "get",
    "got",
    "know",
    "tell",
    "help",
    "would",
    "could",
    "should",
    "may",
    "might",
    "must",
    "can",
    "cant",
    "cannot",
    "dont",
    "doesnt",
    "didnt",
    "isnt",
    "wont",
    "id",
    "im",
    "ive",
    "possible",
    "question",
    "long",
    "much",
    "many",
    "take",
    "takes",
    "use",
    "using",
    "make",
    "go",
    "going",
    "let",
    "just",
    "also",
    "still",
    "really",
    "anyone",
    "someone",
    "something",
    "anything",
    "thing",
    "things",
    "way",
    "ask",
    "asking",
    "say",
    "said",
    "find",
    "give",
    "see",
    "guys",
    "good",
    "morning",
    "afternoon",
    "evening",
    "wondering",
    "happen",
    "happens",
    "exactly",
    "actually",
    "currently",
    "available",
    "offer",
    "able",
    "kind",
    "sort",
    "however",
    "maybe",
    "time",
    "usually",
    "ok",
    "okay",
    "yes",
    "sir",
    "madam",
    "team",
    "received",
    "receive",
    "arrived",
    "yet",
    "etre",
    "recu",
    "recevoir",
    "forgot",
    "forgotten",
    "oublie",
    "oublier",
    "larger",
    "bigger",
    "smaller",
    "whats",
    "wheres",
    "hows",
    "until",
    "arrive",
    "arrives",
    "without",
    "new",
    "looking",
    "info",
    "infos",
    "information",
    "details",
    "today",
    "tomorrow",
    "yesterday",
    "damn",
    "hell",
    "bloody",
    "fucking",
    // French
    "bonjour",
    "bonsoir",
    "salut",
    "merci",
    "svp",
    "stp",
    "plait",
    "veux",
    "veut",
    "voudrais",
    "voudrait",
    "aimerais",
    "souhaite",
    "souhaiterais",
    "peux",
    "peut",
    "puis",
    "pouvez",
    "pourriez",
    "pourrais",
    "savoir",
    "sais",
    "dire",
    "dites",
    "faire",
    "fait",
    "faut",
    "faites",
    "besoin",
    "aide",
    "aider",
    "comment",
    "combien",
    "quand",
    "pourquoi",
    "quel",
    "quelle",
    "quels",
    "quelles",
    "est",
    "cela",
    "ca",
    "y",
    "avoir",
    "aller",
    "va",
    "vais",
    "mettre",
    "met",
    "possible",
    "prend",
    "prendre",
    "temps",
    "chez",
    "quoi",
    "ou",
    "si",
    "tout",
    "tous",
    "toute",
    "bien",
    "tres",
    "alors",
    "donc",
    "encore",
    "aussi",
    "juste",
    "vraiment",
    "proposez",
    "offrez",
    "existe",
    "trouver",
    "donner",
    "trouve",
    "oui",
    "non",
    "deja",
    "lequel",
    "laquelle",
    "monsieur",
    "madame",
    "moment",
    "actuellement",
    "a",
    "heure",
    "heures",
    "sans",
    "sous",
    "nouveau",
    "nouvelle",
    "cherche",
    "chercher",
    "renseignement",
    "renseignements",
    "serai",
    "sera",
    "dois",
    "doit",
    "demain",
    "hier",
    "aujourd",
    "hui",
    "toujours",
    "putain",
    "merde",
    "bordel",
];

/// One language's words, all of them: what sections are ranked by. Fillers too, because between two sections that know
/// the matter `how long` and `how much` tell which is meant.
pub(super) struct Tokens {
    stems: DefaultTokenizer,
}

impl Tokens {
    /// The words of this language.
    pub(super) fn new(language: Language) -> Self {
        let language = match language {
            Language::English => bm25::Language::English,
            Language::French => bm25::Language::French,
        };
        Self { stems: DefaultTokenizer::new(language) }
    }

    /// Without fillers: what a question is about.
    pub(super) fn telling(&self, text: &str) -> Vec<String> {
        self.stems(words(text).filter(|word| !FILLERS.contains(&word.as_str())))
    }

    fn stems(&self, words: impl Iterator<Item = String>) -> Vec<String> {
        self.stems.tokenize(&words.collect::<Vec<_>>().join(" "))
    }
}

impl Tokenizer for Tokens {
    fn tokenize(&self, text: &str) -> Vec<String> {
        self.stems(words(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_meet_and_fillers_go() {
        let english = Tokens::new(Language::English);
        assert_eq!(english.telling("Hello, could you please tell me about refunds?"), english.telling("Refund"));
        assert_eq!(english.tokenize("how long does it take"), ["long", "take"]);
        assert_eq!(english.telling("cancelling subscriptions"), english.telling("cancel my subscription"));
        let french = Tokens::new(Language::French);
        assert_eq!(
            french.telling("J’aimerais savoir les délais de l'expédition"),
            french.telling("délai d’expédition")
        );
        assert_eq!(french.telling("remboursements"), french.telling("un remboursement, s'il vous plaît"));
    }
}
