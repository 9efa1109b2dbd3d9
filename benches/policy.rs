//! How long it takes to validate, and to compile and plan, all grants of one domain.
//!
//! `cargo bench --bench policy`. Three worlds: grants that share bodies and fit into a policy, with
//! and without a change to write, and grants that do not fit, where the youngest are refused. To
//! reach: 10,000 grants compiled and planned in less than 50 ms. Memory and growth:
//! `cargo bench --bench growth`.

#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::expect_used, reason = "the input is made right here")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::world::{World, domain, grants, judge};

mod world;

fn benchmarks(criterion: &mut Criterion) {
    let domain = domain();
    let mut group = criterion.benchmark_group("plan");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(5));
    for count in [100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(count as u64));
        let fitting = grants(count, 100);
        let new = World::new(&fitting);
        group.bench_function(BenchmarkId::new("written", count), |bencher| {
            bencher.iter(|| black_box(new.plan()));
        });
        let standing = new.settled();
        group.bench_function(BenchmarkId::new("unchanged", count), |bencher| {
            bencher.iter(|| black_box(standing.plan()));
        });
        group.bench_function(BenchmarkId::new("validate", count), |bencher| {
            bencher.iter(|| black_box(judge(&fitting, &domain)));
        });
        let too_many = World::new(&grants(count, count));
        group.bench_function(BenchmarkId::new("too_large", count), |bencher| {
            bencher.iter(|| black_box(too_many.plan()));
        });
    }
    group.finish();
}

criterion_group!(all, benchmarks);
criterion_main!(all);
