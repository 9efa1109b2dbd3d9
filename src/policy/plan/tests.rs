use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::api::access::DomainAccess;
use crate::api::arn::EntityKind;
use crate::api::condition::Reason;
use crate::policy::service_account::{AccountName, Proof, Resolution, Resolutions};
use crate::policy::verdict::{self, NamespaceLabels};

mod respelled;
mod service_accounts;

const NOW: &str = "2026-06-01T00:00:00Z";

/// One domain and its grants, planned as often as a test likes.
struct World {
    domain: Domain,
    facts: DomainFacts,
    grants: Vec<DomainAccess>,
    observed: Document,
    last: Option<LastApplied>,
    /// The roles of the service accounts of `team-a`.
    accounts: Vec<(&'static str, Resolution)>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut object = json!({
            "metadata": {"name": "logs"},
            "spec": {
                "domainName": "logs", "accountId": "111122223333", "region": "eu-west-1",
                "consent": [{"namespaces": ["team-a"], "ceiling": {
                    "access": "ReadWrite", "maxGrants": 10_000,
                    "principals": {"accounts": ["111122223333"]},
                }}],
            },
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Self {
            domain: Domain::parse(&serde_json::from_value(object).unwrap()).unwrap(),
            facts: DomainFacts::default(),
            grants: Vec::new(),
            observed: Document::default(),
            last: None,
            accounts: Vec::new(),
        }
    }

    fn resolutions(&self) -> Resolutions {
        let found = self.accounts.iter().cloned();
        let found = found.map(|(name, resolution)| (AccountName::new("team-a", name), resolution));
        let last = self.last.as_ref();
        Resolutions::new(found.collect(), last, Reason::PrincipalUnknown, "not asked")
    }

    fn grant(&mut self, name: &str, spec: &Value) {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "team-a", "uid": name, "generation": 1,
                "creationTimestamp": NOW, "finalizers": [crate::api::name::FINALIZER]},
            "spec": {
                "domainRef": {"name": "logs"}, "access": "ReadWrite",
                "principals": [{"iamRole": {"arn": role(name)}}],
            },
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        self.grants.push(serde_json::from_value(object).unwrap());
    }

    fn delete(&mut self, name: &str) {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap());
        for grant in &mut self.grants {
            if grant.metadata.name.as_deref() == Some(name) {
                grant.metadata.deletion_timestamp = Some(time.clone());
            }
        }
    }

    fn plan(&self) -> Plan {
        let now = NOW.parse().unwrap();
        let labels = NamespaceLabels::new();
        let accounts = self.resolutions();
        let grants = verdict::of_all(
            &self.grants,
            &self.domain,
            self.facts,
            &accounts,
            &labels,
            now,
        );
        plan(&Input {
            domain: &self.domain,
            facts: self.facts,
            held: &verdict::held(&self.grants, &self.domain, self.facts, &accounts),
            grants: &grants,
            observed: &self.observed,
            last: self.last.as_ref(),
            acknowledged_revocation: 0,
        })
    }

    /// Plans, and takes the plan as written and read back.
    fn settle(&mut self) -> Plan {
        let plan = self.plan();
        if let Some(policy) = &plan.policy {
            self.observed = policy.clone();
        }
        self.last = Some(plan.next.clone());
        plan
    }

    fn allowed(&self) -> BTreeSet<String> {
        let canonical = canonical::Canonical::of(&self.observed, &self.domain.arn);
        let permissions = canonical.permissions().iter();
        permissions
            .map(|(it, _)| it.principal.to_string())
            .collect()
    }

    fn others_write(&mut self, statement: &Value) {
        let mut statements = self.observed.statements().to_vec();
        statements.push(Statement::new(statement.as_object().unwrap().clone()));
        self.observed = self.observed.with_statements(statements);
    }
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::111122223333:role/{name}")
}

fn roles(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| role(name)).collect()
}

fn resources(plan: &Plan) -> BTreeSet<String> {
    let added = plan.added.iter();
    let all = added.flat_map(|statement| match &statement.members()["Resource"] {
        Value::Array(many) => many.clone(),
        one => vec![one.clone()],
    });
    all.map(|it| {
        it.as_str()
            .unwrap()
            .split_once("logs/")
            .unwrap()
            .1
            .to_owned()
    })
    .collect()
}

