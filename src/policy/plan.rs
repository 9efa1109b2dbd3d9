//! Desired against observed against last applied: what to write, and what becomes of each grant.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::compile::{Compiled, Compiler, IdentityPolicy};
use super::document::{Document, SIZE_LIMIT, Statement};
use super::domain::Domain;
use super::guard::{self, Hold};
use super::ownership::{self, AppliedGrant, LastApplied, Split};
use super::permission::Permissions;
use super::record;
use super::validate::{DomainFacts, GrantKey, ValidatedGrant};
use super::verdict::Verdict;
use super::{Rejection, canonical};
use crate::api::arn::{DomainArn, EntityArn};
use crate::api::condition::Reason;
use crate::api::domain::PolicyMode;

/// A policy is filled to this many characters and no further, so that another writer always has
/// room and the service's own spelling cannot exceed its limit.
pub const SIZE_BUDGET: usize = SIZE_LIMIT - 5_120;

/// Everything that a plan depends on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The domain's manifest, parsed.
    pub domain: &'a Domain,
    /// What is known of the domain beside it.
    pub facts: DomainFacts,
    /// What the grants ask for that carry the operator's finalizer, whatever they may have now.
    pub held: &'a BTreeMap<GrantKey, ValidatedGrant>,
    /// Every grant that names the domain.
    pub grants: &'a BTreeMap<GrantKey, Verdict>,
    /// The policy as it was read.
    pub observed: &'a Document,
    /// The last applied state, where there is one.
    pub last: Option<&'a LastApplied>,
    /// How many grants the domain's admin lets vanish at once.
    pub acknowledged_revocation: usize,
}

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
    },
    /// The grant is refused.
    Refused(Rejection),
    /// The grant could not be decided; what is in place of it stays.
    Undecided(Rejection),
    /// The grant is being deleted; once the plan is applied, nothing of it is left.
    Deleting,
}

/// What to do about one domain.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The new policy; `None` where the policy needs no write.
    pub policy: Option<Document>,
    /// The statements that the write adds, by meaning.
    pub added: Vec<Statement>,
    /// The statements that the write removes, by meaning.
    pub removed: Vec<Statement>,
    /// The number of statements that others wrote.
    pub foreign_statements: usize,
    /// The last applied state once the plan is applied.
    pub next: LastApplied,
    /// The inline policies to have.
    pub identity_policies: Vec<(GrantKey, IdentityPolicy)>,
    /// The inline policies to remove: role ARN and policy name.
    pub identity_removals: BTreeSet<(String, String)>,
    /// What becomes of each grant.
    pub outcomes: BTreeMap<GrantKey, Outcome>,
    /// Why nothing may be written, where a guard fired.
    pub hold: Option<Hold>,
    /// Why grants that are gone are not revoked; everything else goes its way.
    pub withheld: Option<Hold>,
}

impl Plan {
    /// Tells whether something is to be done that grants or revokes, or is forgotten.
    #[must_use]
    pub fn changes(&self, last: Option<&LastApplied>) -> bool {
        let recorded = last.into_iter().flat_map(|last| last.grants.keys());
        self.policy.is_some()
            || !self.identity_policies.is_empty()
            || !self.identity_removals.is_empty()
            || recorded
                .into_iter()
                .any(|uid| !self.next.grants.contains_key(uid))
    }

    /// Returns the state to keep while the write is under way: what was applied, and what will be.
    #[must_use]
    pub fn intent(&self, last: Option<&LastApplied>, domain: &DomainArn) -> LastApplied {
        let mut intent = last.cloned().unwrap_or_default();
        // An earlier write whose answer was lost may stand too.
        if let Some(lost) = intent.pending.take() {
            // As they were written, by which they are told from another's copy; joined by meaning
            // only where tries without an answer would have the record grow.
            for statement in lost {
                if !intent.applied.contains(&statement) {
                    intent.applied.push(statement);
                }
            }
            let size: usize = intent.applied.iter().map(|it| it.to_string().len()).sum();
            if size > 2 * SIZE_LIMIT {
                intent.applied = ownership::joined(&intent.applied, domain);
            }
        }
        intent.pending = Some(self.next.applied.clone());
        for (uid, grant) in &self.next.grants {
            let known = intent
                .grants
                .entry(uid.clone())
                .or_insert_with(|| grant.clone());
            for policy in &grant.identity_policies {
                if !known.identity_policies.contains(policy) {
                    known.identity_policies.push(policy.clone());
                }
            }
        }
        intent
    }
}

