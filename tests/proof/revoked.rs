//! How soon a domain shuts out whose grant was deleted.

use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::{Value, json};

use super::report::Report;
use super::scale::Stage;
use crate::common::fake_aws::DomainOptions;
use crate::common::gateway::ask;
use crate::common::opensearch::shared_node;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, REGION};

/// How often somebody is let in and shut out.
const ROUNDS: usize = 20;

/// How long it may take, in seconds.
const BAR: f64 = 5.0;

/// How long it may take before it counts as never.
const NEVER: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// Grants and revokes a role's access through the door and to an index, on a real OpenSearch.
pub(crate) async fn run() -> Report {
    let stage = Stage::set().await;
    stage.world.start_quiet_operator();
    let name = "shut-out";
    let options = DomainOptions::default().fine_grained();
    let scene = Scene::in_world(stage.world.again(), name, options).await;
    let scene = scene.with_node(shared_node().await, &["one"]).await;
    let consent = scene.consent(&json!({"securityRoles": ["shut-out.*"]}));
    // Nothing but what happens makes the operator look again.
    let spec = json!({"interval": "1h", "consent": [consent]});
    scene.add_domain(&spec).await;

    let principals = json!([{"iamRole": {"arn": scene.role("reader")}}]);
    let spec = json!({"principals": principals, "securityRoles": ["shut-out.one"]});
    let session = scene.role_name("reader");
    let keys = scene.world.aws().session(ACCOUNT, &session, "s");
    let gateway = scene.gateway.as_ref().expect("the scene has a node");
    // The index is not there, which only those are told who may read it.
    let answers = async || {
        let (path, nothing) = ("/x/_search", Value::Null);
        ask(gateway, Some(&keys), REGION, Method::GET, path, &nothing)
            .await
            .0
    };
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        scene.grant("reader", &spec).await;
        scene.until_ready(&["reader"]).await;
        assert_eq!(answers().await, 404);
        let began = Instant::now();
        scene.delete_grant("reader").await;
        while answers().await != 403 && began.elapsed() < NEVER {
            tokio::time::sleep(POLL).await;
        }
        took.push(began.elapsed().as_secs_f64());
        scene.until_gone("reader").await;
    }
    took.sort_by(f64::total_cmp);
    let rounded = |seconds: f64| (seconds * 100.0).round() / 100.0;
    let mut report = Report::default();
    let what = "a grant is deleted, and its role shut out: s";
    report.note(&format!("{what}, median"), rounded(took[ROUNDS / 2]));
    let slowest = rounded(took[ROUNDS - 1]);
    report.at_most(&format!("{what}, slowest of {ROUNDS}"), slowest, BAR);
    stage.world.stop_operator().await;
    report
}
