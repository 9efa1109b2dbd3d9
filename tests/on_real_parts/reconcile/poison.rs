//! One bad principal keeps neither the other grants out nor revocations waiting, whether dry runs of
//! AWS judge principals or not.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::json;

use crate::common::fake_aws::{Call, DomainOptions, Period};
use crate::common::operator::meaning::{self, Meaning};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, World};

/// An account whose principals the operator cannot look up.
const OTHER: &str = "444455556666";

/// How long a domain takes over a thousand grants on a busy machine.
const LONG: Duration = Duration::from_mins(4);

/// Which of several grants are bad, where some are.
const BAD: [usize; 4] = [0, 7, 8, 30];

/// Sets up a domain with consent for principals of the other account, in a world in which no
/// operator runs yet.
async fn without_operator(name: &'static str, options: DomainOptions) -> Scene {
    let scene = Scene::in_world(World::without_operator().await, name, options).await;
    consent(&scene).await;
    scene
}

async fn consent(scene: &Scene) {
    scene.world.aws().account(OTHER);
    let accounts = json!({"principals": {"accounts": [ACCOUNT, OTHER]}});
    scene
        .add_domain(&json!({"consent": [scene.consent(&accounts)]}))
        .await;
}

fn elsewhere(scene: &Scene, role: &str) -> String {
    format!("arn:aws:iam::{OTHER}:role/{}-{role}", scene.name)
}

/// Creates roles in the other account, but for the bad ones, and a grant for each.
async fn grants(scene: &Scene, count: usize, bad: &[usize]) {
    let account = scene.world.aws().account(OTHER);
    let one = async |number: usize| {
        if !bad.contains(&number) {
            let name = format!("{}-{number:04}", scene.name);
            account.clone().role(&name);
        }
        let arn = elsewhere(scene, &format!("{number:04}"));
        scene.grant_to(&format!("grant-{number:04}"), &arn).await;
    };
    stream::iter((0..count).map(one))
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
}

/// Waits until everybody but the bad ones is in the policy, and these are told.
async fn until_the_others_are_in(scene: &Scene, count: usize, bad: &[usize]) {
    let good = (0..count).filter(|number| !bad.contains(number));
    let arns: Vec<String> = good
        .map(|number| elsewhere(scene, &format!("{number:04}")))
        .collect();
    let arns: Vec<&str> = arns.iter().map(String::as_str).collect();
    let wanted = meaning::of_statements(&[scene.allows(&arns)]);
    let look = async || {
        let now = scene.policy();
        let lines = now.len();
        (now == wanted)
            .then_some(())
            .ok_or(format!("{lines} lines"))
    };
    let what = "everybody else is in the policy";
    scene.world.eventually(what, LONG, look).await;
}

async fn until_the_bad_are_told(scene: &Scene, bad: &[usize]) {
    for number in bad {
        let arn = elsewhere(scene, &format!("{number:04}"));
        let words = [
            "spec.principals[0].iamRole.arn",
            &arn,
            "tried again by itself",
        ];
        let name = format!("grant-{number:04}");
        scene
            .until_refused(&name, "PrincipalNotFound", &words)
            .await;
    }
}

