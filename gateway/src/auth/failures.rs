//! Failed authentications, counted by client address, so that a flood of wrong keys costs neither log nor memory.
//!
//! Who has a right key is never counted and never met by this, whoever else is behind the same address. Beyond the
//! limit a wrong key gets the very answer that it got before: a 429 would tell somebody with a typing error the wrong
//! thing because of his neighbours, and invites clients to try again, which they do not after a 401. What is saved
//! is the line in the access log; the key is compared as ever, since only that tells a wrong one from a right one.
//!
//! One governor limiter with a cell per address (IPv6: per /64, which is what one customer of a provider has). The
//! number of cells is bounded: when it is reached, addresses that have none share one. Cells that are as good as new
//! are dropped on a timer.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::config::Limits;

/// What failed from where.
#[derive(Debug)]
pub struct Failures {
    limiter: RateLimiter<Block, Cells, Clock, NoOpMiddleware<Nanos>>,
}

impl Failures {
    /// Nothing failed yet.
    pub fn new(limits: &Limits, clock: &Clock) -> Self {
        let per_minute = NonZeroU32::new(limits.auth_failures_per_minute).unwrap_or(NonZeroU32::MIN);
        let cells = Cells(Arc::new(Inner {
            by_block: DashMap::with_hasher(RandomState::default()),
            len: AtomicUsize::new(0),
            len_max: limits.auth_addresses_max,
            rest: AtomicU64::new(0),
        }));
        Self { limiter: RateLimiter::new(Quota::per_minute(per_minute), cells, clock.clone()) }
    }

    /// Counts a failure. `true`: there were too many from there.
    pub fn is_too_many(&self, from: IpAddr) -> bool {
        self.limiter.check_key(&Block::of(from)).is_err()
    }

    /// Forgets addresses that have been quiet long enough.
    pub fn forget(&self) {
        self.limiter.retain_recent();
    }

    /// Addresses that are watched.
    pub fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.limiter.is_empty()
    }
}

/// What is taken for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    V4(u32),
    /// The upper half.
    V6(u64),
}

impl Block {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

/// governor's state, a theoretical arrival time for each address and one for all others; 0 for "none yet".
#[derive(Debug)]
struct Cells(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_block: DashMap<Block, u64, RandomState>,
    /// Of `by_block`, with those that are just being put in.
    len: AtomicUsize,
    len_max: usize,
    rest: AtomicU64,
}

impl Inner {
    fn take_room(&self) -> bool {
        let more = |len: usize| (len < self.len_max).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl StateStore for Cells {
    type Key = Block;

    fn measure_and_replace<T, F, E>(&self, block: &Block, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = |cell: u64| (cell != 0).then(|| Nanos::from(cell));
        match self.0.by_block.entry(*block) {
            Entry::Occupied(mut cell) => {
                let (outcome, after) = f(known(*cell.get()))?;
                cell.insert(after.into());
                return Ok(outcome);
            }
            Entry::Vacant(place) if self.0.take_room() => {
                let (outcome, after) = f(None).inspect_err(|_| {
                    self.0.len.fetch_sub(1, Ordering::Relaxed);
                })?;
                place.insert(after.into());
                return Ok(outcome);
            }
            Entry::Vacant(_) => {}
        }
        let rest = &self.0.rest;
        let mut before = rest.load(Ordering::Relaxed);
        loop {
            let (outcome, after) = f(known(before))?;
            match rest.compare_exchange_weak(before, after.into(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

impl ShrinkableKeyedStateStore<Block> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        let drop_below = u64::from(drop_below);
        let mut dropped = 0;
        self.0.by_block.retain(|_, cell| {
            let keep = *cell > drop_below;
            dropped += usize::from(!keep);
            keep
        });
        self.0.len.fetch_sub(dropped, Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.0.by_block.len()
    }

    fn is_empty(&self) -> bool {
        self.0.by_block.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn failures(per_minute: u32, addresses_max: usize, clock: &Clock) -> Failures {
        let limits =
            Limits { auth_failures_per_minute: per_minute, auth_addresses_max: addresses_max, ..Limits::default() };
        Failures::new(&limits, clock)
    }

    #[test]
    fn an_address_is_let_off_after_a_while_and_another_is_not_met() {
        let clock = Clock::manual(0);
        let failures = failures(3, 10, &clock);
        let from = |text: &str| failures.is_too_many(text.parse().unwrap());
        assert_eq!(
            [from("10.0.0.1"), from("::ffff:10.0.0.1"), from("10.0.0.1"), from("10.0.0.1")],
            [false, false, false, true]
        );
        assert!(!from("10.0.0.2"));
        clock.advance(Duration::from_secs(20));
        assert_eq!([from("10.0.0.1"), from("10.0.0.1")], [false, true]);
        // One customer's IPv6 addresses are one.
        assert_eq!(
            [from("2001:db8::1"), from("2001:db8::2"), from("2001:db8::3"), from("2001:db8::4")],
            [false, false, false, true]
        );
        assert!(!from("2001:db8:0:1::1"));
        assert_eq!(failures.len(), 4);
        clock.advance(Duration::from_mins(2));
        failures.forget();
        assert!(failures.is_empty());
        assert!(!from("10.0.0.1"));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_the_bound() {
        let clock = Clock::manual(0);
        let failures = failures(60, 1_000, &clock);
        let mut quiet = 0;
        for number in 0..500_000_u32 {
            quiet += u32::from(failures.is_too_many(Ipv4Addr::from_bits(number).into()));
            let v6 = Ipv6Addr::from_bits(u128::from(number) << 64 | 0x2001 << 112);
            quiet += u32::from(failures.is_too_many(v6.into()));
            if number % 50_000 == 0 {
                assert!(failures.len() <= 1_000, "{}", failures.len());
            }
        }
        assert_eq!(failures.len(), 1_000);
        // Those beyond it share one count.
        assert_eq!(quiet, 1_000_000 - 1_000 - 60);
        clock.advance(Duration::from_mins(2));
        failures.forget();
        assert!(failures.is_empty());
        // There is room again, and no more than before.
        for number in 0..5_000_u32 {
            failures.is_too_many(Ipv4Addr::from_bits(number).into());
        }
        assert_eq!(failures.len(), 1_000);
    }

    #[test]
    fn threads_together_do_not_pass_the_bound() {
        let failures = failures(60, 500, &Clock::manual(0));
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let failures = &failures;
                scope.spawn(move || {
                    for number in 0..2_000_u32 {
                        failures.is_too_many(Ipv4Addr::from_bits(worker << 24 | number).into());
                        if number % 500 == 0 {
                            failures.forget();
                        }
                        assert!(failures.len() <= 500);
                    }
                });
            }
        });
        assert_eq!(failures.len(), 500);
    }
}
