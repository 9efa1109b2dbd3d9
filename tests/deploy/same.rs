//! The chart and the kustomize base make the same objects.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::render::{
    ALL, IMAGE, NAMESPACE, chart, documents, helm, identity, kustomize, project, run, text,
};

/// Kinds that kustomize's own list of cluster-scoped ones lacks: an overlay's `namespace` is put on
/// them, and the API server takes it off again (`applied.rs` shows it).
const SCOPE_UNKNOWN: [&str; 2] = [
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Returns the objects by kind and name, without what only Helm says, and without the namespace
/// itself, which Helm makes by a flag.
fn objects(yaml: &str) -> BTreeMap<String, Value> {
    let of_helm = |label: &str| {
        label.starts_with("helm.sh/")
            || [
                "app.kubernetes.io/instance",
                "app.kubernetes.io/managed-by",
                "app.kubernetes.io/version",
            ]
            .contains(&label)
    };
    let mut objects = BTreeMap::new();
    for object in documents(yaml) {
        let mut object = with_whole_numbers(object);
        let kind = text(&object, "/kind").to_owned();
        let metadata = object["metadata"].as_object_mut().unwrap();
        for list in ["labels", "annotations"] {
            if let Some(pairs) = metadata.get_mut(list).and_then(Value::as_object_mut) {
                pairs.retain(|key, _| !of_helm(key));
                if pairs.is_empty() {
                    metadata.remove(list);
                }
            }
        }
        if SCOPE_UNKNOWN.contains(&kind.as_str()) {
            metadata.remove("namespace");
        }
        if kind != "Namespace" {
            let twice = objects.insert(identity(&object), object);
            assert!(twice.is_none(), "{twice:?}");
        }
    }
    objects
}

/// Returns a value in which 1024.0, as a program may write a bound, is 1024.
fn with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, with_whole_numbers(value)))
            .collect(),
        Value::Number(number) => match number.to_string().strip_suffix(".0") {
            Some(whole) => serde_json::from_str(whole).unwrap(),
            None => Value::Number(number),
        },
        other => other,
    }
}

#[track_caller]
fn assert_same(chart: &str, kustomized: &str) {
    let (chart, kustomized) = (objects(chart), objects(kustomized));
    let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&kustomized));
    for (name, object) in &chart {
        assert_eq!(object, &kustomized[name], "{name}");
    }
    assert!(chart.len() > 25, "{}", chart.len());
}

#[test]
fn the_base_is_what_the_chart_makes_by_default() {
    let chart = helm(IMAGE, NAMESPACE).unwrap();
    let digest = format!("@sha256:{}", "0".repeat(64));
    let chart = chart.replace(
        &format!("registry.example/opensearch-access{digest}"),
        "opensearch-access",
    );
    assert_same(&chart, &kustomize(&project("deploy/kustomize/base")));
}

#[test]
fn the_overlay_is_what_the_chart_makes_of_its_values() {
    let values = "
aws: {region: eu-west-1}
cluster: {eksName: platform}
controller:
  serviceAccount:
    annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::111122223333:role/opensearch-access'}
";
    let chart = helm(&format!("{IMAGE}{values}"), "opensearch-platform").unwrap();
    let overlay = kustomize(&project("deploy/kustomize/overlays/example"));
    assert_same(&chart, &overlay);
    // The namespace follows, too, and asks of its pods what the chart's users are told to.
    let namespace = documents(&overlay)
        .into_iter()
        .find(|it| it["kind"] == "Namespace")
        .unwrap();
    assert_eq!(namespace["metadata"]["name"], "opensearch-platform");
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "restricted");
}

#[test]
fn the_kinds_are_those_of_crds() {
    let chart = objects(&helm(IMAGE, NAMESPACE).unwrap());
    let mut files = 0;
    for entry in fs::read_dir(project("crds")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "yaml") {
            for (name, kind) in objects(&fs::read_to_string(path).unwrap()) {
                assert_eq!(chart[&name], kind, "{name}");
                files += 1;
            }
        }
    }
    assert_eq!(files, 5);
}

#[test]
fn the_package_holds_all_of_the_chart() {
    let (folder, chart) = (tempfile::tempdir().unwrap(), chart());
    let (to, chart) = (folder.path().to_str().unwrap(), chart.to_str().unwrap());
    run("helm", ["lint", "--strict", chart, "--values", "-"], IMAGE).unwrap();
    run("helm", ["package", chart, "--destination", to], "").unwrap();
    let package = fs::read_dir(folder.path()).unwrap().next().unwrap();
    let package = package.unwrap().path();
    let package = package.to_str().unwrap();
    let args = [
        "template",
        "opensearch-access",
        package,
        "--namespace",
        NAMESPACE,
    ];
    let packaged = run("helm", args.into_iter().chain(["--values", "-"]), ALL);
    let rendered = objects(&helm(ALL, NAMESPACE).unwrap());
    assert_eq!(objects(&packaged.unwrap()), rendered);
}

#[test]
fn the_kinds_outlive_the_chart_unless_asked_otherwise() {
    let kept = |values: &str| {
        let chart = documents(&helm(&format!("{IMAGE}{values}"), NAMESPACE).unwrap());
        let kinds = chart
            .iter()
            .filter(|it| it["kind"] == "CustomResourceDefinition");
        kinds
            .map(|it| it["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep")
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(""), [true; 5]);
    assert_eq!(kept("crds: {keep: false}"), [false; 5]);
    assert_eq!(kept("crds: {install: false}"), [false; 0]);
}
