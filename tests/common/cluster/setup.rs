//! What a cluster's start decides beforehand: programs, folder, users, flags, kubeconfigs.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::{
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::USERS;

/// What the folders of clusters are called, and the lock that tells a live one from a leftover.
const FOLDER_PREFIX: &str = "opensearch-access-cluster-";
const LOCK: &str = "lock";

const PREPARE: &str = "tests/world/prepare";

/// Where etcd listens, in the cluster's folder. Sockets need no free ports and let in nobody else;
/// the paths are relative, because a socket's may not be longer than 107 bytes.
pub(crate) const ETCD_CLIENTS: &str = "unix://etcd.sock";
const ETCD_PEERS: &str = "unix://etcd-peers.sock";

/// The self-signed certificate's folder, and what the API server writes there.
const CERTIFICATES: &str = "certificates";
const CERTIFICATE: &str = "certificates/apiserver.crt";
const PRIVATE_KEY: &str = "certificates/apiserver.key";

const TOKENS: &str = "tokens.csv";
pub(crate) const AUTHORITY: &str = "ca.crt";

/// Returns the folder with the programs, all of them present.
pub(super) fn programs() -> Result<PathBuf> {
    let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join(PREPARE);
    let asked = Command::new(&prepare)
        .arg("--where")
        .output()
        .with_context(|| format!("failed to run {}", prepare.display()))?;
    let errors = String::from_utf8_lossy(&asked.stderr);
    ensure!(
        asked.status.success(),
        "{} --where: {}: {errors}",
        prepare.display(),
        asked.status
    );
    let folder = PathBuf::from(String::from_utf8(asked.stdout)?.trim_end());

    let needed = ["etcd", "kube-apiserver", "kubectl"];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|it| !folder.join(it).is_file())
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        bail!(
            "{missing} missing in {}; build once with: {PREPARE}",
            folder.display()
        );
    }
    Ok(folder)
}

/// Makes a cluster's folder and marks it as in use for as long as the returned file is open.
pub(crate) fn new_folder() -> Result<(TempDir, File)> {
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir()?;
    // It gets its name when it is locked: a lock that can be had means that nobody is there.
    let unnamed = folder.path().join("lock.new");
    let lock = File::create(&unnamed)?;
    lock.lock()?;
    fs::rename(unnamed, folder.path().join(LOCK))?;
    Ok((folder, lock))
}

/// Removes the folders of tests that were killed; their programs are gone already.
pub(crate) fn remove_leftovers() -> io::Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(FOLDER_PREFIX)
        {
            continue;
        }
        // No lock: it is being made or removed this moment.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        match lock.try_lock() {
            // Another test may be removing it too; whatever is left, the next start sees again.
            Ok(()) => fs::remove_dir_all(entry.path()).unwrap_or_default(),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the file of the users' tokens, and returns the tokens in the order of [`USERS`].
pub(super) fn write_tokens(folder: &Path) -> Result<Vec<String>> {
    let mut random = File::open("/dev/urandom")?;
    let mut tokens = Vec::new();
    let mut lines = String::new();
    for (user, group) in USERS {
        let mut bytes = [0; 16];
        random.read_exact(&mut bytes)?;
        let token = format!("{user}-{:032x}", u128::from_ne_bytes(bytes));
        writeln!(lines, "{token},{user},{user},{group}")?;
        tokens.push(token);
    }
    fs::write(folder.join(TOKENS), lines)?;
    Ok(tokens)
}

/// Returns a port that is free now.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

pub(crate) fn etcd(programs: &Path, folder: &Path) -> Command {
    let mut command = Command::new(programs.join("etcd"));
    command
        .current_dir(folder)
        .args(["--name=only", "--data-dir=etcd", "--log-level=warn"])
        // The data need not survive the machine.
        .arg("--unsafe-no-fsync")
        .arg(format!("--listen-client-urls={ETCD_CLIENTS}"))
        .arg(format!("--advertise-client-urls={ETCD_CLIENTS}"))
        .arg(format!("--listen-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-advertise-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-cluster=only={ETCD_PEERS}"));
    command
}

pub(super) fn kube_apiserver(programs: &Path, folder: &Path, port: u16, etcd: &str) -> Command {
    let mut command = Command::new(programs.join("kube-apiserver"));
    command
        .current_dir(folder)
        // The start allocates a lot: a fifth less of processor time for 45 MB more of memory.
        .env("GOGC", "200")
        .arg(format!("--etcd-servers={etcd}"))
        .arg(format!("--cert-dir={CERTIFICATES}"))
        .args(["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={port}")])
        // Otherwise it refuses a loopback address, after half a minute.
        .arg("--endpoint-reconciler-type=none")
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        .arg("--authorization-mode=RBAC")
        .arg(format!("--token-auth-file={TOKENS}"))
        // The serving key, made at each start, signs the service accounts' tokens too.
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!("--service-account-key-file={PRIVATE_KEY}"))
        .arg(format!("--service-account-signing-key-file={PRIVATE_KEY}"))
        // As in a real cluster, so that Pod Security is what decides about it.
        .arg("--allow-privileged=true")
        // Nobody creates the service account that each pod would need.
        .arg("--disable-admission-plugins=ServiceAccount");
    command
}

/// Returns the authority that signed the API server's certificate, once the server has written it.
///
/// The file holds the server's own certificate, then the authority's.
pub(crate) fn authority(folder: &Path) -> io::Result<Option<String>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let chain = match fs::read_to_string(folder.join(CERTIFICATE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        chain => chain?,
    };
    let mut certificates = chain.split_inclusive("-----END CERTIFICATE-----\n");
    let authority = certificates
        .nth(1)
        .filter(|it| it.starts_with(BEGIN) && it.ends_with('\n'));
    Ok(authority.map(str::to_owned))
}

/// Writes a kubeconfig that can be handed to any program.
pub(super) fn write_kubeconfig(
    file: &Path,
    authority: &Path,
    port: u16,
    user: &str,
    token: &str,
) -> io::Result<()> {
    let authority = authority.display();
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: world
contexts:
  - name: world
    context: {{ cluster: world, user: {user} }}
clusters:
  - name: world
    cluster:
      server: https://127.0.0.1:{port}
      certificate-authority: {authority}
users:
  - name: {user}
    user: {{ token: {token} }}
"
    );
    fs::write(file, text)
}
