//! The fewest changes to a pod.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::decide::Injection;
use super::sidecar::NAME;

/// Says how a pod has to be changed to have what it should have; nothing, where it has.
///
/// # Errors
///
/// Fails where a container is no JSON, which none is.
pub fn patch(pod: &Pod, injection: &Injection) -> Result<Patch, serde_json::Error> {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut changes = Vec::new();
    tell(&spec, injection, &mut changes)?;
    place(&spec, injection, &mut changes)?;
    Ok(Patch(changes))
}

fn add(path: &[String], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path),
        value,
    })
}

fn path(parts: &[&dyn std::fmt::Display]) -> Vec<String> {
    let spec = std::iter::once("spec".to_owned());
    spec.chain(parts.iter().map(ToString::to_string)).collect()
}

/// Puts the sidecar in its place, and takes away what is under its name elsewhere. The lists are
/// changed from their ends, so that the places before stay what they are.
fn place(
    spec: &PodSpec,
    injection: &Injection,
    changes: &mut Vec<PatchOperation>,
) -> Result<(), serde_json::Error> {
    let wanted = &injection.container;
    let none = Vec::new();
    let lists = [
        (
            "initContainers",
            spec.init_containers.as_ref().unwrap_or(&none),
            injection.is_native,
        ),
        ("containers", &spec.containers, !injection.is_native),
    ];
    for (list, containers, is_home) in lists {
        let at: Vec<usize> = (0..containers.len())
            .filter(|at| containers[*at].name == NAME)
            .collect();
        // A native sidecar is the first, so that what starts after it can use it.
        let home = match (is_home, injection.is_native) {
            (false, _) => None,
            (true, true) => at.first().copied().filter(|it| *it == 0),
            (true, false) => at.first().copied(),
        };
        for other in at.iter().rev().filter(|it| home != Some(**it)) {
            changes.push(PatchOperation::Remove(RemoveOperation {
                path: PointerBuf::from_tokens(path(&[&list, other])),
            }));
        }
        if !is_home {
            continue;
        }
        let value = serde_json::to_value(wanted)?;
        match home {
            Some(at) if is_same(&containers[at], wanted) => {}
            Some(at) => changes.push(PatchOperation::Replace(ReplaceOperation {
                path: PointerBuf::from_tokens(path(&[&list, &at])),
                value,
            })),
            None if containers.is_empty() => changes.push(add(&path(&[&list]), json!([value]))),
            None if injection.is_native => changes.push(add(&path(&[&list, &0]), value)),
            None => changes.push(add(&path(&[&list, &"-"]), value)),
        }
    }
    Ok(())
}

/// Compares as far as it matters: another webhook may have added variables that the sidecar has, too, in
/// another order, and the API server its defaults.
fn is_same(found: &Container, wanted: &Container) -> bool {
    let sorted = |it: &Container| {
        let mut it = it.clone();
        it.env
            .iter_mut()
            .for_each(|env| env.sort_by(|a, b| a.name.cmp(&b.name)));
        it.volume_mounts
            .iter_mut()
            .for_each(|mounts| mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path)));
        it
    };
    let (mut found, wanted) = (sorted(found), sorted(wanted));
    // What the API server's own plugins add: a token that the sidecar does not need, and a range's
    // defaults for resources that it does not name.
    if let Some(mounts) = &mut found.volume_mounts {
        mounts.retain(|it| it.mount_path != "/var/run/secrets/kubernetes.io/serviceaccount");
        if mounts.is_empty() {
            found.volume_mounts = None;
        }
    }
    if let Some(resources) = &mut found.resources {
        let named = wanted.resources.clone().unwrap_or_default();
        let keep = |list: &mut Option<BTreeMap<String, Quantity>>,
                    named: Option<BTreeMap<String, Quantity>>| {
            let named = named.unwrap_or_default();
            if let Some(list) = list {
                list.retain(|name, _| named.contains_key(name));
            }
        };
        keep(&mut resources.requests, named.requests);
        keep(&mut resources.limits, named.limits);
    }
    // Defaults of the API server.
    found.image_pull_policy = None;
    found.termination_message_path = None;
    found.termination_message_policy = None;
    if let (Some(found), Some(wanted)) = (&mut found.startup_probe, &wanted.startup_probe) {
        found.timeout_seconds = wanted.timeout_seconds;
        found.success_threshold = wanted.success_threshold;
        if let (Some(found), Some(wanted)) = (&mut found.http_get, &wanted.http_get) {
            found.scheme.clone_from(&wanted.scheme);
        }
    }
    found == wanted
}

/// Tells the pod's own containers where to connect, but those that set the variables themselves.
fn tell(
    spec: &PodSpec,
    injection: &Injection,
    changes: &mut Vec<PatchOperation>,
) -> Result<(), serde_json::Error> {
    let none = Vec::new();
    let lists = [
        (
            "initContainers",
            spec.init_containers.as_ref().unwrap_or(&none),
        ),
        ("containers", &spec.containers),
    ];
    for (list, containers) in lists {
        for (at, container) in containers
            .iter()
            .enumerate()
            .filter(|(_, it)| it.name != NAME)
        {
            let has = |name: &str| container.env.iter().flatten().any(|it| it.name == name);
            // In front, since the container's own variables may refer to them; the last is added first.
            let all = injection.environment.iter().rev();
            let missing = all.filter(|(name, _)| !has(name));
            let mut is_empty = container.env.as_ref().is_none_or(Vec::is_empty);
            for (name, value) in missing {
                let variable = serde_json::to_value(EnvVar {
                    name: name.clone(),
                    value: Some(value.clone()),
                    ..EnvVar::default()
                })?;
                changes.push(if is_empty {
                    add(&path(&[&list, &at, &"env"]), json!([variable]))
                } else {
                    add(&path(&[&list, &at, &"env", &0]), variable)
                });
                is_empty = false;
            }
        }
    }
    Ok(())
}
