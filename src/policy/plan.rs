//! Desired against observed against last applied: what to write, and what becomes of each grant.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

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
use crate::api::domain::PolicyMode;

mod outcome;
mod room;

pub use self::outcome::Outcome;
use self::outcome::outcomes;
use self::room::shed;

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
            for (account, roles) in &grant.service_accounts {
                let known = known.service_accounts.entry(account.clone()).or_default();
                for role in roles {
                    if !known.contains(role) {
                        known.push(role.clone());
                    }
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
    let mut bodies = Compiler::new(input.domain, input.facts);
    let asked_before = asked_before(input, &mut bodies);
    let mut compiled = compile_all(input, &mut bodies);
    let before = asked_before.iter().map(|(compiled, _)| compiled);
    // Where this look adopts, what it leaves out would be another's for ever: hence all of them.
    let divided = divide(input, before.chain(compiled.values()));
    keep_standing(input, &mut compiled, &divided.ours);

    let mut refusals: BTreeMap<GrantKey, Rejection> = BTreeMap::new();
    for (key, rejection) in record::beyond(input, &compiled) {
        keep_recorded(input, &divided, &mut compiled, &key);
        refusals.insert(key, rejection);
    }

    let withheld = guard::mass_revocation(input);
    let unknown = guard::unknown(input, withheld.is_some());
    let mut kept = Permissions::default();
    if !unknown.is_empty() {
        // What is asked for no more goes; what nobody can be asked about stays.
        let withdrawn = asked_before.iter().filter(|(_, stays)| !stays);
        let withdrawn = union(withdrawn.map(|(compiled, _)| compiled));
        kept = divided.ours.difference(&withdrawn);
    }
    // No write for its own sake: it grants nothing to anybody. But a grant that goes leaves nothing.
    let leaves_ids = !divided.deleted.is_empty() && guard::is_revoking(input, withheld.is_some());
    let may_fit = room::least_size(compiled.values()) <= SIZE_BUDGET;
    let fits = |draft: &Draft| {
        let policy = draft.policy.as_ref();
        policy.is_none_or(|policy| policy.to_text().len() <= SIZE_BUDGET)
    };
    let draft_of = |compiled: &_| Draft::new(input, &divided, compiled, &kept, leaves_ids);
    let draft = may_fit.then(|| draft_of(&compiled));
    let draft = draft.filter(fits).unwrap_or_else(|| {
        for (key, rejection) in shed(input, &compiled, &divided, &kept) {
            // What stands of it stays: it was there before there was no room.
            if let Some(grant) = compiled.get_mut(&key) {
                grant.permissions = Arc::new(grant.permissions.intersection(&divided.ours));
            }
            refusals.insert(key, rejection);
        }
        draft_of(&compiled)
    });
    let Draft { owned, policy } = draft;
    let (mut added, mut removed) = (Permissions::default(), Permissions::default());
    if let Some(policy) = &policy {
        let before = canonical::Canonical::of(input.observed, domain);
        let after = canonical::Canonical::of(policy, domain);
        added = after.permissions().difference(before.permissions());
        removed = before.permissions().difference(after.permissions());
    }

    let next = LastApplied {
        applied: owned
            .to_statements()
            .iter()
            .map(Statement::to_value)
            .collect(),
        pending: None,
        grants: applied_grants(input, &compiled, &unknown),
        deleted: match &policy {
            Some(_) => BTreeSet::new(),
            None => divided.deleted.clone(),
        },
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
    let hold = guard::check(input, policy.as_ref(), &added, &owned);
    Plan {
        foreign_statements: divided.others.len(),
        policy,
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

/// What the operator would have in the policy, and the policy where that needs a write.
struct Draft {
    owned: Permissions,
    policy: Option<Document>,
}

impl Draft {
    fn new(
        input: &Input<'_>,
        divided: &Split,
        compiled: &BTreeMap<GrantKey, Compiled>,
        kept: &Permissions,
        leaves_ids: bool,
    ) -> Self {
        let mut desired = union(compiled.values());
        desired.extend(kept);
        let owned = owned(input, divided, desired);
        let drops_foreign = input.domain.mode == PolicyMode::Own
            && divided.others.iter().any(|statement| !statement.denies());
        let changed = owned != divided.ours || drops_foreign || leaves_ids;
        Self {
            policy: changed.then(|| compose(input, divided, &owned)),
            owned,
        }
    }
}

/// Compiles what the grants ask for that carry the operator's finalizer, and says of each whether it
/// stays.
fn asked_before<'a>(input: &Input<'a>, bodies: &mut Compiler<'a>) -> Vec<(Compiled, bool)> {
    let stays = |key: &GrantKey| {
        let verdict = input.grants.get(key);
        matches!(verdict, Some(Verdict::Valid(_) | Verdict::Undecided(..)))
    };
    let held = input.held.iter();
    held.map(|(key, grant)| (bodies.grant(grant), stays(key)))
        .collect()
}

/// Compiles every grant that is or stays in the policy.
fn compile_all<'a>(input: &Input<'a>, bodies: &mut Compiler<'a>) -> BTreeMap<GrantKey, Compiled> {
    let grants = input.grants.iter();
    grants
        .filter_map(|(key, verdict)| match verdict {
            Verdict::Valid(grant) | Verdict::Undecided(grant, _) => {
                Some((key.clone(), bodies.grant(grant)))
            }
            Verdict::Refused(_) | Verdict::Deleting | Verdict::Unreadable(_) => None,
        })
        .collect()
}

/// Divides the policy as it was read. Without a record, what the given grants ask for is taken as
/// the operator's where the policy has it.
fn divide<'a>(input: &Input<'_>, asked: impl IntoIterator<Item = &'a Compiled>) -> Split {
    let domain = &input.domain.arn;
    let mut adopted = Permissions::default();
    if input.last.is_none() {
        let observed = canonical::Canonical::of(input.observed, domain);
        for permissions in distinct(asked) {
            adopted.extend(&permissions.intersection(observed.permissions()));
        }
    }
    ownership::split(input.observed, domain, input.last, &adopted)
}

/// Leaves undecided grants what stands of them by the operator's hand. What it may have written does
/// not count: a write that was refused is on record too, and must not be made again for them.
fn keep_standing(
    input: &Input<'_>,
    compiled: &mut BTreeMap<GrantKey, Compiled>,
    standing: &Permissions,
) {
    for (key, compiled) in compiled {
        let Some(Verdict::Undecided(..)) = input.grants.get(key) else {
            continue;
        };
        compiled.permissions = Arc::new(compiled.permissions.intersection(standing));
        let attached = input.last.and_then(|last| last.grants.get(&key.uid));
        compiled.identity_policies.retain(|policy| {
            attached.is_some_and(|grant| {
                let mut attached = grant.identity_policies.iter();
                attached.any(|(role, name)| role == policy.role.as_str() && *name == policy.name)
            })
        });
    }
}

/// Iterates over what grants compile to; those that ask for the same share it.
fn distinct<'a>(
    compiled: impl IntoIterator<Item = &'a Compiled>,
) -> impl Iterator<Item = &'a Permissions> {
    let mut seen = HashSet::new();
    let each = compiled.into_iter().map(|grant| &grant.permissions);
    each.filter(move |it| seen.insert(Arc::as_ptr(it)))
        .map(AsRef::as_ref)
}

