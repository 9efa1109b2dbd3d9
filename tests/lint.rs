//! `lint`: what is amiss with manifests and policy documents, by the program itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::program::{DOMAIN, Folder, Planned, grant, role, run};

#[allow(dead_code, reason = "shared with tests/plan.rs, which uses all of it")]
#[path = "plan/program.rs"]
mod program;

const ARN: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs";

fn lint(folder: &Folder, more: &[&str]) -> Planned {
    let path = folder.path().to_str().unwrap();
    run([&["lint", "-o", "json", "-f", path], more].concat(), "")
}

/// Returns the object, the severity, the rule and the place of each finding.
fn found(said: &Planned) -> Vec<[String; 4]> {
    let findings = said.json()["findings"].as_array().unwrap().clone();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let parts = ["object", "severity", "rule", "place"];
    findings
        .iter()
        .map(|it| parts.map(|key| text(it, key)))
        .collect()
}

/// Checks that nothing is amiss.
#[track_caller]
fn assert_clean(what: &str, said: &Planned) {
    let said = (said.code, said.output.as_str(), said.errors.as_str());
    assert_eq!(said, (0, "", ""), "{what}");
}

/// Returns the folders below one that have manifests of our kinds, or name them.
fn folders_of_manifests(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(folders_of_manifests(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            if text.contains("apiVersion: opensearch-access.io/") {
                found.insert(folder.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_folder_of_examples_is_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = folders_of_manifests(&root.join("deploy"));
    folders.extend(["deploy/gitops", "deploy/options", "deploy/kustomize"].map(|it| root.join(it)));
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        let folder = folder.to_str().unwrap();
        assert_clean(folder, &run(["lint", "-f", folder], ""));
    }
}

#[test]
fn the_manifests_of_the_readme_are_clean() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let blocks = readme.split("\n```yaml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|it| it.split_once("\n```\n").expect("it ends").0)
        .collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    // The front page by itself, and everything that a reader has copied who read on.
    for manifests in [blocks[0].to_owned(), blocks.join("\n---\n")] {
        assert_clean(&manifests, &run(["lint", "-f", "-"], &manifests));
        let planned = run(["plan", "-o", "json", "-f", "-"], &manifests);
        assert_eq!(planned.code, 2, "{planned:?}");
    }
}

#[test]
fn the_examples_are_clean() {
    let said = run(["lint", "-f", "deploy/examples", "-o", "json"], "");
    assert_eq!((said.code, said.json()), (0, json!({"findings": []})));
}

#[test]
fn manifests_are_held_to_their_rules() {
    let domain = DOMAIN.replace(
        "access: ReadWrite\n",
        "access: ReadWrite\n        sourceIps: [10.0.0.0/8, 203.0.113.0/24]\n",
    );
    let folder = Folder::new([
        ("0.yaml", domain.as_str()),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
        ("b.yaml", &grant("b", "  access: Read\n  paths: [x]")),
        (
            "c.yaml",
            &grant("c", "  access: Read\n  conditions: {sourceIps: [10.1.2.3]}"),
        ),
        (
            "d.yaml",
            &grant("d", "  access: Read\n  expiresAt: 2020-01-01T00:00:00Z"),
        ),
        ("e.yaml", &grant("e", "  access: Admin\n  paths: [x]")),
        ("f.yaml", &grant("f", "  acess: Read")),
        (
            "g.yaml",
            &grant("g", "  access: Read").replace("{name: logs}", "{name: other}"),
        ),
        (
            "h.yaml",
            &grant("h", "  access: ReadWrite").replace(&role("h"), &role("a")),
        ),
    ]);
    let said = lint(&folder, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    let of = |name: &str| format!("DomainAccess team-a/{name}");
    let found = found(&said);
    let expected = [
        (
            "OpenSearchDomain logs".to_owned(),
            "warning",
            "private-address",
            "spec.consent[0].ceiling.sourceIps[0]",
        ),
        (of("b"), "warning", "paths-not-enforced", "spec.paths"),
        (
            of("c"),
            "warning",
            "private-address",
            "spec.conditions.sourceIps[0]",
        ),
        (of("d"), "warning", "Expired", "spec.expiresAt"),
        (of("e"), "error", "InvalidSpec", "spec.paths"),
        (of("f"), "error", "InvalidSpec", "spec.acess"),
        (of("g"), "warning", "DomainNotFound", "spec.domainRef.name"),
        (of("h"), "warning", "repeated", ""),
    ];
    let expected = expected.map(|(object, severity, rule, place)| {
        [
            object,
            severity.to_owned(),
            rule.to_owned(),
            place.to_owned(),
        ]
    });
    assert_eq!(found, expected);
    let text = run(["lint", "-f", folder.path().to_str().unwrap()], "").output;
    let line = text.lines().find(|line| line.contains("team-a/e")).unwrap();
    let file = folder.file("e.yaml").display().to_string();
    assert!(
        line.starts_with(&format!(
            "error: {file}: DomainAccess team-a/e: spec.paths: "
        )),
        "{line}"
    );
    assert!(line.ends_with("(InvalidSpec)"), "{line}");
}

#[test]
fn a_policy_document_is_held_to_the_rules_of_the_service() {
    let open = json!({"Effect": "Allow", "Principal": "*", "Action": "es:*",
        "Resource": format!("{ARN}/*")});
    let tls = json!({"Effect": "Deny", "Principal": "*", "Action": "es:*",
        "Resource": format!("{ARN}/*"), "Condition": {"Bool": {"aws:SecureTransport": "false"}}});
    let policy = json!({"Version": "2012-10-17", "Statement": [open, tls]});
    let folder = Folder::new([("p.policy", policy.to_string().as_str())]);
    let file = folder.file("p.policy").display().to_string();
    let of = |more: &[&str]| {
        run(
            [&["lint", "--policy", &file, "-o", "json"], more].concat(),
            "",
        )
    };
    let said = of(&[]);
    assert_eq!(said.code, 2, "{said:?}");
    let rules = |said: &Planned| {
        found(said)
            .into_iter()
            .map(|[_, _, rule, place]| format!("{rule} {place}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rules(&said),
        [
            "open Statement[0].Principal",
            "ignored-key Statement[1].Condition"
        ]
    );
    assert_eq!(said.json()["findings"][0]["file"], json!(file));
    assert_eq!(
        rules(&of(&["--fine-grained-access"])),
        ["ignored-key Statement[1].Condition"]
    );
    let elsewhere = of(&[
        "--domain-arn",
        "arn:aws:es:eu-west-1:111122223333:domain/other",
    ]);
    assert!(
        rules(&elsewhere).contains(&"other-domain Statement[0].Resource".to_owned()),
        "{elsewhere:?}"
    );
}

#[test]
fn what_a_plan_writes_is_clean() {
    let folder = Folder::new([
        ("domain.yaml", DOMAIN),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
        (
            "b.yaml",
            &grant(
                "b",
                "  access: Read\n  conditions: {sourceIps: [203.0.113.7]}",
            ),
        ),
        (
            "c.yaml",
            &grant("c", "  actions: [\"es:*\", \"es:ESCrossClusterGet\"]"),
        ),
    ]);
    let domain = DOMAIN.replace(
        "access: ReadWrite",
        "actions: [\"es:*\", \"es:ESCrossClusterGet\"]",
    );
    folder.write("domain.yaml", &domain);
    let policy = folder.plan(&[]).logs()["accessPolicy"].to_string();
    let file = folder.write("p.policy", &policy);
    // Read without paths posts its searches to endpoints, which only paths can say.
    let said = run(
        [
            "lint",
            "--policy",
            file.to_str().unwrap(),
            "--fine-grained-access",
        ],
        "",
    );
    assert_eq!((said.code, said.output.as_str()), (0, ""), "{said:?}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let folder = Folder::new([("a.yaml", "kind: ["), ("p.policy", "{")]);
    let said = lint(&folder, &[]);
    assert_eq!((said.code, found(&said)[0][2].as_str()), (1, "unusable"));
    let policy = folder.file("p.policy").display().to_string();
    let said = run(["lint", "--policy", &policy], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.output
            .contains("p.policy: the access policy is not JSON: "),
        "{said:?}"
    );
    for args in [
        &["lint"][..],
        &["lint", "--policy", "/nowhere"],
        &["lint", "-f", "/nowhere"],
    ] {
        assert_eq!(run(args.iter().copied(), "").code, 1, "{args:?}");
    }
}

#[test]
fn what_names_a_role_or_a_domain_that_no_manifest_has_is_told() {
    let domain = DOMAIN.replace(
        "access: ReadWrite\n",
        "access: ReadWrite\n        securityRoles: ['{{namespace}}.*']\n",
    );
    let domain = domain.replace("  consent:", "  fineGrainedAccess: {}\n  consent:");
    let definition = |name: &str, domain: &str| {
        format!(
            "apiVersion: opensearch-access.io/v1alpha1\nkind: DomainRole\nmetadata: {{name: {name}, \
             namespace: team-a}}\nspec:\n  domainRef: {{name: {domain}}}\n  indexPermissions:\n    \
             - {{indexPatterns: [x], allowedActions: [read]}}\n"
        )
    };
    let folder = Folder::new([
        ("0.yaml", domain.as_str()),
        (
            "a.yaml",
            &grant("a", "  access: Read\n  securityRoles: [team-a.reader]"),
        ),
        (
            "b.yaml",
            &grant("b", "  access: ReadWrite\n  securityRoles: [team-a.raeder]"),
        ),
        ("c.yaml", &definition("reader", "logs")),
        ("d.yaml", &definition("other", "lgos")),
    ]);
    let said = lint(&folder, &[]);
    let expected = [
        [
            "DomainAccess team-a/b",
            "warning",
            "RoleNotFound",
            "spec.securityRoles[0]",
        ],
        [
            "DomainRole team-a/other",
            "warning",
            "DomainNotFound",
            "spec.domainRef.name",
        ],
    ];
    let mut all = found(&said);
    all.retain(|it| it[2] != "repeated");
    assert_eq!(
        all,
        expected.map(|it| it.map(str::to_owned)),
        "{}",
        said.errors
    );
    let messages = said.json()["findings"].to_string();
    assert!(
        messages.contains("did you mean \\\"team-a.reader\\\"?"),
        "{messages}"
    );
}
