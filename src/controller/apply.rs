//! Performs a plan: records, writes, and lets go of what is revoked.
//!
//! The order is what makes every crash harmless: finalizers before statements, the record before
//! the write, identity policies before the door opens and after it closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use super::context::Context;
use super::error::{Error, aws_reason};
use super::observe::{Cluster, Observed};
use super::state::Keeper;
use crate::api::access::DomainAccess;
use crate::api::arn::{EntityArn, EntityKind};
use crate::api::condition::Reason;
use crate::api::domain::{OpenSearchDomain, PolicyMode};
use crate::api::name::{FIELD_MANAGER, FINALIZER};
use crate::aws::error::Error as AwsError;
use crate::aws::session::Clients;
use crate::aws::{domain as aws_domain, identity};
use crate::policy::canonical;
use crate::policy::compile::IdentityPolicy;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::GrantKey;

/// How many objects are patched at a time.
pub(super) const PATCHES: usize = 16;

/// What became of the door, the domain's access policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// The policy has what it should, and is in force.
    InForce,
    /// The policy has what it should; the domain is taking it over.
    Applying,
    /// The policy was written, and is to be read back.
    Written,
    /// A guard fired.
    Held {
        /// Why.
        reason: Reason,
        /// What to do.
        message: String,
    },
    /// The policy could not be written now.
    Waiting {
        /// Why.
        reason: Reason,
        /// What to do.
        message: String,
    },
    /// The policy is not to be written, by the admin's word.
    NotWritten {
        /// `Observed` or `Suspended`.
        reason: Reason,
    },
}

/// What became of a plan.
#[derive(Debug)]
pub struct Applied {
    /// The access policy.
    pub door: Door,
    /// The inline policies, by grant.
    pub identity: BTreeMap<GrantKey, Result<(), AwsError>>,
}

/// Performs a plan.
pub async fn apply(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
) -> Result<Applied, Error> {
    let only = |door| {
        Ok(Applied {
            door,
            identity: BTreeMap::new(),
        })
    };
    if let Some(hold) = &plan.hold {
        return only(Door::Held {
            reason: hold.reason,
            message: hold.message.clone(),
        });
    }
    if domain.mode == PolicyMode::Observe {
        return only(Door::NotWritten {
            reason: Reason::Observed,
        });
    }
    if domain.suspend {
        return only(Door::NotWritten {
            reason: Reason::Suspended,
        });
    }
    hold_domain(context, &cluster.object).await?;
    hold_grants(context, cluster, plan).await?;

    let mut kept = observed.kept.clone();
    let unrecorded = plan.identity_policies.iter().any(|(key, policy)| {
        !kept
            .state
            .as_ref()
            .and_then(|state| state.grants.get(&key.uid))
            .is_some_and(|grant| {
                grant
                    .identity_policies
                    .contains(&(policy.role.to_string(), policy.name.clone()))
            })
    });
    let waits = plan.policy.is_some() && observed.domain.processing;
    if unrecorded || (plan.policy.is_some() && !waits) {
        kept = observed
            .keeper
            .write(&kept, plan.intent(kept.state.as_ref()))
            .await?;
    }
    let identity = attach(&observed.clients, &plan.identity_policies).await;
    let door = match &plan.policy {
        Some(_) if waits => waiting(&AwsError::ChangeInProgress),
        Some(policy) => write(context, domain, cluster, observed, plan, policy).await?,
        None if observed.domain.policy_active => Door::InForce,
        None => Door::Applying,
    };
    if door == Door::InForce {
        detach(&observed.clients, plan).await?;
        if kept.state.as_ref() != Some(&plan.next) {
            observed.keeper.write(&kept, plan.next.clone()).await?;
        }
    }
    Ok(Applied { door, identity })
}

async fn write(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    policy: &Document,
) -> Result<Door, Error> {
    let text = policy.to_text();
    match aws_domain::update_policy(&observed.clients, &domain.domain_name, &text).await {
        Ok(()) => {
            let note = format!(
                "wrote the access policy: {} statements added, {} removed, {} characters",
                plan.added.len(),
                plan.removed.len(),
                text.chars().count()
            );
            info!(domain = %domain.name, arn = %domain.arn, "{note}");
            publish(
                context,
                &cluster.object,
                EventType::Normal,
                "PolicyWritten",
                "Write",
                note,
            )
            .await;
            Ok(Door::Written)
        }
        Err(error @ AwsError::ChangeInProgress) => Ok(waiting(&error)),
        Err(error @ (AwsError::PolicyRefused | AwsError::Rejected { .. })) => {
            context.forget_principals();
            Ok(waiting(&error))
        }
        Err(error) => Err(error.into()),
    }
}

fn waiting(error: &AwsError) -> Door {
    Door::Waiting {
        reason: aws_reason(error),
        message: error.to_string(),
    }
}

/// Attaches the inline policies that are missing or different.
async fn attach(
    clients: &Clients,
    wanted: &[(GrantKey, IdentityPolicy)],
) -> BTreeMap<GrantKey, Result<(), AwsError>> {
    let mut results: BTreeMap<GrantKey, Result<(), AwsError>> = BTreeMap::new();
    for (key, policy) in wanted {
        let result = attach_one(clients, policy).await;
        let so_far = results.entry(key.clone()).or_insert(Ok(()));
        if so_far.is_ok() {
            *so_far = result;
        }
    }
    results
}

