//! The three-way plan in worlds drawn at random: desired, observed and last applied.

use std::collections::BTreeSet;

use fastrand::Rng;
use opensearch_access::api::access::DomainAccess;
use opensearch_access::policy::document::Statement;
use opensearch_access::policy::plan::{Outcome, Plan};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::naive::{self, Atom};
use crate::pool;
use crate::world::{World, delete, domain, grant, role};

/// Draws what a grant asks for.
fn spec() -> impl Strategy<Value = Value> {
    let principals = prop_oneof![
        6 => subsequence(vec!["a", "b", "c"], 1..=2).prop_map(|names| {
            names.iter().map(|name| json!({"iamRole": {"arn": role(name)}})).collect::<Value>()
        }),
        1 => Just(json!([{"account": {"id": "111122223333"}}])),
        1 => Just(json!([{"iamRole": {"arn": "arn:aws:iam::999999999999:role/refused"}}])),
    ];
    let paths = subsequence(vec!["x", "y-*", "y-1", "z/_search"], 0..=2);
    let access = select(vec![
        json!({"access": "Read"}),
        json!({"access": "ReadWrite"}),
        json!({"actions": ["es:ESHttpGet", "es:ESHttpHead"]}),
        json!({"actions": ["es:ESHttpPost"]}),
        json!({"actions": ["es:ESHttp*"]}),
    ]);
    let sources = select(vec![
        json!({}),
        json!({}),
        json!({"sourceIps": ["203.0.113.0/24"]}),
    ]);
    (principals, paths, access, sources).prop_map(|(principals, paths, mut spec, conditions)| {
        spec["principals"] = principals;
        spec["paths"] = paths.into();
        spec["conditions"] = conditions;
        spec
    })
}

/// Draws the grants of two moments: what each asked for then, and asks for now; `None`: not there.
fn moments() -> impl Strategy<Value = Vec<(Option<Value>, Option<Value>, bool)>> {
    let one = (
        prop::option::of(spec()),
        prop::option::of(spec()),
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(then, now, same, deleted)| match &then {
            Some(then) if same => (Some(then.clone()), Some(then.clone()), deleted),
            // What was granted goes through its finalizer.
            Some(_) if now.is_none() => (then.clone(), then, true),
            _ => (then, now, deleted),
        });
    prop::collection::vec(one, 1..6)
}

/// Draws statements of principals that no grant names.
fn foreign() -> impl Strategy<Value = Vec<Value>> {
    let statement = prop_oneof![3 => pool::known(), 1 => pool::odd()].prop_map(|mut statement| {
        // Everybody else, and everybody.
        if let Some(names) = statement.pointer_mut("/Principal/AWS") {
            *names = naive::texts(names)
                .iter()
                .map(|it| {
                    it.replace(":role/", ":role/their-")
                        .replace(":user/", ":user/their-")
                        .replace("111122223333:root", "777788889999:root")
                })
                .collect();
        }
        statement
    });
    prop::collection::vec(statement, 0..4)
}

fn named(n: usize, spec: &Value) -> DomainAccess {
    grant("team-a", &format!("g{n}"), spec)
}

fn atoms(world: &World) -> BTreeSet<Atom> {
    naive::meaning(&world.policy()).atoms
}

/// Returns what each grant compiles to by itself, joined.
fn authorised(world: &World) -> BTreeSet<Atom> {
    let mut all = BTreeSet::new();
    for grant in &world.grants {
        let mut alone = World::new(world.domain.clone());
        alone.grants = vec![grant.clone()];
        alone.settle();
        all.extend(atoms(&alone));
    }
    all
}

/// Runs the first moment, lets others write, and leaves the world at the second.
fn world(moments: &[(Option<Value>, Option<Value>, bool)], foreign: &[Value], seed: u64) -> World {
    let mut random = Rng::with_seed(seed);
    let mut world = World::new(domain(&json!({})));
    let (first, later) = foreign.split_at(random.usize(..=foreign.len()));
    world.others(|statements| statements.extend_from_slice(first));
    for (n, (then, _, _)) in moments.iter().enumerate() {
        world
            .grants
            .extend(then.as_ref().map(|spec| named(n, spec)));
    }
    world.settle();
    world.others(|statements| {
        statements.extend_from_slice(later);
        random.shuffle(statements);
    });
    world.grants.clear();
    for (n, (_, now, deleted)) in moments.iter().enumerate() {
        let mut grant = now.as_ref().map(|spec| named(n, spec));
        grant.iter_mut().filter(|_| *deleted).for_each(delete);
        world.grants.extend(grant);
    }
    world
}

