//! API keys: issued once, labelled, with limits and models of their own, rotated with an overlap, revoked.
//!
//! The form and the hash are [`relais_policies::key`], the gateway's own code. What is kept is the public id and the
//! hash; the whole key is in the answer that issues or rotates it and nowhere else. A rotated key keeps its public id,
//! so its usage goes on under one name, and its old secret opens until `previous_until`.

use relais_policies::Shadowed;
use relais_policies::key::{NewKey as Secret, RANDOM_BYTES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::error::Error;
use crate::instant::Instant;
use crate::page::{List, Page};
use crate::store::{Change, Subject};
use crate::tenants;
use crate::text;

/// How long an old secret opens after a rotation unless told otherwise: a day.
const OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest overlap: 30 days. Two secrets for ever would be two keys.
const OVERLAP_MS_MAX: i64 = 30 * OVERLAP_MS;
/// Keys of one tenant that are not revoked: a bound on what a gateway holds for it.
const KEYS_MAX: i64 = 1_000;

/// What a key may do below its tenant. What is not given is the tenant's alone to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Calls per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u64))]
    pub calls_per_minute: Option<u64>,
    /// Calls per billing month.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub calls_per_month: Option<u64>,
    /// Calls that run at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub calls_in_flight: Option<u64>,
    /// Budget tokens per billing month.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_month: Option<u64>,
    /// Budget tokens one call may spend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_call: Option<u64>,
    /// Limits of the above that are counted and refuse nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<Shadowed>,
    /// Models: names, names that end in `*`, or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

/// A key as it is shown: without anything that opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Key {
    /// The part of the key that names it.
    pub public_id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// Its name, in usage and logs.
    pub label: String,
    /// `rk_live_…` rather than `rk_test_…`.
    pub live: bool,
    /// What it may do.
    pub scope: Scope,
    /// Until when the secret before the last rotation opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Instant>,
    /// When it was issued.
    pub created_at: Instant,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Instant>,
}

/// A key to be issued.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name, in usage and logs.
    pub label: String,
    /// `rk_live_…`, or `rk_test_…`. The difference is for people.
    #[serde(default = "yes")]
    pub live: bool,
    /// What it may do.
    #[serde(default)]
    pub scope: Scope,
}

/// What of a key is to be changed; what is not given stays.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditKey {
    /// Its name, in usage and logs.
    pub label: Option<String>,
    /// What it may do, whole.
    pub scope: Option<Scope>,
}

/// How a key is to be rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateKey {
    /// How long the old secret opens beside the new one, ms. 0: not at all. Default: a day; at most 30.
    #[schemars(range(min = 0, max = 2_592_000_000_i64))]
    pub overlap_ms: Option<i64>,
}

/// A key with its secret. The only time it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IssuedKey {
    /// The key as it will be shown.
    pub key: Key,
    /// The whole key. Give it to its owner now: it is kept nowhere.
    pub secret: String,
}

row! {
    struct Row {
        public_id: String,
        tenant_id: String,
        label: String,
        live: i64,
        previous_until: Option<i64>,
        scope_json: String,
        created_at: i64,
        revoked_at: Option<i64>,
    }
}

impl Row {
    fn shown(self) -> Result<Key, Error> {
        Ok(Key {
            public_id: self.public_id,
            tenant_id: self.tenant_id,
            label: self.label,
            live: self.live != 0,
            scope: serde_json::from_str(&self.scope_json)?,
            previous_until: self.previous_until.map(Instant),
            created_at: Instant(self.created_at),
            revoked_at: self.revoked_at.map(Instant),
        })
    }
}

fn yes() -> bool {
    true
}

fn object(public_id: &str) -> String {
    format!("key:{public_id}")
}

fn random() -> Result<[u8; RANDOM_BYTES], Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| Error::internal("asking the machine for random bytes", error))?;
    Ok(random)
}

