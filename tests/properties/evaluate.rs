//! The evaluator against a naive one that knows everything of a request.

use std::collections::{BTreeMap, BTreeSet};

use opensearch_access::api::arn::DomainArn;
use opensearch_access::policy::document::Document;
use opensearch_access::policy::evaluate::{self, Context, Decision, Evaluation};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::naive::{self, DOMAIN, Keys, Request};
use crate::pool;

/// The keys that conditions here are about, each with the values that a request may have.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "aws:sourceip",
        &["203.0.113.9", "198.51.100.7", "8.8.8.8", "192.0.2.1"],
    ),
    ("aws:sourcevpce", &["vpce-1", "vpce-2", "vpce-3"]),
    ("aws:requestedregion", &["eu-west-1", "eu-west-2", "us-1"]),
];

fn condition() -> impl Strategy<Value = Option<Value>> {
    let addresses = subsequence(vec!["203.0.113.0/24", "198.51.100.7", "8.0.0.0/8"], 1..=2);
    let ends = || subsequence(vec!["vpce-1", "vpce-3"], 1..=2);
    let regions = subsequence(vec!["eu-west-1", "eu-*", "us-?"], 1..=2);
    let quantified = select(vec![
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIfExists",
        "StringNotEqualsIfExists",
        "ForAnyValue:StringEquals",
        "ForAllValues:StringEquals",
        "ForAllValues:StringNotEquals",
        "ForAnyValue:StringNotEquals",
    ]);
    prop_oneof![
        2 => Just(None),
        2 => (select(vec!["IpAddress", "NotIpAddress", "IpAddressIfExists"]), addresses)
            .prop_map(|(operator, them)| Some(json!({operator: {"aws:SourceIp": them}}))),
        2 => (quantified, ends())
            .prop_map(|(operator, them)| Some(json!({operator: {"AWS:SourceVpce": them}}))),
        1 => (select(vec!["StringLike", "StringNotLike"]), regions, ends()).prop_map(
            |(operator, regions, ends)| Some(json!({operator: {"aws:RequestedRegion": regions},
                "StringEquals": {"aws:SourceVpce": ends}}))),
        1 => (select(vec!["true", "false"]))
            .prop_map(|absent| Some(json!({"Null": {"aws:SourceVpce": absent}}))),
    ]
}

fn statement() -> impl Strategy<Value = Value> {
    (
        prop_oneof![4 => pool::known(), 1 => pool::odd()],
        condition(),
    )
        .prop_filter_map(
            "the naive evaluator has no NotPrincipal",
            |(mut statement, condition)| {
                let members = statement.as_object_mut().unwrap();
                members.remove("Condition");
                members.extend(condition.map(|it| ("Condition".to_owned(), it)));
                (!members.contains_key("NotPrincipal")).then_some(statement)
            },
        )
}

fn statements() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(statement(), 0..5)
}

fn caller() -> impl Strategy<Value = Option<String>> {
    select(vec![
        None,
        Some("arn:aws:iam::111122223333:role/a"),
        Some("arn:aws:sts::111122223333:assumed-role/b/session"),
        Some("arn:aws:iam::111122223333:user/c"),
        Some("arn:aws:iam::444455556666:role/d"),
        Some("arn:aws:iam::111122223333:role/nobody"),
    ])
    .prop_map(|name| name.map(ToOwned::to_owned))
}

/// Draws a request; a key that is `None` is left open.
fn request() -> impl Strategy<Value = (Request, BTreeMap<String, Option<Vec<String>>>)> {
    let paths = select(vec!["/", "/a", "/a/x", "/a/_search", "/bc/x", "/secret"]);
    let keys = KEYS.map(|(key, values)| {
        let known = prop_oneof![
            1 => Just(Some(Vec::new())),
            3 => subsequence(values.to_vec(), 1..=2)
                .prop_map(|them| Some(them.into_iter().map(ToOwned::to_owned).collect())),
            2 => Just(None),
        ];
        known.prop_map(move |known: Option<Vec<String>>| (key.to_owned(), known))
    });
    (caller(), select(naive::ACTIONS.to_vec()), paths, keys).prop_map(
        |(principal, action, path, keys)| {
            let request = Request {
                principal,
                action: action.to_owned(),
                path: path.to_owned(),
                keys: Keys::new(),
            };
            (request, keys.into_iter().collect())
        },
    )
}

