//! The IAM roles of the service accounts that grants name.
//!
//! ```text
//! service account ─► Pod Identity association? ─ yes ─► its role (target role first)   proof: AWS's
//!                                 no
//!                                 ▼
//!                          its annotation ─► role ─► trust policy lets it in           proof: IAM's
//!                                                 └► another account's: unread         the ceiling's word
//! ```
//!
//! # Guarantees
//!
//! Nothing is taken away for an answer that is old: what contradicts the roles that a grant was
//! applied with is asked for again, past every cache. Without an answer, what stands stays.
//!
//! # Caveats
//!
//! An association is believed as it stands: that the target role lets in the association's role is
//! not checked. A role that no association names is a service account's for as long as its trust
//! policy says so, whether or not pods use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tracing::{debug, warn};

use super::ClusterIdentity;
use super::context::{Context, FOUND_FOR, MISSING_FOR};
use super::error::Error;
use super::observe::{Cluster, LOOKUP_LIMIT, LOOKUPS, Observed, until};
use crate::api::access::DomainAccess;
use crate::api::arn::{EntityArn, EntityKind};
use crate::api::condition::Reason;
use crate::api::name::FINALIZER;
use crate::aws::error::Error as AwsError;
use crate::aws::session::Own;
use crate::aws::{eks, identity};
use crate::policy::consent;
use crate::policy::domain::Domain;
use crate::policy::service_account::{
    AccountName, Proof, ROLE_ANNOTATION, Resolution, Resolutions, annotated,
};
use crate::policy::trust::{self, Issuer};
use crate::policy::validate::GrantKey;

/// A service account's metadata.
pub type AccountMeta = PartialObjectMeta<ServiceAccount>;

/// Answers of AWS that are believed for a while.
#[derive(Debug, Default)]
pub struct Accounts {
    /// The associations of a namespace: the ids by service account.
    associations: Answers<String, BTreeMap<String, Vec<String>>>,
    /// The role of an association, by its id.
    roles: Answers<String, Option<String>>,
    /// The trust policy of a role.
    trusts: Answers<EntityArn, Option<String>>,
    /// The cluster's issuer.
    issuer: Answers<(), Option<Issuer>>,
}

#[derive(Debug)]
struct Answers<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    /// Returns the answer, if it is of that time or later, and its time.
    fn since(&self, key: &K, since: Instant) -> Option<(Instant, V)> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(at, _)| *at >= since).cloned()
    }

    /// Keeps an answer to a question that was asked at that time.
    fn keep(&self, key: K, at: Instant, value: &V) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| at.elapsed() < FOUND_FOR);
        answers.insert(key, (at, value.clone()));
    }
}

/// Finds the role of every service account that the domain's grants name and may name.
pub async fn resolve(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
) -> Resolutions {
    let last = observed.kept.state.as_ref();
    let Some(identity) = &context.config.cluster else {
        let message = "the operator is not told which cluster it runs in: ask its admin to set --eks-cluster-name (for EKS Pod Identity and annotations) or --oidc-issuer (for annotations alone)";
        return Resolutions::new(BTreeMap::new(), last, Reason::RoleNotResolved, message);
    };
    let began = Instant::now();
    let believed = (domain.interval.unsigned_abs() / 2).min(FOUND_FOR);
    let mut look = Look {
        context,
        domain,
        observed,
        identity,
        since: began.checked_sub(believed).unwrap_or(began),
        fresh: false,
        deadline: tokio::time::Instant::now() + LOOKUP_LIMIT,
    };
    // Of what is deleted the record tells; only without one its role has to be found.
    let gone =
        |grant: &DomainAccess| cluster.is_deleting() || grant.metadata.deletion_timestamp.is_some();
    let grants = || {
        let grants = cluster.grants.iter().map(AsRef::as_ref);
        let grants = grants.filter(|grant| last.is_none() || !gone(grant));
        grants.filter(|grant| {
            let namespace = grant.metadata.namespace.as_deref().unwrap_or_default();
            consent::lets_in_accounts(domain, namespace, cluster.labels.get(namespace))
        })
    };
    let named: BTreeSet<AccountName> = grants().flat_map(AccountName::all_of).collect();
    let found = look.at_all(&named).await;
    let mut found = Resolutions::new(
        found,
        last,
        Reason::PrincipalUnknown,
        "its role was not looked up",
    );

    // Before anything is taken away: once more, and past every cache.
    let doubted: BTreeSet<AccountName> = grants()
        .flat_map(|grant| {
            let key = GrantKey::of(grant);
            let taken = |account: &AccountName| found.takes_from(&key, &account.name);
            AccountName::all_of(grant).filter(taken).collect::<Vec<_>>()
        })
        .collect();
    (look.since, look.fresh) = (began, true);
    let newer = look.at_all(&doubted).await;
    found.replace(newer);
    found
}