/// Issues a key.
pub async fn issue(change: &mut Change, tenant_id: &str, new: &NewKey) -> Result<IssuedKey, Error> {
    tenants::living(change.sql(), tenant_id).await?;
    text::label("label", &new.label)?;
    check_scope(&new.scope)?;
    let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1 AND revoked_at IS NULL")
        .bind(tenant_id.to_owned())
        .fetch_one(change.sql())
        .await?;
    if open >= KEYS_MAX {
        return Err(Error::conflict(format!("the tenant has {KEYS_MAX} keys; revoke one first")));
    }
    let secret = Secret::from_random(new.live, &random()?);
    let now_ms = change.now_ms();
    sqlx::query(
        "INSERT INTO api_keys (public_id, tenant_id, label, live, hash, scope_json, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(secret.public_id.clone())
    .bind(tenant_id.to_owned())
    .bind(new.label.clone())
    .bind(i64::from(new.live))
    .bind(secret.hash.clone())
    .bind(serde_json::to_string(&new.scope)?)
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    let key = settled(change, "key.issue", tenant_id, &secret.public_id, None).await?;
    Ok(IssuedKey { key, secret: secret.expose().to_owned() })
}

/// Changes what it is called and what it may do.
pub async fn edit(change: &mut Change, tenant_id: &str, public_id: &str, edit: &EditKey) -> Result<Key, Error> {
    let before = open(change.sql(), tenant_id, public_id).await?;
    let label = edit.label.as_ref().unwrap_or(&before.label);
    let scope = edit.scope.as_ref().unwrap_or(&before.scope);
    text::label("label", label)?;
    check_scope(scope)?;
    sqlx::query("UPDATE api_keys SET label = $2, scope_json = $3 WHERE public_id = $1")
        .bind(public_id.to_owned())
        .bind(label.clone())
        .bind(serde_json::to_string(scope)?)
        .execute(change.sql())
        .await?;
    settled(change, "key.edit", tenant_id, public_id, Some(before)).await
}

/// Gives it a new secret; the old one opens a while longer. A secret still in its overlap is cut off.
pub async fn rotate(
    change: &mut Change,
    tenant_id: &str,
    public_id: &str,
    rotate: &RotateKey,
) -> Result<IssuedKey, Error> {
    let before = open(change.sql(), tenant_id, public_id).await?;
    let overlap_ms = rotate.overlap_ms.unwrap_or(OVERLAP_MS);
    if !(0..=OVERLAP_MS_MAX).contains(&overlap_ms) {
        return Err(Error::invalid(format!("overlap_ms is from 0 to {OVERLAP_MS_MAX}, 30 days")));
    }
    let secret = Secret::rotated(before.live, public_id, &random()?)
        .ok_or_else(|| Error::internal("rotating a key", "its public id does not have the form"))?;
    let until = (overlap_ms > 0).then(|| change.now_ms().saturating_add(overlap_ms));
    sqlx::query(
        "UPDATE api_keys SET previous_hash = CASE WHEN $3 = 1 THEN hash ELSE NULL END, previous_until = $4, hash = $2
         WHERE public_id = $1",
    )
    .bind(public_id.to_owned())
    .bind(secret.hash.clone())
    .bind(i64::from(until.is_some()))
    .bind(until)
    .execute(change.sql())
    .await?;
    let key = settled(change, "key.rotate", tenant_id, public_id, Some(before)).await?;
    Ok(IssuedKey { key, secret: secret.expose().to_owned() })
}

/// Ends it at once, its overlap too. There is no way back.
pub async fn revoke(change: &mut Change, tenant_id: &str, public_id: &str) -> Result<Key, Error> {
    let before = open(change.sql(), tenant_id, public_id).await?;
    let now_ms = change.now_ms();
    sqlx::query(
        "UPDATE api_keys SET revoked_at = $2, previous_hash = NULL, previous_until = NULL WHERE public_id = $1",
    )
    .bind(public_id.to_owned())
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    settled(change, "key.revoke", tenant_id, public_id, Some(before)).await
}

async fn settled(
    change: &mut Change,
    action: &'static str,
    tenant_id: &str,
    public_id: &str,
    before: Option<Key>,
) -> Result<Key, Error> {
    change.touched(Subject::Tenant(tenant_id)).await?;
    let after = get(change.sql(), tenant_id, public_id).await?;
    change.audit(action, &object(public_id), before.as_ref(), Some(&after)).await?;
    Ok(after)
}

/// A key of this tenant, also a revoked one.
pub async fn get(sql: &mut AnyConnection, tenant_id: &str, public_id: &str) -> Result<Key, Error> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM api_keys WHERE public_id = $1 AND tenant_id = $2")
        .bind(public_id.to_owned())
        .bind(tenant_id.to_owned())
        .fetch_optional(sql)
        .await?;
    row.ok_or_else(|| Error::not_found("key", public_id))?.shown()
}

async fn open(sql: &mut AnyConnection, tenant_id: &str, public_id: &str) -> Result<Key, Error> {
    let key = get(sql, tenant_id, public_id).await?;
    if key.revoked_at.is_some() {
        return Err(Error::conflict(format!("the key \"{public_id}\" is revoked; issue another one")));
    }
    Ok(key)
}

/// A tenant's keys by public id, revoked ones too.
pub async fn list(sql: &mut AnyConnection, tenant_id: &str, page: &Page) -> Result<List<Key>, Error> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM api_keys WHERE tenant_id = $1 AND public_id > $2 ORDER BY public_id LIMIT $3")
            .bind(tenant_id.to_owned())
            .bind(page.after.clone())
            .bind(page.rows())
            .fetch_all(sql)
            .await?;
    let keys = rows.into_iter().map(Row::shown).collect::<Result<_, _>>()?;
    Ok(List::of(keys, page, |key: &Key| key.public_id.clone()))
}

fn check_scope(scope: &Scope) -> Result<(), Error> {
    let limits = [
        ("calls_per_minute", scope.calls_per_minute, Some(Shadowed::CallsPerMinute)),
        ("calls_per_month", scope.calls_per_month, Some(Shadowed::CallsPerMonth)),
        ("calls_in_flight", scope.calls_in_flight, Some(Shadowed::CallsInFlight)),
        ("tokens_per_month", scope.tokens_per_month, Some(Shadowed::TokensPerMonth)),
        ("tokens_per_call", scope.tokens_per_call, None),
        ("conversations_per_month", None, Some(Shadowed::ConversationsPerMonth)),
    ];
    for (name, limit, shadowed) in limits {
        if limit == Some(0) {
            return Err(Error::invalid(format!("scope.{name} is at least 1; to close a key, revoke it")));
        }
        if limit.is_none() && shadowed.is_some_and(|shadowed| scope.shadow.contains(&shadowed)) {
            return Err(Error::invalid(format!("scope.shadow names {name}, and the key has no such limit of its own")));
        }
    }
    if scope.calls_per_minute.is_some_and(|calls| u32::try_from(calls).is_err()) {
        return Err(Error::invalid(format!("scope.calls_per_minute is at most {}", u32::MAX)));
    }
    text::models("scope.models", scope.models.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
