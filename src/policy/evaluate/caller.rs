//! Who calls, and how a statement's principal covers the caller.

use serde_json::Value;

use super::element::texts;
use super::{Context, Request};
use crate::api::arn::{DomainArn, is_account_id};
use crate::policy::document::Statement;

/// How a statement's principal covers a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coverage {
    /// Not at all.
    None,
    /// Only some sessions of the role.
    Perhaps,
    /// By its account: IAM of that account decides.
    Account,
    /// By `*`.
    Everyone,
    /// By name.
    Named,
}

/// A caller's ARN, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller<'a> {
    arn: &'a str,
    partition: &'a str,
    pub(super) account: &'a str,
    /// For a session of a role: the role's name, without its path, which sessions do not carry.
    session_of: Option<&'a str>,
    /// For a role: its name, without its path.
    role: Option<&'a str>,
}

impl<'a> Caller<'a> {
    pub(super) fn parse(arn: &'a str) -> Self {
        let mut parts = arn.splitn(6, ':').skip(1);
        let partition = parts.next().unwrap_or_default();
        let mut parts = parts.skip(2);
        let account = parts.next().unwrap_or_default();
        let resource = parts.next().unwrap_or_default();
        let session_of = resource
            .strip_prefix("assumed-role/")
            .and_then(|rest| rest.split('/').next());
        let role = resource
            .strip_prefix("role/")
            .and_then(|rest| rest.rsplit('/').next());
        Self {
            arn,
            partition,
            account,
            session_of,
            role,
        }
    }
}

/// Adds to the context what the caller itself tells: an unsigned request has no principal's keys.
pub(super) fn with_caller(request: &Request, caller: Option<&Caller<'_>>) -> Context {
    let mut context = request.context.clone();
    match caller {
        None => {
            for key in [
                "aws:PrincipalArn",
                "aws:PrincipalAccount",
                "aws:PrincipalOrgID",
                "aws:PrincipalOrgPaths",
                "aws:PrincipalType",
                "aws:userid",
                "aws:username",
            ] {
                context.set_absent(key);
            }
        }
        Some(caller) => {
            context.set_default("aws:PrincipalAccount", caller.account);
            // The key holds the role's ARN with its path, which a session's ARN does not tell.
            if caller.session_of.is_none() {
                context.set_default("aws:PrincipalArn", caller.arn);
            }
        }
    }
    context
}

pub(super) fn coverage(
    statement: &Statement,
    caller: Option<&Caller<'_>>,
    domain: &DomainArn,
) -> Coverage {
    let members = statement.members();
    // The service does not support `NotPrincipal`; taken as covering everybody, a denial is not missed.
    let Some(principal) = members.get("Principal") else {
        return if members.contains_key("NotPrincipal") {
            Coverage::Perhaps
        } else {
            Coverage::None
        };
    };
    let named = match principal {
        Value::String(text) => vec![text.as_str()],
        Value::Object(kinds) => kinds.get("AWS").map(texts).unwrap_or_default(),
        _ => Vec::new(),
    };
    named
        .into_iter()
        .map(|name| covers(name, caller, domain))
        .max()
        .unwrap_or(Coverage::None)
}

fn covers(name: &str, caller: Option<&Caller<'_>>, domain: &DomainArn) -> Coverage {
    if name == "*" {
        return Coverage::Everyone;
    }
    let Some(caller) = caller else {
        return Coverage::None;
    };
    let root = |account: &str, partition: &str| {
        if account == caller.account && partition == caller.partition {
            Coverage::Account
        } else {
            Coverage::None
        }
    };
    if is_account_id(name) {
        return root(name, domain.partition());
    }
    if name == caller.arn {
        return Coverage::Named;
    }
    let principal = Caller::parse(name);
    if name.ends_with(":root") {
        return root(principal.account, principal.partition);
    }
    if (principal.account, principal.partition) != (caller.account, caller.partition) {
        return Coverage::None;
    }
    match (
        principal.role,
        principal.session_of,
        caller.role,
        caller.session_of,
    ) {
        // A role stands for each of its sessions; names are unlike within an account.
        (Some(role), _, _, Some(session_of)) if role == session_of => Coverage::Named,
        (_, Some(session_of), Some(role), _) if role == session_of => Coverage::Perhaps,
        _ => Coverage::None,
    }
}
