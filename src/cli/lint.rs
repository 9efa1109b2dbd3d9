//! `lint`: its arguments, and what it prints.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;

use super::{CHANGED, FAILED, UNCHANGED};
use crate::api::arn::DomainArn;
use crate::offline::lint::Report;
use crate::offline::{explain, manifest, table};
use crate::policy::document::Document;
use crate::policy::lint::Subject;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A manifest, a folder of manifests, or `-` for standard input; may be repeated.
    #[arg(
        short,
        long = "filename",
        value_name = "PATH",
        required_unless_present = "policies"
    )]
    filenames: Vec<PathBuf>,
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
    if !args.filenames.is_empty() {
        let manifests = manifest::read(&args.filenames, io::stdin());
        report.add_manifests(&manifests, Timestamp::now());
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
        Output::Json => {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Output::Text => write!(anstream::stdout(), "{}", table::findings(&report))?,
    }
    Ok(ExitCode::from(if report.has_unusable() {
        FAILED
    } else if report.findings.is_empty() {
        UNCHANGED
    } else {
        CHANGED
    }))
}
