//! What the conditions of a domain and of its grants say, from what a reconcile came to; no client.

use super::apply::{Applied, Door};
use super::observe::Observed;
use super::roles::{NotMapped, Roles};
use crate::api::condition::{Reason, Statement, condition_type as ty};
use crate::api::domain::GrantCounts;
use crate::aws::error::Error as AwsError;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::GrantKey;

/// Says what becomes of the domain; `Ready` comes first.
#[must_use]
pub fn domain(
    plan: &Plan,
    applied: &Applied,
    counts: &GrantCounts,
    observed: &Observed,
) -> Vec<Statement> {
    let said = |type_| match &applied.door {
        Door::InForce => Statement::holds(
            type_,
            Reason::Reconciled,
            format!(
                "the access policy has every accepted grant: {} in place, {} refused",
                counts.applied, counts.refused
            ),
        ),
        Door::Applying if observed.domain.failed_change.is_some() => Statement::fails(
            type_,
            Reason::ChangeFailed,
            "AWS accepted a change and failed it later: look at the domain's change progress in AWS",
        ),
        Door::Applying | Door::Written => Statement::fails(
            type_,
            Reason::Pending,
            "the access policy is written, and the domain takes it over",
        ),
        Door::Held { reason, message } | Door::Waiting { reason, message } => {
            Statement::fails(type_, *reason, message.clone())
        }
        Door::NotWritten { reason } => {
            let message = format!(
                "nothing is written: {} statements would be added and {} removed",
                plan.added.len(),
                plan.removed.len()
            );
            match (reason, plan.policy.is_none()) {
                (_, true) => Statement::holds(type_, *reason, "there is nothing to write"),
                (Reason::Observed, false) => Statement::fails(
                    type_,
                    *reason,
                    format!("{message}; set spec.accessPolicy.mode to Merge to write them"),
                ),
                _ => Statement::fails(
                    type_,
                    *reason,
                    format!("{message}; unset spec.suspend to write them"),
                ),
            }
        }
    };
    let ready = match &plan.withheld {
        // Louder than the rest of the policy being in order.
        Some(hold) => Statement::fails(ty::READY, hold.reason, hold.message.clone()),
        None => said(ty::READY),
    };
    let roles = applied.security.as_ref().map(|problem| match problem {
        Some(why) => Statement::fails(ty::SECURITY_ROLES_APPLIED, why.reason, why.message.clone()),
        None => Statement::holds(
            ty::SECURITY_ROLES_APPLIED,
            Reason::Reconciled,
            "the security plugin was read, and answers",
        ),
    });
    let ready = match &roles {
        Some(roles) if ready.status == Some(true) && roles.status != Some(true) => Statement {
            type_: ty::READY,
            ..roles.clone()
        },
        _ => ready,
    };
    let mut all = vec![ready, said(ty::ACCESS_POLICY_APPLIED)];
    all.extend(roles);
    all
}

/// Says what becomes of a grant; `Ready` comes first.
///
/// `settled` tells whether what is in the policy is in force, too.
pub fn grant(
    domain: &Domain,
    key: &GrantKey,
    outcome: &Outcome,
    applied: &Applied,
    settled: bool,
) -> Vec<Statement> {
    if let Some(Roles::Missing { why, door_in_place }) = applied.roles.get(key)
        && matches!(outcome, Outcome::Granted { .. } | Outcome::Undecided(_))
    {
        return unmapped(domain, why, *door_in_place && settled);
    }
    let (in_place, by_others, warning) = match outcome {
        Outcome::Granted {
            in_place,
            by_others,
            warning,
            ..
        } => (*in_place, *by_others, warning),
        Outcome::Refused(rejection) => return refused(rejection),
        Outcome::Undecided(rejection) => return undecided(rejection),
        Outcome::Deleting => {
            let still_attached = applied.attached_still.contains(&key.uid);
            return vec![deleting(domain, still_attached, &applied.door)];
        }
    };
    let door = door(domain, in_place && settled, by_others, &applied.door);
    let identity = applied.identity.get(key).map(identity);
    let roles = applied.roles.contains_key(key).then(|| {
        Statement::holds(
            ty::SECURITY_ROLES_APPLIED,
            Reason::Reconciled,
            "mapped to every role",
        )
    });
    let ready = [Some(&door), identity.as_ref()]
        .into_iter()
        .flatten()
        .find(|half| half.status != Some(true))
        .unwrap_or(&door);
    let mut said = vec![
        Statement {
            type_: ty::READY,
            ..ready.clone()
        },
        Statement::holds(
            ty::ACCEPTED,
            Reason::Reconciled,
            "the domain's consent allows the grant",
        ),
        Statement::holds(
            ty::RESOLVED_REFS,
            Reason::Reconciled,
            "the domain and the principals were found",
        ),
        door,
    ];
    said.extend(identity);
    said.extend(roles);
    if let Some(warning) = warning {
        said.push(Statement::fails(
            ty::PATHS_ENFORCED,
            Reason::PathsNotEnforced,
            *warning,
        ));
    }
    said
}

/// Says what becomes of a grant whose principals are not mapped to its roles; each half by itself.
fn unmapped(domain: &Domain, why: &NotMapped, door_in_place: bool) -> Vec<Statement> {
    let name = &domain.name;
    // What the plugin or the service says is for the domain's admin.
    let message = match why.reason {
        Reason::Observed => why.message.clone(),
        reason => format!(
            "the security plugin of domain {name} could not be written ({}): the domain's status says why; it is tried again by itself",
            reason.as_str()
        ),
    };
    let door = if door_in_place {
        let message = format!("in force on domain {name}");
        Statement::holds(ty::ACCESS_POLICY_APPLIED, Reason::Reconciled, message)
    } else {
        let message = "the door opens once the principals are mapped to their roles";
        Statement::fails(ty::ACCESS_POLICY_APPLIED, Reason::Pending, message)
    };
    vec![
        Statement::fails(ty::READY, why.reason, message.clone()),
        Statement::holds(
            ty::ACCEPTED,
            Reason::Reconciled,
            "the domain's consent allows the grant",
        ),
        door,
        Statement::fails(ty::SECURITY_ROLES_APPLIED, why.reason, message),
    ]
}

