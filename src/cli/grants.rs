//! `grants`: its arguments, and what it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::{live, say};
use crate::kubernetes::{connect, objects};
use crate::offline::table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The namespace; absent: that of the kubeconfig's context.
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// The grants of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those on a domain, by the name of its `OpenSearchDomain`.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// The kubeconfig; absent: as kubectl finds it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; absent: its current one.
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// How to print.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// The objects, as one JSON array.
    Json,
}

/// Prints the grants.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut grants = live::block_on(async {
        let file = args.kubeconfig.as_deref();
        let client = connect::client(file, args.kube_context.as_deref()).await?;
        let usual = client.default_namespace().to_owned();
        let namespace = args.namespace.clone().unwrap_or(usual);
        let namespace = (!args.all_namespaces).then_some(namespace);
        objects::grants(&client, namespace.as_deref()).await
    })??;
    grants.retain(|it| {
        let wanted = args.domain.as_ref();
        wanted.is_none_or(|name| *name == it.spec.domain_ref.name)
    });
    match args.output {
        Output::Table => say::print_coloured(table::grants(&grants))?,
        Output::Json => say::json(&grants)?,
    }
    Ok(ExitCode::SUCCESS)
}
