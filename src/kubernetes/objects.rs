//! The operator's objects, as the API server has them.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::api::access::{DomainAccess, DomainRef};
use crate::api::action_group::DomainActionGroup;
use crate::api::domain::OpenSearchDomain;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::evidence::Unreadable;
use crate::policy::fine_grained::definition::{self, Defines, Definition};
use crate::policy::validate::GrantKey;
use crate::policy::verdict::NamespaceLabels;

/// What a cluster has of the operator's kinds, read past every cache.
#[derive(Debug, Default)]
pub struct Objects {
    /// The domains.
    pub domains: Vec<OpenSearchDomain>,
    /// The grants of all namespaces.
    pub grants: Vec<DomainAccess>,
    /// What objects define in security plugins, by the name of the domain.
    pub definitions: Vec<(String, Definition)>,
    /// Objects that define something and that this version cannot parse, and why.
    pub unreadable_definitions: Vec<(String, String)>,
    /// The labels of all namespaces.
    pub labels: NamespaceLabels,
    /// Domains that this version cannot parse, by name, and why.
    pub unreadable_domains: Vec<(String, String)>,
    /// Grants that this version cannot parse.
    pub unreadable_grants: Vec<Unreadable>,
}

/// Reads all of them.
///
/// The grants come last: a grant that was made since the namespaces were read lacks consent by
/// label, which is the safe side.
pub async fn read(client: &Client) -> Result<Objects, Error> {
    let mut found = Objects::default();
    for guarded in
        list::<OpenSearchDomain>(client, "list opensearchdomains", "OpenSearchDomain").await?
    {
        match guarded.0 {
            Ok(domain) => found.domains.push(domain),
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                found.unreadable_domains.push((name, invalid.error));
            }
        }
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespaces = namespaces
        .list_metadata(&ListParams::default())
        .await
        .map_err(Error::of("list namespaces"))?;
    for namespace in namespaces {
        let labels = namespace.labels().clone();
        found.labels.insert(namespace.name_any(), labels);
    }
    for guarded in list::<DomainAccess>(client, "list domainaccesses", "DomainAccess").await? {
        match guarded.0 {
            Ok(grant) => found.grants.push(grant),
            Err(invalid) => {
                let metadata = invalid.metadata;
                let key = GrantKey {
                    namespace: metadata.namespace.unwrap_or_default(),
                    name: metadata.name.unwrap_or_default(),
                    uid: metadata.uid.unwrap_or_default(),
                };
                found.unreadable_grants.push(Unreadable {
                    key,
                    error: invalid.error,
                    is_deleting: metadata.deletion_timestamp.is_some(),
                });
            }
        }
    }
    let kinds = ("list domainroles", "DomainRole");
    define::<DomainRole>(client, kinds, &mut found, |it| &it.spec.domain_ref).await?;
    let kinds = ("list domaintenants", "DomainTenant");
    define::<DomainTenant>(client, kinds, &mut found, |it| &it.spec.domain_ref).await?;
    let kinds = ("list domainactiongroups", "DomainActionGroup");
    define::<DomainActionGroup>(client, kinds, &mut found, |it| &it.spec.domain_ref).await?;
    Ok(found)
}

/// Reads the grants of a namespace, or of all.
///
/// # Errors
///
/// Fails where they cannot be listed, or one cannot be read.
pub async fn grants(client: &Client, namespace: Option<&str>) -> Result<Vec<DomainAccess>, Error> {
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let found = list_of::<DomainAccess>(&api, "list domainaccesses", "DomainAccess").await?;
    found
        .into_iter()
        .map(|guarded| {
            guarded.0.map_err(|invalid| Error::Failed {
                doing: "read a DomainAccess",
                message: format!(
                    "{}/{}: {}",
                    invalid.metadata.namespace.unwrap_or_default(),
                    invalid.metadata.name.unwrap_or_default(),
                    invalid.error
                ),
            })
        })
        .collect()
}

/// Reads the objects of a kind that define something.
async fn define<K>(
    client: &Client,
    (doing, kind): (&'static str, &'static str),
    found: &mut Objects,
    domain: impl Fn(&K) -> &DomainRef,
) -> Result<(), Error>
where
    K: Defines + Clone + DeserializeOwned + std::fmt::Debug,
{
    let objects = match list::<K>(client, doing, kind).await {
        // There are grants without any of these.
        Err(Error::NoKind(_)) => return Ok(()),
        objects => objects?,
    };
    for guarded in objects {
        match guarded.0 {
            Ok(object) => {
                let domain = domain(&object).name.clone();
                let definition = definition::definition(&object);
                found.definitions.push((domain, definition));
            }
            Err(invalid) => {
                let text = |it: Option<String>| it.unwrap_or_default();
                let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
                let object = format!("{kind} {}/{}", text(namespace), text(name));
                found.unreadable_definitions.push((object, invalid.error));
            }
        }
    }
    Ok(())
}

/// Lists a kind; one object that cannot be parsed does not hide the others.
async fn list<K>(
    client: &Client,
    doing: &'static str,
    kind: &'static str,
) -> Result<Vec<DeserializeGuard<K>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    list_of(&Api::all(client.clone()), doing, kind).await
}

async fn list_of<K>(
    api: &Api<DeserializeGuard<K>>,
    doing: &'static str,
    kind: &'static str,
) -> Result<Vec<DeserializeGuard<K>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let everything = ListParams::default();
    let list = || api.list(&everything);
    // Right after its definition came, a kind is not served yet (HTTP 429).
    let is_busy = |error: &kube::Error| matches!(error, kube::Error::Api(it) if it.code == 429);
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_times(6)
        .with_jitter();
    match list.retry(pauses).when(is_busy).await {
        Ok(list) => Ok(list.items),
        // Of a group that it does not know, it says so by this code alone.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::NoKind(kind)),
        Err(error) => Err(Error::of(doing)(error)),
    }
}
