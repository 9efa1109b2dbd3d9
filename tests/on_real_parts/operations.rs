//! Whoever runs the operator can see what it does, stop it, and run more than one.
//!
//! Each test has a world of its own, with replicas that have an access key each: what the fake AWS
//! recorded tells which of them did something.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

mod counting;
mod leading;
mod stopping;
mod writing;

use serde_json::{Value, json};

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{OPERATOR_NAMESPACE, PATIENCE, World};

/// Sets up a domain in a world without an operator.
async fn own(name: &'static str) -> Scene {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, name, DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    scene
}

/// Waits until an operator has kept on record what it is about to write.
async fn until_a_write_is_under_way(scene: &Scene) {
    let name = format!("domain-state.{}", scene.name);
    let look = async || {
        let map = scene
            .world
            .get("ConfigMap", Some(OPERATOR_NAMESPACE), &name)
            .await;
        let state = map["data"]["state.json"].as_str().unwrap_or("null");
        let state: Value = serde_json::from_str(state).unwrap();
        if state["pending"].is_array() {
            Ok(())
        } else {
            Err(format!("{state:#}"))
        }
    };
    let what = "a write is under way";
    scene.world.eventually(what, PATIENCE, look).await;
}

/// Returns who holds the lease.
async fn holder(scene: &Scene) -> String {
    let lease = scene
        .world
        .get("Lease", Some(OPERATOR_NAMESPACE), "opensearch-access");
    let holder = lease.await["spec"]["holderIdentity"].clone();
    holder.as_str().unwrap_or_default().to_owned()
}
