//! Asks AWS for whom it refuses a policy.
//!
//! A *dry run* of the policy that was just refused tells by which means to ask: whether dry runs
//! judge principals is not documented. Where they refuse it too, they are asked about the policy
//! with more or fewer of the suspects, and change nothing. Where they take it, they say nothing, and
//! the same is done by writes: one that is refused changes nothing either, and after one that is
//! taken the search waits until the domain can take the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::apply::{self, Applied, Door};
use super::super::context::Context;
use super::super::error::Error;
use super::super::observe::{self, Cluster, Observed};
use super::super::write::Written;
use super::search::Means;
use super::{Grants, Quarantine};
use crate::aws::domain as aws_domain;
use crate::aws::error::Error as AwsError;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::plan::Plan;

/// The most that AWS is asked within one reconcile.
const CALLS: usize = 200;

/// The longest that it is asked within one reconcile.
const LIMIT: Duration = Duration::from_secs(30);

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or nothing that others wait for.
    Nothing,
    /// More can be written now than was planned.
    More,
    /// AWS could not be asked: later.
    Later,
}

/// One round of a search: what is asked, and about what.
pub struct Tries<'a> {
    /// What every reconcile shares.
    pub context: &'a Context,
    /// The domain's manifest.
    pub domain: &'a Domain,
    /// The domain's object.
    pub cluster: &'a Cluster,
    /// The domain in AWS.
    pub observed: &'a Observed,
    /// The verdicts on all grants, nobody being held.
    pub grants: &'a Grants,
}

impl Tries<'_> {
    /// Searches among the suspects, after what was planned was applied as far as it could be.
    ///
    /// Never widens anything: each policy that is tried comes from `plan_of`, with some grants held.
    pub async fn run(
        &self,
        plan_of: impl Fn(&Grants) -> Plan,
        plan: &Plan,
        applied: &mut Applied,
    ) -> Result<Found, Error> {
        let quarantine = &self.context.quarantine;
        let name = &self.domain.name;
        if !quarantine.is_searching(name) {
            // One who was tried again is known to be bad: the rest can be written without it.
            let again = applied.refused == Some(true);
            return Ok(if again { Found::More } else { Found::Nothing });
        }
        match (&applied.door, applied.refused) {
            (Door::Held { .. } | Door::NotWritten { .. }, _) => return Ok(Found::Nothing),
            // It was refused although everybody who is new was held.
            (_, Some(false)) => return Ok(Found::Later),
            // What revokes goes first.
            (_, Some(true)) if !plan.removed.is_empty() => return Ok(Found::More),
            _ => {}
        }
        let Some(means) = self.means(&plan_of).await? else {
            return Ok(Found::Later);
        };
        let idle = applied.refused.is_some() || applied.door == Door::InForce;
        if means == Means::Writes && !idle {
            return Ok(Found::Nothing);
        }
        let deadline = Instant::now() + LIMIT;
        let (mut freed, mut calls) = (BTreeSet::new(), 0);
        while let Some(let_in) = quarantine.next(name, means) {
            let plan = self.with(&plan_of, &let_in);
            let taken = match means {
                _ if calls >= CALLS || Instant::now() >= deadline || plan.hold.is_some() => None,
                _ if plan.policy.is_none() => Some(true),
                Means::DryRuns => self.dry_run(&plan).await?,
                Means::Writes => self.write(&plan, applied).await?,
            };
            let Some(taken) = taken else {
                let paused = freed.is_empty();
                return Ok(if paused { Found::Later } else { Found::More });
            };
            calls += 1;
            quarantine.told(name, &let_in, taken);
            if taken && applied.written.is_some() && means == Means::Writes {
                return Ok(Found::Nothing);
            }
            if taken {
                freed.extend(let_in);
            }
        }
        info!(domain = %name, ?means, calls, freed = freed.len(), "searched for whom AWS refuses the access policy");
        Ok(if freed.is_empty() && applied.refused.is_none() {
            Found::Nothing
        } else {
            Found::More
        })
    }

    /// Finds out by which means to search, if it is not known; `None` if AWS could not be asked.
    async fn means(&self, plan_of: &impl Fn(&Grants) -> Plan) -> Result<Option<Means>, Error> {
        let (quarantine, name) = (&self.context.quarantine, &self.domain.name);
        let (known, document) = quarantine.means(name);
        if known.is_some() {
            return Ok(known);
        }
        let means = match self.ask(&document.unwrap_or_default()).await? {
            None => return Ok(None),
            Some(true) => Means::Writes,
            Some(false) => {
                // Only if it is somebody who is new: else everybody would be found guilty.
                let nobody = self.with(plan_of, &BTreeSet::new());
                if nobody.policy.is_some() && self.dry_run(&nobody).await? != Some(true) {
                    warn!(domain = %name, "AWS refuses the access policy without anything new, too");
                    return Ok(None);
                }
                Means::DryRuns
            }
        };
        info!(domain = %name, ?means, "AWS refused an access policy: the search begins");
        quarantine.set_means(name, means);
        Ok(Some(means))
    }

    /// Plans with everybody held but the given.
    fn with(&self, plan_of: &impl Fn(&Grants) -> Plan, let_in: &BTreeSet<String>) -> Plan {
        let mut grants = self.grants.clone();
        let quarantine = &self.context.quarantine;
        quarantine.hold_all_but(self.domain, &mut grants, let_in);
        plan_of(&grants)
    }

    async fn dry_run(&self, plan: &Plan) -> Result<Option<bool>, Error> {
        let text = plan.policy.as_ref().map(Document::to_text);
        self.ask(&text.unwrap_or_default()).await
    }

    /// Asks whether a dry run takes a policy; `None` if it could not be asked.
    async fn ask(&self, text: &str) -> Result<Option<bool>, Error> {
        let (clients, name) = (&self.observed.clients, &self.domain.domain_name);
        let asked = Box::pin(aws_domain::try_policy(clients, name, text));
        let answer = observe::until(Instant::now() + LIMIT, "the dry run", asked).await;
        judged(answer.map(|()| true))
    }

    /// Writes a policy; `None` if AWS could not be asked, or another writer was first.
    async fn write(&self, plan: &Plan, applied: &mut Applied) -> Result<Option<bool>, Error> {
        let (context, domain) = (self.context, self.domain);
        let (cluster, observed) = (self.cluster, self.observed);
        let kept = &mut applied.kept;
        match apply::write_only(context, domain, cluster, observed, plan, kept).await? {
            Written::Yes(soon) => {
                applied.door = Door::Written;
                applied.written = Some(soon);
                Ok(Some(true))
            }
            Written::Conflicted => Ok(None),
            Written::No(error) | Written::Unknown(error) => judged(Err(error)),
        }
    }
}

