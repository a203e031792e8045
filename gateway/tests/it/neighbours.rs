//! Tenants behind one Chatwoot: what they share, and that none pays for another.

use std::time::Duration;

use relais_gateway::Running;
use relais_loadtest::fakes::chatwoot::{
    Author, CallEffect, CallFault, ConversationKey, Endpoint, FakeChatwoot, Faults, MessageType, NewContact, Settings,
};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings as LlmSettings};

use crate::support::{DEADLINE, Gateway, toml};

/// What has to wait for a budget of a few calls a second takes as long as that takes.
const BUDGET_DEADLINE: Duration = Duration::from_secs(120);

const ANSWER: &str = "Tomorrow.";

/// A Chatwoot with three bots, each in an inbox of its own and each a tenant's, and the gateway between.
struct World {
    chatwoot: FakeChatwoot,
    /// The model that all ask.
    llm: FakeLlm,
    gateway: Gateway,
    /// Inboxes of `acme`, `blue` and `cyan`.
    inboxes: [u64; 3],
}

impl World {
    async fn start(relay: &str, model_waits_ms: u64) -> Self {
        let chatwoot = FakeChatwoot::start(Settings::default()).await.unwrap();
        let behaviour =
            Behaviour { answer: Some(ANSWER.to_owned()), first_byte_ms: model_waits_ms, ..Behaviour::default() };
        let llm = FakeLlm::start(LlmSettings { behaviour, ..LlmSettings::default() }).await.unwrap();
        let (blue, blue_inbox) = bot(&chatwoot, "blue");
        let (cyan, cyan_inbox) = bot(&chatwoot, "cyan");
        let channel = |bot_id| {
            let (url, account_id) = (chatwoot.url(), chatwoot.world().account_id);
            let (token, secret) = chatwoot.bot_credentials(bot_id).unwrap();
            let secret = secret.unwrap();
            format!(
                r#"
                [[tenant.chatwoot]]
                channel = "main"
                url = "{url}"
                account_id = {account_id}
                bot_id = {bot_id}
                bot_token = "{token}"
                webhook_secret = "{secret}"
                agent = "default"
                "#
            )
        };
        let more = format!(
            r#"
            {}
            [[tenant]]
            id = "blue"
            plans = ["app.business", "api.pro", "chatwoot.pro"]
            {}
            [[tenant]]
            id = "cyan"
            plans = ["app.business", "api.pro", "chatwoot.pro"]
            {}
            [[agent]]
            id = "default"
            kind = "openai"
            upstream = "main"
            model = "fake-model"
            system_prompt = "Answer."
            [relay]
            burst_ms = 0
            burst_max_ms = 0
            {relay}
            "#,
            channel(chatwoot.world().bot_id),
            channel(blue),
            channel(cyan),
        );
        let gateway = Gateway::start(&toml(&llm.url(), "", &more));
        chatwoot.set_outgoing_url(&format!("http://{}/chatwoot/acme", gateway.public()));
        for (bot, tenant) in [(blue, "blue"), (cyan, "cyan")] {
            chatwoot.set_bot_url(bot, &format!("http://{}/chatwoot/{tenant}", gateway.public()));
        }
        let inboxes = [chatwoot.world().chatwoot_inbox_id, blue_inbox, cyan_inbox];
        Self { chatwoot, llm, gateway, inboxes }
    }

    fn inner(&self) -> &Running {
        self.gateway.inner()
    }

    /// A customer of one of the tenants asks.
    fn asked(&self, tenant: usize) -> ConversationKey {
        let key = self.chatwoot.new_conversation_in(self.inboxes[tenant], NewContact::default()).unwrap();
        self.chatwoot.customer(key).says("Where is my parcel?").unwrap();
        key
    }

    fn replies(&self, key: ConversationKey) -> usize {
        let ours = |author: Option<Author>| matches!(author, Some(Author::Bot(_)));
        let seen = self.chatwoot.seen_by_customer(key).into_iter();
        seen.filter(|seen| seen.message_type == MessageType::Outgoing && ours(seen.by)).count()
    }

    async fn all_answered(&self, keys: &[ConversationKey]) {
        let all = |_: &FakeChatwoot| keys.iter().all(|key| self.replies(*key) >= 1);
        let answered = self.chatwoot.wait_until(BUDGET_DEADLINE, all).await;
        assert!(
            answered.is_ok(),
            "{} of {} answered",
            keys.iter().filter(|key| self.replies(**key) > 0).count(),
            keys.len()
        );
    }

