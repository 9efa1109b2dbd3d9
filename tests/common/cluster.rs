//! A real Kubernetes API server with its etcd, for one test or for all tests of a program.
//!
//! ```text
//! Cluster::start -> etcd (unix sockets in the folder) -> kube-apiserver (one loopback port)
//!                -> /readyz -> kubeconfig, clients, kubectl
//! ```
//!
//! Everything lives in one temporary folder: keys, sockets, data, logs, kubeconfigs. The programs
//! come from `tests/world/prepare`; nothing here builds or downloads anything.
//!
//! What runs is the API server's own defaults (CEL in CRDs, `matchConditions`, Pod Security,
//! `TokenRequest`, RBAC) but for two things: pods need no service account, since nobody creates
//! any, and there are no controllers at all, so nothing is garbage-collected and a deleted
//! namespace stays `Terminating`.
//!
//! # Guarantees
//! Dropping a [`Cluster`] stops both programs and removes the folder. If the test is killed, or
//! ends without dropping a shared cluster, the kernel stops the programs (see
//! [`process`](super::process)) and the next start removes the folder.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use axum::http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, sync::OnceCell};

use super::process::Process;

pub(crate) mod link;
pub(crate) mod proxy;
pub(crate) mod second;
pub(crate) mod setup;

/// The users that the API server knows, each with its group: the administrator, one for the
/// operator itself, and people of two teams. All but the first can do only what a test's RBAC
/// grants them.
pub(crate) const USERS: [(&str, &str); 4] = [
    ("admin", "system:masters"),
    ("operator", "operators"),
    ("alice", "team-a"),
    ("bob", "team-b"),
];

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);
/// Far more than a start takes on an idle machine, since tests also run on busy ones.
const START_PATIENCE: Duration = Duration::from_mins(1);
const CRD_PATIENCE: Duration = Duration::from_secs(20);
/// Tries of a start, because a port that was free may be taken a moment later.
const ATTEMPTS: usize = 3;
/// How much of a log an error message shows.
const TAIL: usize = 20;

