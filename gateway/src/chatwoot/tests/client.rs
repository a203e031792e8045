//! Every call against a fake that does what Chatwoot does, well or badly.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use relais_loadtest::fakes::chatwoot::{
    Author, CallEffect, CallFault, ConversationKey, Endpoint, FakeChatwoot, Faults, MessageType, Rules, Settings,
    Status as FakeStatus,
};
use relais_loadtest::http::{Server, full};
use secrecy::SecretString;
use uuid::Uuid;

use crate::chatwoot::client::{CallClass, CallError, Chatwoot, Outgoing};
use crate::chatwoot::event::{Assignee, LastMessage, Sender, Status, TurnMark};
use crate::chatwoot::installation::Installation;
use crate::config::{Agent, AgentKind, Channel, Handoff};
use crate::conversation::Medium;
use crate::conversation::Priority;
use crate::http::client::Client;
use crate::http::resolve::Resolver;
use crate::metrics::Metrics;

const MARK: TurnMark = TurnMark { turn_id: Uuid::from_u128(0x0192_f0c0_0000_7000_8000_0000_0000_0001), part: 3 };
const WAIT: Duration = Duration::from_secs(20);

struct Stage {
    fake: FakeChatwoot,
    key: ConversationKey,
    channel: Channel,
    metrics: Arc<Metrics>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let fake = FakeChatwoot::start(settings).await.unwrap();
        let key = fake.new_conversation().unwrap();
        fake.customer(key).says("Hello").unwrap();
        let channel = channel(&fake.url());
        Self { fake, key, channel, metrics: Arc::new(Metrics::new().unwrap()) }
    }

    fn client(&self, wait: Duration) -> Chatwoot {
        client(self.channel.clone(), wait, &self.metrics)
    }

    fn id(&self) -> u64 {
        self.key.conversation_id
    }

    fn fails_once(&self, endpoint: Endpoint, effect: CallEffect) {
        self.fake.set_faults(Faults { calls: vec![CallFault::next(endpoint, 1, effect)], ..Faults::default() });
    }

    async fn post(&self, content: &str) -> Result<u64, CallError> {
        let message = Outgoing { content, private: false, mark: Some(MARK) };
        self.client(WAIT).post(self.id(), &message).await.map(|posted| posted.message_id)
    }

    fn counted(&self, call: &str, outcome: &str) -> u64 {
        self.metrics.relay.chatwoot_requests.with_label_values(&[call, outcome]).get()
    }
}

fn client(channel: Channel, wait: Duration, metrics: &Arc<Metrics>) -> Chatwoot {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = Client::new(Resolver::new(), Duration::from_secs(5));
    Chatwoot::new(http, Arc::new(channel), Installation::roomy(), wait, Arc::clone(metrics))
}

/// As the fake's defaults have it.
fn channel(url: &str) -> Channel {
    Channel {
        name: "main".to_owned(),
        kind: relais_policies::ChannelKind::Managed,
        url: url.parse().unwrap(),
        account_id: 1,
        bot_id: 7,
        bot_token: SecretString::from("fake-bot-token"),
        webhook_secrets: vec![],
        user_token: Some(SecretString::from("fake-user-token")),
        path_token: None,
        agent: Arc::new(Agent {
            id: "faq".to_owned(),
            kind: AgentKind::Knowledge { dir: "knowledge".into() },
            fallback: Vec::new(),
        }),
        choices: Vec::new(),
        handoff: Handoff::default(),
        idle: crate::config::Idle::default(),
    }
}

#[tokio::test]
async fn a_conversation_is_read() {
    let stage = Stage::new().await;
    let view = stage.client(WAIT).conversation(stage.id()).await.unwrap();
    assert_eq!((view.id, view.status, view.assignee), (stage.id(), Some(Status::Pending), Assignee::None));
    assert_eq!((view.medium, view.can_reply, view.has_team), (Medium::Web, true, false));
    let last = stage.fake.seen_by_customer(stage.key).last().unwrap().message_id;
    assert_eq!(view.last_message, Some(LastMessage { id: last, from: Sender::Customer, turn: None }));
    assert!(view.contact.name.is_some());
    assert_eq!(stage.counted("conversation", "ok"), 1);
}

#[tokio::test]
async fn a_conversation_with_a_human_and_a_team_takes_the_user_s_token() {
    let mut stage = Stage::new().await;
    let world = stage.fake.world();
    stage.fake.human_takes_over(stage.key).unwrap();
    let team_id = stage.fake.add_team("billing", &[world.human_id]);
    assert!(stage.client(WAIT).assign_team(stage.id(), team_id).await.unwrap());

    let view = stage.client(WAIT).conversation(stage.id()).await.unwrap();
    assert_eq!((view.status, view.has_team), (Some(Status::Open), true));
    assert_eq!(view.assignee, Assignee::Human(world.human_id));
    assert_eq!((stage.counted("conversation", "transient"), stage.counted("conversation", "ok")), (1, 1));

    stage.channel.user_token = None;
    let error = stage.client(WAIT).conversation(stage.id()).await.unwrap_err();
    assert_eq!(error.class, CallClass::Transient(500));
}

