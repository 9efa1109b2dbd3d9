//! Service accounts, whose roles may not be known.

use super::*;

/// A world whose team may grant to its service accounts, and does to `search`, beside role `beside`.
fn with_account() -> World {
    let mut world = World::new(&json!({"consent": [{"namespaces": ["team-a"], "ceiling": {
        "access": "ReadWrite",
        "principals": {"accounts": ["111122223333"], "serviceAccounts": true},
    }}]}));
    let principals =
        json!([{"serviceAccount": {"name": "search"}}, {"iamRole": {"arn": role("beside")}}]);
    world.grant("grant", &json!({ "principals": principals }));
    world
}

fn is_role(name: &str) -> Vec<(&'static str, Resolution)> {
    let role = EntityArn::parse(&role(name), EntityKind::Role).unwrap();
    vec![("search", Resolution::Role(role, Proof::TrustPolicy))]
}

#[test]
fn a_service_account_without_an_answer_keeps_its_role_and_gets_none() {
    let mut world = with_account();
    let plan = world.settle();
    assert!(plan.policy.is_none(), "{:?}", plan.added);
    assert!(matches!(
        plan.outcomes.values().next(),
        Some(Outcome::Undecided(_))
    ));
    world.accounts = is_role("a");
    world.settle();
    assert_eq!(world.allowed(), roles(&["a", "beside"]));

    world.accounts.clear();
    for _ in 0..2 {
        let plan = world.settle();
        assert!(plan.policy.is_none(), "{:?} {:?}", plan.added, plan.removed);
        assert!(matches!(
            plan.outcomes.values().next(),
            Some(Outcome::Undecided(_))
        ));
    }
    // Consent needs no answer to be withdrawn.
    world.domain.consent[0].ceiling.service_accounts = false;
    world.settle();
    assert_eq!(world.allowed(), roles(&[]));
}

#[test]
fn a_service_account_that_is_refused_takes_its_grant_along() {
    let mut world = with_account();
    world.accounts = is_role("a");
    world.settle();
    let refused = Resolution::Refused(Reason::TrustNotProven, String::new());
    world.accounts = vec![("search", refused)];
    let plan = world.settle();
    let outcome = plan.outcomes.values().next();
    assert!(matches!(outcome, Some(Outcome::Refused(why)) if why.reason == Reason::TrustNotProven));
    assert_eq!(world.allowed(), roles(&[]));
    assert!(plan.next.grants.is_empty());
}

#[test]
fn whichever_role_a_lost_write_left_stays_without_an_answer() {
    for applied in [false, true] {
        let mut world = with_account();
        world.accounts = is_role("a");
        world.settle();
        world.accounts = is_role("b");
        let plan = world.plan();
        world.last = Some(plan.intent(world.last.as_ref(), &world.domain.arn));
        if applied {
            world.observed = plan.policy.clone().unwrap();
        }
        let before = world.allowed();
        world.accounts.clear();
        let plan = world.settle();
        assert!(plan.policy.is_none(), "{:?} {:?}", plan.added, plan.removed);
        assert_eq!(world.allowed(), before);
        // It is told apart later, too.
        world.delete("grant");
        world.settle();
        assert_eq!(world.allowed(), roles(&[]));
    }
}

#[test]
fn what_is_not_decided_counts_among_the_grants_of_a_namespace() {
    let mut world = with_account();
    world.domain.consent[0].ceiling.max_grants = 1;
    world.accounts = is_role("a");
    world.settle();
    world.accounts.clear();
    world.grant("younger", &json!({}));
    let plan = world.settle();
    let younger = plan.outcomes.iter().find(|(key, _)| key.name == "younger");
    assert!(
        matches!(younger, Some((_, Outcome::Refused(why))) if why.reason == Reason::OverCeiling)
    );
    assert_eq!(world.allowed(), roles(&["a", "beside"]));
}
