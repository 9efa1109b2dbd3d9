//! A policy back to grants: the manifests that compile to what it allows.
//!
//! Statements that grants cannot express stay out, whole, each with its reason; a plan in mode
//! `Merge` keeps them as another writer's.
//!
//! # Guarantees
//!
//! The grants compile to exactly what the statements that did not stay out mean together.

mod body;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use self::body::Body;
use super::compile::Compiler;
use super::document::{Document, Statement};
use super::domain::Domain;
use super::permission::{Permission, Permissions};
use super::service_account::Resolutions;
use super::validate::{self, DomainFacts};
use super::{Rejection, canonical};
use crate::api::access::{Conditions, DomainAccess, Principal};
use crate::api::domain::OpenSearchDomain;

/// What a policy comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The domain, with a consent entry that covers the grants.
    pub domain: OpenSearchDomain,
    /// The grants.
    pub grants: Vec<DomainAccess>,
    /// The statements that stay out.
    pub left_out: Vec<LeftOut>,
}

/// A statement that grants cannot express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its place in the document.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// The domain that a policy is of, and where its grants go.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The domain's name in AWS.
    pub domain_name: String,
    /// The domain's account.
    pub account: String,
    /// The domain's region.
    pub region: String,
    /// The namespace of the grants.
    pub namespace: String,
    /// What is known of the domain beside its policy.
    pub facts: DomainFacts,
    /// The role to work through, and its external id.
    pub assume_role: Option<(String, Option<String>)>,
}

/// Who is granted something, and under which condition: by the policy's spelling.
type Holder<'a> = (&'a str, &'a str);

/// Turns a policy into manifests.
pub fn import(policy: &Document, target: &Target) -> Result<Import, Vec<Rejection>> {
    let bare = Domain::parse(&manifest::domain(target, &[]))?;
    let mut left_out = Vec::new();
    let mut meanings: BTreeMap<usize, Permissions> = BTreeMap::new();
    for (index, statement) in policy.statements().iter().enumerate() {
        match expressible(statement, &bare, target) {
            Ok(meaning) => {
                meanings.insert(index, meaning);
            }
            Err(reason) => left_out.push(LeftOut { index, reason }),
        }
    }
    // A statement that stays out takes away from what the others were part of: a level, say.
    loop {
        let mut wanted = Permissions::default();
        for meaning in meanings.values() {
            wanted.extend(meaning);
        }
        let grants = manifest::grants(&bodies(&wanted, &bare), target);
        let manifest = manifest::domain(target, &grants);
        let domain = Domain::parse(&manifest)?;
        let (grants, compiled) = compiled(grants, &domain, target.facts);
        let uncovered: Vec<usize> = meanings
            .iter()
            .filter(|(_, meaning)| !meaning.is_subset(&compiled))
            .map(|(index, _)| *index)
            .collect();
        if uncovered.is_empty() {
            left_out.sort_by_key(|it| it.index);
            return Ok(Import {
                domain: manifest,
                grants,
                left_out,
            });
        }
        for index in uncovered {
            meanings.remove(&index);
            let reason = "its actions and resources are neither a level of access nor actions on index paths, each with everything below it".to_owned();
            left_out.push(LeftOut { index, reason });
        }
    }
}

/// Returns the grants that the operator would accept, and what they compile to.
fn compiled(
    grants: Vec<DomainAccess>,
    domain: &Domain,
    facts: DomainFacts,
) -> (Vec<DomainAccess>, Permissions) {
    let mut permissions = Permissions::default();
    let mut kept = Vec::new();
    for object in grants {
        let (accounts, then) = (Resolutions::default(), Timestamp::UNIX_EPOCH);
        if let Ok(grant) = validate::grant(&object, domain, facts, &accounts, None, then) {
            permissions.extend(&Compiler::new(domain, facts).grant(&grant).permissions);
            kept.push(object);
        }
    }
    (kept, permissions)
}

