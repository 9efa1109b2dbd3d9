//! Who may do what on a domain as it stands, and which manifest says so.

use serde_json::{Value, json};

use super::{Viewer, manifest};
use crate::common::fake_aws::DomainOptions;
use crate::common::gateway::authority;
use crate::common::opensearch::shared_node;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, REGION, World};

#[tokio::test]
async fn a_grant_allows_and_its_revocation_denies() {
    let scene = Scene::shared("explained").await;
    let viewer = Viewer::of(&scene).await;
    let role = scene.role("reader");
    scene.others_write(&[scene.allows(&[&scene.role("other")])]);
    let office = json!({"access": "ReadWrite", "principals": [{"anonymous": {}}],
        "conditions": {"sourceIps": ["203.0.113.0/24"]}});
    scene.grant("office", &office).await;
    scene.grant_to("reader", &role).await;
    scene.until_ready(&["office", "reader"]).await;

    let about = ["explain", "--cluster", "--domain", scene.name, "-o", "json"];
    let unsigned = ["--action", "es:ESHttpGet", "--source-ip", "203.0.113.9"];
    let signed = ["--action", "es:ESHttpGet", "--principal", &role];
    let ask = async |question: &[&str]| -> Value {
        let said = viewer.run([&about[..], question].concat()).await;
        assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
        said.json()
    };
    let behind =
        |name: &str| json!([{"kind": "DomainAccess", "namespace": scene.name, "name": name}]);
    for (question, name) in [(&unsigned, "office"), (&signed, "reader")] {
        let answer = ask(question).await;
        assert_eq!(answer["decision"], "Allow", "{answer}");
        assert_eq!(answer["manifests"], behind(name), "{answer}");
        assert_eq!(
            answer["statements"].as_array().map(Vec::len),
            Some(1),
            "{answer}"
        );
    }

    // The whole matrix, in each form.
    let matrix = ask(&[]).await;
    let rows = matrix["rows"].as_array().unwrap();
    let by: Vec<&str> = rows.iter().filter_map(|row| row["by"].as_str()).collect();
    let named = |name: &str| by.iter().filter(|it| it.contains(name)).count();
    assert_eq!(
        (by.len(), named("office"), named("reader"), named("others")),
        (3, 1, 1, 1),
        "{matrix}"
    );
    for (form, part) in [("table", "WHO"), ("html", "<!doctype html>")] {
        let args = ["explain", "--cluster", "--domain", scene.name, "-o", form];
        let page = viewer.run(args).await;
        assert!(page.code == 0 && page.output.contains(part), "{page:?}");
        assert!(page.output.contains(&role), "{page:?}");
    }

    // The domain alone: the same decision, with nobody to attribute it to.
    let alone = [
        "explain",
        "--live",
        "--domain-name",
        scene.name,
        "--region",
        REGION,
        "-o",
        "json",
    ];
    let answer = viewer.run([&alone[..], &signed].concat()).await.json();
    assert_eq!(
        (&answer["decision"], &answer["manifests"]),
        (&json!("Allow"), &json!([])),
        "{answer}"
    );

    // With manifests laid over the cluster, the answer is about what would be.
    let narrow = json!({"domainRef": {"name": scene.name}, "access": "ReadWrite",
        "principals": [{"anonymous": {}}], "conditions": {"sourceIps": ["203.0.113.0/29"]}});
    let file = manifest(&scene, "office", &narrow);
    let would = viewer
        .run_on([&about[..], &unsigned, &["-f", "-"]].concat(), &file)
        .await;
    assert_eq!(would.json()["decision"], "Deny", "{would:?}");
    assert_eq!(ask(&unsigned).await["decision"], "Allow");

    scene.delete_grant("office").await;
    scene.delete_grant("reader").await;
    scene.until_gone("office").await;
    scene.until_gone("reader").await;
    let answer = ask(&unsigned).await;
    assert_eq!(
        (&answer["decision"], &answer["manifests"]),
        (&json!("Deny"), &json!([])),
        "{answer}"
    );
    // An identity policy of its own account may still allow it.
    assert_eq!(ask(&signed).await["decision"], "Unknown");
    viewer.only_read(&scene.world);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_halves_are_read_from_the_domain_itself() {
    let options = DomainOptions::default().fine_grained();
    let scene = Scene::in_world(World::shared().await, "explained-roles", options).await;
    let scene = scene.with_node(shared_node().await, &["reader"]).await;
    let entry = scene.consent(&json!({"securityRoles": ["explained-roles.*"]}));
    scene.add_domain(&json!({"consent": [entry]})).await;
    let role = scene.role("reader");
    let spec = json!({"principals": [{"iamRole": {"arn": role}}],
        "securityRoles": ["explained-roles.reader"]});
    scene.grant("reader", &spec).await;
    scene.until_ready(&["reader"]).await;

    let mut viewer = Viewer::of(&scene).await;
    let trusted = authority().display().to_string();
    let question = [
        "--domain-ca",
        &trusted,
        "-o",
        "json",
        "--action",
        "es:ESHttpGet",
    ];
    let question = [&question[..], &["--principal", &role, "--path"]].concat();
    let cluster = ["explain", "--cluster", "--domain", scene.name];
    let alone = [
        "explain",
        "--live",
        "--region",
        REGION,
        "--domain-name",
        scene.name,
    ];
    // Who may not read the roles is told so, and of nothing else.
    let said = viewer
        .run([&cluster[..], &question[..], &["/x/_search"]].concat())
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("could not be read"), "{said:?}");
    assert_eq!(said.json()["decision"], "Unknown", "{said:?}");

    viewer.key = scene.world.aws().credentials(ACCOUNT);
    for about in [&cluster[..], &alone[..]] {
        for (path, decision) in [("/x/_search", "Allow"), ("/y/_search", "Deny")] {
            let said = viewer.run([about, &question[..], &[path]].concat()).await;
            assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
            let answer = said.json();
            assert_eq!(answer["decision"], decision, "{about:?} {path}: {answer:#}");
            assert_eq!(answer["door"]["decision"], "Allow", "{answer:#}");
            assert_eq!(answer["permissions"]["decision"], decision, "{answer:#}");
        }
    }
}
