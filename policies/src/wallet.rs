//! Token budgets: how many budget tokens a tenant may still use.
//!
//! A wallet is a set of lots in a fixed spend order: the plan's monthly grant, gifts, bought
//! packs. A call *reserves* before it is sent, *extends* while the answer grows, and *settles*
//! once with what was really used. Until then its reservation counts as used, so calls running
//! side by side cannot overspend together.
//!
//! At every moment, in tokens:
//!
//! ```text
//! granted + debt = spent + expired + reserved + available
//! ```
//!
//! - Nothing is ever negative. What a provider bills beyond a reservation is paid from what is
//!   available, and the rest is *debt*, in plain sight. There is debt only while nothing is
//!   available: whatever becomes available, by a credit, a new grant or a released reservation,
//!   covers debt first, and until it is covered nothing can be reserved.
//! - A call that spends no more than it reserved never makes debt, whatever happened meanwhile:
//!   its part of a lot that expired, or of a grant that was cut, is still its own. (A refunded lot
//!   is the exception: what was bought with money that went back is owed.)
//! - The spend order holds when a call settles, not when it reserved: a long reservation that was
//!   pushed into a pack is paid from the grant if the grant has room again by then.
//! - A changed plan resizes the period's grant and leaves what was used alone. An unlimited
//!   grant counts as it is used: it is granted what is drawn from it.
//!
//! What is available is derived from the lots, never stored. In the common case, a grant with
//! room, reserving and settling touch one lot and allocate nothing. Counts that would pass 2^64
//! are refused (reserving) or end up as debt, which saturates.
//!
//! Time is told by [`Wallet::advance`]; nothing here reads a clock, locks or writes. What model
//! tokens cost is in [`crate::rate_card`].

mod books;
mod hold;
mod lot;
mod state;

use std::collections::BTreeMap;

use crate::limit::Limit;
use crate::period::Period;
use hold::Drawn;

pub use books::{Books, Closed, GrantUse, GrantedAtMost, Past, Refund, Settled};
pub use hold::{Hold, HoldPart};
pub use lot::{Lot, LotId, LotKind, NewLot, Phase};
pub use state::{StateError, WalletState};

/// The tokens of one tenant.
#[derive(Debug)]
pub struct Wallet {
    /// In spend order.
    lots: Vec<Lot>,
    /// Lots that are done with, by source: a source is credited once, for ever. One entry for
    /// each credit an operator or a payment made; traffic adds none.
    closed: BTreeMap<String, Closed>,
    past: Past,
    debt: u64,
    now_ms: i64,
    next_lot: u64,
    /// No lot before this one can be drawn on.
    first: usize,
    /// When the next lot opens or expires.
    next_change_ms: i64,
}

impl Wallet {
    /// An empty wallet. `now_ms`: Unix milliseconds.
    pub fn new(now_ms: i64) -> Wallet {
        Wallet {
            lots: Vec::new(),
            closed: BTreeMap::new(),
            past: Past::default(),
            debt: 0,
            now_ms,
            next_lot: 1,
            first: 0,
            next_change_ms: i64::MAX,
        }
    }

    /// Add a lot. `false`: this source was credited before, and nothing changes. Debt is covered
    /// first, once the lot is effective.
    pub fn credit(&mut self, lot: NewLot) -> bool {
        if self.closed.contains_key(&lot.source) || self.lots.iter().any(|known| known.source == lot.source) {
            return false;
        }
        let priority = lot.priority.unwrap_or(lot.kind.priority());
        let effective_at_ms = lot.effective_at_ms.unwrap_or(i64::MIN);
        self.insert(Lot {
            id: LotId(0),
            kind: lot.kind,
            limit: Limit::AtMost(lot.granted),
            priority,
            effective_at_ms,
            expires_at_ms: lot.expires_at_ms,
            source: lot.source,
            monthly: false,
            phase: Phase::Pending,
            spent: 0,
            reserved: 0,
            orphaned: 0,
        });
        self.refresh();
        true
    }

