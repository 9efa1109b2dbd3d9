//! What is granted goes when its reason does: deletion, time, consent, the domain's object.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::common::fake_aws::{DomainOptions, Fault, Times};
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, PATIENCE};

/// Sets up a scene in which nothing but what happens makes the operator look again. How soon it does
/// is for `tests/proof/scale.rs` to measure, on a machine that does nothing else.
async fn eventful(name: &'static str) -> Scene {
    let scene = Scene::bare(name, DomainOptions::default()).await;
    scene.add_domain(&json!({"interval": "1h"})).await;
    scene
}

fn attached(scene: &Scene, role: &str) -> usize {
    let role = scene.role_name(role);
    scene.world.aws().role_policies(ACCOUNT, &role).len()
}

/// Makes sure that nothing went wrong on the way that the domain's admins were told of.
async fn nobody_was_alarmed(scene: &Scene) {
    let told = scene.world.events("default", scene.name).await;
    let usual = ["PolicyWritten", "Reconciled"];
    let alarm = told
        .iter()
        .find(|(reason, _)| !usual.contains(&reason.as_str()));
    assert_eq!(alarm, None);
}

#[tokio::test]
async fn a_grant_that_goes_while_it_is_being_granted_alarms_nobody() {
    let scene = Scene::shared("fleeting").await;
    scene.until_domain_says("True", "Reconciled").await;
    let faults = scene.world.aws().faults();
    let slow = Fault::Delay(Duration::from_secs(3));
    faults.inject_on(scene.name, "DescribeDomainConfig", slow, Times::Exactly(1));
    let reads = || {
        let calls = scene.world.aws().calls_of("DescribeDomain");
        calls
            .iter()
            .filter(|call| call.domain.as_deref() == Some(scene.name))
            .count()
    };
    let before = reads();
    scene.grant_to("grant", &scene.role("a")).await;
    let look = async || {
        if reads() > before {
            Ok(())
        } else {
            Err("not read".to_owned())
        }
    };
    scene
        .world
        .eventually("the grant was seen", PATIENCE, look)
        .await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.until_domain_says("True", "Reconciled").await;
    assert_eq!(scene.updates(), 0);
    nobody_was_alarmed(&scene).await;
}

