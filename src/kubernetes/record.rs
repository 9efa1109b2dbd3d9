//! The record of what the operator wrote: where it is kept, and how it is read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::error::Error;
use crate::policy::fine_grained::mapping::AppliedSecurity;
use crate::policy::ownership::LastApplied;

/// The key of the `ConfigMap` that holds the state of the access policy.
pub const KEY: &str = "state.json";

/// The key that holds the state of the security plugin's mappings.
pub const SECURITY_KEY: &str = "security.json";

/// Names the `ConfigMap` of a domain.
#[must_use]
pub fn name(domain: &str) -> String {
    format!("domain-state.{domain}")
}

/// What a `ConfigMap` holds: each state by itself, since either may be the first to be written.
pub type Both = (Option<LastApplied>, Option<AppliedSecurity>);

/// Reads the states out of their `ConfigMap`.
pub fn parse(map: &ConfigMap) -> Result<Both, serde_json::Error> {
    let text = |key: &str| map.data.as_ref().and_then(|data| data.get(key));
    let security = text(SECURITY_KEY);
    let security: Option<AppliedSecurity> =
        security.map(|it| serde_json::from_str(it)).transpose()?;
    let state = match text(KEY) {
        // A map that holds neither was damaged.
        None if security.is_none() => Some(serde_json::from_str("")?),
        state => state.map(|it| serde_json::from_str(it)).transpose()?,
    };
    Ok((state, security))
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
    let damaged = |_| Error::Record(format!("{namespace}/{name}"));
    let both = found.map(|map| parse(&map).map_err(damaged)).transpose()?;
    Ok(both.and_then(|(state, _)| state))
}
