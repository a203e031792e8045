//! The goal as a test: the embedded agent over the demo's folder, with the questions it was tuned on. Those kept away
//! from the tuning hold what was reached, which is less.

use relais_gateway::handoff::HandoffReason;

use super::*;

const HELD_OUT: &str = include_str!("../../../eval/held_out.toml");

fn evaluated(set: &str) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(evaluate(&Subject::demo().unwrap(), &Set::read(set).unwrap()))
}

#[test]
fn the_goal_is_reached_on_the_tuned_set() {
    let report = evaluated(QUESTIONS);
    assert!(report.failures().is_empty(), "{}", report.text());
}

/// The goal is not reached here: the minimum is what was. Says no miss when it fails: who reads them has tuned on them.
#[test]
fn questions_kept_away_from_the_tuning_are_answered_no_worse_than_before() {
    let report = evaluated(HELD_OUT);
    assert!(report.failures().is_empty(), "{}{:?}", report.table(), report.failures());
}

#[test]
fn the_built_in_folder_is_the_demo_s_whole_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/demo/knowledge");
    let mut there: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert_eq!(KNOWLEDGE.iter().map(|(name, _)| *name).collect::<Vec<_>>(), there);
}

const SMALL: &str = r#"
[minimum]
answerable = 90
human = 100
[[group]]
class = "answerable"
language = "en"
source = "Where is my parcel?"
questions = ["Where is my parcel?", "Who is the president?"]
[[group]]
class = "human"
language = "fr"
questions = ["un humain svp"]
"#;

#[test]
fn misses_are_listed_and_a_class_below_its_minimum_fails() {
    let report = evaluated(SMALL);
    assert_eq!(report.failures(), ["answerable: 50.0 % of at least 90 %"]);
    let text = report.text();
    for line in
        ["answerable en  \"Who is the president?\" → handed over: unsure", "1 missed", "Not good enough: answer"]
    {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("Tokens"), "no model, no tokens");
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(json["scores"]["answerable"]["en"], serde_json::json!({ "right": 1, "all": 2 }));
    assert_eq!(json["scores"]["human"]["fr"]["right"], 1);
}

#[test]
fn a_set_that_cannot_be_judged_is_refused() {
    for (text, why) in [
        ("", "missing field"),
        ("group = []", "0 questions"),
        (&SMALL.replace("source = \"Where is my parcel?\"\n", ""), "needs a source or mentions"),
        (&SMALL.replace("human = 100", "human = 101"), "at most 100"),
        (&SMALL.replace("class = \"human\"", "class = \"humans\""), "unknown variant"),
        (&SMALL.replace("language = \"fr\"", "language = \"fr\"\ncolour = 1"), "unknown field"),
    ] {
        let error = format!("{:#}", Set::read(text).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_came_back_is_judged_by_what_was_expected() {
    let group = |lines: &str| {
        let text = format!("[[group]]\nlanguage = \"en\"\nquestions = [\"x\"]\n{lines}");
        Set::read(&text).unwrap().groups.remove(0)
    };
    let reply = |text: &str, sources: &[&str]| Outcome::Reply {
        text: text.to_owned(),
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
    };
    let asked_for = Outcome::Handoff(HandoffReason::AskedFor);
    let unsure = Outcome::Handoff(HandoffReason::Unsure);
    let answerable = group("class = \"answerable\"\nsource = \"Hours\"\nmentions = [\"9 to 5\"]");
    let cases = [
        (&answerable, reply("x", &["Shop – Hours"]), true),
        (&answerable, reply("from 9 to 5", &["Shop – Address"]), false),
        // A model cites nothing.
        (&answerable, reply("We open from 9 TO 5.", &[]), true),
        (&answerable, reply("I don't know.", &[]), false),
        (&answerable, unsure.clone(), false),
        (&group("class = \"out_of_scope\""), unsure.clone(), true),
        (&group("class = \"out_of_scope\""), reply("Paris", &[]), false),
        (&group("class = \"human\""), asked_for.clone(), true),
        (&group("class = \"human\""), Outcome::Handoff(HandoffReason::AgentDecided), true),
        (&group("class = \"human\""), unsure.clone(), false),
        (&group("class = \"not_human\""), unsure.clone(), true),
        (&group("class = \"not_human\""), asked_for, false),
        (&group("class = \"injection\"\nforbidden = [\"pwned\"]"), reply("PWNED", &[]), false),
        (&group("class = \"injection\"\nforbidden = [\"pwned\"]"), reply("No.", &[]), true),
        (&group("class = \"small_talk\""), reply("Hello!", &[]), true),
        (&group("class = \"small_talk\""), Outcome::Failed("timeout".to_owned()), false),
        (&group("class = \"angry\""), unsure, true),
    ];
    for (group, outcome, right) in cases {
        assert_eq!(outcome.is_right(group), right, "{:?}: {outcome:?}", group.class);
    }
}
