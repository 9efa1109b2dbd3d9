//! Which change asks for which domain, and how a burst of changes becomes one reconcile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};

use super::accounts::AccountMeta;
use super::definers::{DefinerWriters, Definers};
use super::guarded::{Grant, Guarded, OfDomain};
use crate::api::domain::OpenSearchDomain;
use crate::policy::evidence::names;
use crate::policy::service_account::{AccountName, ROLE_ANNOTATION};
use crate::runtime::link::WATCH_LASTS;
use crate::runtime::watch::{Failures, Pauses};

/// A domain as it was read; one that cannot be parsed does not stop the watch.
pub type Domain = DeserializeGuard<OpenSearchDomain>;

/// A namespace's metadata.
pub type NamespaceMeta = PartialObjectMeta<Namespace>;

/// After a change, this long without another, and the domain is reconciled.
const QUIET: Duration = Duration::from_millis(500);

/// A grant waits no longer than this for a burst to end, which `kubectl apply` of a large folder
/// may take.
const GRANT_LIMIT: Duration = Duration::from_secs(20);

/// A revocation waits no longer than this.
const REVOCATION_LIMIT: Duration = Duration::from_secs(2);

/// The cluster's objects, as they were last seen.
#[derive(Clone)]
pub struct Stores {
    /// Every domain.
    pub domains: Store<Domain>,
    /// Every grant.
    pub grants: Store<Grant>,
    /// Everything that defines something in a security plugin.
    pub definitions: Definers,
    /// Every namespace.
    pub namespaces: Store<NamespaceMeta>,
    /// Every service account; none where grants cannot name them.
    pub accounts: Option<Store<AccountMeta>>,
}

impl Stores {
    /// Waits until every list is complete.
    ///
    /// # Errors
    ///
    /// Fails where a watch has ended.
    pub async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.domains.wait_until_ready().await?;
        self.grants.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        match &self.accounts {
            Some(accounts) => accounts.wait_until_ready().await,
            None => Ok(()),
        }
    }

    /// Returns the domains of the grants that name a service account.
    fn domains_of(&self, account: &AccountName) -> Vec<ObjectRef<Domain>> {
        let grants = self.grants.state();
        let grants = grants.iter().filter_map(|grant| grant.0.as_ref().ok());
        let naming = grants.filter(|grant| AccountName::all_of(grant).any(|it| it == *account));
        let domains: HashSet<&str> = naming
            .map(|grant| grant.spec.domain_ref.name.as_str())
            .collect();
        domains.into_iter().map(ObjectRef::new).collect()
    }

    /// Returns every domain that is there, or that a grant names.
    #[must_use]
    pub fn everything(&self) -> Vec<ObjectRef<Domain>> {
        let domains = self.domains.state();
        let grants = self.grants.state();
        let wanted = grants
            .iter()
            .filter_map(|grant| grant.domain().map(str::to_owned));
        let definitions = self.definitions.state();
        let defined = definitions
            .iter()
            .filter_map(|it| it.domain().map(str::to_owned));
        let mut names: Vec<String> = domains
            .iter()
            .map(|domain| domain.name_any())
            .chain(wanted)
            .chain(defined)
            .collect();
        names.sort_unstable();
        names.dedup();
        names.iter().map(|name| ObjectRef::new(name)).collect()
    }
}

/// The watches, not yet started.
pub struct Queue {
    client: Client,
    stores: Stores,
    domains: reflector::store::Writer<Domain>,
    grants: reflector::store::Writer<Grant>,
    definitions: DefinerWriters,
    namespaces: reflector::store::Writer<NamespaceMeta>,
    accounts: Option<reflector::store::Writer<AccountMeta>>,
}

/// Prepares the watches, and the stores that they fill; that of service accounts only where grants
/// can name them.
#[must_use]
pub fn open(client: &Client, with_accounts: bool) -> (Queue, Stores) {
    let domains = reflector::store::Writer::default();
    let grants = reflector::store::Writer::default();
    let definitions = DefinerWriters::default();
    let namespaces = reflector::store::Writer::default();
    let accounts = with_accounts.then(reflector::store::Writer::default);
    let stores = Stores {
        domains: domains.as_reader(),
        grants: grants.as_reader(),
        definitions: definitions.as_readers(),
        namespaces: namespaces.as_reader(),
        accounts: accounts.as_ref().map(reflector::store::Writer::as_reader),
    };
    (
        Queue {
            client: client.clone(),
            stores: stores.clone(),
            domains,
            grants,
            definitions,
            namespaces,
            accounts,
        },
        stores,
    )
}

