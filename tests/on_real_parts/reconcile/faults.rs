//! What goes wrong in AWS passes, and leaves nothing behind.

use std::time::Duration;

use crate::common::fake_aws::{Fault, Times};
use crate::common::operator::meaning::{self, Meaning};
use crate::common::operator::scene::Scene;

/// Sets a fault on the update, and makes sure that a grant, a change and a revocation come through
/// with every version between the two.
async fn converges(name: &'static str, fault: Fault) {
    let scene = Scene::shared(name).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("stays", &a).await;
    scene.until_ready(&["stays"]).await;
    // More often than the SDK tries by itself.
    let inject = || {
        let faults = scene.world.aws().faults();
        faults.inject_on(name, "UpdateDomainConfig", fault.clone(), Times::Exactly(4));
    };
    inject();
    scene.grant_to("goes", &b).await;
    scene.until_ready(&["stays", "goes"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    inject();
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.until_domain_says("True", "Reconciled").await;

    scene.updates();
    // No version ever had more than was asked for at one time.
    let everything: Meaning = scene.history().into_iter().flatten().collect();
    let all = meaning::of_statements(&[scene.allows(&[&a, &b])]);
    assert_eq!(everything, all);
}

#[tokio::test]
async fn denied_updates_come_through() {
    converges("denied", Fault::AccessDenied).await;
}

#[tokio::test]
async fn throttled_updates_come_through() {
    converges("throttled", Fault::Throttle).await;
}

#[tokio::test]
async fn failed_updates_come_through() {
    converges("failing", Fault::Internal).await;
}

#[tokio::test]
async fn updates_that_never_arrived_come_through() {
    converges("reset-before", Fault::ResetBefore).await;
}

#[tokio::test]
async fn updates_whose_answer_was_lost_come_through() {
    converges("reset-after", Fault::ResetAfter).await;
}

#[tokio::test]
async fn what_is_denied_is_shown_to_who_can_change_it() {
    let scene = Scene::shared("shown").await;
    let faults = scene.world.aws().faults();
    let denied = Fault::AccessDenied;
    faults.inject_on("shown", "DescribeDomain", denied, Times::UntilCleared);
    scene
        .change_domain(&serde_json::json!({"spec": {"interval": "11s"}}))
        .await;
    let message = scene.until_domain_says("False", "AccessDenied").await;
    assert!(message.contains("DescribeDomain"), "{message}");
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_says("grant", "False", "AccessDenied").await;
    assert!(
        message.contains("domain shown") && message.contains("status"),
        "{message}"
    );
    // Not to be cleared by the operation's name: other tests have faults on it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.updates(), 0);
}