/// Says what a deleted grant waits for.
fn deleting(domain: &Domain, still_attached: bool, door: &Door) -> Statement {
    let name = &domain.name;
    let (reason, waits) = match door {
        Door::Held { reason, .. } => (
            *reason,
            format!("it is revoked once the admin of domain {name} has acted: its status says why"),
        ),
        Door::Waiting { reason, .. } => (
            *reason,
            format!(
                "it is revoked as soon as domain {name} can be written; that is tried again by itself"
            ),
        ),
        Door::NotWritten { reason } => (
            *reason,
            format!(
                "it is revoked once domain {name} is written again, which its admin has turned off"
            ),
        ),
        _ if still_attached => (
            Reason::Unavailable,
            "its inline policy could not be removed from a role yet; that is tried again by itself"
                .to_owned(),
        ),
        Door::InForce | Door::Written | Door::Applying => {
            (Reason::Pending, "it is being revoked".to_owned())
        }
    };
    let message = format!("the grant is deleted; {waits}");
    Statement::fails(ty::READY, reason, message)
}

fn door(domain: &Domain, in_place: bool, by_others: bool, door: &Door) -> Statement {
    const TYPE: &str = ty::ACCESS_POLICY_APPLIED;
    let name = &domain.name;
    match door {
        _ if in_place && by_others => Statement::holds(
            TYPE,
            Reason::GrantedByOthers,
            format!(
                "in force on domain {name} by a statement that others wrote; deleting this grant does not revoke it"
            ),
        ),
        // Another grant's change does not make this one less true.
        _ if in_place => Statement::holds(
            TYPE,
            Reason::Reconciled,
            format!("in force on domain {name}"),
        ),
        Door::Held { reason, .. } => Statement::fails(
            TYPE,
            *reason,
            format!("the admin of domain {name} has to act first: its status says why"),
        ),
        Door::Waiting { reason, .. } => Statement::fails(
            TYPE,
            *reason,
            format!("waiting to be written to domain {name}; it is tried again by itself"),
        ),
        Door::NotWritten { reason } => Statement::fails(
            TYPE,
            *reason,
            format!("domain {name} is not written at present, by its admin's word"),
        ),
        Door::InForce | Door::Written | Door::Applying => Statement::fails(
            TYPE,
            Reason::Pending,
            format!("written to domain {name}, which takes it over"),
        ),
    }
}

fn identity(result: &Result<(), AwsError>) -> Statement {
    const TYPE: &str = ty::IDENTITY_POLICY_APPLIED;
    match result {
        Ok(()) => Statement::holds(TYPE, Reason::Reconciled, "attached to every role"),
        Err(error @ (AwsError::Rejected { .. } | AwsError::NotFound)) => {
            Statement::fails(TYPE, Reason::IdentityPolicyRefused, error.brief())
        }
        Err(error) => Statement::fails(TYPE, super::error::aws_reason(error), error.brief()),
    }
}

/// Says why a grant is refused.
#[must_use]
pub fn refused(rejection: &Rejection) -> Vec<Statement> {
    let (reason, message) = (rejection.reason, rejection.to_string());
    let fails = |type_| Statement::fails(type_, reason, message.clone());
    let found = matches!(
        reason,
        Reason::DomainNotFound
            | Reason::PrincipalNotFound
            | Reason::RoleNotFound
            | Reason::RoleNotResolved
            | Reason::ServiceAccountNotFound
            | Reason::TrustNotProven
    );
    vec![
        fails(ty::READY),
        if found {
            Statement::holds(
                ty::ACCEPTED,
                Reason::Reconciled,
                "the domain's consent allows the grant",
            )
        } else {
            fails(ty::ACCEPTED)
        },
        if found {
            fails(ty::RESOLVED_REFS)
        } else {
            Statement::holds(
                ty::RESOLVED_REFS,
                Reason::Reconciled,
                "the domain was found",
            )
        },
        fails(ty::ACCESS_POLICY_APPLIED),
    ]
}

/// Says what becomes of a grant whose domain does not exist; `left` tells whether what it had may be
/// in force still.
#[must_use]
pub fn orphaned(rejection: &Rejection, left: bool) -> Vec<Statement> {
    let mut said = refused(rejection);
    said.retain(|statement| statement.type_ != ty::ACCEPTED);
    if left {
        for statement in &mut said {
            if statement.type_ == ty::ACCESS_POLICY_APPLIED {
                *statement = Statement::unknown(
                    ty::ACCESS_POLICY_APPLIED,
                    rejection.reason,
                    "what the grant had was left in the domain's access policy when its OpenSearchDomain was deleted; nobody looks after it, and deleting the grant does not revoke it",
                );
            }
        }
    }
    said
}

fn undecided(rejection: &Rejection) -> Vec<Statement> {
    let message = format!("{rejection}; what is in force stays, nothing is added");
    [ty::READY, ty::RESOLVED_REFS, ty::ACCESS_POLICY_APPLIED]
        .into_iter()
        .map(|type_| Statement::unknown(type_, rejection.reason, message.clone()))
        .collect()
}
