//! Asking: the agent that answers here, and those that answer in its place, while something new is heard.
//!
//! A model that fails as often as it may be tried, or whose tokens nobody pays for, gives way to the next of its
//! agent's `fallback`; after the last a human takes over. What a model used is counted whatever came of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::pin;
use tracing::{info, warn};

use super::known::NotOurs;
use super::lane::Conversation;
use super::retry::Tries;
use super::turn::declines;
use super::{Payer, Relay, quota};
use crate::agent::{Answer, Answered, Question, Spent, TokenUse};
use crate::config::{self, AgentKind, Level, Unreadable};
use crate::conversation::Action;
use crate::handoff::{self, HandoffReason, Signals};
use crate::inbox::{InboxError, TurnTokens};

/// What an agent gave beside a decision.
#[derive(Debug, Default)]
pub(super) struct ByAgent {
    /// Which agent; none if none was asked.
    pub(super) agent: Option<String>,
    /// Its note for the humans.
    pub(super) note: Option<String>,
    /// What is to be done.
    pub(super) actions: Vec<Action>,
}

/// What asking came to.
pub(super) enum Asked {
    /// This is said.
    Reply(String, ByAgent),
    /// A human takes over.
    Handoff(HandoffReason, ByAgent),
    /// The customer said something newer.
    Superseded,
    /// The conversation is not ours any more.
    NotOurs(NotOurs),
}

/// Asks, and listens meanwhile.
pub(super) async fn ask(
    conversation: &mut Conversation,
    upto_seq: i64,
    may_start_over: bool,
) -> Result<Asked, InboxError> {
    let none_left = quota::used_up(conversation).await?;
    let channel = Arc::clone(&conversation.channel);
    let agent = channel.agent_for(conversation.known.chatwoot_inbox_id, conversation.known.medium);
    let chain: Vec<&Arc<config::Agent>> = [agent].into_iter().chain(&agent.fallback).collect();
    if let Some(reason) = needs_human(conversation, &chain, none_left) {
        return Ok(Asked::Handoff(reason, ByAgent::default()));
    }
    let history = conversation.history().await?;
    let contact = conversation.known.contact.clone();
    let relay = Arc::clone(&conversation.relay);
    let (client, payer) = (conversation.client.clone(), conversation.payer.clone());
    let id = conversation.id();
    let tenant_id = Arc::clone(&conversation.key.tenant);
    let question = Question {
        tenant_id: &tenant_id,
        conversation_id: id,
        history: &history,
        contact: &contact,
        medium: conversation.known.medium,
        teams: &channel.handoff.teams,
        level_max: Level::opened_by(&payer.policy),
    };
    let took = Mutex::new(TurnTokens::default());
    let answering = first_answer(&relay, &payer, &chain, &question, &took);
    // A courtesy: whether it arrives does not matter, and nothing waits for it.
    let mut typing = Some(Box::pin(async move {
        let _ = client.typing(id, true).await;
    }));
    let asked = {
        pin!(answering);
        loop {
            tokio::select! {
                answer = &mut answering => break told(answer),
                () = ended(&mut typing) => {}
                () = conversation.wake.wait() => {
                    Box::pin(conversation.catch_up()).await?;
                    if let Err(why) = conversation.known.ours() {
                        break Asked::NotOurs(why);
                    }
                    if may_start_over && conversation.known.asked_after(upto_seq) {
                        break Asked::Superseded;
                    }
                }
            }
        }
    };
    conversation.tokens.add(took.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(asked)
}

/// One try of an agent. What it takes is counted when this ends, whatever came of it: also when the answer is dropped
/// because the customer wrote again.
struct Try<'a> {
    payer: &'a Payer,
    /// The model it asks; none if it asks none.
    model: Option<String>,
    spent: Spent,
    took: &'a Mutex<TurnTokens>,
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        let (Some(tokens), Some(model)) = (self.spent.so_far(), &self.model) else { return };
        self.payer.count(model, tokens);
        let TokenUse { input, cached, output, .. } = tokens;
        self.took.lock().unwrap_or_else(PoisonError::into_inner).add(TurnTokens { input, cached, output });
    }
}

