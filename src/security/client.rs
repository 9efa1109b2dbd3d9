//! The calls of the security plugin's REST API, one by one.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use serde_json::{Map, Value};

use super::error::Error;
use super::tries::Tries;
use crate::aws::session::Clients;
use crate::policy::fine_grained::entity::{Engine, EntityKind, SecurityConfig};
use crate::runtime::tls;
use crate::sigv4::{self, Payload, Signer, Target};

/// The longest that one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(10);

/// The longest that a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: less than the service keeps it.
const IDLE_LIMIT: Duration = Duration::from_secs(40);

/// The largest answer that is read: all mappings of a large domain take a few MiB.
const ANSWER_LIMIT: usize = 32 << 20;

/// The signing name of domains.
const SERVICE: &str = "es";

/// What RFC 3986 leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

type Http = HttpClient<HttpsConnector<HttpConnector>, Full<bytes::Bytes>>;

/// The connections of a process to all domains, of which idle ones are kept.
#[derive(Clone)]
pub struct Connections(Http);

impl Connections {
    /// Trusts the machine's root certificates, and those of a PEM file beside them.
    ///
    /// # Errors
    ///
    /// Says in words why there is nobody to trust: a file that cannot be read, or is no PEM file, or
    /// a machine without root certificates and no file.
    pub fn trusting(authorities: Option<&Path>) -> Result<Self, String> {
        let roots = tls::roots(authorities)?;
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let client = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(tls);
        Ok(Self(client))
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// What became of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patched {
    /// It was stored.
    Stored,
    /// It changes nothing.
    Nothing,
}

/// The security plugin of one domain, by the operator's identity there.
#[derive(Clone)]
pub struct Plugin {
    connections: Connections,
    clients: Clients,
    /// The domain's host, with a port if it is not 443.
    endpoint: String,
    region: String,
    /// Where the API is.
    base: &'static str,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A call, before it is signed.
struct Call<'a> {
    /// What it is counted as.
    operation: &'static str,
    method: Method,
    path: String,
    body: Option<&'a Value>,
}

impl Plugin {
    /// Names the plugin of a domain.
    #[must_use]
    pub fn new(
        connections: Connections,
        clients: Clients,
        endpoint: &str,
        region: &str,
        engine: Engine,
    ) -> Self {
        Self {
            connections,
            clients,
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            base: if engine.is_elasticsearch() {
                "/_opendistro/_security/api"
            } else {
                "/_plugins/_security/api"
            },
        }
    }

    /// Reads the whole configuration.
    pub async fn read(&self) -> Result<SecurityConfig, Error> {
        // One after the other: what is mapped is read after what it is mapped to.
        let mut config = SecurityConfig::default();
        for kind in EntityKind::ALL {
            let entities = self.read_kind(kind).await?;
            *config.of_mut(kind) = SecurityConfig::parse(entities);
        }
        Ok(config)
    }

    /// Reads all entities of a kind.
    pub async fn read_kind(&self, kind: EntityKind) -> Result<Map<String, Value>, Error> {
        let answer = self.call(Call {
            operation: operation("read", kind),
            method: Method::GET,
            path: format!("{}/{}", self.base, kind.path()),
            body: None,
        });
        match serde_json::from_slice(&answer.await?) {
            Ok(Value::Object(entities)) => Ok(entities),
            Ok(_) => Err(Error::Garbled {
                message: format!("{} are not an object", kind.path()),
            }),
            Err(error) => Err(Error::Garbled {
                message: error.to_string(),
            }),
        }
    }

