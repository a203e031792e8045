//! `GET /openapi.json`: what this API is, for tools. Written by hand; a test and schemathesis hold it to the server.
//!
//! It needs no key: it tells what every reader of the source knows.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use crate::http::body::Body;

/// The document: OpenAPI 3.1.
pub const DOCUMENT: &str = include_str!("../../openapi.json");

/// The answer.
pub fn answer() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(DOCUMENT.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
