//! Hours as they are written, and what they say on ordinary days and on those the clocks change.

use jiff::civil::date;
use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn paris(written: &str) -> Hours {
    Hours::parse(written, zone("Europe/Paris")).unwrap()
}

/// A moment by the wall clock of Paris: Unix ms.
fn at(month: i8, day: i8, hour: i8, minute: i8) -> i64 {
    date(2026, month, day).at(hour, minute, 0, 0).to_zoned(zone("Europe/Paris")).unwrap().timestamp().as_millisecond()
}

#[test]
fn what_is_written_is_read_and_written_back() {
    let cases = [
        ("Mon 09:00-18:00", "Mon 09:00-18:00"),
        ("  mon  9:00 - 18:00 ", "Mon 09:00-18:00"),
        ("Monday 00:00-24:00", "Mon 00:00-24:00"),
        ("Mon-Tue 09:00-12:30, 13:30-18:00", "Mon 09:00-12:30; Mon 13:30-18:00; Tue 09:00-12:30; Tue 13:30-18:00"),
        ("Sat-Mon 10:00-13:00;", "Mon 10:00-13:00; Sat 10:00-13:00; Sun 10:00-13:00"),
        ("Mon,Wed 10:00-11:00; Mon 10:00-11:00", "Mon 10:00-11:00; Wed 10:00-11:00"),
    ];
    for (written, expected) in cases {
        assert_eq!(paris(written).to_string(), expected, "{written}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let cases = [
        ("", "names no hours"),
        (" ; ", "names no hours"),
        ("09:00-18:00", "\"09:00-18:00\" has no day before it"),
        ("Mon-Fri", "\"Mon-Fri\" has no times"),
        ("Mo-Fr 09:00-18:00", "\"Mo\" is no day"),
        ("Mon-Fri 9-18", "\"9\" is no time of day"),
        ("Mon 09:00-18:60", "\"18:60\" is no time of day"),
        ("Mon 09:00-24:01", "\"24:01\" is no time of day"),
        ("Mon 009:00-18:00", "\"009:00\" is no time of day"),
        ("Mon 09:00", "\"09:00\" is no range"),
        ("Mon 09:00-12:00,", "\"\" is no range"),
        ("Fri 22:00-02:00", "\"22:00-02:00\" does not end after it begins; hours over midnight are two"),
        ("Mon 09:00-09:00", "does not end after it begins"),
    ];
    for (written, expected) in cases {
        let error = Hours::parse(written, TimeZone::UTC).unwrap_err().to_string();
        assert!(error.starts_with(expected) || error.contains(expected), "{written}: {error}");
    }
    let many: Vec<String> = (0..RANGES_MAX).map(|_| "Mon-Sun 09:00-18:00".to_owned()).collect();
    assert_eq!(Hours::parse(&many.join(";"), TimeZone::UTC), Err(HoursError::TooMany));
}

#[test]
fn when_humans_are_back() {
    let shop = paris("Mon-Fri 09:00-12:30, 13:30-18:00; Sat 10:00-13:00");
    let back = |days_ahead, weekday, time| Some(Opening { days_ahead, weekday, time });
    // 26 November 2026 is a Thursday.
    let cases = [
        ("there", at(11, 26, 9, 0), None),
        ("before work", at(11, 26, 8, 59), back(0, 3, (9, 0))),
        ("at lunch", at(11, 26, 12, 30), back(0, 3, (13, 30))),
        ("in the evening", at(11, 26, 18, 0), back(1, 4, (9, 0))),
        ("on Saturday afternoon", at(11, 28, 13, 0), back(2, 0, (9, 0))),
        ("on Sunday", at(11, 29, 10, 0), back(1, 0, (9, 0))),
    ];
    for (what, now_ms, expected) in cases {
        assert_eq!(shop.closed_until(now_ms), expected, "{what}");
    }
    assert_eq!(paris("Thu 09:00-10:00").closed_until(at(11, 26, 10, 0)), back(7, 3, (9, 0)));
    assert_eq!(paris("Mon-Sun 00:00-24:00").closed_until(at(11, 26, 3, 0)), None);
}

#[test]
fn on_the_days_the_clocks_change() {
    let back = |days_ahead, weekday, time| Some(Opening { days_ahead, weekday, time });
    // 29 March 2026: 02:00 to 03:00 is not there. 25 October 2026: it comes twice.
    let early = paris("Sun 02:30-05:00");
    assert_eq!(early.closed_until(at(3, 29, 1, 0)), back(0, 6, (3, 0)), "open as soon as the clock shows it");
    assert_eq!(paris("Sun 02:10-02:50").closed_until(at(3, 29, 1, 0)), back(7, 6, (2, 10)), "that hour is not there");
    let fold = at(10, 25, 1, 0);
    let hour_ms = 3_600_000;
    assert_eq!(early.closed_until(fold), back(0, 6, (2, 30)));
    assert_eq!(early.closed_until(fold + hour_ms * 7 / 4), None, "the first 02:45");
    assert_eq!(early.closed_until(fold + hour_ms * 9 / 4), back(0, 6, (2, 30)), "the second 02:15");
    let late = paris("Sun 01:00-02:15");
    assert_eq!(late.closed_until(fold + hour_ms * 3 / 2), back(0, 6, (2, 0)), "02:00 comes again");
}

fn written() -> impl Strategy<Value = String> {
    let range = (0..7_u8, 0..1_439_u16, 1..1_440_u16).prop_map(|(day, from, length)| {
        let to = (from + length).min(DAY_MINUTES);
        let day = DAYS[usize::from(day)];
        format!("{day} {:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    });
    proptest::collection::vec(range, 1..5).prop_map(|ranges| ranges.join("; "))
}

proptest! {
    #[test]
    fn no_text_makes_it_fail(text in "[A-Za-z0-9:;, -]{0,60}|\\PC{0,60}") {
        let _ = Hours::parse(&text, TimeZone::UTC);
    }

    #[test]
    fn what_is_written_back_means_the_same(written in written()) {
        let hours = paris(&written);
        prop_assert_eq!(&paris(&hours.to_string()), &hours);
    }

    /// Against a walk minute by minute, over the changes of the clocks of four zones.
    #[test]
    fn it_opens_at_the_first_minute_that_is_open(
        written in written(),
        zone_name in prop::sample::select(vec!["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
        change in prop::sample::select(vec![(3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1), (6, 15)]),
        minutes_before in 0..2_880_i64,
    ) {
        let hours = Hours::parse(&written, zone(zone_name)).unwrap();
        let change = date(2026, change.0, change.1).at(12, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp();
        let now = change - minutes_before.minutes();
        let walked = (1..=DAYS_AHEAD * 1_440).map(|ahead| now + ahead.minutes()).find(|at| hours.open_at(*at));
        if !hours.open_at(now) {
            prop_assert_eq!(hours.opens_after(now), walked);
        }
    }
}
