//! `relais.toml` as it is written: the words, their types and their bounds.
//!
//! The JSON Schema made of these types is what files are checked against (`check`) and what `relais config
//! schema` prints, so a bound or a description is stated once. A number without a bound of its own is bounded by
//! what its user can hold. What is missing takes the default shown; whether two things fit each other is asked
//! later (`resolve`). Secrets are held so that they are neither printed nor left in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use relais_policies::{ChannelKind, LotKind, Overrides, Rate, Shadowed};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Errors, IdleEnd, Level, Limits, Tool, Unreadable, Usage, VipWhen};
use crate::conversation::{Medium, Priority};

/// The configuration of a Relais gateway. Relative paths are relative to this file's directory. Where a text or a
/// secret is asked for, `env:NAME` takes it from a variable of the environment and `file:PATH` from a file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "relais.toml")]
pub(super) struct RawConfig {
    /// More files with tenants, agents and upstreams: paths whose last part may hold `*`. Read in the order of
    /// their names. A tenant that exists already gets the keys, channels and lots they name.
    pub(super) include: Vec<String>,
    /// Where we listen. Changed only by a restart.
    pub(super) listen: RawListen,
    /// Where we keep what must not be lost. Changed only by a restart.
    pub(super) storage: RawStorage,
    /// Threads. Changed only by a restart.
    pub(super) runtime: RawRuntime,
    /// Bounds on what comes in.
    pub(super) limits: Limits,
    /// How long we wait for whom.
    pub(super) timeouts: RawTimeouts,
    /// The durable inbox.
    pub(super) inbox: RawInbox,
    /// The ledger.
    pub(super) usage: Usage,
    /// Conversations.
    pub(super) relay: RawRelay,
    /// Looking after conversations that no delivery tells of.
    pub(super) sweep: RawSweep,
    /// Which pages of a browser may call `/v1`.
    pub(super) cors: RawCors,
    /// What refusals look like.
    pub(super) errors: Errors,
    /// Logs.
    pub(super) log: RawLog,
    /// What a model token costs in budget tokens. A model that no rate names costs one for one.
    pub(super) rate: Vec<Rate>,
    /// OpenAI-compatible endpoints, in the order they are preferred in where priority and weight do not say.
    pub(super) upstream: Vec<RawUpstream>,
    /// AI agents.
    pub(super) agent: Vec<RawAgent>,
    /// Who we work for.
    pub(super) tenant: Vec<RawTenant>,
}

/// An included file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawInclude {
    /// OpenAI-compatible endpoints.
    pub(super) upstream: Vec<RawUpstream>,
    /// AI agents.
    pub(super) agent: Vec<RawAgent>,
    /// Tenants, or more keys, channels and lots of those that exist.
    pub(super) tenant: Vec<RawTenant>,
}

/// `[listen]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListen {
    /// Address of `/v1` and the webhooks.
    pub(super) public: String,
    /// Address of metrics, health and operations. Never public.
    pub(super) admin: String,
    /// TLS on the public address.
    pub(super) tls: Option<RawTls>,
}

/// `listen.tls`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// Certificate chain, a PEM file.
    #[schemars(required)]
    pub(super) cert: Option<PathBuf>,
    /// Private key, a PEM file.
    #[schemars(required)]
    pub(super) key: Option<PathBuf>,
}

/// `[storage]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStorage {
    /// The data directory. Made if missing.
    pub(super) dir: PathBuf,
}

/// `[runtime]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRuntime {
    /// Intake threads. Not given: one per core.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) workers: Option<usize>,
    /// One runtime per thread, rather than one shared by all.
    pub(super) per_core: bool,
    /// Threads for conversations and background work.
    #[schemars(range(min = 1, max = 256))]
    pub(super) background_workers: usize,
}

