//! The objects that define something in a domain's security plugin, of whatever kind.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::runtime::reflector::store::{Store, Writer};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::apply::publish;
use super::context::Context;
use super::error::Error;
use super::guarded::Guarded;
use super::{finalizer, status};
use crate::api::action_group::DomainActionGroup;
use crate::api::condition::{Reason, Statement, condition_type as ty, conditions};
use crate::api::definition::DefinitionStatus;
use crate::api::name::FINALIZER;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::fine_grained::definition::{self, Defines, Definition, DefinitionKey};
use crate::policy::fine_grained::entity::EntityKind;
use kube::runtime::events::EventType;

/// An object that defines something, as it was read.
#[derive(Debug, Clone)]
pub enum Definer {
    /// A role.
    Role(Arc<Guarded<DomainRole>>),
    /// A tenant.
    Tenant(Arc<Guarded<DomainTenant>>),
    /// An action group.
    ActionGroup(Arc<Guarded<DomainActionGroup>>),
}

/// Does the same with whichever kind of object it is.
macro_rules! of_each {
    ($definer:expr, $object:ident => $do:expr) => {
        match $definer {
            Definer::Role($object) => $do,
            Definer::Tenant($object) => $do,
            Definer::ActionGroup($object) => $do,
        }
    };
}

impl Definer {
    /// Returns the name of the domain, as far as that can be told.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        of_each!(self, it => it.domain())
    }

    /// Returns its metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        of_each!(self, it => it.meta())
    }

    /// Tells which object it is.
    #[must_use]
    pub fn key(&self) -> DefinitionKey {
        let meta = self.meta();
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        DefinitionKey {
            kind: match self {
                Self::Role(_) => EntityKind::Role,
                Self::Tenant(_) => EntityKind::Tenant,
                Self::ActionGroup(_) => EntityKind::ActionGroup,
            },
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
        }
    }

    /// Reads what it defines.
    ///
    /// # Errors
    ///
    /// Says why this version cannot parse it.
    pub fn definition(&self) -> Result<Definition, &str> {
        of_each!(self, it => match &it.0 {
            Ok(object) => Ok(definition::definition(object)),
            Err(unreadable) => Err(&unreadable.error),
        })
    }

    /// Tells whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Returns the generation that its status is about.
    #[must_use]
    pub fn observed_generation(&self) -> Option<i64> {
        of_each!(self, it => before(it).observed_generation)
    }

    /// Tells whether what it defines may be in the plugin still: it was when its domain was last
    /// looked at.
    #[must_use]
    pub fn was_defined(&self) -> bool {
        let conditions = of_each!(self, it => before(it).conditions);
        let defined = conditions.iter().find(|it| it.type_ == ty::DEFINED);
        defined.is_some_and(|it| {
            let told = it.reason == Reason::DomainNotFound.as_str();
            it.status == "True" || it.status == "Unknown" && told
        })
    }

    /// Tells whether it carries the operator's finalizer.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let mut finalizers = self.meta().finalizers.iter().flatten();
        finalizers.any(|it| it == FINALIZER)
    }

    /// Keeps it from going before what it defines is removed.
    pub async fn hold(&self, context: &Context) -> Result<(), Error> {
        of_each!(self, it => {
            let api = api(context, it.as_ref());
            finalizer::hold(&api, it.as_ref()).await
        })
    }

    /// Lets it go.
    pub async fn release(&self, context: &Context) -> Result<(), Error> {
        of_each!(self, it => {
            let api = api(context, it.as_ref());
            finalizer::release(&api, it.as_ref()).await
        })
    }

    /// Publishes an Event about it.
    pub async fn publish(&self, context: &Context, reason: &str, note: String) {
        of_each!(self, it => {
            publish(context, it.as_ref(), EventType::Normal, reason, "Define", note).await;
        });
    }

    /// Shows what became of it, where that is news.
    pub async fn show(
        &self,
        context: &Context,
        name: Option<String>,
        said: Vec<Statement>,
        now: Timestamp,
    ) -> Result<(), Error> {
        of_each!(self, it => show(context, it.as_ref(), name, said, now).await)
    }
}

fn api<K>(context: &Context, object: &Guarded<K>) -> Api<Guarded<K>>
where
    Guarded<K>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    Api::namespaced(context.client.clone(), &namespace)
}

async fn show<K>(
    context: &Context,
    object: &Guarded<K>,
    name: Option<String>,
    said: Vec<Statement>,
    now: Timestamp,
) -> Result<(), Error>
where
    K: Defines + super::guarded::OfDomain + Clone + std::fmt::Debug,
{
    let before = before(object);
    let generation = object.meta().generation;
    let status = DefinitionStatus {
        observed_generation: generation,
        name,
        conditions: conditions(&before.conditions, said, generation, now),
    };
    if status == before {
        return Ok(());
    }
    let api = api(context, object);
    status::patch(&api, &object.name_any(), &json!(status)).await?;
    status::tell(context, object, &before.conditions, &status.conditions).await;
    Ok(())
}

fn before<K: Defines>(object: &Guarded<K>) -> DefinitionStatus {
    match &object.0 {
        Ok(object) => object.status().cloned().unwrap_or_default(),
        Err(unreadable) => {
            let conditions: Vec<Condition> = unreadable.conditions.clone();
            DefinitionStatus {
                conditions,
                ..DefinitionStatus::default()
            }
        }
    }
}

/// Picks those that are about a domain, and those of which nobody can tell.
#[must_use]
pub fn of_domain(domain: &str, all: Vec<Definer>) -> Vec<Definer> {
    let about = |it: &Definer| it.domain().is_none_or(|it| it == domain);
    all.into_iter().filter(about).collect()
}

/// Every object that defines something, as it was last seen.
#[derive(Clone)]
pub struct Definers {
    roles: Store<Guarded<DomainRole>>,
    tenants: Store<Guarded<DomainTenant>>,
    action_groups: Store<Guarded<DomainActionGroup>>,
}

impl Definers {
    /// Returns all of them.
    #[must_use]
    pub fn state(&self) -> Vec<Definer> {
        let roles = self.roles.state().into_iter().map(Definer::Role);
        let tenants = self.tenants.state().into_iter().map(Definer::Tenant);
        let groups = self.action_groups.state().into_iter();
        let groups = groups.map(Definer::ActionGroup);
        roles.chain(tenants).chain(groups).collect()
    }
}

/// What fills them.
#[derive(Default)]
pub struct DefinerWriters {
    pub(super) roles: Writer<Guarded<DomainRole>>,
    pub(super) tenants: Writer<Guarded<DomainTenant>>,
    pub(super) action_groups: Writer<Guarded<DomainActionGroup>>,
}

impl DefinerWriters {
    /// Returns what reads them.
    #[must_use]
    pub fn as_readers(&self) -> Definers {
        Definers {
            roles: self.roles.as_reader(),
            tenants: self.tenants.as_reader(),
            action_groups: self.action_groups.as_reader(),
        }
    }
}
