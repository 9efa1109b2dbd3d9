//! Performs a plan: records, writes, and lets go of what is revoked.
//!
//! The order is what makes every crash harmless: finalizers before statements, the record before
//! the write, identity policies before the door opens and after it closes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::Resource;
use kube::runtime::events::{Event, EventType};
use tokio::time::Instant;
use tracing::{info, warn};

use super::context::Context;
use super::error::{Error, aws_reason};
use super::observe::{self, Cluster, Observed};
use super::roles::{NotMapped, Roles};
use super::state::Kept;
use super::write::{Written, write};
use super::{finalizer, quarantine};
use crate::api::arn::{EntityArn, EntityKind};
use crate::api::condition::Reason;
use crate::api::domain::PolicyMode;
use crate::aws::error::Error as AwsError;
use crate::aws::identity;
use crate::aws::session::Clients;
use crate::policy::canonical;
use crate::policy::compile::IdentityPolicy;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::ownership::LastApplied;
use crate::policy::plan::Plan;
use crate::policy::validate::GrantKey;
use crate::runtime::said::Said;

/// How many objects are patched at a time.
pub(super) const PATCHES: usize = 16;

/// How many inline policies are attached or removed at a time.
const IAM_CALLS: usize = 8;

/// The longest that attaching, or removing, all inline policies may take together.
const IAM_LIMIT: Duration = Duration::from_secs(20);

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
    /// Whether the policy was written, and then whether it may be read back soon.
    pub written: Option<bool>,
    /// How long the policy is not written again, because somebody undoes it each time.
    pub contested: Option<Duration>,
    /// The UIDs of grants of which an inline policy, or a mapping, could not be removed.
    pub attached_still: BTreeSet<String>,
    /// What became of the roles of the grants that ask for some.
    pub roles: BTreeMap<GrantKey, Roles>,
    /// Whether the security plugin is part of what is asked for, and then why it could not be read.
    pub security: Option<Option<NotMapped>>,
    /// Whether AWS refused the policy, and then whether somebody new in it may be the reason.
    pub refused: Option<bool>,
    /// The last applied state, as it is kept by now.
    pub kept: Kept,
}

impl Applied {
    fn only(door: Door, kept: Kept) -> Self {
        Self {
            door,
            identity: BTreeMap::new(),
            written: None,
            contested: None,
            attached_still: BTreeSet::new(),
            roles: BTreeMap::new(),
            security: None,
            refused: None,
            kept,
        }
    }
}

/// Returns why a plan is not to be applied at all.
pub(super) fn forbidden(domain: &Domain, plan: &Plan) -> Option<Door> {
    if let Some(hold) = &plan.hold {
        return Some(Door::Held {
            reason: hold.reason,
            message: hold.message.clone(),
        });
    }
    let reason = if domain.mode == PolicyMode::Observe {
        Reason::Observed
    } else if domain.suspend {
        Reason::Suspended
    } else {
        return None;
    };
    Some(Door::NotWritten { reason })
}

