//! One tenant's counters, and the lock that makes every decision about them at once.
//!
//! Constraints: a thousand calls of one tenant must not spend a token it does not have, nor be refused one it
//! has; a refusal must cost nothing; a change of plan must not reset what is used; the decision must not
//! allocate or wait.
//!
//! Layout: everything that decides lies behind one `std` mutex per tenant (`books`): calls in flight, monthly
//! calls, the limiters, the wallet, and the same per key. Compare-and-swap per counter was the alternative: five
//! counters, hence four kinds of roll-back, and a rate that cannot be rolled back. One lock of some tens of ns
//! makes a decision a plain function of what it sees, and tenants never share one. It is never held over an await.
//! As all of it is under that one lock there are no interleavings inside a decision to search (no `loom`): what
//! can interleave are whole operations, and the tests draw those.
//!
//! Order of the checks: from the reversible to the irreversible, and nothing is written before all have passed.
//! What a call holds leaves in exactly one way: [`Reservation::settle`], [`Reservation::release`] or, if neither
//! was reached, its drop, which charges what was reserved or counted so far.
//!
//! A call belongs to the billing period it is sent in. One admitted before the turn of the month and sent after it
//! is counted in the new month; one that is running over it settles in the old.
//!
//! Tallies (what was used, by key and model) are written under the same lock, so the ledger that drains them
//! once a second never sees a token spent that is not told, or told twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relais_policies::TenantPolicy;
use relais_policies::limit::KeyLimits;
use relais_policies::shadow::{Shadow, Shadowed};
use relais_policies::wallet::Hold;

use crate::admission::alert::Alert;
use crate::admission::books::{Admitted, Books};
use crate::admission::denied::{Denied, spent_permit};
use crate::admission::saved::{AccountState, KeyState};
use crate::admission::tally::{Counts, Kind, Place};
use crate::admission::{Journal, Standing};
use crate::clock::Clock;

/// Where a key's counters are in its tenant's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySlot(pub(super) usize);

/// What stands for the key in what our own agents used: they have none. No real id holds a `_`.
pub const AGENT_KEY: [u8; 12] = *b"relais_agent";

/// What a call is, for whoever reads the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model, as the caller names it.
    pub model: &'a str,
    /// What kind of call.
    pub kind: Kind,
}

/// What one call used, in model tokens, beside what it cost in budget tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Budget tokens: what the wallet is charged.
    pub budget: u64,
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// The cached part of the prompt.
    pub cached: u64,
    /// Answer tokens, reasoning included.
    pub output: u64,
    /// Our own count, because the upstream told none.
    pub estimated: bool,
}

/// What calls of one key, model, kind, period and day came to since the ledger last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The key's public id.
    pub key: [u8; 12],
    /// The model, as the caller names it.
    pub model: Arc<str>,
    /// What kind of calls.
    pub kind: Kind,
    /// The billing period they began in: since when it counts, Unix ms.
    pub period_ms: i64,
    /// The day they began on, since 1970, UTC.
    pub day: i64,
    /// What they came to.
    pub counts: Counts,
}

/// What the ledger writes down: what happened, and how things stand after it.
#[derive(Debug)]
pub struct Drained {
    /// What ended.
    pub deltas: Vec<Delta>,
    /// The tenant's counters.
    pub account: AccountState,
    /// The counters of the keys that changed.
    pub keys: Vec<([u8; 12], KeyState)>,
    /// Alerts to give.
    pub alerts: Vec<Alert>,
}

/// One tenant's account. Outlives every reload.
#[derive(Debug)]
pub struct Account {
    tenant_id: Arc<str>,
    books: Mutex<Books>,
    clock: Clock,
    journal: Arc<Journal>,
}

