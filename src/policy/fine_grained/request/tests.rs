use super::*;

/// Spells what is asked for: `action@scope`, in order; `?` for what may come, `~` for what an unusual
/// state brings.
fn asked(method: &str, path: &str) -> Result<Vec<String>, Unknown> {
    let spell = |check: &Check| {
        let mark = match check.need {
            Need::Always => "",
            Need::Perhaps(_) => "?",
            Need::Given(_) => "~",
        };
        let scope = match &check.scope {
            Scope::Cluster => String::new(),
            Scope::Indexes(names) => format!("@{}", names.join(",")),
            Scope::Body => "@body".to_owned(),
        };
        format!("{mark}{}{scope}", check.action)
    };
    Ok(Asked::of(method, path)?.checks.iter().map(spell).collect())
}

const WRITTEN: [&str; 4] = [
    "indices:data/write/bulk[s]@i",
    "indices:data/write/bulk",
    "~indices:admin/create@i",
    "~indices:admin/mapping/put@i",
];

#[test]
fn one_action_is_checked_for_most_requests() {
    for (request, expected) in [
        ("GET /", "cluster:monitor/main"),
        ("HEAD ", "cluster:monitor/main"),
        ("GET /i/_search", "indices:data/read/search@i"),
        ("POST /i/_search?size=1", "indices:data/read/search@i"),
        ("HEAD /i/_search", "indices:data/read/search@i"),
        ("POST /_search", "indices:data/read/search@*"),
        ("POST _all/_search", "indices:data/read/search@*"),
        ("GET /a,b-*/_count", "indices:data/read/search@a,b-*"),
        ("GET /i/_doc/1", "indices:data/read/get@i"),
        ("HEAD /i/_doc/a%2Fb", "indices:data/read/get@i"),
        ("GET /i/_source/1", "indices:data/read/get@i"),
        ("POST /i/_explain/1", "indices:data/read/explain@i"),
        ("GET /i/_termvectors/1", "indices:data/read/tv@i"),
        ("POST /i/_validate/query", "indices:admin/validate/query@i"),
        ("POST /i/_analyze", "indices:admin/analyze@i"),
        ("POST /_analyze", "indices:admin/analyze@body"),
        (
            "POST /i/_search/point_in_time",
            "indices:data/read/point_in_time/create@i",
        ),
        (
            "DELETE /_search/point_in_time",
            "indices:data/read/point_in_time/delete@body",
        ),
        ("POST /_search/scroll", "indices:data/read/scroll"),
        ("DELETE /_search/scroll/x", "indices:data/read/scroll/clear"),
        ("GET /i", "indices:admin/get@i"),
        ("HEAD /i", "indices:admin/get@i"),
        ("DELETE /i", "indices:admin/delete@i"),
        ("DELETE /_all", "indices:admin/delete@*"),
        ("GET /i/_mapping", "indices:admin/mappings/get@i"),
        ("PUT /i/_mappings", "indices:admin/mapping/put@i"),
        ("GET /i/_settings", "indices:monitor/settings/get@i"),
        ("PUT /i/_settings", "indices:admin/settings/update@i"),
        ("GET /i/_alias", "indices:admin/aliases/get@i"),
        ("PUT /i/_alias/a", "indices:admin/aliases@i"),
        ("POST /_aliases", "indices:admin/aliases@body"),
        ("POST /i/_forcemerge", "indices:admin/forcemerge@i"),
        ("POST /i/_open", "indices:admin/open@i"),
        ("GET /i/_stats", "indices:monitor/stats@i"),
        ("GET /_stats/docs", "indices:monitor/stats@*"),
        ("GET /_cluster/health", "cluster:monitor/health"),
        ("GET /_cluster/state/metadata/i", "cluster:monitor/state"),
        ("GET /_cluster/stats", "cluster:monitor/stats"),
        ("GET /_cluster/settings", "cluster:monitor/state"),
        ("PUT /_cluster/settings", "cluster:admin/settings/update"),
        ("GET /_nodes", "cluster:monitor/nodes/info"),
        ("GET /_nodes/n/http", "cluster:monitor/nodes/info"),
        ("GET /_nodes/n/stats/jvm", "cluster:monitor/nodes/stats"),
        ("GET /_tasks", "cluster:monitor/tasks/lists"),
        ("GET /_tasks/n:1", "cluster:monitor/task/get"),
        ("POST /_tasks/n:1/_cancel", "cluster:admin/tasks/cancel"),
        ("GET /_index_template/t", "indices:admin/index_template/get"),
        ("PUT /_index_template/t", "indices:admin/index_template/put"),
        ("DELETE /_template/t", "indices:admin/template/delete"),
        (
            "PUT /_ingest/pipeline/p",
            "cluster:admin/ingest/pipeline/put",
        ),
        (
            "POST /_ingest/pipeline/_simulate",
            "cluster:admin/ingest/pipeline/simulate",
        ),
        ("GET /_snapshot", "cluster:admin/repository/get"),
        ("PUT /_snapshot/r/s", "cluster:admin/snapshot/create"),
        ("GET /_snapshot/r/_status", "cluster:admin/snapshot/status"),
        ("GET /_cat/count/i", "indices:data/read/search@i"),
        ("GET /_resolve/index/a*", "indices:admin/resolve/index@a*"),
        (
            "PUT /_plugins/_ism/policies/p",
            "cluster:admin/opendistro/ism/policy/write",
        ),
        ("PUT /_data_stream/d", "indices:admin/data_stream/create@d"),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        assert_eq!(
            asked(method, path),
            Ok(vec![expected.to_owned()]),
            "{request}"
        );
    }
}

