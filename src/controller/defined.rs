//! The steps of a reconcile that are about what teams define in the security plugin.
//!
//! What is named comes before what names it: action groups, tenants, roles, then mappings, then the
//! door. Removal goes the other way round.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use tracing::{info, warn};

use super::apply::{self, Applied, Door, PATCHES};
use super::context::Context;
use super::definers::Definer;
use super::error::Error;
use super::observe::{Cluster, Observed};
use super::patience::Patience;
use super::roles::{self, NotMapped, Secured};
use super::withdrawn::Withdrawn;
use crate::api::condition::{Reason, Statement, condition_type as ty};
use crate::api::definition::Removal;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::fine_grained::definition::check::{Rules, Verdict};
use crate::policy::fine_grained::definition::plan::{self, DefinitionPlan, Outcome};
use crate::policy::fine_grained::definition::{Definition, DefinitionKey, Definitions};
use crate::policy::fine_grained::entity::EntityKind;
use crate::policy::guard;
use crate::policy::plan::Plan;

/// How many things are written at a time: all of a kind are one document to the plugin.
const WRITES: usize = 4;

/// What became of definitions so far.
#[derive(Debug)]
pub(super) struct Defined {
    plan: DefinitionPlan,
    /// Whether anything may be written.
    writes: bool,
    /// Whether anything may be removed: no guard that fired holds that up.
    removes: bool,
    /// What could not be written or removed, and why.
    failed: BTreeMap<(EntityKind, String), NotMapped>,
    /// The objects that could not be held, and so were left out.
    unheld: BTreeSet<DefinitionKey>,
    /// What is on record still, by the UID of its object.
    recorded: BTreeMap<String, String>,
}

/// Plans what the plugin is to have (no client).
pub(super) fn plan(
    domain: &Domain,
    cluster: &Cluster,
    observed: &Observed,
    secured: &Secured,
    kept: &Withdrawn,
) -> DefinitionPlan {
    let last = observed.kept.definitions.as_ref();
    let config = secured.config(last);
    let all: Vec<Definition> = cluster
        .definers
        .iter()
        .filter_map(|it| it.definition().ok())
        .collect();
    let rules = Rules::new(
        domain,
        observed.domain.facts.fine_grained,
        observed.domain.engine,
        &config,
        &cluster.labels,
        &all,
    );
    let judge = |it: &Definer| match it.definition() {
        // What goes with its kind stays as it is.
        _ if kept.keeps(it, cluster) => Verdict::Unreadable,
        Ok(mut definition) => {
            definition.is_deleting |= cluster.is_deleting();
            rules.judge(definition)
        }
        Err(_) if it.is_deleting() || cluster.is_deleting() => Verdict::Gone,
        Err(_) => Verdict::Unreadable,
    };
    let definitions: Definitions = cluster
        .definers
        .iter()
        .map(|it| (it.key(), judge(it)))
        .collect();
    let seen = plan::Seen {
        is_fresh: cluster.is_fresh,
        unlisted: cluster.unlisted.clone(),
        acknowledged: guard::acknowledged(cluster.object.annotations()),
    };
    let mut plan = plan::plan(&definitions, &rules, last, &seen);
    plan.withheld = kept.hold.clone().or(plan.withheld);
    plan
}