fn evaluated(statements: &[Value], request: &Request) -> Evaluation {
    evaluated_in(&parsed(statements), request)
}

fn parsed(statements: &[Value]) -> Document {
    Document::parse(&pool::document(statements).to_string()).unwrap()
}

fn evaluated_in(document: &Document, request: &Request) -> Evaluation {
    let mut context = Context::default();
    for (key, values) in &request.keys {
        if values.is_empty() {
            context.set_absent(key);
        }
        for value in values {
            context.add(key, value);
        }
    }
    let asked = evaluate::Request {
        principal: request.principal.clone(),
        action: request.action.clone(),
        path: request.path.clone(),
        context,
    };
    evaluate::evaluate(document, &DomainArn::parse(DOMAIN).unwrap(), &asked)
}

/// Returns every request that the open keys allow for: each key without a value, with one, or with
/// all at once.
fn completions(request: &Request, keys: &BTreeMap<String, Option<Vec<String>>>) -> Vec<Request> {
    let mut all = vec![request.clone()];
    for (key, known) in keys {
        let pool = KEYS.iter().find(|(it, _)| it == key).unwrap().1;
        let options: Vec<Vec<String>> = if let Some(values) = known {
            vec![values.clone()]
        } else {
            let none_and_all = [Vec::new(), pool.iter().map(|it| (*it).to_owned()).collect()];
            let each = pool.iter().map(|it| vec![(*it).to_owned()]);
            none_and_all.into_iter().chain(each).collect()
        };
        all = all
            .iter()
            .flat_map(|request| {
                options.iter().map(|values| {
                    let mut request = request.clone();
                    request.keys.insert(key.clone(), values.clone());
                    request
                })
            })
            .collect();
    }
    all
}

