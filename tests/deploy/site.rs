//! A real API server that something is installed on.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::cluster::Cluster;
use crate::render::{run, text};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// The API server.
pub(crate) struct Site(Cluster);

/// What the webhook has written: its Secret's data, and the authorities that both configurations
/// name.
pub(crate) type Written = (Value, Vec<Value>);

impl Site {
    pub(crate) async fn start() -> Self {
        Self(Cluster::start().await)
    }

    /// Runs helm or kubectl as the administrator.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, String> {
        let kubeconfig = self.0.kubeconfig();
        let kubeconfig = ["--kubeconfig", kubeconfig.to_str().unwrap()];
        run(program, args.iter().copied().chain(kubeconfig), input)
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.run("kubectl", args, "")
    }

    /// Applies manifests as tools of `GitOps` do.
    pub(crate) fn apply(&self, manifests: &str) -> Result<String, String> {
        self.run("kubectl", &["apply", "--server-side", "-f", "-"], manifests)
    }

    /// Returns an object, or a list.
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        let args = [&["get", "-o", "json"], args].concat();
        serde_json::from_str(&self.kubectl(&args).unwrap()).unwrap()
    }

    /// Returns what kubectl calls objects, of some kinds and of any namespace.
    pub(crate) fn names(&self, kinds: &str) -> Vec<String> {
        let listed = self.kubectl(&["get", kinds, "--all-namespaces", "-o", "name"]);
        listed.unwrap().lines().map(str::to_owned).collect()
    }

    /// Makes a namespace that enforces `restricted`.
    pub(crate) fn namespace(&self, name: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, \
             labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))
        .unwrap();
    }

    /// Waits until what is asked of it is so.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(POLL);
        }
    }

    /// Creates a pod that the namespace admits, with annotations and init containers.
    pub(crate) fn create_pod(
        &self,
        namespace: &str,
        annotations: &Value,
        init: &Value,
    ) -> Result<String, String> {
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let mut init = init.clone();
        for container in init.as_array_mut().into_iter().flatten() {
            container["securityContext"] = context.clone();
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "x-", "namespace": namespace, "annotations": annotations},
            "spec": {"initContainers": init,
                "containers": [{"name": "app", "image": "app", "securityContext": context}]}});
        self.run("kubectl", &["create", "-f", "-"], &pod.to_string())
    }

    /// Creates a pod of each Deployment's template, as the Deployment's controller would.
    pub(crate) fn assert_own_pods_are_admitted(&self, namespace: &str) {
        let deployments = self.get(&["deployments", "--namespace", namespace]);
        let deployments = deployments["items"].as_array().unwrap();
        assert_eq!(deployments.len(), 2);
        for deployment in deployments {
            let mut pod = deployment["spec"]["template"].clone();
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["namespace"] = json!(namespace);
            pod["metadata"]["generateName"] = json!("own-");
            let created = self.run("kubectl", &["create", "-f", "-"], &pod.to_string());
            let created = created.unwrap();
            assert!(created.contains("created"), "{created}");
        }
        // The namespace does enforce.
        let lax = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "lax", "namespace": namespace},
            "spec": {"containers": [{"name": "app", "image": "app"}]}});
        let refused = self.run("kubectl", &["create", "-f", "-"], &lax.to_string());
        assert!(refused.unwrap_err().contains("restricted"));
    }

    /// Writes what the webhook writes, by the rights that its service account has.
    pub(crate) fn webhook_writes(&self, namespace: &str) -> Written {
        let who = format!("--as=system:serviceaccount:{namespace}:opensearch-access-webhook");
        let secret = "opensearch-access-webhook-certificate";
        let kept = self.kubectl(&["get", "secret", secret, "-n", namespace, "-o", "json", &who]);
        let mut kept: Value = serde_json::from_str(&kept.unwrap()).unwrap();
        assert!(kept["data"].is_null(), "{kept}");
        kept["data"] = json!({"certificates.json": STANDARD.encode("{}")});
        self.run("kubectl", &["replace", "-f", "-", &who], &kept.to_string())
            .unwrap();
        let authority = STANDARD.encode(std::fs::read(self.0.authority()).unwrap());
        let patch =
            json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": authority}]);
        for kind in KINDS_THAT_CALL {
            self.kubectl(&[
                "patch",
                kind,
                "opensearch-access",
                "--type=json",
                "-p",
                &patch.to_string(),
                &who,
            ])
            .unwrap();
        }
        let written = self.written(namespace);
        assert!(
            written.1.iter().all(|it| it == &json!(authority)),
            "{written:?}"
        );
        written
    }

    /// Returns what the webhook has written.
    pub(crate) fn written(&self, namespace: &str) -> Written {
        let secret = "opensearch-access-webhook-certificate";
        let secret = self.get(&["secret", secret, "--namespace", namespace]);
        let bundle = |kind: &str| {
            let configuration = self.get(&[kind, "opensearch-access"]);
            configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
        };
        (secret["data"].clone(), KINDS_THAT_CALL.map(bundle).to_vec())
    }

    /// Asks the API server what the service accounts may do that they must not.
    pub(crate) fn assert_rights_are_few(&self, namespace: &str) {
        let may = |who: &str, verb: &str, what: &str, of: &str| {
            let who = format!("--as=system:serviceaccount:{namespace}:opensearch-access-{who}");
            let asked = self.kubectl(&["auth", "can-i", verb, what, "-n", of, &who]);
            match asked.as_deref().map_err(String::as_str).map(str::trim) {
                Ok("yes") => true,
                Err(no) if no.trim_end().ends_with("no") => false,
                other => panic!("{other:?}"),
            }
        };
        let certificate = "secrets/opensearch-access-webhook-certificate";
        for who in ["controller", "webhook"] {
            for (verb, what) in [
                ("list", "secrets"),
                ("watch", "secrets"),
                ("get", "secrets"),
                ("create", "pods"),
                ("create", "pods/exec"),
                ("list", "pods"),
                ("create", "serviceaccounts/token"),
                ("update", "domainaccesses.opensearch-access.io"),
                ("create", "opensearchdomains.opensearch-access.io"),
                ("delete", "customresourcedefinitions.apiextensions.k8s.io"),
                (
                    "update",
                    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
                ),
                (
                    "patch",
                    "mutatingwebhookconfigurations.admissionregistration.k8s.io/other",
                ),
            ] {
                assert!(!may(who, verb, what, namespace), "{who}: {verb} {what}");
            }
            assert!(!may(who, "get", certificate, "default"), "{who}");
            assert!(!may(who, "update", "configmaps", "default"), "{who}");
        }
        assert!(may("webhook", "update", certificate, namespace));
        assert!(!may("controller", "get", certificate, namespace));
        assert!(may("controller", "update", "configmaps", namespace));
        assert!(!may("webhook", "get", "configmaps", namespace));
        assert!(!may(
            "webhook",
            "patch",
            "domainaccesses.opensearch-access.io/status",
            namespace
        ));
    }
}

/// The kinds of object by which the API server knows whom to call.
const KINDS_THAT_CALL: [&str; 2] = [
    "mutatingwebhookconfiguration",
    "validatingwebhookconfiguration",
];

/// Returns what tells one version of an object from the next.
pub(crate) fn version(object: &Value) -> String {
    let name = text(object, "/metadata/name");
    let version = text(object, "/metadata/resourceVersion");
    format!("{}/{name} {version}", text(object, "/kind"))
}
