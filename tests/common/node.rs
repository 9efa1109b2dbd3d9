//! A whole Kubernetes node, for pods that really run: etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler, containerd with runc and CNI, and a kubelet.
//!
//! ```text
//!  namespaces::enter ─► the same program again: own network, mounts, processes
//!    └► network ─► etcd ─► kube-apiserver ─► controller-manager, scheduler, kubelet ─► node Ready
//!                  containerd ─► images                                         └► pods on the bridge
//! ```
//!
//! Everything runs in namespaces that it has to itself, so ports and addresses are fixed:
//!
//! | address | what listens there |
//! |---|---|
//! | [`BRIDGE`] | the node itself: kubelet, and [`names`] for pods |
//! | [`API`] | kube-apiserver, at the cluster address of the Service `kubernetes`, port 443 |
//! | [`AWS`], [`DOMAIN`] | free for what a test has listen there, on port 443 |
//! | [`AGENT`] | free for an agent of EKS Pod Identity, on port 80 |
//!
//! # Guarantees
//!
//! All of it is gone when the program ends, however it ended: the kernel ends every process of the
//! namespaces with their first, and the first with the one that made them.
//!
//! # Caveats
//!
//! There is no kube-proxy: pods reach no Service but `kubernetes`. The API server reaches a Service's
//! pods directly, which is what webhooks take. The kubelet believes everybody, since nobody else
//! reaches it. No network policy is enforced.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use axum::http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use self::names::Names;
use super::cluster::{run_kubectl, setup};
use super::parts::part;
use super::process::Process;

pub(crate) mod eks;
pub(crate) mod image;
pub(crate) mod names;
pub(crate) mod namespaces;
pub(crate) mod network;
mod programs;

/// The node, as pods see it.
pub(crate) const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// For the endpoints of AWS's services.
pub(crate) const AWS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
/// For a domain's endpoint.
pub(crate) const DOMAIN: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 3);
/// The API server: the first address of the range of Services.
pub(crate) const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The agent of EKS Pod Identity, as AWS has it.
pub(crate) const AGENT: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);

/// What the node is called.
pub(crate) const NODE: &str = "node";

const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
/// How much of a log an error message shows.
const TAIL: usize = 12;

/// A node and its cluster, gone when it is dropped.
pub(crate) struct WholeNode {
    folder: PathBuf,
    config: Config,
    /// In the order in which they end.
    processes: Vec<Process>,
    _names: Names,
}

impl WholeNode {
    /// Starts everything in the namespaces that [`namespaces::enter`] made, and waits until the node
    /// is ready.
    ///
    /// `issuer` is whom service account tokens are of; `names` are what pods find beside the cluster's
    /// own, see [`Names`].
    pub(crate) async fn start(
        folder: &Path,
        issuer: &str,
        names: &[(&str, Ipv4Addr)],
    ) -> Result<Self> {
        // Two providers could be linked one day; kube refuses to guess. An error means that another
        // part of the test has already chosen.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        network::set_up()?;
        let mut all = vec![("kubernetes.default.svc.cluster.local", API)];
        all.extend(names);
        let names = Names::serve((BRIDGE, 53).into(), &all).await?;
        let tokens = programs::write_tokens(folder)?;
        let mut processes = Vec::new();
        let mut start = |name: &str, command: Command| -> Result<()> {
            let log = folder.join(format!("{name}.log"));
            processes.push(Process::spawn(name, &command, &log)?);
            Ok(())
        };
        let etcd = part("etcd");
        let built = etcd.parent().context("it is in a folder")?;
        start("etcd", setup::etcd(built, folder))?;
        start("kube-apiserver", programs::kube_apiserver(folder, issuer))?;
        start("containerd", programs::containerd(folder)?)?;
        let config = Self::wait_for_api(folder, &tokens).await;
        let config = config.inspect_err(|_| print_tails(folder))?;
        start("kube-controller-manager", programs::controllers(folder))?;
        start("kube-scheduler", programs::scheduler(folder))?;
        start("kubelet", programs::kubelet(folder)?)?;
        processes.reverse();
        let mut node = Self {
            folder: folder.to_owned(),
            config,
            processes,
            _names: names,
        };
        let ready = node.wait_until_ready().await;
        ready.inspect_err(|_| print_tails(folder))?;
        Ok(node)
    }

