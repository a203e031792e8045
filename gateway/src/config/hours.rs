//! Business hours: when humans answer, by the clock on their wall.
//!
//! Written as `Mon-Fri 09:00-12:30, 13:30-18:00; Sat 10:00-13:00`: groups of days, each with its ranges. What a
//! range means on the day the clocks change is what the wall clock shows: hours that are skipped are not there, and
//! hours that come twice are open twice. So when humans are back is looked for among the beginnings of ranges and
//! the changes of the clocks, and nowhere else does the answer change.
//!
//! Hours over midnight are two ranges, and there are no holidays: this says when somebody is usually there, it
//! promises nobody.

use std::fmt;

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MINUTES: u16 = 24 * 60;
/// More than anybody works by: seven days of three.
const RANGES_MAX: usize = 100;
/// Days looked ahead: a week's only hour may fall into the one that a change of the clocks skips.
const DAYS_AHEAD: i64 = 15;

/// When humans answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    zone: TimeZone,
    /// Sorted; never empty.
    ranges: Vec<Range>,
}

/// From the minute `from` of a day up to the minute `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    /// 0 is Monday.
    day: u8,
    from: u16,
    to: u16,
}

/// When humans are back, by the clock on their wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Days from today: 0 is today.
    pub days_ahead: i32,
    /// Which day that is; 0 is Monday.
    pub weekday: u8,
    /// Hour and minute.
    pub time: (u8, u8),
}

/// What is wrong with written hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoursError {
    /// Nothing is written.
    #[error("names no hours; write them like \"Mon-Fri 09:00-18:00\"")]
    Empty,
    /// Times without a day.
    #[error("{0:?} has no day before it; write it like \"Mon-Fri 09:00-18:00\"")]
    NoDay(String),
    /// A day without times.
    #[error("{0:?} has no times; write it like \"Mon-Fri 09:00-18:00\"")]
    NoTimes(String),
    /// A word that is no day.
    #[error("{0:?} is no day; they are Mon, Tue, Wed, Thu, Fri, Sat and Sun")]
    Day(String),
    /// A word that is no time.
    #[error("{0:?} is no time of day; write it like 09:00, up to 24:00")]
    Time(String),
    /// Not two times.
    #[error("{0:?} is no range; write it like 09:00-18:00")]
    Range(String),
    /// It ends before it begins.
    #[error("{0:?} does not end after it begins; hours over midnight are two: \"Fri 22:00-24:00; Sat 00:00-02:00\"")]
    Order(String),
    /// More than anybody works by.
    #[error("has more than {RANGES_MAX} ranges")]
    TooMany,
}

impl Hours {
    /// Reads written hours, by the clock of a time zone.
    pub fn parse(written: &str, zone: TimeZone) -> Result<Self, HoursError> {
        let mut ranges = Vec::new();
        for group in written.split(';').map(str::trim).filter(|group| !group.is_empty()) {
            let times_at = group.find(|c: char| c.is_ascii_digit()).ok_or_else(|| HoursError::NoTimes(group.into()))?;
            let (days, times) = group.split_at(times_at);
            let days = days_of(days.trim(), group)?;
            for written in times.split(',').map(str::trim) {
                let (from, to) = range(written)?;
                ranges.extend(days.iter().map(|day| Range { day: *day, from, to }));
                if ranges.len() > RANGES_MAX {
                    return Err(HoursError::TooMany);
                }
            }
        }
        if ranges.is_empty() {
            return Err(HoursError::Empty);
        }
        ranges.sort_unstable();
        ranges.dedup();
        Ok(Self { zone, ranges })
    }

    /// When humans are back, if they are not there at this moment (Unix ms). None while they are.
    pub fn closed_until(&self, now_ms: i64) -> Option<Opening> {
        let now = Timestamp::from_millisecond(now_ms).ok()?;
        if self.open_at(now) {
            return None;
        }
        let (today, opens) = (self.zone.to_datetime(now), self.zone.to_datetime(self.opens_after(now)?));
        Some(Opening {
            days_ahead: (opens.date() - today.date()).get_days(),
            weekday: monday_zero(opens.weekday()),
            time: (opens.hour().unsigned_abs(), opens.minute().unsigned_abs()),
        })
    }

