//! Both dialects, frame by frame: what passes, what is counted, and how an answer ends.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const A: &[u8] =
    b"data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
const END: &[u8] = b"data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &[u8] = b"data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

fn chat(usage_asked_for: bool) -> Stream {
    Stream::new(Endpoint::Chat, 2000, 1, usage_asked_for)
}

fn responses() -> Stream {
    Stream::new(Endpoint::Responses, 20_000, 1, true)
}

fn pass(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    stream.push(Bytes::copy_from_slice(bytes), |_| true).bytes.to_vec()
}

/// The data of every frame, and the name of its event.
fn frames(bytes: &[u8]) -> Vec<(Option<String>, String)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let field = |frame: &str, name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    text.split("\n\n")
        .filter(|frame| !frame.is_empty())
        .map(|frame| (field(frame, "event: "), field(frame, "data: ").unwrap_or_default()))
        .collect()
}

fn values(bytes: &[u8]) -> Vec<Value> {
    frames(bytes).iter().filter_map(|(_, data)| serde_json::from_str(data).ok()).collect()
}

fn event(kind: &str, number: u64, fields: Value) -> Vec<u8> {
    let mut event = json!({"type": kind, "sequence_number": number});
    event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("event: {kind}\ndata: {event}\n\n").into_bytes()
}

/// A response with a finished item of reasoning and an open message that says `text`.
fn under_way(text: &[&str]) -> Vec<u8> {
    let mut events = vec![
        event(
            "response.created",
            0,
            json!({"response": {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "output": [], "usage": null}}),
        ),
        event("response.output_item.added", 1, json!({"output_index": 0, "item": {"id": "rs_1", "type": "reasoning"}})),
        event(
            "response.output_item.done",
            2,
            json!({"output_index": 0, "item": {"id": "rs_1", "type": "reasoning", "summary": []}}),
        ),
        event(
            "response.output_item.added",
            3,
            json!({"output_index": 1, "item": {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}}),
        ),
        event(
            "response.content_part.added",
            4,
            json!({"item_id": "msg_1", "output_index": 1, "content_index": 0, "part": {"type": "output_text", "text": ""}}),
        ),
    ];
    for (number, piece) in text.iter().enumerate() {
        events.push(event(
            "response.output_text.delta",
            5 + number as u64,
            json!({"item_id": "msg_1", "output_index": 1, "content_index": 0, "delta": piece}),
        ));
    }
    events.concat()
}

#[test]
fn frames_pass_and_are_counted_until_the_usage_tells() {
    let mut stream = chat(true);
    assert_eq!(pass(&mut stream, &[A, A].concat()), [A, A].concat());
    assert_eq!(stream.output(), 2);
    assert_eq!(pass(&mut stream, &A[..20]), b"");
    assert_eq!(pass(&mut stream, &[&A[20..], END].concat()), [A, END].concat());
    assert_eq!((stream.output(), stream.told()), (3, None));
    assert_eq!(pass(&mut stream, &[USAGE, DONE].concat()), [USAGE, DONE].concat());
    assert_eq!((stream.told().unwrap().output, stream.is_done()), (2, true));
}

