//! The agent that is a model behind an OpenAI-compatible endpoint.
//!
//! We write the request and read the answer through async-openai, over our own pool: its service hook replaces both
//! its transport and its retries, so nothing is repeated behind the relay's back. Answers are taken as plain JSON
//! and read leniently, because most compatible servers differ somewhere from the original. A failed status never
//! gets as far as that library: it would log the upstream's words, which may quote the customer's.
//!
//! What the customer wrote travels in the customer's turns only; their details travel as JSON that is named as data.
//! That lowers the chance of an injection and does not remove it, so what comes back is treated as untrusted too:
//! see `sanitise`.

use std::sync::Arc;
use std::time::Duration;

use async_openai::config::Config as UpstreamConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, InvalidHeaderValue};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::prompt::{self, HANDOFF_TOOL};
use super::sanitise::sanitise;
use super::{AgentError, Answer, Answered, Question, TokenUse};
use crate::config::{Agent, AgentKind, Upstream};
use crate::http::body::{self, ReadError};
use crate::http::client::{Client, SendError};

/// An answer of 800 tokens is 5 KB; a server that thinks aloud sends more.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The relay's deadline is shorter; this one only keeps the pool's call from being without any.
const SEND_WAIT: Duration = Duration::from_secs(600);
/// A model's reason and summary are for a note.
const REASON_CHARS_MAX: usize = 200;
const NOTE_CHARS_MAX: usize = 1_500;
/// Bytes per token where the upstream tells no usage: a usual average of European languages.
const BYTES_PER_TOKEN: u64 = 4;
/// What an upstream may tell beyond what stands in the request and the answer: templates and tools, thoughts that a
/// server keeps to itself. More is not believed.
const UNSEEN_TOKENS_MAX: u64 = 65_536;

/// One model.
pub(super) struct OpenAi {
    client: async_openai::Client<Endpoint>,
    agent: Arc<Agent>,
}

/// Where the model is, for async-openai. Its own configuration would also read the environment.
#[derive(Clone)]
struct Endpoint {
    base_url: String,
    headers: HeaderMap,
    /// Asked for by the trait and not used: the key is in the headers.
    no_key: SecretString,
}

impl UpstreamConfig for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base_url
    }

    fn api_key(&self) -> &SecretString {
        &self.no_key
    }
}

