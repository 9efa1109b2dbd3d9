//! What `plan`, `explain` and `lint` have in common: where manifests and policies come from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::bail;
use jiff::Timestamp;

use super::live::{self, Alone, Aws, Role};
use crate::aws::domain::ObservedDomain;
use crate::kubernetes::connect;
use crate::kubernetes::objects::{self, Objects};
use crate::offline::manifest::{self, CLUSTER, Defining, Manifests, Sourced};
use crate::offline::overlay;
use crate::offline::plan::Current;
use crate::policy::Rejection;
use crate::policy::fine_grained::entity::SecurityConfig;

/// Where manifests come from, and the policies that domains have now.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) manifests: ManifestArgs,
    /// Which `OpenSearchDomain` is meant, by its name; absent: all, where a command is about all.
    #[arg(long, value_name = "NAME", requires = "manifests")]
    pub(super) domain: Option<String>,
    /// The access policy that a domain has now, by the name of its `OpenSearchDomain`: out of a
    /// file instead of out of AWS; without it and without AWS, the domain has none. Statements
    /// that no manifest asks for count as other writers' and stay.
    #[arg(
        long,
        value_name = "DOMAIN=FILE",
        value_parser = super::assignment,
        requires = "manifests"
    )]
    pub(super) current: Vec<(String, PathBuf)>,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// Where manifests come from: one of the two, or both.
#[derive(Debug, clap::Args)]
#[group(id = "manifests", multiple = true)]
pub(super) struct ManifestArgs {
    /// A manifest, a folder of manifests, or `-` for standard input; may be repeated.
    #[arg(short, long = "filename", value_name = "PATH")]
    pub(super) filenames: Vec<PathBuf>,
    /// Take the objects of the cluster; manifests are laid over them, as if they were applied.
    #[arg(long)]
    pub(super) cluster: bool,
}

/// Which cluster, and what of it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// The kubeconfig; absent: as kubectl finds it.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; absent: its current one.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    kube_context: Option<String>,
    /// The namespace in which the operator keeps its records.
    #[arg(
        long,
        value_name = "NAME",
        env = "OPERATOR_NAMESPACE",
        default_value = "opensearch-access"
    )]
    operator_namespace: String,
}

/// Whether AWS is asked, and as whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "AWS")]
pub(super) struct AwsArgs {
    /// Read from AWS: the policies that domains have now, whether they are inside a VPC and have
    /// fine-grained access control, and whether principals exist. plan and explain do with
    /// --cluster, but for a domain with --current.
    #[arg(long)]
    pub(super) live: bool,
    /// Use your own AWS identity even where a domain's manifest names a role to assume.
    #[arg(long)]
    pub(super) own_identity: bool,
    /// A PEM file with authorities to trust domains' endpoints by, beside the machine's own.
    #[arg(long, env = "DOMAIN_CA", value_name = "FILE")]
    pub(super) domain_ca: Option<PathBuf>,
}

/// One domain of AWS, with no manifest.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "AWS")]
pub(super) struct DomainArgs {
    /// The domain's name in AWS: it alone is read, without any manifest.
    #[arg(long, value_name = "NAME", requires_all = ["live", "region"], conflicts_with = "manifests")]
    pub(super) domain_name: Option<String>,
    /// The domain's region, such as `eu-west-1`.
    #[arg(long, requires = "domain_name")]
    pub(super) region: Option<String>,
    #[command(flatten)]
    pub(super) role: RoleArgs,
}

/// The role to work through on a domain that no manifest tells of.
#[derive(Debug, clap::Args)]
pub(super) struct RoleArgs {
    /// The role of the domain's account to read it through; absent: your own AWS identity.
    #[arg(long, value_name = "ARN", requires = "domain_name")]
    assume_role: Option<String>,
    /// The external id that the role asks for.
    #[arg(long, value_name = "ID", requires = "assume_role")]
    external_id: Option<String>,
}

impl RoleArgs {
    /// Returns the role, and its external id.
    pub(super) fn get(&self) -> Option<Role> {
        let role = self.assume_role.clone()?;
        Some((role, self.external_id.clone()))
    }
}

impl DomainArgs {
    /// Reads the one domain of AWS that is named, if one is.
    pub(super) fn read(&self) -> anyhow::Result<Option<Alone>> {
        let (Some(name), Some(region)) = (&self.domain_name, &self.region) else {
            return Ok(None);
        };
        let read = live::block_on(async {
            let aws = Aws::load(false, None).await?;
            aws.alone(name, region, self.role.get()).await
        });
        read?.map(Some)
    }

    /// Reads it together with what its security plugin has, where it has fine-grained access
    /// control, or why that could not be read. `authorities` are trusted beside the machine's own.
    pub(super) fn read_both(&self, authorities: Option<&Path>) -> anyhow::Result<Option<Both>> {
        let (Some(name), Some(region)) = (&self.domain_name, &self.region) else {
            return Ok(None);
        };
        let read: anyhow::Result<anyhow::Result<Both>> = live::block_on(async {
            let aws = Aws::load(false, authorities).await?;
            let alone = aws.alone(name, region, self.role.get()).await?;
            let roles = if alone.described.facts.fine_grained {
                Some(aws.roles_of(&alone).await)
            } else {
                None
            };
            Ok((alone, roles))
        });
        read?.map(Some)
    }
}

