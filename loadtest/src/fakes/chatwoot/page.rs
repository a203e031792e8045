//! The page: a customer's chat and the humans' inbox in a browser, for whoever wants to see it and try it by hand.
//!
//! Serves the files of `loadtest/page`, which are compiled in, and what they show: every conversation in brief, one in
//! full. What is done there goes through `/control`, and what happens comes from `GET /control/events`. What only the
//! gateway knows is brought by whoever runs it (`POST /control/gateway`) and handed on as it is: a fake
//! understands none of it.
//!
//! A browser also runs other people's pages, and they can reach this port. [`is_foreign`] keeps them out; scripts,
//! which say nothing about themselves, come in as before.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Shared;
use super::model::{Author, Conversation, ConversationKey, Message, MessageType};
use super::record::{Delivery, Route};
use super::state::State;
use crate::http::{Body, json as json_reply, reply};

/// Conversations in the list, the latest first.
const LISTED_MAX: usize = 50;
/// Messages of a conversation, the latest.
const MESSAGES_MAX: usize = 200;
/// Webhooks about a conversation, the latest.
const DELIVERIES_MAX: usize = 24;
/// How far back these are looked for among everybody's.
const DELIVERIES_SEARCHED_MAX: usize = 5000;
/// Nothing from anywhere else, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Sent by every browser with every call; no script can change them.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The page's files: name, type, content.
const FILES: [(&str, &str, &str); 7] = [
    ("", "text/html; charset=utf-8", include_str!("../../../page/index.html")),
    ("icon.svg", "image/svg+xml", include_str!("../../../page/icon.svg")),
    ("style.css", "text/css; charset=utf-8", include_str!("../../../page/style.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("../../../page/app.js")),
    ("talk.js", "text/javascript; charset=utf-8", include_str!("../../../page/talk.js")),
    ("work.js", "text/javascript; charset=utf-8", include_str!("../../../page/work.js")),
    ("words.js", "text/javascript; charset=utf-8", include_str!("../../../page/words.js")),
];

/// Whether a browser makes this call for another site's page, or under a name that is not this machine's.
pub(super) fn is_foreign(head: &Parts) -> bool {
    let Some(site) = head.headers.get(FETCH_SITE) else { return false };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !["127.0.0.1", "localhost", "[::1]"].contains(&name) {
        return true;
    }
    // Following a link to the page is fine: it changes nothing.
    let follows = head.method == Method::GET && head.headers.get(FETCH_MODE).is_some_and(|mode| mode == "navigate");
    !(follows || site == "same-origin" || site == "none")
}

/// What a foreign page gets.
pub(super) fn refusal() -> Response<Body> {
    json_reply(StatusCode::FORBIDDEN, &json!({ "error": "This is for pages of this server only" }))
}

/// Answers `GET /demo` and everything below.
pub(super) fn answer(shared: &Shared, head: &Parts) -> Response<Body> {
    let path = head.uri.path().trim_start_matches("/demo").trim_matches('/');
    let mut response = match (&head.method, path) {
        (&Method::GET | &Method::HEAD, path) => get(shared, path),
        _ => json_reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "The page is only read" })),
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn get(shared: &Shared, path: &str) -> Response<Body> {
    if let Some((_, kind, content)) = FILES.iter().find(|(name, _, _)| *name == path) {
        return reply(StatusCode::OK, kind, *content);
    }
    let account_id = shared.settings.account_id;
    let found = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["state"] => Some(shared.look(|state| state.page_overview(account_id))),
        ["gateway"] => Some(shared.look(|state| json!(state.gateway_report))),
        ["conversations", id] => id.parse().ok().and_then(|conversation_id| {
            shared.look(|state| state.page_conversation(ConversationKey { account_id, conversation_id }))
        }),
        _ => None,
    };
    match found {
        Some(view) => json_reply(StatusCode::OK, &view),
        None => json_reply(StatusCode::NOT_FOUND, &json!({ "error": "Nothing is here" })),
    }
}

