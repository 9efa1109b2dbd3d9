//! Keeps what is granted from going before it is revoked, and lets go of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::warn;

use super::apply::{PATCHES, detach_one, publish};
use super::context::Context;
use super::error::Error;
use super::guarded::Grant;
use super::observe::{self, Cluster};
use super::queue::Domain as GuardedDomain;
use super::state::Keeper;
use crate::api::access::DomainAccess;
use crate::api::domain::{OpenSearchDomain, PolicyMode};
use crate::api::name::{FIELD_MANAGER, FINALIZER};
use crate::policy::domain::Domain;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::GrantKey;

/// Puts the finalizer on the domain.
pub async fn hold_domain(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let api: Api<OpenSearchDomain> = Api::all(context.client.clone());
    hold(&api, object).await
}

/// Puts the finalizer on every grant that is about to be in the policy, so that it cannot go
/// without being revoked; returns the grants that cannot be held.
///
/// `held` are those that were held a moment ago.
pub async fn hold_grants(
    context: &Context,
    cluster: &Cluster,
    plan: &Plan,
    held: &mut BTreeSet<GrantKey>,
) -> BTreeSet<GrantKey> {
    let granted: Vec<_> = plan
        .outcomes
        .iter()
        .filter(|(key, outcome)| matches!(outcome, Outcome::Granted { .. }) && !held.contains(*key))
        .filter_map(|(key, _)| Some((key, cluster.grant(key)?)))
        .collect();
    held.extend(granted.iter().map(|(key, _)| (*key).clone()));
    stream::iter(granted)
        .map(|(key, grant)| async move {
            let written = hold(&grants_of(context, grant), grant.as_ref()).await;
            let error = written.err()?;
            warn!(namespace = %key.namespace, name = %key.name, "a grant is left out: {error}");
            Some(key.clone())
        })
        .buffer_unordered(PATCHES)
        .filter_map(async |failed| failed)
        .collect()
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
pub(super) async fn hold<K>(api: &Api<K>, object: &K) -> Result<(), Error>
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
pub async fn release<K>(api: &Api<K>, object: &K) -> Result<(), Error>
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

/// Lets go of what is being deleted, now that the policy has nothing of it any more; tells whether
/// all of it could be.
///
/// `but` are the UIDs of grants that have something left elsewhere.
pub async fn finish_deletions(
    context: &Context,
    cluster: &Cluster,
    plan: &Plan,
    but: &BTreeSet<String>,
) -> Result<bool, Error> {
    if cluster.is_deleting() {
        if but.is_empty() {
            forget(context, &cluster.object).await?;
        }
        return Ok(but.is_empty());
    }
    let deleted: Vec<&Arc<DomainAccess>> = plan
        .outcomes
        .iter()
        .filter(|(key, outcome)| **outcome == Outcome::Deleting && !but.contains(&key.uid))
        .filter_map(|(key, _)| cluster.grant(key))
        .filter(|grant| {
            grant
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == FINALIZER)
        })
        .collect();
    let domain = &cluster.object.name_any();
    let mut all = stream::iter(deleted)
        .map(|grant| let_go(context, domain, grant.as_ref()))
        .buffer_unordered(PATCHES)
        .fold(true, async |all, gone| all && gone)
        .await;
    for grant in &cluster.unreadable {
        let outcome = plan.outcomes.get(&observe::key_of(grant));
        if outcome == Some(&Outcome::Deleting)
            && !but.contains(grant.uid().unwrap_or_default().as_str())
            && grant.finalizers().iter().any(|it| it == FINALIZER)
        {
            all &= let_go(context, domain, grant.as_ref()).await;
        }
    }
    Ok(all)
}

/// Lets go of a grant that is revoked; tells whether that could be done.
async fn let_go<K>(context: &Context, domain: &str, grant: &K) -> bool
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let note = format!("revoked on domain {domain}");
    let (type_, reason) = (EventType::Normal, "Revoked");
    publish(context, grant, type_, reason, "Revoke", note).await;
    let namespace = grant.namespace().unwrap_or_default();
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    match release(&api, grant).await {
        Ok(()) => true,
        Err(error) => {
            if !error.is_momentary() {
                warn!(grant = %grant.name_any(), "failed to let go of a deleted grant: {error}");
            }
            false
        }
    }
}

