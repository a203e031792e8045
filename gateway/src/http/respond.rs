//! The one place where a failure gets its status and its words.
//!
//! Two dialects of the same reasons (the table is decision D12): OpenAI's error object with the retry headers
//! its SDKs obey, and for Chatwoot the status that gets the retry we want. Chatwoot retries 429 and 500 and
//! nothing else, and hands the conversation to a human on anything else, so there is no 503 in its column.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::config::{Errors, TokensUsedUp};
use crate::error::{Error, Fault, Reason, Retry};
use crate::http::body::Body;
use crate::http::request_id::RequestId;

/// The header that carries the request id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

/// OpenAI's error object: what its SDKs turn into an exception.
#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

/// A document of our own.
pub fn json(document: &impl Serialize) -> Result<Response<Body>, Error> {
    let body = serde_json::to_vec(document)
        .map_err(|error| Error::new(Reason::Internal, "The answer was not written.").caused_by(error))?;
    let mut response = Response::new(Body::from(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// A failed `/v1` call.
pub fn openai(error: &Error, request_id: RequestId, errors: Errors) -> Response<Body> {
    let (status, code) = match (error.reason, errors.tokens_used_up) {
        (Reason::TokensUsedUp, TokensUsedUp::TooManyRequests) => (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"),
        (reason, _) => (openai_status(reason), reason.code()),
    };
    let mut response = Response::new(Body::from(body(error, code)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(X_REQUEST_ID, request_id.header());
    match error.retry {
        Some(Retry::AfterMs(ms)) => {
            // Whole seconds, rounded up, beside the exact figure that OpenAI's SDKs prefer.
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
        }
        // No Retry-After: a client that honoured it would sleep for weeks.
        Some(Retry::Never) => {
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        None => {}
    }
    response
}

/// A failed call's error object, as the body of an answer or the data of a stream's last event.
pub fn openai_body(error: &Error) -> Bytes {
    body(error, error.reason.code())
}

fn body(error: &Error, code: &'static str) -> Bytes {
    let body = OpenAiBody {
        error: OpenAiError { message: &error.message, kind: openai_type(error.reason), param: error.param, code },
    };
    serde_json::to_vec(&body).map(Bytes::from).unwrap_or_else(|_| Bytes::from_static(b"{\"error\":{\"message\":\"\"}}"))
}

/// A delivery that was not accepted. No body: Chatwoot ignores it.
pub fn chatwoot(error: &Error, request_id: RequestId) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = chatwoot_status(error.reason);
    response.headers_mut().insert(X_REQUEST_ID, request_id.header());
    response
}

/// A failed operation on the admin listener: plain text for whoever is at the terminal.
pub fn admin(error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(format!("{error}\n"))));
    *response.status_mut() = openai_status(error.reason);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn openai_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadKey | Reason::BadSignature => StatusCode::UNAUTHORIZED,
        Reason::PaymentRequired | Reason::TokensUsedUp => StatusCode::PAYMENT_REQUIRED,
        Reason::FeatureNotInPlan | Reason::ModelNotAllowed => StatusCode::FORBIDDEN,
        Reason::UnknownRoute | Reason::UnknownModel => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::Malformed | Reason::Unsupported => StatusCode::BAD_REQUEST,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::RateLimited | Reason::TooManyInFlight | Reason::CallsUsedUp => StatusCode::TOO_MANY_REQUESTS,
        Reason::Overloaded | Reason::Draining | Reason::Disk | Reason::UpstreamBusy => StatusCode::SERVICE_UNAVAILABLE,
        Reason::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::UpstreamFailed => StatusCode::BAD_GATEWAY,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn chatwoot_status(reason: Reason) -> StatusCode {
    match reason {
        // Worth a retry there: it comes again in about 3 s, three times in all.
        Reason::RateLimited | Reason::TooManyInFlight | Reason::Overloaded | Reason::Draining => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Reason::Disk | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::UnknownRoute => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        // The rest is either a delivery that does not verify, or cannot happen here and must look like it.
        _ => StatusCode::UNAUTHORIZED,
    }
}

/// OpenAI's `type`, which some clients branch on before the status.
fn openai_type(reason: Reason) -> &'static str {
    match reason {
        Reason::BadKey | Reason::BadSignature => "authentication_error",
        Reason::PaymentRequired | Reason::TokensUsedUp | Reason::CallsUsedUp => "insufficient_quota",
        Reason::FeatureNotInPlan | Reason::ModelNotAllowed => "permission_error",
        Reason::RateLimited | Reason::TooManyInFlight => "rate_limit_error",
        _ => match reason.fault() {
            Fault::Client => "invalid_request_error",
            Fault::Upstream => "upstream_error",
            Fault::Gateway => "server_error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request_id::RequestIds;

    #[test]
    fn chatwoot_never_sees_a_503_or_a_redirect() {
        for reason in Reason::ALL {
            let status = chatwoot_status(*reason);
            assert!(status.is_client_error() || status == StatusCode::INTERNAL_SERVER_ERROR, "{reason:?}: {status}");
        }
    }

    #[test]
    fn a_wait_is_told_twice_and_a_spent_month_is_not_slept_on() {
        let id = RequestIds::new().next();
        let limited = Error::new(Reason::RateLimited, "Too fast.").retry(Retry::AfterMs(1_250));
        let response = openai(&limited, id, Errors::default());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1250");

        let spent = Error::new(Reason::CallsUsedUp, "Used up.").retry(Retry::Never);
        let response = openai(&spent, id, Errors::default());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert!(!response.headers().contains_key("retry-after"));
    }

    #[test]
    fn a_spent_budget_is_told_as_the_operator_wants() {
        let id = RequestIds::new().next();
        let spent = Error::new(Reason::TokensUsedUp, "Used up.").retry(Retry::Never);
        for (told, status) in [(TokensUsedUp::PaymentRequired, 402), (TokensUsedUp::TooManyRequests, 429)] {
            let response = openai(&spent, id, Errors { tokens_used_up: told });
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["x-should-retry"], "false");
        }
        let other = Error::new(Reason::PaymentRequired, "Suspended.");
        assert_eq!(openai(&other, id, Errors { tokens_used_up: TokensUsedUp::TooManyRequests }).status(), 402);
    }

    #[test]
    fn the_error_object_is_openai_s() {
        let body = openai_body(&Error::new(Reason::Malformed, "No \"model\".").param("model"));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"error": {
                "message": "No \"model\".", "type": "invalid_request_error", "param": "model", "code": "invalid_request"
            }})
        );
    }
}
