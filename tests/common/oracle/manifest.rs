//! What a manifest asks for, by the tables that its author reads, and whether the domain's admin
//! has consented to it.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Where a reader may POST, below a path.
const READS: [&str; 8] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_field_caps",
    "_validate/query",
    "_explain/*",
    "_search/point_in_time",
];
const EVERY_METHOD: [&str; 6] = [
    "es:ESHttpGet",
    "es:ESHttpHead",
    "es:ESHttpPost",
    "es:ESHttpPut",
    "es:ESHttpPatch",
    "es:ESHttpDelete",
];
const CROSS_CLUSTER: &str = "es:ESCrossClusterGet";

/// Returns the statements that a grant's spec asks for on a domain.
pub(crate) fn statements(spec: &Value, domain: &Value, fine_grained: bool) -> Vec<Value> {
    let arn = format!(
        "arn:aws:es:{}:{}:domain/{}",
        text(&domain["region"]),
        text(&domain["accountId"]),
        text(&domain["domainName"])
    );
    let mut found = Vec::new();
    for (actions, resource) in rules(spec, fine_grained) {
        let resource = resource.map_or(arn.clone(), |path| format!("{arn}/{path}"));
        for principal in list(&spec["principals"]) {
            let mut statement = json!({
                "Effect": "Allow",
                "Principal": {"AWS": spelled(principal)},
                "Action": actions,
                "Resource": resource,
            });
            let condition = condition(&spec["conditions"]);
            if condition != json!({}) {
                statement["Condition"] = condition;
            }
            found.push(statement);
        }
    }
    found
}

/// Returns the pairs of a role and a principal that a grant's spec asks for.
pub(crate) fn mapped(spec: &Value) -> Vec<(String, String)> {
    let roles = list(&spec["securityRoles"]).map(text);
    roles
        .flat_map(|role| {
            let principals = list(&spec["principals"]);
            principals.map(move |principal| (role.clone(), spelled(principal)))
        })
        .collect()
}

fn spelled(principal: &Value) -> String {
    let account = &principal["account"]["id"];
    if let Some(account) = account.as_str() {
        return format!("arn:aws:iam::{account}:root");
    }
    let arn = [&principal["iamRole"]["arn"], &principal["iamUser"]["arn"]];
    let arn = arn.into_iter().find_map(Value::as_str);
    arn.unwrap_or("*").to_owned()
}

/// Returns which actions on which paths; `None` stands for the domain itself.
fn rules(spec: &Value, fine_grained: bool) -> Vec<(Vec<String>, Option<String>)> {
    let paths: Vec<&str> = list(&spec["paths"]).filter_map(Value::as_str).collect();
    let whole = paths.is_empty();
    let of =
        |actions: &[&str]| -> Vec<String> { actions.iter().map(|&it| it.to_owned()).collect() };
    let covered: Vec<String> = match &paths[..] {
        [] => vec!["*".to_owned()],
        paths => paths.iter().flat_map(|path| below(path)).collect(),
    };
    let on_paths = |actions: &[&str]| {
        let each = covered.iter().map(|path| (of(actions), Some(path.clone())));
        each.collect::<Vec<_>>()
    };
    let post = |path: &str| (of(&["es:ESHttpPost"]), Some(path.to_owned()));
    let mut found = match spec["access"].as_str() {
        Some("Admin") => on_paths(&EVERY_METHOD),
        Some("ReadWrite") => {
            let mut found = on_paths(&EVERY_METHOD);
            found.push(post("_search/scroll"));
            found
        }
        Some("Read") => {
            let mut found = on_paths(&["es:ESHttpGet", "es:ESHttpHead"]);
            if whole {
                // Without an index, too; an explanation and a point in time need one.
                found.extend(READS[..6].iter().map(|read| post(read)));
                found.extend(READS.iter().map(|read| post(&format!("*/{read}"))));
            }
            for path in &paths {
                match path.split_once('/') {
                    None => found.extend(READS.iter().map(|read| post(&format!("{path}/{read}")))),
                    Some((_, end)) if READS.contains(&end) => found.push(post(path)),
                    Some(_) => {}
                }
            }
            found.push(post("_search/scroll"));
            found
        }
        _ => {
            let named: Vec<&str> = list(&spec["actions"]).filter_map(Value::as_str).collect();
            let http: Vec<&str> = named
                .iter()
                .copied()
                .filter(|it| *it != CROSS_CLUSTER)
                .collect();
            let mut found = if http.is_empty() {
                Vec::new()
            } else {
                on_paths(&http)
            };
            if named.contains(&CROSS_CLUSTER) {
                found.push((of(&[CROSS_CLUSTER]), None));
            }
            found
        }
    };
    // Calls that name their indexes in the body pass a path rule by; something else checks them.
    let level = spec["access"].as_str();
    if !whole && fine_grained && matches!(level, Some("Read" | "ReadWrite")) {
        found.extend(["_search", "_msearch", "_mget"].map(post));
        if level == Some("ReadWrite") {
            found.push((
                of(&["es:ESHttpPost", "es:ESHttpPut"]),
                Some("_bulk".to_owned()),
            ));
        }
    }
    found
}

