//! Requests that are about indexes.

use super::Method::{self, Delete, Get, Head, Post, Put};
use super::{Check, Scope, Unknown, expression};

/// The checks of a request; `None` where they are not known.
type Checks = Option<Vec<Check>>;

/// What the second half of a request brings where it is refused by itself.
const LEFT_OUT: &str = "what is not permitted is left out of the answer";

/// What there is only below an index.
const NEEDS_INDEX: [&str; 14] = [
    "_doc",
    "_create",
    "_update",
    "_source",
    "_explain",
    "_termvectors",
    "_open",
    "_close",
    "_rollover",
    "_shrink",
    "_split",
    "_clone",
    "_delete_by_query",
    "_update_by_query",
];

/// Returns the checks of a path that begins with indexes: `rest` is what follows them.
pub(super) fn checks(method: Method, on: &Scope, rest: &[&str]) -> Result<Checks, Unknown> {
    if let (Put | Post, ["_shrink" | "_split" | "_clone", target]) = (method, rest) {
        let target = Scope::Indexes(expression(target)?);
        return Ok(Some(vec![
            Check::on("indices:admin/resize", on),
            Check::on("indices:admin/resize", &target),
            // It is measured first.
            Check::on("indices:monitor/stats", on),
        ]));
    }
    let found = document(method, on, rest);
    let found = found.or_else(|| search(method, on, rest));
    Ok(found.or_else(|| administration(method, on, rest)))
}

/// Returns the checks of a path that names no index where it could.
pub(super) fn everywhere(method: Method, parts: &[&str]) -> Result<Checks, Unknown> {
    let all = Scope::Indexes(vec!["*".to_owned()]);
    match parts {
        // Which indexes these are about stands in the body.
        [
            "_bulk" | "_mget" | "_msearch" | "_mtermvectors" | "_analyze" | "_rank_eval",
            ..,
        ] => checks(method, &Scope::Body, parts),
        ["_reindex"] if method == Post => Ok(Some(vec![
            Check::cluster("indices:data/write/reindex"),
            Check::cluster("indices:data/read/scroll"),
            Check::cluster("indices:data/write/bulk"),
            Check::on("indices:data/read/search", &Scope::Body),
            Check::on("indices:data/write/index", &Scope::Body),
            Check::on("indices:data/write/bulk[s]", &Scope::Body),
        ])),
        ["_aliases"] if method == Post => {
            Ok(Some(vec![Check::on("indices:admin/aliases", &Scope::Body)]))
        }
        // There is no such path without an index.
        [api, ..] if NEEDS_INDEX.contains(api) => Ok(None),
        ["_mapping" | "_mappings"] if method != Get => Ok(None),
        [] => Ok(None),
        parts => checks(method, &all, parts),
    }
}

/// Requests for documents.
fn document(method: Method, on: &Scope, rest: &[&str]) -> Checks {
    Some(match (method, rest) {
        (Get | Head, ["_doc" | "_source", _]) => vec![Check::on("indices:data/read/get", on)],
        (Put | Post, ["_doc" | "_create", _]) | (Post, ["_doc"]) => {
            written(vec![Check::on("indices:data/write/index", on)], on, true)
        }
        (Post, ["_update", _]) => {
            let first = ["indices:data/write/update", "indices:data/write/index"];
            written(first.map(|action| Check::on(action, on)).into(), on, true)
        }
        (Delete, ["_doc", _]) => {
            written(vec![Check::on("indices:data/write/delete", on)], on, false)
        }
        (Put | Post, ["_bulk"]) => written(
            vec![
                Check::on("indices:data/write/index", on).perhaps("the body indexes documents"),
                Check::on("indices:data/write/update", on).perhaps("the body updates documents"),
                Check::on("indices:data/write/delete", on).perhaps("the body deletes documents"),
            ],
            on,
            true,
        ),
        (Post, ["_delete_by_query"]) => by_query(
            [
                "indices:data/write/delete/byquery",
                "indices:data/write/delete",
            ],
            on,
        ),
        (Post, ["_update_by_query"]) => by_query(
            [
                "indices:data/write/update/byquery",
                "indices:data/write/index",
            ],
            on,
        ),
        (Get | Post, ["_mget"]) => vec![
            Check::cluster("indices:data/read/mget"),
            Check::on("indices:data/read/mget[shard]", on),
        ],
        (Get | Post, ["_termvectors"] | ["_termvectors", _]) => {
            vec![Check::on("indices:data/read/tv", on)]
        }
        (Get | Post, ["_mtermvectors"]) => vec![
            Check::cluster("indices:data/read/mtv"),
            Check::on("indices:data/read/mtv[shard]", on),
        ],
        _ => return None,
    })
}

