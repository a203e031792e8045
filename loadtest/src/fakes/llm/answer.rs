//! What is generated for a request, and the unary documents that carry it.
//!
//! The documents have the fields official clients and OpenAI's strict schema expect, nulls included.
//! Chat and text completions are written as text, not built as trees: they are what load is made of.

use serde_json::{Value, json};

use super::behaviour::{Behaviour, Dice, UsageStyle};
use super::request::{Ask, Endpoint};

/// The words a fake without a text of its own says, over and over, from a place that depends on the choice.
const WORDS: [&str; 16] = [
    "the ",
    "parcel ",
    "is ",
    "on ",
    "its ",
    "way ",
    "and ",
    "will ",
    "be ",
    "with ",
    "you ",
    "by ",
    "noon ",
    "on ",
    "the morrow ",
    "indeed ",
];

/// Numbers in an embedding unless the client says otherwise.
const DIMENSIONS: u64 = 16;
/// Numbers in an embedding at most.
const DIMENSIONS_MAX: u64 = 4096;

/// Why the output ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    ToolCalls,
}

impl Finish {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// Everything generated for one request; all choices have the same length.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// The pieces of the text or of the tool's arguments; without them, `WORDS`.
    pieces: Option<Vec<String>>,
    /// The tool called, if one is.
    pub(super) tool: Option<String>,
    /// Tokens of one choice that are shown.
    pub(super) visible: u64,
    /// Tokens of one choice that are not.
    pub(super) reasoning: u64,
    pub(super) finish: Finish,
    pub(super) choices: u64,
    hidden_choices: u64,
    pub(super) prompt_tokens: u64,
    cached_tokens: u64,
}

impl Generation {
    pub(super) fn of(ask: &Ask, behaviour: &Behaviour) -> Self {
        let prompt_tokens = ask.prompt_bytes.div_ceil(behaviour.bytes_per_token.max(1)).max(1);
        let calls = behaviour.tool_call.iter().chain(&behaviour.then_calls);
        let tool = ask.tool_results.and_then(|results| calls.into_iter().nth(results));
        let text = tool.map(|tool| &tool.arguments).or(behaviour.answer.as_ref());
        let pieces = text.map(|text| text.split_inclusive(' ').map(str::to_owned).collect::<Vec<_>>());
        let wanted = match (ask.endpoint, &pieces) {
            (Endpoint::Embeddings, _) => 0,
            (_, Some(pieces)) => pieces.len() as u64,
            (_, None) => behaviour.tokens,
        };
        let reasoning = if ask.endpoint == Endpoint::Embeddings { 0 } else { behaviour.reasoning_tokens };
        let allowed = ask.output_tokens_max.unwrap_or(u64::MAX);
        let reasoning_done = reasoning.min(allowed);
        let visible = wanted.min(allowed - reasoning_done);
        let finish = match tool {
            _ if visible < wanted || reasoning_done < reasoning => Finish::Length,
            Some(_) => Finish::ToolCalls,
            None => Finish::Stop,
        };
        Self {
            pieces,
            tool: tool.map(|tool| tool.name.clone()),
            visible,
            reasoning: reasoning_done,
            finish,
            choices: ask.choices,
            hidden_choices: ask.hidden_choices,
            prompt_tokens,
            cached_tokens: behaviour.cached_tokens.min(prompt_tokens),
        }
    }

    /// The `index`th visible token of a choice.
    pub(super) fn piece(&self, choice: u64, index: u64) -> &str {
        let at = |index: u64, len: usize| usize::try_from(index % (len.max(1) as u64)).unwrap_or(0);
        match &self.pieces {
            Some(pieces) => pieces.get(at(index, pieces.len())).map_or("", String::as_str),
            None => WORDS.get(at(index.wrapping_add(choice), WORDS.len())).copied().unwrap_or(""),
        }
    }

    /// All of a choice's text (or of the tool's arguments).
    pub(super) fn text(&self, choice: u64) -> String {
        (0..self.visible).map(|index| self.piece(choice, index)).collect()
    }

