//! `[[agent]]`: what answers, what it may do, and who answers in its place.
//!
//! A level is a set of tools, so that a plan can open agents by level; `tools` narrows it. Fallbacks are one list and
//! not followed further: the chain of an agent is what its own entry says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use relais_policies::{Feature, TenantPolicy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Upstream;
use super::raw::{RawAgent, RawAgentChoice, RawAgentKind};
use super::report::{Place, Report, did_you_mean};
use super::text;
use super::upstreams::{Entry, Named, reference};
use crate::conversation::Medium;

/// What an agent is told when the file gives it no instructions.
const SYSTEM_PROMPT: &str = "You answer customers of this company in a chat. Be friendly and brief, answer in the \
    customer's language, and say so when you do not know something.";
const TOKENS_MAX: u32 = 800;
const TOOL_ROUNDS_MAX: u32 = 4;
const TOOL_CALLS_MAX: u32 = 8;
const HISTORY_TOKENS: u32 = 8_000;

/// `[[agent]]`
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// What answers.
    pub kind: AgentKind,
    /// Who answers when it fails or its tokens are not paid for, in order. Their own fallbacks are not followed.
    pub fallback: Vec<Arc<Agent>>,
}

/// What answers.
#[derive(Debug, Clone)]
pub enum AgentKind {
    /// A model behind one of the upstreams.
    OpenAi(Box<Model>),
    /// The embedded agent over a folder of Markdown.
    Knowledge {
        /// The folder.
        dir: PathBuf,
    },
}

/// A model, and what it may do.
#[derive(Debug, Clone)]
pub struct Model {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The model, as the upstream calls it.
    pub model: String,
    /// Instructions.
    pub system_prompt: String,
    /// Output limit of one call. Default 800.
    pub tokens_max: u32,
    /// Sampling temperature in thousandths; none leaves it to the upstream.
    pub temperature_milli: Option<u32>,
    /// What it may do, if the tenant's plan opens that.
    pub level: Level,
    /// Of what its level allows, only these; none: all.
    pub tools: Option<Vec<Tool>>,
    /// Labels it may add; none: any.
    pub labels: Option<Vec<String>>,
    /// Custom attributes it may set; none: any.
    pub attributes: Option<Vec<String>>,
    /// Times it may call tools before it has to answer. Default 4.
    pub tool_rounds_max: u32,
    /// Tool calls of one answer. Default 8.
    pub tool_calls_max: u32,
    /// Tokens of the conversation it is given, by estimate. Default 8,000.
    pub history_tokens: u32,
    /// A folder of Markdown it is given passages of.
    pub knowledge: Option<PathBuf>,
}

/// What an agent may do beside answering. Each level includes those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Level {
    /// Looks things up and hands over.
    #[default]
    L0,
    /// Sorts: labels and priority.
    L1,
    /// Notes what it learnt: custom attributes.
    L2,
    /// Ends conversations.
    L3,
}

impl Level {
    /// The highest level that a tenant's plans open (GOV-1). Every plan that opens a channel has agents of the lowest.
    pub fn opened_by(policy: &TenantPolicy) -> Self {
        let levels = [(Feature::AgentsL3, Self::L3), (Feature::AgentsL2, Self::L2), (Feature::AgentsL1, Self::L1)];
        levels.into_iter().find(|(feature, _)| policy.has(*feature)).map_or(Self::L0, |(_, level)| level)
    }
}

/// A function the model may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Tool {
    /// Gives the conversation to a human.
    HandoffToHuman,
    /// Searches the folder.
    SearchKnowledge,
    /// Adds a label.
    AddLabel,
    /// Sets the priority.
    SetPriority,
    /// Sets a custom attribute of the conversation.
    SetCustomAttribute,
    /// Ends the conversation.
    Resolve,
}

impl Tool {
    /// All of them, in the order a model is told of them.
    pub const ALL: [Self; 6] = [
        Self::HandoffToHuman,
        Self::SearchKnowledge,
        Self::AddLabel,
        Self::SetPriority,
        Self::SetCustomAttribute,
        Self::Resolve,
    ];

    /// The function's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HandoffToHuman => "handoff_to_human",
            Self::SearchKnowledge => "search_knowledge",
            Self::AddLabel => "add_label",
            Self::SetPriority => "set_priority",
            Self::SetCustomAttribute => "set_custom_attribute",
            Self::Resolve => "resolve",
        }
    }

    /// The lowest level that has it.
    pub fn level(self) -> Level {
        match self {
            Self::HandoffToHuman | Self::SearchKnowledge => Level::L0,
            Self::AddLabel | Self::SetPriority => Level::L1,
            Self::SetCustomAttribute => Level::L2,
            Self::Resolve => Level::L3,
        }
    }
}

