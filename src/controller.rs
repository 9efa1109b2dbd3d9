//! The controller: one reconcile a domain, whatever changed.
//!
//! ```text
//! watch OpenSearchDomain --.
//! watch DomainAccess ------+--> queue of domains --> burst --> reconcile(domain)
//! watch Namespace ---------+      (one key each)   (settle)     observe   client
//! watch ServiceAccount ----'                                    accounts  client
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
//! - [`accounts`]: the IAM roles of service accounts
//! - [`roles`], `mapped`: who is mapped to which role of the security plugin
//! - [`fresh`]: what a write is made from, past every cache
//! - [`guarded`]: a grant as it was read, whether or not it can be parsed
//! - [`definers`]: the objects that define something in the security plugin
//! - [`finalizer`]: what keeps a grant from going before it is revoked
//! - [`conditions`]: what users read
//! - [`state`]: the last applied state, kept in a `ConfigMap`
//! - [`overdue`]: deleted grants whose revocation has to wait
//! - [`withdrawn`]: what is deleted because its kind is
//! - [`orphan`]: grants whose domain does not exist
//! - `write`, `audit`: the one write to AWS, and what is on record of it
//! - [`quarantine`]: principals that AWS may have refused a policy for
//! - [`error`]: what a failure means for the next try
//!
//! # Guarantees
//!
//! Reconciles of one domain never overlap. Nothing is written from a list that is not complete, or
//! that was not read for this very write.
//! Of several replicas one reconciles; the others keep their watches warm. A replica that loses its
//! lease ends with an error, and writes nothing from the moment on at which its right ran out. Asked
//! to stop, the controller begins nothing, finishes what is under way, and gives the lease back.

pub mod accounts;
pub mod apply;
mod audit;
pub mod conditions;
pub mod context;
mod defined;
pub mod definers;
pub mod error;
pub mod finalizer;
pub mod fresh;
pub mod guarded;
mod mapped;
pub mod observe;
pub mod orphan;
pub mod overdue;
mod patience;
pub mod quarantine;
pub mod queue;
pub mod reconcile;
pub mod roles;
pub mod state;
pub mod status;
pub mod withdrawn;
mod write;

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt, stream};
use kube::runtime::controller::{self, Action, applier};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use self::context::Context;
use self::queue::Domain;
use crate::policy::plan::SIZE_BUDGET;
use crate::policy::trust::Issuer;
use crate::runtime::admin::{Board, Readiness};
use crate::runtime::lease::{self, Candidate, Leadership};
use crate::runtime::link::{self, View};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown;
use crate::security::client::Connections;

/// How many domains are reconciled at a time.
const CONCURRENCY: u16 = 16;

/// How long reconciles that are under way may take once the process is asked to stop; Kubernetes
/// kills it after 30 s, and the lease is to be given back before.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);

/// How long giving back the lease may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

/// What the controller is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace in which it keeps its records.
    pub namespace: String,
    /// Which cluster it runs in; without it, no grant can name a service account.
    pub cluster: Option<ClusterIdentity>,
    /// How long a deleted grant waits for its revocation before it is let go, and revoked later.
    pub revocation_limit: Duration,
    /// A PEM file with authorities that the endpoints of domains are trusted by, beside the
    /// machine's.
    pub authorities: Option<PathBuf>,
    /// The lease that the leader holds; none where there is one replica alone.
    pub lease: Option<lease::Config>,
}

/// The cluster that the controller runs in, by which the roles of service accounts are found and
/// proven; one of the two is there at least.
#[derive(Debug, Clone)]
pub struct ClusterIdentity {
    /// The EKS cluster, whose Pod Identity associations are asked for.
    pub eks: Option<EksCluster>,
    /// The issuer of its service account tokens; without one EKS is asked.
    pub issuer: Option<Issuer>,
}

/// An EKS cluster of the operator's own account.
#[derive(Debug, Clone)]
pub struct EksCluster {
    /// Its name.
    pub name: String,
    /// Its region; without one the SDK's configuration says.
    pub region: Option<String>,
}

/// What runs beside the reconciles; whichever ends ends the process.
struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    release: Option<oneshot::Sender<()>>,
}

