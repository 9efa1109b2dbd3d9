//! `OpenSearchDomain`: a domain, and who may grant on it.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own type and path"
)]
#![allow(
    unreachable_pub,
    reason = "`KubeSchema` expands to a private copy of each struct, whose `pub` the lint sees"
)]

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{AccessLevel, Action};

/// An Amazon OpenSearch Service domain whose access policy the operator manages, and the
/// namespaces that may grant on it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "opensearch-access.io",
    version = "v1alpha1",
    kind = "OpenSearchDomain",
    shortname = "osd",
    category = "opensearch",
    status = "OpenSearchDomainStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An Amazon OpenSearch Service domain whose access policy the operator manages, and the namespaces that may grant on it. For platform admins.",
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("the name of an OpenSearchDomain has at most 63 characters"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainName"),
    printcolumn(name = "Account", type_ = "string", json_path = ".spec.accountId"),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.accessPolicy.mode"),
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
    printcolumn(name = "Grants", type_ = "integer", json_path = ".status.grants.applied"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.grants.refused"),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        json_path = ".status.accessPolicy.bytes",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "self.domainName == oldSelf.domainName && self.accountId == oldSelf.accountId && self.region == oldSelf.region"
    )
    .message("domainName, accountId and region cannot change: create another OpenSearchDomain"),
    validation = Rule::new(
        "!has(self.assumeRole) || self.assumeRole.arn.split(':').size() != 6 || self.assumeRole.arn.split(':')[4] == self.accountId"
    )
    .message("assumeRole.arn must be a role of the domain's account, accountId")
)]
pub struct OpenSearchDomainSpec {
    /// The domain's name in AWS. It cannot change.
    #[schemars(length(max = 28))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9-]{2,27}$')")
        .message("must be 3 to 28 lowercase letters, digits and hyphens, beginning with a letter"))]
    pub domain_name: String,

    /// The AWS account that the domain is in: 12 digits, in quotes. It cannot change.
    #[schemars(length(max = 12))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{12}$')").message("must be an AWS account id: 12 digits"))]
    pub account_id: String,

    /// The AWS region that the domain is in, such as `eu-west-1`. It cannot change.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')")
        .message("must be an AWS region, such as eu-west-1"))]
    pub region: String,

    /// The role through which the operator works on the domain. Absent: the operator's own
    /// identity, which must then be of the domain's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,

    /// How the domain's access policy is managed.
    #[serde(default)]
    pub access_policy: AccessPolicySettings,

    /// Says that the domain has fine-grained access control, and how its roles are managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_grained_access: Option<FineGrainedAccess>,

    /// Which namespaces may grant on the domain, and how much. The first entry that names a
    /// namespace decides; entries that select it by labels come after all that name it. A
    /// namespace without an entry may grant nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub consent: Vec<Consent>,

    /// What happens to the granted statements when this object is deleted: `Retain` (default)
    /// leaves the access policy as it is, `Revoke` removes them first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// While true, the operator reads but does not write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// How often the domain is looked at without a change in the cluster, such as `10m` (default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,4}(s|m|h)$') && duration(self) >= duration('10s')")
        .message("must be a duration of at least 10s, such as 10m or 1h"))]
    pub interval: Option<String>,

    /// What the signing proxy of a pod that uses this domain looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_proxy: Option<SigningProxy>,
}

/// What the signing proxy of a pod that uses the domain looks like.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SigningProxy {
    /// The port on the pod's loopback address. Default 9200, and the next free one for a pod's
    /// further domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: Option<i32>,
    /// Whether the proxy passes reads only. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// How much the proxy logs. `Error`: failures of the proxy itself. `Warn`: failures of requests
    /// too. `Info` (default): one line a request too. `Debug`: the proxy's decisions too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// The proxy container's requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// How much a proxy logs.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum LogLevel {
    /// Failures of the proxy itself.
    Error,
    /// Failures of requests too.
    Warn,
    /// One line a request too.
    Info,
    /// The proxy's decisions too; never a header's value or a body.
    Debug,
}

