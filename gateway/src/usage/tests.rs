//! The ledger on a real file: what it brings back, what a crash forgets, and what it does when the disk refuses.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use relais_policies::TenantPolicy;
use relais_policies::limit::{Limit, Overrides};
use relais_policies::plan::{Catalog, PlanCode};
use relais_policies::tenant::TenantSpec;
use relais_policies::wallet::{LotKind, NewLot};
use rusqlite::Connection;
use tempfile::TempDir;

use super::report::{Arguments, Column, Format};
use super::{Ledger, LedgerError, UsageRow, report};
use crate::admission::{Account, Call, KeyLimits, KeySlot, Kind, Reservation, Standing, Use};
use crate::clock::Clock;
use crate::config;
use crate::error::Reason;
use crate::metrics::Metrics;

const KEY: [u8; 12] = *b"000000000001";
const LLAMA: Call<'_> = Call { model: "llama", kind: Kind::Chat };
/// 2026-11-25T12:00:00Z
const NOW_MS: i64 = 1_795_608_000_000;
const DAY: Duration = Duration::from_hours(24);

/// A gateway's accounts and ledger, without the gateway.
struct House {
    ledger: Ledger,
    metrics: Arc<Metrics>,
    account: Arc<Account>,
    slot: KeySlot,
}

fn policy() -> TenantPolicy {
    let lot = |source: &str, granted| NewLot {
        kind: LotKind::Pack,
        granted,
        priority: None,
        effective_at_ms: None,
        expires_at_ms: None,
        source: source.to_owned(),
    };
    let spec = TenantSpec {
        tenant_id: "acme".to_owned(),
        overrides: Overrides {
            tokens_per_month: Some(Limit::AtMost(1_000)),
            calls_per_month: Some(Limit::AtMost(100)),
            calls_per_minute: Some(Limit::Unlimited),
            calls_in_flight: Some(Limit::AtMost(50)),
            ..Overrides::default()
        },
        lots: vec![lot("pack", 300)],
        ..TenantSpec::default()
    };
    TenantPolicy::compile(Catalog::embedded(), &spec).unwrap()
}

fn limits() -> config::Usage {
    // Only when told to.
    config::Usage { flush_ms: 3_600_000, unledgered_tokens_max: 100 }
}

impl House {
    fn start(dir: &Path, clock: &Clock) -> Self {
        Self::start_with(dir, clock, &policy())
    }

    fn start_with(dir: &Path, clock: &Clock, policy: &TenantPolicy) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let ledger = Ledger::open(dir, &metrics, &limits()).unwrap();
        let account = Account::new("acme".into(), policy, clock.clone(), &ledger.journal());
        let slot = account.key(KEY, KeyLimits::NONE);
        Self { ledger, metrics, account, slot }
    }

    fn begin(&self, call: Call<'_>, tokens: u64) -> Reservation {
        self.account.admit(self.slot).unwrap().reserve(call, tokens, tokens).unwrap()
    }

    fn call(&self, tokens: u64) {
        self.begin(LLAMA, tokens).settle(Use { budget: tokens, input: tokens, output: 1, ..Use::default() });
    }

    fn standing(&self) -> Standing {
        self.account.standing(self.slot)
    }

    /// Calls and tokens left.
    fn left(&self) -> (u64, u64) {
        let standing = self.standing();
        (standing.calls.unwrap().remaining, standing.tokens.unwrap().remaining)
    }

    fn rows(&self) -> Vec<UsageRow> {
        self.read(0, i64::MAX).unwrap()
    }

    fn read(&self, from_ms: i64, to_ms: i64) -> Result<Vec<UsageRow>, LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.ledger.read(&self.account, from_ms, to_ms))
    }

    /// Calls and budget tokens, by what is read.
    fn told(&self) -> (u64, u64) {
        let rows = self.rows();
        (rows.iter().map(|row| row.counts.calls).sum(), rows.iter().map(|row| row.counts.budget_tokens).sum())
    }
}

fn house() -> (TempDir, Clock, House) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let house = House::start(dir.path(), &clock);
    (dir, clock, house)
}

