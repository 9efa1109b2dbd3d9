//! Role mappings that several grants, other writers and crashes work on.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use opensearch_access::api::access::AccessLevel;
use opensearch_access::api::arn::{EntityArn, EntityKind};
use opensearch_access::policy::domain::Access;
use opensearch_access::policy::fine_grained::entity::{Entity, SecurityConfig};
use opensearch_access::policy::fine_grained::mapping::{
    self, AppliedSecurity, Entries, Input, MappingPlan,
};
use opensearch_access::policy::validate::{GrantKey, Principal, Restrictions, ValidatedGrant};
use opensearch_access::policy::verdict::Verdict;
use serde_json::json;

const ROLES: [&str; 3] = ["reader", "writer", "owner"];

fn arn(number: usize) -> String {
    let kind = if number.is_multiple_of(3) {
        "user"
    } else {
        "role"
    };
    format!("arn:aws:iam::111122223333:{kind}/p{number}")
}

fn kind(arn: &str) -> EntityKind {
    if arn.contains(":user/") {
        EntityKind::User
    } else {
        EntityKind::Role
    }
}

/// The plugin's mappings, and what the operator keeps of them.
#[derive(Clone, Debug, Default)]
struct World {
    mappings: BTreeMap<&'static str, BTreeSet<String>>,
    record: Option<AppliedSecurity>,
    grants: BTreeMap<usize, (usize, BTreeSet<&'static str>)>,
    /// What others put there, while nothing of the operator's stood or was on record for it.
    theirs: BTreeSet<(&'static str, String)>,
}

impl World {
    fn verdicts(&self) -> BTreeMap<GrantKey, Verdict> {
        let grants = self.grants.iter().map(|(number, (who, roles))| {
            let key = GrantKey {
                namespace: "n".to_owned(),
                name: format!("g{number}"),
                uid: format!("u{number}"),
            };
            let arn = arn(*who);
            let principal = EntityArn::parse(&arn, kind(&arn)).unwrap();
            let grant = ValidatedGrant {
                key: key.clone(),
                generation: Some(1),
                created: None,
                principals: vec![Principal::Entity(principal)],
                access: Access::Level(AccessLevel::Read),
                paths: Vec::new(),
                restrictions: Restrictions::default(),
                security_roles: roles.iter().map(|&it| it.to_owned()).collect(),
                attach_identity_policy: false,
                expires_at: None,
            };
            (key, Verdict::Valid(Box::new(grant)))
        });
        grants.collect()
    }

    fn plan(&self) -> MappingPlan {
        let mut observed = SecurityConfig::default();
        for (role, entries) in &self.mappings {
            let of = |user: bool| -> Vec<&String> {
                let those = entries.iter().filter(|it| it.contains(":user/") == user);
                those.collect()
            };
            let body = json!({"users": of(true), "backend_roles": of(false), "hosts": ["h"]});
            let entity = Entity::parse(body);
            observed.mappings.insert((*role).to_owned(), entity);
        }
        mapping::plan(&Input {
            grants: &self.verdicts(),
            observed: &observed,
            last: self.record.as_ref(),
            withheld: false,
        })
    }

    fn wanted(&self) -> BTreeSet<(&'static str, String)> {
        let grants = self.grants.values();
        grants
            .flat_map(|(who, roles)| roles.iter().map(|role| (*role, arn(*who))))
            .collect()
    }

    /// Reconciles, up to a crash if there is one, and says whether it came to the end.
    fn reconcile(&mut self, random: &mut Rng, may_crash: bool) -> bool {
        let plan = self.plan();
        let mut crash = || may_crash && random.u8(..8) == 0;
        if crash() {
            return false;
        }
        self.record = Some(plan.intent.clone());
        for (role, entries) in &plan.adds {
            if crash() {
                return false;
            }
            let mapping = self.mappings.entry(known(role)).or_default();
            mapping.extend(all(entries));
        }
        for (role, (entries, with_mapping)) in &plan.removes {
            if crash() {
                return false;
            }
            let Some(mapping) = self.mappings.get_mut(known(role)) else {
                continue;
            };
            for entry in all(entries) {
                assert!(
                    !self.theirs.contains(&(known(role), entry.clone())),
                    "{entry} of {role} is another's: {plan:#?}"
                );
                mapping.remove(&entry);
            }
            if *with_mapping && mapping.is_empty() {
                self.mappings.remove(known(role));
            }
        }
        if crash() {
            return false;
        }
        self.record = Some(plan.next);
        true
    }
}

fn known(role: &str) -> &'static str {
    ROLES.into_iter().find(|it| *it == role).unwrap()
}

fn all(entries: &Entries) -> Vec<String> {
    let lists = entries.lists().into_iter();
    lists.flat_map(|(_, list)| list.iter().cloned()).collect()
}

fn is_recorded(world: &World, role: &str, entry: &str) -> bool {
    let of_role = world.record.as_ref().and_then(|it| it.mappings.get(role));
    of_role.is_some_and(|entries| all(entries).iter().any(|it| it == entry))
}

/// Grants come, change and go; others add and remove; the operator crashes anywhere.
#[test]
fn nobody_loses_an_entry_and_nothing_is_left_behind() {
    for seed in 0..4_000 {
        let mut random = Rng::with_seed(seed);
        let mut world = World::default();
        // Before there is a record, what stands and is asked for is adopted: not in question here.
        world.reconcile(&mut random, false);
        for _ in 0..30 {
            let role = ROLES[random.usize(..ROLES.len())];
            let who = random.usize(..6);
            match random.u8(..6) {
                0 | 1 => {
                    let roles = ROLES.into_iter().filter(|_| random.bool()).collect();
                    world.grants.insert(random.usize(..5), (who, roles));
                }
                2 => {
                    world.grants.remove(&random.usize(..5));
                }
                3 if !is_recorded(&world, role, &arn(who)) => {
                    let mapping = world.mappings.entry(role).or_default();
                    mapping.insert(arn(who));
                    world.theirs.insert((role, arn(who)));
                }
                4 => {
                    if let Some(mapping) = world.mappings.get_mut(role) {
                        mapping.remove(&arn(who));
                        world.theirs.remove(&(role, arn(who)));
                    }
                }
                _ => {
                    world.reconcile(&mut random, true);
                }
            }
        }
        while !world.reconcile(&mut random, true) {}
        let standing: BTreeSet<(&str, String)> = world
            .mappings
            .iter()
            .flat_map(|(role, entries)| entries.iter().map(|it| (*role, it.clone())))
            .collect();
        let expected: BTreeSet<_> = world.wanted().union(&world.theirs).cloned().collect();
        assert_eq!(standing, expected, "seed {seed}: {world:#?}");
        let plan = world.plan();
        assert!(!plan.changes(), "seed {seed}: {plan:#?}");
        assert_eq!(Some(plan.next), world.record, "seed {seed}");
    }
}

#[test]
fn without_a_record_what_is_asked_for_and_stands_is_adopted() {
    let mut world = World::default();
    let role = ROLES[0];
    let both = BTreeSet::from([arn(1), arn(2)]);
    world.mappings.insert(role, both);
    world.grants.insert(0, (1, BTreeSet::from([role])));
    let mut random = Rng::with_seed(0);
    assert!(world.reconcile(&mut random, false));
    world.grants.clear();
    assert!(world.reconcile(&mut random, false));
    assert_eq!(world.mappings[role], BTreeSet::from([arn(2)]));
}

#[test]
fn grants_that_are_not_seen_keep_their_entries_while_revocations_are_withheld() {
    let mut world = World::default();
    let role = ROLES[0];
    world.grants.insert(0, (1, BTreeSet::from([role])));
    let mut random = Rng::with_seed(0);
    assert!(world.reconcile(&mut random, false));
    world.grants.clear();
    let observed = SecurityConfig {
        mappings: BTreeMap::from([(
            role.to_owned(),
            Entity::parse(json!({"backend_roles": [arn(1)]})),
        )]),
        ..SecurityConfig::default()
    };
    for (withheld, removes) in [(true, 0), (false, 1)] {
        let plan = mapping::plan(&Input {
            grants: &world.verdicts(),
            observed: &observed,
            last: world.record.as_ref(),
            withheld,
        });
        assert_eq!(plan.removes.len(), removes, "{withheld}");
    }
}
