//! An object as it was read, whether or not this version can parse it.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::access::DomainAccess;
use crate::api::action_group::DomainActionGroup;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;

/// A namespaced kind whose every object is about one domain, for good: its `spec.domainRef`.
pub trait OfDomain:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned
{
    /// Returns the name of the `OpenSearchDomain`.
    fn domain(&self) -> &str;
}

impl OfDomain for DomainAccess {
    fn domain(&self) -> &str {
        &self.spec.domain_ref.name
    }
}

impl OfDomain for DomainRole {
    fn domain(&self) -> &str {
        &self.spec.domain_ref.name
    }
}

impl OfDomain for DomainTenant {
    fn domain(&self) -> &str {
        &self.spec.domain_ref.name
    }
}

impl OfDomain for DomainActionGroup {
    fn domain(&self) -> &str {
        &self.spec.domain_ref.name
    }
}

/// An object about a domain; one that cannot be parsed does not stop the watch.
///
/// Beside what kube's own guard keeps of such an object, this one keeps what it takes to look after
/// it: which domain it names, and what it was told.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// A grant as it was read.
pub type Grant = Guarded<DomainAccess>;

/// An object that this version cannot parse.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Why.
    pub error: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The name of the domain that it is for, if that much can be told.
    pub domain: Option<String>,
    /// The conditions that it carries.
    pub conditions: Vec<Condition>,
}

impl<K: OfDomain> Guarded<K> {
    /// Returns the name of the domain that the object is about, as far as that can be told.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        match &self.0 {
            Ok(object) => Some(object.domain()),
            Err(unreadable) => unreadable.domain.as_deref(),
        }
    }
}

impl<'de, K: OfDomain> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let error = match K::deserialize(&object) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        // Without its metadata it is no object at all.
        let metadata = ObjectMeta::deserialize(&object["metadata"]).map_err(D::Error::custom)?;
        let domain = object["spec"]["domainRef"]["name"].as_str();
        let conditions = Vec::deserialize(&object["status"]["conditions"]);
        Ok(Self(Err(Unreadable {
            error,
            metadata,
            domain: domain.map(str::to_owned),
            conditions: conditions.unwrap_or_default(),
        })))
    }
}

impl<K: OfDomain> Resource for Guarded<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    fn read(spec: &Value) -> Grant {
        let condition = json!({"type": "Ready", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let metadata = json!({"name": "a", "namespace": "n", "uid": "u"});
        let object = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccess",
            "metadata": metadata, "spec": spec, "status": {"conditions": [condition]}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_can_be_told_of_an_unreadable_grant_is_told() {
        let grant = read(&json!({"domainRef": {"name": "logs"}, "access": "Everything"}));
        assert_eq!(grant.domain(), Some("logs"));
        assert_eq!(
            (grant.name_any().as_str(), grant.uid().as_deref()),
            ("a", Some("u"))
        );
        let unreadable = grant.0.unwrap_err();
        assert!(
            unreadable.error.contains("Everything"),
            "{}",
            unreadable.error
        );
        assert_eq!(unreadable.conditions.len(), 1);
        assert_eq!(read(&json!({"domainRef": "logs"})).domain(), None);
    }

    #[test]
    fn a_grant_that_can_be_parsed_is_itself() {
        let grant =
            read(&json!({"domainRef": {"name": "logs"}, "access": "Read", "principals": []}));
        assert!(grant.0.is_ok());
        assert_eq!(grant.domain(), Some("logs"));
    }
}
