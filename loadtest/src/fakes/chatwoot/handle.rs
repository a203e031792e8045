//! The handle: plays customers and humans, injects faults, tells what happened.
//!
//! Every method takes effect at once and can be called from anywhere, inside a runtime or not.
//! Waiting is done with [`FakeChatwoot::wait_until`], which looks again after each change instead of
//! sleeping.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::act::{Act, NewContact};
use super::fault::Faults;
use super::machine::Refused;
use super::model::{Attributes, Author, Conversation, ConversationKey, MessageType, Role, Status, Templates};
use super::record::{Call, Delivery};
use super::state::State;
use super::{Settings, Shared, World, locked, rest};
use crate::http::Server;

/// A running fake Chatwoot. Dropping it is pulling its plug: connections and deliveries end there.
pub struct FakeChatwoot {
    shared: Arc<Shared>,
    server: Option<Server>,
    port: u16,
}

/// Something a customer was shown, or said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// The message.
    pub message_id: u64,
    /// `Incoming` is what the customer said.
    pub message_type: MessageType,
    /// Who wrote it; `None` for templates, automation, phone-app echoes.
    pub by: Option<Author>,
    /// The text.
    pub content: Option<String>,
    /// Attributes, where a gateway leaves its mark.
    pub content_attributes: Attributes,
}

/// The deadline passed before what was waited for came true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not within {0:?}")]
pub struct TimedOut(pub Duration);

