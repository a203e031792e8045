//! Where a failure gets its status and its form: RFC 9457, `application/problem+json`.
//!
//! Nowhere else is a status of failure chosen. A handler returns an [`Error`]; it travels to `edge` in the response's
//! extensions, because only there the request's id is known, and becomes a body there.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

use crate::error::{Error, Reason};

/// The form of every refusal.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// `about:blank`: the code says which problem it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The problem in general, always in the same words.
    pub title: &'static str,
    /// The HTTP status again.
    pub status: u16,
    /// This problem in particular, and what to do.
    pub detail: String,
    /// The problem in one word.
    pub code: &'static str,
    /// Names the request in our log.
    pub request_id: String,
}

/// Why a handler ends early.
#[derive(Debug)]
pub enum Stop {
    /// Refused.
    Refused(Error),
    /// Done before: the stored answer.
    Replayed(Response),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(error) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status(error.reason);
                // Extensions are cloned with a response; the error itself is not.
                response.extensions_mut().insert(Arc::new(error));
                response
            }
            Self::Replayed(response) => response,
        }
    }
}

/// The table.
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadToken => StatusCode::UNAUTHORIZED,
        Reason::Forbidden => StatusCode::FORBIDDEN,
        Reason::UnknownRoute | Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::Invalid | Reason::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::Conflict => StatusCode::CONFLICT,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Timeout | Reason::Storage => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Writes the error a response carries into its body. What was written to it before, such as `Allow`, stays.
pub(super) fn fill(response: &mut Response, error: &Error, request_id: &str) {
    let status = status(error.reason);
    // What is our own fault is not explained: the log has it, under the request's id.
    let detail = match error.reason {
        Reason::Internal => "tell us the request id".to_owned(),
        _ => error.detail.clone().into_owned(),
    };
    let problem = Problem {
        kind: "about:blank",
        title: error.reason.title(),
        status: status.as_u16(),
        detail,
        code: error.reason.code(),
        request_id: request_id.to_owned(),
    };
    *response.status_mut() = status;
    *response.body_mut() = Body::from(serde_json::to_vec(&problem).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
}