/// Adds what every write comes to: a bulk request, and one for each shard.
fn written(mut checks: Vec<Check>, on: &Scope, adds: bool) -> Vec<Check> {
    checks.push(Check::on("indices:data/write/bulk[s]", on));
    checks.push(Check::cluster("indices:data/write/bulk"));
    if adds {
        let create = Check::on("indices:admin/create", on);
        let mapping = Check::on("indices:admin/mapping/put", on);
        checks.push(create.given("an index that is not there is to be created"));
        checks.push(mapping.given("a document brings new fields"));
    }
    checks
}

/// A search whose hits are written one batch after the other.
fn by_query([first, each]: [&'static str; 2], on: &Scope) -> Vec<Check> {
    let first = vec![
        Check::on(first, on),
        Check::on("indices:data/read/search", on),
        Check::cluster("indices:data/read/scroll"),
        Check::on(each, on),
    ];
    written(first, on, false)
}

/// Requests for what is in the indexes.
fn search(method: Method, on: &Scope, rest: &[&str]) -> Checks {
    let several = |actions: &[&'static str]| -> Vec<Check> {
        let actions = actions.iter();
        actions.map(|action| Check::on(action, on)).collect()
    };
    let found = match (method, rest) {
        (Get | Head | Post, ["_search" | "_count"]) => several(&["indices:data/read/search"]),
        (Get | Post, ["_search", "template"]) => several(&[
            "indices:data/read/search/template",
            "indices:data/read/search",
        ]),
        (Post, ["_search", "point_in_time"]) => {
            several(&["indices:data/read/point_in_time/create"])
        }
        (Get | Post, ["_msearch"]) => {
            let mut checks = vec![Check::cluster("indices:data/read/msearch")];
            checks.extend(several(&["indices:data/read/search"]));
            checks
        }
        (Get | Post, ["_explain", _]) => several(&["indices:data/read/explain"]),
        (Get | Post, ["_field_caps"]) => vec![
            Check::on("indices:data/read/field_caps", on),
            Check::on("indices:data/read/field_caps[index]", on).perhaps(LEFT_OUT),
        ],
        (Get | Post, ["_rank_eval"]) => {
            several(&["indices:data/read/rank_eval", "indices:data/read/search"])
        }
        (Get | Post, ["_validate", "query"]) => several(&["indices:admin/validate/query"]),
        (Get | Post, ["_analyze"]) => several(&["indices:admin/analyze"]),
        _ => return None,
    };
    Some(found)
}

/// Requests for the indexes themselves.
fn administration(method: Method, on: &Scope, rest: &[&str]) -> Checks {
    let one = |action| vec![Check::on(action, on)];
    let two = |actions: [&'static str; 2]| actions.map(|action| Check::on(action, on)).into();
    Some(match (method, rest) {
        (Get | Head, []) => one("indices:admin/get"),
        (Put, []) => vec![
            Check::on("indices:admin/create", on),
            Check::on("indices:admin/aliases", on).given("the body names aliases"),
        ],
        (Delete, []) => one("indices:admin/delete"),
        (Get, ["_mapping" | "_mappings"]) => one("indices:admin/mappings/get"),
        (Get, ["_mapping" | "_mappings", "field", _]) => vec![
            Check::on("indices:admin/mappings/fields/get", on),
            Check::on("indices:admin/mappings/fields/get[index]", on).perhaps(LEFT_OUT),
        ],
        (Put | Post, ["_mapping" | "_mappings"]) => one("indices:admin/mapping/put"),
        (Get, ["_settings"] | ["_settings", _]) => one("indices:monitor/settings/get"),
        (Put, ["_settings"]) => one("indices:admin/settings/update"),
        (Get | Head, ["_alias" | "_aliases"] | ["_alias" | "_aliases", _]) => {
            one("indices:admin/aliases/get")
        }
        (Put | Post | Delete, ["_alias" | "_aliases", _]) => one("indices:admin/aliases"),
        (Get | Post, ["_refresh"]) => two(["indices:admin/refresh", "indices:admin/refresh[s]"]),
        (Get | Post, ["_flush"]) => two(["indices:admin/flush", "indices:admin/flush[s]"]),
        (Post, ["_forcemerge"]) => one("indices:admin/forcemerge"),
        (Post, ["_cache", "clear"]) => one("indices:admin/cache/clear"),
        (Post, ["_open"]) => one("indices:admin/open"),
        (Post, ["_close"]) => two(["indices:admin/close", "indices:admin/close[s]"]),
        (Get, ["_stats"] | ["_stats", _]) => one("indices:monitor/stats"),
        (Get, ["_segments"]) => one("indices:monitor/segments"),
        (Get, ["_recovery"]) => one("indices:monitor/recovery"),
        (Get, ["_shard_stores"]) => one("indices:monitor/shard_stores"),
        (Post, ["_rollover"] | ["_rollover", _]) => vec![
            Check::on("indices:admin/rollover", on),
            Check::on("indices:monitor/stats", on),
        ],
        _ => return None,
    })
}
