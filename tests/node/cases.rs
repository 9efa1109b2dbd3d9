//! What holds for pods that really run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::common::gateway::{Passed, authority};
use crate::common::node::eks::OPERATOR_NAMESPACE;
use crate::common::node::network::{self, ip};
use crate::common::node::{NODE, image};
use crate::teams::{API, SHOP, STRANGER, Teams, programs};
use crate::watch::{SIDECAR, container, ended, name, until};

/// A kubelet restarts what failed once without waiting.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// A pod as nobody should write it.
const CARELESS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: careless, namespace: shop}
spec:
  containers:
    - {name: careless, image: app:1}
";

/// Where the API server mounts its own token, unless a team says that it wants none.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn caller(role: &str) -> String {
    format!("arn:aws:sts::111122223333:assumed-role/{role}/")
}

/// Tells that every request came signed, as one role.
fn all_are_of(role: &str, passed: &[Passed]) {
    assert!(!passed.is_empty());
    for it in passed {
        let by = it.caller.as_deref().unwrap_or("nobody");
        assert!(by.starts_with(&caller(role)), "{it:?}");
    }
}

pub(crate) async fn the_operator_runs_as_installed_in_a_restricted_namespace(teams: Arc<Teams>) {
    let client = teams.eks.node.client();
    let namespaces = Api::<Namespace>::all(client.clone());
    for namespace in [OPERATOR_NAMESPACE, "shop", "stranger"] {
        let labels = namespaces.get(namespace).await.unwrap().metadata.labels;
        let enforced = labels.unwrap()["pod-security.kubernetes.io/enforce"].clone();
        assert_eq!(enforced, "restricted", "{namespace}");
    }
    let apply = ["apply", "-f", "-"];
    let careless = teams.eks.node.kubectl_with_input(&apply, CARELESS).await;
    let careless = String::from_utf8(careless.stderr).unwrap();
    assert!(careless.contains("violates PodSecurity"), "{careless}");

    let deployments = Api::<Deployment>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    for deployment in ["opensearch-access-controller", "opensearch-access-webhook"] {
        let available = async || {
            let status = deployments.get_status(deployment).await.unwrap().status;
            let available = status.and_then(|it| it.available_replicas);
            if available == Some(2) {
                Ok(())
            } else {
                Err(format!("{available:?}"))
            }
        };
        until(&format!("both of {deployment} are available"), available).await;
    }
    let pods = teams.pods(OPERATOR_NAMESPACE);
    let pods = pods.list(&ListParams::default()).await.unwrap();
    let pods: Vec<String> = pods.iter().map(name).collect();
    let leases = Api::<Lease>::namespaced(client, OPERATOR_NAMESPACE);
    let lease = leases.get("opensearch-access").await.unwrap();
    let holder = lease.spec.and_then(|it| it.holder_identity).unwrap();
    let leads = |pod: &&String| holder.starts_with(pod.as_str());
    let leader = pods.iter().find(leads).expect("a pod leads");
    assert!(
        leader.starts_with("opensearch-access-controller-"),
        "{leader}"
    );

    // What was granted was written by the identity that the installation says.
    let passed = teams.eks.gateway.passed().into_iter();
    let writes: Vec<Passed> = passed.filter(|it| it.security_write().is_some()).collect();
    all_are_of("operator", &writes);
    let updates = teams.eks.aws.calls_of("UpdateDomainConfig");
    assert!(
        updates
            .iter()
            .all(|it| it.caller_arn.starts_with(&caller("operator")))
    );
    assert!(!updates.is_empty());
}

