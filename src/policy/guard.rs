//! What must not be written, whatever the manifests say.
//!
//! A guard that fires stops the whole write and says why; it never trims a policy silently.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::Value;

use super::address;
use super::canonical::strings;
use super::document::{Document, SIZE_LIMIT};
use super::evaluate::{Context, Request, admits};
use super::ownership::AppliedGrant;
use super::permission::{ANYONE, Effect, Permission, Permissions};
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

/// Checks a planned policy; `policy` is `None` where none would be written, `added` is what it allows
/// or denies and the one before did not, `owned` the operator's part of it.
pub(super) fn check(
    input: &Input<'_>,
    policy: Option<&Document>,
    added: &Permissions,
    owned: &Permissions,
) -> Option<Hold> {
    let policy = policy?;
    lost_denial(input, policy)
        .or_else(|| lock_out(input, policy))
        .or_else(|| public_access(added, owned))
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

/// Tells whether a grant is on its way out; `withheld` says that those which are gone stay.
pub(super) fn is_revoking(input: &Input<'_>, withheld: bool) -> bool {
    let mut verdicts = input.grants.values();
    verdicts.any(|verdict| matches!(verdict, Verdict::Deleting))
        || !withheld && vanished(input).next().is_some()
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

/// Tells whether too many of what is on record are gone to be believed.
#[must_use]
pub fn is_mass(gone: usize, recorded: usize) -> bool {
    let many = gone > VANISHED_LIMIT || gone * 100 > recorded * VANISHED_PERCENT;
    // One or two on record would hold at every hand-removed finalizer.
    gone >= 2 && many
}

/// Withholds the revocation of grants whose objects are gone although nobody deleted them: a
/// restored etcd, a deleted CRD and a lost permission to list all look like that.
pub(super) fn mass_revocation(input: &Input<'_>) -> Option<Hold> {
    let recorded = input.last?.grants.len();
    let count = vanished(input).count();
    if !is_mass(count, recorded) || count <= input.acknowledged_revocation {
        return None;
    }
    Some(Hold {
        reason: Reason::MassRevocationHeld,
        message: format!(
            "{count} of {recorded} grants are gone without having been deleted through their finalizer; they are not revoked, everything else goes on. Restore them, or let them go: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count} --overwrite",
            input.domain.name
        ),
    })
}

/// Holds a write that would shut out the domain's master user: the policy let it in by name or as
/// everybody, certainly or under a condition, and would do so less certainly or not at all.
///
/// What IAM adds is set aside. So a lost delegation to the master user's account is no lock-out: an
/// identity policy, which it needed before, still lets in a caller of the domain's own account.
fn lock_out(input: &Input<'_>, policy: &Document) -> Option<Hold> {
    let master = input.domain.master_user.as_ref()?;
    let request = Request {
        principal: Some(master.to_string()),
        action: "es:ESHttpGet".to_owned(),
        path: "/_plugins/_security/api/roles".to_owned(),
        context: Context::default(),
    };
    let certainty = |document: &Document| match admits(document, &input.domain.arn, &request) {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    };
    (certainty(policy) < certainty(input.observed)).then(|| Hold {
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
/// addresses bound, or whose addresses, with those of all others that the operator has in the policy,
/// are open to the public.
fn public_access(added: &Permissions, owned: &Permissions) -> Option<Hold> {
    let unsigned = |permissions: &'_ Permissions| -> Vec<Permission> {
        let each = permissions.iter().map(|(permission, _)| permission);
        let unsigned = each.filter(|it| it.effect == Effect::Allow && &*it.principal == ANYONE);
        unsigned.cloned().collect()
    };
    let added = unsigned(added);
    let last = added.last()?;
    let unbounded = added.iter().find(|it| sources(&it.condition).is_none());
    let together = || {
        let owned = unsigned(owned).into_iter();
        let blocks = owned.filter_map(|it| sources(&it.condition)).flatten();
        address::is_public(&blocks.collect::<Vec<IpNet>>())
    };
    let open = unbounded.or_else(|| together().then_some(last))?;
    Some(Hold {
        reason: Reason::PublicAccess,
        message: format!("the write would open the domain to the public: {open}"),
    })
}

/// Returns the addresses that a canonical condition keeps requests to; `None` where it keeps them to
/// none. Other operators do not count: `NotIpAddress`, `IpAddressIfExists` and `ForAllValues` leave
/// the rest of the world in.
fn sources(condition: &str) -> Option<Vec<IpNet>> {
    let condition: Value = serde_json::from_str(condition).ok()?;
    let texts = strings(condition.get("IpAddress")?.get("aws:SourceIp")?)?;
    texts.into_iter().map(address::parse).collect()
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
