//! Server-sent events, as far as a relay needs them: where a frame ends, and what its data says.
//!
//! Frames leave as the bytes they came in: a chunk that holds whole frames is sliced, not copied; only a
//! frame cut across two chunks is put together in a buffer, which is bounded. Lines end in LF, CRLF or CR, and a CRLF
//! may be cut in two. It does not interpret event types, ids or retry times.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct Frames {
    /// The beginning of a frame whose end has not come.
    rest: BytesMut,
    frame_bytes_max: usize,
    /// The last byte seen was a CR: an LF right behind it belongs to it.
    after_cr: bool,
    /// Nothing stands on the current line yet.
    line_empty: bool,
    /// The frame has at least one line that is not empty.
    began: bool,
}

/// A frame is over the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the stream is over {0} bytes")]
pub struct FrameTooLong(pub usize);

impl Frames {
    /// Nothing read yet. No frame may be over `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { rest: BytesMut::new(), frame_bytes_max, after_cr: false, line_empty: true, began: false }
    }

    /// Takes a chunk and appends the frames that end in it, each with the empty line that ends it.
    pub fn push(&mut self, mut chunk: Bytes, frames: &mut Vec<Bytes>) -> Result<(), FrameTooLong> {
        while !chunk.is_empty() {
            match self.end_in(&chunk) {
                Some(end) => {
                    let part = chunk.split_to(end);
                    if self.rest.is_empty() {
                        self.check(part.len())?;
                        frames.push(part);
                    } else {
                        self.check(self.rest.len() + part.len())?;
                        self.rest.extend_from_slice(&part);
                        frames.push(self.rest.split().freeze());
                    }
                }
                None => {
                    self.check(self.rest.len() + chunk.len())?;
                    self.rest.extend_from_slice(&chunk);
                    break;
                }
            }
        }
        Ok(())
    }

    /// What is left at the end of the stream: a frame that was never ended, if any.
    pub fn finish(&mut self) -> Option<Bytes> {
        (self.began && !self.rest.is_empty()).then(|| self.rest.split().freeze())
    }

    /// Everything so far ended with a whole frame.
    pub fn is_between(&self) -> bool {
        self.rest.is_empty()
    }

    fn check(&self, length: usize) -> Result<(), FrameTooLong> {
        if length > self.frame_bytes_max { Err(FrameTooLong(self.frame_bytes_max)) } else { Ok(()) }
    }

    /// Where the first frame that ends in `chunk` ends.
    ///
    /// A CRLF cut in two: the frame ends at its CR, and the LF that comes first in the next chunk is an empty
    /// tail, forwarded at the head of the frame behind it.
    fn end_in(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            at = 1;
        }
        while let Some(found) = memchr2(b'\n', b'\r', chunk.get(at..)?) {
            let end = at + found;
            if found > 0 {
                self.line_empty = false;
                self.began = true;
            }
            at = end + 1;
            if chunk.get(end) == Some(&b'\r') {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if std::mem::replace(&mut self.line_empty, true) && std::mem::take(&mut self.began) {
                return Some(at);
            }
        }
        if at < chunk.len() {
            self.line_empty = false;
            self.began = true;
        }
        None
    }
}

/// The data of a frame: of its one `data:` line, which is what models send, or of several joined by line feeds.
/// `None` for a comment or an event without data.
pub fn data(frame: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut lines = data_lines(frame);
    let first = lines.next()?;
    let mut rest = lines.peekable();
    if rest.peek().is_none() {
        return Some(Cow::Borrowed(first));
    }
    Some(Cow::Owned(rest.fold(first.to_vec(), |mut all, line| {
        all.push(b'\n');
        all.extend_from_slice(line);
        all
    })))
}

