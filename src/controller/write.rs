//! The one write to AWS that everything here is about.

use super::apply::{same_meaning, spelled};
use super::audit;
use super::context::Context;
use super::observe::{Cluster, Observed};
use crate::aws::domain as aws_domain;
use crate::aws::error::Error as AwsError;
use crate::policy::document::Document;
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

/// Writes the policy of a plan, unless another writer was first.
pub(super) async fn write(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
) -> Written {
    // Much may have happened since the plan was made of it, and the write replaces everything.
    let standing = match aws_domain::policy(&observed.clients, &domain.domain_name).await {
        Ok(standing) => standing,
        Err(error) => return Written::No(error),
    };
    let same = standing.text == observed.domain.policy
        || same_meaning(&standing.text, &observed.domain.policy);
    if standing.version != observed.domain.policy_version || !same {
        context.metrics.wrote("conflicted");
        return Written::Conflicted;
    }
    let text = plan.policy.as_ref().map(Document::to_text);
    let text = text.unwrap_or_default();
    let written = aws_domain::update_policy(&observed.clients, &domain.domain_name, &text).await;
    context.metrics.wrote(match &written {
        Ok(_) => "written",
        Err(AwsError::ChangeInProgress) => "postponed",
        Err(AwsError::PolicyRefused | AwsError::Rejected { .. }) => "refused",
        Err(_) => "failed",
    });
    match written {
        Ok(version) => {
            // By meaning: what others wrote is read in another order each time.
            let meaning = plan.policy.as_ref().map(spelled).unwrap_or_default();
            let soon = context.wrote(&domain.name, &meaning.concat());
            let versions = (standing.version, version);
            let write = audit::Write {
                plan,
                before: &standing.text,
                last: observed.kept.state.as_ref(),
                versions,
            };
            audit::written(context, domain, &cluster.object, &write).await;
            if standing.may_have_lost(version) {
                audit::foreign_write_lost(context, domain, &cluster.object, versions).await;
            }
            Written::Yes(soon)
        }
        Err(error) if error.is_definite() => Written::No(error),
        Err(error) => Written::Unknown(error),
    }
}
