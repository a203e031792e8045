//! What a tenant's contract changes on top of its plans: one limit or feature list each, with who said so, why, and
//! until when.
//!
//! The names are those of [`relais_policies::Overrides`], which are also the names in the gateway's configuration. One
//! that is past its end stays in the list and has no effect: policies tell gateways of the end beforehand.

use relais_policies::Overrides;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AnyConnection;

use super::{living, policy};
use crate::error::Error;
use crate::instant::Instant;
use crate::store::Change;
use crate::text;

/// An override as it is shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Override {
    /// What it changes, such as `tokens_per_month`.
    pub path: String,
    /// To what: a whole number, `"unlimited"`, or a list.
    pub value: Value,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub author: String,
    /// When.
    pub created_at: Instant,
    /// Until when, exclusive; absent: until it is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Instant>,
}

/// An override to be set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOverride {
    /// A whole number, `"unlimited"`, or a list.
    pub value: Value,
    /// Why.
    pub reason: String,
    /// Until when, exclusive. Not given: until it is taken away.
    pub until: Option<Instant>,
}

row! {
    struct Row {
        path: String,
        value_json: String,
        reason: String,
        author: String,
        created_at: i64,
        until: Option<i64>,
    }
}

impl Row {
    fn shown(self) -> Result<Override, Error> {
        Ok(Override {
            path: self.path,
            value: serde_json::from_str(&self.value_json)?,
            reason: self.reason,
            author: self.author,
            created_at: Instant(self.created_at),
            until: self.until.map(Instant),
        })
    }
}

fn object(tenant_id: &str, path: &str) -> String {
    format!("override:{tenant_id}/{path}")
}

/// All of a tenant's, by path.
pub async fn list(sql: &mut AnyConnection, tenant_id: &str) -> Result<Vec<Override>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT path, value_json, reason, author, created_at, until FROM overrides WHERE tenant_id = $1 ORDER BY path",
    )
    .bind(tenant_id.to_owned())
    .fetch_all(sql)
    .await?;
    rows.into_iter().map(Row::shown).collect()
}

/// Those that hold at this moment, as one.
pub fn holding(overrides: &[Override], now_ms: i64) -> Result<Overrides, Error> {
    let holding = overrides.iter().filter(|one| one.until.is_none_or(|until| now_ms < until.0));
    let all: serde_json::Map<String, Value> = holding.map(|one| (one.path.clone(), one.value.clone())).collect();
    Ok(serde_json::from_value(Value::Object(all))?)
}

/// Sets one, in place of what it was.
pub async fn set(change: &mut Change, tenant_id: &str, path: &str, set: &SetOverride) -> Result<Override, Error> {
    living(change.sql(), tenant_id).await?;
    text::sentence("reason", &set.reason)?;
    let now_ms = change.now_ms();
    if set.until.is_some_and(|until| until.0 <= now_ms) {
        return Err(Error::invalid("until lies in the past; leave it out, or give a later one"));
    }
    let alone = Value::Object([(path.to_owned(), set.value.clone())].into_iter().collect());
    serde_json::from_value::<Overrides>(alone).map_err(|error| Error::invalid(format!("{path}: {error}")))?;
    let before = list(change.sql(), tenant_id).await?.into_iter().find(|one| one.path == path);
    let after = Override {
        path: path.to_owned(),
        value: set.value.clone(),
        reason: set.reason.clone(),
        author: change.author().actor.clone(),
        created_at: Instant(now_ms),
        until: set.until,
    };
    sqlx::query(
        "INSERT INTO overrides (tenant_id, path, value_json, reason, author, created_at, until)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id, path) DO UPDATE SET value_json = excluded.value_json, reason = excluded.reason,
         author = excluded.author, created_at = excluded.created_at, until = excluded.until",
    )
    .bind(tenant_id.to_owned())
    .bind(path.to_owned())
    .bind(after.value.to_string())
    .bind(after.reason.clone())
    .bind(after.author.clone())
    .bind(now_ms)
    .bind(after.until.map(|until| until.0))
    .execute(change.sql())
    .await?;
    policy::settle(change, tenant_id).await?;
    change.audit("override.set", &object(tenant_id, path), before.as_ref(), Some(&after)).await?;
    Ok(after)
}

/// Takes one away.
pub async fn remove(change: &mut Change, tenant_id: &str, path: &str) -> Result<Override, Error> {
    living(change.sql(), tenant_id).await?;
    let all = list(change.sql(), tenant_id).await?;
    let Some(before) = all.into_iter().find(|one| one.path == path) else {
        return Err(Error::not_found("override", path));
    };
    sqlx::query("DELETE FROM overrides WHERE tenant_id = $1 AND path = $2")
        .bind(tenant_id.to_owned())
        .bind(path.to_owned())
        .execute(change.sql())
        .await?;
    policy::settle(change, tenant_id).await?;
    change.audit("override.remove", &object(tenant_id, path), Some(&before), None).await?;
    Ok(before)
}
