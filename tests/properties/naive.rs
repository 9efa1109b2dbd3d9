//! What a policy means, worked out a second time: slowly, plainly, and apart from the crate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The domain of every policy here.
pub(crate) const DOMAIN: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs";

/// The actions of the data plane.
pub(crate) const ACTIONS: [&str; 7] = [
    "es:ESHttpGet",
    "es:ESHttpHead",
    "es:ESHttpPost",
    "es:ESHttpPut",
    "es:ESHttpPatch",
    "es:ESHttpDelete",
    "es:ESCrossClusterGet",
];

/// One principal, one action, one resource, under one condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Atom {
    pub(crate) effect: String,
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) condition: BTreeSet<(String, String, BTreeSet<String>)>,
}

/// Matches a pattern by the definition of `*` and `?`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    fn walk(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| walk(rest, &text[n..])),
            Some((b'?', rest)) => !text.is_empty() && walk(rest, &text[1..]),
            Some((byte, rest)) => text.first() == Some(byte) && walk(rest, &text[1..]),
        }
    }
    walk(pattern.as_bytes(), text.as_bytes())
}

/// Returns the items of a list, or the one that stands for a list.
pub(crate) fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().collect(),
        one => vec![one],
    }
}

/// Returns the texts of a list, or of the one that stands for a list.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    each(value).into_iter().map(text).collect()
}

/// Takes a statement apart; `None` where it is more than grants can say.
pub(crate) fn atoms_of(statement: &Value) -> Option<BTreeSet<Atom>> {
    let known = [
        "Sid",
        "Effect",
        "Principal",
        "Action",
        "Resource",
        "Condition",
    ];
    let members = statement.as_object()?;
    if statement["Effect"] != "Allow" && statement["Effect"] != "Deny" {
        return None;
    }
    if members.keys().any(|key| !known.contains(&key.as_str())) {
        return None;
    }
    let principals = match &statement["Principal"] {
        Value::String(text) if text == "*" => vec!["*".to_owned()],
        Value::Object(kinds) if kinds.len() == 1 => texts(kinds.get("AWS")?),
        _ => return None,
    };
    let mut actions = BTreeSet::new();
    for pattern in texts(&statement["Action"]) {
        let pattern = pattern.to_lowercase();
        let found = ACTIONS
            .iter()
            .filter(|it| matches(&pattern, &it.to_lowercase()));
        let before = actions.len();
        actions.extend(found.map(|it| (*it).to_owned()));
        if actions.len() == before
            && !ACTIONS
                .iter()
                .any(|it| matches(&pattern, &it.to_lowercase()))
        {
            return None;
        }
    }
    let resources = match statement.get("Resource") {
        None => vec![format!("{DOMAIN}/*")],
        Some(resources) => texts(resources),
    };
    let mut atoms = BTreeSet::new();
    for principal in &principals {
        let is_account = principal.len() == 12 && principal.bytes().all(|b| b.is_ascii_digit());
        for action in &actions {
            for resource in &resources {
                let of_domain = action == "es:ESCrossClusterGet";
                let idle = (resource == DOMAIN && !of_domain)
                    || (resource.starts_with(&format!("{DOMAIN}/")) && of_domain);
                if !idle {
                    atoms.insert(Atom {
                        effect: statement["Effect"].as_str()?.to_owned(),
                        principal: if is_account {
                            format!("arn:aws:iam::{principal}:root")
                        } else {
                            principal.clone()
                        },
                        action: action.clone(),
                        resource: resource.clone(),
                        condition: condition(&statement["Condition"]),
                    });
                }
            }
        }
    }
    Some(atoms)
}

fn condition(block: &Value) -> BTreeSet<(String, String, BTreeSet<String>)> {
    let mut parts = BTreeSet::new();
    for (operator, keys) in block.as_object().into_iter().flatten() {
        for (key, values) in keys.as_object().unwrap() {
            let values = texts(values).into_iter().map(|text| {
                if operator.contains("IpAddress") {
                    address(&text)
                } else {
                    text
                }
            });
            parts.insert((operator.clone(), key.to_lowercase(), values.collect()));
        }
    }
    parts
}

/// Spells an address or a block in one way: first address and prefix length.
fn address(text: &str) -> String {
    use std::net::IpAddr;
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(address) => {
            let length: u32 = if length.is_empty() {
                32
            } else {
                length.parse().unwrap()
            };
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", u32::from(address) & mask)
        }
        IpAddr::V6(address) => {
            let length: u32 = if length.is_empty() {
                128
            } else {
                length.parse().unwrap()
            };
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            format!("{}/{length}", u128::from(address) & mask)
        }
    }
}

/// The atoms of a document, and the statements that have none, each as a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meaning {
    pub(crate) atoms: BTreeSet<Atom>,
    pub(crate) whole: BTreeSet<String>,
}

/// Reads a document.
pub(crate) fn meaning(document: &Value) -> Meaning {
    let mut meaning = Meaning::default();
    for statement in each(&document["Statement"]) {
        match atoms_of(statement) {
            Some(atoms) => meaning.atoms.extend(atoms),
            None => {
                meaning.whole.insert(statement.to_string());
            }
        }
    }
    meaning
}

