//! `explain`: its arguments, and what it prints.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use jiff::Timestamp;

use crate::api::arn::DomainArn;
use crate::offline::explain::Subject;
use crate::offline::plan::{Current, World};
use crate::offline::{html, manifest, plan, table};
use crate::policy::domain::Domain;
use crate::policy::evaluate::Question;
use crate::policy::plan::Outcome;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A manifest, a folder of manifests, or `-` for standard input; may be repeated.
    #[arg(
        short,
        long = "filename",
        value_name = "PATH",
        required_unless_present = "policy"
    )]
    filenames: Vec<PathBuf>,
    /// Which `OpenSearchDomain` of the manifests is meant, where they have several.
    #[arg(long, value_name = "NAME", requires = "filenames")]
    domain: Option<String>,
    /// The access policy that a domain has now, by the name of its `OpenSearchDomain`, as for plan.
    #[arg(long, value_name = "DOMAIN=FILE", value_parser = super::assignment, requires = "filenames")]
    current: Vec<(String, PathBuf)>,
    /// A policy document to explain by itself, instead of manifests.
    #[arg(long, value_name = "FILE", conflicts_with = "filenames")]
    policy: Option<PathBuf>,
    /// The domain that the policy document is of; absent: the one that its resources name.
    #[arg(long, value_name = "ARN", requires = "policy", value_parser = DomainArn::parse)]
    domain_arn: Option<DomainArn>,
    /// How to print; `html` is for the whole matrix only.
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    question: QuestionArgs,
}

/// The question; without an action, the whole access matrix is printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Question")]
struct QuestionArgs {
    /// The action, such as `es:ESHttpGet`.
    #[arg(long)]
    action: Option<String>,
    /// The caller's ARN: a role, a user, or a session of a role. Absent: an unsigned request.
    #[arg(long, value_name = "ARN", requires = "action")]
    principal: Option<String>,
    /// The path of the request, such as `/logs/_search`.
    #[arg(long, default_value = "/", requires = "action")]
    path: String,
    /// The public address that the request comes from.
    #[arg(long, value_name = "IP", requires = "action")]
    source_ip: Option<String>,
    /// The organization of the caller's account, such as `o-a1b2c3d4e5`.
    #[arg(long, value_name = "ID", requires = "action")]
    org_id: Option<String>,
    /// The VPC endpoint that the request comes through, such as `vpce-0a1b2c3d`.
    #[arg(long, value_name = "ID", requires = "action")]
    vpce: Option<String>,
    /// A condition key of the request, such as `aws:SourceVpc=vpc-0a1b2c3d`; may be repeated, and a
    /// key that comes again has several values.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "action")]
    context: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One HTML page that needs nothing else.
    Html,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains(':') => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, such as aws:SourceVpc=vpc-0a1b2c3d".to_owned()),
    }
}

/// Prints the answer, or the matrix.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = args.question;
    let now = Timestamp::now();
    let request = match question.action {
        None => None,
        Some(_) if args.output == Output::Html => {
            bail!("-o html prints the whole matrix: leave the question out")
        }
        Some(action) => {
            let question = Question {
                principal: question.principal,
                action,
                path: question.path,
                source_ip: question.source_ip,
                org_id: question.org_id,
                vpce: question.vpce,
                context: question.context,
            };
            Some(question.parse(now)?)
        }
    };
    let subject = if let Some(file) = args.policy {
        Subject::of_policy(super::document(&file)?, args.domain_arn)?
    } else {
        let current = Current {
            policies: super::documents(&args.current)?,
            ..Current::default()
        };
        let name = args.domain.as_deref();
        Subject::of_world(&world(&args.filenames, name, &current, now)?)
    };
    let mut out = anstream::stdout();
    match (request, args.output) {
        (Some(request), Output::Json) => {
            let answer = subject.answer(&request);
            writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
        }
        (Some(request), _) => write!(out, "{}", table::answer(&subject.answer(&request)))?,
        (None, Output::Json) => {
            writeln!(out, "{}", serde_json::to_string_pretty(&subject.matrix())?)?;
        }
        (None, Output::Html) => write!(io::stdout(), "{}", html::matrix(&subject.matrix()))?,
        (None, Output::Table) => write!(out, "{}", table::matrix(&subject.matrix()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans the domain that is meant, and says which of its grants are not in the plan.
fn world(
    files: &[PathBuf],
    name: Option<&str>,
    current: &Current,
    now: Timestamp,
) -> anyhow::Result<World> {
    let manifests = manifest::read(files, io::stdin());
    for error in &manifests.errors {
        writeln!(io::stderr(), "error: {error}")?;
    }
    let known = manifests.domains.keys();
    let known: Vec<&str> = known
        .chain(manifests.unusable_domains.keys())
        .map(String::as_str)
        .collect();
    let name = match (name, known.as_slice()) {
        (Some(name), _) => name,
        (None, [one]) => one,
        (None, []) => bail!("no OpenSearchDomain is among the manifests"),
        (None, several) => bail!(
            "several OpenSearchDomains are among the manifests, say which one with --domain: {}",
            several.join(", ")
        ),
    };
    if let Some(broken) = manifests.unusable_domains.get(name) {
        for rejection in &broken.object {
            let file = &broken.file;
            writeln!(
                io::stderr(),
                "error: {file}: OpenSearchDomain {name}: {rejection}"
            )?;
        }
        bail!("OpenSearchDomain {name:?} cannot be used");
    }
    for name in current.policies.keys() {
        if !known.contains(&name.as_str()) {
            bail!("--current: no OpenSearchDomain {name:?} is among the manifests");
        }
    }
    let Some(sourced) = manifests.domains.get(name) else {
        bail!("no OpenSearchDomain {name:?} is among the manifests");
    };
    if !manifests.errors.is_empty() {
        bail!("the manifests cannot be used, and an answer would be about half of them");
    }
    let domain = match Domain::parse(&sourced.object) {
        Ok(domain) => domain,
        Err(broken) => {
            for rejection in broken {
                let file = &sourced.file;
                writeln!(
                    io::stderr(),
                    "error: {file}: OpenSearchDomain {name}: {rejection}"
                )?;
            }
            bail!("OpenSearchDomain {name:?} cannot be used");
        }
    };
    let world = plan::world(domain, &manifests, current, now);
    for (key, outcome) in &world.plan.outcomes {
        if let Outcome::Refused(rejection) | Outcome::Undecided(rejection) = outcome {
            let file = world.files.get(key).map(String::as_str).unwrap_or_default();
            left_out(file, &key.to_string(), &rejection.to_string())?;
        }
    }
    for unusable in manifests
        .unusable_grants
        .iter()
        .filter(|it| it.domain == name)
    {
        let (namespace, grant) = &unusable.grant;
        let broken: Vec<String> = unusable
            .broken
            .object
            .iter()
            .map(ToString::to_string)
            .collect();
        left_out(
            &unusable.broken.file,
            &format!("{namespace}/{grant}"),
            &broken.join("; "),
        )?;
    }
    if let Some(hold) = &world.plan.hold {
        writeln!(
            io::stderr(),
            "note: nothing would be written, this is about the policy as it is: {}",
            hold.message
        )?;
    }
    Ok(world)
}

fn left_out(file: &str, grant: &str, rule: &str) -> io::Result<()> {
    writeln!(
        io::stderr(),
        "note: {file}: DomainAccess {grant} is refused and left out: {rule}"
    )
}
