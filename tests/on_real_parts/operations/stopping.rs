//! Asked to stop, the operator finishes what it is doing, and the next one goes on at once.

use std::time::{Duration, Instant};

use super::{holder, own, until_a_write_is_under_way};
use crate::common::fake_aws::{Fault, Times};
use crate::common::operator::replica::{LEASE, Replica};
use crate::common::operator::together;

#[tokio::test]
async fn an_operator_that_is_asked_to_stop_finishes_its_write_and_gives_the_lease_back() {
    let scene = own("stopped").await;
    let mut first = Replica::start(&scene.world, "first").await;
    first.until_leads().await;
    let names: Vec<String> = (0..20).map(|number| format!("grant-{number}")).collect();
    let roles: Vec<String> = names.iter().map(|name| scene.role(name)).collect();
    let slow = Fault::Delay(Duration::from_secs(3));
    let faults = scene.world.aws().faults();
    faults.inject("UpdateDomainConfig", slow, Times::Exactly(1));
    together(
        names
            .iter()
            .zip(&roles)
            .take(10)
            .map(|(name, role)| scene.grant_to(name, role)),
    )
    .await;
    until_a_write_is_under_way(&scene).await;
    first.signal("TERM");
    first.until_readyz(503).await;
    // The burst goes on.
    for (name, role) in names.iter().zip(&roles).skip(10) {
        scene.grant_to(name, role).await;
    }
    let status = first.ended().await;
    assert!(status.success(), "{status}");
    let writes = first.writes();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].status, Some(200), "it was not cut off");
    assert_eq!(holder(&scene).await, "");

    let second = Replica::start(&scene.world, "second").await;
    second.until_leads().await;
    let every: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.until_ready(&every).await;
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    scene.until_policy(&[scene.allows(&roles)]).await;
    second.stop().await;
}

#[tokio::test]
async fn an_operator_that_stands_by_stops_at_once() {
    let scene = own("idle").await;
    let first = Replica::start(&scene.world, "first").await;
    first.until_leads().await;
    let second = Replica::start(&scene.world, "second").await;
    second.until_readyz(200).await;
    let asked = Instant::now();
    second.stop().await;
    assert!(asked.elapsed() < LEASE, "{:?}", asked.elapsed());
    assert!(holder(&scene).await.starts_with("first_"));
    first.stop().await;
}
