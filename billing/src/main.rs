//! The `relais-billing` binary: reads the command line and the configuration, sets up logs, serves.
//!
//! What it does besides serving is in `cli`.

mod cli;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use relais_billing::clock::Clock;
use relais_billing::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    // First of all: whatever makes a TLS connection takes the provider that stands here. It fails only if one
    // stands already, and nothing ran before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None => run(&arguments.config),
        Some(Command::Check) => cli::check(&arguments.config),
        Some(Command::Init { dir }) => cli::init(dir),
        Some(Command::Token { command }) => cli::token(command),
        Some(Command::Secrets { command }) => cli::secrets(command),
        Some(Command::Config { command }) => cli::config(command),
        Some(Command::Openapi) => cli::openapi(),
    };
    done.unwrap_or_else(|failure| {
        cli::complain(&failure);
        ExitCode::FAILURE
    })
}

fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    start_logs(&config)?;
    info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), database = %config.database, "Billing starts.");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    Ok(match runtime.block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format!("{failure:#}"), "Billing ends.");
            ExitCode::FAILURE
        }
    })
}

/// Serves until told to stop by SIGTERM or SIGINT; a second one ends it at once.
async fn serve(config: Config) -> anyhow::Result<()> {
    // Registered before anything serves: a signal that comes while starting is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("registering for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("registering for signals")?;
    let running = relais_billing::start(config, Clock::system()).await?;
    info!(api = %running.api, ops = %running.ops, "Billing serves.");
    let lost = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = running.lost() => true,
    };
    info!("Billing stops: nothing new is accepted, what is being answered is answered.");
    tokio::select! {
        () = running.stop() => {}
        _ = terminate.recv() => anyhow::bail!("told to stop twice: what was being answered is cut"),
        _ = interrupt.recv() => anyhow::bail!("told to stop twice: what was being answered is cut"),
    }
    if lost {
        anyhow::bail!("another sidecar may write to the database, so this one ends; start it again");
    }
    info!("Billing stopped.");
    Ok(())
}

fn start_logs(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&config.log_level).context("reading log.level")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if config.log_json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    started.map_err(|error| anyhow::anyhow!(error)).context("setting up the log")
}
