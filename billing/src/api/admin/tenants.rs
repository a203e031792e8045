//! `/v1/admin/tenants`: who they are, what they hold, what their contract changes.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use relais_policies::Status;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Billing;
use crate::api::write::ok;
use crate::api::{Answer, Api, Nothing, Operation, Params, Write, read_page};
use crate::catalog;
use crate::config::Role;
use crate::page::List;
use crate::tenants::overrides::{self, Override, SetOverride};
use crate::tenants::plans::{self, SetPlan};
use crate::tenants::{self, EditTenant, NewTenant, Tenant};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ListParams {
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many items.
    #[schemars(range(min = 1))]
    limit: Option<u32>,
    /// Deleted ones too.
    deleted: bool,
}

pub(super) fn routes(api: Api) -> Api {
    let api = api
        .add(
            Operation::get("/v1/admin/tenants", Role::Viewer, "Tenants by id.")
                .query::<ListParams>()
                .gives::<List<Tenant>>(),
            list,
        )
        .add(
            Operation::post("/v1/admin/tenants", Role::Operator, "Make a tenant.")
                .body::<NewTenant>()
                .creates::<Tenant>(),
            create,
        )
        .add(Operation::get("/v1/admin/tenants/{tenant}", Role::Viewer, "One tenant.").gives::<Tenant>(), get)
        .add(
            Operation::patch("/v1/admin/tenants/{tenant}", Role::Operator, "Change who it is.")
                .body::<EditTenant>()
                .gives::<Tenant>(),
            edit,
        )
        .add(
            Operation::delete(
                "/v1/admin/tenants/{tenant}",
                Role::Owner,
                "End it: keys revoked, channels gone, name and address erased; its books stay.",
            )
            .gives::<Tenant>(),
            delete,
        )
        .add(
            Operation::post("/v1/admin/tenants/{tenant}/suspend", Role::Operator, "Serve it no longer.")
                .body::<Nothing>()
                .gives::<Tenant>(),
            suspend,
        )
        .add(
            Operation::post("/v1/admin/tenants/{tenant}/resume", Role::Operator, "Serve it again.")
                .body::<Nothing>()
                .gives::<Tenant>(),
            resume,
        );
    contract(api)
}

fn contract(api: Api) -> Api {
    api.add(
        Operation::put(
            "/v1/admin/tenants/{tenant}/plans/{family}",
            Role::Operator,
            "Put it on a plan of this family (app, api, chatwoot, selfhosted), in place of the one it holds.",
        )
        .body::<SetPlan>()
        .gives::<Tenant>(),
        set_plan,
    )
    .add(
        Operation::delete(
            "/v1/admin/tenants/{tenant}/plans/{family}",
            Role::Operator,
            "Take it off the plan of this family: it falls to what is free there, or to nothing.",
        )
        .gives::<Tenant>(),
        end_plan,
    )
    .add(
        Operation::get("/v1/admin/tenants/{tenant}/overrides", Role::Viewer, "What its contract changes.")
            .gives::<List<Override>>(),
        list_overrides,
    )
    .add(
        Operation::put("/v1/admin/tenants/{tenant}/overrides/{path}", Role::Operator, "Change a limit by contract.")
            .body::<SetOverride>()
            .gives::<Override>(),
        set_override,
    )
    .add(
        Operation::delete(
            "/v1/admin/tenants/{tenant}/overrides/{path}",
            Role::Operator,
            "Let the plans say what they say.",
        )
        .gives::<Override>(),
        remove_override,
    )
}

async fn list(State(billing): State<Arc<Billing>>, Params(params): Params<ListParams>) -> Answer {
    let page = read_page(&billing, params.after, params.limit)?;
    let mut read = billing.store.read().await?;
    ok(&tenants::list(&mut read, &page, params.deleted).await?)
}

async fn create(State(billing): State<Arc<Billing>>, write: Write<NewTenant>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let tenant = tenants::create(&mut change, &write.body).await?;
    write.answer(change, StatusCode::CREATED, &tenant).await
}

async fn get(State(billing): State<Arc<Billing>>, Path(id): Path<String>) -> Answer {
    let mut read = billing.store.read().await?;
    ok(&tenants::get(&mut read, &id).await?)
}

async fn edit(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<EditTenant>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let tenant = tenants::edit(&mut change, &id, &write.body).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn delete(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<Nothing>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let tenant = tenants::delete(&mut change, &id).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn suspend(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<Nothing>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let tenant = tenants::set_status(&mut change, &id, Status::Suspended).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn resume(State(billing): State<Arc<Billing>>, Path(id): Path<String>, write: Write<Nothing>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let tenant = tenants::set_status(&mut change, &id, Status::Active).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn set_plan(
    State(billing): State<Arc<Billing>>,
    Path((id, family)): Path<(String, String)>,
    write: Write<SetPlan>,
) -> Answer {
    let family = catalog::family(&family)?;
    let mut change = write.begin(&billing).await?;
    let tenant = plans::set(&mut change, &id, family, &write.body).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn end_plan(
    State(billing): State<Arc<Billing>>,
    Path((id, family)): Path<(String, String)>,
    write: Write<Nothing>,
) -> Answer {
    let family = catalog::family(&family)?;
    let mut change = write.begin(&billing).await?;
    let tenant = plans::end(&mut change, &id, family).await?;
    write.answer(change, StatusCode::OK, &tenant).await
}

async fn list_overrides(State(billing): State<Arc<Billing>>, Path(id): Path<String>) -> Answer {
    let mut read = billing.store.read().await?;
    tenants::get(&mut read, &id).await?;
    // As many as there are limits: no second page.
    ok(&List { items: overrides::list(&mut read, &id).await?, next: None })
}

async fn set_override(
    State(billing): State<Arc<Billing>>,
    Path((id, path)): Path<(String, String)>,
    write: Write<SetOverride>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let set = overrides::set(&mut change, &id, &path, &write.body).await?;
    write.answer(change, StatusCode::OK, &set).await
}

async fn remove_override(
    State(billing): State<Arc<Billing>>,
    Path((id, path)): Path<(String, String)>,
    write: Write<Nothing>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let removed = overrides::remove(&mut change, &id, &path).await?;
    write.answer(change, StatusCode::OK, &removed).await
}
