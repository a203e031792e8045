//! A receiver of webhooks that answers as it is told, and a caller of REST.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use relais_loadtest::fakes::chatwoot::{ConversationKey, FakeChatwoot, Settings};
use relais_loadtest::http::{Hangup, Server, exchange, read_all, reply};
use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const BOT: &str = "fake-bot-token";
pub(crate) const USER: &str = "fake-user-token";

/// How the receiver answers one webhook.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Status(u16),
    Redirect(&'static str),
    Hangup,
    Never,
}

#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn event(&self) -> &str {
        self.body["event"].as_str().unwrap()
    }

    pub(crate) fn delivery_id(&self) -> &str {
        self.headers["x-chatwoot-delivery"].to_str().unwrap()
    }
}

pub(crate) struct Receiver {
    server: Server,
    got: Arc<Mutex<Vec<Got>>>,
    next: Arc<Mutex<VecDeque<How>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let next: Arc<Mutex<VecDeque<How>>> = Arc::default();
        let (into, from) = (Arc::clone(&got), Arc::clone(&next));
        let server = Server::start(0, move |request: Request<hyper::body::Incoming>| {
            let (into, from) = (Arc::clone(&into), Arc::clone(&from));
            async move {
                let (head, body) = request.into_parts();
                let raw = body.collect().await.map_err(|_| Hangup)?.to_bytes();
                let body = serde_json::from_slice(&raw).unwrap();
                into.lock().unwrap().push(Got { path: head.uri.path().to_owned(), headers: head.headers, raw, body });
                let how = from.lock().unwrap().pop_front();
                match how.unwrap_or(How::Status(200)) {
                    How::Status(status) => Ok(reply(StatusCode::from_u16(status).unwrap(), "text/plain", "")),
                    How::Redirect(to) => {
                        let mut response = reply(StatusCode::FOUND, "text/plain", "");
                        response.headers_mut().insert("location", to.parse().unwrap());
                        Ok(response)
                    }
                    How::Hangup => Err(Hangup),
                    How::Never => std::future::pending().await,
                }
            }
        });
        Self { server: server.await.unwrap(), got, next }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/chatwoot/acme", self.server.url())
    }

    pub(crate) fn answer_next(&self, how: &[How]) {
        self.next.lock().unwrap().extend(how);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.got().iter().map(|got| got.event().to_owned()).collect()
    }

    pub(crate) fn forget(&self) {
        self.got.lock().unwrap().clear();
    }
}

/// Short waits, so that retries do not hold the tests up.
pub(crate) fn quick() -> Settings {
    Settings { retry_wait_ms: 1, ..Settings::default() }
}

pub(crate) async fn start(settings: Settings) -> (FakeChatwoot, Receiver) {
    let receiver = Receiver::start().await;
    let fake = FakeChatwoot::start(settings).await.unwrap();
    fake.set_outgoing_url(&receiver.url());
    (fake, receiver)
}

/// Waits until every webhook has been accepted, given up or lost.
pub(crate) async fn settled(fake: &FakeChatwoot) {
    fake.wait_until(DEADLINE, |fake| fake.deliveries_waiting() == 0).await.unwrap();
}

#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// One call; `None` if the connection closed without an answer.
pub(crate) async fn try_call(
    fake: &FakeChatwoot,
    token: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> Option<Answered> {
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    send(fake, token, method, path, "application/json", bytes).await
}

/// One call with whatever body; `None` if the connection closed without an answer.
pub(crate) async fn send(
    fake: &FakeChatwoot,
    token: &str,
    method: &str,
    path: &str,
    content_type: &str,
    bytes: Bytes,
) -> Option<Answered> {
    let mut request = Request::builder().method(method).uri(format!("{}{path}", fake.url()));
    request = request.header("content-type", content_type);
    if !token.is_empty() {
        request = request.header("api_access_token", token);
    }
    let response = exchange(request.body(Full::new(bytes)).unwrap(), DEADLINE).await.ok()?;
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = String::from_utf8(read_all(response.into_body(), 1 << 24).await.unwrap().to_vec()).unwrap();
    Some(Answered { status, content_type, text })
}

pub(crate) async fn call(fake: &FakeChatwoot, token: &str, method: &str, path: &str, body: Value) -> Answered {
    try_call(fake, token, method, path, &body).await.expect("an answer")
}

/// A call on a conversation, such as `messages`; an empty action is the conversation itself.
pub(crate) async fn on(
    fake: &FakeChatwoot,
    token: &str,
    key: ConversationKey,
    method: &str,
    action: &str,
    body: Value,
) -> Answered {
    call(fake, token, method, &path(key, action), body).await
}

pub(crate) fn path(key: ConversationKey, action: &str) -> String {
    let base = format!("/api/v1/accounts/{}/conversations/{}", key.account_id, key.conversation_id);
    if action.is_empty() { base } else { format!("{base}/{action}") }
}
