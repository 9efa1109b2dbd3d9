//! The operator works in the account that a domain names, or not at all.

use serde_json::json;

use crate::common::fake_aws::{DomainOptions, RoleOptions};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, REGION, World, meaning};

const OTHER: &str = "444455556666";

#[tokio::test]
async fn a_domain_of_another_account_is_not_touched_without_a_role_there() {
    // A domain of the same name is in the operator's own account.
    let scene = Scene::bare("mismatch", DomainOptions::default()).await;
    scene.add_domain(&json!({"accountId": OTHER})).await;
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_domain_says("False", "DomainMismatch").await;
    for word in [ACCOUNT, OTHER, "spec.assumeRole"] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let message = scene.until_says("grant", "False", "DomainMismatch").await;
    assert!(message.contains("domain mismatch"), "{message}");
    assert_eq!(scene.updates(), 0);
}

#[tokio::test]
async fn a_domain_of_another_account_is_reached_through_a_role_and_its_external_id() {
    let world = World::shared().await;
    let aws = world.aws();
    let trusted = RoleOptions::default()
        .trusts(ACCOUNT)
        .external_id("a-shared-word");
    aws.account(OTHER)
        .role_with("opensearch-access", trusted)
        .role("reader");
    aws.account(OTHER).domain("reached", REGION);
    world.namespace("reached", &json!({})).await;
    let scene = Scene {
        world,
        name: "reached",
    };
    let role = format!("arn:aws:iam::{OTHER}:role/opensearch-access");
    let ceiling = scene.consent(&json!({"principals": {"accounts": [OTHER]}}));
    let wrong = json!({"arn": role, "externalId": "another-word"});
    scene
        .add_domain(&json!({"accountId": OTHER, "assumeRole": wrong, "consent": [ceiling]}))
        .await;
    let message = scene.until_domain_says("False", "AccessDenied").await;
    assert!(
        message.contains("AssumeRole") && message.contains(&role),
        "{message}"
    );
    assert!(!message.contains("another-word"), "{message}");

    let right = json!({"spec": {"assumeRole": {"externalId": "a-shared-word"}}});
    scene.change_domain(&right).await;
    let reader = format!("arn:aws:iam::{OTHER}:role/reader");
    scene.grant_to("grant", &reader).await;
    scene.until_ready(&["grant"]).await;
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": reader}, "Action": "es:*",
        "Resource": format!("arn:aws:es:{REGION}:{OTHER}:domain/reached/*")});
    assert_eq!(scene.policy(), meaning::of_statements(&[statement]));
    let session =
        format!("arn:aws:sts::{OTHER}:assumed-role/opensearch-access/opensearch-access.reached");
    let calls = scene.world.aws().calls();
    let on_domain: Vec<_> = calls
        .iter()
        .filter(|it| it.domain.as_deref() == Some("reached"))
        .collect();
    assert!(!on_domain.is_empty());
    for call in on_domain {
        assert_eq!(call.caller_arn, session, "{call:?}");
    }
}

#[tokio::test]
async fn a_domain_that_aws_does_not_know_is_named_and_holds_nothing_back() {
    let scene = Scene::bare("unknown", DomainOptions::default()).await;
    scene.world.aws().domain("unknown").delete();
    scene.add_domain(&json!({"deletionPolicy": "Revoke"})).await;
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_domain_says("False", "DomainNotFound").await;
    for word in ["unknown", REGION, ACCOUNT] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    scene.until_says("grant", "False", "DomainNotFound").await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
}

#[tokio::test]
async fn a_domain_that_is_deleted_in_aws_lets_its_grants_and_its_object_go() {
    let scene = Scene::bare("vanished", DomainOptions::default()).await;
    scene.add_domain(&json!({"deletionPolicy": "Revoke"})).await;
    let principals = json!([{"iamRole": {"arn": scene.role("a")}}]);
    scene
        .grant(
            "grant",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene.until_ready(&["grant"]).await;
    scene.world.aws().domain("vanished").delete();
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    let left = scene
        .world
        .aws()
        .role_policies(ACCOUNT, &scene.role_name("a"));
    assert!(left.is_empty(), "{left:?}");
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
}
