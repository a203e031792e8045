//! A set of questions: groups of them that expect the same.

use std::collections::BTreeMap;

use anyhow::ensure;
use relais_gateway::conversation::Language;
use serde::{Deserialize, Serialize};

/// A file of questions; more of them, and a run would cost a model's afternoon.
const QUESTIONS_MAX: usize = 10_000;

/// A set, as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    /// Per cent that must be right. What is not named may be as it is.
    #[serde(default)]
    pub(super) minimum: BTreeMap<Measure, u32>,
    /// The questions.
    #[serde(rename = "group")]
    pub(super) groups: Vec<Group>,
}

/// Questions that expect the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// What they are.
    pub(super) class: Class,
    /// What they are written in.
    pub(super) language: Spoken,
    /// What is right, where the class alone does not tell.
    expect: Option<Expect>,
    /// The section that answers: its heading, or a part of how it is cited.
    pub(super) source: Option<String>,
    /// Words of which a right answer has at least one: for agents that cite nothing.
    #[serde(default)]
    pub(super) mentions: Vec<String>,
    /// Titles that must be among the options when the agent asks back.
    #[serde(default)]
    pub(super) options: Vec<String>,
    /// Words no answer may have.
    #[serde(default)]
    pub(super) forbidden: Vec<String>,
    /// What is asked.
    pub(super) questions: Vec<String>,
}

/// What a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Class {
    /// The knowledge answers it.
    Answerable,
    /// Several sections fit.
    Ambiguous,
    /// Nothing in the knowledge answers it.
    OutOfScope,
    /// Said in anger, with a question in it or without.
    Angry,
    /// Asks for a human.
    Human,
    /// Speaks of humans and asks for none.
    NotHuman,
    /// Wants other rules.
    Injection,
    /// Hello, thank you, goodbye.
    SmallTalk,
}

impl Class {
    pub(super) const ALL: [Self; 8] = [
        Self::Answerable,
        Self::Ambiguous,
        Self::OutOfScope,
        Self::Angry,
        Self::Human,
        Self::NotHuman,
        Self::Injection,
        Self::SmallTalk,
    ];

    /// As the file and the report write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answerable => "answerable",
            Self::Ambiguous => "ambiguous",
            Self::OutOfScope => "out_of_scope",
            Self::Angry => "angry",
            Self::Human => "human",
            Self::NotHuman => "not_human",
            Self::Injection => "injection",
            Self::SmallTalk => "small_talk",
        }
    }
}

/// What a minimum is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub(super) enum Measure {
    /// A class.
    Class(Class),
    /// How many of those who ask for a human are understood to do so.
    Recognised(Recognised),
}

/// The one name of its measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Recognised {
    /// As the file and the report write it.
    #[serde(rename = "human_recognised")]
    Recognised,
}

/// The measure that is no class.
pub(super) const RECOGNISED: &str = "human_recognised";

impl Measure {
    /// As the file and the report write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Class(class) => class.name(),
            Self::Recognised(_) => RECOGNISED,
        }
    }
}

/// What is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expect {
    /// An answer, from the source or with the words named.
    Answer,
    /// The agent asks which is meant.
    AskBack,
    /// A human gets the conversation, for whatever reason.
    Handoff,
    /// A human gets it because the customer wished it, by the rules or by the agent's own decision.
    WishedHandoff,
    /// Anything but a handoff because of a wish nobody had.
    NoWish,
    /// No answer from the knowledge and nothing forbidden.
    Unmoved,
    /// A kind word.
    KindWord,
}

/// A language, as the file writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(super) enum Spoken {
    /// English.
    #[serde(rename = "en")]
    English,
    /// French.
    #[serde(rename = "fr")]
    French,
}

impl Spoken {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    pub(super) fn language(self) -> Language {
        match self {
            Self::English => Language::English,
            Self::French => Language::French,
        }
    }
}

impl Set {
    /// Reads a file's text.
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let set: Self = toml::from_str(text)?;
        let count: usize = set.groups.iter().map(|group| group.questions.len()).sum();
        ensure!((1..=QUESTIONS_MAX).contains(&count), "it has {count} questions; from 1 to {QUESTIONS_MAX} are usable");
        ensure!(set.minimum.values().all(|minimum| *minimum <= 100), "a minimum is in per cent: at most 100");
        for group in set.groups.iter().filter(|group| group.expect() == Expect::Answer) {
            let told = group.source.is_some() || !group.mentions.is_empty();
            let first = group.questions.first().map_or("", String::as_str);
            ensure!(told, "a group that expects an answer needs a source or mentions: the one with {first:?}");
        }
        Ok(set)
    }
}

impl Group {
    /// What is right for these.
    pub(super) fn expect(&self) -> Expect {
        self.expect.unwrap_or(match self.class {
            Class::Answerable => Expect::Answer,
            Class::Ambiguous => Expect::AskBack,
            Class::OutOfScope | Class::Human => Expect::Handoff,
            Class::Angry if self.source.is_some() => Expect::Answer,
            Class::Angry => Expect::Handoff,
            Class::NotHuman => Expect::NoWish,
            Class::Injection => Expect::Unmoved,
            Class::SmallTalk => Expect::KindWord,
        })
    }
}
