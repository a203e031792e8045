//! `tenant.chatwoot.handoff`: who takes over, when they are there, and what the customer reads.
//!
//! Whether Chatwoot has such a team, human or label is not known here: it is seen, and said, when one is used.

use jiff::tz::TimeZone;

use super::raw::{RawHandoff, RawVip};
use super::report::{Place, Report};
use super::{
    HANDOFF_MESSAGE, HANDOFF_NOTICE, HANDOFF_OUT_OF_HOURS, HANDOFF_REPHRASE, Handoff, HandoffTo, Hours, QUOTA_NOTICE,
    Vip,
};

/// One message on every channel, and so found again in the transcript as it was written.
const REPHRASE_CHARS_MAX: usize = 300;

/// What happens around a handoff.
pub(super) fn handoff(raw: RawHandoff, place: &Place<'_>, report: &mut Report) -> Option<Handoff> {
    let hours = hours(&raw, place, report);
    if raw.out_of_hours.is_some() && raw.hours.is_none() {
        report.add(&place.key("out_of_hours"), "has no effect without hours: humans are always there");
    }
    let rephrase = raw.rephrase.unwrap_or_else(|| HANDOFF_REPHRASE.to_owned());
    if rephrase.trim().is_empty() || rephrase.chars().count() > REPHRASE_CHARS_MAX {
        report.add(&place.key("rephrase"), format!("has 1 to {REPHRASE_CHARS_MAX} characters"));
    }
    labels(&raw.labels, &place.key("labels"), report);
    labels(&raw.vip.labels, &place.key("vip").key("labels"), report);
    let RawVip { labels, when, team_id, assignee_id } = raw.vip;
    let to = (team_id.is_some() || assignee_id.is_some()).then_some(HandoffTo { team_id, assignee_id });
    if labels.is_empty() && to.is_some() {
        report.add(&place.key("vip"), "has no effect without labels");
    }
    Some(Handoff {
        to: HandoffTo { team_id: raw.team_id, assignee_id: raw.assignee_id },
        priority: raw.priority,
        labels: raw.labels,
        vip: Vip { labels, when, to },
        unsure_max: raw.unsure_max,
        rephrase,
        hours: hours.ok()?,
        out_of_hours: raw.out_of_hours.unwrap_or_else(|| HANDOFF_OUT_OF_HOURS.to_owned()),
        teams: raw.teams,
        message: raw.message.unwrap_or_else(|| HANDOFF_MESSAGE.to_owned()),
        notice: raw.notice.unwrap_or_else(|| HANDOFF_NOTICE.to_owned()),
        quota_notice: raw.quota_notice.unwrap_or_else(|| QUOTA_NOTICE.to_owned()),
        unreadable: raw.unreadable,
    })
}

/// What is in error, and noted.
struct Noted;

/// The hours, if there are any. Their time zone has no default: a wrong one is seen by customers only.
fn hours(raw: &RawHandoff, place: &Place<'_>, report: &mut Report) -> Result<Option<Hours>, Noted> {
    let (written, zone) = match (&raw.hours, &raw.timezone) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            report.add(&place.key("timezone"), "has no effect without hours");
            return Err(Noted);
        }
        (Some(_), None) => {
            report.add(&place.key("timezone"), "missing: the time zone of hours, such as \"Europe/Paris\"");
            return Err(Noted);
        }
        (Some(written), Some(zone)) => (written, zone),
    };
    let found = TimeZone::get(zone).map_err(|_| {
        report.add(&place.key("timezone"), format!("{zone:?} is no time zone; they are named like \"Europe/Paris\""));
    });
    // Both are looked at, so that all errors are seen at once.
    let hours = Hours::parse(written, found.clone().unwrap_or(TimeZone::UTC));
    match hours {
        Ok(hours) if found.is_ok() => Ok(Some(hours)),
        Ok(_) => Err(Noted),
        Err(error) => {
            report.add(&place.key("hours"), error.to_string());
            Err(Noted)
        }
    }
}

