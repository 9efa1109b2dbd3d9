//! What an access policy says, whatever the order and spelling it is said in.
//!
//! A second opinion on purpose: nothing here is shared with the operator's own canonical form.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Everything that a policy allows and denies: one line for each effect, principal, action,
/// resource and condition, and one for each statement with elements beyond these.
pub(crate) type Meaning = BTreeSet<String>;

/// What `es:*` stands for below a domain.
const HTTP: [&str; 6] = [
    "es:eshttpget",
    "es:eshttphead",
    "es:eshttppost",
    "es:eshttpput",
    "es:eshttppatch",
    "es:eshttpdelete",
];

/// Returns what a policy document says.
///
/// # Panics
///
/// If it is no JSON object: a test that stores one does not ask what it means.
pub(crate) fn of_document(text: &str) -> Meaning {
    if text.is_empty() {
        return Meaning::new();
    }
    let document: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not a policy: {error}: {text}"));
    match &document["Statement"] {
        Value::Array(statements) => of_statements(statements),
        one => of_statements(std::slice::from_ref(one)),
    }
}

/// Returns what statements say together.
pub(crate) fn of_statements(statements: &[Value]) -> Meaning {
    statements.iter().flat_map(of_statement).collect()
}

fn of_statement(statement: &Value) -> Vec<String> {
    let plain = [
        "Sid",
        "Effect",
        "Principal",
        "Action",
        "Resource",
        "Condition",
    ];
    let members = statement.as_object().cloned().unwrap_or_default();
    let named = match &statement["Principal"] {
        Value::String(everybody) => Some(vec![everybody.clone()]),
        Value::Object(kinds) if kinds.len() == 1 => kinds.get("AWS").map(texts),
        _ => None,
    };
    let odd = members.keys().any(|key| !plain.contains(&key.as_str()));
    let Some(principals) = named.filter(|_| !odd) else {
        return vec![format!("as it stands: {}", sorted(&without_sid(members)))];
    };
    let condition = match &statement["Condition"] {
        Value::Null => "always".to_owned(),
        condition => sorted(condition).to_string(),
    };
    let effect = statement["Effect"].as_str().unwrap_or_default();
    let mut lines = Vec::new();
    for principal in &principals {
        let principal = spell_out(principal);
        for resource in texts(&statement["Resource"]) {
            for action in texts(&statement["Action"])
                .iter()
                .flat_map(|it| actions(it))
            {
                lines.push(format!(
                    "{effect} {principal} {action} {resource} {condition}"
                ));
            }
        }
    }
    lines
}

fn without_sid(mut members: Map<String, Value>) -> Value {
    members.remove("Sid");
    Value::Object(members)
}

fn spell_out(principal: &str) -> String {
    if principal.len() == 12 && principal.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("arn:aws:iam::{principal}:root")
    } else {
        principal.to_owned()
    }
}

fn actions(pattern: &str) -> Vec<String> {
    let pattern = pattern.to_ascii_lowercase();
    if !pattern.contains(['*', '?']) {
        return vec![pattern];
    }
    let meant = HTTP
        .iter()
        .filter(|action| matches(pattern.as_bytes(), action.as_bytes()));
    let meant: Vec<String> = meant.map(|&action| action.to_owned()).collect();
    // A pattern that means nothing known here is not nothing.
    if meant.is_empty() {
        vec![pattern]
    } else {
        meant
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([one, rest @ ..], [other, tail @ ..]) => one == other && matches(rest, tail),
        _ => false,
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

/// Sorts lists, and unpacks those of one; the keys of objects are sorted already.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), sorted(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(Value::to_string);
            match &items[..] {
                [one] => one.clone(),
                _ => Value::Array(items),
            }
        }
        scalar => scalar.clone(),
    }
}