/// Returns the request with the keys alone of which something is known.
fn as_known(request: &Request, keys: &BTreeMap<String, Option<Vec<String>>>) -> Request {
    let known = keys
        .iter()
        .filter_map(|(key, known)| Some((key.clone(), known.clone()?)));
    Request {
        keys: known.collect(),
        ..request.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn with_everything_known_it_agrees_with_the_naive_one(
        statements in statements(), (request, keys) in request(),
    ) {
        let (document, parsed) = (pool::document(&statements), parsed(&statements));
        for request in completions(&request, &keys) {
            let found = evaluated_in(&parsed, &request);
            prop_assert_eq!(found.decision.as_str(), naive::decide(&document, &request),
                "{} {:?} {:?}", document, request, found);
        }
    }

    #[test]
    fn a_firm_answer_holds_however_the_open_keys_turn_out(
        statements in statements(), (request, keys) in request(),
    ) {
        let found = evaluated(&statements, &as_known(&request, &keys));
        let document = pool::document(&statements);
        let answers: BTreeSet<&str> =
            completions(&request, &keys).iter().map(|it| naive::decide(&document, it)).collect();
        if found.decision != Decision::Unknown {
            prop_assert_eq!(answers, BTreeSet::from([found.decision.as_str()]), "{:?}", found);
        }
        // The statements behind the answer are about the request.
        for index in found.statements {
            let mut alone = vec![statements[index].clone()];
            // A denial says something only where there is something to deny; what is not plainly an
            // allowance counts as one.
            if alone[0]["Effect"] != "Allow" {
                alone.push(json!({"Effect": "Allow", "Principal": "*", "Action": "es:*", "Resource": "*"}));
            }
            let alone = evaluated(&alone, &as_known(&request, &keys));
            prop_assert!(alone.statements.contains(&0), "statement {} says nothing", index);
        }
    }

    #[test]
    fn it_is_unknown_only_where_an_open_key_matters(
        first in statement(), second in statement(), (request, keys) in request(),
    ) {
        // Each key in one statement at most, so that no two open parts cancel out.
        let asks = |statement: &Value| -> BTreeSet<String> {
            let operators = statement["Condition"].as_object().into_iter().flatten();
            operators.flat_map(|(_, keys)| keys.as_object().unwrap().keys().map(|it| it.to_lowercase())).collect()
        };
        prop_assume!(asks(&first).is_disjoint(&asks(&second)));
        let statements = [first, second];
        let document = pool::document(&statements);
        let found = evaluated(&statements, &as_known(&request, &keys));
        if found.decision == Decision::Unknown {
            let answers: BTreeSet<&str> =
                completions(&request, &keys).iter().map(|it| naive::decide(&document, it)).collect();
            prop_assert!(answers.len() > 1 || answers.contains("Unknown"),
                "always {:?}: {} {:?}", answers, document, found);
        }
    }

    #[test]
    fn a_denial_wins_and_an_allowance_only_adds(
        statements in statements(), more in statement(), (request, keys) in request(),
    ) {
        let request = as_known(&request, &keys);
        let before = evaluated(&statements, &request);
        let mut with = statements.clone();
        with.push(more.clone());
        let after = evaluated(&with, &request);
        if more["Effect"] == "Allow" {
            let fell = before.decision != Decision::Deny && after.decision == Decision::Deny;
            prop_assert!(!fell, "{:?} became {:?}", before, after);
            prop_assert!(before.decision != Decision::Allow || after.decision == Decision::Allow);
        } else {
            let rose = after.decision == Decision::Allow && before.decision != Decision::Allow;
            prop_assert!(!rose, "{:?} became {:?}", before, after);
            let alone = naive::each(&json!([more])).len() == 1
                && evaluated(std::slice::from_ref(&more), &request).statements == [0]
                && evaluated(&[more], &request).decision == Decision::Deny;
            prop_assert!(!alone || after.decision == Decision::Deny);
        }
        // The place of a statement does not matter.
        with.rotate_right(1);
        prop_assert_eq!(evaluated(&with, &request).decision, after.decision);
    }
}

/// A variable stands for something that the question does not tell.
#[test]
fn a_policy_variable_leaves_the_answer_open() {
    let request = |path: &str| Request {
        principal: None,
        action: "es:ESHttpGet".to_owned(),
        path: path.to_owned(),
        keys: Keys::new(),
    };
    let with = |effect: &str, resource: &str| json!({"Effect": effect, "Principal": "*", "Action": "es:*", "Resource": format!("{DOMAIN}{resource}")});
    let own = "/home-${aws:username}/*";
    for (statements, path, expected) in [
        (vec![with("Allow", own)], "/home-ann/x", Decision::Unknown),
        (vec![with("Allow", own)], "/other/x", Decision::Deny),
        (
            vec![with("Allow", "/*"), with("Deny", own)],
            "/home-ann/x",
            Decision::Unknown,
        ),
        (
            vec![with("Allow", "/*"), with("Deny", own)],
            "/other",
            Decision::Allow,
        ),
        // These stand for the characters themselves.
        (vec![with("Allow", "/a${*}")], "/a*", Decision::Allow),
        (vec![with("Allow", "/a${*}")], "/ab", Decision::Deny),
        (vec![with("Allow", "/a${$}${?}")], "/a$?", Decision::Allow),
    ] {
        assert_eq!(
            evaluated(&statements, &request(path)).decision,
            expected,
            "{statements:?} {path}"
        );
    }
    let mut tested = with("Allow", "/*");
    tested["Condition"] = json!({"StringEquals": {"aws:SourceVpce": "${aws:PrincipalTag/end}"}});
    let mut request = request("/a");
    request
        .keys
        .insert("aws:sourcevpce".to_owned(), vec!["vpce-1".to_owned()]);
    assert_eq!(evaluated(&[tested], &request).decision, Decision::Unknown);
}

/// The first version of the language has no variables.
#[test]
fn before_2012_a_variable_is_plain_text() {
    let document = json!({"Version": "2008-10-17", "Statement": {"Effect": "Allow", "Principal": "*",
        "Action": "es:*", "Resource": format!("{DOMAIN}/a${{x}}")}});
    let domain = DomainArn::parse(DOMAIN).unwrap();
    let ask = |path: &str| {
        let request = evaluate::Request {
            principal: None,
            action: "es:ESHttpGet".to_owned(),
            path: path.to_owned(),
            context: Context::default(),
        };
        evaluate::evaluate(
            &Document::parse(&document.to_string()).unwrap(),
            &domain,
            &request,
        )
        .decision
    };
    assert_eq!(
        (ask("/a${x}"), ask("/ab")),
        (Decision::Allow, Decision::Deny)
    );
}
