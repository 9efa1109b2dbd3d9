//! What the managed service puts in front of a domain, for one domain of the fake AWS.
//!
//! ```text
//!  client ─TLS─► verify the signature ─► the domain's access policy ─► who is it for the plugin?
//!                   (fake AWS's keys)     (as the fake AWS has it)        │
//!                                                   OpenSearch with its plugin ─► answer
//! ```
//!
//! An IAM user is the plugin's user of that ARN; a session of a role is a user, and a backend role,
//! by the *role's* ARN. Unsigned requests have no user, and get no further than the policy lets them.
//!
//! # Caveats
//!
//! The operator's own users (`admin`, `operator-…`) and its role `operator` have an identity policy
//! that allows them everything, as the operator's documentation asks for; every other role has its
//! inline policies.

#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary uses another part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::connection::Switch;
use super::fake_aws::{Asked, Caller, FakeAws, Gate, action};
use super::opensearch::{MASTER, Node, ROLES, USER};
use super::tripwire::{Entry, Passing, Then};

mod ask;
mod listener;
pub(crate) mod trouble;

pub(crate) use self::ask::{ask, ask_at};
pub(crate) use self::listener::{Encrypted, Peer, authority, client_trusting};
pub(crate) use self::trouble::{Trouble, Troubles};

/// The largest body that a domain takes.
const LARGEST_BODY: usize = 100 << 20;

/// The security plugin's REST API.
const SECURITY_API: &str = "/_plugins/_security/api/";

/// A request that came to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) at: Timestamp,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The ARN of the caller; none if it did not sign.
    pub(crate) caller: Option<String>,
    pub(crate) access_key_id: String,
    /// The body of a call of the security API.
    pub(crate) body: Value,
    /// The status of the answer; none if there was no answer.
    pub(crate) status: Option<u16>,
}

impl Passed {
    /// Tells whether it changes a mapping, on behalf of a user, by the operator's program: tests
    /// themselves ask for one thing at a time.
    pub(crate) fn is_mapping_by(&self, user: &str) -> bool {
        let by = |arn: &String| arn.ends_with(&format!(":user/{user}"));
        let mapping = self
            .path
            .starts_with(&format!("{SECURITY_API}rolesmapping"));
        mapping && self.method != Method::GET && self.caller.as_ref().is_some_and(by)
    }

    /// Names what the request changes in the security plugin.
    pub(crate) fn security_write(&self) -> Option<String> {
        let place = self.path.strip_prefix(SECURITY_API)?;
        (self.method != Method::GET).then(|| format!("{}-{place}", self.method))
    }
}

/// A gateway, closed when it is dropped.
pub(crate) struct Gateway {
    endpoint: String,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

/// Who has which role, by the role's name.
pub(crate) type Mappings = BTreeMap<String, BTreeSet<String>>;

struct Inner {
    /// The domain's name, which the tripwires go by.
    name: String,
    gate: Gate,
    node: Arc<Node>,
    client: Client<HttpConnector, Body>,
    troubles: Troubles,
    passed: Mutex<Vec<Passed>>,
    /// What the mappings of the domain's own roles (`NAME.…`) were after each write of mappings.
    mappings: Mutex<Vec<(Timestamp, Mappings)>>,
}

/// Returns a client of what listens without encryption.
pub(crate) fn plain_client() -> Client<HttpConnector, Body> {
    static CLIENT: LazyLock<HttpConnector> = LazyLock::new(HttpConnector::new);
    Client::builder(TokioExecutor::new()).build(CLIENT.clone())
}

impl Gateway {
    /// Opens a gateway for a domain of the fake AWS, whose endpoint it becomes.
    pub(crate) async fn open(aws: &FakeAws, domain: &str, node: Arc<Node>) -> Self {
        let (listener, address) = Encrypted::bind((Ipv4Addr::LOCALHOST, 0).into()).await;
        let endpoint = format!("localhost:{}", address.port());
        Self::serve(aws, domain, node, listener, endpoint)
    }

    /// Opens one on an address, where clients find it by the name that the fake AWS gives the domain.
    pub(crate) async fn open_at(
        address: SocketAddr,
        endpoint: &str,
        aws: &FakeAws,
        domain: &str,
        node: Arc<Node>,
    ) -> Self {
        let (listener, _) = Encrypted::bind(address).await;
        Self::serve(aws, domain, node, listener, endpoint.to_owned())
    }

