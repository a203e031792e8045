//! The scan and the splice, case by case, and over bodies nobody thought of.

use super::*;
use Endpoint::{Chat, Completions, Embeddings, Responses};
use proptest::prelude::*;

fn splice(body: &str, edits: Edits<'_>) -> String {
    splice_for(Chat, body, edits)
}

fn splice_for(endpoint: Endpoint, body: &str, edits: Edits<'_>) -> String {
    let head = Head::scan(endpoint, body.as_bytes()).unwrap();
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    String::from_utf8(edits.splice(&bytes, &head).to_vec()).unwrap()
}

#[track_caller]
fn refused(body: &str, words: &str) {
    let error = Head::scan(Chat, body.as_bytes()).unwrap_err();
    assert_eq!(error.reason.fault(), crate::error::Fault::Client);
    assert!(error.message.contains(words), "{body}: {}", error.message);
}

#[test]
fn the_head_is_read_and_the_rest_is_not_looked_at() {
    let body = r#"{"messages":[{"role":"user","content":"hi","model":"inner"}],"model":"gpt-4o","stream":true,
        "stream_options":{"include_usage":true},"max_tokens":7,"max_completion_tokens":9,"n":2}"#;
    let head = Head::scan(Chat, body.as_bytes()).unwrap();
    assert_eq!((head.model(), head.stream, head.include_usage), ("gpt-4o", true, true));
    assert_eq!((head.output_max(), head.answers), (Some(9), 2));
}

#[test]
fn what_is_not_edited_is_the_same_buffer() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
    let head = Head::scan(Chat, &body).unwrap();
    let sent = Edits { include_usage: true, model: Some("m"), output_max: None }.splice(&body, &head);
    assert_eq!(sent.as_ptr(), body.as_ptr());
}

