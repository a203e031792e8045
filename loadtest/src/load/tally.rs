//! What a run has seen: counts, histograms and a timeline, in memory that does not grow with the run.
//!
//! Histograms are HDR ones of three digits up to an hour, so a stall is kept as it was and not averaged away.
//! Requests due during the ramp stand in the timeline only. An aborted request has no latency: we ended it ourselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest time that is told apart from longer ones: an hour, in µs.
const LONGEST_US: u64 = 3_600_000_000;
/// Points of the timeline at most; the interval between them is chosen so that they suffice.
const POINTS_MAX: u32 = 300;
/// Targets that are told apart. With more of them only the whole is reported.
pub(super) const TARGETS_TOLD_MAX: usize = 32;

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// As it should.
    Ok,
    /// With another status than a 2xx.
    Status(u16),
    /// No connection.
    NoConnection,
    /// Not within the time a caller waits.
    Timeout,
    /// The connection broke, or what came was not HTTP.
    Broken,
    /// A stream ended without saying that it is complete.
    CutShort,
    /// A stream told of an error.
    ErrorEvent,
    /// We left on purpose.
    Aborted,
    /// Never sent: so many were waiting already that one more could not be held. The load was less than asked for.
    NotSent,
}

impl Outcome {
    /// Its name in reports.
    #[must_use]
    pub(super) fn name(self) -> String {
        match self {
            Self::Ok => "ok".to_owned(),
            Self::Status(status) => format!("status {status}"),
            Self::NoConnection => "no connection".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Broken => "broken".to_owned(),
            Self::CutShort => "cut short".to_owned(),
            Self::ErrorEvent => "error event".to_owned(),
            Self::Aborted => "aborted".to_owned(),
            Self::NotSent => "not sent".to_owned(),
        }
    }

    fn is_error(self) -> bool {
        !matches!(self, Self::Ok | Self::Aborted)
    }
}

/// One request, done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Which of the keys or channels it used.
    pub(super) target: usize,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// When it should have begun.
    pub(super) due: Instant,
    /// When it was taken up.
    pub(super) begun: Instant,
    /// When it was over.
    pub(super) ended: Instant,
    /// What opening a connection took, if one was opened for it.
    pub(super) connect: Option<Duration>,
    /// When the first token was there.
    pub(super) first: Option<Instant>,
    /// Frames of its stream that carried something.
    pub(super) frames: u64,
    /// Frames whose numbers were missing.
    pub(super) lost: u64,
    /// Frames whose numbers had been seen.
    pub(super) duplicated: u64,
}

/// Times, all in µs.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// From when a request was due to its end; of those that went well.
    pub(super) latency: Histogram<u64>,
    /// From when it was taken up to its end: what a closed loop would have called latency.
    pub(super) service: Histogram<u64>,
    /// The same for those answered otherwise.
    pub(super) refused: Histogram<u64>,
    /// From due to taken up: the load generator's own lateness.
    pub(super) late: Histogram<u64>,
    /// Opening a connection.
    pub(super) connect: Histogram<u64>,
    /// From due to the first token.
    pub(super) first: Histogram<u64>,
    /// Between a frame and the one before it in its stream.
    pub(super) gap: Histogram<u64>,
}

/// One key's or channel's part.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// How its requests ended.
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    /// Latency of those that went well, µs.
    pub(super) latency: Histogram<u64>,
}

/// One interval of the timeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Seconds from the beginning of the run to the beginning of the interval.
    pub(super) at_s: f64,
    /// Requests that ended in it, a second.
    pub(super) rate: f64,
    /// Errors in it, a second.
    pub(super) errors: f64,
    /// Median latency, ms; 0 if nothing ended well.
    pub p50_ms: f64,
    /// The 99th percentile, ms.
    pub p99_ms: f64,
}

/// Everything a run has seen so far.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// How requests ended, the ramp's not counted.
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    /// Requests that were due during the ramp.
    pub(super) ramped: u64,
    /// Times.
    pub(super) times: Times,
    /// By key or channel; empty if there are too many of them.
    pub(super) parts: Vec<Part>,
    /// The timeline.
    pub(super) points: Vec<Point>,
    /// Frames that carried something.
    pub(super) frames: u64,
    /// Frames missing by their numbers.
    pub(super) lost: u64,
    /// Frames seen before by their numbers.
    pub(super) duplicated: u64,
    /// When the last request ended.
    pub(super) last_ended: Instant,
    interval: Interval,
}

