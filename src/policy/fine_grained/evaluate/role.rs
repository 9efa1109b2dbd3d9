//! What a role permits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::entity::{Entity, SecurityConfig};
use super::pattern::{self, Pattern, Reach};
use crate::policy::evaluate::{Truth, any};

/// Resolves action groups into patterns of actions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups<'a> {
    /// Those that the domain has.
    pub(super) own: &'a BTreeMap<String, Entity>,
    /// Those that are part of the plugin, as far as the domain does not tell.
    pub(super) standard: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> Groups<'a> {
    /// Returns everything that the names stand for, the names themselves included: what is no group
    /// is a pattern of actions.
    fn resolve(self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            // A group may name itself, over others.
            if !found.insert(name) {
                continue;
            }
            match self.own.get(name) {
                Some(group) => open.extend(group.texts("allowed_actions")),
                None => open.extend(
                    self.standard
                        .get(name)
                        .into_iter()
                        .flatten()
                        .map(String::as_str),
                ),
            }
        }
        found
    }
}

/// A role, its action groups resolved.
#[derive(Debug)]
pub(super) struct Role<'a> {
    cluster: BTreeSet<&'a str>,
    items: Vec<Item<'a>>,
}

/// One item of the permissions on indexes.
#[derive(Debug)]
pub(super) struct Item<'a> {
    patterns: Vec<&'a str>,
    actions: BTreeSet<&'a str>,
    /// What of the documents is kept back.
    pub(super) filters: Filters,
}

/// What of the documents is kept back from those who have a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Filters {
    /// Some documents (document-level security).
    pub rows: bool,
    /// Some fields (field-level security).
    pub fields: bool,
    /// The values of some fields, which are masked.
    pub masked: bool,
}

impl Filters {
    /// Reads the filters of an item.
    pub(in super::super) fn of(item: &Map<String, Value>) -> Self {
        let dls = item.get("dls").and_then(Value::as_str);
        Self {
            rows: dls.is_some_and(|query| !query.trim().is_empty()),
            fields: texts(item, "fls").next().is_some(),
            masked: texts(item, "masked_fields").next().is_some(),
        }
    }
}

impl<'a> Role<'a> {
    /// Reads a role.
    pub(super) fn of(role: &'a Entity, groups: Groups<'a>) -> Self {
        let item = |item: &'a Map<String, Value>| Item {
            patterns: texts(item, "index_patterns").collect(),
            actions: groups.resolve(texts(item, "allowed_actions")),
            filters: Filters::of(item),
        };
        Self {
            cluster: groups.resolve(role.texts("cluster_permissions")),
            items: objects(role, "index_permissions").map(item).collect(),
        }
    }

    /// Tells whether it permits an action on the domain as a whole.
    pub(super) fn permits(&self, action: &str) -> Truth {
        holds(&self.cluster, action)
    }

    /// Tells whether it permits an action on some index, whichever it is.
    pub(super) fn permits_somewhere(&self, action: &str) -> Truth {
        let items = self.items.iter().filter(|item| !item.patterns.is_empty());
        any(items.map(|item| holds(&item.actions, action)))
    }

    /// Tells on how much of what is asked for it permits an action.
    pub(super) fn reach(&self, action: &str, asked: &str, user: Option<&str>) -> Reach {
        let reach = |item: &Item<'_>| match (holds(&item.actions, action), item.reach(asked, user))
        {
            (Some(false), _) | (_, Reach::None) => Reach::None,
            (None, _) => Reach::Open,
            (Some(true), reach) => reach,
        };
        self.items.iter().map(reach).max().unwrap_or(Reach::None)
    }

    /// Returns the items that reach something of what is asked for.
    pub(super) fn reaching(
        &self,
        asked: &str,
        user: Option<&str>,
    ) -> impl Iterator<Item = &Item<'a>> {
        let items = self.items.iter();
        items.filter(move |item| item.reach(asked, user) != Reach::None)
    }
}

impl Item<'_> {
    fn reach(&self, asked: &str, user: Option<&str>) -> Reach {
        let patterns = self.patterns.iter();
        let reaches = patterns.map(|pattern| pattern::reach(pattern, asked, user));
        reaches.max().unwrap_or(Reach::None)
    }
}

fn holds(actions: &BTreeSet<&str>, action: &str) -> Truth {
    any(actions
        .iter()
        .map(|pattern| Pattern::of(pattern).holds(action)))
}

/// Returns the roles of a configuration, by name.
pub(super) fn roles<'a>(
    config: &'a SecurityConfig,
    standard: &'a BTreeMap<String, Vec<String>>,
) -> BTreeMap<&'a str, Role<'a>> {
    let own = &config.action_groups;
    let groups = Groups { own, standard };
    let roles = config.roles.iter();
    roles
        .map(|(name, role)| (name.as_str(), Role::of(role, groups)))
        .collect()
}

/// Returns the objects of one of a role's lists.
pub(in super::super) fn objects<'a>(
    role: &'a Entity,
    list: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = role.body.get(list).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// Returns the texts of one of an object's lists.
pub(in super::super) fn texts<'a>(
    object: &'a Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a str> {
    let list = object.get(list).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}
