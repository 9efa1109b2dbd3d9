//! What can be said of an object before it is stored: by the reconciler's rules, as far as they can be
//! told without AWS.
//!
//! The reconciler decides. Who is refused here would be refused there, too, whatever AWS says; who is
//! not may still be.

use jiff::Timestamp;

use super::Rejection;
use super::domain::Domain;
use super::fine_grained::definition::check::{self, Rules};
use super::fine_grained::definition::{Definition, DefinitionKey};
use super::fine_grained::entity::{Engine, SecurityConfig};
use super::service_account::Resolutions;
use super::validate::{DomainFacts, GrantKey};
use super::verdict::{self, NamespaceLabels, Verdict};
use crate::api::access::DomainAccess;
use crate::api::condition::Reason;

/// What a look at an object comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing is amiss, as far as can be told.
    Fine,
    /// It is better known, and no reason to refuse it.
    Warning(Rejection),
    /// It can never be what it is meant to be, as the domain's manifest is now.
    Refused(Rejection),
}

/// Why an object is refused whatever AWS says: the rules that manifests alone decide.
fn is_certain(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidSpec | Reason::NotPermitted | Reason::OverCeiling | Reason::PublicAccess
    )
}

fn finding(rejection: Rejection, namespace: &str, labels: &NamespaceLabels) -> Finding {
    match rejection.reason {
        // A namespace that was made a moment ago may have labels that consent selects by.
        Reason::NotPermitted if !labels.contains_key(namespace) => Finding::Warning(rejection),
        reason if is_certain(reason) => Finding::Refused(rejection),
        // Which nobody was asked for here.
        Reason::PrincipalUnknown => Finding::Fine,
        _ => Finding::Warning(rejection),
    }
}

/// Looks at a grant. `others` are the domain's other grants, which count where their number does, or
/// what they open together.
///
/// `in_vpc` says whether the domain is inside a VPC, where that is known: the rules about the public
/// differ.
pub fn grant<'a>(
    object: &'a DomainAccess,
    others: impl Iterator<Item = &'a DomainAccess>,
    domain: &Domain,
    in_vpc: Option<bool>,
    labels: &NamespaceLabels,
    now: Timestamp,
) -> Finding {
    let told = "the identities of service accounts are looked up by the controller";
    let accounts = Resolutions::new(
        std::iter::empty().collect(),
        None,
        Reason::PrincipalUnknown,
        told,
    );
    let key = GrantKey::of(object);
    let others: Vec<&DomainAccess> = others.collect();
    let judge = |vpc: bool| {
        let facts = DomainFacts {
            vpc,
            fine_grained: domain.fine_grained,
            ..DomainFacts::default()
        };
        let all = others.iter().copied().chain([object]);
        let mut verdicts = verdict::of_all(all, domain, facts, &accounts, labels, now);
        match verdicts.remove(&key) {
            Some(Verdict::Refused(rejection) | Verdict::Undecided(_, rejection)) => {
                finding(rejection, &key.namespace, labels)
            }
            _ => Finding::Fine,
        }
    };
    match in_vpc {
        Some(vpc) => judge(vpc),
        // What holds in either case holds.
        None => match (judge(true), judge(false)) {
            (Finding::Refused(_), refused @ Finding::Refused(_)) => refused,
            (Finding::Refused(_), other) | (other, _) => other,
        },
    }
}

/// Tells whether another grant counts for one: of its namespace, or of unsigned access.
#[must_use]
pub fn counts(other: &DomainAccess, object: &DomainAccess) -> bool {
    let of = |it: &DomainAccess| it.metadata.namespace.clone();
    let is_same = other.metadata.name == object.metadata.name && of(other) == of(object);
    let anyone = || {
        let mut principals = other.spec.principals.iter();
        principals.any(|it| it.anonymous.is_some())
    };
    !is_same
        && other.spec.domain_ref == object.spec.domain_ref
        && (of(other) == of(object) || anyone())
}

/// Looks at a definition. `others` are the domain's other definitions, whose action groups roles may name.
#[must_use]
pub fn definition(
    definition: Definition,
    others: impl Iterator<Item = Definition>,
    domain: &Domain,
    labels: &NamespaceLabels,
) -> Finding {
    let key: DefinitionKey = definition.key.clone();
    let is_other = |it: &Definition| {
        let it = &it.key;
        (it.kind, &it.namespace, &it.name) != (key.kind, &key.namespace, &key.name)
    };
    let all: Vec<Definition> = others
        .filter(is_other)
        .chain([definition.clone()])
        .collect();
    let nothing = SecurityConfig::default();
    let fine_grained = domain.fine_grained;
    let engine = Engine::default();
    let rules = Rules::new(domain, fine_grained, engine, &nothing, labels, &all);
    match rules.judge(definition) {
        check::Verdict::Broken(_, rejection) => match rejection.reason {
            // What the plugin has of its own nobody asked here.
            Reason::InvalidSpec => Finding::Warning(rejection),
            _ => finding(rejection, &key.namespace, labels),
        },
        check::Verdict::Refused(_, rejection) => finding(rejection, &key.namespace, labels),
        _ => Finding::Fine,
    }
}
