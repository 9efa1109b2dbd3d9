//! Where clients connect.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Phase;
use super::forward::Route;
use super::guard::Guard;

/// The longest that the head of a request may take, and a TLS handshake.
const HEAD: Duration = Duration::from_secs(10);

/// The longest that a connection may say nothing: longer than clients keep theirs.
const IDLE: Duration = Duration::from_mins(10);

/// The most that is read at once.
const BUFFER: usize = 16 << 10;

/// The most that the parser keeps; a head has to fit.
const LARGEST: usize = 256 << 10;

/// The most connections at a time; others wait to be taken.
const CONNECTIONS: usize = 1024;

/// How long nothing is taken after the machine could give no connection.
const BREATH: Duration = Duration::from_millis(50);

/// A port that clients connect to.
pub(super) struct Listener {
    /// The port.
    pub(super) socket: TcpListener,
    /// What encrypts it, if anything does.
    pub(super) tls: Option<TlsAcceptor>,
    /// Where its requests go.
    pub(super) route: Arc<Route>,
}

impl Listener {
    /// Serves clients until the last phase; then takes nobody any more, lets each answer under way
    /// come to its end, and returns once the last one has.
    pub(super) async fn serve(self, mut phase: watch::Receiver<Phase>) {
        let Self { socket, tls, route } = self;
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let taken = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (permit, socket.accept().await)
            };
            let accepted = tokio::select! {
                biased;
                _ = phase.wait_for(|it| *it == Phase::Ending) => break,
                Some(_) = connections.join_next() => continue,
                accepted = taken => accepted,
            };
            match accepted {
                (permit, Ok((stream, _))) => {
                    let (route, tls, phase) = (Arc::clone(&route), tls.clone(), phase.clone());
                    connections.spawn(async move {
                        route.shared.metrics.connected(1);
                        if let Err(error) = connection(stream, tls, &route, phase).await {
                            debug!("a connection ended: {error}");
                        }
                        route.shared.metrics.connected(-1);
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    warn!("no connection could be taken: {error}");
                    sleep(BREATH).await;
                }
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    route: &Arc<Route>,
    phase: watch::Receiver<Phase>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => {
            let encrypted = timeout(HEAD, tls.accept(stream)).await??;
            requests(encrypted, route, phase).await
        }
        None => requests(stream, route, phase).await,
    }
}

async fn requests<S>(
    stream: S,
    route: &Arc<Route>,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = phase.clone();
    let service = service_fn(|request| {
        let told = &told;
        async move {
            let mut response = route.answer(request).await;
            // Whoever asks meanwhile is sent away in peace, and comes back to another process.
            if *told.borrow() != Phase::Serving {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let pace = Arc::new(Pace::new());
    let guarded = Guarded {
        stream,
        guard: Guard::new(),
        pace: Arc::clone(&pace),
        buffer: vec![0; BUFFER].into(),
        has_ended: false,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .half_close(false)
        .max_buf_size(LARGEST)
        .serve_connection(TokioIo::new(guarded), service);
    tokio::pin!(connection);
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            _ = phase.wait_for(|it| *it == Phase::Ending), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep(HEAD / 4) => {
                if pace.is_slow(HEAD) {
                    return Err("a head did not come in time".into());
                }
            }
        }
    }
}

/// Since when a client sends a head: that has to come quickly once it has begun; between two requests
/// there is no hurry.
struct Pace {
    start: Instant,
    /// In milliseconds and one; 0 while no head has begun.
    since: AtomicU64,
}

impl Pace {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn note(&self, awaits_head: bool) {
        let since = self.since.load(Ordering::Relaxed);
        match (awaits_head, since) {
            (true, 0) => self.since.store(self.now(), Ordering::Relaxed),
            (false, 1..) => self.since.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    fn is_slow(&self, limit: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        since > 0 && self.now().saturating_sub(since) > limit
    }
}

/// A connection of which a parser reads only what cannot be read in two ways.
struct Guarded<S> {
    stream: S,
    guard: Guard,
    pace: Arc<Pace>,
    buffer: Box<[u8]>,
    has_ended: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.guard.has_some() && !this.has_ended {
            let mut read = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                this.guard.end();
                this.has_ended = true;
            } else {
                this.guard.read(bytes);
            }
            this.pace.note(this.guard.awaits_head());
        }
        buffer.put_slice(&this.guard.take(buffer.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
