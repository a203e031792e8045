//! A streamed answer on its way through: frames pass as they came, and what they cost is counted.
//!
//! A pure state machine over chunks. It counts one token per frame that carries a piece of the answer, until the
//! provider's usage says better; it hides the usage-only frame from a client that did not ask for one; and it can
//! end the answer early in the client's own protocol. There are two: `chunks` (chat and completions) and `events`
//! (responses).
//!
//! It does not read from a socket, hold a reservation or know a deadline: those are its caller's, which is asked
//! after each piece whether the next may pass.

mod chunks;
mod events;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::Value;

use crate::llm::endpoint::Endpoint;
use crate::llm::sse::{self, Frames};
use crate::llm::usage::Usage;

use chunks::Chunks;
use events::Events;

/// One answer's passage.
#[derive(Debug)]
pub struct Stream {
    frames: Frames,
    whole: Vec<Bytes>,
    dialect: Dialect,
    told: Option<Usage>,
    /// The usage told is that of the whole answer, not a running one.
    told_last: bool,
    counted: u64,
    end: End,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More is to come.
    Open,
    /// It is whole.
    Done,
    /// The caller let no more of it pass.
    Stopped,
    /// The upstream has said, in its own event, that it failed.
    Failed,
    /// What came cannot be read, or is longer than may be.
    Unreadable,
}

/// What the client may see of a chunk, and how far the answer is behind it.
#[derive(Debug)]
pub struct Passed {
    /// May be empty.
    pub bytes: Bytes,
    /// Behind these bytes.
    pub end: End,
}

#[derive(Debug)]
enum Dialect {
    Chunks(Box<Chunks>),
    Events(Box<Events>),
}

/// What one frame says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// It carries a piece of the answer.
    piece: bool,
    /// The usage it tells, if one.
    usage: Option<Usage>,
    /// That usage is of the whole answer.
    last_usage: bool,
    /// The client must not see it.
    hide: bool,
    done: bool,
    failed: bool,
}

/// The frame's data is no JSON object.
#[derive(Debug)]
struct Unreadable;

impl Stream {
    /// Nothing has come yet. `answers` are written at once; `usage_asked_for` says whether the client wants to see
    /// the usage.
    pub fn new(endpoint: Endpoint, frame_bytes_max: usize, answers: u64, usage_asked_for: bool) -> Self {
        let dialect = match endpoint {
            Endpoint::Responses => Dialect::Events(Box::new(Events::new(frame_bytes_max))),
            _ => Dialect::Chunks(Box::new(Chunks::new(endpoint, answers, usage_asked_for))),
        };
        Self {
            frames: Frames::new(frame_bytes_max),
            whole: Vec::new(),
            dialect,
            told: None,
            told_last: false,
            counted: 0,
            end: End::Open,
        }
    }

    /// Takes a chunk. After each piece of the answer `go_on` hears how many output tokens there are; once it says no,
    /// nothing behind that piece passes.
    pub fn push(&mut self, chunk: Bytes, mut go_on: impl FnMut(u64) -> bool) -> Passed {
        let at_frame = self.frames.is_between();
        let mut whole = std::mem::take(&mut self.whole);
        let pushed = self.frames.push(chunk.clone(), &mut whole);
        let (mut seen, mut kept) = (0, 0);
        while self.flows() {
            let Some(frame) = whole.get(seen) else { break };
            if self.passes(frame, &mut go_on) {
                whole.swap(kept, seen);
                kept += 1;
            }
            seen += 1;
        }
        let all = kept == whole.len();
        whole.truncate(kept);
        if pushed.is_err() && self.flows() {
            self.end = End::Unreadable;
        }
        let bytes = if all && at_frame && self.frames.is_between() {
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
        Passed { bytes, end: self.end }
    }

    /// The upstream has closed: what it left unfinished. An answer whose usage was told is whole, though some
    /// servers end it without saying so.
    pub fn finish(&mut self) -> Passed {
        let rest = self.frames.finish().filter(|rest| self.passes(rest, &mut |_| true)).unwrap_or_default();
        if self.end == End::Open {
            self.end = if self.told_last { End::Done } else { End::Unreadable };
        }
        Passed { bytes: rest, end: self.end }
    }

    fn flows(&self) -> bool {
        matches!(self.end, End::Open | End::Done)
    }

    /// Looks at one frame: counts it, learns from it, and says whether the client may see it.
    fn passes(&mut self, frame: &Bytes, go_on: &mut impl FnMut(u64) -> bool) -> bool {
        let Some(data) = sse::data(frame) else { return true };
        let look = match &mut self.dialect {
            Dialect::Chunks(chunks) => chunks.look(frame, &data),
            Dialect::Events(events) => events.look(frame, &data),
        };
        let Ok(look) = look else {
            if self.end == End::Open {
                self.end = End::Unreadable;
            }
            return false;
        };
        if self.end == End::Done {
            // What comes behind the end changes nothing any more.
            return !look.hide;
        }
        if look.usage.is_some() {
            self.told = look.usage;
            self.told_last = look.last_usage;
        }
        if look.failed {
            self.end = End::Failed;
        } else if look.done {
            self.end = End::Done;
        } else if look.piece {
            self.counted += 1;
            if !go_on(self.output()) {
                self.end = End::Stopped;
            }
        }
        !look.hide
    }

    /// The answer is whole.
    pub fn is_done(&self) -> bool {
        self.end == End::Done
    }

    /// What the provider told of the answer as far as it came. A running figure may lag behind what has passed,
    /// so an answer that is not whole has at least the output that was counted.
    pub fn told(&self) -> Option<Usage> {
        match self.told {
            Some(told) if !self.told_last && self.end != End::Done => {
                Some(Usage { output: told.output.max(self.counted), ..told })
            }
            told => told,
        }
    }

    /// Output tokens that have passed.
    pub fn output(&self) -> u64 {
        self.told.map_or(0, |usage| usage.output).max(self.counted)
    }

    /// Ends the answer here, for want of budget: the frames that say so in the client's protocol.
    pub fn cut_off(&mut self, usage: &Usage) -> Bytes {
        self.end = End::Stopped;
        match &self.dialect {
            Dialect::Chunks(chunks) => chunks.cut_off(usage),
            Dialect::Events(events) => events.cut_off(usage),
        }
    }

    /// One error event, after which the stream ends; `error` is OpenAI's error object in its envelope.
    pub fn error_event(&self, error: &[u8]) -> Bytes {
        match &self.dialect {
            Dialect::Chunks(_) => frame(None, error),
            Dialect::Events(events) => events.error_event(error),
        }
    }
}

fn frame(event: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 40);
    put_frame(&mut out, event, data);
    out.freeze()
}

fn put_frame(out: &mut BytesMut, event: Option<&str>, data: &[u8]) {
    if let Some(event) = event {
        out.put_slice(b"event: ");
        out.put_slice(event.as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"data: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}

/// A frame's data as a document, where one is needed whole: at an early end.
fn document(frame: &[u8]) -> Value {
    sse::data(frame).and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
