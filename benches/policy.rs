//! How long it takes to validate, compile and plan all grants of one domain.
//!
//! `cargo bench --bench policy`. Three worlds: grants that share bodies and fit into a policy, with
//! and without a change to write, and grants that do not fit, where the youngest are refused.

#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::expect_used, reason = "the input is made right here")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use opensearch_access::api::access::DomainAccess;
use opensearch_access::api::domain::OpenSearchDomain;
use opensearch_access::policy::document::Document;
use opensearch_access::policy::domain::Domain;
use opensearch_access::policy::plan::{self, Input, Plan};
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::{DomainFacts, GrantKey};
use opensearch_access::policy::verdict::{self, Verdict};
use serde_json::json;

fn domain() -> Domain {
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

/// Grants of 100 namespaces; `roles` tells how many roles they name between them.
fn grants(count: usize, roles: usize) -> Vec<DomainAccess> {
    (0..count)
        .map(|n| {
            serde_json::from_value(json!({
                "metadata": {
                    "name": format!("grant-{n}"), "namespace": format!("team-{}", n % 100),
                    "uid": format!("uid-{n}"), "generation": 1,
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

fn judge(grants: &[DomainAccess], domain: &Domain, now: Timestamp) -> BTreeMap<GrantKey, Verdict> {
    verdict::of_all(
        grants,
        domain,
        DomainFacts::default(),
        &Resolutions::default(),
        &BTreeMap::new(),
        now,
    )
}

fn whole(grants: &[DomainAccess], domain: &Domain, observed: &Document, now: Timestamp) -> Plan {
    let verdicts = judge(grants, domain, now);
    plan::plan(&Input {
        domain,
        facts: DomainFacts::default(),
        held: &BTreeMap::new(),
        grants: &verdicts,
        observed,
        last: None,
        acknowledged_revocation: 0,
    })
}

fn benchmarks(criterion: &mut Criterion) {
    let domain = domain();
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
    let mut group = criterion.benchmark_group("plan");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(5));
    for count in [100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(count as u64));
        let fitting = grants(count, 100);
        let empty = Document::default();
        group.bench_function(BenchmarkId::new("written", count), |bencher| {
            bencher.iter(|| black_box(whole(&fitting, &domain, &empty, now)));
        });
        let standing = whole(&fitting, &domain, &empty, now)
            .policy
            .expect("a policy");
        group.bench_function(BenchmarkId::new("unchanged", count), |bencher| {
            bencher.iter(|| black_box(whole(&fitting, &domain, &standing, now)));
        });
        group.bench_function(BenchmarkId::new("validate", count), |bencher| {
            bencher.iter(|| black_box(judge(&fitting, &domain, now)));
        });
        let too_many = grants(count, count);
        group.bench_function(BenchmarkId::new("too_large", count), |bencher| {
            bencher.iter(|| black_box(whole(&too_many, &domain, &empty, now)));
        });
    }
    group.finish();
}

criterion_group!(all, benchmarks);
criterion_main!(all);
