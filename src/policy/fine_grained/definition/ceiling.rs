//! The ceiling of what a namespace may define, in the plugin's words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check::{indexes, tenants, texts};
use super::prefix;
use crate::api::access::{AccessLevel, Action};
use crate::api::condition::Reason;
use crate::policy::domain::{Access, Limits, TEMPLATE};
use crate::policy::fine_grained::permission::{self, Group, Scope};
use crate::policy::fine_grained::query;
use crate::policy::{Rejection, glob};

/// How far a ceiling reaches, in the plugin's words.
pub(super) struct Bounds {
    /// What may be done with indexes.
    index: Vec<String>,
    /// What may be done with the cluster.
    cluster: Vec<String>,
    /// Patterns of indexes; none: all.
    indexes: Option<Vec<String>>,
    /// Patterns of tenants.
    tenants: Vec<String>,
    level: &'static str,
}

impl Bounds {
    pub(super) fn of(limits: &Limits, namespace: &str) -> Self {
        let fill = |it: &String| it.replace(TEMPLATE, namespace);
        let reads_only = match &limits.access {
            Access::Level(level) => *level == AccessLevel::Read,
            Access::Actions(actions) => actions
                .iter()
                .all(|it| matches!(it, Action::Get | Action::Head)),
        };
        let own = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let mut cluster = own(&["cluster_composite_ops"]);
        cluster.extend(limits.definitions.cluster_permissions.iter().map(fill));
        // A bound that goes on below an index says nothing that the plugin could hold.
        let whole = limits.paths.iter().filter(|it| !it.contains('/'));
        let tenants = limits.definitions.tenants.iter().map(fill);
        Self {
            index: own(if reads_only {
                permission::READ
            } else {
                permission::READ_WRITE
            }),
            cluster,
            indexes: (!limits.paths.is_empty()).then(|| whole.map(fill).collect()),
            tenants: tenants.chain([format!("{}*", prefix(namespace))]).collect(),
            level: if reads_only {
                "reads"
            } else {
                "everything on indexes"
            },
        }
    }

    pub(super) fn actions(
        &self,
        scope: Scope,
        actions: &[String],
        field: &str,
        groups: &BTreeMap<String, Group>,
    ) -> Result<(), Rejection> {
        let (most, said) = match scope {
            Scope::Index => (&self.index, self.level.to_owned()),
            Scope::Cluster => (
                &self.cluster,
                format!(
                    "{} (definitions.clusterPermissions)",
                    self.cluster.join(", ")
                ),
            ),
        };
        let most = permission::expand(most, &BTreeMap::new());
        for (index, action) in actions.iter().enumerate() {
            let mut asked = permission::expand(std::slice::from_ref(action), groups);
            // A group that is gone permits nothing: what names it stays as it is.
            asked.retain(|it| it.contains([':', '*', '?', '/']));
            if let Some(excess) = permission::exceeds(&asked, &most) {
                return Err(Rejection::new(
                    Reason::OverCeiling,
                    format!("{field}[{index}]"),
                    format!(
                        "{action:?} permits {excess}, and the ceiling allows no more than {said}"
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn role(
        &self,
        body: &Map<String, Value>,
        groups: &BTreeMap<String, Group>,
    ) -> Result<(), Rejection> {
        let cluster = texts(body, "cluster_permissions");
        self.actions(Scope::Cluster, &cluster, "spec.clusterPermissions", groups)?;
        for (field, item) in indexes(body) {
            let actions = texts(item, "allowed_actions");
            self.actions(
                Scope::Index,
                &actions,
                &format!("{field}.allowedActions"),
                groups,
            )?;
            let Some(bounds) = &self.indexes else {
                continue;
            };
            for (at, pattern) in texts(item, "index_patterns").iter().enumerate() {
                within(bounds, pattern, "paths", || {
                    format!("{field}.indexPatterns[{at}]")
                })?;
            }
            // What is no query says nothing, and is refused elsewhere.
            let dls = item.get("dls").and_then(Value::as_str).unwrap_or_default();
            for index in query::check(dls).unwrap_or_default() {
                within(bounds, &index, "paths", || format!("{field}.dls"))?;
            }
        }
        for (field, item) in tenants(body) {
            for (at, pattern) in texts(item, "tenant_patterns").iter().enumerate() {
                within(&self.tenants, pattern, "definitions.tenants", || {
                    format!("{field}.tenantPatterns[{at}]")
                })?;
            }
        }
        Ok(())
    }
}

fn within(
    bounds: &[String],
    pattern: &str,
    of: &str,
    field: impl Fn() -> String,
) -> Result<(), Rejection> {
    if bounds.iter().any(|bound| glob::covers(bound, pattern)) {
        return Ok(());
    }
    let bounds = if bounds.is_empty() {
        "none".to_owned()
    } else {
        bounds.join(", ")
    };
    let rule = format!("{pattern:?} is outside what the ceiling allows ({of}): {bounds}");
    Err(Rejection::new(Reason::OverCeiling, field(), rule))
}
