//! `relais-load`: the load generator, the fakes as processes of their own, and the demo that plays a
//! conversation through the real gateway between them.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use relais_loadtest::demo;
use relais_loadtest::fakes::chatwoot;
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Fault, FaultKind, Settings};
use relais_loadtest::load;
use relais_loadtest::stop::stop_signal;

/// Load for a Relais or another OpenAI-compatible server, fakes of what Relais talks to, and a demonstration.
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
    /// Run a fake Chatwoot, with one account, bot and inbox, until stopped.
    Chatwoot(ChatwootFlags),
    /// Load a gateway that is yours and tell what it did.
    Run(Box<load::Options>),
    /// Measure how long this disk takes to make something durable.
    Disk(load::DiskOptions),
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
    /// The words of an answer are the numbers from 0 on, so that a client can tell what it lost.
    #[arg(long)]
    numbered: bool,
    /// Never answer: calls stay open until their callers leave.
    #[arg(long)]
    hang: bool,
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

#[derive(Debug, Args)]
struct ChatwootFlags {
    /// Port on 127.0.0.1; 0 takes a free one, which is printed.
    #[arg(long, default_value_t = 13_000)]
    port: u16,
    /// Where the bot's webhooks go, path included; may be set later over /control/outgoing_url.
    #[arg(long, value_name = "URL")]
    gateway_url: Option<String>,
    /// The bot's access token.
    #[arg(long, env = "RELAIS_LOAD_BOT_TOKEN", hide_env_values = true, default_value = "fake-bot-token")]
    bot_token: String,
    /// What signs the bot's webhooks; without it they are unsigned.
    #[arg(long, env = "RELAIS_LOAD_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// An administrator's access token.
    #[arg(long, env = "RELAIS_LOAD_USER_TOKEN", hide_env_values = true, default_value = "fake-user-token")]
    user_token: String,
    /// The account's id.
    #[arg(long, default_value_t = 1)]
    account: u64,
    /// The bot's id.
    #[arg(long, default_value_t = 7)]
    bot: u64,
    /// Seed of ids and of everything left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Limit REST calls to 3,000 a minute, as Chatwoot does.
    #[arg(long)]
    limited: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Flags::parse().command {
        Command::Llm(flags) => run_llm(flags).await,
        Command::Chatwoot(flags) => run_chatwoot(flags).await,
        Command::Run(options) => load::run(*options).await,
        Command::Disk(options) => load::run_disk(&options),
        Command::Demo(options) => demo::run(options).await,
    }
}

async fn run_llm(flags: LlmFlags) -> anyhow::Result<ExitCode> {
    let answer = flags.numbered.then(|| (0..flags.tokens).map(|number| format!("{number} ")).collect());
    let behaviour = Behaviour {
        answer,
        faults: if flags.hang { vec![Fault::always(FaultKind::HangBeforeHead)] } else { Vec::new() },
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

async fn run_chatwoot(flags: ChatwootFlags) -> anyhow::Result<ExitCode> {
    let options = chatwoot::RunOptions {
        port: flags.port,
        gateway_url: flags.gateway_url,
        bot_token: flags.bot_token,
        secret: flags.secret,
        user_token: flags.user_token,
        account_id: flags.account,
        bot_id: flags.bot,
        seed: flags.seed,
        limited: flags.limited,
    };
    let stopped = stop_signal()?;
    let announce = |fake: &chatwoot::FakeChatwoot| {
        let url = fake.url();
        // Whoever started us may have closed our output; we serve all the same.
        drop(writeln!(io::stdout(), "Fake Chatwoot listening on {url} (steer and watch: {url}/control/...)."));
    };
    tokio::select! {
        // It ends only when it cannot start.
        run = chatwoot::run(options, announce) => {
            run.with_context(|| format!("starting on port {}", flags.port))?;
        }
        () = stopped => {}
    }
    Ok(ExitCode::SUCCESS)
}
