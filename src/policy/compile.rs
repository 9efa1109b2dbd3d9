//! A grant to permissions: which actions on which resources its access means.
//!
//! Resources are URI paths below the domain. A path rule sees the path of a request and nothing
//! else: calls that name their indexes in the body (`_bulk`, and `_msearch` and `_mget` without an
//! index) pass it by, and are granted only where fine-grained access control checks them. That
//! requests may not name indexes in their body is no check: one that names none is for all.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::canonical;
use super::domain::{Access, Domain};
pub use super::permission::ActionSet;
use super::permission::{ANYONE, Effect, Permission, Permissions};
use super::validate::{DomainFacts, Principal, Restrictions, ValidatedGrant};
use crate::api::access::{AccessLevel, Action};
use crate::api::arn::EntityArn;

/// Where clients post their reads, below an index.
const READS_BELOW_INDEX: [&str; 8] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_field_caps",
    "_validate/query",
    "_explain/*",
    "_search/point_in_time",
];

/// Where clients post their reads of every index.
const READS_OF_ALL: [&str; 6] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_field_caps",
    "_validate/query",
];

/// Where clients go on reading: the id in the body names an earlier search, which was checked.
const SCROLL: &str = "_search/scroll";

/// Reads that name their indexes in the body, or by an id in it.
const READS_BY_BODY: [&str; 3] = ["_search", "_msearch", "_mget"];

/// Writes that name their indexes in the body.
const BULK: &str = "_bulk";

/// Which part of what a path covers a set of actions is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathScope {
    /// All of it.
    Everything,
    /// The endpoints below it where clients post their reads.
    Reads,
    /// The domain itself rather than its paths.
    Domain,
}

impl PathScope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Everything, Self::Reads, Self::Domain];

    /// Tells whether what is granted here is granted there too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == other || (self == Self::Everything && other == Self::Reads)
    }
}

/// Returns the actions that an access means, by the scope that they are for.
#[must_use]
pub fn scopes(access: &Access) -> Vec<(PathScope, ActionSet)> {
    match access {
        Access::Level(AccessLevel::Read) => {
            vec![
                (PathScope::Everything, ActionSet::FETCH),
                (PathScope::Reads, ActionSet::POST),
            ]
        }
        Access::Level(AccessLevel::ReadWrite | AccessLevel::Admin) => {
            vec![(PathScope::Everything, ActionSet::HTTP)]
        }
        Access::Actions(actions) => {
            let all = actions.iter().fold(ActionSet::default(), |set, action| {
                set.union(ActionSet::of(*action))
            });
            [
                (PathScope::Everything, all.intersection(ActionSet::HTTP)),
                (
                    PathScope::Domain,
                    all.intersection(ActionSet::CROSS_CLUSTER),
                ),
            ]
            .into_iter()
            .filter(|(_, actions)| !actions.is_empty())
            .collect()
        }
    }
}

/// What a grant compiles to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// What the domain's access policy must have; grants that ask for the same share it.
    pub permissions: Arc<Permissions>,
    /// The inline policies to attach.
    pub identity_policies: Vec<IdentityPolicy>,
    /// What the grant's author should know although nothing is wrong.
    pub warning: Option<&'static str>,
}

/// An inline policy on an IAM role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// The role.
    pub role: EntityArn,
    /// The policy's name: at most 128 of IAM's characters, unlike for each grant.
    pub name: String,
    /// The policy document, minified.
    pub document: String,
}

/// What decides what a grant compiles to, apart from its place and name.
type Body<'a> = (&'a [Principal], &'a Access, &'a [String], &'a Restrictions);

/// What a grant's access means: resources, each with the actions on it.
type Resources = Vec<(Arc<str>, ActionSet)>;

/// Compiles the grants of one domain; what many grants ask for alike is compiled once.
#[derive(Debug)]
pub struct Compiler<'a> {
    domain: &'a Domain,
    facts: DomainFacts,
    done: HashMap<Body<'a>, Arc<Permissions>>,
    resources: HashMap<(&'a Access, &'a [String]), Resources>,
}

impl<'a> Compiler<'a> {
    /// Prepares to compile grants of a domain.
    #[must_use]
    pub fn new(domain: &'a Domain, facts: DomainFacts) -> Self {
        Self {
            domain,
            facts,
            done: HashMap::new(),
            resources: HashMap::new(),
        }
    }

