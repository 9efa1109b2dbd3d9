//! How each program of a node is started.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::super::cluster::setup::ETCD_CLIENTS;
use super::super::parts::part;
use super::namespaces::RESOLVER;
use super::{API, BRIDGE, NODE, image, network};

/// Where containerd listens, in the folder, and keeps what containers are made of and what they are.
pub(super) const SOCKET: &str = "containerd.sock";
pub(super) const CONTAINERS: &str = "containers";
pub(super) const STATE: &str = "containerd";

/// Stacks layers without copying them; on a file system in memory it works wherever this runs.
pub(super) const SNAPSHOTTER: &str = "overlayfs";

/// The kubeconfig of the cluster's administrator.
pub(super) const ADMIN: &str = "admin.kubeconfig";
const CONTROL_PLANE: &str = "control-plane.kubeconfig";
const KUBELET: &str = "kubelet.kubeconfig";

const TOKENS: &str = "tokens.csv";
const PRIVATE_KEY: &str = "certificates/apiserver.key";

/// Users, the groups that say what they may do, and where their kubeconfigs are.
const USERS: [(&str, &str, &str); 3] = [
    ("admin", "system:masters", ADMIN),
    (
        "system:kube-controller-manager",
        "system:masters",
        CONTROL_PLANE,
    ),
    ("system:node:node", "system:nodes", KUBELET),
];

/// The users' tokens, in their order.
pub(super) type Tokens = Vec<String>;

pub(super) fn write_tokens(folder: &Path) -> Result<Tokens> {
    let mut random = File::open("/dev/urandom")?;
    let (mut tokens, mut lines) = (Vec::new(), String::new());
    for (user, group, _) in USERS {
        let mut bytes = [0; 16];
        random.read_exact(&mut bytes)?;
        let token = format!("{:032x}", u128::from_ne_bytes(bytes));
        writeln!(lines, "{token},{user},{user},{group}")?;
        tokens.push(token);
    }
    fs::write(folder.join(TOKENS), lines)?;
    Ok(tokens)
}

pub(super) fn write_kubeconfigs(folder: &Path, authority: &Path, tokens: &Tokens) -> Result<()> {
    let authority = authority.display();
    for ((_, _, file), token) in USERS.iter().zip(tokens) {
        let text = format!(
            "apiVersion: v1
kind: Config
current-context: node
contexts:
  - name: node
    context: {{ cluster: node, user: user }}
clusters:
  - name: node
    cluster: {{ server: \"https://{API}\", certificate-authority: {authority} }}
users:
  - name: user
    user: {{ token: {token} }}
"
        );
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}

fn kubernetes(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(part(name));
    command.current_dir(folder).env("GOGC", "200");
    command
}

/// The address is that of the Service `kubernetes`, so that nothing has to lead there.
pub(super) fn kube_apiserver(folder: &Path, issuer: &str) -> Command {
    let mut command = kubernetes("kube-apiserver", folder);
    command
        .arg(format!("--etcd-servers={ETCD_CLIENTS}"))
        .arg("--cert-dir=certificates")
        .arg(format!("--bind-address={API}"))
        .arg(format!("--advertise-address={BRIDGE}"))
        .args(["--secure-port=443", "--endpoint-reconciler-type=none"])
        .arg("--service-cluster-ip-range=10.96.0.0/24")
        .arg("--authorization-mode=Node,RBAC")
        .arg(format!("--token-auth-file={TOKENS}"))
        .arg(format!("--service-account-issuer={issuer}"))
        .arg(format!("--service-account-key-file={PRIVATE_KEY}"))
        .arg(format!("--service-account-signing-key-file={PRIVATE_KEY}"))
        .arg("--api-audiences=https://kubernetes.default.svc")
        .arg("--allow-privileged=true")
        .arg("--kubelet-preferred-address-types=InternalIP")
        // Webhooks are reached at their pods: there is no kube-proxy.
        .arg("--enable-aggregator-routing=true");
    command
}

pub(super) fn controllers(folder: &Path) -> Command {
    let mut command = kubernetes("kube-controller-manager", folder);
    command
        .args(control_plane())
        .arg(format!("--service-account-private-key-file={PRIVATE_KEY}"))
        .arg("--root-ca-file=ca.crt");
    command
}

pub(super) fn scheduler(folder: &Path) -> Command {
    let mut command = kubernetes("kube-scheduler", folder);
    command.args(control_plane());
    command
}

fn control_plane() -> [String; 6] {
    [
        format!("--kubeconfig={CONTROL_PLANE}"),
        format!("--authentication-kubeconfig={CONTROL_PLANE}"),
        format!("--authorization-kubeconfig={CONTROL_PLANE}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--cert-dir=control-plane".to_owned(),
    ]
}

pub(super) fn containerd(folder: &Path) -> Result<Command> {
    let here = folder.display();
    let (runc, cni) = (part("runc"), part("cni").join("usr/lib/cni"));
    let (runc, cni) = (runc.display(), cni.display());
    let sandbox = image::APP;
    let (state, socket) = (STATE, SOCKET);
    // Without restrict_oom_score_adj no pod starts where a capability is missing.
    let configuration = format!(
        r#"version = 3
root = "{here}/{CONTAINERS}"
state = "{here}/{state}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{here}/{socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{SNAPSHOTTER}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{sandbox}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{here}/cni"
"#
    );
    fs::write(folder.join("containerd.toml"), configuration)?;
    fs::create_dir_all(folder.join("cni"))?;
    let bridge = network::NAME;
    let network = format!(
        r#"{{"cniVersion": "1.0.0", "name": "{bridge}", "plugins": [{{
  "type": "bridge", "bridge": "{bridge}", "isGateway": true, "hairpinMode": true,
  "ipam": {{"type": "host-local", "dataDir": "{here}/addresses", "routes": [{{"dst": "0.0.0.0/0"}}],
    "ranges": [[{{"subnet": "10.88.0.0/16", "rangeStart": "10.88.1.1", "gateway": "{BRIDGE}"}}]]}}}}]}}"#
    );
    fs::write(folder.join("cni/pods.conflist"), network)?;
    let mut command = Command::new(part("containerd"));
    // It finds the shim beside itself by this.
    let shim = part("containerd-shim-runc-v2");
    let beside = shim.parent().unwrap_or(folder).display();
    command
        .current_dir(folder)
        .env("PATH", format!("{beside}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .args(["--config", "containerd.toml"]);
    Ok(command)
}

pub(super) fn kubelet(folder: &Path) -> Result<Command> {
    let (here, socket) = (folder.display(), SOCKET);
    let configuration = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
containerRuntimeEndpoint: unix://{here}/{socket}
podLogsDir: {here}/pods
clusterDNS: [{BRIDGE}]
clusterDomain: cluster.local
resolvConf: {here}/{RESOLVER}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
evictionHard: {{}}
serializeImagePulls: false
"
    );
    fs::write(folder.join("kubelet.yaml"), configuration)?;
    let mut command = kubernetes("kubelet", folder);
    command
        .arg("--config=kubelet.yaml")
        // It looks for what is mounted there by this.
        .arg(format!("--root-dir={here}/kubelet"))
        .arg(format!("--kubeconfig={KUBELET}"))
        .arg("--cert-dir=kubelet-certificates")
        .arg(format!("--hostname-override={NODE}"))
        .arg(format!("--node-ip={BRIDGE}"));
    Ok(command)
}
