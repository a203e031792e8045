//! Plans as they are sold, every version of each.
//!
//! What comes with the program is stored at start as the versions it names; an operator adds further ones. A version is
//! never changed: a tenant keeps the one it bought until it is moved (`plan` of [`crate::tenants`]). Packs stay in the
//! program's own catalogue: what was credited once does not change with it.

use relais_policies::{Catalog, Family, Plan};
use sqlx::AnyConnection;

use crate::error::Error;
use crate::instant::Instant;
use crate::page::{List, Page};
use crate::store::Change;
use schemars::JsonSchema;
use serde::Serialize;

/// A version of a plan.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanVersion {
    /// The plan.
    pub plan: Plan,
    /// Who added it: a token's name, or `system` for those that come with the program.
    pub author: String,
    /// When.
    pub created_at: Instant,
}

row! {
    struct Row {
        body_json: String,
        author: String,
        created_at: i64,
    }
}

impl Row {
    fn shown(self) -> Result<PlanVersion, Error> {
        let plan = serde_json::from_str(&self.body_json)?;
        Ok(PlanVersion { plan, author: self.author, created_at: Instant(self.created_at) })
    }
}

/// Stores the versions that come with the program. Gives the codes whose version is there with other content, because
/// an operator took the number first: the stored one stays.
pub async fn store_embedded(change: &mut Change, catalog: &Catalog) -> Result<Vec<String>, Error> {
    let mut differing = Vec::new();
    for plan in catalog.plans() {
        match version(change.sql(), plan.code.as_str(), plan.version).await? {
            Some(stored) if stored.plan == *plan => {}
            Some(_) => differing.push(plan.code.to_string()),
            None => insert(change, plan).await?,
        }
    }
    Ok(differing)
}

/// Adds a version. Its number must be the next one, so two operators do not write over each other.
pub async fn add(change: &mut Change, plan: &Plan) -> Result<PlanVersion, Error> {
    plan.check().map_err(|error| Error::invalid(error.to_string()))?;
    let code = plan.code.as_str();
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM plans WHERE code = $1")
        .bind(code.to_owned())
        .fetch_one(change.sql())
        .await?;
    let next = last.unwrap_or(0) + 1;
    if i64::from(plan.version) != next {
        return Err(Error::conflict(format!("the next version of \"{code}\" is {next}, not {}", plan.version)));
    }
    insert(change, plan).await?;
    Ok(PlanVersion { plan: plan.clone(), author: change.author().actor.clone(), created_at: Instant(change.now_ms()) })
}

async fn insert(change: &mut Change, plan: &Plan) -> Result<(), Error> {
    let family = plan.family().ok_or_else(|| Error::invalid("the plan belongs to no family"))?;
    let (author, now_ms) = (change.author().actor.clone(), change.now_ms());
    sqlx::query(
        "INSERT INTO plans (code, version, family, body_json, author, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(plan.code.to_string())
    .bind(i64::from(plan.version))
    .bind(family.to_string())
    .bind(serde_json::to_string(plan)?)
    .bind(author)
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    change.audit("plan.create", &format!("plan:{}@{}", plan.code, plan.version), None, Some(plan)).await
}

/// One version.
pub async fn version(sql: &mut AnyConnection, code: &str, version: u32) -> Result<Option<PlanVersion>, Error> {
    let row: Option<Row> =
        sqlx::query_as("SELECT body_json, author, created_at FROM plans WHERE code = $1 AND version = $2")
            .bind(code.to_owned())
            .bind(i64::from(version))
            .fetch_optional(sql)
            .await?;
    row.map(Row::shown).transpose()
}

/// The last version.
pub async fn latest(sql: &mut AnyConnection, code: &str) -> Result<Option<PlanVersion>, Error> {
    let row: Option<Row> =
        sqlx::query_as("SELECT body_json, author, created_at FROM plans WHERE code = $1 ORDER BY version DESC LIMIT 1")
            .bind(code.to_owned())
            .fetch_optional(sql)
            .await?;
    row.map(Row::shown).transpose()
}

/// The last version of every plan, by code.
pub async fn all_latest(sql: &mut AnyConnection) -> Result<Vec<Plan>, Error> {
    let bodies: Vec<String> = sqlx::query_scalar(
        "SELECT body_json FROM plans
         WHERE version = (SELECT MAX(version) FROM plans AS other WHERE other.code = plans.code) ORDER BY code",
    )
    .fetch_all(sql)
    .await?;
    Ok(bodies.iter().map(|body| serde_json::from_str(body)).collect::<Result<_, _>>()?)
}

/// The versions that hold now, by code.
pub async fn list(sql: &mut AnyConnection, page: &Page) -> Result<List<PlanVersion>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT body_json, author, created_at FROM plans WHERE code > $1
         AND version = (SELECT MAX(version) FROM plans AS other WHERE other.code = plans.code)
         ORDER BY code LIMIT $2",
    )
    .bind(page.after.clone())
    .bind(page.rows())
    .fetch_all(sql)
    .await?;
    let plans = rows.into_iter().map(Row::shown).collect::<Result<_, _>>()?;
    Ok(List::of(plans, page, |version: &PlanVersion| version.plan.code.to_string()))
}

