//! A small EKS cluster that the operator is installed in: a whole node, and around it what AWS has.
//!
//! ```text
//!  pod ─ 127.0.0.1:9200 ─► sidecar ─ name, TLS ─► gateway (DOMAIN) ─► OpenSearch with its plugin
//!                             ├─ token ─► sts.….amazonaws.com (AWS) ─► fake AWS ─► the cluster's own keys
//!                             └─ token ─► agent (AGENT) ─────────────────┘
//!  pod identity webhook (stand-in) ─► pods     operator (installed from deploy/) ─► AWS, gateway
//! ```
//!
//! Pods find everything by the names that AWS has, and trust the certificates there by the bundle of the
//! operator's image, so that manifests are what a team and an admin would write.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::http::Request;
use axum::serve::Listener as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::super::fake_aws::{Agent, DomainOptions, FakeAws, NewAssociation};
use super::super::gateway::{Encrypted, Gateway, authority};
use super::super::opensearch::Node as Search;
use super::super::pod_identity_webhook::{Options, PodIdentityWebhook};
use super::image::{self, Operator};
use super::{AGENT, AWS, DOMAIN, WholeNode};

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";
/// As `deploy/kustomize/overlays/example` has it.
pub(crate) const CLUSTER: &str = "platform";
pub(crate) const OPERATOR_NAMESPACE: &str = "opensearch-platform";

/// The domain, for AWS and by its `OpenSearchDomain`.
pub(crate) const LOGS: &str = "logs";
const ENDPOINT: &str = "vpc-logs-abcdefghijklmnopqrstuvwxyz.eu-west-1.es.amazonaws.com";

/// The audience of tokens for STS.
const STS: &str = "sts.amazonaws.com";

/// How pods of a service account come to be a role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// IAM roles for service accounts: the annotation, and a token for STS.
    WebIdentity,
    /// EKS Pod Identity: an association, and a token for the agent.
    PodIdentity,
}

/// The cluster, gone when it is dropped.
pub(crate) struct Eks {
    pub(crate) node: WholeNode,
    pub(crate) aws: FakeAws,
    pub(crate) gateway: Gateway,
    pub(crate) search: Arc<Search>,
    pub(crate) identities: PodIdentityWebhook,
    pub(crate) operator: Operator,
    issuer: String,
    front: JoinHandle<()>,
    _agent: Agent,
}

impl Eks {
    /// Starts everything but the operator, which is known to the node as an image of these programs.
    pub(crate) async fn start(folder: &Path, programs: [PathBuf; 2]) -> Result<Self> {
        let aws = FakeAws::start().await;
        let options = DomainOptions::default().fine_grained().vpc("vpc-1");
        let account = aws.account(ACCOUNT).cluster(CLUSTER, REGION);
        let issuer = aws.issuer(ACCOUNT, REGION, CLUSTER);
        account
            .provider(&issuer, &[STS])
            .domain_with(LOGS, REGION, options);
        let names: [(&str, Ipv4Addr); 2] = [(ENDPOINT, DOMAIN), ("*.amazonaws.com", AWS)];
        let images = {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || {
                let [operator, proxy] = &programs;
                let app = image::app(&folder)?;
                let operator = image::operator(&folder, [operator, proxy], &authority())?;
                anyhow::Ok((app, operator))
            })
        };
        let (node, search, images) = tokio::join!(
            WholeNode::start(folder, &issuer, &names),
            Search::start(),
            images
        );
        let (node, (app, operator)) = (node?, images??);
        let search = Arc::new(search);
        node.import(&app).await?;
        node.import(&operator.tar).await?;
        let imported = format!("{}:test", image::OPERATOR);
        node.tag(&imported, &operator.reference()).await?;

