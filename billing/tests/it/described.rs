//! The OpenAPI document: well formed, complete, and what the server gives. Each answer in these tests is held against it
//! by `support`; here is what that cannot see.

use http::Method;
use serde_json::Value;

use crate::support::Sidecar;

#[tokio::test]
async fn the_document_is_served_to_anybody_and_is_the_one_the_tests_use() {
    let sidecar = Sidecar::start().await;
    let served = sidecar.ask(Method::GET, "/openapi.json").send().await.expect(200).json();
    assert_eq!(served, relais_billing::api::document());
    sidecar.stop().await;
}

#[test]
fn every_operation_says_what_it_takes_and_gives() {
    let document = relais_billing::api::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let said = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{said}");
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{said}");
            let in_path: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
            let parameters = operation["parameters"].as_array().unwrap();
            let described: Vec<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(in_path, described, "{said}");
            let knows_key = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            assert_eq!(knows_key, method != "get", "{said}");
            let takes_body = ["post", "put", "patch"].contains(&method.as_str());
            assert_eq!(operation.get("requestBody").is_some(), takes_body, "{said}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_field_is_explained() {
    let document = relais_billing::api::document();
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let explained = property.get("description").is_some() || property.get("$ref").is_some();
            assert!(explained || property.get("const").is_some(), "{name}.{field}: {property}");
        }
    }
}
