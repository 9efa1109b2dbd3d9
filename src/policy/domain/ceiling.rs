//! A ceiling parsed: the most that a grant may ask for, with every field keeping its rule.

use ipnet::IpNet;
use jiff::SignedDuration;

use super::Access;
use crate::api::arn::{EntityArn, EntityKind, is_account_id};
use crate::api::domain::{Ceiling, DefinitionCeiling, PrincipalCeiling};
use crate::policy::validate::{check_path, is_organization_id};
use crate::policy::{Rejection, address, duration};

/// How many grants a namespace may have on a domain where the ceiling does not say.
const DEFAULT_MAX_GRANTS: usize = 100;

/// What stands for the grant's namespace in a ceiling's patterns.
pub(in crate::policy) const TEMPLATE: &str = "{{namespace}}";

/// A ceiling whose every field keeps its rule.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The highest level, or the actions.
    pub access: Access,
    /// Patterns of paths, with `{{namespace}}` still in them; none: the whole domain.
    pub paths: Vec<String>,
    /// Accounts whose principals may be named.
    pub accounts: Vec<String>,
    /// Patterns of ARNs that may be named, with `{{namespace}}` still in them.
    pub arns: Vec<String>,
    /// Accounts that may be named as a whole.
    pub whole_accounts: Vec<String>,
    /// Organizations that a grant may be kept within.
    pub organization_ids: Vec<String>,
    /// Whether service accounts of the grant's namespace may be named.
    pub service_accounts: bool,
    /// Bounds of addresses.
    pub source_ips: Vec<IpNet>,
    /// Patterns of roles of the security plugin, with `{{namespace}}` still in them.
    pub security_roles: Vec<String>,
    /// What definitions may be beyond the usual, with `{{namespace}}` still in it.
    pub definitions: DefinitionCeiling,
    /// Whether unsigned access may be granted.
    pub anonymous: bool,
    /// Whether identity policies may be attached.
    pub identity_policies: bool,
    /// How many grants a namespace may have.
    pub max_grants: usize,
    /// The longest that a grant may last ahead of now.
    pub max_duration: Option<SignedDuration>,
}

pub(super) fn parse(ceiling: &Ceiling, field: &str) -> Result<Limits, Vec<Rejection>> {
    let mut broken = Vec::new();
    let access = Access::parse(ceiling.access, &ceiling.actions, field)
        .map_err(|rejection| broken.push(rejection));
    broken.extend(breaches(
        &format!("{field}.paths"),
        &ceiling.paths,
        check_path_pattern,
    ));
    let principals = ceiling.principals.clone().unwrap_or_default();
    broken.extend(broken_principals(
        &principals,
        &format!("{field}.principals"),
    ));
    let mut source_ips = Vec::new();
    for (index, text) in ceiling.source_ips.iter().enumerate() {
        match address::parse(text) {
            Some(block) => source_ips.push(block),
            None => broken.push(Rejection::invalid(
                format!("{field}.sourceIps[{index}]"),
                format!("{text:?} is not an IP address or a CIDR block"),
            )),
        }
    }
    let anonymous = ceiling.anonymous.unwrap_or_default();
    if anonymous && source_ips.is_empty() {
        broken.push(Rejection::invalid(
            format!("{field}.anonymous"),
            "anonymous needs sourceIps: the addresses that unsigned requests may come from",
        ));
    }
    let max_duration = match ceiling.max_duration.as_deref() {
        None => None,
        Some(text) => {
            let parsed = duration::parse(text);
            if parsed.is_none() {
                broken.push(Rejection::invalid(
                    format!("{field}.maxDuration"),
                    format!("{text:?} is not a duration, such as 12h or 90d"),
                ));
            }
            parsed
        }
    };
    let max_grants = ceiling.max_grants.map_or(DEFAULT_MAX_GRANTS, |most| {
        usize::try_from(most).unwrap_or_default()
    });
    match access {
        Ok(access) if broken.is_empty() => Ok(Limits {
            access,
            paths: ceiling.paths.clone(),
            accounts: principals.accounts,
            arns: principals.arns,
            whole_accounts: principals.whole_accounts,
            organization_ids: principals.organization_ids,
            service_accounts: principals.service_accounts.unwrap_or_default(),
            source_ips,
            security_roles: ceiling.security_roles.clone(),
            definitions: ceiling.definitions.clone().unwrap_or_default(),
            anonymous,
            identity_policies: ceiling.identity_policies.unwrap_or_default(),
            max_grants,
            max_duration,
        }),
        _ => Err(broken),
    }
}

/// Applies a rule to each item of a list, and names the item in each rejection.
pub(super) fn breaches(
    field: &str,
    items: &[String],
    rule: impl Fn(&str) -> Result<(), String>,
) -> Vec<Rejection> {
    let broken = |(index, item): (usize, &String)| {
        let rule = rule(item).err()?;
        Some(Rejection::invalid(format!("{field}[{index}]"), rule))
    };
    items.iter().enumerate().filter_map(broken).collect()
}

pub(super) fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Stands for the namespace where the form of a pattern is checked.
const ANY_NAMESPACE: &str = "n";

/// Checks a pattern of paths: a path in whose index name `{{namespace}}` may stand.
fn check_path_pattern(pattern: &str) -> Result<(), String> {
    let (index, rest) = match pattern.split_once('/') {
        Some((index, _)) => (index, pattern.get(index.len()..).unwrap_or_default()),
        None => (pattern, ""),
    };
    check_path(&format!("{}{rest}", index.replace(TEMPLATE, ANY_NAMESPACE)))
        .map_err(|rule| format!("{pattern:?}: {rule}"))
}

/// Checks a pattern of ARNs: what it may match is a role or a user of one account.
fn check_arn_pattern(pattern: &str) -> Result<(), String> {
    let filled = pattern.replace(TEMPLATE, ANY_NAMESPACE).replace('*', "x");
    parse_entity(&filled).map(drop).map_err(|_| {
        format!(
            "{pattern:?} is not a pattern of role or user ARNs with a full account id, such as arn:aws:iam::111122223333:role/{{{{namespace}}}}-*"
        )
    })
}

fn broken_principals(principals: &PrincipalCeiling, field: &str) -> Vec<Rejection> {
    let account = |text: &str| {
        require(is_account_id(text), || {
            format!("{text:?} is not an AWS account id: 12 digits, in quotes")
        })
    };
    let organization = |text: &str| {
        require(is_organization_id(text), || {
            format!("{text:?} is not an organization id, such as o-a1b2c3d4e5")
        })
    };
    [
        breaches(&format!("{field}.accounts"), &principals.accounts, account),
        breaches(
            &format!("{field}.arns"),
            &principals.arns,
            check_arn_pattern,
        ),
        breaches(
            &format!("{field}.wholeAccounts"),
            &principals.whole_accounts,
            account,
        ),
        breaches(
            &format!("{field}.organizationIds"),
            &principals.organization_ids,
            organization,
        ),
    ]
    .concat()
}

/// Parses the ARN of a role or of a user, whichever it names.
pub(super) fn parse_entity(text: &str) -> Result<EntityArn, String> {
    let kind = if text.contains(":user/") {
        EntityKind::User
    } else {
        EntityKind::Role
    };
    EntityArn::parse(text, kind).map_err(|error| error.to_string())
}
