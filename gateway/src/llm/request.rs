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
use std::ops::{Range, RangeInclusive};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Reason};
use crate::llm::endpoint::Endpoint;

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
    Prompt,
    Background,
    PreviousResponseId,
    Conversation,
}

const FIELDS: [(&str, Field); 12] = [
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("max_output_tokens", Field::MaxOutputTokens),
    ("n", Field::N),
    ("best_of", Field::BestOf),
    ("prompt", Field::Prompt),
    ("background", Field::Background),
    ("previous_response_id", Field::PreviousResponseId),
    ("conversation", Field::Conversation),
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
    endpoint: Endpoint,
    model: Found<Cow<'a, str>>,
    /// The client wants the answer as it comes.
    pub stream: bool,
    /// The client asked for the usage at the end of the stream.
    pub include_usage: bool,
    /// How to ask for the usage, if the client did not: what to write where.
    usage_edit: Option<(Range<usize>, &'static str)>,
    /// The fields of this endpoint that limit the output, as far as the client gave them; the first is the one
    /// a clamp goes into.
    limits: Vec<(&'static str, Found<Option<u64>>)>,
    /// Answers written: the larger of `n` and `best_of` for each prompt, at least 1.
    pub answers: u64,
    /// Part of the prompt is kept by the upstream and stands in no byte of the body.
    pub continues: bool,
    /// Where the object's first field may be inserted: behind its `{`.
    open: usize,
}

impl<'a> Head<'a> {
    /// Reads a body. Errors are the client's, and say which field.
    pub fn scan(endpoint: Endpoint, body: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|error| malformed("The body is not UTF-8.").caused_by(error))?;
        let mut found = Vec::with_capacity(8);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_map(HeadVisitor { found: &mut found });
        read.and_then(|()| deserializer.end()).map_err(|error| describe(&error).caused_by(error))?;
        Self::from_fields(endpoint, text, &found)
    }

    fn from_fields(endpoint: Endpoint, text: &'a str, found: &[(Field, &'a RawValue)]) -> Result<Self, Error> {
        let raw = |field: Field| found.iter().find(|(name, _)| *name == field).map(|(_, raw)| *raw);
        let given = |field: Field| raw(field).is_some_and(|raw| raw.get() != "null");
        let model = raw(Field::Model).ok_or_else(|| malformed("\"model\" is missing.").param("model"))?;
        let name: Cow<'a, str> = serde_json::from_str::<BorrowedStr<'a>>(model.get())
            .map(|text| text.0)
            .map_err(|_| malformed("\"model\" must be a string.").param("model"))?;
        if name.is_empty() || name.chars().nth(MODEL_CHARS_MAX).is_some() {
            return Err(malformed("\"model\" must be 1 to 256 characters long.").param("model"));
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
            _ if !endpoint.asks_for_usage() => None,
            None => Some((open..open, "\"stream_options\":{\"include_usage\":true},")),
            Some(raw) => usage_edit(text, raw)?,
        };
        let mut limits = Vec::new();
        for (name, field) in limit_fields(endpoint) {
            limits.extend(
                integer(text, raw(*field), name, endpoint.output_min()..=TOKENS_MAX)?.map(|found| (*name, found)),
            );
        }
        Ok(Self {
            endpoint,
            model: Found { range: range_in(text, model.get()), value: name },
            stream: endpoint.has_output() && boolean(raw(Field::Stream), "stream")?.unwrap_or(false),
            include_usage: usage_edit.is_none(),
            usage_edit,
            limits,
            answers: answers(endpoint, text, raw)?,
            continues: endpoint == Endpoint::Responses
                && [Field::PreviousResponseId, Field::Conversation, Field::Prompt].into_iter().any(given),
            open,
        })
    }

    /// Which call it is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The model, as the client calls it.
    pub fn model(&self) -> &str {
        &self.model.value
    }

    /// Output tokens the client allows for each answer: the largest of the fields it set, since we cannot know
    /// which one an upstream obeys. Fields of other endpoints limit nothing here. Where nothing is written, 0.
    pub fn output_max(&self) -> Option<u64> {
        if !self.endpoint.has_output() {
            return Some(0);
        }
        self.limits.iter().filter_map(|(_, found)| found.value).max()
    }
}

