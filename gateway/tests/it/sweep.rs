//! Conversations that no delivery tells of: what was missed is answered once, what has gone quiet is ended.

use std::net::TcpListener;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use relais_gateway::clock::Clock;
use relais_loadtest::fakes::chatwoot::{
    Act, Author, CallEffect, CallFault, ConversationKey as Key, DeliveryEffect, DeliveryFault, Endpoint, FakeChatwoot,
    Faults, MessageType, NewContact, Settings, Status,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings as LlmSettings};
use tempfile::TempDir;

use crate::support::{DEADLINE, Gateway, toml};

const ANSWER: &str = "It is on its way.";
const USER: &str = "user_token = \"fake-user-token\"";

/// A Chatwoot that keeps pending what the bot missed, a model, and a gateway that comes and goes on one address.
struct World {
    chatwoot: FakeChatwoot,
    llm: FakeLlm,
    clock: Clock,
    toml: String,
    gateway: Option<Gateway>,
    dir: Option<TempDir>,
}

impl World {
    /// `sections`: more of the file. `channel`: more lines of its channel.
    async fn start(sections: &str, channel: &str, settings: Settings) -> Self {
        let mut world = Self::down(sections, channel, settings).await;
        world.up();
        world
    }

    async fn down(sections: &str, channel: &str, settings: Settings) -> Self {
        let settings = Settings { keep_pending_on_bot_failure: true, retry_wait_ms: 20, ..settings };
        let chatwoot = FakeChatwoot::start(settings).await.unwrap();
        let behaviour = Behaviour { answer: Some(ANSWER.to_owned()), ..Behaviour::default() };
        let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
        // Always the same, so that what was sent while it was down can come late.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        chatwoot.set_outgoing_url(&format!("http://127.0.0.1:{port}/chatwoot/acme"));
        let ids = chatwoot.world();
        let more = format!(
            r#"
            [[tenant.chatwoot]]
            channel = "main"
            url = "{}"
            account_id = {}
            bot_id = {}
            bot_token = "fake-bot-token"
            webhook_secret = "fake-bot-secret"
            agent = "default"
            {channel}
            [[agent]]
            id = "default"
            kind = "openai"
            upstream = "main"
            model = "fake-model"
            system_prompt = "Answer."
            [relay]
            burst_ms = 0
            burst_max_ms = 0
            chatwoot_wait_ms = 5000
            {sections}
            "#,
            chatwoot.url(),
            ids.account_id,
            ids.bot_id,
        );
        let toml = toml(&llm.url(), "", &more).replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
        // Stands still, so that only the test decides what is late or quiet.
        let clock = Clock::manual(Clock::system().now_ms());
        Self { chatwoot, llm, clock, toml, gateway: None, dir: Some(tempfile::tempdir().unwrap()) }
    }

    fn up(&mut self) {
        self.gateway = Some(Gateway::start_in(&self.toml, self.clock.clone(), self.dir.take().unwrap()));
    }

    async fn stop(&mut self) {
        self.dir = Some(self.gateway.take().unwrap().stop().await);
    }

    fn says(&self, key: Key, text: &str) {
        self.chatwoot.customer(key).says(text).unwrap();
    }

    fn asks(&self, text: &str) -> Key {
        let key = self.chatwoot.new_conversation().unwrap();
        self.says(key, text);
        key
    }

    /// What the bot said to the customer.
    fn replies(&self, key: Key) -> Vec<String> {
        let seen = self.chatwoot.seen_by_customer(key).into_iter();
        let ours =
            seen.filter(|seen| seen.message_type == MessageType::Outgoing && matches!(seen.by, Some(Author::Bot(_))));
        ours.filter_map(|seen| seen.content).collect()
    }

    async fn metric(&self, name: &str) -> f64 {
        self.gateway.as_ref().unwrap().metric(name).await
    }

