//! The signing proxy: any OpenSearch client works unsigned through it.
//!
//! ```text
//!  client ─HTTP─► [serve] ─► [head] ─► [body] ─► [forward] ─TLS─► domain
//!  on this          who may    what is    held     signed,             │
//!  machine          connect    asked      hashed   sent, retried       ▼
//!    ▲                                                            [reply]
//!    └──────────────── streamed, refusals explained ◄──────────────────┘
//!
//!  [identity] credentials, ahead of their expiry     [utility] health, readiness, metrics
//! ```
//!
//! - [`upstream`], [`connections`]: where requests go, chosen at the start
//! - `serve`, `pace`, `guard`: who connects, how long they may take, and what can be read in one way only
//! - [`head`], [`allow`]: what is forwarded, and what of it
//! - [`body`]: what is held until its hash is known, within a budget
//! - [`mod@identity`], [`clock`]: what signatures are made with
//! - [`forward`]: one request from beginning to end
//! - [`reply`], [`refusal`]: what clients get
//!
//! # Guarantees
//!
//! What is sent is what was judged and signed. Requests go to the upstream of their port and to
//! nothing else, whatever they say. Nothing is sent unsigned. Nobody but this machine can connect,
//! unless the admin says otherwise. No secret is logged. What is not safe to be done twice is sent
//! again only where the domain refused the signature, and so did nothing.
//!
//! # Caveats
//!
//! A body is held in memory until its end has come, since its hash is signed and goes first; bodies
//! that are passed on unsigned (`--unsigned-payload`) are not. Whatever runs on this machine, or in
//! this pod, can use the proxy, and so what its identity may do.

pub mod allow;
pub mod body;
pub mod clock;
pub mod connections;
pub mod forward;
mod guard;
pub mod head;
pub mod identity;
pub mod metrics;
mod pace;
mod rarely;
pub mod refusal;
pub mod reply;
mod serve;
mod source;
mod spare;
mod tls;
pub mod upstream;
mod utility;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::body::Budget;
use self::clock::Clock;
use self::connections::Connections;
use self::forward::{Route, Shared};
use self::head::Rules;
use self::identity::{Scope, identity};
use self::metrics::Metrics;
use self::rarely::Rarely;
use self::serve::Listener;
use self::source::Source;
use self::upstream::Upstream;
use crate::runtime::shutdown;

/// How long answers under way may take once the process is to stop; Kubernetes kills it after 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It serves.
    Serving,
    /// It is about to stop: it serves, and has everybody go elsewhere after their answer.
    Leaving,
    /// It takes nobody any more, and ends with the last answer.
    Ending,
}

/// What a proxy is told at its start.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct Config {
    /// The ports, and where requests to each go.
    pub routes: Vec<(SocketAddr, Upstream)>,
    /// The region; without one, of each upstream's name, or of the AWS configuration.
    pub region: Option<String>,
    /// The signing name of the service; without one, of each upstream's name.
    pub service: Option<String>,
    /// The role to sign as, and its external id.
    pub assume_role: Option<(String, Option<String>)>,
    /// Where to serve health, readiness and metrics.
    pub utility: SocketAddr,
    /// Whether clients on other machines may connect.
    pub listen_anywhere: bool,
    /// The address of the node, where the proxy is on the node's own network.
    pub on_network_of: Option<IpAddr>,
    /// The longest that a connection to an upstream may take.
    pub connect_timeout: Duration,
    /// The longest that an upstream may take to answer.
    pub request_timeout: Duration,
    /// Authorities to trust beside the machine's own.
    pub authorities: Option<PathBuf>,
    /// Whether upstreams' certificates are verified.
    pub verify: bool,
    /// The certificate for clients, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What clients may ask.
    pub rules: Rules,
    /// The largest body, and the room for all, in bytes.
    pub bodies: (u64, u64),
    /// Whether bodies are passed on as they come, unsigned.
    pub unsigned_payload: bool,
    /// Whether each request is a line in the log.
    pub access_log: bool,
    /// How long clients are served on that come while the process is about to stop.
    pub drain_delay: Duration,
}

