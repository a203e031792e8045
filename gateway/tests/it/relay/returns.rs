//! Takeovers and what ends them, answers to forms and lists, and "is typing".

use serde_json::json;

use super::*;

impl World {
    async fn answered_and_taken_over(&self) -> Key {
        let key = self.customer_says("Hello, where is my parcel?").await;
        self.until_replied(key, 1).await;
        self.settled().await;
        self.chatwoot.human_takes_over(key).unwrap();
        self.settled().await;
        key
    }

    /// What was told of typing, oldest first.
    fn typing(&self, key: Key) -> Vec<bool> {
        self.chatwoot.conversation(key).unwrap().typing
    }

    async fn until_typing_ended(&self, key: Key) {
        self.until("typing taken away", |world| world.typing(key).last() == Some(&false)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolved_conversation_is_the_agent_s_when_the_customer_writes_though_a_human_is_still_assigned() {
    let mut world = World::start().await;
    let key = world.answered_and_taken_over().await;
    for again in 1..=2 {
        world.chatwoot.resolve(key).unwrap();
        world.settled().await;
        world.crash().await;
        world.up();
        world.chatwoot.customer(key).says("One more thing").unwrap();
        world.until_replied(key, 1 + again).await;
        world.settled().await;
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
        assert!(matches!(world.chatwoot.conversation(key).unwrap().assignee, Some(Assignee::Human(_))));
        world.chatwoot.act(key, Act::SetOpen).unwrap();
        world.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_human_left_unanswered_is_answered_when_it_is_given_back() {
    let mut world = World::start().await;
    let key = world.answered_and_taken_over().await;
    world.chatwoot.customer(key).says("And when does it come?").unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.turns("not_ours")), (1, 1));
    world.crash().await;
    world.up();
    world.chatwoot.set_pending(key).unwrap();
    world.until_replied(key, 2).await;
    world.settled().await;
    assert!(world.llm.calls().pop().unwrap().body.contains("And when does it come?"));
    assert_eq!(world.chatwoot.status(key), Some(Status::Pending));

    // What was answered is not answered again, by whomever it was.
    world.chatwoot.human_takes_over(key).unwrap();
    world.settled().await;
    world.chatwoot.set_pending(key).unwrap();
    world.settled().await;
    world.chatwoot.human_takes_over(key).unwrap();
    world.chatwoot.customer(key).says("Are you sure?").unwrap();
    world.chatwoot.human_replies(key, "I am.").unwrap();
    world.settled().await;
    world.chatwoot.set_pending(key).unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.llm.totals().started), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_a_human_that_a_human_gave_back_is_the_agent_s_to_answer() {
    let world = World::start().await;
    let key = world.customer_says("Je veux parler à un humain").await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    world.chatwoot.customer(key).says("Il y a quelqu'un ?").unwrap();
    world.settled().await;
    world.chatwoot.set_pending(key).unwrap();
    world.until_replied(key, 2).await;
    world.settled().await;
    assert_eq!((world.replies(key)[1].as_str(), world.chatwoot.status(key)), (ANSWER, Some(Status::Pending)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_lasts_until_the_conversation_is_given_back() {
    let world = World::start().await;
    let key = world.customer_says("Hello, where is my parcel?").await;
    world.until_replied(key, 1).await;
    world.settled().await;
    // A human is assigned, or speaks, while it is pending: it is opened for them.
    world.chatwoot.act(key, Act::AssignHuman { human_id: Some(world.chatwoot.world().human_id) }).unwrap();
    world.settled().await;
    world.chatwoot.customer(key).says("Hello?").unwrap();
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    // Snoozing and assigning somebody else give nothing back.
    world.chatwoot.act(key, Act::AssignHuman { human_id: None }).unwrap();
    world.settled().await;
    world.chatwoot.act(key, Act::Snooze { until_s: 4_000_000_000 }).unwrap();
    world.settled().await;
    world.chatwoot.customer(key).says("Is anything happening?").unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.chatwoot.status(key)), (1, Some(Status::Open)));
    world.chatwoot.set_pending(key).unwrap();
    world.until_replied(key, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_picked_filled_in_or_given_is_what_the_customer_says() {
    let cases = [
        (json!([{ "title": "Billing", "value": "b1" }]), "Billing"),
        (json!([{ "value": "b1" }]), "b1"),
        (
            json!([{ "name": "order", "value": "A-1001" }, { "name": "reason", "value": "late" }]),
            "order: A-1001, reason: late",
        ),
    ];
    for (submitted, expected) in cases {
        let world = World::start().await;
        let key = world.customer_says("Hello").await;
        world.until_replied(key, 1).await;
        world.settled().await;
        let ours = world.chatwoot.seen_by_customer(key).pop().unwrap().message_id;
        world.chatwoot.customer(key).answers(ours, submitted).unwrap();
        world.until_replied(key, 2).await;
        world.settled().await;
        let asked = world.llm.calls().pop().unwrap().body;
        assert!(asked.contains(expected), "{expected}: {asked}");
        // A tick or a read mark of that message tells the same again, and is no answer.
        world.chatwoot.act(key, Act::MarkDelivered { message_id: ours }).unwrap();
        world.settled().await;
        assert_eq!((world.replies(key).len(), world.llm.totals().started), (2, 2), "{expected}");
    }
    let email = "carla@example.org".to_owned();
    let world = World::start().await;
    let key = world.customer_says("Hello").await;
    world.until_replied(key, 1).await;
    world.settled().await;
    let ours = world.chatwoot.seen_by_customer(key).pop().unwrap().message_id;
    world.chatwoot.act(key, Act::CustomerGivesEmail { message_id: ours, email: email.clone() }).unwrap();
    world.until_replied(key, 2).await;
    let asked = world.llm.calls().pop().unwrap().body;
    assert!(asked.contains("email: carla@example.org"), "{asked}");

    // What Chatwoot asks by itself is not the agent's to answer.
    let key = world.chatwoot.new_conversation().unwrap();
    let template = world.chatwoot.act(key, Act::TemplateSays { text: "Your address?".to_owned() }).unwrap().unwrap();
    world.chatwoot.act(key, Act::CustomerGivesEmail { message_id: template, email }).unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.llm.totals().started), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_shown_renewed_and_always_taken_away() {
    let world = World::start_with("typing_every_ms = 40", "", Settings::default()).await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 60_000);
    let key = world.customer_says("Where is my parcel?").await;
    let shown = |world: &World| world.typing(key).iter().filter(|on| **on).count() >= 3;
    world.until("typing renewed", shown).await;
    world.chatwoot.human_takes_over(key).unwrap();
    world.until_typing_ended(key).await;
    world.settled().await;

    world.llm.set(|behaviour| behaviour.first_byte_ms = 0);
    let key = world.customer_says("Where is my parcel?").await;
    world.until_replied(key, 1).await;
    world.until_typing_ended(key).await;

    // Nothing is shown where nothing is thought about.
    let key = world.customer_says("I want to talk to a human").await;
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!(world.typing(key), Vec::<bool>::new());
}