#[track_caller]
fn checks_all(request: &str, expected: &[&str]) {
    let (method, path) = request.split_once(' ').unwrap();
    assert_eq!(asked(method, path).unwrap(), expected, "{request}");
    // Where the plugin looks for an action follows from its name.
    for check in Asked::of(method, path).unwrap().checks {
        let cluster = check.scope == Scope::Cluster;
        assert_eq!(cluster, is_cluster_action(check.action), "{}", check.action);
    }
}

#[test]
fn what_an_action_starts_is_checked_too() {
    let index = "indices:data/write/index@i";
    let search = "indices:data/read/search@i";
    let by_query = |first, each| {
        let [shard, bulk, ..] = WRITTEN;
        vec![first, search, "indices:data/read/scroll", each, shard, bulk]
    };
    for (request, expected) in [
        ("PUT /i/_doc/1", [&[index], &WRITTEN[..]].concat()),
        ("Post /i/_doc", [&[index], &WRITTEN[..]].concat()),
        ("PUT /i/_create/1", [&[index], &WRITTEN[..]].concat()),
        (
            "POST /i/_update/1",
            [&["indices:data/write/update@i", index], &WRITTEN[..]].concat(),
        ),
        (
            "DELETE /i/_doc/1",
            [&["indices:data/write/delete@i"], &WRITTEN[..2]].concat(),
        ),
        (
            "POST /i/_bulk",
            [
                &[
                    "?indices:data/write/index@i",
                    "?indices:data/write/update@i",
                    "?indices:data/write/delete@i",
                ],
                &WRITTEN[..],
            ]
            .concat(),
        ),
        (
            "POST /i/_delete_by_query",
            by_query(
                "indices:data/write/delete/byquery@i",
                "indices:data/write/delete@i",
            ),
        ),
        (
            "POST /i/_update_by_query",
            by_query("indices:data/write/update/byquery@i", index),
        ),
        (
            "POST /_reindex",
            vec![
                "indices:data/write/reindex",
                "indices:data/read/scroll",
                "indices:data/write/bulk",
                "indices:data/read/search@body",
                "indices:data/write/index@body",
                "indices:data/write/bulk[s]@body",
            ],
        ),
        (
            "GET /i/_mget",
            vec!["indices:data/read/mget", "indices:data/read/mget[shard]@i"],
        ),
        (
            "GET /_msearch",
            vec!["indices:data/read/msearch", "indices:data/read/search@body"],
        ),
        (
            "GET /i/_field_caps",
            vec![
                "indices:data/read/field_caps@i",
                "?indices:data/read/field_caps[index]@i",
            ],
        ),
        (
            "POST /i/_refresh",
            vec!["indices:admin/refresh@i", "indices:admin/refresh[s]@i"],
        ),
        (
            "PUT /i",
            vec!["indices:admin/create@i", "~indices:admin/aliases@i"],
        ),
    ] {
        checks_all(request, &expected);
    }
}

