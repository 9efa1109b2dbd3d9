//! What is deleted because its kind is: somebody deletes a custom resource definition, and the API
//! server every object of it.
//!
//! Nobody who types `kubectl delete crd` means to take everybody's access at once, so that is held
//! as a mass revocation, until an admin acknowledges it. The objects keep their finalizers, and the
//! definition stays as long as they do.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation, TestOperation};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};

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
            "the definition of {kind} is being deleted, and {count} grants with it; they are not revoked, everything else goes on. Let them go, and the definition with them: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count} --overwrite",
            cluster.object.metadata.name.as_deref().unwrap_or_default()
        ),
    }))
}

/// Takes an acknowledgement off that has done its work, or that there is no work for: it lets one
/// loss through, and not the next one too. `held` says that a loss waits for a larger one.
pub async fn spend(context: &Context, domain: &OpenSearchDomain, held: bool) -> Result<(), Error> {
    let Some(count) = domain.annotations().get(ACKNOWLEDGE_REVOCATION) else {
        return Ok(());
    };
    if held || domain.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    // Only the one that was looked at goes: another may be for what has happened since.
    let path = PointerBuf::from_tokens(["metadata", "annotations", ACKNOWLEDGE_REVOCATION]);
    let take_off = json_patch::Patch(vec![
        PatchOperation::Test(TestOperation {
            path: path.clone(),
            value: count.as_str().into(),
        }),
        PatchOperation::Remove(RemoveOperation { path }),
    ]);
    let api: Api<OpenSearchDomain> = Api::all(context.client.clone());
    let (name, take_off) = (domain.name_any(), Patch::Json::<()>(take_off));
    let written = api
        .patch_metadata(&name, &PatchParams::default(), &take_off)
        .await;
    match written {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_invalid() => Ok(()),
        Err(error) => Err(Error::kubernetes("take off the acknowledgement")(error)),
    }
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
