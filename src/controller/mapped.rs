//! The steps of a reconcile that are about roles of the security plugin.

use std::collections::BTreeMap;

use super::apply::{self, Applied, Door};
use super::context::Context;
use super::error::Error;
use super::observe::{Cluster, Observed};
use super::patience::Patience;
use super::reconcile::Decision;
use super::roles::{self, NotMapped, Roles, Secured};
use crate::api::condition::Reason;
use crate::aws::error::Error as AwsError;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::fine_grained::mapping::MappingPlan;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::GrantKey;
use crate::policy::verdict::Verdict;

/// What is to be done about roles of the security plugin, and what became of it so far.
pub(super) struct Mapped {
    plan: MappingPlan,
    /// Whether anything may be written.
    writes: bool,
    /// Who could not be mapped.
    pub(super) unmapped: BTreeMap<GrantKey, NotMapped>,
    /// What that means for each grant.
    grants: BTreeMap<GrantKey, Roles>,
}

/// Maps principals to roles; the door is opened no further to those who could not be mapped.
pub(super) async fn map(
    domain: &Domain,
    cluster: &Cluster,
    observed: &mut Observed,
    (secured, patience): (&Secured, &Patience),
    (decision, plan): (&mut Decision, &mut Plan),
) -> Result<Mapped, Error> {
    let mapping = self::plan(decision, secured, observed, plan);
    let writes = apply::forbidden(domain, plan).is_none() && roles::may_write(domain);
    let mut unmapped = BTreeMap::new();
    if writes {
        let Observed { keeper, kept, .. } = observed;
        let failed = secured.map(domain, &decision.grants, &mapping, patience, keeper, kept);
        unmapped = failed.await?;
    }
    let grants = said(decision, plan, &unmapped, writes);
    for (key, why) in &unmapped {
        leave_unmapped(&mut decision.grants, key, why);
    }
    if !unmapped.is_empty() {
        *plan = decision.plan(domain, cluster, observed);
    }
    Ok(Mapped {
        plan: mapping,
        writes,
        unmapped,
        grants,
    })
}

impl Mapped {
    /// Takes from roles what is granted no more, after the door is closed or cannot be.
    pub(super) async fn unmap(
        &self,
        context: &Context,
        domain: &Domain,
        cluster: &Cluster,
        observed: &Observed,
        (secured, patience): (&Secured, &Patience),
        applied: Result<Applied, Error>,
    ) -> Result<Applied, Error> {
        let leads = !matches!(applied, Err(Error::Aws(AwsError::NotLeading { .. })));
        // What revokes is not held up by a guard that fired.
        let is_held = |applied: &Applied| matches!(applied.door, Door::Held { .. });
        let held = applied.as_ref().is_ok_and(is_held) && roles::may_write(domain);
        let all = self.writes && self.unmapped.is_empty();
        let mut kept = match &applied {
            Ok(applied) => applied.kept.clone(),
            Err(_) => observed.keeper.read().await?,
        };
        let left = if leads && (self.writes || held) {
            let (keeper, kept) = (&observed.keeper, &mut kept);
            let left = secured.unmap(domain, &self.plan, all, patience, keeper, kept);
            let left = left.await?;
            if self.unmapped.is_empty() && left.is_empty() {
                roles::tell(context, cluster, domain, &self.plan).await;
            }
            left
        } else {
            secured.left(&self.plan)
        };
        let mut applied = applied?;
        applied.kept = kept;
        applied.attached_still.extend(left);
        applied.roles = self.grants.clone();
        applied.security = secured.is_used().then(|| secured.problem().cloned());
        Ok(applied)
    }
}

/// Plans the mappings to roles of the security plugin.
pub(super) fn plan(
    decision: &Decision,
    secured: &Secured,
    observed: &Observed,
    plan: &Plan,
) -> MappingPlan {
    secured.plan(&decision.grants, &observed.kept, plan.withheld.is_some())
}

/// Says what becomes of the roles of each grant that is let in.
fn said(
    decision: &Decision,
    plan: &Plan,
    unmapped: &BTreeMap<GrantKey, NotMapped>,
    maps: bool,
) -> BTreeMap<GrantKey, Roles> {
    let asking = decision
        .grants
        .iter()
        .filter_map(|(key, verdict)| match verdict {
            Verdict::Valid(grant) if !grant.security_roles.is_empty() => Some(key),
            _ => None,
        });
    let became = |key: &GrantKey| {
        let observed = || NotMapped {
            reason: Reason::Observed,
            message: "role mappings are not written at present, by the admin's word".to_owned(),
        };
        let why = unmapped
            .get(key)
            .cloned()
            .or_else(|| (!maps).then(observed))?;
        let outcome = plan.outcomes.get(key);
        let door_in_place = matches!(outcome, Some(Outcome::Granted { in_place: true, .. }));
        Some(Roles::Missing { why, door_in_place })
    };
    asking
        .map(|key| (key.clone(), became(key).unwrap_or(Roles::Mapped)))
        .collect()
}

/// Lets nobody in any further whose principals could not be mapped.
fn leave_unmapped(grants: &mut BTreeMap<GrantKey, Verdict>, key: &GrantKey, why: &NotMapped) {
    if let Some(verdict) = grants.get_mut(key)
        && let Verdict::Valid(grant) = verdict
    {
        let rule = "the principals could not be mapped; it is tried again by itself";
        let rejection = Rejection::new(why.reason, "spec.securityRoles", rule);
        *verdict = Verdict::Undecided(grant.clone(), rejection);
    }
}
