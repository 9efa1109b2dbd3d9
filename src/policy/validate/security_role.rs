//! The roles of the security plugin that a grant names.

use super::{DomainFacts, Principal};
use crate::api::condition::Reason;
use crate::policy::Rejection;

/// Checks the roles that a grant names, by the rules that need no consent.
pub(super) fn check(
    roles: &[String],
    principals: &[Principal],
    facts: DomainFacts,
) -> Result<(), Rejection> {
    const FIELD: &str = "spec.securityRoles";
    if roles.is_empty() {
        return Ok(());
    }
    for (index, role) in roles.iter().enumerate() {
        if role.starts_with('/') || role.contains(['*', '?']) {
            return Err(Rejection::invalid(
                format!("{FIELD}[{index}]"),
                "must be names of roles, without wildcards",
            ));
        }
    }
    let unmapped = |it: &&Principal| matches!(it, Principal::Account(_) | Principal::Anyone);
    if principals.iter().find(unmapped).is_some() {
        return Err(Rejection::invalid(
            FIELD,
            "securityRoles map IAM roles, IAM users and service accounts: put account and anonymous principals into another grant",
        ));
    }
    if !facts.fine_grained {
        return Err(Rejection::new(
            Reason::NoFineGrainedAccess,
            FIELD,
            "the domain has no fine-grained access control, and so no roles: leave securityRoles out, or have it turned on (where AWS is not asked, spec.fineGrainedAccess of the domain says that it is)",
        ));
    }
    let Some(most) = facts.name_limit else {
        return Ok(());
    };
    let names = principals.iter().flat_map(Principal::entities);
    match names.map(ToString::to_string).find(|it| it.len() > most) {
        None => Ok(()),
        Some(name) => Err(Rejection::invalid(
            FIELD,
            format!(
                "{name} is longer than the {most} characters that the domain's security plugin takes: use a principal with a shorter path"
            ),
        )),
    }
}
