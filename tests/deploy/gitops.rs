//! What tools of `GitOps` make of our objects' health: Argo CD's script in Argo CD's Lua, and kstatus, by
//! which Flux and Helm wait.

use std::fs;

use jiff::Timestamp;
use opensearch_access::api::condition::{Reason, Statement, condition_type, conditions};
use serde_json::{Value, json};

use crate::render::{documents, kustomize, project, run, text};

/// The kinds.
const KINDS: [&str; 5] = [
    "DomainAccess",
    "DomainActionGroup",
    "DomainRole",
    "DomainTenant",
    "OpenSearchDomain",
];

/// Returns an object of generation 2 with the status that the operator writes of it.
fn object(ready: Option<(Option<bool>, Reason)>, observed: i64) -> Value {
    let mut object = json!({
        "apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "DomainAccess",
        "metadata": {"name": "x", "namespace": "team-a", "generation": 2},
        "spec": {"domainRef": {"name": "my-domain"}},
    });
    if let Some((status, reason)) = ready {
        let message = "so \"it\" is\n".to_owned();
        let said = |type_| Statement {
            type_,
            status,
            reason,
            message: message.clone(),
        };
        let said = vec![said(condition_type::READY), said(condition_type::ACCEPTED)];
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let said = conditions(&[], said, Some(observed), now);
        object["status"] = json!({"observedGeneration": observed, "conditions": said});
    }
    object
}

/// Each object with what Argo CD and kstatus are to say of it.
fn cases() -> Vec<(Value, &'static str, &'static str)> {
    let of = |status, reason| object(Some((status, reason)), 2);
    let mut deleted = of(Some(true), Reason::Reconciled);
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    // A status in which this version could not parse the spec has conditions alone.
    let mut unreadable = of(Some(false), Reason::InvalidSpec);
    unreadable["status"]
        .as_object_mut()
        .unwrap()
        .remove("observedGeneration");
    vec![
        (of(Some(true), Reason::Reconciled), "Healthy", "Current"),
        (
            of(Some(true), Reason::GrantedByOthers),
            "Healthy",
            "Current",
        ),
        (
            object(Some((Some(true), Reason::Reconciled)), 1),
            "Progressing",
            "InProgress",
        ),
        (
            object(Some((Some(false), Reason::OverCeiling)), 1),
            "Progressing",
            "InProgress",
        ),
        (
            of(Some(false), Reason::Pending),
            "Progressing",
            "InProgress",
        ),
        (
            of(Some(false), Reason::DomainProcessing),
            "Progressing",
            "InProgress",
        ),
        (
            of(Some(false), Reason::DomainNotFound),
            "Progressing",
            "InProgress",
        ),
        (
            of(None, Reason::PrincipalUnknown),
            "Progressing",
            "InProgress",
        ),
        (of(Some(false), Reason::OverCeiling), "Degraded", "Failed"),
        (of(Some(false), Reason::NotPermitted), "Degraded", "Failed"),
        (
            of(Some(false), Reason::MassRevocationHeld),
            "Degraded",
            "Failed",
        ),
        (of(Some(false), Reason::Suspended), "Suspended", "Failed"),
        (of(Some(false), Reason::Observed), "Suspended", "Failed"),
        (unreadable, "Degraded", "Failed"),
        (deleted, "Progressing", "Terminating"),
    ]
}

/// Returns a value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!(
            "{{{}}}",
            items.iter().map(lua).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(members) => {
            let member =
                |(name, value): (&String, &Value)| format!("[{}] = {}", json!(name), lua(value));
            format!(
                "{{{}}}",
                members.iter().map(member).collect::<Vec<_>>().join(", ")
            )
        }
        scalar => scalar.to_string(),
    }
}

/// Returns the status and message of an object by a health script.
fn health(script: &str, object: &Value) -> (String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let program = format!(
        "obj = {}\nlocal function health()\n{script}\nend\nlocal it = health()\nprint(it.status)\nprint(it.message)",
        lua(object)
    );
    fs::write(file.path(), program).unwrap();
    let said = run("lua", [file.path()], "").unwrap();
    let (status, message) = said.split_once('\n').unwrap();
    (status.to_owned(), message.to_owned())
}

/// Returns what kstatus says of objects.
fn kstatus(objects: &[&Value]) -> Vec<String> {
    let said = run("kstatus", [""; 0], &json!(objects).to_string()).unwrap();
    serde_json::from_str(&said).unwrap()
}

/// Checks that both take objects that the API server has just stored for unfinished.
pub(crate) fn assert_waits(objects: &[Value]) {
    assert!(!objects.is_empty());
    let script = fs::read_to_string(project("deploy/gitops/argocd/health.lua")).unwrap();
    let all: Vec<&Value> = objects.iter().collect();
    for (object, kstatus) in objects.iter().zip(kstatus(&all)) {
        assert_eq!(kstatus, "InProgress", "{object}");
        assert_eq!(health(&script, object).0, "Progressing", "{object}");
    }
}