impl FakeChatwoot {
    /// Starts the server with one account, bot, inbox, team and human, and an administrator.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let asked = settings.port;
        let mut fake = Self { shared: Shared::new(settings), server: None, port: asked };
        fake.bring_up().await?;
        Ok(fake)
    }

    /// Stops listening and closes every connection; the records stay.
    pub async fn take_down(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bring_up(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let server = Server::start(self.port, move |request| rest::answer(Arc::clone(&shared), request)).await?;
        self.port = server.address().port();
        self.server = Some(server);
        Ok(())
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ids of what it started with.
    #[must_use]
    pub fn world(&self) -> World {
        self.shared.look(State::world)
    }

    /// Sends the bot's webhooks here from now on.
    pub fn set_outgoing_url(&self, url: &str) {
        self.shared.change(|state| state.set_outgoing_url(Some(url.to_owned())));
    }

    /// Signs the bot's webhooks with this from now on; what is queued keeps the old secret.
    pub fn set_bot_secret(&self, secret: Option<&str>) {
        self.shared.change(|state| {
            let bot_id = state.settings.bot.id;
            if let Some(bot) = state.bots.get_mut(&bot_id) {
                bot.secret = secret.map(str::to_owned);
            }
        });
    }

    /// Replaces all faults. `Faults::default()` ends them.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.change(|state| state.faults = faults);
    }

    /// What is left of the faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.look(|state| state.faults.clone())
    }

    /// Adds an inbox of this channel class with the first bot attached, or without a bot.
    #[must_use]
    pub fn add_inbox(&self, name: &str, channel: &str, with_bot: bool) -> u64 {
        self.shared.change(|state| {
            let (account_id, bot_id) = (state.settings.account_id, state.settings.bot.id);
            let id = state.add_inbox(account_id, name, channel);
            if let Some(inbox) = state.inboxes.get_mut(&id) {
                inbox.bot_id = with_bot.then_some(bot_id);
            }
            id
        })
    }

    /// Adds a bot and returns its id; its secret and token are random.
    #[must_use]
    pub fn add_bot(&self, name: &str, outgoing_url: &str) -> u64 {
        self.shared.change(|state| state.add_bot(Some(state.settings.account_id), name, Some(outgoing_url.to_owned())))
    }

    /// Adds a global bot, which belongs to the installation and hides its URL, token and secret from accounts.
    #[must_use]
    pub fn add_global_bot(&self, name: &str, outgoing_url: &str) -> u64 {
        self.shared.change(|state| state.add_bot(None, name, Some(outgoing_url.to_owned())))
    }

    /// A bot's access token and the secret that its webhooks are signed with.
    #[must_use]
    pub fn bot_credentials(&self, bot_id: u64) -> Option<(String, Option<String>)> {
        self.shared.look(|state| state.bots.get(&bot_id).map(|bot| (bot.access_token.clone(), bot.secret.clone())))
    }

    /// Sends another bot's webhooks here from now on.
    pub fn set_bot_url(&self, bot_id: u64, url: &str) {
        self.shared.change(|state| {
            if let Some(bot) = state.bots.get_mut(&bot_id) {
                bot.outgoing_url = Some(url.to_owned());
            }
        });
    }

    /// Attaches a bot to an inbox instead of the one that is there.
    pub fn attach_bot(&self, chatwoot_inbox_id: u64, bot_id: u64) {
        self.shared.change(|state| {
            if let Some(inbox) = state.inboxes.get_mut(&chatwoot_inbox_id) {
                inbox.bot_id = Some(bot_id);
            }
        });
    }

    /// Adds a human and returns the id.
    #[must_use]
    pub fn add_human(&self, name: &str, role: Role) -> u64 {
        self.shared.change(|state| state.add_human(state.settings.account_id, name, role, None))
    }

    /// Adds a team of these humans and returns its id.
    #[must_use]
    pub fn add_team(&self, name: &str, human_ids: &[u64]) -> u64 {
        self.shared.change(|state| state.add_team(state.settings.account_id, name, human_ids.to_vec()))
    }

    /// Puts a human on or off line. Auto-assignment picks only those on line.
    pub fn set_human_online(&self, human_id: u64, online: bool) {
        self.shared.change(|state| {
            if let Some(human) = state.humans.get_mut(&human_id) {
                human.online = online;
            }
        });
    }

    /// What Chatwoot itself says in this inbox, from now on.
    pub fn set_templates(&self, chatwoot_inbox_id: u64, templates: Templates) {
        self.shared.change(|state| {
            if let Some(inbox) = state.inboxes.get_mut(&chatwoot_inbox_id) {
                inbox.templates = templates;
            }
        });
    }

    /// Sends an API inbox's webhooks here from now on.
    pub fn set_inbox_webhook_url(&self, chatwoot_inbox_id: u64, url: &str) {
        self.shared.change(|state| {
            if let Some(inbox) = state.inboxes.get_mut(&chatwoot_inbox_id) {
                inbox.webhook_url = Some(url.to_owned());
            }
        });
    }

    /// Deletes the link between a conversation's contact and its inbox: webhooks still on their way are dropped.
    pub fn delete_contact_inbox(&self, key: ConversationKey) {
        self.shared.change(|state| {
            let link_id = state.conversations.get(&key).map(|conversation| conversation.contact_inbox.id);
            link_id.and_then(|link_id| state.links.remove(&link_id))
        });
    }

    /// The token of a human or a bot, for calls in its name.
    #[must_use]
    pub fn token_of(&self, who: Author) -> Option<String> {
        self.shared.look(|state| match who {
            Author::Contact(_) => None,
            Author::Human(id) => state.humans.get(&id).map(|human| human.access_token.clone()),
            Author::Bot(id) => state.bots.get(&id).map(|bot| bot.access_token.clone()),
        })
    }

    /// Starts a conversation in the first inbox, of a customer with invented data.
    ///
    /// # Errors
    /// The fake is full.
    pub fn new_conversation(&self) -> Result<ConversationKey, Refused> {
        self.new_conversation_in(self.world().chatwoot_inbox_id, NewContact::default())
    }

    /// Starts a conversation of this customer in this inbox.
    ///
    /// # Errors
    /// No such inbox, or the fake is full.
    pub fn new_conversation_in(&self, inbox_id: u64, contact: NewContact) -> Result<ConversationKey, Refused> {
        self.shared.change(|state| state.start_with(inbox_id, contact))
    }

    /// A customer who has no conversation opens the chat window of this inbox.
    ///
    /// # Errors
    /// No such inbox, or the fake is full.
    pub fn open_widget(&self, inbox_id: u64, contact: NewContact) -> Result<(), Refused> {
        self.shared.change(|state| {
            let account_id = state.inboxes.get(&inbox_id).ok_or(Refused::NotFound)?.account_id;
            let contact_id = state.add_contact(account_id, contact);
            let link_id = state.add_link(inbox_id, contact_id)?;
            state.emit_widget(link_id);
            Ok(())
        })
    }

    /// Plays an act; returns the id of the message it made, if any.
    ///
    /// # Errors
    /// No such conversation or message, or a limit was met.
    pub fn act(&self, key: ConversationKey, act: Act) -> Result<Option<u64>, Refused> {
        self.shared.change(|state| state.perform(key, act))
    }

    /// The customer of a conversation.
    #[must_use]
    pub fn customer(&self, key: ConversationKey) -> Customer<'_> {
        Customer { fake: self, key }
    }

    /// A human writes to the customer.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn human_replies(&self, key: ConversationKey, text: &str) -> Result<u64, Refused> {
        made(self.act(key, Act::HumanReplies { text: text.to_owned() }))
    }

    /// A human opens the conversation and is assigned.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn human_takes_over(&self, key: ConversationKey) -> Result<(), Refused> {
        self.act(key, Act::HumanTakesOver).map(drop)
    }

    /// A human leaves a private note.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn private_note(&self, key: ConversationKey, text: &str) -> Result<u64, Refused> {
        made(self.act(key, Act::PrivateNote { text: text.to_owned() }))
    }

    /// Someone replies from the channel's phone app.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn external_echo(&self, key: ConversationKey, text: &str) -> Result<u64, Refused> {
        made(self.act(key, Act::ExternalEcho { text: text.to_owned() }))
    }

    /// A human resolves the conversation.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn resolve(&self, key: ConversationKey) -> Result<(), Refused> {
        self.act(key, Act::Resolve).map(drop)
    }

    /// A human gives the conversation back to the bot.
    ///
    /// # Errors
    /// See [`Self::act`].
    pub fn set_pending(&self, key: ConversationKey) -> Result<(), Refused> {
        self.act(key, Act::SetPending).map(drop)
    }

    /// What the customer said and was shown, in order. Empty for an unknown conversation.
    #[must_use]
    pub fn seen_by_customer(&self, key: ConversationKey) -> Vec<Seen> {
        self.shared.look(|state| state.seen_by_customer(key))
    }

    /// A copy of the conversation.
    #[must_use]
    pub fn conversation(&self, key: ConversationKey) -> Option<Conversation> {
        self.shared.look(|state| state.conversations.get(&key).cloned())
    }

    /// Its status alone, without copying the rest.
    #[must_use]
    pub fn status(&self, key: ConversationKey) -> Option<Status> {
        self.shared.look(|state| state.conversations.get(&key).map(|conversation| conversation.status))
    }

    /// Every conversation there is.
    #[must_use]
    pub fn conversation_keys(&self) -> Vec<ConversationKey> {
        self.shared.look(|state| state.conversations.keys().copied().collect())
    }

    /// The webhooks sent, oldest first, as far as they are remembered.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.look(|state| state.deliveries.iter().cloned().collect())
    }

    /// Webhooks waiting, under way, held back or between two tries.
    #[must_use]
    pub fn deliveries_waiting(&self) -> usize {
        self.shared.look(|state| state.deliveries_waiting)
    }

    /// The REST calls received, oldest first, as far as they are remembered.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.look(|state| state.calls.iter().cloned().collect())
    }

    /// Waits until `holds` does, looking again after every change.
    ///
    /// # Errors
    /// The deadline passed first.
    pub async fn wait_until(&self, deadline: Duration, holds: impl Fn(&Self) -> bool) -> Result<(), TimedOut> {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                // Registered before looking: a change between the look and the wait is not missed.
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(deadline, waiting).await.map_err(|_| TimedOut(deadline))
    }
}

