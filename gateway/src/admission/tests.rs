//! The account, held against a model of what must be true after every step, in any order of steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use relais_policies::TenantPolicy;
use relais_policies::limit::{Limit, Overrides};
use relais_policies::plan::Catalog;
use relais_policies::shadow::{Shadow, Shadowed};
use relais_policies::tenant::TenantSpec;
use relais_policies::wallet::{LotKind, NewLot};

use super::{Account, AccountState, Call, Counts, Journal, KeyLimits, KeySlot, KeyState, Kind, Past};
use super::{Permit, Reservation, Use};
use crate::clock::Clock;
use crate::error::Reason;

const DAY: Duration = Duration::from_hours(24);
const KEYS: [[u8; 12]; 2] = [*b"first_key_00", *b"second_key_0"];
const CALL: Call<'_> = Call { model: "llama", kind: Kind::Chat };

struct Limits {
    tokens: Limit,
    calls: Limit,
    in_flight: Limit,
    per_minute: Limit,
    packs: &'static [(&'static str, u64, Option<i64>)],
    shadow: &'static [Shadowed],
}

const ROOMY: Limits = Limits {
    tokens: Limit::AtMost(1_000),
    calls: Limit::AtMost(1_000),
    in_flight: Limit::AtMost(1_000),
    per_minute: Limit::Unlimited,
    packs: &[],
    shadow: &[],
};

fn policy(limits: &Limits) -> TenantPolicy {
    let lot = |&(source, granted, expires_at_ms): &(&str, u64, Option<i64>)| NewLot {
        kind: LotKind::Pack,
        granted,
        priority: None,
        effective_at_ms: None,
        expires_at_ms,
        source: source.to_owned(),
    };
    let spec = TenantSpec {
        tenant_id: "acme".to_owned(),
        overrides: Overrides {
            tokens_per_month: Some(limits.tokens),
            calls_per_month: Some(limits.calls),
            calls_in_flight: Some(limits.in_flight),
            calls_per_minute: Some(limits.per_minute),
            ..Overrides::default()
        },
        shadow: limits.shadow.iter().copied().collect(),
        lots: limits.packs.iter().map(lot).collect(),
        ..TenantSpec::default()
    };
    TenantPolicy::compile(Catalog::embedded(), &spec).unwrap()
}

fn account(limits: &Limits, clock: &Clock) -> (Arc<Account>, Arc<Journal>) {
    let journal = Arc::new(Journal::default());
    (Account::new("acme".into(), &policy(limits), clock.clone(), &journal), journal)
}

fn used(budget: u64) -> Use {
    Use { budget, input: budget, output: 1, ..Use::default() }
}

/// A call that ended and was charged, or one that runs and holds as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    key: usize,
    since_ms: i64,
    tokens: u64,
}

/// What a flush put on the disk.
#[derive(Default)]
struct Disk {
    account: Option<String>,
    keys: BTreeMap<[u8; 12], String>,
    ended: Vec<Known>,
    running: Vec<Known>,
}

/// The account, and beside it what must be true of it.
struct World {
    clock: Clock,
    account: Arc<Account>,
    journal: Arc<Journal>,
    limits: usize,
    slots: [KeySlot; 2],
    permits: Vec<(usize, i64, Permit)>,
    running: Vec<(usize, i64, Reservation)>,
    ended: Vec<Known>,
    /// Told to the ledger, and written.
    written: BTreeMap<([u8; 12], i64), Counts>,
    disk: Disk,
}

/// What a tenant's plan may become.
const PLANS: [Limits; 5] = [
    Limits { in_flight: Limit::AtMost(4), calls: Limit::AtMost(12), per_minute: Limit::AtMost(9), ..ROOMY },
    Limits { tokens: Limit::AtMost(300), packs: &[("gift", 150, Some(1_000_000_000)), ("pack", 200, None)], ..ROOMY },
    Limits { tokens: Limit::Unlimited, calls: Limit::AtMost(30), ..ROOMY },
    Limits { tokens: Limit::ZERO, calls: Limit::Unlimited, packs: &[("pack", 200, None), ("more", 70, None)], ..ROOMY },
    Limits {
        tokens: Limit::AtMost(100),
        calls: Limit::AtMost(3),
        in_flight: Limit::AtMost(1),
        per_minute: Limit::AtMost(2),
        packs: &[("pack", 200, None)],
        shadow: &Shadowed::ALL,
    },
];
/// Of the second key, below its tenant's.
const KEY_LIMITS: KeyLimits = KeyLimits {
    calls_per_minute: Limit::AtMost(5),
    calls_per_month: Limit::AtMost(8),
    calls_in_flight: Limit::AtMost(2),
    tokens_per_month: Limit::AtMost(250),
    ..KeyLimits::NONE
};