/// Plans one domain.
#[must_use]
pub fn plan(input: &Input<'_>) -> Plan {
    let domain = &input.domain.arn;
    let asked_before = asked_before(input);
    let before = union(asked_before.values().map(|(compiled, _)| compiled));
    let mut compiled = compile_all(input, &before);
    let mut refusals: BTreeMap<GrantKey, Rejection> = BTreeMap::new();
    let mut asked = union(compiled.values());
    asked.extend(&before);
    let divided = ownership::split(input.observed, domain, input.last, &asked);

    for (key, rejection) in record::beyond(input, &compiled) {
        keep_standing(input, &divided, &mut compiled, &key);
        refusals.insert(key, rejection);
    }

    let withheld = guard::mass_revocation(input);
    let unknown = guard::unknown(input, withheld.is_some());
    let mut kept = Permissions::default();
    if !unknown.is_empty() {
        // What is asked for no more goes; what nobody can be asked about stays.
        let withdrawn = asked_before.values().filter(|(_, stays)| !stays);
        let withdrawn = union(withdrawn.map(|(compiled, _)| compiled));
        kept = divided.ours.difference(&withdrawn);
    }
    let wanted = |compiled: &BTreeMap<GrantKey, Compiled>| {
        let mut wanted = union(compiled.values());
        wanted.extend(&kept);
        wanted
    };
    let mut desired = wanted(&compiled);
    let mut policy = compose(input, &divided, &desired);
    if policy.to_text().len() > SIZE_BUDGET {
        for (key, rejection) in shed(input, &compiled, &divided, &kept) {
            // What stands of it stays: it was there before there was no room.
            if let Some(grant) = compiled.get_mut(&key) {
                grant.permissions = Arc::new(grant.permissions.intersection(&divided.ours));
            }
            refusals.insert(key, rejection);
        }
        desired = wanted(&compiled);
        policy = compose(input, &divided, &desired);
    }

    let owned = owned(input, &divided, &desired);
    let drops_foreign = input.domain.mode == PolicyMode::Own
        && divided.others.iter().any(|statement| !statement.denies());
    let changed = owned != divided.ours || drops_foreign;
    let before = canonical::Canonical::of(input.observed, domain);
    let after = canonical::Canonical::of(&policy, domain);
    let added = after.permissions().difference(before.permissions());
    let removed = before.permissions().difference(after.permissions());

    let next = LastApplied {
        applied: owned
            .to_statements()
            .iter()
            .map(Statement::to_value)
            .collect(),
        pending: None,
        grants: applied_grants(&compiled, &unknown),
    };
    let outcomes = outcomes(input, &compiled, &refusals, &divided, &unknown);
    let identity_policies: Vec<(GrantKey, IdentityPolicy)> = compiled
        .iter()
        .flat_map(|(key, compiled)| {
            compiled
                .identity_policies
                .iter()
                .map(|policy| (key.clone(), policy.clone()))
        })
        .collect();
    let identity_removals = identity_removals(input, &identity_policies, &unknown);
    let hold = guard::check(input, changed.then_some(&policy), &added);
    Plan {
        foreign_statements: divided.others.len(),
        policy: changed.then_some(policy),
        added: added.to_statements(),
        removed: removed.to_statements(),
        next,
        identity_policies,
        identity_removals,
        outcomes,
        hold,
        withheld,
    }
}

/// Compiles what the grants ask for that carry the operator's finalizer, and says of each whether it
/// stays.
fn asked_before(input: &Input<'_>) -> BTreeMap<GrantKey, (Compiled, bool)> {
    let mut bodies = Compiler::new(input.domain, input.facts);
    let stays = |key: &GrantKey| {
        let verdict = input.grants.get(key);
        matches!(verdict, Some(Verdict::Valid(_) | Verdict::Undecided(..)))
    };
    let held = input.held.iter();
    held.map(|(key, grant)| (key.clone(), (bodies.grant(grant), stays(key))))
        .collect()
}

