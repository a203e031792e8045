//! `relais usage`: prints and exports the ledger.
//!
//! Reads `usage.db` on a connection that cannot write, beside a gateway that runs; it sees what is committed, which
//! is all but the last second. Conversations and seats belong to a billing month and not to a day: they are told apart, of
//! each tenant's last one. Every figure is a sum of the rows that are enforced; nothing is estimated here.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};
use serde::Serialize;

use crate::admission::Counts;
use crate::usage::{database, writer};

mod month;

use month::Month;

/// What to print.
#[derive(Debug, Clone, Default, Args)]
pub struct Arguments {
    /// Only this tenant.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Only this key, by its public id.
    #[arg(long, value_name = "PUBLIC_ID")]
    pub key: Option<String>,
    /// Only this model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// From this day on, UTC, as 2026-01-31.
    #[arg(long, value_name = "DAY")]
    pub from: Option<Date>,
    /// Up to this day and with it, UTC.
    #[arg(long, value_name = "DAY")]
    pub to: Option<Date>,
    /// What to add up by, one or more, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tenant,model")]
    pub by: Vec<Column>,
    /// Instead, conversations and seats of each tenant's billing month. A table has them at its end anyway.
    #[arg(long)]
    pub months: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What usage can be added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The day calls began on, UTC.
    Day,
    /// The tenant.
    Tenant,
    /// The key, by its public id.
    Key,
    /// The model, as the caller named it.
    Model,
    /// What kind of calls: chat, responses, completions, embeddings, agent.
    Kind,
    /// The billing period, by its beginning.
    Period,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no ledger.
    #[error("there is no {}: nothing was used yet, or storage.dir is another", .0.display())]
    NoLedger(PathBuf),
    /// It cannot be read.
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] rusqlite::Error),
    /// It cannot be written as JSON.
    #[error("writing the usage as JSON")]
    Json(#[source] serde_json::Error),
    /// Nobody takes it.
    #[error("printing the usage")]
    Print(#[source] io::Error),
}

/// Prints what was used, as recorded in the data directory `dir`.
pub fn run(dir: &Path, arguments: &Arguments, out: &mut dyn io::Write) -> Result<(), ReportError> {
    let path = database::path(dir);
    if !path.exists() {
        return Err(ReportError::NoLedger(path));
    }
    let read = |error| ReportError::Read(path.clone(), error);
    let db = open(&path).map_err(read)?;
    let months = months(&db, arguments).map_err(read)?;
    let lines = if arguments.months { Vec::new() } else { query(&db, arguments).map_err(read)? };
    let text = match (arguments.format, arguments.months) {
        (Format::Table, true) => month::table(&months),
        (Format::Table, false) if months.iter().all(Month::is_empty) => table(&lines, &arguments.by),
        (Format::Table, false) => format!("{}\n{}", table(&lines, &arguments.by), month::table(&months)),
        (Format::Csv, true) => month::csv(&months),
        (Format::Csv, false) => csv(&lines, &arguments.by),
        (Format::Json, true) => serde_json::to_string_pretty(&months).map_err(ReportError::Json)? + "\n",
        (Format::Json, false) => serde_json::to_string_pretty(&lines).map_err(ReportError::Json)? + "\n",
    };
    out.write_all(text.as_bytes()).map_err(ReportError::Print)
}

/// One line of the report.
#[derive(Debug, Default, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

impl Column {
    fn sql(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Model => "model",
            Self::Kind => "kind",
            Self::Period => "period_ms",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Period => "period",
            other => other.sql(),
        }
    }
}

impl Line {
    fn text(&self, column: Column) -> &str {
        match column {
            Column::Day => &self.day,
            Column::Tenant => &self.tenant,
            Column::Key => &self.key,
            Column::Model => &self.model,
            Column::Kind => &self.kind,
            Column::Period => &self.period,
        }
        .as_deref()
        .unwrap_or("")
    }

    fn read(row: &Row<'_>, by: &[Column]) -> Result<Self, rusqlite::Error> {
        let mut line = Self::default();
        for (index, column) in by.iter().enumerate() {
            match column {
                Column::Day => line.day = Some(writer::date(row.get(index)?).to_string()),
                Column::Tenant => line.tenant = Some(row.get(index)?),
                Column::Key => line.key = Some(row.get(index)?),
                Column::Model => line.model = Some(row.get(index)?),
                Column::Kind => line.kind = Some(row.get(index)?),
                Column::Period => {
                    let instant = Timestamp::from_millisecond(row.get(index)?).unwrap_or(Timestamp::UNIX_EPOCH);
                    line.period = Some(instant.to_string());
                }
            }
        }
        let count = |place: usize| -> Result<u64, rusqlite::Error> {
            row.get::<_, i64>(by.len() + place).map(|count| u64::try_from(count).unwrap_or(0))
        };
        line.counts = Counts {
            calls: count(0)?,
            estimated_calls: count(1)?,
            input_tokens: count(2)?,
            cached_tokens: count(3)?,
            output_tokens: count(4)?,
            budget_tokens: count(5)?,
        };
        Ok(line)
    }
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(db)
}