/// `[timeouts]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTimeouts {
    /// Until a request's head is there.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) header_ms: u64,
    /// Between two pieces of a request's body.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) body_stall_ms: u64,
    /// A connection without a request.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) idle_ms: u64,
    /// TLS handshake.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) tls_ms: u64,
    /// A client that does not read its answer.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) write_stall_ms: u64,
    /// Connecting to an upstream or a Chatwoot.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) connect_ms: u64,
    /// Until an upstream's answer begins.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) first_byte_ms: u64,
    /// Between two pieces of an upstream's answer.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) stall_ms: u64,
    /// A whole upstream call.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub(super) total_ms: u64,
    /// Open requests and streams at shutdown.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub(super) drain_ms: u64,
}

/// `[sweep]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSweep {
    /// After a start, and after deliveries were refused, messages that no delivery brought are read with the
    /// channel's `user_token`, unless they are older than this. 0 reads none.
    #[schemars(range(min = 0, max = 8_760))]
    pub(super) missed_hours: u64,
    /// After deliveries were refused they are read when none has been for so long.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) missed_calm_ms: u64,
    /// Conversations of a channel looked at in one run.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) conversations_max: usize,
    /// Channels looked at side by side.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) channels_at_once: usize,
    /// Idle conversations are looked for this often.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub(super) idle_every_ms: u64,
    /// Idle conversations of a channel that are ended in one run.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) idle_per_run_max: usize,
}

/// `[inbox]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawInbox {
    /// Deliveries waiting for the disk at once; more are answered 429.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) queue_max: usize,
    /// Deliveries in one transaction.
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) batch_max: usize,
    /// Until a delivery must be on disk; later it is answered 429. Chatwoot itself gives up after 5,000.
    #[schemars(range(min = 1, max = 4_500))]
    pub(super) ack_wait_ms: u64,
    /// Unfinished deliveries held; more are answered 429.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) pending_max: u64,
    /// How long finished deliveries are kept.
    #[schemars(range(min = 1, max = 87_600))]
    pub(super) keep_hours: u64,
}

/// `[relay]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRelay {
    /// Conversations with work at once.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) lanes_max: usize,
    /// Turns running at once, all tenants together.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) turns_max: usize,
    /// Turns of one tenant running at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) turns_per_tenant_max: usize,
    /// A burst of messages ends this long after its last one.
    #[schemars(range(min = 0, max = 60_000))]
    pub(super) burst_ms: u64,
    /// A burst of messages ends at the latest this long after its first one.
    #[schemars(range(min = 0, max = 600_000))]
    pub(super) burst_max_ms: u64,
    /// One try of the agent.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(super) agent_wait_ms: u64,
    /// Tries of the agent before a human takes over.
    #[schemars(range(min = 1, max = 100))]
    pub(super) agent_tries: u32,
    /// One call to a Chatwoot.
    #[schemars(range(min = 1, max = 600_000))]
    pub(super) chatwoot_wait_ms: u64,
    /// Tries of one call to a Chatwoot before a human takes over.
    #[schemars(range(min = 1, max = 100))]
    pub(super) chatwoot_tries: u32,
    /// Calls a minute to one Chatwoot, all tenants there together; a sixth of it may come at once.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) chatwoot_calls_per_minute: u32,
    /// Nobody calls a Chatwoot for so long after it answered 429, and twice as long each time it does so again.
    #[schemars(range(min = 1, max = 60_000))]
    pub(super) chatwoot_pause_ms: u64,
    /// A conversation is taken for going round in a circle, and given to a human, if within this time it has
    /// `loop_turns_max` turns or `loop_flips_max` changes of status.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub(super) loop_window_ms: u64,
    /// So many turns of ours are a circle.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) loop_turns_max: u64,
    /// So many changes of status are a circle.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) loop_flips_max: u64,
    /// How often "is typing" is shown anew while the agent works; Chatwoot takes it away after 30 s.
    #[schemars(range(min = 10, max = 600_000))]
    pub(super) typing_every_ms: u64,
    /// The words of a voice note are waited for so long, if Chatwoot writes them down.
    #[schemars(range(min = 0, max = 600_000))]
    pub(super) voice_wait_ms: u64,
    /// Messages of a conversation given to the agent.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) history_max: usize,
}

/// `[cors]`
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCors {
    /// Origins (`https://app.example.com`, without a path) whose pages may call `/v1` and read the answers, or `*`
    /// for any. None: browsers keep every page out.
    pub(super) origins: Vec<String>,
}