impl Queue {
    /// Starts the watches, and gives the domains that each change asks for.
    ///
    /// A store is filled before the change is given on, so that a reconcile sees it. After a list,
    /// every domain is asked for: what went while nobody watched leaves no event.
    pub fn watch(
        self,
        bursts: Arc<Bursts>,
    ) -> impl Stream<Item = Result<ObjectRef<Domain>, Infallible>> + Send {
        let stores = self.stores;
        let by_labels = |domain: &OpenSearchDomain| {
            let mut consent = domain.spec.consent.iter();
            consent.any(|entry| entry.namespace_selector.is_some())
        };
        let those = {
            let stores = stores.clone();
            move |wanted: &dyn Fn(&OpenSearchDomain) -> bool| {
                let domains = stores.domains.state();
                let wanted = domains.iter().filter(|it| it.0.as_ref().is_ok_and(wanted));
                wanted
                    .map(|domain| ObjectRef::from_obj(&**domain))
                    .collect()
            }
        };
        let all = {
            let (stores, bursts) = (stores.clone(), Arc::clone(&bursts));
            move || bursts.after_list(&stores)
        };
        let domains = {
            let (all, bursts) = (all.clone(), Arc::clone(&bursts));
            // Which of two objects manages a domain of AWS is decided by both.
            let note = {
                let those = those.clone();
                move |domain: &Domain, gone| {
                    let mut found = bursts.domain(domain, gone);
                    if let (false, Ok(changed)) = (found.is_empty(), &domain.0) {
                        let rivals = |it: &OpenSearchDomain| {
                            names(it) == names(changed) && it.name_any() != changed.name_any()
                        };
                        let rivals: Vec<_> = those(&rivals);
                        found.extend(rivals);
                    }
                    found
                }
            };
            let mut failures = Failures::of("OpenSearchDomain");
            watcher(
                Api::<Domain>::all(self.client.clone()),
                watcher::Config::default().timeout(WATCH_LASTS),
            )
            .backoff(Pauses::default())
            .reflect(self.domains)
            .map(move |event| match failures.logged(event) {
                Some(watcher::Event::Apply(domain) | watcher::Event::InitApply(domain)) => {
                    note(&domain, false)
                }
                Some(watcher::Event::Delete(domain)) => note(&domain, true),
                Some(watcher::Event::InitDone) => all(),
                None | Some(watcher::Event::Init) => Vec::new(),
            })
        };
        let grants = about_domains(
            self.client.clone(),
            self.grants,
            Arc::clone(&bursts),
            all.clone(),
        );
        let DefinerWriters {
            roles,
            tenants,
            action_groups,
        } = self.definitions;
        let client = || self.client.clone();
        let definitions = [
            about_domains(client(), roles, Arc::clone(&bursts), all.clone()).boxed(),
            about_domains(client(), tenants, Arc::clone(&bursts), all.clone()).boxed(),
            about_domains(client(), action_groups, Arc::clone(&bursts), all.clone()).boxed(),
        ];
        let accounts = self.accounts.map(|writer| {
            let bursts = Arc::clone(&bursts);
            accounts(self.client.clone(), writer, stores, bursts, all.clone()).boxed()
        });
        let mut failures = Failures::of("Namespace");
        let namespaces = watcher(
            Api::<NamespaceMeta>::all(self.client),
            watcher::Config::default().timeout(WATCH_LASTS),
        )
        .backoff(Pauses::default())
        .reflect(self.namespaces)
        .map(move |event| match failures.logged(event) {
            Some(watcher::Event::Apply(namespace)) if bursts.namespace(&namespace, false) => {
                those(&by_labels)
            }
            Some(watcher::Event::Delete(namespace)) if bursts.namespace(&namespace, true) => {
                those(&by_labels)
            }
            Some(watcher::Event::InitApply(namespace)) => {
                bursts.namespace(&namespace, false);
                Vec::new()
            }
            Some(watcher::Event::InitDone) => all(),
            _ => Vec::new(),
        });
        let all = [domains.boxed(), grants.boxed(), namespaces.boxed()];
        stream::select_all(all.into_iter().chain(definitions).chain(accounts))
            .flat_map(stream::iter)
            .map(Ok)
    }
}