#[test]
fn edits_touch_nothing_else() {
    let usage = Edits { include_usage: true, ..Edits::default() };
    for (body, expected) in [
        (r#"{"model":"m","stream":true}"#, r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#),
        (
            r#"{ "stream" : true, "stream_options" : { "x" : 1 } , "model":"m"}"#,
            r#"{ "stream" : true, "stream_options" : {"include_usage":true, "x" : 1 } , "model":"m"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false},"model":"m"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{},"model":"m"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null,"model":"m"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#,
        ),
        (r#"{"model":"m","stream":false}"#, r#"{"model":"m","stream":false}"#),
    ] {
        assert_eq!(splice(body, usage), expected);
    }
    let rename = Edits { model: Some("lla\"ma"), ..Edits::default() };
    assert_eq!(splice(r#"{"a":"gpt","model":"gpt"}"#, rename), r#"{"a":"gpt","model":"lla\"ma"}"#);
}

#[test]
fn a_clamp_reaches_every_field_that_could_say_more() {
    let clamp = Edits { output_max: Some((5, "max_tokens")), ..Edits::default() };
    for (body, expected) in [
        (r#"{"model":"m"}"#, r#"{"max_tokens":5,"model":"m"}"#),
        (r#"{"model":"m","max_tokens":50}"#, r#"{"model":"m","max_tokens":5}"#),
        (
            r#"{"model":"m","max_tokens":50,"max_completion_tokens":70}"#,
            r#"{"model":"m","max_tokens":5,"max_completion_tokens":5}"#,
        ),
        (r#"{"model":"m","max_tokens":null}"#, r#"{"model":"m","max_tokens":5}"#),
        (
            r#"{"model":"m","max_tokens":null,"max_completion_tokens":2}"#,
            r#"{"model":"m","max_tokens":5,"max_completion_tokens":5}"#,
        ),
    ] {
        assert_eq!(splice(body, clamp), expected);
    }
}

#[test]
fn each_endpoint_is_clamped_in_its_own_field() {
    let clamp = Edits { output_max: Some((20, "max_completion_tokens")), include_usage: true, ..Edits::default() };
    for (endpoint, body, expected) in [
        (Chat, r#"{"model":"m"}"#, r#"{"max_completion_tokens":20,"model":"m"}"#),
        // A field of another endpoint limits nothing: the upstream would not obey it.
        (
            Chat,
            r#"{"model":"m","max_output_tokens":1}"#,
            r#"{"max_completion_tokens":20,"model":"m","max_output_tokens":1}"#,
        ),
        (
            Responses,
            r#"{"model":"m","stream":true,"max_tokens":1}"#,
            r#"{"max_output_tokens":20,"model":"m","stream":true,"max_tokens":1}"#,
        ),
        (Responses, r#"{"model":"m","max_output_tokens":90}"#, r#"{"model":"m","max_output_tokens":20}"#),
        (
            Completions,
            r#"{"model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"max_tokens":20,"model":"m","stream":true}"#,
        ),
        (Embeddings, r#"{"model":"m","stream":true}"#, r#"{"model":"m","stream":true}"#),
    ] {
        assert_eq!(splice_for(endpoint, body, clamp), expected, "{endpoint:?}");
    }
    let only_another = Head::scan(Chat, br#"{"model":"m","max_output_tokens":1}"#).unwrap();
    assert_eq!(only_another.output_max(), None);
}

#[test]
fn every_prompt_of_a_completion_is_answered() {
    for (prompt, answers) in [
        (r#""hi""#, 2),
        ("null", 2),
        ("[1, 2, 3]", 2),
        (r#"["a"]"#, 2),
        (r#"["a", "b", "c"]"#, 6),
        ("[[1, 2], [3]]", 4),
        (r#"[1, "a"]"#, 4),
        ("[]", 2),
        (r#"{"x": [1]}"#, 2),
    ] {
        let body = format!(r#"{{"model":"m","prompt":{prompt},"n":2}}"#);
        assert_eq!(Head::scan(Completions, body.as_bytes()).unwrap().answers, answers, "{prompt}");
        assert_eq!(Head::scan(Chat, body.as_bytes()).unwrap().answers, 2);
        assert_eq!(Head::scan(Responses, body.as_bytes()).unwrap().answers, 1);
    }
    let body = br#"{"model":"m","prompt":["a","b"],"n":2,"best_of":5}"#;
    assert_eq!(Head::scan(Completions, body).unwrap().answers, 10);
}

#[test]
fn what_an_upstream_remembers_is_noticed() {
    for (body, continues) in [
        (r#"{"model":"m","previous_response_id":"resp_1"}"#, true),
        (r#"{"model":"m","previous_response_id":null}"#, false),
        (r#"{"model":"m","conversation":{"id":"conv_1"}}"#, true),
        (r#"{"model":"m","prompt":{"id":"pmpt_1"}}"#, true),
        (r#"{"model":"m","input":"hi","store":true}"#, false),
    ] {
        assert_eq!(Head::scan(Responses, body.as_bytes()).unwrap().continues, continues, "{body}");
        assert!(!Head::scan(Chat, body.as_bytes()).unwrap().continues);
    }
}

#[test]
fn an_embedding_writes_nothing_and_a_completion_may() {
    let embedding = Head::scan(Embeddings, br#"{"model":"m","max_tokens":"x","stream":true}"#).unwrap();
    assert_eq!((embedding.output_max(), embedding.stream), (Some(0), false));
    let scores = Head::scan(Completions, br#"{"model":"m","max_tokens":0}"#).unwrap();
    assert_eq!(scores.output_max(), Some(0));
}

#[test]
fn two_meanings_are_refused() {
    refused(r#"{"model":"a","model":"b"}"#, "\"model\" stands twice");
    refused(r#"{"model":"a","Max_Tokens":5}"#, "\"max_tokens\" is not written in lower case");
    refused(r#"{"model":"a","max_tokens":5,"max_token\u0073":5000}"#, "\"max_tokens\" stands twice");
    refused(r#"{"model":"a","stream_options":{"include_usage":true,"Include_Usage":false}}"#, "stream_options");
}

#[test]
fn nonsense_is_named() {
    refused("", "line 1");
    refused("[]", "line 1");
    refused(r#"{"model":"a"} x"#, "line 1");
    refused(r#"{"messages":[]}"#, "\"model\" is missing");
    refused(r#"{"model":7}"#, "must be a string");
    refused(r#"{"model":""}"#, "1 to 256");
    refused(r#"{"model":"a","stream":"yes"}"#, "true or false");
    for limit in ["-1", "-1.0", "0", "0.0", "1.5", "1e2", "\"7\"", "99999999999999999999"] {
        refused(&format!(r#"{{"model":"a","max_tokens":{limit}}}"#), "whole number");
    }
    let head = Head::scan(Chat, br#"{"model":"a","max_tokens":16.0,"n":2.00}"#).unwrap();
    assert_eq!((head.output_max(), head.answers), (Some(16), 2));
    refused(r#"{"model":"a","n":129}"#, "from 1 to 128");
    refused(&format!(r#"{{"model":"{}"}}"#, "é".repeat(257)), "1 to 256");
    assert_eq!(Head::scan(Chat, format!(r#"{{"model":"{}"}}"#, "é".repeat(256)).as_bytes()).unwrap().answers, 1);
    refused(r#"{"model":"a","background":true}"#, "not supported");
    assert!(Head::scan(Chat, b"{\"model\":\"\xff\"}").is_err());
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{{\"x\":{}{},\"model\":\"a\"}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(Head::scan(Chat, deep.as_bytes()).unwrap().model(), "a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::scan(Chat, &body);
    }

    /// Whatever stands around the fields: the edited body says what the edits say, and all else as before.
    #[test]
    fn edited_bodies_mean_what_they_should(
        before in "[a-z]{1,8}", text in "\\PC{0,20}", stream in any::<bool>(),
        max in proptest::option::of(1u64..1000), usage in proptest::option::of(any::<bool>()),
    ) {
        let mut value = serde_json::json!({ format!("{before}_x"): text, "model": "m", "stream": stream });
        if let Some(max) = max { value["max_tokens"] = max.into(); }
        if let Some(usage) = usage { value["stream_options"] = serde_json::json!({"include_usage": usage}); }
        let body = Bytes::from(value.to_string());
        let head = Head::scan(Chat, &body).unwrap();
        let edits = Edits { model: Some("other"), include_usage: true, output_max: Some((3, "max_tokens")) };
        let sent: serde_json::Value = serde_json::from_slice(&edits.splice(&body, &head)).unwrap();
        value["model"] = "other".into();
        value["max_tokens"] = 3.into();
        if stream { value["stream_options"] = serde_json::json!({"include_usage": true}); }
        prop_assert_eq!(sent, value);
    }
}
