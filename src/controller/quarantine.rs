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

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::permission::ANYONE;
use crate::policy::plan::{Outcome, Plan};
use crate::policy::validate::{GrantKey, Principal, ValidatedGrant};
use crate::policy::verdict::Verdict;

/// How long a principal that was refused alone is left out at first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// The longest that it is left out before it is tried again.
const LAST_WAIT: Duration = Duration::from_mins(5);

/// How soon the next group is tried.
const NEXT_GROUP: Duration = Duration::from_secs(1);

/// The principals that are held, by domain.
#[derive(Debug, Default)]
pub struct Quarantine(Mutex<HashMap<String, Suspects>>);

/// The principals of one domain that are held.
#[derive(Debug, Default)]
struct Suspects {
    /// Groups to try, the next one first.
    groups: VecDeque<BTreeSet<String>>,
    /// The group that is let in by the write under way.
    trying: Option<BTreeSet<String>>,
    /// The last write was refused: the next one is made without anybody who is held.
    breather: bool,
    /// Who was refused alone: how often, and until when nobody tries again.
    refused: BTreeMap<String, (u32, Instant)>,
}

/// Why a principal is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Untried,
    Refused,
}

impl Suspects {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.trying.is_none() && self.refused.is_empty()
    }

    /// Begins a round: forgets who is named no more, and chooses whom to let in.
    fn begin(&mut self, named: &BTreeSet<String>, now: Instant) {
        self.refused
            .retain(|principal, _| named.contains(principal));
        let kept = |group: &BTreeSet<String>| group.intersection(named).cloned().collect();
        self.groups = self.groups.iter().map(kept).collect();
        self.groups
            .retain(|group: &BTreeSet<String>| !group.is_empty());
        self.trying = self
            .trying
            .as_ref()
            .map(kept)
            .filter(|group| !group.is_empty());
        let queued: BTreeSet<&String> = self.groups.iter().chain(&self.trying).flatten().collect();
        let again: Vec<_> = self
            .refused
            .iter()
            .filter(|(principal, (_, until))| *until <= now && !queued.contains(principal))
            .map(|(principal, _)| BTreeSet::from([principal.clone()]))
            .collect();
        self.groups.extend(again);
        if std::mem::take(&mut self.breather) {
            return;
        }
        if self.trying.is_none() {
            self.trying = self.groups.pop_front();
        }
    }

    fn held(&self, principal: &str) -> Option<Held> {
        if self
            .trying
            .as_ref()
            .is_some_and(|group| group.contains(principal))
        {
            return None;
        }
        if self.refused.contains_key(principal) {
            return Some(Held::Refused);
        }
        let untried = self.groups.iter().any(|group| group.contains(principal));
        untried.then_some(Held::Untried)
    }

    /// AWS refused a policy that lets these in for the first time.
    fn refuse(&mut self, suspects: &BTreeSet<String>, now: Instant) {
        self.breather = true;
        let tried = self.trying.take().unwrap_or_default();
        let others: BTreeSet<String> = suspects.difference(&tried).cloned().collect();
        match (others.is_empty(), tried.is_empty()) {
            // It is one of the tried.
            (true, false) => self.split(tried, now),
            (false, true) => self.split(others, now),
            // It is one of either.
            (false, false) => {
                self.groups.push_front(tried);
                self.groups.push_back(others);
            }
            (true, true) => {}
        }
    }

    fn split(&mut self, group: BTreeSet<String>, now: Instant) {
        let half = group.len() / 2;
        if half == 0 {
            for principal in group {
                let (count, _) = self.refused.get(&principal).copied().unwrap_or((0, now));
                let wait = FIRST_WAIT.saturating_mul(1 << count.min(5)).min(LAST_WAIT);
                self.refused.insert(principal, (count + 1, now + wait));
            }
            return;
        }
        let (first, second): (Vec<_>, Vec<_>) = group
            .into_iter()
            .enumerate()
            .partition(|(at, _)| *at < half);
        let group = |half: Vec<(usize, String)>| half.into_iter().map(|(_, it)| it).collect();
        self.groups.push_front(group(second));
        self.groups.push_front(group(first));
    }

    /// AWS took the policy, or needed none: whoever was let in is free.
    fn accept(&mut self) {
        for principal in self.trying.take().into_iter().flatten() {
            self.refused.remove(&principal);
        }
    }

    fn count(&self) -> usize {
        let groups = self.groups.iter().chain(&self.trying).flatten();
        groups
            .chain(self.refused.keys())
            .collect::<BTreeSet<_>>()
            .len()
    }

    fn next(&self, now: Instant) -> Option<Duration> {
        if !self.groups.is_empty() || self.trying.is_some() {
            return Some(NEXT_GROUP);
        }
        let times = self
            .refused
            .values()
            .map(|(_, until)| until.saturating_duration_since(now));
        times.min().map(|left| left.max(NEXT_GROUP))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    /// Plays rounds against an AWS that refuses the given principals; returns who gets in, how
    /// many rounds it took, and how many writes were refused.
    fn play(named: &BTreeSet<String>, bad: &BTreeSet<String>) -> (BTreeSet<String>, usize, usize) {
        let (mut suspects, mut within) = (Suspects::default(), BTreeSet::new());
        let (now, mut refusals) = (Instant::now(), 0);
        for round in 1..100 {
            suspects.begin(named, now);
            let free = |name: &&String| suspects.held(name).is_none();
            let wanted: BTreeSet<String> = named.iter().filter(free).cloned().collect();
            if wanted.is_disjoint(bad) {
                within = wanted;
                suspects.accept();
            } else {
                refusals += 1;
                suspects.refuse(&wanted.difference(&within).cloned().collect(), now);
            }
            if suspects.groups.is_empty()
                && suspects.trying.is_none()
                && round > 1
                && !suspects.breather
            {
                return (within, round, refusals);
            }
        }
        panic!("it does not end: {suspects:?}");
    }

    #[test]
    fn one_bad_principal_is_found_among_many() {
        let named: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
        let named = set(named.iter().map(String::as_str));
        let bad = set(["042"]);
        let (within, rounds, refusals) = play(&named, &bad);
        assert_eq!(within, named.difference(&bad).cloned().collect());
        assert!(
            rounds <= 30 && refusals <= 9,
            "{rounds} rounds, {refusals} refusals"
        );
    }

    #[test]
    fn all_the_others_get_in_whoever_is_bad() {
        let named = set(["a", "b", "c", "d", "e"]);
        for bits in 0..32_u32 {
            let bad: BTreeSet<String> = named
                .iter()
                .enumerate()
                .filter(|(at, _)| bits & (1 << at) != 0)
                .map(|(_, name)| name.clone())
                .collect();
            let (within, ..) = play(&named, &bad);
            assert_eq!(within, named.difference(&bad).cloned().collect(), "{bad:?}");
        }
    }

    #[test]
    fn right_after_a_refusal_nobody_who_is_held_is_let_in() {
        let named = set(["a", "b"]);
        let mut suspects = Suspects::default();
        suspects.refuse(&named, Instant::now());
        suspects.begin(&named, Instant::now());
        assert!(
            named
                .iter()
                .all(|name| suspects.held(name) == Some(Held::Untried))
        );
        suspects.begin(&named, Instant::now());
        assert_eq!(
            (suspects.held("a"), suspects.held("b")),
            (None, Some(Held::Untried))
        );
    }

    #[test]
    fn who_was_refused_alone_is_tried_again_later_and_forgotten_with_the_grant() {
        let (named, now) = (set(["a"]), Instant::now());
        let mut suspects = Suspects::default();
        suspects.refuse(&named, now);
        for _ in 0..3 {
            suspects.begin(&named, now);
            assert_eq!(suspects.held("a"), Some(Held::Refused));
        }
        suspects.begin(&named, now + FIRST_WAIT);
        assert_eq!(suspects.held("a"), None);
        suspects.refuse(&named, now + FIRST_WAIT);
        suspects.begin(&named, now + FIRST_WAIT * 2);
        suspects.begin(&named, now + FIRST_WAIT * 2);
        assert_eq!(suspects.held("a"), Some(Held::Refused), "twice as long");
        suspects.begin(&set([]), now);
        assert!(suspects.is_empty());
    }
}
