//! What a model may do: the functions it is told of, and what becomes of its calls.
//!
//! A call changes nothing by itself: it is checked and written down as an [`Action`], which the relay does after the
//! answer, durably and once. Only a search is done at once. Arguments are read leniently, since models get them wrong
//! in known ways; what cannot be used is told to the model, which may try again within its rounds. Teams are chosen by
//! the names the operator gave them, so no number of a model's ever reaches the helpdesk.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::knowledge::{Knowledge, Passage};
use super::sanitise::sanitise;
use super::{Answer, Question};
use crate::config::{Model, Tool};
use crate::conversation::{Action, Priority};
use crate::metrics::Metrics;

/// A model's reason and summary are for a note.
const REASON_CHARS_MAX: usize = 200;
const NOTE_CHARS_MAX: usize = 1_500;
/// Longer is no label or field, and no value of one.
const NAME_CHARS_MAX: usize = 40;
const VALUE_CHARS_MAX: usize = 500;
/// What one search gives.
const PASSAGES_MAX: usize = 3;

/// One call, as the model made it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// To name it in the result.
    pub(super) id: String,
    /// The function.
    pub(super) name: String,
    /// Its arguments; none if they cannot be read.
    pub(super) arguments: Option<Value>,
}

/// What a call came to.
#[derive(Debug, PartialEq)]
pub(super) enum Done {
    /// This is told to the model.
    Told(String),
    /// The conversation goes to a human; nothing more is asked.
    Handoff(Answer),
}

/// The tools of one answer, and what was done with them.
pub(super) struct Toolbox<'a> {
    model: &'a Model,
    offered: Vec<Tool>,
    teams: &'a BTreeMap<String, u64>,
    knowledge: Option<&'a Knowledge>,
    metrics: &'a Metrics,
    calls_left: u32,
    actions: Vec<Action>,
    /// Titles of what was found.
    pub(super) sources: Vec<String>,
}

impl<'a> Toolbox<'a> {
    pub(super) fn new(
        model: &'a Model,
        question: &Question<'a>,
        knowledge: Option<&'a Knowledge>,
        metrics: &'a Metrics,
    ) -> Self {
        let offered = model.tools(question.level_max).collect();
        let (actions, sources) = (Vec::new(), Vec::new());
        let calls_left = model.tool_calls_max;
        Self { model, offered, teams: question.teams, knowledge, metrics, calls_left, actions, sources }
    }

    /// Passages of the knowledge base that fit a text.
    pub(super) fn passages(&self, text: &str) -> Vec<Passage> {
        self.knowledge.map(|knowledge| knowledge.passages(text, PASSAGES_MAX)).unwrap_or_default()
    }

    /// The functions, for the request.
    pub(super) fn schemas(&self) -> Value {
        self.offered.iter().map(|tool| self.schema(*tool)).collect()
    }

    /// Whether the conversation is to end.
    pub(super) fn resolves(&self) -> bool {
        self.actions.contains(&Action::Resolve)
    }

    /// What is to be done. A conversation that a human takes over does not end.
    pub(super) fn into_actions(mut self, answer: &Answer) -> Vec<Action> {
        if matches!(answer, Answer::Handoff { .. }) {
            self.actions.retain(|action| *action != Action::Resolve);
        }
        self.actions
    }

    /// Checks one call and writes down what it asks for.
    pub(super) fn call(&mut self, call: &Call) -> Done {
        let tool = self.offered.iter().copied().find(|tool| tool.as_str() == call.name);
        let done = match tool {
            // Never counted out: it is the way to a human.
            Some(Tool::HandoffToHuman) => Ok(Done::Handoff(self.handoff(call))),
            _ if self.calls_left == 0 => Err("no more calls; answer the customer now".to_owned()),
            Some(tool) => self.apply(tool, call.arguments.as_ref()).map(Done::Told),
            None => {
                let names: Vec<&str> = self.offered.iter().map(|tool| tool.as_str()).collect();
                Err(format!("there is no such function; there are {}", names.join(", ")))
            }
        };
        self.calls_left = self.calls_left.saturating_sub(1);
        let outcome = if done.is_ok() { "ok" } else { "error" };
        let name = tool.map_or("unknown", Tool::as_str);
        self.metrics.relay.agent_tool_calls.with_label_values(&[name, outcome]).inc();
        done.unwrap_or_else(|error| Done::Told(json!({ "error": error }).to_string()))
    }

