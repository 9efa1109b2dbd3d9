//! A stand-in of aws/amazon-eks-pod-identity-webhook: the same mutations, by the same rules.
//!
//! ```text
//!  API server ─TLS─► review ─► an association of the service account? ─► Pod Identity's variables, mount
//!                                        its annotation `role-arn`? ───► IRSA's
//! ```
//!
//! Every container and init container that the pod has at that moment gets them, unless it says one of
//! the variables itself; Pod Identity goes before IRSA. As the real one, it replaces the whole lists,
//! and is installed to be ignored where it fails.
//!
//! # Caveats
//!
//! The real one knows service accounts from a watch, and associations from a file that EKS keeps; this
//! one asks the API server each time, and is told of associations by the test.

#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::gateway::{Encrypted, Peer, authority};

/// Where a pod finds the agent of EKS Pod Identity.
pub(crate) const AGENT: &str = "http://169.254.170.23/v1/credentials";

const SKIPPED: &str = "eks.amazonaws.com/skip-containers";
const ROLE: &str = "eks.amazonaws.com/role-arn";
const AUDIENCE: &str = "eks.amazonaws.com/audience";
const EXPIRATION: &str = "eks.amazonaws.com/token-expiration";
const REGIONAL: &str = "eks.amazonaws.com/sts-regional-endpoints";

/// What a container that says who it is says.
const IDENTITY: [&str; 4] = [
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// How the webhook is installed, and what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    name: String,
    region: String,
    agent: String,
    is_reinvoked: bool,
    drops_restart_policy: bool,
}

impl Default for Options {
    /// As EKS has it, in `eu-west-1`.
    fn default() -> Self {
        Self {
            name: "pod-identity-webhook".to_owned(),
            region: "eu-west-1".to_owned(),
            agent: AGENT.to_owned(),
            is_reinvoked: true,
            drops_restart_policy: false,
        }
    }
}

impl Options {
    /// Sets the configuration's name, by which the API server puts webhooks in order.
    pub(crate) fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Sets the region that pods are told.
    pub(crate) fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// Sets where pods are told that the agent is.
    pub(crate) fn agent(mut self, url: &str) -> Self {
        url.clone_into(&mut self.agent);
        self
    }

    /// Lets it be asked once a pod, whatever others change after it, as some of EKS's are.
    pub(crate) fn never_reinvoked(mut self) -> Self {
        self.is_reinvoked = false;
        self
    }

    /// Has it know nothing of native sidecars, as releases before 0.5.3 do: it drops what makes one
    /// (aws/amazon-eks-pod-identity-webhook#208).
    pub(crate) fn drops_restart_policy(mut self) -> Self {
        self.drops_restart_policy = true;
        self
    }
}

/// A webhook that answers until it is dropped.
pub(crate) struct PodIdentityWebhook {
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

struct Inner {
    options: Options,
    client: Client,
    /// Namespaces and service accounts with a Pod Identity association.
    associated: Mutex<BTreeSet<(String, String)>>,
    /// Namespaces of the pods that were reviewed, in their order.
    reviewed: Mutex<Vec<String>>,
}

impl PodIdentityWebhook {
    /// Starts it on the loopback interface, and installs it for all pods.
    ///
    /// # Panics
    ///
    /// When there is one of that name already.
    pub(crate) async fn install(client: Client, options: Options) -> Self {
        let (listener, address) = Encrypted::bind((Ipv4Addr::LOCALHOST, 0).into()).await;
        let inner = Arc::new(Inner {
            options,
            client,
            associated: Mutex::default(),
            reviewed: Mutex::default(),
        });
        let service = Router::new()
            .route("/mutate", post(serve))
            .with_state(Arc::clone(&inner))
            .into_make_service_with_connect_info::<Peer>();
        let server = tokio::spawn(async move {
            axum::serve(listener, service).await.unwrap();
        });
        let url = format!("https://127.0.0.1:{}/mutate", address.port());
        let configuration = configuration(&inner.options, &url);
        let api = Api::<MutatingWebhookConfiguration>::all(inner.client.clone());
        let made = api.create(&PostParams::default(), &configuration).await;
        made.expect("there is none of that name");
        Self { inner, server }
    }

