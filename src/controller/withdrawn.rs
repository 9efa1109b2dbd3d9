//! What is deleted because its kind is: somebody deletes a custom resource definition, and the API
//! server every object of it.
//!
//! Nobody who types `kubectl delete crd` means to take everybody's access at once, so that is held
//! as a mass revocation, until an admin acknowledges it. The objects keep their finalizers, and the
//! definition stays as long as they do.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation, TestOperation};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};

use super::context::Context;
use super::definers::Definer;
use super::error::Error;
use super::observe::Cluster;
use crate::api::access::DomainAccess;
use crate::api::action_group::DomainActionGroup;
use crate::api::condition::Reason;
use crate::api::domain::OpenSearchDomain;
use crate::api::name::ACKNOWLEDGE_REVOCATION;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::Rejection;
use crate::policy::fine_grained::entity::EntityKind;
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
    let stays = served(context).await?.contains(kind.as_ref());
    Ok((!stays).then(|| Hold {
        reason: Reason::MassRevocationHeld,
        message: format!(
            "the definition of {kind} is being deleted, and {count} grants with it; they are not revoked, everything else goes on. Let them go, and the definition with them: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count} --overwrite",
            cluster.object.metadata.name.as_deref().unwrap_or_default()
        ),
    }))
}

/// The kinds that are going, of which the objects that define something in a plugin stay as they
/// are.
#[derive(Debug, Default)]
pub struct Withdrawn {
    kinds: BTreeSet<EntityKind>,
    /// Whether the domain's own kind goes.
    domain: bool,
    /// Why, for the domain's admin.
    pub(super) hold: Option<Hold>,
}

impl Withdrawn {
    /// Tells whether what an object defines stays although it is being deleted.
    #[must_use]
    pub fn keeps(&self, definer: &Definer, cluster: &Cluster) -> bool {
        let goes = definer.is_deleting() && self.kinds.contains(&definer.key().kind);
        goes || self.domain && cluster.is_deleting()
    }
}

/// Finds the kinds that are going, where an object of one is being deleted; `domain` says that the
/// domain's own is.
pub async fn of_definers(
    context: &Context,
    cluster: &Cluster,
    domain: bool,
) -> Result<Withdrawn, Error> {
    let deleting = cluster.definers.iter().filter(|it| it.is_deleting());
    let deleting: Vec<EntityKind> = deleting.map(|it| it.key().kind).collect();
    let mut withdrawn = Withdrawn {
        kinds: BTreeSet::new(),
        domain,
        hold: None,
    };
    let count = deleting.len();
    if count <= guard::acknowledged(cluster.object.annotations()) {
        return Ok(withdrawn);
    }
    let stays = served(context).await?;
    let mut going = BTreeSet::new();
    for kind in deleting {
        let plural = match kind {
            EntityKind::ActionGroup => DomainActionGroup::plural(&()),
            EntityKind::Tenant => DomainTenant::plural(&()),
            EntityKind::Role | EntityKind::Mapping => DomainRole::plural(&()),
        };
        if !stays.contains(plural.as_ref()) {
            withdrawn.kinds.insert(kind);
            going.insert(plural);
        }
    }
    if !going.is_empty() {
        let going = going.into_iter().collect::<Vec<_>>().join(" and ");
        withdrawn.hold = Some(Hold {
            reason: Reason::MassRevocationHeld,
            message: format!(
                "the definition of {going} is being deleted, and {count} objects with it; what they define stays, everything else goes on. Let them go, and the definition with them: kubectl annotate opensearchdomain {} {ACKNOWLEDGE_REVOCATION}={count} --overwrite",
                cluster.object.name_any()
            ),
        });
    }
    Ok(withdrawn)
}

/// Returns the kinds of the group that can be created still.
async fn served(context: &Context) -> Result<BTreeSet<String>, Error> {
    let version = DomainAccess::api_version(&());
    let served = match context.client.list_api_group_resources(&version).await {
        Ok(served) => served.resources,
        Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
        Err(error) => return Err(Error::kubernetes("read the API's kinds")(error)),
    };
    let stays = served
        .into_iter()
        .filter(|resource| resource.verbs.iter().any(|verb| verb == "create"));
    Ok(stays.map(|resource| resource.name).collect())
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
