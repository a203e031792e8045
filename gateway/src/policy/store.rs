//! Every tenant and key, one look-up away.
//!
//! A key's id leads to one `Arc` that holds or points to all that decides about a request made with it. Both it
//! and the tenant behind it are replaced whole when the configuration changes, so a request that took one sees one
//! state of things to its end; the account, which counts, is handed on from the old to the new and never starts
//! again. A tenant that is gone takes its keys with it; its running calls still settle in its account.

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use relais_policies::TenantPolicy;
use relais_policies::limit::model_matches;

use crate::admission::{Account, Journal, KeySlot};
use crate::clock::Clock;
use crate::config::{Channel, Key, Tenant};

/// A tenant as of now.
#[derive(Debug)]
pub struct TenantState {
    /// Its id.
    pub id: Arc<str>,
    /// What it may do.
    pub policy: Arc<TenantPolicy>,
    /// What it has used. The same for as long as the process lives.
    pub account: Arc<Account>,
    /// Its Chatwoot channels.
    pub channels: Vec<Arc<Channel>>,
}

/// A key as of now.
#[derive(Debug)]
pub struct KeyState {
    /// Its hash, and what it may do below its tenant.
    pub key: Key,
    /// Whose it is.
    pub tenant: Arc<TenantState>,
    /// Its counters in the tenant's account.
    pub slot: KeySlot,
}

impl KeyState {
    /// May this key use this model? The tenant's list first, then the key's own.
    pub fn allows_model(&self, model: &str) -> bool {
        let own = self.key.models.as_ref();
        self.tenant.policy.allows_model(model)
            && own.is_none_or(|models| models.iter().any(|pattern| model_matches(pattern, model)))
    }
}

/// All of them.
#[derive(Debug)]
pub struct Store {
    keys: DashMap<[u8; 12], Arc<KeyState>, RandomState>,
    tenants: DashMap<Arc<str>, Arc<TenantState>, RandomState>,
    /// Of every tenant there was since the process began: one that comes back has used what it had used.
    accounts: DashMap<Arc<str>, Arc<Account>, RandomState>,
    clock: Clock,
    journal: Arc<Journal>,
}

impl Store {
    /// Nobody yet. Accounts take up what the journal remembers of them, and tell it what they use.
    pub fn new(clock: Clock, journal: Arc<Journal>) -> Self {
        Self {
            keys: DashMap::with_hasher(RandomState::default()),
            tenants: DashMap::with_hasher(RandomState::default()),
            accounts: DashMap::with_hasher(RandomState::default()),
            clock,
            journal,
        }
    }

    /// Makes these the tenants there are. Accounts are kept; keys and tenants that are not among them are gone with
    /// this call.
    pub fn apply(&self, tenants: &[Tenant]) {
        for tenant in tenants {
            self.put(tenant);
        }
        let known: std::collections::HashSet<&str> = tenants.iter().map(|tenant| &*tenant.id).collect();
        let keys: std::collections::HashSet<[u8; 12]> =
            tenants.iter().flat_map(|tenant| tenant.keys.iter().map(|key| key.public_id)).collect();
        self.keys.retain(|id, _| keys.contains(id));
        self.tenants.retain(|id, _| known.contains(&**id));
    }

    fn put(&self, tenant: &Tenant) {
        let known = self.accounts.get(&tenant.id).map(|known| Arc::clone(&known));
        let account = match known {
            Some(account) => {
                account.apply(&tenant.policy);
                account
            }
            None => {
                let id = Arc::clone(&tenant.id);
                let account = Account::new(id, &tenant.policy, self.clock.clone(), &self.journal);
                self.accounts.insert(Arc::clone(&tenant.id), Arc::clone(&account));
                account
            }
        };
        let state = Arc::new(TenantState {
            id: Arc::clone(&tenant.id),
            policy: Arc::clone(&tenant.policy),
            account,
            channels: tenant.channels.clone(),
        });
        for key in &tenant.keys {
            let slot = state.account.key(key.public_id, key.limits);
            let key = Arc::new(KeyState { key: key.clone(), tenant: Arc::clone(&state), slot });
            self.keys.insert(key.key.public_id, key);
        }
        self.tenants.insert(Arc::clone(&tenant.id), state);
    }

    /// The key with this public id.
    pub fn key(&self, public_id: &[u8; 12]) -> Option<Arc<KeyState>> {
        self.keys.get(public_id).map(|found| Arc::clone(&found))
    }

    /// The tenant with this id.
    pub fn tenant(&self, id: &str) -> Option<Arc<TenantState>> {
        self.tenants.get(id).map(|found| Arc::clone(&found))
    }

    /// All channels, with their tenants' ids.
    pub fn channels(&self) -> Vec<(Arc<str>, Arc<Channel>)> {
        let mut all = Vec::new();
        for tenant in &self.tenants {
            all.extend(tenant.channels.iter().map(|channel| (Arc::clone(&tenant.id), Arc::clone(channel))));
        }
        all
    }

    /// How many tenants and keys there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.tenants.len(), self.keys.len())
    }
}
