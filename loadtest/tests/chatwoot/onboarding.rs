//! What a gateway's onboarding meets: profile, bots and their secrets, inboxes, webhooks, the self-test.

use relais_loadtest::fakes::chatwoot::{Author, FakeChatwoot, Role, Settings, Status, sign};
use serde_json::{Value, json};

use crate::harness::{BOT, Receiver, USER, call, quick, settled, start};

/// A call below the account that must succeed.
async fn account(fake: &FakeChatwoot, method: &str, rest: &str, body: Value) -> Value {
    let answer = call(fake, USER, method, &format!("/api/v1/accounts/1/{rest}"), body).await;
    assert_eq!(answer.status, 200, "{method} {rest}: {}", answer.text);
    if answer.text.is_empty() { Value::Null } else { answer.json() }
}

/// An API inbox with this bot; its number and identifier.
async fn self_test_inbox(fake: &FakeChatwoot, bot: &Value, webhook_url: &str) -> (Value, Value) {
    let channel = json!({ "type": "api", "webhook_url": webhook_url });
    let inbox = account(fake, "POST", "inboxes", json!({ "name": "Self-test", "channel": channel })).await;
    let path = format!("inboxes/{}/set_agent_bot", inbox["id"]);
    account(fake, "POST", &path, json!({ "agent_bot": bot["id"] })).await;
    (inbox["id"].clone(), inbox["inbox_identifier"].clone())
}

/// The customer of an API inbox writes through the public API; the conversation's number.
async fn ping(fake: &FakeChatwoot, identifier: &Value) -> u64 {
    let base = format!("/public/api/v1/inboxes/{}/contacts", identifier.as_str().unwrap());
    let contact = call(fake, "", "POST", &base, json!({ "name": "Self-test" })).await.json();
    let conversations = format!("{base}/{}/conversations", contact["source_id"].as_str().unwrap());
    let conversation = call(fake, "", "POST", &conversations, json!({})).await.json();
    assert_eq!(conversation["status"], "pending");
    let messages = format!("{conversations}/{}/messages", conversation["id"]);
    let message = call(fake, "", "POST", &messages, json!({ "content": "ping" })).await;
    assert_eq!((message.status, &message.json()["content"]), (200, &json!("ping")));
    conversation["id"].as_u64().unwrap()
}

