//! The suspects of one domain: who is held, who is searched, and who was refused alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::search::{Means, Search};

/// How long a principal that was refused alone is left out at first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// The longest that it is left out before it is tried again.
const LAST_WAIT: Duration = Duration::from_mins(5);

/// How soon after a write it is looked at whether who was let in by it is in force.
const SOON: Duration = Duration::from_secs(1);

/// The suspects of one domain.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Those whose part in a refusal is not known.
    pub(super) search: Search,
    /// By which means they can be told apart; not known right after a write was refused.
    pub(super) means: Option<Means>,
    /// The policy that was refused, to find that out.
    pub(super) document: Option<String>,
    /// Somebody who was refused alone and is let in by the write under way.
    trying: Option<String>,
    /// Who was refused alone: how often, and until when nobody tries again.
    refused: BTreeMap<String, (u32, Instant)>,
}

/// Why a principal is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Untried,
    Refused,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.search.is_empty() && self.trying.is_none() && self.refused.is_empty()
    }

    /// Begins a round: forgets who is named no more, and chooses who is tried again.
    pub(super) fn begin(&mut self, named: &BTreeSet<String>, now: Instant) {
        self.refused
            .retain(|principal, _| named.contains(principal));
        self.trying.take_if(|trying| !named.contains(trying));
        let searched = self.search.names();
        if !searched.is_subset(named) {
            // Who is gone may have been the bad one.
            self.search = Search::new(searched.intersection(named).cloned().collect(), false);
        }
        if !self.search.is_empty() || self.trying.is_some() {
            return;
        }
        let due = self.refused.iter().filter(|(_, (_, until))| *until <= now);
        let mut due = due.map(|(principal, _)| principal.clone());
        if self.means == Some(Means::DryRuns) {
            self.search = Search::new(due.collect(), false);
        } else {
            self.trying = due.next();
        }
    }

    pub(super) fn held(&self, principal: &str) -> Option<Held> {
        if self.trying.as_deref() == Some(principal) {
            return None;
        }
        if self.refused.contains_key(principal) {
            return Some(Held::Refused);
        }
        self.search.contains(principal).then_some(Held::Untried)
    }

    /// AWS refused a policy that lets these in for the first time; says whether there is anybody to
    /// search for.
    pub(super) fn refuse(
        &mut self,
        suspects: BTreeSet<String>,
        document: &str,
        now: Instant,
    ) -> bool {
        let trying = self.trying.take();
        if let (Some(trying), 1) = (&trying, suspects.len())
            && suspects.contains(trying)
        {
            self.refuse_alone(trying.clone(), now);
            return true;
        }
        if suspects.is_empty() {
            return false;
        }
        let mut all = self.search.names();
        all.extend(suspects);
        self.search = Search::new(all, true);
        // What dry runs said before, they may have said of another kind of fault.
        self.means = None;
        self.document = Some(document.to_owned());
        true
    }

    /// Leaves out for a while who was refused alone.
    pub(super) fn refuse_alone(&mut self, principal: String, now: Instant) {
        let (count, _) = self.refused.get(&principal).copied().unwrap_or((0, now));
        let wait = FIRST_WAIT.saturating_mul(1 << count.min(5)).min(LAST_WAIT);
        self.refused.insert(principal, (count + 1, now + wait));
    }

    /// These were taken.
    pub(super) fn free(&mut self, principals: &BTreeSet<String>) {
        self.refused
            .retain(|principal, _| !principals.contains(principal));
    }

    /// AWS took the policy, or needed none: whoever was let in is free.
    pub(super) fn accept(&mut self) {
        if let Some(principal) = self.trying.take() {
            self.refused.remove(&principal);
        }
    }

    pub(super) fn count(&self) -> usize {
        let mut held = self.search.names();
        held.extend(self.refused.keys().chain(&self.trying).cloned());
        held.len()
    }

    /// Returns when somebody is to be tried again, a search aside.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        if self.trying.is_some() {
            return Some(SOON);
        }
        let times = self
            .refused
            .values()
            .map(|(_, until)| until.saturating_duration_since(now));
        times.min().map(|left| left.max(SOON))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    /// Suspects of whom one is refused alone.
    fn refused(name: &str, means: Means, now: Instant) -> Suspects {
        let mut suspects = Suspects {
            means: Some(means),
            ..Suspects::default()
        };
        suspects.refuse_alone(name.to_owned(), now);
        suspects
    }

    #[test]
    fn everybody_new_is_held_after_a_refusal() {
        let (named, now) = (set(["a", "b"]), Instant::now());
        let mut suspects = Suspects::default();
        assert!(suspects.refuse(named.clone(), "{}", now));
        for _ in 0..2 {
            suspects.begin(&named, now);
            for name in &named {
                assert_eq!(suspects.held(name), Some(Held::Untried));
            }
        }
        assert_eq!((suspects.held("c"), suspects.count()), (None, 2));
    }

    #[test]
    fn a_refusal_that_nobody_new_can_be_blamed_for_holds_nobody() {
        let mut suspects = Suspects::default();
        assert!(!suspects.refuse(set([]), "{}", Instant::now()));
        assert!(suspects.is_empty());
    }

    #[test]
    fn without_dry_runs_one_after_the_other_is_tried_again_later_and_by_a_write() {
        let (named, now) = (set(["a", "b"]), Instant::now());
        let mut suspects = refused("a", Means::Writes, now);
        suspects.refuse_alone("b".to_owned(), now);
        suspects.begin(&named, now);
        assert_eq!(suspects.held("a"), Some(Held::Refused));
        let later = now + FIRST_WAIT;
        suspects.begin(&named, later);
        let held = |suspects: &Suspects| [suspects.held("a"), suspects.held("b")];
        assert_eq!(held(&suspects), [None, Some(Held::Refused)]);
        assert!(suspects.refuse(set(["a"]), "{}", later));
        suspects.begin(&named, later);
        assert_eq!(held(&suspects), [Some(Held::Refused), None]);
        suspects.accept();
        suspects.begin(&named, later + FIRST_WAIT);
        assert_eq!(
            held(&suspects),
            [Some(Held::Refused), None],
            "twice as long"
        );
        suspects.begin(&named, later + FIRST_WAIT * 2);
        assert_eq!(held(&suspects), [None, None]);
        suspects.begin(&set([]), now);
        assert!(suspects.is_empty(), "forgotten with their grants");
    }

    #[test]
    fn with_dry_runs_nobody_who_was_refused_is_let_in_before_one_has_taken_it() {
        let (named, now) = (set(["a"]), Instant::now());
        let mut suspects = refused("a", Means::DryRuns, now);
        suspects.begin(&named, now + FIRST_WAIT);
        assert_eq!(suspects.search.names(), named);
        assert_eq!(suspects.held("a"), Some(Held::Refused));
        suspects.free(&named);
        suspects.search.next(Means::DryRuns, &mut Vec::new());
        suspects.search.told(true);
        assert_eq!(suspects.held("a"), None);
    }

    #[test]
    fn who_goes_while_it_is_searched_makes_nobody_else_guilty() {
        let now = Instant::now();
        let mut suspects = Suspects::default();
        suspects.refuse(set(["a", "b"]), "{}", now);
        suspects.begin(&set(["a"]), now);
        let mut bad = Vec::new();
        let asked = suspects.search.next(Means::Writes, &mut bad);
        assert_eq!((asked, bad), (Some(set(["a"])), vec![]));
    }
}
