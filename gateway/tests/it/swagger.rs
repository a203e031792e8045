//! Every request we make of Chatwoot, held against Chatwoot's own description of its API.
//!
//! A recorder stands between the gateway and the fake Chatwoot and keeps what passes. Method, path, query and body must
//! be in `swagger.json`, and a body may have no field beyond those the contract describes: the description accepts any
//! misspelling. Where the contract says that the description is wrong, it is not asked: see [`NOT_DESCRIBED`].
//!
//! The description is not in this repository: `RELAIS_SHARED`, or `shared` beside the checkout, has it as
//! `chatwoot/swagger.json`. Without it nothing is checked, and the test says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use relais_gateway::chatwoot::admin::Admin;
use relais_gateway::chatwoot::client::{Chatwoot, Outgoing};
use relais_gateway::chatwoot::event::Status;
use relais_gateway::chatwoot::installation::Installations;
use relais_gateway::clock::Clock;
use relais_gateway::conversation::Priority;
use relais_gateway::http::client::Client;
use relais_gateway::http::resolve::Resolver;
use relais_gateway::metrics::Metrics;
use relais_loadtest::fakes::chatwoot::{
    Author, CallEffect, CallFault, ConversationKey, Endpoint, FakeChatwoot, Faults, MessageType, Settings,
    Status as FakeStatus,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings as LlmSettings};
use relais_loadtest::http::{Hangup, Server, exchange, full, read_all};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Gateway, config, toml};

/// The fields a body may have (contract 6.3, 6.4 and 7.3), by the end of its path. Never `source_id`.
const FIELDS: [(&str, &[&str]); 14] = [
    ("/messages", &["content", "message_type", "private", "content_type", "content_attributes"]),
    ("/toggle_status", &["status", "snoozed_until"]),
    ("/toggle_typing_status", &["typing_status", "is_private"]),
    ("/assignments", &["assignee_id", "assignee_type", "team_id"]),
    ("/labels", &["labels"]),
    ("/custom_attributes", &["custom_attributes"]),
    ("/toggle_priority", &["priority"]),
    ("/agent_bots", &["name", "description", "outgoing_url", "avatar_url", "bot_type", "bot_config"]),
    ("/agent_bots/{id}", &["name", "description", "outgoing_url", "avatar_url", "bot_type", "bot_config"]),
    ("/inboxes", &["name", "channel"]),
    ("/inboxes/{id}", &["name", "channel"]),
    ("/conversations", &["inbox_id", "contact_id", "source_id"]),
    ("/set_agent_bot", &["agent_bot"]),
    ("/contacts", &["name", "inbox_id"]),
];

/// Calls and query fields the server has and its description has not (contract 6.6 and 9).
const NOT_DESCRIBED: [(&str, &str); 6] = [
    ("POST", "/reset_secret"),
    ("POST", "/reset_access_token"),
    ("DELETE", "/inboxes/{id}"),
    ("GET", "/api"),
    ("GET", "filter_internal_messages"),
    ("GET", "sort_by"),
];

/// One request as it passed.
#[derive(Debug, Clone)]
struct Recorded {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Bytes,
}

/// Passes everything on, and remembers it.
struct Recorder {
    server: Server,
    seen: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    async fn start(to: String) -> Self {
        let seen: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let into = Arc::clone(&seen);
        let server = Server::start(0, move |request: Request<hyper::body::Incoming>| {
            let (into, to) = (Arc::clone(&into), to.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(|_| Hangup)?.to_bytes();
                let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
                let mut passed = Request::builder().method(head.method.clone()).uri(format!("{to}{target}"));
                for (name, value) in head.headers.iter().filter(|(name, _)| *name != "host") {
                    passed = passed.header(name, value);
                }
                let passed = passed.body(Full::new(body.clone())).map_err(|_| Hangup)?;
                into.lock().unwrap().push(Recorded {
                    method: head.method,
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().map(str::to_owned),
                    headers: head.headers,
                    body,
                });
                let (head, body) = exchange(passed, DEADLINE).await.map_err(|_| Hangup)?.into_parts();
                let mut answer = http::Response::new(full(read_all(body, 1 << 24).await.map_err(|_| Hangup)?));
                *answer.status_mut() = head.status;
                if let Some(kind) = head.headers.get(CONTENT_TYPE) {
                    answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
                }
                Ok(answer)
            }
        });
        Self { server: server.await.unwrap(), seen }
    }

    fn seen(&self) -> Vec<Recorded> {
        self.seen.lock().unwrap().clone()
    }
}

