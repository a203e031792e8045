//! The main job on embedded defaults, for someone who has just cloned the repository.
//!
//! Starts the real gateway, a fake Chatwoot and a fake model as processes, plays a conversation in
//! which a customer is first answered by the agent and then asks for a human, and prints what happens
//! while it happens. Then it stays, with a page and addresses to try, until Ctrl-C. With `--once` it ends after
//! the conversation and its exit status says whether the customer got what was due: an answer to each
//! question, then a human.
//!
//! It looks at everything from outside, as a customer and an operator would: over HTTP, through the
//! gateway's own doors. It makes no use of the gateway's code.

mod children;
mod observe;
mod play;
mod show;
mod stage;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;

use self::children::Children;
use self::observe::Observer;
use self::show::{Show, Voice};
use self::stage::Stage;
use self::watch::{Happening, Watch};
use crate::stop::stop_signal;

/// How long a crashed gateway stays away: long enough to be seen.
const DOWN: Duration = Duration::from_secs(2);

/// How the demo is run.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Let a real model answer: its OpenAI-compatible address, `/v1` included.
    #[arg(long = "llm", value_name = "URL", requires = "model")]
    llm_url: Option<String>,
    /// The model's name there.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The key it wants.
    #[arg(long, env = "RELAIS_DEMO_LLM_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The gateway's program; by default the `relais` beside this one.
    #[arg(long, value_name = "PATH")]
    relais: Option<PathBuf>,
    /// End after the conversation; exit status 1 if the reply or the handoff did not come.
    #[arg(long)]
    once: bool,
}

impl Options {
    /// The longest a customer waits for an answer: a model of a few tokens a second needs longer.
    fn reply_wait_max(&self) -> Duration {
        Duration::from_secs(if self.llm_url.is_some() { 180 } else { 30 })
    }
}

/// Runs the demo to its end. Success means that the conversation went as it should and, without
/// `--once`, that everything stopped cleanly afterwards.
///
/// # Errors
/// Something of this machine's failed (no temporary directory, no terminal). What fails in the
/// conversation is printed, and is the exit status.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let stop = stop_signal()?;
    let show = Show::new();
    let stage = Stage::build(&options)?;
    let mut children = Children::new(stage.log_dir());
    let acted = tokio::select! {
        acted = act(&options, &stage, &mut children, &show) => acted,
        () = stop => Ok(()),
    };
    if let Err(error) = &acted {
        show.failure(error)?;
        children.show_last_lines(&show)?;
    }
    let stopped = children.stop_all(&show).await?;
    if acted.is_ok() && stopped {
        return Ok(ExitCode::SUCCESS);
    }
    show.aside(&format!("Configuration and logs are kept in {}.", stage.keep().display()))?;
    Ok(ExitCode::FAILURE)
}

/// Everything between the curtain's rise and fall. An error is a demo that did not show what it should.
async fn act(options: &Options, stage: &Stage, children: &mut Children, show: &Show) -> anyhow::Result<()> {
    show.title("Relais: a customer's conversation, through the real gateway")?;
    stage.start_all(children, show).await?;
    // Ends with this function, however it ends.
    let mut observers = JoinSet::new();
    let can_crash = Arc::new(AtomicBool::new(false));
    if !options.once {
        show.says(Voice::Event, &format!("watch it at {}", stage.page_url()))?;
        observers.spawn(Observer::of(stage, Arc::clone(&can_crash)).run());
    }
    let mut watch = children.or_death(play::conversation(options, stage, show)).await?;
    if options.once {
        return Ok(());
    }
    play::addresses(stage, show).await?;
    can_crash.store(true, Ordering::Relaxed);
    // Until Ctrl-C, which ends this future from outside.
    loop {
        children.or_death(crash_asked(&mut watch)).await?;
        crash(stage, children, show).await?;
    }
}

/// Waits until somebody at the page wants to see the gateway crash.
async fn crash_asked(watch: &mut Watch) -> anyhow::Result<()> {
    while watch.next().await? != Happening::CrashAsked {}
    Ok(())
}

/// Kills the gateway in the middle of whatever it is doing and, after a moment for whoever looks, starts it again.
async fn crash(stage: &Stage, children: &mut Children, show: &Show) -> anyhow::Result<()> {
    children.crash("relais").await?;
    show.says(Voice::Event, "the gateway was killed (SIGKILL), as somebody at the page wished")?;
    tokio::time::sleep(DOWN).await;
    stage.start_gateway(children)?;
    children.or_death(stage.gateway_ready()).await?;
    show.says(Voice::Event, "it is up again, on what it had on disk")?;
    Ok(())
}
