//! One tenant's counters, and the lock that makes every decision about them at once.
//!
//! Constraints: a thousand calls of one tenant must not spend a token it does not have, nor be refused one it
//! has; a refusal must cost nothing; a change of plan must not reset what is used; the decision must not
//! allocate or wait.
//!
//! Layout: everything that decides lies behind one `std` mutex per tenant: calls in flight, monthly calls, the
//! limiters, the wallet, and the same per key. Compare-and-swap per counter was the alternative: five
//! counters, hence four kinds of roll-back, and a rate that cannot be rolled back. One lock of some tens of ns
//! makes a decision a plain function of what it sees, and tenants never share one. It is never held over an await.
//!
//! Order of the checks: from the reversible to the irreversible, and nothing is written before all have passed.
//! What a call holds leaves in exactly one way: [`Reservation::settle`], [`Reservation::release`] or, if neither
//! was reached, its drop, which charges what was reserved or counted so far.
//!
//! Tallies (what was used, by key and model) are written under the same lock, so the ledger that drains them
//! once a second never sees a token spent that is not told, or told twice.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relais_policies::TenantPolicy;
use relais_policies::limit::{Limit, Limits};
use relais_policies::meter::{Meter, Taken};
use relais_policies::period::{Anchor, Period};
use relais_policies::wallet::{Hold, Wallet};

use crate::admission::rate::{Before, Checked, Rate};
use crate::admission::{Standing, Window};
use crate::clock::Clock;
use crate::error::{Error, Reason, Retry};

/// Limits of one key, below its tenant's. `Unlimited`: the tenant's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimits {
    /// Calls per minute.
    pub calls_per_minute: Limit,
    /// Calls per billing month.
    pub calls_per_month: Limit,
    /// Calls at once.
    pub calls_in_flight: Limit,
    /// Budget tokens per billing month.
    pub tokens_per_month: Limit,
}

impl KeyLimits {
    /// No limits but the tenant's.
    pub const NONE: Self = Self {
        calls_per_minute: Limit::Unlimited,
        calls_per_month: Limit::Unlimited,
        calls_in_flight: Limit::Unlimited,
        tokens_per_month: Limit::Unlimited,
    };
}

/// Where a key's counters are in its tenant's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySlot(usize);

/// A refusal: which limit, what is left, when to come back.
#[derive(Debug)]
pub struct Denied {
    /// Which limit.
    pub reason: Reason,
    /// For the caller.
    pub message: Cow<'static, str>,
    /// When to come back.
    pub retry: Retry,
    /// What is left of every limit.
    pub standing: Standing,
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Error::new(denied.reason, denied.message).retry(denied.retry)
    }
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
    /// The limits of the key alone.
    pub key_limits: KeyLimits,
}

/// One tenant's account. Outlives every reload.
#[derive(Debug)]
pub struct Account {
    books: Mutex<Books>,
    clock: Clock,
}

#[derive(Debug)]
struct Books {
    limits: Limits,
    anchor: Anchor,
    period: Period,
    rate: Option<Rate>,
    in_flight: u64,
    calls: Meter,
    wallet: Wallet,
    /// Budget tokens spent since the period began, and those running calls hold: for the headers.
    spent: u64,
    reserved: u64,
    keys: Vec<KeyBooks>,
}

#[derive(Debug)]
struct KeyBooks {
    public_id: [u8; 12],
    limits: KeyLimits,
    rate: Option<Rate>,
    in_flight: u64,
    calls: Meter,
    /// Budget tokens spent in this period, and those its running calls hold.
    spent: u64,
    reserved: u64,
}

impl Account {
    /// An account with nothing used.
    pub fn new(policy: &TenantPolicy, clock: Clock) -> Self {
        let (limits, anchor, now_ms) = (policy.limits, policy.anchor, clock.now_ms());
        let period = anchor.period_at(now_ms);
        let mut wallet = Wallet::new(now_ms);
        wallet.set_grant(&period, limits.tokens_per_month);
        credit(&mut wallet, policy);
        let rate = rate(limits.calls_per_minute, &clock);
        let books = Books {
            limits,
            anchor,
            period,
            rate,
            in_flight: 0,
            calls: Meter::new(period),
            wallet,
            spent: 0,
            reserved: 0,
            keys: Vec::new(),
        };
        Self { books: Mutex::new(books), clock }
    }

