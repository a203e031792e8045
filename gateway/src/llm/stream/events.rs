//! `/v1/responses`: typed events, the usage in the last of them, which is also the end.
//!
//! A piece of the answer is an event whose type ends in `.delta`, whatever it is a piece of: text, a refusal,
//! reasoning, a tool's arguments. Every other event is rare and read as JSON.
//!
//! An early end has to repeat what was said, because `response.incomplete` carries the whole response. So what a
//! repetition needs is kept as it passes: the response as created, its finished items, and the text of the one
//! that is open. All of it together is bounded; what is over the bound is left out of the repetition.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Look, Unreadable, document, put_frame};
use crate::llm::usage::{self, Usage};

/// One answer in events.
#[derive(Debug)]
pub(super) struct Events {
    find_delta: Finder<'static>,
    find_text: Finder<'static>,
    kept_bytes_max: usize,
    /// Bytes kept in `items`, `parts` and `text`.
    kept_bytes: usize,
    /// The last event: an early end goes on counting where it stopped.
    last: Bytes,
    /// The event with the response as it was created.
    created: Bytes,
    /// Finished items, as JSON.
    items: Vec<String>,
    /// The event that opened an item which is not finished.
    open: Option<Bytes>,
    /// Finished parts of that item, as JSON.
    parts: Vec<String>,
    /// The text of the open part, in JSON's escapes; `None` while no part is open.
    text: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct EventJson<'a> {
    #[serde(rename = "type", default, borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    response: Option<&'a RawValue>,
    #[serde(default, borrow)]
    item: Option<&'a RawValue>,
    #[serde(default, borrow)]
    part: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResponseJson<'a> {
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

impl Events {
    pub(super) fn new(kept_bytes_max: usize) -> Self {
        Self {
            find_delta: Finder::new(b".delta\""),
            find_text: Finder::new(b"\"delta\":\""),
            kept_bytes_max,
            kept_bytes: 0,
            last: Bytes::new(),
            created: Bytes::new(),
            items: Vec::new(),
            open: None,
            parts: Vec::new(),
            text: None,
        }
    }

    /// What an event says.
    pub(super) fn look(&mut self, frame: &Bytes, data: &[u8]) -> Result<Look, Unreadable> {
        if data == b"[DONE]" {
            // Not in the protocol, but some servers send it. It ends nothing that has not ended.
            return Ok(Look::default());
        }
        if std::str::from_utf8(data).is_err() {
            return Err(Unreadable);
        }
        self.last = frame.clone();
        if let Some(at) = self.find_delta.find(data) {
            if data.get(..at).is_some_and(|before| before.ends_with(b"output_text")) {
                self.keep_text(data);
            }
            return Ok(Look { piece: true, ..Look::default() });
        }
        let event: EventJson<'_> = serde_json::from_slice(data).map_err(|_not_json| Unreadable)?;
        Ok(self.read(frame, &event))
    }

    fn read(&mut self, frame: &Bytes, event: &EventJson<'_>) -> Look {
        match event.kind.as_deref().unwrap_or_default() {
            "response.created" | "response.queued" | "response.in_progress" => self.created = frame.clone(),
            "response.output_item.added" => {
                self.open = Some(frame.clone());
                self.close_part(None);
                self.parts.clear();
            }
            "response.content_part.added" => self.text = Some(Vec::new()),
            "response.content_part.done" => self.close_part(event.part),
            "response.output_item.done" => {
                self.open = None;
                self.close_part(None);
                self.parts.clear();
                if let Some(item) = event.item.filter(|item| self.keep(item.get().len())) {
                    self.items.push(item.get().to_owned());
                }
            }
            "response.completed" | "response.incomplete" => return Look { done: true, ..told(event) },
            "response.failed" => return Look { failed: true, ..told(event) },
            "error" => return Look { failed: true, ..Look::default() },
            "" if event.error.is_some() => return Look { failed: true, ..Look::default() },
            _ => {}
        }
        Look::default()
    }

    fn keep(&mut self, bytes: usize) -> bool {
        let fits = self.kept_bytes + bytes <= self.kept_bytes_max;
        if fits {
            self.kept_bytes += bytes;
        }
        fits
    }

    fn keep_text(&mut self, data: &[u8]) {
        let Some(at) = self.find_text.find(data) else { return };
        let Some(text) = data.get(at + self.find_text.needle().len()..).and_then(up_to_quote) else { return };
        if self.text.is_some() && self.keep(text.len()) {
            self.text.get_or_insert_default().extend_from_slice(text);
        }
    }

