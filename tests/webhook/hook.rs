//! The webhook between a test and a real API server.
//!
//! ```text
//! test ──► kube-apiserver ──TLS──► opensearch-access webhook ──► kube-apiserver
//!                                    as its service account, with its rights alone
//! ```
//!
//! There are no nodes: what is asserted is the pod that the API server admitted. What is applied is
//! `deploy/kustomize/base`, but for the address of the webhook, which is no Service here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::common::cluster::Cluster;
use crate::common::process::Process;

/// The operator's namespace.
pub(crate) const OWN: &str = "opensearch-access";

/// The image that sidecars get.
pub(crate) const IMAGE: &str = "registry.example/opensearch-access@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// How long anything may take that is to happen by itself; generous, for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(50);

/// A cluster in which the webhook is installed. The programs end before their cluster.
pub(crate) struct Hook {
    webhooks: Mutex<Vec<Process>>,
    pub(crate) cluster: Cluster,
    home: TempDir,
}

impl Hook {
    /// Returns the one webhook of all tests that keep to namespaces of their own.
    pub(crate) async fn shared() -> &'static Self {
        static HOOK: OnceCell<Hook> = OnceCell::const_new();
        HOOK.get_or_init(|| Self::start(&[])).await
    }

    /// Starts a cluster with a webhook, and waits until pods are reviewed.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let hook = Self::without_webhook().await;
        let options: Vec<String> = options.iter().map(|it| (*it).to_owned()).collect();
        let port = hook.start_webhook("webhook", &options).await;
        hook.install(port).await;
        hook
    }

    /// Starts a cluster in which everything is there but the webhook and its configurations.
    pub(crate) async fn without_webhook() -> Self {
        let cluster = Cluster::start().await;
        cluster.apply_crds().await.unwrap();
        let hook = Self {
            webhooks: Mutex::default(),
            cluster,
            home: tempfile::tempdir().unwrap(),
        };
        let is_of = |it: &Value, kinds: &[&str]| kinds.iter().any(|kind| it["kind"] == *kind);
        let first = ["Namespace"];
        let rest = [
            "Secret",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ];
        let all = hook.base().await;
        for kinds in [&first[..], &rest[..]] {
            let some = all.iter().filter(|it| is_of(it, kinds));
            hook.apply(some.cloned().collect()).await;
        }
        for (name, region, endpoint, settings) in [
            (
                "logs",
                "eu-west-1",
                "vpc-logs.eu-west-1.es.amazonaws.com",
                json!({}),
            ),
            (
                "search",
                "eu-west-1",
                "search-search.eu-west-1.es.amazonaws.com",
                json!({"port": 9300, "readOnly": true, "logLevel": "Warn",
                    "resources": {"limits": {"memory": "64Mi"}}}),
            ),
            (
                "far",
                "us-east-1",
                "vpc-far.us-east-1.es.amazonaws.com",
                json!({}),
            ),
            ("odd", "eu-west-1", "search.example", json!({})),
            ("new", "eu-west-1", "", json!({})),
        ] {
            hook.domain(name, region, endpoint, &settings).await;
        }
        hook
    }

    /// Returns the objects of `deploy/kustomize/base`.
    pub(crate) async fn base(&self) -> Vec<Value> {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/base");
        let made = self.cluster.kubectl(["kustomize", base]).await;
        assert!(made.status.success(), "{made:?}");
        let text = String::from_utf8(made.stdout).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    }

    /// Applies both configurations, with the webhook's port for its Service.
    pub(crate) async fn install(&self, port: u16) {
        let mut all = self.base().await;
        all.retain(|it| {
            it["kind"]
                .as_str()
                .is_some_and(|it| it.ends_with("WebhookConfiguration"))
        });
        assert_eq!(all.len(), 2);
        for object in &mut all {
            for hook in object["webhooks"].as_array_mut().unwrap() {
                let path = hook["clientConfig"]["service"]["path"].clone();
                let path = path.as_str().unwrap();
                hook["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}{path}")});
            }
        }
        self.apply(all).await;
        self.until("pods are reviewed", async || {
            let pod = asking("probe", "no-such-domain");
            let tried = self.dry_run("default", &pod).await;
            match tried {
                Err(refused) if refused.contains("no OpenSearchDomain") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Has another port review pods.
    pub(crate) async fn send_pods_to(&self, port: u16) {
        let kind = resource("MutatingWebhookConfiguration");
        let api = Api::<DynamicObject>::all_with(self.client(), &kind);
        let to = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/url",
            "value": format!("https://127.0.0.1:{port}/mutate-pods")}]);
        let to = Patch::<()>::Json(serde_json::from_value(to).unwrap());
        api.patch("opensearch-access", &PatchParams::default(), &to)
            .await
            .unwrap();
    }

    /// Has another port review our own objects, and nothing be stored without it.
    pub(crate) async fn send_grants_to(&self, port: u16) {
        let kind = resource("ValidatingWebhookConfiguration");
        let api = Api::<DynamicObject>::all_with(self.client(), &kind);
        let to = json!([
            {"op": "replace", "path": "/webhooks/0/clientConfig/url",
                "value": format!("https://127.0.0.1:{port}/validate")},
            {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
        ]);
        let to = Patch::<()>::Json(serde_json::from_value(to).unwrap());
        api.patch("opensearch-access", &PatchParams::default(), &to)
            .await
            .unwrap();
        // The API server sees it in a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn apply(&self, objects: Vec<Value>) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let applied = self.cluster.kubectl_apply(&list.to_string()).await;
        let said = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success(), "{said}");
    }

    /// Makes a domain whose endpoint is known, unless it is empty.
    async fn domain(&self, name: &str, region: &str, endpoint: &str, settings: &Value) {
        let consent = json!([{"namespaces": ["team", "resources"],
            "ceiling": {"access": "ReadWrite", "paths": ["{{namespace}}-*"],
                "principals": {"accounts": ["111122223333"], "serviceAccounts": true},
                "securityRoles": ["{{namespace}}.*"], "maxGrants": 3}}]);
        let manifest = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "OpenSearchDomain",
            "metadata": {"name": name},
            "spec": {"domainName": name, "accountId": "111122223333", "region": region,
                "fineGrainedAccess": {}, "consent": consent, "signingProxy": settings}});
        self.create(None, &manifest).await.unwrap();
        if !endpoint.is_empty() {
            let api = Api::<DynamicObject>::all_with(self.client(), &resource("OpenSearchDomain"));
            let status = json!({"status": {"endpoint": endpoint}});
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await
                .unwrap();
        }
    }

    // === the program ===

    /// Starts a webhook, and returns its port.
    pub(crate) async fn start_webhook(&self, name: &str, options: &[String]) -> u16 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
        command.args(["webhook", "--admin-address", "127.0.0.1:0"]);
        command.args([
            "--webhook-address",
            "127.0.0.1:0",
            "--webhook-name",
            "127.0.0.1",
        ]);
        command.args([
            "--proxy-image",
            IMAGE,
            "--log",
            "info,opensearch_access=debug",
        ]);
        command.args(options);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            let leads_elsewhere = [
                "ADMIN_",
                "KUBERNETES_",
                "LOG_",
                "OPERATOR_",
                "PROXY_",
                "WEBHOOK_",
            ];
            if leads_elsewhere.iter().any(|it| text.starts_with(it)) || text.ends_with("_PROXY") {
                command.env_remove(&name);
            }
        }
        command.env("KUBECONFIG", self.kubeconfig().await);
        let log = self.home.path().join(format!("{name}.log"));
        let process = Process::spawn("opensearch-access webhook", &command, &log).unwrap();
        self.webhooks.lock().unwrap().push(process);
        self.port_of(name, "the webhook's port is open").await
    }

    /// Returns the port that a webhook's log names.
    pub(crate) async fn port_of(&self, name: &str, line: &str) -> u16 {
        self.until(line, async || {
            let log = self.log(name);
            let found = log.lines().find(|it| it.contains(line));
            let address = found.and_then(|it| it.split("address=").nth(1));
            let port = address.and_then(|it| it.split(':').next_back()?.trim().parse().ok());
            port.ok_or(log)
        })
        .await
    }

    /// Returns what a webhook has logged.
    pub(crate) fn log(&self, name: &str) -> String {
        let log = self.home.path().join(format!("{name}.log"));
        let text = String::from_utf8(fs::read(log).unwrap_or_default()).unwrap();
        // Colours of a terminal, which this is none of.
        text.replace('\u{1b}', "")
    }

    /// Takes the webhook that was started last, for a test to stop.
    pub(crate) fn take_webhook(&self) -> Process {
        self.webhooks.lock().unwrap().pop().unwrap()
    }

    /// Writes a kubeconfig of the webhook's service account.
    async fn kubeconfig(&self) -> PathBuf {
        let account = "opensearch-access-webhook";
        let made = self
            .cluster
            .kubectl(["create", "token", account, "--namespace", OWN])
            .await;
        assert!(made.status.success(), "{made:?}");
        let token = String::from_utf8(made.stdout).unwrap();
        let admin = fs::read_to_string(self.cluster.kubeconfig()).unwrap();
        let own = admin.replace(self.cluster.token("admin"), token.trim());
        assert_ne!(own, admin);
        let file = self.home.path().join("webhook.kubeconfig");
        fs::write(&file, own).unwrap();
        file
    }

    /// Returns the data of the Secret that certificates are kept in.
    pub(crate) async fn kept(&self) -> Value {
        let secret = "opensearch-access-webhook-certificate";
        let get = ["get", "secret", secret, "--namespace", OWN, "-o", "json"];
        let found = self.cluster.kubectl(get).await;
        assert!(found.status.success(), "{found:?}");
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        found["data"].clone()
    }

    /// Returns the authority of the certificate that is served; none before there is one.
    pub(crate) async fn authority(&self) -> String {
        let kept = self.kept().await;
        let Some(state) = kept["certificates.json"].as_str() else {
            return String::new();
        };
        let state = BASE64_STANDARD.decode(state).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        state["current"]["authority"].as_str().unwrap().to_owned()
    }

    // === objects ===

    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Makes a namespace that enforces `restricted`.
    pub(crate) async fn namespace(&self, name: &str) {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}});
        self.create(None, &manifest).await.unwrap();
    }

    /// Creates an object, and returns it as it is stored, or what the API server said.
    pub(crate) async fn create(
        &self,
        namespace: Option<&str>,
        manifest: &Value,
    ) -> Result<Value, String> {
        send(&self.client(), namespace, manifest, &PostParams::default()).await
    }

    /// Has the API server say what would be stored.
    pub(crate) async fn dry_run(&self, namespace: &str, manifest: &Value) -> Result<Value, String> {
        try_out(&self.client(), namespace, manifest).await
    }

    /// Creates an object, and returns it with the warnings that whoever creates it sees.
    pub(crate) async fn create_and_hear(
        &self,
        namespace: &str,
        manifest: &Value,
    ) -> (Result<Value, String>, Vec<String>) {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let client = listening(self.cluster.config("admin").clone(), Arc::clone(&heard));
        let kind = resource(manifest["kind"].as_str().unwrap());
        let api = Api::<DynamicObject>::namespaced_with(client, namespace, &kind);
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        let made = match api.create(&PostParams::default(), &object).await {
            Ok(stored) => Ok(serde_json::to_value(stored).unwrap()),
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            Err(error) => panic!("{error}"),
        };
        let heard = heard.lock().unwrap().clone();
        (made, heard)
    }

    // === waiting ===

    /// Waits until `look` has found something; what it says until then is in the failure.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        look: impl AsyncFn() -> Result<T, String>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) if Instant::now() >= deadline => {
                    panic!("not within {PATIENCE:?}: {what}; last seen: {seen}")
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// Has the API server say what would be stored, over the connections of a client.
pub(crate) async fn try_out(
    client: &Client,
    namespace: &str,
    manifest: &Value,
) -> Result<Value, String> {
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    send(client, Some(namespace), manifest, &parameters).await
}