/// Chatwoot refuses other characters.
fn labels(labels: &[String], place: &Place<'_>, report: &mut Report) {
    let good = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    for (index, label) in labels.iter().enumerate().filter(|(_, label)| !good(label)) {
        report.add(&place.item(index), format!("{label:?} is no label: they have letters, digits, - and _"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigErrors, VipWhen};
    use super::*;

    fn read(handoff: &str) -> Result<Handoff, ConfigErrors> {
        let text = format!(
            r#"
            [[agent]]
            id = "docs"
            kind = "knowledge"
            dir = "."
            [[tenant]]
            id = "acme"
            plans = ["chatwoot.pro"]
            [[tenant.chatwoot]]
            channel = "main"
            url = "http://127.0.0.1:3000"
            account_id = 1
            bot_id = 7
            bot_token = "t"
            webhook_secret = "s"
            agent = "docs"
            handoff = {{ {handoff} }}
            "#
        );
        let dir = tempfile::tempdir().unwrap();
        let config = Config::from_str(&text, dir.path(), &|_| None)?;
        Ok(config.tenants[0].channels[0].handoff.clone())
    }

    #[test]
    fn nothing_written_is_the_default_and_everything_is_read() {
        assert_eq!(read("").unwrap(), Handoff::default());
        let all = r#"team_id = 3, assignee_id = 9, priority = "high", labels = ["late"], unsure_max = 2,
            hours = "Mon-Fri 09:00-18:00", timezone = "Europe/Paris", out_of_hours = "Back {when}.",
            vip = { labels = ["vip"], when = "after_answer", assignee_id = 4 }"#;
        let read = read(&all.replace('\n', " ")).unwrap();
        assert_eq!(read.to, HandoffTo { team_id: Some(3), assignee_id: Some(9) });
        let paris = TimeZone::get("Europe/Paris").unwrap();
        assert_eq!(read.hours, Some(Hours::parse("Mon-Fri 09:00-18:00", paris).unwrap()));
        let to = Some(HandoffTo { team_id: None, assignee_id: Some(4) });
        assert_eq!(read.vip, Vip { labels: vec!["vip".to_owned()], when: VipWhen::AfterAnswer, to });
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_key() {
        let cases: &[(&str, &str, &str)] = &[
            ("hours = \"Mon-Fri 09:00-18:00\"", "timezone", "missing: the time zone of hours"),
            ("timezone = \"Europe/Paris\"", "timezone", "has no effect without hours"),
            (
                "hours = \"Mon 09:00-18:00\", timezone = \"Europe/Pariss\"",
                "timezone",
                "\"Europe/Pariss\" is no time zone",
            ),
            ("hours = \"Mo 09:00-18:00\", timezone = \"Europe/Paris\"", "hours", "\"Mo\" is no day"),
            ("hours = \"\", timezone = \"Europe/Paris\"", "hours", "names no hours"),
            ("out_of_hours = \"Closed.\"", "out_of_hours", "has no effect without hours"),
            ("rephrase = \" \"", "rephrase", "has 1 to 300 characters"),
            ("labels = [\"good\", \"not good\"]", "labels[1]", "\"not good\" is no label"),
            ("vip = { team_id = 3 }", "vip", "has no effect without labels"),
            ("unsure_max = 0", "unsure_max", "1"),
            ("priority = \"highest\"", "priority", "must be one of"),
            ("vip = { when = \"later\" }", "vip.when", "must be one of"),
        ];
        for (written, key, message) in cases {
            let errors = read(written).unwrap_err();
            assert_eq!(errors.0.len(), 1, "{written}: {errors}");
            let error = &errors.0[0];
            assert_eq!(error.key, format!("tenant[0].chatwoot[0].handoff.{key}"), "{errors}");
            assert!(error.position.is_some() && error.message.contains(message), "{errors}");
            assert_eq!(error.file, Path::new("relais.toml"));
        }
    }
}