pub(crate) async fn a_deployment_indexes_and_searches_unsigned_by_irsa(teams: Arc<Teams>) {
    let pod = teams.api().await;
    let enough = async || {
        let stored = teams
            .count("shop-api", &format!("pod:%22{}%22", name(&pod)))
            .await;
        if stored >= 10 {
            Ok(())
        } else {
            Err(format!("{stored} documents"))
        }
    };
    until("orders are stored", enough).await;
    let asked = teams.asked("shop-api");
    all_are_of("shop-api", &asked);
    let paths: BTreeSet<&str> = asked.iter().map(|it| it.path.as_str()).collect();
    assert!(paths.contains("/shop-api/_count"), "{paths:?}");
    let calls = teams.eks.aws.calls_of("AssumeRoleWithWebIdentity");
    let own = calls
        .iter()
        .filter(|it| it.body["RoleArn"].as_str().unwrap().ends_with("/shop-api"));
    let own: Vec<_> = own.collect();
    assert!(own.iter().any(|it| it.status == Some(200)), "{calls:?}");

    // The team wrote none of this.
    let spec = pod.spec.as_ref().unwrap();
    let sidecar = &spec.init_containers.as_ref().unwrap()[0];
    assert_eq!(sidecar.name, SIDECAR);
    let image = sidecar.image.as_deref().unwrap();
    assert_eq!(image, teams.eks.operator.reference());
    let ran = &container(&pod, SIDECAR).image_id;
    assert!(ran.ends_with(&teams.eks.operator.digest), "{ran}");
}

pub(crate) async fn a_job_indexes_and_searches_unsigned_by_pod_identity_and_completes(
    teams: Arc<Teams>,
) {
    let pod = teams.report().await;
    let jobs = Api::<Job>::namespaced(teams.eks.node.client(), "shop");
    let complete = async || {
        let status = jobs.get_status("report").await.unwrap().status.unwrap();
        let conditions = status.conditions.unwrap_or_default();
        let complete = conditions
            .iter()
            .any(|it| it.type_ == "Complete" && it.status == "True");
        if complete {
            Ok(())
        } else {
            Err(format!("{conditions:?}"))
        }
    };
    until("the Job is complete", complete).await;
    assert_eq!(teams.count("shop-report", "*:*").await, 3);
    let said = teams.logs("shop", &name(pod), "report").await;
    let lines: Vec<&str> = said.lines().collect();
    let [bulk, found, refused] = lines.as_slice() else {
        panic!("{said}");
    };
    let bulk: Value = serde_json::from_str(bulk).unwrap();
    assert_eq!(bulk["errors"], false, "{bulk}");
    let found: Value = serde_json::from_str(found).unwrap();
    assert_eq!(found["hits"]["total"]["value"], 2);
    assert!(refused.ends_with("403"), "{refused}");
    assert_eq!(teams.count("other-report", "*:*").await, 0);

    all_are_of("shop-batch", &teams.asked("shop-report"));
    let calls = teams.eks.aws.calls_of("AssumeRoleForPodIdentity");
    assert!(calls.iter().any(|it| it.status == Some(200)), "{calls:?}");

    // The team left the API server's token as it is by default, beside that for Pod Identity.
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.automount_service_account_token, None);
    let mounts = spec.containers[0].volume_mounts.iter().flatten();
    let mut paths = mounts.map(|it| it.mount_path.as_str());
    assert!(paths.any(|it| it == API_TOKEN), "{spec:?}");
}

pub(crate) async fn the_sidecar_starts_before_the_app_and_ends_after_it(teams: Arc<Teams>) {
    let pod = teams.report().await;
    let (sidecar, app) = (container(pod, SIDECAR), container(pod, "report"));
    assert_eq!((sidecar.restart_count, app.restart_count), (0, 0));
    let (sidecar, app) = (ended(sidecar), ended(app));
    assert!(
        sidecar.0 <= app.0,
        "the app started at {}, the sidecar at {}",
        app.0,
        sidecar.0
    );
    assert!(
        sidecar.1 >= app.1,
        "the app ended at {}, the sidecar at {}",
        app.1,
        sidecar.1
    );
    assert_eq!((sidecar.2, app.2), (0, 0), "exit codes");
    // The app's first request came through: there was a sidecar that served before the app began.
    let first = teams.asked("shop-report").into_iter().next().unwrap();
    assert_eq!(
        (first.path.as_str(), first.status),
        ("/shop-report/_bulk", Some(200))
    );
}

