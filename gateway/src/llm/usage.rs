//! What a model says it used: found in a unary answer or in a stream's frame, without reading the rest.
//!
//! Providers differ: `prompt_tokens`/`completion_tokens` on chat, `input_tokens`/`output_tokens` on responses and
//! embeddings, cached and reasoning parts in nested details. An explicit 0 is 0. A negative, fractional or
//! absurd figure is no figure: the caller then charges its own count and marks it as estimated.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

/// Model tokens of one call, as the provider told them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// The cached part of the prompt.
    pub cached: u64,
    /// Answer tokens, reasoning included.
    pub output: u64,
    /// The reasoning part of the answer.
    pub reasoning: u64,
}

/// More than this for one call is a lie: ten times the largest context there is.
const TOKENS_MAX: u64 = 100_000_000;

#[derive(Deserialize)]
struct UsageJson {
    #[serde(default, alias = "input_tokens", deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(default, alias = "output_tokens", deserialize_with = "count")]
    completion_tokens: Option<u64>,
    #[serde(default, alias = "input_tokens_details")]
    prompt_tokens_details: Option<InputDetails>,
    #[serde(default, alias = "output_tokens_details")]
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "count")]
    reasoning_tokens: Option<u64>,
}

/// A whole number within reason, or nothing.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Other(IgnoredAny),
    }
    Ok(match Number::deserialize(deserializer)? {
        Number::Whole(n) if n <= TOKENS_MAX => Some(n),
        Number::Whole(_) => None,
        Number::Other(IgnoredAny) => None,
    })
}

impl UsageJson {
    /// `None` unless the prompt was told: a usage without it is none. An absent output counts as 0 only where
    /// there is none to count (embeddings); a nonsense one makes the whole untrusted.
    fn usage(&self, output_expected: bool) -> Option<Usage> {
        let input = self.prompt_tokens?;
        let output = match self.completion_tokens {
            Some(output) => output,
            None if output_expected => return None,
            None => 0,
        };
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0);
        let reasoning =
            self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens).unwrap_or(0);
        Some(Usage { input, cached: cached.min(input), output, reasoning: reasoning.min(output) })
    }
}

/// A stream frame's data, as far as it is accounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The usage, if the frame tells one.
    pub usage: Option<Usage>,
    /// The frame tells the usage and nothing else: `choices` is empty.
    pub usage_only: bool,
}

#[derive(Deserialize)]
struct ChunkJson<'a> {
    #[serde(default)]
    usage: Option<UsageJson>,
    #[serde(default, borrow)]
    choices: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct AnswerJson {
    #[serde(default)]
    usage: Option<UsageJson>,
}

/// Reads a frame that was seen to contain `"usage"`. Data that is not such an object gives the empty chunk.
pub fn chunk(data: &[u8]) -> Chunk {
    let Ok(json) = serde_json::from_slice::<ChunkJson<'_>>(data) else { return Chunk::default() };
    let empty =
        json.choices.is_some_and(|choices| choices.get().bytes().filter(|byte| !byte.is_ascii_whitespace()).eq(*b"[]"));
    Chunk { usage: json.usage.as_ref().and_then(|usage| usage.usage(true)), usage_only: empty && json.usage.is_some() }
}

/// Reads a unary answer's usage. Outer error: the answer is not a JSON object at all.
pub fn answer(body: &[u8], output_expected: bool) -> Result<Option<Usage>, serde_json::Error> {
    let json: AnswerJson = serde_json::from_slice(body)?;
    Ok(json.usage.as_ref().and_then(|usage| usage.usage(output_expected)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_s_words_are_understood() {
        let chat = br#"{"id":"x","choices":[{"message":{"content":"usage"}}],"usage":{"prompt_tokens":12,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":2}}}"#;
        assert_eq!(answer(chat, true).unwrap(), Some(Usage { input: 12, cached: 8, output: 3, reasoning: 2 }));
        let responses = br#"{"usage":{"input_tokens":5,"output_tokens":0,"input_tokens_details":null}}"#;
        assert_eq!(answer(responses, true).unwrap(), Some(Usage { input: 5, ..Usage::default() }));
        let embeddings = br#"{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
        assert_eq!(answer(embeddings, false).unwrap(), Some(Usage { input: 5, ..Usage::default() }));
    }

    #[test]
    fn nonsense_is_no_figure() {
        for usage in [
            r#"{"prompt_tokens":-1,"completion_tokens":3}"#,
            r#"{"prompt_tokens":1,"completion_tokens":1.5}"#,
            r#"{"prompt_tokens":1,"completion_tokens":18446744073709551615}"#,
            r#"{"prompt_tokens":"7","completion_tokens":3}"#,
            r#"{"prompt_tokens":1}"#,
            r#"{}"#,
            "null",
        ] {
            let body = format!("{{\"usage\":{usage}}}");
            assert_eq!(answer(body.as_bytes(), true).unwrap(), None, "{usage}");
        }
        assert!(answer(b"<html>", true).is_err());
    }

    #[test]
    fn a_usage_frame_is_told_from_a_content_frame() {
        let only = chunk(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
        assert!(only.usage_only && only.usage.is_some());
        let both = chunk(br#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
        assert!(!both.usage_only && both.usage.is_some());
        let neither = chunk(br#"{"choices":[{"delta":{"content":"usage"}}],"usage":null}"#);
        assert_eq!(neither, Chunk::default());
        assert_eq!(chunk(b"[DONE]"), Chunk::default());
    }
}
