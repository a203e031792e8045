//! Everything the fake knows, behind one lock, and the questions asked of it.
//!
//! Nothing here waits or does I/O. A change leaves what must be sent in `outbox` and what must be
//! told in `lines`; `Shared::change` (in `mod.rs`) takes both out when it lets go of the lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::Settings;
use super::delivery::Outgoing;
use super::fault::{Faults, mix};
use super::model::{
    Account, AccountWebhook, Assignee, Author, Bot, ChatwootInbox, Contact, Conversation, ConversationKey, Human, Link,
    Role, Team, Templates,
};
use super::record::{Call, Delivery, Happening, Ring};

pub(super) struct State {
    pub(super) settings: Settings,
    random: u64,
    last_row_id: u64,
    pub(super) last_message_id: u64,
    pub(super) messages_count: usize,
    pub(super) accounts: BTreeMap<u64, Account>,
    pub(super) humans: BTreeMap<u64, Human>,
    pub(super) teams: BTreeMap<u64, Team>,
    pub(super) bots: BTreeMap<u64, Bot>,
    pub(super) inboxes: BTreeMap<u64, ChatwootInbox>,
    pub(super) webhooks: BTreeMap<u64, AccountWebhook>,
    pub(super) contacts: BTreeMap<u64, Contact>,
    /// By the row's id.
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) conversations: BTreeMap<ConversationKey, Conversation>,
    pub(super) faults: Faults,
    /// Deliveries waiting for a worker, under way, or between two attempts.
    pub(super) deliveries_waiting: usize,
    /// A delivery held back so that the next one overtakes it, and which holding this is.
    pub(super) held: Option<(u64, Box<Outgoing>)>,
    pub(super) holds_count: u64,
    pub(super) outbox: Vec<Outgoing>,
    pub(super) deliveries: Ring<Delivery>,
    pub(super) calls: Ring<Call>,
    pub(super) lines: Ring<Arc<str>>,
    /// Calls in the current minute, for the 3,000-a-minute limit.
    pub(super) calls_in_minute: (i64, u32),
    /// Liveness of `lines` since the last `Shared::change`: where to start telling.
    pub(super) told_until: u64,
    /// What was last told of the gateway, for the page.
    pub(super) gateway_report: Option<Value>,
}

impl State {
    /// A Chatwoot with one account, an administrator, a human, a team, a bot and an inbox of it.
    pub(super) fn new(settings: Settings) -> Self {
        let bounds = settings.bounds;
        let mut state = Self {
            random: settings.seed,
            last_row_id: 100,
            last_message_id: 90_000,
            messages_count: 0,
            accounts: BTreeMap::new(),
            humans: BTreeMap::new(),
            teams: BTreeMap::new(),
            bots: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            contacts: BTreeMap::new(),
            links: BTreeMap::new(),
            conversations: BTreeMap::new(),
            faults: Faults::default(),
            deliveries_waiting: 0,
            held: None,
            holds_count: 0,
            outbox: Vec::new(),
            deliveries: Ring::new(bounds.deliveries_kept_max),
            calls: Ring::new(bounds.calls_kept_max),
            lines: Ring::new(bounds.lines_kept_max),
            calls_in_minute: (0, 0),
            told_until: 0,
            gateway_report: None,
            settings,
        };
        state.furnish();
        state
    }

    fn furnish(&mut self) {
        let settings = self.settings.clone();
        let account_id = settings.account_id;
        self.accounts.insert(account_id, Account { name: "Example Store".to_owned(), last_conversation_id: 1000 });
        self.bots.insert(
            settings.bot.id,
            Bot {
                id: settings.bot.id,
                account_id: Some(account_id),
                name: "Relais".to_owned(),
                description: String::new(),
                outgoing_url: settings.bot.outgoing_url.clone(),
                access_token: settings.bot.access_token.clone(),
                secret: settings.bot.secret.clone().filter(|_| settings.bot_secrets),
            },
        );
        self.add_human(account_id, "Olga Operator", Role::Administrator, Some(settings.user_token));
        let human_id = self.add_human(account_id, "Hugo Human", Role::Agent, None);
        self.add_team(account_id, "support", vec![human_id]);
        let inbox_id = self.add_inbox(account_id, "Website chat", &settings.channel);
        if let Some(inbox) = self.inboxes.get_mut(&inbox_id) {
            inbox.bot_id = Some(settings.bot.id);
        }
    }

    pub(super) fn add_human(&mut self, account_id: u64, name: &str, role: Role, token: Option<String>) -> u64 {
        let id = self.next_row_id();
        let access_token = token.unwrap_or_else(|| self.random_token());
        let email = format!("{}@example.com", name.to_lowercase().replace(' ', "."));
        let human = Human { id, account_id, name: name.to_owned(), email, access_token, role, online: false };
        self.humans.insert(id, human);
        id
    }

    pub(super) fn add_team(&mut self, account_id: u64, name: &str, human_ids: Vec<u64>) -> u64 {
        let id = self.next_row_id();
        let team = Team { id, account_id, name: name.to_owned(), allow_auto_assign: true, human_ids };
        self.teams.insert(id, team);
        id
    }

    pub(super) fn add_bot(&mut self, account_id: Option<u64>, name: &str, outgoing_url: Option<String>) -> u64 {
        let id = self.next_row_id();
        let (access_token, secret) = (self.random_token(), self.random_secret());
        let description = String::new();
        self.bots
            .insert(id, Bot { id, account_id, name: name.to_owned(), description, outgoing_url, access_token, secret });
        id
    }

