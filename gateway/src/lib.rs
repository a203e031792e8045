//! Relais, the data plane: one process between customers and an AI agent.
//!
//! Read in the order of the modules below; `ARCHITECTURE.md` tells the life of a request first. Everything that
//! lives as long as the process is a field of [`Gateway`], made once in [`start`]; there are no statics. The caller
//! owns the sockets and says when to stop, so a test can be the caller.

pub mod server;

pub mod reload;

pub mod ingress;
pub mod relay;

pub mod auth;
pub mod policy;

pub mod admission;
pub mod agent;
pub mod chatwoot;
pub mod handoff;
pub mod llm;
pub mod usage;

pub mod inbox;

pub mod config;
pub mod http;

pub mod clock;
pub mod conversation;
pub mod error;
pub mod metrics;
pub mod storage;
pub mod telemetry;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use relais_policies::plan::Feature;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::admission::Counted;
use crate::agent::{Agents, BuildError};
use crate::auth::failures::Failures;
use crate::chatwoot::installation::Installations;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Reason};
use crate::http::client::Client;
use crate::http::request_id::RequestIds;
use crate::http::resolve::Resolver;
use crate::inbox::{CountedIn, Inbox, InboxError};
use crate::llm::upstream::Upstreams;
use crate::metrics::{Metrics, RouteMetrics};
use crate::policy::Store;
use crate::relay::sweep::{SweepHandle, SweepParts};
use crate::relay::{Payer, RelayHandle, RelayParts, Served};
use crate::server::{Listeners, Passed, Stop, Tls, TlsError, Worker};
use crate::storage::{StorageError, StorageLock};
use crate::telemetry::{AccessLog, AccessLogWriter, TelemetryError};
use crate::usage::{Ledger, LedgerError};

/// Between two looks for addresses whose wrong keys can be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Where a request can go. The name is the `route` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `GET /v1/models`, `GET /v1/models/{id}`
    Models,
    /// `GET /v1/limits`
    Limits,
    /// `GET /v1/usage`
    Usage,
    /// `GET /openapi.json`
    OpenApi,
    /// `POST /chatwoot/{tenant}`, `POST /chatwoot/{tenant}/{path_token}`
    Webhook,
    /// Anything else.
    Unknown,
}

impl Route {
    const ALL: [Self; 10] = [
        Self::Chat,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
        Self::Models,
        Self::Limits,
        Self::Usage,
        Self::OpenApi,
        Self::Webhook,
        Self::Unknown,
    ];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Limits => "limits",
            Self::Usage => "usage",
            Self::OpenApi => "openapi",
            Self::Webhook => "webhook",
            Self::Unknown => "unknown",
        }
    }
}

/// Everything that lives as long as the process.
pub struct Gateway {
    /// What time it is.
    pub clock: Clock,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Who there is and what they may do and have used.
    pub store: Store,
    /// Deliveries on disk.
    pub inbox: Inbox,
    /// What was used, on disk.
    pub ledger: Ledger,
    /// Names for requests.
    pub request_ids: RequestIds,
    /// Open public connections, all workers together.
    pub connections: AtomicUsize,
    /// Wrong keys, by where they came from; replaced when its limits change.
    auth_failures: ArcSwap<Failures>,
    /// The configuration in force; replaced whole.
    config: ArcSwap<Config>,
    /// The models we can reach; replaced whole.
    upstreams: ArcSwap<Upstreams>,
    /// One line per request.
    pub access_log: AccessLog,
    /// Who answers conversations; replaced whole.
    agents: Arc<ArcSwap<Agents>>,
    /// Connections of the background runtime: Chatwoots and the agents' models.
    client: Client,
    /// How many calls each Chatwoot takes, whoever makes them.
    installations: Arc<Installations>,
    /// The certificate; replaced on its own.
    tls: Option<Tls>,
    routes: [RouteMetrics; Route::ALL.len()],
    draining: AtomicBool,
}

/// What belongs to one runtime: its own pool of connections to upstreams.
pub struct Core {
    /// The pool.
    pub client: Client,
    /// For answers that belong to no request.
    pub request_ids: RequestIds,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

impl Gateway {
    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The models we can reach.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        self.upstreams.load_full()
    }

    /// A route's metrics.
    pub fn route_metrics(&self, route: Route) -> &RouteMetrics {
        let [chat, responses, completions, embeddings, models, limits, usage, openapi, webhook, unknown] = &self.routes;
        match route {
            Route::Chat => chat,
            Route::Responses => responses,
            Route::Completions => completions,
            Route::Embeddings => embeddings,
            Route::Models => models,
            Route::Limits => limits,
            Route::Usage => usage,
            Route::OpenApi => openapi,
            Route::Webhook => webhook,
            Route::Unknown => unknown,
        }
    }

    /// Why traffic should go elsewhere, if it should.
    pub fn not_ready(&self) -> Option<Error> {
        if self.draining.load(Ordering::Acquire) {
            return Some(Error::new(Reason::Draining, "Stopping: no new traffic, please."));
        }
        (!self.inbox.healthy()).then(|| Error::new(Reason::Disk, "The disk does not take deliveries; /v1 goes on."))
    }

