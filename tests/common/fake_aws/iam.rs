//! IAM, as far as roles, users and a role's inline policies go. It answers for the caller's own
//! account.
//!
//! IAM knows a new principal at once; other services learn of it later (see
//! [`super::FakeAws::principals_propagate_in`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::State;
use super::accounts::{Caller, Kind, NewPrincipal, Principal};
use super::sigv4::UNRESERVED;
use super::wire::{Answer, Refusal, Service, element, tag};

mod inline;

/// The parameters of a query call.
pub(crate) type Parameters = BTreeMap<String, String>;

/// Answers a call.
pub(crate) fn answer(
    state: &mut State,
    operation: &str,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let inside = match operation {
        "CreateRole" => Some(create(state, Kind::Role, parameters, caller, now)?),
        "CreateUser" => Some(create(state, Kind::User, parameters, caller, now)?),
        "GetRole" => Some(shape(find(state, Kind::Role, parameters, caller)?)),
        "GetUser" => Some(shape(find(state, Kind::User, parameters, caller)?)),
        "DeleteRole" => delete(state, Kind::Role, parameters, caller)?,
        "DeleteUser" => delete(state, Kind::User, parameters, caller)?,
        "PutRolePolicy" => inline::put(state, parameters, caller)?,
        "GetRolePolicy" => Some(inline::get(state, parameters, caller)?),
        "DeleteRolePolicy" => inline::delete(state, parameters, caller)?,
        "ListRolePolicies" => Some(inline::list(state, parameters, caller)?),
        other => return Err(Refusal::unknown_operation(Service::Iam, other)),
    };
    Ok(Answer::Xml(inside))
}

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Result<&'a str, Refusal> {
    parameters
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value null at '{name}' failed to satisfy constraint: \
            Member must not be null"
            ))
        })
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationError", 400, message)
}

fn malformed(message: &str) -> Refusal {
    Refusal::new("MalformedPolicyDocument", 400, message)
}

fn not_found(kind: Kind, name: &str) -> Refusal {
    let kind = match kind {
        Kind::Role => "role",
        Kind::User => "user",
    };
    Refusal::no_such_entity(format!("The {kind} with name {name} cannot be found."))
}

fn name_parameter(kind: Kind) -> &'static str {
    match kind {
        Kind::Role => "RoleName",
        Kind::User => "UserName",
    }
}

fn find<'a>(
    state: &'a State,
    kind: Kind,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<&'a Principal, Refusal> {
    let own_arn = || state.accounts.by_arn(&caller.principal_arn);
    if kind == Kind::User && !parameters.contains_key("UserName") {
        return own_arn()
            .filter(|principal| principal.kind == Kind::User)
            .ok_or_else(|| {
                invalid("Must specify userName when calling with non-User credentials")
            });
    }
    let name = parameter(parameters, name_parameter(kind))?;
    state
        .accounts
        .find(&caller.account, kind, name)
        .ok_or_else(|| not_found(kind, name))
}

fn find_role<'a>(
    state: &'a mut State,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<&'a mut Principal, Refusal> {
    let name = parameter(parameters, "RoleName")?;
    let missing = not_found(Kind::Role, name);
    state
        .accounts
        .find_mut(&caller.account, Kind::Role, name)
        .ok_or(missing)
}

