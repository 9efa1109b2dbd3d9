use serde_json::{Value, json};

use super::*;
use crate::policy::evaluate::Decision::{Allow, Deny, Unknown};
use crate::policy::fine_grained::entity::Entity;

mod callers;

const ROLE: &str = "arn:aws:iam::111122223333:role/app";
const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/app/pod-1";
const USER: &str = "arn:aws:iam::111122223333:user/ann";

fn entities(value: Value) -> BTreeMap<String, Entity> {
    let Value::Object(value) = value else {
        panic!("not an object")
    };
    SecurityConfig::parse(value)
}

/// A configuration in which [`ROLE`] has the roles that are given.
fn having(roles: Value) -> SecurityConfig {
    let roles = entities(roles);
    let mapping = || Entity::parse(json!({"backend_roles": [ROLE]}));
    SecurityConfig {
        mappings: roles.keys().map(|role| (role.clone(), mapping())).collect(),
        roles,
        ..SecurityConfig::default()
    }
}

fn on(patterns: &[&str], actions: &[&str]) -> Value {
    json!({"index_permissions": [{"index_patterns": patterns, "allowed_actions": actions}]})
}

fn ask(config: &SecurityConfig, caller: Option<&str>, request: &str) -> Answer {
    let groups: BTreeMap<String, Vec<String>> = [
        ("read", vec!["indices:data/read*"]),
        ("crud", vec!["read", "write_docs"]),
        ("write_docs", vec!["indices:data/write*", "crud"]),
        (
            "cluster_composite_ops",
            vec!["indices:data/write/bulk", "indices:data/read/m*"],
        ),
    ]
    .map(|(name, actions)| {
        (
            name.to_owned(),
            actions.into_iter().map(str::to_owned).collect(),
        )
    })
    .into();
    let (method, path) = request.split_once(' ').unwrap();
    let asked = Asked::of(method, path);
    Plugin::new(config, &groups).answer(caller, asked.as_ref())
}

#[track_caller]
fn decides(config: &SecurityConfig, cases: &[(&str, Decision)]) {
    for (request, expected) in cases {
        let answer = ask(config, Some(ROLE), request);
        assert_eq!(answer.decision, *expected, "{request}: {}", answer.why);
    }
}

#[test]
fn a_reader_reads_its_indexes_and_no_others() {
    let config = having(json!({"reader": on(&["team-a-*"], &["read"])}));
    decides(
        &config,
        &[
            ("GET /team-a-1/_search", Allow),
            ("GET /team-a-*/_search", Allow),
            ("GET /team-a-1,team-a-2*/_count", Allow),
            ("GET /%3Cteam-a-%7Bnow%2Fd%7D%3E/_search", Allow),
            ("GET /team-a-1/_doc/1", Allow),
            ("GET /team-b-1/_search", Deny),
            ("GET /team-a-1,team-b-1/_search", Deny),
            ("GET /team-b-*/_search", Deny),
            ("GET /_search", Deny),
            // It depends on which indexes there are.
            ("GET /team-*/_search", Unknown),
            ("GET /team-*,-team-b-*/_search", Unknown),
            ("GET /team-b-*,-team-b-1/_search", Unknown),
            ("GET /*,-team-b-*/_search", Unknown),
            ("GET /team-a-*,-team-a-1/_search", Allow),
            ("PUT /team-a-1/_doc/1", Deny),
            ("DELETE /team-a-1", Deny),
            ("GET /_cluster/health", Deny),
            // The part on the domain is missing.
            ("GET /team-a-1/_msearch", Deny),
            ("GET /other:team-a-1/_search", Unknown),
            ("GET /_plugins/_security/api/roles", Unknown),
        ],
    );
}

#[test]
fn an_answer_says_what_is_missing_where() {
    let config = having(json!({"team-a.reader": on(&["team-a-*"], &["read"])}));
    let denied = ask(&config, Some(ROLE), "PUT /team-b-1/_doc/1");
    assert_eq!(
        denied.why,
        "no role of the caller permits indices:data/write/index on team-b-1; roles: team-a.reader"
    );
    assert_eq!(denied.roles, BTreeSet::from(["team-a.reader".to_owned()]));
    assert!(denied.by.is_empty());
    let allowed = ask(&config, Some(ROLE), "GET /team-a-1/_search");
    assert_eq!(allowed.why, "permitted by team-a.reader");
    assert_eq!(allowed.by, allowed.roles);
    let stranger = ask(&config, Some(USER), "GET /team-a-1/_search");
    assert_eq!(stranger.decision, Deny);
    assert_eq!(
        stranger.why,
        "no role of the caller permits indices:data/read/search on team-a-1; the caller has no role"
    );
}

