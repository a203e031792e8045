//! A run's result: as figures that expectations ask for, as JSON, and as a table for a terminal.
//!
//! Keys and secrets are in none of them: a key goes by its name or its line.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use super::expect::{Figures, Verdict};
use super::tally::{Outcome, Point, Seen, Tally, millis};

/// The quantiles that are told, and their names.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What a run came to.
#[derive(Debug)]
pub(super) struct Report {
    /// What was asked for, in words: target, kind, rate, time.
    pub(super) asked: Vec<(&'static str, String)>,
    pub(super) seen: Seen,
    /// Names of keys or channels, as far as they are told apart.
    pub(super) targets: Vec<String>,
    /// Seconds that were measured, to the last answer.
    pub(super) measured_s: f64,
    pub(super) verdicts: Vec<Verdict>,
}

#[derive(Serialize)]
struct TimesJson {
    count: u64,
    mean_ms: f64,
    #[serde(flatten)]
    quantiles: serde_json::Map<String, Value>,
}

impl Report {
    /// What a run that ramped up for `ramp` has come to.
    pub(super) fn of(tally: &Tally, ramp: Duration, targets: Vec<String>, asked: Vec<(&'static str, String)>) -> Self {
        let seen = tally.finish();
        let measured_s = seen.last_ended.saturating_duration_since(tally.began() + ramp).as_secs_f64();
        Self { asked, seen, targets, measured_s, verdicts: Vec::new() }
    }

    /// Everything that is a time, by its name. The first one has no name before its quantiles: `p99`, `first.p99`.
    pub(super) fn times(&self) -> [(&'static str, &Histogram<u64>); 7] {
        let times = &self.seen.times;
        [
            ("latency", &times.latency),
            ("service", &times.service),
            ("refused", &times.refused),
            ("first", &times.first),
            ("gap", &times.gap),
            ("connect", &times.connect),
            ("late", &times.late),
        ]
    }

    /// Requests that ended well, a second.
    pub(super) fn rate(&self) -> f64 {
        if self.measured_s > 0.0 { self.seen.count(Outcome::Ok) as f64 / self.measured_s } else { 0.0 }
    }

    /// What expectations may be about.
    pub(super) fn figures(&self) -> Figures {
        let seen = &self.seen;
        let counted = seen.counted().max(1) as f64;
        let mut figures = vec![
            ("requests".to_owned(), seen.counted() as f64),
            ("rate".to_owned(), self.rate()),
            ("errors".to_owned(), seen.errors() as f64 / counted),
            ("aborted".to_owned(), seen.count(Outcome::Aborted) as f64 / counted),
            ("not-sent".to_owned(), seen.count(Outcome::NotSent) as f64),
            ("frames".to_owned(), seen.frames as f64),
            ("lost".to_owned(), seen.lost as f64),
            ("duplicated".to_owned(), seen.duplicated as f64),
        ];
        for (name, histogram) in self.times() {
            for (quantile, at) in QUANTILES {
                let name = if name == "latency" { quantile.to_owned() } else { format!("{name}.{quantile}") };
                // What did not happen meets no bound on how long it took.
                let value = if histogram.is_empty() { f64::NAN } else { millis(histogram, at) };
                figures.push((name, value));
            }
        }
        Figures(figures)
    }

    pub(super) fn json(&self) -> Value {
        let seen = &self.seen;
        let outcomes = |outcomes: &std::collections::BTreeMap<Outcome, u64>| -> Value {
            outcomes
                .iter()
                .map(|(outcome, count)| (outcome.name(), json!(count)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let times: serde_json::Map<_, _> =
            self.times().iter().map(|(name, histogram)| ((*name).to_owned(), json!(times_json(histogram)))).collect();
        let targets: Vec<_> = self
            .targets
            .iter()
            .zip(&seen.parts)
            .map(|(name, part)| {
                json!({ "name": name, "outcomes": outcomes(&part.outcomes), "latency": times_json(&part.latency) })
            })
            .collect();
        let points: Vec<_> = seen.points.iter().map(point_json).collect();
        let asked: serde_json::Map<_, _> =
            self.asked.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "asked": asked,
            "measured_s": self.measured_s,
            "requests": seen.counted(),
            "ramped": seen.ramped,
            "rate": self.rate(),
            "errors": seen.errors(),
            "outcomes": outcomes(&seen.outcomes),
            "frames": { "seen": seen.frames, "lost": seen.lost, "duplicated": seen.duplicated },
            "times": times,
            "targets": targets,
            "timeline": points,
            "expectations": self.verdicts,
        })
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let seen = &self.seen;
        let mut text = String::new();
        // Writing to a string does not fail.
        let mut line = |words: String| {
            let _ = writeln!(text, "{words}");
        };
        line(format!(
            "{} requests in {:.1} s, {:.1}/s of them ok, {} errors.",
            seen.counted(),
            self.measured_s,
            self.rate(),
            seen.errors()
        ));
        for (outcome, count) in &seen.outcomes {
            line(format!("  {:<14} {count}", outcome.name()));
        }
        if seen.frames > 0 {
            line(format!("  frames         {}, {} lost, {} doubled", seen.frames, seen.lost, seen.duplicated));
        }
        line(format!("{:<10}{}", "ms", QUANTILES.map(|(name, _)| format!("{name:>11}")).concat()));
        for (name, histogram) in self.times().iter().filter(|(_, histogram)| !histogram.is_empty()) {
            line(format!("{name:<10}{}", QUANTILES.map(|(_, at)| format!("{:>11.3}", millis(histogram, at))).concat()));
        }
        for (name, part) in self.targets.iter().zip(&seen.parts).filter(|_| self.targets.len() > 1) {
            let ok = part.outcomes.get(&Outcome::Ok).copied().unwrap_or(0);
            let all: u64 = part.outcomes.values().sum();
            let (p50, p99) = (millis(&part.latency, 0.5), millis(&part.latency, 0.99));
            line(format!("  {name}: {ok} of {all} ok, p50 {p50:.3} ms, p99 {p99:.3} ms"));
        }
        for verdict in &self.verdicts {
            let word = if verdict.met { "met" } else { "NOT MET" };
            line(format!("{word}: {} (it is {:.4})", verdict.expected, verdict.got));
        }
        text
    }
}

fn times_json(histogram: &Histogram<u64>) -> TimesJson {
    let quantiles = QUANTILES.map(|(name, at)| (format!("{name}_ms"), json!(millis(histogram, at))));
    let mean_ms = if histogram.is_empty() { 0.0 } else { histogram.mean() / 1000.0 };
    TimesJson { count: histogram.len(), mean_ms, quantiles: quantiles.into_iter().collect() }
}

fn point_json(point: &Point) -> Value {
    let Point { at_s, rate, errors, p50_ms, p99_ms } = *point;
    json!({ "at_s": at_s, "rate": rate, "errors": errors, "p50_ms": p50_ms, "p99_ms": p99_ms })
}