    async fn wait_for_api(folder: &Path, tokens: &programs::Tokens) -> Result<Config> {
        let deadline = Instant::now() + PATIENCE;
        let authority = loop {
            if let Some(authority) = setup::authority(folder)? {
                break authority;
            }
            ensure!(Instant::now() < deadline, "kube-apiserver does not start");
            tokio::time::sleep(POLL).await;
        };
        let file = folder.join(setup::AUTHORITY);
        fs::write(&file, authority)?;
        programs::write_kubeconfigs(folder, &file, tokens)?;
        let kubeconfig = Kubeconfig::read_from(folder.join(programs::ADMIN))?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.proxy_url = None;
        let client = Client::try_from(config.clone())?;
        loop {
            let readyz = Request::get("/readyz").body(Vec::new())?;
            match client.request_text(readyz).await {
                Ok(answer) if answer == "ok" => return Ok(config),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("kube-apiserver does not get ready");
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Tells that every program still runs.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                bail!("{} has ended: {status}", process.name());
            }
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let nodes = Api::<Node>::all(self.client());
        loop {
            let node = nodes.get_opt(NODE).await?;
            let status = node.and_then(|it| it.status).unwrap_or_default();
            let mut conditions = status.conditions.into_iter().flatten();
            if conditions.any(|it| it.type_ == "Ready" && it.status == "True") {
                return Ok(());
            }
            self.ensure_alive()?;
            ensure!(Instant::now() < deadline, "the node does not get ready");
            tokio::time::sleep(POLL).await;
        }
    }

    // === using it ===

    /// Returns a client of the cluster's administrator.
    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("the configuration is one")
    }

    /// Returns the folder with logs, keys and what containers are made of.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the kubeconfig of the cluster's administrator, good in these namespaces alone.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join(programs::ADMIN)
    }

    /// Runs `kubectl` as the administrator.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with_input(args, "").await
    }

    /// Returns what a `kubectl` prints that has to succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub(crate) async fn kubectl_prints(&self, args: &[&str]) -> String {
        printed(args, &self.kubectl(args).await)
    }

    /// Applies manifests.
    ///
    /// # Panics
    ///
    /// When one of them is refused.
    pub(crate) async fn apply(&self, manifests: &str) -> String {
        let args = ["apply", "--server-side", "-f", "-"];
        printed(&args, &self.kubectl_with_input(&args, manifests).await)
    }

    pub(crate) async fn kubectl_with_input(&self, args: &[&str], input: &str) -> Output {
        let kubeconfig = self.kubeconfig();
        run_kubectl(&part("kubectl"), &kubeconfig, &self.folder, args, input).await
    }

    /// Runs `ctr` in the namespace of pods.
    pub(crate) async fn ctr(&self, args: &[impl AsRef<OsStr>]) -> Result<String> {
        let run = tokio::process::Command::new(part("ctr"))
            .arg("--address")
            .arg(self.folder.join(programs::SOCKET))
            .args(["--namespace", "k8s.io"])
            .args(args)
            .output();
        let ran = run.await?;
        if !ran.status.success() {
            bail!("ctr: {}", String::from_utf8_lossy(&ran.stderr));
        }
        Ok(String::from_utf8(ran.stdout)?)
    }

    /// Makes an image of a tar known to the node.
    pub(crate) async fn import(&self, tar: &Path) -> Result<()> {
        let tar = tar.to_str().context("a path in UTF-8")?;
        let snapshotter = ["--snapshotter", programs::SNAPSHOTTER];
        let import = ["images", "import", "--local"];
        self.ctr(&[&import[..], &snapshotter, &[tar]].concat())
            .await?;
        Ok(())
    }

    /// Gives an image a further name, such as one by its digest.
    pub(crate) async fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", "--force", image, name]).await?;
        Ok(())
    }

    /// Kills the processes of a container, as the kernel does where memory runs out.
    pub(crate) async fn kill(&self, container: &str) -> Result<()> {
        let id = container.trim_start_matches("containerd://");
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", id])
            .await?;
        Ok(())
    }
}

impl Drop for WholeNode {
    fn drop(&mut self) {
        // The kubelet first: nobody should start anew what ends now.
        self.processes.clear();
    }
}

fn printed(args: &[&str], output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Prints the ends of all logs, for a start that failed.
fn print_tails(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if path.extension() != Some(OsStr::new("log")) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        eprintln!("--- end of {}:\n{tail}", path.display());
    }
}
