//! What a client asks for: found in its JSON without parsing the rest, changed without rewriting it.
//!
//! The scan validates the whole body as JSON but materialises only the fields that decide; each keeps its byte
//! range, so that an edit replaces those bytes and nothing else. Everything we do not know travels untouched.
//!
//! Two readers of one body must not see two meanings. A field we act on that stands twice, or in another case
//! (`Max_Tokens`: some servers match names without regard to case), is refused: else a client could tell us one
//! limit and the model another.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Reason};

/// The fields we act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    BestOf,
    Background,
}

const FIELDS: [(&str, Field); 9] = [
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("max_output_tokens", Field::MaxOutputTokens),
    ("n", Field::N),
    ("best_of", Field::BestOf),
    ("background", Field::Background),
];

/// A field's value: where it stands in the body, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found<T> {
    range: Range<usize>,
    value: T,
}

/// What a request says, as far as it decides anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    model: Found<Cow<'a, str>>,
    /// The client wants the answer as it comes.
    pub stream: bool,
    /// The client asked for the usage at the end of the stream.
    pub include_usage: bool,
    /// How to ask for the usage, if the client did not: what to write where.
    usage_edit: Option<(Range<usize>, &'static str)>,
    max_tokens: Option<Found<Option<u64>>>,
    max_completion_tokens: Option<Found<Option<u64>>>,
    max_output_tokens: Option<Found<Option<u64>>>,
    /// Answers asked for at once (the larger of `n` and `best_of`), at least 1.
    pub answers: u64,
    /// Where the object's first field may be inserted: behind its `{`.
    open: usize,
}

impl<'a> Head<'a> {
    /// Reads a body. Errors are the client's, and say which field.
    pub fn scan(body: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|error| malformed("The body is not UTF-8.").caused_by(error))?;
        let mut found = Vec::with_capacity(8);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_map(HeadVisitor { found: &mut found });
        read.and_then(|()| deserializer.end()).map_err(|error| describe(&error).caused_by(error))?;
        Self::from_fields(text, &found)
    }

    fn from_fields(text: &'a str, found: &[(Field, &'a RawValue)]) -> Result<Self, Error> {
        let raw = |field: Field| found.iter().find(|(name, _)| *name == field).map(|(_, raw)| *raw);
        let model = raw(Field::Model).ok_or_else(|| malformed("\"model\" is missing.").param("model"))?;
        let name: Cow<'a, str> = serde_json::from_str::<BorrowedStr<'a>>(model.get())
            .map(|text| text.0)
            .map_err(|_| malformed("\"model\" must be a string.").param("model"))?;
        if name.is_empty() || name.len() > MODEL_BYTES_MAX {
            return Err(malformed("\"model\" must be 1 to 256 bytes long.").param("model"));
        }
        if boolean(raw(Field::Background), "background")? == Some(true) {
            return Err(Error::new(
                Reason::Unsupported,
                "\"background\" calls are not supported: what they use could not be accounted.",
            )
            .param("background"));
        }
        let open = text.find('{').map_or(0, |at| at + 1);
        let usage_edit = match raw(Field::StreamOptions) {
            None => Some((open..open, "\"stream_options\":{\"include_usage\":true},")),
            Some(raw) => usage_edit(text, raw)?,
        };
        let n = integer(text, raw(Field::N), "n")?.and_then(|n| n.value).unwrap_or(1);
        let best_of = integer(text, raw(Field::BestOf), "best_of")?.and_then(|n| n.value).unwrap_or(1);
        Ok(Self {
            model: Found { range: range_in(text, model.get()), value: name },
            stream: boolean(raw(Field::Stream), "stream")?.unwrap_or(false),
            include_usage: usage_edit.is_none(),
            usage_edit,
            max_tokens: integer(text, raw(Field::MaxTokens), "max_tokens")?,
            max_completion_tokens: integer(text, raw(Field::MaxCompletionTokens), "max_completion_tokens")?,
            max_output_tokens: integer(text, raw(Field::MaxOutputTokens), "max_output_tokens")?,
            answers: n.max(best_of).max(1),
            open,
        })
    }

    /// The model, as the client calls it.
    pub fn model(&self) -> &str {
        &self.model.value
    }

    /// Output tokens the client allows for each answer: the largest of the fields it set, since we cannot know
    /// which one an upstream obeys.
    pub fn output_max(&self) -> Option<u64> {
        [&self.max_tokens, &self.max_completion_tokens, &self.max_output_tokens]
            .into_iter()
            .flatten()
            .filter_map(|found| found.value)
            .max()
    }

    /// Which field carries the limit to the upstream: one the client used, or the one given.
    fn limit_field<'f>(&self, default: &'f str) -> (&'f str, Option<&Range<usize>>) {
        match (&self.max_completion_tokens, &self.max_tokens, &self.max_output_tokens) {
            (Some(found), _, _) => ("max_completion_tokens", Some(&found.range)),
            (None, Some(found), _) => ("max_tokens", Some(&found.range)),
            (None, None, Some(found)) => ("max_output_tokens", Some(&found.range)),
            (None, None, None) => (default, None),
        }
    }
}

