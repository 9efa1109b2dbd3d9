//! The rules on one statement: its principal, its actions, its resources.

use serde_json::Value;

use super::{Finding, Severity, Subject, condition};
use crate::api::arn::{DomainArn, EntityArn, EntityKind, is_account_id};
use crate::policy::canonical::is_unique_id;
use crate::policy::document::Statement;
use crate::policy::glob;
use crate::policy::permission::{ANYONE, ActionSet};

/// The elements that a statement may have.
const ELEMENTS: [&str; 9] = [
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];

/// Where findings of one statement go.
pub(super) struct Place<'a> {
    pub(super) statement: &'a str,
    pub(super) found: &'a mut Vec<Finding>,
}

impl Place<'_> {
    pub(super) fn error(&mut self, rule: &'static str, element: &str, message: impl Into<String>) {
        self.say(Severity::Error, rule, element, message);
    }

    pub(super) fn warning(
        &mut self,
        rule: &'static str,
        element: &str,
        message: impl Into<String>,
    ) {
        self.say(Severity::Warning, rule, element, message);
    }

    fn say(
        &mut self,
        severity: Severity,
        rule: &'static str,
        element: &str,
        message: impl Into<String>,
    ) {
        let place = format!("{}.{element}", self.statement);
        self.found
            .push(Finding::new(severity, rule, place, message));
    }
}

/// Checks one statement.
pub(super) fn check(
    statement: &Statement,
    place: &str,
    subject: Subject<'_>,
    found: &mut Vec<Finding>,
) {
    let members = statement.members();
    let mut place = Place {
        statement: place,
        found,
    };
    for element in members.keys().filter(|it| !ELEMENTS.contains(&it.as_str())) {
        let message = format!("{element:?} is no element of a statement: correct or remove it");
        place.error("element", element, message);
    }
    if !matches!(
        members.get("Effect").and_then(Value::as_str),
        Some("Allow" | "Deny")
    ) {
        place.error("effect", "Effect", "must be \"Allow\" or \"Deny\"");
    }
    let principals = principals(statement, subject, &mut place);
    let actions = actions(statement, &mut place);
    resources(statement, &actions, subject, &mut place);
    condition::check(statement, &mut place);
    let open = principals.iter().any(|principal| principal == ANYONE);
    if open && !statement.denies() && !subject.fine_grained && !condition::restricts(statement) {
        place.error(
            "open",
            "Principal",
            "everybody may use the domain, and AWS refuses that unless the domain is in a VPC or has fine-grained access control: name principals, or a Condition on aws:SourceIp",
        );
    }
}

/// Returns the texts of a value that is a text or a list of texts.
pub(super) fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn principals(statement: &Statement, subject: Subject<'_>, place: &mut Place<'_>) -> Vec<String> {
    const ELEMENT: &str = "Principal";
    let members = statement.members();
    if members.contains_key("NotPrincipal") {
        place.error(
            "not-principal",
            "NotPrincipal",
            "the service does not support NotPrincipal: name the principals",
        );
    }
    let named = match members.get(ELEMENT) {
        Some(Value::Object(kinds)) => texts(kinds.get("AWS")),
        Some(value) => texts(Some(value)),
        None => {
            if !members.contains_key("NotPrincipal") {
                place.error("no-principal", ELEMENT, "is missing: name who is meant");
            }
            return Vec::new();
        }
    };
    if named.len() > 1 && named.contains(&ANYONE) {
        place.error(
            "mixed-principals",
            ELEMENT,
            "AWS refuses \"*\" beside other principals: give it a statement of its own",
        );
    }
    for &name in &named {
        if is_unique_id(name) {
            let message = format!(
                "{name} stands for a role or user that was deleted, and AWS refuses it when it is sent back: remove it, or write the ARN of its successor"
            );
            place.error("deleted-principal", ELEMENT, message);
        } else if name != ANYONE && name.contains(['*', '?']) {
            let message = format!(
                "{name:?}: a principal cannot have wildcards; name each role, or use \"*\" with a Condition on aws:PrincipalArn"
            );
            place.error("principal-wildcard", ELEMENT, message);
        } else if let Some(message) = principal(name, subject.domain) {
            place.error("principal", ELEMENT, message);
        }
    }
    named.into_iter().map(ToOwned::to_owned).collect()
}

