//! Who is mapped to which role of the domain's security plugin.
//!
//! Mappings come before the door opens and go after it closes. A plugin that cannot be asked, or
//! refuses, keeps grants that need it from being let in; it keeps no revocation waiting, and no
//! grant that asks for no role.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use tracing::{info, warn};

use super::audit;
use super::context::Context;
use super::observe::{Cluster, Observed};
use super::patience::Patience;
use super::state::{Keeper, Kept};
use crate::api::condition::Reason;
use crate::api::domain::PolicyMode;
use crate::policy::consent;
use crate::policy::domain::Domain;
use crate::policy::fine_grained::definition::plan::{AppliedDefinitions, DefinitionPlan};
use crate::policy::fine_grained::entity::{Entity, EntityKind, SecurityConfig};
use crate::policy::fine_grained::mapping::{self as mappings, AppliedSecurity, MappingPlan};
use crate::policy::validate::GrantKey;
use crate::policy::verdict::Verdict;
use crate::security::client::Plugin;
use crate::security::error::Error as SecurityError;
use crate::security::mapping;

/// How many mappings are written at a time: all of them are one document to the plugin.
const WRITES: usize = 4;

/// What is known of a domain's security plugin.
pub enum Secured {
    /// No grant asks for a role, and nothing is on record.
    Unused,
    /// What it has.
    Known(Box<Plugin>, Box<SecurityConfig>),
    /// It could not be asked.
    Unknown(NotMapped),
}

/// Why something is not mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMapped {
    /// For conditions and metrics.
    pub reason: Reason,
    /// For the domain's admin.
    pub message: String,
}

impl NotMapped {
    pub(super) fn of(error: &SecurityError) -> Self {
        let reason = match error {
            SecurityError::Shut { .. } | SecurityError::NotAdmitted { .. } => Reason::AccessDenied,
            SecurityError::Conflict => Reason::Conflicted,
            SecurityError::Busy { .. } => Reason::Throttled,
            SecurityError::NotFound { .. } => Reason::RoleNotFound,
            SecurityError::Refused { .. } => Reason::MappingRefused,
            SecurityError::Failed { .. }
            | SecurityError::Unreachable { .. }
            | SecurityError::NoCredentials { .. }
            | SecurityError::Garbled { .. }
            | SecurityError::NotLeading => Reason::Unavailable,
        };
        Self {
            reason,
            message: error.to_string(),
        }
    }
}

/// What became of the roles of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roles {
    /// Its principals are mapped to all of them.
    Mapped,
    /// They are not, and so the door is not opened for it any further.
    Missing {
        /// Why.
        why: NotMapped,
        /// Whether the door is open to all of it from before.
        door_in_place: bool,
    },
}

/// Reads the plugin of a domain, if anything is to be asked of it.
pub async fn observe(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
) -> Secured {
    let asks = |grant: &crate::api::access::DomainAccess| !grant.spec.security_roles.is_empty();
    let asked = cluster.grants.iter().any(|grant| asks(grant));
    let recorded = observed.kept.security.as_ref();
    let recorded = recorded.is_some_and(|it| *it != AppliedSecurity::default());
    let defines = observed.kept.definitions.as_ref();
    let defines = defines.is_some_and(|it| !it.is_empty()) || !cluster.definers.is_empty();
    if !(asked || recorded || defines) || !observed.domain.facts.fine_grained {
        return Secured::Unused;
    }
    let unknown = |reason, message: &str| {
        let message = message.to_owned();
        Secured::Unknown(NotMapped { reason, message })
    };
    let Some(endpoint) = &observed.domain.endpoint else {
        let message = "AWS names no endpoint of the domain yet";
        return unknown(Reason::DomainProcessing, message);
    };
    let connections = match &context.connections {
        Ok(connections) => connections.clone(),
        Err(message) => return unknown(Reason::Unavailable, message),
    };
    let (clients, engine) = (observed.clients.clone(), observed.domain.engine);
    let plugin = Plugin::new(connections, clients, endpoint, &domain.region, engine);
    match plugin.read().await {
        Ok(config) => Secured::Known(Box::new(plugin), Box::new(config)),
        Err(error) => {
            warn!(domain = %domain.name, "the security plugin could not be read: {error}");
            Secured::Unknown(NotMapped::of(&error))
        }
    }
}

