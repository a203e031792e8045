//! `/v1/admin/plans`: what is sold, and its versions.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use relais_policies::Plan;

use crate::Billing;
use crate::api::extract::PageParams;
use crate::api::write::ok;
use crate::api::{Answer, Api, Operation, Params, Write, read_page};
use crate::catalog::{self, PlanVersion};
use crate::config::Role;
use crate::error::Error;
use crate::page::List;

pub(super) fn routes(api: Api) -> Api {
    api.add(
        Operation::get("/v1/admin/plans", Role::Viewer, "The plans sold now, each in its last version.")
            .query::<PageParams>()
            .gives::<List<PlanVersion>>(),
        list,
    )
    .add(
        Operation::post(
            "/v1/admin/plans",
            Role::Owner,
            "Add a version of a plan; it must carry the next number. Tenants keep the version they hold.",
        )
        .body::<Plan>()
        .creates::<PlanVersion>(),
        add,
    )
    .add(
        Operation::get("/v1/admin/plans/{code}", Role::Viewer, "A plan's last version.").gives::<PlanVersion>(),
        latest,
    )
    .add(
        Operation::get("/v1/admin/plans/{code}/{version}", Role::Viewer, "One version of a plan.")
            .gives::<PlanVersion>(),
        version,
    )
}

async fn list(State(billing): State<Arc<Billing>>, Params(params): Params<PageParams>) -> Answer {
    let page = read_page(&billing, params.after, params.limit)?;
    let mut read = billing.store.read().await?;
    ok(&catalog::list(&mut read, &page).await?)
}

async fn add(State(billing): State<Arc<Billing>>, write: Write<Plan>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let added = catalog::add(&mut change, &write.body).await?;
    write.answer(change, StatusCode::CREATED, &added).await
}

async fn latest(State(billing): State<Arc<Billing>>, Path(code): Path<String>) -> Answer {
    let mut read = billing.store.read().await?;
    let found = catalog::latest(&mut read, &code).await?;
    ok(&found.ok_or_else(|| Error::not_found("plan", &code))?)
}

async fn version(State(billing): State<Arc<Billing>>, Path((code, version)): Path<(String, String)>) -> Answer {
    let missing = || Error::not_found("plan", &format!("{code}/{version}"));
    let number = version.parse().map_err(|_| missing())?;
    let mut read = billing.store.read().await?;
    ok(&catalog::version(&mut read, &code, number).await?.ok_or_else(missing)?)
}
