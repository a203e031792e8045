//! `billing.toml` as it is written: the words, their types, their defaults and bounds.
//!
//! The JSON Schema that `relais-billing config schema` prints is made of these types. What is missing takes the default.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The configuration of the billing sidecar. Relative paths are relative to this file's directory. Where it says so,
/// `env:NAME` takes a text from a variable of the environment and `file:PATH` from a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "billing.toml")]
pub(super) struct RawConfig {
    /// Where we listen.
    pub(super) listen: RawListen,
    /// Where everything is kept.
    pub(super) database: RawDatabase,
    /// How tenants' secrets are sealed.
    pub(super) secrets: RawSecrets,
    /// Who may ask for what.
    pub(super) token: Vec<RawToken>,
    /// Bounds on what comes in.
    pub(super) limits: Limits,
    /// How long we wait for whom.
    pub(super) timeouts: Timeouts,
    /// Logs.
    pub(super) log: RawLog,
}

/// `[listen]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListen {
    /// Address of the API, for operators and gateways. Plain HTTP: keep it on loopback or behind a proxy with TLS.
    pub(super) api: String,
    /// Address of metrics and health. Never public.
    pub(super) ops: String,
}

/// `[database]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDatabase {
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`; also `env:NAME` or `file:PATH`.
    pub(super) url: String,
    /// Connections that may read at a time, beside the one that writes.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) readers: u32,
    /// How long a request waits for a connection, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) wait_ms: u64,
}

/// `[secrets]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSecrets {
    /// `ID:HEX[,ID:HEX…]`, or rather `env:NAME` or `file:PATH` of that. The first key seals, all open.
    pub(super) keys: String,
}

/// `[[token]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    /// Whose it is, in the audit trail.
    pub(super) name: String,
    /// What it may do.
    pub(super) role: Role,
    /// The hash that `relais-billing token new` printed.
    pub(super) hash: String,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A gateway: takes policies and leases, reports usage. Nothing of `/v1/admin`.
    Gateway,
    /// Reads everything that is not secret.
    Viewer,
    /// Also changes tenants, plans, keys and channels.
    Operator,
    /// Also what cannot be undone, and what concerns the sidecar itself.
    Owner,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A request's body, bytes.
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub body_bytes_max: usize,
    /// Connections to the API at one time. The next one waits in the kernel's queue.
    #[schemars(range(min = 1, max = 65_536))]
    pub connections_max: usize,
    /// Items in one page of a list.
    #[schemars(range(min = 1, max = 10_000))]
    pub page_items_max: u32,
}

/// `[timeouts]`
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until a request's head is there, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub head_ms: u64,
    /// Until a request is read and answered, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub request_ms: u64,
    /// For what is being answered when we are told to stop, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub drain_ms: u64,
}

/// `[log]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter by module.
    pub(super) level: String,
    /// One JSON object a line.
    pub(super) json: bool,
}

impl Default for RawListen {
    fn default() -> Self {
        Self { api: "127.0.0.1:9301".to_owned(), ops: "127.0.0.1:9302".to_owned() }
    }
}

impl Default for RawDatabase {
    fn default() -> Self {
        Self { url: "sqlite:billing.db".to_owned(), readers: 4, wait_ms: 5_000 }
    }
}

impl Default for RawSecrets {
    fn default() -> Self {
        Self { keys: "env:RELAIS_BILLING_KEYS".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes_max: 256 * 1024, connections_max: 1024, page_items_max: 200 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head_ms: 10_000, request_ms: 30_000, drain_ms: 10_000 }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false }
    }
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Viewer, Self::Operator, Self::Owner];

    /// Whether this role may do what needs that one. A gateway is no lesser operator, nor the other way round.
    pub fn may(self, needed: Self) -> bool {
        let level = |role| match role {
            Self::Gateway => 0,
            Self::Viewer => 1,
            Self::Operator => 2,
            Self::Owner => 3,
        };
        match (self, needed) {
            (Self::Gateway, Self::Gateway) => true,
            (Self::Gateway, _) | (_, Self::Gateway) => false,
            (has, needed) => level(has) >= level(needed),
        }
    }
}

impl RawConfig {
    /// Numbers outside their bounds: the key, and what is wrong.
    pub(super) fn bounds(&self) -> Vec<(&'static str, String)> {
        let numbers = [
            ("database.readers", u64::from(self.database.readers), 1, 1000),
            ("database.wait_ms", self.database.wait_ms, 1, 600_000),
            ("limits.body_bytes_max", self.limits.body_bytes_max as u64, 1024, 67_108_864),
            ("limits.connections_max", self.limits.connections_max as u64, 1, 65_536),
            ("limits.page_items_max", u64::from(self.limits.page_items_max), 1, 10_000),
            ("timeouts.head_ms", self.timeouts.head_ms, 1, 600_000),
            ("timeouts.request_ms", self.timeouts.request_ms, 1, 600_000),
            ("timeouts.drain_ms", self.timeouts.drain_ms, 1, 600_000),
        ];
        let outside = numbers.into_iter().filter(|(_, value, min, max)| !(min..=max).contains(&value));
        outside.map(|(key, _, min, max)| (key, format!("must be from {min} to {max}"))).collect()
    }
}
