//! The proxy in front of the API server passes on what it should, and breaks what it is told to.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::pin::pin;
use std::time::Duration;

use axum::http::StatusCode;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use crate::common::cluster::Cluster;
use crate::common::cluster::proxy::{ApiCall, ApiProxy, Mishap};
use crate::common::tripwire::{Then, Tripwires};

async fn maps(cluster: &Cluster, proxy: &ApiProxy, namespace: &str) -> Api<ConfigMap> {
    let file = proxy.kubeconfig_of(cluster, "admin").unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(&file).unwrap(), &options);
    let mut config = config.await.unwrap();
    config.default_retry = false;
    Api::namespaced(Client::try_from(config).unwrap(), namespace)
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn calls_and_watches_pass_unless_something_goes_wrong_with_them() {
    let cluster = Cluster::shared().await;
    let proxy = ApiProxy::start(cluster, "test", &Tripwires::default())
        .await
        .unwrap();
    let maps = maps(cluster, &proxy, "default").await;
    let mut watch = pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    let made = PostParams::default();
    maps.create(&made, &map("through-a-proxy")).await.unwrap();
    let seen = async {
        while let Some(event) = watch.next().await {
            if let Ok(WatchEvent::Added(map)) = event
                && map.metadata.name.as_deref() == Some("through-a-proxy")
            {
                return true;
            }
        }
        false
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
    assert!(seen.unwrap(), "the watch has ended");

    let busy = Mishap::Refuse(StatusCode::TOO_MANY_REQUESTS, Some(1));
    proxy.inject(|call| !call.is_write(), busy, Some(1));
    let lists = ListParams::default();
    match maps.list(&lists).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 429, "{status:?}"),
        other => panic!("not refused: {other:?}"),
    }
    maps.list(&lists).await.unwrap();

    proxy.inject(ApiCall::is_write, Mishap::CutBefore, Some(1));
    maps.create(&made, &map("cut-before")).await.unwrap_err();
    assert!(maps.get_opt("cut-before").await.unwrap().is_none());
    proxy.inject(ApiCall::is_write, Mishap::CutAfter, Some(1));
    maps.create(&made, &map("cut-after")).await.unwrap_err();
    assert!(maps.get_opt("cut-after").await.unwrap().is_some());

    proxy.inject(|_| true, Mishap::Hang, None);
    let hung = tokio::time::timeout(Duration::from_secs(1), maps.list(&lists)).await;
    assert!(hung.is_err(), "{hung:?}");
    proxy.clear();
    proxy.break_connections();
    maps.list(&lists).await.unwrap();
}

#[tokio::test]
async fn a_client_achieves_nothing_after_the_write_that_trips_its_wire() {
    let cluster = Cluster::shared().await;
    let wires = Tripwires::default();
    let first = ApiProxy::start(cluster, "first", &wires).await.unwrap();
    let second = ApiProxy::start(cluster, "second", &wires).await.unwrap();
    let (one, other) = (
        maps(cluster, &first, "default").await,
        maps(cluster, &second, "default").await,
    );
    wires.lay("wired", Some(2), Then::Unanswered);
    let made = PostParams::default();
    one.create(&made, &map("domain-state.wired")).await.unwrap();
    assert!(!wires.tripped("wired"));
    let soon = Duration::from_secs(1);
    let next = map("domain-state.wired");
    let written = one.replace("domain-state.wired", &made, &next);
    tokio::time::timeout(soon, written).await.unwrap_err();
    assert!(wires.tripped("wired"));
    let read = tokio::time::timeout(soon, one.get("domain-state.wired"));
    read.await.unwrap_err();
    // Whoever comes after it is free, and finds what was written.
    other.get("domain-state.wired").await.unwrap();
    one.get_opt("domain-state.other").await.unwrap();
    assert_eq!(
        wires.writes("wired"),
        ["POST configmaps record", "PUT configmaps record"]
    );
    wires.lay("wired", Some(1), Then::Lost);
    let parameters = DeleteParams::default();
    let gone = other.delete("domain-state.wired", &parameters);
    gone.await.unwrap_err();
    assert!(other.get_opt("domain-state.wired").await.unwrap().is_none());
}
