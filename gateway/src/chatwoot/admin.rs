//! What an administrator's token may do at a Chatwoot: bots, inboxes and the pieces of a self-test.
//!
//! For the command that connects a Chatwoot, not for serving: a call is made once, with one deadline and a bounded
//! answer, and an [`AdminError`] keeps whose fault it was apart, so that the command can say what to do. Answers are
//! read leniently: of the many fields only the few that are used must be there. It decides nothing.

mod fault;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::body::{self, ReadError};
use crate::http::client::Client;
use crate::http::unreachable::Unreachable;

pub use fault::{AdminError, Fault};

const API_ACCESS_TOKEN: HeaderName = HeaderName::from_static("api_access_token");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Hundreds of inboxes, each with its settings.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A Chatwoot, by the token of one of its users.
#[derive(Clone)]
pub struct Admin {
    http: Client,
    base: String,
    token: SecretString,
    wait: Duration,
}

/// One account of it.
#[derive(Clone)]
pub struct Account {
    admin: Admin,
    path: String,
}

/// Whose token it is.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// The accounts this user is in.
    #[serde(default)]
    pub accounts: Vec<Membership>,
}

/// A user's place in an account.
#[derive(Debug, Clone, Deserialize)]
pub struct Membership {
    /// The account.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// `administrator` or `agent`; Chatwoot's *agent* is a human.
    pub role: Option<String>,
}

/// A bot, as an administrator sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Bot {
    /// Its number.
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The account it belongs to; none for a global one, which hides what follows.
    pub account_id: Option<u64>,
    /// Where its webhooks go.
    pub outgoing_url: Option<String>,
    /// Its own token.
    pub access_token: Option<SecretString>,
    /// What its webhooks are signed with; none before 4.13.
    pub secret: Option<SecretString>,
}

/// One of Chatwoot's inboxes, with the settings that speak beside a bot.
#[derive(Debug, Clone, Deserialize)]
pub struct ChatwootInbox {
    /// Its number.
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `Channel::WebWidget`, `Channel::Api` and so on.
    pub channel_type: Option<String>,
    /// It greets.
    pub greeting_enabled: Option<bool>,
    /// It keeps hours.
    pub working_hours_enabled: Option<bool>,
    /// What it says outside them.
    pub out_of_office_message: Option<String>,
    /// It asks for a mail address.
    pub enable_email_collect: Option<bool>,
    /// It sends a survey when a conversation is resolved.
    pub csat_survey_enabled: Option<bool>,
    /// It gives open conversations to humans.
    pub enable_auto_assignment: Option<bool>,
}

/// Who sits in an inbox.
#[derive(Debug, Clone, Deserialize)]
pub struct Seated {
    /// The bot's number.
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A contact made for a self-test.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The contact.
    pub contact_id: u64,
    /// Its name in the inbox it was made for.
    pub source_id: String,
}

/// What became of a message's delivery to an API inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageState {
    /// `sent`, `failed` and so on.
    pub status: Option<String>,
    /// Why its webhook failed, in Chatwoot's words.
    pub external_error: Option<String>,
}

#[derive(Deserialize)]
struct Payload<T> {
    payload: T,
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

#[derive(Deserialize)]
struct VersionAnswer {
    version: String,
}

#[derive(Deserialize)]
struct BotAnswer {
    agent_bot: Option<Value>,
}

#[derive(Deserialize)]
struct ContactAnswer {
    contact: Numbered,
    contact_inbox: ContactInbox,
}

#[derive(Deserialize)]
struct ContactInbox {
    source_id: String,
}

#[derive(Deserialize)]
struct MessageAnswer {
    id: u64,
    status: Option<String>,
    content_attributes: Option<MessageAttributes>,
}

#[derive(Deserialize)]
struct MessageAttributes {
    external_error: Option<String>,
}

impl Admin {
    /// A Chatwoot at this address, each call with `wait` to its end.
    pub fn new(http: Client, url: &Uri, token: SecretString, wait: Duration) -> Self {
        let base = url.to_string().trim_end_matches('/').to_owned();
        Self { http, base, token, wait }
    }

    /// Its version, if it tells it.
    pub async fn version(&self) -> Option<String> {
        let answer: VersionAnswer = self.ask("asking for the version", Method::GET, "/api", None).await.ok()?;
        Some(answer.version.chars().filter(|letter| !letter.is_control()).take(40).collect())
    }

