//! TLS by a certificate of the test's own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::connection::{Breakable, Connection, Switch, Switches};

/// Where gateways are reached: here, or by the names of AWS where something resolves them.
const NAMES: [&str; 5] = [
    "localhost",
    "127.0.0.1",
    "*.amazonaws.com",
    "*.eu-west-1.amazonaws.com",
    "*.eu-west-1.es.amazonaws.com",
];

/// The certificate of all gateways of this process.
struct Identity {
    server: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    /// A file that holds the certificate, for clients to trust.
    authority: PathBuf,
    _folder: tempfile::TempDir,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let names = NAMES.map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("gateway.pem");
    std::fs::write(&authority, cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    Identity {
        server: Arc::new(server),
        certificate: cert.der().clone(),
        authority,
        _folder: folder,
    }
});

/// Returns the file that `SSL_CERT_FILE` has to name for a client to trust the gateways.
pub(crate) fn authority() -> PathBuf {
    IDENTITY.authority.clone()
}

/// A client that encrypts.
pub(crate) type TlsClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Returns a client that trusts the gateways of this process.
pub(crate) fn tls_client() -> TlsClient {
    client_trusting(IDENTITY.certificate.clone())
}

/// Returns a client that trusts a gateway.
pub(crate) fn client_trusting(certificate: CertificateDer<'static>) -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) switch: Switch,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A listener whose connections have come through their handshake.
pub(crate) struct Encrypted {
    connections: mpsc::Receiver<(TlsStream<Connection>, Peer)>,
    address: SocketAddr,
}

impl Encrypted {
    pub(crate) async fn bind(address: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = Breakable {
            listener,
            switches: Switches::default(),
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&IDENTITY.server));
        let (sender, connections) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = sender.closed() => return,
                };
                let (connection, address) = accepted;
                let switch = connection.switch();
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // Whoever is slow in its handshake keeps nobody else waiting.
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(connection).await {
                        let peer = Peer { address, switch };
                        drop(sender.send((stream, peer)).await);
                    }
                });
            }
        });
        let listener = Self {
            connections,
            address,
        };
        (listener, address)
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<Connection>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        match self.connections.recv().await {
            Some((stream, peer)) => (stream, peer),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer {
            address: self.address,
            switch: Switch::default(),
        })
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Encrypted>) -> Self {
        stream.remote_addr().clone()
    }
}
