//! The name that somebody may have meant.

use std::cmp::Reverse;

/// Returns the candidate that is nearest to what was written, where one is near.
///
/// Case says nothing. Of two that are equally near, the one wins that begins with more of what was
/// written. One is near only where most of what follows the common beginning is the same: names that
/// share a long path are not alike for that alone.
#[must_use]
pub fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = lower(written);
    let near = candidates.into_iter().filter_map(|candidate| {
        let name = lower(candidate);
        let pairs = written.iter().zip(&name);
        let common = pairs.take_while(|(one, other)| one == other).count();
        let (one, other) = (written.get(common..)?, name.get(common..)?);
        let differing = one.len().max(other.len());
        let most = (written.len() / 3).clamp(1, 5).min(differing.div_ceil(2));
        if one.len().abs_diff(other.len()) > most {
            return None;
        }
        let distance = distance(one, other);
        (distance <= most).then_some((distance, Reverse(common), candidate))
    });
    near.min().map(|(_, _, candidate)| candidate)
}

/// Spells a suggestion, to be put behind what is wrong.
#[must_use]
pub fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(": did you mean {name:?}?"))
}

fn lower(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Counts the characters to insert, remove, replace or swap with their neighbour.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, &from) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, &to) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(from != to);
            let mut best = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped = row > 0 && column > 0 && one[row - 1] == to && other[column - 1] == from;
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_each_slip_once() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("read", "read", 0),
            ("read", "red", 1),
            ("raed", "read", 1),
            ("serach", "search", 1),
            ("write", "delete", 4),
            ("search", "read/search", 5),
        ] {
            let (one_, other_) = (lower(one), lower(other));
            assert_eq!(distance(&one_, &other_), expected, "{one} {other}");
            assert_eq!(distance(&other_, &one_), expected, "{other} {one}");
        }
    }

    #[test]
    fn the_nearest_is_near() {
        let names = [
            "read",
            "write",
            "search",
            "cluster:monitor/task",
            "indices:data/read/search",
        ];
        for (written, expected) in [
            ("raed", Some("read")),
            ("READ", Some("read")),
            ("serach", Some("search")),
            ("reads", Some("read")),
            ("cluster:monitor/taks", Some("cluster:monitor/task")),
            ("cluster:monitor/foo", None),
            ("indices:data/search", Some("indices:data/read/search")),
            ("superuser", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
    }

    #[test]
    fn of_two_the_one_with_the_longer_beginning_wins() {
        assert_eq!(nearest("mbcx", ["abcx", "mbcz"]), Some("mbcz"));
        assert_eq!(nearest("abcd", ["abcd", "abce"]), Some("abcd"));
    }

    #[test]
    fn a_suggestion_is_a_question() {
        assert_eq!(suggestion(Some("read")), ": did you mean \"read\"?");
        assert_eq!(suggestion(None), "");
    }
}