    /// Says that a service account has a Pod Identity association.
    pub(crate) fn associate(&self, namespace: &str, service_account: &str) {
        let mut associated = lock(&self.inner.associated);
        associated.insert((namespace.to_owned(), service_account.to_owned()));
    }

    /// Returns how many pods of a namespace were reviewed, each as often as it was.
    pub(crate) fn reviews(&self, namespace: &str) -> usize {
        let reviewed = lock(&self.inner.reviewed);
        reviewed.iter().filter(|it| *it == namespace).count()
    }

    /// Takes it out of the cluster.
    pub(crate) async fn uninstall(self) {
        let api = Api::<MutatingWebhookConfiguration>::all(self.inner.client.clone());
        let name = &self.inner.options.name;
        let gone = api.delete(name, &DeleteParams::default()).await;
        gone.expect("it was installed");
    }
}

impl Drop for PodIdentityWebhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configuration(options: &Options, url: &str) -> MutatingWebhookConfiguration {
    let trusted = fs::read(authority()).expect("the certificate was written");
    let again = if options.is_reinvoked {
        "IfNeeded"
    } else {
        "Never"
    };
    let configuration = json!({
        "metadata": {"name": options.name},
        "webhooks": [{
            "name": "iam-for-pods.amazonaws.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(trusted)},
            "failurePolicy": "Ignore",
            "reinvocationPolicy": again,
            "sideEffects": "None",
            "objectSelector": {"matchExpressions": [
                {"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"},
            ]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"], "scope": "*"}],
        }],
    });
    serde_json::from_value(configuration).expect("it is one")
}

async fn serve(State(inner): State<Arc<Inner>>, review: Bytes) -> impl IntoResponse {
    let review: Value = serde_json::from_slice(&review).expect("the API server sends JSON");
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let namespace = request["namespace"].as_str().unwrap_or_default();
    lock(&inner.reviewed).push(namespace.to_owned());
    let patch = inner.patch(namespace, &request["object"]).await;
    if !patch.is_empty() {
        let patch = Value::Array(patch).to_string();
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(BASE64_STANDARD.encode(patch));
    }
    let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
    review["response"] = response;
    ([(CONTENT_TYPE, "application/json")], review.to_string())
}

/// What a pod's containers are told.
struct Told {
    variables: Vec<(&'static str, String)>,
    volume: Value,
    mount: Value,
}

impl Inner {
    async fn patch(&self, namespace: &str, pod: &Value) -> Vec<Value> {
        let account = pod["spec"]["serviceAccountName"].as_str();
        let account = account.unwrap_or("default");
        let key = (namespace.to_owned(), account.to_owned());
        let is_associated = lock(&self.associated).contains(&key);
        let told = if is_associated {
            self.pod_identity()
        } else {
            let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
            let account = accounts.get_opt(account).await.ok().flatten();
            let Some(told) = account.and_then(|it| self.web_identity(&it)) else {
                return Vec::new();
            };
            told
        };
        let skipped = pod["metadata"]["annotations"][SKIPPED].as_str();
        let skipped: Vec<&str> = skipped
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .collect();
        let mut patch: Vec<Value> = told.volume(pod).into_iter().collect();
        for list in ["containers", "initContainers"] {
            let Some(containers) = pod["spec"][list].as_array() else {
                continue;
            };
            let containers = containers.iter().map(|it| {
                let is_skipped = skipped.contains(&it["name"].as_str().unwrap_or_default());
                let mut it = if is_skipped {
                    it.clone()
                } else {
                    told.tell(it)
                };
                if self.options.drops_restart_policy {
                    it.as_object_mut().map(|it| it.remove("restartPolicy"));
                }
                it
            });
            let containers: Vec<Value> = containers.collect();
            patch.push(json!({"op": "add", "path": format!("/spec/{list}"), "value": containers}));
        }
        patch
    }

