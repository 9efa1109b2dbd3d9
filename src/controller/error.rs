//! What a failure of a reconcile means for the next try.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

use super::context::Context;
use super::queue::Domain;
use super::state;
use crate::api::condition::Reason;
use crate::aws::error::Error as AwsError;
use crate::aws::session::SessionError;
use crate::policy::service_account::AccountName;
use crate::runtime::said::Said;

/// The longest wait before the API server is tried again: so soon after an outage it goes on. What
/// the server itself asks to wait is waited for beside.
const CLUSTER_RETRY: Duration = Duration::from_secs(10);

/// Why a reconcile could not go on. All of these pass by themselves or by somebody's doing, so all
/// are tried again; what a spec change alone can put right is an outcome, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer, or refused.
    #[error("failed to {doing}: {}", Said(source))]
    Kubernetes {
        /// What was under way.
        doing: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The last applied state cannot be read or kept.
    #[error(transparent)]
    State(#[from] state::Error),
    /// There is no identity to work with.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// AWS did not answer, or refused.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// AWS answered with another domain.
    #[error("AWS describes {found}, and the object names {wanted}")]
    OtherDomain {
        /// The ARN that AWS gave.
        found: String,
        /// The ARN that was asked for.
        wanted: String,
    },
    /// AWS has no such domain.
    #[error(
        "AWS has no domain {0}: create it, or correct spec.domainName, spec.accountId and spec.region in a new object"
    )]
    NoDomain(String),
    /// The access policy cannot be read.
    #[error("{0}")]
    PolicyUnreadable(#[source] crate::policy::document::Error),
    /// The last applied state is missing, and without it and without AWS nobody knows what a grant
    /// to a service account has in the policy.
    #[error(
        "the record of what was written is missing, and the role of service account {0}, by which its statements would be known again, cannot be asked for: nothing is written until it can"
    )]
    UnknownRole(AccountName),
    /// What was seen is older than what the API server holds.
    #[error("the operator's view of the cluster is behind; it looks again")]
    Stale,
    /// The API server refused some of what is to be done; what it said is in the log.
    #[error("not every grant could be told or let go")]
    Unfinished,
    /// A watch has ended.
    #[error("a watch has ended")]
    WatchEnded,
    /// The reconcile took too long.
    #[error("the reconcile took longer than {0} s")]
    TimedOut(u64),
}

impl Error {
    /// Wraps an error of the API server.
    pub fn kubernetes(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Returns the reason that conditions carry for it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Session(SessionError::OtherAccount { .. }) | Self::OtherDomain { .. } => {
                Reason::DomainMismatch
            }
            Self::Session(SessionError::Aws(error)) | Self::Aws(error) => aws_reason(error),
            Self::NoDomain(_) => Reason::DomainNotFound,
            Self::PolicyUnreadable(_) => Reason::PolicyUnreadable,
            Self::State(_) => Reason::StateUnavailable,
            Self::UnknownRole(_) => Reason::PrincipalUnknown,
            Self::Kubernetes { .. }
            | Self::Stale
            | Self::Unfinished
            | Self::WatchEnded
            | Self::TimedOut(_) => Reason::Unavailable,
        }
    }

    /// Tells whether the next try, in a moment, sees what this one could not, or is another
    /// process's: nobody need be told.
    #[must_use]
    pub fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::Stale
                | Self::State(state::Error::Conflict)
                | Self::Aws(AwsError::NotLeading { .. })
        )
    }

    /// Returns which of two errors decides, of a step and of what was done because it failed: one
    /// that is nobody's to be told must not be told as the other.
    #[must_use]
    pub fn or(self, second: Self) -> Self {
        if second.is_momentary() { second } else { self }
    }

    /// Returns what metrics call it.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        if self.is_waiting() {
            "waiting"
        } else {
            "failed"
        }
    }

    /// Tells whether the API server failed, or was out of reach.
    #[must_use]
    pub fn is_of_cluster(&self) -> bool {
        matches!(
            self,
            Self::Kubernetes { .. } | Self::State(state::Error::Kubernetes(..))
        )
    }

    /// Tells whether waiting is all that there is to do, so that nobody need be alarmed.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(
            self,
            Self::Stale
                | Self::Aws(AwsError::ChangeInProgress | AwsError::Throttled { .. })
                | Self::State(state::Error::Conflict)
        )
    }
}

/// Returns the reason that conditions carry for an error of AWS.
#[must_use]
pub fn aws_reason(error: &AwsError) -> Reason {
    match error {
        AwsError::NotFound => Reason::DomainNotFound,
        AwsError::AccessDenied { .. } => Reason::AccessDenied,
        AwsError::Throttled { .. } => Reason::Throttled,
        AwsError::ChangeInProgress => Reason::DomainProcessing,
        AwsError::PolicyRefused | AwsError::Rejected { .. } => Reason::PolicyRejected,
        AwsError::Unavailable { .. } | AwsError::NotLeading { .. } => Reason::Unavailable,
    }
}

/// Says when to try again: later with each failure, and never as a burst.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the runtime hands it over by value"
)]
pub fn policy(domain: Arc<Domain>, error: &Error, context: Arc<Context>) -> Action {
    let name = domain.name_any();
    let mut wait = context.next_try(&name);
    if error.is_of_cluster() {
        wait = wait.min(CLUSTER_RETRY);
    }
    if error.is_waiting() {
        tracing::info!(domain = %name, reason = error.reason().as_str(), ?wait, "waiting: {error}");
    } else {
        warn!(domain = %name, reason = error.reason().as_str(), ?wait, "the reconcile failed: {error}");
    }
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_leads_no_more_is_not_hidden_by_what_came_before() {
        let operation = "DeleteRolePolicy";
        let first = || Error::NoDomain("arn".to_owned());
        let lost = Error::from(AwsError::NotLeading { operation });
        assert!(matches!(
            first().or(lost),
            Error::Aws(AwsError::NotLeading { .. })
        ));
        let failed = Error::from(AwsError::Throttled { operation });
        assert!(matches!(first().or(failed), Error::NoDomain(_)));
    }
}
