//! The last applied state of each domain, kept in a `ConfigMap` of the operator's namespace.
//!
//! It is written under the resource version that it was read with. So two operators that both
//! believe to lead cannot both go on to write a policy: the second one's record is refused first.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};

use crate::api::name::FIELD_MANAGER;
use crate::kubernetes::record::{self, DEFINITIONS_KEY, KEY, SECURITY_KEY, States};
use crate::policy::fine_grained::definition::plan::AppliedDefinitions;
use crate::policy::fine_grained::mapping::AppliedSecurity;
use crate::policy::ownership::LastApplied;
use crate::runtime::said::Said;

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace is missing.
    #[error("namespace {0} does not exist: create it, or name another with --namespace")]
    NoNamespace(String),
    /// The text is not a state that this version reads.
    #[error(
        "ConfigMap {0} holds no state that this version can read: restore it, or delete it to have statements adopted anew"
    )]
    Unreadable(String),
    /// Another writer was first.
    #[error("another operator changed the state at the same time")]
    Conflict,
    /// The API server did not answer, or refused.
    #[error("failed to {0} the state: {said}", said = Said(.1))]
    Kubernetes(&'static str, Box<kube::Error>),
}

/// The state as it was read, with what a write must find unchanged.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The state of the access policy; none was kept yet without it.
    pub state: Option<LastApplied>,
    /// The state of the security plugin's mappings; none was kept yet without it.
    pub security: Option<AppliedSecurity>,
    /// The state of what objects define in the security plugin; none was kept yet without it.
    pub definitions: Option<AppliedDefinitions>,
    version: Option<String>,
    /// The version of the map of definitions.
    definitions_version: Option<String>,
}

impl Kept {
    /// Takes over what a map holds by now.
    fn with(&self, states: States, version: Option<String>) -> Self {
        Self {
            state: states.policy,
            security: states.security,
            version,
            ..self.clone()
        }
    }
}

/// The place of a domain's state: one map for what access rests on, and one for what objects define.
#[derive(Clone)]
pub struct Keeper {
    maps: Api<ConfigMap>,
    namespace: String,
    name: String,
    definitions_name: String,
}

impl Keeper {
    /// Names the place for a domain.
    #[must_use]
    pub fn new(client: Client, namespace: &str, domain: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: record::name(domain),
            definitions_name: record::definitions_name(domain),
        }
    }

    /// Reads the state, past every cache.
    pub async fn read(&self) -> Result<Kept, Error> {
        let read = async |name: &str| {
            let found = self.maps.get_opt(name).await;
            found.map_err(|error| Error::Kubernetes("read", Box::new(error)))
        };
        let (map, definitions) =
            futures::try_join!(read(&self.name), read(&self.definitions_name))?;
        let mut kept = Kept::default();
        if let Some(map) = map {
            let states = record::parse(&map).map_err(|_| self.unreadable(&self.name))?;
            kept = kept.with(states, map.metadata.resource_version);
        }
        if let Some(map) = definitions {
            let found = record::parse_definitions(&map);
            let found = found.map_err(|_| self.unreadable(&self.definitions_name))?;
            kept.definitions = Some(found);
            kept.definitions_version = map.metadata.resource_version;
        }
        Ok(kept)
    }

    fn unreadable(&self, name: &str) -> Error {
        Error::Unreadable(format!("{}/{name}", self.namespace))
    }

    /// Writes the state of the access policy, if nobody else did since it was read.
    pub async fn write(&self, kept: &Kept, state: LastApplied) -> Result<Kept, Error> {
        let states = States {
            policy: Some(state),
            security: kept.security.clone(),
        };
        self.keep(kept, states).await
    }

    /// Writes the state of the mappings, if nobody else did since it was read.
    pub async fn write_security(
        &self,
        kept: &Kept,
        security: AppliedSecurity,
    ) -> Result<Kept, Error> {
        let states = States {
            policy: kept.state.clone(),
            security: Some(security),
        };
        self.keep(kept, states).await
    }

    /// Writes the state of what objects define, if nobody else did since it was read.
    pub async fn write_definitions(
        &self,
        kept: &Kept,
        definitions: AppliedDefinitions,
    ) -> Result<Kept, Error> {
        let name = &self.definitions_name;
        let text = serde_json::to_string(&definitions).map_err(|_| self.unreadable(name))?;
        let data = BTreeMap::from([(DEFINITIONS_KEY.to_owned(), text)]);
        let version = self
            .put(name, kept.definitions_version.as_ref(), data)
            .await?;
        Ok(Kept {
            definitions: Some(definitions),
            definitions_version: version,
            ..kept.clone()
        })
    }

    async fn keep(&self, kept: &Kept, all: States) -> Result<Kept, Error> {
        let name = &self.name;
        let text = |it: Result<String, serde_json::Error>| it.map_err(|_| self.unreadable(name));
        let mut data = BTreeMap::new();
        if let Some(state) = &all.policy {
            data.insert(KEY.to_owned(), text(serde_json::to_string(state))?);
        }
        if let Some(state) = &all.security {
            data.insert(SECURITY_KEY.to_owned(), text(serde_json::to_string(state))?);
        }
        let version = self.put(name, kept.version.as_ref(), data).await?;
        Ok(kept.with(all, version))
    }

    /// Writes a map under the version that it was read with, and returns the one that it has then.
    async fn put(
        &self,
        name: &str,
        version: Option<&String>,
        data: BTreeMap<String, String>,
    ) -> Result<Option<String>, Error> {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                resource_version: version.cloned(),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    FIELD_MANAGER.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match version {
            Some(_) => self.maps.replace(name, &parameters, &map).await,
            None => self.maps.create(&parameters, &map).await,
        };
        match written {
            Ok(map) => Ok(map.metadata.resource_version),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Err(Error::Conflict)
            }
            Err(kube::Error::Api(status)) if status.is_not_found() && version.is_none() => {
                Err(Error::NoNamespace(self.namespace.clone()))
            }
            // It was deleted under way: the next look adopts what stands.
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Conflict),
            Err(error) => Err(Error::Kubernetes("keep", Box::new(error))),
        }
    }

    /// Puts the state of the access policy back to what it was; without one, there was none.
    pub async fn restore(&self, kept: &Kept, state: Option<LastApplied>) -> Result<Kept, Error> {
        if state.is_some() || kept.security.is_some() {
            let states = States {
                policy: state,
                security: kept.security.clone(),
            };
            return self.keep(kept, states).await;
        }
        let parameters = DeleteParams::default().preconditions(Preconditions {
            resource_version: kept.version.clone(),
            uid: None,
        });
        let gone = || kept.with(States::default(), None);
        match self.maps.delete(&self.name, &parameters).await {
            Ok(_) => Ok(gone()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(gone()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(Error::Conflict),
            Err(error) => Err(Error::Kubernetes("put back", Box::new(error))),
        }
    }

    /// Removes the state; that there is none is no error.
    pub async fn remove(&self) -> Result<(), Error> {
        for name in [&self.name, &self.definitions_name] {
            match self.maps.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(Error::Kubernetes("remove", Box::new(error))),
            }
        }
        Ok(())
    }
}