/// Compiles every grant that is or stays in the policy.
///
/// `asked_before` is what the grants ask for that carry the operator's finalizer.
fn compile_all(input: &Input<'_>, asked_before: &Permissions) -> BTreeMap<GrantKey, Compiled> {
    // What stands by the operator's hand, not what it may have written: a write that was refused
    // is on record too, and must not be made again for a grant that is undecided.
    let domain = &input.domain.arn;
    let standing = ownership::split(input.observed, domain, input.last, asked_before).ours;
    let mut bodies = Compiler::new(input.domain, input.facts);
    input
        .grants
        .iter()
        .filter_map(|(key, verdict)| match verdict {
            Verdict::Valid(grant) => Some((key.clone(), bodies.grant(grant))),
            Verdict::Undecided(grant, _) => {
                let mut compiled = bodies.grant(grant);
                compiled.permissions = Arc::new(compiled.permissions.intersection(&standing));
                let attached = input.last.and_then(|last| last.grants.get(&key.uid));
                compiled.identity_policies.retain(|policy| {
                    attached.is_some_and(|grant| {
                        grant.identity_policies.iter().any(|(role, name)| {
                            role == policy.role.as_str() && *name == policy.name
                        })
                    })
                });
                Some((key.clone(), compiled))
            }
            Verdict::Refused(_) | Verdict::Deleting | Verdict::Unreadable(_) => None,
        })
        .collect()
}

/// Leaves of a refused grant what stands of it and is on record; of one that is not, nothing.
fn keep_standing(
    input: &Input<'_>,
    divided: &Split,
    compiled: &mut BTreeMap<GrantKey, Compiled>,
    key: &GrantKey,
) {
    let recorded = input.last.and_then(|last| last.grants.get(&key.uid));
    match (recorded, compiled.get_mut(key)) {
        (Some(recorded), Some(grant)) => {
            grant.permissions = Arc::new(grant.permissions.intersection(&divided.ours));
            let known = |policy: &IdentityPolicy| {
                let known = &recorded.identity_policies;
                known
                    .iter()
                    .any(|(role, name)| role == policy.role.as_str() && *name == policy.name)
            };
            grant.identity_policies.retain(known);
        }
        _ => {
            compiled.remove(key);
        }
    }
}

fn union<'a>(compiled: impl IntoIterator<Item = &'a Compiled>) -> Permissions {
    let mut all = Permissions::default();
    let mut seen = HashSet::new();
    for grant in compiled {
        // Grants that ask for the same share what they compile to.
        if seen.insert(Arc::as_ptr(&grant.permissions)) {
            all.extend(&grant.permissions);
        }
    }
    all
}

/// Returns what the operator has in the policy after the write: everything asked for, but for what
/// others grant already and the operator never wrote. In mode `Own` nothing that others allow is
/// left to lean on.
fn owned(input: &Input<'_>, divided: &Split, desired: &Permissions) -> Permissions {
    if input.domain.mode == PolicyMode::Own {
        return desired.clone();
    }
    let mut owned = desired.difference(&divided.allowed_by_others);
    owned.extend(&desired.intersection(&divided.ours));
    owned
}

/// Builds the new document: the statements of others as they stand, then the operator's.
fn compose(input: &Input<'_>, divided: &Split, desired: &Permissions) -> Document {
    let keeps = |statement: &&Statement| input.domain.mode != PolicyMode::Own || statement.denies();
    let mut statements: Vec<Statement> = divided
        .others
        .iter()
        .filter(keeps)
        .filter_map(ownership::without_deleted_principals)
        .collect();
    statements.extend(owned(input, divided, desired).to_statements());
    input.observed.with_statements(statements)
}