/// `[log]`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,relais_gateway::relay=debug`.
    pub(super) level: String,
    /// One line per request, on standard output.
    pub(super) access: bool,
    /// How log lines look.
    pub(super) format: RawLogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawLogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[[upstream]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    /// Its name, in metrics and logs: small letters, digits, `.`, `_` and `-`.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// Its address, with the `/v1` part.
    #[schemars(required)]
    pub(super) base_url: Option<String>,
    /// Its key: `env:NAME`, `file:PATH` or the key itself. Not needed by most local models.
    #[schemars(with = "Option<String>")]
    pub(super) api_key: Option<SecretString>,
    /// Which models it serves: names, names that end in `*`, or `*`. Not given: all.
    pub(super) models: Option<Vec<String>>,
    /// What a client calls a model, and what this upstream calls it.
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, String>,
    /// Lower goes first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000))]
    pub(super) priority: u32,
    /// Its share among upstreams of one priority. Default 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) weight: Option<u32>,
    /// The field that carries the output limit to this upstream. Default `max_tokens`.
    pub(super) limit_field: Option<RawLimitField>,
    /// Calls at once, per worker: on HTTP/1 as many connections, on HTTP/2 a hundred to a connection. Default 1024.
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) connections_max: Option<usize>,
    /// It speaks HTTP/2 on `http://` too, without being asked (prior knowledge). With `https://` the two sides agree.
    #[serde(default)]
    pub(super) http2: bool,
}

/// The field that carries the output limit.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawLimitField {
    /// Understood by every server we know of.
    MaxTokens,
    /// What OpenAI's newer models demand.
    MaxCompletionTokens,
}

/// `[[agent]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    /// Its id: small letters, digits, `_` and `-`.
    #[schemars(required)]
    pub(super) id: Option<String>,
    /// What answers: a model behind an upstream, or the embedded agent over a folder of Markdown.
    #[schemars(required)]
    pub(super) kind: Option<RawAgentKind>,
    /// `openai`: the name of the upstream.
    pub(super) upstream: Option<String>,
    /// `openai`: the model, as the upstream calls it.
    pub(super) model: Option<String>,
    /// `openai`: instructions, or `file:PATH`.
    pub(super) system_prompt: Option<String>,
    /// `openai`: output limit of one call of the model. Default 800.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) tokens_max: Option<u32>,
    /// `openai`: sampling temperature. Not given: the upstream's own.
    #[schemars(range(min = 0, max = 2))]
    pub(super) temperature: Option<f64>,
    /// `openai`: what it may do beside answering. Default `L0`. A tenant whose plan does not open the level has the
    /// agent at the highest level that it does.
    pub(super) level: Option<Level>,
    /// `openai`: of what its level allows, only these tools. Not given: all.
    pub(super) tools: Option<Vec<Tool>>,
    /// `openai`: labels it may add. Not given: any.
    pub(super) labels: Option<Vec<String>>,
    /// `openai`: the conversation's custom attributes it may set. Not given: any.
    pub(super) attributes: Option<Vec<String>>,
    /// `openai`: times the model may call tools before it has to answer. Default 4.
    #[schemars(range(min = 1, max = 32))]
    pub(super) tool_rounds_max: Option<u32>,
    /// `openai`: tool calls of one answer, all rounds together. Default 8.
    #[schemars(range(min = 1, max = 256))]
    pub(super) tool_calls_max: Option<u32>,
    /// `openai`: tokens of the conversation given to the model, by estimate; the newest whole messages that fit.
    /// Default 8000.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub(super) history_tokens: Option<u32>,
    /// Who answers when this agent fails or its tokens are not paid for, in order; after the last, a human.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub(super) fallback: Vec<String>,
    /// The folder of Markdown that `knowledge` answers from. `openai`: one whose passages the model is given; not
    /// needed.
    pub(super) dir: Option<PathBuf>,
}

/// What answers.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum RawAgentKind {
    /// A model behind an upstream.
    OpenAi,
    /// The embedded agent over a folder of Markdown.
    Knowledge,
}