/// The description, if it is here.
#[expect(clippy::print_stderr, reason = "whoever reads the test's output must know that nothing was checked")]
fn swagger() -> Option<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let file = std::env::var_os("RELAIS_SHARED").map_or(beside, PathBuf::from).join("chatwoot/swagger.json");
    match std::fs::read(&file) {
        Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
        Err(error) => {
            eprintln!("SKIPPED: our calls were not checked: {}: {error}", file.display());
            None
        }
    }
}

/// What is wrong with a request; empty if nothing is.
fn complaints(swagger: &Value, request: &Recorded) -> Vec<String> {
    let mut found = Vec::new();
    let tokens: Vec<&HeaderValue> = request.headers.get_all("api_access_token").iter().collect();
    if tokens.len() != 1 || request.headers.contains_key("api-access-token") {
        found.push(format!("{} tokens in the one described header", tokens.len()));
    }
    let method = request.method.as_str();
    let Some((template, operation)) = operation(swagger, request) else {
        let known = shape(&request.path);
        if !NOT_DESCRIBED.iter().any(|(of, end)| *of == method && known.ends_with(end)) {
            found.push("no such path and method".to_owned());
        }
        return found;
    };
    for (name, value) in pairs(request.query.as_deref().unwrap_or_default()) {
        let described = parameters(swagger, template, operation);
        let parameter = described.iter().find(|parameter| parameter["in"] == "query" && parameter["name"] == name);
        match parameter {
            None if NOT_DESCRIBED.contains(&(method, name)) => {}
            None => found.push(format!("no query field {name}")),
            Some(parameter) => found.extend(misfits(swagger, &parameter["schema"], &typed(value))),
        }
    }
    let schema = operation.pointer("/requestBody/content/application~1json/schema");
    match (schema, request.body.is_empty()) {
        (None, true) => {}
        (None, false) => found.push("a body where none is described".to_owned()),
        (Some(_), true) => found.push("no body".to_owned()),
        (Some(schema), false) => found.extend(body_complaints(swagger, schema, request)),
    }
    found
}

fn body_complaints(swagger: &Value, schema: &Value, request: &Recorded) -> Vec<String> {
    if request.headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return vec!["not sent as application/json".to_owned()];
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else { return vec!["not JSON".to_owned()] };
    let known = shape(&request.path);
    let fields = FIELDS.iter().find(|(end, _)| known.ends_with(end)).map_or(&[][..], |(_, fields)| fields);
    let unknown = body.as_object().unwrap().keys().filter(|field| !fields.contains(&field.as_str()));
    let mut found: Vec<String> = unknown.map(|field| format!("no field {field}")).collect();
    // Null takes the bot from an inbox (contract 7.3); the description knows numbers alone.
    if !(known.ends_with("/set_agent_bot") && body["agent_bot"].is_null()) {
        found.extend(misfits(swagger, schema, &body));
    }
    found
}

/// A path with numbers as `{id}`.
fn shape(path: &str) -> String {
    let segments = path.split('/');
    segments.map(|part| if part.parse::<u64>().is_ok() { "{id}" } else { part }).collect::<Vec<_>>().join("/")
}

fn operation<'a>(swagger: &'a Value, request: &Recorded) -> Option<(&'a str, &'a Value)> {
    let wanted = shape(&request.path);
    let same = |template: &str| {
        let (of, is) = (template.split('/'), wanted.split('/'));
        of.clone().count() == is.clone().count()
            && of.zip(is).all(|(of, is)| of == is || (of.starts_with('{') && is == "{id}"))
    };
    let (template, methods) = swagger["paths"].as_object()?.iter().find(|(template, _)| same(template))?;
    Some((template, methods.get(request.method.as_str().to_lowercase())?))
}

