//! Whether a failed try may be followed by another, and how long to wait before.
//!
//! Retries help against what fails now and then, and make worse what fails because there is too much of it. So they
//! come out of a budget that requests pay in: a fifth of a retry each, up to a bound, and a few to begin with.
//! When everything fails, the upstreams together see at most 1.2 times the requests plus those few. A trickle, one a
//! second, lets a quiet gateway retry at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// What a request pays in, as a part of what a retry costs: 1/5, which is the 20 %.
const RETRY_COSTS: u64 = 5;
/// Retries there are at first.
const AT_FIRST: u64 = 10;
/// Retries that can be saved up: enough for the connections that break when one of several upstreams restarts.
const SAVED_MAX: u64 = 50;
/// How often a retry is granted on an empty budget.
const TRICKLE: Duration = Duration::from_secs(1);
/// Waits before the second and third try of the same upstream: this and twice this, less up to half by chance.
const BACKOFF: Duration = Duration::from_millis(100);

/// The budget of one set of upstreams.
#[derive(Debug)]
pub(super) struct RetryBudget {
    clock: Clock,
    /// In fifths of a retry.
    fifths: AtomicU64,
    /// When the trickle last gave one, in ms of the monotonic clock.
    trickled_ms: AtomicU64,
}

impl RetryBudget {
    pub(super) fn new(clock: Clock) -> Self {
        let now = ms(clock.monotonic());
        Self { clock, fifths: AtomicU64::new(AT_FIRST * RETRY_COSTS), trickled_ms: AtomicU64::new(now) }
    }

    /// A request has come.
    pub(super) fn pay_in(&self) {
        // Concurrent requests may overshoot the bound, by no more than there are of them at this instruction.
        if self.fifths.load(Ordering::Relaxed) < SAVED_MAX * RETRY_COSTS {
            self.fifths.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    #[must_use]
    pub(super) fn take(&self) -> bool {
        let taken =
            self.fifths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |have| have.checked_sub(RETRY_COSTS));
        if taken.is_ok() {
            return true;
        }
        let now = ms(self.clock.monotonic());
        let last = self.trickled_ms.load(Ordering::Relaxed);
        now.saturating_sub(last) >= ms(TRICKLE)
            && self.trickled_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How long to wait before trying an upstream again that has failed `failures` times. `drawn` is any number.
pub(super) fn backoff(failures: usize, drawn: u64) -> Duration {
    let most = ms(BACKOFF) << failures.saturating_sub(1).min(4);
    Duration::from_millis(most - drawn % (most / 2 + 1))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Numbers that look drawn by chance and cost one addition and a few shifts (splitmix64 over a counter): for shares
/// and jitter, where it matters that they are spread and not that they cannot be guessed.
#[derive(Debug, Default)]
pub(super) struct Draws {
    counter: AtomicU64,
}

impl Draws {
    pub(super) fn next(&self) -> u64 {
        let counted = self.counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut mixed = counted.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_outage_gets_a_fifth_and_the_first_few() {
        let budget = RetryBudget::new(Clock::manual(0));
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.pay_in();
            retries += u32::from(budget.take()) + u32::from(budget.take());
        }
        assert_eq!(retries, 200 + 10);
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let budget = RetryBudget::new(Clock::manual(0));
        for _ in 0..100_000 {
            budget.pay_in();
        }
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), 50);
    }

    #[test]
    fn an_empty_budget_trickles() {
        let clock = Clock::manual(0);
        let budget = RetryBudget::new(clock.clone());
        while budget.take() {}
        for _ in 0..5 {
            clock.advance(TRICKLE);
            assert!(budget.take());
            assert!(!budget.take());
        }
    }

    #[test]
    fn a_backoff_is_between_half_and_whole() {
        let draws = Draws::default();
        let mut seen = std::collections::BTreeSet::new();
        for (failures, most) in [(1, 100), (2, 200), (5, 1_600), (usize::MAX, 1_600)] {
            for _ in 0..1_000 {
                let wait = ms(backoff(failures, draws.next()));
                assert!((most / 2..=most).contains(&wait), "{failures}: {wait}");
                seen.insert(wait);
            }
        }
        assert!(seen.len() > 500, "no jitter: {seen:?}");
    }

    #[test]
    fn draws_are_spread() {
        let draws = Draws::default();
        let mut bins = [0_u32; 16];
        for _ in 0..16_000 {
            bins[usize::try_from(draws.next() % 16).unwrap()] += 1;
        }
        assert!(bins.iter().all(|bin| (850..1_150).contains(bin)), "{bins:?}");
    }
}
