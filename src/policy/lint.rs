//! What is amiss with a policy document: what the service refuses or ignores, and what does
//! something other than it seems to.
//!
//! The rules are those of the service's developer guide and of the errors that it is known to
//! answer with; each finding says what to do.

mod condition;
mod statement;

use std::collections::HashMap;

use serde::Serialize;

use super::canonical;
use super::document::{Document, SIZE_LIMIT, Statement, VERSION};
use super::permission::{ActionSet, Permission, Permissions};
use crate::api::arn::DomainArn;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// AWS refuses it, or it does something other than it says.
    Error,
    /// It may be meant, and is worth a look.
    Warning,
}

impl Severity {
    /// Returns the severity as it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Something amiss.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The element, such as `Statement[0].Principal`, or a manifest's field; empty for the whole.
    pub place: String,
    /// How bad it is.
    pub severity: Severity,
    /// The rule's name.
    pub rule: &'static str,
    /// What is amiss, and what to do.
    pub message: String,
}

impl Finding {
    /// Builds a finding.
    #[must_use]
    pub fn new(
        severity: Severity,
        rule: &'static str,
        place: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            severity,
            rule,
            message: message.into(),
        }
    }
}

/// What is known of the domain that a policy is for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// Its ARN.
    pub domain: Option<&'a DomainArn>,
    /// Whether it has fine-grained access control, which makes an open policy and rules on paths
    /// sound.
    pub fine_grained: bool,
}

/// A text that is no policy document.
pub const UNUSABLE: &str = "unusable";

/// Checks a policy document as it was written.
#[must_use]
pub fn document(text: &str, subject: Subject<'_>) -> Vec<Finding> {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let said = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            return vec![Finding::new(Severity::Error, UNUSABLE, "", said)];
        }
    };
    let mut found = Vec::new();
    if text.trim_end().contains(['\n', '\r']) {
        found.push(Finding::new(
            Severity::Warning,
            "newline",
            "",
            "AWS refuses an access policy with line breaks in it: send it minified, with jq -c for one",
        ));
    }
    let size = document.to_text().chars().count();
    if size > SIZE_LIMIT {
        let rule = format!(
            "has {size} characters without spaces, and AWS stores {SIZE_LIMIT}: join statements, use wildcards in resources"
        );
        found.push(Finding::new(Severity::Error, "size", "", rule));
    }
    found.extend(version(&document));
    if document.statements().is_empty() && !text.trim().is_empty() {
        found.push(Finding::new(
            Severity::Error,
            "empty",
            "Statement",
            "AWS refuses a policy without a statement: send the empty text to have no policy",
        ));
    }
    for (index, statement) in document.statements().iter().enumerate() {
        let place = format!("Statement[{index}]");
        statement::check(statement, &place, subject, &mut found);
    }
    found.extend(repeated_statements(document.statements(), subject));
    found
}

/// Returns the finding of a private address among the sources of requests.
#[must_use]
pub fn private_address(text: &str, place: &str) -> Finding {
    Finding::new(Severity::Warning, "private-address", place, private(text))
}

fn private(text: &str) -> String {
    format!(
        "{text:?} is private, and AWS sees the public address of a request only: name the NAT gateway's or the office's public address, or the VPC endpoint"
    )
}

fn version(document: &Document) -> Option<Finding> {
    if document.statements().is_empty() {
        return None;
    }
    let (severity, said) = match document.version().map(|version| version.as_str()) {
        Some(Some(VERSION)) => return None,
        Some(Some("2008-10-17")) => (Severity::Warning, "is the old one"),
        None => (
            Severity::Warning,
            "is missing, which means 2008-10-17, the old one",
        ),
        Some(_) => (Severity::Error, "is none that AWS knows"),
    };
    let message = format!("the version {said}: write {VERSION:?}");
    Some(Finding::new(severity, "version", "Version", message))
}

fn repeated_statements(statements: &[Statement], subject: Subject<'_>) -> Vec<Finding> {
    let Some(domain) = subject.domain else {
        return Vec::new();
    };
    let meaning = |statement| canonical::permissions(statement, domain).unwrap_or_default();
    let meanings: Vec<Permissions> = statements.iter().map(meaning).collect();
    repeated(&meanings.iter().collect::<Vec<_>>())
        .into_iter()
        .map(|index| {
            Finding::new(
                Severity::Warning,
                "repeated",
                format!("Statement[{index}]"),
                "other statements say all of this too: remove it",
            )
        })
        .collect()
}

/// Returns which of the sets say nothing that the others, without those returned, do not say too;
/// of equal sets the first is kept.
#[must_use]
pub fn repeated(sets: &[&Permissions]) -> Vec<usize> {
    fn parts(set: &Permissions) -> impl Iterator<Item = (&Permission, ActionSet)> {
        let each = |(permission, actions): (_, ActionSet)| {
            actions.each().map(move |one| (permission, one))
        };
        set.iter().flat_map(each)
    }
    let mut holders: HashMap<(&Permission, ActionSet), usize> = HashMap::new();
    for part in sets.iter().flat_map(|set| parts(set)) {
        *holders.entry(part).or_default() += 1;
    }
    let mut found = Vec::new();
    for (index, set) in sets.iter().enumerate().rev() {
        let held_by_others = |part| holders.get(&part).is_some_and(|count| *count > 1);
        if set.is_empty() || !parts(set).all(held_by_others) {
            continue;
        }
        found.push(index);
        for part in parts(set) {
            holders.entry(part).and_modify(|count| *count -= 1);
        }
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests;
