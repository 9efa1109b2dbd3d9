//! One request, from a client to the domain and back: the steps, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use tokio::time::timeout_at;
use tracing::{info, warn};

use super::body::{Budget, Held as Content, Outgoing, Returned, drain};
use super::clock::{Clock, is_tolerated};
use super::connections::{self, Connections};
use super::head::{Head, PASSED, Rules};
use super::identity::{Held, Identity, Now};
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::reply::{Cause, Reply, difference};
use super::upstream::Upstream;
use crate::sigv4::{self, Payload, Signer};

/// How much of a body that nobody wants is read, and for how long.
const UNWANTED: (usize, Duration) = (16 << 20, Duration::from_secs(1));

/// What all routes share.
#[derive(Debug)]
pub struct Shared {
    /// As whom requests are signed.
    pub identity: Identity,
    /// The time of signatures.
    pub clock: Arc<Clock>,
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

impl Shared {
    /// Returns credentials that are valid now, by the domain's clock.
    ///
    /// # Errors
    ///
    /// Says in words why there are none.
    pub fn credentials(&self) -> Result<Arc<Held>, String> {
        self.identity.get(Now::of(Timestamp::now(), &self.clock))
    }
}

/// The way to one upstream.
#[derive(Debug)]
pub struct Route {
    /// Where it leads.
    pub upstream: Upstream,
    /// The connections to it.
    pub connections: Arc<Connections>,
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
    /// One that is passed on as it comes; `chunked` where it does not say how long it is.
    Passing {
        body: Option<Incoming>,
        chunked: bool,
    },
}

impl Load {
    fn payload(&self) -> Payload {
        match self {
            Self::Held(content) => content.payload,
            Self::Passing { .. } => Payload::Unsigned,
        }
    }

    /// Returns what is to be sent, if it can be sent once more.
    fn outgoing(&mut self) -> Option<Outgoing> {
        match self {
            Self::Held(content) => Some(content.outgoing()),
            Self::Passing { body, .. } => body.take().map(Outgoing::Passing),
        }
    }

    fn length(&self) -> u64 {
        match self {
            Self::Held(content) => content.length(),
            Self::Passing { .. } => 0,
        }
    }