/// A domain with the roles of its security plugin, or why they could not be read.
pub(super) type Both = (Alone, Option<Result<SecurityConfig, String>>);

/// What was read, as far as it could be.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The manifests.
    pub(super) manifests: Manifests,
    /// What is known beside them.
    pub(super) current: Current,
    /// What AWS says of each domain that was asked for.
    pub(super) described: BTreeMap<String, ObservedDomain>,
    /// What the reader should know.
    pub(super) notes: Vec<String>,
}

/// What AWS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// Whatever has no file is read from AWS once the cluster is.
    WithCluster,
    /// AWS is read where the command line says so.
    WhenTold,
}

impl Args {
    /// Reads the manifests, laid over the cluster's objects where both are asked for; and of the
    /// domains what AWS and the operator's record say. `choose` says which domain it is about, out
    /// of those that are there; `None` for all.
    pub(super) fn read(
        &self,
        asks: Asks,
        now: Timestamp,
        choose: impl FnOnce(&Manifests) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Known> {
        let policies = super::documents(&self.current)?;
        let files = manifest::read(&self.manifests.filenames, io::stdin());
        let from_aws = self.aws.live || self.manifests.cluster && asks == Asks::WithCluster;
        if !self.manifests.cluster && !from_aws {
            let only = choose(&files)?;
            let mut known = Known {
                manifests: files,
                ..Known::default()
            };
            known.current.policies = policies;
            self.check_names(&known.manifests, only.as_deref())?;
            return Ok(known);
        }
        live::block_on(async {
            let mut known = Known::default();
            let mut client = None;
            if self.manifests.cluster {
                let cluster = &self.cluster;
                let file = cluster.kubeconfig.as_deref();
                let opened = connect::client(file, cluster.kube_context.as_deref()).await?;
                let objects = objects::read(&opened).await?;
                known
                    .current
                    .unreadable
                    .clone_from(&objects.unreadable_grants);
                known.manifests = overlay::lay(files, of_cluster(objects));
                client = Some((opened, cluster.operator_namespace.as_str()));
            } else {
                known.manifests = files;
            }
            known.current.policies = policies;
            let only = choose(&known.manifests)?;
            self.check_names(&known.manifests, only.as_deref())?;
            let aws = if from_aws {
                let authorities = self.aws.domain_ca.as_deref();
                Some(Aws::load(self.aws.own_identity, authorities).await?)
            } else {
                None
            };
            live::complete(&mut known, client, aws.as_ref(), only.as_deref(), now).await;
            Ok(known)
        })?
    }

    /// Makes sure that what the command line names is there.
    fn check_names(&self, manifests: &Manifests, only: Option<&str>) -> anyhow::Result<()> {
        let is_there = |name: &str| {
            manifests.domains.contains_key(name) || manifests.unusable_domains.contains_key(name)
        };
        if let Some(name) = only.filter(|name| !is_there(name)) {
            bail!("no OpenSearchDomain {name:?} is {}", self.place());
        }
        Ok(())
    }

    /// Says where the objects came from.
    pub(super) fn place(&self) -> &'static str {
        match (self.manifests.cluster, self.manifests.filenames.is_empty()) {
            (true, true) => "in the cluster",
            (true, false) => "in the cluster or among the manifests",
            (false, _) => "among the manifests",
        }
    }
}

/// Returns a cluster's objects as if they were manifests.
fn of_cluster(objects: Objects) -> Manifests {
    fn sourced<T>(object: T) -> Sourced<T> {
        Sourced {
            object,
            file: CLUSTER.to_owned(),
        }
    }
    let mut manifests = Manifests {
        labels: objects.labels,
        ..Manifests::default()
    };
    for domain in objects.domains {
        let name = domain.metadata.name.clone().unwrap_or_default();
        manifests.domains.insert(name, sourced(domain));
    }
    for grant in objects.grants {
        let metadata = grant.metadata.clone();
        let name = (
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
        );
        manifests.grants.insert(name, sourced(grant));
    }
    for (domain, definition) in objects.definitions {
        let key = definition.key.clone();
        let object = Defining { domain, definition };
        manifests.definitions.insert(key, sourced(object));
    }
    for (object, error) in objects.unreadable_definitions {
        manifests.errors.push(manifest::Error {
            file: CLUSTER.to_owned(),
            object,
            field: String::new(),
            rule: format!("this version cannot read it: {error}"),
        });
    }
    for (name, rule) in objects.unreadable_domains {
        let broken = sourced(vec![Rejection::invalid("", rule)]);
        manifests.unusable_domains.insert(name, broken);
    }
    for grant in objects.unreadable_grants {
        manifests.errors.push(manifest::Error {
            file: CLUSTER.to_owned(),
            object: format!("DomainAccess {}", grant.key),
            field: String::new(),
            rule: format!("this version cannot read it: {}", grant.error),
        });
    }
    manifests
}
