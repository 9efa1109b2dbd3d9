//! Keeps the certificates: made here, and kept in a Secret and in both configurations; or made by
//! somebody else, such as cert-manager, and read out of a folder.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::{ByteString, ClusterResourceScope};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

use super::certificate::{State, Timing};
use super::metrics::Metrics;
use crate::api::name::FIELD_MANAGER;
use crate::runtime::admin::Readiness;
use crate::runtime::said::Said;

/// The longest between two looks.
const LOOKS: Duration = Duration::from_secs(10);

/// The shortest.
const HASTE: Duration = Duration::from_millis(100);

/// ...and after one that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long before its end a certificate is good for nothing any more.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// The key of the Secret that has the state.
const STATE: &str = "certificates.json";

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// It is made here.
    Own(Own),
    /// Somebody else makes it, into `tls.crt` and `tls.key` of a folder.
    Folder(PathBuf),
}

/// A certificate that is made here.
#[derive(Debug, Clone)]
pub struct Own {
    /// The Secret, in the operator's namespace; it has to exist.
    pub secret: String,
    /// The name of the two webhook configurations that name its authority.
    pub configuration: String,
    /// The names that the API server calls.
    pub names: Vec<String>,
    /// How long a certificate holds.
    pub lifetime: SignedDuration,
    /// How old it is when the next one is made.
    pub renewal: SignedDuration,
}

impl Own {
    fn timing(&self) -> Timing {
        Timing {
            lifetime: self.lifetime,
            renewal: self.renewal,
            settling: (self.renewal / 3).min(SignedDuration::from_mins(1)),
        }
    }
}

/// The certificate that is served.
#[derive(Debug, Default)]
pub(super) struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Served {
    fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

/// What keeps the certificates.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) source: Source,
    pub(super) served: Arc<Served>,
    /// Ready while there is a certificate that holds.
    pub(super) ready: Readiness,
    pub(super) metrics: Arc<Metrics>,
}

/// What was served last, and until when.
#[derive(Default)]
struct Last {
    certificate: String,
    ends: Option<Timestamp>,
}

impl Last {
    /// Tells whether the API server would take what is served, and will for a while.
    fn holds(&self, now: Timestamp) -> bool {
        let left = |it: Timestamp| it.duration_since(now) > MARGIN;
        self.ends.is_some_and(left)
    }
}

