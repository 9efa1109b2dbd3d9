//! What is deleted because its kind is: somebody deletes a custom resource definition, and the API
//! server every object of it.
//!
//! Nobody who types `kubectl delete crd` means to take everybody's access at once, so that is held
//! as a mass revocation, until an admin acknowledges it. The objects keep their finalizers, and the
//! definition stays as long as they do.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};

use super::context::Context;
use super::error::Error;
use super::observe::Cluster;
use crate::api::access::DomainAccess;
use crate::api::condition::Reason;
use crate::api::domain::OpenSearchDomain;
use crate::api::name::ACKNOWLEDGE_REVOCATION;
use crate::policy::Rejection;
use crate::policy::guard::{self, Hold};
use crate::policy::ownership::LastApplied;
use crate::policy::validate::{GrantKey, ValidatedGrant};
use crate::policy::verdict::Verdict;

/// Says why the deletions of a domain's grants, or of the domain, are held, if they are.
///
/// The API server's discovery tells, which everybody may read: a kind that goes can be created no
/// more.
pub async fn held(
    context: &Context,
    cluster: &Cluster,
    last: Option<&LastApplied>,
) -> Result<Option<Hold>, Error> {
    let grants = cluster.grants.iter().map(|grant| grant.meta());
    let unreadable = cluster.unreadable.iter().map(|grant| grant.meta());
    let metas = grants.chain(unreadable);
    let deleted = metas
        .filter(|meta| meta.deletion_timestamp.is_some())
        .count();
    let recorded = last.map_or(0, |last| last.grants.len());
    let (kind, count) = if cluster.is_deleting() {
        (OpenSearchDomain::plural(&()), recorded)
    } else {
        (DomainAccess::plural(&()), deleted)
    };
    if count <= guard::acknowledged(cluster.object.annotations()) {
        return Ok(None);
    }
    let version = DomainAccess::api_version(&());
    let served = match context.client.list_api_group_resources(&version).await {
        Ok(served) => served.resources,
        Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
        Err(error) => return Err(Error::kubernetes("read the API's kinds")(error)),
    };
    let found = served.iter().find(|resource| resource.name == kind);
    let stays = found.is_some_and(|resource| resource.verbs.iter().any(|verb| verb == "create"));
    Ok((!stays).then(|| Hold {
        reason: Reason::MassRevocationHeld,
        message: format!(
            "the definition of {kind} is being deleted, and {count} grants with it; they are not revoked, everything else goes on. Let them go, and the definition with them: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count}",
            cluster.object.metadata.name.as_deref().unwrap_or_default()
        ),
    }))
}

/// Has what is in force of deleted grants stay.
///
/// `asked` is what they ask for, as far as that can be read.
pub fn spare(
    grants: &mut BTreeMap<GrantKey, Verdict>,
    asked: &BTreeMap<GrantKey, ValidatedGrant>,
    hold: &Hold,
) {
    for (key, verdict) in grants {
        if matches!(verdict, Verdict::Deleting) {
            let rejection = Rejection::new(hold.reason, "", hold.message.clone());
            *verdict = match asked.get(key) {
                Some(grant) => Verdict::Undecided(Box::new(grant.clone()), rejection),
                None => Verdict::Unreadable(rejection),
            };
        }
    }
}
