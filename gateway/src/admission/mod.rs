//! May this call go in, and how many tokens may it spend?
//!
//! Proof travels as a value: a [`Permit`] exists only if there was room in every limit the key alone decides
//! (calls in flight, calls per month, calls per minute), a [`Reservation`] only if there was budget. Both give
//! back what they hold when they are dropped, whatever the reason, so no path of a handler can leak a seat.
//! A refusal is an outcome, not a failure, and costs nothing.
//!
//! What decides is in three files: `account` (the counters of one tenant, one short lock), `rate` (calls per
//! minute), `standing` (what is left, and the headers that tell it). It knows no key's secret, no model's
//! name and no HTTP body.

mod account;
mod rate;
mod standing;

pub use account::{Account, Denied, KeyLimits, KeySlot, Overview, Permit, Reservation, Use};
pub use rate::{Checked, Rate};
pub use standing::{Standing, Window};
