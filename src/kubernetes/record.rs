//! The record of what the operator wrote: where it is kept, and how it is read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::error::Error;
use crate::policy::ownership::LastApplied;

/// The key of the `ConfigMap` that holds the state.
pub const KEY: &str = "state.json";

/// Names the `ConfigMap` of a domain.
#[must_use]
pub fn name(domain: &str) -> String {
    format!("domain-state.{domain}")
}

/// Reads the state out of its `ConfigMap`.
pub fn parse(map: &ConfigMap) -> Result<LastApplied, serde_json::Error> {
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    serde_json::from_str(text.map(String::as_str).unwrap_or_default())
}

/// Reads a domain's state; `None` where the operator never wrote one.
pub async fn read(
    client: &Client,
    namespace: &str,
    domain: &str,
) -> Result<Option<LastApplied>, Error> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let name = name(domain);
    let found = maps
        .get_opt(&name)
        .await
        .map_err(Error::of("read the operator's record"))?;
    found
        .map(|map| parse(&map).map_err(|_| Error::Record(format!("{namespace}/{name}"))))
        .transpose()
}
