//! The parts of an address that mean something here: escapes undone, and the questions behind the `?`.

use std::borrow::Cow;

/// What a part of an address says. `None`: bytes that are no text. A `%` without two hex digits is itself.
pub fn percent_decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 2;
            }
            _ => out.push(*byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The value of a question, escapes undone: `Ok(None)` if it is not asked, `Err` if it is asked twice or is no text.
pub fn query<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Ambiguous> {
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(asked, _)| percent_decoded(asked).as_deref() == Some(name));
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some((_, value)), None) => percent_decoded(value).map(Some).ok_or(Ambiguous),
        (Some(_), Some(_)) => Err(Ambiguous),
    }
}

/// A question that can be read in two ways, or in none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("asked twice, or not as text")]
pub struct Ambiguous;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_every_client_writes_them() {
        for (part, says) in [
            ("gpt-4o", Some("gpt-4o")),
            ("org/model", Some("org/model")),
            ("org%2Fmodel%3alatest", Some("org/model:latest")),
            ("100%", Some("100%")),
            ("a%2", Some("a%2")),
            ("%zz", Some("%zz")),
            ("caf%C3%A9", Some("café")),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(part).as_deref(), says, "{part}");
        }
    }

    #[test]
    fn a_question_is_found_once_or_not_at_all() {
        let asked = |text: &'static str| query(text, "to").map(|value| value.map(Cow::into_owned));
        assert_eq!(asked("from=1&to=a%2Cb&x"), Ok(Some("a,b".to_owned())));
        assert_eq!(asked("to"), Ok(Some(String::new())));
        assert_eq!(asked(""), Ok(None));
        assert_eq!(asked("too=1"), Ok(None));
        assert_eq!(asked("to=1&t%6F=2"), Err(Ambiguous));
        assert_eq!(asked("to=%ff"), Err(Ambiguous));
    }
}