/// Writes what the plugin lacks (client), after it is on record.
///
/// # Errors
///
/// Fails where the record cannot be kept: then nothing is written.
pub(super) async fn define(
    context: &Context,
    domain: &Domain,
    cluster: &Cluster,
    observed: &mut Observed,
    (secured, patience): (&Secured, &Patience),
    (plan, policy): (DefinitionPlan, &Plan),
) -> Result<Defined, Error> {
    let forbidden = apply::forbidden(domain, policy);
    let may_write = roles::may_write(domain);
    let mut defined = Defined {
        writes: may_write && forbidden.is_none(),
        removes: may_write && !matches!(forbidden, Some(Door::NotWritten { .. })),
        failed: BTreeMap::new(),
        unheld: BTreeSet::new(),
        recorded: BTreeMap::new(),
        plan,
    };
    let Secured::Known(plugin, _) = secured else {
        return Ok(defined);
    };
    let last = observed.kept.definitions.as_ref();
    let plan = &defined.plan;
    if !defined.writes || !cluster.is_fresh || !plan.changes(last) && plan.outcomes.is_empty() {
        return Ok(defined);
    }
    defined.unheld = hold(context, cluster, plan).await;
    let left_out: BTreeSet<(EntityKind, &String)> = defined
        .unheld
        .iter()
        .filter_map(|key| match plan.outcomes.get(key) {
            Some(Outcome::Defined { entity, .. }) => Some((key.kind, entity)),
            _ => None,
        })
        .collect();
    let empty = plan::AppliedDefinitions::default();
    let before = last.unwrap_or(&empty).clone();
    let mut intent = plan.intent.clone();
    for (kind, entity) in &left_out {
        intent.put_back(*kind, entity, &before);
    }
    if before != intent {
        let written = observed.keeper.write_definitions(&observed.kept, intent);
        observed.kept = written.await?;
    }
    for kind in EntityKind::ALL {
        let puts = plan
            .puts
            .iter()
            .filter(|(it, entity, _)| *it == kind && !left_out.contains(&(kind, entity)));
        let failed: Vec<_> = stream::iter(puts)
            .map(|(kind, entity, body)| async move {
                let body = serde_json::Value::Object(body.clone());
                let put = Box::pin(plugin.put(*kind, entity, &body));
                match patience.within(put).await {
                    Ok(()) => {
                        info!(domain = %domain.name, kind = kind.path(), name = %entity, "defined in the security plugin");
                        None
                    }
                    Err(why) => {
                        warn!(domain = %domain.name, kind = kind.path(), name = %entity, "failed to define: {}", why.message);
                        Some(((*kind, entity.clone()), why))
                    }
                }
            })
            .buffer_unordered(WRITES)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        defined.failed.extend(failed);
    }
    Ok(defined)
}

/// Puts the finalizer on what is about to be defined; returns what cannot be held.
async fn hold(
    context: &Context,
    cluster: &Cluster,
    plan: &DefinitionPlan,
) -> BTreeSet<DefinitionKey> {
    let defines =
        |it: &&Definer| matches!(plan.outcomes.get(&it.key()), Some(Outcome::Defined { .. }));
    stream::iter(cluster.definers.iter().filter(defines))
        .map(|it| async move {
            let error = it.hold(context).await.err()?;
            let key = it.key();
            warn!(namespace = %key.namespace, name = %key.name, "a definition is left out: {error}");
            Some(key)
        })
        .buffer_unordered(PATCHES)
        .filter_map(async |failed| failed)
        .collect()
        .await
}

