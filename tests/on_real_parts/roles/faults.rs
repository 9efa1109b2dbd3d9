//! What goes wrong between the operator and the plugin, and what holds all the same.

use super::*;

fn down() -> Trouble {
    Trouble::Answer(StatusCode::SERVICE_UNAVAILABLE, json!({}))
}

/// Has every request of the security API go wrong until it is cleared.
fn fail_all(stage: &Stage, methods: &[Method], trouble: &Trouble) {
    for method in methods {
        let troubles = stage.gateway.troubles();
        troubles.next(100_000, method.clone(), API, trouble);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_down_opens_no_door_and_keeps_no_other_waiting() {
    let stage = Stage::shared("faults-down").await;
    let scene = &stage.scene;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let role = stage.define("r", "x").await;
    fail_all(&stage, &[Method::GET], &down());
    stage.grant("mapped", &a, &[&role]).await;
    scene.grant_to("plain", &b).await;
    scene.until_ready(&["plain"]).await;
    let half = stage
        .until_half("mapped", "SecurityRolesApplied", "False")
        .await;
    assert_eq!(half["reason"], "Throttled", "{half}");
    scene.until_policy(&[scene.allows(&[&b])]).await;
    let told = scene.until_domain_says("False", "Throttled").await;
    assert!(told.contains("503"), "{told}");
    stage.gateway.troubles().clear();
    scene.until_ready(&["mapped"]).await;
    stage.until_mapped(&role, &[&a]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_half_says_the_truth_of_its_own() {
    let stage = Stage::shared("faults-half").await;
    let scene = &stage.scene;
    let (a, role) = (scene.role("a"), stage.define("r", "x").await);
    scene.grant_to("one", &a).await;
    scene.until_ready(&["one"]).await;
    let refused = Trouble::Answer(
        StatusCode::BAD_REQUEST,
        json!({"status": "BAD_REQUEST", "message": "no"}),
    );
    fail_all(&stage, &[Method::PATCH], &refused);
    let change = json!({"spec": {"securityRoles": [role]}});
    scene.change_grant("one", &change).await;
    let half = stage
        .until_half("one", "SecurityRolesApplied", "False")
        .await;
    assert_eq!(half["reason"], "MappingRefused", "{half}");
    let door = stage.until_half("one", "AccessPolicyApplied", "True").await;
    assert_eq!(door["reason"], "Reconciled", "{door}");
    assert_eq!(
        stage.until_half("one", "Ready", "False").await["reason"],
        "MappingRefused"
    );
    stage.gateway.troubles().clear();
    scene.until_ready(&["one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_is_closed_although_the_plugin_is_down() {
    let stage = Stage::shared("faults-close").await;
    let scene = &stage.scene;
    let (a, role) = (scene.role("a"), stage.define("r", "x").await);
    stage.grant("one", &a, &[&role]).await;
    scene.until_ready(&["one"]).await;
    fail_all(&stage, &[Method::GET, Method::PATCH], &down());
    scene.delete_grant("one").await;
    scene.until_policy(&[]).await;
    // Something of it stands: it is not let go.
    assert_ne!(scene.get_grant("one").await, Value::Null);
    stage.gateway.troubles().clear();
    scene.until_gone("one").await;
    stage.until_mapped(&role, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_after_a_mapping_takes_it_back() {
    let node = shared_node().await;
    let stage = Stage::in_world(World::start().await, "faults-killed", node).await;
    let scene = &stage.scene;
    let (a, role) = (scene.role("a"), stage.define("r", "x").await);
    // The door cannot be opened, so that the mapping alone is there.
    let aws = scene.world.aws();
    aws.domain(scene.name).status(Some("Modifying"));
    stage.grant("one", &a, &[&role]).await;
    stage.until_mapped(&role, &[&a]).await;
    scene.world.kill_operator();
    scene.delete_grant("one").await;
    scene.world.start_operator();
    stage.until_mapped(&role, &[]).await;
    aws.domain(scene.name).status(None);
    scene.until_gone("one").await;
    assert!(scene.policy().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_revoked_takes_its_mappings_with_it() {
    let stage = Stage::shared("faults-revoked").await;
    let scene = &stage.scene;
    let (a, role) = (scene.role("a"), stage.define("r", "x").await);
    stage.grant("one", &a, &[&role]).await;
    scene.until_ready(&["one"]).await;
    scene
        .change_domain(&json!({"spec": {"deletionPolicy": "Revoke"}}))
        .await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    assert!(stage.mapped(&role).await.is_empty());
    assert!(scene.policy().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_peace_the_plugin_is_not_written() {
    let stage = Stage::shared("faults-peace").await;
    let scene = &stage.scene;
    let (a, role) = (scene.role("a"), stage.define("r", "x").await);
    stage.grant("one", &a, &[&role]).await;
    scene.until_ready(&["one"]).await;
    let by_operator = || {
        let passed = stage.gateway.passed();
        let all = passed.iter().filter(|it| it.is_mapping_by("admin"));
        (all.count(), passed.len())
    };
    let before = by_operator();
    let look = async || {
        let now = by_operator();
        // Some looks later; each takes four reads.
        if now.1 >= before.1 + 12 {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    };
    let now = scene
        .world
        .eventually("it is looked at", PATIENCE, look)
        .await;
    assert_eq!(now.0, before.0, "nothing is written");
}