    async fn until_metric(&self, name: &str, at_least: f64) {
        let reached = tokio::time::timeout(DEADLINE, async {
            while self.metric(name).await < at_least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let page = self.gateway.as_ref().unwrap().metrics();
        assert!(reached.await.is_ok(), "{name} < {at_least}:\n{}", page.await);
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        assert!(self.chatwoot.wait_until(DEADLINE, |_| holds(self)).await.is_ok(), "{what}");
    }

    /// Moves the clock by this much again and again until it holds: a loop may have looked just before a move.
    async fn until_later(&self, step: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let moving = async {
            while !holds(self) {
                self.clock.advance(step);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, moving).await.is_ok(), "{what}");
    }

    async fn until_replied(&self, key: Key, times: usize) {
        self.until(&format!("{times} replies"), |world| world.replies(key).len() >= times).await;
    }

    async fn delivered(&self) {
        self.until("all delivered or given up", |world| world.chatwoot.deliveries_waiting() == 0).await;
    }

    /// Everything that came has ended, echoes included.
    async fn settled(&self) {
        let settled = tokio::time::timeout(DEADLINE, async {
            while self.chatwoot.deliveries_waiting() > 0
                || self.metric("relais_inbox_pending").await > 0.0
                || self.metric("relais_lanes").await > 0.0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(settled.await.is_ok(), "it does not come to rest");
    }

    fn listed(&self) -> usize {
        let calls = self.chatwoot.calls();
        calls.iter().filter(|call| call.path.contains("/conversations?")).count()
    }

    fn outgoing(&self, key: Key) -> usize {
        self.chatwoot.conversation(key).unwrap().messages.len()
    }
}

/// Calls the account's API as an administrator.
async fn administrator(chatwoot: &FakeChatwoot, path: &str, body: &str) {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/api/v1/accounts/{}{path}", chatwoot.url(), chatwoot.world().account_id))
        .header("api_access_token", "fake-user-token")
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body.to_owned())))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_customers_wrote_while_it_was_down_is_answered_once() {
    let mut world = World::start("", USER, Settings::default()).await;
    let met = world.asks("Where is my parcel?");
    let humans = world.asks("And mine?");
    world.until_replied(met, 1).await;
    world.until_replied(humans, 1).await;
    world.settled().await;
    world.stop().await;

    world.says(met, "Hello?");
    // More of them than Chatwoot lists on a page.
    let strangers: Vec<Key> = (0..30).map(|number| world.asks(&format!("Question {number}"))).collect();
    world.chatwoot.human_takes_over(humans).unwrap();
    world.says(humans, "Thank you");
    let elsewhere = world.chatwoot.add_inbox("Elsewhere", "Channel::WebWidget", false);
    let other = world.chatwoot.add_bot("Other", "http://127.0.0.1:1/");
    let path = format!("/inboxes/{elsewhere}/set_agent_bot");
    administrator(&world.chatwoot, &path, &format!("{{\"agent_bot\": {other}}}")).await;
    let theirs = world.chatwoot.new_conversation_in(elsewhere, NewContact::default()).unwrap();
    world.says(theirs, "Not for Relais");
    assert_eq!(world.chatwoot.status(theirs), Some(Status::Pending));
    let given = world.asks("For the other bot");
    world.chatwoot.act(given, Act::AssignBot { bot_id: other }).unwrap();
    world.delivered().await;
    let unanswered: Vec<usize> = [humans, theirs, given].map(|key| world.outgoing(key)).into();

    world.up();
    world.until_replied(met, 2).await;
    for key in &strangers {
        world.until_replied(*key, 1).await;
    }
    world.until_metric("relais_sweeps_total{outcome=\"done\",sweep=\"missed\"}", 1.0).await;
    world.settled().await;
    assert_eq!((world.replies(met).len(), world.replies(humans).len()), (2, 1));
    assert!(strangers.iter().all(|key| world.replies(*key) == [ANSWER]));
    let after: Vec<usize> = [humans, theirs, given].map(|key| world.outgoing(key)).into();
    assert_eq!(after, unanswered, "nothing was done in what is not ours");
    assert_eq!(world.metric("relais_missed_messages_total{result=\"entered\"}").await, 31.0);

    // Once more: nothing is missing any more.
    world.stop().await;
    world.up();
    world.until_metric("relais_sweeps_total{outcome=\"done\",sweep=\"missed\"}", 1.0).await;
    world.settled().await;
    assert_eq!(world.metric("relais_missed_messages_total{result=\"entered\"}").await, 0.0);
    assert_eq!((world.replies(met).len(), world.replies(strangers[0]).len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_comes_late_after_all_has_no_effect() {
    let mut world = World::down("", USER, Settings::default()).await;
    let deliveries = vec![DeliveryFault::next("message_created", 1, DeliveryEffect::DelayMs(3_000))];
    world.chatwoot.set_faults(Faults { deliveries, ..Faults::default() });
    let key = world.asks("Where is my parcel?");
    world.up();
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!(world.replies(key), [ANSWER]);
    assert_eq!(world.metric("relais_missed_messages_total{result=\"entered\"}").await, 1.0);
    assert_eq!(world.metric("relais_inbox_deliveries_total{result=\"duplicate\"}").await, 1.0);
    assert_eq!(world.llm.totals().started, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_user_token_nothing_is_looked_for() {
    let mut world = World::down("", "", Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.delivered().await;
    world.up();
    // It works, as another customer shows, and looks for nothing.
    let heard = world.asks("And mine?");
    world.until_replied(heard, 1).await;
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.listed()), (0, 0));
    assert_eq!(world.metric("relais_sweeps_total{outcome=\"done\",sweep=\"missed\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chatwoot_that_is_down_at_the_start_is_asked_again() {
    let mut world = World::down("", USER, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.delivered().await;
    world.chatwoot.take_down().await;
    world.up();
    world.until_metric("relais_sweeps_total{outcome=\"failed\",sweep=\"missed\"}", 1.0).await;
    world.chatwoot.bring_up().await.unwrap();
    world.clock.advance(Duration::from_secs(16));
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!(world.replies(key), [ANSWER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_configured_is_left_alone() {
    let mut world = World::down("[sweep]\nmissed_hours = 1", USER, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.delivered().await;
    world.clock.advance(Duration::from_secs(2 * 3_600));
    world.up();
    world.until_metric("relais_sweeps_total{outcome=\"done\",sweep=\"missed\"}", 1.0).await;
    assert_eq!((world.replies(key).len(), world.metric("relais_inbox_pending").await), (0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_inbox_refused_is_looked_for_once_it_takes_deliveries_again() {
    let sections = "[inbox]\npending_max = 1\n[sweep]\nmissed_calm_ms = 1000";
    let world = World::start(sections, USER, Settings::default()).await;
    world.until_metric("relais_sweeps_total{outcome=\"done\",sweep=\"missed\"}", 1.0).await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 1_500);
    let first = world.asks("Where is my parcel?");
    assert!(world.llm.wait_until(|totals| totals.started >= 1, DEADLINE).await);
    let second = world.asks("And mine?");
    world.llm.set(|behaviour| behaviour.first_byte_ms = 0);
    world.until_metric("relais_inbox_deliveries_total{result=\"shed\"}", 3.0).await;
    world.until_replied(first, 1).await;
    world.settled().await;
    assert_eq!(world.replies(second).len(), 0, "it was refused three times and given up");
    let answered = |world: &World| !world.replies(second).is_empty();
    world.until_later(Duration::from_secs(2), "an answer after all", answered).await;
    world.settled().await;
    assert_eq!(world.replies(second), [ANSWER]);
}

/// A minute makes it idle, and the clock has moved by two.
async fn quiet(world: &World) {
    world.settled().await;
    world.clock.advance(Duration::from_secs(120));
}

const IDLE: &str = "idle = { after_minutes = 1 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_conversation_gone_quiet_is_resolved_and_comes_back_with_the_customer() {
    let world = World::start("[sweep]\nidle_every_ms = 1000", IDLE, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.until_replied(key, 1).await;
    quiet(&world).await;
    world.until("resolved", |world| world.chatwoot.status(key) == Some(Status::Resolved)).await;
    world.settled().await;
    assert_eq!(world.metric("relais_idle_conversations_total{end=\"resolved\"}").await, 1.0);
    assert_eq!(world.replies(key), [ANSWER], "nothing is said about it");
    world.says(key, "One more thing!");
    world.until_replied(key, 2).await;
    assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_can_have_the_quiet_ones() {
    let idle = "idle = { after_minutes = 1, answered = \"handoff\" }";
    let world = World::start("[sweep]\nidle_every_ms = 1000", idle, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.until_replied(key, 1).await;
    quiet(&world).await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!(world.metric("relais_handoffs_total{reason=\"idle\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_whom_a_human_left_without_an_answer_gets_the_agent_s_and_waits_for_no_sweep() {
    let world = World::start("[sweep]\nidle_every_ms = 1000", IDLE, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.until_replied(key, 1).await;
    world.settled().await;
    world.chatwoot.human_takes_over(key).unwrap();
    world.settled().await;
    world.says(key, "Are you there?");
    world.settled().await;
    world.chatwoot.set_pending(key).unwrap();
    world.until_replied(key, 2).await;
    world.settled().await;
    assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
    assert_eq!(world.metric("relais_handoffs_total{reason=\"unanswered\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_and_what_is_turned_off_are_left_alone() {
    let cases = [("Channel::Email", IDLE, 1.0), ("Channel::WebWidget", "idle = { after_minutes = 0 }", 0.0)];
    for (channel, idle, left) in cases {
        let settings = Settings { channel: channel.to_owned(), ..Settings::default() };
        let world = World::start("[sweep]\nidle_every_ms = 1000", idle, settings).await;
        let key = world.asks("Where is my parcel?");
        world.until_replied(key, 1).await;
        quiet(&world).await;
        world.until_metric("relais_idle_conversations_total{end=\"left\"}", left).await;
        let later = world.asks("And mine?");
        world.until_replied(later, 1).await;
        world.settled().await;
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending), "{channel}");
        assert_eq!(world.metric("relais_idle_conversations_total{end=\"left\"}").await, left, "{channel}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_conversations_that_only_chatwoot_knows_are_found_with_a_user_token() {
    let channel = format!("{USER}\n{IDLE}");
    let mut world = World::down("[sweep]\nidle_every_ms = 1000\nmissed_hours = 0", &channel, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.delivered().await;
    world.up();
    world.clock.advance(Duration::from_secs(120));
    let open = |world: &World| world.chatwoot.status(key) == Some(Status::Open);
    world.until_later(Duration::from_secs(2), "open", open).await;
    world.settled().await;
    assert_eq!(world.metric("relais_handoffs_total{reason=\"unanswered\"}").await, 1.0);
    let notes = world.chatwoot.conversation(key).unwrap().messages.into_iter().filter(|message| message.private);
    assert_eq!(notes.count(), 1);
}

/// A customer who was answered says something that crosses with our resolving, and is told late.
async fn crossed(said: &str) -> (World, Key) {
    let world = World::start("[sweep]\nidle_every_ms = 1000", IDLE, Settings::default()).await;
    let key = world.asks("Where is my parcel?");
    world.until_replied(key, 1).await;
    world.settled().await;
    // The customer's message is stored and told late, and the last look before resolving tells nothing.
    let deliveries = vec![DeliveryFault::share(1000, DeliveryEffect::DelayMs(5_000))];
    world.chatwoot.set_faults(Faults { deliveries, ..Faults::default() });
    world.says(key, said);
    let calls = vec![CallFault::next(Endpoint::ShowConversation, 2, CallEffect::Status(500))];
    world.chatwoot.set_faults(Faults { calls, ..Faults::default() });
    world.clock.advance(Duration::from_secs(120));
    world.until("resolved", |world| world.chatwoot.status(key) == Some(Status::Resolved)).await;
    (world, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_a_human_that_crosses_with_the_resolving_is_granted() {
    let (world, key) = crossed("I want to talk to a human, please.").await;
    world.until("opened", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!(world.chatwoot.status(key), Some(Status::Open));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_crosses_with_the_resolving_is_answered() {
    let (world, key) = crossed("One more thing!").await;
    world.until_replied(key, 2).await;
    world.settled().await;
    assert_eq!(world.replies(key).len(), 2);
    assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
}
