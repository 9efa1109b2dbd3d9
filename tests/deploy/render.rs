//! Renders the chart and the kustomizations by the real programs.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::parts::part;

/// The namespace of an installation, unless it is about another.
pub(crate) const NAMESPACE: &str = "opensearch-access";

/// The values that have no default.
pub(crate) const IMAGE: &str = "image: {repository: registry.example/opensearch-access, \
     digest: sha256:0000000000000000000000000000000000000000000000000000000000000000}\n";

/// Everything that can be turned on.
pub(crate) const ALL: &str = "
image:
  repository: registry.example/opensearch-access
  digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
  pullSecrets: [registry]
cluster: {eksName: platform, eksRegion: eu-west-1, oidcIssuer: https://oidc.example/id/1}
aws: {region: eu-west-1}
controller:
  serviceAccount: {annotations: {eks.amazonaws.com/role-arn: arn:aws:iam::111122223333:role/x}}
  env: [{name: HTTPS_PROXY, value: http://proxy.example:3128}]
  args: [--domain-ca=/authorities/ca.crt]
  podAnnotations: {example.com/a: b}
  nodeSelector: {kubernetes.io/arch: arm64}
  tolerations: [{key: platform, operator: Exists}]
  priorityClassName: system-cluster-critical
  volumes: [{name: authorities, configMap: {name: authorities}}]
  volumeMounts: [{name: authorities, mountPath: /authorities, readOnly: true}]
webhook:
  clientCaSecret: apiserver-ca
  volumes: [{name: more, configMap: {name: more}}]
  volumeMounts: [{name: more, mountPath: /more, readOnly: true}]
sidecar:
  environment: {AWS_STS_REGIONAL_ENDPOINTS: regional}
  arguments: [--request-timeout=600]
networkPolicy:
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  controllerEgress: [{ports: [{port: 3128}]}]
certManager: {enabled: true}
metrics:
  serviceMonitor: {enabled: true, labels: {release: prometheus}}
  podMonitor: {enabled: true}
  prometheusRule: {enabled: true}
  dashboard: {enabled: true}
";

/// Returns a path below the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the chart's folder.
pub(crate) fn chart() -> PathBuf {
    project("deploy/helm/opensearch-access")
}

/// Runs a program with something to read; its output, or what it complained of.
pub(crate) fn run<I>(program: &str, args: I, input: &str) -> Result<String, String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    // Helm keeps repositories, and kubectl what it has discovered, by the user.
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(part(program))
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    // It may say much before it has read all, and may end without reading.
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr) + &text(output.stdout))
    }
}

/// Returns the documents of a YAML stream.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    all.into_iter().filter(Value::is_object).collect()
}

/// Renders the chart as text.
pub(crate) fn helm(values: &str, namespace: &str) -> Result<String, String> {
    let chart = chart();
    let args = ["template", "opensearch-access", chart.to_str().unwrap()];
    let args = args
        .into_iter()
        .chain(["--namespace", namespace, "--values", "-"]);
    run("helm", args, values)
}

/// Renders a kustomization as text.
pub(crate) fn kustomize(folder: &Path) -> String {
    run("kubectl", ["kustomize".as_ref(), folder.as_os_str()], "").unwrap()
}

/// Returns a member as text; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Returns an object's kind, namespace and name.
pub(crate) fn identity(object: &Value) -> String {
    let namespace = text(object, "/metadata/namespace");
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    format!("{kind} {namespace}/{name}")
}