impl Account {
    /// The account of a tenant, with what the journal remembers of it; else with nothing used.
    pub fn new(tenant_id: Arc<str>, policy: &TenantPolicy, clock: Clock, journal: &Arc<Journal>) -> Arc<Self> {
        let mut books = Books::new(policy, &clock);
        if let Some(past) = journal.past(&tenant_id) {
            books.restore(past, policy);
        }
        books.apply(policy, &clock);
        books.restore_conversations(&journal.counted(&tenant_id));
        // Calls that a crash cut off were charged just now.
        let changed = books.has_changed();
        let account = Arc::new(Self { tenant_id, books: Mutex::new(books), clock, journal: Arc::clone(journal) });
        if changed {
            journal.changed(&account);
        }
        account
    }

    /// Whose it is.
    pub fn tenant_id(&self) -> &Arc<str> {
        &self.tenant_id
    }

    /// Takes over a changed policy. What is used stays used.
    pub fn apply(&self, policy: &TenantPolicy) {
        self.lock().apply(policy, &self.clock);
    }

    /// The counters of a key: those it had, with these limits from now on, or new ones.
    pub fn key(&self, public_id: [u8; 12], limits: KeyLimits) -> KeySlot {
        self.lock().key(public_id, limits, &self.clock)
    }

    /// Everything the key alone decides: calls in flight, monthly calls, calls per minute.
    pub fn admit(self: &Arc<Self>, slot: KeySlot) -> Result<Permit, Denied> {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        if self.journal.is_full() {
            return Err(books.not_recorded(slot, &self.clock));
        }
        let (admitted, minute, shadowed) = books.admit(slot, &self.clock)?;
        let standing = books.standing(slot, minute, &self.clock);
        drop(books);
        Ok(Permit { seat: Some(Seat { account: Arc::clone(self), slot, admitted, waits: true }), standing, shadowed })
    }

    /// What is left, without taking anything.
    pub fn standing(&self, slot: KeySlot) -> Standing {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        let minute = books.look(slot);
        books.standing(slot, minute, &self.clock)
    }

    /// Counts what an agent of ours used of a model, and charges its budget tokens if `charge`; else they count as
    /// none. It is no call of the tenant's: no limit of calls knows of it, and nothing was reserved, so what it costs
    /// beyond what is there becomes debt.
    pub fn agent_used(self: &Arc<Self>, model: &str, used: Use, charge: bool) {
        let used = Use { budget: if charge { used.budget } else { 0 }, ..used };
        let now_ms = self.clock.now_ms();
        let mut books = self.lock();
        books.roll(now_ms);
        let slot = books.key(AGENT_KEY, KeyLimits::NONE, &self.clock);
        books.add(slot, Call { model, kind: Kind::Agent }, used, now_ms);
        self.changed(&mut books, slot);
        drop(books);
        self.journal.charged(used.budget);
    }

    /// Budget tokens that could be reserved now; `None`: no limit.
    pub fn tokens_left(&self) -> Option<u64> {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        books.wallet.available()
    }

    /// For the ledger: what ended since it last asked, and how things stand.
    pub fn drain(&self) -> Drained {
        self.lock().drain()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        // Nothing in here panics between two writes that belong together; a poisoned lock is still whole.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    fn changed(self: &Arc<Self>, books: &mut Books, slot: KeySlot) {
        if books.mark_changed(slot) {
            self.journal.changed(self);
        }
    }
}

/// A place among the calls in flight.
#[derive(Debug)]
pub(super) struct Seat {
    account: Arc<Account>,
    pub(super) slot: KeySlot,
    pub(super) admitted: Admitted,
    /// It has not reserved yet.
    pub(super) waits: bool,
}

/// Proof that there was room. Dropped without a reservation, the call never happened and is not counted.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives the call back"]
pub struct Permit {
    seat: Option<Seat>,
    /// What is left of every limit, for the headers.
    pub standing: Standing,
    /// Limits in shadow that would have refused it.
    pub shadowed: Shadow,
}

