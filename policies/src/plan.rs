//! The catalogue: every plan and token pack that is sold, as data.
//!
//! The same tier names occur in several price lists with different prices, so a plan's code
//! carries its family: `app.pro`, `api.pro` and `chatwoot.pro` are three plans. The data is in
//! `catalog/*.toml`, compiled in; a test beside this file holds it against the price lists,
//! number by number.
//!
//! What a tenant makes of its plans is not decided here but in [`crate::tenant`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limit::Overrides;
use crate::wallet::{LotKind, NewLot};

/// One of the independent product families. A tenant holds at most one plan of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The freemium plans: token budget, threads, storage, AI agents.
    App,
    /// The paid API: calls a month, calls a minute.
    Api,
    /// Managed Chatwoot: conversations, seats, handoff.
    Chatwoot,
    /// The customer's own Chatwoot.
    #[serde(rename = "selfhosted")]
    SelfHosted,
}

/// The code of a plan, family first: `api.pro`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PlanCode(String);

/// Something a plan has or has not. Numbers are limits, see [`crate::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The spheres of the app; how many is [`Plan::spheres`].
    Spheres,
    /// Basic AI agents.
    AgentsL0,
    /// Advanced AI agents, level 1.
    AgentsL1,
    /// Advanced AI agents, level 2.
    AgentsL2,
    /// Advanced AI agents, level 3.
    AgentsL3,
    /// The app on a phone, installed or in the browser.
    MobilePwa,
    /// Quick capture.
    QuickCapture,
    /// `/v1` may be called.
    ApiAccess,
    /// Agents may be bought on the marketplace.
    Marketplace,
    /// Agents may be offered on the marketplace.
    MarketplacePublishing,
    /// AI agents of the tenant's own making.
    CustomAgents,
    /// Single sign-on by SAML or OIDC.
    Sso,
    /// The tenant's own brand in place of ours.
    WhiteLabel,
    /// A service level agreement; its figure is [`Plan::sla_basis_points`].
    Sla,
    /// An AI agent answers on the Chatwoot channel.
    AiAgent,
    /// The AI agent hands a conversation over when the customer asks for a human.
    Handoff,
    /// Advanced analytics.
    Analytics,
    /// An environment of its own, if needed.
    DedicatedEnvironment,
    /// Included service: hosting.
    Hosting,
    /// Included service: updates.
    Updates,
    /// Included service: a backup every day.
    DailyBackups,
    /// Included service: certificates.
    Ssl,
    /// Included service: monitoring.
    Monitoring,
    /// Included service: the client's branding.
    Branding,
    /// Included service: one instance per client.
    IsolatedInstance,
    /// Included service: installation of the client's own Chatwoot.
    Installation,
    /// Included service: integration with the client's own Chatwoot.
    Integration,
}

/// How a customer reaches us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// The community.
    Community,
    /// By e-mail.
    Email,
    /// Before others.
    Priority,
    /// By someone who knows the customer.
    Dedicated,
    /// By phone, with agreed times.
    PhoneAndSla,
    /// At any hour of any day.
    AroundTheClock,
}

/// What a plan costs, in euro cents without VAT. What is not given is not sold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Price {
    /// By the month.
    pub month_cents: Option<u64>,
    /// By the year.
    pub year_cents: Option<u64>,
    /// Once and for all.
    pub once_cents: Option<u64>,
    /// Once, at the start.
    pub setup_cents: Option<u64>,
    /// The commitment, in months, from which the setup is free.
    pub setup_waived_from_months: Option<u32>,
    /// Optional support, by the year.
    pub support_year_cents: Option<u64>,
    /// By contract.
    pub custom: bool,
}

/// A plan as it is sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its code, unique in the catalogue.
    pub code: PlanCode,
    /// Its name on an invoice.
    pub name: String,
    /// Goes up with every change; a tenant keeps the version it bought.
    pub version: u32,
    /// What it costs.
    pub price: Price,
    /// What it says about the limits its family governs; nothing about others.
    #[serde(default)]
    pub limits: Overrides,
    /// What it includes.
    pub features: BTreeSet<Feature>,
    /// How many spheres the app has.
    #[serde(default)]
    pub spheres: Option<u32>,
    /// The support that comes with it.
    #[serde(default)]
    pub support: Option<Support>,
    /// Promised availability in hundredths of a per cent: 9990 is 99.9 %.
    #[serde(default)]
    pub sla_basis_points: Option<u32>,
    /// Whether the price list recommends it.
    #[serde(default)]
    pub recommended: bool,
    /// Whom it is for.
    #[serde(default)]
    pub target: Option<String>,
}

/// Tokens sold by the piece.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Its code, unique in the catalogue.
    pub code: String,
    /// Tokens paid for.
    pub base_tokens: u64,
    /// Tokens on top, in per cent of the base.
    pub bonus_percent: u64,
    /// Tokens credited, base and bonus.
    pub credited_tokens: u64,
    /// What it costs, in euro cents without VAT.
    pub price_cents: u64,
}

/// All plans and packs.
#[derive(Clone, Debug)]
pub struct Catalog {
    plans: BTreeMap<PlanCode, Plan>,
    packs: Vec<Pack>,
}

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The text is not a catalogue.
    #[error("reading a catalogue file")]
    Unreadable(#[source] toml::de::Error),
    /// A code does not begin with a family we know.
    #[error("plan \"{0}\" belongs to no family")]
    NoFamily(PlanCode),
    /// A code is there twice.
    #[error("plan \"{0}\" is there twice")]
    Twice(PlanCode),
    /// Features and models of a plan are not limits.
    #[error("plan \"{0}\": features belong under the plan, not under its limits")]
    NotALimit(PlanCode),
    /// Base and bonus do not come to what is credited.
    #[error("pack \"{0}\": base and bonus do not come to what is credited")]
    BonusDoesNotAddUp(String),
}