#[tokio::test]
async fn a_later_chatwoot_names_the_bot_as_owner() {
    let stage = Stage::with(Settings { rules: Rules::Later, ..Settings::default() }).await;
    let view = stage.client(WAIT).conversation(stage.id()).await.unwrap();
    assert_eq!((view.status, view.assignee), (Some(Status::Pending), Assignee::Bot(7)));
}

#[tokio::test]
async fn a_post_is_ours_marked_and_left_as_it_was_typed() {
    let stage = Stage::new().await;
    let text = "Your e-mail is {{contact.email}}; `{{ a }}` {% raw %}";
    let message_id = stage.post(text).await.unwrap();
    let seen = stage.fake.seen_by_customer(stage.key).pop().unwrap();
    assert_eq!((seen.message_id, seen.message_type), (message_id, MessageType::Outgoing));
    assert_eq!(seen.by, Some(Author::Bot(7)));
    assert_eq!(seen.content.unwrap().replace('\u{2060}', ""), text);
    let stored = stage.fake.conversation(stage.key).unwrap();
    assert_eq!(stored.message(message_id).unwrap().source_id, None);

    let view = stage.client(WAIT).conversation(stage.id()).await.unwrap();
    assert_eq!(view.last_message, Some(LastMessage { id: message_id, from: Sender::Bot(7), turn: Some(MARK) }));
}

#[tokio::test]
async fn a_note_is_not_for_the_customer() {
    let stage = Stage::new().await;
    let note = Outgoing { content: "They want an invoice.", private: true, mark: None };
    let posted = stage.client(WAIT).post(stage.id(), &note).await.unwrap();
    assert_eq!(stage.fake.seen_by_customer(stage.key).len(), 1);
    let stored = stage.fake.conversation(stage.key).unwrap();
    assert!(stored.message(posted.message_id).unwrap().private);
}

#[tokio::test]
async fn a_handoff_opens_and_says_so() {
    let stage = Stage::new().await;
    let client = stage.client(WAIT);
    assert_eq!(client.set_status(stage.id(), Status::Open).await.unwrap(), Status::Open);
    assert_eq!(stage.fake.status(stage.key), Some(FakeStatus::Open));
    assert_eq!(client.set_status(stage.id(), Status::Resolved).await.unwrap(), Status::Resolved);
}

#[tokio::test]
async fn a_team_that_is_not_there_is_noticed() {
    let stage = Stage::new().await;
    assert!(!stage.client(WAIT).assign_team(stage.id(), 999_999).await.unwrap());
}

#[tokio::test]
async fn typing_labels_and_priority() {
    let stage = Stage::new().await;
    let client = stage.client(WAIT);
    client.typing(stage.id(), true).await.unwrap();
    client.typing(stage.id(), false).await.unwrap();
    assert!(client.labels(stage.id()).await.unwrap().is_empty());
    let labels = ["ai".to_owned(), "billing".to_owned()];
    client.set_labels(stage.id(), &labels).await.unwrap();
    assert_eq!(client.labels(stage.id()).await.unwrap(), labels);
    client.set_priority(stage.id(), Some(Priority::Urgent)).await.unwrap();
    let stored = stage.fake.conversation(stage.key).unwrap();
    assert_eq!((stored.typing, stored.priority.as_deref()), (vec![true, false], Some("urgent")));
}

