//! Certificates that come and go while pods are made.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject, PatchParams};
use serde_json::Value;

use crate::hook::{Hook, asking, resource};

/// How many pods are made while certificates change, and how often they do.
const ADMISSIONS: usize = 10_000;
const ROTATIONS: usize = 20;

/// How many are made at a time.
const AT_A_TIME: usize = 8;

async fn bundle(hook: &Hook) -> String {
    let kind = resource("MutatingWebhookConfiguration");
    let configurations = Api::<DynamicObject>::all_with(hook.client(), &kind);
    let found = configurations.get("opensearch-access").await.unwrap();
    let bundle = found.data["webhooks"][0]["clientConfig"]["caBundle"].clone();
    bundle.as_str().unwrap_or_default().to_owned()
}

/// Two replicas, of which either may take a step, and pods all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_is_refused_while_certificates_change() {
    let renewal = ["--webhook-certificate-renewal", "3s"];
    let hook = Hook::start(&renewal).await;
    let renewal: Vec<String> = renewal.iter().map(|it| (*it).to_owned()).collect();
    hook.start_webhook("second", &renewal).await;
    hook.namespace("rotated").await;
    let made = AtomicUsize::new(0);
    let mut bundles = BTreeSet::new();
    let mut numbers = 0..;
    // Until both have happened.
    while made.load(Ordering::Relaxed) < ADMISSIONS || bundles.len() < ROTATIONS {
        let some = numbers.by_ref().take(500);
        let pods = some.map(|number: usize| asking(&format!("pod-{number}"), "logs"));
        stream::iter(pods)
            .for_each_concurrent(AT_A_TIME, |pod| {
                let (hook, made) = (&hook, &made);
                async move {
                    let admitted = hook.dry_run("rotated", &pod).await.unwrap();
                    let first = &admitted["spec"]["initContainers"][0];
                    assert_eq!(first["name"], "opensearch-access-proxy");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        bundles.insert(bundle(&hook).await);
    }
    let served = |name: &str| hook.log(name).matches("a certificate is served").count();
    println!(
        "{} pods, {} bundles, {} certificates",
        made.load(Ordering::Relaxed),
        bundles.len(),
        served("webhook")
    );
    assert!(served("webhook") >= ROTATIONS / 2, "{}", served("webhook"));
}

/// Whoever overwrites a configuration, as an apply of the manifests does, takes nothing away for long.
#[tokio::test]
async fn a_configuration_without_authority_gets_it_again() {
    let hook = Hook::start(&["--webhook-certificate-renewal", "1h"]).await;
    let before = bundle(&hook).await;
    assert!(!before.is_empty());
    let kind = resource("MutatingWebhookConfiguration");
    let api = Api::<DynamicObject>::all_with(hook.client(), &kind);
    let remove = serde_json::from_value(serde_json::json!([
        {"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]));
    let remove = kube::api::Patch::<()>::Json(remove.unwrap());
    api.patch("opensearch-access", &PatchParams::default(), &remove)
        .await
        .unwrap();
    hook.until("it is there again", async || {
        let now = bundle(&hook).await;
        if now == before { Ok(()) } else { Err(now) }
    })
    .await;
}

/// A replica that starts later serves what the others do, and no key leaves the Secret.
#[tokio::test]
async fn replicas_share_what_is_kept() {
    let hook = Hook::start(&[]).await;
    hook.start_webhook("second", &[]).await;
    hook.until("the second serves", async || {
        let log = hook.log("second");
        if log.contains("a certificate is served") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    // Time for a second certificate to be made, were one made.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ends = |name: &str| {
        let log = hook.log(name);
        let lines = log
            .lines()
            .filter(|it| it.contains("a certificate is served"));
        let ends = lines.filter_map(|it| it.split("ends=").nth(1));
        ends.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ends("webhook").len(), 1);
    assert_eq!(ends("webhook"), ends("second"));
    for name in ["webhook", "second"] {
        let log = hook.log(name);
        assert!(
            !log.contains("PRIVATE KEY") && !log.contains("panicked"),
            "{log}"
        );
    }
    let secret = [
        "get",
        "secret",
        "opensearch-access-webhook-certificate",
        "-n",
        "opensearch-access",
        "-o",
        "json",
    ];
    let secret = hook.cluster.kubectl(secret).await;
    let secret: Value = serde_json::from_slice(&secret.stdout).unwrap();
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["certificates.json"]);
}

/// cert-manager's way: files that change, and configurations that are somebody else's.
#[tokio::test]
async fn a_folders_certificate_is_served_and_read_again() {
    let home = tempfile::tempdir().unwrap();
    let write = |year: i32| {
        let names = [
            "127.0.0.1",
            "opensearch-access-webhook.opensearch-access.svc",
        ];
        let mut params = rcgen::CertificateParams::new(names.map(str::to_owned)).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        std::fs::write(home.path().join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(home.path().join("tls.crt"), made.pem()).unwrap();
    };
    write(2088);
    let hook = Hook::without_webhook().await;
    let folder = home.path().to_str().unwrap();
    let options = ["--webhook-certificate-folder", folder].map(str::to_owned);
    hook.start_webhook("filed", &options).await;
    for year in [2088, 2089] {
        write(year);
        hook.until("it is served", async || {
            let log = hook.log("filed");
            let told = format!("ends={year}-12-31");
            if log.contains(&told) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
    let secret = [
        "get",
        "secret",
        "opensearch-access-webhook-certificate",
        "-n",
        "opensearch-access",
        "-o",
        "jsonpath={.data}",
    ];
    let secret = hook.cluster.kubectl(secret).await;
    assert!(secret.stdout.is_empty(), "{secret:?}");
}
