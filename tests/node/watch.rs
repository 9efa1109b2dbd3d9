//! Waiting, and what pods say meanwhile.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, LogParams};

use crate::teams::Teams;

/// More than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

/// The sidecar's name.
pub(crate) const SIDECAR: &str = "opensearch-access-proxy";

/// Waits until something can be had.
///
/// # Panics
///
/// With what was there instead, when it takes too long.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) if Instant::now() > deadline => panic!("{what}: still {instead}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

impl Teams {
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.eks.node.client(), namespace)
    }

    /// Returns the pods of an app that are not being deleted.
    pub(crate) async fn pods_of(&self, namespace: &str, app: &str) -> Vec<Pod> {
        let labelled = ListParams::default().labels(&format!("app={app}"));
        let pods = self.pods(namespace).list(&labelled).await.unwrap();
        let pods = pods.items.into_iter();
        pods.filter(|it| it.metadata.deletion_timestamp.is_none())
            .collect()
    }

    /// Waits until the one pod of an app is ready.
    pub(crate) async fn ready_pod(&self, namespace: &str, app: &str) -> Pod {
        let look = async || {
            let pods = self.pods_of(namespace, app).await;
            match pods.as_slice() {
                [pod] if is_ready(pod) => Ok(pod.clone()),
                pods => Err(said(pods)),
            }
        };
        until(&format!("pod of {namespace}/{app} is ready"), look).await
    }

    /// Waits until the one pod of an app has ended well.
    pub(crate) async fn succeeded_pod(&self, namespace: &str, app: &str) -> Pod {
        let look = async || {
            let pods = self.pods_of(namespace, app).await;
            match pods.as_slice() {
                [pod] if phase(pod) == "Succeeded" => Ok(pod.clone()),
                [pod] if phase(pod) == "Failed" => {
                    let logs = self.logs(namespace, &name(pod), app).await;
                    panic!("{namespace}/{app} failed: {logs}\n{}", said(&pods));
                }
                pods => Err(said(pods)),
            }
        };
        until(&format!("pod of {namespace}/{app} succeeds"), look).await
    }

    /// Returns what a container has printed so far.
    pub(crate) async fn logs(&self, namespace: &str, pod: &str, container: &str) -> String {
        let of = LogParams {
            container: Some(container.to_owned()),
            ..LogParams::default()
        };
        self.pods(namespace).logs(pod, &of).await.unwrap()
    }
}

pub(crate) fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap()
}

pub(crate) fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|it| it.conditions.iter().flatten());
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Returns the status of a container, or of an init container.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> &'a ContainerStatus {
    let status = pod.status.as_ref().expect("it has a status");
    let init = status.init_container_statuses.iter().flatten();
    let mut all = init.chain(status.container_statuses.iter().flatten());
    let found = all.find(|it| it.name == name);
    found.unwrap_or_else(|| panic!("no container {name}: {status:?}"))
}

/// Returns when a container that has ended began, and when it ended, and how.
pub(crate) fn ended(status: &ContainerStatus) -> (Timestamp, Timestamp, i32) {
    let state = status.state.as_ref().and_then(|it| it.terminated.as_ref());
    let state = state.unwrap_or_else(|| panic!("it has not ended: {status:?}"));
    let time = |it: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        it.as_ref().expect("the kubelet says when").0
    };
    (
        time(&state.started_at),
        time(&state.finished_at),
        state.exit_code,
    )
}

fn said(pods: &[Pod]) -> String {
    let statuses: Vec<String> = pods
        .iter()
        .map(|it| format!("{}: {:?}", name(it), it.status))
        .collect();
    statuses.join("\n")
}