/// Returns how many updates were refused, and how many dry runs there were.
fn tries(scene: &Scene) -> (usize, usize) {
    let calls = scene.world.aws().calls_of("UpdateDomainConfig");
    let of_domain = calls
        .iter()
        .filter(|call| call.domain.as_deref() == Some(scene.name));
    let (dry, real): (Vec<&Call>, Vec<&Call>) =
        of_domain.partition(|call| call.body["DryRun"] == true);
    let refused = real.iter().filter(|call| call.status != Some(200));
    (refused.count(), dry.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_hundred_and_ninety_nine_are_in_after_one_write_that_is_refused() {
    let options = DomainOptions::default().dry_runs_judge();
    let scene = without_operator("thousand-dry", options).await;
    grants(&scene, 1000, &[437]).await;
    scene.world.start_operator();
    until_the_others_are_in(&scene, 1000, &[437]).await;
    let (refused, dry) = tries(&scene);
    assert_eq!((scene.updates(), refused), (1, 1));
    assert!(dry <= 22, "{dry} dry runs");
    until_the_bad_are_told(&scene, &[437]).await;
    scene.until_ready(&["grant-0000", "grant-0999"]).await;
    assert_eq!(scene.updates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_hundred_and_ninety_nine_are_in_after_two_writes_where_dry_runs_say_nothing() {
    let options = DomainOptions::default().processing(Period::Calls(2));
    let scene = without_operator("thousand-wet", options).await;
    grants(&scene, 1000, &[437]).await;
    scene.world.start_operator();
    until_the_others_are_in(&scene, 1000, &[437]).await;
    let (refused, dry) = tries(&scene);
    assert!(scene.updates() <= 2, "{} rounds", scene.updates());
    assert!(
        refused <= 67 && dry == 1,
        "{refused} refused, {dry} dry runs"
    );
    until_the_bad_are_told(&scene, &[437]).await;
    scene.until_ready(&["grant-0000", "grant-0999"]).await;
    assert!(scene.updates() <= 2, "{} rounds", scene.updates());
}

/// Makes sure that several bad ones are all found, and nobody else.
async fn several(name: &'static str, options: DomainOptions) -> Scene {
    let scene = without_operator(name, options).await;
    grants(&scene, 40, &BAD).await;
    scene.world.start_operator();
    until_the_others_are_in(&scene, 40, &BAD).await;
    until_the_bad_are_told(&scene, &BAD).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bad_ones_are_found_by_dry_runs_and_let_in_once_they_exist() {
    let options = DomainOptions::default().dry_runs_judge();
    let scene = several("several-dry", options).await;
    assert_eq!(scene.updates(), 1);
    let account = scene.world.aws().account(OTHER);
    for number in BAD {
        account.clone().role(&format!("{}-{number:04}", scene.name));
    }
    until_the_others_are_in(&scene, 40, &[]).await;
    let ready: Vec<String> = BAD.iter().map(|it| format!("grant-{it:04}")).collect();
    let ready: Vec<&str> = ready.iter().map(String::as_str).collect();
    scene.until_ready(&ready).await;
    assert_eq!(
        tries(&scene).0,
        1,
        "they were asked about by dry runs alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bad_ones_are_found_by_writes() {
    let scene = several("several-wet", DomainOptions::default()).await;
    assert_eq!(tries(&scene).1, 1, "one dry run, which said nothing");
}

#[tokio::test]
async fn a_revocation_goes_before_the_search() {
    let options = DomainOptions::default().dry_runs_judge();
    let scene = Scene::bare("poison-dry", options).await;
    consent(&scene).await;
    let a = scene.role("a");
    scene.grant_to("goes", &a).await;
    scene.until_ready(&["goes"]).await;
    // What is refused and what goes are to be in one write.
    let domain = scene.world.aws().domain(scene.name);
    domain.processing(Period::UntilFinished);
    scene
        .change_grant("goes", &json!({"spec": {"access": "Read"}}))
        .await;
    let before = scene.updates();
    let look = async || {
        let updates = scene.updates();
        (updates > before)
            .then_some(())
            .ok_or(format!("{updates} updates"))
    };
    scene
        .world
        .eventually("a change is under way", LONG, look)
        .await;
    grants(&scene, 8, &[3]).await;
    scene.delete_grant("goes").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    domain.processing(Period::None);
    domain.finish_change();
    scene.until_gone("goes").await;
    until_the_others_are_in(&scene, 8, &[3]).await;
    let history = scene.history();
    let revoked = history.iter().rposition(Meaning::is_empty);
    assert_eq!(revoked, Some(history.len() - 2), "{history:#?}");
    until_the_bad_are_told(&scene, &[3]).await;
}