/// Chooses which grants a policy that would be too large has to do without: those that are not in
/// it yet, the youngest first.
///
/// Grants are admitted oldest first, and what is in the policy already stays in, however much others
/// have written beside it. The size grows with each grant, so the last that fits is found by
/// halving. `kept` is what stays in any case.
fn shed(
    input: &Input<'_>,
    compiled: &BTreeMap<GrantKey, Compiled>,
    divided: &Split,
    kept: &Permissions,
) -> Vec<(GrantKey, Rejection)> {
    let created = |key: &GrantKey| match input.grants.get(key) {
        Some(Verdict::Valid(grant) | Verdict::Undecided(grant, _)) => grant.created,
        _ => None,
    };
    let in_place = |key: &GrantKey| {
        compiled
            .get(key)
            .is_some_and(|grant| grant.permissions.is_subset(&divided.ours))
    };
    let mut order: Vec<&GrantKey> = compiled.keys().collect();
    order.sort_by_cached_key(|key| {
        (
            !in_place(key),
            created(key).unwrap_or(Timestamp::MAX),
            (*key).clone(),
        )
    });
    let size_of_first = |count: usize| {
        let first = order.iter().take(count);
        let mut desired = union(first.filter_map(|key| compiled.get(*key)));
        desired.extend(kept);
        compose(input, divided, &desired).to_text().len()
    };
    // What fits is few beside what a cluster may ask for, so the search begins there.
    let mut fits = order.iter().filter(|key| in_place(key)).count();
    let mut too_many = order.len().min(fits + 64);
    while too_many < order.len() && size_of_first(too_many) <= SIZE_BUDGET {
        fits = too_many;
        too_many = (too_many * 2).min(order.len());
    }
    while too_many - fits > 1 {
        let middle = usize::midpoint(fits, too_many);
        if size_of_first(middle) <= SIZE_BUDGET {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    let rejection = Rejection::new(
        Reason::PolicyTooLarge,
        "",
        format!(
            "the domain's access policy would be larger than {SIZE_BUDGET} of the {SIZE_LIMIT} characters that AWS stores; older grants stay. Join grants, use wildcards in paths, or ask the domain's admin for room"
        ),
    );
    order
        .into_iter()
        .skip(fits)
        .map(|key| (key.clone(), rejection.clone()))
        .collect()
}

/// Returns the grants to have on record; those of whom nobody can be asked stay on it.
fn applied_grants(
    compiled: &BTreeMap<GrantKey, Compiled>,
    unknown: &BTreeMap<&String, &AppliedGrant>,
) -> BTreeMap<String, AppliedGrant> {
    let unknown = unknown.iter();
    let unknown = unknown.map(|(&uid, &grant)| (uid.clone(), grant.clone()));
    compiled
        .iter()
        .map(|(key, compiled)| {
            let grant = AppliedGrant {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                identity_policies: compiled
                    .identity_policies
                    .iter()
                    .map(|policy| (policy.role.to_string(), policy.name.clone()))
                    .collect(),
                ..AppliedGrant::default()
            };
            (key.uid.clone(), grant)
        })
        .chain(unknown)
        .collect()
}

fn identity_removals(
    input: &Input<'_>,
    wanted: &[(GrantKey, IdentityPolicy)],
    unknown: &BTreeMap<&String, &AppliedGrant>,
) -> BTreeSet<(String, String)> {
    let kept = |role: &str, name: &str| {
        wanted
            .iter()
            .any(|(_, policy)| policy.role.as_str() == role && policy.name == name)
    };
    let recorded = input.last.into_iter().flat_map(|last| &last.grants);
    recorded
        .filter(|(uid, _)| !unknown.contains_key(uid))
        .flat_map(|(_, grant)| &grant.identity_policies)
        .filter(|(role, name)| !kept(role, name))
        .cloned()
        .collect()
}

fn outcomes(
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

/// Returns the IAM roles and users that the valid grants name, for the caller to look up.
#[must_use]
pub fn entities(grants: &BTreeMap<GrantKey, Verdict>) -> BTreeSet<EntityArn> {
    grants
        .values()
        .filter_map(|verdict| match verdict {
            Verdict::Valid(grant) => Some(grant),
            _ => None,
        })
        .flat_map(|grant| grant.entities().cloned())
        .collect()
}

#[cfg(test)]
mod tests;
