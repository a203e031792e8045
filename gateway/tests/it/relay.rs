//! Conversations, from the customer's message to what the customer sees: inbox and relay against a Chatwoot and a
//! model that misbehave when told to.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use relais_gateway::admission::{AGENT_KEY, Account, Counted, Counts, Delta, Journal, Kind};
use relais_gateway::agent::Agents;
use relais_gateway::chatwoot::event::{self, Event, EventKind, Parsed};
use relais_gateway::chatwoot::installation::Installations;
use relais_gateway::clock::Clock;
use relais_gateway::config::Config;
use relais_gateway::http::client::Client;
use relais_gateway::http::resolve::Resolver;
use relais_gateway::inbox::{ConversationKey, CountedIn, Delivery, Inbox, Sameness};
use relais_gateway::llm::upstream::Upstreams;
use relais_gateway::metrics::Metrics;
use relais_gateway::relay::{Payer, RelayHandle, RelayParts, Served};
use relais_loadtest::fakes::chatwoot::{
    Act, Assignee, Author, CallEffect, CallFault, ConversationKey as Key, Delivery as Webhook, DeliveryEffect,
    DeliveryFault, Endpoint, FakeChatwoot, Faults, MessageType, Outcome, Settings, Status,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Fault, FaultKind, Settings as LlmSettings, When};
use relais_loadtest::http::{Hangup, Server, reply};
use tempfile::TempDir;

use crate::support::{DEADLINE, config};

mod handoffs;
mod loops;
mod returns;
mod voice;

/// What the model says, unless told otherwise.
const ANSWER: &str = "It is on its way.";

/// A Chatwoot, a model, and our half between them without its edge.
pub(crate) struct World {
    pub(crate) chatwoot: FakeChatwoot,
    pub(crate) llm: FakeLlm,
    /// Where webhooks arrive; empty while "the process" is down.
    inbox: Arc<Mutex<Option<Inbox>>>,
    _receiver: Server,
    relay: Option<RelayHandle>,
    config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// The tenant's, as "the process" has it.
    pub(crate) account: Arc<Account>,
    /// The plan includes handing over.
    pub(crate) handoff: bool,
    pub(crate) dir: TempDir,
}

impl World {
    async fn start() -> Self {
        Self::start_with("", "", Settings::default()).await
    }

