//! The HTTP API: one table of operations, from which both the router and the OpenAPI document are made.
//!
//! An operation cannot be added without its role, its summary and the shapes of what it takes and gives, so nothing is
//! reachable that is not described, and nobody can forget to ask who asks. A request's way:
//!
//! 1. `edge` gives it an id, a deadline and a metric, and turns an [`Error`] into problem+json.
//! 2. `auth` knows the token and refuses a role that may not.
//! 3. `extract` reads query and body within bounds.
//! 4. A read opens [`Store::read`](crate::store::Store::read); a write begins with [`write::Write::begin`], which
//!    knows repeated requests, and ends with [`write::Write::answer`], which commits.
//!
//! To add operations, write a module with a `routes(Api) -> Api` and name it in [`routes`].

mod admin;
mod auth;
mod edge;
mod extract;
mod openapi;
mod operation;
mod ops;
mod problem;
mod write;

pub use self::auth::Caller;
pub use self::extract::{Body, Params, read_page};
pub use self::openapi::document;
pub use self::operation::{Api, Operation};
pub use self::problem::Stop;
pub use self::write::{Nothing, Write};

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Response;

use crate::Billing;
use crate::error::{Error, Reason};

/// What a handler ends in.
pub type Answer = Result<Response, Stop>;

/// Every operation.
pub fn routes() -> Api {
    admin::routes(Api::default())
}

/// The API as it is served.
pub fn router(billing: &Arc<Billing>) -> Router {
    routes()
        .into_router(billing)
        .route("/openapi.json", axum::routing::get(openapi::serve))
        .fallback(async || Stop::from(Error::new(Reason::UnknownRoute, "see GET /openapi.json for what there is")))
        .method_not_allowed_fallback(async || {
            Stop::from(Error::new(Reason::MethodNotAllowed, "the Allow header names those it takes"))
        })
        .layer(DefaultBodyLimit::max(billing.limits.body_bytes_max))
        .layer(from_fn_with_state(Arc::clone(billing), edge::request))
        .with_state(Arc::clone(billing))
}

/// Metrics and health, on an address of their own.
pub fn ops_router(billing: &Arc<Billing>) -> Router {
    ops::router().with_state(Arc::clone(billing))
}
