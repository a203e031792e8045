//! `[[upstream]]`: where models are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::{RawLimitField, RawUpstream};
use super::report::{Place, Report, did_you_mean};
use super::text::{self, Origin};
use super::{LimitField, Upstream};

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
        http2: raw.http2,
    })
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
