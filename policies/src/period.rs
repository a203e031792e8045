//! Billing months: where they begin and end, in UTC.
//!
//! A tenant's month begins on the day and at the time of day of its anchor. In a month too short
//! for that day it begins on the last one, and returns to the anchor's day after: an anchor of 31
//! January gives 31 January, 28 (29) February, 31 March. That is why a period is always computed
//! from the anchor and never from the period before it. Periods tile time: each ends exactly
//! where the next begins, and the end is not part of it.
//!
//! Calendars are jiff's; whoever asks on every request keeps the [`Period`] and asks
//! [`Period::contains`], which is two comparisons.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Years this module calculates in; times outside are taken as the nearest inside. Well within
/// what jiff can hold, so a month more or less always exists.
const YEAR_MIN: i16 = 1;
const YEAR_MAX: i16 = 9000;

/// Where a tenant's months begin: a day of the month and a time of that day.
///
/// Written as a day (`15`) or as an instant (`"2026-01-31T09:30:00Z"`), of which only the day and
/// the time of day matter. The default is the 1st at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Anchor {
    day: i8,
    time: Time,
}

/// One billing month: from `start_ms`, inclusive, to `end_ms`, exclusive. Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Period {
    /// The first instant of the period.
    pub start_ms: i64,
    /// The first instant of the next one.
    pub end_ms: i64,
}

impl Anchor {
    /// An anchor on a day of the month, at midnight. `None` unless the day is 1 to 31.
    pub fn on_day(day: u8) -> Option<Anchor> {
        let day = i8::try_from(day).ok().filter(|day| (1..=31).contains(day))?;
        Some(Anchor { day, time: Time::midnight() })
    }

    /// An anchor at an instant, Unix milliseconds.
    pub fn at(instant_ms: i64) -> Anchor {
        let instant = civil(instant_ms);
        Anchor { day: instant.day(), time: instant.time() }
    }

    /// The period that holds this instant, Unix milliseconds.
    pub fn period_at(self, now_ms: i64) -> Period {
        let now = civil(now_ms);
        let month = now.date().first_of_month();
        let begun = self.start_in(month) <= now;
        let first = if begun { month } else { previous_month(month) };
        Period { start_ms: unix_ms(self.start_in(first)), end_ms: unix_ms(self.start_in(next_month(first))) }
    }

    /// The period after this one.
    pub fn next(self, period: Period) -> Period {
        self.period_at(period.end_ms)
    }

    fn start_in(self, month: Date) -> DateTime {
        let last = month.last_of_month();
        let date = if self.day < last.day() { month.with().day(self.day).build().unwrap_or(last) } else { last };
        date.to_datetime(self.time)
    }
}

impl Default for Anchor {
    fn default() -> Anchor {
        Anchor { day: 1, time: Time::midnight() }
    }
}

impl Period {
    /// Whether this instant belongs to the period.
    pub fn contains(&self, now_ms: i64) -> bool {
        self.start_ms <= now_ms && now_ms < self.end_ms
    }

    /// Whether the two share an instant.
    pub fn overlaps(&self, other: &Period) -> bool {
        self.start_ms < other.end_ms && other.start_ms < self.end_ms
    }

    /// The part of `amount` that belongs to what is left of the period, rounded down: what an
    /// upgrade adds (the difference of two budgets) or costs (the difference of two prices).
    pub fn unused_share(&self, now_ms: i64, amount: u64) -> u64 {
        let length = i128::from(self.end_ms) - i128::from(self.start_ms);
        let left = (i128::from(self.end_ms) - i128::from(now_ms)).clamp(0, length.max(0));
        if length <= 0 {
            return 0;
        }
        // Both under 2^65, the amount under 2^64: the product could pass 2^127, so divide by
        // whole milliseconds in u128 (2^128).
        let product = left.unsigned_abs().saturating_mul(u128::from(amount));
        u64::try_from(product / length.unsigned_abs()).unwrap_or(amount)
    }
}

fn civil(instant_ms: i64) -> DateTime {
    let low = unix_ms(Date::constant(YEAR_MIN, 1, 1).to_datetime(Time::midnight()));
    let high = unix_ms(Date::constant(YEAR_MAX, 1, 1).to_datetime(Time::midnight()));
    let instant = Timestamp::from_millisecond(instant_ms.clamp(low, high)).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(instant)
}

#[expect(clippy::expect_used, reason = "dates are within YEAR_MIN and YEAR_MAX, give or take a month")]
fn unix_ms(instant: DateTime) -> i64 {
    TimeZone::UTC.to_timestamp(instant).expect("jiff holds the years -9999 to 9999").as_millisecond()
}

#[expect(clippy::expect_used, reason = "dates are within YEAR_MIN and YEAR_MAX, give or take a month")]
fn next_month(first: Date) -> Date {
    first.last_of_month().tomorrow().expect("jiff holds the years -9999 to 9999")
}

#[expect(clippy::expect_used, reason = "dates are within YEAR_MIN and YEAR_MAX, give or take a month")]
fn previous_month(first: Date) -> Date {
    first.yesterday().expect("jiff holds the years -9999 to 9999").first_of_month()
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.time == Time::midnight() {
            return serializer.serialize_i8(self.day);
        }
        // January has every day there is.
        let instant = Date::constant(1970, 1, 1).with().day(self.day).build().map_err(serde::ser::Error::custom)?;
        let instant = TimeZone::UTC.to_timestamp(instant.to_datetime(self.time)).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&instant)
    }
}

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Anchor, D::Error> {
        deserializer.deserialize_any(AnchorVisitor)
    }
}

