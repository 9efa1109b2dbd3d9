//! A reverse proxy in front of the API server, for one client: where calls are counted, refused,
//! delayed, cut off and held.
//!
//! ```text
//!  client ──HTTP──► mishaps ─► tripwires ──HTTPS──► kube-apiserver
//!                                  ◄── answers, watches as they come ──┘
//! ```
//!
//! The client speaks plain HTTP/1 and authenticates with its own token, which is passed on. A watch
//! is passed on as it comes, for as long as it lasts.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{Method, Response, StatusCode, header};
use futures::StreamExt;
use kube::Client;
use kube::config::AuthInfo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Cluster;
use crate::common::connection::{Breakable, Switch, Switches};
use crate::common::tripwire::{Entry, Passing, Then, Tripwires};

/// The API server takes no larger body.
const LARGEST_BODY: usize = 4 << 20;

/// One call to the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiCall {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// The body; `null` without one, or if it is not JSON.
    pub(crate) body: Value,
}

impl ApiCall {
    /// Tells whether the call asks for a change.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }

    /// Tells whether the call is a watch, whose answer does not end.
    pub(crate) fn is_watch(&self) -> bool {
        self.query.split('&').any(|it| it == "watch=true")
    }

    /// Returns the namespace in the path.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.after("namespaces")
    }

    /// Returns the name of an object in the path, or in the body where it is created.
    pub(crate) fn name_of(&self, plural: &str) -> Option<&str> {
        let created = || {
            let made = self.method == Method::POST && self.path.ends_with(plural);
            let name = || self.body["metadata"]["name"].as_str();
            made.then(name).flatten()
        };
        self.after(plural).or_else(created)
    }

    fn after(&self, segment: &str) -> Option<&str> {
        let mut segments = self.path.split('/').skip_while(|it| *it != segment);
        segments.nth(1)
    }
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// It is refused with a status, and `Retry-After` in seconds if there is one.
    Refuse(StatusCode, Option<u32>),
    /// It is passed on later; combines with the others.
    Delay(Duration),
    /// The connection is reset before the call is passed on.
    CutBefore,
    /// The call is passed on, and the connection is reset instead of an answer.
    CutAfter,
    /// It is never passed on and never answered.
    Hang,
}

type Meant = Box<dyn Fn(&ApiCall) -> bool + Send>;

struct Rule {
    meant: Meant,
    mishap: Mishap,
    /// How often it still happens; `None`: until it is cleared.
    left: Option<u32>,
}

#[derive(Clone)]
struct Shares {
    upstream: Client,
    client: String,
    rules: Arc<Mutex<Vec<Rule>>>,
    /// What no watch is told of: events that have one of these in them.
    hidden: Arc<Mutex<Vec<String>>>,
    wires: Tripwires,
}

/// A proxy that runs until it is dropped.
pub(crate) struct ApiProxy {
    url: String,
    shares: Shares,
    switches: Switches,
    server: JoinHandle<()>,
    folder: TempDir,
}

impl ApiProxy {
    /// Starts a proxy for one client, by whose name the tripwires know it.
    pub(crate) async fn start(cluster: &Cluster, client: &str, wires: &Tripwires) -> Result<Self> {
        let mut config = cluster.config("admin").clone();
        // The client authenticates itself, retries itself, and waits for as long as it likes.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        config.read_timeout = None;
        config.write_timeout = None;
        let shares = Shares {
            upstream: Client::try_from(config)?,
            client: client.to_owned(),
            rules: Arc::default(),
            hidden: Arc::default(),
            wires: wires.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let switches = Switches::default();
        let listener = Breakable {
            listener,
            switches: switches.clone(),
        };
        let service = Router::new()
            .fallback(serve)
            .with_state(shares.clone())
            .into_make_service_with_connect_info::<Switch>();
        let server = tokio::spawn(async move {
            // It does not end by itself.
            axum::serve(listener, service).await.unwrap_or_default();
        });
        Ok(Self {
            url,
            shares,
            switches,
            server,
            folder: tempfile::tempdir()?,
        })
    }

    /// Writes a kubeconfig by which a user of the cluster comes through this proxy, and returns its
    /// path; it is gone with the proxy.
    pub(crate) fn kubeconfig_of(&self, cluster: &Cluster, user: &str) -> Result<PathBuf> {
        let file = self.folder.path().join(format!("{user}.kubeconfig"));
        let server = json!({"name": "proxy", "cluster": {"server": self.url}});
        let token = json!({"name": user, "user": {"token": cluster.token(user)}});
        let context = json!({"name": "proxy", "context": {"cluster": "proxy", "user": user}});
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [server], "users": [token], "contexts": [context],
        });
        fs::write(&file, config.to_string()).context("failed to write a kubeconfig")?;
        Ok(file)
    }

    /// Lets something go wrong with calls: that many times, or until it is cleared.
    pub(crate) fn inject(
        &self,
        meant: impl Fn(&ApiCall) -> bool + Send + 'static,
        mishap: Mishap,
        times: Option<u32>,
    ) {
        self.shares.rules().push(Rule {
            meant: Box::new(meant),
            mishap,
            left: times,
        });
    }

    /// Has watches lose each event that has a text in it, from now on.
    pub(crate) fn hide(&self, text: &str) {
        self.shares.hidden().push(text.to_owned());
    }

    /// Lets nothing go wrong any more; what hangs goes on hanging.
    pub(crate) fn clear(&self) {
        self.shares.rules().clear();
        self.shares.hidden().clear();
    }

    /// Resets every connection, watches too; new ones are taken.
    pub(crate) fn break_connections(&self) {
        self.switches.break_all();
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
        self.switches.break_all();
    }
}

