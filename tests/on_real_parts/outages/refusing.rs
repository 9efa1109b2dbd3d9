//! An API server that refuses every call of the operator, and says when to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;

use super::{own, until_settled};
use crate::common::cluster::proxy::{ApiProxy, Mishap};
use crate::common::operator::PATIENCE;
use crate::common::operator::replica::Replica;
use crate::common::tripwire::Tripwires;

#[tokio::test]
async fn a_storm_of_refusals_is_sat_out() {
    let scene = own("storm", &json!({})).await;
    let cluster = scene.world.cluster();
    let proxy = ApiProxy::start(cluster, "operator", &Tripwires::default())
        .await
        .unwrap();
    let kubeconfig = proxy.kubeconfig_of(cluster, "operator").unwrap();
    scene.world.reach_by(kubeconfig);
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    let options = ["--no-leader-election", "--log", "debug"];
    let operator = Replica::start_with(&scene.world, "storm", &options).await;
    scene.until_ready(&["grant"]).await;
    until_settled(&scene).await;

    let refused = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&refused);
    let count = move |_: &_| {
        counter.fetch_add(1, Ordering::Relaxed);
        true
    };
    let busy = Mishap::Refuse(StatusCode::TOO_MANY_REQUESTS, Some(1));
    proxy.inject(count, busy, None);
    proxy.break_connections();
    let look = async || match refused.load(Ordering::Relaxed) {
        0 => Err("nothing is refused".to_owned()),
        count => Ok(count),
    };
    let what = "calls are refused";
    scene.world.eventually(what, PATIENCE, look).await;
    scene.others_write(&[]);
    let updates = scene.updates();
    let (before, began) = (refused.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let count = f64::from(refused.load(Ordering::Relaxed) - before);
    let rate = count / began.elapsed().as_secs_f64();
    // Seven watches and a domain, each once a second at most.
    assert!(count > 0.0 && rate < 9.0, "{rate} calls a second");
    assert_eq!(scene.updates(), updates, "no write without the API server");
    assert_eq!(operator.get("/healthz").await.unwrap().0, 200);

    proxy.clear();
    scene.until_policy(&[scene.allows(&[&a])]).await;
    operator.stop().await;
}
