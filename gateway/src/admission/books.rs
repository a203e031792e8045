//! What lies behind an account's lock: counters, limiters, the wallet, the same per key, and the decisions on them.
//!
//! Plain functions of what they see; nothing in here waits, reads a clock or locks. A refusal is decided before
//! anything is written.

use std::collections::BTreeSet;
use std::time::Duration;

use relais_policies::TenantPolicy;
use relais_policies::limit::{Limit, Limits};
use relais_policies::meter::{Meter, Taken};
use relais_policies::period::{Anchor, Period};
use relais_policies::shadow::{Shadow, Shadowed};
use relais_policies::wallet::{GrantedAtMost, Wallet};

use crate::admission::account::{Call, Drained, Seat};
use crate::admission::alert::{SoftLevels, Told};
use crate::admission::rate::{Before, Checked, Rate};
use crate::admission::tally::{Models, Place, Tallies};
use crate::admission::{Delta, Denied, KeyLimits, KeySlot, Standing, Window};
use crate::clock::Clock;

const DAY_MS: i64 = 86_400_000;

#[derive(Debug)]
pub(super) struct Books {
    limits: Limits,
    shadow: Shadow,
    soft: SoftLevels,
    anchor: Anchor,
    pub(super) period: Period,
    /// Since when the period counts. Its start, unless the anchor was moved while it ran: then the count goes on
    /// under new dates, and this names it.
    pub(super) since_ms: i64,
    rate: Option<Rate>,
    pub(super) in_flight: u64,
    /// Calls admitted in this period that have not reserved yet: a crash forgets them.
    pub(super) waiting: u64,
    pub(super) calls: Meter,
    /// Conversations of this period, and those of them that are not certain yet.
    pub(super) conversations: Meter,
    pub(super) places: u64,
    /// Humans seen in this period.
    pub(super) humans: BTreeSet<u64>,
    pub(super) wallet: Wallet,
    /// Budget tokens spent since the period began, and those running calls hold: for the headers.
    pub(super) spent: u64,
    pub(super) reserved: u64,
    pub(super) keys: Vec<KeyBooks>,
    pub(super) models: Models,
    /// Keys that changed since the ledger last looked, each once.
    changed_keys: Vec<KeySlot>,
    /// The ledger knows that it has to look here.
    listed: bool,
    pub(super) told: Vec<Told>,
}

#[derive(Debug)]
pub(super) struct KeyBooks {
    pub(super) public_id: [u8; 12],
    pub(super) limits: KeyLimits,
    rate: Option<Rate>,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) calls: Meter,
    /// Budget tokens spent in this period, and those its running calls hold.
    pub(super) spent: u64,
    pub(super) reserved: u64,
    pub(super) tallies: Tallies,
    changed: bool,
}

impl Books {
    /// Nothing used.
    pub(super) fn new(policy: &TenantPolicy, clock: &Clock) -> Self {
        let now_ms = clock.now_ms();
        let period = policy.anchor.period_at(now_ms);
        Self {
            limits: policy.limits,
            shadow: policy.shadow,
            soft: SoftLevels::of(policy),
            anchor: policy.anchor,
            period,
            since_ms: period.start_ms,
            rate: rate(policy.limits.calls_per_minute, clock),
            in_flight: 0,
            waiting: 0,
            calls: Meter::new(period),
            conversations: Meter::new(period),
            places: 0,
            humans: BTreeSet::new(),
            wallet: Wallet::new(now_ms),
            spent: 0,
            reserved: 0,
            keys: Vec::new(),
            models: Models::new(),
            changed_keys: Vec::new(),
            listed: false,
            told: Vec::new(),
        }
    }

    /// Takes over a policy. What is used stays used.
    pub(super) fn apply(&mut self, policy: &TenantPolicy, clock: &Clock) {
        if self.limits.calls_per_minute != policy.limits.calls_per_minute {
            self.rate = resized(self.rate.as_ref(), policy.limits.calls_per_minute, clock);
        }
        self.anchor = policy.anchor;
        (self.limits, self.shadow) = (policy.limits, policy.shadow);
        self.soft = SoftLevels::of(policy);
        self.roll(clock.now_ms());
        self.wallet.set_grant(&self.period, grant(policy));
        credit(&mut self.wallet, policy);
    }

