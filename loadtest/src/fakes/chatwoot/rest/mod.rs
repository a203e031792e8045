//! The REST door: reads a call, applies faults and the rate limit, checks the token, answers.
//!
//! A call that was read to its end is carried out even when the caller has left: that is what makes
//! an unknown outcome unknown.

mod contacts;
mod conversations;
mod inboxes;
mod multipart;
mod public;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use self::multipart::Form;
use super::Shared;
use super::control;
use super::fault::{CallEffect, Draw, Endpoint};
use super::machine::Refused;
use super::model::{Author, ConversationKey};
use super::page;
use super::record::Call;
use super::state::{State, now_ms};
use crate::http::{Answer, Body, Hangup, reply};

/// Bytes of a call's body; Chatwoot's own upload limit.
const BODY_BYTES_MAX: usize = 40 * 1024 * 1024;

/// One call, read to its end.
#[derive(Debug)]
pub(super) struct ApiCall {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) segments: Vec<String>,
    pub(super) query: Map<String, Value>,
    pub(super) token: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
}

/// What a call is answered with.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: ReplyBody,
}

#[derive(Debug)]
pub(super) enum ReplyBody {
    Json(Value),
    Text(&'static str),
    Empty,
}

impl Reply {
    pub(super) fn json(value: Value) -> Self {
        Self { status: 200, body: ReplyBody::Json(value) }
    }

    pub(super) fn empty() -> Self {
        Self { status: 200, body: ReplyBody::Empty }
    }

    pub(super) fn error(status: u16, text: &str) -> Self {
        Self { status, body: ReplyBody::Json(json!({ "error": text })) }
    }

    pub(super) fn not_found() -> Self {
        Self::error(404, "Resource could not be found")
    }

    pub(super) fn unauthorized(text: &str) -> Self {
        Self::error(401, text)
    }

    /// The throttle's answer: plain text, no `Retry-After`.
    fn throttled() -> Self {
        Self { status: 429, body: ReplyBody::Text("Retry later\n") }
    }

    fn with_status(status: u16) -> Self {
        match status {
            429 => Self::throttled(),
            status => Self::error(status, "A fault was asked for"),
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self.body {
            ReplyBody::Json(value) => reply(status, "application/json; charset=utf-8", value.to_string()),
            ReplyBody::Text(text) => reply(status, "text/plain", text),
            ReplyBody::Empty => reply(status, "text/html", ""),
        }
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::not_found(),
            other => Self::error(422, &other.to_string()),
        }
    }
}

/// The server's handler.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    if page::is_foreign(&head) {
        return Ok(page::refusal());
    }
    match head.uri.path() {
        "/control/events" => return Ok(control::events(&shared, &head)),
        path if path == "/demo" || path.starts_with("/demo/") => return Ok(page::answer(&shared, &head)),
        _ => {}
    }
    // A body that breaks off never became a call.
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else { return Err(Hangup) };
    let call = ApiCall {
        method: head.method,
        path_and_query: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        segments: head.uri.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        query: query(head.uri.query().unwrap_or_default()),
        token: token(&head.headers),
        content_type: head.headers.get(CONTENT_TYPE).and_then(|value| Some(value.to_str().ok()?.to_owned())),
        body: body.to_bytes(),
    };
    // Detached: when the caller leaves, hyper drops this future, but not what it asked for.
    let carried_out = tokio::spawn(async move {
        match call.segments.first().map(String::as_str) {
            Some("control") => Some(control::answer(&shared, &call)),
            _ => carry_out(&shared, &call).await,
        }
    });
    match carried_out.await {
        Ok(Some(reply)) => Ok(reply.into_response()),
        Ok(None) | Err(_) => Err(Hangup),
    }
}

/// Does what the call asks, with the faults that are on. `None`: no answer.
async fn carry_out(shared: &Arc<Shared>, call: &ApiCall) -> Option<Reply> {
    let effect = shared.change(|state| state.call_effect(call));
    let reply = match effect {
        Some(CallEffect::Status(status)) => Some(Reply::with_status(status)),
        Some(CallEffect::Hangup) => None,
        None => Some(shared.change(|state| state.answer(call))),
        Some(CallEffect::Ambiguous) => {
            shared.change(|state| drop(state.answer(call)));
            None
        }
        Some(CallEffect::DoneThenStatus(status)) => {
            shared.change(|state| drop(state.answer(call)));
            Some(Reply::with_status(status))
        }
        Some(CallEffect::DelayMs(delay_ms)) => {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            Some(shared.change(|state| state.answer(call)))
        }
        Some(CallEffect::DoneThenDelayMs(delay_ms)) => {
            let reply = shared.change(|state| state.answer(call));
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            Some(reply)
        }
    };
    shared.change(|state| {
        let caller = call.token.as_deref().and_then(|token| state.caller(token));
        state.calls.push(Call {
            at_ms: now_ms(),
            method: call.method.to_string(),
            path: call.path_and_query.clone(),
            caller,
            status: reply.as_ref().map(|reply| reply.status),
        });
    });
    reply
}

impl ApiCall {
    /// The body as an object; anything else counts as empty, as Rails' parameters do.
    pub(super) fn parameters(&self) -> Map<String, Value> {
        self.form().parameters
    }

