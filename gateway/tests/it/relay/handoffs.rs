//! Handoffs: each reason end to end, whom they go to, business hours, and a crash at every step.

use relais_loadtest::fakes::llm::ToolCall;

use super::*;

const PLANS: &str = r#"["app.business", "api.pro", "chatwoot.pro"]"#;

/// The day it is in Paris so many days from now, in English and French.
fn weekday_in(days: i64) -> (&'static str, &'static str) {
    const NAMES: [(&str, &str); 7] = [
        ("Monday", "lundi"),
        ("Tuesday", "mardi"),
        ("Wednesday", "mercredi"),
        ("Thursday", "jeudi"),
        ("Friday", "vendredi"),
        ("Saturday", "samedi"),
        ("Sunday", "dimanche"),
    ];
    let now = jiff::Timestamp::from_millisecond(Clock::system().now_ms()).unwrap();
    let day = now.in_tz("Europe/Paris").unwrap().checked_add(jiff::Span::new().days(days)).unwrap();
    NAMES[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap()]
}

fn team_of(world: &World, key: Key) -> Option<u64> {
    world.chatwoot.conversation(key).unwrap().team_id
}

fn assignee_of(world: &World, key: Key) -> Option<Assignee> {
    world.chatwoot.conversation(key).unwrap().assignee
}

impl World {
    /// A world with these rules of handoff, a team in it and a human who is not there to be chosen.
    async fn with_rules(rules: impl FnOnce(u64, u64) -> String) -> (Self, u64, u64) {
        let (mut team_id, mut human_id) = (0, 0);
        let written = |chatwoot: &FakeChatwoot, llm: &FakeLlm| {
            human_id = chatwoot.world().human_id;
            team_id = chatwoot.add_team("support", &[human_id]);
            chatwoot.set_human_online(human_id, false);
            toml(chatwoot, llm, PLANS, "", &format!("handoff = {{ {} }}", rules(team_id, human_id)))
        };
        let world = Self::start_changed(Settings::default(), written).await;
        (world, team_id, human_id)
    }

    async fn without_the_feature(&mut self) {
        self.crash().await;
        self.handoff = false;
        self.up();
    }

    pub(super) async fn until_status(&self, key: Key, status: Status) {
        self.until(&format!("{status:?}"), |world| world.chatwoot.status(key) == Some(status)).await;
    }

    fn handoffs(&self, reason: &str) -> u64 {
        self.metrics.relay.handoffs.with_label_values(&[reason]).get()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metrics.relay.handoffs_refused.with_label_values(&[reason]).get()
    }

    /// The model hands over, in these words.
    fn model_hands_over(&self, reason: &str) {
        let arguments = serde_json::json!({ "reason": reason, "summary": "Wants a refund." }).to_string();
        let call = ToolCall { name: "handoff_to_human".to_owned(), arguments };
        self.llm.set(|behaviour| behaviour.tool_call = Some(call));
    }

    fn labelled(&self, key: Key, label: &str) -> bool {
        self.chatwoot.conversation(key).unwrap().labels.iter().any(|known| known == label)
    }

    /// Calls to Chatwoot that change something, in order, by the end of their path.
    fn writes(&self, key: Key) -> Vec<String> {
        let of = format!("/conversations/{}/", key.conversation_id);
        let calls = self.chatwoot.calls().into_iter().filter(|call| call.method == "POST");
        let ends = calls.filter_map(|call| call.path.split_once(&of).map(|(_, end)| end.to_owned()));
        ends.filter(|end| end != "toggle_typing_status").collect()
    }
}

