//! Condition types and reasons, and how a list of conditions changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of condition that the operator sets; all of positive polarity.
pub mod condition_type {
    /// The summary: what the object asks for is in place and was read back.
    pub const READY: &str = "Ready";
    /// The spec keeps every rule, and a consent entry of the domain allows it.
    pub const ACCEPTED: &str = "Accepted";
    /// What the object refers to was found: the domain, each principal.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The access policy that AWS holds has what the object asks for, and is active.
    pub const ACCESS_POLICY_APPLIED: &str = "AccessPolicyApplied";
    /// The identity policies that the grant asks for are attached to its roles.
    pub const IDENTITY_POLICY_APPLIED: &str = "IdentityPolicyApplied";
    /// The security plugin maps the principals to every role that the grant asks for.
    pub const SECURITY_ROLES_APPLIED: &str = "SecurityRolesApplied";
    /// The security plugin has what the object defines.
    pub const DEFINED: &str = "Defined";
    /// Requests cannot pass the grant's paths by; set, as `False`, only where they can.
    pub const PATHS_ENFORCED: &str = "PathsEnforced";
    /// It is not `Ready` yet and may become so by itself: tools that wait, wait on. Set only while true.
    pub const RECONCILING: &str = "Reconciling";
    /// It does not become `Ready` unless somebody acts: tools that wait, give up. Set only while true.
    pub const STALLED: &str = "Stalled";
}

/// Why a condition has its status.
///
/// Each reason is a documented constant: a message may change, a reason is what alerts match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Everything asked for is in place.
    Reconciled,
    /// The grant is in place through a statement that others wrote; deleting the grant leaves it.
    GrantedByOthers,
    /// The change is known and not yet written, or written and not yet active.
    Pending,
    /// A field breaks a rule; the message names the field and the rule.
    InvalidSpec,
    /// No `OpenSearchDomain` of the referenced name exists.
    DomainNotFound,
    /// No consent entry of the domain covers the grant's namespace.
    NotPermitted,
    /// A consent entry covers the namespace, and the grant asks for more than its ceiling.
    OverCeiling,
    /// IAM knows no such role or user.
    PrincipalNotFound,
    /// The grant's namespace has no such service account.
    ServiceAccountNotFound,
    /// The service account has no IAM role: neither a Pod Identity association nor an annotation.
    RoleNotResolved,
    /// Nothing but the service account's annotation says that its pods get the role.
    TrustNotProven,
    /// Whether a principal exists could not be asked; what is granted stays, nothing is added.
    PrincipalUnknown,
    /// The grant would open the domain to the public.
    PublicAccess,
    /// The grant's sources are addresses, which a domain inside a VPC cannot check.
    AddressesOnVpcDomain,
    /// The policy with this grant would be larger than the service stores.
    PolicyTooLarge,
    /// The operator's record of the domain has no room for another grant.
    TooManyGrants,
    /// The grant's time is over; it is revoked.
    Expired,
    /// The domain works on another change; the write waits for it.
    DomainProcessing,
    /// Another writer changed the policy at the same time; the operator looks again.
    Conflicted,
    /// AWS refused the operator's credentials or permissions.
    AccessDenied,
    /// AWS asked to slow down.
    Throttled,
    /// AWS refused the policy.
    PolicyRejected,
    /// AWS accepted a change and failed it later.
    ChangeFailed,
    /// The domain that AWS answered with is not the one that the object names.
    DomainMismatch,
    /// The access policy is not one that the operator can read; nothing is written.
    PolicyUnreadable,
    /// Many grants are gone without having been deleted through their finalizer; nothing is
    /// written until an admin acknowledges it.
    MassRevocationHeld,
    /// The object says `suspend: true`.
    Suspended,
    /// The domain's policy is only observed, never written.
    Observed,
    /// The operator could not read or keep its own records in Kubernetes.
    StateUnavailable,
    /// AWS or the network failed; the operator tries again.
    Unavailable,
    /// An inline policy could not be attached to the role.
    IdentityPolicyRefused,
    /// Requests that name indexes in their body pass the grant's paths by.
    PathsNotEnforced,
    /// The domain has no fine-grained access control, and so no roles to map to.
    NoFineGrainedAccess,
    /// The domain's security plugin has no such role.
    RoleNotFound,
    /// The domain's security plugin does not take the mapping.
    MappingRefused,
}

