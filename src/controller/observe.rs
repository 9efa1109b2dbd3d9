//! What is: the domain and its grants in the cluster, and the domain in AWS.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::Api;
use tokio::time::Instant;
use tracing::warn;

use super::context::Context;
use super::definers::{self, Definer};
use super::error::Error;
use super::guarded::{Grant, Unreadable};
use super::quarantine;
use super::queue::{Domain as GuardedDomain, NamespaceMeta};
use super::state::{Keeper, Kept};
use crate::api::access::DomainAccess;
use crate::api::arn::EntityArn;
use crate::api::domain::OpenSearchDomain;
use crate::aws::domain::{self as aws_domain, ObservedDomain};
use crate::aws::error::Error as AwsError;
use crate::aws::identity;
use crate::aws::session::{Clients, SessionKey};
use crate::policy::canonical::is_unique_id;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::evidence::{self, Existence};
use crate::policy::fine_grained::entity::EntityKind;
use crate::policy::ownership::LastApplied;
use crate::policy::plan;
use crate::policy::validate::GrantKey;
use crate::policy::verdict::{NamespaceLabels, Verdict};

/// How many principals are looked up at a time.
pub(super) const LOOKUPS: usize = 8;

/// The longest that all look-ups may take together: what grants wait for, revocations must not.
pub(super) const LOOKUP_LIMIT: Duration = Duration::from_secs(20);

/// A domain and its grants, as the cluster has them.
pub struct Cluster {
    /// The domain, read past every cache.
    pub object: OpenSearchDomain,
    /// Its grants.
    pub grants: Vec<Arc<DomainAccess>>,
    /// Grants that this version cannot parse: those that name the domain, and those of which nobody
    /// can tell.
    pub unreadable: Vec<Arc<Grant>>,
    /// What defines something in its security plugin.
    pub definers: Vec<Definer>,
    /// The kinds of these that the cluster has no more.
    pub unlisted: BTreeSet<EntityKind>,
    /// The labels of all namespaces.
    pub labels: NamespaceLabels,
    /// Whether all of it was read past every cache, and may be written by.
    pub is_fresh: bool,
}

impl Cluster {
    /// Picks the domain's grants out of all.
    pub fn new(object: OpenSearchDomain, all: impl IntoIterator<Item = Arc<Grant>>) -> Self {
        let name = object.name_any();
        let (mut grants, mut unreadable) = (Vec::new(), Vec::new());
        for grant in all {
            match &grant.0 {
                _ if grant.domain().is_some_and(|domain| domain != name) => {}
                Ok(found) => grants.push(Arc::new(found.clone())),
                Err(_) => unreadable.push(grant),
            }
        }
        Self {
            object,
            grants,
            unreadable,
            definers: Vec::new(),
            unlisted: BTreeSet::new(),
            labels: NamespaceLabels::new(),
            is_fresh: false,
        }
    }

    /// Returns the grants that this version cannot parse and that are this domain's: they name it,
    /// or something of them is on its record.
    pub fn unreadable_of<'a>(
        &'a self,
        last: Option<&'a LastApplied>,
    ) -> impl Iterator<Item = (GrantKey, &'a Arc<Grant>, &'a Unreadable)> {
        let recorded = move |uid: &str| last.is_some_and(|last| last.grants.contains_key(uid));
        self.unreadable.iter().filter_map(move |grant| {
            let unreadable = grant.0.as_ref().err()?;
            let key = key_of(grant);
            let ours = unreadable.domain.is_some() || recorded(&key.uid);
            ours.then_some((key, grant, unreadable))
        })
    }

    /// Tells whether the domain's object is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Returns a grant's object.
    #[must_use]
    pub fn grant(&self, key: &GrantKey) -> Option<&Arc<DomainAccess>> {
        self.grants
            .iter()
            .find(|grant| grant.metadata.uid.as_deref() == Some(&key.uid))
    }
}

/// What the cluster has under a domain's name.
pub enum Found {
    /// The domain.
    Cluster(Box<Cluster>),
    /// No domain any more.
    Gone,
    /// A domain that this version cannot parse, and why.
    Unreadable(Box<GuardedDomain>, String),
}

/// Reads the domain's object by a quorum read, and its grants from the store once that is complete.
pub async fn cluster(name: &str, context: &Context) -> Result<Found, Error> {
    context
        .stores
        .ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    let api: Api<GuardedDomain> = Api::all(context.client.clone());
    let object = match api
        .get_opt(name)
        .await
        .map_err(Error::kubernetes("read the domain"))?
    {
        None => return Ok(Found::Gone),
        Some(guarded) => match guarded.0 {
            Ok(object) => object,
            Err(invalid) => {
                let rule = invalid.error.clone();
                let guarded = kube::core::DeserializeGuard(Err(invalid));
                return Ok(Found::Unreadable(Box::new(guarded), rule));
            }
        },
    };
    let mut cluster = Cluster::new(object, context.stores.grants.state());
    cluster.definers = definers::of_domain(name, context.stores.definitions.state());
    cluster.labels = labels(&context.stores.namespaces.state());
    Ok(Found::Cluster(Box::new(cluster)))
}

/// Returns the labels of namespaces, by their names.
pub(super) fn labels<N: Borrow<NamespaceMeta>>(namespaces: &[N]) -> NamespaceLabels {
    let namespaces = namespaces.iter().map(Borrow::borrow);
    namespaces
        .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
        .collect()
}