/// The part of the timeline that is still growing.
#[derive(Debug, Clone)]
struct Interval {
    began: Instant,
    length: Duration,
    ended: u64,
    errors: u64,
    latency: Histogram<u64>,
}

/// A run's counts, shared by all who make requests.
#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    measured_from: Instant,
    seen: Mutex<Seen>,
}

impl Tally {
    /// For a run that begins at `began`, ramps up for `ramp` and then lasts for `lasting`.
    ///
    /// # Errors
    /// A histogram of these bounds cannot be made.
    pub(super) fn new(
        began: Instant,
        ramp: Duration,
        lasting: Duration,
        targets: usize,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3);
        let told = if targets <= TARGETS_TOLD_MAX { targets } else { 0 };
        let part = || Ok(Part { outcomes: BTreeMap::new(), latency: histogram()? });
        let seen = Seen {
            outcomes: BTreeMap::new(),
            ramped: 0,
            times: Times {
                latency: histogram()?,
                service: histogram()?,
                refused: histogram()?,
                late: histogram()?,
                connect: histogram()?,
                first: histogram()?,
                gap: histogram()?,
            },
            parts: (0..told).map(|_| part()).collect::<Result<_, _>>()?,
            points: Vec::new(),
            frames: 0,
            lost: 0,
            duplicated: 0,
            last_ended: began,
            interval: Interval {
                began,
                length: ((ramp + lasting) / POINTS_MAX).max(Duration::from_secs(1)),
                ended: 0,
                errors: 0,
                latency: histogram()?,
            },
        };
        Ok(Self { began, measured_from: began + ramp, seen: Mutex::new(seen) })
    }

    /// When the run began.
    #[must_use]
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Counts a request that has ended.
    pub(super) fn record(&self, sample: &Sample) {
        let mut seen = self.seen();
        let seen = &mut *seen;
        seen.last_ended = seen.last_ended.max(sample.ended);
        seen.close_intervals(self.began, sample.ended);
        seen.interval.ended += 1;
        seen.interval.errors += u64::from(sample.outcome.is_error());
        let latency = micros(sample.ended - sample.due);
        if sample.outcome == Outcome::Ok {
            seen.interval.latency.saturating_record(latency);
        }
        if sample.due < self.measured_from {
            seen.ramped += 1;
            return;
        }
        *seen.outcomes.entry(sample.outcome).or_default() += 1;
        seen.frames += sample.frames;
        seen.lost += sample.lost;
        seen.duplicated += sample.duplicated;
        let times = &mut seen.times;
        times.late.saturating_record(micros(sample.begun - sample.due));
        if let Some(connect) = sample.connect {
            times.connect.saturating_record(micros(connect));
        }
        if let Some(first) = sample.first {
            times.first.saturating_record(micros(first - sample.due));
        }
        match sample.outcome {
            Outcome::Ok => {
                times.latency.saturating_record(latency);
                times.service.saturating_record(micros(sample.ended - sample.begun));
            }
            Outcome::Status(_) => times.refused.saturating_record(latency),
            _ => {}
        }
        if let Some(part) = seen.parts.get_mut(sample.target) {
            *part.outcomes.entry(sample.outcome).or_default() += 1;
            if sample.outcome == Outcome::Ok {
                part.latency.saturating_record(latency);
            }
        }
    }

    /// Counts the time between two frames of one stream.
    pub(super) fn record_gap(&self, gap: Duration) {
        self.seen().times.gap.saturating_record(micros(gap));
    }

    /// Counts a request that could not be sent.
    pub(super) fn record_not_sent(&self, due: Instant) {
        let mut seen = self.seen();
        if due < self.measured_from {
            seen.ramped += 1;
        } else {
            *seen.outcomes.entry(Outcome::NotSent).or_default() += 1;
        }
    }

    /// Requests ended so far, errors among them, and the median and 99th percentile of the present interval, ms.
    #[must_use]
    pub(super) fn glance(&self) -> (u64, u64, f64, f64) {
        let seen = self.seen();
        let errors = seen.outcomes.iter().filter(|(outcome, _)| outcome.is_error()).map(|(_, count)| count).sum();
        let latency = &seen.interval.latency;
        (seen.ramped + seen.outcomes.values().sum::<u64>(), errors, millis(latency, 0.5), millis(latency, 0.99))
    }

    /// Closes the timeline and gives everything.
    #[must_use]
    pub(super) fn finish(&self) -> Seen {
        let mut seen = self.seen();
        let end = seen.last_ended;
        seen.close_intervals(self.began, end);
        let rest = end - seen.interval.began;
        if seen.interval.ended > 0 && !rest.is_zero() {
            seen.close_interval(self.began, rest);
        }
        seen.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Counting does not panic half-way; should it, what is there is still worth reporting.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Closes the intervals that are over by then. A long silence gives a few empty ones.
    fn close_intervals(&mut self, began: Instant, now: Instant) {
        while now.saturating_duration_since(self.interval.began) >= self.interval.length {
            self.close_interval(began, self.interval.length);
        }
    }

    fn close_interval(&mut self, began: Instant, lasted: Duration) {
        let interval = &mut self.interval;
        let seconds = lasted.as_secs_f64();
        self.points.push(Point {
            at_s: (interval.began - began).as_secs_f64(),
            rate: interval.ended as f64 / seconds,
            errors: interval.errors as f64 / seconds,
            p50_ms: millis(&interval.latency, 0.5),
            p99_ms: millis(&interval.latency, 0.99),
        });
        interval.began += lasted;
        interval.ended = 0;
        interval.errors = 0;
        interval.latency.reset();
    }

    /// Requests counted after the ramp.
    #[must_use]
    pub(super) fn counted(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// How many ended so.
    #[must_use]
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// Those that went wrong: neither ok nor left by ourselves.
    #[must_use]
    pub(super) fn errors(&self) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| outcome.is_error()).map(|(_, count)| count).sum()
    }
}

