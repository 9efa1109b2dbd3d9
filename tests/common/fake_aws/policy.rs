//! Judges an access policy as the service does when it is submitted.
//!
//! Every answer here is one that AWS users have reported: the service either
//! takes the whole document or refuses it, and it never says which principal or statement is at
//! fault.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::accounts::{Accounts, Kind};
use super::wire::Refusal;

pub(crate) mod open;
pub(crate) mod stored;

/// The most characters that a policy may have.
const LONGEST: usize = 102_400;

/// What the rules need to know of the domain.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) partition: String,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) domain: String,
    pub(crate) vpc: bool,
    /// Whether fine-grained access control is on.
    pub(crate) fgac: bool,
    /// Whether unique ids of deleted principals may be sent back.
    pub(crate) takes_deleted: bool,
}

impl Site {
    pub(crate) fn arn(&self) -> String {
        let Self {
            partition,
            region,
            account,
            domain,
            ..
        } = self;
        format!("arn:{partition}:es:{region}:{account}:domain/{domain}")
    }
}

/// Checks the constraints that the API model puts on the member itself, before anything looks
/// inside.
pub(crate) fn check_shape(text: &str) -> Result<(), Refusal> {
    let constraint = if text.chars().count() > LONGEST {
        format!("Member must have length less than or equal to {LONGEST}")
    } else if text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        "Member must satisfy regular expression pattern: .*".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::validation(format!(
        "1 validation error detected: Value '{text}' at 'accessPolicies' failed to satisfy \
        constraint: {constraint}"
    )))
}

/// Judges a document that is not empty, and returns it parsed.
pub(crate) fn judge(
    text: &str,
    site: &Site,
    accounts: &Accounts,
    now: Timestamp,
) -> Result<Map<String, Value>, Refusal> {
    let refuse = || {
        Refusal::new(
            "InvalidTypeException",
            409,
            format!("Error setting policy: [{text}]"),
        )
    };
    let Ok(Value::Object(document)) = serde_json::from_str::<Value>(text) else {
        return Err(refuse());
    };
    let known_keys = document
        .keys()
        .all(|key| matches!(key.as_str(), "Version" | "Id" | "Statement"));
    let version = document
        .get("Version")
        .map(|version| version.as_str().unwrap_or_default());
    if !known_keys || !matches!(version, None | Some("2012-10-17" | "2008-10-17")) {
        return Err(refuse());
    }
    let statements = stored::statements(&document);
    let sound = |statement: &&Value| {
        statement
            .as_object()
            .is_some_and(|statement| is_sound(statement, site, accounts, now))
    };
    // "Blank policies are not allowed" (cloud-custodian#6337): "" is the way to have none.
    if statements.is_empty() || !statements.iter().all(sound) {
        return Err(refuse());
    }
    if site.vpc
        && statements
            .iter()
            .any(|statement| names_source_ip(statement))
    {
        return Err(Refusal::new(
            "InvalidTypeException",
            409,
            "You can’t attach an IP-based policy to a domain that has a VPC endpoint. Instead, use \
            a security group to control IP-based access.",
        ));
    }
    if !site.vpc && !site.fgac && statements.iter().any(|statement| open::is_open(statement)) {
        return Err(Refusal::validation(
            "Enable fine-grained access control or apply a restrictive access policy to your \
            domain",
        ));
    }
    Ok(document)
}

fn is_sound(
    statement: &Map<String, Value>,
    site: &Site,
    accounts: &Accounts,
    now: Timestamp,
) -> bool {
    // NotPrincipal is not among them: the service does not support it.
    let known = |key: &String| {
        matches!(
            key.as_str(),
            "Sid"
                | "Effect"
                | "Principal"
                | "Action"
                | "NotAction"
                | "Resource"
                | "NotResource"
                | "Condition"
        )
    };
    let either =
        |one: &str, other: &str| !(statement.contains_key(one) && statement.contains_key(other));
    let all = |key: &str, rule: &dyn Fn(&str) -> bool| {
        statement.get(key).is_none_or(|value| {
            texts(value).is_some_and(|texts| !texts.is_empty() && texts.into_iter().all(rule))
        })
    };
    let action = |action: &str| is_action(action);
    let resource = |resource: &str| is_of_domain(resource, site);
    statement.keys().all(known)
        && matches!(
            statement.get("Effect").and_then(Value::as_str),
            Some("Allow" | "Deny")
        )
        && statement.get("Sid").is_none_or(Value::is_string)
        && (statement.contains_key("Action") || statement.contains_key("NotAction"))
        && either("Action", "NotAction")
        && either("Resource", "NotResource")
        && all("Action", &action)
        && all("NotAction", &action)
        && all("Resource", &resource)
        && all("NotResource", &resource)
        && statement.get("Principal").is_some_and(|principal| {
            is_principal(principal, &|text| is_known(text, site, accounts, now))
        })
        && statement.get("Condition").is_none_or(is_condition)
}

/// Returns the strings of a scalar or of a list; `None` if anything else is among them.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn is_action(action: &str) -> bool {
    let name_is_sound = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'*' || byte == b'?')
    };
    action == "*"
        || action.split_once(':').is_some_and(|(service, name)| {
            service.eq_ignore_ascii_case("es") && name_is_sound(name)
        })
}

