//! How time and memory grow with the number of grants on one domain.
//!
//! `cargo bench --bench growth` prints a table for each world: the quickest of several runs, and the
//! most heap that one run holds beside its input. To reach: 10,000 grants in less than 50 ms and
//! 64 MiB, and the same for each grant from 1,000 to 20,000. Counting costs a little time with each
//! allocation; `cargo bench --bench policy` measures without it.

#![allow(clippy::expect_used, reason = "the input is made right here")]
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "the table is what this is for"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use self::world::{World, grants};

mod world;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The numbers of grants to plan.
const COUNTS: [usize; 5] = [1_000, 2_000, 5_000, 10_000, 20_000];

/// How often each is planned; the quickest counts, since other work only ever adds.
const RUNS: usize = 15;

/// The time to stay under at 10,000 grants, in milliseconds.
const TIME_BAR: f64 = 50.0;

/// The heap to stay under at 10,000 grants, in MiB.
const HEAP_BAR: f64 = 64.0;

fn main() -> ExitCode {
    let mut holds = true;
    let shared = |count| World::new(&grants(count, 100));
    let distinct = |count| World::new(&grants(count, count));
    holds &= table(
        "written: grants that share 100 roles, no policy yet",
        &shared,
        true,
    );
    holds &= table(
        "unchanged: the same, all in place",
        &|count| shared(count).settled(),
        true,
    );
    table(
        "too large: a role for each grant, the youngest refused",
        &distinct,
        false,
    );
    if holds {
        ExitCode::SUCCESS
    } else {
        println!("\na bar was missed");
        ExitCode::FAILURE
    }
}

/// Prints a table; tells whether the bars are kept, and whether a grant among twice as many costs no
/// more than one and a half times what it does.
fn table(title: &str, world: &dyn Fn(usize) -> World, is_held: bool) -> bool {
    let (mut holds, mut before) = (true, None);
    println!("\n{title}");
    println!("  grants        ms  ns/grant       MiB   bytes/grant");
    // As a test, among others, it only shows that it runs.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let counts = if measures { &COUNTS[..] } else { &COUNTS[..1] };
    for &count in counts {
        let world = world(count);
        let (time, heap) = measure(&world, if measures { RUNS } else { 1 });
        let (ms, mib) = (time.as_secs_f64() * 1e3, heap as f64 / 1_048_576.0);
        let each = ms / count as f64;
        let doubled = before.replace(each).filter(|_| count >= 10_000);
        holds &= doubled.is_none_or(|before| each <= 1.5 * before);
        holds &= count != 10_000 || ms < TIME_BAR && mib < HEAP_BAR;
        let bars = if is_held && count == 10_000 {
            format!("   to reach: {TIME_BAR} ms, {HEAP_BAR} MiB")
        } else {
            String::new()
        };
        println!(
            "  {count:>6} {ms:>9.2} {:>9.0} {mib:>9.2} {:>13.0}{bars}",
            ms * 1e6 / count as f64,
            heap as f64 / count as f64,
        );
    }
    holds || !is_held || !measures
}

/// Returns the time of the quickest run, and the most heap that a run holds.
fn measure(world: &World, runs: usize) -> (Duration, usize) {
    let (mut quickest, mut most) = (Duration::MAX, 0);
    for _ in 0..runs {
        HEAP.reset_peak_usage();
        let (before, start) = (HEAP.current_usage(), Instant::now());
        let plan = black_box(world.plan());
        quickest = quickest.min(start.elapsed());
        most = most.max(HEAP.peak_usage().saturating_sub(before));
        drop(plan);
    }
    (quickest, most)
}
