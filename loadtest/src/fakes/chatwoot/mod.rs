//! A Chatwoot to test against: a real server with the real thing's state machine, REST and webhooks.
//!
//! It follows what Chatwoot v4.15.1's source does and is meant to be wrong nowhere a gateway could
//! notice: what a bot token may do, what a reply with braces turns into, that a slow answer to
//! a webhook takes the conversation away from the bot. [`FakeChatwoot`] is the handle: it plays
//! customers and humans, injects faults, and tells what every customer saw. The same is reachable
//! over HTTP under `/control`, for when it runs as a process ([`run`]).
//!
//! What it does not have: channels' own delivery, search, reports, realtime websockets, the platform API, automation
//! rules and macros. Those answer 404, or are simply absent.
//!
//! Reading order: `model` (records), `customer`, `machine`, `templates` and `assignment` (what sets off what), `emit`,
//! `delivery` and `reach` (webhooks), `payload` and `view` (how things look), `rest`, `control` and `page` (the doors).

mod model;

mod act;
mod assignment;
mod customer;
mod liquid;
mod machine;
mod templates;

mod delivery;
mod emit;
mod payload;
mod reach;

mod control;
mod page;
mod rest;
mod view;

mod fault;
mod handle;
mod record;
mod state;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::JoinSet;

pub use act::{Act, NewContact};
pub use delivery::sign;
pub use fault::{CallEffect, CallFault, DeliveryEffect, DeliveryFault, Endpoint, Faults};
pub use handle::{Customer, FakeChatwoot, Seen, TimedOut};
pub use machine::Refused;
pub use model::{
    Assignee, Attributes, Author, ContactInbox, Conversation, ConversationKey, Message, MessageType, Role, Status,
    Templates,
};
pub use record::{Attempt, Call, Delivery, Happening, Outcome, Route};
use state::State;

/// Lines a slow reader of `GET /control/events` may lag behind before it loses some, and is told so.
const LINES_BEHIND_MAX: usize = 4096;

/// Which release's ownership rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// v4.15.1: `pending` alone says that the bot has it.
    V4_15_1,
    /// Later releases: the bot is the assignee of what is pending, assigning changes the status,
    /// and a bot may read a conversation with a team.
    Later,
}

/// The bot of the first inbox.
#[derive(Debug, Clone)]
pub struct BotSettings {
    /// Its id.
    pub id: u64,
    /// Its token for the REST API.
    pub access_token: String,
    /// What signs its webhooks; `None` leaves them unsigned, as before 4.13.
    pub secret: Option<String>,
    /// Where they go; `None` sends none.
    pub outgoing_url: Option<String>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Conversations; further ones are refused.
    pub conversations_max: usize,
    /// Messages in all; further ones are refused.
    pub messages_max: usize,
    /// Webhooks waiting, under way or between tries; further ones are lost, and recorded so.
    pub deliveries_waiting_max: usize,
    /// Deliveries remembered.
    pub deliveries_kept_max: usize,
    /// REST calls remembered.
    pub calls_kept_max: usize,
    /// Lines of `GET /control/events` remembered.
    pub lines_kept_max: usize,
}

/// How a fake starts. The defaults are Chatwoot's, where it has any.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port on 127.0.0.1; 0 is any free one.
    pub port: u16,
    /// Decides ids, tokens and every seeded share.
    pub seed: u64,
    /// The account's id.
    pub account_id: u64,
    /// The bot.
    pub bot: BotSettings,
    /// Token of an administrator of the account.
    pub user_token: String,
    /// Channel class of the first inbox.
    pub channel: String,
    /// Ownership rules.
    pub rules: Rules,
    /// Whether bots and API inboxes have a secret and sign, as since 4.13.0.
    pub bot_secrets: bool,
    /// `SAFE_FETCH_ALLOW_PRIVATE_NETWORK`. A real Chatwoot has it off, and then sends no webhook to a loopback or
    /// private address; here it is on, because everything in a test is on loopback.
    pub private_network_allowed: bool,
    /// The account setting that keeps a conversation pending when the bot fails.
    pub keep_pending_on_bot_failure: bool,
    /// Longest wait for a webhook's answer (connecting included), and again for its body.
    pub webhook_timeout_ms: u64,
    /// Wait before a retry, plus up to 15 %.
    pub retry_wait_ms: u64,
    /// Tries of a bot's delivery in all.
    pub attempts_max: u32,
    /// Webhooks under way at once: Sidekiq's concurrency.
    pub workers_max: usize,
    /// REST calls a minute; Chatwoot's own limit is 3,000. `None` is no limit.
    pub calls_per_minute_max: Option<u32>,
    /// The flood guard.
    pub conversation_messages_per_minute_max: usize,
    /// How much is kept.
    pub bounds: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            seed: 1,
            account_id: 1,
            bot: BotSettings {
                id: 7,
                access_token: "fake-bot-token".to_owned(),
                secret: Some("fake-bot-secret".to_owned()),
                outgoing_url: None,
            },
            user_token: "fake-user-token".to_owned(),
            channel: "Channel::WebWidget".to_owned(),
            rules: Rules::V4_15_1,
            bot_secrets: true,
            private_network_allowed: true,
            keep_pending_on_bot_failure: false,
            webhook_timeout_ms: 5000,
            retry_wait_ms: 3000,
            attempts_max: 3,
            workers_max: 10,
            calls_per_minute_max: None,
            conversation_messages_per_minute_max: 200,
            bounds: Bounds {
                conversations_max: 200_000,
                messages_max: 2_000_000,
                deliveries_waiting_max: 100_000,
                deliveries_kept_max: 200_000,
                calls_kept_max: 100_000,
                lines_kept_max: 10_000,
            },
        }
    }
}

