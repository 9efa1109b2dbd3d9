//! What users see: conditions, counts and Events, on every path and only where they changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tracing::warn;

use super::apply::{Applied, Door, PATCHES, publish};
use super::conditions as said;
use super::context::Context;
use super::defined;
use super::error::Error;
use super::guarded::Grant;
use super::observe::{Cluster, Observed};
use super::queue::Domain as GuardedDomain;
use crate::api::access::{DomainAccess, DomainAccessStatus, ResolvedServiceAccount};
use crate::api::condition::{Reason, Statement, condition_type as ty, conditions};
use crate::api::domain::{
    AccessPolicyStatus, GrantCounts, OpenSearchDomain, OpenSearchDomainStatus,
};
use crate::api::name::FIELD_MANAGER;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::plan::{Outcome, Plan};
use crate::runtime::metrics::DomainFigures;

/// Shows what a reconcile came to; tells whether every grant's status could be written.
pub async fn reconciled(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> Result<bool, Error> {
    let mut counts = GrantCounts::default();
    let mut refused: BTreeMap<&'static str, i64> = BTreeMap::new();
    let mut statuses = Vec::new();
    for (key, outcome) in &plan.outcomes {
        let object = cluster.grant(key);
        // A change that the domain takes over now was the reason for it only if it was not in
        // force before: what was stays.
        let settled = observed.domain.policy_active || object.is_some_and(|it| was_ready(it));
        let said = said::grant(domain, key, outcome, applied, settled);
        match said.first().map(|ready| (ready.status, ready.reason)) {
            _ if *outcome == Outcome::Deleting => {}
            Some((Some(true), _)) => counts.applied += 1,
            _ if matches!(outcome, Outcome::Granted { .. }) => counts.pending += 1,
            ready => {
                counts.refused += 1;
                if let Some((_, reason)) = ready {
                    *refused.entry(reason.as_str()).or_default() += 1;
                }
            }
        }
        let shown = shown(outcome);
        // Its finalizer is taken off right after this, under the version that was looked at.
        let goes = *outcome == Outcome::Deleting
            && super::reconcile::is_revoked(plan, applied, observed)
            && !applied.attached_still.contains(&key.uid);
        // It is read back in a moment, and told then: with many grants, each write counts.
        let soon = applied.written == Some(true)
            && matches!(outcome, Outcome::Granted { in_place, .. } if !in_place);
        if let Some(object) = object.filter(|_| !goes && !soon) {
            statuses.push((Arc::clone(object), said, shown));
        }
    }
    let last = observed.kept.state.as_ref();
    let figures = DomainFigures {
        applied: counts.applied.into(),
        pending: counts.pending.into(),
        refused,
        policy_bytes: count(observed.domain.policy.len()).into(),
        drifted: last.is_some_and(|last| last.is_drifted(&observed.policy, &domain.arn)),
    };
    context.metrics.domain(&domain.name, figures);
    let mut all = write_grants(context, statuses, now).await;
    all &= unreadable_grants(context, cluster, observed, now).await;

    let before = cluster.object.status.clone().unwrap_or_default();
    let last_write = match applied.door {
        _ if applied.written.is_some() => Some(Time(now)),
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
        endpoint: observed.domain.endpoint.clone(),
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
            said::domain(plan, applied, &counts, observed),
            cluster.object.metadata.generation,
            now,
        ),
        grants: Some(counts),
    };
    write_domain(context, &cluster.object, status).await?;
    Ok(all)
}

/// Tells whether a grant's status says that it is in force as it is now.
fn was_ready(grant: &DomainAccess) -> bool {
    let conditions = grant.status.iter().flat_map(|status| &status.conditions);
    let applied = conditions
        .into_iter()
        .find(|condition| condition.type_ == ty::ACCESS_POLICY_APPLIED);
    applied.is_some_and(|condition| {
        condition.status == "True" && condition.observed_generation == grant.metadata.generation
    })
}

