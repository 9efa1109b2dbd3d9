//! A TCP link in front of a server, which a test can freeze, cut, and turn to another server.
//!
//! ```text
//! the operator ──► Link (127.0.0.1:port) ──► an API server
//! an API server ──► Link ──► etcd's socket
//! ```
//!
//! It sees bytes alone, most of them encrypted: a black hole, a server that died and a balancer that
//! turns elsewhere are all that it plays.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Where a link leads.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A port on loopback.
    Port(u16),
    /// A socket's path.
    Socket(PathBuf),
}

/// A link; gone, with all of its connections, when it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    port: u16,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct State {
    target: Target,
    /// Whether bytes are kept back, in both directions; none is lost.
    frozen: bool,
    /// Whether connections are closed as soon as they are made.
    refuses: bool,
    /// How many of the first connections are cut.
    cut: u64,
    /// How many connections there have been.
    made: u64,
}

impl Link {
    /// Opens a link on a free port, in the runtime of the test.
    pub(crate) async fn to(target: Target) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, _) = watch::channel(State {
            target,
            frozen: false,
            refuses: false,
            cut: 0,
            made: 0,
        });
        let accepting = tokio::spawn(accept(listener, state.clone()));
        Self {
            port,
            state,
            accepting,
        }
    }

    /// Returns the port that the link listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Holds back every byte, as a network does that drops packets.
    pub(crate) fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = true);
    }

    /// Lets all bytes go on, those that were held back first.
    pub(crate) fn thaw(&self) {
        self.state.send_modify(|state| state.frozen = false);
    }

    /// Ends all connections, and every new one at once, as the host of a dead server does.
    pub(crate) fn refuse(&self) {
        self.state.send_modify(|state| {
            state.refuses = true;
            state.cut = state.made;
        });
    }

    /// Takes connections again.
    pub(crate) fn accept(&self) {
        self.state.send_modify(|state| state.refuses = false);
    }

    /// Ends all connections, and leads new ones to another server.
    pub(crate) fn turn_to(&self, target: Target) {
        self.state.send_modify(|state| {
            state.target = target;
            state.cut = state.made;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Sender<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut id = 0;
        state.send_modify(|state| {
            state.made += 1;
            id = state.made;
            if state.refuses {
                state.cut = id;
            }
        });
        let watched = state.subscribe();
        let target = watched.borrow().target.clone();
        connections.spawn(async move {
            // Whichever end goes first, the other notices.
            match target {
                Target::Port(port) => {
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        join(client, server, id, watched).await;
                    }
                }
                Target::Socket(path) => {
                    if let Ok(server) = UnixStream::connect(path).await {
                        join(client, server, id, watched).await;
                    }
                }
            }
        });
    }
}

async fn join(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    id: u64,
    state: watch::Receiver<State>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let mut cut = state.clone();
    tokio::select! {
        _ = forward(from_client, to_server, state.clone()) => {}
        _ = forward(from_server, to_client, state) => {}
        _ = cut.wait_for(|state| id <= state.cut) => {}
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        let open = state.wait_for(|state| !state.frozen).await.is_ok();
        if count == 0 || !open {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}