/// A quantile (0 to 1) in ms; 0 of nothing.
#[must_use]
pub(super) fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() { 0.0 } else { histogram.value_at_quantile(quantile) as f64 / 1000.0 }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sample(due: Instant, begun_after: Duration, took: Duration, outcome: Outcome) -> Sample {
        let begun = due + begun_after;
        Sample {
            target: 0,
            outcome,
            due,
            begun,
            ended: begun + took,
            connect: None,
            first: None,
            frames: 0,
            lost: 0,
            duplicated: 0,
        }
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due() {
        let began = Instant::now();
        let tally = Tally::new(began, Duration::ZERO, Duration::from_secs(1), 1).unwrap();
        tally.record(&sample(began, 900 * MS, 100 * MS, Outcome::Ok));
        let seen = tally.finish();
        let near = |histogram: &Histogram<u64>, ms: f64| {
            let value = millis(histogram, 0.5);
            assert!((value - ms).abs() <= ms / 500.0, "{value} is not {ms}");
        };
        near(&seen.times.latency, 1000.0);
        near(&seen.times.service, 100.0);
        near(&seen.times.late, 900.0);
    }

    #[test]
    fn only_what_went_well_has_a_latency_and_leaving_is_no_error() {
        let began = Instant::now();
        let tally = Tally::new(began, Duration::ZERO, Duration::from_secs(1), 1).unwrap();
        for outcome in [Outcome::Ok, Outcome::Aborted, Outcome::Status(429), Outcome::Timeout] {
            tally.record(&sample(began, Duration::ZERO, MS, outcome));
        }
        tally.record_not_sent(began);
        let seen = tally.finish();
        assert_eq!((seen.counted(), seen.errors(), seen.count(Outcome::Status(429))), (5, 3, 1));
        assert_eq!((seen.times.latency.len(), seen.times.refused.len(), seen.parts[0].latency.len()), (1, 1, 1));
    }

    #[test]
    fn the_ramp_stands_in_the_timeline_only() {
        let began = Instant::now();
        let tally = Tally::new(began, Duration::from_secs(2), Duration::from_secs(2), 1).unwrap();
        for second in 0..4 {
            tally.record(&sample(began + Duration::from_secs(second), Duration::ZERO, 500 * MS, Outcome::Ok));
        }
        let seen = tally.finish();
        assert_eq!((seen.counted(), seen.ramped, seen.points.len()), (2, 2, 4));
        assert!(seen.points.iter().all(|point| point.rate >= 1.0));
    }

    #[test]
    fn a_long_run_has_no_more_points_than_a_short_one() {
        let began = Instant::now();
        let lasting = Duration::from_secs(24 * 3600);
        let tally = Tally::new(began, Duration::ZERO, lasting, 1).unwrap();
        for minute in 0..24 * 60 {
            tally.record(&sample(began + Duration::from_secs(60 * minute), Duration::ZERO, MS, Outcome::Ok));
        }
        assert!(tally.finish().points.len() <= 300);
    }

    #[test]
    fn more_targets_than_can_be_told_are_not_told() {
        let tally = Tally::new(Instant::now(), Duration::ZERO, Duration::ZERO, TARGETS_TOLD_MAX + 1).unwrap();
        assert!(tally.finish().parts.is_empty());
    }
}