    /// The plan's grant for a period: made once, then resized, whatever was used of it staying
    /// used. Asking again with the same values changes nothing. If another grant runs in a period
    /// that holds now, the anchor was moved: that grant gets the new dates and no fresh tokens. A
    /// period to come waits for its time, and its grant ends the one before it; a period that is
    /// over is ignored. Tell the time ([`Wallet::advance`]) first.
    pub fn set_grant(&mut self, period: &Period, limit: Limit) {
        if period.end_ms <= self.now_ms || period.end_ms <= period.start_ms {
            return;
        }
        let Some(index) = self.grant_for(period) else {
            self.insert(Lot {
                id: LotId(0),
                kind: LotKind::Grant,
                limit,
                priority: LotKind::Grant.priority(),
                effective_at_ms: period.start_ms,
                expires_at_ms: Some(period.end_ms),
                source: grant_source(period),
                monthly: true,
                phase: Phase::Pending,
                spent: 0,
                reserved: 0,
                orphaned: 0,
            });
            return self.refresh();
        };
        if let Some(lot) = self.lots.get_mut(index) {
            let dates = (period.start_ms, Some(period.end_ms));
            if lot.limit == limit && (lot.effective_at_ms, lot.expires_at_ms) == dates {
                return;
            }
            lot.limit = limit;
            (lot.effective_at_ms, lot.expires_at_ms) = dates;
            lot.source = grant_source(period);
            let kept = lot.id;
            // Another grant planned for a part of the same time would be a second one.
            self.lots
                .retain(|lot| lot.id == kept || !lot.monthly || lot.phase != Phase::Pending || !lot.overlaps(period));
            self.lots.sort_by(Lot::spend_order);
        }
        self.refresh();
    }

    /// Tell the time, Unix milliseconds: lots open and expire. Going back changes nothing.
    pub fn advance(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.now_ms >= self.next_change_ms {
            self.refresh();
        }
    }

    /// Tokens that can be reserved now; `None`: without limit.
    pub fn available(&self) -> Option<u64> {
        let open = self.lots.get(self.first..).unwrap_or_default();
        if open.iter().any(|lot| lot.phase == Phase::Open && lot.limit == Limit::Unlimited) {
            return None;
        }
        Some(open.iter().fold(0, |sum, lot| sum.saturating_add(lot.available())))
    }

    /// Set tokens aside for a call. `None`: there are not that many, or there is debt; nothing
    /// changed then.
    pub fn reserve(&mut self, tokens: u64) -> Option<Hold> {
        let mut hold = Hold::empty();
        self.extend(&mut hold, tokens).then_some(hold)
    }

    /// Set more aside for a running call: all of it, or none and `false`.
    pub fn extend(&mut self, hold: &mut Hold, tokens: u64) -> bool {
        if self.debt > 0 {
            return false;
        }
        while self.lots.get(self.first).is_some_and(|lot| lot.available() == 0) {
            self.first += 1;
        }
        // Nearly always one lot has all of it.
        if let Some(lot) = self.lots.get_mut(self.first)
            && lot.available() >= tokens
        {
            lot.reserved += tokens;
            hold.add(Drawn { lot: lot.id, tokens, index: self.first });
            return true;
        }
        let open = self.lots.get(self.first..).unwrap_or_default();
        if open.iter().fold(0_u64, |sum, lot| sum.saturating_add(lot.available())) < tokens {
            return false;
        }
        let mut left = tokens;
        for (index, lot) in self.lots.iter_mut().enumerate().skip(self.first) {
            let part = lot.available().min(left);
            if part > 0 {
                lot.reserved += part;
                left -= part;
                hold.add(Drawn { lot: lot.id, tokens: part, index });
            }
        }
        true
    }

