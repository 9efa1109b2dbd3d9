//! One domain, from manifests to AWS: the steps, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::apply::{self, Applied, Door};
use super::context::{Context, MISSING_FOR};
use super::error::Error;
use super::queue::Domain as Guarded;
use super::{finalizer, observe, status};
use crate::api::condition::Reason;
use crate::api::domain::{DeletionPolicy, OpenSearchDomain};
use crate::policy::domain::Domain;
use crate::policy::guard;
use crate::policy::plan::{self, Input, Outcome, Plan};
use crate::policy::verdict::{self, Verdict};

/// The longest that one reconcile may take; kube's own retries alone could take minutes.
const TIME_LIMIT: Duration = Duration::from_mins(2);

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
    let result = tokio::time::timeout(TIME_LIMIT, Box::pin(steps(&name, &context)))
        .await
        .unwrap_or(Err(Error::TimedOut(TIME_LIMIT.as_secs())));
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
            context.forget(name);
            return Ok(Action::await_change());
        }
        observe::Found::Unreadable(object, rule) => {
            status::unreadable(context, &object, &rule).await?;
            return Ok(Action::await_change());
        }
    };
    let now = Timestamp::now();

    // validate the domain (no client)
    let domain = match Domain::parse(&cluster.object) {
        Ok(domain) => domain,
        Err(broken) => {
            status::invalid(context, &cluster, &broken, now).await?;
            if cluster.is_deleting() {
                finalizer::release_domain(context, &cluster.object).await?;
            }
            return Ok(Action::await_change());
        }
    };
    if cluster.is_deleting() && domain.deletion_policy == DeletionPolicy::Retain {
        finalizer::forget(context, &cluster.object).await?;
        return Ok(Action::await_change());
    }

    match reconcile_domain(context, &domain, &cluster, now).await {
        Ok(action) => Ok(action),
        Err(error) if error.is_momentary() => Err(error),
        Err(error) => {
            if matches!(error, Error::NoDomain(_))
                && let Err(second) =
                    finalizer::finish_without_domain(context, &domain, &cluster).await
            {
                tracing::warn!(
                    domain = name,
                    "failed to let go of what is deleted: {second}"
                );
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
    // observe AWS and the last applied state (client)
    let observed = observe::aws(context, domain).await?;

    // validate (no client), but for the principals' existence (client)
    let mut grants = verdict::of_all(
        cluster.grants.iter().map(AsRef::as_ref),
        domain,
        observed.domain.facts,
        &cluster.labels,
        now,
    );
    observe::add_unreadable(&mut grants, cluster, observed.kept.state.as_ref());
    if cluster.is_deleting() {
        for verdict in grants.values_mut() {
            *verdict = Verdict::Deleting;
        }
    }
    observe::principals(context, domain, &observed, &mut grants).await;
    context.quarantine.hold(domain, &mut grants);

    // plan and guard (no client)
    let plan = plan::plan(&Input {
        domain,
        facts: observed.domain.facts,
        grants: &grants,
        observed: &observed.policy,
        last: observed.kept.state.as_ref(),
        acknowledged_revocation: guard::acknowledged(cluster.object.annotations()),
    });
    observe::confirm_vanished(context, cluster, observed.kept.state.as_ref(), &plan).await?;

    // apply (client)
    let applied = apply::apply(context, domain, cluster, &observed, &plan).await?;

    // status (client)
    status::reconciled(context, domain, cluster, &observed, &plan, &applied, now).await?;
    if applied.door == Door::InForce {
        context.reset_tries(&domain.name);
        context.quarantine.accept(&domain.name);
        finalizer::finish_deletions(context, cluster, &plan).await?;
        context.metrics.succeeded(now);
    }
    Ok(next(context, domain, &cluster.object, &plan, &applied, now))
}

/// Says when to look again, if nothing changes in the cluster before.
fn next(
    context: &Context,
    domain: &Domain,
    object: &OpenSearchDomain,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> Action {
    if object.metadata.deletion_timestamp.is_some() && applied.door == Door::InForce {
        return Action::await_change();
    }
    let mut wait = match applied.door {
        Door::Written => READ_BACK_AFTER,
        Door::Applying | Door::Waiting { .. } => context.next_try(&domain.name),
        Door::InForce | Door::Held { .. } | Door::NotWritten { .. } => {
            let interval = domain.interval.unsigned_abs();
            interval.mul_f64(0.9 + fastrand::f64() / 5.0)
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
                    Reason::PrincipalNotFound | Reason::PrincipalUnknown
                ) =>
            {
                wait = wait.min(MISSING_FOR);
            }
            _ => {}
        }
    }
    if let Some(soon) = context.quarantine.next(&domain.name) {
        wait = wait.min(soon);
    }
    if applied.identity.values().any(Result::is_err) {
        wait = wait.min(context.next_try(&domain.name));
    }
    Action::requeue(wait)
}
