//! The guards: what must not be written is not, and nothing else is held.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use opensearch_access::api::condition::Reason;
use opensearch_access::policy::address;
use opensearch_access::policy::document::{Document, SIZE_LIMIT};
use opensearch_access::policy::guard::Hold;
use opensearch_access::policy::plan::{self, Input};
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::{DomainFacts, Principal, ValidatedGrant};
use opensearch_access::policy::verdict::{self, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::naive::{self, DOMAIN, Keys};
use crate::pool;
use crate::world::{World, domain, grant, is_granted, now, role};

/// Counts the addresses of blocks by their ends, each once.
fn count(blocks: &[IpNet], wide: bool) -> u128 {
    let ends = |block: &IpNet| match block {
        IpNet::V4(block) if !wide => Some((
            u128::from(u32::from(block.network())),
            u128::from(u32::from(block.broadcast())),
        )),
        IpNet::V6(block) if wide => {
            Some((u128::from(block.network()), u128::from(block.broadcast())))
        }
        _ => None,
    };
    let mut ends: Vec<(u128, u128)> = blocks.iter().filter_map(ends).collect();
    ends.sort_unstable();
    let (mut total, mut next) = (0_u128, 0_u128);
    for (from, to) in ends {
        let from = from.max(next);
        if from <= to {
            total = total.saturating_add((to - from).saturating_add(1));
            next = to.saturating_add(1);
        }
        if to == u128::MAX {
            break;
        }
    }
    total
}

/// Splits a block into parts that cover it, of very unlike sizes.
fn parts(block: IpNet, random: &mut fastrand::Rng, depth: u8) -> Vec<IpNet> {
    if depth == 0 || random.u8(..8) == 0 {
        return vec![block];
    }
    let halves = block.subnets(block.prefix_len() + 1).unwrap();
    halves
        .flat_map(|half| parts(half, random, depth - 1))
        .collect()
}

proptest! {
    #[test]
    fn blocks_are_public_by_how_many_addresses_they_have(
        v4 in prop::collection::vec((any::<u32>(), 5..=32u8), 0..12),
        v6 in prop::collection::vec((any::<u128>(), 12..=128u8), 0..12),
    ) {
        let v4 = v4.into_iter().map(|(it, length)| IpNet::from(Ipv4Net::new(it.into(), length).unwrap().trunc()));
        let v6 = v6.into_iter().map(|(it, length): (u128, u8)| IpNet::from(Ipv6Net::new((it | 1 << 127).into(), length).unwrap().trunc()));
        let blocks: Vec<IpNet> = v4.chain(v6).collect();
        let expected = count(&blocks, false) >= 1 << 25 || count(&blocks, true) >= 1 << 113;
        prop_assert_eq!(address::is_public(&blocks), expected, "{:?}", blocks);
    }

    #[test]
    fn everybody_is_public_however_split_shuffled_and_overlapped(seed: u64, wide: bool, short in 0..=7u8) {
        let mut random = fastrand::Rng::with_seed(seed);
        let whole: IpNet = if wide {
            Ipv6Net::new(u128::from(seed).into(), short).unwrap().trunc().into()
        } else {
            Ipv4Net::new(u32::try_from(seed >> 32).unwrap().into(), short).unwrap().trunc().into()
        };
        let mut blocks = parts(whole, &mut random, 6);
        random.shuffle(&mut blocks);
        blocks.push(blocks[0]);
        prop_assert!(address::is_public(&blocks), "{:?}", blocks);
    }
}

#[test]
fn the_bounds_of_public_are_exact() {
    let public = |blocks: &[&str]| {
        address::is_public(
            &blocks
                .iter()
                .map(|it| it.parse().unwrap())
                .collect::<Vec<_>>(),
        )
    };
    for (blocks, expected) in [
        (&["8.0.0.0/8"][..], false),
        (&["8.0.0.0/7"], true),
        (&["8.0.0.0/8", "9.0.0.0/9", "9.128.0.0/9"], true),
        (
            &["8.0.0.0/8", "9.0.0.0/9", "9.128.0.0/10", "9.192.0.0/10"],
            true,
        ),
        (&["8.0.0.0/8", "9.0.0.0/9", "9.128.0.0/10"], false),
        (&["8.0.0.0/8", "8.0.0.0/8"], false),
        (&["2400::/16"], false),
        (&["2400::/15"], true),
        (&["2400::/16", "2600::/17", "2600:8000::/17"], true),
        (&["2400::/16", "2600::/17"], false),
        (&["::/0"], true),
        (&["::/1"], true),
        // Every IPv4 address, spelled in IPv6.
        (&["::ffff:0.0.0.0/96"], true),
        (&["::fffe:0:0/95"], true),
        (&["::/64"], true),
        (&["::ffff:8.0.0.0/104"], false),
        (&["::ffff:8.0.0.0/104", "9.0.0.0/8"], true),
    ] {
        assert_eq!(public(blocks), expected, "{blocks:?}");
    }
}

/// Plans a grant as if no rule had been applied to it, so that the guard alone stands in the way.
fn unchecked(principal: Principal, sources: &[&str], organizations: &[&str]) -> Option<Hold> {
    let domain = domain(&json!({}));
    let object = grant(
        "team-a",
        "g",
        &json!({"access": "ReadWrite", "principals": [{"iamRole": {"arn": role("a")}}]}),
    );
    let verdicts = verdict::of_all(
        [&object],
        &domain,
        DomainFacts::default(),
        &Resolutions::default(),
        &BTreeMap::new(),
        now(),
    );
    let (key, Verdict::Valid(valid)) = verdicts.into_iter().next().unwrap() else {
        panic!("not valid")
    };
    let mut valid: ValidatedGrant = *valid;
    valid.principals = vec![principal];
    valid.restrictions.source_ips = sources.iter().map(|it| it.parse().unwrap()).collect();
    valid.restrictions.principal_org_ids =
        organizations.iter().map(|it| (*it).to_owned()).collect();
    let grants = BTreeMap::from([(key, Verdict::Valid(Box::new(valid)))]);
    let plan = plan::plan(&Input {
        domain: &domain,
        facts: DomainFacts::default(),
        held: &BTreeMap::new(),
        grants: &grants,
        observed: &Document::default(),
        last: None,
        acknowledged_revocation: 0,
    });
    assert!(plan.policy.is_some());
    plan.hold
}

#[test]
fn nothing_public_is_written_even_if_no_rule_before_refused_it() {
    for (sources, held) in [
        (&[][..], true),
        (&["0.0.0.0/0"], true),
        (&["::/0"], true),
        (&["0.0.0.0/1", "128.0.0.0/1"], true),
        (
            &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"],
            true,
        ),
        (&["8.0.0.0/7"], true),
        (&["203.0.113.0/24", "2000::/3"], true),
        (&["8.0.0.0/8"], false),
        (&["203.0.113.0/24", "2001:db8::/32"], false),
    ] {
        let hold = unchecked(Principal::Anyone, sources, &[]);
        let reason = hold.map(|hold| hold.reason);
        assert_eq!(reason, held.then_some(Reason::PublicAccess), "{sources:?}");
    }
    // An organization keeps nobody out who does not sign.
    let hold = unchecked(Principal::Anyone, &[], &["o-a1b2c3d4e5"]);
    assert_eq!(hold.map(|hold| hold.reason), Some(Reason::PublicAccess));
    // A named principal is not the public, wherever it comes from.
    let account = Principal::Account("111122223333".to_owned());
    assert_eq!(unchecked(account, &["0.0.0.0/0"], &[]), None);
}

#[test]
fn what_is_public_together_is_not_written_bit_by_bit() {
    let mut world = World::new(domain(&json!({})));
    let from = |block: &str| json!({"access": "Read", "principals": [{"anonymous": {}}], "conditions": {"sourceIps": [block]}});
    world
        .grants
        .push(grant("team-a", "first", &from("8.0.0.0/8")));
    world.settle();
    let mut younger = grant("team-a", "second", &from("9.0.0.0/8"));
    let time = now() + jiff::SignedDuration::from_secs(1);
    younger.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
    world.grants.push(younger);
    let plan = world.settle();
    assert!(is_granted(&plan, "first") && !is_granted(&plan, "second"));
}

const MASTERS: [&str; 2] = [
    "arn:aws:iam::111122223333:role/a",
    "arn:aws:iam::444455556666:role/d",
];

proptest! {
    /// What the master user could do by the policy before the write, it can do after it.
    #[test]
    fn no_write_shuts_the_master_user_out(
        statements in prop::collection::vec(pool::known(), 0..4), master in 0..2usize, own: bool,
        others in prop::bool::weighted(0.8),
    ) {
        let master = MASTERS[master];
        let mode = if own { "Own" } else { "Merge" };
        let mut world = World::new(domain(&json!({"accessPolicy": {"mode": mode},
            "fineGrainedAccess": {"masterUserArn": master}})));
        world.others(|them| them.extend(statements));
        let name = if others { "somebody" } else { "a" };
        world.grants.push(grant("team-a", "g", &json!({"access": "ReadWrite", "principals": [{"iamRole": {"arn": role(name)}}]})));
        let plan = world.plan();
        let Some(policy) = &plan.policy else { return Ok(()) };
        // From any address, in any organization.
        let allowed = |policy: &Value| -> Vec<bool> {
            let asks = [("203.0.113.9", "o-a1b2c3d4e5"), ("2001:db8::7", "o-b1b2c3d4e5"), ("8.8.8.8", "o-x")];
            asks.iter().map(|(address, organization)| {
                let keys = Keys::from([
                    ("aws:sourceip".to_owned(), vec![(*address).to_owned()]),
                    ("aws:principalorgid".to_owned(), vec![(*organization).to_owned()]),
                ]);
                let request = naive::Request { principal: Some(master.to_owned()), action: "es:ESHttpGet".to_owned(),
                    path: "/_plugins/_security/api/roles".to_owned(), keys };
                // By name: what IAM may add is no part of the policy.
                let found = naive::decide(policy, &request);
                found == "Allow" || (found == "Unknown" && names_or_everybody(policy, &request))
            }).collect()
        };
        let before = allowed(&world.policy());
        let after = allowed(&policy.to_value().unwrap_or_default());
        let lost = before.iter().zip(&after).any(|(before, after)| *before && !*after);
        if let Some(hold) = &plan.hold {
            prop_assert_eq!(hold.reason, Reason::PolicyRejected);
            prop_assert!(own, "held a merge: {:?}", hold);
        } else {
            prop_assert!(!lost, "{} is shut out of {:?}", master, world.policy());
        }
    }
}

/// Tells whether the policy lets a caller of another account in by name or as everybody, as far as
/// a policy can.
fn names_or_everybody(policy: &Value, request: &naive::Request) -> bool {
    // As if it were a policy of the caller's own account, whose delegation counts for nothing.
    let text = policy.to_string().replace("444455556666:root", "0");
    let own = text.replace("444455556666", "111122223333");
    let caller = request
        .principal
        .clone()
        .unwrap()
        .replace("444455556666", "111122223333");
    let request = naive::Request {
        principal: Some(caller),
        ..request.clone()
    };
    naive::decide(&serde_json::from_str(&own).unwrap(), &request) == "Allow"
}

#[test]
fn a_master_user_of_another_account_or_behind_a_condition_is_not_shut_out_either() {
    let office = json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}});
    for (master, condition) in [
        (MASTERS[1], None),
        (MASTERS[0], Some(&office)),
        (MASTERS[1], Some(&office)),
    ] {
        let mut world = World::new(domain(&json!({"accessPolicy": {"mode": "Own"},
            "fineGrainedAccess": {"masterUserArn": master}})));
        let mut statement = json!({"Effect": "Allow", "Principal": {"AWS": master}, "Action": "es:*",
            "Resource": format!("{DOMAIN}/*")});
        if let Some(condition) = condition {
            statement["Condition"] = condition.clone();
        }
        world.others(|statements| statements.push(statement));
        let hold = world.plan().hold;
        assert_eq!(
            hold.map(|it| it.reason),
            Some(Reason::PolicyRejected),
            "{master} {condition:?}"
        );
    }
}

