//! What a run must reach: `p99<35ms`, `errors<=0.1%`, `rate>4900`. The run's exit status says whether it did.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::flags::duration;

/// How a figure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// One expectation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expectation {
    /// As it was written.
    text: String,
    /// The figure it is about.
    figure: String,
    comparison: Comparison,
    /// Milliseconds, a share of 1, or a plain number, as the figure has it.
    bound: f64,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// As it was written.
    pub(super) expected: String,
    /// The figure.
    pub(super) got: f64,
    /// Whether it is as expected.
    pub(super) met: bool,
}

/// An expectation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpectError {
    /// No comparison in it.
    #[error("no comparison in it: write it as p99<35ms, errors<=0.1% or rate>4900")]
    NoComparison,
    /// Its bound is no number, share or time.
    #[error("`{0}` is no number, share (1%) or time (35ms)")]
    Bound(String),
    /// Times and shares are told by their unit, so that a bare number is never taken for the wrong one.
    #[error("`{0}` needs {1}")]
    Unit(String, &'static str),
    /// There is no such figure.
    #[error("there is no figure `{0}`; there are {1}")]
    Unknown(String, String),
}

/// Figures by name, as an expectation may ask for them: times in ms, shares of 1, counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(pub(super) Vec<(String, f64)>);

impl FromStr for Expectation {
    type Err = ExpectError;

    fn from_str(text: &str) -> Result<Self, ExpectError> {
        // The longer signs first: `<=` also begins with `<`.
        let signs = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::More),
            ("=", Comparison::Equal),
        ];
        let split = signs.iter().find_map(|(sign, comparison)| {
            let (figure, bound) = text.split_once(sign)?;
            Some((figure.trim(), *comparison, bound.trim()))
        });
        let Some((figure, comparison, bound)) = split else { return Err(ExpectError::NoComparison) };
        let value = if let Some(percent) = bound.strip_suffix('%') {
            percent.trim().parse::<f64>().map(|percent| percent / 100.0).ok()
        } else if bound.ends_with('s') {
            duration(bound).map(|time| time.as_secs_f64() * 1000.0).ok()
        } else {
            bound.parse::<f64>().ok()
        };
        let value = value.filter(|value| value.is_finite()).ok_or_else(|| ExpectError::Bound(bound.to_owned()))?;
        match unit_of(figure) {
            Unit::Time if !bound.ends_with('s') => return Err(ExpectError::Unit(figure.to_owned(), "a time: 35ms")),
            Unit::Share if !bound.ends_with('%') => return Err(ExpectError::Unit(figure.to_owned(), "a share: 0.1%")),
            Unit::Number if bound.ends_with(['s', '%']) => {
                return Err(ExpectError::Unit(figure.to_owned(), "a plain number"));
            }
            _ => {}
        }
        Ok(Self { text: text.to_owned(), figure: figure.to_owned(), comparison, bound: value })
    }
}

enum Unit {
    Time,
    Share,
    Number,
}

fn unit_of(figure: &str) -> Unit {
    match figure {
        "errors" | "aborted" => Unit::Share,
        "rate" | "requests" | "not-sent" | "frames" | "lost" | "duplicated" => Unit::Number,
        _ => Unit::Time,
    }
}

impl Expectation {
    /// Holds it against the figures.
    ///
    /// # Errors
    /// There is no such figure.
    pub(super) fn judge(&self, figures: &Figures) -> Result<Verdict, ExpectError> {
        let found = figures.0.iter().find(|(name, _)| *name == self.figure);
        let Some((_, got)) = found else {
            let names: Vec<_> = figures.0.iter().map(|(name, _)| name.as_str()).collect();
            return Err(ExpectError::Unknown(self.figure.clone(), names.join(", ")));
        };
        let met = match self.comparison {
            Comparison::Less => *got < self.bound,
            Comparison::AtMost => *got <= self.bound,
            Comparison::More => *got > self.bound,
            Comparison::AtLeast => *got >= self.bound,
            Comparison::Equal => (got - self.bound).abs() < f64::EPSILON,
        };
        Ok(Verdict { expected: self.text.clone(), got: *got, met })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(text: &str) -> bool {
        let figures = [("p99", 35.0), ("errors", 0.001), ("rate", 4950.0), ("lost", 0.0), ("first.p50", 2500.0)];
        let figures = Figures(figures.map(|(name, value)| (name.to_owned(), value)).to_vec());
        text.parse::<Expectation>().unwrap().judge(&figures).unwrap().met
    }

    #[test]
    fn each_comparison_is_the_one_it_says() {
        for (text, expected) in [
            ("p99<35ms", false),
            ("p99<=35ms", true),
            ("p99 < 0.0351s", true),
            ("p99<35100us", true),
            ("errors<0.1%", false),
            ("errors<=0.1%", true),
            ("rate>4900", true),
            ("rate>=4950", true),
            ("rate>4950", false),
            ("lost=0", true),
            ("lost=1", false),
            ("first.p50<3s", true),
        ] {
            assert_eq!(met(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["p99", "p99<", "p99<fast", "p99<35", "errors<1", "rate>5ms", "rate>1%", "p99<infs"] {
            assert!(text.parse::<Expectation>().is_err(), "{text}");
        }
        let unknown = "p98<1ms".parse::<Expectation>().unwrap().judge(&Figures::default());
        assert!(matches!(unknown, Err(ExpectError::Unknown(..))), "{unknown:?}");
    }
}
