//! The EKS Pod Identity agent, and the EKS Auth API behind it (`AssumeRoleForPodIdentity`), as one:
//! a pod's own token for a session of the role that its service account is associated with.
//!
//! ```text
//!  GET /v1/credentials ─► the cluster's keys ─► audience, pod ─► association ─► role's trust policy
//!  Authorization: TOKEN                              the target role's trust policy ◄──┘ ─► session
//! ```
//!
//! The answers are those of aws/eks-pod-identity-agent: credentials as JSON, refusals as plain text
//! with the status of whoever refused.
//!
//! # Caveats
//!
//! The real agent keeps credentials for a while and hands them out again; this one asks each time.
//! It takes any key id, where EKS's are forty hexadecimal digits. The session's tags are not on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, State as Shared};
use axum::http::{HeaderMap, Response, header};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::connection::{Breakable, Switch, Switches};
use super::accounts::{Credentials, Kind, Principal};
use super::eks::Place;
use super::faults::Fault;
use super::record::Call;
use super::token::{Claims, Flaw, Unverified};
use super::trust::{Asker, trusts};
use super::wire::Refusal;
use super::world::{State, World};

const OPERATION: &str = "AssumeRoleForPodIdentity";
const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// How long a session lasts unless a test says otherwise.
const LIFETIME: SignedDuration = SignedDuration::from_hours(6);

/// An agent that runs until it is dropped.
pub(crate) struct Agent {
    url: String,
    server: JoinHandle<()>,
    switches: Switches,
}

#[derive(Clone)]
struct Node {
    world: World,
    cluster: Place,
}

impl Agent {
    pub(super) async fn start(world: World, cluster: Place, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await;
        let listener = listener.expect("the address is there, and free");
        let address = listener.local_addr();
        let address = address.expect("a bound socket has an address");
        let switches = Switches::default();
        let listener = Breakable {
            listener,
            switches: switches.clone(),
        };
        let service = axum::Router::new()
            .route("/v1/credentials", get(serve))
            .with_state(Node { world, cluster })
            .into_make_service_with_connect_info::<Switch>();
        let server = tokio::spawn(async move {
            axum::serve(listener, service)
                .await
                .expect("axum::serve does not end by itself");
        });
        Self {
            url: format!("http://{address}/v1/credentials"),
            server,
            switches,
        }
    }

    /// Returns what `AWS_CONTAINER_CREDENTIALS_FULL_URI` has to be.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.server.abort();
        self.switches.break_all();
    }
}

async fn serve(
    Shared(node): Shared<Node>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    headers: HeaderMap,
) -> Response<Body> {
    let token = headers.get(header::AUTHORIZATION);
    let token = token.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let now = node.world.now();
    let faults = node.world.lock().faults.take(OPERATION, None);
    let mut call = Call {
        at: now,
        service: "eks-auth",
        operation: OPERATION.to_owned(),
        region: node.cluster.1.clone(),
        account: node.cluster.0.clone(),
        caller_arn: String::new(),
        access_key_id: String::new(),
        session_name: None,
        domain: None,
        status: None,
        error_code: None,
        body_keys: vec!["token".to_owned()],
        body: json!({ "token": token }),
    };
    let outcome = suffer(&node, token, faults).await;
    if let Some(outcome) = &outcome {
        let refused = outcome.as_ref().err();
        call.status = Some(refused.map_or(200, |it| it.status));
        call.error_code = refused.map(|it| it.code.to_owned());
    }
    node.world.lock().calls.push(call);
    let (status, kind, body) = match outcome {
        Some(Ok(credentials)) => (200, "application/json", credentials.to_string()),
        Some(Err(refusal)) => {
            let Refusal { code, message, .. } = &refusal;
            let said = format!("({code}): {message}, fault: client\n");
            (refusal.status, "text/plain; charset=utf-8", said)
        }
        None => {
            switch.break_connection();
            return Response::new(Body::empty());
        }
    };
    let built = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body));
    built.expect("every header above is a valid one")
}

/// Lets a call through its faults; none is its end without an answer.
async fn suffer(node: &Node, token: &str, faults: Vec<Fault>) -> Option<Result<Value, Refusal>> {
    let mut is_lost = false;
    for fault in faults {
        let refusal = match fault {
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                continue;
            }
            Fault::ResetAfter => {
                is_lost = true;
                continue;
            }
            Fault::ResetBefore => return None,
            Fault::Throttle => Refusal::new("ThrottlingException", 429, "Rate exceeded"),
            Fault::Internal => Refusal::new("InternalServerException", 500, "It failed"),
            Fault::AccessDenied => Refusal::new("AccessDeniedException", 400, "Access denied"),
            Fault::Refuse(code, status, message) => Refusal::new(code, status, message),
        };
        return Some(Err(refusal));
    }
    let now = node.world.now();
    let outcome = assume_role(&mut node.world.lock(), &node.cluster, token, now);
    (!is_lost).then_some(outcome)
}

