//! The custom resources that people write, and the vocabulary around them.
//!
//! - [`domain`]: `OpenSearchDomain`, which a platform admin owns: the domain, and who may grant on it
//! - [`access`]: `DomainAccess`, which a team owns: a grant
//! - [`condition`]: the condition types and reasons of both, and how conditions change
//! - [`arn`]: the ARNs that appear in them, parsed
//! - [`name`]: the fixed names that the operator puts on objects
//!
//! Nothing here decides anything: the rules that one object alone can break are CEL rules in the
//! generated CRDs, repeated by [`crate::policy::validate`] for whoever bypasses the API server.
//!
//! Pure: no I/O, no clock, no logging.

pub mod access;
pub mod arn;
pub mod condition;
pub mod domain;
pub mod name;

use kube::CustomResourceExt;

/// Returns every custom resource definition of the operator, in the order in which `crds/` holds
/// them.
#[must_use]
pub fn definitions()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    vec![domain::OpenSearchDomain::crd(), access::DomainAccess::crd()]
}
