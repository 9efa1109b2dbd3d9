//! What must not be written, whatever the manifests say.
//!
//! A guard that fires stops the whole write and says why; it never trims a policy silently.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Document, SIZE_LIMIT};
use super::evaluate::{Context, Decision, Request, evaluate};
use super::ownership::AppliedGrant;
use super::permission::{ANYONE, Effect, Permissions};
use super::plan::Input;
use super::verdict::Verdict;
use crate::api::condition::Reason;
use crate::api::name::ACKNOWLEDGE_REVOCATION;

/// So many grants may vanish at once without their finalizer having run...
const VANISHED_LIMIT: usize = 5;

/// ...and so many of each hundred.
const VANISHED_PERCENT: usize = 25;

/// Why nothing may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The reason, for conditions and metrics.
    pub reason: Reason,
    /// What was about to happen, and what to do.
    pub message: String,
}

/// Reads how many grants the domain's admin lets vanish at once; what is not a number is none.
#[must_use]
pub fn acknowledged(annotations: &BTreeMap<String, String>) -> usize {
    let count = annotations.get(ACKNOWLEDGE_REVOCATION);
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

/// Checks a planned policy; `policy` is `None` where none would be written.
pub(super) fn check(
    input: &Input<'_>,
    policy: Option<&Document>,
    added: &Permissions,
) -> Option<Hold> {
    let policy = policy?;
    lost_denial(input, policy)
        .or_else(|| lock_out(input, policy))
        .or_else(|| public_access(added))
        .or_else(|| size(policy))
}

/// Returns the grants on record whose objects are gone although their finalizer never ran.
pub(super) fn vanished<'a>(
    input: &'a Input<'_>,
) -> impl Iterator<Item = (&'a String, &'a AppliedGrant)> {
    let known: BTreeSet<&str> = input.grants.keys().map(|key| key.uid.as_str()).collect();
    let recorded = input.last.into_iter().flat_map(|last| &last.grants);
    recorded.filter(move |(uid, _)| !known.contains(uid.as_str()))
}

/// Returns the grants on record of whom nobody can be asked what they ask for: their statements
/// stay. `withheld` says that those which are gone are among them.
pub(super) fn unknown<'a>(
    input: &'a Input<'_>,
    withheld: bool,
) -> BTreeMap<&'a String, &'a AppliedGrant> {
    let unreadable: BTreeSet<&str> = input
        .grants
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Unreadable(_)))
        .map(|(key, _)| key.uid.as_str())
        .collect();
    let recorded = || input.last.into_iter().flat_map(|last| &last.grants);
    let mut unknown: BTreeMap<_, _> = recorded()
        .filter(|(uid, _)| unreadable.contains(uid.as_str()))
        .chain(vanished(input).filter(|_| withheld))
        .collect();
    if !unknown.is_empty() {
        // Nothing tells the statements of a deleted grant from theirs if it cannot be asked either.
        let asked: BTreeSet<&str> = input.held.keys().map(|key| key.uid.as_str()).collect();
        let deleted = input.grants.iter().filter(|(key, verdict)| {
            matches!(verdict, Verdict::Deleting) && !asked.contains(key.uid.as_str())
        });
        let deleted: BTreeSet<&str> = deleted.map(|(key, _)| key.uid.as_str()).collect();
        unknown.extend(recorded().filter(|(uid, _)| deleted.contains(uid.as_str())));
    }
    unknown
}

/// Withholds the revocation of grants whose objects are gone although nobody deleted them: a
/// restored etcd, a deleted CRD and a lost permission to list all look like that.
pub(super) fn mass_revocation(input: &Input<'_>) -> Option<Hold> {
    let recorded = input.last?.grants.len();
    let count = vanished(input).count();
    let many = count > VANISHED_LIMIT || count * 100 > recorded * VANISHED_PERCENT;
    // A domain of one or two grants would hold at every hand-removed finalizer.
    if count < 2 || !many || count <= input.acknowledged_revocation {
        return None;
    }
    Some(Hold {
        reason: Reason::MassRevocationHeld,
        message: format!(
            "{count} of {recorded} grants are gone without having been deleted through their finalizer; they are not revoked, everything else goes on. Restore them, or let them go: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count}",
            input.domain.name
        ),
    })
}

/// Holds a write that would shut out the domain's master user.
fn lock_out(input: &Input<'_>, policy: &Document) -> Option<Hold> {
    let master = input.domain.master_user.as_ref()?;
    let allowed = |document: &Document| {
        let request = Request {
            principal: Some(master.to_string()),
            action: "es:ESHttpGet".to_owned(),
            path: "/_plugins/_security/api/roles".to_owned(),
            context: Context::default(),
        };
        evaluate(document, &input.domain.arn, &request).decision == Decision::Allow
    };
    (allowed(input.observed) && !allowed(policy)).then(|| Hold {
        reason: Reason::PolicyRejected,
        message: format!("the write would shut out the master user {master}: grant it access, or set accessPolicy.mode to Merge"),
    })
}

/// Holds a write that would lose a denial of another writer.
fn lost_denial(input: &Input<'_>, policy: &Document) -> Option<Hold> {
    let spell = |document: &Document| -> BTreeSet<String> {
        let denials = document
            .statements()
            .iter()
            .filter(|statement| statement.denies());
        let kept = denials.filter_map(super::ownership::without_deleted_principals);
        kept.map(|statement| super::canonical::spelling(&statement))
            .collect()
    };
    let after = spell(policy);
    let lost = spell(input.observed)
        .into_iter()
        .find(|denial| !after.contains(denial))?;
    Some(Hold {
        reason: Reason::PolicyRejected,
        message: format!("the write would drop a denial that the operator did not write: {lost}"),
    })
}

/// Holds a write that would let everybody in: an added allowance for unsigned requests that no
/// list of addresses bounds.
fn public_access(added: &Permissions) -> Option<Hold> {
    let open = added
        .iter()
        .map(|(permission, _)| permission)
        .find(|permission| {
            permission.effect == Effect::Allow
                && &*permission.principal == ANYONE
                && !permission.condition.contains("aws:SourceIp")
        })?;
    Some(Hold {
        reason: Reason::PublicAccess,
        message: format!("the write would open the domain to the public: {open}"),
    })
}

/// Holds a write that the service would refuse for its size; grants have been refused by then, so
/// what is too large is the others' part.
fn size(policy: &Document) -> Option<Hold> {
    let length = policy.to_text().chars().count();
    (length > SIZE_LIMIT).then(|| Hold {
        reason: Reason::PolicyTooLarge,
        message: format!(
            "the access policy would have {length} characters, and AWS stores {SIZE_LIMIT}: statements of other writers leave no room"
        ),
    })
}