        let keys = Request::get("/openid/v1/jwks").body(Vec::new())?;
        let keys: Value = node.client().request(keys).await?;
        aws.publish_keys(&issuer, &keys);
        let front = front(&aws).await?;
        let place = (DOMAIN, 443).into();
        let gateway = Gateway::open_at(place, ENDPOINT, &aws, LOGS, Arc::clone(&search)).await;
        let place = (AGENT, 80).into();
        let agent = aws.agent_at(place, ACCOUNT, REGION, CLUSTER).await;
        let options = Options::default().region(REGION);
        let identities = PodIdentityWebhook::install(node.client(), options).await;
        Ok(Self {
            node,
            aws,
            gateway,
            search,
            identities,
            operator,
            issuer,
            front,
            _agent: agent,
        })
    }

    /// Makes a role for a service account, and returns its ARN. The annotation is the manifest's.
    pub(crate) fn role(&self, role: &str, way: Way, namespace: &str, account: &str) -> String {
        let aws = self.aws.account(ACCOUNT).role(role);
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let issuer = self.issuer.trim_start_matches("https://");
        let statement = match way {
            Way::WebIdentity => json!({
                "Effect": "Allow",
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}")},
                "Condition": {"StringEquals": {
                    format!("{issuer}:aud"): STS,
                    format!("{issuer}:sub"): format!("system:serviceaccount:{namespace}:{account}"),
                }},
            }),
            Way::PodIdentity => json!({
                "Effect": "Allow",
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Condition": {"StringEquals": {
                    "aws:RequestTag/kubernetes-namespace": namespace,
                    "aws:RequestTag/kubernetes-service-account": account,
                }},
            }),
        };
        let document = json!({"Version": "2012-10-17", "Statement": [statement]});
        self.aws.set_trust(ACCOUNT, role, &document);
        if way == Way::PodIdentity {
            let new = NewAssociation {
                namespace: namespace.to_owned(),
                service_account: account.to_owned(),
                role: arn.clone(),
                target_role: None,
                policy: None,
            };
            aws.associate(REGION, CLUSTER, new);
            self.identities.associate(namespace, account);
        }
        arn
    }

    /// Installs the operator from the kustomize base, by an overlay that is the example's but for the
    /// image, and waits until its Deployments are available.
    pub(crate) async fn install(&self) -> Result<()> {
        let overlay = self.overlay()?;
        let overlay = overlay.to_str().context("a path in UTF-8")?;
        let apply = ["apply", "--server-side", "-k", overlay];
        self.node.kubectl_prints(&apply).await;
        let available = "--for=condition=Available";
        let wait = ["wait", available, "deployment", "--all", "--timeout=90s"];
        let waited = [&wait[..], &["-n", OPERATOR_NAMESPACE]].concat();
        let waited = self.node.kubectl(&waited).await;
        if !waited.status.success() {
            let what = ["describe", "pods", "-n", OPERATOR_NAMESPACE];
            let said = self.node.kubectl_prints(&what).await;
            let logs = ["-n", OPERATOR_NAMESPACE, "--prefix", "--tail=20"];
            let all = ["logs", "-l", "app.kubernetes.io/name=opensearch-access"];
            let logs = self.node.kubectl(&[&all[..], &logs].concat()).await;
            let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
            anyhow::bail!("the operator is not available:\n{said}\n{logs}");
        }
        Ok(())
    }

    /// Writes the overlay beside a copy of what it is over, since kustomize takes relative paths alone,
    /// and makes the role that the operator has by it.
    pub(crate) fn overlay(&self) -> Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copy = self.node.folder().join("install");
        fs::create_dir_all(copy.join("deploy"))?;
        for (from, to) in [("crds", "crds"), ("deploy/kustomize", "deploy/kustomize")] {
            let mut command = Command::new("cp");
            let copied = command.arg("-r").arg(root.join(from)).arg(copy.join(to));
            anyhow::ensure!(copied.status()?.success(), "failed to copy {from}");
        }
        let overlay = copy.join("deploy/kustomize/overlays/example");
        let file = overlay.join("kustomization.yaml");
        let mut text = fs::read_to_string(&file)?;
        let none = format!("sha256:{}", "0".repeat(64));
        let role = |name: &str| format!("role/{name}\"");
        for (example, here) in [
            ("registry.example/opensearch-access", image::OPERATOR),
            (&none, &self.operator.digest),
            // The one that the fake AWS lets manage domains.
            (&role("opensearch-access"), &role("operator")),
        ] {
            anyhow::ensure!(text.contains(example), "{example} is not in the example");
            text = text.replace(example, here);
        }
        fs::write(&file, text)?;
        let account = "opensearch-access-controller";
        self.role("operator", Way::WebIdentity, OPERATOR_NAMESPACE, account);
        Ok(overlay)
    }
}

impl Drop for Eks {
    fn drop(&mut self) {
        self.front.abort();
    }
}

/// Lets pods find the fake AWS by the names of AWS's services, by TLS.
async fn front(aws: &FakeAws) -> Result<JoinHandle<()>> {
    let (mut listener, _) = Encrypted::bind((AWS, 443).into()).await;
    let behind = aws.url().trim_start_matches("http://").to_owned();
    Ok(tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await;
            let behind = behind.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = TcpStream::connect(behind).await else {
                    return;
                };
                // Whoever ends first ends both; that is how connections end.
                tokio::io::copy_bidirectional(&mut stream, &mut connection)
                    .await
                    .ok();
            });
        }
    }))
}