#[test]
fn what_others_write_beside_never_costs_a_grant_that_stands() {
    let mut world = World::new(&json!({}));
    for n in 0..50 {
        world.grant(
            &format!("grant-{n}"),
            &json!({"paths": [format!("index-{n}")]}),
        );
    }
    world.settle();
    let standing = world.allowed();
    assert_eq!(standing.len(), 50);
    let room = SIZE_BUDGET - world.observed.to_text().len();
    let long: String = "x".repeat(room + 500);
    world.others_write(&json!({"Effect": "Deny", "Principal": {"AWS": role("theirs")},
        "Action": "es:*", "Resource": format!("arn:aws:es:eu-west-1:111122223333:domain/logs/{long}")}));
    world.grant("late", &json!({}));
    let plan = world.settle();
    assert!(world.allowed().is_superset(&standing), "a grant was lost");
    let late = plan
        .outcomes
        .iter()
        .find(|(key, _)| key.name == "late")
        .unwrap()
        .1;
    assert!(matches!(late, Outcome::Refused(it) if it.reason == Reason::PolicyTooLarge));
}

#[test]
fn a_lost_record_loses_no_revocation() {
    let mut world = World::new(&json!({}));
    for name in ["stays", "goes", "refused"] {
        world.grant(name, &json!({}));
    }
    world.settle();
    world.last = None;
    world.delete("goes");
    world.grants[2].spec.domain_ref.name = "logs".into();
    world.grants[2].spec.expires_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        "2026-01-01T00:00:00Z".parse().unwrap(),
    ));
    world.settle();
    assert_eq!(world.allowed(), roles(&["stays"]));
}

#[test]
fn what_is_undecided_at_the_first_look_is_adopted_too() {
    let mut world = World::new(&json!({}));
    for name in ["a", "b"] {
        world.grant(name, &json!({}));
    }
    let before = world.settle();
    assert!(before.policy.is_some());
    // Neither had the finalizer yet, and that of one cannot be written now.
    for grant in &mut world.grants {
        grant.metadata.finalizers = None;
    }
    world.last = None;
    let now = NOW.parse().unwrap();
    let labels = NamespaceLabels::new();
    let none = Resolutions::default();
    let mut grants = verdict::of_all(
        &world.grants,
        &world.domain,
        world.facts,
        &none,
        &labels,
        now,
    );
    for (key, verdict) in &mut grants {
        if let ("a", Verdict::Valid(grant)) = (key.name.as_str(), &*verdict) {
            let rejection = Rejection::new(crate::api::condition::Reason::Unavailable, "", "");
            *verdict = Verdict::Undecided(grant.clone(), rejection);
        }
    }
    let held = BTreeMap::new();
    let plan = plan(&Input {
        domain: &world.domain,
        facts: world.facts,
        held: &held,
        grants: &grants,
        observed: &world.observed,
        last: None,
        acknowledged_revocation: 0,
    });
    assert!(plan.policy.is_none());
    assert_eq!(plan.foreign_statements, 0);
    assert_eq!(plan.next.applied, before.next.applied);
}

#[test]
fn grants_that_vanish_in_mass_stay_and_deleted_ones_go() {
    let mut world = World::new(&json!({}));
    for n in 0..8 {
        world.grant(&format!("grant-{n}"), &json!({}));
    }
    world.settle();
    world.grants.truncate(2);
    world.delete("grant-0");
    world.grant("new", &json!({}));
    let plan = world.settle();
    assert_eq!(
        plan.withheld.map(|hold| hold.reason),
        Some(Reason::MassRevocationHeld)
    );
    let mut expected: Vec<String> = (1..8).map(|n| format!("grant-{n}")).collect();
    expected.push("new".into());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(world.allowed(), roles(&expected));
    // It is still held at the next look, and nothing more is written.
    let again = world.settle();
    assert!(again.withheld.is_some() && again.policy.is_none());
}

