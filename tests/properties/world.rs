//! One domain and its grants as objects, planned as often as a test likes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use opensearch_access::api::access::DomainAccess;
use opensearch_access::api::name::FINALIZER;
use opensearch_access::policy::document::Document;
use opensearch_access::policy::domain::Domain;
use opensearch_access::policy::ownership::LastApplied;
use opensearch_access::policy::plan::{self, Input, Outcome, Plan};
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::DomainFacts;
use opensearch_access::policy::verdict;
use serde_json::{Value, json};

const NOW: &str = "2026-06-01T00:00:00Z";

/// The time at which everything is judged.
pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// Builds a domain: `spec` takes the place of fields of the usual one.
pub(crate) fn domain(spec: &Value) -> Domain {
    let mut object = json!({
        "metadata": {"name": "logs"},
        "spec": {
            "domainName": "logs", "accountId": "111122223333", "region": "eu-west-1",
            "consent": [{"namespaces": ["team-a"], "ceiling": {
                "access": "Admin", "maxGrants": 10_000, "anonymous": true,
                "sourceIps": ["0.0.0.0/0", "::/0"],
                "principals": {"accounts": ["111122223333"], "wholeAccounts": ["111122223333"]},
            }}],
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Domain::parse(&serde_json::from_value(object).unwrap()).unwrap()
}

/// Builds a grant of a namespace on the domain `logs`.
pub(crate) fn grant(namespace: &str, name: &str, spec: &Value) -> DomainAccess {
    let mut object = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"),
            "generation": 1, "creationTimestamp": NOW, "finalizers": [FINALIZER]},
        "spec": {"domainRef": {"name": "logs"}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// Marks a grant as being deleted.
pub(crate) fn delete(grant: &mut DomainAccess) {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
    grant.metadata.deletion_timestamp = Some(time);
}

/// The ARN of a role of the domain's account.
pub(crate) fn role(name: &str) -> String {
    format!("arn:aws:iam::111122223333:role/{name}")
}

/// Everything that a plan is made of.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) domain: Domain,
    pub(crate) facts: DomainFacts,
    pub(crate) grants: Vec<DomainAccess>,
    pub(crate) observed: Document,
    pub(crate) last: Option<LastApplied>,
    pub(crate) acknowledged: usize,
}

impl World {
    /// Starts with a domain that has no grant and no policy.
    pub(crate) fn new(domain: Domain) -> Self {
        Self {
            domain,
            facts: DomainFacts::default(),
            grants: Vec::new(),
            observed: Document::default(),
            last: None,
            acknowledged: 0,
        }
    }

    /// Plans.
    pub(crate) fn plan(&self) -> Plan {
        let grants = verdict::of_all(
            &self.grants,
            &self.domain,
            self.facts,
            &Resolutions::default(),
            &BTreeMap::new(),
            now(),
        );
        plan::plan(&Input {
            domain: &self.domain,
            facts: self.facts,
            held: &verdict::held(
                &self.grants,
                &self.domain,
                self.facts,
                &Resolutions::default(),
            ),
            grants: &grants,
            observed: &self.observed,
            last: self.last.as_ref(),
            acknowledged_revocation: self.acknowledged,
        })
    }

    /// Plans, and takes the plan as written and read back.
    pub(crate) fn settle(&mut self) -> Plan {
        let plan = self.plan();
        assert_eq!(plan.hold, None);
        if let Some(policy) = &plan.policy {
            self.observed = policy.clone();
        }
        self.last = Some(plan.next.clone());
        plan
    }

    /// Returns the policy as JSON.
    pub(crate) fn policy(&self) -> Value {
        self.observed
            .to_value()
            .unwrap_or_else(|| json!({"Statement": []}))
    }

    /// Changes the statements of the policy by another's hand.
    pub(crate) fn others(&mut self, change: impl FnOnce(&mut Vec<Value>)) {
        let policy = self.policy();
        let mut statements = policy["Statement"].as_array().unwrap().clone();
        change(&mut statements);
        self.observed = Document::parse(&crate::pool::document(&statements).to_string()).unwrap();
    }
}

/// Tells whether a grant is in place or will be.
pub(crate) fn is_granted(plan: &Plan, name: &str) -> bool {
    let outcome = plan
        .outcomes
        .iter()
        .find(|(key, _)| key.name == name)
        .unwrap()
        .1;
    matches!(outcome, Outcome::Granted { .. })
}
