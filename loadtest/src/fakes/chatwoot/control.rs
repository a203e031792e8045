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
//! | `GET /control/events` | `after?`: a `seq` | server-sent events: one JSON line per happening |
//!
//! Conversations are of the first account unless `?account=` names another. There is no
//! authentication: it listens on loopback and holds invented data.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
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
use super::rest::{ApiCall, Reply, query};
use super::{Shared, locked};
use crate::http::Body;

/// Lines between the broadcaster and one reader.
const READER_LINES_MAX: usize = 64;

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

/// `GET /control/events`: what is remembered after `after`, then everything as it happens.
pub(super) fn events(shared: &Arc<Shared>, query_text: Option<&str>) -> Response<Body> {
    let asked = query(query_text.unwrap_or_default());
    let after = asked.get("after").and_then(|after| after.as_str()?.parse::<u64>().ok());
    // Subscribed and read under one lock: nothing falls between the past and the future.
    let (past, live) = {
        let state = locked(&shared.state);
        let from = after.map_or(0, |after| after + 1);
        let past: Vec<Arc<str>> = state.lines.since(from).map(|(_, line)| Arc::clone(line)).collect();
        (past, shared.lines.subscribe())
    };
    let (sender, receiver) = mpsc::channel(READER_LINES_MAX);
    shared.spawn(pass_on(past, live, sender));
    let mut response = Response::new(Lines { receiver }.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Ends when the reader leaves or the fake does.
async fn pass_on(past: Vec<Arc<str>>, mut live: broadcast::Receiver<Arc<str>>, sender: mpsc::Sender<Bytes>) {
    let framed = |line: &str| Bytes::from(format!("data: {line}\n\n"));
    for line in past {
        if sender.send(framed(&line)).await.is_err() {
            return;
        }
    }
    loop {
        let line = tokio::select! {
            () = sender.closed() => return,
            line = live.recv() => line,
        };
        let frame = match line {
            Ok(line) => framed(&line),
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                framed(&json!({ "kind": "lines_lost", "lost": lost }).to_string())
            }
            Err(broadcast::error::RecvError::Closed) => return,
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
