use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::arn::EntityKind;

const ISSUER: &str = "oidc.eks.eu-west-1.amazonaws.com/id/ABCDEF0123456789";
const PROVIDER: &str =
    "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/ABCDEF0123456789";
const SUBJECT: &str = "system:serviceaccount:team-a:search";

fn role() -> EntityArn {
    EntityArn::parse("arn:aws:iam::111122223333:role/search", EntityKind::Role).unwrap()
}

fn key(name: &str) -> String {
    format!("{ISSUER}:{name}")
}

/// What `eksctl` and the EKS guide write.
fn usual() -> Value {
    json!({
        "Effect": "Allow",
        "Principal": {"Federated": PROVIDER},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {key("sub"): SUBJECT, key("aud"): "sts.amazonaws.com"}},
    })
}

/// The usual statement with members in the place of others; null takes one away.
fn with(members: &Value) -> Value {
    let mut statement = usual();
    for (name, member) in members.as_object().unwrap() {
        if member.is_null() {
            statement.as_object_mut().unwrap().remove(name);
        } else {
            statement[name] = member.clone();
        }
    }
    statement
}

fn with_condition(condition: &Value) -> Value {
    with(&json!({ "Condition": condition }))
}

fn judge(statements: &[Value]) -> Result<(), NotProven> {
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let account = AccountName::new("team-a", "search");
    check(&policy, &role(), &Issuer::parse(ISSUER).unwrap(), &account)
}

#[test]
fn what_lets_the_service_account_in_is_proof() {
    let like = |pattern: &str| with_condition(&json!({"StringLike": {key("sub"): pattern}}));
    for statement in [
        usual(),
        like("system:serviceaccount:team-a:*"),
        like("system:serviceaccount:team-?:search"),
        like(SUBJECT),
        with(&json!({"Condition": null})),
        with_condition(&json!({})),
        with_condition(&json!({"StringEquals": {key("sub"): ["other", SUBJECT]}})),
        with_condition(&json!({"stringequals": {key("SUB"): SUBJECT}})),
        with_condition(&json!({"StringEquals": {key("sub").to_uppercase(): SUBJECT}})),
        with_condition(
            &json!({"ForAnyValue:StringEquals": {key("aud"): ["sts.amazonaws.com"]},
            "StringEquals": {key("sub"): SUBJECT}}),
        ),
        with_condition(&json!({"StringNotEquals": {key("sub"): "system:serviceaccount:team-b:x"}})),
        with(&json!({"Action": ["sts:TagSession", "STS:AssumeRoleWithWebIdentity"]})),
        with(&json!({"Action": "sts:*"})),
        with(&json!({"Principal": {"Federated": ["cognito-identity.amazonaws.com", PROVIDER]}})),
    ] {
        assert_eq!(
            judge(std::slice::from_ref(&statement)),
            Ok(()),
            "{statement}"
        );
    }
}

#[test]
fn what_lets_others_in_is_no_proof() {
    let equals = |subject: &str| with_condition(&json!({"StringEquals": {key("sub"): subject}}));
    let federated = |provider: &str| with(&json!({"Principal": {"Federated": provider}}));
    for statement in [
        equals("system:serviceaccount:team-b:search"),
        equals("system:serviceaccount:team-a:search-api"),
        equals("System:serviceaccount:team-a:search"),
        // No wildcard where the operator has none.
        equals("system:serviceaccount:team-a:*"),
        with_condition(&json!({"StringEquals": {key("sub"): []}})),
        with_condition(&json!({"StringEquals": {key("aud"): "another", key("sub"): SUBJECT}})),
        // Another cluster's issuer, and the same issuer for another account's provider.
        federated(&PROVIDER.replace("ABCDEF", "FEDCBA")),
        federated(&PROVIDER.replace("111122223333", "444455556666")),
        federated(&PROVIDER.replace("arn:aws:", "arn:aws-cn:")),
        federated("*"),
        with(&json!({"Principal": "*"})),
        with(&json!({"Principal": {"AWS": "*"}})),
        with(&json!({"Principal": {"AWS": PROVIDER}})),
        with(&json!({"Principal": null, "NotPrincipal": {"Federated": "x"}})),
        with(&json!({"Action": "sts:AssumeRole"})),
        with(&json!({"Action": null, "NotAction": "sts:AssumeRole"})),
        with_condition(&json!({"StringEquals": {
            "oidc.eks.eu-west-1.amazonaws.com/id/FEDCBA:sub": SUBJECT}})),
    ] {
        let judged = judge(std::slice::from_ref(&statement));
        assert_eq!(judged, Err(NotProven::NotAllowed), "{statement}");
    }
}

