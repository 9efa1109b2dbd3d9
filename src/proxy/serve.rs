//! Where clients connect.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Phase;
use super::forward::Route;
use super::guard::LONGEST;
use super::metrics::Metrics;
use super::pace::{Answering, Guarded, Lapse, Limits, Pace, Watched};
use super::refusal::Refusal;

/// The most connections at a time; others wait to be taken.
const CONNECTIONS: usize = 1024;

/// How long nothing is taken after the machine could give no connection.
const BREATH: Duration = Duration::from_millis(50);

/// How long it is remembered that it could not: until whoever is idle has made room for more than one.
const MEMORY: Duration = Duration::from_secs(15);

/// Why a connection ended.
type Ended = Box<dyn Error + Send + Sync>;

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
        let room = Arc::new(Room::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let taken = async {
                let place = room.place().await;
                (place, socket.accept().await)
            };
            let accepted = tokio::select! {
                biased;
                _ = phase.wait_for(|it| *it == Phase::Ending) => break,
                Some(_) = connections.join_next() => continue,
                accepted = taken => accepted,
            };
            match accepted {
                (place, Ok((stream, _))) => {
                    let (route, tls, phase) = (Arc::clone(&route), tls.clone(), phase.clone());
                    let room = Arc::clone(&room);
                    connections.spawn(async move {
                        let _counted = Counted::new(&route.shared.metrics);
                        let _place = place;
                        if let Err(error) = connection(stream, tls, &route, &room, phase).await {
                            // The parser has answered it, with a bare 400.
                            if error.downcast_ref().is_some_and(hyper::Error::is_parse) {
                                let unread = Refusal::Malformed("it cannot be read");
                                route.shared.metrics.refusal(&unread);
                            }
                            debug!("a connection ended: {error}");
                        }
                    });
                }
                (_, Err(error)) => {
                    if room.falls_short(Instant::now()) {
                        warn!("no connection can be taken: {error}");
                    }
                    sleep(BREATH).await;
                }
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }
}

/// The room for connections.
struct Room {
    places: Arc<Semaphore>,
    all: usize,
    /// When the machine last could give no more, though there were places.
    short: Mutex<Option<Instant>>,
}

impl Room {
    fn new(all: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(all)),
            all,
            short: Mutex::new(None),
        }
    }

    /// Waits for a place; nobody closes the semaphore, so there is one in the end.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Takes note that the machine can give no connection; tells whether that is news.
    fn falls_short(&self, now: Instant) -> bool {
        let mut short = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !is_recent(*short, now);
        *short = Some(now);
        is_news
    }

    /// Returns how long a connection may be idle.
    fn idle(&self, limits: &Limits, now: Instant) -> Duration {
        let short = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        let free = if is_recent(*short, now) {
            0
        } else {
            self.places.available_permits()
        };
        limits.idle(free, self.all)
    }
}

fn is_recent(short: Option<Instant>, now: Instant) -> bool {
    short.is_some_and(|it| now.saturating_duration_since(it) < MEMORY)
}

/// A connection that is counted until it is dropped, whatever ends it.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connected(1);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connected(-1);
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    route: &Route,
    room: &Room,
    phase: watch::Receiver<Phase>,
) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let pace = Arc::new(Pace::new(Instant::now()));
    let stream = Watched {
        stream,
        pace: Arc::clone(&pace),
    };
    let limits = Limits::USUAL;
    let answer = |request| route.answer(request);
    match tls {
        Some(tls) => {
            let encrypted = timeout(limits.head, tls.accept(stream)).await??;
            requests(encrypted, &pace, answer, limits, room, phase).await
        }
        None => requests(stream, &pace, answer, limits, room, phase).await,
    }
}