/// Tells whether a grant without a domain may be in force still: it was when the domain was last
/// looked at.
fn was_left(grant: &DomainAccess) -> bool {
    let conditions = grant.status.iter().flat_map(|status| &status.conditions);
    let applied = conditions
        .into_iter()
        .find(|condition| condition.type_ == ty::ACCESS_POLICY_APPLIED);
    applied.is_some_and(|condition| {
        let told = condition.reason == Reason::DomainNotFound.as_str();
        condition.status == "True" || condition.status == "Unknown" && told
    })
}

/// Shows that what grants had is revoked together with their domain.
pub async fn revoked_with_domain(context: &Context, cluster: &Cluster, now: Timestamp) {
    let name = cluster.object.name_any();
    let message = format!(
        "spec.domainRef.name: OpenSearchDomain {name} is deleted, and the grant is revoked with it"
    );
    let said = [ty::READY, ty::ACCESS_POLICY_APPLIED]
        .map(|type_| Statement::fails(type_, Reason::DomainNotFound, message.clone()));
    let statuses = cluster.grants.iter();
    let statuses = statuses.filter(|grant| grant.metadata.deletion_timestamp.is_none());
    let statuses = statuses
        .map(|grant| (Arc::clone(grant), said.to_vec(), Shown::default()))
        .collect();
    write_grants(context, statuses, now).await;
    defined::removed_with_domain(context, cluster, now).await;
}