/// Makes sure that what grants were applied with is known, by the record or by AWS: without both,
/// their statements would be taken for another writer's, and never be revoked.
///
/// Only what passes by itself is waited for: whoever forges the finalizer, and names an account of
/// whom AWS never answers, must not hold the others back.
pub fn confirm_known(
    cluster: &Cluster,
    observed: &Observed,
    accounts: &Resolutions,
) -> Result<(), Error> {
    if observed.kept.state.is_some() {
        return Ok(());
    }
    let held = cluster.grants.iter().filter(|grant| {
        let mut finalizers = grant.finalizers().iter();
        finalizers.any(|finalizer| finalizer == FINALIZER)
    });
    for grant in held {
        let key = GrantKey::of(grant);
        for account in AccountName::all_of(grant) {
            if let Resolution::Unknown(_) = accounts.of(&key, &account.name) {
                return Err(Error::UnknownRole(account));
            }
        }
    }
    Ok(())
}

/// One look at service accounts.
struct Look<'a> {
    context: &'a Context,
    domain: &'a Domain,
    observed: &'a Observed,
    identity: &'a ClusterIdentity,
    /// Answers of that time or later are believed.
    since: Instant,
    /// Whether the cluster is read past the store.
    fresh: bool,
    deadline: tokio::time::Instant,
}

/// There is no answer, for which a tenant is told the reason: `Unknown`, or `Denied`.
type Silence = Resolution;

fn silent(why: &str) -> Silence {
    Resolution::Unknown(why.to_owned())
}

