//! The record of what the operator wrote: where it is kept, and how it is read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::policy::fine_grained::definition::plan::AppliedDefinitions;
use crate::policy::fine_grained::mapping::AppliedSecurity;
use crate::policy::ownership::LastApplied;

/// The key of the `ConfigMap` that holds the state of the access policy.
pub const KEY: &str = "state.json";

/// The key that holds the state of the security plugin's mappings.
pub const SECURITY_KEY: &str = "security.json";

/// The key that holds the state of what objects define in the security plugin.
pub const DEFINITIONS_KEY: &str = "definitions.json";

/// Names the `ConfigMap` of a domain.
#[must_use]
pub fn name(domain: &str) -> String {
    format!("domain-state.{domain}")
}

/// Names the `ConfigMap` of what objects define in a domain's security plugin: whole bodies, which
/// must not take the room of what access rests on.
#[must_use]
pub fn definitions_name(domain: &str) -> String {
    format!("domain-definitions.{domain}")
}

/// What a `ConfigMap` holds: each state by itself, since any may be the first to be written.
#[derive(Debug, Clone, Default)]
pub struct States {
    /// That of the access policy.
    pub policy: Option<LastApplied>,
    /// That of the security plugin's mappings.
    pub security: Option<AppliedSecurity>,
}

/// Reads the states out of their `ConfigMap`.
pub fn parse(map: &ConfigMap) -> Result<States, serde_json::Error> {
    let states = States {
        policy: state(map, KEY)?,
        security: state(map, SECURITY_KEY)?,
    };
    if states.policy.is_none() && states.security.is_none() {
        // A map that holds none was damaged.
        return serde_json::from_str::<LastApplied>("").map(|_| states);
    }
    Ok(states)
}

/// Reads what objects define out of its `ConfigMap`.
pub fn parse_definitions(map: &ConfigMap) -> Result<AppliedDefinitions, serde_json::Error> {
    let found = state(map, DEFINITIONS_KEY)?;
    // A map that holds none was damaged.
    found.map_or_else(|| serde_json::from_str(""), Ok)
}

fn state<S: DeserializeOwned>(map: &ConfigMap, key: &str) -> Result<Option<S>, serde_json::Error> {
    let text = map.data.as_ref().and_then(|data| data.get(key));
    text.map(|text| serde_json::from_str(text)).transpose()
}

/// What is on record of a domain; nothing where the operator never wrote any.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The state of the access policy.
    pub policy: Option<LastApplied>,
    /// The state of what objects define in the security plugin.
    pub definitions: Option<AppliedDefinitions>,
}

/// Reads a domain's state.
pub async fn read(client: &Client, namespace: &str, domain: &str) -> Result<Recorded, Error> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let (name, of_definitions) = (name(domain), definitions_name(domain));
    let found = maps.get_opt(&name).await;
    let found = found.map_err(Error::of("read the operator's record"))?;
    let damaged = |_| Error::Record(format!("{namespace}/{name}"));
    let states = found.map(|map| parse(&map).map_err(damaged)).transpose()?;
    let found = maps.get_opt(&of_definitions).await;
    let found = found.map_err(Error::of("read the operator's record"))?;
    let damaged = |_| Error::Record(format!("{namespace}/{of_definitions}"));
    let definitions = found.map(|map| parse_definitions(&map).map_err(damaged));
    Ok(Recorded {
        policy: states.and_then(|states| states.policy),
        definitions: definitions.transpose()?,
    })
}
