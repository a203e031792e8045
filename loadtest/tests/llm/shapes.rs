//! Unary answers: the fields, the numbers, the limits a client sets, and who is let in.

use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Outcome, Settings, ToolCall, UsageStyle};
use serde_json::{Value, json};

use crate::client::{PATIENCE, ask, fake, post, send};

const CHAT: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
}

#[tokio::test]
async fn a_chat_answer_has_every_field_and_honest_numbers() {
    let llm = fake(Behaviour { answer: Some("Your parcel is \"here\".".into()), ..Behaviour::default() }).await;
    let got = ask(&llm, CHAT, &hello()).await;
    assert_eq!((got.status, &got.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let answer = got.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "Your parcel is \"here\".");
    assert_eq!((&choice["finish_reason"], &choice["message"]["role"]), (&json!("stop"), &json!("assistant")));
    for (object, field) in [(choice, "logprobs"), (&choice["message"], "refusal")] {
        assert_eq!(object.get(field), Some(&Value::Null), "{field} is there and null");
    }
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    // The messages as JSON have 37 bytes; at four a token that is 10.
    let messages = hello()["messages"].to_string().len() as u64;
    assert_eq!(answer["usage"]["prompt_tokens"], messages.div_ceil(4));
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(answer["usage"]["total_tokens"], messages.div_ceil(4) + 4);

    let call = &llm.calls()[0];
    assert_eq!(call.id, answer["id"].as_str().unwrap());
    assert_eq!(
        (call.outcome, call.prompt_tokens, call.completion_tokens),
        (Outcome::Finished, messages.div_ceil(4), 4)
    );
    assert_eq!(
        (call.body.as_str(), call.header("content-type")),
        (hello().to_string().as_str(), Some("application/json"))
    );
}

#[tokio::test]
async fn the_clients_maximum_and_n_are_honoured() {
    let llm = fake(Behaviour { tokens: 10, reasoning_tokens: 3, cached_tokens: 2, ..Behaviour::default() }).await;
    for (extra, finish, tokens_each, choices, reasoning) in [
        (json!({}), "stop", 13, 1, 3),
        (json!({"max_tokens": 5}), "length", 5, 1, 3),
        (json!({"max_completion_tokens": 5, "max_tokens": 50}), "length", 5, 1, 3),
        (json!({"max_tokens": 2}), "length", 2, 1, 2),
        (json!({"max_tokens": 13}), "stop", 13, 1, 3),
        (json!({"n": 4}), "stop", 13, 4, 12),
        (json!({"n": 2, "max_tokens": 4}), "length", 4, 2, 6),
    ] {
        let mut body = hello();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = ask(&llm, CHAT, &body).await.json();
        assert_eq!(answer["choices"].as_array().unwrap().len(), choices, "{extra}");
        assert_eq!(answer["choices"][0]["finish_reason"], finish, "{extra}");
        let words = answer["choices"][0]["message"]["content"].as_str().unwrap().split_whitespace().count();
        let usage = &answer["usage"];
        assert_eq!(usage["completion_tokens"], tokens_each * choices, "{extra}");
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], reasoning, "{extra}");
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 2);
        assert_eq!(words, tokens_each - reasoning / choices, "{extra}");
    }
    let told: u64 = llm.calls().iter().map(|call| call.completion_tokens).sum();
    assert_eq!((told, llm.totals().completion_tokens), (13 + 5 + 5 + 2 + 13 + 52 + 8, told));
}

