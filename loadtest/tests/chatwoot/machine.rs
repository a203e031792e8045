//! The bot state machine, as a table and in its corners.

use relais_loadtest::fakes::chatwoot::{
    Act, Assignee, ConversationKey, FakeChatwoot, MessageType, NewContact, Refused, Rules, Settings, Status,
};
use serde_json::{Value, json};

use crate::harness::{BOT, USER, on, quick, settled, start};

fn say(text: &str) -> Act {
    Act::CustomerSays { text: text.to_owned() }
}

#[tokio::test]
async fn transitions() {
    let (fake, _receiver) = start(quick()).await;
    let with_bot = fake.world().chatwoot_inbox_id;
    let without_bot = fake.add_inbox("Mail", "Channel::Email", false);
    let check = |inbox_id, acts: Vec<Act>, expected| {
        let key = fake.new_conversation_in(inbox_id, NewContact::default()).unwrap();
        let described = format!("{acts:?}");
        for act in acts {
            fake.act(key, act).unwrap();
        }
        assert_eq!(fake.status(key), Some(expected), "after {described}");
    };
    let reply = || Act::HumanReplies { text: "Hello".to_owned() };
    let snooze = || Act::Snooze { until_s: 1_900_000_000 };
    check(with_bot, vec![], Status::Pending);
    check(without_bot, vec![], Status::Open);
    check(with_bot, vec![say("a")], Status::Pending);
    check(with_bot, vec![Act::Resolve, say("a")], Status::Pending);
    check(without_bot, vec![Act::Resolve, say("a")], Status::Open);
    check(with_bot, vec![snooze(), say("a")], Status::Open);
    check(with_bot, vec![Act::SetOpen, say("a")], Status::Open);
    check(with_bot, vec![say("a"), reply()], Status::Pending);
    check(with_bot, vec![say("a"), Act::ExternalEcho { text: "b".to_owned() }], Status::Pending);
    check(with_bot, vec![say("a"), Act::HumanTakesOver], Status::Open);
    check(with_bot, vec![Act::HumanTakesOver, Act::SetPending], Status::Pending);
    check(with_bot, vec![Act::Resolve, reply()], Status::Resolved);
}

#[tokio::test]
async fn a_resolved_conversation_keeps_its_human_when_it_comes_back_pending() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.human_takes_over(key).unwrap();
    fake.resolve(key).unwrap();
    fake.customer(key).says("I have another question").unwrap();
    let conversation = fake.conversation(key).unwrap();
    assert_eq!(conversation.status, Status::Pending);
    assert_eq!(conversation.assignee, Some(Assignee::Human(fake.world().human_id)));
}

async fn toggled(fake: &FakeChatwoot, token: &str, key: ConversationKey, body: Value) -> (Value, Status) {
    let answered = on(fake, token, key, "POST", "toggle_status", body).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let answer = answered.json()["payload"].clone();
    let status = fake.status(key).unwrap();
    assert_eq!(answer["current_status"], json!(status), "the answer tells the status there is");
    (answer["success"].clone(), status)
}

#[tokio::test]
async fn toggle_status_hands_off_sets_or_toggles() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    // The handoff forgets to say that it worked.
    assert_eq!(toggled(&fake, BOT, key, json!({ "status": "open" })).await, (Value::Null, Status::Open));
    assert_eq!(toggled(&fake, BOT, key, json!({ "status": "open" })).await, (json!(true), Status::Open));
    assert_eq!(toggled(&fake, BOT, key, json!({ "status": "pending" })).await, (json!(true), Status::Pending));
    assert_eq!(toggled(&fake, USER, key, json!({ "status": "open" })).await, (json!(true), Status::Open));
    assert_eq!(fake.conversation(key).unwrap().assignee, None, "administrators are not assigned");
    // Without a status it toggles.
    assert_eq!(toggled(&fake, BOT, key, json!({})).await, (json!(true), Status::Resolved));
    assert_eq!(toggled(&fake, BOT, key, json!({})).await, (json!(true), Status::Open));
    fake.set_pending(key).unwrap();
    assert_eq!(toggled(&fake, BOT, key, json!({})).await, (json!(true), Status::Open));
    let unknown = on(&fake, BOT, key, "POST", "toggle_status", json!({ "status": "sleepy" })).await;
    assert_eq!(unknown.status, 500);
}

