//! What the operator wrote, resolved and valid.
//!
//! Read from above: `raw` is `relais.toml` as written, `check` finds what has not that form, `load` follows
//! includes, and `sections`, `upstreams`, `agents`, `tenants`, `keys` and `channels` resolve what is written (`text`: secrets,
//! addresses, instants) and ask whether it fits together. All errors are gathered in `report`, each with its file,
//! key and line, and given at once. What comes out is one [`Config`]; everything else works on these types and
//! never sees TOML. In the file durations are in ms and sizes in bytes, as their keys say.
//!
//! It holds no live state: counters, limiters and pools belong to those who use them.

mod agents;
mod channels;
mod check;
mod handoffs;
mod hours;
mod keys;
mod load;
mod raw;
mod report;
mod sections;
mod tenants;
mod text;
mod upstreams;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relais_policies::{ChannelKind, KeyLimits, TenantPolicy};
use schemars::{JsonSchema, Schema, schema_for};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::conversation::{Medium, Priority};

pub use agents::{Agent, AgentChoice, AgentKind, Level, Model, Tool};
pub use hours::{Hours, HoursError, Opening};
pub use report::{ConfigError, ConfigErrors, Position};

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where we listen. Start-only.
    pub listen: Listen,
    /// Where we keep what must not be lost. Start-only.
    pub storage: Storage,
    /// Threads. Start-only.
    pub runtime: Runtime,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// How long we wait for whom.
    pub timeouts: Timeouts,
    /// The durable inbox.
    pub inbox: Inbox,
    /// The ledger.
    pub usage: Usage,
    /// Conversations.
    pub relay: Relay,
    /// Looking after conversations that no delivery tells of.
    pub sweep: Sweep,
    /// Which pages of a browser may call `/v1`.
    pub cors: Cors,
    /// What refusals look like.
    pub errors: Errors,
    /// Logs.
    pub log: Log,
    /// Models we can reach, in the order of the file.
    pub upstreams: Vec<Arc<Upstream>>,
    /// AI agents, by id.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// Who we work for.
    pub tenants: Vec<Tenant>,
    /// The files this was read from, the main one first. Not those that `file:` leads to.
    pub files: Vec<PathBuf>,
    /// Folders that `include` takes files from by a pattern, in its order, whether they are there or not.
    pub folders: Vec<IncludedFolder>,
}

/// A folder whose files are included if their names fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncludedFolder {
    /// Where.
    pub dir: PathBuf,
    before: String,
    after: String,
}

impl IncludedFolder {
    /// Whether a file of this name is included: `*` stands for any characters but a leading dot.
    pub fn takes(&self, name: &str) -> bool {
        name.len() >= self.before.len() + self.after.len()
            && name.starts_with(&self.before)
            && name.ends_with(&self.after)
            && !name.starts_with('.')
    }
}

impl Config {
    /// The keys that differ from `other` and that only a restart can change. Empty: a reload may take `other`.
    pub fn start_only_changes(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("listen.public", self.listen.public != other.listen.public),
            ("listen.admin", self.listen.admin != other.listen.admin),
            ("listen.tls", self.listen.tls != other.listen.tls),
            ("storage.dir", self.storage.dir != other.storage.dir),
            ("inbox", self.inbox != other.inbox),
            ("relay", self.relay != other.relay),
            ("sweep", self.sweep != other.sweep),
            ("log", self.log != other.log),
            ("timeouts.connect_ms", self.timeouts.connect != other.timeouts.connect),
            ("usage.flush_ms", self.usage.flush_ms != other.usage.flush_ms),
            ("runtime.workers", self.runtime.workers != other.runtime.workers),
            ("runtime.per_core", self.runtime.per_core != other.runtime.per_core),
            ("runtime.background_workers", self.runtime.background_workers != other.runtime.background_workers),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// The JSON Schema of `relais.toml`, for editors.
    pub fn schema() -> Schema {
        schema_for!(raw::RawConfig)
    }
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `/v1` and webhooks.
    pub public: SocketAddr,
    /// Metrics, health and operations; never public.
    pub admin: SocketAddr,
    /// TLS on the public listener.
    pub tls: Option<TlsFiles>,
}

/// `listen.tls`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The data directory: `inbox.db`, `usage.db`. Made if missing, mode 0700.
    pub dir: PathBuf,
}

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Intake threads. Default: one per core.
    pub workers: usize,
    /// One single-threaded runtime per worker (default), or one shared work-stealing runtime.
    pub per_core: bool,
    /// Threads for relay, sync and background work. Default 2.
    pub background_workers: usize,
}

