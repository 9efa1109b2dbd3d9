//! The principals of one domain that are held, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a principal that was refused alone is left out at first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// The longest that it is left out before it is tried again.
const LAST_WAIT: Duration = Duration::from_mins(5);

/// How soon the next group is tried.
const NEXT_GROUP: Duration = Duration::from_secs(1);

/// The principals of one domain that are held.
#[derive(Debug, Default)]
pub(super) struct Suspects {
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
pub(super) enum Held {
    Untried,
    Refused,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.trying.is_none() && self.refused.is_empty()
    }

    /// Begins a round: forgets who is named no more, and chooses whom to let in.
    pub(super) fn begin(&mut self, named: &BTreeSet<String>, now: Instant) {
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

    pub(super) fn held(&self, principal: &str) -> Option<Held> {
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
    pub(super) fn refuse(&mut self, suspects: &BTreeSet<String>, now: Instant) {
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
    pub(super) fn accept(&mut self) {
        for principal in self.trying.take().into_iter().flatten() {
            self.refused.remove(&principal);
        }
    }

    pub(super) fn count(&self) -> usize {
        let groups = self.groups.iter().chain(&self.trying).flatten();
        groups
            .chain(self.refused.keys())
            .collect::<BTreeSet<_>>()
            .len()
    }

    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
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
