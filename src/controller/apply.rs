//! Performs a plan: records, writes, and lets go of what is revoked.
//!
//! The order is what makes every crash harmless: finalizers before statements, the record before
//! the write, identity policies before the door opens and after it closes.

use std::collections::BTreeMap;

use kube::Resource;
use kube::runtime::events::{Event, EventType};
use tracing::info;

use super::context::Context;
use super::error::{Error, aws_reason};
use super::finalizer;
use super::observe::{Cluster, Observed};
use crate::api::arn::{EntityArn, EntityKind};
use crate::api::condition::Reason;
use crate::api::domain::PolicyMode;
use crate::aws::error::Error as AwsError;
use crate::aws::session::Clients;
use crate::aws::{domain as aws_domain, identity};
use crate::policy::canonical;
use crate::policy::compile::IdentityPolicy;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::plan::Plan;
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
    finalizer::hold_domain(context, &cluster.object).await?;
    finalizer::hold_grants(context, cluster, plan).await?;

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
    let identity = attach(&observed.clients, &plan.identity_policies).await?;
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
    let written = aws_domain::update_policy(&observed.clients, &domain.domain_name, &text).await;
    context.metrics.wrote(match &written {
        Ok(()) => "written",
        Err(AwsError::ChangeInProgress) => "postponed",
        Err(AwsError::PolicyRefused | AwsError::Rejected { .. }) => "refused",
        Err(_) => "failed",
    });
    match written {
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
            if error == AwsError::PolicyRefused {
                let added = &plan.added;
                context.quarantine.refuse(domain, added, &observed.policy);
            }
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
) -> Result<BTreeMap<GrantKey, Result<(), AwsError>>, AwsError> {
    let mut results: BTreeMap<GrantKey, Result<(), AwsError>> = BTreeMap::new();
    for (key, policy) in wanted {
        let result = attach_one(clients, policy).await;
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
        detach_one(clients, role, policy).await?;
    }
    Ok(())
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
        tracing::warn!(%error, "failed to publish an Event");
    }
}