/// Returns what is wrong with a principal's form.
fn principal(name: &str, domain: Option<&DomainArn>) -> Option<String> {
    if name == ANYONE || is_account_id(name) {
        return None;
    }
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    let &["arn", partition, service, "", account, resource] = parts.as_slice() else {
        return Some(format!(
            "{name:?} is neither an ARN nor an account id nor \"*\""
        ));
    };
    let entity = [EntityKind::Role, EntityKind::User];
    let is_known = match service {
        "iam" => {
            resource == "root"
                || entity
                    .into_iter()
                    .any(|kind| EntityArn::parse(name, kind).is_ok())
        }
        "sts" => resource.starts_with("assumed-role/") || resource.starts_with("federated-user/"),
        _ => false,
    };
    if !is_known || !is_account_id(account) {
        return Some(format!(
            "{name:?} is not the ARN of a role, a user, a session or an account; a group cannot be a principal"
        ));
    }
    let partition_of_domain = domain.map(DomainArn::partition);
    (partition_of_domain.is_some_and(|of_domain| of_domain != partition)).then(|| {
        format!("{name:?} is of another partition than the domain: AWS keeps partitions apart")
    })
}

fn actions(statement: &Statement, place: &mut Place<'_>) -> Vec<(String, ActionSet)> {
    let members = statement.members();
    if !members.contains_key("Action") && !members.contains_key("NotAction") {
        place.error("no-action", "Action", "is missing: name the actions");
    }
    let mut known = Vec::new();
    for name in texts(members.get("Action")) {
        match ActionSet::matching(name) {
            Some(actions) => known.push((name.to_owned(), actions)),
            None => place.warning(
                "action-without-effect",
                "Action",
                format!(
                    "{name:?} has no effect in a domain's policy, which is about requests to its data (es:ESHttp*, es:ESCrossClusterGet): put it into an identity policy"
                ),
            ),
        }
    }
    known
}

fn resources(
    statement: &Statement,
    actions: &[(String, ActionSet)],
    subject: Subject<'_>,
    place: &mut Place<'_>,
) {
    const ELEMENT: &str = "Resource";
    let resources = texts(statement.members().get(ELEMENT));
    let all = actions
        .iter()
        .fold(ActionSet::default(), |all, (_, set)| all.union(*set));
    let is_domain = |resource: &&str| {
        DomainArn::parse(resource).is_ok_and(|arn| subject.domain.is_none_or(|it| *it == arn))
    };
    let only_cross = |(_, set): &(String, ActionSet)| *set == ActionSet::CROSS_CLUSTER;
    let whole = resources.contains(&"*");
    if actions.iter().any(only_cross) && !whole && !resources.iter().any(is_domain) {
        place.error(
            "cross-cluster-resource",
            ELEMENT,
            "es:ESCrossClusterGet is about the domain itself: its resource is the domain's ARN without /*",
        );
    }
    for &resource in &resources {
        let on = DomainArn::of_resource(resource);
        let elsewhere = match (&on, subject.domain) {
            (Some(on), Some(domain)) => on != domain,
            (None, _) => !resource.contains(['*', '?']),
            (Some(_), None) => false,
        };
        if elsewhere {
            let message =
                format!("{resource:?} is not of this domain: the statement has no effect");
            place.error("other-domain", ELEMENT, message);
            continue;
        }
        if is_domain(&resource)
            && !all.is_empty()
            && all.intersection(ActionSet::CROSS_CLUSTER).is_empty()
        {
            place.error(
                "domain-without-paths",
                ELEMENT,
                format!("{resource:?} is the domain itself, and the actions are about its paths: write {resource}/*"),
            );
        }
        let Some(path) = on
            .as_ref()
            .and_then(|on| resource.strip_prefix(&on.resource("")))
        else {
            continue;
        };
        let index = path
            .strip_suffix("/*")
            .filter(|it| !it.is_empty() && !it.contains('/') && !it.starts_with('_'));
        if let Some(index) = index
            && !index.ends_with('*')
            && let Some(itself) = resource.strip_suffix("/*")
            && !resources.iter().any(|other| glob::covers(other, itself))
        {
            place.warning(
                "misses-index",
                ELEMENT,
                format!("{path:?} covers what is below the index and not the index itself (GET, PUT and DELETE /{index}): add {itself:?}"),
            );
        }
        if path != "*" && !statement.denies() && !subject.fine_grained {
            place.warning(
                "paths-not-enforced",
                ELEMENT,
                format!("{path:?}: AWS compares the path alone, and _bulk, _msearch and _mget name indexes in the body: turn on fine-grained access control, or set rest.action.multi.allow_explicit_index to false"),
            );
        }
    }
}
