//! Who has which role of the security plugin: desired against observed against last applied.
//!
//! A mapping belongs to everybody who writes it. What the operator put there is on record, entry by
//! entry; whatever else stands there is another's and stays. An entry that two grants ask for is
//! there as long as either does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::entity::{Entity, SecurityConfig};
use super::nearest::nearest;
use crate::api::arn::EntityKind;
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::validate::{GrantKey, ValidatedGrant};
use crate::policy::verdict::Verdict;

/// Entries of a mapping: IAM users are users to the plugin, IAM roles backend roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entries {
    /// ARNs of IAM users.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// ARNs of IAM roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub backend_roles: BTreeSet<String>,
}

impl Entries {
    /// Reads the entries that stand in a mapping.
    #[must_use]
    pub fn of(mapping: &Entity) -> Self {
        let texts = |list: &str| mapping.texts(list).map(str::to_owned).collect();
        Self {
            users: texts("users"),
            backend_roles: texts("backend_roles"),
        }
    }

    /// Returns the entries of a grant's principals.
    #[must_use]
    pub fn of_grant(grant: &ValidatedGrant) -> Self {
        let mut entries = Self::default();
        for arn in grant.entities() {
            let list = match arn.kind() {
                EntityKind::User => &mut entries.users,
                EntityKind::Role => &mut entries.backend_roles,
            };
            list.insert(arn.to_string());
        }
        entries
    }

    /// Returns the lists by the names that the plugin has for them.
    #[must_use]
    pub fn lists(&self) -> [(&'static str, &BTreeSet<String>); 2] {
        [
            ("users", &self.users),
            ("backend_roles", &self.backend_roles),
        ]
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.backend_roles.is_empty()
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &Self) {
        self.users.extend(other.users.iter().cloned());
        let roles = other.backend_roles.iter().cloned();
        self.backend_roles.extend(roles);
    }

    /// Returns what is here and not there.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self {
            users: &self.users - &other.users,
            backend_roles: &self.backend_roles - &other.backend_roles,
        }
    }

    /// Returns what is both here and there.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            users: &self.users & &other.users,
            backend_roles: &self.backend_roles & &other.backend_roles,
        }
    }
}

/// What the operator put into the mappings of a domain, as it is kept between reconciles.
///
/// It is written before an entry is, and again after an entry was removed: everything that may stand
/// there by the operator's hand is in here, whatever crash comes between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedSecurity {
    /// The entries, by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mappings: BTreeMap<String, Entries>,
    /// The roles whose mapping did not exist before: it goes with its last entry.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub made: BTreeSet<String>,
    /// What each grant asked for, by UID, so that one which is gone can be told from one that is
    /// not seen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<String, BTreeMap<String, Entries>>,
}

/// What to do about the mappings of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MappingPlan {
    /// What to add, by role.
    pub adds: BTreeMap<String, Entries>,
    /// What to remove, by role, and whether the mapping goes once it is empty.
    pub removes: BTreeMap<String, (Entries, bool)>,
    /// What is to be on record before anything is added.
    pub intent: AppliedSecurity,
    /// What is to be on record once all of it is done.
    pub next: AppliedSecurity,
    /// Whether everything that a grant asks for stands already.
    pub in_place: BTreeMap<GrantKey, bool>,
}

impl MappingPlan {
    /// Tells whether there is anything to do.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.adds.is_empty() || !self.removes.is_empty()
    }
}

/// Everything that a plan of mappings depends on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The verdict on each grant.
    pub grants: &'a BTreeMap<GrantKey, Verdict>,
    /// What the plugin has.
    pub observed: &'a SecurityConfig,
    /// What is on record, where there is a record.
    pub last: Option<&'a AppliedSecurity>,
    /// Whether grants that are gone are not to be revoked.
    pub withheld: bool,
}

/// Returns what a plugin has that could not be asked, as far as the record tells.
#[must_use]
pub fn assumed(last: Option<&AppliedSecurity>) -> SecurityConfig {
    let mappings = last.into_iter().flat_map(|last| &last.mappings);
    let mappings = mappings.map(|(role, entries)| {
        let lists = entries.lists().into_iter();
        let body = lists.map(|(list, texts)| (list.to_owned(), serde_json::json!(texts)));
        let body = body.collect();
        (
            role.clone(),
            Entity {
                body,
                ..Entity::default()
            },
        )
    });
    SecurityConfig {
        mappings: mappings.collect(),
        ..SecurityConfig::default()
    }
}

