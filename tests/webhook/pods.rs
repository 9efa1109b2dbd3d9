//! What the webhook does to pods, and what it leaves alone.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::pin::pin;
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::hook::{Hook, OWN, asking, plain, resource};

fn sidecars(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let all = lists.into_iter().flatten().flatten();
    all.filter(|it| it["name"] == "opensearch-access-proxy")
        .collect()
}

/// A pod that does not ask never waits for the webhook, whether or not there is one.
#[tokio::test]
async fn without_a_webhook_only_pods_that_ask_are_not_made() {
    let hook = Hook::start(&[]).await;
    hook.namespace("alone").await;
    let mut webhook = hook.take_webhook();
    webhook.kill().unwrap();
    for at in 0..20 {
        let began = Instant::now();
        let made = hook
            .create(Some("alone"), &plain(&format!("plain-{at}")))
            .await;
        made.unwrap();
        // Nobody was called: a call that fails is tried, and would be noticed.
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    let refused = hook.create(Some("alone"), &asking("asks", "logs")).await;
    let said = refused.unwrap_err();
    assert!(said.contains("pods.opensearch-access.io"), "{said}");
    // Neither the webhook's own pods nor those of the system wait for it.
    for namespace in [OWN, "kube-system"] {
        let made = hook.create(Some(namespace), &asking("asks", "logs")).await;
        assert!(sidecars(&made.unwrap()).is_empty(), "{namespace}");
    }
    // Once there is one again, so are the pods.
    let config = hook.start_webhook("second", &[]).await;
    hook.install(config).await;
    let made = hook.create(Some("alone"), &asking("asks", "logs")).await;
    assert_eq!(sidecars(&made.unwrap()).len(), 1);
}

/// The API server asks no webhook about a pod that does not ask for a sidecar, even while it waits for one.
#[tokio::test]
async fn a_webhook_that_hangs_holds_up_only_pods_that_ask() {
    let hook = Hook::start(&[]).await;
    hook.namespace("hanging").await;
    let mut webhook = hook.take_webhook();
    webhook.signal("STOP").unwrap();
    let pod = asking("asks", "logs");
    let mut asked = pin!(hook.create(Some("hanging"), &pod));
    for at in 0..5 {
        let plain = plain(&format!("plain-{at}"));
        tokio::select! {
            said = asked.as_mut() => panic!("nobody can have reviewed it: {said:?}"),
            made = hook.create(Some("hanging"), &plain) => drop(made.unwrap()),
        }
    }
    let said = asked.await.unwrap_err();
    assert!(said.contains("pods.opensearch-access.io"), "{said}");
    assert!(said.contains("deadline exceeded"), "{said}");
    webhook.signal("CONT").unwrap();
    let pod = asking("asks-again", "logs");
    let made = hook
        .until("pods that ask are made again", async || {
            hook.create(Some("hanging"), &pod).await
        })
        .await;
    assert_eq!(sidecars(&made).len(), 1);
}

#[tokio::test]
async fn nothing_is_stored_where_nothing_is_to_be() {
    let hook = Hook::shared().await;
    hook.namespace("dry").await;
    let tried = hook.dry_run("dry", &asking("asks", "logs")).await.unwrap();
    assert_eq!(sidecars(&tried).len(), 1);
    let pods = Api::<DynamicObject>::namespaced_with(hook.client(), "dry", &resource("Pod"));
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

/// Labels of a running pod, and containers that are added to it to look into it, are no business of the
/// webhook's.
#[tokio::test]
async fn a_pod_that_runs_is_left_alone() {
    let hook = Hook::shared().await;
    hook.namespace("running").await;
    let made = hook
        .create(Some("running"), &asking("asks", "logs"))
        .await
        .unwrap();
    let pods = Api::<DynamicObject>::namespaced_with(hook.client(), "running", &resource("Pod"));
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let labelled = pods
        .patch("asks", &PatchParams::default(), &label)
        .await
        .unwrap();
    let labelled = serde_json::to_value(labelled).unwrap();
    assert_eq!(labelled["spec"], made["spec"]);
    let debug = json!([{"name": "debugger", "image": "busybox", "targetContainerName": "app",
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]);
    let debug = Patch::Strategic(json!({"spec": {"ephemeralContainers": debug}}));
    let looked_into = pods
        .patch_subresource(
            "ephemeralcontainers",
            "asks",
            &PatchParams::default(),
            &debug,
        )
        .await;
    let looked_into = serde_json::to_value(looked_into.unwrap()).unwrap();
    assert_eq!(
        looked_into["spec"]["initContainers"],
        made["spec"]["initContainers"]
    );
    assert_eq!(
        looked_into["spec"]["ephemeralContainers"][0]["name"],
        "debugger"
    );
}

/// Quotas ask for requests and limits of every container.
#[tokio::test]
async fn a_quota_and_a_range_take_the_sidecar() {
    let hook = Hook::shared().await;
    hook.namespace("quota").await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all", "namespace": "quota"},
        "spec": {"hard": {"requests.cpu": "2", "requests.memory": "1Gi", "limits.cpu": "4", "limits.memory": "2Gi"}}});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "all", "namespace": "quota"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "512Mi", "cpu": "2"}, "min": {"memory": "16Mi", "cpu": "5m"}}]}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [quota, range]});
    let applied = hook.cluster.kubectl_apply(&list.to_string()).await;
    assert!(applied.status.success(), "{applied:?}");
    let mut pod = asking("asks", "logs");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
    // The server knows of a quota once it has watched it for a moment.
    let made = hook
        .until("the quota is known", async || {
            hook.dry_run("quota", &pod).await
        })
        .await;
    assert_eq!(sidecars(&made).len(), 1);
}

