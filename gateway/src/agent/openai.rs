//! The agent that is a model behind an OpenAI-compatible endpoint.
//!
//! We write the request and read the answer through async-openai, over our own pool (`transport`): nothing is repeated
//! behind the relay's back. Answers are taken as plain JSON and read leniently, because most compatible servers differ
//! somewhere from the original. A model may call tools (`tools`) for a bounded number of rounds; then it has to answer.
//!
//! What the customer wrote travels in the customer's turns only; their details travel as JSON that is named as data.
//! That lowers the chance of an injection and does not remove it, so what comes back is treated as untrusted too:
//! see `sanitise`, and what `tools` lets a call do.

mod transport;

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use self::transport::{ModelClient, client, failure};
use super::knowledge::{Knowledge, Passage};
use super::sanitise::sanitise;
use super::tools::{Call, Done, Toolbox};
use super::{AgentError, Answer, Answered, Failed, Question, Spent, TokenUse, prompt};
use crate::config::{Model, Tool};
use crate::conversation::Action;
use crate::http::client::Client;
use crate::llm::upstream::Upstream;
use crate::metrics::Metrics;

/// Bytes per token where the upstream tells no usage, and for the history's bound: a usual average of European
/// languages.
pub(super) const BYTES_PER_TOKEN: u64 = 4;
/// What an upstream may tell beyond what stands in the request and the answer: templates and tools, thoughts that a
/// server keeps to itself. More is not believed.
const UNSEEN_TOKENS_MAX: u64 = 65_536;
/// Calls read of one message; a call's own words that are given back to the model.
const CALLS_MAX: usize = 32;
const CALL_NAME_CHARS_MAX: usize = 64;
const CALL_ID_CHARS_MAX: usize = 128;

/// One model.
pub(super) struct OpenAi {
    client: ModelClient,
    pub(super) model: Model,
    pub(super) knowledge: Option<Arc<Knowledge>>,
    metrics: Arc<Metrics>,
}

/// One answer of the model, read for what we act on.
#[derive(Debug)]
struct Said {
    text: String,
    /// It ran out of tokens.
    cut_off: bool,
    calls: Vec<Call>,
    tokens: TokenUse,
}

impl OpenAi {
    /// A client of the agent's upstream.
    pub(super) fn new(
        model: &Model,
        upstream: &Arc<Upstream>,
        knowledge: Option<Arc<Knowledge>>,
        http: Client,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client: client(Arc::clone(upstream), http), model: model.clone(), knowledge, metrics }
    }

    /// Asks once: as many rounds as the model's tools need, `wait` for all of them.
    pub(super) async fn answer(
        &self,
        question: &Question<'_>,
        wait: Duration,
        spent: &Spent,
    ) -> Result<Answered, Failed> {
        let rounds = tokio::time::timeout(wait, self.rounds(question, spent)).await;
        // Of one that got no answer nothing is known.
        spent.settle(None);
        let tokens = spent.so_far();
        match rounds {
            Ok(Ok((answer, actions))) => Ok(Answered { answer, actions, tokens }),
            Ok(Err(error)) => Err(Failed { error, tokens }),
            Err(_) => Err(Failed { error: AgentError::Timeout(wait), tokens }),
        }
    }

    /// `spent` is what was used so far, whatever comes after.
    async fn rounds(&self, question: &Question<'_>, spent: &Spent) -> Result<(Answer, Vec<Action>), AgentError> {
        let mut toolbox = Toolbox::new(&self.model, question, self.knowledge.as_deref(), &self.metrics);
        let passages = toolbox.passages(&question.last_words());
        let mut exchanged = Vec::new();
        let mut said_before = String::new();
        let mut rounds_left = self.model.tool_rounds_max;
        loop {
            let request = self.request(question, &passages, &exchanged, toolbox.schemas(), rounds_left > 0)?;
            let prompt_bytes = u64::try_from(request.get().len()).unwrap_or(u64::MAX);
            spent.sent(prompt_bytes.div_ceil(BYTES_PER_TOKEN));
            let answer = self.client.chat().create_byot::<_, Value>(request).await.map_err(failure)?;
            let said = read(&answer, prompt_bytes)?;
            spent.settle(Some(said.tokens));
            // A way to a human is open in the last round too.
            let calls = said.calls.iter().filter(|call| rounds_left > 0 || call.name == Tool::HandoffToHuman.as_str());
            let mut results = Vec::new();
            for call in calls {
                match toolbox.call(call) {
                    Done::Handoff(answer) => return Ok(with_actions(answer, toolbox)),
                    Done::Told(result) => {
                        results.push(json!({ "role": "tool", "tool_call_id": call.id, "content": result }));
                    }
                }
            }
            if results.is_empty() {
                return conclude(&said, &said_before, toolbox);
            }
            if !said.text.trim().is_empty() {
                said_before.clone_from(&said.text);
            }
            exchanged.push(given_back(&said));
            exchanged.append(&mut results);
            rounds_left -= 1;
        }
    }

    /// The body of one round: the prompt, and what the model and its tools told each other so far. As text, and made
    /// anew for each round: as values it takes many times as much, and a model may think for minutes.
    fn request(
        &self,
        question: &Question<'_>,
        passages: &[Passage],
        exchanged: &[Value],
        tools: Value,
        may_call: bool,
    ) -> Result<Box<RawValue>, AgentError> {
        let mut messages = prompt::messages(&self.model, question, passages);
        messages.extend_from_slice(exchanged);
        let request = prompt::request(&self.model, messages, tools, may_call);
        to_raw_value(&request).map_err(|error| AgentError::Misconfigured(format!("the request is no JSON: {error}")))
    }
}

