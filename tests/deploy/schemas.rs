//! The API server's own schemas as JSON schema files, in which a field that is not known is an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/components/schemas/";

/// Where kubeconform looks for what [`write`] writes, below its folder.
pub(crate) const LAYOUT: &str = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json";

/// Writes the schema of every kind of an `OpenAPI` document; returns the kinds.
pub(crate) fn write(document: &Value, folder: &Path) -> BTreeSet<String> {
    let components = document["components"]["schemas"].as_object().unwrap();
    let definitions: Map<String, Value> = components
        .iter()
        .map(|(name, schema)| (name.clone(), strict(schema)))
        .collect();
    let mut kinds = BTreeSet::new();
    for (name, schema) in components {
        for kind in schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let of = |member: &str| kind[member].as_str().unwrap();
            // A kind of many groups, such as DeleteOptions, is nobody's manifest.
            if schema["properties"]["metadata"].is_null() {
                continue;
            }
            // kubeconform's word for the core's group is its version.
            let group = if of("group").is_empty() {
                of("version")
            } else {
                of("group")
            };
            let file = folder.join(group);
            fs::create_dir_all(&file).unwrap();
            let file = file.join(format!(
                "{}_{}.json",
                of("kind").to_lowercase(),
                of("version")
            ));
            let schema = json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": format!("#/definitions/{name}"),
                "definitions": definitions,
            });
            fs::write(file, schema.to_string()).unwrap();
            kinds.insert(of("kind").to_owned());
        }
    }
    kinds
}

/// Returns a schema in which objects have the properties that are listed and no others.
fn strict(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut strict: Map<String, Value> = members
                .iter()
                .map(|(name, value)| (name.clone(), strict_member(name, value)))
                .collect();
            let lists = members.get("properties").is_some_and(Value::is_object)
                && members.get("type").is_some_and(|it| it == "object");
            let is_open = members.contains_key("additionalProperties")
                || members.contains_key("x-kubernetes-preserve-unknown-fields");
            if lists && !is_open {
                strict.insert("additionalProperties".to_owned(), json!(false));
            }
            Value::Object(strict)
        }
        Value::Array(items) => items.iter().map(strict).collect(),
        other => other.clone(),
    }
}

fn strict_member(name: &str, value: &Value) -> Value {
    match value.as_str().and_then(|it| it.strip_prefix(DEFINITIONS)) {
        Some(definition) if name == "$ref" => json!(format!("#/definitions/{definition}")),
        _ => strict(value),
    }
}