    /// Takes over a changed policy. What is used stays used.
    pub fn apply(&self, policy: &TenantPolicy) {
        let (limits, anchor) = (policy.limits, policy.anchor);
        let mut books = self.lock();
        if books.limits.calls_per_minute != limits.calls_per_minute {
            books.rate = resized(books.rate.as_ref(), limits.calls_per_minute, &self.clock);
        }
        books.anchor = anchor;
        books.limits = limits;
        books.roll(self.clock.now_ms());
        let period = books.period;
        books.wallet.set_grant(&period, limits.tokens_per_month);
        credit(&mut books.wallet, policy);
    }

    /// The counters of a key: those it had, with these limits from now on, or new ones.
    pub fn key(&self, public_id: [u8; 12], limits: KeyLimits) -> KeySlot {
        let mut books = self.lock();
        let period = books.period;
        if let Some(slot) = books.keys.iter().position(|key| key.public_id == public_id) {
            if let Some(key) = books.keys.get_mut(slot) {
                if key.limits.calls_per_minute != limits.calls_per_minute {
                    key.rate = resized(key.rate.as_ref(), limits.calls_per_minute, &self.clock);
                }
                key.limits = limits;
            }
            return KeySlot(slot);
        }
        books.keys.push(KeyBooks {
            public_id,
            limits,
            rate: rate(limits.calls_per_minute, &self.clock),
            in_flight: 0,
            calls: Meter::new(period),
            spent: 0,
            reserved: 0,
        });
        KeySlot(books.keys.len() - 1)
    }

    /// Everything the key alone decides: calls in flight, monthly calls, calls per minute.
    pub fn admit(self: &Arc<Self>, slot: KeySlot) -> Result<Permit, Denied> {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        let (taken, key_taken, minute) = books.admit(slot, &self.clock)?;
        let standing = books.standing(minute, &self.clock);
        drop(books);
        Ok(Permit { seat: Some(Seat { account: Arc::clone(self), slot, taken, key_taken }), standing })
    }

    /// What is left, without taking anything.
    pub fn standing(&self, slot: KeySlot) -> Standing {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        let minute = books.look(slot);
        books.standing(minute, &self.clock)
    }

