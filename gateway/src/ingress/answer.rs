//! A streamed answer as a body: pulls chunks from the upstream, passes them on, and keeps the books to the end.
//!
//! It owns the reservation and the trace, so that whichever end comes first (the upstream's, the budget's, a
//! deadline, the client's leaving, which drops it) settles once. Dropping the upstream's body cancels the upstream:
//! on HTTP/1 its connection closes, on HTTP/2 its stream is reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};

use crate::Gateway;
use crate::error::{Error, Reason};
use crate::http::body::{Body, BodyError};
use crate::http::respond;
use crate::ingress::budget::{Budget, Growth};
use crate::ingress::call::Asked;
use crate::ingress::trace::Trace;
use crate::llm::stream::{End, Stream};
use crate::llm::upstream::{AnswerBody, Answered, Upstream};
use crate::metrics::Outcome;

/// After `[DONE]` the upstream has this long to end its body, so that the connection can be used again.
const TAIL_WAIT: Duration = Duration::from_millis(500);
/// Tells nginx and its kin not to hold the stream back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One streamed answer.
pub(super) struct Answer {
    /// `None` once the upstream has ended or was cancelled.
    upstream_body: Option<AnswerBody>,
    stream: Stream,
    books: Option<Books>,
    timer: Pin<Box<Sleep>>,
    stall: Duration,
    last_moment: Instant,
}

/// What is settled at the end.
struct Books {
    budget: Budget,
    trace: Trace,
    upstream: Arc<Upstream>,
    asked: Asked,
}

impl Answer {
    /// The upstream's head is there and says that a stream follows.
    pub(super) fn begin(
        gateway: &Gateway,
        trace: &mut Trace,
        budget: Budget,
        answered: Answered,
        asked: Asked,
    ) -> Response<Body> {
        let config = gateway.config();
        let Answered { upstream, response, ends_by: last_moment } = answered;
        let now = Instant::now();
        let stall = config.timeouts.stall;
        let content_type = response.headers().get(CONTENT_TYPE).cloned();
        let mut out = Response::new(Body::empty());
        let headers = out.headers_mut();
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("text/event-stream")));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        trace.write_headers(headers);
        let frame_bytes_max = config.limits.upstream_frame_bytes_max;
        let answer = Self {
            upstream_body: Some(response.into_body()),
            stream: Stream::new(asked.endpoint, frame_bytes_max, asked.answers, asked.include_usage),
            books: Some(Books { budget, trace: trace.hand_over(), upstream, asked }),
            timer: Box::pin(tokio::time::sleep_until((now + stall).min(last_moment))),
            stall,
            last_moment,
        };
        *out.body_mut() = Body::Stream(Box::pin(answer));
        out
    }

    /// A chunk has come. Gives what the client sees of it.
    fn passed(&mut self, chunk: Bytes) -> Bytes {
        let books = &mut self.books;
        let passed = self
            .stream
            .push(chunk, |output| books.as_mut().is_none_or(|books| books.budget.grow(output) == Growth::Covered));
        match passed.end {
            End::Open => passed.bytes,
            End::Done => {
                self.settle(Outcome::Ok);
                self.timer.as_mut().reset(Instant::now() + TAIL_WAIT);
                passed.bytes
            }
            End::Stopped => {
                let (told, output) = (self.stream.told(), self.stream.output());
                let usage = self.books.as_ref().map(|books| books.budget.so_far(told, output)).unwrap_or_default();
                let end = self.stream.cut_off(&usage);
                self.upstream_body = None;
                self.settle(Outcome::Ok);
                joined(passed.bytes, end)
            }
            End::Failed => {
                // The upstream's own error event is the one that the client gets.
                self.failed(&Error::new(Reason::UpstreamFailed, "The model failed in the middle of its answer."));
                passed.bytes
            }
            End::Unreadable => {
                let event = self.broken(&Error::new(Reason::UpstreamFailed, "The model's answer cannot be read."));
                joined(passed.bytes, event)
            }
        }
    }

    /// The upstream has ended.
    fn ended(&mut self) -> Option<Bytes> {
        self.upstream_body = None;
        let passed = self.stream.finish();
        let rest = match passed.end {
            _ if self.books.is_none() => passed.bytes,
            End::Done => {
                self.settle(Outcome::Ok);
                passed.bytes
            }
            End::Failed => {
                self.failed(&Error::new(Reason::UpstreamFailed, "The model failed in the middle of its answer."));
                passed.bytes
            }
            End::Open | End::Stopped | End::Unreadable => {
                let event = self.broken(&Error::new(Reason::UpstreamFailed, "The model's answer broke off."));
                joined(passed.bytes, event)
            }
        };
        (!rest.is_empty()).then_some(rest)
    }

    /// The answer cannot go on: one error event, and no `[DONE]`.
    fn broken(&mut self, error: &Error) -> Bytes {
        self.failed(error);
        self.stream.error_event(&respond::openai_body(error))
    }

    fn failed(&mut self, error: &Error) {
        self.upstream_body = None;
        if let Some(books) = self.books.as_mut() {
            books.trace.refused(error);
        }
        self.settle(Outcome::Upstream);
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(Books { budget, mut trace, upstream, asked }) = self.books.take() else { return };
        let (told, output) = (self.stream.told(), self.stream.output());
        if let Some(usage) = told
            && asked.whole_prompt
        {
            upstream.learn(asked.body_bytes, usage.input);
        }
        if told.is_none() && output == 0 && outcome == Outcome::Upstream {
            // It failed before it produced anything.
            budget.release();
        } else {
            trace.used(budget.settle(told, output));
        }
        trace.finish(StatusCode::OK, outcome);
    }

    fn out(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(books) = self.books.as_mut() {
            books.trace.streamed(bytes.len());
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

fn out_of_time() -> Error {
    Error::new(Reason::UpstreamTimeout, "The model's answer did not end in time.")
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() { second } else { [first, second].concat().into() }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            let Some(body) = this.upstream_body.as_mut() else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    if !this.stream.is_done() {
                        let now = Instant::now();
                        // Seen here too: where the client is the slow one, a next chunk is always there.
                        if now >= this.last_moment {
                            let event = this.broken(&out_of_time());
                            return this.out(event);
                        }
                        this.timer.as_mut().reset((now + this.stall).min(this.last_moment));
                    }
                    let out = this.passed(chunk);
                    if !out.is_empty() {
                        return this.out(out);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    if this.stream.is_done() {
                        this.upstream_body = None;
                        return Poll::Ready(None);
                    }
                    let error = Error::new(Reason::UpstreamFailed, "The model's answer broke off.").caused_by(error);
                    let event = this.broken(&error);
                    return this.out(event);
                }
                Poll::Ready(None) => match this.ended() {
                    Some(rest) => return this.out(rest),
                    None => return Poll::Ready(None),
                },
                Poll::Pending => {
                    if this.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if this.stream.is_done() {
                        this.upstream_body = None;
                        return Poll::Ready(None);
                    }
                    let error = if Instant::now() < this.last_moment {
                        Error::new(Reason::UpstreamTimeout, "The model stopped answering in the middle.")
                    } else {
                        out_of_time()
                    };
                    let event = this.broken(&error);
                    return this.out(event);
                }
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Only a client that left gets here with open books: every other end has settled.
        self.upstream_body = None;
        self.settle(Outcome::ClientLeft);
    }
}