pub(crate) async fn a_team_without_a_grant_gets_the_explained_403(teams: Arc<Teams>) {
    teams.eks.node.apply(STRANGER).await;
    let pod = teams.succeeded_pod("stranger", "look").await;
    let said = teams.logs("stranger", &name(&pod), "look").await;
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    let mut lines = said.lines();
    let explained = lines.find_map(|it| it.strip_prefix("x-opensearch-access-explained: "));
    let explained = explained.unwrap_or_else(|| panic!("{said}"));
    assert!(explained.contains("access policy"), "{explained}");
    assert!(
        said.contains("not authorized to perform: es:ESHttpGet"),
        "{said}"
    );
    let passed = teams.eks.gateway.passed().into_iter();
    let by = caller("stranger");
    let mut own = passed.filter(|it| it.caller.as_ref().is_some_and(|it| it.starts_with(&by)));
    assert_eq!(own.next().unwrap().status, Some(403));
}

/// Returns the longest time without a request that came through.
fn longest_pause(asked: &[Passed]) -> Duration {
    let through = asked.iter().filter(|it| it.status == Some(201));
    let times: Vec<Timestamp> = through.map(|it| it.at).collect();
    let pauses = times.windows(2).map(|it| it[0].duration_until(it[1]));
    pauses.max().expect("there are some").unsigned_abs()
}

pub(crate) async fn a_sidecar_that_is_killed_under_load_comes_back(teams: Arc<Teams>) {
    let mut manifest = API.to_owned();
    for place in ["\n  name: ", "app: ", "- name: ", "shop-"] {
        manifest = manifest.replace(&format!("{place}api"), &format!("{place}loader"));
    }
    teams.eks.node.apply(&manifest).await;
    let pod = teams.ready_pod("shop", "loader").await;
    let stored = async |more_than: u64| {
        let more = async || {
            let stored = teams.count("shop-loader", "number:*").await;
            if stored > more_than {
                Ok(stored)
            } else {
                Err(format!("{stored} documents"))
            }
        };
        until("orders are stored", more).await
    };
    stored(10).await;
    let id = container(&pod, SIDECAR).container_id.as_deref().unwrap();
    teams.eks.node.kill(id).await.unwrap();
    let restarted = async || {
        let pod = teams.pods("shop").get(&name(&pod)).await.unwrap();
        let sidecar = container(&pod, SIDECAR);
        let is_back = sidecar.restart_count == 1 && sidecar.started == Some(true);
        if is_back {
            Ok(pod)
        } else {
            Err(format!("{sidecar:?}"))
        }
    };
    let pod = until("the sidecar is back", restarted).await;
    let then = teams.count("shop-loader", "number:*").await;
    stored(then + 10).await;
    assert_eq!(container(&pod, "loader").restart_count, 0);
    let last = container(&pod, SIDECAR)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(last.exit_code, 137);
    let said = teams.logs("shop", &name(&pod), "loader").await;
    let is_stored = |line: &str| line.ends_with(" 201");
    assert!(said.lines().rev().take(5).all(is_stored), "{said}");
    // Without a sidecar connections are refused, and without its credentials it says so.
    let down = longest_pause(&teams.asked("shop-loader"));
    let failures = said.lines().filter(|it| !is_stored(it)).count();
    println!("    {failures} requests failed around the kill, in {down:?}");
    let log = teams.logs("shop", &name(&pod), SIDECAR).await;
    assert!(down < BACK_WITHIN, "{down:?}\n{said}\n{log}");
    let delete = [
        "delete",
        "deployment",
        "loader",
        "-n",
        "shop",
        "--wait=false",
    ];
    teams.eks.node.kubectl_prints(&delete).await;
}

pub(crate) async fn the_image_is_the_same_whenever_it_is_assembled(teams: Arc<Teams>) {
    let first = &teams.eks.operator;
    let folder = teams.eks.node.folder().join("again");
    let again = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        let [operator, proxy] = &programs();
        image::operator(&folder, [operator, proxy], &authority())
    });
    let again = again.await.unwrap().unwrap();
    assert_eq!(first.digest, again.digest);
    let read = |file: &Path| std::fs::read(file).unwrap();
    assert!(read(&first.tar) == read(&again.tar), "the tars differ");
    let bill = read(&first.bill);
    assert!(bill == read(&again.bill), "the bills of materials differ");
    let bill: Value = serde_json::from_slice(&bill).unwrap();
    let components = bill["components"].as_array().unwrap();
    let names: BTreeSet<&str> = components
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    for name in [
        "rustls",
        "kube-client",
        "libc6",
        "libgcc-s1",
        "ca-certificates",
    ] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    // What only tests and builds need is in no image.
    for name in ["criterion", "proptest", "syn", "cc"] {
        assert!(!names.contains(name), "{name}");
    }
}

