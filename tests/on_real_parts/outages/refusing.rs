//! An API server that refuses every call of the operator, and says when to come back.

use std::time::{Duration, Instant};

use axum::http::Request;
use serde_json::json;

use super::{own, until_settled};
use crate::common::operator::PATIENCE;
use crate::common::operator::replica::Replica;

/// The server's own fairness, with no room for the operator: 429, `Retry-After: 1`.
const STORM: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: storm}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: storm}
spec:
  priorityLevelConfiguration: {name: storm}
  matchingPrecedence: 2
  rules:
    - subjects: [{kind: User, user: {name: operator}}]
      resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*']}]
      nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]
";

#[tokio::test]
async fn a_storm_of_refusals_is_sat_out() {
    let scene = own("storm", &json!({})).await;
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    let options = ["--no-leader-election", "--log", "debug"];
    let operator = Replica::start_with(&scene.world, "storm", &options).await;
    scene.until_ready(&["grant"]).await;
    until_settled(&scene).await;
    let cluster = scene.world.cluster();
    let applied = cluster.kubectl_apply(STORM).await;
    assert!(applied.status.success(), "{applied:?}");
    let client = cluster.client();
    let refusals = async || {
        let request = Request::get("/metrics").body(Vec::new()).unwrap();
        let text = client.request_text(request).await.unwrap();
        let of_storm = text.lines().filter(|line| {
            line.starts_with("apiserver_flowcontrol_rejected_requests_total")
                && line.contains("flow_schema=\"storm\"")
        });
        of_storm
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    let look = async || match refusals().await {
        count if count > 0.0 => Ok(count),
        count => Err(format!("{count} refusals")),
    };
    let what = "calls are refused";
    scene.world.eventually(what, PATIENCE, look).await;
    // What was under way when the server began to refuse has ended.
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.others_write(&[]);
    let before = refusals().await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let rate = (refusals().await - before) / began.elapsed().as_secs_f64();
    // Three watches and a domain, each once a second at most.
    assert!(rate < 5.0, "{rate} calls a second");
    assert_eq!(operator.get("/healthz").await.unwrap().0, 200);

    let gone = cluster
        .kubectl(["delete", "flowschema,prioritylevelconfiguration", "storm"])
        .await;
    assert!(gone.status.success(), "{gone:?}");
    let back = Instant::now();
    scene.until_policy(&[scene.allows(&[&a])]).await;
    assert!(
        back.elapsed() < Duration::from_secs(30),
        "{:?}",
        back.elapsed()
    );
    operator.stop().await;
}
