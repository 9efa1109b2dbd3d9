//! An API server that has lost touch with etcd, and watches that have: what they show is over.

use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use super::{linked, own, until_settled};
use crate::common::cluster::link::{Link, Target};
use crate::common::operator::replica::Replica;
use crate::common::operator::{PATIENCE, meaning, rights};

#[tokio::test]
async fn an_api_server_that_lags_behind_revokes_and_grants_nothing() {
    let (scene, link) = linked("travel").await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    scene.grant_to("goes", &a).await;
    scene.grant_to("changes", &b).await;
    scene.world.start_operator();
    scene.until_ready(&["goes", "changes"]).await;
    until_settled(&scene).await;

    // The second server sees both grants, and nothing that comes later.
    let cluster = scene.world.cluster();
    let to_etcd = Link::to(cluster.etcd()).await;
    let second = cluster.start_second(Some(to_etcd.port()), None).await;
    let kind = GroupVersionKind::gvk("opensearch-access.io", "v1alpha1", "DomainAccess");
    let kind = ApiResource::from_gvk_with_plural(&kind, "domainaccesses");
    let grants = Api::<DynamicObject>::namespaced_with(second.client(), scene.name, &kind);
    // From its cache, however old that is.
    let cached = ListParams::default().match_any();
    let look = async || match grants.list(&cached).await {
        Ok(list) if list.items.len() == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let what = "the second API server has both grants";
    scene.world.eventually(what, PATIENCE, look).await;
    to_etcd.freeze();

    let principals = json!([{"iamRole": {"arn": c}}]);
    let change = json!({"spec": {"principals": principals}});
    scene.change_grant("changes", &change).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&c])]).await;
    until_settled(&scene).await;
    let written = scene.updates();
    let seen = async || grants.list(&cached).await.unwrap().items.len();
    assert_eq!(seen().await, 2, "it lags behind");

    link.turn_to(Target::Port(second.port()));
    // The operator that goes on, and one that begins with what it is shown.
    tokio::time::sleep(Duration::from_secs(15)).await;
    scene.world.kill_operator();
    scene.world.start_operator();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(seen().await, 2, "it lags behind still");
    assert_eq!(scene.updates(), written);
    scene
        .until_policy_within(Duration::ZERO, &[scene.allows(&[&c])])
        .await;

    // Back in touch, the same server will do.
    to_etcd.thaw();
    scene.grant_to("new", &a).await;
    scene.until_ready(&["new", "changes"]).await;
    scene.until_policy(&[scene.allows(&[&a, &c])]).await;
}

#[tokio::test]
async fn what_a_watch_missed_is_not_written_by() {
    let scene = own("missed", &json!({})).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("changes", &a).await;
    let operator = Replica::start(&scene.world, "missed").await;
    scene.until_ready(&["changes"]).await;
    until_settled(&scene).await;

    // It may list, and its watch is not renewed.
    scene.world.let_it_be_refused();
    let cluster = scene.world.cluster();
    let blind = rights::MANIFESTS.replace(
        "[opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]\n    verbs: [get, list, watch, patch]",
        "[opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]\n    verbs: [get, list, patch]",
    );
    assert_ne!(blind, rights::MANIFESTS);
    assert!(cluster.kubectl_apply(&blind).await.status.success());
    let look = async || {
        let log = scene.world.log();
        let words = ["cannot watch resource", "domainaccesses"];
        let told = |line: &str| words.iter().all(|word| line.contains(word));
        let found = log.lines().any(told);
        found.then_some(()).ok_or("it watches still".to_owned())
    };
    let what = "the watch of grants has ended";
    scene.world.eventually(what, PATIENCE, look).await;

    let principals = json!([{"iamRole": {"arn": b}}]);
    let change = json!({"spec": {"principals": principals}});
    scene.change_grant("changes", &change).await;
    scene.others_write(&[]);
    scene.until_policy(&[scene.allows(&[&b])]).await;
    // By then every version that had the first role is older than the one without any.
    let first = meaning::of_statements(&[scene.allows(&[&a])]);
    let history = scene.history();
    let emptied = history.iter().rposition(meaning::Meaning::is_empty);
    let after = history.iter().skip(emptied.unwrap());
    assert!(
        after.into_iter().all(|it| it.is_disjoint(&first)),
        "{history:#?}"
    );

    // Nobody calls that ready.
    let rested = Duration::from_secs(90);
    let look = async || match operator.get("/readyz").await {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let what = "an operator that sees nothing is not ready";
    scene.world.eventually(what, rested, look).await;
    let applied = cluster.kubectl_apply(rights::MANIFESTS).await;
    assert!(applied.status.success(), "{applied:?}");
    operator.until_readyz(200).await;
    scene.until_ready(&["changes"]).await;
    operator.stop().await;
}
