//! When requests should begin: decided before the run, whatever the server does meanwhile.
//!
//! That is what makes a loop *open*: a server that stalls does not slow its callers, it makes them wait, and each of
//! them counts from the moment it wanted to begin. The schedule is arithmetic only; who keeps to it is `drive`.

use std::time::Duration;

/// Offsets from the beginning at which requests are due, endless and never going back.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    rate: f64,
    ramp_s: f64,
    /// Random gaps, as independent callers have; without, all gaps are alike.
    poisson: bool,
    seed: u64,
    arrivals: u64,
    /// Arrivals so far, as the area below the rate's curve: whole numbers, or sums of random gaps.
    area: f64,
}

impl Schedule {
    /// `rate` arrivals a second, reached in a straight line from 0 during `ramp`.
    #[must_use]
    pub(super) fn new(rate: f64, ramp: Duration, poisson: bool, seed: u64) -> Self {
        Self { rate, ramp_s: ramp.as_secs_f64(), poisson, seed, arrivals: 0, area: 0.0 }
    }

    /// The moment by which the curve has this area below it.
    fn offset_s(&self, area: f64) -> f64 {
        let ramp_area = self.rate * self.ramp_s / 2.0;
        if area < ramp_area {
            (2.0 * area * self.ramp_s / self.rate).sqrt()
        } else {
            self.ramp_s + (area - ramp_area) / self.rate
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let offset = self.offset_s(self.area);
        self.area += if self.poisson { -(1.0 - unit(self.seed, self.arrivals)).ln() } else { 1.0 };
        self.arrivals += 1;
        Duration::try_from_secs_f64(offset).ok()
    }
}

/// A number that seed and index decide (splitmix64): the same run can be had again. Not for secrets.
#[must_use]
pub(super) fn draw(seed: u64, index: u64) -> u64 {
    let mut mixed = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The same as a number from 0 up to, but not including, 1.
#[must_use]
pub(super) fn unit(seed: u64, index: u64) -> f64 {
    // 53 bits are what a double holds exactly.
    (draw(seed, index) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(schedule: Schedule, time: Duration) -> usize {
        schedule.take_while(|due| *due < time).count()
    }

    #[test]
    fn an_even_schedule_is_even() {
        let due: Vec<_> = Schedule::new(100.0, Duration::ZERO, false, 1).take(4).collect();
        assert_eq!(due, [0, 10, 20, 30].map(Duration::from_millis));
        assert_eq!(within(Schedule::new(250.0, Duration::ZERO, false, 1), Duration::from_secs(4)), 1000);
    }

    #[test]
    fn a_ramp_is_half_of_what_it_leads_to_and_never_goes_back() {
        let schedule = || Schedule::new(1000.0, Duration::from_secs(10), false, 1);
        assert_eq!(within(schedule(), Duration::from_secs(10)), 5000);
        // A quarter of the ramp's arrivals are due by half of its time.
        assert_eq!(within(schedule(), Duration::from_secs(5)), 1250);
        assert_eq!(within(schedule(), Duration::from_secs(11)), 6000);
        let due: Vec<_> = schedule().take(7000).collect();
        assert!(due.is_sorted());
    }

    #[test]
    fn random_gaps_have_the_rate_and_the_seed_decides_them() {
        let schedule = |seed| Schedule::new(1000.0, Duration::ZERO, true, seed);
        let arrivals = within(schedule(7), Duration::from_secs(20));
        // 20,000 expected, and 141 of them are one standard deviation.
        assert!((19_300..20_700).contains(&arrivals), "{arrivals}");
        assert!(schedule(7).take(100).eq(schedule(7).take(100)));
        assert!(!schedule(7).take(100).eq(schedule(8).take(100)));
        assert!(schedule(7).take(1000).collect::<Vec<_>>().is_sorted());
    }
}
