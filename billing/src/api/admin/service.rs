//! The sidecar itself: who I am to it, what was done and by whom, and sealing secrets anew.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Billing;
use crate::api::write::ok;
use crate::api::{Answer, Api, Caller, Nothing, Operation, Params, Write, read_page};
use crate::audit;
use crate::config::Role;
use crate::error::{Error, Reason};
use crate::page::List;
use crate::reseal;

/// Who asks, and whom.
#[derive(Debug, Serialize, JsonSchema)]
struct Me {
    /// The token's name.
    name: String,
    /// Its role.
    role: Role,
    /// The life of this database.
    epoch: String,
    /// The last policy revision.
    rev: i64,
    /// The program's version.
    version: &'static str,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AuditParams {
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many items.
    #[schemars(range(min = 1))]
    limit: Option<u32>,
    /// Only what was done to this object, such as `tenant:acme`.
    object: Option<String>,
}

pub(super) fn routes(api: Api) -> Api {
    api.add(Operation::get("/v1/admin/me", Role::Viewer, "Who I am here.").gives::<Me>(), me)
        .add(
            Operation::get("/v1/admin/audit", Role::Viewer, "What was done, newest first.")
                .query::<AuditParams>()
                .gives::<List<audit::Entry>>(),
            list_audit,
        )
        .add(
            Operation::get("/v1/admin/audit/verify", Role::Viewer, "Whether the audit trail is whole.")
                .gives::<audit::Verdict>(),
            verify_audit,
        )
        .add(
            Operation::post("/v1/admin/secrets/rotate", Role::Owner, "Seal all secrets with the first configured key.")
                .body::<Nothing>()
                .gives::<reseal::Resealed>(),
            rotate,
        )
}

async fn me(State(billing): State<Arc<Billing>>, Extension(caller): Extension<Caller>) -> Answer {
    ok(&Me {
        name: caller.name.as_ref().to_owned(),
        role: caller.role,
        epoch: billing.store.epoch.clone(),
        rev: *billing.store.revisions().borrow(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

async fn list_audit(State(billing): State<Arc<Billing>>, Params(params): Params<AuditParams>) -> Answer {
    let page = read_page(&billing, params.after, params.limit)?;
    let before = match page.after.as_str() {
        "" => None,
        cursor => Some(
            cursor
                .parse()
                .map_err(|_| Error::new(Reason::Malformed, "after is not the next of a page of this list"))?,
        ),
    };
    let mut read = billing.store.read().await?;
    let entries = audit::list(&mut read, params.object.as_deref(), before, page.rows()).await?;
    ok(&List::of(entries, &page, |entry: &audit::Entry| entry.seq.to_string()))
}

async fn verify_audit(State(billing): State<Arc<Billing>>) -> Answer {
    let mut read = billing.store.read().await?;
    ok(&audit::verify(&mut read).await?)
}

async fn rotate(State(billing): State<Arc<Billing>>, write: Write<Nothing>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let resealed = reseal::all(&mut change).await?;
    write.answer(change, StatusCode::OK, &resealed).await
}
