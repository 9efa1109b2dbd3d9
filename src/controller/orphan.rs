//! Grants whose domain does not exist.
//!
//! Nothing can be granted or revoked for them; they are told so, and let go when they are deleted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use tracing::warn;

use super::context::Context;
use super::error::Error;
use super::guarded::Grant;
use super::queue::Domain;
use super::{defined, finalizer, status};
use crate::api::condition::Reason;
use crate::runtime::metrics::{DomainFigures, figure};

/// The domains whose orphans are about to be looked after.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<HashSet<String>>);

impl Orphans {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, domain: &str) -> bool {
        self.lock().insert(domain.to_owned())
    }

    fn end(&self, domain: &str) {
        self.lock().remove(domain);
    }
}

/// The longest wait before it is tried again. Nothing else brings it up: without a domain there is
/// no interval, and a grant that nobody changes causes no event.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Looks after the grants of a domain that was not found, for as long as it takes.
///
/// One task a domain waits: for a burst of changes to end, or to try again. What happens meanwhile
/// is left to that one.
pub async fn reconcile(domain: String, context: Arc<Context>) {
    let mut wait = Duration::from_secs(1);
    while context.orphans.begin(&domain) {
        while let Some(left) = context.bursts.wait(&domain) {
            context.pause(left).await;
            if context.is_draining() {
                return;
            }
        }
        context.orphans.end(&domain);
        match once(&domain, &context).await {
            Ok(()) => return,
            Err(error) if error.is_waiting() => {}
            Err(error) => {
                warn!(%domain, ?wait, "failed to look after grants without a domain: {error}");
            }
        }
        if !context.orphans.begin(&domain) {
            return;
        }
        context.pause(wait).await;
        if context.is_draining() {
            return;
        }
        context.orphans.end(&domain);
        wait = LONGEST_WAIT.min(wait * 2);
    }
}

async fn once(domain: &str, context: &Context) -> Result<(), Error> {
    context
        .stores
        .ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    let domains: Api<Domain> = Api::all(context.client.clone());
    // The store may only be behind.
    if domains
        .get_opt(domain)
        .await
        .map_err(Error::kubernetes("read the domain"))?
        .is_some()
    {
        return Ok(());
    }
    context.forget_domain(domain);
    let mut all = true;
    let mut left = Vec::new();
    for grant in context.stores.grants.state() {
        if grant.domain() != Some(domain) {
            continue;
        }
        if grant.meta().deletion_timestamp.is_some() {
            let namespace = grant.namespace().unwrap_or_default();
            let api: Api<Grant> = Api::namespaced(context.client.clone(), &namespace);
            // Whoever may forbid it in one namespace must not decide about another's.
            if let Err(error) = finalizer::release(&api, grant.as_ref()).await {
                warn!(%namespace, grant = %grant.name_any(), "{error}");
                all = false;
            }
        } else if let Ok(grant) = &grant.0 {
            left.push(Arc::new(grant.clone()));
        }
    }
    if !left.is_empty() {
        let figures = DomainFigures {
            refused: [(Reason::DomainNotFound.as_str(), figure(left.len()))].into(),
            ..DomainFigures::default()
        };
        context.metrics.domain(domain, figures);
    }
    let definers = context.stores.definitions.state();
    all &= defined::orphaned(context, domain, &definers, Timestamp::now()).await;
    all &= status::orphaned(context, domain, left, Timestamp::now()).await;
    if all { Ok(()) } else { Err(Error::Unfinished) }
}
