//! What changes between two policies, statement by statement.
//!
//! Statements are compared by meaning and shown in one spelling, so what AWS reordered or respelt
//! is no change. A statement of which one element changed is shown once, with the lines that changed.

use std::collections::BTreeMap;

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::api::arn::DomainArn;
use crate::policy::canonical;
use crate::policy::document::{Document, Statement};

/// How many equal lines are shown on each side of a change inside of a list.
const CONTEXT: usize = 1;

/// The elements of a statement that a change is told by.
const ELEMENTS: [&str; 5] = ["Principal", "Action", "Resource", "Condition", "Effect"];

/// What changes between two policies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The statements that change, each by its lines.
    pub statements: Vec<Vec<Line>>,
    /// The number of statements that stay.
    pub unchanged: usize,
}

/// A line of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What becomes of it.
    pub sign: Sign,
    /// The line, indented as in the statement.
    pub text: String,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It stays.
    Kept,
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stands for lines that stay.
    Elided,
}

/// A statement in the one spelling.
#[derive(Debug)]
struct Spelled {
    /// The same for statements of one meaning.
    key: String,
    /// The statement.
    value: Value,
}

/// Compares two policies of a domain.
#[must_use]
pub fn between(before: &Document, after: &Document, domain: &DomainArn) -> Diff {
    let spell = |document: &Document| -> Vec<Spelled> {
        let statements = document.statements().iter();
        statements.map(|it| spelled(it, domain)).collect()
    };
    let (before, after) = (spell(before), spell(after));
    let mut standing: BTreeMap<&str, usize> = BTreeMap::new();
    for statement in &before {
        *standing.entry(&statement.key).or_default() += 1;
    }
    let mut added: Vec<&Spelled> = Vec::new();
    for statement in &after {
        match standing.get_mut(statement.key.as_str()) {
            Some(left) if *left > 0 => *left -= 1,
            _ => added.push(statement),
        }
    }
    let unchanged = after.len() - added.len();
    let mut statements = Vec::new();
    for removed in &before {
        let Some(left) = standing.get_mut(removed.key.as_str()).filter(|it| **it > 0) else {
            continue;
        };
        *left -= 1;
        let changed = added
            .iter()
            .position(|it| is_change(&removed.value, &it.value));
        statements.push(match changed {
            Some(at) => changes(&removed.value, &added.remove(at).value),
            None => whole(&removed.value, Sign::Removed),
        });
    }
    let added = added.iter().map(|it| whole(&it.value, Sign::Added));
    statements.extend(added);
    Diff {
        statements,
        unchanged,
    }
}

/// Spells a statement: as the operator would, or, where it is not understood or means several of
/// the operator's, with its own elements in order.
fn spelled(statement: &Statement, domain: &DomainArn) -> Spelled {
    let meaning = canonical::permissions(statement, domain);
    let meant = meaning.map(|it| it.to_statements()).unwrap_or_default();
    let values: Vec<Value> = meant.iter().map(Statement::to_value).collect();
    let folded = || {
        let text = canonical::spelling(statement);
        serde_json::from_str(&text).unwrap_or_else(|_| statement.to_value())
    };
    match <[Value; 1]>::try_from(values) {
        Ok([value]) => Spelled {
            key: value.to_string(),
            value,
        },
        Err(none) if none.is_empty() => {
            let value = folded();
            Spelled {
                key: value.to_string(),
                value,
            }
        }
        Err(several) => Spelled {
            key: Value::Array(several).to_string(),
            value: folded(),
        },
    }
}

