//! Between the accounts and the ledger: which accounts changed, what the last process left, and whether the disk
//! keeps up.
//!
//! An account enters itself here once, the first time it changes after the ledger last looked; so a look costs
//! what was busy, however many tenants are idle, and the list is never longer than there are accounts. It holds
//! the accounts themselves: one that is taken out of the configuration is still told to the end.
//!
//! Nothing here waits for the disk. While it refuses, calls go on until the budget tokens that are charged and not
//! on disk reach a configured amount; calls that run then still end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::admission::{Account, Counted, Past};

/// Connects accounts and ledger.
#[derive(Debug, Default)]
pub struct Journal {
    changed: Mutex<Vec<Arc<Account>>>,
    pasts: Mutex<HashMap<Arc<str>, Past>>,
    counted: Mutex<HashMap<Arc<str>, Vec<Counted>>>,
    /// The disk refuses.
    trouble: AtomicBool,
    /// While it does: budget tokens that are charged and not on disk.
    unledgered: AtomicU64,
    unledgered_max: AtomicU64,
}

impl Journal {
    /// What a tenant's account had when it was last on disk: taken up when the account is made.
    pub fn remember(&self, tenant_id: Arc<str>, past: Past) {
        lock(&self.pasts).insert(tenant_id, past);
    }

    /// The conversations of a tenant that were counted before: taken up when its account is made.
    pub fn remember_counted(&self, tenant_id: Arc<str>, counted: Counted) {
        lock(&self.counted).entry(tenant_id).or_default().push(counted);
    }

    /// The accounts that changed since this was last asked.
    pub fn take_changed(&self) -> Vec<Arc<Account>> {
        let mut changed = lock(&self.changed);
        let room = changed.len();
        std::mem::replace(&mut *changed, Vec::with_capacity(room))
    }

    /// How many budget tokens may be charged while the disk refuses.
    pub fn set_unledgered_max(&self, tokens: u64) {
        self.unledgered_max.store(tokens, Ordering::Relaxed);
    }

    /// The disk refuses; so many budget tokens are charged and not on it.
    pub fn disk_refuses(&self, unledgered: u64) {
        self.unledgered.store(unledgered, Ordering::Relaxed);
        self.trouble.store(true, Ordering::Relaxed);
    }

    /// The disk takes what it is given.
    pub fn disk_takes(&self) {
        self.trouble.store(false, Ordering::Relaxed);
    }

    /// Whether new calls must wait for the disk.
    pub fn is_full(&self) -> bool {
        self.trouble.load(Ordering::Relaxed)
            && self.unledgered.load(Ordering::Relaxed) >= self.unledgered_max.load(Ordering::Relaxed)
    }

    pub(super) fn changed(&self, account: &Arc<Account>) {
        lock(&self.changed).push(Arc::clone(account));
    }

    /// A call was charged. Counted only while the disk refuses, so that cores share no counter in good times.
    pub(super) fn charged(&self, tokens: u64) {
        if self.trouble.load(Ordering::Relaxed) {
            self.unledgered.fetch_add(tokens, Ordering::Relaxed);
        }
    }

    pub(super) fn counted(&self, tenant_id: &str) -> Vec<Counted> {
        lock(&self.counted).remove(tenant_id).unwrap_or_default()
    }

    pub(super) fn past(&self, tenant_id: &str) -> Option<Past> {
        lock(&self.pasts).remove(tenant_id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // None of the lists is ever half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