/// `[limits]`: needs no resolving, so it is the file's type too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// `/v1` request body. Default 16 MiB (images travel inline as base64).
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Webhook body. Default 10 MiB; of a larger one the conversation opens for a human.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub webhook_body_bytes_max: usize,
    /// All request headers together. Default 32 KiB; hyper needs 8 KiB at least.
    #[schemars(range(min = 8_192, max = 1_048_576))]
    pub header_bytes_max: usize,
    /// Number of request headers. Default 100.
    #[schemars(range(min = 16, max = 1_000))]
    pub headers_max: usize,
    /// Open public connections, all workers together. Default 10,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// HTTP/2 streams at once per connection. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams_per_connection_max: u32,
    /// A unary answer of an upstream. Default 32 MiB.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub upstream_body_bytes_max: usize,
    /// One SSE frame of an upstream. Default 1 MiB.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub upstream_frame_bytes_max: usize,
    /// Failed authentications of one client address (IPv6: of one /64) in a minute that get a line each in the access
    /// log; more are answered alike and only counted. Default 60.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub auth_failures_per_minute: u32,
    /// Client addresses that are watched for failed authentications at one time; the rest share one count. About 64
    /// bytes each. Default 65,536.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub auth_addresses_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            webhook_body_bytes_max: 10 << 20,
            header_bytes_max: 32 << 10,
            headers_max: 100,
            connections_max: 10_000,
            streams_per_connection_max: 100,
            upstream_body_bytes_max: 32 << 20,
            upstream_frame_bytes_max: 1 << 20,
            auth_failures_per_minute: 60,
            auth_addresses_max: 65_536,
        }
    }
}

/// `[timeouts]`, in the file as `…_ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// A request's head. Default 10 s.
    pub header: Duration,
    /// Between two pieces of a request's body. Default 30 s.
    pub body_stall: Duration,
    /// A connection without a request. Default 75 s.
    pub idle: Duration,
    /// TLS handshake. Default 10 s.
    pub tls: Duration,
    /// A client that does not read its answer. Default 60 s.
    pub write_stall: Duration,
    /// Connecting to an upstream or a Chatwoot. Default 5 s.
    pub connect: Duration,
    /// Until an upstream's answer begins. Default 120 s.
    pub first_byte: Duration,
    /// Between two pieces of an upstream's answer. Default 60 s.
    pub stall: Duration,
    /// A whole upstream call. Default 600 s.
    pub total: Duration,
    /// Open requests and streams at shutdown. Default 30 s.
    pub drain: Duration,
}

/// `[inbox]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// Deliveries waiting for the disk at once; more are answered 429. Default 4,096.
    pub queue_max: usize,
    /// Deliveries in one transaction. Default 512.
    pub batch_max: usize,
    /// Until a delivery must be on disk; later it is answered 429. Default 1 s.
    pub ack_wait: Duration,
    /// Deliveries not yet finished that the inbox holds; more are answered 429. Default 1,000,000.
    pub pending_max: u64,
    /// How long finished deliveries are kept. Default 7 days.
    pub keep: Duration,
}

