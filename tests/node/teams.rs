//! The cluster with the operator, a domain, a team that was granted its indexes, and one that was not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::common::gateway::{Passed, plain_client};
use crate::common::node::eks::{Eks, LOGS, OPERATOR_NAMESPACE, Way};
use crate::common::opensearch::{MASTER, USER};

pub(crate) const DOMAIN: &str = include_str!("manifests/domain.yaml");
pub(crate) const SHOP: &str = include_str!("manifests/shop.yaml");
pub(crate) const API: &str = include_str!("manifests/api.yaml");
pub(crate) const REPORT: &str = include_str!("manifests/report.yaml");
pub(crate) const STRANGER: &str = include_str!("manifests/stranger.yaml");

/// What all cases share.
pub(crate) struct Teams {
    pub(crate) eks: Eks,
    api: OnceCell<()>,
    report: OnceCell<Pod>,
}

/// Returns the operator's programs of this build.
pub(crate) fn programs() -> [PathBuf; 2] {
    [
        env!("CARGO_BIN_EXE_opensearch-access"),
        env!("CARGO_BIN_EXE_opensearch-access-proxy"),
    ]
    .map(PathBuf::from)
}

impl Teams {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let eks = Eks::start(folder, programs()).await?;
        println!("the node is ready, AWS and OpenSearch are there");
        eks.role("shop-api", Way::WebIdentity, "shop", "api");
        eks.role("shop-batch", Way::PodIdentity, "shop", "batch");
        eks.role("stranger", Way::WebIdentity, "stranger", "api");
        eks.install().await?;
        println!("the operator is available");
        eks.node.apply(DOMAIN).await;
        eks.node.apply(SHOP).await;
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s"];
        for what in [
            &["opensearchdomain", LOGS][..],
            &["domainaccess,domainrole", "--all", "-n", "shop"],
        ] {
            let waited = eks.node.kubectl(&[&ready[..], what].concat()).await;
            if !waited.status.success() {
                let all = "opensearchdomain,domainaccess,domainrole";
                let get = ["get", all, "-A", "-o", "yaml"];
                anyhow::bail!("not Ready:\n{}", eks.node.kubectl_prints(&get).await);
            }
        }
        Ok(Self {
            eks,
            api: OnceCell::new(),
            report: OnceCell::new(),
        })
    }

    /// Returns the pod of the app `api`, which is deployed at the first call.
    pub(crate) async fn api(&self) -> Pod {
        let deploy = async || drop(self.eks.node.apply(API).await);
        self.api.get_or_init(deploy).await;
        self.ready_pod("shop", "api").await
    }

    /// Returns the pod of the Job `report` after its end; the Job is made at the first call.
    pub(crate) async fn report(&self) -> &Pod {
        let run = async || {
            self.eks.node.apply(REPORT).await;
            self.succeeded_pod("shop", "report").await
        };
        self.report.get_or_init(run).await
    }

    /// Asks OpenSearch itself, past everything.
    pub(crate) async fn stored(&self, path: &str) -> Value {
        let request = Request::get(format!("{}{path}", self.eks.search.url()))
            .header("x-forwarded-for", "127.0.0.1")
            .header(USER, MASTER)
            .body(Body::empty())
            .unwrap();
        let answer = plain_client().request(request).await.unwrap();
        let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await;
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    /// Returns how many documents a query of an index finds; none where there is no index yet.
    pub(crate) async fn count(&self, index: &str, query: &str) -> u64 {
        let counted = self.stored(&format!("/{index}/_count?q={query}")).await;
        counted["count"].as_u64().unwrap_or_default()
    }

    /// Returns what a person would look at first where a case has failed.
    pub(crate) async fn state(&self) -> String {
        let mut text = String::new();
        let operator = "app.kubernetes.io/name=opensearch-access";
        for look in [
            "get pods -A -o wide".to_owned(),
            "get events -A --sort-by=.metadata.creationTimestamp".to_owned(),
            format!("logs -n {OPERATOR_NAMESPACE} -l {operator} --prefix --tail=20"),
        ] {
            let arguments: Vec<&str> = look.split(' ').collect();
            let said = self.eks.node.kubectl(&arguments).await;
            let said = String::from_utf8_lossy(&said.stdout);
            writeln!(text, "--- kubectl {look}\n{said}").ok();
        }
        text
    }

    /// Returns the requests for an index that came to the domain.
    pub(crate) fn asked(&self, index: &str) -> Vec<Passed> {
        let begin = format!("/{index}/");
        let passed = self.eks.gateway.passed().into_iter();
        passed.filter(|it| it.path.starts_with(&begin)).collect()
    }
}