/// Draws what cannot be granted: what the ceiling, the service or the language refuses.
fn bad() -> impl Strategy<Value = Value> {
    let strange = json!([{"iamRole": {"arn": "arn:aws:iam::999999999999:role/refused"}}]);
    let ours = json!([{"iamRole": {"arn": role("a")}}]);
    select(vec![
        json!({"access": "Read", "principals": strange}),
        json!({"access": "Read", "principals": ours, "paths": ["_cat/../x"]}),
        json!({"access": "Read", "actions": ["es:ESHttpGet"], "principals": ours}),
        json!({"access": "Read", "principals": ours, "conditions": {"sourceIps": ["203.0.113.7/24"]}}),
        json!({"access": "Read", "principals": [{"iamRole": {"arn": "a role"}}]}),
        json!({"access": "Read", "principals": ours, "expiresAt": "2026-05-31T00:00:00Z"}),
        json!({"access": "ReadWrite", "principals": [{"anonymous": {}}]}),
    ])
}

/// What the grants of a few names ask for at one time; `None`: not there.
type Asked = Vec<Option<Value>>;

fn asked(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Asked> {
    prop::collection::vec(prop::option::weighted(0.7, of), 4)
}

/// Draws what is asked for on the way: some of it good, much of it bad, now and then without any
/// consent.
fn detour() -> impl Strategy<Value = Vec<(Asked, bool)>> {
    let step = (
        asked(prop_oneof![2 => bad(), 1 => spec()]),
        prop::bool::weighted(0.8),
    );
    prop::collection::vec(step, 1..4)
}

/// Takes a world to where grants ask for something else; those that are gone go by their finalizer.
fn go(world: &mut World, asked: &Asked) -> Plan {
    let wanted: Vec<DomainAccess> = asked
        .iter()
        .enumerate()
        .filter_map(|(n, spec)| Some(named(n, spec.as_ref()?)))
        .collect();
    let gone = |it: &DomainAccess| {
        !wanted
            .iter()
            .any(|wanted| wanted.metadata.name == it.metadata.name)
    };
    world.grants.retain(gone);
    world.grants.iter_mut().for_each(delete);
    world.grants.extend(wanted);
    world.settle();
    world
        .grants
        .retain(|it| it.metadata.deletion_timestamp.is_none());
    world.settle()
}

/// Lets others meddle with the statements of the operator: drop, split, join, add a stranger.
fn meddled(world: &mut World, random: &mut Rng) {
    world.others(|statements| {
        for at in (0..statements.len()).rev() {
            let is_ours = naive::texts(&statements[at]["Principal"]["AWS"])
                .iter()
                .all(|it| ["a", "b", "c"].iter().any(|name| *it == role(name)));
            let is_plain =
                naive::atoms_of(&statements[at]).is_some() && statements[at]["Effect"] == "Allow";
            if !is_ours || !is_plain || statements[at]["Principal"] == "*" {
                continue;
            }
            match random.u8(..5) {
                0 => drop(statements.remove(at)),
                1 => {
                    let mut names = naive::texts(&statements[at]["Principal"]["AWS"]);
                    names.push(role("their-own"));
                    statements[at]["Principal"]["AWS"] = names.into();
                }
                2 => {
                    let statement = statements.remove(at);
                    for resource in naive::texts(&statement["Resource"]) {
                        let mut part = statement.clone();
                        part["Resource"] = resource.into();
                        statements.push(part);
                    }
                }
                3 => statements[at]["Sid"] = "Touched".into(),
                _ => {}
            }
        }
    });
}

/// The atoms that are not about the grants' principals, and the statements that are not understood.
fn theirs(world: &World) -> (BTreeSet<Atom>, BTreeSet<String>) {
    let meaning = naive::meaning(&world.policy());
    let ours: BTreeSet<String> = ["a", "b", "c"]
        .map(role)
        .into_iter()
        .chain(["arn:aws:iam::111122223333:root".to_owned()])
        .collect();
    let others = meaning
        .atoms
        .into_iter()
        .filter(|it| !ours.contains(&it.principal) || it.effect == "Deny");
    (others.collect(), meaning.whole)
}

proptest! {
    #[test]
    fn others_keep_theirs_and_grants_get_theirs_exactly(
        moments in moments(), foreign in foreign(), seed: u64, record in prop::bool::weighted(0.8),
        meddle: bool,
    ) {
        let mut world = world(&moments, &foreign, seed);
        if meddle {
            meddled(&mut world, &mut Rng::with_seed(seed));
        }
        // Without a record, what was asked for and is not any more is told from another's by the
        // finalizer alone, which holds what is asked for now.
        let changed_spec = moments.iter().any(|(then, now, _)| then.is_some() && then != now);
        let record = record || changed_spec || meddle;
        if !record {
            world.last = None;
        }
        let (before, authorised) = (theirs(&world), authorised(&world));
        world.settle();
        prop_assert_eq!(&theirs(&world), &before);
        let ours: BTreeSet<Atom> = atoms(&world).difference(&before.0).cloned().collect();
        prop_assert_eq!(&ours, &authorised);

        // The same again changes nothing, and finds everything in place.
        let text = world.observed.to_text();
        let again = world.settle();
        prop_assert_eq!((&again.policy, again.added.len(), again.removed.len()), (&None, 0, 0));
        prop_assert_eq!(world.observed.to_text(), text);
        for outcome in again.outcomes.values() {
            if let Outcome::Granted { in_place, .. } = outcome {
                prop_assert!(in_place);
            }
        }
    }

    #[test]
    fn whoever_shares_a_principal_nothing_is_added_that_no_grant_asks_for(
        moments in moments(), foreign in prop::collection::vec(pool::known(), 0..4), seed: u64,
        record: bool, own: bool,
    ) {
        let shared: Vec<Value> = foreign.iter().map(|it| serde_json::from_str(
            &it.to_string().replace("user/c", "role/c").replace("/a/_search", "/x"),
        ).unwrap()).collect();
        let mut world = world(&moments, &shared, seed);
        if own {
            world.domain = domain(&json!({"accessPolicy": {"mode": "Own"}}));
        }
        if !record {
            world.last = None;
        }
        let (before, authorised) = (naive::meaning(&world.policy()), authorised(&world));
        let claim: BTreeSet<Atom> = match &world.last {
            Some(last) => naive::meaning(&json!({"Statement": last.applied})).atoms,
            None => BTreeSet::new(),
        };
        let plan = world.settle();
        let after = naive::meaning(&world.policy());
        prop_assert!(after.atoms.is_subset(&before.atoms.union(&authorised).cloned().collect()));
        prop_assert!(authorised.is_subset(&after.atoms));
        let denials = |atoms: &BTreeSet<Atom>| -> Vec<Atom> {
            atoms.iter().filter(|it| it.effect == "Deny").cloned().collect()
        };
        prop_assert_eq!(denials(&before.atoms), denials(&after.atoms));
        if own {
            let allowed: BTreeSet<Atom> = after.atoms.iter().filter(|it| it.effect == "Allow").cloned().collect();
            prop_assert_eq!(allowed, authorised);
        } else if record {
            for lost in before.atoms.difference(&after.atoms) {
                prop_assert!(claim.contains(lost), "{:?} was another's", lost);
            }
        }
        // What the plan says of itself is so.
        let said = |statements: &[Statement]| {
            let statements: Vec<Value> = statements.iter().map(Statement::to_value).collect();
            naive::meaning(&pool::document(&statements)).atoms
        };
        prop_assert_eq!(said(&plan.added), after.atoms.difference(&before.atoms).cloned().collect());
        prop_assert_eq!(said(&plan.removed), before.atoms.difference(&after.atoms).cloned().collect());
        prop_assert_eq!(world.settle().policy, None);
    }

    #[test]
    fn a_refused_grant_changes_nothing_else(
        moments in moments(), foreign in foreign(), seed: u64, spec in spec(),
    ) {
        let mut with = world(&moments, &foreign, seed);
        let mut without = with.clone();
        // No consent for this namespace; and one that the ceiling refuses.
        with.grants.push(grant("team-b", "refused", &spec));
        let mut over = spec;
        over["principals"] = json!([{"iamRole": {"arn": "arn:aws:iam::999999999999:role/x"}}]);
        with.grants.push(grant("team-a", "over", &over));
        let (mut one, other) = (with.settle(), without.settle());
        prop_assert_eq!(with.observed.to_text(), without.observed.to_text());
        prop_assert_eq!(&one.next, &other.next);
        one.outcomes.retain(|key, outcome| {
            let is_new = key.name == "refused" || key.name == "over";
            assert!(!is_new || matches!(outcome, Outcome::Refused(_)));
            !is_new
        });
        prop_assert_eq!(one.outcomes, other.outcomes);
    }

    #[test]
    fn a_detour_leaves_nothing_behind(
        first in asked(spec()), detour in detour(), last in asked(prop_oneof![4 => spec(), 1 => bad()]),
        foreign in foreign(),
    ) {
        let others_only = json!({"consent": [{"namespaces": ["team-b"], "ceiling": {"access": "Read"}}]});
        let mut world = World::new(domain(&json!({})));
        world.others(|statements| statements.extend(foreign));
        go(&mut world, &first);
        let mut direct = world.clone();
        for (asked, consented) in &detour {
            if !consented {
                world.domain = domain(&others_only);
            }
            go(&mut world, asked);
            world.domain = direct.domain.clone();
        }
        let (there, here) = (go(&mut direct, &last), go(&mut world, &last));
        prop_assert_eq!(world.observed.to_text(), direct.observed.to_text());
        prop_assert_eq!(here.next, there.next);
        prop_assert_eq!(here.outcomes, there.outcomes);
    }

    #[test]
    fn the_order_and_the_names_of_grants_do_not_change_a_byte(
        specs in prop::collection::vec(spec(), 1..6), seed: u64,
    ) {
        let mut random = Rng::with_seed(seed);
        let mut world = World::new(domain(&json!({})));
        world.grants = specs.iter().enumerate().map(|(n, spec)| named(n, spec)).collect();
        let mut shuffled = specs.clone();
        random.shuffle(&mut shuffled);
        let mut other = World::new(domain(&json!({})));
        other.grants = shuffled.iter().enumerate()
            .map(|(n, spec)| grant("team-a", &format!("other-{}", 100 - n), spec)).collect();
        random.shuffle(&mut other.grants);
        world.settle();
        other.settle();
        prop_assert_eq!(world.observed.to_text(), other.observed.to_text());
        prop_assert_eq!(world.last.map(|it| it.applied), other.last.map(|it| it.applied));
    }

    #[test]
    fn a_lost_answer_is_found_again(moments in moments(), foreign in foreign(), seed: u64, written: bool) {
        let mut world = world(&moments, &foreign, seed);
        let (before, authorised) = (theirs(&world), authorised(&world));
        // The intent is on record; whether the write came through is not known.
        let plan = world.plan();
        world.last = Some(plan.intent(world.last.as_ref(), &world.domain.arn));
        if written && let Some(policy) = plan.policy {
            world.observed = policy;
        }
        world.settle();
        prop_assert_eq!(&theirs(&world), &before);
        let ours: BTreeSet<Atom> = atoms(&world).difference(&before.0).cloned().collect();
        prop_assert_eq!(ours, authorised);
    }
}

#[test]
fn a_grant_that_does_not_fit_is_named_and_the_older_ones_stay() {
    let mut world = World::new(domain(&json!({})));
    for n in 0..1_500 {
        let spec = json!({"access": "ReadWrite", "paths": [format!("index-{n:04}-{}", "x".repeat(40))],
            "principals": [{"iamRole": {"arn": role(&format!("role-{n:04}"))}}]});
        let mut grant = grant("team-a", &format!("g{n:04}"), &spec);
        let time = crate::world::now() + jiff::SignedDuration::from_secs(-n);
        grant.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        world.grants.push(grant);
    }
    let plan = world.settle();
    let length = world.observed.to_text().len();
    assert!((90_000..=97_280).contains(&length), "{length}");
    let refused: BTreeSet<&str> = plan
        .outcomes
        .iter()
        .filter(|(_, outcome)| {
            matches!(outcome, Outcome::Refused(it)
            if it.reason == opensearch_access::api::condition::Reason::PolicyTooLarge)
        })
        .map(|(key, _)| key.name.as_str())
        .collect();
    // Those made last, which are the first by name, are left out, without a gap.
    let count = refused.len();
    assert!(count > 500 && count < 1_400, "{count}");
    let expected: Vec<String> = (0..count).map(|n| format!("g{n:04}")).collect();
    assert!(
        refused
            .iter()
            .copied()
            .eq(expected.iter().map(String::as_str))
    );
    // Exactly the others are in the policy, and one more would not have fitted.
    let named: BTreeSet<String> = atoms(&world).into_iter().map(|it| it.principal).collect();
    assert_eq!(named.len(), 1_500 - count);
    assert!(!named.contains(&role(&expected[count - 1].replace('g', "role-"))));
    assert!(world.settle().policy.is_none());
}
