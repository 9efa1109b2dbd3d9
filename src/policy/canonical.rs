//! Reads the meaning of statements that others may have spelled.
//!
//! The service does not return what was sent: it drops `Sid`, reorders, collapses lists of one,
//! spells an account as its root ARN and fills in a missing `Resource`. Each of those is undone
//! here, so that equal meaning is equal value.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::document::{Document, Statement};
use super::permission::{ANYONE, ActionSet, Effect, Permission, Permissions, one_or_many};
use crate::api::arn::{DomainArn, is_account_id};

/// The keys whose spelling is known; AWS compares keys without regard to case.
const CONDITION_KEYS: [&str; 12] = [
    "aws:SourceIp",
    "aws:VpcSourceIp",
    "aws:SourceVpc",
    "aws:SourceVpce",
    "aws:SourceArn",
    "aws:SourceAccount",
    "aws:PrincipalArn",
    "aws:PrincipalAccount",
    "aws:PrincipalOrgID",
    "aws:PrincipalOrgPaths",
    "aws:PrincipalType",
    "aws:CurrentTime",
];

/// The elements of a statement whose meaning [`permissions`] knows.
const ELEMENTS: [&str; 6] = [
    "Sid",
    "Effect",
    "Principal",
    "Action",
    "Resource",
    "Condition",
];

/// Returns what a statement grants or denies, or `None` where it has an element, a principal or an
/// action that has no place in [`Permissions`]. Such a statement is kept whole.
///
/// A statement may mean nothing, an HTTP method on the domain itself for one.
#[must_use]
pub fn permissions(statement: &Statement, domain: &DomainArn) -> Option<Permissions> {
    let members = statement.members();
    if members.keys().any(|key| !ELEMENTS.contains(&key.as_str())) {
        return None;
    }
    let effect = match members.get("Effect")?.as_str()? {
        "Allow" => Effect::Allow,
        "Deny" => Effect::Deny,
        _ => return None,
    };
    let principals = principals(members.get("Principal")?, domain)?;
    let actions = strings(members.get("Action")?)?
        .into_iter()
        .try_fold(ActionSet::default(), |set, name| {
            Some(set.union(ActionSet::matching(name)?))
        })?;
    let whole = domain.resource("*");
    let resources = match members.get("Resource") {
        Some(resources) => strings(resources)?,
        None => vec![whole.as_str()],
    };
    let condition: Arc<str> = match members.get("Condition") {
        Some(Value::Object(operators)) => condition(operators)?.into(),
        Some(_) => return None,
        None => "".into(),
    };
    let resources: Vec<(Arc<str>, ActionSet)> = resources
        .into_iter()
        .map(|resource| (resource.into(), effective(actions, resource, domain)))
        .collect();
    let mut found = Permissions::default();
    for principal in principals {
        for (resource, actions) in &resources {
            let permission = Permission {
                effect,
                principal: principal.clone(),
                resource: resource.clone(),
                condition: condition.clone(),
            };
            found.insert(permission, *actions);
        }
    }
    Some(found)
}

/// Returns the actions that have an effect on a resource: the HTTP methods are about a domain's
/// paths, the search from another cluster about the domain itself (service developer guide,
/// cross-cluster search). So `es:*` on paths does not mean that search.
///
/// What has no effect means nothing. Were it kept, every HTTP method on the domain itself would be
/// spelled `es:*` when it is written, which there means the search from another cluster.
fn effective(actions: ActionSet, resource: &str, domain: &DomainArn) -> ActionSet {
    match resource.strip_prefix(domain.as_str()) {
        Some("") => actions.intersection(ActionSet::CROSS_CLUSTER),
        Some(path) if path.starts_with('/') => actions.intersection(ActionSet::HTTP),
        _ => actions,
    }
}

