//! `import`: a policy document in, manifests out, and back, by the program itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use serde_json::{Value, json};

use self::meaning::meaning;
use self::program::{Folder, Planned, role, run};

#[allow(dead_code, reason = "shared with tests/plan.rs, which uses all of it")]
#[path = "plan/meaning.rs"]
mod meaning;
#[allow(dead_code, reason = "shared with tests/plan.rs, which uses all of it")]
#[path = "plan/program.rs"]
mod program;

const ARN: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs";

fn import(policy: &str, more: &[&str]) -> Planned {
    let args = [
        "import",
        "--policy",
        policy,
        "--domain-name",
        "logs",
        "--account",
        "111122223333",
        "--region",
        "eu-west-1",
        "--namespace",
        "team-a",
    ];
    run([&args[..], more].concat(), "")
}

fn allow(principals: &Value, action: &str, path: &str) -> Value {
    json!({"Effect": "Allow", "Principal": {"AWS": principals}, "Action": action,
        "Resource": format!("{ARN}/{path}")})
}

#[test]
fn a_policy_goes_round() {
    let mut office = allow(&json!("*"), "es:ESHttp*", "*");
    office["Condition"] =
        json!({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "198.51.100.7"]}});
    let mut denial = allow(&json!("*"), "es:ESHttpDelete", "*");
    denial["Effect"] = "Deny".into();
    let expressible = json!([
        allow(&json!([role("a"), role("teams/b")]), "es:*", "*"),
        allow(&json!("444455556666"), "es:ESHttpGet", "x-*"),
        office,
    ]);
    let mut all = expressible.as_array().unwrap().clone();
    all.push(denial);
    all.push(allow(&json!(role("a")), "es:ESHttpGet", "_cat/indices"));
    let policy = |statements: Value| json!({"Version": "2012-10-17", "Statement": statements});
    let folder = Folder::new([("p.policy", policy(all.into()).to_string().as_str())]);
    let file = folder.file("p.policy").display().to_string();
    std::fs::create_dir(folder.file("out")).unwrap();
    let out = folder.file("out").display().to_string();

    let said = import(&file, &["--write", &out]);
    assert_eq!((said.code, said.output.as_str()), (0, ""), "{said:?}");
    let left: Vec<&str> = said.errors.lines().collect();
    assert_eq!(left.len(), 2, "{said:?}");
    assert_eq!(
        left[0],
        "left out: Statement[3]: it denies, and grants only allow"
    );
    assert!(
        left[1].starts_with("left out: Statement[4]: its actions and resources"),
        "{said:?}"
    );
    let mut names: Vec<String> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "access-a-readwrite.yaml",
            "access-account-444455556666-actions.yaml",
            "access-anyone-readwrite.yaml",
            "domain.yaml"
        ]
    );

    let current = format!("logs={file}");
    let planned = run(
        ["plan", "-f", &out, "-o", "json", "--current", &current],
        "",
    );
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (0, ""),
        "{planned:?}"
    );
    let alone = run(["plan", "-f", &out, "-o", "json"], "");
    assert_eq!((alone.code, alone.errors.as_str()), (2, ""), "{alone:?}");
    let alone = &alone.logs()["accessPolicy"];
    let spelled = policy(expressible)
        .to_string()
        .replace("es:ESHttp*", "es:*");
    assert_eq!(
        meaning(alone),
        meaning(&serde_json::from_str(&spelled).unwrap())
    );

    let again = import(&file, &["--write", &out]);
    assert!(
        again.code == 1 && again.errors.contains("is there already"),
        "{again:?}"
    );
}

#[test]
fn what_is_printed_can_be_planned() {
    let policy =
        json!({"Version": "2012-10-17", "Statement": allow(&json!(role("a")), "es:*", "*")});
    let folder = Folder::new([("p.policy", policy.to_string().as_str())]);
    let file = folder.file("p.policy").display().to_string();
    let said = import(&file, &[]);
    assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
    let planned = run(
        [
            "plan",
            "-f",
            "-",
            "-o",
            "json",
            "--current",
            &format!("logs={file}"),
        ],
        &said.output,
    );
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (0, ""),
        "{said:?} {planned:?}"
    );
    for part in ["access: ReadWrite", "namespace: team-a", &role("a")] {
        assert!(said.output.contains(part), "{part}: {said:?}");
    }
    assert!(
        !said.output.contains("status") && !said.output.contains("null"),
        "{said:?}"
    );
}

#[test]
fn bad_input_is_an_error() {
    let folder = Folder::new([("bad.policy", "{"), ("none.policy", "")]);
    let bad = import(&folder.file("bad.policy").display().to_string(), &[]);
    assert!(
        bad.code == 1 && bad.errors.contains("is not an access policy"),
        "{bad:?}"
    );
    let none = folder.file("none.policy").display().to_string();
    let args = [
        "import",
        "--policy",
        &none,
        "--domain-name",
        "L",
        "--account",
        "1",
        "--region",
        "x",
    ];
    let named = run(args, "");
    assert_eq!(named.code, 1, "{named:?}");
    for part in [
        "is not a domain name",
        "is not an AWS account id",
        "is not an AWS region",
    ] {
        assert!(named.errors.contains(part), "{named:?}");
    }
    let nowhere = import(&none, &["--write", "/dev/null/below"]);
    assert!(
        nowhere.code == 1
            && nowhere
                .errors
                .contains("failed to make the folder /dev/null/below"),
        "{nowhere:?}"
    );
    let empty = import(&none, &[]);
    assert_eq!((empty.code, empty.errors.as_str()), (0, ""), "{empty:?}");
}
