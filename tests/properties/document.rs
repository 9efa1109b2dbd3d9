//! Documents: what is not understood is kept, and nothing at all makes the readers panic.

use opensearch_access::api::arn::DomainArn;
use opensearch_access::policy::canonical::{self, Canonical};
use opensearch_access::policy::document::Document;
use opensearch_access::policy::evaluate::{Context, Request, evaluate};
use opensearch_access::policy::import::{self, Target};
use opensearch_access::policy::lint::{self, Subject};
use opensearch_access::policy::ownership::{self, LastApplied};
use opensearch_access::policy::permission::Permissions;
use opensearch_access::policy::validate::DomainFacts;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::naive::DOMAIN;
use crate::pool;

fn read_every_way(document: &Document) -> usize {
    let domain = DomainArn::parse(DOMAIN).unwrap();
    let meaning = Canonical::of(document, &domain);
    let mut seen = 0;
    for statement in document.statements() {
        seen += canonical::spelling(statement).len();
        seen += usize::from(ownership::without_deleted_principals(statement).is_some());
    }
    let last = LastApplied {
        applied: vec![json!({"Effect": "Allow", "Principal": "*", "Action": "es:*"})],
        ..LastApplied::default()
    };
    let recorded = ownership::split(document, &domain, Some(&last), &Permissions::default());
    let adopted = ownership::split(document, &domain, None, meaning.permissions());
    seen += recorded.others.len() + adopted.others.len();
    for principal in [None, Some("arn:aws:sts::111122223333:assumed-role/a/b")] {
        let mut context = Context::default();
        context.set("aws:SourceIp", "203.0.113.9");
        let request = Request {
            principal: principal.map(ToOwned::to_owned),
            action: "es:ESHttpGet".to_owned(),
            path: "/a".to_owned(),
            context,
        };
        seen += evaluate(document, &domain, &request).statements.len();
    }
    seen
}

proptest! {
    #[test]
    fn every_element_survives(
        other in prop::collection::btree_map("[A-Z][a-z]{1,5}", pool::json(), 0..4),
        statements in prop::collection::vec(
            prop::collection::btree_map("[A-Z][a-z]{1,5}", pool::json(), 0..5), 1..5,
        ),
        version in prop::option::of("20(08|12)-10-17"),
    ) {
        let mut text = json!({"Statement": statements});
        for (key, value) in other.iter().filter(|(key, _)| *key != "Statement") {
            text[key] = value.clone();
        }
        if let Some(version) = &version {
            text["Version"] = version.as_str().into();
        }
        let parsed = Document::parse(&text.to_string()).unwrap();
        let printed = parsed.to_text();
        prop_assert!(!printed.contains('\n'));
        let mut expected = text;
        if expected.get("Version").is_none() {
            expected["Version"] = "2012-10-17".into();
        }
        prop_assert_eq!(&serde_json::from_str::<Value>(&printed).unwrap(), &expected);
        // What is printed is a fixed point, byte by byte.
        prop_assert_eq!(Document::parse(&printed).unwrap().to_text(), printed);
    }

    #[test]
    fn any_json_is_read_or_refused(value in pool::json()) {
        for text in [value.to_string(), json!({"Statement": value}).to_string(),
            json!({"Statement": [value]}).to_string()]
        {
            if let Ok(document) = Document::parse(&text) {
                read_every_way(&document);
                let found = lint::document(&text, Subject::default());
                prop_assert!(found.iter().all(|it| !it.message.is_empty()));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,64}") {
        if let Ok(document) = Document::parse(&text) {
            read_every_way(&document);
        }
    }

    #[test]
    fn an_odd_policy_is_imported_or_left_out(statements in pool::statements(4)) {
        let document = Document::parse(&pool::document(&statements).to_string()).unwrap();
        let target = Target {
            domain_name: "logs".to_owned(),
            account: "111122223333".to_owned(),
            region: "eu-west-1".to_owned(),
            namespace: "team-a".to_owned(),
            facts: DomainFacts::default(),
            assume_role: None,
        };
        let imported = import::import(&document, &target).unwrap();
        prop_assert!(imported.left_out.iter().all(|it| it.index < statements.len()));
    }
}

/// Real policies, one byte or one span changed at a time.
#[test]
fn a_hundred_thousand_broken_policies_are_read_or_refused() {
    let whole = pool::document(&[
        json!({"Sid": "x", "Effect": "Allow", "Principal": {"AWS": ["111122223333", "AROAEXAMPLE"]},
            "Action": ["es:ESHttp*"], "Resource": format!("{DOMAIN}/*"),
            "Condition": {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "::/0"]}}}),
        json!({"Effect": "Deny", "Principal": "*", "NotAction": "es:ESHttpGet",
            "Condition": {"ForAllValues:NumericLessThan": {"aws:EpochTime": 1.5e9}}}),
    ])
    .to_string();
    let mut random = fastrand::Rng::with_seed(1);
    let spare: &[u8] = br#"{}[]",:\ueE+-.0123456789*?$ ntf/"#;
    let (mut read, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = spare[random.usize(..spare.len())],
                1 => bytes.insert(at, spare[random.usize(..spare.len())]),
                2 => drop(bytes.drain(at..(at + random.usize(1..20)).min(bytes.len()))),
                _ => bytes[at] = random.u8(..),
            }
        }
        match Document::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(document) => {
                read += 1;
                // The readers take longer than the parser does.
                if read % 8 == 0 {
                    read_every_way(&document);
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        read > 10_000 && refused > 10_000,
        "{read} read, {refused} refused"
    );
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    for depth in [200, 100_000] {
        for (open, close) in [("[", "]"), (r#"{"Statement":"#, "}"), (r#"{"a":["#, "]}")] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(Document::parse(&text).is_err(), "{open} {depth}");
        }
    }
}