#[tokio::test]
async fn usage_can_be_anything_but_the_truth_stays() {
    let llm = fake(Behaviour { tokens: 6, ..Behaviour::default() }).await;
    for (style, prompt, completion) in [
        (UsageStyle::Zero, json!(0), json!(0)),
        (UsageStyle::Negative, json!(-7), json!(-11)),
        (UsageStyle::Huge, json!(1_000_000_000_000_000_000_u64), json!(1_000_000_000_000_000_000_u64)),
        (UsageStyle::Raw(r#"{"prompt_tokens":"1","completion_tokens":2.5}"#.into()), json!("1"), json!(2.5)),
    ] {
        llm.set(|behaviour| behaviour.usage = style.clone());
        let usage = &ask(&llm, CHAT, &hello()).await.json()["usage"];
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&prompt, &completion), "{style:?}");
    }
    llm.set(|behaviour| behaviour.usage = UsageStyle::Absent);
    assert_eq!(ask(&llm, CHAT, &hello()).await.json().get("usage"), None);
    assert_eq!(llm.totals().completion_tokens, 5 * 6);
}

#[tokio::test]
async fn a_tool_is_called_when_offered_and_its_result_is_answered_in_words() {
    let tool_call = ToolCall { name: "handoff_to_human".into(), arguments: r#"{"reason": "asked for"}"#.into() };
    let llm = fake(Behaviour { tool_call: Some(tool_call), ..Behaviour::default() }).await;
    let tools = json!([{"type": "function", "function": {"name": "handoff_to_human", "parameters": {}}}]);
    let mut body = hello();
    body["tools"] = tools;
    let answer = ask(&llm, CHAT, &body).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!((&answer["choices"][0]["finish_reason"], &message["content"]), (&json!("tool_calls"), &Value::Null));
    assert_eq!(message["tool_calls"][0]["function"]["name"], "handoff_to_human");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"reason": "asked for"}"#);

    let result = json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "done"});
    body["messages"].as_array_mut().unwrap().push(result);
    assert_eq!(ask(&llm, CHAT, &body).await.json()["choices"][0]["finish_reason"], "stop");
    // Without tools in the request there is nothing to call.
    assert_eq!(ask(&llm, CHAT, &hello()).await.json()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn text_completions_count_hidden_candidates() {
    let llm = fake(Behaviour { tokens: 5, ..Behaviour::default() }).await;
    let body = json!({"model": "m", "prompt": ["one", "two"], "best_of": 3, "n": 2});
    let answer = ask(&llm, "/v1/completions", &body).await.json();
    assert_eq!((&answer["object"], answer["choices"].as_array().unwrap().len()), (&json!("text_completion"), 4));
    assert_eq!(answer["choices"][3]["index"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 5 * 3 * 2);
    assert_eq!(llm.totals().completion_tokens, 30);
}

#[tokio::test]
async fn responses_end_completed_or_incomplete() {
    let llm = fake(Behaviour { tokens: 5, ..Behaviour::default() }).await;
    let whole = ask(&llm, "/v1/responses", &json!({"model": "m", "input": "Hello"})).await.json();
    assert_eq!((&whole["status"], &whole["usage"]["output_tokens"]), (&json!("completed"), &json!(5)));
    assert_eq!(whole["output"][0]["content"][0]["type"], "output_text");
    let cut = ask(&llm, "/v1/responses", &json!({"model": "m", "input": "Hello", "max_output_tokens": 3})).await.json();
    assert_eq!((&cut["status"], &cut["usage"]["output_tokens"]), (&json!("incomplete"), &json!(3)));
    assert_eq!(cut["incomplete_details"]["reason"], "max_output_tokens");
}

#[tokio::test]
async fn embeddings_are_the_same_as_numbers_and_as_base64() {
    let llm = fake(Behaviour::default()).await;
    let body = |format| json!({"model": "m", "input": ["a", "bc"], "dimensions": 3, "encoding_format": format});
    let numbers = ask(&llm, "/v1/embeddings", &body("float")).await.json();
    let encoded = ask(&llm, "/v1/embeddings", &body("base64")).await.json();
    assert_eq!(numbers["data"].as_array().unwrap().len(), 2);
    assert_eq!((&numbers["data"][1]["index"], numbers["usage"].get("completion_tokens")), (&json!(1), None));
    let first: Vec<f64> =
        numbers["data"][0]["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert!(first.len() == 3 && first.iter().all(|number| number.abs() <= 1.0));
    // 3 numbers of 4 bytes are 16 letters without padding.
    assert_eq!(encoded["data"][0]["embedding"].as_str().unwrap().len(), 16);
    assert_eq!(llm.totals().completion_tokens, 0);
}

#[tokio::test]
async fn only_the_key_is_let_in_and_only_listed_models_are_known() {
    let settings = Settings { key: Some("sk-up".into()), listed_models_only: true, ..Settings::default() };
    let llm = FakeLlm::start(settings).await.unwrap();
    let refused = ask(&llm, CHAT, &hello()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    let with_key = |model: &str| {
        let mut request = post(&llm, CHAT, &json!({"model": model, "messages": []}));
        request.headers_mut().insert("authorization", "Bearer sk-up".parse().unwrap());
        request
    };
    assert_eq!(send(with_key("fake-model")).await.status, 200);
    let unknown = send(with_key("gpt-99")).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(llm.wait_until(|totals| totals.refused == 2 && totals.finished == 1, PATIENCE).await);
    assert_eq!(llm.truth().by_model["fake-model"].finished, 1);
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let llm = fake(Behaviour::default()).await;
    let get = |path: &str| {
        let url = format!("{}{path}", llm.url());
        send(http::Request::get(url).body(http_body_util::Full::default()).unwrap())
    };
    assert_eq!(get("/v1/models").await.json()["data"][0]["id"], "fake-model");
    assert_eq!(get("/v1/models/fake-model").await.json()["object"], "model");
    assert_eq!(get("/v1/models/other").await.status, 404);
    assert_eq!(get("/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_with_its_field() {
    let llm = fake(Behaviour::default()).await;
    for (body, param) in [
        (json!({"messages": []}), "model"),
        (json!({"model": "m"}), "messages"),
        (json!({"model": "m", "messages": [], "max_tokens": 0}), "max_tokens"),
        (json!({"model": "m", "messages": [], "n": 1000}), "n"),
        (json!([1]), "body"),
    ] {
        let got = ask(&llm, CHAT, &body).await;
        assert_eq!((got.status, &got.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    assert_eq!((llm.totals().refused, llm.totals().prompt_tokens), (5, 0));
}

#[tokio::test]
async fn another_process_can_steer_it_and_read_the_truth() {
    let llm = fake(Behaviour::default()).await;
    assert_eq!(ask(&llm, "/control", &json!({"answer": "Steered."})).await.status, 200);
    let mut body = hello();
    body["user"] = json!("acme");
    assert_eq!(ask(&llm, CHAT, &body).await.json()["choices"][0]["message"]["content"], "Steered.");
    assert_eq!(ask(&llm, "/control", &json!({"anser": "typo"})).await.status, 400);
    let url = format!("{}/control/truth", llm.url());
    let truth = send(http::Request::get(&url).body(http_body_util::Full::default()).unwrap()).await.json();
    assert_eq!((&truth["totals"]["finished"], &truth["calls"][0]["user"]), (&json!(1), &json!("acme")));
    assert_eq!(truth["by_user"]["acme"]["completion_tokens"], 1);
    send(http::Request::delete(&url).body(http_body_util::Full::default()).unwrap()).await;
    assert_eq!((llm.totals().finished, llm.calls().len()), (0, 0));
}

#[tokio::test]
async fn only_the_last_calls_are_kept_but_all_are_counted() {
    let llm = FakeLlm::start(Settings { calls_max: 2, call_body_bytes_max: 8, ..Settings::default() }).await.unwrap();
    for _ in 0..5 {
        ask(&llm, CHAT, &hello()).await;
    }
    let truth = llm.truth();
    assert_eq!((truth.calls.len(), truth.calls_forgotten, truth.totals.finished), (2, 3, 5));
    assert_eq!((truth.calls[1].number, truth.calls[1].body.len()), (5, 8));
}
