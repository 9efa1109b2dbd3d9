//! Requests that are about the domain as a whole, and those of plugins.

use super::Method::{self, Delete, Get, Head, Post, Put};
use super::{Check, Scope, Unknown, expression};

/// The checks of a request; `None` where they are not known.
type Checks = Option<Vec<Check>>;

fn cluster(actions: &[&'static str]) -> Vec<Check> {
    let actions = actions.iter();
    actions.map(|action| Check::cluster(action)).collect()
}

/// Returns the checks of a path that names no index.
pub(super) fn checks(method: Method, parts: &[&str]) -> Result<Checks, Unknown> {
    if let ["_cat", rest @ ..] = parts {
        return if method == Get { cat(rest) } else { Ok(None) };
    }
    if let Some(found) = on_names(method, parts)? {
        return Ok(Some(found));
    }
    let one = state(method, parts).or_else(|| definition(method, parts));
    let one = one.or_else(|| snapshot(method, parts));
    Ok(one.map(|action| cluster(&[action])))
}

/// Requests that name indexes after the name of the API.
fn on_names(method: Method, parts: &[&str]) -> Result<Checks, Unknown> {
    let (action, names) = match (method, parts) {
        (Get, ["_resolve", "index", names]) => ("indices:admin/resolve/index", names),
        (Get, ["_data_stream", names, "_stats"]) => ("indices:monitor/data_stream/stats", names),
        (Get, ["_data_stream", names]) => ("indices:admin/data_stream/get", names),
        (Put, ["_data_stream", names]) => ("indices:admin/data_stream/create", names),
        (Delete, ["_data_stream", names]) => ("indices:admin/data_stream/delete", names),
        (Get, ["_data_stream"]) => ("indices:admin/data_stream/get", &"*"),
        (Delete, ["_search", "point_in_time"]) => {
            let action = "indices:data/read/point_in_time/delete";
            return Ok(Some(vec![Check::on(action, &Scope::Body)]));
        }
        _ => return Ok(None),
    };
    let names = Scope::Indexes(expression(names)?);
    Ok(Some(vec![Check::on(action, &names)]))
}

/// Requests for the state of the domain.
fn state(method: Method, parts: &[&str]) -> Option<&'static str> {
    Some(match (method, parts) {
        (Get | Head, []) => "cluster:monitor/main",
        (Get, ["_cluster", "health"] | ["_cluster", "health", _]) => "cluster:monitor/health",
        // The settings are read out of the state.
        (Get, ["_cluster", "state", ..] | ["_cluster", "settings"]) => "cluster:monitor/state",
        (Get, ["_cluster", "stats", ..]) => "cluster:monitor/stats",
        (Put, ["_cluster", "settings"]) => "cluster:admin/settings/update",
        (Get, ["_cluster", "pending_tasks"]) => "cluster:monitor/task",
        (Get | Post, ["_cluster", "allocation", "explain"]) => "cluster:monitor/allocation/explain",
        (Post, ["_cluster", "reroute"]) => "cluster:admin/reroute",
        (Get, ["_nodes", "stats", ..] | ["_nodes", _, "stats", ..]) => {
            "cluster:monitor/nodes/stats"
        }
        (Get, ["_nodes", "hot_threads"] | ["_nodes", _, "hot_threads"]) => {
            "cluster:monitor/nodes/hot_threads"
        }
        (Get, ["_nodes", "usage", ..] | ["_nodes", _, "usage", ..]) => {
            "cluster:monitor/nodes/usage"
        }
        (Get, ["_nodes"] | ["_nodes", _] | ["_nodes", _, _]) => "cluster:monitor/nodes/info",
        (Get, ["_tasks"]) => "cluster:monitor/tasks/lists",
        (Get, ["_tasks", _]) => "cluster:monitor/task/get",
        (Post, ["_tasks", "_cancel"] | ["_tasks", _, "_cancel"]) => "cluster:admin/tasks/cancel",
        (Get, ["_remote", "info"]) => "cluster:monitor/remote/info",
        (Get | Post, ["_search", "scroll"] | ["_search", "scroll", _]) => {
            "indices:data/read/scroll"
        }
        (Delete, ["_search", "scroll"] | ["_search", "scroll", _]) => {
            "indices:data/read/scroll/clear"
        }
        _ => return None,
    })
}

/// Requests for what is defined once for all indexes: one action to read, one to write, one to
/// delete.
fn definition(method: Method, parts: &[&str]) -> Option<&'static str> {
    let actions = match parts {
        ["_index_template"] | ["_index_template", _] => [
            "indices:admin/index_template/get",
            "indices:admin/index_template/put",
            "indices:admin/index_template/delete",
        ],
        ["_template"] | ["_template", _] => [
            "indices:admin/template/get",
            "indices:admin/template/put",
            "indices:admin/template/delete",
        ],
        ["_component_template"] | ["_component_template", _] => [
            "cluster:admin/component_template/get",
            "cluster:admin/component_template/put",
            "cluster:admin/component_template/delete",
        ],
        ["_ingest", "pipeline", .., "_simulate"] => {
            return matches!(method, Get | Post)
                .then_some("cluster:admin/ingest/pipeline/simulate");
        }
        ["_ingest", "pipeline"] | ["_ingest", "pipeline", _] => [
            "cluster:admin/ingest/pipeline/get",
            "cluster:admin/ingest/pipeline/put",
            "cluster:admin/ingest/pipeline/delete",
        ],
        ["_search", "pipeline"] | ["_search", "pipeline", _] => [
            "cluster:admin/search/pipeline/get",
            "cluster:admin/search/pipeline/put",
            "cluster:admin/search/pipeline/delete",
        ],
        ["_scripts", _] => [
            "cluster:admin/script/get",
            "cluster:admin/script/put",
            "cluster:admin/script/delete",
        ],
        _ => return None,
    };
    let [read, write, delete] = actions;
    Some(match method {
        Get | Head => read,
        Put | Post => write,
        Delete => delete,
    })
}