#[test]
fn what_a_request_for_an_index_starts_is_checked_too() {
    for (request, expected) in [
        (
            "POST /i/_shrink/j",
            vec![
                "indices:admin/resize@i",
                "indices:admin/resize@j",
                "indices:monitor/stats@i",
            ],
        ),
        (
            "GET /_cat/indices/i",
            vec![
                "indices:monitor/settings/get@i",
                "indices:monitor/stats@i",
                "cluster:monitor/health",
                "cluster:monitor/state",
            ],
        ),
        (
            "POST /_plugins/_sql",
            vec![
                "cluster:admin/opensearch/sql",
                "indices:data/read/search@body",
            ],
        ),
    ] {
        checks_all(request, &expected);
    }
}

#[test]
fn every_cluster_action_is_asked_for_on_the_domain() {
    for path in [
        "/",
        "/_search/scroll",
        "/_index_template",
        "/_template",
        "/_snapshot",
        "/_tasks",
        "/_cat/indices",
        "/_cat/nodes",
        "/_cat/templates",
        "/_cat/shards",
        "/_cat/health",
        "/_cluster/health",
        "/_nodes",
        "/i/_search",
        "/i/_mget",
        "/i/_mtermvectors",
        "/i/_msearch",
        "/_scripts/s",
        "/_component_template",
        "/_remote/info",
        "/i/_segments",
        "/_cat/allocation",
    ] {
        for check in Asked::of("GET", path).unwrap().checks {
            let cluster = check.scope == Scope::Cluster;
            assert_eq!(
                cluster,
                is_cluster_action(check.action),
                "{path} {}",
                check.action
            );
        }
    }
    for (action, expected) in [
        ("indices:data/write/bulk", true),
        ("indices:data/write/bulk[s]", false),
        ("indices:data/read/mget", true),
        ("indices:data/read/mget[shard]", false),
        ("indices:data/read/msearch/template", true),
        ("indices:data/write/reindex", true),
        ("indices:admin/close", false),
        ("indices:monitor/upgrade", false),
    ] {
        assert_eq!(is_cluster_action(action), expected, "{action}");
    }
}

#[test]
fn indexes_are_read_or_left_open() {
    for (expression, expected) in [
        ("a", Some("a")),
        ("a,b", Some("a,b")),
        ("a%2Cb", Some("a,b")),
        ("a-*,-a-1", Some("a-*")),
        ("_all", Some("*")),
        ("%3Clogs-%7Bnow%2Fd%7D%3E", Some("logs-*")),
        ("%3Clogs-%7Bnow%2Fd%7Byyyy.MM%7D%7D-x%3E", Some("logs-*-x")),
        ("*,-a", Some("*")),
        ("a,-b", None),
        ("-a", None),
        (",", None),
        ("other:a", None),
        ("a,other:*", None),
        ("%3Ca%3E", None),
        ("a%FF", None),
        ("a,_b", None),
    ] {
        let found = Asked::of("GET", &format!("/{expression}/_search"));
        let names = found.ok().map(|asked| match &asked.checks[0].scope {
            Scope::Indexes(names) => names.join(","),
            other => panic!("{expression}: {other:?}"),
        });
        assert_eq!(names.as_deref(), expected, "{expression}");
    }
}

#[test]
fn what_is_not_known_says_so() {
    for (request, part) in [
        ("PATCH /i/_doc/1", "\"PATCH\" is no method"),
        ("GET /i/type/1", "GET /i/type/1"),
        ("GET /_nothing", "GET /_nothing"),
        ("PUT /_mapping", "PUT /_mapping"),
        ("PUT /_doc/1", "PUT /_doc/1"),
        ("GET /_plugins/_knn/stats", "GET /_plugins/_knn/stats"),
        ("GET /_opendistro/_ism/policies", "GET /_opendistro/_ism"),
        (
            "POST /_snapshot/r/s/_restore",
            "POST /_snapshot/r/s/_restore",
        ),
        ("GET /_plugins/_security/api/roles", "security_manager"),
        ("PATCH /_opendistro/_security/api/roles", "security_manager"),
        ("GET /b:i/_search", "another cluster"),
        ("GET /%FF/_search", "UTF-8"),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let unknown = Asked::of(method, path).unwrap_err().to_string();
        assert!(unknown.contains(part), "{request}: {unknown}");
    }
}

#[test]
fn the_body_may_name_other_indexes() {
    for (path, expected) in [
        ("/i/_bulk", true),
        ("/i/_mget", true),
        ("/i/_search", false),
    ] {
        assert_eq!(
            Asked::of("POST", path).unwrap().body_may_differ,
            expected,
            "{path}"
        );
    }
}