/// The fields that limit the output, the preferred first.
fn limit_fields(endpoint: Endpoint) -> &'static [(&'static str, Field)] {
    match endpoint {
        Endpoint::Chat => &[("max_completion_tokens", Field::MaxCompletionTokens), ("max_tokens", Field::MaxTokens)],
        Endpoint::Responses => &[("max_output_tokens", Field::MaxOutputTokens)],
        Endpoint::Completions => &[("max_tokens", Field::MaxTokens)],
        Endpoint::Embeddings => &[],
    }
}

/// How many answers are written for this request. A completion writes them for each of its prompts.
fn answers<'a>(endpoint: Endpoint, text: &str, raw: impl Fn(Field) -> Option<&'a RawValue>) -> Result<u64, Error> {
    let count = |field, name| -> Result<u64, Error> {
        Ok(integer(text, raw(field), name, 1..=ANSWERS_MAX)?.and_then(|found| found.value).unwrap_or(1))
    };
    match endpoint {
        Endpoint::Chat | Endpoint::Completions => {
            let each = count(Field::N, "n")?.max(count(Field::BestOf, "best_of")?);
            let prompts = if endpoint == Endpoint::Completions { raw(Field::Prompt).map_or(1, prompts) } else { 1 };
            Ok(each.saturating_mul(prompts))
        }
        Endpoint::Responses | Endpoint::Embeddings => Ok(1),
    }
}

/// How many prompts a completion's `prompt` holds: as many as an array has texts or arrays of tokens; a text, or
/// one array of tokens, is one.
fn prompts(prompt: &RawValue) -> u64 {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
            let (mut count, mut only_numbers) = (0, true);
            while let Some(item) = items.next_element::<&'de RawValue>()? {
                count += 1;
                only_numbers &= item.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
            }
            Ok(if only_numbers { 1 } else { count })
        }
    }
    serde_json::Deserializer::from_str(prompt.get()).deserialize_seq(Count).unwrap_or(1)
}

/// What we change in a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// What the upstream calls the model, if it calls it otherwise.
    pub model: Option<&'a str>,
    /// Ask for usage at the end of the stream, whatever the client said.
    pub include_usage: bool,
    /// Output tokens at most, for each answer, and the field that carries it where the client used none and the
    /// endpoint has more than one.
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
        if let Some((most, default)) = self.output_max.filter(|_| head.endpoint.has_output()) {
            match head.limits.first() {
                Some((_, found)) => pieces.push((found.range.clone(), Cow::Owned(most.to_string()))),
                None => {
                    let name = match limit_fields(head.endpoint) {
                        [(name, _)] => name,
                        _ => default,
                    };
                    pieces.push((head.open..head.open, Cow::Owned(format!("\"{name}\":{most},"))));
                }
            }
            // A second limit field must not say more than the first.
            for (_, other) in head.limits.iter().skip(1) {
                if other.value.is_none_or(|value| value > most) {
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
const MODEL_CHARS_MAX: usize = 256;
/// Answers of one request at most, as OpenAI has it.
const ANSWERS_MAX: u64 = 128;
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
fn integer(
    text: &str,
    raw: Option<&RawValue>,
    name: &'static str,
    bounds: RangeInclusive<u64>,
) -> Result<Option<Found<Option<u64>>>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    if raw.get() == "null" {
        return Ok(Some(Found { range: range_in(text, raw.get()), value: None }));
    }
    let value: u64 = whole(raw.get()).filter(|value| bounds.contains(value)).ok_or_else(|| {
        let (least, most) = (bounds.start(), bounds.end());
        malformed(format!("\"{name}\" must be a whole number from {least} to {most}.")).param(name)
    })?;
    Ok(Some(Found { range: range_in(text, raw.get()), value: Some(value) }))
}

/// A whole number, also one written as `16.0`: JSON knows no other kind, and some clients write all numbers so.
fn whole(text: &str) -> Option<u64> {
    let fraction_is_zero = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit == b'0');
    match text.split_once('.') {
        Some((whole, fraction)) if fraction_is_zero(fraction) => whole.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// Where `part`, a slice of `text`, stands in it.
fn range_in(text: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.len()
}

#[cfg(test)]
mod tests;