/// A role that the operator assumes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// The role's ARN; a role of the domain's account.
    #[schemars(length(max = 640))]
    #[x_kube(validation = Rule::new(
        "self.matches('^arn:aws(-cn|-us-gov|-iso(-[bef])?|-eusc)?:iam::[0-9]{12}:role/([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]+$')"
    ).message("must be the ARN of one IAM role, arn:PARTITION:iam::ACCOUNT:role/NAME"))]
    pub arn: String,
    /// The external id that the role's trust policy demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,
}

/// How the domain's access policy is managed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicySettings {
    /// `Merge` (default): statements that others wrote stay. `Own`: what others allowed is removed;
    /// their denials stay. `Observe`: nothing is written, and the status says what would be.
    #[serde(default)]
    pub mode: PolicyMode,
}

/// How the domain's access policy is managed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PolicyMode {
    /// Statements that others wrote stay.
    #[default]
    Merge,
    /// What others allowed is removed; their denials stay.
    Own,
    /// Nothing is written.
    Observe,
}

/// What the operator knows of the domain's fine-grained access control.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FineGrainedAccess {
    /// As for `accessPolicy.mode`.
    #[serde(default)]
    pub mode: PolicyMode,
    /// The domain's master user, which no write of the operator may shut out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 640))]
    #[x_kube(validation = Rule::new(
        "self.matches('^arn:aws(-cn|-us-gov|-iso(-[bef])?|-eusc)?:iam::[0-9]{12}:(role|user)/([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]+$')"
    ).message("must be the ARN of one IAM role or user"))]
    pub master_user_arn: Option<String>,
    /// Roles of the security plugin that no grant may map to, besides `all_access` and
    /// `security_manager`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 256)))]
    pub protected_roles: Vec<String>,
}

/// What happens to granted statements when an `OpenSearchDomain` is deleted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum DeletionPolicy {
    /// The access policy is left as it is.
    #[default]
    Retain,
    /// The granted statements are removed.
    Revoke,
}

/// Which namespaces may grant on the domain, and how much.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.namespaces) && size(self.namespaces) > 0) != has(self.namespaceSelector)"
    )
    .message("set exactly one of namespaces and namespaceSelector"),
    validation = Rule::new(
        "!has(self.namespaceSelector) || (has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0) || (has(self.namespaceSelector.matchExpressions) && size(self.namespaceSelector.matchExpressions) > 0)"
    )
    .message("an empty namespaceSelector would consent to every namespace: name labels")
)]
pub struct Consent {
    /// The namespaces, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(max = 63)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^[a-z0-9-]+$'))")
        .message("must be names of namespaces, without wildcards; namespaceSelector selects by labels"))]
    pub namespaces: Vec<String>,
    /// The namespaces, by labels. Choose labels that tenants cannot set on their own namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The most that a grant from these namespaces may ask for.
    pub ceiling: Ceiling,
}

/// The most that a grant may ask for. In paths, ARN patterns and role names,
/// `{{namespace}}` stands for the grant's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.access) != (has(self.actions) && size(self.actions) > 0)")
        .message("set exactly one of access and actions"),
    validation = Rule::new(
        "!has(self.anonymous) || !self.anonymous || (has(self.sourceIps) && size(self.sourceIps) > 0)"
    )
    .message("anonymous needs sourceIps: the addresses that unsigned requests may come from")
)]
pub struct Ceiling {
    /// The highest level of access: `Read`, `ReadWrite` or `Admin`, as in a grant. Set either this
    /// or `actions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessLevel>,
    /// The actions, instead of a level of access.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub actions: Vec<Action>,
    /// The index paths, such as `{{namespace}}-*`. Absent: the whole domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new(
        "self.all(p, p.matches('^([a-z0-9]|[{][{]namespace[}][}])([a-z0-9._*-]|[{][{]namespace[}][}])*(/[A-Za-z0-9_*][A-Za-z0-9._*-]*)*$') && !p.contains('..'))"
    ).message("a path begins with an index name (lowercase letters, digits, . _ - * and {{namespace}}), without a leading slash, '..' or percent-encoding"))]
    pub paths: Vec<String>,
    /// Which principals may be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<PrincipalCeiling>,
    /// The addresses that `sourceIps` of a grant must lie within. Absent: a grant may name any that
    /// are not open to the public, but not be anonymous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(x, isIP(x) || isCIDR(x))")
        .message("each source must be an IP address or a CIDR block, such as 203.0.113.0/24"))]
    pub source_ips: Vec<String>,
    /// The security roles that may be mapped, with `*` as a wildcard, such as `{{namespace}}.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub security_roles: Vec<String>,
    /// What roles, tenants and action groups that the namespace defines may be beyond the usual:
    /// without this, each is named `<namespace>.<name>`, and a role's permissions stay within
    /// `access` and `paths`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<DefinitionCeiling>,
    /// Whether unsigned access from `sourceIps` may be granted. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// Whether a grant may attach inline policies to IAM roles of the domain's account. Default
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_policies: Option<bool>,
    /// How many grants a namespace may have on the domain. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_grants: Option<i32>,
    /// The longest that a grant may last ahead of now, such as `90d`. A grant without `expiresAt`
    /// ends that long after its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,6}(s|m|h|d)$')")
        .message("must be a duration, such as 12h or 90d"))]
    pub max_duration: Option<String>,
}

