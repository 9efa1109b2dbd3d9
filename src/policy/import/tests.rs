use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

use super::*;
use crate::api::access::AccessLevel;
use crate::policy::plan::{self, Input};
use crate::policy::verdict::{self, NamespaceLabels};

const ARN: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs";

fn target() -> Target {
    Target {
        domain_name: "logs".to_owned(),
        account: "111122223333".to_owned(),
        region: "eu-west-1".to_owned(),
        namespace: "team-a".to_owned(),
        ..Target::default()
    }
}

fn document(statements: &Value) -> Document {
    Document::parse(&json!({"Version": "2012-10-17", "Statement": statements}).to_string()).unwrap()
}

/// Plans the manifests of an import against a policy.
fn planned(imported: &Import, observed: &Document) -> plan::Plan {
    let domain = Domain::parse(&imported.domain).unwrap();
    let facts = DomainFacts::default();
    let mut grants = imported.grants.clone();
    for grant in &mut grants {
        grant.metadata.uid.clone_from(&grant.metadata.name);
    }
    let labels = NamespaceLabels::new();
    let verdicts = verdict::of_all(
        &grants,
        &domain,
        facts,
        &Resolutions::default(),
        &labels,
        Timestamp::UNIX_EPOCH,
    );
    let plan = plan::plan(&Input {
        domain: &domain,
        facts,
        held: &BTreeMap::new(),
        grants: &verdicts,
        observed,
        last: None,
        acknowledged_revocation: 0,
    });
    for (key, outcome) in &plan.outcomes {
        let granted = matches!(outcome, plan::Outcome::Granted { .. });
        assert!(granted, "{key}: {outcome:?}");
    }
    plan
}

/// Checks both directions: nothing to change, and the manifests alone say what is not left out.
fn goes_round(policy: &Document) -> Import {
    let imported = import(policy, &target()).unwrap();
    let plan = planned(&imported, policy);
    assert_eq!((&plan.policy, &plan.hold), (&None, &None), "{imported:?}");
    assert_eq!((plan.added, plan.removed), (vec![], vec![]));
    let alone = planned(&imported, &Document::default())
        .policy
        .unwrap_or_default();
    let left: Vec<usize> = imported.left_out.iter().map(|it| it.index).collect();
    let kept = policy.statements().iter().enumerate();
    let kept = kept
        .filter(|(index, _)| !left.contains(index))
        .map(|(_, it)| it.clone());
    let domain = Domain::parse(&imported.domain).unwrap().arn;
    assert_eq!(
        canonical::Canonical::of(&alone, &domain),
        canonical::Canonical::of(&Document::new(kept.collect()), &domain),
        "{imported:?}"
    );
    imported
}

#[test]
fn levels_are_recognised_where_they_are_meant() {
    let domain = Domain::parse(&manifest::domain(&target(), &[])).unwrap();
    for (level, paths) in [
        (AccessLevel::Read, &[][..]),
        (AccessLevel::Read, &["a-*", "b"]),
        (AccessLevel::ReadWrite, &[]),
        (AccessLevel::ReadWrite, &["a-*", "b"]),
    ] {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let role = principal("arn:aws:iam::111122223333:role/a").unwrap();
        let body = Body {
            level: Some(level),
            paths: paths.clone(),
            ..Body::probe()
        };
        let grant = body.to_grant("x", vec![role], None, &target());
        let consenting =
            Domain::parse(&manifest::domain(&target(), std::slice::from_ref(&grant))).unwrap();
        let (_, permissions) = compiled(vec![grant], &consenting, DomainFacts::default());
        let found = goes_round(&Document::new(permissions.to_statements()));
        let [found] = found.grants.as_slice() else {
            panic!("not one grant: {found:?}")
        };
        assert_eq!(
            (found.spec.access, &found.spec.paths),
            (Some(level), &paths)
        );
        assert_eq!(domain.arn.as_str(), ARN);
    }
}

