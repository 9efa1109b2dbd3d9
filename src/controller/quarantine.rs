//! Principals that AWS may have refused a policy for: one of them must not keep the others out.
//!
//! AWS refuses a policy as a whole and does not say for whom: for a principal that does not exist,
//! or that its services do not know yet. IAM tells of the domain's own account alone, so those of
//! others are found by trying:
//!
//! ```text
//! refused ─► everybody new is held, and the rest written
//!         ─► a group is let in ─┬─ taken: it is free
//!                               └─ refused: its halves come next; one alone is refused for a while
//! ```
//!
//! Nothing is widened by it: who is held is in no policy, and revocations go ahead.
//!
//! Where AWS refuses a policy for another reason, the same is done with the grants that the write
//! was to add, each by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::suspects::{Held, Suspects};
use crate::api::arn::EntityKind;
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::permission::ANYONE;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::{GrantKey, Principal, ValidatedGrant};
use crate::policy::verdict::Verdict;

mod suspects;

/// The principals that are held, by domain.
#[derive(Debug, Default)]
pub struct Quarantine(Mutex<HashMap<String, Suspects>>);

impl Quarantine {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Suspects>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round: keeps grants out that name a principal which is held.
    pub fn hold(&self, domain: &Domain, grants: &mut BTreeMap<GrantKey, Verdict>) {
        let mut domains = self.lock();
        let Some(suspects) = domains.get_mut(&domain.name) else {
            return;
        };
        let names = grants
            .values()
            .filter_map(|verdict| match verdict {
                Verdict::Valid(grant) => Some(grant),
                _ => None,
            })
            .flat_map(|grant| {
                let principals = grant.principals.iter();
                let names = principals.filter_map(|it| spelling(it, domain));
                names.chain([named(&grant.key)])
            })
            .collect();
        suspects.begin(&names, Instant::now());
        if suspects.is_empty() {
            domains.remove(&domain.name);
            return;
        }
        for verdict in grants.values_mut() {
            if let Verdict::Valid(grant) = verdict
                && let Some(held) = judge(grant, domain, suspects)
            {
                *verdict = held;
            }
        }
    }

    /// Takes note that AWS refused a policy, for one of its principals or for another reason.
    pub fn refuse(&self, domain: &Domain, plan: &Plan, observed: &Document, principal: bool) {
        let mut suspects = BTreeSet::new();
        if principal {
            let known = principals(observed.statements());
            let added = principals(&plan.added);
            suspects = added.difference(&known).cloned().collect();
        }
        if suspects.is_empty() {
            let added = plan.outcomes.iter().filter(
                |(_, outcome)| matches!(outcome, Outcome::Granted { in_place, .. } if !in_place),
            );
            suspects = added.map(|(key, _)| named(key)).collect();
        }
        let mut domains = self.lock();
        if suspects.is_empty() && !domains.contains_key(&domain.name) {
            return;
        }
        let held = domains.entry(domain.name.clone()).or_default();
        held.refuse(&suspects, Instant::now());
    }

    /// Takes note that AWS took a policy, or that none had to be written.
    pub fn accept(&self, domain: &str) {
        if let Some(suspects) = self.lock().get_mut(domain) {
            suspects.accept();
        }
    }

    /// Forgets a domain that is gone.
    pub fn forget(&self, domain: &str) {
        self.lock().remove(domain);
    }

    /// Returns how many principals are held, on all domains.
    pub fn count(&self) -> usize {
        self.lock().values().map(Suspects::count).sum()
    }

    /// Returns when the next round is due, if anybody is held.
    pub fn next(&self, domain: &str) -> Option<Duration> {
        self.lock().get(domain)?.next(Instant::now())
    }
}

/// Returns a grant's verdict where one of its principals is held.
fn judge(grant: &ValidatedGrant, domain: &Domain, suspects: &Suspects) -> Option<Verdict> {
    if let Some(held) = suspects.held(&named(&grant.key)) {
        let message = match held {
            Held::Refused => {
                "AWS refuses an access policy with this grant: correct it; it is tried again by itself"
            }
            Held::Untried => {
                "AWS refused an access policy with this grant among others; which of them it takes is being tried"
            }
        };
        // What stands of it was taken once.
        let rejection = Rejection::new(Reason::PolicyRejected, "", message);
        return Some(Verdict::Undecided(Box::new(grant.clone()), rejection));
    }
    grant.principals.iter().enumerate().find_map(|(index, principal)| {
        let name = spelling(principal, domain)?;
        let held = suspects.held(&name)?;
        let field = match principal {
            Principal::Entity(arn) if arn.kind() == EntityKind::Role => "iamRole.arn",
            Principal::Entity(_) => "iamUser.arn",
            Principal::Account(_) | Principal::Anyone => "account.id",
        };
        let field = format!("spec.principals[{index}].{field}");
        Some(match held {
            Held::Refused => Verdict::Refused(Rejection::new(
                Reason::PrincipalNotFound,
                field,
                format!("AWS refuses an access policy with {name}: create it, or correct it, its path included; it is tried again by itself"),
            )),
            Held::Untried => Verdict::Undecided(
                Box::new(grant.clone()),
                Rejection::new(
                    Reason::PrincipalUnknown,
                    field,
                    format!("AWS refused an access policy with {name} among others; which of them it knows is being tried"),
                ),
            ),
        })
    })
}

/// Names a grant among the suspects.
fn named(grant: &GrantKey) -> String {
    format!("grant {}", grant.uid)
}

/// Returns a principal as the policy spells it; `None` for what every policy may name.
fn spelling(principal: &Principal, domain: &Domain) -> Option<String> {
    match principal {
        Principal::Entity(arn) => Some(arn.to_string()),
        Principal::Account(account) => Some(format!(
            "arn:{}:iam::{account}:root",
            domain.arn.partition()
        )),
        Principal::Anyone => None,
    }
}

/// Returns the principals that statements name.
pub(super) fn principals(statements: &[Statement]) -> BTreeSet<String> {
    let named = statements
        .iter()
        .filter_map(|statement| statement.members().get("Principal")?.get("AWS"));
    let texts = named.flat_map(|value| match value {
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect::<Vec<_>>(),
    });
    texts
        .filter(|name| *name != ANYONE)
        .map(str::to_owned)
        .collect()
}