impl Model {
    /// What it may call where the plan opens agents up to `level_max`. A way out to a human is never taken away.
    pub fn tools(&self, level_max: Level) -> impl Iterator<Item = Tool> {
        let level = self.level.min(level_max);
        Tool::ALL.into_iter().filter(move |tool| match tool {
            Tool::HandoffToHuman => true,
            Tool::SearchKnowledge if self.knowledge.is_none() => false,
            tool => tool.level() <= level && self.tools.as_ref().is_none_or(|only| only.contains(tool)),
        })
    }
}

/// Where another agent answers than the channel's own.
#[derive(Debug, Clone)]
pub struct AgentChoice {
    /// Only in this one of Chatwoot's inboxes.
    pub chatwoot_inbox_id: Option<u64>,
    /// Only over this medium.
    pub medium: Option<Medium>,
    /// Who answers there.
    pub agent: Arc<Agent>,
}

/// Agents by id.
pub(super) fn agents(
    entries: Vec<Entry<'_, RawAgent>>,
    upstreams: &Named<Upstream>,
    report: &mut Report,
) -> Named<Agent> {
    let mut named = Named::new();
    let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
    let mut fallbacks = Vec::new();
    for mut entry in entries {
        let Some(id) = entry.raw.id.clone() else { continue };
        if let Some(first) = places.get(&id) {
            let message = format!("there is an agent \"{id}\" already ({}); rename one", first.said());
            report.add(&entry.place.key("id"), message);
            continue;
        }
        places.insert(id.clone(), entry.place.clone());
        let id_good = text::name(&id, "_-", &entry.place.key("id"), report);
        fallbacks.push((id.clone(), entry.place.key("fallback"), std::mem::take(&mut entry.raw.fallback)));
        let kind = agent_kind(entry, upstreams, report);
        named.insert(
            id.clone(),
            kind.filter(|_| id_good).map(|kind| Arc::new(Agent { id, kind, fallback: Vec::new() })),
        );
    }
    with_fallbacks(named, fallbacks, report)
}

