//! Upstreams and agents: what answers, and where.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::{RawAgent, RawAgentKind, RawLimitField, RawUpstream};
use super::report::{Place, Report, did_you_mean};
use super::text::{self, Origin};
use super::{Agent, AgentKind, LimitField, Upstream};

/// What an agent is told when the file gives it no instructions.
const SYSTEM_PROMPT: &str = "You answer customers of this company in a chat. Be friendly and brief, answer in the \
    customer's language, and say so when you do not know something.";
const TOKENS_MAX: u32 = 800;
const CONNECTIONS_MAX: usize = 1_024;

/// Something of an array of tables, in whichever file it stands.
pub(super) struct Entry<'a, T> {
    pub(super) raw: T,
    pub(super) place: Place<'a>,
    pub(super) origin: Origin<'a>,
}

/// What was named, with nothing where what was named is in error: so a reference to it is not an error too.
pub(super) type Named<T> = BTreeMap<String, Option<Arc<T>>>;

/// Upstreams in the order of the file, and by name.
pub(super) fn upstreams(
    entries: Vec<Entry<'_, RawUpstream>>,
    report: &mut Report,
) -> (Vec<Arc<Upstream>>, Named<Upstream>) {
    let mut in_order = Vec::new();
    let mut named = Named::new();
    let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
    for entry in entries {
        let Some(name) = entry.raw.name.clone() else { continue };
        if let Some(first) = places.get(&name) {
            let message = format!("there is an upstream \"{name}\" already ({}); rename one", first.said());
            report.add(&entry.place.key("name"), message);
            continue;
        }
        places.insert(name.clone(), entry.place.clone());
        let upstream = upstream(name.clone(), entry, report).map(Arc::new);
        in_order.extend(upstream.clone());
        named.insert(name, upstream);
    }
    (in_order, named)
}

fn upstream(name: String, entry: Entry<'_, RawUpstream>, report: &mut Report) -> Option<Upstream> {
    let Entry { raw, place, origin } = entry;
    let mut good = text::name(&name, "._-", &place.key("name"), report);
    let models = raw.models.unwrap_or_else(|| vec!["*".to_owned()]);
    good &= text::models(&models, &place.key("models"), report);
    if models.is_empty() {
        report.add(&place.key("models"), "names no model, so this upstream would never be used; [\"*\"] is all");
        good = false;
    }
    for (alias, model) in &raw.aliases {
        if alias.is_empty() || model.is_empty() || alias.contains('*') || model.contains('*') {
            report.add(&place.key("aliases").key(alias), "an alias leads from one model's whole name to another");
            good = false;
        }
    }
    let base_url = raw.base_url.and_then(|written| text::url(&written, &place.key("base_url"), report));
    let api_key = match raw.api_key {
        Some(written) => Some(origin.token(&written, &place.key("api_key"), report)?),
        None => None,
    };
    if !good {
        return None;
    }
    Some(Upstream {
        name,
        base_url: base_url?,
        api_key,
        models,
        aliases: raw.aliases,
        priority: raw.priority,
        weight: raw.weight.unwrap_or(1),
        limit_field: match raw.limit_field {
            Some(RawLimitField::MaxCompletionTokens) => LimitField::MaxCompletionTokens,
            Some(RawLimitField::MaxTokens) | None => LimitField::MaxTokens,
        },
        connections_max: raw.connections_max.unwrap_or(CONNECTIONS_MAX),
    })
}

/// Agents by id.
pub(super) fn agents(
    entries: Vec<Entry<'_, RawAgent>>,
    upstreams: &Named<Upstream>,
    report: &mut Report,
) -> Named<Agent> {
    let mut named = Named::new();
    let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
    for entry in entries {
        let Some(id) = entry.raw.id.clone() else { continue };
        if let Some(first) = places.get(&id) {
            let message = format!("there is an agent \"{id}\" already ({}); rename one", first.said());
            report.add(&entry.place.key("id"), message);
            continue;
        }
        places.insert(id.clone(), entry.place.clone());
        let id_good = text::name(&id, "_-", &entry.place.key("id"), report);
        let kind = agent_kind(entry, upstreams, report);
        named.insert(id.clone(), kind.filter(|_| id_good).map(|kind| Arc::new(Agent { id, kind })));
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
        RawAgentKind::OpenAi => &[("dir", raw.dir.is_some())],
        RawAgentKind::Knowledge => &[
            ("upstream", raw.upstream.is_some()),
            ("model", raw.model.is_some()),
            ("system_prompt", raw.system_prompt.is_some()),
            ("tokens_max", raw.tokens_max.is_some()),
            ("temperature", raw.temperature.is_some()),
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
    Some(AgentKind::OpenAi {
        upstream: upstream?,
        model: raw.model.filter(|model| !model.is_empty())?,
        system_prompt: system_prompt?,
        tokens_max: raw.tokens_max.unwrap_or(TOKENS_MAX),
        temperature_milli: raw.temperature.map(thousandths),
    })
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

/// What a key refers to by name.
pub(super) fn reference<T>(
    key: &str,
    name: &str,
    named: &Named<T>,
    place: &Place<'_>,
    report: &mut Report,
) -> Option<Arc<T>> {
    match named.get(name) {
        Some(found) => found.clone(),
        None => {
            let help = did_you_mean(name, named.keys().map(String::as_str));
            report.add(&place.key(key), format!("there is no {key} \"{name}\"{help}"));
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
