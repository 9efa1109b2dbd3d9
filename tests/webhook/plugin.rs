//! The program as real kubectl runs it.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::hook::Hook;

#[tokio::test]
async fn kubectl_knows_the_program_as_a_plugin() {
    let hook = Hook::shared().await;
    hook.namespace("plugin").await;
    let grant = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "DomainAccess",
        "metadata": {"name": "api"},
        "spec": {"domainRef": {"name": "logs"}, "access": "Read", "paths": ["team-*"],
            "principals": [{"serviceAccount": {"name": "api"}}]}});
    // Nobody consents to it, which is what is to be seen.
    let refused = hook.create(Some("plugin"), &grant).await.unwrap_err();
    assert!(refused.contains("no consent"), "{refused}");
    hook.namespace("team-of-plugin").await;
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-opensearch_access");
    symlink(env!("CARGO_BIN_EXE_opensearch-access"), plugin).unwrap();
    let kubectl = |line: &str| {
        let mut command = Command::new(hook.cluster.programs().join("kubectl"));
        command
            .args(["opensearch-access"])
            .args(line.split(' '))
            .env_clear()
            .env("PATH", folder.path())
            .env("HOME", folder.path())
            .env("KUBECONFIG", hook.cluster.kubeconfig());
        let ran = command.output().unwrap();
        let text = |it: Vec<u8>| String::from_utf8(it).unwrap();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    let (code, said, _) = kubectl("grants -n plugin");
    assert_eq!((code, said.as_str()), (Some(0), "no grants\n"));
    let (code, said, _) = kubectl("--help");
    assert_eq!(code, Some(0));
    assert!(said.contains("Usage: kubectl opensearch-access"), "{said}");
    // What is shown is what one types; the programs of the cluster are not typed.
    assert!(!said.contains("controller"), "{said}");
    for name in ["explain", "lint", "plan"] {
        let (code, said, _) = kubectl(&format!("{name} -h"));
        let usage = format!("\n\nUsage: kubectl opensearch-access {name} [OPTIONS]\n");
        assert_eq!(code, Some(0));
        assert!(said.contains(&usage), "{said}");
    }
    let (code, _, errors) = kubectl("explain --no-such");
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("\n\nUsage: kubectl opensearch-access explain [OPTIONS]\n"),
        "{errors}"
    );
    let (code, _, errors) = kubectl("lint --domain nope");
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("no OpenSearchDomain \"nope\" is in the cluster"),
        "{errors}"
    );
    // Without an answer of AWS there is no plan, and it says so rather than guess.
    let (code, _, errors) = kubectl("explain --domain nope");
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("no OpenSearchDomain \"nope\" is in the cluster"),
        "{errors}"
    );
}
