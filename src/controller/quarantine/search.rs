//! Finds, among many, those for whom a policy is refused, by asking about it with some of them.
//!
//! Pure: whoever asks says what the answer was. What was taken once counts as in from then on, so
//! the last policy that was asked about and taken is the one to write.
//!
//! ```text
//! dry runs (an answer costs a call)      halves: taken ─► in, and the other half has a bad one
//!                                                refused ─► its own halves; one alone is bad
//! writes (what is taken takes a round)   all but one group of √n ─► all but one of that group
//!                                        two bad groups: none of these is taken ─► halves
//! ```
//!
//! So one bad name of n is found with 2·log₂ n dry runs; and without dry runs by two writes that
//! are taken and 2·√n that are refused, which change nothing.

use std::collections::BTreeSet;

/// So many are left out one by one; more in groups first. A policy has room for so few names that
/// each group of the first pass is below it.
const ONE_BY_ONE: usize = 64;

/// What an answer costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Whatever the answer is, nothing has changed.
    DryRuns,
    /// A policy that is taken is in place, and the domain takes its time over it.
    Writes,
}

/// A search under way.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Groups to look into, the next one last.
    groups: Vec<Group>,
    /// What was asked last, or is to be asked now.
    asked: Option<Asked>,
}

#[derive(Debug, PartialEq, Eq)]
struct Group {
    names: BTreeSet<String>,
    /// A policy with all of them in is refused.
    refused: bool,
    /// Leaving out a part of it does not help.
    several: bool,
}

#[derive(Debug)]
enum Asked {
    /// About a group; the one below it on the stack may be its other half.
    In { group: Group, half: bool },
    /// About everybody but one group after the other.
    Out {
        groups: Vec<BTreeSet<String>>,
        at: usize,
    },
}

impl Search {
    /// Begins a search; `refused` says that a policy with all of them in was refused.
    pub(super) fn new(names: BTreeSet<String>, refused: bool) -> Self {
        let mut search = Self::default();
        if !names.is_empty() {
            search.groups.push(Group::new(names, refused));
        }
        search
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.asked.is_none()
    }

    /// Returns everybody about whom nothing is known yet.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let asked = match &self.asked {
            None => BTreeSet::new(),
            Some(Asked::In { group, .. }) => group.names.clone(),
            Some(Asked::Out { groups, .. }) => groups.iter().flatten().cloned().collect(),
        };
        let groups = self.groups.iter().flat_map(|group| &group.names);
        groups.cloned().chain(asked).collect()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let asked = match &self.asked {
            None => false,
            Some(Asked::In { group, .. }) => group.names.contains(name),
            Some(Asked::Out { groups, .. }) => groups.iter().any(|group| group.contains(name)),
        };
        asked || self.groups.iter().any(|group| group.names.contains(name))
    }

    /// Returns whom to let in next, of all who are in the search; `None` once nobody is left.
    ///
    /// Who turns out to be bad on the way leaves the search for `bad`.
    pub(super) fn next(&mut self, means: Means, bad: &mut Vec<String>) -> Option<BTreeSet<String>> {
        loop {
            match &self.asked {
                Some(Asked::In { group, .. }) => return Some(group.names.clone()),
                Some(Asked::Out { groups, at }) => {
                    let others = groups.iter().enumerate().filter(|(index, _)| index != at);
                    return Some(others.flat_map(|(_, group)| group).cloned().collect());
                }
                None => {}
            }
            let group = self.groups.pop()?;
            if !group.refused {
                self.asked = Some(Asked::In { group, half: false });
            } else if group.names.len() < 2 {
                bad.extend(group.names);
            } else if means == Means::Writes && self.groups.is_empty() && !group.several {
                self.asked = Some(Asked::Out {
                    groups: divided(&group.names),
                    at: 0,
                });
            } else {
                let (first, second) = halves(group.names);
                self.groups.push(Group::new(second, false));
                self.asked = Some(Asked::In {
                    group: Group::new(first, false),
                    half: true,
                });
            }
        }
    }

    /// Takes note of the answer to what was asked last.
    pub(super) fn told(&mut self, taken: bool) {
        match self.asked.take() {
            Some(Asked::In { half, .. }) if taken => {
                if let (true, Some(other)) = (half, self.groups.last_mut()) {
                    other.refused = true;
                }
            }
            Some(Asked::In { group, .. }) => self.groups.push(Group::new(group.names, true)),
            Some(Asked::Out { mut groups, at }) if taken => {
                self.groups.push(Group::new(groups.swap_remove(at), true));
            }
            Some(Asked::Out { groups, at }) if at + 1 < groups.len() => {
                self.asked = Some(Asked::Out { groups, at: at + 1 });
            }
            Some(Asked::Out { groups, .. }) => self.groups.push(Group {
                several: true,
                ..Group::new(groups.into_iter().flatten().collect(), true)
            }),
            None => {}
        }
    }
}

impl Group {
    fn new(names: BTreeSet<String>, refused: bool) -> Self {
        Self {
            names,
            refused,
            several: false,
        }
    }
}