    /// End a call: charge what it spent, give back the rest of what it held. Beyond the hold it
    /// is paid from what is available, and what is then left is debt.
    pub fn settle(&mut self, hold: Hold, spent: u64) -> Settled {
        let (mut held, mut left) = (0_u64, spent);
        for part in hold.drawn() {
            held = held.saturating_add(part.tokens);
            left -= self.end_part(part, left);
        }
        let debt = self.owe(left);
        Settled { from_lots: spent - debt, debt, released: held.saturating_sub(spent) }
    }

    /// Charge tokens that nothing was held for.
    pub fn charge(&mut self, tokens: u64) -> Settled {
        self.settle(Hold::empty(), tokens)
    }

    /// Take a credited lot back: its unspent tokens go, its spent ones are paid by other lots or
    /// become debt, and so will what running calls hold of it. `None`: the source is not known or
    /// already taken back, and nothing changes. The monthly grant is changed by
    /// [`Wallet::set_grant`] instead.
    pub fn refund(&mut self, source: &str) -> Option<Refund> {
        let refund = if let Some(lot) = self.lots.iter_mut().find(|lot| lot.source == source) {
            if lot.monthly || lot.phase == Phase::Refunded {
                return None;
            }
            let pending = (lot.phase == Phase::Pending).then(|| lot.limit.remaining(0)).flatten();
            let taken_back = pending.unwrap_or(lot.available());
            lot.phase = Phase::Refunded;
            lot.limit = Limit::ZERO;
            Refund { taken_back, owed: std::mem::take(&mut lot.spent) }
        } else {
            let closed = self.closed.get_mut(source).filter(|closed| !closed.refunded)?;
            closed.refunded = true;
            let (granted, spent) = (std::mem::take(&mut closed.granted), std::mem::take(&mut closed.spent));
            // Never below zero, even if what was read back from disk does not add up.
            self.past.granted = self.past.granted.saturating_sub(u128::from(granted));
            self.past.spent = self.past.spent.saturating_sub(u128::from(spent));
            self.past.expired = self.past.expired.saturating_sub(u128::from(granted.saturating_sub(spent)));
            Refund { taken_back: 0, owed: spent }
        };
        self.owe(refund.owed);
        self.refresh();
        Some(refund)
    }

    /// Where every token is.
    pub fn books(&self) -> Books {
        let mut books = Books {
            granted: self.past.granted,
            debt: u128::from(self.debt),
            spent: self.past.spent + u128::from(self.debt),
            expired: self.past.expired,
            ..Books::default()
        };
        for lot in &self.lots {
            books.granted += u128::from(lot.granted());
            books.spent += u128::from(lot.spent);
            books.expired += u128::from(lot.expired());
            books.reserved += u128::from(lot.reserved);
            match lot.limit {
                Limit::AtMost(_) => books.available += u128::from(lot.available()),
                Limit::Unlimited => books.unlimited |= lot.phase == Phase::Open,
            }
        }
        books
    }

    /// How much of the running period's grant is spent; `None`: there is no grant now.
    pub fn grant_use(&self) -> Option<GrantUse> {
        let lot = self.lots.iter().find(|lot| lot.monthly && lot.phase == Phase::Open)?;
        Some(GrantUse { used: lot.spent, limit: lot.limit, ends_at_ms: lot.expires_at_ms? })
    }

    /// Lots in use, in spend order.
    pub fn lots(&self) -> &[Lot] {
        &self.lots
    }

    /// Spent without cover.
    pub fn debt(&self) -> u64 {
        self.debt
    }