    /// Output tokens of everything, shown or not.
    pub(super) fn completion_tokens(&self) -> u64 {
        (self.visible + self.reasoning) * (self.choices + self.hidden_choices)
    }

    /// The usage object as JSON, or nothing where the style says nothing. `completion_tokens` is what
    /// was generated so far; 0 reasoning tokens are reported as such.
    pub(super) fn usage(&self, endpoint: Endpoint, style: &UsageStyle, completion_tokens: u64) -> Option<String> {
        let reasoning = (self.reasoning * (self.choices + self.hidden_choices)).min(completion_tokens);
        let (prompt, completion, total): (i128, i128, i128) = match style {
            UsageStyle::Absent => return None,
            UsageStyle::Raw(text) => return Some(text.clone()),
            UsageStyle::Zero => (0, 0, 0),
            UsageStyle::Negative => (-7, -11, -18),
            UsageStyle::Huge => (1_000_000_000_000_000_000, 1_000_000_000_000_000_000, 2_000_000_000_000_000_000),
            UsageStyle::Honest | UsageStyle::InLastContent | UsageStyle::EveryChunk => {
                let (prompt, completion) = (i128::from(self.prompt_tokens), i128::from(completion_tokens));
                (prompt, completion, prompt + completion)
            }
        };
        let cached = self.cached_tokens;
        Some(match endpoint {
            Endpoint::Embeddings => format!(r#"{{"prompt_tokens":{prompt},"total_tokens":{total}}}"#),
            Endpoint::Responses => format!(
                r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{completion},"output_tokens_details":{{"reasoning_tokens":{reasoning}}},"total_tokens":{total}}}"#
            ),
            Endpoint::Chat | Endpoint::Completions => format!(
                r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
            ),
        })
    }
}

/// What stands in every document of one call.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    /// Unique in this fake, without a prefix.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
}

impl Stamp {
    /// The `id` a client sees.
    pub(super) fn id(&self, endpoint: Endpoint) -> String {
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl-",
            Endpoint::Completions => "cmpl-",
            Endpoint::Responses => "resp_",
            Endpoint::Embeddings => "embd-",
        };
        format!("{prefix}{}", self.id)
    }
}

