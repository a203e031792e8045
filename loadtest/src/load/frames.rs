//! A stream of server-sent events as a client sees it: when frames come, whether it ends as it should, and, where
//! the answer's words are numbers, which are missing or come twice.
//!
//! Lines end with LF or CRLF. It understands what it needs of chat completions and of responses, and counts the rest.

use std::borrow::Cow;

use serde::Deserialize;

/// Bytes of one line; a server that sends more is broken.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One stream being read.
#[derive(Debug, Default)]
pub(super) struct Frames {
    line: Vec<u8>,
    numbered: bool,
    /// The number the next word should have.
    next: u64,
    /// Frames that carried something.
    pub(super) count: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// It said that it is complete.
    pub(super) complete: bool,
    /// It told of an error.
    pub(super) error: bool,
}

/// A line that cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: Option<u64>,
}

impl Frames {
    pub(super) fn new(numbered: bool) -> Self {
        Self { numbered, ..Self::default() }
    }

    /// Takes what was read; how many frames that carry something were completed by it.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<u64, TooLong> {
        let before = self.count;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end);
            self.line.extend_from_slice(head);
            bytes = rest.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            self.read(line.strip_suffix(b"\r").unwrap_or(&line));
            // The buffer goes on to the next line.
            self.line = line;
            self.line.clear();
        }
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(self.count - before)
    }

    fn read(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.strip_prefix(b" ").unwrap_or(data);
        if data == b"[DONE]" {
            self.complete = true;
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return };
        let kind = chunk.kind.as_deref().unwrap_or_default();
        self.error |= chunk.error.is_some() || kind == "error" || kind == "response.failed";
        self.complete |= kind == "response.completed" || kind == "response.incomplete";
        let text = chunk.choices.first().and_then(|choice| choice.delta.as_ref()?.content.as_deref());
        if text.is_some_and(|text| !text.is_empty()) || kind == "response.output_text.delta" {
            self.count += 1;
        }
        if self.numbered {
            self.number(text.unwrap_or_default());
            // What was generated after the last word we saw is missing too.
            if let Some(told) = chunk.usage.and_then(|usage| usage.completion_tokens) {
                self.lost += told.saturating_sub(self.next);
                self.next = self.next.max(told);
            }
        }
    }

    fn number(&mut self, text: &str) {
        for number in text.split_whitespace().filter_map(|word| word.parse::<u64>().ok()) {
            if number < self.next {
                self.duplicated += 1;
            } else {
                self.lost += number - self.next;
                self.next = number + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> String {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    }

    fn read(stream: &str, pieces: usize) -> Frames {
        let mut frames = Frames::new(true);
        for piece in stream.as_bytes().chunks(pieces) {
            frames.push(piece).unwrap();
        }
        frames
    }

    #[test]
    fn a_whole_stream_loses_nothing_however_it_is_cut() {
        let opening = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let usage = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
        let stream = [opening, &chunk("0 "), ": a comment\n\n", &chunk("1 "), &chunk("2 "), usage].concat();
        for stream in [stream.replace('\n', "\r\n"), stream] {
            for pieces in [1, 7, 4096] {
                let frames = read(&stream, pieces);
                assert_eq!((frames.count, frames.lost, frames.duplicated), (3, 0, 0));
                assert!(frames.complete && !frames.error);
            }
        }
    }

    #[test]
    fn what_is_missing_and_what_comes_twice_is_counted() {
        let stream = [chunk("0 "), chunk("3 "), chunk("3 "), chunk("2 "), chunk("4 ")].concat();
        let frames = read(&stream, 64);
        assert_eq!((frames.lost, frames.duplicated, frames.complete), (2, 2, false));
        let usage = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":9}}\n\n";
        assert_eq!(read(&(stream + usage), 64).lost, 6);
    }

    #[test]
    fn errors_and_ends_are_known_in_both_dialects() {
        assert!(read("data: {\"error\":{\"message\":\"no\"}}\n\n", 9).error);
        assert!(read("event: x\ndata: {\"type\":\"response.failed\"}\n\n", 9).error);
        assert!(read("data: {\"type\":\"response.completed\"}\n\n", 9).complete);
        assert_eq!(read("data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n", 9).count, 1);
        assert_eq!(read("data: not json\n\n", 9).count, 0);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut frames = Frames::new(false);
        assert_eq!(frames.push(&vec![b'x'; LINE_BYTES_MAX]), Ok(0));
        assert_eq!(frames.push(b"x"), Err(TooLong));
    }
}
