//! `DomainAccess`: a team's wish that principals may use a domain.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own type and path"
)]
#![allow(
    unreachable_pub,
    reason = "`KubeSchema` expands to a private copy of each struct, whose `pub` the lint sees"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A grant: who may use an Amazon OpenSearch Service domain, how, on which index paths, from where
/// and until when.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "opensearch-access.io",
    version = "v1alpha1",
    kind = "DomainAccess",
    plural = "domainaccesses",
    singular = "domainaccess",
    shortname = "osda",
    category = "opensearch",
    selectable = ".spec.domainRef.name",
    namespaced,
    status = "DomainAccessStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A grant: who may use an Amazon OpenSearch Service domain, how, on which index paths, from where and until when. The operator compiles all grants of a domain into the domain's one access policy.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainRef.name"),
    printcolumn(name = "Access", type_ = "string", json_path = ".spec.access"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.expiresAt",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.access) != (has(self.actions) && size(self.actions) > 0)")
        .message("set exactly one of access and actions"),
    validation = Rule::new(
        "!(has(self.access) && self.access == 'Admin' && has(self.paths) && size(self.paths) > 0)"
    )
    .message("access Admin is for the whole domain: leave paths out, or ask for ReadWrite"),
    validation = Rule::new(
        "!(has(self.actions) && 'es:ESCrossClusterGet' in self.actions && has(self.paths) && size(self.paths) > 0)"
    )
    .message("es:ESCrossClusterGet is for the whole domain: put it into a grant without paths"),
    validation = Rule::new("!has(self.paths) || size(self.principals) * size(self.paths) <= 500")
        .message("principals times paths must be at most 500: split the grant"),
    validation = Rule::new(
        "!self.principals.exists(p, has(p.anonymous)) || (has(self.conditions) && has(self.conditions.sourceIps) && size(self.conditions.sourceIps) > 0)"
    )
    .message("an anonymous principal needs conditions.sourceIps: without it everybody could use the domain"),
    validation = Rule::new(
        "!has(self.identityPolicy) || self.identityPolicy != 'Attach' || self.principals.all(p, has(p.iamRole) || has(p.serviceAccount))"
    )
    .message("identityPolicy Attach writes to IAM roles: every principal must be an iamRole or a serviceAccount"),
    validation = Rule::new(
        "!has(self.securityRoles) || size(self.securityRoles) == 0 || self.principals.all(p, has(p.iamRole) || has(p.iamUser) || has(p.serviceAccount))"
    )
    .message("securityRoles map IAM roles, IAM users and service accounts: put account and anonymous principals into another grant")
)]
pub struct DomainAccessSpec {
    /// The `OpenSearchDomain` that the grant is for. It cannot change.
    #[x_kube(validation = Rule::new("self.name == oldSelf.name").message("domainRef cannot change: delete this grant and create another"))]
    pub domain_ref: DomainRef,

    /// Who is granted access: 1 to 100 principals.
    #[schemars(length(min = 1, max = 100))]
    pub principals: Vec<Principal>,

    /// The level of access. `Read`: GET and HEAD on the paths, and POST where clients post their
    /// reads (such as `_search`). `ReadWrite`: every method on the paths. `Admin`: every method on
    /// the whole domain. Set either this or `actions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessLevel>,

    /// The exact actions, instead of a level of access.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub actions: Vec<Action>,

