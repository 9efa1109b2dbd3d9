//! The variables that the plugin fills in before it reads a query.

use super::Error;
use crate::policy::fine_grained::nearest::nearest;

/// What the plugin fills in for a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filling {
    /// Bare text.
    Text,
    /// Texts in quotes, with commas between.
    List,
    /// Whatever an attribute of the user says.
    Any,
}

/// All but the attributes of users, whose names begin with `attr.`.
const NAMES: [(&str, Filling); 3] = [
    ("user.name", Filling::Text),
    ("user.roles", Filling::List),
    ("user.securityRoles", Filling::List),
];

fn filling(name: &str) -> Option<Filling> {
    if name.contains(['"', '\\']) {
        return None;
    }
    // Text to fall back to stands behind it.
    if name.contains(":-") {
        return Some(Filling::Any);
    }
    let mut names = NAMES.iter();
    let known = names.find(|(it, _)| *it == name || it.replace('.', "_") == name);
    let attribute = ["attr.", "attr_"].iter().any(|it| name.starts_with(it));
    known
        .map(|(_, filling)| *filling)
        .or(attribute.then_some(Filling::Any))
}

/// Fills in values for the variables of a text, each as long as its variable, so that what is wrong
/// is found where it is. Those within quotes stay.
pub(super) fn fill(text: &str) -> Result<String, Error> {
    let mut filled = String::with_capacity(text.len());
    let mut quoted = false;
    let mut rest = text;
    loop {
        let variable = rest.strip_prefix("${").and_then(|it| it.split_once('}'));
        if let Some((name, tail)) = variable {
            let written = format!("${{{name}}}");
            match value(name, quoted, &filled)? {
                Some(value) => {
                    let padding = written.len().saturating_sub(value.len());
                    filled.push_str(value);
                    filled.extend(std::iter::repeat_n(' ', padding));
                }
                None => filled.push_str(&written),
            }
            rest = tail;
            continue;
        }
        let mut chars = rest.chars();
        let Some(next) = chars.next() else {
            return Ok(filled);
        };
        filled.push(next);
        match next {
            '"' => quoted = !quoted,
            '\\' if quoted => filled.extend(chars.next()),
            _ => {}
        }
        rest = chars.as_str();
    }
}

/// Returns what a variable may be filled with where it stands: within a text, it may stay.
fn value(name: &str, quoted: bool, before: &str) -> Result<Option<&'static str>, Error> {
    let in_list = before.trim_end().ends_with(['[', ',']);
    let own = name.to_owned();
    match filling(name) {
        None => {
            let known = NAMES.iter().map(|(it, _)| *it);
            let nearest = nearest(name, known).map(str::to_owned);
            Err(Error::Variable { name: own, nearest })
        }
        Some(Filling::List) if quoted || !in_list => Err(Error::List { name: own }),
        Some(Filling::Text) if !quoted => Err(Error::Text { name: own }),
        Some(_) if quoted => Ok(None),
        Some(Filling::List) => Ok(Some("\"\",\"\"")),
        Some(_) => Ok(Some("0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_long_as_variables() {
        for (text, expected) in [
            ("", ""),
            ("\"é${user.name}\"", "\"é${user.name}\""),
            ("[${user.roles}]", "[\"\",\"\"        ]"),
            ("[1, ${attr.x}]", "[1, 0        ]"),
            (r#"["\"", ${user_roles}]"#, r#"["\"", "",""        ]"#),
            ("${", "${"),
            ("\\", "\\"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
    }
}