    /// `relay`, `channel`: more lines for `[relay]` and `[[tenant.chatwoot]]`.
    async fn start_with(relay: &str, channel: &str, settings: Settings) -> Self {
        Self::start_on(r#"["app.business", "api.pro", "chatwoot.pro"]"#, relay, channel, settings).await
    }

    /// `plans`: the tenant's, and what else is to stand beside them.
    async fn start_on(plans: &str, relay: &str, channel: &str, settings: Settings) -> Self {
        Self::start_changed(settings, |chatwoot, llm| toml(chatwoot, llm, plans, relay, channel)).await
    }

    /// `written`: the configuration, of which the first channel of the first tenant is served.
    pub(crate) async fn start_changed(
        settings: Settings,
        written: impl FnOnce(&FakeChatwoot, &FakeLlm) -> String,
    ) -> Self {
        Self::start_at(Clock::system(), settings, written).await
    }

    /// With a clock of the test's.
    pub(crate) async fn start_at(
        clock: Clock,
        settings: Settings,
        written: impl FnOnce(&FakeChatwoot, &FakeLlm) -> String,
    ) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let chatwoot = FakeChatwoot::start(Settings { retry_wait_ms: 20, ..settings }).await.unwrap();
        let behaviour = Behaviour { answer: Some(ANSWER.to_owned()), ..Behaviour::default() };
        let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(config(&written(&chatwoot, &llm), dir.path()));
        let inbox: Arc<Mutex<Option<Inbox>>> = Arc::default();
        let receiver = receive(Arc::clone(&inbox), clock.clone()).await;
        chatwoot.set_outgoing_url(&format!("{}/chatwoot/acme", receiver.url()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let tenant = &config.tenants[0];
        let journal = Arc::new(Journal::default());
        let account = Account::new(Arc::clone(&tenant.id), &tenant.policy, clock.clone(), &journal);
        let (_receiver, relay, handoff) = (receiver, None, true);
        let mut world = Self { chatwoot, llm, inbox, _receiver, relay, config, metrics, clock, account, handoff, dir };
        world.up();
        world
    }

    /// Starts "the process".
    pub(crate) fn up(&mut self) {
        let clock = self.clock.clone();
        self.metrics = Arc::new(Metrics::new().unwrap());
        let inbox = Inbox::open(self.dir.path(), &self.config.inbox, clock.clone(), Arc::clone(&self.metrics)).unwrap();
        let http = Client::new(Resolver::new(), Duration::from_secs(1));
        let upstreams = Upstreams::new(&self.config.upstreams, &clock, &self.metrics, None).unwrap();
        let agents = Arc::new(Agents::build(&self.config, &upstreams, &http, Arc::clone(&self.metrics)).unwrap());
        let tenant = &self.config.tenants[0];
        let channel = Arc::clone(&tenant.channels[0]);
        let journal = Arc::new(Journal::default());
        for CountedIn { tenant, period_ms, conversations } in inbox.counted_before() {
            let counted = Counted { period_ms: *period_ms, conversations: *conversations };
            journal.remember_counted(Arc::clone(tenant), counted);
        }
        self.account = Account::new(Arc::clone(&tenant.id), &tenant.policy, clock.clone(), &journal);
        let (account, policy) = (Arc::clone(&self.account), Arc::clone(&tenant.policy));
        let payer = Payer { account, policy, kind: channel.kind };
        let served = Served { channel, handoff: self.handoff, payer };
        let parts = RelayParts {
            inbox: inbox.clone(),
            channels: Arc::new(move |tenant, name| {
                (tenant == "acme" && name == served.channel.name).then(|| served.clone())
            }),
            agents: Arc::new(arc_swap::ArcSwap::new(agents)),
            http,
            installations: Arc::new(Installations::new(&self.config.relay, clock.clone())),
            clock,
            metrics: Arc::clone(&self.metrics),
            limits: self.config.relay.clone(),
        };
        self.relay = Some(RelayHandle::start(parts).unwrap());
        *self.inbox.lock().unwrap() = Some(inbox);
    }

    /// Ends "the process" in the middle of whatever it does.
    pub(crate) async fn crash(&mut self) {
        *self.inbox.lock().unwrap() = None;
        self.relay.take().unwrap().drain(Duration::ZERO).await;
        // A process takes its threads with it; here the writer must have ended before another one begins.
        let files = |dir: &Path| {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file.starts_with(dir))
        };
        let ended = tokio::time::timeout(DEADLINE, async {
            while files(self.dir.path()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(ended.await.is_ok(), "the inbox did not end");
    }

    pub(crate) async fn customer_says(&self, text: &str) -> Key {
        let key = self.chatwoot.new_conversation().unwrap();
        self.chatwoot.customer(key).says(text).unwrap();
        key
    }

    /// What the bot said to the customer.
    pub(crate) fn replies(&self, key: Key) -> Vec<String> {
        let seen = self.chatwoot.seen_by_customer(key).into_iter();
        let ours =
            seen.filter(|seen| seen.message_type == MessageType::Outgoing && matches!(seen.by, Some(Author::Bot(_))));
        ours.filter_map(|seen| seen.content).collect()
    }

    pub(crate) fn notes(&self, key: Key) -> Vec<String> {
        let messages = self.chatwoot.conversation(key).unwrap().messages.into_iter();
        messages.filter(|message| message.private).filter_map(|message| message.content).collect()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = self.chatwoot.wait_until(DEADLINE, |_| holds(self)).await;
        assert!(waited.is_ok(), "{what}; page:\n{}", self.page());
    }

    pub(crate) async fn until_replied(&self, key: Key, times: usize) {
        self.until(&format!("{times} replies, not {:?}", self.replies(key)), |world| world.replies(key).len() == times)
            .await;
    }

    /// Waits until everything that was accepted has ended, all echoes included.
    pub(crate) async fn settled(&self) {
        let pending = || self.inbox.lock().unwrap().as_ref().map_or(0, Inbox::pending);
        let settled = tokio::time::timeout(DEADLINE, async {
            // A lane counts its turn after it is durable, and ends when nothing is left.
            while self.chatwoot.deliveries_waiting() > 0 || pending() > 0 || (self.relay.is_some() && self.lanes() > 0)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(settled.await.is_ok(), "{} deliveries never ended; page:\n{}", pending(), self.page());
    }

    fn page(&self) -> String {
        let page = String::from_utf8(self.metrics.page()).unwrap();
        let told = ["relais_inbox_pending", "relais_lanes", "relais_turns", "relais_handoffs", "relais_chatwoot"];
        let lines = page.lines().filter(|line| told.iter().any(|name| line.starts_with(name)));
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn turns(&self, outcome: &str) -> u64 {
        self.metrics.relay.turns.with_label_values(&[outcome]).get()
    }

    fn messages(&self, outcome: &str) -> u64 {
        self.metrics.relay.messages.with_label_values(&[outcome]).get()
    }

    fn lanes(&self) -> i64 {
        self.metrics.relay.lanes.get()
    }

    pub(crate) async fn model_asked(&self, times: u64) {
        assert!(self.llm.wait_until(|totals| totals.started >= times, DEADLINE).await, "the model was not asked");
    }

    pub(crate) fn calls_fail(&self, on: Endpoint, times: u32, effect: CallEffect) {
        let calls = vec![CallFault::next(on, times, effect)];
        self.chatwoot.set_faults(Faults { calls, ..Faults::default() });
    }
}

pub(crate) fn toml(chatwoot: &FakeChatwoot, llm: &FakeLlm, plans: &str, relay: &str, channel: &str) -> String {
    let world = chatwoot.world();
    format!(
        r#"
        [listen]
        public = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [storage]
        dir = "data"
        [relay]
        burst_ms = 40
        burst_max_ms = 400
        agent_wait_ms = 5000
        agent_tries = 2
        chatwoot_wait_ms = 700
        chatwoot_tries = 4
        chatwoot_calls_per_minute = 1000000
        chatwoot_pause_ms = 20
        {relay}
        [[upstream]]
        name = "main"
        base_url = "{}/v1"
        models = ["*"]
        [[agent]]
        id = "default"
        kind = "openai"
        upstream = "main"
        model = "fake-model"
        system_prompt = "Answer."
        [[tenant]]
        id = "acme"
        plans = {plans}
        [[tenant.chatwoot]]
        channel = "main"
        url = "{}"
        account_id = {}
        bot_id = {}
        bot_token = "fake-bot-token"
        webhook_secret = "fake-bot-secret"
        agent = "default"
        {channel}
        "#,
        llm.url(),
        chatwoot.url(),
        world.account_id,
        world.bot_id,
    )
}

/// The edge in short: accepted is on disk, everything else is 500.
async fn receive(inbox: Arc<Mutex<Option<Inbox>>>, clock: Clock) -> Server {
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now_ms = clock.now_ms();
        async move {
            let head = request.headers().clone();
            let body = request.into_body().collect().await.map_err(|_| Hangup)?.to_bytes();
            let Parsed::Event(event) = event::parse(&body).unwrap() else {
                return Ok(reply(StatusCode::OK, "text/plain", ""));
            };
            let uuid = head.get("x-chatwoot-delivery").and_then(|id| id.to_str().ok()?.parse().ok());
            let Some(inbox) = inbox else { return Ok(reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "")) };
            let accepted = inbox.accept(delivery(&event, uuid, body, now_ms)).await;
            let status = if accepted.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            Ok(reply(status, "text/plain", ""))
        }
    };
    Server::start(0, answer).await.unwrap()
}

fn delivery(event: &Event, uuid: Option<uuid::Uuid>, body: bytes::Bytes, now_ms: i64) -> Delivery {
    let conversation = ConversationKey {
        tenant: "acme".into(),
        channel: "main".into(),
        account_id: event.account_id,
        conversation_id: event.conversation.id,
    };
    let content = event.message.as_ref().map(|message| format!("{message:?}")).unwrap_or_default();
    let parts = [content.as_bytes()];
    let sameness = match event.kind {
        EventKind::MessageCreated => Sameness::Message,
        EventKind::MessageUpdated => Sameness::Content(&parts),
        _ => Sameness::Delivery,
    };
    let message_id = event.message.as_ref().map(|message| message.id);
    Delivery::new(conversation, event.kind.as_str(), message_id, sameness, uuid, body, now_ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_is_answered_once_and_our_own_words_are_not() {
    let world = World::start().await;
    let key = world.customer_says("Where is my parcel?").await;
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!(world.replies(key), [ANSWER]);
    assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
    assert_eq!((world.turns("replied"), world.llm.totals().started), (1, 1));

    world.chatwoot.customer(key).says("And when does it come?").unwrap();
    world.until_replied(key, 2).await;
    world.settled().await;
    // The agent is told what was said before, its own words included.
    let asked = world.llm.calls().pop().unwrap().body;
    let at = |words: &str| asked.find(words).unwrap_or_else(|| panic!("{words} not in {asked}"));
    assert!(at("Where is my parcel?") < at(ANSWER) && at(ANSWER) < at("And when does it come?"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_one_question() {
    let world = World::start().await;
    let key = world.chatwoot.new_conversation().unwrap();
    for text in ["Hello", "I have a question", "Where is my parcel?"] {
        world.chatwoot.customer(key).says(text).unwrap();
    }
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.llm.totals().finished), (1, 1));
    assert!(world.llm.calls()[0].body.contains("I have a question"));
    assert_eq!((world.messages("superseded"), world.messages("replied"), world.turns("replied")), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_message_starts_the_turn_over_with_both() {
    let world = World::start().await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 1_500);
    let key = world.customer_says("Where is my parcel?").await;
    world.model_asked(1).await;
    world.chatwoot.customer(key).says("Number 4711").unwrap();
    world.model_asked(2).await;
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!((world.turns("superseded"), world.turns("replied"), world.replies(key).len()), (1, 1, 1));
    assert_eq!((world.messages("superseded"), world.messages("replied")), (1, 1));
    let totals = world.llm.totals();
    assert_eq!((totals.client_left, totals.finished), (1, 1), "the first call was not cancelled");
    let counts = told(&world.account);
    assert_eq!((counts.calls, counts.estimated_calls), (2, 1), "what was cancelled is paid for all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_silences_the_agent_at_once() {
    let acts: [(&str, Act); 4] = [
        ("takes over", Act::HumanTakesOver),
        ("writes", Act::HumanReplies { text: "I am on it".to_owned() }),
        ("writes from a phone", Act::ExternalEcho { text: "I am on it".to_owned() }),
        ("resolves", Act::Resolve),
    ];
    for (what, act) in acts {
        let world = World::start().await;
        world.llm.set(|behaviour| behaviour.first_byte_ms = 3_000);
        let key = world.customer_says("Where is my parcel?").await;
        world.model_asked(1).await;
        world.chatwoot.act(key, act).unwrap();
        assert!(world.llm.wait_until(|totals| totals.client_left == 1, DEADLINE).await, "{what}: call not cancelled");
        world.settled().await;
        assert_eq!(world.replies(key), Vec::<String>::new(), "{what}");
        assert_eq!((world.turns("not_ours"), world.turns("replied")), (1, 0), "{what}");
        // A human who spoke can see what the customer says next.
        assert_ne!(world.chatwoot.status(key), Some(Status::Pending), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_say_is_neither_asked_nor_taken_for_a_human() {
    let world = World::start().await;
    let key = world.chatwoot.new_conversation().unwrap();
    for act in [
        Act::TemplateSays { text: "Welcome!".to_owned() },
        Act::AutomationSays { text: "We are closed on Sundays.".to_owned() },
        Act::PrivateNote { text: "A difficult one.".to_owned() },
    ] {
        world.chatwoot.act(key, act).unwrap();
    }
    world.settled().await;
    assert_eq!(world.llm.totals().started, 0);
    world.chatwoot.customer(key).says("Where is my parcel?").unwrap();
    world.until_replied(key, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_conversation_is_not_ours_until_it_is_given_back() {
    let world = World::start().await;
    let key = world.customer_says("Hello").await;
    world.until_replied(key, 1).await;
    world.chatwoot.human_takes_over(key).unwrap();
    world.settled().await;
    world.chatwoot.customer(key).says("Are you there?").unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.turns("not_ours")), (1, 1));
    world.chatwoot.resolve(key).unwrap();
    world.chatwoot.act(key, Act::AssignHuman { human_id: None }).unwrap();
    world.settled().await;
    world.chatwoot.customer(key).says("One more thing").unwrap();
    world.until_replied(key, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_human_gets_one() {
    let world = World::start().await;
    let key = world.customer_says("I want to talk to a human").await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!((world.notes(key).len(), world.replies(key).len(), world.llm.totals().started), (1, 1, 0));
    assert_eq!(world.turns("handed_off"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_handoff_in_the_plan_the_customer_reads_a_notice_and_the_operator_a_label() {
    let mut world = World::start().await;
    world.crash().await;
    world.handoff = false;
    world.up();
    let key = world.customer_says("I want to talk to a human").await;
    world.until_replied(key, 1).await;
    world.settled().await;
    let conversation = world.chatwoot.conversation(key).unwrap();
    assert_eq!(conversation.status, Status::Pending);
    assert!(conversation.labels.iter().any(|label| label == "human-requested"), "{:?}", conversation.labels);
    assert_eq!(world.replies(key), [world.config.tenants[0].channels[0].handoff.notice.clone()]);
    assert_eq!((world.turns("replied"), world.llm.totals().started), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_fails_hands_over_after_its_tries_on_every_plan() {
    let mut world = World::start().await;
    world.crash().await;
    world.handoff = false;
    world.up();
    let kind = FaultKind::Status { status: 500, body: None, retry_after: None };
    world.llm.set(|behaviour| behaviour.faults = vec![Fault { when: When::Always, kind }]);
    let key = world.customer_says("Where is my parcel?").await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!((world.notes(key).len(), world.replies(key).len(), world.llm.totals().started), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_a_post_the_customer_sees_one_reply() {
    let cases = [
        ("stored, no answer", CallEffect::Ambiguous, 1),
        ("not stored, no answer", CallEffect::Hangup, 1),
        ("refused with 500", CallEffect::Status(500), 1),
        ("refused with 422, twice", CallEffect::Status(422), 2),
        ("stored, then 500", CallEffect::DoneThenStatus(500), 1),
        ("stored, then 502", CallEffect::DoneThenStatus(502), 1),
        ("not stored, 503", CallEffect::Status(503), 1),
        ("throttled, twice", CallEffect::Status(429), 2),
        ("stored, answered too late", CallEffect::DoneThenDelayMs(1_000), 1),
        ("stored after we gave up", CallEffect::DelayMs(900), 1),
    ];
    for (what, effect, times) in cases {
        for token in ["", "user_token = \"fake-user-token\""] {
            let world = World::start_with("", token, Settings::default()).await;
            world.calls_fail(Endpoint::CreateMessage, times, effect);
            let key = world.customer_says("Where is my parcel?").await;
            world.until("a reply", |world| !world.replies(key).is_empty()).await;
            world.settled().await;
            assert_eq!(world.replies(key), [ANSWER], "{what}, {token}");
            assert_eq!(world.turns("replied"), 1, "{what}, {token}");
            assert_eq!(world.chatwoot.status(key), Some(Status::Pending), "{what}, {token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nothing_can_tell_a_human_gets_it_and_the_reply_is_not_repeated() {
    let world = World::start().await;
    // The reply is stored and its answer lost; so is its echo, and the conversation cannot be read.
    let calls = vec![
        CallFault::next(Endpoint::CreateMessage, 1, CallEffect::Ambiguous),
        CallFault::share(Endpoint::ShowConversation, 1000, CallEffect::Status(500)),
    ];
    world.llm.set(|behaviour| behaviour.first_byte_ms = 500);
    let key = world.customer_says("Where is my parcel?").await;
    world.model_asked(1).await;
    let deliveries = vec![DeliveryFault::share(1000, DeliveryEffect::Drop)];
    world.chatwoot.set_faults(Faults { calls, deliveries });
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    let replies = world.replies(key);
    assert_eq!(replies.iter().filter(|reply| *reply == ANSWER).count(), 1, "{replies:?}");
    assert_eq!(world.notes(key).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liquid_arrives_as_typed() {
    let world = World::start().await;
    let text = "Write {{contact.email}} and {% if x %}{{ contact.phone_number }}{% endif %}";
    world.llm.set(|behaviour| behaviour.answer = Some(text.to_owned()));
    let key = world.customer_says("How do I write a template?").await;
    world.until_replied(key, 1).await;
    assert_eq!(world.replies(key)[0].replace('\u{2060}', ""), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_comes_in_parts_in_order_each_once() {
    let settings = Settings { channel: "Channel::Instagram".to_owned(), ..Settings::default() };
    let world = World::start_with("", "", settings).await;
    let sentences: Vec<String> = (0..120).map(|number| format!("This is sentence number {number}.")).collect();
    let answer = sentences.join(" ");
    world.llm.set(|behaviour| behaviour.answer = Some(answer.clone()));
    let calls = vec![CallFault::share(Endpoint::CreateMessage, 500, CallEffect::Ambiguous)];
    world.chatwoot.set_faults(Faults { calls, ..Faults::default() });
    let key = world.customer_says("Tell me everything").await;
    world.until_replied(key, 4).await;
    world.settled().await;
    let parts = world.replies(key);
    assert!(parts.iter().all(|part| part.len() <= 1_000), "{parts:?}");
    assert_eq!(parts.join(" "), answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_conversations_than_room_are_all_answered() {
    let world =
        World::start_with("lanes_max = 3\nturns_max = 1\nturns_per_tenant_max = 1", "", Settings::default()).await;
    let mut keys = Vec::new();
    for _ in 0..25 {
        keys.push(world.customer_says("Where is my parcel?").await);
    }
    world.until("all answered", |world| keys.iter().all(|key| world.replies(*key).len() == 1)).await;
    world.settled().await;
    assert_eq!(world.turns("replied"), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chatwoot_that_is_down_is_waited_for() {
    let mut world = World::start().await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 300);
    let key = world.customer_says("Where is my parcel?").await;
    world.model_asked(1).await;
    world.chatwoot.take_down().await;
    let deferred = tokio::time::timeout(DEADLINE, async {
        while world.metrics.relay.deferred.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    deferred.await.expect("never put off");
    world.chatwoot.bring_up().await.unwrap();
    world.until_replied(key, 1).await;
    world.settled().await;
    // The agent's answer was kept.
    assert_eq!((world.replies(key).len(), world.llm.totals().started), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handoff_is_tried_until_chatwoot_takes_it() {
    let world = World::start().await;
    world.calls_fail(Endpoint::ToggleStatus, 9, CallEffect::Status(500));
    let key = world.customer_says("I want to talk to a human").await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!((world.notes(key).len(), world.replies(key).len()), (1, 1), "said once, however often it was opened");
    assert!(world.metrics.relay.deferred.get() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_the_agent_thinks_costs_the_customer_nothing() {
    let mut world = World::start().await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 5_000);
    let key = world.customer_says("Where is my parcel?").await;
    world.model_asked(1).await;
    world.crash().await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 0);
    world.up();
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!(world.replies(key).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_the_reply_was_stored_does_not_repeat_it() {
    for token in ["", "user_token = \"fake-user-token\""] {
        let mut world = World::start_with("", token, Settings::default()).await;
        world.calls_fail(Endpoint::CreateMessage, 1, CallEffect::DoneThenDelayMs(600));
        let key = world.customer_says("Where is my parcel?").await;
        world.until_replied(key, 1).await;
        world.crash().await;
        world.up();
        world.settled().await;
        assert_eq!(world.replies(key), [ANSWER], "{token}");
        assert_eq!(world.turns("replied"), 1, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_a_running_turn_end_and_starts_none() {
    let mut world = World::start().await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 400);
    let key = world.customer_says("Where is my parcel?").await;
    world.model_asked(1).await;
    let relay = world.relay.take().unwrap();
    assert!(relay.drain(DEADLINE).await);
    assert_eq!(world.replies(key), [ANSWER]);
    let late = world.customer_says("And mine?").await;
    world.settled_deliveries().await;
    assert_eq!(world.replies(late).len(), 0);
    assert!(world.inbox.lock().unwrap().as_ref().unwrap().pending() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_conversations_under_faults_and_a_crash_each_end_once() {
    let mut world = World::start_with("", "", Settings { seed: 11, ..Settings::default() }).await;
    let calls = vec![
        CallFault::share(Endpoint::CreateMessage, 60, CallEffect::Ambiguous),
        CallFault::share(Endpoint::CreateMessage, 60, CallEffect::Status(500)),
        CallFault::share(Endpoint::CreateMessage, 60, CallEffect::Status(429)),
        CallFault::share(Endpoint::ShowConversation, 60, CallEffect::Status(500)),
        CallFault::share(Endpoint::ToggleStatus, 60, CallEffect::Ambiguous),
    ];
    let deliveries =
        vec![DeliveryFault::share(100, DeliveryEffect::Duplicate), DeliveryFault::share(100, DeliveryEffect::Reorder)];
    world.chatwoot.set_faults(Faults { calls, deliveries });
    let mut keys = Vec::new();
    for number in 0..60 {
        let text = if number % 6 == 0 { "A human, please: I want to talk to a human" } else { "Where is my parcel?" };
        keys.push(world.customer_says(text).await);
        if number == 30 {
            world.crash().await;
            world.up();
        }
    }
    // While the process was down a webhook may have failed for good: Chatwoot then gives the conversation to humans.
    let failed = |world: &World, key: Key| {
        let about = |delivery: &Webhook| delivery.key == key && delivery.event == "message_created";
        world.chatwoot.deliveries().iter().any(|delivery| about(delivery) && delivery.outcome == Outcome::Failed)
    };
    let ended = |world: &World, key: Key| !world.replies(key).is_empty() || failed(world, key);
    world.until("all answered", |world| keys.iter().all(|key| ended(world, *key))).await;
    world.settled().await;
    for key in keys {
        let replies = world.replies(key);
        assert!(replies.iter().filter(|reply| *reply == ANSWER).count() <= 1, "{key:?}: {replies:?}");
        let open = world.chatwoot.status(key) == Some(Status::Open);
        assert!(open || replies == [ANSWER], "{key:?}: {replies:?}");
    }
}

impl World {
    /// Waits until every webhook was accepted or given up.
    async fn settled_deliveries(&self) {
        self.until("deliveries", |world| world.chatwoot.deliveries_waiting() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_who_comes_between_two_tries_of_a_post_silences_the_second() {
    for effect in [CallEffect::Status(429), CallEffect::Status(500), CallEffect::Hangup] {
        let world = World::start().await;
        world.calls_fail(Endpoint::CreateMessage, 1, effect);
        let key = world.customer_says("Where is my parcel?").await;
        let tried = |world: &World| {
            world.chatwoot.calls().iter().any(|call| call.method == "POST" && call.path.ends_with("/messages"))
        };
        world.until("the first try", tried).await;
        world.chatwoot.human_takes_over(key).unwrap();
        world.settled().await;
        assert_eq!(world.replies(key), Vec::<String>::new(), "{effect:?}");
        assert_eq!(world.turns("not_ours"), 1, "{effect:?}");
    }
}

/// What the account tells of one answer.
fn told(account: &Account) -> Counts {
    let deltas = account.drain().deltas;
    let [Delta { key: AGENT_KEY, kind: Kind::Agent, model, counts, .. }] = deltas.as_slice() else {
        panic!("{deltas:?}")
    };
    assert_eq!(&**model, "fake-model");
    *counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_managed_channel_are_measured_and_not_charged() {
    let world = World::start().await;
    let before = world.account.tokens_left();
    let key = world.customer_says("Where is my parcel?").await;
    world.until_replied(key, 1).await;
    let counts = told(&world.account);
    assert!(counts.input_tokens > 0 && counts.output_tokens > 0, "{counts:?}");
    assert_eq!((counts.calls, counts.budget_tokens), (1, 0));
    assert_eq!(world.account.tokens_left(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_the_tenant_s_own_chatwoot_are_paid_from_its_budget_until_it_is_spent() {
    let plans = "[\"app.business\", \"selfhosted\"]\noverrides = { tokens_per_month = 2 }";
    let world = World::start_on(plans, "", "", Settings::default()).await;
    let key = world.customer_says("Where is my parcel?").await;
    world.until_replied(key, 1).await;
    let counts = told(&world.account);
    assert_eq!(counts.budget_tokens, counts.input_tokens + counts.output_tokens);
    assert_eq!(world.account.tokens_left(), Some(0), "more than there was is debt");
    world.chatwoot.customer(key).says("And the other one?").unwrap();
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!(world.llm.totals().started, 1, "no model is asked for what nobody pays");
    assert!(world.notes(key)[0].contains("used up"), "{:?}", world.notes(key));
}
