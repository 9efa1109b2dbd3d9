//! The program run on manifests, and what it said.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The domain that most tests are about: everything is consented to for `team-a`.
pub(crate) const DOMAIN: &str = r#"
apiVersion: opensearch-access.io/v1alpha1
kind: OpenSearchDomain
metadata: {name: logs}
spec:
  domainName: logs
  accountId: "111122223333"
  region: eu-west-1
  consent:
    - namespaces: [team-a]
      ceiling:
        access: ReadWrite
        principals: {accounts: ["111122223333"], wholeAccounts: ["444455556666"]}
"#;

/// Returns the manifest of a grant for a role.
pub(crate) fn grant(name: &str, rest: &str) -> String {
    format!(
        r#"
apiVersion: opensearch-access.io/v1alpha1
kind: DomainAccess
metadata: {{name: {name}, namespace: team-a}}
spec:
  domainRef: {{name: logs}}
  principals: [{{iamRole: {{arn: "{}"}}}}]
{rest}
"#,
        role(name)
    )
}

/// Returns the ARN of a role of the domain's account.
pub(crate) fn role(name: &str) -> String {
    format!("arn:aws:iam::111122223333:role/{name}")
}

/// A folder of files.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file, and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.file(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// Writes a file, and gives `logs=FILE`, which `--current` and `--last-applied` take.
    pub(crate) fn of_logs(&self, name: &str, document: &Value) -> String {
        format!("logs={}", self.write(name, &document.to_string()).display())
    }

    /// Plans the manifests in the folder.
    pub(crate) fn plan(&self, args: &[&str]) -> Planned {
        run(
            [
                &["plan", "-o", "json", "-f", self.path().to_str().unwrap()],
                args,
            ]
            .concat(),
            "",
        )
    }
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) code: i32,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Planned {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns what the plan says of the domain `logs`.
    pub(crate) fn logs(&self) -> Value {
        self.json()["domains"]["logs"].clone()
    }
}

/// Runs the program; what it would find in the environment is not there.
pub(crate) fn run<'a>(args: impl IntoIterator<Item = &'a str>, input: &str) -> Planned {
    let mut program = Command::new(env!("CARGO_BIN_EXE_opensearch-access"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read closes its end, which is no failure.
    program
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .ok();
    let ended = program.wait_with_output().unwrap();
    Planned {
        code: ended.status.code().unwrap(),
        output: String::from_utf8(ended.stdout).unwrap(),
        errors: String::from_utf8(ended.stderr).unwrap(),
    }
}