/// A family by its name in an address.
pub fn family(name: &str) -> Result<Family, Error> {
    [Family::App, Family::Api, Family::Chatwoot, Family::SelfHosted]
        .into_iter()
        .find(|family| family.to_string() == name)
        .ok_or_else(|| Error::not_found("family", name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Author, Scratch};

    #[tokio::test]
    async fn versions_are_added_and_never_changed() {
        let scratch = Scratch::new().await;
        let mut change = scratch.store.change(Author::system()).await.unwrap();
        let catalog = Catalog::embedded();
        assert!(store_embedded(&mut change, catalog).await.unwrap().is_empty());
        // At every start again, without effect.
        assert!(store_embedded(&mut change, catalog).await.unwrap().is_empty());
        assert_eq!(all_latest(change.sql()).await.unwrap().len(), catalog.plans().count());

        let mut plan = catalog.plan("app.pro").unwrap().clone();
        plan.name = "Pro, dearer".to_owned();
        assert!(add(&mut change, &plan).await.unwrap_err().to_string().contains("next version of \"app.pro\" is 2"));
        plan.version = 2;
        add(&mut change, &plan).await.unwrap();
        assert_eq!(latest(change.sql(), "app.pro").await.unwrap().unwrap().plan, plan);
        let first = version(change.sql(), "app.pro", 1).await.unwrap().unwrap();
        assert_eq!((first.plan.name.as_str(), first.author.as_str()), ("Pro", "system"));

        // A number the program comes with later is the operator's.
        let mut shipped = catalog.plan("app.pro").unwrap().clone();
        shipped.version = 2;
        let shipped = Catalog::of([shipped]).unwrap();
        assert_eq!(store_embedded(&mut change, &shipped).await.unwrap(), ["app.pro"]);

        let first = list(change.sql(), &Page { after: String::new(), limit: 3 }).await.unwrap();
        let codes: Vec<&str> = first.items.iter().map(|item| item.plan.code.as_str()).collect();
        assert_eq!(codes, ["api.basic", "api.enterprise", "api.free"]);
        let next = list(change.sql(), &Page { after: first.next.unwrap(), limit: 300 }).await.unwrap();
        assert_eq!((next.items[0].plan.code.as_str(), next.next), ("api.pro", None));
        drop(change);
        scratch.close().await;
    }

    #[tokio::test]
    async fn a_plan_of_no_family_is_refused() {
        let scratch = Scratch::new().await;
        let mut change = scratch.store.change(Author::system()).await.unwrap();
        let mut plan = Catalog::embedded().plan("app.pro").unwrap().clone();
        plan.code = "gold.pro".into();
        assert!(add(&mut change, &plan).await.unwrap_err().to_string().contains("no family"));
        drop(change);
        scratch.close().await;
    }
}
