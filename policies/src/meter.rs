//! A count that starts again each billing month: calls, conversations.
//!
//! A call is taken before it runs and may be given back if it comes to nothing; what is given
//! back goes only into the month it was taken from, so a call that straddles midnight cannot
//! make the new month larger. The limit is handed in with every question, never kept: a plan
//! changed under load changes what is left, never what is used.
//!
//! Tokens are not counted here: they come in lots, see [`crate::wallet`].

use serde::{Deserialize, Serialize};

use crate::limit::Limit;
use crate::period::Period;

/// What was used in one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    period: Period,
    used: u64,
    /// Goes up when the count starts again, so that what was taken before can be told apart.
    /// Not kept over a restart: no [`Taken`] lives through one.
    #[serde(skip)]
    generation: u32,
}

/// One unit, taken. Keep it until it is known that it need not be given back.
#[derive(Debug)]
#[must_use = "a unit that was taken counts until it is given back"]
pub struct Taken {
    generation: u32,
}

/// Nothing is left in this period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The limit that was met.
    pub limit: u64,
    /// When the count starts again, Unix milliseconds.
    pub reset_at_ms: i64,
}

impl Meter {
    /// A meter at zero.
    pub fn new(period: Period) -> Meter {
        Meter::restore(period, 0)
    }

    /// A meter as it was written down.
    pub fn restore(period: Period, used: u64) -> Meter {
        Meter { period, used, generation: 0 }
    }

    /// Take one, in the period that holds now. Refusal changes nothing but the period.
    pub fn take(&mut self, limit: Limit, period_now: Period) -> Result<Taken, Exhausted> {
        self.roll(period_now);
        match limit {
            Limit::AtMost(most) if self.used >= most => Err(Exhausted { limit: most, reset_at_ms: self.period.end_ms }),
            Limit::AtMost(_) | Limit::Unlimited => {
                self.used = self.used.saturating_add(1);
                Ok(Taken { generation: self.generation })
            }
        }
    }

    /// Undo one, if its period still runs.
    pub fn give_back(&mut self, taken: Taken) {
        if taken.generation == self.generation {
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Undo one of the period that runs, whose proof was not kept because it was written down.
    pub fn forget_one(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// Go to the period that holds now. The count starts again when the new period begins at or
    /// after the end of ours. A period that overlaps ours means that the anchor was moved: the
    /// count goes on under the new dates, so moving it grants nothing. An earlier period (a
    /// clock set back) is ignored.
    pub fn roll(&mut self, period_now: Period) {
        if period_now == self.period || period_now.end_ms <= self.period.start_ms {
            return;
        }
        if period_now.start_ms >= self.period.end_ms {
            self.used = 0;
            self.generation = self.generation.wrapping_add(1);
        }
        self.period = period_now;
    }

    /// Used so far in [`Meter::period`].
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The period being counted.
    pub fn period(&self) -> Period {
        self.period
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JANUARY: Period = Period { start_ms: 0, end_ms: 100 };
    const FEBRUARY: Period = Period { start_ms: 100, end_ms: 200 };

    #[test]
    fn the_last_one_is_given_and_the_next_is_not() {
        let mut meter = Meter::new(JANUARY);
        let limit = Limit::AtMost(2);
        let first = meter.take(limit, JANUARY).unwrap();
        let _second = meter.take(limit, JANUARY).unwrap();
        assert_eq!(meter.take(limit, JANUARY).unwrap_err(), Exhausted { limit: 2, reset_at_ms: 100 });
        meter.give_back(first);
        assert!(meter.take(limit, JANUARY).is_ok());
        assert_eq!(meter.used(), 2);
    }

    #[test]
    fn what_was_taken_in_january_is_not_given_back_in_february() {
        let mut meter = Meter::new(JANUARY);
        let old = meter.take(Limit::AtMost(5), JANUARY).unwrap();
        let _new = meter.take(Limit::AtMost(5), FEBRUARY).unwrap();
        meter.give_back(old);
        assert_eq!((meter.used(), meter.period()), (1, FEBRUARY));
    }

    #[test]
    fn moving_the_anchor_or_the_clock_back_resets_nothing() {
        let mut meter = Meter::restore(FEBRUARY, 7);
        let moved = Period { start_ms: 150, end_ms: 250 };
        meter.roll(moved);
        assert_eq!((meter.used(), meter.period()), (7, moved));
        meter.roll(JANUARY);
        assert_eq!((meter.used(), meter.period()), (7, moved));
    }

    #[test]
    fn a_lower_limit_refuses_and_a_higher_one_remembers() {
        let mut meter = Meter::restore(JANUARY, 10);
        assert!(meter.take(Limit::AtMost(5), JANUARY).is_err());
        let _taken = meter.take(Limit::AtMost(11), JANUARY).unwrap();
        assert!(meter.take(Limit::AtMost(11), JANUARY).is_err());
        let mut full = Meter::restore(JANUARY, u64::MAX);
        let _taken = full.take(Limit::Unlimited, JANUARY).unwrap();
        assert_eq!(full.used(), u64::MAX);
    }

    #[test]
    fn it_is_written_down_and_read_back() {
        let meter = Meter::restore(FEBRUARY, 3);
        let text = serde_json::to_string(&meter).unwrap();
        assert_eq!(serde_json::from_str::<Meter>(&text).unwrap(), meter);
    }

    proptest! {
        /// Whatever is taken and given back over months, a month's count is what was taken in it
        /// and not given back in it, and never beyond the limit.
        #[test]
        fn it_counts_what_is_out(steps in prop::collection::vec((0_u8..3, 0_u8..8), 0..200)) {
            let mut meter = Meter::new(Period { start_ms: 0, end_ms: 10 });
            let (mut month, mut out) = (0_i64, Vec::new());
            for (step, pick) in steps {
                let period = Period { start_ms: month * 10, end_ms: month * 10 + 10 };
                match step {
                    0 => match meter.take(Limit::AtMost(4), period) {
                        Ok(taken) => out.push((month, taken)),
                        Err(exhausted) => prop_assert_eq!(exhausted.reset_at_ms, period.end_ms),
                    },
                    1 if !out.is_empty() => {
                        let (_, taken) = out.swap_remove(usize::from(pick) % out.len());
                        meter.give_back(taken);
                    }
                    1 => {}
                    _ => {
                        month += i64::from(pick % 2);
                        meter.roll(Period { start_ms: month * 10, end_ms: month * 10 + 10 });
                    }
                }
                let expected = out.iter().filter(|(taken_in, _)| *taken_in == month).count() as u64;
                prop_assert_eq!(meter.used(), expected);
                prop_assert!(meter.used() <= 4);
            }
        }
    }
}
