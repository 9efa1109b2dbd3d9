//! The custom resources that people write, and the vocabulary around them.
//!
//! - [`domain`]: `OpenSearchDomain`, which a platform admin owns: the domain, and who may grant on it
//! - [`access`]: `DomainAccess`, which a team owns: a grant
//! - [`role`], [`tenant`], [`action_group`]: `DomainRole`, `DomainTenant` and `DomainActionGroup`,
//!   which a team owns: what there is in a domain's security plugin; [`definition`]: what the three
//!   have in common
//! - [`condition`]: the condition types and reasons of both, and how conditions change
//! - [`arn`]: the ARNs that appear in them, parsed
//! - [`name`]: the fixed names that the operator puts on objects
//!
//! Nothing here decides anything: the rules that one object alone can break are CEL rules in the
//! generated CRDs, repeated by [`crate::policy::validate`] for whoever bypasses the API server.
//!
//! Pure: no I/O, no clock, no logging.

pub mod access;
pub mod action_group;
pub mod arn;
pub mod condition;
pub mod definition;
pub mod domain;
pub mod name;
pub mod role;
pub mod tenant;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

/// Returns every custom resource definition of the operator, in the order in which `crds/` holds
/// them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        domain::OpenSearchDomain::crd(),
        access::DomainAccess::crd(),
        role::DomainRole::crd(),
        tenant::DomainTenant::crd(),
        action_group::DomainActionGroup::crd(),
    ];
    for version in definitions
        .iter_mut()
        .flat_map(|definition| &mut definition.spec.versions)
    {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|it| it.open_api_v3_schema.as_mut())
        {
            take_null_as_absent(schema);
            wait_from_the_start(schema);
        }
    }
    definitions
}

/// Gives objects that no operator has looked at yet a condition `Ready` that is `Unknown`.
///
/// By the rules of kstatus an object without conditions is done, so that whoever waits for it would
/// not. It names no generation: [`condition::conditions`] takes it for what it is.
fn wait_from_the_start(schema: &mut JSONSchemaProps) {
    let status = schema
        .properties
        .as_mut()
        .and_then(|it| it.get_mut("status"));
    if let Some(status) = status {
        status.default = Some(JSON(json!({"conditions": [{
            "type": condition::condition_type::READY,
            "status": "Unknown",
            "reason": condition::Reason::Pending.as_str(),
            "message": "no operator has looked at it yet",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]})));
    }
}

/// Leaves `nullable` out of a schema and everything below it.
///
/// The API server drops a null where a field is not nullable, so that `access: null`, which
/// templates write for a value that is not set, is the same as no `access`. It would refuse the
/// null of a nullable field that has a list of values.
fn take_null_as_absent(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    let properties = schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut());
    properties.for_each(take_null_as_absent);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => take_null_as_absent(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(take_null_as_absent);
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        take_null_as_absent(values);
    }
}

/// Leaves an enumeration's own description out of its schema, where it would hide what the field
/// says in which it is optional.
fn described_by_its_field(schema: &mut schemars::Schema) {
    schema.remove("description");
}