    /// Release one part of a hold. Returns what was charged to it on the spot: in general nothing,
    /// because what a call spent is then drawn in spend order; but a part of a lot that expired,
    /// or was cut below what is used, can be spent by no other, and is charged here.
    fn end_part(&mut self, part: Drawn, spent: u64) -> u64 {
        let there = self.lots.get(part.index).is_some_and(|lot| lot.id == part.lot);
        let index = if there { Some(part.index) } else { self.lots.iter().position(|lot| lot.id == part.lot) };
        let Some((index, lot)) = index.and_then(|index| self.lots.get_mut(index).map(|lot| (index, lot))) else {
            return 0;
        };
        let own = match lot.phase {
            Phase::Expired => part.tokens.min(spent),
            Phase::Open if lot.is_over() => part.tokens.min(spent),
            Phase::Pending | Phase::Open | Phase::Refunded => 0,
        };
        lot.reserved = lot.reserved.saturating_sub(part.tokens);
        lot.spent = lot.spent.saturating_add(own);
        self.first = self.first.min(index);
        own
    }

    /// Charge tokens to what is available and the rest to the debt, then cover debt with what is
    /// still available. Returns the debt this added.
    fn owe(&mut self, tokens: u64) -> u64 {
        let uncovered = self.take(tokens);
        if self.debt > 0 {
            self.debt = self.take(self.debt);
        }
        self.debt = self.debt.saturating_add(uncovered);
        uncovered
    }

    /// Spend from the lots in order. Returns what they could not pay.
    fn take(&mut self, tokens: u64) -> u64 {
        let mut left = tokens;
        for lot in self.lots.iter_mut().skip(self.first) {
            if left == 0 {
                break;
            }
            let part = lot.available().min(left);
            lot.spent += part;
            left -= part;
        }
        left
    }

    /// The grant that this period is about: the running one, if the period holds now; else one
    /// that is planned for a part of the same time.
    fn grant_for(&self, period: &Period) -> Option<usize> {
        let running = period.start_ms <= self.now_ms;
        self.lots.iter().position(|lot| {
            lot.monthly
                && match lot.phase {
                    Phase::Open => running,
                    Phase::Pending => !running && lot.overlaps(period),
                    Phase::Expired | Phase::Refunded => false,
                }
        })
    }

    fn insert(&mut self, mut lot: Lot) {
        lot.id = LotId(self.next_lot);
        self.next_lot += 1;
        let index = self.lots.partition_point(|other| other.spend_order(&lot).is_lt());
        self.lots.insert(index, lot);
    }

    /// After anything but traffic: open and expire lots, put away what is done with, look for the
    /// next change, cover debt.
    fn refresh(&mut self) {
        for lot in &mut self.lots {
            if lot.phase == Phase::Pending && lot.effective_at_ms <= self.now_ms {
                lot.phase = Phase::Open;
            }
        }
        let running = |lot: &&Lot| lot.monthly && lot.phase == Phase::Open;
        let newest_ms = self.lots.iter().filter(running).map(|lot| lot.effective_at_ms).max();
        self.next_change_ms = i64::MAX;
        for lot in &mut self.lots {
            if running(&&*lot) && newest_ms > Some(lot.effective_at_ms) {
                lot.phase = Phase::Expired;
            }
            let expires_at_ms = lot.expires_at_ms.unwrap_or(i64::MAX);
            match lot.phase {
                Phase::Pending => self.next_change_ms = self.next_change_ms.min(lot.effective_at_ms),
                Phase::Open if expires_at_ms <= self.now_ms => lot.phase = Phase::Expired,
                Phase::Open => self.next_change_ms = self.next_change_ms.min(expires_at_ms),
                Phase::Expired | Phase::Refunded => {}
            }
        }
        self.first = 0;
        self.owe(0);
        for lot in self.lots.extract_if(.., |lot| lot.is_done()) {
            self.past.granted += u128::from(lot.granted());
            self.past.spent += u128::from(lot.spent);
            self.past.expired += u128::from(lot.expired());
            if !lot.monthly {
                let (granted, spent) = (lot.granted(), lot.spent);
                let refunded = lot.phase == Phase::Refunded;
                self.closed.insert(lot.source.clone(), Closed { source: lot.source, granted, spent, refunded });
            }
        }
    }
}

fn grant_source(period: &Period) -> String {
    format!("grant:{}", period.start_ms)
}

#[cfg(test)]
mod tests;