async fn send(
    client: &Client,
    namespace: Option<&str>,
    manifest: &Value,
    parameters: &PostParams,
) -> Result<Value, String> {
    let kind = resource(manifest["kind"].as_str().unwrap());
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
    match api.create(parameters, &object).await {
        Ok(stored) => Ok(serde_json::to_value(stored).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

/// A client that notes the warnings of the API server.
fn listening(config: Config, heard: Arc<Mutex<Vec<String>>>) -> Client {
    let inner = Client::try_from(config).unwrap();
    let service = ServiceBuilder::new()
        .map_response(move |response: Response<Body>| {
            let warnings = response.headers().get_all("warning").iter();
            let texts = warnings.filter_map(|it| {
                // 299 - "text"
                let text = it.to_str().ok()?.split_once('"')?.1;
                Some(text.strip_suffix('"')?.replace("\\\"", "\""))
            });
            heard.lock().unwrap().extend(texts);
            response
        })
        .service_fn(move |request: Request<Body>| {
            let inner = inner.clone();
            async move { inner.send(request).await.map_err(BoxError::from) }
        });
    Client::new(service.map_err(BoxError::from), "default")
}

/// A pod that keeps `restricted`.
pub(crate) fn plain(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "app", "image": "registry.example/app:1",
                "securityContext": {"allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}}}]}})
}

/// A pod that asks for domains.
pub(crate) fn asking(name: &str, domains: &str) -> Value {
    let mut pod = plain(name);
    pod["metadata"]["annotations"] = json!({"opensearch-access.io/inject": domains});
    pod
}

pub(crate) fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "OpenSearchDomain" => ("opensearch-access.io", "v1alpha1", "opensearchdomains"),
        "DomainAccess" => ("opensearch-access.io", "v1alpha1", "domainaccesses"),
        "DomainRole" => ("opensearch-access.io", "v1alpha1", "domainroles"),
        "MutatingWebhookConfiguration" => (
            "admissionregistration.k8s.io",
            "v1",
            "mutatingwebhookconfigurations",
        ),
        "ValidatingWebhookConfiguration" => (
            "admissionregistration.k8s.io",
            "v1",
            "validatingwebhookconfigurations",
        ),
        "Namespace" => ("", "v1", "namespaces"),
        "Pod" => ("", "v1", "pods"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        other => panic!("add {other} here"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
