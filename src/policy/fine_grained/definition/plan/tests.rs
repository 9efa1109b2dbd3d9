use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::definition::{Adoption, Removal};
use crate::policy::domain::Domain;
use crate::policy::fine_grained::entity::Engine;

/// A plugin with one domain before it, planned as often as a test likes.
struct Scene {
    domain: Domain,
    observed: SecurityConfig,
    last: AppliedDefinitions,
}

impl Scene {
    fn new() -> Self {
        let object = json!({"metadata": {"name": "logs"}, "spec": {"domainName": "logs",
            "accountId": "111122223333", "region": "eu-west-1", "consent": [
                {"namespaces": ["a", "b"], "ceiling": {"access": "ReadWrite",
                    "definitions": {"names": ["shared"]}}}]}});
        Self {
            domain: Domain::parse(&serde_json::from_value(object).unwrap()).unwrap(),
            observed: SecurityConfig::default(),
            last: AppliedDefinitions::default(),
        }
    }

    fn plan(&self, all: &[Definition], is_fresh: bool, acknowledged: usize) -> DefinitionPlan {
        let (labels, engine) = (BTreeMap::new(), Engine::default());
        let rules = Rules::new(&self.domain, true, engine, &self.observed, &labels, all);
        let judged = all
            .iter()
            .map(|it| (it.key.clone(), rules.judge(it.clone())));
        let last = Some(&self.last);
        let seen = Seen {
            is_fresh,
            acknowledged,
            ..Seen::default()
        };
        plan(&judged.collect(), &rules, last, &seen)
    }

    /// Plans, and takes the plan as done.
    fn settle(&mut self, all: &[Definition]) -> DefinitionPlan {
        let plan = self.plan(all, true, 0);
        self.observed = plan.ahead(&self.observed);
        self.last = plan.next.clone();
        plan
    }
}

fn tenant(namespace: &str, name: &str, entity: &str) -> Definition {
    let body = json!({"description": name});
    let Value::Object(body) = body else {
        unreachable!()
    };
    Definition {
        key: DefinitionKey {
            kind: EntityKind::Tenant,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("{namespace}-{name}"),
        },
        entity: entity.to_owned(),
        body,
        adoption: Adoption::IfSame,
        removal: Removal::Delete,
        is_deleting: false,
        is_held: false,
        broken: None,
        created: None,
    }
}

fn many(count: usize) -> Vec<Definition> {
    let names = (0..count).map(|n| format!("t{n}"));
    names
        .map(|name| tenant("a", &name, &format!("a.{name}")))
        .collect()
}

#[test]
fn what_is_in_place_is_not_written_again() {
    let mut scene = Scene::new();
    let all = many(3);
    assert_eq!(scene.settle(&all).puts.len(), 3);
    let again = scene.plan(&all, true, 0);
    assert!(!again.changes(Some(&scene.last)), "{again:?}");
}

#[test]
fn everything_that_is_written_or_removed_is_on_record_before() {
    let mut scene = Scene::new();
    let plan = scene.settle(&many(2));
    for (kind, entity, _) in &plan.puts {
        assert!(plan.intent.get(*kind, entity).is_some());
    }
    let mut gone = many(2);
    for it in &mut gone {
        it.is_deleting = true;
    }
    let plan = scene.settle(&gone);
    assert_eq!(plan.deletes.len(), 2);
    for (kind, entity) in &plan.deletes {
        assert!(plan.intent.get(*kind, entity).is_some());
        assert!(plan.next.get(*kind, entity).is_none());
    }
}

#[test]
fn what_vanishes_in_mass_stays_until_it_is_acknowledged() {
    let mut scene = Scene::new();
    scene.settle(&many(6));
    let plan = scene.plan(&[], true, 0);
    assert_eq!(plan.deletes.len(), 0);
    let said = plan.withheld.unwrap().message;
    assert!(said.contains("acknowledge-revocation=6"), "{said}");
    assert_eq!(scene.plan(&[], true, 6).deletes.len(), 6);
    // Few are believed, but not where the list may be old.
    let one = many(6).split_off(1);
    assert_eq!(scene.plan(&one, true, 0).deletes.len(), 1);
    let stale = scene.plan(&one, false, 0);
    assert_eq!((stale.deletes.len(), stale.next), (0, scene.last.clone()));
    // Those that were let go have been deleted, however many they are.
    for recorded in scene.last.0.values_mut().flat_map(|it| it.values_mut()) {
        recorded.released = true;
    }
    assert_eq!(scene.plan(&[], true, 0).deletes.len(), 6);
}

