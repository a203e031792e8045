//! What a channel's Chatwoot holds that no webhook may have brought: its pending conversations and their messages.
//!
//! Only a user's token may list, so everything here hangs on [`Lists`], which exists only where there is one. What is
//! listed is made into the body of the delivery that should have come: the same words, in the places where a webhook
//! has them, so that from the inbox on nobody can tell the difference. It decides nothing and enters nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Call, CallCause, CallError, Chatwoot, MessagesAnswer};
use crate::chatwoot::event::{Assignee, ConversationView, EventKind, Message, Status};
use crate::chatwoot::wire;
use crate::config;

/// Conversations on one page of Chatwoot's list.
pub const PAGE_CONVERSATIONS: usize = 25;
/// Messages on a full page after a number: there may be more.
pub const PAGE_MESSAGES: usize = super::PAGE_MESSAGES;
/// Inboxes of one account looked at.
const CHATWOOT_INBOXES_MAX: usize = 500;

/// The lists of one channel's Chatwoot.
#[derive(Clone, Copy)]
pub struct Lists<'a> {
    chatwoot: &'a Chatwoot,
    token: &'a SecretString,
}

/// A pending conversation, as a list shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The conversation.
    pub view: ConversationView,
    /// When anything last happened in it: Unix ms; 0 if not told.
    pub last_activity_ms: i64,
    raw: Box<RawValue>,
}

/// A message, and the delivery that tells of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// The message.
    pub message: Message,
    /// The body of its `message_created`.
    pub body: Bytes,
}

/// In which order conversations are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those in which something happened last come first.
    Newest,
    /// Those that have been quiet for longest come first.
    Quietest,
}

#[derive(Deserialize)]
struct InboxesAnswer {
    payload: Vec<wire::Numbered>,
}

#[derive(Deserialize)]
struct BotAnswer {
    agent_bot: Option<wire::Numbered>,
}

#[derive(Deserialize)]
struct ListAnswer<'a> {
    #[serde(borrow)]
    data: ListData<'a>,
}

#[derive(Deserialize)]
struct ListData<'a> {
    #[serde(borrow)]
    payload: Vec<&'a RawValue>,
}

impl Chatwoot {
    /// What only a user's token may; none without one.
    pub fn lists(&self) -> Option<Lists<'_>> {
        Some(Lists { chatwoot: self, token: self.channel.user_token.as_ref()? })
    }
}