    /// The index paths, without a leading slash, such as `team-a-*`, `logs` or `logs/_search`.
    /// An index covers everything below it. Absent: the whole domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 255)))]
    #[x_kube(validation = Rule::new(
        "self.all(p, p.matches('^[a-z0-9][a-z0-9._*-]*(/[A-Za-z0-9_*][A-Za-z0-9._*-]*)*$') && !p.contains('..'))"
    ).message("a path begins with an index name (lowercase letters, digits, . _ - and *; first a letter or digit), without a leading slash, '..' or percent-encoding"))]
    pub paths: Vec<String>,

    /// Conditions that a request must meet; all of them, each with any one of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,

    /// The roles of fine-grained access control that the principals are mapped to, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^([^/*?][^*?]*)?$'))")
        .message("must be names of roles, without wildcards"))]
    pub security_roles: Vec<String>,

    /// `Attach` also writes an inline policy with this grant on each IAM role, which roles of other
    /// accounts and domains without a policy of their own need. Default `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_policy: Option<IdentityPolicyMode>,

    /// The time at which the grant is revoked by itself, such as `2026-12-31T23:59:59Z`. Absent:
    /// never, or after the domain's `maxDuration`.
    // No `format: date-time`: the API server takes spellings for it that no parser here does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 35))]
    #[x_kube(validation = Rule::new(
        "self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$') && timestamp(self) < timestamp('9999-01-01T00:00:00Z')"
    ).message("must be a time before the year 9999 with its zone, such as 2026-12-31T23:59:59Z; without expiresAt a grant lasts"))]
    pub expires_at: Option<Time>,
}

/// A reference to an `OpenSearchDomain`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DomainRef {
    /// The name of the `OpenSearchDomain`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of an OpenSearchDomain: lowercase letters, digits, '-' and '.'"))]
    pub name: String,
}

/// One principal: exactly one of the fields is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.iamRole), has(self.iamUser), has(self.serviceAccount), has(self.account), has(self.anonymous)].filter(x, x).size() == 1"
).message("set exactly one of iamRole, iamUser, serviceAccount, account and anonymous"))]
pub struct Principal {
    /// An IAM role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_role: Option<IamRole>,
    /// An IAM user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_user: Option<IamUser>,
    /// A service account of the grant's namespace, by the IAM role that its pods get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// A whole AWS account, which decides by its identity policies who of it may use the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Everybody, without a signature; only together with `conditions.sourceIps`. Write
    /// `anonymous: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

/// An IAM role by its ARN.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct IamRole {
    /// The role's ARN, path included, such as `arn:aws:iam::111122223333:role/search-api`.
    #[schemars(length(max = 640))]
    #[x_kube(validation = Rule::new(
        "self.matches('^arn:aws(-cn|-us-gov|-iso(-[bef])?|-eusc)?:iam::[0-9]{12}:role/([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]+$')"
    ).message("must be the ARN of one IAM role, arn:PARTITION:iam::ACCOUNT:role/NAME, without wildcards"))]
    pub arn: String,
}

/// An IAM user by its ARN.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct IamUser {
    /// The user's ARN, path included, such as `arn:aws:iam::111122223333:user/ann`.
    #[schemars(length(max = 640))]
    #[x_kube(validation = Rule::new(
        "self.matches('^arn:aws(-cn|-us-gov|-iso(-[bef])?|-eusc)?:iam::[0-9]{12}:user/([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]+$')"
    ).message("must be the ARN of one IAM user, arn:PARTITION:iam::ACCOUNT:user/NAME, without wildcards"))]
    pub arn: String,
}

/// A service account of the grant's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// The service account's name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a service account in the grant's namespace"))]
    pub name: String,
}

/// A whole AWS account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The account id: 12 digits, in quotes.
    #[schemars(length(max = 12))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{12}$')").message("must be an AWS account id: 12 digits"))]
    pub id: String,
}

/// Everybody, without a signature.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
pub struct Anonymous {}

/// A level of access at the domain's door.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
#[schemars(transform = super::described_by_its_field)]
pub enum AccessLevel {
    /// GET and HEAD, and POST where clients post their reads.
    Read,
    /// Every method on the paths.
    ReadWrite,
    /// Every method on the whole domain.
    Admin,
}

impl AccessLevel {
    /// Returns the level as manifests spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::ReadWrite => "ReadWrite",
            Self::Admin => "Admin",
        }
    }
}

