//! The kustomizations by real kubectl on a real API server, and every manifest by kubeconform with
//! that server's schemas.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::render::{ALL, IMAGE, NAMESPACE, documents, helm, kustomize, project, run, text};
use crate::schemas;
use crate::site::{Site, version};

/// The namespace of the example.
const PLATFORM: &str = "opensearch-platform";

/// What an installation by kustomize consists of, but for the namespace with the operator's record,
/// and the kinds: what a user deletes to be rid of it, as the README says.
const REMOVED: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations,\
    validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings,\
    deployments,services,networkpolicies,poddisruptionbudgets,roles,rolebindings,serviceaccounts,secrets";

#[tokio::test(flavor = "multi_thread")]
async fn what_kustomize_makes_installs_upgrades_and_goes() {
    let site = Site::start().await;
    let overlay = kustomize(&project("deploy/kustomize/overlays/example"));
    site.apply(&overlay).unwrap();
    site.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])
        .unwrap();
    site.assert_own_pods_are_admitted(PLATFORM);
    site.assert_rights_are_few(PLATFORM);
    let written = site.webhook_writes(PLATFORM);

    // The same again changes nothing.
    let everything = |site: &Site| {
        let all = site.get(&[&format!("{REMOVED},namespaces,crds"), "--all-namespaces"]);
        let all = all["items"].as_array().unwrap().clone();
        all.iter().map(version).collect::<BTreeSet<_>>()
    };
    let before = everything(&site);
    site.apply(&overlay).unwrap();
    assert_eq!(everything(&site), before);

    // Another version changes what it has to, and nothing that the webhook wrote.
    let digest = "1".repeat(64);
    site.apply(&overlay.replace(&"0".repeat(64), &digest))
        .unwrap();
    assert_eq!(site.written(PLATFORM), written);
    let webhook = site.get(&["deployment", "opensearch-access-webhook", "-n", PLATFORM]);
    let container = &webhook["spec"]["template"]["spec"]["containers"][0];
    let image = format!("registry.example/opensearch-access@sha256:{digest}");
    assert_eq!(container["image"], image);
    let told = container["env"].as_array().unwrap().iter();
    let mut told = told.filter(|it| it["name"] == "PROXY_IMAGE");
    assert_eq!(told.next().unwrap()["value"], image);

    let manifests = manifests();
    judge(&site, &manifests);

    let label = "app.kubernetes.io/name=opensearch-access";
    site.kubectl(&["delete", REMOVED, "-A", "-l", label, "--wait=false"])
        .unwrap();
    let calls = "mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings";
    assert_eq!(site.names(calls), [""; 0]);
    assert_eq!(site.names("crds").len(), 5);
}

/// Returns every manifest that `deploy/` makes of kinds that the API server knows, and how many
/// others there are of each group.
fn manifests() -> String {
    let mut all = vec![
        helm(IMAGE, NAMESPACE).unwrap(),
        helm(ALL, NAMESPACE).unwrap(),
        kustomize(&project("deploy/kustomize/overlays/example")),
    ];
    for folder in [
        "deploy/examples",
        "deploy/examples-fine-grained",
        "deploy/options",
    ] {
        for entry in std::fs::read_dir(project(folder)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            all.push(text);
        }
    }
    all.join("\n---\n")
}

/// Has kubeconform judge manifests by the schemas of the API server.
fn judge(site: &Site, manifests: &str) {
    let folder = tempfile::tempdir().unwrap();
    let raw = |path: &str| -> Value {
        let text = site.kubectl(&["get", "--raw", path]).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let groups: BTreeSet<String> = documents(manifests)
        .iter()
        .map(|it| text(it, "/apiVersion").to_owned())
        .collect();
    let index = raw("/openapi/v3");
    let mut known = 0;
    for group in &groups {
        let path = if group.contains('/') {
            format!("apis/{group}")
        } else {
            format!("api/{group}")
        };
        if index["paths"][&path].is_object() {
            schemas::write(&raw(&format!("/openapi/v3/{path}")), folder.path());
            known += 1;
        }
    }
    // Of others' kinds, which this server does not have, only that they are YAML is judged.
    let others = ["cert-manager.io/v1", "monitoring.coreos.com/v1"];
    assert_eq!(groups.len() - known, others.len(), "{groups:?}");
    let layout = folder.path().join(schemas::LAYOUT);
    let judged = |manifests: &str| {
        let skip = "Certificate,Issuer,ServiceMonitor,PodMonitor,PrometheusRule";
        let args = [
            "-strict",
            "-summary",
            "-verbose",
            "-skip",
            skip,
            "-schema-location",
        ];
        let args = args.into_iter().chain([layout.to_str().unwrap()]);
        run("kubeconform", args, manifests)
    };
    let said = judged(manifests).unwrap();
    assert!(said.contains("Invalid: 0, Errors: 0, Skipped: 7"), "{said}");

    // It does see what is wrong.
    for (right, wrong) in [
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("replicas: 2", "replicas: two"),
        ("\n  domainRef:", "\n  domainReference:"),
        ("failurePolicy: Ignore", "failurePolicies: Ignore"),
    ] {
        assert!(manifests.contains(right), "{right}");
        let said = judged(&manifests.replacen(right, wrong, 1));
        assert!(said.is_err_and(|it| it.contains("invalid")), "{wrong}");
    }
}