/// A path's parameters and an operation's own, references followed.
fn parameters<'a>(swagger: &'a Value, template: &str, operation: &'a Value) -> Vec<&'a Value> {
    let of_path = swagger["paths"][template]["parameters"].as_array().into_iter().flatten();
    let own = operation["parameters"].as_array().into_iter().flatten();
    let all = of_path.chain(own);
    all.map(|parameter| match parameter["$ref"].as_str() {
        Some(to) => swagger.pointer(to.trim_start_matches('#')).unwrap(),
        None => parameter,
    })
    .collect()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A query's text as what it stands for.
fn typed(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

fn misfits(swagger: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = swagger["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// An answer that fills two messages on WhatsApp.
fn long_answer() -> String {
    "Your parcel is on its way and comes tomorrow. ".repeat(130)
}

struct Story {
    chatwoot: FakeChatwoot,
    recorder: Recorder,
    gateway: Gateway,
    toml: String,
    _llm: FakeLlm,
}

impl Story {
    async fn begin() -> Self {
        let settings = Settings { channel: "Channel::Whatsapp".to_owned(), ..Settings::default() };
        let chatwoot = FakeChatwoot::start(settings).await.unwrap();
        let recorder = Recorder::start(chatwoot.url()).await;
        let behaviour = Behaviour { answer: Some(long_answer()), ..Behaviour::default() };
        let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
        let world = chatwoot.world();
        let more = format!(
            r#"
            [[tenant.chatwoot]]
            channel = "main"
            url = "{}"
            account_id = {}
            bot_id = {}
            bot_token = "fake-bot-token"
            user_token = "fake-user-token"
            webhook_secret = "fake-bot-secret"
            agent = "default"
            handoff = {{ team_id = {} }}
            [[agent]]
            id = "default"
            kind = "openai"
            upstream = "main"
            model = "fake-model"
            system_prompt = "Answer."
            tokens_max = 4000
            [relay]
            burst_ms = 10
            burst_max_ms = 20
            "#,
            recorder.server.url(),
            world.account_id,
            world.bot_id,
            world.team_ids.first().unwrap(),
        );
        let toml = toml(&llm.url(), "", &more);
        let gateway = Gateway::start(&toml);
        chatwoot.set_outgoing_url(&format!("http://{}/chatwoot/acme", gateway.public()));
        Self { chatwoot, recorder, gateway, toml, _llm: llm }
    }

    /// Waits until the bot has said this much to the customer.
    async fn replied(&self, key: ConversationKey, messages: usize) {
        let by_bot = |fake: &FakeChatwoot| {
            let seen = fake.seen_by_customer(key).into_iter();
            seen.filter(|seen| seen.message_type == MessageType::Outgoing && matches!(seen.by, Some(Author::Bot(_))))
                .count()
        };
        self.chatwoot.wait_until(DEADLINE, |fake| by_bot(fake) >= messages).await.unwrap();
    }

    /// The calls a story does not come to, made of the client itself.
    async fn the_other_calls(&self, key: ConversationKey) {
        let config = config(&self.toml, self.gateway.dir.path());
        let http = Client::new(Resolver::new(), Duration::from_secs(5));
        let channel = Arc::clone(&config.tenants[0].channels[0]);
        let installation = Installations::new(&config.relay, Clock::system()).at(&channel.url);
        let client = Chatwoot::new(http, channel, installation, DEADLINE, Arc::new(Metrics::new().unwrap()));
        let id = key.conversation_id;
        client.typing(id, false).await.unwrap();
        let mut labels = client.labels(id).await.unwrap();
        labels.push("human-requested".to_owned());
        client.set_labels(id, &labels).await.unwrap();
        client.set_priority(id, Some(Priority::Urgent)).await.unwrap();
        client.set_status(id, Status::Pending).await.unwrap();
        client.post(id, &Outgoing { content: "A note.", private: true, mark: None }).await.unwrap();
        client.messages_after(id, 0).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_one_that_chatwoot_describes() {
    let Some(swagger) = swagger() else { return };
    let story = Story::begin().await;
    let key = story.chatwoot.new_conversation().unwrap();
    // The first post is stored and its answer lost: it is looked for before it is repeated.
    let lost = vec![CallFault::next(Endpoint::CreateMessage, 1, CallEffect::Ambiguous)];
    story.chatwoot.set_faults(Faults { calls: lost, ..Faults::default() });
    story.chatwoot.customer(key).says("Where is my parcel?").unwrap();
    story.replied(key, 2).await;
    story.chatwoot.customer(key).says("I want to talk to a human, please.").unwrap();
    story.chatwoot.wait_until(DEADLINE, |fake| fake.status(key) == Some(FakeStatus::Open)).await.unwrap();
    story.the_other_calls(key).await;

    let seen = story.recorder.seen();
    let wrong: Vec<String> = seen
        .iter()
        .flat_map(|request| {
            let found = complaints(&swagger, request).into_iter();
            found.map(move |complaint| format!("{} {}: {complaint}", request.method, request.path))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut made: Vec<String> =
        seen.iter().map(|request| format!("{} {}", request.method, shape(&request.path))).collect();
    made.sort();
    made.dedup();
    let conversation = "/api/v1/accounts/{id}/conversations/{id}";
    for (method, action) in [
        ("GET", ""),
        ("GET", "/labels"),
        ("GET", "/messages"),
        ("POST", "/assignments"),
        ("POST", "/labels"),
        ("POST", "/messages"),
        ("POST", "/toggle_priority"),
        ("POST", "/toggle_status"),
        ("POST", "/toggle_typing_status"),
    ] {
        assert!(
            made.contains(&format!("{method} {conversation}{action}")),
            "{method} {action} was not made: {made:#?}"
        );
    }
}

#[tokio::test]
async fn every_call_of_an_administrator_is_one_that_chatwoot_describes() {
    let Some(swagger) = swagger() else { return };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let chatwoot = FakeChatwoot::start(Settings::default()).await.unwrap();
    let recorder = Recorder::start(chatwoot.url()).await;
    let http = Client::new(Resolver::new(), Duration::from_secs(5));
    let url = recorder.server.url().parse().unwrap();
    let admin = Admin::new(http, &url, "fake-user-token".into(), DEADLINE);
    assert_eq!(admin.version().await.as_deref(), Some("4.15.1"));
    assert_eq!(admin.profile().await.unwrap().accounts[0].role.as_deref(), Some("administrator"));
    let account = admin.account(1);
    let bot = account.create_bot("Relais", "Answers.", "http://127.0.0.1:9/a").await.unwrap();
    let bot = account.direct_bot(bot.id, "http://127.0.0.1:9/b").await.unwrap();
    assert_eq!(bot.outgoing_url.as_deref(), Some("http://127.0.0.1:9/b"));
    assert!(bot.secret.is_some() && bot.access_token.is_some());
    assert_eq!(account.bots().await.unwrap().len(), 2);
    let inbox = account.create_api_inbox("Self-test").await.unwrap();
    assert!(account.bot_of(inbox).await.unwrap().is_none());
    account.set_bot(inbox, Some(bot.id)).await.unwrap();
    assert_eq!(account.bot_of(inbox).await.unwrap().map(|seated| seated.id), Some(bot.id));
    account.direct_inbox(inbox, "http://127.0.0.1:9/c").await.unwrap();
    let guest = account.create_contact("Self-test", inbox).await.unwrap();
    let conversation = account.create_conversation(inbox, &guest).await.unwrap();
    account.open(conversation).await.unwrap();
    let message = account.say(conversation, "Hello").await.unwrap();
    assert!(account.message(conversation, message).await.unwrap().is_some());
    account.set_bot(inbox, None).await.unwrap();
    assert!(account.delete_contact(guest.contact_id).await.unwrap());
    assert!(account.delete_inbox(inbox).await.unwrap() && !account.delete_inbox(inbox).await.unwrap());
    assert!(account.delete_bot(bot.id).await.unwrap() && !account.delete_bot(bot.id).await.unwrap());
    assert_eq!(account.inboxes().await.unwrap().len(), 1);
    let seen = recorder.seen();
    let wrong: Vec<String> = seen
        .iter()
        .flat_map(|request| {
            let found = complaints(&swagger, request).into_iter();
            found.map(move |complaint| format!("{} {}: {complaint}", request.method, request.path))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_wrong_is_found() {
    let described = json!({
        "components": { "schemas": { "message": { "type": "object", "required": ["content"], "properties": {
            "content": { "type": "string" }, "private": { "type": "boolean" },
        } } } },
        "paths": { "/api/v1/conversations/{conversation_id}/messages": {
            "get": { "parameters": [{ "name": "after", "in": "query", "schema": { "type": "integer" } }] },
            "post": { "requestBody": { "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/message" },
            } } } },
        } },
    });
    let check = |method: Method, target: &str, body: &str, expected: &[&str]| {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        headers.insert("api_access_token", HeaderValue::from_static("t"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (path, query) = (path.to_owned(), query.map(str::to_owned));
        let body = Bytes::from(body.to_owned());
        let found = complaints(&described, &Recorded { method, path, query, headers, body });
        assert_eq!(found.len(), expected.len(), "{target}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    };
    let messages = "/api/v1/conversations/12/messages";
    check(Method::POST, messages, r#"{"content":"Hi","private":true}"#, &[]);
    check(Method::POST, messages, r#"{"private":1}"#, &["content", "not of type"]);
    check(Method::POST, messages, r#"{"content":"Hi","source_id":"s"}"#, &["no field source_id"]);
    check(Method::POST, messages, "{", &["not JSON"]);
    check(Method::POST, messages, "", &["no body"]);
    check(Method::GET, messages, "{}", &["a body"]);
    check(Method::GET, &format!("{messages}?after=3&filter_internal_messages=true"), "", &[]);
    check(Method::GET, &format!("{messages}?after=x&befor=3"), "", &["not of type", "no query field befor"]);
    check(Method::PUT, messages, "", &["no such path"]);
    check(Method::POST, "/api/v1/conversations/x/messages", "{}", &["no such path"]);
    check(Method::POST, "/api/v1/agent_bots/3/reset_secret", "", &[]);
}