/// Lets go of what is deleted, of a domain that AWS does not have: its policy went with it, and
/// what is left to take away are inline policies.
pub async fn finish_without_domain(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
) -> Result<(), Error> {
    if domain.suspend || domain.mode == PolicyMode::Observe {
        return Ok(());
    }
    let deleting: BTreeMap<&str, &Arc<DomainAccess>> = cluster
        .grants
        .iter()
        .filter(|grant| grant.metadata.deletion_timestamp.is_some())
        .filter_map(|grant| Some((grant.metadata.uid.as_deref()?, grant)))
        .collect();
    let keeper = Keeper::new(
        context.client.clone(),
        &context.config.namespace,
        &domain.name,
    );
    let kept = keeper.read().await?;
    let unreadable = cluster.unreadable_of(kept.state.as_ref());
    let gone_unreadable: Vec<&Arc<Grant>> = unreadable
        .map(|(_, grant, _)| grant)
        .filter(|grant| grant.meta().deletion_timestamp.is_some())
        .collect();
    let unreadable: BTreeSet<_> = gone_unreadable.iter().filter_map(|it| it.uid()).collect();
    let released = kept.state.iter().flat_map(|state| &state.grants);
    let released: BTreeSet<String> = released
        .filter(|(_, grant)| grant.released)
        .map(|(uid, _)| uid.clone())
        .collect();
    let goes = |uid: &str| {
        cluster.is_deleting()
            || deleting.contains_key(uid)
            || unreadable.contains(uid)
            || released.contains(uid)
    };
    if let Some(mut state) = kept.state.clone() {
        let clients = context.sessions.clients(&observe::session(domain)).await?;
        let gone = state.grants.iter().filter(|(uid, _)| goes(uid));
        for (role, policy) in gone.flat_map(|(_, grant)| &grant.identity_policies) {
            detach_one(&clients, role, policy).await?;
        }
        state.grants.retain(|uid, _| !goes(uid));
        if kept.state.as_ref() != Some(&state) {
            keeper.write(&kept, state).await?;
        }
    }
    for grant in deleting.values() {
        release(&grants_of(context, grant), grant.as_ref()).await?;
    }
    for grant in gone_unreadable {
        let namespace = grant.namespace().unwrap_or_default();
        let api = Api::<Grant>::namespaced(context.client.clone(), &namespace);
        release(&api, grant.as_ref()).await?;
    }
    if cluster.is_deleting() {
        forget(context, &cluster.object).await?;
    }
    Ok(())
}

/// Forgets a domain whose object is being deleted.
pub async fn forget(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    let namespace = &context.config.namespace;
    Keeper::new(context.client.clone(), namespace, &object.name_any())
        .remove()
        .await?;
    release_domain(context, object).await
}

/// Forgets a domain whose object is being deleted and cannot be parsed.
pub async fn forget_unreadable(context: &Context, object: &GuardedDomain) -> Result<(), Error> {
    let namespace = &context.config.namespace;
    Keeper::new(context.client.clone(), namespace, &object.name_any())
        .remove()
        .await?;
    release(&Api::<GuardedDomain>::all(context.client.clone()), object).await
}

/// Lets go of the deleted grants of a domain that another object manages. What is on record for
/// one stays until the record is looked after.
pub async fn finish_rivalled(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
) -> Result<(), Error> {
    if cluster.is_deleting() {
        return forget(context, &cluster.object).await;
    }
    let keeper = Keeper::new(
        context.client.clone(),
        &context.config.namespace,
        &domain.name,
    );
    let record = keeper.read().await?.state.unwrap_or_default();
    for grant in &cluster.grants {
        let recorded = grant
            .metadata
            .uid
            .as_ref()
            .is_some_and(|uid| record.grants.contains_key(uid));
        if grant.metadata.deletion_timestamp.is_some() && !recorded {
            release(&grants_of(context, grant), grant.as_ref()).await?;
        }
    }
    for (key, grant, _) in cluster.unreadable_of(None) {
        if grant.meta().deletion_timestamp.is_some() && !record.grants.contains_key(&key.uid) {
            let api = Api::<Grant>::namespaced(context.client.clone(), &key.namespace);
            release(&api, grant.as_ref()).await?;
        }
    }
    Ok(())
}

/// Takes the finalizer off a domain.
pub async fn release_domain(context: &Context, object: &OpenSearchDomain) -> Result<(), Error> {
    release(
        &Api::<OpenSearchDomain>::all(context.client.clone()),
        object,
    )
    .await
}
