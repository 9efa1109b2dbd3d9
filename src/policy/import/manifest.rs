//! The manifests of an import: names, and the consent that just covers the grants.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Target;
use super::body::Body;
use crate::api::access::{AccessLevel, Conditions, DomainAccess, Principal};
use crate::api::domain::{
    AssumeRole, Ceiling, Consent, FineGrainedAccess, OpenSearchDomain, OpenSearchDomainSpec,
    PolicyMode, PrincipalCeiling,
};
use crate::policy::address;
use crate::policy::permission::ActionSet;

/// The most principals of one grant.
const MOST_PRINCIPALS: usize = 100;

/// The most characters of what a grant is named after.
const LONGEST_STEM: usize = 40;

/// As many grants a namespace may have where the ceiling does not say.
const DEFAULT_GRANTS: usize = 100;

impl Target {
    /// Returns the name of the `OpenSearchDomain`: objects do not end in a hyphen as domains may.
    pub(super) fn object_name(&self) -> String {
        self.domain_name.trim_end_matches('-').to_owned()
    }
}

/// Builds the grants: one for each body, or more where it has too many principals.
pub(super) fn grants(
    bodies: &[(Body, Vec<Principal>, Option<Conditions>)],
    target: &Target,
) -> Vec<DomainAccess> {
    let mut names = BTreeSet::new();
    let mut grants = Vec::new();
    for (body, principals, conditions) in bodies {
        for principals in principals.chunks(MOST_PRINCIPALS) {
            let name = name(principals, body.level, &mut names);
            grants.push(body.to_grant(&name, principals.to_vec(), conditions.clone(), target));
        }
    }
    grants
}

/// Names a grant after its first principal and its level.
fn name(
    principals: &[Principal],
    level: Option<AccessLevel>,
    taken: &mut BTreeSet<String>,
) -> String {
    let who = principals.first().map_or(String::new(), |first| {
        let arn = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
        match first {
            Principal {
                iam_role: Some(role),
                ..
            } => arn(&role.arn),
            Principal {
                iam_user: Some(user),
                ..
            } => arn(&user.arn),
            Principal {
                account: Some(account),
                ..
            } => format!("account-{}", account.id),
            _ => "anyone".to_owned(),
        }
    });
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let stem: String = who.chars().map(legal).take(LONGEST_STEM).collect();
    let stem = match stem.trim_matches('-') {
        "" => "imported",
        stem => stem,
    };
    let suffix = level.map_or("actions".to_owned(), |level| level.as_str().to_lowercase());
    let plain = format!("{stem}-{suffix}");
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    let free = names.find(|name| !taken.contains(name)).unwrap_or(plain);
    taken.insert(free.clone());
    free
}

/// Builds the domain, with a consent entry for the grants if there are any.
pub(super) fn domain(target: &Target, grants: &[DomainAccess]) -> OpenSearchDomain {
    let consent = Consent {
        namespaces: vec![target.namespace.clone()],
        namespace_selector: None,
        ceiling: ceiling(grants),
    };
    let spec = OpenSearchDomainSpec {
        domain_name: target.domain_name.clone(),
        account_id: target.account.clone(),
        region: target.region.clone(),
        assume_role: target
            .assume_role
            .clone()
            .map(|(arn, external_id)| AssumeRole { arn, external_id }),
        // What the operator makes of its roles is the admin's to say.
        fine_grained_access: target.facts.fine_grained.then(|| FineGrainedAccess {
            mode: PolicyMode::Observe,
            ..FineGrainedAccess::default()
        }),
        consent: if grants.is_empty() {
            Vec::new()
        } else {
            vec![consent]
        },
        ..OpenSearchDomainSpec::default()
    };
    OpenSearchDomain::new(&target.object_name(), spec)
}

