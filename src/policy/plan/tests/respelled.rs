//! Whatever order and spelling the service gives a policy back in, nothing is written.

use proptest::prelude::*;

use super::*;

/// Spells a document otherwise, in every way that leaves its meaning.
struct Speller(fastrand::Rng);

impl Speller {
    fn coin(&mut self) -> bool {
        self.0.bool()
    }

    fn document(&mut self, text: &str) -> String {
        let document: Value = serde_json::from_str(text).unwrap();
        let statements = document["Statement"].as_array().unwrap();
        let mut spelled = Vec::new();
        for statement in statements {
            for part in self.split(statement) {
                spelled.push(self.statement(&part));
            }
        }
        self.0.shuffle(&mut spelled);
        json!({"Statement": spelled, "Version": "2012-10-17"}).to_string()
    }

    /// Divides a statement in two by its principals, its actions or its resources.
    fn split(&mut self, statement: &Value) -> Vec<Value> {
        let keys = ["Action", "Resource"];
        let key = keys[self.0.usize(..keys.len())];
        let values = as_list(&statement[key]);
        if values.len() < 2 || self.coin() {
            return vec![statement.clone()];
        }
        let (first, second) = values.split_at(self.0.usize(1..values.len()));
        let with = |values: &[Value]| {
            let mut part = statement.clone();
            part[key] = values.into();
            part
        };
        vec![with(first), with(second)]
    }

    fn statement(&mut self, statement: &Value) -> Value {
        let mut spelled = json!({"Effect": statement["Effect"]});
        if self.coin() {
            spelled["Sid"] = format!("s{}", self.0.u16(..)).into();
        }
        let principals = as_list(&statement["Principal"]["AWS"]);
        let root = |name: &Value| {
            let account = name.as_str()?.strip_suffix(":root")?.rsplit(':').next()?;
            Some(Value::from(account))
        };
        let principals = principals
            .iter()
            .map(|name| root(name).filter(|_| self.coin()).unwrap_or(name.clone()))
            .collect();
        spelled["Principal"]["AWS"] = self.list(principals);
        let actions = as_list(&statement["Action"]);
        let actions = actions
            .iter()
            .flat_map(|action| self.action(action.as_str().unwrap()))
            .collect();
        spelled["Action"] = self.list(actions);
        let resources = as_list(&statement["Resource"]);
        let whole = json!(["arn:aws:es:eu-west-1:111122223333:domain/logs/*"]);
        // The service fills it in.
        if json!(resources) != whole || self.coin() {
            spelled["Resource"] = self.list(resources);
        }
        if let Some(operators) = statement["Condition"].as_object() {
            for (operator, keys) in operators {
                for (key, values) in keys.as_object().unwrap() {
                    let key = if self.coin() {
                        key.clone()
                    } else {
                        key.to_lowercase()
                    };
                    let values = as_list(values).iter().map(|it| self.address(it)).collect();
                    spelled["Condition"][operator][key] = self.list(values);
                }
            }
        }
        spelled
    }

    fn action(&mut self, action: &str) -> Vec<Value> {
        let spelled: &[&str] = match action {
            "es:*" | "es:ESHttp*" => match self.0.u8(..3) {
                0 => &["es:*"],
                1 => &["es:ESHttp*"],
                _ => &[
                    "es:ESHttpGet",
                    "es:ESHttpHead",
                    "es:ESHttpP*",
                    "es:ESHttpDelete",
                ],
            },
            one => &[one],
        };
        let lower = self.coin();
        let case = |action: &&str| {
            if lower {
                action.to_lowercase()
            } else {
                (*action).to_owned()
            }
        };
        spelled.iter().map(|action| case(action).into()).collect()
    }

    fn address(&mut self, value: &Value) -> Value {
        let text = value.as_str().unwrap();
        let bare = text.parse::<std::net::Ipv4Addr>().is_ok();
        match text {
            "203.0.113.0/24" if self.coin() => "203.0.113.9/24".into(),
            _ if bare && self.coin() => format!("{text}/32").into(),
            _ => value.clone(),
        }
    }

    /// Shuffles a list, repeats an element, or takes it out of its list if it is alone.
    fn list(&mut self, mut values: Vec<Value>) -> Value {
        if values.len() == 1 && self.coin() {
            return values.remove(0);
        }
        if self.0.u8(..4) == 0 {
            values.push(values[0].clone());
        }
        self.0.shuffle(&mut values);
        values.into()
    }
}

fn as_list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        one => vec![one.clone()],
    }
}

/// A world with grants of every kind, all of them in the policy and on record.
fn settled() -> World {
    let mut world = World::new(&json!({"consent": [{"namespaces": ["team-a"], "ceiling": {
        "access": "Admin", "anonymous": true, "sourceIps": ["203.0.113.0/24", "198.51.100.0/24"],
        "principals": {"accounts": ["111122223333"], "wholeAccounts": ["111122223333"]},
    }}]}));
    let addresses = json!({"sourceIps": ["203.0.113.0/24", "198.51.100.7"]});
    world.grant("a", &json!({"access": "Admin"}));
    world.grant("b", &json!({"access": "Read", "paths": ["logs*", "x"]}));
    world.grant("c", &json!({"paths": ["logs*"], "conditions": addresses}));
    let anyone = json!([{"anonymous": {}}]);
    world.grant(
        "d",
        &json!({"principals": anyone, "access": "Read", "conditions": addresses}),
    );
    let account = json!([{"account": {"id": "111122223333"}}, {"iamRole": {"arn": role("e")}}]);
    world.grant("e", &json!({"principals": account, "access": "Admin"}));
    let first = world.plan();
    for outcome in first.outcomes.values() {
        assert!(matches!(outcome, Outcome::Granted { .. }), "{outcome:?}");
    }
    world.observed = first.policy.unwrap();
    world.last = Some(first.next);
    world
}

#[test]
fn a_speller_spells_otherwise() {
    let text = settled().observed.to_text();
    let spell = |seed| Speller(fastrand::Rng::with_seed(seed)).document(&text);
    let spelled: BTreeSet<String> = (0..100).map(spell).collect();
    assert!(spelled.len() > 90, "{} of 100 differ", spelled.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_policy_that_is_only_spelled_otherwise_is_not_written(seed: u64) {
        thread_local!(static SETTLED: World = settled());
        SETTLED.with(|settled| {
            let text = Speller(fastrand::Rng::with_seed(seed)).document(&settled.observed.to_text());
            let observed = Document::parse(&text).unwrap();
            let world = World { observed, grants: settled.grants.clone(), last: settled.last.clone(),
                domain: settled.domain.clone(), facts: settled.facts, accounts: Vec::new() };
            let plan = world.plan();
            prop_assert!(plan.policy.is_none(), "{text}\n{:?}\n{:?}", plan.added, plan.removed);
            prop_assert!(plan.added.is_empty() && plan.removed.is_empty());
            prop_assert_eq!(plan.foreign_statements, 0);
            Ok(())
        })?;
    }
}