impl Drop for FakeChatwoot {
    fn drop(&mut self) {
        locked(&self.shared.tasks).abort_all();
    }
}

/// One customer in one conversation.
pub struct Customer<'a> {
    fake: &'a FakeChatwoot,
    key: ConversationKey,
}

impl Customer<'_> {
    /// Writes, and returns the message's id.
    ///
    /// # Errors
    /// See [`FakeChatwoot::act`].
    pub fn says(&self, text: &str) -> Result<u64, Refused> {
        made(self.fake.act(self.key, Act::CustomerSays { text: text.to_owned() }))
    }

    /// Picks from an interactive message: `[{"title": .., "value": ..}]`.
    ///
    /// # Errors
    /// See [`FakeChatwoot::act`].
    pub fn answers(&self, message_id: u64, submitted_values: serde_json::Value) -> Result<(), Refused> {
        self.fake.act(self.key, Act::CustomerAnswers { message_id, submitted_values }).map(drop)
    }
}

fn made(done: Result<Option<u64>, Refused>) -> Result<u64, Refused> {
    done?.ok_or(Refused::NotFound)
}

impl State {
    pub(super) fn world(&self) -> World {
        let account_id = self.settings.account_id;
        World {
            account_id,
            chatwoot_inbox_id: self.first_inbox_of(account_id).unwrap_or(0),
            bot_id: self.settings.bot.id,
            human_id: self.human_of(account_id).unwrap_or(0),
            team_ids: self.teams.keys().copied().collect(),
        }
    }

    pub(super) fn set_outgoing_url(&mut self, url: Option<String>) {
        let bot_id = self.settings.bot.id;
        if let Some(bot) = self.bots.get_mut(&bot_id) {
            bot.outgoing_url = url;
        }
    }

    pub(super) fn start_with(&mut self, inbox_id: u64, contact: NewContact) -> Result<ConversationKey, Refused> {
        let account_id = self.inboxes.get(&inbox_id).ok_or(Refused::NotFound)?.account_id;
        let contact_id = self.add_contact(account_id, contact);
        self.start_conversation(inbox_id, contact_id)
    }

    pub(super) fn seen_by_customer(&self, key: ConversationKey) -> Vec<Seen> {
        let messages = self.conversations.get(&key).map(|conversation| conversation.messages.iter());
        let shown = messages.into_iter().flatten().filter(|message| message.is_for_customer());
        shown
            .map(|message| Seen {
                message_id: message.id,
                message_type: message.message_type,
                by: message.author,
                content: message.content.clone(),
                content_attributes: message.content_attributes.clone(),
            })
            .collect()
    }
}
