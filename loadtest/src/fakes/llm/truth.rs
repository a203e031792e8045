//! What the fake model really did: every call, and totals by model and by user.
//!
//! Tests compare a gateway's books with this. A token counts as generated when the fake hands it to
//! the connection, whether or not the client is still there to read it: that is what a provider
//! bills. A call ends exactly once, by its own end or by being dropped because the client left.
//! Only the last calls are kept in full, totals are exact for ever; keys of the maps are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde::Serialize;
use tokio::sync::Notify;

/// Models or users with totals of their own; calls of further ones are in the totals only.
const KEYS_MAX: usize = 16_384;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was sent.
    Finished,
    /// The client went away before the end.
    ClientLeft,
    /// An error status, or a redirect; nothing was generated.
    Refused,
    /// The fake broke it off, as it was told.
    Broken,
}

/// One call, as it was.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counted from 1 in order of arrival.
    pub number: u64,
    /// The `id` in the answer.
    pub id: String,
    /// The path asked for.
    pub path: &'static str,
    /// The model asked for; empty if the body was not understood.
    pub model: String,
    /// The body's `user` field.
    pub user: Option<String>,
    /// A stream was asked for.
    pub stream: bool,
    /// Status answered; 0 if there was no answer.
    pub status: u16,
    /// Tokens of the prompt by the fake's rule (bytes of its JSON through `bytes_per_token`).
    pub prompt_tokens: u64,
    /// Tokens generated and handed to the connection, reasoning and hidden choices included.
    pub completion_tokens: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// From the head of the request to the end, milliseconds.
    pub lasted_ms: u64,
    /// From the last frame (or the beginning) to the end, milliseconds. For a client that left:
    /// the most it can have taken us to notice.
    pub idle_ms: u64,
    /// Request headers, lower-case names, in order. They include the bearer key as it came.
    pub headers: Vec<(String, String)>,
    /// The beginning of the request body.
    pub body: String,
}

impl Call {
    /// A request header's (first) value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// Sums over calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Calls that arrived.
    pub started: u64,
    /// Calls that are not over.
    pub in_flight: u64,
    /// Calls that ended well.
    pub finished: u64,
    /// Calls whose client left.
    pub client_left: u64,
    /// Calls refused.
    pub refused: u64,
    /// Calls broken off by a fault.
    pub broken: u64,
    /// Prompt tokens of the calls that were answered.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
}

impl Totals {
    fn count(&mut self, call: &Call) {
        match call.outcome {
            Outcome::Finished => self.finished += 1,
            Outcome::ClientLeft => self.client_left += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Broken => self.broken += 1,
        }
        self.prompt_tokens += call.prompt_tokens;
        self.completion_tokens += call.completion_tokens;
    }
}

/// Everything that is known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Truth {
    /// Over all calls.
    pub totals: Totals,
    /// By model (`started` and `in_flight` are not counted here).
    pub by_model: BTreeMap<String, Totals>,
    /// By the body's `user` field (`started` and `in_flight` are not counted here).
    pub by_user: BTreeMap<String, Totals>,
    /// The last calls that ended, oldest first.
    pub calls: VecDeque<Call>,
    /// Calls no longer kept in `calls`.
    pub calls_forgotten: u64,
}

/// The book the truth is written in.
#[derive(Debug)]
pub(super) struct Book {
    truth: Mutex<Truth>,
    /// Told at each beginning and each end of a call.
    changed: Notify,
    calls_max: usize,
    body_bytes_max: usize,
}

impl Book {
    pub(super) fn new(calls_max: usize, body_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { truth: Mutex::default(), changed: Notify::new(), calls_max, body_bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, Truth> {
        // Nothing panics while holding it; if it did, the numbers would still be the best there are.
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn truth(&self) -> Truth {
        self.lock().clone()
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Forgets what ended; calls in flight stay counted.
    pub(super) fn forget(&self) {
        let mut truth = self.lock();
        let in_flight = truth.totals.in_flight;
        *truth = Truth::default();
        truth.totals.started = in_flight;
        truth.totals.in_flight = in_flight;
    }

    /// Waits until the totals are as wanted; false if they are not within the time.
    pub(super) async fn wait_until(&self, wanted: impl Fn(&Totals) -> bool, wait_max: Duration) -> bool {
        let waited = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                // Registered before looking, so that no change falls between.
                changed.as_mut().enable();
                if wanted(&self.totals()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(wait_max, waited).await.is_ok() || wanted(&self.totals())
    }

    /// A call arrived.
    pub(super) fn begin(self: &Arc<Self>, path: &'static str, headers: &HeaderMap) -> Recording {
        let number = {
            let mut truth = self.lock();
            truth.totals.started += 1;
            truth.totals.in_flight += 1;
            truth.totals.started
        };
        self.changed.notify_waiters();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = match self.calls_max {
            0 => Vec::new(),
            _ => headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        };
        let now = Instant::now();
        Recording {
            book: Arc::clone(self),
            began: now,
            last_frame: now,
            call: Call {
                number,
                id: String::new(),
                path,
                model: String::new(),
                user: None,
                stream: false,
                status: 0,
                prompt_tokens: 0,
                completion_tokens: 0,
                outcome: Outcome::ClientLeft,
                lasted_ms: 0,
                idle_ms: 0,
                headers,
                body: String::new(),
            },
        }
    }
}

/// A call under way. Dropped before [`Recording::end`], it is a call whose client left.
#[derive(Debug)]
pub(super) struct Recording {
    book: Arc<Book>,
    began: Instant,
    last_frame: Instant,
    pub(super) call: Call,
}

impl Recording {
    pub(super) fn saw_body(&mut self, body: &[u8]) {
        if self.book.calls_max > 0 {
            let kept = body.get(..self.book.body_bytes_max).unwrap_or(body);
            self.call.body = String::from_utf8_lossy(kept).into_owned();
        }
    }

    /// Tokens left for the client.
    pub(super) fn generated(&mut self, tokens: u64) {
        self.call.completion_tokens += tokens;
        self.last_frame = Instant::now();
    }

    /// The call is over; what is written at drop.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.call.outcome = outcome;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.call.lasted_ms = ms(self.began);
        self.call.idle_ms = ms(self.last_frame);
        {
            let mut truth = self.book.lock();
            let truth = &mut *truth;
            truth.totals.in_flight -= 1;
            truth.totals.count(&self.call);
            count_by(&mut truth.by_model, &self.call.model, &self.call);
            if let Some(user) = &self.call.user {
                count_by(&mut truth.by_user, user, &self.call);
            }
            if truth.calls.len() >= self.book.calls_max {
                truth.calls.pop_front();
                truth.calls_forgotten += 1;
            }
            if self.book.calls_max > 0 {
                truth.calls.push_back(self.call.clone());
            }
        }
        self.book.changed.notify_waiters();
    }
}

fn count_by(map: &mut BTreeMap<String, Totals>, key: &str, call: &Call) {
    if let Some(totals) = map.get_mut(key) {
        totals.count(call);
    } else if map.len() < KEYS_MAX {
        map.entry(key.to_owned()).or_default().count(call);
    }
}
