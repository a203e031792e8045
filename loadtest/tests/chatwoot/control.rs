//! The handle over HTTP, as the demo uses it.

use http::Request;
use http_body_util::{BodyExt, Full};
use relais_loadtest::fakes::chatwoot::{FakeChatwoot, RunOptions, Status, run};
use relais_loadtest::http::exchange;
use serde_json::{Value, json};

use crate::harness::{BOT, DEADLINE, Receiver, call, on, quick, settled, start};

async fn control(fake: &FakeChatwoot, method: &str, path: &str, body: Value) -> Value {
    let answer = call(fake, "", method, &format!("/control/{path}"), body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    if answer.text.is_empty() { Value::Null } else { answer.json() }
}

#[tokio::test]
async fn a_conversation_is_played_and_watched_over_http() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    control(&fake, "POST", "outgoing_url", json!({ "url": receiver.url() })).await;
    let world = control(&fake, "GET", "world", Value::Null).await;
    assert_eq!(world["account_id"], 1);
    let made = control(&fake, "POST", "conversations", json!({ "contact": { "name": "Ana" }, "text": "Hi" })).await;
    let key = fake.conversation_keys()[0];
    assert_eq!(made["conversation_id"], key.conversation_id);
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "Hello" })).await;
    let acts = format!("conversations/{}/acts", key.conversation_id);
    control(&fake, "POST", &acts, json!({ "act": "private_note", "text": "psst" })).await;
    control(&fake, "POST", &acts, json!({ "act": "human_takes_over" })).await;
    settled(&fake).await;
    let seen = control(&fake, "GET", &format!("conversations/{}/seen", key.conversation_id), Value::Null).await;
    assert_eq!((seen[0]["content"].as_str(), seen[1]["content"].as_str()), (Some("Hi"), Some("Hello")));
    let whole = control(&fake, "GET", &format!("conversations/{}", key.conversation_id), Value::Null).await;
    assert_eq!(whole["status"], "open");
    assert_eq!(fake.status(key), Some(Status::Open));
    let deliveries = control(&fake, "GET", "deliveries", Value::Null).await;
    assert_eq!(deliveries[0]["event"], "message_created");
    assert_eq!(deliveries[0]["attempts"][0]["status"], 200);
    assert!(control(&fake, "GET", "calls", Value::Null).await.as_array().unwrap().len() == 1);
    assert!(receiver.got()[0].body["sender"]["name"] == "Ana");
}

#[tokio::test]
async fn what_is_not_understood_is_400() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let key = fake.new_conversation().unwrap();
    for (path, body) in [
        (format!("conversations/{}/acts", key.conversation_id), json!({ "act": "dances" })),
        ("faults".to_owned(), json!({ "cals": [] })),
        ("conversations".to_owned(), json!({ "test": "Hi" })),
    ] {
        let answer = call(&fake, "", "POST", &format!("/control/{path}"), body).await;
        assert_eq!(answer.status, 400, "{path}");
    }
    let answer = call(&fake, "", "POST", "/control/conversations/1/acts", json!({ "act": "resolve" })).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn faults_are_set_over_http() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let key = fake.new_conversation().unwrap();
    let faults = json!({ "calls": [{ "on": "create_message", "effect": { "status": 503 }, "times": 1 }] });
    control(&fake, "POST", "faults", faults).await;
    assert_eq!(on(&fake, BOT, key, "POST", "messages", json!({ "content": "a" })).await.status, 503);
    assert_eq!(control(&fake, "GET", "faults", Value::Null).await["calls"][0]["times"], 0);
    assert_eq!(on(&fake, BOT, key, "POST", "messages", json!({ "content": "a" })).await.status, 200);
}

#[tokio::test]
async fn happenings_stream_as_one_json_line_each() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("before").unwrap();
    settled(&fake).await;
    let request = Request::get(format!("{}/control/events", fake.url())).body(Full::default()).unwrap();
    let response = exchange(request, DEADLINE).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    fake.human_takes_over(key).unwrap();
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "after" })).await;
    let mut text = String::new();
    let reading = async {
        while !text.contains("\"after\"") {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap();
    let lines: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap())
        .collect();
    let numbers: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..lines.len() as u64).collect::<Vec<_>>(), "none missing between past and future");
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["customer_said", "webhook_sent", "webhook_answered"]);
    assert_eq!(lines[2]["status"], 200);
    for kind in ["status_changed", "assignment_changed", "reply_seen"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn as_a_process_it_starts_with_what_it_is_told() {
    let receiver = Receiver::start().await;
    let options = RunOptions {
        port: 0,
        gateway_url: Some(receiver.url()),
        bot_token: "t".to_owned(),
        secret: None,
        user_token: "u".to_owned(),
        account_id: 3,
        bot_id: 9,
        seed: 1,
        limited: true,
    };
    let (sender, ready) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(run(options, |fake| sender.send(fake.url()).unwrap()));
    let url = ready.await.unwrap();
    let ask = async |request: http::request::Builder, body: &'static str| {
        let response = exchange(request.body(Full::from(body)).unwrap(), DEADLINE).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let world = ask(Request::get(format!("{url}/control/world")), "").await;
    assert_eq!((&world["account_id"], &world["bot_id"]), (&json!(3), &json!(9)));
    let made = ask(Request::post(format!("{url}/control/conversations")), r#"{"text":"Hi"}"#).await;
    let messages = format!("{url}/api/v1/accounts/3/conversations/{}/messages", made["conversation_id"]);
    let reply = ask(Request::post(messages).header("Api-Access-Token", "t"), r#"{"content":"Hello"}"#).await;
    assert_eq!((&reply["content"], &reply["sender"]["id"]), (&json!("Hello"), &json!(9)));
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert!(exchange(Request::get(url).body(Full::default()).unwrap(), DEADLINE).await.is_err(), "it is gone");
}
