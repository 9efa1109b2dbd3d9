//! What users see: conditions, counts and Events, on every path and only where they changed.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::apply::{Applied, Door, PATCHES, publish};
use super::context::Context;
use super::error::Error;
use super::observe::{Cluster, Observed};
use super::queue::Domain as GuardedDomain;
use crate::api::access::{DomainAccess, DomainAccessStatus};
use crate::api::condition::{Reason, Statement, condition_type as ty, conditions};
use crate::api::domain::{
    AccessPolicyStatus, GrantCounts, OpenSearchDomain, OpenSearchDomainStatus,
};
use crate::api::name::FIELD_MANAGER;
use crate::aws::error::Error as AwsError;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::GrantKey;

/// Shows what a reconcile came to.
pub async fn reconciled(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> Result<(), Error> {
    let mut counts = GrantCounts::default();
    let mut statuses = Vec::new();
    for (key, outcome) in &plan.outcomes {
        let said = grant(domain, key, outcome, applied);
        match said.first().map(|ready| (ready.status, ready.reason)) {
            _ if *outcome == Outcome::Deleting => {}
            Some((Some(true), _)) => counts.applied += 1,
            _ if matches!(outcome, Outcome::Granted { .. }) => counts.pending += 1,
            _ => counts.refused += 1,
        }
        let expires_at = match outcome {
            Outcome::Granted { expires_at, .. } => expires_at.map(Time),
            _ => None,
        };
        if let Some(object) = cluster.grant(key) {
            statuses.push((Arc::clone(object), said, expires_at));
        }
    }
    write_grants(context, statuses, now).await?;

    let before = cluster.object.status.clone().unwrap_or_default();
    let last_write = match applied.door {
        Door::Written => Some(Time(now)),
        _ => before
            .access_policy
            .as_ref()
            .and_then(|policy| policy.last_write.clone()),
    };
    let (would_add, would_remove) = match applied.door {
        Door::NotWritten { .. } => (
            Some(count(plan.added.len())),
            Some(count(plan.removed.len())),
        ),
        _ => (None, None),
    };
    let status = OpenSearchDomainStatus {
        observed_generation: cluster.object.metadata.generation,
        arn: Some(domain.arn.to_string()),
        access_policy: Some(AccessPolicyStatus {
            bytes: count(observed.domain.policy.len()),
            statements: count(observed.policy.statements().len()),
            foreign_statements: count(plan.foreign_statements),
            update_version: observed.domain.policy_version,
            last_write,
            would_add,
            would_remove,
        }),
        conditions: conditions(
            &before.conditions,
            domain_conditions(plan, applied, &counts, observed),
            cluster.object.metadata.generation,
            now,
        ),
        grants: Some(counts),
    };
    write_domain(context, &cluster.object, status).await
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn domain_conditions(
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
    vec![said(ty::READY), said(ty::ACCESS_POLICY_APPLIED)]
}

/// Says what becomes of a grant; `Ready` comes first.
fn grant(domain: &Domain, key: &GrantKey, outcome: &Outcome, applied: &Applied) -> Vec<Statement> {
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
            let message = "the grant is deleted; it is being revoked";
            return vec![Statement::fails(ty::READY, Reason::Pending, message)];
        }
    };
    let door = door(domain, in_place, by_others, &applied.door);
    let identity = applied.identity.get(key).map(identity);
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
    if let Some(warning) = warning {
        said.push(Statement::fails(
            ty::PATHS_ENFORCED,
            Reason::PathsNotEnforced,
            warning.clone(),
        ));
    }
    said
}

fn door(domain: &Domain, in_place: bool, by_others: bool, door: &Door) -> Statement {
    const TYPE: &str = ty::ACCESS_POLICY_APPLIED;
    let name = &domain.name;
    match door {
        Door::InForce if by_others => Statement::holds(
            TYPE,
            Reason::GrantedByOthers,
            format!(
                "in force on domain {name} by a statement that others wrote; deleting this grant does not revoke it"
            ),
        ),
        // Another grant's change does not make this one less true.
        Door::InForce
        | Door::Written
        | Door::Waiting { .. }
        | Door::Held { .. }
        | Door::NotWritten { .. }
            if in_place =>
        {
            Statement::holds(
                TYPE,
                Reason::Reconciled,
                format!("in force on domain {name}"),
            )
        }
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
            Statement::fails(TYPE, Reason::IdentityPolicyRefused, error.to_string())
        }
        Err(error) => Statement::fails(TYPE, super::error::aws_reason(error), error.to_string()),
    }
}

