//! The connections to an upstream.
//!
//! A domain's addresses change when it is deployed anew. So its name is resolved for each new
//! connection, and all connections are given up after a while, those in use when their answer ends.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tower::Service;

use super::body::Outgoing;
use super::pace::{SMALL, gathered};
use super::upstream::{Upstream, reachable};
use crate::aws::error::causes;

/// How long an idle connection is kept: less than the service keeps it.
const IDLE: Duration = Duration::from_secs(40);

/// How long connections are used.
const LIFE: Duration = Duration::from_mins(5);

/// The most that is read of an answer at once; its head has to fit. What comes in one piece keeps all
/// others waiting until it is looked through.
const LARGEST: usize = 64 << 10;

/// The most connections that are kept for later.
const KEPT: usize = 256;

type Stream = Gathering<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection to the upstream, and nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, and the request may have been sent.
    #[error("{0}")]
    Broken(String),
}

/// What connections are made with, and those that are kept.
///
/// Whoever uses a connection moves its bytes, too: no other task stands between a client and the
/// upstream, which would be woken twice for each request.
pub struct Connections {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    upstream: Uri,
    connect_timeout: Duration,
    stall_timeout: Duration,
    kept: Mutex<Vec<Link>>,
}

impl Connections {
    /// Prepares connections to an upstream; an answer that has begun is given up where nothing of it
    /// comes for `stall_timeout`.
    #[must_use]
    pub fn new(
        upstream: &Upstream,
        tls: &ClientConfig,
        connect_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
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
        Self {
            connector: builder.enable_http1().wrap_connector(tcp),
            upstream: upstream.uri(),
            connect_timeout,
            stall_timeout,
            kept: Mutex::default(),
        }
    }

    /// Sends a request, which is taken, and returns the answer once its head is there.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    ///
    /// # Cancellation
    ///
    /// The connection is closed where nobody waits for the answer any more.
    pub async fn send(
        self: &Arc<Self>,
        request: &mut Option<Request<Outgoing>>,
    ) -> Result<Response<Answer>, Error> {
        loop {
            let kept = poll_fn(|context| Poll::Ready(self.take(context))).await;
            let is_used = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                // Apart, since it is large, and seldom there.
                None => Box::pin(self.open()).await?,
            };
            let Some(sent) = request.take() else {
                return Err(Error::Unreachable("there is nothing to send".to_owned()));
            };
            let mut answer = pin!(link.sender.try_send_request(sent));
            let answered = poll_fn(|context| {
                link.drive(context);
                answer.as_mut().poll(context)
            })
            .await;
            let mut error = match answered {
                Ok(response) => {
                    return Ok(response.map(|body| Answer::new(body, link, self)));
                }
                Err(error) => error,
            };
            // The upstream closed it before anything was sent.
            match error.take_message() {
                Some(unsent) if is_used => *request = Some(unsent),
                Some(_) => return Err(Error::Unreachable(causes(error.error()))),
                None => return Err(Error::Broken(causes(error.error()))),
            }
        }
    }

    /// Takes a connection that was kept, and that the upstream has not closed meanwhile.
    fn take(&self, context: &mut Context<'_>) -> Option<Link> {
        let now = Instant::now();
        loop {
            let mut link = self.kept().pop()?;
            if link.may_be_kept(now) && link.is_free(context) {
                return Some(link);
            }
        }
    }

    async fn open(&self) -> Result<Link, Error> {
        let mut connector = self.connector.clone();
        let opened = async {
            let stream = connector.call(self.upstream.clone()).await;
            let stream = stream.map_err(|error| Error::Unreachable(causes(&*error)))?;
            let shaken = http1::Builder::new()
                .max_buf_size(LARGEST)
                .handshake(Gathering(stream))
                .await;
            shaken.map_err(|error| Error::Unreachable(causes(&error)))
        };
        let late = |_| {
            let limit = self.connect_timeout.as_secs();
            Error::Unreachable(format!("no connection within {limit} s"))
        };
        let opened = timeout(self.connect_timeout, opened).await.map_err(late)?;
        let (sender, driver) = opened?;
        let now = Instant::now();
        Ok(Link {
            sender,
            driver: Some(Box::new(driver)),
            opened: now,
            used: now,
        })
    }

    /// Keeps a connection for the next request.
    fn keep(&self, mut link: Link) {
        let now = Instant::now();
        link.used = now;
        // Nobody is to be woken by it; it is looked at when it is taken.
        let free = link.is_free(&mut Context::from_waker(Waker::noop()));
        let mut kept = self.kept();
        if free && link.may_be_kept(now) && kept.len() < KEPT {
            kept.push(link);
        }
    }

    /// Closes what nobody used for a while.
    pub fn close_idle(&self) {
        let now = Instant::now();
        let mut closed = self.kept();
        let (idle, kept) = std::mem::take(&mut *closed)
            .into_iter()
            .partition(|link: &Link| !link.may_be_kept(now));
        *closed = kept;
        drop::<Vec<Link>>(idle);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Link>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// A connection to which small pieces are written as one.
struct Gathering<S>(S);

impl<S: Read + Unpin> Read for Gathering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for Gathering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.get_mut().0);
        let mut room = [0; SMALL];
        match gathered(buffers, &mut room) {
            Some(bytes) => stream.poll_write(context, bytes),
            None => stream.poll_write_vectored(context, buffers),
        }
    }
}

