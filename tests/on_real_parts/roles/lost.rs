//! Definitions that cannot be read, go with their kind, wait for the plugin, or lose their record.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams};

use super::*;
use crate::common::operator::OPERATOR_NAMESPACE;

/// Sets up a stage in a world of its own.
async fn own(world: World, name: &'static str) -> Stage {
    let node = shared_node().await;
    Stage::in_world(world, name, node).await
}

/// Has the API server take any way of adoption, as a later version may have more.
async fn loosen(stage: &Stage) {
    let client = stage.scene.world.cluster().client();
    let definitions = Api::<CustomResourceDefinition>::all(client);
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/adoption/enum";
    let removal = serde_json::from_value(json!([{"op": "remove", "path": path}])).unwrap();
    let (name, change) = (
        "domainroles.opensearch-access.io",
        Patch::<()>::Json(removal),
    );
    let parameters = PatchParams::default();
    definitions.patch(name, &parameters, &change).await.unwrap();
    let mut spec = defined::reader("x-*");
    spec["adoption"] = json!("Sometimes");
    // Until the API server heeds it.
    let look = async || {
        let tried = stage.try_define("DomainRole", "never", &spec).await;
        tried.map_err(|error| error.to_string())
    };
    let what = "the definition is loosened";
    stage.scene.world.eventually(what, PATIENCE, look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_stays_until_it_is_deleted() {
    let stage = own(World::start().await, "lost-unreadable").await;
    stage
        .defines("DomainRole", "strange", &defined::reader("x-*"))
        .await;
    stage
        .until_told("DomainRole", "strange", "True", "Reconciled")
        .await;
    loosen(&stage).await;
    let sometimes = json!({"adoption": "Sometimes"});
    stage.change("DomainRole", "strange", &sometimes).await;
    for name in ["strange", "never"] {
        let told = stage
            .until_told("DomainRole", name, "False", "InvalidSpec")
            .await;
        assert!(
            told.contains("cannot read") && told.contains("Sometimes"),
            "{told}"
        );
    }
    let strange = "lost-unreadable.strange";
    assert_ne!(stage.has("roles", strange).await, Value::Null);
    for name in ["strange", "never"] {
        stage.undefine("DomainRole", name).await;
        stage.until_undefined("DomainRole", name).await;
    }
    assert_eq!(stage.has("roles", strange).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_its_kind_is_held_until_an_admin_says_so() {
    let stage = own(World::start().await, "lost-kind").await;
    let scene = &stage.scene;
    for (kind, spec) in [
        ("DomainRole", defined::reader("x-*")),
        ("DomainTenant", json!({})),
    ] {
        stage.defines(kind, "one", &spec).await;
        stage.until_told(kind, "one", "True", "Reconciled").await;
    }
    let cluster = scene.world.cluster();
    let kind = "crd/domainroles.opensearch-access.io";
    let deleted = cluster.kubectl(["delete", kind, "--wait=false"]).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let message = scene.until_domain_says("False", "MassRevocationHeld").await;
    for word in ["domainroles", "1 objects", "acknowledge-revocation=1"] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    // Everything else goes on.
    stage.undefine("DomainTenant", "one").await;
    stage.until_undefined("DomainTenant", "one").await;
    assert_eq!(stage.has("tenants", "lost-kind.one").await, Value::Null);
    // By now it has looked again by itself.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_ne!(stage.has("roles", "lost-kind.one").await, Value::Null);
    scene.until_domain_says("False", "MassRevocationHeld").await;

    let acknowledge = json!({"opensearch-access.io/acknowledge-revocation": "1"});
    let metadata = json!({"metadata": {"annotations": acknowledge}});
    scene.change_domain(&metadata).await;
    let look = async || match stage.has("roles", "lost-kind.one").await {
        Value::Null => Ok(()),
        there => Err(there.to_string()),
    };
    scene
        .world
        .eventually("the role is removed", PATIENCE, look)
        .await;
    let look = async || {
        let found = cluster.kubectl(["get", kind]).await;
        (!found.status.success())
            .then_some(())
            .ok_or("it is there".to_owned())
    };
    scene
        .world
        .eventually("the kind is gone", PATIENCE, look)
        .await;
    // Its watch finds nothing to watch any more; everybody else is let in and out as before, also by
    // an operator that never knew it.
    scene.world.let_it_be_refused();
    let arn = scene.role("a");
    scene.grant_to("grant", &arn).await;
    scene.until_ready(&["grant"]).await;
    scene.world.stop_operator().await;
    scene.world.start_operator();
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.until_policy(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_plugin_does_not_remove_in_time_is_let_go_and_removed_later() {
    let stage = own(World::without_operator().await, "lost-time").await;
    let scene = &stage.scene;
    let revoke = json!({"spec": {"deletionPolicy": "Revoke"}});
    scene.change_domain(&revoke).await;
    scene.world.start_impatient_operator();
    for name in ["late", "last"] {
        stage
            .defines("DomainRole", name, &defined::reader("x-*"))
            .await;
        stage
            .until_told("DomainRole", name, "True", "Reconciled")
            .await;
    }
    let down = Trouble::Answer(StatusCode::SERVICE_UNAVAILABLE, json!({}));
    let fail = || {
        for method in [Method::GET, Method::DELETE] {
            stage.gateway.troubles().next(100_000, method, API, &down);
        }
    };
    fail();
    stage.undefine("DomainRole", "late").await;
    stage.until_undefined("DomainRole", "late").await;
    assert!(
        scene
            .world
            .log()
            .contains("let go before what it defines was removed")
    );
    stage.gateway.troubles().clear();
    let gone = async |name: &str| {
        let look = async || match stage.has("roles", name).await {
            Value::Null => Ok(()),
            there => Err(there.to_string()),
        };
        let what = format!("{name} is removed");
        scene.world.eventually(&what, PATIENCE, look).await;
    };
    gone("lost-time.late").await;

    // A domain's own object waits for as long as it takes: nobody would remove anything after it.
    fail();
    scene.delete_domain().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_ne!(scene.domain().await, Value::Null);
    stage.gateway.troubles().clear();
    scene.until_domain_is_gone().await;
    gone("lost-time.last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_record_a_deleted_definition_is_removed_all_the_same() {
    let stage = own(World::start().await, "lost-record").await;
    let world = &stage.scene.world;
    for (name, policy) in [("goes", "Delete"), ("stays", "Retain")] {
        let mut spec = defined::reader("x-*");
        spec["deletionPolicy"] = json!(policy);
        stage.defines("DomainRole", name, &spec).await;
        stage
            .until_told("DomainRole", name, "True", "Reconciled")
            .await;
    }
    world.stop_operator().await;
    let records = world.api("ConfigMap", Some(OPERATOR_NAMESPACE));
    for record in ["domain-state.lost-record", "domain-definitions.lost-record"] {
        let parameters = DeleteParams::default();
        records.delete(record, &parameters).await.unwrap();
    }
    for name in ["goes", "stays"] {
        stage.undefine("DomainRole", name).await;
    }
    world.start_operator();
    for name in ["goes", "stays"] {
        stage.until_undefined("DomainRole", name).await;
    }
    assert_eq!(stage.has("roles", "lost-record.goes").await, Value::Null);
    assert_ne!(stage.has("roles", "lost-record.stays").await, Value::Null);
}
