//! The whole story, for a person to watch: `make demo`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::common::gateway::authority;
use crate::common::node::eks::{ACCOUNT, Eks, LOGS, OPERATOR_NAMESPACE, Way};
use crate::teams::{DOMAIN, SHOP, programs};

const APP: &str = include_str!("manifests/story.yaml");

/// How long the domain may let in whom it was told to shut out.
const PATIENCE: Duration = Duration::from_mins(1);

/// Says what happens next.
fn step(what: &str) {
    println!("\n==> {what}");
}

/// Tells it.
pub(crate) async fn tell(folder: &Path) -> Result<()> {
    let began = Instant::now();
    step(
        "A Kubernetes node (etcd, kube-apiserver, scheduler, controllers, containerd, kubelet), a fake AWS, and OpenSearch behind one of its domains",
    );
    let eks = Eks::start(folder, programs()).await?;
    eks.role("shop-api", Way::WebIdentity, "shop", "api");
    eks.role("shop-batch", Way::PodIdentity, "shop", "batch");
    let story = Story { eks };
    story.show(&["get", "nodes", "-o", "wide"]).await?;

    step(
        "kubectl apply --server-side -k deploy/kustomize/overlays/example: the operator, as it is installed",
    );
    story.eks.install().await?;
    story
        .show(&["get", "pods", "-n", OPERATOR_NAMESPACE])
        .await?;

    step(
        "kubectl apply: an admin's OpenSearchDomain, and a team's grant with the role that it maps to",
    );
    print!("{}", story.eks.node.apply(DOMAIN).await);
    print!("{}", story.eks.node.apply(SHOP).await);
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s"];
    story
        .show(&[&ready[..], &["opensearchdomain", LOGS]].concat())
        .await?;
    let all = ["domainaccess,domainrole", "--all", "-n", "shop"];
    story.show(&[&ready[..], &all].concat()).await?;
    story.show(&["get", "domainaccess", "-A"]).await?;

    step(
        "kubectl apply: the team's Deployment, with one annotation (opensearch-access.io/inject: logs)",
    );
    print!("{}", story.eks.node.apply(APP).await);
    let rolled = [
        "rollout",
        "status",
        "deployment/search",
        "-n",
        "shop",
        "--timeout=60s",
    ];
    story.show(&rolled).await?;
    let columns = "custom-columns=POD:.metadata.name,SIDECAR:.spec.initContainers[*].name,APP:.spec.containers[*].name,PHASE:.status.phase";
    story
        .show(&[
            "get",
            "pods",
            "-n",
            "shop",
            "-l",
            "app=search",
            "-o",
            columns,
        ])
        .await?;

    step("In the pod: curl, unsigned, to 127.0.0.1");
    let put = "curl -sS -X PUT 'http://127.0.0.1:9200/shop-orders/_doc/1?refresh=true' -H 'content-type: application/json' -d '{\"item\": \"lamp\"}'";
    let said = story.in_pod(put).await?;
    ensure!(said.contains("\"created\""), "it was not stored: {said}");
    let search = "curl -sS 'http://127.0.0.1:9200/shop-orders/_search?q=item:lamp'";
    let said = story.in_pod(search).await?;
    ensure!(said.contains("\"lamp\""), "it was not found: {said}");

    step("opensearch-access explain --cluster: why it may, and which manifest says so");
    story.explain("/shop-orders/_search")?;
    step("...and what it may not");
    story.explain("/payroll/_search")?;

    step("kubectl delete domainaccess apps -n shop: the team's grant is withdrawn");
    story
        .show(&[
            "delete",
            "domainaccess",
            "apps",
            "-n",
            "shop",
            "--timeout=60s",
        ])
        .await?;
    let look = "curl -sS -o /dev/null -D - 'http://127.0.0.1:9200/shop-orders/_search' | grep -iE '^(HTTP|x-opensearch-access-explained)'";
    let deadline = Instant::now() + PATIENCE;
    while !story.ask(look).await.contains(" 403 ") {
        ensure!(
            Instant::now() < deadline,
            "the pod is let in after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    story.in_pod(look).await?;

    let seconds = began.elapsed().as_secs();
    step(&format!(
        "Done, in {seconds} s. 'make world' leaves an API server, AWS and OpenSearch running, to try things by hand"
    ));
    Ok(())
}

struct Story {
    eks: Eks,
}

impl Story {
    /// Runs kubectl, and shows what it says.
    async fn show(&self, arguments: &[&str]) -> Result<()> {
        println!("$ kubectl {}", arguments.join(" "));
        let said = self.eks.node.kubectl(arguments).await;
        print!("{}", String::from_utf8_lossy(&said.stdout));
        eprint!("{}", String::from_utf8_lossy(&said.stderr));
        ensure!(said.status.success(), "kubectl failed: {}", said.status);
        Ok(())
    }

    /// Runs a shell's line in the team's pod, and shows both.
    async fn in_pod(&self, line: &str) -> Result<String> {
        println!("$ {line}");
        let said = self.ask(line).await;
        println!("{}", said.trim_end());
        Ok(said)
    }

    async fn ask(&self, line: &str) -> String {
        let exec = [
            "exec",
            "-n",
            "shop",
            "deploy/search",
            "-c",
            "app",
            "--",
            "sh",
            "-c",
            line,
        ];
        let said = self.eks.node.kubectl(&exec).await;
        let [out, errors] =
            [said.stdout, said.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        out + &errors
    }

    /// Has the program say what the team's role may do.
    fn explain(&self, path: &str) -> Result<()> {
        let [program, _] = programs();
        let (key, secret) = self.eks.aws.credentials(ACCOUNT);
        let role = format!("arn:aws:iam::{ACCOUNT}:role/shop-api");
        let action = "es:ESHttpGet";
        println!(
            "$ opensearch-access explain --cluster --domain {LOGS} --principal {role} --action {action} --path {path}"
        );
        let mut command = Command::new(program);
        command.args([
            "explain",
            "--cluster",
            "--domain",
            LOGS,
            "--operator-namespace",
            OPERATOR_NAMESPACE,
        ]);
        command.args(["--principal", &role, "--action", action, "--path", path]);
        command.arg("--domain-ca").arg(authority());
        let ran = command
            .env("KUBECONFIG", self.eks.node.kubeconfig())
            .env("AWS_ENDPOINT_URL", self.eks.aws.url())
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .status();
        let ran = ran.context("the program runs")?;
        ensure!(ran.success(), "explain failed: {ran}");
        Ok(())
    }
}