/// Watches a kind whose objects are about domains, and gives the domains that each change is about;
/// after a list, and where nobody can tell which, `all`.
fn about_domains<K>(
    client: Client,
    writer: reflector::store::Writer<Guarded<K>>,
    bursts: Arc<Bursts>,
    all: impl Fn() -> Vec<ObjectRef<Domain>> + Send + 'static,
) -> impl Stream<Item = Vec<ObjectRef<Domain>>> + Send
where
    K: OfDomain + Clone + Debug + Send + Sync + 'static,
{
    let mut failures = Failures::of(K::kind(&()));
    watcher(
        Api::<Guarded<K>>::all(client),
        watcher::Config::default().timeout(WATCH_LASTS),
    )
    .backoff(Pauses::default())
    .reflect(writer)
    .map(move |event| match failures.logged(event) {
        Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
            bursts.object(&object, false).unwrap_or_else(&all)
        }
        Some(watcher::Event::Delete(object)) => bursts.object(&object, true).unwrap_or_else(&all),
        Some(watcher::Event::InitDone) => all(),
        _ => Vec::new(),
    })
}

/// Watches service accounts, and gives the domains of the grants that name one whose role changed;
/// after a list, `all`.
fn accounts(
    client: Client,
    writer: reflector::store::Writer<AccountMeta>,
    stores: Stores,
    bursts: Arc<Bursts>,
    all: impl Fn() -> Vec<ObjectRef<Domain>> + Send + 'static,
) -> impl Stream<Item = Vec<ObjectRef<Domain>>> + Send {
    let note = move |account: &AccountMeta, gone| {
        let changed = bursts.account(account, gone)?;
        Some(stores.domains_of(&changed))
    };
    let mut failures = Failures::of("ServiceAccount");
    watcher(
        Api::<AccountMeta>::all(client),
        watcher::Config::default().timeout(WATCH_LASTS),
    )
    .backoff(Pauses::default())
    // Often the largest part, and of no use here.
    .modify(|account| account.metadata.managed_fields = None)
    .reflect(writer)
    .map(move |event| match failures.logged(event) {
        Some(watcher::Event::Apply(account)) => note(&account, false).unwrap_or_default(),
        Some(watcher::Event::Delete(account)) => note(&account, true).unwrap_or_default(),
        Some(watcher::Event::InitApply(account)) => {
            note(&account, false);
            Vec::new()
        }
        Some(watcher::Event::InitDone) => all(),
        _ => Vec::new(),
    })
}

/// Changes that wait for more to come, by domain.
///
/// A trailing wait alone would starve a domain whose grants never stop changing, hence the limits.
#[derive(Debug, Default)]
pub struct Bursts(Mutex<BurstState>);

#[derive(Debug, Default)]
struct BurstState {
    waiting: HashMap<String, Burst>,
    /// What was last seen of each object, so that the operator's own status writes start nothing.
    seen: HashMap<String, Seen>,
    /// The labels of each namespace.
    labels: HashMap<String, BTreeMap<String, String>>,
    /// The annotated role of each service account.
    roles: HashMap<AccountName, Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    generation: Option<i64>,
    deleting: bool,
    domain: String,
    /// The annotations of a domain, by which admins talk to the operator.
    annotations: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
    first_revocation: Option<Instant>,
}

impl Bursts {
    /// Takes note of a domain's event, and gives the domains to look at. Whatever changes on a
    /// domain may withdraw consent, and so revoke.
    fn domain(&self, domain: &Domain, gone: bool) -> Vec<ObjectRef<Domain>> {
        let seen = Seen {
            generation: domain.meta().generation,
            deleting: domain.meta().deletion_timestamp.is_some(),
            domain: domain.name_any(),
            annotations: domain.annotations().clone(),
        };
        self.note(domain.uid(), seen, gone, true)
    }

    /// Takes note of a namespace's event; tells whether its labels are others than before.
    fn namespace(&self, namespace: &NamespaceMeta, gone: bool) -> bool {
        let mut state = self.lock();
        let name = namespace.name_any();
        if gone {
            return state.labels.remove(&name).is_some();
        }
        let labels = namespace.labels().clone();
        state.labels.insert(name, labels.clone()) != Some(labels)
    }

