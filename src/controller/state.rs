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
}

impl Kept {
    fn of(states: States, version: Option<String>) -> Self {
        let States {
            policy: state,
            security,
            definitions,
        } = states;
        Self {
            state,
            security,
            definitions,
            version,
        }
    }

    fn states(&self) -> States {
        States {
            policy: self.state.clone(),
            security: self.security.clone(),
            definitions: self.definitions.clone(),
        }
    }
}

/// The place of a domain's state.
#[derive(Clone)]
pub struct Keeper {
    maps: Api<ConfigMap>,
    namespace: String,
    name: String,
}

impl Keeper {
    /// Names the place for a domain.
    #[must_use]
    pub fn new(client: Client, namespace: &str, domain: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: record::name(domain),
        }
    }

    /// Reads the state, past every cache.
    pub async fn read(&self) -> Result<Kept, Error> {
        let found = self.maps.get_opt(&self.name).await;
        let Some(map) = found.map_err(|error| Error::Kubernetes("read", Box::new(error)))? else {
            return Ok(Kept::default());
        };
        let states = record::parse(&map).map_err(|_| self.unreadable())?;
        Ok(Kept::of(states, map.metadata.resource_version))
    }

    fn unreadable(&self) -> Error {
        Error::Unreadable(format!("{}/{}", self.namespace, self.name))
    }

    /// Writes the state of the access policy, if nobody else did since it was read.
    pub async fn write(&self, kept: &Kept, state: LastApplied) -> Result<Kept, Error> {
        let policy = Some(state);
        let states = States {
            policy,
            ..kept.states()
        };
        self.keep(kept, states).await
    }

    /// Writes the state of the mappings, if nobody else did since it was read.
    pub async fn write_security(
        &self,
        kept: &Kept,
        security: AppliedSecurity,
    ) -> Result<Kept, Error> {
        let security = Some(security);
        let states = States {
            security,
            ..kept.states()
        };
        self.keep(kept, states).await
    }

    /// Writes the state of what objects define, if nobody else did since it was read.
    pub async fn write_definitions(
        &self,
        kept: &Kept,
        definitions: AppliedDefinitions,
    ) -> Result<Kept, Error> {
        let definitions = Some(definitions);
        let states = States {
            definitions,
            ..kept.states()
        };
        self.keep(kept, states).await
    }

    async fn keep(&self, kept: &Kept, all: States) -> Result<Kept, Error> {
        let text = |it: Result<String, serde_json::Error>| it.map_err(|_| self.unreadable());
        let mut data = BTreeMap::new();
        if let Some(state) = &all.policy {
            data.insert(KEY.to_owned(), text(serde_json::to_string(state))?);
        }
        if let Some(state) = &all.security {
            data.insert(SECURITY_KEY.to_owned(), text(serde_json::to_string(state))?);
        }
        if let Some(state) = &all.definitions {
            data.insert(
                DEFINITIONS_KEY.to_owned(),
                text(serde_json::to_string(state))?,
            );
        }
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version: kept.version.clone(),
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
        let written = match kept.version {
            Some(_) => self.maps.replace(&self.name, &parameters, &map).await,
            None => self.maps.create(&parameters, &map).await,
        };
        match written {
            Ok(map) => Ok(Kept::of(all, map.metadata.resource_version)),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Err(Error::Conflict)
            }
            Err(kube::Error::Api(status)) if status.is_not_found() && kept.version.is_none() => {
                Err(Error::NoNamespace(self.namespace.clone()))
            }
            // It was deleted under way: the next look adopts what stands.
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Conflict),
            Err(error) => Err(Error::Kubernetes("keep", Box::new(error))),
        }
    }

    /// Puts the state of the access policy back to what it was; without one, there was none.
    pub async fn restore(&self, kept: &Kept, state: Option<LastApplied>) -> Result<Kept, Error> {
        if state.is_some() || kept.security.is_some() || kept.definitions.is_some() {
            let states = States {
                policy: state,
                ..kept.states()
            };
            return self.keep(kept, states).await;
        }
        let parameters = DeleteParams::default().preconditions(Preconditions {
            resource_version: kept.version.clone(),
            uid: None,
        });
        match self.maps.delete(&self.name, &parameters).await {
            Ok(_) => Ok(Kept::default()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Kept::default()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(Error::Conflict),
            Err(error) => Err(Error::Kubernetes("put back", Box::new(error))),
        }
    }

    /// Removes the state; that there is none is no error.
    pub async fn remove(&self) -> Result<(), Error> {
        match self.maps.delete(&self.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::Kubernetes("remove", Box::new(error))),
        }
    }
}
