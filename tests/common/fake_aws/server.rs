//! From a socket to an answer, and back to a closed socket if a fault says so.
//!
//! ```text
//!  accept ─► read ─► verify the signature ─► faults ─► external writer
//!         answer ◄─ record ◄─ es | eks | iam | sts ◄────────────────┘
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{Response, StatusCode, header};
use axum::serve::{IncomingStream, Listener};
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::accounts::Caller;
use super::faults::Fault;
use super::record::Call;
use super::sigv4::{self, Authorization, Signed};
use super::wire::{self, Answer, Refusal, Service, form};
use super::{World, eks, es, iam, sts};

/// The largest body that is read: well above the longest policy, so that its own limit is what
/// refuses it.
const LARGEST_BODY: usize = 8 << 20;

/// Breaks one connection, or knows that it is broken.
#[derive(Clone, Default)]
pub(super) struct Switch(Arc<Mutex<Broken>>);

#[derive(Default)]
struct Broken {
    broken: bool,
    waker: Option<Waker>,
}

impl Switch {
    /// Resets the connection: nothing more is read from it or written to it.
    pub(super) fn break_connection(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Says whether the connection is to break; if not, whoever asks is woken when it is.
    fn is_broken(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.broken {
            state.waker = Some(context.waker().clone());
        }
        state.broken
    }
}

/// All connections that are open, so that the server can end them.
#[derive(Clone, Default)]
pub(super) struct Switches(Arc<Mutex<Vec<Weak<Mutex<Broken>>>>>);

impl Switches {
    fn add(&self, switch: &Switch) {
        let mut switches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        switches.retain(|known| known.strong_count() > 0);
        switches.push(Arc::downgrade(&switch.0));
    }

    /// Resets every connection.
    pub(super) fn break_all(&self) {
        let switches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        switches
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|open| Switch(open).break_connection());
    }
}

/// A listener whose connections have a [`Switch`].
pub(super) struct Breakable {
    pub(super) listener: TcpListener,
    pub(super) switches: Switches,
}

/// A connection that can be reset from outside.
pub(super) struct Connection {
    stream: TcpStream,
    switch: Switch,
}

impl Listener for Breakable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let switch = Switch::default();
        self.switches.add(&switch);
        (Connection { stream, switch }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

impl Connection {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.switch.is_broken(context) {
            // A reset, not an orderly end, is what the client is to see once this is dropped.
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected<IncomingStream<'_, Breakable>> for Switch {
    fn connect_info(stream: IncomingStream<'_, Breakable>) -> Self {
        stream.io().switch.clone()
    }
}

/// A call as it arrived, before anybody is believed.
struct Arrived {
    service: Service,
    operation: String,
    domain: Option<String>,
    region: String,
    access_key_id: String,
    parts: axum::http::request::Parts,
    bytes: axum::body::Bytes,
    body: Value,
}

impl Arrived {
    fn read(parts: axum::http::request::Parts, bytes: axum::body::Bytes) -> Self {
        let authorization = Authorization::parse(&parts.headers);
        let path = parts.uri.path();
        let routed = es::route(&parts.method, path);
        let claimed = authorization
            .as_ref()
            .and_then(|claim| Service::parse(&claim.service));
        let looks_like = if path.starts_with("/2021-01-01/") {
            Service::Es
        } else {
            Service::Iam
        };
        let service = claimed.unwrap_or(looks_like);
        let (operation, domain, body) = if service == Service::Es {
            let (operation, domain) = routed.map_or_else(
                || (format!("{} {path}", parts.method), None),
                |(operation, domain)| (operation.to_owned(), domain),
            );
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let domain = domain.or_else(|| body["DomainName"].as_str().map(str::to_owned));
            (operation, domain, body)
        } else if service == Service::Eks {
            let operation = eks::route(&parts.method, path).map_or_else(
                || format!("{} {path}", parts.method),
                |(operation, _)| operation.to_owned(),
            );
            // What it asks for is in the address, and what it makes in the body.
            let members = form(parts.uri.query().unwrap_or_default()).into_iter();
            let members = members.map(|(name, value)| (name, Value::String(value)));
            let body = serde_json::from_slice(&bytes);
            let body = body.unwrap_or_else(|_| Value::Object(members.collect()));
            (operation, None, body)
        } else {
            let mut parameters = form(&String::from_utf8_lossy(&bytes));
            let operation = parameters.remove("Action").unwrap_or_default();
            parameters.remove("Version");
            let members = parameters
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)));
            (operation, None, Value::Object(members.collect()))
        };
        let (region, access_key_id) = authorization.map_or_else(Default::default, |claim| {
            (claim.region, claim.access_key_id)
        });
        Self {
            service,
            operation,
            domain,
            region,
            access_key_id,
            parts,
            bytes,
            body,
        }
    }

    fn signed(&self) -> Signed<'_> {
        Signed {
            method: &self.parts.method,
            path: self.parts.uri.path(),
            query: self.parts.uri.query().unwrap_or_default(),
            headers: &self.parts.headers,
            body: &self.bytes,
        }
    }

    /// Returns the record of this call.
    fn record(&self, caller: Option<&Caller>, now: Timestamp) -> Call {
        let keys = self
            .body
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone());
        let mut body_keys: Vec<String> = keys.collect();
        body_keys.sort();
        Call {
            at: now,
            service: self.service.name(),
            operation: self.operation.clone(),
            region: self.region.clone(),
            account: caller
                .map(|caller| caller.account.clone())
                .unwrap_or_default(),
            caller_arn: caller.map(|caller| caller.arn.clone()).unwrap_or_default(),
            access_key_id: self.access_key_id.clone(),
            session_name: caller.and_then(|caller| caller.session_name.clone()),
            domain: self.domain.clone(),
            status: None,
            error_code: None,
            body_keys,
            body: self.body.clone(),
        }
    }
}

