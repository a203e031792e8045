//! The page's doors: its files, what it shows, how it is told, and who is kept out.

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use relais_loadtest::fakes::chatwoot::{Bounds, FakeChatwoot, Settings};
use relais_loadtest::http::exchange;
use serde_json::{Value, json};

use crate::harness::{BOT, DEADLINE, call, on, quick, settled, start};

async fn get(fake: &FakeChatwoot, path: &str, headers: &[(&str, &str)]) -> http::Response<Incoming> {
    let mut request = Request::get(format!("{}{path}", fake.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    exchange(request.body(Full::default()).unwrap(), DEADLINE).await.unwrap()
}

async fn shown(fake: &FakeChatwoot, path: &str) -> Value {
    let answer = get(fake, path, &[]).await;
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// The numbers and kinds of happenings, until one of this kind.
async fn told_until(answer: http::Response<Incoming>, kind: &str) -> Vec<(Option<u64>, String)> {
    let (mut body, mut text) = (answer.into_body(), String::new());
    let reading = async {
        while !text.contains(&format!("\"kind\":\"{kind}\"")) {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap();
    let lines = text.split_terminator("\n\n").map(|event| {
        let (head, data) = event.split_once("data: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let id = head.trim().strip_prefix("id: ").map(|id| id.parse().unwrap());
        assert_eq!(id, data["seq"].as_u64());
        (id, data["kind"].as_str().unwrap().to_owned())
    });
    lines.collect()
}

#[tokio::test]
async fn every_file_the_page_names_is_served_under_a_strict_policy() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let mut wanted = vec!["/demo".to_owned()];
    let mut seen = 0;
    while let Some(path) = wanted.pop() {
        let answer = get(&fake, &path, &[]).await;
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(!text.contains("https://") && !text.contains("innerHTML"), "{path} fetches or writes what it must not");
        if !path.contains('.') || path.ends_with("app.js") {
            wanted.extend(
                text.split('"').filter(|part| part.starts_with("/demo/") && part.contains('.')).map(str::to_owned),
            );
        }
        seen += 1;
    }
    assert!(seen >= 7, "{seen} files");
    assert_eq!(get(&fake, "/demo/other.js", &[]).await.status(), 404);
    assert_eq!(call(&fake, "", "POST", "/demo/state", json!({})).await.status, 405);
}

#[tokio::test]
async fn it_shows_both_sides_and_the_webhooks_between() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("Hi").unwrap();
    settled(&fake).await;
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "Hello" })).await;
    fake.private_note(key, "psst").unwrap();
    fake.human_takes_over(key).unwrap();
    fake.human_replies(key, "I am Hugo").unwrap();
    settled(&fake).await;
    let state = shown(&fake, "/demo/state").await;
    assert_eq!(state["conversations"][0]["id"], key.conversation_id);
    assert_eq!(state["conversations"][0]["last"]["text"], "I am Hugo");
    let whole = shown(&fake, &format!("/demo/conversations/{}", key.conversation_id)).await;
    let said = |message: &Value| {
        [&message["kind"], &message["by"], &message["text"]].map(|part| part.as_str().unwrap_or("").to_owned())
    };
    let messages: Vec<_> =
        whole["messages"].as_array().unwrap().iter().map(said).filter(|[kind, ..]| kind != "activity").collect();
    let expected = [
        ["customer", "Carla Customer", "Hi"],
        ["agent", "Relais", "Hello"],
        ["note", "Hugo Human", "psst"],
        ["human", "Hugo Human", "I am Hugo"],
    ];
    assert_eq!(messages, expected);
    assert_eq!((&whole["status"], &whole["assignee"]), (&json!("open"), &json!("Hugo Human")));
    let first = whole["deliveries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&first["event"], &first["signed"]), (&json!("message_created"), &json!(true)));
    assert_eq!(first["attempts"][0]["status"], 200);
    let everything = format!("{state}{whole}");
    assert!(!everything.contains(BOT) && !everything.contains("fake-bot-secret"), "a secret on the page");
    assert_eq!(get(&fake, "/demo/conversations/1", &[]).await.status(), 404);
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    fake.customer(key).says("before").unwrap();
    settled(&fake).await;
    let after = shown(&fake, "/demo/state").await["after"].as_u64().unwrap();
    fake.private_note(key, "meanwhile").unwrap();
    let told = told_until(get(&fake, &format!("/control/events?after={after}"), &[]).await, "note_added").await;
    assert_eq!(told[0], (Some(after + 1), "note_added".to_owned()));
    // What the browser has seen counts, not what its address said at the start.
    let again = get(&fake, "/control/events?after=0", &[("last-event-id", &after.to_string())]).await;
    assert_eq!(told_until(again, "note_added").await[0].0, Some(after + 1));
}

#[tokio::test]
async fn who_missed_what_is_forgotten_is_told_so() {
    let settings = quick();
    let bounds = Bounds { lines_kept_max: 2, ..settings.bounds };
    let (fake, _receiver) = start(Settings { bounds, ..settings }).await;
    let key = fake.new_conversation().unwrap();
    for text in ["one", "two", "three", "four"] {
        fake.private_note(key, text).unwrap();
    }
    settled(&fake).await;
    let told = told_until(get(&fake, "/control/events?after=0", &[]).await, "lines_lost").await;
    assert_eq!(told[0], (None, "lines_lost".to_owned()));
}

#[tokio::test]
async fn what_is_told_of_the_gateway_is_shown_and_news_only_once() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    assert_eq!(shown(&fake, "/demo/gateway").await, Value::Null);
    for report in [json!({ "ready": true }), json!({ "ready": true }), json!({ "ready": false })] {
        assert_eq!(call(&fake, "", "POST", "/control/gateway", report).await.status, 200);
    }
    assert_eq!(call(&fake, "", "POST", "/control/crash", json!({})).await.status, 200);
    assert_eq!(shown(&fake, "/demo/gateway").await, json!({ "ready": false }));
    let told = told_until(get(&fake, "/control/events", &[]).await, "crash_asked").await;
    let kinds: Vec<&str> = told.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["gateway_told", "gateway_told", "crash_asked"]);
    let much = json!({ "text": "x".repeat(70_000) });
    assert_eq!(call(&fake, "", "POST", "/control/gateway", much).await.status, 413);
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let fake = FakeChatwoot::start(quick()).await.unwrap();
    let own = ("sec-fetch-site", "same-origin");
    let other = ("sec-fetch-site", "cross-site");
    let link = ("sec-fetch-mode", "navigate");
    for (path, headers, expected) in [
        ("/control/world", &[own][..], 200),
        ("/control/world", &[other], 403),
        ("/control/world", &[("sec-fetch-site", "same-site")], 403),
        ("/control/world", &[own, ("host", "evil.example:80")], 403),
        ("/control/world", &[own, ("host", "localhost:80")], 200),
        ("/demo", &[other, link], 200),
        ("/demo/state", &[other], 403),
        ("/control/world", &[], 200),
    ] {
        assert_eq!(get(&fake, path, headers).await.status(), expected, "{path} {headers:?}");
    }
    let form = Request::post(format!("{}/control/crash", fake.url())).header(other.0, other.1).header(link.0, link.1);
    assert_eq!(exchange(form.body(Full::default()).unwrap(), DEADLINE).await.unwrap().status(), 403);
}
