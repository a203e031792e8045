//! OpenAI-compatible calls: one body, sent over and over, each time with the next of the keys.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::connections::{Connections, Lease};
use super::flags::{NamedKey, V1Flags};
use super::frames::Frames;
use super::tally::{Outcome, Tally};
use super::webhooks::target_of;

/// Bytes of an answer in one piece read at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Everything about the calls of a run.
#[derive(Debug)]
pub(super) struct V1 {
    connections: Arc<Connections>,
    path: Uri,
    keys: Vec<Option<HeaderValue>>,
    body: Bytes,
    stream: bool,
    numbered: bool,
}

/// What a call told, beside how it ended.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) first: Option<Instant>,
    pub(super) frames: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
}

impl V1 {
    pub(super) fn new(flags: &V1Flags, keys: &[NamedKey], connections: Arc<Connections>) -> anyhow::Result<Self> {
        let keys = keys
            .iter()
            .map(|key| {
                if key.key.is_empty() {
                    return Ok(None);
                }
                let mut value = HeaderValue::try_from(format!("Bearer {}", key.key))
                    .with_context(|| format!("the key `{}` cannot stand in a header", key.name))?;
                value.set_sensitive(true);
                Ok(Some(value))
            })
            .collect::<anyhow::Result<_>>()?;
        let body = match &flags.body {
            Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?.into(),
            None => body(flags).into(),
        };
        let path = flags.path.parse().context("the endpoint's path")?;
        Ok(Self { connections, path, keys, body, stream: flags.stream, numbered: flags.numbered })
    }

    /// The connections calls go by, and whose key the call with this number has.
    pub(super) fn connections(&self, number: u64) -> (usize, &Arc<Connections>) {
        (target_of(number, self.keys.len()), &self.connections)
    }

    /// Makes one call.
    pub(super) async fn call(&self, target: usize, mut lease: Lease<'_>, tally: &Tally) -> (Outcome, Told) {
        let mut told = Told::default();
        let mut request =
            Request::post(self.path.clone()).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(Some(key)) = self.keys.get(target) {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let Ok(request) = request.body(Full::new(self.body.clone())) else { return (Outcome::NotSent, told) };
        let answer = match lease.send(request).await {
            Ok(answer) => answer,
            Err(outcome) => return (outcome, told),
        };
        let status = answer.status();
        let outcome = if self.stream && status.is_success() {
            self.read_stream(answer.into_body(), tally, &mut told).await
        } else {
            match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
                Err(_) => Outcome::Broken,
                Ok(_) if status.is_success() => Outcome::Ok,
                Ok(_) => Outcome::Status(status.as_u16()),
            }
        };
        if matches!(outcome, Outcome::Ok | Outcome::Status(_) | Outcome::ErrorEvent | Outcome::CutShort) {
            lease.give_back();
        }
        (outcome, told)
    }

    async fn read_stream(&self, mut body: Incoming, tally: &Tally, told: &mut Told) -> Outcome {
        let mut frames = Frames::new(self.numbered);
        let mut last = None;
        let mut whole = true;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                whole = false;
                break;
            };
            let Ok(data) = frame.into_data() else { continue };
            let Ok(completed) = frames.push(&data) else {
                whole = false;
                break;
            };
            let now = Instant::now();
            for _ in 0..completed {
                // Frames that came in one piece came at once: the gap between them is none.
                match last.replace(now) {
                    None => told.first = Some(now),
                    Some(before) => tally.record_gap(now - before),
                }
            }
        }
        (told.frames, told.lost, told.duplicated) = (frames.count, frames.lost, frames.duplicated);
        match (whole, frames.error, frames.complete) {
            (false, ..) => Outcome::Broken,
            (_, true, _) => Outcome::ErrorEvent,
            (_, _, false) => Outcome::CutShort,
            _ => Outcome::Ok,
        }
    }
}

fn body(flags: &V1Flags) -> String {
    let words = "Where is my parcel? ";
    let mut prompt = words.repeat(flags.prompt_bytes / words.len() + 1);
    prompt.truncate(flags.prompt_bytes.max(1));
    let mut body = json!({ "model": flags.model, "messages": [{ "role": "user", "content": prompt }] });
    if let Some(body) = body.as_object_mut() {
        if flags.stream {
            body.insert("stream".to_owned(), true.into());
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        if let Some(tokens_max) = flags.tokens_max {
            body.insert("max_tokens".to_owned(), tokens_max.into());
        }
    }
    body.to_string()
}
