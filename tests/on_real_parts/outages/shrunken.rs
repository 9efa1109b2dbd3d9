//! A cluster that has lost objects, or the right to list them: a restored backup, a definition that
//! somebody deleted, a role that somebody cut.

use std::time::Duration;

use serde_json::json;

use super::{own, until_settled};
use crate::common::operator::replica::Replica;
use crate::common::operator::scene::Scene;
use crate::common::operator::{PATIENCE, rights};

/// Grants to as many roles, waits until all are in place, and returns the roles.
async fn granted(scene: &Scene, count: usize) -> Vec<String> {
    let mut roles = Vec::new();
    for number in 0..count {
        roles.push(scene.role(&number.to_string()));
        let name = format!("grant-{number}");
        scene.grant_to(&name, &roles[number]).await;
    }
    scene.world.start_operator();
    for number in 0..count {
        scene.until_ready(&[&format!("grant-{number}")]).await;
    }
    until_settled(scene).await;
    roles
}

/// Has etcd lose grants, as a backup that is older than they are would.
async fn lose(scene: &Scene, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let key = format!(
            "/registry/opensearch-access.io/domainaccesses/{}/grant-{number}",
            scene.name
        );
        assert_eq!(scene.world.cluster().remove_raw(&key).await, 1, "{key}");
    }
}

fn allows(scene: &Scene, roles: &[String]) -> serde_json::Value {
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    scene.allows(&roles)
}

#[tokio::test]
async fn what_a_restored_etcd_lacks_is_held_if_it_is_much() {
    let scene = own("restored", &json!({})).await;
    let roles = granted(&scene, 8).await;
    // A quarter of them is nobody's alarm.
    lose(&scene, [0, 1]).await;
    scene.until_policy(&[allows(&scene, &roles[2..])]).await;
    scene.until_domain_says("True", "Reconciled").await;
    until_settled(&scene).await;
    let written = scene.updates();
    // A third is.
    lose(&scene, [2, 3]).await;
    let message = scene.until_domain_says("False", "MassRevocationHeld").await;
    assert!(message.contains("2 of 6"), "{message}");
    assert_eq!(scene.updates(), written);
    scene
        .until_policy_within(Duration::ZERO, &[allows(&scene, &roles[2..])])
        .await;
    // A deletion by the book passes.
    scene.delete_grant("grant-4").await;
    scene.until_gone("grant-4").await;
    let mut left = roles[2..].to_vec();
    left.remove(2);
    // What nobody can be asked about stays.
    scene.until_policy(&[allows(&scene, &left)]).await;
}

#[tokio::test]
async fn grants_that_go_with_their_definition_are_held() {
    let scene = own("undefined", &json!({})).await;
    let roles = granted(&scene, 2).await;
    let written = scene.updates();
    let cluster = scene.world.cluster();
    let definition = "crd/domainaccesses.opensearch-access.io";
    let deleted = cluster
        .kubectl(["delete", definition, "--wait=false"])
        .await;
    assert!(deleted.status.success(), "{deleted:?}");
    let message = scene.until_domain_says("False", "MassRevocationHeld").await;
    for word in ["domainaccesses", "2 grants", "acknowledge-revocation=2"] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    scene
        .until_says("grant-0", "Unknown", "MassRevocationHeld")
        .await;
    // By now it has looked again by itself.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.updates(), written);
    scene
        .until_policy_within(Duration::ZERO, &[allows(&scene, &roles)])
        .await;

    let acknowledge = json!({"opensearch-access.io/acknowledge-revocation": "2"});
    let metadata = json!({"metadata": {"annotations": acknowledge}});
    scene.change_domain(&metadata).await;
    scene.until_policy(&[]).await;
    let look = async || {
        let found = cluster.kubectl(["get", definition]).await;
        if found.status.success() {
            Err("it is there".to_owned())
        } else {
            Ok(())
        }
    };
    let what = "the definition is gone";
    scene.world.eventually(what, PATIENCE, look).await;
    // Its watch finds nothing to watch any more; nothing is written for that.
    scene.world.let_it_be_refused();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.updates(), written + 1);
}

#[tokio::test]
async fn an_operator_that_may_not_list_writes_nothing() {
    let scene = own("listless", &json!({})).await;
    scene.world.let_it_be_refused();
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    let operator = Replica::start(&scene.world, "first").await;
    scene.until_ready(&["grant"]).await;
    until_settled(&scene).await;
    let cluster = scene.world.cluster();
    let cut = rights::MANIFESTS.replace(
        "[opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]\n    verbs: [get, list, watch, patch]",
        "[opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]\n    verbs: [get, patch]",
    );
    assert_ne!(cut, rights::MANIFESTS);
    assert!(cluster.kubectl_apply(&cut).await.status.success());

    // While it runs: what it remembers is not written by.
    let written = operator.writes().len();
    scene.others_write(&[]);
    let message = scene.until_domain_says("False", "Unavailable").await;
    assert!(message.contains("list the grants"), "{message}");
    assert_eq!(operator.writes().len(), written);
    operator.stop().await;

    // At its start: what it cannot list is not gone.
    scene.others_write(&[scene.allows(&[&a])]);
    let operator = Replica::start(&scene.world, "second").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(operator.get("/readyz").await.unwrap().0, 503);
    assert_eq!(operator.calls().len(), 0);
    let applied = cluster.kubectl_apply(rights::MANIFESTS).await;
    assert!(applied.status.success(), "{applied:?}");
    operator.until_readyz(200).await;
    scene.until_ready(&["grant"]).await;
    assert_eq!(operator.writes().len(), 0);
    operator.stop().await;
}
