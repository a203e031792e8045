//! What one tenant may do: its plans, its contract and nothing else, resolved to plain values.
//!
//! Four product families exist side by side, and each governs its own limits:
//!
//! - `app.*`: token budget, threads, storage, AI agents. Without a plan: `app.free`.
//! - `api.*`: `/v1` calls. Without a plan: `api.free` if the app plan has API access, else none,
//!   and `/v1` is closed (the feature `api_access` is absent).
//! - `chatwoot.*`: conversations, seats, handoff on a managed channel, whose AI replies are paid
//!   by the conversation quota.
//! - `selfhosted`: opens the tenant's own Chatwoot; its AI replies spend the token budget.
//!
//! Overrides (contract limits) go on top. The result is compiled once, when the configuration or
//! the synced policy changes; a request only reads it. What is *used* is not here: a changed
//! policy must not touch it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limit::{Limit, Limits, Overrides, is_model_pattern, model_matches};
use crate::period::Anchor;
use crate::plan::{Catalog, Family, Feature, Plan, PlanCode};
use crate::rate_card::RateCard;
use crate::shadow::Shadow;
use crate::wallet::NewLot;

/// An unlimited plan is worth a look at ten times what the largest limited one grants.
const SOFT_LEVEL_FACTOR: u64 = 10;

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Served.
    #[default]
    Active,
    /// Not served until paid or released by an operator.
    Suspended,
}

/// What is known of a tenant before its policy is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantSpec {
    /// The tenant's id.
    pub tenant_id: String,
    /// Whether it is served.
    pub status: Status,
    /// Its plans, at most one of each family, in any order.
    pub plans: Vec<PlanCode>,
    /// What its contract changes.
    pub overrides: Overrides,
    /// Limits that are counted and not enforced.
    pub shadow: Shadow,
    /// Where its months begin.
    pub anchor: Anchor,
    /// What model tokens cost it.
    pub rate: RateCard,
    /// Token lots credited to it beside the monthly grant.
    pub lots: Vec<NewLot>,
}

/// The plan that holds in each family, implied ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    /// Always one: the free plan if no other.
    pub app: PlanCode,
    /// The API plan, bought or implied.
    pub api: Option<PlanCode>,
    /// The managed Chatwoot plan.
    pub chatwoot: Option<PlanCode>,
    /// The self-hosted plan.
    pub selfhosted: Option<PlanCode>,
}

/// What a tenant may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// The tenant's id.
    pub tenant_id: String,
    /// Whether it is served.
    pub status: Status,
    /// The plans that hold.
    pub plans: Plans,
    /// The limits that hold.
    pub limits: Limits,
    /// Those of them that are counted and not enforced.
    pub shadow: Shadow,
    /// The features of all its plans together. For a Chatwoot channel ask
    /// [`TenantPolicy::allows_on`]: there only that channel's own plan counts.
    pub features: BTreeSet<Feature>,
    /// Models that may be called: names, names that end in `*`, or `*`.
    pub models: Vec<String>,
    /// Where its months begin.
    pub anchor: Anchor,
    /// What model tokens cost it.
    pub rate_card: RateCard,
    /// Token lots credited to it beside the monthly grant.
    pub lots: Vec<NewLot>,
    managed_features: BTreeSet<Feature>,
    selfhosted_features: BTreeSet<Feature>,
    soft_levels: SoftLevels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SoftLevels {
    tokens: Option<u64>,
    calls: Option<u64>,
    conversations: Option<u64>,
}

/// Whose Chatwoot a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Ours, run for the tenant.
    Managed,
    /// The tenant's own.
    #[serde(rename = "selfhosted")]
    SelfHosted,
}

/// What pays for an AI reply on a channel. Tokens are measured either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The monthly conversations of the managed plan.
    ConversationQuota,
    /// The token budget of the app plan.
    TokenBudget,
}

/// What is counted each month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metered {
    /// Budget tokens.
    Tokens,
    /// `/v1` calls.
    Calls,
    /// Conversations answered by the AI agent on a managed channel.
    Conversations,
}

