//! Rotating the key that seals: everything sealed with an older one is opened and sealed again.
//!
//! One change, so either all of it is done or none. The new key stands in front in the configuration before, the old one
//! behind it; when this has run, the old one may go. A table that keeps something sealed is named in `TABLES`.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::AssertSqlSafe;

use crate::error::Error;
use crate::store::Change;

/// Table, column of the id, sealed column, and the place a row is sealed to: the prefix before its id.
const TABLES: &[(&str, &str, &str, &str)] = &[("channels", "id", "secrets_sealed", "channels/")];

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Resealed {
    /// The id of the key that seals.
    pub key: String,
    /// Secrets that were sealed with another one.
    pub resealed: u64,
    /// Secrets that were sealed with it already.
    pub current: u64,
}

/// Seals everything with the key that seals now. Stored answers to repeated requests are forgotten rather than kept.
pub async fn all(change: &mut Change) -> Result<Resealed, Error> {
    let mut done = Resealed { key: change.vault().current().to_owned(), resealed: 0, current: 0 };
    for (table, id, column, prefix) in TABLES {
        let rows: Vec<(String, String)> =
            sqlx::query_as(AssertSqlSafe(format!("SELECT {id}, {column} FROM {table} ORDER BY {id}")))
                .fetch_all(change.sql())
                .await?;
        for (row, sealed) in rows {
            if change.vault().is_current(&sealed) {
                done.current += 1;
                continue;
            }
            let place = format!("{prefix}{row}");
            let anew = change.vault().seal(&place, &change.vault().open(&place, &sealed)?)?;
            sqlx::query(AssertSqlSafe(format!("UPDATE {table} SET {column} = $2 WHERE {id} = $1")))
                .bind(row)
                .bind(anew)
                .execute(change.sql())
                .await?;
            done.resealed += 1;
        }
    }
    sqlx::query("DELETE FROM idempotency").execute(change.sql()).await?;
    change.audit("secrets.rotate", "secrets", None, Some(&done)).await?;
    Ok(done)
}
