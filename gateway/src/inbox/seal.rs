//! Seals: a checksum in each row over what changes in it, beside the one over its content.
//!
//! A row's content never changes and its checksum is made once. Its state does, often, and a flipped bit there would
//! make a finished delivery unfinished, or an unsent post sent. So whoever changes a row seals it in the same
//! statement, by the SQL function `seal(kind, value, …)`, which every connection of ours has. It costs no further
//! statement and no read: the values are those of the row that is being changed.
//!
//! 64 bits against chance, not against somebody who means it: who may write the file may write its seals.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

/// Of a delivery `d`.
pub(super) const DELIVERY: &str = "seal('delivery', d.conversation, d.message_id, d.dedupe, d.state, d.outcome, \
                                   d.turn, d.ended_at_ms)";
/// Of a conversation `c`.
pub(super) const CONVERSATION: &str = "seal('conversation', c.tenant, c.channel, c.account_id, c.number, c.status, \
                                       c.owner, c.human_message_id, c.seen_message_id, c.answered_message_id, \
                                       c.not_before_ms)";
/// Of a turn `t`.
pub(super) const TURN: &str = "seal('turn', t.id, t.conversation, t.upto_seq, t.known_message_id, t.handoff, \
                               t.deferrals, t.outcome, t.ended_at_ms)";
/// Of a post `p`.
pub(super) const POST: &str = "seal('post', p.turn, p.part, p.state, p.sending_at_ms, p.message_id)";

/// Gives a connection the function.
pub(super) fn register(db: &Connection) -> Result<(), rusqlite::Error> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("seal", -1, flags, |values| {
        let mut hash = blake3::Hasher::new();
        for at in 0..values.len() {
            // A kind before each value, and a length where it has one: no two lists are one.
            let (kind, bytes) = match values.get_raw(at) {
                ValueRef::Null => (0, None),
                ValueRef::Integer(number) => {
                    hash.update(&[1]).update(&number.to_le_bytes());
                    continue;
                }
                ValueRef::Real(number) => {
                    hash.update(&[2]).update(&number.to_le_bytes());
                    continue;
                }
                ValueRef::Text(text) => (3, Some(text)),
                ValueRef::Blob(blob) => (4, Some(blob)),
            };
            hash.update(&[kind]);
            if let Some(bytes) = bytes {
                hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes()).update(bytes);
            }
        }
        let mut short = [0; 8];
        hash.finalize_xof().fill(&mut short);
        Ok(i64::from_le_bytes(short))
    })
}
