//! The worlds that the benchmarks plan: one domain, and the grants of a hundred namespaces.

use std::collections::BTreeMap;

use jiff::Timestamp;
use opensearch_access::api::access::DomainAccess;
use opensearch_access::api::domain::OpenSearchDomain;
use opensearch_access::api::name::FINALIZER;
use opensearch_access::policy::document::Document;
use opensearch_access::policy::domain::Domain;
use opensearch_access::policy::ownership::LastApplied;
use opensearch_access::policy::plan::{self, Input, Plan};
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::{DomainFacts, GrantKey, ValidatedGrant};
use opensearch_access::policy::verdict::{self, Verdict};
use serde_json::json;

/// One domain, its grants as they were validated, and what is in place of them.
pub(crate) struct World {
    domain: Domain,
    verdicts: BTreeMap<GrantKey, Verdict>,
    held: BTreeMap<GrantKey, ValidatedGrant>,
    observed: Document,
    last: Option<LastApplied>,
}

impl World {
    /// Validates grants on a domain that has no policy yet.
    pub(crate) fn new(grants: &[DomainAccess]) -> Self {
        let domain = domain();
        Self {
            verdicts: judge(grants, &domain),
            held: verdict::held(
                grants,
                &domain,
                DomainFacts::default(),
                &Resolutions::default(),
            ),
            domain,
            observed: Document::default(),
            last: None,
        }
    }

    /// Compiles and plans all grants.
    pub(crate) fn plan(&self) -> Plan {
        plan::plan(&Input {
            domain: &self.domain,
            facts: DomainFacts::default(),
            held: &self.held,
            grants: &self.verdicts,
            observed: &self.observed,
            last: self.last.as_ref(),
            acknowledged_revocation: 0,
        })
    }

    /// Puts the plan in place, so that the next one has nothing to write.
    pub(crate) fn settled(mut self) -> Self {
        let plan = self.plan();
        self.observed = plan.policy.unwrap_or_default();
        self.last = Some(plan.next);
        self
    }
}

/// Returns the domain.
pub(crate) fn domain() -> Domain {
    let object: OpenSearchDomain = serde_json::from_value(json!({
        "metadata": {"name": "logs"},
        "spec": {
            "domainName": "logs", "accountId": "111122223333", "region": "eu-west-1",
            "consent": [{
                "namespaces": (0..100).map(|n| format!("team-{n}")).collect::<Vec<_>>(),
                "ceiling": {
                    "access": "ReadWrite", "maxGrants": 10_000,
                    "principals": {"accounts": ["111122223333"]},
                },
            }],
        },
    }))
    .expect("a domain");
    Domain::parse(&object).expect("a valid domain")
}

/// Returns grants of 100 namespaces; `roles` tells how many roles they name between them.
pub(crate) fn grants(count: usize, roles: usize) -> Vec<DomainAccess> {
    (0..count)
        .map(|n| {
            serde_json::from_value(json!({
                "metadata": {
                    "name": format!("grant-{n}"), "namespace": format!("team-{}", n % 100),
                    "uid": format!("uid-{n}"), "generation": 1, "finalizers": [FINALIZER],
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "spec": {
                    "domainRef": {"name": "logs"},
                    "principals": [{"iamRole": {"arn":
                        format!("arn:aws:iam::111122223333:role/service-{}", n % roles)}}],
                    "access": if n % 2 == 0 { "Read" } else { "ReadWrite" },
                    "paths": [format!("index-{}-*", n % 8), "shared"],
                },
            }))
            .expect("a grant")
        })
        .collect()
}

/// Validates grants.
pub(crate) fn judge(grants: &[DomainAccess], domain: &Domain) -> BTreeMap<GrantKey, Verdict> {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
    verdict::of_all(
        grants,
        domain,
        DomainFacts::default(),
        &Resolutions::default(),
        &BTreeMap::new(),
        now,
    )
}
