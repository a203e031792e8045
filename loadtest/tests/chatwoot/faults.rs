//! Faults: what was done, what the caller saw of it, and what the webhooks did.

use std::time::Duration;

use relais_loadtest::fakes::chatwoot::{
    CallEffect, CallFault, DeliveryEffect, DeliveryFault, Endpoint, Faults, Outcome, Status,
};
use serde_json::{Value, json};

use crate::harness::{BOT, DEADLINE, How, on, path, quick, settled, start, try_call};

fn calls(effect: CallEffect) -> Faults {
    Faults { calls: vec![CallFault::next(Endpoint::CreateMessage, 1, effect)], ..Faults::default() }
}

fn deliveries(effect: DeliveryEffect) -> Faults {
    Faults { deliveries: vec![DeliveryFault::next("message_created", 1, effect)], ..Faults::default() }
}

#[tokio::test]
async fn each_effect_of_a_call() {
    let check = async |effect, answered: Option<u16>, stored: usize| {
        let (fake, _receiver) = start(quick()).await;
        let key = fake.new_conversation().unwrap();
        fake.set_faults(calls(effect));
        let body = json!({ "content": "Hi" });
        let first = try_call(&fake, BOT, "POST", &path(key, "messages"), &body).await;
        assert_eq!(first.map(|first| first.status), answered, "{effect:?}");
        assert_eq!(fake.seen_by_customer(key).len(), stored, "{effect:?}");
        assert_eq!(fake.calls().last().unwrap().status, answered);
        // Used up: the next one is as always.
        assert_eq!(on(&fake, BOT, key, "POST", "messages", body).await.status, 200);
        assert_eq!(fake.seen_by_customer(key).len(), stored + 1);
    };
    check(CallEffect::Status(500), Some(500), 0).await;
    check(CallEffect::Status(422), Some(422), 0).await;
    check(CallEffect::DoneThenStatus(500), Some(500), 1).await;
    check(CallEffect::Ambiguous, None, 1).await;
    check(CallEffect::Hangup, None, 0).await;
    check(CallEffect::DelayMs(5), Some(200), 1).await;
    check(CallEffect::DoneThenDelayMs(5), Some(200), 1).await;
}

#[tokio::test]
async fn a_late_call_is_carried_out_though_the_caller_has_left() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(calls(CallEffect::DelayMs(100)));
    let (target, body) = (path(key, "messages"), json!({ "content": "Hi" }));
    let impatient = try_call(&fake, BOT, "POST", &target, &body);
    assert!(tokio::time::timeout(Duration::from_millis(20), impatient).await.is_err());
    assert!(fake.seen_by_customer(key).is_empty());
    fake.wait_until(DEADLINE, |fake| fake.seen_by_customer(key).len() == 1).await.unwrap();
}

#[tokio::test]
async fn a_throttle_by_fault_is_plain_text() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(calls(CallEffect::Status(429)));
    let answer = on(&fake, BOT, key, "POST", "messages", json!({ "content": "Hi" })).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (429, "text/plain"));
}

#[tokio::test]
async fn a_duplicate_has_the_same_delivery_id() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(deliveries(DeliveryEffect::Duplicate));
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].delivery_id(), got[1].delivery_id());
    assert_eq!(got[0].raw, got[1].raw);
    assert_eq!(fake.deliveries().iter().filter(|delivery| delivery.duplicate).count(), 1);
}

#[tokio::test]
async fn reordering_lets_the_next_one_overtake() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(deliveries(DeliveryEffect::Reorder));
    fake.customer(key).says("first").unwrap();
    fake.customer(key).says("second").unwrap();
    settled(&fake).await;
    let order: Vec<Value> = receiver.got().into_iter().map(|got| got.body["content"].clone()).collect();
    assert_eq!(order, ["second", "first"]);
}

#[tokio::test]
async fn what_is_held_back_goes_out_though_nothing_follows() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(deliveries(DeliveryEffect::Reorder));
    fake.customer(key).says("alone").unwrap();
    settled(&fake).await;
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test]
async fn a_dropped_delivery_is_lost_without_a_word() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.set_faults(deliveries(DeliveryEffect::Drop));
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    assert!(receiver.got().is_empty());
    assert_eq!(fake.deliveries()[0].outcome, Outcome::Lost);
    assert_eq!(fake.status(key), Some(Status::Pending));
}

#[tokio::test]
async fn too_many_waiting_are_lost_and_recorded_so() {
    let mut settings = quick();
    settings.bounds.deliveries_waiting_max = 1;
    let (fake, receiver) = start(settings).await;
    receiver.answer_next(&[How::Never]);
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("1").unwrap();
    fake.customer(key).says("2").unwrap();
    let outcomes: Vec<_> = fake.deliveries().iter().map(|delivery| delivery.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pending, Outcome::Lost]);
}

#[tokio::test]
async fn it_can_go_down_and_come_back_with_everything_it_knew() {
    let (mut fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.take_down().await;
    let body = json!({ "content": "Hi" });
    assert!(try_call(&fake, BOT, "POST", &path(key, "messages"), &body).await.is_none());
    fake.bring_up().await.unwrap();
    assert_eq!(on(&fake, BOT, key, "POST", "messages", body).await.status, 200);
    assert_eq!(fake.seen_by_customer(key).len(), 1);
}

#[tokio::test]
async fn one_seed_gives_one_run() {
    let run = async |seed| {
        let (fake, receiver) = start(relais_loadtest::fakes::chatwoot::Settings { seed, ..quick() }).await;
        fake.set_faults(Faults {
            calls: vec![CallFault::share(Endpoint::CreateMessage, 300, CallEffect::Ambiguous)],
            deliveries: vec![DeliveryFault::share(300, DeliveryEffect::Drop)],
        });
        let key = fake.new_conversation().unwrap();
        let mut answered = Vec::new();
        for _ in 0..30 {
            let sent = try_call(&fake, BOT, "POST", &path(key, "messages"), &json!({ "content": "Hi" })).await;
            answered.push(sent.is_some());
        }
        settled(&fake).await;
        let mut ids: Vec<String> = receiver.got().iter().map(|got| got.delivery_id().to_owned()).collect();
        ids.sort();
        (answered, ids)
    };
    let (first, again, other) = (run(5).await, run(5).await, run(6).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(first.0.contains(&false) && first.0.contains(&true));
}
