//! The admission webhook: gives pods that ask for it a signing proxy, and says early what is amiss with
//! our own objects.
//!
//! ```text
//! API server --TLS--> serve --> review --.--> pods       decide, patch, warn
//!                       ^                '--> resources  the reconciler's validator
//!                  keep: certificates            ^
//!                                             stores: watches
//! ```
//!
//! - `serve`: the port
//! - `review`: from bytes to bytes
//! - `pods`, `resources`: what is said of each
//! - `stores`: what is known of the cluster
//! - `certificate`, [`keep`]: what the API server trusts, and what is served
//! - `metrics`: what is counted
//!
//! # Guarantees
//!
//! No review of a pod waits for anything but its own bytes; one of an object of ours asks the API server
//! for a domain that no watch has told of. None changes anything. Before every list is
//! complete, no review is answered. Replicas need no leader. The webhook has no identity of AWS.

mod certificate;
pub mod keep;
mod metrics;
mod pods;
mod resources;
mod review;
mod serve;
mod stores;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use self::keep::{Keeper, Served, Source};
use self::metrics::Metrics;
use self::review::Reviewer;
use self::serve::Server;
use crate::inject::sidecar::Settings;
use crate::runtime::admin::{Board, Readiness};
use crate::runtime::link::{self, View};
use crate::runtime::{shutdown, tls};

/// How long reviews are taken once the process is asked to stop: until nobody is sent here any more.
const LEAVING: Duration = Duration::from_secs(5);

/// How long reviews that are under way may take then.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// What the webhook is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The operator's namespace, which has the Secret.
    pub namespace: String,
    /// Where the API server calls.
    pub address: SocketAddr,
    /// Where the certificate comes from.
    pub certificate: Source,
    /// A PEM file with the authorities that vouch for API servers; without it everybody may call.
    pub client_authorities: Option<PathBuf>,
    /// What every sidecar is like.
    pub sidecar: Settings,
}

/// Runs the webhook until the process is asked to stop; reviews under way are finished. The board is
/// told whether it is ready, and what it counts.
///
/// # Errors
///
/// Fails where the cluster cannot be found at the start, the port is taken, or a watch ends.
pub async fn run(config: Config, board: &Board) -> anyhow::Result<()> {
    let mut stop = pin!(shutdown::requested().context("failed to listen for signals")?);
    let metrics = Arc::new(Metrics::new());
    let view = View::default();
    let ready = Readiness::with(view.clone());
    let certified = Readiness::default();
    board.add(&[&ready, &certified], Arc::clone(&metrics) as _);
    let served = Arc::new(Served::default());
    let acceptor = acceptor(config.client_authorities.as_deref(), Arc::clone(&served))?;
    let listener = TcpListener::bind(config.address).await;
    let listener = listener.with_context(|| format!("failed to listen on {}", config.address))?;
    info!(address = %listener.local_addr()?, "the webhook's port is open");

    let link = link::open(view).await;
    let link = link.context("failed to find the cluster")?;
    let (stores, watches) = stores::open(&link.client);
    let mut tasks = JoinSet::new();
    tasks.spawn(watches.run());
    let keeper = Keeper {
        client: link.client,
        namespace: config.namespace,
        source: config.certificate,
        served,
        ready: certified.clone(),
        metrics: Arc::clone(&metrics),
    };
    tasks.spawn(keeper.run());
    let port = Arc::new(Server::new(Reviewer {
        stores: stores.clone(),
        settings: config.sidecar,
        metrics,
    }));
    let (end, ending) = watch::channel(false);
    let mut serving = tokio::spawn(serve::serve(listener, acceptor, Arc::clone(&port), ending));

    let mut filled = pin!(stores.ready());
    let mut is_filled = false;
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = tasks.join_next() => {
                ended.context("a task failed")??;
                bail!("a task has ended by itself");
            }
            ended = &mut serving => {
                ended.context("a task failed")?;
                bail!("the webhook's port is not served any more");
            }
            done = &mut filled, if !is_filled => {
                done.context("a watch has ended")?;
                is_filled = true;
                port.is_open.store(true, Ordering::Relaxed);
                ready.set(true);
                info!("the webhook is running");
            }
        }
    }

    info!("stopping: reviews are taken until nobody is sent here any more");
    ready.set(false);
    port.is_leaving.store(true, Ordering::Relaxed);
    tokio::time::sleep(LEAVING).await;
    end.send_replace(true);
    if let Ok(ended) = tokio::time::timeout(DRAIN_LIMIT, serving).await {
        ended.context("a task failed")?;
    } else {
        warn!("some reviews were left unfinished");
    }
    tasks.shutdown().await;
    info!("the webhook has stopped");
    Ok(())
}

/// Prepares connections: who calls is asked for a certificate where there is somebody to vouch for it.
fn acceptor(authorities: Option<&Path>, served: Arc<Served>) -> anyhow::Result<TlsAcceptor> {
    let builder = ServerConfig::builder();
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            tls::add(&mut roots, file).map_err(|why| anyhow!("failed to read {why}"))?;
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            let told = || format!("failed to read {}", file.display());
            builder.with_client_cert_verifier(verifier.with_context(told)?)
        }
    };
    let mut config = builder.with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
