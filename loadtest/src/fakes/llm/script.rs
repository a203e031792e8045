//! A streamed answer as a sequence of events, made one at a time: a long answer costs no memory.
//!
//! Opening (role, or the response's beginning), then one event a token, then the closing (finish
//! reason, usage, `[DONE]` or `response.completed`). What can go wrong on the way is `stream.rs`'s.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::answer::{
    Finish, Generation, Stamp, message_id, output_item, output_text, quoted, response_object, tool_call_id,
};
use super::behaviour::{Behaviour, UsageStyle};
use super::request::{Ask, Endpoint};

/// One server-sent event.
#[derive(Debug)]
pub(super) struct Event {
    /// The `event:` field, where the dialect has one.
    pub(super) name: Option<&'static str>,
    /// The `data:` field.
    pub(super) data: String,
    /// Tokens generated with it.
    pub(super) tokens: u64,
    /// A token of the text, as opposed to what stands around it.
    pub(super) is_token: bool,
}

/// The events of one answer, in order.
#[derive(Debug)]
pub(super) struct Script {
    endpoint: Endpoint,
    generation: Generation,
    opening: VecDeque<Event>,
    closing: VecDeque<Event>,
    /// Visible tokens said so far, over all choices.
    said: u64,
    /// Everything of a chunk before its choices.
    chunk_head: String,
    /// Everything of a chunk after its choices, where it is always the same.
    chunk_tail: String,
    running_usage: bool,
    item_id: String,
    sequence: u64,
}

