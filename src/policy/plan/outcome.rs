//! What becomes of each grant.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::Input;
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::compile::Compiled;
use crate::policy::ownership::{AppliedGrant, Split};
use crate::policy::permission::Permissions;
use crate::policy::validate::{GrantKey, ServiceAccount};
use crate::policy::verdict::Verdict;

/// What becomes of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that the grant asks for will be in place once the plan is applied.
    Granted {
        /// Whether all of it is in the policy already.
        in_place: bool,
        /// Whether others grant all of it, so that deleting the grant revokes nothing.
        by_others: bool,
        /// What the grant's author should know although nothing is wrong.
        warning: Option<&'static str>,
        /// When the grant ends.
        expires_at: Option<Timestamp>,
        /// The service accounts that it names, with their roles.
        service_accounts: Vec<ServiceAccount>,
    },
    /// The grant is refused.
    Refused(Rejection),
    /// The grant could not be decided; what is in place of it stays.
    Undecided(Rejection),
    /// The grant is being deleted; once the plan is applied, nothing of it is left.
    Deleting,
}

pub(super) fn outcomes(
    input: &Input<'_>,
    compiled: &BTreeMap<GrantKey, Compiled>,
    refusals: &BTreeMap<GrantKey, Rejection>,
    divided: &Split,
    unknown: &BTreeMap<&String, &AppliedGrant>,
) -> BTreeMap<GrantKey, Outcome> {
    let mut present = divided.ours.clone();
    present.extend(&divided.allowed_by_others);
    let standing = |asked: &Permissions| {
        let by_others = asked.intersection(&divided.ours).is_empty()
            && asked.is_subset(&divided.allowed_by_others);
        (asked.is_subset(&present), by_others)
    };
    let none = Compiled::default();
    let mut known = HashMap::new();
    let mut outcome = |key: &GrantKey, verdict: &Verdict| {
        if let Some(rejection) = refusals.get(key) {
            return Outcome::Refused(rejection.clone());
        }
        match verdict {
            Verdict::Refused(rejection) => Outcome::Refused(rejection.clone()),
            Verdict::Undecided(_, rejection) | Verdict::Unreadable(rejection) => {
                Outcome::Undecided(rejection.clone())
            }
            Verdict::Deleting if unknown.contains_key(&key.uid) => {
                Outcome::Undecided(Rejection::new(
                    Reason::InvalidSpec,
                    "",
                    "the grant is deleted, and nothing tells its statements from those of other grants that are unreadable or gone: it is revoked once these are readable, restored or let go",
                ))
            }
            Verdict::Deleting => Outcome::Deleting,
            Verdict::Valid(grant) => {
                let compiled = compiled.get(key).unwrap_or(&none);
                let (in_place, by_others) = *known
                    .entry(Arc::as_ptr(&compiled.permissions))
                    .or_insert_with(|| standing(&compiled.permissions));
                Outcome::Granted {
                    in_place,
                    by_others,
                    warning: compiled.warning,
                    expires_at: grant.expires_at,
                    service_accounts: grant.service_accounts().cloned().collect(),
                }
            }
        }
    };
    input
        .grants
        .iter()
        .map(|(key, verdict)| (key.clone(), outcome(key, verdict)))
        .collect()
}
