//! One operation of the API, described and served from the same lines.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, on};
use http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::auth;
use crate::Billing;
use crate::config::Role;

/// Makes the schema of one type, its parts among the generator's definitions.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an operation is, for whom, and what it takes and gives.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) summary: &'static str,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: (StatusCode, Option<SchemaOf>),
}

/// The table, being filled.
#[derive(Default)]
pub struct Api {
    router: Router<Arc<Billing>>,
    operations: Vec<(Operation, Mount)>,
}

type Mount = Box<dyn FnOnce(Router<Arc<Billing>>, &Arc<Billing>) -> Router<Arc<Billing>>>;

impl Operation {
    /// One that only reads.
    pub fn get(path: &'static str, role: Role, summary: &'static str) -> Self {
        Self::new(Method::GET, path, role, summary)
    }

    /// One that makes something, or does something.
    pub fn post(path: &'static str, role: Role, summary: &'static str) -> Self {
        Self::new(Method::POST, path, role, summary)
    }

    /// One that sets something to what is given.
    pub fn put(path: &'static str, role: Role, summary: &'static str) -> Self {
        Self::new(Method::PUT, path, role, summary)
    }

    /// One that changes a part of something.
    pub fn patch(path: &'static str, role: Role, summary: &'static str) -> Self {
        Self::new(Method::PATCH, path, role, summary)
    }

    /// One that takes something away.
    pub fn delete(path: &'static str, role: Role, summary: &'static str) -> Self {
        Self::new(Method::DELETE, path, role, summary)
    }

    fn new(method: Method, path: &'static str, role: Role, summary: &'static str) -> Self {
        Self { method, path, role, summary, query: None, body: None, answer: (StatusCode::OK, None) }
    }

    /// Takes these parameters after the `?`.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Takes this body.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Gives this, with 200.
    #[must_use]
    pub fn gives<T: JsonSchema>(mut self) -> Self {
        self.answer.1 = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Gives this, with 201.
    #[must_use]
    pub fn creates<T: JsonSchema>(self) -> Self {
        let mut operation = self.gives::<T>();
        operation.answer.0 = StatusCode::CREATED;
        operation
    }

    /// Whether it changes something, and so knows an `Idempotency-Key`.
    pub(super) fn writes(&self) -> bool {
        self.method != Method::GET
    }
}

impl Api {
    /// Adds an operation and what serves it.
    #[must_use]
    pub fn add<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Arc<Billing>>,
        T: 'static,
    {
        // The methods of the constructors above are all known to axum.
        let filter = MethodFilter::try_from(operation.method.clone()).unwrap_or(MethodFilter::GET);
        let (path, role) = (operation.path, operation.role);
        let mount: Mount = Box::new(move |router, billing| {
            let guard = from_fn_with_state((Arc::clone(billing), role), auth::require);
            router.route(path, on(filter, handler).route_layer(guard))
        });
        self.operations.push((operation, mount));
        self
    }

    /// The descriptions.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().map(|(operation, _)| operation)
    }

    pub(super) fn into_router(self, billing: &Arc<Billing>) -> Router<Arc<Billing>> {
        self.operations.into_iter().fold(self.router, |router, (_, mount)| mount(router, billing))
    }
}