/// A path means what is below it, too, as `index/*` alone would miss the index itself.
fn below(path: &str) -> Vec<String> {
    if path.ends_with('*') {
        return vec![path.to_owned()];
    }
    vec![path.to_owned(), format!("{path}/*")]
}

fn condition(conditions: &Value) -> Value {
    let keys = [
        ("sourceIps", "IpAddress", "aws:SourceIp"),
        ("principalOrgIds", "StringEquals", "aws:PrincipalOrgID"),
        ("principalAccounts", "StringEquals", "aws:PrincipalAccount"),
        ("sourceVpcs", "StringEquals", "aws:SourceVpc"),
        ("sourceVpces", "StringEquals", "aws:SourceVpce"),
    ];
    let mut condition = json!({});
    for (field, operator, key) in keys {
        if list(&conditions[field]).next().is_some() {
            condition[operator][key] = conditions[field].clone();
        }
    }
    condition
}

/// Says from when and until when a grant is authorised by a domain's consent, if it is at all; the
/// first and the last of all times mean without a beginning and without an end.
///
/// # Panics
///
/// On a consent that this model does not understand: it must never call something authorised by
/// overlooking a bound.
pub(crate) fn authorised(grant: &Value, domain: &Value) -> Option<(Timestamp, Timestamp)> {
    let (spec, namespace) = (&grant["spec"], text(&grant["metadata"]["namespace"]));
    let entry = list(&domain["consent"]).find(|entry| {
        assert!(
            entry["namespaceSelector"].is_null(),
            "the oracle knows no selectors"
        );
        list(&entry["namespaces"]).any(|it| it == &namespace)
    })?;
    let ceiling = entry["ceiling"].as_object().cloned().unwrap_or_default();
    let mut ends: Vec<Timestamp> = Vec::new();
    let mut begin = Timestamp::MIN;
    ends.extend(
        spec["expiresAt"]
            .as_str()
            .and_then(|it| it.parse::<Timestamp>().ok()),
    );
    for (bound, value) in &ceiling {
        let within = match bound.as_str() {
            "access" => rank(&spec["access"]) <= rank(value),
            "paths" => is_under(spec, value, &namespace),
            "sourceIps" => {
                let mut asked = list(&spec["conditions"]["sourceIps"]).map(block);
                asked.all(|it| list(value).any(|bound| block(bound).contains(&it)))
            }
            "securityRoles" => {
                list(&spec["securityRoles"]).all(|it| is_like(it, value, &namespace))
            }
            "identityPolicies" => value == true || spec["identityPolicy"] != "Attach",
            // Who comes last; how many grants there may be is no question of one.
            "principals" | "anonymous" | "maxGrants" => true,
            "maxDuration" => {
                let created = text(&grant["metadata"]["creationTimestamp"]);
                match (ends.first(), created.parse::<Timestamp>()) {
                    // It may not end further ahead than that.
                    (Some(end), _) => begin = *end - hours(value),
                    (None, Ok(created)) => ends.push(created + hours(value)),
                    (None, Err(_)) => {}
                }
                true
            }
            other => panic!("the oracle does not know ceilings of {other}"),
        };
        if !within {
            return None;
        }
    }
    let maps = list(&spec["securityRoles"]).next().is_some();
    if maps && !ceiling.contains_key("securityRoles") {
        return None;
    }
    let nobody = json!({});
    let named = ceiling.get("principals").unwrap_or(&nobody);
    if !list(&spec["principals"]).all(|it| is_of(it, named, &namespace)) {
        return None;
    }
    let unsigned = list(&spec["principals"]).any(|it| !it["anonymous"].is_null());
    let allowed = ceiling.get("anonymous") == Some(&Value::Bool(true));
    let end = ends.into_iter().min().unwrap_or(Timestamp::MAX);
    (!unsigned || allowed).then_some((begin, end))
}