    fn apply(&mut self, tool: Tool, arguments: Option<&Value>) -> Result<String, String> {
        let given = arguments.unwrap_or(&Value::Null);
        if given.is_null() && tool != Tool::Resolve {
            return Err("the arguments are not a JSON object".to_owned());
        }
        match tool {
            Tool::SearchKnowledge => return self.search(given),
            Tool::AddLabel => self.add_labels(given)?,
            Tool::SetPriority => {
                let priority = text_of(given, &["priority"]).and_then(|word| Priority::named(&word));
                let priority = priority.ok_or("priority is one of low, medium, high, urgent")?;
                self.actions.retain(|action| !matches!(action, Action::SetPriority { .. }));
                self.actions.push(Action::SetPriority { priority });
            }
            Tool::SetCustomAttribute => self.set_attribute(given)?,
            Tool::Resolve if !self.resolves() => self.actions.push(Action::Resolve),
            Tool::Resolve | Tool::HandoffToHuman => {}
        }
        Ok(json!({ "result": "It will be done with your answer. Now answer the customer." }).to_string())
    }

    fn search(&mut self, given: &Value) -> Result<String, String> {
        let query = text_of(given, &["query", "q", "question", "text"]).ok_or("query is missing")?;
        let passages = self.passages(&query);
        for passage in &passages {
            if !self.sources.contains(&passage.source) {
                self.sources.push(passage.source.clone());
            }
        }
        Ok(json!({ "passages": passages }).to_string())
    }

    fn add_labels(&mut self, given: &Value) -> Result<(), String> {
        let listed = ["labels", "label"].into_iter().find_map(|key| given.get(key)?.as_array());
        let labels: Vec<String> = match listed {
            Some(labels) => labels.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => text_of(given, &["label", "labels", "name"]).into_iter().collect(),
        };
        let labels: Vec<String> =
            labels.iter().map(|label| name(label, '-')).filter(|label| !label.is_empty()).collect();
        if labels.is_empty() {
            return Err("label is missing".to_owned());
        }
        allowed(&labels, self.model.labels.as_ref(), '-', "labels")?;
        for label in labels {
            let action = Action::AddLabel { label };
            if !self.actions.contains(&action) {
                self.actions.push(action);
            }
        }
        Ok(())
    }

    fn set_attribute(&mut self, given: &Value) -> Result<(), String> {
        let field = text_of(given, &["name", "key", "attribute"]).map(|field| name(&field, '_')).unwrap_or_default();
        if field.is_empty() {
            return Err("name is missing".to_owned());
        }
        allowed(std::slice::from_ref(&field), self.model.attributes.as_ref(), '_', "attributes")?;
        let value = match given.get("value") {
            Some(Value::String(text)) => {
                let text = sanitise(text, false).split_whitespace().collect::<Vec<_>>().join(" ");
                Value::String(text.chars().take(VALUE_CHARS_MAX).collect())
            }
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.clone(),
            _ => return Err("value is a text, a number or true or false".to_owned()),
        };
        self.actions.retain(|action| !matches!(action, Action::SetAttribute { name, .. } if *name == field));
        self.actions.push(Action::SetAttribute { name: field, value });
        Ok(())
    }

