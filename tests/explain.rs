//! `explain`: who may do what, by the program itself, from manifests and from policy documents.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use serde_json::{Value, json};

use self::program::{DOMAIN, Folder, Planned, grant, role, run};

#[allow(dead_code, reason = "shared with tests/plan.rs, which uses all of it")]
#[path = "plan/program.rs"]
mod program;

const ALL: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs/*";

fn folder() -> Folder {
    Folder::new([
        ("domain.yaml", DOMAIN),
        (
            "reads.yaml",
            &grant("reads", "  access: Read\n  paths: [x-*]"),
        ),
        (
            "writes.yaml",
            &grant("writes", "  access: ReadWrite\n  paths: [x-*]"),
        ),
    ])
}

fn explain(folder: &Folder, args: &[&str]) -> Planned {
    let folder = folder.path().to_str().unwrap();
    run([&["explain", "-f", folder], args].concat(), "")
}

/// Asks, and gives the answer as JSON.
fn ask(folder: &Folder, principal: &str, action: &str, path: &str, more: &[&str]) -> Value {
    let question = ["-o", "json", "--action", action, "--path", path];
    let principal = match principal {
        "" => vec![],
        arn => vec!["--principal", arn],
    };
    let said = explain(folder, &[&question, &principal[..], more].concat());
    assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
    said.json()
}

#[test]
fn an_answer_has_its_documented_shape_and_names_the_manifest() {
    let folder = folder();
    let said = explain(
        &folder,
        &[
            "-o",
            "json",
            "--principal",
            &role("writes"),
            "--action",
            "es:ESHttpPut",
            "--path",
            "/x-1/_doc/1?refresh",
        ],
    );
    assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
    let places: Vec<usize> = ["decision", "statements", "manifests", "why"]
        .map(|key| said.output.find(&format!("\"{key}\"")).unwrap())
        .to_vec();
    assert!(places.is_sorted(), "{said:?}");
    let file = folder.file("writes.yaml").display().to_string();
    assert_eq!(
        said.json(),
        json!({
            "decision": "Allow",
            "statements": [{"Effect": "Allow", "Principal": {"AWS": role("writes")},
                "Action": "es:*", "Resource": format!("{}x-*", ALL.trim_end_matches('*'))}],
            "manifests": [{"kind": "DomainAccess", "namespace": "team-a", "name": "writes",
                "file": file}],
            "why": "the access policy allows it",
        })
    );
}

#[test]
fn what_is_not_granted_is_no_allowance() {
    let folder = folder();
    for (principal, action, path, decision) in [
        (role("reads"), "es:ESHttpGet", "/x-1", "Allow"),
        (role("reads"), "es:eshttppost", "/x-1/_search", "Allow"),
        (role("reads"), "es:ESHttpPost", "/x-1/_doc", "Unknown"),
        (role("reads"), "es:ESHttpGet", "/y", "Unknown"),
        (
            "arn:aws:sts::111122223333:assumed-role/reads/s".into(),
            "es:ESHttpGet",
            "/x-1",
            "Allow",
        ),
        (role("nobody"), "es:ESHttpGet", "/x-1", "Unknown"),
        (
            "arn:aws:iam::444455556666:role/reads".into(),
            "es:ESHttpGet",
            "/x-1",
            "Deny",
        ),
        (String::new(), "es:ESHttpGet", "/x-1", "Deny"),
    ] {
        let answer = ask(&folder, &principal, action, path, &[]);
        assert_eq!(
            answer["decision"], decision,
            "{principal} {action} {path}: {answer}"
        );
        let manifests = answer["manifests"].as_array().unwrap().len();
        assert_eq!(manifests, usize::from(decision == "Allow"), "{answer}");
    }
}

#[test]
fn conditions_are_asked_by_their_flags() {
    let folder = folder();
    let office = "  access: Read\n  conditions: {sourceIps: [203.0.113.0/24]}";
    folder.write("office.yaml", &grant("office", office));
    let endpoint = "  access: Read\n  conditions: {sourceVpces: [vpce-0a1b2c3d]}";
    folder.write("endpoint.yaml", &grant("endpoint", endpoint));
    let organization = "  access: Read\n  conditions: {principalOrgIds: [o-a1b2c3d4e5]}";
    folder.write("org.yaml", &grant("org", organization));
    let vpc = "  access: Read\n  conditions: {sourceVpcs: [vpc-0a1b2c3d]}";
    folder.write("vpc.yaml", &grant("vpc", vpc));
    for (name, args, firm) in [
        ("office", &["--source-ip", "203.0.113.9"][..], true),
        ("office", &["--source-ip", "198.51.100.7"], false),
        ("office", &["--vpce", "vpce-0a1b2c3d"], false),
        ("endpoint", &["--vpce", "vpce-0a1b2c3d"], true),
        ("endpoint", &["--vpce", "vpce-99999999"], false),
        ("endpoint", &["--source-ip", "203.0.113.9"], false),
        ("org", &["--org-id", "o-a1b2c3d4e5"], true),
        ("org", &["--org-id", "o-zzzzzzzzzz"], false),
        ("vpc", &["--context", "aws:SourceVpc=vpc-0a1b2c3d"], true),
        ("vpc", &["--context", "aws:sourcevpc=vpc-1"], false),
    ] {
        let answer = ask(&folder, &role(name), "es:ESHttpGet", "/x", args);
        let found = (
            answer["decision"].as_str(),
            answer["manifests"].as_array().map(Vec::len),
        );
        let expected = if firm {
            (Some("Allow"), Some(1))
        } else {
            (Some("Unknown"), Some(0))
        };
        assert_eq!(found, expected, "{name} {args:?}: {answer}");
    }
    let open = ask(&folder, &role("office"), "es:ESHttpGet", "/x", &[]);
    assert_eq!(open["decision"], "Unknown");
    assert_eq!(open["manifests"][0]["name"], "office", "{open}");
}

#[test]
fn a_denial_of_others_decides_and_no_manifest_is_behind_it() {
    let folder = folder();
    let denial = json!({"Effect": "Deny", "Principal": "*", "Action": "es:ESHttpDelete",
        "Resource": ALL});
    let current = folder.of_logs("current.policy", &json!({"Statement": [denial]}));
    let more = ["--current", current.as_str()];
    let answer = ask(&folder, &role("writes"), "es:ESHttpDelete", "/x-1", &more);
    assert_eq!(
        (
            &answer["decision"],
            &answer["statements"],
            &answer["manifests"]
        ),
        (&json!("Deny"), &json!([denial]), &json!([]))
    );
    let answer = ask(&folder, &role("writes"), "es:ESHttpPut", "/x-1", &more);
    assert_eq!(answer["decision"], "Allow");
}

#[test]
fn a_search_from_another_cluster_is_about_the_domain_itself() {
    let folder = folder();
    let everything = "es:*";
    let policy = |resource: &str, action: &str| {
        json!({"Statement": [{"Effect": "Allow", "Principal": {"AWS": role("a")},
            "Action": action, "Resource": resource}]})
    };
    for (resource, action, decision) in [
        (ALL.trim_end_matches("/*"), "es:ESCrossClusterGet", "Allow"),
        (ALL, everything, "Unknown"),
        (ALL, "es:ESCrossClusterGet", "Unknown"),
    ] {
        let file = folder.write("p.policy", &policy(resource, action).to_string());
        let args = [
            "explain",
            "--policy",
            file.to_str().unwrap(),
            "-o",
            "json",
            "--principal",
            &role("a"),
            "--action",
            "es:ESCrossClusterGet",
        ];
        assert_eq!(
            run(args, "").json()["decision"],
            decision,
            "{resource} {action}"
        );
    }
}

#[test]
fn the_matrix_says_who_may_do_what_and_by_whom() {
    let folder = folder();
    let until = "  access: Read\n  expiresAt: 2999-12-31T00:00:00Z\n  conditions: {sourceIps: [203.0.113.0/24]}";
    folder.write("until.yaml", &grant("until", until));
    let theirs = json!({"Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "444455556666"}, "Action": "es:ESHttpGet",
            "Resource": ALL},
        {"Effect": "Deny", "Principal": "*", "NotAction": "es:ESHttpGet", "Resource": ALL},
    ]});
    let current = folder.of_logs("current.policy", &theirs);
    let said = explain(&folder, &["--current", &current, "-o", "json"]);
    assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
    let row = |who: &str, effect: &str, level: &str, paths: &[&str], by: &str| json!({"who": who, "effect": effect, "level": level, "paths": paths, "from": [], "by": by});
    let mut last = row(&role("until"), "Allow", "Read", &["*"], "team-a/until");
    last["from"] = json!(["address 203.0.113.0/24"]);
    last["until"] = "2999-12-31T00:00:00Z".into();
    assert_eq!(
        said.json(),
        json!({"domain": ALL.trim_end_matches("/*"), "rows": [
            row("account 444455556666", "Allow", "es:ESHttpGet", &["*"], "others"),
            row("anyone, signed or not", "Deny", "not es:ESHttpGet", &["*"], "others"),
            row(&role("reads"), "Allow", "Read", &["x-*"], "team-a/reads"),
            last,
            row(&role("writes"), "Allow", "ReadWrite", &["x-*"], "team-a/writes"),
        ]})
    );

    let table = explain(&folder, &["--current", &current]);
    let lines: Vec<&str> = table.output.lines().collect();
    assert_eq!((table.code, lines.len()), (0, 6), "{table:?}");
    assert!(!table.output.contains('\u{1b}'), "{table:?}");
    let columns: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        columns,
        ["WHO", "EFFECT", "LEVEL", "PATHS", "FROM", "UNTIL", "BY"]
    );
    for line in &lines[1..] {
        let place = lines[0].find("EFFECT").unwrap();
        let effect = line.get(place..).and_then(|rest| rest.split(' ').next());
        assert!(matches!(effect, Some("Allow" | "Deny")), "{line}");
    }

    let until = |by: &str| {
        let line = lines.iter().find(|it| it.ends_with(by)).unwrap();
        let place = lines[0].find("UNTIL").unwrap();
        let cell = line.get(place..).and_then(|it| it.split("  ").next());
        cell.unwrap().to_owned()
    };
    assert_eq!(until("team-a/until"), "2999-12-31T00:00:00Z");
    assert_eq!(until("team-a/reads"), "no end");
    assert_eq!(until("others"), "no end");

    let page = explain(&folder, &["--current", &current, "-o", "html"]).output;
    assert_eq!(page.matches("<td>no end</td>").count(), 4, "{page}");
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert_eq!(page.matches("<tr").count(), 6, "{page}");
    for part in [
        role("until").as_str(),
        "address 203.0.113.0/24",
        "2999-12-31T00:00:00Z",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn a_policy_document_is_explained_by_itself() {
    let folder = folder();
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": role("a")},
        "Action": "es:ESHttp*", "Resource": ALL});
    let file = folder.write("a.policy", &json!({"Statement": statement}).to_string());
    let file = file.to_str().unwrap();
    let question = [
        "explain",
        "--policy",
        file,
        "-o",
        "json",
        "--action",
        "es:ESHttpGet",
        "--path",
        "/x",
        "--principal",
    ];
    let answer = run([&question[..], &[&role("a")]].concat(), "").json();
    assert_eq!(
        (&answer["decision"], &answer["statements"]),
        (&json!("Allow"), &json!([statement]))
    );
    assert_eq!(answer["manifests"], json!([]));

    let of = |arn: &str| {
        run(
            [&question[..], &[&role("a"), "--domain-arn", arn]].concat(),
            "",
        )
    };
    assert_eq!(of(ALL.trim_end_matches("/*")).json()["decision"], "Allow");
    let other = of("arn:aws:es:eu-west-1:111122223333:domain/other");
    assert_eq!(other.json()["decision"], "Unknown");
    let matrix = run(["explain", "--policy", file, "-o", "json"], "").json();
    assert_eq!(matrix["rows"][0]["by"], "others");
}

#[test]
fn a_refused_grant_is_left_out_and_said() {
    let folder = folder();
    folder.write(
        "admin.yaml",
        &grant("admin", "  access: Admin\n  paths: [x]"),
    );
    folder.write("typo.yaml", &grant("typo", "  acess: Read"));
    let said = explain(
        &folder,
        &[
            "-o",
            "json",
            "--principal",
            &role("admin"),
            "--action",
            "es:ESHttpGet",
        ],
    );
    assert_eq!(
        (said.code, &said.json()["decision"]),
        (0, &json!("Unknown"))
    );
    for name in ["admin", "typo"] {
        let note = format!("{name}.yaml: DomainAccess team-a/{name} is refused and left out: ");
        assert!(said.errors.contains(&note), "{said:?}");
    }
}

#[test]
fn a_grant_that_finds_no_room_is_not_there() {
    let folder = folder();
    let others: Vec<Value> = (0..700)
        .map(|n| {
            json!({"Effect": "Allow", "Principal": {"AWS": role(&format!("other-{n}"))},
            "Action": "es:*", "Resource": ALL})
        })
        .collect();
    let current = folder.of_logs("current.policy", &json!({"Statement": others}));
    let said = explain(
        &folder,
        &[
            "-o",
            "json",
            "--current",
            &current,
            "--principal",
            &role("writes"),
            "--action",
            "es:ESHttpGet",
            "--path",
            "/x-1",
        ],
    );
    assert_eq!(
        (said.code, &said.json()["decision"]),
        (0, &json!("Unknown"))
    );
    assert!(
        said.errors.contains("is refused and left out"),
        "{}",
        said.errors
    );
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let folder = folder();
    folder.write("bad.policy", "{");
    folder.write("nowhere.policy", r#"{"Statement":[]}"#);
    let bad = folder.file("bad.policy").display().to_string();
    let nowhere = folder.file("nowhere.policy").display().to_string();
    let path = folder.path().to_str().unwrap().to_owned();
    let ask = ["-f", path.as_str(), "--action", "es:ESHttpGet"];
    let policy = ["--policy", nowhere.as_str()];
    for (args, rule) in [
        (&[][..], "required"),
        (&["-f", "/nowhere"], "/nowhere: failed to read"),
        (&["-f", &path, "--policy", &bad], "cannot be used with"),
        (&["--policy", &bad], "is not an access policy"),
        (&policy, "no resource of the policy names a domain"),
        (
            &[&policy[..], &["--domain-arn", "logs"]].concat(),
            "is not the ARN of a domain",
        ),
        (
            &["-f", &path, "--domain", "other"],
            "no OpenSearchDomain \"other\"",
        ),
        (&["-f", &path, "--current", "other=x"], "failed to read x"),
        (
            &["-f", &path, "--current", &format!("other={nowhere}")],
            "--current: no OpenSearchDomain",
        ),
        (&["-f", &path, "--principal", &role("a")], "--action"),
        (
            &["-f", &path, "--action", "es:*"],
            "is not an action on a domain's data",
        ),
        (
            &["-f", &path, "--action", "es:CreateDomain"],
            "is not an action on a domain's data",
        ),
        (
            &[&ask[..], &["--principal", "a"]].concat(),
            "is not the ARN of a caller",
        ),
        (
            &[&ask[..], &["--path", "x"]].concat(),
            "is not the path of a request",
        ),
        (
            &[&ask[..], &["--source-ip", "x"]].concat(),
            "is not an IP address",
        ),
        (
            &[&ask[..], &["--vpce", "x"]].concat(),
            "is not a VPC endpoint id",
        ),
        (
            &[&ask[..], &["--org-id", "o-a1b2c3d4e5"]].concat(),
            "an unsigned request is of no organization",
        ),
        (&[&ask[..], &["--context", "x"]].concat(), "KEY=VALUE"),
        (
            &[&ask[..], &["-o", "html"]].concat(),
            "leave the question out",
        ),
    ] {
        let said = run([&["explain"], args].concat(), "");
        assert_eq!(
            (said.code, said.output.as_str()),
            (1, ""),
            "{args:?}: {said:?}"
        );
        assert!(said.errors.contains(rule), "{args:?}: {said:?}");
    }
    folder.write("second.yaml", &DOMAIN.replace("name: logs", "name: second"));
    let two = run(["explain", "-f", &path], "");
    assert!(
        two.code == 1
            && two
                .errors
                .contains("say which one with --domain: logs, second"),
        "{two:?}"
    );
    assert_eq!(
        run(["explain", "-f", &path, "--domain", "logs"], "").code,
        0
    );
    folder.write("broken.yaml", "apiVersion: [");
    assert_eq!(
        run(["explain", "-f", &path, "--domain", "logs"], "").code,
        1
    );
}

/// A domain with fine-grained access control, a role that a team defines, and who has it.
fn both_halves() -> Folder {
    let domain = DOMAIN.replace("  consent:", "  fineGrainedAccess: {}\n  consent:");
    let domain = domain.replace(
        "access: ReadWrite\n",
        "access: ReadWrite\n        securityRoles: [\"{{namespace}}.*\"]\n",
    );
    let role = r#"
apiVersion: opensearch-access.io/v1alpha1
kind: DomainRole
metadata: {name: reader, namespace: team-a}
spec:
  domainRef: {name: logs}
  indexPermissions:
    - {indexPatterns: ["a-*"], allowedActions: [read], dls: '{"term": {"team": "a"}}'}
"#;
    Folder::new([
        ("domain.yaml", &*domain),
        ("role.yaml", role),
        (
            "reads.yaml",
            &grant(
                "reads",
                "  access: ReadWrite\n  securityRoles: [team-a.reader]",
            ),
        ),
    ])
}

#[test]
fn where_roles_decide_too_the_answer_is_about_both_halves() {
    let folder = both_halves();
    let reads = role("reads");
    let answer = ask(&folder, &reads, "es:ESHttpGet", "/a-1/_search", &[]);
    assert_eq!(answer["decision"], "Allow", "{answer:#}");
    assert_eq!(answer["door"]["decision"], "Allow", "{answer:#}");
    let permissions = &answer["permissions"];
    assert_eq!(permissions["decision"], "Allow", "{answer:#}");
    assert_eq!(permissions["roles"], json!(["team-a.reader"]));
    assert_eq!(permissions["filters"]["team-a.reader"]["rows"], true);
    let kinds: Vec<&str> = answer["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["DomainAccess", "DomainRole"], "{answer:#}");
    // What the role lacks, another that was not read may permit.
    for (action, path, word) in [
        ("es:ESHttpPut", "/a-1/_doc/1", "indices:data/write"),
        ("es:ESHttpGet", "/b-1/_search", "b-1"),
    ] {
        let answer = ask(&folder, &reads, action, path, &[]);
        assert_eq!(answer["decision"], "Unknown", "{answer:#}");
        assert_eq!(answer["door"]["decision"], "Allow", "{answer:#}");
        let why = answer["why"].as_str().unwrap();
        assert!(why.contains(word) && why.contains("--live"), "{why}");
    }
    // The door alone denies whoever it does not let in.
    let stranger = "arn:aws:iam::999999999999:role/x";
    let answer = ask(&folder, stranger, "es:ESHttpGet", "/a-1/_search", &[]);
    assert_eq!(answer["decision"], "Deny", "{answer:#}");
    let why = answer["why"].as_str().unwrap();
    assert!(why.starts_with("the access policy denies it"), "{why}");
}

#[test]
fn the_matrix_has_both_halves() {
    let folder = both_halves();
    let matrix = explain(&folder, &["-o", "json"]).json();
    assert_eq!(matrix["rows"][0]["who"], role("reads"));
    assert_eq!(matrix["roles"][0]["who"], role("reads"));
    assert_eq!(matrix["roles"][0]["role"], "team-a.reader");
    let table = explain(&folder, &[]);
    for word in ["KEPT BACK", "team-a.reader", "a-*: read", "documents"] {
        assert!(table.output.contains(word), "{}", table.output);
    }
    assert!(!table.output.contains("term"), "{}", table.output);
    let page = explain(&folder, &["-o", "html"]);
    assert!(page.output.contains("Roles of fine-grained"), "{page:?}");
}

#[test]
fn a_definition_that_is_refused_is_said_with_its_place() {
    let folder = both_halves();
    folder.write(
        "typo.yaml",
        "apiVersion: opensearch-access.io/v1alpha1\nkind: DomainRole\n\
         metadata: {name: typo, namespace: team-a}\nspec:\n  domainRef: {name: logs}\n  \
         indexPermissions: [{indexPatterns: [a], allowedActions: [raed]}]\n",
    );
    let files = folder.path().to_str().unwrap();
    for command in ["plan", "lint"] {
        let said = run([command, "-f", files], "");
        assert_eq!(said.code, if command == "plan" { 1 } else { 2 }, "{said:?}");
        let text = said.output.clone() + &said.errors;
        for word in [
            "typo.yaml",
            "DomainRole team-a/typo",
            "allowedActions[0]",
            "\"read\"",
        ] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
