//! The rules on conditions.

use ipnet::IpNet;
use serde_json::Value;

use super::statement::{Place, texts};
use crate::policy::address;
use crate::policy::document::Statement;

const ELEMENT: &str = "Condition";

/// The keys that the service ignores (developer guide, access control).
const IGNORED: [&str; 2] = ["aws:securetransport", "aws:principaltag/"];

/// The keys that say who calls, or from where; in lower case.
const RESTRICTING: [&str; 9] = [
    "aws:sourceip",
    "aws:vpcsourceip",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:principalarn",
    "aws:principalaccount",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:userid",
];

/// The operators of IAM, in lower case and without quantifier and `IfExists`.
const OPERATORS: [&str; 27] = [
    "stringequals",
    "stringnotequals",
    "stringequalsignorecase",
    "stringnotequalsignorecase",
    "stringlike",
    "stringnotlike",
    "numericequals",
    "numericnotequals",
    "numericlessthan",
    "numericlessthanequals",
    "numericgreaterthan",
    "numericgreaterthanequals",
    "dateequals",
    "datenotequals",
    "datelessthan",
    "datelessthanequals",
    "dategreaterthan",
    "dategreaterthanequals",
    "bool",
    "binaryequals",
    "ipaddress",
    "notipaddress",
    "arnequals",
    "arnlike",
    "arnnotequals",
    "arnnotlike",
    "null",
];

/// One operator with one key.
struct Test<'a> {
    operator: String,
    for_all: bool,
    if_exists: bool,
    spelled: &'a str,
    key: &'a str,
    values: Vec<&'a str>,
}

impl Test<'_> {
    fn is_about(&self, keys: &[&str]) -> bool {
        let key = self.key.to_ascii_lowercase();
        keys.iter().any(|it| match it.strip_suffix('/') {
            Some(_) => key.starts_with(it),
            None => key == *it,
        })
    }

    fn addresses(&self) -> Vec<Option<IpNet>> {
        self.values
            .iter()
            .map(|text| address::parse(text))
            .collect()
    }
}

fn tests(statement: &Statement) -> Vec<Test<'_>> {
    let operators = statement.members().get(ELEMENT).and_then(Value::as_object);
    let operators = operators.into_iter().flatten();
    let tests = operators.flat_map(|(spelled, keys)| {
        let lower = spelled.to_ascii_lowercase();
        let (quantifier, name) = match lower.split_once(':') {
            Some((quantifier, name)) => (quantifier.to_owned(), name.to_owned()),
            None => (String::new(), lower),
        };
        let stem = name.strip_suffix("ifexists").map(ToOwned::to_owned);
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, values)| Test {
            for_all: quantifier == "forallvalues",
            if_exists: stem.is_some(),
            operator: stem.clone().unwrap_or_else(|| name.clone()),
            spelled,
            key,
            values: texts(Some(values)),
        })
    });
    tests.collect()
}

/// Checks the conditions of a statement.
pub(super) fn check(statement: &Statement, place: &mut Place<'_>) {
    for test in tests(statement) {
        let Test { spelled, key, .. } = test;
        if !OPERATORS.contains(&test.operator.as_str()) {
            let message = format!("{spelled:?} is no condition operator: AWS refuses the policy");
            place.error("operator", ELEMENT, message);
        }
        if test.is_about(&IGNORED) {
            let message = if statement.denies() {
                format!(
                    "the service does not support {key}, so the denial never applies: for TLS set enforceHTTPS on the domain, for tags deny by principal"
                )
            } else {
                format!("the service does not support {key}: use another condition")
            };
            place.error("ignored-key", ELEMENT, message);
        }
        if !statement.denies() && (test.if_exists || test.for_all) {
            let message = format!(
                "{spelled:?} holds for every request without {key}, so it keeps nobody out who leaves it away: use the operator without it"
            );
            place.warning("vacuous", ELEMENT, message);
        }
        if test.operator.ends_with("ipaddress") {
            for (text, block) in test.values.iter().zip(test.addresses()) {
                match block {
                    None => place.error(
                        "address",
                        ELEMENT,
                        format!(
                            "{text:?} is not an IP address or a CIDR block, such as 203.0.113.0/24"
                        ),
                    ),
                    Some(block)
                        if test.is_about(&["aws:sourceip"]) && address::is_private(block) =>
                    {
                        place.warning("private-address", ELEMENT, super::private(text));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// Tells whether a condition bounds who may come, or from where.
pub(super) fn restricts(statement: &Statement) -> bool {
    tests(statement).iter().any(|test| {
        let positive = !test.operator.contains("not") && test.operator != "null";
        let bounded = match test.operator.as_str() {
            "ipaddress" => {
                let blocks: Option<Vec<IpNet>> = test.addresses().into_iter().collect();
                blocks.is_some_and(|blocks| !address::is_public(&blocks))
            }
            _ => !test.values.contains(&"*"),
        };
        positive && bounded && !test.if_exists && !test.for_all && test.is_about(&RESTRICTING)
    })
}