#[test]
fn mass_revocation_is_held_from_its_bounds_on() {
    for recorded in [1_usize, 2, 3, 7, 8, 9, 20, 24] {
        let mut full = World::new(domain(&json!({})));
        for n in 0..recorded {
            let principals = json!([{"iamRole": {"arn": role(&format!("r{n}"))}}]);
            full.grants.push(grant(
                "team-a",
                &format!("g{n:02}"),
                &json!({"access": "Read", "principals": principals}),
            ));
        }
        full.settle();
        for gone in 0..=recorded {
            for acknowledged in [0, gone.saturating_sub(1), gone] {
                let mut world = full.clone();
                world.grants.truncate(recorded - gone);
                world.acknowledged = acknowledged;
                // Two or more; more than five, or more than a quarter; and more than were let go.
                let held = gone >= 2 && (gone > 5 || 4 * gone > recorded) && gone > acknowledged;
                let plan = world.settle();
                assert_eq!(
                    plan.withheld.is_some(),
                    held,
                    "{gone} of {recorded}, {acknowledged} acknowledged"
                );
                let left = naive::meaning(&world.policy()).atoms;
                let left = (0..recorded)
                    .filter(|n| left.iter().any(|it| it.principal == role(&format!("r{n}"))))
                    .count();
                assert_eq!(left, if held { recorded } else { recorded - gone });
                // What is held stays on record, so that it is held again.
                assert_eq!(world.last.as_ref().unwrap().grants.len(), left);
            }
        }
    }
}