fn halves(names: BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
    let half = names.len() / 2;
    let (first, second): (Vec<_>, Vec<_>) = names
        .into_iter()
        .enumerate()
        .partition(|(at, _)| *at < half);
    let names = |half: Vec<(usize, String)>| half.into_iter().map(|(_, name)| name).collect();
    (names(first), names(second))
}

/// Divides names into the groups that are left out in turn.
fn divided(names: &BTreeSet<String>) -> Vec<BTreeSet<String>> {
    let size = if names.len() <= ONE_BY_ONE {
        1
    } else {
        names.len().isqrt().max(1)
    };
    let names: Vec<&String> = names.iter().collect();
    let group = |group: &[&String]| group.iter().copied().cloned().collect();
    names.chunks(size).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search came to: who is bad, and how many answers were of each kind.
    #[derive(Debug)]
    struct Found {
        bad: BTreeSet<String>,
        taken: usize,
        refused: usize,
    }

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("{number:04}")).collect()
    }

    /// Searches where a policy is refused by the given rule.
    fn search(count: usize, means: Means, refuses: impl Fn(&BTreeSet<String>) -> bool) -> Found {
        let all = names(count);
        let mut search = Search::new(all.clone(), true);
        let mut found = Found {
            bad: BTreeSet::new(),
            taken: 0,
            refused: 0,
        };
        let mut within = BTreeSet::new();
        for _ in 0..10_000 {
            let mut bad = Vec::new();
            let asked = search.next(means, &mut bad);
            found.bad.extend(bad);
            let Some(asked) = asked else {
                let good: BTreeSet<String> = all.difference(&found.bad).cloned().collect();
                assert_eq!(within, good, "everybody else is in");
                assert!(search.is_empty());
                return found;
            };
            let mut policy = within.clone();
            policy.extend(asked.clone());
            let taken = !refuses(&policy);
            if taken {
                within = policy;
                found.taken += 1;
            } else {
                found.refused += 1;
            }
            search.told(taken);
            let left = search.names();
            assert!(left.iter().all(|name| search.contains(name)));
            assert!(
                left.is_disjoint(&within),
                "who is in is asked about no more"
            );
        }
        panic!("it does not end: {search:?}");
    }

    #[test]
    fn one_bad_name_of_a_thousand_takes_twenty_dry_runs_or_two_writes() {
        for bad in ["0000", "0437", "0500", "0999"] {
            let refuses = |policy: &BTreeSet<String>| policy.contains(bad);
            let found = search(1000, Means::DryRuns, refuses);
            assert_eq!(found.bad, BTreeSet::from([bad.to_owned()]));
            assert!(found.taken + found.refused <= 20, "{found:?}");

            let found = search(1000, Means::Writes, refuses);
            assert_eq!(found.bad, BTreeSet::from([bad.to_owned()]));
            assert!(found.taken <= 2 && found.refused <= 66, "{found:?}");
        }
    }

    #[test]
    fn one_bad_name_takes_one_write_where_all_can_be_left_out_one_by_one() {
        let found = search(ONE_BY_ONE, Means::Writes, |policy| policy.contains("0040"));
        assert_eq!((found.taken, found.refused), (1, 40), "{found:?}");
    }

    #[test]
    fn several_bad_names_are_all_found() {
        let bad = BTreeSet::from(["0003", "0004", "0500", "0777"].map(str::to_owned));
        for (means, most_taken) in [(Means::DryRuns, 80), (Means::Writes, 30)] {
            let found = search(1000, means, |policy| !policy.is_disjoint(&bad));
            assert_eq!(found.bad, bad, "{means:?}");
            assert!(found.taken <= most_taken, "{means:?}: {found:?}");
            assert!(found.refused <= 120, "{means:?}: {found:?}");
        }
    }

    #[test]
    fn whoever_is_bad_is_found_and_nobody_else() {
        for bits in 1..64_u32 {
            let of_bits = |(at, name): (usize, String)| (bits & (1 << at) != 0).then_some(name);
            let bad: BTreeSet<String> = names(6)
                .into_iter()
                .enumerate()
                .filter_map(of_bits)
                .collect();
            for means in [Means::DryRuns, Means::Writes] {
                let found = search(6, means, |policy| !policy.is_disjoint(&bad));
                assert_eq!(found.bad, bad, "{means:?}");
            }
        }
    }

    #[test]
    fn what_is_refused_only_together_keeps_as_few_out_as_it_must() {
        for means in [Means::DryRuns, Means::Writes] {
            let found = search(20, means, |policy| {
                policy.contains("0003") && policy.contains("0017")
            });
            assert_eq!(found.bad.len(), 1, "{means:?}: {found:?}");
        }
    }

    #[test]
    fn a_search_that_nothing_was_refused_for_asks_about_all_first() {
        let mut search = Search::new(names(9), false);
        let mut bad = Vec::new();
        assert_eq!(search.next(Means::DryRuns, &mut bad), Some(names(9)));
        search.told(true);
        assert_eq!(search.next(Means::DryRuns, &mut bad), None);
        assert!(bad.is_empty() && search.is_empty());
    }
}