#[test]
fn the_older_of_one_name_holds_whichever_comes_first() {
    let mut scene = Scene::new();
    let mut older = tenant("b", "z", "shared");
    older.created = Some("2026-01-01T00:00:00Z".parse().unwrap());
    let mut younger = tenant("a", "a", "shared");
    younger.created = Some("2026-01-02T00:00:00Z".parse().unwrap());
    let plan = scene.settle(&[younger.clone(), older.clone()]);
    assert!(matches!(
        &plan.outcomes[&older.key],
        Outcome::Defined { .. }
    ));
    let Outcome::Refused(rejection, None) = &plan.outcomes[&younger.key] else {
        panic!("{plan:?}");
    };
    assert!(rejection.rule.contains("b/z"), "{rejection}");
    // Its going hands the name over, and removes nothing.
    older.is_deleting = true;
    let plan = scene.settle(&[younger.clone(), older]);
    assert!(plan.deletes.is_empty());
    assert!(
        matches!(&plan.outcomes[&younger.key], Outcome::Defined { .. }),
        "{plan:?}"
    );
}

#[test]
fn what_is_broken_stays_and_what_is_refused_goes() {
    let mut scene = Scene::new();
    let good = tenant("a", "t", "a.t");
    scene.settle(std::slice::from_ref(&good));
    let mut broken = good.clone();
    broken.broken = Some(Rejection::invalid("spec", "no"));
    let plan = scene.plan(&[broken], true, 0);
    assert!(plan.deletes.is_empty() && plan.puts.is_empty());
    scene.domain.consent.clear();
    let plan = scene.plan(&[good], true, 0);
    assert_eq!(plan.deletes, [(EntityKind::Tenant, "a.t".to_owned())]);
}

#[test]
fn what_is_retained_stays_and_is_forgotten() {
    let mut scene = Scene::new();
    let mut kept = tenant("a", "t", "a.t");
    kept.removal = Removal::Retain;
    scene.settle(std::slice::from_ref(&kept));
    kept.is_deleting = true;
    let plan = scene.settle(&[kept]);
    assert!(plan.deletes.is_empty() && scene.last.is_empty());
}

fn of_kind(kind: EntityKind, namespace: &str, entity: &str, body: Value) -> Definition {
    let mut definition = tenant(namespace, entity, entity);
    definition.key.kind = kind;
    definition.body = match body {
        Value::Object(body) => body,
        _ => panic!("a body is an object"),
    };
    definition
}

fn group(namespace: &str, entity: &str, actions: &[&str]) -> Definition {
    let body = json!({"type": "index", "allowed_actions": actions});
    of_kind(EntityKind::ActionGroup, namespace, entity, body)
}

fn role(namespace: &str, cluster: &[&str], index: &[&str]) -> Definition {
    let body = json!({"cluster_permissions": cluster, "index_permissions": [
        {"index_patterns": ["x"], "allowed_actions": index}]});
    of_kind(EntityKind::Role, namespace, &format!("{namespace}.r"), body)
}

fn observed(scene: &mut Scene, name: &str, actions: &[&str]) {
    let entity = Entity::parse(json!({"allowed_actions": actions}));
    scene.observed.action_groups.insert(name.to_owned(), entity);
}

fn is_defined(plan: &DefinitionPlan, definition: &Definition) -> bool {
    matches!(plan.outcomes[&definition.key], Outcome::Defined { .. })
}

#[test]
fn a_group_that_is_not_the_namespaces_to_define_counts_as_it_stands() {
    let mut scene = Scene::new();
    observed(&mut scene, "all", &["*"]);
    let claim = group("b", "all", &["indices:data/read*"]);
    let wide = role("b", &[], &["all"]);
    let plan = scene.plan(&[claim.clone(), wide.clone()], true, 0);
    assert!(
        !is_defined(&plan, &claim) && !is_defined(&plan, &wide),
        "{plan:?}"
    );
}

#[test]
fn what_stands_of_a_group_counts_together_with_what_is_to_stand() {
    let mut scene = Scene::new();
    let first = group("b", "b.g", &["indices:*"]);
    scene.settle(std::slice::from_ref(&first));
    let mut second = group("b", "b.g", &["cluster_composite_ops_ro", "b.g"]);
    second.body.insert("type".to_owned(), json!("cluster"));
    let wide = role("b", &["b.g"], &["read"]);
    let plan = scene.plan(&[second, wide.clone()], true, 0);
    assert!(!is_defined(&plan, &wide), "{plan:?}");
}

