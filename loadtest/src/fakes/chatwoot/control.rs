//! The handle over HTTP, for a fake that runs as a process.
//!
//! | call | body or query | answer |
//! | --- | --- | --- |
//! | `GET /control/world` | | ids to start from |
//! | `POST /control/conversations` | `chatwoot_inbox_id?`, `contact?`, `text?` | `account_id, conversation_id, message_id` |
//! | `GET /control/conversations` | | all keys |
//! | `GET /control/conversations/{id}` | | the whole conversation, notes included |
//! | `GET /control/conversations/{id}/seen` | | what the customer said and saw |
//! | `POST /control/conversations/{id}/acts` | an [`Act`], such as `{"act": "customer_says", "text": ".."}` | `message_id` |
//! | `GET`, `POST /control/faults` | [`Faults`] | the faults now on |
//! | `POST /control/outgoing_url` | `url` (null sends none) | empty |
//! | `GET /control/deliveries`, `/control/calls` | | what is remembered |
//! | `GET /control/events` | `after?`: a `seq`; or `Last-Event-ID` | server-sent events: one JSON line per happening |
//! | `POST /control/gateway` | any JSON | empty; the page shows it |
//! | `POST /control/crash` | | empty; who runs the gateway is asked to crash it and start it again |
//!
//! Conversations are of the first account unless `?account=` names another. There is no
//! authentication: it listens on loopback and holds invented data.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};

use super::act::{Act, NewContact};
use super::fault::Faults;
use super::machine::Refused;
use super::model::ConversationKey;
use super::record::Happening;
use super::rest::{ApiCall, Reply, query};
use super::{Shared, locked};
use crate::http::Body;

/// Lines between the broadcaster and one reader.
const READER_LINES_MAX: usize = 64;
/// How often a reader is sent a comment when nothing happens, so that both sides notice a broken connection.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// What may be told of the gateway at once.
const REPORT_BYTES_MAX: usize = 64 << 10;
/// What a browser that connects again has seen last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConversation {
    #[serde(default)]
    chatwoot_inbox_id: Option<u64>,
    #[serde(default)]
    contact: NewContact,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutgoingUrl {
    url: Option<String>,
}

/// Answers one control call.
pub(super) fn answer(shared: &Arc<Shared>, call: &ApiCall) -> Reply {
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    let rest = segments.get(1..).unwrap_or_default();
    let account_id = call.query_u64("account").unwrap_or(shared.settings.account_id);
    match (&call.method, rest) {
        (&Method::GET, ["world"]) => Reply::json(json!(shared.look(super::State::world))),
        (&Method::GET, ["deliveries"]) => {
            Reply::json(shared.look(|state| json!(state.deliveries.iter().collect::<Vec<_>>())))
        }
        (&Method::GET, ["calls"]) => Reply::json(shared.look(|state| json!(state.calls.iter().collect::<Vec<_>>()))),
        (&Method::GET, ["faults"]) => Reply::json(shared.look(|state| json!(state.faults))),
        (&Method::POST, ["faults"]) => parsed::<Faults>(call).map_or_else(refused, |faults| {
            let now_on = json!(faults);
            shared.change(|state| state.faults = faults);
            Reply::json(now_on)
        }),
        (&Method::POST, ["outgoing_url"]) => parsed::<OutgoingUrl>(call).map_or_else(refused, |asked| {
            shared.change(|state| state.set_outgoing_url(asked.url));
            Reply::empty()
        }),
        (&Method::POST, ["gateway"]) if call.body.len() > REPORT_BYTES_MAX => {
            Reply::error(413, "That is too much to tell")
        }
        (&Method::POST, ["gateway"]) => parsed(call).map_or_else(refused, |report| {
            shared.change(|state| state.report_gateway(report));
            Reply::empty()
        }),
        (&Method::POST, ["crash"]) => {
            shared.change(|state| state.tell_of_gateway(&Happening::CrashAsked));
            Reply::empty()
        }
        (&Method::GET, ["conversations"]) => {
            Reply::json(shared.look(|state| json!(state.conversations.keys().collect::<Vec<_>>())))
        }
        (&Method::POST, ["conversations"]) => {
            parsed::<NewConversation>(call).map_or_else(refused, |asked| start(shared, account_id, asked))
        }
        (method, ["conversations", id, rest @ ..]) => {
            let Ok(conversation_id) = id.parse() else { return Reply::not_found() };
            one_conversation(shared, call, method, ConversationKey { account_id, conversation_id }, rest)
        }
        _ => Reply::not_found(),
    }
}