    /// Gauges that are cheaper to read when asked than to keep.
    pub fn refresh_gauges(&self) {
        self.upstreams.load().refresh_gauges(&self.metrics);
    }
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// Certificate or key.
    #[error("preparing TLS")]
    Tls(#[source] TlsError),
    /// An upstream of the configuration.
    #[error("preparing the upstreams")]
    Upstreams(#[source] Error),
    /// The data directory is not ours.
    #[error(transparent)]
    Storage(StorageError),
    /// The inbox in the data directory.
    #[error("opening the inbox in {0}")]
    Inbox(std::path::PathBuf, #[source] InboxError),
    /// What was used until now cannot be read, or nothing more be written.
    #[error("preparing the ledger")]
    Ledger(#[source] LedgerError),
    /// An agent of the configuration.
    #[error("preparing the agents")]
    Agents(#[source] BuildError),
    /// Two metrics of one name.
    #[error("registering the metrics")]
    Metrics(#[source] prometheus::Error),
    /// The access log.
    #[error("starting the access log")]
    AccessLog(#[source] TelemetryError),
    /// No thread or no runtime.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

/// A gateway that serves.
pub struct Running {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where `/v1` and webhooks are.
    pub public: SocketAddr,
    /// Where metrics and health are.
    pub admin: SocketAddr,
    stop: watch::Sender<Stop>,
    workers: Vec<JoinHandle<()>>,
    background: Runtime,
    relay: Option<RelayHandle>,
    sweeps: SweepHandle,
    access_log: AccessLogWriter,
    storage: StorageLock,
}

/// Binds, starts every thread, and returns when it serves.
pub fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    start_on(config, clock, Passed::default())
}

/// The same on sockets that are open already, as far as some were passed.
pub fn start_on(config: Config, clock: Clock, passed: Passed) -> Result<Running, StartError> {
    let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
    let upstreams = Upstreams::new(&config.upstreams, &clock, &metrics, None).map_err(StartError::Upstreams)?;
    let tls = config.listen.tls.as_ref().map(Tls::new).transpose().map_err(StartError::Tls)?;
    let workers = if config.runtime.per_core { config.runtime.workers } else { 1 };
    // Before it listens: while another one drains, connections are still that one's.
    let storage = StorageLock::take(&config.storage.dir, config.timeouts.drain).map_err(StartError::Storage)?;
    let listeners = server::bind(config.listen.public, config.listen.admin, workers, passed)
        .map_err(|error| StartError::Listen(config.listen.public, error))?;
    let ledger = Ledger::open(&config.storage.dir, &metrics, &config.usage).map_err(StartError::Ledger)?;
    let resolver = Resolver::new();
    let inbox = Inbox::open(&config.storage.dir, &config.inbox, clock.clone(), Arc::clone(&metrics))
        .map_err(|error| StartError::Inbox(config.storage.dir.clone(), error))?;
    let journal = ledger.journal();
    for CountedIn { tenant, period_ms, conversations } in inbox.counted_before() {
        journal.remember_counted(Arc::clone(tenant), Counted { period_ms: *period_ms, conversations: *conversations });
    }
    // After both: an account goes on from what they know of it.
    let store = Store::new(clock.clone(), journal);
    store.apply(&config.tenants);
    let client = Client::new(resolver.clone(), config.timeouts.connect);
    let installations = Arc::new(Installations::new(&config.relay, clock.clone()));
    let agents = Agents::build(&config, &upstreams, &client, Arc::clone(&metrics)).map_err(StartError::Agents)?;
    let (access_log, access_log_writer) =
        AccessLog::start(config.log.access, clock.clone(), metrics.access_log_dropped.clone())
            .map_err(StartError::AccessLog)?;
    let gateway = Arc::new(Gateway {
        auth_failures: ArcSwap::from_pointee(Failures::new(&config.limits, &clock)),
        routes: Route::ALL.map(|route| metrics.route(route.name())),
        clock,
        metrics,
        store,
        inbox,
        ledger,
        access_log,
        agents: Arc::new(ArcSwap::from_pointee(agents)),
        client,
        installations,
        tls,
        request_ids: RequestIds::new(),
        connections: AtomicUsize::new(0),
        upstreams: ArcSwap::from_pointee(upstreams),
        config: ArcSwap::from_pointee(config),
        draining: AtomicBool::new(false),
    });
    gateway.metrics.config_ok.set(1);
    serve(gateway, listeners, resolver, access_log_writer, storage)
}

fn serve(
    gateway: Arc<Gateway>,
    listeners: Listeners,
    resolver: Resolver,
    access_log: AccessLogWriter,
    storage: StorageLock,
) -> Result<Running, StartError> {
    let config = gateway.config();
    let background = Builder::new_multi_thread()
        .worker_threads(config.runtime.background_workers.max(1))
        .thread_name("relais-back")
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let (relay, sweeps) = {
        let _in_background = background.enter();
        (RelayHandle::start(relay_parts(&gateway)), SweepHandle::start(sweep_parts(&gateway)))
    };
    background.spawn(forget_failures(Arc::clone(&gateway)));
    let address = |listener: &std::net::TcpListener, wanted| {
        listener.local_addr().map_err(|error| StartError::Listen(wanted, error))
    };
    let admin = address(&listeners.admin, config.listen.admin)?;
    let (stop, stopped) = watch::channel(Stop::No);
    let core = || {
        Arc::new(Core {
            client: Client::new(resolver.clone(), config.timeouts.connect),
            request_ids: RequestIds::new(),
        })
    };
    {
        let _in_background = background.enter();
        background.spawn(server::serve(Arc::clone(&gateway), core(), listeners.admin, Worker::Admin, stopped.clone()));
    }
    let mut public = config.listen.public;
    let mut workers = Vec::with_capacity(listeners.public.len());
    for (number, listener) in listeners.public.into_iter().enumerate() {
        public = address(&listener, config.listen.public)?;
        let serving =
            server::serve(Arc::clone(&gateway), core(), listener, Worker::Public(gateway.tls.clone()), stopped.clone());
        let mut builder = match config.runtime.per_core {
            true => Builder::new_current_thread(),
            false => Builder::new_multi_thread(),
        };
        if !config.runtime.per_core {
            builder.worker_threads(config.runtime.workers.max(1));
        }
        let runtime = builder.thread_name("relais-core").enable_all().build().map_err(StartError::Thread)?;
        let worker = std::thread::Builder::new()
            .name(format!("relais-core-{number}"))
            .spawn(move || {
                if let Err(error) = runtime.block_on(serving) {
                    tracing::error!(%error, "A worker ended.");
                }
            })
            .map_err(StartError::Thread)?;
        workers.push(worker);
    }
    Ok(Running { gateway, public, admin, stop, workers, background, relay, sweeps, access_log, storage })
}

/// Keeps what is known of wrong keys small. Ends with its runtime.
async fn forget_failures(gateway: Arc<Gateway>) {
    let mut timer = tokio::time::interval(FORGET_EVERY);
    loop {
        timer.tick().await;
        gateway.auth_failures.load().forget();
    }
}

/// What the relay works with. It finds channels through the store, where a reload replaces them.
fn relay_parts(gateway: &Arc<Gateway>) -> RelayParts {
    let config = gateway.config();
    let finder = Arc::clone(gateway);
    RelayParts {
        inbox: gateway.inbox.clone(),
        channels: Arc::new(move |tenant, name| {
            let tenant = finder.store.tenant(tenant)?;
            let channel = tenant.channels.iter().find(|channel| channel.name == name)?;
            let handoff = tenant.policy.allows_on(channel.kind, Feature::Handoff);
            let (account, policy) = (Arc::clone(&tenant.account), Arc::clone(&tenant.policy));
            let payer = Payer { account, policy, kind: channel.kind };
            Some(Served { channel: Arc::clone(channel), handoff, payer })
        }),
        agents: Arc::clone(&gateway.agents),
        http: gateway.client.clone(),
        installations: Arc::clone(&gateway.installations),
        clock: gateway.clock.clone(),
        metrics: Arc::clone(&gateway.metrics),
        limits: config.relay.clone(),
    }
}

/// What the sweeps work with.
fn sweep_parts(gateway: &Arc<Gateway>) -> SweepParts {
    let config = gateway.config();
    let finder = Arc::clone(gateway);
    SweepParts {
        inbox: gateway.inbox.clone(),
        channels: Arc::new(move || finder.store.channels()),
        http: gateway.client.clone(),
        installations: Arc::clone(&gateway.installations),
        clock: gateway.clock.clone(),
        metrics: Arc::clone(&gateway.metrics),
        limits: config.sweep.clone(),
        chatwoot_wait: config.relay.chatwoot_wait,
    }
}

impl Running {
    /// Stops: not ready, nothing new accepted, what is open finishes within the drain time. Returns when all is done.
    pub fn stop(self) {
        self.gateway.draining.store(true, Ordering::Release);
        // Every receiver gone means that every worker has ended already.
        let _ = self.stop.send(Stop::Drain);
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("A worker thread panicked.");
            }
        }
        drop(self.sweeps);
        // Turns that do not end in time are in the inbox, and go on after the next start.
        if let Some(relay) = self.relay {
            let drain = self.gateway.config().timeouts.drain;
            if !self.background.block_on(relay.drain(drain)) {
                tracing::warn!("Turns were cut at the end of the drain time; they go on after the next start.");
            }
        }
        if let Err(error) = self.background.block_on(self.gateway.inbox.clone().close()) {
            tracing::error!(%error, "The inbox was not closed properly.");
        }
        self.background.shutdown_timeout(std::time::Duration::from_secs(1));
        // After the last call has settled.
        if let Err(error) = self.gateway.ledger.close() {
            tracing::error!(%error, "The last usage was not written down.");
        }
        self.access_log.finish();
        drop(self.storage);
    }
}