#[test]
fn nobody_takes_anothers_group_away_by_claiming_its_name() {
    let mut scene = Scene::new();
    let (peek, reader) = (group("a", "a.peek", &["read"]), role("a", &[], &["a.peek"]));
    scene.settle(&[peek.clone(), reader.clone()]);
    let claim = group("b", "a.peek", &["read"]);
    let plan = scene.plan(&[peek, reader.clone(), claim.clone()], true, 0);
    assert!(
        is_defined(&plan, &reader) && !is_defined(&plan, &claim),
        "{plan:?}"
    );
    assert_eq!((plan.puts.len(), plan.deletes.len()), (0, 0), "{plan:?}");
}

#[test]
fn a_role_stays_whose_group_is_gone() {
    let mut scene = Scene::new();
    let (peek, reader) = (group("a", "a.peek", &["read"]), role("a", &[], &["a.peek"]));
    scene.settle(&[peek, reader.clone()]);
    // Somebody else removed it, and nobody defines it any more.
    scene.observed.action_groups.clear();
    scene.last.0.remove(&EntityKind::ActionGroup);
    let plan = scene.settle(std::slice::from_ref(&reader));
    assert!(
        !is_defined(&plan, &reader) && plan.deletes.is_empty(),
        "{plan:?}"
    );
    assert!(scene.observed.roles.contains_key("a.r"));
}

#[test]
fn a_group_stays_for_as_long_as_a_role_names_it() {
    let mut scene = Scene::new();
    let (mut peek, reader) = (group("a", "a.peek", &["read"]), role("a", &[], &["a.peek"]));
    scene.settle(&[peek.clone(), reader.clone()]);
    peek.is_deleting = true;
    let plan = scene.settle(&[peek.clone(), reader.clone()]);
    assert!(
        plan.deletes.is_empty() && is_defined(&plan, &reader),
        "{plan:?}"
    );
    let named = Outcome::Deleting(Some("a.r".to_owned()));
    assert_eq!(plan.outcomes[&peek.key], named);
    // Also when its object was let go, or is gone otherwise.
    let plan = scene.plan(std::slice::from_ref(&reader), true, 0);
    assert!(plan.deletes.is_empty(), "{plan:?}");
    let gone = [(EntityKind::ActionGroup, "a.peek".to_owned())];
    let other = role("a", &[], &["read"]);
    let plan = scene.settle(&[peek.clone(), other]);
    assert_eq!(plan.deletes, gone);
    assert_eq!(plan.outcomes[&peek.key], Outcome::Deleting(None));
}

#[test]
fn a_role_goes_whose_group_is_anothers_by_now_and_permits_more() {
    let mut scene = Scene::new();
    let object = json!({"metadata": {"name": "logs"}, "spec": {"domainName": "logs",
        "accountId": "111122223333", "region": "eu-west-1", "consent": [
            {"namespaces": ["a"], "ceiling": {"access": "Read"}},
            {"namespaces": ["b"], "ceiling": {"access": "ReadWrite"}}]}});
    scene.domain = Domain::parse(&serde_json::from_value(object).unwrap()).unwrap();
    // It stands, and no object defines it.
    observed(&mut scene, "b.g", &["read"]);
    let reader = role("a", &[], &["b.g"]);
    assert!(is_defined(
        &scene.settle(std::slice::from_ref(&reader)),
        &reader
    ));
    let same = group("b", "b.g", &["read"]);
    let plan = scene.settle(&[reader.clone(), same]);
    assert!(plan.deletes.is_empty(), "{plan:?}");
    let wider = group("b", "b.g", &["indices:*"]);
    let plan = scene.settle(&[reader.clone(), wider]);
    assert!(!is_defined(&plan, &reader), "{plan:?}");
    assert_eq!(plan.deletes, [(EntityKind::Role, "a.r".to_owned())]);
}

#[test]
fn what_is_broken_keeps_its_name_and_a_record_protects_its_own_object_alone() {
    let mut scene = Scene::new();
    let mut older = tenant("b", "z", "shared");
    scene.settle(std::slice::from_ref(&older));
    older.broken = Some(Rejection::invalid("spec", "no"));
    let younger = tenant("a", "a", "shared");
    let plan = scene.plan(&[older, younger.clone()], true, 0);
    assert!(
        !is_defined(&plan, &younger) && plan.puts.is_empty(),
        "{plan:?}"
    );
}

