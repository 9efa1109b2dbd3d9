//! `DomainAccess` parsed: a grant that every later step can take as right.
//!
//! The rules that one object alone can break are the CRD's CEL rules too; they are repeated here
//! because objects reach the reconciler that the API server never checked with today's rules.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::domain::{Access, Domain};
use super::{Rejection, address, consent};
use crate::api::access::{
    AccessLevel, Action, Conditions, DomainAccess, IdentityPolicyMode, Principal as PrincipalSpec,
};
use crate::api::arn::{EntityArn, EntityKind, is_account_id};
use crate::api::condition::Reason;

pub(super) mod bounds;

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
    /// Whether requests may name indexes in their body although the path names others
    /// (`rest.action.multi.allow_explicit_index`; the service's default is yes).
    pub explicit_index_forbidden: bool,
}

/// A principal that a policy may name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An IAM role or user.
    Entity(EntityArn),
    /// A whole account.
    Account(String),
    /// Unsigned requests.
    Anyone,
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
    /// Whether identity policies are attached too.
    pub attach_identity_policy: bool,
    /// Until when, by the spec or by the ceiling.
    pub expires_at: Option<Timestamp>,
}

impl ValidatedGrant {
    /// Returns the IAM roles and users that the grant names.
    pub fn entities(&self) -> impl Iterator<Item = &EntityArn> {
        self.principals
            .iter()
            .filter_map(|principal| match principal {
                Principal::Entity(arn) => Some(arn),
                Principal::Account(_) | Principal::Anyone => None,
            })
    }
}

/// Validates one grant.
///
/// `labels` are the labels of the grant's namespace, by which consent may select; none while the
/// namespace is not known.
pub fn grant(
    object: &DomainAccess,
    domain: &Domain,
    facts: DomainFacts,
    labels: Option<&BTreeMap<String, String>>,
    now: Timestamp,
) -> Result<ValidatedGrant, Rejection> {
    let mut grant = shape(object, domain, facts)?;
    let limits = consent::limits(domain, &grant.key.namespace, labels)?;
    consent::check(&grant, limits, now)?;
    if let Some(most) = limits.max_duration {
        let created = grant.created.unwrap_or(now);
        grant.expires_at = Some(grant.expires_at.unwrap_or(end_of(created, most)));
    }
    match grant.expires_at {
        Some(end) if end <= now => Err(Rejection::new(
            Reason::Expired,
            "spec.expiresAt",
            format!("the grant ended at {end}; set a later time to renew it"),
        )),
        _ => Ok(grant),
    }
}

/// Parses one grant by the rules that need no consent and no time: what it asks for, whether or
/// not it may have it.
pub(super) fn shape(
    object: &DomainAccess,
    domain: &Domain,
    facts: DomainFacts,
) -> Result<ValidatedGrant, Rejection> {
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
    if !spec.security_roles.is_empty() {
        return Err(Rejection::new(
            Reason::Unsupported,
            "spec.securityRoles",
            "this version of the operator does not write role mappings: leave securityRoles out and map the principals in the security plugin",
        ));
    }
    let restrictions = restrictions(spec.conditions.as_ref(), facts)?;
    let principals = principals(&spec.principals, domain, &restrictions)?;
    let attach = spec.identity_policy == Some(IdentityPolicyMode::Attach);
    if attach {
        check_attachable(&principals, domain)?;
    }
    let created = object
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    Ok(ValidatedGrant {
        generation: object.metadata.generation,
        created,
        principals,
        access,
        paths: spec.paths.clone(),
        restrictions,
        attach_identity_policy: attach,
        expires_at: spec.expires_at.as_ref().map(|time| time.0),
        key,
    })
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

fn principals(
    specs: &[PrincipalSpec],
    domain: &Domain,
    restrictions: &Restrictions,
) -> Result<Vec<Principal>, Rejection> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            principal(
                spec,
                &format!("spec.principals[{index}]"),
                domain,
                restrictions,
            )
        })
        .collect()
}

fn principal(
    spec: &PrincipalSpec,
    field: &str,
    domain: &Domain,
    restrictions: &Restrictions,
) -> Result<Principal, Rejection> {
    let entity = |text: &str, kind: EntityKind, field: String| {
        let arn = EntityArn::parse(text, kind)
            .map_err(|error| Rejection::invalid(field.clone(), error.to_string()))?;
        if arn.partition() != domain.arn.partition() {
            return Err(Rejection::invalid(
                field,
                format!(
                    "{text:?} is of partition {}, and the domain of partition {}: AWS keeps partitions apart",
                    arn.partition(),
                    domain.arn.partition()
                ),
            ));
        }
        Ok(Principal::Entity(arn))
    };
    match spec {
        PrincipalSpec {
            iam_role: Some(role),
            iam_user: None,
            service_account: None,
            account: None,
            anonymous: None,
        } => entity(&role.arn, EntityKind::Role, format!("{field}.iamRole.arn")),
        PrincipalSpec {
            iam_role: None,
            iam_user: Some(user),
            service_account: None,
            account: None,
            anonymous: None,
        } => entity(&user.arn, EntityKind::User, format!("{field}.iamUser.arn")),
        PrincipalSpec {
            iam_role: None,
            iam_user: None,
            service_account: Some(account),
            account: None,
            anonymous: None,
        } => Err(if is_object_name(&account.name) {
            Rejection::new(
                Reason::Unsupported,
                format!("{field}.serviceAccount"),
                "this version of the operator does not resolve service accounts: name the IAM role by iamRole.arn",
            )
        } else {
            Rejection::invalid(
                format!("{field}.serviceAccount.name"),
                format!("{:?} is not the name of a service account", account.name),
            )
        }),
        PrincipalSpec {
            iam_role: None,
            iam_user: None,
            service_account: None,
            account: Some(account),
            anonymous: None,
        } => {
            if !is_account_id(&account.id) {
                return Err(Rejection::invalid(
                    format!("{field}.account.id"),
                    format!(
                        "{:?} is not an AWS account id: 12 digits, in quotes",
                        account.id
                    ),
                ));
            }
            Ok(Principal::Account(account.id.clone()))
        }
        PrincipalSpec {
            iam_role: None,
            iam_user: None,
            service_account: None,
            account: None,
            anonymous: Some(_),
        } => {
            if restrictions.source_ips.is_empty() {
                return Err(Rejection::new(
                    Reason::PublicAccess,
                    format!("{field}.anonymous"),
                    "an anonymous principal needs conditions.sourceIps: without it everybody could use the domain",
                ));
            }
            Ok(Principal::Anyone)
        }
        _ => Err(Rejection::invalid(
            field,
            "set exactly one of iamRole, iamUser, serviceAccount, account and anonymous",
        )),
    }
}

fn check_attachable(principals: &[Principal], domain: &Domain) -> Result<(), Rejection> {
    for (index, principal) in principals.iter().enumerate() {
        let rule = match principal {
            Principal::Entity(arn) if arn.kind() == EntityKind::Role => {
                if arn.account() == domain.account {
                    continue;
                }
                "the role is of another account than the domain, where the operator cannot write: attach its policy there"
            }
            _ => "an inline policy is attached to IAM roles only",
        };
        return Err(Rejection::invalid(
            "spec.identityPolicy",
            format!("Attach does not fit spec.principals[{index}]: {rule}"),
        ));
    }
    Ok(())
}
