//! The plans a tenant holds: at most one a family, each in the version it was bought in.
//!
//! Set here by an operator; what a payment sets will end in the same two functions. What is credited when a plan
//! begins or changes is the wallet's business, which reads these rows.

use relais_policies::{Family, PlanCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use uuid::Uuid;

use super::{Tenant, living, settled};
use crate::catalog;
use crate::error::Error;
use crate::instant::Instant;
use crate::store::Change;

/// A plan a tenant holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HeldPlan {
    /// Its family.
    pub family: Family,
    /// Its code.
    pub code: PlanCode,
    /// The version that was bought.
    pub version: u32,
    /// Since when.
    pub since: Instant,
}

/// The plan to hold from now on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPlan {
    /// Its code, of the family in the address.
    pub code: PlanCode,
    /// The version. Not given: the one sold now.
    pub version: Option<u32>,
}

row! {
    struct Row {
        plan_code: String,
        plan_version: i64,
        started_at: i64,
    }
}

/// What a tenant holds now, by family.
pub async fn held(sql: &mut AnyConnection, tenant_id: &str) -> Result<Vec<HeldPlan>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT plan_code, plan_version, started_at FROM subscriptions
         WHERE tenant_id = $1 AND ended_at IS NULL ORDER BY family",
    )
    .bind(tenant_id.to_owned())
    .fetch_all(sql)
    .await?;
    let shown = |row: Row| {
        let code = PlanCode::new(row.plan_code);
        let family = code.family().ok_or_else(|| Error::internal("reading a plan", "a code of no family"))?;
        let version = u32::try_from(row.plan_version).map_err(|error| Error::internal("reading a plan", error))?;
        Ok(HeldPlan { family, code, version, since: Instant(row.started_at) })
    };
    rows.into_iter().map(shown).collect()
}

/// Puts a tenant on a plan of this family, in place of the one it holds.
pub async fn set(change: &mut Change, tenant_id: &str, family: Family, plan: &SetPlan) -> Result<Tenant, Error> {
    let before = living(change.sql(), tenant_id).await?;
    if plan.code.family() != Some(family) {
        return Err(Error::invalid(format!("\"{}\" is no {family} plan", plan.code)));
    }
    finish(change, tenant_id, family).await?;
    begin(change, tenant_id, family, &plan.code, plan.version).await?;
    settled(change, "plan.set", before).await
}

/// Takes a tenant off the plan it holds of this family: it falls to what is free there, or to nothing.
pub async fn end(change: &mut Change, tenant_id: &str, family: Family) -> Result<Tenant, Error> {
    let before = living(change.sql(), tenant_id).await?;
    if finish(change, tenant_id, family).await? == 0 {
        return Err(Error::not_found("plan of this family held by the tenant", tenant_id));
    }
    settled(change, "plan.end", before).await
}

pub(super) async fn begin(
    change: &mut Change,
    tenant_id: &str,
    family: Family,
    code: &PlanCode,
    version: Option<u32>,
) -> Result<(), Error> {
    let plan = match version {
        Some(version) => catalog::version(change.sql(), code.as_str(), version).await?,
        None => catalog::latest(change.sql(), code.as_str()).await?,
    };
    let plan = plan.ok_or_else(|| {
        let version = version.map(|version| format!(" in version {version}")).unwrap_or_default();
        Error::invalid(format!("there is no plan \"{code}\"{version}; GET /v1/admin/plans lists them"))
    })?;
    let now_ms = change.now_ms();
    sqlx::query(
        "INSERT INTO subscriptions (id, tenant_id, family, plan_code, plan_version, started_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(Uuid::now_v7().simple().to_string())
    .bind(tenant_id.to_owned())
    .bind(family.to_string())
    .bind(code.to_string())
    .bind(i64::from(plan.plan.version))
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    Ok(())
}

async fn finish(change: &mut Change, tenant_id: &str, family: Family) -> Result<u64, Error> {
    let now_ms = change.now_ms();
    let done =
        sqlx::query("UPDATE subscriptions SET ended_at = $3 WHERE tenant_id = $1 AND family = $2 AND ended_at IS NULL")
            .bind(tenant_id.to_owned())
            .bind(family.to_string())
            .bind(now_ms)
            .execute(change.sql())
            .await?;
    Ok(done.rows_affected())
}