/// Every `data:` line of a frame, without the field's name and one leading space.
pub fn data_lines(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let frame = frame.strip_prefix(b"\xef\xbb\xbf").unwrap_or(frame);
    // Not `split`, which looks at one byte after another: this runs for every token of every answer.
    let mut rest = Some(frame);
    std::iter::from_fn(move || {
        loop {
            let all = rest?;
            let (line, behind) = match memchr2(b'\n', b'\r', all) {
                Some(at) => (all.get(..at)?, all.get(at + 1..)),
                None => (all, None),
            };
            rest = behind;
            if let Some(data) = line.strip_prefix(b"data:") {
                return Some(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(chunks: &[&[u8]]) -> Vec<String> {
        let mut reader = Frames::new(1000);
        let mut out = Vec::new();
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk), &mut out).unwrap();
        }
        out.extend(reader.finish());
        out.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
    }

    #[test]
    fn frames_end_at_an_empty_line_of_any_kind() {
        assert_eq!(frames(&[b"data: a\n\ndata: b\n\n"]), ["data: a\n\n", "data: b\n\n"]);
        assert_eq!(frames(&[b"data: a\r\n\r\ndata: b\r\n\r\n"]), ["data: a\r\n\r\n", "data: b\r\n\r\n"]);
        assert_eq!(frames(&[b"data: a\r\rdata: b\r\r"]), ["data: a\r\r", "data: b\r\r"]);
        assert_eq!(frames(&[b": hi\ndata: a\n\n"]), [": hi\ndata: a\n\n"]);
        assert_eq!(frames(&[b"data: a"]), ["data: a"]);
        assert_eq!(frames(&[b"data: a\r\n\r", b"\ndata: b\n\n"]), ["data: a\r\n\r", "\ndata: b\n\n"]);
    }

    #[test]
    fn a_whole_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let mut out = Vec::new();
        Frames::new(100).push(chunk.clone(), &mut out).unwrap();
        assert_eq!(out[0].as_ptr(), chunk.as_ptr());
        assert_eq!(out[1].as_ptr(), chunk[9..].as_ptr());
    }

    #[test]
    fn a_frame_is_bounded_whole_or_in_pieces() {
        let long = Bytes::from(vec![b'x'; 11]);
        assert_eq!(Frames::new(10).push(long, &mut Vec::new()), Err(FrameTooLong(10)));
        let mut reader = Frames::new(10);
        reader.push(Bytes::from_static(b"data: aa"), &mut Vec::new()).unwrap();
        assert!(reader.push(Bytes::from_static(b"aaaa"), &mut Vec::new()).is_err());
    }

    #[test]
    fn data_is_found() {
        let text = |frame: &'static [u8]| data(frame).map(|data| String::from_utf8(data.into_owned()).unwrap());
        assert_eq!(text(b"data: {}\n\n").as_deref(), Some("{}"));
        assert_eq!(text(b"event: x\ndata:{}\r\n\r\n").as_deref(), Some("{}"));
        assert_eq!(text(b"\xef\xbb\xbfdata: a\n\n").as_deref(), Some("a"));
        assert_eq!(text(b": comment\n\n"), None);
        assert_eq!(text(b"data: a\ndata: b\n\n").as_deref(), Some("a\nb"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// However a stream is cut: no byte is lost, doubled or moved, and data lines come out the same.
        #[test]
        fn any_cut_gives_the_same_bytes(
            parts in proptest::collection::vec(prop_oneof![
                Just("data: {\"a\":1}"), Just("\n"), Just("\r\n"), Just("\r"), Just(": c"), Just("x"), Just("data: [DONE]")
            ], 0..40),
            cuts in proptest::collection::vec(0usize..300, 0..10),
        ) {
            let whole: Vec<u8> = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < whole.len()).collect();
            cuts.sort_unstable();
            let mut reader = Frames::new(10_000);
            let (mut out, mut at) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([whole.len()]) {
                reader.push(Bytes::copy_from_slice(&whole[at..cut]), &mut out).unwrap();
                at = cut;
            }
            let lines = |frames: &[Bytes]| -> Vec<Vec<u8>> {
                frames.iter().flat_map(|frame| data_lines(frame).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
            };
            let mut cut_bytes: Vec<u8> = out.concat();
            let cut_lines = lines(&out);
            cut_bytes.extend_from_slice(&reader.rest);
            prop_assert_eq!(&cut_bytes, &whole);
            let mut once = Vec::new();
            Frames::new(10_000).push(Bytes::from(whole), &mut once).unwrap();
            prop_assert_eq!(cut_lines, lines(&once));
        }
    }
}
