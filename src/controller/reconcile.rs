//! One domain, from manifests to AWS: the steps, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::apply::{self, Applied, Door};
use super::context::{Context, MISSING_FOR};
use super::error::Error;
use super::observe::Observed;
use super::patience::Patience;
use super::quarantine::tries::{Found, Tries};
use super::queue::Domain as Guarded;
use super::roles::{self, Secured};
use super::{
    accounts, audit, defined, finalizer, fresh, mapped, observe, overdue, status, withdrawn,
};
use crate::api::condition::Reason;
use crate::api::domain::DeletionPolicy;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::evidence::{self, Unreadable};
use crate::policy::fine_grained::definition::plan::DefinitionPlan;
use crate::policy::guard::{self, Hold};
use crate::policy::ownership::LastApplied;
use crate::policy::plan::{self, Input, Outcome, Plan};
use crate::policy::validate::{GrantKey, ValidatedGrant};
use crate::policy::verdict::{self, Verdict};

/// The longest that one reconcile may take; kube's own retries alone could take minutes.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// What is left on top of that for reading the cluster and writing the status.
const GRACE: Duration = Duration::from_mins(1);

/// How soon it is made sure of that no older object names the same domain any more.
const RIVAL_INTERVAL: Duration = Duration::from_mins(1);

/// How soon after a write the policy is read back.
const READ_BACK_AFTER: Duration = Duration::from_secs(1);

/// Reconciles one domain.
///
/// # Cancellation
///
/// Safe at every await: what may have been written is on record before it is.
pub async fn reconcile(domain: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let name = domain.name_any();
    if context.is_draining() {
        return Ok(Action::await_change());
    }
    if let Some(left) = context.bursts.wait(&name) {
        return Ok(Action::requeue(left));
    }
    let began = Instant::now();
    let limit = TIME_LIMIT + GRACE;
    let result = tokio::time::timeout(limit, Box::pin(steps(&name, &context)))
        .await
        .unwrap_or(Err(Error::TimedOut(limit.as_secs())));
    let outcome = result.as_ref().map_or_else(Error::outcome, |_| "ok");
    context.metrics.reconciled(outcome, began.elapsed());
    context.metrics.quarantined(context.quarantine.count());
    result
}

async fn steps(name: &str, context: &Context) -> Result<Action, Error> {
    // observe the cluster (client)
    let cluster = match observe::cluster(name, context).await? {
        observe::Found::Cluster(cluster) => cluster,
        observe::Found::Gone => {
            context.forget_domain(name);
            return Ok(Action::await_change());
        }
        observe::Found::Unreadable(object, rule) => {
            if object.meta().deletion_timestamp.is_some() {
                finalizer::forget_unreadable(context, &object).await?;
                return Ok(Action::await_change());
            }
            status::unreadable(context, &object, &rule).await?;
            return Ok(Action::await_change());
        }
    };
    let now = Timestamp::now();

    // validate the domain (no client)
    let domain = match Domain::parse(&cluster.object) {
        Ok(domain) => domain,
        Err(broken) => {
            if cluster.is_deleting() {
                finalizer::forget(context, &cluster.object).await?;
                return Ok(Action::await_change());
            }
            status::invalid(context, &cluster, &broken, now).await?;
            overdue::let_go(context, &cluster, now).await?;
            let next = overdue::next(&cluster, context.config.revocation_limit, now);
            return Ok(next.map_or_else(Action::await_change, Action::requeue));
        }
    };
    if cluster.is_deleting() && domain.deletion_policy == DeletionPolicy::Retain {
        finalizer::forget(context, &cluster.object).await?;
        return Ok(Action::await_change());
    }

    if let Some(older) = observe::older_rival(context, &cluster.object) {
        finalizer::finish_rivalled(context, &domain, &cluster).await?;
        overdue::let_go(context, &cluster, now).await?;
        if cluster.is_deleting() {
            return Ok(Action::await_change());
        }
        status::rivalled(context, &cluster, &older, now).await?;
        return Ok(Action::requeue(RIVAL_INTERVAL));
    }

    let reconciled = reconcile_domain(context, &domain, &cluster, now);
    let reconciled = tokio::time::timeout(TIME_LIMIT, Box::pin(reconciled))
        .await
        .unwrap_or(Err(Error::TimedOut(TIME_LIMIT.as_secs())));
    let momentary = |error: &Error| error.is_momentary();
    if !reconciled.as_ref().is_err_and(momentary) {
        // what could not be revoked in time is let go (client)
        let late = overdue::let_go(context, &cluster, now).await;
        if let Err(second) = late {
            tracing::warn!(
                domain = name,
                "failed to let go of what waits for too long: {second}"
            );
        }
    }
    match reconciled {
        Ok(action) => Ok(action),
        Err(error) if error.is_momentary() => Err(error),
        Err(mut error) => {
            if let Error::Aws(refused) = &error
                && refused.is_of_credentials()
            {
                // They were revoked before their time: the next try asks for new ones.
                let session = observe::session_name(&domain.domain_name);
                context.sessions.retain(|name| name != session);
            }
            if matches!(error, Error::NoDomain(_))
                && let Err(second) =
                    finalizer::finish_without_domain(context, &domain, &cluster).await
            {
                tracing::warn!(
                    domain = name,
                    "failed to let go of what is deleted: {second}"
                );
                error = error.or(second);
                if error.is_momentary() {
                    return Err(error);
                }
            }
            // status (client): on this path too; its own failure must not hide the error
            if let Err(second) = status::failed(context, &cluster, &error, now).await {
                tracing::warn!(domain = name, "failed to write the status: {second}");
            }
            Err(error)
        }
    }
}