    fn budget(&self, call: &str, result: &str) -> u64 {
        self.inner().gateway.metrics.relay.chatwoot_budget.with_label_values(&[call, result]).get()
    }
}

/// A bot in an inbox of its own.
fn bot(chatwoot: &FakeChatwoot, name: &str) -> (u64, u64) {
    let bot = chatwoot.add_bot(name, "");
    let inbox = chatwoot.add_inbox(name, "Channel::WebWidget", false);
    chatwoot.attach_bot(inbox, bot);
    (bot, inbox)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_calls_are_scarce_typing_is_left_out_and_both_tenants_are_answered() {
    // 100 at once and ten a second; two of the four calls of each turn are needed.
    let world = World::start("chatwoot_calls_per_minute = 600", 0).await;
    let keys: Vec<_> = (0..60).map(|number| world.asked(number % 2)).collect();
    world.all_answered(&keys).await;
    assert!(keys.iter().all(|key| world.replies(*key) == 1));
    let (typed, dropped) = (world.budget("typing", "at_once"), world.budget("typing", "dropped"));
    assert!(dropped > 0 && typed + dropped <= 120, "{typed} typing calls sent, {dropped} left out");
    assert!(world.budget("post", "waited") + world.budget("conversation", "waited") > 0, "nothing had to wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_in_time_is_put_off_and_not_lost() {
    // Fifty at once and five a second; a call waits 150 ms at most and is tried once.
    let relay = "chatwoot_calls_per_minute = 300\nchatwoot_wait_ms = 300\nchatwoot_tries = 1";
    let world = World::start(relay, 0).await;
    let keys: Vec<_> = (0..30).map(|number| world.asked(number % 2)).collect();
    world.all_answered(&keys).await;
    let no_room = world.budget("post", "no_room") + world.budget("conversation", "no_room");
    assert!(no_room > 0 && world.inner().gateway.metrics.relay.deferred.get() > 0, "nothing was put off");
    assert!(keys.iter().all(|key| world.replies(*key) == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_to_one_tenant_holds_back_the_calls_of_the_other() {
    let world = World::start("chatwoot_pause_ms = 4000", 0).await;
    let calls = vec![CallFault::next(Endpoint::CreateMessage, 1, CallEffect::Status(429))];
    world.chatwoot.set_faults(Faults { calls, ..Faults::default() });
    let first = world.asked(0);
    let throttled = async {
        while world.budget("post", "throttled") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, throttled).await.unwrap();
    let waited = || world.budget("conversation", "waited");
    let before = waited();
    let second = world.asked(1);
    world.all_answered(&[first, second]).await;
    assert!(waited() > before, "the other tenant's call was not held back");
    assert_eq!((world.budget("post", "throttled"), world.budget("typing", "dropped")), (1, 1));
    assert_eq!((world.replies(first), world.replies(second)), (1, 1));
    assert_eq!(world.llm.totals().started, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_keeps_nobody_else_waiting() {
    let world = World::start("lanes_max = 6\nturns_max = 8\nturns_per_tenant_max = 1\nagent_wait_ms = 600000", 0).await;
    let replies = |keys: &[ConversationKey]| keys.iter().map(|key| world.replies(*key)).sum::<usize>();
    let flood = async |tenant, times| {
        // Whoever asks the model now waits for it to the end of the test.
        world.llm.set(|behaviour| behaviour.first_byte_ms = 600_000);
        let before = world.llm.totals().started;
        let keys: Vec<_> = (0..times).map(|_| world.asked(tenant)).collect();
        let accepted = world.chatwoot.wait_until(DEADLINE, |chatwoot| chatwoot.deliveries_waiting() == 0).await;
        assert!(accepted.is_ok(), "{} deliveries left", world.chatwoot.deliveries_waiting());
        let asked = world.llm.wait_until(|totals| totals.started > before, DEADLINE).await;
        assert!(asked, "no turn of tenant {tenant} runs");
        world.llm.set(|behaviour| behaviour.first_byte_ms = 0);
        keys
    };
    let acme = flood(0, 1_000).await;
    let blue = world.asked(1);
    world.all_answered(&[blue]).await;
    assert_eq!(replies(&acme), 0, "it was answered before any of a thousand");
    // Two who flood at once leave a lane for the third.
    let blues = flood(1, 200).await;
    let cyan = world.asked(2);
    world.all_answered(&[cyan]).await;
    assert_eq!(replies(&acme) + replies(&blues), 0);
}
