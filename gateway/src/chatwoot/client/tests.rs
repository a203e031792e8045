//! Calls against a tiny server that answers as told and keeps what arrived.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use super::*;
use crate::chatwoot::event::{Assignee, LastMessage, Sender};
use crate::chatwoot::installation::Installation;
use crate::config::{Agent, AgentKind, Handoff};
use crate::conversation::choice;
use crate::conversation::{Language, Priority};
use crate::http::resolve::Resolver;

/// What the server does with one request.
enum Say {
    Status(u16, &'static str),
    Json(Value),
    Throttle(Option<u64>),
    Hang,
    TooMuch,
}

#[derive(Debug, Clone)]
struct Arrived {
    method: String,
    path: String,
    token: String,
    body: Value,
}

struct Server {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<Say>>>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), script: Arc::default(), arrived: Arc::default() };
        let (script, arrived) = (server.script.clone(), server.arrived.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, arrived) = (script.clone(), arrived.clone());
                let service = service_fn(move |request| serve(request, script.clone(), arrived.clone()));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        server
    }

    fn say(&self, say: Say) {
        self.script.lock().unwrap().push_back(say);
    }

    fn last(&self) -> Arrived {
        self.arrived.lock().unwrap().last().unwrap().clone()
    }
}

async fn serve(
    request: Request<Incoming>,
    script: Arc<Mutex<VecDeque<Say>>>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let token = head.headers.get(API_ACCESS_TOKEN).map(|token| token.to_str().unwrap().to_owned());
    arrived.lock().unwrap().push(Arrived {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        token: token.unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    let say = script.lock().unwrap().pop_front().expect("a request nobody expected");
    let mut answer = http::Response::builder();
    let body = match say {
        Say::Status(status, text) => {
            answer = answer.status(status).header("location", "http://127.0.0.1:1/");
            Bytes::from_static(text.as_bytes())
        }
        Say::Json(value) => value.to_string().into(),
        Say::Throttle(seconds) => {
            answer = answer.status(429);
            if let Some(seconds) = seconds {
                answer = answer.header(RETRY_AFTER, seconds);
            }
            Bytes::from_static(b"Retry later")
        }
        Say::Hang => std::future::pending().await,
        Say::TooMuch => vec![b' '; ANSWER_BYTES_MAX + 1].into(),
    };
    Ok(answer.body(Full::new(body)).unwrap())
}

fn channel(address: SocketAddr, user_token: bool) -> Arc<config::Channel> {
    Arc::new(config::Channel {
        name: "main".to_owned(),
        kind: relais_policies::ChannelKind::SelfHosted,
        url: format!("http://{address}").parse().unwrap(),
        account_id: 7,
        bot_id: 5,
        bot_token: "bot-token".into(),
        webhook_secrets: Vec::new(),
        user_token: user_token.then(|| "user-token".into()),
        path_token: None,
        agent: Arc::new(Agent {
            id: "a".to_owned(),
            kind: AgentKind::Knowledge { dir: ".".into() },
            fallback: Vec::new(),
        }),
        choices: Vec::new(),
        handoff: Handoff::default(),
        idle: config::Idle::default(),
    })
}

fn chatwoot(address: SocketAddr, user_token: bool, wait_ms: u64) -> Chatwoot {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = Client::new(Resolver::new(), Duration::from_secs(5));
    let metrics = Arc::new(Metrics::new().unwrap());
    Chatwoot::new(http, channel(address, user_token), Installation::roomy(), Duration::from_millis(wait_ms), metrics)
}

fn conversation_answer() -> Value {
    json!({
        "id": 12, "account_id": 7, "inbox_id": 21, "status": "pending", "can_reply": false, "labels": ["a"],
        "meta": {"sender": {"id": 1, "name": "Sam"}, "channel": "Channel::Whatsapp"},
        "messages": [{"id": 77, "message_type": 2, "content": "assigned"}],
        "last_non_activity_message": {"id": 76, "message_type": 1, "sender": {"id": 5, "type": "agent_bot"},
            "content_attributes": {"relay_turn_id": "0192f0c0-0000-7000-8000-000000000001", "relay_part": 1}}
    })
}

#[tokio::test]
async fn a_conversation_is_read_as_rest_shows_it() {
    let server = Server::start().await;
    server.say(Say::Json(conversation_answer()));
    let view = chatwoot(server.address, false, 5_000).conversation(12).await.unwrap();
    assert_eq!((view.id, view.status, view.assignee), (12, Some(Status::Pending), Assignee::None));
    assert_eq!((view.medium, view.can_reply), (crate::conversation::Medium::Whatsapp, false));
    let turn = TurnMark { turn_id: "0192f0c0-0000-7000-8000-000000000001".parse().unwrap(), part: 1 };
    assert_eq!(view.last_message, Some(LastMessage { id: 76, from: Sender::Bot(5), turn: Some(turn) }));
    let arrived = server.last();
    assert_eq!((arrived.method.as_str(), arrived.token.as_str()), ("GET", "bot-token"));
    assert_eq!(arrived.path, "/api/v1/accounts/7/conversations/12");
}

#[tokio::test]
async fn a_bot_s_500_is_asked_again_with_the_user_s_token_where_there_is_one() {
    let server = Server::start().await;
    server.say(Say::Status(500, ""));
    server.say(Say::Json(conversation_answer()));
    assert!(chatwoot(server.address, true, 5_000).conversation(12).await.is_ok());
    assert_eq!(server.last().token, "user-token");

    server.say(Say::Status(500, ""));
    let error = chatwoot(server.address, false, 5_000).conversation(12).await.unwrap_err();
    assert_eq!(error.class, CallClass::Transient(500));
}

#[tokio::test]
async fn a_post_carries_our_mark_and_no_source_id() {
    let server = Server::start().await;
    server.say(Say::Json(json!({"id": 99, "message_type": 1})));
    let turn_id = "0192f0c0-0000-7000-8000-000000000001".parse().unwrap();
    let message = Outgoing { content: "Hello", private: false, mark: Some(TurnMark { turn_id, part: 3 }) };
    let posted = chatwoot(server.address, false, 5_000).post(12, &message).await.unwrap();
    assert_eq!(posted, Posted { message_id: 99 });
    let arrived = server.last();
    assert_eq!(arrived.path, "/api/v1/accounts/7/conversations/12/messages");
    let mark = json!({"relay_turn_id": turn_id.to_string(), "relay_part": 3});
    let expected =
        json!({"content": "Hello", "message_type": "outgoing", "private": false, "content_attributes": mark});
    assert_eq!(arrived.body, expected);
}

#[tokio::test]
async fn status_team_labels_typing_and_priority() {
    let server = Server::start().await;
    let calls = chatwoot(server.address, false, 5_000);
    server.say(Say::Json(json!({"meta": {}, "payload": {"success": null, "current_status": "open"}})));
    assert_eq!(calls.set_status(12, Status::Open).await.unwrap(), Status::Open);
    assert_eq!(server.last().body, json!({"status": "open"}));

    server.say(Say::Json(json!({"id": 3, "name": "Support"})));
    assert!(calls.assign_team(12, 3).await.unwrap());
    server.say(Say::Json(Value::Null));
    assert!(!calls.assign_team(12, 4).await.unwrap(), "an unknown team unassigns with a 200");

    server.say(Say::Json(json!({"payload": ["a", "b"]})));
    assert_eq!(calls.labels(12).await.unwrap(), ["a", "b"]);
    server.say(Say::Json(json!({"payload": ["c"]})));
    calls.set_labels(12, &["c".to_owned()]).await.unwrap();
    assert_eq!(server.last().body, json!({"labels": ["c"]}));
    server.say(Say::Status(200, ""));
    calls.typing(12, true).await.unwrap();
    assert_eq!(server.last().body, json!({"typing_status": "on", "is_private": false}));
    server.say(Say::Status(200, ""));
    calls.set_priority(12, Some(Priority::Urgent)).await.unwrap();
    assert_eq!(server.last().body, json!({"priority": "urgent"}));
}

#[tokio::test]
async fn messages_are_read_with_the_user_s_token_and_ordered_by_number() {
    let server = Server::start().await;
    assert_eq!(chatwoot(server.address, false, 5_000).messages_after(12, 5).await.unwrap(), None);
    server.say(Say::Json(json!({"payload": [
        {"id": 8, "message_type": 1, "created_at": 1, "sender": {"id": 9, "type": "user"}, "content": "b"},
        {"id": 7, "message_type": 0, "created_at": 2, "sender": {"id": 1, "type": "contact"}, "content": "a"},
        {"id": 9, "message_type": 2, "created_at": 3, "content": "resolved"}
    ]})));
    let page = chatwoot(server.address, true, 5_000).messages_after(12, 5).await.unwrap().unwrap();
    assert_eq!(
        page.messages.iter().map(|message| (message.id, message.from)).collect::<Vec<_>>(),
        [(7, Sender::Customer), (8, Sender::Human(9))]
    );
    assert_eq!((page.last_id, page.more), (Some(9), false));
    let arrived = server.last();
    assert_eq!(arrived.path, "/api/v1/accounts/7/conversations/12/messages?after=5");
    assert_eq!(arrived.token, "user-token");
}

#[tokio::test]
async fn a_failure_says_what_it_means_for_a_second_try() {
    let server = Server::start().await;
    let calls = chatwoot(server.address, false, 5_000);
    let cases = [
        (Say::Status(422, "{}"), CallClass::Transient(422), true),
        (Say::Status(503, ""), CallClass::Transient(503), true),
        (Say::Status(408, ""), CallClass::Transient(408), true),
        (Say::Status(401, ""), CallClass::Refused(401), false),
        (Say::Status(404, ""), CallClass::Refused(404), false),
        (Say::Status(302, ""), CallClass::Refused(302), false),
        (Say::Throttle(None), CallClass::Throttled(None), false),
        (Say::Throttle(Some(7)), CallClass::Throttled(Some(Duration::from_secs(7))), false),
        (Say::Status(200, "not json"), CallClass::Unknown, true),
        (Say::Json(json!({"no": "id"})), CallClass::Unknown, true),
        (Say::TooMuch, CallClass::Unknown, true),
    ];
    for (say, class, may_have_acted) in cases {
        server.say(say);
        // One that no earlier 429 has paused.
        let calls = Chatwoot { installation: Installation::roomy(), ..calls.clone() };
        let error = calls.post(12, &Outgoing { content: "x", private: true, mark: None }).await.unwrap_err();
        assert_eq!((error.class, error.may_have_acted(), error.call), (class, may_have_acted, "post"));
    }
    let page = String::from_utf8(calls.metrics.page()).unwrap();
    assert!(page.contains(r#"relais_chatwoot_requests_total{call="post",outcome="transient"} 3"#), "{page}");
}

#[tokio::test]
async fn silence_may_mean_done_and_a_closed_port_means_not_sent() {
    let server = Server::start().await;
    server.say(Say::Hang);
    let message = Outgoing { content: "x", private: false, mark: None };
    let error = chatwoot(server.address, false, 50).post(12, &message).await.unwrap_err();
    assert_eq!(error.class, CallClass::Unknown);

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = chatwoot(closed, false, 5_000).post(12, &message).await.unwrap_err();
    assert_eq!(error.class, CallClass::NotSent);
}

/// The same calls against a Chatwoot that behaves as the real one does, Liquid included.
#[tokio::test]
async fn a_handoff_in_its_order_as_the_customer_and_the_humans_see_it() {
    use relais_loadtest::fakes::chatwoot::{FakeChatwoot, MessageType, Settings};

    let settings = Settings::default();
    let (user_token, bot_token) = (settings.user_token.clone(), settings.bot.access_token.clone());
    let fake = FakeChatwoot::start(settings).await.unwrap();
    let world = fake.world();
    let team_id = fake.add_team("Support", &[world.human_id]);
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("a human please").unwrap();
    let mut channel = (*channel(fake.url().trim_start_matches("http://").parse().unwrap(), true)).clone();
    channel.account_id = world.account_id;
    channel.bot_token = bot_token.into();
    channel.user_token = Some(user_token.into());
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = Client::new(Resolver::new(), Duration::from_secs(5));
    let metrics = Arc::new(Metrics::new().unwrap());
    let calls = Chatwoot::new(http, Arc::new(channel), Installation::roomy(), Duration::from_secs(15), metrics);
    let id = key.conversation_id;

    assert_eq!(calls.conversation(id).await.unwrap().status, Some(Status::Pending));
    calls.typing(id, true).await.unwrap();
    calls.post(id, &Outgoing { content: "Who and what.", private: true, mark: None }).await.unwrap();
    assert!(calls.assign_team(id, team_id).await.unwrap());
    calls.set_labels(id, &["handoff".to_owned()]).await.unwrap();
    assert_eq!(calls.labels(id).await.unwrap(), ["handoff"]);
    calls.set_priority(id, Some(Priority::High)).await.unwrap();
    let typed = "Your address: {{contact.email}} {% if true %}x{% endif %} `{{contact.name}}`";
    let content = crate::chatwoot::text::outgoing(typed, 1_000);
    let mark = TurnMark { turn_id: "0192f0c0-0000-7000-8000-000000000001".parse().unwrap(), part: 0 };
    let posted = calls.post(id, &Outgoing { content: &content, private: false, mark: Some(mark) }).await.unwrap();
    assert_eq!(calls.set_status(id, Status::Open).await.unwrap(), Status::Open);

    let seen = fake.seen_by_customer(key);
    let shown = seen.iter().rfind(|seen| seen.message_type == MessageType::Outgoing).unwrap();
    assert_eq!(shown.message_id, posted.message_id);
    assert_eq!(shown.content.as_ref().unwrap().replace('\u{2060}', ""), typed, "arrives as it was written");

    // The bot may not read a conversation that a team has; the user's token reads it for us.
    let after = calls.conversation(id).await.unwrap();
    assert!(after.has_team && after.status == Some(Status::Open));
    assert_eq!(after.last_message, Some(LastMessage { id: posted.message_id, from: Sender::Bot(7), turn: Some(mark) }));
    let page = calls.messages_after(id, 0).await.unwrap().unwrap();
    assert!(page.messages.iter().any(|message| message.turn == Some(mark)));
    assert!(page.messages.iter().any(|message| message.private && message.content.as_deref() == Some("Who and what.")));

    // A question with options is shown as such, and read back as the text it was made of.
    let text = choice::write(Language::English, ["How long does it take?", "What does it cost?"]);
    let mark = TurnMark { part: 1, ..mark };
    let asked = calls.post_choice(id, &Choice::read(&text).unwrap(), mark).await.unwrap();
    let stored = fake.conversation(key).unwrap().messages.into_iter().find(|message| message.id == asked.message_id);
    assert_eq!(stored.unwrap().content_type, "input_select");
    let page = calls.messages_after(id, 0).await.unwrap().unwrap();
    let back = page.messages.iter().find(|message| message.turn == Some(mark)).unwrap();
    assert_eq!(back.content.as_deref(), Some(text.as_str()));
}
