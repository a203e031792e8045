//! What we ask of one Chatwoot channel: read a conversation, post, hand over.
//!
//! Everything is done with the bot's token, except reading messages, which only a user's token may. Every call is
//! one request with one deadline and a bounded answer; redirects are not followed and nothing is repeated here,
//! because a message posted twice is a customer told twice: the relay decides, and a [`CallError`] says what it
//! needs for that. Each call is taken from the installation's budget, waiting at most half of its deadline for it.
//! Addresses are built from numbers only, so no text of a customer can choose one.
//!
//! `source_id` is never sent: a message that has one is taken for delivered and never reaches the channel.

pub mod missed;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::chatwoot::event::{ConversationView, Message, Status, TurnMark};
use crate::chatwoot::installation::{Installation, NoRoom, Taken};
use crate::chatwoot::{text, wire};
use crate::config;
use crate::conversation::Priority;
use crate::conversation::choice::Choice;
use crate::http::body::{self, ReadError};
use crate::http::client::{Client, SendError};
use crate::metrics::Metrics;

const API_ACCESS_TOKEN: HeaderName = HeaderName::from_static("api_access_token");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A page of 100 messages of ordinary size is 200 KB; one message can have 150,000 characters, three times over.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages in one page when asked for those after a number (contract 6.6).
const PAGE_MESSAGES: usize = 100;
/// The one call that nobody would miss.
const TYPING: &str = "typing";

/// One channel of one tenant, seen from here.
#[derive(Clone)]
pub struct Chatwoot {
    http: Client,
    channel: Arc<config::Channel>,
    /// The account's address.
    account: Arc<str>,
    installation: Arc<Installation>,
    wait: Duration,
    metrics: Arc<Metrics>,
}

/// A message to post.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Text, short enough for the medium. Made safe here, whoever wrote it.
    pub content: &'a str,
    /// A note for the humans only.
    pub private: bool,
    /// Our mark, by which the message is found again.
    pub mark: Option<TurnMark>,
}

/// A message that Chatwoot has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Its number.
    pub message_id: u64,
}

/// Part of a conversation's messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Ordered by number; Chatwoot's own activity lines are left out.
    pub messages: Vec<Message>,
    /// The highest number on the page, left-out lines included: where the next page starts.
    pub last_id: Option<u64>,
    /// There may be a next page.
    pub more: bool,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("calling Chatwoot: {call}")]
pub struct CallError {
    /// What it means for a second try.
    pub class: CallClass,
    /// Which call.
    pub call: &'static str,
    /// What went wrong.
    #[source]
    pub source: CallCause,
}

/// What a failure means for a second try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallClass {
    /// Nothing was sent: try again.
    NotSent,
    /// Sent, and no usable answer came: it may have been done.
    Unknown,
    /// Turned away by a rate limit before anything was done; the wait, if it was told.
    Throttled(Option<Duration>),
    /// 5xx, 408, or the 422 with which Chatwoot also reports its own transient trouble: it may have been done.
    Transient(u16),
    /// 401 for a wrong token or a missing right, 404 for a conversation that is gone, and the like: will not change.
    Refused(u16),
}

/// What went wrong with a call. Says nothing of the answer's text.
#[derive(Debug, thiserror::Error)]
pub enum CallCause {
    /// No answer.
    #[error(transparent)]
    Send(SendError),
    /// An answer that is not a success.
    #[error("status {0}")]
    Status(u16),
    /// The answer broke off.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer did not end in time.
    #[error("the answer did not end within {} ms", .0.as_millis())]
    Slow(Duration),
    /// The answer is over 16 MiB.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer is not what this call answers.
    #[error("the answer has no usable {0}")]
    Shape(&'static str),
    /// Not sent: the installation has taken as many calls as it may for now.
    #[error("no room among the calls this Chatwoot takes")]
    NoRoom,
    /// The request could not be made of the configured address or token.
    #[error("the configured address or token cannot be sent")]
    Request(#[source] http::Error),
}

impl CallError {
    /// Whether the call may have had its effect although it failed: what decides if a post must be looked for
    /// before it is repeated. A 422 or 5xx can come after the message was stored (a queue that is down).
    pub fn may_have_acted(&self) -> bool {
        matches!(self.class, CallClass::Unknown | CallClass::Transient(_))
    }

    /// Whether another try could end otherwise.
    pub fn retriable(&self) -> bool {
        !matches!(self.class, CallClass::Refused(_))
    }

    fn new(call: &'static str, cause: CallCause) -> Self {
        let class = match &cause {
            CallCause::Send(error) if error.not_sent() => CallClass::NotSent,
            CallCause::Status(status @ (408 | 422 | 500..)) => CallClass::Transient(*status),
            CallCause::Status(status) => CallClass::Refused(*status),
            CallCause::Request(_) => CallClass::Refused(0),
            _ => CallClass::Unknown,
        };
        Self { class, call, source: cause }
    }

    fn outcome(&self) -> &'static str {
        match self.class {
            CallClass::NotSent => "not_sent",
            CallClass::Unknown => "unknown",
            CallClass::Throttled(_) => "throttled",
            CallClass::Transient(_) => "transient",
            CallClass::Refused(_) => "refused",
        }
    }
}

#[derive(Serialize)]
struct PostBody<'a> {
    content: &'a str,
    message_type: &'static str,
    private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    content_attributes: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct StatusAnswer<'a> {
    #[serde(borrow)]
    payload: StatusPayload<'a>,
}

