//! The port that the API server calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::review::{Refusal, Reviewer};

/// The largest review that is read. An object has 3 MiB at most where the API server has no other
/// limit, and an update has two.
const LARGEST: usize = 8 << 20;

/// The memory for all reviews that are read at a time, in KiB; others wait.
const BUDGET: u32 = 48 << 10;

/// How long a client may take for the handshake...
const HANDSHAKE: Duration = Duration::from_secs(3);

/// ...for a body, with the room for it; the API server waits for all of it, and no pod that asks for a
/// sidecar for longer...
const PATIENCE: Duration = Duration::from_secs(2);

/// ...and between two requests: longer than the API server keeps a connection, 90 s, since it does not
/// send a review again that met the end of one.
const IDLE: Duration = Duration::from_mins(2);

/// The most connections at a time; others wait to be taken.
const CONNECTIONS: usize = 512;

/// How long nothing is taken after the machine could give no connection.
const BREATH: Duration = Duration::from_millis(50);

/// What answers.
pub(super) struct Server {
    pub(super) reviewer: Reviewer,
    /// Whether every list is complete: before, nobody can tell what a pod may have.
    pub(super) is_open: AtomicBool,
    /// Whether the process is about to end: who calls still is sent to another.
    pub(super) is_leaving: AtomicBool,
    room: Semaphore,
}

impl Server {
    pub(super) fn new(reviewer: Reviewer) -> Self {
        Self {
            reviewer,
            is_open: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            room: Semaphore::new(BUDGET as usize),
        }
    }
}

/// Serves until it is told to end; then lets each review under way come to its end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    server: Arc<Server>,
    mut ending: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let taken = async {
            // Nobody closes the semaphore.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let accepted = tokio::select! {
            biased;
            () = over(&mut ending) => break,
            Some(_) = connections.join_next() => continue,
            accepted = taken => accepted,
        };
        match accepted {
            (place, Ok((stream, _))) => {
                let (tls, server, ending) = (tls.clone(), Arc::clone(&server), ending.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, tls, server, ending).await;
                });
            }
            (_, Err(error)) => {
                debug!("no connection can be taken: {error}");
                sleep(BREATH).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits for the end; whoever would tell may have gone, too.
async fn over(ending: &mut watch::Receiver<bool>) {
    drop(ending.wait_for(|it| *it).await);
}

async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    server: Arc<Server>,
    mut ending: watch::Receiver<bool>,
) {
    // Reviews are small, and waited for.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("a connection has gone: {error}");
        return;
    }
    let shaken = timeout(HANDSHAKE, tls.accept(stream)).await;
    let Ok(Ok(stream)) = shaken else {
        debug!("a connection did not come about: {shaken:?}");
        server.reviewer.metrics.no_handshake();
        return;
    };
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.respond(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = over(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("a connection ended: {error}");
    }
}

impl Server {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answered = self.answer(request).await;
        let (status, kind, body) = match answered {
            Ok(body) => (StatusCode::OK, "application/json", body),
            Err(Refusal(status, told)) => {
                debug!(%status, "a request is refused: {told}");
                (status, "text/plain; charset=utf-8", told.into_bytes())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if self.is_leaving.load(Ordering::Relaxed) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
        if request.method() != Method::POST {
            let told = "reviews are posted".to_owned();
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, told));
        }
        if !self.is_open.load(Ordering::Relaxed) {
            let told = "the webhook has not read the cluster yet".to_owned();
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, told));
        }
        let large = || {
            let told = format!("a review has {LARGEST} bytes at most");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, told)
        };
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|it| it > LARGEST) {
            return Err(large());
        }
        let wanted = length.unwrap_or(LARGEST).div_ceil(1 << 10);
        let wanted = u32::try_from(wanted).unwrap_or(BUDGET);
        let Ok(Ok(_room)) = timeout(PATIENCE, self.room.acquire_many(wanted)).await else {
            let told = "too many reviews at a time".to_owned();
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, told));
        };
        let (head, body) = request.into_parts();
        let body = timeout(PATIENCE, Limited::new(body, LARGEST).collect());
        let body = match body.await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(large()),
            Ok(Err(error)) => {
                return Err(Refusal(StatusCode::BAD_REQUEST, error.to_string()));
            }
            Err(_) => {
                let told = format!("a review comes within {} s", PATIENCE.as_secs());
                return Err(Refusal(StatusCode::REQUEST_TIMEOUT, told));
            }
        };
        self.reviewer.answer(head.uri.path(), &body).await
    }
}
