//! The `relais` binary: reads the command line and the configuration, sets up logs, serves.
//!
//! What it does besides serving (check, keys, schema) is in `cli`.

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use relais_gateway::clock::Clock;
use relais_gateway::config::Config;
use relais_gateway::reload::Watcher;
use relais_gateway::server::Passed;
use relais_gateway::telemetry;
use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    // First of all: whatever makes a TLS connection takes the provider that stands here. It fails only if one
    // stands already, and nothing ran before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None => run(arguments.config),
        Some(Command::Check) => cli::check(&arguments.config),
        Some(Command::Ready) => cli::ready(&arguments.config),
        Some(Command::Key { command }) => cli::key(command),
        Some(Command::Inbox { command }) => cli::inbox(&arguments.config, command),
        Some(Command::Usage(wanted)) => cli::usage(&arguments.config, wanted),
        Some(Command::Chatwoot { command }) => cli::chatwoot::run(&arguments.config, command),
        Some(Command::Agent { command }) => cli::agent_eval::run(&arguments.config, command),
        Some(Command::Config { command }) => cli::config(command),
    };
    done.unwrap_or_else(|failure| {
        cli::complain(&failure);
        ExitCode::FAILURE
    })
}

fn run(path: PathBuf) -> anyhow::Result<ExitCode> {
    let config = Config::load(&path)?;
    telemetry::start_logs(&config.log)?;
    info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "Relais starts.");
    Ok(match serve(config, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format!("{failure:#}"), "Relais ends.");
            ExitCode::FAILURE
        }
    })
}

/// Serves until told to stop by SIGTERM or SIGINT; a second one ends it at once.
fn serve(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let signals = Builder::new_current_thread().enable_all().build().context("starting the signals' runtime")?;
    // Registered before anything serves: a signal that comes while starting is not lost.
    let (mut terminate, mut interrupt, mut hangup) = signals.block_on(async {
        let hangup = signal(SignalKind::hangup())?;
        Ok::<_, std::io::Error>((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, hangup))
    })?;
    let passed = Passed::from_environment().context("taking the sockets that were passed")?;
    let running = relais_gateway::start_on(config, Clock::system(), passed)?;
    info!(public = %running.public, admin = %running.admin, "Relais serves.");
    let watcher = Watcher::start(Arc::clone(&running.gateway), path).context("starting the thread that reloads")?;
    tell_service_manager(NotifyState::Ready);
    let mut stopped = async || {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    signals.block_on(async {
        let stopped = stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = hangup.recv() => watcher.reload(),
            }
        }
    });
    drop(watcher);
    tell_service_manager(NotifyState::Stopping);
    info!("Relais stops: nothing new is accepted, what is open finishes.");
    let (done, drained) = tokio::sync::oneshot::channel();
    let stopping = std::thread::spawn(move || {
        running.stop();
        // Nobody waits any more after a second signal.
        let _ = done.send(());
    });
    let cut = signals.block_on(async {
        tokio::select! { _ = drained => false, () = stopped() => true }
    });
    if cut {
        anyhow::bail!("told to stop twice: what was open is cut");
    }
    if stopping.join().is_err() {
        anyhow::bail!("stopping went wrong");
    }
    info!("Relais stopped.");
    Ok(())
}

/// Tells systemd, if it started us, how far we are. Whoever else started us does not listen.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "The service manager was not told.");
    }
}
