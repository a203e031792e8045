//! What the fake model does with the next call: what it says, how fast, how its bytes are cut, and
//! what goes wrong.
//!
//! Everything is data, so that the same words steer it from a test (`FakeLlm::set`) and from another
//! process (`POST /control`). Faults are tried in order and the first that applies to a call wins;
//! shares are drawn from a seeded generator, so that a run can be had again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How calls are answered. Missing fields in JSON have their defaults; unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The text to answer with, one token a word; without it, `tokens` words of our own.
    pub answer: Option<String>,
    /// Tokens in an answer without a text.
    pub tokens: u64,
    /// Call this tool if the request offers tools (and does not forbid calls) and has no tool's result since the last
    /// message of the user.
    pub tool_call: Option<ToolCall>,
    /// Then these, one after each tool's result.
    pub then_calls: Vec<ToolCall>,
    /// Tokens generated before the first visible one. They count as output, also towards the client's maximum.
    pub reasoning_tokens: u64,
    /// Prompt tokens reported as read from a cache (never more than the prompt has).
    pub cached_tokens: u64,
    /// Prompt tokens are the bytes of the prompt as it stands in the JSON, divided by this, rounded up.
    pub bytes_per_token: u64,
    /// Wait before the head of the response, milliseconds.
    pub first_byte_ms: u64,
    /// Wait before every token but the first, milliseconds; a unary answer waits for all of them.
    pub gap_ms: u64,
    /// What it says about usage.
    pub usage: UsageStyle,
    /// Send stream usage even to those who did not ask.
    pub usage_unasked: bool,
    /// How lines of a stream end.
    pub line_end: LineEnd,
    /// Where a stream's bytes are cut.
    pub chunking: Chunking,
    /// A comment line before every frame, as some servers send to keep connections open.
    pub comments: bool,
    /// Compress (as valid gzip) whatever the client accepts.
    pub gzip: bool,
    /// More response headers.
    pub headers: Vec<(String, String)>,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            answer: None,
            tokens: 16,
            tool_call: None,
            then_calls: Vec::new(),
            reasoning_tokens: 0,
            cached_tokens: 0,
            bytes_per_token: 4,
            first_byte_ms: 0,
            gap_ms: 0,
            usage: UsageStyle::Honest,
            usage_unasked: false,
            line_end: LineEnd::Lf,
            chunking: Chunking::Frames,
            comments: false,
            gzip: false,
            headers: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// A call of a tool, as the model would make it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: JSON as text, as models write it (possibly wrong).
    pub arguments: String,
}

/// What is said about usage, against what was generated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageStyle {
    /// The truth, where OpenAI puts it.
    #[default]
    Honest,
    /// The truth, in the chunk that carries the finish reason; no chunk of its own.
    InLastContent,
    /// The running truth in every chunk, and at the end again.
    EveryChunk,
    /// No usage at all.
    Absent,
    /// Three explicit zeros.
    Zero,
    /// Numbers below zero.
    Negative,
    /// Numbers beyond any context window (10^18).
    Huge,
    /// This JSON text, whatever it says.
    Raw(String),
}

/// How a stream's lines end; the standard allows all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// Line feed.
    #[default]
    Lf,
    /// Carriage return and line feed.
    Crlf,
    /// Carriage return alone.
    Cr,
}

/// Where the bytes of a stream are cut into writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chunking {
    /// One frame, one write.
    #[default]
    Frames,
    /// Pieces of so many bytes, each written by itself.
    Split {
        /// Bytes in a piece, at least 1.
        bytes: usize,
    },
    /// So many frames in one write.
    Joined {
        /// Frames in a write, at least 1.
        frames: usize,
    },
    /// Pieces of 1 to 97 bytes, by the seed.
    Odd,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which calls.
    pub when: When,
    /// What happens to them.
    pub kind: FaultKind,
}

/// The calls a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Every call.
    Always,
    /// The next so many calls.
    Next(u64),
    /// This many of a thousand calls, by the seed.
    SharePermille(u64),
}

/// What goes wrong. *After k tokens* means: k tokens were sent, counted over all choices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// This status instead of an answer.
    Status {
        /// The status.
        status: u16,
        /// The body; without it, an error object as OpenAI's.
        #[serde(default)]
        body: Option<String>,
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// A redirect (307) to there.
    Redirect {
        /// The `Location` header.
        location: String,
    },
    /// The connection is closed instead of an answer.
    CloseBeforeHead,
    /// No answer, and no end.
    HangBeforeHead,
    /// Nothing more after k tokens, and no end. A unary answer stops half-way.
    HangAfter {
        /// k.
        tokens: u64,
    },
    /// The connection breaks after k tokens. A unary answer breaks half-way.
    CutAfter {
        /// k.
        tokens: u64,
    },
    /// The stream ends cleanly after k tokens: no finish reason, no usage, no `[DONE]`. A unary
    /// answer is half a JSON document.
    EndAfter {
        /// k.
        tokens: u64,
    },
    /// An error event after k tokens, then the end. A unary answer breaks half-way.
    ErrorAfter {
        /// k.
        tokens: u64,
    },
    /// One frame that is not JSON after k tokens, then it goes on. A unary answer is not JSON.
    BadJsonAfter {
        /// k.
        tokens: u64,
    },
    /// One frame that is not UTF-8 after k tokens, then it goes on. A unary answer is not UTF-8.
    BadUtf8After {
        /// k.
        tokens: u64,
    },
    /// One line of so many bytes at the beginning of a stream, or so much white space in a unary answer.
    GiantLine {
        /// Bytes.
        bytes: usize,
    },
}

