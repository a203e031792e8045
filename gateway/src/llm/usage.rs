//! What a model says it used: found in a unary answer or in a stream's frame, without reading the rest.
//!
//! Providers differ: `prompt_tokens`/`completion_tokens` on chat, `input_tokens`/`output_tokens` on responses and
//! embeddings, cached and reasoning parts in nested details. An explicit 0 is 0. A negative, fractional or
//! absurd figure is no figure: the caller then charges its own count and marks it as estimated.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::Value;

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

#[derive(Deserialize)]
struct AnswerJson {
    #[serde(default)]
    usage: Option<UsageJson>,
}

/// Reads a usage object by itself. Something else is no usage.
pub fn object(json: &str, output_expected: bool) -> Option<Usage> {
    serde_json::from_str::<UsageJson>(json).ok()?.usage(output_expected)
}

/// Reads a unary answer's usage. Outer error: the answer is not a JSON object at all.
pub fn answer(body: &[u8], output_expected: bool) -> Result<Option<Usage>, serde_json::Error> {
    let json: AnswerJson = serde_json::from_slice(body)?;
    Ok(json.usage.as_ref().and_then(|usage| usage.usage(output_expected)))
}

/// Bytes of text in an answer that told no usage: what the model wrote, without what stands around it.
pub fn written_bytes(body: &[u8]) -> u64 {
    fn walk(value: &Value, written: &mut u64) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if WRITTEN.contains(&name.as_str()) => *written += text.len() as u64,
                        _ => walk(value, written),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, written)),
            _ => {}
        }
    }
    let mut written = 0;
    walk(&serde_json::from_slice(body).unwrap_or_default(), &mut written);
    written
}

/// The fields of an answer that hold a model's words, on any endpoint.
const WRITTEN: [&str; 6] = ["content", "text", "arguments", "refusal", "reasoning_content", "reasoning"];

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
    fn an_answer_without_usage_is_measured_by_its_words() {
        let chat = br#"{"model":"a-long-name","choices":[{"message":{"role":"assistant","content":"12345",
            "tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(written_bytes(chat), 7);
        let responses = br#"{"instructions":"many words that came from the client","text":{"format":{"type":"text"}},
            "output":[{"content":[{"type":"output_text","text":"123"}]}]}"#;
        assert_eq!(written_bytes(responses), 3);
        assert_eq!(written_bytes(br#"{"data":[{"embedding":"AAAA"}]}"#), 0);
        assert_eq!(written_bytes(b"<html>"), 0);
    }
}
