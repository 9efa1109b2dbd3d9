//! What a write is made from: the cluster past every cache.
//!
//! A store is as old as its watch, and a watch may hang, or be served by an API server that has
//! lost touch with etcd. That is good enough to tell that nothing need be done, and not good enough
//! to write by: what was revoked would be granted again, and what was granted anew taken away.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::Context;
use super::definers::Definer;
use super::error::Error;
use super::guarded::Grant;
use super::observe::{self, Cluster};
use super::queue::NamespaceMeta;
use crate::api::domain::OpenSearchDomain;
use crate::policy::fine_grained::entity::EntityKind;

/// How many objects the API server is asked for at a time.
const PAGE: u32 = 500;

/// Reads the domain's grants, and the labels that decide about them, again: as they are in etcd now.
///
/// `with_definers` says that what objects define in the security plugin matters, too.
///
/// # Errors
///
/// Fails where a page is missing: a list that is not complete is none.
pub async fn cluster(
    context: &Context,
    seen: &Cluster,
    with_definers: bool,
) -> Result<Cluster, Error> {
    let grants = Api::<Grant>::all(context.client.clone());
    let own =
        ListParams::default().fields(&format!("spec.domainRef.name={}", seen.object.name_any()));
    let grants = everything(&grants, own).await;
    let grants = grants.map_err(Error::kubernetes("list the grants"))?;
    let grants = grants.into_iter().map(Arc::new);
    // Those of which nobody can tell which domain they name are not selected: as they were seen.
    let strays = seen.unreadable.iter().filter(|it| it.domain().is_none());
    let mut fresh = Cluster::new(seen.object.clone(), grants.chain(strays.cloned()));
    if with_definers || !seen.definers.is_empty() {
        (fresh.definers, fresh.unlisted) = definers(context, seen).await?;
    }
    fresh.labels.clone_from(&seen.labels);
    let mut consent = seen.object.spec.consent.iter();
    if consent.any(|entry| entry.namespace_selector.is_some()) {
        let namespaces = Api::<NamespaceMeta>::all(context.client.clone());
        let namespaces = everything(&namespaces, ListParams::default()).await;
        let namespaces = namespaces.map_err(Error::kubernetes("list the namespaces"))?;
        fresh.labels = observe::labels(&namespaces);
    }
    // Last, so that no grant is judged by a consent that was withdrawn before the grant was made.
    let domains = Api::<OpenSearchDomain>::all(context.client.clone());
    let object = domains.get_opt(&seen.object.name_any()).await;
    let object = object.map_err(Error::kubernetes("read the domain"))?;
    let told = |object: &OpenSearchDomain| {
        let meta = &object.metadata;
        let annotations = meta.annotations.clone();
        (
            meta.uid.clone(),
            meta.generation,
            annotations,
            meta.deletion_timestamp.clone(),
        )
    };
    if object.as_ref().map(told) != Some(told(&seen.object)) {
        return Err(Error::Stale);
    }
    fresh.is_fresh = true;
    Ok(fresh)
}

/// Lists what defines something; with the kinds of which there is no list, since somebody deleted
/// them: that holds up nothing else.
async fn definers(
    context: &Context,
    seen: &Cluster,
) -> Result<(Vec<Definer>, BTreeSet<EntityKind>), Error> {
    let name = seen.object.name_any();
    let (roles, tenants, groups) = futures::try_join!(
        of_kind(context, &name, Definer::Role),
        of_kind(context, &name, Definer::Tenant),
        of_kind(context, &name, Definer::ActionGroup),
    )?;
    let mut unlisted = BTreeSet::new();
    // Those of which nobody can tell which domain they name are not selected: as they were seen.
    let strays = seen.definers.iter().filter(|it| it.domain().is_none());
    let mut all: Vec<Definer> = strays.cloned().collect();
    for (kind, found) in [
        (EntityKind::Role, roles),
        (EntityKind::Tenant, tenants),
        (EntityKind::ActionGroup, groups),
    ] {
        match found {
            Some(found) => all.extend(found),
            None => _ = unlisted.insert(kind),
        }
    }
    Ok((all, unlisted))
}

/// Lists one kind of definitions of a domain; nothing where the cluster has no such kind.
async fn of_kind<K>(
    context: &Context,
    domain: &str,
    into: impl Fn(Arc<K>) -> Definer,
) -> Result<Option<Vec<Definer>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::all(context.client.clone());
    let own = ListParams::default().fields(&format!("spec.domainRef.name={domain}"));
    match everything(&api, own).await {
        Ok(found) => Ok(Some(
            found.into_iter().map(|it| into(Arc::new(it))).collect(),
        )),
        // Of a kind that it does not know, it says so by this code alone.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Error::kubernetes("list roles, tenants and action groups")(
            error,
        )),
    }
}

/// Lists the selected objects of a kind, by pages of one snapshot. Without a resource version, which is how it
/// is asked, the answer is the most recent there is.
async fn everything<K>(api: &Api<K>, selected: ListParams) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut parameters = selected.limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn page(names: &[&str], token: &str) -> Value {
        let grant = |name: &&str| json!({"metadata": {"name": name}, "spec": {"domainRef": {"name": "logs"}, "principals": []}});
        let items: Vec<Value> = names.iter().map(grant).collect();
        json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccessList",
            "metadata": {"resourceVersion": "7", "continue": token}, "items": items})
    }

    /// Lists from an API server that answers the first page, and the second as it is told.
    async fn list(status: u16, second: Value) -> Result<Vec<Grant>, kube::Error> {
        let service = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            assert!(query.contains("limit=500"), "{query}");
            assert!(!query.contains("resourceVersion"), "{query}");
            let (status, body) = if query.contains("continue=next") {
                (status, second.clone())
            } else {
                (200, page(&["a", "b"], "next"))
            };
            let answer = Response::builder().status(status);
            let answer = answer.body(Body::from(body.to_string().into_bytes()));
            async move { answer }
        });
        everything(
            &Api::all(Client::new(service, "default")),
            ListParams::default(),
        )
        .await
    }

    #[tokio::test]
    async fn a_list_of_pages_is_whole() {
        let all = list(200, page(&["c"], "")).await.unwrap();
        let names: Vec<&str> = all
            .iter()
            .filter_map(|grant| grant.0.as_ref().ok()?.metadata.name.as_deref())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_list_that_is_cut_at_a_page_is_none() {
        let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Expired", "code": 410, "message": "the continue token is too old"});
        let error = list(410, gone).await.unwrap_err();
        assert!(
            matches!(&error, kube::Error::Api(status) if status.code == 410),
            "{error}"
        );
    }
}
