//! Permissions as the security plugin knows them: actions, patterns of them, and groups of them.
//!
//! The plugin takes any text for a permission and never says that one permits nothing. What is
//! checked here is that a name means something, that it stands where it has an effect, and that it
//! stays within a ceiling.
//!
//! - [`check`]: whether a name is a permission
//! - [`expand`]: what groups stand for
//! - [`permits`], [`exceeds`]: what patterns of actions reach

mod known;

use std::collections::{BTreeMap, BTreeSet};

use self::known::{ACTIONS, GROUPS, Place, is_of_cluster, is_of_index};
use super::nearest::{nearest, suggestion};
use crate::policy::glob;

/// What a permission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster: `clusterPermissions` of a role.
    Cluster,
    /// The indexes that a role names: `indexPermissions` of it.
    Index,
}

impl Scope {
    fn other(self) -> Self {
        match self {
            Self::Cluster => Self::Index,
            Self::Index => Self::Cluster,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Cluster => Place::Cluster,
            Self::Index => Place::Index,
        }
    }

    /// Tells whether naming an action makes sense here. Among the permissions on the cluster, that
    /// is any action: the plugin looks for more of them there with each version.
    fn takes(self, action: &str) -> bool {
        match self {
            Self::Cluster => is_of_cluster(action) || action.starts_with("indices:"),
            Self::Index => is_of_index(action),
        }
    }
}

/// An action group of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is meant for.
    pub scope: Scope,
    /// Actions, patterns of them, and other groups.
    pub actions: Vec<String>,
}

/// Why a name is no permission, or none here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is a regular expression, of which nobody can tell what it permits.
    #[error("{name:?} is a regular expression: name actions, with * and ? as wildcards")]
    Regex {
        /// The name.
        name: String,
    },
    /// It is a permission, but not where it stands.
    #[error(
        "{name:?} does not belong here: move it to {field}, or to an action group of type {kind}"
    )]
    OtherScope {
        /// The name.
        name: String,
        /// The field of a role where it belongs.
        field: &'static str,
        /// The type of the action groups where it belongs.
        kind: &'static str,
    },
    /// It is a permission on tenants of OpenSearch Dashboards.
    #[error("{name:?} is about tenants: move it to tenantPermissions")]
    Tenant {
        /// The name.
        name: String,
    },
    /// The plugin does not know it: it would permit nothing.
    #[error(
        "{name:?} is no permission that the security plugin knows{}",
        suggestion(.nearest.as_deref())
    )]
    Unknown {
        /// The name.
        name: String,
        /// The name that may be meant.
        nearest: Option<String>,
    },
}

/// The most that those may do with indexes who may read.
pub const READ: &[&str] = &[
    "indices:admin/aliases/exists*",
    "indices:admin/aliases/get*",
    "indices:admin/analyze",
    "indices:admin/data_stream/get",
    "indices:admin/exists",
    "indices:admin/get",
    "indices:admin/index_template/get",
    "indices:admin/mappings/fields/get*",
    "indices:admin/mappings/get*",
    "indices:admin/resolve/index",
    "indices:admin/shards/search_shards",
    "indices:admin/template/get",
    "indices:admin/types/exists",
    "indices:admin/validate/query",
    "indices:data/read*",
    "indices:monitor/*",
];

/// The most that those may do with indexes who may read and write.
pub const READ_WRITE: &[&str] = &["indices:*"];

/// Checks that a name is a permission where it stands: an action group, of the plugin or of the
/// domain, an action, or a pattern that matches one.
pub fn check(name: &str, scope: Scope, groups: &BTreeMap<String, Group>) -> Result<(), Error> {
    let own = || name.to_owned();
    if is_regex(name) {
        return Err(Error::Regex { name: own() });
    }
    if fits(name, scope, groups) {
        return Ok(());
    }
    if fits(name, scope.other(), groups) {
        let (field, kind) = match scope.other() {
            Scope::Cluster => ("clusterPermissions", "cluster"),
            Scope::Index => ("indexPermissions", "index"),
        };
        let name = own();
        return Err(Error::OtherScope { name, field, kind });
    }
    if GROUPS.get(name).is_some_and(|it| it.place == Place::Tenant) {
        return Err(Error::Tenant { name: own() });
    }
    Err(Error::Unknown {
        name: own(),
        nearest: meant(name, scope, groups),
    })
}

