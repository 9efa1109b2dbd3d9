//! Pods of many shapes, in a namespace that enforces `restricted`: each file of `tests/fixtures/pods`
//! beside what became of it, `NAME.expected.yaml`.
//!
//! An expectation names what the pod has that the same pod has not where it does not ask: the sidecar, as
//! it differs from that of `deployment-pod`, which is `sidecar.expected.yaml`, and whatever else.
//!
//! `UPDATE_FIXTURES=1 cargo test --test webhook shapes` writes them anew, for a person to read.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::hook::Hook;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pods");

/// The pod whose sidecar is the one that the others are compared with.
const USUAL: &str = "deployment-pod";

/// At least so many shapes are there.
const MANY: usize = 180;

const SIDECAR: &str = "opensearch-access-proxy";

fn folder() -> &'static Path {
    Path::new(FOLDER)
}

fn read(file: &Path) -> Value {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn shapes() -> BTreeMap<String, Value> {
    let files = fs::read_dir(folder()).unwrap();
    let files: Vec<PathBuf> = files.map(|it| it.unwrap().path()).collect();
    let names = files.iter().filter_map(|it| {
        let name = it.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".yaml")?;
        (!name.ends_with(".expected")).then(|| (name.to_owned(), with_account(read(it))))
    });
    names.collect()
}

/// A pod as it is after the API server's own plugin for service accounts, which tests do without.
fn with_account(mut pod: Value) -> Value {
    let account = &mut pod["spec"]["serviceAccountName"];
    if account.is_null() {
        *account = json!("default");
    }
    pod
}

/// The same pod, not asking for anything.
fn unasking(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !name.starts_with("opensearch-access.io/"));
    }
    pod
}

/// Takes the sidecar out of a pod, and tells where it was.
fn take_sidecar(spec: &mut Value) -> Option<(String, Value)> {
    let mut found = Vec::new();
    for list in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        while let Some(at) = containers.iter().position(|it| it["name"] == SIDECAR) {
            found.push((format!("{list}/{at}"), containers.remove(at)));
        }
        if containers.is_empty() {
            spec.as_object_mut().unwrap().remove(list);
        }
    }
    assert!(found.len() <= 1, "more than one: {found:?}");
    found.pop()
}

fn difference(before: &Value, after: &Value) -> Value {
    serde_json::to_value(json_patch::diff(before, after)).unwrap()
}

/// What is stored of a pod besides what the API server makes up for each.
fn stored(pod: &Value) -> Value {
    pod["spec"].clone()
}

async fn outcome(
    hook: &Hook,
    name: &str,
    pod: &Value,
    usual: Option<&Value>,
) -> (Value, Option<Value>) {
    let before = hook.create(Some("shapes-before"), &unasking(pod)).await;
    let (after, warnings) = hook.create_and_hear("shapes-after", pod).await;
    let after = match after {
        Ok(after) => after,
        Err(said) => {
            let ours = "admission webhook \"pods.opensearch-access.io\" denied the request: ";
            let Some(said) = said.strip_prefix(ours) else {
                assert!(before.is_err(), "{name} is refused only if it asks: {said}");
                return (json!({"refusedAnyhow": said}), None);
            };
            return (json!({"refused": said}), None);
        }
    };
    let before = before.unwrap_or_else(|said| panic!("{name} is admitted only if it asks: {said}"));
    let (before, mut spec) = (stored(&before), stored(&after));
    // Made again out of what is stored, as a backup would: nothing more is added.
    let mut again = json!({"apiVersion": "v1", "kind": "Pod", "spec": stored(&after),
        "metadata": {"name": format!("{name}-again"), "annotations": after["metadata"]["annotations"]}});
    again["spec"].as_object_mut().unwrap().remove("nodeName");
    let again = hook.dry_run("shapes-after", &again).await;
    let again =
        again.unwrap_or_else(|said| panic!("{name} is refused when it is made again: {said}"));
    assert_eq!(
        stored(&again),
        spec,
        "{name} is not what it was when it is made again"
    );

    let mut found = json!({});
    let mut sidecar = None;
    if let Some((place, container)) = take_sidecar(&mut spec) {
        let usual = usual.unwrap_or(&container);
        found["sidecar"] = json!({"at": place, "unusual": difference(usual, &container)});
        sidecar = Some(container);
    }
    // A container of our name that was there by itself is no more.
    let mut before = before;
    take_sidecar_all(&mut before);
    found["otherwise"] = difference(&before, &spec);
    if !warnings.is_empty() {
        found["warnings"] = json!(warnings);
    }
    (found, sidecar)
}

fn take_sidecar_all(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        if let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) {
            containers.retain(|it| it["name"] != SIDECAR);
            if containers.is_empty() {
                spec.as_object_mut().unwrap().remove(list);
            }
        }
    }
}

#[tokio::test]
async fn pods_of_every_shape_become_what_they_should() {
    let hook = Hook::shared().await;
    hook.namespace("shapes-before").await;
    hook.namespace("shapes-after").await;
    let shapes = shapes();
    assert!(shapes.len() >= MANY, "only {}", shapes.len());
    #[expect(
        clippy::disallowed_methods,
        reason = "a person asks for it; nothing is left out without"
    )]
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let file = |name: &str| folder().join(format!("{name}.expected.yaml"));
    let write = |name: &str, value: &Value| {
        fs::write(file(name), serde_saphyr::to_string(value).unwrap()).unwrap();
    };
    let (_, usual) = outcome(hook, USUAL, &shapes[USUAL], None).await;
    let usual = usual.unwrap();
    if update {
        write("sidecar", &usual);
    }
    assert_eq!(usual, read(&file("sidecar")), "the usual sidecar");
    let (mut wrong, mut injected) = (Vec::new(), 0);
    for (name, pod) in shapes.iter().filter(|(name, _)| *name != USUAL) {
        let (found, _) = outcome(hook, name, pod, Some(&usual)).await;
        injected += usize::from(found.get("sidecar").is_some());
        if update {
            write(name, &found);
        }
        let expected = read(&file(name));
        if found != expected {
            let found = serde_saphyr::to_string(&found).unwrap();
            let expected = serde_saphyr::to_string(&expected).unwrap();
            wrong.push(format!(
                "--- {name}: expected\n{expected}--- found\n{found}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(injected >= MANY / 2, "only {injected} were injected");
}