fn refused(rejection: &Rejection) -> Vec<Statement> {
    let (reason, message) = (rejection.reason, rejection.to_string());
    let fails = |type_| Statement::fails(type_, reason, message.clone());
    let found = matches!(reason, Reason::PrincipalNotFound | Reason::DomainNotFound);
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

fn undecided(rejection: &Rejection) -> Vec<Statement> {
    let message = format!("{rejection}; what is in force stays, nothing is added");
    [ty::READY, ty::RESOLVED_REFS, ty::ACCESS_POLICY_APPLIED]
        .into_iter()
        .map(|type_| Statement::unknown(type_, rejection.reason, message.clone()))
        .collect()
}

/// Shows that a reconcile could not go on. Grants that are in force stay shown so.
pub async fn failed(
    context: &Context,
    cluster: &Cluster,
    error: &Error,
    now: Timestamp,
) -> Result<(), Error> {
    blocked(context, cluster, error.reason(), &error.to_string(), now).await
}

/// Shows that the domain's object breaks rules.
pub async fn invalid(
    context: &Context,
    cluster: &Cluster,
    broken: &[Rejection],
    now: Timestamp,
) -> Result<(), Error> {
    let message: Vec<String> = broken.iter().map(ToString::to_string).collect();
    blocked(
        context,
        cluster,
        Reason::InvalidSpec,
        &message.join("; "),
        now,
    )
    .await
}

async fn blocked(
    context: &Context,
    cluster: &Cluster,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let object = &cluster.object;
    let mut status = object.status.clone().unwrap_or_default();
    let said = vec![
        Statement::fails(ty::READY, reason, message),
        Statement::unknown(ty::ACCESS_POLICY_APPLIED, reason, message),
    ];
    status.conditions = conditions(&status.conditions, said, object.metadata.generation, now);
    status.observed_generation = object.metadata.generation;
    write_domain(context, object, status).await?;

    let waiting = format!(
        "waiting for domain {}: its status says why",
        object.name_any()
    );
    let unseen = cluster.grants.iter().filter(|grant| {
        let status = grant.status.as_ref();
        status.and_then(|status| status.observed_generation) != grant.metadata.generation
    });
    let said = || {
        vec![
            Statement::fails(ty::READY, reason, waiting.clone()),
            Statement::unknown(ty::ACCESS_POLICY_APPLIED, reason, waiting.clone()),
        ]
    };
    let statuses = unseen
        .map(|grant| (Arc::clone(grant), said(), None))
        .collect();
    write_grants(context, statuses, now).await
}

/// Shows that this version cannot parse a domain.
pub async fn unreadable(
    context: &Context,
    object: &GuardedDomain,
    rule: &str,
) -> Result<(), Error> {
    let now = Timestamp::now();
    let said = vec![Statement::fails(ty::READY, Reason::InvalidSpec, rule)];
    let status = json!({"conditions": conditions(&[], said, object.meta().generation, now)});
    patch::<OpenSearchDomain>(
        &Api::all(context.client.clone()),
        &object.name_any(),
        &status,
    )
    .await
}

/// Shows that a grant's domain does not exist.
pub async fn orphaned(
    context: &Context,
    grant: &Arc<DomainAccess>,
    now: Timestamp,
) -> Result<(), Error> {
    let name = &grant.spec.domain_ref.name;
    let rejection = Rejection::new(
        Reason::DomainNotFound,
        "spec.domainRef.name",
        format!(
            "no OpenSearchDomain {name:?} exists: correct the name, or ask the platform's admins to create it"
        ),
    );
    let mut said = refused(&rejection);
    said.retain(|statement| statement.type_ != ty::ACCEPTED);
    write_grants(context, vec![(Arc::clone(grant), said, None)], now).await
}

type GrantStatus = (Arc<DomainAccess>, Vec<Statement>, Option<Time>);

async fn write_grants(
    context: &Context,
    statuses: Vec<GrantStatus>,
    now: Timestamp,
) -> Result<(), Error> {
    stream::iter(statuses)
        .map(|(object, said, expires_at)| async move {
            let before = object.status.clone().unwrap_or_default();
            let generation = object.metadata.generation;
            let status = DomainAccessStatus {
                observed_generation: generation,
                expires_at,
                conditions: conditions(&before.conditions, said, generation, now),
            };
            if status == before {
                return Ok(());
            }
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<DomainAccess> = Api::namespaced(context.client.clone(), &namespace);
            patch(&api, &object.name_any(), &json!(status)).await?;
            tell(
                context,
                object.as_ref(),
                &before.conditions,
                &status.conditions,
            )
            .await;
            Ok(())
        })
        .buffer_unordered(PATCHES)
        .try_collect()
        .await
}

async fn write_domain(
    context: &Context,
    object: &OpenSearchDomain,
    status: OpenSearchDomainStatus,
) -> Result<(), Error> {
    let before = object.status.clone().unwrap_or_default();
    if status == before {
        return Ok(());
    }
    let api: Api<OpenSearchDomain> = Api::all(context.client.clone());
    patch(&api, &object.name_any(), &json!(status)).await?;
    tell(context, object, &before.conditions, &status.conditions).await;
    Ok(())
}

async fn patch<K>(api: &Api<K>, name: &str, status: &Value) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch_status(name, &parameters, &Patch::Apply(&body))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::kubernetes("write a status")(error)),
    }
}

/// Publishes an Event where an object became ready, or fails in a new way; none for waiting.
async fn tell<K>(context: &Context, object: &K, before: &[Condition], now: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let ready = |list: &[Condition]| list.iter().find(|c| c.type_ == ty::READY).cloned();
    let Some(ready_now) = ready(now) else { return };
    let same = ready(before).is_some_and(|before| {
        (&before.status, &before.reason, &before.message)
            == (&ready_now.status, &ready_now.reason, &ready_now.message)
    });
    let was_ready = ready(before).is_some_and(|before| before.status == "True");
    let quiet = [Reason::Pending, Reason::DomainProcessing, Reason::Throttled];
    if same
        || quiet
            .iter()
            .any(|reason| ready_now.reason == reason.as_str())
    {
        return;
    }
    if ready_now.status == "True" {
        if !was_ready {
            let note = ready_now.message;
            publish(
                context,
                object,
                EventType::Normal,
                &ready_now.reason,
                "Reconcile",
                note,
            )
            .await;
        }
    } else {
        let note = ready_now.message;
        publish(
            context,
            object,
            EventType::Warning,
            &ready_now.reason,
            "Reconcile",
            note,
        )
        .await;
    }
}