#[tokio::test]
async fn a_deleted_grant_is_revoked_first_and_then_goes() {
    let scene = eventful("deleted").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let principals = json!([{"iamRole": {"arn": a}}]);
    scene
        .grant(
            "goes",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene.grant_to("stays", &b).await;
    scene.until_ready(&["goes", "stays"]).await;
    assert_eq!(attached(&scene, "a"), 1);

    let slow = Duration::from_millis(1500);
    let faults = scene.world.aws().faults();
    faults.inject_on(
        scene.name,
        "UpdateDomainConfig",
        Fault::Delay(slow),
        Times::Exactly(1),
    );
    scene.delete_grant("goes").await;
    tokio::time::sleep(slow).await;
    assert_ne!(
        scene.get_grant("goes").await,
        json!(null),
        "it was not revoked yet"
    );
    assert_eq!(attached(&scene, "a"), 1, "the door is open still");
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.until_gone("goes").await;
    assert_eq!(attached(&scene, "a"), 0);
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.until_ready(&["stays"]).await;
    assert_eq!(scene.updates(), 2);
    let events = scene.world.events("deleted", "goes").await;
    let revoked = events.iter().filter(|(reason, _)| reason == "Revoked");
    assert_eq!(revoked.count(), 1, "{events:?}");
    nobody_was_alarmed(&scene).await;
}

#[tokio::test]
async fn the_last_grant_takes_the_policy_with_it() {
    let scene = eventful("last").await;
    scene.grant_to("only", &scene.role("a")).await;
    scene.until_ready(&["only"]).await;
    scene.delete_grant("only").await;
    scene.until_policy(&[]).await;
    scene.until_gone("only").await;
    let versions = scene.world.aws().versions(scene.name);
    assert_eq!(versions.last().map(|it| it.submitted.as_str()), Some(""));
    assert_eq!(scene.updates(), 2);
    scene.until_domain_says("True", "Reconciled").await;
}

#[tokio::test]
async fn a_grant_that_another_repeats_revokes_nothing() {
    let scene = Scene::shared("repeated").await;
    let a = scene.role("a");
    scene.grant_to("goes", &a).await;
    scene.grant_to("stays", &a).await;
    scene.until_ready(&["goes", "stays"]).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    assert_eq!(scene.updates(), 1);
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn an_inline_policy_stays_as_long_as_a_grant_asks_for_it() {
    let scene = Scene::shared("inline").await;
    let principals = json!([{"iamRole": {"arn": scene.role("a")}}]);
    let attach = json!({"principals": principals, "identityPolicy": "Attach"});
    scene.grant("one", &attach).await;
    scene.until_ready(&["one"]).await;
    assert_eq!(attached(&scene, "a"), 1);
    scene
        .change_grant("one", &json!({"spec": {"identityPolicy": "None"}}))
        .await;
    let look = async || match attached(&scene, "a") {
        0 => Ok(()),
        count => Err(format!("{count} are attached")),
    };
    scene
        .world
        .eventually("the inline policy is gone", PATIENCE, look)
        .await;
    scene.until_ready(&["one"]).await;
    assert_eq!(scene.updates(), 1);
}

#[tokio::test]
async fn consent_that_is_withdrawn_revokes() {
    let scene = eventful("withdrawn").await;
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    scene.until_ready(&["grant"]).await;
    scene.change_domain(&json!({"spec": {"consent": []}})).await;
    scene.until_policy(&[]).await;
    scene
        .until_refused(
            "grant",
            "NotPermitted",
            &["spec.domainRef", "namespace withdrawn"],
        )
        .await;
    let consent = json!({"spec": {"consent": [scene.consent(&json!({}))]}});
    scene.change_domain(&consent).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.until_ready(&["grant"]).await;
}

#[tokio::test]
async fn a_grant_ends_by_itself() {
    let scene = eventful("ends").await;
    scene.grant_to("short", &scene.role("a")).await;
    scene.until_ready(&["short"]).await;
    let end = Timestamp::now() + SignedDuration::from_secs(6);
    let spelled = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    scene
        .change_grant("short", &json!({"spec": {"expiresAt": spelled}}))
        .await;
    scene
        .until_refused("short", "Expired", &["spec.expiresAt", &spelled])
        .await;
    scene.until_policy(&[]).await;
    let emptied = scene.world.aws().versions("ends").last().map(|it| it.at);
    let second = SignedDuration::from_secs(1);
    assert!(
        emptied.is_some_and(|at| at >= end - second),
        "{emptied:?} is before {end}"
    );
    scene.delete_grant("short").await;
    scene.until_gone("short").await;
}

#[tokio::test]
async fn a_domain_that_is_retained_leaves_the_policy_and_lets_its_grants_go() {
    let scene = Scene::shared("retained").await;
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    scene.until_ready(&["grant"]).await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    scene
        .until_refused("grant", "DomainNotFound", &["spec.domainRef.name"])
        .await;
    // It is there still, and nobody looks after it.
    let applied = condition(&scene.get_grant("grant").await, "AccessPolicyApplied");
    assert_eq!(applied["status"], "Unknown", "{applied:#}");
    let message = applied["message"].as_str().unwrap();
    assert!(message.contains("was left"), "{message}");
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    assert_eq!(scene.updates(), 1);
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn a_domain_that_is_revoked_takes_what_was_granted_and_nothing_else() {
    let scene = Scene::bare("revoked", DomainOptions::default()).await;
    let (ours, theirs) = (scene.role("ours"), scene.role("theirs"));
    scene.others_write(&[scene.allows(&[&theirs])]);
    scene.add_domain(&json!({"deletionPolicy": "Revoke"})).await;
    let principals = json!([{"iamRole": {"arn": ours}}]);
    scene
        .grant(
            "grant",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&ours, &theirs])]).await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    assert_eq!(attached(&scene, "ours"), 0);
    scene
        .until_policy_within(Duration::ZERO, &[scene.allows(&[&theirs])])
        .await;
    scene
        .until_refused("grant", "DomainNotFound", &["spec.domainRef.name"])
        .await;
    let applied = condition(&scene.get_grant("grant").await, "AccessPolicyApplied");
    assert_eq!(applied["status"], "False", "{applied:#}");
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
}