/// Returns what a statement means, if grants can say who and under which condition.
fn expressible(
    statement: &Statement,
    domain: &Domain,
    target: &Target,
) -> Result<Permissions, String> {
    let members = statement.members();
    if statement.denies() {
        return Err("it denies, and grants only allow".to_owned());
    }
    for element in ["NotAction", "NotPrincipal", "NotResource"] {
        if members.contains_key(element) {
            return Err(format!("grants have no {element}"));
        }
    }
    if let Some(Value::Object(kinds)) = members.get("Principal")
        && let Some(kind) = kinds.keys().find(|kind| *kind != "AWS")
    {
        return Err(format!("grants name no principal of kind {kind}"));
    }
    let meaning = canonical::permissions(statement, &domain.arn)
        .ok_or("it has an element, a principal or an action that grants have not")?;
    if meaning.is_empty() {
        return Err("it has no effect: its actions are not about its resources".to_owned());
    }
    let holders: BTreeSet<Holder<'_>> = meaning
        .iter()
        .map(|(permission, _)| (&*permission.principal, &*permission.condition))
        .collect();
    for (name, condition) in holders {
        let principal = principal(name)
            .ok_or_else(|| format!("{name:?} is not a role, a user, an account or \"*\""))?;
        let conditions =
            conditions(condition).ok_or_else(|| format!("grants have no condition {condition}"))?;
        // The rules for who and from where are the operator's own.
        let probe = Body::probe().to_grant("probe", vec![principal], conditions, target);
        let consenting = manifest::domain(target, std::slice::from_ref(&probe));
        let consenting = Domain::parse(&consenting).map_err(|broken| said(&broken))?;
        let (accounts, then) = (Resolutions::default(), Timestamp::UNIX_EPOCH);
        validate::grant(&probe, &consenting, target.facts, &accounts, None, then)
            .map_err(|refusal| refusal.into_rejection().rule)?;
    }
    Ok(meaning)
}

fn said(broken: &[Rejection]) -> String {
    let broken: Vec<&str> = broken.iter().map(|it| it.rule.as_str()).collect();
    broken.join("; ")
}

/// Returns every distinct body, with the principals that have it under a condition.
fn bodies(
    wanted: &Permissions,
    domain: &Domain,
) -> Vec<(Body, Vec<Principal>, Option<Conditions>)> {
    let mut held: BTreeMap<Holder<'_>, Permissions> = BTreeMap::new();
    for (permission, actions) in wanted.iter() {
        let holder = (&*permission.principal, &*permission.condition);
        let own = Permission {
            principal: "".into(),
            condition: "".into(),
            ..permission.clone()
        };
        held.entry(holder).or_default().insert(own, actions);
    }
    let mut grouped: BTreeMap<(Body, &str), Vec<Principal>> = BTreeMap::new();
    for ((name, condition), permissions) in held {
        for body in body::recognise(&permissions, domain) {
            let named = grouped.entry((body, condition)).or_default();
            named.extend(principal(name));
        }
    }
    let grouped = grouped.into_iter();
    grouped
        .map(|((body, condition), named)| (body, named, conditions(condition).flatten()))
        .collect()
}

/// Spells a principal as a manifest does.
fn principal(name: &str) -> Option<Principal> {
    use crate::api::access::{Account, Anonymous, IamRole, IamUser};
    let arn = name.to_owned();
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    let mut principal = Principal::default();
    match parts.as_slice() {
        ["*"] => principal.anonymous = Some(Anonymous {}),
        ["arn", _, "iam", "", account, "root"] => {
            let id = (*account).to_owned();
            principal.account = Some(Account { id });
        }
        ["arn", _, "iam", "", _, role] if role.starts_with("role/") => {
            principal.iam_role = Some(IamRole { arn });
        }
        ["arn", _, "iam", "", _, user] if user.starts_with("user/") => {
            principal.iam_user = Some(IamUser { arn });
        }
        _ => return None,
    }
    Some(principal)
}

/// Spells a canonical condition as a manifest does; `None` where grants have no such condition.
#[allow(
    clippy::option_option,
    reason = "no condition at all is expressible too"
)]
fn conditions(canonical: &str) -> Option<Option<Conditions>> {
    if canonical.is_empty() {
        return Some(None);
    }
    let Ok(Value::Object(operators)) = serde_json::from_str(canonical) else {
        return None;
    };
    let mut conditions = Conditions::default();
    for (operator, keys) in &operators {
        for (key, values) in keys.as_object()? {
            let values = match values {
                Value::String(one) => vec![one.clone()],
                many => serde_json::from_value(many.clone()).ok()?,
            };
            let field = match (operator.as_str(), key.as_str()) {
                ("IpAddress", "aws:SourceIp") => &mut conditions.source_ips,
                ("StringEquals", "aws:PrincipalOrgID") => &mut conditions.principal_org_ids,
                ("StringEquals", "aws:PrincipalAccount") => &mut conditions.principal_accounts,
                ("StringEquals", "aws:SourceVpc") => &mut conditions.source_vpcs,
                ("StringEquals", "aws:SourceVpce") => &mut conditions.source_vpces,
                _ => return None,
            };
            *field = values;
        }
    }
    Some(Some(conditions))
}

#[cfg(test)]
mod tests;