    fn is_chunked(&self) -> bool {
        matches!(self, Self::Passing { chunked: true, .. })
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
        let asks_first = parts.headers.contains_key(EXPECT);
        let (head, content) = match self.admit(parts, &mut body).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // Who waits to be told to send has not sent it, and reading would tell him to.
                if !asks_first {
                    Box::pin(drain(&mut body, UNWANTED.0, UNWANTED.1)).await;
                }
                return Err(refusal);
            }
        };
        let chunked = head.length.is_none();
        let mut load = match content {
            Some(content) => Load::Held(content),
            None => Load::Passing {
                body: Some(body),
                chunked,
            },
        };
        *sent = load.length();
        // sign and send, once more where that is safe and of use
        let mut is_first = true;
        let deadline = tokio::time::Instant::now() + self.shared.request_timeout;
        loop {
            let keys = self.credentials()?;
            let now = self.shared.clock.tell(Timestamp::now());
            let (request, canonical) = self.signed(&head, &mut load, &keys, now)?;
            let is_second = !std::mem::take(&mut is_first);
            let may_repeat = !is_second && matches!(load, Load::Held(_));
            let mut reply = match self.send(request, deadline).await {
                Ok(reply) => reply,
                Err(Refusal::Broken(_)) if may_repeat && is_safe(&head.method) => {
                    self.shared.metrics.retried("connection");
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            let Some(cause) = reply.refused.clone() else {
                return Ok(reply.response);
            };
            self.shared.metrics.refused(&cause);
            // It need not be the domain's front that says nothing.
            let is_told = is_safe(&head.method) || !matches!(cause, Cause::Silent(_));
            let differs = || match &cause {
                Cause::Signature(Some(theirs)) => difference(&canonical(), theirs),
                _ => None,
            };
            // What is put right is so for those who come after, too.
            if !is_second
                && Box::pin(self.is_mended(&cause, differs().is_some(), &keys, now)).await
                && may_repeat
                && is_told
            {
                self.shared.metrics.retried(cause.name());
                continue;
            }
            if let Some(text) = explanation(&cause, differs()) {
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
            let limit = self.shared.budget.limit();
            if head.length.is_some_and(|length| length > limit) {
                return Err(Refusal::TooLarge(limit));
            }
            return Ok((head, None));
        }
        // What few requests need is apart: what all of them carry is moved time and again.
        let content = if body.is_end_stream() {
            Content::empty()
        } else {
            Box::pin(self.shared.budget.hold(body, head.length)).await?
        };
        Ok((head, Some(content)))
    }

    fn credentials(&self) -> Result<Arc<Held>, Refusal> {
        self.shared.credentials().map_err(Refusal::NoCredentials)
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
        let uri = Uri::try_from(head.target.as_sent()).map_err(|_| Refusal::TooLong)?;
        let broken = || Refusal::Malformed("the request cannot be signed");
        let mut headers = head.headers.clone();
        sign(&mut headers, own, &what, now).ok_or_else(broken)?;
        if load.is_chunked() {
            // Or else a body of unknown length is none to GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
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

    /// Sends a request, and waits for the answer: for its head, and for what a refusal says.
    async fn send(
        &self,
        request: Request<Outgoing>,
        deadline: tokio::time::Instant,
    ) -> Result<Reply, Refusal> {
        let limit = self.shared.request_timeout;
        let answered = async {
            let response = self.connections.send(request).await?;
            Reply::read(response).await.map_err(Refusal::Broken)
        };
        let late = |_| Refusal::Late(limit);
        timeout_at(deadline, answered).await.map_err(late)?
    }

    /// Puts right what made the domain refuse a signature, if it can be.
    async fn is_mended(
        &self,
        cause: &Cause,
        is_spelled_otherwise: bool,
        keys: &Held,
        signed: Timestamp,
    ) -> bool {
        match cause {
            // That says nothing of the clock, which may be off by as much.
            Cause::Silent(domain) if is_tolerated(*domain, signed) => false,
            Cause::Skew(Some(domain)) | Cause::Silent(domain) => {
                let machine = Timestamp::now();
                let mended = self.shared.clock.learn(*domain, machine, signed);
                if mended {
                    // When they expire is another time now, too.
                    self.shared.identity.ask();
                    let ahead = self.shared.clock.ahead();
                    warn!(upstream = %self.upstream, ahead, "the domain's clock differs by so many seconds, and is gone by: synchronise this machine's");
                }
                mended
            }
            Cause::Credentials => self.shared.identity.renew(keys).await,
            // The key itself is another: it may have been put right at its source.
            Cause::Signature(Some(_)) if !is_spelled_otherwise => {
                self.shared.identity.renew(keys).await
            }
            _ => false,
        }
    }
}

impl From<connections::Error> for Refusal {
    fn from(error: connections::Error) -> Self {
        match error {
            connections::Error::Unreachable(why) => Self::Unreachable(why),
            connections::Error::Broken(why) => Self::Broken(why),
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
fn explanation(cause: &Cause, differs: Option<String>) -> Option<String> {
    let text = match (cause, differs) {
        (Cause::Skew(_), _) => "the clocks of this machine and of the domain differ by more than five minutes: synchronise this machine's".to_owned(),
        (Cause::Credentials, _) => "AWS does not know the proxy's credentials (any more), and their provider gives no others".to_owned(),
        (Cause::Signature(_), Some(differs)) => format!("the signature does not match: {differs}"),
        (Cause::Signature(Some(_)), None) => "the signature does not match although both sides signed the same: the secret key is not the one of this access key, or --region or --service is not the domain's".to_owned(),
        (Cause::Signature(None), None) => "the signature does not match, and the service does not say what it expected: check --region and --service".to_owned(),
        (Cause::Door, _) => "the domain's access policy does not let this identity do it: apply a DomainAccess for it; `opensearch-access explain` says what it may do".to_owned(),
        (Cause::Plugin, _) => "the domain let the request in, and no role of this identity in its security plugin permits it: name one in securityRoles of the DomainAccess, or extend it".to_owned(),
        (Cause::Collection, _) => "the collection's data access policy, or its network policy, does not let this identity do it".to_owned(),
        (Cause::Silent(_) | Cause::Unknown, _) => return None,
    };
    Some(text)
}
