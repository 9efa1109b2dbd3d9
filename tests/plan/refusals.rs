//! Bad input: each a clear error with its file, field and rule, and nothing else is touched.

use serde_json::{Value, json};

use super::program::{DOMAIN, Folder, Planned, grant, role, run};
use super::{document, folder, read_write};

/// Tells that the grant `a` is planned, and alone.
fn leaves_a_alone(planned: &Planned) {
    assert_eq!(planned.code, 1, "{planned:?}");
    let logs = planned.logs();
    assert_eq!(logs["added"], json!([read_write("a")]), "{planned:?}");
    assert_eq!(
        logs["accessPolicy"],
        document(&json!([read_write("a")])),
        "{planned:?}"
    );
}

/// Plans the grant `a` beside a bad file, and checks the one line about that.
fn beside(bad: &str, said: &[&str]) -> Value {
    let folder = folder();
    folder.write("bad.yaml", bad);
    let planned = folder.plan(&[]);
    leaves_a_alone(&planned);
    let lines: Vec<&str> = planned
        .errors
        .lines()
        .filter(|it| it.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "{bad}: {planned:?}");
    let file = folder.file("bad.yaml").display().to_string();
    for part in [&file.as_str()].into_iter().chain(said) {
        assert!(planned.errors.contains(*part), "no {part}: {planned:?}");
    }
    planned.logs()["refused"].clone()
}

/// Checks that a bad file is one refused grant.
fn refuses(bad: &str, reason: &str, message: &str) {
    let refused = beside(bad, &[&format!("DomainAccess team-a/bad: {message}")]);
    assert_eq!(refused.as_array().map(Vec::len), Some(1), "{refused}");
    let refused = &refused[0];
    assert_eq!(
        (&refused["namespace"], &refused["name"], &refused["reason"]),
        (&json!("team-a"), &json!("bad"), &json!(reason)),
    );
    assert!(
        refused["message"].as_str().unwrap().starts_with(message),
        "{refused}"
    );
}

fn bad(rest: &str) -> String {
    grant("bad", rest)
}

#[test]
fn a_manifest_that_cannot_be_parsed() {
    let refused = beside("apiVersion: v1\nkind: [", &["not YAML"]);
    assert_eq!(refused, json!([]));
    beside(
        "apiVersion: v1\nkind: ConfigMap\nkind: Secret\n",
        &["not YAML", "duplicate"],
    );
    beside("just a text", &["document 1: not a Kubernetes object"]);
    beside("- a\n- list", &["document 1: not a Kubernetes object"]);
    beside(
        "spec: {}",
        &["document 1: not a Kubernetes object: apiVersion and kind are missing"],
    );
}

#[test]
fn a_field_of_another_form() {
    refuses(
        &bad("  access: Write"),
        "InvalidSpec",
        "spec.access: unknown variant `Write`",
    );
    refuses(
        &bad("  access: Read\n  paths: logs"),
        "InvalidSpec",
        "spec.paths: invalid type",
    );
    let number = bad("  access: Read").replace(
        &format!("iamRole: {{arn: \"{}\"}}", role("bad")),
        "account: {id: 444455556666}",
    );
    refuses(
        &number,
        "InvalidSpec",
        "spec.principals[0].account.id: invalid type: integer",
    );
    let missing = bad("  access: Read").replace("  principals:", "  principal:");
    refuses(&missing, "InvalidSpec", "spec: missing field `principals`");
}

#[test]
fn an_unknown_field() {
    refuses(
        &bad("  access: Read\n  path: [a]"),
        "InvalidSpec",
        "spec.path: unknown field",
    );
    let nested = "  access: Read\n  conditions: {sourceIPs: [198.51.100.7]}";
    refuses(
        &bad(nested),
        "InvalidSpec",
        "spec.conditions.sourceIPs: unknown field",
    );
    let in_list = bad("  access: Read").replace("[{iamRole", "[{name: x, iamRole");
    refuses(
        &in_list,
        "InvalidSpec",
        "spec.principals[0].name: unknown field",
    );
    let of_metadata = bad("  access: Read").replace("{name: bad,", "{name: bad, label: {},");
    refuses(&of_metadata, "InvalidSpec", "metadata.label: unknown field");
    let two = bad("  access: Read\n  path: [a]\n  role: b");
    refuses(
        &two,
        "InvalidSpec",
        "spec.path: unknown field; spec.role: unknown field",
    );
}

#[test]
fn a_principal_of_another_partition() {
    let elsewhere = bad("  access: Read").replace("arn:aws:iam", "arn:aws-cn:iam");
    let message = "spec.principals[0].iamRole.arn: \
                   \"arn:aws-cn:iam::111122223333:role/bad\" is of partition aws-cn, and the \
                   domain of partition aws";
    refuses(&elsewhere, "InvalidSpec", message);
    let nowhere = bad("  access: Read").replace("arn:aws:iam", "arn:aws-eu:iam");
    let message = "spec.principals[0].iamRole.arn: \"aws-eu\" is not an AWS partition";
    refuses(&nowhere, "InvalidSpec", message);
}

