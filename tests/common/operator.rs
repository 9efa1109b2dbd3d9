//! The operator's own program between a real API server and the fake AWS.
//!
//! ```text
//!  test ──► World ─┬─► Cluster (etcd, kube-apiserver, crds/)  ◄──┐
//!                  ├─► FakeAws                                ◄──┤
//!                  └─► opensearch-access controller ─────────────┘ as a user with few rights
//! ```
//!
//! A start costs about two seconds of processor time, so tests that keep to a domain and a
//! namespace of their own share one world, see [`World::shared`] and [`scene::Scene`].
//!
//! # Guarantees
//! When a test lets go of its world, the operator's log up to then is searched: a secret of any
//! identity, a signature, a panic, or a right that it lacked fails the test. So does an update of a
//! domain that carried anything beside its access policy. And when it lets go of a scene, the oracle
//! judges every policy that the scene's domain ever had.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::cluster::Cluster;
use super::fake_aws::FakeAws;
use super::gateway::authority;
use super::process::Process;
use chronicle::Chronicle;

pub(crate) mod chronicle;
pub(crate) mod meaning;
pub(crate) mod replica;
pub(crate) mod rights;
pub(crate) mod scene;
pub(crate) mod wired;

/// The account that everything lives in unless a test says otherwise.
pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";
/// Where the operator keeps its records.
pub(crate) const OPERATOR_NAMESPACE: &str = "opensearch-access";

/// The EKS cluster that the operator is told it runs in.
pub(crate) const CLUSTER: &str = "main";

/// How long anything may take that is to happen by itself; generous, for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(100);
/// How much of the operator's log a failure shows.
const TAIL: usize = 25;

/// The options by which the operator knows its cluster.
pub(crate) const IN_CLUSTER: [&str; 4] = ["--eks-cluster-name", CLUSTER, "--eks-region", REGION];

/// What the shared world runs on: tests have runtimes that end with them, and it has to outlive each.
static SHARED: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
});

/// A cluster, a fake AWS and the operator between them.
pub(crate) struct World {
    parts: Held,
    client: kube::Client,
}

enum Held {
    Own(Arc<Parts>),
    Shared(&'static Parts),
}

/// The fields are dropped in their order: the operator first.
struct Parts {
    operator: Mutex<Option<Process>>,
    /// How the operator reaches the API server, if not as everybody.
    kubeconfig: Mutex<Option<PathBuf>>,
    /// Whether the operator lacks a right on purpose.
    may_be_refused: AtomicBool,
    chronicle: Chronicle,
    aws: FakeAws,
    cluster: Cluster,
    home: TempDir,
}

impl World {
    /// Starts a world of the test's own, with its operator.
    pub(crate) async fn start() -> Self {
        Self::of(Held::Own(Arc::new(Parts::start().await)))
    }

    /// Starts a world of the test's own in which no operator runs.
    pub(crate) async fn without_operator() -> Self {
        Self::of(Held::Own(Arc::new(Parts::prepare().await)))
    }

    /// Returns the world of all tests that keep to domains and namespaces of their own.
    pub(crate) async fn shared() -> Self {
        static PARTS: OnceCell<Parts> = OnceCell::const_new();
        let start = async || SHARED.spawn(Parts::start()).await.unwrap();
        Self::of(Held::Shared(PARTS.get_or_init(start).await))
    }

    /// Returns another handle on the same world, which lasts until the last one is dropped.
    pub(crate) fn again(&self) -> Self {
        let parts = match &self.parts {
            Held::Own(parts) => Held::Own(Arc::clone(parts)),
            Held::Shared(parts) => Held::Shared(parts),
        };
        let client = self.client.clone();
        Self { parts, client }
    }