impl Lists<'_> {
    /// Whose lists they are.
    pub fn channel(&self) -> &config::Channel {
        &self.chatwoot.channel
    }

    /// The inboxes that our bot is attached to. One call, and one more for each inbox of the account.
    pub async fn our_inboxes(&self) -> Result<Vec<u64>, CallError> {
        const CALL: &str = "inboxes";
        let answer = self.get(CALL, "/inboxes").await?;
        let inboxes: InboxesAnswer = read(CALL, "payload", &answer)?;
        let mut ours = Vec::new();
        for id in inboxes.payload.into_iter().filter_map(|inbox| inbox.id).take(CHATWOOT_INBOXES_MAX) {
            const CALL: &str = "inbox_bot";
            let answer = self.get(CALL, &format!("/inboxes/{id}/agent_bot")).await?;
            let bot: BotAnswer = read(CALL, "agent_bot", &answer)?;
            if bot.agent_bot.and_then(|bot| bot.id) == Some(self.chatwoot.channel.bot_id) {
                ours.push(id);
            }
        }
        Ok(ours)
    }

    /// One page, from 1, of an inbox's pending conversations. Fewer than [`PAGE_CONVERSATIONS`]: it was the last.
    /// Also how many there were on it, those included that are another bot's or cannot be read and are left out.
    pub async fn pending(&self, inbox_id: u64, order: Order, page: u32) -> Result<(Vec<Listed>, usize), CallError> {
        const CALL: &str = "conversations";
        let sort_by = match order {
            Order::Newest => "last_activity_at_desc",
            Order::Quietest => "last_activity_at_asc",
        };
        let path = format!(
            "/conversations?status=pending&assignee_type=all&inbox_id={inbox_id}&sort_by={sort_by}&page={page}"
        );
        let answer = self.get(CALL, &path).await?;
        let answer: ListAnswer<'_> = read(CALL, "data", &answer)?;
        let listed = answer.data.payload.iter().filter_map(|raw| listed(raw));
        let ours = listed.filter(|listed| self.may_be_ours(&listed.view));
        Ok((ours.collect(), answer.data.payload.len()))
    }

    /// Pending, and no other bot's. A human's is among them: whoever wrote there waits for somebody.
    fn may_be_ours(&self, view: &ConversationView) -> bool {
        view.status == Some(Status::Pending)
            && match view.assignee {
                Assignee::Bot(id) => id == self.chatwoot.channel.bot_id,
                Assignee::Other => false,
                Assignee::None | Assignee::Human(_) | Assignee::Unknown => true,
            }
    }

    /// Messages of a conversation in the order of their numbers, without Chatwoot's own lines: those after a number,
    /// or the newest 20. Also the highest number on the page, if it was full: where the next one begins.
    pub async fn messages(&self, of: &Listed, after: Option<u64>) -> Result<(Vec<Told>, Option<u64>), CallError> {
        const CALL: &str = "messages";
        let after = after.map_or_else(String::new, |after| format!("?after={after}"));
        let answer = self.get(CALL, &format!("/conversations/{}/messages{after}", of.view.id)).await?;
        let answer: MessagesAnswer<'_> = read(CALL, "payload", &answer)?;
        let mut newest = None;
        let mut told = Vec::new();
        for raw in &answer.payload {
            // One that cannot be read spoils no other.
            let Ok(message) = serde_json::from_str::<wire::RawMessage<'_>>(raw.get()) else { continue };
            newest = newest.max(message.id());
            let body = as_delivered(self.chatwoot.channel.account_id, &of.raw, raw);
            if let (false, Some(message), Some(body)) = (message.is_activity(), message.message(), body) {
                told.push(Told { message, body });
            }
        }
        // Chatwoot filters by number and sorts by time.
        told.sort_by_key(|told| told.message.id);
        let full = answer.payload.len() >= PAGE_MESSAGES;
        Ok((told, newest.filter(|_| full)))
    }

    async fn get(&self, name: &'static str, path: &str) -> Result<Bytes, CallError> {
        let path = format!("{}{path}", self.chatwoot.account);
        let call = Call { name, method: Method::GET, path, body: Bytes::new(), token: self.token };
        self.chatwoot.counted(call).await
    }
}

fn read<'a, T: Deserialize<'a>>(call: &'static str, shape: &'static str, answer: &'a [u8]) -> Result<T, CallError> {
    serde_json::from_slice(answer).map_err(|_| CallError::new(call, CallCause::Shape(shape)))
}

fn listed(raw: &RawValue) -> Option<Listed> {
    let conversation: wire::RawConversation<'_> = serde_json::from_str(raw.get()).ok()?;
    let last_activity_ms = conversation.last_activity_ms();
    Some(Listed { view: conversation.view()?, last_activity_ms, raw: raw.to_owned() })
}

/// The delivery that tells of a listed message: the message at the top, with the keys that a list leaves out.
fn as_delivered(account_id: u64, conversation: &RawValue, message: &RawValue) -> Option<Bytes> {
    let event = to_raw_value(EventKind::MessageCreated.as_str()).ok()?;
    let account = to_raw_value(&json!({ "id": account_id })).ok()?;
    let mut keys: BTreeMap<String, &RawValue> = serde_json::from_str(message.get()).ok()?;
    keys.insert("event".to_owned(), &event);
    keys.insert("account".to_owned(), &account);
    keys.insert("conversation".to_owned(), conversation);
    serde_json::to_vec(&keys).ok().map(Bytes::from)
}