    fn serve(
        aws: &FakeAws,
        domain: &str,
        node: Arc<Node>,
        listener: Encrypted,
        endpoint: String,
    ) -> Self {
        let domain = aws.domain(domain);
        domain.set_endpoint(&endpoint);
        let inner = Arc::new(Inner {
            name: domain.name(),
            gate: domain.gate(),
            node,
            client: plain_client(),
            troubles: Troubles::default(),
            passed: Mutex::default(),
            mappings: Mutex::default(),
        });
        let service = axum::Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&inner))
            .into_make_service_with_connect_info::<Peer>();
        let server = tokio::spawn(async move {
            axum::serve(listener, service).await.unwrap();
        });
        Self {
            endpoint,
            inner,
            server,
        }
    }

    /// Returns where clients go.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns what goes wrong on purpose.
    pub(crate) fn troubles(&self) -> &Troubles {
        &self.inner.troubles
    }

    /// Returns every request so far, in the order of their ends.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.inner.passed().clone()
    }

    /// Returns what the mappings of the domain's own roles, `NAME.…`, were after each write.
    pub(crate) fn history(&self) -> Vec<(Timestamp, Mappings)> {
        let history = self.inner.mappings.lock();
        history.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what they are now.
    pub(crate) fn mappings(&self) -> Mappings {
        let history = self.history();
        history
            .last()
            .map(|(_, now)| now.clone())
            .unwrap_or_default()
    }

    /// Returns what was written to the security plugin, refused writes included.
    pub(crate) fn security_writes(&self) -> Vec<String> {
        let passed = self.passed();
        passed.iter().filter_map(Passed::security_write).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    /// Writes down what the mappings of the domain's own roles are, past all walls.
    async fn note_mappings(&self) {
        let url = format!("{}{SECURITY_API}rolesmapping", self.node.url());
        let request = axum::http::Request::get(url)
            .header("x-forwarded-for", "127.0.0.1")
            .header(USER, MASTER)
            .body(Body::empty())
            .unwrap();
        let Ok(answer) = self.client.request(request).await else {
            return;
        };
        let body = to_bytes(Body::new(answer.into_body()), LARGEST_BODY).await;
        let read: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        let own = format!("{}.", self.name);
        let mappings = read.as_object().into_iter().flatten();
        let mappings = mappings.filter(|(role, _)| role.starts_with(&own));
        let entries = |mapping: &Value| {
            let lists = ["users", "backend_roles"].map(|list| mapping[list].as_array().cloned());
            let entries = lists.into_iter().flatten().flatten();
            entries
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect()
        };
        let now = mappings.map(|(role, mapping)| (role.clone(), entries(mapping)));
        let now = (Timestamp::now(), now.collect());
        let history = self.mappings.lock();
        history.unwrap_or_else(PoisonError::into_inner).push(now);
    }

    fn passed(&self) -> std::sync::MutexGuard<'_, Vec<Passed>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

async fn serve(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        let message = json!({"Message": "Request size exceeded 104857600 bytes"});
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, &message);
    };
    let mut passed = Passed {
        at: Timestamp::now(),
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        caller: None,
        access_key_id: String::new(),
        body: if parts.uri.path().starts_with(SECURITY_API) {
            serde_json::from_slice(&body).unwrap_or_default()
        } else {
            Value::Null
        },
        status: None,
    };
    let answer = pass(&inner, &parts, body, &mut passed, peer).await;
    passed.status = answer.as_ref().map(|it| it.status().as_u16());
    inner.passed().push(passed);
    answer.unwrap_or_else(|| {
        peer_switch(&parts).break_connection();
        Response::new(Body::empty())
    })
}

fn peer_switch(parts: &Parts) -> Switch {
    let peer = parts.extensions.get::<ConnectInfo<Peer>>();
    peer.expect("each connection has one").0.switch.clone()
}

