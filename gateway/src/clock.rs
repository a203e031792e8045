//! The one clock. Everything that asks what time it is asks this, so a test can move it.
//!
//! Two readings: `now_ms` is wall time (Unix, UTC) for periods, signatures and records; `monotonic`
//! never goes back and is for rates and durations. A wall clock set back by an operator must not refill
//! a budget: that is kept by the counters (they never return to an earlier period), not here.
//!
//! It does not schedule: timers are tokio's, which tests pause on their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use governor::nanos::Nanos;

/// Wall and monotonic time. Cheap to clone; clones of a manual clock move together.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    /// `Some` makes it manual: the wall time at start, in Unix ms.
    manual_start_ms: Option<i64>,
    /// How far a manual clock has been moved, in ns.
    moved_ns: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { start: Instant::now(), manual_start_ms: None, moved_ns: Arc::default() }
    }

    /// A clock that stands still at `start_ms` (Unix ms) until it is moved by [`Clock::advance`].
    pub fn manual(start_ms: i64) -> Self {
        Self { start: Instant::now(), manual_start_ms: Some(start_ms), moved_ns: Arc::default() }
    }

    /// Moves a manual clock forward. On the machine's clock it has no effect.
    pub fn advance(&self, by: Duration) {
        self.moved_ns.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Wall time: Unix milliseconds, UTC. 0 if the machine's clock stands before 1970.
    pub fn now_ms(&self) -> i64 {
        match self.manual_start_ms {
            Some(start) => start.saturating_add_unsigned(self.moved_ns.load(Ordering::SeqCst) / 1_000_000),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock")]
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Time since this clock was made; never goes back.
    pub fn monotonic(&self) -> Duration {
        match self.manual_start_ms {
            Some(_) => Duration::from_nanos(self.moved_ns.load(Ordering::SeqCst)),
            None => self.start.elapsed(),
        }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(nanos(self.monotonic()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual(1_000);
        let clone = clock.clone();
        assert_eq!((clock.now_ms(), clock.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_millis(1_500));
        assert_eq!((clone.now_ms(), clone.monotonic()), (2_500, Duration::from_millis(1_500)));
    }

    #[test]
    fn the_machine_s_clock_is_after_2025_and_does_not_go_back() {
        let clock = Clock::system();
        assert!(clock.now_ms() > 1_735_689_600_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }
}