/// Returns the patterns of actions that names stand for, with what groups contain in turn.
///
/// A group of the domain adds to one of the plugin that has its name: less than what is permitted
/// is never returned. For the same reason, a group named like an action stands for that action too,
/// as it does for the plugin.
#[must_use]
pub fn expand(names: &[String], groups: &BTreeMap<String, Group>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        let (own, fixed) = (groups.get(name), GROUPS.get(name));
        if (own.is_none() && fixed.is_none()) || name.contains([':', '*', '?', '/']) {
            found.insert(name.to_owned());
        }
        open.extend(
            own.into_iter()
                .flat_map(|it| &it.actions)
                .map(String::as_str),
        );
        open.extend(fixed.into_iter().flat_map(|it| &it.actions));
    }
    found
}

/// Returns the action groups that are part of the plugin.
#[must_use]
pub fn fixed_groups() -> BTreeMap<String, Vec<String>> {
    let own =
        |group: &known::StaticGroup| group.actions.iter().map(|it| (*it).to_owned()).collect();
    let groups = GROUPS.iter();
    groups
        .map(|(name, it)| ((*name).to_owned(), own(it)))
        .collect()
}

/// Tells whether one of the patterns permits an action. A regular expression, which is not looked
/// into, is taken to permit it.
#[must_use]
pub fn permits(patterns: &BTreeSet<String>, action: &str) -> bool {
    let mut patterns = patterns.iter();
    patterns.any(|it| is_regex(it) || glob::matches(it, action))
}

/// Returns an action that the patterns permit and the allowed ones do not, where there is one.
///
/// A pattern is within only where one of the allowed ones covers all of it. What is known of it is
/// not enough: the next version of OpenSearch has more actions. The pattern itself is returned where
/// all that is known of it is allowed.
#[must_use]
pub fn exceeds(patterns: &BTreeSet<String>, allowed: &BTreeSet<String>) -> Option<String> {
    let allowed: Vec<&String> = allowed.iter().filter(|it| !is_regex(it)).collect();
    let mut patterns = patterns.iter();
    let pattern = patterns.find(|it| !allowed.iter().any(|most| glob::covers(most, it)))?;
    let beyond = ACTIONS.iter().find(|action| {
        let allows = |most: &&String| glob::matches(most, action);
        glob::matches(pattern, action) && !allowed.iter().any(allows)
    });
    Some(beyond.map_or_else(|| pattern.clone(), |action| (*action).to_owned()))
}

fn is_regex(name: &str) -> bool {
    name.len() > 1 && name.starts_with('/') && name.ends_with('/')
}

/// Tells whether a name is a permission of this scope.
fn fits(name: &str, scope: Scope, groups: &BTreeMap<String, Group>) -> bool {
    if let Some(group) = GROUPS.get(name) {
        return [scope.place(), Place::All].contains(&group.place);
    }
    if let Some(group) = groups.get(name) {
        return group.scope == scope || reaches(name, scope, groups);
    }
    // The parts that an action is made of on each shard are called like it.
    let whole = match name.split_once('[') {
        Some((whole, part)) if part.ends_with(']') => whole,
        _ => name,
    };
    let mut actions = ACTIONS.iter().filter(|it| scope.takes(it));
    actions.any(|action| glob::matches(name, action) || *action == whole)
}

/// Tells whether a group of the domain has an effect in a scope that it is not meant for: those that
/// OpenSearch Dashboards makes are meant for none.
fn reaches(name: &str, scope: Scope, groups: &BTreeMap<String, Group>) -> bool {
    let patterns = expand(&[name.to_owned()], groups);
    let mut actions = ACTIONS.iter().filter(|it| match scope {
        Scope::Cluster => is_of_cluster(it),
        Scope::Index => is_of_index(it),
    });
    actions.any(|action| permits(&patterns, action))
}

/// Returns the permission that may be meant by a name that is none.
fn meant(name: &str, scope: Scope, groups: &BTreeMap<String, Group>) -> Option<String> {
    // A group of a namespace, by its short name.
    let short = format!(".{name}");
    if let Some(group) = groups.keys().find(|it| it.ends_with(&short)) {
        return Some(group.clone());
    }
    let fixed = GROUPS.iter().filter(|(it, _)| fits(it, scope, groups));
    let own = groups.iter().filter(|(_, it)| it.scope == scope);
    let mut names: BTreeSet<String> = fixed.map(|(it, _)| (*it).to_owned()).collect();
    names.extend(own.map(|(it, _)| it.clone()));
    for action in ACTIONS.iter().filter(|it| scope.takes(it)) {
        if name.contains(['*', '?']) {
            names.insert(format!("{action}*"));
            let ends = action.match_indices('/');
            let paths = ends.filter_map(|(end, _)| action.get(..=end));
            names.extend(paths.map(|path| format!("{path}*")));
        } else {
            names.insert((*action).to_owned());
        }
    }
    let names = names.iter().map(String::as_str);
    nearest(name, names).map(str::to_owned)
}

#[cfg(test)]
mod tests;