    fn open_at(&self, at: Timestamp) -> bool {
        let local = self.zone.to_datetime(at);
        let (day, minute) = (monday_zero(local.weekday()), minute(local));
        self.ranges.iter().any(|range| range.day == day && (range.from..range.to).contains(&minute))
    }

    /// The first moment after a closed one at which somebody is there.
    fn opens_after(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        let mut moments = Vec::new();
        for ahead in 0..=DAYS_AHEAD {
            let date = today.checked_add(ahead.days()).ok()?;
            let day = monday_zero(date.weekday());
            for range in self.ranges.iter().filter(|range| range.day == day) {
                moments.extend(self.moments(date.to_datetime(range.begins()?)).into_iter().flatten());
            }
        }
        let last = moments.iter().max().copied()?;
        let changes = self.zone.following(now).map(|change| change.timestamp()).take_while(|at| *at <= last);
        let open = |at: &Timestamp| *at > now && self.open_at(*at);
        changes.filter(open).chain(moments.iter().copied().filter(open)).min()
    }

    /// When a wall clock shows this: once, twice, or never on the day that skips it.
    fn moments(&self, shown: DateTime) -> [Option<Timestamp>; 2] {
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(shown).ok(), None],
            AmbiguousOffset::Fold { before, after } => [before, after].map(|offset| offset.to_timestamp(shown).ok()),
            AmbiguousOffset::Gap { .. } => [None, None],
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Range { day, from, to }) in self.ranges.iter().enumerate() {
            let between = if place > 0 { "; " } else { "" };
            let day = DAYS.get(usize::from(*day)).copied().unwrap_or_default();
            write!(f, "{between}{day} {:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)?;
        }
        Ok(())
    }
}

impl Range {
    fn begins(&self) -> Option<Time> {
        let [hour, minute] = [self.from / 60, self.from % 60].map(|number| i8::try_from(number).unwrap_or(i8::MAX));
        Time::new(hour, minute, 0, 0).ok()
    }
}

fn monday_zero(weekday: Weekday) -> u8 {
    weekday.to_monday_zero_offset().unsigned_abs()
}

fn minute(shown: DateTime) -> u16 {
    u16::from(shown.hour().unsigned_abs()) * 60 + u16::from(shown.minute().unsigned_abs())
}

/// `Mon-Fri`, `Mon,Wed`, `Fri-Mon`.
fn days_of(written: &str, group: &str) -> Result<Vec<u8>, HoursError> {
    let mut days = Vec::new();
    for part in written.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7 + 1;
        days.extend((0..count).map(|ahead| (first + ahead) % 7));
    }
    if days.is_empty() { Err(HoursError::NoDay(group.to_owned())) } else { Ok(days) }
}

/// A day by its first three letters or its whole name, in any case.
fn day(written: &str) -> Result<u8, HoursError> {
    const WHOLE: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = written.trim().to_lowercase();
    let named = |(short, whole): (&str, &str)| short.eq_ignore_ascii_case(&word) || whole == word;
    let at = DAYS.into_iter().zip(WHOLE).position(named);
    at.and_then(|at| u8::try_from(at).ok()).ok_or_else(|| HoursError::Day(written.trim().to_owned()))
}

/// `09:00-18:00`
fn range(written: &str) -> Result<(u16, u16), HoursError> {
    let (from, to) = written.split_once('-').ok_or_else(|| HoursError::Range(written.to_owned()))?;
    let (from, to) = (time(from)?, time(to)?);
    if from < to { Ok((from, to)) } else { Err(HoursError::Order(written.to_owned())) }
}

/// `09:00`, as a minute of the day.
fn time(written: &str) -> Result<u16, HoursError> {
    let number = |digits: &str| {
        let good = (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| good)
    };
    let read = || {
        let (hours, minutes) = written.trim().split_once(':')?;
        let (hours, minutes) = (number(hours)?, number(minutes).filter(|_| minutes.len() == 2)?);
        Some(hours * 60 + minutes).filter(|minute| minutes < 60 && *minute <= DAY_MINUTES)
    };
    read().ok_or_else(|| HoursError::Time(written.trim().to_owned()))
}

#[cfg(test)]
mod tests;
