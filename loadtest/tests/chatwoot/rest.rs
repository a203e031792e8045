//! The REST door: tokens, shapes, the traps a gateway must not step into.

use relais_loadtest::fakes::chatwoot::{Act, Assignee, Refused, Rules, Settings};
use serde_json::{Value, json};

use crate::harness::{BOT, USER, call, on, path, quick, settled, start};

#[tokio::test]
async fn a_bot_token_opens_its_table_and_nothing_else() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    for (method, action, body) in [
        ("GET", "", Value::Null),
        ("PATCH", "", json!({ "priority": "high" })),
        ("POST", "toggle_status", json!({ "status": "pending" })),
        ("POST", "toggle_typing_status", json!({ "typing_status": "on" })),
        ("POST", "toggle_priority", json!({ "priority": "low" })),
        ("POST", "custom_attributes", json!({ "custom_attributes": {} })),
        ("POST", "messages", json!({ "content": "Hi" })),
        ("POST", "labels", json!({ "labels": [] })),
        ("GET", "labels", Value::Null),
        ("POST", "assignments", json!({ "assignee_id": null })),
    ] {
        assert_eq!(on(&fake, BOT, key, method, action, body.clone()).await.status, 200, "{method} {action}");
        assert_eq!(on(&fake, "wrong", key, method, action, body).await.status, 401, "{method} {action}");
    }
    for (method, path) in [
        ("GET", path(key, "messages")),
        ("GET", "/api/v1/profile".to_owned()),
        ("GET", "/api/v1/accounts/1/conversations".to_owned()),
        ("GET", "/api/v1/accounts/1/agent_bots".to_owned()),
        ("GET", "/api/v1/accounts/1/inboxes".to_owned()),
        ("POST", "/api/v1/accounts/1/webhooks".to_owned()),
        ("POST", "/api/v1/accounts/1/contacts".to_owned()),
    ] {
        let refused = call(&fake, BOT, method, &path, Value::Null).await;
        assert_eq!(refused.status, 401, "{method} {path}");
        assert!(refused.json()["error"].is_string());
        assert_eq!(call(&fake, "", method, &path, Value::Null).await.status, 401);
    }
    assert_eq!(call(&fake, BOT, "GET", "/api/v1/accounts/1/conversations/1", Value::Null).await.status, 404);
    assert_eq!(call(&fake, BOT, "GET", "/api/v1/accounts/9/conversations/1", Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_created_message_is_answered_in_full_and_keeps_unknown_attributes() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    let body =
        json!({ "content": "Hi", "content_attributes": { "relais_turn": "t-1" }, "echo_id": "e1", "source_id": "s" });
    let answer = on(&fake, BOT, key, "POST", "messages", body).await.json();
    let mut keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "content",
            "content_attributes",
            "content_type",
            "conversation_id",
            "created_at",
            "echo_id",
            "id",
            "inbox_id",
            "message_type",
            "private",
            "sender",
            "source_id",
            "status"
        ]
    );
    assert_eq!(answer["message_type"], 1);
    assert_eq!(answer["echo_id"], "e1");
    assert_eq!(answer["content_attributes"]["relais_turn"], "t-1");
    assert_eq!(answer["status"], "delivered", "a source id means that the channel is not asked to send it");
    assert_eq!(answer["sender"]["type"], "agent_bot");
    let stored = fake.conversation(key).unwrap();
    assert_eq!(stored.messages[0].source_id.as_deref(), Some("s"));
    // There is no idempotency: the same again is a second message.
    on(&fake, BOT, key, "POST", "messages", json!({ "content": "Hi", "echo_id": "e1" })).await;
    assert_eq!(fake.seen_by_customer(key).len(), 2);
}

#[tokio::test]
async fn liquid_runs_over_what_we_send_and_not_over_what_the_customer_says() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    let check = async |text: &str, expected: &str| {
        let answer = on(&fake, BOT, key, "POST", "messages", json!({ "content": text })).await.json();
        assert_eq!(answer["content"], expected, "sent {text}");
    };
    check("{{contact.email}} {{contact.custom_attribute.plan}}", "carla@example.com standard").await;
    check("{{contact.first_name}} {{contact.phone_number}}", "Carla +12025550143").await;
    check("{{agent.name}}{{agent.email}}", "Relais").await;
    check("`{{contact.email}}`", "`{{contact.email}}`").await;
    check("{% if contact.email %}secret{% endif %}", "secret").await;
    check("{\u{200b}{contact.email}}", "{\u{200b}{contact.email}}").await;
    fake.customer(key).says("{{contact.email}}").unwrap();
    assert_eq!(fake.seen_by_customer(key).last().unwrap().content.as_deref(), Some("{{contact.email}}"));
}

