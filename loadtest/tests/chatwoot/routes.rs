//! The other ways of a webhook: account webhooks, API inboxes, redirects, and what is dropped on the way.

use bytes::Bytes;
use relais_loadtest::fakes::chatwoot::{Act, ConversationKey, FakeChatwoot, NewContact, Outcome, Route, Status, sign};
use serde_json::{Value, json};

use crate::harness::{BOT, How, Receiver, USER, call, on, path, quick, send, settled, start};

/// A conversation in an API inbox without a bot, whose webhooks go to a receiver of their own.
fn api_inbox(fake: &FakeChatwoot, hook: &Receiver) -> (u64, ConversationKey) {
    let inbox_id = fake.add_inbox("API", "Channel::Api", false);
    fake.set_inbox_webhook_url(inbox_id, &hook.url());
    (inbox_id, fake.new_conversation_in(inbox_id, NewContact::default()).unwrap())
}

#[tokio::test]
async fn an_api_inbox_hears_its_events_signed_with_its_own_secret() {
    let (fake, bot) = start(quick()).await;
    let hook = Receiver::start().await;
    let (inbox_id, key) = api_inbox(&fake, &hook);
    fake.customer(key).says("Hi").unwrap();
    fake.resolve(key).unwrap();
    on(&fake, USER, key, "POST", "toggle_typing_status", json!({ "typing_status": "on" })).await;
    settled(&fake).await;
    let mut events = hook.events();
    events.sort();
    events.dedup();
    assert_eq!(
        events,
        [
            "conversation_created",
            "conversation_status_changed",
            "conversation_typing_on",
            "conversation_updated",
            "message_created"
        ]
    );
    let inbox = call(&fake, USER, "GET", &format!("/api/v1/accounts/1/inboxes/{inbox_id}"), Value::Null).await.json();
    let got = &hook.got()[0];
    let timestamp = got.headers["x-chatwoot-timestamp"].to_str().unwrap();
    assert_eq!(got.headers["x-chatwoot-signature"], sign(inbox["secret"].as_str().unwrap(), timestamp, &got.raw));
    assert!(bot.got().is_empty());
}

#[tokio::test]
async fn a_failure_at_an_api_inbox_marks_the_message_and_is_told_once_more() {
    let (fake, _bot) = start(quick()).await;
    let hook = Receiver::start().await;
    let (_, key) = api_inbox(&fake, &hook);
    settled(&fake).await;
    hook.forget();
    hook.answer_next(&[How::Status(500), How::Status(500)]);
    let message_id = fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    assert_eq!(
        hook.events(),
        ["message_created", "message_updated"],
        "tried once each, and the same again is no change"
    );
    let conversation = fake.conversation(key).unwrap();
    let message = conversation.message(message_id).unwrap();
    assert_eq!(
        (message.status.as_str(), message.content_attributes["external_error"].as_str()),
        ("failed", Some("HTTP 500"))
    );
    assert_eq!(hook.got()[1].body["content_attributes"]["external_error"], "HTTP 500");
    let routes: Vec<_> = fake.deliveries().iter().map(|delivery| delivery.route).collect();
    assert!(routes.iter().all(|route| *route == Route::ApiInbox), "{routes:?}");
}

