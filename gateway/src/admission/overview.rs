//! An account as its owner may look at it, all of it at one moment.

use relais_policies::period::Period;

use crate::admission::{Account, KeyLimits, KeySlot, Standing};

/// An account at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overview {
    /// What is left of every limit.
    pub standing: Standing,
    /// The billing period that runs.
    pub period: Period,
    /// Calls of the tenant that run.
    pub in_flight: u64,
    /// Calls of the key that run.
    pub key_in_flight: u64,
    /// Budget tokens spent in this period.
    pub spent: u64,
    /// Budget tokens that running calls hold.
    pub reserved: u64,
    /// Budget tokens spent without cover.
    pub debt: u64,
    /// Conversations counted in this period.
    pub conversations: u64,
    /// Humans seen in it.
    pub seats: u64,
    /// The limits of the key alone.
    pub key_limits: KeyLimits,
}

impl Account {
    /// Everything about the account that its owner may look at, read at one moment.
    pub fn overview(&self, slot: KeySlot) -> Overview {
        let mut books = self.lock();
        books.roll(self.clock().now_ms());
        let minute = books.look(slot);
        let key = books.keys.get(slot.0);
        Overview {
            standing: books.standing(slot, minute, self.clock()),
            period: books.period,
            in_flight: books.in_flight,
            key_in_flight: key.map_or(0, |key| key.in_flight),
            spent: books.spent,
            reserved: books.reserved,
            debt: books.wallet.debt(),
            conversations: books.conversations_counted(),
            seats: books.seats(),
            key_limits: key.map_or(KeyLimits::NONE, |key| key.limits),
        }
    }
}
