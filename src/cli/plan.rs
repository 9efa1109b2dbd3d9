//! `plan`: its arguments, and what it prints.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, ValueEnum};
use jiff::Timestamp;

use super::source::{self, Asks, Known};
use super::{CHANGED, FAILED, UNCHANGED, say};
use crate::offline;
use crate::offline::manifest;
use crate::offline::plan::Report;
use crate::policy::document::{Document, Statement};
use crate::policy::ownership::LastApplied;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject").args(["filenames", "cluster"]).required(true).multiple(true))]
pub(super) struct Args {
    /// A policy document with the statements that the operator wrote, such as an earlier plan's
    /// accessPolicy, instead of the operator's record: what is in it, in the current policy, and in
    /// no manifest, is removed.
    #[arg(long, value_name = "DOMAIN=FILE", value_parser = super::assignment)]
    last_applied: Vec<(String, PathBuf)>,
    /// How to print the plan.
    #[arg(short, long, default_value = "diff")]
    output: Output,
    #[command(flatten)]
    source: source::Args,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// A coloured diff, for people.
    Diff,
    /// One JSON document.
    Json,
}

/// Prints the plan, and then what is wrong.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let last_applied = super::documents(&args.last_applied)?;
    let only = args.source.domain.clone();
    let mut known = args
        .source
        .read(Asks::WithCluster, now, |_| Ok(only.clone()))?;
    let applied = last_applied
        .into_iter()
        .map(|(name, document)| (name, written(&document)));
    known.current.applied.extend(applied);
    check_names(args, &mut known);

    let mut report = offline::plan::plan(&known.manifests, &known.current, now);
    report
        .domains
        .retain(|name, _| only.as_ref().is_none_or(|only| only == name));
    match args.output {
        Output::Json => say::json(&report)?,
        // That nothing was found is said by the errors.
        Output::Diff if report.domains.is_empty() && !known.manifests.errors.is_empty() => {}
        Output::Diff => say::print_coloured(offline::render::report(&report))?,
    }
    tell(&known, &report)?;
    Ok(ExitCode::from(
        if report.fails() || !known.manifests.errors.is_empty() {
            FAILED
        } else if report.changes() {
            CHANGED
        } else {
            UNCHANGED
        },
    ))
}

/// Takes the statements of a document for those that the operator wrote.
fn written(document: &Document) -> LastApplied {
    LastApplied {
        applied: document
            .statements()
            .iter()
            .map(Statement::to_value)
            .collect(),
        ..LastApplied::default()
    }
}

/// Makes sure that the domains which files are given for are there.
fn check_names(args: &Args, known: &mut Known) {
    let manifests = &mut known.manifests;
    for (name, _) in args.source.current.iter().chain(&args.last_applied) {
        if !manifests.domains.contains_key(name) && !manifests.unusable_domains.contains_key(name) {
            manifests.errors.push(manifest::Error {
                file: "command line".to_owned(),
                object: String::new(),
                field: "--current, --last-applied".to_owned(),
                rule: format!("no OpenSearchDomain {name:?} is {}", args.source.place()),
            });
        }
    }
}

/// Says what is wrong, and where, on standard error.
fn tell(known: &Known, report: &Report) -> io::Result<()> {
    for note in &known.notes {
        say::note(note)?;
    }
    for error in &known.manifests.errors {
        say::error(error)?;
    }
    for (domain, planned) in &report.domains {
        for refused in &planned.refused {
            say::error(format_args!(
                "{}: {} {}/{}: {} ({})",
                refused.file,
                refused.kind,
                refused.namespace,
                refused.name,
                refused.message,
                refused.reason
            ))?;
        }
        for held in planned.held.iter().chain(&planned.withheld) {
            let file = &planned.file;
            say::error(format_args!("{file}: OpenSearchDomain {domain}: {held}"))?;
        }
    }
    Ok(())
}