    /// Everything about the account that its owner may look at, read at one moment.
    pub fn overview(&self, slot: KeySlot) -> Overview {
        let mut books = self.lock();
        books.roll(self.clock.now_ms());
        let minute = books.look(slot);
        let key = books.keys.get(slot.0);
        Overview {
            standing: books.standing(minute, &self.clock),
            period: books.period,
            in_flight: books.in_flight,
            key_in_flight: key.map_or(0, |key| key.in_flight),
            spent: books.spent,
            reserved: books.reserved,
            debt: books.wallet.debt(),
            key_limits: key.map_or(KeyLimits::NONE, |key| key.limits),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // Nothing in here panics between two writes that belong together; a poisoned lock is still whole.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Into the period that holds now. Going back in time changes nothing.
    fn roll(&mut self, now_ms: i64) {
        if now_ms >= self.period.end_ms {
            let period = self.anchor.period_at(now_ms);
            self.period = period;
            self.spent = 0;
            self.keys.iter_mut().for_each(|key| key.spent = 0);
            self.wallet.set_grant(&period, self.limits.tokens_per_month);
        }
        self.wallet.advance(now_ms);
    }

    fn admit(&mut self, slot: KeySlot, clock: &Clock) -> Result<(Taken, Option<Taken>, Option<Window>), Denied> {
        if !self.limits.calls_in_flight.allows(self.in_flight, 1) {
            return Err(self.too_many_in_flight(slot, clock));
        }
        let Some(key) = self.keys.get(slot.0) else { return Err(self.too_many_in_flight(slot, clock)) };
        if !key.limits.calls_in_flight.allows(key.in_flight, 1) {
            return Err(self.too_many_in_flight(slot, clock));
        }
        let used_up = |meter: &Meter, limit: Limit, period: Period| {
            !limit.allows(if meter.period() == period { meter.used() } else { 0 }, 1)
        };
        if used_up(&self.calls, self.limits.calls_per_month, self.period)
            || used_up(&key.calls, key.limits.calls_per_month, self.period)
        {
            return Err(self.calls_used_up(slot, clock));
        }
        let minute = match self.check_rates(slot) {
            Ok(minute) => minute,
            Err((window, wait)) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                return Err(Denied {
                    reason: Reason::RateLimited,
                    message: Cow::Owned(format!(
                        "Calls per minute used up (limit {}). Try again in {} ms.",
                        window.limit, wait_ms
                    )),
                    retry: Retry::AfterMs(wait_ms),
                    standing: self.standing(Some(window), clock),
                });
            }
        };
        // Nothing can refuse any more.
        let period = self.period;
        let Ok(taken) = self.calls.take(self.limits.calls_per_month, period) else {
            return Err(self.calls_used_up(slot, clock));
        };
        self.in_flight += 1;
        let key_taken = self.keys.get_mut(slot.0).and_then(|key| {
            key.in_flight += 1;
            key.calls.take(key.limits.calls_per_month, period).ok()
        });
        Ok((taken, key_taken, minute))
    }

    /// The tenant's rate, then the key's; what the first took goes back if the second refuses.
    fn check_rates(&self, slot: KeySlot) -> Result<Option<Window>, (Window, std::time::Duration)> {
        let before: Option<(&Rate, Before)> = self.rate.as_ref().map(|rate| (rate, rate.before()));
        let tenant = match self.rate.as_ref().map(Rate::check) {
            Some(Checked::Refused(window, wait)) => return Err((window, wait)),
            Some(Checked::Taken(window)) => Some(window),
            None => None,
        };
        match self.keys.get(slot.0).and_then(|key| key.rate.as_ref()).map(Rate::check) {
            Some(Checked::Refused(window, wait)) => {
                if let Some((rate, before)) = before {
                    rate.put_back(before);
                }
                Err((window, wait))
            }
            Some(Checked::Taken(window)) => Ok(tighter(tenant, Some(window))),
            None => Ok(tenant),
        }
    }

    fn look(&self, slot: KeySlot) -> Option<Window> {
        let key = self.keys.get(slot.0).and_then(|key| key.rate.as_ref()).map(Rate::look);
        tighter(self.rate.as_ref().map(Rate::look), key)
    }

    fn standing(&self, minute: Option<Window>, clock: &Clock) -> Standing {
        let reset_ms = u64::try_from(self.period.end_ms.saturating_sub(clock.now_ms())).unwrap_or(0);
        let calls = match self.limits.calls_per_month {
            Limit::Unlimited => None,
            Limit::AtMost(limit) => {
                let used = if self.calls.period() == self.period { self.calls.used() } else { 0 };
                Some(Window { limit, remaining: limit.saturating_sub(used), reset_ms })
            }
        };
        let tokens = self.wallet.available().map(|remaining| Window {
            limit: self.spent.saturating_add(self.reserved).saturating_add(remaining),
            remaining,
            reset_ms,
        });
        Standing { minute, calls, tokens }
    }

    fn too_many_in_flight(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::TooManyInFlight,
            message: Cow::Borrowed("Too many calls at once: wait for one to end."),
            // One of the running calls has to end; nobody knows when. A second is what SDKs wait at first.
            retry: Retry::AfterMs(1_000),
            standing: self.standing(self.look(slot), clock),
        }
    }

    fn calls_used_up(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::CallsUsedUp,
            message: Cow::Borrowed("The month's calls are used up. They start again with the next billing period."),
            retry: Retry::Never,
            standing: self.standing(self.look(slot), clock),
        }
    }

    fn tokens_used_up(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::TokensUsedUp,
            message: Cow::Borrowed(
                "The token budget does not cover this call. It is renewed with the next billing period; a token pack adds to it at once.",
            ),
            retry: Retry::Never,
            standing: self.standing(self.look(slot), clock),
        }
    }

    fn reserve(&mut self, slot: KeySlot, tokens: u64) {
        self.reserved = self.reserved.saturating_add(tokens);
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.reserved = key.reserved.saturating_add(tokens);
        }
    }

    fn spend(&mut self, slot: KeySlot, reserved: u64, spent: u64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.spent = self.spent.saturating_add(spent);
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.reserved = key.reserved.saturating_sub(reserved);
            key.spent = key.spent.saturating_add(spent);
        }
    }

    /// Gives the seat back, and the calls too if the call came to nothing.
    fn leave(&mut self, seat: Seat, came_to_nothing: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let key = self.keys.get_mut(seat.slot.0);
        if came_to_nothing {
            self.calls.give_back(seat.taken);
        }
        if let Some(key) = key {
            key.in_flight = key.in_flight.saturating_sub(1);
            if came_to_nothing && let Some(taken) = seat.key_taken {
                key.calls.give_back(taken);
            }
        }
    }
}

