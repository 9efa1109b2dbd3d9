//! Whom a role's trust policy lets in: some statement allows, none denies.
//!
//! Conditions other than those understood here are taken as not met.

use std::collections::BTreeMap;

use serde_json::Value;

use super::accounts::Principal;
use super::policy::matches;

/// Who asks to act as a role.
pub(crate) struct Asker {
    pub(crate) action: &'static str,
    /// The kind of principal: `AWS`, `Federated` or `Service`.
    pub(crate) kind: &'static str,
    /// What a policy may call it.
    pub(crate) names: Vec<String>,
    /// The condition keys of the request, in lower case.
    pub(crate) keys: BTreeMap<String, String>,
}

/// Tells whether a role's trust policy lets somebody in.
pub(crate) fn trusts(role: &Principal, asker: &Asker) -> bool {
    let policy: Value = serde_json::from_str(&role.trust).unwrap_or_default();
    let statements = list(&policy["Statement"]);
    let applies = |effect: &str| {
        statements.iter().any(|statement| {
            statement["Effect"] == effect
                && strings(&statement["Action"])
                    .iter()
                    .any(|action| matches(action, asker.action))
                && names(&statement["Principal"], asker, effect == "Deny")
                && meets(&statement["Condition"], &asker.keys)
        })
    };
    applies("Allow") && !applies("Deny")
}

/// Tells whether a principal element names who asks. IAM takes no `*` that would let in federated
/// users or services, but it may keep them out.
fn names(principal: &Value, asker: &Asker, denies: bool) -> bool {
    if let Some(name) = principal.as_str() {
        return name == "*" && (denies || asker.kind == "AWS");
    }
    strings(&principal[asker.kind]).iter().any(|name| {
        *name == "*" && (denies || asker.kind == "AWS") || asker.names.iter().any(|own| own == name)
    })
}

fn meets(condition: &Value, keys: &BTreeMap<String, String>) -> bool {
    let Some(operators) = condition.as_object() else {
        return true;
    };
    operators.iter().all(|(operator, tests)| {
        tests.as_object().is_some_and(|tests| {
            tests.iter().all(|(key, wanted)| {
                let actual = keys.get(&key.to_ascii_lowercase());
                holds(operator, actual.map(String::as_str), &strings(wanted))
            })
        })
    })
}

fn holds(operator: &str, actual: Option<&str>, wanted: &[&str]) -> bool {
    let (operator, without) = match operator.strip_suffix("IfExists") {
        Some(operator) => (operator, true),
        None => (operator, operator.starts_with("StringNot")),
    };
    let Some(actual) = actual else {
        return without;
    };
    let like = || wanted.iter().any(|wanted| matches(wanted, actual));
    match operator {
        "StringEquals" | "ArnEquals" => wanted.contains(&actual),
        "StringNotEquals" => !wanted.contains(&actual),
        "StringLike" | "ArnLike" => like(),
        "StringNotLike" => !like(),
        _ => false,
    }
}

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        value => vec![value],
    }
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).into_iter().filter_map(Value::as_str).collect()
}
