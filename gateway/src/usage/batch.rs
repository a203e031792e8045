//! What is not on disk yet: the batch that gathers, and the one that is being written.
//!
//! Numbers are consecutive, and the file keeps the last one it took. Whoever looks at memory and then at the file
//! therefore knows of each batch whether the file has it: this is how a reader counts nothing twice and misses
//! nothing while the writer is at work.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use crate::admission::{Account, AccountState, Alert, Counts, Delta, Drained, Journal, KeyState, Kind};
use crate::metrics::Metrics;

/// What the threads of a ledger share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) journal: Arc<Journal>,
    pub(super) metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    gathering: Batch,
    /// Handed to the writer. It does not change any more.
    writing: Option<Arc<Batch>>,
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Its number.
    pub(super) number: u64,
    /// Sorted, as the tables are.
    pub(super) tenants: BTreeMap<Arc<str>, Tenant>,
    /// Budget tokens charged.
    pub(super) tokens: u64,
}

/// One tenant's part of a batch.
#[derive(Debug)]
pub(super) struct Tenant {
    /// What was used.
    pub(super) used: BTreeMap<UsedBy, Counts>,
    /// How things stand.
    pub(super) account: AccountState,
    /// The keys that changed.
    pub(super) keys: BTreeMap<[u8; 12], KeyState>,
}

/// What usage is added up by, within a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UsedBy {
    pub(super) day: i64,
    pub(super) key: [u8; 12],
    pub(super) model: Arc<str>,
    pub(super) kind: Kind,
    pub(super) period_ms: i64,
}

impl From<Delta> for (UsedBy, Counts) {
    fn from(delta: Delta) -> Self {
        let Delta { key, model, kind, period_ms, day, counts } = delta;
        (UsedBy { day, key, model, kind, period_ms }, counts)
    }
}

/// A tenant's usage in memory, and the number of the batch it is in.
pub(super) type Numbered = (u64, Vec<(UsedBy, Counts)>);

impl Shared {
    /// `number`: of the last batch in the file.
    pub(super) fn new(journal: Arc<Journal>, metrics: Arc<Metrics>, number: u64) -> Self {
        let gathering = Batch { number: number + 1, ..Batch::default() };
        Self { journal, metrics, memory: Mutex::new(Memory { gathering, writing: None }) }
    }

    /// Asks every account that changed, and says what to write: the batch that failed before, or else what gathered.
    /// The second value: whether it is tried for the first time.
    pub(super) fn next(&self) -> Option<(Arc<Batch>, bool)> {
        let mut memory = self.lock();
        for account in self.journal.take_changed() {
            self.drain(&mut memory.gathering, &account);
        }
        if let Some(batch) = &memory.writing {
            return Some((Arc::clone(batch), false));
        }
        if memory.gathering.tenants.is_empty() {
            return None;
        }
        let number = memory.gathering.number + 1;
        let batch = Arc::new(std::mem::replace(&mut memory.gathering, Batch { number, ..Batch::default() }));
        memory.writing = Some(Arc::clone(&batch));
        Some((batch, true))
    }

    /// The batch that was being written is in the file.
    pub(super) fn written(&self) {
        self.lock().writing = None;
    }

    /// Budget tokens charged and not in the file, as far as accounts were asked.
    pub(super) fn unledgered(&self) -> u64 {
        let memory = self.lock();
        let writing = memory.writing.as_ref().map_or(0, |batch| batch.tokens);
        memory.gathering.tokens.saturating_add(writing)
    }

    /// What a tenant used on these days, `from` included and `to` not, as far as the file may not have it.
    pub(super) fn used(&self, account: &Arc<Account>, from: i64, to: i64) -> Vec<Numbered> {
        let mut memory = self.lock();
        // It stays on the journal's list; the writer will find that there is nothing new.
        self.drain(&mut memory.gathering, account);
        let Memory { gathering, writing } = &*memory;
        let batches = writing.as_deref().into_iter().chain([gathering]);
        let used_in = |batch: &Batch| {
            let tenant = batch.tenants.get(account.tenant_id())?;
            let rows = tenant.used.iter().filter(|(by, _)| (from..to).contains(&by.day));
            Some((batch.number, rows.map(|(by, counts)| (by.clone(), *counts)).collect()))
        };
        batches.filter_map(used_in).collect()
    }

    fn drain(&self, batch: &mut Batch, account: &Account) {
        let drained = account.drain();
        for alert in &drained.alerts {
            self.tell(account, alert);
        }
        batch.add(account.tenant_id(), drained);
    }

    fn tell(&self, account: &Account, alert: &Alert) {
        let Alert { told, used, limit } = *alert;
        let (meter, level) = (told.watched.as_str(), told.level.as_str());
        self.metrics.ledger.alerts.with_label_values(&[meter, level]).inc();
        let tenant_id = &**account.tenant_id();
        warn!(tenant_id, meter, level, used, limit, "A tenant's use has come to an alert level of its billing period.");
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // A panic in here would have lost a drain: the writer then ends, and says so.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    fn add(&mut self, tenant_id: &Arc<str>, drained: Drained) {
        let Drained { deltas, account, keys, alerts: _ } = drained;
        let tenant = match self.tenants.entry(Arc::clone(tenant_id)) {
            Entry::Vacant(new) => new.insert(Tenant { used: BTreeMap::new(), account, keys: BTreeMap::new() }),
            Entry::Occupied(known) => {
                let known = known.into_mut();
                known.account = account;
                known
            }
        };
        tenant.keys.extend(keys);
        for delta in deltas {
            self.tokens = self.tokens.saturating_add(delta.counts.budget_tokens);
            let (by, counts) = delta.into();
            tenant.used.entry(by).or_default().add(&counts);
        }
    }
}
