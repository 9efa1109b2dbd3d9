//! What a signature costs: reading a target, and signing, as for each request of a proxy.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails where it panics"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use opensearch_access::sigv4::{Credentials, Payload, Request, Signer, Target};

fn signatures(criterion: &mut Criterion) {
    let now = "2026-01-31T23:59:59Z".parse().unwrap();
    let empty = Payload::of(b"");
    let token = "t".repeat(900);
    for (name, token) in [("keys of a user", None), ("keys of a session", Some(token))] {
        let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI", token).unwrap();
        let signer = Signer::new(credentials, "eu-west-1", "es");
        for (what, target) in [
            ("plain", "/logs/_search"),
            ("respelled", "/logs-*/_search?q=user:kim+AND+x&pretty"),
        ] {
            criterion.bench_function(&format!("small GET, {what}, {name}"), |bench| {
                bench.iter(|| {
                    let target = Target::parse(black_box(target.as_bytes())).unwrap();
                    let request = Request {
                        method: "GET",
                        host: "search-logs.eu-west-1.es.amazonaws.com",
                        target: &target,
                        payload: empty,
                    };
                    signer.sign(&request, now)
                });
            });
        }
    }
}

criterion_group!(benches, signatures);
criterion_main!(benches);
