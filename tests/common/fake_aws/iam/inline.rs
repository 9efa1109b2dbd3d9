//! The inline policies of a role: small, counted together, and returned percent-encoded.

use serde_json::Value;

use super::super::State;
use super::super::accounts::Caller;
use super::super::wire::{Refusal, element, tag};
use super::{
    Parameters, check_modifiable, encoded, find_role, invalid, is_name, malformed, parameter,
    statements,
};

/// The most characters that all inline policies of a role may have together, white space not
/// counted.
const LARGEST: usize = 10_240;

/// How many names `ListRolePolicies` returns at once if it is not told.
const PAGE: usize = 100;

fn policy_name(parameters: &Parameters) -> Result<&str, Refusal> {
    let name = parameter(parameters, "PolicyName")?;
    if is_name(name, 128) {
        return Ok(name);
    }
    Err(invalid(
        "The specified value for policyName is invalid. It must contain only alphanumeric \
        characters and/or the following: +=,.@_-",
    ))
}

pub(super) fn put(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<Option<String>, Refusal> {
    let name = policy_name(parameters)?;
    let document = parameter(parameters, "PolicyDocument")?;
    let role = find_role(state, parameters, caller)?;
    check_modifiable(role)?;
    for statement in statements(document)? {
        if statement.get("Principal").is_some() || statement.get("NotPrincipal").is_some() {
            return Err(malformed("Policy document should not specify a principal."));
        }
        if statement.get("Resource").is_none() && statement.get("NotResource").is_none() {
            return Err(malformed("Policy statement must contain resources."));
        }
    }
    if serde_json::from_str::<Value>(document).is_ok_and(|document| document.get("Id").is_some()) {
        return Err(malformed(
            "Policy Id is not allowed in this type of policy.",
        ));
    }
    let counted = |document: &str| {
        document
            .chars()
            .filter(|letter| !letter.is_whitespace())
            .count()
    };
    let others: usize = role
        .inline
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(_, other)| counted(other))
        .sum();
    if others + counted(document) > LARGEST {
        let message = format!(
            "Maximum policy size of {LARGEST} bytes exceeded for role {}",
            role.name
        );
        return Err(Refusal::new("LimitExceeded", 409, message));
    }
    role.inline.insert(name.to_owned(), document.to_owned());
    Ok(None)
}

pub(super) fn get(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<String, Refusal> {
    let name = policy_name(parameters)?;
    let role = find_role(state, parameters, caller)?;
    let document = role
        .inline
        .get(name)
        .ok_or_else(|| policy_not_found(name))?;
    Ok([
        tag("RoleName", &role.name),
        tag("PolicyName", name),
        tag("PolicyDocument", &encoded(document)),
    ]
    .concat())
}

pub(super) fn delete(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<Option<String>, Refusal> {
    let name = policy_name(parameters)?;
    let role = find_role(state, parameters, caller)?;
    check_modifiable(role)?;
    role.inline
        .remove(name)
        .map(|_| None)
        .ok_or_else(|| policy_not_found(name))
}

pub(super) fn list(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<String, Refusal> {
    let role = find_role(state, parameters, caller)?;
    let page = match parameters.get("MaxItems") {
        None => PAGE,
        Some(items) => items
            .parse()
            .ok()
            .filter(|items| (1..=1000).contains(items))
            .ok_or_else(|| invalid("MaxItems must be between 1 and 1000"))?,
    };
    let after = parameters.get("Marker").map_or("", String::as_str);
    let left: Vec<&str> = role
        .inline
        .keys()
        .map(String::as_str)
        .filter(|name| *name > after)
        .collect();
    let shown = &left[..left.len().min(page)];
    let members: String = shown.iter().map(|name| tag("member", name)).collect();
    let truncated = shown.len() < left.len();
    let marker = shown
        .last()
        .filter(|_| truncated)
        .map(|last| tag("Marker", last));
    Ok([
        element("PolicyNames", &members),
        tag("IsTruncated", if truncated { "true" } else { "false" }),
        marker.unwrap_or_default(),
    ]
    .concat())
}

fn policy_not_found(name: &str) -> Refusal {
    Refusal::no_such_entity(format!("The role policy with name {name} cannot be found."))
}
