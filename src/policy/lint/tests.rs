use serde_json::{Value, json};

use super::*;

const ARN: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs";

fn domain() -> DomainArn {
    DomainArn::parse(ARN).unwrap()
}

/// Returns the rules that a statement breaks; `change` is laid over one that breaks none.
fn broken(change: &Value) -> Vec<&'static str> {
    let mut statement = json!({"Effect": "Allow", "Action": "es:*", "Resource": format!("{ARN}/*"),
        "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"}});
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            statement.as_object_mut().unwrap().remove(key);
        } else {
            statement[key] = value.clone();
        }
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
    rules(&policy.to_string())
}

fn rules(text: &str) -> Vec<&'static str> {
    let domain = domain();
    let subject = Subject {
        domain: Some(&domain),
        fine_grained: false,
    };
    document(text, subject)
        .into_iter()
        .map(|it| it.rule)
        .collect()
}

#[test]
fn each_rule_sees_what_it_is_for_and_nothing_else() {
    let below = |path: &str| json!({"Resource": format!("{ARN}/{path}")});
    let named = |names: Value| json!({"Principal": {"AWS": names}});
    let on =
        |key: &str, operator: &str, value: Value| json!({"Condition": {operator: {key: value}}});
    let role = "arn:aws:iam::111122223333:role/a";
    for (change, expected) in [
        (json!({}), &[][..]),
        (json!({"Sid": "A", "Resource": null}), &[]),
        (json!({"Effect": "allow"}), &["effect"]),
        (json!({"Later": 1}), &["element"]),
        (json!({"Principal": null}), &["no-principal"]),
        (
            json!({"Principal": null, "NotPrincipal": {"AWS": role}}),
            &["not-principal"],
        ),
        (named(json!("111122223333")), &[]),
        (
            named(json!("arn:aws:sts::111122223333:assumed-role/a/s")),
            &[],
        ),
        (named(json!([role, "*"])), &["mixed-principals", "open"]),
        (named(json!("AROAEXAMPLEEXAMPLE12")), &["deleted-principal"]),
        (
            named(json!("arn:aws:iam::111122223333:role/*")),
            &["principal-wildcard"],
        ),
        (
            named(json!("arn:aws:iam::111122223333:group/a")),
            &["principal"],
        ),
        (
            named(json!("arn:aws-cn:iam::111122223333:role/a")),
            &["principal"],
        ),
        (named(json!("me")), &["principal"]),
        (json!({"Principal": "*"}), &["open"]),
        (json!({"Principal": "*", "Effect": "Deny"}), &[]),
        (json!({"Principal": {"Service": "es.amazonaws.com"}}), &[]),
        (json!({"Action": null}), &["no-action"]),
        (json!({"Action": null, "NotAction": "es:ESHttpGet"}), &[]),
        (
            json!({"Action": ["es:ESHttpGet", "es:CreateDomain"]}),
            &["action-without-effect"],
        ),
        (
            json!({"Action": "es:ESCrossClusterGet"}),
            &["cross-cluster-resource"],
        ),
        (
            json!({"Action": "es:ESCrossClusterGet", "Resource": ARN}),
            &[],
        ),
        (
            json!({"Resource": ARN, "Action": "es:ESHttpGet"}),
            &["domain-without-paths"],
        ),
        (
            json!({"Resource": "arn:aws:es:eu-west-1:111122223333:domain/other/*"}),
            &["other-domain"],
        ),
        (
            json!({"Resource": "arn:aws:s3:::bucket"}),
            &["other-domain"],
        ),
        (json!({"Resource": "*"}), &[]),
        (below("x/*"), &["misses-index", "paths-not-enforced"]),
        (below("x*"), &["paths-not-enforced"]),
        (below("x*/*"), &["paths-not-enforced"]),
        (below("_plugins/*"), &["paths-not-enforced"]),
        (
            json!({"Resource": [format!("{ARN}/x"), format!("{ARN}/x/*")]}),
            &["paths-not-enforced", "paths-not-enforced"],
        ),
        (
            on("aws:SourceIp", "IpAddress", json!("203.0.113.0/24")),
            &[],
        ),
        (
            on(
                "aws:SourceIp",
                "IpAddress",
                json!(["203.0.113.0/24", "10.1.0.0/16"]),
            ),
            &["private-address"],
        ),
        (
            on("aws:SourceIp", "IpAddress", json!("office")),
            &["address"],
        ),
        (
            on("aws:VpcSourceIp", "IpAddress", json!("10.1.0.0/16")),
            &[],
        ),
        (
            on("aws:SecureTransport", "Bool", json!("true")),
            &["ignored-key"],
        ),
        (
            on("aws:PrincipalTag/team", "StringEquals", json!("a")),
            &["ignored-key"],
        ),
        (
            on(
                "aws:PrincipalOrgID",
                "StringEqualsIfExists",
                json!("o-a1b2c3d4e5"),
            ),
            &["vacuous"],
        ),
        (
            on(
                "aws:PrincipalOrgPaths",
                "ForAllValues:StringLike",
                json!("o-1/*"),
            ),
            &["vacuous"],
        ),
        (
            on(
                "aws:PrincipalOrgPaths",
                "ForAnyValue:StringLike",
                json!("o-1/*"),
            ),
            &[],
        ),
        (
            on("aws:PrincipalOrgID", "StringEqual", json!("o-a1b2c3d4e5")),
            &["operator"],
        ),
    ] {
        assert_eq!(broken(&change), expected, "{change}");
    }
}

