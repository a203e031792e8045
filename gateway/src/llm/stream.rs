//! A streamed answer on its way through: frames pass as they came, and what they cost is counted.
//!
//! A pure state machine over chunks. It counts one token per frame that carries a piece of the answer, until the
//! provider's usage says better; it hides the usage-only frame from a client that did not ask for one; and it can
//! end the answer early in the client's own protocol: `finish_reason: "length"`, usage if asked for, `[DONE]`.
//!
//! It does not read from a socket, hold a reservation or know a deadline: those are its caller's.

use bytes::{BufMut as _, Bytes, BytesMut};
use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::llm::sse::{self, FrameTooLong, Frames};
use crate::llm::usage::{self, Usage};

/// One answer's passage.
#[derive(Debug)]
pub struct Stream {
    frames: Frames,
    whole: Vec<Bytes>,
    find_usage: Finder<'static>,
    find_empty_delta: Finder<'static>,
    usage_asked_for: bool,
    told: Option<Usage>,
    counted: u64,
    last: Bytes,
    done: bool,
}

impl Stream {
    /// Nothing has come yet.
    pub fn new(frame_bytes_max: usize, usage_asked_for: bool) -> Self {
        Self {
            frames: Frames::new(frame_bytes_max),
            whole: Vec::new(),
            find_usage: Finder::new(b"\"usage\":{"),
            find_empty_delta: Finder::new(b"\"delta\":{}"),
            usage_asked_for,
            told: None,
            counted: 0,
            last: Bytes::new(),
            done: false,
        }
    }

    /// Takes a chunk; gives what the client may see of it now (may be empty).
    pub fn push(&mut self, chunk: Bytes) -> Result<Bytes, FrameTooLong> {
        let at_frame = self.frames.is_between();
        let mut whole = std::mem::take(&mut self.whole);
        let pushed = self.frames.push(chunk.clone(), &mut whole);
        let mut hidden = false;
        let mut kept = 0;
        for at in 0..whole.len() {
            let Some(frame) = whole.get(at) else { break };
            if self.hide(frame) {
                hidden = true;
            } else {
                whole.swap(kept, at);
                kept += 1;
            }
        }
        whole.truncate(kept);
        let out = if at_frame && self.frames.is_between() && !hidden {
            // Whole frames and nothing else: they leave together, as they came.
            chunk
        } else if let [one] = whole.as_slice() {
            one.clone()
        } else {
            let mut joined = BytesMut::with_capacity(whole.iter().map(Bytes::len).sum());
            whole.iter().for_each(|frame| joined.put_slice(frame));
            joined.freeze()
        };
        whole.clear();
        self.whole = whole;
        pushed.map(|()| out)
    }

    /// The upstream has closed: what it left unfinished.
    pub fn finish(&mut self) -> Option<Bytes> {
        let rest = self.frames.finish()?;
        (!self.hide(&rest)).then_some(rest)
    }

    /// Looks at one frame: counts it, or learns from it, and says whether the client must not see it.
    fn hide(&mut self, frame: &Bytes) -> bool {
        if self.find_usage.find(frame).is_some()
            && let Some(data) = sse::data(frame)
        {
            let chunk = usage::chunk(data);
            self.told = chunk.usage.or(self.told);
            if chunk.usage_only {
                return !self.usage_asked_for;
            }
        }
        match sse::data(frame) {
            Some(b"[DONE]") => self.done = true,
            Some(_) => {
                if self.find_empty_delta.find(frame).is_none() {
                    self.counted += 1;
                }
                self.last = frame.clone();
            }
            None => {}
        }
        false
    }

    /// `[DONE]` has passed: the answer is whole.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What the provider told.
    pub fn told(&self) -> Option<Usage> {
        self.told
    }

    /// Output tokens so far: told, or else counted.
    pub fn output(&self) -> u64 {
        self.told.map_or(self.counted, |usage| usage.output)
    }