    /// Has the operator look at a domain no more, in a world that other tests go on with: what
    /// each test leaves behind would slow down all after it.
    pub(crate) fn put_to_rest(&self, domain: &'static str) {
        let Held::Shared(parts) = self.parts else {
            return;
        };
        SHARED.spawn(async move {
            let client = parts.cluster.client();
            let domains = Api::<DynamicObject>::all_with(client, &resource("OpenSearchDomain"));
            let rest = Patch::Merge(json!({"spec": {"interval": "24h"}}));
            // A test may have deleted it.
            _ = domains.patch(domain, &PatchParams::default(), &rest).await;
        });
    }

    fn of(parts: Held) -> Self {
        let cluster = match &parts {
            Held::Own(parts) => &parts.cluster,
            Held::Shared(parts) => &parts.cluster,
        };
        let client = cluster.client();
        Self { parts, client }
    }

    fn parts(&self) -> &Parts {
        match &self.parts {
            Held::Own(parts) => parts,
            Held::Shared(parts) => parts,
        }
    }

    pub(crate) fn aws(&self) -> &FakeAws {
        &self.parts().aws
    }

    /// Returns the record of all that was asked of the operator.
    pub(crate) fn chronicle(&self) -> &Chronicle {
        &self.parts().chronicle
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.parts().cluster
    }

    /// Returns everything that the operator has logged, at the level debug.
    pub(crate) fn log(&self) -> String {
        self.parts().log()
    }

    // === the operator ===

    /// Starts the operator, in a world in which it does not run.
    pub(crate) fn start_operator(&self) {
        self.parts().start_operator();
    }

    /// Starts the operator with a log that does not slow it down.
    pub(crate) fn start_quiet_operator(&self) {
        self.parts().start_operator_with(&["--log", "info"]);
    }

    /// Starts the operator with less patience than in production for what cannot be revoked.
    pub(crate) fn start_impatient_operator(&self) {
        let options = ["--log", "debug", "--revocation-limit", "5s"];
        self.parts().start_operator_with(&options);
    }

    /// Returns the process id of the operator.
    pub(crate) fn operator_id(&self) -> u32 {
        let operator = self.parts().operator();
        operator.as_ref().map_or(0, Process::id)
    }

    /// Asks the operator to stop, and waits until it has.
    pub(crate) async fn stop_operator(&self) {
        let operator = self.parts().operator().take();
        let mut operator = operator.expect("the operator runs");
        let status = operator.terminate(PATIENCE).await.unwrap();
        assert!(status.success(), "{status}: {}", operator.log_tail(TAIL));
    }

    /// Ends the operator at once, whatever it is doing.
    pub(crate) fn kill_operator(&self) {
        let operator = self.parts().operator().take();
        operator.expect("the operator runs").kill().unwrap();
    }

    /// Has operators that are started from now on reach the API server through another port.
    pub(crate) fn reach_through(&self, port: u16) {
        let parts = self.parts();
        self.reach_by(parts.cluster.kubeconfig_through("operator", port));
    }

    /// Has operators that are started from now on reach the API server by a kubeconfig.
    pub(crate) fn reach_by(&self, file: PathBuf) {
        let mut kubeconfig = self
            .parts()
            .kubeconfig
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *kubeconfig = Some(file);
    }

    /// Says that the operator will lack a right.
    pub(crate) fn let_it_be_refused(&self) {
        self.parts().may_be_refused.store(true, Ordering::Relaxed);
    }

    // === objects ===

    /// Returns the API of a kind, as the administrator.
    pub(crate) fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = resource(kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Creates an object as its author wrote it.
    pub(crate) async fn create(&self, manifest: &Value) -> Result<DynamicObject, kube::Error> {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        let api = self.api(kind, object.metadata.namespace.as_deref());
        api.create(&PostParams::default(), &object).await
    }

    /// Creates a namespace.
    pub(crate) async fn namespace(&self, name: &str, labels: &Value) {
        let metadata = json!({"name": name, "labels": labels});
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.create(&manifest).await.unwrap();
    }

    /// Changes an object by a merge patch.
    pub(crate) async fn change(&self, kind: &str, namespace: Option<&str>, name: &str, to: &Value) {
        let api = self.api(kind, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(to))
            .await
            .unwrap();
    }

    /// Returns an object; `Null` if there is none.
    pub(crate) async fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Value {
        let found = self.api(kind, namespace).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |found| serde_json::to_value(found).unwrap())
    }

