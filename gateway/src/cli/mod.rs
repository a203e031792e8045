//! The command line: what can be asked of `relais`, and the commands that serve nothing.
//!
//! Answers go to standard output, complaints to standard error; the exit code is 0, or 1 if something is wrong.

pub(crate) mod agent_eval;
pub(crate) mod chatwoot;
pub(crate) mod inbox;
mod ready;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use relais_gateway::clock::Clock;
use relais_gateway::config::{AgentKind, Config, Level};
use relais_gateway::usage::report;
use relais_policies::key::{NewKey, RANDOM_BYTES};

use self::agent_eval::AgentCommand;
use self::chatwoot::ChatwootCommand;
use self::inbox::InboxCommand;

/// The conversation-relay agent gateway.
#[derive(Debug, Parser)]
#[command(name = "relais", version)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(long, env = "RELAIS_CONFIG", default_value = "relais.toml", global = true, value_name = "PATH")]
    pub(crate) config: PathBuf,
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads the configuration and says what is in it, or everything that is wrong with it.
    Check,
    /// Asks the running gateway whether it takes traffic: exit code 0 if it does. For health checks.
    Ready,
    /// API keys.
    Key {
        /// What about them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Prints what tenants used, as recorded.
    Usage(report::Arguments),
    /// What waits in the inbox, and what became of conversations.
    Inbox {
        /// What about it.
        #[command(subcommand)]
        command: InboxCommand,
    },
    /// Connects a Chatwoot, tells how it stands, takes it away again.
    Chatwoot {
        /// Which of it.
        #[command(subcommand)]
        command: ChatwootCommand,
    },
    /// AI agents.
    Agent {
        /// What about them.
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// The configuration's form.
    Config {
        /// What about it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `relais key …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key: shows it once, and the lines that let it in.
    New {
        /// A key for tests: rk_test_… rather than rk_live_….
        #[arg(long)]
        test: bool,
        /// Its name, in usage and logs.
        #[arg(long, default_value = "new")]
        name: String,
    },
}

/// `relais config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints the JSON Schema of the configuration file.
    Schema,
}

/// `relais check`
pub(crate) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    match Config::load(path) {
        Ok(config) => {
            print(&summary(path, &config))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            let count = errors.0.len();
            let noun = if count == 1 { "error" } else { "errors" };
            writeln!(io::stderr(), "{errors}\n{count} {noun}.").context("printing the errors")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `relais key …`
pub(crate) fn key(command: &KeyCommand) -> anyhow::Result<ExitCode> {
    let KeyCommand::New { test, name } = command;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).context("asking the machine for random bytes")?;
    let new = NewKey::from_random(!test, &random);
    print(&format!(
        "# The key. Give it to its owner now: it is kept nowhere and cannot be shown again.\n{}\n\n\
         # Under the tenant's [[tenant]]:\n{}",
        new.expose(),
        new.toml(name)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `relais ready`
pub(crate) fn ready(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let answer = ready::ask(config.listen.admin)?;
    print(&format!("{}\n", answer.text))?;
    Ok(if answer.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `relais usage`
pub(crate) fn usage(path: &Path, arguments: &report::Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    report::run(&config.storage.dir, arguments, &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// `relais inbox …`
pub(crate) fn inbox(path: &Path, command: &InboxCommand) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    inbox::run(&config.storage.dir, command, Clock::system().now_ms(), &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// `relais config …`
pub(crate) fn config(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Schema = command;
    let schema = serde_json::to_string_pretty(&Config::schema()).context("writing the schema as JSON")?;
    print(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error why nothing was done, the causes in one line.
pub(crate) fn complain(failure: &anyhow::Error) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "{failure:#}");
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("printing the answer")
}

fn summary(path: &Path, config: &Config) -> String {
    let keys = config.tenants.iter().map(|tenant| tenant.keys.len()).sum();
    let channels = config.tenants.iter().map(|tenant| tenant.channels.len()).sum();
    let counts = [
        count(config.upstreams.len(), "upstream"),
        count(config.agents.len(), "agent"),
        count(config.tenants.len(), "tenant"),
        count(keys, "key"),
        count(channels, "Chatwoot channel"),
        count(config.files.len(), "file"),
    ];
    let mut text = format!("{} is good: {}.\n", path.display(), counts.join(", "));
    text += &format!(
        "Public on {}, admin on {}, data in {}.\n",
        config.listen.public,
        config.listen.admin,
        config.storage.dir.display()
    );
    for note in notes(config) {
        text += &format!("note: {note}\n");
    }
    text
}

/// What is no error but may not be meant.
fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.tenants.is_empty() {
        notes.push("there is no tenant, so nobody can be served".to_owned());
    }
    let mut answering = BTreeSet::new();
    for tenant in &config.tenants {
        let level_max = Level::opened_by(&tenant.policy);
        for channel in &tenant.channels {
            let own = [&channel.agent].into_iter().chain(channel.choices.iter().map(|choice| &choice.agent));
            for agent in own.flat_map(|agent| [agent].into_iter().chain(&agent.fallback)) {
                let higher = matches!(&agent.kind, AgentKind::OpenAi(model) if model.level > level_max);
                if answering.insert(agent.id.as_str()) && higher {
                    notes.push(format!(
                        "the plans of the tenant \"{}\" open agents up to {level_max:?}, so there the agent \"{}\" has \
                         no tool of a higher level",
                        tenant.id, agent.id
                    ));
                }
            }
        }
    }
    for id in config.agents.keys().filter(|id| !answering.contains(id.as_str())) {
        notes.push(format!("the agent \"{id}\" answers in no channel"));
    }
    let with_keys = config.tenants.iter().find(|tenant| !tenant.keys.is_empty());
    if let (Some(tenant), true) = (with_keys, config.upstreams.is_empty()) {
        notes.push(format!("the tenant \"{}\" has a key, but there is no upstream to call with it", tenant.id));
    }
    if !config.listen.admin.ip().is_loopback() {
        notes.push("the admin address can be reached from other machines; see that it is not public".to_owned());
    }
    notes
}

fn count(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in ["relais --config x check", "relais check --config x"] {
            let arguments = parse(line).unwrap();
            assert_eq!(arguments.config, Path::new("x"));
            assert!(matches!(arguments.command, Some(Command::Check)));
        }
        assert!(parse("relais --config x").unwrap().command.is_none());
        let new = parse("relais key new --test --name ci").unwrap().command;
        assert!(matches!(
            new,
            Some(Command::Key { command: KeyCommand::New { test: true, name } }) if name == "ci"
        ));
        assert!(parse("relais key").is_err() && parse("relais config").is_err() && parse("relais serve").is_err());
    }

    #[test]
    fn the_summary_notes_what_may_not_be_meant() {
        let text = "[listen]\nadmin = \"0.0.0.0:9090\"\n[[agent]]\nid = \"idle\"\nkind = \"knowledge\"\ndir = \".\"";
        let config = Config::from_str(text, Path::new(env!("CARGO_MANIFEST_DIR")), &|_| None).unwrap();
        let summary = summary(Path::new("relais.toml"), &config);
        assert!(summary.starts_with("relais.toml is good: 0 upstreams, 1 agent, 0 tenants, "), "{summary}");
        for note in ["there is no tenant", "\"idle\" answers in no channel", "admin address"] {
            assert!(summary.contains(note), "{summary}");
        }
    }
}
