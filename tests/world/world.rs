//! `world`: the parts that the tests run against, started for a person to try things in.
//!
//! ```text
//! world up     -> etcd, kube-apiserver, fake AWS -> DIR/env -> until Ctrl-C, then all gone
//! world policy -> the access policy that a domain of the fake AWS has now
//! ```
//!
//! `DIR/env` appears in one piece when everything is ready, and is removed at the end: a script may
//! wait for it.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use common::{cluster::Cluster, fake_aws::FakeAws};

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

const ACCOUNT: &str = "111122223333";
const REGION: &str = "eu-west-1";
const DOMAIN: &str = "my-domain";
const ROLE: &str = "es-role";
const USER: &str = "es-user";
const CLUSTER: &str = "main";

/// Runs a Kubernetes API server and a fake AWS on this machine.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts etcd, kube-apiserver and the fake AWS, and stays until Ctrl-C or SIGTERM.
    Up {
        /// The folder for the file `env`, which points other programs to this world.
        #[arg(long, default_value = "target/world")]
        dir: PathBuf,
        /// Also applies the kinds in `crds/`.
        #[arg(long)]
        crds: bool,
    },
    /// Prints the access policy that a domain of the fake AWS has now.
    Policy {
        /// The domain's name, or its ARN if the name is not unique.
        domain: String,
        /// The address of the fake AWS.
        #[arg(long, env = "AWS_ENDPOINT_URL")]
        endpoint: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Up { dir, crds } => up(&dir, crds).await,
        Command::Policy { domain, endpoint } => print_policy(&domain, &endpoint),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts everything, and ends it when it is told to.
async fn up(dir: &Path, crds: bool) -> Result<()> {
    // From the first moment on: a start that is interrupted cleans up too.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let ended = async {
        tokio::select! {
            _ = interrupted.recv() => "SIGINT",
            _ = terminated.recv() => "SIGTERM",
            _ = hung_up.recv() => "SIGHUP",
        }
    };
    tokio::select! {
        ended = ended => {
            eprintln!("==> {ended}: everything is stopped and removed");
            Ok(())
        }
        failed = run(dir, crds) => failed,
    }
}

