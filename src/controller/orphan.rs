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
use super::{finalizer, status};

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

/// How often it is tried, a few seconds apart; the next event of a grant starts anew.
const TRIES: u32 = 5;

/// Looks after the grants of a domain that was not found.
///
/// One task a domain waits for a burst of changes to end; the others leave it to that one.
pub async fn reconcile(domain: String, context: Arc<Context>) {
    if !context.orphans.begin(&domain) {
        return;
    }
    while let Some(left) = context.bursts.wait(&domain) {
        tokio::time::sleep(left).await;
    }
    context.orphans.end(&domain);
    for attempt in 0..TRIES {
        if context.is_draining() {
            return;
        }
        match once(&domain, &context).await {
            Ok(()) => return,
            Err(error) if error.is_waiting() => {}
            Err(error) => warn!(%domain, "failed to look after grants without a domain: {error}"),
        }
        tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
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
    for grant in context.stores.grants.state() {
        if grant.domain() != Some(domain) {
            continue;
        }
        if grant.meta().deletion_timestamp.is_some() {
            let namespace = grant.namespace().unwrap_or_default();
            let api: Api<Grant> = Api::namespaced(context.client.clone(), &namespace);
            finalizer::release(&api, grant.as_ref()).await?;
        } else if let Ok(grant) = &grant.0 {
            status::orphaned(context, &Arc::new(grant.clone()), Timestamp::now()).await?;
        }
    }
    Ok(())
}