/// How a call ends.
enum End {
    Answered(Result<Answer, Refusal>),
    Reset,
}

/// Answers every call that is not for the control API.
pub(super) async fn serve(
    Shared(world): Shared<World>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, LARGEST_BODY).await else {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return answer;
    };
    let arrived = Arrived::read(parts, bytes);
    let now = world.now();
    let (verified, faults) = {
        let mut state = world.lock();
        let verified = sigv4::verify(&arrived.signed(), arrived.service, &state.accounts, now);
        let faults = match &verified {
            Ok(_) => state
                .faults
                .take(&arrived.operation, arrived.domain.as_deref()),
            Err(_) => Vec::new(),
        };
        (verified, faults)
    };
    let mut call = arrived.record(verified.as_ref().ok(), now);
    let end = match verified {
        Ok(caller) => suffer(&world, &arrived, &caller, faults).await,
        Err(refusal) => End::Answered(Err(refusal)),
    };
    let End::Answered(outcome) = end else {
        world.lock().calls.push(call);
        switch.break_connection();
        return Response::new(Body::empty());
    };
    call.status = Some(
        outcome
            .as_ref()
            .map_or_else(|refusal| refusal.status, |_| 200),
    );
    call.error_code = outcome
        .as_ref()
        .err()
        .map(|refusal| refusal.code.to_owned());
    let request_id = {
        let mut state = world.lock();
        state.calls.push(call);
        format!("00000000-0000-4000-9000-{:012x}", state.calls.len())
    };
    let mut response = wire::response(arrived.service, &arrived.operation, &request_id, outcome);
    // By this header an SDK learns that its clock is off.
    let date = world
        .now()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    response
        .headers_mut()
        .insert(header::DATE, date.parse().expect("a date is plain text"));
    response
}

/// Lets a call through its faults, and to its service if they leave anything of it.
async fn suffer(world: &World, arrived: &Arrived, caller: &Caller, faults: Vec<Fault>) -> End {
    let service = arrived.service;
    let mut reset_after = false;
    for fault in faults {
        let refusal = match fault {
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                continue;
            }
            Fault::ResetAfter => {
                reset_after = true;
                continue;
            }
            Fault::ResetBefore => return End::Reset,
            Fault::Throttle => Refusal::throttled(service),
            Fault::Internal => Refusal::internal(service),
            Fault::AccessDenied => Refusal::access_denied(service, &caller.arn, &arrived.operation),
            Fault::Refuse(code, status, message) => Refusal::new(code, status, message),
        };
        return End::Answered(Err(refusal));
    }
    let outcome = answer(world, arrived, caller);
    if reset_after {
        End::Reset
    } else {
        End::Answered(outcome)
    }
}

fn answer(world: &World, arrived: &Arrived, caller: &Caller) -> Result<Answer, Refusal> {
    let now = world.now();
    let operation = arrived.operation.as_str();
    if arrived.service == Service::Es {
        let call = es::Call {
            operation,
            domain: arrived.domain.as_deref(),
            query: arrived.parts.uri.query().unwrap_or_default(),
            body: &arrived.body,
            region: &arrived.region,
            caller,
            now,
        };
        if operation == "UpdateDomainConfig" && arrived.body["DryRun"] != true {
            let arn = es::arn(&call, call.domain.unwrap_or_default());
            world.run_external_writer(&arn);
        }
        return es::answer(&mut world.lock(), &call);
    }
    if arrived.service == Service::Eks {
        let path = arrived.parts.uri.path();
        let cluster = eks::route(&arrived.parts.method, path).map(|(_, cluster)| cluster);
        let call = eks::Call {
            operation,
            cluster: &cluster.unwrap_or_default(),
            path,
            query: arrived.parts.uri.query().unwrap_or_default(),
            body: &arrived.body,
            region: &arrived.region,
            caller,
            now,
        };
        return eks::answer(&mut world.lock(), &call);
    }
    let parameters: iam::Parameters = arrived
        .body
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let answer = if arrived.service == Service::Iam {
        iam::answer
    } else {
        sts::answer
    };
    answer(&mut world.lock(), operation, &parameters, caller, now)
}