    /// The same with the files of a form.
    fn form(&self) -> Form {
        if let Some(boundary) = self.content_type.as_deref().and_then(multipart::boundary) {
            return multipart::read(&self.body, boundary);
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(parameters)) => Form { parameters, files: Vec::new() },
            _ => Form::default(),
        }
    }

    pub(super) fn query_u64(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.as_str()?.parse().ok()
    }

    pub(super) fn query_text(&self, name: &str) -> Option<&str> {
        self.query.get(name)?.as_str()
    }

    /// The segments after `/api/v1/accounts/{id}`, with that id.
    fn in_account(&self) -> Option<(u64, Vec<&str>)> {
        let mut segments = self.segments.iter().map(String::as_str);
        let prefix = [segments.next()?, segments.next()?, segments.next()?];
        let account_id = segments.next()?.parse().ok()?;
        (prefix == ["api", "v1", "accounts"]).then(|| (account_id, segments.collect()))
    }

    fn endpoint(&self) -> (Endpoint, Option<ConversationKey>) {
        let Some((account_id, rest)) = self.in_account() else { return (Endpoint::Other, None) };
        let ["conversations", id, rest @ ..] = rest.as_slice() else { return (Endpoint::Other, None) };
        let Ok(conversation_id) = id.parse() else { return (Endpoint::Other, None) };
        let endpoint = match (self.method.as_str(), rest) {
            ("POST", ["messages"]) => Endpoint::CreateMessage,
            ("GET", ["messages"]) => Endpoint::ListMessages,
            ("GET", []) => Endpoint::ShowConversation,
            (_, ["toggle_status"]) => Endpoint::ToggleStatus,
            (_, ["toggle_typing_status"]) => Endpoint::ToggleTyping,
            (_, ["assignments"]) => Endpoint::Assign,
            (_, ["labels"]) => Endpoint::Labels,
            (_, ["custom_attributes"]) => Endpoint::CustomAttributes,
            (_, ["toggle_priority"]) => Endpoint::TogglePriority,
            _ => Endpoint::Other,
        };
        (endpoint, Some(ConversationKey { account_id, conversation_id }))
    }
}

impl State {
    fn call_effect(&mut self, call: &ApiCall) -> Option<CallEffect> {
        let (endpoint, key) = call.endpoint();
        let conversation = key.and_then(|key| self.conversations.get_mut(&key));
        let number = match conversation {
            Some(conversation) => {
                conversation.calls_count += 1;
                conversation.calls_count
            }
            None => self.calls.next_number(),
        };
        let conversation_id = key.map_or(0, |key| key.conversation_id);
        let draw = Draw { seed: self.settings.seed, conversation_id, number };
        self.faults.on_call(endpoint, draw)
    }

    /// What Chatwoot answers.
    fn answer(&mut self, call: &ApiCall) -> Reply {
        if self.is_throttled() {
            return Reply::throttled();
        }
        let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        if let ["public", "api", "v1", "inboxes", rest @ ..] = segments.as_slice() {
            return self.public_answer(call, rest);
        }
        // Told to anybody.
        if segments == ["api"] {
            let version = if self.settings.bot_secrets { "4.15.1" } else { "4.12.1" };
            return Reply::json(json!({ "version": version, "queue_services": "ok", "data_services": "ok" }));
        }
        let Some(caller) = call.token.as_deref().and_then(|token| self.caller(token)) else {
            return Reply::unauthorized("Invalid Access Token");
        };
        if segments == ["api", "v1", "profile"] {
            return match caller {
                Author::Human(id) => {
                    self.humans.get(&id).map_or_else(Reply::not_found, |human| Reply::json(self.profile_view(human)))
                }
                _ => Reply::unauthorized("Access to this endpoint is not authorized for bots"),
            };
        }
        let Some((account_id, rest)) = call.in_account() else { return Reply::not_found() };
        if !self.accounts.contains_key(&account_id) {
            return Reply::not_found();
        }
        if !self.belongs_to(caller, account_id) {
            return Reply::unauthorized("You are not authorized to access this account");
        }
        if matches!(caller, Author::Bot(_)) && !bot_may(&call.method, &rest) {
            return Reply::unauthorized("Access to this endpoint is not authorized for bots");
        }
        match rest.as_slice() {
            ["conversations", rest @ ..] => self.conversations_answer(call, caller, account_id, rest),
            rest => self.settings_answer(call, caller, account_id, rest),
        }
    }

    /// Counts the call; all calls of a minute come from one client here.
    fn is_throttled(&mut self) -> bool {
        let Some(calls_max) = self.settings.calls_per_minute_max else { return false };
        let minute = now_ms() / 60_000;
        let (of_minute, count) = &mut self.calls_in_minute;
        if *of_minute != minute {
            (*of_minute, *count) = (minute, 0);
        }
        *count += 1;
        *count > calls_max
    }
}

/// The complete list of what a bot token may call.
fn bot_may(method: &Method, rest: &[&str]) -> bool {
    match (method.as_str(), rest) {
        ("GET" | "PATCH", ["conversations", id]) => id.parse::<u64>().is_ok(),
        ("POST", ["conversations"]) | ("GET", ["conversations", _, "labels"]) => true,
        ("POST", ["conversations", _, action]) => matches!(
            *action,
            "toggle_status"
                | "toggle_typing_status"
                | "toggle_priority"
                | "custom_attributes"
                | "messages"
                | "assignments"
                | "labels"
        ),
        _ => false,
    }
}

/// Either form of the header: CGI makes them one.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("api_access_token").or_else(|| headers.get("api-access-token"))?;
    value.to_str().ok().map(str::to_owned)
}

/// `a=b&c=d`, without percent-decoding: no name or value that is looked at needs it.
pub(super) fn query(text: &str) -> Map<String, Value> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.into())).collect()
}
