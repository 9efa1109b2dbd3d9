//! What is to be written and removed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{self, Rules, Verdict};
use super::{Definition, DefinitionKey, Definitions};
use crate::api::condition::Reason;
use crate::api::definition::{Adoption, Removal};
use crate::api::name::ACKNOWLEDGE_REVOCATION;
use crate::policy::Rejection;
use crate::policy::fine_grained::entity::{Entity, EntityKind, SecurityConfig, means_the_same};
use crate::policy::guard::{self, Hold};

/// Something in the plugin that an object defines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The object's UID.
    pub uid: String,
    /// What it says.
    pub body: Map<String, Value>,
    /// Whether it stays when the object goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// Whether its object was let go before it could be removed: it is removed as soon as it can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

/// What the operator defined in the plugin of a domain, as it is kept between reconciles.
///
/// It is written before anything is, and again after something was removed: whatever is there by
/// the operator's hand is in here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppliedDefinitions(pub BTreeMap<EntityKind, BTreeMap<String, Recorded>>);

impl AppliedDefinitions {
    /// Returns what is on record under a name.
    #[must_use]
    pub fn get(&self, kind: EntityKind, entity: &str) -> Option<&Recorded> {
        self.0.get(&kind)?.get(entity)
    }

    fn insert(&mut self, kind: EntityKind, entity: String, recorded: Recorded) {
        self.0.entry(kind).or_default().insert(entity, recorded);
    }

    /// Puts a name back to what another record has under it, or has not.
    pub fn put_back(&mut self, kind: EntityKind, entity: &str, other: &Self) {
        if let Some(recorded) = other.get(kind, entity) {
            self.insert(kind, entity.to_owned(), recorded.clone());
            return;
        }
        if let Some(entities) = self.0.get_mut(&kind) {
            entities.remove(entity);
        }
        self.0.retain(|_, entities| !entities.is_empty());
    }

    /// Returns what of this is on another record, too.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Self {
        let mut shared = Self::default();
        for (kind, entity, recorded) in self.all() {
            if other.get(kind, entity).is_some() {
                shared.insert(kind, entity.clone(), recorded.clone());
            }
        }
        shared
    }

    /// Returns everything on record.
    pub fn all(&self) -> impl Iterator<Item = (EntityKind, &String, &Recorded)> {
        let kinds = self.0.iter();
        kinds.flat_map(|(kind, all)| all.iter().map(|(entity, it)| (*kind, entity, it)))
    }

    /// Tells whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// What becomes of a definition.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in the plugin, or will be.
    Defined {
        /// Its name there.
        entity: String,
        /// Whether it stands there already.
        in_place: bool,
    },
    /// It is not; with what stands of it, if something stays.
    Refused(Rejection, Option<String>),
    /// Its object is being deleted; with the role that names it, where it stays for that long.
    Deleting(Option<String>),
}

/// What to do about the definitions of one domain.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DefinitionPlan {
    /// What to write, in this order.
    pub puts: Vec<(EntityKind, String, Map<String, Value>)>,
    /// What to delete, in this order, once nobody is mapped to it any more.
    pub deletes: Vec<(EntityKind, String)>,
    /// What becomes of each definition.
    pub outcomes: BTreeMap<DefinitionKey, Outcome>,
    /// What is to be on record before anything is written.
    pub intent: AppliedDefinitions,
    /// What is to be on record once all of it is done.
    pub next: AppliedDefinitions,
    /// Why what is on record stays although its objects are gone, where too many are gone to be
    /// believed.
    pub withheld: Option<Hold>,
}

impl DefinitionPlan {
    /// Tells whether anything is to be written to the plugin or to the record.
    #[must_use]
    pub fn changes(&self, last: Option<&AppliedDefinitions>) -> bool {
        let empty = AppliedDefinitions::default();
        !self.puts.is_empty() || !self.deletes.is_empty() || *last.unwrap_or(&empty) != self.next
    }

    /// Returns what the plugin will have, for judging who may be mapped to it.
    #[must_use]
    pub fn ahead(&self, observed: &SecurityConfig) -> SecurityConfig {
        let mut ahead = observed.clone();
        for (kind, entity, body) in &self.puts {
            let entry = ahead.of_mut(*kind).entry(entity.clone()).or_default();
            entry.body.clone_from(body);
        }
        for (kind, entity) in &self.deletes {
            ahead.of_mut(*kind).remove(entity);
        }
        ahead
    }
}