impl Secured {
    /// Returns what the plugin has. Of one that could not be asked, everything that is on record is
    /// taken to stand, and nothing else.
    #[must_use]
    pub fn config(&self, last: Option<&AppliedDefinitions>) -> Cow<'_, SecurityConfig> {
        if let Self::Known(_, config) = self {
            return Cow::Borrowed(config);
        }
        let mut config = SecurityConfig::default();
        for (kind, entity, recorded) in last.iter().flat_map(|last| last.all()) {
            let body = recorded.body.clone();
            let entity_there = Entity {
                body,
                ..Entity::default()
            };
            config.of_mut(kind).insert(entity.clone(), entity_there);
        }
        Cow::Owned(config)
    }

    /// Refuses grants whose roles the plugin will not have, or protects.
    pub fn judge(
        &self,
        domain: &Domain,
        cluster: &Cluster,
        definitions: &DefinitionPlan,
        grants: &mut BTreeMap<GrantKey, Verdict>,
    ) {
        let Self::Known(_, config) = self else { return };
        // What is not to be written will not be there.
        let writes = may_write(domain) && !domain.suspend && domain.mode != PolicyMode::Observe;
        let ahead = if writes {
            Cow::Owned(definitions.ahead(config))
        } else {
            Cow::Borrowed(config.as_ref())
        };
        mappings::judge_roles(grants, &ahead, |grant, role| {
            let namespace = &grant.key.namespace;
            consent::names_role(domain, namespace, cluster.labels.get(namespace), role)
        });
    }

    /// Plans the mappings. Of a plugin that could not be asked, everything on record is taken to
    /// stand, and nothing else.
    #[must_use]
    pub fn plan(
        &self,
        grants: &BTreeMap<GrantKey, Verdict>,
        kept: &Kept,
        withheld: bool,
    ) -> MappingPlan {
        let last = kept.security.as_ref();
        let assumed;
        let observed = match self {
            Self::Known(_, config) => config.as_ref(),
            Self::Unknown(_) => {
                assumed = mappings::assumed(last);
                &assumed
            }
            Self::Unused => return MappingPlan::default(),
        };
        mappings::plan(&mappings::Input {
            grants,
            observed,
            last,
            withheld,
        })
    }

    /// Returns the grants that cannot be mapped since the plugin is not known; those that were
    /// mapped stay so as far as anybody knows.
    fn unknown(
        &self,
        grants: &BTreeMap<GrantKey, Verdict>,
        kept: &Kept,
    ) -> BTreeMap<GrantKey, NotMapped> {
        let Self::Unknown(why) = self else {
            return BTreeMap::new();
        };
        let valid = grants.iter().filter_map(|(key, verdict)| match verdict {
            Verdict::Valid(grant) if !grant.security_roles.is_empty() => Some((key, grant)),
            _ => None,
        });
        let was_mapped = |key: &GrantKey, grant: &crate::policy::validate::ValidatedGrant| {
            let recorded = kept
                .security
                .as_ref()
                .and_then(|it| it.grants.get(&key.uid));
            let asked = mappings::Entries::of_grant(grant);
            recorded.is_some_and(|recorded| {
                let mut roles = grant.security_roles.iter();
                roles.all(|role| recorded.get(role) == Some(&asked))
            })
        };
        let unmapped = valid.filter(|(key, grant)| !was_mapped(key, grant));
        unmapped
            .map(|(key, _)| (key.clone(), why.clone()))
            .collect()
    }

    /// Maps what is to be mapped, after it is on record; returns the grants of which something could
    /// not be.
    ///
    /// # Errors
    ///
    /// Fails where the record cannot be kept: then nothing is mapped.
    pub async fn map(
        &self,
        domain: &Domain,
        grants: &BTreeMap<GrantKey, Verdict>,
        plan: &MappingPlan,
        patience: &Patience,
        keeper: &Keeper,
        kept: &mut Kept,
    ) -> Result<BTreeMap<GrantKey, NotMapped>, super::error::Error> {
        let Self::Known(plugin, _) = self else {
            return Ok(self.unknown(grants, kept));
        };
        if kept.security.as_ref() != Some(&plan.intent) {
            *kept = keeper.write_security(kept, plan.intent.clone()).await?;
        }
        let failed: BTreeMap<&String, NotMapped> = stream::iter(&plan.adds)
            .map(|(role, entries)| async move {
                let added = Box::pin(mapping::add(plugin, role, entries));
                let why = patience.within(added).await.err()?;
                warn!(domain = %domain.name, %role, "failed to map to a role: {}", why.message);
                Some((role, why))
            })
            .buffer_unordered(WRITES)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        let of_grant = |(key, verdict): (&GrantKey, &Verdict)| {
            let Verdict::Valid(grant) = verdict else {
                return None;
            };
            let why = grant.security_roles.iter().find_map(|it| failed.get(it))?;
            Some((key.clone(), why.clone()))
        };
        Ok(grants.iter().filter_map(of_grant).collect())
    }

    /// Removes what is to be removed, and puts on record what is left; returns the UIDs of grants of
    /// which something still stands.
    ///
    /// # Errors
    ///
    /// Fails where the record cannot be kept.
    pub async fn unmap(
        &self,
        domain: &Domain,
        plan: &MappingPlan,
        all_mapped: bool,
        patience: &Patience,
        keeper: &Keeper,
        kept: &mut Kept,
    ) -> Result<BTreeSet<String>, super::error::Error> {
        let Self::Known(plugin, _) = self else {
            return Ok(self.left(plan));
        };
        let failed: BTreeSet<&String> = stream::iter(&plan.removes)
            .map(|(role, (entries, with_mapping))| async move {
                let removed = Box::pin(mapping::remove(plugin, role, entries, *with_mapping));
                let why = patience.within(removed).await.err()?;
                warn!(domain = %domain.name, %role, "failed to take from a role: {}", why.message);
                Some(role)
            })
            .buffer_unordered(WRITES)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        let still = standing(plan, |role| failed.contains(role));
        // The record of more than stands is harmless, that of less is not.
        if failed.is_empty() && all_mapped && kept.security.as_ref() != Some(&plan.next) {
            *kept = keeper.write_security(kept, plan.next.clone()).await?;
        }
        Ok(still)
    }

    /// Returns the UIDs of grants that are on record and asked for no more, while nothing may be
    /// removed.
    #[must_use]
    pub fn left(&self, plan: &MappingPlan) -> BTreeSet<String> {
        standing(plan, |role| plan.removes.contains_key(role))
    }

    /// Says why the plugin could not be asked, if it could not.
    #[must_use]
    pub fn problem(&self) -> Option<&NotMapped> {
        match self {
            Self::Unknown(why) => Some(why),
            _ => None,
        }
    }

    /// Tells whether the plugin is part of what the domain is asked for.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !matches!(self, Self::Unused)
    }
}