/// The operator puts a label on a new conversation before the customer writes.
async fn labelled(world: &World, label: &str) -> Key {
    let key = world.chatwoot.new_conversation().unwrap();
    world.chatwoot.act(key, Act::SetLabels { labels: vec![label.to_owned()] }).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_language_is_handed_over_in_its_own_words() {
    let cases =
        [("I want to talk to a human", "I am handing this over"), ("Je veux parler à un humain", "Je passe la main")];
    for (text, expected) in cases {
        let world = World::start().await;
        let key = world.customer_says(text).await;
        world.until_status(key, Status::Open).await;
        world.settled().await;
        assert!(world.replies(key)[0].starts_with(expected), "{:?}", world.replies(key));
        assert!(world.notes(key)[0].contains(text), "{:?}", world.notes(key));
        assert_eq!(world.handoffs("asked_for"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_gives_as_its_reason_is_told_apart() {
    for (said, reason, noted) in [
        ("unsure", "unsure", "does not know"),
        ("out_of_scope", "out_of_scope", "not there for"),
        ("Out of scope.", "out_of_scope", "not there for"),
        ("a refund over the limit", "agent_decided", "Wants a refund."),
    ] {
        let world = World::start().await;
        world.model_hands_over(said);
        let key = world.customer_says("I want my money back").await;
        world.until_status(key, Status::Open).await;
        world.settled().await;
        assert_eq!(world.handoffs(reason), 1, "{said}");
        assert!(world.notes(key)[0].contains(noted), "{said}: {:?}", world.notes(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_does_not_know_asks_again_and_hands_over_after_so_many_times() {
    for (question, asks) in [("Can you tell me that?", "in other words"), ("Pouvez-vous me le dire ?", "autrement")] {
        let (mut world, ..) = World::with_rules(|_, _| "unsure_max = 3".to_owned()).await;
        world.model_hands_over("unsure");
        let key = world.customer_says(question).await;
        for times in 1..=2 {
            world.until_replied(key, times).await;
            world.settled().await;
            assert!(world.replies(key)[times - 1].contains(asks), "{:?}", world.replies(key));
            assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
            // What was counted is in the transcript.
            world.crash().await;
            world.up();
            world.chatwoot.customer(key).says(question).unwrap();
        }
        world.until_status(key, Status::Open).await;
        world.settled().await;
        assert_eq!((world.handoffs("failed_repeatedly"), world.handoffs("unsure")), (1, 0));
        assert!(world.notes(key)[0].contains("several times in a row"), "{:?}", world.notes(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_between_begins_the_count_anew() {
    let (world, ..) = World::with_rules(|_, _| "unsure_max = 2".to_owned()).await;
    let key = world.chatwoot.new_conversation().unwrap();
    for (times, knows) in [(1, false), (2, true), (3, false)] {
        world.llm.set(|behaviour| behaviour.tool_call = None);
        if !knows {
            world.model_hands_over("unsure");
        }
        world.chatwoot.customer(key).says("Where is my parcel?").unwrap();
        world.until_replied(key, times).await;
        world.settled().await;
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending), "{times}");
    }
    assert_eq!(world.replies(key)[1], ANSWER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vip_is_a_human_s_at_once_or_after_one_answer() {
    for (when, answered) in [("at_once", false), ("after_answer", true)] {
        let rules = |team, _| format!("vip = {{ labels = [\"vip\"], when = \"{when}\", team_id = {team} }}");
        let (world, team_id, _) = World::with_rules(rules).await;
        let key = labelled(&world, "vip").await;
        world.chatwoot.customer(key).says("Where is my parcel?").unwrap();
        world.until_status(key, Status::Open).await;
        world.settled().await;
        let replies = world.replies(key);
        assert_eq!((replies.len(), replies[0] == ANSWER), (1 + usize::from(answered), answered), "{when}: {replies:?}");
        assert_eq!((world.handoffs("vip"), world.llm.totals().started), (1, u64::from(answered)), "{when}");
        assert_eq!(team_of(&world, key), Some(team_id), "{when}");
        assert_eq!(world.notes(key)[0].contains(ANSWER), answered, "{when}: {:?}", world.notes(key));

        // Given back by a human it is the agent's, until it is resolved.
        world.chatwoot.set_pending(key).unwrap();
        world.settled().await;
        world.chatwoot.customer(key).says("And the other one?").unwrap();
        world.until_replied(key, replies.len() + 1).await;
        world.settled().await;
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending), "{when}");
        world.chatwoot.resolve(key).unwrap();
        world.settled().await;
        world.chatwoot.customer(key).says("Hello again, where is it?").unwrap();
        world.until_status(key, Status::Open).await;

        let other = world.customer_says("Where is my parcel?").await;
        world.until_replied(other, 1).await;
        assert_eq!(world.chatwoot.status(other), Some(Status::Pending), "{when}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_of_a_handoff_is_there_and_in_its_order() {
    let rules = |team, human| {
        format!("team_id = {team}, assignee_id = {human}, priority = \"high\", labels = [\"needs-human\", \"late\"]")
    };
    let (world, team_id, human_id) = World::with_rules(rules).await;
    let key = labelled(&world, "late").await;
    world.chatwoot.customer(key).says("I want to talk to a human").unwrap();
    world.until_status(key, Status::Open).await;
    world.settled().await;
    let conversation = world.chatwoot.conversation(key).unwrap();
    assert_eq!((conversation.team_id, conversation.assignee), (Some(team_id), Some(Assignee::Human(human_id))));
    assert_eq!(
        (&conversation.labels[..], conversation.priority.as_deref()),
        (&["late".into(), "needs-human".into()][..], Some("high"))
    );
    let order = ["messages", "labels", "toggle_priority", "assignments", "messages", "assignments", "toggle_status"];
    assert_eq!(world.writes(key), order);
    let note = &world.notes(key)[0];
    for told in ["Carla Customer", "carla@example.com", "I want to talk to a human", "asked for a human"] {
        assert!(note.contains(told), "{told}: {note}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_priority_stays() {
    let (world, ..) = World::with_rules(|_, _| "priority = \"medium\"".to_owned()).await;
    let key = world.chatwoot.new_conversation().unwrap();
    world.chatwoot.act(key, Act::SetPriority { priority: Some("urgent".to_owned()) }).unwrap();
    world.chatwoot.customer(key).says("I want to talk to a human").unwrap();
    world.until_status(key, Status::Open).await;
    assert_eq!(world.chatwoot.conversation(key).unwrap().priority.as_deref(), Some("urgent"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_chatwoot_does_not_know_is_remarked_and_a_human_gets_it_all_the_same() {
    for (rules, named) in [("team_id = 9999", "team 9999"), ("assignee_id = 9998", "human 9998")] {
        let (world, ..) = World::with_rules(|_, _| rules.to_owned()).await;
        let key = world.customer_says("I want to talk to a human").await;
        world.until_status(key, Status::Open).await;
        world.settled().await;
        let notes = world.notes(key);
        assert!(notes.len() == 2 && notes[1].contains(named), "{notes:?}");
        assert_eq!((team_of(&world, key), assignee_of(&world, key), world.replies(key).len()), (None, None, 1));
    }
    let (world, ..) = World::with_rules(|team, human| format!("team_id = {team}, assignee_id = {human}")).await;
    let key = world.customer_says("I want to talk to a human").await;
    world.until_status(key, Status::Open).await;
    world.settled().await;
    assert_eq!(world.notes(key).len(), 1, "{:?}", world.notes(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_hours_the_customer_reads_when_humans_are_back() {
    let in_three_days = weekday_in(3);
    let closed = format!("hours = \"{} 09:00-18:00\", timezone = \"Europe/Paris\"", &in_three_days.0[..3]);
    let open = "hours = \"Mon-Sun 00:00-24:00\", timezone = \"Europe/Paris\"".to_owned();
    let (english, french) =
        (format!("back on {} at 09:00", in_three_days.0), format!("retour {} à 9h", in_three_days.1));
    let cases = [
        (closed.clone(), "I want to talk to a human", english.as_str()),
        (closed.clone(), "Je veux parler à un humain", french.as_str()),
        (format!("{closed}, out_of_hours = \"Back {{when}}.\""), "I want to talk to a human", "Back on "),
        (open.clone(), "I want to talk to a human", "I am handing this over to a colleague"),
    ];
    for (rules, text, expected) in cases {
        let (world, team_id, _) = World::with_rules(|team, _| format!("team_id = {team}, {rules}")).await;
        let key = world.customer_says(text).await;
        world.until_status(key, Status::Open).await;
        world.settled().await;
        assert!(world.replies(key)[0].contains(expected), "{expected}: {:?}", world.replies(key));
        assert_eq!((world.handoffs("asked_for"), team_of(&world, key)), (1, Some(team_id)), "handed over all the same");
        assert_eq!(world.notes(key)[0].contains("Outside of your hours"), rules != open, "{:?}", world.notes(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_handoff_repeats_and_forgets_nothing() {
    let steps = [
        (Endpoint::CreateMessage, CallEffect::DelayMs(60_000)),
        (Endpoint::CreateMessage, CallEffect::DoneThenDelayMs(60_000)),
        (Endpoint::Labels, CallEffect::DelayMs(60_000)),
        (Endpoint::Assign, CallEffect::DoneThenDelayMs(60_000)),
        (Endpoint::ToggleStatus, CallEffect::DelayMs(60_000)),
        (Endpoint::ToggleStatus, CallEffect::DoneThenDelayMs(60_000)),
    ];
    for (endpoint, effect) in steps {
        let written = |chatwoot: &FakeChatwoot, llm: &FakeLlm| {
            // Online, so that giving it to the team assigns a human before the customer has read anything.
            let human_id = chatwoot.world().human_id;
            let team_id = chatwoot.add_team("support", &[human_id]);
            chatwoot.set_human_online(human_id, true);
            let rules = format!(
                "handoff = {{ team_id = {team_id}, labels = [\"needs-human\"] }}\nuser_token = \"fake-user-token\""
            );
            toml(chatwoot, llm, PLANS, "", &rules)
        };
        let mut world = World::start_changed(Settings::default(), written).await;
        world.calls_fail(endpoint, 1, effect);
        let key = world.customer_says("I want to talk to a human").await;
        world.until("the step", |world| world.chatwoot.faults().calls.iter().all(|fault| fault.times == Some(0))).await;
        world.crash().await;
        world.up();
        world.until_status(key, Status::Open).await;
        world.settled().await;
        let what = format!("{endpoint:?}, {effect:?}");
        assert_eq!((world.notes(key).len(), world.replies(key).len()), (1, 1), "{what}: {:?}", world.notes(key));
        assert!(world.labelled(key, "needs-human") && team_of(&world, key).is_some(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_without_the_feature_tells_the_customer_and_the_operator() {
    for (text, notice) in
        [("I want to talk to a human", "I cannot hand"), ("Je veux parler à un humain", "Je ne peux pas")]
    {
        let mut world = World::start().await;
        world.without_the_feature().await;
        let key = world.customer_says(text).await;
        world.until_replied(key, 1).await;
        world.settled().await;
        assert!(world.replies(key)[0].starts_with(notice), "{:?}", world.replies(key));
        assert!(world.labelled(key, "human-requested"));
        assert_eq!((world.refused("asked_for"), world.handoffs("asked_for")), (1, 0));
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_feature_and_without_a_notice_the_agent_goes_on_and_the_operator_is_told() {
    let (mut world, ..) = World::with_rules(|_, _| "notice = \"\", vip = { labels = [\"vip\"] }".to_owned()).await;
    world.without_the_feature().await;
    let key = labelled(&world, "vip").await;
    world.chatwoot.customer(key).says("I want to talk to a human").unwrap();
    world.until_replied(key, 1).await;
    world.settled().await;
    assert_eq!(world.replies(key), [ANSWER]);
    assert!(world.labelled(key, "human-requested") && world.labelled(key, "vip"));
    assert_eq!((world.refused("asked_for"), world.refused("vip")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_safety_net_opens_on_every_plan() {
    let (mut world, ..) = World::with_rules(|_, _| String::new()).await;
    world.without_the_feature().await;
    for said in ["unsure", "out_of_scope"] {
        world.model_hands_over(said);
        let key = world.customer_says("Where is my parcel?").await;
        world.until_status(key, Status::Open).await;
        world.settled().await;
        assert_eq!(world.handoffs(said), 1);
    }
    let key = world.chatwoot.new_conversation().unwrap();
    let file =
        Act::CustomerSendsFile { file_type: "image".to_owned(), url: "https://chat.example.com/a.png".to_owned() };
    world.chatwoot.act(key, file).unwrap();
    world.until_status(key, Status::Open).await;
    world.settled().await;
    assert_eq!(world.handoffs("unreadable"), 1);
}
