//! `/metrics`, `/livez`, `/readyz`: for machines that watch, on an address of their own, without a token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::time::timeout;

use crate::Billing;

/// A database that takes longer is no database to send requests to.
const PING_DEADLINE: Duration = Duration::from_secs(2);

pub(super) fn router() -> Router<Arc<Billing>> {
    Router::new().route("/metrics", get(metrics)).route("/livez", get(async || "alive\n")).route("/readyz", get(ready))
}

async fn metrics(State(billing): State<Arc<Billing>>) -> Response {
    billing.metrics.revision.set(*billing.store.revisions().borrow());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], billing.metrics.text()).into_response()
}

async fn ready(State(billing): State<Arc<Billing>>) -> Response {
    let not = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if billing.is_draining() {
        return not("draining\n");
    }
    match timeout(PING_DEADLINE, billing.store.ping()).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(_)) | Err(_) => not("the database does not answer\n"),
    }
}