fn principals(value: &Value, domain: &DomainArn) -> Option<Vec<Arc<str>>> {
    let named = match value {
        Value::String(text) if text == ANYONE => return Some(vec![ANYONE.into()]),
        Value::Object(kinds) if kinds.len() == 1 => strings(kinds.get("AWS")?)?,
        _ => return None,
    };
    let named = named.into_iter();
    Some(
        named
            .map(|name| account(name, domain).map_or_else(|| name.into(), Into::into))
            .collect(),
    )
}

/// Spells an account's id as the ARN of its root, which means the same.
fn account(name: &str, domain: &DomainArn) -> Option<String> {
    is_account_id(name).then(|| format!("arn:{}:iam::{name}:root", domain.partition()))
}

/// Reads a string, or a list of strings.
pub(super) fn strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Returns the canonical text of a condition block: operators and keys sorted, keys in their known
/// spelling, values sorted and without duplicates, addresses in their shortest form.
///
/// `None` where a value is neither text, number nor truth value, or where an operator has a key
/// twice, in two spellings.
#[must_use]
pub fn condition(operators: &Map<String, Value>) -> Option<String> {
    let canonical = canonical_condition(operators)?;
    Some(if canonical.is_empty() {
        String::new()
    } else {
        Value::Object(canonical).to_string()
    })
}

fn canonical_condition(operators: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut canonical = Map::new();
    for (operator, keys) in operators {
        let addresses = operator.to_ascii_lowercase().contains("ipaddress");
        let mut canonical_keys = Map::new();
        for (key, values) in keys.as_object()? {
            let values = match values {
                Value::Array(many) => many.iter().map(scalar).collect::<Option<Vec<_>>>()?,
                one => vec![scalar(one)?],
            };
            let mut values: Vec<String> = values
                .into_iter()
                .map(|v| if addresses { address(&v) } else { v })
                .collect();
            values.sort_unstable();
            values.dedup();
            let known = CONDITION_KEYS
                .iter()
                .find(|known| known.eq_ignore_ascii_case(key));
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let known = (*known.unwrap_or(&key.as_str())).into();
            if canonical_keys.insert(known, one_or_many(&values)).is_some() {
                return None;
            }
        }
        canonical.insert(operator.clone(), Value::Object(canonical_keys));
    }
    Some(canonical)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Spells an address or block as IAM reads it: a block of one is the bare address, and the bits
/// after the prefix do not count.
fn address(text: &str) -> String {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string();
    }
    let block = match text.parse::<IpNet>() {
        Ok(block) => block.trunc(),
        Err(_) => return text.to_owned(),
    };
    if block.prefix_len() == block.max_prefix_len() {
        block.addr().to_string()
    } else {
        block.to_string()
    }
}

/// The meaning of a whole document: equal exactly where the documents mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    permissions: Permissions,
    /// Statements of unknown meaning, as canonical text.
    opaque: Vec<String>,
}

impl Canonical {
    /// Reads the meaning of a document.
    #[must_use]
    pub fn of(document: &Document, domain: &DomainArn) -> Self {
        let mut canonical = Self {
            permissions: Permissions::default(),
            opaque: Vec::new(),
        };
        for statement in document.statements() {
            match permissions(statement, domain) {
                Some(found) => canonical.permissions.extend(&found),
                None => canonical.opaque.push(full_spelling(statement, domain)),
            }
        }
        canonical.opaque.sort_unstable();
        canonical.opaque.dedup();
        canonical
    }

    /// Returns the permissions of the statements whose meaning is known.
    #[must_use]
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }
}

/// Returns a text that is the same for every way in which the service may spell the lists of a
/// statement that is not understood: without `Sid`, lists sorted, lists of one as their element.
#[must_use]
pub fn spelling(statement: &Statement) -> String {
    let mut members = statement.members().clone();
    members.remove("Sid");
    fold(&Value::Object(members)).to_string()
}

