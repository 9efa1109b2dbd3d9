//! What the README's tables promise to list is what there is: commands, fields, annotations,
//! conditions, reasons, metrics, and what the proxy answers by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Fields whose parts are Kubernetes' own.
const NOT_OURS: [&str; 3] = ["conditions", "namespaceSelector", "resources"];

/// What the exposition format adds to a name.
const SUFFIXES: [&str; 4] = ["", "_total", "_seconds", "_bytes"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns every name in code in the README's tables.
fn names() -> BTreeSet<String> {
    let readme = read("README.md");
    let rows = readme.lines().filter(|it| it.starts_with('|'));
    let code = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let is_between = |c: char| !c.is_ascii_alphanumeric() && !"_-./".contains(c);
    let words = code.flat_map(|it| it.split(is_between));
    // `masterUserArn` is spelled `fineGrainedAccess.masterUserArn` or `.masterUserArn`; an annotation
    // has dots of its own.
    let spelled = words.flat_map(|it| it.split('.').chain([it]));
    spelled.map(str::to_owned).collect()
}

/// Checks that names are in the tables; at least so many, lest nothing was looked at.
#[track_caller]
fn assert_listed<'a>(what: &str, at_least: usize, wanted: impl IntoIterator<Item = &'a str>) {
    let (listed, wanted) = (names(), BTreeSet::from_iter(wanted));
    assert!(wanted.len() >= at_least, "{what}: only {wanted:?}");
    let missing: Vec<_> = wanted.iter().filter(|it| !listed.contains(**it)).collect();
    assert!(
        missing.is_empty(),
        "in no table of the README, {what}: {missing:?}"
    );
}

/// Returns the strings that follow a text in a source.
fn strings_after<'a>(source: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let places = source.split(text).skip(1);
    places.filter_map(|it| it.trim_start().strip_prefix('"')?.split('"').next())
}

/// Returns the properties of a schema, and of all below it.
fn properties(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.push(name.clone());
        if !NOT_OURS.contains(&name.as_str()) {
            found.extend(properties(property));
        }
    }
    if schema["items"].is_object() {
        found.extend(properties(&schema["items"]));
    }
    found
}

#[test]
fn every_command_has_its_row() {
    let ran = Command::new(env!("CARGO_BIN_EXE_opensearch-access"))
        .arg("-h")
        .output()
        .unwrap();
    let help = String::from_utf8(ran.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let lines = commands.lines().take_while(|it| !it.is_empty());
    let commands = lines.filter_map(|it| it.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|it| *it != "help").collect();
    let readme = read("README.md");
    let glance = readme.split("\n## Commands at a glance\n").nth(1).unwrap();
    let glance = glance.split("\n## ").next().unwrap();
    let rows = glance.lines().filter_map(|it| it.strip_prefix("| `"));
    let rows: BTreeSet<&str> = rows.map(|it| it.split('`').next().unwrap()).collect();
    assert_eq!(rows, commands);
}

#[test]
fn every_field_is_in_a_table() {
    for kind in [
        "domainaccesses",
        "domainactiongroups",
        "domainroles",
        "domaintenants",
        "opensearchdomains",
    ] {
        let definition: Value =
            serde_saphyr::from_str(&read(&format!("crds/{kind}.yaml"))).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            let fields = properties(&schema[part]);
            let what = format!("{part} of {kind}");
            assert_listed(&what, 2, fields.iter().map(String::as_str));
        }
    }
}

#[test]
fn every_annotation_is_in_a_table() {
    let options = read("src/inject/options.rs");
    let of_pods = strings_after(&options, "&str =");
    // Their table says the prefix once.
    let of_pods = of_pods.filter_map(|it| it.strip_prefix("opensearch-access.io/"));
    assert_listed(
        "annotations of pods",
        6,
        of_pods.filter(|it| !it.is_empty()),
    );
    let names = read("src/api/name.rs");
    let on_objects = strings_after(&names, "&str =").filter(|it| it.contains('/'));
    assert_listed("names on objects", 2, on_objects);
}

#[test]
fn every_condition_and_every_reason_is_in_a_table() {
    let source = read("src/api/condition.rs");
    assert_listed("conditions", 10, strings_after(&source, "&str ="));
    let reasons = source.split("fn as_str").nth(1).unwrap();
    let reasons = reasons.split("\n    }\n").next().unwrap();
    assert_listed("reasons", 30, strings_after(reasons, "=>"));
}

#[test]
fn every_refusal_of_the_proxy_is_in_a_table() {
    let source = read("src/proxy/refusal.rs");
    let classes = source.split("fn class").nth(1).unwrap();
    let classes = classes.split("\n    }\n").next().unwrap();
    assert_listed("refusals", 15, strings_after(classes, "=>"));
}

#[test]
fn every_metric_is_in_a_table() {
    let listed = names();
    for (file, at_least) in [
        ("src/runtime/metrics.rs", 12),
        ("src/webhook/metrics.rs", 5),
        ("src/proxy/metrics.rs", 9),
    ] {
        let source = read(file);
        let registered = ["registry.register(", "registry.register_with_unit("];
        let metrics = registered.iter().flat_map(|it| strings_after(&source, it));
        let metrics: BTreeSet<&str> = metrics.collect();
        assert!(metrics.len() >= at_least, "{file}: only {metrics:?}");
        for metric in metrics {
            let spelled = SUFFIXES.map(|suffix| format!("{metric}{suffix}"));
            assert!(
                spelled.iter().any(|it| listed.contains(it)),
                "{metric} of {file} is in no table of the README"
            );
        }
    }
}
