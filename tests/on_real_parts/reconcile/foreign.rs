//! What others wrote is theirs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, PATIENCE, meaning};

/// How soon what was changed behind the operator's back is put right: the interval of 10 s, at
/// most a tenth more, and the write.
const INTERVAL: Duration = Duration::from_secs(14);

#[tokio::test]
async fn statements_of_others_survive_every_version() {
    let scene = Scene::bare("theirs", DomainOptions::default()).await;
    let (ours, theirs) = (scene.role("ours"), scene.role("theirs"));
    let with = |change: Value| {
        let mut statement = scene.allows(&[&theirs]);
        statement
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        statement
    };
    let mut not_action =
        with(json!({"Effect": "Deny", "NotAction": ["es:ESHttpGet", "es:ESHttpHead"]}));
    not_action.as_object_mut().unwrap().remove("Action");
    let foreign = [
        // The same shape as the operator's own, and one of wildcards.
        with(json!({})),
        with(json!({"Principal": {"AWS": ACCOUNT}, "Action": "es:ESHttp*", "Resource": "*"})),
        with(
            json!({"Effect": "Deny", "Principal": "*", "Resource": scene.resource("_dashboards*")}),
        ),
        // Denies the very principal that is granted.
        with(json!({"Effect": "Deny", "Principal": {"AWS": ours}, "Action": "es:ESHttpDelete"})),
        with(
            json!({"Condition": {"IpAddress": {"aws:SourceIp": ["198.51.100.7", "203.0.113.0/24"]}}}),
        ),
        with(
            json!({"Condition": {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/x-*"}, "Bool": {"aws:ViaAWSService": "false"}}}),
        ),
        not_action,
    ];
    scene.others_write(&foreign);
    let before = scene.policy();
    scene.add_domain(&json!({})).await;
    scene.grant_to("grant", &ours).await;
    scene.until_ready(&["grant"]).await;
    scene
        .change_grant("grant", &json!({"spec": {"access": "Read"}}))
        .await;
    scene.until_ready(&["grant"]).await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;

    for version in &scene.world.aws().versions(scene.name)[1..] {
        assert!(version.document.contains(r#""Id":"theirs""#), "{version:?}");
    }
    let history = scene.history();
    // Empty at first, then theirs, with our grant, with the changed one, and theirs again.
    assert_eq!(history.len(), 5);
    for version in &history[1..] {
        let lost: Vec<_> = before.difference(version).collect();
        assert!(lost.is_empty(), "{lost:#?}");
    }
    assert_eq!(history[4], before);
    assert_eq!(scene.updates(), 3);
}

#[tokio::test]
async fn what_others_grant_already_is_said_to_be_theirs() {
    let scene = Scene::bare("covered", DomainOptions::default()).await;
    let a = scene.role("a");
    scene.others_write(&[scene.allows(&[&a])]);
    scene.add_domain(&json!({})).await;
    // A record, so that the statement is not taken for one that was lost track of.
    scene.grant_to("first", &scene.role("b")).await;
    scene.until_ready(&["first"]).await;
    scene.grant_to("second", &a).await;
    let message = scene.until_says("second", "True", "GrantedByOthers").await;
    assert!(
        message.contains("deleting this grant does not revoke it"),
        "{message}"
    );
    scene.delete_grant("second").await;
    scene.until_gone("second").await;
    assert_eq!(scene.updates(), 1);
    scene
        .until_policy(&[scene.allows(&[&a, &scene.arn("b")])])
        .await;
}

#[tokio::test]
async fn a_principal_that_another_adds_to_our_statement_stays_when_ours_goes() {
    let scene = Scene::shared("added").await;
    let (ours, theirs) = (scene.role("ours"), scene.role("theirs"));
    scene.grant_to("grant", &ours).await;
    scene.until_ready(&["grant"]).await;
    scene.others_write(&[scene.allows(&[&ours, &theirs])]);
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.until_policy(&[scene.allows(&[&theirs])]).await;
}

#[tokio::test]
async fn what_is_taken_from_our_part_is_put_back_within_the_interval() {
    let scene = Scene::shared("drift").await;
    let (ours, theirs) = (scene.role("ours"), scene.role("theirs"));
    scene.grant_to("grant", &ours).await;
    scene.until_ready(&["grant"]).await;
    scene.others_write(&[scene.allows(&[&theirs])]);
    scene
        .until_policy_within(INTERVAL, &[scene.allows(&[&ours, &theirs])])
        .await;
    scene.until_ready(&["grant"]).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_not_written() {
    let scene = Scene::bare("unreadable", DomainOptions::default()).await;
    let scene = scene.unjudged("a text that is no policy");
    let aws = scene.world.aws();
    aws.set_policy_externally(scene.name, "no policy");
    scene.add_domain(&json!({})).await;
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    let message = scene.until_domain_says("False", "PolicyUnreadable").await;
    assert!(message.contains("not JSON"), "{message}");
    scene.until_says("grant", "False", "PolicyUnreadable").await;
    assert_eq!(
        (aws.policy(scene.name).as_str(), scene.updates()),
        ("no policy", 0)
    );
    scene.others_write(&[]);
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn a_role_that_is_deleted_and_made_again_is_granted_anew_without_a_write_in_between() {
    let scene = Scene::shared("remade").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("gone", &a).await;
    scene.grant_to("stays", &b).await;
    scene.until_ready(&["gone", "stays"]).await;
    assert!(
        scene
            .world
            .aws()
            .delete_role(ACCOUNT, &scene.role_name("a"))
    );
    let id = |policy: &str| policy.contains("AROA");
    assert!(id(&scene.world.aws().policy(scene.name)));
    // A new grant has the operator write, and it must not send the unique id back.
    let c = scene.role("c");
    scene.grant_to("new", &c).await;
    scene.until_ready(&["new"]).await;
    let versions = scene.world.aws().versions(scene.name);
    assert!(!id(&versions.last().unwrap().submitted), "{versions:?}");
    let said = meaning::of_statements(&[scene.allows(&[&b, &c])]);
    assert!(said.is_subset(&scene.policy()));
    let look = async || match scene.updates() {
        2 => Ok(()),
        count => Err(format!("{count} updates")),
    };
    scene
        .world
        .eventually("there are two updates", PATIENCE, look)
        .await;
}