#[test]
fn what_is_not_understood_is_no_proof() {
    for condition in [
        json!({"StringEquals": {key("sub"): SUBJECT, "aws:SourceIp": "203.0.113.9"}}),
        json!({"StringEquals": {key("sub"): SUBJECT}, "Bool": {"aws:SecureTransport": "true"}}),
        json!({"StringEquals": {key("sub"): SUBJECT, "aws:PrincipalTag/team": "a"}}),
        json!({"StringMatches": {key("sub"): SUBJECT}}),
        json!({"EveryValue:StringEquals": {key("sub"): SUBJECT}}),
        json!({"StringEquals": {key("sub"): "system:serviceaccount:${aws:PrincipalTag/ns}:search"}}),
        json!({"StringLike": {key("sub"): "*${x}"}}),
        json!("x"),
        json!({"StringEquals": SUBJECT}),
    ] {
        let statement = with_condition(&condition);
        let judged = judge(std::slice::from_ref(&statement));
        assert_eq!(judged, Err(NotProven::NotAllowed), "{statement}");
    }
}

#[test]
fn a_denial_counts_unless_it_is_for_others() {
    let deny = |members: Value| {
        let mut denial = json!({"Effect": "Deny", "Principal": "*", "Action": "sts:*"});
        for (name, member) in members.as_object().unwrap() {
            denial[name] = member.clone();
        }
        denial
    };
    let of_subject = |operator: &str, subject: &str| {
        deny(json!({"Condition": {operator: {key("sub"): subject}}}))
    };
    for denial in [
        deny(json!({})),
        deny(json!({"Principal": {"AWS": "*"}})),
        deny(json!({"Principal": {"Federated": "*"}})),
        deny(
            json!({"Principal": {"Federated": PROVIDER}, "Action": "sts:AssumeRoleWithWebIdentity"}),
        ),
        deny(json!({"Condition": {"StringEquals": {"aws:PrincipalTag/team": "b"}}})),
        deny(json!({"Condition": {"Bool": {"aws:SecureTransport": "false"}}})),
        of_subject("StringLike", "system:serviceaccount:team-a:*"),
        of_subject("StringNotEquals", "system:serviceaccount:team-b:search"),
        of_subject("StringResembles", "system:serviceaccount:team-b:search"),
        json!({"Effect": "Deny", "NotPrincipal": {"AWS": "x"}, "Action": "sts:*"}),
        json!({"Effect": "Deny", "Principal": "*", "NotAction": "sts:AssumeRole"}),
        json!({"Effect": "Deny", "Principal": "*"}),
        json!({"Effect": "Deny", "Principal": {}, "Action": "sts:*"}),
    ] {
        let judged = judge(&[usual(), denial.clone()]);
        assert_eq!(judged, Err(NotProven::Denied), "{denial}");
        assert_eq!(judge(&[denial, usual()]), judged);
    }
    for denial in [
        deny(json!({"Action": "sts:AssumeRole"})),
        deny(json!({"Principal": {"Service": "ec2.amazonaws.com"}})),
        deny(json!({"Principal": {"AWS": "arn:aws:iam::111122223333:role/x"}})),
        deny(json!({"Principal": {"Federated": "accounts.google.com"}})),
        of_subject("StringEquals", "system:serviceaccount:team-b:search"),
        of_subject("StringNotEquals", SUBJECT),
        json!({"Effect": "Deny", "Principal": "*", "NotAction": "sts:AssumeRoleWith*"}),
    ] {
        assert_eq!(judge(&[usual(), denial.clone()]), Ok(()), "{denial}");
    }
}

#[test]
fn what_is_no_policy_proves_nothing() {
    let account = AccountName::new("team-a", "search");
    let issuer = Issuer::parse(ISSUER).unwrap();
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"Statement": "x"}"#,
        r#"{"Statement": ["x"]}"#,
    ] {
        let judged = check(text, &role(), &issuer, &account);
        assert_eq!(judged, Err(NotProven::Unreadable), "{text}");
    }
    let odd = judge(&[usual(), with(&json!({"Effect": "Perhaps"}))]);
    assert_eq!(odd, Err(NotProven::Unreadable));
    assert_eq!(judge(&[]), Err(NotProven::NotAllowed));
    let single = json!({ "Statement": usual() }).to_string();
    assert_eq!(check(&single, &role(), &issuer, &account), Ok(()));
}

