//! Many grants at once: what that costs AWS, and how long it takes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::report::Report;
use crate::common::fake_aws::{Call, DomainOptions};
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, World, meaning};
use crate::common::oracle::{self, Case, Judgement};
use crate::common::process::processor_time;

/// An account whose principals cannot be looked up.
const ELSEWHERE: &str = "444455556666";

/// How many objects are created at a time, as by several `kubectl apply`.
const CREATIONS: usize = 24;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(250);

/// A world with one operator, and a record of what was asked of it.
pub(super) struct Stage {
    pub(super) world: World,
}

impl Stage {
    pub(super) async fn set() -> Self {
        let world = World::without_operator().await;
        world.aws().account(ELSEWHERE);
        Self { world }
    }

    /// Sets up a domain in AWS and a namespace.
    pub(super) async fn bare(&self, name: &'static str) -> Scene {
        let scene = Scene::in_world(self.world.again(), name, DomainOptions::default()).await;
        scene.unjudged("the stage judges by itself")
    }

    pub(super) async fn scene(&self, name: &'static str) -> Scene {
        let scene = self.bare(name).await;
        let ceiling = json!({"principals": {"accounts": [ACCOUNT, ELSEWHERE]}, "maxGrants": 1000});
        let consent = scene.consent(&ceiling);
        // The interval that a domain has unless its admin says otherwise.
        let spec = json!({"interval": null, "consent": [consent]});
        scene.add_domain(&spec).await;
        scene
    }

    /// Waits until something is so; tells whether it ever was.
    pub(super) async fn until(&self, look: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !look() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    async fn until_ready(&self, scene: &Scene, count: usize) -> bool {
        self.until(|| ready(scene).len() == count).await
    }

    pub(super) fn judge(&self, scenes: &[&Scene]) -> Judgement {
        let sightings = self.world.chronicle().sightings();
        let mut judgement = Judgement::default();
        for scene in scenes {
            let versions = self.world.aws().versions(scene.name);
            judgement.add(oracle::judge(&Case {
                name: scene.name,
                fine_grained: false,
                versions: &versions,
                sightings: &sightings,
                end: Timestamp::now(),
                // A burst of this size takes a while to be read and written.
                stale: SignedDuration::from_secs(60),
                lingers: Some(SignedDuration::from_secs(60)),
            }));
            scene.updates();
        }
        judgement
    }
}

/// Returns the names of the grants that are in place.
pub(super) fn ready(scene: &Scene) -> BTreeSet<String> {
    let in_place = |grant: &Value| {
        let ready = condition(grant, "Ready");
        ready["status"] == "True" && ready["observedGeneration"] == grant["metadata"]["generation"]
    };
    let grants = scene.world.chronicle().grants(scene.name).into_iter();
    let ready = grants.filter(|(_, grant)| in_place(grant));
    ready.map(|(name, _)| name).collect()
}

pub(super) fn refused(scene: &Scene, reason: &str) -> BTreeSet<String> {
    let grants = scene.world.chronicle().grants(scene.name).into_iter();
    let refused = grants.filter(|(_, grant)| condition(grant, "Ready")["reason"] == reason);
    refused.map(|(name, _)| name).collect()
}

/// Creates grants, several at a time.
pub(super) async fn create(scene: &Scene, grants: impl IntoIterator<Item = (String, String)>) {
    stream::iter(grants)
        .map(|(name, arn)| async move { scene.grant_to(&name, &arn).await })
        .buffer_unordered(CREATIONS)
        .collect::<Vec<()>>()
        .await;
}

/// Names grants and their roles, in an account; the roles are created, but for those left out.
pub(super) fn roles(
    scene: &Scene,
    account: &str,
    numbers: std::ops::Range<usize>,
    but: &[usize],
) -> Vec<(String, String)> {
    let role = |number: usize| {
        let name = scene.role_name(&format!("r{number:04}"));
        if !but.contains(&number) {
            scene.world.aws().account(account).role(&name);
        }
        let arn = format!("arn:aws:iam::{account}:role/{name}");
        (format!("grant-{number:04}"), arn)
    };
    numbers.map(role).collect()
}

fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10.0).round() / 10.0
}