/// What we change in a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// What the upstream calls the model, if it calls it otherwise.
    pub model: Option<&'a str>,
    /// Ask for usage at the end of the stream, whatever the client said.
    pub include_usage: bool,
    /// Output tokens at most, for each answer, and the field that carries it if the client used none.
    pub output_max: Option<(u64, &'a str)>,
}

impl Edits<'_> {
    /// The body to send: the client's bytes with the edits spliced in, or the same buffer if nothing changes.
    pub fn splice(&self, body: &Bytes, head: &Head<'_>) -> Bytes {
        let mut pieces: Vec<(Range<usize>, Cow<'static, str>)> = Vec::with_capacity(6);
        if let Some(model) = self.model.filter(|model| *model != head.model()) {
            pieces.push((head.model.range.clone(), Cow::Owned(serde_json::Value::from(model).to_string())));
        }
        if self.include_usage && head.stream {
            pieces.extend(head.usage_edit.clone().map(|(range, text)| (range, Cow::Borrowed(text))));
        }
        if let Some((most, default)) = self.output_max {
            let (name, range) = head.limit_field(default);
            match range {
                Some(range) => pieces.push((range.clone(), Cow::Owned(most.to_string()))),
                None => pieces.push((head.open..head.open, Cow::Owned(format!("\"{name}\":{most},")))),
            }
            // A second limit field must not say more than the first.
            for other in [&head.max_tokens, &head.max_completion_tokens, &head.max_output_tokens].into_iter().flatten()
            {
                if Some(&other.range) != range && other.value.is_none_or(|value| value > most) {
                    pieces.push((other.range.clone(), Cow::Owned(most.to_string())));
                }
            }
        }
        apply(body, pieces)
    }
}

fn apply(body: &Bytes, mut pieces: Vec<(Range<usize>, Cow<'static, str>)>) -> Bytes {
    if pieces.is_empty() {
        return body.clone();
    }
    pieces.sort_by_key(|(range, _)| range.start);
    let mut out = BytesMut::with_capacity(body.len() + pieces.iter().map(|(_, text)| text.len()).sum::<usize>());
    let mut at = 0;
    for (range, text) in pieces {
        out.put_slice(body.get(at..range.start).unwrap_or_default());
        out.put_slice(text.as_bytes());
        at = range.end;
    }
    out.put_slice(body.get(at..).unwrap_or_default());
    out.freeze()
}

/// Names of models are short; a long one is an attack on logs and caches.
const MODEL_BYTES_MAX: usize = 256;
/// Above this a limit says nothing; it also keeps sums far from overflow.
const TOKENS_MAX: u64 = 1 << 40;

/// What to write where, so that `stream_options` asks for the usage; `None` if it does already.
fn usage_edit(text: &str, raw: &RawValue) -> Result<Option<(Range<usize>, &'static str)>, Error> {
    let range = range_in(text, raw.get());
    if raw.get() == "null" {
        return Ok(Some((range, "{\"include_usage\":true}")));
    }
    let mut options = UsageVisitor { usage: None, empty: true };
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer
        .deserialize_map(&mut options)
        .map_err(|_| malformed("\"stream_options\" must be an object.").param("stream_options"))?;
    let inside = range.start + 1;
    Ok(match options.usage {
        Some(usage) if boolean(Some(usage), "stream_options.include_usage")? == Some(true) => None,
        Some(usage) => Some((range_in(text, usage.get()), "true")),
        None if options.empty => Some((inside..inside, "\"include_usage\":true")),
        None => Some((inside..inside, "\"include_usage\":true,")),
    })
}

struct HeadVisitor<'v, 'a> {
    found: &'v mut Vec<(Field, &'a RawValue)>,
}