impl Keeper {
    /// Keeps them; never ends.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut last = Last::default();
        let wait = match &self.source {
            Source::Own(own) => {
                let settling = own.timing().settling.unsigned_abs();
                (settling / 4).clamp(HASTE, LOOKS)
            }
            Source::Folder(_) => LOOKS,
        };
        let mut told = String::new();
        loop {
            let looked = match &self.source {
                Source::Own(own) => self.look(own, &mut last).await,
                Source::Folder(folder) => self.read(folder, &mut last),
            };
            let is_done = looked.is_ok();
            match looked {
                Ok(()) => told.clear(),
                Err(error) => {
                    let error = format!("{error:#}");
                    if error != told {
                        warn!("the certificate could not be looked after: {error}");
                    }
                    told = error;
                }
            }
            self.ready.set(last.holds(Timestamp::now()));
            // What is being installed is there in a moment.
            sleep(if is_done { wait } else { wait.min(RETRY) }).await;
        }
    }

    /// Looks at the state, names its authorities, and takes the step that is due.
    async fn look(&self, own: &Own, last: &mut Last) -> anyhow::Result<()> {
        let (secret, names, timing) = (&own.secret, &own.names, own.timing());
        // Before the state: whoever knows of a newer one than is read then has changed them since, and
        // is not written over.
        let configurations = self.configurations(&own.configuration).await;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let kept = secrets.get(secret).await;
        let mut kept = kept.map_err(said(&format!("failed to read Secret {secret}")))?;
        let found = kept.data.as_ref().and_then(|it| it.get(STATE));
        let state = found.and_then(|it| match serde_json::from_slice::<State>(&it.0) {
            Ok(state) => Some(state),
            Err(error) => {
                warn!(%error, "Secret {secret} holds no certificates that can be read: new ones are made");
                None
            }
        });
        let now = Timestamp::now();
        let state = if let Some(state) = state {
            state
        } else {
            let first = State::first(names, timing, now).context("no certificate can be made")?;
            kept = self.store(&secrets, kept, &first).await?;
            first
        };
        self.serve(&state, last)?;
        let announced = match configurations {
            Ok(found) => self.announce(&found, &state.bundle()).await,
            Err(error) => Err(error),
        };
        let now = Timestamp::now();
        let next = state
            .step(names, announced.is_ok(), timing, now)
            .context("no certificate can be made")?;
        if let Some(next) = next {
            self.store(&secrets, kept, &next).await?;
            // What is promoted was announced, and is served without another look.
            self.serve(&next, last)?;
        }
        announced
    }

    /// Stores the state, unless somebody else has stored one meanwhile: that is looked at next.
    async fn store(
        &self,
        secrets: &Api<Secret>,
        mut kept: Secret,
        state: &State,
    ) -> anyhow::Result<Secret> {
        let text = serde_json::to_vec(state)?;
        kept.data
            .get_or_insert_default()
            .insert(STATE.to_owned(), ByteString(text));
        let name = kept.name_any();
        let stored = secrets.replace(&name, &PostParams::default(), &kept).await;
        stored.map_err(said(&format!("failed to write Secret {name}")))
    }

    fn serve(&self, state: &State, last: &mut Last) -> anyhow::Result<()> {
        let pair = &state.current;
        self.take(&pair.certificate, &pair.key, pair.ends, last)
    }

    fn read(&self, folder: &Path, last: &mut Last) -> anyhow::Result<()> {
        let read = |name: &str| {
            let file = folder.join(name);
            std::fs::read_to_string(&file)
                .with_context(|| format!("failed to read {}", file.display()))
        };
        let (certificate, key) = (read("tls.crt")?, read("tls.key")?);
        if certificate == last.certificate {
            return Ok(());
        }
        let ends = ends_of(&certificate, Timestamp::now())?;
        self.take(&certificate, &key, ends, last)
    }

    /// Serves a certificate from now on.
    fn take(
        &self,
        certificate: &str,
        key: &str,
        ends: Timestamp,
        last: &mut Last,
    ) -> anyhow::Result<()> {
        if certificate == last.certificate {
            return Ok(());
        }
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the key is no PEM")?;
        let key = any_supported_type(&key).context("the key cannot be used")?;
        let certified = CertifiedKey::new(chain.context("the certificate is no PEM")?, key);
        certified
            .keys_match()
            .context("the key is not the certificate's")?;
        self.served.set(Arc::new(certified));
        self.metrics.serves(ends);
        info!(%ends, "a certificate is served");
        *last = Last {
            certificate: certificate.to_owned(),
            ends: Some(ends),
        };
        Ok(())
    }

    async fn configurations(&self, name: &str) -> anyhow::Result<Configurations> {
        Ok(Configurations {
            mutating: self.configuration(name).await?,
            validating: self.configuration(name).await?,
        })
    }

    async fn configuration<K>(&self, name: &str) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let found = Api::<K>::all(self.client.clone()).get(name).await;
        found.map_err(said(&unnamed::<K>(name)))
    }

    /// Has both configurations name the authorities.
    async fn announce(&self, found: &Configurations, bundle: &str) -> anyhow::Result<()> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let Configurations {
            mutating,
            validating,
        } = found;
        let hooks = mutating.webhooks.iter().flatten();
        self.announce_in(mutating, hooks.map(|it| &it.client_config), &bundle)
            .await?;
        let hooks = validating.webhooks.iter().flatten();
        self.announce_in(validating, hooks.map(|it| &it.client_config), &bundle)
            .await
    }

    /// Has a configuration name the authorities, wherever it names others.
    async fn announce_in<K>(
        &self,
        found: &K,
        callers: impl Iterator<Item = &WebhookClientConfig>,
        bundle: &ByteString,
    ) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let stale = callers.enumerate();
        let stale = stale.filter(|(_, it)| it.ca_bundle.as_ref() != Some(bundle));
        let changes = stale.map(|(at, _)| {
            let path = format!("/webhooks/{at}/clientConfig/caBundle");
            json!({"op": "add", "path": path, "value": bundle})
        });
        let changes = changes.collect();
        let written = write(&Api::all(self.client.clone()), found, changes).await;
        written.map_err(said(&unnamed::<K>(&found.name_any())))
    }
}

/// Whom the API server calls, and by whose authority.
struct Configurations {
    mutating: MutatingWebhookConfiguration,
    validating: ValidatingWebhookConfiguration,
}

/// Says what did not come about.
fn unnamed<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("failed to name the authority in {} {name}", K::kind(&()))
}