/// A running etcd and kube-apiserver.
///
/// The fields are dropped in their order: first the server, then its store, then the folder.
#[derive(Debug)]
pub(crate) struct Cluster {
    apiserver: Process,
    etcd: Process,
    programs: PathBuf,
    configs: Vec<(&'static str, String, Config)>,
    start_time: Duration,
    folder: TempDir,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Cluster {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Panics
    /// When it cannot: a test that needs a cluster fails without one, it is never skipped.
    pub(crate) async fn start() -> Self {
        Self::try_start()
            .await
            .unwrap_or_else(|error| panic!("no cluster: {error:#}"))
    }

    /// Returns the one cluster that all tests of this program share, started at the first call.
    ///
    /// For tests that keep to namespaces of their own. It ends with the program.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a cluster and waits until it is ready.
    pub(crate) async fn try_start() -> Result<Self> {
        let programs = setup::programs()?;
        setup::remove_leftovers()?;
        // Two providers could be linked one day; kube refuses to guess. An error means that another
        // part of the test has already chosen.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        for _ in 0..ATTEMPTS {
            if let Some(cluster) = Self::try_start_once(&programs).await? {
                return Ok(cluster);
            }
        }
        bail!("{ATTEMPTS} times in a row the port chosen for kube-apiserver was taken by another")
    }

    /// Starts a cluster; `None` when another program took its port first.
    async fn try_start_once(programs: &Path) -> Result<Option<Self>> {
        let began = Instant::now();
        let (folder, lock) = setup::new_folder()?;
        let path = folder.path();
        let tokens = setup::write_tokens(path)?;
        let port = setup::free_port()?;

        let etcd = Process::spawn("etcd", &setup::etcd(programs, path), &path.join("etcd.log"))?;
        let apiserver = Process::spawn(
            "kube-apiserver",
            &setup::kube_apiserver(programs, path, port, setup::ETCD_CLIENTS),
            &path.join("kube-apiserver.log"),
        )?;
        let mut cluster = Self {
            apiserver,
            etcd,
            programs: programs.to_owned(),
            configs: Vec::new(),
            start_time: Duration::ZERO,
            folder,
            _lock: lock,
        };

        let waited = tokio::time::timeout(START_PATIENCE, cluster.wait_until_ready(port, &tokens));
        let late = |_| Err(anyhow!("not ready within {START_PATIENCE:?}"));
        let ready = waited.await.unwrap_or_else(late);
        match ready {
            Ok(()) => {
                cluster.start_time = began.elapsed();
                Ok(Some(cluster))
            }
            Err(_) if cluster.lost_its_port() => Ok(None),
            Err(error) => Err(anyhow!("{error:#}{}", cluster.log_tails())),
        }
    }

    async fn wait_until_ready(&mut self, port: u16, tokens: &[String]) -> Result<()> {
        let authority = loop {
            self.ensure_alive()?;
            if let Some(authority) = setup::authority(self.path())? {
                break authority;
            }
            tokio::time::sleep(POLL).await;
        };
        fs::write(self.authority(), authority)?;
        for ((user, _), token) in USERS.into_iter().zip(tokens) {
            let file = self.kubeconfig_of(user);
            setup::write_kubeconfig(&file, &self.authority(), port, user, token)?;
            let options = KubeConfigOptions::default();
            let mut config =
                Config::from_custom_kubeconfig(Kubeconfig::read_from(&file)?, &options).await?;
            // What the machine sends through a proxy does not concern a server on loopback.
            config.proxy_url = None;
            self.configs.push((user, token.clone(), config));
        }

        // One request at a time is enough, and its own retries would only hide a refusal.
        let mut config = self.config("admin").clone();
        config.default_retry = false;
        let client = Client::try_from(config)?;
        loop {
            self.ensure_alive()?;
            let readyz = client.request_text(Request::get("/readyz").body(Vec::new())?);
            match readyz.await {
                Ok(answer) if answer == "ok" => return Ok(()),
                // Anything else is an early moment of the start, or ends in the time limit; but a
                // certificate that is refused stays refused.
                Err(error) if format!("{error:?}").contains("InvalidCertificate") => {
                    return Err(error).context("the API server's certificate is refused");
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Tells that both programs still run.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        for process in [&mut self.etcd, &mut self.apiserver] {
            if let Some(status) = process.try_wait()? {
                bail!("{} has ended: {status}", process.name());
            }
        }
        Ok(())
    }

    fn lost_its_port(&self) -> bool {
        self.apiserver
            .log_tail(TAIL)
            .contains("address already in use")
    }

    fn log_tails(&self) -> String {
        let mut text = String::new();
        for process in [&self.etcd, &self.apiserver] {
            let tail = process.log_tail(TAIL);
            write!(text, "\n--- end of {}'s log:\n{tail}", process.name()).ok();
        }
        text
    }

    // === using it ===

    /// Returns how long the start took, until `/readyz` said `ok`.
    pub(crate) fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Returns the folder that holds all of it.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the programs' logs: etcd's and the API server's.
    pub(crate) fn log_paths(&self) -> [&Path; 2] {
        [self.etcd.log_path(), self.apiserver.log_path()]
    }

    /// Returns the process ids of etcd and the API server.
    pub(crate) fn process_ids(&self) -> [u32; 2] {
        [self.etcd.id(), self.apiserver.id()]
    }

    /// Returns the API server, for tests that stop or pause it.
    pub(crate) fn apiserver(&mut self) -> &mut Process {
        &mut self.apiserver
    }

    /// Returns the folder with etcd, kube-apiserver and kubectl.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Returns a client of the administrator, bound to the runtime that is running.
    pub(crate) fn client(&self) -> Client {
        self.client_for("admin")
    }

    /// Returns a client of one of the [`USERS`].
    pub(crate) fn client_for(&self, user: &str) -> Client {
        Client::try_from(self.config(user).clone())
            .unwrap_or_else(|error| panic!("no client for {user}: {error}"))
    }

    /// Returns what a client of one of the [`USERS`] is made from.
    pub(crate) fn config(&self, user: &str) -> &Config {
        &self.user(user).2
    }

    /// Returns the bearer token of one of the [`USERS`].
    pub(crate) fn token(&self, user: &str) -> &str {
        &self.user(user).1
    }

    fn user(&self, user: &str) -> &(&'static str, String, Config) {
        let known = self.configs.iter().find(|(name, ..)| *name == user);
        known.unwrap_or_else(|| panic!("the cluster has no user {user:?}, only {USERS:?}"))
    }

    /// Returns the certificate to verify the API server by.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path().join(setup::AUTHORITY)
    }

    /// Returns the administrator's kubeconfig: token, address and the server's authority.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of("admin")
    }

    /// Returns the kubeconfig of one of the [`USERS`].
    pub(crate) fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.path().join(format!("{user}.kubeconfig"))
    }

    /// Runs `kubectl` as the administrator (`--kubeconfig` overrides that).
    ///
    /// # Panics
    /// When it cannot be run; its own failure is in the output.
    pub(crate) async fn kubectl(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Output {
        self.kubectl_with_input(args, "").await
    }

    /// Runs `kubectl apply` on manifests given as text.
    pub(crate) async fn kubectl_apply(&self, manifests: &str) -> Output {
        self.kubectl_with_input(["apply", "-f", "-"], manifests)
            .await
    }

    async fn kubectl_with_input(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Output {
        let program = self.programs.join("kubectl");
        run_kubectl(&program, &self.kubeconfig(), self.path(), args, input).await
    }

    /// Applies the kinds in `crds/` and waits until the API server serves them.
    pub(crate) async fn apply_crds(&self) -> Result<()> {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let applied = self
            .kubectl([OsStr::new("apply"), "-f".as_ref(), crds.as_os_str()])
            .await;
        let errors = String::from_utf8_lossy(&applied.stderr);
        ensure!(
            applied.status.success(),
            "failed to apply {}: {errors}",
            crds.display()
        );

        let client = self.client();
        let deadline = Instant::now() + CRD_PATIENCE;
        while let Some(missing) = unserved_kind(&client).await? {
            ensure!(
                Instant::now() < deadline,
                "{missing} is not served after {CRD_PATIENCE:?}"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Runs `kubectl` by a kubeconfig, with a home folder of its own: its discovery cache is keyed by address,
/// and ports are used again.
///
/// # Panics
///
/// When it cannot be run; its own failure is in the output.
pub(crate) async fn run_kubectl(
    program: &Path,
    kubeconfig: &Path,
    home: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Output {
    let run = async {
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()).await {
                // It may refuse its arguments without reading anything.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        child.wait_with_output().await
    };
    run.await
        .unwrap_or_else(|error| panic!("failed to run kubectl: {error}"))
}

/// Returns a custom kind that is not yet established or not yet in the discovery answer.
async fn unserved_kind(client: &Client) -> Result<Option<String>> {
    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    for kind in kinds.list(&ListParams::default()).await? {
        let status = kind.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        let mut served = conditions.any(|it| it.type_ == "Established" && it.status == "True");
        for version in kind.spec.versions.iter().filter(|version| version.served) {
            let group_version = format!("{}/{}", kind.spec.group, version.name);
            // The group itself is unknown for a moment: an error like any other here.
            let listed = client.list_api_group_resources(&group_version).await;
            served &= listed.is_ok_and(|list| {
                list.resources
                    .iter()
                    .any(|resource| resource.name == kind.spec.names.plural)
            });
        }
        if !served {
            return Ok(Some(kind.spec.names.plural));
        }
    }
    Ok(None)
}