/// Runs the controller until the process is asked to stop; reconciles under way are finished. The
/// board is told whether it is ready, and what it counts.
///
/// # Errors
///
/// Fails where the cluster cannot be found at the start, the lease is lost, or a task or a watch
/// ends.
pub async fn run(config: Config, board: &Board) -> anyhow::Result<()> {
    let mut stop = pin!(shutdown::requested().context("failed to listen for signals")?);
    let connections = Connections::trusting(config.authorities.as_deref());
    if let (Some(_), Err(message)) = (&config.authorities, &connections) {
        bail!("failed to read --domain-ca: {message}");
    }
    let metrics = Arc::new(Metrics::new(SIZE_BUDGET));
    let view = View::default();
    let ready = Readiness::with(view.clone());
    let mut tasks = Tasks::new();
    board.add(&[&ready], Arc::clone(&metrics) as _);
    let link = link::open(view)
        .await
        .context("failed to find the cluster")?;
    let mut leadership = tasks.stand(&config, &link.lease_client);
    let (queue, stores) = queue::open(&link.client, config.cluster.is_some());
    let context = Context::new(
        link.client,
        config,
        connections,
        stores,
        Arc::clone(&metrics),
        leadership.clone(),
    );
    let context = Arc::new(context.await);
    let mut changes = queue.watch(Arc::clone(&context.bursts)).boxed();

    // Stand by: what changes is kept in the stores, and looked at by whoever leads.
    let led = async {
        context.stores.ready().await.context("a watch has ended")?;
        leadership.known().await;
        ready.set(true);
        leadership.gained().await;
        anyhow::Ok(())
    };
    let mut led = pin!(led);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return tasks.finish(&ready).await,
            error = tasks.failure() => return Err(error),
            led = &mut led => break led?,
            change = changes.next() => if change.is_none() { bail!("the watches have ended") },
        }
    }

    metrics.leads(true);
    info!("the controller is running");
    let (end, ended) = oneshot::channel::<()>();
    let everything = stream::iter(context.stores.everything()).map(Ok);
    let mut results = reconciles(&context, everything.chain(changes).take_until(ended));
    let mut orphans = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            error = tasks.failure() => return Err(error),
            Some(done) = orphans.join_next() => done.context("a task failed")?,
            result = results.next() => match result {
                None => bail!("the watches have ended"),
                // The reconciler has logged its failure, and shown it where its users look.
                Some(Ok(_) | Err(controller::Error::ReconcilerFailed(..))) => {}
                Some(Err(controller::Error::ObjectNotFound(domain))) => {
                    // Nothing is awaited here: the reconciles stand still meanwhile, locks in hand.
                    context.forget_domain(&domain.name);
                    orphans.spawn(orphan::reconcile(domain.name.clone(), Arc::clone(&context)));
                }
                Some(Err(error)) => warn!(%error, "the queue failed"),
            },
        }
    }

    info!("stopping: nothing begins, and what is under way is finished");
    ready.set(false);
    context.drain();
    drop(end);
    let drained = async {
        while results.next().await.is_some() {}
        while orphans.join_next().await.is_some() {}
    };
    tokio::select! {
        biased;
        error = tasks.failure() => return Err(error),
        () = drained => {}
        // What is left is safe to leave at every moment, and found again at the next start.
        () = tokio::time::sleep(DRAIN_LIMIT) => warn!("some reconciles were left unfinished"),
    }
    drop(results);
    orphans.shutdown().await;
    metrics.leads(false);
    tasks.finish(&ready).await
}

type Reconciled = Result<(ObjectRef<Domain>, Action), controller::Error<error::Error, Infallible>>;

/// Reconciles what the queue asks for, and again when each reconcile said.
fn reconciles(
    context: &Arc<Context>,
    queue: impl Stream<Item = Result<ObjectRef<Domain>, Infallible>> + Send + 'static,
) -> stream::LocalBoxStream<'static, Reconciled> {
    applier(
        |domain, context| Box::pin(reconcile::reconcile(domain, context)),
        error::policy,
        Arc::clone(context),
        context.stores.domains.clone(),
        queue,
        controller::Config::default().concurrency(CONCURRENCY),
    )
    .boxed_local()
}

impl Tasks {
    fn new() -> Self {
        Self {
            running: JoinSet::new(),
            release: None,
        }
    }

    /// Stands for leader, unless there is nobody else.
    fn stand(&mut self, config: &Config, client: &kube::Client) -> Leadership {
        let Some(lease) = &config.lease else {
            return Leadership::alone();
        };
        let (candidate, leadership) = Candidate::new(client.clone(), lease.clone());
        let (release, asked) = oneshot::channel();
        self.release = Some(release);
        self.running
            .spawn(async move { Ok(candidate.run(asked).await?) });
        leadership
    }

    /// Waits until a task ends, which none does by itself, and says why it did.
    async fn failure(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            Some(ended) => failure(ended),
            None => std::future::pending().await,
        }
    }

    /// Gives the lease back, if there is one.
    async fn finish(mut self, ready: &Readiness) -> anyhow::Result<()> {
        ready.set(false);
        if let Some(release) = self.release.take() {
            drop(release);
            match tokio::time::timeout(RELEASE_LIMIT, self.running.join_next()).await {
                Ok(None | Some(Ok(Ok(())))) => {}
                Ok(Some(ended)) => return Err(failure(ended)),
                Err(_) => warn!("the lease was not given back in time"),
            }
        }
        info!("the controller has stopped");
        Ok(())
    }
}

fn failure(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("a task has ended by itself"),
        Ok(Err(error)) => error,
        Err(error) => anyhow::Error::new(error).context("a task failed"),
    }
}
