//! Chat and text completions: `data:` chunks with `choices`, the usage in one without, `[DONE]` at the end.
//!
//! Nearly every chunk is a piece of text and is recognised by two searches for a few bytes. Whatever looks otherwise
//! (an opening, an end, a usage, an error, another way of writing JSON) is read as JSON; a chunk that is none
//! ends the stream.

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Look, Unreadable, document, put_frame};
use crate::llm::endpoint::Endpoint;
use crate::llm::usage::{self, Usage};

/// Choices that are told their end at a cut-off, at most: one frame has to hold them.
const ANSWERS_MAX: u64 = 4_096;

/// One answer in chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    endpoint: Endpoint,
    answers: u64,
    usage_asked_for: bool,
    find_usage: Finder<'static>,
    find_piece: Finder<'static>,
    /// The last chunk: what an early end takes its head from.
    last: Bytes,
    /// Choices that have ended by themselves.
    finished: Vec<u64>,
}

#[derive(Deserialize)]
struct ChunkJson<'a> {
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    choices: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChoiceJson<'a> {
    #[serde(default)]
    index: u64,
    #[serde(default, borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(default)]
    delta: Option<serde_json::Map<String, Value>>,
    #[serde(default, borrow)]
    text: Option<&'a RawValue>,
}

impl Chunks {
    pub(super) fn new(endpoint: Endpoint, answers: u64, usage_asked_for: bool) -> Self {
        let piece: &[u8] = if endpoint == Endpoint::Chat { b"\"delta\":{" } else { b"\"text\":\"" };
        Self {
            endpoint,
            answers,
            usage_asked_for,
            find_usage: Finder::new(b"\"usage\":"),
            find_piece: Finder::new(piece),
            last: Bytes::new(),
            finished: Vec::new(),
        }
    }

    /// What a chunk says.
    pub(super) fn look(&mut self, frame: &Bytes, data: &[u8]) -> Result<Look, Unreadable> {
        if data == b"[DONE]" {
            return Ok(Look { done: true, ..Look::default() });
        }
        if std::str::from_utf8(data).is_err() {
            return Err(Unreadable);
        }
        self.last = frame.clone();
        if self.is_plain_piece(data) { Ok(Look { piece: true, ..Look::default() }) } else { self.read(data) }
    }

    /// A piece of text in the usual writing, without a usage.
    fn is_plain_piece(&self, data: &[u8]) -> bool {
        let behind = |finder: &Finder<'_>| {
            let at = finder.find(data)?;
            data.get(at + finder.needle().len()..)
        };
        let Some(piece) = behind(&self.find_piece) else { return false };
        let plain = match self.endpoint {
            Endpoint::Chat => piece.strip_prefix(b"\"content\":\"").is_some_and(|text| !text.starts_with(b"\"")),
            _ => !piece.starts_with(b"\""),
        };
        plain && behind(&self.find_usage).is_none_or(|usage| usage.starts_with(b"null"))
    }

    fn read(&mut self, data: &[u8]) -> Result<Look, Unreadable> {
        let chunk: ChunkJson<'_> = serde_json::from_slice(data).map_err(|_not_json| Unreadable)?;
        let choices: Option<Vec<ChoiceJson<'_>>> =
            chunk.choices.and_then(|choices| serde_json::from_str(choices.get()).ok());
        let is_empty = choices.as_ref().is_some_and(Vec::is_empty);
        if chunk.error.is_some() && (chunk.choices.is_none() || is_empty) {
            return Ok(Look { failed: true, ..Look::default() });
        }
        let mut look = Look {
            usage: chunk.usage.and_then(|usage| usage::object(usage.get(), true)),
            // An unusual chunk is a piece of the answer unless it can be seen to be none.
            piece: choices.is_none() && chunk.choices.is_some(),
            ..Look::default()
        };
        look.last_usage = is_empty;
        look.hide = chunk.usage.is_some() && is_empty && !self.usage_asked_for;
        for choice in choices.iter().flatten() {
            look.piece |= choice.says_something();
            if choice.finish_reason.is_some() {
                look.last_usage = true;
                if (self.finished.len() as u64) < ANSWERS_MAX {
                    self.finished.push(choice.index);
                }
            }
        }
        Ok(look)
    }

    /// The end, as if the model had come to the client's own limit.
    pub(super) fn cut_off(&self, usage: &Usage) -> Bytes {
        let last = document(&self.last);
        let head = |key: &str| last.get(key).cloned().unwrap_or(Value::Null);
        let object = if self.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        let chunk = |choices: Value| {
            json!({
                "id": head("id"), "object": object, "created": head("created"), "model": head("model"),
                "choices": choices,
            })
        };
        let choices: Vec<Value> = (0..self.answers.min(ANSWERS_MAX))
            .filter(|index| !self.finished.contains(index))
            .map(|index| match self.endpoint {
                Endpoint::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": "length"}),
                _ => json!({"index": index, "text": "", "logprobs": null, "finish_reason": "length"}),
            })
            .collect();
        let mut out = BytesMut::new();
        put_frame(&mut out, None, chunk(Value::from(choices)).to_string().as_bytes());
        if self.usage_asked_for {
            let mut last = chunk(json!([]));
            if let Some(object) = last.as_object_mut() {
                let total = usage.input.saturating_add(usage.output);
                object.insert(
                    "usage".to_owned(),
                    json!({
                        "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": total,
                        "prompt_tokens_details": {"cached_tokens": usage.cached},
                        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
                    }),
                );
            }
            put_frame(&mut out, None, last.to_string().as_bytes());
        }
        put_frame(&mut out, None, b"[DONE]");
        out.freeze()
    }
}

impl ChoiceJson<'_> {
    /// Text, a tool's arguments, reasoning: anything but the role and nothing.
    fn says_something(&self) -> bool {
        let is_something = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        };
        self.text.is_some_and(|text| text.get() != "\"\"")
            || self.delta.iter().flatten().any(|(name, value)| name != "role" && is_something(value))
    }
}
