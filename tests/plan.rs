//! `plan`: manifests in, access policies out, by the program itself and without a cluster or AWS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use serde_json::{Value, json};

use self::meaning::meaning;
use self::program::{DOMAIN, Folder, grant, role, run};

#[path = "plan/input.rs"]
mod input;
#[path = "plan/meaning.rs"]
mod meaning;
#[path = "plan/program.rs"]
mod program;
#[path = "plan/refusals.rs"]
mod refusals;
#[path = "plan/service_accounts.rs"]
mod service_accounts;
#[path = "plan/unread.rs"]
mod unread;

/// The resource of everything below the domain `logs`.
const ALL: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs/*";

fn document(statements: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Returns the statement that a grant with access `ReadWrite` compiles to.
fn read_write(name: &str) -> Value {
    json!({"Effect": "Allow", "Principal": {"AWS": role(name)}, "Action": "es:*", "Resource": ALL})
}

/// Returns a folder with the domain and the grant `a`.
fn folder() -> Folder {
    Folder::new([
        ("domain.yaml", DOMAIN),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
    ])
}

#[test]
fn the_examples_are_the_first_real_input() {
    let planned = run(["plan", "-f", "deploy/examples", "-o", "json"], "");
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (2, ""),
        "{planned:?}"
    );
    let expected: Value = serde_json::from_str(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:role/es-role","arn:aws:iam::111122223333:user/es-user"]},"Action":"es:*","Resource":"arn:aws:es:eu-west-1:111122223333:domain/my-domain/*"},{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"es:*","Resource":"arn:aws:es:eu-west-1:111122223333:domain/my-domain/*","Condition":{"IpAddress":{"aws:SourceIp":["198.51.100.7","203.0.113.0/24"]}}}]}"#,
    )
    .unwrap();
    let domain = &planned.json()["domains"]["my-domain"];
    assert_eq!(meaning(&domain["accessPolicy"]), meaning(&expected));
    assert_eq!(meaning(&document(&domain["added"])), meaning(&expected));
    assert_eq!(
        (&domain["removed"], &domain["refused"]),
        (&json!([]), &json!([]))
    );

    let [attached] = domain["identityPolicies"].as_array().unwrap().as_slice() else {
        panic!("not one identity policy: {domain}")
    };
    assert_eq!(
        attached["roleArn"],
        "arn:aws:iam::111122223333:role/es-role"
    );
    let resource = "arn:aws:es:eu-west-1:111122223333:domain/my-domain/*";
    let statement = json!({"Effect": "Allow", "Action": "es:*", "Resource": resource});
    assert_eq!(attached["policy"], document(&json!([statement])));
}

#[test]
fn the_json_has_its_documented_shape() {
    let folder = folder();
    folder.write("b.yaml", &grant("b", "  access: Admin\n  paths: [x]"));
    let planned = folder.plan(&[]).json();
    assert_eq!(
        planned.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["domains"]
    );
    let logs = planned["domains"]["logs"].as_object().unwrap();
    let keys: Vec<&str> = logs.keys().map(String::as_str).collect();
    assert_eq!(keys, ["accessPolicy", "added", "refused", "removed"]);
    assert_eq!(
        logs["refused"],
        json!([{
            "kind": "DomainAccess",
            "namespace": "team-a",
            "name": "b",
            "reason": "InvalidSpec",
            "message": "spec.paths: access Admin is for the whole domain: leave paths out, or ask \
                        for ReadWrite",
        }])
    );
}

#[test]
fn a_domain_without_a_policy_and_without_grants_stays_so() {
    let planned = Folder::new([("domain.yaml", DOMAIN)]).plan(&[]);
    assert_eq!((planned.code, planned.errors.as_str()), (0, ""));
    let expected = json!({"accessPolicy": null, "added": [], "removed": [], "refused": []});
    assert_eq!(planned.logs(), expected);
}

#[test]
fn a_policy_of_the_same_meaning_needs_no_change() {
    let folder = folder();
    let both = "  access: ReadWrite\n  conditions: {sourceIps: [198.51.100.7, 203.0.113.0/24]}";
    folder.write("b.yaml", &grant("b", both));
    let account = grant("c", "  access: ReadWrite").replace(
        &format!(r#"[{{iamRole: {{arn: "{}"}}}}]"#, role("c")),
        r#"[{account: {id: "444455556666"}}]"#,
    );
    folder.write("c.yaml", &account);
    let addresses = json!(["203.0.113.0/24", "198.51.100.7/32"]);
    let current = json!({"Id": "kept", "Version": "2012-10-17", "Statement": [
        {
            "Sid": "Account",
            "Effect": "Allow",
            "Principal": {"AWS": "444455556666"},
            "Action": ["es:ESHttpPut", "es:ESHttpGet", "es:ESHttpHead", "es:ESHttpPost",
                "es:ESHttpPatch", "es:ESHttpDelete"],
            "Resource": [ALL],
        },
        {
            "Resource": ALL,
            "Action": ["es:ESHttp*"],
            "Principal": {"AWS": [role("b")]},
            "Condition": {"IpAddress": {"aws:sourceIp": addresses}},
            "Effect": "Allow",
            "Sid": "",
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": [role("a")]},
            "Action": "es:*",
            "Resource": ALL,
        },
    ]});
    for spelled in [
        current.clone(),
        reversed(&current),
        json!({"Id": "kept", "Version": "2012-10-17", "Statement": [
            current["Statement"][1],
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["arn:aws:iam::444455556666:root", role("a")]},
                "Action": "es:*",
                "Resource": ALL,
            },
        ]}),
    ] {
        let current = folder.of_logs("current.policy", &spelled);
        let planned = folder.plan(&["--current", &current]);
        assert_eq!(
            (planned.code, planned.errors.as_str()),
            (0, ""),
            "{spelled}: {planned:?}"
        );
        let expected = json!({"accessPolicy": spelled, "added": [], "removed": [], "refused": []});
        assert_eq!(planned.logs(), expected);
    }
}

/// Returns the document with every list in the opposite order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().rev().map(reversed).collect(),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, value)| (key.clone(), reversed(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

#[test]
fn a_change_is_what_is_not_there_yet() {
    let folder = folder();
    folder.write("b.yaml", &grant("b", "  access: ReadWrite"));
    let current = folder.of_logs("current.policy", &document(&json!([read_write("a")])));
    let planned = folder.plan(&["--current", &current]);
    assert_eq!((planned.code, planned.errors.as_str()), (2, ""));
    let logs = planned.logs();
    assert_eq!(logs["added"], json!([read_write("b")]));
    assert_eq!(logs["removed"], json!([]));
    let both = document(&json!([read_write("a"), read_write("b")]));
    assert_eq!(meaning(&logs["accessPolicy"]), meaning(&both));
}

#[test]
fn the_statements_of_others_survive_with_elements_that_nobody_knows() {
    let folder = folder();
    let others = [
        json!({"Sid": "Odd", "Effect": "Allow", "Principal": {"AWS": role("x")},
            "NotAction": "es:ESHttpDelete", "Resource": ALL, "Later": {"a": [1, null]}}),
        json!({"Effect": "Deny", "NotPrincipal": {"AWS": [role("y")]}, "Action": "es:*",
            "Resource": [ALL]}),
        json!({"Effect": "Allow", "Principal": {"Service": "es.amazonaws.com"},
            "Action": "es:ESHttpGet", "Resource": ALL}),
        read_write("z"),
    ];
    let document = json!({"Id": "x", "Version": "2008-10-17", "Statement": others});
    let current = folder.of_logs("current.policy", &document);
    let planned = folder.plan(&["--current", &current]);
    let logs = planned.logs();
    assert_eq!(
        (planned.code, &logs["removed"]),
        (2, &json!([])),
        "{planned:?}"
    );
    assert_eq!(logs["added"], json!([read_write("a")]));
    let policy = &logs["accessPolicy"];
    assert_eq!(
        (&policy["Id"], &policy["Version"]),
        (&json!("x"), &json!("2008-10-17"))
    );
    let statements = policy["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 5);
    assert_eq!(statements[..4], others);
}

#[test]
fn mode_own_drops_what_others_allow_and_keeps_what_they_deny() {
    let folder = folder();
    folder.write(
        "domain.yaml",
        &format!("{DOMAIN}  accessPolicy: {{mode: Own}}\n"),
    );
    let denial = json!({"Effect": "Deny", "Principal": "*", "Action": "es:ESHttpDelete",
        "Resource": ALL});
    let odd = json!({"Effect": "Allow", "Principal": {"AWS": role("x")},
        "NotAction": "es:ESHttpDelete", "Resource": ALL});
    for others in [
        vec![read_write("z")],
        vec![odd.clone()],
        vec![read_write("z"), odd],
    ] {
        let mut statements = vec![denial.clone(), read_write("a")];
        statements.extend(others.clone());
        let current = folder.of_logs("current.policy", &document(&statements.into()));
        let planned = folder.plan(&["--current", &current]);
        let logs = planned.logs();
        assert_eq!(
            (planned.code, planned.errors.as_str()),
            (2, ""),
            "{others:?}"
        );
        assert_eq!(logs["removed"], Value::from(others));
        assert_eq!(logs["added"], json!([]));
        assert_eq!(
            logs["accessPolicy"],
            document(&json!([denial, read_write("a")]))
        );
    }
}

#[test]
fn what_was_applied_and_is_not_asked_for_any_more_is_removed() {
    let folder = folder();
    let current = document(&json!([
        read_write("a"),
        read_write("gone"),
        read_write("other")
    ]));
    let applied = document(&json!([read_write("a"), read_write("gone")]));
    let current = folder.of_logs("current.policy", &current);
    let applied = folder.of_logs("applied.policy", &applied);
    let planned = folder.plan(&["--current", &current, "--last-applied", &applied]);
    let logs = planned.logs();
    assert_eq!((planned.code, planned.errors.as_str()), (2, ""));
    assert_eq!(logs["removed"], json!([read_write("gone")]));
    assert_eq!(logs["added"], json!([]));
    let kept = document(&json!([read_write("other"), read_write("a")]));
    assert_eq!(meaning(&logs["accessPolicy"]), meaning(&kept));

    let planned = folder.plan(&["--current", &current]);
    assert_eq!(
        (planned.code, &planned.logs()["removed"]),
        (0, &json!([])),
        "{planned:?}"
    );
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = folder();
    folder.write("b.yaml", &grant("b", "  access: Read\n  paths: [w, x]"));
    let shuffled = folder.write(
        "more/0.yaml",
        &grant("b", "  paths: [x, w]\n  access: Read"),
    );
    let files = ["domain.yaml", "a.yaml", "b.yaml"].map(|name| folder.file(name));
    let plan = |files: &[&std::path::Path], output: &str| {
        let files = files.iter().flat_map(|file| ["-f", file.to_str().unwrap()]);
        let planned = run(["plan", "-o", output].into_iter().chain(files), "");
        assert_eq!(planned.code, 2, "{planned:?}");
        planned.output
    };
    for output in ["json", "diff"] {
        let first = plan(&[&files[0], &files[1], &files[2]], output);
        assert_eq!(first, plan(&[&files[0], &files[1], &files[2]], output));
        assert_eq!(first, plan(&[&shuffled, &files[1], &files[0]], output));
    }
}

#[test]
fn the_diff_is_readable_and_has_no_colours_in_a_pipe() {
    let folder = folder();
    folder.write("b.yaml", &grant("b", "  access: ReadWrite\n  paths: [x]"));
    folder.write("c.yaml", &grant("c", "  access: Admin\n  paths: [x]"));
    let current = folder.of_logs("current.policy", &document(&json!([read_write("other")])));
    let path = folder.path().to_str().unwrap();
    let planned = run(["plan", "-f", path, "--current", &current], "");
    assert_eq!(planned.code, 1, "{planned:?}");
    let text = &planned.output;
    assert!(
        !text.contains('\u{1b}') && !planned.errors.contains('\u{1b}'),
        "{planned:?}"
    );
    let heading = "domain logs: 3 statements to add, 0 to remove, 1 of others; ";
    assert!(text.starts_with(heading), "{text}");
    let line = |sign: char, part: &str| {
        let begins = format!("  {sign} ");
        text.lines()
            .any(|line| line.starts_with(&begins) && line.contains(part))
    };
    assert!(line('+', &role("a")) && line('+', &role("b")), "{text}");
    assert!(
        !text.contains(&role("other")) && text.contains("    1 statement as before\n"),
        "what stays is counted: {text}"
    );
    assert!(
        text.contains("warning: team-a/b: a path rule sees the path"),
        "{text}"
    );
    assert!(
        text.lines().next().unwrap().ends_with("; 1 refused"),
        "{text}"
    );
    // Which, and why, is said once.
    let said = "c.yaml: DomainAccess team-a/c: spec.paths: ";
    assert_eq!(planned.errors.matches(said).count(), 1, "{planned:?}");
    assert!(planned.errors.ends_with(" (InvalidSpec)\n"), "{planned:?}");
    assert!(!text.contains("team-a/c"), "{text}");
}

#[test]
fn colours_are_as_the_command_line_says() {
    let folder = folder();
    let path = folder.path().to_str().unwrap();
    let coloured = |args: &[&str]| {
        let planned = run([&["plan", "-f", path], args].concat(), "");
        assert_eq!(planned.code, 2, "{planned:?}");
        planned.output.contains("\u{1b}[32m+ {")
    };
    assert!(coloured(&["--color", "always"]));
    assert!(!coloured(&["--color", "never"]) && !coloured(&["--color", "auto"]) && !coloured(&[]));
    let json = run(["plan", "-f", path, "-o", "json", "--color", "always"], "");
    assert!(!json.output.contains('\u{1b}'), "{json:?}");
}

#[test]
fn a_change_of_a_respelt_statement_is_shown_alone() {
    let folder = folder();
    let both = grant("a", "  access: ReadWrite").replace(
        "principals: [",
        &format!("principals: [{{iamRole: {{arn: \"{}\"}}}}, ", role("b")),
    );
    folder.write("a.yaml", &both);
    let mut respelt = read_write("a");
    respelt["Action"] = json!(["es:ESHttp*"]);
    respelt["Resource"] = json!([ALL]);
    let odd = json!({"Resource": [ALL], "NotAction": ["es:ESHttpGet"], "Effect": "Deny",
        "Principal": {"AWS": role("c")}});
    let current = folder.of_logs("current.policy", &document(&json!([odd, respelt])));
    let path = folder.path().to_str().unwrap();
    let planned = run(["plan", "-f", path, "--current", &current], "");
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (2, ""),
        "{planned:?}"
    );
    let lines = |sign: char| {
        let begins = format!("  {sign} ");
        let lines = planned.output.lines();
        lines
            .filter_map(|line| line.strip_prefix(&begins).map(str::trim).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let (added, removed) = (lines('+'), lines('-'));
    assert_eq!(
        removed,
        [format!("\"AWS\": \"{}\"", role("a"))],
        "{planned:?}"
    );
    let expected = [
        "\"AWS\": [".to_owned(),
        format!("\"{}\",", role("a")),
        format!("\"{}\"", role("b")),
        "]".to_owned(),
    ];
    assert_eq!(added, expected, "{planned:?}");
}