#[test]
fn a_grant_that_this_version_cannot_read_stays_as_it_stands() {
    let mut world = World::new(&json!({}));
    for name in ["a", "b"] {
        world.grant(name, &json!({}));
    }
    world.settle();
    let now = NOW.parse().unwrap();
    let labels = NamespaceLabels::new();
    let mut grants = verdict::of_all(
        &world.grants,
        &world.domain,
        world.facts,
        &Resolutions::default(),
        &labels,
        now,
    );
    let unreadable = Rejection::new(Reason::InvalidSpec, "", "from a later version");
    for (key, verdict) in &mut grants {
        if key.name == "b" {
            *verdict = Verdict::Unreadable(unreadable.clone());
        }
    }
    let plan = plan(&Input {
        domain: &world.domain,
        facts: world.facts,
        held: &BTreeMap::new(),
        grants: &grants,
        observed: &world.observed,
        last: world.last.as_ref(),
        acknowledged_revocation: 0,
    });
    assert!(plan.policy.is_none(), "{:?}", plan.removed);
    assert_eq!(plan.next.grants.len(), 2);
}

#[test]
fn a_deleted_grant_that_nobody_can_ask_waits_for_others_that_nobody_can() {
    let mut world = World::new(&json!({}));
    for name in ["a", "b", "c"] {
        world.grant(name, &json!({}));
    }
    world.settle();
    let plan_with = |unreadable: &[&str]| {
        let now = NOW.parse().unwrap();
        let labels = NamespaceLabels::new();
        let mut grants = verdict::of_all(
            &world.grants,
            &world.domain,
            world.facts,
            &Resolutions::default(),
            &labels,
            now,
        );
        for (key, verdict) in &mut grants {
            if unreadable.contains(&key.name.as_str()) {
                let rule = Rejection::new(Reason::InvalidSpec, "", "from a later version");
                *verdict = Verdict::Unreadable(rule);
            } else if key.name == "b" {
                *verdict = Verdict::Deleting;
            }
        }
        plan(&Input {
            domain: &world.domain,
            facts: world.facts,
            held: &BTreeMap::new(),
            grants: &grants,
            observed: &world.observed,
            last: world.last.as_ref(),
            acknowledged_revocation: 0,
        })
    };
    let of_b = |plan: &Plan| {
        let mut all = plan.outcomes.iter();
        all.find(|(key, _)| key.name == "b").unwrap().1.clone()
    };
    let waits = plan_with(&["c"]);
    assert!(waits.policy.is_none(), "{:?}", waits.removed);
    assert!(matches!(of_b(&waits), Outcome::Undecided(_)));
    assert_eq!(waits.next.grants.len(), 3);
    let goes = plan_with(&[]);
    assert_eq!(of_b(&goes), Outcome::Deleting);
    assert_eq!(goes.removed.len(), 1);
    assert_eq!(goes.next.grants.len(), 2);
}

#[test]
fn a_released_grant_is_revoked_and_no_loss() {
    let mut world = World::new(&json!({}));
    for name in ["a", "b", "c"] {
        world.grant(name, &json!({}));
    }
    world.settle();
    // Their objects are gone; only the record has them, as deleted ones.
    for name in ["a", "b"] {
        world.delete(name);
        let recorded = world.last.as_mut().unwrap();
        recorded.grants.get_mut(name).unwrap().released = true;
    }
    let plan = world.settle();
    assert_eq!(plan.withheld, None);
    assert_eq!(world.allowed(), roles(&["c"]));
    assert_eq!(world.last.unwrap().grants.len(), 1);
}

#[test]
fn a_record_that_is_full_takes_no_more_grants_and_loses_none() {
    // What a ConfigMap holds.
    const LIMIT: usize = 1024 * 1024;
    let mut world = World::new(&json!({}));
    let long = "n".repeat(200);
    for n in 0..1_500 {
        let same = json!([{"iamRole": {"arn": role("same")}}]);
        world.grant(&format!("{n:04}-{long}"), &json!({"principals": same}));
    }
    let refused = |plan: &Plan| -> Vec<String> {
        let refused = plan.outcomes.iter().filter(|(_, outcome)| {
            matches!(outcome, Outcome::Refused(rule) if rule.reason == Reason::TooManyGrants)
        });
        refused.map(|(key, _)| key.name.clone()).collect()
    };
    let size = |state: &LastApplied| serde_json::to_string(state).unwrap().len();
    let plan = world.settle();
    let first = refused(&plan);
    assert!(!first.is_empty() && first.len() < 300, "{}", first.len());
    assert_eq!(plan.next.grants.len() + first.len(), 1_500);
    assert!(size(&plan.intent(None, &world.domain.arn)) < LIMIT);
    assert_eq!(refused(&world.settle()), first, "it is the same every time");

    // All that are in leave at once, and room is made only when they have left.
    world.grants.retain(|grant| {
        let name = grant.metadata.name.clone().unwrap_or_default();
        first.contains(&name)
    });
    for grant in plan.next.grants.values() {
        world.grant(&grant.name.clone(), &json!({"domainRef": {"name": "logs"}}));
        world.delete(&grant.name);
    }
    let before = world.last.clone();
    let plan = world.settle();
    assert!(size(&plan.intent(before.as_ref(), &world.domain.arn)) < LIMIT);
    let plan = world.settle();
    assert_eq!(refused(&plan), Vec::<String>::new());
}