/// Tells whether one statement is another with one element changed.
fn is_change(before: &Value, after: &Value) -> bool {
    let unlike = |element: &&str| before.get(*element) != after.get(*element);
    let known = |value: &Value| {
        let members = value.as_object().into_iter().flatten();
        members
            .into_iter()
            .all(|(key, _)| ELEMENTS.contains(&key.as_str()))
    };
    known(before)
        && known(after)
        && before.get("Effect") == after.get("Effect")
        && ELEMENTS.iter().filter(|it| unlike(it)).count() == 1
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Returns all lines of a value under one sign.
pub(super) fn whole(value: &Value, sign: Sign) -> Vec<Line> {
    let line = |text: &str| Line {
        sign,
        text: text.to_owned(),
    };
    pretty(value).lines().map(line).collect()
}

/// Returns the lines of a changed statement; inside of lists, only what is next to a change.
fn changes(before: &Value, after: &Value) -> Vec<Line> {
    let (before, after) = (pretty(before), pretty(after));
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    let lines: Vec<Line> = diff
        .iter_all_changes()
        .map(|change| Line {
            sign: match change.tag() {
                ChangeTag::Insert => Sign::Added,
                ChangeTag::Delete => Sign::Removed,
                ChangeTag::Equal => Sign::Kept,
            },
            text: change.value().trim_end().to_owned(),
        })
        .collect();
    let is_shown = |at: usize| {
        let near = at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len());
        // The members of the statement itself are indented by two.
        let outer = !lines[at].text.starts_with("    ");
        outer || lines[near].iter().any(|line| line.sign != Sign::Kept)
    };
    let mut shown: Vec<Line> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if is_shown(at) {
            shown.push(line.clone());
        } else if shown.last().is_none_or(|last| last.sign != Sign::Elided) {
            let indent = line.text.len() - line.text.trim_start().len();
            shown.push(Line {
                sign: Sign::Elided,
                text: format!("{:indent$}...", ""),
            });
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs/*";

    fn domain() -> DomainArn {
        DomainArn::new("eu-west-1", "111122223333", "logs")
    }

    fn role(name: &str) -> String {
        format!("arn:aws:iam::111122223333:role/{name}")
    }

    fn allows(names: &[&str]) -> Value {
        let roles: Vec<String> = names.iter().map(|name| role(name)).collect();
        json!({"Effect": "Allow", "Principal": {"AWS": roles}, "Action": "es:*", "Resource": ALL})
    }

    fn diff(before: &Value, after: &Value) -> Diff {
        let parse = |statements: &Value| {
            Document::parse(&json!({"Statement": statements}).to_string()).unwrap()
        };
        between(&parse(before), &parse(after), &domain())
    }

    /// Returns the lines that change.
    fn told(diff: &Diff) -> Vec<String> {
        let lines = diff.statements.iter().flatten();
        let changed = lines.filter_map(|line| match line.sign {
            Sign::Added => Some(format!("+ {}", line.text.trim())),
            Sign::Removed => Some(format!("- {}", line.text.trim())),
            _ => None,
        });
        changed.collect()
    }

    #[test]
    fn what_is_respelt_and_reordered_is_no_change() {
        let odd = json!({"Sid": "x", "Effect": "Deny", "Principal": "*",
            "NotAction": ["es:ESHttpGet"], "Resource": [ALL]});
        let respelt = json!({"NotAction": "es:ESHttpGet", "Effect": "Deny", "Principal": "*",
            "Resource": ALL});
        let account = json!({"Effect": "Allow", "Principal": {"AWS": "444455556666"},
            "Action": ["es:ESHttp*"], "Resource": [ALL]});
        let root = json!({"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::444455556666:root"]},
            "Action": "es:*", "Sid": "y"});
        let found = diff(
            &json!([odd, allows(&["a", "b"]), account]),
            &json!([root, respelt, allows(&["b", "a"])]),
        );
        let nothing = Diff {
            statements: Vec::new(),
            unchanged: 3,
        };
        assert_eq!(found, nothing);
    }

    #[test]
    fn a_statement_that_says_more_than_one_is_known_again() {
        // Two actions on two resources of which each takes one.
        let both = json!({"Effect": "Allow", "Principal": "*", "Action": ["es:*", "es:ESCrossClusterGet"],
            "Resource": [ALL, "arn:aws:es:eu-west-1:111122223333:domain/logs"]});
        let turned = json!({"Effect": "Allow", "Principal": {"AWS": "*"},
            "Action": ["es:ESCrossClusterGet", "es:*"],
            "Resource": ["arn:aws:es:eu-west-1:111122223333:domain/logs", ALL]});
        let found = diff(&json!([both]), &json!([turned]));
        assert_eq!(
            (found.statements.len(), found.unchanged),
            (0, 1),
            "{found:?}"
        );
    }

    #[test]
    fn whole_statements_come_and_go() {
        let denial = json!({"Effect": "Deny", "Principal": {"AWS": role("c")}, "Action": "es:*",
            "Resource": ALL});
        let found = diff(&json!([allows(&["a"])]), &json!([denial]));
        let signs = |at: usize| -> Vec<Sign> {
            found.statements[at].iter().map(|line| line.sign).collect()
        };
        assert_eq!((found.statements.len(), found.unchanged), (2, 0));
        assert!(signs(0).iter().all(|sign| *sign == Sign::Removed));
        assert!(signs(1).iter().all(|sign| *sign == Sign::Added));
        let added: Vec<&str> = found.statements[1]
            .iter()
            .map(|it| it.text.as_str())
            .collect();
        assert_eq!(
            serde_json::from_str::<Value>(&added.concat()).unwrap(),
            denial
        );
    }

    #[test]
    fn a_second_copy_is_a_statement_of_its_own() {
        let found = diff(
            &json!([allows(&["a"]), allows(&["a"])]),
            &json!([allows(&["a"])]),
        );
        assert_eq!((found.statements.len(), found.unchanged), (1, 1));
        assert!(told(&found).iter().all(|line| line.starts_with("- ")));
    }

    #[test]
    fn of_a_changed_statement_the_changed_lines_are_shown() {
        let names: Vec<String> = (10..60).map(|number| format!("r{number}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        let before = allows(&names);
        names.remove(30);
        let found = diff(&json!([before]), &json!([allows(&names)]));
        assert_eq!(told(&found), [format!("- \"{}\",", role("r40"))]);
        let [statement] = &found.statements[..] else {
            panic!("{found:?}")
        };
        assert!(statement.len() < 16, "{statement:#?}");
        let texts: Vec<&str> = statement.iter().map(|line| line.text.trim()).collect();
        for part in ["\"Action\": \"es:*\",", "\"Effect\": \"Allow\",", "..."] {
            assert!(texts.contains(&part), "{part}: {texts:?}");
        }
        assert!(texts.contains(&format!("\"{}\",", role("r39")).as_str()));
        assert!(!texts.contains(&format!("\"{}\",", role("r30")).as_str()));
    }

    #[test]
    fn two_elements_changed_are_another_statement() {
        let mut other = allows(&["b"]);
        other["Action"] = json!("es:ESHttpGet");
        let found = diff(&json!([allows(&["a"])]), &json!([other]));
        assert_eq!(found.statements.len(), 2);
        let mut denied = allows(&["a"]);
        denied["Effect"] = json!("Deny");
        let found = diff(&json!([allows(&["a"])]), &json!([denied]));
        assert_eq!(
            found.statements.len(),
            2,
            "an allowance is no denial changed"
        );
    }
}
