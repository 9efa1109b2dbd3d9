//! What goes wrong in the cluster: an API server that is old, slow, refusing, dead or emptied, and
//! what people delete in it. Nothing is granted or revoked on what was seen before, and nothing
//! hangs.
//!
//! Each test has a world of its own, and most reach the API server through a [`Link`].

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

mod dead;
mod deleted;
mod held;
mod hidden;
mod orphaned;
mod overdue;
mod quiet;
mod refusing;
mod shrunken;
mod stale;
mod unreadable;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::cluster::link::{Link, Target};
use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{OPERATOR_NAMESPACE, PATIENCE, World};

/// Sets up a domain in a world without an operator.
async fn own(name: &'static str, spec: &Value) -> Scene {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, name, DomainOptions::default()).await;
    scene.add_domain(spec).await;
    scene
}

/// Sets up the same, with a link for the operators that are started later.
async fn linked(name: &'static str) -> (Scene, Link) {
    let scene = own(name, &json!({})).await;
    let link = Link::to(Target::Port(scene.world.cluster().port())).await;
    scene.world.reach_through(link.port());
    (scene, link)
}

/// Deletes a grant without asking its finalizer, as whoever may edit it can.
async fn delete_by_hand(scene: &Scene, name: &str) {
    let grants = scene.world.api("DomainAccess", Some(scene.name));
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let parameters = PatchParams::default();
    grants.patch(name, &parameters, &strip).await.unwrap();
    let deleted = grants.delete(name, &DeleteParams::default()).await;
    // It may have been deleted already, and have waited for nothing else.
    if let Err(error) = deleted {
        assert!(error.to_string().contains("not found"), "{error}");
    }
}

/// Returns the domain's record; `Null` if there is none.
async fn record(scene: &Scene) -> Value {
    let name = format!("domain-state.{}", scene.name);
    let namespace = Some(OPERATOR_NAMESPACE);
    let map = scene.world.get("ConfigMap", namespace, &name).await;
    let text = map["data"]["state.json"].as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap()
}

/// Waits until the record says that nothing is under way.
async fn until_settled(scene: &Scene) {
    let look = async || match record(scene).await {
        record if record["pending"].is_null() && !record.is_null() => Ok(()),
        record => Err(format!("{record:#}")),
    };
    let what = "the record is settled";
    scene.world.eventually(what, PATIENCE, look).await;
}
