//! A changed configuration, taken over while serving: all of it, or nothing.
//!
//! The new file is read and checked whole before anything changes; on any error the old state goes on serving, the
//! gauge `relais_config_ok` falls to 0 and one log line says why. What only a start can change (addresses, threads,
//! the data directory) is refused by name. Counters are never touched: see `policy::store`.
//!
//! Changes are noticed by SIGHUP, and by looking at the files' times every two seconds: a look costs a few system
//! calls, works on every file system, and sees what an editor's rename does to a watch. The same thread looks at the
//! agents' knowledge folders, which change without the configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::Gateway;
use crate::agent::{Agents, BuildError};
use crate::auth::failures::Failures;
use crate::config::{Config, ConfigErrors};
use crate::error::Error;
use crate::llm::upstream::Upstreams;
use crate::server::TlsError;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the old configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files have errors.
    #[error("the configuration has errors:\n{0}")]
    Config(ConfigErrors),
    /// Something changed that only a start can change.
    #[error("only a restart can change {}", .0.join(", "))]
    StartOnly(Vec<&'static str>),
    /// An upstream cannot be prepared.
    #[error("an upstream cannot be prepared")]
    Upstreams(#[source] Error),
    /// An agent cannot be prepared.
    #[error("an agent cannot be prepared")]
    Agents(#[source] BuildError),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used")]
    Tls(#[source] TlsError),
}

impl Gateway {
    /// Takes over a configuration: tenants, keys, plans, upstreams, agents, limits, certificate.
    pub fn take_over(&self, config: Config) -> Result<(), ReloadError> {
        let now = self.config();
        let start_only = now.start_only_changes(&config);
        if !start_only.is_empty() {
            return Err(ReloadError::StartOnly(start_only));
        }
        let upstreams = Upstreams::new(&config.upstreams, &self.clock, &self.metrics, Some(&self.upstreams()))
            .map_err(ReloadError::Upstreams)?;
        let agents =
            Agents::build(&config, &upstreams, &self.client, Arc::clone(&self.metrics)).map_err(ReloadError::Agents)?;
        if let (Some(tls), Some(files)) = (&self.tls, &config.listen.tls) {
            tls.reload(files).map_err(ReloadError::Tls)?;
        }
        // From here nothing fails.
        self.ledger.apply(&config.usage);
        self.store.apply(&config.tenants);
        let bounds = |config: &Config| (config.limits.auth_failures_per_minute, config.limits.auth_addresses_max);
        if bounds(&now) != bounds(&config) {
            self.auth_failures.store(Arc::new(Failures::new(&config.limits, &self.clock)));
        }
        self.upstreams.store(Arc::new(upstreams));
        self.agents.store(Arc::new(agents));
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// Reads the files and takes them over; says in the log and in the metrics what came of it.
    pub fn reload(&self, path: &Path) -> bool {
        let taken = Config::load(path).map_err(ReloadError::Config).and_then(|config| self.take_over(config));
        self.metrics.config_ok.set(i64::from(taken.is_ok()));
        match taken {
            Ok(()) => {
                self.metrics.config_reloads_ok.inc();
                let (tenants, keys) = self.store.counts();
                tracing::info!(tenants, keys, "Configuration taken over.");
                true
            }
            Err(error) => {
                self.metrics.config_reloads_failed.inc();
                tracing::error!(%error, "Configuration not taken over: the one before goes on serving.");
                false
            }
        }
    }
}

/// The thread that notices changes. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the files of the configuration at `path`.
    pub fn start(gateway: Arc<Gateway>, path: PathBuf) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel::<()>(1);
        let thread = std::thread::Builder::new().name("relais-reload".to_owned()).spawn(move || {
            let mut seen = Seen::of(&path, &gateway.config());
            loop {
                let asked = match asked.recv_timeout(LOOK_EVERY) {
                    Ok(()) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let now = Seen::of(&path, &gateway.config());
                if asked || now != seen {
                    gateway.reload(&path);
                    seen = Seen::of(&path, &gateway.config());
                }
                gateway.agents.load().look();
            }
        })?;
        Ok(Self { ask: Some(ask), thread: Some(thread) })
    }

    /// Reload now, whether something changed or not (SIGHUP).
    pub fn reload(&self) {
        if let Some(Err(TrySendError::Disconnected(()))) = self.ask.as_ref().map(|ask| ask.try_send(())) {
            tracing::error!("The thread that reloads has ended.");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that reloads panicked.");
        }
    }
}

/// The files' times and sizes, and those of the folders they stand in, where a new file shows.
#[derive(Debug, PartialEq, Eq)]
struct Seen(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Seen {
    fn of(path: &Path, config: &Config) -> Self {
        let mut paths: BTreeSet<PathBuf> = config.files.iter().cloned().collect();
        paths.insert(path.to_owned());
        // Folders that files are taken from by a pattern, empty ones too: beside the main file anything may change.
        paths.extend(config.folders.iter().map(|folder| folder.dir.clone()));
        let look = |path: PathBuf| {
            let seen = path.metadata().ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
            (path, seen)
        };
        Self(paths.into_iter().map(look).collect())
    }
}
