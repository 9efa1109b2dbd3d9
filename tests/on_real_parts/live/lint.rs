//! What is amiss with a cluster's manifests, and with the policies that domains have.

use serde_json::{Value, json};

use super::Viewer;
use crate::common::operator::REGION;
use crate::common::operator::scene::Scene;

/// Returns the file, the object and the rule of each finding.
fn found(report: &Value) -> Vec<[String; 3]> {
    let findings = report["findings"].as_array().unwrap();
    let text = |finding: &Value, element: &str| finding[element].as_str().unwrap().to_owned();
    let parts = ["file", "object", "rule"];
    findings
        .iter()
        .map(|finding| parts.map(|part| text(finding, part)))
        .collect()
}

#[tokio::test]
async fn a_clusters_grants_and_a_domains_policy_are_checked() {
    let scene = Scene::shared("linted").await;
    let viewer = Viewer::of(&scene).await;
    let mut deleted = scene.allows(&[&scene.role("a")]);
    deleted["Condition"] = json!({"Bool": {"aws:SecureTransport": "true"}});
    scene.others_write(&[deleted]);
    let paths = json!({"access": "ReadWrite", "paths": ["x"],
        "principals": [{"iamRole": {"arn": scene.role("b")}}]});
    scene.grant("paths", &paths).await;
    scene.until_ready(&["paths"]).await;

    let args = ["lint", "--cluster", "--domain", scene.name, "-o", "json"];
    let of_grant = [
        "<cluster>".to_owned(),
        format!("DomainAccess {}/paths", scene.name),
        "paths-not-enforced".to_owned(),
    ];
    let manifests = viewer.run(args).await;
    assert_eq!(manifests.code, 2, "{manifests:?}");
    assert_eq!(found(&manifests.json()), std::slice::from_ref(&of_grant));
    assert!(
        viewer.called(&scene.world).is_empty(),
        "AWS is asked when told to"
    );

    let both = viewer.run([&args[..], &["--live"]].concat()).await;
    let both = found(&both.json());
    assert!(both.contains(&of_grant), "{both:?}");
    let arn = scene.resource("");
    let stored = |findings: &[[String; 3]]| {
        let place = format!("<aws> {}", arn.trim_end_matches('/'));
        findings.iter().any(|[file, object, rule]| {
            *file == place && object.is_empty() && rule == "ignored-key"
        })
    };
    assert!(stored(&both), "{both:?}");
    let alone = [
        "lint",
        "--live",
        "--domain-name",
        scene.name,
        "--region",
        REGION,
        "-o",
        "json",
    ];
    let alone = viewer.run(alone).await;
    let findings = found(&alone.json());
    assert!(alone.code == 2 && stored(&findings), "{alone:?}");
    assert!(!findings.contains(&of_grant), "{findings:?}");
    viewer.only_read(&scene.world);
}
