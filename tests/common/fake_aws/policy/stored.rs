//! What the service keeps of a policy and what it gives back: never the text that was sent.
//!
//! On save: `Sid` is dropped, `"*"` becomes `{"AWS":"*"}`, an account id becomes its root ARN, a
//! missing `Resource` becomes the domain's, and the ARN of a role or user becomes its unique id. On
//! read: the ids of principals that still exist become ARNs again, one-element lists may be scalars
//! and scalars lists, and statements, keys and lists come in an order of their own (seeded, and new
//! with every version).

use serde_json::{Map, Value, json};

use super::super::accounts::Accounts;
use super::super::seeded::Seeded;
use super::Site;

/// A policy at rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stored {
    /// No policy, which reads as `""`.
    Empty,
    /// A normalised document and the seed of the order in which it is read back.
    Document { document: Value, order: u64 },
    /// A document that the normaliser does not understand, kept as it came. Only an external writer
    /// can put it there.
    Verbatim(String),
}

/// Returns the statements of a document; a single one may stand without a list.
pub(crate) fn statements(document: &Map<String, Value>) -> Vec<&Value> {
    match document.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().collect(),
        Some(statement) => vec![statement],
        None => Vec::new(),
    }
}

/// Turns a submitted document into what is kept of it.
pub(crate) fn normalise(
    document: &Map<String, Value>,
    site: &Site,
    accounts: &Accounts,
    order: u64,
) -> Stored {
    let statements: Vec<Value> = statements(document)
        .into_iter()
        .map(|statement| normalise_statement(statement, site, accounts))
        .collect();
    let mut kept = document.clone();
    kept.insert("Statement".to_owned(), Value::Array(statements));
    Stored::Document {
        document: Value::Object(kept),
        order,
    }
}

/// Keeps whatever an external writer stored, understood or not.
pub(crate) fn keep(text: &str, site: &Site, accounts: &Accounts, order: u64) -> Stored {
    match serde_json::from_str::<Value>(text) {
        _ if text.is_empty() => Stored::Empty,
        Ok(Value::Object(document)) if document.contains_key("Statement") => {
            normalise(&document, site, accounts, order)
        }
        _ => Stored::Verbatim(text.to_owned()),
    }
}

fn normalise_statement(statement: &Value, site: &Site, accounts: &Accounts) -> Value {
    let Value::Object(statement) = statement else {
        return statement.clone();
    };
    let mut kept = statement.clone();
    kept.remove("Sid");
    if let Some(principal) = kept.get_mut("Principal") {
        if principal == "*" {
            *principal = json!({ "AWS": "*" });
        }
        if let Some(names) = principal.get_mut("AWS") {
            let resolved = as_list(names)
                .iter()
                .map(|name| resolve(name, accounts))
                .collect();
            *names = Value::Array(resolved);
        }
    }
    if !kept.contains_key("Resource") && !kept.contains_key("NotResource") {
        kept.insert("Resource".to_owned(), json!(format!("{}/*", site.arn())));
    }
    for key in ["Action", "NotAction", "Resource", "NotResource"] {
        if let Some(value) = kept.get_mut(key) {
            *value = Value::Array(as_list(value));
        }
    }
    if let Some(Value::Object(operators)) = kept.get_mut("Condition") {
        for keys in operators.values_mut().filter_map(Value::as_object_mut) {
            for values in keys.values_mut() {
                let texts = as_list(values).into_iter().map(|value| match value {
                    Value::Bool(_) | Value::Number(_) => Value::String(value.to_string()),
                    value => value,
                });
                *values = texts.collect();
            }
        }
    }
    Value::Object(kept)
}

fn as_list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        value => vec![value.clone()],
    }
}

/// Replaces an account id by its root ARN, and the ARN of a role or user by its unique id.
fn resolve(name: &Value, accounts: &Accounts) -> Value {
    let Some(text) = name.as_str() else {
        return name.clone();
    };
    if let Some(partition) = accounts.partition(text) {
        return json!(format!("arn:{partition}:iam::{text}:root"));
    }
    accounts
        .by_arn(text)
        .map_or_else(|| name.clone(), |principal| json!(principal.unique_id))
}

impl Stored {
    /// Returns the policy as the service gives it back now.
    pub(crate) fn read(&self, accounts: &Accounts) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Verbatim(text) => text.clone(),
            Self::Document { document, order } => {
                let mut written = String::new();
                let random = &mut Seeded::new(*order, "policy");
                write_value(&mut written, "", document, accounts, random);
                written
            }
        }
    }
}

/// Writes a value with its keys and lists shuffled; `key` is the key it stands under.
fn write_value(
    out: &mut String,
    key: &str,
    value: &Value,
    accounts: &Accounts,
    random: &mut Seeded,
) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            random.shuffle(&mut members);
            out.push('{');
            for (position, (key, value)) in members.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&json!(key).to_string());
                out.push(':');
                write_value(out, key, value, accounts, random);
            }
            out.push('}');
        }
        Value::Array(items) if items.len() == 1 && key != "Statement" && random.coin() => {
            write_value(out, key, &items[0], accounts, random);
        }
        Value::Array(items) => {
            let mut items: Vec<&Value> = items.iter().collect();
            random.shuffle(&mut items);
            out.push('[');
            for (position, item) in items.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_value(out, key, item, accounts, random);
            }
            out.push(']');
        }
        Value::String(text) if key == "AWS" => {
            let shown = accounts
                .by_unique_id(text)
                .map_or(text, |principal| &principal.arn);
            out.push_str(&json!(shown).to_string());
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
