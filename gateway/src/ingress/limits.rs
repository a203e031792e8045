//! `GET /v1/limits`: what the caller may do, and what is left of it: the numbers that are enforced, read where they
//! are enforced.
//!
//! It costs nothing, counts as no call and is answered to a suspended tenant too: who is refused should see why.

use std::collections::BTreeSet;

use http::Response;
use relais_policies::limit::{Limit, Limits};
use relais_policies::plan::{Feature, PlanCode};
use relais_policies::shadow::Shadowed;
use relais_policies::tenant::Status;
use serde::Serialize;

use crate::Gateway;
use crate::admission::{KeyLimits, Overview, Window};
use crate::auth::api_key::Caller;
use crate::error::Error;
use crate::http::body::Body;
use crate::http::respond;

#[derive(Serialize)]
struct View<'a> {
    object: &'static str,
    tenant: &'a str,
    status: Status,
    plans: Plans<'a>,
    features: &'a BTreeSet<Feature>,
    /// Patterns of models that the tenant may call.
    models: &'a [String],
    limits: &'a Limits,
    /// Those that are counted and refuse nobody.
    shadow: Vec<Shadowed>,
    key: Key<'a>,
    period: Period,
    remaining: Remaining,
}

#[derive(Serialize)]
struct Plans<'a> {
    app: &'a PlanCode,
    api: Option<&'a PlanCode>,
    chatwoot: Option<&'a PlanCode>,
    selfhosted: Option<&'a PlanCode>,
}

#[derive(Serialize)]
struct Key<'a> {
    name: &'a str,
    /// Patterns of models that this key may call, within the tenant's; `null`: all of those.
    models: Option<&'a [String]>,
    limits: KeyView,
    shadow: Vec<Shadowed>,
}

#[derive(Serialize)]
struct KeyView {
    calls_per_minute: Limit,
    calls_per_month: Limit,
    calls_in_flight: Limit,
    tokens_per_month: Limit,
    tokens_per_call: Limit,
}

/// Unix seconds.
#[derive(Serialize)]
struct Period {
    starts_at: i64,
    ends_at: i64,
}

/// What is left; `null`: without limit.
#[derive(Serialize)]
struct Remaining {
    calls_per_minute: Option<Left>,
    calls_per_month: Option<Left>,
    calls_in_flight: InFlight,
    tokens: Tokens,
    conversations_per_month: Conversations,
    seats: Seats,
}

#[derive(Serialize)]
struct Left {
    limit: u64,
    remaining: u64,
    /// ms until it is whole again if nothing more is used.
    reset_ms: u64,
}

#[derive(Serialize)]
struct InFlight {
    limit: Limit,
    running: u64,
    /// `null`: without limit.
    remaining: Option<u64>,
}

#[derive(Serialize)]
struct Tokens {
    /// What was granted and bought, as far as it is usable in this period; `null`: without limit.
    limit: Option<u64>,
    /// `null`: without limit.
    remaining: Option<u64>,
    spent: u64,
    /// Held by running calls.
    reserved: u64,
    /// Spent without cover; paid first by the next grant or pack.
    debt: u64,
    reset_ms: Option<u64>,
}

#[derive(Serialize)]
struct Conversations {
    limit: Limit,
    /// Counted in this period.
    used: u64,
    /// `null`: without limit.
    remaining: Option<u64>,
    reset_ms: u64,
}

#[derive(Serialize)]
struct Seats {
    limit: Limit,
    /// Humans seen in this period; reported, and refused to nobody.
    seen: u64,
}

/// Client leaves: cancel.
pub fn answer(gateway: &Gateway, caller: &Caller) -> Result<Response<Body>, Error> {
    let key = &caller.key;
    let policy = &key.tenant.policy;
    let overview = key.tenant.account.overview(key.slot);
    let now_ms = gateway.clock.now_ms();
    respond::json(&View {
        object: "limits",
        tenant: &key.tenant.id,
        status: policy.status,
        plans: Plans {
            app: &policy.plans.app,
            api: policy.plans.api.as_ref(),
            chatwoot: policy.plans.chatwoot.as_ref(),
            selfhosted: policy.plans.selfhosted.as_ref(),
        },
        features: &policy.features,
        models: &policy.models,
        limits: &policy.limits,
        shadow: policy.shadow.iter().collect(),
        key: Key {
            name: &key.key.name,
            models: key.key.models.as_deref(),
            limits: KeyView::of(&overview.key_limits),
            shadow: overview.key_limits.shadow.iter().collect(),
        },
        period: Period {
            starts_at: overview.period.start_ms.div_euclid(1000),
            ends_at: overview.period.end_ms.div_euclid(1000),
        },
        remaining: Remaining::of(&policy.limits, &overview, now_ms),
    })
}

impl KeyView {
    fn of(limits: &KeyLimits) -> Self {
        Self {
            calls_per_minute: limits.calls_per_minute,
            calls_per_month: limits.calls_per_month,
            calls_in_flight: limits.calls_in_flight,
            tokens_per_month: limits.tokens_per_month,
            tokens_per_call: limits.tokens_per_call,
        }
    }
}

impl Remaining {
    fn of(limits: &Limits, overview: &Overview, now_ms: i64) -> Self {
        let left =
            |window: Window| Left { limit: window.limit, remaining: window.remaining, reset_ms: window.reset_ms };
        let running = overview.in_flight;
        // The key's own bound counts the key's own calls: what is left is the smaller of the two.
        let key_left = overview.key_limits.calls_in_flight.remaining(overview.key_in_flight);
        let remaining = match (limits.calls_in_flight.remaining(running), key_left) {
            (Some(tenant), Some(key)) => Some(tenant.min(key)),
            (one, None) | (None, one) => one,
        };
        let tokens = overview.standing.tokens;
        let period_left = u64::try_from(overview.period.end_ms.saturating_sub(now_ms)).unwrap_or(0);
        Self {
            calls_per_minute: overview.standing.minute.map(left),
            calls_per_month: overview.standing.calls.map(left),
            calls_in_flight: InFlight { limit: limits.calls_in_flight, running, remaining },
            tokens: Tokens {
                limit: tokens.map(|tokens| tokens.limit),
                remaining: tokens.map(|tokens| tokens.remaining),
                spent: overview.spent,
                reserved: overview.reserved,
                debt: overview.debt,
                reset_ms: tokens.map(|_| period_left),
            },
            conversations_per_month: Conversations {
                limit: limits.conversations_per_month,
                used: overview.conversations,
                remaining: limits.conversations_per_month.remaining(overview.conversations),
                reset_ms: period_left,
            },
            seats: Seats { limit: limits.seats, seen: overview.seats },
        }
    }
}
