//! Calls as models write them, and what is made of them.

use super::*;
use crate::config::{self, Level, LimitField};
use crate::conversation::{Contact, Medium};

fn model() -> Model {
    let upstream = config::Upstream {
        name: "main".to_owned(),
        base_url: "http://127.0.0.1:1/v1".parse().unwrap(),
        api_key: None,
        models: vec!["*".to_owned()],
        aliases: Default::default(),
        priority: 0,
        weight: 1,
        limit_field: LimitField::MaxTokens,
        connections_max: 1,
        http2: false,
    };
    Model {
        upstream: upstream.into(),
        model: "llama".to_owned(),
        system_prompt: String::new(),
        tokens_max: 1,
        temperature_milli: None,
        level: Level::L3,
        tools: None,
        labels: None,
        attributes: None,
        tool_rounds_max: 4,
        tool_calls_max: 8,
        history_tokens: 100,
        knowledge: None,
    }
}

/// What these calls come to: what the last one was told, and the actions.
fn made(model: &Model, calls: &[(&str, Option<Value>)]) -> (Done, Vec<Action>) {
    let (contact, teams) = (Contact::default(), BTreeMap::from([("Billing".to_owned(), 7)]));
    let metrics = Metrics::new().unwrap();
    let question = Question {
        tenant_id: "acme",
        conversation_id: 1,
        history: &[],
        contact: &contact,
        medium: Medium::Web,
        teams: &teams,
        level_max: Level::L3,
    };
    let mut toolbox = Toolbox::new(model, &question, None, &metrics);
    let mut done = Done::Told(String::new());
    for (name, arguments) in calls {
        done = toolbox.call(&Call { id: "1".to_owned(), name: (*name).to_owned(), arguments: arguments.clone() });
    }
    let silent = Answer::Reply { text: String::new(), sources: Vec::new() };
    let answer = if let Done::Handoff(answer) = &done { answer } else { &silent };
    let actions = toolbox.into_actions(answer);
    (done, actions)
}

fn label(label: &str) -> Action {
    Action::AddLabel { label: label.to_owned() }
}

fn attribute(name: &str, value: Value) -> Action {
    Action::SetAttribute { name: name.to_owned(), value }
}

#[test]
fn what_can_be_understood_is_done() {
    let priority = |priority| Action::SetPriority { priority };
    let cases = [
        ("add_label", json!({"label": " Order  Status! "}), vec![label("order-status")]),
        ("add_label", json!({"labels": ["a", "B", "a", 3]}), vec![label("a"), label("b")]),
        ("add_label", json!("refund"), vec![label("refund")]),
        ("set_priority", json!({"priority": "HIGH "}), vec![priority(Priority::High)]),
        (
            "set_custom_attribute",
            json!({"key": "Order number", "value": 17}),
            vec![attribute("order_number", json!(17))],
        ),
        (
            "set_custom_attribute",
            json!({"name": "note", "value": "a\n<b>  b"}),
            vec![attribute("note", json!("a <\u{2060}b> b"))],
        ),
        ("resolve", json!({}), vec![Action::Resolve]),
    ];
    for (name, arguments, expected) in cases {
        let (done, actions) = made(&model(), &[(name, Some(arguments.clone()))]);
        assert_eq!(actions, expected, "{name} {arguments}");
        assert!(matches!(done, Done::Told(told) if told.contains("result")), "{name} {arguments}");
    }
}

#[test]
fn what_cannot_is_told_to_the_model_and_changes_nothing() {
    let listed = Model { labels: Some(vec!["Billing".to_owned()]), attributes: Some(Vec::new()), ..model() };
    let cases = [
        ("add_label", None, "not a JSON object"),
        ("add_label", Some(json!({"label": "!!"})), "label is missing"),
        ("add_label", Some(json!({"label": "vip"})), "the labels are Billing"),
        ("set_priority", Some(json!({"priority": "whenever"})), "one of low"),
        ("set_custom_attribute", Some(json!({"value": 1})), "name is missing"),
        ("set_custom_attribute", Some(json!({"name": "credit", "value": 1})), "the attributes are"),
        ("search_knowledge", Some(json!({"query": "x"})), "no such function"),
        ("drop_table", Some(json!({})), "no such function"),
    ];
    for (name, arguments, expected) in cases {
        let (done, actions) = made(&listed, &[(name, arguments.clone())]);
        let Done::Told(told) = done else { panic!("{name}") };
        assert!(told.contains("error") && told.contains(expected), "{name} {arguments:?}: {told}");
        assert!(actions.is_empty());
    }
    let odd = made(&model(), &[("set_custom_attribute", Some(json!({"name": "x", "value": {"a": 1}})))]);
    assert!(odd.1.is_empty());
    assert_eq!(made(&listed, &[("add_label", Some(json!({"label": "billing"})))]).1, [label("billing")]);
}

#[test]
fn of_two_decisions_the_later_holds_and_a_handoff_ends_nothing() {
    let calls = [
        ("set_priority", Some(json!({"priority": "low"}))),
        ("set_custom_attribute", Some(json!({"name": "order", "value": "1"}))),
        ("set_custom_attribute", Some(json!({"name": "order", "value": "2"}))),
        ("resolve", None),
        ("resolve", None),
        ("handoff_to_human", Some(json!({"reason": "r", "team": "billing", "priority": "urgent"}))),
    ];
    let (done, actions) = made(&model(), &calls[..5]);
    assert!(matches!(done, Done::Told(_)));
    let low = Action::SetPriority { priority: Priority::Low };
    assert_eq!(actions, [low, attribute("order", json!("2")), Action::Resolve]);
    let (done, actions) = made(&model(), &calls);
    assert_eq!(done, Done::Handoff(Answer::Handoff { reason: "r".to_owned(), note: None }));
    let urgent = Action::SetPriority { priority: Priority::Urgent };
    assert_eq!(actions, [attribute("order", json!("2")), Action::AssignTeam { team_id: 7 }, urgent]);
}

#[test]
fn a_team_is_chosen_by_its_name_alone_and_wrong_arguments_keep_no_customer() {
    for team in [json!("7"), json!(7), json!("nobody"), json!({"id": 7})] {
        let (done, actions) = made(&model(), &[("handoff_to_human", Some(json!({"reason": "r", "team": team})))]);
        assert!(matches!(done, Done::Handoff(_)) && actions.is_empty(), "{team} {actions:?}");
    }
    let none = Model { tool_calls_max: 1, ..model() };
    let (done, _) = made(&none, &[("resolve", None), ("handoff_to_human", None)]);
    assert_eq!(done, Done::Handoff(Answer::Handoff { reason: "no reason given".to_owned(), note: None }));
}
