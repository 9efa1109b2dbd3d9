//! Who may do what: a request held against an access policy.
//!
//! The answer is [`Decision::Unknown`] where the policy alone cannot tell: where a condition asks
//! for something that the question leaves open, and where IAM has a say. A domain's policy is only
//! half of the truth: in the domain's own account an identity policy may allow what the domain's
//! policy does not mention, and from another account both must allow.
//!
//! Outside of it all are service control policies, permissions boundaries, session policies, VPC
//! endpoint policies and fine-grained access control.

mod condition;
mod question;

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::{Document, Statement};
use super::glob;
use crate::api::arn::{DomainArn, is_account_id};

pub(super) use self::condition::holds;
pub use self::condition::{Context, Known};
pub use self::question::{Invalid, Question};

/// The one action whose resource is the domain itself rather than a path below it.
const CROSS_CLUSTER_GET: &str = "es:ESCrossClusterGet";

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
type Truth = Option<bool>;

/// Returns the truth of all parts together.
fn all(parts: impl IntoIterator<Item = Truth>) -> Truth {
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
fn any(parts: impl IntoIterator<Item = Truth>) -> Truth {
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

/// How a statement's principal covers a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coverage {
    /// Not at all.
    None,
    /// Only some sessions of the role.
    Perhaps,
    /// By its account: IAM of that account decides.
    Account,
    /// By `*`.
    Everyone,
    /// By name.
    Named,
}

/// Evaluates a request against a domain's access policy.
#[must_use]
pub fn evaluate(document: &Document, domain: &DomainArn, request: &Request) -> Evaluation {
    let caller = request.principal.as_deref().map(Caller::parse);
    let context = with_caller(request, caller.as_ref());
    let mut matches: BTreeMap<(bool, Truth, Coverage), Vec<usize>> = BTreeMap::new();
    for (index, statement) in document.statements().iter().enumerate() {
        let coverage = coverage(statement, caller.as_ref(), domain);
        if coverage == Coverage::None {
            continue;
        }
        let applies = all([
            (coverage != Coverage::Perhaps).then_some(true),
            Some(matches_action(statement, &request.action)),
            Some(matches_resource(statement, domain, request)),
            condition::holds(
                statement.members().get("Condition"),
                &context,
                statement.denies(),
            ),
        ]);
        if applies != Some(false) {
            matches
                .entry((statement.denies(), applies, coverage))
                .or_default()
                .push(index);
        }
    }
    decide(&matches, caller.as_ref(), domain)
}

fn decide(
    matches: &BTreeMap<(bool, Truth, Coverage), Vec<usize>>,
    caller: Option<&Caller<'_>>,
    domain: &DomainArn,
) -> Evaluation {
    let select = |wanted: &dyn Fn(bool, Truth, Coverage) -> bool| -> Vec<usize> {
        let found = matches
            .iter()
            .filter(|((denies, truth, cover), _)| wanted(*denies, *truth, *cover));
        let mut found: Vec<usize> = found.flat_map(|(_, indexes)| indexes.clone()).collect();
        found.sort_unstable();
        found
    };
    let answer = |decision, statements: Vec<usize>, why: &str| Evaluation {
        decision,
        statements,
        why: why.to_owned(),
    };
    let denials = select(&|denies, truth, _| denies && truth == Some(true));
    if !denials.is_empty() {
        return answer(
            Decision::Deny,
            denials,
            "a statement denies it, which no allowance outweighs",
        );
    }
    let open_denials = select(&|denies, truth, _| denies && truth.is_none());
    if !open_denials.is_empty() {
        return answer(
            Decision::Unknown,
            open_denials,
            "a denial may apply: it depends on something that the question leaves open",
        );
    }
    let own_account = caller.is_none_or(|caller| caller.account == domain.account());
    let firm = select(&|denies, truth, cover| {
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
    let delegated = select(&|denies, truth, cover| {
        !denies && truth == Some(true) && cover == Coverage::Account
    });
    if !delegated.is_empty() {
        return answer(
            Decision::Unknown,
            delegated,
            "the access policy leaves it to the caller's account: an identity policy must allow it",
        );
    }
    let open = select(&|denies, truth, _| !denies && truth.is_none());
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

/// A caller's ARN, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Caller<'a> {
    arn: &'a str,
    partition: &'a str,
    account: &'a str,
    /// For a session of a role: the role's name, without its path, which sessions do not carry.
    session_of: Option<&'a str>,
    /// For a role: its name, without its path.
    role: Option<&'a str>,
}

impl<'a> Caller<'a> {
    fn parse(arn: &'a str) -> Self {
        let mut parts = arn.splitn(6, ':').skip(1);
        let partition = parts.next().unwrap_or_default();
        let mut parts = parts.skip(2);
        let account = parts.next().unwrap_or_default();
        let resource = parts.next().unwrap_or_default();
        let session_of = resource
            .strip_prefix("assumed-role/")
            .and_then(|rest| rest.split('/').next());
        let role = resource
            .strip_prefix("role/")
            .and_then(|rest| rest.rsplit('/').next());
        Self {
            arn,
            partition,
            account,
            session_of,
            role,
        }
    }
}

/// Adds to the context what the caller itself tells: an unsigned request has no principal's keys.
fn with_caller(request: &Request, caller: Option<&Caller<'_>>) -> Context {
    let mut context = request.context.clone();
    match caller {
        None => {
            for key in [
                "aws:PrincipalArn",
                "aws:PrincipalAccount",
                "aws:PrincipalOrgID",
                "aws:PrincipalOrgPaths",
                "aws:PrincipalType",
                "aws:userid",
                "aws:username",
            ] {
                context.set_absent(key);
            }
        }
        Some(caller) => {
            context.set_default("aws:PrincipalAccount", caller.account);
            // The key holds the role's ARN with its path, which a session's ARN does not tell.
            if caller.session_of.is_none() {
                context.set_default("aws:PrincipalArn", caller.arn);
            }
        }
    }
    context
}

fn coverage(statement: &Statement, caller: Option<&Caller<'_>>, domain: &DomainArn) -> Coverage {
    let members = statement.members();
    // The service does not support `NotPrincipal`; taken as covering everybody, a denial is not missed.
    let Some(principal) = members.get("Principal") else {
        return if members.contains_key("NotPrincipal") {
            Coverage::Perhaps
        } else {
            Coverage::None
        };
    };
    let named = match principal {
        Value::String(text) => vec![text.as_str()],
        Value::Object(kinds) => kinds.get("AWS").map(texts).unwrap_or_default(),
        _ => Vec::new(),
    };
    named
        .into_iter()
        .map(|name| covers(name, caller, domain))
        .max()
        .unwrap_or(Coverage::None)
}

fn covers(name: &str, caller: Option<&Caller<'_>>, domain: &DomainArn) -> Coverage {
    if name == "*" {
        return Coverage::Everyone;
    }
    let Some(caller) = caller else {
        return Coverage::None;
    };
    let root = |account: &str, partition: &str| {
        if account == caller.account && partition == caller.partition {
            Coverage::Account
        } else {
            Coverage::None
        }
    };
    if is_account_id(name) {
        return root(name, domain.partition());
    }
    if name == caller.arn {
        return Coverage::Named;
    }
    let principal = Caller::parse(name);
    if name.ends_with(":root") {
        return root(principal.account, principal.partition);
    }
    if (principal.account, principal.partition) != (caller.account, caller.partition) {
        return Coverage::None;
    }
    match (
        principal.role,
        principal.session_of,
        caller.role,
        caller.session_of,
    ) {
        // A role stands for each of its sessions; names are unlike within an account.
        (Some(role), _, _, Some(session_of)) if role == session_of => Coverage::Named,
        (_, Some(session_of), Some(role), _) if role == session_of => Coverage::Perhaps,
        _ => Coverage::None,
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn matches_action(statement: &Statement, action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let listed = |value: &Value| {
        let mut patterns = texts(value).into_iter().map(str::to_ascii_lowercase);
        patterns.any(|pattern| glob::matches(&pattern, &action))
    };
    let members = statement.members();
    match (members.get("Action"), members.get("NotAction")) {
        (Some(actions), _) => listed(actions),
        (None, Some(actions)) => !listed(actions),
        (None, None) => false,
    }
}

/// Matches the resource as AWS is taken to: the path as it is sent, without decoding. A search from
/// another cluster is about the domain itself.
fn matches_resource(statement: &Statement, domain: &DomainArn, request: &Request) -> bool {
    let resource = if request.action.eq_ignore_ascii_case(CROSS_CLUSTER_GET) {
        domain.as_str().to_owned()
    } else {
        let path = &request.path;
        domain.resource(path.strip_prefix('/').unwrap_or(path))
    };
    let listed = |value: &Value| {
        let mut patterns = texts(value).into_iter();
        patterns.any(|pattern| glob::matches(pattern, &resource))
    };
    let members = statement.members();
    match (members.get("Resource"), members.get("NotResource")) {
        (Some(resources), _) => listed(resources),
        (None, Some(resources)) => !listed(resources),
        // The service fills in all paths of the domain.
        (None, None) => resource != domain.as_str(),
    }
}

#[cfg(test)]
mod tests;
