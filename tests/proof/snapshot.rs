//! What a domain has come to, in a form that can be compared with another domain's.

use serde_json::{Map, Value, json};

use crate::common::gateway::Gateway;
use crate::common::operator::meaning;
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, OPERATOR_NAMESPACE};

const FINALIZER: &str = "opensearch-access.io/revoke";

/// Returns the policy by meaning, the inline policies, what users are told of the domain and of
/// each grant, and the operator's record: without names, UIDs and times of their own.
pub(crate) fn of(scene: &Scene) -> Value {
    let (name, chronicle) = (scene.name, scene.world.chronicle());
    let mut grants = Map::new();
    for (grant, object) in chronicle.grants(name) {
        grants.insert(grant, told(&object));
    }
    let record = chronicle.object(
        "ConfigMap",
        OPERATOR_NAMESPACE,
        &format!("domain-state.{name}"),
    );
    let mut inline = Map::new();
    for role in ["a", "b", "c", "d"] {
        let role = scene.role_name(role);
        let policies = scene.world.aws().role_policies(ACCOUNT, &role);
        let policies = policies.iter().map(|(name, document)| {
            // The name ends in a hash of the domain's and the grant's names.
            let name = name
                .rsplit_once('.')
                .map_or(name.as_str(), |(name, _)| name);
            let document: Value = serde_json::from_str(document).unwrap_or_default();
            json!({"name": name, "document": document})
        });
        inline.insert(role.clone(), policies.collect());
    }
    let snapshot = json!({
        "policy": scene.policy(),
        "inline": inline,
        "domain": told(&chronicle.object("OpenSearchDomain", "", name)),
        "grants": grants,
        "record": kept(&record),
        "mappings": scene.gateway.as_ref().map(Gateway::mappings),
        "mapped": mapped(&record),
    });
    anonymous(&snapshot, name)
}

/// What the users of an object see, and whether the operator holds it.
fn told(object: &Value) -> Value {
    if object.is_null() {
        return Value::Null;
    }
    let ready = condition(object, "Ready");
    let finalizers = object["metadata"]["finalizers"].as_array();
    json!({
        "ready": ready["status"],
        "reason": ready["reason"],
        "current": ready["observedGeneration"] == object["metadata"]["generation"],
        "counts": object["status"]["grants"],
        "held": finalizers.is_some_and(|all| all.iter().any(|it| it == FINALIZER)),
        "deleting": !object["metadata"]["deletionTimestamp"].is_null(),
    })
}

/// Tells whether what users see of every object is about the object as it is.
pub(crate) fn is_current(snapshot: &Value) -> bool {
    let grants = snapshot["grants"].as_object().into_iter().flatten();
    let mut objects = grants.map(|(_, grant)| grant).chain([&snapshot["domain"]]);
    objects.all(|it| it.is_null() || it["current"] == true)
}

/// The record, with grants by their names.
fn kept(record: &Value) -> Value {
    let text = record["data"]["state.json"].as_str().unwrap_or("null");
    let mut state: Value = serde_json::from_str(text).unwrap_or_default();
    if state.is_null() {
        return state;
    }
    for field in ["applied", "pending"] {
        if let Some(statements) = state[field].as_array() {
            state[field] = json!(meaning::of_statements(statements));
        }
    }
    let grants = state["grants"].as_object().cloned().unwrap_or_default();
    let mut grants: Vec<Value> = grants.into_values().collect();
    for grant in &mut grants {
        let attached = grant["identityPolicies"].as_array().map_or(0, Vec::len);
        grant["identityPolicies"] = json!(attached);
    }
    grants.sort_by_key(Value::to_string);
    state["grants"] = json!(grants);
    state
}

/// The record of what is mapped.
fn mapped(record: &Value) -> Value {
    let text = record["data"]["security.json"].as_str().unwrap_or("null");
    let state: Value = serde_json::from_str(text).unwrap_or_default();
    let grants = state["grants"].as_object().cloned().unwrap_or_default();
    let mut grants: Vec<Value> = grants.into_values().collect();
    grants.sort_by_key(Value::to_string);
    json!({"mappings": state["mappings"], "made": state["made"], "grants": grants})
}

/// Puts a word for the name of the domain wherever it stands.
fn anonymous(value: &Value, name: &str) -> Value {
    let text = value.to_string().replace(name, "NAME");
    serde_json::from_str(&text).unwrap_or_default()
}

/// Says how two snapshots differ, member by member.
pub(crate) fn difference(now: &Value, wanted: &Value) -> String {
    let members = [
        "policy", "inline", "domain", "grants", "record", "mappings", "mapped",
    ];
    let lines = members.iter().filter(|&&key| now[key] != wanted[key]);
    let lines = lines.map(|key| format!("{key}: {}\n  wanted: {}", now[*key], wanted[*key]));
    lines.collect::<Vec<_>>().join("\n")
}