/// The agents as they stand alone in, each with those that answer in its place out.
fn with_fallbacks(
    alone: Named<Agent>,
    fallbacks: Vec<(String, Place<'_>, Vec<String>)>,
    report: &mut Report,
) -> Named<Agent> {
    let mut named = alone.clone();
    for (id, place, others) in fallbacks {
        let mut chain = Vec::new();
        for (index, other) in others.iter().enumerate() {
            if *other == id || others.iter().take(index).any(|before| before == other) {
                report.add(&place.item(index), "names an agent a second time; remove it");
            }
            chain.extend(named_agent(other, &place.item(index), &alone, report));
        }
        if let Some(Some(agent)) = named.get_mut(&id) {
            Arc::make_mut(agent).fallback = chain;
        }
    }
    named
}

fn agent_kind(entry: Entry<'_, RawAgent>, upstreams: &Named<Upstream>, report: &mut Report) -> Option<AgentKind> {
    let kind = entry.raw.kind?;
    refuse_other_kind(&entry, kind, report);
    match kind {
        RawAgentKind::OpenAi => openai(entry, upstreams, report),
        RawAgentKind::Knowledge => knowledge(entry, report),
    }
}

/// A key that belongs to the other kind would be silently without effect.
fn refuse_other_kind(entry: &Entry<'_, RawAgent>, kind: RawAgentKind, report: &mut Report) {
    let raw = &entry.raw;
    let given: &[(&str, bool)] = match kind {
        RawAgentKind::OpenAi => &[],
        RawAgentKind::Knowledge => &[
            ("upstream", raw.upstream.is_some()),
            ("model", raw.model.is_some()),
            ("system_prompt", raw.system_prompt.is_some()),
            ("tokens_max", raw.tokens_max.is_some()),
            ("temperature", raw.temperature.is_some()),
            ("level", raw.level.is_some()),
            ("tools", raw.tools.is_some()),
            ("labels", raw.labels.is_some()),
            ("attributes", raw.attributes.is_some()),
            ("tool_rounds_max", raw.tool_rounds_max.is_some()),
            ("tool_calls_max", raw.tool_calls_max.is_some()),
            ("history_tokens", raw.history_tokens.is_some()),
        ],
    };
    for (key, given) in given {
        if *given {
            report.add(&entry.place.key(key), "does not go with this kind of agent; remove it, or change kind");
        }
    }
}

fn openai(entry: Entry<'_, RawAgent>, upstreams: &Named<Upstream>, report: &mut Report) -> Option<AgentKind> {
    let Entry { raw, place, origin } = entry;
    let upstream = raw.upstream.as_ref().and_then(|name| reference("upstream", name, upstreams, &place, report));
    for (key, missing, what) in [
        ("upstream", raw.upstream.is_none(), "the name of the upstream that answers"),
        ("model", raw.model.as_ref().is_none_or(String::is_empty), "the model, as the upstream calls it"),
    ] {
        if missing {
            report.add(&place.key(key), format!("missing: {what}"));
        }
    }
    let system_prompt = match &raw.system_prompt {
        Some(written) => origin.text(written, &place.key("system_prompt"), report),
        None => Some(SYSTEM_PROMPT.to_owned()),
    };
    let knowledge = raw.dir.map(|dir| origin.path(&dir));
    if let Some(dir) = knowledge.as_ref().filter(|dir| !dir.is_dir()) {
        report.add(&place.key("dir"), format!("{} is not a folder that can be read", dir.display()));
        return None;
    }
    let level = raw.level.unwrap_or_default();
    if let Some(tool) = raw.tools.iter().flatten().find(|tool| tool.level() > level) {
        let message = format!("{} needs level {:?}; this agent has {level:?}", tool.as_str(), tool.level());
        report.add(&place.key("tools"), message);
    }
    Some(AgentKind::OpenAi(Box::new(Model {
        upstream: upstream?,
        model: raw.model.filter(|model| !model.is_empty())?,
        system_prompt: system_prompt?,
        tokens_max: raw.tokens_max.unwrap_or(TOKENS_MAX),
        temperature_milli: raw.temperature.map(thousandths),
        level,
        tools: raw.tools,
        labels: raw.labels,
        attributes: raw.attributes,
        tool_rounds_max: raw.tool_rounds_max.unwrap_or(TOOL_ROUNDS_MAX),
        tool_calls_max: raw.tool_calls_max.unwrap_or(TOOL_CALLS_MAX),
        history_tokens: raw.history_tokens.unwrap_or(HISTORY_TOKENS),
        knowledge,
    })))
}

fn knowledge(entry: Entry<'_, RawAgent>, report: &mut Report) -> Option<AgentKind> {
    let place = entry.place.key("dir");
    let Some(dir) = entry.raw.dir else {
        report.add(&place, "missing: the folder of Markdown the agent answers from");
        return None;
    };
    let dir = entry.origin.path(&dir);
    if !dir.is_dir() {
        report.add(&place, format!("{} is not a folder that can be read", dir.display()));
        return None;
    }
    Some(AgentKind::Knowledge { dir })
}

/// Where other agents answer in a channel. None if one of them is in error.
pub(super) fn choices(
    raw: Vec<RawAgentChoice>,
    agents: &Named<Agent>,
    place: &Place<'_>,
    report: &mut Report,
) -> Option<Vec<AgentChoice>> {
    let mut choices = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let place = place.item(index);
        if raw.chatwoot_inbox.is_none() && raw.medium.is_none() {
            report
                .add(&place, "would fit everywhere; name a chatwoot_inbox or a medium, or change the channel's agent");
        }
        let agent = raw.agent.and_then(|id| reference("agent", &id, agents, &place, report));
        choices.push(agent.map(|agent| AgentChoice {
            chatwoot_inbox_id: raw.chatwoot_inbox,
            medium: raw.medium,
            agent,
        }));
    }
    choices.into_iter().collect()
}

/// An agent named in a list.
fn named_agent(id: &str, place: &Place<'_>, agents: &Named<Agent>, report: &mut Report) -> Option<Arc<Agent>> {
    match agents.get(id) {
        Some(found) => found.clone(),
        None => {
            let help = did_you_mean(id, agents.keys().map(String::as_str));
            report.add(place, format!("there is no agent \"{id}\"{help}"));
            None
        }
    }
}

/// The schema holds it between 0 and 2.
fn thousandths(value: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2,000")]
    let thousandths = (value * 1_000.0).round() as u32;
    thousandths
}
