//! Tenants: their policy, keys and Chatwoot channels, from however many files.
//!
//! The first `[[tenant]]` with an id defines the tenant. A later one in an included file adds keys, channels and
//! lots, so that a command can write its own file rather than edit yours.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use relais_policies::key::PUBLIC_ID_CHARS;
use relais_policies::{
    Anchor, Catalog, ChannelKind, Limit, LotKind, NewLot, PlanCode, PolicyError, RateCard, Status, TenantPolicy,
    TenantSpec,
};

use super::channels::{Channels, channel};
use super::keys::key;
use super::raw::{RawAnchor, RawChannel, RawKey, RawLot, RawTenant};
use super::report::{Place, Report, did_you_mean};
use super::text;
use super::upstreams::{Entry, Named};
use super::{Agent, Tenant};

/// What tenants are checked against.
pub(super) struct Context<'a> {
    pub(super) agents: &'a Named<Agent>,
    pub(super) rate_card: RateCard,
}

/// A tenant, gathered from all files.
struct Draft<'a> {
    id: String,
    defined: Entry<'a, RawTenant>,
    keys: Vec<Entry<'a, RawKey>>,
    channels: Vec<Entry<'a, RawChannel>>,
    lots: Vec<Entry<'a, RawLot>>,
}

/// All tenants, in the order they are defined in. `included` are the entries that may add to those before.
pub(super) fn tenants<'a>(
    main: Vec<Entry<'a, RawTenant>>,
    included: Vec<Entry<'a, RawTenant>>,
    context: &Context<'_>,
    report: &mut Report,
) -> Vec<Tenant> {
    let drafts = gather(main, included, report);
    let mut key_places: HashMap<[u8; PUBLIC_ID_CHARS], Place<'a>> = HashMap::new();
    let mut channels = Channels::default();
    let mut tenants = Vec::new();
    for draft in drafts {
        let Draft { id, defined, keys, channels: channel_entries, lots } = draft;
        let lots = new_lots(&id, lots, report);
        let policy = policy(&id, &defined, lots, &context.rate_card, report);
        let keys = keys.into_iter().filter_map(|entry| key(entry, &mut key_places, report)).collect();
        let kind = policy.as_ref().map(|policy| policy.default_channel());
        channels.next_tenant();
        let channels = channel_entries
            .into_iter()
            .filter_map(|entry| {
                if let Some(policy) = &policy {
                    refuse_closed(&entry, policy, report);
                }
                let kind = entry.raw.kind.or(kind.flatten()).unwrap_or(ChannelKind::SelfHosted);
                channel(entry, kind, context.agents, &mut channels, report).map(Arc::new)
            })
            .collect();
        if let Some(policy) = policy {
            tenants.push(Tenant { id: id.into(), policy: Arc::new(policy), keys, channels });
        }
    }
    tenants
}

fn gather<'a>(
    main: Vec<Entry<'a, RawTenant>>,
    included: Vec<Entry<'a, RawTenant>>,
    report: &mut Report,
) -> Vec<Draft<'a>> {
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    let main = main.into_iter().map(|entry| (entry, false));
    for (mut entry, may_add) in main.chain(included.into_iter().map(|entry| (entry, true))) {
        let place = entry.place.clone();
        let id = entry.raw.id.clone().unwrap_or_default();
        let keys = entries(std::mem::take(&mut entry.raw.key), &entry, "key");
        let channels = entries(std::mem::take(&mut entry.raw.chatwoot), &entry, "chatwoot");
        let lots = entries(std::mem::take(&mut entry.raw.lot), &entry, "lot");
        // Without an id it is no tenant, but what stands in it is checked all the same.
        let known = by_id.get(&id).copied().filter(|_| !id.is_empty());
        match known.and_then(|index| drafts.get_mut(index)) {
            Some(draft) if may_add => {
                refuse_redefinition(&entry, draft, report);
                draft.keys.extend(keys);
                draft.channels.extend(channels);
                draft.lots.extend(lots);
            }
            Some(draft) => {
                let said = draft.defined.place.said();
                report.add(&place.key("id"), format!("there is a tenant \"{id}\" already ({said}); rename one"));
            }
            None => {
                by_id.insert(id.clone(), drafts.len());
                drafts.push(Draft { id, defined: entry, keys, channels, lots });
            }
        }
    }
    drafts
}

fn entries<'a, T>(raw: Vec<T>, tenant: &Entry<'a, RawTenant>, key: &str) -> Vec<Entry<'a, T>> {
    let place = tenant.place.key(key);
    raw.into_iter()
        .enumerate()
        .map(|(index, raw)| Entry { raw, place: place.item(index), origin: tenant.origin })
        .collect()
}

fn refuse_redefinition(entry: &Entry<'_, RawTenant>, draft: &Draft<'_>, report: &mut Report) {
    let raw = &entry.raw;
    for (key, given) in [
        ("enabled", raw.enabled.is_some()),
        ("plans", raw.plans.is_some()),
        ("overrides", raw.overrides.is_some()),
        ("shadow", raw.shadow.is_some()),
        ("anchor", raw.anchor.is_some()),
    ] {
        if given {
            let message = format!(
                "the tenant \"{}\" is defined in {}; here only its id, key, chatwoot and lot may stand",
                draft.id,
                draft.defined.place.said()
            );
            report.add(&entry.place.key(key), message);
        }
    }
}

