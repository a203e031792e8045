//! How async-openai's requests reach an upstream: over our own pool, once, and never its way.
//!
//! The library's service hook replaces both its transport and its retries. Of what it builds only the body goes out:
//! address, key and headers are the upstream's own, and so are its room and its breaker. A failed status never gets as
//! far as the library: it would log the upstream's words, which may quote the customer's.

use std::sync::Arc;
use std::time::Duration;

use async_openai::config::Config as UpstreamConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use crate::agent::AgentError;
use crate::error::{Error, Reason};
use crate::http::client::Client;
use crate::llm::endpoint::Endpoint;
use crate::llm::upstream::{NotAnswered, Upstream};

/// An answer of 800 tokens is 5 KB; a server that thinks aloud sends more.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The relay's deadline is shorter; this one only keeps the pool's call from being without any.
const SEND_WAIT: Duration = Duration::from_secs(600);
/// For a place among the upstream's connections.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The library's client of one upstream.
pub(super) type ModelClient = async_openai::Client<Nowhere>;

/// A client whose calls go to `upstream` over the pool of `http`.
pub(super) fn client(upstream: Arc<Upstream>, http: Client) -> ModelClient {
    let service =
        tower::service_fn(move |factory: HttpRequestFactory| send(Arc::clone(&upstream), http.clone(), factory));
    async_openai::Client::with_config(Nowhere::default()).with_http_service(service)
}

/// What the library wants to know of an address, which `send` does not use. Its own configuration would also read the
/// environment.
#[derive(Clone, Default)]
pub(super) struct Nowhere {
    no_key: SecretString,
}

impl UpstreamConfig for Nowhere {
    fn headers(&self) -> HeaderMap {
        HeaderMap::new()
    }

    fn url(&self, path: &str) -> String {
        format!("http://upstream.invalid{path}")
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        "http://upstream.invalid"
    }

    fn api_key(&self) -> &SecretString {
        &self.no_key
    }
}

/// What our transport adds to what can go wrong.
#[derive(Debug, thiserror::Error)]
enum TransportError {
    #[error("building the request")]
    Request(#[source] OpenAIError),
    #[error(transparent)]
    Send(NotAnswered),
    #[error("status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Body(Error),
    #[error("the answer is not JSON")]
    NotJson,
}

impl From<TransportError> for OpenAIError {
    fn from(error: TransportError) -> Self {
        Self::Boxed(Box::new(error))
    }
}

/// One exchange: the library's request in, a whole JSON answer out.
async fn send(
    upstream: Arc<Upstream>,
    http: Client,
    factory: HttpRequestFactory,
) -> Result<reqwest::Response, TransportError> {
    let request = factory.build().await.map_err(TransportError::Request)?;
    // It keeps the body for tries that are not made.
    drop(factory);
    let request = http::Request::<reqwest::Body>::try_from(request)
        .map_err(|error| TransportError::Request(OpenAIError::Reqwest(error)))?;
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| TransportError::Request(OpenAIError::Reqwest(error)))?.to_bytes();
    let response = upstream.ask_once(&http, Endpoint::Chat, body, ROOM_WAIT, SEND_WAIT).await;
    let response = response.map_err(TransportError::Send)?;
    if !response.status().is_success() {
        return Err(TransportError::Status(response.status()));
    }
    let ends_by = Instant::now() + SEND_WAIT;
    let body = response.into_body().whole(ANSWER_BYTES_MAX, SEND_WAIT, ends_by).await.map_err(TransportError::Body)?;
    if serde_json::from_slice::<Value>(&body).is_err() {
        return Err(TransportError::NotJson);
    }
    let mut answer = http::Response::new(reqwest::Body::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer.into())
}

/// What a failed call means for the agent.
pub(super) fn failure(error: OpenAIError) -> AgentError {
    let OpenAIError::Boxed(boxed) = error else { return AgentError::Nonsense("not a chat completion") };
    match boxed.downcast::<TransportError>().map(|error| *error) {
        Ok(TransportError::Status(status)) => match status.as_u16() {
            408 | 425 => AgentError::Unavailable(Box::new(TransportError::Status(status))),
            _ => AgentError::Misconfigured(format!("the upstream answered {status}")),
        },
        Ok(TransportError::Send(NotAnswered { error, refuses_us: true })) => {
            AgentError::Misconfigured(error.message.into_owned())
        }
        Ok(TransportError::Send(NotAnswered { error, .. })) if error.reason == Reason::UpstreamTimeout => {
            AgentError::Timeout(SEND_WAIT)
        }
        Ok(TransportError::NotJson) => AgentError::Nonsense("not JSON"),
        Ok(other) => AgentError::Unavailable(Box::new(other)),
        Err(other) => AgentError::Unavailable(other),
    }
}
