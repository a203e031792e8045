//! `/v1/admin/tenants/{tenant}/channels`: the Chatwoots in which agents answer.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;

use crate::Billing;
use crate::api::extract::PageParams;
use crate::api::write::ok;
use crate::api::{Answer, Api, Nothing, Operation, Params, Write, read_page};
use crate::channels::{self, Channel, ConnectedChannel, EditChannel, NewChannel};
use crate::config::Role;
use crate::page::List;
use crate::tenants;

pub(super) fn routes(api: Api) -> Api {
    api.add(
        Operation::get("/v1/admin/tenants/{tenant}/channels", Role::Viewer, "Its channels.")
            .query::<PageParams>()
            .gives::<List<Channel>>(),
        list,
    )
    .add(
        Operation::post(
            "/v1/admin/tenants/{tenant}/channels",
            Role::Operator,
            "Connect a Chatwoot. The answer has its unguessable address; it is shown this once.",
        )
        .body::<NewChannel>()
        .creates::<ConnectedChannel>(),
        connect,
    )
    .add(
        Operation::get("/v1/admin/tenants/{tenant}/channels/{channel}", Role::Viewer, "One channel.")
            .gives::<Channel>(),
        get,
    )
    .add(
        Operation::patch(
            "/v1/admin/tenants/{tenant}/channels/{channel}",
            Role::Operator,
            "Change who answers, when a human takes over, or the tokens.",
        )
        .body::<EditChannel>()
        .gives::<Channel>(),
        edit,
    )
    .add(
        Operation::delete("/v1/admin/tenants/{tenant}/channels/{channel}", Role::Operator, "Disconnect it.")
            .gives::<Channel>(),
        remove,
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
    ok(&channels::list(&mut read, &tenant, &page).await?)
}

async fn connect(State(billing): State<Arc<Billing>>, Path(tenant): Path<String>, write: Write<NewChannel>) -> Answer {
    let mut change = write.begin(&billing).await?;
    let connected = channels::connect(&mut change, &tenant, &write.body).await?;
    write.answer(change, StatusCode::CREATED, &connected).await
}

async fn get(State(billing): State<Arc<Billing>>, Path((tenant, channel)): Path<(String, String)>) -> Answer {
    let mut read = billing.store.read().await?;
    ok(&channels::get(&mut read, &tenant, &channel).await?)
}

async fn edit(
    State(billing): State<Arc<Billing>>,
    Path((tenant, channel)): Path<(String, String)>,
    write: Write<EditChannel>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let channel = channels::edit(&mut change, &tenant, &channel, &write.body).await?;
    write.answer(change, StatusCode::OK, &channel).await
}

async fn remove(
    State(billing): State<Arc<Billing>>,
    Path((tenant, channel)): Path<(String, String)>,
    write: Write<Nothing>,
) -> Answer {
    let mut change = write.begin(&billing).await?;
    let channel = channels::remove(&mut change, &tenant, &channel).await?;
    write.answer(change, StatusCode::OK, &channel).await
}