    /// Takes note of a service account's event; names it if its role is another than before.
    fn account(&self, account: &AccountMeta, gone: bool) -> Option<AccountName> {
        let name = AccountName::new(
            account.namespace().as_deref().unwrap_or_default(),
            &account.name_any(),
        );
        let mut state = self.lock();
        let changed = if gone {
            state.roles.remove(&name).is_some()
        } else {
            let role = account.annotations().get(ROLE_ANNOTATION).cloned();
            state.roles.insert(name.clone(), role.clone()) != Some(role)
        };
        changed.then_some(name)
    }

    /// Gives every domain, and forgets the objects that went while nobody watched.
    fn after_list(&self, stores: &Stores) -> Vec<ObjectRef<Domain>> {
        self.keep(stores);
        let domains = stores.domains.state();
        let domains = domains.iter();
        domains.map(|it| ObjectRef::from_obj(&**it)).collect()
    }

    fn keep(&self, stores: &Stores) {
        let domains = stores.domains.state();
        let grants = stores.grants.state();
        let definitions = stores.definitions.state();
        let namespaces = stores.namespaces.state();
        let uids: HashSet<String> = domains
            .iter()
            .filter_map(|it| it.uid())
            .chain(grants.iter().filter_map(|it| it.uid()))
            .chain(definitions.iter().filter_map(|it| it.meta().uid.clone()))
            .collect();
        let names: HashSet<String> = namespaces.iter().map(|it| it.name_any()).collect();
        let mut state = self.lock();
        state.seen.retain(|uid, _| uids.contains(uid));
        state.labels.retain(|name, _| names.contains(name));
        if let Some(accounts) = &stores.accounts {
            let accounts = accounts.state();
            let names: HashSet<AccountName> = accounts
                .iter()
                .map(|it| AccountName::new(&it.namespace().unwrap_or_default(), &it.name_any()))
                .collect();
            state.roles.retain(|name, _| names.contains(name));
        }
    }

    /// Takes note of the event of an object about a domain, and gives the domains to look at; `None` where it cannot be
    /// parsed and it is not known which domain it named.
    fn object<K: OfDomain>(
        &self,
        object: &Guarded<K>,
        gone: bool,
    ) -> Option<Vec<ObjectRef<Domain>>> {
        let domain = if let Some(domain) = object.domain() {
            domain.to_owned()
        } else {
            let state = self.lock();
            let before = state.seen.get(&object.uid().unwrap_or_default())?;
            before.domain.clone()
        };
        let deleting = object.meta().deletion_timestamp.is_some();
        let seen = Seen {
            generation: object.meta().generation,
            deleting,
            domain,
            annotations: BTreeMap::new(),
        };
        Some(self.note(object.uid(), seen, gone, gone || deleting))
    }

    fn note(
        &self,
        uid: Option<String>,
        now: Seen,
        gone: bool,
        revokes: bool,
    ) -> Vec<ObjectRef<Domain>> {
        let uid = uid.unwrap_or_default();
        let mut state = self.lock();
        let before = state.seen.remove(&uid);
        let changed = gone || before.as_ref() != Some(&now);
        let domain = now.domain.clone();
        if !gone {
            state.seen.insert(uid, now);
        }
        if !changed {
            return Vec::new();
        }
        let at = Instant::now();
        let burst = state.waiting.entry(domain.clone()).or_insert(Burst {
            first: at,
            last: at,
            first_revocation: None,
        });
        burst.last = at;
        if revokes {
            burst.first_revocation.get_or_insert(at);
        }
        vec![ObjectRef::new(&domain)]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BurstState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much longer to wait for a burst on the domain to end; `None` once it has, or if
    /// there is none.
    pub fn wait(&self, domain: &str) -> Option<Duration> {
        let mut state = self.lock();
        let burst = state.waiting.get(domain)?;
        let revocation = burst.first_revocation.map(|first| first + REVOCATION_LIMIT);
        let limit = revocation.map_or(burst.first + GRANT_LIMIT, |r| {
            r.min(burst.first + GRANT_LIMIT)
        });
        let end = limit.min(burst.last + QUIET);
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            state.waiting.remove(domain);
            return None;
        }
        Some(left)
    }
}