/// Plans the mappings of one domain.
#[must_use]
pub fn plan(input: &Input<'_>) -> MappingPlan {
    let none = AppliedSecurity::default();
    let last = input.last.unwrap_or(&none);
    let nothing = Entity::default();
    let standing = |role: &str| {
        let mapping = input.observed.mappings.get(role).unwrap_or(&nothing);
        Entries::of(mapping)
    };
    let claimed = |role: &str| last.mappings.get(role).cloned().unwrap_or_default();

    let mut wanted: BTreeMap<String, Entries> = BTreeMap::new();
    let mut plan = MappingPlan::default();
    for (key, verdict) in input.grants {
        let (grant, decided) = match verdict {
            Verdict::Valid(grant) => (grant, true),
            Verdict::Undecided(grant, _) => (grant, false),
            // What is in force of one that cannot be read stays.
            Verdict::Unreadable(_) => {
                if let Some(asked) = last.grants.get(&key.uid) {
                    want_all(&mut wanted, asked);
                    plan.next.grants.insert(key.uid.clone(), asked.clone());
                }
                continue;
            }
            Verdict::Refused(_) | Verdict::Deleting => continue,
        };
        let mut asked = BTreeMap::new();
        let mut in_place = true;
        for role in &grant.security_roles {
            let mut entries = Entries::of_grant(grant);
            in_place &= entries.difference(&standing(role)).is_empty();
            if !decided {
                entries = entries.intersection(&claimed(role));
            }
            asked.insert(role.clone(), entries);
        }
        if !asked.is_empty() {
            want_all(&mut wanted, &asked);
            plan.next.grants.insert(key.uid.clone(), asked);
            plan.in_place.insert(key.clone(), in_place);
        }
    }
    if input.withheld {
        let seen: BTreeSet<&String> = input.grants.keys().map(|key| &key.uid).collect();
        for (uid, asked) in last.grants.iter().filter(|(uid, _)| !seen.contains(uid)) {
            want_all(&mut wanted, asked);
            plan.next.grants.insert(uid.clone(), asked.clone());
        }
    }

    let roles: BTreeSet<&String> = wanted.keys().chain(last.mappings.keys()).collect();
    for role in roles {
        let (standing, claimed) = (standing(role), claimed(role));
        let wanted = wanted.get(role).cloned().unwrap_or_default();
        let adds = wanted.difference(&standing);
        // Without a record, what is asked for and stands is taken as the operator's.
        let adopted = match input.last {
            Some(_) => Entries::default(),
            None => wanted.intersection(&standing),
        };
        let mut ours = claimed.intersection(&wanted);
        ours.extend(&adds);
        ours.extend(&adopted);
        let removes = claimed.difference(&wanted).intersection(&standing);
        let exists = input.observed.mappings.contains_key(role);
        let made = last.made.contains(role) || !adds.is_empty() && !exists;
        if !adds.is_empty() {
            plan.adds.insert(role.clone(), adds);
        }
        if !removes.is_empty() || made && ours.is_empty() && exists {
            plan.removes.insert(role.clone(), (removes, made));
        }
        if !ours.is_empty() {
            if made {
                plan.next.made.insert(role.clone());
            }
            plan.next.mappings.insert(role.clone(), ours);
        }
    }

    plan.intent = last.clone();
    for (role, entries) in &plan.next.mappings {
        plan.intent
            .mappings
            .entry(role.clone())
            .or_default()
            .extend(entries);
    }
    plan.intent.made.extend(plan.next.made.iter().cloned());
    for (uid, asked) in &plan.next.grants {
        want_all(plan.intent.grants.entry(uid.clone()).or_default(), asked);
    }
    plan
}

fn want_all(wanted: &mut BTreeMap<String, Entries>, asked: &BTreeMap<String, Entries>) {
    for (role, entries) in asked {
        wanted.entry(role.clone()).or_default().extend(entries);
    }
}

/// Refuses grants whose roles the plugin does not have, or protects: those alone that the domain's
/// consent names by their full name may be mapped then.
pub fn judge_roles(
    grants: &mut BTreeMap<GrantKey, Verdict>,
    observed: &SecurityConfig,
    named: impl Fn(&ValidatedGrant, &str) -> bool,
) {
    for verdict in grants.values_mut() {
        let (Verdict::Valid(grant) | Verdict::Undecided(grant, _)) = verdict else {
            continue;
        };
        let mut roles = grant.security_roles.iter().enumerate();
        let rejection = roles.find_map(|(index, role)| {
            let field = format!("spec.securityRoles[{index}]");
            let Some(entity) = observed.roles.get(role) else {
                let meant = nearest(role, observed.roles.keys().map(String::as_str));
                let rule = format!(
                    "the domain's security plugin has no role {role:?}{}: create it, or correct the name; it is looked up again by itself",
                    alternative(meant)
                );
                return Some(Rejection::new(Reason::RoleNotFound, field, rule));
            };
            let mapping = observed.mappings.get(role);
            let protected = entity.is_protected() && !named(grant, role);
            let fixed = mapping.is_some_and(Entity::is_protected);
            (protected || fixed).then(|| {
                Rejection::new(
                    Reason::OverCeiling,
                    field,
                    if fixed {
                        format!("the mapping of role {role:?} is part of the security plugin, which does not change it")
                    } else {
                        format!("role {role:?} is part of the security plugin: the ceiling has to name it in full (securityRoles), without a wildcard")
                    },
                )
            })
        });
        if let Some(rejection) = rejection {
            *verdict = Verdict::Refused(rejection);
        }
    }
}

fn alternative(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |role| format!(" (there is {role:?})"))
}

/// Leaves grants undecided that name roles of a plugin which cannot be asked: what is in force
/// stays, nothing is added.
pub fn leave_undecided(grants: &mut BTreeMap<GrantKey, Verdict>, rejection: &Rejection) {
    for verdict in grants.values_mut() {
        if let Verdict::Valid(grant) = verdict
            && !grant.security_roles.is_empty()
        {
            *verdict = Verdict::Undecided(grant.clone(), rejection.clone());
        }
    }
}
