//! Grants whose domain has gone while the API server refuses what is written about them.

use axum::http::StatusCode;
use serde_json::json;

use super::{own, until_settled};
use crate::common::cluster::proxy::{ApiCall, ApiProxy, Mishap};
use crate::common::operator::replica::Replica;
use crate::common::tripwire::Tripwires;

/// How often a write is refused: more than its client itself tries again.
const REFUSALS: u32 = 3;

#[tokio::test]
async fn what_is_refused_for_a_grant_without_a_domain_is_tried_again() {
    let scene = own("orphaned", &json!({})).await;
    let cluster = scene.world.cluster();
    let proxy = ApiProxy::start(cluster, "operator", &Tripwires::default())
        .await
        .unwrap();
    let kubeconfig = proxy.kubeconfig_of(cluster, "operator").unwrap();
    scene.world.reach_by(kubeconfig);
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    let operator = Replica::start_with(&scene.world, "orphaned", &["--no-leader-election"]).await;
    scene.until_ready(&["grant"]).await;
    until_settled(&scene).await;

    // Nothing but the write itself brings the grant up: it is alone, and does not change.
    let meant = |call: &ApiCall| call.is_write() && call.name_of("domainaccesses") == Some("grant");
    let refusal = Mishap::Refuse(StatusCode::FORBIDDEN, None);
    proxy.inject(meant, refusal, Some(REFUSALS));
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    let hint = ["spec.domainRef.name"];
    scene.until_refused("grant", "DomainNotFound", &hint).await;
    let counted = "grants_refused{reason=\"DomainNotFound\"}";
    operator.until_metrics(&[(counted, 1.0)]).await;

    proxy.inject(meant, refusal, Some(REFUSALS));
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    operator.until_metrics(&[(counted, 0.0)]).await;
    operator.stop().await;
}
