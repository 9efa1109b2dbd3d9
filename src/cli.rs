//! The command line: types of each subcommand, and what each does with the libraries below.

mod cluster;
mod explain;
mod import;
mod lint;
mod live;
mod plan;
mod proxy;
mod say;
mod source;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::policy::document::Document;
use crate::policy::duration;
use crate::runtime::lease;
use crate::{api, controller, runtime};

/// Nothing would change.
const UNCHANGED: u8 = 0;
/// Something is wrong: input that cannot be used, or a grant that is refused.
const FAILED: u8 = 1;
/// Something would change.
const CHANGED: u8 = 2;

/// Grants access to Amazon OpenSearch Service domains from Kubernetes manifests.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Whether to colour what is printed; `auto`: on a terminal, unless `NO_COLOR` is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// In any case.
    Always,
    /// Never.
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// Signs the requests of clients on this machine, and forwards them to a domain.
///
/// Any OpenSearch client works unsigned through it. Credentials come from the SDK's default chain:
/// environment, profile, web identity, EKS Pod Identity, instance metadata.
#[derive(Debug, Parser)]
#[command(name = "opensearch-access-proxy", version, max_term_width = 100)]
struct ProxyAlone {
    #[command(flatten)]
    args: proxy::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile: compile all grants of the cluster into the access policies of their domains.
    Controller(ControllerArgs),
    /// Show what would be written: from manifests (-f), a cluster (--cluster), or manifests as if
    /// they were applied to the cluster (both).
    ///
    /// Nothing is written, neither to the cluster nor to AWS.
    ///
    /// Exit code: 0 no access policy would change, 2 one would change, 1 an input cannot be used or
    /// a grant is refused. What can be used is shown in any case.
    Plan(Box<plan::Args>),
    /// Say who may do what on a domain, and which manifest says so.
    ///
    /// With a question (an action, who asks, which path, from where) prints Allow, Deny or Unknown
    /// with the statements and manifests behind it; without one the whole access matrix. With
    /// manifests (-f) the policy is the one that a plan would write; without, the one that the
    /// domain has.
    ///
    /// Exit code: 0 with an answer, whatever it is, 1 an input cannot be used.
    Explain(Box<explain::Args>),
    /// Check manifests and policy documents against the rules of the service and of the operator.
    ///
    /// Each finding says its severity, its place, what to do, and its rule's name.
    ///
    /// Exit code: 0 nothing was found, 2 there are findings, 1 an input cannot be read for what it
    /// is.
    Lint(Box<lint::Args>),
    /// Turn a policy document into manifests that compile to what it allows.
    ///
    /// Statements that grants cannot express stay out, and are listed on standard error with the
    /// reason; in mode Merge the operator leaves them in the policy.
    ///
    /// Exit code: 0 the manifests are written, 1 an input cannot be used.
    Import(import::Args),
    /// Sign the requests of clients on this machine, and forward them to a domain.
    ///
    /// Any OpenSearch client works unsigned through it. Credentials come from the SDK's default
    /// chain: environment, profile, web identity, EKS Pod Identity, instance metadata.
    Proxy(Box<proxy::Args>),
    /// Print the custom resource definitions.
    Crds(CrdsArgs),
}

#[derive(Debug, clap::Args)]
struct ControllerArgs {
    /// The namespace in which the operator keeps its records; it must exist.
    #[arg(long, env = "OPERATOR_NAMESPACE", default_value = "opensearch-access")]
    namespace: String,
    /// Where to serve /healthz, /readyz and /metrics; port 0 takes a free one, and the log names it.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    #[command(flatten)]
    cluster: cluster::Args,
    /// The Lease, in the operator's namespace, that the one replica which reconciles holds.
    #[arg(long, env = "LEASE_NAME", default_value = "opensearch-access")]
    lease_name: String,
    /// How long a replica that is gone still leads, such as `15s`; at least 3s.
    #[arg(long, env = "LEASE_DURATION", default_value = "15s", value_parser = lease_duration)]
    lease_duration: Duration,
    /// What the replica is called in the Lease; a random part is added.
    #[arg(long, env = "HOSTNAME", default_value = "opensearch-access")]
    identity: String,
    /// Reconcile without a Lease: only where nothing ever starts a second replica.
    #[arg(long)]
    no_leader_election: bool,
    /// How long a deleted grant waits for its revocation before it is let go, such as `4m`. For tests:
    /// five minutes are what a namespace's deletion may be held up.
    #[arg(long, hide = true, default_value = "4m", value_parser = positive_duration)]
    revocation_limit: Duration,