/// A place among the calls in flight.
#[derive(Debug)]
struct Seat {
    account: Arc<Account>,
    slot: KeySlot,
    taken: Taken,
    key_taken: Option<Taken>,
}

/// Proof that there was room. Dropped without a reservation, the call never happened and is not counted.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives the call back"]
pub struct Permit {
    seat: Option<Seat>,
    /// What is left of every limit, for the headers.
    pub standing: Standing,
}

impl Permit {
    /// Reserves `want` budget tokens or, if there is less, as much as there is but not under `least`.
    /// A refusal gives the call back: it never happened.
    pub fn reserve(mut self, least: u64, want: u64) -> Result<Reservation, Denied> {
        let Some(seat) = self.seat.take() else { return Err(spent_permit(self.standing)) };
        let account = Arc::clone(&seat.account);
        let mut books = account.lock();
        books.roll(account.clock.now_ms());
        let key_headroom = books.keys.get(seat.slot.0).and_then(KeyBooks::headroom).unwrap_or(u64::MAX);
        let tokens = books.wallet.available().unwrap_or(u64::MAX).min(key_headroom).min(want);
        let hold = if tokens < least { None } else { books.wallet.reserve(tokens) };
        let Some(hold) = hold else {
            let denied = books.tokens_used_up(seat.slot, &account.clock);
            books.leave(seat, true);
            return Err(denied);
        };
        let period = books.period;
        books.reserve(seat.slot, tokens);
        let standing = books.standing(self.standing.minute, &account.clock);
        let room = books.wallet.available().unwrap_or(u64::MAX).min(key_headroom - tokens);
        drop(books);
        Ok(Reservation { open: Some(Open { seat, hold, tokens, period }), used: None, room, standing })
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

impl KeyBooks {
    fn headroom(&self) -> Option<u64> {
        self.limits.tokens_per_month.remaining(self.spent.saturating_add(self.reserved))
    }
}

#[derive(Debug)]
struct Open {
    seat: Seat,
    hold: Hold,
    tokens: u64,
    /// The period the call began in: it settles there.
    period: Period,
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
        let key_headroom = books.keys.get(open.seat.slot.0).and_then(KeyBooks::headroom).unwrap_or(u64::MAX);
        if more > key_headroom || !books.wallet.extend(&mut open.hold, more) {
            return false;
        }
        books.reserve(open.seat.slot, more);
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
        let Some(open) = self.open.take() else { return };
        let account = Arc::clone(&open.seat.account);
        let mut books = account.lock();
        let charge = used.map_or(0, |used| used.budget);
        // What lies beyond the reservation is taken from what is left, or becomes a visible debt of the wallet.
        let _settled = books.wallet.settle(open.hold, charge);
        let charge_now = if open.period == books.period { charge } else { 0 };
        books.spend(open.seat.slot, open.tokens, charge_now);
        books.leave(open.seat, used.is_none());
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

/// A permit is consumed by its reservation, so this is never said; it is an answer rather than a panic.
fn spent_permit(standing: Standing) -> Denied {
    Denied {
        reason: Reason::Internal,
        message: Cow::Borrowed("The call was reserved for twice."),
        retry: Retry::Never,
        standing,
    }
}

/// Lots of the policy that the wallet does not know yet.
fn credit(wallet: &mut Wallet, policy: &TenantPolicy) {
    for lot in &policy.lots {
        // Known lots change nothing.
        wallet.credit(lot.clone());
    }
}

fn rate(limit: Limit, clock: &Clock) -> Option<Rate> {
    match limit {
        Limit::Unlimited => None,
        Limit::AtMost(per_minute) => Rate::new(per_minute, clock),
    }
}

fn resized(rate_now: Option<&Rate>, limit: Limit, clock: &Clock) -> Option<Rate> {
    match (rate_now, limit) {
        (Some(now), Limit::AtMost(per_minute)) => now.resized(per_minute),
        _ => rate(limit, clock),
    }
}

fn tighter(a: Option<Window>, b: Option<Window>) -> Option<Window> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.remaining < a.remaining { b } else { a }),
        (window, None) | (None, window) => window,
    }
}