impl Fault {
    /// A fault of the next `calls` calls.
    #[must_use]
    pub fn next(calls: u64, kind: FaultKind) -> Self {
        Self { when: When::Next(calls), kind }
    }

    /// A fault of every call.
    #[must_use]
    pub fn always(kind: FaultKind) -> Self {
        Self { when: When::Always, kind }
    }

    /// A fault of `permille` of a thousand calls, by the seed.
    #[must_use]
    pub fn share(permille: u64, kind: FaultKind) -> Self {
        Self { when: When::SharePermille(permille), kind }
    }
}

/// The behaviour in force and what is left of its faults.
#[derive(Debug)]
pub(super) struct Steering {
    behaviour: Arc<Behaviour>,
    faults: Vec<Fault>,
    dice: Dice,
}

impl Steering {
    pub(super) fn new(behaviour: Behaviour, seed: u64) -> Self {
        let faults = behaviour.faults.clone();
        Self { behaviour: Arc::new(behaviour), faults, dice: Dice(seed) }
    }

    /// The behaviour with what is left of its faults.
    pub(super) fn current(&self) -> Behaviour {
        Behaviour { faults: self.faults.clone(), ..(*self.behaviour).clone() }
    }

    pub(super) fn set(&mut self, behaviour: Behaviour) {
        self.faults.clone_from(&behaviour.faults);
        self.behaviour = Arc::new(behaviour);
    }

    /// What to do with one call. Uses up a fault of the *next n* kind. The last value seeds what
    /// is left to chance within the call.
    pub(super) fn decide(&mut self) -> (Arc<Behaviour>, Option<FaultKind>, u64) {
        let mut chosen = None;
        for fault in &mut self.faults {
            let applies = match &mut fault.when {
                When::Always => true,
                When::Next(0) => false,
                When::Next(left) => {
                    *left -= 1;
                    true
                }
                When::SharePermille(permille) => self.dice.roll() % 1000 < *permille,
            };
            if applies {
                chosen = Some(fault.kind.clone());
                break;
            }
        }
        self.faults.retain(|fault| fault.when != When::Next(0));
        (Arc::clone(&self.behaviour), chosen, self.dice.roll())
    }
}

/// A small seeded generator (splitmix64): the same seed, the same run. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_next_calls_is_used_up_in_order() {
        let faults =
            vec![Fault::next(2, FaultKind::CloseBeforeHead), Fault::next(1, FaultKind::CutAfter { tokens: 3 })];
        let mut steering = Steering::new(Behaviour { faults, ..Behaviour::default() }, 7);
        let met: Vec<_> = (0..4).map(|_| steering.decide().1).collect();
        assert_eq!(
            met,
            [
                Some(FaultKind::CloseBeforeHead),
                Some(FaultKind::CloseBeforeHead),
                Some(FaultKind::CutAfter { tokens: 3 }),
                None
            ]
        );
        assert!(steering.current().faults.is_empty());
    }

    #[test]
    fn a_share_is_near_its_size_and_the_same_for_the_same_seed() {
        let run = |seed| {
            let faults = vec![Fault::share(250, FaultKind::HangBeforeHead)];
            let mut steering = Steering::new(Behaviour { faults, ..Behaviour::default() }, seed);
            (0..2000).map(|_| steering.decide().1.is_some()).collect::<Vec<_>>()
        };
        let met = run(3).iter().filter(|met| **met).count();
        assert!((400..600).contains(&met), "{met} of 2000 at 250 permille");
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn behaviour_is_read_from_json_and_a_wrong_word_is_refused() {
        let read: Behaviour = serde_json::from_str(
            r#"{"tokens": 5, "usage": {"raw": "7"}, "chunking": {"split": {"bytes": 1}},
                "faults": [{"when": {"next": 2}, "kind": {"status": {"status": 503}}}]}"#,
        )
        .unwrap();
        assert_eq!((read.tokens, read.usage), (5, UsageStyle::Raw("7".into())));
        assert_eq!(read.faults, [Fault::next(2, FaultKind::Status { status: 503, body: None, retry_after: None })]);
        assert!(serde_json::from_str::<Behaviour>(r#"{"tokenz": 5}"#).is_err());
    }
}
