//! How long to wait before trying again: doubling, with jitter, under a cap, and never less than we were asked to.

use std::time::Duration;

/// The first wait, and the longest within a turn. A whole series of six lasts about 10 s: longer trouble is for the
/// inbox, which needs no memory while it waits.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
/// An answer that says "come back in an hour" is for the inbox too.
const ASKED_MAX: Duration = Duration::from_secs(30);
/// A conversation put off waits at most this long.
const DEFERRED_MAX: Duration = Duration::from_secs(300);

/// A series of tries.
#[derive(Debug)]
pub(super) struct Tries {
    left: u32,
    next: Duration,
}

impl Tries {
    /// At most `tries_max` in all, the first of which is made without waiting.
    pub(super) fn new(tries_max: u32) -> Self {
        Self { left: tries_max.saturating_sub(1), next: FIRST }
    }

    /// How long to wait before the next try; none when there is none left. `asked` is the other side's wish.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = jittered(self.next, random());
        self.next = (self.next * 2).min(LONGEST);
        match asked {
            Some(asked) if asked > ASKED_MAX => None,
            Some(asked) => Some(wait.max(asked)),
            None => Some(wait),
        }
    }
}

/// How long to put a conversation off that was put off `before` times already.
pub(super) fn deferral(first: Duration, before: u32) -> Duration {
    jittered(first.saturating_mul(1 << before.min(10)).min(DEFERRED_MAX.max(first)), random())
}

/// Between half of it and all of it, so that those who failed together do not come back together.
fn jittered(wait: Duration, random: u32) -> Duration {
    wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Without randomness the waits are merely equal.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_doubles_within_bounds_and_ends() {
        let mut tries = Tries::new(4);
        for full in [FIRST, FIRST * 2, FIRST * 4] {
            let wait = tries.next(None).unwrap();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        assert_eq!(tries.next(None), None);
        assert_eq!(Tries::new(1).next(None), None);
        assert_eq!(Tries::new(0).next(None), None);
    }

    #[test]
    fn the_other_side_s_wish_is_honoured_or_left_to_the_inbox() {
        assert_eq!(Tries::new(3).next(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(Tries::new(3).next(Some(Duration::from_secs(3_600))), None);
    }

    #[test]
    fn putting_off_grows_to_its_cap_without_overflow() {
        let first = Duration::from_secs(15);
        for (before, full) in [(0, 15), (1, 30), (4, 240), (5, 300), (40, 300)] {
            let full = Duration::from_secs(full);
            let wait = deferral(first, before);
            assert!(wait >= full / 2 && wait <= full, "{before}: {wait:?}");
        }
        assert_eq!(jittered(first, u32::MAX), first);
    }
}