/// So many bytes the record of a domain's definitions may take: a `ConfigMap` holds 1 MiB, and what
/// is to be and what was may both be on it.
const RECORD_LIMIT: usize = 480 * 1024;

/// How the objects were seen that a plan is made from.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whether they were read for this very plan, past every cache: without that nothing is removed
    /// for not being seen.
    pub is_fresh: bool,
    /// The kinds that could not be listed, since the cluster has them no more: nothing of theirs is
    /// removed for not being seen.
    pub unlisted: BTreeSet<EntityKind>,
    /// How many may vanish at once.
    pub acknowledged: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            is_fresh: true,
            unlisted: BTreeSet::new(),
            acknowledged: 0,
        }
    }
}

/// Plans the definitions of one domain.
#[must_use]
pub fn plan(
    definitions: &Definitions,
    rules: &Rules<'_>,
    last: Option<&AppliedDefinitions>,
    seen: &Seen,
) -> DefinitionPlan {
    let none = AppliedDefinitions::default();
    let planner = Planner {
        definitions,
        rules,
        last: last.unwrap_or(&none),
        is_lost: last.is_none(),
    };
    let mut plan = DefinitionPlan::default();
    planner.define(&mut plan);
    planner.keep(&mut plan);
    plan.intent = planner.last.clone();
    planner.remove(&mut plan, seen);
    planner.find(&mut plan);
    // What names goes before what it names.
    plan.deletes
        .sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    for (kind, entity, recorded) in plan.next.all() {
        plan.intent.insert(kind, entity.clone(), recorded.clone());
    }
    plan
}

struct Planner<'a> {
    definitions: &'a Definitions,
    rules: &'a Rules<'a>,
    last: &'a AppliedDefinitions,
    /// Whether there is no record at all: nothing was defined ever, or it was lost.
    is_lost: bool,
}