    /// Ends the answer here, for want of budget: the frames that say so in the client's protocol.
    pub fn cut_off(&mut self, usage: Usage) -> Bytes {
        self.done = true;
        let last: Value = sse::data(&self.last).and_then(|data| serde_json::from_slice(data).ok()).unwrap_or_default();
        let head = |key: &str| last.get(key).cloned().unwrap_or(Value::Null);
        let answers = last.get("choices").and_then(Value::as_array).map_or(0, Vec::len).max(1);
        let choices: Vec<Value> =
            (0..answers).map(|index| json!({"index": index, "delta": {}, "finish_reason": "length"})).collect();
        let chunk = |choices: Value| {
            json!({
                "id": head("id"), "object": "chat.completion.chunk", "created": head("created"),
                "model": head("model"), "choices": choices,
            })
        };
        let mut out = BytesMut::new();
        let mut frame = |value: &Value| {
            out.put_slice(b"data: ");
            out.put_slice(value.to_string().as_bytes());
            out.put_slice(b"\n\n");
        };
        frame(&chunk(Value::from(choices)));
        if self.usage_asked_for {
            let mut last = chunk(json!([]));
            if let Some(object) = last.as_object_mut() {
                let total = usage.input.saturating_add(usage.output);
                object.insert(
                    "usage".to_owned(),
                    json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": total}),
                );
            }
            frame(&last);
        }
        out.put_slice(b"data: [DONE]\n\n");
        out.freeze()
    }
}

/// One error event, after which the stream ends without `[DONE]`.
pub fn error_event(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 8);
    out.put_slice(b"data: ");
    out.put_slice(body);
    out.put_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[u8] =
        b"data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    const END: &[u8] = b"data: {\"id\":\"x\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &[u8] =
        b"data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
    const DONE: &[u8] = b"data: [DONE]\n\n";

    fn pass(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
        stream.push(Bytes::copy_from_slice(bytes)).unwrap().to_vec()
    }

    #[test]
    fn frames_pass_and_are_counted_until_the_usage_tells() {
        let mut stream = Stream::new(1000, true);
        assert_eq!(pass(&mut stream, &[A, A].concat()), [A, A].concat());
        assert_eq!(stream.output(), 2);
        assert_eq!(pass(&mut stream, &A[..20]), b"");
        assert_eq!(pass(&mut stream, &[&A[20..], END].concat()), [A, END].concat());
        assert_eq!(stream.output(), 3);
        assert_eq!(pass(&mut stream, &[USAGE, DONE].concat()), [USAGE, DONE].concat());
        assert_eq!((stream.output(), stream.is_done()), (2, true));
    }

    #[test]
    fn usage_that_was_not_asked_for_is_hidden() {
        let mut stream = Stream::new(1000, false);
        assert_eq!(pass(&mut stream, &[A, USAGE, DONE].concat()), [A, DONE].concat());
        assert_eq!(stream.told().unwrap().input, 9);
    }

    #[test]
    fn a_chunk_of_whole_frames_is_not_copied() {
        let mut stream = Stream::new(1000, false);
        let chunk = Bytes::from([A, A].concat());
        assert_eq!(stream.push(chunk.clone()).unwrap().as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn a_cut_off_reads_as_an_ordinary_end() {
        let mut stream = Stream::new(1000, true);
        pass(&mut stream, A);
        let text =
            String::from_utf8(stream.cut_off(Usage { input: 4, output: 1, ..Usage::default() }).to_vec()).unwrap();
        let frames: Vec<&str> = text.trim_end().split("\n\n").collect();
        assert_eq!(frames.len(), 3);
        let end: Value = serde_json::from_str(frames[0].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(
            (&end["choices"][0]["finish_reason"], &end["id"], &end["model"]),
            (&json!("length"), &json!("x"), &json!("m"))
        );
        let usage: Value = serde_json::from_str(frames[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(usage["usage"]["total_tokens"], 5);
        assert_eq!(frames[2], "data: [DONE]");
    }
}
