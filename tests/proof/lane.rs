//! A world in which operators are crashed, a batch of points at a time.
//!
//! ```text
//! prepare ─► wires laid ─► the stories happen ─► every domain is cut off behind its own nth write
//!                                                    │
//!            compared, judged ◄── in order ◄── SIGKILL, and the next operator
//! ```
//!
//! One kill is for a dozen points: each has a domain and a namespace of its own, its operator is cut
//! off from that domain right behind the point's write, and it is killed once all of them are. What
//! one domain sees of that is an operator that died right after the write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;

use super::snapshot;
use super::workload::Workload;
use crate::common::opensearch::shared_node;
use crate::common::operator::scene::Scene;
use crate::common::operator::wired::{Leads, Wired};
use crate::common::operator::{ACCOUNT, World, together};
use crate::common::oracle::{self, Case, Judgement};
use crate::common::tripwire::{Then, Tripwires};

/// The account of principals that cannot be looked up.
const ELSEWHERE: &str = "444455556666";

/// How long anything may take that is to happen by itself.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// This long without a write, and a domain is taken to be in order.
const QUIET: Duration = Duration::from_secs(4);

/// This long nothing may change any more once all is in order.
const STEADY: Duration = Duration::from_millis(1500);

/// How old the view may be from which something is added.
const STALE: SignedDuration = SignedDuration::from_secs(10);

/// How long a revocation may take, the crash included.
const LINGERS: SignedDuration = SignedDuration::from_secs(60);

/// How the operator meets its end, or not.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Crash {
    /// It is killed after its write was answered.
    Answered,
    /// It is killed after its write was applied and before it was answered.
    Unanswered,
    /// The answer to its write is lost, and it lives on.
    AnswerLost,
    /// Its write is refused, each in another way than the one before, and it lives on.
    Refused,
    /// It leads and is killed; another takes over.
    LeaderKilled,
    /// It leads and is frozen; another takes over, and then it wakes.
    LeaderFrozen,
}

impl Crash {
    pub(crate) fn is_of_leader(self) -> bool {
        matches!(self, Self::LeaderKilled | Self::LeaderFrozen)
    }

    fn then(self, write: usize) -> Then {
        match self {
            Self::Answered | Self::LeaderKilled | Self::LeaderFrozen => Then::Answered,
            Self::Unanswered => Then::Unanswered,
            Self::AnswerLost => Then::Lost,
            Self::Refused => Then::Refused(write),
        }
    }
}

/// One place in one story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) workload: Workload,
    /// After which write, counted from 1.
    pub(crate) write: usize,
}

/// How a story goes without a crash.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) workload: Workload,
    pub(crate) prepared: Value,
    pub(crate) end: Value,
    /// What is written from the first act on, in order.
    pub(crate) writes: Vec<String>,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many points were reached.
    pub(crate) points: usize,
    /// How many were not: the story ended in fewer writes this time.
    pub(crate) unreached: usize,
    pub(crate) judgement: Judgement,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.points += other.points;
        self.unreached += other.unreached;
        self.judgement.add(other.judgement);
        self.wrong.extend(other.wrong);
    }
}

/// One world.
pub(crate) struct Lane {
    world: World,
    wires: Tripwires,
    leads: Leads,
    operator: Option<Wired>,
    standby: Option<Wired>,
    started: usize,
}

impl Lane {
    pub(crate) async fn start(leads: Leads) -> Self {
        let world = World::without_operator().await;
        world.aws().account(ELSEWHERE);
        let mut lane = Self {
            wires: world.aws().tripwires(),
            world,
            leads,
            operator: None,
            standby: None,
            started: 0,
        };
        lane.replace().await;
        lane
    }

    /// Puts an operator in the place of the one that is gone, and of several one that stands by.
    async fn replace(&mut self) {
        let standby = self.standby.take();
        self.operator = match standby {
            Some(standby) => Some(standby),
            None => Some(self.new_operator().await),
        };
        if self.leads == Leads::ByLease {
            self.until_leads().await;
            self.standby = Some(self.new_operator().await);
        }
    }