/// What is known of a request: keys in lower case; no values: the request does not have the key.
pub(crate) type Keys = BTreeMap<String, Vec<String>>;

/// A request of which everything is known.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) principal: Option<String>,
    pub(crate) action: String,
    pub(crate) path: String,
    pub(crate) keys: Keys,
}

/// How a principal of a policy stands to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Not,
    ByAccount,
    Firmly,
}

fn cover(name: &str, caller: Option<&str>) -> Cover {
    let Some(caller) = caller else {
        return if name == "*" {
            Cover::Firmly
        } else {
            Cover::Not
        };
    };
    let account = caller.split(':').nth(4).unwrap();
    let session = caller
        .split_once(":assumed-role/")
        .map(|(_, rest)| rest.split('/').next().unwrap());
    let role_of_session = session.map(|role| format!("arn:aws:iam::{account}:role/{role}"));
    if name == "*" || name == caller || Some(name) == role_of_session.as_deref() {
        Cover::Firmly
    } else if name == account || name == format!("arn:aws:iam::{account}:root") {
        Cover::ByAccount
    } else {
        Cover::Not
    }
}

/// Tells whether a condition block holds.
fn holds(block: &Value, keys: &Keys) -> bool {
    let tests = block.as_object().into_iter().flatten();
    tests.into_iter().all(|(operator, tested)| {
        let tested = tested.as_object().unwrap();
        tested.iter().all(|(key, wanted)| {
            let have = keys.get(&key.to_lowercase()).map_or(&[][..], Vec::as_slice);
            holds_one(operator, have, &texts(wanted))
        })
    })
}

fn holds_one(operator: &str, have: &[String], wanted: &[String]) -> bool {
    if operator == "Null" {
        return wanted.iter().any(|it| (it == "true") == have.is_empty());
    }
    let (quantifier, name) = operator.split_once(':').unwrap_or(("", operator));
    let if_exists = name.ends_with("IfExists");
    let name = name.trim_end_matches("IfExists");
    let negated = name.contains("Not");
    if have.is_empty() {
        return match quantifier {
            "ForAllValues" => true,
            "ForAnyValue" => if_exists,
            _ => if_exists || negated,
        };
    }
    let like = |have: &String, wanted: &String| match name {
        "StringEquals" | "StringNotEquals" => have == wanted,
        "StringLike" | "StringNotLike" => matches(wanted, have),
        "IpAddress" | "NotIpAddress" => {
            let length = wanted.split_once('/').map_or("32", |(_, length)| length);
            address(&format!("{have}/{length}")) == address(wanted)
        }
        other => panic!("no naive {other}"),
    };
    let one = |it: &String| wanted.iter().any(|wanted| like(it, wanted)) != negated;
    match quantifier {
        "ForAnyValue" => have.iter().any(one),
        "ForAllValues" => have.iter().all(one),
        _ if negated => have.iter().all(one),
        _ => have.iter().any(one),
    }
}

/// Tells whether a statement's action and resource match a request.
fn is_about(statement: &Value, request: &Request) -> bool {
    let listed = |element: &str, text: &str, fold: bool| {
        texts(&statement[element]).iter().any(|pattern| {
            if fold {
                matches(&pattern.to_lowercase(), &text.to_lowercase())
            } else {
                matches(pattern, text)
            }
        })
    };
    let resource = if request.action == "es:ESCrossClusterGet" {
        DOMAIN.to_owned()
    } else {
        format!("{DOMAIN}{}", request.path)
    };
    let action = if statement.get("NotAction").is_some() {
        !listed("NotAction", &request.action, true)
    } else {
        listed("Action", &request.action, true)
    };
    let resource = match (statement.get("Resource"), statement.get("NotResource")) {
        (None, None) => resource != DOMAIN,
        (None, Some(_)) => !listed("NotResource", &resource, false),
        _ => listed("Resource", &resource, false),
    };
    action && resource
}

/// Decides a request of which everything is known: `Allow`, `Deny`, or `Unknown` where IAM has a say.
pub(crate) fn decide(document: &Value, request: &Request) -> &'static str {
    let caller = request.principal.as_deref();
    let account = caller.map_or("111122223333", |arn| arn.split(':').nth(4).unwrap());
    let (mut firmly, mut by_account) = (false, false);
    for statement in each(&document["Statement"]) {
        let names = match &statement["Principal"] {
            Value::Object(kinds) => kinds.get("AWS").map(texts).unwrap_or_default(),
            one => texts(one),
        };
        let covers: Vec<Cover> = names.iter().map(|name| cover(name, caller)).collect();
        let covered = covers.iter().any(|it| *it != Cover::Not);
        if !covered
            || !is_about(statement, request)
            || !holds(&statement["Condition"], &request.keys)
        {
            continue;
        }
        if statement["Effect"] != "Allow" {
            return "Deny";
        }
        firmly |= covers.contains(&Cover::Firmly);
        by_account |= covers.contains(&Cover::ByAccount);
    }
    match (account == "111122223333", firmly, by_account) {
        (true, true, _) => "Allow",
        (false, false, false) => "Deny",
        (true, false, false) if caller.is_none() => "Deny",
        _ => "Unknown",
    }
}
