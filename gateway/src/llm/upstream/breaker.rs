//! When to leave an upstream alone, and when to try it again.
//!
//! Closed: it is used. Open: it failed too often and is left alone for a while, one second at first and twice as
//! long after each probe that fails. Half-open: the while is over, one request goes there to see, the others go
//! elsewhere. It opens after failures in a row with no success between, or when at least half of what was sent within
//! a window failed: the first is fast where nothing works, the second sees an upstream that works now and then.
//!
//! **One client must not close an upstream for another.** A refusal of the request itself counts as health, and a
//! plain 500, which one poisoned request can bring about on some servers as often as it likes, never counts in a row:
//! only half of all traffic failing opens.
//!
//! The judgement is of heads. A stream that breaks later was begun by an upstream that works, and why it broke is
//! not ours to guess.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::Clock;

/// Failures in a row that open it. A retry against the same upstream counts too: one call has at most three.
const IN_A_ROW_MAX: u32 = 5;
/// Failures are counted within this, from the first of them.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer failures in a window say nothing of a share.
const WINDOW_FAILURES_MIN: u32 = 10;
/// How long it stays open at first.
const OPEN_MIN: Duration = Duration::from_secs(1);
/// And at most: what an upstream that came back may have to wait for its first request.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// What a try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The upstream is at fault, whatever it was asked.
    Certain,
    /// It, or what it was asked.
    Doubtful,
}

/// Where a breaker stands. The number is the gauge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Used.
    Closed = 0,
    /// One request is on its way to see.
    HalfOpen = 1,
    /// Left alone.
    Open = 2,
}

/// One upstream's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    upstream: Arc<str>,
    clock: Clock,
    /// The usual case, seen without a lock.
    closed: AtomicBool,
    /// Tries that found it healthy, ever. Only differences mean anything.
    healthy: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// When the next probe may go.
    until: Duration,
    /// Times it opened with no success between.
    openings: u32,
    in_a_row: u32,
    /// `healthy` at the last failure: if it has moved, the row is broken.
    healthy_then: u64,
    window_began: Duration,
    window_failures: u32,
    /// `healthy` when the window began.
    window_healthy: u64,
}

impl Breaker {
    pub(super) fn new(upstream: Arc<str>, clock: Clock) -> Self {
        Self {
            upstream,
            clock,
            closed: AtomicBool::new(true),
            healthy: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                state: State::Closed,
                until: Duration::ZERO,
                openings: 0,
                in_a_row: 0,
                healthy_then: 0,
                window_began: Duration::ZERO,
                window_failures: 0,
                window_healthy: 0,
            }),
        }
    }

    /// How long until it may be tried; `None`: now.
    pub(super) fn wait(&self) -> Option<Duration> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.lock().wait(self.clock.monotonic())
    }

    /// The right to one try, if it may be tried. The ticket must be told what came of it.
    pub(super) fn admit(&self) -> Option<Ticket<'_>> {
        if self.closed.load(Ordering::Acquire) {
            return Some(Ticket { breaker: self, probes: false });
        }
        let mut inner = self.lock();
        if inner.wait(self.clock.monotonic()).is_some() {
            return None;
        }
        let probes = inner.state == State::Open;
        if probes {
            inner.state = State::HalfOpen;
        }
        Some(Ticket { breaker: self, probes })
    }

    pub(super) fn state(&self) -> State {
        self.lock().state
    }

    fn failed(&self, failure: Failure) {
        let now = self.clock.monotonic();
        let healthy = self.healthy.load(Ordering::Relaxed);
        let mut inner = self.lock();
        // What was sent before it opened and fails now tells nothing new.
        if inner.state == State::Closed && inner.counts_enough(failure, healthy, now) {
            self.open(&mut inner, now);
        }
    }

    fn probe_failed(&self) {
        let now = self.clock.monotonic();
        self.open(&mut self.lock(), now);
    }

    fn open(&self, inner: &mut Inner, now: Duration) {
        let wait = OPEN_MIN.saturating_mul(1 << inner.openings.min(5)).min(OPEN_MAX);
        inner.state = State::Open;
        inner.until = now + wait;
        inner.openings = inner.openings.saturating_add(1);
        self.closed.store(false, Ordering::Release);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(upstream = &*self.upstream, wait_ms, "Upstream left alone: it keeps failing.");
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.state = State::Closed;
        (inner.openings, inner.in_a_row, inner.window_failures) = (0, 0, 0);
        self.closed.store(true, Ordering::Release);
        info!(upstream = &*self.upstream, "Upstream used again: it answers.");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wait(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open => self.until.checked_sub(now).filter(|wait| !wait.is_zero()),
            // When the probe ends nobody knows; it is the next one's turn about then.
            State::HalfOpen => Some(OPEN_MIN),
        }
    }

    fn counts_enough(&mut self, failure: Failure, healthy: u64, now: Duration) -> bool {
        if self.healthy_then != healthy {
            self.in_a_row = 0;
            self.healthy_then = healthy;
        }
        if failure == Failure::Certain {
            self.in_a_row += 1;
        }
        if self.window_failures == 0 || now.saturating_sub(self.window_began) > WINDOW {
            (self.window_began, self.window_failures, self.window_healthy) = (now, 0, healthy);
        }
        self.window_failures += 1;
        let succeeded = healthy.wrapping_sub(self.window_healthy);
        self.in_a_row >= IN_A_ROW_MAX
            || (self.window_failures >= WINDOW_FAILURES_MIN && u64::from(self.window_failures) >= succeeded)
    }
}

