//! How much of the policy is the operator's is the admin's word.

use std::time::Duration;

use serde_json::json;

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;

#[tokio::test]
async fn a_domain_that_is_observed_is_not_written_and_says_what_would_be() {
    let scene = Scene::bare("observed", DomainOptions::default()).await;
    let a = scene.role("a");
    scene
        .add_domain(&json!({"accessPolicy": {"mode": "Observe"}}))
        .await;
    scene.grant_to("grant", &a).await;
    scene.until_says("grant", "False", "Observed").await;
    let message = scene.until_domain_says("False", "Observed").await;
    assert!(
        message.contains("1 statements would be added") && message.contains("Merge"),
        "{message}"
    );
    let policy = scene.domain().await["status"]["accessPolicy"].clone();
    assert_eq!(
        (&policy["wouldAdd"], &policy["wouldRemove"]),
        (&json!(1), &json!(0))
    );
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    assert_eq!(scene.updates(), 0);

    scene.grant_to("later", &a).await;
    scene
        .change_domain(&json!({"spec": {"accessPolicy": {"mode": "Merge"}}}))
        .await;
    scene.until_ready(&["later"]).await;
    assert_eq!(
        scene.domain().await["status"]["accessPolicy"]["wouldAdd"],
        json!(null)
    );
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn an_owned_policy_loses_what_others_allow_and_keeps_what_they_deny() {
    let scene = Scene::bare("owned", DomainOptions::default()).await;
    let (ours, theirs) = (scene.role("ours"), scene.role("theirs"));
    let mut denial = scene.allows(&["*"]);
    denial["Effect"] = json!("Deny");
    denial["Resource"] = json!(scene.resource("_dashboards*"));
    scene.others_write(&[scene.allows(&[&theirs]), denial.clone()]);
    scene
        .add_domain(&json!({"accessPolicy": {"mode": "Own"}}))
        .await;
    scene.grant_to("grant", &ours).await;
    scene.until_ready(&["grant"]).await;
    scene
        .until_policy(&[scene.allows(&[&ours]), denial.clone()])
        .await;
    // Within the interval, again.
    scene.others_write(&[scene.allows(&[&ours, &theirs]), denial.clone()]);
    scene
        .until_policy(&[scene.allows(&[&ours]), denial.clone()])
        .await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.until_policy(&[denial]).await;
}

#[tokio::test]
async fn a_domain_that_is_suspended_is_not_written_until_it_is_not() {
    let scene = Scene::shared("suspended").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    scene
        .change_domain(&json!({"spec": {"suspend": true}}))
        .await;
    scene.until_domain_says("True", "Suspended").await;
    scene.grant_to("second", &b).await;
    scene.until_says("second", "False", "Suspended").await;
    scene.delete_grant("first").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(
        scene.get_grant("first").await,
        json!(null),
        "it is in the policy still"
    );
    assert_eq!(scene.updates(), 1);
    scene
        .change_domain(&json!({"spec": {"suspend": null}}))
        .await;
    scene.until_ready(&["second"]).await;
    scene.until_gone("first").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
}