pub(crate) async fn pods_that_come_and_go_change_nobodys_way_to_the_node(_teams: Arc<Teams>) {
    let address = || {
        let shown = ip(&format!("link show {}", network::NAME)).unwrap();
        let mut words = shown.split_whitespace();
        words
            .find(|it| *it == "link/ether")
            .expect("its address follows");
        words.next().unwrap().to_owned()
    };
    let before = address();
    ip("link add lowest address 02:00:00:00:00:01 type veth").unwrap();
    ip(&format!("link set lowest master {}", network::NAME)).unwrap();
    let meanwhile = address();
    ip("link delete lowest").unwrap();
    assert_eq!([meanwhile, address()], [before.clone(), before]);
}

pub(crate) async fn a_drained_node_loses_no_request(teams: Arc<Teams>) {
    let pod = name(&teams.api().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Timestamp::now();
    let drain = ["drain", NODE, "--pod-selector=app=api", "--timeout=80s"];
    let drained = teams.eks.node.kubectl_prints(&drain).await;
    assert!(drained.contains(&format!("pod/{pod} evicted")), "{drained}");

    let found = teams
        .stored(&format!(
            "/shop-api/_search?q=pod:%22{pod}%22+AND+last:true"
        ))
        .await;
    let last = &found["hits"]["hits"][0]["_source"];
    assert_eq!(last["failed"], 0, "{found}");
    let sent = last["sent"].as_u64().unwrap();
    let stored = teams
        .count("shop-api", &format!("pod:%22{pod}%22+AND+number:*"))
        .await;
    assert_eq!(sent, stored);
    // The app went on for longer than a proxy that is told to end waits, and was served.
    let asked = teams.asked("shop-api").into_iter();
    let own = asked.filter(|it| it.at > began && it.path.contains(&pod));
    let own: Vec<Passed> = own.collect();
    assert!(own.len() > 40, "{}", own.len());
    assert!(own.iter().all(|it| it.status == Some(201)), "{own:?}");

    teams.eks.node.kubectl_prints(&["uncordon", NODE]).await;
    let next = teams.ready_pod("shop", "api").await;
    assert_ne!(name(&next), pod);
}

pub(crate) async fn a_pod_whose_grant_is_deleted_is_shut_out(teams: Arc<Teams>) {
    let pod = name(&teams.api().await);
    let last = async || {
        let said = teams.logs("shop", &pod, "api").await;
        said.lines().last().unwrap_or_default().to_owned()
    };
    let answered = async |status: &str| {
        let look = async || {
            let last = last().await;
            if last.ends_with(status) {
                Ok(())
            } else {
                Err(last)
            }
        };
        until(&format!("orders are answered by{status}"), look).await;
    };
    answered(" 201").await;
    let delete = ["delete", "domainaccess", "apps", "-n", "shop"];
    let delete = [&delete[..], &["--timeout=60s"]].concat();
    teams.eks.node.kubectl_prints(&delete).await;
    // It is gone only once what it granted is.
    let gone = Timestamp::now();
    answered(" 403").await;
    let after = teams.asked("shop-api").into_iter();
    let after: Vec<Passed> = after.filter(|it| it.at > gone).collect();
    assert!(after.iter().all(|it| it.status == Some(403)), "{after:?}");
    // Its pod is none the worse for it, and goes on once there is a grant again.
    teams.eks.node.apply(SHOP).await;
    answered(" 201").await;
    let pod = teams.ready_pod("shop", "api").await;
    for it in [SIDECAR, "api"] {
        assert_eq!(container(&pod, it).restart_count, 0, "{it}");
    }
}
