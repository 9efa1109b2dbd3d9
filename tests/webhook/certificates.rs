//! Certificates that come and go while pods are made.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject, PatchParams};
use serde_json::{Value, json};

use crate::hook::{Hook, PATIENCE, asking, resource};

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

/// Two replicas, of which either may take a step: one reviews the pods, the other grants, all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_refused_while_certificates_change() {
    let renewal = ["--webhook-certificate-renewal", "3s"];
    let hook = Hook::start(&renewal).await;
    let renewal: Vec<String> = renewal.iter().map(|it| (*it).to_owned()).collect();
    let second = hook.start_webhook("second", &renewal).await;
    hook.send_grants_to(second).await;
    hook.namespace("team").await;
    let served = |name: &str| hook.log(name).matches("a certificate is served").count() - 1;
    let (made, granted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut numbers = 0..;
    while made.load(Ordering::Relaxed) < ADMISSIONS
        || served("webhook").min(served("second")) < ROTATIONS
    {
        let some = numbers.by_ref().take(200);
        stream::iter(some)
            .for_each_concurrent(AT_A_TIME, |number: usize| {
                let (hook, made, granted) = (&hook, &made, &granted);
                async move {
                    if number.is_multiple_of(20) {
                        let grant = grant(&format!("grant-{number}"));
                        hook.dry_run("team", &grant).await.unwrap();
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                    let pod = asking(&format!("pod-{number}"), "logs");
                    let admitted = hook.dry_run("team", &pod).await.unwrap();
                    let first = &admitted["spec"]["initContainers"][0];
                    assert_eq!(first["name"], "opensearch-access-proxy");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
    }
    println!(
        "{} pods, {} grants, {} and {} certificates",
        made.load(Ordering::Relaxed),
        granted.load(Ordering::Relaxed),
        served("webhook"),
        served("second")
    );
}

fn grant(name: &str) -> Value {
    json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccess",
        "metadata": {"name": name},
        "spec": {"domainRef": {"name": "logs"}, "access": "Read", "paths": ["team-*"],
            "principals": [{"serviceAccount": {"name": "api"}}]}})
}

/// A replica that is asked to stop answers whoever still calls, and sends them to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_refused_while_a_replica_stops() {
    let hook = Hook::start(&[]).await;
    hook.namespace("stopped").await;
    for round in 0..3 {
        let mut first = hook.take_webhook();
        let second = hook.start_webhook(&format!("next-{round}"), &[]).await;
        let made = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        let load = stream::iter(0..).take_while(|_| {
            let is_over = is_over.load(Ordering::Relaxed);
            async move { !is_over }
        });
        let load = load.for_each_concurrent(AT_A_TIME, |number: usize| {
            let (hook, made) = (&hook, &made);
            async move {
                let pod = asking(&format!("pod-{round}-{number}"), "logs");
                hook.dry_run("stopped", &pod).await.unwrap();
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
        let change = async {
            // As a Service: it is told of the new one, and of the end of the old one, and the load goes on.
            hook.until("the next one serves", async || {
                let log = hook.log(&format!("next-{round}"));
                let serves = ["a certificate is served", "the webhook is running"];
                if serves.iter().all(|it| log.contains(it)) {
                    Ok(())
                } else {
                    Err(log)
                }
            })
            .await;
            first.signal("TERM").unwrap();
            hook.install(second).await;
            first.wait(PATIENCE).await.unwrap();
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(load, change);
        assert!(made.load(Ordering::Relaxed) > 100);
    }
}

/// Whoever overwrites a configuration, as an apply of the manifests does, takes nothing away for long.
#[tokio::test]
async fn a_configuration_without_authority_gets_it_again() {
    let hook = Hook::start(&["--webhook-certificate-renewal", "1h"]).await;
    let before = bundle(&hook).await;
    assert!(!before.is_empty());
    let kind = resource("MutatingWebhookConfiguration");
    let api = Api::<DynamicObject>::all_with(hook.client(), &kind);
    let remove = serde_json::from_value(json!([
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
    let kept = hook.kept().await;
    let keys: Vec<&String> = kept.as_object().unwrap().keys().collect();
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
    assert_eq!(hook.kept().await, Value::Null);
}