/// `[[tenant]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTenant {
    /// Its id: small letters, digits, `_` and `-`, at most 63.
    #[schemars(required)]
    pub(super) id: Option<String>,
    /// Whether it is served. `false` suspends it. Default `true`.
    pub(super) enabled: Option<bool>,
    /// Its plans, at most one of each family.
    pub(super) plans: Option<Vec<String>>,
    /// What its contract changes.
    pub(super) overrides: Option<Overrides>,
    /// Limits of the tenant that are counted and told but refuse nobody: to see whom a limit would meet.
    pub(super) shadow: Option<Vec<Shadowed>>,
    /// Where its months begin, UTC: a day of the month, a date, or an instant. Default the 1st.
    pub(super) anchor: Option<RawAnchor>,
    /// API keys.
    #[serde(default)]
    pub(super) key: Vec<RawKey>,
    /// Chatwoot channels.
    #[serde(default)]
    pub(super) chatwoot: Vec<RawChannel>,
    /// Tokens credited beside the monthly grant.
    #[serde(default)]
    pub(super) lot: Vec<RawLot>,
}

/// Where months begin.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline, description = "a day of the month from 1 to 31, a date, or an instant")]
pub(super) enum RawAnchor {
    /// A day of the month.
    Day(#[schemars(range(min = 1, max = 31))] u8),
    /// A date or an instant, RFC 3339.
    Instant(String),
}

/// `[[tenant.key]]`: either `secret`, or `public_id` and `hash` as `relais key new` prints them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    /// Its name, in usage and logs.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// The whole key: `env:NAME`, `file:PATH` or the key itself.
    #[schemars(with = "Option<String>")]
    pub(super) secret: Option<SecretString>,
    /// The public part of the key.
    pub(super) public_id: Option<String>,
    /// The hash of the secret part, in hex.
    pub(super) hash: Option<String>,
    /// The key before the last rotation, as `secret`.
    #[schemars(with = "Option<String>")]
    pub(super) previous_secret: Option<SecretString>,
    /// The hash before the last rotation, as `hash`.
    pub(super) previous_hash: Option<String>,
    /// Until when the previous one still opens: a date or an instant, RFC 3339.
    pub(super) previous_until: Option<String>,
    /// Calls per minute of this key alone, below the tenant's.
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub(super) calls_per_minute: Option<u64>,
    /// Calls per billing month of this key alone.
    #[schemars(range(min = 1))]
    pub(super) calls_per_month: Option<u64>,
    /// Calls of this key alone that run at one time.
    #[schemars(range(min = 1))]
    pub(super) calls_in_flight: Option<u64>,
    /// Budget tokens per billing month of this key alone, out of its tenant's.
    #[schemars(range(min = 1))]
    pub(super) tokens_per_month: Option<u64>,
    /// Budget tokens one call of this key may spend, where the tenant's own limit is not smaller.
    #[schemars(range(min = 1))]
    pub(super) tokens_per_call: Option<u64>,
    /// Limits of this key alone that are counted and told but refuse nobody.
    #[serde(default)]
    pub(super) shadow: Vec<Shadowed>,
    /// Models this key may use. Not given: the tenant's.
    pub(super) models: Option<Vec<String>>,
}