/// Lets a request pass all walls; none is its end without an answer.
async fn pass(
    inner: &Inner,
    parts: &Parts,
    body: Bytes,
    passed: &mut Passed,
    peer: Peer,
) -> Option<Response<Body>> {
    let caller = match inner.gate.caller(parts, &body) {
        Ok(caller) => caller,
        Err((status, message)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            return Some(refusal(status, &json!({ "message": message })));
        }
    };
    passed.caller = caller.as_ref().map(|caller| caller.arn.clone());
    passed.access_key_id = caller
        .as_ref()
        .map(|caller| caller.access_key_id.clone())
        .unwrap_or_default();
    let asked = Asked {
        caller: caller.as_ref(),
        method: &parts.method,
        path: parts.uri.path(),
        source: peer.address.ip(),
    };
    if !inner.gate.lets_in(&asked) {
        let who = passed.caller.as_deref().unwrap_or("anonymous");
        let message = format!(
            "User: {who} is not authorized to perform: {} because no resource-based policy allows the {0} action",
            action(&parts.method)
        );
        return Some(refusal(
            StatusCode::FORBIDDEN,
            &json!({ "Message": message }),
        ));
    }
    let entry = inner.gate.wires().enter(Passing {
        client: &passed.access_key_id,
        subject: &inner.name,
        write: passed.security_write().as_deref(),
    });
    if entry == Entry::Held {
        std::future::pending::<()>().await;
    }
    if let Entry::Last(Then::Refused(how)) = entry {
        inner.gate.wires().leave(&inner.name);
        return refused(how);
    }
    let trouble = inner.troubles.take(&parts.method, parts.uri.path());
    let answer = match trouble {
        Some(Trouble::Answer(status, body)) => Some(refusal(status, &body)),
        Some(Trouble::Reset) => None,
        Some(Trouble::Late(delay)) => {
            tokio::time::sleep(delay).await;
            Some(forward(inner, parts, body, caller.as_ref()).await)
        }
        Some(Trouble::AppliedThen(status, said)) => {
            forward(inner, parts, body, caller.as_ref()).await;
            status.map(|status| refusal(status, &said))
        }
        None => Some(forward(inner, parts, body, caller.as_ref()).await),
    };
    if passed.security_write().is_some() {
        inner.note_mappings().await;
    }
    let Entry::Last(then) = entry else {
        return answer;
    };
    inner.gate.wires().leave(&inner.name);
    match then {
        Then::Answered => answer,
        Then::Unanswered => std::future::pending().await,
        Then::Lost | Then::Refused(_) => None,
    }
}

/// Refuses a write in one of the ways of the plugin and of what stands before it, by number.
fn refused(how: usize) -> Option<Response<Body>> {
    let (status, said) = match how % 4 {
        0 => (StatusCode::CONFLICT, "version conflict"),
        1 => (StatusCode::INTERNAL_SERVER_ERROR, "it failed"),
        2 => (StatusCode::SERVICE_UNAVAILABLE, "it is busy"),
        _ => return None,
    };
    let body = json!({"status": status.as_str(), "message": said});
    Some(refusal(status, &body))
}

/// Passes a request on to the node, with who it is from.
async fn forward(
    inner: &Inner,
    parts: &Parts,
    body: Bytes,
    caller: Option<&Caller>,
) -> Response<Body> {
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = axum::http::Request::new(Body::from(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("{}{target}", inner.node.url()).parse().unwrap();
    let ours = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-proxy-") || name.starts_with("x-amz-") || name == "authorization"
    };
    let hop = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::EXPECT,
    ];
    for (name, value) in &parts.headers {
        if !ours(name) && !hop.contains(name) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    let text = |text: &str| HeaderValue::from_str(text).unwrap();
    let headers = request.headers_mut();
    headers.insert("x-forwarded-for", text("127.0.0.1"));
    if let Some(caller) = caller {
        headers.insert(USER, text(&caller.user));
        if let Some(role) = &caller.backend_role {
            headers.insert(ROLES, text(role));
        }
    }
    let Ok(answer) = inner.client.request(request).await else {
        let message = "<html><body><b>Http/1.1 Service Unavailable</b></body></html>";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &json!(message));
    };
    let (mut parts, body) = answer.into_parts();
    for name in hop {
        if name != header::CONTENT_LENGTH {
            parts.headers.remove(name);
        }
    }
    Response::from_parts(parts, Body::new(body))
}
