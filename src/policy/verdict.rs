//! What validation makes of all grants of a domain: each by itself, and the rules on their number.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;

use super::domain::Domain;
use super::service_account::Resolutions;
use super::validate::{self, DomainFacts, GrantKey, Principal, Refusal, ValidatedGrant};
use super::{Rejection, address, consent};
use crate::api::access::DomainAccess;
use crate::api::condition::Reason;
use crate::api::name::FINALIZER;

/// The labels of namespaces, by the namespace's name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// What validation made of a grant.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The grant keeps every rule.
    Valid(Box<ValidatedGrant>),
    /// The grant is refused: it must not be in the policy.
    Refused(Rejection),
    /// Whether the grant may be in the policy could not be asked: what is there of it stays.
    Undecided(Box<ValidatedGrant>, Rejection),
    /// The grant's object is being deleted: it must not be in the policy.
    Deleting,
    /// This version cannot parse the grant, which was in the policy before: what is there stays.
    Unreadable(Rejection),
}

/// Validates every grant of a domain; a rejection touches its own grant and no other.
///
/// `accounts` has the roles of the service accounts that the grants name.
pub fn of_all<G: Borrow<DomainAccess>>(
    grants: impl IntoIterator<Item = G>,
    domain: &Domain,
    facts: DomainFacts,
    accounts: &Resolutions,
    labels: &NamespaceLabels,
    now: Timestamp,
) -> BTreeMap<GrantKey, Verdict> {
    let mut verdicts: BTreeMap<GrantKey, Verdict> = grants
        .into_iter()
        .map(|object| {
            let object = object.borrow();
            let key = GrantKey::of(object);
            if object.metadata.deletion_timestamp.is_some() {
                return (key, Verdict::Deleting);
            }
            let labels = labels.get(&key.namespace);
            let verdict = match validate::grant(object, domain, facts, accounts, labels, now) {
                Ok(grant) => Verdict::Valid(Box::new(grant)),
                Err(Refusal::Refused(rejection)) => Verdict::Refused(rejection),
                Err(Refusal::Undecided(grant, rejection)) => Verdict::Undecided(grant, rejection),
            };
            (key, verdict)
        })
        .collect();
    for key in beyond_number(&verdicts, domain, labels) {
        let rejection = Rejection::new(
            Reason::OverCeiling,
            "",
            "the namespace has more grants on the domain than the ceiling's maxGrants; older grants stay",
        );
        verdicts.insert(key, Verdict::Refused(rejection));
    }
    for key in beyond_addresses(&verdicts) {
        let rejection = Rejection::new(
            Reason::PublicAccess,
            "spec.conditions.sourceIps",
            "together with older grants the domain would be open to the public: unsigned requests from all of them must come from less than a /7 (IPv4) and a /15 (IPv6)",
        );
        verdicts.insert(key, Verdict::Refused(rejection));
    }
    verdicts
}

/// Returns the youngest grants of unsigned access that together with older ones would let in the
/// public, which no grant may do alone either.
fn beyond_addresses(verdicts: &BTreeMap<GrantKey, Verdict>) -> Vec<GrantKey> {
    let unsigned = |grant: &ValidatedGrant| grant.principals.contains(&Principal::Anyone);
    let mut grants: Vec<(Timestamp, &GrantKey, &[IpNet])> = verdicts
        .iter()
        .filter_map(|(key, verdict)| match verdict {
            Verdict::Valid(grant) | Verdict::Undecided(grant, _) if unsigned(grant) => {
                let created = grant.created.unwrap_or(Timestamp::MAX);
                Some((created, key, grant.restrictions.source_ips.as_slice()))
            }
            _ => None,
        })
        .collect();
    grants.sort_unstable();
    let mut open: Vec<IpNet> = Vec::new();
    let mut beyond = Vec::new();
    for (_, key, blocks) in grants {
        let before = open.len();
        open.extend(blocks);
        if address::is_public(&open) {
            open.truncate(before);
            beyond.push(key.clone());
        }
    }
    beyond
}

/// Returns what the grants ask for that carry the operator's finalizer, and so may be in the policy
/// by its hand, whatever they may have now. A service account whose role is not known stands for
/// those that it was applied with.
pub fn held<G: Borrow<DomainAccess>>(
    grants: impl IntoIterator<Item = G>,
    domain: &Domain,
    facts: DomainFacts,
    accounts: &Resolutions,
) -> BTreeMap<GrantKey, ValidatedGrant> {
    grants
        .into_iter()
        .filter(|object| {
            let finalizers = object.borrow().metadata.finalizers.iter().flatten();
            finalizers
                .into_iter()
                .any(|finalizer| finalizer == FINALIZER)
        })
        .filter_map(|object| {
            let object = object.borrow();
            let shape = validate::shape(object, domain, facts, accounts).ok()?;
            Some((GrantKey::of(object), shape.grant))
        })
        .collect()
}

/// Returns the youngest grants of namespaces that have more than their ceiling allows.
fn beyond_number(
    verdicts: &BTreeMap<GrantKey, Verdict>,
    domain: &Domain,
    labels: &NamespaceLabels,
) -> Vec<GrantKey> {
    let mut by_namespace: BTreeMap<&str, Vec<(Timestamp, &GrantKey)>> = BTreeMap::new();
    for (key, verdict) in verdicts {
        // What is not decided stands, or will.
        if let Verdict::Valid(grant) | Verdict::Undecided(grant, _) = verdict {
            let created = grant.created.unwrap_or(Timestamp::MAX);
            by_namespace
                .entry(&key.namespace)
                .or_default()
                .push((created, key));
        }
    }
    let mut beyond = Vec::new();
    for (namespace, mut grants) in by_namespace {
        let labels = labels.get(namespace);
        let most = consent::limits(domain, namespace, labels)
            .map_or(usize::MAX, |limits| limits.max_grants);
        grants.sort_unstable();
        beyond.extend(grants.into_iter().skip(most).map(|(_, key)| key.clone()));
    }
    beyond
}