    /// A PEM file with authorities to trust the endpoints of domains by, beside the machine's own:
    /// for a proxy that opens TLS connections.
    #[arg(long, env = "DOMAIN_CA", value_name = "FILE")]
    domain_ca: Option<PathBuf>,
    /// What to log, as `tracing` directives such as `info` or `opensearch_access=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log: String,
    /// How to log.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, clap::Args)]
struct CrdsArgs {
    /// Write one file a kind into this folder instead of printing.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .map(SignedDuration::unsigned_abs)
        .filter(|it| *it >= lease::SHORTEST)
        .ok_or_else(|| format!("write it as 15s or 1m, {:?} at least", lease::SHORTEST))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .map(SignedDuration::unsigned_abs)
        .ok_or_else(|| "write it as 30s or 4m".to_owned())
}

impl From<ControllerArgs> for controller::Config {
    fn from(args: ControllerArgs) -> Self {
        let lease = lease::Config {
            namespace: args.namespace.clone(),
            name: args.lease_name,
            identity: format!("{}_{:016x}", args.identity, fastrand::u64(..)),
            duration: args.lease_duration,
        };
        Self {
            namespace: args.namespace,
            admin_address: args.admin_address,
            cluster: args.cluster.into(),
            revocation_limit: args.revocation_limit,
            authorities: args.domain_ca,
            lease: (!args.no_leader_election).then_some(lease),
        }
    }
}

fn assignment(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((domain, file)) if !domain.is_empty() && !file.is_empty() => {
            Ok((domain.to_owned(), file.into()))
        }
        _ => Err("write it as DOMAIN=FILE".to_owned()),
    }
}

/// Reads the command line; where it cannot be used, or asks for help, that is printed.
///
/// # Errors
///
/// Gives the program's exit code: clap's own, 2, says here that something would change.
pub fn parse() -> Result<Cli, ExitCode> {
    read()
}

/// Reads the command line of the program that is the proxy alone, runs it, and gives the exit code.
#[must_use]
pub fn proxy_alone() -> ExitCode {
    let run = match read() {
        Ok(ProxyAlone { args }) => proxy::run(args),
        Err(code) => return code,
    };
    run.unwrap_or_else(failed)
}

/// Says why the program ends, in one line.
pub fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn read<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        let asked = if error.use_stderr() {
            FAILED
        } else {
            UNCHANGED
        };
        error.print().map_or(ExitCode::FAILURE, |()| asked.into())
    })
}

/// Runs the subcommand, and gives the program's exit code.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    anstream::ColorChoice::from(cli.color).write_global();
    match cli.command {
        Command::Controller(args) => {
            runtime::telemetry::init(&args.log, matches!(args.log_format, LogFormat::Json))?;
            runtime::tls::install()?;
            let config = controller::Config::from(args);
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("failed to start the runtime")?
                .block_on(controller::run(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(*args),
        Command::Lint(args) => lint::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Proxy(args) => proxy::run(*args),
        Command::Crds(args) => crds(&args),
    }
}

fn documents(files: &[(String, PathBuf)]) -> anyhow::Result<BTreeMap<String, Document>> {
    let mut documents = BTreeMap::new();
    for (domain, file) in files {
        let document = document(file)?;
        if documents.insert(domain.clone(), document).is_some() {
            bail!(
                "{}: domain {domain:?} is given a file twice",
                file.display()
            );
        }
    }
    Ok(documents)
}

/// Reads a policy document.
fn document(file: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read {}", file.display()))?;
    let policy = || format!("{} is not an access policy", file.display());
    let document = Document::parse(&text).with_context(policy)?;
    // What wraps a policy has statements somewhere below, and none itself.
    let members: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    if members.is_some_and(|members| members.get("Statement").is_none()) {
        bail!(
            "{}: it has no Statement; give the policy document itself (out of describe-domain-config: .DomainConfig.AccessPolicies.Options; out of an earlier plan: .domains[NAME].accessPolicy), or an empty file for none",
            policy()
        );
    }
    Ok(document)
}

fn crds(args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    let definitions = api::definitions();
    let Some(folder) = &args.write else {
        if io::stdout().is_terminal() {
            writeln!(io::stderr(), "# kubectl apply -f - reads this")?;
        }
        for definition in definitions {
            write!(
                io::stdout(),
                "---\n{}",
                serde_saphyr::to_string(&definition)?
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !folder.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    for definition in definitions {
        let file = folder.join(format!("{}.yaml", definition.spec.names.plural));
        std::fs::write(&file, serde_saphyr::to_string(&definition)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        ProxyAlone::command().debug_assert();
    }
}
