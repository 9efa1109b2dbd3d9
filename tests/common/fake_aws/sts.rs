//! STS: who am I, and sessions of roles.
//!
//! A role is assumed only by whom its trust policy names, under the conditions that it sets.
//! Identity policies are not evaluated: a trust policy that names an account lets all of its
//! principals in.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::State;
use super::accounts::{Caller, Credentials, Kind, Principal};
use super::iam::Parameters;
use super::trust::{Asker, trusts};
use super::wire::{Answer, Refusal, Service, element, tag};

mod web_identity;

/// Tells whether an operation is called without a signature.
pub(crate) fn is_unsigned(operation: &str) -> bool {
    operation == web_identity::OPERATION
}

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
        web_identity::OPERATION => web_identity::assume_role(state, parameters, now),
        other => Err(Refusal::unknown_operation(Service::Sts, other)),
    }
}

fn assume_role(
    state: &mut State,
    parameters: &Parameters,
    caller: &Caller,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let role_arn = text(parameters, "RoleArn");
    let session = session_name(parameters)?;
    let lifetime = lifetime(parameters)?;
    let asker = asker(caller, parameters);
    // AWS answers the same for a role that does not exist, so that nobody can probe for names.
    let role = state
        .accounts
        .by_arn(role_arn)
        .filter(|role| role.kind == Kind::Role && trusts(role, &asker))
        .ok_or_else(|| {
            let message = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                caller.arn
            );
            Refusal::new("AccessDenied", 403, message)
        })?
        .clone();
    let result = open(state, &role, session, lifetime, now);
    Ok(Answer::Xml(Some(result)))
}

fn asker(caller: &Caller, parameters: &Parameters) -> Asker {
    let root = format!("arn:{}:iam::{}:root", caller.partition, caller.account);
    let keys = [
        ("aws:principalarn", Some(&caller.principal_arn)),
        ("aws:principalaccount", Some(&caller.account)),
        ("sts:externalid", parameters.get("ExternalId")),
        ("sts:rolesessionname", parameters.get("RoleSessionName")),
    ];
    let keys = keys.into_iter();
    Asker {
        action: "sts:AssumeRole",
        kind: "AWS",
        names: vec![
            caller.arn.clone(),
            caller.principal_arn.clone(),
            caller.account.clone(),
            root,
        ],
        keys: keys
            .filter_map(|(key, value)| Some((key.to_owned(), value?.clone())))
            .collect::<BTreeMap<String, String>>(),
    }
}

// === what every call for a role has ===

fn text<'a>(parameters: &'a Parameters, name: &str) -> &'a str {
    parameters.get(name).map_or("", String::as_str)
}

fn session_name(parameters: &Parameters) -> Result<&str, Refusal> {
    let session = text(parameters, "RoleSessionName");
    let sound = (2..=64).contains(&session.len())
        && session
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
    if sound {
        return Ok(session);
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{session}' at 'roleSessionName' failed to satisfy \
        constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
    )))
}

fn lifetime(parameters: &Parameters) -> Result<SignedDuration, Refusal> {
    let seconds: i64 = parameters
        .get("DurationSeconds")
        .map_or(Ok(3600), |seconds| seconds.parse())
        .unwrap_or(0);
    if (900..=43_200).contains(&seconds) {
        return Ok(SignedDuration::from_secs(seconds));
    }
    Err(invalid(
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    ))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationError", 400, message)
}

/// Opens a session, and says whose it is and by which credentials.
fn open(
    state: &mut State,
    role: &Principal,
    session: &str,
    lifetime: SignedDuration,
    now: Timestamp,
) -> String {
    let parts: Vec<&str> = role.arn.split(':').collect();
    let (partition, account) = (parts[1], parts[4]);
    let Principal {
        name, unique_id, ..
    } = role;
    let opened = state
        .accounts
        .open_session(account, name, session, lifetime, now);
    let Credentials {
        access_key_id,
        secret_access_key,
        session_token,
        expires,
    } = opened.expect("the role exists");
    let expires = expires.expect("a session expires");
    let arn = format!("arn:{partition}:sts::{account}:assumed-role/{name}/{session}");
    let user = [
        tag("AssumedRoleId", &format!("{unique_id}:{session}")),
        tag("Arn", &arn),
    ];
    let handed_out = [
        tag("AccessKeyId", &access_key_id),
        tag("SecretAccessKey", &secret_access_key),
        tag("SessionToken", &session_token.unwrap_or_default()),
        tag(
            "Expiration",
            &expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ),
    ];
    [
        element("AssumedRoleUser", &user.concat()),
        element("Credentials", &handed_out.concat()),
    ]
    .concat()
}