fn assume_role(
    state: &mut State,
    cluster: &Place,
    token: &str,
    now: Timestamp,
) -> Result<Value, Refusal> {
    if token.is_empty() {
        let message = "Service account token cannot be empty";
        return Err(Refusal::new("InvalidParameterException", 400, message));
    }
    let unverified = Unverified::parse(token).map_err(refusal)?;
    let issuer = state.clusters.issuer(cluster);
    if issuer != Some(unverified.issuer()) {
        return Err(invalid("the token is of another cluster"));
    }
    let claims = unverified.verify(&state.issuers, now).map_err(refusal)?;
    if !claims.audiences().contains(&AUDIENCE) {
        return Err(invalid(&format!("invalid audience: expected {AUDIENCE}")));
    }
    let pod = Pod::of(&claims)?;

    let account = (pod.namespace, pod.service_account);
    let association = state.clusters.associated(cluster, account, now);
    let association = association.ok_or_else(|| {
        let message = format!("No association found for {}/{}", account.0, account.1);
        Refusal::new("ResourceNotFoundException", 404, message)
    })?;
    let denied = || {
        let message = "Unauthorized Exception! EKS does not have permissions to assume the \
            associated role.";
        Refusal::new("AccessDeniedException", 400, message)
    };
    let first = role(state, &association.role, |action| {
        pod.asker(cluster, action)
    });
    let mut assumed = first.ok_or_else(denied)?;
    if let Some(target) = &association.target_role {
        let by = assumed.arn.clone();
        let second = role(state, target, |action| chained(&by, action));
        assumed = second.ok_or_else(denied)?;
    }
    let session: String = format!("eks-{}-{}", cluster.2, pod.name);
    let session = session.get(..64).unwrap_or(&session).to_owned();
    let account = assumed.arn.split(':').nth(4).unwrap_or_default().to_owned();
    let accounts = &mut state.accounts;
    let opened = accounts.open_session(&account, &assumed.name, &session, LIFETIME, now);
    Ok(handed_out(&opened.expect("the role exists"), &account))
}

fn handed_out(credentials: &Credentials, account: &str) -> Value {
    let expires = credentials.expires.expect("a session expires");
    json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.session_token,
        "AccountId": account,
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// Finds a role that lets somebody in, with tags on the session.
fn role(state: &State, arn: &str, asker: impl Fn(&'static str) -> Asker) -> Option<Principal> {
    let role = state.accounts.by_arn(arn)?;
    let actions = ["sts:AssumeRole", "sts:TagSession"];
    let trusted = actions.iter().all(|action| trusts(role, &asker(action)));
    (role.kind == Kind::Role && trusted).then(|| role.clone())
}

/// The associated role, as it asks to act as the target role.
fn chained(role: &str, action: &'static str) -> Asker {
    let parts: Vec<&str> = role.split(':').collect();
    let (partition, account) = (parts[1], parts[4]);
    let root = format!("arn:{partition}:iam::{account}:root");
    Asker {
        action,
        kind: "AWS",
        names: vec![role.to_owned(), account.to_owned(), root],
        keys: BTreeMap::from([("aws:principalarn".to_owned(), role.to_owned())]),
    }
}

/// Whose token it is.
struct Pod<'a> {
    namespace: &'a str,
    service_account: &'a str,
    name: &'a str,
}

impl<'a> Pod<'a> {
    /// Reads what a token says of its pod. One that is bound to no pod is refused, by the agent too.
    fn of(claims: &'a Claims) -> Result<Self, Refusal> {
        let text = |claim: &str| {
            let found = claims.text(&format!("/kubernetes.io/{claim}"));
            found.ok_or_else(|| invalid(&format!("missing claim: kubernetes.io/{claim}")))
        };
        text("pod/uid")?;
        text("serviceaccount/uid")?;
        Ok(Self {
            namespace: text("namespace")?,
            service_account: text("serviceaccount/name")?,
            name: text("pod/name")?,
        })
    }

    /// EKS, as it asks to act as the associated role for this pod.
    fn asker(&self, (account, region, cluster): &Place, action: &'static str) -> Asker {
        let arn = format!("arn:aws:eks:{region}:{account}:cluster/{cluster}");
        let keys = [
            ("aws:sourceaccount", account.as_str()),
            ("aws:sourcearn", &arn),
            ("aws:requesttag/eks-cluster-arn", &arn),
            ("aws:requesttag/eks-cluster-name", cluster),
            ("aws:requesttag/kubernetes-namespace", self.namespace),
            (
                "aws:requesttag/kubernetes-service-account",
                self.service_account,
            ),
            ("aws:requesttag/kubernetes-pod-name", self.name),
        ];
        let keys = keys.into_iter();
        Asker {
            action,
            kind: "Service",
            names: vec![AUDIENCE.to_owned()],
            keys: keys
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

fn invalid(message: &str) -> Refusal {
    Refusal::new("InvalidTokenException", 400, message)
}

fn refusal(flaw: Flaw) -> Refusal {
    match flaw {
        Flaw::Expired(..) => {
            let message = "The token included in the request is expired";
            Refusal::new("ExpiredTokenException", 400, message)
        }
        Flaw::Unreachable => {
            let message = "The cluster's keys cannot be had";
            Refusal::new("ServiceUnavailableException", 503, message)
        }
        Flaw::Malformed => invalid("the token cannot be parsed"),
        Flaw::Lacks(claim) => invalid(&format!("missing claim: {claim}")),
        Flaw::UnknownKey => invalid("no matching key found"),
        Flaw::Forged => invalid("the token's signature does not hold"),
        Flaw::Early => invalid("the token is not valid yet"),
    }
}
