//! Consent: which ceiling holds for a namespace, and whether a grant lies within it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::SelectorExt;

use super::compile::{self, PathScope};
use super::domain::{Domain, Limits, TEMPLATE};
use super::service_account::Proof;
use super::validate::{Principal, ValidatedGrant, end_of};
use super::{Rejection, address, glob};
use crate::api::arn::EntityArn;
use crate::api::condition::Reason;

/// Finds the ceiling for grants of a namespace: the first entry that names it, or else the first
/// that selects it.
pub(super) fn limits<'a>(
    domain: &'a Domain,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<&'a Limits, Rejection> {
    let named = domain
        .consent
        .iter()
        .find(|entry| entry.namespaces.iter().any(|name| name == namespace));
    let selected = || {
        domain.consent.iter().find(|entry| {
            // A namespace that is not known yet is selected by nothing, not even by `DoesNotExist`.
            let selector = entry.selector.as_ref().zip(labels);
            selector.is_some_and(|(selector, labels)| selector.matches(labels))
        })
    };
    named.or_else(selected).map(|entry| &entry.ceiling).ok_or_else(|| {
        Rejection::new(
            Reason::NotPermitted,
            "spec.domainRef",
            format!(
                "domain {} has no consent for namespace {namespace}: ask its admin to add the namespace to spec.consent",
                domain.name
            ),
        )
    })
}

/// Tells whether a namespace has consent to name its service accounts.
#[must_use]
pub fn lets_in_accounts(
    domain: &Domain,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    limits(domain, namespace, labels).is_ok_and(|limits| limits.service_accounts)
}

fn over(field: impl Into<String>, rule: impl Into<String>) -> Rejection {
    Rejection::new(Reason::OverCeiling, field, rule)
}

/// Checks that a grant asks for no more than its ceiling.
pub(super) fn check(
    grant: &ValidatedGrant,
    domain: &Domain,
    limits: &Limits,
    now: Timestamp,
) -> Result<(), Rejection> {
    let namespace = &grant.key.namespace;
    let fill = |pattern: &String| pattern.replace(TEMPLATE, namespace);
    check_access(
        grant,
        limits,
        &limits.paths.iter().map(fill).collect::<Vec<_>>(),
    )?;
    let arns: Vec<String> = limits.arns.iter().map(fill).collect();
    for (index, principal) in grant.principals.iter().enumerate() {
        check_principal(grant, principal, index, limits, &arns)?;
    }
    for (index, block) in grant.restrictions.source_ips.iter().enumerate() {
        if !limits.source_ips.is_empty() && !address::is_within(*block, &limits.source_ips) {
            let bounds: Vec<String> = limits.source_ips.iter().map(ToString::to_string).collect();
            return Err(over(
                format!("spec.conditions.sourceIps[{index}]"),
                format!(
                    "{block} is outside the ceiling's sourceIps: {}",
                    bounds.join(", ")
                ),
            ));
        }
    }
    if grant.attach_identity_policy && !limits.identity_policies {
        return Err(over(
            "spec.identityPolicy",
            "the ceiling does not allow identity policies (identityPolicies)",
        ));
    }
    for (index, role) in grant.security_roles.iter().enumerate() {
        check_security_role(role, index, domain, limits, namespace)?;
    }
    match (grant.expires_at, limits.max_duration) {
        // The message has no time of its own: it would change with every look.
        (Some(end), Some(most)) if end > end_of(now, most) => Err(over(
            "spec.expiresAt",
            format!(
                "{end} is further ahead than the ceiling's maxDuration allows, {} hours: set an earlier time, and renew it later",
                most.as_hours()
            ),
        )),
        _ => Ok(()),
    }
}

/// Compares what the grant's access compiles to with what the ceiling's would, path by path, so
/// that levels and exact actions are held against one another by what they permit.
fn check_access(
    grant: &ValidatedGrant,
    limits: &Limits,
    bounds: &[String],
) -> Result<(), Rejection> {
    if !bounds.is_empty() {
        if grant.paths.is_empty() {
            return Err(over(
                "spec.paths",
                format!(
                    "without paths the grant is for the whole domain, and the ceiling allows: {}",
                    bounds.join(", ")
                ),
            ));
        }
        for (index, path) in grant.paths.iter().enumerate() {
            let below = format!("{path}/*");
            let covered = bounds.iter().any(|bound| {
                glob::covers(bound, path) || glob::covers(&format!("{bound}/*"), path)
            });
            let covered_below = path.ends_with('*')
                || bounds.iter().any(|bound| {
                    glob::covers(bound, &below) || glob::covers(&format!("{bound}/*"), &below)
                });
            if !covered || !covered_below {
                return Err(over(
                    format!("spec.paths[{index}]"),
                    format!(
                        "{path:?} is outside the ceiling's paths: {}",
                        bounds.join(", ")
                    ),
                ));
            }
        }
    }
    let wanted = compile::scopes(&grant.access);
    let allowed = compile::scopes(&limits.access);
    let exceeds = |scope: PathScope| {
        let most = allowed
            .iter()
            .filter(|(granted, _)| granted.covers(scope))
            .fold(compile::ActionSet::default(), |set, (_, actions)| {
                set.union(*actions)
            });
        wanted
            .iter()
            .filter(|(asked, _)| *asked == scope)
            .find_map(|(_, actions)| {
                let excess = actions.difference(most);
                (!excess.is_empty()).then_some(excess)
            })
    };
    match PathScope::ALL.into_iter().find_map(exceeds) {
        None => Ok(()),
        Some(excess) => Err(over(
            "spec.access",
            format!(
                "the ceiling ({}) does not allow {}",
                describe(limits),
                excess.names().join(", ")
            ),
        )),
    }
}

