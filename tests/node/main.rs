//! Pods that really run: the operator installed on a whole node, and teams' pods that use a real
//! OpenSearch through its sidecars.
//!
//! One node for all cases, in namespaces of its own (see [`common::node`]). What is printed, and which
//! arguments are taken, is as of any test program: names, or parts of them, choose; `--list` lists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod node;
    pub(crate) mod opensearch;
    pub(crate) mod parts;
    pub(crate) mod pod_identity_webhook;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod cases;
mod outside;
mod story;
mod teams;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{JoinSet, LocalSet, spawn_local};

use common::node::namespaces::{Entered, INSIDE, enter};
use teams::Teams;

type Case = (
    &'static str,
    fn(Arc<Teams>) -> Pin<Box<dyn Future<Output = ()>>>,
);

/// Names cases by what they are called.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        [$((stringify!($case), |teams| Box::pin(cases::$case(teams)))),*]
    };
}

/// Those that only use the node, all at once.
const TOGETHER: [Case; 7] = cases![
    the_operator_runs_as_installed_in_a_restricted_namespace,
    a_deployment_indexes_and_searches_unsigned_by_irsa,
    a_job_indexes_and_searches_unsigned_by_pod_identity_and_completes,
    the_sidecar_starts_before_the_app_and_ends_after_it,
    a_team_without_a_grant_gets_the_explained_403,
    a_sidecar_that_is_killed_under_load_comes_back,
    the_image_is_the_same_whenever_it_is_assembled,
];

/// Those that change the node for all others, one after another.
const APART: [Case; 3] = cases![
    pods_that_come_and_go_change_nobodys_way_to_the_node,
    a_drained_node_loses_no_request,
    a_pod_whose_grant_is_deleted_is_shut_out,
];

/// The one that kills a node from outside, with what runs on it.
const OUTSIDE: &str = "nothing_is_left_of_a_node_whose_program_is_killed";

/// Has the program hold a node, for [`OUTSIDE`].
const HOLD: &str = "--hold";

/// Has the program tell the whole story to a person, instead of running cases.
const STORY: &str = "--story";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let asked = Asked::read(&arguments);
    let on_node = asked.chosen(&TOGETHER).chain(asked.chosen(&APART));
    let names: Vec<&str> = on_node.map(|(name, _)| *name).collect();
    let outside = asked.wants(OUTSIDE);
    if asked.only_list {
        for name in names.iter().chain(outside.then_some(&OUTSIDE)) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let is_inside = arguments.first().is_some_and(|it| it == INSIDE);
    if !is_inside && outside && !asked.hold && !asked.story {
        println!("\nrunning 1 test");
        // A panic ends the program, and is the failure.
        outside::nothing_is_left();
        println!("test {OUTSIDE} ... ok");
    }
    if names.is_empty() && !asked.hold {
        println!("\nrunning 0 tests\n");
        return ExitCode::SUCCESS;
    }
    match enter(&mut arguments).expect("namespaces can be had") {
        Entered::Ended(code) => code,
        Entered::Inside(folder) if asked.hold => outside::hold(&folder),
        Entered::Inside(folder) if asked.story => tell(&folder),
        Entered::Inside(folder) => run(&folder, &asked),
    }
}

/// What cargo passes to every test program, as far as it concerns this one.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an argument")]
struct Asked {
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    only_list: bool,
    only_ignored: bool,
    hold: bool,
    story: bool,
}

impl Asked {
    fn read(arguments: &[OsString]) -> Self {
        let mut asked = Self::default();
        let mut arguments = arguments.iter().map(|it| it.to_string_lossy());
        while let Some(argument) = arguments.next() {
            match argument.as_ref() {
                "--list" => asked.only_list = true,
                "--exact" => asked.exact = true,
                // There are none.
                "--ignored" => asked.only_ignored = true,
                HOLD => asked.hold = true,
                STORY => asked.story = true,
                "--skip" => asked.skipped.extend(arguments.next().map(Into::into)),
                // It comes with what it is worth.
                "--inside" | "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                other if other.starts_with('-') => {}
                name => asked.names.push(name.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |asked: &String| {
            if self.exact {
                name == asked
            } else {
                name.contains(asked.as_str())
            }
        };
        let wanted = self.names.is_empty() || self.names.iter().any(fits);
        wanted && !self.only_ignored && !self.skipped.iter().any(fits)
    }

    fn chosen<'a>(&self, cases: &'a [Case]) -> impl Iterator<Item = &'a Case> {
        cases.iter().filter(|(name, _)| self.wants(name))
    }
}

#[tokio::main]
async fn tell(folder: &Path) -> ExitCode {
    match LocalSet::new()
        .run_until(Box::pin(story::tell(folder)))
        .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nthe story ends here: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(folder: &Path, asked: &Asked) -> ExitCode {
    LocalSet::new()
        .run_until(Box::pin(run_all(folder, asked)))
        .await
}

async fn run_all(folder: &Path, asked: &Asked) -> ExitCode {
    let together: Vec<Case> = asked.chosen(&TOGETHER).copied().collect();
    let apart: Vec<Case> = asked.chosen(&APART).copied().collect();
    println!("\nrunning {} tests", together.len() + apart.len());
    let began = Instant::now();
    let teams = match Teams::start(folder).await {
        Ok(teams) => Arc::new(teams),
        Err(error) => {
            println!("the node does not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "the node, and what is on it: {} s",
        began.elapsed().as_secs()
    );
    let mut failed = all(together, &teams).await;
    for case in apart {
        failed += all(vec![case], &teams).await;
    }
    if failed > 0 {
        println!("\n{}", teams.state().await);
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = began.elapsed().as_secs();
    println!("\ntest result: {result}. {failed} failed; finished in {seconds} s\n");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs cases at once; returns how many failed.
async fn all(cases: Vec<Case>, teams: &Arc<Teams>) -> usize {
    let mut running = JoinSet::new();
    for (name, case) in cases {
        let teams = Arc::clone(teams);
        running.spawn_local(async move {
            let began = Instant::now();
            let ended = spawn_local(case(teams)).await;
            let result = if ended.is_ok() { "ok" } else { "FAILED" };
            println!(
                "test {name} ... {result} ({:.1} s)",
                began.elapsed().as_secs_f32()
            );
            ended.is_err()
        });
    }
    let ended = running.join_all().await;
    ended.into_iter().filter(|failed| *failed).count()
}