    /// Replaces a leader that has ended by itself, as it does where a busy machine keeps it from
    /// renewing its lease.
    async fn replace_if_gone(&mut self) {
        if self.operator.as_mut().is_some_and(Wired::has_ended) {
            self.operator = None;
            self.replace().await;
        }
    }

    async fn new_operator(&mut self) -> Wired {
        self.started += 1;
        let name = format!("operator-{}", self.started);
        Wired::start(&self.world, &name, self.leads).await
    }

    async fn until_leads(&self) {
        let look = async || match &self.operator {
            Some(operator) if operator.has_logged("this process leads") => Ok(()),
            _ => Err("nobody leads".to_owned()),
        };
        self.world.eventually("one leads", PATIENCE, look).await;
    }

    /// Stops the operators in order.
    pub(crate) async fn end(mut self) {
        for operator in [self.standby.take(), self.operator.take()]
            .into_iter()
            .flatten()
        {
            let status = operator.stop().await;
            assert!(
                status.success(),
                "the operator did not stop in order: {status}"
            );
        }
    }

    async fn scene(&self, workload: Workload) -> Scene {
        static COUNT: AtomicUsize = AtomicUsize::new(1000);
        // Names that are no part of each other, since they are looked for in texts.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = Box::leak(format!("sweep{number}").into_boxed_str());
        let scene = Scene::in_world(self.world.again(), name, workload.options()).await;
        let mut scene = scene.unjudged("a lane judges by itself, and forgets");
        if workload.maps() {
            scene = scene.with_node(shared_node().await, &["one", "two"]).await;
        }
        workload.prepare(&scene).await;
        scene
    }

    // === without a crash ===

    /// Tells every story once, and finds out how each goes.
    pub(crate) async fn references(&self) -> (Vec<Reference>, Outcome) {
        let scenes = together(Workload::ALL.map(|it| Box::pin(self.scene(it)))).await;
        let prepared = self.until_quiet(&scenes, false).await;
        for scene in &scenes {
            self.wires.lay(scene.name, None, Then::Answered);
        }
        let acts = scenes.iter().zip(Workload::ALL);
        together(acts.map(|(scene, workload)| workload.act(scene))).await;
        let ends = self.until_quiet(&scenes, true).await;
        let mut outcome = Outcome::default();
        let mut references = Vec::new();
        let states = prepared.into_iter().zip(ends);
        for ((scene, workload), (prepared, end)) in scenes.iter().zip(Workload::ALL).zip(states) {
            outcome
                .wrong
                .extend(self.is_as_modelled(scene, workload, &prepared, &end));
            references.push(Reference {
                workload,
                prepared,
                end,
                writes: self.wires.writes(scene.name),
            });
        }
        self.judge(&scenes, &mut outcome);
        self.clear(&scenes).await;
        (references, outcome)
    }

    /// Compares the end of a story with what the oracle makes of its manifests.
    fn is_as_modelled(
        &self,
        scene: &Scene,
        workload: Workload,
        prepared: &Value,
        end: &Value,
    ) -> Option<String> {
        let missing = workload.missing(scene);
        let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
        let versions = scene.world.aws().versions(scene.name);
        let sightings = self.world.chronicle().sightings();
        let wanted = oracle::wanted(&case(scene.name, &versions, &sightings), &missing);
        let as_it_should = if workload.is_written() {
            scene.policy() == wanted
        } else {
            prepared["policy"] == end["policy"]
        };
        let mapped = scene.gateway.as_ref().is_none_or(|gateway| {
            let now = gateway.mappings().into_iter();
            let pairs =
                now.flat_map(|(role, who)| who.into_iter().map(move |it| (role.clone(), it)));
            let pairs: BTreeSet<_> = pairs.collect();
            pairs == oracle::wanted_mappings(&case(scene.name, &versions, &sightings))
        });
        let (told, moved) = (&end["domain"]["ready"], prepared != end);
        let there = end["domain"].is_null() || told == "True" || !workload.is_written();
        (!as_it_should || !mapped || !there || !moved).then(|| {
            format!("{workload:?} ends wrong without a crash: {end}\n  wanted: {wanted:?}")
        })
    }