#[tokio::test]
async fn news_are_read_past_a_page_in_order_with_notes_and_without_activity() {
    let mut stage = Stage::new().await;
    let first = stage.fake.seen_by_customer(stage.key)[0].message_id;
    for n in 0..120 {
        stage.fake.customer(stage.key).says(&format!("part {n}")).unwrap();
    }
    stage.fake.private_note(stage.key, "a note").unwrap();
    stage.fake.resolve(stage.key).unwrap();
    let ours = stage.post("Bye").await.unwrap();

    let client = stage.client(WAIT);
    let (mut news, mut after, mut pages) = (Vec::new(), first, 0);
    loop {
        let page = client.messages_after(stage.id(), after).await.unwrap().unwrap();
        news.extend(page.messages);
        pages += 1;
        if !page.more {
            break;
        }
        after = page.last_id.unwrap();
    }
    assert_eq!(pages, 2);
    assert_eq!(news.len(), 122);
    assert!(news.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!((news[0].from, news[0].content.as_deref()), (Sender::Customer, Some("part 0")));
    assert!(news[120].private && news[120].from == Sender::Human(stage.fake.world().human_id));
    assert_eq!((news[121].id, news[121].turn, news[121].from), (ours, Some(MARK), Sender::Bot(7)));
    assert!(news[0].created_at_ms > 1_700_000_000_000);

    stage.channel.user_token = None;
    assert_eq!(stage.client(WAIT).messages_after(stage.id(), first).await.unwrap(), None);
}

#[tokio::test]
async fn a_post_s_failures_say_whether_it_may_have_happened() {
    for (effect, class, may_have_acted, stored) in [
        (CallEffect::Status(429), CallClass::Throttled(None), false, 1),
        (CallEffect::Status(422), CallClass::Transient(422), true, 1),
        (CallEffect::Status(500), CallClass::Transient(500), true, 1),
        (CallEffect::DoneThenStatus(502), CallClass::Transient(502), true, 2),
        (CallEffect::Status(408), CallClass::Transient(408), true, 1),
        (CallEffect::Status(401), CallClass::Refused(401), false, 1),
        (CallEffect::Status(404), CallClass::Refused(404), false, 1),
        (CallEffect::Ambiguous, CallClass::Unknown, true, 2),
        (CallEffect::Hangup, CallClass::Unknown, true, 1),
    ] {
        let stage = Stage::new().await;
        stage.fails_once(Endpoint::CreateMessage, effect);
        let error = stage.post("Hi").await.unwrap_err();
        assert_eq!((error.class, error.may_have_acted()), (class, may_have_acted), "{effect:?}");
        assert_eq!(stage.fake.seen_by_customer(stage.key).len(), stored, "{effect:?}: tried once only");
        let outcome = match class {
            CallClass::NotSent => "not_sent",
            CallClass::Unknown => "unknown",
            CallClass::Throttled(_) => "throttled",
            CallClass::Transient(_) => "transient",
            CallClass::Refused(_) => "refused",
        };
        assert_eq!(stage.counted("post", outcome), 1);
        stage.post("Hi").await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_comes_too_late_leaves_it_unknown() {
    let stage = Stage::new().await;
    stage.fails_once(Endpoint::CreateMessage, CallEffect::DoneThenDelayMs(60_000));
    let message = Outgoing { content: "Hi", private: false, mark: Some(MARK) };
    let error = stage.client(Duration::from_millis(50)).post(stage.id(), &message).await.unwrap_err();
    assert_eq!(error.class, CallClass::Unknown);
}

#[tokio::test]
async fn nobody_there_means_not_sent() {
    let mut stage = Stage::new().await;
    stage.fake.take_down().await;
    let error = stage.post("Hi").await.unwrap_err();
    assert_eq!((error.class, error.may_have_acted()), (CallClass::NotSent, false));
    stage.fake.bring_up().await.unwrap();
    stage.post("Hi").await.unwrap();
}

#[tokio::test]
async fn a_wrong_token_or_conversation_is_refused_and_no_error_holds_the_token() {
    let mut stage = Stage::new().await;
    let missing = stage.client(WAIT).conversation(999_999).await.unwrap_err();
    assert_eq!(missing.class, CallClass::Refused(404));
    for token in ["not-the-token", "not\na token"] {
        stage.channel.bot_token = SecretString::from(token);
        let error = stage.client(WAIT).labels(stage.id()).await.unwrap_err();
        let expected = if token.contains('\n') { CallClass::Refused(0) } else { CallClass::Refused(401) };
        assert_eq!(error.class, expected);
        assert!(!format!("{error} {error:?}").contains("token"), "{error:?}");
    }
}

/// A server that answers every request with this, and the paths it was asked for.
async fn answering(
    status: u16,
    header: (&'static str, &'static str),
    body: Bytes,
) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let paths = Arc::clone(&asked);
    let server = Server::start(0, move |request| {
        paths.lock().unwrap().push(request.uri().to_string());
        let answer = Response::builder().status(status).header(header.0, header.1).body(full(body.clone()));
        async move { Ok(answer.unwrap()) }
    });
    (server.await.unwrap(), asked)
}

async fn post_to(url: &str) -> Result<u64, CallError> {
    let metrics = Arc::new(Metrics::new().unwrap());
    let message = Outgoing { content: "Hi", private: false, mark: None };
    client(channel(url), WAIT, &metrics).post(5, &message).await.map(|posted| posted.message_id)
}

#[tokio::test]
async fn a_chatwoot_below_a_path_and_one_at_the_root() {
    for base in ["", "/", "/support", "/support/"] {
        let (server, asked) = answering(200, ("x-other", "y"), r#"{"id":31,"more":[]}"#.into()).await;
        assert_eq!(post_to(&format!("{}{base}", server.url())).await.unwrap(), 31);
        let expected = format!("{}/api/v1/accounts/1/conversations/5/messages", base.trim_end_matches('/'));
        assert_eq!(*asked.lock().unwrap(), [expected]);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, asked) = answering(307, ("location", "/elsewhere"), Bytes::new()).await;
    assert_eq!(post_to(&server.url()).await.unwrap_err().class, CallClass::Refused(307));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_throttle_may_say_for_how_long() {
    for (value, pause) in [("7", Some(Duration::from_secs(7))), ("soon", None)] {
        let (server, _) = answering(429, ("retry-after", value), "Retry later\n".into()).await;
        assert_eq!(post_to(&server.url()).await.unwrap_err().class, CallClass::Throttled(pause));
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_leaves_it_unknown_and_is_not_quoted() {
    for body in [Bytes::from("a secret"), Bytes::from(r#"{"id":"a secret"}"#), Bytes::from(vec![b' '; (16 << 20) + 1])]
    {
        let (server, _) = answering(200, ("x-other", "y"), body).await;
        let error = post_to(&server.url()).await.unwrap_err();
        assert_eq!(error.class, CallClass::Unknown);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
