//! Why an administrator's call did not succeed, apart by what can be done about it.
//!
//! A 404 without JSON or a redirect comes from no Chatwoot; a 401 is what it says for any missing right. Of its own words
//! only the one sentence that gives the reason is kept.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::http::unreachable::Unreachable;

/// Of what Chatwoot says about a failure.
const TOLD_CHARS_MAX: usize = 200;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {fault}")]
pub struct AdminError {
    /// Which call, in words.
    pub call: &'static str,
    /// What went wrong.
    pub fault: Fault,
}

/// What went wrong, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 401: the token is not known, or its user may not do this. Chatwoot knows no 403.
    #[error("401, not allowed with this token")]
    Unauthorized,
    /// 404 of a Chatwoot.
    #[error("404, no such record")]
    NotFound,
    /// 402: Chatwoot's own plan allows no more.
    #[error("402, beyond the Chatwoot plan: {0}")]
    PlanLimit(String),
    /// 422: Chatwoot refuses what was asked.
    #[error("422, refused: {0}")]
    Invalid(String),
    /// 429.
    #[error("429, too many calls")]
    Throttled,
    /// Any other status that is no success.
    #[error("status {0}")]
    Status(u16),
    /// No answer.
    #[error("{0}")]
    Unreachable(#[from] Unreachable),
    /// An answer that no Chatwoot gives.
    #[error("the answer is not a Chatwoot's: {0}")]
    NotChatwoot(String),
}

impl Fault {
    /// What an answer says is wrong; none if nothing is.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Fault> {
        let json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        Some(match status.as_u16() {
            200..300 => return None,
            300..=399 => {
                let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
                Fault::NotChatwoot(format!("it redirects to {}", cleaned(to)))
            }
            401 => Fault::Unauthorized,
            402 => Fault::PlanLimit(told(body)),
            404 if json => Fault::NotFound,
            404 => Fault::NotChatwoot("404, and no JSON".to_owned()),
            422 => Fault::Invalid(told(body)),
            429 => Fault::Throttled,
            status => Fault::Status(status),
        })
    }
}

/// What Chatwoot says about a failure.
fn told(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = ["error", "message"].into_iter().find_map(|key| answer.get(key)?.as_str());
    text.map_or_else(|| "without a reason".to_owned(), cleaned)
}

fn cleaned(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(TOLD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(status: u16, kind: &'static str, body: &str) -> Option<Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Fault::of(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn each_status_is_told_by_what_can_be_done() {
        let json = "application/json; charset=utf-8";
        assert_eq!(read(200, "text/html", ""), None);
        assert_eq!(read(401, json, r#"{"error":"Invalid Access Token"}"#), Some(Fault::Unauthorized));
        assert_eq!(read(404, json, r#"{"error":"Resource could not be found"}"#), Some(Fault::NotFound));
        assert!(matches!(read(404, "text/html", "<html>"), Some(Fault::NotChatwoot(_))));
        assert!(matches!(read(302, "text/html", ""), Some(Fault::NotChatwoot(_))));
        assert_eq!(read(429, "text/plain", "Retry later\n"), Some(Fault::Throttled));
        assert_eq!(
            read(402, json, r#"{"error":"Account limit exceeded.\u0007"}"#),
            Some(Fault::PlanLimit("Account limit exceeded.".to_owned()))
        );
        let taken = r#"{"message":"Url has already been taken","attributes":["url"]}"#;
        assert_eq!(read(422, json, taken), Some(Fault::Invalid("Url has already been taken".to_owned())));
        assert_eq!(read(422, json, "nonsense"), Some(Fault::Invalid("without a reason".to_owned())));
        assert_eq!(read(500, json, ""), Some(Fault::Status(500)));
    }
}