    /// Waits until nothing is written any more, and every story is told if it has begun; returns what
    /// each scene was all that time. A look afterwards may meet a try of what AWS refuses.
    async fn until_quiet(&self, scenes: &[Scene], begun: bool) -> Vec<Value> {
        let start = Instant::now();
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            let now: Vec<Value> = scenes.iter().map(snapshot::of).collect();
            let is_told = |((scene, workload), now): ((&Scene, Workload), &Value)| {
                !self.wires.writes(scene.name).is_empty() && workload.is_told(now)
            };
            let mut stories = scenes.iter().zip(Workload::ALL).zip(&now);
            let told = (!begun || stories.all(is_told)) && now.iter().all(snapshot::is_current);
            if now != last || !told {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > QUIET {
                return last;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the world does not come to rest"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    // === with a crash ===

    /// Tells stories, each up to its point, crashes the operator, and lets the next one finish them.
    pub(crate) async fn batch(&mut self, crash: Crash, points: &[(Point, Reference)]) -> Outcome {
        let mut outcome = Outcome::default();
        self.replace_if_gone().await;
        let scenes = together(
            points
                .iter()
                .map(|(it, _)| Box::pin(self.scene(it.workload))),
        )
        .await;
        let wanted: Vec<&Value> = points.iter().map(|(_, it)| &it.prepared).collect();
        if !self
            .until(&scenes, &wanted, &mut outcome, "before the crash")
            .await
        {
            return outcome;
        }
        for (scene, (point, _)) in scenes.iter().zip(points) {
            let then = crash.then(point.write);
            self.wires.lay(scene.name, Some(point.write), then);
        }
        let ends: Vec<&Value> = points.iter().map(|(_, it)| &it.end).collect();
        let acts = scenes.iter().zip(points);
        let acts = together(acts.map(|(scene, (point, _))| point.workload.act(scene)));
        let crashed = async {
            self.until_cut_off(&scenes, &ends).await;
            // A story may end in fewer writes this time. What writes later is not the one to stop.
            for scene in &scenes {
                self.wires.lift(scene.name);
            }
            let frozen = self.crash(crash).await;
            let what = format!("after {crash:?}");
            let ended = self.until(&scenes, &ends, &mut outcome, &what).await;
            (frozen, ended)
        };
        let ((frozen, ended), _) = tokio::join!(crashed, acts);
        if let Some(frozen) = frozen {
            self.wake(frozen, &mut outcome).await;
        }
        for (scene, (point, _)) in scenes.iter().zip(points) {
            let reached = self.wires.tripped(scene.name);
            outcome.points += usize::from(reached);
            outcome.unreached += usize::from(!reached);
            if !ended {
                outcome
                    .wrong
                    .push(format!("{point:?} of {crash:?} is {}", scene.name));
            }
        }
        if ended {
            self.is_steady(&scenes, &ends, &mut outcome).await;
        }
        self.judge(&scenes, &mut outcome);
        self.clear(&scenes).await;
        outcome
    }

    /// Waits until every domain is cut off, or has come to its end without that.
    async fn until_cut_off(&self, scenes: &[Scene], ends: &[&Value]) {
        let deadline = Instant::now() + PATIENCE;
        let done = |(scene, end): (&Scene, &&Value)| {
            self.wires.tripped(scene.name) || snapshot::of(scene) == **end
        };
        while !scenes.iter().zip(ends).all(done) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends the operator, and puts the next one in its place; returns one that is only frozen.
    async fn crash(&mut self, crash: Crash) -> Option<Wired> {
        if matches!(crash, Crash::AnswerLost | Crash::Refused) {
            return None;
        }
        let mut operator = self.operator.take()?;
        if crash == Crash::LeaderFrozen {
            operator.signal("STOP");
            self.replace().await;
            return Some(operator);
        }
        operator.kill();
        self.replace().await;
        None
    }

    /// Wakes an operator that led before it was frozen: it must end, and write nothing.
    async fn wake(&self, mut frozen: Wired, outcome: &mut Outcome) {
        let writes = |operator: &Wired| {
            let mut calls = self.world.aws().calls();
            calls.retain(|it| operator.made(it) && !it.operation.starts_with(['D', 'G']));
            calls.len() + self.world.aws().calls_of("DeleteRolePolicy").len()
        };
        let before = writes(&frozen);
        frozen.signal("CONT");
        let status = frozen.ended().await;
        if status.code() != Some(1) || writes(&frozen) != before {
            let wrong = format!("a leader that was frozen wrote, or ended in {status}");
            outcome.wrong.push(wrong);
        }
    }

    /// Waits until all domains are as they should be; tells whether they are.
    async fn until(
        &self,
        scenes: &[Scene],
        wanted: &[&Value],
        outcome: &mut Outcome,
        when: &str,
    ) -> bool {
        let deadline = Instant::now() + PATIENCE;
        // Not all at one moment: what is bad is tried again from time to time.
        let mut left: Vec<(&Scene, &Value)> = scenes.iter().zip(wanted.iter().copied()).collect();
        loop {
            left.retain(|(scene, wanted)| snapshot::of(scene) != **wanted);
            let Some((scene, wanted)) = left.first() else {
                return true;
            };
            let now = &snapshot::of(scene);
            if Instant::now() >= deadline {
                let difference = snapshot::difference(now, wanted);
                let log = self.operator.as_ref().map(Wired::log_tail);
                let wrong = format!(
                    "{} is not as without a crash, {when}:\n{difference}\n{}",
                    scene.name,
                    log.unwrap_or_default()
                );
                outcome.wrong.push(wrong);
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes sure that what is in order stays so, without a write.
    async fn is_steady(&self, scenes: &[Scene], ends: &[&Value], outcome: &mut Outcome) {
        let versions = || -> Vec<usize> {
            let aws = self.world.aws();
            scenes
                .iter()
                .map(|it| aws.versions(it.name).len())
                .collect()
        };
        let before = versions();
        tokio::time::sleep(STEADY).await;
        if versions() != before {
            outcome
                .wrong
                .push("a policy is written again after all was in order".to_owned());
        }
        self.until(scenes, ends, outcome, "a while later").await;
    }

    /// Has the oracle judge every version.
    fn judge(&self, scenes: &[Scene], outcome: &mut Outcome) {
        let aws = self.world.aws();
        let (sightings, calls) = (
            self.world.chronicle().sightings(),
            aws.calls_of("PutRolePolicy"),
        );
        for scene in scenes {
            let versions = aws.versions(scene.name);
            let case = case(scene.name, &versions, &sightings);
            outcome.judgement.add(oracle::judge(&case));
            outcome
                .judgement
                .add(oracle::judge_inline(&case, ACCOUNT, &calls));
            if let Some(gateway) = &scene.gateway {
                let history = gateway.history();
                let judged = oracle::judge_mappings(&case, &history);
                outcome.judgement.add(judged);
            }
            // Every update carries the policy and nothing else.
            scene.updates();
        }
    }

    /// Removes what the stories left, so that the next operator does not start with it.
    async fn clear(&self, scenes: &[Scene]) {
        self.world.chronicle().forget();
        together(scenes.iter().map(|scene| async {
            let domains = self.world.api("OpenSearchDomain", None);
            // It may be gone by the story itself.
            let deleted = domains.delete(scene.name, &DeleteParams::default()).await;
            drop(deleted);
            let grants = self.world.api("DomainAccess", Some(scene.name));
            let all = DeleteParams::default();
            let deleted = grants.delete_collection(&all, &ListParams::default()).await;
            deleted.map(drop).unwrap_or_default();
        }))
        .await;
    }
}

fn case<'a>(
    name: &'a str,
    versions: &'a [crate::common::fake_aws::Version],
    sightings: &'a [oracle::Sighting],
) -> Case<'a> {
    Case {
        name,
        fine_grained: false,
        versions,
        sightings,
        end: Timestamp::now(),
        stale: STALE,
        lingers: Some(LINGERS),
    }
}