#[tokio::test]
async fn one_command_finds_its_way() {
    let (fake, _receiver) = start(quick()).await;
    let profile = call(&fake, USER, "GET", "/api/v1/profile", Value::Null).await.json();
    assert_eq!((&profile["role"], &profile["accounts"][0]["role"]), (&json!("administrator"), &json!("administrator")));
    let hook = Receiver::start().await;
    let bot = account(&fake, "POST", "agent_bots", json!({ "name": "New", "outgoing_url": hook.url() })).await;
    assert!(bot["secret"].is_string() && bot["access_token"].is_string());
    let path = format!("agent_bots/{}", bot["id"]);
    let changed = account(&fake, "PATCH", &path, json!({ "description": "ours" })).await;
    assert_eq!((&changed["description"], &changed["outgoing_url"]), (&json!("ours"), &bot["outgoing_url"]));
    let reset = account(&fake, "POST", &format!("{path}/reset_secret"), Value::Null).await;
    assert_ne!(reset["secret"], bot["secret"]);
    let token = account(&fake, "POST", &format!("{path}/reset_access_token"), Value::Null).await;
    assert_ne!(token["access_token"], bot["access_token"]);
    assert_eq!(account(&fake, "GET", "agent_bots", Value::Null).await.as_array().unwrap().len(), 2);

    let (inbox_id, identifier) = self_test_inbox(&fake, &bot, "").await;
    let at = format!("inboxes/{inbox_id}");
    assert_eq!(account(&fake, "GET", &format!("{at}/agent_bot"), Value::Null).await["agent_bot"]["id"], bot["id"]);
    ping(&fake, &identifier).await;
    settled(&fake).await;
    let got = hook.got().remove(0);
    assert_eq!((&got.body["content"], &got.body["sender"]["name"]), (&json!("ping"), &json!("Self-test")));
    let timestamp = got.headers["x-chatwoot-timestamp"].to_str().unwrap();
    assert_eq!(got.headers["x-chatwoot-signature"], sign(reset["secret"].as_str().unwrap(), timestamp, &got.raw));

    account(&fake, "POST", &format!("{at}/set_agent_bot"), json!({ "agent_bot": null })).await;
    assert_eq!(account(&fake, "GET", &format!("{at}/agent_bot"), Value::Null).await["agent_bot"], json!({}));
    account(&fake, "DELETE", &at, Value::Null).await;
    account(&fake, "DELETE", &path, Value::Null).await;
    assert_eq!(account(&fake, "GET", "agent_bots", Value::Null).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_account_api_can_play_the_customer_of_an_api_inbox_too() {
    let (fake, receiver) = start(quick()).await;
    let (inbox_id, _) = self_test_inbox(&fake, &json!({ "id": fake.world().bot_id }), "").await;
    let contact = account(&fake, "POST", "contacts", json!({ "name": "Test", "inbox_id": inbox_id })).await;
    let (contact, link) = (&contact["payload"]["contact"], &contact["payload"]["contact_inbox"]);
    for named in [
        json!({ "inbox_id": inbox_id, "contact_id": contact["id"], "status": "open" }),
        json!({ "inbox_id": inbox_id, "source_id": link["source_id"] }),
    ] {
        let conversation = account(&fake, "POST", "conversations", named).await;
        assert_eq!(conversation["status"], "pending", "whatever was asked");
        let messages = format!("conversations/{}/messages", conversation["id"]);
        account(&fake, "POST", &messages, json!({ "content": "ping", "message_type": "incoming" })).await;
    }
    settled(&fake).await;
    let got = receiver.got();
    assert_eq!((got.len(), &got[0].body["sender"]["name"]), (2, &json!("Test")));
    assert_eq!(got[1].body["conversation"]["contact_inbox"]["source_id"], link["source_id"]);
    account(&fake, "DELETE", &format!("contacts/{}", contact["id"]), Value::Null).await;
    assert!(fake.conversation_keys().is_empty(), "its conversations went along");
}

#[tokio::test]
async fn an_older_release_has_no_secrets_and_signs_nothing_of_a_bot() {
    let (fake, receiver) = start(Settings { bot_secrets: false, ..quick() }).await;
    let bots = account(&fake, "GET", "agent_bots", Value::Null).await;
    assert!(bots[0]["access_token"].is_string() && bots[0].get("secret").is_none());
    let made = account(&fake, "POST", "agent_bots", json!({ "name": "New" })).await;
    assert!(made.get("secret").is_none());
    let path = format!("/api/v1/accounts/1/agent_bots/{}/reset_secret", made["id"]);
    assert_eq!(call(&fake, USER, "POST", &path, Value::Null).await.status, 404);
    fake.customer(fake.new_conversation().unwrap()).says("Hi").unwrap();
    settled(&fake).await;
    assert!(!receiver.got()[0].headers.contains_key("x-chatwoot-signature"));
}

#[tokio::test]
async fn humans_may_look_and_only_administrators_may_change() {
    let (fake, _receiver) = start(quick()).await;
    let agent = fake.token_of(Author::Human(fake.add_human("Ada Agent", Role::Agent))).unwrap();
    let world = fake.world();
    let (inbox, bot) = (format!("inboxes/{}", world.chatwoot_inbox_id), format!("agent_bots/{}", world.bot_id));
    let ask = async |token: &str, method: &str, rest: &str| {
        call(&fake, token, method, &format!("/api/v1/accounts/1/{rest}"), json!({ "name": "x" })).await
    };
    let profile = call(&fake, &agent, "GET", "/api/v1/profile", Value::Null).await.json();
    assert_eq!(profile["accounts"][0]["role"], "agent");
    for rest in ["agents", "teams", "agent_bots", "inboxes", bot.as_str(), inbox.as_str()] {
        assert_eq!(ask(&agent, "GET", rest).await.status, 200, "{rest}");
        assert_eq!(ask(BOT, "GET", rest).await.status, 401, "{rest}");
    }
    let seen = ask(&agent, "GET", "agent_bots").await.json();
    assert!(seen[0]["access_token"].is_string() && seen[0].get("secret").is_none(), "the token yes, the secret no");
    for (method, rest) in [
        ("POST", "agent_bots".to_owned()),
        ("PATCH", bot.clone()),
        ("DELETE", bot.clone()),
        ("POST", format!("{bot}/reset_secret")),
        ("POST", "inboxes".to_owned()),
        ("PATCH", inbox.clone()),
        ("DELETE", inbox.clone()),
        ("POST", format!("{inbox}/set_agent_bot")),
        ("GET", "webhooks".to_owned()),
        ("POST", "webhooks".to_owned()),
    ] {
        assert_eq!(ask(&agent, method, &rest).await.status, 401, "{method} {rest}");
    }
    assert_eq!(ask(&agent, "POST", "contacts").await.status, 200);
    let elsewhere = call(&fake, USER, "GET", "/api/v1/accounts/2/inboxes", Value::Null).await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn a_bot_is_replaced_silently_and_a_global_one_hides_what_matters() {
    let (fake, _receiver) = start(quick()).await;
    let (world, global) = (fake.world(), fake.add_global_bot("Global", "http://127.0.0.1:9/"));
    let inbox = format!("inboxes/{}", world.chatwoot_inbox_id);
    let listed = account(&fake, "GET", "agent_bots", Value::Null).await;
    let shown = listed.as_array().unwrap().iter().find(|bot| bot["id"] == global).unwrap();
    assert_eq!((&shown["system_bot"], &shown["account_id"]), (&json!(true), &Value::Null));
    assert!(["outgoing_url", "access_token", "secret"].iter().all(|hidden| shown.get(hidden).is_none()));
    account(&fake, "POST", &format!("{inbox}/set_agent_bot"), json!({ "agent_bot": global })).await;
    assert_eq!(account(&fake, "GET", &format!("{inbox}/agent_bot"), Value::Null).await["agent_bot"]["id"], global);
    let path = format!("/api/v1/accounts/1/{inbox}/set_agent_bot");
    assert_eq!(call(&fake, USER, "POST", &path, json!({ "agent_bot": 999 })).await.status, 404);
}

#[tokio::test]
async fn an_inbox_is_changed_field_by_field() {
    let (fake, _receiver) = start(quick()).await;
    let inbox = account(&fake, "POST", "inboxes", json!({ "name": "A", "channel": { "type": "api" } })).await;
    assert!(inbox["secret"].is_string() && inbox["hmac_token"].is_string());
    let path = format!("inboxes/{}", inbox["id"]);
    let greeting = json!({ "greeting_enabled": true, "greeting_message": "Welcome", "enable_auto_assignment": false });
    account(&fake, "PATCH", &path, greeting).await;
    let url = json!({ "channel": { "webhook_url": "http://127.0.0.1:9/x" } });
    let changed = account(&fake, "PATCH", &path, url).await;
    assert_eq!((&changed["greeting_enabled"], &changed["greeting_message"]), (&json!(true), &json!("Welcome")));
    assert_eq!(changed["enable_auto_assignment"], false);
    assert_eq!(changed["webhook_url"], "http://127.0.0.1:9/x");
    let reset = account(&fake, "POST", &format!("{path}/reset_secret"), Value::Null).await;
    assert_ne!(reset["secret"], inbox["secret"]);
    let widget = format!("/api/v1/accounts/1/inboxes/{}/reset_secret", fake.world().chatwoot_inbox_id);
    assert_eq!(call(&fake, USER, "POST", &widget, Value::Null).await.status, 404, "API inboxes only");
}

#[tokio::test]
async fn the_block_on_private_networks_shows_as_an_open_conversation_or_as_the_messages_error() {
    let (fake, receiver) = start(Settings { private_network_allowed: false, ..quick() }).await;
    let (_, identifier) = self_test_inbox(&fake, &json!({ "id": fake.world().bot_id }), &receiver.url()).await;
    let conversation_id = ping(&fake, &identifier).await;
    settled(&fake).await;
    assert!(receiver.got().is_empty(), "nothing goes to a loopback address");
    let key = fake.conversation_keys().into_iter().find(|key| key.conversation_id == conversation_id).unwrap();
    let conversation = fake.conversation(key).unwrap();
    assert_eq!(conversation.status, Status::Open);
    let message = &conversation.messages[0];
    assert_eq!(message.status, "failed");
    let error = message.content_attributes["external_error"].as_str().unwrap();
    assert!(error.contains("no public ip"), "{error}");
}