/// `[usage]`: needs no resolving, so it is the file's type too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// How often what was used goes to the disk: what a crash forgets at most. Default 1 s; changed only by a restart.
    #[schemars(range(min = 10, max = 60_000))]
    pub flush_ms: u64,
    /// Budget tokens that may be charged while the disk refuses them; past that `/v1` answers 503 until it takes
    /// them. Default 1,000,000.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub unledgered_tokens_max: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { flush_ms: 1_000, unledgered_tokens_max: 1_000_000 }
    }
}

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Conversations with work at once. Default 10,000.
    pub lanes_max: usize,
    /// Turns running at once, all tenants together. Default 256.
    pub turns_max: usize,
    /// Turns of one tenant running at once. Default 32.
    pub turns_per_tenant_max: usize,
    /// A burst ends this long after its last message. Default 800 ms.
    pub burst: Duration,
    /// A burst ends at the latest this long after its first message. Default 4 s.
    pub burst_max: Duration,
    /// One try of the agent. Default 60 s.
    pub agent_wait: Duration,
    /// Tries of the agent before a human takes over. Default 3.
    pub agent_tries: u32,
    /// One call to a Chatwoot. Default 15 s (it cuts off there itself).
    pub chatwoot_wait: Duration,
    /// Tries of one call to a Chatwoot before a human takes over. Default 6.
    pub chatwoot_tries: u32,
    /// Calls a minute to one Chatwoot, all tenants there together. Chatwoot takes 3,000 from one address, of which
    /// an operator may leave a part to others behind it. Default 2,400; a sixth of it may come at once.
    pub chatwoot_calls_per_minute: NonZeroU32,
    /// How long nobody calls a Chatwoot that answered 429 without saying how long; twice that if it does so again,
    /// and so on. Default 500 ms.
    pub chatwoot_pause: Duration,
    /// A conversation goes round in a circle, and a human gets it, if within this time it has so many turns or
    /// changes of status. Default 5 minutes.
    pub loop_window: Duration,
    /// So many turns. Default 20.
    pub loop_turns_max: u64,
    /// So many changes of status, whoever's. Default 10.
    pub loop_flips_max: u64,
    /// How often "is typing" is shown anew while the agent works. Default 20 s: Chatwoot takes it away after 30 s.
    pub typing_every: Duration,
    /// How long the words of a voice note are waited for, if Chatwoot writes them down. Default 8 s.
    pub voice_wait: Duration,
    /// Messages of a conversation given to the agent. Default 40.
    pub history_max: usize,
}

/// `[sweep]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Messages that no delivery brought are read unless they are older than this. Default 24 h; zero reads none.
    pub missed_age_max: Duration,
    /// They are read again when deliveries were refused and none has been for so long. Default 30 s.
    pub missed_calm: Duration,
    /// Conversations of a channel looked at in one run. Default 1,000.
    pub conversations_max: usize,
    /// Channels looked at side by side. Default 2.
    pub channels_at_once: usize,
    /// Idle conversations are looked for this often. Default 5 min.
    pub idle_every: Duration,
    /// Idle conversations of a channel that are ended in one run. Default 100.
    pub idle_per_run_max: usize,
}

/// `[cors]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins (`https://app.example.com`) whose pages may call `/v1` and read the answers, or `*` for any. Default
    /// none: browsers then keep every page out.
    pub origins: Vec<String>,
}

/// `[errors]`: needs no resolving, so it is the file's type too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// How a call is refused that the token budget does not cover: `402` with the code `token_budget_exhausted`, or
    /// `429` with `insufficient_quota` as OpenAI does. Default `402`; the headers are the same.
    pub tokens_used_up: TokensUsedUp,
}

/// How a spent token budget is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TokensUsedUp {
    /// 402 `token_budget_exhausted`.
    #[default]
    #[serde(rename = "402")]
    PaymentRequired,
    /// 429 `insufficient_quota`.
    #[serde(rename = "429")]
    TooManyRequests,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `relais_gateway::relay=debug`.
    pub level: String,
    /// One line per request. Default on.
    pub access: bool,
    /// `json` (default) or `text`.
    pub json: bool,
}