    /// The counters of a key, with these limits from now on.
    pub(super) fn key(&mut self, public_id: [u8; 12], limits: KeyLimits, clock: &Clock) -> KeySlot {
        if let Some(slot) = self.keys.iter().position(|key| key.public_id == public_id) {
            if let Some(key) = self.keys.get_mut(slot) {
                if key.limits.calls_per_minute != limits.calls_per_minute {
                    key.rate = resized(key.rate.as_ref(), limits.calls_per_minute, clock);
                }
                key.limits = limits;
            }
            return KeySlot(slot);
        }
        let rate = rate(limits.calls_per_minute, clock);
        self.put_key(KeyBooks::new(public_id, limits, rate, Meter::new(self.period)))
    }

    pub(super) fn put_key(&mut self, key: KeyBooks) -> KeySlot {
        self.keys.push(key);
        // So that no call has to.
        self.changed_keys.reserve(self.keys.len() - self.changed_keys.len());
        KeySlot(self.keys.len() - 1)
    }

    /// Into the period that holds now. Going back in time changes nothing.
    pub(super) fn roll(&mut self, now_ms: i64) {
        if now_ms >= self.period.end_ms {
            let period = self.anchor.period_at(now_ms);
            let starts_again = period.start_ms >= self.period.end_ms;
            // To the last moment of the old grant: only one that still runs can be given new dates.
            self.wallet.advance(self.period.end_ms - 1);
            self.period = period;
            self.calls.roll(period);
            self.conversations.roll(period);
            self.keys.iter_mut().for_each(|key| key.calls.roll(period));
            if starts_again {
                self.since_ms = period.start_ms;
                (self.spent, self.waiting, self.places) = (0, 0, 0);
                self.humans.clear();
                self.keys.iter_mut().for_each(|key| (key.spent, key.waiting) = (0, 0));
                self.told.clear();
            }
            self.wallet
                .set_grant(&period, enforced(self.limits.tokens_per_month, self.shadow, Shadowed::TokensPerMonth));
        }
        self.wallet.advance(now_ms);
    }