impl<'a> Visitor<'a> for HeadVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(BorrowedStr(key)) = map.next_key::<BorrowedStr<'a>>()? {
            let Some((name, field)) = FIELDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if *name != key {
                return Err(serde::de::Error::custom(Ambiguous { name, how: "is not written in lower case" }));
            }
            if self.found.iter().any(|(other, _)| other == field) {
                return Err(serde::de::Error::custom(Ambiguous { name, how: "stands twice" }));
            }
            let raw = map.next_value::<&'a RawValue>()?;
            self.found.push((*field, raw));
        }
        Ok(())
    }
}

struct UsageVisitor<'a> {
    usage: Option<&'a RawValue>,
    empty: bool,
}

impl<'a> Visitor<'a> for &mut UsageVisitor<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(BorrowedStr(key)) = map.next_key::<BorrowedStr<'a>>()? {
            if !key.eq_ignore_ascii_case("include_usage") {
                map.next_value::<IgnoredAny>()?;
            } else if key != "include_usage" || self.usage.is_some() {
                return Err(serde::de::Error::custom("ambiguous"));
            } else {
                self.usage = Some(map.next_value::<&'a RawValue>()?);
            }
            self.empty = false;
        }
        Ok(())
    }
}

/// A string that borrows from the input unless it holds escapes.
struct BorrowedStr<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for BorrowedStr<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrVisitor;
        impl<'de> Visitor<'de> for StrVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(StrVisitor).map(BorrowedStr)
    }
}

/// How the visitor says what it refused; recognised again in [`describe`].
struct Ambiguous {
    name: &'static str,
    how: &'static str,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ambiguous: \"{}\" {}", self.name, self.how)
    }
}

fn describe(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    match text.strip_prefix("ambiguous: ") {
        // Our own words about a field of our own list: nothing of the client's text.
        Some(what) => malformed(format!("{}.", what.split(" at line").next().unwrap_or_default())),
        None => malformed(format!(
            "The body is not a JSON object that can be read: look near line {}, column {}.",
            error.line(),
            error.column()
        )),
    }
}

fn malformed(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Reason::Malformed, message)
}

fn boolean(raw: Option<&RawValue>, name: &'static str) -> Result<Option<bool>, Error> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(malformed(format!("\"{name}\" must be true or false.")).param(name)),
    }
}

/// `null` is OpenAI's word for "not given", but its bytes are there: a clamp must replace them.
fn integer(text: &str, raw: Option<&RawValue>, name: &'static str) -> Result<Option<Found<Option<u64>>>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    if raw.get() == "null" {
        return Ok(Some(Found { range: range_in(text, raw.get()), value: None }));
    }
    let value: u64 = raw
        .get()
        .parse()
        .ok()
        .filter(|value| (1..=TOKENS_MAX).contains(value))
        .ok_or_else(|| malformed(format!("\"{name}\" must be a whole number of at least 1.")).param(name))?;
    Ok(Some(Found { range: range_in(text, raw.get()), value: Some(value) }))
}