#[tokio::test]
async fn a_reply_ends_the_wait_and_only_a_humans_is_a_first_reply() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "Hello" })).await;
    let conversation = fake.conversation(key).unwrap();
    assert_eq!((conversation.waiting_since_ms, conversation.first_reply_created_at_ms), (None, None));
    settled(&fake).await;
    let mut events = receiver.events();
    events.sort();
    assert_eq!(events, ["conversation_updated", "message_created", "message_created"]);
    let cleared = receiver.got().into_iter().find(|got| got.event() == "conversation_updated").unwrap();
    assert!(cleared.body["changed_attributes"][0]["waiting_since"]["current_value"].is_null());

    fake.private_note(key, "not a reply").unwrap();
    assert_eq!(fake.conversation(key).unwrap().first_reply_created_at_ms, None);
    fake.human_replies(key, "Hello from a human").unwrap();
    assert!(fake.conversation(key).unwrap().first_reply_created_at_ms.is_some());
}

#[tokio::test]
async fn the_customer_sees_what_is_public_in_order() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("one").unwrap();
    fake.private_note(key, "hidden").unwrap();
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "two", "content_attributes": { "mark": "t1" } })).await;
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "hidden too", "private": true })).await;
    fake.human_takes_over(key).unwrap();
    fake.human_replies(key, "three").unwrap();
    let seen = fake.seen_by_customer(key);
    let texts: Vec<_> = seen.iter().map(|seen| seen.content.as_deref().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(seen[1].content_attributes["mark"], "t1");
    let conversation = fake.conversation(key).unwrap();
    assert!(conversation.messages.iter().any(|message| message.message_type == MessageType::Activity));
    assert_eq!(conversation.messages.iter().filter(|message| message.private).count(), 2);
}

#[tokio::test]
async fn auto_assignment_swallows_the_status_events() {
    let (fake, receiver) = start(quick()).await;
    fake.set_human_online(fake.world().human_id, true);
    let key = fake.new_conversation().unwrap();
    toggled(&fake, BOT, key, json!({ "status": "open" })).await;
    settled(&fake).await;
    assert_eq!(receiver.events(), ["conversation_updated"]);
    let body = &receiver.got()[0].body;
    assert_eq!(body["status"], "open");
    assert_eq!(body["changed_attributes"][0]["assignee_id"]["current_value"], fake.world().human_id);
}

#[tokio::test]
async fn without_anyone_online_the_status_events_go_out() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    toggled(&fake, BOT, key, json!({ "status": "open" })).await;
    settled(&fake).await;
    let mut events = receiver.events();
    events.sort();
    assert_eq!(events, ["conversation_opened", "conversation_status_changed", "conversation_updated"]);
}

#[tokio::test]
async fn later_releases_make_the_bot_an_owner() {
    let (fake, _receiver) = start(Settings { rules: Rules::Later, ..quick() }).await;
    let world = fake.world();
    let key = fake.new_conversation().unwrap();
    assert_eq!(fake.conversation(key).unwrap().assignee, Some(Assignee::Bot(world.bot_id)));
    fake.act(key, Act::AssignHuman { human_id: Some(world.human_id) }).unwrap();
    assert_eq!(fake.status(key), Some(Status::Open));
    fake.act(key, Act::AssignBot { bot_id: world.bot_id }).unwrap();
    assert_eq!(fake.status(key), Some(Status::Pending));
    toggled(&fake, BOT, key, json!({ "status": "open" })).await;
    assert_eq!(fake.conversation(key).unwrap().assignee, None);
}

#[tokio::test]
async fn what_is_full_refuses() {
    let mut settings = quick();
    settings.bounds.conversations_max = 1;
    settings.bounds.messages_max = 2;
    let (fake, _receiver) = start(settings).await;
    let key = fake.new_conversation().unwrap();
    assert_eq!(fake.new_conversation(), Err(Refused::Full));
    fake.customer(key).says("1").unwrap();
    fake.customer(key).says("2").unwrap();
    assert_eq!(fake.customer(key).says("3"), Err(Refused::Full));
}
