//! `AssumeRoleWithWebIdentity`: a service account's token for a session of a role (IRSA).
//!
//! ```text
//!  token ─► the account's OIDC provider ─► its audiences ─► the issuer's keys ─► expiry
//!                                                     the role's trust policy ◄────┘
//! ```
//!
//! Where AWS does not say how it refuses, the code is [`INVALID`] and the words are ours: a forged
//! signature, and a token from the future.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::State;
use super::super::accounts::Kind;
use super::super::iam::Parameters;
use super::super::token::{Claims, Flaw, Unverified};
use super::super::trust::{Asker, trusts};
use super::super::wire::{Answer, Refusal, tag};
use super::{invalid, lifetime, open, session_name, text};

pub(super) const OPERATION: &str = "AssumeRoleWithWebIdentity";

/// The code of whatever is wrong with a token but its age.
const INVALID: &str = "InvalidIdentityToken";

/// The lengths that a token may have.
const LENGTHS: std::ops::RangeInclusive<usize> = 4..=20_000;

/// Answers a call.
pub(super) fn assume_role(
    state: &mut State,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let session = session_name(parameters)?;
    let lifetime = lifetime(parameters)?;
    let token = text(parameters, "WebIdentityToken");
    if !LENGTHS.contains(&token.len()) {
        return Err(invalid(
            "1 validation error detected: Value at 'webIdentityToken' failed to satisfy \
            constraint: Member must have length between 4 and 20000",
        ));
    }
    let role_arn = text(parameters, "RoleArn");
    let parts: Vec<&str> = role_arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else {
        return Err(invalid("Request ARN is invalid"));
    };
    if !resource.starts_with("role/") {
        return Err(invalid("Request ARN is invalid"));
    }

    let unverified = Unverified::parse(token).map_err(refusal)?;
    let issuer = unverified.issuer().to_owned();
    let bare = issuer.strip_prefix("https://").unwrap_or(&issuer);
    let clients = state.accounts.provider(account, bare).ok_or_else(|| {
        let message = format!("No OpenIDConnect provider found in your account for {issuer}");
        Refusal::new(INVALID, 400, message)
    })?;
    // Of more than one audience AWS does not say which a policy's condition would be asked about.
    let audience = match unverified.audiences()[..] {
        [one] if clients.iter().any(|it| it == one) => one.to_owned(),
        _ => return Err(Refusal::new(INVALID, 400, "Incorrect token audience")),
    };
    let claims = unverified.verify(&state.issuers, now).map_err(refusal)?;

    let provider = format!("arn:{partition}:iam::{account}:oidc-provider/{bare}");
    let asker = asker(&claims, &provider, bare, &audience, session);
    // AWS answers the same for a role that does not exist.
    let role = state
        .accounts
        .by_arn(role_arn)
        .filter(|role| role.kind == Kind::Role && trusts(role, &asker))
        .ok_or_else(|| {
            let message = format!("Not authorized to perform sts:{OPERATION}");
            Refusal::new("AccessDenied", 403, message)
        })?
        .clone();
    let result = [
        open(state, &role, session, lifetime, now),
        tag("SubjectFromWebIdentityToken", claims.subject()),
        tag("Audience", &audience),
        tag("Provider", &provider),
    ];
    Ok(Answer::Xml(Some(result.concat())))
}

fn asker(claims: &Claims, provider: &str, issuer: &str, audience: &str, session: &str) -> Asker {
    let issuer = issuer.to_ascii_lowercase();
    let keys = [
        (format!("{issuer}:aud"), audience),
        (format!("{issuer}:sub"), claims.subject()),
        ("aws:federatedprovider".to_owned(), provider),
        ("sts:rolesessionname".to_owned(), session),
    ];
    let keys = keys.into_iter();
    Asker {
        action: "sts:AssumeRoleWithWebIdentity",
        kind: "Federated",
        names: vec![provider.to_owned()],
        keys: keys
            .map(|(key, value)| (key, value.to_owned()))
            .collect::<BTreeMap<String, String>>(),
    }
}

fn refusal(flaw: Flaw) -> Refusal {
    let message = match flaw {
        Flaw::Expired(now, expired) => {
            let message = format!(
                "Token expired: current date/time {now} must be before the expiration \
                date/time {expired}"
            );
            return Refusal::new("ExpiredTokenException", 400, message);
        }
        Flaw::Unreachable => {
            let message = "The identity provider could not be reached";
            return Refusal::new("IDPCommunicationError", 400, message);
        }
        Flaw::Malformed => {
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an \
            Access Token)"
        }
        Flaw::Lacks(claim) => {
            let message = format!("Missing a required claim: {claim}");
            return Refusal::new(INVALID, 400, message);
        }
        Flaw::UnknownKey => {
            "Couldn't retrieve verification key from your identity provider,  please reference \
            AssumeRoleWithWebIdentity documentation for requirements"
        }
        Flaw::Forged => "The token's signature does not hold",
        Flaw::Early => "The token is not valid yet",
    };
    Refusal::new(INVALID, 400, message)
}