    /// Whose token it is.
    pub async fn profile(&self) -> Result<Profile, AdminError> {
        let asked = self.ask("checking the token", Method::GET, "/api/v1/profile", None).await;
        asked.map_err(|error| match error {
            AdminError { call, fault: Fault::NotFound } => {
                AdminError { call, fault: Fault::NotChatwoot("404 where every Chatwoot has a profile".to_owned()) }
            }
            other => other,
        })
    }

    /// One account.
    pub fn account(&self, id: u64) -> Account {
        Account { admin: self.clone(), path: format!("/api/v1/accounts/{id}") }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, AdminError> {
        let answer = self.send(call, method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            // What was read could hold a token: only where it stopped is told.
            let at = format!("it cannot be read at line {}, column {}", error.line(), error.column());
            AdminError { call, fault: Fault::NotChatwoot(at) }
        })
    }

    async fn send(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Bytes, AdminError> {
        let failed = |fault| AdminError { call, fault };
        let request = self.request(method, path, body).map_err(|error| failed(Fault::Invalid(error.to_string())))?;
        let answering = async {
            let response = self.http.send(request, self.wait).await.map_err(|error| Unreachable::from(&error))?;
            let (head, mut body) = response.into_parts();
            let body = body::read(&mut body, ANSWER_BYTES_MAX, self.wait).await.map_err(|error| match error {
                ReadError::Stalled => Fault::Unreachable(Unreachable::Slow),
                ReadError::TooLarge => Fault::NotChatwoot("it is too large".to_owned()),
                ReadError::Broken(error) => Fault::Unreachable(Unreachable::Broken(error.to_string())),
            })?;
            Ok::<_, Fault>((head, body))
        };
        let answered = tokio::time::timeout(self.wait, answering).await;
        let (head, body) = answered.unwrap_or(Err(Fault::Unreachable(Unreachable::Slow))).map_err(failed)?;
        match Fault::of(head.status, &head.headers, &body) {
            None => Ok(body),
            Some(fault) => Err(failed(fault)),
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut token = HeaderValue::from_str(self.token.expose_secret())?;
        token.set_sensitive(true);
        let uri = format!("{}{path}", self.base);
        let request = Request::builder().method(method).uri(uri).header(API_ACCESS_TOKEN, token).header(ACCEPT, JSON);
        match body {
            None => request.body(Full::default()),
            Some(body) => request.header(CONTENT_TYPE, JSON).body(Full::new(body.to_string().into())),
        }
    }
}

impl Account {
    /// Every bot of the account, and the global ones.
    pub async fn bots(&self) -> Result<Vec<Bot>, AdminError> {
        self.ask("listing the bots", Method::GET, "/agent_bots", None).await
    }

    /// Makes a bot; its webhooks go to `outgoing_url`.
    pub async fn create_bot(&self, name: &str, description: &str, outgoing_url: &str) -> Result<Bot, AdminError> {
        let body = json!({ "name": name, "description": description, "outgoing_url": outgoing_url });
        self.ask("creating the bot", Method::POST, "/agent_bots", Some(body)).await
    }

    /// Sends a bot's webhooks elsewhere.
    pub async fn direct_bot(&self, id: u64, outgoing_url: &str) -> Result<Bot, AdminError> {
        let body = json!({ "outgoing_url": outgoing_url });
        self.ask("changing the bot's address", Method::PATCH, &format!("/agent_bots/{id}"), Some(body)).await
    }

    /// Deletes a bot. False: there was none.
    pub async fn delete_bot(&self, id: u64) -> Result<bool, AdminError> {
        self.delete("deleting the bot", &format!("/agent_bots/{id}")).await
    }

    /// Every inbox of the account.
    pub async fn inboxes(&self) -> Result<Vec<ChatwootInbox>, AdminError> {
        let answer: Payload<Vec<ChatwootInbox>> =
            self.ask("listing the inboxes", Method::GET, "/inboxes", None).await?;
        Ok(answer.payload)
    }

    /// The bot in an inbox.
    pub async fn bot_of(&self, inbox_id: u64) -> Result<Option<Seated>, AdminError> {
        let path = format!("/inboxes/{inbox_id}/agent_bot");
        let answer: BotAnswer = self.ask("reading the inbox's bot", Method::GET, &path, None).await?;
        // Without a bot it is an empty object.
        Ok(answer.agent_bot.and_then(|bot| serde_json::from_value(bot).ok()))
    }

    /// Puts a bot into an inbox, in place of whoever is there; none takes it out.
    pub async fn set_bot(&self, inbox_id: u64, bot_id: Option<u64>) -> Result<(), AdminError> {
        let path = format!("{}/inboxes/{inbox_id}/set_agent_bot", self.path);
        let body = json!({ "agent_bot": bot_id });
        self.admin.send("setting the inbox's bot", Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Makes an API inbox and gives its number.
    pub async fn create_api_inbox(&self, name: &str) -> Result<u64, AdminError> {
        let body = json!({ "name": name, "channel": { "type": "api" } });
        let made: Numbered = self.ask("creating an API inbox", Method::POST, "/inboxes", Some(body)).await?;
        Ok(made.id)
    }

    /// Sends an API inbox's own webhooks there.
    pub async fn direct_inbox(&self, inbox_id: u64, webhook_url: &str) -> Result<(), AdminError> {
        let path = format!("{}/inboxes/{inbox_id}", self.path);
        let body = json!({ "channel": { "webhook_url": webhook_url } });
        self.admin.send("changing the API inbox", Method::PATCH, &path, Some(body)).await.map(drop)
    }

    /// Deletes an inbox, which Chatwoot finishes later. False: there was none.
    pub async fn delete_inbox(&self, inbox_id: u64) -> Result<bool, AdminError> {
        self.delete("deleting the inbox", &format!("/inboxes/{inbox_id}")).await
    }

    /// Makes a contact of an inbox.
    pub async fn create_contact(&self, name: &str, inbox_id: u64) -> Result<Guest, AdminError> {
        let body = json!({ "name": name, "inbox_id": inbox_id });
        let made: Payload<ContactAnswer> =
            self.ask("creating a contact", Method::POST, "/contacts", Some(body)).await?;
        let ContactAnswer { contact, contact_inbox } = made.payload;
        Ok(Guest { contact_id: contact.id, source_id: contact_inbox.source_id })
    }

    /// Deletes a contact with its conversations. False: there was none.
    pub async fn delete_contact(&self, contact_id: u64) -> Result<bool, AdminError> {
        self.delete("deleting the contact", &format!("/contacts/{contact_id}")).await
    }

    /// Starts a conversation and gives its number.
    pub async fn create_conversation(&self, inbox_id: u64, guest: &Guest) -> Result<u64, AdminError> {
        let body = json!({ "inbox_id": inbox_id, "contact_id": guest.contact_id, "source_id": guest.source_id });
        let made: Numbered = self.ask("starting a conversation", Method::POST, "/conversations", Some(body)).await?;
        Ok(made.id)
    }

    /// Opens a conversation for humans: no bot answers in it.
    pub async fn open(&self, conversation_id: u64) -> Result<(), AdminError> {
        let path = format!("{}/conversations/{conversation_id}/toggle_status", self.path);
        let body = json!({ "status": "open" });
        self.admin.send("opening the conversation", Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Writes as the customer of an API inbox, and gives the message's number.
    pub async fn say(&self, conversation_id: u64, content: &str) -> Result<u64, AdminError> {
        let path = format!("/conversations/{conversation_id}/messages");
        let body = json!({ "content": content, "message_type": "incoming" });
        let made: Numbered = self.ask("writing a message", Method::POST, &path, Some(body)).await?;
        Ok(made.id)
    }

    /// What became of a message among the newest 20 of its conversation.
    pub async fn message(&self, conversation_id: u64, message_id: u64) -> Result<Option<MessageState>, AdminError> {
        let path = format!("/conversations/{conversation_id}/messages");
        let answer: Payload<Vec<MessageAnswer>> = self.ask("reading the messages", Method::GET, &path, None).await?;
        let found = answer.payload.into_iter().find(|message| message.id == message_id);
        Ok(found.map(|message| MessageState {
            status: message.status,
            external_error: message.content_attributes.and_then(|attributes| attributes.external_error),
        }))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, AdminError> {
        self.admin.ask(call, method, &format!("{}{path}", self.path), body).await
    }

    async fn delete(&self, call: &'static str, path: &str) -> Result<bool, AdminError> {
        match self.admin.send(call, Method::DELETE, &format!("{}{path}", self.path), None).await {
            Ok(_) => Ok(true),
            Err(AdminError { fault: Fault::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