/// A connection, and what moves its bytes.
struct Link {
    sender: SendRequest<Outgoing>,
    /// Nothing once the connection is closed.
    driver: Option<Box<Connection<Stream, Outgoing>>>,
    opened: Instant,
    used: Instant,
}

impl Link {
    fn drive(&mut self, context: &mut Context<'_>) {
        let driver = self.driver.as_mut();
        if driver.is_some_and(|it| Pin::new(it).poll(context).is_ready()) {
            // Whoever waits for an answer is told so by this.
            self.driver = None;
        }
    }

    /// Tells whether the next request can be sent on it.
    fn is_free(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        self.driver.is_some() && self.sender.is_ready()
    }

    fn may_be_kept(&self, now: Instant) -> bool {
        let since = |then| now.saturating_duration_since(then);
        since(self.used) < IDLE && since(self.opened) < LIFE
    }
}

/// Why an answer that had begun did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// Its connection broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// Nothing more of it came.
    #[error("nothing more of the answer came within {}s (--request-timeout)", .0.as_secs())]
    Stalled(Duration),
}

/// The body of an answer, read off its connection, which is kept once all of it was.
pub struct Answer {
    body: Incoming,
    link: Option<(Link, Arc<Connections>)>,
    /// There while more of it is awaited, and not while the client takes its time.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn new(body: Incoming, link: Link, connections: &Arc<Connections>) -> Self {
        let link = Some((link, Arc::clone(connections)));
        let mut answer = Self {
            body,
            link,
            stalled: None,
        };
        if answer.body.is_end_stream() {
            answer.end();
        }
        answer
    }

    fn end(&mut self) {
        if let Some((link, connections)) = self.link.take() {
            connections.keep(link);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if let (Poll::Pending, Some((link, connections))) = (&frame, &mut this.link) {
            // Now that more is wanted it is read.
            link.drive(context);
            frame = Pin::new(&mut this.body).poll_frame(context);
            let limit = connections.stall_timeout;
            if frame.is_pending() {
                let stalled = this.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
                ready!(stalled.as_mut().poll(context));
                this.link = None;
                return Poll::Ready(Some(Err(Interrupted::Stalled(limit))));
            }
        }
        this.stalled = None;
        match &frame {
            Poll::Ready(Some(Err(_))) => this.link = None,
            Poll::Ready(None) => this.end(),
            Poll::Ready(Some(Ok(_))) if this.body.is_end_stream() => this.end(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame.map_err(Interrupted::Broken)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.body).finish()
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