#[derive(Deserialize)]
struct StatusPayload<'a> {
    current_status: &'a str,
}

#[derive(Deserialize)]
struct LabelsAnswer {
    payload: Vec<String>,
}

#[derive(Deserialize)]
struct AttributesAnswer {
    custom_attributes: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct MessagesAnswer<'a> {
    #[serde(borrow)]
    payload: Vec<&'a RawValue>,
}

/// One request to come.
struct Call<'a> {
    name: &'static str,
    method: Method,
    path: String,
    body: Bytes,
    token: &'a SecretString,
}

impl Chatwoot {
    /// A channel's calls, each with `wait` from its start to the end of its answer. `installation` is the one at the
    /// channel's address.
    pub fn new(
        http: Client,
        channel: Arc<config::Channel>,
        installation: Arc<Installation>,
        wait: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let base = channel.url.to_string();
        let base = base.trim_end_matches('/');
        let account = format!("{base}/api/v1/accounts/{}", channel.account_id).into();
        Self { http, channel, account, installation, wait, metrics }
    }

    /// The channel this speaks to.
    pub fn channel(&self) -> &Arc<config::Channel> {
        &self.channel
    }

    /// Reads a conversation.
    ///
    /// Some versions answer 500 to a bot's token if a team has the conversation: then the user's token, if there is
    /// one, asks again.
    pub async fn conversation(&self, id: u64) -> Result<ConversationView, CallError> {
        const CALL: &str = "conversation";
        let answer = self.read(CALL, id).await?;
        let view = serde_json::from_slice::<wire::RawConversation<'_>>(&answer).ok().and_then(|raw| raw.view());
        view.filter(|view| view.id == id).ok_or_else(|| CallError::new(CALL, CallCause::Shape("conversation")))
    }

    /// The conversation as Chatwoot writes it: by the user's token where the bot's fails.
    async fn read(&self, name: &'static str, id: u64) -> Result<Bytes, CallError> {
        let read = |token| self.call(name, Method::GET, id, "", Bytes::new(), token);
        match (read(&self.channel.bot_token).await, &self.channel.user_token) {
            (Err(error), Some(user)) if error.class == CallClass::Transient(500) => read(user).await,
            (answer, _) => answer,
        }
    }

    /// Posts a message, without control characters and with its Liquid broken. On success it is stored; the channel delivers it later.
    pub async fn post(&self, id: u64, message: &Outgoing<'_>) -> Result<Posted, CallError> {
        self.post_with(id, message, None).await
    }

    /// Posts a question with its options as buttons or a list, whichever the channel has. The answer comes back as an
    /// option's title or as its number.
    pub async fn post_choice(&self, id: u64, choice: &Choice<'_>, mark: TurnMark) -> Result<Posted, CallError> {
        let message = Outgoing { content: choice.lead, private: false, mark: Some(mark) };
        self.post_with(id, &message, Some(choice)).await
    }

    async fn post_with(
        &self,
        id: u64,
        message: &Outgoing<'_>,
        choice: Option<&Choice<'_>>,
    ) -> Result<Posted, CallError> {
        const CALL: &str = "post";
        let mut content_attributes = serde_json::Map::new();
        if let Some(choice) = choice {
            let item = |(at, title): (usize, &&str)| json!({ "title": title, "value": (at + 1).to_string() });
            let items: serde_json::Value = choice.options.iter().enumerate().map(item).collect();
            content_attributes.insert("items".to_owned(), items);
        }
        if let Some(mark) = message.mark {
            content_attributes.insert(wire::TURN_ID_KEY.to_owned(), mark.turn_id.to_string().into());
            content_attributes.insert(wire::PART_KEY.to_owned(), mark.part.into());
        }
        let body = PostBody {
            content: &text::outgoing(message.content, text::CONTENT_CHARS_MAX),
            message_type: "outgoing",
            private: message.private,
            content_type: choice.map(|_| "input_select"),
            content_attributes,
        };
        let answer = self.send_json(CALL, Method::POST, id, "/messages", &body).await?;
        let message_id = serde_json::from_slice::<wire::RawMessage<'_>>(&answer).ok().and_then(|raw| raw.id());
        // Stored, but we do not know as what: the same as no answer at all.
        let message_id = message_id.ok_or_else(|| CallError::new(CALL, CallCause::Shape("id")))?;
        Ok(Posted { message_id })
    }