/// Why a proxy cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others could use its identity.
    #[error(
        "{0} can be reached from other machines, whose requests would be signed as this one's: listen on 127.0.0.1, or say --listen-anywhere"
    )]
    Reachable(SocketAddr),
    /// Every process of the node could use its identity.
    #[error(
        "this pod is on the network of its node ({0}), where 127.0.0.1 is every process's and every other such pod's, whose requests would be signed as this one's: do without hostNetwork, or say --listen-anywhere"
    )]
    OnNode(IpAddr),
    /// A port cannot be had.
    #[error("failed to listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// It is not known what signatures are for.
    #[error("the {0} of {1} is not known: say --{0}")]
    Unplaced(&'static str, String),
    /// An upstream is this proxy itself.
    #[error("{0} is this proxy itself")]
    Loop(String),
    /// Nobody can be trusted, or no certificate be read.
    #[error("{0}")]
    Tls(String),
    /// The bodies do not fit.
    #[error(transparent)]
    Budget(#[from] body::TooLittle),
    /// What a proxy cannot do without came to an end.
    #[error("{0} came to an end: {1}")]
    Ended(&'static str, String),
    /// The process cannot be told to stop.
    #[error("failed to listen for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs a proxy until it is told to stop.
///
/// # Errors
///
/// Fails where it cannot start.
pub async fn run(config: Config) -> Result<(), Error> {
    if let Some(node) = config.on_network_of.filter(|_| !config.listen_anywhere) {
        return Err(Error::OnNode(node));
    }
    let stop = shutdown::requested().map_err(Error::Signals)?;
    let sdk = Box::pin(aws_config::defaults(BehaviorVersion::latest()).load()).await;
    let scopes: Result<Vec<Scope>, Error> = config
        .routes
        .iter()
        .map(|(_, upstream)| scope(&config, upstream, sdk.region()))
        .collect();
    let scopes = scopes?;
    let source = Source {
        role: config.assume_role.clone(),
        region: scopes.first().map(|scope| scope.region.clone()),
    };
    let provider = SharedCredentialsProvider::new(source);
    let clock = Arc::new(Clock::default());
    let (identity, keeper) = identity(provider, scopes, Arc::clone(&clock));
    let (limit, total) = config.bodies;
    let shared = Arc::new(Shared {
        identity,
        clock,
        budget: Budget::new(total, limit)?,
        metrics: Metrics::new(),
        request_timeout: config.request_timeout,
        unsigned_payload: config.unsigned_payload,
        access_log: config.access_log,
    });
    if !config.verify {
        warn!(
            "certificates of upstreams are not verified (--no-verify-ssl): whoever is on the way can read and change everything"
        );
    }
    let tls = tls::client(config.authorities.as_deref(), config.verify).map_err(Error::Tls)?;
    let acceptor = match &config.certificate {
        Some((certificate, key)) => Some(tls::server(certificate, key).map_err(Error::Tls)?),
        None => None,
    };
    let (phase, told) = watch::channel(Phase::Serving);
    let (mut listeners, mut pools) = (Vec::new(), Vec::new());
    for (number, (address, upstream)) in config.routes.iter().enumerate() {
        if !address.ip().is_loopback() && !config.listen_anywhere {
            return Err(Error::Reachable(*address));
        }
        let socket = listen(*address).await?;
        let address = socket.local_addr().unwrap_or(*address);
        if upstream.address() == Some(address.ip()) && upstream.port() == address.port() {
            return Err(Error::Loop(upstream.to_string()));
        }
        let connections = Connections::new(
            upstream,
            &tls,
            config.connect_timeout,
            config.request_timeout,
        );
        let connections = Arc::new(connections);
        pools.push(Arc::clone(&connections));
        info!(%address, %upstream, "signing");
        listeners.push(Listener {
            socket,
            tls: acceptor.clone(),
            route: Arc::new(Route {
                upstream: upstream.clone(),
                connections,
                rules: config.rules.clone(),
                signer: number,
                failures: Rarely::default(),
                shared: Arc::clone(&shared),
            }),
        });
    }
    let utility = listen(config.utility).await?;
    let address = utility.local_addr().unwrap_or(config.utility);
    info!(%address, "the utility port is open");

    let mut keeping = tokio::spawn(keeper.run());
    let mut watching = tokio::spawn(utility::serve(utility, Arc::clone(&shared), told.clone()));
    let tidying = tokio::spawn(tidy(pools, shared.budget.clone()));
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(listener.serve(told.clone()));
    }
    // Neither ends by itself; without them nothing would be signed for long, or seen.
    tokio::select! {
        () = stop => {}
        ended = &mut keeping => return Err(Error::Ended("the renewal of credentials", told_of(ended))),
        ended = &mut watching => return Err(Error::Ended("the utility port", told_of(ended))),
    }
    leave(&phase, &shared.metrics, config.drain_delay, serving).await;
    keeping.abort();
    watching.abort();
    tidying.abort();
    Ok(())
}

/// Sends all clients away, and waits for the last answer.
async fn leave(
    phase: &watch::Sender<Phase>,
    metrics: &Metrics,
    delay: Duration,
    mut serving: JoinSet<()>,
) {
    info!("stopping: clients are sent away after their answers");
    phase.send_replace(Phase::Leaving);
    let leaving = async {
        while metrics.connections() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    // Those that are idle are only waited for that long.
    _ = timeout(delay, leaving).await;
    phase.send_replace(Phase::Ending);
    let drained = timeout(GRACE, async {
        while serving.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        warn!(
            "some answers were cut off, {} s after the process was told to stop",
            GRACE.as_secs()
        );
    }
}

/// Closes connections to upstreams that nobody uses any more, and gives memory back.
async fn tidy(pools: Vec<Arc<Connections>>, budget: Budget) {
    loop {
        sleep(Duration::from_secs(4)).await;
        budget.shed();
        for pool in &pools {
            pool.close_idle();
        }
    }
}

fn told_of<T: std::fmt::Debug>(ended: Result<T, JoinError>) -> String {
    ended.map_or_else(|error| error.to_string(), |it| format!("{it:?}"))
}

/// Takes a port. All addresses (`[::]`) are those of IPv4 where the machine has no others.
async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let mut listened = TcpListener::bind(address).await;
    if listened.is_err() && address.ip() == Ipv6Addr::UNSPECIFIED {
        let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
        listened = other.or(listened);
    }
    listened.map_err(|error| Error::Listen(address, error))
}

/// Says what signatures for an upstream are for.
fn scope(config: &Config, upstream: &Upstream, usual: Option<&Region>) -> Result<Scope, Error> {
    let place = upstream.place();
    let region = config.region.clone();
    let region = region.or_else(|| place.as_ref().map(|it| it.region.clone()));
    let region = region.or_else(|| usual.map(ToString::to_string));
    let service = config.service.clone();
    let service = service.or_else(|| place.map(|it| it.service.to_owned()));
    let unknown = |what| Error::Unplaced(what, upstream.to_string());
    Ok(Scope {
        region: region.ok_or_else(|| unknown("region"))?,
        service: service.ok_or_else(|| unknown("service"))?,
    })
}
