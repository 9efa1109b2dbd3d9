//! The one write to AWS that everything here is about, and what is said of it.

use kube::runtime::events::EventType;
use tracing::info;

use super::apply::{publish, same_meaning, spelled};
use super::context::Context;
use super::observe::{Cluster, Observed};
use super::quarantine;
use crate::aws::domain as aws_domain;
use crate::aws::error::Error as AwsError;
use crate::policy::domain::Domain;
use crate::policy::plan::Plan;

/// What became of a write.
pub(super) enum Written {
    /// AWS took it; whether it may be read back soon.
    Yes(bool),
    /// Another writer was first; nothing was sent.
    Conflicted,
    /// AWS did not take it.
    No(AwsError),
    /// AWS did not answer.
    Unknown(AwsError),
}

/// Writes a plan's policy, unless another writer was first.
pub(super) async fn write(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    text: &str,
) -> Written {
    // Much may have happened since the plan was made of it, and the write replaces everything.
    let read = aws_domain::policy(&observed.clients, &domain.domain_name).await;
    match read {
        Ok((policy, version)) => {
            let same =
                policy == observed.domain.policy || same_meaning(&policy, &observed.domain.policy);
            if version != observed.domain.policy_version || !same {
                context.metrics.wrote("conflicted");
                return Written::Conflicted;
            }
        }
        Err(error) => return Written::No(error),
    }
    let written = aws_domain::update_policy(&observed.clients, &domain.domain_name, text).await;
    context.metrics.wrote(match &written {
        Ok(()) => "written",
        Err(AwsError::ChangeInProgress) => "postponed",
        Err(AwsError::PolicyRefused | AwsError::Rejected { .. }) => "refused",
        Err(_) => "failed",
    });
    match written {
        Ok(()) => {
            // By meaning: what others wrote is read in another order each time.
            let meaning = plan.policy.as_ref().map(spelled).unwrap_or_default();
            let soon = context.wrote(&domain.name, &meaning.concat());
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
            Written::Yes(soon)
        }
        Err(error) => {
            if matches!(error, AwsError::PolicyRefused | AwsError::Rejected { .. }) {
                context.forget_principals(&quarantine::principals(&plan.added));
                let principal = error == AwsError::PolicyRefused;
                context
                    .quarantine
                    .refuse(domain, plan, &observed.policy, principal);
            }
            if error.is_definite() {
                Written::No(error)
            } else {
                Written::Unknown(error)
            }
        }
    }
}
