//! The words that the Chatwoot edge, the agent, the handoff rules and the relay share about a conversation.
//!
//! Plain values below all of them, so that none has to import another: who the customer is, what the conversation
//! runs over, who said what and in which of our two languages, and what an agent does beside speaking. Chatwoot's own words stay in `chatwoot/`.

pub mod choice;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the conversation runs over. Decides how long a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Medium {
    /// The chat window of a website.
    Web,
    /// WhatsApp, by whichever provider except Twilio.
    Whatsapp,
    /// Twilio: SMS or WhatsApp, which a webhook does not tell apart.
    Twilio,
    /// Facebook Messenger.
    Messenger,
    /// Instagram direct messages.
    Instagram,
    /// Telegram.
    Telegram,
    /// LINE.
    Line,
    /// SMS, by a provider other than Twilio.
    Sms,
    /// TikTok direct messages.
    Tiktok,
    /// E-mail.
    Email,
    /// The operator's own client.
    Api,
    /// Something newer than this list.
    #[default]
    Other,
}

/// The customer, as the helpdesk knows them. Every text is bounded and on one line, and still the customer's own
/// words: data, never instructions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// The helpdesk's number for them.
    pub id: Option<u64>,
    /// Name.
    pub name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// The operator's own fields, those that are text, numbers or yes/no.
    pub custom: BTreeMap<String, String>,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The customer.
    Customer,
    /// The AI agent.
    Agent,
    /// A person of the operator's team.
    Human,
}

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utterance {
    /// By whom.
    pub from: Speaker,
    /// What.
    pub text: String,
}

/// What an agent does to a conversation beside what it says. Each may be done twice with the effect of once, and is
/// kept in the inbox as JSON until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Adds a label to those it has.
    AddLabel {
        /// Small letters, digits, `-` and `_`.
        label: String,
    },
    /// Says how soon humans should look.
    SetPriority {
        /// How soon.
        priority: Priority,
    },
    /// Says so, unless the conversation has a higher priority already.
    RaisePriority {
        /// How soon, at least.
        priority: Priority,
    },
    /// Sets one of the operator's own fields of the conversation; the others stay.
    SetAttribute {
        /// The field: small letters, digits and `_`.
        name: String,
        /// Text, a number or yes/no.
        value: serde_json::Value,
    },
    /// Gives it to a team, for a handoff.
    AssignTeam {
        /// The helpdesk's number for it, from the configuration.
        team_id: u64,
    },
    /// Gives it to a human, for a handoff.
    AssignHuman {
        /// The helpdesk's number for them, from the configuration.
        human_id: u64,
    },
    /// Ends it, unless the customer wrote meanwhile.
    Resolve,
}

impl Action {
    /// The metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::AddLabel { .. } => "add_label",
            Self::SetPriority { .. } => "set_priority",
            Self::RaisePriority { .. } => "raise_priority",
            Self::SetAttribute { .. } => "set_attribute",
            Self::AssignTeam { .. } => "assign_team",
            Self::AssignHuman { .. } => "assign_human",
            Self::Resolve => "resolve",
        }
    }
}

/// How soon humans should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Priority {
    /// Last.
    Low,
    /// In turn.
    Medium,
    /// Soon.
    High,
    /// Now.
    Urgent,
}

impl Priority {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Urgent];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }

    /// The reverse of [`Priority::as_str`], in any case.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(word.trim()))
    }
}

/// The languages we speak ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Language {
    /// English, and whatever we do not know.
    #[default]
    English,
    /// French.
    French,
}

