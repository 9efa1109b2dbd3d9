//! `world`: the parts that the tests run against, started for a person to try things in.
//!
//! ```text
//! world up     -> etcd, kube-apiserver, fake AWS -> DIR/env -> until Ctrl-C, then all gone
//!                 (--opensearch: and a domain with a real OpenSearch node behind it)
//! world policy -> the access policy that a domain of the fake AWS has now
//! world ask    -> what the domain with a node answers to a role, or to its admin
//! world node   -> a whole node that runs pods, with everything around it -> a command -> all gone
//! ```
//!
//! `DIR/env` appears in one piece when everything is ready, and is removed at the end: a script may
//! wait for it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use common::{
    cluster::Cluster,
    fake_aws::{Credentials, DomainOptions, FakeAws},
    gateway::{Gateway, ask_at, authority, client_trusting},
    node::namespaces::INSIDE,
    opensearch::Node,
};

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod node;
    pub(crate) mod opensearch;
    pub(crate) mod parts;
    pub(crate) mod pod_identity_webhook;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod node;

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
        /// Also starts an OpenSearch node, behind a domain with fine-grained access control.
        #[arg(long)]
        opensearch: bool,
    },
    /// Sends a signed request to the domain with a node, and prints what it answers.
    Ask {
        /// Who asks.
        #[arg(value_enum)]
        who: Who,
        /// The method, such as `GET`.
        method: String,
        /// The path, such as `/logs/_search`.
        path: String,
        /// The body: JSON.
        body: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Starts a whole node that runs pods (root is needed), with a fake AWS and OpenSearch behind domain
    /// `logs`, and runs a command beside it. All of it ends with the command.
    ///
    /// The command finds `KUBECONFIG`, `AWS_ENDPOINT_URL` and keys, `DOMAIN_CA`, `OPERATOR_IMAGE`, and
    /// `OPERATOR_OVERLAY`: `kubectl apply --server-side -k "$OPERATOR_OVERLAY"` installs the operator. The
    /// service accounts `api` (IRSA) and `batch` (Pod Identity) of namespace `shop` have the roles
    /// `shop-api` and `shop-batch`.
    Node {
        /// Such as `bash`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
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

/// Who asks a domain.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Who {
    /// The operator's own identity, which may do everything.
    Admin,
    /// A session of the demo's role.
    Role,
}

/// Where the domain is, and who may ask it, as `DIR/env` of a world with a node says.
#[derive(clap::Args)]
struct Place {
    #[arg(long, env = "DOMAIN_CA", hide = true)]
    authority: PathBuf,
    #[arg(long, env = "DEMO_ENDPOINT", hide = true)]
    endpoint: String,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide = true)]
    admin_key: String,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide = true)]
    admin_secret: String,
    #[arg(long, env = "DEMO_ROLE_ACCESS_KEY_ID", hide = true)]
    role_key: String,
    #[arg(long, env = "DEMO_ROLE_SECRET_ACCESS_KEY", hide = true)]
    role_secret: String,
    #[arg(long, env = "DEMO_ROLE_SESSION_TOKEN", hide = true)]
    role_token: String,
}

/// The domain that has a node, where one is wanted.
const LOGS: &str = "my-logs";

