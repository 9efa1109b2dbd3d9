//! Of two operators one leads, and it writes nothing once it may lead no more.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{holder, own, until_a_write_is_under_way};
use crate::common::fake_aws::{Fault, Times};
use crate::common::operator::replica::{LEASE, Replica};
use crate::common::operator::{ACCOUNT, OPERATOR_NAMESPACE, PATIENCE};
use crate::common::process::send;

#[tokio::test]
async fn a_leader_that_was_frozen_past_its_lease_writes_nothing_more() {
    let scene = own("frozen").await;
    let mut first = Replica::start(&scene.world, "first").await;
    first.until_leads().await;
    let second = Replica::start(&scene.world, "second").await;
    second.until_readyz(200).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("stays", &a).await;
    scene.until_ready(&["stays"]).await;
    assert_eq!(first.writes().len(), 1);
    assert_eq!(second.calls().len(), 0, "it only stands by");
    second.until_metrics(&[("leader", 0.0)]).await;

    // Frozen right between what it keeps on record and its writes, with the answer to come.
    let slow = Fault::Delay(Duration::from_secs(3));
    let faults = scene.world.aws().faults();
    faults.inject("GetRolePolicy", slow, Times::Exactly(1));
    let principals = json!([{"iamRole": {"arn": b}}]);
    scene
        .grant(
            "goes",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    until_a_write_is_under_way(&scene).await;
    first.signal("STOP");
    let before = first.writes().len();
    assert_eq!(before, 1, "nothing of the new grant was written");
    assert!(holder(&scene).await.starts_with("first_"));

    second.until_leads().await;
    assert!(holder(&scene).await.starts_with("second_"));
    scene.until_ready(&["stays", "goes"]).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&a])]).await;

    first.signal("CONT");
    let status = first.ended().await;
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(first.writes().len(), before);
    scene.until_policy(&[scene.allows(&[&a])]).await;
    let attached = scene.world.aws().role_policies(ACCOUNT, "frozen-b");
    assert_eq!(attached.len(), 0);
    assert!(holder(&scene).await.starts_with("second_"));
    let log = scene.world.log();
    assert!(log.contains("was not renewed in time") || log.contains("took the lease"));
    second.stop().await;
}

#[tokio::test]
async fn a_revocation_outlives_the_leader() {
    let scene = own("outlived").await;
    let first = Replica::start(&scene.world, "first").await;
    first.until_leads().await;
    let second = Replica::start(&scene.world, "second").await;
    second.until_readyz(200).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("goes", &a).await;
    scene.grant_to("stays", &b).await;
    scene.until_ready(&["goes", "stays"]).await;

    first.kill();
    let killed = Instant::now();
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    let took = killed.elapsed();
    assert!(took > LEASE / 2, "{took:?}");
    scene.until_ready(&["stays"]).await;
    assert_eq!(second.writes().len(), 1);
    second
        .until_metrics(&[("leader", 1.0), ("grants{state=\"applied\"}", 1.0)])
        .await;
    second.stop().await;
}

#[tokio::test]
async fn a_lease_that_somebody_touches_is_kept_and_one_that_is_taken_is_lost() {
    let scene = own("taken").await;
    let mut operator = Replica::start(&scene.world, "taken").await;
    operator.until_leads().await;
    let change = async |to| {
        let namespace = Some(OPERATOR_NAMESPACE);
        let name = "opensearch-access";
        scene.world.change("Lease", namespace, name, &to).await;
    };
    change(json!({"metadata": {"annotations": {"looked-at": "by a person"}}})).await;
    tokio::time::sleep(LEASE).await;
    assert!(holder(&scene).await.starts_with("taken_"));
    scene.grant_to("one", &scene.role("a")).await;
    scene.until_ready(&["one"]).await;

    change(json!({"spec": {"holderIdentity": "somebody"}})).await;
    let status = operator.ended().await;
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(scene.world.log().contains("somebody took the lease"));
    assert_eq!(holder(&scene).await, "somebody");
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_api_server_ends() {
    let scene = own("cut-off").await;
    let mut operator = Replica::start(&scene.world, "cut-off").await;
    operator.until_leads().await;
    scene.grant_to("one", &scene.role("a")).await;
    scene.until_ready(&["one"]).await;
    let before = operator.writes().len();
    let [_, apiserver] = scene.world.cluster().process_ids();
    send(apiserver, "STOP").unwrap();
    // What it would put right if it still could.
    scene.others_write(&[]);
    let status = operator.ended().await;
    send(apiserver, "CONT").unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(operator.writes().len(), before);

    let next = Replica::start(&scene.world, "next").await;
    scene
        .until_policy(&[scene.allows(&[&scene.arn("a")])])
        .await;
    next.stop().await;
}

#[tokio::test]
async fn an_operator_that_cannot_know_who_leads_is_not_ready() {
    let scene = own("homeless").await;
    scene.world.let_it_be_refused();
    let options = ["--namespace", "nowhere"];
    let operator = Replica::start_with(&scene.world, "homeless", &options).await;
    let told = async || {
        let log = scene.world.log();
        // A busy API server may not answer its first question in time.
        let tells = |line: &&str| line.contains("standing by:") && line.contains("\"nowhere\"");
        let line = log.lines().find(tells);
        line.map(str::to_owned).ok_or(log)
    };
    let what = "it says why it stands by";
    let line = scene.world.eventually(what, PATIENCE, told).await;
    assert!(line.contains("(HTTP 403)"), "{line}");
    assert!(!line.contains("Status {"), "{line}");
    // Its watches are there by now, and only the lease is not.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(operator.get("/readyz").await.unwrap().0, 503);
    assert_eq!(operator.get("/healthz").await.unwrap().0, 200);
    operator.stop().await;
}
