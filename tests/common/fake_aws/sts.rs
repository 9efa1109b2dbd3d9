//! STS: who am I, and sessions of roles.
//!
//! A role is assumed only by whom its trust policy names, under the conditions that it sets.
//! Conditions other than those understood here are taken as not met. Identity policies are not
//! evaluated: a trust policy that names an account lets all of its principals in.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::State;
use super::accounts::{Caller, Kind, Principal};
use super::iam::Parameters;
use super::policy::matches;
use super::wire::{Answer, Refusal, Service, element, tag};

/// Answers a call.
pub(crate) fn answer(
    state: &mut State,
    operation: &str,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    match operation {
        "GetCallerIdentity" => {
            let identity = [
                tag("Arn", &caller.arn),
                tag("UserId", &caller.user_id),
                tag("Account", &caller.account),
            ];
            Ok(Answer::Xml(Some(identity.concat())))
        }
        "AssumeRole" => assume_role(state, parameters, caller, now),
        other => Err(Refusal::unknown_operation(Service::Sts, other)),
    }
}

fn assume_role(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let text = |name: &str| parameters.get(name).map_or("", String::as_str);
    let (role_arn, session) = (text("RoleArn"), text("RoleSessionName"));
    let sound = (2..=64).contains(&session.len())
        && session
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
    if !sound {
        return Err(Refusal::new(
            "ValidationError",
            400,
            format!(
                "1 validation error detected: Value '{session}' at 'roleSessionName' failed to \
                satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
            ),
        ));
    }
    let seconds: i64 = parameters
        .get("DurationSeconds")
        .map_or(Ok(3600), |seconds| seconds.parse())
        .unwrap_or(0);
    if !(900..=43_200).contains(&seconds) {
        return Err(Refusal::new(
            "ValidationError",
            400,
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    // AWS answers the same for a role that does not exist, so that nobody can probe for names.
    let role = state
        .accounts
        .by_arn(role_arn)
        .filter(|role| role.kind == Kind::Role && trusts(role, caller, parameters))
        .ok_or_else(|| {
            let message = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                caller.arn
            );
            Refusal::new("AccessDenied", 403, message)
        })?;
    let (id, name) = (role.unique_id.clone(), role.name.clone());
    let parts: Vec<&str> = role_arn.split(':').collect();
    let (partition, account) = (parts[1].to_owned(), parts[4].to_owned());
    let lifetime = SignedDuration::from_secs(seconds);
    let credentials = state
        .accounts
        .open_session(&account, &name, session, lifetime, now)
        .expect("the role was found above");
    let expires = credentials.expires.expect("a session expires");
    let user = [
        tag("AssumedRoleId", &format!("{id}:{session}")),
        tag(
            "Arn",
            &format!("arn:{partition}:sts::{account}:assumed-role/{name}/{session}"),
        ),
    ];
    let handed_out = [
        tag("AccessKeyId", &credentials.access_key_id),
        tag("SecretAccessKey", &credentials.secret_access_key),
        tag(
            "SessionToken",
            credentials.session_token.as_deref().unwrap_or_default(),
        ),
        tag(
            "Expiration",
            &expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ),
    ];
    let result = [
        element("AssumedRoleUser", &user.concat()),
        element("Credentials", &handed_out.concat()),
    ];
    Ok(Answer::Xml(Some(result.concat())))
}

/// Evaluates a trust policy: some statement allows, none denies.
fn trusts(role: &Principal, caller: &Caller, parameters: &Parameters) -> bool {
    let policy: Value = serde_json::from_str(&role.trust).unwrap_or_default();
    let statements = list(&policy["Statement"]);
    let applies = |effect: &str| {
        statements.iter().any(|statement| {
            statement["Effect"] == effect
                && strings(&statement["Action"])
                    .iter()
                    .any(|action| matches(action, "sts:AssumeRole"))
                && names(&statement["Principal"], caller)
                && meets(&statement["Condition"], caller, parameters)
        })
    };
    applies("Allow") && !applies("Deny")
}

fn names(principal: &Value, caller: &Caller) -> bool {
    let root = format!("arn:{}:iam::{}:root", caller.partition, caller.account);
    let own = [&caller.arn, &caller.principal_arn, &caller.account, &root];
    let named = if principal.is_string() {
        principal
    } else {
        &principal["AWS"]
    };
    strings(named)
        .iter()
        .any(|name| *name == "*" || own.iter().any(|own| *own == name))
}

fn meets(condition: &Value, caller: &Caller, parameters: &Parameters) -> bool {
    let Some(operators) = condition.as_object() else {
        return true;
    };
    operators.iter().all(|(operator, keys)| {
        keys.as_object().is_some_and(|keys| {
            keys.iter().all(|(key, wanted)| {
                let actual = match key.to_ascii_lowercase().as_str() {
                    "sts:externalid" => parameters.get("ExternalId").map(String::as_str),
                    "sts:rolesessionname" => parameters.get("RoleSessionName").map(String::as_str),
                    "aws:principalarn" => Some(caller.principal_arn.as_str()),
                    "aws:principalaccount" => Some(caller.account.as_str()),
                    _ => None,
                };
                let wanted = strings(wanted);
                actual.is_some_and(|actual| match operator.as_str() {
                    "StringEquals" | "ArnEquals" => wanted.contains(&actual),
                    "StringLike" | "ArnLike" => wanted.iter().any(|wanted| matches(wanted, actual)),
                    _ => false,
                })
            })
        })
    })
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