    /// Stores an entity as a whole, again where another write of its kind comes between.
    pub async fn put(&self, kind: EntityKind, name: &str, body: &Value) -> Result<(), Error> {
        let mut tries = Tries::new();
        loop {
            let call = Call {
                operation: operation("put", kind),
                method: Method::PUT,
                path: self.path_of(kind, name),
                body: Some(body),
            };
            match self.call(call).await {
                Ok(_) => return Ok(()),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Removes an entity; that there is none is no error.
    pub async fn delete(&self, kind: EntityKind, name: &str) -> Result<(), Error> {
        let mut tries = Tries::new();
        loop {
            let call = Call {
                operation: operation("delete", kind),
                method: Method::DELETE,
                path: self.path_of(kind, name),
                body: None,
            };
            match self.call(call).await {
                Ok(_) | Err(Error::NotFound { .. }) => return Ok(()),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Applies a JSON patch (RFC 6902, of `add`, `replace` and `remove`) to all entities of a kind;
    /// it is stored as a whole or not at all.
    pub async fn patch(&self, kind: EntityKind, patch: &Value) -> Result<Patched, Error> {
        let call = Call {
            operation: operation("patch", kind),
            method: Method::PATCH,
            path: format!("{}/{}", self.base, kind.path()),
            body: Some(patch),
        };
        let answer: Value = serde_json::from_slice(&self.call(call).await?).unwrap_or_default();
        let nothing = answer["message"] == "No updates required";
        Ok(if nothing {
            Patched::Nothing
        } else {
            Patched::Stored
        })
    }

    fn path_of(&self, kind: EntityKind, name: &str) -> String {
        let name = utf8_percent_encode(name, UNRESERVED);
        format!("{}/{}/{name}", self.base, kind.path())
    }

    /// Sends a call, and returns the body of the answer if it succeeds. Credentials that expired
    /// before their time are asked for once more.
    async fn call(&self, call: Call<'_>) -> Result<bytes::Bytes, Error> {
        let mut answer = self.send(&call).await;
        if let Err(Error::Shut { message }) = &answer
            && is_of_credentials(message)
        {
            self.clients.credentials().forget();
            answer = self.send(&call).await;
        }
        let code = answer.as_ref().err().map_or("OK", Error::code);
        self.clients.supervisor().called(call.operation, code);
        answer
    }

    async fn send(&self, call: &Call<'_>) -> Result<bytes::Bytes, Error> {
        let garbled = |message: String| Error::Garbled { message };
        let request = self.sign(call).await?;
        // As the last thing before it is sent: whoever slept since then must not write.
        if call.method != Method::GET && !self.clients.supervisor().may_write() {
            return Err(Error::NotLeading);
        }
        let answered = async {
            let answer = self
                .connections
                .0
                .request(request)
                .await
                .map_err(|error| unreachable(&error))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| garbled(error.to_string()))?.to_bytes();
            Ok((parts, body))
        };
        let answered = tokio::time::timeout(TRY_LIMIT, answered).await;
        let (parts, body) = answered.unwrap_or_else(|_| {
            Err(Error::Unreachable {
                message: format!("it did not answer within {} s", TRY_LIMIT.as_secs()),
            })
        })?;
        match parts.status {
            StatusCode::OK | StatusCode::CREATED => Ok(body),
            status => Err(Error::of(status, retry_after(&parts.headers), &body)),
        }
    }

    async fn sign(&self, call: &Call<'_>) -> Result<Request<Full<bytes::Bytes>>, Error> {
        let garbled = |message: String| Error::Garbled { message };
        let credentials = self.clients.credentials().get().await;
        let credentials = credentials.map_err(|message| Error::NoCredentials { message })?;
        let target = Target::parse(call.path.as_bytes());
        let target = target.map_err(|error| garbled(error.to_string()))?;
        let body = call.body.map(Value::to_string).unwrap_or_default();
        let identity = Signer::new(credentials, self.region.as_str(), SERVICE);
        let signed = identity.sign(
            &sigv4::Request {
                method: call.method.as_str(),
                host: &self.endpoint,
                target: &target,
                payload: Payload::of(body.as_bytes()),
            },
            Timestamp::now(),
        );
        let uri = format!("https://{}{}", self.endpoint, target.as_sent());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(HOST, &self.endpoint);
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in signed.headers() {
            let value = HeaderValue::from_str(value).map(|mut value| {
                value.set_sensitive(name == AUTHORIZATION || name == "x-amz-security-token");
                value
            });
            request = request.header(name, value.map_err(|error| garbled(error.to_string()))?);
        }
        let request = request.body(Full::from(body));
        request.map_err(|error| garbled(error.to_string()))
    }

    /// Returns whose the calls are.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }
}

fn operation(what: &str, kind: EntityKind) -> &'static str {
    match (what, kind) {
        ("read", EntityKind::ActionGroup) => "GET actiongroups",
        ("read", EntityKind::Tenant) => "GET tenants",
        ("read", EntityKind::Role) => "GET roles",
        ("read", EntityKind::Mapping) => "GET rolesmapping",
        ("put", EntityKind::ActionGroup) => "PUT actiongroups",
        ("put", EntityKind::Tenant) => "PUT tenants",
        ("put", _) => "PUT roles",
        ("delete", EntityKind::ActionGroup) => "DELETE actiongroups",
        ("delete", EntityKind::Tenant) => "DELETE tenants",
        ("delete", EntityKind::Role) => "DELETE roles",
        ("delete", EntityKind::Mapping) => "DELETE rolesmapping",
        _ => "PATCH rolesmapping",
    }
}

fn unreachable(error: &hyper_util::client::legacy::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = error.to_string();
        cause = error.source();
    }
    Error::Unreachable { message }
}

/// Tells whether a refusal is of credentials that may be valid once they are asked for anew.
fn is_of_credentials(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("security token")
        && (message.contains("expired") || message.contains("invalid"))
}

/// Reads how long to wait, in seconds; dates are not waited for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