/// The whole answer as one JSON document.
pub(super) fn unary(ask: &Ask, generation: &Generation, stamp: &Stamp, style: &UsageStyle) -> String {
    let usage = generation.usage(ask.endpoint, style, generation.completion_tokens());
    let usage = usage.map_or_else(String::new, |usage| format!(r#","usage":{usage}"#));
    let (id, created, model) = (stamp.id(ask.endpoint), stamp.created, quoted(&ask.model));
    match ask.endpoint {
        Endpoint::Chat => {
            let choices = join((0..generation.choices).map(|choice| chat_choice(generation, stamp, choice)));
            format!(
                r#"{{"id":"{id}","object":"chat.completion","created":{created},"model":{model},"choices":[{choices}]{usage},"service_tier":"default","system_fingerprint":"fp_relaisfake"}}"#
            )
        }
        Endpoint::Completions => {
            let finish = generation.finish.word();
            let choices = join((0..generation.choices).map(|choice| {
                let text = quoted(&generation.text(choice));
                format!(r#"{{"text":{text},"index":{choice},"logprobs":null,"finish_reason":"{finish}"}}"#)
            }));
            format!(
                r#"{{"id":"{id}","object":"text_completion","created":{created},"model":{model},"choices":[{choices}]{usage},"system_fingerprint":"fp_relaisfake"}}"#
            )
        }
        Endpoint::Responses => {
            let mut response = response_object(ask, generation, stamp, true);
            if let (Some(object), Some(usage)) =
                (response.as_object_mut(), generation.usage(ask.endpoint, style, generation.completion_tokens()))
            {
                object.insert("usage".to_owned(), serde_json::from_str(&usage).unwrap_or(Value::Null));
            }
            response.to_string()
        }
        Endpoint::Embeddings => {
            let data = join((0..ask.inputs).map(|index| embedding(ask, index)));
            format!(r#"{{"object":"list","data":[{data}],"model":{model}{usage}}}"#)
        }
    }
}

fn chat_choice(generation: &Generation, stamp: &Stamp, choice: u64) -> String {
    let (text, finish) = (quoted(&generation.text(choice)), generation.finish.word());
    let (content, calls) = match &generation.tool {
        None => (text, String::new()),
        Some(name) => {
            let name = quoted(name);
            let id = tool_call_id(stamp, choice);
            let call = format!(r#"{{"id":"{id}","type":"function","function":{{"name":{name},"arguments":{text}}}}}"#);
            ("null".to_owned(), format!(r#","tool_calls":[{call}]"#))
        }
    };
    format!(
        r#"{{"index":{choice},"message":{{"role":"assistant","content":{content},"refusal":null,"annotations":[]{calls}}},"logprobs":null,"finish_reason":"{finish}"}}"#
    )
}

pub(super) fn tool_call_id(stamp: &Stamp, choice: u64) -> String {
    format!("call_{}{choice}", stamp.id)
}

/// The `response` object of `/v1/responses` without its usage: done, or as it stands at the beginning.
pub(super) fn response_object(ask: &Ask, generation: &Generation, stamp: &Stamp, done: bool) -> Value {
    let cut = generation.finish == Finish::Length;
    let status = match (done, cut) {
        (false, _) => "in_progress",
        (true, true) => "incomplete",
        (true, false) => "completed",
    };
    let output = if done { json!([output_item(generation, stamp, true)]) } else { json!([]) };
    json!({
        "id": stamp.id(Endpoint::Responses),
        "object": "response",
        "created_at": stamp.created,
        "completed_at": if done && !cut { json!(stamp.created) } else { Value::Null },
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": if done && cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": null,
        "max_output_tokens": ask.output_tokens_max,
        "max_tool_calls": null,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "prompt_cache_key": null,
        "reasoning": {"effort": null, "summary": null},
        "safety_identifier": null,
        "service_tier": "default",
        "store": true,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": null,
        "user": ask.user,
        "metadata": {},
    })
}

pub(super) fn output_item(generation: &Generation, stamp: &Stamp, done: bool) -> Value {
    let status = match (done, generation.finish) {
        (false, _) => "in_progress",
        (true, Finish::Length) => "incomplete",
        (true, _) => "completed",
    };
    let content = if done { json!([output_text(&generation.text(0))]) } else { json!([]) };
    json!({"id": message_id(stamp), "type": "message", "status": status, "role": "assistant", "content": content})
}

pub(super) fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub(super) fn message_id(stamp: &Stamp) -> String {
    format!("msg_{}", stamp.id)
}

fn embedding(ask: &Ask, index: u64) -> String {
    let dimensions = ask.dimensions.unwrap_or(DIMENSIONS).clamp(1, DIMENSIONS_MAX);
    let mut dice = Dice(ask.prompt_bytes.wrapping_mul(31).wrapping_add(index));
    // Between -1 and 1 in steps of 1/128, so that text and base64 say exactly the same.
    let numbers = (0..dimensions).map(|_| (f32::from(u8::try_from(dice.roll() % 256).unwrap_or(0)) - 128.0) / 128.0);
    let shown = if ask.base64 {
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        format!("\"{}\"", base64(&bytes))
    } else {
        format!("[{}]", join(numbers.map(|number| number.to_string())))
    };
    format!(r#"{{"object":"embedding","index":{index},"embedding":{shown}}}"#)
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for digit in 0..4usize {
            let index = usize::try_from((bits >> (18 - 6 * digit)) & 63).unwrap_or(0);
            let letter = ALPHABET.get(index).copied().unwrap_or(b'=');
            text.push(char::from(if digit <= three.len() { letter } else { b'=' }));
        }
    }
    text
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