/// Returns the [`spelling`] with the elements in one form that the service may spell in two:
/// principals and conditions as [`permissions`] reads them, and a `Resource`.
fn full_spelling(statement: &Statement, domain: &DomainArn) -> String {
    let mut members = statement.members().clone();
    for element in ["Principal", "NotPrincipal"] {
        if let Some(who) = members.get_mut(element) {
            spell_principal(who, domain);
        }
    }
    if !members.contains_key("NotResource") {
        let whole = || domain.resource("*").into();
        members.entry("Resource").or_insert_with(whole);
    }
    if let Some(Value::Object(operators)) = members.get_mut("Condition")
        && let Some(canonical) = canonical_condition(operators)
    {
        *operators = canonical;
    }
    spelling(&Statement::new(members))
}

fn spell_principal(who: &mut Value, domain: &DomainArn) {
    if *who == ANYONE {
        *who = Value::Object(Map::from_iter([("AWS".to_owned(), ANYONE.into())]));
    }
    let names = match who.get_mut("AWS") {
        Some(Value::Array(many)) => many.as_mut_slice(),
        Some(one) => std::slice::from_mut(one),
        None => return,
    };
    for name in names {
        if let Some(root) = name.as_str().and_then(|name| account(name, domain)) {
            *name = root.into();
        }
    }
}

