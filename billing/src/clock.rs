//! The one clock. Everything that asks what time it is asks this, so a test can move it.
//!
//! Wall time only (Unix ms, UTC), for periods and records. Durations and timers are tokio's. The gateway has its own,
//! with a monotonic reading for rates, which are not counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time. Clones of a manual clock move together.
#[derive(Debug, Clone)]
pub struct Clock {
    /// `Some` makes it manual: what it shows, in Unix ms.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands still at `start_ms` (Unix ms) until it is moved.
    pub fn manual(start_ms: i64) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start_ms))) }
    }

    /// Moves a manual clock forward by this many ms. On the machine's clock it has no effect.
    pub fn advance(&self, by_ms: i64) {
        if let Some(shown) = &self.manual {
            shown.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Unix milliseconds, UTC. 0 if the machine's clock stands before 1970.
    pub fn now_ms(&self) -> i64 {
        match &self.manual {
            Some(shown) => shown.load(Ordering::SeqCst),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock")]
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual(1_000);
        let clone = clock.clone();
        clock.advance(1_500);
        assert_eq!((clock.now_ms(), clone.now_ms()), (2_500, 2_500));
    }

    #[test]
    fn the_machine_s_clock_is_after_2025() {
        assert!(Clock::system().now_ms() > 1_735_689_600_000);
    }
}
