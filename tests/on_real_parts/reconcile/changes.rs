//! A domain takes one change at a time, and takes its time; in peace nothing is written.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_aws::{DomainOptions, Period};
use crate::common::operator::PATIENCE;
use crate::common::operator::scene::{Scene, condition};

/// Returns how many updates of the domain were sent, refused ones included.
fn sent(scene: &Scene) -> usize {
    let calls = scene.world.aws().calls_of("UpdateDomainConfig");
    calls
        .iter()
        .filter(|call| call.domain.as_deref() == Some(scene.name))
        .count()
}

#[tokio::test]
async fn a_change_in_progress_is_waited_for_and_ready_means_active() {
    let options = DomainOptions::default().processing(Period::UntilFinished);
    let scene = Scene::bare("busy", options).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.add_domain(&json!({})).await;
    scene.grant_to("first", &a).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.grant_to("second", &b).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for name in ["first", "second"] {
        let ready = condition(&scene.get_grant(name).await, "Ready");
        assert_eq!(ready["status"], "False", "{name}: {ready}");
    }
    assert_eq!(
        sent(&scene),
        1,
        "no second change while the first is under way"
    );

    scene
        .world
        .aws()
        .domain("busy")
        .processing(Period::Calls(3));
    scene.world.aws().domain("busy").finish_change();
    scene.until_ready(&["first", "second"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    assert_eq!((sent(&scene), scene.updates()), (2, 2));
}

#[tokio::test]
async fn a_revocation_waits_for_the_change_before_it() {
    let scene = Scene::shared("busy-revoke").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    let domain = scene.world.aws().domain(scene.name);
    domain.processing(Period::For(Duration::from_secs(3)));
    scene.grant_to("second", &b).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    scene.delete_grant("first").await;
    scene.until_gone("first").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.until_ready(&["second"]).await;
    assert_eq!((sent(&scene), scene.updates()), (3, 3));
}

#[tokio::test]
async fn updates_that_are_refused_although_the_domain_says_active_come_through() {
    let options = DomainOptions::default()
        .processing(Period::Calls(1))
        .lag(Period::Calls(2));
    let scene = Scene::bare("lagging", options).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.add_domain(&json!({})).await;
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    scene.grant_to("second", &b).await;
    scene.until_ready(&["first", "second"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    assert_eq!(scene.updates(), 2);
}

#[tokio::test]
async fn reads_that_are_behind_make_no_second_write() {
    let options = DomainOptions::default().processing(Period::For(Duration::from_secs(3)));
    let scene = Scene::bare("stale", options).await;
    scene.world.aws().domain("stale").stale_reads(true);
    let a = scene.role("a");
    scene.add_domain(&json!({})).await;
    scene.grant_to("grant", &a).await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    assert_eq!(sent(&scene), 1);
}

#[tokio::test]
async fn a_change_that_fails_later_is_made_again() {
    let options = DomainOptions::default().processing(Period::Calls(2));
    let scene = Scene::bare("rolled-back", options).await;
    scene
        .world
        .aws()
        .domain("rolled-back")
        .fail_next_change("the domain is red");
    let a = scene.role("a");
    scene.add_domain(&json!({})).await;
    scene.grant_to("grant", &a).await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.until_policy(&[]).await;
}

#[tokio::test]
async fn in_peace_nothing_is_written_anywhere() {
    let scene = Scene::shared("peace").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let principals = json!([{"iamRole": {"arn": a}}, {"iamRole": {"arn": b}}]);
    let addresses = json!({"sourceIps": ["203.0.113.0/24", "198.51.100.7"]});
    scene
        .grant(
            "reader",
            &json!({"principals": principals, "access": "Read", "conditions": addresses}),
        )
        .await;
    scene
        .grant(
            "inline",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene
        .grant_to("refused", "arn:aws:iam::444455556666:role/a")
        .await;
    scene.until_ready(&["reader", "inline"]).await;
    scene.until_refused("refused", "OverCeiling", &[]).await;
    scene.until_domain_says("True", "Reconciled").await;

    let versions = async || {
        let mut objects = scene.grants().await;
        objects.push(scene.domain().await);
        let state = "domain-state.peace";
        objects.push(
            scene
                .world
                .get("ConfigMap", Some("opensearch-access"), state)
                .await,
        );
        let version = |object: Value| object["metadata"]["resourceVersion"].clone();
        objects.into_iter().map(version).collect::<Vec<_>>()
    };
    let reads = || {
        let calls = scene.world.aws().calls_of("DescribeDomain");
        calls
            .iter()
            .filter(|call| call.domain.as_deref() == Some("peace"))
            .count()
    };
    let puts = || {
        let calls = scene.world.aws().calls_of("PutRolePolicy");
        calls
            .iter()
            .filter(|call| call.body.to_string().contains("peace-"))
            .count()
    };
    let (before, read, put) = (versions().await, reads(), puts());
    assert_eq!(scene.updates(), 1);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let look = async || {
        // Reads of the policy come in another order at each version; it is the same version.
        if reads() > read {
            Ok(())
        } else {
            Err("the domain was not looked at".to_owned())
        }
    };
    scene
        .world
        .eventually("the operator looks at the domain", PATIENCE, look)
        .await;
    assert_eq!(
        (versions().await, scene.updates(), puts()),
        (before, 1, put)
    );
}

#[tokio::test]
async fn a_policy_that_is_spelled_otherwise_makes_no_write() {
    let scene = Scene::shared("spelled").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("one", &a).await;
    scene.grant_to("two", &b).await;
    scene.until_ready(&["one", "two"]).await;
    let mut split = [scene.allows(&[&a]), scene.allows(&[&b])];
    split[0]["Action"] = json!([
        "es:ESHttpPost",
        "es:ESHttpG*",
        "es:ESHttpHead",
        "es:ESHttpP*",
        "es:ESHttpDelete"
    ]);
    scene.others_write(&split);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.updates(), 1);
}
