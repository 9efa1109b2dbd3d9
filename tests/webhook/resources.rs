//! What is said of our own objects before they are stored.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::hook::{Hook, resource};

fn grant(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"domainRef": {"name": "logs"}, "access": "Read", "paths": ["resources-x"],
        "principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/x"}}]});
    json_patch::merge(&mut whole, spec);
    json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccess",
        "metadata": {"name": name}, "spec": whole})
}

fn role(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"domainRef": {"name": "logs"},
        "indexPermissions": [{"indexPatterns": ["resources-*"], "allowedActions": ["read"]}]});
    json_patch::merge(&mut whole, spec);
    json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainRole",
        "metadata": {"name": name}, "spec": whole})
}

#[tokio::test]
async fn what_nobody_consents_to_is_refused_in_words() {
    let hook = Hook::shared().await;
    hook.namespace("resources").await;
    hook.namespace("strangers").await;
    let cases = [
        (
            "strangers",
            grant("a", &json!({})),
            "has no consent for namespace strangers",
        ),
        (
            "resources",
            grant("a", &json!({"access": "Admin", "paths": null})),
            "ceiling",
        ),
        (
            "resources",
            grant("a", &json!({"paths": ["payroll"]})),
            "outside the ceiling's paths",
        ),
        (
            "resources",
            grant("a", &json!({"domainRef": {"name": "lgos"}})),
            "did you mean \"logs\"?",
        ),
        (
            "resources",
            grant(
                "a",
                &json!({"principals": [{"iamRole": {"arn": "arn:aws:iam::999999999999:role/x"}}]}),
            ),
            "spec.principals[0]",
        ),
        (
            "resources",
            grant("a", &json!({"securityRoles": ["all_access"]})),
            "spec.securityRoles[0]",
        ),
        (
            "resources",
            role("a", &json!({"name": "other.role"})),
            "not among the names",
        ),
        (
            "resources",
            role(
                "a",
                &json!({"indexPermissions": [{"indexPatterns": ["*"], "allowedActions": ["read"]}]}),
            ),
            "spec.indexPermissions[0]",
        ),
        (
            "strangers",
            role("a", &json!({})),
            "has no consent for namespace strangers",
        ),
        (
            "resources",
            role("a", &json!({"domainRef": {"name": "serach"}})),
            "did you mean \"search\"?",
        ),
    ];
    for (namespace, object, words) in cases {
        let refused = hook.create(Some(namespace), &object).await;
        let said = refused.expect_err(words);
        assert!(
            said.contains("resources.opensearch-access.io") && said.contains(words),
            "{said}"
        );
    }
    let fine = [grant("fine", &json!({})), role("fine", &json!({}))];
    for object in fine {
        let (made, heard) = hook.create_and_hear("resources", &object).await;
        made.unwrap();
        assert!(heard.is_empty(), "{heard:?}");
    }
    // A ceiling's number counts those that are there.
    for name in ["second", "third"] {
        hook.create(Some("resources"), &grant(name, &json!({})))
            .await
            .unwrap();
    }
    hook.until("the others are seen", async || {
        let tried = hook
            .dry_run("resources", &grant("fourth", &json!({})))
            .await;
        match tried {
            Err(said) if said.contains("maxGrants") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// What was stored once can be labelled, finished and deleted, whatever has become of its consent.
#[tokio::test]
async fn what_is_stored_can_always_be_let_go() {
    let hook = Hook::start(&[]).await;
    hook.namespace("resources").await;
    hook.create(Some("resources"), &grant("old", &json!({})))
        .await
        .unwrap();
    let domains = Api::<DynamicObject>::all_with(hook.client(), &resource("OpenSearchDomain"));
    let withdrawn = Patch::Merge(json!({"spec": {"consent": []}}));
    domains
        .patch("logs", &PatchParams::default(), &withdrawn)
        .await
        .unwrap();
    let kind = resource("DomainAccess");
    let grants = Api::<DynamicObject>::namespaced_with(hook.client(), "resources", &kind);
    let change = async |to: Value| {
        let patched = grants
            .patch("old", &PatchParams::default(), &Patch::Merge(to))
            .await;
        patched.map(drop).map_err(|error| error.to_string())
    };
    hook.until("the withdrawal is seen", async || {
        match hook.dry_run("resources", &grant("new", &json!({}))).await {
            Err(said) if said.contains("no consent") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // What broke the same rule before may change, step by step; another rule it may not break.
    change(json!({"spec": {"paths": ["resources-y"]}}))
        .await
        .unwrap();
    let lost = change(json!({"spec": {"principals": []}})).await;
    assert!(lost.is_err(), "{lost:?}");
    change(json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/x"]}}))
        .await
        .unwrap();
    grants
        .delete("old", &DeleteParams::default())
        .await
        .unwrap();
    change(json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    assert!(grants.get_opt("old").await.unwrap().is_none());
}

#[tokio::test]
async fn a_second_manifest_of_a_domain_is_told_of() {
    let hook = Hook::shared().await;
    let same = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "OpenSearchDomain",
        "metadata": {"name": "again"},
        "spec": {"domainName": "logs", "accountId": "111122223333", "region": "eu-west-1"}});
    let applied = hook.cluster.kubectl_apply(&same.to_string()).await;
    let said = String::from_utf8_lossy(&applied.stderr);
    assert!(applied.status.success(), "{said}");
    assert!(
        said.contains("Warning") && said.contains("OpenSearchDomain logs is the same domain"),
        "{said}"
    );
    let gone = hook
        .cluster
        .kubectl(["delete", "opensearchdomain", "again"])
        .await;
    assert!(gone.status.success(), "{gone:?}");
}
