//! The bounds of the kinds' schemas: how long a text or a list may be, how large a number.
//!
//! They are read from the schemas themselves, so that whoever passes the API server by meets the
//! same bounds, and a bound is written down once.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde::Serialize;
use serde_json::Value;

use crate::api;
use crate::policy::Rejection;

static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(api::definitions);

/// Returns every bound that the spec of an object of the kind breaks.
pub(in crate::policy) fn broken(kind: &str, spec: &impl Serialize) -> Vec<Rejection> {
    let mut broken = Vec::new();
    match (serde_json::to_value(spec), schema(kind)) {
        (Ok(spec), Some(schema)) => check(&spec, schema, "spec", &mut broken),
        (Err(error), _) => broken.push(Rejection::invalid("spec", error.to_string())),
        (_, None) => {}
    }
    broken
}

fn schema(kind: &str) -> Option<&'static JSONSchemaProps> {
    let definition = DEFINITIONS.iter().find(|it| it.spec.names.kind == kind)?;
    let version = definition.spec.versions.first()?;
    let object = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    object.properties.as_ref()?.get("spec")
}

fn check(value: &Value, schema: &JSONSchemaProps, field: &str, broken: &mut Vec<Rejection>) {
    let mut bound = |counted: i64, least: Option<i64>, most: Option<i64>, what: &str| {
        let rule = match (least, most) {
            (Some(least), _) if counted < least => format!("at least {least}"),
            (_, Some(most)) if counted > most => format!("at most {most}"),
            _ => return,
        };
        let rule = format!("has {counted} {what}, and must have {rule}");
        broken.push(Rejection::invalid(field, rule));
    };
    match value {
        Value::String(text) => {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            bound(length, schema.min_length, schema.max_length, "characters");
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let (least, most) = (schema.minimum, schema.maximum);
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                let bounds = [("at least", least), ("at most", most)];
                let bounds: Vec<String> = bounds
                    .iter()
                    .filter_map(|(word, bound)| bound.map(|bound| format!("{word} {bound}")))
                    .collect();
                let rule = format!("is {number}, and must be {}", bounds.join(" and "));
                broken.push(Rejection::invalid(field, rule));
            }
        }
        Value::Array(items) => {
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            bound(count, schema.min_items, schema.max_items, "items");
            if let Some(JSONSchemaPropsOrArray::Schema(of_items)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    check(item, of_items, &format!("{field}[{index}]"), broken);
                }
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let known = schema.properties.as_ref().and_then(|known| known.get(name));
                if let Some(known) = known {
                    check(value, known, &format!("{field}.{name}"), broken);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}