/// 2,000 grants on 50 domains are there when the operator starts (C20).
///
/// `timed` says that nothing else runs on this machine, so that the time counts.
pub(crate) async fn cold_start(timed: bool) -> Report {
    const DOMAINS: usize = 50;
    const EACH: usize = 40;
    let stage = Stage::set().await;
    let mut scenes = Vec::new();
    for number in 0..DOMAINS {
        let name = Box::leak(format!("cold{number:02}").into_boxed_str());
        let scene = stage.scene(name).await;
        create(&scene, roles(&scene, ACCOUNT, 0..EACH, &[])).await;
        scenes.push(scene);
    }
    let seen = || {
        scenes
            .iter()
            .all(|it| stage.world.chronicle().grants(it.name).len() == EACH)
    };
    assert!(stage.until(seen).await, "the grants were not created");
    let began = Instant::now();
    let [_, apiserver] = stage.world.cluster().process_ids();
    let before = processor_time(apiserver);
    stage.world.start_quiet_operator();
    let all = || stage.world.chronicle().ready_grants() == DOMAINS * EACH;
    let done = stage.until(all).await;
    let took = seconds(began);

    let mut report = Report::default();
    let what = "cold start, 2,000 grants on 50 domains:";
    let in_place = stage.world.chronicle().ready_grants();
    report.at_least(&format!("{what} in place"), in_place, DOMAINS * EACH);
    if timed {
        report.at_most(&format!("{what} seconds"), took, 60.0);
    } else {
        report.note(&format!("{what} seconds"), took);
    }
    let operator = processor_time(stage.world.operator_id()).as_secs();
    report.note(&format!("{what} seconds of processor, operator"), operator);
    let server = processor_time(apiserver).saturating_sub(before).as_secs();
    report.note(&format!("{what} seconds of processor, API server"), server);
    let aws = stage.world.aws();
    let most = scenes.iter().map(|it| aws.updates(it.name)).max();
    report.at_most(
        &format!("{what} most writes on one"),
        most.unwrap_or_default(),
        2,
    );
    let described = |scene: &Scene| of(&aws.calls_of("DescribeDomain"), scene).count();
    let most = scenes.iter().map(described).max();
    report.note(
        &format!("{what} most DescribeDomain on one"),
        most.unwrap_or_default(),
    );
    let scenes: Vec<&Scene> = scenes.iter().collect();
    judged(&mut report, what, &stage.judge(&scenes));
    if done {
        stage.world.stop_operator().await;
    }
    report
}

pub(super) fn judged(report: &mut Report, what: &str, judgement: &Judgement) {
    if !judgement.violations.is_empty() {
        eprintln!("--- {}", oracle::told(judgement));
    }
    report.at_least(&format!("{what} versions judged"), judgement.versions, 1);
    report.at_most(
        &format!("{what} violations of M"),
        judgement.violations.len(),
        0,
    );
}

fn of<'a>(calls: &'a [Call], scene: &'a Scene) -> impl Iterator<Item = &'a Call> {
    calls
        .iter()
        .filter(|it| it.domain.as_deref() == Some(scene.name))
}

/// 1,000 grants are created on one domain in one go.
pub(crate) async fn burst() -> Report {
    let stage = Stage::set().await;
    stage.world.start_quiet_operator();
    let mut report = Report::default();
    one_go(&stage, &mut report).await;
    stage.world.stop_operator().await;
    report
}

/// Of 1,000 grants one is bad; and more are created than fit.
pub(crate) async fn poison() -> Report {
    let stage = Stage::set().await;
    stage.world.start_quiet_operator();
    let mut report = Report::default();
    let here = "of the domain's account";
    poisoned(&stage, &mut report, "poison-here", ACCOUNT, here).await;
    let there = "of another account";
    poisoned(&stage, &mut report, "poison-there", ELSEWHERE, there).await;
    overflow(&stage, &mut report).await;
    stage.world.stop_operator().await;
    report
}

