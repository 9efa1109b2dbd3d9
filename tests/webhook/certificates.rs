//! Certificates that come and go while pods are made.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::hook::{Hook, PATIENCE, asking, resource};

/// How many pods are made while certificates change, and how often they do.
const ADMISSIONS: usize = 10_000;
const ROTATIONS: usize = 20;

/// How many are made at a time.
const AT_A_TIME: usize = 8;

/// The line of the log that names the port.
const PORT_IS_OPEN: &str = "the webhook's port is open";

/// The name by which the API server calls.
const SERVICE: &str = "opensearch-access-webhook.opensearch-access.svc";

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
    // What each has shown, to whoever trusts what the configuration names just then.
    let ports = [hook.port_of("webhook", PORT_IS_OPEN).await, second];
    let mut served = ports.map(|_| HashSet::new());
    let (made, granted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut numbers = 0..;
    while made.load(Ordering::Relaxed) < ADMISSIONS || served.iter().any(|it| it.len() <= ROTATIONS)
    {
        for (port, served) in ports.into_iter().zip(&mut served) {
            let bundle = BASE64_STANDARD.decode(bundle(&hook).await).unwrap();
            let authorities = String::from_utf8(bundle).unwrap();
            served.insert(shown(port, &authorities).await.unwrap());
        }
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
        served[0].len(),
        served[1].len()
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
            // As a Service, which is told of the new one, and at once of the end of the old one. The API
            // server hears of it in a moment, and goes on calling the old one until then.
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
            hook.send_pods_to(second).await;
            first.signal("TERM").unwrap();
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

/// An authority, and a folder in which it puts certificates as a kubelet shows a Secret: all files change
/// at once, with a link.
struct Folder {
    home: tempfile::TempDir,
    authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Folder {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let home = tempfile::tempdir().unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), home.path().join(name)).unwrap();
        }
        Self {
            home,
            authority,
            issuer: Issuer::new(params, key),
        }
    }

    /// Issues the certificate of a number, and returns it.
    fn issue(&self, number: usize) -> CertificateDer<'static> {
        let names = ["127.0.0.1", SERVICE].map(str::to_owned);
        let params = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.home.path().join(format!("..{number}"));
        fs::create_dir(&files).unwrap();
        fs::write(files.join("tls.crt"), made.pem()).unwrap();
        fs::write(files.join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(files.join("ca.crt"), &self.authority).unwrap();
        let next = self.home.path().join("..data_tmp");
        symlink(files.file_name().unwrap(), &next).unwrap();
        fs::rename(&next, self.home.path().join("..data")).unwrap();
        made.der().clone()
    }
}

/// Returns the certificate that a webhook shows to whoever trusts an authority.
async fn shown(port: u16, authority: &str) -> Result<CertificateDer<'static>, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from(SERVICE).unwrap();
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    let shaken = shaken.map_err(|it| it.to_string())?;
    let shown = shaken.get_ref().1.peer_certificates().unwrap();
    Ok(shown[0].clone().into_owned())
}

/// Names an authority in the configuration of pods, as cert-manager's injector does.
async fn name_authority(hook: &Hook, authority: &str) {
    let kind = resource("MutatingWebhookConfiguration");
    let configurations = Api::<DynamicObject>::all_with(hook.client(), &kind);
    let bundle = BASE64_STANDARD.encode(authority);
    let change =
        json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]);
    let change = Patch::<()>::Json(serde_json::from_value(change).unwrap());
    hook.until("the configuration is there", async || {
        let parameters = PatchParams::default();
        let changed = configurations.patch("opensearch-access", &parameters, &change);
        changed.await.map_err(|it| it.to_string())
    })
    .await;
}

/// cert-manager's way: files that change, and configurations that are somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_refused_while_a_folders_certificate_changes() {
    let folder = Folder::new();
    let first = folder.issue(0);
    let hook = Hook::without_webhook().await;
    let path = folder.home.path().to_str().unwrap();
    let options = ["--webhook-certificate-folder", path].map(str::to_owned);
    let port = hook.start_webhook("filed", &options).await;
    tokio::join!(hook.install(port), name_authority(&hook, &folder.authority));
    assert_eq!(shown(port, &folder.authority).await, Ok(first));
    hook.namespace("filed").await;
    let mut numbers = 0..;
    for number in 1..=3 {
        let issued = folder.issue(number);
        while shown(port, &folder.authority).await.unwrap() != issued {
            assert!(
                numbers.start < 100_000,
                "certificate {number} is never served"
            );
            stream::iter(numbers.by_ref().take(50))
                .for_each_concurrent(AT_A_TIME, |number: usize| {
                    let hook = &hook;
                    async move {
                        let pod = asking(&format!("pod-{number}"), "logs");
                        let admitted = hook.dry_run("filed", &pod).await.unwrap();
                        let first = &admitted["spec"]["initContainers"][0];
                        assert_eq!(first["name"], "opensearch-access-proxy");
                    }
                })
                .await;
        }
    }
    // Nothing is made beside them, and the authority stays whose it is.
    assert_eq!(hook.kept().await, Value::Null);
    assert_eq!(
        bundle(&hook).await,
        BASE64_STANDARD.encode(&folder.authority)
    );
}