fn sql(dir: &Path, text: &str) {
    Connection::open(dir.join("usage.db")).unwrap().execute_batch(text).unwrap();
}

#[test]
fn what_was_is_what_is_after_a_restart() {
    let (dir, clock, house) = house();
    house.call(900);
    house.call(150);
    house.begin(LLAMA, 100).release();
    let (standing, state) = (house.standing(), house.account.drain().account);
    // The drain was the test's: put it back by another call, which tells the rest.
    house.call(0);
    house.ledger.close().unwrap();
    let again = House::start(dir.path(), &clock);
    // The pack is known by its source and not credited again.
    assert_eq!(again.standing().tokens, standing.tokens);
    assert_eq!(again.standing().calls.unwrap().remaining, standing.calls.unwrap().remaining - 1);
    assert_eq!(again.account.drain().account.wallet, state.wallet);
    assert_eq!((again.left().1, again.metrics.ledger.errors.get()), (250, 0));
}

#[test]
fn rows_are_by_key_model_kind_period_and_day() {
    let (dir, clock, house) = house();
    house.call(10);
    house.call(20);
    house.begin(Call { model: "other-model", kind: Kind::Embeddings }, 5).settle(Use {
        budget: 5,
        input: 5,
        cached: 2,
        estimated: true,
        ..Use::default()
    });
    let check = |house: &House| {
        let rows = house.rows();
        let brief: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.day.to_string(),
                    row.key.as_str(),
                    &*row.model,
                    row.kind,
                    row.counts.calls,
                    row.counts.budget_tokens,
                )
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("2026-11-25".to_owned(), "000000000001", "llama", Kind::Chat, 2, 30),
                ("2026-11-25".to_owned(), "000000000001", "other-model", Kind::Embeddings, 1, 5),
                ("2026-11-26".to_owned(), "000000000001", "llama", Kind::Chat, 1, 7),
            ]
        );
        let embeddings = rows[1].counts;
        assert_eq!((embeddings.input_tokens, embeddings.cached_tokens, embeddings.estimated_calls), (5, 2, 1));
        // 1 November 2026: where the default anchor's month begins.
        assert!(rows.iter().all(|row| row.period_ms == 1_793_491_200_000));
        let day_ms = 86_400_000;
        assert_eq!(house.read(NOW_MS, NOW_MS + 1).unwrap().len(), 2);
        assert_eq!(house.read(NOW_MS + day_ms, i64::MAX).unwrap().len(), 1);
        assert_eq!(house.read(NOW_MS + 2 * day_ms, i64::MAX).unwrap().len(), 0);
        assert_eq!(house.told().1, 1_300 - house.left().1);
    };
    clock.advance(DAY);
    house.call(7);
    // Nothing on disk; part of it; all of it; after a restart.
    check(&house);
    house.ledger.flush().unwrap();
    check(&house);
    house.call(0);
    house.begin(LLAMA, 9).release();
    house.ledger.close().unwrap();
    let again = House::start(dir.path(), &clock);
    assert_eq!(again.told(), (5, 42));
}

#[test]
fn a_crash_forgets_what_came_after_the_last_flush_and_charges_open_calls() {
    let (dir, clock, house) = house();
    house.call(100);
    let open = house.begin(LLAMA, 40);
    let mut grown = house.begin(LLAMA, 10);
    assert!(grown.extend(15));
    let _admitted_only = house.account.admit(house.slot).unwrap();
    house.ledger.flush().unwrap();
    house.call(500);
    drop(house.ledger);
    // What ends now ends in a process that is dead.
    drop((open, grown));

    let again = House::start(dir.path(), &clock);
    assert_eq!(again.left(), (100 - 3, 1_300 - 100 - 40 - 25));
    assert_eq!(again.told(), (3, 165));
    let estimated: u64 = again.rows().iter().map(|row| row.counts.estimated_calls).sum();
    assert_eq!(estimated, 2);
    // Dead again before anything was written: charged once all the same.
    drop(again);
    let again = House::start(dir.path(), &clock);
    assert_eq!((again.left(), again.told()), ((97, 1_135), (3, 165)));
    again.ledger.flush().unwrap();
    drop(again);
    let again = House::start(dir.path(), &clock);
    assert_eq!((again.left(), again.told()), ((97, 1_135), (3, 165)));
}