#[test]
fn a_policy_that_aws_would_not_store_is_not_written() {
    // Others fill the policy; a grant of ours goes. What is left is one letter too long, or fits.
    for (over, letter) in [(0, 'x'), (1, 'x'), (0, 'é'), (1, 'é')] {
        let mut world = World::new(domain(&json!({})));
        world.grants.push(grant(
            "team-a",
            "g",
            &json!({"access": "Admin", "principals": [{"iamRole": {"arn": role("a")}}]}),
        ));
        world.settle();
        let denial = |text: &str| json!({"Effect": "Deny", "Principal": "*", "Action": "es:*", "Resource": text});
        let empty = pool::document(&[denial("")]).to_string().chars().count();
        let text: String = std::iter::repeat_n(letter, SIZE_LIMIT - empty + over).collect();
        world.others(|statements| statements.push(denial(&text)));
        crate::world::delete(&mut world.grants[0]);
        let plan = world.plan();
        let length = plan.policy.as_ref().unwrap().to_text().chars().count();
        assert_eq!(length, SIZE_LIMIT + over);
        let reason = plan.hold.map(|hold| hold.reason);
        assert_eq!(
            reason,
            (over > 0).then_some(Reason::PolicyTooLarge),
            "{over} {letter}"
        );
    }
}
