//! Tenants: who they are, whether they are served, which plans they hold and what their contract changes.
//!
//! One plan a family at a time; a plan that ends is kept as a row with an end. A deleted tenant keeps its id and its
//! books, because money was counted there; its name and address go, its keys are revoked, its channels removed.
//!
//! Every change ends in [`policy::settle`]: the tenant's policy must still compile, and the gateways are told.

pub mod overrides;
pub mod plans;
pub mod policy;

use relais_policies::{PlanCode, Shadowed, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use uuid::Uuid;

use self::plans::HeldPlan;
use crate::error::Error;
use crate::instant::Instant;
use crate::page::{List, Page};
use crate::store::{Change, Subject};
use crate::text;

/// A tenant as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Its name for people; empty once it is deleted.
    pub name: String,
    /// Where bills and alerts go.
    pub email: Option<String>,
    /// Two letters, ISO 3166.
    pub country: Option<String>,
    /// Whether it is served.
    pub status: Status,
    /// Where its months begin.
    pub anchor: Instant,
    /// Limits that are counted and not enforced.
    pub shadow: Vec<Shadowed>,
    /// The plans it holds, at most one a family. What is free comes on top.
    pub plans: Vec<HeldPlan>,
    /// Since when it is known.
    pub created_at: Instant,
    /// When it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Instant>,
}

/// A tenant to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its id: small letters, digits, `_` and `-`. Not given: a random one.
    pub id: Option<String>,
    /// Its name for people.
    pub name: String,
    /// Where bills and alerts go.
    pub email: Option<String>,
    /// Two letters, ISO 3166.
    pub country: Option<String>,
    /// Where its months begin. Not given: at this moment.
    pub anchor: Option<Instant>,
    /// Limits that are counted and not enforced.
    #[serde(default)]
    pub shadow: Vec<Shadowed>,
    /// Its plans, at most one a family, in the version sold now.
    #[serde(default)]
    pub plans: Vec<PlanCode>,
}

/// What of a tenant is to be changed; what is not given stays.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditTenant {
    /// Its name for people.
    pub name: Option<String>,
    /// Where bills and alerts go.
    pub email: Option<String>,
    /// Two letters, ISO 3166.
    pub country: Option<String>,
    /// Where its months begin.
    pub anchor: Option<Instant>,
    /// Limits that are counted and not enforced.
    pub shadow: Option<Vec<Shadowed>>,
}

row! {
    struct Row {
        id: String,
        name: String,
        email: Option<String>,
        country: Option<String>,
        status: String,
        anchor_at: i64,
        shadow_json: String,
        created_at: i64,
        deleted_at: Option<i64>,
    }
}

impl Row {
    fn shown(self, plans: Vec<HeldPlan>) -> Result<Tenant, Error> {
        Ok(Tenant {
            id: self.id,
            name: self.name,
            email: self.email,
            country: self.country,
            status: if self.status == ACTIVE { Status::Active } else { Status::Suspended },
            anchor: Instant(self.anchor_at),
            shadow: serde_json::from_str(&self.shadow_json)?,
            plans,
            created_at: Instant(self.created_at),
            deleted_at: self.deleted_at.map(Instant),
        })
    }
}

const ACTIVE: &str = "active";
const SUSPENDED: &str = "suspended";

/// The object's name in the audit trail.
fn object(id: &str) -> String {
    format!("tenant:{id}")
}