impl World {
    fn new() -> Self {
        let clock = Clock::manual(1_000_000);
        let (account, journal) = account(&PLANS[0], &clock);
        let slots = slots(&account);
        Self {
            clock,
            account,
            journal,
            limits: 0,
            slots,
            permits: Vec::new(),
            running: Vec::new(),
            ended: Vec::new(),
            written: BTreeMap::new(),
            disk: Disk::default(),
        }
    }

    fn step(&mut self, step: u8, pick: u16, amount: u64) {
        let pick = usize::from(pick);
        match step {
            0..3 => self.admit(pick % 2),
            3..6 if !self.permits.is_empty() => self.reserve(pick, amount),
            6 if !self.permits.is_empty() => drop(take(&mut self.permits, pick)),
            7..9 if !self.running.is_empty() => {
                let (key, since_ms, call) = take(&mut self.running, pick);
                self.ended.push(Known { key, since_ms, tokens: amount });
                call.settle(used(amount));
            }
            9 if !self.running.is_empty() => {
                // Cut off; sometimes after something was counted.
                let (key, since_ms, mut call) = take(&mut self.running, pick);
                let mut tokens = call.tokens();
                if amount.is_multiple_of(2) {
                    tokens = amount / 2;
                    call.count(used(tokens));
                }
                self.ended.push(Known { key, since_ms, tokens });
                drop(call);
            }
            10 if !self.running.is_empty() => take(&mut self.running, pick).2.release(),
            11..13 if !self.running.is_empty() => {
                let index = pick % self.running.len();
                let call = &mut self.running[index].2;
                let before = call.tokens();
                let extended = call.extend(amount);
                assert_eq!(call.tokens(), before + if extended { amount } else { 0 });
            }
            13 => self.clock.advance(Duration::from_secs(amount % 40)),
            14 if pick % 3 == 0 => self.clock.advance(DAY * 12),
            15 => {
                self.limits = pick % PLANS.len();
                self.account.apply(&policy(&PLANS[self.limits]));
            }
            16 => self.flush(),
            17 if pick % 2 == 0 => self.crash(),
            _ => {}
        }
    }

    fn admit(&mut self, key: usize) {
        // So that the step itself does not roll a period over.
        let _standing = self.account.standing(self.slots[key]);
        let before = self.snapshot();
        match self.account.admit(self.slots[key]) {
            Ok(permit) => {
                let since_ms = self.account.lock().since_ms;
                self.permits.push((key, since_ms, permit));
            }
            Err(_) => assert_eq!(self.snapshot(), before, "a refusal cost something"),
        }
    }

    fn reserve(&mut self, pick: usize, amount: u64) {
        let (key, _, permit) = take(&mut self.permits, pick);
        let _standing = self.account.standing(self.slots[key]);
        let wallet = self.account.lock().wallet.state();
        match permit.reserve(CALL, amount / 2, amount) {
            Ok(call) => {
                assert!(call.tokens() >= amount / 2 && call.tokens() <= amount);
                let since_ms = self.account.lock().since_ms;
                self.running.push((key, since_ms, call));
            }
            Err(denied) => {
                assert!(matches!(denied.reason, Reason::TokensUsedUp | Reason::CallsUsedUp));
                assert_eq!(self.account.lock().wallet.state(), wallet);
            }
        }
    }

    /// Everything a refusal could change, rates included.
    fn snapshot(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let books = self.account.lock();
        let keys: Vec<_> = books.keys.iter().map(|key| (key.in_flight, key.calls.used(), key.waiting)).collect();
        let rates = self.slots.map(|slot| books.look(slot));
        (books.state(), keys, rates, books.in_flight, books.calls.used(), books.waiting)
    }