/// Performs a plan. What it grants has its finalizer by now.
pub async fn apply(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
) -> Result<Applied, Error> {
    let mut kept = observed.kept.clone();
    if let Some(door) = forbidden(domain, plan) {
        let done = plan.policy.is_none() && plan.identity_removals.is_empty();
        if done && plan.identity_policies.is_empty() && kept.state.is_some() {
            kept = record(observed, &kept, &plan.next).await?;
        }
        if matches!(door, Door::Held { .. }) {
            return hold(observed, kept, plan, door).await;
        }
        return Ok(Applied::only(door, kept));
    }
    finalizer::hold_domain(context, &cluster.object).await?;

    let waits = plan.policy.is_some() && observed.domain.processing;
    let contested = plan.policy.as_ref().and_then(|policy| {
        let interval = domain.interval.unsigned_abs();
        context.contested(&domain.name, &spelled(policy).concat(), interval)
    });
    let writes = plan.policy.is_some() && !waits && contested.is_none();

    let before = observed.kept.state.as_ref();
    let intent = plan.intent(before, &domain.arn);
    if writes {
        kept = observed.keeper.write(&kept, intent.clone()).await?;
    } else if is_unrecorded(before, plan)
        && let Some(record) = without_write(&intent, before)
    {
        kept = observed.keeper.write(&kept, record).await?;
    }

    // What revokes is not kept waiting by IAM; what grants opens the door last.
    let revokes = writes && !plan.removed.is_empty();
    let wanted = &plan.identity_policies;
    let mut identity = BTreeMap::new();
    if !revokes {
        identity = attach(&observed.clients, wanted).await?;
    }
    let mut written = None;
    if writes {
        let record = without_write(&intent, before);
        written = Some(send(context, domain, cluster, observed, plan, record, &mut kept).await?);
    }
    let refused = match &written {
        Some(Written::No(error)) if error.refuses_policy() => {
            context.forget_principals(&quarantine::principals(&plan.added));
            let principal = *error == AwsError::PolicyRefused;
            Some(
                context
                    .quarantine
                    .refuse(domain, plan, &observed.policy, principal),
            )
        }
        _ => None,
    };
    if revokes {
        identity = attach(&observed.clients, wanted).await?;
    }
    // Access goes as early as it can, whatever the door waits for.
    let attached_still = detach(&observed.clients, plan, &kept).await?;

    let mut soon = None;
    let door = match written {
        Some(Written::Yes(read_back_soon)) => {
            soon = Some(read_back_soon);
            Door::Written
        }
        Some(Written::Conflicted) => Door::Waiting {
            reason: Reason::Conflicted,
            message: "another writer changed the access policy at the same time; the operator looks again"
                .to_owned(),
        },
        Some(Written::No(
            error @ (AwsError::ChangeInProgress
            | AwsError::PolicyRefused
            | AwsError::Rejected { .. }),
        )) => waiting(&error),
        Some(Written::No(error) | Written::Unknown(error)) => return Err(error.into()),
        None if waits => waiting(&AwsError::ChangeInProgress),
        None if contested.is_some() => Door::Waiting {
            reason: Reason::Conflicted,
            message: "what the operator writes into the access policy is undone each time: find the other writer, or have it leave the operator's statements alone"
                .to_owned(),
        },
        None if observed.domain.policy_active => Door::InForce,
        None => Door::Applying,
    };
    if door == Door::InForce {
        let mut next = plan.next.clone();
        let known = kept.state.iter().flat_map(|state| &state.grants);
        for (uid, grant) in known.filter(|(uid, _)| attached_still.contains(*uid)) {
            next.grants.entry(uid.clone()).or_insert(grant.clone());
        }
        kept = record(observed, &kept, &next).await?;
    }
    Ok(Applied {
        identity,
        written: soon,
        contested,
        attached_still,
        refused,
        ..Applied::only(door, kept)
    })
}

/// Does what a guard that fired does not stand in the way of: what grants let go of in IAM goes,
/// which takes access and gives none.
async fn hold(
    observed: &Observed,
    mut kept: Kept,
    plan: &Plan,
    door: Door,
) -> Result<Applied, Error> {
    let attached_still = detach(&observed.clients, plan, &kept).await?;
    if let Some(mut state) = kept.state.clone() {
        let done = state
            .grants
            .iter_mut()
            .filter(|(uid, _)| !attached_still.contains(*uid));
        for (_, grant) in done {
            let gone = |policy: &(String, String)| plan.identity_removals.contains(policy);
            grant.identity_policies.retain(|policy| !gone(policy));
        }
        kept = record(observed, &kept, &state).await?;
    }
    Ok(Applied {
        attached_still,
        ..Applied::only(door, kept)
    })
}

async fn record(observed: &Observed, kept: &Kept, next: &LastApplied) -> Result<Kept, Error> {
    if kept.state.as_ref() == Some(next) {
        return Ok(kept.clone());
    }
    Ok(observed.keeper.write(kept, next.clone()).await?)
}

/// Writes the policy of a plan by itself: the record, the write, and the record again where it was
/// not made. Whoever it lets in has the finalizer and the inline policies by now.
pub(super) async fn write_only(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    kept: &mut Kept,
) -> Result<Written, Error> {
    let before = kept.state.clone();
    let intent = plan.intent(before.as_ref(), &domain.arn);
    *kept = observed.keeper.write(kept, intent.clone()).await?;
    let record = without_write(&intent, before.as_ref());
    send(context, domain, cluster, observed, plan, record, kept).await
}

/// Sends what is on record as being written, and puts the record back if nothing was written.
async fn send(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    record: Option<LastApplied>,
    kept: &mut Kept,
) -> Result<Written, Error> {
    let written = write(context, domain, cluster, observed, plan).await;
    match written {
        // Whoever leads now may have begun; the record of more than stands is harmless.
        Written::Unknown(error @ AwsError::NotLeading { .. }) => return Err(error.into()),
        Written::Conflicted | Written::No(_) => match observed.keeper.restore(kept, record).await {
            Ok(restored) => *kept = restored,
            Err(error) => {
                warn!(domain = %domain.name, "failed to put the record back: {error}");
            }
        },
        Written::Yes(_) | Written::Unknown(_) => {}
    }
    Ok(written)
}