#[test]
fn a_write_needs_its_bulk_request_too() {
    let write = "indices:data/write/index";
    let shard = "indices:data/write/bulk[s]";
    let bulk = json!({"cluster_permissions": ["indices:data/write/bulk"]});
    for (roles, expected) in [
        (json!({"a": on(&["i"], &[write, shard]), "b": bulk}), Allow),
        (
            json!({"a": on(&["i"], &[write]), "c": on(&["*"], &[shard]), "b": bulk}),
            Allow,
        ),
        (
            json!({"a": on(&["i"], &[write, "indices:data/write/bulk*"])}),
            Deny,
        ),
        (json!({"a": on(&["i"], &[write]), "b": bulk}), Deny),
        (json!({"a": on(&["i"], &[shard]), "b": bulk}), Deny),
        // A permission on an index is none on the domain, nor the other way round.
        (json!({"a": {"cluster_permissions": ["*"]}}), Deny),
        (json!({"a": on(&["*"], &["*"])}), Deny),
    ] {
        let answer = ask(&having(roles), Some(ROLE), "PUT /i/_doc/1");
        assert_eq!(answer.decision, expected, "{}", answer.why);
        if expected == Allow {
            assert!(
                answer.why.contains("not where an index that is not there"),
                "{}",
                answer.why
            );
        }
    }
    let mut full = having(json!({"a": on(&["i"], &["*"]), "b": bulk}));
    assert_eq!(
        ask(&full, Some(ROLE), "PUT /i/_doc/1").why,
        "permitted by a, b"
    );
    full.roles.remove("b");
    assert_eq!(ask(&full, Some(ROLE), "PUT /i/_doc/1").decision, Deny);
}

#[test]
fn a_bulk_request_depends_on_its_body() {
    let mut role = on(&["team-a-*"], &["crud"]);
    role["cluster_permissions"] = json!(["cluster_composite_ops"]);
    decides(
        &having(json!({"writer": role})),
        &[
            ("POST /team-a-1/_bulk", Allow),
            ("POST /team-b-1/_bulk", Deny),
            ("POST /_bulk", Unknown),
            ("POST /team-a-1/_delete_by_query", Deny),
            ("GET /_mget", Unknown),
            ("POST /_reindex", Deny),
        ],
    );
    let mut role = on(
        &["team-a-*"],
        &["indices:data/write/index", "indices:data/write/bulk*"],
    );
    role["cluster_permissions"] = json!(["indices:data/write/*", "indices:data/read/scroll"]);
    decides(
        &having(json!({"writer": role})),
        &[
            // It may delete.
            ("POST /team-a-1/_bulk", Unknown),
            // There is no index that it may be read from.
            ("POST /_reindex", Deny),
        ],
    );
    let none = having(json!({"bulk": {"cluster_permissions": ["*"]}}));
    decides(&none, &[("POST /_bulk", Deny), ("GET /_mget", Deny)]);
}

#[test]
fn action_groups_are_resolved_to_the_end() {
    let mut config = having(json!({"a": on(&["i"], &["mine"])}));
    decides(&config, &[("GET /i/_search", Deny)]);
    config.action_groups = entities(json!({
        "mine": {"allowed_actions": ["theirs", "indices:admin/get"]},
        "theirs": {"allowed_actions": ["mine", "crud"]}}));
    decides(
        &config,
        &[
            ("GET /i/_search", Allow),
            ("GET /i", Allow),
            ("DELETE /i", Deny),
        ],
    );
    // What the domain says of a group counts, and not what is known of it.
    config
        .action_groups
        .insert("crud".to_owned(), Entity::default());
    decides(&config, &[("GET /i/_search", Deny), ("GET /i", Allow)]);
}

#[test]
fn a_mapping_without_a_role_permits_nothing() {
    let mut config = having(json!({"a": on(&["*"], &["*"])}));
    config.roles.clear();
    let answer = ask(&config, Some(ROLE), "GET /i/_search");
    assert_eq!((answer.decision, answer.roles.len()), (Deny, 1));
}