impl Defined {
    /// Removes what is defined no more (client), puts on record what is left, and lets go of what is
    /// deleted.
    ///
    /// # Errors
    ///
    /// Fails where the record cannot be kept.
    pub(super) async fn remove(
        &mut self,
        context: &Context,
        domain: &Domain,
        cluster: &Cluster,
        observed: &Observed,
        (secured, patience): (&Secured, &Patience),
        mut applied: Applied,
    ) -> Result<Applied, Error> {
        let (plan, kept) = (&self.plan, &mut applied.kept);
        if let Secured::Known(plugin, _) = secured
            && self.removes
            && cluster.is_fresh
        {
            // One after the other, and what names before what it names.
            for (kind, entity) in &plan.deletes {
                let deleted = Box::pin(plugin.delete(*kind, entity));
                match patience.within(deleted).await {
                    Ok(()) => {
                        info!(domain = %domain.name, kind = kind.path(), name = %entity, "removed from the security plugin");
                    }
                    Err(why) => {
                        warn!(domain = %domain.name, kind = kind.path(), name = %entity, "failed to remove: {}", why.message);
                        self.failed.insert((*kind, entity.clone()), why);
                    }
                }
            }
            // What could not be done stays on record as it may stand, and nothing else.
            let empty = plan::AppliedDefinitions::default();
            let recorded = kept.definitions.clone().unwrap_or_default();
            let mut next = if self.writes {
                plan.next.clone()
            } else {
                recorded.shared_with(&plan.next)
            };
            for (kind, entity) in self.failed.keys() {
                next.put_back(*kind, entity, &recorded);
            }
            for key in &self.unheld {
                if let Some(Outcome::Defined { entity, .. }) = plan.outcomes.get(key) {
                    next.put_back(key.kind, entity, &recorded);
                }
            }
            if *kept.definitions.as_ref().unwrap_or(&empty) != next {
                *kept = observed.keeper.write_definitions(kept, next).await?;
            }
        }
        // A domain's own object waits for what could not be removed: nobody would do it afterwards.
        let done = |place: &(EntityKind, String)| {
            matches!(secured, Secured::Known(..)) && !self.failed.contains_key(place)
        };
        let undone = plan
            .deletes
            .iter()
            .filter(|place| self.removes && !done(place));
        let undone = undone.filter_map(|(kind, entity)| plan.intent.get(*kind, entity));
        let undone: Vec<String> = undone.map(|it| it.uid.clone()).collect();
        self.recorded = by_uid(kept.definitions.as_ref());
        let before = by_uid(observed.kept.definitions.as_ref());
        // Without a record nobody knows what an object defined, until the plugin was read.
        let settled = matches!(secured, Secured::Known(..)) && self.removes && cluster.is_fresh;
        let is_known = observed.kept.definitions.is_some() || settled || !secured.is_used();
        for it in &cluster.definers {
            let key = it.key();
            // Of those that do not say which domain they are for, only its own.
            let own = it.domain().is_some() || before.contains_key(&key.uid);
            let left = self.recorded.contains_key(&key.uid) || undone.contains(&key.uid);
            if it.is_deleting() && it.is_held() && own && is_known && !left {
                let entity = it.definition().map(|it| it.entity).unwrap_or_default();
                let place = (key.kind, entity.clone());
                let note = if plan.deletes.contains(&place) {
                    format!(
                        "{entity} is removed from the security plugin of domain {}",
                        domain.name
                    )
                } else {
                    format!(
                        "let go; nothing of it is removed from the security plugin of domain {}",
                        domain.name
                    )
                };
                it.publish(context, "Released", note).await;
                if let Err(error) = it.release(context).await {
                    warn!(namespace = %key.namespace, name = %key.name, "failed to let go: {error}");
                    self.unheld.insert(key);
                }
            }
        }
        applied.attached_still.extend(undone);
        if let (Some(hold), Some(problem)) = (&self.plan.withheld, &mut applied.security) {
            // Louder than the plugin being there.
            problem.get_or_insert_with(|| NotMapped {
                reason: hold.reason,
                message: hold.message.clone(),
            });
        }
        Ok(applied)
    }

    /// Tells whether something stays although its objects are gone, or go.
    pub(super) fn is_withheld(&self) -> bool {
        self.plan.withheld.is_some()
    }

    /// Shows what became of each definition (client); tells whether everything could be done and
    /// told.
    pub(super) async fn show(
        &self,
        context: &Context,
        cluster: &Cluster,
        secured: &Secured,
        now: Timestamp,
    ) -> bool {
        let mut all = self.failed.is_empty() && self.unheld.is_empty();
        for it in &cluster.definers {
            let key = it.key();
            let (name, said) = match it.definition() {
                Err(error) if it.domain().is_some() => (None, unreadable(error)),
                Err(_) => continue,
                Ok(definition) => match self.plan.outcomes.get(&key) {
                    Some(outcome) => {
                        let name = Some(definition.entity);
                        (name, self.said(&key, outcome, secured, cluster))
                    }
                    None => continue,
                },
            };
            all &= tell(context, it, name, said, now).await;
        }
        all
    }

