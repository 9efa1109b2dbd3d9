//! Meaning: every respelling leaves it equal, every real change makes it another, and what is
//! written in groups says what its parts say.

use std::collections::BTreeSet;

use fastrand::Rng;
use opensearch_access::api::arn::DomainArn;
use opensearch_access::policy::canonical::Canonical;
use opensearch_access::policy::document::{Document, Statement};
use opensearch_access::policy::permission::Permissions;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::naive::{self, ACTIONS, DOMAIN};
use crate::pool;

fn domain() -> DomainArn {
    DomainArn::parse(DOMAIN).unwrap()
}

fn parse(document: &Value) -> Document {
    Document::parse(&document.to_string()).unwrap()
}

fn canonical(document: &Value) -> Canonical {
    Canonical::of(&parse(document), &domain())
}

/// Spells a document as the service, or a person, may spell it.
fn respelled(document: &Value, random: &mut Rng) -> Value {
    let mut statements: Vec<Value> = Vec::new();
    for statement in naive::each(&document["Statement"]) {
        let parts = if random.bool() {
            split(statement, random)
        } else {
            vec![statement.clone()]
        };
        statements.extend(parts.iter().map(|part| respelled_one(part, random)));
    }
    random.shuffle(&mut statements);
    if random.bool() && !statements.is_empty() {
        // The same again says nothing new.
        let again = respelled_one(&statements[0], random);
        statements.push(again);
    }
    match <[Value; 1]>::try_from(statements) {
        Ok([one]) if random.bool() => json!({"Statement": one, "Version": "2012-10-17"}),
        Ok([one]) => pool::document(&[one]),
        Err(many) => pool::document(&many),
    }
}

/// Splits a statement that grants could say into one for each item of a list.
fn split(statement: &Value, random: &mut Rng) -> Vec<Value> {
    if naive::atoms_of(statement).is_none() {
        return vec![statement.clone()];
    }
    let pointer = *random
        .choice(&["/Principal/AWS", "/Action", "/Resource"])
        .unwrap();
    let Some(Value::Array(items)) = statement.pointer(pointer).cloned() else {
        return vec![statement.clone()];
    };
    let part = |item: Value| {
        let mut part = statement.clone();
        *part.pointer_mut(pointer).unwrap() = item;
        part
    };
    items.into_iter().map(part).collect()
}

fn respelled_one(statement: &Value, random: &mut Rng) -> Value {
    let mut statement = statement.clone();
    let is_known = naive::atoms_of(&statement).is_some();
    let members = statement.as_object_mut().unwrap();
    match random.u8(..3) {
        0 => drop(members.remove("Sid")),
        1 => drop(members.insert("Sid".into(), "Mine".into())),
        _ => {}
    }
    if let Some(principal) = members.get_mut("Principal") {
        if *principal == "*" && random.bool() {
            *principal = json!({"AWS": ["*"]});
        }
        if let Some(names) = principal.get_mut("AWS") {
            *names = list(names, random, |name, random| {
                match name.strip_suffix(":root") {
                    Some(arn) if random.bool() => arn.rsplit(':').next().unwrap().to_owned(),
                    _ => name.to_owned(),
                }
            });
        }
        if *principal == json!({"AWS": "*"}) && random.bool() {
            *principal = "*".into();
        }
    }
    if let Some(actions) = members.get_mut("Action") {
        *actions = if is_known && random.bool() {
            spelled_out(actions)
        } else {
            list(actions, random, |name, random| {
                // Actions are compared without regard to case.
                if is_known && random.bool() {
                    name.to_lowercase()
                } else {
                    name.to_owned()
                }
            })
        };
    }
    let whole = format!("{DOMAIN}/*");
    if members
        .get("Resource")
        .is_some_and(|it| naive::texts(it) == [whole.as_str()])
        && random.bool()
    {
        members.remove("Resource");
    } else if let Some(resources) = members.get_mut("Resource") {
        *resources = list(resources, random, |name, _| name.to_owned());
    }
    for key in ["NotAction", "NotResource"] {
        if let Some(value) = members.get_mut(key) {
            *value = list(value, random, |name, _| name.to_owned());
        }
    }
    if let Some(Value::Object(operators)) = members.get_mut("Condition") {
        for (operator, keys) in operators.iter_mut() {
            let keys = keys.as_object_mut().unwrap();
            for (key, mut values) in std::mem::take(keys) {
                let is_address = operator.contains("IpAddress");
                if !matches!(values, Value::Bool(_)) {
                    values = list(&values, random, |text, random| {
                        if is_address {
                            address(text, random)
                        } else {
                            text.to_owned()
                        }
                    });
                } else if random.bool() {
                    values = values.to_string().into();
                }
                let key = if key.starts_with("aws:S") && random.bool() {
                    key.to_lowercase()
                } else {
                    key
                };
                keys.insert(key, values);
            }
        }
    }
    statement
}