/// What the server, the deliveries under way and the handle have in common.
struct Shared {
    settings: Settings,
    state: Mutex<State>,
    changed: Notify,
    /// Numbered as in the state's ring.
    lines: broadcast::Sender<(u64, Arc<str>)>,
    workers: Semaphore,
    /// Deliveries under way; dropped with the fake.
    tasks: Mutex<JoinSet<()>>,
    runtime: Handle,
}

impl Shared {
    fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(settings.clone())),
            changed: Notify::new(),
            lines: broadcast::Sender::new(LINES_BEHIND_MAX),
            workers: Semaphore::new(settings.workers_max),
            tasks: Mutex::new(JoinSet::new()),
            runtime: Handle::current(),
            settings,
        })
    }

    /// Looks without changing.
    fn look<R>(&self, question: impl FnOnce(&State) -> R) -> R {
        question(&locked(&self.state))
    }

    /// Changes the state, then sends and tells what the change caused.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, tasks) = {
            let mut state = locked(&self.state);
            let result = change(&mut state);
            let tasks = state.drain();
            // Told under the lock, so that lines arrive in order. Nobody listening is no error.
            for line in state.untold() {
                drop(self.lines.send(line));
            }
            (result, tasks)
        };
        self.run(tasks);
        self.changed.notify_waiters();
        result
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = locked(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }
}

/// A panic of a test's predicate must not hide what the test found.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How [`run`] starts a fake as a process.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Port on 127.0.0.1; 0 is any free one.
    pub port: u16,
    /// The whole webhook URL, path included; may be set later over `/control/outgoing_url`.
    pub gateway_url: Option<String>,
    /// The bot's token.
    pub bot_token: String,
    /// The bot's secret.
    pub secret: Option<String>,
    /// An administrator's token.
    pub user_token: String,
    /// The account.
    pub account_id: u64,
    /// The bot.
    pub bot_id: u64,
    /// Seed of ids and faults.
    pub seed: u64,
    /// Whether the 3,000-a-minute limit is on.
    pub limited: bool,
}

/// Runs a fake until this future is dropped; calls `ready` once with its address.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(options: RunOptions, ready: impl FnOnce(&FakeChatwoot)) -> io::Result<()> {
    let bot = BotSettings {
        id: options.bot_id,
        access_token: options.bot_token,
        secret: options.secret,
        outgoing_url: options.gateway_url,
    };
    let settings = Settings {
        port: options.port,
        seed: options.seed,
        account_id: options.account_id,
        bot,
        user_token: options.user_token,
        calls_per_minute_max: options.limited.then_some(3000),
        ..Settings::default()
    };
    let fake = FakeChatwoot::start(settings).await?;
    ready(&fake);
    std::future::pending().await
}

/// Ids of everything a caller may name, for `GET /control/world` and the handle.
#[derive(Debug, Clone, serde::Serialize)]
pub struct World {
    /// The first account.
    pub account_id: u64,
    /// Its first inbox.
    pub chatwoot_inbox_id: u64,
    /// That inbox's bot at the start.
    pub bot_id: u64,
    /// The human who answers.
    pub human_id: u64,
    /// The teams.
    pub team_ids: BTreeSet<u64>,
}