    /// Returns the reason and the note of every Event on an object, in a stable order; one that
    /// was told again is there again.
    pub(crate) async fn events(&self, namespace: &str, name: &str) -> Vec<(String, String)> {
        let events = self.api("Event", Some(namespace));
        let all = events.list(&ListParams::default()).await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_object = all
            .items
            .iter()
            .filter(|it| it.data["regarding"]["name"] == name);
        let mut found: Vec<_> = of_object
            .flat_map(|it| {
                let told = it.data["series"]["count"].as_u64().unwrap_or(1);
                let told = usize::try_from(told).unwrap();
                vec![(text(&it.data["reason"]), text(&it.data["note"])); told]
            })
            .collect();
        found.sort();
        found
    }

    // === waiting ===

    /// Waits until `look` has found something; what it says until then is in the failure.
    pub(crate) async fn eventually<T, F>(&self, what: &str, patience: Duration, look: F) -> T
    where
        F: AsyncFn() -> Result<T, String>,
    {
        let deadline = Instant::now() + patience;
        loop {
            match look().await {
                Ok(found) => return found,
                Err(state) if Instant::now() >= deadline => {
                    let log = self.parts().log();
                    let lines: Vec<&str> = log.lines().filter(|it| !it.contains("DEBUG")).collect();
                    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
                    panic!(
                        "not within {patience:?}: {what}\n--- last seen:\n{state}\n--- end of the operator's log:\n{tail}"
                    );
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let last = match &self.parts {
            Held::Own(parts) => Arc::strong_count(parts) == 1,
            Held::Shared(_) => true,
        };
        // A failed test has its own message already.
        if last && !std::thread::panicking() {
            self.parts().check_log();
            self.parts().check_updates();
        }
    }
}

impl Parts {
    async fn start() -> Self {
        let parts = Self::prepare().await;
        parts.start_operator();
        parts
    }

    async fn prepare() -> Self {
        let cluster = Cluster::start().await;
        cluster.apply_crds().await.unwrap();
        let rights = cluster.kubectl_apply(rights::MANIFESTS).await;
        assert!(rights.status.success(), "{rights:?}");
        let aws = FakeAws::start().await;
        aws.account(ACCOUNT).cluster(CLUSTER, REGION);
        Self {
            operator: Mutex::default(),
            kubeconfig: Mutex::default(),
            may_be_refused: AtomicBool::default(),
            chronicle: Chronicle::start(&cluster.client()),
            aws,
            cluster,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn operator(&self) -> MutexGuard<'_, Option<Process>> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is killed and started again is not to wait for its own lease.
    fn start_operator(&self) {
        self.start_operator_with(&["--log", "debug"]);
    }

    fn start_operator_with(&self, more: &[&str]) {
        let credentials = self.aws.credentials(ACCOUNT);
        let mut options = vec!["--no-leader-election"];
        options.extend(more);
        options.extend(IN_CLUSTER);
        let process = self.spawn("operator", credentials, &options);
        let before = self.operator().replace(process);
        assert!(before.is_none(), "an operator runs already");
    }

    /// Starts the program with a log of its own, and nothing of the machine's environment that
    /// would lead it out of this world.
    fn spawn(&self, name: &str, credentials: (String, String), options: &[&str]) -> Process {
        let kubeconfig = self.kubeconfig();
        self.spawn_with(name, credentials, &kubeconfig, options)
    }

    /// Starts the program by a kubeconfig of the test's own.
    fn spawn_with(
        &self,
        name: &str,
        credentials: (String, String),
        kubeconfig: &Path,
        options: &[&str],
    ) -> Process {
        let (access_key_id, secret_access_key) = credentials;
        let mut command = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
        command.args(["controller", "--admin-address", "127.0.0.1:0"]);
        command.arg("--domain-ca").arg(authority());
        command.args(options);
        for (name, _) in std::env::vars_os().filter(|(name, _)| leads_elsewhere(name)) {
            command.env_remove(name);
        }
        command
            .env("KUBECONFIG", kubeconfig)
            .env("AWS_ENDPOINT_URL", self.aws.url())
            .env("AWS_ACCESS_KEY_ID", access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", secret_access_key)
            .env("HOME", self.home.path());
        let log = self.home.path().join(name).with_extension("log");
        Process::spawn("opensearch-access", &command, &log).unwrap()
    }

    fn kubeconfig(&self) -> PathBuf {
        let other = self
            .kubeconfig
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let usual = || self.cluster.kubeconfig_of("operator");
        other.clone().unwrap_or_else(usual)
    }

    /// Returns what every operator has logged.
    fn log(&self) -> String {
        let files = fs::read_dir(self.home.path()).unwrap();
        let logs = files.map(|file| file.unwrap().path());
        let mut logs: Vec<_> = logs
            .filter(|path| path.extension().is_some_and(|it| it == "log"))
            .collect();
        logs.sort();
        let read = |path| fs::read(path).unwrap_or_default();
        let text = |path| String::from_utf8_lossy(&read(path)).into_owned();
        logs.into_iter().map(text).collect()
    }

    /// Makes sure that no update of any domain was about more than its access policy.
    fn check_updates(&self) {
        for call in self.aws.calls_of("UpdateDomainConfig") {
            let keys: Vec<&str> = call.body_keys.iter().map(String::as_str).collect();
            let dry_run = ["AccessPolicies", "DryRun", "DryRunMode"];
            let meant = keys == ["AccessPolicies"]
                || keys == dry_run
                    && call.body["DryRun"] == true
                    && call.body["DryRunMode"] == "Basic";
            assert!(meant, "an update of more than the access policy: {call:?}");
        }
    }

    fn check_log(&self) {
        let log = self.log();
        let mut secrets = self.aws.secrets();
        secrets.push(self.cluster.token("operator").to_owned());
        secrets.extend(["AWS4-HMAC-SHA256", "Signature=", "panicked at"].map(str::to_owned));
        let told = |line: &&str| secrets.iter().any(|secret| line.contains(secret.as_str()));
        let lacks = self.may_be_refused.load(Ordering::Relaxed);
        let refused =
            |line: &&str| !lacks && line.contains("WARN") && line.contains("is forbidden: User");
        let found: Vec<&str> = log.lines().filter(|it| told(it) || refused(it)).collect();
        let found = found.join("\n");
        assert!(
            found.is_empty(),
            "secrets, panics or refusals by the API server in the operator's log:\n{found}"
        );
    }
}

/// Tells whether a variable would lead the operator out of its world.
fn leads_elsewhere(variable: &OsString) -> bool {
    let name = variable.to_string_lossy().to_ascii_uppercase();
    [
        "ADMIN_",
        "AWS_",
        "EKS_",
        "KUBERNETES_",
        "LEASE_",
        "LOG_",
        "OIDC_",
        "OPERATOR_",
    ]
    .iter()
    .any(|it| name.starts_with(it))
        || name.ends_with("_PROXY")
}

pub(crate) fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "OpenSearchDomain" => ("opensearch-access.io", "v1alpha1", "opensearchdomains"),
        "DomainAccess" => ("opensearch-access.io", "v1alpha1", "domainaccesses"),
        "DomainRole" => ("opensearch-access.io", "v1alpha1", "domainroles"),
        "DomainTenant" => ("opensearch-access.io", "v1alpha1", "domaintenants"),
        "DomainActionGroup" => ("opensearch-access.io", "v1alpha1", "domainactiongroups"),
        "Event" => ("events.k8s.io", "v1", "events"),
        "Namespace" => ("", "v1", "namespaces"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        other => panic!("add {other} here"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Waits for all of them at the same time.
pub(crate) async fn together<T>(all: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(all).await
}