/// Tells whether a role is among those that a ceiling names, in full or up to a `*`.
fn is_like(role: &Value, bounds: &Value, namespace: &str) -> bool {
    let role = text(role);
    let protected = ["all_access", "security_manager"].contains(&role.as_str());
    list(bounds).filter_map(Value::as_str).any(|bound| {
        let bound = bound.replace("{{namespace}}", namespace);
        match bound.strip_suffix('*') {
            Some(start) => !protected && role.starts_with(start),
            None => role == bound,
        }
    })
}

/// Exact actions are none too many where everything is allowed.
fn rank(access: &Value) -> u8 {
    match access.as_str() {
        Some("Read") => 1,
        Some("ReadWrite") => 2,
        _ => 3,
    }
}

fn is_under(spec: &Value, bounds: &Value, namespace: &str) -> bool {
    let mut paths = list(&spec["paths"]).filter_map(Value::as_str).peekable();
    paths.peek().is_some()
        && paths.all(|path| {
            list(bounds).filter_map(Value::as_str).any(|bound| {
                let bound = bound.replace("{{namespace}}", namespace);
                let start = bound.strip_suffix('*');
                start.map_or(path == bound, |start| path.starts_with(start))
            })
        })
}

fn is_of(principal: &Value, bounds: &Value, namespace: &str) -> bool {
    let bounds_known = ["accounts", "arns", "wholeAccounts"];
    let members = bounds.as_object().into_iter().flatten();
    for (bound, _) in members {
        assert!(
            bounds_known.contains(&bound.as_str()),
            "the oracle does not know principals.{bound}"
        );
    }
    if !principal["anonymous"].is_null() {
        return true;
    }
    if let Some(account) = principal["account"]["id"].as_str() {
        return list(&bounds["wholeAccounts"]).any(|it| it == account);
    }
    let arn = spelled(principal);
    let account = arn.split(':').nth(4).unwrap_or_default();
    list(&bounds["accounts"]).any(|it| it == account)
        || list(&bounds["arns"])
            .filter_map(Value::as_str)
            .any(|pattern| {
                let pattern = pattern.replace("{{namespace}}", namespace);
                let start = pattern.strip_suffix('*');
                start.map_or(arn == pattern, |start| arn.starts_with(start))
            })
}

/// Reads a block of addresses; a single address is one, too.
fn block(address: &Value) -> IpNet {
    let text = text(address);
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let block = text.parse().or_else(|_| single());
    block.unwrap_or_else(|_| panic!("the oracle cannot read the address {text}"))
}

fn hours(duration: &Value) -> SignedDuration {
    let (text, hours) = (text(duration), SignedDuration::from_hours);
    let number = |unit: char| text.strip_suffix(unit)?.parse::<i64>().ok();
    let days = number('d').map(|days| hours(24 * days));
    days.or_else(|| number('h').map(hours))
        .unwrap_or_else(|| panic!("the oracle knows days and hours, not {text}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