impl State {
    /// All conversations in brief, and the happening after which to listen.
    fn page_overview(&self, account_id: u64) -> Value {
        let mut newest: Vec<&Conversation> =
            self.conversations.values().filter(|conversation| conversation.key.account_id == account_id).collect();
        newest.sort_by_key(|conversation| std::cmp::Reverse((conversation.last_activity_at_ms, conversation.key)));
        json!({
            "shop": self.accounts.get(&account_id).map(|account| &account.name),
            "after": self.lines.next_number().checked_sub(1),
            "conversations": newest.into_iter().take(LISTED_MAX).map(|one| self.page_brief(one)).collect::<Vec<_>>(),
        })
    }

    fn page_brief(&self, conversation: &Conversation) -> Value {
        let last = conversation.messages.iter().rev().find(|message| message.is_for_customer());
        json!({
            "id": conversation.key.conversation_id,
            "customer": self.contacts.get(&conversation.contact_id).map(|contact| &contact.name),
            "status": conversation.status,
            "assignee": self.assignee_name(conversation),
            "team": conversation.team_id.and_then(|id| self.teams.get(&id)).map(|team| &team.name),
            "labels": conversation.labels,
            "priority": conversation.priority,
            "last": last.map(|message| self.page_message(message)),
            "active_at_ms": conversation.last_activity_at_ms,
        })
    }

    fn page_conversation(&self, key: ConversationKey) -> Option<Value> {
        let conversation = self.conversations.get(&key)?;
        let skipped = conversation.messages.len().saturating_sub(MESSAGES_MAX);
        let mut view = self.page_brief(conversation);
        let keys = view.as_object_mut()?;
        let messages = conversation.messages.iter().skip(skipped).map(|message| self.page_message(message));
        keys.insert("messages".to_owned(), messages.collect());
        keys.insert("typing".to_owned(), conversation.typing.last().copied().unwrap_or(false).into());
        let about = self.deliveries.newest().take(DELIVERIES_SEARCHED_MAX).filter(|delivery| delivery.key == key);
        keys.insert("deliveries".to_owned(), about.take(DELIVERIES_MAX).map(|one| self.page_delivery(one)).collect());
        Some(view)
    }

    fn page_message(&self, message: &Message) -> Value {
        let kind = match (message.message_type, message.private, message.author) {
            (MessageType::Incoming, _, _) => "customer",
            (MessageType::Activity, _, _) => "activity",
            (_, true, _) => "note",
            (_, _, Some(Author::Bot(_))) => "agent",
            (_, _, Some(Author::Human(_))) => "human",
            _ => "system",
        };
        let attribute = |name: &str| message.content_attributes.get(name);
        json!({
            "id": message.id,
            "kind": kind,
            "by": message.author.and_then(|author| self.author_name(author)),
            "text": message.content,
            "at_ms": message.created_at_ms,
            "failed": message.status == "failed",
            "choices": (message.content_type == "input_select").then(|| attribute("items")),
            "chosen": attribute("submitted_values"),
        })
    }

    fn page_delivery(&self, delivery: &Delivery) -> Value {
        let signed = match delivery.route {
            Route::Bot(id) => self.bots.get(&id).is_some_and(|bot| bot.secret.is_some()),
            Route::Account | Route::ApiInbox => true,
        };
        json!({
            "id": delivery.delivery_id,
            "event": delivery.event,
            "message_id": delivery.message_id,
            "signed": signed,
            "outcome": delivery.outcome,
            "attempts": delivery.attempts,
        })
    }

    fn author_name(&self, author: Author) -> Option<&str> {
        match author {
            Author::Contact(id) => self.contacts.get(&id).map(|contact| contact.name.as_str()),
            Author::Human(id) => self.humans.get(&id).map(|human| human.name.as_str()),
            Author::Bot(id) => self.bots.get(&id).map(|bot| bot.name.as_str()),
        }
    }

    fn assignee_name(&self, conversation: &Conversation) -> Option<&str> {
        use super::model::Assignee;
        self.author_name(match conversation.assignee? {
            Assignee::Human(id) => Author::Human(id),
            Assignee::Bot(id) => Author::Bot(id),
        })
    }
}