/// `[[tenant.chatwoot]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChannel {
    /// Its name within the tenant: small letters, digits, `_` and `-`.
    #[schemars(required)]
    pub(super) channel: Option<String>,
    /// Whose Chatwoot it is. Default: `managed` with a `chatwoot.*` plan, else `selfhosted`.
    pub(super) kind: Option<ChannelKind>,
    /// The Chatwoot's address.
    #[schemars(required)]
    pub(super) url: Option<String>,
    /// The account.
    #[schemars(required, range(min = 1))]
    pub(super) account_id: Option<u64>,
    /// Our bot in that account.
    #[schemars(required, range(min = 1))]
    pub(super) bot_id: Option<u64>,
    /// Posts replies: `env:NAME`, `file:PATH` or the token itself.
    #[schemars(required, with = "String")]
    pub(super) bot_token: Option<SecretString>,
    /// Verifies deliveries. A Chatwoot too old to sign has `path_token` instead.
    #[schemars(with = "Option<String>")]
    pub(super) webhook_secret: Option<SecretString>,
    /// Still accepted while the secret is being changed.
    #[schemars(with = "Option<String>")]
    pub(super) previous_webhook_secret: Option<SecretString>,
    /// For history and reconciliation, which a bot token may not read.
    #[schemars(with = "Option<String>")]
    pub(super) user_token: Option<SecretString>,
    /// An unguessable part of the webhook's address: at least 24 letters, digits, `_` and `-`.
    #[schemars(with = "Option<String>")]
    pub(super) path_token: Option<SecretString>,
    /// The id of the agent that answers.
    #[schemars(required)]
    pub(super) agent: Option<String>,
    /// Where another agent answers: the first entry that fits.
    #[serde(default)]
    pub(super) agents: Vec<RawAgentChoice>,
    /// What happens around a handoff.
    pub(super) handoff: Option<RawHandoff>,
    /// What becomes of a conversation in which nothing happens.
    #[serde(default)]
    pub(super) idle: RawIdle,
}

/// `tenant.chatwoot.idle`
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIdle {
    /// A pending conversation is idle after this; 0 leaves it as it is.
    #[schemars(range(min = 0, max = 525_600))]
    pub(super) after_minutes: u64,
    /// What becomes of it if nobody waits for an answer. If the customer does, a human gets it.
    pub(super) answered: IdleEnd,
}

impl Default for RawIdle {
    fn default() -> Self {
        Self { after_minutes: 60, answered: IdleEnd::Resolve }
    }
}

/// `tenant.chatwoot.agents`: fits where everything it names does.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgentChoice {
    /// One of Chatwoot's inboxes, by its number.
    #[schemars(range(min = 1))]
    pub(super) chatwoot_inbox: Option<u64>,
    /// What the conversation runs over.
    pub(super) medium: Option<Medium>,
    /// The id of the agent that answers there.
    #[schemars(required)]
    pub(super) agent: Option<String>,
}

/// `tenant.chatwoot.handoff`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHandoff {
    /// The team that takes over.
    #[schemars(range(min = 1))]
    pub(super) team_id: Option<u64>,
    /// The human who takes over, by the number Chatwoot has for them. Beside a team, one of its members.
    #[schemars(range(min = 1))]
    pub(super) assignee_id: Option<u64>,
    /// How soon humans should look, unless the conversation has a higher priority already.
    pub(super) priority: Option<Priority>,
    /// Labels a conversation gets when a human takes over; those it has stay.
    pub(super) labels: Vec<String>,
    /// Conversations that are humans' by their labels.
    pub(super) vip: RawVip,
    /// Times in a row that the agent may not know an answer before a human takes over. 1: at once; with more, the
    /// customer is asked first to say it in other words.
    #[schemars(range(min = 1, max = 10))]
    pub(super) unsure_max: u32,
    /// What the customer reads then. Has a default in English and French.
    pub(super) rephrase: Option<String>,
    /// When humans answer, by the clock of `timezone`: `Mon-Fri 09:00-12:30, 13:30-18:00; Sat 10:00-13:00`. Not
    /// given: always. Outside of it they take over all the same, and the customer reads when they are back.
    pub(super) hours: Option<String>,
    /// The time zone of `hours`, such as `Europe/Paris`.
    pub(super) timezone: Option<String>,
    /// What the customer reads outside of the hours instead of `message`; `{when}` becomes the day and time humans
    /// are back. Has a default in English and French.
    pub(super) out_of_hours: Option<String>,
    /// Teams that an agent may name instead, by a name that tells what they do: `{ billing = 3 }`.
    pub(super) teams: BTreeMap<String, u64>,
    /// What the customer reads when a human takes over; empty says nothing. Has a default in English and
    /// French.
    pub(super) message: Option<String>,
    /// What the customer reads when the plan has no handoff; empty says nothing. Has a default in English and
    /// French.
    pub(super) notice: Option<String>,
    /// What the customer reads when the plan's replies are used up and it has no handoff; empty says nothing. Has a
    /// default in English and French.
    pub(super) quota_notice: Option<String>,
    /// What becomes of a picture, or a voice note without words: `human`, or `agent`, which is told what it is.
    pub(super) unreadable: Unreadable,
}

