//! The cluster as the watches saw it last: nothing is asked while a pod waits.

use std::fmt::Debug;
use std::sync::Arc;

use anyhow::bail;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::{Store, Writer, WriterDropped};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::access::{DomainAccess, DomainRef};
use crate::api::action_group::DomainActionGroup;
use crate::api::domain::OpenSearchDomain;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::fine_grained::definition::{self, Defines, Definition};
use crate::policy::verdict::NamespaceLabels;
use crate::runtime::link::WATCH_LASTS;
use crate::runtime::watch::{Failures, Pauses};

type Guarded<K> = DeserializeGuard<K>;

/// A domain as it was read.
pub(super) type Domain = Guarded<OpenSearchDomain>;

/// Everything that a review looks at.
#[derive(Clone)]
pub(super) struct Stores {
    client: Client,
    /// Every domain.
    pub(super) domains: Store<Guarded<OpenSearchDomain>>,
    /// Every grant.
    pub(super) grants: Store<Guarded<DomainAccess>>,
    roles: Store<Guarded<DomainRole>>,
    tenants: Store<Guarded<DomainTenant>>,
    groups: Store<Guarded<DomainActionGroup>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Every service account.
    pub(super) accounts: Store<PartialObjectMeta<ServiceAccount>>,
}

/// What keeps the stores.
pub(super) struct Watches(stream::SelectAll<BoxStream<'static, ()>>);

impl Watches {
    /// Keeps the stores; never ends, unless a watch does.
    ///
    /// # Errors
    ///
    /// Says that the watches have ended.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        while self.0.next().await.is_some() {}
        bail!("the watches have ended")
    }
}

/// Prepares the stores, and the watches that fill them.
pub(super) fn open(client: &Client) -> (Stores, Watches) {
    let (domains, domains_watch) = watch(client, "OpenSearchDomain");
    let (grants, grants_watch) = watch(client, "DomainAccess");
    let (roles, roles_watch) = watch(client, "DomainRole");
    let (tenants, tenants_watch) = watch(client, "DomainTenant");
    let (groups, groups_watch) = watch(client, "DomainActionGroup");
    let (namespaces, namespaces_watch) = watch(client, "Namespace");
    let (accounts, accounts_watch) = watch(client, "ServiceAccount");
    let watches = stream::select_all([
        domains_watch,
        grants_watch,
        roles_watch,
        tenants_watch,
        groups_watch,
        namespaces_watch,
        accounts_watch,
    ]);
    let stores = Stores {
        client: client.clone(),
        domains,
        grants,
        roles,
        tenants,
        groups,
        namespaces,
        accounts,
    };
    (stores, Watches(watches))
}

fn watch<K>(client: &Client, kind: &'static str) -> (Store<K>, BoxStream<'static, ()>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let writer = Writer::default();
    let store = writer.as_reader();
    let mut failures = Failures::of(kind);
    let events = watcher(
        Api::<K>::all(client.clone()),
        watcher::Config::default().timeout(WATCH_LASTS),
    )
    .backoff(Pauses::default())
    // Often the largest part, and of no use here.
    .modify(|object| object.meta_mut().managed_fields = None)
    .reflect(writer)
    .map(move |event| drop(failures.logged(event)));
    (store, events.boxed())
}

impl Stores {
    /// Waits until every list is complete.
    ///
    /// # Errors
    ///
    /// Fails where a watch has ended.
    pub(super) async fn ready(&self) -> Result<(), WriterDropped> {
        self.domains.wait_until_ready().await?;
        self.grants.wait_until_ready().await?;
        self.roles.wait_until_ready().await?;
        self.tenants.wait_until_ready().await?;
        self.groups.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        self.accounts.wait_until_ready().await
    }

    /// Asks the API server for a domain that the watch has not told of: it may have been made a moment
    /// ago.
    ///
    /// # Errors
    ///
    /// Fails where it does not answer.
    pub(super) async fn ask(&self, name: &str) -> Result<Option<Arc<Domain>>, kube::Error> {
        let domains = Api::<Domain>::all(self.client.clone());
        Ok(domains.get_opt(name).await?.map(Arc::new))
    }

    /// Returns what objects define on a domain.
    pub(super) fn definitions(&self, domain: &str) -> Vec<Definition> {
        let mut found = defined(&self.roles, domain, |it| &it.spec.domain_ref);
        found.extend(defined(&self.tenants, domain, |it| &it.spec.domain_ref));
        found.extend(defined(&self.groups, domain, |it| &it.spec.domain_ref));
        found
    }

    /// Returns the labels of all namespaces.
    pub(super) fn labels(&self) -> NamespaceLabels {
        let namespaces = self.namespaces.state();
        let labels = |it: &PartialObjectMeta<Namespace>| it.labels().clone();
        namespaces
            .iter()
            .map(|it| (it.name_any(), labels(it)))
            .collect()
    }
}

/// Returns what the objects of one kind define on a domain.
fn defined<K>(
    store: &Store<Guarded<K>>,
    domain: &str,
    of: impl Fn(&K) -> &DomainRef,
) -> Vec<Definition>
where
    K: Defines + Clone + 'static,
{
    let all = store.state();
    let readable = all.iter().filter_map(|it| it.0.as_ref().ok());
    let own = readable.filter(|it| of(it).name == domain);
    own.map(definition::definition).collect()
}
