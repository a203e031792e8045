//! May this call go in, and how many tokens may it spend?
//!
//! Proof travels as a value: a [`Permit`] exists only if there was room in every limit the key alone decides
//! (calls in flight, calls per month, calls per minute), a [`Reservation`] only if there was budget. Both give
//! back what they hold when they are dropped, whatever the reason, so no path of a handler can leak a seat.
//! A refusal is an outcome, not a failure, and costs nothing. A limit in shadow counts like any other and refuses
//! nobody: the permit or reservation says that it would have.
//!
//! `account` is one tenant's account and the way in and out of it, `books` what lies behind its lock, `denied` the
//! refusals, `rate` calls per minute, `conversations` those that an agent may answer in a month, `overview` and `standing` what is left and the headers that tell it. For the
//! ledger: `tally` (what was used of which model), `saved` (what is written down and read back), `alert`, and
//! `journal`, where accounts say that they changed. It knows no key's secret, no HTTP body and no file.

mod account;
mod books;
mod conversations;
mod denied;
mod overview;
mod rate;
mod standing;

mod alert;
mod journal;
mod saved;
mod tally;

#[cfg(test)]
mod tests;

pub use account::{AGENT_KEY, Account, Call, Delta, Drained, KeySlot, Permit, Reservation, Use};
pub use relais_policies::limit::KeyLimits;

pub use alert::{Alert, Level, Told, Watched};
pub use conversations::{ConversationPlace, Counted};
pub use denied::Denied;
pub use journal::Journal;
pub use overview::Overview;
pub use rate::{Checked, Rate};
pub use saved::{AccountState, KeyState, OpenCalls, Past, PeriodSum};
pub use standing::{Standing, Window};
pub use tally::{Counts, Kind};
