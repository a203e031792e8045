//! Asking: the agent that answers here, and those that answer in its place, while something new is heard.
//!
//! A model that fails as often as it may be tried, or whose tokens nobody pays for, gives way to the next of its
//! agent's `fallback`; after the last a human takes over. What a model used is counted whatever came of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::pin;
use tracing::{info, warn};

use super::known::NotOurs;
use super::lane::Conversation;
use super::retry::Tries;
use super::turn::declines;
use super::typing::Typing;
use super::{Payer, Relay, handover, quota};
use crate::agent::{Answer, Answered, Question, Spent, TokenUse};
use crate::config::{self, AgentKind, Level, Unreadable, VipWhen};
use crate::conversation::{Action, Utterance, language};
use crate::handoff::{self, HandoffReason, Signals, Unknown};
use crate::inbox::{InboxError, TurnTokens};

/// What an agent gave beside a decision.
#[derive(Debug, Default)]
pub(super) struct ByAgent {
    /// Which agent; none if none was asked.
    pub(super) agent: Option<String>,
    /// Its note for the humans.
    pub(super) note: Option<String>,
    /// What it looked up.
    pub(super) sources: Vec<String>,
    /// What is to be done.
    pub(super) actions: Vec<Action>,
}

/// What asking came to.
pub(super) enum Asked {
    /// This is said.
    Reply(String, ByAgent),
    /// This is said, and then a human takes over.
    LastReply(String, ByAgent),
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
    let vip = vip(conversation);
    let mut reason = needs_human(conversation, &chain, none_left, vip, true);
    // Where the plan has no handoff and the operator nothing to say about it, the agent goes on, if it may.
    let told = conversation.handoff || (declines(conversation) && !none_left);
    if reason == Some(HandoffReason::AskedFor) && !told {
        Box::pin(handover::refuse_with_label(conversation, HandoffReason::AskedFor)).await;
        reason = needs_human(conversation, &chain, none_left, vip, false);
    }
    if let Some(reason) = reason {
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
    // Until we are back from here, whatever comes of it.
    let _typing = Typing::show(client, id, relay.parts.limits.typing_every);
    let asked = {
        pin!(answering);
        loop {
            tokio::select! {
                answer = &mut answering => break match told_by(answer, &channel.handoff, &history) {
                    Asked::Reply(reply, by) if vip == Some(VipWhen::AfterAnswer) => Asked::LastReply(reply, by),
                    asked => asked,
                },
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

/// Why a human has it before any agent is asked, if so. `heard`: by what the customer says too.
fn needs_human(
    conversation: &Conversation,
    chain: &[&Arc<config::Agent>],
    none_left: bool,
    vip: Option<VipWhen>,
    heard: bool,
) -> Option<HandoffReason> {
    let asks = conversation.known.asks();
    // Else the agent is told what it was, and the customer may be asked to write.
    let to_human = conversation.channel.handoff.unreadable == Unreadable::Human;
    let unreadable = to_human && asks.iter().any(|ask| ask.unreadable);
    let texts: Vec<&str> = asks.iter().filter(|_| heard).map(|ask| ask.text.as_str()).collect();
    let unpaid = conversation.payer.used_up() && chain.iter().all(|agent| costs(agent));
    let (vip, quota_used_up) = (vip == Some(VipWhen::AtOnce), none_left || unpaid);
    handoff::decide(&Signals { customer_text: &texts.join("\n"), vip, unreadable, quota_used_up, ..Signals::default() })
}

/// When a human takes the conversation over by its label: not if one has just given it back, nor without the plan.
fn vip(conversation: &Conversation) -> Option<VipWhen> {
    let known = &conversation.known;
    let when = handoff::vip(&conversation.channel.handoff.vip, &known.labels).filter(|_| !known.is_given_back())?;
    if !conversation.handoff {
        handover::refuse(conversation, HandoffReason::Vip);
        return None;
    }
    Some(when)
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

fn told_by(answered: Option<(String, Answered)>, rules: &config::Handoff, history: &[Utterance]) -> Asked {
    let Some((agent, Answered { answer, actions, .. })) = answered else {
        return Asked::Handoff(HandoffReason::AgentFailed, ByAgent::default());
    };
    let resolves = actions.contains(&Action::Resolve);
    let by = |note, sources| ByAgent { agent: Some(agent), note, sources, actions };
    match answer {
        Answer::Reply { text, sources } if !text.trim().is_empty() => Asked::Reply(text, by(None, sources)),
        Answer::Reply { .. } if resolves => Asked::Reply(String::new(), by(None, Vec::new())),
        Answer::Reply { sources, .. } => Asked::Handoff(HandoffReason::AgentFailed, by(None, sources)),
        Answer::Handoff { reason, note, sources } => match HandoffReason::of_agent(&reason) {
            HandoffReason::AgentDecided => {
                Asked::Handoff(HandoffReason::AgentDecided, by(note.or(Some(reason)), sources))
            }
            HandoffReason::Unsure => match handoff::unknown(rules, history) {
                Unknown::Human(reason) => Asked::Handoff(reason, by(note, sources)),
                // What was decided for a handoff is left out with it.
                Unknown::Rephrase => {
                    Asked::Reply(rephrase(rules, history), ByAgent { actions: Vec::new(), ..by(None, sources) })
                }
            },
            known => Asked::Handoff(known, by(note, sources)),
        },
    }
}

fn rephrase(rules: &config::Handoff, history: &[Utterance]) -> String {
    let spoken = history.last().map_or_else(Default::default, |said| language(&said.text));
    handoff::rephrase(rules, spoken).to_owned()
}
