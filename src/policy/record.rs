//! How many grants the record of a domain has room for.
//!
//! A `ConfigMap` holds 1 MiB. The statements on record are bounded by the policy's own size; grants
//! that ask for the same share a statement, so their number is not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Rejection;
use super::compile::Compiled;
use super::ownership::AppliedGrant;
use super::plan::Input;
use super::validate::GrantKey;
use super::verdict::Verdict;
use crate::api::arn::EntityArn;
use crate::api::condition::Reason;

/// Up to so many bytes of the record are about grants. The statements, as they were and as they
/// will be, with a lost answer between, take up to 300 KiB beside.
pub const GRANTS_BUDGET: usize = 640 * 1024;

/// What JSON needs around a grant's names, and around those of an inline policy.
const AROUND_GRANT: usize = 64;
const AROUND_POLICY: usize = 8;

/// Returns the grants that the record has no room for, the youngest that are not on it.
///
/// What is on record counts even where it goes: it leaves the record once it has left the policy.
pub(super) fn beyond(
    input: &Input<'_>,
    compiled: &BTreeMap<GrantKey, Compiled>,
) -> BTreeMap<GrantKey, Rejection> {
    let empty = BTreeMap::new();
    let recorded = input.last.map_or(&empty, |last| &last.grants);
    let created = |key: &GrantKey| match input.grants.get(key) {
        Some(Verdict::Valid(grant) | Verdict::Undecided(grant, _)) => grant.created,
        _ => None,
    };
    let mut size: usize = recorded
        .iter()
        .map(|(uid, grant)| size_of(uid, grant))
        .sum();
    let needs = |key: &GrantKey, compiled: &Compiled| {
        let known = recorded.get(&key.uid);
        let policies: BTreeSet<(&str, &str)> = known
            .into_iter()
            .flat_map(|grant| &grant.identity_policies)
            .map(|(role, name)| (role.as_str(), name.as_str()))
            .collect();
        let new = compiled.identity_policies.iter();
        let new = new.map(|policy| (policy.role.as_str(), policy.name.as_str()));
        let more: usize = new
            .filter(|policy| !policies.contains(policy))
            .map(|(role, name)| role.len() + name.len() + AROUND_POLICY)
            .sum();
        let names = key.uid.len() + key.namespace.len() + key.name.len() + AROUND_GRANT;
        let accounts = match input.grants.get(key) {
            Some(Verdict::Valid(grant) | Verdict::Undecided(grant, _)) => grant
                .service_accounts()
                .map(|account| {
                    size_of_account(&account.name, account.roles.iter().map(EntityArn::as_str))
                })
                .sum(),
            _ => 0,
        };
        let has_accounts = known.is_some_and(|grant| !grant.service_accounts.is_empty());
        more + if known.is_none() { names } else { 0 } + if has_accounts { 0 } else { accounts }
    };
    let mut order: Vec<(&GrantKey, usize)> = compiled
        .iter()
        .map(|(key, compiled)| (key, needs(key, compiled)))
        .filter(|(_, more)| *more > 0)
        .collect();
    let total: usize = order.iter().map(|(_, more)| more).sum();
    if size + total <= GRANTS_BUDGET {
        return BTreeMap::new();
    }
    order.sort_by_cached_key(|(key, _)| (created(key).unwrap_or(Timestamp::MAX), (*key).clone()));
    let mut beyond = BTreeMap::new();
    for (key, more) in order {
        if size + more > GRANTS_BUDGET {
            beyond.insert(key.clone(), rejection());
        } else {
            size += more;
        }
    }
    beyond
}

fn size_of(uid: &str, grant: &AppliedGrant) -> usize {
    let policies: usize = grant
        .identity_policies
        .iter()
        .map(|(role, name)| role.len() + name.len() + AROUND_POLICY)
        .sum();
    let accounts: usize = grant
        .service_accounts
        .iter()
        .map(|(name, roles)| size_of_account(name, roles.iter().map(String::as_str)))
        .sum();
    uid.len() + grant.namespace.len() + grant.name.len() + AROUND_GRANT + policies + accounts
}

fn size_of_account<'a>(name: &str, roles: impl Iterator<Item = &'a str>) -> usize {
    let roles: usize = roles.map(|role| role.len() + AROUND_POLICY).sum();
    name.len() + roles + AROUND_POLICY
}

fn rejection() -> Rejection {
    Rejection::new(
        Reason::TooManyGrants,
        "",
        format!(
            "the operator's record of the domain has no room for another grant: {GRANTS_BUDGET} bytes hold their names, their roles and those of their inline policies; older grants stay. Join grants, or leave identityPolicy out"
        ),
    )
}
