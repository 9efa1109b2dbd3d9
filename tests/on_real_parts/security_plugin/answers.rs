//! The facts about the plugin's API that our client is built on, on the real one.

use opensearch_access::policy::fine_grained::entity::EntityKind::{
    ActionGroup, Mapping, Role, Tenant,
};
use opensearch_access::security::client::Patched;
use opensearch_access::security::error::Error;
use serde_json::{Value, json};

use super::{Domain, patched, role, shared_node};
use crate::common::gateway::Trouble;
use axum::http::{Method, StatusCode};

fn refused(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Refused { message }) => message,
        other => panic!("it is refused, and not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_stored_read_and_removed() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let group = json!({"allowed_actions": ["read"], "type": "index"});
    plugin
        .put(ActionGroup, "answers.group", &group)
        .await
        .unwrap();
    let tenant = json!({"description": "a tenant"});
    plugin.put(Tenant, "answers.tenant", &tenant).await.unwrap();
    let reader = role(&["answers-*"], &["answers.group"]);
    plugin.put(Role, "answers.reader", &reader).await.unwrap();
    // Again, which the plugin takes for an update.
    plugin.put(Role, "answers.reader", &reader).await.unwrap();

    let config = plugin.read().await.unwrap();
    let read = &config.roles["answers.reader"];
    assert!(!read.is_protected());
    let permissions = &read.body["index_permissions"][0];
    assert_eq!(permissions["allowed_actions"], json!(["answers.group"]));
    assert_eq!(
        permissions["fls"],
        json!([]),
        "lists that were not sent are empty"
    );
    assert!(config.roles["all_access"].is_static);
    assert!(config.tenants["global_tenant"].is_static);
    assert!(config.action_groups["read"].is_static);
    assert_eq!(
        config.tenants["answers.tenant"].body["description"],
        "a tenant"
    );

    for (kind, name) in [
        (Role, "answers.reader"),
        (Tenant, "answers.tenant"),
        (ActionGroup, "answers.group"),
        (Role, "answers.never-was"),
    ] {
        plugin.delete(kind, name).await.unwrap();
    }
    let config = plugin.read().await.unwrap();
    assert!(!config.roles.contains_key("answers.reader"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_plugin_refuses_is_said_in_its_words() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let put = async |name: &str, body: Value| refused(plugin.put(Role, name, &body).await);
    let said = put("refused.keys", json!({"bogus": 1, "reserved": true})).await;
    assert!(
        said.contains("unknown fields") && said.contains("bogus"),
        "{said}"
    );
    let said = put("all_access", json!({"cluster_permissions": []})).await;
    assert_eq!(said, "Resource 'all_access' is static.");
    let said = put("refused.type", json!({"cluster_permissions": "*"})).await;
    assert_eq!(said, "Wrong datatype");
    let patch = json!([{"op": "test", "path": "/x", "value": 1}]);
    let said = refused(plugin.patch(Mapping, &patch).await);
    assert!(said.contains("Unsupported patch operation"), "{said}");
    // A role comes before its mapping.
    let patch = json!([{"op": "add", "path": "/refused.none", "value": {"users": ["a"]}}]);
    let missing = plugin.patch(Mapping, &patch).await;
    assert!(
        matches!(missing, Err(Error::NotFound { .. })),
        "{missing:?}"
    );
    let nothing = json!([{"op": "remove", "path": "/refused.none"}]);
    assert_eq!(
        plugin.patch(Mapping, &nothing).await.unwrap(),
        Patched::Nothing
    );
}

/// The plugin checks neither: what it takes without a word matches nothing later, or fails each
/// search. Hence both are judged before they are written.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_permissions_and_broken_queries_are_stored() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let body = json!({"index_permissions": [{"index_patterns": ["x"],
        "allowed_actions": ["no-such-thing"], "dls": "{\"foo"}]});
    plugin.put(Role, "unjudged.role", &body).await.unwrap();
    plugin.delete(Role, "unjudged.role").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_outlives_its_role() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let name = "outlived.role";
    plugin
        .put(Role, name, &role(&["x"], &["read"]))
        .await
        .unwrap();
    let patch = json!([{"op": "add", "path": format!("/{name}"), "value": {"users": ["a"]}}]);
    patched(&plugin, &patch).await;
    plugin.delete(Role, name).await.unwrap();
    assert!(plugin.read().await.unwrap().mappings.contains_key(name));
    plugin.delete(Mapping, name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_nowhere_is_told_by_whom() {
    let domain = Domain::open(shared_node().await).await;
    domain.aws.account(super::ACCOUNT).role("stranger");
    let keys = domain.aws.session(super::ACCOUNT, "stranger", "s");
    let plugin = domain.plugin_as(&keys).await;
    let shut = plugin.read().await.unwrap_err();
    assert!(matches!(&shut, Error::Shut { .. }), "{shut}");
    assert!(shut.to_string().contains("es:ESHttpPatch"), "{shut}");
    domain.let_in("stranger", "*");
    let not_admitted = plugin.read().await.unwrap_err();
    assert!(
        matches!(&not_admitted, Error::NotAdmitted { .. }),
        "{not_admitted}"
    );
    assert!(not_admitted.to_string().contains("security_manager"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_fails_is_told_apart_from_one_that_refuses() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let path = "/_plugins/_security/api/";
    for (trouble, is) in [
        (
            Trouble::Answer(StatusCode::TOO_MANY_REQUESTS, json!({})),
            "Busy",
        ),
        (Trouble::conflict(), "Conflict"),
        (Trouble::Reset, "Unreachable"),
        (
            Trouble::Answer(StatusCode::INTERNAL_SERVER_ERROR, json!({})),
            "Failed",
        ),
    ] {
        domain
            .gateway
            .troubles()
            .next(1, Method::GET, path, &trouble);
        let error = plugin.read().await.unwrap_err();
        assert_eq!(error.code(), is, "{error}");
        assert!(error.passes());
    }
    plugin.read().await.unwrap();
}