async fn reconcile_domain(
    context: &Context,
    domain: &Domain,
    cluster: &observe::Cluster,
    now: Timestamp,
) -> Result<Action, Error> {
    // observe AWS, the last applied state and the security plugin (client)
    let mut observed = observe::aws(context, domain).await?;
    audit::read_back(context, domain, &cluster.object, &observed).await;
    let mut secured = roles::observe(context, domain, cluster, &observed).await;

    // validate (no client), but for the roles and the principals' existence (client)
    let mut decision = decide(context, domain, cluster, &observed, &secured, now).await?;
    // plan and guard (no client)
    let mut plan = decision.plan(domain, cluster, &observed);
    let mapping = mapped::plan(&decision, &secured, &observed, &plan);

    // A store is good enough to tell that there is nothing to do, but for events that a watch lost:
    // hence once an interval, and before each write, all is read again (client).
    let fresh;
    let mut cluster = cluster;
    let suspects = context.quarantine.is_watching(&domain.name);
    let may_write = !matches!(
        apply::forbidden(domain, &plan),
        Some(Door::NotWritten { .. })
    );
    let defines = decision.defined.changes(observed.kept.definitions.as_ref());
    let changes = plan.changes(observed.kept.state.as_ref()) || mapping.changes() || defines;
    let due = context.is_to_be_read(&domain.name, domain.interval.unsigned_abs());
    if may_write && (suspects || changes || due) {
        fresh = fresh::cluster(context, cluster, observed.has_definitions()).await?;
        context.was_read(&domain.name);
        cluster = &fresh;
        secured = roles::observe(context, domain, cluster, &observed).await;
        decision = decide(context, domain, cluster, &observed, &secured, now).await?;
    }
    let mut free = BTreeMap::new();
    if suspects || cluster.is_fresh {
        free = context.quarantine.hold(domain, &mut decision.grants);
        plan = decision.plan(domain, cluster, &observed);
    }

    // hold what is granted (client)
    let both = (&mut decision, &mut plan);
    let unheld = hold(context, domain, cluster, &observed, both).await;

    // define roles and what they name (client), and map to them (client), before the door opens
    let before = Patience::before_door(&plan);
    let what = (std::mem::take(&mut decision.defined), &plan);
    let plugin = (&secured, &before);
    let defining = defined::define(context, domain, cluster, &mut observed, plugin, what);
    let mut defining = defining.await?;
    let both = (&mut decision, &mut plan);
    let roles = mapped::map(domain, cluster, &mut observed, plugin, both).await?;
    forget_unheld(&mut plan, observed.kept.state.as_ref(), &unheld);

    // apply (client)
    let applied = apply::apply(context, domain, cluster, &observed, &plan).await;
    // take from roles (client), whatever the door waits for
    let after = Patience::after_door();
    let plugin = (&secured, &after);
    let unmapped = roles.unmap(context, domain, cluster, &observed, plugin, applied);
    let applied = unmapped.await?;
    // remove what is defined no more (client)
    let removed = defining.remove(context, domain, cluster, &observed, plugin, applied);
    let mut applied = removed.await?;

    // where AWS refuses the policy, find out for whom (client)
    let mut grants = decision.grants.clone();
    grants.extend(free);
    let tries = Tries {
        context,
        domain,
        cluster,
        observed: &observed,
        grants: &grants,
    };
    let plan_of = |grants: &_| decision.plan_of(grants, domain, cluster, &observed);
    let found = tries.run(plan_of, &plan, &mut applied).await?;
    if found == Found::More && applied.refused.is_some() {
        return Ok(Action::requeue(Duration::ZERO));
    }

    // status (client)
    let shown = defining.show(context, cluster, &secured, now).await;
    let told = status::reconciled(context, domain, cluster, &observed, &plan, &applied, now).await;
    if applied.door == Door::InForce {
        context.settled(&domain.name);
        context.quarantine.accept(&domain.name);
    }
    let in_order = |done| {
        if done && applied.door == Door::InForce {
            context.metrics.succeeded(now);
        }
    };
    let mut done = unheld.is_empty() && applied.attached_still.is_empty();
    done &= shown && roles.unmapped.is_empty() && secured.problem().is_none();
    let spared = cluster.is_deleting() && decision.spared.is_some();
    if is_revoked(&plan, &applied, &observed) && !spared {
        let but = &applied.attached_still;
        let goes = cluster.is_deleting() && but.is_empty();
        if goes {
            status::revoked_with_domain(context, cluster, now).await;
        }
        done &= finalizer::finish_deletions(context, cluster, &plan, but).await?;
        if goes {
            in_order(done);
            return Ok(Action::await_change());
        }
    }
    done &= told?;
    in_order(done);
    let all = done && applied.identity.values().all(Result::is_ok);
    if all && applied.door == Door::InForce {
        let held = plan.withheld.is_some() || defining.is_withheld();
        withdrawn::spend(context, &cluster.object, held).await?;
        context.reset_tries(&domain.name);
    }
    let wait = next(context, (domain, cluster), &plan, &applied, all, now);
    Ok(Action::requeue(sooner(
        wait, found, context, domain, &applied,
    )))
}

