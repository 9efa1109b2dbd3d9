//! Alerts and dashboard: Prometheus reads them, and every metric in them is one that we have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::render::{ALL, NAMESPACE, documents, helm, project, run, text};

const PREFIX: &str = "opensearch_access_";

/// What the exposition format adds to a name.
const SUFFIXES: [&str; 7] = [
    "_total", "_bucket", "_count", "_sum", "_seconds", "_bytes", "",
];

/// Returns the words that the source has in quotes, of a folder.
fn words(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(words(&path));
        } else {
            let source = fs::read_to_string(path).unwrap();
            all.extend(source.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    all
}

/// Returns the names of our metrics in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    expression
        .split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
        .filter(|it| it.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

fn alerts() -> Vec<Value> {
    let file = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).unwrap();
    let groups = documents(&file).remove(0);
    let groups = groups["groups"].as_array().unwrap().clone();
    let rules = groups
        .into_iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

/// Returns the dashboard's expressions, with its variables filled in as Grafana does.
fn dashboard() -> Vec<String> {
    let file = fs::read_to_string(project("deploy/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.map(|it| text(it, "/expr").to_owned());
    let filled = expressions.map(|it| {
        it.replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$namespace", ".*")
    });
    filled.collect()
}

#[test]
fn prometheus_reads_every_rule_and_every_panel() {
    let file = project("deploy/monitoring/alerts.yaml");
    let expressions = dashboard();
    assert!(expressions.len() > 20, "{}", expressions.len());
    run("prometheus", [&file], &expressions.join("\n")).unwrap();
    let refused = run("prometheus", [&file], "sum(rate(x[5m])");
    assert!(refused.unwrap_err().contains("parse error"));
}

#[test]
fn every_metric_is_one_that_we_have() {
    let words = words(&project("src"));
    let is_ours = |name: &str| {
        // Registries are prefixed by program; a name is one of a registry's.
        let bare = ["proxy_", "webhook_", ""].iter().filter_map(|of| {
            let rest = name.strip_prefix(PREFIX)?.strip_prefix(of)?;
            Some(rest.to_owned())
        });
        bare.into_iter().any(|bare| {
            // One after the other: seconds may be counted, and put into buckets.
            let outer = SUFFIXES.iter().filter_map(|it| bare.strip_suffix(it));
            outer
                .flat_map(|bare| SUFFIXES.iter().filter_map(|it| bare.strip_suffix(it)))
                .any(|bare| words.contains(bare))
        })
    };
    assert!(!is_ours("opensearch_access_no_such_thing_total"));
    let expressions = alerts().into_iter().map(|it| text(&it, "/expr").to_owned());
    let mut seen = BTreeSet::new();
    for expression in expressions.chain(dashboard()) {
        let names = names(&expression);
        assert!(!names.is_empty(), "{expression}");
        seen.extend(names);
    }
    let unknown: Vec<_> = seen.iter().filter(|it| !is_ours(it)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let alerts = alerts();
    let mut names = BTreeSet::new();
    for alert in &alerts {
        let name = text(alert, "/alert");
        assert!(names.insert(name), "{name} twice");
        assert!(name.starts_with("OpenSearchAccess"), "{name}");
        assert!(
            ["critical", "warning"].contains(&text(alert, "/labels/severity")),
            "{name}"
        );
        for said in ["summary", "description"] {
            let said = text(alert, &format!("/annotations/{said}"));
            assert!(said.len() > 15, "{name}: {said}");
        }
    }
    assert!(names.len() >= 15);
}

#[test]
fn the_chart_hands_them_on_as_they_are() {
    let objects = documents(&helm(ALL, NAMESPACE).unwrap());
    let of = |kind: &str| objects.iter().find(|it| it["kind"] == kind).unwrap();
    let file = |name: &str| fs::read_to_string(project("deploy/monitoring").join(name)).unwrap();
    let rules = documents(&file("alerts.yaml")).remove(0);
    assert_eq!(of("PrometheusRule")["spec"], rules);
    let dashboard = objects
        .iter()
        .find(|it| text(it, "/metadata/name") == "opensearch-access-dashboard");
    let handed = text(dashboard.unwrap(), "/data/opensearch-access.json");
    let [handed, file]: [Value; 2] =
        [handed, &file("dashboard.json")].map(|it| serde_json::from_str(it).unwrap());
    assert_eq!(handed, file);
    let service = &of("ServiceMonitor")["spec"]["selector"]["matchLabels"];
    let metrics = objects.iter().find(|it| {
        it["kind"] == "Service" && text(it, "/metadata/name") == "opensearch-access-metrics"
    });
    let labels = metrics.unwrap()["metadata"]["labels"].as_object().unwrap();
    for (key, value) in service.as_object().unwrap() {
        assert_eq!(labels.get(key), Some(value));
    }
}