#[test]
fn what_grants_cannot_say_stays_out_with_its_reason() {
    let role = "arn:aws:iam::111122223333:role/a";
    let with = |change: Value| {
        let mut statement = json!({"Effect": "Allow", "Principal": {"AWS": role},
            "Action": "es:*", "Resource": format!("{ARN}/*")});
        for (key, value) in change.as_object().unwrap() {
            statement[key] = value.clone();
        }
        statement
    };
    for (change, reason) in [
        (json!({"Effect": "Deny"}), "denies"),
        (json!({"NotAction": "es:ESHttpGet"}), "NotAction"),
        (
            json!({"Principal": {"Service": "es.amazonaws.com"}}),
            "Service",
        ),
        (
            json!({"Principal": {"AWS": "arn:aws:sts::111122223333:assumed-role/a/s"}}),
            "is not a role",
        ),
        (
            json!({"Principal": "*"}),
            "an anonymous principal needs conditions.sourceIps",
        ),
        (
            json!({"Condition": {"StringLike": {"aws:UserAgent": "x"}}}),
            "no condition",
        ),
        (
            json!({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}),
            "public",
        ),
        (json!({"Resource": "*"}), "neither a level"),
        (
            json!({"Resource": format!("{ARN}/_cat/indices")}),
            "neither a level",
        ),
        (
            json!({"Resource": format!("{ARN}/only-itself")}),
            "neither a level",
        ),
        (
            json!({"Action": "es:CreateDomain"}),
            "an action that grants have not",
        ),
    ] {
        let imported = goes_round(&document(&json!([with(change.clone()), with(json!({}))])));
        assert_eq!(imported.grants.len(), 1, "{change}");
        let [left] = imported.left_out.as_slice() else {
            panic!("{change}: {imported:?}")
        };
        assert_eq!(left.index, 0);
        assert!(left.reason.contains(reason), "{change}: {}", left.reason);
    }
}

#[test]
fn a_deleted_principal_stays_out() {
    let deleted = json!({"Effect": "Allow", "Principal": {"AWS": "AROAEXAMPLEEXAMPLE12"},
        "Action": "es:*", "Resource": format!("{ARN}/*")});
    let imported = import(&document(&json!([deleted])), &target()).unwrap();
    assert_eq!((imported.grants.len(), imported.left_out.len()), (0, 1));
}

fn statement() -> impl Strategy<Value = Value> {
    let principals = prop::sample::subsequence(
        vec![
            "arn:aws:iam::111122223333:role/a",
            "arn:aws:iam::111122223333:role/teams/b",
            "arn:aws:iam::111122223333:user/c",
            "arn:aws:iam::444455556666:root",
            "555566667777",
            "arn:aws:sts::111122223333:assumed-role/d/s",
        ],
        1..4,
    );
    let actions = prop::sample::subsequence(
        vec![
            "es:*",
            "es:ESHttpGet",
            "es:ESHttpHead",
            "es:ESHttpPost",
            "es:ESHttpP*",
            "es:ESCrossClusterGet",
        ],
        1..4,
    );
    let resources = prop::sample::subsequence(
        vec![
            "/*",
            "/a",
            "/a/*",
            "/b*",
            "/b*/_search",
            "/a/_search",
            "/_search/scroll",
            "/c/*",
            "",
        ],
        1..5,
    );
    let condition = prop::sample::select(vec![
        Value::Null,
        Value::Null,
        json!({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "198.51.100.7"]}}),
        json!({"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}),
        json!({"Bool": {"aws:SecureTransport": "true"}}),
    ]);
    let effect = prop::sample::select(vec!["Allow", "Allow", "Allow", "Deny"]);
    (principals, actions, resources, condition, effect).prop_map(
        |(principals, actions, resources, condition, effect)| {
            let resources: Vec<String> = resources.iter().map(|it| format!("{ARN}{it}")).collect();
            let mut statement = json!({"Effect": effect, "Principal": {"AWS": principals},
                "Action": actions, "Resource": resources});
            if !condition.is_null() {
                statement["Condition"] = condition;
            }
            statement
        },
    )
}

proptest! {
    #[test]
    fn an_import_changes_nothing_and_says_the_same(
        statements in prop::collection::vec(statement(), 0..5),
    ) {
        goes_round(&document(&statements.into()));
    }
}
