//! One request, from a client to the domain and back: the steps, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use tokio::time::timeout;
use tracing::{info, warn};

use super::body::{Budget, Held as Content, Outgoing, Returned, drain};
use super::clock::Clock;
use super::connections::Connections;
use super::head::{Head, PASSED, Rules};
use super::identity::{Held, Identity};
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::reply::{Cause, Reply, difference};
use super::upstream::Upstream;
use crate::aws::error::causes;
use crate::sigv4::{self, Payload, Signer};

/// How much of a body that nobody wants is read, and for how long.
const UNWANTED: (usize, Duration) = (16 << 20, Duration::from_secs(1));

/// What all routes share.
#[derive(Debug)]
pub struct Shared {
    /// As whom requests are signed.
    pub identity: Identity,
    /// The time of signatures.
    pub clock: Clock,
    /// The room for bodies.
    pub budget: Budget,
    /// What is counted.
    pub metrics: Metrics,
    /// The longest that the domain may take to answer.
    pub request_timeout: Duration,
    /// Whether bodies are passed on as they come, unsigned.
    pub unsigned_payload: bool,
    /// Whether each request is a line in the log.
    pub access_log: bool,
}

/// The way to one upstream.
#[derive(Debug)]
pub struct Route {
    /// Where it leads.
    pub upstream: Upstream,
    /// The connections to it.
    pub connections: Connections,
    /// What clients may ask.
    pub rules: Rules,
    /// Which of the signers is for it.
    pub signer: usize,
    /// What all routes share.
    pub shared: Arc<Shared>,
}

/// A body on its way, to be sent once or as often as it takes.
enum Load {
    Held(Content),
    Passing(Option<Incoming>),
}

impl Load {
    fn payload(&self) -> Payload {
        match self {
            Self::Held(content) => content.payload,
            Self::Passing(_) => Payload::Unsigned,
        }
    }

    /// Returns what is to be sent, if it can be sent once more.
    fn outgoing(&mut self) -> Option<Outgoing> {
        match self {
            Self::Held(content) => Some(content.outgoing()),
            Self::Passing(body) => body.take().map(Outgoing::Passing),
        }
    }

    fn length(&self) -> u64 {
        match self {
            Self::Held(content) => content.length(),
            Self::Passing(_) => 0,
        }
    }
}

