//! Who may do what: a request held against an access policy.
//!
//! The answer is [`Decision::Unknown`] where the policy alone cannot tell: where a condition asks
//! for something that the question leaves open, and where IAM has a say. A domain's policy is only
//! half of the truth: in the domain's own account an identity policy may allow what the domain's
//! policy does not mention, and from another account both must allow.
//!
//! Outside of it all are service control policies, permissions boundaries, session policies, VPC
//! endpoint policies and fine-grained access control.

mod caller;
mod condition;
mod element;
mod question;

use std::collections::BTreeMap;

use serde_json::Value;

use self::caller::{Caller, Coverage, coverage, with_caller};
use self::element::{matches_action, matches_resource};
use super::document::Document;
use crate::api::arn::DomainArn;

pub(super) use self::condition::holds;
pub use self::condition::{Context, Known};
pub use self::question::{Invalid, Question};

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// The request is allowed.
    Allow,
    /// The request is denied.
    Deny,
    /// The policy alone does not tell.
    Unknown,
}

impl Decision {
    /// Returns the decision as it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Unknown => "Unknown",
        }
    }
}

/// A request to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The caller's ARN (a role, a user, a session of a role); `None` for an unsigned request.
    pub principal: Option<String>,
    /// The action, such as `es:ESHttpGet`.
    pub action: String,
    /// The path, without its query string; the leading slash may be left out.
    pub path: String,
    /// What is known of the request beside these.
    pub context: Context,
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The answer.
    pub decision: Decision,
    /// The statements that decide it, or leave it open, by their place in the document.
    pub statements: Vec<usize>,
    /// Why, for a person.
    pub why: String,
}

/// Three-valued truth: `None` is not known.
pub(super) type Truth = Option<bool>;

/// Returns the truth of all parts together.
pub(super) fn all(parts: impl IntoIterator<Item = Truth>) -> Truth {
    let mut truth = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            None => truth = None,
            Some(true) => {}
        }
    }
    truth
}

/// Returns the truth of any part.
pub(super) fn any(parts: impl IntoIterator<Item = Truth>) -> Truth {
    let mut truth = Some(false);
    for part in parts {
        match part {
            Some(true) => return Some(true),
            None => truth = None,
            Some(false) => {}
        }
    }
    truth
}

/// The statements that apply to a request, or may, by their places: whether they deny, whether they
/// apply for certain, how they cover the caller.
type Matches = BTreeMap<(bool, Truth, Coverage), Vec<usize>>;

/// Evaluates a request against a domain's access policy.
#[must_use]
pub fn evaluate(document: &Document, domain: &DomainArn, request: &Request) -> Evaluation {
    let caller = request.principal.as_deref().map(Caller::parse);
    let matches = matching(document, domain, request, caller.as_ref());
    decide(&matches, caller.as_ref(), domain)
}

/// Tells whether a policy lets a caller in by name or as everybody, setting aside what IAM adds:
/// `None` where that depends on something that the request leaves open.
pub(super) fn admits(document: &Document, domain: &DomainArn, request: &Request) -> Option<bool> {
    let caller = request.principal.as_deref().map(Caller::parse);
    let matches = matching(document, domain, request, caller.as_ref());
    let applies = |denies: bool| {
        let of_effect = matches.keys().filter(|(it, _, _)| *it == denies);
        let counts = of_effect.filter(|(_, _, cover)| denies || *cover != Coverage::Account);
        any(counts.map(|(_, truth, _)| *truth))
    };
    all([applies(false), applies(true).map(|denied| !denied)])
}

fn matching(
    document: &Document,
    domain: &DomainArn,
    request: &Request,
    caller: Option<&Caller<'_>>,
) -> Matches {
    let context = with_caller(request, caller);
    // The language's first version has no variables.
    let variables = document.version().and_then(Value::as_str) != Some("2008-10-17");
    let mut matches = Matches::new();
    for (index, statement) in document.statements().iter().enumerate() {
        let coverage = coverage(statement, caller, domain);
        if coverage == Coverage::None {
            continue;
        }
        let applies = all([
            (coverage != Coverage::Perhaps).then_some(true),
            Some(matches_action(statement, &request.action)),
            matches_resource(statement, domain, request, variables),
            condition::holds(
                statement.members().get("Condition"),
                &context,
                statement.denies(),
                variables,
            ),
        ]);
        if applies != Some(false) {
            matches
                .entry((statement.denies(), applies, coverage))
                .or_default()
                .push(index);
        }
    }
    matches
}

/// Returns the statements of the wanted kinds, in the order of the document.
fn select(matches: &Matches, wanted: impl Fn(bool, Truth, Coverage) -> bool) -> Vec<usize> {
    let found = matches
        .iter()
        .filter(|((denies, truth, cover), _)| wanted(*denies, *truth, *cover));
    let mut found: Vec<usize> = found.flat_map(|(_, indexes)| indexes.clone()).collect();
    found.sort_unstable();
    found
}

fn answer(decision: Decision, statements: Vec<usize>, why: &str) -> Evaluation {
    Evaluation {
        decision,
        statements,
        why: why.to_owned(),
    }
}

fn decide(matches: &Matches, caller: Option<&Caller<'_>>, domain: &DomainArn) -> Evaluation {
    let denials = select(matches, |denies, truth, _| denies && truth == Some(true));
    if !denials.is_empty() {
        return answer(
            Decision::Deny,
            denials,
            "a statement denies it, which no allowance outweighs",
        );
    }
    let otherwise = undenied(matches, caller, domain);
    let open_denials = select(matches, |denies, truth, _| denies && truth.is_none());
    // What nothing allows is denied, however the open question turns out.
    if open_denials.is_empty() || otherwise.decision == Decision::Deny {
        return otherwise;
    }
    answer(
        Decision::Unknown,
        open_denials,
        "a denial may apply: it depends on something that the question leaves open",
    )
}

/// Decides as if no statement denied.
fn undenied(matches: &Matches, caller: Option<&Caller<'_>>, domain: &DomainArn) -> Evaluation {
    let own_account = caller.is_none_or(|caller| caller.account == domain.account());
    let firm = select(matches, |denies, truth, cover| {
        !denies && truth == Some(true) && (cover == Coverage::Named || cover == Coverage::Everyone)
    });
    if !firm.is_empty() {
        return if own_account {
            answer(Decision::Allow, firm, "the access policy allows it")
        } else {
            answer(
                Decision::Unknown,
                firm,
                "the access policy allows it; the caller is of another account, where an identity policy must allow it too",
            )
        };
    }
    let delegated = select(matches, |denies, truth, cover| {
        !denies && truth == Some(true) && cover == Coverage::Account
    });
    if !delegated.is_empty() {
        return answer(
            Decision::Unknown,
            delegated,
            "the access policy leaves it to the caller's account: an identity policy must allow it",
        );
    }
    let open = select(matches, |denies, truth, _| !denies && truth.is_none());
    if !open.is_empty() {
        return answer(
            Decision::Unknown,
            open,
            "an allowance may apply: it depends on something that the question leaves open",
        );
    }
    match caller {
        None => answer(
            Decision::Deny,
            Vec::new(),
            "no statement allows unsigned requests like this",
        ),
        Some(_) if own_account => answer(
            Decision::Unknown,
            Vec::new(),
            "no statement of the access policy allows it; an identity policy of the domain's account still may",
        ),
        Some(_) => answer(
            Decision::Deny,
            Vec::new(),
            "no statement of the access policy allows it, which a caller of another account needs",
        ),
    }
}

#[cfg(test)]
mod tests;