/// Requests for snapshots and where they are kept.
fn snapshot(method: Method, parts: &[&str]) -> Option<&'static str> {
    let ["_snapshot", rest @ ..] = parts else {
        return None;
    };
    Some(match (method, rest) {
        (Get, ["_status"] | [_, "_status"] | [_, _, "_status"]) => "cluster:admin/snapshot/status",
        (Get, [] | [_]) => "cluster:admin/repository/get",
        (Put | Post, [_]) => "cluster:admin/repository/put",
        (Delete, [_]) => "cluster:admin/repository/delete",
        (Post, [_, "_verify"]) => "cluster:admin/repository/verify",
        (Post, [_, "_cleanup"]) => "cluster:admin/repository/_cleanup",
        (Get, [_, _]) => "cluster:admin/snapshot/get",
        (Put | Post, [_, _]) => "cluster:admin/snapshot/create",
        (Delete, [_, _]) => "cluster:admin/snapshot/delete",
        _ => return None,
    })
}

/// Tables for a person to read.
fn cat(rest: &[&str]) -> Result<Checks, Unknown> {
    let on = match rest {
        [
            "indices" | "shards" | "segments" | "count" | "recovery",
            names,
        ] => expression(names)?,
        _ => vec!["*".to_owned()],
    };
    let on = Scope::Indexes(on);
    let state = || Check::cluster("cluster:monitor/state");
    let found = match rest {
        ["indices"] | ["indices", _] => vec![
            Check::on("indices:monitor/settings/get", &on),
            Check::on("indices:monitor/stats", &on),
            Check::cluster("cluster:monitor/health"),
            state(),
        ],
        ["shards"] | ["shards", _] => vec![
            Check::on("indices:monitor/stats", &on),
            state(),
            Check::cluster("cluster:monitor/shards").perhaps("newer versions check it"),
        ],
        ["segments"] | ["segments", _] => vec![Check::on("indices:monitor/segments", &on), state()],
        ["count"] | ["count", _] => vec![Check::on("indices:data/read/search", &on)],
        ["recovery"] | ["recovery", _] => vec![Check::on("indices:monitor/recovery", &on)],
        ["aliases"] | ["aliases", _] => vec![Check::on("indices:admin/aliases/get", &on)],
        ["health"] => cluster(&["cluster:monitor/health"]),
        ["master" | "cluster_manager" | "templates"] | ["templates", _] => vec![state()],
        ["nodes" | "thread_pool"] | ["thread_pool", _] => cluster(&[
            "cluster:monitor/state",
            "cluster:monitor/nodes/info",
            "cluster:monitor/nodes/stats",
        ]),
        ["allocation"] | ["allocation", _] => {
            cluster(&["cluster:monitor/state", "cluster:monitor/nodes/stats"])
        }
        ["plugins" | "nodeattrs"] => {
            cluster(&["cluster:monitor/state", "cluster:monitor/nodes/info"])
        }
        ["fielddata"] | ["fielddata", _] => cluster(&["cluster:monitor/nodes/stats"]),
        ["pending_tasks"] => cluster(&["cluster:monitor/task"]),
        ["tasks"] => cluster(&["cluster:monitor/tasks/lists"]),
        ["repositories"] => cluster(&["cluster:admin/repository/get"]),
        ["snapshots", _] => cluster(&["cluster:admin/snapshot/get"]),
        _ => return Ok(None),
    };
    Ok(Some(found))
}

/// Requests of the plugins that are known.
pub(super) fn of_plugin(method: Method, rest: &[&str]) -> Checks {
    // What a query is about stands in the body; it is searched in the caller's name.
    let query = |action| {
        vec![
            Check::cluster(action),
            Check::on("indices:data/read/search", &Scope::Body),
        ]
    };
    Some(match (method, rest) {
        (Post, ["_sql"] | ["_sql", "_explain"]) => query("cluster:admin/opensearch/sql"),
        (Post, ["_ppl"] | ["_ppl", "_explain"]) => query("cluster:admin/opensearch/ppl"),
        (Get, ["_ism", "policies"]) => cluster(&["cluster:admin/opendistro/ism/policy/search"]),
        (Get | Head, ["_ism", "policies", _]) => {
            cluster(&["cluster:admin/opendistro/ism/policy/get"])
        }
        (Put, ["_ism", "policies", _]) => cluster(&["cluster:admin/opendistro/ism/policy/write"]),
        (Delete, ["_ism", "policies", _]) => {
            cluster(&["cluster:admin/opendistro/ism/policy/delete"])
        }
        _ => return None,
    })
}
