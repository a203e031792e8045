//! `billing.toml`: what the operator wrote, resolved and checked.
//!
//! The file as written is in `raw`, whose types also make the JSON Schema; here is what comes out of it. What is wrong
//! is told all at once, each with its key. It is read at start only: a change needs a restart, which gateways do not
//! notice.

mod raw;
mod token;

pub use self::raw::{Limits, Role, Timeouts};
pub use self::token::{NewToken, TOKEN_RANDOM_BYTES, token_hash};

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use self::raw::RawConfig;
use crate::vault::Vault;

/// A configuration that can be served.
#[derive(Debug)]
pub struct Config {
    /// Address of the API.
    pub api: SocketAddr,
    /// Address of metrics and health.
    pub ops: SocketAddr,
    /// Where everything is kept.
    pub database: Database,
    /// Seals tenants' secrets.
    pub vault: Vault,
    /// Who may ask for what.
    pub tokens: Vec<Token>,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// How long we wait for whom.
    pub timeouts: Timeouts,
    /// What is logged: a level, or a filter by module.
    pub log_level: String,
    /// Log lines as JSON.
    pub log_json: bool,
}

/// Where everything is kept.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file beside us.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Connections.
        pool: Pool,
    },
    /// A server.
    Postgres {
        /// Its address, with user and password.
        url: SecretString,
        /// Connections.
        pool: Pool,
    },
}

/// Connections to the database, beside the one that writes.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// How many may read at a time.
    pub readers: u32,
    /// How long to wait for one, ms.
    pub wait_ms: u64,
}

/// A bearer token. Holds no secret: the hash of 256 random bits opens nothing.
#[derive(Debug, Clone)]
pub struct Token {
    /// Whose it is, in the audit trail.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The hash of the token.
    pub hash: [u8; 32],
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Database {
    /// Connections that may read at a time.
    pub fn readers(&self) -> u32 {
        self.pool().readers
    }

    /// How long to wait for a connection, ms.
    pub fn wait_ms(&self) -> u64 {
        self.pool().wait_ms
    }

    fn pool(&self) -> Pool {
        match self {
            Self::Sqlite { pool, .. } | Self::Postgres { pool, .. } => *pool,
        }
    }
}

/// Shows no password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path, .. } => write!(f, "SQLite in {}", path.display()),
            Self::Postgres { .. } => f.write_str("PostgreSQL"),
        }
    }
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the file, and what its `env:` and `file:` lead to.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors(vec![format!("{} cannot be read: {error}", path.display())]))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, dir, &|name| std::env::var(name).ok())
            .map_err(|errors| ConfigErrors(errors.0.into_iter().map(|e| format!("{}: {e}", path.display())).collect()))
    }

    /// Reads a text as if it stood in a file of that directory.
    pub fn parse(text: &str, dir: &Path, env: Env<'_>) -> Result<Self, ConfigErrors> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigErrors(vec![error.to_string()]))?;
        resolve(raw, Origin { dir, env })
    }

    /// The JSON Schema of the file.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(RawConfig)
    }
}

/// Where `env:` and `file:` lead.
#[derive(Clone, Copy)]
struct Origin<'a> {
    dir: &'a Path,
    env: Env<'a>,
}

impl Origin<'_> {
    /// A text that may stand elsewhere, without the line end that editors add.
    fn text(self, written: &str) -> Result<String, String> {
        let text = if let Some(name) = written.strip_prefix("env:") {
            (self.env)(name).ok_or_else(|| format!("the variable {name} is not set"))?
        } else if let Some(path) = written.strip_prefix("file:") {
            let path = self.dir.join(path);
            std::fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?
        } else {
            written.to_owned()
        };
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn database(self, url: &str, pool: Pool) -> Result<Database, String> {
        let url = self.text(url)?;
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') {
                return Err("names no file: write sqlite:PATH".to_owned());
            }
            return Ok(Database::Sqlite { path: self.dir.join(path), pool });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Database::Postgres { url: SecretString::from(url), pool });
        }
        Err("is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST/DATABASE".to_owned())
    }
}

fn resolve(raw: RawConfig, origin: Origin<'_>) -> Result<Config, ConfigErrors> {
    let mut errors = Vec::new();
    let mut note = |key: &str, message: String| errors.push(format!("{key}: {message}"));
    let address = |written: &str| {
        written.parse::<SocketAddr>().map_err(|_| "is no address: write IP:PORT, such as 127.0.0.1:9301".to_owned())
    };
    let api = address(&raw.listen.api).map_err(|message| note("listen.api", message)).ok();
    let ops = address(&raw.listen.ops).map_err(|message| note("listen.ops", message)).ok();
    let pool = Pool { readers: raw.database.readers, wait_ms: raw.database.wait_ms };
    let database = origin.database(&raw.database.url, pool).map_err(|message| note("database.url", message)).ok();
    let vault = origin
        .text(&raw.secrets.keys)
        .and_then(|keys| Vault::parse(&keys).map_err(|error| error.to_string()))
        .map_err(|message| note("secrets.keys", message))
        .ok();
    for (key, message) in raw.bounds() {
        note(key, message);
    }
    let mut tokens: Vec<Token> = Vec::new();
    for (at, written) in raw.token.into_iter().enumerate() {
        let key = format!("token[{at}]");
        if written.name.is_empty() || written.name.len() > 63 || written.name.contains(|c: char| c.is_control()) {
            note(&format!("{key}.name"), "has 1 to 63 letters; it stands in the audit trail".to_owned());
        }
        if ["system", "command"].contains(&written.name.as_str()) {
            note(
                &format!("{key}.name"),
                "stands for what nobody asked for in the audit trail: take another".to_owned(),
            );
        }
        if tokens.iter().any(|other| other.name == written.name) {
            note(&format!("{key}.name"), format!("there is a token \"{}\" already", written.name));
        }
        match relais_policies::key::hash_from_hex(&written.hash) {
            Some(hash) => tokens.push(Token { name: written.name, role: written.role, hash }),
            None => {
                note(&format!("{key}.hash"), "has 64 hex digits, as `relais-billing token new` prints them".to_owned())
            }
        }
    }
    match (api, ops, database, vault, errors.is_empty()) {
        (Some(api), Some(ops), Some(database), Some(vault), true) => Ok(Config {
            api,
            ops,
            database,
            vault,
            tokens,
            limits: raw.limits,
            timeouts: raw.timeouts,
            log_level: raw.log.level,
            log_json: raw.log.json,
        }),
        _ => Err(ConfigErrors(errors)),
    }
}

#[cfg(test)]
mod tests;