/// What our transport adds to what can go wrong.
#[derive(Debug, thiserror::Error)]
enum TransportError {
    #[error("building the request")]
    Request(#[source] OpenAIError),
    #[error(transparent)]
    Send(SendError),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("reading the answer, of at most {ANSWER_BYTES_MAX} bytes")]
    Body(#[source] ReadError),
    #[error("the answer is not JSON")]
    NotJson,
}

impl From<TransportError> for OpenAIError {
    fn from(error: TransportError) -> Self {
        Self::Boxed(Box::new(error))
    }
}

impl OpenAi {
    /// A client of the agent's upstream. Fails if the upstream's key cannot stand in a header.
    pub(super) fn new(agent: &Arc<Agent>, http: Client) -> Result<Self, InvalidHeaderValue> {
        let mut headers = HeaderMap::new();
        let upstream = upstream(agent);
        if let Some(key) = upstream.and_then(|upstream| upstream.api_key.as_ref()) {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let base_url = upstream.map(|upstream| upstream.base_url.to_string()).unwrap_or_default();
        let base_url = base_url.trim_end_matches('/').to_owned();
        let endpoint = Endpoint { base_url, headers, no_key: SecretString::default() };
        let service = tower::service_fn(move |factory: HttpRequestFactory| send(http.clone(), factory));
        let client = async_openai::Client::with_config(endpoint).with_http_service(service);
        Ok(Self { client, agent: Arc::clone(agent) })
    }

    /// Asks once.
    pub(super) async fn answer(&self, question: Question<'_>, wait: Duration) -> Result<Answered, AgentError> {
        let request = prompt::request(&self.agent, &question)
            .ok_or_else(|| AgentError::Misconfigured(format!("agent {:?} has no model", self.agent.id)))?;
        let prompt_bytes = u64::try_from(request.to_string().len()).unwrap_or(u64::MAX);
        let chat = self.client.chat();
        let answer = match tokio::time::timeout(wait, chat.create_byot::<Value, Value>(request)).await {
            Err(_) => return Err(AgentError::Timeout(wait)),
            Ok(answer) => answer.map_err(|error| failure(error, wait))?,
        };
        read(&answer, prompt_bytes)
    }
}

fn upstream(agent: &Agent) -> Option<&Upstream> {
    match &agent.kind {
        AgentKind::OpenAi { upstream, .. } => Some(upstream),
        AgentKind::Knowledge { .. } => None,
    }
}

/// One exchange over our pool: the library's request in, a whole JSON answer out.
async fn send(http: Client, factory: HttpRequestFactory) -> Result<reqwest::Response, TransportError> {
    let request = factory.build().await.map_err(TransportError::Request)?;
    let request = http::Request::<reqwest::Body>::try_from(request)
        .map_err(|error| TransportError::Request(OpenAIError::Reqwest(error)))?;
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| TransportError::Request(OpenAIError::Reqwest(error)))?.to_bytes();
    let request = http::Request::from_parts(head, Full::new(body));
    let response = http.send(request, SEND_WAIT).await.map_err(TransportError::Send)?;
    if !response.status().is_success() {
        return Err(TransportError::Status(response.status()));
    }
    let body =
        body::read(&mut response.into_body(), ANSWER_BYTES_MAX, SEND_WAIT).await.map_err(TransportError::Body)?;
    if serde_json::from_slice::<Value>(&body).is_err() {
        return Err(TransportError::NotJson);
    }
    let mut answer = http::Response::new(reqwest::Body::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer.into())
}

fn failure(error: OpenAIError, wait: Duration) -> AgentError {
    let OpenAIError::Boxed(boxed) = error else { return AgentError::Nonsense("not a chat completion") };
    match boxed.downcast::<TransportError>().map(|error| *error) {
        Ok(TransportError::Status(status)) => match status.as_u16() {
            408 | 425 | 429 | 500.. => AgentError::Unavailable(Box::new(TransportError::Status(status))),
            _ => AgentError::Misconfigured(format!("the upstream answered {status}")),
        },
        Ok(TransportError::Send(SendError::Timeout(_))) => AgentError::Timeout(wait),
        Ok(TransportError::NotJson) => AgentError::Nonsense("not JSON"),
        Ok(other) => AgentError::Unavailable(Box::new(other)),
        Err(other) => AgentError::Unavailable(other),
    }
}

/// A chat completion, read for what we act on.
fn read(answer: &Value, prompt_bytes: u64) -> Result<Answered, AgentError> {
    let choice = answer.pointer("/choices/0").ok_or(AgentError::Nonsense("no choice"))?;
    let message = choice.get("message").ok_or(AgentError::Nonsense("no message"))?;
    let text = text_of(message.get("content"));
    let tokens = Some(tokens(answer.get("usage"), prompt_bytes, &text));
    if let Some(handoff) = handoff(message) {
        return Ok(Answered { answer: handoff, tokens });
    }
    let cut_off = choice.get("finish_reason").and_then(Value::as_str) == Some("length");
    let text = sanitise(&text, cut_off);
    if text.is_empty() {
        return Err(AgentError::Nonsense("no text"));
    }
    Ok(Answered { answer: Answer::Reply { text, sources: Vec::new() }, tokens })
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

/// The handoff tool's call, if it is among the message's. Other names were never offered and are not obeyed.
fn handoff(message: &Value) -> Option<Answer> {
    let calls = message.get("tool_calls")?.as_array()?;
    let call =
        calls.iter().find(|call| call.pointer("/function/name").and_then(Value::as_str) == Some(HANDOFF_TOOL))?;
    // Servers send the arguments as a text of JSON or as JSON; a model may also get them wrong, which is no reason
    // to keep the customer.
    let arguments = match call.pointer("/function/arguments") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(other) => other.clone(),
        None => Value::Null,
    };
    let argument = |name, chars_max| {
        let text = arguments.get(name).and_then(Value::as_str).map(|text| sanitise(text, false))?;
        Some(text.chars().take(chars_max).collect::<String>()).filter(|text| !text.is_empty())
    };
    let reason = argument("reason", REASON_CHARS_MAX).unwrap_or_else(|| "no reason given".to_owned());
    Some(Answer::Handoff { reason, note: argument("summary", NOTE_CHARS_MAX) })
}

fn tokens(usage: Option<&Value>, prompt_bytes: u64, text: &str) -> TokenUse {
    let told = |name| usage.and_then(|usage| usage.get(name)).and_then(Value::as_u64);
    let answer_bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
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
