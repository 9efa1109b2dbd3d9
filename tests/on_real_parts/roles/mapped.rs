//! What grants ask for, and what the plugin has then.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_reads_its_index_by_manifests_alone_and_is_shut_out_with_its_grant() {
    let stage = Stage::shared("mapped-read").await;
    let scene = &stage.scene;
    // Nothing but what happens makes the operator look again.
    scene
        .change_domain(&json!({"spec": {"interval": "1h"}}))
        .await;
    for index in ["mapped-a-1", "mapped-b-1"] {
        let path = format!("/{index}/_doc/1?refresh=true");
        let (status, said) = stage.as_admin(Method::PUT, &path, &json!({"x": 1})).await;
        assert!(status < 300, "{said}");
    }
    let arn = scene.role("reader");
    let role = stage.define("reader", "mapped-a-*").await;
    stage.grant("reader", &arn, &[&role]).await;
    scene.until_ready(&["reader"]).await;
    let conditions = scene.get_grant("reader").await;
    assert_eq!(
        half_of(&conditions, "SecurityRolesApplied")["status"],
        "True"
    );
    assert_eq!(
        half_of(&conditions, "AccessPolicyApplied")["status"],
        "True"
    );
    assert_eq!(stage.mapped(&role).await, BTreeSet::from([arn]));

    let name = scene.role_name("reader");
    let keys = scene.world.aws().session(ACCOUNT, &name, "s");
    let send = async |method: Method, path: &str, body: Value| {
        ask(&stage.gateway, Some(&keys), REGION, method, path, &body).await
    };
    let search = "/mapped-a-1/_search";
    let (status, said) = send(Method::GET, search, Value::Null).await;
    assert_eq!(
        (status, &said["hits"]["total"]["value"]),
        (200, &json!(1)),
        "{said}"
    );
    let (status, said) = send(Method::PUT, "/mapped-a-1/_doc/2", json!({"x": 2})).await;
    assert_eq!(
        (status, &said["error"]["type"]),
        (403, &json!("security_exception"))
    );
    assert_eq!(
        send(Method::GET, "/mapped-b-1/_search", Value::Null)
            .await
            .0,
        403
    );

    scene.delete_grant("reader").await;
    let look = async || match send(Method::GET, search, Value::Null).await.0 {
        403 => Ok(()),
        status => Err(format!("it answers {status}")),
    };
    let what = "the role is shut out";
    scene.world.eventually(what, PATIENCE, look).await;
    scene.until_gone("reader").await;
    stage.until_mapped(&role, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_come_before_the_door_and_go_after_it() {
    let stage = Stage::shared("mapped-order").await;
    let (arn, role) = (stage.scene.role("a"), stage.define("r", "x").await);
    let mapped = || {
        let passed = stage.gateway.passed();
        let writes = passed
            .iter()
            .filter(|it| it.is_mapping_by("admin") && it.status == Some(200));
        let times: Vec<Timestamp> = writes.map(|it| it.at).collect();
        times.last().copied()
    };
    let opened = || {
        let versions = stage.scene.world.aws().versions(stage.scene.name);
        versions.last().map(|it| it.at)
    };
    stage.grant("one", &arn, &[&role]).await;
    stage.scene.until_ready(&["one"]).await;
    assert!(mapped() < opened(), "{:?} {:?}", mapped(), opened());
    stage.scene.delete_grant("one").await;
    stage.scene.until_gone("one").await;
    assert!(mapped() > opened(), "{:?} {:?}", mapped(), opened());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_stays_for_as_long_as_any_grant_asks_for_it() {
    let stage = Stage::shared("mapped-shared").await;
    let scene = &stage.scene;
    let (arn, role) = (scene.role("a"), stage.define("r", "x").await);
    scene.world.aws().account(ACCOUNT).user("mapped-shared-ann");
    let ann = format!("arn:aws:iam::{ACCOUNT}:user/mapped-shared-ann");
    let theirs = json!([{"op": "add", "path": format!("/{role}"),
        "value": {"backend_roles": ["theirs"], "hosts": ["h"]}}]);
    stage.others_map(&theirs).await;
    stage.grant("one", &arn, &[&role]).await;
    stage.grant("two", &arn, &[&role]).await;
    stage.grant("three", &ann, &[&role]).await;
    scene.until_ready(&["one", "two", "three"]).await;
    assert_eq!(stage.mapped(&role).await.len(), 3);
    scene.delete_grant("one").await;
    scene.until_gone("one").await;
    stage.until_mapped(&role, &["theirs", &arn, &ann]).await;
    scene.delete_grant("two").await;
    scene.until_gone("two").await;
    stage.until_mapped(&role, &["theirs", &ann]).await;
    scene.delete_grant("three").await;
    scene.until_gone("three").await;
    stage.until_mapped(&role, &["theirs"]).await;
    let path = format!("{API}/rolesmapping/{role}");
    let (_, left) = stage.as_admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(left[&role]["hosts"], json!(["h"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_mapped_already_stays_theirs() {
    let stage = Stage::shared("mapped-theirs").await;
    let (arn, other) = (stage.scene.role("a"), stage.scene.role("b"));
    let role = stage.define("r", "x").await;
    // There is a record before: what stands then is somebody's.
    stage.grant("first", &other, &[&role]).await;
    stage.scene.until_ready(&["first"]).await;
    let patch = json!([{"op": "add", "path": format!("/{role}/backend_roles/-"), "value": arn}]);
    stage.others_map(&patch).await;
    stage.grant("one", &arn, &[&role]).await;
    stage.scene.until_ready(&["one"]).await;
    stage.scene.delete_grant("one").await;
    stage.scene.until_gone("one").await;
    stage.scene.delete_grant("first").await;
    stage.scene.until_gone("first").await;
    stage.until_mapped(&role, &[&arn]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_grant_maps_what_it_asks_for_now() {
    let stage = Stage::shared("mapped-changed").await;
    let arn = stage.scene.role("a");
    let (one, two) = (
        stage.define("one", "x").await,
        stage.define("two", "x").await,
    );
    stage.grant("grant", &arn, &[&one]).await;
    stage.scene.until_ready(&["grant"]).await;
    let change = json!({"spec": {"securityRoles": [two]}});
    stage.scene.change_grant("grant", &change).await;
    stage.until_mapped(&two, &[&arn]).await;
    stage.until_mapped(&one, &[]).await;
    let change = json!({"spec": {"securityRoles": null}});
    stage.scene.change_grant("grant", &change).await;
    stage.until_mapped(&two, &[]).await;
    stage.scene.until_ready(&["grant"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_somebody_takes_away_is_put_back() {
    let stage = Stage::shared("mapped-drift").await;
    let (arn, role) = (stage.scene.role("a"), stage.define("r", "x").await);
    stage.grant("one", &arn, &[&role]).await;
    stage.scene.until_ready(&["one"]).await;
    let patch = json!([{"op": "replace", "path": format!("/{role}/backend_roles"), "value": []}]);
    stage.others_map(&patch).await;
    stage.until_mapped(&role, &[&arn]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_beyond_the_ceiling_and_roles_that_are_protected_are_refused() {
    let stage = Stage::shared("mapped-over").await;
    let scene = &stage.scene;
    let arn = scene.role("a");
    for (name, role, reason, told) in [
        ("other", "another.reader", "OverCeiling", "another.reader"),
        ("manager", "security_manager", "OverCeiling", "protected"),
        (
            "missing",
            "mapped-over.nobody",
            "RoleNotFound",
            "mapped-over.nobody",
        ),
    ] {
        stage.grant(name, &arn, &[role]).await;
        scene.until_refused(name, reason, &[told]).await;
    }
    assert!(scene.policy().is_empty(), "no half of it is in force");
    // Named in full, a role of the plugin's own may be mapped; and a missing one once it is there.
    stage.grant("all", &arn, &["all_access"]).await;
    scene.until_ready(&["all"]).await;
    scene.delete_grant("all").await;
    scene.until_gone("all").await;
    assert!(!stage.mapped("all_access").await.contains(&arn));
    let role = stage.define("nobody", "x").await;
    scene.until_ready(&["missing"]).await;
    stage.until_mapped(&role, &[&arn]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_without_fine_grained_access_control_has_no_roles() {
    let scene = Scene::bare("mapped-none", DomainOptions::default()).await;
    let entry = scene.consent(&json!({"securityRoles": ["mapped-none.*"]}));
    scene.add_domain(&json!({ "consent": [entry] })).await;
    let arn = scene.role("a");
    let spec =
        json!({"principals": [{"iamRole": {"arn": arn}}], "securityRoles": ["mapped-none.r"]});
    scene.grant("one", &spec).await;
    let told = &["fine-grained"];
    scene
        .until_refused("one", "NoFineGrainedAccess", told)
        .await;
    assert!(scene.policy().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_only_observed_is_not_written() {
    let stage = Stage::shared("mapped-observed").await;
    let (arn, role) = (stage.scene.role("a"), stage.define("r", "x").await);
    let observe = json!({"spec": {"fineGrainedAccess": {"mode": "Observe"}}});
    stage.scene.change_domain(&observe).await;
    stage.grant("one", &arn, &[&role]).await;
    let half = stage
        .until_half("one", "SecurityRolesApplied", "False")
        .await;
    assert_eq!(half["reason"], "Observed");
    assert!(stage.mapped(&role).await.is_empty());
    let merge = json!({"spec": {"fineGrainedAccess": {"mode": "Merge"}}});
    stage.scene.change_domain(&merge).await;
    stage.scene.until_ready(&["one"]).await;
    stage.until_mapped(&role, &[&arn]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_that_is_withdrawn_takes_the_role_away() {
    let stage = Stage::shared("mapped-consent").await;
    let (arn, role) = (stage.scene.role("a"), stage.define("r", "x").await);
    stage.grant("one", &arn, &[&role]).await;
    stage.scene.until_ready(&["one"]).await;
    let entry = stage.scene.consent(&json!({"securityRoles": ["other.*"]}));
    let change = json!({"spec": {"consent": [entry]}});
    stage.scene.change_domain(&change).await;
    stage.until_mapped(&role, &[]).await;
    stage
        .scene
        .until_refused("one", "OverCeiling", &[&role])
        .await;
    stage.scene.until_policy(&[]).await;
}
