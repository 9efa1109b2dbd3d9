//! What happens to grants while nobody looks, or in spite of the operator.

use std::time::Duration;

use serde_json::json;

use super::{delete_by_hand, own, until_settled};
use crate::common::operator::scene::Scene;

#[tokio::test]
async fn what_took_the_place_of_a_grant_is_another_grant() {
    let scene = own("replaced", &json!({})).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    scene.grant_to("name", &a).await;
    scene.grant_to("stays", &c).await;
    scene.world.start_operator();
    scene.until_ready(&["name", "stays"]).await;
    until_settled(&scene).await;
    let uid = async || scene.get_grant("name").await["metadata"]["uid"].clone();
    let before = uid().await;

    // While nobody looks: another object of the name, and one that came and went.
    scene.world.stop_operator().await;
    delete_by_hand(&scene, "name").await;
    scene.grant_to("name", &b).await;
    scene.grant_to("brief", &a).await;
    delete_by_hand(&scene, "brief").await;
    assert_ne!(uid().await, before);
    scene.world.start_operator();
    scene.until_policy(&[scene.allows(&[&b, &c])]).await;
    scene.until_ready(&["name", "stays"]).await;
    let grant = scene.get_grant("name").await;
    assert_eq!(
        grant["metadata"]["finalizers"].as_array().map(Vec::len),
        Some(1)
    );
    scene.delete_grant("name").await;
    scene.until_gone("name").await;
    scene.until_policy(&[scene.allows(&[&c])]).await;
}

#[tokio::test]
async fn a_grant_whose_finalizer_was_taken_off_is_revoked_all_the_same() {
    let scene = own("unfinalized", &json!({})).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    for (name, role) in [("up", &a), ("down", &b), ("stays", &c)] {
        scene.grant_to(name, role).await;
    }
    scene.world.start_operator();
    scene.until_ready(&["up", "down", "stays"]).await;
    until_settled(&scene).await;
    delete_by_hand(&scene, "up").await;
    scene.until_policy(&[scene.allows(&[&b, &c])]).await;
    until_settled(&scene).await;
    scene.world.stop_operator().await;
    delete_by_hand(&scene, "down").await;
    scene.world.start_operator();
    scene.until_policy(&[scene.allows(&[&c])]).await;
    scene.until_domain_says("True", "Reconciled").await;
}

/// What a team may get wrong, and how it is put right again.
fn mistakes(scene: &Scene) -> Vec<(&'static str, serde_json::Value, serde_json::Value)> {
    let principals = |arn: &str| json!([{"iamRole": {"arn": arn}}]);
    let right = principals(&scene.arn("right"));
    let missing = scene.arn("missing");
    let elsewhere = "arn:aws:iam::999999999999:role/elsewhere";
    vec![
        (
            "PrincipalNotFound",
            json!({"principals": principals(&missing)}),
            json!({"principals": right}),
        ),
        (
            "OverCeiling",
            json!({"principals": principals(elsewhere)}),
            json!({"principals": right}),
        ),
        (
            "Expired",
            json!({"expiresAt": "2020-01-01T00:00:00Z"}),
            json!({"principals": right, "expiresAt": null}),
        ),
    ]
}

#[tokio::test]
async fn a_mistake_that_is_put_right_leaves_no_trace() {
    let scene = own("mistaken", &json!({})).await;
    let first = scene.role("first");
    let right = scene.role("right");
    scene.world.start_operator();
    for (number, (reason, wrong, corrected)) in mistakes(&scene).into_iter().enumerate() {
        for waits in [true, false] {
            let name = format!("grant-{number}-{waits}");
            scene.grant_to(&name, &first).await;
            scene.until_ready(&[&name]).await;
            scene.change_grant(&name, &json!({"spec": wrong})).await;
            if waits {
                scene.until_refused(&name, reason, &[]).await;
                scene.until_policy(&[]).await;
            }
            scene.change_grant(&name, &json!({"spec": corrected})).await;
            scene.until_ready(&[&name]).await;
            scene.until_policy(&[scene.allows(&[&right])]).await;
            let grant = scene.get_grant(&name).await;
            let conditions = grant["status"]["conditions"].as_array().unwrap();
            let bad = conditions.iter().find(|it| it["status"] != "True");
            assert_eq!(bad, None, "{name}");
            scene.delete_grant(&name).await;
            scene.until_gone(&name).await;
            scene.until_policy_within(Duration::ZERO, &[]).await;
        }
    }
    scene.until_domain_says("True", "Reconciled").await;
}