/// Spells a list in another order, with an item twice, or one item alone as no list.
fn list(value: &Value, random: &mut Rng, spell: impl Fn(&str, &mut Rng) -> String) -> Value {
    let mut items: Vec<String> = naive::texts(value)
        .iter()
        .map(|it| spell(it, random))
        .collect();
    random.shuffle(&mut items);
    if random.u8(..4) == 0 && !items.is_empty() {
        items.push(items[0].clone());
    }
    match items.as_slice() {
        [one] if random.bool() => one.as_str().into(),
        many => many.into(),
    }
}

/// Names every action that the patterns match.
fn spelled_out(patterns: &Value) -> Value {
    let patterns = naive::texts(patterns);
    let matched = |action: &&&str| {
        let action = action.to_lowercase();
        patterns
            .iter()
            .any(|it| naive::matches(&it.to_lowercase(), &action))
    };
    ACTIONS.iter().filter(matched).copied().collect()
}

/// Spells an address or a block in another way.
fn address(text: &str, random: &mut Rng) -> String {
    match (text, random.u8(..3)) {
        ("203.0.113.0/24", 0) => "203.0.113.77/24".to_owned(),
        ("198.51.100.7", 0) => "198.51.100.7/32".to_owned(),
        ("2001:db8::/32", 0) => "2001:DB8:0:0::/32".to_owned(),
        ("2001:db8::/32", 1) => "2001:db8::99/32".to_owned(),
        ("2001:db8::7", 0) => "2001:db8::7/128".to_owned(),
        ("2001:db8::7", 1) => "2001:0DB8:0::0007".to_owned(),
        _ => text.to_owned(),
    }
}

/// Changes one element of one statement, or drops a statement.
fn changed(document: &Value, random: &mut Rng) -> Value {
    let mut statements: Vec<Value> = naive::each(&document["Statement"])
        .into_iter()
        .cloned()
        .collect();
    if statements.is_empty() {
        return pool::document(&[json!({"Effect": "Allow", "Principal": "*", "Action": "es:*"})]);
    }
    let at = random.usize(..statements.len());
    let statement = &mut statements[at];
    match random.u8(..8) {
        0 => {
            let other = if statement["Effect"] == "Allow" {
                "Deny"
            } else {
                "Allow"
            };
            statement["Effect"] = other.into();
        }
        1 => statement["Principal"] = json!({"AWS": "arn:aws:iam::111122223333:role/new"}),
        2 => statement["Action"] = "es:ESHttpPatch".into(),
        3 => statement["Resource"] = format!("{DOMAIN}/new").into(),
        4 => statement["Condition"] = json!({"StringLike": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}),
        5 => statement["Condition"] = json!({"StringEquals": {"aws:SourceVpc": "o-a1b2c3d4e5"}}),
        6 => {
            statement["Condition"] =
                json!({"StringEquals": {"aws:PrincipalOrgID": "o-new1b2c3d4"}});
        }
        _ => drop(statements.remove(at)),
    }
    pool::document(&statements)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(320))]

    #[test]
    fn a_respelling_means_the_same(statements in pool::statements(5), seed: u64) {
        let document = pool::document(&statements);
        let other = respelled(&document, &mut Rng::with_seed(seed));
        prop_assert_eq!(canonical(&document), canonical(&other), "{} {}", document, other);
        // Nor does whitespace count.
        let pretty = Document::parse(&serde_json::to_string_pretty(&other).unwrap()).unwrap();
        prop_assert_eq!(Canonical::of(&pretty, &domain()), canonical(&other));
    }

    #[test]
    fn meanings_are_equal_where_a_naive_reader_finds_them_equal(
        statements in pool::statements(4), seed: u64,
    ) {
        let mut random = Rng::with_seed(seed);
        let document = pool::document(&statements);
        let other = changed(&document, &mut random);
        let same = naive::meaning(&document) == naive::meaning(&other);
        let other = respelled(&other, &mut random);
        prop_assert_eq!(canonical(&document) == canonical(&other), same, "{} {}", document, other);
    }

    #[test]
    fn grouping_says_what_the_parts_say_in_the_same_bytes_and_no_more_of_them(
        statements in prop::collection::vec(pool::known(), 0..6), seed: u64,
    ) {
        let document = pool::document(&statements);
        let permissions = canonical(&document).permissions().clone();
        let grouped = Document::new(permissions.to_statements());
        let value = grouped.to_value().unwrap_or_else(|| pool::document(&[]));
        prop_assert_eq!(naive::meaning(&value), naive::meaning(&document));
        // Any order of input gives the same bytes.
        let other = respelled(&document, &mut Rng::with_seed(seed));
        let again = Document::new(canonical(&other).permissions().to_statements());
        prop_assert_eq!(grouped.to_text(), again.to_text());
        // One statement for each permission is never shorter.
        let ungrouped: Vec<Statement> = permissions
            .iter()
            .flat_map(|(permission, actions)| {
                let mut one = Permissions::default();
                one.insert(permission.clone(), actions);
                one.to_statements()
            })
            .collect();
        prop_assert!(grouped.to_text().len() <= Document::new(ungrouped).to_text().len());
        // No two statements say the same, and none spells `*` beside an ARN.
        let spelled: BTreeSet<String> = grouped.statements().iter().map(|it| it.to_value().to_string()).collect();
        prop_assert_eq!(spelled.len(), grouped.statements().len());
        for statement in grouped.statements() {
            let names = naive::texts(&statement.members()["Principal"]["AWS"]);
            prop_assert!(names == ["*"] || !names.contains(&"*".to_owned()));
        }
    }
}

