//! A domain in AWS becomes manifests that change nothing.

use serde_json::{Value, json};

use super::{Viewer, text};
use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, REGION};

#[tokio::test]
async fn what_is_imported_from_aws_plans_to_no_change() {
    let scene = Scene::bare("imported", DomainOptions::default().fine_grained()).await;
    let viewer = Viewer::of(&scene).await;
    let [a, b] = ["a", "b"].map(|role| scene.role(role));
    let mut reads = scene.allows(&[&b]);
    reads["Action"] = json!(["es:ESHttpGet", "es:ESHttpHead"]);
    reads["Resource"] = json!([scene.resource("x"), scene.resource("x/*")]);
    let mut denies = scene.allows(&["*"]);
    denies["Effect"] = json!("Deny");
    denies["Resource"] = scene.resource("secret/*").into();
    scene.others_write(&[scene.allows(&[&a]), reads, denies]);

    let folder = viewer.home.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let name = ["--domain-name", scene.name, "--region", REGION];
    let args = [
        "import",
        "--live",
        "--namespace",
        scene.name,
        "--write",
        text(&folder),
    ];
    let imported = viewer.run([&args[..], &name].concat()).await;
    assert_eq!(imported.code, 0, "{imported:?}");
    let left: Vec<&str> = imported.errors.lines().collect();
    assert_eq!(left.len(), 1, "{imported:?}");
    assert!(
        left[0].ends_with("it denies, and grants only allow"),
        "{left:?}"
    );
    let domain = std::fs::read_to_string(folder.join("domain.yaml")).unwrap();
    for part in [ACCOUNT, REGION, "fineGrainedAccess"] {
        assert!(domain.contains(part), "{part}: {domain}");
    }
    let planned = viewer
        .run(["plan", "-f", text(&folder), "--live", "-o", "json"])
        .await;
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (0, ""),
        "{planned:?}"
    );
    let domain = planned.domain(scene.name);
    assert_eq!(
        (&domain["added"], &domain["removed"]),
        (&json!([]), &json!([]))
    );
    let policy: Value = serde_json::from_str(&scene.world.aws().policy(scene.name)).unwrap();
    assert_eq!(domain["accessPolicy"], policy);

    let account = ["import", "--live", "--account", "444455556666"];
    viewer
        .run([&account[..], &name].concat())
        .await
        .fails_with(&["--account says 444455556666"]);
    viewer.only_read(&scene.world);
}