#[tokio::test]
async fn what_is_invalid_is_422() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    for body in [
        json!({ "content": "x".repeat(150_001) }),
        json!({ "content": "x", "message_type": "incoming" }),
        json!({ "content": "x", "content_type": "poem" }),
        json!({ "content": "x", "content_type": "input_select" }),
        json!({ "content": "x", "content_type": "input_select", "content_attributes": { "items": [{ "titel": "a" }] } }),
        json!({ "content": "x", "content_type": "cards", "content_attributes": { "items": [{ "title": "a" }] } }),
    ] {
        let answer = on(&fake, BOT, key, "POST", "messages", body).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        assert!(answer.json()["error"].is_string());
    }
    assert!(fake.seen_by_customer(key).is_empty());
    let items = json!({ "items": [{ "title": "Billing", "value": "billing" }] });
    let select = json!({ "content": "?", "content_type": "input_select", "content_attributes": items });
    assert_eq!(on(&fake, BOT, key, "POST", "messages", select).await.status, 200);
}

#[tokio::test]
async fn the_flood_guard_and_the_throttle_refuse_differently() {
    let settings = Settings { conversation_messages_per_minute_max: 3, calls_per_minute_max: Some(6), ..quick() };
    let (fake, _receiver) = start(settings).await;
    let key = fake.new_conversation().unwrap();
    let mut statuses = Vec::new();
    for _ in 0..14 {
        let answer = on(&fake, BOT, key, "POST", "messages", json!({ "content": "x" })).await;
        if answer.status == 429 {
            assert_eq!((answer.content_type.as_str(), answer.text.as_str()), ("text/plain", "Retry later\n"));
        }
        statuses.push(answer.status);
    }
    // A minute may end in between and start the count anew, so only what must hold is asked.
    assert_eq!(statuses[..4], [200, 200, 200, 422]);
    assert!(statuses.contains(&429));
    assert_eq!(fake.customer(key).says("x"), Err(Refused::Flood), "everyone's messages count");
}

#[tokio::test]
async fn assigning_an_unknown_id_unassigns_with_200_and_null() {
    let (fake, _receiver) = start(quick()).await;
    let world = fake.world();
    let (key, team_id) = (fake.new_conversation().unwrap(), *world.team_ids.first().unwrap());
    let assign = async |body: Value| {
        let answer = on(&fake, BOT, key, "POST", "assignments", body).await;
        assert_eq!(answer.status, 200);
        answer.json()
    };
    let now = || fake.conversation(key).map(|found| (found.assignee, found.team_id)).unwrap();
    assert_eq!(assign(json!({ "team_id": team_id })).await["name"], "support");
    assert_eq!(assign(json!({ "assignee_id": world.human_id })).await["id"], world.human_id);
    assert_eq!(now(), (Some(Assignee::Human(world.human_id)), Some(team_id)));
    assert_eq!(assign(json!({ "assignee_id": 999, "team_id": 998 })).await, Value::Null);
    assert_eq!(now(), (None, Some(team_id)), "the assignee wins, the team is not looked at");
    assert_eq!(assign(json!({ "team_id": 999 })).await, Value::Null);
    assert_eq!(now(), (None, None));
    assign(json!({ "assignee_id": world.bot_id, "assignee_type": "AgentBot" })).await;
    assert_eq!(assign(json!({ "assignee_id": 999, "assignee_type": "AgentBot" })).await, Value::Null);
    assert_eq!(now().0, Some(Assignee::Bot(world.bot_id)), "an unknown bot changes nothing");
    assign(json!({ "assignee_id": world.human_id })).await;
    assert_eq!(now().0, Some(Assignee::Human(world.human_id)), "a human clears the bot");
    let outsiders = fake.add_team("others", &[]);
    assign(json!({ "team_id": outsiders })).await;
    assert_eq!(now(), (None, Some(outsiders)), "a team drops a human who is not in it");
}