/// An action that a domain's access policy can grant.
///
/// The list is closed: calls that configure a domain (such as `es:UpdateDomainConfig`) are none of
/// a domain policy's business.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
pub enum Action {
    /// Every HTTP method; in a domain's policy the same as `es:ESHttp*`.
    #[serde(rename = "es:*")]
    All,
    /// Every HTTP method.
    #[serde(rename = "es:ESHttp*")]
    Http,
    /// GET.
    #[serde(rename = "es:ESHttpGet")]
    Get,
    /// HEAD.
    #[serde(rename = "es:ESHttpHead")]
    Head,
    /// POST.
    #[serde(rename = "es:ESHttpPost")]
    Post,
    /// PUT.
    #[serde(rename = "es:ESHttpPut")]
    Put,
    /// PATCH.
    #[serde(rename = "es:ESHttpPatch")]
    Patch,
    /// DELETE.
    #[serde(rename = "es:ESHttpDelete")]
    Delete,
    /// Searches from another cluster.
    #[serde(rename = "es:ESCrossClusterGet")]
    CrossClusterGet,
}

/// Conditions that a request must meet; all of them, each with any one of its values.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Conditions {
    /// Public addresses or CIDR blocks that requests come from, such as `198.51.100.7` or
    /// `203.0.113.0/24`. A domain inside a VPC cannot check them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 43)))]
    #[x_kube(
        validation = Rule::new("self.all(x, isIP(x) || isCIDR(x))")
            .message("each source must be an IP address or a CIDR block, such as 198.51.100.7 or 203.0.113.0/24"),
        validation = Rule::new(
            "self.all(x, !isCIDR(x) || cidr(x).prefixLength() >= (cidr(x).ip().family() == 4 ? 8 : 16))"
        ).message("a source block may be no wider than /8 (IPv4) or /16 (IPv6): wider is open to the public")
    )]
    pub source_ips: Vec<String>,

    /// AWS organizations that the principals must belong to, such as `o-a1b2c3d4e5`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 34)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^o-[a-z0-9]{10,32}$'))")
        .message("must be organization ids, such as o-a1b2c3d4e5"))]
    pub principal_org_ids: Vec<String>,

    /// AWS accounts that the principals must belong to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 12)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^[0-9]{12}$'))")
        .message("must be AWS account ids: 12 digits"))]
    pub principal_accounts: Vec<String>,

    /// VPCs that requests come from, such as `vpc-0a1b2c3d`. Known to AWS only for requests through
    /// a VPC endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 30)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^vpc-[0-9a-f]{8,17}$'))")
        .message("must be VPC ids, such as vpc-0a1b2c3d"))]
    pub source_vpcs: Vec<String>,

    /// VPC endpoints that requests come through, such as `vpce-0a1b2c3d`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 30)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^vpce-[0-9a-f]{8,17}$'))")
        .message("must be VPC endpoint ids, such as vpce-0a1b2c3d"))]
    pub source_vpces: Vec<String>,
}

/// Whether a grant also writes identity policies.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum IdentityPolicyMode {
    /// Only the domain's access policy is written.
    None,
    /// An inline policy is attached to each IAM role too.
    Attach,
}

/// What the operator made of a grant.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainAccessStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The time at which the grant ends by itself, from `spec.expiresAt` or the domain's
    /// `maxDuration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// The service accounts that the grant names, with the IAM roles that it is granted to by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub service_accounts: Vec<ResolvedServiceAccount>,
    /// `Ready`, `Accepted`, `ResolvedRefs`, `AccessPolicyApplied`; `IdentityPolicyApplied` where the
    /// grant asks for it, and `PathsEnforced` where the domain does not hold its paths. While it is
    /// not `Ready`: `Reconciling`, where that may come by itself, or `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A service account and the IAM role that its pods get.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedServiceAccount {
    /// The service account's name.
    pub name: String,
    /// The role's ARN.
    pub role_arn: String,
    /// Where the role was found: `PodIdentityAssociation` or `Annotation`.
    pub source: String,
}