async fn one_go(stage: &Stage, report: &mut Report) {
    let what = "burst of 1,000 grants:";
    let scene = stage.scene("burst").await;
    scene.until_domain_says("True", "Reconciled").await;
    let began = Instant::now();
    create(&scene, roles(&scene, ACCOUNT, 0..1000, &[])).await;
    stage.until_ready(&scene, 1000).await;
    let in_place = ready(&scene).len();
    report.at_least(&format!("{what} in place"), in_place, 1000);
    report.note(
        &format!("{what} seconds, creation included"),
        seconds(began),
    );
    report.at_most(&format!("{what} writes"), scene.updates(), 2);
    judged(report, what, &stage.judge(&[&scene]));
}

/// Of 1,000 grants one names a role that does not exist (C14).
async fn poisoned(
    stage: &Stage,
    report: &mut Report,
    name: &'static str,
    account: &str,
    whose: &str,
) {
    const BAD: usize = 617;
    let what = format!("1 bad of 1,000, {whose}:");
    let scene = stage.scene(name).await;
    scene.until_domain_says("True", "Reconciled").await;
    let began = Instant::now();
    create(&scene, roles(&scene, account, 0..1000, &[BAD])).await;
    let bad = BTreeSet::from([format!("grant-{BAD:04}")]);
    let found = || refused(&scene, "PrincipalNotFound") == bad;
    let done = stage.until(|| ready(&scene).len() == 999 && found()).await;
    let in_place = ready(&scene).len();
    report.at_least(&format!("{what} in place"), in_place, 999);
    report.at_least(&format!("{what} refused by name"), usize::from(done), 1);
    report.note(
        &format!("{what} seconds, creation included"),
        seconds(began),
    );
    let calls = stage.world.aws().calls_of("UpdateDomainConfig");
    let calls: Vec<&Call> = of(&calls, &scene).collect();
    let tries = |it: &&&Call| it.body["DryRun"] == true;
    let dry = calls.iter().filter(tries).count();
    let written = calls
        .iter()
        .filter(|it| !tries(it) && it.status == Some(200))
        .count();
    report.note(
        &format!("{what} writes that AWS refused"),
        calls.len() - dry - written,
    );
    report.note(&format!("{what} dry runs"), dry);
    report.at_most(&format!("{what} writes that it took"), written, 2);
    judged(report, &what, &stage.judge(&[&scene]));
}

/// 1,500 grants are more than a policy has room for (C18).
async fn overflow(stage: &Stage, report: &mut Report) {
    const OLD: usize = 100;
    const ALL: usize = 1500;
    let what = "1,500 grants, more than fit:";
    // The longest names, so that they do not.
    let scene = Scene::in_world(stage.world.again(), "overflow", DomainOptions::default()).await;
    let ceiling = json!({"maxGrants": 10_000});
    scene
        .add_domain(&json!({"interval": null, "consent": [scene.consent(&ceiling)]}))
        .await;
    scene.until_domain_says("True", "Reconciled").await;
    let long = "x".repeat(40);
    let grant = |number: usize| {
        let role = scene.role(&format!("{long}{number:04}"));
        (format!("grant-{number:04}"), role)
    };
    create(&scene, (0..OLD).map(grant)).await;
    stage.until_ready(&scene, OLD).await;
    let first = ready(&scene);
    // What is created within a second is of one age, and then its name decides.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create(&scene, (OLD..ALL).map(grant)).await;
    let decided = || {
        let refused = refused(&scene, "PolicyTooLarge").len();
        refused > 0 && ready(&scene).len() + refused == ALL
    };
    let done = stage.until(decided).await;
    let in_place = ready(&scene);
    report.at_least(&format!("{what} all are decided"), usize::from(done), 1);
    report.note(&format!("{what} in place"), in_place.len());
    let lost = first.difference(&in_place).count();
    report.at_most(&format!("{what} of the first 100 lost"), lost, 0);
    report.at_most(
        &format!("{what} younger than a refused one"),
        out_of_turn(stage, &scene),
        0,
    );
    let shrunk = scene
        .history()
        .windows(2)
        .filter(|it| !it[0].is_subset(&it[1]))
        .count();
    report.at_most(&format!("{what} versions that lost something"), shrunk, 0);
    let length = stage.world.aws().policy(scene.name).chars().count();
    report.at_most(&format!("{what} characters"), length, 102_400);
    report.at_most(&format!("{what} writes"), scene.updates(), 4);
    judged(report, what, &stage.judge(&[&scene]));
}

