//! The managed service's door: does the access policy let a request in?
//!
//! Written from IAM's evaluation logic, and sharing no code with the operator. What a policy says
//! that this does not understand fails the test: it must never let anybody in by overlooking a
//! bound.

use std::net::IpAddr;

use axum::http::Method;
use ipnet::IpNet;
use serde_json::Value;

/// Who signed a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The user's ARN, or the session's.
    pub(crate) arn: String,
    /// The user's ARN, or that of the role behind the session.
    pub(crate) principal: String,
    pub(crate) account: String,
    pub(crate) access_key_id: String,
    /// What the plugin calls the caller.
    pub(crate) user: String,
    /// The role, of a session.
    pub(crate) backend_role: Option<String>,
}

/// A request at the door.
pub(crate) struct Asked<'a> {
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) source: IpAddr,
}

/// Names the action of a request.
pub(crate) fn action(method: &Method) -> String {
    let method = method.as_str().to_ascii_lowercase();
    let (first, rest) = method.split_at(1);
    format!("es:ESHttp{}{rest}", first.to_ascii_uppercase())
}

/// What a policy says to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    Nothing,
    /// It leaves the word to the account.
    Delegated,
    Allows,
    Denies,
}

/// Decides: `identity` are the identity policies of the caller.
pub(crate) fn lets_in(asked: &Asked<'_>, domain: &str, policy: &str, identity: &[String]) -> bool {
    let own = said(asked, domain, policy, true);
    let identities = identity.iter().map(|it| said(asked, domain, it, false));
    let identities: Vec<Word> = identities.collect();
    if own == Word::Denies || identities.contains(&Word::Denies) {
        return false;
    }
    let by_identity = identities.contains(&Word::Allows);
    let Some(caller) = asked.caller else {
        return own == Word::Allows;
    };
    if domain.split(':').nth(4) == Some(&caller.account) {
        own == Word::Allows || by_identity
    } else {
        matches!(own, Word::Allows | Word::Delegated) && by_identity
    }
}

fn said(asked: &Asked<'_>, domain: &str, policy: &str, of_resource: bool) -> Word {
    if policy.is_empty() {
        return Word::Nothing;
    }
    let document: Value = serde_json::from_str(policy).expect("a policy is JSON");
    let mut word = Word::Nothing;
    for statement in items(&document["Statement"]) {
        let known = [
            "Sid",
            "Effect",
            "Principal",
            "Action",
            "Resource",
            "Condition",
        ];
        let members = statement.as_object().expect("a statement is an object");
        let odd = members.keys().find(|it| !known.contains(&it.as_str()));
        assert!(odd.is_none(), "the gateway does not know {odd:?}");
        let names = match &statement["Principal"] {
            Value::Object(kinds) => texts(&kinds["AWS"]),
            one => texts(one),
        };
        let meant = names.into_iter().map(|name| meant(asked.caller, name));
        let meant = if of_resource {
            meant.max().unwrap_or(Meant::Not)
        } else {
            Meant::Exactly
        };
        let resource = format!("{domain}{}", asked.path);
        let about = texts(&statement["Action"])
            .into_iter()
            .any(|it| like(&it.to_lowercase(), &action(asked.method).to_lowercase()))
            && texts(&statement["Resource"])
                .into_iter()
                .any(|it| like(it, &resource));
        if meant == Meant::Not || !about || !holds(&statement["Condition"], asked) {
            continue;
        }
        match (statement["Effect"].as_str(), meant) {
            (Some("Allow"), Meant::ByAccount) if word == Word::Nothing => word = Word::Delegated,
            (Some("Allow"), Meant::ByAccount) => {}
            (Some("Allow"), _) => word = Word::Allows,
            _ => return Word::Denies,
        }
    }
    word
}

/// How a principal of a policy stands to a caller.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Meant {
    Not,
    ByAccount,
    Exactly,
}

fn meant(caller: Option<&Caller>, name: &str) -> Meant {
    match caller {
        _ if name == "*" => Meant::Exactly,
        Some(it) if name == it.arn || name == it.principal => Meant::Exactly,
        Some(it) if name == it.account || name.ends_with(&format!("::{}:root", it.account)) => {
            Meant::ByAccount
        }
        _ => Meant::Not,
    }
}

fn holds(condition: &Value, asked: &Asked<'_>) -> bool {
    let tests = condition.as_object().into_iter().flatten();
    tests.into_iter().all(|(operator, keys)| {
        let keys = keys.as_object().expect("a test has keys");
        keys.iter().all(|(key, wanted)| {
            let account = asked.caller.map(|caller| caller.account.as_str());
            match (operator.as_str(), key.as_str()) {
                ("IpAddress", "aws:SourceIp") => {
                    texts(wanted).into_iter().any(|it| within(asked, it))
                }
                ("NotIpAddress", "aws:SourceIp") => {
                    !texts(wanted).into_iter().any(|it| within(asked, it))
                }
                ("StringEquals", "aws:PrincipalAccount") => {
                    texts(wanted).into_iter().any(|it| Some(it) == account)
                }
                other => panic!("the gateway does not know the condition {other:?}"),
            }
        })
    })
}

fn within(asked: &Asked<'_>, block: &str) -> bool {
    let block = block
        .parse::<IpNet>()
        .unwrap_or_else(|_| IpNet::from(block.parse::<IpAddr>().expect("an address")));
    block.contains(&asked.source)
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn texts(value: &Value) -> Vec<&str> {
    items(value).into_iter().filter_map(Value::as_str).collect()
}

/// Matches by `*` and `?`, without going back further than the last `*`.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
