//! What a plan says; the JSON output is this.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::api::arn::DomainArn;
use crate::policy::document::Document;

/// What the plan of all domains says; the JSON output is this.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By the name of the `OpenSearchDomain`.
    pub domains: BTreeMap<String, DomainReport>,
}

/// What the plan of one domain says.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainReport {
    /// The whole access policy as it would be; `null` for no policy at all.
    pub access_policy: Option<Value>,
    /// The statements that the write would add, by meaning.
    pub added: Vec<Value>,
    /// The statements that the write would remove, by meaning.
    pub removed: Vec<Value>,
    /// The grants that are not in it, and why.
    pub refused: Vec<Refused>,
    /// What would be in the security plugin by the objects that define something there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<Defined>,
    /// What grants' authors should know although nothing is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The inline policies that grants attach to IAM roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identity_policies: Vec<AttachedPolicy>,
    /// The inline policies that are on record, and that no grant asks for any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identity_removals: Vec<RemovedPolicy>,
    /// Why nothing would be written, where a guard fired or the domain could not be planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Why grants that are gone would not be revoked; everything else goes its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// What to know about the domain although nothing is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The domain's ARN, where the manifest names one; for the diff.
    #[serde(skip)]
    pub arn: Option<DomainArn>,
    /// The policy as it is; for the diff.
    #[serde(skip)]
    pub current: Document,
    /// The policy as it would be; for the diff.
    #[serde(skip)]
    pub planned: Document,
    /// The number of statements that stay because others wrote them.
    #[serde(skip)]
    pub foreign: usize,
    /// Whether the policy would be written.
    #[serde(skip)]
    pub writes: bool,
    /// Whether the domain's manifest breaks rules, so that nothing could be planned.
    #[serde(skip)]
    pub unusable: bool,
    /// Whether nothing is planned although the manifest is sound: nothing is said of its grants.
    #[serde(skip)]
    pub unplanned: bool,
    /// The file that the domain came from; empty without one.
    #[serde(skip)]
    pub file: String,
}

/// Something that an object defines in the security plugin.
#[derive(Debug, Serialize)]
pub struct Defined {
    /// The object's kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name in the plugin.
    pub entity: String,
}

/// A grant or a definition that is refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The reason, as the grant's `Ready` condition would carry it.
    pub reason: &'static str,
    /// The field, the rule, and what to do.
    pub message: String,
    /// The file that it came from; for the error output.
    #[serde(skip)]
    pub file: String,
}

/// Something that a grant's author should know.
#[derive(Debug, Serialize)]
pub struct Warning {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// What to know.
    pub message: String,
}

/// An inline policy on an IAM role.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedPolicy {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The inline policy's name.
    pub policy_name: String,
    /// The inline policy.
    pub policy: Value,
    /// Whether the operator has it on record; for the diff.
    #[serde(skip)]
    pub recorded: bool,
}

/// An inline policy that goes from an IAM role.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedPolicy {
    /// The role's ARN.
    pub role_arn: String,
    /// The inline policy's name.
    pub policy_name: String,
}

impl Report {
    /// Tells whether the plan would write anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.domains.values().any(|domain| domain.writes)
    }

    /// Tells whether anything is refused or held.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.domains.values().any(DomainReport::fails)
    }
}

impl DomainReport {
    /// Tells whether anything is refused or held.
    #[must_use]
    pub fn fails(&self) -> bool {
        !self.refused.is_empty() || self.held.is_some() || self.withheld.is_some()
    }
}
