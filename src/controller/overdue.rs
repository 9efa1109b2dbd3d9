//! Deleted grants whose revocation has to wait: they are let go in time, and revoked later.
//!
//! A finalizer that waits for AWS holds up the deletion of its namespace for as long as AWS is out of
//! reach. So a deleted grant is let go after a while, four minutes: with the
//! longest wait between two tries on top, nothing holds up a namespace for five. It stays on record, marked, with
//! what it asked for: its statements are the operator's still, and go as soon as the domain can be
//! written, by whichever process leads then.
//!
//! A domain's own object with `deletionPolicy: Revoke` is not let go: it holds up no namespace, and
//! without it nobody would revoke anything.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use super::apply::publish;
use super::context::Context;
use super::definers::Definer;
use super::error::Error;
use super::observe::Cluster;
use super::state::Keeper;
use super::{finalizer, withdrawn};
use crate::api::access::DomainAccess;
use crate::api::definition::Removal;
use crate::api::name::FINALIZER;
use crate::policy::ownership::{AppliedGrant, LastApplied};

/// Up to so many bytes on record, what a released grant asked for is kept, too: it tells its
/// statements from those of others of whom nobody can be asked.
const ROOM: usize = 900_000;

/// Returns the grants that were let go before they were revoked, as deleted ones.
#[must_use]
pub fn released(
    cluster: &Cluster,
    last: Option<&LastApplied>,
    now: Timestamp,
) -> Vec<DomainAccess> {
    let grants = cluster.grants.iter().filter_map(|grant| grant.uid());
    let unreadable = cluster.unreadable.iter().filter_map(|grant| grant.uid());
    let there: BTreeSet<String> = grants.chain(unreadable).collect();
    let recorded = last.into_iter().flat_map(|last| &last.grants);
    recorded
        .filter(|(uid, grant)| grant.released && !there.contains(*uid))
        .map(|(uid, grant)| object(uid, grant, now))
        .collect()
}

fn object(uid: &str, grant: &AppliedGrant, now: Timestamp) -> DomainAccess {
    let spec = grant.spec.clone().map(serde_json::from_value);
    let spec = spec.and_then(Result::ok);
    // Only what is known of it may stand for what it asked for.
    let finalizers = spec.is_some().then(|| vec![FINALIZER.to_owned()]);
    DomainAccess {
        metadata: ObjectMeta {
            namespace: Some(grant.namespace.clone()),
            name: Some(grant.name.clone()),
            uid: Some(uid.to_owned()),
            deletion_timestamp: Some(Time(now)),
            finalizers,
            ..ObjectMeta::default()
        },
        spec: spec.unwrap_or_default(),
        status: None,
    }
}

/// Returns how long until the next deleted grant is to be let go.
#[must_use]
pub fn next(cluster: &Cluster, limit: Duration, now: Timestamp) -> Option<Duration> {
    let metas = cluster.grants.iter().map(|grant| grant.meta());
    metas
        .chain(cluster.definers.iter().map(Definer::meta))
        .filter_map(|meta| due(meta, limit))
        .filter(|due| *due > now)
        // Rounded up, so that it is due when it is looked at.
        .map(|due| Duration::from_secs(due.duration_since(now).as_secs().unsigned_abs() + 1))
        .min()
}

/// Returns when an object is to be let go; `None` if it is not deleted, or let go already.
fn due(meta: &ObjectMeta, limit: Duration) -> Option<Timestamp> {
    let held = meta.finalizers.iter().flatten().any(|it| it == FINALIZER);
    let deleted = meta.deletion_timestamp.as_ref().filter(|_| held)?;
    let limit = SignedDuration::try_from(limit).ok()?;
    deleted.0.checked_add(limit).ok()
}