    fn flush(&mut self) {
        let drained = self.account.drain();
        for delta in drained.deltas {
            self.written.entry((delta.key, delta.period_ms)).or_default().add(&delta.counts);
        }
        self.disk.account = Some(serde_json::to_string(&drained.account).unwrap());
        for (key, state) in drained.keys {
            self.disk.keys.insert(key, serde_json::to_string(&state).unwrap());
        }
        self.disk.ended.clone_from(&self.ended);
        self.disk.running = self.running();
    }

    /// The process dies, and another starts from the disk.
    fn crash(&mut self) {
        let Some(state) = &self.disk.account else { return };
        let state: AccountState = serde_json::from_str(state).unwrap();
        let keys = self.disk.keys.iter().map(|(key, state)| (*key, serde_json::from_str::<KeyState>(state).unwrap()));
        self.journal = Arc::default();
        self.journal.remember("acme".into(), Past::checkpoint(state, keys.collect()).unwrap());
        let policy = policy(&PLANS[self.limits]);
        self.account = Account::new("acme".into(), &policy, self.clock.clone(), &self.journal);
        assert_eq!(self.journal.take_changed().len(), usize::from(!self.disk.running.is_empty()));
        self.slots = slots(&self.account);
        // They end in the account of the dead.
        self.permits.clear();
        self.running.clear();
        self.ended = self.disk.ended.iter().chain(&self.disk.running).copied().collect();
        let _standing = self.account.standing(self.slots[0]);
        self.flush();
    }

    fn running(&self) -> Vec<Known> {
        let known =
            |&(key, since_ms, ref call): &(usize, i64, Reservation)| Known { key, since_ms, tokens: call.tokens() };
        self.running.iter().map(known).collect()
    }

    fn check(&self) {
        let books = self.account.lock();
        let (since_ms, running) = (books.since_ms, self.running());
        let wallet = books.wallet.books();
        assert_eq!(
            wallet.granted + wallet.debt,
            wallet.spent + wallet.expired + wallet.reserved + wallet.available,
            "{wallet:?}"
        );
        let total = |known: &[Known]| known.iter().map(|known| u128::from(known.tokens)).sum::<u128>();
        assert_eq!(wallet.reserved, total(&running));
        assert_eq!(u128::from(books.reserved), total(&running));
        assert_eq!(wallet.spent, total(&self.ended));
        assert_eq!(books.in_flight, (self.permits.len() + running.len()) as u64);
        let spent = |key: Option<usize>| -> u64 {
            let counts = |known: &&Known| known.since_ms == since_ms && key.is_none_or(|key| key == known.key);
            self.ended.iter().filter(counts).map(|known| known.tokens).sum()
        };
        assert_eq!(books.spent, spent(None));
        let waiting = self.permits.iter().filter(|(_, since, _)| *since == since_ms).count() as u64;
        let calls = self.ended.iter().chain(&running).filter(|known| known.since_ms == since_ms).count() as u64;
        assert_eq!((books.waiting, books.calls.used()), (waiting, waiting + calls));
        for (key, public_id) in KEYS.iter().enumerate() {
            let own = |known: &&Known| known.key == key;
            let state = &books.keys[self.slots[key].0];
            assert_eq!(state.spent, spent(Some(key)));
            assert_eq!(state.reserved, running.iter().filter(own).map(|known| known.tokens).sum::<u64>());
            let mut told: u64 = state.tallies.iter().map(|tally| tally.done.budget_tokens).sum();
            let mut told_calls: u64 = state.tallies.iter().map(|tally| tally.done.calls).sum();
            for counts in self.written.iter().filter(|((id, _), _)| id == public_id).map(|(_, counts)| counts) {
                told += counts.budget_tokens;
                told_calls += counts.calls;
            }
            assert_eq!(told, self.ended.iter().filter(own).map(|known| known.tokens).sum::<u64>());
            assert_eq!(told_calls, self.ended.iter().filter(own).count() as u64);
            assert_eq!(state.tallies.iter().map(|tally| tally.open_tokens).sum::<u64>(), state.reserved);
        }
    }
}

fn slots(account: &Account) -> [KeySlot; 2] {
    [account.key(KEYS[0], KeyLimits::NONE), account.key(KEYS[1], KEY_LIMITS)]
}

