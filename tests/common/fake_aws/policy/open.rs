//! Decides whether a statement opens a domain to everybody.
//!
//! A public domain without fine-grained access control must have "some restriction, either by
//! principal or IP address". What counts as one beyond an address block is not documented; this
//! takes a positive condition on a key that names a caller or a network, with at least one value
//! that is not a mere wildcard, and blocks that leave some address out.

use std::net::IpAddr;

use serde_json::Value;

/// A block of addresses: IPv4 or IPv6, with the first and the last address as numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Block {
    six: bool,
    first: u128,
    last: u128,
}

impl Block {
    /// Reads a CIDR, or an address as a block of one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let (six, width, number): (bool, u32, u128) = match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(four) => (false, 32, u128::from(four.to_bits())),
            IpAddr::V6(six) => (true, 128, six.to_bits()),
        };
        let free = u32::checked_sub(width, length.unwrap_or(width))?;
        let hosts = if free == 128 {
            u128::MAX
        } else {
            (1 << free) - 1
        };
        let first = number & !hosts;
        Some(Self {
            six,
            first,
            last: first | hosts,
        })
    }
}

/// Says whether the blocks together leave no IPv4 address, or no IPv6 address, out.
fn cover_everything(blocks: &[Block]) -> bool {
    [(false, u128::from(u32::MAX)), (true, u128::MAX)]
        .into_iter()
        .any(|(six, end)| {
            let mut family: Vec<&Block> = blocks.iter().filter(|block| block.six == six).collect();
            family.sort_by_key(|block| block.first);
            let mut next = Some(0);
            for block in family {
                match next {
                    Some(uncovered) if block.first > uncovered => return false,
                    Some(uncovered) if block.last >= uncovered => {
                        next = block.last.checked_add(1).filter(|next| *next <= end);
                    }
                    _ => {}
                }
            }
            next.is_none()
        })
}

/// Says whether the statement allows everybody with nothing to restrict it.
pub(crate) fn is_open(statement: &Value) -> bool {
    let everybody = match &statement["Principal"] {
        Value::String(text) => text == "*",
        Value::Object(kinds) => match kinds.get("AWS") {
            Some(Value::Array(names)) => names.iter().any(|name| name == "*"),
            Some(name) => name == "*",
            None => false,
        },
        _ => false,
    };
    let restricted = statement["Condition"].as_object().is_some_and(|operators| {
        operators.iter().any(|(operator, keys)| {
            keys.as_object().is_some_and(|keys| {
                keys.iter()
                    .any(|(key, values)| restricts(operator, key, values))
            })
        })
    });
    statement["Effect"] == "Allow" && everybody && !restricted
}

fn restricts(operator: &str, key: &str, values: &Value) -> bool {
    let values: Vec<&str> = match values {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    };
    let key = key.to_ascii_lowercase();
    match operator {
        "IpAddress" => {
            let blocks: Vec<Block> = values
                .iter()
                .filter_map(|value| Block::parse(value))
                .collect();
            matches!(key.as_str(), "aws:sourceip" | "aws:vpcsourceip") && !cover_everything(&blocks)
        }
        "StringEquals" | "StringEqualsIgnoreCase" | "StringLike" | "ArnEquals" | "ArnLike" => {
            let names_a_caller = matches!(
                key.as_str(),
                "aws:principalarn"
                    | "aws:principalaccount"
                    | "aws:principalorgid"
                    | "aws:principalorgpaths"
                    | "aws:sourcevpc"
                    | "aws:sourcevpce"
                    | "aws:sourcearn"
                    | "aws:sourceaccount"
                    | "aws:userid"
            );
            names_a_caller
                && values.iter().all(|value| {
                    value
                        .chars()
                        .any(|letter| !matches!(letter, '*' | '?' | ':'))
                })
        }
        _ => false,
    }
}
