//! What Chatwoot says by itself next to the bot.

use relais_loadtest::fakes::chatwoot::{MessageType, NewContact, Status, Templates};
use serde_json::json;

use crate::harness::{BOT, on, quick, settled, start};

fn all() -> Templates {
    Templates {
        greeting_enabled: true,
        greeting_message: Some("Welcome, {{contact.first_name}}".to_owned()),
        working_hours_enabled: true,
        out_of_office_message: Some("We are closed".to_owned()),
        enable_email_collect: true,
        csat_survey_enabled: true,
    }
}

#[tokio::test]
async fn a_greeting_goes_out_once_after_the_customers_message_and_the_bot_hears_it() {
    let (fake, receiver) = start(quick()).await;
    fake.set_templates(fake.world().chatwoot_inbox_id, Templates { working_hours_enabled: false, ..all() });
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    fake.customer(key).says("Anyone?").unwrap();
    settled(&fake).await;
    let seen: Vec<_> = fake.seen_by_customer(key).into_iter().map(|seen| seen.content.unwrap()).collect();
    assert_eq!(seen, ["Hi", "Welcome, Carla", "Anyone?"]);
    let heard = receiver.got().into_iter().find(|got| got.body["message_type"] == "template").unwrap();
    assert!(heard.body["sender"].is_null());
    assert_eq!(heard.body["conversation"]["status"], "pending", "the bot keeps it");
}

#[tokio::test]
async fn closed_is_said_once_a_day_instead_of_the_greeting_unless_somebody_has_just_answered() {
    let (fake, _receiver) = start(quick()).await;
    fake.set_templates(fake.world().chatwoot_inbox_id, all());
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    fake.customer(key).says("Anyone?").unwrap();
    let templates = |key| {
        let seen = fake.seen_by_customer(key).into_iter();
        let said = seen.filter(|seen| seen.message_type == MessageType::Template);
        said.map(|seen| seen.content.unwrap()).collect::<Vec<_>>()
    };
    let said = templates(key);
    // A day may end in between; then it is said again.
    assert!(!said.is_empty() && said.iter().all(|text| text == "We are closed"), "{said:?}");
    let answered = fake.new_conversation().unwrap();
    on(&fake, BOT, answered, "POST", "messages", json!({ "content": "Hello" })).await;
    fake.customer(answered).says("Hi").unwrap();
    assert!(templates(answered).is_empty());
}

#[tokio::test]
async fn a_visitor_without_a_mail_address_is_asked_for_one() {
    let (fake, _receiver) = start(quick()).await;
    let inbox_id = fake.world().chatwoot_inbox_id;
    fake.set_templates(inbox_id, Templates { enable_email_collect: true, ..Templates::default() });
    let visitor = NewContact { email: None, ..NewContact::default() };
    let key = fake.new_conversation_in(inbox_id, visitor).unwrap();
    fake.customer(key).says("Hi").unwrap();
    fake.customer(key).says("Anyone?").unwrap();
    let messages = fake.conversation(key).unwrap().messages;
    assert_eq!(messages.iter().filter(|message| message.content_type == "input_email").count(), 1);
    assert_eq!(messages.iter().filter(|message| message.message_type == MessageType::Template).count(), 2);
}

#[tokio::test]
async fn a_survey_goes_out_once() {
    let (fake, _receiver) = start(quick()).await;
    fake.set_templates(fake.world().chatwoot_inbox_id, Templates { csat_survey_enabled: true, ..Templates::default() });
    let key = fake.new_conversation().unwrap();
    for _ in 0..2 {
        fake.resolve(key).unwrap();
        fake.set_pending(key).unwrap();
    }
    let surveys = fake.seen_by_customer(key);
    assert_eq!(surveys.iter().filter(|seen| seen.message_type == MessageType::Template).count(), 1);
    assert_eq!(fake.status(key), Some(Status::Pending));
}
