//! `DomainRole`: a role of a domain's fine-grained access control.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own type and path"
)]
#![allow(
    unreachable_pub,
    reason = "`KubeSchema` expands to a private copy of each struct, whose `pub` the lint sees"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::access::DomainRef;
use super::definition::{Adoption, DefinitionStatus, Removal};

/// A role of fine-grained access control on an Amazon OpenSearch Service domain: what whoever is mapped to it may do with the cluster, with indexes and with tenants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "opensearch-access.io",
    version = "v1alpha1",
    kind = "DomainRole",
    plural = "domainroles",
    singular = "domainrole",
    shortname = "osdr",
    category = "opensearch",
    selectable = ".spec.domainRef.name",
    namespaced,
    status = "DefinitionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A role of fine-grained access control on an Amazon OpenSearch Service domain: what whoever is mapped to it may do with the cluster, with indexes and with tenants.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainRef.name"),
    printcolumn(name = "Name", type_ = "string", json_path = ".status.name"),
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
    validation = Rule::new(
        "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)"
    )
    .message("name cannot change: delete this object and create another"),
    validation = Rule::new(
        "(has(self.clusterPermissions) && size(self.clusterPermissions) > 0) || (has(self.indexPermissions) && size(self.indexPermissions) > 0) || (has(self.tenantPermissions) && size(self.tenantPermissions) > 0)"
    )
    .message("a role needs clusterPermissions, indexPermissions or tenantPermissions")
)]
pub struct DomainRoleSpec {
    /// The `OpenSearchDomain` that the role is for. It cannot change.
    #[x_kube(validation = Rule::new("self.name == oldSelf.name").message("domainRef cannot change: delete this object and create another"))]
    pub domain_ref: DomainRef,

    /// The name in the domain's security plugin, where the domain's consent allows another than
    /// `<namespace>.<name>`. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')")
        .message("must be a name of letters, digits, '.', '_' and '-', which begins with a letter or digit"))]
    pub name: Option<String>,

    /// What people should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,

    /// Permissions that are about the cluster, and about requests that name indexes in their body,
    /// such as `cluster_composite_ops_ro`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    pub cluster_permissions: Vec<String>,

    /// Permissions on indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub index_permissions: Vec<IndexPermissions>,

    /// Permissions on tenants of OpenSearch Dashboards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tenant_permissions: Vec<TenantPermissions>,

    /// `IfSame` (default): what the plugin has under this name already is taken over if it says the
    /// same. `Replace`: it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,

    /// `Delete` (default): the role is deleted with this object. `Retain`: it is left in the
    /// plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<Removal>,
}

/// What a role may do with some indexes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct IndexPermissions {
    /// The indexes, by name, with `*` and `?` as wildcards, such as `team-a-*`.
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^[a-z0-9.*?_][a-z0-9._*?+-]*$'))")
        .message("a pattern is an index name (lowercase letters, digits, . _ + and -) with * and ? as wildcards; regular expressions and variables are not allowed"))]
    pub index_patterns: Vec<String>,

    /// The permissions: names of actions, with `*` as a wildcard, and of action groups, such as
    /// `read`.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)))]
    pub allowed_actions: Vec<String>,

    /// Document-level security: a query, as JSON text, that a document must match to be seen, such
    /// as `{"term": {"team": "a"}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10000))]
    pub dls: Option<String>,

    /// Field-level security: the fields that are seen, or, with `~` before each, those that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new("self.all(f, f.startsWith('~')) || self.all(f, !f.startsWith('~'))")
        .message("name either the fields that are seen or, each with ~, those that are not"))]
    pub fls: Vec<String>,

    /// Fields whose values are replaced by a hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 256)))]
    pub masked_fields: Vec<String>,
}

/// What a role may do with some tenants.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TenantPermissions {
    /// The tenants, by name, with `*` as a wildcard.
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^[A-Za-z0-9*][A-Za-z0-9._*-]*$'))")
        .message("a pattern is a name of letters, digits, '.', '_' and '-', with * as a wildcard"))]
    pub tenant_patterns: Vec<String>,

    /// `kibana_all_read` or `kibana_all_write`.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(validation = Rule::new("self.all(x, x == 'kibana_all_read' || x == 'kibana_all_write')")
        .message("must be kibana_all_read or kibana_all_write"))]
    pub allowed_actions: Vec<String>,
}
