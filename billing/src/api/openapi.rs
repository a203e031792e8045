//! `GET /openapi.json`: what this API is, for tools (OpenAPI 3.1).
//!
//! Made from the table of operations and from the types themselves, so it cannot say anything else than the server does;
//! the integration tests hold every answer against it. It needs no token: it tells what every reader of the source knows.

use axum::response::Response;
use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::problem::Problem;
use super::{routes, write};
use crate::config::Role;

pub(super) async fn serve() -> Response {
    write::json(StatusCode::OK, serde_json::to_vec(&document()).unwrap_or_default())
}

/// The document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in routes().operations() {
        let described = describe(operation, &mut generator);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(operation.method.as_str().to_lowercase(), described);
        }
    }
    generator.subschema_for::<Problem>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Relais billing sidecar",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tenants, plans, keys and channels. Writes know an Idempotency-Key; refusals are problem+json.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = names_in(operation.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = operation.query {
        let schema = query(generator);
        parameters.extend(query_parameters(&resolved(&schema, generator)));
    }
    if operation.writes() {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same request under the same key is done once, for a day.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        }));
    }
    let (status, answer) = operation.answer;
    let content = answer.map(|schema| json!({ "application/json": { "schema": schema(generator) } }));
    let problem = generator.subschema_for::<Problem>();
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "x-role": operation.role,
        "parameters": parameters,
        "responses": {
            status.as_str(): { "description": "Done.", "content": content.unwrap_or_else(|| json!({})) },
            "default": {
                "description": "Refused, or failed.",
                "content": { "application/problem+json": { "schema": problem } },
            },
        },
    });
    if let (Some(body), Value::Object(described)) = (operation.body, &mut described) {
        let schema = body(generator);
        described.insert("requestBody".to_owned(), json!({ "content": { "application/json": { "schema": schema } } }));
    }
    if operation.role == Role::Gateway
        && let Value::Object(described) = &mut described
    {
        described.insert("tags".to_owned(), json!(["gateway"]));
    }
    described
}

/// `post_v1_admin_tenants_id_keys` of `POST /v1/admin/tenants/{id}/keys`.
fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    std::iter::once(operation.method.as_str().to_lowercase())
        .chain(words.map(str::to_owned))
        .collect::<Vec<_>>()
        .join("_")
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The object a reference leads to.
fn resolved(schema: &Schema, generator: &SchemaGenerator) -> Value {
    let value = schema.as_value();
    let name = value.get("$ref").and_then(Value::as_str).and_then(|to| to.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name)).unwrap_or(value).clone()
}

fn query_parameters(schema: &Value) -> Vec<Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let parameter =
        |(name, schema): (&String, &Value)| json!({ "name": name, "in": "query", "required": false, "schema": schema });
    properties.into_iter().flatten().map(parameter).collect()
}