/// Tells whether an inline policy is to be attached that is not on record yet.
fn is_unrecorded(before: Option<&LastApplied>, plan: &Plan) -> bool {
    plan.identity_policies.iter().any(|(key, policy)| {
        !before
            .and_then(|state| state.grants.get(&key.uid))
            .is_some_and(|grant| {
                grant
                    .identity_policies
                    .contains(&(policy.role.to_string(), policy.name.clone()))
            })
    })
}

/// Returns the record of what stands where the write that it announces is not made: as it was
/// before, and the inline policies. `None` where there was none, so that statements are adopted.
fn without_write(intent: &LastApplied, before: Option<&LastApplied>) -> Option<LastApplied> {
    let mut attached = intent
        .grants
        .iter()
        .filter(|(_, grant)| !grant.identity_policies.is_empty())
        .peekable();
    let Some(before) = before else {
        return attached.peek().is_some().then(|| intent.clone());
    };
    let mut record = before.clone();
    record
        .grants
        .extend(attached.map(|(uid, grant)| (uid.clone(), grant.clone())));
    Some(record)
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
) -> Result<BTreeMap<GrantKey, Result<(), AwsError>>, AwsError> {
    let deadline = Instant::now() + IAM_LIMIT;
    let done: Vec<_> = stream::iter(wanted)
        .map(|(key, policy)| async move {
            let attached = Box::pin(attach_one(clients, policy));
            let result = observe::until(deadline, "PutRolePolicy", attached).await;
            if let Err(error) = &result {
                warn!(role = %policy.role, policy = %policy.name, "failed to attach an inline policy: {error}");
            }
            (key, result)
        })
        .buffer_unordered(IAM_CALLS)
        .collect()
        .await;
    let mut results: BTreeMap<GrantKey, Result<(), AwsError>> = BTreeMap::new();
    for (key, result) in done {
        // That is no grant's fault, and not for this process to tell.
        if let Err(error @ AwsError::NotLeading { .. }) = result {
            return Err(error);
        }
        let so_far = results.entry(key.clone()).or_insert(Ok(()));
        if so_far.is_ok() {
            *so_far = result;
        }
    }
    Ok(results)
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

pub(super) fn same_meaning(one: &str, other: &str) -> bool {
    let spell = |text: &str| Some(spelled(&Document::parse(text).ok()?));
    spell(one).is_some_and(|one| Some(one) == spell(other))
}

pub(super) fn spelled(document: &Document) -> Vec<String> {
    let statements = document.statements().iter();
    let mut spelled: Vec<String> = statements.map(canonical::spelling).collect();
    spelled.sort_unstable();
    spelled
}

/// Removes the inline policies that no grant asks for any more; returns the UIDs of the grants on
/// record of which one could not be removed.
async fn detach(clients: &Clients, plan: &Plan, kept: &Kept) -> Result<BTreeSet<String>, AwsError> {
    let deadline = Instant::now() + IAM_LIMIT;
    let failed: Vec<(&(String, String), AwsError)> = stream::iter(&plan.identity_removals)
        .map(|removal| async move {
            let (role, policy) = removal;
            let detached = Box::pin(detach_one(clients, role, policy));
            match observe::until(deadline, "DeleteRolePolicy", detached).await {
                Ok(()) => None,
                Err(error) => {
                    warn!(%role, %policy, "failed to remove an inline policy: {error}");
                    Some((removal, error))
                }
            }
        })
        .buffer_unordered(IAM_CALLS)
        .filter_map(async |failed| failed)
        .collect()
        .await;
    let mut standing = BTreeSet::new();
    for (removal, error) in failed {
        if matches!(error, AwsError::NotLeading { .. }) {
            return Err(error);
        }
        standing.insert(removal);
    }
    let known = kept.state.iter().flat_map(|state| &state.grants);
    Ok(known
        .filter(|(_, grant)| {
            grant
                .identity_policies
                .iter()
                .any(|it| standing.contains(it))
        })
        .map(|(uid, _)| uid.clone())
        .collect())
}

pub(super) async fn detach_one(
    clients: &Clients,
    role: &str,
    policy: &str,
) -> Result<(), AwsError> {
    // What is not the ARN of a role was never attached to.
    if let Ok(role) = EntityArn::parse(role, EntityKind::Role) {
        identity::delete_role_policy(clients, role.name(), policy).await?;
        info!(%role, %policy, "removed an inline policy");
    }
    Ok(())
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
        tracing::warn!(error = %Said(&error), "failed to publish an Event");
    }
}