/// Reads when a certificate ends, if it has begun.
fn ends_of(certificate: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let first = CertificateDer::from_pem_slice(certificate.as_bytes());
    let first = first.context("the certificate is no PEM")?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&first).context("the certificate cannot be read")?;
    let begins = parsed.validity().not_before.timestamp();
    ensure!(
        begins <= now.as_second(),
        "the certificate does not hold yet"
    );
    let ends = parsed.validity().not_after.timestamp();
    Timestamp::from_second(ends).context("the certificate's end is no time")
}

/// Changes a configuration, as long as it is what was looked at.
async fn write<K>(api: &Api<K>, found: &K, mut changes: Vec<Value>) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if changes.is_empty() {
        return Ok(());
    }
    let version = found.meta().resource_version.clone();
    let same = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    changes.insert(0, same);
    let changes = serde_json::from_value(Value::Array(changes));
    let changes = changes.map_err(kube::Error::SerdeError)?;
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(&found.name_any(), &parameters, &Patch::<()>::Json(changes))
        .await?;
    Ok(())
}

/// Puts an answer of the API server into words.
fn said(context: &str) -> impl Fn(kube::Error) -> anyhow::Error {
    let context = context.to_owned();
    move |error| anyhow::anyhow!("{context}: {}", Said(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt;
    use kube::client::Body;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: i32, until: i32) -> String {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    /// An API server with both configurations and the Secret. Once the Secret was read somebody else
    /// names a newer authority, as a replica does that goes on while this one stands still.
    #[derive(Clone)]
    struct Server {
        secret: Value,
        /// The version and the bundle of each configuration.
        named: Arc<Mutex<(u32, Value)>>,
    }

    impl Server {
        fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
            let mut named = self.named.lock().unwrap();
            if path.ends_with("/secrets/kept") {
                assert_eq!(method, "GET", "nothing is due");
                *named = (2, json!("bmV3ZXI="));
                return (200, self.secret.clone());
            }
            if method == "PATCH" {
                let changes: Value = serde_json::from_slice(body).unwrap();
                if changes[0]["value"] != json!(named.0.to_string()) {
                    let said = json!({"status": "Failure", "message": "test failed", "code": 422});
                    return (422, said);
                }
                *named = (named.0 + 1, changes[1]["value"].clone());
            }
            let hook = json!({"name": "pods.opensearch-access.io", "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "clientConfig": {"caBundle": named.1}});
            let metadata = json!({"name": "hooks", "resourceVersion": named.0.to_string()});
            (200, json!({"metadata": metadata, "webhooks": [hook]}))
        }
    }

    #[tokio::test]
    async fn an_authority_that_was_named_meanwhile_is_not_forgotten() {
        let own = Own {
            secret: "kept".to_owned(),
            configuration: "hooks".to_owned(),
            names: vec!["a.example".to_owned()],
            lifetime: SignedDuration::from_hours(30),
            renewal: SignedDuration::from_hours(20),
        };
        let state = State::first(&own.names, own.timing(), Timestamp::now()).unwrap();
        let data = ByteString(serde_json::to_vec(&state).unwrap());
        let server = Server {
            secret: json!({"metadata": {"name": "kept"}, "data": {STATE: data}}),
            named: Arc::new(Mutex::new((1, json!("b2xkZXI=")))),
        };
        let named = Arc::clone(&server.named);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = server.answer(head.method.as_str(), head.uri.path(), &body);
                let answer = Body::from(answer.to_string().into_bytes());
                http::Response::builder().status(status).body(answer)
            }
        });
        let keeper = Keeper {
            client: Client::new(service, "default"),
            namespace: "default".to_owned(),
            source: Source::Own(own.clone()),
            served: Arc::default(),
            ready: Readiness::default(),
            metrics: Arc::new(Metrics::new()),
        };
        let mut last = Last::default();
        assert!(keeper.look(&own, &mut last).await.is_err());
        assert_eq!(named.lock().unwrap().1, json!("bmV3ZXI="));
        // It serves what it knows, and goes on from there.
        assert!(last.holds(Timestamp::now()));
    }

    #[test]
    fn readiness_ends_before_the_certificate_does() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let ends = ends_of(&certificate(2026, 2027), now).unwrap();
        assert_eq!(ends, "2027-01-01T00:00:00Z".parse().unwrap());
        let last = Last {
            ends: Some(ends),
            ..Last::default()
        };
        assert!(last.holds(now));
        assert!(!last.holds(ends - MARGIN));
        assert!(!last.holds(ends + MARGIN));
        assert!(!Last::default().holds(now));
        assert!(ends_of(&certificate(2027, 2028), now).is_err(), "not yet");
    }
}
