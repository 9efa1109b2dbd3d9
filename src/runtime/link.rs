//! The link to the API server: calls that end, in the server's own time, and how old what the
//! watches know may be.
//!
//! kube's own client repeats a refused call up to 15 times, for minutes and at any pace that the
//! server names, and waits without end for an answer that never begins. A reconcile would hang, and
//! a revocation with it.
//!
//! # Guarantees
//!
//! - A call ends within [`BEGIN_LIMIT`] and [`TRY_LIMIT`] together, unless its answer goes on.
//! - What the server asks to wait for (`Retry-After` of a 429 or 503) is waited for by every call of
//!   the process, even past the end of the call that was told.
//! - A connection that has gone silent is given up after [`SILENCE_LIMIT`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Request, Response, StatusCode, header};
use kube::client::Body;
use kube::{Client, Config};
use tokio::time::Instant;

/// The longest that a try may wait for its answer to begin.
pub const TRY_LIMIT: Duration = Duration::from_secs(10);

/// No try of a call begins later than this after its first.
pub const BEGIN_LIMIT: Duration = Duration::from_secs(15);

/// The longest that a connection may be silent while an answer is due. A watch is never silent for
/// longer than it lasts.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(25);

/// How long one watch lasts, in seconds; the next goes on where it ended. Short, since a watch whose
/// connection has died is found out by its end alone.
pub const WATCH_LASTS: u32 = 15;

/// How old what a watch knows may be before the process is not ready: three watches.
pub const VIEW_LIMIT: Duration = Duration::from_secs(45);

/// The longest that the server is believed to want to be left alone.
const LONGEST_REST: Duration = Duration::from_mins(2);

/// The longest wait between two tries that the server did not ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A call was not made, or not answered.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server did not answer within {0:?}")]
    Late(Duration),
    #[error("the API server asked to be left alone for another {} s", .0.as_secs())]
    Resting(Duration),
}

/// When each watch was last heard of; every copy tells the same.
#[derive(Debug, Clone, Default)]
pub struct View(Arc<Mutex<HashMap<String, Instant>>>);

impl View {
    fn heard(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether every watch was begun, or begun again, not long ago.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.age() < VIEW_LIMIT
    }

    /// Returns how long ago the watch was heard of that was not heard of for the longest.
    fn age(&self) -> Duration {
        let heard = self.heard();
        let oldest = heard.values().min();
        oldest.map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Takes note of a list or watch that the server answered.
    fn note<B>(&self, request: &Request<B>, asked: Instant) {
        let query = request.uri().query().unwrap_or_default();
        let has = |name: &str| query.split('&').any(|pair| pair.starts_with(name));
        let path = || request.uri().path().to_owned();
        if has("watch=") {
            self.heard().insert(path(), asked);
        } else if has("limit=") {
            // The first list begins what its watches go on with; no later one renews it.
            self.heard().entry(path()).or_insert(asked);
        }
    }
}

/// The two ways to the API server.
#[derive(Clone)]
pub struct Link {
    /// For everything but the lease.
    pub client: Client,
    /// For the lease, which has its own limits, and which the server serves before all else.
    pub lease_client: Client,
}

/// Opens the link to the cluster that the environment names.
///
/// # Errors
///
/// Fails where the environment names none, or none that can be used.
pub async fn open(view: View) -> Result<Link, kube::Error> {
    let inferred = Config::infer().await;
    let mut config = inferred.map_err(kube::Error::InferConfig)?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.read_timeout = Some(SILENCE_LIMIT);
    // A pooled connection may have been idle, and so silent, for longer.
    config.reset_reader_on_write = true;
    let namespace = config.default_namespace.clone();
    let plain = Client::try_from(config)?;
    let lease_client = plain.clone();
    let calls = Arc::new(Calls {
        plain,
        view,
        limits: Limits {
            of_try: TRY_LIMIT,
            of_begin: BEGIN_LIMIT,
        },
        rests_until: Mutex::default(),
    });
    let service = tower::service_fn(move |request| {
        let calls = Arc::clone(&calls);
        async move { calls.send(request).await }
    });
    Ok(Link {
        client: Client::new(service, namespace),
        lease_client,
    })
}

/// What all calls share.
struct Calls {
    plain: Client,
    view: View,
    limits: Limits,
    /// Until when the server asked to be left alone.
    rests_until: Mutex<Option<Instant>>,
}

/// How long a call may take.
struct Limits {
    of_try: Duration,
    of_begin: Duration,
}

impl Calls {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let last_begin = Instant::now() + self.limits.of_begin;
        let mut pause = Duration::from_millis(250);
        loop {
            let rest = self.rest();
            if Instant::now() + rest > last_begin {
                return Err(kube::Error::Service(Error::Resting(rest).into()));
            }
            tokio::time::sleep(rest).await;
            let Some(this) = copy(&request) else {
                // Nothing that the operator sends is streamed.
                return self.plain.send(request).await;
            };
            let asked = Instant::now();
            let answer = tokio::time::timeout(self.limits.of_try, self.plain.send(this))
                .await
                .map_err(|_| kube::Error::Service(Error::Late(self.limits.of_try).into()))??;
            if answer.status().is_success() {
                self.view.note(&request, asked);
            }
            if !is_busy(answer.status()) {
                return Ok(answer);
            }
            let wait = match retry_after(&answer) {
                Some(wait) => {
                    self.rest_for(wait);
                    wait
                }
                None => pause.mul_f64(0.75 + fastrand::f64() / 2.0),
            };
            pause = (pause * 2).min(LONGEST_PAUSE);
            if Instant::now() + wait > last_begin {
                return Ok(answer);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn rests_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much longer the server wants to be left alone.
    fn rest(&self) -> Duration {
        self.rests_until().map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    fn rest_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut known = self.rests_until();
        *known = Some(known.map_or(until, |known| known.max(until)));
    }
}

/// What the server cannot answer now and may answer soon.
fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Returns how long the server asks to wait, in whole seconds as it spells it.
fn retry_after<B>(answer: &Response<B>) -> Option<Duration> {
    let asked = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = asked.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_REST))
}

fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: &str = "/apis/x/v1/things?&watch=true&timeoutSeconds=15";
    const LIST: &str = "/apis/x/v1/things?&limit=500";

