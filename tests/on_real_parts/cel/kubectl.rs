//! What people see of the kinds with `kubectl`.

use std::ffi::OsStr;

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use opensearch_access::api::access::DomainAccess;
use serde_json::{Value, json};

use super::{NAMESPACE, cluster, failed, succeeded};

/// Returns the words of a line of a table.
fn words(table: &str, line: usize) -> Vec<&str> {
    table
        .lines()
        .nth(line)
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

fn grant(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: opensearch-access.io/v1alpha1
kind: DomainAccess
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  domainRef: {{name: kubectl}}
  principals: [{{iamRole: {{arn: 'arn:aws:iam::111122223333:role/a'}}}}]
  {rest}
"
    )
}

fn domain(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: opensearch-access.io/v1alpha1
kind: OpenSearchDomain
metadata: {{name: {name}}}
spec: {{domainName: kubectl, accountId: '111122223333', region: eu-west-1{rest}}}
"
    )
}

async fn kubectl<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    succeeded(&cluster().await.kubectl(args).await)
}

async fn read(kind: &str, name: &str) -> Value {
    let text = kubectl(["get", kind, name, "--namespace", NAMESPACE, "-o", "json"]).await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn unknown_fields_are_refused() {
    let cluster = cluster().await;
    for (manifest, field) in [
        (grant("unknown", "acces: Read"), "spec.acces"),
        (
            grant("unknown", "conditions: {sourceIP: [198.51.100.7]}"),
            "spec.conditions.sourceIP",
        ),
        (domain("unknown", ", domainARN: x"), "spec.domainARN"),
        (
            domain("unknown", ", accessPolicy: {Mode: Own}"),
            "spec.accessPolicy.Mode",
        ),
    ] {
        let refused = failed(&cluster.kubectl_apply(&manifest).await);
        assert!(
            refused.contains(&format!(r#"unknown field "{field}""#)),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let cluster = cluster().await;
    for (name, rest) in [
        ("defaults", ""),
        (
            "defaults-of-parts",
            ", accessPolicy: {}, fineGrainedAccess: {}",
        ),
    ] {
        succeeded(&cluster.kubectl_apply(&domain(name, rest)).await);
        let spec = &read("opensearchdomain", name).await["spec"];
        assert_eq!(spec["accessPolicy"], json!({"mode": "Merge"}), "{spec}");
        let mode = &spec["fineGrainedAccess"]["mode"];
        assert_eq!(
            *mode,
            if rest.is_empty() {
                Value::Null
            } else {
                "Merge".into()
            },
            "{spec}"
        );
    }
}

#[tokio::test]
async fn a_null_is_no_value() {
    let client = cluster().await.client();
    let kind = ApiResource::erase::<DomainAccess>(&());
    let manifest = grant(
        "nulls",
        "access: null\n  conditions: null\n  actions: ['es:*']",
    );
    // Not by `kubectl apply`, which leaves them out itself.
    let object: DynamicObject = serde_saphyr::from_str(&manifest).unwrap();
    assert!(object.data["spec"]["access"].is_null(), "{object:?}");
    let grants = Api::<DynamicObject>::namespaced_with(client, NAMESPACE, &kind);
    let object = grants
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    let spec = &object.data["spec"];
    assert_eq!(spec["actions"], json!(["es:*"]), "{spec}");
    assert!(
        spec.get("access").is_none() && spec.get("conditions").is_none(),
        "{spec}"
    );
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_spec() {
    let manifest = grant("status", "access: Read\nstatus: {observedGeneration: 7}");
    succeeded(&cluster().await.kubectl_apply(&manifest).await);
    let object = read("domainaccess", "status").await;
    let status = &object["status"];
    assert!(status.get("observedGeneration").is_none(), "{object}");
    // Whoever waits for it is told from the start that nobody has looked at it.
    let conditions = status["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1, "{object}");
    for (member, value) in [
        ("type", "Ready"),
        ("status", "Unknown"),
        ("reason", "Pending"),
    ] {
        assert_eq!(conditions[0][member], value, "{object}");
    }

    let grants = Api::<DomainAccess>::namespaced(cluster().await.client(), NAMESPACE);
    let patch = json!({"spec": {"access": "Admin"}, "status": {"observedGeneration": 8}});
    let params = PatchParams::default();
    grants
        .patch_status("status", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    let object = read("domainaccess", "status").await;
    assert_eq!(object["status"]["observedGeneration"], 8, "{object}");
    assert_eq!(object["spec"]["access"], "Read", "{object}");
    assert_eq!(object["metadata"]["generation"], 1, "{object}");
}

#[tokio::test]
async fn lists_show_what_one_looks_for() {
    let cluster = cluster().await;
    let manifests = format!(
        "{}---\n{}",
        domain("columns", ""),
        grant("columns", "access: ReadWrite")
    );
    succeeded(&cluster.kubectl_apply(&manifests).await);
    let condition = json!({"type": "Ready", "status": "False", "reason": "OverCeiling",
        "message": "too-much", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status =
        json!({"status": {"expiresAt": "2999-01-01T00:00:00Z", "conditions": [condition]}})
            .to_string();
    let in_namespace = ["--namespace", NAMESPACE];
    let patch = ["--subresource=status", "--type=merge", "--patch", &status];
    kubectl([&["patch", "osda", "columns"], &in_namespace[..], &patch[..]].concat()).await;
    let counts = json!({"status": {"grants": {"applied": 3, "pending": 0, "refused": 2},
        "accessPolicy": {"bytes": 445, "statements": 1, "foreignStatements": 0},
        "conditions": [condition]}})
    .to_string();
    let patch = ["--subresource=status", "--type=merge", "--patch", &counts];
    kubectl([&["patch", "osd", "columns"], &patch[..]].concat()).await;

    let grants = kubectl([&["get", "osda", "columns"], &in_namespace[..]].concat()).await;
    assert_eq!(
        words(&grants, 0),
        ["NAME", "DOMAIN", "ACCESS", "READY", "REASON", "AGE"]
    );
    assert_eq!(
        words(&grants, 1)[..5],
        ["columns", "kubectl", "ReadWrite", "False", "OverCeiling"]
    );
    let wide = kubectl([&["get", "osda", "columns", "-o", "wide"], &in_namespace[..]].concat());
    let wide = wide.await;
    let added: Vec<&str> = words(&wide, 0)
        .into_iter()
        .filter(|it| !words(&grants, 0).contains(it))
        .collect();
    assert_eq!(added, ["EXPIRES", "MESSAGE"]);
    assert!(words(&wide, 1).contains(&"too-much"), "{wide}");

    let domains = kubectl(["get", "osd", "columns"]).await;
    assert_eq!(
        words(&domains, 0),
        "NAME DOMAIN ACCOUNT REGION MODE READY REASON GRANTS REFUSED AGE"
            .split(' ')
            .collect::<Vec<_>>()
    );
    assert_eq!(
        words(&domains, 1)[..9],
        [
            "columns",
            "kubectl",
            "111122223333",
            "eu-west-1",
            "Merge",
            "False",
            "OverCeiling",
            "3",
            "2"
        ]
    );
    let wide = kubectl(["get", "osd", "columns", "-o", "wide"]).await;
    assert!(
        words(&wide, 0).contains(&"BYTES") && words(&wide, 1).contains(&"445"),
        "{wide}"
    );
}

#[tokio::test]
async fn the_kinds_have_short_names_and_a_category() {
    let listed = kubectl([
        "api-resources",
        "--api-group=opensearch-access.io",
        "-o",
        "wide",
    ])
    .await;
    let row = |plural: &str| {
        let row = listed
            .lines()
            .find(|line| line.starts_with(plural))
            .unwrap_or_default();
        row.split_whitespace().collect::<Vec<_>>()
    };
    let version = "opensearch-access.io/v1alpha1";
    assert_eq!(
        row("domainaccesses")[..5],
        ["domainaccesses", "osda", version, "true", "DomainAccess"]
    );
    assert_eq!(
        row("opensearchdomains")[..5],
        [
            "opensearchdomains",
            "osd",
            version,
            "false",
            "OpenSearchDomain"
        ]
    );
    for plural in ["domainaccesses", "opensearchdomains"] {
        assert_eq!(row(plural).last(), Some(&"opensearch"), "{listed}");
    }
}

#[tokio::test]
async fn explain_says_what_a_field_means() {
    for (field, meanings) in [
        ("domainaccess", &["A grant: who may use"][..]),
        (
            "domainaccess.spec.paths",
            &["without a leading slash", "Absent: the whole domain"],
        ),
        (
            "domainaccess.spec.access",
            &["GET and HEAD on the paths", "Set either this or `actions`"],
        ),
        (
            "domainaccess.spec.identityPolicy",
            &["inline policy", "Default `None`"],
        ),
        (
            "domainaccess.spec.expiresAt",
            &["revoked by itself", "Absent:"],
        ),
        (
            "domainaccess.spec.principals.iamRole.arn",
            &["path included"],
        ),
        ("opensearchdomain", &["For platform admins"]),
        (
            "opensearchdomain.spec.deletionPolicy",
            &["`Retain` (default)", "`Revoke`"],
        ),
        (
            "opensearchdomain.spec.signingProxy.logLevel",
            &["`Info` (default)"],
        ),
        (
            "opensearchdomain.spec.consent.ceiling.access",
            &["The highest level of access"],
        ),
        (
            "opensearchdomain.spec.accessPolicy.mode",
            &["`Merge` (default)"],
        ),
    ] {
        let text = kubectl(["explain", field]).await;
        // It breaks lines where the terminal ends.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for meaning in meanings {
            assert!(text.contains(meaning), "{field}: {meaning}: {text}");
        }
    }
}
