//! `relais chatwoot`: connects a Chatwoot in one command, tells how it stands, and takes it away again.
//!
//! Every step says what it found or did; a failure says what to do. A second run finds what a first one did, whole or
//! interrupted, and does the rest. What is kept goes into a file of our own that the configuration includes (`file`),
//! never into the operator's. Tokens and secrets are never printed, and an administrator's token is not kept
//! unless asked for.
//!
//! Exit: 0 done, 1 something is in the way (said), 2 a wrong command line, 3 the self-test failed, 130 interrupted.

mod address;
mod advice;
mod connect;
mod disconnect;
mod file;
mod running;
mod self_test;
mod status;
mod steps;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::Uri;
use relais_gateway::chatwoot::admin::{Account, Admin};
use relais_gateway::clock::Clock;
use relais_gateway::config::{Channel, Config, Tenant};
use relais_gateway::http::client::Client;
use relais_gateway::http::resolve::Resolver;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{SignalKind, signal};

use self::advice::advice;
use self::steps::{Failed, Steps};

/// A token is a line; this is a mistaken path.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// `relais chatwoot …`
#[derive(Debug, Subcommand)]
pub(crate) enum ChatwootCommand {
    /// Makes the bot, keeps its secrets, proves that webhooks arrive, puts it into inboxes. May be run again.
    Connect(Connect),
    /// Tells how each connected channel stands. Changes nothing.
    Status(StatusOf),
    /// Takes the bot out of its inboxes, deletes it and forgets its secrets. May be run again.
    Disconnect(Disconnect),
}

/// `relais chatwoot connect`
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// The Chatwoot's address, as the dashboard has it, without a path.
    #[arg(long, value_name = "URL")]
    url: String,
    /// The tenant it is for.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The channel's name within the tenant.
    #[arg(long, value_name = "NAME", default_value = "main")]
    channel: String,
    /// The account at Chatwoot, if the token's user is in several.
    #[arg(long, value_name = "ID")]
    account: Option<u64>,
    /// Which inboxes the bot goes into, by number or name; not given: all.
    #[arg(long, value_name = "ID|NAME")]
    inbox: Vec<String>,
    /// Where Chatwoot reaches this gateway. Needed the first time.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The agent that answers; not given: the one there is, or "default".
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Takes inboxes over from another bot.
    #[arg(long)]
    force: bool,
    /// Keeps the administrator's token: messages missed while down are then read, and quiet conversations found.
    #[arg(long)]
    keep_user_token: bool,
    /// Neither asks the running gateway nor proves that webhooks arrive.
    #[arg(long)]
    no_self_test: bool,
    /// How long the gateway may take to read the file, and a webhook to arrive.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    wait: u64,
    #[command(flatten)]
    token: Token,
    /// Prints one JSON object at the end instead of lines.
    #[arg(long)]
    json: bool,
}

/// `relais chatwoot status`
#[derive(Debug, Args)]
pub(crate) struct StatusOf {
    /// Only this tenant's channels.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only channels of this name.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    #[command(flatten)]
    token: Token,
    /// Prints one JSON object at the end instead of lines.
    #[arg(long)]
    json: bool,
}

/// `relais chatwoot disconnect`
#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    /// The tenant.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The channel's name within the tenant.
    #[arg(long, value_name = "NAME", default_value = "main")]
    channel: String,
    #[command(flatten)]
    token: Token,
    /// Prints one JSON object at the end instead of lines.
    #[arg(long)]
    json: bool,
}

/// Where the administrator's token comes from.
#[derive(Debug, Args)]
struct Token {
    /// An administrator's access token. Others on this machine can see it here: a file or the variable is better.
    #[arg(long, env = "RELAIS_CHATWOOT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// A file that holds it; - is standard input. Goes before the other two.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

/// What all three need.
struct Context<'a> {
    path: &'a Path,
    config: Config,
    http: Client,
    clock: Clock,
}

/// Runs one of them. Blocks until it is done.
pub(crate) fn run(path: &Path, command: &ChatwootCommand) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let http = Client::new(Resolver::new(), config.timeouts.connect);
        let context = Context { path, config, http, clock: Clock::system() };
        let (mut steps, done) = match command {
            ChatwootCommand::Connect(arguments) => {
                let mut steps = Steps::new(arguments.json);
                let done = connect::run(&context, arguments, &mut steps).await;
                (steps, done)
            }
            ChatwootCommand::Status(arguments) => {
                let mut steps = Steps::new(arguments.json);
                let done = status::run(&context, arguments, &mut steps).await;
                (steps, done)
            }
            ChatwootCommand::Disconnect(arguments) => {
                let mut steps = Steps::new(arguments.json);
                let done = disconnect::run(&context, arguments, &mut steps).await;
                (steps, done)
            }
        };
        steps.finish(done)
    })
}