#[tokio::main]
async fn main() -> ExitCode {
    let own: Vec<OsString> = std::env::args_os().skip(1).collect();
    let arguments = match own.as_slice() {
        [inside, _, arguments @ ..] if inside == INSIDE => arguments,
        arguments => arguments,
    };
    let name = [OsString::from("world")].into_iter();
    let done = match Args::parse_from(name.chain(arguments.iter().cloned())).command {
        Command::Node { command } => return ended(node::run(own, &command).await),
        Command::Up {
            dir,
            crds,
            opensearch,
        } => up(&dir, crds, opensearch).await,
        Command::Ask {
            who,
            method,
            path,
            body,
            place,
        } => ask(who, place, &method, &path, body.as_deref()).await,
        Command::Policy { domain, endpoint } => print_policy(&domain, &endpoint),
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

fn ended(done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Starts everything, and ends it when it is told to.
async fn up(dir: &Path, crds: bool, opensearch: bool) -> Result<()> {
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
        failed = run(dir, crds, opensearch) => failed,
    }
}

/// Runs the world until it fails.
async fn run(dir: &Path, crds: bool, opensearch: bool) -> Result<()> {
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
    let gateway = if opensearch {
        eprintln!("==> starting OpenSearch with its security plugin (6 s)");
        let options = DomainOptions::default().fine_grained();
        aws.account(ACCOUNT).domain_with(LOGS, REGION, options);
        let node = Arc::new(Node::start().await);
        Some(Gateway::open(&aws, LOGS, node).await)
    } else {
        None
    };
    env.write(&cluster, &aws, gateway.as_ref())?;
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
    fn write(&self, cluster: &Cluster, aws: &FakeAws, gateway: Option<&Gateway>) -> Result<()> {
        let (access_key_id, secret_access_key) = aws.credentials(ACCOUNT);
        let mut variables = vec![
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
        if let Some(gateway) = gateway {
            let keys = aws.session(ACCOUNT, ROLE, "demo");
            let token = keys.session_token.unwrap_or_default();
            let authority = authority().display().to_string();
            variables.extend([
                ("DOMAIN_CA", quoted(&authority)),
                ("DEMO_ENDPOINT", quoted(gateway.endpoint())),
                ("DEMO_ROLE_ACCESS_KEY_ID", quoted(&keys.access_key_id)),
                (
                    "DEMO_ROLE_SECRET_ACCESS_KEY",
                    quoted(&keys.secret_access_key),
                ),
                ("DEMO_ROLE_SESSION_TOKEN", quoted(&token)),
            ]);
        }
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

With --opensearch, domain {LOGS} has a real OpenSearch behind it, with fine-grained access control
(deploy/examples-fine-grained is for it); ask it as its admin, or as role {ROLE}:

  kubectl create namespace search
  kubectl apply -f deploy/examples-fine-grained/ && kubectl get domainroles -A
  cargo run -q --example world -- ask admin PUT '/search-1/_doc/1?refresh=true' '{{\"public\": true}}'
  cargo run -q --example world -- ask role GET /search-1/_search
  cargo run -q -- explain --cluster --domain {LOGS}

The role of a service account, by EKS Pod Identity:

  curl -s $AWS_ENDPOINT_URL/_fake/associations -d '{{\"account\": \"{ACCOUNT}\", \"region\": \"{REGION}\",
    \"cluster\": \"{CLUSTER}\", \"namespace\": \"search\", \"serviceAccount\": \"api\",
    \"roleArn\": \"arn:aws:iam::{ACCOUNT}:role/{ROLE}\"}}'

Logs: {etcd_log}
      {apiserver_log}
Ctrl-C stops and removes all of it."
    );
}

/// Sends a request as an application would, and prints its status and the answer in short.
async fn ask(who: Who, place: Place, method: &str, path: &str, body: Option<&str>) -> Result<()> {
    let keys = match who {
        Who::Admin => Credentials {
            access_key_id: place.admin_key,
            secret_access_key: place.admin_secret,
            session_token: None,
            expires: None,
        },
        Who::Role => Credentials {
            access_key_id: place.role_key,
            secret_access_key: place.role_secret,
            session_token: Some(place.role_token),
            expires: None,
        },
    };
    let certificate = CertificateDer::from_pem_file(place.authority)?;
    let client = client_trusting(certificate);
    let (host, method) = (place.endpoint, method.parse()?);
    let body: Value = body
        .map(serde_json::from_str)
        .transpose()?
        .unwrap_or_default();
    let (status, said) = ask_at(&client, &host, Some(&keys), REGION, method, path, &body).await;
    let reasons = ["/error/reason", "/Message", "/hits/hits", "/result"];
    let short = reasons
        .iter()
        .find_map(|it| said.pointer(it))
        .unwrap_or(&said);
    println!("HTTP {status}: {short}");
    Ok(())
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