/// Runs the world until it fails.
async fn run(dir: &Path, crds: bool) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let lock = File::create(dir.join("lock"))?;
    if lock.try_lock().is_err() {
        bail!(
            "another world uses {}; stop it, or choose another folder with --dir",
            dir.display()
        );
    }
    // Of a world that was killed.
    let env = EnvFile(dir.join("env"));
    env.remove()?;

    eprintln!("==> starting etcd and kube-apiserver (3 to 5 s)");
    let mut cluster = Cluster::try_start().await?;
    eprintln!(
        "==> ready after {:.1} s",
        cluster.start_time().as_secs_f64()
    );
    if crds {
        let began = Instant::now();
        cluster.apply_crds().await?;
        eprintln!(
            "==> crds/ applied in {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
    let aws = FakeAws::start().await;
    aws.account(ACCOUNT)
        .role(ROLE)
        .user(USER)
        .domain(DOMAIN, REGION)
        .cluster(CLUSTER, REGION);
    env.write(&cluster, &aws)?;
    print_usage(&env.0, &cluster, &aws);
    loop {
        cluster.ensure_alive()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The file that points other programs to this world, for as long as it runs.
struct EnvFile(PathBuf);

impl EnvFile {
    /// Writes it in one piece: who sees it can use it.
    fn write(&self, cluster: &Cluster, aws: &FakeAws) -> Result<()> {
        let (access_key_id, secret_access_key) = aws.credentials(ACCOUNT);
        let variables = [
            (
                "KUBECONFIG",
                quoted(&cluster.kubeconfig().display().to_string()),
            ),
            ("AWS_ENDPOINT_URL", quoted(aws.url())),
            ("AWS_ACCESS_KEY_ID", quoted(&access_key_id)),
            ("AWS_SECRET_ACCESS_KEY", quoted(&secret_access_key)),
            ("AWS_REGION", quoted(REGION)),
            ("EKS_CLUSTER_NAME", quoted(CLUSTER)),
            // For tools in Python, which know only this one.
            ("AWS_DEFAULT_REGION", quoted(REGION)),
            (
                "PATH",
                format!(
                    r#"{}:"$PATH""#,
                    quoted(&cluster.programs().display().to_string())
                ),
            ),
        ];
        let unnamed = self.0.with_extension("new");
        let mut file = File::create(&unnamed)?;
        writeln!(file, "# Written by `world up`; gone when it ends.")?;
        // What belongs to somebody's real account would be used along with the key.
        writeln!(file, "unset AWS_SESSION_TOKEN AWS_PROFILE")?;
        for (name, value) in variables {
            writeln!(file, "export {name}={value}")?;
        }
        drop(file);
        fs::rename(unnamed, &self.0)?;
        Ok(())
    }

    fn remove(&self) -> std::io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl Drop for EnvFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("failed to remove {}: {error}", self.0.display());
        }
    }
}

/// Quotes a value for the shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn print_usage(env: &Path, cluster: &Cluster, aws: &FakeAws) {
    let env = quoted(&env.display().to_string());
    let url = aws.url();
    let [etcd_log, apiserver_log] = cluster.log_paths().map(Path::display);
    println!(
        "
The world is up: a Kubernetes API server, and a fake AWS at {url} with
  account {ACCOUNT}, region {REGION}, domain {DOMAIN} (public, no policy yet),
  role {ROLE}, user {USER} and EKS cluster {CLUSTER}.

In another terminal, in this folder, first:

  . {env}

Then kubectl, the operator and AWS tools use this world:

  kubectl create namespace opensearch-access
  cargo run -q -- controller &
  kubectl apply -f deploy/examples/ && kubectl get domainaccess -A -w

The domain's access policy, readable and raw; every version it had; every call that AWS was asked:

  cargo run -q --example world -- policy {DOMAIN}
  curl -s $AWS_ENDPOINT_URL/_fake/domains/{DOMAIN}/policy
  curl -s $AWS_ENDPOINT_URL/_fake/domains/{DOMAIN}/versions
  curl -s $AWS_ENDPOINT_URL/_fake/calls

The role of a service account, by EKS Pod Identity:

  curl -s $AWS_ENDPOINT_URL/_fake/associations -d '{{\"account\": \"{ACCOUNT}\", \"region\": \"{REGION}\",
    \"cluster\": \"{CLUSTER}\", \"namespace\": \"search\", \"serviceAccount\": \"api\",
    \"roleArn\": \"arn:aws:iam::{ACCOUNT}:role/{ROLE}\"}}'

Logs: {etcd_log}
      {apiserver_log}
Ctrl-C stops and removes all of it."
    );
}

fn print_policy(domain: &str, endpoint: &str) -> Result<()> {
    let policy = get(endpoint, &format!("/_fake/domains/{domain}/policy"))?;
    if policy.is_empty() {
        eprintln!("{domain} has no access policy");
        return Ok(());
    }
    let policy: Value = serde_json::from_str(&policy).context("the policy is not JSON")?;
    println!("{policy:#}");
    Ok(())
}

/// Asks the fake AWS's control API.
fn get(endpoint: &str, path: &str) -> Result<String> {
    let address = endpoint
        .strip_prefix("http://")
        .map(|it| it.trim_end_matches('/'));
    let Some(address) = address else {
        bail!("{endpoint} is not a world's address (http://127.0.0.1:PORT); source its env file");
    };
    let mut connection = TcpStream::connect(address)
        .with_context(|| format!("no world answers at {endpoint}; start one with `world up`"))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    // Read by its length: the fake AWS ends connections by resetting them.
    let mut answer = BufReader::new(connection);
    let mut status = String::new();
    answer.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        answer.read_line(&mut header)?;
        match header.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?;
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = String::new();
    answer.take(length).read_to_string(&mut body)?;
    match status.split(' ').nth(1) {
        Some("200") => Ok(body),
        _ => bail!("{}: {body}", status.trim_end()),
    }
}