#[test]
fn while_the_disk_refuses_calls_go_on_up_to_an_amount_and_nothing_is_lost() {
    let (dir, _clock, house) = house();
    house.call(10);
    house.ledger.flush().unwrap();
    sql(dir.path(), "CREATE TRIGGER refuse BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'no space'); END");
    house.call(30);
    assert!(matches!(house.ledger.flush(), Err(LedgerError::Write(_))));
    assert_eq!((house.metrics.ledger.errors.get(), house.metrics.ledger.unflushed_tokens.get()), (1, 30));
    house.call(60);
    let running = house.begin(LLAMA, 5);
    house.call(10);
    // 100 are charged and not on disk.
    let denied = house.account.admit(house.slot).unwrap_err();
    assert_eq!(denied.reason, Reason::Disk);
    running.settle(Use { budget: 5, ..Use::default() });
    assert!(house.ledger.flush().is_err());
    assert!(house.account.admit(house.slot).is_err());
    // What is asked is answered from memory and disk all the same.
    assert_eq!(house.told(), (5, 115));
    sql(dir.path(), "DROP TRIGGER refuse");
    house.ledger.flush().unwrap();
    house.call(1);
    assert_eq!((house.told(), house.left()), ((6, 116), (94, 1_300 - 116)));
    assert_eq!(house.metrics.ledger.unflushed_tokens.get(), 0);
    house.ledger.close().unwrap();
    let again = House::start(dir.path(), &Clock::manual(NOW_MS));
    assert_eq!((again.told(), again.left()), ((6, 116), (94, 1_300 - 116)));
}

#[test]
fn a_batch_that_arrived_though_it_seemed_to_fail_is_not_applied_twice() {
    let (dir, _clock, house) = house();
    house.call(10);
    house.ledger.flush().unwrap();
    sql(dir.path(), "CREATE TRIGGER refuse BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'no space'); END");
    house.call(30);
    assert!(house.ledger.flush().is_err());
    // The second batch arrives by another hand, as if its commit had been synced and its success not told.
    sql(
        dir.path(),
        "DROP TRIGGER refuse;
         UPDATE usage SET calls = 2, input_tokens = 40, output_tokens = 2, budget_tokens = 40;
         UPDATE house SET number = 2",
    );
    house.call(5);
    assert_eq!(house.told(), (3, 45));
    house.ledger.flush().unwrap();
    assert_eq!(house.told(), (3, 45));
    house.ledger.close().unwrap();
    let again = House::start(dir.path(), &Clock::manual(NOW_MS));
    assert_eq!((again.told(), again.left()), ((3, 45), (97, 1_255)));
}

#[test]
fn a_damaged_checkpoint_is_told_and_replaced_by_the_recorded_usage() {
    for damage in [
        "UPDATE accounts SET state = replace(state, '\"spent\":', '\"spent\":1')",
        "UPDATE accounts SET state = '{}'",
        "UPDATE accounts SET sum = x'00'",
        "UPDATE account_keys SET state = 'nonsense'",
        "UPDATE account_keys SET sum = x''; UPDATE accounts SET state = ''",
    ] {
        let (dir, clock, house) = house();
        house.call(1_100);
        // December: the pack has 200 left, the grant is new.
        clock.advance(DAY * 7);
        house.call(450);
        assert_eq!(house.left(), (99, 750));
        house.ledger.close().unwrap();
        sql(dir.path(), damage);
        let again = House::start(dir.path(), &clock);
        assert_eq!((again.left(), again.told()), ((99, 750), (2, 1_550)), "{damage}");
        assert!(again.metrics.ledger.errors.get() > 0, "{damage}");
        let key = again.account.drain();
        assert!(key.keys.is_empty());
        // It goes on from there, on sound checkpoints.
        again.call(50);
        again.ledger.close().unwrap();
        let again = House::start(dir.path(), &clock);
        assert_eq!((again.left(), again.metrics.ledger.errors.get() <= 1), ((98, 700), true), "{damage}");
    }
}

