//! The optional second key beside consent: who writes a grant needs a verb on the domain (A1).

use std::path::Path;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use opensearch_access::api::access::DomainAccess;
use serde_json::json;

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{PATIENCE, World};

/// What one team may do in its namespace, but for the verb.
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: writes-grants, namespace: grant-verb}
rules: [{apiGroups: [opensearch-access.io], resources: [domainaccesses], verbs: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: writes-grants, namespace: grant-verb}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: writes-grants}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: team-a}]
";

/// The verb on one domain, as the file's comment says to give it.
const VERB: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: grant-on-grant-verb}
rules:
  - apiGroups: [opensearch-access.io]
    resources: [opensearchdomains]
    resourceNames: [grant-verb]
    verbs: [grant]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: grant-on-grant-verb, namespace: grant-verb}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grant-on-grant-verb}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: team-a}]
";

fn manifest(domain: &str, name: &str, role: &str) -> DynamicObject {
    let spec = json!({"domainRef": {"name": domain}, "access": "Admin",
        "principals": [{"iamRole": {"arn": role}}]});
    serde_json::from_value(json!({"apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "DomainAccess", "metadata": {"name": name}, "spec": spec}))
    .unwrap()
}

fn grants(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<DomainAccess>(&());
    Api::namespaced_with(client, namespace, &kind)
}

/// Returns what the API server said of a refusal.
fn refusal<T>(result: Result<T, kube::Error>) -> Result<String, String> {
    match result {
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(status.message.clone()),
        Err(error) => panic!("{error}"),
        Ok(_) => Err("it was taken".to_owned()),
    }
}

#[tokio::test]
async fn who_writes_a_grant_needs_the_verb_where_the_admin_asks_for_it() {
    let scene = Scene::in_world(World::start().await, "grant-verb", DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let cluster = scene.world.cluster();
    let applied = cluster.kubectl_apply(RIGHTS).await;
    assert!(applied.status.success(), "{applied:?}");
    let alice = grants(cluster.client_for("alice"), scene.name);
    let create = PostParams::default();
    let early = manifest(scene.name, "early", &a);
    alice.create(&create, &early).await.unwrap();
    scene.until_ready(&["early"]).await;

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/options/grant-verb.yaml");
    let applied = cluster
        .kubectl(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
        .await;
    assert!(applied.status.success(), "{applied:?}");
    let dry = PostParams {
        dry_run: true,
        ..create.clone()
    };
    let late = manifest(scene.name, "late", &b);
    let look = async || refusal(alice.create(&dry, &late).await);
    let message = scene
        .world
        .eventually("it is refused", PATIENCE, look)
        .await;
    for words in ["alice", "OpenSearchDomain grant-verb", "verb grant"] {
        assert!(message.contains(words), "{message}");
    }
    let other = Patch::Merge(json!({"spec": {"principals": [{"iamRole": {"arn": b}}]}}));
    let patch = PatchParams::default();
    refusal(alice.patch("early", &patch, &other).await).unwrap();

    // Neither what asks for nothing, nor the operator, nor revoking needs it.
    let labels = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
    alice.patch("early", &patch, &labels).await.unwrap();
    alice
        .delete("early", &DeleteParams::default())
        .await
        .unwrap();
    scene.until_gone("early").await;
    scene.until_policy(&[]).await;

    let applied = cluster.kubectl_apply(VERB).await;
    assert!(applied.status.success(), "{applied:?}");
    let look = async || match alice.create(&create, &late).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Err(status.message),
        Err(error) => panic!("{error}"),
    };
    scene.world.eventually("it is taken", PATIENCE, look).await;
    scene.until_ready(&["late"]).await;
    scene.until_policy(&[scene.allows(&[&b])]).await;

    // The verb on one domain is none on another.
    let other = manifest("another", "other", &b);
    let message = refusal(alice.create(&create, &other).await).unwrap();
    assert!(message.contains("OpenSearchDomain another"), "{message}");
}
