//! A request that changes something: who, what, and whether it was done before.
//!
//! With an `Idempotency-Key` (1 to 255 visible characters) the answer is stored in the same transaction as the change,
//! for a day, by token and key. The same request again gets that answer and changes nothing; another request under
//! the key is refused with 422. Two at once are one after the other, because there is one writer. Refusals are not
//! stored: what was wrong once may be right later. Stored answers are sealed, since one may hold an API key.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::edge::RequestId;
use super::extract::Body;
use super::{Answer, Stop};
use crate::Billing;
use crate::error::{Error, Reason};
use crate::store::{Author, Change};

/// How long an answer is kept: a day.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;
/// As Stripe's.
const KEY_CHARS_MAX: usize = 255;

/// The body of an operation that needs none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A request to change something.
#[derive(Debug)]
pub struct Write<T> {
    /// What is asked for.
    pub body: T,
    author: Author,
    /// The `Idempotency-Key`, if there is one.
    key: Option<String>,
    /// Over method, address and body.
    fingerprint: String,
}

row! {
    struct Stored {
        fingerprint: String,
        status: i64,
        answer_sealed: String,
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Billing>> for Write<T> {
    type Rejection = Stop;

    async fn from_request(request: Request, state: &Arc<Billing>) -> Result<Self, Stop> {
        let missing = || Error::internal("reading a request", "it came past the edge");
        let caller = request.extensions().get::<Caller>().cloned().ok_or_else(missing)?;
        let RequestId(request_id) = request.extensions().get().cloned().ok_or_else(missing)?;
        let author = Author { actor: caller.name.as_ref().to_owned(), request_id: request_id.as_ref().to_owned() };
        let key = idempotency_key(&request)?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let Body { value: body, bytes } = Body::from_request(request, state).await?;
        let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
        Ok(Self { body, author, key, fingerprint: fingerprint(&method, target, &bytes) })
    }
}

fn idempotency_key(request: &Request) -> Result<Option<String>, Error> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let good = value
        .to_str()
        .ok()
        .filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    match good {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Error::new(Reason::Malformed, "Idempotency-Key has 1 to 255 visible characters")),
    }
}

fn fingerprint(method: &Method, target: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [method.as_str().as_bytes(), target.as_bytes(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// Where a stored answer is sealed to.
fn place(actor: &str, key: &str) -> String {
    format!("idempotency/{actor}/{key}")
}

impl<T> Write<T> {
    /// Begins the change; ends the handler with the stored answer if it was made before.
    pub async fn begin(&self, billing: &Billing) -> Result<Change, Stop> {
        let mut change = billing.store.change(self.author.clone()).await?;
        let Some(key) = &self.key else { return Ok(change) };
        let oldest = change.now_ms().saturating_sub(KEPT_MS);
        sqlx::query("DELETE FROM idempotency WHERE at < $1")
            .bind(oldest)
            .execute(change.sql())
            .await
            .map_err(Error::from)?;
        let stored: Option<Stored> =
            sqlx::query_as("SELECT fingerprint, status, answer_sealed FROM idempotency WHERE actor = $1 AND key = $2")
                .bind(self.author.actor.clone())
                .bind(key.clone())
                .fetch_optional(change.sql())
                .await
                .map_err(Error::from)?;
        match stored {
            None => Ok(change),
            Some(stored) if stored.fingerprint == self.fingerprint => {
                let answer = billing.store.vault().open(&place(&self.author.actor, key), &stored.answer_sealed)?;
                let status = u16::try_from(stored.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
                let mut response = json(status.unwrap_or(StatusCode::OK), answer.to_vec());
                response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
                Err(Stop::Replayed(response))
            }
            Some(_) => Err(Error::new(
                Reason::KeyReused,
                "the first request under this key had another method, address or body; take a new key",
            )
            .into()),
        }
    }

    /// Stores the answer, commits the change, and answers.
    pub async fn answer<A: Serialize>(&self, mut change: Change, status: StatusCode, answer: &A) -> Answer {
        let bytes = serde_json::to_vec(answer).map_err(Error::from)?;
        if let Some(key) = &self.key {
            let sealed = change.vault().seal(&place(&self.author.actor, key), &bytes)?;
            let now_ms = change.now_ms();
            sqlx::query(
                "INSERT INTO idempotency (actor, key, fingerprint, status, answer_sealed, at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(self.author.actor.clone())
            .bind(key.clone())
            .bind(self.fingerprint.clone())
            .bind(i64::from(status.as_u16()))
            .bind(sealed)
            .bind(now_ms)
            .execute(change.sql())
            .await
            .map_err(Error::from)?;
        }
        change.commit().await?;
        Ok(json(status, bytes))
    }
}

/// An answer of JSON.
pub(super) fn json(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(HttpBody::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer to a request that only read.
pub(super) fn ok<A: Serialize>(answer: &A) -> Answer {
    Ok(json(StatusCode::OK, serde_json::to_vec(answer).map_err(Error::from)?))
}