    /// Compiles a grant.
    pub fn grant(&mut self, grant: &'a ValidatedGrant) -> Compiled {
        let body: Body<'a> = (
            &grant.principals,
            &grant.access,
            &grant.paths,
            &grant.restrictions,
        );
        let (domain, facts) = (self.domain, self.facts);
        let permissions = self.done.entry(body).or_insert_with(|| {
            let place = (&grant.access, grant.paths.as_slice());
            let resources = self.resources.entry(place);
            let resources = resources.or_insert_with(|| resources_of(grant, domain, facts));
            Arc::new(permissions(grant, domain, resources))
        });
        let identity_policies = if grant.attach_identity_policy {
            identity_policies(grant, self.domain, permissions)
        } else {
            Vec::new()
        };
        Compiled {
            permissions: Arc::clone(permissions),
            identity_policies,
            warning: warning(grant, self.facts),
        }
    }
}

fn permissions(
    grant: &ValidatedGrant,
    domain: &Domain,
    resources: &[(Arc<str>, ActionSet)],
) -> Permissions {
    let condition: Arc<str> = condition(&grant.restrictions).into();
    let mut permissions = Permissions::default();
    let names = |principal: &Principal| -> Vec<Arc<str>> {
        match principal {
            Principal::Entity(_) | Principal::ServiceAccount(_) => {
                let entities = principal.entities().iter();
                entities.map(|arn| arn.as_str().into()).collect()
            }
            Principal::Account(account) => {
                vec![format!("arn:{}:iam::{account}:root", domain.arn.partition()).into()]
            }
            Principal::Anyone => vec![ANYONE.into()],
        }
    };
    for principal in grant.principals.iter().flat_map(names) {
        for (resource, actions) in resources {
            let permission = Permission {
                effect: Effect::Allow,
                principal: principal.clone(),
                resource: resource.clone(),
                condition: condition.clone(),
            };
            permissions.insert(permission, *actions);
        }
    }
    permissions
}

fn resources_of(
    grant: &ValidatedGrant,
    domain: &Domain,
    facts: DomainFacts,
) -> Vec<(Arc<str>, ActionSet)> {
    let mut found: Vec<(Arc<str>, ActionSet)> = Vec::new();
    for (scope, actions) in scopes(&grant.access) {
        let paths: Vec<String> = match scope {
            PathScope::Domain => {
                found.push((domain.arn.as_str().into(), actions));
                continue;
            }
            PathScope::Everything if grant.paths.is_empty() => vec!["*".into()],
            PathScope::Everything => grant
                .paths
                .iter()
                .flat_map(|path| with_everything_below(path))
                .collect(),
            PathScope::Reads => reads(&grant.paths),
        };
        found.extend(
            paths
                .iter()
                .map(|path| (domain.arn.resource(path).into(), actions)),
        );
    }
    if !grant.paths.is_empty() && facts.fine_grained {
        let bodies: &[&str] = match grant.access {
            Access::Level(AccessLevel::Read | AccessLevel::ReadWrite) => &READS_BY_BODY,
            _ => &[],
        };
        found.extend(
            bodies
                .iter()
                .map(|path| (domain.arn.resource(path).into(), ActionSet::POST)),
        );
        if grant.access == Access::Level(AccessLevel::ReadWrite) {
            let writes = ActionSet::POST.union(ActionSet::of(Action::Put));
            found.push((domain.arn.resource(BULK).into(), writes));
        }
    }
    if !grant.paths.is_empty() && matches!(grant.access, Access::Level(AccessLevel::ReadWrite)) {
        found.push((domain.arn.resource(SCROLL).into(), ActionSet::POST));
    }
    found
}

/// Returns the resources for a path and everything below it. `index/*` alone would miss the index
/// itself, `DELETE /index` for one.
fn with_everything_below(path: &str) -> Vec<String> {
    if path.ends_with('*') {
        vec![path.to_owned()]
    } else {
        vec![path.to_owned(), format!("{path}/*")]
    }
}

