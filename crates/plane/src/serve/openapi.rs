//! The document that describes the API, made of the table of routes and the wire types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::routes::{self, Route};
use crate::access::Demand;

/// OpenAPI 3.1, as text. The same code gives the same bytes.
pub fn document() -> String {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<api::Problem>();
    let mut paths = serde_json::Map::new();
    for route in routes::all() {
        let operation = operation(route, &mut generator, problem.as_value());
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation;
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {"title": "Collective plane", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    });
    serde_json::to_string_pretty(&document).expect("a value is always JSON") + "\n"
}

fn operation(route: &Route, generator: &mut schemars::SchemaGenerator, problem: &Value) -> Value {
    let mut operation = json!({"summary": route.does});
    let mut parameters: Vec<Value> = Vec::new();
    for rest in route.path.split('{').skip(1) {
        let name = rest.split('}').next().unwrap_or_default();
        parameters.push(
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
        );
    }
    if route.conditional {
        parameters.push(json!({"name": "If-Match", "in": "header", "schema": {"type": "string"}}));
    }
    if route.is_logged() {
        parameters
            .push(json!({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(takes) = route.takes {
        let schema = takes(generator);
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    let kind = match route.path {
        "/v1/backup" => "application/jsonl",
        "/v1/events" => "text/event-stream",
        "/metrics" => "application/openmetrics-text",
        "/v1/authority.pem" => "application/x-pem-file",
        _ => "application/json",
    };
    let done = match route.gives {
        Some(gives) => {
            let schema = gives(generator);
            ("200", json!({"description": "Done.", "content": {kind: {"schema": schema}}}))
        }
        None if route.method == "GET" => {
            ("200", json!({"description": "Done.", "content": {kind: {}}}))
        }
        None => ("204", json!({"description": "Done."})),
    };
    let refused = json!({
        "description": "Refused.",
        "content": {"application/problem+json": {"schema": problem}},
    });
    operation["responses"] = json!({done.0: done.1, "default": refused});
    operation["x-demands"] = route.demand.words().into();
    match route.demand {
        Demand::Anybody => {}
        Demand::Host | Demand::Joining => {
            operation["security"] = json!([{"token": []}, {"certificate": []}]);
        }
        _ => operation["security"] = json!([{"token": []}]),
    }
    operation
}
