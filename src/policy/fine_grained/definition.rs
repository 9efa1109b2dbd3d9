//! What teams define in the plugin: roles, tenants and action groups.
//!
//! - this file: the three kinds of object, and what each says in the plugin's words
//! - [`check`], `ceiling`: the rules that a definition keeps, and how far it may go
//! - [`plan`]: desired against observed against last applied

mod ceiling;
pub mod check;
pub mod plan;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::entity::EntityKind;
use crate::api::action_group::{ActionGroupType, DomainActionGroup};
use crate::api::definition::{Adoption, DefinitionStatus, Removal};
use crate::api::name::FINALIZER;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::Rejection;
use crate::policy::validate::bounds;

/// Which object a definition comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionKey {
    /// The kind of what is defined.
    pub kind: EntityKind,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
}

impl DefinitionKey {
    /// Returns the kind of the object.
    #[must_use]
    pub fn object_kind(&self) -> &'static str {
        match self.kind {
            EntityKind::ActionGroup => "DomainActionGroup",
            EntityKind::Tenant => "DomainTenant",
            EntityKind::Role | EntityKind::Mapping => "DomainRole",
        }
    }
}

/// A definition, in the plugin's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The object.
    pub key: DefinitionKey,
    /// The name in the plugin.
    pub entity: String,
    /// What it says.
    pub body: Map<String, Value>,
    /// What happens to what the plugin has under the name.
    pub adoption: Adoption,
    /// What happens to it when the object goes.
    pub removal: Removal,
    /// Whether the object is being deleted.
    pub is_deleting: bool,
    /// Whether the object carries the operator's finalizer.
    pub is_held: bool,
    /// A bound of its kind that it breaks, where no API server has checked it.
    pub broken: Option<Rejection>,
    /// When the object was made: the older of two definitions of one name holds.
    pub created: Option<Timestamp>,
}

/// A kind of object that defines something in the plugin.
pub trait Defines: Resource<DynamicType = ()> {
    /// The kind of what it defines.
    const KIND: EntityKind;

    /// Returns what it says, in the plugin's words.
    fn body(&self) -> Map<String, Value>;

    /// Returns the name that it asks for, if any.
    fn entity(&self) -> Option<&str>;

    /// Returns what happens to what is there already, and to it when the object goes.
    fn policies(&self) -> (Adoption, Removal);

    /// Returns a bound of the kind's schema that it breaks.
    fn broken(&self) -> Option<Rejection>;

    /// Returns what the operator made of it.
    fn status(&self) -> Option<&DefinitionStatus>;
}

/// Reads an object.
pub fn definition<K: Defines>(object: &K) -> Definition {
    let key = DefinitionKey {
        kind: K::KIND,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    };
    let usual = || format!("{}{}", prefix(&key.namespace), key.name);
    let (adoption, removal) = object.policies();
    Definition {
        entity: object.entity().map_or_else(usual, str::to_owned),
        body: object.body(),
        adoption,
        removal,
        broken: object.broken(),
        is_deleting: object.meta().deletion_timestamp.is_some(),
        is_held: object.finalizers().iter().any(|it| it == FINALIZER),
        created: object.creation_timestamp().map(|time| time.0),
        key,
    }
}

/// Returns how the names begin that a namespace may give without more: no other namespace's do,
/// since none has a dot in its name.
#[must_use]
pub fn prefix(namespace: &str) -> String {
    format!("{namespace}.")
}

/// Builds a body of what is there.
fn body<const N: usize>(
    members: [(&str, Value); N],
    description: Option<&String>,
) -> Map<String, Value> {
    let members = members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let described = description.map(|text| ("description".to_owned(), json!(text)));
    members.chain(described).collect()
}

macro_rules! common {
    () => {
        fn entity(&self) -> Option<&str> {
            self.spec.name.as_deref()
        }

        fn policies(&self) -> (Adoption, Removal) {
            (
                self.spec.adoption.unwrap_or_default(),
                self.spec.deletion_policy.unwrap_or_default(),
            )
        }

        fn broken(&self) -> Option<Rejection> {
            let broken = bounds::broken(&Self::kind(&()), &self.spec);
            broken.into_iter().next()
        }

        fn status(&self) -> Option<&DefinitionStatus> {
            self.status.as_ref()
        }
    };
}

impl Defines for DomainRole {
    const KIND: EntityKind = EntityKind::Role;

    fn body(&self) -> Map<String, Value> {
        let indexes = self.spec.index_permissions.iter().map(|it| {
            json!({
                "index_patterns": it.index_patterns,
                "dls": it.dls.as_deref().unwrap_or_default(),
                "fls": it.fls,
                "masked_fields": it.masked_fields,
                "allowed_actions": it.allowed_actions,
            })
        });
        let tenants = self.spec.tenant_permissions.iter().map(|it| {
            json!({"tenant_patterns": it.tenant_patterns, "allowed_actions": it.allowed_actions})
        });
        let members = [
            ("cluster_permissions", json!(self.spec.cluster_permissions)),
            ("index_permissions", indexes.collect()),
            ("tenant_permissions", tenants.collect()),
        ];
        body(members, self.spec.description.as_ref())
    }

    common!();
}

impl Defines for DomainTenant {
    const KIND: EntityKind = EntityKind::Tenant;

    fn body(&self) -> Map<String, Value> {
        // A tenant says nothing else, and one that says nothing is refused.
        let description = self.spec.description.clone().unwrap_or_default();
        body([("description", json!(description))], None)
    }

    common!();
}

impl Defines for DomainActionGroup {
    const KIND: EntityKind = EntityKind::ActionGroup;

    fn body(&self) -> Map<String, Value> {
        let type_ = match self.spec.type_ {
            ActionGroupType::Index => "index",
            ActionGroupType::Cluster => "cluster",
        };
        let members = [
            ("type", json!(type_)),
            ("allowed_actions", json!(self.spec.allowed_actions)),
        ];
        body(members, self.spec.description.as_ref())
    }

    common!();
}

/// What the objects that define something ask for, by what each defines.
pub type Definitions = BTreeMap<DefinitionKey, check::Verdict>;