/// One try under way.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket<'a> {
    breaker: &'a Breaker,
    /// It is the one request that goes to see.
    probes: bool,
}

impl Ticket<'_> {
    /// The upstream answered as an upstream should.
    pub(super) fn healthy(mut self) {
        self.breaker.healthy.fetch_add(1, Ordering::Relaxed);
        if std::mem::take(&mut self.probes) {
            self.breaker.close();
        }
    }

    /// It did not.
    pub(super) fn failed(mut self, failure: Failure) {
        if std::mem::take(&mut self.probes) {
            self.breaker.probe_failed();
        } else {
            self.breaker.failed(failure);
        }
    }
}

impl Drop for Ticket<'_> {
    /// Nothing came of it, for no fault of the upstream: its client left. Who comes next goes to see.
    fn drop(&mut self) {
        if self.probes {
            self.breaker.lock().state = State::Open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Clock) {
        let clock = Clock::manual(0);
        (Breaker::new("upstream".into(), clock.clone()), clock)
    }

    fn fail(breaker: &Breaker, times: u32, failure: Failure) {
        for _ in 0..times {
            breaker.admit().unwrap().failed(failure);
        }
    }

    fn succeed(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.admit().unwrap().healthy();
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_breaks_the_row() {
        let (breaker, _) = breaker();
        fail(&breaker, IN_A_ROW_MAX - 1, Failure::Certain);
        succeed(&breaker, 1);
        fail(&breaker, IN_A_ROW_MAX - 1, Failure::Certain);
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, 1, Failure::Certain);
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.admit().is_none());
        assert_eq!(breaker.wait(), Some(OPEN_MIN));
    }

    #[test]
    fn one_probe_goes_and_decides() {
        let (breaker, clock) = breaker();
        fail(&breaker, IN_A_ROW_MAX, Failure::Certain);
        clock.advance(OPEN_MIN);
        let probe = breaker.admit().unwrap();
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.admit().is_none(), "a second probe");
        probe.failed(Failure::Doubtful);
        assert_eq!((breaker.state(), breaker.wait()), (State::Open, Some(2 * OPEN_MIN)));
        clock.advance(2 * OPEN_MIN);
        breaker.admit().unwrap().healthy();
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, IN_A_ROW_MAX, Failure::Certain);
        assert_eq!(breaker.wait(), Some(OPEN_MIN), "a success did not reset the wait");
    }

    #[test]
    fn the_wait_doubles_up_to_its_maximum() {
        let (breaker, clock) = breaker();
        fail(&breaker, IN_A_ROW_MAX, Failure::Certain);
        for seconds in [2, 4, 8, 16, 30, 30, 30] {
            clock.advance(OPEN_MAX);
            breaker.admit().unwrap().failed(Failure::Certain);
            assert_eq!(breaker.wait(), Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_probe_whose_client_left_leaves_its_place_to_the_next() {
        let (breaker, clock) = breaker();
        fail(&breaker, IN_A_ROW_MAX, Failure::Certain);
        clock.advance(OPEN_MIN);
        drop(breaker.admit().unwrap());
        assert_eq!(breaker.state(), State::Open);
        breaker.admit().unwrap().healthy();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn what_was_sent_before_it_opened_changes_nothing() {
        let (breaker, clock) = breaker();
        let late: Vec<_> = (0..3).map(|_| breaker.admit().unwrap()).collect();
        fail(&breaker, IN_A_ROW_MAX, Failure::Certain);
        for ticket in late {
            ticket.failed(Failure::Certain);
        }
        assert_eq!(breaker.wait(), Some(OPEN_MIN));
        clock.advance(OPEN_MIN);
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn half_of_a_window_failing_opens_it() {
        let (breaker, _) = breaker();
        for _ in 1..WINDOW_FAILURES_MIN {
            fail(&breaker, 1, Failure::Doubtful);
            succeed(&breaker, 1);
        }
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, 1, Failure::Doubtful);
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_minority_of_poisoned_requests_does_not_open_it() {
        let (breaker, clock) = breaker();
        succeed(&breaker, 1_000);
        for _ in 0..500 {
            fail(&breaker, 2, Failure::Doubtful);
            succeed(&breaker, 3);
            clock.advance(Duration::from_millis(30));
        }
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn failures_long_ago_are_forgotten() {
        let (breaker, clock) = breaker();
        for _ in 0..100 {
            fail(&breaker, WINDOW_FAILURES_MIN - 1, Failure::Doubtful);
            clock.advance(WINDOW + Duration::from_millis(1));
        }
        assert_eq!(breaker.state(), State::Closed);
    }
}