#[test]
fn a_grant_over_its_ceiling_or_without_consent() {
    let other = bad("  access: Read").replace("111122223333", "999999999999");
    refuses(&other, "OverCeiling", "spec.principals[0].iamRole.arn: ");
    let folder = folder();
    let stranger = bad("  access: Read").replace("namespace: team-a", "namespace: team-b");
    folder.write("bad.yaml", &stranger);
    let planned = folder.plan(&[]);
    leaves_a_alone(&planned);
    assert_eq!(
        planned.logs()["refused"][0]["reason"],
        "NotPermitted",
        "{planned:?}"
    );
}

#[test]
fn an_object_that_is_there_twice() {
    let folder = folder();
    let [one, other] = ["bad.yaml", "worse.yaml"].map(|name| {
        folder.write(
            name,
            &bad(if name == "bad.yaml" {
                "  access: Read"
            } else {
                "  access: Admin"
            }),
        )
    });
    let planned = folder.plan(&[]);
    // Neither: which of them holds in a cluster depends on who applies them in which order.
    leaves_a_alone(&planned);
    let said = format!(
        "error: {}: DomainAccess team-a/bad: metadata.name: the object is defined twice; the \
         other definition is in {}",
        other.display(),
        one.display()
    );
    assert!(planned.errors.contains(&said), "{planned:?}");
    assert_eq!(planned.logs()["refused"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_domain_that_is_there_twice() {
    let folder = folder();
    folder.write("other.yaml", &DOMAIN.replace("eu-west-1", "eu-west-2"));
    let planned = folder.plan(&[]);
    assert_eq!(planned.code, 1);
    let said = "other.yaml: OpenSearchDomain logs: metadata.name: the object is defined twice; \
                the other definition is in ";
    assert!(planned.errors.contains(said), "{planned:?}");
    let logs = planned.logs();
    assert_eq!(
        (&logs["accessPolicy"], &logs["added"]),
        (&Value::Null, &json!([])),
        "{planned:?}"
    );
}

#[test]
fn a_domain_in_another_account() {
    let folder = folder();
    let elsewhere = DOMAIN.replace("name: logs", "name: metrics").replace(
        "  consent:",
        "  assumeRole: {arn: 'arn:aws:iam::444455556666:role/operator'}\n  consent:",
    );
    folder.write("bad.yaml", &elsewhere);
    let of_it = bad("  access: Read").replace("{name: logs}", "{name: metrics}");
    folder.write("grant.yaml", &of_it);
    let current = folder.of_logs("policy", &document(&json!([read_write("other")])));
    let current = current.replace("logs=", "metrics=");
    let planned = folder.plan(&["--current", &current]);
    leaves_a_alone(&planned);
    let rule = "spec.assumeRole.arn: the role is of account 444455556666, and the domain is in \
                another account, 111122223333";
    let file = folder.file("bad.yaml").display().to_string();
    let said = format!("error: {file}: OpenSearchDomain metrics: {rule}");
    assert!(planned.errors.contains(&said), "{planned:?}");
    let metrics = &planned.json()["domains"]["metrics"];
    assert!(
        metrics["held"].as_str().unwrap().starts_with(rule),
        "{metrics}"
    );
    assert_eq!(
        metrics["accessPolicy"],
        document(&json!([read_write("other")])),
        "as it is"
    );
    assert_eq!(
        (&metrics["added"], &metrics["removed"]),
        (&json!([]), &json!([]))
    );
    let refused = &metrics["refused"][0];
    assert_eq!(
        (&refused["name"], &refused["reason"]),
        (&json!("bad"), &json!("InvalidSpec"))
    );
}

#[test]
fn a_domain_with_broken_fields_says_all_of_them() {
    let folder = folder();
    let broken = DOMAIN
        .replace("name: logs", "name: metrics")
        .replace("eu-west-1", "Ireland")
        .replace("111122223333", "1111");
    folder.write("bad.yaml", &broken);
    folder.write(
        "odd.yaml",
        &broken
            .replace("metrics", "odd")
            .replace("region:", "regio:"),
    );
    let planned = folder.plan(&[]);
    leaves_a_alone(&planned);
    for field in [
        "spec.accountId",
        "spec.region",
        "spec.consent[0].ceiling.principals.accounts[0]",
    ] {
        assert!(
            planned.errors.contains(&format!("{field}: ")),
            "{field}: {planned:?}"
        );
    }
    assert!(
        planned
            .errors
            .contains("odd.yaml: OpenSearchDomain odd: spec"),
        "{planned:?}"
    );
}

#[test]
fn a_grant_on_a_domain_that_is_not_there() {
    let folder = folder();
    folder.write(
        "bad.yaml",
        &bad("  access: Read").replace("{name: logs}", "{name: nowhere}"),
    );
    let planned = folder.plan(&[]);
    leaves_a_alone(&planned);
    let said = "bad.yaml: DomainAccess team-a/bad: spec.domainRef.name: no OpenSearchDomain \
                \"nowhere\" is among the manifests";
    assert!(planned.errors.contains(said), "{planned:?}");
    let refused = &planned.json()["domains"]["nowhere"]["refused"][0];
    assert_eq!(refused["reason"], "DomainNotFound");
}

#[test]
fn an_object_of_another_version_or_kind() {
    let old = bad("  access: Read").replace("io/v1alpha1", "io/v1");
    refuses(
        &old,
        "InvalidSpec",
        "apiVersion: \"opensearch-access.io/v1\" is not a version",
    );
    let kind = bad("  access: Read").replace("kind: DomainAccess", "kind: DomainGrant");
    beside(
        &kind,
        &["DomainGrant team-a/bad: kind: \"DomainGrant\" is not a kind of this operator"],
    );
    let nameless = bad("  access: Read").replace("name: bad, ", "");
    beside(
        &nameless,
        &["DomainAccess team-a: metadata.name: an object needs a name"],
    );
}

#[test]
fn an_empty_folder_and_a_missing_file() {
    let folder = folder();
    let empty = folder.file("empty");
    std::fs::create_dir(&empty).unwrap();
    let missing = folder.file("missing.yaml");
    let more = |path: &std::path::Path| folder.plan(&["-f", path.to_str().unwrap()]);
    let planned = more(&empty);
    leaves_a_alone(&planned);
    let said = format!(
        "error: {}: the folder holds no .yaml, .yml or .json file",
        empty.display()
    );
    assert!(planned.errors.contains(&said), "{planned:?}");
    let planned = more(&missing);
    leaves_a_alone(&planned);
    let said = format!("error: {}: failed to read: No such file", missing.display());
    assert!(planned.errors.contains(&said), "{planned:?}");

    let nothing = run(["plan", "-f", missing.to_str().unwrap()], "");
    assert_eq!(
        (nothing.code, nothing.output.as_str()),
        (1, ""),
        "{nothing:?}"
    );
}

#[test]
fn a_policy_file_that_wraps_a_policy_is_not_taken_for_none() {
    let folder = folder();
    let file = folder.write(
        "current.policy",
        r#"{"DomainConfig":{"AccessPolicies":{"Options":"{}"}}}"#,
    );
    let path = folder.path().to_str().unwrap();
    let current = format!("logs={}", file.display());
    for flag in ["--current", "--last-applied"] {
        let said = run(["plan", "-f", path, flag, &current], "");
        assert_eq!((said.code, said.output.as_str()), (1, ""), "{said:?}");
        assert!(said.errors.contains("it has no Statement"), "{said:?}");
    }
}

#[test]
fn a_policy_file_that_is_none() {
    let folder = folder();
    let file = folder.write("current.policy", "[]");
    let broken = format!("logs={}", file.display());
    for (args, said) in [
        (
            vec!["--current", &*broken],
            "current.policy is not an access policy: ",
        ),
        (
            vec!["--last-applied", &*broken],
            "current.policy is not an access policy: ",
        ),
        (
            vec!["--current", "logs=/nowhere"],
            "failed to read /nowhere: No such file",
        ),
        (vec!["--current", "logs"], "write it as DOMAIN=FILE"),
        (
            vec!["--current", "a=/dev/null"],
            "no OpenSearchDomain \"a\" is among the manifests",
        ),
        (
            vec!["--current", "logs=/dev/null", "--current", "logs=/dev/null"],
            "domain \"logs\" is given a file twice",
        ),
    ] {
        let planned = folder.plan(&args);
        assert_eq!(planned.code, 1, "{planned:?}");
        assert!(planned.errors.contains(said), "{said}: {planned:?}");
    }
}

#[test]
fn a_command_line_that_is_none_is_an_error_and_not_a_change() {
    for args in [
        &["plan"][..],
        &["plan", "-f"],
        &["plan", "-f", "x", "--odd"],
        &["odd"],
        &[],
    ] {
        let refused = run(args.iter().copied(), "");
        assert_eq!(refused.code, 1, "{args:?}: {refused:?}");
        assert!(
            !refused.errors.is_empty() && refused.output.is_empty(),
            "{args:?}: {refused:?}"
        );
    }
    for args in [["plan", "--help"], ["--version", ""]] {
        let told = run(args.into_iter().filter(|it| !it.is_empty()), "");
        assert_eq!((told.code, told.errors.as_str()), (0, ""), "{told:?}");
    }
    assert!(run(["plan", "--help"], "").output.contains("Exit code: 0"));
}

#[test]
fn only_the_folder_says_what_there_is() {
    let planned = Folder::new([("a.yaml", &*bad("  access: Read"))]).plan(&[]);
    assert_eq!(planned.code, 1);
    let logs = planned.logs();
    assert_eq!(
        logs["refused"][0]["reason"], "DomainNotFound",
        "{planned:?}"
    );
    assert_eq!(
        (&logs["accessPolicy"], &logs["added"]),
        (&Value::Null, &json!([]))
    );
}