/// Answers the requests of a connection, until it ends or its client takes too long.
async fn requests<S, A, F, B>(
    stream: S,
    pace: &Arc<Pace>,
    answer: A,
    limits: Limits,
    room: &Room,
    phase: watch::Receiver<Phase>,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: Into<Ended>,
{
    let told = phase.clone();
    let service = service_fn(|request| {
        let answering = Answering::new(pace);
        let response = answer(request);
        let told = &told;
        async move {
            let mut response = response.await;
            // Whoever asks meanwhile is sent away in peace, and comes back to another process.
            if *told.borrow() != Phase::Serving {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| answering.with(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Its clock runs between two requests, too.
        .header_read_timeout(None)
        .half_close(false)
        // A head has to fit.
        .max_buf_size(LONGEST)
        .serve_connection(TokioIo::new(Guarded::new(stream, pace)), service);
    tokio::pin!(connection);
    // One of its own, that is looked after only when it is woken itself: the connection is with
    // every piece of every request.
    let mut watched = FuturesUnordered::from_iter([watch(pace, limits, room, phase, false)]);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            Some(order) = watched.next() => match order {
                Order::End(phase) => {
                    connection.as_mut().graceful_shutdown();
                    watched.push(watch(pace, limits, room, phase, true));
                }
                Order::CutOff(lapse) => return Err(lapse.into()),
            },
        }
    }
}

/// What is to happen to a connection.
enum Order {
    /// It ends with the answer that is under way.
    End(watch::Receiver<Phase>),
    /// It ends at once.
    CutOff(Lapse),
}

/// Waits until a connection is to end, or takes too long.
async fn watch(
    pace: &Pace,
    limits: Limits,
    room: &Room,
    mut phase: watch::Receiver<Phase>,
    is_ending: bool,
) -> Order {
    loop {
        let told = async { drop(phase.wait_for(|it| *it == Phase::Ending).await) };
        tokio::select! {
            () = told, if !is_ending => return Order::End(phase),
            () = sleep(limits.head / 4) => {}
        }
        let now = Instant::now();
        // The parser waits for the first request of a connection even now.
        let idle = if is_ending {
            Duration::ZERO
        } else {
            room.idle(&limits, now)
        };
        if let Some(lapse) = pace.lapse(&limits, idle, now) {
            return Order::CutOff(lapse);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    /// How long anything may take that is to happen by itself.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// Limits that are never reached.
    const NONE: Limits = Limits {
        head: Duration::from_secs(1),
        write: Duration::from_hours(1),
        idle: [Duration::from_hours(1); 3],
    };

    /// Serves one side of a connection with a buffer; the first answer comes once it is told to, and
    /// is as long as that.
    fn serve(
        buffer: usize,
        limits: Limits,
        told: &Arc<Notify>,
        length: usize,
    ) -> (DuplexStream, JoinHandle<Result<(), Ended>>) {
        let (client, stream) = duplex(buffer);
        let told = Arc::clone(told);
        let served = tokio::spawn(async move {
            let pace = Arc::new(Pace::new(Instant::now()));
            let stream = Watched {
                stream,
                pace: Arc::clone(&pace),
            };
            let answer = |request: Request<Incoming>| {
                let (told, is_first) = (&told, request.uri().path() == "/1");
                async move {
                    if is_first {
                        told.notified().await;
                    }
                    Response::new(Full::new(Bytes::from(vec![b'x'; length])))
                }
            };
            let (_phase, told) = watch::channel(Phase::Serving);
            requests(stream, &pace, answer, limits, &Room::new(8), told).await
        });
        (client, served)
    }

    async fn ended(served: JoinHandle<Result<(), Ended>>) -> Option<Lapse> {
        let ended = timeout(PATIENCE, served).await.expect("its end").unwrap();
        ended.err()?.downcast().ok().map(|it| *it)
    }

    #[tokio::test]
    async fn a_head_that_is_cut_while_an_answer_is_under_way_is_read_once_that_is_out() {
        let (told, limits) = (Arc::new(Notify::new()), NONE);
        let limits = Limits {
            head: Duration::from_millis(100),
            ..limits
        };
        let (mut client, served) = serve(64 << 10, limits, &told, 1);
        let long = "x".repeat(20 << 10);
        // The second head goes on where the first read ends; all of it is there.
        let both = format!(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nX: {long}\r\nConnection: close\r\n\r\n"
        );
        client.write_all(both.as_bytes()).await.unwrap();
        sleep(limits.head * 10).await;
        told.notify_one();
        let mut answers = String::new();
        let read = timeout(PATIENCE, client.read_to_string(&mut answers)).await;
        read.expect("the answers").unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
        assert_eq!(ended(served).await, None);
    }

    #[tokio::test]
    async fn who_does_not_end_a_head_is_cut_off() {
        let limits = Limits {
            head: Duration::from_millis(100),
            ..NONE
        };
        let (mut client, served) = serve(64, limits, &Arc::default(), 1);
        client.write_all(b"GET /2 HTTP/1.1\r\n").await.unwrap();
        assert_eq!(ended(served).await, Some(Lapse::Head));
    }

    #[tokio::test]
    async fn who_does_not_take_an_answer_is_cut_off() {
        let limits = Limits {
            write: Duration::from_millis(100),
            ..NONE
        };
        let (mut client, served) = serve(64, limits, &Arc::default(), 1 << 20);
        let request = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        assert_eq!(ended(served).await, Some(Lapse::Write));
    }

    #[tokio::test]
    async fn who_takes_an_answer_byte_by_byte_gets_it() {
        let limits = Limits {
            write: Duration::from_mins(1),
            ..NONE
        };
        let (mut client, served) = serve(1, limits, &Arc::default(), 1000);
        let request = b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE, client.read_to_string(&mut answer)).await;
        read.expect("the answer").unwrap();
        assert!(answer.ends_with(&"x".repeat(1000)), "{answer}");
        assert_eq!(ended(served).await, None);
    }

    #[tokio::test]
    async fn who_is_idle_is_sent_away_where_there_is_no_room() {
        let limits = Limits {
            idle: [PATIENCE * 60, PATIENCE * 60, Duration::from_millis(100)],
            ..NONE
        };
        let (room, now) = (Room::new(2), Instant::now());
        assert_eq!(room.idle(&limits, now), PATIENCE * 60);
        assert!(room.falls_short(now) && !room.falls_short(now));
        assert_eq!(room.idle(&limits, now), Duration::from_millis(100));
        let later = now + MEMORY;
        assert_eq!(room.idle(&limits, later), PATIENCE * 60);
        assert!(room.falls_short(later));
        let _places = (room.place().await, room.place().await);
        let idle = room.idle(&limits, later + MEMORY);
        assert_eq!(idle, Duration::from_millis(100));
        let limits = Limits {
            idle: [Duration::from_millis(100); 3],
            ..NONE
        };
        let (_client, served) = serve(64, limits, &Arc::default(), 1);
        assert_eq!(ended(served).await, Some(Lapse::Idle));
    }

    #[test]
    fn a_connection_that_ends_in_a_panic_is_counted_no_more() {
        let metrics = Metrics::new();
        let panics = AssertUnwindSafe(|| {
            let _counted = Counted::new(&metrics);
            assert_ne!(metrics.connections(), 1, "as it is meant to");
        });
        assert!(catch_unwind(panics).is_err());
        assert_eq!(metrics.connections(), 0);
    }
}