#[test]
fn a_file_that_is_not_ours_is_not_served_on() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let check = |prepare: &dyn Fn(&Path), says: &str| {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("usage.db"));
        let error = Ledger::open(dir.path(), &metrics, &limits()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    check(&|path| std::fs::create_dir(path).unwrap(), "opening");
    check(
        &|path| std::fs::write(path, "Not a database, and longer than a header would be. ".repeat(40)).unwrap(),
        "opening",
    );
    check(&|path| Connection::open(path).unwrap().pragma_update(None, "user_version", 7).unwrap(), "version 7");
}

#[test]
fn what_is_read_is_never_behind_and_never_twice_while_it_is_written() {
    let (_dir, _clock, house) = house();
    let mut policy = policy();
    policy.limits.calls_per_month = Limit::Unlimited;
    house.account.apply(&policy);
    let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                house.begin(LLAMA, 0).settle(Use { input: 1, ..Use::default() });
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                house.ledger.flush().unwrap();
            }
        });
        for _ in 0..300 {
            let before = calls.load(Ordering::SeqCst);
            let (told, _) = house.told();
            // One call may have ended and not been counted by the test yet.
            let after = calls.load(Ordering::SeqCst) + 1;
            assert!(before <= told && told <= after, "{before} {told} {after}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(house.told().0, calls.into_inner());
}

#[test]
fn alerts_are_given_once_for_each_level_and_period() {
    let (dir, clock, house) = house();
    let given = |house: &House, meter, level| house.metrics.ledger.alerts.with_label_values(&[meter, level]).get();
    let all = |house: &House| {
        house.ledger.flush().unwrap();
        (given(house, "tokens", "80"), given(house, "tokens", "100"), given(house, "calls", "80"))
    };
    house.call(799);
    assert_eq!(all(&house), (0, 0, 0));
    house.call(1);
    house.call(1);
    assert_eq!(all(&house), (1, 0, 0));
    for _ in 0..77 {
        house.call(0);
    }
    assert_eq!(all(&house), (1, 0, 1));
    house.call(250);
    assert_eq!(all(&house), (1, 1, 1));
    drop(house);
    let house = House::start(dir.path(), &clock);
    house.call(10);
    assert_eq!(all(&house), (0, 0, 0));
    clock.advance(DAY * 31);
    house.call(1_000);
    assert_eq!(all(&house), (1, 1, 0));
}

#[test]
fn an_unlimited_tenant_has_a_soft_level() {
    let spec = TenantSpec {
        tenant_id: "acme".to_owned(),
        plans: vec![PlanCode::from("app.business"), PlanCode::from("api.pro")],
        overrides: Overrides { tokens_per_month: Some(Limit::Unlimited), ..Overrides::default() },
        ..TenantSpec::default()
    };
    let policy = TenantPolicy::compile(Catalog::embedded(), &spec).unwrap();
    let soft = policy.soft_level(relais_policies::Metered::Tokens).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let house = House::start_with(dir.path(), &Clock::manual(NOW_MS), &policy);
    let given = |house: &House| {
        house.ledger.flush().unwrap();
        house.metrics.ledger.alerts.with_label_values(&["tokens", "soft"]).get()
    };
    house.call(soft - 1);
    assert_eq!(given(&house), 0);
    house.call(1);
    assert_eq!(given(&house), 1);
    house.call(soft);
    assert_eq!(given(&house), 1);
}

#[test]
fn a_tenant_that_was_away_comes_back_with_what_it_had() {
    let (dir, clock, house) = house();
    house.call(123);
    house.ledger.close().unwrap();
    // A start without the tenant leaves its record alone.
    let ledger = Ledger::open(dir.path(), &house.metrics, &limits()).unwrap();
    ledger.close().unwrap();
    let again = House::start(dir.path(), &clock);
    assert_eq!(again.left(), (99, 1_177));
}

#[test]
fn the_report_adds_up_by_what_is_asked() {
    let (dir, clock, house) = house();
    house.call(10);
    house.begin(Call { model: "=evil\u{1b}[2J", kind: Kind::Chat }, 5).settle(Use { budget: 5, ..Use::default() });
    clock.advance(DAY);
    house.call(20);
    house.ledger.flush().unwrap();
    let print = |arguments: Arguments| {
        let mut out = Vec::new();
        report::run(dir.path(), &arguments, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let by = |by: &[Column], format| Arguments { by: by.to_vec(), format, ..Arguments::default() };
    assert_eq!(
        print(by(&[Column::Day], Format::Table)),
        "day         calls  estimated_calls  input_tokens  cached_tokens  output_tokens  budget_tokens\n\
         2026-11-25      2                0            10              0              1             15\n\
         2026-11-26      1                0            20              0              1             20\n\
         total           3                0            30              0              2             35\n"
    );
    assert_eq!(
        print(Arguments {
            to: Some("2026-11-25".parse().unwrap()),
            ..by(&[Column::Tenant, Column::Model], Format::Csv)
        }),
        "tenant,model,calls,estimated_calls,input_tokens,cached_tokens,output_tokens,budget_tokens\r\n\
         acme,\"'=evil\u{1b}[2J\",1,0,0,0,0,5\r\n\
         acme,llama,1,0,10,0,1,10\r\n"
    );
    let json: serde_json::Value = serde_json::from_str(&print(Arguments {
        model: Some("llama".to_owned()),
        from: Some("2026-11-26".parse().unwrap()),
        ..by(&[Column::Key, Column::Period], Format::Json)
    }))
    .unwrap();
    assert_eq!(json[0]["key"], "000000000001");
    assert_eq!(json[0]["period"], "2026-11-01T00:00:00Z");
    assert_eq!((&json[0]["budget_tokens"], json.as_array().unwrap().len()), (&serde_json::json!(20), 1));
    assert!(!print(by(&[Column::Model], Format::Table)).contains('\u{1b}'));
    let nowhere = tempfile::tempdir().unwrap();
    assert!(report::run(nowhere.path(), &Arguments::default(), &mut Vec::new()).is_err());
}

#[test]
fn what_our_agents_used_is_told_apart_and_is_no_call_of_the_tenant_s() {
    let (dir, clock, house) = house();
    let used = Use { budget: 40, input: 30, cached: 6, output: 10, estimated: false };
    house.call(100);
    house.account.agent_used("llama", used, false);
    house.account.agent_used("llama", used, false);
    assert_eq!(house.left(), (99, 1_200), "measured only");
    let agents = |house: &House| {
        let rows = house.rows();
        let row = rows.iter().find(|row| row.kind == Kind::Agent).unwrap().clone();
        assert_eq!((row.key.as_str(), &*row.model), ("relais_agent", "llama"));
        let counts = row.counts;
        assert_eq!((counts.input_tokens, counts.cached_tokens), (30 * counts.calls, 6 * counts.calls));
        (counts.calls, counts.budget_tokens)
    };
    assert_eq!(agents(&house), (2, 0));
    house.account.agent_used("llama", used, true);
    assert_eq!((agents(&house), house.left()), ((3, 40), (99, 1_160)));
    house.ledger.close().unwrap();
    // From the checkpoint, and then from what was recorded alone.
    let again = House::start(dir.path(), &clock);
    assert_eq!((agents(&again), again.left()), ((3, 40), (99, 1_160)));
    again.account.agent_used("llama", used, true);
    again.ledger.close().unwrap();
    sql(dir.path(), "UPDATE accounts SET state = 'x'; UPDATE account_keys SET state = 'x'");
    let rebuilt = House::start(dir.path(), &clock);
    assert_eq!((agents(&rebuilt), rebuilt.left()), ((4, 80), (99, 1_120)));
    // More than there is becomes debt, and nothing is left.
    rebuilt.account.agent_used("llama", Use { budget: 5_000, ..used }, true);
    assert_eq!(rebuilt.account.tokens_left(), Some(0));
    assert!(rebuilt.account.admit(rebuilt.slot).unwrap().reserve(LLAMA, 1, 1).is_err());
}
