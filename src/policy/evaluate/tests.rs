use serde_json::json;

use super::*;

const ROLE: &str = "arn:aws:iam::111122223333:role/path/reader";
const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/reader/pod-1";
const STRANGER: &str = "arn:aws:iam::444455556666:role/other";

fn domain() -> DomainArn {
    DomainArn::new("eu-west-1", "111122223333", "logs")
}

fn ask(statements: &Value, principal: Option<&str>, action: &str, path: &str) -> Decision {
    ask_with(statements, principal, action, path, &[])
}

fn ask_with(
    statements: &Value,
    principal: Option<&str>,
    action: &str,
    path: &str,
    known: &[(&str, &str)],
) -> Decision {
    let document = Document::parse(&json!({"Statement": statements}).to_string()).unwrap();
    let mut context = Context::default();
    for (key, value) in known {
        context.set(key, *value);
    }
    let request = Request {
        principal: principal.map(ToOwned::to_owned),
        action: action.into(),
        path: path.into(),
        context,
    };
    evaluate(&document, &domain(), &request).decision
}

fn statement(effect: &str, principal: &Value, rest: &Value) -> Value {
    let mut statement = json!({"Effect": effect, "Principal": principal, "Action": "es:ESHttp*",
        "Resource": "arn:aws:es:eu-west-1:111122223333:domain/logs/*"});
    for (key, value) in rest.as_object().unwrap() {
        statement[key] = value.clone();
    }
    statement
}

#[test]
fn a_role_of_the_account_is_allowed_by_name_and_so_are_its_sessions() {
    let policy = json!([statement("Allow", &json!({"AWS": ROLE}), &json!({}))]);
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/a/_search"),
        Decision::Allow
    );
    assert_eq!(
        ask(&policy, Some(SESSION), "es:eshttpget", "a/_search"),
        Decision::Allow
    );
    assert_eq!(ask(&policy, None, "es:ESHttpGet", "/a"), Decision::Deny);
}

#[test]
fn what_the_policy_does_not_mention_an_identity_policy_of_the_account_may_allow() {
    let policy = json!([]);
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/"),
        Decision::Unknown
    );
    assert_eq!(
        ask(&policy, Some(STRANGER), "es:ESHttpGet", "/"),
        Decision::Deny
    );
    assert_eq!(ask(&policy, None, "es:ESHttpGet", "/"), Decision::Deny);
}

#[test]
fn another_accounts_caller_needs_both_halves() {
    let policy = json!([statement("Allow", &json!({"AWS": STRANGER}), &json!({}))]);
    assert_eq!(
        ask(&policy, Some(STRANGER), "es:ESHttpGet", "/"),
        Decision::Unknown
    );
}

#[test]
fn an_account_is_a_delegation() {
    for principal in ["111122223333", "arn:aws:iam::111122223333:root"] {
        let policy = json!([statement("Allow", &json!({"AWS": principal}), &json!({}))]);
        assert_eq!(
            ask(&policy, Some(ROLE), "es:ESHttpGet", "/"),
            Decision::Unknown
        );
    }
}

#[test]
fn a_denial_outweighs_every_allowance() {
    let policy = json!([
        statement("Allow", &json!("*"), &json!({})),
        statement(
            "Deny",
            &json!({"AWS": ROLE}),
            &json!({"Action": "es:ESHttpDelete"})
        ),
    ]);
    assert_eq!(
        ask(&policy, Some(SESSION), "es:ESHttpDelete", "/a"),
        Decision::Deny
    );
    assert_eq!(
        ask(&policy, Some(SESSION), "es:ESHttpGet", "/a"),
        Decision::Allow
    );
}

#[test]
fn an_open_question_about_a_denial_leaves_the_answer_open() {
    let office = json!({"Condition": {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}});
    let policy = json!([
        statement("Allow", &json!("*"), &json!({})),
        statement("Deny", &json!("*"), &office),
    ]);
    let asked = |ip: &[(&str, &str)]| ask_with(&policy, Some(ROLE), "es:ESHttpGet", "/", ip);
    assert_eq!(asked(&[]), Decision::Unknown);
    assert_eq!(asked(&[("aws:SourceIp", "203.0.113.9")]), Decision::Allow);
    assert_eq!(asked(&[("aws:sourceip", "198.51.100.7")]), Decision::Deny);
}

#[test]
fn addresses_decide_about_unsigned_requests() {
    let office =
        json!({"Condition": {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "198.51.100.7"]}}});
    let policy = json!([statement("Allow", &json!({"AWS": "*"}), &office)]);
    for (ip, expected) in [
        ("203.0.113.1", Decision::Allow),
        ("198.51.100.7", Decision::Allow),
        ("198.51.100.8", Decision::Deny),
    ] {
        assert_eq!(
            ask_with(&policy, None, "es:ESHttpGet", "/", &[("aws:SourceIp", ip)]),
            expected,
            "{ip}"
        );
    }
    assert_eq!(ask(&policy, None, "es:ESHttpGet", "/"), Decision::Unknown);
}

