//! `explain`: its arguments, and what it prints.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::{ArgGroup, ValueEnum};
use jiff::Timestamp;

use super::say;
use super::source::{self, Asks};
use crate::api::arn::DomainArn;
use crate::offline::explain::Subject;
use crate::offline::manifest::{CLUSTER, Manifests};
use crate::offline::plan::World;
use crate::offline::roles::Roles;
use crate::offline::{html, plan, table};
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::evaluate::Question;
use crate::policy::plan::Outcome;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject")
    .args(["filenames", "cluster", "policy", "domain_name"]).required(true).multiple(true))]
pub(super) struct Args {
    /// A policy document to explain by itself, instead of manifests.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifests", "live"])]
    policy: Option<PathBuf>,
    /// The domain that the policy document is of; absent: the one that its resources name.
    #[arg(long, value_name = "ARN", requires = "policy", value_parser = DomainArn::parse)]
    domain_arn: Option<DomainArn>,
    /// How to print; `html` is for the whole matrix only.
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    source: source::Args,
    #[command(flatten)]
    alone: source::DomainArgs,
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
    } else if let Some((alone, roles)) =
        args.alone.read_both(args.source.aws.domain_ca.as_deref())?
    {
        let arn = DomainArn::parse(&alone.described.arn)?;
        let mut subject = Subject::of_policy(alone.policy, Some(arn))?;
        match roles.transpose() {
            Ok(config) => subject.roles = config.map(Roles::of_plugin),
            Err(why) => say::note(format_args!(
                "the roles of its security plugin could not be read, so this is about the access policy alone: {why}"
            ))?,
        }
        subject
    } else {
        subject(&args.source, now)?
    };
    match (request, args.output) {
        (Some(request), Output::Json) => say::json(&subject.answer(&request))?,
        (Some(request), _) => say::print_coloured(table::answer(&subject.answer(&request)))?,
        (None, Output::Json) => say::json(&subject.matrix())?,
        (None, Output::Html) => say::print(html::matrix(&subject.matrix()))?,
        (None, Output::Table) => say::print_coloured(table::matrix(&subject.matrix()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Chooses the domain that is meant.
fn chosen(args: &source::Args, manifests: &Manifests) -> anyhow::Result<String> {
    let known = manifests.domains.keys();
    let known: Vec<&str> = known
        .chain(manifests.unusable_domains.keys())
        .map(String::as_str)
        .collect();
    let place = args.place();
    for (name, _) in &args.current {
        if !known.contains(&name.as_str()) {
            bail!("--current: no OpenSearchDomain {name:?} is {place}");
        }
    }
    match (&args.domain, known.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [one]) => Ok((*one).to_owned()),
        (None, []) => bail!("no OpenSearchDomain is {place}"),
        (None, several) => bail!(
            "several OpenSearchDomains are {place}, say which one with --domain: {}",
            several.join(", ")
        ),
    }
}

/// Reads the domain that is meant with its grants, and says which of them are not in its policy.
fn subject(args: &source::Args, now: Timestamp) -> anyhow::Result<Subject> {
    let mut name = String::new();
    let known = args.read(Asks::WithCluster, now, |manifests| {
        for error in &manifests.errors {
            say::error(error)?;
        }
        name = chosen(args, manifests)?;
        Ok(Some(name.clone()))
    })?;
    let manifests = &known.manifests;
    for note in &known.notes {
        say::note(note)?;
    }
    if let Some(broken) = manifests.unusable_domains.get(&name) {
        return Err(unusable(&name, &broken.file, &broken.object));
    }
    // An object that this version cannot read is not a mistake of who asks.
    if manifests.errors.iter().any(|error| error.file != CLUSTER) {
        bail!("the manifests cannot be used, and an answer would be about half of them");
    }
    let Some(sourced) = manifests.domains.get(&name) else {
        bail!("no OpenSearchDomain {name:?} is {}", args.place());
    };
    if let Some(failure) = known.current.failures.get(&name) {
        bail!("OpenSearchDomain {name}: {failure}");
    }
    let domain =
        Domain::parse(&sourced.object).map_err(|broken| unusable(&name, &sourced.file, &broken))?;
    let world = plan::world(domain, manifests, &known.current, now);
    let standing = args.manifests.filenames.is_empty();
    tell(&world, manifests, standing)?;
    Ok(if standing {
        Subject::of_standing(&world)
    } else {
        Subject::of_world(&world)
    })
}

/// Says what is wrong with a domain's manifest.
fn unusable(name: &str, file: &str, broken: &[Rejection]) -> anyhow::Error {
    for rejection in broken {
        // The error that follows says enough where this cannot be said.
        _ = say::error(format_args!("{file}: OpenSearchDomain {name}: {rejection}"));
    }
    anyhow!("OpenSearchDomain {name:?} cannot be used")
}

/// Says which grants are refused; `standing` says that what stands of them is explained still.
fn tell(world: &World, manifests: &Manifests, standing: bool) -> io::Result<()> {
    let left_out = |file: &str, grant: &str, rule: &str| {
        let how = if standing { "" } else { " and left out" };
        say::note(format_args!(
            "{file}: DomainAccess {grant} is refused{how}: {rule}"
        ))
    };
    for (key, outcome) in &world.plan.outcomes {
        let file = world.files.get(key).map(String::as_str).unwrap_or_default();
        match outcome {
            Outcome::Refused(rejection) | Outcome::Undecided(rejection) => {
                left_out(file, &key.to_string(), &rejection.to_string())?;
            }
            // What stands was proven when it was written.
            Outcome::Granted {
                service_accounts, ..
            } if !standing => {
                if let Some(note) = plan::unchecked(service_accounts) {
                    say::note(format_args!("{file}: DomainAccess {key}: {note}"))?;
                }
            }
            _ => {}
        }
    }
    let unusable = manifests.unusable_grants.iter();
    for unusable in unusable.filter(|it| it.domain == world.domain.name) {
        let (namespace, grant) = &unusable.grant;
        let broken = unusable.broken.object.iter();
        let broken: Vec<String> = broken.map(ToString::to_string).collect();
        left_out(
            &unusable.broken.file,
            &format!("{namespace}/{grant}"),
            &broken.join("; "),
        )?;
    }
    if let Some(hold) = world.plan.hold.as_ref().filter(|_| !standing) {
        say::note(format_args!(
            "nothing would be written, this is about the policy as it is: {}",
            hold.message
        ))?;
    }
    Ok(())
}
