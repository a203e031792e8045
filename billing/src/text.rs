//! What a single text of a request may be: an id, a label, an address of a Chatwoot.
//!
//! The same rules as the gateway's configuration has, so that what is accepted here can be served there. A refusal names
//! the field and what it should be; it never quotes a value that could be a secret.

use http::Uri;

use crate::error::Error;

/// As long as a label of a domain name.
const ID_CHARS_MAX: usize = 63;
/// Room for words, not for a page: labels stand on every line of a log.
const LABEL_BYTES_MAX: usize = 100;
/// Longer than any sentence a customer should be sent.
const SENTENCE_BYTES_MAX: usize = 2_000;

/// An id: small letters, digits, `_` and `-`.
pub(crate) fn id(field: &str, text: &str) -> Result<(), Error> {
    let good = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if text.is_empty() || text.len() > ID_CHARS_MAX || !good {
        return Err(Error::invalid(format!(
            "{field} has 1 to {ID_CHARS_MAX} small letters, digits, _ and -, because it stands in addresses"
        )));
    }
    Ok(())
}

/// A name for people.
pub(crate) fn label(field: &str, text: &str) -> Result<(), Error> {
    bounded(field, text, LABEL_BYTES_MAX)
}

/// Something said to people.
pub(crate) fn sentence(field: &str, text: &str) -> Result<(), Error> {
    bounded(field, text, SENTENCE_BYTES_MAX)
}

fn bounded(field: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.trim().is_empty() || text.len() > bytes_max || text.contains(|c: char| c.is_control() && c != '\n') {
        return Err(Error::invalid(format!("{field} is empty, longer than {bytes_max} bytes or not plain text")));
    }
    Ok(())
}

/// A secret that is sent in a header.
pub(crate) fn token(field: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > SENTENCE_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(format!("{field} is empty, too long, or holds what cannot be sent in a header")));
    }
    Ok(())
}

/// The address of a Chatwoot, without the slash at its end.
pub(crate) fn url(field: &str, text: &str) -> Result<String, Error> {
    let refused = || {
        Error::invalid(format!(
            "{field} is no address of a Chatwoot: write https://HOST or http://HOST:PORT, without user, query or fragment"
        ))
    };
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !scheme || !authority || uri.query().is_some() || text.contains('#') {
        return Err(refused());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Patterns that name models.
pub(crate) fn models(field: &str, patterns: &[String]) -> Result<(), Error> {
    match patterns.iter().find(|pattern| !relais_policies::limit::is_model_pattern(pattern)) {
        Some(pattern) => Err(Error::invalid(format!(
            "{field}: \"{pattern}\" names no model: write a name, a name that ends in *, or *"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_id_and_what_is_not() {
        for good in ["a", "acme", "acme-2_x", &"x".repeat(63)] {
            assert!(id("id", good).is_ok(), "{good}");
        }
        for bad in ["", "Acme", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(id("id", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_an_address_and_what_is_not() {
        assert_eq!(url("url", "https://chat.example.com/").unwrap(), "https://chat.example.com");
        assert_eq!(url("url", "http://127.0.0.1:3000/sub/").unwrap(), "http://127.0.0.1:3000/sub");
        for bad in ["", "chat.example.com", "ftp://x", "https://user:secret@x", "https://x/?a=b", "https://x/#a", "/x"]
        {
            let error = url("url", bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert!(label("label", "ci of the shop").is_ok());
        for bad in ["", "  ", "a\u{7}", &"x".repeat(101)] {
            assert!(label("label", bad).is_err(), "{bad}");
        }
        assert!(token("bot_token", "abc123").is_ok() && token("bot_token", "a b").is_err());
        assert!(models("models", &["gpt-*".to_owned()]).is_ok() && models("models", &["*x".to_owned()]).is_err());
    }
}