struct AnchorVisitor;

impl de::Visitor<'_> for AnchorVisitor {
    type Value = Anchor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a day of the month from 1 to 31, or an instant such as \"2026-01-31T00:00:00Z\"")
    }

    fn visit_u64<E: de::Error>(self, day: u64) -> Result<Anchor, E> {
        u8::try_from(day)
            .ok()
            .and_then(Anchor::on_day)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(day), &self))
    }

    fn visit_i64<E: de::Error>(self, day: i64) -> Result<Anchor, E> {
        u8::try_from(day)
            .ok()
            .and_then(Anchor::on_day)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(day), &self))
    }

    fn visit_str<E: de::Error>(self, instant: &str) -> Result<Anchor, E> {
        match instant.parse::<Timestamp>() {
            Ok(parsed) => Ok(Anchor::at(parsed.as_millisecond())),
            Err(_unreadable) => Err(E::invalid_value(de::Unexpected::Str(instant), &self)),
        }
    }
}

impl JsonSchema for Anchor {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Anchor")
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where billing months begin, UTC: a day of the month, or an instant.",
            "oneOf": [
                { "type": "integer", "minimum": 1, "maximum": 31 },
                { "type": "string", "format": "date-time" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn g20_a_31st_falls_back_and_returns() {
        let anchor = Anchor::at(ms("2026-01-31T00:00:00Z"));
        let mut period = anchor.period_at(ms("2026-01-31T00:00:00Z"));
        let mut starts = Vec::new();
        for _ in 0..26 {
            starts.push(Timestamp::from_millisecond(period.start_ms).unwrap().to_string());
            period = anchor.next(period);
        }
        let days: Vec<&str> = starts.iter().map(|start| &start[..10]).collect();
        assert_eq!(
            days[..13],
            [
                "2026-01-31",
                "2026-02-28",
                "2026-03-31",
                "2026-04-30",
                "2026-05-31",
                "2026-06-30",
                "2026-07-31",
                "2026-08-31",
                "2026-09-30",
                "2026-10-31",
                "2026-11-30",
                "2026-12-31",
                "2027-01-31"
            ]
        );
        assert_eq!(days[25], "2028-02-29");
    }

    #[test]
    fn g19_an_upgrade_with_a_day_of_thirty_left() {
        let period = Anchor::default().period_at(ms("2026-04-10T00:00:00Z"));
        let now = ms("2026-04-30T00:00:00Z");
        assert_eq!(period.unused_share(now, 25_000 - 5_000), 666);
        assert_eq!(period.unused_share(now, 2_900 - 900), 66);
        assert_eq!(period.unused_share(period.end_ms, 20_000), 0);
        assert_eq!(period.unused_share(i64::MIN, u64::MAX), u64::MAX);
    }

    #[test]
    fn anchors_are_days_or_instants() {
        #[derive(Deserialize, Serialize, PartialEq, Debug)]
        struct File {
            anchor: Anchor,
        }
        for (text, anchor) in [
            ("anchor = 15", Anchor::on_day(15)),
            ("anchor = \"2026-01-15T00:00:00Z\"", Anchor::on_day(15)),
            ("anchor = \"2026-03-31T09:30:00Z\"", Some(Anchor::at(ms("2024-01-31T09:30:00Z")))),
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(Some(file.anchor), anchor, "{text}");
            assert_eq!(toml::from_str::<File>(&toml::to_string(&file).unwrap()).unwrap(), file);
        }
        for text in ["anchor = 0", "anchor = 32", "anchor = -1", "anchor = \"monday\""] {
            let error = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(error.contains("a day of the month from 1 to 31"), "{error}");
        }
    }

    #[test]
    fn the_ends_of_time_have_periods_too() {
        for now in [i64::MIN, i64::MAX] {
            let period = Anchor::on_day(31).unwrap().period_at(now);
            assert!(period.start_ms < period.end_ms);
        }
    }

    proptest! {
        /// Every instant from 1900 to 2200 lies in exactly one period, which ends where the next
        /// begins, whatever the anchor.
        #[test]
        fn periods_tile_time(day in 1_u8..=31, time_ms in 0_i64..86_400_000, now in -2_208_988_800_000_i64..7_258_118_400_000) {
            let anchor = Anchor::at((i64::from(day) - 1) * 86_400_000 + time_ms);
            let period = anchor.period_at(now);
            prop_assert!(period.contains(now));
            prop_assert_eq!(anchor.period_at(period.start_ms), period);
            prop_assert_eq!(anchor.period_at(period.end_ms - 1), period);
            let next = anchor.next(period);
            prop_assert_eq!(next.start_ms, period.end_ms);
            prop_assert_eq!(anchor.period_at(period.start_ms - 1).end_ms, period.start_ms);
            let days = (period.end_ms - period.start_ms) / 86_400_000;
            prop_assert!((28..=31).contains(&days), "{} days", days);
            prop_assert!(!period.overlaps(&next) && period.overlaps(&period));
        }
    }
}
