//! The operator is crashed right after every write that it makes, and always comes to the same end.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::lane::{Crash, Lane, Outcome, Point, Reference};
use super::report::Report;
use super::workload::Workload;
use crate::common::operator::wired::Leads;
use crate::common::oracle;

/// How many points share one crash: fewer than the domains that the operator works on at a time,
/// since each that is cut off keeps it waiting.
const BATCH: usize = 14;

/// How many worlds are swept at the same time, beside the one with a standby.
const LANES: usize = 2;

type Batch = (Crash, Vec<(Point, Reference)>);

/// Of how many points a sample takes one.
const SAMPLE: usize = 4;

/// Sweeps over all points, or over a sample of them that is another one each time.
pub(crate) async fn run(full: bool) -> Report {
    let began = Instant::now();
    let lane = Lane::start(Leads::Alone).await;
    let (references, mut outcome) = Box::pin(lane.references()).await;
    for reference in &references {
        eprintln!(
            "    {:?}: {} writes",
            reference.workload,
            reference.writes.len()
        );
    }
    for wrong in &outcome.wrong {
        eprintln!("--- {wrong}");
    }
    if outcome.wrong.is_empty() {
        let one_of = if full { 1 } else { SAMPLE };
        let first = fastrand::usize(..one_of);
        if !full {
            eprintln!("    a sample: one point of {one_of}, from number {first} on");
        }
        let of_kind = |leaders| Arc::new(Mutex::new(plan(&references, leaders, first, one_of)));
        let (alone, leaders) = (of_kind(false), of_kind(true));
        let mut lanes = tokio::task::JoinSet::new();
        lanes.spawn_local(sweep(Some(lane), Leads::Alone, Arc::clone(&alone)));
        for _ in 1..LANES {
            lanes.spawn_local(sweep(None, Leads::Alone, Arc::clone(&alone)));
        }
        lanes.spawn_local(sweep(None, Leads::ByLease, leaders));
        while let Some(done) = lanes.join_next().await {
            match done {
                Ok(done) => outcome.add(done),
                Err(error) => {
                    eprintln!("--- a lane failed: {error}");
                    outcome.wrong.push(format!("a lane failed: {error}"));
                }
            }
        }
    }
    report(&references, &outcome, full, began)
}

fn report(references: &[Reference], outcome: &Outcome, full: bool, began: Instant) -> Report {
    if !outcome.judgement.violations.is_empty() {
        eprintln!("--- {}", oracle::told(&outcome.judgement));
    }
    let mut report = Report::default();
    let stories: BTreeSet<Workload> = references.iter().map(|it| it.workload).collect();
    report.at_least("crash sweep: workloads", stories.len(), 12);
    let writes: usize = references.iter().map(|it| it.writes.len()).sum();
    report.note("crash sweep: writes in them", writes);
    let least = if full { 300 } else { 300 / SAMPLE };
    report.at_least("crash sweep: points reached", outcome.points, least);
    report.note(
        "crash sweep: points that no write came to",
        outcome.unreached,
    );
    report.at_most("crash sweep: ends that differ", outcome.wrong.len(), 0);
    report.at_least(
        "crash sweep: versions judged",
        outcome.judgement.versions,
        1,
    );
    let violations = outcome.judgement.violations.len();
    report.at_most("crash sweep: violations of M", violations, 0);
    report.note("crash sweep: seconds", began.elapsed().as_secs());
    report
}

/// Plans every crash after every write; those of leaders after those writes that others build on.
///
/// Takes one point of so many, from the given one on.
fn plan(references: &[Reference], leaders: bool, first: usize, one_of: usize) -> VecDeque<Batch> {
    let kinds = [
        Crash::Answered,
        Crash::Unanswered,
        Crash::AnswerLost,
        Crash::Refused,
        Crash::LeaderKilled,
        Crash::LeaderFrozen,
    ];
    let mut batches = VecDeque::new();
    for crash in kinds.into_iter().filter(|it| it.is_of_leader() == leaders) {
        let mut points = Vec::new();
        for reference in references {
            let workload = reference.workload;
            for (at, write) in reference.writes.iter().enumerate() {
                let to_aws = !write.contains(' ');
                let meant = match crash {
                    Crash::Answered | Crash::AnswerLost | Crash::Refused => true,
                    Crash::Unanswered | Crash::LeaderFrozen => to_aws,
                    Crash::LeaderKilled => to_aws || write.contains("record"),
                };
                if meant {
                    let write = at + 1;
                    points.push((Point { workload, write }, reference.clone()));
                }
            }
        }
        let points: Vec<_> = points.into_iter().skip(first).step_by(one_of).collect();
        batches.extend(points.chunks(BATCH).map(|points| (crash, points.to_vec())));
    }
    batches
}

/// Works off batches until none is left.
async fn sweep(lane: Option<Lane>, leads: Leads, batches: Arc<Mutex<VecDeque<Batch>>>) -> Outcome {
    let mut lane = match lane {
        Some(lane) => lane,
        None => Lane::start(leads).await,
    };
    let mut outcome = Outcome::default();
    loop {
        let next = batches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some((crash, points)) = next else { break };
        let began = Instant::now();
        let done = lane.batch(crash, &points).await;
        let (reached, wrong) = (done.points, done.wrong.len());
        eprintln!(
            "    {crash:?}: {reached} of {} points, {wrong} wrong, {:.1} s",
            points.len(),
            began.elapsed().as_secs_f64()
        );
        for wrong in &done.wrong {
            eprintln!("--- {wrong}");
        }
        outcome.add(done);
        // What went wrong once goes wrong again, and takes its time for it.
        if outcome.wrong.len() > 3 {
            break;
        }
    }
    lane.end().await;
    outcome
}