impl Look<'_> {
    async fn at_all(&self, names: &BTreeSet<AccountName>) -> BTreeMap<AccountName, Resolution> {
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for account in names {
            let of_namespace = wanted.entry(&account.namespace).or_default();
            of_namespace.insert(&account.name);
        }
        let lists: BTreeMap<&str, _> = stream::iter(wanted)
            .map(|(namespace, accounts)| async move {
                (namespace, self.associations(namespace, &accounts).await)
            })
            .buffer_unordered(LOOKUPS)
            .collect()
            .await;
        let lists = &lists;
        stream::iter(names)
            .map(|account| async move {
                let list = lists.get(account.namespace.as_str());
                let ids = match list {
                    Some(Ok(list)) => Ok(list.get(&account.name).map(Vec::as_slice)),
                    Some(Err(silence)) => Err(silence.clone()),
                    None => Ok(None),
                };
                let resolution = self.at(account, ids.map(Option::unwrap_or_default)).await;
                (
                    account.clone(),
                    resolution.unwrap_or_else(|silence| silence),
                )
            })
            .buffer_unordered(LOOKUPS)
            .collect()
            .await
    }

    /// Looks at one service account; `associations` are the ids of its associations.
    async fn at(
        &self,
        account: &AccountName,
        associations: Result<&[String], Silence>,
    ) -> Result<Resolution, Silence> {
        let Some(annotation) = self.annotation(account).await? else {
            return Ok(Resolution::Refused(
                Reason::ServiceAccountNotFound,
                format!(
                    "namespace {} has no such service account: create it, or correct the name",
                    account.namespace
                ),
            ));
        };
        match associations? {
            [] => {}
            [id] => return self.associated(id).await,
            // One takes the place of another, or will be gone in a moment.
            _ => return Err(silent("EKS has several Pod Identity associations for it")),
        }
        let Some(role) = annotation else {
            let association = self.identity.eks.as_ref().map_or_else(String::new, |eks| {
                format!(
                    "create a Pod Identity association for it in EKS cluster {}, or ",
                    eks.name
                )
            });
            return Ok(Resolution::Refused(
                Reason::RoleNotResolved,
                format!("it has no IAM role: {association}annotate it with {ROLE_ANNOTATION}"),
            ));
        };
        match annotated(&role) {
            Ok(role) => self.proven(account, role).await,
            Err(refused) => Ok(refused),
        }
    }

    /// Returns the annotation of a service account, if there is one; `None` without a service
    /// account.
    async fn annotation(&self, account: &AccountName) -> Result<Option<Option<String>>, Silence> {
        let (name, namespace) = (&account.name, &account.namespace);
        let read = |meta: &AccountMeta| meta.annotations().get(ROLE_ANNOTATION).cloned();
        if let Some(store) = self
            .context
            .stores
            .accounts
            .as_ref()
            .filter(|_| !self.fresh)
        {
            let found = store.get(&ObjectRef::new(name).within(namespace));
            return Ok(found.map(|meta| read(&meta)));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), namespace);
        let asked = tokio::time::timeout_at(self.deadline, api.get_metadata_opt(name));
        match asked.await {
            Ok(Ok(found)) => Ok(found.as_ref().map(read)),
            Ok(Err(error)) => {
                warn!(%account, "failed to read a service account: {error}");
                Err(silent("it could not be read"))
            }
            Err(_) => Err(silent("it was not read in time")),
        }
    }

    /// Returns the associations of a namespace, none where the operator's cluster is not told.
    async fn associations(
        &self,
        namespace: &str,
        wanted: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, Vec<String>>, Silence> {
        let Some(eks) = &self.identity.eks else {
            return Ok(BTreeMap::new());
        };
        let cache = &self.context.accounts.associations;
        if let Some((at, list)) = cache.since(&namespace.to_owned(), self.since)
            // What is missing may be about to be made.
            && (at.elapsed() < MISSING_FOR || wanted.iter().all(|name| list.contains_key(*name)))
        {
            return Ok(list);
        }
        let at = Instant::now();
        let own = self.own().await?;
        let asked = eks::associations(&own.clients, &eks.name, namespace);
        let list = self.ask("its Pod Identity associations", asked).await?;
        cache.keep(namespace.to_owned(), at, &list);
        Ok(list)
    }

    /// Returns the role of an association.
    async fn associated(&self, id: &str) -> Result<Resolution, Silence> {
        let cache = &self.context.accounts.roles;
        let role = match (cache.since(&id.to_owned(), self.since), &self.identity.eks) {
            (Some((_, role)), _) => role,
            (None, None) => None,
            (None, Some(eks)) => {
                let at = Instant::now();
                let own = self.own().await?;
                let asked = eks::role(&own.clients, &eks.name, id);
                let role = self.ask("its Pod Identity association", asked).await?;
                cache.keep(id.to_owned(), at, &role);
                role
            }
        };
        let Some(role) = role else {
            // The list and the association disagree: one of them is late.
            return Err(silent("its Pod Identity association is about to change"));
        };
        Ok(match EntityArn::parse(&role, EntityKind::Role) {
            Ok(role) => Resolution::Role(role, Proof::Association),
            Err(error) => Resolution::Refused(
                Reason::RoleNotResolved,
                format!("its Pod Identity association does not name a role: {error}"),
            ),
        })
    }

    /// Holds the role of an annotation against the role's trust policy.
    async fn proven(&self, account: &AccountName, role: EntityArn) -> Result<Resolution, Silence> {
        let clients = if role.account() == self.domain.account {
            self.observed.clients.clone()
        } else {
            let own = self.own().await?;
            if role.account() != own.account {
                return Ok(Resolution::Role(role, Proof::Annotation));
            }
            own.clients
        };
        let Some(issuer) = self.issuer().await? else {
            return Ok(Resolution::Refused(
                Reason::RoleNotResolved,
                "its annotation cannot be proven, since the operator does not know the cluster's issuer: ask its admin to set --oidc-issuer".to_owned(),
            ));
        };
        let cache = &self.context.accounts.trusts;
        if let Some((at, policy)) = cache.since(&role, self.since) {
            let judged = judge(account, &role, policy.as_deref(), &issuer);
            if at.elapsed() < MISSING_FOR || matches!(judged, Resolution::Role(..)) {
                return Ok(judged);
            }
        }
        let at = Instant::now();
        let asked = identity::trust_policy(&clients, &role);
        let policy = self.ask("the trust policy of its role", asked).await?;
        cache.keep(role.clone(), at, &policy);
        // The account is that of the clients, whoever asks next.
        self.context.remember_principal(&role, policy.is_some());
        Ok(judge(account, &role, policy.as_deref(), &issuer))
    }

    async fn issuer(&self) -> Result<Option<Issuer>, Silence> {
        if let Some(issuer) = &self.identity.issuer {
            return Ok(Some(issuer.clone()));
        }
        let Some(eks) = &self.identity.eks else {
            return Ok(None);
        };
        // A cluster's issuer never changes: what is known is as good as new.
        let cache = &self.context.accounts.issuer;
        let ever = self.since.checked_sub(FOUND_FOR).unwrap_or(self.since);
        if let Some((_, issuer)) = cache.since(&(), ever) {
            return Ok(issuer);
        }
        let at = Instant::now();
        let own = self.own().await?;
        let asked = eks::issuer(&own.clients, &eks.name);
        let issuer = self.ask("the cluster's issuer", asked).await?;
        let issuer = match issuer.as_deref().map(Issuer::parse) {
            None => None,
            Some(Ok(issuer)) => Some(issuer),
            Some(Err(error)) => {
                warn!("EKS gives an issuer that cannot be used: {error}");
                return Err(silent("the cluster's issuer could not be read"));
            }
        };
        cache.keep((), at, &issuer);
        Ok(issuer)
    }

    async fn own(&self) -> Result<Own, Silence> {
        let eks = self.identity.eks.as_ref();
        let region = eks.and_then(|eks| eks.region.as_deref());
        let asked = Box::pin(self.context.sessions.own(region));
        self.ask("the operator's own identity", asked).await
    }

    /// Waits for an answer of AWS.
    async fn ask<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = Result<T, AwsError>>,
    ) -> Result<T, Silence> {
        let answer = until(self.deadline, what, Box::pin(asked)).await;
        answer.map_err(|error| {
            warn!(domain = %self.domain.name, "failed to ask for {what}: {error}");
            let why = format!("{what} could not be asked for: {}", error.brief());
            match error {
                AwsError::NotFound => Resolution::Denied(format!(
                    "{what} could not be asked for: EKS does not know the operator's cluster"
                )),
                AwsError::AccessDenied { .. } => Resolution::Denied(why),
                _ => Resolution::Unknown(why),
            }
        })
    }
}

/// Judges the role of an annotation by its trust policy; `None`: there is no such role.
///
/// A tenant is told one and the same of a role that does not exist and of one that does not let it
/// in, so that annotations do not tell which roles an account has.
fn judge(
    account: &AccountName,
    role: &EntityArn,
    policy: Option<&str>,
    issuer: &Issuer,
) -> Resolution {
    let proof = policy.map(|policy| trust::check(policy, role, issuer, account));
    if proof == Some(Ok(())) {
        return Resolution::Role(role.clone(), Proof::TrustPolicy);
    }
    debug!(%account, %role, ?proof, "an annotation is not proven");
    Resolution::Refused(
        Reason::TrustNotProven,
        format!(
            "its annotation names {role}, which does not exist or whose trust policy does not let it in: have it allow sts:AssumeRoleWithWebIdentity to {} where {}:sub is {}, or create a Pod Identity association",
            issuer.provider_for(role),
            issuer.as_str(),
            account.subject()
        ),
    )
}