/// Sorts lists, and spells a list of one as its element.
fn fold(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(fold).collect();
            items.sort_by_cached_key(Value::to_string);
            items.dedup();
            match <[Value; 1]>::try_from(items) {
                Ok([one]) => one,
                Err(many) => Value::Array(many),
            }
        }
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, v)| (key.clone(), fold(v)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Tells whether a principal is a unique id that AWS shows in the place of an ARN after the role
/// or user was deleted; the service refuses it when it is sent back.
#[must_use]
pub fn is_unique_id(principal: &str) -> bool {
    (principal.starts_with("AROA") || principal.starts_with("AIDA"))
        && principal.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn domain() -> DomainArn {
        DomainArn::new("eu-west-1", "111122223333", "logs")
    }

    fn document(statement: &Value) -> Document {
        Document::parse(&json!({"Version": "2012-10-17", "Statement": statement}).to_string())
            .unwrap()
    }

    #[test]
    fn every_spelling_of_the_service_means_the_same() {
        let arn = "arn:aws:es:eu-west-1:111122223333:domain/logs/*";
        let sent = document(&json!([
            {"Sid": "Mine", "Effect": "Allow", "Principal": {"AWS": ["111122223333"]},
             "Action": ["es:ESHttp*"], "Resource": [arn],
             "Condition": {"IpAddress": {"aws:sourceip": ["203.0.113.9/24", "198.51.100.7/32"]}}},
            {"Effect": "Allow", "Principal": "*", "Action": "es:ESHttpGet", "Resource": arn},
        ]));
        let read = document(&json!([
            {"Principal": {"AWS": "*"}, "Effect": "Allow", "Action": "es:eshttpget"},
            {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
             "Resource": arn, "Action": "es:*",
             "Condition": {"IpAddress": {"aws:SourceIp": ["198.51.100.7", "203.0.113.0/24"]}}},
        ]));
        assert_eq!(
            Canonical::of(&sent, &domain()),
            Canonical::of(&read, &domain())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_with_the_same_meaning(
            entries in proptest::collection::vec(
                (0..4usize, 0..3usize, 0..3usize, 1..=7usize), 0..12,
            ),
        ) {
            let conditions = [
                String::new(),
                r#"{"IpAddress":{"aws:SourceIp":["198.51.100.7","203.0.113.0/24"]}}"#.to_owned(),
                r#"{"StringEquals":{"aws:PrincipalOrgID":"o-a1b2c3d4e5"}}"#.to_owned(),
            ];
            let principals = ["*", "arn:aws:iam::111122223333:role/a",
                "arn:aws:iam::111122223333:user/b", "arn:aws:iam::444455556666:root"];
            let mut wanted = Permissions::default();
            for (principal, resource, condition, actions) in entries {
                let domain = domain();
                let (resource, actions) = match resource {
                    0 => (domain.as_str().to_owned(), ActionSet::CROSS_CLUSTER),
                    1 => (domain.resource("*"), ActionSet::HTTP),
                    _ => (domain.resource("a*"), [ActionSet::FETCH, ActionSet::POST][actions % 2]),
                };
                wanted.insert(Permission {
                    effect: Effect::Allow,
                    principal: principals[principal].into(),
                    resource: resource.into(),
                    condition: conditions[condition].as_str().into(),
                }, actions);
            }
            let written = Document::new(wanted.to_statements());
            let read = Document::parse(&written.to_text()).unwrap();
            let canonical = Canonical::of(&read, &domain());
            prop_assert_eq!(canonical.permissions(), &wanted);
            prop_assert_eq!(Document::new(canonical.permissions().to_statements()), written);
        }
    }

    #[test]
    fn split_and_joined_statements_mean_the_same() {
        let one = json!({"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::111122223333:role/a",
            "arn:aws:iam::111122223333:role/b"]}, "Action": ["es:ESHttpGet", "es:ESHttpHead"]});
        let split: Vec<Value> = ["a", "b"]
            .iter()
            .flat_map(|r| ["Get", "Head"].map(|m| (r, m)))
            .map(|(role, method)| {
                json!({"Effect": "Allow", "Action": format!("es:ESHttp{method}"),
                    "Principal": {"AWS": format!("arn:aws:iam::111122223333:role/{role}")}})
            })
            .collect();
        let (one, split) = (document(&one), document(&split.into()));
        assert_eq!(
            Canonical::of(&one, &domain()),
            Canonical::of(&split, &domain())
        );
    }

    #[test]
    fn a_statement_that_is_not_understood_is_compared_by_its_elements() {
        let with = |extra: Value| {
            document(&json!({"Sid": "x", "Effect": "Deny", "Principal": "*",
                "NotAction": ["es:ESHttpGet"], "Resource": extra}))
        };
        let same = Canonical::of(&with(json!(["a"])), &domain());
        assert_eq!(same, Canonical::of(&with(json!("a")), &domain()));
        assert_ne!(same, Canonical::of(&with(json!("b")), &domain()));
    }

    #[test]
    fn an_action_without_effect_means_nothing_and_is_not_written_as_one_that_has() {
        let arn = "arn:aws:es:eu-west-1:111122223333:domain/logs";
        let with = |action: &str, resource: &str| {
            let statement = json!({"Effect": "Allow", "Principal": "*", "Action": action,
                "Resource": resource});
            Canonical::of(&document(&statement), &domain())
        };
        for (action, resource) in [
            ("es:ESHttp*", arn),
            ("es:ESCrossClusterGet", &format!("{arn}/*")),
        ] {
            assert_eq!(
                with(action, resource).permissions(),
                &Permissions::default()
            );
        }
        assert_eq!(with("es:*", arn), with("es:ESCrossClusterGet", arn));
    }

    #[test]
    fn a_key_in_two_spellings_keeps_both_its_tests() {
        let with = |keys: Value| {
            let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "es:*",
                "Condition": {"StringEquals": keys}});
            Canonical::of(&document(&statement), &domain())
        };
        let both = with(json!({"aws:SourceVpc": "vpc-1", "aws:sourcevpc": "vpc-2"}));
        for one in ["vpc-1", "vpc-2"] {
            assert_ne!(both, with(json!({"aws:SourceVpc": one})));
        }
        assert!(both.permissions().is_empty());
    }

    #[test]
    fn different_conditions_are_different() {
        let with = |ip: &str| {
            document(
                &json!({"Effect": "Allow", "Principal": "*", "Action": "es:*",
                "Condition": {"IpAddress": {"aws:SourceIp": ip}}}),
            )
        };
        assert_ne!(
            Canonical::of(&with("203.0.113.0/24"), &domain()),
            Canonical::of(&with("203.0.113.0/25"), &domain())
        );
    }
}