fn policy(
    id: &str,
    defined: &Entry<'_, RawTenant>,
    lots: Vec<NewLot>,
    rate_card: &RateCard,
    report: &mut Report,
) -> Option<TenantPolicy> {
    let Entry { raw, place, .. } = defined;
    if raw.id.is_some() {
        text::name(id, "_-", &place.key("id"), report);
    }
    let spec = TenantSpec {
        tenant_id: id.to_owned(),
        status: if raw.enabled.unwrap_or(true) { Status::Active } else { Status::Suspended },
        plans: raw.plans.iter().flatten().map(PlanCode::new).collect(),
        overrides: raw.overrides.clone().unwrap_or_default(),
        shadow: raw.shadow.iter().flatten().copied().collect(),
        anchor: raw
            .anchor
            .as_ref()
            .and_then(|anchor| resolve_anchor(anchor, &place.key("anchor"), report))
            .unwrap_or_default(),
        rate: rate_card.clone(),
        lots,
    };
    let policy = match TenantPolicy::compile(Catalog::embedded(), &spec) {
        Ok(policy) => policy,
        Err(errors) => {
            for error in &errors {
                policy_error(error, &spec, place, report);
            }
            return None;
        }
    };
    if let Limit::AtMost(calls) = policy.limits.calls_per_minute
        && u32::try_from(calls).is_err()
    {
        let message = format!("must be at most {}, or \"unlimited\"", u32::MAX);
        report.add(&place.key("overrides").key("calls_per_minute"), message);
    }
    Some(policy)
}

fn resolve_anchor(anchor: &RawAnchor, place: &Place<'_>, report: &mut Report) -> Option<Anchor> {
    match anchor {
        // The schema holds it between 1 and 31.
        RawAnchor::Day(day) => Anchor::on_day(*day),
        RawAnchor::Instant(written) => text::instant_ms(written, place, report).map(Anchor::at),
    }
}

fn policy_error(error: &PolicyError, spec: &TenantSpec, place: &Place<'_>, report: &mut Report) {
    let plan_place = |code: &PlanCode| {
        let plans = place.key("plans");
        spec.plans.iter().rposition(|plan| plan == code).map(|index| plans.item(index)).unwrap_or(plans)
    };
    match error {
        PolicyError::UnknownPlan { code, .. } => {
            let codes = Catalog::embedded().plans().map(|plan| plan.code.as_str());
            let help = did_you_mean(code.as_str(), codes);
            let message =
                if help.is_empty() { error.to_string() } else { format!("there is no plan \"{code}\"{help}") };
            report.add(&plan_place(code), message);
        }
        PolicyError::TwoPlansInFamily { second, .. } => report.add(&plan_place(second), error.to_string()),
        PolicyError::BadModelPattern { .. } => report.add(&place.key("overrides").key("models"), error.to_string()),
        // Said once, where the rates stand, rather than for every tenant.
        PolicyError::TwoRates { .. } => {}
        PolicyError::TwoLots { .. } => report.add(&place.key("lot"), error.to_string()),
    }
}

fn new_lots(tenant_id: &str, entries: Vec<Entry<'_, RawLot>>, report: &mut Report) -> Vec<NewLot> {
    let mut lots = Vec::new();
    let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
    for Entry { raw, place, .. } in entries {
        let effective_at_ms = raw.effective.and_then(|text| text::instant_ms(&text, &place.key("effective"), report));
        let expires_at_ms = raw.expires.and_then(|text| text::instant_ms(&text, &place.key("expires"), report));
        if let (Some(from), Some(until)) = (effective_at_ms, expires_at_ms)
            && until <= from
        {
            report.add(&place.key("expires"), "the lot falls before it can be spent");
        }
        let (Some(name), Some(granted)) = (raw.name, raw.tokens) else { continue };
        if let Some(first) = places.get(&name) {
            let message = format!("there is a lot \"{name}\" already ({}); a lot is credited once", first.said());
            report.add(&place.key("name"), message);
            continue;
        }
        lots.push(NewLot {
            kind: raw.kind.unwrap_or(LotKind::Adjustment),
            granted,
            priority: raw.priority,
            effective_at_ms,
            expires_at_ms,
            source: format!("file:{tenant_id}:{name}"),
        });
        places.insert(name, place);
    }
    lots
}

/// A channel that no plan opens would take deliveries and never answer.
fn refuse_closed(entry: &Entry<'_, RawChannel>, policy: &TenantPolicy, report: &mut Report) {
    let open = match entry.raw.kind {
        Some(kind) => policy.payer(kind).is_some(),
        None => policy.default_channel().is_some(),
    };
    if !open {
        let message = "no plan of this tenant opens such a channel; add a chatwoot.* plan for a managed Chatwoot, or \
            selfhosted for the tenant's own, to its plans";
        report.add(&entry.place, message);
    }
}
