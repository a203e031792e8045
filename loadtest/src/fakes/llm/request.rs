//! What a client asks of the fake model: the few fields that decide the answer, read from the body.
//!
//! Errors have OpenAI's shape, because a gateway that passes them on is judged by what official
//! clients make of them.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::http::{Body, json};

/// More choices than this are refused, as OpenAI does.
const CHOICES_MAX: u64 = 128;

/// The endpoints that generate something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
    Responses,
    Embeddings,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/responses" => Some(Self::Responses),
            "/v1/embeddings" => Some(Self::Embeddings),
            _ => None,
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

/// A request, understood.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The smallest of the maxima the client gave.
    pub(super) output_tokens_max: Option<u64>,
    /// Choices shown: `n`, times the prompts of `/v1/completions`.
    pub(super) choices: u64,
    /// Choices generated and thrown away (`best_of`).
    pub(super) hidden_choices: u64,
    /// Bytes of the prompt as it stands in the JSON, and of the tools.
    pub(super) prompt_bytes: u64,
    /// The `user` field: whose call this is, if the client says so.
    pub(super) user: Option<String>,
    /// Tools' results since the last message of the user; none if no tool may be called.
    pub(super) tool_results: Option<usize>,
    /// Texts to embed.
    pub(super) inputs: u64,
    pub(super) base64: bool,
    pub(super) dimensions: Option<u64>,
}

#[derive(Deserialize)]
struct Head<'a> {
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    max_completion_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    max_output_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    n: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    best_of: Option<i64>,
    user: Option<String>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    encoding_format: Option<String>,
    dimensions: Option<u64>,
}

impl Head<'_> {
    fn forbids_tools(&self) -> bool {
        self.tool_choice.is_some_and(|choice| choice.get() == "\"none\"")
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: Option<String>,
}

/// A request that is refused: what is wrong, and with which field.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let (status, kind) = (StatusCode::BAD_REQUEST, "invalid_request_error");
        Self { status, message: message.into(), kind, param: Some(param), code: None }
    }

    pub(super) fn unknown_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        let code = Some("model_not_found");
        Self { status: StatusCode::NOT_FOUND, message, kind: "invalid_request_error", param: Some("model"), code }
    }

    pub(super) fn wrong_key() -> Self {
        let (message, code) = ("Incorrect API key provided.".to_owned(), Some("invalid_api_key"));
        Self { status: StatusCode::UNAUTHORIZED, message, kind: "invalid_request_error", param: None, code }
    }

    pub(super) fn unknown_url() -> Self {
        let message = "Unknown request URL.".to_owned();
        let code = Some("unknown_url");
        Self { status: StatusCode::NOT_FOUND, message, kind: "invalid_request_error", param: None, code }
    }

    pub(super) fn too_large() -> Self {
        let message = "The request body is larger than this fake reads.".to_owned();
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, message, kind: "invalid_request_error", param: None, code: None }
    }

    /// The error a fault asked for.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (kind, code, message) = match status.as_u16() {
            429 => ("requests", Some("rate_limit_exceeded"), "Rate limit reached for requests."),
            400..=499 => ("invalid_request_error", None, "The fake was told to refuse this."),
            _ => ("server_error", None, "The server had an error while processing your request."),
        };
        Self { status, message: message.to_owned(), kind, param: None, code }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        json(self.status, &json!({ "error": error }))
    }
}

impl Ask {
    pub(super) fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, Refusal> {
        let head: Head<'_> = serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid("body", format!("We could not parse the JSON body of your request: {error}"))
        })?;
        let (prompt_name, prompt) = match endpoint {
            Endpoint::Chat => ("messages", head.messages),
            Endpoint::Completions => ("prompt", head.prompt),
            Endpoint::Responses | Endpoint::Embeddings => ("input", head.input),
        };
        let missing = |name| Refusal::invalid(name, format!("Missing required parameter: '{name}'."));
        let prompt = prompt.ok_or_else(|| missing(prompt_name))?;
        let model = head.model.clone().filter(|model| !model.is_empty()).ok_or_else(|| missing("model"))?;
        let stream = head.stream.unwrap_or(false) && endpoint != Endpoint::Embeddings;
        let inputs = texts_in(prompt);
        let has_choices = matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
        let n = positive("n", head.n.filter(|_| has_choices))?.unwrap_or(1);
        let best_of = positive("best_of", head.best_of)?.unwrap_or(n);
        if n > CHOICES_MAX || best_of > CHOICES_MAX {
            return Err(Refusal::invalid("n", format!("At most {CHOICES_MAX} choices.")));
        }
        if best_of < n || (best_of > n && stream) {
            return Err(Refusal::invalid("best_of", "best_of must be at least n, and cannot be streamed."));
        }
        let prompts = if endpoint == Endpoint::Completions { inputs.min(CHOICES_MAX) } else { 1 };
        let maxima = [
            // A completion of nothing is how scores of a prompt are had.
            match (endpoint, head.max_tokens) {
                (Endpoint::Completions, Some(0)) => Some(0),
                _ => positive("max_tokens", head.max_tokens)?,
            },
            positive("max_completion_tokens", head.max_completion_tokens)?,
            positive("max_output_tokens", head.max_output_tokens)?,
        ];
        let raw_len = |raw: Option<&RawValue>| raw.map_or(0, |raw| raw.get().len() as u64);
        Ok(Self {
            endpoint,
            model,
            stream,
            include_usage: head.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false),
            output_tokens_max: maxima.into_iter().flatten().min(),
            choices: n * prompts,
            hidden_choices: if endpoint == Endpoint::Completions { (best_of - n) * prompts } else { 0 },
            prompt_bytes: raw_len(Some(prompt)) + raw_len(head.instructions) + raw_len(head.tools),
            tool_results: Some(tool_results(prompt))
                .filter(|_| endpoint == Endpoint::Chat && head.tools.is_some() && !head.forbids_tools()),
            user: head.user,
            inputs,
            base64: head.encoding_format.as_deref() == Some("base64"),
            dimensions: head.dimensions,
        })
    }
}

/// A whole number as servers of models read it: `16.0` is one too.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let text = number.to_string();
    let whole = text.strip_suffix(".0").unwrap_or(&text);
    whole.parse().map(Some).map_err(|_| serde::de::Error::custom("expected a whole number"))
}

fn positive(name: &'static str, value: Option<i64>) -> Result<Option<u64>, Refusal> {
    match value.map(u64::try_from) {
        None => Ok(None),
        Some(Ok(value)) if value >= 1 => Ok(Some(value)),
        Some(_) => Err(Refusal::invalid(name, format!("Invalid '{name}': expected an integer of at least 1."))),
    }
}

/// How many texts a `prompt` or `input` holds: an array of strings or of token arrays is many, a
/// string or an array of numbers is one.
fn texts_in(prompt: &RawValue) -> u64 {
    match serde_json::from_str::<Vec<&RawValue>>(prompt.get()) {
        Ok(items) if items.iter().any(|item| item.get().starts_with(['"', '['])) => items.len() as u64,
        _ => 1,
    }
}

fn tool_results(messages: &RawValue) -> usize {
    let messages = serde_json::from_str::<Vec<Message>>(messages.get()).unwrap_or_default();
    let since_user = messages.iter().rev().take_while(|message| message.role.as_deref() != Some("user"));
    since_user.filter(|message| message.role.as_deref() == Some("tool")).count()
}