    /// Answers each request with what is next in line, and notes when each arrived.
    fn calls(answers: &[(u16, Option<&str>)]) -> (Calls, Arc<Mutex<Vec<Instant>>>) {
        let build = |(status, wait): &(u16, Option<&str>)| {
            let mut answer = Response::builder().status(*status);
            if let Some(wait) = wait {
                answer = answer.header("Retry-After", *wait);
            }
            answer.body(Body::empty()).unwrap()
        };
        let mut answers: Vec<_> = answers.iter().rev().map(build).collect();
        let arrived: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = Arc::clone(&arrived);
        let service = tower::service_fn(move |_: Request<Body>| {
            seen.lock().unwrap().push(Instant::now());
            let answer = answers.pop();
            async move {
                match answer {
                    Some(answer) => Ok::<_, kube::Error>(answer),
                    None => std::future::pending().await,
                }
            }
        });
        let calls = Calls {
            plain: Client::new(service, "default"),
            view: View::default(),
            limits: Limits {
                of_try: Duration::from_secs(1),
                of_begin: Duration::from_secs(2),
            },
            rests_until: Mutex::default(),
        };
        (calls, arrived)
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_storm_of_refusals_ends_a_call_in_time() {
        let (calls, arrived) = calls(&[(503, None); 100]);
        let began = Instant::now();
        let answer = calls.send(get("/x")).await.unwrap();
        assert_eq!(answer.status(), 503);
        let limit = calls.limits.of_begin + calls.limits.of_try;
        assert!(began.elapsed() <= limit, "it was given up");
        let tries = arrived.lock().unwrap().len();
        assert!((2..=6).contains(&tries), "{tries} tries");
    }

    #[tokio::test]
    async fn an_answer_that_never_begins_is_not_waited_for() {
        let (calls, _) = calls(&[]);
        let error = calls.send(get("/x")).await.unwrap_err();
        assert!(error.to_string().contains("did not answer"), "{error}");
    }

    #[tokio::test]
    async fn what_the_server_asks_to_wait_is_waited_within_a_call() {
        let (calls, arrived) = calls(&[(429, Some("1")), (200, None)]);
        let answer = calls.send(get("/x")).await.unwrap();
        assert_eq!(answer.status(), 200);
        let arrived = arrived.lock().unwrap();
        let waited = arrived[1] - arrived[0];
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test]
    async fn what_the_server_asks_to_wait_is_waited_by_every_call() {
        let (calls, arrived) = calls(&[(429, Some("4")), (200, None)]);
        let told = calls.send(get("/x")).await.unwrap();
        assert_eq!(told.status(), 429, "it is not held for that long");
        let error = calls.send(get("/y")).await.unwrap_err();
        assert!(error.to_string().contains("left alone"), "{error}");
        assert_eq!(arrived.lock().unwrap().len(), 1);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(calls.send(get("/y")).await.unwrap().status(), 200);
        let arrived = arrived.lock().unwrap();
        assert!(arrived[1] - arrived[0] >= Duration::from_secs(4));
    }

    #[tokio::test]
    async fn a_view_that_no_watch_renews_grows_old() {
        let (calls, _) = calls(&[(200, None), (200, None), (500, None), (200, None)]);
        let view = &calls.view;
        let pause = Duration::from_millis(50);
        assert!(view.is_current(), "nothing is watched yet");
        calls.send(get(LIST)).await.unwrap();
        tokio::time::sleep(pause).await;
        calls.send(get(LIST)).await.unwrap();
        assert!(view.age() >= pause, "a list alone watches nothing");
        calls.send(get(WATCH)).await.unwrap();
        assert!(view.age() >= pause, "it was refused");
        let asked = Instant::now();
        calls.send(get(WATCH)).await.unwrap();
        assert!(view.age() <= asked.elapsed());
    }
}
