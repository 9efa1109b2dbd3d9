//! An API server that is out of reach: nothing is written, nothing hangs, and all goes on after.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{linked, until_settled};
use crate::common::operator::PATIENCE;
use crate::common::operator::replica::Replica;
use crate::common::process::send;

/// How soon after an outage everything is as it should be.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_operator_in_a_black_hole_writes_nothing_and_comes_back() {
    let (scene, link) = linked("hole").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("stays", &a).await;
    let options = ["--no-leader-election", "--log", "debug"];
    let operator = Replica::start_with(&scene.world, "hole", &options).await;
    scene.until_ready(&["stays"]).await;
    until_settled(&scene).await;
    operator.until_readyz(200).await;

    link.freeze();
    let written = operator.writes().len();
    // What it would put right, and do, if it could see.
    scene.others_write(&[]);
    scene.grant_to("new", &b).await;
    let look = async || match operator.get("/readyz").await {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let what = "an operator without an API server is not ready";
    let long = Duration::from_secs(90);
    scene.world.eventually(what, long, look).await;
    assert_eq!(operator.get("/healthz").await.unwrap().0, 200, "it lives");
    assert_eq!(operator.writes().len(), written);

    link.thaw();
    let back = Instant::now();
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
    scene.until_ready(&["stays", "new"]).await;
    operator.until_readyz(200).await;

    // A server that is gone, which is found out at once.
    until_settled(&scene).await;
    link.refuse();
    let written = operator.writes().len();
    scene.others_write(&[]);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(operator.writes().len(), written);
    link.accept();
    let back = Instant::now();
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
    operator.stop().await;
}

#[tokio::test]
async fn an_api_server_that_was_killed_is_watched_anew() {
    let (scene, _link) = linked("killed-server").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("goes", &a).await;
    scene.grant_to("stays", &b).await;
    let options = ["--no-leader-election", "--log", "debug"];
    let operator = Replica::start_with(&scene.world, "killed", &options).await;
    scene.until_ready(&["goes", "stays"]).await;
    until_settled(&scene).await;
    let written = scene.updates();

    let cluster = scene.world.cluster();
    let [_, apiserver] = cluster.process_ids();
    send(apiserver, "KILL").unwrap();
    // A server that has just begun has read no roles yet.
    scene.world.let_it_be_refused();
    // The next one knows nothing of what its predecessor's watches have seen.
    let next = cluster.start_second(None, Some(cluster.port())).await;
    let look = async || match scene.get_grant("stays").await {
        grant if grant.is_null() => Err("no grant".to_owned()),
        grant => Ok(grant),
    };
    let what = "the API server is back";
    scene.world.eventually(what, PATIENCE, look).await;
    assert_eq!(scene.updates(), written, "a relist is no loss");
    scene
        .change_grant("goes", &json!({"metadata": {"labels": {"seen": "again"}}}))
        .await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    assert_eq!(scene.updates(), written + 1);
    operator.stop().await;
    drop(scene);
    drop(next);
}
