//! Condition blocks: AND over operators and keys, OR over values, three-valued where the request
//! leaves a key open.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::{Truth, all, any};
use crate::policy::{address, glob};

/// The keys that the service ignores (developer guide, access control): a denial that rests on one
/// never fires.
const IGNORED: [&str; 2] = ["aws:securetransport", "aws:principaltag/"];

/// What is known of one key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The key has these values.
    Values(Vec<String>),
    /// The request does not have the key.
    Absent,
}

/// What is known of a request's keys; a key that is not here is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context(BTreeMap<String, Known>);

impl Context {
    /// Says that a key has a value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0
            .insert(key.to_ascii_lowercase(), Known::Values(vec![value.into()]));
    }

    /// Says that a key has one more value.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        let known = self.0.entry(key.to_ascii_lowercase());
        match known.or_insert(Known::Absent) {
            Known::Values(values) => values.push(value.into()),
            absent @ Known::Absent => *absent = Known::Values(vec![value.into()]),
        }
    }

    /// Says that a key has a value, unless something is known of it.
    pub fn set_default(&mut self, key: &str, value: &str) {
        let known = || Known::Values(vec![value.to_owned()]);
        self.0.entry(key.to_ascii_lowercase()).or_insert_with(known);
    }

    /// Says that the request does not have a key.
    pub fn set_absent(&mut self, key: &str) {
        self.0.insert(key.to_ascii_lowercase(), Known::Absent);
    }

    fn get(&self, key: &str) -> Option<&Known> {
        self.0.get(&key.to_ascii_lowercase())
    }
}

/// Tells whether a statement's condition block holds; `variables` tells whether `${...}` in a value
/// stands for something that nobody can tell.
pub(in crate::policy) fn holds(
    block: Option<&Value>,
    context: &Context,
    denies: bool,
    variables: bool,
) -> Truth {
    let Some(block) = block else {
        return Some(true);
    };
    let Value::Object(operators) = block else {
        return None;
    };
    all(operators.iter().map(|(operator, keys)| {
        let Value::Object(keys) = keys else {
            return None;
        };
        all(keys.iter().map(|(key, values)| {
            let lower = key.to_ascii_lowercase();
            if IGNORED.iter().any(|ignored| lower.starts_with(ignored)) {
                return if denies { Some(false) } else { None };
            }
            let values: Vec<String> = match values {
                Value::Array(many) => many.iter().map(text).collect(),
                one => vec![text(one)],
            };
            if variables && values.iter().any(|value| value.contains("${")) {
                return None;
            }
            test(operator, context.get(key), &values)
        }))
    }))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn test(operator: &str, known: Option<&Known>, values: &[String]) -> Truth {
    let lower = operator.to_ascii_lowercase();
    let (quantifier, name) = match lower.split_once(':') {
        Some((quantifier, name)) => (Some(quantifier), name),
        None => (None, lower.as_str()),
    };
    let (name, if_exists) = match name.strip_suffix("ifexists") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let known = known?;
    if name == "null" {
        let absent = *known == Known::Absent;
        return any(values.iter().map(|value| match value.as_str() {
            "true" => Some(absent),
            "false" => Some(!absent),
            _ => None,
        }));
    }
    let negated = name.contains("not");
    let Known::Values(present) = known else {
        return Some(match quantifier {
            Some("forallvalues") => true,
            Some("foranyvalue") => if_exists,
            _ => if_exists || negated,
        });
    };
    let one = |have: &String| -> Truth {
        let matched = any(values
            .iter()
            .map(|wanted| compare(&name.replace("not", ""), have, wanted)));
        if negated {
            matched.map(|matched| !matched)
        } else {
            matched
        }
    };
    match quantifier {
        None if negated => all(present.iter().map(one)),
        None | Some("foranyvalue") => any(present.iter().map(one)),
        Some("forallvalues") => all(present.iter().map(one)),
        Some(_) => None,
    }
}

/// Compares one value by a positive operator; `None` for an operator or a value that is not known.
fn compare(operator: &str, have: &str, wanted: &str) -> Truth {
    match operator {
        "stringequals" | "binaryequals" => Some(have == wanted),
        "stringequalsignorecase" => Some(have.to_lowercase() == wanted.to_lowercase()),
        "stringlike" => Some(glob::matches(wanted, have)),
        "arnequals" | "arnlike" => Some(arn_like(wanted, have)),
        "ipaddress" => {
            let (block, address) = (address::parse(wanted)?, have.parse::<IpAddr>().ok()?);
            Some(block.contains(&address))
        }
        "bool" => Some(have.eq_ignore_ascii_case(wanted)),
        _ => {
            let (kind, relation) = operator
                .strip_prefix("numeric")
                .map(|relation| ("numeric", relation))
                .or_else(|| {
                    operator
                        .strip_prefix("date")
                        .map(|relation| ("date", relation))
                })?;
            let order = if kind == "numeric" {
                have.parse::<f64>()
                    .ok()?
                    .partial_cmp(&wanted.parse::<f64>().ok()?)?
            } else {
                have.parse::<Timestamp>()
                    .ok()?
                    .cmp(&wanted.parse::<Timestamp>().ok()?)
            };
            match relation {
                "equals" => Some(order.is_eq()),
                "lessthan" => Some(order.is_lt()),
                "lessthanequals" => Some(order.is_le()),
                "greaterthan" => Some(order.is_gt()),
                "greaterthanequals" => Some(order.is_ge()),
                _ => None,
            }
        }
    }
}

/// Matches an ARN part by part: a wildcard does not reach past a colon, but in the last part.
fn arn_like(pattern: &str, arn: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if glob::matches(pattern, part) => {}
            _ => return false,
        }
    }
}
