//! Grants that this version of the operator cannot read, as after its downgrade.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{own, until_settled};
use crate::common::operator::PATIENCE;
use crate::common::operator::scene::Scene;

/// Has the API server take any level of access, as a later version may have more.
async fn loosen(scene: &Scene) {
    let client = scene.world.cluster().client();
    let definitions = Api::<CustomResourceDefinition>::all(client);
    let name = "domainaccesses.opensearch-access.io";
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/access/enum";
    let removal = serde_json::from_value(json!([{"op": "remove", "path": path}])).unwrap();
    let change = Patch::<()>::Json(removal);
    let parameters = PatchParams::default();
    definitions.patch(name, &parameters, &change).await.unwrap();
    // Until the API server heeds it.
    let look = async || {
        let principals = json!([{"iamRole": {"arn": scene.arn("a")}}]);
        let spec = json!({"access": "Everything", "principals": principals});
        let tried = scene.try_grant(scene.name, "never", &spec).await;
        tried.map_err(|error| error.to_string())
    };
    let what = "the definition is loosened";
    scene.world.eventually(what, PATIENCE, look).await;
}

#[tokio::test]
async fn an_unreadable_grant_is_told_kept_and_let_go() {
    let scene = own("unreadable", &json!({})).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("strange", &a).await;
    scene.grant_to("stays", &b).await;
    scene.world.start_operator();
    scene.until_ready(&["strange", "stays"]).await;
    until_settled(&scene).await;
    let written = scene.updates();
    loosen(&scene).await;
    // One that was in force, and one that never was.
    let everything = json!({"spec": {"access": "Everything"}});
    scene.change_grant("strange", &everything).await;
    for name in ["strange", "never"] {
        let words = ["cannot read", "Everything"];
        scene.until_refused(name, "InvalidSpec", &words).await;
        // The Event follows the status.
        let look = async || {
            let told = scene.world.events(scene.name, name).await;
            let found = told.iter().any(|(reason, _)| reason == "InvalidSpec");
            found.then_some(()).ok_or(format!("{told:?}"))
        };
        let what = "an Event tells of the unreadable grant";
        scene.world.eventually(what, PATIENCE, look).await;
    }
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    assert_eq!(scene.updates(), written);

    let hold = json!({"metadata": {"finalizers": ["opensearch-access.io/revoke"]}});
    scene.change_grant("never", &hold).await;
    scene.delete_grant("never").await;
    scene.until_gone("never").await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    scene.delete_grant("strange").await;
    scene.until_gone("strange").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.until_ready(&["stays"]).await;
}