/// Says whether a resource pattern is one of this domain's.
fn is_of_domain(resource: &str, site: &Site) -> bool {
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    let [arn, partition, service, region, account, rest] = parts[..] else {
        return resource == "*";
    };
    let Some(path) = rest.strip_prefix("domain/") else {
        return rest == "*";
    };
    let name = path.split('/').next().unwrap_or(path);
    arn == "arn"
        && partition == site.partition
        && service == "es"
        && (region == site.region || region == "*")
        && (account == site.account || account == "*")
        && matches(name, &site.domain)
}

/// Matches text against a pattern with `*` and `?`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    fn bytes_match(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => bytes_match(rest, text),
            (Some((b'*', rest)), Some((_, tail))) => {
                bytes_match(rest, text) || bytes_match(pattern, tail)
            }
            (Some((wanted, rest)), Some((first, tail))) => {
                (*wanted == b'?' || wanted == first) && bytes_match(rest, tail)
            }
            _ => false,
        }
    }
    bytes_match(pattern.as_bytes(), text.as_bytes())
}

fn is_principal(principal: &Value, known: &dyn Fn(&str) -> bool) -> bool {
    let Some(kinds) = principal.as_object() else {
        return principal.as_str() == Some("*");
    };
    !kinds.is_empty()
        && kinds.iter().all(|(kind, names)| {
            let Some(names) = texts(names).filter(|names| !names.is_empty()) else {
                return false;
            };
            match kind.as_str() {
                // "*" among ARNs is refused (cloudposse PR#30).
                "AWS" => names == ["*"] || names.iter().all(|name| *name != "*" && known(name)),
                "Service" => names.iter().all(|name| name.ends_with(".amazonaws.com")),
                "Federated" => true,
                _ => false,
            }
        })
}

/// Says whether a principal exists as far as the service knows by now.
fn is_known(principal: &str, site: &Site, accounts: &Accounts, now: Timestamp) -> bool {
    let arrived = |found: Option<&super::accounts::Principal>| {
        found.is_some_and(|principal| principal.known_from <= now)
    };
    if accounts.by_unique_id(principal).is_some() {
        return arrived(accounts.by_unique_id(principal));
    }
    let of_deleted = principal.starts_with("AROA") || principal.starts_with("AIDA");
    if of_deleted && site.takes_deleted {
        return true;
    }
    let in_partition = |account: &str| accounts.partition(account) == Some(site.partition.as_str());
    if in_partition(principal) {
        return true;
    }
    let parts: Vec<&str> = principal.splitn(6, ':').collect();
    let ["arn", partition, service, "", account, resource] = parts[..] else {
        return false;
    };
    if partition != site.partition || !in_partition(account) || resource.contains(['*', '?']) {
        return false;
    }
    match (service, resource.split_once('/')) {
        ("iam", None) => resource == "root",
        ("iam", Some(("role" | "user", _))) => arrived(accounts.by_arn(principal)),
        ("sts", Some(("assumed-role", session))) => {
            session.split_once('/').is_some_and(|(role, name)| {
                !name.is_empty() && arrived(accounts.find(account, Kind::Role, role))
            })
        }
        ("sts", Some(("federated-user", name))) => !name.is_empty(),
        _ => false,
    }
}

/// The condition operators of the policy grammar, without their `IfExists` and set prefixes.
const OPERATORS: [&str; 27] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "ArnEquals",
    "ArnNotEquals",
    "ArnLike",
    "ArnNotLike",
    "IpAddress",
    "NotIpAddress",
    "Bool",
    "Null",
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "DateEquals",
    "DateNotEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "BinaryEquals",
];

/// Returns a condition operator without its set prefix and its `IfExists`.
fn bare_operator(operator: &str) -> &str {
    let bare = operator.strip_prefix("ForAllValues:").unwrap_or(operator);
    let bare = bare.strip_prefix("ForAnyValue:").unwrap_or(bare);
    bare.strip_suffix("IfExists").unwrap_or(bare)
}

fn is_condition(condition: &Value) -> bool {
    let scalar = |value: &Value| value.is_string() || value.is_boolean() || value.is_number();
    condition.as_object().is_some_and(|operators| {
        operators.iter().all(|(operator, keys)| {
            let bare = bare_operator(operator);
            let of_addresses = matches!(bare, "IpAddress" | "NotIpAddress");
            let value_is_sound = |value: &Value| {
                scalar(value)
                    && (!of_addresses || value.as_str().and_then(open::Block::parse).is_some())
            };
            OPERATORS.contains(&bare)
                && keys.as_object().is_some_and(|keys| {
                    !keys.is_empty()
                        && keys.iter().all(|(key, values)| {
                            // There are no es: condition keys (Service Authorization Reference).
                            key.contains(':')
                                && !key.to_ascii_lowercase().starts_with("es:")
                                && match values {
                                    Value::Array(values) => values.iter().all(value_is_sound),
                                    value => value_is_sound(value),
                                }
                        })
                })
        })
    })
}

/// Says whether a statement has an IP rule of the kind that VPC domains refuse.
fn names_source_ip(statement: &Value) -> bool {
    statement
        .get("Condition")
        .and_then(Value::as_object)
        .is_some_and(|operators| {
            operators.iter().any(|(operator, keys)| {
                bare_operator(operator) == "IpAddress"
                    && keys.as_object().is_some_and(|keys| {
                        keys.keys()
                            .any(|key| key.eq_ignore_ascii_case("aws:SourceIp"))
                    })
            })
        })
}