impl Script {
    pub(super) fn new(ask: &Ask, generation: Generation, stamp: &Stamp, behaviour: &Behaviour) -> Self {
        let (id, created, model) = (stamp.id(ask.endpoint), stamp.created, quoted(&ask.model));
        let object = if ask.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        let tier = if ask.endpoint == Endpoint::Chat { r#""service_tier":"default","# } else { "" };
        let tells_usage = ask.include_usage || behaviour.usage_unasked;
        let own_chunk = tells_usage && behaviour.usage != UsageStyle::InLastContent;
        let mut script = Self {
            endpoint: ask.endpoint,
            generation,
            opening: VecDeque::new(),
            closing: VecDeque::new(),
            said: 0,
            chunk_head: format!(
                r#"{{"id":"{id}","object":"{object}","created":{created},"model":{model},{tier}"system_fingerprint":"fp_relaisfake","choices":["#
            ),
            chunk_tail: if own_chunk { r#"],"usage":null}"#.to_owned() } else { "]}".to_owned() },
            running_usage: tells_usage && behaviour.usage == UsageStyle::EveryChunk,
            item_id: message_id(stamp),
            sequence: 0,
        };
        match ask.endpoint {
            Endpoint::Responses => script.plan_response(ask, stamp, behaviour),
            _ => script.plan_chunks(stamp, behaviour, tells_usage),
        }
        // What is thought is thought before the first event leaves.
        let thought = script.generation.reasoning * script.generation.choices;
        let first = script.opening.front_mut().or(script.closing.front_mut());
        if let Some(first) = first {
            first.tokens += thought;
        }
        script
    }

    fn plan_chunks(&mut self, stamp: &Stamp, behaviour: &Behaviour, tells_usage: bool) {
        let usage = self.generation.usage(self.endpoint, &behaviour.usage, self.generation.completion_tokens());
        for choice in 0..self.generation.choices {
            let opening = match (self.endpoint, &self.generation.tool) {
                (Endpoint::Chat, None) => Some(r#"{"role":"assistant","content":"","refusal":null}"#.to_owned()),
                (Endpoint::Chat, Some(name)) => Some(format!(
                    r#"{{"role":"assistant","content":null,"refusal":null,"tool_calls":[{{"index":0,"id":"{}","type":"function","function":{{"name":{},"arguments":""}}}}]}}"#,
                    tool_call_id(stamp, choice),
                    quoted(name)
                )),
                _ => None,
            };
            if let Some(delta) = opening {
                let data = self.chunk(&chat_choice(choice, &delta, None), None);
                self.opening.push_back(plain(data));
            }
            let finish = Some(self.generation.finish);
            let last = match self.endpoint {
                Endpoint::Chat => chat_choice(choice, "{}", finish),
                _ => text_choice(choice, "", finish),
            };
            let is_last = choice + 1 == self.generation.choices;
            let carries_usage = is_last
                && (behaviour.usage == UsageStyle::InLastContent
                    || (tells_usage && behaviour.usage == UsageStyle::EveryChunk));
            let data = self.chunk(&last, usage.as_deref().filter(|_| carries_usage));
            self.closing.push_back(plain(data));
        }
        if let Some(usage) = usage
            && tells_usage
            && behaviour.usage != UsageStyle::InLastContent
        {
            let data = self.chunk("", Some(&usage));
            self.closing.push_back(plain(data));
        }
        self.closing.push_back(plain("[DONE]".to_owned()));
    }

    fn chunk(&self, choice: &str, usage: Option<&str>) -> String {
        match usage {
            Some(usage) => format!(r#"{}{choice}],"usage":{usage}}}"#, self.chunk_head),
            None => format!("{}{choice}{}", self.chunk_head, self.chunk_tail),
        }
    }

    fn plan_response(&mut self, ask: &Ask, stamp: &Stamp, behaviour: &Behaviour) {
        let at_first = response_object(ask, &self.generation, stamp, false);
        let mut at_last = response_object(ask, &self.generation, stamp, true);
        let usage = self.generation.usage(self.endpoint, &behaviour.usage, self.generation.completion_tokens());
        if let (Some(object), Some(usage)) = (at_last.as_object_mut(), usage) {
            object.insert("usage".to_owned(), serde_json::from_str(&usage).unwrap_or(Value::Null));
        }
        let item = self.item_id.clone();
        let text = self.generation.text(0);
        for (name, value) in [
            ("response.created", json!({"response": at_first})),
            ("response.in_progress", json!({"response": at_first})),
            (
                "response.output_item.added",
                json!({"output_index": 0, "item": output_item(&self.generation, stamp, false)}),
            ),
            (
                "response.content_part.added",
                json!({"item_id": item, "output_index": 0, "content_index": 0, "part": output_text("")}),
            ),
        ] {
            let event = typed(name, value, self.next_number());
            self.opening.push_back(event);
        }
        let last = if self.generation.finish == Finish::Length { "response.incomplete" } else { "response.completed" };
        // The deltas have their numbers between opening and closing.
        self.sequence += self.generation.visible;
        for (name, value) in [
            (
                "response.output_text.done",
                json!({"item_id": item, "output_index": 0, "content_index": 0, "text": text, "logprobs": []}),
            ),
            (
                "response.content_part.done",
                json!({"item_id": item, "output_index": 0, "content_index": 0, "part": output_text(&text)}),
            ),
            (
                "response.output_item.done",
                json!({"output_index": 0, "item": output_item(&self.generation, stamp, true)}),
            ),
            (last, json!({"response": at_last})),
        ] {
            let event = typed(name, value, self.next_number());
            self.closing.push_back(event);
        }
    }

    /// Nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.opening.is_empty() && self.closing.is_empty() && self.all_said()
    }

    fn all_said(&self) -> bool {
        self.said >= self.generation.visible * self.generation.choices
    }

    fn next_number(&mut self) -> u64 {
        let number = self.sequence;
        self.sequence += 1;
        number
    }

    fn token(&mut self) -> Event {
        let (choice, index) = (self.said % self.generation.choices, self.said / self.generation.choices);
        self.said += 1;
        let text = quoted(self.generation.piece(choice, index));
        let mut event = match self.endpoint {
            Endpoint::Responses => {
                // The four opening events have the numbers before.
                let (item, number) = (&self.item_id, 3 + self.said);
                plain_named(
                    "response.output_text.delta",
                    format!(
                        r#"{{"type":"response.output_text.delta","sequence_number":{number},"item_id":"{item}","output_index":0,"content_index":0,"delta":{text},"logprobs":[]}}"#
                    ),
                )
            }
            endpoint => {
                let choice = match (endpoint, &self.generation.tool) {
                    (Endpoint::Chat, None) => chat_choice(choice, &format!(r#"{{"content":{text}}}"#), None),
                    (Endpoint::Chat, Some(_)) => chat_choice(
                        choice,
                        &format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{text}}}}}]}}"#),
                        None,
                    ),
                    _ => text_choice(choice, self.generation.piece(choice, index), None),
                };
                let so_far = self.said + self.generation.reasoning * self.generation.choices;
                let running = self
                    .running_usage
                    .then(|| self.generation.usage(endpoint, &UsageStyle::EveryChunk, so_far).unwrap_or_default());
                plain(self.chunk(&choice, running.as_deref()))
            }
        };
        event.tokens += 1;
        event.is_token = true;
        event
    }
}

impl Iterator for Script {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.opening.pop_front() {
            return Some(event);
        }
        if !self.all_said() {
            return Some(self.token());
        }
        self.closing.pop_front()
    }
}

fn chat_choice(choice: u64, delta: &str, finish: Option<Finish>) -> String {
    let finish = finish.map_or_else(|| "null".to_owned(), |finish| format!("\"{}\"", finish.word()));
    format!(r#"{{"index":{choice},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#)
}

fn text_choice(choice: u64, text: &str, finish: Option<Finish>) -> String {
    let finish = finish.map_or_else(|| "null".to_owned(), |finish| format!("\"{}\"", finish.word()));
    let text = quoted(text);
    format!(r#"{{"text":{text},"index":{choice},"logprobs":null,"finish_reason":{finish}}}"#)
}

fn plain(data: String) -> Event {
    Event { name: None, data, tokens: 0, is_token: false }
}

fn plain_named(name: &'static str, data: String) -> Event {
    Event { name: Some(name), data, tokens: 0, is_token: false }
}

fn typed(name: &'static str, mut value: Value, number: u64) -> Event {
    if let Some(object) = value.as_object_mut() {
        object.insert("type".to_owned(), json!(name));
        object.insert("sequence_number".to_owned(), json!(number));
    }
    plain_named(name, value.to_string())
}
