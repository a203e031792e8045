//! Delivery: signing, retries, and what a failure does.

use std::collections::HashSet;

use relais_loadtest::fakes::chatwoot::{FakeChatwoot, MessageType, Outcome, Settings, Status, sign};
use serde_json::json;

use crate::harness::{How, Receiver, USER, call, quick, settled, start};

#[tokio::test]
async fn a_delivery_is_signed_over_its_raw_bytes() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("is 1 < 2 & 3 > 2?").unwrap();
    settled(&fake).await;
    let got = &receiver.got()[0];
    let timestamp = got.headers["x-chatwoot-timestamp"].to_str().unwrap();
    assert_eq!(got.headers["x-chatwoot-signature"], sign("fake-bot-secret", timestamp, &got.raw));
    let raw = std::str::from_utf8(&got.raw).unwrap();
    assert!(raw.contains(r"is 1 \u003c 2 \u0026 3 \u003e 2?"), "escaped as Rails does");
    assert!(!raw.contains(['<', '>', '&']));
    assert_eq!(got.body["content"], "is 1 < 2 & 3 > 2?");
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["accept"], "application/json");
    assert!(!got.headers.contains_key("user-agent"));
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let (fake, receiver) = start(quick()).await;
    fake.set_bot_secret(None);
    fake.customer(fake.new_conversation().unwrap()).says("Hi").unwrap();
    settled(&fake).await;
    let headers = &receiver.got()[0].headers;
    assert!(headers.contains_key("x-chatwoot-delivery"));
    assert!(!headers.contains_key("x-chatwoot-signature") && !headers.contains_key("x-chatwoot-timestamp"));
}

#[tokio::test]
async fn only_429_and_500_are_tried_again_and_giving_up_opens_the_conversation() {
    let check = async |answers: &[How], tries: usize, outcome, status| {
        let (fake, receiver) = start(Settings { webhook_timeout_ms: 200, ..quick() }).await;
        receiver.answer_next(answers);
        let key = fake.new_conversation().unwrap();
        let message_id = fake.customer(key).says("Hi").unwrap();
        settled(&fake).await;
        let delivery = fake.deliveries().into_iter().find(|delivery| delivery.message_id == Some(message_id)).unwrap();
        assert_eq!((delivery.attempts.len(), delivery.outcome), (tries, outcome), "answered {answers:?}");
        assert_eq!(fake.status(key), Some(status), "answered {answers:?}");
        let of_message: Vec<_> = receiver.got().into_iter().filter(|got| got.event() == "message_created").collect();
        assert_eq!(of_message.len(), tries);
        let ids: HashSet<_> = of_message.iter().map(|got| got.delivery_id().to_owned()).collect();
        assert_eq!(ids.len(), 1, "one id over all tries");
        let told = fake.conversation(key).unwrap().messages.iter().any(|it| it.message_type == MessageType::Activity);
        assert_eq!(told, status == Status::Open, "an activity line tells the humans");
    };
    let (ok, fail) = (Outcome::Accepted, Outcome::Failed);
    let status = |code| How::Status(code);
    check(&[status(200)], 1, ok, Status::Pending).await;
    check(&[status(204)], 1, ok, Status::Pending).await;
    check(&[status(500), status(429), status(200)], 3, ok, Status::Pending).await;
    check(&[status(500), status(500), status(500)], 3, fail, Status::Open).await;
    for code in [301, 400, 401, 404, 413, 502, 503, 504] {
        check(&[status(code)], 1, fail, Status::Open).await;
    }
    check(&[status(500), status(503)], 2, fail, Status::Open).await;
    check(&[How::Hangup], 1, fail, Status::Open).await;
    check(&[How::Never], 1, fail, Status::Open).await;
}

#[tokio::test]
async fn a_refused_connection_opens_the_conversation() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    fake.set_outgoing_url(&receiver.url());
    drop(receiver);
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    assert_eq!(fake.status(key), Some(Status::Open));
    assert!(fake.deliveries()[0].attempts[0].error.is_some());
}

#[tokio::test]
async fn a_failed_echo_counts_but_a_failed_conversation_event_does_not() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    receiver.answer_next(&[How::Status(503)]);
    call(&fake, USER, "POST", &crate::harness::path(key, "labels"), json!({ "labels": ["billing"] })).await;
    settled(&fake).await;
    assert_eq!(receiver.events(), ["conversation_updated"]);
    assert_eq!(fake.status(key), Some(Status::Pending));
    // A note is no less a message event.
    receiver.answer_next(&[How::Status(503)]);
    fake.private_note(key, "hm").unwrap();
    settled(&fake).await;
    assert_eq!(fake.status(key), Some(Status::Open));
}

#[tokio::test]
async fn the_account_setting_keeps_it_pending() {
    let (fake, receiver) = start(Settings { keep_pending_on_bot_failure: true, ..quick() }).await;
    receiver.answer_next(&[How::Status(503)]);
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    assert_eq!(fake.status(key), Some(Status::Pending));
}

#[tokio::test]
async fn two_bots_hear_everything_once_each_under_different_ids() {
    let (fake, first) = start(quick()).await;
    let second = Receiver::start().await;
    let other = fake.add_bot("Other", &second.url());
    let key = fake.new_conversation().unwrap();
    fake.act(key, relais_loadtest::fakes::chatwoot::Act::AssignBot { bot_id: other }).unwrap();
    settled(&fake).await;
    first.forget();
    second.forget();
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    let (first, second) = (first.got(), second.got());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first[0].delivery_id(), second[0].delivery_id());
    assert_ne!(first[0].headers["x-chatwoot-signature"], second[0].headers["x-chatwoot-signature"]);
}

#[tokio::test]
async fn an_account_webhook_hears_what_it_subscribed_to_and_is_tried_once() {
    let (fake, bot) = start(quick()).await;
    let hook = Receiver::start().await;
    let body = json!({ "url": hook.url(), "subscriptions": ["conversation_created", "conversation_typing_on"] });
    let made = call(&fake, USER, "POST", "/api/v1/accounts/1/webhooks", body.clone()).await.json();
    let secret = made["payload"]["webhook"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(call(&fake, USER, "POST", "/api/v1/accounts/1/webhooks", body).await.status, 422, "one per URL");
    hook.answer_next(&[How::Status(500)]);
    let key = fake.new_conversation().unwrap();
    crate::harness::on(&fake, USER, key, "POST", "toggle_typing_status", json!({ "typing_status": "on" })).await;
    settled(&fake).await;
    let mut events = hook.events();
    events.sort();
    assert_eq!(events, ["conversation_created", "conversation_typing_on"]);
    let got = &hook.got()[0];
    let timestamp = got.headers["x-chatwoot-timestamp"].to_str().unwrap();
    assert_eq!(got.headers["x-chatwoot-signature"], sign(&secret, timestamp, &got.raw));
    assert!(bot.got().is_empty(), "a bot hears neither");
    assert_eq!(fake.status(key), Some(Status::Pending));
}
