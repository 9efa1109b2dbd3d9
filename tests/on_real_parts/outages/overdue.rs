//! Deleted grants do not hang for as long as AWS is away, and are revoked when it is back.

use std::time::Duration;

use serde_json::json;

use super::{own, record, until_settled};
use crate::common::fake_aws::{Fault, Times};
use crate::common::operator::ACCOUNT;
use crate::common::operator::replica::Replica;

/// The operator, less patient than in production.
const OPTIONS: [&str; 5] = [
    "--no-leader-election",
    "--revocation-limit",
    "5s",
    "--log",
    "debug",
];

#[tokio::test]
async fn what_cannot_be_revoked_in_time_is_let_go_and_revoked_later() {
    let scene = own("overdue", &json!({"deletionPolicy": "Revoke"})).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    let principals = json!([{"iamRole": {"arn": a}}]);
    let attach = json!({"principals": principals, "identityPolicy": "Attach"});
    scene.grant("one", &attach).await;
    scene.grant_to("two", &b).await;
    scene.grant_to("stays", &c).await;
    let operator = Replica::start_with(&scene.world, "first", &OPTIONS).await;
    scene.until_ready(&["one", "two", "stays"]).await;
    until_settled(&scene).await;
    let faults = scene.world.aws().faults();
    let attached = || {
        let role = scene.role_name("a");
        scene.world.aws().role_policies(ACCOUNT, &role).len()
    };

    faults.inject("*", Fault::ResetBefore, Times::UntilCleared);
    scene.delete_grant("one").await;
    scene.delete_grant("two").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(scene.get_grant("one").await, json!(null), "not at once");
    scene.until_gone("one").await;
    scene.until_gone("two").await;
    operator
        .until_metrics(&[("revocations_overdue_total", 2.0)])
        .await;
    let told = scene.world.events(scene.name, "one").await;
    let told = told
        .iter()
        .find(|(reason, _)| reason == "RevocationOverdue");
    assert!(
        told.is_some_and(|(_, note)| note.contains("as soon as")),
        "{told:?}"
    );
    scene
        .until_policy_within(Duration::ZERO, &[scene.allows(&[&a, &b, &c])])
        .await;
    let kept = record(&scene).await.to_string();
    assert_eq!(kept.matches("\"released\":true").count(), 2, "{kept}");

    // Whoever leads when AWS is back knows what is left to do; nobody has to acknowledge it.
    operator.kill();
    faults.clear("*");
    let operator = Replica::start_with(&scene.world, "second", &OPTIONS).await;
    scene.until_policy(&[scene.allows(&[&c])]).await;
    scene.until_domain_says("True", "Reconciled").await;
    until_settled(&scene).await;
    assert_eq!(attached(), 0);
    let kept = record(&scene).await.to_string();
    assert!(!kept.contains("released"), "{kept}");
    let history = scene.world.events("default", scene.name).await;
    let alarm = history.iter().find(|(it, _)| it == "MassRevocationHeld");
    assert_eq!(alarm, None);

    // The domain's own object waits: without it nobody would revoke anything.
    faults.inject("*", Fault::ResetBefore, Times::UntilCleared);
    scene.delete_domain().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_ne!(scene.domain().await, json!(null));
    faults.clear("*");
    scene.until_domain_is_gone().await;
    scene.until_policy_within(Duration::ZERO, &[]).await;
    scene
        .until_refused("stays", "DomainNotFound", &["spec.domainRef.name"])
        .await;
    operator.stop().await;
}