    /// Sets the status and returns the one the conversation has now, which the caller compares.
    pub async fn set_status(&self, id: u64, status: Status) -> Result<Status, CallError> {
        const CALL: &str = "set_status";
        let body = json!({ "status": status.as_str() });
        let answer = self.send_json(CALL, Method::POST, id, "/toggle_status", &body).await?;
        serde_json::from_slice::<StatusAnswer<'_>>(&answer)
            .ok()
            .and_then(|answer| Status::named(answer.payload.current_status))
            .ok_or_else(|| CallError::new(CALL, CallCause::Shape("current_status")))
    }

    /// Shows or hides "is typing". It vanishes by itself after 30 s. Not sent while calls are scarce.
    pub async fn typing(&self, id: u64, on: bool) -> Result<(), CallError> {
        let body = json!({ "typing_status": if on { "on" } else { "off" }, "is_private": false });
        self.send_json(TYPING, Method::POST, id, "/toggle_typing_status", &body).await.map(drop)
    }

    /// Gives the conversation to a team. False if Chatwoot did not: it takes an unknown team for none.
    pub async fn assign_team(&self, id: u64, team_id: u64) -> Result<bool, CallError> {
        let body = json!({ "team_id": team_id });
        let answer = self.send_json("assign_team", Method::POST, id, "/assignments", &body).await?;
        let team = serde_json::from_slice::<Option<wire::Numbered>>(&answer).ok().flatten();
        Ok(team.and_then(|team| team.id) == Some(team_id))
    }

    /// Gives the conversation to a human. False if Chatwoot did not: it takes an unknown one for nobody.
    pub async fn assign_human(&self, id: u64, human_id: u64) -> Result<bool, CallError> {
        let body = json!({ "assignee_id": human_id });
        let answer = self.send_json("assign_human", Method::POST, id, "/assignments", &body).await?;
        let human = serde_json::from_slice::<Option<wire::Numbered>>(&answer).ok().flatten();
        Ok(human.and_then(|human| human.id) == Some(human_id))
    }

    /// The conversation's labels.
    pub async fn labels(&self, id: u64) -> Result<Vec<String>, CallError> {
        const CALL: &str = "labels";
        let answer = self.call(CALL, Method::GET, id, "/labels", Bytes::new(), &self.channel.bot_token).await?;
        serde_json::from_slice::<LabelsAnswer>(&answer)
            .map(|answer| answer.payload)
            .map_err(|_| CallError::new(CALL, CallCause::Shape("labels")))
    }

    /// Replaces all labels: read them first.
    pub async fn set_labels(&self, id: u64, labels: &[String]) -> Result<(), CallError> {
        self.send_json("set_labels", Method::POST, id, "/labels", &json!({ "labels": labels })).await.map(drop)
    }

    /// The operator's own fields of the conversation.
    pub async fn attributes(&self, id: u64) -> Result<serde_json::Map<String, serde_json::Value>, CallError> {
        const CALL: &str = "conversation";
        let answer = self.read(CALL, id).await?;
        serde_json::from_slice::<AttributesAnswer>(&answer)
            .map(|answer| answer.custom_attributes)
            .map_err(|_| CallError::new(CALL, CallCause::Shape("custom_attributes")))
    }

    /// Replaces all of them: read them first.
    pub async fn set_attributes(
        &self,
        id: u64,
        attributes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), CallError> {
        let body = json!({ "custom_attributes": attributes });
        self.send_json("set_attributes", Method::POST, id, "/custom_attributes", &body).await.map(drop)
    }

    /// Sets the priority; none clears it.
    pub async fn set_priority(&self, id: u64, priority: Option<Priority>) -> Result<(), CallError> {
        let body = json!({ "priority": priority.map(Priority::as_str) });
        self.send_json("set_priority", Method::POST, id, "/toggle_priority", &body).await.map(drop)
    }