/// Why a human has it before any agent is asked, if so.
fn needs_human(conversation: &Conversation, chain: &[&Arc<config::Agent>], none_left: bool) -> Option<HandoffReason> {
    let asks = conversation.known.asks();
    // Else the agent is told what it was, and the customer may be asked to write.
    let to_human = conversation.channel.handoff.unreadable == Unreadable::Human;
    let unreadable = to_human && asks.iter().any(|ask| ask.unreadable);
    // Where the plan has no handoff and the operator nothing to say about it, the agent goes on, if it may.
    let heard = conversation.handoff || (declines(conversation) && !none_left);
    let texts: Vec<&str> = asks.iter().filter(|_| heard).map(|ask| ask.text.as_str()).collect();
    let unpaid = conversation.payer.used_up() && chain.iter().all(|agent| costs(agent));
    let quota_used_up = none_left || unpaid;
    handoff::decide(&Signals { customer_text: &texts.join("\n"), unreadable, quota_used_up, ..Signals::default() })
}

/// Waits for the end of what runs beside, and frees it: an answer may take minutes. Then there is nothing to wait for.
async fn ended(beside: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match beside {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
    *beside = None;
}

/// Its answers cost tokens.
fn costs(agent: &config::Agent) -> bool {
    matches!(agent.kind, AgentKind::OpenAi(_))
}

/// The first answer of a chain of agents, and whose it is; none if none of them has one.
async fn first_answer(
    relay: &Relay,
    payer: &Payer,
    chain: &[&Arc<config::Agent>],
    question: &Question<'_>,
    took: &Mutex<TurnTokens>,
) -> Option<(String, Answered)> {
    for (place, agent) in chain.iter().enumerate() {
        if let Some(answered) = tried(relay, payer, agent, question, took).await {
            if place > 0 {
                info!(tenant_id = question.tenant_id, agent = %agent.id, "Another agent answered in the first one's place.");
            }
            return Some((agent.id.clone(), answered));
        }
    }
    None
}

/// One agent's answer, in as many tries as it has.
async fn tried(
    relay: &Relay,
    payer: &Payer,
    agent: &config::Agent,
    question: &Question<'_>,
    took: &Mutex<TurnTokens>,
) -> Option<Answered> {
    let mut tries = Tries::new(relay.parts.limits.agent_tries);
    loop {
        // It may have run out with the last try.
        if costs(agent) && payer.used_up() {
            return None;
        }
        let agents = relay.parts.agents.load_full();
        let model = agents.model(&agent.id).map(str::to_owned);
        let this = Try { payer, model, spent: Spent::default(), took };
        let result = agents.answer(&agent.id, question, relay.parts.limits.agent_wait, &this.spent).await;
        drop(this);
        let error = match result {
            Ok(answered) => return Some(answered),
            Err(failed) => failed.error,
        };
        warn!(%error, tenant_id = question.tenant_id, agent = %agent.id, "The agent did not answer.");
        match tries.next(None).filter(|_| error.retriable()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return None,
        }
    }
}

fn told(answered: Option<(String, Answered)>) -> Asked {
    let Some((agent, Answered { answer, actions, .. })) = answered else {
        return Asked::Handoff(HandoffReason::AgentFailed, ByAgent::default());
    };
    let resolves = actions.contains(&Action::Resolve);
    let by = |note| ByAgent { agent: Some(agent), note, actions };
    match answer {
        Answer::Reply { text, .. } if !text.trim().is_empty() => Asked::Reply(text, by(None)),
        Answer::Reply { .. } if resolves => Asked::Reply(String::new(), by(None)),
        Answer::Reply { .. } => Asked::Handoff(HandoffReason::AgentFailed, by(None)),
        Answer::Handoff { reason, note } => match HandoffReason::of_agent(&reason) {
            HandoffReason::AgentDecided => Asked::Handoff(HandoffReason::AgentDecided, by(note.or(Some(reason)))),
            known => Asked::Handoff(known, by(note)),
        },
    }
}