/// One catalogue file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct CatalogFile {
    plan: Vec<Plan>,
    pack: Vec<Pack>,
}

static EMBEDDED: LazyLock<Catalog> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the text is compiled in, and every test of this crate reads it")]
    Catalog::parse(&[
        include_str!("../catalog/app.toml"),
        include_str!("../catalog/api.toml"),
        include_str!("../catalog/chatwoot.toml"),
        include_str!("../catalog/selfhosted.toml"),
        include_str!("../catalog/packs.toml"),
    ])
    .expect("the embedded catalogue is well formed")
});

impl Catalog {
    /// The catalogue that comes with the program.
    pub fn embedded() -> &'static Catalog {
        &EMBEDDED
    }

    /// A catalogue from the text of its files.
    pub fn parse(files: &[&str]) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog { plans: BTreeMap::new(), packs: Vec::new() };
        for text in files {
            let file: CatalogFile = toml::from_str(text).map_err(CatalogError::Unreadable)?;
            for plan in file.plan {
                catalog.add(plan)?;
            }
            for pack in file.pack {
                if pack.bonus_tokens().checked_mul(100) != pack.base_tokens.checked_mul(pack.bonus_percent) {
                    return Err(CatalogError::BonusDoesNotAddUp(pack.code));
                }
                catalog.packs.push(pack);
            }
        }
        Ok(catalog)
    }

    /// The catalogue of these plans, one version of each, and no packs: what one tenant's policy is compiled against.
    pub fn of(plans: impl IntoIterator<Item = Plan>) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog { plans: BTreeMap::new(), packs: Vec::new() };
        plans.into_iter().try_for_each(|plan| catalog.add(plan))?;
        Ok(catalog)
    }

    fn add(&mut self, plan: Plan) -> Result<(), CatalogError> {
        plan.check()?;
        match self.plans.insert(plan.code.clone(), plan) {
            Some(twin) => Err(CatalogError::Twice(twin.code)),
            None => Ok(()),
        }
    }

    /// The plan with this code.
    pub fn plan(&self, code: &str) -> Option<&Plan> {
        self.plans.get(code)
    }

    /// All plans, by code.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values()
    }

    /// All packs, smallest first.
    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// The pack with this code.
    pub fn pack(&self, code: &str) -> Option<&Pack> {
        self.packs.iter().find(|pack| pack.code == code)
    }
}

impl Plan {
    /// Whether it may stand in a catalogue.
    pub fn check(&self) -> Result<(), CatalogError> {
        if self.code.family().is_none() {
            return Err(CatalogError::NoFamily(self.code.clone()));
        }
        if !self.limits.features.is_empty() || !self.limits.without.is_empty() || self.limits.models.is_some() {
            return Err(CatalogError::NotALimit(self.code.clone()));
        }
        Ok(())
    }

    /// The family its code names.
    pub fn family(&self) -> Option<Family> {
        self.code.family()
    }

    /// The levels of AI agent it opens, lowest first.
    pub fn agent_levels(&self) -> impl Iterator<Item = u8> {
        [(Feature::AgentsL0, 0), (Feature::AgentsL1, 1), (Feature::AgentsL2, 2), (Feature::AgentsL3, 3)]
            .into_iter()
            .filter(|(feature, _)| self.features.contains(feature))
            .map(|(_, level)| level)
    }
}

impl Pack {
    /// Tokens credited beyond those paid for.
    pub fn bonus_tokens(&self) -> u64 {
        self.credited_tokens.saturating_sub(self.base_tokens)
    }

    /// The lots that a paid pack becomes: base and bonus apart, so that a statement shows both.
    /// `payment` is the payment's own id: the same payment credits once.
    pub fn lots(&self, payment: &str, paid_at_ms: i64) -> Vec<NewLot> {
        let lot = |granted, source| NewLot {
            kind: LotKind::Pack,
            granted,
            priority: None,
            effective_at_ms: Some(paid_at_ms),
            expires_at_ms: None,
            source,
        };
        let mut lots = vec![lot(self.base_tokens, format!("pack:{payment}"))];
        if self.bonus_tokens() > 0 {
            lots.push(lot(self.bonus_tokens(), format!("pack:{payment}:bonus")));
        }
        lots
    }
}

impl PlanCode {
    /// A code, known or not.
    pub fn new(code: impl Into<String>) -> PlanCode {
        PlanCode(code.into())
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The family it names, by what stands before the dot.
    pub fn family(&self) -> Option<Family> {
        match self.0.split_once('.') {
            Some(("app", _)) => Some(Family::App),
            Some(("api", _)) => Some(Family::Api),
            Some(("chatwoot", _)) => Some(Family::Chatwoot),
            None if self.0 == "selfhosted" => Some(Family::SelfHosted),
            _ => None,
        }
    }
}

impl Borrow<str> for PlanCode {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PlanCode {
    fn from(code: &str) -> PlanCode {
        PlanCode(code.to_owned())
    }
}

impl fmt::Display for PlanCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::App => "app",
            Family::Api => "api",
            Family::Chatwoot => "chatwoot",
            Family::SelfHosted => "selfhosted",
        })
    }
}

#[cfg(test)]
mod tests;