#[test]
fn calls_that_name_indexes_in_their_body_need_fine_grained_access_control() {
    let mut world = World::new(&json!({}));
    world.grant("reader", &json!({"access": "Read", "paths": ["team-a-*"]}));
    for (facts, root) in [
        (DomainFacts::default(), false),
        (
            DomainFacts {
                explicit_index_forbidden: true,
                ..DomainFacts::default()
            },
            false,
        ),
        (
            DomainFacts {
                fine_grained: true,
                ..DomainFacts::default()
            },
            true,
        ),
    ] {
        world.facts = facts;
        let plan = world.plan();
        let resources = resources(&plan);
        for path in ["_search", "_msearch", "_mget"] {
            assert_eq!(resources.contains(path), root, "{path} {facts:?}");
        }
        let warned = plan.outcomes.values().any(|it| {
            matches!(
                it,
                Outcome::Granted {
                    warning: Some(_),
                    ..
                }
            )
        });
        assert_eq!(warned, !root, "{facts:?}");
    }
}

#[test]
fn an_owned_policy_never_shuts_out_the_master_user() {
    let mut world = World::new(&json!({"accessPolicy": {"mode": "Own"},
        "fineGrainedAccess": {"masterUserArn": role("master")}}));
    world.others_write(
        &json!({"Effect": "Allow", "Principal": {"AWS": role("master")},
        "Action": "es:*", "Resource": "arn:aws:es:eu-west-1:111122223333:domain/logs/*"}),
    );
    assert!(world.plan().hold.is_some());
    world.grant("master", &json!({}));
    assert!(world.plan().hold.is_none());
}

#[test]
fn unsigned_grants_do_not_open_a_domain_together() {
    let mut world = World::new(&json!({"consent": [{"namespaces": ["team-a"], "ceiling": {
        "access": "ReadWrite", "anonymous": true, "sourceIps": ["0.0.0.0/0"]}}]}));
    for n in 1..=20 {
        let from = json!({"sourceIps": [format!("{n}.0.0.0/8")]});
        let principals = json!([{"anonymous": {}}]);
        world.grant(
            &format!("g{n:02}"),
            &json!({"principals": principals, "conditions": from}),
        );
    }
    let outcomes = world.plan().outcomes;
    let refused = outcomes
        .values()
        .filter(|it| matches!(it, Outcome::Refused(it) if it.reason == Reason::PublicAccess));
    assert_eq!(refused.count(), 19);
}

#[test]
fn a_namespace_that_is_not_known_is_selected_by_nothing() {
    let mut world = World::new(&json!({"consent": [{
        "namespaceSelector": {"matchExpressions": [{"key": "untrusted", "operator": "DoesNotExist"}]},
        "ceiling": {"access": "ReadWrite", "principals": {"accounts": ["111122223333"]}},
    }]}));
    world.grant("early", &json!({}));
    assert!(world.plan().policy.is_none());
}

#[test]
fn a_record_does_not_grow_with_each_unanswered_try() {
    let mut world = World::new(&json!({}));
    world.grant("grant", &json!({}));
    let plan = world.plan();
    let mut last = None;
    for _ in 0..50 {
        last = Some(plan.intent(last.as_ref(), &world.domain.arn));
    }
    assert_eq!(last.map(|it| it.applied.len()), Some(1));
}
