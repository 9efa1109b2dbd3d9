//! What a policy document allows and denies, read a second time and apart from the crate.

use std::collections::BTreeSet;

use serde_json::Value;

/// Returns the smallest statements that a document is made of: one principal, one action, one
/// resource each, with the condition spelled in one way.
pub(crate) fn meaning(document: &Value) -> BTreeSet<String> {
    assert_eq!(document["Version"], "2012-10-17", "{document}");
    let mut smallest = BTreeSet::new();
    for statement in each(&document["Statement"]) {
        let principal = &statement["Principal"];
        let principal = principal.get("AWS").unwrap_or(principal);
        for principal in each(principal) {
            for action in each(&statement["Action"]) {
                for resource in each(&statement["Resource"]) {
                    smallest.insert(format!(
                        "{} {} {action} {resource} if {}",
                        statement["Effect"],
                        whole_account(principal.as_str().unwrap()),
                        condition(&statement["Condition"]),
                    ));
                }
            }
        }
    }
    smallest
}

/// Returns the items of a list, or the one that stands for a list.
fn each(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Null => panic!("an element is missing"),
        one => vec![one.clone()],
    }
}

fn whole_account(principal: &str) -> String {
    let is_id = principal.len() == 12 && principal.bytes().all(|b| b.is_ascii_digit());
    if is_id {
        format!("arn:aws:iam::{principal}:root")
    } else {
        principal.to_owned()
    }
}

fn condition(block: &Value) -> String {
    let mut parts = BTreeSet::new();
    for (operator, keys) in block.as_object().into_iter().flatten() {
        for (key, values) in keys.as_object().unwrap() {
            let values: BTreeSet<String> = each(values).iter().map(Value::to_string).collect();
            parts.insert(format!("{operator} {} {values:?}", key.to_lowercase()));
        }
    }
    format!("{parts:?}")
}