/// Returns the UIDs of grants that are on record for roles of which something still stands, and not
/// asked for any more.
fn standing(plan: &MappingPlan, stands: impl Fn(&String) -> bool) -> BTreeSet<String> {
    let gone = plan.intent.grants.iter();
    gone.filter(|(uid, _)| !plan.next.grants.contains_key(*uid))
        .filter(|(_, roles)| roles.keys().any(&stands))
        .map(|(uid, _)| uid.clone())
        .collect()
}

/// Tells whether mappings may be written at all, by the admin's word.
#[must_use]
pub fn may_write(domain: &Domain) -> bool {
    domain.security_mode != PolicyMode::Observe
}

/// Tells of a change of mappings: a line in the log, and an Event on the domain.
pub async fn tell(context: &Context, cluster: &Cluster, domain: &Domain, plan: &MappingPlan) {
    let count = |entries: &mappings::Entries| entries.users.len() + entries.backend_roles.len();
    let added: usize = plan.adds.values().map(count).sum();
    let removed: usize = plan
        .removes
        .values()
        .map(|(entries, _)| count(entries))
        .sum();
    if added + removed == 0 {
        return;
    }
    let roles: BTreeSet<&str> = plan
        .adds
        .keys()
        .chain(plan.removes.keys())
        .map(String::as_str)
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let grants: Vec<&str> = plan.next.grants.keys().map(String::as_str).collect();
    info!(
        domain = %domain.name, added, removed, %roles, grants = grants.join(","),
        "wrote role mappings ({})", EntityKind::Mapping.path()
    );
    let note = format!("mapped to roles: {added}, taken from roles: {removed} ({roles})");
    audit::mapped(context, &cluster.object, note).await;
}
