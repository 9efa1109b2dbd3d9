//! The small languages: patterns, addresses, durations, ARNs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::SignedDuration;
use opensearch_access::api::arn::{DomainArn, EntityArn, EntityKind, PARTITIONS};
use opensearch_access::policy::{address, duration, glob};
use proptest::prelude::*;

use crate::naive;

/// Returns every text over two letters up to a length.
fn all_texts(most: usize) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut last = texts.clone();
    for _ in 0..most {
        last = last
            .iter()
            .flat_map(|it| [format!("{it}a"), format!("{it}b")])
            .collect();
        texts.extend(last.clone());
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn inclusion_is_what_brute_force_finds(outer in "[ab*]{0,5}", inner in "[ab*?]{0,5}") {
        // Without `?` outside the answer is exact: a text of a third letter stands for all others.
        let texts = all_texts(6);
        let texts = texts.iter().map(String::as_str).chain(["c", "ac", "ca", "acb", "bca", "abcab", "cc"]);
        let escapes = |text: &&str| naive::matches(&inner, text) && !naive::matches(&outer, text);
        let witness = inner.replace('*', "zyx").replace('?', "w");
        let covered = texts.chain([witness.as_str(), &inner.replace('*', "").replace('?', "w")])
            .find(escapes).is_none();
        prop_assert_eq!(glob::covers(&outer, &inner), covered, "{:?} {:?}", outer, inner);
    }

    #[test]
    fn inclusion_is_never_claimed_wrongly(outer in "[ab*?]{0,5}", inner in "[ab*?]{0,5}") {
        if glob::covers(&outer, &inner) {
            for text in all_texts(6) {
                prop_assert!(!naive::matches(&inner, &text) || naive::matches(&outer, &text));
            }
        }
    }

    #[test]
    fn inclusion_is_an_order(a in "[ab*?]{0,4}", b in "[ab*?]{0,4}", c in "[ab*?]{0,4}") {
        prop_assert!(glob::covers("*", &a));
        if !a.contains('?') {
            prop_assert!(glob::covers(&a, &a));
        }
        if glob::covers(&a, &b) && glob::covers(&b, &c) {
            prop_assert!(glob::covers(&a, &c));
        }
    }

    #[test]
    fn patterns_of_any_text_match_by_definition(pattern in "[é*?a/]{0,6}", text in "[éa/b]{0,6}") {
        // `?` is one byte here and one letter in the definition of letters: only ASCII is compared.
        let found = glob::matches(&pattern, &text);
        if pattern.is_ascii() && text.is_ascii() {
            prop_assert_eq!(found, naive::matches(&pattern, &text));
        }
        prop_assert!(!glob::covers(&pattern, &text) || found || text.contains(['*', '?']));
    }

    #[test]
    fn addresses_go_round(v4: u32, v6: u128, short in 0..=32u8, long in 0..=128u8) {
        let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        for (address, length, most) in [(IpAddr::from(v4), short, 32), (IpAddr::from(v6), long, 128)] {
            if v6.to_ipv4_mapped().is_some() && address.is_ipv6() {
                continue;
            }
            prop_assert_eq!(address::parse(&address.to_string()), IpNet::new(address, most).ok());
            let block = address::parse(&format!("{address}/{length}")).unwrap();
            prop_assert!(block.contains(&address));
            prop_assert_eq!(block.prefix_len(), length);
            prop_assert_eq!(block, block.trunc());
            prop_assert_eq!(address::parse(&block.to_string()), Some(block));
        }
    }

    #[test]
    fn any_text_is_a_block_of_its_own_spelling_or_none(
        text in prop_oneof!["\\PC{0,20}", "[0-9a-f:./]{0,24}", "[0-9]{1,3}\\.[0-9]\\.[0-9]\\.[0-9]/?[0-9]{0,3}"],
    ) {
        if let Some(block) = address::parse(&text) {
            prop_assert_eq!(address::parse(&block.to_string()), Some(block));
            prop_assert!(!text.contains(' '));
        }
    }

    #[test]
    fn durations_go_round(number in 1..=9_999_999i64, unit in 0..4usize) {
        let (unit, seconds) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)][unit];
        let expected = SignedDuration::from_secs(number * seconds);
        prop_assert_eq!(duration::parse(&format!("{number}{unit}")), Some(expected));
        for broken in [format!("0{number}{unit}"), format!("-{number}{unit}"), format!("{number}"),
            format!(" {number}{unit}"), format!("{number}{unit}{unit}"), format!("{number}.5{unit}")] {
            prop_assert_eq!(duration::parse(&broken), None, "{}", broken);
        }
    }

    #[test]
    fn any_text_is_a_duration_or_none(text in prop_oneof!["\\PC{0,12}", "[0-9]{0,22}[smhdé]?"]) {
        if let Some(duration) = duration::parse(&text) {
            prop_assert!(duration.is_positive());
        }
    }

    #[test]
    fn entities_go_round(
        partition in prop::sample::select(PARTITIONS.to_vec()), account in "[0-9]{12}",
        path in prop::collection::vec("[a-zA-Z0-9+=,.@_-]{1,8}", 0..3), name in "[a-zA-Z0-9+=,.@_-]{1,12}",
        is_role: bool,
    ) {
        let (kind, word) = if is_role { (EntityKind::Role, "role") } else { (EntityKind::User, "user") };
        let mut full = path.clone();
        full.push(name.clone());
        let text = format!("arn:{partition}:iam::{account}:{word}/{}", full.join("/"));
        let arn = EntityArn::parse(&text, kind).unwrap();
        prop_assert_eq!((arn.as_str(), arn.partition()), (text.as_str(), partition));
        prop_assert_eq!((arn.account(), arn.name(), arn.kind()), (account.as_str(), name.as_str(), kind));
        // One letter that IAM has not, anywhere, and it is none.
        for broken in [format!("{text}*"), format!("{text}/"), text.replacen("iam::", "iam:x:", 1),
            format!("{text}\n"), text.replacen(word, "group", 1), format!(" {text}")] {
            prop_assert!(EntityArn::parse(&broken, kind).is_err(), "{}", broken);
        }
    }

    #[test]
    fn any_text_is_one_entity_or_none(
        text in prop_oneof!["\\PC{0,40}", "arn:aws(-cn)?:iam:[a:]?:[0-9*]{11,13}:(role|user|root|group)?[/*?a-z:\"]{0,6}"],
    ) {
        for kind in [EntityKind::Role, EntityKind::User] {
            if let Ok(arn) = EntityArn::parse(&text, kind) {
                prop_assert_eq!(arn.as_str(), &text);
                prop_assert!(!text.contains(['*', '?', '"', ' ', '\n']), "{}", text);
                prop_assert!(arn.account().len() == 12 && !arn.name().is_empty());
            }
        }
        prop_assert!(DomainArn::of_resource(&text).is_none_or(|it| text.starts_with(it.as_str())));
        if let Ok(domain) = DomainArn::parse(&text) {
            prop_assert_eq!(domain.as_str(), &text);
        }
    }

    #[test]
    fn domains_go_round(
        region in prop::sample::select(vec!["eu-west-1", "cn-north-1", "us-gov-west-1", "eusc-de-east-1"]),
        account in "[0-9]{12}", name in "[a-z][a-z0-9-]{2,27}", path in "[a-z/*_]{0,8}",
    ) {
        let domain = DomainArn::new(region, &account, &name);
        prop_assert_eq!(DomainArn::parse(domain.as_str()), Ok(domain.clone()));
        prop_assert_eq!(domain.account(), account);
        prop_assert_eq!(DomainArn::of_resource(&domain.resource(&path)), Some(domain));
    }
}
