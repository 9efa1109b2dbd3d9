//! `DomainAccess` parsed: a grant that every later step can take as right.
//!
//! The rules that one object alone can break are the CRD's CEL rules too; they are repeated here
//! because objects reach the reconciler that the API server never checked with today's rules.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::domain::{Access, Domain};
use super::service_account::Resolutions;
use super::{Rejection, address, consent};
use crate::api::access::{AccessLevel, Action, Conditions, DomainAccess, IdentityPolicyMode};
use crate::api::arn::{EntityArn, is_account_id};
use crate::api::condition::Reason;

pub(super) mod bounds;
mod principal;
mod security_role;

use self::principal::Parsed;
pub use self::principal::{Principal, ServiceAccount};

/// Which grant: its place and its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantKey {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// The object's UID: another object of the same name is another grant.
    pub uid: String,
}

impl GrantKey {
    /// Returns the key of an object.
    #[must_use]
    pub fn of(object: &DomainAccess) -> Self {
        let metadata = &object.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for GrantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A grant may have so many pairs of a principal and a path: each pair is a permission to plan with.
const PRODUCT_LIMIT: usize = 500;

/// What is known of the domain beside its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DomainFacts {
    /// Whether the domain is inside a VPC; only then can it be reached from there alone.
    pub vpc: bool,
    /// Whether the domain has fine-grained access control.
    pub fine_grained: bool,
    /// The longest name that the domain's security plugin takes, where it says one.
    pub name_limit: Option<usize>,
    /// Whether requests may name indexes in their body although the path names others
    /// (`rest.action.multi.allow_explicit_index`; the service's default is yes).
    pub explicit_index_forbidden: bool,
}

/// The conditions of a grant, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Restrictions {
    /// Addresses.
    pub source_ips: Vec<IpNet>,
    /// Organizations.
    pub principal_org_ids: Vec<String>,
    /// Accounts.
    pub principal_accounts: Vec<String>,
    /// VPCs.
    pub source_vpcs: Vec<String>,
    /// VPC endpoints.
    pub source_vpces: Vec<String>,
}

/// A grant that keeps every rule and lies within its ceiling.
#[derive(Debug, Clone)]
pub struct ValidatedGrant {
    /// Which grant.
    pub key: GrantKey,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// When the object was created; grants that are not in the cluster yet are the youngest.
    pub created: Option<Timestamp>,
    /// Who.
    pub principals: Vec<Principal>,
    /// How.
    pub access: Access,
    /// On which index paths; none: the whole domain.
    pub paths: Vec<String>,
    /// Under which conditions.
    pub restrictions: Restrictions,
    /// The roles of the security plugin that the principals are mapped to.
    pub security_roles: Vec<String>,
    /// Whether identity policies are attached too.
    pub attach_identity_policy: bool,
    /// Until when, by the spec or by the ceiling.
    pub expires_at: Option<Timestamp>,
}

impl ValidatedGrant {
    /// Returns the IAM roles and users that the grant names, those of service accounts included.
    pub fn entities(&self) -> impl Iterator<Item = &EntityArn> {
        self.principals.iter().flat_map(Principal::entities)
    }

    /// Returns the service accounts that the grant names.
    pub fn service_accounts(&self) -> impl Iterator<Item = &ServiceAccount> {
        self.principals
            .iter()
            .filter_map(|principal| match principal {
                Principal::ServiceAccount(account) => Some(account),
                _ => None,
            })
    }
}

/// Why a grant is not valid.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// It breaks a rule.
    Refused(Rejection),
    /// The role of a service account could not be asked for. The grant has the roles that it was
    /// applied with, and keeps every rule as far as is known.
    Undecided(Box<ValidatedGrant>, Rejection),
}