    fn web_identity(&self, account: &ServiceAccount) -> Option<Told> {
        let annotations = account.annotations();
        let role = annotations.get(ROLE)?;
        let folder = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
        let audience = annotations
            .get(AUDIENCE)
            .map_or("sts.amazonaws.com", |it| it);
        let expiration = annotations.get(EXPIRATION).and_then(|it| it.parse().ok());
        let mut variables = self.regions();
        if annotations.get(REGIONAL).is_none_or(|it| it == "true") {
            variables.insert(0, ("AWS_STS_REGIONAL_ENDPOINTS", "regional".to_owned()));
        }
        variables.extend([
            ("AWS_ROLE_ARN", role.clone()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", format!("{folder}/token")),
        ]);
        Some(Told {
            variables,
            volume: token_volume("aws-iam-token", audience, expiration, "token"),
            mount: json!({"name": "aws-iam-token", "mountPath": folder, "readOnly": true}),
        })
    }

    fn pod_identity(&self) -> Told {
        let (name, folder) = (
            "eks-pod-identity-token",
            "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
        );
        let mut variables = self.regions();
        variables.insert(0, ("AWS_STS_REGIONAL_ENDPOINTS", "regional".to_owned()));
        variables.extend([
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                self.options.agent.clone(),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                format!("{folder}/{name}"),
            ),
        ]);
        Told {
            variables,
            volume: token_volume(name, "pods.eks.amazonaws.com", None, name),
            mount: json!({"name": name, "mountPath": folder, "readOnly": true}),
        }
    }

    fn regions(&self) -> Vec<(&'static str, String)> {
        ["AWS_DEFAULT_REGION", "AWS_REGION"]
            .map(|it| (it, self.options.region.clone()))
            .to_vec()
    }
}

impl Told {
    /// Adds the volume, unless an earlier review did.
    fn volume(&self, pod: &Value) -> Option<Value> {
        let volumes = pod["spec"]["volumes"].as_array();
        let volumes = volumes.map(Vec::as_slice).unwrap_or_default();
        if volumes.iter().any(|it| it["name"] == self.volume["name"]) {
            None
        } else if volumes.is_empty() {
            Some(json!({"op": "add", "path": "/spec/volumes", "value": [self.volume]}))
        } else {
            Some(json!({"op": "add", "path": "/spec/volumes/0", "value": self.volume}))
        }
    }

    /// Tells a container what it does not say itself; one that says who it is keeps all of it.
    fn tell(&self, container: &Value) -> Value {
        let mut container = container.clone();
        let listed = |container: &Value, list: &str| -> Vec<Value> {
            container[list].as_array().cloned().unwrap_or_default()
        };
        let mut variables = listed(&container, "env");
        let says = |variables: &[Value], name: &str| variables.iter().any(|it| it["name"] == name);
        let mut own = self.variables.iter().map(|(name, _)| name);
        if own.any(|name| IDENTITY.contains(name) && says(&variables, name)) {
            return container;
        }
        for (name, value) in &self.variables {
            if !says(&variables, name) {
                variables.push(json!({"name": name, "value": value}));
            }
        }
        container["env"] = Value::Array(variables);
        let mut mounts = listed(&container, "volumeMounts");
        if !mounts.iter().any(|it| it["name"] == self.mount["name"]) {
            mounts.push(self.mount.clone());
        }
        container["volumeMounts"] = Value::Array(mounts);
        container
    }
}

fn token_volume(name: &str, audience: &str, expiration: Option<u32>, path: &str) -> Value {
    json!({"name": name, "projected": {"sources": [{"serviceAccountToken": {
        "audience": audience, "expirationSeconds": expiration.unwrap_or(86_400), "path": path}}]}})
}
