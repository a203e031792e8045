//! `relais-load`: the fakes as processes of their own, and the demo that plays a conversation
//! through the real gateway between them.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use relais_loadtest::demo;
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings};
use relais_loadtest::stop::stop_signal;

/// Fakes of what Relais talks to, and a demonstration.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a fake model behind an OpenAI-compatible address until stopped.
    Llm(LlmFlags),
    /// Play a customer's conversation through the real gateway, with fakes around it.
    Demo(demo::Options),
}

#[derive(Debug, Args)]
struct LlmFlags {
    /// Port on 127.0.0.1; 0 takes a free one, which is printed.
    #[arg(long, default_value_t = 18_080)]
    port: u16,
    /// The bearer key it wants; without one, everybody is let in.
    #[arg(long, env = "RELAIS_LOAD_LLM_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A model to list; may be repeated.
    #[arg(long = "model", default_value = "fake-model")]
    models: Vec<String>,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 16)]
    tokens: u64,
    /// Wait before the head of an answer, milliseconds.
    #[arg(long, default_value_t = 0)]
    first_byte_ms: u64,
    /// Wait before every token but the first, milliseconds.
    #[arg(long, default_value_t = 0)]
    gap_ms: u64,
    /// Seed of everything left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls kept in full for /control/truth; 0 is fastest.
    #[arg(long, default_value_t = 1000)]
    calls_max: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Flags::parse().command {
        Command::Llm(flags) => run_llm(flags).await,
        Command::Demo(options) => demo::run(options).await,
    }
}

async fn run_llm(flags: LlmFlags) -> anyhow::Result<ExitCode> {
    let behaviour = Behaviour {
        tokens: flags.tokens,
        first_byte_ms: flags.first_byte_ms,
        gap_ms: flags.gap_ms,
        ..Behaviour::default()
    };
    let settings = Settings {
        port: flags.port,
        key: flags.key,
        models: flags.models,
        behaviour,
        seed: flags.seed,
        calls_max: flags.calls_max,
        ..Settings::default()
    };
    let stopped = stop_signal()?;
    let llm = FakeLlm::start(settings).await.with_context(|| format!("starting on port {}", flags.port))?;
    let url = llm.url();
    writeln!(
        io::stdout(),
        "Fake model listening on {url}/v1 (steer: POST {url}/control, truth: GET {url}/control/truth)."
    )?;
    stopped.await;
    llm.stop().await;
    Ok(ExitCode::SUCCESS)
}