    fn close_part(&mut self, part: Option<&RawValue>) {
        self.text = None;
        if let Some(part) = part.filter(|part| self.keep(part.get().len())) {
            self.parts.push(part.get().to_owned());
        }
    }

    /// The end, as if the model had come to the client's own limit: what is open is closed, then the response.
    pub(super) fn cut_off(&self, usage: &Usage) -> Bytes {
        let mut end = Ending { number: self.next_number(), out: BytesMut::new() };
        let mut output: Vec<Value> = self.items.iter().filter_map(|item| serde_json::from_str(item).ok()).collect();
        if let Some(open) = &self.open {
            output.push(self.close_item(&mut end, &document(open)));
        }
        let mut response = match document(&self.created).get_mut("response").map(Value::take) {
            Some(Value::Object(response)) => response,
            _ => serde_json::Map::new(),
        };
        response.insert("status".to_owned(), json!("incomplete"));
        response.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        response.insert("output".to_owned(), Value::from(output));
        response.insert(
            "usage".to_owned(),
            json!({
                "input_tokens": usage.input,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.input.saturating_add(usage.output),
            }),
        );
        end.event("response.incomplete", json!({"response": response}));
        end.out.freeze()
    }

    fn close_item(&self, end: &mut Ending, opening: &Value) -> Value {
        let index = opening.get("output_index").cloned().unwrap_or_default();
        let mut item = opening.get("item").cloned().unwrap_or_default();
        let id = item.get("id").cloned().unwrap_or_default();
        let mut content: Vec<Value> = self.parts.iter().filter_map(|part| serde_json::from_str(part).ok()).collect();
        if let Some(text) = &self.text {
            let text = unescaped(text);
            let place = json!({"item_id": id, "output_index": index, "content_index": content.len()});
            let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
            end.event("response.output_text.done", with(&place, json!({"text": text, "logprobs": []})));
            end.event("response.content_part.done", with(&place, json!({"part": part})));
            content.push(part);
        }
        if let Some(fields) = item.as_object_mut() {
            fields.insert("status".to_owned(), json!("incomplete"));
            if fields.get("type").is_some_and(|kind| kind == "message") {
                fields.insert("content".to_owned(), Value::from(content));
            }
        }
        end.event("response.output_item.done", json!({"output_index": index, "item": item}));
        item
    }

    /// The event of a failure. It has the shape of the protocol's own, and OpenAI's error object in it, which makes
    /// its SDKs raise.
    pub(super) fn error_event(&self, error: &[u8]) -> Bytes {
        let mut end = Ending { number: self.next_number(), out: BytesMut::new() };
        let envelope: Value = serde_json::from_slice(error).unwrap_or_default();
        let inner = |key: &str| envelope.pointer(key).cloned().unwrap_or_default();
        end.event(
            "error",
            json!({
                "code": inner("/error/code"), "message": inner("/error/message"), "param": inner("/error/param"),
                "error": inner("/error"),
            }),
        );
        end.out.freeze()
    }

    fn next_number(&self) -> u64 {
        document(&self.last).get("sequence_number").and_then(Value::as_u64).map_or(0, |number| number + 1)
    }
}

/// Events of our own, numbered on.
struct Ending {
    number: u64,
    out: BytesMut,
}

impl Ending {
    fn event(&mut self, kind: &str, fields: Value) {
        let event = with(&json!({"type": kind, "sequence_number": self.number}), fields);
        self.number += 1;
        put_frame(&mut self.out, Some(kind), event.to_string().as_bytes());
    }
}

fn with(head: &Value, more: Value) -> Value {
    let mut both = head.clone();
    if let (Some(both), Value::Object(more)) = (both.as_object_mut(), more) {
        both.extend(more);
    }
    both
}

/// The usage in a last event.
fn told(event: &EventJson<'_>) -> Look {
    let response: Option<ResponseJson<'_>> =
        event.response.and_then(|response| serde_json::from_str(response.get()).ok());
    let usage = response.and_then(|response| response.usage).and_then(|usage| usage::object(usage.get(), true));
    Look { usage, last_usage: usage.is_some(), ..Look::default() }
}

/// The inside of a JSON string whose opening quote was before.
fn up_to_quote(text: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text.get(at) {
            Some(b'"') => return text.get(..at),
            _ => at += 2,
        }
    }
}

/// What the inside of a JSON string says.
fn unescaped(text: &[u8]) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.put_u8(b'"');
    quoted.put_slice(text);
    quoted.put_u8(b'"');
    serde_json::from_slice(&quoted).unwrap_or_default()
}