/// Makes a tenant.
pub async fn create(change: &mut Change, new: &NewTenant) -> Result<Tenant, Error> {
    let id = new.id.clone().unwrap_or_else(|| Uuid::now_v7().simple().to_string());
    text::id("id", &id)?;
    check_words(Some(&new.name), new.email.as_deref(), new.country.as_deref())?;
    if find(change.sql(), &id).await?.is_some() {
        return Err(Error::conflict(format!("there is, or was, a tenant \"{id}\"; an id is never given twice")));
    }
    let now_ms = change.now_ms();
    sqlx::query(
        "INSERT INTO tenants (id, name, email, country, status, anchor_at, shadow_json, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.clone())
    .bind(new.name.clone())
    .bind(new.email.clone())
    .bind(new.country.clone())
    .bind(ACTIVE)
    .bind(new.anchor.map_or(now_ms, |anchor| anchor.0))
    .bind(serde_json::to_string(&new.shadow)?)
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    for code in &new.plans {
        let family = code.family().ok_or_else(|| Error::not_found("plan", code.as_str()))?;
        if plans::held(change.sql(), &id).await?.iter().any(|held| held.family == family) {
            return Err(Error::invalid(format!("two {family} plans; a tenant holds at most one a family")));
        }
        plans::begin(change, &id, family, code, None).await?;
    }
    policy::settle(change, &id).await?;
    let tenant = get(change.sql(), &id).await?;
    change.audit("tenant.create", &object(&id), None, Some(&tenant)).await?;
    Ok(tenant)
}

/// Changes who it is.
pub async fn edit(change: &mut Change, id: &str, edit: &EditTenant) -> Result<Tenant, Error> {
    let before = living(change.sql(), id).await?;
    check_words(edit.name.as_deref(), edit.email.as_deref(), edit.country.as_deref())?;
    sqlx::query(
        "UPDATE tenants SET name = $2, email = $3, country = $4, anchor_at = $5, shadow_json = $6 WHERE id = $1",
    )
    .bind(id.to_owned())
    .bind(edit.name.clone().unwrap_or_else(|| before.name.clone()))
    .bind(edit.email.clone().or_else(|| before.email.clone()))
    .bind(edit.country.clone().or_else(|| before.country.clone()))
    .bind(edit.anchor.unwrap_or(before.anchor).0)
    .bind(serde_json::to_string(edit.shadow.as_ref().unwrap_or(&before.shadow))?)
    .execute(change.sql())
    .await?;
    settled(change, "tenant.edit", before).await
}

/// Serves it, or not, until told otherwise.
pub async fn set_status(change: &mut Change, id: &str, status: Status) -> Result<Tenant, Error> {
    let before = living(change.sql(), id).await?;
    let (word, action) = match status {
        Status::Active => (ACTIVE, "tenant.resume"),
        Status::Suspended => (SUSPENDED, "tenant.suspend"),
    };
    sqlx::query("UPDATE tenants SET status = $2 WHERE id = $1")
        .bind(id.to_owned())
        .bind(word)
        .execute(change.sql())
        .await?;
    settled(change, action, before).await
}

/// Ends it. Its books stay; its name and address do not, nor do its keys and channels.
pub async fn delete(change: &mut Change, id: &str) -> Result<Tenant, Error> {
    let before = living(change.sql(), id).await?;
    let now_ms = change.now_ms();
    for statement in [
        "UPDATE tenants SET name = '', email = NULL, deleted_at = $2, status = 'suspended' WHERE id = $1",
        "UPDATE subscriptions SET ended_at = $2 WHERE tenant_id = $1 AND ended_at IS NULL",
        "UPDATE api_keys SET revoked_at = $2 WHERE tenant_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(statement).bind(id.to_owned()).bind(now_ms).execute(change.sql()).await?;
    }
    for statement in ["DELETE FROM channels WHERE tenant_id = $1", "DELETE FROM overrides WHERE tenant_id = $1"] {
        sqlx::query(statement).bind(id.to_owned()).execute(change.sql()).await?;
    }
    change.removed(Subject::Tenant(id)).await?;
    let after = get(change.sql(), id).await?;
    // The trail keeps that it was deleted, not who it was.
    let before = Tenant { name: String::new(), email: None, ..before };
    change.audit("tenant.delete", &object(id), Some(&before), Some(&after)).await?;
    Ok(after)
}

async fn settled(change: &mut Change, action: &'static str, before: Tenant) -> Result<Tenant, Error> {
    policy::settle(change, &before.id).await?;
    let after = get(change.sql(), &before.id).await?;
    change.audit(action, &object(&before.id), Some(&before), Some(&after)).await?;
    Ok(after)
}

/// A tenant, also a deleted one.
pub async fn get(sql: &mut AnyConnection, id: &str) -> Result<Tenant, Error> {
    find(sql, id).await?.ok_or_else(|| Error::not_found("tenant", id))
}

/// A tenant that was not deleted.
pub async fn living(sql: &mut AnyConnection, id: &str) -> Result<Tenant, Error> {
    let tenant = get(sql, id).await?;
    if tenant.deleted_at.is_some() {
        return Err(Error::conflict(format!("the tenant \"{id}\" was deleted")));
    }
    Ok(tenant)
}

async fn find(sql: &mut AnyConnection, id: &str) -> Result<Option<Tenant>, Error> {
    let row: Option<Row> =
        sqlx::query_as("SELECT * FROM tenants WHERE id = $1").bind(id.to_owned()).fetch_optional(&mut *sql).await?;
    match row {
        Some(row) => {
            let plans = plans::held(sql, id).await?;
            row.shown(plans).map(Some)
        }
        None => Ok(None),
    }
}

/// Tenants by id; deleted ones only if asked for.
pub async fn list(sql: &mut AnyConnection, page: &Page, deleted: bool) -> Result<List<Tenant>, Error> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM tenants WHERE id > $1 AND ($2 = 1 OR deleted_at IS NULL) ORDER BY id LIMIT $3")
            .bind(page.after.clone())
            .bind(i64::from(deleted))
            .bind(page.rows())
            .fetch_all(&mut *sql)
            .await?;
    let mut tenants = Vec::with_capacity(rows.len());
    for row in rows {
        let plans = plans::held(sql, &row.id).await?;
        tenants.push(row.shown(plans)?);
    }
    Ok(List::of(tenants, page, |tenant: &Tenant| tenant.id.clone()))
}

fn check_words(name: Option<&str>, email: Option<&str>, country: Option<&str>) -> Result<(), Error> {
    if let Some(name) = name {
        text::label("name", name)?;
    }
    if let Some(email) = email {
        text::label("email", email)?;
        if !email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) {
            return Err(Error::invalid("email is no address: write USER@HOST"));
        }
    }
    if let Some(country) = country
        && (country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()))
    {
        return Err(Error::invalid("country has two capital letters, such as FR"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