impl Permit {
    /// Reserves `want` budget tokens or, if there is less, as much as there is but not under `least`.
    /// A refusal gives the call back: it never happened.
    pub fn reserve(mut self, call: Call<'_>, least: u64, want: u64) -> Result<Reservation, Denied> {
        let Some(mut seat) = self.seat.take() else { return Err(spent_permit(self.standing)) };
        let account = Arc::clone(&seat.account);
        let mut books = account.lock();
        let now_ms = account.clock.now_ms();
        books.roll(now_ms);
        if !books.begin(&mut seat) {
            let denied = books.calls_used_up(seat.slot, &account.clock);
            books.leave(seat, true);
            return Err(denied);
        }
        let key_headroom = books.key_headroom(seat.slot);
        let tokens = books.wallet.available().unwrap_or(u64::MAX).min(key_headroom).min(want);
        let hold = if tokens < least { None } else { books.wallet.reserve(tokens) };
        let Some(hold) = hold else {
            let denied = books.tokens_used_up(seat.slot, &account.clock);
            books.leave(seat, true);
            return Err(denied);
        };
        let mut shadowed = Shadow::NONE;
        if books.tokens_left_unshadowed(seat.slot).is_some_and(|left| left < least) {
            shadowed.add(Shadowed::TokensPerMonth);
        }
        let place = books.enter(&mut seat, call, tokens, now_ms);
        account.changed(&mut books, seat.slot);
        let standing = books.standing(seat.slot, self.standing.minute, &account.clock);
        let room = books.wallet.available().unwrap_or(u64::MAX).min(key_headroom - tokens);
        drop(books);
        Ok(Reservation { open: Some(Open { seat, hold, tokens, place }), used: None, room, standing, shadowed })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            let account = Arc::clone(&seat.account);
            account.lock().leave(seat, true);
        }
    }
}

#[derive(Debug)]
struct Open {
    seat: Seat,
    hold: Hold,
    tokens: u64,
    /// Where it is counted: the period and day it began in.
    place: Place,
}

/// Budget tokens held for a running call. Exactly one way out: [`settle`](Self::settle), [`release`](Self::release),
/// or its drop, which charges what was counted so far, or else all that was reserved.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is charged"]
pub struct Reservation {
    open: Option<Open>,
    used: Option<Use>,
    /// Budget tokens that could be reserved on top when this was made; `u64::MAX`: no limit.
    pub room: u64,
    /// What is left of every limit with this call's reservation taken off.
    pub standing: Standing,
    /// The token budget, if it is in shadow and would have refused the call. What would only have been cut short
    /// is not told.
    pub shadowed: Shadow,
}

impl Reservation {
    /// Budget tokens reserved.
    pub fn tokens(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.tokens)
    }

    /// Reserves `more` on top. All or nothing.
    pub fn extend(&mut self, more: u64) -> bool {
        let Some(open) = self.open.as_mut() else { return false };
        let mut books = open.seat.account.lock();
        if more > books.key_headroom(open.seat.slot) || !books.wallet.extend(&mut open.hold, more) {
            return false;
        }
        books.extend(open.seat.slot, open.place, more);
        open.seat.account.changed(&mut books, open.seat.slot);
        open.tokens = open.tokens.saturating_add(more);
        true
    }

    /// What the call has used so far: what its drop would charge.
    pub fn count(&mut self, used: Use) {
        self.used = Some(used);
    }

    /// Ends the call: charges what it used, gives back the rest.
    pub fn settle(mut self, used: Use) {
        self.close(Some(used));
    }

    /// Ends a call that came to nothing: tokens and call go back.
    pub fn release(mut self) {
        self.close(None);
    }

    fn close(&mut self, used: Option<Use>) {
        let Some(Open { seat, hold, tokens, place }) = self.open.take() else { return };
        let account = Arc::clone(&seat.account);
        let charge = used.map_or(0, |used| used.budget);
        let mut books = account.lock();
        // What lies beyond the reservation is taken from what is left, or becomes a visible debt of the wallet.
        let _settled = books.wallet.settle(hold, charge);
        books.end(seat.slot, place, tokens, used);
        account.changed(&mut books, seat.slot);
        books.leave(seat, used.is_none());
        drop(books);
        account.journal.charged(charge);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open.is_some() {
            let used = self.used.unwrap_or(Use { budget: self.tokens(), estimated: true, ..Use::default() });
            self.close(Some(used));
        }
    }
}
