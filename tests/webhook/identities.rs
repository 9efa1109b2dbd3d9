//! The webhook beside the one that tells pods who they are, in both orders.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use serde_json::{Value, json};

use crate::common::pod_identity_webhook::{Options, PodIdentityWebhook};
use crate::hook::{Hook, asking};

const ROLE: &str = "arn:aws:iam::111122223333:role/search-api";

/// What a container of a pod is told of who it is: variables, and where tokens are mounted.
fn told(container: &Value) -> (Vec<&str>, Vec<&str>) {
    let env = container["env"].as_array().into_iter().flatten();
    let mut env: Vec<&str> = env
        .filter_map(|it| it["name"].as_str())
        .filter(|it| it.starts_with("AWS_"))
        .collect();
    env.sort_unstable();
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let mounts = mounts.filter_map(|it| it["mountPath"].as_str());
    let mounts = mounts.filter(|it| it.contains("eks.amazonaws.com"));
    (env, mounts.collect())
}

async fn pods_are_told(name: &'static str, options: Options) {
    let hook = Hook::start(&[]).await;
    let other = PodIdentityWebhook::install(hook.client(), options.name(name)).await;
    hook.namespace("identified").await;
    for (account, annotations) in [
        ("irsa", json!({"eks.amazonaws.com/role-arn": ROLE})),
        ("associated", json!({})),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "annotations": annotations}});
        hook.create(Some("identified"), &object).await.unwrap();
    }
    other.associate("identified", "associated");
    for (account, variable, mount) in [
        (
            "irsa",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "/var/run/secrets/eks.amazonaws.com/serviceaccount",
        ),
        (
            "associated",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
        ),
    ] {
        for kind in ["native", "container"] {
            let mut pod = asking(&format!("{account}-{kind}"), "logs");
            pod["metadata"]["annotations"]["opensearch-access.io/sidecar"] = json!(kind);
            pod["spec"]["serviceAccountName"] = json!(account);
            pod["spec"]["initContainers"] = json!([pod["spec"]["containers"][0].clone()]);
            pod["spec"]["initContainers"][0]["name"] = json!("migrate");
            let made = hook.create(Some("identified"), &pod).await.unwrap();
            let lists =
                ["initContainers", "containers"].map(|it| made["spec"][it].as_array().unwrap());
            let all: Vec<&Value> = lists.into_iter().flatten().collect();
            let named = |name: &str| all.iter().find(|it| it["name"] == name).unwrap();
            let (app, sidecar) = (named("app"), named("opensearch-access-proxy"));
            assert_eq!(all.len(), 3, "{name}: {all:?}");
            assert_eq!(told(sidecar), told(app), "{name}, {account}, {kind}");
            let (env, mounts) = told(sidecar);
            assert!(env.contains(&variable), "{name}: {env:?}");
            assert_eq!(mounts, [mount], "{name}");
            if kind == "native" {
                assert_eq!(
                    made["spec"]["initContainers"][0]["name"],
                    "opensearch-access-proxy"
                );
                assert_eq!(sidecar["restartPolicy"], "Always");
            }
        }
    }
    assert!(other.reviews("identified") >= 4);
    other.uninstall().await;
}

/// The API server puts webhooks in the order of their names: this one is asked first, and ours finds
/// what it told.
#[tokio::test]
async fn a_sidecar_knows_who_the_pod_is_when_ours_is_the_later() {
    pods_are_told("aaa-pod-identity-webhook", Options::default()).await;
}

/// ...and here ours is asked first, and the other one tells the sidecar with the rest.
#[tokio::test]
async fn a_sidecar_knows_who_the_pod_is_when_ours_is_the_earlier() {
    pods_are_told("zzz-pod-identity-webhook", Options::default()).await;
}

/// Some of EKS's are never asked again: those that come first are enough for ours, which is.
#[tokio::test]
async fn a_sidecar_knows_who_the_pod_is_when_the_other_is_asked_once() {
    pods_are_told(
        "aaa-pod-identity-webhook",
        Options::default().never_reinvoked(),
    )
    .await;
    pods_are_told(
        "zzz-pod-identity-webhook",
        Options::default().never_reinvoked(),
    )
    .await;
}

/// An old one drops what makes a sidecar native; where ours is the later, it is put right.
#[tokio::test]
async fn a_sidecar_stays_native_after_a_webhook_that_knows_none() {
    pods_are_told(
        "aaa-pod-identity-webhook",
        Options::default().drops_restart_policy(),
    )
    .await;
}

/// Where the other has the last word, the pod would hang: the API server refuses it, and the other kind of
/// sidecar is a way out.
#[tokio::test]
async fn a_sidecar_that_would_never_end_is_not_made() {
    let hook = Hook::start(&[]).await;
    let options = Options::default().name("zzz-pod-identity-webhook");
    let other = PodIdentityWebhook::install(hook.client(), options.drops_restart_policy()).await;
    hook.namespace("identified").await;
    other.associate("identified", "default");
    let mut pod = asking("native", "logs");
    pod["spec"]["serviceAccountName"] = json!("default");
    let refused = hook.create(Some("identified"), &pod).await.unwrap_err();
    assert!(
        refused.contains("without restartPolicy=Always"),
        "{refused}"
    );
    pod["metadata"]["annotations"]["opensearch-access.io/sidecar"] = json!("container");
    let made = hook.create(Some("identified"), &pod).await.unwrap();
    assert_eq!(made["spec"]["containers"].as_array().unwrap().len(), 2);
    other.uninstall().await;
}