#[test]
fn an_issuer_is_a_host_and_a_path() {
    for text in [
        ISSUER,
        &format!("https://{ISSUER}"),
        &format!("https://{ISSUER}/"),
    ] {
        assert_eq!(Issuer::parse(text).unwrap().as_str(), ISSUER);
    }
    for text in [
        "",
        "https://",
        "http://x",
        "https://x/y?z",
        "x y",
        "/x",
        "https://x:443",
    ] {
        assert!(Issuer::parse(text).is_err(), "{text}");
    }
    assert_eq!(
        Issuer::parse(ISSUER).unwrap().provider_for(&role()),
        PROVIDER
    );
}

/// A subject of a small world, so that chance meets it.
fn subject() -> impl Strategy<Value = (String, String)> {
    (
        prop::sample::select(vec!["a", "b", "aa"]),
        prop::sample::select(vec!["x", "y", "xy"]),
    )
        .prop_map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

proptest! {
    /// By definition: of exact subjects, those in the list are let in and nobody else is, whatever
    /// stands beside for other roles of access.
    #[test]
    fn exactly_the_listed_subjects_are_let_in(
        listed in prop::collection::vec(subject(), 0..4),
        denied in prop::collection::vec(subject(), 0..3),
        asking in subject(),
        denial_first in any::<bool>(),
    ) {
        let subjects = |of: &[(String, String)]| -> Vec<String> {
            of.iter().map(|(ns, name)| format!("system:serviceaccount:{ns}:{name}")).collect()
        };
        let allow = with_condition(&json!({"StringEquals": {key("sub"): subjects(&listed)}}));
        let mut deny = with_condition(&json!({"StringEquals": {key("sub"): subjects(&denied)}}));
        deny["Effect"] = "Deny".into();
        let mut statements = vec![allow, deny];
        if denial_first {
            statements.reverse();
        }
        let policy = json!({ "Statement": statements }).to_string();
        let account = AccountName::new(&asking.0, &asking.1);
        let judged = check(&policy, &role(), &Issuer::parse(ISSUER).unwrap(), &account);
        let expected = listed.contains(&asking) && !denied.contains(&asking);
        prop_assert_eq!(judged.is_ok(), expected);
    }

    /// A wildcard lets in whom it matches.
    #[test]
    fn a_pattern_lets_in_whom_it_matches(pattern in "[ab:xy*?]{0,8}", asking in subject()) {
        let whole = format!("system:serviceaccount:{pattern}");
        let statement = with_condition(&json!({"StringLike": {key("sub"): whole}}));
        let account = AccountName::new(&asking.0, &asking.1);
        let policy = json!({ "Statement": [statement] }).to_string();
        let judged = check(&policy, &role(), &Issuer::parse(ISSUER).unwrap(), &account);
        prop_assert_eq!(judged.is_ok(), glob::matches(&whole, &account.subject()));
    }

    /// Whatever a tenant finds in a trust policy, nothing but an allowance for the provider proves
    /// anything: text without the provider's ARN never does.
    #[test]
    fn text_without_the_provider_proves_nothing(text in ".{0,200}", name in "[a-z]{1,8}") {
        prop_assume!(!text.contains("oidc-provider"));
        for policy in [text.clone(), json!({"Statement": [{"Effect": "Allow", "Principal": text,
            "Action": text, "Condition": {}}]}).to_string()] {
            let account = AccountName::new("team-a", &name);
            let judged = check(&policy, &role(), &Issuer::parse(ISSUER).unwrap(), &account);
            prop_assert!(judged.is_err());
        }
    }

    /// A condition beside the usual ones that is not understood takes the proof away.
    #[test]
    fn what_is_not_understood_beside_takes_the_proof_away(operator in "[A-Z][a-z]{2,10}", of in "[a-z]{3}:[a-z]{1,8}") {
        let mut statement = usual();
        statement["Condition"][operator] = json!({of: "x"});
        prop_assert_eq!(judge(&[statement]), Err(NotProven::NotAllowed));
    }
}
