//! A response body in time: the events of a script paced, cut into writes and gone wrong as told.
//!
//! The body is polled by the connection, so nothing is generated that the connection does not ask
//! for; it is dropped when the client leaves, and with it the recording of the call, which is how
//! the fake knows. Events are counted when they are handed over, not when they are read.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::Sleep;

use super::behaviour::{Behaviour, Chunking, Dice, FaultKind, LineEnd};
use super::gzip::Gzip;
use super::script::{Event, Script};
use super::truth::{Outcome, Recording};

/// The longest line a fault may ask for: enough to break any bound, not this machine.
const GIANT_LINE_BYTES_MAX: usize = 64 << 20;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    Cut,
    Hang,
}

/// A streamed answer.
#[derive(Debug)]
pub(super) struct Stream {
    script: Script,
    behaviour: Arc<Behaviour>,
    fault: Option<FaultKind>,
    dice: Dice,
    /// Booked when taken or dropped.
    recording: Option<Recording>,
    gzip: Option<Gzip>,
    tokens_sent: u64,
    /// The next token, while its time has not come.
    held: Option<Event>,
    wait: Option<Pin<Box<Sleep>>>,
    /// Bytes not cut yet, and the frames in them.
    uncut: BytesMut,
    frames_uncut: usize,
    cut: VecDeque<Bytes>,
    paused: bool,
    end: Option<End>,
}