fn start(shared: &Arc<Shared>, account_id: u64, asked: NewConversation) -> Reply {
    let started: Result<_, Refused> = shared.change(|state| {
        let inbox_id = asked.chatwoot_inbox_id.or_else(|| state.first_inbox_of(account_id)).unwrap_or(0);
        let key = state.start_with(inbox_id, asked.contact)?;
        let said = asked.text.map(|text| state.perform(key, Act::CustomerSays { text })).transpose()?;
        Ok((key, said.flatten()))
    });
    match started {
        Ok((ConversationKey { account_id, conversation_id }, message_id)) => Reply::json(
            json!({ "account_id": account_id, "conversation_id": conversation_id, "message_id": message_id }),
        ),
        Err(refused) => refused.into(),
    }
}

fn one_conversation(
    shared: &Arc<Shared>,
    call: &ApiCall,
    method: &Method,
    key: ConversationKey,
    rest: &[&str],
) -> Reply {
    match (method, rest) {
        (&Method::GET, []) => shared
            .look(|state| state.conversations.get(&key).map(|conversation| json!(conversation)))
            .map_or_else(Reply::not_found, Reply::json),
        (&Method::GET, ["seen"]) => Reply::json(shared.look(|state| json!(state.seen_by_customer(key)))),
        (&Method::POST, ["acts"]) => {
            parsed::<Act>(call).map_or_else(refused, |act| match shared.change(|state| state.perform(key, act)) {
                Ok(message_id) => Reply::json(json!({ "message_id": message_id })),
                Err(refused) => refused.into(),
            })
        }
        _ => Reply::not_found(),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(call: &ApiCall) -> Result<T, serde_json::Error> {
    let body: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
    serde_json::from_slice(body)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_or_else` wants")]
fn refused(error: serde_json::Error) -> Reply {
    Reply::error(400, &error.to_string())
}

/// `GET /control/events`: what is remembered after `after`, then everything as it happens. A browser that lost its
/// connection says in `Last-Event-ID` what it has; who missed something that is forgotten is told so.
pub(super) fn events(shared: &Arc<Shared>, head: &Parts) -> Response<Body> {
    let asked = query(head.uri.query().unwrap_or_default());
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let seen = head.headers.get(LAST_EVENT_ID).and_then(|id| number(id.to_str().ok()?));
    let after = seen.or_else(|| number(asked.get("after")?.as_str()?));
    // Subscribed and read under one lock: nothing falls between the past and the future.
    let (past, live) = {
        let state = locked(&shared.state);
        let from = after.map_or(0, |after| after.saturating_add(1));
        let lost = state.lines.first_number().saturating_sub(from);
        let told = state.lines.since(from).map(|(number, line)| framed(number, line));
        let past: Vec<Bytes> = after.and((lost > 0).then(|| lines_lost(lost))).into_iter().chain(told).collect();
        (past, shared.lines.subscribe())
    };
    let (sender, receiver) = mpsc::channel(READER_LINES_MAX);
    shared.spawn(pass_on(past, live, sender));
    let mut response = Response::new(Lines { receiver }.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn framed(number: u64, line: &str) -> Bytes {
    Bytes::from(format!("id: {number}\ndata: {line}\n\n"))
}

fn lines_lost(lost: u64) -> Bytes {
    Bytes::from(format!("data: {}\n\n", json!({ "kind": "lines_lost", "lost": lost })))
}

/// Ends when the reader leaves or the fake does.
async fn pass_on(past: Vec<Bytes>, mut live: broadcast::Receiver<(u64, Arc<str>)>, sender: mpsc::Sender<Bytes>) {
    for frame in past {
        if sender.send(frame).await.is_err() {
            return;
        }
    }
    loop {
        let frame = tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(QUIET_MAX) => Bytes::from_static(b": nothing happens\n\n"),
            line = live.recv() => match line {
                Ok((number, line)) => framed(number, &line),
                Err(broadcast::error::RecvError::Lagged(lost)) => lines_lost(lost),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

struct Lines {
    receiver: mpsc::Receiver<Bytes>,
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receiver.poll_recv(cx).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