#[test]
fn what_is_not_understood_stays_open() {
    for (role, request, expected) in [
        (
            on(&["/team-[ab]/"], &["read"]),
            "GET /team-a/_search",
            Unknown,
        ),
        (on(&["/team-[ab]/"], &["read"]), "DELETE /team-a", Deny),
        (
            on(&["team-a"], &["/indices:data.*/"]),
            "GET /team-a/_search",
            Unknown,
        ),
        (
            on(&["team-a"], &["/indices:data.*/"]),
            "GET /team-b/_search",
            Deny,
        ),
        (
            on(&["${user.roles}"], &["read"]),
            "GET /team-a/_search",
            Unknown,
        ),
        (
            on(&["${user.name}"], &["read"]),
            "GET /team-a/_search",
            Deny,
        ),
        (
            on(&["<logs-{now/d}>"], &["read"]),
            "GET /logs-1/_search",
            Unknown,
        ),
        (
            on(&["<logs-{now/d}>"], &["read"]),
            "GET /team-a/_search",
            Deny,
        ),
        (
            json!({"cluster_permissions": ["/cluster.*/"]}),
            "GET /_cluster/health",
            Unknown,
        ),
        (
            json!({"cluster_permissions": ["cluster:monitor*"]}),
            "GET /_cluster/health",
            Allow,
        ),
    ] {
        let answer = ask(&having(json!({"a": role})), Some(ROLE), request);
        assert_eq!(
            answer.decision, expected,
            "{role} {request}: {}",
            answer.why
        );
    }
    let mut own = having(json!({"own": on(&["${user_name}-*"], &["read"])}));
    own.mappings
        .insert("own".to_owned(), Entity::parse(json!({"users": ["*"]})));
    assert_eq!(ask(&own, Some("ann"), "GET /ann-1/_search").decision, Allow);
    assert_eq!(ask(&own, Some("ann"), "GET /bob-1/_search").decision, Deny);
}

#[test]
fn another_role_may_settle_what_one_leaves_open() {
    let roles = json!({"open": on(&["/team-.*/"], &["read"]), "firm": on(&["team-a"], &["read"])});
    decides(
        &having(roles),
        &[
            ("GET /team-a/_search", Allow),
            ("GET /team-b/_search", Unknown),
        ],
    );
}

#[test]
fn system_indexes_are_guarded_beside_the_roles() {
    let config = having(json!({"all": {"cluster_permissions": ["*"],
        "index_permissions": [{"index_patterns": ["*"], "allowed_actions": ["*"]}]}}));
    decides(
        &config,
        &[
            ("GET /_search", Allow),
            ("GET /*,-team-*/_search", Allow),
            ("GET /_cat/indices", Allow),
            ("DELETE /team-*", Allow),
            ("DELETE /_all", Unknown),
            ("POST /*/_delete_by_query", Unknown),
            ("GET /.opendistro_security/_search", Unknown),
            ("PUT /.kibana_1/_doc/1", Unknown),
        ],
    );
    let reader = having(json!({"reader": on(&["team-a"], &["read"])}));
    decides(&reader, &[("GET /.opendistro_security/_search", Deny)]);
}

#[test]
fn what_is_kept_back_is_said_but_not_shown() {
    let config = having(json!({
        "reader": {"index_permissions": [
            {"index_patterns": ["team-a-*"], "allowed_actions": ["read"],
                "dls": "{\"term\": {\"secret\": 1}}", "fls": ["~x"], "masked_fields": ["name"]},
            {"index_patterns": ["team-b"], "allowed_actions": ["read"], "dls": "", "fls": []}]},
        "filter": {"index_permissions": [
            {"index_patterns": ["team-a-1"], "allowed_actions": [], "dls": "{}"}]}}));
    let answer = ask(&config, Some(ROLE), "GET /team-a-1/_search");
    assert_eq!(
        answer.why,
        "permitted by reader; rows are filtered by filter; rows are filtered and fields are filtered and fields are masked by reader"
    );
    let all = Filters {
        rows: true,
        fields: true,
        masked: true,
    };
    assert_eq!(answer.filters["reader"], all);
    assert!(!answer.why.contains("secret"));
    let answer = ask(&config, Some(ROLE), "GET /team-a-2/_search");
    assert_eq!(answer.filters.keys().collect::<Vec<_>>(), ["reader"]);
    assert!(
        ask(&config, Some(ROLE), "GET /team-b/_search")
            .filters
            .is_empty()
    );
}