/// Where `part`, a slice of `text`, stands in it.
fn range_in(text: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn splice(body: &str, edits: Edits<'_>) -> String {
        let head = Head::scan(body.as_bytes()).unwrap();
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        String::from_utf8(edits.splice(&bytes, &head).to_vec()).unwrap()
    }

    #[track_caller]
    fn refused(body: &str, words: &str) {
        let error = Head::scan(body.as_bytes()).unwrap_err();
        assert_eq!(error.reason.fault(), crate::error::Fault::Client);
        assert!(error.message.contains(words), "{body}: {}", error.message);
    }

    #[test]
    fn the_head_is_read_and_the_rest_is_not_looked_at() {
        let body = r#"{"messages":[{"role":"user","content":"hi","model":"inner"}],"model":"gpt-4o","stream":true,
            "stream_options":{"include_usage":true},"max_tokens":7,"max_completion_tokens":9,"n":2}"#;
        let head = Head::scan(body.as_bytes()).unwrap();
        assert_eq!((head.model(), head.stream, head.include_usage), ("gpt-4o", true, true));
        assert_eq!((head.output_max(), head.answers), (Some(9), 2));
    }

    #[test]
    fn what_is_not_edited_is_the_same_buffer() {
        let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
        let head = Head::scan(&body).unwrap();
        let sent = Edits { include_usage: true, model: Some("m"), output_max: None }.splice(&body, &head);
        assert_eq!(sent.as_ptr(), body.as_ptr());
    }

    #[test]
    fn edits_touch_nothing_else() {
        let usage = Edits { include_usage: true, ..Edits::default() };
        for (body, expected) in [
            (
                r#"{"model":"m","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
            ),
            (
                r#"{ "stream" : true, "stream_options" : { "x" : 1 } , "model":"m"}"#,
                r#"{ "stream" : true, "stream_options" : {"include_usage":true, "x" : 1 } , "model":"m"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":false},"model":"m"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{},"model":"m"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":null,"model":"m"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
            ),
            (r#"{"model":"m","stream":false}"#, r#"{"model":"m","stream":false}"#),
        ] {
            assert_eq!(splice(body, usage), expected);
        }
        let rename = Edits { model: Some("lla\"ma"), ..Edits::default() };
        assert_eq!(splice(r#"{"a":"gpt","model":"gpt"}"#, rename), r#"{"a":"gpt","model":"lla\"ma"}"#);
    }

    #[test]
    fn a_clamp_reaches_every_field_that_could_say_more() {
        let clamp = Edits { output_max: Some((5, "max_tokens")), ..Edits::default() };
        for (body, expected) in [
            (r#"{"model":"m"}"#, r#"{"max_tokens":5,"model":"m"}"#),
            (r#"{"model":"m","max_tokens":50}"#, r#"{"model":"m","max_tokens":5}"#),
            (
                r#"{"model":"m","max_tokens":50,"max_completion_tokens":70}"#,
                r#"{"model":"m","max_tokens":5,"max_completion_tokens":5}"#,
            ),
            (r#"{"model":"m","max_tokens":null}"#, r#"{"model":"m","max_tokens":5}"#),
            (
                r#"{"model":"m","max_tokens":null,"max_completion_tokens":2}"#,
                r#"{"model":"m","max_tokens":5,"max_completion_tokens":5}"#,
            ),
        ] {
            assert_eq!(splice(body, clamp), expected);
        }
    }

    #[test]
    fn two_meanings_are_refused() {
        refused(r#"{"model":"a","model":"b"}"#, "\"model\" stands twice");
        refused(r#"{"model":"a","Max_Tokens":5}"#, "\"max_tokens\" is not written in lower case");
        refused(r#"{"model":"a","max_tokens":5,"max_token\u0073":5000}"#, "\"max_tokens\" stands twice");
        refused(r#"{"model":"a","stream_options":{"include_usage":true,"Include_Usage":false}}"#, "stream_options");
    }

    #[test]
    fn nonsense_is_named() {
        refused("", "line 1");
        refused("[]", "line 1");
        refused(r#"{"model":"a"} x"#, "line 1");
        refused(r#"{"messages":[]}"#, "\"model\" is missing");
        refused(r#"{"model":7}"#, "must be a string");
        refused(r#"{"model":""}"#, "1 to 256");
        refused(r#"{"model":"a","stream":"yes"}"#, "true or false");
        for limit in ["-1", "0", "1.5", "\"7\"", "99999999999999999999"] {
            refused(&format!(r#"{{"model":"a","max_tokens":{limit}}}"#), "whole number");
        }
        refused(r#"{"model":"a","background":true}"#, "not supported");
        assert!(Head::scan(b"{\"model\":\"\xff\"}").is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"x\":{}{},\"model\":\"a\"}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(Head::scan(deep.as_bytes()).unwrap().model(), "a");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::scan(&body);
        }

        /// Whatever stands around the fields: the edited body says what the edits say, and all else as before.
        #[test]
        fn edited_bodies_mean_what_they_should(
            before in "[a-z]{1,8}", text in "\\PC{0,20}", stream in any::<bool>(),
            max in proptest::option::of(1u64..1000), usage in proptest::option::of(any::<bool>()),
        ) {
            let mut value = serde_json::json!({ format!("{before}_x"): text, "model": "m", "stream": stream });
            if let Some(max) = max { value["max_tokens"] = max.into(); }
            if let Some(usage) = usage { value["stream_options"] = serde_json::json!({"include_usage": usage}); }
            let body = Bytes::from(value.to_string());
            let head = Head::scan(&body).unwrap();
            let edits = Edits { model: Some("other"), include_usage: true, output_max: Some((3, "max_tokens")) };
            let sent: serde_json::Value = serde_json::from_slice(&edits.splice(&body, &head)).unwrap();
            value["model"] = "other".into();
            value["max_tokens"] = 3.into();
            if stream { value["stream_options"] = serde_json::json!({"include_usage": true}); }
            prop_assert_eq!(sent, value);
        }
    }
}