impl Planner<'_> {
    /// Decides about what is valid: the oldest of one name holds.
    fn define(&self, plan: &mut DefinitionPlan) {
        let valid = self.definitions.values().filter_map(|it| match it {
            Verdict::Valid(definition) => Some(definition),
            _ => None,
        });
        let mut valid: Vec<&Definition> = valid.collect();
        valid.sort_by_key(|it| (it.created, &it.key));
        // What is broken keeps the name under which it stands.
        let broken = self.definitions.values().filter_map(|it| match it {
            Verdict::Broken(definition, _) => Some(definition),
            _ => None,
        });
        let broken: BTreeMap<(EntityKind, &str), &Definition> = broken
            .filter(|it| self.holds(it))
            .map(|it| ((it.key.kind, it.entity.as_str()), it))
            .collect();
        let mut wanted: BTreeMap<(EntityKind, &str), &Definition> = BTreeMap::new();
        let mut size = 0;
        for definition in valid {
            let (kind, entity) = (definition.key.kind, &definition.entity);
            let place = (kind, entity.as_str());
            let outcome = if let Some(older) = wanted.get(&place).or_else(|| broken.get(&place)) {
                let rule = format!(
                    "{entity:?} is defined by {}/{} already, which is older: choose another name",
                    older.key.namespace, older.key.name
                );
                refused(rule)
            } else {
                let standing = self.rules.observed.of(kind).get(entity);
                let ours = self.last.get(kind, entity).is_some_and(|it| {
                    let holder = self.definitions.iter().find(|(key, _)| key.uid == it.uid);
                    // Whoever held it, and does no more, hands it on.
                    let keeps = |verdict: &Verdict| {
                        !matches!(verdict, Verdict::Deleting(_) | Verdict::Gone)
                    };
                    it.uid == definition.key.uid || !holder.is_some_and(|(_, it)| keeps(it))
                });
                let needs = size_of(definition);
                if let Some(rule) = conflict(definition, standing, ours) {
                    refused(rule)
                } else if size + needs > RECORD_LIMIT {
                    Outcome::Refused(beyond(), None)
                } else {
                    size += needs;
                    wanted.insert((kind, entity), definition);
                    let same = |it: &Entity| means_the_same(&it.body, &definition.body);
                    Outcome::Defined {
                        entity: entity.clone(),
                        in_place: standing.is_some_and(same),
                    }
                }
            };
            plan.outcomes.insert(definition.key.clone(), outcome);
        }
        // In the order of the kinds: each may name those before it.
        for ((kind, entity), definition) in wanted {
            let body = definition.body.clone();
            let outcome = plan.outcomes.get(&definition.key);
            if !matches!(outcome, Some(Outcome::Defined { in_place: true, .. })) {
                plan.puts.push((kind, entity.to_owned(), body.clone()));
            }
            let recorded = Recorded {
                uid: definition.key.uid.clone(),
                body,
                retain: definition.removal == Removal::Retain,
                released: false,
            };
            plan.next.insert(kind, entity.to_owned(), recorded);
        }
    }

    /// Tells whether something stands by a definition.
    fn holds(&self, definition: &Definition) -> bool {
        let recorded = self.last.get(definition.key.kind, &definition.entity);
        recorded.is_some_and(|it| it.uid == definition.key.uid)
    }

    /// Decides about the others: what stays of them although their objects do not say so, or not in
    /// a way that can be used.
    fn keep(&self, plan: &mut DefinitionPlan) {
        for (key, verdict) in self.definitions {
            let outcome = match verdict {
                Verdict::Valid(_) => continue,
                Verdict::Broken(definition, rejection) => {
                    let stays = self.stay(plan, key, |entity, it| {
                        let may = || self.rules.consent(definition, &it.body).is_ok();
                        definition.entity == *entity && may()
                    });
                    Outcome::Refused(rejection.clone(), stays)
                }
                Verdict::Refused(_, rejection) => Outcome::Refused(rejection.clone(), None),
                Verdict::Deleting(_) | Verdict::Gone => Outcome::Deleting(None),
                Verdict::Unreadable => {
                    self.stay(plan, key, |_, _| true);
                    continue;
                }
            };
            plan.outcomes.insert(key.clone(), outcome);
        }
    }

    /// Keeps what is on record of an object, as far as it may stay; returns its name.
    fn stay(
        &self,
        plan: &mut DefinitionPlan,
        key: &DefinitionKey,
        may: impl Fn(&String, &Recorded) -> bool,
    ) -> Option<String> {
        let mut found = None;
        let recorded = self.last.all();
        for (kind, entity, it) in recorded.filter(|(_, _, it)| it.uid == key.uid) {
            if plan.next.get(kind, entity).is_none() && may(entity, it) {
                plan.next.insert(kind, entity.clone(), it.clone());
                found = Some(entity.clone());
            }
        }
        found
    }

    /// Decides about what is on record and asked for no more.
    fn remove(&self, plan: &mut DefinitionPlan, how: &Seen) {
        let seen: BTreeMap<&str, &Verdict> = self
            .definitions
            .iter()
            .map(|(key, verdict)| (key.uid.as_str(), verdict))
            .collect();
        let vanished = |it: &Recorded| !it.released && !seen.contains_key(it.uid.as_str());
        let listed = |kind: EntityKind| !how.unlisted.contains(&kind);
        let all = || self.last.all();
        let count = all().filter(|(kind, _, it)| listed(*kind) && vanished(it));
        let count = count.count();
        let is_mass = guard::is_mass(count, all().count()) && count > how.acknowledged;
        plan.withheld = is_mass.then(|| self.withheld(count));
        for (kind, entity, recorded) in self.last.all() {
            if plan.next.get(kind, entity).is_some() {
                continue;
            }
            let held = !how.is_fresh || is_mass || !listed(kind);
            if held && vanished(recorded) {
                plan.next.insert(kind, entity.clone(), recorded.clone());
                continue;
            }
            let verdict = seen.get(recorded.uid.as_str());
            let goes = !matches!(verdict, Some(Verdict::Refused(..)));
            if let Some(role) = named_by(plan, kind, entity).filter(|_| goes) {
                plan.next.insert(kind, entity.clone(), recorded.clone());
                let outcomes = plan.outcomes.iter_mut();
                for (_, outcome) in outcomes.filter(|(key, _)| key.uid == recorded.uid) {
                    if matches!(outcome, Outcome::Deleting(_)) {
                        *outcome = Outcome::Deleting(Some(role.clone()));
                    }
                }
                continue;
            }
            let retain = match verdict {
                Some(Verdict::Deleting(definition)) => definition.removal == Removal::Retain,
                Some(Verdict::Gone) | None => recorded.retain,
                Some(_) => false,
            };
            let standing = self.rules.observed.of(kind).get(entity);
            if !retain && standing.is_some_and(|it| !it.is_protected()) {
                plan.deletes.push((kind, entity.clone()));
            }
        }
    }

    /// Finds what deleted objects defined while there is no record: they were held before anything
    /// was written for them.
    fn find(&self, plan: &mut DefinitionPlan) {
        if !self.is_lost {
            return;
        }
        for verdict in self.definitions.values() {
            let Verdict::Deleting(definition) = verdict else {
                continue;
            };
            let Definition {
                key, entity, body, ..
            } = definition;
            let standing = self.rules.observed.of(key.kind).get(entity);
            let stands =
                standing.is_some_and(|it| !it.is_protected() && means_the_same(&it.body, body));
            let is_free = plan.next.get(key.kind, entity).is_none();
            let goes = definition.is_held && definition.removal == Removal::Delete;
            if goes && stands && is_free {
                plan.deletes.push((key.kind, entity.clone()));
                let recorded = Recorded {
                    uid: key.uid.clone(),
                    body: body.clone(),
                    retain: false,
                    released: false,
                };
                plan.intent.insert(key.kind, entity.clone(), recorded);
            }
        }
    }

    fn withheld(&self, count: usize) -> Hold {
        Hold {
            reason: Reason::MassRevocationHeld,
            message: format!(
                "{count} roles, tenants and action groups are on record whose objects are gone without having been deleted; they stay in the security plugin. Restore the objects, or let them go: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count} --overwrite",
                self.rules.domain.name
            ),
        }
    }
}

