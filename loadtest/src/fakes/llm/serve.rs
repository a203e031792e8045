//! One request to the fake model, from its head to the body that answers it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION,
    RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::State;
use super::answer::{Generation, Stamp, unary};
use super::behaviour::{Behaviour, FaultKind};
use super::gzip::Gzip;
use super::request::{Ask, Endpoint, Refusal};
use super::script::Script;
use super::stream::{End, Half, Stream};
use super::truth::{Outcome, Recording};
use crate::http::{Answer, Hangup, json, reply};

/// White space a giant unary answer is padded with, at most.
const GIANT_BYTES_MAX: usize = 64 << 20;

pub(super) async fn serve(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path == "/control" || path.starts_with("/control/") {
        return control(&state, request).await;
    }
    if path == "/health" {
        return Ok(reply(StatusCode::OK, "text/plain", "ok\n"));
    }
    let is_allowed = state.settings.key.as_ref().is_none_or(|key| bearer(request.headers()) == Some(key));
    match (request.method(), Endpoint::of(path)) {
        (&Method::POST, Some(endpoint)) => {
            let mut recording = state.book.begin(endpoint.path(), request.headers());
            if !is_allowed {
                return Ok(refuse(&mut recording, &Refusal::wrong_key()));
            }
            generate(&state, endpoint, request, recording).await
        }
        _ if !is_allowed => Ok(Refusal::wrong_key().response()),
        (&Method::GET, None) => Ok(models(&state, path)),
        _ => Ok(Refusal::unknown_url().response()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refuse(recording: &mut Recording, refusal: &Refusal) -> Response<crate::http::Body> {
    recording.call.status = refusal.status.as_u16();
    recording.end(Outcome::Refused);
    refusal.response()
}

/// The body, the decision, and then one of the many ways to answer.
async fn generate(
    state: &Arc<State>,
    endpoint: Endpoint,
    request: Request<Incoming>,
    mut recording: Recording,
) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, state.settings.body_bytes_max).collect().await else {
        return Ok(refuse(&mut recording, &Refusal::too_large()));
    };
    let body = body.to_bytes();
    recording.saw_body(&body);
    let ask = match Ask::read(endpoint, &body) {
        Ok(ask) => ask,
        Err(refusal) => return Ok(refuse(&mut recording, &refusal)),
    };
    recording.call.model.clone_from(&ask.model);
    recording.call.user.clone_from(&ask.user);
    recording.call.stream = ask.stream;
    if state.settings.listed_models_only && !state.settings.models.contains(&ask.model) {
        return Ok(refuse(&mut recording, &Refusal::unknown_model(&ask.model)));
    }

    let (behaviour, fault, seed) = state.steering().decide();
    wait_ms(behaviour.first_byte_ms).await;
    let fault = match fault {
        Some(FaultKind::Status { status, body, retry_after }) => {
            return Ok(told_to_refuse(&mut recording, status, body, retry_after.as_deref()));
        }
        Some(FaultKind::Redirect { location }) => return Ok(told_to_redirect(&mut recording, &location)),
        Some(FaultKind::CloseBeforeHead) => {
            recording.end(Outcome::Broken);
            return Err(Hangup);
        }
        // Only the client ends this; the recording is dropped with this future then.
        Some(FaultKind::HangBeforeHead) => std::future::pending().await,
        other => other,
    };

    let generation = Generation::of(&ask, &behaviour);
    let number = state.ids.fetch_add(1, Ordering::Relaxed);
    let stamp = Stamp { id: format!("fake{number:012}"), created: unix_seconds() };
    recording.call.id = stamp.id(endpoint);
    recording.call.prompt_tokens = generation.prompt_tokens;
    recording.call.status = StatusCode::OK.as_u16();
    let accepts_gzip =
        head.headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    let compress = behaviour.gzip && accepts_gzip;
    let mut response = if ask.stream {
        let script = Script::new(&ask, generation, &stamp, &behaviour);
        let stream = Stream::new(script, Arc::clone(&behaviour), fault, seed, recording, compress);
        let mut response = Response::new(stream.boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    } else {
        for _ in 0..generation.visible {
            wait_ms(behaviour.gap_ms).await;
            recording.generated(generation.choices);
        }
        // The rest of what was generated is not shown, and takes no time.
        let rest = generation.completion_tokens().saturating_sub(recording.call.completion_tokens);
        recording.generated(rest);
        let document = unary(&ask, &generation, &stamp, &behaviour.usage);
        whole(document.into(), fault, recording, compress)
    };
    if compress {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    dress(response.headers_mut(), &behaviour, number);
    Ok(response)
}

async fn wait_ms(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A unary answer, spoilt if the fault says so.
fn whole(
    document: Bytes,
    fault: Option<FaultKind>,
    mut recording: Recording,
    compress: bool,
) -> Response<crate::http::Body> {
    recording.end(Outcome::Finished);
    let document = match &fault {
        Some(FaultKind::EndAfter { .. } | FaultKind::BadJsonAfter { .. }) => document.slice(..document.len() / 2),
        Some(FaultKind::BadUtf8After { .. }) => {
            [b"{\"id\":\"\xff\xfe\",".as_ref(), document.get(1..).unwrap_or_default()].concat().into()
        }
        Some(FaultKind::GiantLine { bytes }) => {
            let mut padded = vec![b' '; (*bytes).min(GIANT_BYTES_MAX)];
            padded.extend_from_slice(&document);
            padded.into()
        }
        _ => document,
    };
    let document = if compress { Gzip::whole(&document) } else { document };
    let broken_off = match fault {
        Some(FaultKind::CutAfter { .. } | FaultKind::ErrorAfter { .. }) => Some((End::Cut, Outcome::Broken)),
        Some(FaultKind::HangAfter { .. }) => Some((End::Hang, Outcome::ClientLeft)),
        _ => None,
    };
    let Some((end, outcome)) = broken_off else {
        return reply(StatusCode::OK, "application/json", document);
    };
    recording.end(outcome);
    let mut response = Response::new(Half::of(&document, end, recording).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The whole length is promised, so that the missing half is missed.
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(document.len()));
    response
}

/// The headers an upstream usually sends, and those the test wants.
fn dress(headers: &mut HeaderMap, behaviour: &Behaviour, number: u64) {
    if let Ok(id) = HeaderValue::from_str(&format!("req_fake{number:012}")) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    for (name, value) in &behaviour.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
}

fn told_to_refuse(
    recording: &mut Recording,
    status: u16,
    body: Option<String>,
    retry_after: Option<&str>,
) -> Response<crate::http::Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = refuse(recording, &Refusal::of_status(status));
    if let Some(body) = body {
        response = reply(status, "application/json", body);
    }
    if let Some(Ok(value)) = retry_after.map(HeaderValue::from_str) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

fn told_to_redirect(recording: &mut Recording, location: &str) -> Response<crate::http::Body> {
    let mut response = reply(StatusCode::TEMPORARY_REDIRECT, "text/plain", "");
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    recording.call.status = StatusCode::TEMPORARY_REDIRECT.as_u16();
    recording.end(Outcome::Refused);
    response
}

fn models(state: &State, path: &str) -> Response<crate::http::Body> {
    let listed =
        |id: &String| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "relais-load"});
    if path == "/v1/models" {
        let data: Vec<_> = state.settings.models.iter().map(listed).collect();
        return json(StatusCode::OK, &json!({"object": "list", "data": data}));
    }
    let Some(wanted) = path.strip_prefix("/v1/models/") else { return Refusal::unknown_url().response() };
    match state.settings.models.iter().find(|model| *model == wanted) {
        Some(model) => json(StatusCode::OK, &listed(model)),
        None => Refusal::unknown_model(wanted).response(),
    }
}

/// `/control`: the behaviour; `/control/truth`: the truth.
async fn control(state: &State, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let truth = request.uri().path() == "/control/truth";
    Ok(match (method, truth) {
        (Method::GET, true) => json(StatusCode::OK, &serde_json::to_value(state.book.truth()).unwrap_or_default()),
        (Method::DELETE, true) => {
            state.book.forget();
            json(StatusCode::OK, &json!({}))
        }
        (Method::GET, false) => {
            let behaviour = state.steering().current();
            json(StatusCode::OK, &serde_json::to_value(behaviour).unwrap_or_default())
        }
        (Method::POST, false) => {
            let body = Limited::new(request.into_body(), state.settings.body_bytes_max).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            match serde_json::from_slice::<Behaviour>(&body) {
                Ok(behaviour) => {
                    state.steering().set(behaviour);
                    json(StatusCode::OK, &json!({}))
                }
                Err(error) => json(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
            }
        }
        _ => Refusal::unknown_url().response(),
    })
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a fake stamps its answers with the time of day; it depends on no clock of the gateway's"
)]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