/// Lets go of the deleted grants that have waited too long.
pub async fn let_go(context: &Context, cluster: &Cluster, now: Timestamp) -> Result<(), Error> {
    let domain = &cluster.object.name_any();
    let limit = context.config.revocation_limit;
    let late = |meta: &ObjectMeta| due(meta, limit).is_some_and(|due| due <= now);
    let grants = cluster.grants.iter().filter(|grant| late(grant.meta()));
    let grants: Vec<_> = grants.collect();
    let definers = cluster.definers.iter().filter(|it| late(it.meta()));
    let definers: Vec<&Definer> = definers.collect();
    let namespace = &context.config.namespace;
    let keeper = Keeper::new(context.client.clone(), namespace, domain);
    if !definers.is_empty() {
        let kept = withdrawn::of_definers(context, cluster, false).await?;
        let definers: Vec<&Definer> = definers
            .into_iter()
            .filter(|it| !kept.keeps(it, cluster))
            .collect();
        // Whoever may forbid it in one namespace must not decide about another's.
        if let Err(error) = let_go_definers(context, domain, &definers, &keeper).await {
            warn!(%domain, "failed to let go of definitions: {error}");
        }
    }
    let unreadable: Vec<_> = cluster
        .unreadable
        .iter()
        .filter(|it| late(it.meta()))
        .collect();
    if grants.is_empty() && unreadable.is_empty() {
        return Ok(());
    }
    let kept = keeper.read().await?;
    // Without a record the finalizers alone tell whose the statements are.
    let Some(mut state) = kept.state.clone() else {
        return Ok(());
    };
    if withdrawn::held(context, cluster, Some(&state))
        .await?
        .is_some()
    {
        return Ok(());
    }
    let text = serde_json::to_string(&state).unwrap_or_default();
    let mut room = ROOM.saturating_sub(text.len());
    let mut overdue = BTreeSet::new();
    for grant in &grants {
        let spec = serde_json::to_value(&grant.spec).ok();
        overdue.extend(mark(&mut state, grant.meta(), spec, &mut room));
    }
    let others = unreadable.iter().filter(|grant| {
        let uid = grant.uid().unwrap_or_default();
        grant.domain().is_some() || state.grants.contains_key(&uid)
    });
    let others: Vec<_> = others.collect();
    for grant in &others {
        overdue.extend(mark(&mut state, grant.meta(), None, &mut room));
    }
    if kept.state.as_ref() != Some(&state) {
        keeper.write(&kept, state).await?;
    }
    let mut first = None;
    for grant in grants {
        let released = release(context, domain, grant.as_ref(), &overdue).await;
        first = first.or(released.err());
    }
    for grant in others {
        let released = release(context, domain, grant.as_ref(), &overdue).await;
        first = first.or(released.err());
    }
    first.map_or(Ok(()), Err)
}

/// Lets go of the deleted definitions that have waited too long; what they defined is marked on the
/// record, and removed as soon as the plugin can be written.
async fn let_go_definers(
    context: &Context,
    domain: &str,
    late: &[&Definer],
    keeper: &Keeper,
) -> Result<(), Error> {
    if late.is_empty() {
        return Ok(());
    }
    let kept = keeper.read().await?;
    let mut definitions = kept.definitions.clone().unwrap_or_default();
    let recorded: BTreeSet<&str> = definitions
        .all()
        .map(|(_, _, it)| it.uid.as_str())
        .collect();
    // Of those that do not say which domain they are for, only its own.
    let own = |it: &&&Definer| it.domain().is_some() || recorded.contains(it.key().uid.as_str());
    let late: Vec<&Definer> = late.iter().filter(own).copied().collect();
    for recorded in definitions.0.values_mut().flat_map(|it| it.values_mut()) {
        let of = |it: &&&Definer| it.key().uid == recorded.uid;
        let Some(definer) = late.iter().find(of) else {
            continue;
        };
        recorded.released = true;
        if let Ok(definition) = definer.definition() {
            recorded.retain = definition.removal == Removal::Retain;
        }
    }
    if kept
        .definitions
        .as_ref()
        .is_some_and(|it| *it != definitions)
    {
        keeper.write_definitions(&kept, definitions).await?;
    }
    let mut first = None;
    for it in late {
        let key = it.key();
        warn!(%domain, namespace = %key.namespace, name = %key.name, "let go before what it defines was removed; that is done as soon as it can be");
        match it.release(context).await {
            Ok(()) => context.metrics.overdue(),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    first.map_or(Ok(()), Err)
}

/// Marks a grant on the record as let go; returns its UID if it was there, and so is not revoked.
fn mark(
    state: &mut LastApplied,
    meta: &ObjectMeta,
    spec: Option<Value>,
    room: &mut usize,
) -> Option<String> {
    let uid = meta.uid.clone()?;
    let grant = state.grants.get_mut(&uid)?;
    if !grant.released {
        grant.released = true;
        if let Some(spec) = spec {
            let size = spec.to_string().len();
            if size <= *room {
                *room -= size;
                grant.spec = Some(spec);
            }
        }
    }
    Some(uid)
}

async fn release<K>(
    context: &Context,
    domain: &str,
    grant: &K,
    overdue: &BTreeSet<String>,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let (namespace, name) = (grant.namespace().unwrap_or_default(), grant.name_any());
    if grant.uid().is_some_and(|uid| overdue.contains(&uid)) {
        let note = format!(
            "let go before it was revoked on domain {domain}, which cannot be written now; it is revoked as soon as it can"
        );
        warn!(%domain, %namespace, grant = %name, "{note}");
        let (type_, reason) = (EventType::Warning, "RevocationOverdue");
        publish(context, grant, type_, reason, "Revoke", note).await;
        context.metrics.overdue();
    }
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    finalizer::release(&api, grant).await
}