/// Why a tenant's policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No such plan.
    #[error("there is no plan \"{code}\"; there is {}", known.join(", "))]
    UnknownPlan {
        /// The code as given.
        code: PlanCode,
        /// The plans of its family, or all plans if it names none.
        known: Vec<String>,
    },
    /// Two plans of one family.
    #[error("\"{first}\" and \"{second}\" are both {family} plans; a tenant holds at most one")]
    TwoPlansInFamily {
        /// The family.
        family: Family,
        /// The one named first.
        first: PlanCode,
        /// The one named second.
        second: PlanCode,
    },
    /// Not a model pattern.
    #[error("\"{pattern}\" names no model: write a name, a name that ends in *, or *")]
    BadModelPattern {
        /// The pattern as given.
        pattern: String,
    },
    /// Two rates for the same models.
    #[error("there are two rates for \"{model}\"")]
    TwoRates {
        /// The pattern they share.
        model: String,
    },
    /// Two lots from one source.
    #[error("there are two lots with the source \"{source_key}\"; a source is credited once")]
    TwoLots {
        /// The source they share.
        source_key: String,
    },
}

impl TenantPolicy {
    /// Resolve a tenant's plans and overrides, or say everything that is wrong with them.
    pub fn compile(catalog: &Catalog, spec: &TenantSpec) -> Result<TenantPolicy, Vec<PolicyError>> {
        let mut errors = patterns_and_lots(spec);
        let mut held = Held::default();
        for code in &spec.plans {
            if let Err(error) = held.add(catalog, code) {
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        held.app = held.app.or_else(|| catalog.plan("app.free"));

        let overrides = &spec.overrides;
        let with_overrides = |plans: &[Option<&Plan>]| -> BTreeSet<Feature> {
            let from_plans = plans.iter().flatten().flat_map(|plan| plan.features.iter().copied());
            let mut features: BTreeSet<Feature> = from_plans.chain(overrides.features.iter().copied()).collect();
            features.retain(|feature| !overrides.without.contains(feature));
            features
        };
        if held.api.is_none() && with_overrides(&[held.app]).contains(&Feature::ApiAccess) {
            held.api = catalog.plan("api.free");
        }

        let plans = [held.app, held.api, held.chatwoot, held.selfhosted];
        let limits = plans.iter().flatten().fold(Limits::NOTHING, |limits, plan| limits.with(&plan.limits));
        let code = |plan: Option<&Plan>| plan.map(|plan| plan.code.clone());
        Ok(TenantPolicy {
            tenant_id: spec.tenant_id.clone(),
            status: spec.status,
            limits: limits.with(overrides),
            shadow: spec.shadow,
            features: with_overrides(&plans),
            models: overrides.models.clone().unwrap_or_else(|| vec!["*".to_owned()]),
            anchor: spec.anchor,
            rate_card: spec.rate.clone(),
            lots: spec.lots.clone(),
            managed_features: with_overrides(&[held.chatwoot]),
            selfhosted_features: with_overrides(&[held.selfhosted]),
            soft_levels: SoftLevels::of(catalog),
            plans: Plans {
                app: code(held.app).unwrap_or_else(|| PlanCode::from("app.free")),
                api: code(held.api),
                chatwoot: code(held.chatwoot),
                selfhosted: code(held.selfhosted),
            },
        })
    }

    /// Whether its plans have this feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// Whether the plan of this channel has this feature. Never, if the channel is closed.
    pub fn allows_on(&self, channel: ChannelKind, feature: Feature) -> bool {
        let features = match channel {
            ChannelKind::Managed => &self.managed_features,
            ChannelKind::SelfHosted => &self.selfhosted_features,
        };
        self.payer(channel).is_some() && features.contains(&feature)
    }

    /// Whether this model may be called.
    pub fn allows_model(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| model_matches(pattern, model))
    }

    /// What pays for an AI reply on such a channel; `None` if no plan opens it.
    pub fn payer(&self, channel: ChannelKind) -> Option<Payer> {
        let plan = match channel {
            ChannelKind::Managed => &self.plans.chatwoot,
            ChannelKind::SelfHosted => &self.plans.selfhosted,
        };
        plan.as_ref().map(|_| channel.payer())
    }

    /// The kind of a channel that does not say so: managed if the tenant has a managed plan,
    /// else its own if it has that one, else `None`: the channel is closed.
    pub fn default_channel(&self) -> Option<ChannelKind> {
        [ChannelKind::Managed, ChannelKind::SelfHosted].into_iter().find(|channel| self.payer(*channel).is_some())
    }

    /// The limit of what is counted each month.
    pub fn monthly_limit(&self, metered: Metered) -> Limit {
        match metered {
            Metered::Tokens => self.limits.tokens_per_month,
            Metered::Calls => self.limits.calls_per_month,
            Metered::Conversations => self.limits.conversations_per_month,
        }
    }

    /// The monthly count from which an *unlimited* tenant is worth a look: ten times what
    /// `app.business` grants in tokens, `api.pro` in calls, `chatwoot.pro` in conversations.
    /// `None` where there is a limit: its own alerts at 80 and 100 per cent serve there.
    pub fn soft_level(&self, metered: Metered) -> Option<u64> {
        match (self.monthly_limit(metered), metered) {
            (Limit::AtMost(_), _) => None,
            (Limit::Unlimited, Metered::Tokens) => self.soft_levels.tokens,
            (Limit::Unlimited, Metered::Calls) => self.soft_levels.calls,
            (Limit::Unlimited, Metered::Conversations) => self.soft_levels.conversations,
        }
    }
}

impl ChannelKind {
    /// What pays for an AI reply on such a channel.
    pub fn payer(self) -> Payer {
        match self {
            ChannelKind::Managed => Payer::ConversationQuota,
            ChannelKind::SelfHosted => Payer::TokenBudget,
        }
    }
}

/// The plans named so far, one slot a family.
#[derive(Default)]
struct Held<'a> {
    app: Option<&'a Plan>,
    api: Option<&'a Plan>,
    chatwoot: Option<&'a Plan>,
    selfhosted: Option<&'a Plan>,
}

