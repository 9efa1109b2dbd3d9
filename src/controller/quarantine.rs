//! Principals that AWS may have refused a policy for: one of them must not keep the others out.
//!
//! AWS refuses a policy as a whole and does not say for whom: for a principal that does not exist,
//! or that its services do not know yet. IAM tells of the domain's own account alone, so those of
//! others are found by trying:
//!
//! ```text
//! refused ─► everybody new is held ─► what revokes is written ─► the held are searched
//!            dry runs refuse the same policy: they find the bad ones, and one write lets in the rest
//!            dry runs take it: they say nothing, and writes find them
//! ```
//!
//! Nothing is widened by it: each policy that is tried has what grants ask for, or less, and
//! revocations go ahead of every search.
//!
//! Where AWS refuses a policy for another reason, the same is done with the grants that the write
//! was to add, each by itself.
//!
//! - `search`: whom to let in next, from what was answered so far; pure
//! - `suspects`: the suspects of one domain
//! - [`tries`]: asks AWS

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::suspects::{Held, Suspects};
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::permission::ANYONE;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::{GrantKey, Principal, ValidatedGrant};
use crate::policy::verdict::Verdict;

mod search;
mod suspects;
pub mod tries;

/// What is known of each grant.
type Grants = BTreeMap<GrantKey, Verdict>;

/// The principals that are held, by domain.
#[derive(Debug, Default)]
pub struct Quarantine(Mutex<HashMap<String, Suspects>>);

impl Quarantine {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Suspects>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round: keeps grants out that name a principal which is held, and returns the
    /// verdicts on them as they were.
    pub fn hold(&self, domain: &Domain, grants: &mut Grants) -> Grants {
        let mut domains = self.lock();
        let Some(suspects) = domains.get_mut(&domain.name) else {
            return Grants::new();
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
            return Grants::new();
        }
        keep_out(grants, domain, &|name| suspects.held(name))
    }

    /// Keeps grants out as [`Self::hold`] does, but for those that name one of the given.
    fn hold_all_but(&self, domain: &Domain, grants: &mut Grants, let_in: &BTreeSet<String>) {
        let domains = self.lock();
        let Some(suspects) = domains.get(&domain.name) else {
            return;
        };
        keep_out(grants, domain, &|name| {
            suspects.held(name).filter(|_| !let_in.contains(name))
        });
    }

    /// Takes note that AWS refused a policy, for one of its principals or for another reason; says
    /// whether there is anybody new in it who may be the reason.
    pub fn refuse(
        &self,
        domain: &Domain,
        plan: &Plan,
        observed: &Document,
        principal: bool,
    ) -> bool {
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
            return false;
        }
        let held = domains.entry(domain.name.clone()).or_default();
        let document = plan.policy.as_ref().map(Document::to_text);
        held.refuse(suspects, &document.unwrap_or_default(), Instant::now())
    }

    /// Takes note that AWS took a policy, or that none had to be written.
    pub fn accept(&self, domain: &str) {
        self.with(domain, Suspects::accept);
    }

    /// Works on the suspects of a domain, if it has any.
    fn with<T>(&self, domain: &str, work: impl FnOnce(&mut Suspects) -> T) -> Option<T> {
        self.lock().get_mut(domain).map(work)
    }

    /// Forgets a domain that is gone.
    pub fn forget(&self, domain: &str) {
        self.lock().remove(domain);
    }

    /// Returns how many principals are held, on all domains.
    pub fn count(&self) -> usize {
        self.lock().values().map(Suspects::count).sum()
    }

    /// Tells whether anybody is held, or may be, on a domain.
    pub fn is_watching(&self, domain: &str) -> bool {
        self.lock().contains_key(domain)
    }

    /// Returns when somebody is to be tried again, a search aside.
    pub fn next_try(&self, domain: &str) -> Option<Duration> {
        self.lock().get(domain)?.next(Instant::now())
    }
}

/// Replaces the verdicts on grants that name somebody who is held; returns them as they were.
fn keep_out(grants: &mut Grants, domain: &Domain, held: &dyn Fn(&str) -> Option<Held>) -> Grants {
    let mut before = Grants::new();
    for (key, verdict) in grants {
        if let Verdict::Valid(grant) = verdict
            && let Some(kept_out) = judge(grant, domain, held)
        {
            before.insert(key.clone(), std::mem::replace(verdict, kept_out));
        }
    }
    before
}

/// Returns a grant's verdict where one of its principals is held.
fn judge(
    grant: &ValidatedGrant,
    domain: &Domain,
    held: &dyn Fn(&str) -> Option<Held>,
) -> Option<Verdict> {
    if let Some(held) = held(&named(&grant.key)) {
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
        let held = held(&name)?;
        let field = principal.field(index);
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
        // A valid grant has one role for a service account.
        Principal::Entity(_) | Principal::ServiceAccount(_) => {
            principal.entities().first().map(ToString::to_string)
        }
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
