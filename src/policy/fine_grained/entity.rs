//! The security plugin's own things, as its REST API shows them, and what they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A kind of entity, in the order in which they are created: each may name those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKind {
    /// A name for several permissions.
    #[serde(rename = "actiongroups")]
    ActionGroup,
    /// A space of OpenSearch Dashboards.
    #[serde(rename = "tenants")]
    Tenant,
    /// A role.
    #[serde(rename = "roles")]
    Role,
    /// Who has a role; named after it.
    #[serde(rename = "rolesmapping")]
    Mapping,
}

impl EntityKind {
    /// All kinds, in that order.
    pub const ALL: [Self; 4] = [Self::ActionGroup, Self::Tenant, Self::Role, Self::Mapping];

    /// Returns the kind as the API's paths spell it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::ActionGroup => "actiongroups",
            Self::Tenant => "tenants",
            Self::Role => "roles",
            Self::Mapping => "rolesmapping",
        }
    }
}

/// An entity as it was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entity {
    /// Whether the API does not change it.
    pub reserved: bool,
    /// Whether the API does not show it by itself.
    pub hidden: bool,
    /// Whether it is part of the plugin.
    pub is_static: bool,
    /// What it says, without these three.
    pub body: Map<String, Value>,
}

impl Entity {
    /// Reads an entity; one that is no object says nothing.
    #[must_use]
    pub fn parse(value: Value) -> Self {
        let Value::Object(mut body) = value else {
            return Self::default();
        };
        let mut mark = |name: &str| body.remove(name) == Some(Value::Bool(true));
        Self {
            reserved: mark("reserved"),
            hidden: mark("hidden"),
            is_static: mark("static"),
            body,
        }
    }

    /// Tells whether nobody but the plugin's own administrators may change it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.reserved || self.hidden || self.is_static
    }

    /// Returns the texts of one of its lists.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let list = self.body.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }
}

/// Everything that the plugin of a domain has, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SecurityConfig {
    /// The action groups, those of the plugin included.
    pub action_groups: BTreeMap<String, Entity>,
    /// The tenants.
    pub tenants: BTreeMap<String, Entity>,
    /// The roles.
    pub roles: BTreeMap<String, Entity>,
    /// The mappings, each by the name of its role.
    pub mappings: BTreeMap<String, Entity>,
}

impl SecurityConfig {
    /// Reads the entities of one kind.
    #[must_use]
    pub fn parse(entities: Map<String, Value>) -> BTreeMap<String, Entity> {
        let entities = entities.into_iter();
        entities
            .map(|(name, entity)| (name, Entity::parse(entity)))
            .collect()
    }

    /// Returns the entities of a kind.
    #[must_use]
    pub fn of(&self, kind: EntityKind) -> &BTreeMap<String, Entity> {
        match kind {
            EntityKind::ActionGroup => &self.action_groups,
            EntityKind::Tenant => &self.tenants,
            EntityKind::Role => &self.roles,
            EntityKind::Mapping => &self.mappings,
        }
    }

    /// Returns the entities of a kind, to be changed.
    pub fn of_mut(&mut self, kind: EntityKind) -> &mut BTreeMap<String, Entity> {
        match kind {
            EntityKind::ActionGroup => &mut self.action_groups,
            EntityKind::Tenant => &mut self.tenants,
            EntityKind::Role => &mut self.roles,
            EntityKind::Mapping => &mut self.mappings,
        }
    }
}

/// Tells whether two bodies say the same: the order of a list says nothing, nor does an empty list,
/// an empty text or a null.
#[must_use]
pub fn means_the_same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    canonical_members(one) == canonical_members(other)
}

fn canonical_members(body: &Map<String, Value>) -> BTreeMap<&str, String> {
    let members = body.iter().filter_map(|(name, value)| {
        let value = canonical(value)?;
        Some((name.as_str(), value))
    });
    members.collect()
}

/// Spells a value in one way; `None` where it says nothing.
fn canonical(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().filter_map(canonical).collect();
            items.sort_unstable();
            items.dedup();
            (!items.is_empty()).then(|| format!("{items:?}"))
        }
        Value::Object(members) => {
            let members = canonical_members(members);
            (!members.is_empty()).then(|| format!("{members:?}"))
        }
        other => Some(other.to_string()),
    }
}

/// The engine of a domain, as far as the plugin's API depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Engine {
    elasticsearch: bool,
    major: u32,
    minor: u32,
}

impl Engine {
    /// Reads the `EngineVersion` of a domain, such as `OpenSearch_2.19` or `Elasticsearch_7.10`; what
    /// cannot be read is taken for a new OpenSearch, whose rules are the strictest.
    #[must_use]
    pub fn parse(version: &str) -> Self {
        let (name, numbers) = version.split_once('_').unwrap_or(("", version));
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok);
        match (next(), next()) {
            (Some(major), minor) => Self {
                elasticsearch: name == "Elasticsearch",
                major,
                minor: minor.unwrap_or_default(),
            },
            _ => Self {
                elasticsearch: false,
                major: u32::MAX,
                minor: 0,
            },
        }
    }

    /// Tells whether it is Elasticsearch, whose plugin has its API under another path.
    #[must_use]
    pub fn is_elasticsearch(self) -> bool {
        self.elasticsearch
    }

    /// Returns the longest text that the plugin takes in a body, or as a name: 256 characters since
    /// OpenSearch 3.8.
    #[must_use]
    pub fn text_limit(self) -> Option<usize> {
        let since = (self.major, self.minor) >= (3, 8);
        (!self.elasticsearch && since).then_some(256)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn same(one: Value, other: Value) -> bool {
        let body = |value| match value {
            Value::Object(body) => body,
            _ => panic!("a body is an object"),
        };
        means_the_same(&body(one), &body(other))
    }

    #[test]
    fn an_entity_is_read_without_its_marks() {
        let read = Entity::parse(json!({"reserved": true, "hidden": false, "static": true,
            "users": ["a", 1, "b"]}));
        assert!(read.reserved && !read.hidden && read.is_static && read.is_protected());
        assert_eq!(read.body.len(), 1);
        assert_eq!(read.texts("users").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_the_plugin_adds_and_reorders_is_no_difference() {
        let sent = json!({"cluster_permissions": ["b", "a"], "description": "",
            "index_permissions": [{"index_patterns": ["x"], "allowed_actions": ["read"]}]});
        let read = json!({"cluster_permissions": ["a", "b"], "tenant_permissions": [],
            "index_permissions": [{"index_patterns": ["x"], "allowed_actions": ["read"], "fls": [],
                "masked_fields": [], "dls": null}]});
        assert!(same(sent, read));
    }

    #[test]
    fn what_differs_differs() {
        let role = |actions: Value| json!({"index_permissions": [{"allowed_actions": actions}]});
        assert!(!same(role(json!(["read"])), role(json!(["write"]))));
        assert!(!same(role(json!(["read"])), json!({})));
        assert!(!same(json!({"a": ["x"]}), json!({"a": "x"})));
    }

    #[test]
    fn an_engine_is_what_its_version_says() {
        assert!(Engine::parse("Elasticsearch_7.10").is_elasticsearch());
        for (version, limit) in [
            ("Elasticsearch_7.10", None),
            ("OpenSearch_1.3", None),
            ("OpenSearch_3.7", None),
            ("OpenSearch_3.8", Some(256)),
            ("OpenSearch_4.0", Some(256)),
            ("", Some(256)),
        ] {
            assert_eq!(Engine::parse(version).text_limit(), limit, "{version}");
        }
    }
}
