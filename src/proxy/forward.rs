//! One request, from a client to the domain and back: the steps, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, EXPECT, HOST, HeaderName, TRANSFER_ENCODING};
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
use super::rarely::Rarely;
use super::refusal::Refusal;
use super::reply::{Cause, Reply, difference};
use super::upstream::Upstream;
use crate::sigv4::{self, Payload, Signer};

/// The fields of a signature, beside `Authorization`.
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

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
    /// Returns credentials that are valid at a time of this machine's clock, or of the domain's.
    ///
    /// # Errors
    ///
    /// Says in words why there are none.
    pub fn credentials(&self, machine: Timestamp) -> Result<Arc<Held>, String> {
        self.identity.get(Now::of(machine, &self.clock))
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
    /// The failures that go into the log.
    pub failures: Rarely,
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

/// A request under way.
///
/// It has a place of its own: whoever waits for an answer is moved time and again until he waits, with
/// all that he holds.
struct Asked {
    began: Instant,
    head: Head,
    /// Nothing until it is held; a whole body stays.
    load: Option<Load>,
    /// The next to be sent.
    request: Option<Request<Outgoing>>,
}

/// By what a request was signed.
struct Signature {
    keys: Arc<Held>,
    at: Timestamp,
}

/// What the access log says of a request; apart, since few want to know.
type Logged = Option<Box<(Method, String)>>;

impl Route {
    /// Answers a request.
    pub fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Returned>> + use<'_> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let logged: Logged = self
            .shared
            .access_log
            .then(|| Box::new((parts.method.clone(), parts.uri.path().to_owned())));
        // Who waits to be told to send has not sent it, and reading would tell him to.
        let asks_first = parts.headers.contains_key(EXPECT);
        let read = Head::read(parts, &self.rules, &self.upstream);
        let asked = read.map(|head| {
            Box::new(Asked {
                began,
                load: body.is_end_stream().then(|| Load::Held(Content::empty())),
                head,
                request: None,
            })
        });
        let body = (!body.is_end_stream()).then(|| Box::new(body));
        async move {
            let mut sent = 0;
            let response = match self.forward(asked, body, asks_first, &mut sent).await {
                Ok(response) => response,
                Err(refusal) => {
                    self.shared.metrics.refusal(&refusal);
                    self.say(&refusal);
                    refusal.response().map(Returned::from)
                }
            };
            let (took, status) = (began.elapsed(), response.status());
            self.shared.metrics.answered(status, took);
            if let Some((method, path)) = logged.as_deref() {
                info!(target: "access", %method, path, status = status.as_u16(), ms = took.as_millis(), sent);
            }
            response
        }
    }

    async fn forward(
        &self,
        asked: Result<Box<Asked>, Refusal>,
        body: Option<Box<Incoming>>,
        asks_first: bool,
        sent: &mut u64,
    ) -> Result<Response<Returned>, Refusal> {
        // What few requests need is in boxes, as far as it waits.
        let mut asked = match (asked, body) {
            (Ok(asked), None) => asked,
            (Err(refusal), None) => return Err(refusal),
            (asked, Some(body)) => Box::pin(self.admit(asked, body, asks_first)).await?,
        };
        *sent = asked.load.as_ref().map_or(0, Load::length);
        // The domain's time begins once there is something to send.
        let deadline = (asked.began + self.shared.request_timeout).into();
        // sign and send, once more where that is safe and of use
        let mut is_first = true;
        loop {
            let signature = self.sign(&mut asked)?;
            let may_repeat = is_first && matches!(asked.load, Some(Load::Held(_)));
            let mut reply = match self.send(&mut asked.request, deadline).await {
                Ok(reply) => reply,
                Err(Refusal::Broken(_)) if may_repeat && is_safe(&asked.head.method) => {
                    self.shared.metrics.retried("connection");
                    is_first = false;
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            let Some(cause) = reply.refused.take() else {
                return Ok(reply.response);
            };
            let first = is_first.then_some(may_repeat);
            let told = self.refused(reply, cause, &asked, &signature, first);
            if let Some(response) = Box::pin(told).await {
                return Ok(response);
            }
            is_first = false;
        }
    }

    /// Says why the upstream gives no answer; of many that fail at once, one speaks for all.
    fn say(&self, refusal: &Refusal) {
        let is_theirs = matches!(
            refusal,
            Refusal::Unreachable(_) | Refusal::Broken(_) | Refusal::Late(_)
        );
        if is_theirs && let Some(unsaid) = self.failures.is_due(Instant::now()) {
            warn!(upstream = %self.upstream, unsaid, "a request failed: {refusal}");
        }
    }

    /// Holds the body of a request, as far as it is signed.
    async fn admit(
        &self,
        asked: Result<Box<Asked>, Refusal>,
        mut body: Box<Incoming>,
        asks_first: bool,
    ) -> Result<Box<Asked>, Refusal> {
        let refusal = match asked {
            Ok(mut asked) => match self.hold(&asked.head, &mut body).await {
                Ok(content) => {
                    let chunked = asked.head.length.is_none();
                    asked.load = Some(match content {
                        Some(content) => Load::Held(content),
                        None => Load::Passing {
                            body: Some(*body),
                            chunked,
                        },
                    });
                    asked.began = Instant::now();
                    return Ok(asked);
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        if !asks_first {
            drain(&mut body, UNWANTED.0, UNWANTED.1).await;
        }
        Err(refusal)
    }

    /// Holds a body; nothing where it is passed on as it comes.
    async fn hold(&self, head: &Head, body: &mut Incoming) -> Result<Option<Content>, Refusal> {
        // Before anything is held that could not be sent.
        let keys = self.shared.credentials(Timestamp::now());
        keys.map_err(Refusal::NoCredentials)?;
        if self.shared.unsigned_payload {
            let limit = self.shared.budget.limit();
            if head.length.is_some_and(|length| length > limit) {
                return Err(Refusal::TooLarge(limit));
            }
            return Ok(None);
        }
        let content = self.shared.budget.hold(body, head.length).await?;
        Ok(Some(content))
    }

    /// Makes the request that is sent.
    fn sign(&self, asked: &mut Asked) -> Result<Signature, Refusal> {
        let machine = Timestamp::now();
        let keys = self.shared.credentials(machine);
        let keys = keys.map_err(Refusal::NoCredentials)?;
        let at = self.shared.clock.tell(machine);
        let Asked { head, load, .. } = asked;
        let broken = || Refusal::Malformed("the request cannot be signed");
        let load = load.as_mut().ok_or_else(broken)?;
        let what = self.what(head, load.payload());
        let uri = Uri::try_from(head.target.as_sent()).map_err(|_| Refusal::TooLong)?;
        let mut headers = HeaderMap::with_capacity(head.headers.len() + ADDED);
        for (name, value) in &head.headers {
            headers.append(name.clone(), value.clone());
        }
        let signer = keys.signers.get(self.signer).ok_or_else(broken)?;
        sign(&mut headers, &keys, signer, &what, at).ok_or_else(broken)?;
        if load.is_chunked() {
            // Or else a body of unknown length is none to GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(load.outgoing().ok_or_else(broken)?);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        asked.request = Some(request);
        Ok(Signature { keys, at })
    }

    /// Says what is signed of a request.
    fn what<'a>(&'a self, head: &'a Head, payload: Payload) -> sigv4::Request<'a> {
        sigv4::Request {
            method: head.method.as_str(),
            host: self.upstream.host(),
            target: &head.target,
            payload,
        }
    }

    /// Tells what was signed of a request.
    fn canonical(&self, asked: &Asked, signature: &Signature) -> String {
        let signer = signature.keys.signers.get(self.signer);
        let payload = asked.load.as_ref().map(Load::payload);
        let known = signer.zip(payload).map(|(signer, payload)| {
            signer.canonical_request(&self.what(&asked.head, payload), signature.at)
        });
        known.unwrap_or_default()
    }

    /// Sends a request, and waits for the answer: for its head, and for what a refusal says.
    async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
        deadline: tokio::time::Instant,
    ) -> Result<Reply, Refusal> {
        let answered = async {
            let response = self.connections.send(request).await?;
            if Reply::is_to_be_read(response.status()) {
                let read = Box::pin(Reply::read(response));
                return read.await.map_err(Refusal::Broken);
            }
            Ok(Reply::as_it_is(response))
        };
        let late = |_| Refusal::Late(self.shared.request_timeout);
        timeout_at(deadline, answered).await.map_err(late)?
    }

    /// Explains why the domain refused a request; or puts right what it was, and returns nothing where
    /// another try is safe. `first` says of a first try whether it may be repeated.
    async fn refused(
        &self,
        mut reply: Reply,
        cause: Cause,
        asked: &Asked,
        signature: &Signature,
        first: Option<bool>,
    ) -> Option<Response<Returned>> {
        self.shared.metrics.refused(&cause);
        // It need not be the domain's front that says nothing.
        let is_told = is_safe(&asked.head.method) || !matches!(cause, Cause::Silent(_));
        let differs = match &cause {
            Cause::Signature(Some(theirs)) => difference(&self.canonical(asked, signature), theirs),
            _ => None,
        };
        // What is put right is so for those who come after, too.
        if let Some(may_repeat) = first
            && self.is_mended(&cause, differs.is_some(), signature).await
            && may_repeat
            && is_told
        {
            self.shared.metrics.retried(cause.name());
            return None;
        }
        if let Some(text) = explanation(&cause, differs) {
            if cause.is_of_signature() {
                warn!(upstream = %self.upstream, "the domain refused a signature: {text}");
            }
            reply.explain(&text);
        }
        Some(reply.response)
    }

    /// Puts right what made the domain refuse a signature, if it can be.
    async fn is_mended(
        &self,
        cause: &Cause,
        is_spelled_otherwise: bool,
        signature: &Signature,
    ) -> bool {
        let (keys, signed) = (&signature.keys, signature.at);
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

/// How many fields a request is given: those of [`sign`], and one about its body.
const ADDED: usize = 7;

/// Puts the signature on, and the name of the upstream.
fn sign(
    headers: &mut HeaderMap,
    keys: &Held,
    signer: &Signer,
    what: &sigv4::Request<'_>,
    now: Timestamp,
) -> Option<()> {
    let made = signer.sign(what, now);
    headers.insert(HOST, HeaderValue::from_str(what.host).ok()?);
    headers.insert(PASSED, HeaderValue::from_static("1"));
    headers.insert(CONTENT_SHA256, made.content_sha256.try_into().ok()?);
    headers.insert(DATE, made.date.try_into().ok()?);
    let mut authorization = HeaderValue::try_from(made.authorization).ok()?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    if let Some(token) = &keys.token {
        headers.insert(SECURITY_TOKEN, token.clone());
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
