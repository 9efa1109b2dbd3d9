//! `plan`, `explain`, `lint` and `import` on a cluster and on AWS: what they say is what the operator
//! does, and they write nothing.
//!
//! They run as a person with few rights: as `alice`, who may list the operator's objects and read
//! its records, and as a user of AWS by whose access key the fake tells the calls apart.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

mod errors;
mod explain;
mod import;
mod lint;
mod plan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::common::fake_aws::Call;
use crate::common::operator::World;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, OPERATOR_NAMESPACE};

/// The rights in Kubernetes that reading takes.
const RIGHTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: viewer}
rules:
  - apiGroups: [opensearch-access.io]
    resources: [opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]
    verbs: [list]
  - apiGroups: ['']
    resources: [namespaces]
    verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: viewer, namespace: opensearch-access}
rules:
  - apiGroups: ['']
    resources: [configmaps]
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer, namespace: opensearch-access}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}]
";

/// Everything that may be asked of AWS.
const READS: [&str; 6] = [
    "AssumeRole",
    "DescribeDomain",
    "DescribeDomainConfig",
    "GetCallerIdentity",
    "GetRole",
    "GetUser",
];

/// A person with a shell, who may read.
struct Viewer {
    home: TempDir,
    kubeconfig: PathBuf,
    aws_url: String,
    key: (String, String),
    /// What its sessions of roles are called.
    session: String,
}

/// What the program said.
#[derive(Debug)]
struct Said {
    code: i32,
    output: String,
    errors: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns what a plan says of a domain.
    fn domain(&self, name: &str) -> Value {
        self.json()["domains"][name].clone()
    }

    /// Makes sure that it failed, and said all of these words.
    fn fails_with(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "{self:?}");
        for word in words {
            assert!(self.errors.contains(word), "{word:?}: {self:?}");
        }
    }
}

impl Viewer {
    /// Gives alice her rights, by bindings of the test's own, and a user of AWS an access key.
    async fn of(scene: &Scene) -> Self {
        let (world, user) = (&scene.world, &scene.role_name("viewer"));
        let rights = RIGHTS.replace("viewer", user);
        let applied = world.cluster().kubectl_apply(&rights).await;
        assert!(applied.status.success(), "{applied:?}");
        world.aws().account(ACCOUNT).user(user);
        let key = world.aws().user_credentials(ACCOUNT, user);
        Self {
            session: format!("opensearch-access-cli.{}", scene.name),
            home: tempfile::tempdir().unwrap(),
            kubeconfig: world.cluster().kubeconfig_of("alice"),
            aws_url: world.aws().url().to_owned(),
            key: (key.access_key_id, key.secret_access_key),
        }
    }

    /// Prepares the program: nothing of the machine's own environment leads it out of the world.
    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ENDPOINT_URL", &self.aws_url)
            .env("AWS_ACCESS_KEY_ID", &self.key.0)
            .env("AWS_SECRET_ACCESS_KEY", &self.key.1)
            .kill_on_drop(true);
        command
    }

    /// Runs the program.
    async fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Said {
        run(self.command(args), "").await
    }

    /// Runs the program on manifests at its standard input.
    async fn run_on<'a>(&self, args: impl IntoIterator<Item = &'a str>, manifests: &str) -> Said {
        run(self.command(args), manifests).await
    }

    /// Writes a file at home.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.home.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Returns the operations that the person has called.
    fn called(&self, world: &World) -> BTreeSet<String> {
        let own = |call: &Call| {
            let session = call.session_name.as_ref();
            call.access_key_id == self.key.0 || session == Some(&self.session)
        };
        let calls = world.aws().calls();
        calls
            .into_iter()
            .filter(own)
            .map(|call| call.operation)
            .collect()
    }

    /// Makes sure that AWS was asked, and only ever asked.
    fn only_read(&self, world: &World) {
        let called = self.called(world);
        assert!(called.contains("DescribeDomainConfig"), "{called:?}");
        assert!(
            called.iter().all(|it| READS.contains(&it.as_str())),
            "{called:?}"
        );
    }
}

async fn run(mut command: Command, input: &str) -> Said {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    // A program that does not read closes its end, which is no failure.
    stdin.write_all(input.as_bytes()).await.ok();
    drop(stdin);
    let ended = program.wait_with_output().await.unwrap();
    Said {
        code: ended.status.code().unwrap(),
        output: String::from_utf8(ended.stdout).unwrap(),
        errors: String::from_utf8(ended.stderr).unwrap(),
    }
}

/// Returns the resource versions of everything that a write would change, the record included.
async fn versions(scene: &Scene) -> Vec<Value> {
    let world = &scene.world;
    let record = format!("domain-state.{}", scene.name);
    let mut all = vec![scene.domain().await];
    all.extend(scene.grants().await);
    all.push(
        world
            .get("ConfigMap", Some(OPERATOR_NAMESPACE), &record)
            .await,
    );
    all.push(world.get("Namespace", None, scene.name).await);
    all.iter()
        .map(|it| it["metadata"]["resourceVersion"].clone())
        .collect()
}

/// Returns a grant's manifest.
fn manifest(scene: &Scene, name: &str, spec: &Value) -> String {
    let manifest = serde_json::json!({
        "apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "DomainAccess",
        "metadata": {"name": name, "namespace": scene.name},
        "spec": spec,
    });
    format!("---\n{manifest}\n")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