fn reads(paths: &[String]) -> Vec<String> {
    let scroll = std::iter::once(SCROLL.to_owned());
    if paths.is_empty() {
        let below = READS_BELOW_INDEX.iter().map(|read| format!("*/{read}"));
        return READS_OF_ALL
            .iter()
            .map(|&read| read.to_owned())
            .chain(below)
            .chain(scroll)
            .collect();
    }
    let below = paths.iter().flat_map(|path| match path.split_once('/') {
        None => READS_BELOW_INDEX
            .iter()
            .map(|read| format!("{path}/{read}"))
            .collect(),
        // A path below an index is an endpoint: posting there is a read only where it is one.
        Some((_, endpoint)) if READS_BELOW_INDEX.contains(&endpoint) => vec![path.clone()],
        Some(_) => Vec::new(),
    });
    below.chain(scroll).collect()
}

fn warning(grant: &ValidatedGrant, facts: DomainFacts) -> Option<&'static str> {
    const LISTS: &str = "a path rule sees the path of a request alone: one that lists further indexes after an allowed name, separated by commas, passes it by. _bulk, _msearch and _mget without an index in the path are left out of this grant. Fine-grained access control keeps indexes apart";
    const BODIES: &str = "a path rule sees the path of a request alone: one that names other indexes in its body, or lists them after an allowed name, passes it by. _bulk, _msearch and _mget without an index in the path are left out of this grant. Fine-grained access control keeps indexes apart; rest.action.multi.allow_explicit_index=false refuses indexes in bodies";
    if grant.paths.is_empty() || facts.fine_grained {
        return None;
    }
    Some(if facts.explicit_index_forbidden {
        LISTS
    } else {
        BODIES
    })
}

/// Returns the canonical condition block of a grant; empty without conditions.
fn condition(restrictions: &Restrictions) -> String {
    let addresses: Vec<String> = restrictions
        .source_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    let blocks = [
        ("IpAddress", "aws:SourceIp", &addresses),
        (
            "StringEquals",
            "aws:PrincipalOrgID",
            &restrictions.principal_org_ids,
        ),
        (
            "StringEquals",
            "aws:PrincipalAccount",
            &restrictions.principal_accounts,
        ),
        ("StringEquals", "aws:SourceVpc", &restrictions.source_vpcs),
        ("StringEquals", "aws:SourceVpce", &restrictions.source_vpces),
    ];
    let mut operators = Map::new();
    for (operator, key, values) in blocks {
        if values.is_empty() {
            continue;
        }
        let keys = operators
            .entry(operator)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(keys) = keys {
            keys.insert(key.to_owned(), values.iter().map(String::as_str).collect());
        }
    }
    canonical::condition(&operators).unwrap_or_else(|| Value::Object(operators).to_string())
}

/// Builds the inline policies of a grant: the statements of its access policy without a principal,
/// since an identity policy's principal is the role that it is on.
fn identity_policies(
    grant: &ValidatedGrant,
    domain: &Domain,
    permissions: &Permissions,
) -> Vec<IdentityPolicy> {
    let name = identity_policy_name(grant, domain);
    grant
        .entities()
        .map(|role| {
            let mut own = Permissions::default();
            for (permission, actions) in permissions.iter() {
                if &*permission.principal == role.as_str() {
                    own.insert(permission.clone(), actions);
                }
            }
            let statements: Vec<Value> = own
                .to_statements()
                .iter()
                .map(|statement| {
                    let mut members = statement.members().clone();
                    members.remove("Principal");
                    Value::Object(members)
                })
                .collect();
            let mut document = Map::new();
            document.insert("Version".into(), "2012-10-17".into());
            document.insert("Statement".into(), Value::Array(statements));
            IdentityPolicy {
                role: role.clone(),
                name: name.clone(),
                document: Value::Object(document).to_string(),
            }
        })
        .collect()
}

/// Returns the name of a grant's inline policies.
///
/// The readable part may be cut; the hash of the domain and of the grant's place keeps two grants
/// apart. IAM allows 128 characters of `[\w+=,.@-]`, which every part is made of.
fn identity_policy_name(grant: &ValidatedGrant, domain: &Domain) -> String {
    let key = &grant.key;
    let identity = format!("{}|{}|{}", domain.arn, key.namespace, key.name);
    let hash = short_hash(Sha256::new_with_prefix(identity));
    let readable: String = format!("opensearch-access.{}.{}", key.namespace, key.name)
        .chars()
        .take(111)
        .collect();
    format!("{readable}.{hash}")
}

/// Returns the first 16 hexadecimal digits of a digest: enough to tell a cluster's grants apart.
fn short_hash(digest: Sha256) -> String {
    let digest = digest.finalize();
    format!(
        "{:016x}",
        digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
    )
}
