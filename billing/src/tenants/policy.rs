//! From a tenant's rows to what its policy is compiled from.
//!
//! [`spec`] is the one place that reads them together; whoever compiles policies for gateways starts there.
//! [`settle`] ends every change of a tenant. Lots come from the wallet and are not read here.

use std::collections::BTreeMap;

use relais_policies::{Anchor, Catalog, Plan, PlanCode, RateCard, TenantPolicy, TenantSpec};
use sqlx::AnyConnection;

use super::{Tenant, get, overrides};
use crate::catalog;
use crate::error::Error;
use crate::store::{Change, Subject};

/// What [`TenantPolicy::compile`] needs: the tenant's spec, and the catalogue it is sold from.
#[derive(Debug)]
pub struct Compilable {
    /// The tenant, its plans, its overrides that hold at the moment asked for.
    pub spec: TenantSpec,
    /// Every plan in the version sold now, but those it holds in the version it bought.
    pub catalog: Catalog,
}

/// What a tenant's policy is made from at this moment, Unix ms, which may lie ahead.
pub async fn spec(sql: &mut AnyConnection, tenant_id: &str, now_ms: i64) -> Result<Compilable, Error> {
    let tenant = get(sql, tenant_id).await?;
    let overrides = overrides::list(sql, tenant_id).await?;
    let mut plans: BTreeMap<PlanCode, Plan> =
        catalog::all_latest(sql).await?.into_iter().map(|plan| (plan.code.clone(), plan)).collect();
    for held in &tenant.plans {
        let version = catalog::version(sql, held.code.as_str(), held.version).await?;
        let version = version.ok_or_else(|| Error::internal("reading a plan", "a version that is held is missing"))?;
        plans.insert(held.code.clone(), version.plan);
    }
    let catalog = Catalog::of(plans.into_values()).map_err(|error| Error::internal("reading the plans", error))?;
    Ok(Compilable { spec: spec_of(&tenant, overrides::holding(&overrides, now_ms)?), catalog })
}

fn spec_of(tenant: &Tenant, overrides: relais_policies::Overrides) -> TenantSpec {
    TenantSpec {
        tenant_id: tenant.id.clone(),
        status: tenant.status,
        plans: tenant.plans.iter().map(|held| held.code.clone()).collect(),
        overrides,
        shadow: tenant.shadow.iter().copied().collect(),
        anchor: Anchor::at(tenant.anchor.0),
        // What a model token costs is the gateways' configuration.
        rate: RateCard::default(),
        lots: Vec::new(),
    }
}

/// Ends a change of a tenant: refuses it if no policy comes of it, else tells the gateways.
pub async fn settle(change: &mut Change, tenant_id: &str) -> Result<(), Error> {
    let now_ms = change.now_ms();
    let Compilable { spec, catalog } = spec(change.sql(), tenant_id, now_ms).await?;
    TenantPolicy::compile(&catalog, &spec).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Error::invalid(errors.join("; "))
    })?;
    change.touched(Subject::Tenant(tenant_id)).await?;
    Ok(())
}
