//! An account as it is written down and read back.
//!
//! A checkpoint is taken under the account's lock together with the deltas that belong to it, so the wallet's
//! *spent* is always the sum of all deltas. It counts running calls as they stood: their calls are counted, and
//! what they hold is held. Read back, they are gone, and charged what they held: the provider may have done the
//! work, and we cannot know. A call that had only been admitted never happened and is not in it.
//!
//! Without a checkpoint (it was damaged) the deltas still say what was spent in which period. The wallet is then
//! played through again under the policy of today: each period's use is paid by its own grant first, then by
//! the lots the policy credits.

use std::collections::BTreeSet;
use std::sync::Arc;

use relais_policies::TenantPolicy;
use relais_policies::meter::Meter;
use relais_policies::period::Period;
use relais_policies::wallet::{StateError, Wallet, WalletState};
use serde::{Deserialize, Serialize};

use crate::admission::KeyLimits;
use crate::admission::alert::Told;
use crate::admission::books::{Books, KeyBooks, credit, grant};
use crate::admission::tally::{Counts, Kind, Place};

/// Who is charged for what no key is known to have held: only after a damaged record.
const UNKNOWN_KEY: [u8; 12] = *b"unknown_key_";

/// A tenant's counters. Those of its keys are apart, because most of them do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountState {
    /// The billing period.
    pub period: Period,
    /// Since when it counts, Unix ms: its start, unless the anchor was moved.
    pub since_ms: i64,
    /// Calls in it.
    pub calls: u64,
    /// Budget tokens spent in it.
    pub spent: u64,
    /// Conversations counted in it. For reports: which they are, the inbox knows.
    #[serde(default)]
    pub conversations: u64,
    /// Humans seen in it.
    #[serde(default)]
    pub humans: BTreeSet<u64>,
    /// Alerts given in it.
    pub told: Vec<Told>,
    /// All lots.
    pub wallet: WalletState,
}

/// A key's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Since when its period counts, Unix ms.
    pub since_ms: i64,
    /// Calls in it.
    pub calls: u64,
    /// Budget tokens spent in it.
    pub spent: u64,
    /// Its running calls.
    pub open: Vec<OpenCalls>,
}

/// Running calls of one key and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCalls {
    /// The model, as the caller names it.
    pub model: Arc<str>,
    /// What kind of calls.
    pub kind: Kind,
    /// The period they began in, Unix ms.
    pub period_ms: i64,
    /// The day they began on, since 1970, UTC.
    pub day: i64,
    /// How many.
    pub calls: u64,
    /// Budget tokens they hold.
    pub tokens: u64,
}

/// What was used in one period, by the deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodSum {
    /// Since when it counts, Unix ms.
    pub period_ms: i64,
    /// Calls.
    pub calls: u64,
    /// Budget tokens.
    pub spent: u64,
}

/// What is known of an account from before this process.
#[derive(Debug)]
pub struct Past {
    account: PastAccount,
    keys: Vec<([u8; 12], KeyState)>,
}

#[derive(Debug)]
enum PastAccount {
    Checkpoint {
        period: Period,
        since_ms: i64,
        calls: u64,
        spent: u64,
        humans: BTreeSet<u64>,
        told: Vec<Told>,
        wallet: Box<Wallet>,
    },
    Sums(Vec<PeriodSum>),
}

impl Past {
    /// From a checkpoint. An error: it is none, whatever its checksum says.
    pub fn checkpoint(state: AccountState, keys: Vec<([u8; 12], KeyState)>) -> Result<Self, StateError> {
        let AccountState { period, since_ms, calls, spent, conversations: _, humans, told, wallet } = state;
        let wallet = Box::new(Wallet::restore(wallet)?);
        Ok(Self { account: PastAccount::Checkpoint { period, since_ms, calls, spent, humans, told, wallet }, keys })
    }

    /// From the deltas alone, periods in their order.
    pub fn sums(sums: Vec<PeriodSum>, keys: Vec<([u8; 12], KeyState)>) -> Self {
        Self { account: PastAccount::Sums(sums), keys }
    }
}