/// Counts the grants that are in place although an older one is refused.
fn out_of_turn(stage: &Stage, scene: &Scene) -> usize {
    let grants = stage.world.chronicle().grants(scene.name);
    let in_place = ready(scene);
    let age = |name: &String| {
        let created = &grants[name]["metadata"]["creationTimestamp"];
        (created.to_string(), name.clone())
    };
    let refused = grants.keys().filter(|it| !in_place.contains(*it));
    let Some(oldest) = refused.map(age).min() else {
        return 0;
    };
    in_place.iter().filter(|it| age(it) > oldest).count()
}

/// Nothing changes, and nothing is written (C25); a domain is looked at once an interval.
pub(crate) async fn idle() -> Report {
    const ROUNDS: u32 = 10;
    const INTERVAL: Duration = Duration::from_secs(10);
    let stage = Stage::set().await;
    let mut scenes = Vec::new();
    for name in ["idle-one", "idle-two", "idle-three"] {
        let scene = stage.scene(name).await;
        let interval = format!("{}s", INTERVAL.as_secs());
        scene
            .change_domain(&json!({"spec": {"interval": interval}}))
            .await;
        create(&scene, roles(&scene, ACCOUNT, 0..10, &[])).await;
        scenes.push(scene);
    }
    stage.world.start_quiet_operator();
    for scene in &scenes {
        stage.until_ready(scene, 10).await;
        scene.until_domain_says("True", "Reconciled").await;
    }
    // What it wrote last is still to be read back, and told.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let versions = || -> Vec<String> {
        let objects = scenes.iter().flat_map(|it| {
            let domain = stage
                .world
                .chronicle()
                .object("OpenSearchDomain", "", it.name);
            let grants = stage.world.chronicle().grants(it.name).into_values();
            grants.chain([domain])
        });
        objects
            .map(|it| it["metadata"]["resourceVersion"].to_string())
            .collect()
    };
    let aws = stage.world.aws();
    let looks = |scene: &Scene| of(&aws.calls_of("DescribeDomain"), scene).count();
    let (before, calls, told) = (
        scenes.iter().map(looks).collect::<Vec<_>>(),
        aws.calls().len(),
        versions(),
    );
    let began = Instant::now();
    let seen = |scene: &Scene, before: usize| looks(scene) - before;
    let rounds = usize::try_from(ROUNDS).unwrap();
    let every = || {
        scenes
            .iter()
            .zip(&before)
            .all(|(it, before)| seen(it, *before) >= rounds)
    };
    stage.until(every).await;
    let elapsed = began.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    let most = scenes
        .iter()
        .zip(&before)
        .map(|(it, before)| seen(it, *before))
        .max();
    let most = f64::from(u32::try_from(most.unwrap_or_default()).unwrap());
    let wrote = |call: &&Call| {
        !call.operation.starts_with("Describe") && !call.operation.starts_with("Get")
    };
    let written = aws.calls().iter().skip(calls).filter(wrote).count();

    let mut report = Report::default();
    let what = "idle for 10 resyncs:";
    report.at_most(&format!("{what} writes to AWS"), written, 0);
    let changed = versions()
        .iter()
        .zip(&told)
        .filter(|(now, told)| now != told)
        .count();
    report.at_most(&format!("{what} objects written in Kubernetes"), changed, 0);
    // One more than fit: the first may come at once.
    let looks = (most - 1.0) / elapsed;
    report.at_most(
        &format!("{what} looks an interval"),
        (looks * 100.0).round() / 100.0,
        1.0,
    );
    let scenes: Vec<&Scene> = scenes.iter().collect();
    judged(&mut report, what, &stage.judge(&scenes));
    for scene in &scenes {
        let wanted: Vec<String> = roles_of(scene);
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let right = scene.policy() == meaning::of_statements(&[scene.allows(&wanted)]);
        report.at_least(
            &format!("{what} {} is as asked", scene.name),
            usize::from(right),
            1,
        );
    }
    stage.world.stop_operator().await;
    report
}

fn roles_of(scene: &Scene) -> Vec<String> {
    (0..10)
        .map(|number| scene.arn(&format!("r{number:04}")))
        .collect()
}