fn ceiling(grants: &[DomainAccess]) -> Ceiling {
    let (access, actions) = access(grants);
    let specs = || grants.iter().map(|grant| &grant.spec);
    let all_have_paths = specs().all(|spec| !spec.paths.is_empty());
    let paths: BTreeSet<&String> = specs().flat_map(|spec| &spec.paths).collect();
    // As many and as long as a ceiling's paths and patterns may be.
    let bounded = all_have_paths && paths.len() <= 20 && paths.iter().all(|it| it.len() <= 128);
    let anonymous = specs().any(|spec| spec.principals.iter().any(|it| it.anonymous.is_some()));
    let source_ips = addresses(grants);
    Ceiling {
        access,
        actions,
        paths: if bounded {
            paths.into_iter().cloned().collect()
        } else {
            Vec::new()
        },
        principals: principals(grants),
        // A ceiling without addresses cannot allow it; the grant is refused for the same.
        anonymous: (anonymous && !source_ips.is_empty()).then_some(true),
        source_ips,
        max_grants: i32::try_from(grants.len())
            .ok()
            .filter(|_| grants.len() > DEFAULT_GRANTS),
        ..Ceiling::default()
    }
}

/// Returns the least level that every grant lies within, or the actions of all.
fn access(grants: &[DomainAccess]) -> (Option<AccessLevel>, Vec<crate::api::access::Action>) {
    let of = |grant: &DomainAccess| {
        let sets = grant.spec.actions.iter().map(|it| ActionSet::of(*it));
        sets.fold(ActionSet::default(), ActionSet::union)
    };
    let exact = grants
        .iter()
        .map(of)
        .fold(ActionSet::default(), ActionSet::union);
    let highest = grants.iter().filter_map(|grant| grant.spec.access).max();
    match highest {
        Some(AccessLevel::Read) if exact.is_subset(ActionSet::FETCH) => (highest, Vec::new()),
        Some(AccessLevel::Read) => {
            let reads = ActionSet::FETCH.union(ActionSet::POST);
            (None, exact.union(reads).to_actions())
        }
        Some(_) if exact.is_subset(ActionSet::HTTP) => (highest, Vec::new()),
        Some(_) => (None, exact.union(ActionSet::HTTP).to_actions()),
        None => (None, exact.to_actions()),
    }
}

fn principals(grants: &[DomainAccess]) -> Option<PrincipalCeiling> {
    let each = || grants.iter().flat_map(|grant| &grant.spec.principals);
    let roles = each().filter_map(|it| it.iam_role.as_ref().map(|role| role.arn.clone()));
    let users = each().filter_map(|it| it.iam_user.as_ref().map(|user| user.arn.clone()));
    let arns: BTreeSet<String> = roles.chain(users).collect();
    let accounts = arns.iter().filter_map(|arn| arn.split(':').nth(4));
    let accounts: BTreeSet<String> = accounts.map(ToOwned::to_owned).collect();
    let whole = each().filter_map(|it| it.account.as_ref().map(|account| account.id.clone()));
    let whole: BTreeSet<String> = whole.collect();
    let one_by_one = arns.len() <= 20 && arns.iter().all(|arn| arn.len() <= 200);
    (!arns.is_empty() || !whole.is_empty()).then(|| PrincipalCeiling {
        arns: arns.into_iter().filter(|_| one_by_one).collect(),
        accounts: accounts.into_iter().filter(|_| !one_by_one).collect(),
        whole_accounts: whole.into_iter().collect(),
        ..PrincipalCeiling::default()
    })
}

/// Returns the sources of all grants, joined; none where a ceiling could not hold them.
fn addresses(grants: &[DomainAccess]) -> Vec<String> {
    let conditions = grants
        .iter()
        .filter_map(|grant| grant.spec.conditions.as_ref());
    let texts = conditions.flat_map(|conditions| &conditions.source_ips);
    let blocks: Vec<IpNet> = texts.filter_map(|text| address::parse(text)).collect();
    let joined = IpNet::aggregate(&blocks);
    let joined: Vec<String> = joined.iter().map(ToString::to_string).collect();
    if joined.len() <= 50 {
        joined
    } else {
        Vec::new()
    }
}