    /// Says what became of one; nothing where what was said stays true.
    fn said(
        &self,
        key: &DefinitionKey,
        outcome: &Outcome,
        secured: &Secured,
        cluster: &Cluster,
    ) -> Vec<Statement> {
        let domain = cluster.object.metadata.name.as_deref().unwrap_or_default();
        let accepted = || {
            Statement::holds(
                ty::ACCEPTED,
                Reason::Reconciled,
                "the domain consents to it",
            )
        };
        match outcome {
            Outcome::Deleting(None) => Vec::new(),
            Outcome::Deleting(Some(role)) => {
                let message = format!(
                    "it is removed from the security plugin once role {role} names it no more"
                );
                vec![Statement::fails(ty::READY, Reason::Pending, message)]
            }
            // What it is checked by is not known.
            Outcome::Refused(Rejection { reason, .. }, _)
                if *reason == Reason::InvalidSpec && secured.problem().is_some() =>
            {
                Vec::new()
            }
            Outcome::Refused(rejection, stays) => {
                let standing = self.recorded.get(&key.uid);
                refused(rejection, stays.as_ref(), standing)
            }
            Outcome::Defined { entity, in_place } => {
                let waits = |reason, message: &str| {
                    vec![
                        Statement::fails(ty::READY, reason, message),
                        accepted(),
                        Statement::fails(ty::DEFINED, reason, message),
                    ]
                };
                if let Some(why) = self.failed.get(&(key.kind, entity.clone())) {
                    return waits(why.reason, &why.message);
                }
                if self.unheld.contains(key) {
                    return waits(
                        Reason::Unavailable,
                        "the operator's finalizer could not be written, for example because an admission policy forbids it; it is tried again by itself",
                    );
                }
                if let Some(why) = secured.problem() {
                    // What stands stays, as far as anybody knows.
                    return if *in_place {
                        Vec::new()
                    } else {
                        waits(why.reason, &why.message)
                    };
                }
                if !in_place && !self.writes {
                    return waits(
                        Reason::Observed,
                        "nothing is written at present, by the admin's word or since a guard holds the domain: its status says why",
                    );
                }
                if !in_place && !cluster.is_fresh {
                    return Vec::new();
                }
                let message = format!("the security plugin of domain {domain} has {entity}");
                vec![
                    Statement::holds(ty::READY, Reason::Reconciled, message.clone()),
                    accepted(),
                    Statement::holds(ty::DEFINED, Reason::Reconciled, message),
                ]
            }
        }
    }
}

fn unreadable(error: &str) -> Vec<Statement> {
    let message = format!(
        "this version of the operator cannot read it: {error}; what stands of it stays until it is corrected or deleted"
    );
    vec![Statement::fails(ty::READY, Reason::InvalidSpec, message)]
}

/// Says why one is refused; `stays` is the name of what stays of it, `standing` of what is to be
/// removed and could not be yet.
fn refused(
    rejection: &Rejection,
    stays: Option<&String>,
    standing: Option<&String>,
) -> Vec<Statement> {
    let (reason, message) = (rejection.reason, rejection.to_string());
    let defined = match (stays, standing) {
        (Some(entity), _) => Statement::fails(
            ty::DEFINED,
            reason,
            format!("{entity} stays as it was last valid: {message}"),
        ),
        (None, Some(entity)) => Statement::unknown(
            ty::DEFINED,
            reason,
            format!(
                "{entity} is to be removed from the security plugin, which could not be done yet; that is tried again by itself, and the domain's status says what it waits for"
            ),
        ),
        (None, None) => Statement::fails(ty::DEFINED, reason, message.clone()),
    };
    vec![
        Statement::fails(ty::READY, reason, message.clone()),
        Statement::fails(ty::ACCEPTED, reason, message),
        defined,
    ]
}