#[test]
fn an_open_statement_is_one_that_no_condition_bounds() {
    for (operator, key, value, open) in [
        ("IpAddress", "aws:SourceIp", "203.0.113.0/24", false),
        ("IpAddress", "aws:sourceip", "0.0.0.0/0", true),
        ("NotIpAddress", "aws:SourceIp", "203.0.113.0/24", true),
        ("StringEquals", "aws:PrincipalOrgID", "o-a1b2c3d4e5", false),
        ("StringLike", "aws:PrincipalArn", "*", true),
        ("StringEquals", "aws:UserAgent", "mine", true),
    ] {
        let change = json!({"Principal": {"AWS": "*"}, "Condition": {operator: {key: value}}});
        assert_eq!(broken(&change).contains(&"open"), open, "{change}");
    }
    let policy = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow",
        "Principal": "*", "Action": "es:*", "Resource": format!("{ARN}/x*")}});
    let fine_grained = Subject {
        domain: None,
        fine_grained: true,
    };
    assert_eq!(document(&policy.to_string(), fine_grained), []);
}

#[test]
fn a_document_is_checked_as_a_whole() {
    let statement = json!({"Effect": "Allow", "Action": "es:*", "Resource": format!("{ARN}/*"),
        "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"}});
    let get = json!({"Effect": "Allow", "Action": "es:ESHttpGet", "Resource": format!("{ARN}/*"),
        "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"}});
    let many: Vec<Value> = (0..700)
        .map(|n| {
            let mut one = statement.clone();
            one["Principal"]["AWS"] = format!("arn:aws:iam::111122223333:role/{n}").into();
            one
        })
        .collect();
    let policy = |version: &str, statements: &Value| {
        json!({"Version": version, "Statement": statements}).to_string()
    };
    let good = policy(VERSION, &json!([statement]));
    for (text, expected) in [
        (String::new(), &[][..]),
        (good.clone(), &[]),
        (format!("{good}\n"), &[]),
        (good.replace(":[{", ":\n[{"), &["newline"]),
        (policy("2008-10-17", &statement), &["version"]),
        (policy("2024-01-01", &statement), &["version"]),
        (json!({"Statement": statement}).to_string(), &["version"]),
        (policy(VERSION, &json!([])), &["empty"]),
        (policy(VERSION, &json!([statement, get])), &["repeated"]),
        (
            policy(VERSION, &json!([statement, statement])),
            &["repeated"],
        ),
        (policy(VERSION, &many.into()), &["size"]),
        ("{".to_owned(), &["unusable"]),
        ("[]".to_owned(), &["unusable"]),
    ] {
        let start: String = text.chars().take(200).collect();
        assert_eq!(rules(&text), expected, "{start}");
    }
}