/// Returns the object that manages the same domain of AWS and is older, and so does it alone.
#[must_use]
pub fn older_rival(context: &Context, object: &OpenSearchDomain) -> Option<String> {
    let all = context.stores.domains.state();
    evidence::older_rival(object, all.iter().filter_map(|it| it.0.as_ref().ok()))
}

pub(super) fn key_of(grant: &Grant) -> GrantKey {
    GrantKey {
        namespace: grant.namespace().unwrap_or_default(),
        name: grant.name_any(),
        uid: grant.uid().unwrap_or_default(),
    }
}

/// A domain as AWS has it, and what the operator knows to have written.
pub struct Observed {
    /// The session's clients.
    pub clients: Clients,
    /// The domain.
    pub domain: ObservedDomain,
    /// Its access policy.
    pub policy: Document,
    /// Where the last applied state is kept.
    pub keeper: Keeper,
    /// The last applied state.
    pub kept: Kept,
}

impl Observed {
    /// Tells whether anything is, or can be, defined in the domain's security plugin.
    #[must_use]
    pub fn has_definitions(&self) -> bool {
        let recorded = self.kept.definitions.as_ref();
        self.domain.facts.fine_grained || recorded.is_some_and(|it| !it.is_empty())
    }
}

/// Reads the domain from AWS, and the last applied state from the cluster.
pub async fn aws(context: &Context, domain: &Domain) -> Result<Observed, Error> {
    let keeper = Keeper::new(
        context.client.clone(),
        &context.config.namespace,
        &domain.name,
    );
    let kept = keeper.read().await?;
    let clients = context.sessions.clients(&session(domain)).await?;
    let described = match aws_domain::describe(&clients, &domain.domain_name).await {
        Err(AwsError::NotFound) => return Err(Error::NoDomain(domain.arn.to_string())),
        described => described?,
    };
    if described.arn != domain.arn.as_str() {
        return Err(Error::OtherDomain {
            found: described.arn,
            wanted: domain.arn.to_string(),
        });
    }
    let policy = Document::parse(&described.policy).map_err(Error::PolicyUnreadable)?;
    Ok(Observed {
        clients,
        domain: described,
        policy,
        keeper,
        kept,
    })
}

/// Names the session for a domain; its name, which the account's audit trail carries, names the
/// domain, in the characters that STS allows.
pub(super) fn session(domain: &Domain) -> SessionKey {
    let role = domain.assume_role.as_ref();
    SessionKey {
        account: domain.account.clone(),
        region: domain.region.clone(),
        role: role.map(|(arn, external_id)| (arn.to_string(), external_id.clone())),
        session_name: session_name(&domain.domain_name),
    }
}

pub(super) fn session_name(domain: &str) -> String {
    format!("opensearch-access.{domain}")
}

/// Asks IAM for every principal of the domain's account that grants name; those of other accounts
/// cannot be asked for.
///
/// A principal that does not exist would have AWS refuse the whole policy, so its grant is refused
/// here. One that could not be asked for leaves its grant as it is.
pub async fn principals(
    context: &Context,
    domain: &Domain,
    observed: &Observed,
    grants: &mut BTreeMap<GrantKey, Verdict>,
) {
    let own = plan::entities(grants)
        .into_iter()
        .filter(|arn| arn.account() == domain.account);
    // A policy that shows a deleted principal tells that what is believed of those which it should
    // name, and does not, may be out of date.
    let named = quarantine::principals(observed.policy.statements());
    let shows_deleted = named.iter().any(|name| is_unique_id(name));
    let doubtful = &|arn: &EntityArn| shows_deleted && !named.contains(arn.as_str());
    let deadline = Instant::now() + LOOKUP_LIMIT;
    let answers: BTreeMap<_, _> = stream::iter(own)
        .map(|arn| async move {
            let answer = match exists(context, observed, &arn, doubtful(&arn), deadline).await {
                Ok(true) => Existence::Exists,
                Ok(false) if doubtful(&arn) => Existence::Deleted,
                Ok(false) => Existence::Missing,
                Err(error) => {
                    warn!(domain = %domain.name, %arn, "failed to look up a principal: {error}");
                    Existence::Unknown(error.brief())
                }
            };
            (arn, answer)
        })
        .buffer_unordered(LOOKUPS)
        .collect()
        .await;
    evidence::judge_principals(grants, &domain.account, &answers);
}

/// Tells whether a principal exists; in doubt, it is not believed that it still does.
async fn exists(
    context: &Context,
    observed: &Observed,
    arn: &EntityArn,
    doubtful: bool,
    deadline: Instant,
) -> Result<bool, AwsError> {
    let believed = context.principal(arn);
    if let Some(exists) = believed.filter(|exists| !exists || !doubtful) {
        return Ok(exists);
    }
    let asked = Box::pin(identity::exists(&observed.clients, arn));
    let exists = until(deadline, "the look-up in IAM", asked).await?;
    context.remember_principal(arn, exists);
    Ok(exists)
}

/// Waits for an answer of AWS until a time that it shares with others; after that, nothing is asked.
pub(super) async fn until<T>(
    deadline: Instant,
    operation: &'static str,
    asked: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    let late = || AwsError::Unavailable {
        operation,
        message: "it was not answered in time".to_owned(),
    };
    if Instant::now() >= deadline {
        return Err(late());
    }
    tokio::time::timeout_at(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(late()))
}
