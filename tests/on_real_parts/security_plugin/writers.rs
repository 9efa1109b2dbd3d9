//! Several writers of one mapping, at the same time and through failures: nobody loses anything.

use std::collections::BTreeSet;

use axum::http::Method;
use opensearch_access::policy::fine_grained::entity::EntityKind::Role;
use opensearch_access::policy::fine_grained::mapping::Entries;
use opensearch_access::security::client::Plugin;
use opensearch_access::security::mapping;
use serde_json::json;

use super::{Domain, PATIENCE, patched, role, shared_node};
use crate::common::gateway::Trouble;
use crate::common::opensearch::Node;

const PATCHES: &str = "/_plugins/_security/api/rolesmapping";

fn entries(users: &[&str], roles: &[&str]) -> Entries {
    let set = |texts: &[&str]| texts.iter().map(|&it| it.to_owned()).collect();
    Entries {
        users: set(users),
        backend_roles: set(roles),
    }
}

async fn has(plugin: &Plugin, role: &str, list: &str) -> Option<BTreeSet<String>> {
    let config = plugin.read().await.unwrap();
    let mapping = config.mappings.get(role)?;
    Some(mapping.texts(list).map(str::to_owned).collect())
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&it| it.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_into_a_mapping_stays() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let name = "kept.role";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    // Without the lists that nobody ever gave: the plugin cannot append to those.
    let theirs = json!({"backend_roles": ["theirs"], "hosts": ["h"], "and_backend_roles": ["b"],
        "description": "d"});
    let patch = json!([{"op": "add", "path": format!("/{name}"), "value": theirs}]);
    patched(&plugin, &patch).await;
    let ours = entries(&["ann"], &["one", "two"]);
    mapping::add(&plugin, name, &ours).await.unwrap();
    mapping::add(&plugin, name, &ours).await.unwrap();
    assert_eq!(has(&plugin, name, "users").await, Some(set(&["ann"])));
    let roles = Some(set(&["theirs", "one", "two"]));
    assert_eq!(has(&plugin, name, "backend_roles").await, roles);
    mapping::remove(&plugin, name, &ours, true).await.unwrap();
    let config = plugin.read().await.unwrap();
    let left = &config.mappings[name].body;
    assert_eq!(left["backend_roles"], json!(["theirs"]));
    assert_eq!(left["hosts"], json!(["h"]));
    assert_eq!(left["and_backend_roles"], json!(["b"]));
    assert_eq!(left["description"], "d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_is_made_and_goes_with_its_last_entry() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let name = "odd/~name";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    let ours = entries(&[], &["one"]);
    mapping::add(&plugin, name, &ours).await.unwrap();
    assert_eq!(
        has(&plugin, name, "backend_roles").await,
        Some(set(&["one"]))
    );
    mapping::remove(&plugin, name, &ours, true).await.unwrap();
    assert_eq!(has(&plugin, name, "backend_roles").await, None);
    mapping::remove(&plugin, name, &ours, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_comes_through_what_may_go_wrong() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let name = "rough.role";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    let refused = Trouble::Answer(axum::http::StatusCode::SERVICE_UNAVAILABLE, json!({}));
    let lost = Trouble::AppliedThen(None, json!({}));
    let all = [
        Trouble::conflict(),
        Trouble::persisted(),
        Trouble::Reset,
        refused,
        lost,
    ];
    let troubles = domain.gateway.troubles();
    let (one, two) = (entries(&["one"], &["r"]), entries(&["two"], &[]));
    for trouble in &all {
        troubles.next(2, Method::PATCH, PATCHES, trouble);
        mapping::add(&plugin, name, &one).await.unwrap();
        mapping::add(&plugin, name, &two).await.unwrap();
        assert_eq!(
            has(&plugin, name, "users").await,
            Some(set(&["one", "two"]))
        );
        troubles.next(2, Method::PATCH, PATCHES, trouble);
        mapping::remove(&plugin, name, &one, false).await.unwrap();
        assert_eq!(has(&plugin, name, "users").await, Some(set(&["two"])));
        assert_eq!(has(&plugin, name, "backend_roles").await, Some(set(&[])));
        troubles.clear();
    }
}

/// Each writer adds and removes what is its own, as often as it is told.
async fn write(plugin: &Plugin, name: &str, mine: &str, times: usize) {
    let mut has = false;
    for _ in 0..times {
        let entries = entries(&[mine], &[]);
        if has {
            mapping::remove(plugin, name, &entries, false)
                .await
                .unwrap();
        } else {
            mapping::add(plugin, name, &entries).await.unwrap();
        }
        has = !has;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_writers_with_a_thousand_writes_each_lose_nothing() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let name = "busy.role";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    let others = entries(&["first", "last"], &[]);
    mapping::add(&plugin, name, &others).await.unwrap();
    // An odd number of writes leaves each writer's own in place.
    let writers = ["ann", "bob", "eve"].map(|mine| write(&plugin, name, mine, 1001));
    futures::future::join_all(writers).await;
    let all = set(&["first", "last", "ann", "bob", "eve"]);
    assert_eq!(has(&plugin, name, "users").await, Some(all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_restarted_in_the_middle_of_writes_loses_nothing() {
    let node = std::sync::Arc::new(Node::start().await);
    let domain = Domain::open(std::sync::Arc::clone(&node)).await;
    let plugin = domain.plugin().await;
    let name = "restarted.role";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    let names: Vec<String> = (0..200).map(|at| format!("user-{at}")).collect();
    let writing = async {
        for user in &names {
            let mine = entries(&[user], &[]);
            let deadline = tokio::time::Instant::now() + PATIENCE;
            // As a reconcile would: what failed is tried again, and nothing is remembered.
            while let Err(error) = mapping::add(&plugin, name, &mine).await {
                assert!(tokio::time::Instant::now() < deadline, "{error}");
            }
        }
    };
    let restarting = async {
        while domain.gateway.security_writes().len() < 20 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        node.kill();
        node.start_again().await;
    };
    tokio::join!(writing, restarting);
    let all = names.into_iter().collect();
    assert_eq!(has(&plugin, name, "users").await, Some(all));
}