impl Books {
    /// Goes on from what is known. The books are new, and of this policy.
    pub(super) fn restore(&mut self, past: Past, policy: &TenantPolicy) {
        let rebuilt = matches!(past.account, PastAccount::Sums(_));
        match past.account {
            PastAccount::Checkpoint { period, since_ms, calls, spent, humans, told, wallet } => {
                (self.period, self.since_ms, self.spent, self.humans) = (period, since_ms, spent, humans);
                (self.calls, self.told, self.wallet) = (Meter::restore(period, calls), told, *wallet);
            }
            PastAccount::Sums(sums) => self.replay(&sums, policy),
        }
        let held: u64 = past.keys.iter().flat_map(|(_, key)| &key.open).fold(0, |sum, open| sum + open.tokens);
        let charged = if rebuilt {
            let _settled = self.wallet.charge(held);
            held
        } else {
            self.wallet.charge_orphans()
        };
        for (public_id, key) in past.keys {
            self.restore_key(public_id, key);
        }
        if let Some(nobodys) = charged.checked_sub(held).filter(|tokens| *tokens > 0) {
            let open = OpenCalls {
                model: Arc::from("other"),
                kind: Kind::Chat,
                period_ms: self.since_ms,
                day: self.since_ms.div_euclid(86_400_000),
                calls: 0,
                tokens: nobodys,
            };
            self.restore_key(UNKNOWN_KEY, KeyState { since_ms: self.since_ms, calls: 0, spent: 0, open: vec![open] });
        }
    }

    fn restore_key(&mut self, public_id: [u8; 12], state: KeyState) {
        let current = state.since_ms == self.since_ms;
        if !current && state.open.is_empty() {
            return;
        }
        let (calls, spent) = if current { (state.calls, state.spent) } else { (0, 0) };
        let mut key = KeyBooks::new(public_id, KeyLimits::NONE, None, Meter::restore(self.period, calls));
        key.spent = spent;
        let orphaned = !state.open.is_empty();
        for open in state.open {
            if open.period_ms == self.since_ms {
                key.spent = key.spent.saturating_add(open.tokens);
                self.spent = self.spent.saturating_add(open.tokens);
            }
            let model = self.models.id(&open.model);
            let place = Place { model, kind: open.kind, period_ms: open.period_ms, day: open.day };
            let counts = Counts {
                calls: open.calls,
                estimated_calls: open.calls,
                budget_tokens: open.tokens,
                ..Counts::default()
            };
            key.tallies.add(place, &counts);
        }
        let slot = self.put_key(key);
        if orphaned {
            self.mark_changed(slot);
        }
    }

    /// Plays the periods through again.
    fn replay(&mut self, sums: &[PeriodSum], policy: &TenantPolicy) {
        let Some(last) = sums.last() else { return };
        let start_ms = sums.first().map_or(last.period_ms, |first| first.period_ms);
        let mut wallet = Wallet::new(start_ms);
        for sum in sums {
            let period = policy.anchor.period_at(sum.period_ms);
            wallet.advance(sum.period_ms);
            wallet.set_grant(&period, grant(policy));
            credit(&mut wallet, policy);
            let _settled = wallet.charge(sum.spent);
        }
        self.wallet = wallet;
        self.period = policy.anchor.period_at(last.period_ms);
        self.since_ms = last.period_ms;
        self.spent = last.spent;
        self.calls = Meter::restore(self.period, last.calls);
    }

    /// Everything of the tenant itself, as it stands.
    pub(super) fn state(&self) -> AccountState {
        AccountState {
            period: self.period,
            since_ms: self.since_ms,
            calls: self.calls.used().saturating_sub(self.waiting),
            spent: self.spent,
            conversations: self.conversations_counted(),
            humans: self.humans.clone(),
            told: self.told.clone(),
            wallet: self.wallet.state(),
        }
    }
}

impl KeyBooks {
    /// Everything of a key, as it stands; `since_ms` is its tenant's.
    pub(super) fn state(&self, since_ms: i64, model: impl Fn(&Place) -> Arc<str>) -> KeyState {
        let open = self.tallies.iter().filter(|tally| tally.open_calls > 0).map(|tally| OpenCalls {
            model: model(&tally.place),
            kind: tally.place.kind,
            period_ms: tally.place.period_ms,
            day: tally.place.day,
            calls: tally.open_calls,
            tokens: tally.open_tokens,
        });
        KeyState {
            since_ms,
            calls: self.calls.used().saturating_sub(self.waiting),
            spent: self.spent,
            open: open.collect(),
        }
    }
}