impl Default for RawHandoff {
    fn default() -> Self {
        Self {
            team_id: None,
            assignee_id: None,
            priority: None,
            labels: Vec::new(),
            vip: RawVip::default(),
            unsure_max: 1,
            rephrase: None,
            hours: None,
            timezone: None,
            out_of_hours: None,
            teams: BTreeMap::new(),
            message: None,
            notice: None,
            quota_notice: None,
            unreadable: Unreadable::default(),
        }
    }
}

/// `tenant.chatwoot.handoff.vip`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVip {
    /// Any of these labels makes a conversation one of theirs. Given back by a human, it is the agent's until it is
    /// resolved.
    pub(super) labels: Vec<String>,
    /// `at_once`, or `after_answer`: the agent answers once and a human takes over then.
    pub(super) when: VipWhen,
    /// The team that takes these over. Not given: the same as others.
    #[schemars(range(min = 1))]
    pub(super) team_id: Option<u64>,
    /// The human who takes these over. Not given: the same as others, unless a team is.
    #[schemars(range(min = 1))]
    pub(super) assignee_id: Option<u64>,
}

/// `[[tenant.lot]]`: tokens credited beside the monthly grant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLot {
    /// Its name within the tenant. A lot is credited once: to credit more, write another with a new name.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// Budget tokens.
    #[schemars(required, range(min = 1))]
    pub(super) tokens: Option<u64>,
    /// What it is. Default `adjustment`.
    pub(super) kind: Option<LotKind>,
    /// Lower is spent first. Not given: by its kind.
    pub(super) priority: Option<u8>,
    /// From when it can be spent: a date or an instant, RFC 3339. Not given: at once.
    pub(super) effective: Option<String>,
    /// When it falls: a date or an instant, RFC 3339. Not given: never.
    pub(super) expires: Option<String>,
}

impl Default for RawListen {
    fn default() -> Self {
        Self { public: "127.0.0.1:8080".to_owned(), admin: "127.0.0.1:9090".to_owned(), tls: None }
    }
}

impl Default for RawStorage {
    fn default() -> Self {
        Self { dir: PathBuf::from("data") }
    }
}

impl Default for RawRuntime {
    fn default() -> Self {
        Self { workers: None, per_core: true, background_workers: 2 }
    }
}

impl Default for RawTimeouts {
    fn default() -> Self {
        Self {
            header_ms: 10_000,
            body_stall_ms: 30_000,
            idle_ms: 75_000,
            tls_ms: 10_000,
            write_stall_ms: 60_000,
            connect_ms: 5_000,
            first_byte_ms: 120_000,
            stall_ms: 60_000,
            total_ms: 600_000,
            drain_ms: 30_000,
        }
    }
}

impl Default for RawInbox {
    fn default() -> Self {
        Self { queue_max: 4_096, batch_max: 512, ack_wait_ms: 1_000, pending_max: 1_000_000, keep_hours: 7 * 24 }
    }
}

impl Default for RawRelay {
    fn default() -> Self {
        Self {
            lanes_max: 10_000,
            turns_max: 256,
            turns_per_tenant_max: 32,
            burst_ms: 800,
            burst_max_ms: 4_000,
            agent_wait_ms: 60_000,
            agent_tries: 3,
            chatwoot_wait_ms: 15_000,
            chatwoot_tries: 6,
            chatwoot_calls_per_minute: 2_400,
            chatwoot_pause_ms: 500,
            typing_every_ms: 20_000,
            voice_wait_ms: 8_000,
            loop_window_ms: 300_000,
            loop_turns_max: 20,
            loop_flips_max: 20,
            history_max: 40,
        }
    }
}

impl Default for RawSweep {
    fn default() -> Self {
        Self {
            missed_hours: 24,
            missed_calm_ms: 30_000,
            conversations_max: 1_000,
            channels_at_once: 2,
            idle_every_ms: 300_000,
            idle_per_run_max: 100,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".to_owned(), access: true, format: RawLogFormat::Json }
    }
}
