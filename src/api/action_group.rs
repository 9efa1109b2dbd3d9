//! `DomainActionGroup`: a name for several permissions of a domain.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own type and path"
)]
#![allow(
    unreachable_pub,
    reason = "`KubeSchema` expands to a private copy of each struct, whose `pub` the lint sees"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::DomainRef;
use super::definition::{Adoption, DefinitionStatus, Removal};

/// An action group of an Amazon OpenSearch Service domain: a name for several permissions, which roles of the namespace can name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "opensearch-access.io",
    version = "v1alpha1",
    kind = "DomainActionGroup",
    plural = "domainactiongroups",
    singular = "domainactiongroup",
    shortname = "osdag",
    category = "opensearch",
    selectable = ".spec.domainRef.name",
    namespaced,
    status = "DefinitionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An action group of an Amazon OpenSearch Service domain: a name for several permissions, which roles of the namespace can name.",
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
    .message("name cannot change: delete this object and create another")
)]
pub struct DomainActionGroupSpec {
    /// The `OpenSearchDomain` that the action group is for. It cannot change.
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

    /// What the permissions are about: `Index` or `Cluster`.
    #[serde(rename = "type")]
    pub type_: ActionGroupType,

    /// The permissions: names of actions, with `*` as a wildcard, and of action groups; 1 to 100.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)))]
    pub allowed_actions: Vec<String>,

    /// `IfSame` (default): what the plugin has under this name already is taken over if it says the
    /// same. `Replace`: it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,

    /// `Delete` (default): the action group is deleted with this object. `Retain`: it is left in the
    /// plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<Removal>,
}

/// What the permissions of an action group are about.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum ActionGroupType {
    /// Indexes.
    #[default]
    Index,
    /// The cluster.
    Cluster,
}