    pub(super) fn add_inbox(&mut self, account_id: u64, name: &str, channel: &str) -> u64 {
        let id = self.next_row_id();
        let (identifier, hmac_token, secret) = (self.random_token(), self.random_token(), self.random_secret());
        self.inboxes.insert(
            id,
            ChatwootInbox {
                id,
                account_id,
                name: name.to_owned(),
                channel: channel.to_owned(),
                bot_id: None,
                auto_assignment: true,
                templates: Templates::default(),
                identifier,
                hmac_token,
                secret,
                webhook_url: None,
            },
        );
        id
    }

    pub(super) fn next_row_id(&mut self) -> u64 {
        self.last_row_id += 1;
        self.last_row_id
    }

    pub(super) fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.random)
    }

    /// 24 letters and digits, as Chatwoot's tokens.
    pub(super) fn random_token(&mut self) -> String {
        const ALPHABET: [char; 32] = [
            'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'J', 'K', 'L', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W',
            'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7', '8', '9',
        ];
        let mut draw = 0;
        (0..24)
            .filter_map(|position| {
                // Twelve letters of five bits from each draw.
                if position % 12 == 0 {
                    draw = self.random_u64();
                }
                let letter = usize::try_from(draw & 31).ok()?;
                draw >>= 5;
                ALPHABET.get(letter).copied()
            })
            .collect()
    }

    /// What signs a bot's or an API inbox's webhooks, in a release that signs them.
    pub(super) fn random_secret(&mut self) -> Option<String> {
        let secret = self.random_token();
        self.settings.bot_secrets.then_some(secret)
    }

    /// A version 4 UUID from the seed.
    pub(super) fn random_uuid(&mut self) -> String {
        let bytes = (u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Notes down one line about a conversation for whoever watches.
    pub(super) fn tell(&mut self, key: ConversationKey, happening: &Happening) {
        #[derive(Serialize)]
        struct Line<'a> {
            seq: u64,
            at_ms: i64,
            #[serde(flatten)]
            key: ConversationKey,
            #[serde(flatten)]
            happening: &'a Happening,
        }
        let line = Line { seq: self.lines.next_number(), at_ms: now_ms(), key, happening };
        let text =
            serde_json::to_string(&line).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string());
        self.lines.push(text.into());
    }

    /// Keeps what is told of the gateway; whoever watches hears of it if it is something else than before.
    pub(super) fn report_gateway(&mut self, report: Value) {
        if self.gateway_report.as_ref() != Some(&report) {
            self.gateway_report = Some(report);
            self.tell_of_gateway(&Happening::GatewayTold);
        }
    }

    /// Notes down one line that is about no conversation.
    pub(super) fn tell_of_gateway(&mut self, happening: &Happening) {
        self.tell(ConversationKey { account_id: self.settings.account_id, conversation_id: 0 }, happening);
    }

    /// Lines noted since this was last asked, with their numbers.
    pub(super) fn untold(&mut self) -> Vec<(u64, Arc<str>)> {
        let untold = self.lines.since(self.told_until).map(|(number, line)| (number, Arc::clone(line))).collect();
        self.told_until = self.lines.next_number();
        untold
    }

    /// Who a token belongs to.
    pub(super) fn caller(&self, token: &str) -> Option<Author> {
        let human = self.humans.values().find(|human| human.access_token == token);
        let bot = || self.bots.values().find(|bot| bot.access_token == token);
        human.map(|human| Author::Human(human.id)).or_else(|| bot().map(|bot| Author::Bot(bot.id)))
    }

    /// Whether a bot may act in an account: it owns it, or sits in one of its inboxes.
    pub(super) fn belongs_to(&self, caller: Author, account_id: u64) -> bool {
        match caller {
            Author::Contact(_) => false,
            Author::Human(id) => self.humans.get(&id).is_some_and(|human| human.account_id == account_id),
            Author::Bot(id) => {
                self.bots.get(&id).is_some_and(|bot| bot.account_id == Some(account_id))
                    || self.inboxes.values().any(|inbox| inbox.account_id == account_id && inbox.bot_id == Some(id))
            }
        }
    }

    /// The bots that hear of an inbox and its conversation: the inbox's, and one the conversation is assigned to.
    pub(super) fn listening_bots(&self, chatwoot_inbox_id: u64, assignee: Option<Assignee>) -> Vec<Bot> {
        let of_inbox = self.inboxes.get(&chatwoot_inbox_id).and_then(|inbox| inbox.bot_id);
        let assigned = match assignee {
            Some(Assignee::Bot(id)) if of_inbox != Some(id) => Some(id),
            _ => None,
        };
        [of_inbox, assigned].into_iter().flatten().filter_map(|id| self.bots.get(&id).cloned()).collect()
    }

    pub(super) fn has_active_bot(&self, chatwoot_inbox_id: u64) -> bool {
        self.inboxes.get(&chatwoot_inbox_id).is_some_and(|inbox| inbox.bot_id.is_some())
    }

    pub(super) fn first_inbox_of(&self, account_id: u64) -> Option<u64> {
        self.inboxes.values().find(|inbox| inbox.account_id == account_id).map(|inbox| inbox.id)
    }
}

/// Wall time, ms since 1970. A fake lives in the world's time: signatures carry it.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
