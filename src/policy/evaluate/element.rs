//! Whether a statement's actions and resources match a request.

use serde_json::Value;

use super::{Request, Truth, any};
use crate::api::arn::DomainArn;
use crate::policy::document::Statement;
use crate::policy::glob;

/// The one action whose resource is the domain itself rather than a path below it.
const CROSS_CLUSTER_GET: &str = "es:ESCrossClusterGet";

pub(super) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn matches_action(statement: &Statement, action: &str) -> bool {
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
pub(super) fn matches_resource(
    statement: &Statement,
    domain: &DomainArn,
    request: &Request,
    variables: bool,
) -> Truth {
    let resource = if request.action.eq_ignore_ascii_case(CROSS_CLUSTER_GET) {
        domain.as_str().to_owned()
    } else {
        let path = &request.path;
        domain.resource(path.strip_prefix('/').unwrap_or(path))
    };
    let listed = |value: &Value| {
        let patterns = texts(value).into_iter();
        any(
            patterns.map(|pattern| match (variables, pattern.contains("${")) {
                (true, true) => matches_variable(pattern, &resource),
                _ => Some(glob::matches(pattern, &resource)),
            }),
        )
    };
    let members = statement.members();
    match (members.get("Resource"), members.get("NotResource")) {
        (Some(resources), _) => listed(resources),
        (None, Some(resources)) => listed(resources).map(|listed| !listed),
        // The service fills in all paths of the domain.
        (None, None) => Some(resource != domain.as_str()),
    }
}

/// Matches a pattern with policy variables, each of which may stand for any text: what matches even
/// so may match. `${*}`, `${?}` and `${$}` stand for the characters themselves.
fn matches_variable(pattern: &str, text: &str) -> Truth {
    // Control characters, which no path has, stand for the characters that are no wildcards here.
    let text = text.replace('*', "\u{1}").replace('?', "\u{2}");
    let (mut plain, mut rest, mut is_open) = (String::new(), pattern, false);
    while let Some((before, after)) = rest.split_once("${") {
        plain.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            plain.push_str("${");
            rest = after;
            continue;
        };
        plain.push_str(match name {
            "*" => "\u{1}",
            "?" => "\u{2}",
            "$" => "$",
            _ => {
                is_open = true;
                "*"
            }
        });
        rest = after;
    }
    plain.push_str(rest);
    let matched = glob::matches(&plain, &text);
    (!matched || !is_open).then_some(matched)
}