#[tokio::test]
async fn labels_and_attributes_are_replaced() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    on(&fake, BOT, key, "POST", "labels", json!({ "labels": ["a", "b"] })).await;
    let answer = on(&fake, BOT, key, "POST", "labels", json!({ "labels": ["c"] })).await;
    assert_eq!(answer.json(), json!({ "payload": ["c"] }));
    on(&fake, BOT, key, "POST", "custom_attributes", json!({ "custom_attributes": { "a": 1 } })).await;
    on(&fake, BOT, key, "POST", "custom_attributes", json!({ "custom_attributes": { "b": 2 } })).await;
    on(&fake, BOT, key, "POST", "toggle_priority", json!({ "priority": "urgent" })).await;
    let conversation = fake.conversation(key).unwrap();
    assert_eq!(conversation.labels, ["c"]);
    assert_eq!(Value::Object(conversation.custom_attributes), json!({ "b": 2 }));
    assert_eq!(conversation.priority.as_deref(), Some("urgent"));
    settled(&fake).await;
    assert_eq!(receiver.events(), ["conversation_updated"; 5]);
    on(&fake, BOT, key, "POST", "toggle_priority", json!({})).await;
    assert_eq!(fake.conversation(key).unwrap().priority, None);
}

#[tokio::test]
async fn reading_a_conversation_with_a_team_breaks_for_a_bot_in_this_release_only() {
    for (rules, expected) in [(Rules::V4_15_1, 500), (Rules::Later, 200)] {
        let (fake, _receiver) = start(Settings { rules, ..quick() }).await;
        let key = fake.new_conversation().unwrap();
        fake.customer(key).says("Hi").unwrap();
        let view = on(&fake, BOT, key, "GET", "", Value::Null).await.json();
        assert_eq!((view["status"].as_str(), view["id"].as_u64()), (Some("pending"), Some(key.conversation_id)));
        assert_eq!(view["last_non_activity_message"]["content"], "Hi");
        assert_eq!(view["meta"]["sender"]["name"], "Carla Customer");
        fake.act(key, Act::AssignTeam { team_id: fake.world().team_ids.first().copied() }).unwrap();
        assert_eq!(on(&fake, BOT, key, "GET", "", Value::Null).await.status, expected);
        assert_eq!(on(&fake, USER, key, "GET", "", Value::Null).await.json()["meta"]["team"]["name"], "support");
    }
}

#[tokio::test]
async fn messages_are_paged_by_id() {
    let (fake, _receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    let ids: Vec<u64> = (0..130).map(|n| fake.customer(key).says(&n.to_string()).unwrap()).collect();
    fake.private_note(key, "note").unwrap();
    let page = async |query: &str| {
        let answer = on(&fake, USER, key, "GET", &format!("messages?{query}"), Value::Null).await.json();
        let payload = answer["payload"].as_array().unwrap().clone();
        payload.iter().map(|message| message["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(page("filter_internal_messages=true").await, ids[110..], "the newest 20, ascending");
    assert_eq!(page("").await.len(), 20);
    assert_eq!(page(&format!("before={}", ids[50])).await, ids[30..50]);
    assert_eq!(page(&format!("after={}", ids[4])).await, ids[5..105], "100 at most");
    assert_eq!(page(&format!("after={}&before={}", ids[5], ids[128])).await, ids[5..128]);
}

#[tokio::test]
async fn the_list_of_conversations_filters_and_pages() {
    let (fake, _receiver) = start(quick()).await;
    for _ in 0..30 {
        fake.new_conversation().unwrap();
    }
    let first = fake.conversation_keys()[0];
    fake.human_takes_over(first).unwrap();
    let list = async |query: &str| {
        let url = format!("/api/v1/accounts/1/conversations?{query}");
        call(&fake, USER, "GET", &url, Value::Null).await.json()["data"].clone()
    };
    let open = list("").await;
    assert_eq!(open["payload"][0]["id"], first.conversation_id);
    assert_eq!(open["meta"]["all_count"], 1);
    let inbox = fake.world().chatwoot_inbox_id;
    assert_eq!(list(&format!("status=pending&inbox_id={inbox}")).await["payload"].as_array().unwrap().len(), 25);
    assert_eq!(list("status=pending&page=2").await["payload"].as_array().unwrap().len(), 4);
    assert_eq!(list("status=all").await["meta"]["all_count"], 30);
    assert_eq!(list("status=pending&inbox_id=1").await["payload"], json!([]));
}

#[tokio::test]
async fn typing_is_recorded() {
    let (fake, receiver) = start(quick()).await;
    let key = fake.new_conversation().unwrap();
    for state in ["on", "off"] {
        let answer = on(&fake, BOT, key, "POST", "toggle_typing_status", json!({ "typing_status": state })).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    }
    assert_eq!(fake.conversation(key).unwrap().typing, [true, false]);
    settled(&fake).await;
    assert!(receiver.got().is_empty());
}