/// Leaves of a refused grant what stands of it and is on record; of one that is not, nothing.
fn keep_recorded(
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
    for permissions in distinct(compiled) {
        all.extend(permissions);
    }
    all
}

/// Returns what the operator has in the policy after the write: everything asked for, but for what
/// others grant already and the operator never wrote. In mode `Own` nothing that others allow is
/// left to lean on.
fn owned(input: &Input<'_>, divided: &Split, desired: Permissions) -> Permissions {
    if input.domain.mode == PolicyMode::Own || divided.allowed_by_others.is_empty() {
        return desired;
    }
    let mut owned = desired.difference(&divided.allowed_by_others);
    owned.extend(&desired.intersection(&divided.ours));
    owned
}

/// Builds the new document: the statements of others as they stand, then the operator's.
fn compose(input: &Input<'_>, divided: &Split, owned: &Permissions) -> Document {
    let keeps = |statement: &&Statement| input.domain.mode != PolicyMode::Own || statement.denies();
    let mut statements: Vec<Statement> = divided
        .others
        .iter()
        .filter(keeps)
        .filter_map(ownership::without_deleted_principals)
        .collect();
    statements.extend(owned.to_statements());
    input.observed.with_statements(statements)
}

/// Returns the grants to have on record; those of whom nobody can be asked stay on it.
fn applied_grants(
    input: &Input<'_>,
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
                service_accounts: service_accounts(input, key),
                ..AppliedGrant::default()
            };
            (key.uid.clone(), grant)
        })
        .chain(unknown)
        .collect()
}

/// Returns the service accounts of a grant with the roles that they stand for.
fn service_accounts(input: &Input<'_>, key: &GrantKey) -> BTreeMap<String, Vec<String>> {
    let Some(Verdict::Valid(grant) | Verdict::Undecided(grant, _)) = input.grants.get(key) else {
        return BTreeMap::new();
    };
    let named = grant.service_accounts().filter(|it| !it.roles.is_empty());
    named
        .map(|account| {
            let roles = account.roles.iter().map(ToString::to_string);
            (account.name.clone(), roles.collect())
        })
        .collect()
}

fn identity_removals(
    input: &Input<'_>,
    wanted: &[(GrantKey, IdentityPolicy)],
    unknown: &BTreeMap<&String, &AppliedGrant>,
) -> BTreeSet<(String, String)> {
    let wanted = wanted.iter();
    let wanted: HashSet<(&str, &str)> = wanted
        .map(|(_, policy)| (policy.role.as_str(), policy.name.as_str()))
        .collect();
    let kept = |role: &str, name: &str| wanted.contains(&(role, name));
    let recorded = input.last.into_iter().flat_map(|last| &last.grants);
    recorded
        .filter(|(uid, _)| !unknown.contains_key(uid))
        .flat_map(|(_, grant)| &grant.identity_policies)
        .filter(|(role, name)| !kept(role, name))
        .cloned()
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
