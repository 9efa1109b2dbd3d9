use super::*;

fn group(scope: Scope, actions: &[&str]) -> Group {
    let actions = actions.iter().map(|it| (*it).to_owned()).collect();
    Group { scope, actions }
}

fn groups() -> BTreeMap<String, Group> {
    let groups = [
        ("team-search", group(Scope::Index, &["search", "team-loop"])),
        (
            "team-loop",
            group(Scope::Index, &["team-search", "indices:admin/get"]),
        ),
        ("team-watch", group(Scope::Cluster, &["cluster:monitor/*"])),
        // OpenSearch Dashboards gives no type, which is read as that for indexes.
        ("untyped", group(Scope::Index, &["cluster:monitor/main"])),
        ("several", group(Scope::Index, &["indices:data/read/mget"])),
    ];
    groups
        .into_iter()
        .map(|(name, it)| (name.to_owned(), it))
        .collect()
}

fn set(patterns: &[&str]) -> BTreeSet<String> {
    patterns.iter().map(|it| (*it).to_owned()).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn what_means_something_where_it_stands_is_a_permission() {
    for (scope, name) in [
        (Scope::Cluster, "*"),
        (Scope::Cluster, "cluster:*"),
        (Scope::Cluster, "cluster:admin/opendistro/ism/*"),
        (Scope::Cluster, "cluster:monitor/main"),
        (Scope::Cluster, "cluster:monitor/ma?n"),
        (Scope::Cluster, "cluster_composite_ops"),
        (Scope::Cluster, "indices:admin/template/*"),
        (Scope::Cluster, "indices:data/read/scroll*"),
        (Scope::Cluster, "indices:data/read/search"),
        (Scope::Cluster, "indices:data/write/bulk"),
        (Scope::Cluster, "restapi:admin/roles"),
        (Scope::Cluster, "several"),
        (Scope::Cluster, "team-watch"),
        (Scope::Cluster, "unlimited"),
        (Scope::Cluster, "untyped"),
        (Scope::Index, "*"),
        (Scope::Index, "crud"),
        (Scope::Index, "indices:*"),
        (Scope::Index, "indices:admin/refresh[s]"),
        (Scope::Index, "indices:data/read/*"),
        (Scope::Index, "indices:data/read/search*"),
        (Scope::Index, "indices:data/write/bulk"),
        (Scope::Index, "indices:data/write/index[p]"),
        (Scope::Index, "several"),
        (Scope::Index, "team-loop"),
        (Scope::Index, "unlimited"),
        (Scope::Index, "untyped"),
    ] {
        assert_eq!(check(name, scope, &groups()), Ok(()), "{scope:?} {name}");
    }
}

#[test]
fn what_is_none_says_why() {
    for (scope, name, expected) in [
        (
            Scope::Index,
            "indices:data/read/serach",
            "\"indices:data/read/serach\" is no permission that the security plugin knows: did you mean \"indices:data/read/search\"?",
        ),
        (
            Scope::Index,
            "cluster:monitor/*",
            "\"cluster:monitor/*\" does not belong here: move it to clusterPermissions, or to an action group of type cluster",
        ),
        (
            Scope::Cluster,
            "crud",
            "\"crud\" does not belong here: move it to indexPermissions, or to an action group of type index",
        ),
        (
            Scope::Index,
            "/indices:.*/",
            "\"/indices:.*/\" is a regular expression: name actions, with * and ? as wildcards",
        ),
        (
            Scope::Index,
            "kibana_all_read",
            "\"kibana_all_read\" is about tenants: move it to tenantPermissions",
        ),
        (
            Scope::Index,
            "superuser",
            "\"superuser\" is no permission that the security plugin knows",
        ),
    ] {
        let error = check(name, scope, &groups()).expect_err(name);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_belongs_elsewhere_is_refused() {
    for (scope, name) in [
        (Scope::Index, "cluster:monitor/main"),
        (Scope::Index, "cluster_monitor"),
        (Scope::Index, "restapi:admin/roles"),
        (Scope::Index, "team-watch"),
        (Scope::Cluster, "indices_all"),
        (Scope::Cluster, "system:admin/system_index"),
        (Scope::Cluster, "team-index"),
    ] {
        let mut groups = groups();
        let index = group(Scope::Index, &["indices:data/read/get"]);
        groups.insert("team-index".to_owned(), index);
        let result = check(name, scope, &groups);
        let elsewhere = matches!(result, Err(Error::OtherScope { .. }));
        assert!(elsewhere, "{scope:?} {name}: {result:?}");
    }
}

#[test]
fn a_slip_is_answered_with_the_nearest_name() {
    for (scope, name, expected) in [
        (Scope::Index, "READ", Some("read")),
        (Scope::Index, "serach", Some("search")),
        (Scope::Index, "team-serach", Some("team-search")),
        (
            Scope::Index,
            "indices:admin/mapping/get",
            Some("indices:admin/mappings/get"),
        ),
        (
            Scope::Index,
            "indices:data/search",
            Some("indices:data/read/search"),
        ),
        (
            Scope::Index,
            "indices:data/raed/*",
            Some("indices:data/read/*"),
        ),
        (
            Scope::Index,
            "indices:data/read/serach*",
            Some("indices:data/read/search*"),
        ),
        (Scope::Index, "indices:data/read/foo", None),
        (Scope::Index, "", None),
        (
            Scope::Cluster,
            "cluster:monitor/tasks/list",
            Some("cluster:monitor/tasks/lists"),
        ),
        (
            Scope::Cluster,
            "cluster_composit_ops",
            Some("cluster_composite_ops"),
        ),
        (
            Scope::Cluster,
            "cluster:montior/*",
            Some("cluster:monitor/*"),
        ),
    ] {
        let nearest = expected.map(str::to_owned);
        let name_ = name.to_owned();
        let expected = Err(Error::Unknown {
            name: name_,
            nearest,
        });
        assert_eq!(check(name, scope, &groups()), expected, "{name}");
    }
}

#[test]
fn every_suggestion_is_a_permission() {
    for scope in [Scope::Cluster, Scope::Index] {
        for name in [
            "indices:dat/read/*",
            "cluster:monito/*",
            "cluster:monitor/maim",
            "indexx",
        ] {
            if let Err(Error::Unknown {
                nearest: Some(it), ..
            }) = check(name, scope, &groups())
            {
                assert_eq!(check(&it, scope, &groups()), Ok(()), "{it}");
            }
        }
    }
}

#[test]
fn groups_stand_for_what_is_in_them() {
    let none = BTreeMap::new();
    let read = [
        "indices:admin/mappings/fields/get*",
        "indices:admin/resolve/index",
        "indices:data/read*",
    ];
    assert_eq!(expand(&names(&["read"]), &none), set(&read));
    assert_eq!(
        expand(&names(&["team-loop"]), &groups()),
        set(&[
            "indices:admin/get",
            "indices:admin/resolve/index",
            "indices:data/read/msearch*",
            "indices:data/read/search*",
            "indices:data/read/suggest*",
        ])
    );
    assert_eq!(
        expand(&names(&["unlimited", "foo"]), &none),
        set(&["*", "foo"])
    );
}

#[test]
fn a_group_hides_nothing() {
    let hiding = [
        ("unlimited", &["indices:admin/get"][..]),
        ("*", &[]),
        ("self", &["self"]),
    ];
    let hiding = hiding.map(|(name, it)| (name.to_owned(), group(Scope::Index, it)));
    let hiding = BTreeMap::from(hiding);
    let expanded = expand(&names(&["unlimited"]), &hiding);
    assert_eq!(expanded, set(&["*", "indices:admin/get"]));
    assert_eq!(expand(&names(&["*"]), &hiding), set(&["*"]));
    assert_eq!(expand(&names(&["self"]), &hiding), set(&[]));
}

#[test]
fn patterns_permit_what_they_match() {
    let patterns = set(&["indices:data/read/*", "indices:admin/get"]);
    assert!(permits(&patterns, "indices:data/read/search"));
    assert!(permits(&patterns, "indices:admin/get"));
    assert!(!permits(&patterns, "indices:admin/get2"));
    assert!(!permits(&patterns, "indices:data/write/index"));
    assert!(permits(&set(&["/x/"]), "indices:data/write/index"));
}

#[test]
fn what_exceeds_is_named() {
    let none = BTreeMap::new();
    for (asked, allowed, expected) in [
        (&["read"][..], READ, None),
        (
            &[
                "get",
                "search",
                "suggest",
                "indices_monitor",
                "manage_point_in_time",
            ],
            READ,
            None,
        ),
        (
            &["indices:data/read/search", "indices:data/read/*"],
            READ,
            None,
        ),
        (&["crud"], READ, Some("indices:admin/mapping/put")),
        (&["indices:data/*"], READ, Some("indices:data/write/bulk")),
        (&["*"], READ_WRITE, Some("cluster:admin/_tier/all")),
        (&["indices_all"], READ_WRITE, None),
        (
            &["unlimited"],
            &["cluster:*", "indices:*"],
            Some("restapi:admin/actiongroups"),
        ),
        (&["*"], &["*"], None),
        (
            &["indices:data/read/get?"],
            &["indices:data/read/get"],
            Some("indices:data/read/get?"),
        ),
        (
            &["indices:data/read/sea*"],
            &["indices:data/read/search*"],
            Some("indices:data/read/sea*"),
        ),
        (
            &["system:admin/system_index"],
            READ_WRITE,
            Some("system:admin/system_index"),
        ),
        (&["/indices:.*/"], READ_WRITE, Some("/indices:.*/")),
        (&["/indices:.*/"], &["*"], None),
        (&["/x/"], &["/*/"], Some("/x/")),
        (
            &["cluster_composite_ops_ro"],
            &["cluster_composite_ops"],
            None,
        ),
        (
            &["cluster_composite_ops"],
            &["cluster_composite_ops_ro"],
            Some("indices:admin/aliases"),
        ),
        (&[], &[], None),
    ] {
        let excess = exceeds(
            &expand(&names(asked), &none),
            &expand(&names(allowed), &none),
        );
        assert_eq!(excess.as_deref(), expected, "{asked:?} {allowed:?}");
    }
}

#[test]
fn a_level_names_what_is_known() {
    for pattern in READ.iter().chain(READ_WRITE) {
        assert_eq!(
            check(pattern, Scope::Index, &BTreeMap::new()),
            Ok(()),
            "{pattern}"
        );
    }
    for action in ACTIONS.iter().filter(|it| it.contains("/write/")) {
        assert!(!permits(&set(READ), action), "{action}");
    }
}
