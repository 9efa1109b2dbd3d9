//! Address blocks: how much of the Internet a list of sources covers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// So many IPv4 addresses together are the public: a `/7`. One block may be a `/8`.
const IPV4_PUBLIC: u64 = 1 << 25;

/// So many IPv6 addresses together are the public: a `/15`. One block may be a `/16`.
const IPV6_PUBLIC: u128 = 1 << 113;

/// Parses an address, or a block in CIDR form. The bits after the prefix are cleared.
///
/// As strict as Kubernetes: no IPv4 address in an IPv6 spelling (`::ffff:198.51.100.7`), and no
/// prefix length with leading zeros.
#[must_use]
pub fn parse(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if is_mapped || (length.len() > 1 && length.starts_with('0')) {
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    text.parse::<IpNet>().ok().map(|block| block.trunc())
}

/// Tells whether the blocks together are open to the public.
///
/// Splitting `0.0.0.0/0` into smaller blocks does not help: what counts is the sum.
#[must_use]
pub fn is_public(blocks: &[IpNet]) -> bool {
    let mapped_v4: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    let v4: Vec<Ipv4Net> = blocks
        .iter()
        .filter_map(|block| match block {
            IpNet::V4(block) => Some(*block),
            // A block around all of IPv4's spellings in IPv6.
            IpNet::V6(block) if block.prefix_len() < 96 && block.contains(&mapped_v4) => {
                Some(Ipv4Net::default())
            }
            IpNet::V6(block) => mapped(block),
        })
        .collect();
    let v6: Vec<Ipv6Net> = blocks
        .iter()
        .filter_map(|block| match block {
            IpNet::V6(block) if mapped(block).is_none() => Some(*block),
            _ => None,
        })
        .collect();
    let v4: u64 = Ipv4Net::aggregate(&v4)
        .iter()
        .map(|block| 1 << (32 - u32::from(block.prefix_len())))
        .sum();
    let v6 = Ipv6Net::aggregate(&v6).iter().fold(0u128, |sum, block| {
        let size = 1u128
            .checked_shl(128 - u32::from(block.prefix_len()))
            .unwrap_or(u128::MAX);
        sum.saturating_add(size)
    });
    v4 >= IPV4_PUBLIC || v6 >= IPV6_PUBLIC
}

/// Returns the IPv4 block that an IPv4-mapped IPv6 block (`::ffff:0:0/96`) stands for.
fn mapped(block: &Ipv6Net) -> Option<Ipv4Net> {
    let address = block.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, block.prefix_len().checked_sub(96)?).ok()
}

/// The blocks that no request from the Internet comes from (RFC 1918, 3927, 4193, 4291, 6598).
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// Tells whether no request from the Internet comes from the block.
#[must_use]
pub fn is_private(block: IpNet) -> bool {
    let mut private = PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok());
    private.any(|bound| bound.contains(&block))
}

/// Tells whether the block lies within one of the bounds.
#[must_use]
pub fn is_within(block: IpNet, bounds: &[IpNet]) -> bool {
    bounds.iter().any(|bound| bound.contains(&block))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(blocks: &[&str]) -> bool {
        let parse = |text: &&str| match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().unwrap(),
        };
        is_public(&blocks.iter().map(parse).collect::<Vec<_>>())
    }

    #[test]
    fn the_whole_internet_is_public_however_it_is_split() {
        let eighths: Vec<String> = (0..8).map(|n| format!("{}.0.0.0/3", n * 32)).collect();
        let sixteenths: Vec<String> = (0..=255).map(|n| format!("{n}.0.0.0/8")).collect();
        for blocks in [
            vec!["0.0.0.0/0"],
            vec!["::/0"],
            vec!["0.0.0.0/1", "128.0.0.0/1"],
            vec!["203.0.113.0/24", "8.0.0.0/7"],
            vec!["::ffff:0.0.0.0/96"],
            vec!["2000::/3"],
            eighths.iter().map(String::as_str).collect(),
            sixteenths.iter().map(String::as_str).collect(),
        ] {
            assert!(public(&blocks), "{blocks:?}");
        }
    }

    #[test]
    fn an_address_has_one_spelling_of_its_family() {
        for text in [
            "::ffff:198.51.100.7",
            "::ffff:0.0.0.0/96",
            "198.51.100.0/024",
            "a",
            "/8",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let block = "203.0.113.0/24".parse().ok();
        assert_eq!(parse("203.0.113.9/24"), block);
        assert_eq!(parse("0.0.0.0/0"), "0.0.0.0/0".parse().ok());
    }

    #[test]
    fn an_offices_addresses_are_not_public() {
        assert!(!public(&[
            "198.51.100.7",
            "203.0.113.0/24",
            "2001:db8::/32",
            "17.0.0.0/8"
        ]));
        assert!(!public(&[]));
    }
}
