//! The billing sidecar: who bought what, compiled into the policies that gateways hold.
//!
//! One process, one writer, one database (SQLite or PostgreSQL, see [`store`]). It is not on the path of any call:
//! gateways hold their policies in memory and on disk and go on without it.
//!
//! # The life of a change
//!
//! `PUT /v1/admin/tenants/acme/plans/app` →
//! 1. [`api`]: a token with a role, a body within bounds, and [`api::Write::begin`]: an `Idempotency-Key` seen before
//!    ends here with the stored answer; else a [`store::Change`], the one transaction that writes.
//! 2. The domain does its statements on [`store::Change::sql`]: here [`tenants::plans::set`].
//! 3. [`tenants::policy::settle`] compiles the tenant's policy from what now stands there, refuses the change if none
//!    comes of it, and calls [`store::Change::touched`]: the subject gets the next revision in this transaction.
//! 4. [`store::Change::audit`] adds an entry to the chain.
//! 5. [`api::Write::answer`] stores the answer, commits, and only then tells those who wait on
//!    [`store::Store::revisions`].
//!
//! # Where further parts join
//!
//! - *Wallet, leases, usage*: a migration file of their own, a module beside [`keys`] whose functions take
//!   `&mut Change` to write and `&mut AnyConnection` to read, and routes beside `api/admin`. What changes a balance that
//!   a policy shows calls `touched(Subject::Tenant)`.
//! - *Policy compiler and sync*: starts from [`tenants::policy::spec`], which takes the moment as a value, so the same
//!   call at a later moment gives the timeline; keys by [`keys::list`] and their hashes, channels with
//!   [`channels::secrets`]; the outbox is the table `policy_changes` (one row a subject, `rev`, `put` or `delete`), the
//!   epoch [`store::Store::epoch`], the wake-up [`store::Store::revisions`]. Routes need `Role::Gateway`.
//! - *Commands*: speak to the API, because there is one writer.
//! - Anything sealed is named in [`reseal`], so that keys can be rotated.
//!
//! # The modules, top to bottom
//!
//! `api` → `tenants`, `keys`, `channels`, `agents`, `catalog`, `reseal` → `store`, `audit` → `config`, `vault`, `page`,
//! `text`, `metrics`, `instant`, `error`, `clock`.

// First only because its macro is used by those below.
#[macro_use]
pub mod store;

pub mod api;
mod server;

pub mod agents;
pub mod catalog;
pub mod channels;
pub mod keys;
pub mod reseal;
pub mod tenants;

pub mod audit;

pub mod config;
pub mod vault;

pub mod clock;
pub mod error;
pub mod instant;
pub mod metrics;
pub mod page;
mod text;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relais_policies::Catalog;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use crate::clock::Clock;
use crate::config::{Config, Limits, Timeouts, Token};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::server::Bounds;
use crate::store::{Author, OpenError, Store};

/// How often we look whether we are still the only writer.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// For an answer to that.
const WATCH_DEADLINE: Duration = Duration::from_secs(10);
/// Connections to the address of metrics and health.
const OPS_CONNECTIONS_MAX: usize = 64;

/// Everything that lives as long as the process.
#[derive(Debug)]
pub struct Billing {
    /// What is kept.
    pub store: Store,
    /// The one clock.
    pub clock: Clock,
    /// Who may ask for what.
    pub tokens: Vec<Token>,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// How long we wait for whom.
    pub timeouts: Timeouts,
    /// What Prometheus sees.
    pub metrics: Metrics,
    draining: AtomicBool,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no database.
    #[error("opening the database")]
    Store(#[source] OpenError),
    /// The plans that come with the program cannot be stored.
    #[error("storing the plans")]
    Plans(#[source] Error),
    /// An address is taken, or not ours.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A metric is named twice.
    #[error("naming the metrics")]
    Metrics(#[source] prometheus::Error),
}

/// A sidecar that serves.
#[derive(Debug)]
pub struct Running {
    /// What it consists of.
    pub billing: Arc<Billing>,
    /// Address of the API.
    pub api: SocketAddr,
    /// Address of metrics and health.
    pub ops: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Billing {
    /// Whether it was told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Opens the database, stores the plans, and serves until [`Running::stop`].
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    let store =
        Store::open(&config.database, clock.clone(), Arc::new(config.vault)).await.map_err(StartError::Store)?;
    store_plans(&store).await.map_err(StartError::Plans)?;
    let billing = Arc::new(Billing {
        store,
        clock,
        tokens: config.tokens,
        limits: config.limits,
        timeouts: config.timeouts,
        metrics: Metrics::new().map_err(StartError::Metrics)?,
        draining: AtomicBool::new(false),
    });
    let (api_listener, api) = listen(config.api).await?;
    let (ops_listener, ops) = listen(config.ops).await?;
    let stop = watch::Sender::new(false);
    let bounds = |connections_max| Bounds {
        connections_max,
        head: Duration::from_millis(billing.timeouts.head_ms),
        drain: Duration::from_millis(billing.timeouts.drain_ms),
        connections: billing.metrics.connections.clone(),
        accept_errors: billing.metrics.accept_errors.clone(),
    };
    let mut tasks = JoinSet::new();
    let api_bounds = bounds(billing.limits.connections_max);
    tasks.spawn(server::serve(api_listener, api::router(&billing), api_bounds, stop.subscribe()));
    let ops_bounds = bounds(OPS_CONNECTIONS_MAX);
    tasks.spawn(server::serve(ops_listener, api::ops_router(&billing), ops_bounds, stop.subscribe()));
    Ok(Running { billing, api, ops, stop, tasks })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn store_plans(store: &Store) -> Result<(), Error> {
    let mut change = store.change(Author::system()).await?;
    for code in catalog::store_embedded(&mut change, Catalog::embedded()).await? {
        warn!(
            code,
            "This version of a plan is stored with other content than comes with the program; the stored one stays."
        );
    }
    change.commit().await
}

impl Running {
    /// Waits until we are no longer the only writer, which ends in good order only by [`Running::stop`].
    pub async fn lost(&self) {
        loop {
            sleep(WATCH_EVERY).await;
            match timeout(WATCH_DEADLINE, self.billing.store.is_ours()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    error!(error = error.causes(), "The database let go of our lock.");
                    return;
                }
                Err(_) => {
                    error!("The database does not say whether our lock holds.");
                    return;
                }
            }
        }
    }

    /// Not ready, nothing new, what is being answered is answered, the database closed.
    pub async fn stop(mut self) {
        self.billing.draining.store(true, Ordering::Release);
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.billing.store.close().await;
    }
}