#[test]
fn an_unsigned_request_has_no_organization() {
    let condition = json!({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}});
    let policy = json!([statement("Allow", &json!("*"), &condition)]);
    assert_eq!(ask(&policy, None, "es:ESHttpGet", "/"), Decision::Deny);
    let known = [("aws:PrincipalOrgID", "o-a1b2c3d4e5")];
    assert_eq!(
        ask_with(&policy, Some(ROLE), "es:ESHttpGet", "/", &known),
        Decision::Allow
    );
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/"),
        Decision::Unknown
    );
}

#[test]
fn paths_are_compared_whole() {
    let index = json!({"Resource": "arn:aws:es:eu-west-1:111122223333:domain/logs/index/*"});
    let policy = json!([statement("Allow", &json!({"AWS": ROLE}), &index)]);
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/index/_search"),
        Decision::Allow
    );
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpDelete", "/index"),
        Decision::Unknown
    );
}

#[test]
fn keys_that_the_service_ignores_never_deny() {
    let condition = json!({"Condition": {"Bool": {"aws:SecureTransport": "false"}}});
    let policy = json!([
        statement("Allow", &json!({"AWS": ROLE}), &json!({})),
        statement("Deny", &json!("*"), &condition),
    ]);
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/"),
        Decision::Allow
    );
}

#[test]
fn operators_mean_what_iam_says() {
    use condition::Known;
    let values = |v: &[&str]| Known::Values(v.iter().map(|v| (*v).to_owned()).collect());
    let check = |operator: &str, have: Option<Known>, wanted: &[&str]| {
        let mut context = Context::default();
        match have {
            Some(Known::Values(v)) => context.set("k", v.first().cloned().unwrap_or_default()),
            Some(Known::Absent) => context.set_absent("K"),
            None => {}
        }
        condition::holds(
            Some(&json!({operator: {"k": wanted}})),
            &context,
            false,
            true,
        )
    };
    let absent = || Some(Known::Absent);
    for (operator, have, wanted, expected) in [
        (
            "StringEquals",
            Some(values(&["a"])),
            vec!["b", "a"],
            Some(true),
        ),
        ("StringEquals", Some(values(&["A"])), vec!["a"], Some(false)),
        (
            "StringEqualsIgnoreCase",
            Some(values(&["A"])),
            vec!["a"],
            Some(true),
        ),
        (
            "StringNotEquals",
            Some(values(&["a"])),
            vec!["b", "a"],
            Some(false),
        ),
        (
            "StringNotEquals",
            Some(values(&["c"])),
            vec!["b", "a"],
            Some(true),
        ),
        ("StringEquals", absent(), vec!["a"], Some(false)),
        ("StringNotEquals", absent(), vec!["a"], Some(true)),
        ("StringEqualsIfExists", absent(), vec!["a"], Some(true)),
        ("StringEquals", None, vec!["a"], None),
        (
            "StringLike",
            Some(values(&["team-a-1"])),
            vec!["team-a-*"],
            Some(true),
        ),
        ("Null", absent(), vec!["true"], Some(true)),
        ("Null", Some(values(&["a"])), vec!["true"], Some(false)),
        ("ForAllValues:StringEquals", absent(), vec!["a"], Some(true)),
        ("ForAnyValue:StringEquals", absent(), vec!["a"], Some(false)),
        (
            "NumericLessThan",
            Some(values(&["3"])),
            vec!["4"],
            Some(true),
        ),
        (
            "NumericGreaterThanEquals",
            Some(values(&["3"])),
            vec!["4"],
            Some(false),
        ),
        (
            "DateLessThan",
            Some(values(&["2026-01-01T00:00:00Z"])),
            vec!["2027-01-01T00:00:00Z"],
            Some(true),
        ),
        (
            "IpAddress",
            Some(values(&["2001:db8::1"])),
            vec!["2001:db8::/32"],
            Some(true),
        ),
        (
            "NotIpAddress",
            Some(values(&["10.0.0.1"])),
            vec!["10.0.0.0/8"],
            Some(false),
        ),
        (
            "ArnLike",
            Some(values(&["arn:aws:iam::1:role/a/b"])),
            vec!["arn:aws:iam::1:role/*"],
            Some(true),
        ),
        (
            "ArnLike",
            Some(values(&["arn:aws:iam::1:role/a"])),
            vec!["arn:*:role/a"],
            Some(false),
        ),
        ("Bool", Some(values(&["true"])), vec!["True"], Some(true)),
        ("SomethingNew", Some(values(&["a"])), vec!["a"], None),
    ] {
        assert_eq!(
            check(operator, have.clone(), &wanted),
            expected,
            "{operator} {have:?} {wanted:?}"
        );
    }
}

#[test]
fn a_session_that_is_named_is_not_every_session() {
    let policy = json!([statement("Allow", &json!({"AWS": SESSION}), &json!({}))]);
    assert_eq!(
        ask(&policy, Some(SESSION), "es:ESHttpGet", "/"),
        Decision::Allow
    );
    assert_eq!(
        ask(&policy, Some(ROLE), "es:ESHttpGet", "/"),
        Decision::Unknown
    );
}