impl Reason {
    /// Returns the reason as conditions and Events carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reconciled => "Reconciled",
            Self::GrantedByOthers => "GrantedByOthers",
            Self::Pending => "Pending",
            Self::InvalidSpec => "InvalidSpec",
            Self::DomainNotFound => "DomainNotFound",
            Self::NotPermitted => "NotPermitted",
            Self::OverCeiling => "OverCeiling",
            Self::PrincipalNotFound => "PrincipalNotFound",
            Self::ServiceAccountNotFound => "ServiceAccountNotFound",
            Self::RoleNotResolved => "RoleNotResolved",
            Self::TrustNotProven => "TrustNotProven",
            Self::PrincipalUnknown => "PrincipalUnknown",
            Self::PublicAccess => "PublicAccess",
            Self::AddressesOnVpcDomain => "AddressesOnVpcDomain",
            Self::PolicyTooLarge => "PolicyTooLarge",
            Self::TooManyGrants => "TooManyGrants",
            Self::Expired => "Expired",
            Self::DomainProcessing => "DomainProcessing",
            Self::Conflicted => "Conflicted",
            Self::AccessDenied => "AccessDenied",
            Self::Throttled => "Throttled",
            Self::PolicyRejected => "PolicyRejected",
            Self::ChangeFailed => "ChangeFailed",
            Self::DomainMismatch => "DomainMismatch",
            Self::PolicyUnreadable => "PolicyUnreadable",
            Self::MassRevocationHeld => "MassRevocationHeld",
            Self::Suspended => "Suspended",
            Self::Observed => "Observed",
            Self::StateUnavailable => "StateUnavailable",
            Self::Unavailable => "Unavailable",
            Self::IdentityPolicyRefused => "IdentityPolicyRefused",
            Self::PathsNotEnforced => "PathsNotEnforced",
            Self::NoFineGrainedAccess => "NoFineGrainedAccess",
            Self::RoleNotFound => "RoleNotFound",
            Self::MappingRefused => "MappingRefused",
        }
    }

    /// Tells whether what is missing may still come: by a later try, or by another object, which may
    /// be applied in the same moment as this one.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Pending
                | Self::DomainNotFound
                | Self::PrincipalNotFound
                | Self::ServiceAccountNotFound
                | Self::RoleNotResolved
                | Self::TrustNotProven
                | Self::RoleNotFound
                | Self::PrincipalUnknown
                | Self::DomainProcessing
                | Self::Conflicted
                | Self::Throttled
                | Self::StateUnavailable
                | Self::Unavailable
        )
    }
}

/// What a condition says, before it is set on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// One of [`condition_type`].
    pub type_: &'static str,
    /// `Some(true)` is `True`, `Some(false)` is `False`, `None` is `Unknown`.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// What it means and what to do next, for a person.
    pub message: String,
}

impl Statement {
    /// Says that the condition holds.
    #[must_use]
    pub fn holds(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(true),
            reason,
            message: message.into(),
        }
    }

    /// Says that the condition does not hold.
    #[must_use]
    pub fn fails(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(false),
            reason,
            message: message.into(),
        }
    }

    /// Says that whether the condition holds is not known.
    #[must_use]
    pub fn unknown(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: None,
            reason,
            message: message.into(),
        }
    }
}

/// Kubernetes refuses a condition with a longer message.
const MESSAGE_LIMIT: usize = 32 * 1024;

/// Says to tools that wait for `Ready`, by the rules of kstatus, whether to.
fn outlook(said: &[Statement]) -> Option<Statement> {
    let ready = said.iter().find(|it| it.type_ == condition_type::READY)?;
    let type_ = match ready.status {
        Some(true) => return None,
        _ if ready.reason.may_pass() => condition_type::RECONCILING,
        _ => condition_type::STALLED,
    };
    Some(Statement::holds(type_, ready.reason, ready.message.clone()))
}

/// Builds the conditions of an object from what is said now and what it carried before, and those by
/// which tools wait.
///
/// `lastTransitionTime` moves only where the status changed; a condition that is not said any more
/// is gone. Messages are cut at the API server's limit.
#[must_use]
pub fn conditions(
    before: &[Condition],
    said: Vec<Statement>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let outlook = outlook(&said);
    said.into_iter()
        .chain(outlook)
        .map(|statement| {
            let status = match statement.status {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = before
                .iter()
                // Without a generation it is the definition's default, which nobody ever said.
                .filter(|c| c.observed_generation.is_some() || generation.is_none())
                .find(|c| c.type_ == statement.type_ && c.status == status)
                .map_or(Time(now), |c| c.last_transition_time.clone());
            let mut message = statement.message;
            if message.len() > MESSAGE_LIMIT {
                let end = (0..=MESSAGE_LIMIT)
                    .rev()
                    .find(|&at| message.is_char_boundary(at));
                message.truncate(end.unwrap_or_default());
            }
            Condition {
                type_: statement.type_.to_owned(),
                status: status.to_owned(),
                reason: statement.reason.as_str().to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let say = |status| Statement {
            type_: condition_type::READY,
            status,
            reason: Reason::Pending,
            message: "x".into(),
        };
        let first = conditions(&[], vec![say(Some(false))], Some(1), early);
        let same = conditions(&first, vec![say(Some(false))], Some(2), late);
        let other = conditions(&same, vec![say(Some(true))], Some(2), late);
        assert_eq!(same[0].last_transition_time, Time(early));
        assert_eq!(same[0].observed_generation, Some(2));
        assert_eq!(other[0].last_transition_time, Time(late));
    }

    #[test]
    fn who_waits_is_told_whether_to() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let outlook = |status, reason| {
            let type_ = condition_type::READY;
            let message = "x".into();
            let said = Statement {
                type_,
                status,
                reason,
                message,
            };
            let all = conditions(&[], vec![said], Some(1), now);
            let shown = all
                .iter()
                .filter(|it| it.status == "True")
                .map(|it| it.type_.clone());
            shown.collect::<Vec<_>>()
        };
        assert_eq!(outlook(Some(true), Reason::Reconciled), ["Ready"]);
        assert_eq!(outlook(Some(false), Reason::Pending), ["Reconciling"]);
        assert_eq!(outlook(None, Reason::PrincipalUnknown), ["Reconciling"]);
        assert_eq!(outlook(Some(false), Reason::OverCeiling), ["Stalled"]);
    }

    #[test]
    fn a_message_over_the_limit_of_the_api_server_is_cut_at_a_character() {
        let said = Statement::fails(condition_type::READY, Reason::Pending, "é".repeat(40_000));
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let message = &conditions(&[], vec![said], None, now)[0].message;
        assert_eq!(message.len(), MESSAGE_LIMIT);
    }
}