/// Holds what is granted, so that it cannot go before it is revoked; what cannot be held is left out,
/// and room that it leaves may let others in. Returns what could not be.
async fn hold(
    context: &Context,
    domain: &Domain,
    cluster: &observe::Cluster,
    observed: &Observed,
    (decision, plan): (&mut Decision, &mut Plan),
) -> BTreeSet<GrantKey> {
    let (mut holds, mut unheld) = (BTreeSet::new(), BTreeSet::new());
    while apply::forbidden(domain, plan).is_none() {
        let failed = finalizer::hold_grants(context, cluster, plan, &mut holds).await;
        if failed.is_empty() {
            break;
        }
        for key in &failed {
            leave_out(&mut decision.grants, key);
        }
        unheld.extend(failed);
        *plan = decision.plan(domain, cluster, observed);
    }
    unheld
}

/// Leaves those out of the record who are not held: nothing of them is written, so that their going
/// is none of anybody's business.
fn forget_unheld(plan: &mut Plan, last: Option<&LastApplied>, unheld: &BTreeSet<GrantKey>) {
    let known = |uid: &String| last.is_some_and(|last| last.grants.contains_key(uid));
    let unheld: BTreeSet<&String> = unheld.iter().map(|key| &key.uid).collect();
    plan.next
        .grants
        .retain(|uid, _| known(uid) || !unheld.contains(uid));
}

/// Says when to look again after a search for whom AWS refuses the policy.
fn sooner(
    wait: Duration,
    found: Found,
    context: &Context,
    domain: &Domain,
    applied: &Applied,
) -> Duration {
    match found {
        Found::More if applied.written.is_none() => Duration::ZERO,
        Found::More | Found::Nothing => wait,
        Found::Later => wait.min(context.next_try(&domain.name)),
    }
}

/// What validation makes of a domain's grants, and what it takes to plan from that.
pub(super) struct Decision {
    /// The verdict on each grant.
    pub(super) grants: BTreeMap<GrantKey, Verdict>,
    /// What the grants ask for that carry the operator's finalizer.
    held: BTreeMap<GrantKey, ValidatedGrant>,
    /// Why deletions are held, where they are.
    spared: Option<Hold>,
    /// What is to be in the security plugin.
    defined: DefinitionPlan,
}

impl Decision {
    pub(super) fn plan(
        &self,
        domain: &Domain,
        cluster: &observe::Cluster,
        observed: &observe::Observed,
    ) -> Plan {
        self.plan_of(&self.grants, domain, cluster, observed)
    }

    /// Plans with other verdicts on the grants.
    fn plan_of(
        &self,
        grants: &BTreeMap<GrantKey, Verdict>,
        domain: &Domain,
        cluster: &observe::Cluster,
        observed: &observe::Observed,
    ) -> Plan {
        let mut plan = plan::plan(&Input {
            domain,
            facts: observed.domain.facts,
            held: &self.held,
            grants,
            observed: &observed.policy,
            last: observed.kept.state.as_ref(),
            acknowledged_revocation: guard::acknowledged(cluster.object.annotations()),
        });
        plan.withheld = self.spared.clone().or(plan.withheld);
        plan
    }
}

