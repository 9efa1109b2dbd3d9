//! Small pools of statements: small, so that what is drawn often meets itself.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::naive::DOMAIN;

/// Principals that policies name.
pub(crate) const PRINCIPALS: [&str; 6] = [
    "arn:aws:iam::111122223333:role/a",
    "arn:aws:iam::111122223333:role/b",
    "arn:aws:iam::111122223333:user/c",
    "arn:aws:iam::444455556666:role/d",
    "arn:aws:iam::111122223333:root",
    "arn:aws:iam::444455556666:root",
];

/// Actions and patterns of them.
pub(crate) const ACTIONS: [&str; 9] = [
    "es:*",
    "es:ESHttp*",
    "es:ESHttpGet",
    "es:ESHttpHead",
    "es:ESHttpPost",
    "es:ESHttpPut",
    "es:ESHttpP*",
    "es:ESHttpDelete",
    "es:ESCrossClusterGet",
];

/// What follows a domain's ARN in a resource.
pub(crate) const RESOURCES: [&str; 7] = ["/*", "/a*", "/a", "/a/*", "/a/_search", "/b?/x", ""];

/// Draws a principal element: everybody, or some of the pool.
pub(crate) fn principal() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(json!("*")),
        4 => subsequence(PRINCIPALS.to_vec(), 1..=3).prop_map(|names| json!({"AWS": names})),
    ]
}

/// Draws a condition element, or none.
pub(crate) fn condition() -> impl Strategy<Value = Option<Value>> {
    let addresses = subsequence(
        vec![
            "203.0.113.0/24",
            "198.51.100.7",
            "2001:db8::/32",
            "2001:db8::7",
            "192.0.2.128/25",
        ],
        1..=3,
    );
    let organizations = subsequence(vec!["o-a1b2c3d4e5", "o-b1b2c3d4e5"], 1..=2);
    prop_oneof![
        3 => Just(None),
        2 => (select(vec!["IpAddress", "NotIpAddress"]), addresses)
            .prop_map(|(operator, them)| Some(json!({operator: {"aws:SourceIp": them}}))),
        2 => organizations.prop_map(|them| Some(json!({"StringEquals": {"aws:PrincipalOrgID": them}}))),
        1 => Just(Some(json!({
            "StringEquals": {"aws:SourceVpce": "vpce-0a1b2c3d", "aws:PrincipalAccount": "444455556666"},
            "Bool": {"aws:ViaAWSService": false},
        }))),
    ]
}

/// Draws a statement whose every element is understood.
pub(crate) fn known() -> impl Strategy<Value = Value> {
    (
        select(vec!["Allow", "Allow", "Deny"]),
        principal(),
        subsequence(ACTIONS.to_vec(), 1..=3),
        subsequence(RESOURCES.to_vec(), 1..=3),
        condition(),
    )
        .prop_map(|(effect, principal, actions, resources, condition)| {
            let resources: Vec<String> =
                resources.iter().map(|it| format!("{DOMAIN}{it}")).collect();
            let mut statement = json!({"Effect": effect, "Principal": principal,
                "Action": actions, "Resource": resources});
            if let Some(condition) = condition {
                statement["Condition"] = condition;
            }
            statement
        })
}

/// Draws a statement with something that grants cannot say.
pub(crate) fn odd() -> impl Strategy<Value = Value> {
    let change = select(vec![
        json!({"Action": null, "NotAction": ["es:ESHttpDelete", "es:ESHttpPut"]}),
        json!({"Resource": null, "NotResource": [format!("{DOMAIN}/secret"), format!("{DOMAIN}/secret/*")]}),
        json!({"Principal": null, "NotPrincipal": {"AWS": ["arn:aws:iam::111122223333:role/a"]}}),
        json!({"Principal": {"Service": "es.amazonaws.com"}}),
        json!({"Action": ["es:ESHttpGet", "es:Later"]}),
        json!({"Later": {"a": [1, null, {"b": 2.5}]}}),
        json!({"Effect": "Audit"}),
    ]);
    (known(), change).prop_map(|(mut statement, change)| {
        let members = statement.as_object_mut().unwrap();
        for (key, value) in change.as_object().unwrap() {
            if value.is_null() {
                members.remove(key);
            } else {
                members.insert(key.clone(), value.clone());
            }
        }
        statement
    })
}

/// Draws a list of statements of all kinds.
pub(crate) fn statements(most: usize) -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(prop_oneof![4 => known(), 1 => odd()], 0..=most)
}

/// Makes a document of statements.
pub(crate) fn document(statements: &[Value]) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Draws any JSON.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|it| Value::from(f64::from(it) / 8.0)),
        ".{0,6}".prop_map(Value::from),
        select(vec![
            "Allow",
            "Deny",
            "*",
            "es:*",
            "111122223333",
            "${aws:username}",
            "AROAA"
        ])
        .prop_map(Value::from),
    ];
    let key = || {
        let known = select(vec![
            "Version",
            "Id",
            "Statement",
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
            "AWS",
            "IpAddress",
            "ForAllValues:StringLike",
            "aws:SourceIp",
            "Null",
        ]);
        prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,4}"]
    };
    leaf.prop_recursive(4, 20, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..5)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}