fn take<T>(from: &mut Vec<T>, pick: usize) -> T {
    from.swap_remove(pick % from.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every token and call is somewhere, once, after every step: admitted, reserved, extended, settled, dropped,
    /// released, over the turn of months, under changing plans, written down, and through crashes.
    #[test]
    fn the_books_balance_at_every_step(steps in prop::collection::vec((0_u8..18, any::<u16>(), 0_u64..160), 1..150)) {
        let mut world = World::new();
        for (step, pick, amount) in steps {
            world.step(step, pick, amount);
            world.check();
        }
        world.permits.clear();
        while !world.running.is_empty() {
            world.step(7, 0, 1);
        }
        world.check();
        let books = world.account.lock();
        assert_eq!((books.reserved, books.in_flight, books.waiting), (0, 0, 0));
    }
}

#[test]
fn a_refusal_is_free_whatever_refuses() {
    let check = |limits: Limits, key_limits: KeyLimits, expected: Reason| {
        let clock = Clock::manual(0);
        let (account, _journal) = account(&limits, &clock);
        let slot = account.key(KEYS[0], key_limits);
        let running = account.admit(slot).unwrap().reserve(CALL, 1, 10).unwrap();
        let state = || {
            let books = account.lock();
            (books.state(), books.look(slot), books.in_flight, books.keys[0].calls.used(), books.keys[0].in_flight)
        };
        let before = state();
        for _ in 0..5 {
            let denied = match account.admit(slot) {
                Err(denied) => denied,
                Ok(permit) => permit.reserve(CALL, 2_000, 3_000).unwrap_err(),
            };
            assert_eq!(denied.reason, expected);
            assert_eq!(state(), before, "{expected:?}");
        }
        running.settle(used(10));
    };
    let one = Limit::AtMost(1);
    check(Limits { in_flight: one, per_minute: Limit::AtMost(9), ..ROOMY }, KeyLimits::NONE, Reason::TooManyInFlight);
    check(Limits { calls: one, per_minute: Limit::AtMost(9), ..ROOMY }, KeyLimits::NONE, Reason::CallsUsedUp);
    check(Limits { per_minute: one, ..ROOMY }, KeyLimits::NONE, Reason::RateLimited);
    check(ROOMY, KeyLimits::NONE, Reason::TokensUsedUp);
    let tight = |limits| (Limits { per_minute: Limit::AtMost(9), ..ROOMY }, limits);
    let (limits, key) = tight(KeyLimits { calls_per_minute: one, ..KeyLimits::NONE });
    check(limits, key, Reason::RateLimited);
    let (limits, key) = tight(KeyLimits { calls_per_month: one, ..KeyLimits::NONE });
    check(limits, key, Reason::CallsUsedUp);
    let (limits, key) = tight(KeyLimits { calls_in_flight: one, ..KeyLimits::NONE });
    check(limits, key, Reason::TooManyInFlight);
}

#[test]
fn a_limit_in_shadow_counts_and_tells_and_refuses_nobody() {
    let clock = Clock::manual(0);
    let one = Limit::AtMost(1);
    let limits = Limits {
        tokens: Limit::AtMost(100),
        calls: one,
        in_flight: one,
        per_minute: one,
        shadow: &Shadowed::ALL,
        ..ROOMY
    };
    let (account, _journal) = account(&limits, &clock);
    let slot = account.key(KEYS[0], KeyLimits::NONE);
    let first = account.admit(slot).unwrap();
    assert_eq!(first.shadowed, Shadow::NONE);
    let first = first.reserve(CALL, 10, 80).unwrap();
    assert_eq!((first.shadowed, first.tokens(), first.standing.tokens.unwrap().remaining), (Shadow::NONE, 80, 20));
    let second = account.admit(slot).unwrap();
    let met: Vec<_> = second.shadowed.iter().collect();
    assert_eq!(met, [Shadowed::CallsPerMinute, Shadowed::CallsPerMonth, Shadowed::CallsInFlight]);
    let second = second.reserve(CALL, 30, 50).unwrap();
    assert_eq!(second.shadowed.iter().collect::<Vec<_>>(), [Shadowed::TokensPerMonth]);
    // What is left is told as it would be enforced.
    let standing = second.standing;
    assert_eq!(second.tokens(), 50);
    assert_eq!((standing.minute.unwrap().remaining, standing.calls.unwrap().remaining), (0, 0));
    assert_eq!((standing.tokens.unwrap().limit, standing.tokens.unwrap().remaining), (100, 0));
    first.settle(used(80));
    second.settle(used(60));
    {
        let books = account.lock();
        assert_eq!((books.spent, books.calls.used(), books.wallet.debt()), (140, 2, 0));
    }
    // Out of the shadow it is enforced on what was used, and what was beyond it is not owed.
    account.apply(&policy(&Limits { shadow: &[], ..limits }));
    assert_eq!(account.admit(slot).unwrap_err().reason, Reason::CallsUsedUp);
    account.apply(&policy(&Limits { calls: Limit::Unlimited, per_minute: Limit::Unlimited, shadow: &[], ..limits }));
    assert_eq!(account.admit(slot).unwrap().reserve(CALL, 1, 1).unwrap_err().reason, Reason::TokensUsedUp);
    clock.advance(DAY * 31);
    assert_eq!(account.standing(slot).tokens.unwrap().remaining, 100);
}

#[test]
fn packs_pay_for_what_a_grant_in_shadow_would_not_have_covered() {
    let limits = Limits {
        tokens: Limit::AtMost(100),
        packs: &[("pack", 50, None)],
        shadow: &[Shadowed::TokensPerMonth],
        ..ROOMY
    };
    let (account, _journal) = account(&limits, &Clock::manual(0));
    let slot = account.key(KEYS[0], KeyLimits::NONE);
    account.admit(slot).unwrap().reserve(CALL, 1, 120).unwrap().settle(used(120));
    let tokens = account.standing(slot).tokens.unwrap();
    assert_eq!((tokens.limit, tokens.remaining), (150, 30));
}

#[test]
fn a_key_s_shadow_is_about_its_own_limits() {
    let (account, _journal) = account(&ROOMY, &Clock::manual(0));
    let one = Limit::AtMost(1);
    let shadow = [Shadowed::CallsPerMonth, Shadowed::TokensPerMonth].into_iter().collect();
    let limits = KeyLimits { calls_per_month: one, tokens_per_month: Limit::AtMost(10), shadow, ..KeyLimits::NONE };
    let slot = account.key(KEYS[0], limits);
    account.admit(slot).unwrap().reserve(CALL, 1, 10).unwrap().settle(used(10));
    let permit = account.admit(slot).unwrap();
    assert_eq!(permit.shadowed.iter().collect::<Vec<_>>(), [Shadowed::CallsPerMonth]);
    let call = permit.reserve(CALL, 20, 40).unwrap();
    assert_eq!((call.tokens(), call.shadowed.iter().collect::<Vec<_>>()), (40, vec![Shadowed::TokensPerMonth]));
    assert_eq!(call.standing.tokens.unwrap().remaining, 0, "the key's own");
    call.settle(used(40));
    // The tenant's are enforced all the same.
    assert_eq!(account.admit(slot).unwrap().reserve(CALL, 2_000, 2_000).unwrap_err().reason, Reason::TokensUsedUp);
}

#[test]
fn a_call_over_the_turn_of_the_month_settles_in_the_month_it_began_in() {
    let clock = Clock::manual(0);
    clock.advance(DAY * 30);
    let (account, _journal) = account(&Limits { calls: Limit::AtMost(10), ..ROOMY }, &clock);
    let slot = account.key(KEYS[0], KeyLimits::NONE);
    let mut running = account.admit(slot).unwrap().reserve(CALL, 1, 300).unwrap();
    let waiting = account.admit(slot).unwrap();
    let january = account.lock().since_ms;
    clock.advance(DAY * 2);
    let standing = account.standing(slot);
    assert_eq!((standing.calls.unwrap().remaining, standing.tokens.unwrap().remaining), (10, 1_000));
    // What grows in February is February's tokens; the use is January's.
    assert!(running.extend(100));
    running.settle(used(350));
    let standing = account.standing(slot);
    assert_eq!((standing.calls.unwrap().remaining, standing.tokens.unwrap().remaining), (10, 950));
    // A body that took its time: the call is sent in February, and counts there.
    waiting.reserve(CALL, 1, 40).unwrap().settle(used(40));
    let standing = account.standing(slot);
    assert_eq!((standing.calls.unwrap().remaining, standing.tokens.unwrap().remaining), (9, 910));
    let february = account.lock().since_ms;
    let told: Vec<_> =
        account.drain().deltas.iter().map(|delta| (delta.period_ms, delta.counts.budget_tokens)).collect();
    assert_eq!(told, [(january, 350), (february, 40)]);
}

#[test]
fn a_moved_anchor_counts_on() {
    let clock = Clock::manual(0);
    let (account, _journal) = account(&ROOMY, &clock);
    let slot = account.key(KEYS[0], KeyLimits::NONE);
    account.admit(slot).unwrap().reserve(CALL, 1, 100).unwrap().settle(used(100));
    let mut moved = policy(&ROOMY);
    moved.anchor = relais_policies::Anchor::on_day(15).unwrap();
    account.apply(&moved);
    clock.advance(DAY * 31);
    let standing = account.standing(slot);
    assert_eq!(standing.calls.unwrap().remaining, 999);
    assert_eq!(standing.tokens.unwrap(), super::Window { limit: 1_000, remaining: 900, ..standing.tokens.unwrap() });
    assert_eq!(account.drain().account.since_ms, 0);
    clock.advance(DAY * 15);
    assert_eq!(account.standing(slot).tokens.unwrap().remaining, 1_000);
}

#[test]
fn threads_cannot_overspend_together_and_the_books_balance() {
    let limits =
        Limits { tokens: Limit::AtMost(200_000), calls: Limit::Unlimited, packs: &[("pack", 50_000, None)], ..ROOMY };
    let (account, journal) = account(&limits, &Clock::system());
    let slots = slots(&account);
    account.key(KEYS[1], KeyLimits::NONE);
    let (spent, told, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let drain = || {
        for account in journal.take_changed() {
            let tokens = account.drain().deltas.iter().map(|delta| delta.counts.budget_tokens).sum();
            told.fetch_add(tokens, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8_usize)
            .map(|worker| {
                let (account, spent) = (&account, &spent);
                scope.spawn(move || {
                    let mut seed = worker as u64 + 1;
                    loop {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let draw = seed >> 33;
                        let Ok(permit) = account.admit(slots[worker % 2]) else { continue };
                        let Ok(mut call) = permit.reserve(CALL, 1, draw % 50 + 1) else { return };
                        call.extend(draw % 7);
                        let reserved = call.tokens();
                        match draw % 4 {
                            0 => call.release(),
                            1 => {
                                spent.fetch_add(reserved, Ordering::Relaxed);
                                drop(call);
                            }
                            _ => {
                                spent.fetch_add(reserved / 2 + 1, Ordering::Relaxed);
                                call.settle(used(reserved / 2 + 1));
                            }
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drain();
                account.apply(&policy(&limits));
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    drain();
    let books = account.lock();
    let (spent, wallet) = (spent.into_inner(), books.wallet.books());
    assert_eq!((books.reserved, books.in_flight, books.waiting, wallet.debt), (0, 0, 0, 0));
    // A worker ends when there is nothing left to reserve, and one of the others may give something back after it.
    assert!(spent <= 250_000 && spent > 250_000 - 8 * 60, "{spent}");
    assert_eq!((wallet.spent, told.into_inner()), (u128::from(spent), spent));
}

#[test]
fn only_accounts_that_changed_are_asked() {
    let journal = Arc::new(Journal::default());
    let policy = policy(&ROOMY);
    let accounts: Vec<_> = (0..1_000)
        .map(|number| Account::new(format!("t{number}").into(), &policy, Clock::manual(0), &journal))
        .collect();
    assert!(journal.take_changed().is_empty());
    let slot = accounts[7].key(KEYS[0], KeyLimits::NONE);
    for _ in 0..3 {
        accounts[7].admit(slot).unwrap().reserve(CALL, 1, 10).unwrap().settle(used(4));
    }
    drop(accounts[7].admit(slot).unwrap());
    let changed = journal.take_changed();
    assert_eq!(changed.iter().map(|account| &**account.tenant_id()).collect::<Vec<_>>(), ["t7"]);
    assert_eq!(changed[0].drain().deltas[0].counts.calls, 3);
    // A tenant that is taken out of the configuration is told to the end.
    accounts[7].admit(slot).unwrap().reserve(CALL, 1, 10).unwrap().settle(used(4));
    drop((accounts, changed));
    assert_eq!(journal.take_changed()[0].drain().deltas[0].counts.budget_tokens, 4);
}