/// The last answer: its words, or those it said while it called its tools.
fn conclude(said: &Said, said_before: &str, toolbox: Toolbox<'_>) -> Result<(Answer, Vec<Action>), AgentError> {
    let mut text = sanitise(&said.text, said.cut_off);
    if text.is_empty() {
        text = sanitise(said_before, false);
    }
    // A conversation may end without a word.
    if text.is_empty() && !toolbox.resolves() {
        return Err(AgentError::Nonsense("no text"));
    }
    let sources = toolbox.sources.clone();
    Ok(with_actions(Answer::Reply { text, sources }, toolbox))
}

fn with_actions(answer: Answer, toolbox: Toolbox<'_>) -> (Answer, Vec<Action>) {
    let actions = toolbox.into_actions(&answer);
    (answer, actions)
}

/// What the model said, for it to go on from. Servers parse these arguments, so what was none is sent as nothing.
fn given_back(said: &Said) -> Value {
    let calls: Vec<Value> = said
        .calls
        .iter()
        .map(|call| {
            let arguments = call.arguments.as_ref().filter(|arguments| arguments.is_object());
            let arguments = arguments.map_or_else(|| "{}".to_owned(), Value::to_string);
            let function = json!({ "name": call.name, "arguments": arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        })
        .collect();
    json!({ "role": "assistant", "content": said.text, "tool_calls": calls })
}

/// A chat completion.
fn read(answer: &Value, prompt_bytes: u64) -> Result<Said, AgentError> {
    let choice = answer.pointer("/choices/0").ok_or(AgentError::Nonsense("no choice"))?;
    let message = choice.get("message").ok_or(AgentError::Nonsense("no message"))?;
    let text = text_of(message.get("content"));
    let made = message.get("tool_calls");
    let calls: Vec<Call> =
        made.and_then(Value::as_array).into_iter().flatten().take(CALLS_MAX).enumerate().filter_map(call).collect();
    let call_bytes = if calls.is_empty() { 0 } else { made.map_or(0, |made| made.to_string().len()) };
    let answer_bytes = u64::try_from(text.len().saturating_add(call_bytes)).unwrap_or(u64::MAX);
    let tokens = tokens(answer.get("usage"), prompt_bytes, answer_bytes);
    let cut_off = choice.get("finish_reason").and_then(Value::as_str) == Some("length");
    Ok(Said { text, cut_off, calls, tokens })
}

/// A text, or the text parts of a list.
fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join("")
        }
        _ => String::new(),
    }
}

/// One call. Servers send the arguments as a text of JSON or as JSON, and some write that text twice over.
fn call((place, made): (usize, &Value)) -> Option<Call> {
    let function = made.get("function")?;
    let name = function.get("name")?.as_str()?;
    let name = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let given = made.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let id = given.map_or_else(|| format!("call_{place}"), |id| id.chars().take(CALL_ID_CHARS_MAX).collect());
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) if text.trim().is_empty() => Some(json!({})),
        Some(Value::String(text)) => match parsed(text) {
            Some(Value::String(twice)) => parsed(&twice),
            once => once,
        },
        Some(Value::Null) | None => Some(json!({})),
        Some(other) => Some(other.clone()),
    };
    Some(Call { id, name: name.take(CALL_NAME_CHARS_MAX).collect(), arguments })
}

fn tokens(usage: Option<&Value>, prompt_bytes: u64, answer_bytes: u64) -> TokenUse {
    let told = |name| usage.and_then(|usage| usage.get(name)).and_then(Value::as_u64);
    // A token is at least one byte.
    let credible = |tokens: &u64, bytes: u64| *tokens <= bytes.saturating_add(UNSEEN_TOKENS_MAX);
    let input = told("prompt_tokens").filter(|input| credible(input, prompt_bytes));
    let output = told("completion_tokens").filter(|output| credible(output, answer_bytes));
    match (input, output) {
        (Some(input), Some(output)) => {
            let cached = usage.and_then(|usage| usage.pointer("/prompt_tokens_details/cached_tokens"));
            let cached = cached.and_then(Value::as_u64).unwrap_or(0).min(input);
            TokenUse { input, cached, output, estimated: false }
        }
        _ => {
            let count = |bytes: u64| bytes.div_ceil(BYTES_PER_TOKEN);
            TokenUse { input: count(prompt_bytes), cached: 0, output: count(answer_bytes), estimated: true }
        }
    }
}

#[cfg(test)]
mod tests;
