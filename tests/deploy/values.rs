//! Values that cannot be meant are refused, with words; the others do what they say.

use serde_json::{Value, json};

use crate::render::{ALL, IMAGE, NAMESPACE, documents, helm, identity};

/// Returns a container of a rendered Deployment.
fn container(values: &str, deployment: &str) -> Value {
    let objects = documents(&helm(values, NAMESPACE).unwrap());
    let name = format!("Deployment {NAMESPACE}/opensearch-access-{deployment}");
    let found = objects.into_iter().find(|it| identity(it) == name).unwrap();
    found["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn what_is_missing_is_said() {
    for (values, words) in [
        ("", "image.digest is not set"),
        (
            "image: {digest: sha256:0000000000000000000000000000000000000000000000000000000000000000}",
            "image.repository is not set",
        ),
    ] {
        let refusal = helm(values, NAMESPACE).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_its_place() {
    for (values, place) in [
        ("image: {digest: latest}", "/image/digest"),
        ("image: {repository: 'x:1.2'}", "/image/repository"),
        ("image: {tag: latest}", "/image"),
        ("replicas: 3", "replicas"),
        ("controller: {replicas: 0}", "/controller/replicas"),
        ("controller: {arg: [--x]}", "/controller"),
        ("controller: {args: [x]}", "/controller/args/0"),
        ("webhook: {failurePolicy: fail}", "/webhook/failurePolicy"),
        ("webhook: {timeoutSeconds: 60}", "/webhook/timeoutSeconds"),
        ("sidecar: {image: 'proxy:latest'}", "/sidecar/image"),
        ("sidecar: {environment: {A: 1}}", "/sidecar/environment/A"),
        ("cluster: {oidcIssuer: 'http://x'}", "/cluster/oidcIssuer"),
        ("aws: {region: Frankfurt}", "/aws/region"),
        ("log: {format: xml}", "/log/format"),
        ("listenAddress: 127.0.0.1", "/listenAddress"),
        ("crds: {keep: 'no'}", "/crds/keep"),
        (
            "metrics: {podMonitor: {interval: 1 minute}}",
            "/metrics/podMonitor/interval",
        ),
    ] {
        let refusal = helm(values, NAMESPACE).unwrap_err();
        assert!(refusal.contains(place), "{values}: {refusal}");
    }
}

#[test]
fn the_controller_is_told_which_cluster_it_is_in() {
    let of = container(ALL, "controller");
    let told = |name: &str| {
        let variables = of["env"].as_array().unwrap();
        let found = variables.iter().filter(|it| it["name"] == name);
        found.map(|it| it["value"].clone()).collect::<Vec<_>>()
    };
    for (name, value) in [
        ("AWS_REGION", "eu-west-1"),
        ("EKS_CLUSTER_NAME", "platform"),
        ("EKS_REGION", "eu-west-1"),
        ("OIDC_ISSUER", "https://oidc.example/id/1"),
        ("HTTPS_PROXY", "http://proxy.example:3128"),
        ("ADMIN_ADDRESS", "0.0.0.0:8080"),
    ] {
        assert_eq!(told(name), [value], "{name}");
    }
    assert_eq!(
        of["args"],
        json!(["controller", "--domain-ca=/authorities/ca.crt"])
    );
    assert_eq!(told("PROXY_IMAGE"), [json!(null); 0]);
}

#[test]
fn the_webhook_is_told_what_sidecars_are_like() {
    let of = container(ALL, "webhook");
    let said = [
        "webhook",
        "--proxy-env=AWS_STS_REGIONAL_ENDPOINTS=regional",
        "--proxy-argument=--request-timeout=600",
    ];
    assert_eq!(of["args"], json!(said));
    let image = |values: &str| {
        let of = container(values, "webhook");
        let variables = of["env"].as_array().unwrap().clone();
        let found = variables.into_iter().find(|it| it["name"] == "PROXY_IMAGE");
        (found.unwrap()["value"].clone(), of["image"].clone())
    };
    let (sidecar, own) = image(IMAGE);
    assert_eq!(sidecar, own);
    let other = format!("registry.example/proxy@sha256:{}", "1".repeat(64));
    let (sidecar, own) = image(&format!("{IMAGE}sidecar: {{image: '{other}'}}"));
    assert_eq!(sidecar, other);
    assert_ne!(sidecar, own);
}

/// Variables of the AWS SDK, and those that [`ALL`] adds.
const NOT_OURS: [&str; 2] = ["AWS_REGION", "HTTPS_PROXY"];

#[test]
fn the_program_reads_every_variable_and_argument() {
    for name in ["controller", "webhook"] {
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_opensearch-access"))
            .args([name, "--help"])
            .output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        for values in [IMAGE, ALL] {
            let of = container(values, name);
            let variables = of["env"].as_array().unwrap().iter();
            let variables = variables.map(|it| it["name"].as_str().unwrap());
            for variable in variables.filter(|it| !NOT_OURS.contains(it)) {
                let is_read = help.contains(&format!("[env: {variable}="));
                assert!(is_read, "{name}: {variable}");
            }
            let arguments = of["args"].as_array().unwrap().iter().skip(1);
            for argument in arguments.map(|it| it.as_str().unwrap()) {
                let flag = argument.split('=').next().unwrap();
                assert!(help.contains(flag), "{name}: {flag}");
            }
        }
    }
}

#[test]
fn with_cert_manager_the_webhook_keeps_no_certificate() {
    let names = |values: &str| {
        let objects = documents(&helm(values, NAMESPACE).unwrap());
        objects.iter().map(identity).collect::<Vec<_>>()
    };
    let own = "Secret opensearch-access/opensearch-access-webhook-certificate".to_owned();
    let right = "Role opensearch-access/opensearch-access-webhook".to_owned();
    let issuer = "Issuer opensearch-access/opensearch-access-webhook".to_owned();
    let certificate = "Certificate opensearch-access/opensearch-access-webhook".to_owned();
    let usual = names(IMAGE);
    assert!(usual.contains(&own) && usual.contains(&right));
    assert!(!usual.contains(&issuer) && !usual.contains(&certificate));
    let managed = names(&format!("{IMAGE}certManager: {{enabled: true}}"));
    assert!(!managed.contains(&own) && !managed.contains(&right));
    assert!(managed.contains(&issuer) && managed.contains(&certificate));
    let theirs = names(&format!(
        "{IMAGE}certManager: {{enabled: true, issuerRef: {{kind: ClusterIssuer, name: x}}}}"
    ));
    assert!(!theirs.contains(&issuer) && theirs.contains(&certificate));

    // Who injects the authority is told where to find it, in both configurations.
    let objects = documents(&helm(ALL, NAMESPACE).unwrap());
    let told = objects.iter().filter(|it| {
        it["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
            == "opensearch-access/opensearch-access-webhook"
    });
    assert_eq!(told.count(), 2);
}