/// Returns a role, as it is to be, that names an action group: without the group it would permit
/// less, and say nothing of it.
fn named_by(plan: &DefinitionPlan, kind: EntityKind, entity: &str) -> Option<String> {
    if kind != EntityKind::ActionGroup {
        return None;
    }
    let mut roles = plan
        .next
        .all()
        .filter(|(kind, ..)| *kind == EntityKind::Role);
    let found = roles.find(|(_, _, role)| {
        let indexes = check::indexes(&role.body).map(|(_, item)| item);
        let of_indexes = indexes.flat_map(|item| check::texts(item, "allowed_actions"));
        let of_cluster = check::texts(&role.body, "cluster_permissions");
        of_indexes.chain(of_cluster).any(|it| it == entity)
    });
    found.map(|(_, name, _)| name.clone())
}

fn refused(rule: String) -> Outcome {
    Outcome::Refused(Rejection::new(Reason::Conflicted, "spec.name", rule), None)
}

/// Returns how many bytes a definition takes on the record.
fn size_of(definition: &Definition) -> usize {
    /// What JSON needs around a name, a UID and a body.
    const AROUND: usize = 64;
    let body = serde_json::to_string(&definition.body).unwrap_or_default();
    // As it stands within the JSON of another text.
    let quoted = body.len() + body.matches(['"', '\\']).count();
    quoted + definition.entity.len() + definition.key.uid.len() + AROUND
}

fn beyond() -> Rejection {
    let rule = "the operator's record of the domain has no room for another definition: make older ones smaller, or delete some";
    Rejection::new(Reason::TooManyGrants, "spec", rule)
}

/// Says why what stands under a name keeps a definition from being written.
fn conflict(definition: &Definition, standing: Option<&Entity>, ours: bool) -> Option<String> {
    let standing = standing?;
    let entity = &definition.entity;
    if standing.is_protected() {
        return Some(format!(
            "{entity:?} is part of the security plugin, which does not change it: choose another name"
        ));
    }
    let same = means_the_same(&standing.body, &definition.body);
    (!ours && !same && definition.adoption == Adoption::IfSame).then(|| {
        format!(
            "the security plugin has {entity:?} already, and it says something else: make this object say the same, or set adoption: Replace to replace it"
        )
    })
}

#[cfg(test)]
mod tests;
