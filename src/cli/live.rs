//! Reading AWS for a person: everything that the operator would look at before it writes, and no
//! write.
//!
//! # Guarantees
//!
//! The supervisor of these calls never allows a write, so none could be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::Client;

use super::source::Known;
use crate::api::arn::EntityArn;
use crate::aws::domain::{self as aws_domain, ObservedDomain};
use crate::aws::error::Error as AwsError;
use crate::aws::identity;
use crate::aws::session::{Clients, SessionError, SessionKey, Sessions};
use crate::aws::supervisor::ReadOnly;
use crate::kubernetes::record::{self, Recorded};
use crate::offline::plan;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::evidence::Existence;
use crate::policy::fine_grained::entity::SecurityConfig;
use crate::runtime;
use crate::security::client::{Connections, Plugin};

/// How many domains are read at a time, and of each how many principals looked up.
const AT_A_TIME: usize = 8;

/// The longest that the look-ups of one domain's principals may take together.
const LOOKUP_LIMIT: Duration = Duration::from_secs(20);

/// A role's ARN, and the external id that it asks for.
pub(super) type Role = (String, Option<String>);

/// Runs what waits for a cluster or AWS.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    runtime::tls::install()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    Ok(runtime.block_on(future))
}

/// AWS, as whoever runs the program.
pub(super) struct Aws {
    sessions: Sessions,
    /// Whether roles that manifests name are left alone.
    own_identity: bool,
    /// The connections to domains, or why there can be none.
    connections: Result<Connections, String>,
}

impl Aws {
    /// Finds credentials by the SDK's default chain.
    ///
    /// # Errors
    ///
    /// Fails where the authorities, by which the endpoints of domains are trusted beside the
    /// machine's own, cannot be read.
    pub(super) async fn load(
        own_identity: bool,
        authorities: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let connections = Connections::trusting(authorities);
        if let (Some(_), Err(message)) = (authorities, &connections) {
            bail!("failed to read --domain-ca: {message}");
        }
        Ok(Self {
            sessions: Sessions::load(Arc::new(ReadOnly)).await,
            own_identity,
            connections,
        })
    }

    /// Reads what a domain's security plugin has.
    async fn plugin_of(
        &self,
        clients: &Clients,
        described: &ObservedDomain,
        region: &str,
    ) -> Result<SecurityConfig, String> {
        let connections = self.connections.clone()?;
        let endpoint = described.endpoint.as_deref();
        let endpoint = endpoint.ok_or("AWS names no endpoint of the domain yet")?;
        let clients = clients.clone();
        let plugin = Plugin::new(connections, clients, endpoint, region, described.engine);
        plugin.read().await.map_err(|error| error.to_string())
    }

    /// Reads a domain that no manifest tells of.
    pub(super) async fn alone(
        &self,
        name: &str,
        region: &str,
        role: Option<Role>,
    ) -> anyhow::Result<Alone> {
        let clients = self
            .sessions
            .unchecked(region, role, &session_name(name))
            .await;
        let place = format!("domain {name} in {region}");
        let described = aws_domain::describe(&clients, name).await;
        let described = described.map_err(|error| anyhow!("{place}: {}", told(&error)))?;
        let policy = Document::parse(&described.policy);
        let policy = policy.with_context(|| format!("{place}: its policy cannot be read"))?;
        Ok(Alone {
            clients,
            region: region.to_owned(),
            described,
            policy,
        })
    }

    /// Reads what the security plugin of such a domain has.
    pub(super) async fn roles_of(&self, alone: &Alone) -> Result<SecurityConfig, String> {
        let (clients, described) = (&alone.clients, &alone.described);
        self.plugin_of(clients, described, &alone.region).await
    }

    async fn read(&self, domain: &Domain) -> Result<Read, String> {
        let role = domain.assume_role.as_ref().filter(|_| !self.own_identity);
        let key = SessionKey {
            account: domain.account.clone(),
            region: domain.region.clone(),
            role: role.map(|(arn, external_id)| (arn.to_string(), external_id.clone())),
            session_name: session_name(&domain.domain_name),
        };
        let clients = self.sessions.clients(&key).await.map_err(|error| match error {
            SessionError::Aws(error) => told(&error),
            SessionError::OtherAccount { ours, wanted } => format!(
                "your AWS identity is of account {ours}, and the domain is in account {wanted}: use a profile of that account (AWS_PROFILE), or name a role in spec.assumeRole"
            ),
        })?;
        let described = aws_domain::describe(&clients, &domain.domain_name);
        let described = described.await.map_err(|error| match error {
            AwsError::NotFound => format!(
                "AWS has no domain {}: create it, or correct the manifest",
                domain.arn
            ),
            error => told(&error),
        })?;
        if described.arn != domain.arn.as_str() {
            return Err(format!(
                "AWS describes {}, and the manifest names {}",
                described.arn, domain.arn
            ));
        }
        let policy = Document::parse(&described.policy)
            .map_err(|error| format!("{error}: repair it in AWS"))?;
        Ok(Read {
            clients,
            described,
            policy,
        })
    }
}

/// A domain that no manifest tells of, as AWS has it.
pub(super) struct Alone {
    clients: Clients,
    region: String,
    /// What AWS says of it.
    pub(super) described: ObservedDomain,
    /// Its access policy.
    pub(super) policy: Document,
}

/// A domain as AWS has it.
struct Read {
    clients: Clients,
    described: ObservedDomain,
    policy: Document,
}

/// Names the session, which the account's audit trail carries, as a person's and not the operator's.
fn session_name(domain: &str) -> String {
    format!("opensearch-access-cli.{domain}")
}

