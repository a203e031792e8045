//! `GET /v1/usage`: what the tenant used, by day, model, key or kind of call: the sums that are enforced, from the
//! ledger and what it has not written yet. Conversations and seats are told for the billing month that runs.
//!
//! It costs nothing, counts as no call and is answered to a suspended tenant too. Running calls count when they end;
//! what they hold is in `/v1/limits`. It is not a log of calls: there is none.

use std::collections::BTreeMap;

use http::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::Gateway;
use crate::admission::{Counts, Kind};
use crate::auth::api_key::Caller;
use crate::error::{Error, Reason, Retry};
use crate::http::address;
use crate::http::body::Body;
use crate::http::respond;
use crate::usage::{LedgerError, UsageRow};

const DAY_MS: i64 = 86_400_000;
/// What ms are counted from.
const EPOCH: Date = Date::constant(1970, 1, 1);

#[derive(Serialize)]
struct View<'a> {
    object: &'static str,
    tenant: &'a str,
    /// First and last day, UTC.
    from: Date,
    to: Date,
    group_by: &'a [Column],
    data: Vec<Line>,
    total: Counts,
    /// What is counted by the billing month and not by the day, in the one that runs.
    period: Period,
}

#[derive(Serialize)]
struct Period {
    /// Unix seconds.
    starts_at: i64,
    ends_at: i64,
    /// Conversations that an agent answered on a managed channel, each once.
    conversations: u64,
    /// Humans seen there.
    seats: u64,
}

/// What usage can be added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Column {
    Day,
    Model,
    Key,
    Kind,
}

/// One sum. What it is not told apart by is absent.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    group: Group,
    /// The key's name, as long as there is such a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_name: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The key's public part.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
}

/// Client leaves: cancel.
pub async fn answer(gateway: &Gateway, caller: &Caller, query: &str) -> Result<Response<Body>, Error> {
    let tenant = &caller.key.tenant;
    let overview = tenant.account.overview(caller.key.slot);
    let from = day(query, "from")?.unwrap_or_else(|| day_of(overview.period.start_ms));
    let to = day(query, "to")?.unwrap_or_else(|| day_of(gateway.clock.now_ms()));
    let group_by = columns(query)?;
    let rows = if from > to {
        Vec::new()
    } else {
        let (from_ms, to_ms) = (start_ms(from), start_ms(to).saturating_add(DAY_MS));
        gateway.ledger.read(&tenant.account, from_ms, to_ms).await.map_err(refused)?
    };
    let mut sums: BTreeMap<Group, Counts> = BTreeMap::new();
    let mut total = Counts::default();
    for row in rows {
        total.add(&row.counts);
        let counts = row.counts;
        sums.entry(group(row, &group_by)).or_default().add(&counts);
    }
    let name = |group: &Group| {
        let public_id: [u8; 12] = group.key.as_ref()?.as_bytes().try_into().ok()?;
        gateway.store.key(&public_id).map(|key| key.key.name.to_string())
    };
    let data = sums.into_iter().map(|(group, counts)| Line { key_name: name(&group), group, counts }).collect();
    let period = Period {
        starts_at: overview.period.start_ms.div_euclid(1000),
        ends_at: overview.period.end_ms.div_euclid(1000),
        conversations: overview.conversations,
        seats: overview.seats,
    };
    respond::json(&View { object: "usage", tenant: &tenant.id, from, to, group_by: &group_by, data, total, period })
}

fn group(row: UsageRow, by: &[Column]) -> Group {
    Group {
        day: by.contains(&Column::Day).then_some(row.day),
        model: by.contains(&Column::Model).then(|| row.model.to_string()),
        key: by.contains(&Column::Key).then_some(row.key),
        kind: by.contains(&Column::Kind).then_some(row.kind),
    }
}

/// A day of the question, written as 2026-01-31 and in no other way.
fn day(query: &str, name: &'static str) -> Result<Option<Date>, Error> {
    let malformed = || Error::new(Reason::Malformed, format!("\"{name}\" must be a day, as 2026-01-31.")).param(name);
    let Some(text) = address::query(query, name).map_err(|_ambiguous| malformed())? else { return Ok(None) };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if text.len() != 10 || !digits(&text) {
        return Err(malformed());
    }
    text.parse().map(Some).map_err(|_no_day| malformed())
}

fn columns(query: &str) -> Result<Vec<Column>, Error> {
    let malformed = || {
        Error::new(
            Reason::Malformed,
            "\"group_by\" must be one or more of day, model, key and kind, each once, with commas.",
        )
        .param("group_by")
    };
    let Some(text) = address::query(query, "group_by").map_err(|_ambiguous| malformed())? else {
        return Ok(vec![Column::Day]);
    };
    let mut columns = Vec::new();
    for word in text.split(',') {
        let column = match word {
            "day" => Column::Day,
            "model" => Column::Model,
            "key" => Column::Key,
            "kind" => Column::Kind,
            _ => return Err(malformed()),
        };
        if columns.contains(&column) {
            return Err(malformed());
        }
        columns.push(column);
    }
    Ok(columns)
}

fn day_of(ms: i64) -> Date {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

fn start_ms(day: Date) -> i64 {
    day.duration_since(EPOCH).as_secs().saturating_mul(1000)
}

fn refused(error: LedgerError) -> Error {
    match error {
        LedgerError::TooManyRows(_) => {
            Error::new(Reason::Malformed, "More than one answer can hold: ask for fewer days.").param("from")
        }
        LedgerError::Busy => Error::new(Reason::Overloaded, "Too many ask for their usage now. Try again shortly.")
            .retry(Retry::AfterMs(1_000)),
        error => Error::new(Reason::Disk, "The ledger cannot be read now.").caused_by(error),
    }
}
