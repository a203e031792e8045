//! What surrounds every request: its id, its deadline, its metric, its one log line if it failed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use tokio::time::{Instant, timeout};
use tracing::{debug, error};
use uuid::Uuid;

use super::problem::{self, Stop};
use crate::Billing;
use crate::error::{Error, Reason};

/// A request's id: on its answer, in its log line, in the audit entries it made.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

pub(super) async fn request(State(billing): State<Arc<Billing>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = format!("req_{}", Uuid::now_v7().simple());
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let deadline = Duration::from_millis(billing.timeouts.request_ms);
    let mut response = timeout(deadline, next.run(request)).await.unwrap_or_else(|_| {
        Stop::from(Error::new(Reason::Timeout, "nothing was changed, unless a change was just being committed: ask"))
            .into_response()
    });
    if let Some(error) = response.extensions().get::<Arc<Error>>().cloned() {
        problem::fill(&mut response, &error, &id);
        if error.reason.is_ours() {
            error!(request_id = id, %method, route, error = error.causes(), doing = %error.detail, "Request failed.");
        } else {
            debug!(request_id = id, %method, route, code = error.reason.code(), "Request refused.");
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    billing.metrics.request(&method, &route, response.status(), started.elapsed());
    response
}