/// Returns Argo CD's `ConfigMap` as our component leaves it.
fn argocd_cm() -> Value {
    // kustomize takes no absolute paths.
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("argocd");
    fs::create_dir(&component).unwrap();
    for file in ["health.lua", "kustomization.yaml"] {
        let from = project("deploy/gitops/argocd").join(file);
        fs::copy(from, component.join(file)).unwrap();
    }
    let installed = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\ndata: {url: https://argocd.example}";
    fs::write(folder.path().join("argocd-cm.yaml"), installed).unwrap();
    let kustomization = "resources: [argocd-cm.yaml]\ncomponents: [argocd]";
    fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    documents(&kustomize(folder.path())).remove(0)
}

#[test]
fn argo_cd_learns_the_health_of_every_kind() {
    let cm = argocd_cm();
    let data = cm["data"].as_object().unwrap();
    // A hash in the name would make another ConfigMap of it.
    assert_eq!(text(&cm, "/metadata/name"), "argocd-cm");
    assert_eq!(data["url"], "https://argocd.example");
    assert_eq!(data.len(), 1 + KINDS.len());
    for kind in KINDS {
        let key = format!("resource.customizations.health.opensearch-access.io_{kind}");
        let script = data[&key].as_str().unwrap();
        let (status, _) = health(script, &object(Some((Some(true), Reason::Reconciled)), 2));
        assert_eq!(status, "Healthy", "{kind}");
    }
}

#[test]
fn argo_cd_and_kstatus_read_what_the_operator_writes() {
    let script = fs::read_to_string(project("deploy/gitops/argocd/health.lua")).unwrap();
    let cases = cases();
    let objects: Vec<&Value> = cases.iter().map(|(object, ..)| object).collect();
    for ((object, argocd, kstatus), computed) in cases.iter().zip(kstatus(&objects)) {
        assert_eq!(&computed, kstatus, "{object}");
        let (status, message) = health(&script, object);
        assert_eq!(&status, argocd, "{object}");
        assert!(!message.trim().is_empty(), "{object}");
    }
    // An object of kinds that an earlier version defined, without a condition from the start.
    let (status, _) = health(&script, &object(None, 0));
    assert_eq!(status, "Progressing");
}

#[test]
fn the_examples_install_what_there_is() {
    let read = |path: &str| {
        let path = project("deploy/gitops").join(path);
        documents(&fs::read_to_string(path).unwrap())
    };
    let application = read("argocd/application.yaml").remove(0);
    let release = read("flux/operator.yaml")
        .into_iter()
        .find(|it| it["kind"] == "HelmRelease")
        .unwrap();
    let chart = text(&application, "/spec/source/path");
    assert!(project(chart).join("Chart.yaml").is_file());
    for (values, namespace) in [
        (
            &application["spec"]["source"]["helm"]["valuesObject"],
            text(&application, "/spec/destination/namespace"),
        ),
        (
            &release["spec"]["values"],
            text(&release, "/metadata/namespace"),
        ),
    ] {
        let rendered = crate::render::helm(&values.to_string(), namespace).unwrap();
        let objects = documents(&rendered);
        // What Argo CD is to overlook is there.
        for ignored in application["spec"]["ignoreDifferences"].as_array().unwrap() {
            let found = objects.iter().any(|it| it["kind"] == ignored["kind"]);
            assert!(found, "{ignored}");
        }
    }
    let grants = read("flux/grants.yaml").remove(0);
    assert_eq!(grants["spec"]["wait"], true);
}

/// Returns every version in a text: three numbers with dots between, and what comes right before.
fn versions(text: &str) -> Vec<(String, String)> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        let word = word.trim_end_matches('.');
        if word.split('.').filter(|it| !it.is_empty()).count() == 3 {
            let before = before.rsplit(char::is_whitespace).next().unwrap();
            found.push((before.to_owned(), word.to_owned()));
        }
        rest = after;
    }
    found
}

#[test]
fn the_examples_name_the_version_that_there_is() {
    let version = env!("CARGO_PKG_VERSION");
    let read = |path: &str| fs::read_to_string(project(path)).unwrap();
    let chart = documents(&read("deploy/helm/opensearch-access/Chart.yaml")).remove(0);
    assert_eq!(text(&chart, "/version"), version);
    assert_eq!(text(&chart, "/appVersion"), version);
    for (path, at_least) in [
        ("deploy/gitops/argocd/application.yaml", 1),
        ("deploy/gitops/flux/operator.yaml", 2),
        ("deploy/kustomize/overlays/example/kustomization.yaml", 1),
    ] {
        let named = versions(&read(path));
        assert!(named.len() >= at_least, "{path}: {named:?}");
        for (before, named) in named {
            assert_eq!(named, version, "{path}: behind {before:?}");
        }
    }
    let readme = versions(&read("README.md"));
    let images = readme
        .iter()
        .filter(|it| it.0.ends_with("opensearch-access:"));
    let images: Vec<_> = images.collect();
    assert!(!images.is_empty());
    for (before, named) in images {
        assert_eq!(named, version, "README.md: behind {before:?}");
    }
}