/// Words frequent in one of the two languages and absent from the other, without accents.
const FRENCH_WORDS: &[&str] = &[
    "alors",
    "aller",
    "au",
    "aussi",
    "aux",
    "avec",
    "avez",
    "avoir",
    "besoin",
    "bien",
    "bonjour",
    "bonsoir",
    "ca",
    "ce",
    "cela",
    "ces",
    "cette",
    "combien",
    "comment",
    "commande",
    "dans",
    "de",
    "depuis",
    "des",
    "du",
    "elle",
    "en",
    "est",
    "et",
    "etait",
    "faire",
    "fait",
    "faut",
    "humain",
    "il",
    "ils",
    "j",
    "je",
    "jour",
    "jours",
    "l",
    "la",
    "le",
    "les",
    "leur",
    "livraison",
    "lui",
    "ma",
    "mais",
    "merci",
    "mes",
    "moi",
    "mon",
    "ne",
    "nous",
    "ou",
    "oui",
    "par",
    "parler",
    "pas",
    "peut",
    "peux",
    "pour",
    "pourquoi",
    "pouvez",
    "puis",
    "quand",
    "que",
    "quel",
    "quelle",
    "quelles",
    "quels",
    "quelqu",
    "qui",
    "quoi",
    "salut",
    "sans",
    "ses",
    "si",
    "sont",
    "suis",
    "sur",
    "svp",
    "ta",
    "tes",
    "toi",
    "ton",
    "toujours",
    "tout",
    "tres",
    "tu",
    "un",
    "une",
    "va",
    "veux",
    "voudrais",
    "vos",
    "votre",
    "vous",
    "y",
];
const ENGLISH_WORDS: &[&str] = &[
    "about", "after", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "cannot", "could",
    "did", "do", "does", "for", "from", "get", "had", "has", "have", "hello", "help", "her", "his", "how", "i", "if",
    "in", "is", "it", "just", "like", "my", "need", "no", "not", "of", "or", "order", "our", "please", "she", "should",
    "some", "thank", "thanks", "that", "the", "their", "there", "they", "this", "to", "want", "was", "we", "were",
    "what", "when", "where", "which", "who", "why", "will", "with", "would", "yes", "you", "your",
];
/// Characters looked at: enough to tell, whatever the length of the text.
const LANGUAGE_CHARS_MAX: usize = 4_000;

/// Which of our two languages a text is in, by counting small words and accents. English when nothing tells.
pub fn language(text: &str) -> Language {
    let text: String = text.chars().take(LANGUAGE_CHARS_MAX).collect();
    let accents = text.chars().filter(|c| "éèêëàâçùûîïôœÉÈÊÀÇ".contains(*c)).count();
    let (mut french, mut english) = (accents, 0);
    for word in words(&text) {
        if FRENCH_WORDS.contains(&word.as_str()) {
            french += 1;
        } else if ENGLISH_WORDS.contains(&word.as_str()) {
            english += 1;
        }
    }
    if french > english { Language::French } else { Language::English }
}

/// A text's words, lower case, without accents: `J'aimerais l’été` → `j aimerais l ete`; `don't` → `dont`.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let text = text.to_lowercase().replace("n't", "nt").replace("n’t", "nt");
    let folded: String = text.chars().flat_map(fold).collect();
    let words: Vec<String> = folded.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
    words.into_iter().filter(|word| !word.is_empty())
}

fn fold(c: char) -> impl Iterator<Item = char> {
    let (first, second) = match c {
        'à' | 'â' | 'ä' | 'á' => ('a', None),
        'é' | 'è' | 'ê' | 'ë' => ('e', None),
        'î' | 'ï' | 'í' => ('i', None),
        'ô' | 'ö' | 'ó' => ('o', None),
        'ù' | 'û' | 'ü' | 'ú' => ('u', None),
        'ÿ' => ('y', None),
        'ç' => ('c', None),
        'ñ' => ('n', None),
        'œ' => ('o', Some('e')),
        'æ' => ('a', Some('e')),
        // A combining accent, as some keyboards send it, is dropped: its letter came before.
        '\u{300}'..='\u{36f}' => return None.into_iter().chain(None),
        other => (other, None),
    };
    Some(first).into_iter().chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_told_from_few_words() {
        let cases = [
            ("Bonjour", Language::French),
            ("hello", Language::English),
            ("Où est ma commande ?", Language::French),
            ("Where is my order?", Language::English),
            ("je veux parler a un humain", Language::French),
            ("Quels sont vos délais de livraison", Language::French),
            ("Can I pay with PayPal?", Language::English),
            ("12345", Language::English),
            ("", Language::English),
        ];
        for (text, expected) in cases {
            assert_eq!(language(text), expected, "{text}");
        }
    }

    #[test]
    fn no_word_counts_for_both() {
        assert!(FRENCH_WORDS.iter().all(|word| !ENGLISH_WORDS.contains(word)));
    }

    #[test]
    fn words_lose_case_accents_and_punctuation() {
        let found: Vec<_> = words("J'aimerais l’ÉTÉ, don't! Cœur e\u{301}tude").collect();
        assert_eq!(found, ["j", "aimerais", "l", "ete", "dont", "coeur", "etude"]);
    }
}