    /// One page of the messages with numbers above `message_id`. `None` without a user's token: a bot may not.
    pub async fn messages_after(&self, id: u64, message_id: u64) -> Result<Option<Page>, CallError> {
        const CALL: &str = "messages";
        let Some(token) = &self.channel.user_token else { return Ok(None) };
        let path = format!("/messages?after={message_id}");
        let answer = self.call(CALL, Method::GET, id, &path, Bytes::new(), token).await?;
        let answer: MessagesAnswer<'_> =
            serde_json::from_slice(&answer).map_err(|_| CallError::new(CALL, CallCause::Shape("payload")))?;
        // One that cannot be read spoils no other.
        let read: Vec<wire::RawMessage<'_>> =
            answer.payload.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
        let told = read.iter().filter(|raw| !raw.is_activity());
        let mut messages: Vec<Message> = told.filter_map(wire::RawMessage::message).collect();
        // Chatwoot filters by number and sorts by time.
        messages.sort_by_key(|message| message.id);
        let last_id = read.iter().filter_map(wire::RawMessage::id).max();
        Ok(Some(Page { messages, last_id, more: answer.payload.len() >= PAGE_MESSAGES }))
    }

    async fn send_json(
        &self,
        name: &'static str,
        method: Method,
        id: u64,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, CallError> {
        let body = serde_json::to_vec(body).map(Bytes::from).unwrap_or_default();
        self.call(name, method, id, path, body, &self.channel.bot_token).await
    }

    async fn call(
        &self,
        name: &'static str,
        method: Method,
        id: u64,
        path: &str,
        body: Bytes,
        token: &SecretString,
    ) -> Result<Bytes, CallError> {
        let path = format!("{}/conversations/{id}{path}", self.account);
        self.counted(Call { name, method, path, body, token }).await
    }

    async fn counted(&self, call: Call<'_>) -> Result<Bytes, CallError> {
        let name = call.name;
        let until = Instant::now() + self.wait;
        let result = match self.admitted(name, until).await {
            Ok(()) => self.answer(call, until).await,
            Err(NoRoom { wait }) => {
                let class = CallClass::Throttled(Some(wait));
                Err(CallError { class, ..CallError::new(name, CallCause::NoRoom) })
            }
        };
        let outcome = match &result {
            Ok(_) => "ok",
            Err(CallError { source: CallCause::NoRoom, .. }) => "no_room",
            Err(error) => error.outcome(),
        };
        self.metrics.relay.chatwoot_requests.with_label_values(&[name, outcome]).inc();
        result
    }

    /// Takes a call from the installation's budget. Half of the call's time at most goes into waiting for that, so
    /// that what is sent has time to be answered.
    async fn admitted(&self, name: &'static str, until: Instant) -> Result<(), NoRoom> {
        let taken = match name {
            TYPING if self.installation.take_courtesy() => Ok(Taken::AtOnce),
            TYPING => Err(NoRoom { wait: Duration::ZERO }),
            _ => self.installation.take(until - self.wait / 2).await,
        };
        let result = match &taken {
            Ok(Taken::AtOnce) => "at_once",
            Ok(Taken::Waited) => "waited",
            Err(_) if name == TYPING => "dropped",
            Err(_) => "no_room",
        };
        self.metrics.relay.chatwoot_budget.with_label_values(&[name, result]).inc();
        taken.map(drop)
    }

    async fn answer(&self, call: Call<'_>, until: Instant) -> Result<Bytes, CallError> {
        let name = call.name;
        let failed = |cause| CallError::new(name, cause);
        let request = request(call).map_err(|error| failed(CallCause::Request(error)))?;
        let left = until.saturating_duration_since(Instant::now());
        let response = self.http.send(request, left).await.map_err(|error| failed(CallCause::Send(error)))?;
        let (head, mut body) = response.into_parts();
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            let asked = retry_after(&head.headers);
            self.installation.throttled(asked);
            self.metrics.relay.chatwoot_budget.with_label_values(&[name, "throttled"]).inc();
            let class = CallClass::Throttled(asked);
            return Err(CallError { class, ..failed(CallCause::Status(head.status.as_u16())) });
        }
        self.installation.went_through();
        if !head.status.is_success() {
            return Err(failed(CallCause::Status(head.status.as_u16())));
        }
        match tokio::time::timeout_at(until, body::read(&mut body, ANSWER_BYTES_MAX, self.wait)).await {
            Err(_) | Ok(Err(ReadError::Stalled)) => Err(failed(CallCause::Slow(self.wait))),
            Ok(Err(ReadError::TooLarge)) => Err(failed(CallCause::TooLarge)),
            Ok(Err(ReadError::Broken(error))) => Err(failed(CallCause::Broken(error))),
            Ok(Ok(whole)) => Ok(whole),
        }
    }
}

fn request(call: Call<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut token = HeaderValue::from_str(call.token.expose_secret())?;
    token.set_sensitive(true);
    let mut request =
        Request::builder().method(call.method).uri(call.path).header(API_ACCESS_TOKEN, token).header(ACCEPT, JSON);
    if !call.body.is_empty() {
        request = request.header(CONTENT_TYPE, JSON);
    }
    request.body(Full::new(call.body))
}

/// Chatwoot itself sends none; a proxy before it may.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
