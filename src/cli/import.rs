//! `import`: its arguments, and what it writes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::ArgGroup;

use super::live::{self, Aws};
use super::{say, source};
use crate::api::arn::DomainArn;
use crate::offline;
use crate::policy::document::Document;
use crate::policy::import::{self, Target};
use crate::policy::validate::DomainFacts;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("subject").args(["policy", "live"]).required(true))]
pub(super) struct Args {
    /// The policy document.
    #[arg(long, value_name = "FILE", requires = "account")]
    policy: Option<PathBuf>,
    /// Read the policy, the account, and what kind of domain it is from AWS.
    #[arg(long)]
    live: bool,
    /// The domain's name in AWS.
    #[arg(long, value_name = "NAME")]
    domain_name: String,
    /// The domain's AWS account: 12 digits.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// The domain's region, such as `eu-west-1`.
    #[arg(long)]
    region: String,
    #[command(flatten)]
    role: source::RoleArgs,
    /// The namespace of the grants.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Write one file an object into this folder, which is made if need be, instead of printing;
    /// files that are there are not replaced.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

/// Writes the manifests.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (document, account, facts) = read(args)?;
    let target = Target {
        domain_name: args.domain_name.clone(),
        account,
        region: args.region.clone(),
        namespace: args.namespace.clone(),
        facts,
        assume_role: args.role.get(),
    };
    let imported = match import::import(&document, &target) {
        Ok(imported) => imported,
        Err(broken) => {
            let broken: Vec<String> = broken.into_iter().map(|it| it.rule).collect();
            bail!("the domain cannot be named so: {}", broken.join("; "));
        }
    };
    let files = offline::import::files(&imported)?;
    match &args.write {
        None => {
            for file in &files {
                say::print(format_args!("---\n{}", file.text))?;
            }
        }
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("failed to make the folder {}", folder.display()))?;
            if let Some(taken) = files
                .iter()
                .map(|it| folder.join(&it.name))
                .find(|it| it.exists())
            {
                bail!(
                    "{} is there already, and nothing was written",
                    taken.display()
                );
            }
            for file in &files {
                let path = folder.join(&file.name);
                let mut options = OpenOptions::new();
                let opened = options.write(true).create_new(true).open(&path);
                opened
                    .and_then(|mut opened| opened.write_all(file.text.as_bytes()))
                    .with_context(|| format!("failed to write {}", path.display()))?;
            }
        }
    }
    for left in &imported.left_out {
        say::remark(format_args!(
            "left out: Statement[{}]: {}",
            left.index, left.reason
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the policy, and whose it is.
fn read(args: &Args) -> anyhow::Result<(Document, String, DomainFacts)> {
    if let Some(file) = &args.policy {
        let account = args.account.clone().unwrap_or_default();
        return Ok((super::document(file)?, account, DomainFacts::default()));
    }
    let (name, region) = (&args.domain_name, &args.region);
    let read = async {
        let aws = Aws::load(false, None).await?;
        aws.alone(name, region, args.role.get()).await
    };
    let alone = live::block_on(read)??;
    let arn = DomainArn::parse(&alone.described.arn)?;
    if let Some(wanted) = args.account.as_ref().filter(|it| *it != arn.account()) {
        bail!("AWS describes {arn}, and --account says {wanted}: use a profile of that account");
    }
    let facts = alone.described.facts;
    Ok((alone.policy, arn.account().to_owned(), facts))
}
