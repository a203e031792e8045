//! Conversations and seats of a managed plan: what counts, when it counts again, what happens when none is left. The
//! months go by on a clock of the test's; Chatwoot and the model are fakes, everything between is real.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use relais_gateway::admission::{Account, ConversationPlace, Counted, Journal, Level, Told, Watched};
use relais_gateway::clock::Clock;
use relais_gateway::config::{self, Config};
use relais_gateway::inbox::{
    ConversationKey, ConversationRow, ConversationState, CountedIn, Delivery, Finish, Inbox, Plan, PostKind, Sameness,
    TurnTokens,
};
use relais_gateway::metrics::Metrics;
use relais_loadtest::fakes::chatwoot::{CallEffect, ConversationKey as Key, Endpoint, FakeChatwoot, Settings, Status};
use relais_loadtest::fakes::llm::FakeLlm;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::inbox_report;
use crate::relay::{World, toml};
use crate::support::Gateway;

/// 2026-11-10T00:00:00Z.
const NOW_MS: i64 = 1_794_268_800_000;
const MONTH: Duration = Duration::from_hours(24 * 31);
const PRO: &str = r#"["app.business", "api.pro", "chatwoot.pro"]"#;

/// A tenant with these plans, and so many conversations a month.
async fn world(plans: &str, conversations: u64, more: &str) -> World {
    let written = |chatwoot: &FakeChatwoot, llm: &FakeLlm| {
        let plans = format!("{plans}\noverrides = {{ conversations_per_month = {conversations} }}\n{more}");
        // The clock stands still, so nothing may wait for it.
        toml(chatwoot, llm, &plans, "", "").replace("burst_ms = 40", "burst_ms = 0")
    };
    World::start_at(Clock::manual(NOW_MS), Settings::default(), written).await
}

/// Conversations counted, and humans seen, in the month that runs.
fn counted(world: &World) -> (u64, usize) {
    told(&world.account)
}

fn told(account: &Account) -> (u64, usize) {
    // An account enters a month when it is asked something.
    account.counts_since_ms();
    let state = account.drain().account;
    (state.conversations, state.humans.len())
}

async fn answered(world: &World, text: &str) -> Key {
    let key = world.customer_says(text).await;
    world.until_replied(key, 1).await;
    world.settled().await;
    key
}