/// Validates a domain's grants.
async fn decide(
    context: &Context,
    domain: &Domain,
    cluster: &observe::Cluster,
    observed: &observe::Observed,
    secured: &Secured,
    now: Timestamp,
) -> Result<Decision, Error> {
    let last = observed.kept.state.as_ref();
    let released = overdue::released(cluster, last, now);
    let there = cluster.grants.iter().map(AsRef::as_ref);
    let all = there.chain(&released);
    let facts = observed.domain.facts;
    let roles = accounts::resolve(context, domain, cluster, observed).await;
    accounts::confirm_known(cluster, observed, &roles)?;
    let asked = verdict::held(all.clone(), domain, facts, &roles);
    let mut grants = verdict::of_all(all, domain, facts, &roles, &cluster.labels, now);
    let unreadable = cluster.unreadable_of(last);
    evidence::add_unreadable(
        &mut grants,
        unreadable.map(|(key, grant, unreadable)| Unreadable {
            key,
            error: unreadable.error.clone(),
            is_deleting: grant.meta().deletion_timestamp.is_some(),
        }),
    );
    let deleting = |verdict: &Verdict| matches!(verdict, Verdict::Deleting);
    let mut spared = None;
    if cluster.is_deleting() || grants.values().any(deleting) {
        spared = withdrawn::held(context, cluster, last).await?;
    }
    match &spared {
        Some(hold) => withdrawn::spare(&mut grants, &asked, hold),
        None if cluster.is_deleting() => {
            for verdict in grants.values_mut() {
                *verdict = Verdict::Deleting;
            }
        }
        None => {}
    }
    let domain_goes = cluster.is_deleting() && spared.is_some();
    let kept = withdrawn::of_definers(context, cluster, domain_goes).await?;
    let defined = defined::plan(domain, cluster, observed, secured, &kept);
    secured.judge(domain, cluster, &defined, &mut grants);
    observe::principals(context, domain, observed, &mut grants).await;
    Ok(Decision {
        grants,
        held: asked,
        spared,
        defined,
    })
}

/// Leaves out a grant that cannot be kept from going before it is revoked.
fn leave_out(grants: &mut BTreeMap<GrantKey, Verdict>, key: &GrantKey) {
    if let Some(verdict) = grants.get_mut(key)
        && let Verdict::Valid(grant) = verdict
    {
        let rejection = Rejection::new(
            Reason::Unavailable,
            "metadata.finalizers",
            "the operator's finalizer could not be written, for example because an admission policy forbids it; it is tried again by itself",
        );
        *verdict = Verdict::Undecided(grant.clone(), rejection);
    }
}

/// Tells whether nothing is in force of what is being deleted.
pub(super) fn is_revoked(plan: &Plan, applied: &Applied, observed: &observe::Observed) -> bool {
    match applied.door {
        Door::InForce => true,
        Door::NotWritten { .. } => {
            plan.policy.is_none()
                && plan.identity_removals.is_empty()
                && observed.domain.policy_active
        }
        Door::Applying | Door::Written | Door::Held { .. } | Door::Waiting { .. } => false,
    }
}

/// Says when to look again, if nothing changes in the cluster before.
///
/// `all` tells whether everything beside the policy could be done.
fn next(
    context: &Context,
    (domain, cluster): (&Domain, &observe::Cluster),
    plan: &Plan,
    applied: &Applied,
    all: bool,
    now: Timestamp,
) -> Duration {
    let mut wait = match applied.door {
        Door::Written if applied.written == Some(true) => READ_BACK_AFTER,
        _ if applied.contested.is_some() => applied.contested.unwrap_or_default(),
        Door::Written | Door::Applying | Door::Waiting { .. } => context.next_try(&domain.name),
        Door::InForce | Door::Held { .. } | Door::NotWritten { .. } => {
            let interval = domain.interval.unsigned_abs();
            // Never more often: the interval is what the admin allows a domain to cost.
            interval.mul_f64(1.0 + fastrand::f64() / 10.0)
        }
    };
    for outcome in plan.outcomes.values() {
        match outcome {
            Outcome::Granted {
                expires_at: Some(end),
                ..
            } => {
                // Rounded up, so that the grant has ended when it is looked at.
                let left = end.duration_since(now).as_secs().max(0) + 1;
                wait = wait.min(Duration::from_secs(left.unsigned_abs()));
            }
            Outcome::Refused(rejection) | Outcome::Undecided(rejection)
                if matches!(
                    rejection.reason,
                    Reason::PrincipalNotFound
                        | Reason::PrincipalUnknown
                        | Reason::RoleNotFound
                        | Reason::RoleNotResolved
                        | Reason::TrustNotProven
                ) =>
            {
                wait = wait.min(MISSING_FOR);
            }
            _ => {}
        }
    }
    if let Some(soon) = context.quarantine.next_try(&domain.name) {
        wait = wait.min(soon);
    }
    if !all {
        wait = wait.min(context.next_try(&domain.name));
    }
    let limit = context.config.revocation_limit;
    overdue::next(cluster, limit, now).map_or(wait, |overdue| wait.min(overdue))
}
