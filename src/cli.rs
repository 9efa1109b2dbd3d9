//! The command line: types of each subcommand, and what each does with the libraries below.

mod cluster;
mod explain;
mod grants;
mod import;
mod lint;
mod live;
mod plan;
mod plugin;
mod proxy;
mod say;
mod serve;
mod sidecar;
mod source;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::api;
use crate::policy::document::Document;

/// Nothing would change.
const UNCHANGED: u8 = 0;
/// Something is wrong: input that cannot be used, or a grant that is refused.
const FAILED: u8 = 1;
/// Something would change.
const CHANGED: u8 = 2;
/// Nobody read on: what a shell says of a program that `SIGPIPE` ended, as it ends most.
const UNREAD: u8 = 141;

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
#[command(
    name = "opensearch-access-proxy",
    version,
    max_term_width = 100,
    // What the admin says of every sidecar comes after what is its own.
    args_override_self = true
)]
struct ProxyAlone {
    #[command(flatten)]
    args: proxy::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile: compile all grants of the cluster into the access policies of their domains.
    Controller(Box<serve::Controller>),
    /// Review pods and this operator's objects for the API server: pods that ask for it get a signing
    /// proxy.
    Webhook(Box<serve::Webhook>),
    /// Both, `controller` and `webhook`, in one process.
    Run(Box<serve::Run>),
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
    /// List the grants of a namespace, who each is for, and whether it is in force.
    Grants(grants::Args),
    /// Sign the requests of clients on this machine, and forward them to a domain.
    ///
    /// Any OpenSearch client works unsigned through it. Credentials come from the SDK's default
    /// chain: environment, profile, web identity, EKS Pod Identity, instance metadata.
    #[command(args_override_self = true)]
    Proxy(Box<proxy::Args>),
    /// Print the custom resource definitions.
    Crds(CrdsArgs),
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
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let mut command = Cli::command();
    if words.first().is_some_and(plugin::is_plugin) {
        command = plugin::named(command);
        plugin::of_cluster(&command, &mut words);
    }
    let read = command.try_get_matches_from(words);
    let read = read.and_then(|it| Cli::from_arg_matches(&it));
    read.map_err(|error| told(&error))
}

/// Reads the command line of the program that is the proxy alone, runs it, and gives the exit code.
#[must_use]
pub fn proxy_alone() -> ExitCode {
    let run = match ProxyAlone::try_parse() {
        Ok(ProxyAlone { args }) => proxy::run(args),
        Err(error) => return told(&error),
    };
    run.unwrap_or_else(|error| failed(&error))
}

/// Says why the program ends, in one line.
#[must_use]
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if say::is_unread(error) {
        return UNREAD.into();
    }
    // The exit code says it, too, where nobody reads this.
    _ = say::remark(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}

/// Prints why the command line cannot be used, or the help that it asks for.
fn told(error: &clap::Error) -> ExitCode {
    let asked = if error.use_stderr() {
        FAILED
    } else {
        UNCHANGED
    };
    match error.print() {
        Ok(()) => asked.into(),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => UNREAD.into(),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs the subcommand, and gives the program's exit code.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    anstream::ColorChoice::from(cli.color).write_global();
    match cli.command {
        Command::Controller(args) => args.run(),
        Command::Webhook(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(*args),
        Command::Lint(args) => lint::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Grants(args) => grants::run(&args),
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
            say::remark("# kubectl apply -f - reads this")?;
        }
        for definition in definitions {
            let text = serde_saphyr::to_string(&definition)?;
            say::print(format_args!("---\n{text}"))?;
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
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        ProxyAlone::command().debug_assert();
    }
}
