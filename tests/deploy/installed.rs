//! Install, upgrade, uninstall and install again, by real helm on a real API server.

use std::fs;

use serde_json::{Value, json};

use crate::gitops;
use crate::render::{IMAGE, NAMESPACE, chart, project, text};
use crate::site::Site;

/// The objects of teams and admins.
const OBJECTS: &str = "opensearchdomains,domainaccesses";

/// What asks for a sidecar.
const ASKS: &str = "opensearch-access.io/inject";

fn helm(site: &Site, args: &[&str], values: &str) -> Result<String, String> {
    let chart = chart();
    release(site, args, chart.to_str().unwrap(), values)
}

fn release(site: &Site, args: &[&str], chart: &str, values: &str) -> Result<String, String> {
    let args = [
        args,
        &["opensearch-access", chart, "-n", NAMESPACE, "--values", "-"],
    ]
    .concat();
    site.run("helm", &args, &format!("{IMAGE}{values}"))
}

/// Copies the chart as an earlier version of it: one of its kinds had a field less.
fn earlier() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["--recursive", "--dereference"])
        .args([chart(), folder.path().join("chart")])
        .status();
    assert!(copied.unwrap().success());
    let file = folder.path().join("chart/files/crds/domaintenants.yaml");
    let kind = fs::read_to_string(&file).unwrap();
    let earlier = kind.replace("osdt", "tenant");
    assert_ne!(kind, earlier);
    fs::write(file, earlier).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_lives_through_upgrades_and_ends_without_a_trace_in_anyones_way() {
    let site = Site::start().await;
    site.namespace(NAMESPACE);
    site.namespace("search");
    install(&site);
    while_no_webhook_answers(&site);
    upgrade(&site);
    a_sidecar_that_lost_its_restart_policy_is_refused(&site);
    a_pod_that_went_without_is_told_of(&site);
    uninstall(&site);
}

fn install(site: &Site) {
    let earlier = earlier();
    let chart = earlier.path().join("chart");
    let said = release(site, &["install"], chart.to_str().unwrap(), "").unwrap();
    assert!(said.contains("helm uninstall` revokes nothing"), "{said}");
    site.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])
        .unwrap();
    site.eventually("the kinds are served", |site| {
        site.kubectl(&["get", OBJECTS]).is_ok()
    });
    let examples = project("deploy/examples");
    let examples = examples.to_str().unwrap();
    site.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        examples,
    ])
    .unwrap();
    // Who waits for a grant waits, although nobody has looked at it yet.
    let grants = site.get(&[OBJECTS, "--all-namespaces"]);
    gitops::assert_waits(grants["items"].as_array().unwrap());
    site.assert_own_pods_are_admitted(NAMESPACE);
    site.assert_rights_are_few(NAMESPACE);
}

fn while_no_webhook_answers(site: &Site) {
    let written = site.webhook_writes(NAMESPACE);
    assert_eq!(site.written(NAMESPACE), written);
    site.eventually(
        "who asks for a sidecar is told that there is none",
        |site| {
            let asked = site.create_pod("search", &json!({ASKS: "my-domain"}), &json!([]));
            asked.is_err_and(|it| {
                it.contains("failed calling webhook \"pods.opensearch-access.io\"")
            })
        },
    );
    for annotations in [
        json!(null),
        json!({}),
        json!({"opensearch-access.io/ports": "9201"}),
    ] {
        site.create_pod("search", &annotations, &json!([])).unwrap();
    }
    // Neither a mirror pod nor one of the operator's own namespace waits for it.
    site.create_pod(NAMESPACE, &json!({ASKS: "my-domain"}), &json!([]))
        .unwrap();
    // Teams grant, and revoke, without it.
    site.kubectl(&[
        "annotate",
        "domainaccess",
        "--all",
        "-n",
        "search",
        "example.com/a=b",
    ])
    .unwrap();
}