impl Refusal {
    /// Returns the rule that is broken, or what could not be asked.
    #[must_use]
    pub fn into_rejection(self) -> Rejection {
        match self {
            Self::Refused(rejection) | Self::Undecided(_, rejection) => rejection,
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

/// Validates one grant.
///
/// `accounts` has the roles of service accounts. `labels` are the labels of the grant's namespace,
/// by which consent may select; none while the namespace is not known.
pub fn grant(
    object: &DomainAccess,
    domain: &Domain,
    facts: DomainFacts,
    accounts: &Resolutions,
    labels: Option<&BTreeMap<String, String>>,
    now: Timestamp,
) -> Result<ValidatedGrant, Refusal> {
    let Shape {
        mut grant,
        unresolved,
    } = shape(object, domain, facts, accounts)?;
    let limits = consent::limits(domain, &grant.key.namespace, labels)?;
    consent::check(&grant, domain, limits, now)?;
    if let Some(most) = limits.max_duration {
        let created = grant.created.unwrap_or(now);
        grant.expires_at = Some(grant.expires_at.unwrap_or(end_of(created, most)));
    }
    if let Some(end) = grant.expires_at.filter(|end| *end <= now) {
        let rule = format!("the grant ended at {end}; set a later time to renew it");
        return Err(Rejection::new(Reason::Expired, "spec.expiresAt", rule).into());
    }
    match unresolved {
        None => Ok(grant),
        Some(rejection) if rejection.reason == Reason::PrincipalUnknown => {
            Err(Refusal::Undecided(Box::new(grant), rejection))
        }
        Some(rejection) => Err(rejection.into()),
    }
}

/// What a grant asks for, whether or not it may have it.
pub(super) struct Shape {
    /// The grant; a service account without an answer has the roles that it was applied with.
    pub(super) grant: ValidatedGrant,
    /// Why a service account has no role, or that nobody could be asked for it
    /// (`PrincipalUnknown`).
    pub(super) unresolved: Option<Rejection>,
}

/// Parses one grant by the rules that need no consent and no time.
pub(super) fn shape(
    object: &DomainAccess,
    domain: &Domain,
    facts: DomainFacts,
    accounts: &Resolutions,
) -> Result<Shape, Rejection> {
    let spec = &object.spec;
    let key = GrantKey::of(object);
    if let Some(rejection) = bounds::broken("DomainAccess", spec).into_iter().next() {
        return Err(rejection);
    }
    if !is_object_name(&spec.domain_ref.name) {
        return Err(Rejection::invalid(
            "spec.domainRef.name",
            format!(
                "{:?} is not the name of an OpenSearchDomain",
                spec.domain_ref.name
            ),
        ));
    }
    let access = Access::parse(spec.access, &spec.actions, "spec.access")?;
    if !spec.paths.is_empty() {
        if access == Access::Level(AccessLevel::Admin) {
            return Err(Rejection::invalid(
                "spec.paths",
                "access Admin is for the whole domain: leave paths out, or ask for ReadWrite",
            ));
        }
        if spec.actions.contains(&Action::CrossClusterGet) {
            return Err(Rejection::invalid(
                "spec.paths",
                "es:ESCrossClusterGet is for the whole domain: put it into a grant without paths",
            ));
        }
    }
    if spec.principals.len() * spec.paths.len() > PRODUCT_LIMIT {
        return Err(Rejection::invalid(
            "spec",
            "principals times paths must be at most 500: split the grant",
        ));
    }
    for (index, path) in spec.paths.iter().enumerate() {
        check_path(path)
            .map_err(|rule| Rejection::invalid(format!("spec.paths[{index}]"), rule))?;
    }
    let restrictions = restrictions(spec.conditions.as_ref(), facts)?;
    let Parsed {
        principals,
        unresolved,
    } = principal::all(&spec.principals, &key, domain, &restrictions, accounts)?;
    security_role::check(&spec.security_roles, &principals, facts)?;
    let attach = spec.identity_policy == Some(IdentityPolicyMode::Attach);
    if attach {
        principal::check_attachable(&principals, domain)?;
    }
    let created = object
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    let grant = ValidatedGrant {
        generation: object.metadata.generation,
        created,
        principals,
        access,
        paths: spec.paths.clone(),
        restrictions,
        security_roles: spec.security_roles.clone(),
        attach_identity_policy: attach,
        expires_at: spec.expires_at.as_ref().map(|time| time.0),
        key,
    };
    Ok(Shape { grant, unresolved })
}

/// Returns the time a duration after another, or the last time there is.
pub(super) fn end_of(start: Timestamp, duration: SignedDuration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Checks one index path.
///
/// The rule is narrow on purpose: no percent-encoding, no `..`, no leading `_` or `.`, so that
/// neither an API such as `_plugins/_security` nor a system index can be spelled, whatever AWS
/// makes of the path before it compares it.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let say = |rule: &str| Err(format!("{path:?} is not an index path: {rule}"));
    if path.contains("..") {
        return say("'..' is not allowed");
    }
    let mut segments = path.split('/');
    let index = segments.next().unwrap_or_default();
    if !index
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    {
        return say(
            "it begins with the index's name, whose first character is a lowercase letter or a digit",
        );
    }
    let in_index = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-*".contains(&b);
    if !index.bytes().all(in_index) {
        return say("an index's name has lowercase letters, digits, . _ - and * only");
    }
    for segment in segments {
        let begins = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'*';
        let inside = |b: u8| begins(b) || b == b'.' || b == b'-';
        if !segment.bytes().next().is_some_and(begins) || !segment.bytes().all(inside) {
            return say(
                "after the index's name come letters, digits, . _ - and *, without empty parts",
            );
        }
    }
    Ok(())
}

fn restrictions(spec: Option<&Conditions>, facts: DomainFacts) -> Result<Restrictions, Rejection> {
    const ADDRESSES: &str = "spec.conditions.sourceIps";
    let Some(spec) = spec else {
        return Ok(Restrictions::default());
    };
    let mut source_ips = Vec::new();
    for (index, text) in spec.source_ips.iter().enumerate() {
        let block = address::parse(text).ok_or_else(|| {
            Rejection::invalid(
                format!("{ADDRESSES}[{index}]"),
                format!("{text:?} is not an IP address or a CIDR block, such as 203.0.113.0/24"),
            )
        })?;
        source_ips.push(block);
    }
    if address::is_public(&source_ips) {
        return Err(Rejection::new(
            Reason::PublicAccess,
            ADDRESSES,
            "the sources together are open to the public: they must cover less than a /7 (IPv4) and a /15 (IPv6)",
        ));
    }
    if facts.vpc && !source_ips.is_empty() {
        return Err(Rejection::new(
            Reason::AddressesOnVpcDomain,
            ADDRESSES,
            "the domain is inside a VPC, where AWS refuses address conditions: use security groups, and leave sourceIps out",
        ));
    }
    let legal = |items: &[String], field: &str, what: &str, is: &dyn Fn(&str) -> bool| match items
        .iter()
        .position(|item| !is(item))
    {
        None => Ok(()),
        Some(index) => Err(Rejection::invalid(
            format!("spec.conditions.{field}[{index}]"),
            format!("{:?} is not {what}", items[index]),
        )),
    };
    legal(
        &spec.principal_org_ids,
        "principalOrgIds",
        "an organization id, such as o-a1b2c3d4e5",
        &is_organization_id,
    )?;
    legal(
        &spec.principal_accounts,
        "principalAccounts",
        "an AWS account id: 12 digits",
        &is_account_id,
    )?;
    legal(
        &spec.source_vpcs,
        "sourceVpcs",
        "a VPC id, such as vpc-0a1b2c3d",
        &|text| is_resource_id(text, "vpc-"),
    )?;
    legal(
        &spec.source_vpces,
        "sourceVpces",
        "a VPC endpoint id, such as vpce-0a1b2c3d",
        &|text| is_resource_id(text, "vpce-"),
    )?;
    Ok(Restrictions {
        source_ips,
        principal_org_ids: spec.principal_org_ids.clone(),
        principal_accounts: spec.principal_accounts.clone(),
        source_vpcs: spec.source_vpcs.clone(),
        source_vpces: spec.source_vpces.clone(),
    })
}

pub(super) fn is_organization_id(text: &str) -> bool {
    text.strip_prefix("o-").is_some_and(|id| {
        (10..=32).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

fn is_object_name(text: &str) -> bool {
    let outer = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(outer))
        && text.bytes().all(|b| outer(b) || b == b'.' || b == b'-')
}

pub(super) fn is_resource_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|id| {
        (8..=17).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}
