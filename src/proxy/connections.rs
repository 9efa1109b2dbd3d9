//! The connections to an upstream.
//!
//! A domain's addresses change when it is deployed anew. So its name is resolved for each new
//! connection, and all connections are given up after a while, those in use when their answer ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tower::Service;

use super::body::Outgoing;
use super::upstream::{Upstream, reachable};

/// How long an idle connection is kept: less than the service keeps it.
const IDLE: Duration = Duration::from_secs(40);

/// How long connections are used.
const LIFE: Duration = Duration::from_mins(5);

/// A pool of connections.
pub type Client = HttpClient<HttpsConnector<HttpConnector<Resolver>>, Outgoing>;

/// What connections are made with.
pub struct Connections {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    current: Mutex<(Client, Instant)>,
}

impl Connections {
    /// Prepares connections to an upstream.
    #[must_use]
    pub fn new(upstream: &Upstream, tls: &ClientConfig, connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver {
            inner: GaiResolver::new(),
            may_be_local: upstream.may_be_local(),
        });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
        // What goes unencrypted is on this machine.
        let builder = if upstream.is_encrypted() {
            builder.https_only()
        } else {
            builder.https_or_http()
        };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = pool(connector.clone());
        Self {
            connector,
            current: Mutex::new((client, Instant::now())),
        }
    }

    /// Returns the pool to use now.
    pub fn get(&self) -> Client {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() > LIFE {
            *current = (pool(self.connector.clone()), Instant::now());
        }
        current.0.clone()
    }
}

fn pool(connector: HttpsConnector<HttpConnector<Resolver>>) -> Client {
    HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector)
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// Resolves names, but to addresses to which nothing may be forwarded.
#[derive(Debug, Clone)]
pub struct Resolver {
    inner: GaiResolver,
    may_be_local: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<std::net::SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolved, may_be_local) = (self.inner.call(name.clone()), self.may_be_local);
        Box::pin(async move {
            let found = reachable(resolved.await?, may_be_local);
            if found.is_empty() {
                let said = format!(
                    "{name} leads to addresses of this machine or of a metadata service only"
                );
                return Err(std::io::Error::other(said));
            }
            Ok(found.into_iter())
        })
    }
}