/// Shows that this version cannot read grants; tells whether all could be told.
pub async fn unreadable_grants(
    context: &Context,
    cluster: &Cluster,
    observed: &Observed,
    now: Timestamp,
) -> bool {
    let mut all = true;
    for (key, grant, unreadable) in cluster.unreadable_of(observed.kept.state.as_ref()) {
        let message = format!(
            "this version of the operator cannot read the grant: {}; what is in force of it stays until it is corrected or deleted",
            unreadable.error
        );
        let said = vec![Statement::fails(ty::READY, Reason::InvalidSpec, message)];
        let before = &unreadable.conditions;
        let generation = grant.meta().generation;
        let now = conditions(before, said, generation, now);
        if grant.meta().deletion_timestamp.is_some() || now == *before {
            continue;
        }
        let api: Api<Grant> = Api::namespaced(context.client.clone(), &key.namespace);
        let status = json!({"observedGeneration": generation, "conditions": now});
        if let Err(error) = patch(&api, &key.name, &status).await {
            warn!(namespace = %key.namespace, grant = %key.name, "{error}");
            all = false;
            continue;
        }
        tell(context, grant.as_ref(), before, &now).await;
    }
    all
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
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

/// Shows that another object manages the same domain.
pub async fn rivalled(
    context: &Context,
    cluster: &Cluster,
    older: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let (object, name) = (&cluster.object, cluster.object.name_any());
    let mut status = object.status.clone().unwrap_or_default();
    let message = format!(
        "OpenSearchDomain {older} is older and names the same domain in AWS: delete one of the two; this one writes nothing until then"
    );
    let said = [ty::READY, ty::ACCESS_POLICY_APPLIED]
        .map(|type_| Statement::fails(type_, Reason::Conflicted, message.clone()));
    let generation = object.metadata.generation;
    status.conditions = conditions(&status.conditions, said.to_vec(), generation, now);
    status.observed_generation = generation;
    write_domain(context, object, status).await?;

    let message = format!(
        "domain {name} is not written, because OpenSearchDomain {older} names the same domain in AWS: name that one, or ask the platform's admins to delete one of the two"
    );
    let said = [ty::READY, ty::ACCESS_POLICY_APPLIED]
        .map(|type_| Statement::fails(type_, Reason::Conflicted, message.clone()));
    let statuses = cluster
        .grants
        .iter()
        .map(|grant| (Arc::clone(grant), said.to_vec(), Shown::default()))
        .collect();
    write_grants(context, statuses, now).await;
    let why = (Reason::Conflicted, message.as_str());
    defined::waiting(context, cluster, true, why, now).await;
    Ok(())
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
        .map(|grant| (Arc::clone(grant), said(), Shown::default()))
        .collect();
    write_grants(context, statuses, now).await;
    defined::waiting(context, cluster, false, (reason, &waiting), now).await;
    Ok(())
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
    patch::<GuardedDomain>(
        &Api::all(context.client.clone()),
        &object.name_any(),
        &status,
    )
    .await
}

/// Shows that the domain of grants does not exist; tells whether all could be told.
pub async fn orphaned(
    context: &Context,
    domain: &str,
    grants: Vec<Arc<DomainAccess>>,
    now: Timestamp,
) -> bool {
    let rejection = Rejection::new(
        Reason::DomainNotFound,
        "spec.domainRef.name",
        format!(
            "no OpenSearchDomain {domain:?} exists: correct the name, or ask the platform's admins to create it"
        ),
    );
    let statuses = grants.into_iter().map(|grant| {
        let said = said::orphaned(&rejection, was_left(&grant));
        (grant, said, Shown::default())
    });
    write_grants(context, statuses.collect(), now).await
}

type GrantStatus = (Arc<DomainAccess>, Vec<Statement>, Shown);

/// What a grant's status shows beside its conditions.
#[derive(Default)]
struct Shown {
    expires_at: Option<Time>,
    service_accounts: Vec<ResolvedServiceAccount>,
}

/// Returns what to show of a grant beside its conditions; each service account once.
fn shown(outcome: &Outcome) -> Shown {
    let Outcome::Granted {
        expires_at,
        service_accounts,
        ..
    } = outcome
    else {
        return Shown::default();
    };
    let accounts: BTreeMap<&str, ResolvedServiceAccount> = service_accounts
        .iter()
        .filter_map(|account| {
            let resolved = ResolvedServiceAccount {
                name: account.name.clone(),
                role_arn: account.roles.first()?.to_string(),
                source: account.proof?.source().to_owned(),
            };
            Some((account.name.as_str(), resolved))
        })
        .collect();
    Shown {
        expires_at: expires_at.map(Time),
        service_accounts: accounts.into_values().collect(),
    }
}

/// Writes statuses of grants; tells whether all could be. One that cannot must not keep the others
/// from going on: whoever may forbid it in one namespace must not decide about another's.
async fn write_grants(context: &Context, statuses: Vec<GrantStatus>, now: Timestamp) -> bool {
    stream::iter(statuses)
        .map(|(object, said, shown)| async move {
            let before = object.status.clone().unwrap_or_default();
            let generation = object.metadata.generation;
            let status = DomainAccessStatus {
                observed_generation: generation,
                expires_at: shown.expires_at,
                service_accounts: shown.service_accounts,
                conditions: conditions(&before.conditions, said, generation, now),
            };
            if status == before {
                return true;
            }
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<DomainAccess> = Api::namespaced(context.client.clone(), &namespace);
            if let Err(error) = patch(&api, &object.name_any(), &json!(status)).await {
                warn!(%namespace, grant = %object.name_any(), "{error}");
                return false;
            }
            tell(
                context,
                object.as_ref(),
                &before.conditions,
                &status.conditions,
            )
            .await;
            true
        })
        .buffer_unordered(PATCHES)
        .fold(true, async |all, written| all && written)
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

pub(super) async fn patch<K>(api: &Api<K>, name: &str, status: &Value) -> Result<(), Error>
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

/// Publishes an Event where an object became ready, is ready as it was changed, or fails in a new
/// way; none for waiting.
pub(super) async fn tell<K>(context: &Context, object: &K, before: &[Condition], now: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let ready = |list: &[Condition]| list.iter().find(|c| c.type_ == ty::READY).cloned();
    let (before, Some(now)) = (ready(before), ready(now)) else {
        return;
    };
    let said = |it: &Condition| (it.status.clone(), it.reason.clone(), it.message.clone());
    let quiet = [Reason::Pending, Reason::DomainProcessing, Reason::Throttled];
    let is_ready = now.status == "True";
    let news = match &before {
        Some(before) if is_ready => {
            before.status != "True" || before.observed_generation != now.observed_generation
        }
        Some(before) => said(before) != said(&now),
        None => true,
    };
    if !news || quiet.iter().any(|it| it.as_str() == now.reason) {
        return;
    }
    let type_ = if is_ready {
        EventType::Normal
    } else {
        EventType::Warning
    };
    publish(
        context,
        object,
        type_,
        &now.reason,
        "Reconcile",
        now.message,
    )
    .await;
}
