//! The access matrix of a security plugin: who has which role, and what the role permits, as it is
//! written.

use std::collections::BTreeSet;

use serde::Serialize;

use super::entity::{Entity, SecurityConfig};
use super::evaluate::Filters;
use super::evaluate::role::{objects, texts};

/// One line of the matrix: somebody and a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// The entry of the mapping, as it is written; those that must come together are joined by
    /// `and`.
    pub who: String,
    /// What kind of entry it is.
    pub kind: Kind,
    /// The role.
    pub role: String,
    /// Whether the plugin has the role: without it a mapping says nothing.
    pub exists: bool,
    /// The permissions on the domain as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<String>,
    /// The permissions on indexes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<OnIndexes>,
    /// The permissions on tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<OnTenants>,
}

/// A kind of entry of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The name of a user.
    User,
    /// A backend role.
    BackendRole,
    /// Where a request comes from.
    Host,
}

/// One item of a role's permissions on indexes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OnIndexes {
    /// The patterns of the indexes.
    pub patterns: Vec<String>,
    /// The actions, and the groups of actions.
    pub actions: Vec<String>,
    /// What of the documents is kept back.
    pub filters: Filters,
}

/// One item of a role's permissions on tenants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OnTenants {
    /// The patterns of the tenants.
    pub patterns: Vec<String>,
    /// The actions, and the groups of actions.
    pub actions: Vec<String>,
}

/// Returns the matrix, in order.
#[must_use]
pub fn rows(config: &SecurityConfig) -> Vec<Row> {
    let mut rows = BTreeSet::new();
    for (name, mapping) in &config.mappings {
        let role = config.roles.get(name);
        let row = |(kind, who)| of_role(name, role, kind, who);
        rows.extend(entries(mapping).into_iter().map(row));
    }
    rows.into_iter().collect()
}

fn entries(mapping: &Entity) -> Vec<(Kind, String)> {
    let lists = [
        (Kind::User, "users"),
        (Kind::BackendRole, "backend_roles"),
        (Kind::Host, "hosts"),
    ];
    let entries = lists.into_iter().flat_map(|(kind, list)| {
        let texts = mapping.texts(list);
        texts.map(move |text| (kind, text.to_owned()))
    });
    let together: Vec<&str> = mapping.texts("and_backend_roles").collect();
    let together = (!together.is_empty()).then(|| (Kind::BackendRole, together.join(" and ")));
    entries.chain(together).collect()
}

fn of_role(name: &str, role: Option<&Entity>, kind: Kind, who: String) -> Row {
    let owned = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::to_owned).collect();
    let nothing = Entity::default();
    let body = role.unwrap_or(&nothing);
    let indexes = objects(body, "index_permissions").map(|item| OnIndexes {
        patterns: owned(&mut texts(item, "index_patterns")),
        actions: owned(&mut texts(item, "allowed_actions")),
        filters: Filters::of(item),
    });
    let tenants = objects(body, "tenant_permissions").map(|item| OnTenants {
        patterns: owned(&mut texts(item, "tenant_patterns")),
        actions: owned(&mut texts(item, "allowed_actions")),
    });
    Row {
        who,
        kind,
        role: name.to_owned(),
        exists: role.is_some(),
        cluster: owned(&mut body.texts("cluster_permissions")),
        indexes: indexes.collect(),
        tenants: tenants.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entity(value: serde_json::Value) -> Entity {
        Entity::parse(value)
    }

    #[test]
    fn there_is_a_line_for_each_entry_of_each_mapping() {
        let config = SecurityConfig {
            roles: [(
                "reader".to_owned(),
                entity(json!({"cluster_permissions": ["cluster_composite_ops_ro"],
                    "index_permissions": [
                        {"index_patterns": ["a-*", "b-*"], "allowed_actions": ["read"],
                            "dls": "{\"term\": {\"secret\": false}}", "masked_fields": ["name"]},
                        {"index_patterns": ["c"], "allowed_actions": ["write"], "dls": "", "fls": ["~x"]}],
                    "tenant_permissions": [
                        {"tenant_patterns": ["t"], "allowed_actions": ["kibana_all_read"]}]})),
            )]
            .into(),
            mappings: [
                (
                    "reader".to_owned(),
                    entity(json!({"users": ["ann"], "backend_roles": ["r"], "hosts": ["10.*"],
                        "and_backend_roles": ["x", "y"]})),
                ),
                ("gone".to_owned(), entity(json!({"users": ["bob"]}))),
                ("empty".to_owned(), entity(json!({"users": []}))),
            ]
            .into(),
            ..SecurityConfig::default()
        };
        let rows = rows(&config);
        let said: Vec<_> = rows
            .iter()
            .map(|row| (&*row.who, row.kind, &*row.role, row.exists))
            .collect();
        assert_eq!(
            said,
            [
                ("10.*", Kind::Host, "reader", true),
                ("ann", Kind::User, "reader", true),
                ("bob", Kind::User, "gone", false),
                ("r", Kind::BackendRole, "reader", true),
                ("x and y", Kind::BackendRole, "reader", true),
            ]
        );
        let ann = serde_json::to_value(&rows[1]).unwrap();
        assert_eq!(
            ann,
            json!({"who": "ann", "kind": "user", "role": "reader", "exists": true,
                "cluster": ["cluster_composite_ops_ro"],
                "indexes": [
                    {"patterns": ["a-*", "b-*"], "actions": ["read"],
                        "filters": {"rows": true, "fields": false, "masked": true}},
                    {"patterns": ["c"], "actions": ["write"],
                        "filters": {"rows": false, "fields": true, "masked": false}}],
                "tenants": [{"patterns": ["t"], "actions": ["kibana_all_read"]}]})
        );
        assert!(!ann.to_string().contains("secret"));
        assert!(rows[2].indexes.is_empty());
    }
}
