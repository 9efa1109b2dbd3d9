//! Wildcard patterns as IAM reads them: `*` is any text, `?` any one character.

/// Tells whether the pattern matches the whole text.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // The greedy walk with one point to come back to: linear for one `*`, never exponential.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&b) if b == b'?' || b == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Tells whether everything that the inner pattern matches is matched by the outer one.
///
/// Never says yes wrongly. A `*` of the inner pattern is taken as a character that only a `*` of
/// the outer one matches, which is exact where the outer pattern has no `?`, and strict where it
/// has.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    let (outer, inner) = (outer.as_bytes(), inner.as_bytes());
    // reach[o]: the first `o` bytes of the outer pattern can cover what was read of the inner one.
    let mut reach = vec![false; outer.len() + 1];
    reach[0] = true;
    let skip_stars = |reach: &mut Vec<bool>| {
        for o in 0..outer.len() {
            if reach[o] && outer[o] == b'*' {
                reach[o + 1] = true;
            }
        }
    };
    skip_stars(&mut reach);
    for &byte in inner {
        let mut next = vec![false; outer.len() + 1];
        for o in (0..outer.len()).filter(|&o| reach[o]) {
            match outer[o] {
                b'*' => next[o] = true,
                b'?' if byte != b'*' => next[o + 1] = true,
                same if same == byte && byte != b'*' && byte != b'?' => next[o + 1] = true,
                _ => {}
            }
        }
        reach = next;
        skip_stars(&mut reach);
    }
    reach[outer.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_iam_says() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*", "a/b/c", true),
            ("a*c", "abcbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("index/*", "index", false),
            ("", "a", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_ceiling_covers_what_lies_within() {
        for (outer, inner, expected) in [
            ("team-a-*", "team-a-1", true),
            ("team-a-*", "team-a-*", true),
            ("team-a-*", "team-a-x*/_search", true),
            ("team-a-*", "team-a*", false),
            ("team-a-*", "team-a", false),
            ("team-a-*", "*", false),
            ("*-x", "a*-x", true),
            ("a?", "a*", false),
            ("*", "?", true),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} {inner}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_covered_pattern_matches_its_cover_matches(
            outer in "[ab*?]{0,6}", inner in "[ab*?]{0,6}", text in "[ab]{0,8}",
        ) {
            if covers(&outer, &inner) && matches(&inner, &text) {
                prop_assert!(matches(&outer, &text));
            }
        }

        #[test]
        fn the_fast_walk_agrees_with_the_definition(pattern in "[ab*?]{0,7}", text in "[ab]{0,8}") {
            fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
                    ([b'?', rest @ ..], [_, tail @ ..]) => by_definition(rest, tail),
                    ([p, rest @ ..], [t, tail @ ..]) => p == t && by_definition(rest, tail),
                    _ => false,
                }
            }
            prop_assert_eq!(
                matches(&pattern, &text),
                by_definition(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