#[tokio::test]
async fn whoever_makes_a_pod_is_told_what_it_may_not() {
    let hook = Hook::shared().await;
    hook.namespace("team").await;
    let mut pod = asking("first", "logs");
    pod["spec"]["serviceAccountName"] = json!("search-api");
    let (made, heard) = hook.create_and_hear("team", &pod).await;
    assert_eq!(sidecars(&made.unwrap()).len(), 1);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(
        heard[0].contains("no DomainAccess lets service account team/search-api use domain"),
        "{heard:?}"
    );

    let grant = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccess",
        "metadata": {"name": "api"},
        "spec": {"domainRef": {"name": "logs"}, "access": "Read", "paths": ["team-*"],
            "principals": [{"serviceAccount": {"name": "search-api"}}]}});
    hook.create(Some("team"), &grant).await.unwrap();
    pod["metadata"]["name"] = json!("second");
    hook.until("the grant is seen", async || {
        let heard = hook.create_and_hear("team", &pod).await.1;
        pod_is_gone(hook, "second").await;
        let told = heard.iter().any(|it| it.contains("is not in force yet"));
        if told {
            Ok(())
        } else {
            Err(format!("{heard:?}"))
        }
    })
    .await;

    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Reconciled",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}});
    let grants =
        Api::<DynamicObject>::namespaced_with(hook.client(), "team", &resource("DomainAccess"));
    grants
        .patch_status("api", &PatchParams::default(), &Patch::Merge(ready))
        .await
        .unwrap();
    hook.until("the grant is in force", async || {
        let heard = hook.create_and_hear("team", &pod).await.1;
        pod_is_gone(hook, "second").await;
        if heard.is_empty() {
            Ok(())
        } else {
            Err(format!("{heard:?}"))
        }
    })
    .await;
}

async fn pod_is_gone(hook: &Hook, name: &str) {
    let deleted = hook
        .cluster
        .kubectl([
            "delete",
            "pod",
            name,
            "--namespace",
            "team",
            "--force",
            "--grace-period=0",
            "--ignore-not-found",
        ])
        .await;
    assert!(deleted.status.success(), "{deleted:?}");
}

/// What another webhook does to the sidecar is seen before the pod would hang.
#[tokio::test]
async fn a_sidecar_that_would_never_end_is_refused() {
    let hook = Hook::shared().await;
    hook.namespace("dropped").await;
    // What is left of the sidecar once somebody has dropped a field that it does not know.
    let mut pod = asking("dropped", "logs");
    let made = hook.dry_run("dropped", &pod).await.unwrap();
    let mut broken = made["spec"]["initContainers"][0].clone();
    broken.as_object_mut().unwrap().remove("restartPolicy");
    pod["spec"]["initContainers"] = json!([broken]);
    // Ours puts it right.
    let mended = hook.dry_run("dropped", &pod).await.unwrap();
    assert_eq!(
        mended["spec"]["initContainers"][0]["restartPolicy"],
        "Always"
    );
    // Where ours is not asked, the API server refuses a start that is waited for of what has to end first.
    let refused = hook.dry_run(OWN, &pod).await.unwrap_err();
    assert!(
        refused.contains("without restartPolicy=Always"),
        "{refused}"
    );
}
