//! Looking through the whole inbox, in steps, for what the disk has changed.
//!
//! A row that is read for work is checked then. This finds what nobody would read: a finished row, an unfinished one
//! that has fallen out of the list of unfinished ones, a page that no longer holds together.

use rusqlite::{Connection, Row, params};

use super::record::{ConversationKey, delivery_sum};
use super::{reader, seal};

/// What a step found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Deliveries that are not what was written.
    pub(super) damaged: Vec<i64>,
    /// Whole deliveries that an index does not have.
    pub(super) unlisted: Vec<i64>,
    /// The last one looked at; none: that was the end.
    pub(super) last: Option<i64>,
}

/// Looks at so many deliveries after `after_seq`.
pub(super) fn step(db: &Connection, after_seq: i64, limit: i64) -> Result<Step, rusqlite::Error> {
    let mut step = Step::default();
    let mut statement = db.prepare_cached(&format!(
        "SELECT d.seq, c.tenant, c.channel, c.account_id, c.number,
         d.message_id, d.event, d.dedupe, d.received_at_ms, d.body, d.sum,
         d.state IN (0, 1) AND d.seal = {seal},
         d.state <> 0 OR EXISTS (SELECT 1 FROM deliveries i INDEXED BY deliveries_unfinished
           WHERE i.conversation = d.conversation AND i.seq = d.seq AND i.state = 0),
         EXISTS (SELECT 1 FROM deliveries i INDEXED BY sqlite_autoindex_deliveries_1
           WHERE i.conversation = d.conversation AND i.message_id = d.message_id AND i.dedupe = d.dedupe)
         FROM deliveries d LEFT JOIN conversations c ON c.id = d.conversation
         WHERE d.seq > ?1 AND d.state <> 2 ORDER BY d.seq LIMIT ?2",
        seal = seal::DELIVERY,
    ))?;
    let mut rows = statement.query(params![after_seq, limit])?;
    let mut looked = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        looked += 1;
        last = Some(seq);
        match whole(row) {
            Some(true) if row.get::<_, bool>(12)? && row.get::<_, bool>(13)? => {}
            Some(true) => step.unlisted.push(seq),
            Some(false) | None => step.damaged.push(seq),
        }
    }
    step.last = if looked < limit { None } else { last };
    Ok(step)
}

/// Whether a delivery is what was written. None: a value is of another type, which is damage too.
fn whole(row: &Row<'_>) -> Option<bool> {
    let key: ConversationKey = reader::key(row, 1).ok()?;
    let message_id = row.get::<_, i64>(5).ok()?.cast_unsigned();
    let event: String = row.get(6).ok()?;
    let (dedupe, body, sum): (Vec<u8>, Vec<u8>, Vec<u8>) = (row.get(7).ok()?, row.get(9).ok()?, row.get(10).ok()?);
    let sealed: bool = row.get(11).ok()?;
    Some(sealed && sum == delivery_sum(&key, message_id, &event, &dedupe, row.get(8).ok()?, &body))
}
