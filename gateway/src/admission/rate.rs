//! Calls per minute: one governor limiter for a tenant, one more for a key that has its own.
//!
//! GCRA: `n` a minute means a burst of up to `n`, refilled one every 60/n s. governor cannot give a cell back,
//! so a call that a later check refuses would still have cost one. Our state cell can be put back: every
//! check of one tenant's limiters happens under that tenant's lock (see `account`), hence what is saved before
//! a check and restored after a refusal is exact. It is also why the cell needs no compare-and-swap.
//!
//! A rate forgets; a budget must not. Months are counted in `policies::meter` and `policies::wallet`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::admission::Window;
use crate::clock::Clock;

/// A limiter of calls per minute.
#[derive(Debug)]
pub struct Rate {
    limiter: RateLimiter<NotKeyed, Cell, Clock, StateInformationMiddleware>,
    cell: Cell,
    clock: Clock,
    per_minute: NonZeroU32,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// There was room, and it is taken.
    Taken(Window),
    /// No room; nothing changed. Come back after this long.
    Refused(Window, Duration),
}

/// A limiter's state before a check, to put back.
#[derive(Debug, Clone, Copy)]
pub struct Before(u64);

impl Rate {
    /// A full bucket of `per_minute`. `None`: no such limit (0 would refuse everything and is refused by the
    /// configuration; more than 2^32 a minute is no limit).
    pub fn new(per_minute: u64, clock: &Clock) -> Option<Self> {
        let per_minute = NonZeroU32::new(u32::try_from(per_minute).ok()?)?;
        let cell = Cell::default();
        let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(
            Quota::per_minute(per_minute),
            cell.clone(),
            clock.clone(),
        )
        .with_middleware::<StateInformationMiddleware>();
        Some(Self { limiter, cell, clock: clock.clone(), per_minute })
    }

    /// The limit.
    pub fn per_minute(&self) -> u64 {
        u64::from(self.per_minute.get())
    }

    /// Takes one call, if there is room.
    pub fn check(&self) -> Checked {
        match self.limiter.check() {
            Ok(state) => Checked::Taken(self.window(u64::from(state.remaining_burst_capacity()))),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Checked::Refused(self.window(0), wait)
            }
        }
    }

    /// What to give to [`Rate::put_back`] if a later check refuses.
    pub fn before(&self) -> Before {
        Before(self.cell.0.load(Ordering::Relaxed))
    }

    /// Undoes the check made since `before`.
    pub fn put_back(&self, before: Before) {
        self.cell.0.store(before.0, Ordering::Relaxed);
    }

    /// What is left, without taking any.
    pub fn look(&self) -> Window {
        let before = self.before();
        match self.check() {
            Checked::Taken(window) => {
                self.put_back(before);
                self.window(window.remaining + 1)
            }
            Checked::Refused(window, _) => window,
        }
    }

    /// The same rate with another limit, and as many calls used of it as of this one: a change of plan under
    /// load neither refills a bucket nor empties it.
    #[must_use]
    pub fn resized(&self, per_minute: u64) -> Option<Self> {
        let next = Self::new(per_minute, &self.clock)?;
        let used = self.per_minute().saturating_sub(self.look().remaining).min(next.per_minute());
        if let Some(used) = u32::try_from(used).ok().and_then(NonZeroU32::new) {
            // Cannot be refused: the bucket is full and `used` at most its size.
            let _ = next.limiter.check_n(used);
        }
        Some(next)
    }

    fn window(&self, remaining: u64) -> Window {
        let limit = self.per_minute();
        let used = limit.saturating_sub(remaining);
        Window { limit, remaining, reset_ms: (used * 60_000).div_ceil(limit) }
    }
}

/// governor's state for one limiter: the theoretical arrival time, 0 for "none yet".
#[derive(Debug, Clone, Default)]
struct Cell(Arc<AtomicU64>);

impl StateStore for Cell {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let before = self.0.load(Ordering::Relaxed);
        let (outcome, after) = f((before != 0).then(|| Nanos::from(before)))?;
        self.0.store(u64::from(after), Ordering::Relaxed);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_s_calls_then_one_at_a_time() {
        let clock = Clock::manual(0);
        let rate = Rate::new(3, &clock).unwrap();
        for left in [2, 1, 0] {
            assert!(matches!(rate.check(), Checked::Taken(window) if window.remaining == left));
        }
        let Checked::Refused(window, wait) = rate.check() else { panic!("a fourth call passed") };
        assert_eq!((window.limit, window.remaining, wait), (3, 0, Duration::from_secs(20)));
        clock.advance(Duration::from_secs(20));
        assert!(matches!(rate.check(), Checked::Taken(_)));
        assert!(matches!(rate.check(), Checked::Refused(..)));
    }

    #[test]
    fn what_is_put_back_was_never_taken() {
        let clock = Clock::manual(0);
        let rate = Rate::new(1, &clock).unwrap();
        for _ in 0..10 {
            let before = rate.before();
            assert!(matches!(rate.check(), Checked::Taken(_)));
            rate.put_back(before);
        }
        assert_eq!(rate.look().remaining, 1);
    }

    #[test]
    fn another_limit_keeps_what_was_used() {
        let clock = Clock::manual(0);
        let rate = Rate::new(10, &clock).unwrap();
        for _ in 0..4 {
            assert!(matches!(rate.check(), Checked::Taken(_)));
        }
        assert_eq!(rate.resized(100).unwrap().look().remaining, 96);
        assert_eq!(rate.resized(3).unwrap().look().remaining, 0);
    }
}