/// `[[upstream]]`: an OpenAI-compatible endpoint.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name, in metrics and logs.
    pub name: String,
    /// `http` or `https`, with the `/v1` part, without a final slash.
    pub base_url: http::Uri,
    /// Sent as `Authorization: Bearer …`; none for local models.
    pub api_key: Option<SecretString>,
    /// Which models it serves: exact, or with a final `*`.
    pub models: Vec<String>,
    /// What a client calls a model → what the upstream calls it.
    pub aliases: BTreeMap<String, String>,
    /// Preferred first: lower goes first. Default 0.
    pub priority: u32,
    /// Share among upstreams of one priority. Default 1.
    pub weight: u32,
    /// The field that carries the output limit to this upstream.
    pub limit_field: LimitField,
    /// Calls at once, per worker: on HTTP/1 as many connections. Default 1,024.
    pub connections_max: usize,
    /// HTTP/2 in plaintext too, without asking. Default false.
    pub http2: bool,
}

/// Which field carries the output limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitField {
    /// `max_tokens`: understood by every server we know of. The default.
    MaxTokens,
    /// `max_completion_tokens`: what OpenAI's newer models demand.
    MaxCompletionTokens,
}

/// `[[tenant]]`
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id: `[a-z0-9][a-z0-9_-]{0,62}`.
    pub id: Arc<str>,
    /// What it may do and how much.
    pub policy: Arc<TenantPolicy>,
    /// Its API keys.
    pub keys: Vec<Key>,
    /// Its Chatwoot channels.
    pub channels: Vec<Arc<Channel>>,
}

/// `[[tenant.key]]`: what is kept of a key. The secret itself is hashed when the file is read.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name, in usage and logs.
    pub name: Arc<str>,
    /// The public part: 12 characters.
    pub public_id: [u8; 12],
    /// `blake3::derive_key` of the secret (D3).
    pub hash: [u8; 32],
    /// The secret before the last rotation, and until when (Unix ms) it still opens.
    pub previous: Option<([u8; 32], i64)>,
    /// What it may do below its tenant.
    pub limits: KeyLimits,
    /// Models this key may use; none: the tenant's.
    pub models: Option<Vec<String>>,
}

/// `[[tenant.chatwoot]]`
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its name within the tenant.
    pub name: String,
    /// Whose Chatwoot it is, and so what pays for a reply.
    pub kind: ChannelKind,
    /// The Chatwoot's address, without a final slash.
    pub url: http::Uri,
    /// The account.
    pub account_id: u64,
    /// Our bot in that account.
    pub bot_id: u64,
    /// Posts replies.
    pub bot_token: SecretString,
    /// Verifies deliveries: the current secret first, then those still accepted.
    pub webhook_secrets: Vec<SecretString>,
    /// History and reconciliation, which a bot token may not read.
    pub user_token: Option<SecretString>,
    /// An unguessable part of the address, for a Chatwoot too old to sign.
    pub path_token: Option<SecretString>,
    /// Which agent answers.
    pub agent: Arc<Agent>,
    /// Where another does: the first that fits.
    pub choices: Vec<AgentChoice>,
    /// Notes and messages around a handoff.
    pub handoff: Handoff,
    /// What becomes of a conversation in which nothing happens.
    pub idle: Idle,
}

/// `tenant.chatwoot.idle`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Idle {
    /// A pending conversation is idle after this. Default 1 h; none leaves it as it is.
    pub after: Option<Duration>,
    /// What becomes of it if nobody waits for an answer.
    pub answered: IdleEnd,
}

/// What becomes of an idle conversation in which the customer does not wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdleEnd {
    /// It is resolved. The customer's next message brings it back to the agent.
    #[default]
    Resolve,
    /// A human gets it.
    Handoff,
}

impl Channel {
    /// Who answers in one of Chatwoot's inboxes, over a medium.
    pub fn agent_for(&self, chatwoot_inbox_id: Option<u64>, medium: Medium) -> &Arc<Agent> {
        let fits = |choice: &&AgentChoice| {
            let inbox = choice.chatwoot_inbox_id.is_none_or(|wanted| chatwoot_inbox_id == Some(wanted));
            inbox && choice.medium.is_none_or(|wanted| wanted == medium)
        };
        self.choices.iter().find(fits).map_or(&self.agent, |choice| &choice.agent)
    }
}

