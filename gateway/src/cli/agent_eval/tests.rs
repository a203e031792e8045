//! The goal as a test: the embedded agent over the demo's folder, with the questions it was tuned on. Those kept away
//! from the tuning hold what was reached, which is less.

use relais_gateway::handoff::HandoffReason;
use relais_loadtest::fakes::llm::FakeLlm;

use super::*;

const HELD_OUT: &str = include_str!("../../../eval/held_out.toml");
const FRESH: &str = include_str!("../../../eval/fresh.toml");

fn evaluated(set: &str) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(evaluate(&Subject::demo().unwrap(), &Set::read(set).unwrap()))
}

#[test]
fn the_goal_is_reached_on_the_tuned_set() {
    let report = evaluated(QUESTIONS);
    assert!(report.failures().is_empty(), "{}", report.text());
}

#[test]
fn the_goal_is_reached_on_the_set_that_was_once_held_out() {
    let report = evaluated(HELD_OUT);
    assert!(report.failures().is_empty(), "{}", report.text());
}

/// The minimum is what was reached. Says no miss when it fails: who reads them has tuned on them.
#[test]
fn questions_kept_away_from_the_tuning_are_answered_no_worse_than_before() {
    let report = evaluated(FRESH);
    assert!(report.failures().is_empty(), "{}{:?}", report.table(), report.failures());
}

/// A model is asked over its own upstream, and what it says and costs is judged as the embedded agent's is.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_behind_a_model_is_evaluated_too() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let llm = FakeLlm::start(Default::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relais.toml");
    let text = format!(
        "[[upstream]]\nname = \"main\"\nbase_url = \"{}/v1\"\nmodels = [\"*\"]\n[[agent]]\nid = \"model\"\nkind = \"openai\"\n\
         upstream = \"main\"\nmodel = \"llama\"\nsystem_prompt = \"Be kind.\"\n",
        llm.url()
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    let nobody = Subject::configured(&config, Some("nobody")).map(|_| ()).unwrap_err();
    assert!(nobody.to_string().contains("there are: model"), "{nobody}");
    let subject = Subject::configured(&config, Some("model")).unwrap();
    let set = Set::read(
        "[[group]]\nclass = \"answerable\"\nlanguage = \"en\"\nmentions = [\"hours\"]\nquestions = [\"When are you open?\"]\n\
         [[group]]\nclass = \"human\"\nlanguage = \"en\"\nquestions = [\"a human please\"]\n",
    )
    .unwrap();
    llm.set(|behaviour| behaviour.answer = Some("Our hours are from 9 to 5.".to_owned()));
    let report = evaluate(&subject, &set).await;
    assert_eq!(report.score("answerable").right, 1, "{}", report.text());
    assert!(report.text().contains("Tokens: "), "{}", report.text());
    assert_eq!((report.score("human").right, llm.calls().len()), (1, 1), "a wish for a human costs no call");
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
    let markdown = report.markdown();
    for line in [
        "| human | - | 1/1 | 1/1  100.0 % | 100 % |",
        "| Who is the president? | answerable en | Where is my parcel? | handed over: unsure |",
        "Not good enough: answer",
    ] {
        assert!(markdown.contains(line), "{line} is not in:\n{markdown}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(json["scores"]["answerable"]["en"], serde_json::json!({ "right": 1, "all": 2 }));
    assert_eq!(json["scores"]["human"]["fr"]["right"], 1);
}

#[test]
fn a_human_s_request_counts_as_handed_over_and_as_recognised_apart() {
    let report = evaluated(
        "[minimum]\nhuman = 100\nhuman_recognised = 60\n[[group]]\nclass = \"human\"\nlanguage = \"en\"\n\
         questions = [\"a human please\", \"I would like the company of flesh and blood\"]",
    );
    assert_eq!((report.score("human").right, report.score("human_recognised").right), (2, 1));
    assert_eq!(report.failures(), ["human_recognised: 50.0 % of at least 60 %"]);
    assert!(report.text().contains("flesh and blood\" → handed over: unsure"), "{}", report.text());
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
        (&group("class = \"human\""), unsure.clone(), true),
        (&group("class = \"human\"\nexpect = \"wished_handoff\""), unsure.clone(), false),
        (&group("class = \"human\""), reply("x", &["Shop – Hours"]), false),
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