impl Shares {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hidden(&self) -> MutexGuard<'_, Vec<String>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a watch on, event by event, without those that are hidden.
    fn without_hidden(&self, body: Body) -> Body {
        let (shares, mut rest) = (self.clone(), Vec::new());
        let passed = body.into_data_stream().map(move |chunk| {
            chunk.map(|chunk| {
                rest.extend_from_slice(&chunk);
                let end = rest.iter().rposition(|byte| *byte == b'\n');
                let whole: Vec<u8> = rest.drain(..end.map_or(0, |end| end + 1)).collect();
                let lines = whole.split_inclusive(|byte| *byte == b'\n');
                let hidden = shares.hidden();
                let shown = lines.filter(|line| {
                    let line = String::from_utf8_lossy(line);
                    !hidden.iter().any(|text| line.contains(text))
                });
                Bytes::from(shown.collect::<Vec<_>>().concat())
            })
        });
        Body::from_stream(passed)
    }

    /// Takes what this call has to suffer: all delays, and the first mishap that decides its end.
    fn mishaps(&self, call: &ApiCall) -> Vec<Mishap> {
        let mut suffered: Vec<Mishap> = Vec::new();
        let mut decided = false;
        let mut rules = self.rules();
        for rule in rules.iter_mut() {
            let delays = matches!(rule.mishap, Mishap::Delay(_));
            if (decided && !delays) || !(rule.meant)(call) {
                continue;
            }
            decided |= !delays;
            rule.left = rule.left.map(|left| left.saturating_sub(1));
            suffered.push(rule.mishap);
        }
        rules.retain(|rule| rule.left != Some(0));
        suffered
    }
}

async fn serve(
    Shared(shares): Shared<Shares>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, LARGEST_BODY).await else {
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let call = ApiCall {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    };
    let mut cut_after = false;
    for mishap in shares.mishaps(&call) {
        match mishap {
            Mishap::Delay(duration) => tokio::time::sleep(duration).await,
            Mishap::Refuse(code, after) => return refusal(code, after),
            Mishap::CutBefore => return cut(&switch),
            Mishap::CutAfter => cut_after = true,
            Mishap::Hang => std::future::pending().await,
        }
    }
    let subject = subject(&call);
    let write = written(&call);
    let entry = subject.map_or(Entry::Free, |subject| {
        shares.wires.enter(Passing {
            client: &shares.client,
            subject,
            write: write.as_deref(),
        })
    });
    if entry == Entry::Held {
        std::future::pending::<()>().await;
    }

    if let (Entry::Last(Then::Refused(how)), Some(subject)) = (entry, subject) {
        shares.wires.leave(subject);
        return match how % 4 {
            0 => refusal(StatusCode::CONFLICT, None),
            1 => refusal(StatusCode::INTERNAL_SERVER_ERROR, None),
            2 => refusal(StatusCode::FORBIDDEN, None),
            _ => cut(&switch),
        };
    }
    parts.headers.remove(header::HOST);
    let request = axum::http::Request::from_parts(parts, kube::client::Body::from(bytes.to_vec()));
    let answer = shares.upstream.send(request).await;
    if let (Entry::Last(then), Some(subject)) = (entry, subject) {
        shares.wires.leave(subject);
        match then {
            Then::Answered => {}
            Then::Unanswered => std::future::pending().await,
            Then::Lost | Then::Refused(_) => cut_after = true,
        }
    }
    match answer {
        Ok(answer) if !cut_after && call.is_watch() => {
            answer.map(|body| shares.without_hidden(Body::new(body)))
        }
        Ok(answer) if !cut_after => answer.map(Body::new),
        // A server that is gone has no answer either.
        _ => cut(&switch),
    }
}

fn cut(switch: &Switch) -> Response<Body> {
    switch.break_connection();
    status(StatusCode::BAD_GATEWAY)
}

fn status(code: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = code;
    answer
}

/// Refuses as the API server does, with a `Status`.
fn refusal(code: StatusCode, retry_after: Option<u32>) -> Response<Body> {
    let reason = match code {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a test's proxy refuses this", "reason": reason, "code": code.as_u16(),
    });
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// Returns the domain that a call concerns, which has the name of its namespace.
fn subject(call: &ApiCall) -> Option<&str> {
    if let Some(record) = call.name_of("configmaps") {
        let of_definitions = record.strip_prefix("domain-definitions.");
        return record.strip_prefix("domain-state.").or(of_definitions);
    }
    call.name_of("opensearchdomains").or(call.namespace())
}

/// Names what a call changes. Events and the Lease are no state that an operator goes on from, and
/// do not count.
fn written(call: &ApiCall) -> Option<String> {
    let parts: Vec<&str> = call.path.split('/').collect();
    if !call.is_write() || parts.contains(&"events") || parts.contains(&"leases") {
        return None;
    }
    let what = match parts.last() {
        Some(&"status") => "status",
        _ if call.name_of("configmaps").is_some() => "record",
        _ => "finalizers",
    };
    let kind = ["domainaccesses", "opensearchdomains", "configmaps"];
    let kind = kind.into_iter().find(|it| parts.contains(it))?;
    Some(format!("{} {kind} {what}", call.method))
}