#[test]
fn what_was_unreadable_goes_when_its_object_does() {
    let mut scene = Scene::new();
    let all = many(2);
    scene.settle(&all);
    let plan = |verdict: Verdict| {
        let (labels, engine) = (BTreeMap::new(), Engine::default());
        let rules = Rules::new(&scene.domain, true, engine, &scene.observed, &labels, &all);
        let stays = (all[1].key.clone(), rules.judge(all[1].clone()));
        let judged = [(all[0].key.clone(), verdict), stays];
        plan(&judged.into(), &rules, Some(&scene.last), &Seen::default())
    };
    assert_eq!(plan(Verdict::Unreadable).deletes, []);
    let gone = plan(Verdict::Gone);
    assert_eq!(gone.deletes, [(EntityKind::Tenant, "a.t0".to_owned())]);
    assert_eq!(gone.outcomes[&all[0].key], Outcome::Deleting(None));
}

#[test]
fn without_a_record_what_a_deleted_object_holds_goes_with_it() {
    let mut scene = Scene::new();
    let mut all = many(3);
    scene.settle(&all);
    for it in &mut all {
        (it.is_deleting, it.is_held) = (true, true);
    }
    // One was never held, and so never written, and one is to stay.
    all[1].is_held = false;
    all[2].removal = Removal::Retain;
    let (labels, engine) = (BTreeMap::new(), Engine::default());
    let rules = Rules::new(&scene.domain, true, engine, &scene.observed, &labels, &all);
    let judged = all
        .iter()
        .map(|it| (it.key.clone(), rules.judge(it.clone())));
    let lost = plan(&judged.clone().collect(), &rules, None, &Seen::default());
    let first = (EntityKind::Tenant, "a.t0".to_owned());
    assert_eq!(lost.deletes, [first]);
    assert_eq!(
        lost.intent.get(EntityKind::Tenant, "a.t0").unwrap().uid,
        "a-t0"
    );
    assert!(lost.next.is_empty());
    // A record that lacks it says that it is not ours.
    let none = AppliedDefinitions::default();
    assert_eq!(
        plan(&judged.collect(), &rules, Some(&none), &Seen::default()).deletes,
        []
    );
}

#[test]
fn two_of_five_are_many_and_one_is_not() {
    let mut scene = Scene::new();
    scene.settle(&many(5));
    let left = |count: usize| many(5).split_off(5 - count);
    assert_eq!(scene.plan(&left(4), true, 0).deletes.len(), 1);
    let plan = scene.plan(&left(3), true, 0);
    assert_eq!((plan.deletes.len(), plan.withheld.is_some()), (0, true));
}

#[test]
fn of_a_kind_that_the_cluster_has_no_more_everything_stays() {
    let mut scene = Scene::new();
    scene.settle(&many(1));
    let (labels, engine) = (BTreeMap::new(), Engine::default());
    let rules = Rules::new(&scene.domain, true, engine, &scene.observed, &labels, &[]);
    let seen = Seen {
        unlisted: [EntityKind::Tenant].into(),
        ..Seen::default()
    };
    let plan = plan(&BTreeMap::new(), &rules, Some(&scene.last), &seen);
    assert!(!plan.changes(Some(&scene.last)), "{plan:?}");
}

#[test]
fn what_the_record_has_no_room_for_is_refused_and_nothing_else() {
    let mut scene = Scene::new();
    let mut all = many(12);
    for (number, it) in (0..).zip(&mut all) {
        let long = "x".repeat(RECORD_LIMIT / 10);
        it.body.insert("description".to_owned(), json!(long));
        it.created = Timestamp::from_second(number).ok();
    }
    // The oldest comes last, and is first all the same.
    all.reverse();
    let plan = scene.settle(&all);
    let text = serde_json::to_string(&plan.next).unwrap();
    assert!(text.len() <= RECORD_LIMIT, "{}", text.len());
    assert_eq!(plan.puts.len(), 9);
    let refused = &plan.outcomes[&all[0].key];
    assert!(
        matches!(refused, Outcome::Refused(it, _) if it.reason == Reason::TooManyGrants),
        "{refused:?}"
    );
}
