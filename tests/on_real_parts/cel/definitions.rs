//! The rules of the kinds that define something in a security plugin: each has manifests that break
//! it alone, which the API server refuses with the rule's own text, and the operator refuses too.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::gvk::GroupVersionKind;
use opensearch_access::api::action_group::DomainActionGroup;
use opensearch_access::api::role::DomainRole;
use opensearch_access::api::tenant::DomainTenant;
use opensearch_access::policy::fine_grained::definition::check::{Rules, Verdict};
use opensearch_access::policy::fine_grained::definition::{Defines, definition};
use opensearch_access::policy::fine_grained::entity::{Engine, SecurityConfig};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::case::{generous_domain, merge};
use super::{NAMESPACE, cluster, schema};

/// The smallest object of a kind that keeps every rule.
fn object(kind: &str, patch: &Value) -> Value {
    let mut spec = match kind {
        "DomainRole" => {
            json!({"indexPermissions": [{"indexPatterns": ["a-*"], "allowedActions": ["read"]}]})
        }
        "DomainTenant" => json!({}),
        _ => json!({"type": "Index", "allowedActions": ["read"]}),
    };
    spec["domainRef"] = json!({"name": "cel"});
    merge(&mut spec, patch);
    json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": kind,
        "metadata": {"name": "cel", "namespace": NAMESPACE}, "spec": spec})
}

fn api(client: kube::Client, kind: &str) -> Api<DynamicObject> {
    let group = GroupVersionKind::gvk("opensearch-access.io", "v1alpha1", kind);
    let plural = format!("{}s", kind.to_lowercase());
    let resource = kube::api::ApiResource::from_gvk_with_plural(&group, &plural);
    Api::namespaced_with(client, NAMESPACE, &resource)
}

/// Why the operator does not take an object, if it does not.
fn refused(kind: &str, object: &Value) -> Option<String> {
    fn judge<K: Defines + DeserializeOwned>(object: &Value) -> Option<String> {
        let object: K = match serde_json::from_value(object.clone()) {
            Ok(object) => object,
            Err(error) => return Some(error.to_string()),
        };
        let all = [definition(&object)];
        let (domain, observed, labels) = (
            generous_domain(),
            SecurityConfig::default(),
            BTreeMap::new(),
        );
        let engine = Engine::parse("OpenSearch_2.19");
        let rules = Rules::new(&domain, true, engine, &observed, &labels, &all);
        match rules.judge(all[0].clone()) {
            Verdict::Valid(_) => None,
            Verdict::Broken(_, rejection) | Verdict::Refused(_, rejection) => {
                Some(rejection.to_string())
            }
            other => panic!("{other:?}"),
        }
    }
    match kind {
        "DomainRole" => judge::<DomainRole>(object),
        "DomainTenant" => judge::<DomainTenant>(object),
        _ => judge::<DomainActionGroup>(object),
    }
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_by_the_server_and_by_the_operator() {
    let name = "must be a name of letters, digits";
    let index = |item: Value| json!({"indexPermissions": [item]});
    let tenant = |item: Value| json!({"indexPermissions": null, "tenantPermissions": [item]});
    let read = json!(["read"]);
    let cases = [
        ("DomainRole", json!({"name": "a b"}), name),
        ("DomainTenant", json!({"name": "*"}), name),
        ("DomainActionGroup", json!({"name": "-a"}), name),
        (
            "DomainRole",
            json!({"indexPermissions": null}),
            "a role needs clusterPermissions",
        ),
        (
            "DomainRole",
            index(json!({"indexPatterns": ["/a.*/"], "allowedActions": read})),
            "a pattern is an index name",
        ),
        (
            "DomainRole",
            index(json!({"indexPatterns": ["${user.name}"], "allowedActions": read})),
            "a pattern is an index name",
        ),
        (
            "DomainRole",
            index(json!({"indexPatterns": ["a"], "allowedActions": read, "fls": ["a", "~b"]})),
            "name either the fields",
        ),
        (
            "DomainRole",
            tenant(json!({"tenantPatterns": ["/a/"], "allowedActions": ["kibana_all_read"]})),
            "a pattern is a name of letters",
        ),
        (
            "DomainRole",
            tenant(json!({"tenantPatterns": ["a"], "allowedActions": ["read"]})),
            "must be kibana_all_read or kibana_all_write",
        ),
        (
            "DomainRole",
            index(json!({"indexPatterns": [], "allowedActions": read})),
            "at least 1",
        ),
        (
            "DomainTenant",
            json!({"description": "a".repeat(257)}),
            "more than 256",
        ),
        (
            "DomainActionGroup",
            json!({"allowedActions": []}),
            "at least 1",
        ),
        (
            "DomainTenant",
            json!({"domainRef": {"name": "A"}}),
            "must be the name of an OpenSearchDomain",
        ),
    ];
    for (kind, patch, message) in &cases {
        let api = api(cluster().await.client(), kind);
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let broken = object(kind, patch);
        let parsed: DynamicObject = serde_json::from_value(broken.clone()).unwrap();
        let error = api
            .create(&dry, &parsed)
            .await
            .expect_err(&broken.to_string());
        assert!(error.to_string().contains(message), "{broken}: {error}");
        if !message.contains("OpenSearchDomain") {
            assert!(
                refused(kind, &broken).is_some(),
                "the operator takes {broken}"
            );
        }
        let legal = object(kind, &json!({}));
        assert_eq!(refused(kind, &legal), None, "{legal}");
        let parsed: DynamicObject = serde_json::from_value(legal).unwrap();
        api.create(&dry, &parsed).await.unwrap();
    }
    // Every rule but those about changes, which the next test is about, has a case.
    let said: BTreeSet<&str> = cases.iter().map(|(_, _, message)| *message).collect();
    for (kind, path, rule) in schema::rules_of_definitions() {
        let has_case = rule.contains("cannot change") || said.iter().any(|it| rule.contains(it));
        assert!(has_case, "{kind} {path} has no case: {rule}");
    }
}

#[tokio::test]
async fn what_a_definition_is_about_cannot_change() {
    for kind in ["DomainRole", "DomainTenant", "DomainActionGroup"] {
        let api = api(cluster().await.client(), kind);
        let mut made = object(kind, &json!({}));
        made["metadata"]["name"] = json!("fixed");
        let made: DynamicObject = serde_json::from_value(made).unwrap();
        api.create(&PostParams::default(), &made).await.unwrap();
        for change in [
            json!({"domainRef": {"name": "other"}}),
            json!({"name": "other"}),
        ] {
            let patch = kube::api::Patch::Merge(json!({"spec": change}));
            let dry = kube::api::PatchParams {
                dry_run: true,
                ..kube::api::PatchParams::default()
            };
            let error = api.patch("fixed", &dry, &patch).await.expect_err(kind);
            assert!(
                error.to_string().contains("cannot change"),
                "{kind}: {error}"
            );
        }
        api.delete("fixed", &kube::api::DeleteParams::default())
            .await
            .unwrap();
    }
}
