//! The scored report: by class and language, every miss, tokens, and whether the minimum was reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use relais_gateway::agent::TokenUse;
use serde::Serialize;

use super::judge::Outcome;
use super::set::{Class, Group, Measure, RECOGNISED, Spoken};

/// What an evaluation came to.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    agent: String,
    /// By class, then language.
    scores: BTreeMap<&'static str, BTreeMap<&'static str, Score>>,
    minimum: BTreeMap<&'static str, u32>,
    failures: Vec<String>,
    misses: Vec<Miss>,
    tokens: Option<Tokens>,
}

/// Right ones of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Score {
    pub(super) right: u32,
    pub(super) all: u32,
}

#[derive(Debug, Serialize)]
struct Miss {
    class: Class,
    language: Spoken,
    question: String,
    /// The source wanted, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<String>,
    got: String,
}

/// Model tokens of all questions together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Tokens {
    input: u64,
    cached: u64,
    output: u64,
    /// Some of it is our own count, because the upstream told none.
    estimated: bool,
}

impl Score {
    fn add(self, other: Self) -> Self {
        Self { right: self.right + other.right, all: self.all + other.all }
    }

    /// Per cent in tenths, rounded down: 899 of 1000 is never shown as 90.
    fn permille(self) -> u32 {
        (self.right * 1_000).checked_div(self.all).unwrap_or(1_000)
    }

    fn percent(self) -> String {
        format!("{}.{} %", self.permille() / 10, self.permille() % 10)
    }
}

impl Report {
    pub(super) fn new(agent: String, minimum: BTreeMap<Measure, u32>) -> Self {
        let minimum = minimum.into_iter().map(|(measure, percent)| (measure.name(), percent)).collect();
        Self { agent, scores: BTreeMap::new(), minimum, failures: Vec::new(), misses: Vec::new(), tokens: None }
    }

    /// Counts one question.
    pub(super) fn add(&mut self, group: &Group, question: &str, outcome: &Outcome, tokens: Option<TokenUse>) {
        let mut right = outcome.is_right(group);
        self.count(group.class.name(), group, right);
        if group.class == Class::Human {
            self.count(RECOGNISED, group, outcome.is_wished());
            // Listed too: a human has it, and nobody knew why.
            right &= outcome.is_wished();
        }
        if !right {
            self.misses.push(Miss {
                class: group.class,
                language: group.language,
                question: question.to_owned(),
                wanted: group.source.clone(),
                got: outcome.told(),
            });
        }
        if let Some(used) = tokens {
            let sum = self.tokens.get_or_insert_default();
            sum.input += used.input;
            sum.cached += used.cached;
            sum.output += used.output;
            sum.estimated |= used.estimated;
        }
        self.failures = self.below();
    }

    fn count(&mut self, measure: &'static str, group: &Group, right: bool) {
        let score = self.scores.entry(measure).or_default().entry(group.language.name()).or_default();
        *score = score.add(Score { right: u32::from(right), all: 1 });
    }

    /// Classes below their minimum, in words. A class with a minimum and no question passes nothing.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// A class's score, both languages together.
    pub(super) fn score(&self, class: &str) -> Score {
        self.scores
            .get(class)
            .map_or_else(Score::default, |scores| scores.values().fold(Score::default(), |sum, score| sum.add(*score)))
    }

    fn below(&self) -> Vec<String> {
        let low = |(class, minimum): (&&'static str, &u32)| {
            let score = self.score(class);
            (score.permille() < minimum * 10).then(|| format!("{class}: {} of at least {minimum} %", score.percent()))
        };
        self.minimum.iter().filter_map(low).collect()
    }

    /// For programs.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self).context("writing the report as JSON")? + "\n")
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = self.table();
        self.tell_misses(&mut text);
        self.tell_end(&mut text);
        text
    }

    /// Scores without the misses.
    pub(super) fn table(&self) -> String {
        let mut text = format!("Agent: {}\n\n", self.agent);
        let _ = writeln!(text, "{:<18}{:>12}{:>12}{:>18}{:>10}", "class", "en", "fr", "both", "minimum");
        for [measure, english, french, both, minimum] in self.rows() {
            let _ = writeln!(text, "{measure:<18}{english:>12}{french:>12}{both:>18}{minimum:>10}");
        }
        text
    }

    /// A line of the table for each measure: its name, English, French, both, the minimum.
    fn rows(&self) -> Vec<[String; 5]> {
        let cell = |score: Option<&Score>| score.map_or("-".to_owned(), |one| format!("{}/{}", one.right, one.all));
        let measures = Class::ALL.map(Class::name).into_iter().flat_map(|class| {
            // Beside the class it is a part of.
            let also = (class == Class::Human.name()).then_some(RECOGNISED);
            [Some(class), also].into_iter().flatten()
        });
        let row = |measure: &'static str| {
            let scores = self.scores.get(measure)?;
            let minimum = self.minimum.get(measure).map_or(String::new(), |minimum| format!("{minimum} %"));
            let both = format!("{} {:>8}", cell(Some(&self.score(measure))), self.score(measure).percent());
            Some([measure.to_owned(), cell(scores.get("en")), cell(scores.get("fr")), both, minimum])
        };
        measures.filter_map(row).collect()
    }

    /// For a page: Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("# Evaluation of {}\n\n", self.agent);
        text.push_str("| class | en | fr | both | minimum |\n| --- | --- | --- | --- | --- |\n");
        for row in self.rows() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        if !self.misses.is_empty() {
            text.push_str("\n| missed | class | wanted | what came |\n| --- | --- | --- | --- |\n");
        }
        let cell = |text: &str| text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
        for miss in &self.misses {
            let class = format!("{} {}", miss.class.name(), miss.language.name());
            let wanted = cell(miss.wanted.as_deref().unwrap_or_default());
            let _ = writeln!(text, "| {} | {class} | {wanted} | {} |", cell(&miss.question), cell(&miss.got));
        }
        self.tell_end(&mut text);
        text
    }

    fn tell_misses(&self, text: &mut String) {
        if !self.misses.is_empty() {
            let _ = writeln!(text, "\n{} missed:", self.misses.len());
        }
        for miss in &self.misses {
            let wanted = miss.wanted.as_ref().map_or(String::new(), |wanted| format!(" (wanted: {wanted})"));
            let (class, language) = (miss.class.name(), miss.language.name());
            let _ = writeln!(text, "  {class} {language}  {:?} → {}{wanted}", miss.question, miss.got);
        }
    }

    fn tell_end(&self, text: &mut String) {
        if let Some(tokens) = &self.tokens {
            let about = if tokens.estimated { ", some of it estimated" } else { "" };
            let (input, cached, output) = (tokens.input, tokens.cached, tokens.output);
            let _ = writeln!(text, "\nTokens: {input} input ({cached} of it cached), {output} output{about}.");
        }
        match self.failures.as_slice() {
            [] => text.push_str("\nGood: every minimum is reached.\n"),
            failures => {
                let _ = writeln!(text, "\nNot good enough: {}.", failures.join("; "));
            }
        }
    }
}
