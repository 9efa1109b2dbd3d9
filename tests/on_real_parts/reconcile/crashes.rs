//! The operator may end at any moment: nothing that it wrote is left without an owner.

use std::process::Command;
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::common::cluster::Cluster;
use crate::common::fake_aws::{DomainOptions, Fault, Times};
use crate::common::operator::scene::Scene;
use crate::common::operator::{PATIENCE, World};
use crate::common::process::Process;

async fn own(name: &'static str) -> Scene {
    let scene = Scene::in_world(World::start().await, name, DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    scene
}

/// Waits until AWS has taken this many updates of the domain.
async fn until_updates(scene: &Scene, count: usize) {
    let look = async || match scene.updates() {
        now if now >= count => Ok(()),
        now => Err(format!("{now} updates")),
    };
    scene
        .world
        .eventually("AWS has taken an update", PATIENCE, look)
        .await;
}

#[tokio::test]
async fn an_operator_that_is_killed_right_after_a_write_owns_it_after_its_restart() {
    let scene = own("killed").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let answers_are_lost = || {
        let faults = scene.world.aws().faults();
        faults.inject("UpdateDomainConfig", Fault::ResetAfter, Times::UntilCleared);
    };
    let killed_after_a_write = async |count: usize| {
        until_updates(&scene, count).await;
        scene.world.kill_operator();
        scene.world.aws().faults().clear("UpdateDomainConfig");
        scene.world.start_operator();
    };
    answers_are_lost();
    scene.grant_to("first", &a).await;
    scene.grant_to("second", &b).await;
    killed_after_a_write(1).await;
    scene.until_ready(&["first", "second"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    // What the one that was killed wrote is told by the next, and told once.
    let all_are_told = async || {
        let look = async || {
            let events = scene.world.events("default", "killed").await;
            let told = events
                .iter()
                .filter(|(reason, _)| reason == "PolicyWritten");
            match told.count() {
                told if told == scene.updates() => Ok(()),
                told => Err(format!(
                    "{told} of {} are told: {events:#?}",
                    scene.updates()
                )),
            }
        };
        let what = "each write is told";
        scene.world.eventually(what, PATIENCE, look).await;
    };
    all_are_told().await;

    let written = scene.updates();
    answers_are_lost();
    scene.delete_grant("first").await;
    killed_after_a_write(written + 1).await;
    scene.until_gone("first").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.delete_grant("second").await;
    scene.until_gone("second").await;
    scene.until_policy(&[]).await;
    assert!(scene.world.aws().policy("killed").is_empty());
    all_are_told().await;
}

#[tokio::test]
async fn what_changes_while_the_operator_is_down_is_done_at_its_start() {
    let scene = own("down").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    scene.world.stop_operator().await;
    scene.delete_grant("first").await;
    scene.grant_to("second", &b).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_ne!(
        scene.get_grant("first").await,
        json!(null),
        "nobody revoked it yet"
    );
    scene.world.start_operator();
    scene.until_gone("first").await;
    scene.until_ready(&["second"]).await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
}

#[tokio::test]
async fn grants_that_vanish_in_mass_are_held_until_an_admin_says_so() {
    let scene = own("vanish").await;
    let names: Vec<String> = (0..8).map(|number| format!("grant-{number}")).collect();
    let mut roles = Vec::new();
    for name in &names {
        roles.push(scene.role(name));
        scene.grant_to(name, roles.last().unwrap()).await;
    }
    let every: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.until_ready(&every).await;
    let written = scene.updates();
    scene.world.stop_operator().await;
    let grants = scene.world.api("DomainAccess", Some(scene.name));
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for name in &every[..6] {
        grants
            .patch(name, &PatchParams::default(), &strip)
            .await
            .unwrap();
        grants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    scene.world.start_operator();

    let message = scene.until_domain_says("False", "MassRevocationHeld").await;
    let annotation = "opensearch-access.io/acknowledge-revocation";
    for word in ["6 of 8", annotation] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    scene.until_policy(&[scene.allows(&roles)]).await;
    assert_eq!(scene.updates(), written);
    // The ones that are left are in force, and say so.
    scene.until_ready(&every[6..]).await;

    let acknowledge = |count: &str| json!({"metadata": {"annotations": {annotation: count}}});
    scene.change_domain(&acknowledge("5")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.updates(), written, "5 are not 6");
    scene.change_domain(&acknowledge("6")).await;
    scene.until_policy(&[scene.allows(&roles[6..])]).await;
    scene.until_domain_says("True", "Reconciled").await;
    // It let this loss through, and lets no other.
    let spent = async || {
        let domain = scene.domain().await;
        match domain["metadata"]["annotations"].get(annotation) {
            Some(count) => Err(format!("{count} is acknowledged still")),
            None => Ok(()),
        }
    };
    let what = "the acknowledgement is spent";
    scene.world.eventually(what, PATIENCE, spent).await;
}

#[tokio::test]
async fn what_was_written_is_found_again_when_the_record_is_lost() {
    let scene = own("lost").await;
    let (a, b, theirs) = (scene.role("a"), scene.role("b"), scene.role("theirs"));
    let mut theirs = scene.allows(&[&theirs]);
    theirs["Action"] = json!("es:ESHttpGet");
    scene.others_write(std::slice::from_ref(&theirs));
    scene.grant_to("first", &a).await;
    scene.grant_to("second", &b).await;
    scene.until_ready(&["first", "second"]).await;
    let written = scene.updates();
    scene.world.stop_operator().await;
    let records = scene.world.api("ConfigMap", Some("opensearch-access"));
    records
        .delete("domain-state.lost", &DeleteParams::default())
        .await
        .unwrap();
    scene.world.start_operator();
    let look = async || {
        let record = scene
            .world
            .get("ConfigMap", Some("opensearch-access"), "domain-state.lost");
        if record.await.is_null() {
            Err("no record".to_owned())
        } else {
            Ok(())
        }
    };
    scene
        .world
        .eventually("there is a record again", PATIENCE, look)
        .await;
    assert_eq!(scene.updates(), written);
    scene.delete_grant("first").await;
    scene.until_gone("first").await;
    scene.until_policy(&[scene.allows(&[&b]), theirs]).await;
}

#[tokio::test]
async fn by_a_record_that_is_damaged_nothing_is_written() {
    let scene = own("damaged").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    let written = scene.updates();
    let (kind, place, name) = (
        "ConfigMap",
        Some("opensearch-access"),
        "domain-state.damaged",
    );
    let before = scene.world.get(kind, place, name).await;
    let damaged = json!({"data": {"state.json": "{\"applied\": 1}"}});
    scene.world.change(kind, place, name, &damaged).await;
    scene.grant_to("second", &b).await;
    scene.delete_grant("first").await;
    let told = scene.until_domain_says("False", "StateUnavailable").await;
    assert!(told.contains("domain-state.damaged"), "{told}");
    assert_eq!(scene.updates(), written);
    let restored = json!({"data": before["data"]});
    scene.world.change(kind, place, name, &restored).await;
    scene.until_gone("first").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
}

#[tokio::test]
async fn an_operator_without_its_definitions_stops_when_it_is_told() {
    let cluster = Cluster::shared().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
    // Bob may not even list, so no list is ever complete, as without the definitions.
    command
        .args(["controller"])
        .env_clear()
        .env("KUBECONFIG", cluster.kubeconfig_of("bob"))
        .env("AWS_REGION", "eu-west-1");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("operator.log");
    let mut operator = Process::spawn("opensearch-access", &command, &log).unwrap();
    let running = async || operator.log_tail(50).contains("a watch failed");
    let start = Instant::now();
    while !running().await && start.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running().await, "{}", operator.log_tail(50));
    let ended = operator.terminate(Duration::from_secs(15)).await;
    assert!(
        ended.is_ok_and(|it| it.success()),
        "{}",
        operator.log_tail(50)
    );
}