/// One change of each element, none of which may go unseen.
#[test]
fn a_change_of_any_element_is_another_meaning() {
    let base = json!({"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"},
        "Action": "es:ESHttpGet", "Resource": format!("{DOMAIN}/a"),
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}});
    let odd = json!({"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"},
        "NotAction": "es:ESHttpGet", "NotResource": format!("{DOMAIN}/a"), "Later": {"a": [1, 2]},
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}});
    let of_both = [
        ("/Effect", json!("Audit")),
        ("/Principal/AWS", json!("arn:aws:iam::111122223333:role/A")),
        (
            "/Principal/AWS",
            json!("arn:aws-cn:iam::111122223333:role/a"),
        ),
        ("/Principal", json!("*")),
        (
            "/Condition",
            json!({"StringLike": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}),
        ),
        (
            "/Condition",
            json!({"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}),
        ),
        (
            "/Condition",
            json!({"ForAllValues:StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}),
        ),
        (
            "/Condition",
            json!({"StringEquals": {"aws:SourceVpc": "o-a1b2c3d4e5"}}),
        ),
        (
            "/Condition",
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-A1b2c3d4e5"}}),
        ),
        (
            "/Condition",
            json!({"StringEquals": {"aws:PrincipalOrgID": ["o-a1b2c3d4e5", "o-b"]}}),
        ),
        (
            "/Condition",
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5", "aws:SourceVpc": "x"}}),
        ),
        (
            "/Condition",
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5",
            "aws:principalorgid": "o-b1b2c3d4e5"}}),
        ),
        ("/Condition", json!({})),
    ];
    let of_base = [
        ("/Action", json!("es:ESHttpPut")),
        ("/Action", json!(["es:ESHttpGet", "es:ESHttpHead"])),
        ("/Resource", json!(format!("{DOMAIN}/a/*"))),
        ("/Resource", json!(format!("{DOMAIN}/A"))),
        (
            "/Resource",
            json!([format!("{DOMAIN}/a"), format!("{DOMAIN}/b")]),
        ),
    ];
    let of_odd = [
        ("/NotAction", json!("es:ESHttpPut")),
        ("/NotResource", json!(format!("{DOMAIN}/b"))),
        ("/Later/a", json!([1, 3])),
        ("/Later", json!(null)),
    ];
    let cases = of_both.iter().flat_map(|it| [(&base, it), (&odd, it)]);
    let cases = cases.chain(of_base.iter().map(|it| (&base, it)));
    for (statement, (pointer, value)) in cases.chain(of_odd.iter().map(|it| (&odd, it))) {
        let mut other = statement.clone();
        *other.pointer_mut(pointer).unwrap() = value.clone();
        let (one, other) = (
            pool::document(std::slice::from_ref(statement)),
            pool::document(&[other]),
        );
        assert_ne!(canonical(&one), canonical(&other), "{other}");
    }
}
