//! What is: the domain and its grants in the cluster, and the domain in AWS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::Api;
use kube::{Resource, ResourceExt};
use tokio::time::Instant;
use tracing::warn;

use super::context::Context;
use super::error::Error;
use super::quarantine;
use super::queue::{Domain as GuardedDomain, Grant};
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
use crate::policy::ownership::LastApplied;
use crate::policy::plan::{self, Plan};
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
    /// Its grants, from the store.
    pub grants: Vec<Arc<DomainAccess>>,
    /// Grants that this version cannot parse, and why; which domain they name is not known.
    pub unreadable: Vec<(GrantKey, String)>,
    /// The labels of all namespaces.
    pub labels: NamespaceLabels,
}

impl Cluster {
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
    let (mut grants, mut unreadable) = (Vec::new(), Vec::new());
    for grant in context.stores.grants.state() {
        match &grant.0 {
            Ok(found) if found.spec.domain_ref.name == name => grants.push(Arc::new(found.clone())),
            Ok(_) => {}
            Err(invalid) => unreadable.push((key_of(&grant), invalid.error.clone())),
        }
    }
    let namespaces = context.stores.namespaces.state();
    let labels = namespaces
        .iter()
        .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
        .collect();
    Ok(Found::Cluster(Box::new(Cluster {
        object,
        grants,
        unreadable,
        labels,
    })))
}

/// Returns the object that manages the same domain of AWS and is older, and so does it alone.
#[must_use]
pub fn older_rival(context: &Context, object: &OpenSearchDomain) -> Option<String> {
    let all = context.stores.domains.state();
    evidence::older_rival(object, all.iter().filter_map(|it| it.0.as_ref().ok()))
}

fn key_of(grant: &Grant) -> GrantKey {
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

/// Makes sure, before anything is taken from the policy, that grants which the store lacks are
/// gone from the API server too.
pub async fn confirm_vanished(
    context: &Context,
    cluster: &Cluster,
    last: Option<&LastApplied>,
    plan: &Plan,
) -> Result<(), Error> {
    if plan.policy.is_none() && plan.identity_removals.is_empty()
        || plan.hold.is_some()
        || plan.withheld.is_some()
    {
        return Ok(());
    }
    for (uid, grant) in last.into_iter().flat_map(|last| &last.grants) {
        if plan.outcomes.keys().any(|key| key.uid == *uid) {
            continue;
        }
        let api: Api<Grant> = Api::namespaced(context.client.clone(), &grant.namespace);
        let found = api
            .get_opt(&grant.name)
            .await
            .map_err(Error::kubernetes("read a grant"))?;
        let still_ours = found.is_some_and(|found| {
            found.meta().uid.as_deref() == Some(uid)
                && found
                    .0
                    .is_ok_and(|found| found.spec.domain_ref.name == cluster.object.name_any())
        });
        if still_ours {
            return Err(Error::Stale);
        }
    }
    Ok(())
}
