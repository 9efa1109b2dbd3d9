//! `lint`: its arguments, and what it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgGroup, ValueEnum};
use jiff::Timestamp;

use super::source::{self, Asks};
use super::{CHANGED, FAILED, UNCHANGED, say};
use crate::api::arn::DomainArn;
use crate::aws::domain::ObservedDomain;
use crate::offline::lint::Report;
use crate::offline::{explain, table};
use crate::policy::document::Document;
use crate::policy::lint::Subject;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject")
    .args(["filenames", "cluster", "policies", "domain_name"]).required(true).multiple(true))]
pub(super) struct Args {
    /// A policy document; may be repeated.
    #[arg(long = "policy", value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// The domain that the policy documents are of; absent: the one that the resources of each name.
    #[arg(long, value_name = "ARN", requires = "policies", value_parser = DomainArn::parse)]
    domain_arn: Option<DomainArn>,
    /// Says that the domain of the policy documents has fine-grained access control, which makes
    /// open statements and rules on paths sound.
    #[arg(long, requires = "policies")]
    fine_grained_access: bool,
    /// How to print the findings.
    #[arg(short, long, default_value = "text")]
    output: Output,
    #[command(flatten)]
    source: source::Args,
    #[command(flatten)]
    alone: source::DomainArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// One line each, for people.
    Text,
    /// One JSON document.
    Json,
}

/// Prints the findings.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let manifests = &args.source.manifests;
    let mut failed = false;
    if manifests.cluster || !manifests.filenames.is_empty() {
        let only = args.source.domain.clone();
        let now = Timestamp::now();
        let mut known = args
            .source
            .read(Asks::WhenTold, now, |_| Ok(only.clone()))?;
        if let Some(only) = &only {
            known.manifests.keep(only);
        }
        report.add_manifests(&known.manifests, &known.current, now);
        for described in known.described.values() {
            add_stored(&mut report, described);
        }
        for note in known.notes.iter().filter(|_| args.source.aws.live) {
            say::note(note)?;
        }
        for (name, failure) in &known.current.failures {
            say::error(format_args!("OpenSearchDomain {name}: {failure}"))?;
            failed = true;
        }
    }
    if let Some(alone) = args.alone.read()? {
        add_stored(&mut report, &alone.described);
    }
    for file in &args.policies {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        // Several domains are no error here: the statements of each are checked by themselves.
        let parsed = Document::parse(&text).ok();
        let named = parsed.and_then(|document| explain::domain_of(&document).ok());
        let subject = Subject {
            domain: args.domain_arn.as_ref().or(named.as_ref()),
            fine_grained: args.fine_grained_access,
        };
        report.add_policy(&file.display().to_string(), &text, subject);
    }
    match args.output {
        Output::Json => say::json(&report)?,
        Output::Text => say::print_coloured(table::findings(&report))?,
    }
    Ok(ExitCode::from(if failed || report.has_unusable() {
        FAILED
    } else if report.findings.is_empty() {
        UNCHANGED
    } else {
        CHANGED
    }))
}

/// Adds what is amiss with the policy that a domain has in AWS.
fn add_stored(report: &mut Report, described: &ObservedDomain) {
    // A domain without a policy is none of an empty document.
    if described.policy.is_empty() {
        return;
    }
    let arn = DomainArn::parse(&described.arn).ok();
    let subject = Subject {
        domain: arn.as_ref(),
        fine_grained: described.facts.fine_grained,
    };
    let place = format!("<aws> {}", described.arn);
    report.add_policy(&place, &described.policy, subject);
}