/// Returns the names on record, by the UIDs of their objects.
fn by_uid(record: Option<&plan::AppliedDefinitions>) -> BTreeMap<String, String> {
    let all = record.into_iter().flat_map(plan::AppliedDefinitions::all);
    all.map(|(_, entity, it)| (it.uid.clone(), entity.clone()))
        .collect()
}

/// Shows that definitions wait for their domain: all of them, or those that were changed since.
pub(super) async fn waiting(
    context: &Context,
    cluster: &Cluster,
    all: bool,
    (reason, message): (Reason, &str),
    now: Timestamp,
) {
    for it in cluster.definers.iter().filter(|it| it.domain().is_some()) {
        let is_new = it.observed_generation() != it.meta().generation;
        let Some(definition) = it.definition().ok().filter(|_| all || is_new) else {
            continue;
        };
        let said = vec![
            Statement::fails(ty::READY, reason, message),
            Statement::unknown(ty::DEFINED, reason, message),
        ];
        tell(context, it, Some(definition.entity), said, now).await;
    }
}

/// Shows what became of definitions whose domain is deleted, and takes with it what they defined.
pub(super) async fn removed_with_domain(context: &Context, cluster: &Cluster, now: Timestamp) {
    for it in cluster.definers.iter().filter(|it| it.domain().is_some()) {
        let Some(definition) = it
            .definition()
            .ok()
            .filter(|it| it.removal == Removal::Delete)
        else {
            continue;
        };
        let rejection = Rejection::new(
            Reason::DomainNotFound,
            "spec.domainRef.name",
            format!(
                "OpenSearchDomain {} is deleted, and what this object defines is removed with it",
                cluster.object.name_any()
            ),
        );
        let said = refused(&rejection, None, None);
        tell(context, it, Some(definition.entity), said, now).await;
    }
}

/// Shows what became of one; tells whether it could be told.
async fn tell(
    context: &Context,
    it: &Definer,
    name: Option<String>,
    said: Vec<Statement>,
    now: Timestamp,
) -> bool {
    // What is deleted is about to go, unless it waits for something.
    let waits = said.iter().any(|it| it.reason == Reason::Pending);
    if said.is_empty() || it.is_deleting() && !waits {
        return true;
    }
    let told = it.show(context, name, said, now).await;
    told.inspect_err(|error| {
        let key = it.key();
        warn!(namespace = %key.namespace, name = %key.name, "{error}");
    })
    .is_ok()
}

/// Shows the definitions of a domain that does not exist, and lets go of those that are deleted;
/// tells whether all of it could be done.
pub(super) async fn orphaned(
    context: &Context,
    domain: &str,
    definers: &[Definer],
    now: Timestamp,
) -> bool {
    let rejection = Rejection::new(
        Reason::DomainNotFound,
        "spec.domainRef.name",
        format!(
            "no OpenSearchDomain {domain:?} exists: correct the name, or ask the platform's admins to create it"
        ),
    );
    let mut all = true;
    for it in definers.iter().filter(|it| it.domain() == Some(domain)) {
        if it.is_deleting() {
            if let Err(error) = it.release(context).await {
                let key = it.key();
                warn!(namespace = %key.namespace, name = %key.name, "{error}");
                all = false;
            }
            continue;
        }
        let mut said = refused(&rejection, None, None);
        said.retain(|statement| statement.type_ != ty::ACCEPTED);
        if it.was_defined() {
            said.retain(|statement| statement.type_ != ty::DEFINED);
            said.push(Statement::unknown(
                ty::DEFINED,
                rejection.reason,
                "what it defines was left in the security plugin when its OpenSearchDomain was deleted; nobody looks after it, and deleting this object does not remove it",
            ));
        }
        let name = it.definition().ok().map(|it| it.entity);
        all &= tell(context, it, name, said, now).await;
    }
    all
}
