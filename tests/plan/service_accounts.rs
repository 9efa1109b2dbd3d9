//! Grants to service accounts, of which files tell what their annotation says and no more.

use serde_json::{Value, json};

use super::program::{DOMAIN, Folder, Planned, role, run};
use super::read_write;

const GRANT: &str = "
apiVersion: opensearch-access.io/v1alpha1
kind: DomainAccess
metadata: {name: search, namespace: team-a}
spec:
  domainRef: {name: logs}
  principals: [{serviceAccount: {name: search}}]
  access: ReadWrite
";

fn account(namespace: &str, annotations: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "search", "namespace": namespace, "annotations": annotations}})
    .to_string()
}

fn annotated(namespace: &str, role: &str) -> String {
    account(namespace, &json!({"eks.amazonaws.com/role-arn": role}))
}

fn folder(accounts: &str) -> Folder {
    let principals = r#"principals: {accounts: ["111122223333"], "#;
    let allowed = format!("{principals}serviceAccounts: true, ");
    Folder::new([
        ("domain.yaml", &*DOMAIN.replace(principals, &allowed)),
        ("grant.yaml", GRANT),
        ("account.yaml", accounts),
    ])
}

fn refuses(planned: &Planned, reason: &str, words: &[&str]) {
    assert_eq!(planned.code, 1, "{planned:?}");
    let refused = planned.logs()["refused"][0].clone();
    assert_eq!(refused["reason"], reason, "{planned:?}");
    let message = refused["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
        assert!(planned.errors.contains(word), "{planned:?}");
    }
    assert_eq!(planned.logs()["added"], json!([]));
}

#[test]
fn an_annotation_is_taken_with_a_warning() {
    let folder = folder(&annotated("team-a", &role("search")));
    let planned = folder.plan(&[]);
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (2, ""),
        "{planned:?}"
    );
    assert_eq!(planned.logs()["added"], json!([read_write("search")]));
    let [warning] = planned.logs()["warnings"]
        .as_array()
        .unwrap()
        .clone()
        .try_into()
        .unwrap();
    let warning: Value = warning;
    assert_eq!(warning["name"], "search");
    let message = warning["message"].as_str().unwrap();
    for word in [&*role("search"), "not proven", "Pod Identity"] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let files = folder.path().to_str().unwrap();
    let lint = run(["lint", "-f", files], "");
    assert_eq!((lint.code, lint.output.as_str()), (0, ""), "{lint:?}");
    let explained = run(["explain", "-f", files, "-o", "json"], "");
    assert_eq!(explained.json()["rows"][0]["who"], role("search"));
    assert!(explained.errors.contains("not proven"), "{explained:?}");
}

#[test]
fn what_no_manifest_tells_is_not_decided() {
    for accounts in ["", &annotated("team-b", &role("search"))] {
        let folder = folder(accounts);
        let words = ["spec.principals[0].serviceAccount", "add its manifest"];
        refuses(&folder.plan(&[]), "PrincipalUnknown", &words);
        let lint = run(["lint", "-f", folder.path().to_str().unwrap()], "");
        assert_eq!(lint.code, 2, "{lint:?}");
        assert!(lint.output.contains("PrincipalUnknown"), "{lint:?}");
    }
    let bare = folder(&account("team-a", &Value::Null));
    let words = ["eks.amazonaws.com/role-arn", "only AWS knows"];
    refuses(&bare.plan(&[]), "PrincipalUnknown", &words);
}

#[test]
fn what_is_wrong_in_any_case_is_refused() {
    let odd = folder(&annotated("team-a", "search"));
    let words = ["eks.amazonaws.com/role-arn", "not an IAM ARN"];
    refuses(&odd.plan(&[]), "RoleNotResolved", &words);
    let other = folder(&annotated(
        "team-a",
        &role("search").replace("aws", "aws-cn"),
    ));
    refuses(&other.plan(&[]), "InvalidSpec", &["partition"]);
    for accounts in ["", &annotated("team-a", &role("search"))] {
        let folder = folder(accounts);
        folder.write("domain.yaml", DOMAIN);
        refuses(
            &folder.plan(&[]),
            "OverCeiling",
            &["principals.serviceAccounts"],
        );
    }
}