fn judged(answer: Result<bool, AwsError>) -> Result<Option<bool>, Error> {
    match answer {
        Ok(taken) => Ok(Some(taken)),
        Err(error) if error.refuses_policy() => Ok(Some(false)),
        Err(error @ AwsError::NotLeading { .. }) => Err(error.into()),
        Err(error) => {
            info!("a search for whom AWS refuses the access policy pauses: {error}");
            Ok(None)
        }
    }
}

impl Quarantine {
    fn is_searching(&self, domain: &str) -> bool {
        let searching = self.with(domain, |suspects| !suspects.search.is_empty());
        searching.unwrap_or_default()
    }

    fn means(&self, domain: &str) -> (Option<Means>, Option<String>) {
        let known = self.with(domain, |suspects| {
            (suspects.means, suspects.document.clone())
        });
        known.unwrap_or_default()
    }

    fn set_means(&self, domain: &str, means: Means) {
        self.with(domain, |suspects| {
            suspects.means = Some(means);
            suspects.document = None;
        });
    }

    /// Returns whom to let in next; those who turn out to be bad are left out for a while.
    fn next(&self, domain: &str, means: Means) -> Option<BTreeSet<String>> {
        let next = self.with(domain, |suspects| {
            let mut bad = Vec::new();
            let next = suspects.search.next(means, &mut bad);
            for principal in bad {
                suspects.refuse_alone(principal, StdInstant::now());
            }
            next
        });
        next.flatten()
    }

    fn told(&self, domain: &str, let_in: &BTreeSet<String>, taken: bool) {
        self.with(domain, |suspects| {
            suspects.search.told(taken);
            if taken {
                suspects.free(let_in);
            }
        });
    }
}
