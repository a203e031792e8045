//! The command line: what can be asked of `relais-billing` without a sidecar that runs.
//!
//! Answers go to standard output, complaints to standard error; the exit code is 0, or 1 if something is wrong.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use relais_billing::config::{Config, NewToken, TOKEN_RANDOM_BYTES};

/// The billing sidecar of Relais.
#[derive(Debug, Parser)]
#[command(name = "relais-billing", version)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(long, env = "RELAIS_BILLING_CONFIG", default_value = "billing.toml", global = true, value_name = "PATH")]
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
    /// Makes a folder with a configuration that serves at once: a sealing key, an owner's token, SQLite.
    Init {
        /// The folder; made if missing, and it must not hold a configuration yet.
        dir: PathBuf,
    },
    /// Bearer tokens.
    Token {
        /// What about them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// The keys that seal tenants' secrets.
    Secrets {
        /// What about them.
        #[command(subcommand)]
        command: SecretsCommand,
    },
    /// The configuration's form.
    Config {
        /// What about it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Prints the API's OpenAPI document.
    Openapi,
}

/// `relais-billing token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token: shows it once, and the lines that let it in.
    New {
        /// Whose it is, in the audit trail.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: RoleName,
    },
}

/// A role, on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// A gateway.
    Gateway,
    /// Reads.
    Viewer,
    /// Changes tenants, plans, keys and channels.
    Operator,
    /// Everything.
    Owner,
}

/// `relais-billing secrets …`
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Makes a key, `ID:HEX`. Put it in front of those in `secrets.keys`, restart, then POST
    /// /v1/admin/secrets/rotate.
    New {
        /// Its id: small letters and digits.
        #[arg(long, default_value = "k1")]
        id: String,
    },
}

/// `relais-billing config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints the JSON Schema of the configuration file.
    Schema,
}

/// `relais-billing check`
pub(crate) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            writeln!(io::stderr(), "{errors}").context("printing the errors")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut text = format!("{} is good: {}, {} tokens.\n", path.display(), config.database, config.tokens.len());
    text += &format!("API on {}, metrics and health on {}.\n", config.api, config.ops);
    if config.tokens.is_empty() {
        text += "note: there is no token, so nobody can ask for anything; `relais-billing token new` makes one\n";
    }
    for (what, address) in [("API", config.api), ("metrics and health", config.ops)] {
        if !address.ip().is_loopback() {
            text += &format!("note: {what} can be reached from other machines, in the clear; see that they should\n");
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `relais-billing init DIR`
pub(crate) fn init(dir: &Path) -> anyhow::Result<ExitCode> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context("making the folder")?;
    let token = new_token()?;
    let config = format!(
        "# Made by `relais-billing init`; `relais-billing config schema` describes every key.\n\
         [database]\nurl = \"sqlite:billing.db\"\n\n[secrets]\nkeys = \"file:sealing.key\"\n\n{}",
        token.toml("owner", "owner")
    );
    // The configuration first: if one is there, nothing of it is touched.
    write_new(&dir.join("billing.toml"), &config)?;
    write_new(&dir.join("sealing.key"), &format!("k1:{}\n", hex(&random::<32>()?)))?;
    write_new(&dir.join("owner.token"), &format!("{}\n", token.expose()))?;
    print(&format!(
        "{dir}/billing.toml    relais-billing --config {dir}/billing.toml serves it\n\
         {dir}/sealing.key     keep a copy elsewhere: without it tenants' secrets are lost\n\
         {dir}/owner.token     the token to ask with; move it to where only you read it\n",
        dir = dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `relais-billing token …`
pub(crate) fn token(command: &TokenCommand) -> anyhow::Result<ExitCode> {
    let TokenCommand::New { name, role } = command;
    let token = new_token()?;
    let role = role.to_possible_value().map(|role| role.get_name().to_owned()).unwrap_or_default();
    print(&format!(
        "# The token. Give it to its owner now: it is kept nowhere and cannot be shown again.\n{}\n\n\
         # In billing.toml:\n{}",
        token.expose(),
        token.toml(name, &role)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `relais-billing secrets …`
pub(crate) fn secrets(command: &SecretsCommand) -> anyhow::Result<ExitCode> {
    let SecretsCommand::New { id } = command;
    print(&format!("{id}:{}\n", hex(&random::<32>()?)))?;
    Ok(ExitCode::SUCCESS)
}

/// `relais-billing config …`
pub(crate) fn config(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Schema = command;
    let schema = serde_json::to_string_pretty(&Config::schema()).context("writing the schema as JSON")?;
    print(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// `relais-billing openapi`
pub(crate) fn openapi() -> anyhow::Result<ExitCode> {
    let document = serde_json::to_string_pretty(&relais_billing::api::document()).context("writing the document")?;
    print(&format!("{document}\n"))?;
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

fn new_token() -> anyhow::Result<NewToken> {
    Ok(NewToken::from_random(&random::<TOKEN_RANDOM_BYTES>()?))
}

fn random<const BYTES: usize>() -> anyhow::Result<[u8; BYTES]> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).context("asking the machine for random bytes")?;
    Ok(random)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that only its owner reads, and that was not there.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("relais-billing --config x").unwrap().command.is_none());
        assert!(matches!(parse("relais-billing check --config x").unwrap().command, Some(Command::Check)));
        assert!(parse("relais-billing token new --name ops --role owner").is_ok());
        assert!(parse("relais-billing token new --name ops --role king").is_err());
    }

    #[test]
    fn a_folder_made_is_a_configuration_that_is_good_and_is_not_made_twice() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("billing");
        init(&made).unwrap();
        let config = Config::load(&made.join("billing.toml")).unwrap();
        assert_eq!(config.tokens.len(), 1);
        let before = std::fs::read(made.join("billing.toml")).unwrap();
        assert!(init(&made).is_err());
        assert_eq!(std::fs::read(made.join("billing.toml")).unwrap(), before);
    }
}