impl<'a> Held<'a> {
    fn add(&mut self, catalog: &'a Catalog, code: &PlanCode) -> Result<(), PolicyError> {
        let (Some(plan), Some(family)) = (catalog.plan(code.as_str()), code.family()) else {
            return Err(unknown_plan(catalog, code));
        };
        let slot = match family {
            Family::App => &mut self.app,
            Family::Api => &mut self.api,
            Family::Chatwoot => &mut self.chatwoot,
            Family::SelfHosted => &mut self.selfhosted,
        };
        match slot {
            Some(first) => {
                Err(PolicyError::TwoPlansInFamily { family, first: first.code.clone(), second: code.clone() })
            }
            None => {
                *slot = Some(plan);
                Ok(())
            }
        }
    }
}

impl SoftLevels {
    fn of(catalog: &Catalog) -> SoftLevels {
        let ten_times = |code: &str, limit: fn(&Overrides) -> Option<Limit>| match limit(&catalog.plan(code)?.limits)? {
            Limit::AtMost(most) => Some(most.saturating_mul(SOFT_LEVEL_FACTOR)),
            Limit::Unlimited => None,
        };
        SoftLevels {
            tokens: ten_times("app.business", |limits| limits.tokens_per_month),
            calls: ten_times("api.pro", |limits| limits.calls_per_month),
            conversations: ten_times("chatwoot.pro", |limits| limits.conversations_per_month),
        }
    }
}

fn unknown_plan(catalog: &Catalog, code: &PlanCode) -> PolicyError {
    let family = code.family();
    let known = catalog.plans().filter(|plan| family.is_none() || plan.family() == family);
    PolicyError::UnknownPlan { code: code.clone(), known: known.map(|plan| plan.code.to_string()).collect() }
}

/// What can be wrong with a spec beside its plans.
fn patterns_and_lots(spec: &TenantSpec) -> Vec<PolicyError> {
    let rates = spec.rate.rates();
    let allowed = spec.overrides.models.iter().flatten();
    let bad_pattern = |pattern: &String| {
        (!is_model_pattern(pattern)).then(|| PolicyError::BadModelPattern { pattern: pattern.clone() })
    };
    let mut errors: Vec<PolicyError> =
        allowed.chain(rates.iter().map(|rate| &rate.model)).filter_map(bad_pattern).collect();
    let mut models = BTreeSet::new();
    let twice = rates.iter().filter(|rate| !models.insert(&rate.model));
    errors.extend(twice.map(|rate| PolicyError::TwoRates { model: rate.model.clone() }));
    let mut sources = BTreeSet::new();
    let twice = spec.lots.iter().filter(|lot| !sources.insert(&lot.source));
    errors.extend(twice.map(|lot| PolicyError::TwoLots { source_key: lot.source.clone() }));
    errors
}

#[cfg(test)]
mod tests;
