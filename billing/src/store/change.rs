//! One change of the database: a transaction with its author, its moment, its audit entries and its revision.
//!
//! Whoever changes something a gateway must hear of calls [`Change::touched`] with the subject; the new revision is
//! given inside the transaction, so it exists if and only if the change does. Whoever changes anything at all calls
//! [`Change::audit`]: entries form a chain of hashes, so one that is altered or missing shows.

use std::sync::Arc;

use serde::Serialize;
use sqlx::{Any, AnyConnection, Transaction};
use tokio::sync::watch;

use crate::audit;
use crate::error::Error;
use crate::vault::Vault;

/// Who makes a change, and on which occasion.
#[derive(Debug, Clone)]
pub struct Author {
    /// The token's name, or `system` or `command` for what nobody asked for over the API.
    pub actor: String,
    /// The request's id; empty where there is none.
    pub request_id: String,
}

/// What gateways hear of.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A tenant: its policy, keys and channels.
    Tenant(&'a str),
    /// An AI agent.
    Agent(&'a str),
}

/// A change being made. Dropped without [`Change::commit`] it has not happened.
#[derive(Debug)]
pub struct Change {
    transaction: Transaction<'static, Any>,
    author: Author,
    now_ms: i64,
    vault: Arc<Vault>,
    rev: Option<i64>,
    revisions: watch::Sender<i64>,
}

impl Author {
    /// What the sidecar does by itself.
    pub fn system() -> Self {
        Self { actor: "system".to_owned(), request_id: String::new() }
    }
}

impl Change {
    pub(super) fn new(
        transaction: Transaction<'static, Any>,
        author: Author,
        now_ms: i64,
        vault: Arc<Vault>,
        revisions: watch::Sender<i64>,
    ) -> Self {
        Self { transaction, author, now_ms, vault, rev: None, revisions }
    }

    /// The connection, for statements: `.execute(change.sql())`.
    pub fn sql(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The moment of this change, Unix ms: one for all that it writes.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Who makes it.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// The tenants' secrets are sealed and opened with this.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Tells the gateways that this subject is not what it was. Gives the change's revision: all subjects touched by
    /// one change get revisions of their own, in the order of the calls.
    pub async fn touched(&mut self, subject: Subject<'_>) -> Result<i64, Error> {
        self.note(subject, "put").await
    }

    /// Tells the gateways that this subject is gone.
    pub async fn removed(&mut self, subject: Subject<'_>) -> Result<i64, Error> {
        self.note(subject, "delete").await
    }

    async fn note(&mut self, subject: Subject<'_>, op: &'static str) -> Result<i64, Error> {
        let subject = match subject {
            Subject::Tenant(id) => format!("tenant:{id}"),
            Subject::Agent(id) => format!("agent:{id}"),
        };
        let rev: i64 =
            sqlx::query_scalar("UPDATE revision SET rev = rev + 1 RETURNING rev").fetch_one(self.sql()).await?;
        let now_ms = self.now_ms;
        sqlx::query(
            "INSERT INTO policy_changes (rev, subject, op, at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (subject) DO UPDATE SET rev = excluded.rev, op = excluded.op, at = excluded.at",
        )
        .bind(rev)
        .bind(subject)
        .bind(op)
        .bind(now_ms)
        .execute(self.sql())
        .await?;
        self.rev = Some(rev);
        Ok(rev)
    }

    /// Writes down what was done to which object. Nothing secret may be in `before` and `after`.
    pub async fn audit<T: Serialize>(
        &mut self,
        action: &'static str,
        object: &str,
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<(), Error> {
        let text = |value: Option<&T>| value.map(serde_json::to_string).transpose();
        let (before, after) = (text(before)?, text(after)?);
        let Author { actor, request_id } = self.author.clone();
        let at = self.now_ms;
        audit::append(self.sql(), audit::NewEntry { at, actor, action, object, request_id, before, after }).await
    }

    /// Makes it so. Those who wait for a revision are told once it is on disk.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        if let Some(rev) = self.rev {
            self.revisions.send_replace(rev);
        }
        Ok(())
    }
}
