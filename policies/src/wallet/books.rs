//! What a wallet answers: where every token is, how a call ended, how far a grant is spent.
//!
//! Plain values; the rules are in [`super`].

use serde::{Deserialize, Serialize};

use super::{Phase, Wallet};
use crate::limit::{AlertLevel, Limit};

/// A lot that is done with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What it was credited for.
    pub source: String,
    /// Tokens it granted.
    pub granted: u64,
    /// Tokens spent from it; the rest expired.
    pub spent: u64,
    /// Whether it was taken back.
    pub refunded: bool,
}

/// What closed lots come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Tokens granted.
    pub granted: u128,
    /// Tokens spent.
    pub spent: u128,
    /// Tokens lost by time.
    pub expired: u128,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Paid by lots.
    pub from_lots: u64,
    /// Not paid: added to the debt.
    pub debt: u64,
    /// Of the hold, not needed.
    pub released: u64,
}

/// What a refund took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Unspent tokens, taken back.
    pub taken_back: u64,
    /// Spent tokens, now paid by other lots or owed. What running calls hold follows when they
    /// settle.
    pub owed: u64,
}

/// Every token, by where it is. `granted + debt = spent + expired + reserved + available`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Granted by lots that are or were effective; by an unlimited one, as much as was used.
    pub granted: u128,
    /// Spent without cover.
    pub debt: u128,
    /// Spent.
    pub spent: u128,
    /// Lost by time.
    pub expired: u128,
    /// Held by running calls.
    pub reserved: u128,
    /// Left, an unlimited grant apart.
    pub available: u128,
    /// Whether there is an unlimited grant: then nothing is refused.
    pub unlimited: bool,
}

/// How a wallet would stand with another grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedAtMost {
    /// Tokens that could be reserved.
    pub available: u64,
    /// Tokens spent or held that nothing would cover.
    pub over: u64,
}

impl Wallet {
    /// How it would stand if the running period's grant were so many tokens; lots that are
    /// credited beside it would be drawn on for what is beyond.
    pub fn granted_at_most(&self, most: u64) -> GrantedAtMost {
        let (mut there, mut drawn) = (u128::from(most), u128::from(self.debt));
        for lot in self.lots.iter().filter(|lot| lot.phase == Phase::Open) {
            if lot.monthly {
                drawn += u128::from(lot.used());
            } else {
                there += u128::from(lot.available());
            }
        }
        let whole = |tokens: u128| u64::try_from(tokens).unwrap_or(u64::MAX);
        GrantedAtMost { available: whole(there.saturating_sub(drawn)), over: whole(drawn.saturating_sub(there)) }
    }
}

/// How much of the period's grant is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantUse {
    /// Tokens spent from it, running calls not counted.
    pub used: u64,
    /// The grant.
    pub limit: Limit,
    /// When the grant ends, Unix milliseconds.
    pub ends_at_ms: i64,
}

impl GrantUse {
    /// How near the grant is to its end.
    pub fn alert(&self) -> AlertLevel {
        self.limit.alert(self.used)
    }
}
