//! Which family governs what, and what is refused.

use super::*;
use crate::limit::Limit::{AtMost, Unlimited};
use crate::rate_card::Rate;

fn spec(plans: &[&str]) -> TenantSpec {
    TenantSpec {
        tenant_id: "acme".into(),
        plans: plans.iter().map(|code| PlanCode::from(*code)).collect(),
        ..TenantSpec::default()
    }
}

fn compile(plans: &[&str]) -> TenantPolicy {
    TenantPolicy::compile(Catalog::embedded(), &spec(plans)).unwrap()
}

fn with_overrides(plans: &[&str], overrides: &str) -> TenantPolicy {
    let spec = TenantSpec { overrides: toml::from_str(overrides).unwrap(), ..spec(plans) };
    TenantPolicy::compile(Catalog::embedded(), &spec).unwrap()
}

#[test]
fn each_family_governs_its_own_limits() {
    let policy = compile(&["chatwoot.pro", "app.business", "api.pro"]);
    let expected = Limits {
        tokens_per_month: AtMost(100_000),
        calls_per_month: AtMost(1_000_000),
        calls_per_minute: AtMost(1_000),
        calls_in_flight: AtMost(256),
        tokens_per_call: Unlimited,
        conversations_per_month: AtMost(2_000),
        seats: AtMost(3),
        threads: Unlimited,
        storage_gb: AtMost(500),
        agents: AtMost(168),
    };
    assert_eq!(policy.limits, expected);
    assert!(policy.has(Feature::Handoff) && policy.has(Feature::CustomAgents) && policy.has(Feature::ApiAccess));
    assert!(!policy.has(Feature::Sso));
}

#[test]
fn no_plan_at_all_is_app_free_and_nothing_else() {
    let policy = compile(&[]);
    assert_eq!(policy.plans.app.as_str(), "app.free");
    assert_eq!((policy.plans.api.as_ref(), policy.plans.chatwoot.as_ref()), (None, None));
    assert_eq!(policy.limits.tokens_per_month, AtMost(500));
    assert_eq!(policy.limits.calls_per_month, AtMost(0));
    assert_eq!(policy.limits.conversations_per_month, AtMost(0));
    assert!(!policy.has(Feature::ApiAccess));
    assert_eq!(policy.default_channel(), None);
}

#[test]
fn api_access_by_plan() {
    for (plans, api) in [
        (&["app.free"][..], None),
        (&["app.starter"], None),
        (&["app.pro"], Some("api.free")),
        (&["app.enterprise"], Some("api.free")),
        (&["app.pro", "api.basic"], Some("api.basic")),
        (&["api.basic"], Some("api.basic")),
        (&["app.starter", "api.enterprise"], Some("api.enterprise")),
        (&["chatwoot.enterprise", "selfhosted"], None),
    ] {
        let policy = compile(plans);
        assert_eq!(policy.plans.api.as_ref().map(PlanCode::as_str), api, "{plans:?}");
        assert_eq!(policy.has(Feature::ApiAccess), api.is_some(), "{plans:?}");
    }
    assert_eq!(compile(&["app.pro"]).limits.calls_per_minute, AtMost(10));
    let given = with_overrides(&["app.starter"], "features = [\"api_access\"]");
    assert_eq!(given.plans.api, Some(PlanCode::from("api.free")));
    let taken = with_overrides(&["app.pro", "api.pro"], "without = [\"api_access\"]");
    assert!(!taken.has(Feature::ApiAccess));
}

#[test]
fn who_pays_for_a_reply() {
    let managed = compile(&["chatwoot.starter"]);
    assert_eq!(managed.payer(ChannelKind::Managed), Some(Payer::ConversationQuota));
    assert_eq!(managed.payer(ChannelKind::SelfHosted), None);
    let own = compile(&["selfhosted", "app.starter"]);
    assert_eq!(own.default_channel(), Some(ChannelKind::SelfHosted));
    assert_eq!(own.payer(ChannelKind::SelfHosted), Some(Payer::TokenBudget));
    assert_eq!(own.limits.tokens_per_month, AtMost(5_000));
}

#[test]
fn handoff_is_the_channels_own() {
    let policy = compile(&["chatwoot.starter", "selfhosted"]);
    assert!(!policy.allows_on(ChannelKind::Managed, Feature::Handoff));
    assert!(policy.allows_on(ChannelKind::SelfHosted, Feature::Handoff));
    let contract = with_overrides(&["chatwoot.starter"], "features = [\"handoff\"]");
    assert!(contract.allows_on(ChannelKind::Managed, Feature::Handoff));
    assert!(!contract.allows_on(ChannelKind::SelfHosted, Feature::Handoff));
}

#[test]
fn overrides_go_on_top() {
    let policy = with_overrides(
        &["app.enterprise", "api.enterprise"],
        "tokens_per_month = 20000\ncalls_per_minute = 1000\nwithout = [\"sso\"]\nmodels = [\"gpt-4*\", \"llama\"]",
    );
    assert_eq!(policy.limits.tokens_per_month, AtMost(20_000));
    assert_eq!(policy.limits.calls_per_minute, AtMost(1_000));
    assert_eq!(policy.limits.calls_per_month, Unlimited);
    assert!(!policy.has(Feature::Sso) && policy.has(Feature::WhiteLabel));
    for (model, allowed) in [("gpt-4o", true), ("gpt-4", true), ("gpt-3.5", false), ("llama", true), ("llama2", false)]
    {
        assert_eq!(policy.allows_model(model), allowed, "{model}");
    }
    assert!(compile(&[]).allows_model("anything"));
    assert!(!with_overrides(&[], "models = []").allows_model("anything"));
}

#[test]
fn soft_levels_only_where_there_is_no_limit() {
    let policy = compile(&["app.enterprise", "api.enterprise", "chatwoot.enterprise"]);
    assert_eq!(policy.soft_level(Metered::Tokens), Some(1_000_000));
    assert_eq!(policy.soft_level(Metered::Calls), Some(10_000_000));
    assert_eq!(policy.soft_level(Metered::Conversations), Some(20_000));
    let limited = compile(&["app.pro"]);
    assert_eq!(limited.soft_level(Metered::Tokens), None);
    assert_eq!(limited.soft_level(Metered::Calls), None);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let rate = |model: &str| Rate { model: model.into(), input: 1, cached_input: None, output: 1, reasoning: None };
    let spec = TenantSpec {
        overrides: toml::from_str("models = [\"a*b\", \"\"]").unwrap(),
        rate: RateCard::new(vec![rate("gpt"), rate("gpt"), rate("**")]),
        ..spec(&["app.pro", "app.gold", "app.free", "pack.1k", "platinum"])
    };
    let errors = TenantPolicy::compile(Catalog::embedded(), &spec).unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 8, "{text:#?}");
    for says in [
        "\"a*b\" names no model",
        "\"\" names no model",
        "\"**\" names no model",
        "two rates for \"gpt\"",
        "no plan \"app.gold\"; there is app.business, app.enterprise, app.free, app.pro, app.starter",
        "\"app.pro\" and \"app.free\" are both app plans",
        "no plan \"pack.1k\"; there is api.basic",
        "no plan \"platinum\"",
    ] {
        assert!(text.iter().any(|line| line.contains(says)), "{says}: {text:#?}");
    }
}