fn create(
    state: &mut State,
    kind: Kind,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<String, Refusal> {
    let name = parameter(parameters, name_parameter(kind))?;
    if !is_name(name, 64) {
        return Err(invalid(format!(
            "The specified value for {} is invalid. It must contain only alphanumeric characters \
            and/or the following: +=,.@_-",
            name_parameter(kind)
        )));
    }
    let path = parameters.get("Path").map_or("/", String::as_str);
    if !(path.starts_with('/') && path.ends_with('/')) {
        return Err(invalid(
            "The specified value for path is invalid. It must begin and end with / ",
        ));
    }
    let trust = match kind {
        Kind::User => None,
        Kind::Role => {
            let document = parameter(parameters, "AssumeRolePolicyDocument")?;
            if statements(document)?
                .iter()
                .any(|statement| statement.get("Principal").is_none())
            {
                return Err(malformed("AssumeRolepolicy must contain principals."));
            }
            Some(document.to_owned())
        }
    };
    let new = NewPrincipal {
        account: &caller.account,
        kind,
        path,
        name,
        trust,
    };
    state.accounts.create(new, now).map(shape).ok_or_else(|| {
        let kind = if kind == Kind::Role { "Role" } else { "User" };
        let message = format!("{kind} with name {name} already exists.");
        Refusal::new("EntityAlreadyExists", 409, message)
    })
}

fn delete(
    state: &mut State,
    kind: Kind,
    parameters: &Parameters,
    caller: &Caller,
) -> Result<Option<String>, Refusal> {
    let name = parameter(parameters, name_parameter(kind))?;
    let principal = state
        .accounts
        .find(&caller.account, kind, name)
        .ok_or_else(|| not_found(kind, name))?;
    check_modifiable(principal)?;
    if !principal.inline.is_empty() {
        let message = "Cannot delete entity, must delete policies first.";
        return Err(Refusal::new("DeleteConflict", 409, message));
    }
    let arn = principal.arn.clone();
    state.accounts.delete(&arn);
    Ok(None)
}

/// Refuses changes of roles that belong to AWS.
fn check_modifiable(principal: &Principal) -> Result<(), Refusal> {
    let of_aws = principal.path.starts_with("/aws-service-role/")
        || principal.path.starts_with("/aws-reserved/")
        || principal.name.starts_with("AWSReservedSSO_");
    if !of_aws {
        return Ok(());
    }
    let message = format!(
        "Cannot perform the operation on the protected role '{}' - this role is only modifiable by \
        AWS",
        principal.name
    );
    Err(Refusal::new("UnmodifiableEntity", 400, message))
}

fn is_name(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

/// Reads the statements of a policy document, or refuses it as malformed.
fn statements(document: &str) -> Result<Vec<Value>, Refusal> {
    let in_charset =
        |letter: char| matches!(letter, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{FF}');
    if !document.chars().all(in_charset) {
        return Err(invalid(
            "The specified value for policyDocument is invalid. It must contain only printable \
            ASCII characters through the end of the Latin-1 Supplement.",
        ));
    }
    let syntax = || malformed("Syntax errors in policy.");
    let parsed: Value = serde_json::from_str(document)
        .map_err(|_| malformed("This policy contains invalid Json"))?;
    let sound_version = match &parsed["Version"] {
        Value::Null => true,
        version => version == "2012-10-17" || version == "2008-10-17",
    };
    let statements = match &parsed["Statement"] {
        Value::Array(statements) => statements.clone(),
        statement @ Value::Object(_) => vec![statement.clone()],
        _ => return Err(syntax()),
    };
    let sound = |statement: &Value| {
        (statement["Effect"] == "Allow" || statement["Effect"] == "Deny")
            && (statement.get("Action").is_some() || statement.get("NotAction").is_some())
    };
    if !sound_version || statements.is_empty() || !statements.iter().all(sound) {
        return Err(syntax());
    }
    Ok(statements)
}

/// Encodes a document as IAM returns it; the SDK does not decode it.
fn encoded(document: &str) -> String {
    utf8_percent_encode(document, UNRESERVED).to_string()
}

fn shape(principal: &Principal) -> String {
    let created = principal.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let common = [
        tag("Path", &principal.path),
        tag("Arn", &principal.arn),
        tag("CreateDate", &created),
    ]
    .concat();
    match principal.kind {
        Kind::User => element(
            "User",
            &[
                tag("UserName", &principal.name),
                tag("UserId", &principal.unique_id),
                common,
            ]
            .concat(),
        ),
        Kind::Role => element(
            "Role",
            &[
                tag("RoleName", &principal.name),
                tag("RoleId", &principal.unique_id),
                tag("AssumeRolePolicyDocument", &encoded(&principal.trust)),
                tag("MaxSessionDuration", "3600"),
                common,
            ]
            .concat(),
        ),
    }
}
