//! JSON read field by field: what is missing or of another type than expected is unknown and spoils nothing beside it.
//!
//! It knows no field by name: `wire` does.

use std::borrow::Cow;
use std::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A text that borrows where JSON's escapes allow. Half a surrogate pair in it is read as a replacement character: one
/// broken emoji must not cost a customer's whole message.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        text(raw.get()).map(Text).ok_or_else(|| D::Error::custom("not a text"))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a field if it is what we expect; `None` if it is null or anything else.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(serde_json::from_str::<Option<T>>(raw.get()).ok().flatten())
}

/// The entries that are what we expect; the others are left out and spoil nothing. Empty if it is no list.
pub(super) fn lenient_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let entries: Vec<&'de RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect())
}

/// A JSON text, number or yes/no as plain words; `None` for anything else.
pub(super) fn plain(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => text(raw).map(Cow::into_owned),
        b'{' | b'[' | b'n' => None,
        _ => Some(raw.to_owned()),
    }
}

/// A JSON text's content; `None` if it is none.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Borrowing<'a>(#[serde(borrow)] Cow<'a, str>);
    let whole = serde_json::from_str(raw).map(|Borrowing(text)| text);
    whole.ok().or_else(|| serde_json::from_str(&paired(raw)?).ok().map(Cow::Owned))
}

/// A JSON text with `\ufffd` for every escaped half of a surrogate pair; `None` for anything but a text.
fn paired(raw: &str) -> Option<String> {
    let unit = |at: &str| u16::from_str_radix(at.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let mut rest = raw.starts_with('"').then_some(raw)?;
    let mut whole = String::with_capacity(raw.len());
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let second = || escape.get(6..).and_then(unit);
        let taken = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(second(), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                whole.push_str("\\ufffd");
                rest = escape.get(6..)?;
                continue;
            }
            Some(_) => 6,
            None => 2,
        };
        whole.push_str(escape.get(..taken)?);
        rest = escape.get(taken..)?;
    }
    whole.push_str(rest);
    Some(whole)
}