fn upgrade(site: &Site) {
    let written = site.written(NAMESPACE);
    let before = site.names(OBJECTS);
    helm(
        site,
        &["upgrade"],
        "log: {level: debug}\nwebhook: {failurePolicy: Ignore}",
    )
    .unwrap();
    assert_eq!(site.written(NAMESPACE), written);
    assert_eq!(site.names(OBJECTS), before);
    let webhook = site.get(&["deployment", "opensearch-access-webhook", "-n", NAMESPACE]);
    let variables = &webhook["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(
        variables
            .as_array()
            .unwrap()
            .contains(&json!({"name": "LOG_LEVEL", "value": "debug"}))
    );
    // Kinds follow the chart, too.
    let kind = site.get(&["crd", "domaintenants.opensearch-access.io"]);
    assert_eq!(kind["spec"]["names"]["shortNames"], json!(["osdt"]));
}

/// Now that a webhook that does not answer is passed by, the policy alone is asked.
fn a_sidecar_that_lost_its_restart_policy_is_refused(site: &Site) {
    let named = |name: &str, policy: Option<&str>| {
        let mut container = json!({"name": name, "image": "x"});
        if let Some(policy) = policy {
            container["restartPolicy"] = json!(policy);
        }
        json!([container])
    };
    let ours = "opensearch-access-proxy";
    let asks = json!({ASKS: "my-domain"});
    site.eventually("a sidecar that is an init container is refused", |site| {
        let created = site.create_pod("search", &asks, &named(ours, None));
        created.is_err_and(|it| it.contains("lost its restartPolicy Always"))
    });
    for (annotations, init) in [
        (asks.clone(), named(ours, Some("Always"))),
        (asks.clone(), named("other", None)),
        (asks, json!([])),
        (
            json!({ASKS: "my-domain", "opensearch-access.io/sidecar": "container"}),
            named(ours, None),
        ),
        (json!({}), named(ours, None)),
    ] {
        site.create_pod("search", &annotations, &init).unwrap();
    }
}

/// Where a webhook that does not answer is passed by, whoever makes a pod is warned.
fn a_pod_that_went_without_is_told_of(site: &Site) {
    let made = |annotations: Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "x-", "namespace": "default", "annotations": annotations},
            "spec": {"containers": [{"name": "app", "image": "app"}]}});
        let create = [
            "create",
            "--dry-run=server",
            "--warnings-as-errors",
            "-f",
            "-",
        ];
        site.run("kubectl", &create, &pod.to_string())
    };
    site.eventually("a pod without a sidecar is told of", |_| {
        made(json!({ASKS: "my-domain"})).is_err_and(|it| it.contains("has no signing proxy"))
    });
    made(json!({})).unwrap();
}

fn uninstall(site: &Site) {
    let (objects, kinds) = (site.names(OBJECTS), site.names("crd"));
    assert!(
        objects.len() >= 3 && kinds.len() == 5,
        "{objects:?} {kinds:?}"
    );
    site.run(
        "helm",
        &["uninstall", "opensearch-access", "-n", NAMESPACE],
        "",
    )
    .unwrap();
    let calls = "mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings";
    assert_eq!(site.names(calls), [""; 0]);
    let mine = "deployments,services,networkpolicies,poddisruptionbudgets,roles,rolebindings";
    let left = site.get(&[
        mine,
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/name=opensearch-access",
    ]);
    let left: Vec<_> = left["items"].as_array().unwrap().iter().collect();
    assert!(
        left.iter()
            .all(|it| !text(it, "/metadata/deletionTimestamp").is_empty()),
        "{left:?}"
    );
    assert_eq!(site.names(OBJECTS), objects);
    assert_eq!(site.names("crd"), kinds);
    site.eventually("who asks for a sidecar is let in without one", |site| {
        let asked = site.create_pod("search", &json!({ASKS: "my-domain"}), &json!([]));
        asked.is_ok()
    });
    // What was left is taken over again.
    helm(site, &["install"], "").unwrap();
    assert_eq!(site.names(OBJECTS), objects);
}
