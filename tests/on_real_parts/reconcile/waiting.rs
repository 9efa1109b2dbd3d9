//! What one service of AWS keeps waiting, nothing else waits for.

use std::time::Duration;

use serde_json::json;

use crate::common::fake_aws::{DomainOptions, Fault, Period, Times};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, PATIENCE, World};

/// Longer than anybody waits.
const NEVER: Duration = Duration::from_mins(10);

fn inline(role: &str) -> serde_json::Value {
    json!({"principals": [{"iamRole": {"arn": role}}], "identityPolicy": "Attach"})
}

/// What hangs in the round that is under way ends 20 s after it began, and so do the look-ups of the
/// next one; the rest is for a busy machine.
const LOOK_UPS: Duration = Duration::from_secs(70);

#[tokio::test]
async fn an_iam_that_does_not_answer_keeps_no_revocation_waiting() {
    let scene = Scene::in_world(World::start().await, "iam-hangs", DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    scene.grant_to("goes", &a).await;
    scene.grant_to("stays", &b).await;
    scene.until_ready(&["goes", "stays"]).await;
    let faults = scene.world.aws().faults();
    faults.delay("PutRolePolicy", NEVER);
    scene.grant("inline", &inline(&b)).await;
    scene.delete_grant("goes").await;
    // Attaching comes after what revokes.
    scene
        .until_policy_within(LOOK_UPS, &[scene.allows(&[&b])])
        .await;

    faults.delay("GetRole", NEVER);
    scene.grant_to("new", &c).await;
    scene.delete_grant("stays").await;
    scene.delete_grant("inline").await;
    scene.until_policy_within(LOOK_UPS, &[]).await;
    let message = scene.until_says("new", "Unknown", "PrincipalUnknown").await;
    assert!(message.contains("could not be asked"), "{message}");
    faults.clear("*");
    scene.until_gone("stays").await;
    scene.until_ready(&["new"]).await;
    scene.until_policy(&[scene.allows(&[&c])]).await;
}

#[tokio::test]
async fn an_inline_policy_goes_while_the_door_waits_for_another_change() {
    let scene = Scene::shared("door-waits").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant("goes", &inline(&a)).await;
    scene.until_ready(&["goes"]).await;
    let domain = scene.world.aws().domain(scene.name);
    domain.processing(Period::UntilFinished);
    scene.grant_to("stays", &b).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    scene.delete_grant("goes").await;
    let attached = || {
        let role = scene.role_name("a");
        scene.world.aws().role_policies(ACCOUNT, &role).len()
    };
    let look = async || (attached() == 0).then_some(()).ok_or("attached".to_owned());
    scene
        .world
        .eventually("the inline policy is gone", PATIENCE, look)
        .await;
    assert_eq!(scene.policy(), scene.history()[2], "the door waits still");
    domain.processing(Period::None);
    domain.finish_change();
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
}

#[tokio::test]
async fn a_search_goes_on_after_aws_has_throttled_it() {
    let other = "444455556666";
    let options = DomainOptions::default().dry_runs_judge();
    let scene = Scene::bare("search-throttled", options).await;
    scene.world.aws().account(other);
    let accounts = json!({"principals": {"accounts": [ACCOUNT, other]}});
    scene
        .add_domain(&json!({"consent": [scene.consent(&accounts)]}))
        .await;
    let role = scene.role("a");
    scene.grant_to("good", &role).await;
    scene.until_ready(&["good"]).await;
    // The first update is let through to be refused; what is asked about it is throttled.
    let faults = scene.world.aws().faults();
    let policy = "Error setting policy: [{}]".to_owned();
    let refused = Fault::Refuse("InvalidTypeException", 409, policy);
    let operation = "UpdateDomainConfig";
    faults.inject_on(scene.name, operation, refused, Times::Exactly(1));
    faults.inject_on(scene.name, operation, Fault::Throttle, Times::Exactly(2));
    let bad = format!("arn:aws:iam::{other}:role/nobody-throttled");
    scene.grant_to("bad", &bad).await;
    let b = scene.role("b");
    scene.grant_to("late", &b).await;
    scene.until_ready(&["good", "late"]).await;
    scene.until_policy(&[scene.allows(&[&role, &b])]).await;
    scene
        .until_refused("bad", "PrincipalNotFound", &[&bad])
        .await;
}

#[tokio::test]
async fn a_domain_that_aws_throttles_is_asked_for_ever_more_seldom_and_then_converges() {
    let scene = Scene::in_world(
        World::start().await,
        "throttled-all",
        DomainOptions::default(),
    );
    let scene = scene.await;
    scene.add_domain(&json!({})).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("goes", &a).await;
    scene.until_ready(&["goes"]).await;
    let faults = scene.world.aws().faults();
    faults.inject_on(scene.name, "*", Fault::Throttle, Times::UntilCleared);
    scene.grant_to("comes", &b).await;
    scene.delete_grant("goes").await;
    scene.until_domain_says("False", "Throttled").await;
    // 1, 2, 4, 8 and 16 s, and at most a quarter more each.
    tokio::time::sleep(Duration::from_secs(39)).await;
    let calls = || {
        let calls = scene.world.aws().calls();
        let of_domain = calls.iter();
        of_domain
            .filter(|call| call.domain.as_deref() == Some(scene.name))
            .count()
    };
    let before = calls();
    // By then it is one in 30 s, and at least in three quarters of that.
    tokio::time::sleep(Duration::from_secs(44)).await;
    let within = calls() - before;
    assert!((1..=2).contains(&within), "{within} calls in 44 s");
    faults.clear("*");
    scene
        .until_policy_within(Duration::from_mins(1), &[scene.allows(&[&b])])
        .await;
    scene.until_gone("goes").await;
    scene.until_ready(&["comes"]).await;
}
