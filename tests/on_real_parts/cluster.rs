//! The test world itself: a cluster starts fast, beside others, and leaves nothing behind.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams},
};

use crate::common::{
    cluster::Cluster,
    process::{Process, is_alive},
};

/// Generous, for machines that build something else meanwhile; the usual time is a tenth.
const PATIENCE: Duration = Duration::from_mins(2);

/// In the environment of the copy of this program that is to be killed: where it reports to.
const REPORT: &str = "OPENSEARCH_ACCESS_TEST_REPORT";

#[tokio::test]
async fn clusters_run_side_by_side_and_leave_nothing_behind() {
    let first = Cluster::start().await;
    println!("the first cluster was ready after {:?}", first.start_time());
    let second = Cluster::start().await;
    println!(
        "the second cluster was ready after {:?}",
        second.start_time()
    );

    for cluster in [&first, &second] {
        let version = cluster.client().apiserver_version().await.unwrap();
        assert_eq!(version.git_version, "v1.37.2");
    }
    let name = "only-in-the-first";
    let created = first.kubectl(["create", "configmap", name]).await;
    assert!(created.status.success(), "{created:?}");
    let of_second = Api::<ConfigMap>::default_namespaced(second.client());
    assert!(of_second.get_opt(name).await.unwrap().is_none());

    let processes = [first.process_ids(), second.process_ids()].concat();
    let folders = [first.path().to_owned(), second.path().to_owned()];
    assert!(processes.iter().all(|id| is_alive(*id)) && folders.iter().all(|it| it.is_dir()));
    drop((first, second));
    assert!(
        !processes.iter().any(|id| is_alive(*id)),
        "still there: {processes:?}"
    );
    assert!(
        !folders.iter().any(|it| it.exists()),
        "still there: {folders:?}"
    );
}

#[tokio::test]
async fn users_are_let_in_by_token_and_held_to_their_rights() {
    let cluster = Cluster::shared().await;
    let list = async |user| {
        let config_maps = Api::<ConfigMap>::namespaced(cluster.client_for(user), "kube-system");
        config_maps.list(&ListParams::default()).await
    };
    list("admin").await.unwrap();
    let kube::Error::Api(refusal) = list("alice").await.unwrap_err() else {
        panic!()
    };
    assert!(refusal.is_forbidden(), "{refusal:?}");
    assert!(
        refusal.message.contains(r#"User "alice" cannot list"#),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn service_accounts_get_tokens_for_an_audience() {
    let cluster = Cluster::shared().await;
    let accounts = Api::<ServiceAccount>::default_namespaced(cluster.client());
    let metadata = ObjectMeta {
        name: Some("token-test".to_owned()),
        ..Default::default()
    };
    let account = ServiceAccount {
        metadata,
        ..Default::default()
    };
    let params = PostParams::default();
    accounts.create(&params, &account).await.unwrap();
    let spec = TokenRequestSpec {
        audiences: vec!["sts.amazonaws.com".to_owned()],
        ..Default::default()
    };
    let request = TokenRequest {
        spec,
        ..Default::default()
    };
    let created = accounts
        .create_token_request("token-test", &params, &request)
        .await
        .unwrap();
    let token = created.status.unwrap().token;
    assert_eq!(token.split('.').count(), 3, "not a JSON web token: {token}");
}

#[tokio::test]
async fn what_kubectl_is_refused_is_in_its_output() {
    let cluster = Cluster::shared().await;
    let refused = cluster
        .kubectl_apply("apiVersion: v1\nkind: Sheep\nmetadata: {name: a}")
        .await;
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains(r#"no matches for kind "Sheep""#),
        "{message}"
    );
}

#[tokio::test]
async fn a_killed_test_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    // The path of a test as the test program knows it: without the crate.
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut copy = Command::new(env::current_exe().unwrap());
    copy.args([
        "--exact",
        &format!("{module}::holds_a_cluster_until_killed"),
        "--ignored",
    ])
    .env(REPORT, &report);
    let mut copy = Process::spawn("the copy", &copy, &folder.path().join("log")).unwrap();
    let (mut processes, cluster) = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = read_report(&report) {
                break found;
            }
            assert_eq!(copy.try_wait().unwrap(), None, "{}", copy.log_tail(30));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert!(processes.iter().all(|id| is_alive(*id)), "{processes:?}");

    copy.kill().unwrap();
    tokio::time::timeout(PATIENCE, async {
        while !processes.is_empty() {
            processes.retain(|id| is_alive(*id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("still there: {processes:?}"));

    assert!(cluster.is_dir(), "a killed test cannot remove its folder");
    drop(Cluster::start().await);
    assert!(!cluster.exists(), "the next start removes it");
}

/// Runs in the copy that [`a_killed_test_leaves_no_process`] starts.
#[tokio::test]
#[ignore = "a part of another test, which starts it"]
async fn holds_a_cluster_until_killed() {
    #[allow(
        clippy::disallowed_methods,
        reason = "how a test speaks to itself in another process"
    )]
    let Some(report) = env::var_os(REPORT).map(PathBuf::from) else {
        return;
    };
    let cluster = Cluster::start().await;
    let [etcd, apiserver] = cluster.process_ids();
    let unnamed = report.with_extension("new");
    let path = cluster.path().display();
    std::fs::write(&unnamed, format!("{etcd}\n{apiserver}\n{path}")).unwrap();
    std::fs::rename(unnamed, report).unwrap();
    std::future::pending::<()>().await;
}

fn read_report(report: &Path) -> Option<(Vec<u32>, PathBuf)> {
    let text = std::fs::read_to_string(report).ok()?;
    let mut lines = text.lines();
    let processes = [lines.next()?.parse().ok()?, lines.next()?.parse().ok()?];
    Some((processes.to_vec(), lines.next()?.into()))
}

#[tokio::test]
async fn a_program_is_stopped_continued_and_ended_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.02; done",
    ]);
    let mut process = Process::spawn("looper", &command, &folder.path().join("log")).unwrap();
    while process.log_tail(1) != "hello" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    process.signal("STOP").unwrap();
    let late = process
        .terminate(Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(
        late.kind(),
        std::io::ErrorKind::TimedOut,
        "a stopped program handles no signal"
    );
    process.signal("CONT").unwrap();
    let status = process.wait(PATIENCE).await.unwrap();

    assert_eq!(
        (status.code(), process.log_tail(2).as_str()),
        (Some(7), "hello\nbye")
    );
    assert_eq!(
        process.terminate(PATIENCE).await.unwrap(),
        status,
        "it ends once"
    );
    assert!(
        process.signal("TERM").is_err(),
        "its number may be somebody else's"
    );
}

#[test]
fn a_missing_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let command = Command::new("/nowhere/etcd");
    let error = Process::spawn("etcd", &command, &folder.path().join("log")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/etcd"), "{error}");
}