async fn attach_one(clients: &Clients, policy: &IdentityPolicy) -> Result<(), AwsError> {
    let role = policy.role.name();
    let standing = identity::role_policy(clients, role, &policy.name).await?;
    if standing.is_some_and(|standing| same_meaning(&standing, &policy.document)) {
        return Ok(());
    }
    identity::put_role_policy(clients, role, &policy.name, &policy.document).await?;
    info!(role = %policy.role, policy = %policy.name, "attached an inline policy");
    Ok(())
}

fn same_meaning(one: &str, other: &str) -> bool {
    let spell = |text: &str| {
        let document = Document::parse(text).ok()?;
        let mut statements: Vec<String> = document
            .statements()
            .iter()
            .map(canonical::spelling)
            .collect();
        statements.sort_unstable();
        Some(statements)
    };
    spell(one).is_some_and(|one| Some(one) == spell(other))
}

/// Removes the inline policies that no grant asks for any more.
async fn detach(clients: &Clients, plan: &Plan) -> Result<(), AwsError> {
    for (role, policy) in &plan.identity_removals {
        // What is not the ARN of a role was never attached to.
        if let Ok(role) = EntityArn::parse(role, EntityKind::Role) {
            identity::delete_role_policy(clients, role.name(), policy).await?;
            info!(%role, %policy, "removed an inline policy");
        }
    }
    Ok(())
}

/// Puts the finalizer on the domain.
async fn hold_domain(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let api: Api<OpenSearchDomain> = Api::all(context.client.clone());
    hold(&api, object).await
}

/// Puts the finalizer on every grant that is about to be in the policy, so that it cannot go
/// without being revoked.
async fn hold_grants(context: &Context, cluster: &Cluster, plan: &Plan) -> Result<(), Error> {
    let granted = plan
        .outcomes
        .iter()
        .filter_map(|(key, outcome)| match outcome {
            Outcome::Granted { .. } => cluster.grant(key),
            _ => None,
        });
    stream::iter(granted)
        .map(|grant| async move { hold(&grants_of(context, grant), grant.as_ref()).await })
        .buffer_unordered(PATCHES)
        .try_collect()
        .await
}

fn grants_of(context: &Context, grant: &DomainAccess) -> Api<DomainAccess> {
    Api::namespaced(
        context.client.clone(),
        &grant.namespace().unwrap_or_default(),
    )
}

/// Server-side apply adds to the list whatever else changes on the object meanwhile; the UID keeps
/// it from reaching, or making, another object of the same name.
async fn hold<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    if object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"uid": object.meta().uid, "finalizers": [FINALIZER]},
    });
    let parameters = PatchParams::apply(FIELD_MANAGER);
    match api
        .patch_metadata(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
            Err(Error::Stale)
        }
        Err(error) => Err(Error::kubernetes("write a finalizer")(error)),
    }
}

/// Takes the finalizer off an object.
pub(super) async fn release<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    if !object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(());
    }
    let others: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    // The UID and version make sure that it is the object which was looked at: another of the same
    // name has its own grant, and a list that another writer changed is not overwritten.
    let patch = json!({"metadata": {
        "uid": object.meta().uid,
        "resourceVersion": object.meta().resource_version,
        "finalizers": others,
    }});
    let written = api
        .patch_metadata(
            &object.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await;
    match written {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(kube::Error::Api(status)) if status.is_conflict() => Err(Error::Stale),
        Err(error) => Err(Error::kubernetes("write a finalizer")(error)),
    }
}

/// Lets go of what is being deleted, now that the policy has nothing of it any more.
pub async fn finish_deletions(
    context: &Context,
    cluster: &Cluster,
    plan: &Plan,
) -> Result<(), Error> {
    if cluster.is_deleting() {
        return forget(context, &cluster.object).await;
    }
    let deleted: Vec<&Arc<DomainAccess>> = plan
        .outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Deleting)
        .filter_map(|(key, _)| cluster.grant(key))
        .filter(|grant| {
            grant
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == FINALIZER)
        })
        .collect();
    stream::iter(deleted)
        .map(|grant| async move {
            let note = format!("revoked on domain {}", grant.spec.domain_ref.name);
            publish(
                context,
                grant.as_ref(),
                EventType::Normal,
                "Revoked",
                "Revoke",
                note,
            )
            .await;
            release(&grants_of(context, grant), grant.as_ref()).await
        })
        .buffer_unordered(PATCHES)
        .try_collect()
        .await
}

/// Forgets a domain whose object is being deleted.
pub async fn forget(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    let namespace = &context.config.namespace;
    Keeper::new(context.client.clone(), namespace, &object.name_any())
        .remove()
        .await?;
    release_domain(context, object).await
}

/// Takes the finalizer off a domain.
pub async fn release_domain(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    release(
        &Api::<OpenSearchDomain>::all(context.client.clone()),
        object,
    )
    .await
}

/// Publishes an Event; that it cannot be must not stop a reconcile.
pub(super) async fn publish<K>(
    context: &Context,
    object: &K,
    type_: EventType,
    reason: &str,
    action: &str,
    note: String,
) where
    K: Resource<DynamicType = ()>,
{
    /// The API server refuses a longer note.
    const NOTE_LIMIT: usize = 1_000;
    let note = note.chars().take(NOTE_LIMIT).collect();
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = context
        .recorder
        .publish(&event, &object.object_ref(&()))
        .await
    {
        tracing::warn!(%error, "failed to publish an Event");
    }
}