#[test]
fn only_what_says_something_is_counted() {
    for (choice, pieces) in [
        (r#"{"delta":{"role":"assistant","content":"","refusal":null}}"#, 0),
        (r#"{"delta":{"role":"assistant","content":"a"}}"#, 1),
        (r#"{"delta":{"content":""}}"#, 0),
        (r#"{"delta":{"content":null,"reasoning_content":"hm"}}"#, 1),
        (r#"{"delta":{"content":"","reasoning":"hm"}}"#, 1),
        (r#"{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}"#, 1),
        (r#"{"delta": {"content": "spaced"}}"#, 1),
        (r#"{"delta": {"content": ""}}"#, 0),
        (r#"{"delta":{},"finish_reason":"stop"}"#, 0),
        (r#"{"delta":{"content":"\"usage\":{"}}"#, 1),
    ] {
        let mut stream = chat(false);
        let frame = format!("data: {{\"choices\":[{choice}]}}\n\n");
        assert_eq!(pass(&mut stream, frame.as_bytes()), frame.as_bytes());
        assert_eq!(stream.output(), pieces, "{choice}");
    }
    for (choice, pieces) in [(r#"{"text":"a","index":0}"#, 1), (r#"{"text":"","finish_reason":"stop"}"#, 0)] {
        let mut stream = Stream::new(Endpoint::Completions, 1000, 1, false);
        pass(&mut stream, format!("data: {{\"choices\":[{choice}]}}\n\n").as_bytes());
        assert_eq!(stream.output(), pieces, "{choice}");
    }
}

#[test]
fn usage_that_was_not_asked_for_is_hidden_and_beside_content_it_passes() {
    let mut stream = chat(false);
    assert_eq!(pass(&mut stream, &[A, USAGE, DONE].concat()), [A, DONE].concat());
    assert_eq!(stream.told().unwrap().input, 9);

    let spaced = b"data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 2}}\n\n";
    assert_eq!(pass(&mut chat(false), spaced), b"");

    let both = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n";
    assert_eq!(pass(&mut chat(false), both), both);
}

#[test]
fn a_running_usage_is_not_believed_to_be_the_last() {
    let running = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":0}}\n\n";
    let mut stream = chat(false);
    pass(&mut stream, &[running.as_slice(), A, A].concat());
    assert_eq!((stream.output(), stream.told().unwrap().output), (3, 3));
    // An explicit zero at the end is the provider's word.
    let zero = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n";
    pass(&mut stream, &[zero.as_slice(), DONE].concat());
    assert_eq!(stream.told(), Some(Usage::default()));
}

#[test]
fn a_chunk_of_whole_frames_is_not_copied() {
    let mut stream = chat(false);
    let chunk = Bytes::from([A, A].concat());
    assert_eq!(stream.push(chunk.clone(), |_| true).bytes.as_ptr(), chunk.as_ptr());
}

#[test]
fn nothing_passes_behind_the_piece_that_was_the_last() {
    let mut stream = chat(true);
    let passed = stream.push(Bytes::from([A, A, A, USAGE, DONE].concat()), |output| output < 2);
    assert_eq!((passed.bytes, passed.end), (Bytes::from([A, A].concat()), End::Stopped));
    assert_eq!((stream.output(), stream.told()), (2, None));
}

#[test]
fn a_chat_cut_off_reads_as_an_ordinary_end() {
    let mut stream = Stream::new(Endpoint::Chat, 2000, 3, true);
    let other = b"data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    pass(&mut stream, &[other.as_slice(), A].concat());
    let end = stream.cut_off(&Usage { input: 4, output: 1, ..Usage::default() });
    let values = values(&end);
    let ended: Vec<(u64, &str)> = values[0]["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].as_u64().unwrap(), choice["finish_reason"].as_str().unwrap()))
        .collect();
    assert_eq!(ended, [(0, "length"), (2, "length")]);
    assert_eq!((&values[0]["id"], &values[0]["model"]), (&json!("x"), &json!("m")));
    assert_eq!(values[1]["usage"]["total_tokens"], 5);
    assert_eq!(frames(&end)[2].1, "[DONE]");
}

#[test]
fn a_completion_is_cut_off_in_its_own_words() {
    let mut stream = Stream::new(Endpoint::Completions, 2000, 2, false);
    pass(
        &mut stream,
        b"data: {\"id\":\"c\",\"object\":\"text_completion\",\"choices\":[{\"text\":\"a\",\"index\":0}]}\n\n",
    );
    let end = stream.cut_off(&Usage::default());
    let values = values(&end);
    assert_eq!(values.len(), 1);
    assert_eq!((&values[0]["object"], &values[0]["id"]), (&json!("text_completion"), &json!("c")));
    assert_eq!(values[0]["choices"][1], json!({"index": 1, "text": "", "logprobs": null, "finish_reason": "length"}));
    assert!(end.ends_with(DONE));
}

#[test]
fn an_error_of_the_upstream_ends_the_answer_once() {
    let error = b"data: {\"error\":{\"message\":\"The model crashed.\"}}\n\n";
    let passed = chat(false).push(Bytes::from([A, error.as_slice(), A].concat()), |_| true);
    assert_eq!((passed.bytes, passed.end), (Bytes::from([A, error.as_slice()].concat()), End::Failed));
}

#[test]
fn what_is_no_json_ends_the_answer() {
    for bad in [
        b"data: {\"choices\":[{\n\n".as_slice(),
        b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n",
        b"data: hello\n\n",
    ] {
        let passed = chat(false).push(Bytes::from([A, bad, A].concat()), |_| true);
        assert_eq!((passed.bytes, passed.end), (Bytes::from_static(A), End::Unreadable));
    }
    let long = [b"data: ", "x".repeat(3000).as_bytes()].concat();
    assert_eq!(chat(false).push(Bytes::from(long), |_| true).end, End::Unreadable);
}

#[test]
fn an_end_without_done_is_an_end_only_if_the_usage_was_told() {
    let mut stream = chat(false);
    pass(&mut stream, &[A, END].concat());
    assert_eq!(stream.finish().end, End::Unreadable);
    let mut stream = chat(true);
    pass(&mut stream, A);
    let last = USAGE.strip_suffix(b"\n\n").unwrap();
    assert_eq!(pass(&mut stream, last), b"");
    let passed = stream.finish();
    assert_eq!((passed.bytes, passed.end), (Bytes::from_static(last), End::Done));
}

#[test]
fn events_of_every_kind_of_piece_are_counted_and_the_last_tells() {
    let mut stream = responses();
    let mut all = under_way(&["Hello", " world"]);
    for (number, kind) in ["refusal", "reasoning_text", "function_call_arguments"].iter().enumerate() {
        all.extend(event(&format!("response.{kind}.delta"), 7 + number as u64, json!({"delta": "x"})));
    }
    assert_eq!(pass(&mut stream, &all), all);
    assert_eq!((stream.output(), stream.is_done()), (5, false));
    let last = event(
        "response.completed",
        10,
        json!({"response": {"id": "resp_1", "status": "completed",
        "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 4}}}),
    );
    assert_eq!(pass(&mut stream, &[last.as_slice(), DONE].concat()), [last.as_slice(), DONE].concat());
    assert!(stream.is_done());
    assert_eq!(stream.told(), Some(Usage { input: 7, cached: 3, output: 4, reasoning: 0 }));
}

#[test]
fn a_response_s_failure_is_its_end() {
    for last in [
        event(
            "response.failed",
            9,
            json!({"response": {"status": "failed", "error": {"code": "server_error"}, "usage": null}}),
        ),
        event("error", 9, json!({"code": "server_error", "message": "no"})),
        b"data: {\"error\":{\"message\":\"no\"}}\n\n".to_vec(),
    ] {
        let mut stream = responses();
        let passed = stream.push(Bytes::from([under_way(&["a"]), last.clone()].concat()), |_| true);
        assert_eq!(passed.end, End::Failed);
        assert!(passed.bytes.ends_with(&last));
    }
    let mut stream = responses();
    pass(&mut stream, &[under_way(&["a"]), DONE.to_vec()].concat());
    assert_eq!(stream.finish().end, End::Unreadable);
}

#[test]
fn a_response_is_cut_off_whole_and_says_why() {
    let mut stream = responses();
    pass(&mut stream, &under_way(&["Say \"hi\"", " \u{e9}\n", "…"]));
    let end = stream.cut_off(&Usage { input: 4, cached: 1, output: 3, reasoning: 2 });
    let names: Vec<String> = frames(&end).into_iter().filter_map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete"]
    );
    let values = values(&end);
    let numbers: Vec<u64> = values.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [8, 9, 10, 11]);
    let said = "Say \"hi\" \u{e9}\n…";
    assert_eq!(values[0]["text"], said);
    let response = &values[3]["response"];
    assert_eq!((&response["id"], &response["model"]), (&json!("resp_1"), &json!("m")));
    assert_eq!(
        (&response["status"], &response["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(response["output"][0]["id"], "rs_1");
    assert_eq!(response["output"][1]["content"][0]["text"], said);
    assert_eq!(response["output"][1]["status"], "incomplete");
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 4, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 7})
    );
}

#[test]
fn what_an_early_end_would_repeat_is_bounded() {
    let mut stream = Stream::new(Endpoint::Responses, 600, 1, true);
    let piece = "x".repeat(100);
    pass(&mut stream, &under_way(&[piece.as_str(); 50]));
    let end = stream.cut_off(&Usage::default());
    let text = values(&end)[0]["text"].as_str().unwrap().len();
    assert!((400..=600).contains(&text), "{text}");
}

#[test]
fn an_error_event_is_numbered_on_and_makes_sdks_raise() {
    let mut stream = responses();
    pass(&mut stream, &under_way(&["a"]));
    let event = stream.error_event(
        br#"{"error":{"message":"It broke off.","type":"upstream_error","param":null,"code":"upstream_failed"}}"#,
    );
    let values = values(&event);
    assert_eq!(frames(&event)[0].0.as_deref(), Some("error"));
    assert_eq!((&values[0]["type"], &values[0]["sequence_number"]), (&json!("error"), &json!(6)));
    assert_eq!(
        (&values[0]["code"], &values[0]["error"]["message"]),
        (&json!("upstream_failed"), &json!("It broke off."))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However an answer is cut into chunks: the same bytes pass, the same is counted, it ends the same.
    #[test]
    fn any_cut_passes_the_same(
        parts in proptest::collection::vec(prop_oneof![Just(A), Just(END), Just(USAGE), Just(DONE), Just(b": c\n\n".as_slice())], 0..12),
        cuts in proptest::collection::vec(0usize..900, 0..8), asked in any::<bool>(), limit in 1u64..6,
    ) {
        let whole = parts.concat();
        let mut at_once = chat(asked);
        let expected = at_once.push(Bytes::from(whole.clone()), |output| output < limit);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < whole.len()).collect();
        cuts.sort_unstable();
        let mut stream = chat(asked);
        let (mut out, mut at) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([whole.len()]) {
            out.extend_from_slice(&stream.push(Bytes::copy_from_slice(&whole[at..cut]), |output| output < limit).bytes);
            at = cut;
        }
        prop_assert_eq!(out, expected.bytes.to_vec());
        prop_assert_eq!((stream.output(), stream.told(), stream.end), (at_once.output(), at_once.told(), expected.end));
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), chat_or_not in any::<bool>()) {
        let mut stream = if chat_or_not { chat(true) } else { responses() };
        stream.push(Bytes::from([b"data: {".as_slice(), &bytes, b"\n\n"].concat()), |_| true);
        stream.finish();
        stream.cut_off(&Usage::default());
        stream.error_event(b"");
    }
}