    /// Counts a call in, if no limit refuses; tells the limits in shadow that would have.
    pub(super) fn admit(&mut self, slot: KeySlot, clock: &Clock) -> Result<(Admitted, Option<Window>, Shadow), Denied> {
        let Some(key) = self.keys.get(slot.0) else { return Err(self.too_many_in_flight(slot, clock)) };
        let mut shadowed = Shadow::NONE;
        let mut passes = |allowed: bool, shadow: Shadow, limit: Shadowed| {
            let in_shadow = !allowed && shadow.has(limit);
            if in_shadow {
                shadowed.add(limit);
            }
            allowed || in_shadow
        };
        let own = &key.limits;
        if !passes(self.limits.calls_in_flight.allows(self.in_flight, 1), self.shadow, Shadowed::CallsInFlight)
            || !passes(own.calls_in_flight.allows(key.in_flight, 1), own.shadow, Shadowed::CallsInFlight)
        {
            return Err(self.too_many_in_flight(slot, clock));
        }
        if !passes(self.limits.calls_per_month.allows(self.calls.used(), 1), self.shadow, Shadowed::CallsPerMonth)
            || !passes(own.calls_per_month.allows(key.calls.used(), 1), own.shadow, Shadowed::CallsPerMonth)
        {
            return Err(self.calls_used_up(slot, clock));
        }
        let minute = match self.check_rates(slot, &mut shadowed) {
            Ok(minute) => minute,
            Err((window, wait)) => return Err(self.rate_limited(slot, window, wait, clock)),
        };
        // Nothing can refuse any more.
        let Some(admitted) = self.count_call(slot) else { return Err(self.calls_used_up(slot, clock)) };
        self.in_flight += 1;
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.in_flight += 1;
        }
        Ok((admitted, minute, shadowed))
    }

    /// Counts a call in this period, of the tenant and of the key, or of neither.
    fn count_call(&mut self, slot: KeySlot) -> Option<Admitted> {
        let key = self.keys.get_mut(slot.0)?;
        let key_limit = enforced(key.limits.calls_per_month, key.limits.shadow, Shadowed::CallsPerMonth);
        let limit = enforced(self.limits.calls_per_month, self.shadow, Shadowed::CallsPerMonth);
        let key_taken = key.calls.take(key_limit, self.period).ok()?;
        let Ok(taken) = self.calls.take(limit, self.period) else {
            key.calls.give_back(key_taken);
            return None;
        };
        key.waiting += 1;
        self.waiting += 1;
        Some(Admitted { taken, key_taken, since_ms: self.since_ms })
    }

    /// A call that was admitted is sent now, in this period. `false`: it was admitted in the one before, and this
    /// one has no call left for it.
    pub(super) fn begin(&mut self, seat: &mut Seat) -> bool {
        if seat.admitted.since_ms != self.since_ms {
            // What was counted in the period before is past giving back.
            let Some(admitted) = self.count_call(seat.slot) else { return false };
            seat.admitted = admitted;
        }
        true
    }

    /// Takes note that a call is no longer only admitted.
    fn waits_no_more(&mut self, seat: &mut Seat) {
        if std::mem::take(&mut seat.waits) && seat.admitted.since_ms == self.since_ms {
            self.waiting = self.waiting.saturating_sub(1);
            if let Some(key) = self.keys.get_mut(seat.slot.0) {
                key.waiting = key.waiting.saturating_sub(1);
            }
        }
    }

    /// The tenant's rate, then the key's; what the first took goes back if the second refuses.
    fn check_rates(&self, slot: KeySlot, shadowed: &mut Shadow) -> Result<Option<Window>, (Window, Duration)> {
        let before: Option<(&Rate, Before)> = self.rate.as_ref().map(|rate| (rate, rate.before()));
        let mut take = |rate: &Rate, shadow: Shadow| match rate.check() {
            Checked::Taken(window) => Ok(window),
            Checked::Refused(window, _) if shadow.has(Shadowed::CallsPerMinute) => {
                shadowed.add(Shadowed::CallsPerMinute);
                Ok(window)
            }
            Checked::Refused(window, wait) => Err((window, wait)),
        };
        let tenant = self.rate.as_ref().map(|rate| take(rate, self.shadow)).transpose()?;
        let key = self.keys.get(slot.0).and_then(|key| Some((key.rate.as_ref()?, key.limits.shadow)));
        match key.map(|(rate, shadow)| take(rate, shadow)).transpose() {
            Ok(key) => Ok(tighter(tenant, key)),
            Err(refused) => {
                if let Some((rate, before)) = before {
                    rate.put_back(before);
                }
                Err(refused)
            }
        }
    }

    pub(super) fn look(&self, slot: KeySlot) -> Option<Window> {
        let key = self.keys.get(slot.0).and_then(|key| key.rate.as_ref()).map(Rate::look);
        tighter(self.rate.as_ref().map(Rate::look), key)
    }

    /// What is left, of the tenant's limits or of the key's own where there is less.
    pub(super) fn standing(&self, slot: KeySlot, minute: Option<Window>, clock: &Clock) -> Standing {
        let reset_ms = u64::try_from(self.period.end_ms.saturating_sub(clock.now_ms())).unwrap_or(0);
        let window = |limit: Limit, used: u64| match limit {
            Limit::Unlimited => None,
            Limit::AtMost(limit) => Some(Window { limit, remaining: limit.saturating_sub(used), reset_ms }),
        };
        let (remaining, over) = match self.in_shadow() {
            Some(shadow) => (Some(shadow.available), shadow.over),
            None => (self.wallet.available(), 0),
        };
        let tokens = remaining.map(|remaining| Window {
            limit: self.spent.saturating_add(self.reserved).saturating_add(remaining).saturating_sub(over),
            remaining,
            reset_ms,
        });
        let calls = window(self.limits.calls_per_month, self.calls.used());
        let Some(key) = self.keys.get(slot.0) else { return Standing { minute, calls, tokens } };
        Standing {
            minute,
            calls: tighter(calls, window(key.limits.calls_per_month, key.calls.used())),
            tokens: tighter(tokens, window(key.limits.tokens_per_month, key.held())),
        }
    }

    /// How the budget would stand if it were not in shadow. `None`: it is not, or has no limit.
    fn in_shadow(&self) -> Option<GrantedAtMost> {
        match self.limits.tokens_per_month {
            Limit::AtMost(most) if self.shadow.has(Shadowed::TokensPerMonth) => Some(self.wallet.granted_at_most(most)),
            _ => None,
        }
    }

    /// Budget tokens the key may still reserve, whatever its tenant has.
    pub(super) fn key_headroom(&self, slot: KeySlot) -> u64 {
        let remaining = |key: &KeyBooks| {
            enforced(key.limits.tokens_per_month, key.limits.shadow, Shadowed::TokensPerMonth).remaining(key.held())
        };
        self.keys.get(slot.0).and_then(remaining).unwrap_or(u64::MAX)
    }

    /// Budget tokens that could be reserved if nothing were in shadow. `None`: nothing is, or there is no limit.
    pub(super) fn tokens_left_unshadowed(&self, slot: KeySlot) -> Option<u64> {
        let key = self.keys.get(slot.0).filter(|key| key.limits.shadow.has(Shadowed::TokensPerMonth));
        let key_left = key.and_then(|key| key.limits.tokens_per_month.remaining(key.held()));
        [key_left, self.in_shadow().map(|shadow| shadow.available)].into_iter().flatten().min()
    }

    /// Enters a call that has reserved. Returns where it is counted.
    pub(super) fn enter(&mut self, seat: &mut Seat, call: Call<'_>, tokens: u64, now_ms: i64) -> Place {
        self.waits_no_more(seat);
        let place = self.place(call, now_ms);
        self.reserved = self.reserved.saturating_add(tokens);
        if let Some(key) = self.keys.get_mut(seat.slot.0) {
            key.reserved = key.reserved.saturating_add(tokens);
            key.tallies.begin(place, tokens);
        }
        place
    }

    /// Enters what was used without a call of its own.
    pub(super) fn add(&mut self, slot: KeySlot, call: Call<'_>, used: super::Use, now_ms: i64) {
        let place = self.place(call, now_ms);
        let _settled = self.wallet.charge(used.budget);
        self.spent = self.spent.saturating_add(used.budget);
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.spent = key.spent.saturating_add(used.budget);
            key.tallies.add(place, &used.into());
        }
    }

    fn place(&mut self, call: Call<'_>, now_ms: i64) -> Place {
        Place {
            model: self.models.id(call.model),
            kind: call.kind,
            period_ms: self.since_ms,
            day: now_ms.div_euclid(DAY_MS),
        }
    }

    /// A running call holds more.
    pub(super) fn extend(&mut self, slot: KeySlot, place: Place, more: u64) {
        self.reserved = self.reserved.saturating_add(more);
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.reserved = key.reserved.saturating_add(more);
            key.tallies.extend(place, more);
        }
    }

    /// A call that held so much is over. `None`: it came to nothing. What it spent counts in the period it began in.
    pub(super) fn end(&mut self, slot: KeySlot, place: Place, reserved: u64, used: Option<super::Use>) {
        let spent = used.filter(|_| place.period_ms == self.since_ms).map_or(0, |used| used.budget);
        self.reserved = self.reserved.saturating_sub(reserved);
        self.spent = self.spent.saturating_add(spent);
        if let Some(key) = self.keys.get_mut(slot.0) {
            key.reserved = key.reserved.saturating_sub(reserved);
            key.spent = key.spent.saturating_add(spent);
            key.tallies.end(place, reserved, used);
        }
    }

    /// Gives the seat back, and the calls too if the call came to nothing.
    pub(super) fn leave(&mut self, mut seat: Seat, came_to_nothing: bool) {
        self.waits_no_more(&mut seat);
        let Admitted { taken, key_taken, .. } = seat.admitted;
        self.in_flight = self.in_flight.saturating_sub(1);
        if came_to_nothing {
            self.calls.give_back(taken);
        }
        if let Some(key) = self.keys.get_mut(seat.slot.0) {
            key.in_flight = key.in_flight.saturating_sub(1);
            if came_to_nothing {
                key.calls.give_back(key_taken);
            }
        }
    }

    /// Takes note that a key has something to tell. `true`: and the ledger does not know yet.
    pub(super) fn mark_changed(&mut self, slot: KeySlot) -> bool {
        if let Some(key) = self.keys.get_mut(slot.0)
            && !std::mem::replace(&mut key.changed, true)
        {
            self.changed_keys.push(slot);
        }
        self.mark_listed()
    }

    /// Takes note that there is something to tell. `true`: and the ledger does not know yet.
    pub(super) fn mark_listed(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// Whether there is something to tell.
    pub(super) fn has_changed(&self) -> bool {
        self.listed
    }

    /// What happened since the last time, and how things stand: taken together, so that they agree.
    pub(super) fn drain(&mut self) -> Drained {
        self.listed = false;
        let mut changed = std::mem::take(&mut self.changed_keys);
        let (mut deltas, mut keys) = (Vec::with_capacity(changed.len()), Vec::with_capacity(changed.len()));
        for slot in changed.drain(..) {
            let (Some(key), models) = (self.keys.get_mut(slot.0), &self.models) else { continue };
            key.changed = false;
            let public_id = key.public_id;
            key.tallies.drain(|place, counts| {
                deltas.push(Delta {
                    key: public_id,
                    model: models.name(place.model),
                    kind: place.kind,
                    period_ms: place.period_ms,
                    day: place.day,
                    counts,
                });
            });
            keys.push((public_id, key.state(self.since_ms, |place| models.name(place.model))));
        }
        self.changed_keys = changed;
        self.models.make_room(self.keys.iter().flat_map(|key| key.tallies.iter()));
        let alerts = self.alerts();
        Drained { deltas, account: self.state(), keys, alerts }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn shadow(&self) -> Shadow {
        self.shadow
    }

    pub(super) fn soft(&self) -> SoftLevels {
        self.soft
    }
}

impl KeyBooks {
    /// Budget tokens of this period that are spent, or that running calls hold.
    fn held(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }

    pub(super) fn new(public_id: [u8; 12], limits: KeyLimits, rate: Option<Rate>, calls: Meter) -> Self {
        Self {
            public_id,
            limits,
            rate,
            in_flight: 0,
            waiting: 0,
            calls,
            spent: 0,
            reserved: 0,
            tallies: Tallies::default(),
            changed: false,
        }
    }
}

/// A call that was counted.
#[derive(Debug)]
pub(super) struct Admitted {
    taken: Taken,
    key_taken: Taken,
    /// In the period that counts since then.
    since_ms: i64,
}

/// Lots of the policy that the wallet does not know yet.
pub(super) fn credit(wallet: &mut Wallet, policy: &TenantPolicy) {
    for lot in &policy.lots {
        // Known lots change nothing.
        wallet.credit(lot.clone());
    }
}

/// A limit as it is enforced: one in shadow refuses nobody.
pub(super) fn enforced(limit: Limit, shadow: Shadow, name: Shadowed) -> Limit {
    if shadow.has(name) { Limit::Unlimited } else { limit }
}

/// The month's grant. One in shadow is granted as it is used, so that what is beyond the limit makes no debt.
pub(super) fn grant(policy: &TenantPolicy) -> Limit {
    enforced(policy.limits.tokens_per_month, policy.shadow, Shadowed::TokensPerMonth)
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