fn months(db: &Connection, arguments: &Arguments) -> Result<Vec<Month>, rusqlite::Error> {
    let wanted = |tenant: &String| arguments.tenant.as_ref().is_none_or(|wanted| wanted == tenant);
    let accounts = database::accounts(db)?.into_iter().filter(|(tenant, _)| wanted(tenant));
    Ok(accounts.map(|(tenant, state)| Month::of(tenant, &state)).collect())
}

fn query(db: &Connection, arguments: &Arguments) -> Result<Vec<Line>, rusqlite::Error> {
    let by: Vec<&str> = arguments.by.iter().map(|column| column.sql()).collect();
    let mut conditions = vec!["TRUE".to_owned()];
    let mut values = Vec::new();
    let filters = [("tenant", &arguments.tenant), ("key", &arguments.key), ("model", &arguments.model)];
    for (column, wanted) in filters {
        if let Some(wanted) = wanted {
            conditions.push(format!("{column} = ?"));
            values.push(Value::Text(wanted.clone()));
        }
    }
    for (condition, date) in [("day >= ?", arguments.from), ("day <= ?", arguments.to)] {
        if let Some(date) = date {
            conditions.push(condition.to_owned());
            values.push(Value::Integer(day(date)));
        }
    }
    let sums = "SUM(calls), SUM(estimated_calls), SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), \
                SUM(budget_tokens)";
    let (columns, conditions) = (by.join(", "), conditions.join(" AND "));
    let sql = if by.is_empty() {
        format!("SELECT {sums} FROM usage WHERE {conditions} HAVING COUNT(*) > 0")
    } else {
        format!("SELECT {columns}, {sums} FROM usage WHERE {conditions} GROUP BY {columns} ORDER BY {columns}")
    };
    let mut statement = db.prepare(&sql)?;
    statement.query_map(params_from_iter(values), |row| Line::read(row, &arguments.by))?.collect()
}

/// Days since 1970, UTC.
fn day(date: Date) -> i64 {
    // A date that no instant has is before or after everything.
    let bound = if date.year() < 1970 { i64::MIN } else { i64::MAX };
    TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_or(bound, |start| start.as_second().div_euclid(86_400))
}

const COUNTS: [&str; 6] =
    ["calls", "estimated_calls", "input_tokens", "cached_tokens", "output_tokens", "budget_tokens"];

fn counts(counts: &Counts) -> [u64; 6] {
    [
        counts.calls,
        counts.estimated_calls,
        counts.input_tokens,
        counts.cached_tokens,
        counts.output_tokens,
        counts.budget_tokens,
    ]
}

/// Words to the left, numbers to the right, and what it comes to at the end.
fn table(lines: &[Line], by: &[Column]) -> String {
    let titles = by.iter().map(|column| column.title()).chain(COUNTS).map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![titles];
    let mut total = Counts::default();
    for line in lines {
        total.add(&line.counts);
        let words = by.iter().map(|column| printable(line.text(*column)));
        rows.push(words.chain(counts(&line.counts).map(|count| count.to_string())).collect());
    }
    let words = by.iter().enumerate().map(|(index, _)| if index == 0 { "total".to_owned() } else { String::new() });
    rows.push(words.chain(counts(&total).map(|count| count.to_string())).collect());
    aligned(&rows, by.len())
}

/// Columns as wide as they must be, the first `words` of them words, the others numbers.
fn aligned(rows: &[Vec<String>], words: usize) -> String {
    let mut widths = vec![0; rows.iter().map(Vec::len).max().unwrap_or(0)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if index == 0 { "" } else { "  " };
            // Writing to a String does not fail.
            let _ =
                if index < words { write!(line, "{gap}{cell:<width$}") } else { write!(line, "{gap}{cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A model's name is what a caller wrote: no control character of it reaches a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn csv(lines: &[Line], by: &[Column]) -> String {
    let titles: Vec<&str> = by.iter().map(|column| column.title()).chain(COUNTS).collect();
    let mut text = titles.join(",") + "\r\n";
    for line in lines {
        let words = by.iter().map(|column| quoted(line.text(*column)));
        let cells: Vec<String> = words.chain(counts(&line.counts).map(|count| count.to_string())).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A cell of words. One that a spreadsheet would take for a formula gets an apostrophe: a caller chose the name.
fn quoted(text: &str) -> String {
    let formula = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if formula.is_empty() && !text.contains(['"', ',', '\r', '\n']) {
        return text.to_owned();
    }
    format!("\"{formula}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        for (text, expected) in [
            ("llama", "llama"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd()", "\"'=cmd()\""),
            ("-1", "\"'-1\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }

    #[test]
    fn days_are_counted_from_1970() {
        for (text, expected) in [("1970-01-01", 0), ("1970-01-02", 1), ("2026-11-25", 20_782), ("1969-12-31", -1)] {
            let date: Date = text.parse().unwrap();
            assert_eq!((day(date), writer::date(expected)), (expected, date));
        }
    }
}