/// What definitions of a namespace may be beyond the usual.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionCeiling {
    /// Patterns of names, besides `<namespace>.*`, that roles, tenants and action groups may have,
    /// such as `shared-{{namespace}}-*`. What exists under such a name can be taken over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub names: Vec<String>,
    /// Cluster permissions, besides those of `cluster_composite_ops`, that roles and action groups
    /// may have, such as `cluster_monitor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub cluster_permissions: Vec<String>,
    /// Patterns of tenants, besides `<namespace>.*`, that roles may have permissions on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub tenants: Vec<String>,
}

/// Which principals a grant may name: those that any of the fields allows.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalCeiling {
    /// Accounts whose roles and users may be named, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 12)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^[0-9]{12}$'))")
        .message("must be AWS account ids: 12 digits"))]
    pub accounts: Vec<String>,
    /// Patterns of ARNs that may be named, such as
    /// `arn:aws:iam::111122223333:role/{{namespace}}-*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 200)))]
    #[x_kube(validation = Rule::new(
        "self.all(x, x.matches('^arn:aws(-cn|-us-gov|-iso(-[bef])?|-eusc)?:iam::[0-9]{12}:(role|user)/([A-Za-z0-9+=,.@_/*-]|[{][{]namespace[}][}])+$'))"
    ).message("must be patterns of role or user ARNs with a full account id, such as arn:aws:iam::111122223333:role/{{namespace}}-*"))]
    pub arns: Vec<String>,
    /// Accounts that may be granted access as a whole, by `account.id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 12)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^[0-9]{12}$'))")
        .message("must be AWS account ids: 12 digits"))]
    pub whole_accounts: Vec<String>,
    /// Organizations: a principal of any account may be named if the grant's
    /// `conditions.principalOrgIds` keeps it within these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 34)))]
    #[x_kube(validation = Rule::new("self.all(x, x.matches('^o-[a-z0-9]{10,32}$'))")
        .message("must be organization ids, such as o-a1b2c3d4e5"))]
    pub organization_ids: Vec<String>,
    /// Whether service accounts of the namespace may be named. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<bool>,
}

/// What the operator made of a domain.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenSearchDomainStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The domain's ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Where the domain is reached, without a scheme: what the signing proxies of pods forward to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How many grants are in place and how many are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantCounts>,
    /// The access policy as it was last read from AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_policy: Option<AccessPolicyStatus>,
    /// `Ready` and `AccessPolicyApplied`. While it is not `Ready`: `Reconciling`, where that may come by
    /// itself, or `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many grants a domain has.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantCounts {
    /// Grants that are in place.
    pub applied: i32,
    /// Grants that wait for a write, or for the domain to take it over.
    pub pending: i32,
    /// Grants that are refused; each says why in its own status.
    pub refused: i32,
}

/// The access policy as it was last read from AWS.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicyStatus {
    /// Its size; AWS stores at most 102400.
    pub bytes: i32,
    /// The number of its statements.
    pub statements: i32,
    /// The number of its statements that others wrote.
    pub foreign_statements: i32,
    /// The version that AWS counts with each change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_version: Option<i32>,
    /// When the operator last changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_write: Option<Time>,
    /// In mode `Observe`, or while suspended: how many statements a write would add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_add: Option<i32>,
    /// In mode `Observe`, or while suspended: how many statements a write would remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_remove: Option<i32>,
}