impl Route {
    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Returned> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let logged = self
            .shared
            .access_log
            .then(|| (parts.method.clone(), parts.uri.path().to_owned()));
        let mut sent = 0;
        let response = match self.forward(parts, body, &mut sent).await {
            Ok(response) => response,
            Err(refusal) => {
                self.shared.metrics.refusal(&refusal);
                refusal.response().map(Returned::from)
            }
        };
        let (took, status) = (began.elapsed(), response.status());
        self.shared.metrics.answered(status, took);
        if let Some((method, path)) = logged {
            info!(target: "access", %method, path, status = status.as_u16(), ms = took.as_millis(), sent);
        }
        response
    }

    async fn forward(
        &self,
        parts: Parts,
        mut body: Incoming,
        sent: &mut u64,
    ) -> Result<Response<Returned>, Refusal> {
        let (head, content) = match self.admit(parts, &mut body).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                drain(&mut body, UNWANTED.0, UNWANTED.1).await;
                return Err(refusal);
            }
        };
        let mut load = content.map_or_else(|| Load::Passing(Some(body)), Load::Held);
        *sent = load.length();
        // sign and send, once more where that is safe and of use
        let mut is_first = true;
        loop {
            let keys = self.credentials()?;
            let now = self.shared.clock.tell(Timestamp::now());
            let (request, canonical) = self.signed(&head, &mut load, &keys, now)?;
            let again = is_first && matches!(load, Load::Held(_));
            is_first = false;
            let reply = match self.send(request).await {
                Ok(response) => Reply::read(response).await.map_err(Refusal::Broken),
                Err(refusal) => Err(refusal),
            };
            let mut reply = match reply {
                Ok(reply) => reply,
                Err(Refusal::Broken(_)) if again && is_safe(&head.method) => {
                    self.shared.metrics.retried("connection");
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            let Some(cause) = reply.refused.clone() else {
                return Ok(reply.response);
            };
            self.shared.metrics.refused(&cause);
            if again && self.is_mended(&cause, &keys).await {
                self.shared.metrics.retried(cause.name());
                continue;
            }
            if let Some(text) = explanation(&cause, &canonical) {
                if cause.is_of_signature() {
                    warn!(upstream = %self.upstream, "the domain refused a signature: {text}");
                }
                reply.explain(&text);
            }
            return Ok(reply.response);
        }
    }

    /// Judges a request, and holds its body, as far as that is signed.
    async fn admit(
        &self,
        parts: Parts,
        body: &mut Incoming,
    ) -> Result<(Head, Option<Content>), Refusal> {
        let head = Head::read(parts, &self.rules, &self.upstream)?;
        // Before anything is held that could not be sent.
        self.credentials()?;
        if self.shared.unsigned_payload && !body.is_end_stream() {
            return Ok((head, None));
        }
        let content = self.shared.budget.hold(body, head.length).await?;
        Ok((head, Some(content)))
    }

    fn credentials(&self) -> Result<Arc<Held>, Refusal> {
        let held = self.shared.identity.get(Timestamp::now());
        held.map_err(Refusal::NoCredentials)
    }

    /// Makes the request that is sent, and a way to tell what was signed.
    fn signed<'a>(
        &'a self,
        head: &'a Head,
        load: &mut Load,
        keys: &Arc<Held>,
        now: Timestamp,
    ) -> Result<(Request<Outgoing>, impl Fn() -> String + use<'a>), Refusal> {
        let payload = load.payload();
        let signer = Arc::clone(keys);
        let at = self.signer;
        let what = sigv4::Request {
            method: head.method.as_str(),
            host: self.upstream.host(),
            target: &head.target,
            payload,
        };
        let Some(own) = signer.signers.get(at) else {
            return Err(Refusal::NoCredentials(
                "no signer is for this route".to_owned(),
            ));
        };
        let uri = self
            .upstream
            .uri(&head.target)
            .map_err(|_| Refusal::TooLong)?;
        let broken = || Refusal::Malformed("the request cannot be signed");
        let mut headers = head.headers.clone();
        sign(&mut headers, own, &what, now).ok_or_else(broken)?;
        let body = load.outgoing().ok_or_else(broken)?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let canonical = move || {
            let signer = signer.signers.get(at);
            signer.map_or_else(String::new, |it| it.canonical_request(&what, now))
        };
        Ok((request, canonical))
    }

    async fn send(&self, request: Request<Outgoing>) -> Result<Response<Incoming>, Refusal> {
        let limit = self.shared.request_timeout;
        match timeout(limit, self.connections.get().request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Refusal::Unreachable(causes(&error))),
            Ok(Err(error)) => Err(Refusal::Broken(causes(&error))),
            Err(_) => Err(Refusal::Late(limit)),
        }
    }

    /// Puts right what made the domain refuse a signature, if it can be.
    async fn is_mended(&self, cause: &Cause, keys: &Held) -> bool {
        match cause {
            Cause::Skew(Some(domain)) => {
                let machine = Timestamp::now();
                let mended = self.shared.clock.learn(*domain, machine);
                if mended {
                    let ahead = self.shared.clock.ahead();
                    warn!(upstream = %self.upstream, ahead, "the domain's clock differs by so many seconds, and is gone by: synchronise this machine's");
                }
                mended
            }
            Cause::Credentials => self.shared.identity.renew(keys.generation).await,
            _ => false,
        }
    }
}

/// Puts the signature on, and the name of the upstream.
fn sign(
    headers: &mut HeaderMap,
    signer: &Signer,
    what: &sigv4::Request<'_>,
    now: Timestamp,
) -> Option<()> {
    headers.insert(HOST, HeaderValue::from_str(what.host).ok()?);
    headers.insert(PASSED, HeaderValue::from_static("1"));
    for (name, value) in signer.sign(what, now).headers() {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(())
}

/// Tells whether a request may be sent again although the domain may have done what it asks.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Says what a refusal means, and what to do.
fn explanation(cause: &Cause, canonical: impl Fn() -> String) -> Option<String> {
    let text = match cause {
        Cause::Skew(_) => "the clocks of this machine and of the domain differ by more than five minutes: synchronise this machine's".to_owned(),
        Cause::Credentials => "AWS does not know the proxy's credentials (any more), and their provider gives no others".to_owned(),
        Cause::Signature(Some(theirs)) => {
            format!("the signature does not match: {}", difference(&canonical(), theirs))
        }
        Cause::Signature(None) => "the signature does not match, and the service does not say what it expected: check --region and --service".to_owned(),
        Cause::Door => "the domain's access policy does not let this identity do it: apply a DomainAccess for it; `opensearch-access explain` says what it may do".to_owned(),
        Cause::Plugin => "the domain let the request in, and no role of this identity in its security plugin permits it: name one in securityRoles of the DomainAccess, or extend it".to_owned(),
        Cause::Collection => "the collection's data access policy, or its network policy, does not let this identity do it".to_owned(),
        Cause::Unknown => return None,
    };
    Some(text)
}
