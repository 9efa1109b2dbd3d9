//! What the plugin knows: the transport actions of OpenSearch and of the plugins that Amazon ships,
//! and the action groups that are part of the security plugin.
//!
//! `actions.txt` is read out of the classes of OpenSearch 2.19.4 and 3.8.0, of the modules of 2.19.4
//! and of its security plugin, and completed from the documentation of the other plugins.
//! `groups.txt` is the `static_action_groups.yml` of the security plugin 2.19.4.0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Where a permission is put to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Cluster,
    Index,
    /// Both of them.
    All,
    Tenant,
}

/// An action group that is part of the plugin.
#[derive(Debug)]
pub(super) struct StaticGroup {
    pub(super) place: Place,
    pub(super) actions: Vec<&'static str>,
}

/// The names of all actions.
pub(super) static ACTIONS: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| include_str!("actions.txt").lines().collect());

/// The action groups, by name.
pub(super) static GROUPS: LazyLock<BTreeMap<&'static str, StaticGroup>> = LazyLock::new(|| {
    include_str!("groups.txt")
        .lines()
        .filter_map(parse)
        .collect()
});

/// Reads `name type: action, action`.
fn parse(line: &'static str) -> Option<(&'static str, StaticGroup)> {
    let (head, actions) = line.split_once(": ")?;
    let (name, place) = head.split_once(' ')?;
    let place = match place {
        "cluster" => Place::Cluster,
        "index" => Place::Index,
        "all" => Place::All,
        "kibana" => Place::Tenant,
        _ => return None,
    };
    let actions = actions.split(", ").collect();
    Some((name, StaticGroup { place, actions }))
}

/// Tells whether an action is about indexes.
pub(super) fn is_of_index(action: &str) -> bool {
    action.starts_with("indices:") || action.starts_with("system:")
}

/// Tells whether the plugin looks for an action among the permissions on the cluster.
///
/// Those are also the actions on indexes that name several of them, or none: what they do with each
/// index is looked for there once more.
pub(super) fn is_of_cluster(action: &str) -> bool {
    const BEGINNINGS: [&str; 6] = [
        "cluster:",
        "restapi:",
        "indices:admin/template/",
        "indices:admin/index_template/",
        "indices:data/read/scroll",
        "indices:data/read/msearch",
    ];
    const NAMES: [&str; 5] = [
        "indices:data/read/mget",
        "indices:data/read/mtv",
        "indices:data/read/search/template/render",
        "indices:data/write/bulk",
        "indices:data/write/reindex",
    ];
    BEGINNINGS.iter().any(|it| action.starts_with(it)) || NAMES.contains(&action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_actions_is_sorted_and_well_formed() {
        let lines: Vec<&str> = include_str!("actions.txt").lines().collect();
        assert!(lines.is_sorted(), "sort it with LC_ALL=C");
        assert_eq!(lines.len(), ACTIONS.len(), "a name is there twice");
        for line in lines {
            let kind = line.split_once(':').map(|(kind, _)| kind);
            let known = ["cluster", "indices", "restapi", "system"];
            assert!(kind.is_some_and(|it| known.contains(&it)), "{line}");
            let allowed = |it: char| it.is_ascii_alphanumeric() || ":/_-[]".contains(it);
            assert!(line.chars().all(allowed), "{line}");
            assert!(is_of_cluster(line) || is_of_index(line), "{line}");
        }
    }

    #[test]
    fn every_action_group_is_read() {
        let lines = include_str!("groups.txt").lines().count();
        assert_eq!(GROUPS.len(), lines);
        for (name, group) in GROUPS.iter() {
            for action in &group.actions {
                let known = GROUPS.contains_key(action) || action.contains([':', '*']);
                assert!(known, "{name}: {action}");
            }
        }
    }

    #[test]
    fn the_well_known_is_known() {
        for action in [
            "cluster:admin/opendistro/ism/policy/write",
            "cluster:monitor/main",
            "indices:admin/create",
            "indices:admin/mapping/put",
            "indices:admin/plugins/replication/index/start",
            "indices:data/read/point_in_time/create",
            "indices:data/read/search",
            "indices:data/read/search/template",
            "indices:data/write/bulk[s]",
            "restapi:admin/roles",
        ] {
            assert!(ACTIONS.contains(action), "{action}");
        }
        assert_eq!(GROUPS["cluster_composite_ops"].place, Place::Cluster);
        assert_eq!(GROUPS["crud"].actions, ["read", "write"]);
        assert_eq!(GROUPS["unlimited"].place, Place::All);
        assert_eq!(GROUPS["kibana_all_read"].place, Place::Tenant);
    }

    #[test]
    fn what_names_several_indexes_is_of_the_cluster_too() {
        for (action, expected) in [
            ("cluster:monitor/main", true),
            ("indices:admin/template/put", true),
            ("indices:data/read/mget", true),
            ("indices:data/read/mget[shard]", false),
            ("indices:data/read/msearch/template", true),
            ("indices:data/read/scroll/clear", true),
            ("indices:data/read/search", false),
            ("indices:data/write/bulk", true),
            ("indices:data/write/bulk[s]", false),
        ] {
            assert_eq!(is_of_cluster(action), expected, "{action}");
        }
    }
}
