//! One namespace asks for far more than it may have: what do the others feel of it (A19)?

use std::time::{Duration, Instant};

use serde_json::json;

use super::report::Report;
use super::scale::{Stage, create, judged, ready, refused, roles};
use crate::common::operator::ACCOUNT;
use crate::common::operator::scene::Scene;

/// What the namespace asks for, and what it may have.
const ASKED: usize = 10_000;
const MOST: usize = 100;

/// How often another team grants and revokes, before the flood and after it.
const LOOKS: usize = 30;

/// How much longer that may take then.
const BAR: f64 = 1.2;

const POLL: Duration = Duration::from_millis(10);

/// Creates 10,000 grants in one namespace, and measures those of another on another domain.
pub(crate) async fn run() -> Report {
    let what = "10,000 grants of a namespace that may have 100:";
    let stage = Stage::set().await;
    stage.world.start_quiet_operator();
    let quiet = stage.scene("beside").await;
    let before = waits(&quiet).await;

    let flooded = stage.bare("flooded").await;
    let ceiling = json!({"principals": {"accounts": [ACCOUNT]}, "maxGrants": MOST});
    let consent = flooded.consent(&ceiling);
    let spec = json!({"interval": null, "consent": [consent]});
    flooded.add_domain(&spec).await;
    let role = &roles(&flooded, ACCOUNT, 0..1, &[])[0].1;
    let grants = (0..ASKED).map(|number| (format!("grant-{number:05}"), role.clone()));
    let decided = || {
        let refused = refused(&flooded, "OverCeiling").len();
        ready(&flooded).len() == MOST && refused == ASKED - MOST
    };
    let flood = async {
        create(&flooded, grants).await;
        stage.until(decided).await
    };
    // While it comes, the API server is busy with the creations themselves.
    let (done, during) = tokio::join!(flood, waits(&quiet));
    let after = waits(&quiet).await;

    let mut report = Report::default();
    report.at_least(&format!("{what} all are decided"), usize::from(done), 1);
    report.at_most(&format!("{what} writes"), flooded.updates(), 2);
    let [usual, then] = [&before, &after].map(|waits| waits[waits.len() / 2]);
    let milliseconds = |wait: Duration| wait.as_millis();
    report.note("  another's grant, before: ms", milliseconds(usual));
    let meanwhile = during[during.len() / 2];
    report.note("  another's grant, meanwhile: ms", milliseconds(meanwhile));
    report.note("  another's grant, after: ms", milliseconds(then));
    let slowest = [&before, &after].map(|waits| waits.last().copied().unwrap_or_default());
    report.note("  the slowest, before: ms", milliseconds(slowest[0]));
    report.note("  the slowest, after: ms", milliseconds(slowest[1]));
    let ratio = (then.as_secs_f64() / usual.as_secs_f64() * 100.0).round() / 100.0;
    report.at_most("  another's grant, after to before", ratio, BAR);
    judged(&mut report, what, &stage.judge(&[&quiet, &flooded]));
    stage.world.stop_operator().await;
    report
}

/// Grants and revokes, and returns how long each grant took to be in place, the shortest first.
async fn waits(scene: &Scene) -> Vec<Duration> {
    let role = scene.role_name("looker");
    scene.world.aws().account(ACCOUNT).role(&role);
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
    let mut waits = Vec::new();
    for _ in 0..LOOKS {
        let began = Instant::now();
        scene.grant_to("look", &arn).await;
        while ready(scene).is_empty() {
            tokio::time::sleep(POLL).await;
        }
        waits.push(began.elapsed());
        scene.delete_grant("look").await;
        scene.until_gone("look").await;
    }
    scene.world.aws().delete_role(ACCOUNT, &role);
    waits.sort_unstable();
    waits
}