    /// Wrong arguments are no reason to keep the customer.
    fn handoff(&mut self, call: &Call) -> Answer {
        let given = call.arguments.clone().unwrap_or_default();
        let argument = |key, chars_max| {
            let text = given.get(key).and_then(Value::as_str).map(|text| sanitise(text, false))?;
            Some(text.chars().take(chars_max).collect::<String>()).filter(|text| !text.is_empty())
        };
        let team = text_of(&given, &["team"]).and_then(|named| {
            let named = named.trim().to_lowercase();
            self.teams.iter().find(|(team, _)| team.to_lowercase() == named).map(|(_, team_id)| *team_id)
        });
        self.actions.extend(team.map(|team_id| Action::AssignTeam { team_id }));
        if let Some(priority) = text_of(&given, &["priority"]).and_then(|word| Priority::named(&word)) {
            self.actions.retain(|action| !matches!(action, Action::SetPriority { .. }));
            self.actions.push(Action::SetPriority { priority });
        }
        let reason = argument("reason", REASON_CHARS_MAX).unwrap_or_else(|| "no reason given".to_owned());
        Answer::Handoff { reason, note: argument("summary", NOTE_CHARS_MAX), sources: self.sources.clone() }
    }

    fn schema(&self, tool: Tool) -> Value {
        let text = |what: &str| json!({ "type": "string", "description": what });
        let one_of = |what: &str, of: &[&str]| json!({ "type": "string", "description": what, "enum": of });
        let listed = |what: &str, of: Option<&Vec<String>>| match of {
            Some(of) => one_of(what, &of.iter().map(String::as_str).collect::<Vec<_>>()),
            None => text(what),
        };
        let priorities = Priority::ALL.map(Priority::as_str);
        let (description, properties, required) = match tool {
            Tool::HandoffToHuman => {
                let mut properties = json!({
                    "reason": text("Why, in a few words; only `unsure` if you do not know, only `out_of_scope` if it is not about this company."),
                    "summary": text("What the customer wants and what was tried."),
                    "priority": one_of("How soon a human should look.", &priorities),
                });
                let teams: Vec<&str> = self.teams.keys().map(String::as_str).collect();
                if let (Some(properties), false) = (properties.as_object_mut(), teams.is_empty()) {
                    properties.insert("team".to_owned(), one_of("Who should take over, if it is clear.", &teams));
                }
                let description = "Gives this conversation to a human of the support team. The customer is told so.";
                (description, properties, json!(["reason"]))
            }
            Tool::SearchKnowledge => {
                let query = text("What to look for, in a few words of the customer's language.");
                ("Searches the company's knowledge base.", json!({ "query": query }), json!(["query"]))
            }
            Tool::AddLabel => {
                let label = listed("One word for what this is about.", self.model.labels.as_ref());
                ("Adds a label to the conversation, for the team.", json!({ "label": label }), json!(["label"]))
            }
            Tool::SetPriority => {
                let priority = one_of("How soon a human should look.", &priorities);
                ("Sets the conversation's priority.", json!({ "priority": priority }), json!(["priority"]))
            }
            Tool::SetCustomAttribute => {
                let name = listed("The field, such as order_number.", self.model.attributes.as_ref());
                let value = text("What the customer told.");
                let properties = json!({ "name": name, "value": value });
                ("Notes a fact the customer told, for the team.", properties, json!(["name", "value"]))
            }
            Tool::Resolve => {
                let description = "Ends the conversation. Only when the customer says that nothing is left to do.";
                (description, json!({}), json!([]))
            }
        };
        let parameters = json!({ "type": "object", "properties": properties, "required": required });
        json!({
            "type": "function",
            "function": { "name": tool.as_str(), "description": description, "parameters": parameters }
        })
    }
}

/// The first of these keys that holds a text; a text alone is taken for the first.
fn text_of(given: &Value, keys: &[&str]) -> Option<String> {
    let text = keys.iter().find_map(|key| given.get(key)?.as_str()).or_else(|| given.as_str())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Small letters, digits, `-` and `_`; what stands between words becomes `between`. Cut.
fn name(written: &str, between: char) -> String {
    let words = written.split_whitespace().collect::<Vec<_>>().join(&between.to_string()).to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).take(NAME_CHARS_MAX).collect()
}

fn allowed(names: &[String], of: Option<&Vec<String>>, between: char, what: &str) -> Result<(), String> {
    let Some(of) = of else { return Ok(()) };
    let known = |wanted: &String| of.iter().any(|one| name(one, between) == *wanted);
    if names.iter().all(known) { Ok(()) } else { Err(format!("the {what} are {}", of.join(", "))) }
}

#[cfg(test)]
mod tests;