#[tokio::test]
async fn a_bot_is_told_what_was_and_an_account_webhook_what_is() {
    let (fake, bot) = start(quick()).await;
    let hook = Receiver::start().await;
    let body = json!({ "url": hook.url(), "subscriptions": ["conversation_created", "message_created"] });
    call(&fake, USER, "POST", "/api/v1/accounts/1/webhooks", body).await;
    // Nothing is awaited in between: no job runs before the last of these.
    let key = fake.new_conversation().unwrap();
    let first = fake.customer(key).says("first").unwrap();
    fake.customer(key).says("second").unwrap();
    fake.human_takes_over(key).unwrap();
    settled(&fake).await;
    let about = |receiver: &Receiver| {
        let got = receiver.got().into_iter().find(|got| got.body["id"] == first && got.event() == "message_created");
        let body = got.unwrap().body;
        let newest = body["conversation"]["messages"][0]["content"].as_str().unwrap().to_owned();
        (newest, body["conversation"]["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(about(&bot), ("first".to_owned(), "pending".to_owned()));
    assert_eq!(about(&hook), ("second".to_owned(), "open".to_owned()));
    let created = hook.got().into_iter().find(|got| got.event() == "conversation_created").unwrap();
    assert_eq!(created.body["messages"][0]["content"], "second", "a message it did not begin with");
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_same_post() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    receiver.answer_next(&[How::Redirect("/moved"), How::Redirect("/again")]);
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    let got = receiver.got();
    let paths: Vec<&str> = got.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(paths, ["/chatwoot/acme", "/moved", "/again"]);
    for header in ["x-chatwoot-delivery", "x-chatwoot-timestamp", "x-chatwoot-signature", "content-type"] {
        assert!(got.iter().all(|other| other.headers[header] == got[0].headers[header]), "{header}");
    }
    assert!(got.iter().all(|other| other.raw == got[0].raw));
    assert_eq!(fake.deliveries()[0].outcome, Outcome::Accepted);
    assert_eq!(fake.deliveries()[0].attempts.len(), 1, "one attempt, however often it was sent on");
}

#[tokio::test]
async fn redirects_without_end_are_a_failure() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    receiver.answer_next(&[How::Redirect("/round"); 20]);
    fake.customer(key).says("Hi").unwrap();
    fake.wait_until(crate::harness::DEADLINE, |fake| fake.status(key) == Some(Status::Open)).await.unwrap();
    assert_eq!(receiver.got().iter().filter(|got| got.event() == "message_created").count(), 11);
}

#[tokio::test]
async fn a_deleted_contact_link_drops_what_is_on_its_way() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    fake.delete_contact_inbox(key);
    settled(&fake).await;
    assert!(receiver.got().is_empty());
    assert_eq!(fake.deliveries()[0].outcome, Outcome::Lost);
    assert_eq!(fake.status(key), Some(Status::Pending), "nobody is told");
}

#[tokio::test]
async fn the_widget_tells_the_bot_that_it_was_opened() {
    let (fake, receiver) = start(quick()).await;
    fake.open_widget(fake.world().chatwoot_inbox_id, NewContact::default()).unwrap();
    let key = fake.new_conversation().unwrap();
    fake.act(key, Act::CustomerOpensWidget).unwrap();
    settled(&fake).await;
    let got = receiver.got();
    assert_eq!(receiver.events(), ["webwidget_triggered", "webwidget_triggered"]);
    let current = |at: usize| got[at].body["current_conversation"]["id"].as_u64();
    let mut both = [current(0), current(1)];
    both.sort_unstable();
    assert_eq!(both, [None, Some(key.conversation_id)]);
}

#[tokio::test]
async fn files_come_as_a_form() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    let form = |files: usize, more: &str| {
        let file = "--b\r\nContent-Disposition: form-data; name=\"attachments[]\"; filename=\"bill.pdf\"\r\n\
            Content-Type: application/pdf\r\n\r\n%PDF\r\n";
        Bytes::from(format!("{}{more}--b--\r\n", file.repeat(files)))
    };
    let text = "--b\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nYour bill\r\n\
        --b\r\nContent-Disposition: form-data; name=\"content_attributes\"\r\n\r\n{\"mark\":\"t\"}\r\n";
    let post = async |body| {
        let target = path(key, "messages");
        send(&fake, BOT, "POST", &target, "multipart/form-data; boundary=b", body).await.unwrap()
    };
    let answer = post(form(1, text)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!((&answer["content"], &answer["content_attributes"]["mark"]), (&json!("Your bill"), &json!("t")));
    let file = &answer["attachments"][0];
    assert_eq!(
        (&file["file_type"], &file["extension"], &file["file_size"]),
        (&json!("file"), &json!("pdf"), &json!(4))
    );
    assert_eq!(file["message_id"], answer["id"]);
    assert_eq!(post(form(15, "")).await.json()["content"], Value::Null, "files alone will do");
    assert_eq!(post(form(16, "")).await.status, 422);
    let unknown = json!({ "content": "x", "attachments": ["signed-id"] });
    assert_eq!(on(&fake, BOT, key, "POST", "messages", unknown).await.status, 422);
    settled(&fake).await;
    assert_eq!(receiver.got()[0].body["attachments"][0]["extension"], "pdf");
}
