//! What `DomainRole`, `DomainTenant` and `DomainActionGroup` have in common: things of a domain's
//! security plugin that a team defines.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens where the plugin has something of the name already that the operator did not write.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum Adoption {
    /// It is taken over if it says the same, and refused otherwise.
    #[default]
    IfSame,
    /// It is taken over, and replaced by what the object says.
    Replace,
}

/// What happens to what is defined in the plugin when its object is deleted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
#[schemars(transform = super::described_by_its_field)]
pub enum Removal {
    /// It is deleted.
    #[default]
    Delete,
    /// It is left as it is.
    Retain,
}

/// What the operator made of a definition.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The name in the domain's security plugin, by which grants and other definitions name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Ready`, `Accepted` and `Defined`. While it is not `Ready`: `Reconciling`, where that may come by
    /// itself, or `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