/// Says what to do about an error of AWS.
fn told(error: &AwsError) -> String {
    if error.lacks_credentials() {
        return "no AWS credentials were found: set AWS_PROFILE or AWS_ACCESS_KEY_ID; for a session of `aws sso login`, run eval \"$(aws configure export-credentials --format env)\" first".to_owned();
    }
    let advice = match error {
        AwsError::NotFound => ": correct the name, the region, or the account of your AWS profile",
        AwsError::AccessDenied {
            operation: "AssumeRole",
            ..
        } => {
            ": ask for a trust policy that lets you assume the role, or read with your own identity (--own-identity)"
        }
        AwsError::AccessDenied { .. } => {
            ": use credentials that may call es:DescribeDomain and es:DescribeDomainConfig on the domain"
        }
        AwsError::Throttled { .. } => ": try again in a moment",
        _ => "",
    };
    format!("{error}{advice}")
}

/// Adds what AWS and the operator's records say of the domains.
///
/// What cannot be read of one domain is said of that one, and the others go on.
pub(super) async fn complete(
    known: &mut Known,
    cluster: Option<(Client, &str)>,
    aws: Option<&Aws>,
    only: Option<&str>,
    now: Timestamp,
) {
    let objects = known.manifests.domains.values();
    let domains = objects.filter_map(|it| Domain::parse(&it.object).ok());
    let domains: Vec<Domain> = domains
        .filter(|domain| only.is_none_or(|only| only == domain.name))
        .collect();
    let records = stream::iter(&domains)
        .map(|domain| last_applied(cluster.as_ref(), domain))
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    for (domain, record) in domains.iter().zip(records) {
        match record {
            Ok(found) => {
                let name = &domain.name;
                let (applied, defined) = (found.policy, found.definitions);
                let current = &mut known.current;
                current.applied.extend(applied.map(|it| (name.clone(), it)));
                current.defined.extend(defined.map(|it| (name.clone(), it)));
            }
            Err(note) => known.notes.push(note),
        }
    }
    let Some(aws) = aws else { return };
    let asked = domains
        .into_iter()
        .filter(|domain| !known.current.policies.contains_key(&domain.name));
    let reads = stream::iter(asked)
        .map(|domain| async move {
            let read = aws.read(&domain).await;
            (domain, read)
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    for (domain, read) in reads {
        let name = domain.name.clone();
        match read {
            Ok(read) => {
                if read.described.facts.fine_grained && asks_for_roles(known, &name) {
                    let roles = aws.plugin_of(&read.clients, &read.described, &domain.region);
                    match roles.await {
                        Ok(config) => _ = known.current.security.insert(name.clone(), config),
                        Err(why) => known.notes.push(format!(
                            "{name}: the roles of its security plugin could not be read, so what manifests say of them is all that is known: {why}"
                        )),
                    }
                }
                known
                    .current
                    .facts
                    .insert(name.clone(), read.described.facts);
                let engine = read.described.engine;
                known.current.engines.insert(name.clone(), engine);
                known.current.policies.insert(name.clone(), read.policy);
                known.described.insert(name, read.described);
                let named = plan::entities(&domain, &known.manifests, &known.current, now);
                let (answers, unknown) = look_up(&read.clients, named).await;
                known.current.principals.extend(answers);
                known.notes.extend(
                    unknown.map(|why| {
                        format!("{}: not all principals were checked: {why}", domain.name)
                    }),
                );
            }
            Err(failure) => _ = known.current.failures.insert(name, failure),
        }
    }
}

/// Tells whether a manifest asks for, or defines, anything in a domain's security plugin.
fn asks_for_roles(known: &Known, domain: &str) -> bool {
    let mut grants = known.manifests.grants.values().map(|it| &it.object.spec);
    let mut definitions = known.manifests.definitions.values();
    grants.any(|it| it.domain_ref.name == domain && !it.security_roles.is_empty())
        || definitions.any(|it| it.object.domain == domain)
}

/// Reads what the operator wrote; an error is a note, since the plan can do without.
async fn last_applied(
    cluster: Option<&(Client, &str)>,
    domain: &Domain,
) -> Result<Recorded, String> {
    let Some((client, namespace)) = cluster else {
        return Ok(Recorded::default());
    };
    let assumed = "so statements that say what grants ask for count as the operator's";
    match record::read(client, namespace, &domain.name).await {
        Ok(found) if found.policy.is_some() || found.definitions.is_some() => Ok(found),
        Ok(_) => Err(format!(
            "{}: the operator has no record in namespace {namespace} (--operator-namespace), {assumed}",
            domain.name
        )),
        Err(error) => Err(format!("{}: {error}; {assumed}", domain.name)),
    }
}

/// Asks IAM whether principals exist; why some could not be asked for is the second.
///
/// The operator asks with its own rights: that a person may not ask refuses no grant.
async fn look_up(
    clients: &Clients,
    named: BTreeSet<EntityArn>,
) -> (BTreeMap<EntityArn, Existence>, Option<String>) {
    let mut answers = BTreeMap::new();
    let mut unknown = None;
    let mut asked = stream::iter(named)
        .map(|arn| async move {
            let exists = identity::exists(clients, &arn).await;
            (arn, exists)
        })
        .buffer_unordered(AT_A_TIME);
    let asking = async {
        while let Some((arn, exists)) = asked.next().await {
            match exists {
                Ok(true) => _ = answers.insert(arn, Existence::Exists),
                Ok(false) => _ = answers.insert(arn, Existence::Missing),
                Err(error) => unknown = Some(error.brief()),
            }
        }
    };
    if tokio::time::timeout(LOOKUP_LIMIT, asking).await.is_err() {
        unknown = Some("IAM did not answer in time".to_owned());
    }
    (answers, unknown)
}