/// What a customer reads when a human takes over, unless the operator wrote something else.
pub const HANDOFF_MESSAGE: &str = "I am handing this over to a colleague, who will answer you here.";
/// What a customer reads who asks for a human where the plan has no handoff, unless the operator wrote something else.
pub const HANDOFF_NOTICE: &str = "I cannot hand this chat over to a person, but I will gladly go on helping you here.";

/// What a customer reads whose question the agent does not know, before a human takes over.
pub const HANDOFF_REPHRASE: &str = "I am not sure that I understood you. Could you say it in other words?";
/// What a customer reads when a human takes over outside of the hours.
pub const HANDOFF_OUT_OF_HOURS: &str =
    "I am handing this over to our team. Nobody is there right now; they are back {when} and will answer you here.";
/// What a customer reads when the plan's replies are used up and it has no handoff, unless the operator wrote something
/// else.
pub const QUOTA_NOTICE: &str = "I cannot answer here for now. Your message has reached us and will be read.";

/// `tenant.chatwoot.handoff`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Who takes over.
    pub to: HandoffTo,
    /// How soon humans should look, at least.
    pub priority: Option<Priority>,
    /// Labels added to what a human takes over.
    pub labels: Vec<String>,
    /// Conversations that are humans' by their labels.
    pub vip: Vip,
    /// Times in a row that the agent may not know an answer before a human takes over. Default 1.
    pub unsure_max: u32,
    /// What the customer reads before that. Has a default.
    pub rephrase: String,
    /// When humans answer; none: always.
    pub hours: Option<Hours>,
    /// What the customer reads instead of `message` outside of the hours. Has a default.
    pub out_of_hours: String,
    /// Teams an agent may name instead, each with its number.
    pub teams: BTreeMap<String, u64>,
    /// What the customer reads when a human takes over. Has a default in English.
    pub message: String,
    /// What the customer reads when the plan has no handoff (D17). Has a default in English.
    pub notice: String,
    /// What the customer reads when the plan's replies are used up and it has no handoff (ENF-5). Has a default in
    /// English.
    pub quota_notice: String,
    /// What becomes of a picture or a voice note without a word beside it. Default `human`.
    pub unreadable: Unreadable,
}

impl Default for Handoff {
    fn default() -> Self {
        Self {
            to: HandoffTo::default(),
            priority: None,
            labels: Vec::new(),
            vip: Vip::default(),
            unsure_max: 1,
            rephrase: HANDOFF_REPHRASE.to_owned(),
            hours: None,
            out_of_hours: HANDOFF_OUT_OF_HOURS.to_owned(),
            teams: BTreeMap::new(),
            message: HANDOFF_MESSAGE.to_owned(),
            notice: HANDOFF_NOTICE.to_owned(),
            quota_notice: QUOTA_NOTICE.to_owned(),
            unreadable: Unreadable::default(),
        }
    }
}

/// Whom the helpdesk gives a conversation to. With neither it is everybody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandoffTo {
    /// A team.
    pub team_id: Option<u64>,
    /// A human.
    pub assignee_id: Option<u64>,
}

/// `tenant.chatwoot.handoff.vip`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vip {
    /// Any of these labels makes a conversation one of theirs.
    pub labels: Vec<String>,
    /// When a human takes it over.
    pub when: VipWhen,
    /// Who, if not the same as others.
    pub to: Option<HandoffTo>,
}

/// When a human takes over a conversation that is theirs by its label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum VipWhen {
    /// Before the agent says anything.
    #[default]
    AtOnce,
    /// When the agent has answered once.
    AfterAnswer,
}

/// What becomes of a message in which the agent can read nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// A human gets it.
    #[default]
    Human,
    /// The agent is told what it is, and answers.
    Agent,
}
