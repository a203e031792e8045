//! `/v1/admin/agents`: the AI agents that channels may name.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;

use crate::Billing;
use crate::agents::{self, Agent, Body};
use crate::api::extract::PageParams;
use crate::api::write::ok;
use crate::api::{Answer, Api, Nothing, Operation, Params, Write, read_page};
use crate::config::Role;
use crate::page::List;

pub(super) fn routes(api: Api) -> Api {
    api.add(
        Operation::get("/v1/admin/agents", Role::Viewer, "AI agents by id.")
            .query::<PageParams>()
            .gives::<List<Agent>>(),
        list,
    )
    .add(Operation::get("/v1/admin/agents/{agent}", Role::Viewer, "One AI agent.").gives::<Agent>(), get)
    .add(
        Operation::put("/v1/admin/agents/{agent}", Role::Operator, "Make it, or make it anew.")
            .body::<Body>()
            .gives::<Agent>(),
        set,
    )
    .add(
        Operation::delete("/v1/admin/agents/{agent}", Role::Operator, "Take it away; no channel may name it.")
            .gives::<Agent>(),
        remove,
    )
}

async fn list(State(billing): State<Arc<Billing>>, Params(params): Params<PageParams>) -> Answer {
    let page = read_page(&billing, params.after, params.limit)?;
    let mut read = billing.store.read().await?;
    ok(&agents::list(&mut read, &page).await?)
}

async fn get(State(billing): State<Arc<Billing>>, Path(id): Path<String>) -> Answer {
    let mut read = billing.store.read().await?;
    ok(&agents::get(&mut read, &id).await?)
}

async fn set(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<Body>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let agent = agents::set(&mut change, &id, &write.body).await?;
    write.answer(change, StatusCode::OK, &agent).await
}

async fn remove(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<Nothing>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let agent = agents::remove(&mut change, &id).await?;
    write.answer(change, StatusCode::OK, &agent).await
}