impl Stream {
    pub(super) fn new(
        script: Script,
        behaviour: Arc<Behaviour>,
        fault: Option<FaultKind>,
        seed: u64,
        recording: Recording,
        compress: bool,
    ) -> Self {
        let mut stream = Self {
            script,
            behaviour,
            fault,
            dice: Dice(seed),
            recording: Some(recording),
            gzip: compress.then(Gzip::new),
            tokens_sent: 0,
            held: None,
            wait: None,
            uncut: BytesMut::new(),
            frames_uncut: 0,
            cut: VecDeque::new(),
            paused: false,
            end: None,
        };
        if let Some(FaultKind::GiantLine { bytes }) = stream.fault {
            stream.fault = None;
            let padding = "x".repeat(bytes.min(GIANT_LINE_BYTES_MAX));
            stream.write(None, format!(r#"{{"padding":"{padding}"}}"#).as_bytes());
        }
        stream
    }

    fn finish(&mut self, end: End, outcome: Outcome) {
        self.end = Some(end);
        self.cut_rest(end == End::Clean);
        if end != End::Hang
            && let Some(mut recording) = self.recording.take()
        {
            recording.end(outcome);
        }
    }

    /// One step: a fault that is due, a token that must wait, or an event written.
    fn advance(&mut self) {
        if self.break_if_due() {
            return;
        }
        let Some(event) = self.held.take().or_else(|| self.script.next()) else {
            self.finish(End::Clean, Outcome::Finished);
            return;
        };
        let gap_ms = self.behaviour.gap_ms;
        let must_wait = event.is_token && self.tokens_sent > 0 && gap_ms > 0 && self.wait.is_none();
        if must_wait {
            self.held = Some(event);
            self.wait = Some(Box::pin(tokio::time::sleep(Duration::from_millis(gap_ms))));
            return;
        }
        self.wait = None;
        self.tokens_sent += u64::from(event.is_token);
        if let Some(recording) = &mut self.recording {
            recording.generated(event.tokens);
        }
        self.write(event.name, event.data.as_bytes());
        if self.script.is_over() {
            // Not at the next poll: a client may rightly close once it has seen the last event.
            self.finish(End::Clean, Outcome::Finished);
        }
    }

    /// Does what the fault says if its token has come. True if that was a step.
    fn break_if_due(&mut self) -> bool {
        let due = match &self.fault {
            Some(
                FaultKind::HangAfter { tokens }
                | FaultKind::CutAfter { tokens }
                | FaultKind::EndAfter { tokens }
                | FaultKind::ErrorAfter { tokens }
                | FaultKind::BadJsonAfter { tokens }
                | FaultKind::BadUtf8After { tokens },
            ) => self.tokens_sent >= *tokens,
            _ => false,
        };
        if !due {
            return false;
        }
        match self.fault.take() {
            Some(FaultKind::HangAfter { .. }) => self.finish(End::Hang, Outcome::ClientLeft),
            Some(FaultKind::CutAfter { .. }) => self.finish(End::Cut, Outcome::Broken),
            Some(FaultKind::EndAfter { .. }) => self.finish(End::Clean, Outcome::Broken),
            Some(FaultKind::ErrorAfter { .. }) => {
                let error =
                    br#"{"error":{"message":"The model crashed.","type":"server_error","param":null,"code":null}}"#;
                self.write(None, error);
                self.finish(End::Clean, Outcome::Broken);
            }
            Some(FaultKind::BadJsonAfter { .. }) => self.write(None, br#"{"id":"chatcmpl-1","choices":[{"#),
            Some(FaultKind::BadUtf8After { .. }) => {
                self.write(None, b"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xfe\"}}]}");
            }
            _ => {}
        }
        true
    }

    fn write(&mut self, name: Option<&str>, data: &[u8]) {
        let line_end: &[u8] = match self.behaviour.line_end {
            LineEnd::Lf => b"\n",
            LineEnd::Crlf => b"\r\n",
            LineEnd::Cr => b"\r",
        };
        if self.behaviour.comments {
            self.uncut.put_slice(b": still here");
            self.uncut.put_slice(line_end);
            self.uncut.put_slice(line_end);
        }
        if let Some(name) = name {
            self.uncut.put_slice(b"event: ");
            self.uncut.put_slice(name.as_bytes());
            self.uncut.put_slice(line_end);
        }
        self.uncut.put_slice(b"data: ");
        self.uncut.put_slice(data);
        self.uncut.put_slice(line_end);
        self.uncut.put_slice(line_end);
        self.frames_uncut += 1;
        self.cut_some();
    }

    /// Moves what is ready to be written from `uncut` to `cut`.
    fn cut_some(&mut self) {
        match self.behaviour.chunking {
            Chunking::Frames => self.cut_rest(false),
            Chunking::Joined { frames } if self.frames_uncut >= frames => self.cut_rest(false),
            Chunking::Joined { .. } => {}
            Chunking::Split { bytes } => {
                while !self.uncut.is_empty() {
                    self.cut_off(bytes.max(1));
                }
            }
            // Leaves a rest behind, so that a piece may span frames.
            Chunking::Odd => {
                while self.uncut.len() > 97 {
                    let bytes = usize::try_from(1 + self.dice.roll() % 97).unwrap_or(1);
                    self.cut_off(bytes);
                }
            }
        }
    }

    fn cut_off(&mut self, bytes: usize) {
        let piece = self.uncut.split_to(bytes.min(self.uncut.len())).freeze();
        self.frames_uncut = 0;
        self.cut.push_back(match &mut self.gzip {
            Some(gzip) => gzip.piece(&piece),
            None => piece,
        });
    }

    fn cut_rest(&mut self, is_end: bool) {
        if !self.uncut.is_empty() {
            self.cut_off(usize::MAX);
        }
        if is_end && let Some(gzip) = self.gzip.take() {
            self.cut.push_back(gzip.end());
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if !this.cut.is_empty() {
                let separate = matches!(this.behaviour.chunking, Chunking::Split { .. } | Chunking::Odd);
                if separate && !this.paused {
                    // Pending once between pieces: the connection writes what it has, so that the
                    // other side sees the pieces one by one.
                    this.paused = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                this.paused = false;
                return Poll::Ready(this.cut.pop_front().map(|piece| Ok(Frame::data(piece))));
            }
            match this.end {
                Some(End::Clean) => return Poll::Ready(None),
                Some(End::Cut) => return cut_after_flush(&mut this.paused, cx),
                Some(End::Hang) => return Poll::Pending,
                None => {}
            }
            if let Some(wait) = &mut this.wait {
                ready!(wait.as_mut().poll(cx));
            }
            this.advance();
        }
    }
}

/// Breaks the connection, but lets it write what it has first: what was sent before the break
/// should be seen.
fn cut_after_flush(paused: &mut bool, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
    if *paused {
        return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
    }
    *paused = true;
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Half of a unary answer, and no other half.
#[derive(Debug)]
pub(super) struct Half {
    half: Option<Bytes>,
    then: End,
    paused: bool,
    /// Booked when dropped: for a hang, when the client leaves.
    _recording: Recording,
}

impl Half {
    pub(super) fn of(whole: &Bytes, then: End, recording: Recording) -> Self {
        Self { half: Some(whole.slice(..whole.len() / 2)), then, paused: false, _recording: recording }
    }
}

impl Body for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.half.take(), self.then) {
            (Some(half), _) => Poll::Ready(Some(Ok(Frame::data(half)))),
            (None, End::Cut) => cut_after_flush(&mut self.paused, cx),
            (None, End::Hang) => Poll::Pending,
            (None, End::Clean) => Poll::Ready(None),
        }
    }
}