async fn until_status(world: &World, key: Key, status: Status) {
    world.until(&format!("{status:?}"), |world| world.chatwoot.status(key) == Some(status)).await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_counts_once_a_month_and_past_the_last_one_new_ones_are_a_humans() {
    let mut world = world(PRO, 2, "").await;
    let first = answered(&world, "Where is my parcel?").await;
    assert_eq!(counted(&world).0, 1);
    world.chatwoot.customer(first).says("And the other one?").unwrap();
    world.until_replied(first, 2).await;
    world.settled().await;
    assert_eq!(counted(&world).0, 1, "the second answer");
    let asked_for = world.customer_says("I want to talk to a human").await;
    until_status(&world, asked_for, Status::Open).await;
    assert_eq!(counted(&world).0, 1, "a handoff is free");
    answered(&world, "Where is my parcel?").await;
    let drained = world.account.drain();
    assert_eq!(drained.account.conversations, 2);

    let late = world.customer_says("Where is my parcel?").await;
    until_status(&world, late, Status::Open).await;
    let asked = world.llm.totals().started;
    assert_eq!(asked, 3, "no model is asked");
    assert!(world.notes(late)[0].contains("used up"), "{:?}", world.notes(late));
    assert_eq!(counted(&world).0, 2);
    // Also after a restart, and those that are counted go on.
    world.crash().await;
    world.up();
    assert_eq!(counted(&world).0, 2);
    world.chatwoot.customer(first).says("Thanks. When does it come?").unwrap();
    world.until_replied(first, 3).await;
    let late = world.customer_says("Where is my parcel?").await;
    until_status(&world, late, Status::Open).await;

    // A new month: they count again, each once.
    world.clock.advance(MONTH);
    assert_eq!(counted(&world).0, 0);
    world.chatwoot.customer(first).says("It has not come").unwrap();
    world.until_replied(first, 4).await;
    answered(&world, "Where is my parcel?").await;
    assert_eq!(counted(&world).0, 2);
    world.crash().await;
    world.up();
    assert_eq!(counted(&world).0, 2, "last month's are last month's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_told_at_80_and_100_per_cent_once() {
    let world = world(PRO, 5, "").await;
    let mut told = Vec::new();
    for number in 0..5 {
        answered(&world, &format!("Where is parcel {number}?")).await;
        told.extend(world.account.drain().alerts.into_iter().map(|alert| (alert.told, alert.used, alert.limit)));
    }
    let level = |level| Told { watched: Watched::Conversations, level };
    assert_eq!(told, [(level(Level::Near), 4, 5), (level(Level::Reached), 5, 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_handoff_in_the_plan_the_conversation_is_opened_with_the_operators_notice() {
    let plans = r#"["app.business", "api.pro", "chatwoot.starter"]"#;
    let mut world = world(plans, 1, "").await;
    world.crash().await;
    world.handoff = false;
    world.up();
    answered(&world, "Where is my parcel?").await;
    for text in ["Where is my parcel?", "I want to talk to a human"] {
        let late = world.customer_says(text).await;
        until_status(&world, late, Status::Open).await;
        assert_eq!(world.replies(late), [config::QUOTA_NOTICE], "{text}");
    }
    assert_eq!((world.llm.totals().started, counted(&world).0), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_in_shadow_counts_and_refuses_nobody() {
    let world = world(PRO, 1, "shadow = [\"conversations_per_month\"]").await;
    for _ in 0..3 {
        answered(&world, "Where is my parcel?").await;
    }
    assert_eq!(counted(&world).0, 3);
    let page = String::from_utf8(world.metrics.page()).unwrap();
    assert!(page.contains("relais_shadow_denials_total{reason=\"conversations_used_up\"} 2\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_reply_and_its_record_counts_once() {
    for (what, effect) in
        [("stored, not recorded", CallEffect::DoneThenDelayMs(60_000)), ("not stored", CallEffect::DelayMs(60_000))]
    {
        let mut world = world(PRO, 2, "").await;
        world.calls_fail(Endpoint::CreateMessage, 1, effect);
        let key = world.customer_says("Where is my parcel?").await;
        world.until("posting", |world| world.chatwoot.faults().calls.iter().all(|fault| fault.times == Some(0))).await;
        world.crash().await;
        let db = rusqlite::Connection::open(world.dir.path().join("inbox.db")).unwrap();
        let rows: i64 = db.query_row("SELECT count(*) FROM counted", [], |row| row.get(0)).unwrap();
        drop(db);
        assert_eq!(rows, 1, "{what}: it is decided on, and has its place");
        world.up();
        // Where the restart took longer than Chatwoot tries a webhook, it has opened the conversation itself: the turn
        // is cut short, and a reply that is not known to have arrived counts nothing.
        let opened = |world: &World| world.chatwoot.status(key) == Some(Status::Open);
        world.until("an end", |world| world.replies(key).len() == 1 || opened(world)).await;
        world.settled().await;
        let before = counted(&world).0;
        assert!(before == 1 || (before == 0 && opened(&world)), "{what}: {before}");
        answered(&world, "Where is my parcel?").await;
        assert_eq!(counted(&world).0, before + 1, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_chatwoot_refuses_counts_nothing() {
    let mut world = world(PRO, 1, "").await;
    world.calls_fail(Endpoint::CreateMessage, 1, CallEffect::Status(400));
    let key = world.customer_says("Where is my parcel?").await;
    until_status(&world, key, Status::Open).await;
    assert_eq!(counted(&world).0, 0);
    world.crash().await;
    world.up();
    assert_eq!(counted(&world).0, 0);
    answered(&world, "Where is my parcel?").await;
    assert_eq!(counted(&world).0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_begin_at_once_are_not_more_than_the_plan_includes() {
    let world = world(PRO, 4, "").await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 200);
    let mut keys = Vec::new();
    for _ in 0..12 {
        keys.push(world.customer_says("Where is my parcel?").await);
    }
    world.until("all ended", |world| keys.iter().all(|key| !world.replies(*key).is_empty())).await;
    world.settled().await;
    let open = keys.iter().filter(|key| world.chatwoot.status(**key) == Some(Status::Open)).count();
    assert_eq!((counted(&world).0, open, world.llm.totals().started), (4, 8, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_is_a_seat_once_a_month() {
    let world = world(PRO, 10, "").await;
    for _ in 0..2 {
        let key = world.customer_says("I want to talk to a human").await;
        until_status(&world, key, Status::Open).await;
        world.chatwoot.human_replies(key, "How can I help?").unwrap();
        world.settled().await;
    }
    assert_eq!(counted(&world), (0, 1));
    world.clock.advance(MONTH);
    assert_eq!(counted(&world).1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enforced_is_what_is_told() {
    let (chatwoot, _llm, gateway) = inbox_report::world().await;
    let key = inbox_report::asked(&chatwoot);
    inbox_report::until(|| (inbox_report::replies(&chatwoot, key) == 1).then_some(())).await;
    let asked = async |gateway: &Gateway| {
        let limits = gateway.get("/v1/limits").await.json();
        let usage = gateway.get("/v1/usage?group_by=kind").await.json();
        (limits["remaining"]["conversations_per_month"].clone(), limits["remaining"]["seats"].clone(), usage)
    };
    let (conversations, seats, usage) = asked(&gateway).await;
    let part = |name: &str| conversations[name].clone();
    assert_eq!((part("limit"), part("used"), part("remaining")), (json!(2_000), json!(1), json!(1_999)));
    assert_eq!(seats, json!({"limit": 3, "seen": 0}));
    assert_eq!((&usage["period"]["conversations"], &usage["period"]["seats"]), (&json!(1), &json!(0)));
    let agent = &usage["data"][0];
    assert_eq!((&agent["kind"], &agent["calls"]), (&json!("agent"), &json!(1)));
    // The tokens of the turn are those of the ledger.
    let number = key.conversation_id.to_string();
    let stories: Value =
        serde_json::from_str(&inbox_report::printed(&gateway, &["show", "acme", &number, "--format", "json"])).unwrap();
    let turn = &stories[0]["turns"][0];
    for tokens in ["input_tokens", "cached_tokens", "output_tokens"] {
        assert_eq!(turn[tokens], agent[tokens], "{tokens}: {turn}");
    }
    assert!(turn["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(stories[0]["counted_in_ms"].as_array().unwrap().len(), 1);
    let shown = inbox_report::printed(&gateway, &["show", "acme", &number]);
    assert!(shown.contains("Counted in the billing month since") && shown.contains(", tokens: "), "{shown}");

    let toml = std::fs::read_to_string(gateway.dir.path().join("relais.toml")).unwrap();
    let dir = gateway.stop().await;
    let usage = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_relais"))
            .args(["usage", "--config"])
            .arg(dir.path().join("relais.toml"))
            .args(more)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let months: Value = serde_json::from_str(&usage(&["--months", "--format", "json"])).unwrap();
    assert_eq!(
        (&months[0]["tenant"], &months[0]["conversations"], &months[0]["seats"]),
        (&json!("acme"), &json!(1), &json!(0))
    );
    assert!(usage(&["--months", "--format", "csv"]).starts_with("tenant,period,conversations,seats\r\nacme,"));
    assert!(usage(&[]).contains("conversations  seats"), "{}", usage(&[]));
    let gateway = Gateway::start_in(&toml, Clock::system(), dir);
    assert_eq!(asked(&gateway).await.0["used"], 1, "after a restart");
}

/// What happens to a house with a few conversations.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An agent answers here: the reply arrives, or it does not.
    Reply { conversation: u64, arrives: bool },
    /// A turn is planned here; it ends later, or the process does first.
    Begin { conversation: u64 },
    /// It ends, if one is open.
    End { conversation: u64, arrives: bool },
    /// The process dies, and comes back.
    Restart,
    /// The next month begins.
    Month,
}

fn step() -> impl Strategy<Value = Step> {
    let conversation = 1_u64..7;
    prop_oneof![
        4 => (conversation.clone(), any::<bool>())
            .prop_map(|(conversation, arrives)| Step::Reply { conversation, arrives }),
        2 => conversation.clone().prop_map(|conversation| Step::Begin { conversation }),
        2 => (conversation, any::<bool>()).prop_map(|(conversation, arrives)| Step::End { conversation, arrives }),
        1 => Just(Step::Restart),
        1 => Just(Step::Month),
    ]
}

const LIMIT: u64 = 4;

/// Inbox and account, used as the relay uses them.
struct House {
    dir: TempDir,
    clock: Clock,
    config: Config,
    inbox: Option<Inbox>,
    account: Arc<Account>,
    turns: u128,
    /// Turns that are open, by conversation.
    open: BTreeMap<u64, Uuid>,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[[tenant]]\nid = \"acme\"\nplans = [\"chatwoot.pro\"]\noverrides = {{ conversations_per_month = {LIMIT} }}"
        );
        let config = crate::support::config(&text, dir.path());
        let clock = Clock::manual(NOW_MS);
        let tenant = &config.tenants[0];
        let account = Account::new(Arc::clone(&tenant.id), &tenant.policy, clock.clone(), &Arc::default());
        let mut house = Self { dir, clock, config, inbox: None, account, turns: 0, open: BTreeMap::new() };
        house.restart().await;
        house
    }

    async fn restart(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.close().await.unwrap();
        }
        let metrics = Arc::new(Metrics::new().unwrap());
        let inbox = Inbox::open(self.dir.path(), &self.config.inbox, self.clock.clone(), metrics).unwrap();
        let journal = Arc::new(Journal::default());
        for CountedIn { tenant, period_ms, conversations } in inbox.counted_before() {
            let counted = Counted { period_ms: *period_ms, conversations: *conversations };
            journal.remember_counted(Arc::clone(tenant), counted);
        }
        let tenant = &self.config.tenants[0];
        self.account = Account::new(Arc::clone(&tenant.id), &tenant.policy, self.clock.clone(), &journal);
        self.inbox = Some(inbox);
    }

    fn inbox(&self) -> &Inbox {
        self.inbox.as_ref().unwrap()
    }

    fn key(conversation_id: u64) -> ConversationKey {
        ConversationKey { tenant: "acme".into(), channel: "main".into(), account_id: 1, conversation_id }
    }

    async fn row(&self, conversation: u64) -> ConversationRow {
        let due = self.inbox().due(ConversationRow::FIRST, self.clock.now_ms(), 100).await.unwrap();
        due.into_iter().find(|work| work.key == Self::key(conversation)).unwrap().row
    }

    /// A message, and the plan to answer it. False: the plan includes no answer to it.
    async fn begin(&mut self, conversation: u64) -> bool {
        let since_ms = self.account.counts_since_ms();
        let counted = self.inbox().is_counted(Self::key(conversation), since_ms).await.unwrap();
        let place: Option<ConversationPlace> = match counted {
            true => None,
            false => match self.account.new_conversation() {
                Ok(place) => Some(place),
                Err(_) => return false,
            },
        };
        self.turns += 1;
        let turn = Uuid::from_u128(self.turns);
        let now_ms = self.clock.now_ms();
        let message = Some(u64::try_from(self.turns).unwrap());
        let body = Bytes::from_static(b"{}");
        let said =
            Delivery::new(Self::key(conversation), "message_created", message, Sameness::Message, None, body, now_ms);
        self.inbox().accept(said).await.unwrap();
        let plan = Plan {
            conversation: self.row(conversation).await,
            turn,
            upto_seq: i64::MAX,
            known_message_id: 0,
            handoff: None,
            agent: Some("default".to_owned()),
            tokens: TurnTokens::default(),
            counts_in_ms: place.as_ref().map(|place| place.period_ms),
            send_now: true,
            posts: vec![(PostKind::Reply, "Yes.".to_owned())],
            now_ms,
        };
        self.inbox().plan(plan).await.unwrap();
        if let Some(place) = place {
            place.keep();
        }
        self.open.insert(conversation, turn);
        true
    }

    async fn end(&mut self, conversation: u64, arrives: bool) {
        let Some(turn) = self.open.remove(&conversation) else { return };
        if arrives {
            self.inbox().posted(turn, 0, 1_000 + u64::try_from(turn.as_u128()).unwrap(), None).await.unwrap();
        }
        let row = self.row(conversation).await;
        let loaded = self.inbox().load(row, 0, 100).await.unwrap().unwrap();
        let deliveries = loaded.deliveries.iter().map(|stored| (stored.seq, "replied")).collect();
        let finish = Finish {
            conversation: row,
            deliveries,
            outcome: "replied",
            turn: Some(turn),
            lines: Vec::new(),
            state: ConversationState::default(),
            now_ms: self.clock.now_ms(),
        };
        if let Some(period_ms) = self.inbox().finish(finish).await.unwrap() {
            self.account.conversation_uncounted(period_ms);
        }
    }
}

/// The same, without disk or process: which conversations count in this month.
#[derive(Default)]
struct Model {
    counted: BTreeSet<u64>,
    /// Open turns that counted theirs in the month that runs.
    uncertain: BTreeSet<u64>,
}

async fn plays_out(steps: Vec<Step>) {
    let (mut house, mut model) = (House::new().await, Model::default());
    for step in steps {
        match step {
            Step::Reply { conversation, .. } | Step::Begin { conversation } => {
                if house.open.contains_key(&conversation) {
                    continue;
                }
                let known = model.counted.contains(&conversation);
                let room = known || u64::try_from(model.counted.len()).unwrap() < LIMIT;
                assert_eq!(house.begin(conversation).await, room, "{step:?}");
                if room && !known {
                    model.counted.insert(conversation);
                    model.uncertain.insert(conversation);
                }
                if let Step::Reply { arrives, .. } = step {
                    house.end(conversation, arrives).await;
                    settle(&mut model, conversation, arrives);
                }
            }
            Step::End { conversation, arrives } => {
                if house.open.contains_key(&conversation) {
                    house.end(conversation, arrives).await;
                    settle(&mut model, conversation, arrives);
                }
            }
            Step::Restart => house.restart().await,
            Step::Month => {
                house.clock.advance(MONTH);
                model = Model::default();
            }
        }
        let (conversations, _) = told(&house.account);
        assert_eq!(conversations, u64::try_from(model.counted.len()).unwrap(), "after {step:?}");
        assert!(conversations <= LIMIT);
    }
}

fn settle(model: &mut Model, conversation: u64, arrives: bool) {
    if model.uncertain.remove(&conversation) && !arrives {
        model.counted.remove(&conversation);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However replies, failures, restarts and months follow each other: a conversation counts once in a month in
    /// which it was answered, never without an answer, and never beyond the plan.
    #[test]
    fn every_conversation_counts_once_a_month(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(plays_out(steps));
    }
}
