//! The `relais` binary: reads the command line and the configuration, sets up logs, serves.
//!
//! What it does besides serving (check, keys, schema) is in `cli`.

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use relais_gateway::config::Config;
use relais_gateway::telemetry;
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
        Some(Command::Key { command }) => cli::key(command),
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

/// Serves until told to stop. The place where the gateway itself begins.
fn serve(config: Config, path: PathBuf) -> anyhow::Result<()> {
    info!(public = %config.listen.public, config = %path.display(), "Configuration read; this build serves nothing yet.");
    Ok(())
}
