//! Every write leaves a trace of its own, and so does another writer's that it may have replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_aws::{DomainOptions, Fault, Period, Times};
use crate::common::operator::PATIENCE;
use crate::common::operator::scene::Scene;

/// Returns the notes of the domain's Events with this reason, in the order of the versions in them.
async fn notes(scene: &Scene, reason: &str) -> Vec<String> {
    let events = scene.world.events("default", scene.name).await;
    let notes = events.into_iter().filter(|(it, _)| it == reason);
    let mut notes: Vec<String> = notes.map(|(_, note)| note).collect();
    notes.sort_by_key(|note| after(note, "version ").parse::<u64>().unwrap());
    notes
}

/// Returns the word after a text.
fn after<'a>(line: &'a str, text: &str) -> &'a str {
    let rest = line
        .split_once(text)
        .unwrap_or_else(|| panic!("{text:?} is not in {line:?}"))
        .1;
    rest.split([' ', ',', ';']).next().unwrap()
}

/// Waits until there are as many notes as AWS has accepted updates, and returns them.
async fn until_all_are_told(scene: &Scene) -> Vec<String> {
    let look = async || {
        let notes = notes(scene, "PolicyWritten").await;
        if notes.len() == scene.updates() {
            Ok(notes)
        } else {
            Err(format!("{} updates: {notes:#?}", scene.updates()))
        }
    };
    let what = "an Event for each update";
    scene.world.eventually(what, PATIENCE, look).await
}

#[tokio::test]
async fn each_write_has_an_event_and_a_line_in_the_log_that_follow_from_each_other() {
    let scene = Scene::shared("audited").await;
    scene.grant_to("one", &scene.role("a")).await;
    scene.until_ready(&["one"]).await;
    let one = scene.get_grant("one").await["metadata"]["uid"].clone();
    let one = one.as_str().unwrap().to_owned();
    // A write whose answer is lost is a write.
    let lost = Fault::ResetAfter;
    let faults = scene.world.aws().faults();
    faults.inject_on(scene.name, "UpdateDomainConfig", lost, Times::Exactly(1));
    scene.grant_to("two", &scene.role("b")).await;
    scene.until_ready(&["two"]).await;
    let two = scene.get_grant("two").await["metadata"]["uid"].clone();
    let two = two.as_str().unwrap().to_owned();
    scene
        .change_grant("one", &json!({"spec": {"access": "Read"}}))
        .await;
    scene.until_ready(&["one"]).await;
    scene.delete_grant("two").await;
    scene.until_gone("two").await;

    let notes = until_all_are_told(&scene).await;
    assert_eq!(notes.len(), 4, "{notes:#?}");
    let versions = scene.world.aws().versions(scene.name);
    for (note, version) in notes.iter().zip(&versions[1..]) {
        assert_eq!(after(note, "version "), version.version.to_string());
    }
    for (note, uid) in notes.iter().zip([&one, &two, &one, &two]) {
        assert_eq!(after(note, "grants "), uid.as_str(), "{note}");
    }
    let before: Vec<&str> = notes.iter().map(|note| after(note, "sha256 ")).collect();
    let left: Vec<&str> = notes
        .iter()
        .map(|note| after(note, "before and "))
        .collect();
    assert_eq!(left[..3], before[1..], "what one left the next one found");
    let different: BTreeSet<&&str> = left.iter().collect();
    assert_eq!(different.len(), 4, "{notes:#?}");

    let log = scene.world.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("wrote the access policy") && line.contains("domain=audited "))
        .collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (line, note) in lines.iter().zip(&notes) {
        for (key, word) in [
            ("before=", "sha256 "),
            ("after=", "before and "),
            ("version=", "version "),
            ("grants=", "grants "),
        ] {
            assert_eq!(after(line, key), after(note, word), "{line}");
        }
    }
}

/// AWS takes one change at a time: while it works on another's, ours is refused, and theirs is read.
#[tokio::test]
async fn a_write_that_aws_is_still_taking_over_is_kept() {
    let busy = Period::For(Duration::from_millis(1500));
    let options = DomainOptions::default().processing(busy).others_keep_busy();
    let scene = Scene::bare("taken-over", options).await;
    scene.add_domain(&json!({})).await;
    let (a, b, theirs) = (scene.role("a"), scene.role("b"), scene.role("theirs"));
    scene.grant_to("one", &a).await;
    scene.until_ready(&["one"]).await;
    let statement = scene.allows(&[&theirs]);
    let added = statement.clone();
    scene
        .world
        .aws()
        .before_next_update(scene.name, move |policy| {
            let mut document: Value = serde_json::from_str(policy).unwrap();
            document["Statement"].as_array_mut().unwrap().push(added);
            document.to_string()
        });
    scene.grant_to("two", &b).await;
    scene.until_ready(&["one", "two"]).await;
    scene
        .until_policy(&[scene.allows(&[&a, &b]), statement])
        .await;
    let refused = scene.world.aws().calls_of("UpdateDomainConfig");
    let of_domain = refused
        .iter()
        .filter(|it| it.domain.as_deref() == Some(scene.name));
    let refused = of_domain.filter(|it| it.status != Some(200)).count();
    assert!(refused > 0, "the write in between was not");
    let told = scene.world.events("default", scene.name).await;
    let lost = told.iter().any(|(reason, _)| reason == "ForeignWriteLost");
    assert!(!lost, "{told:?}");
}

#[tokio::test]
async fn a_write_of_another_that_was_never_read_is_told_as_lost() {
    let scene = Scene::shared("overwritten").await;
    let scene = scene.unjudged("a write that is lost on purpose");
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("one", &a).await;
    scene.until_ready(&["one"]).await;
    assert!(notes(&scene, "ForeignWriteLost").await.is_empty());
    let theirs =
        json!({"Version": "2012-10-17", "Statement": [scene.allows(&[&scene.role("theirs")])]});
    let aws = scene.world.aws();
    aws.before_next_update(scene.name, move |_| theirs.to_string());
    scene.grant_to("two", &b).await;
    scene.until_ready(&["two"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    let look = async || {
        let notes = notes(&scene, "ForeignWriteLost").await;
        if notes.is_empty() {
            Err("no such Event".to_owned())
        } else {
            Ok(notes)
        }
    };
    let told = scene.world.eventually("it is told", PATIENCE, look).await;
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["version 2 when it was read, and 4 after", "CloudTrail"] {
        assert!(told[0].contains(part), "{told:?}");
    }
    // What is read before the write is kept, and nothing is lost.
    scene.others_write(&[scene.allows(&[&a, &b, &scene.arn("theirs")])]);
    scene.grant_to("three", &scene.role("c")).await;
    scene.until_ready(&["three"]).await;
    let (c, theirs) = (scene.arn("c"), scene.arn("theirs"));
    scene
        .until_policy(&[scene.allows(&[&a, &b, &c, &theirs])])
        .await;
    assert_eq!(notes(&scene, "ForeignWriteLost").await.len(), 1);
}
