//! The controller: one reconcile a domain, whatever changed.
//!
//! ```text
//! watch OpenSearchDomain --.
//! watch DomainAccess ------+--> queue of domains --> burst --> reconcile(domain)
//! watch Namespace ---------'      (one key each)   (settle)     observe   client
//!                                                               validate  -
//!                                                               plan      -   (guards inside)
//!                                                               apply     client
//!                                                               status    client
//! ```
//!
//! - [`context`]: what every reconcile shares
//! - [`queue`]: which change asks for which domain, and how a burst of changes becomes one reconcile
//! - [`reconcile`]: the page that says what a reconcile does
//! - [`observe`], [`apply`], [`status`]: its steps that touch the world
//! - [`finalizer`]: what keeps a grant from going before it is revoked
//! - [`conditions`]: what users read
//! - [`state`]: the last applied state, kept in a `ConfigMap`
//! - [`orphan`]: grants whose domain does not exist
//! - [`quarantine`]: principals that AWS may have refused a policy for
//! - [`error`]: what a failure means for the next try
//!
//! # Guarantees
//!
//! Reconciles of one domain never overlap. Nothing is written from a list that is not complete.

pub mod apply;
pub mod conditions;
pub mod context;
pub mod error;
pub mod finalizer;
pub mod observe;
pub mod orphan;
pub mod quarantine;
pub mod queue;
pub mod reconcile;
pub mod state;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{self, applier};
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::context::Context;
use crate::runtime::shutdown;

/// How many domains are reconciled at a time.
const CONCURRENCY: u16 = 16;

/// What the controller is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace in which it keeps its records.
    pub namespace: String,
}

/// How long reconciles that are under way have to finish once the process is asked to stop.
const GRACE: Duration = Duration::from_secs(25);

/// Resolves when waiting any longer for reconciles to finish is of no use.
///
/// While a list was never complete, for want of the custom resource definitions for one, no
/// reconcile has begun, and the runtime would wait for that list for ever.
async fn patience(context: &Context) -> std::io::Result<()> {
    shutdown::requested().await?;
    if context.stores.ready().now_or_never().is_some() {
        tokio::time::sleep(GRACE).await;
        warn!("reconciles were left unfinished; they are taken up again at the next start");
    }
    Ok(())
}

/// Runs the controller until the process is asked to stop; reconciles under way are finished.
///
/// # Errors
///
/// Fails where the cluster cannot be reached at the start, or a watch ends for good.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let client = kube::Client::try_default()
        .await
        .context("failed to find the cluster")?;
    let (queue, stores) = queue::open(&client);
    let context = Arc::new(Context::new(client, config, stores).await);
    let queue = queue
        .watch(Arc::clone(&context.bursts))
        .take_until(shutdown::requested());
    let mut results = Box::pin(applier(
        |domain, context| Box::pin(reconcile::reconcile(domain, context)),
        error::policy,
        Arc::clone(&context),
        context.stores.domains.clone(),
        queue,
        controller::Config::default().concurrency(CONCURRENCY),
    ));
    info!("the controller is running");
    let mut orphans = JoinSet::new();
    let mut give_up = Box::pin(patience(&context));
    loop {
        tokio::select! {
            stopped = &mut give_up => {
                stopped.context("failed to listen for signals")?;
                break;
            }
            result = results.next() => match result {
                None => break,
                // The reconciler has logged its failure, and shown it where its users look.
                Some(Ok(_) | Err(controller::Error::ReconcilerFailed(..))) => {}
                Some(Err(controller::Error::ObjectNotFound(domain))) => {
                    orphans.spawn(orphan::reconcile(domain.name.clone(), Arc::clone(&context)));
                }
                Some(Err(error)) => warn!(%error, "the queue failed"),
            },
            Some(done) = orphans.join_next() => done.context("a task failed")?,
        }
    }
    info!("the controller has stopped");
    // Orphans are bounded in time; what is left of them is found again at the next start.
    let finish = async { while orphans.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(10), finish)
        .await
        .is_err()
    {
        warn!("grants of missing domains were left unfinished");
    }
    Ok(())
}