fn describe(limits: &Limits) -> String {
    match &limits.access {
        super::domain::Access::Level(level) => format!("access {}", level.as_str()),
        super::domain::Access::Actions(actions) => {
            let set = actions
                .iter()
                .fold(compile::ActionSet::default(), |set, action| {
                    set.union(compile::ActionSet::of(*action))
                });
            format!("actions {}", set.names().join(", "))
        }
    }
}

fn check_principal(
    grant: &ValidatedGrant,
    principal: &Principal,
    index: usize,
    limits: &Limits,
    arns: &[String],
) -> Result<(), Rejection> {
    let field = principal.field(index);
    match principal {
        Principal::Anyone if limits.anonymous => Ok(()),
        Principal::Anyone => Err(over(field, "the ceiling does not allow unsigned access")),
        Principal::Account(account) if limits.whole_accounts.contains(account) => Ok(()),
        Principal::Account(account) => Err(over(
            field,
            format!(
                "the ceiling does not allow account {account} as a whole (principals.wholeAccounts)"
            ),
        )),
        Principal::Entity(arn) if is_allowed(grant, arn, limits, arns) => Ok(()),
        Principal::Entity(arn) => Err(over(
            field,
            format!(
                "{arn} is not among the principals that the ceiling allows (principals.accounts, principals.arns, principals.organizationIds)"
            ),
        )),
        Principal::ServiceAccount(_) if !limits.service_accounts => Err(over(
            field,
            "the ceiling does not allow service accounts (principals.serviceAccounts)",
        )),
        Principal::ServiceAccount(account) if account.proof == Some(Proof::Annotation) => {
            let mut roles = account.roles.iter();
            match roles.find(|role| !is_allowed(grant, role, limits, arns)) {
                None => Ok(()),
                Some(role) => Err(over(
                    field,
                    format!(
                        "service account {}: its role {role} is of another account, whose trust policy the operator cannot read, and not among the principals that the ceiling allows (principals.accounts, principals.arns, principals.organizationIds)",
                        account.name
                    ),
                )),
            }
        }
        Principal::ServiceAccount(_) => Ok(()),
    }
}

/// The roles of the security plugin that only its own administrators have.
const PROTECTED: [&str; 2] = ["all_access", "security_manager"];

fn check_security_role(
    role: &str,
    index: usize,
    domain: &Domain,
    limits: &Limits,
    namespace: &str,
) -> Result<(), Rejection> {
    let field = || format!("spec.securityRoles[{index}]");
    if names_security_role(limits, role) {
        return Ok(());
    }
    if is_protected(domain, role) {
        return Err(over(
            field(),
            format!(
                "{role:?} is a protected role: the ceiling has to name it in full (securityRoles), without a wildcard"
            ),
        ));
    }
    let mut patterns = limits.security_roles.iter();
    let covered = patterns.any(|it| glob::matches(&it.replace(TEMPLATE, namespace), role));
    if covered {
        return Ok(());
    }
    Err(over(
        field(),
        format!("{role:?} is not among the roles that the ceiling allows (securityRoles)"),
    ))
}

/// Tells whether a role is one that the plugin, or the domain's admin, protects.
pub(super) fn is_protected(domain: &Domain, role: &str) -> bool {
    PROTECTED.contains(&role) || domain.protected_roles.iter().any(|it| it == role)
}

/// Tells whether a ceiling names a role of the security plugin in full.
fn names_security_role(limits: &Limits, role: &str) -> bool {
    limits.security_roles.iter().any(|it| it == role)
}

/// Tells whether the ceiling for a grant names a role of the security plugin in full.
#[must_use]
pub fn names_role(
    domain: &Domain,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    role: &str,
) -> bool {
    limits(domain, namespace, labels).is_ok_and(|limits| names_security_role(limits, role))
}

/// Tells whether a ceiling allows a role or a user by name.
fn is_allowed(grant: &ValidatedGrant, arn: &EntityArn, limits: &Limits, arns: &[String]) -> bool {
    let organizations = &grant.restrictions.principal_org_ids;
    let in_organization = !organizations.is_empty()
        && organizations
            .iter()
            .all(|id| limits.organization_ids.contains(id));
    let of_account = |account: &String| account == arn.account();
    limits.accounts.iter().any(of_account)
        || arns
            .iter()
            .any(|pattern| glob::matches(pattern, arn.as_str()))
        || in_organization
}
