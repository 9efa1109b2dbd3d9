//! The patterns of the security plugin: wildcards, regular expressions, dates and variables.

use super::super::request;
use crate::policy::evaluate::Truth;
use crate::policy::glob;

pub(super) use glob::matches;

/// A pattern, by how far it is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern<'a> {
    /// With `*` and `?`.
    Glob(&'a str),
    /// It matches nothing.
    Never,
    /// A regular expression, which is not read.
    Open,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern.
    pub(super) fn of(text: &'a str) -> Self {
        if text.trim().is_empty() {
            Self::Never
        } else if text.starts_with('/') && text.ends_with('/') {
            Self::Open
        } else {
            Self::Glob(text)
        }
    }

    /// Tells whether it matches a text.
    pub(super) fn holds(self, text: &str) -> Truth {
        match self {
            Self::Glob(glob) => Some(matches(glob, text)),
            Self::Never => Some(false),
            Self::Open => None,
        }
    }
}

/// Tells whether there is a text that both patterns match.
pub(super) fn touches(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // reach[o]: what was read of the one and the first `o` of the other match a common text.
    let mut reach = vec![false; other.len() + 1];
    reach[0] = true;
    let stars = |reach: &mut Vec<bool>| {
        for o in 0..other.len() {
            reach[o + 1] |= reach[o] && other[o] == '*';
        }
    };
    stars(&mut reach);
    for &c in &one {
        let mut next = vec![false; other.len() + 1];
        if c == '*' {
            // Whatever the other goes on with is swallowed.
            let mut reached = false;
            for (o, next) in next.iter_mut().enumerate() {
                reached |= reach[o];
                *next = reached;
            }
        } else {
            for (o, &d) in other.iter().enumerate().filter(|&(o, _)| reach[o]) {
                match d {
                    '*' => next[o] = true,
                    d if d == '?' || c == '?' || c == d => next[o + 1] = true,
                    _ => {}
                }
            }
            stars(&mut next);
        }
        reach = next;
    }
    reach[other.len()]
}

/// How an index pattern of a role lies to indexes that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// It matches none of them.
    None,
    /// It matches some: those of a pattern that is asked for.
    Some,
    /// It may match: it is not understood.
    Open,
    /// It matches all of them.
    All,
}

/// Holds an index pattern of a role against a name, or a pattern, that is asked for.
pub(super) fn reach(pattern: &str, asked: &str, user: Option<&str>) -> Reach {
    if pattern.starts_with('<') && pattern.ends_with('>') {
        let dated = request::without_dates(pattern);
        let possible = dated.is_none_or(|dated| touches(&dated, asked));
        return if possible { Reach::Open } else { Reach::None };
    }
    let Some(pattern) = with_user(pattern, user) else {
        return Reach::Open;
    };
    match Pattern::of(&pattern) {
        Pattern::Open => Reach::Open,
        Pattern::Glob(glob) if glob::covers(glob, asked) => Reach::All,
        Pattern::Glob(glob) if touches(glob, asked) => Reach::Some,
        Pattern::Never | Pattern::Glob(_) => Reach::None,
    }
}

/// Puts the user's name in place of its variable; `None` where another variable, or none that is
/// known, is asked for.
fn with_user(pattern: &str, user: Option<&str>) -> Option<String> {
    if !pattern.contains("${") {
        return Some(pattern.to_owned());
    }
    let user = user.filter(|user| !user.contains(['*', '?', '$']))?;
    let known = pattern.replace("${user.name}", user);
    let known = known.replace("${user_name}", user);
    (!known.contains("${")).then_some(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_pattern_reaches_what_it_matches() {
        for (pattern, asked, expected) in [
            ("team-a-*", "team-a-1", Reach::All),
            ("team-a-*", "team-a-*", Reach::All),
            ("team-a-*", "team-a-1*", Reach::All),
            ("team-a-*", "team-*", Reach::Some),
            ("team-a-1", "team-*", Reach::Some),
            ("team-a-*", "team-b-*", Reach::None),
            ("team-a-*", "team-b-1", Reach::None),
            ("team-a-*", "*", Reach::Some),
            ("*", "*", Reach::All),
            ("", "team-a-1", Reach::None),
            ("/team-[ab]/", "team-a", Reach::Open),
            ("<logs-{now/d}>", "logs-2026.01.01", Reach::Open),
            ("<logs-{now/d}>", "team-a-1", Reach::None),
            ("${user.name}-*", "ann-1", Reach::All),
            ("${user_name}", "ann", Reach::All),
            ("${user.name}-*", "bob-1", Reach::None),
            ("${user.roles}-*", "ann-1", Reach::Open),
            ("${user.name:-x}", "ann", Reach::Open),
        ] {
            assert_eq!(
                reach(pattern, asked, Some("ann")),
                expected,
                "{pattern} {asked}"
            );
        }
        assert_eq!(reach("${user.name}", "ann", None), Reach::Open);
        assert_eq!(reach("${user.name}", "bob", Some("*")), Reach::Open);
    }

    proptest! {
        #[test]
        fn patterns_touch_where_a_text_matches_both(
            one in "[ab*?]{0,5}", other in "[ab*?]{0,5}", text in "[ab]{0,6}",
        ) {
            if matches(&one, &text) && matches(&other, &text) {
                prop_assert!(touches(&one, &other));
            }
            prop_assert_eq!(touches(&one, &other), touches(&other, &one));
            // Of a text without wildcards it is the match itself.
            prop_assert_eq!(touches(&one, &text), matches(&one, &text));
        }
    }
}