impl Token {
    /// The token, wherever it is; none if none was given.
    fn read(&self) -> anyhow::Result<Option<SecretString>> {
        let text = match (&self.token_file, &self.token) {
            (Some(path), _) => {
                let mut text = String::new();
                let read = if path.as_os_str() == "-" {
                    io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text)
                } else {
                    std::fs::File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
                };
                read.with_context(|| format!("reading the token from {}", path.display()))?;
                SecretString::from(text.trim())
            }
            (None, Some(token)) => SecretString::from(token.expose_secret().trim()),
            (None, None) => return Ok(None),
        };
        if text.expose_secret().is_empty() || !text.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("the token is empty, or holds a space or a character that no token has");
        }
        Ok(Some(text))
    }
}

impl Context<'_> {
    fn admin(&self, url: &Uri, token: SecretString) -> Admin {
        Admin::new(self.http.clone(), url, token, self.config.relay.chatwoot_wait)
    }

    fn tenant(&self, id: &str) -> Option<&Tenant> {
        self.config.tenants.iter().find(|tenant| *tenant.id == *id)
    }

    fn channel(&self, tenant: &str, name: &str) -> Option<&Channel> {
        let mut channels = self.tenant(tenant)?.channels.iter();
        channels.find(|channel| channel.name == name).map(AsRef::as_ref)
    }
}

/// The account that a token's user administers. Says it as the step "token".
async fn administered(admin: &Admin, wanted: Option<u64>, steps: &mut Steps) -> Result<(u64, Account), Failed> {
    const STEP: &str = "token";
    let profile = admin.profile().await.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
    let is_administrator = |role: &Option<String>| role.as_deref() == Some("administrator");
    let mut candidates = profile.accounts.iter().filter(|of| wanted.is_none_or(|wanted| of.id == wanted));
    let (Some(first), more) = (candidates.next(), candidates.count()) else {
        let what = wanted.map_or_else(
            || "its user is in no account".to_owned(),
            |id| format!("its user is not in the account {id}"),
        );
        let named: Vec<String> = profile.accounts.iter().map(|of| of.id.to_string()).collect();
        let todo = format!(
            "Use the token of an administrator of that account, or name the account with --account: {}.",
            if named.is_empty() { "this user has none".to_owned() } else { named.join(", ") }
        );
        return Err(steps.fail(STEP, &what, &todo));
    };
    if more > 0 {
        let named: Vec<String> = profile
            .accounts
            .iter()
            .map(|of| format!("{} ({})", of.id, of.name.as_deref().unwrap_or("unnamed")))
            .collect();
        let todo = format!("Say which one with --account: {}.", named.join(", "));
        return Err(steps.fail(STEP, "its user is in several accounts", &todo));
    }
    if !is_administrator(&first.role) {
        let what = format!(
            "its user is \"{}\" in the account {}, not an administrator",
            first.role.as_deref().unwrap_or("nothing"),
            first.id
        );
        let todo = "Bots and inboxes take an administrator: have one run this, or make this user one under Settings, \
            Agents.";
        return Err(steps.fail(STEP, &what, todo));
    }
    let name = first.name.as_deref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    steps.ok(STEP, &format!("an administrator's of the account {}{name}", first.id));
    Ok((first.id, admin.account(first.id)))
}

/// Ends when the operator or the system wants the command to end.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// What in an inbox's settings speaks or acts beside the bot (said as notes).
fn note_settings(inbox: &relais_gateway::chatwoot::admin::ChatwootInbox, steps: &mut Steps) {
    let on = |setting: Option<bool>| setting == Some(true);
    let out_of_office = inbox.out_of_office_message.as_deref().is_some_and(|text| !text.trim().is_empty());
    let interferes = [
        (on(inbox.greeting_enabled), "its greeting is sent beside the agent's answer; turn it off"),
        (
            on(inbox.working_hours_enabled) && out_of_office,
            "its out-of-office message is sent beside the agent, which answers at any hour; turn it off",
        ),
        (
            on(inbox.enable_email_collect) && inbox.channel_type.as_deref() == Some("Channel::WebWidget"),
            "it asks for a mail address beside the agent's first answer; turn it off unless you want that",
        ),
        (
            on(inbox.enable_auto_assignment),
            "auto-assignment gives a conversation to a human as soon as it opens: after a handoff that is right, but \
             it may overrule the team that the handoff chose",
        ),
        (on(inbox.csat_survey_enabled), "its survey goes out whenever a conversation is resolved, also by the agent"),
    ];
    for (_, what) in interferes.into_iter().filter(|(is_on, _)| *is_on) {
        steps.note("settings", &format!("inbox {} \"{}\": {what}", inbox.id, inbox.name));
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
