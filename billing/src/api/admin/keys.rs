//! `/v1/admin/tenants/{tenant}/keys`: issued once, rotated with an overlap, revoked for good.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;

use crate::Billing;
use crate::api::extract::PageParams;
use crate::api::write::ok;
use crate::api::{Answer, Api, Nothing, Operation, Params, Write, read_page};
use crate::config::Role;
use crate::keys::{self, EditKey, IssuedKey, Key, NewKey, RotateKey};
use crate::page::List;
use crate::tenants;

pub(super) fn routes(api: Api) -> Api {
    api.add(
        Operation::get("/v1/admin/tenants/{tenant}/keys", Role::Viewer, "Its keys, revoked ones too.")
            .query::<PageParams>()
            .gives::<List<Key>>(),
        list,
    )
    .add(
        Operation::post(
            "/v1/admin/tenants/{tenant}/keys",
            Role::Operator,
            "Issue a key. The answer has the whole key; it is shown this once.",
        )
        .body::<NewKey>()
        .creates::<IssuedKey>(),
        issue,
    )
    .add(Operation::get("/v1/admin/tenants/{tenant}/keys/{key}", Role::Viewer, "One key.").gives::<Key>(), get)
    .add(
        Operation::patch("/v1/admin/tenants/{tenant}/keys/{key}", Role::Operator, "Change its label and scope.")
            .body::<EditKey>()
            .gives::<Key>(),
        edit,
    )
    .add(
        Operation::delete("/v1/admin/tenants/{tenant}/keys/{key}", Role::Operator, "Revoke it. There is no way back.")
            .gives::<Key>(),
        revoke,
    )
    .add(
        Operation::post(
            "/v1/admin/tenants/{tenant}/keys/{key}/rotate",
            Role::Operator,
            "Give it a new secret; the old one opens for overlap_ms more. The answer shows the new key this once.",
        )
        .body::<RotateKey>()
        .gives::<IssuedKey>(),
        rotate,
    )
}

async fn list(
    State(billing): State<Arc<Billing>>,
    Path(tenant): Path<String>,
    Params(params): Params<PageParams>,
) -> Answer {
    let page = read_page(&billing, params.after, params.limit)?;
    let mut read = billing.store.read().await?;
    tenants::get(&mut read, &tenant).await?;
    ok(&keys::list(&mut read, &tenant, &page).await?)
}

async fn issue(State(billing): State<Arc<Billing>>, Path(tenant): Path<String>, write: Write<NewKey>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let issued = keys::issue(&mut change, &tenant, &write.body).await?;
    write.answer(change, StatusCode::CREATED, &issued).await
}

async fn get(State(billing): State<Arc<Billing>>, Path((tenant, key)): Path<(String, String)>) -> Answer {
    let mut read = billing.store.read().await?;
    ok(&keys::get(&mut read, &tenant, &key).await?)
}

async fn edit(
    State(billing): State<Arc<Billing>>,
    Path((tenant, key)): Path<(String, String)>,
    write: Write<EditKey>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let key = keys::edit(&mut change, &tenant, &key, &write.body).await?;
    write.answer(change, StatusCode::OK, &key).await
}

async fn revoke(
    State(billing): State<Arc<Billing>>,
    Path((tenant, key)): Path<(String, String)>,
    write: Write<Nothing>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let key = keys::revoke(&mut change, &tenant, &key).await?;
    write.answer(change, StatusCode::OK, &key).await
}

async fn rotate(
    State(billing): State<Arc<Billing>>,
    Path((tenant, key)): Path<(String, String)>,
    write: Write<RotateKey>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let issued = keys::rotate(&mut change, &tenant, &key, &write.body).await?;
    write.answer(change, StatusCode::OK, &issued).await
}
