//! What cannot be read is an error that says what to do, and hides nothing else.

use serde_json::json;

use super::{Viewer, run};
use crate::common::cluster::Cluster;
use crate::common::fake_aws::{DomainOptions, Fault, Times};
use crate::common::operator::scene::Scene;
use crate::common::operator::{REGION, World};

const PLAN: [&str; 4] = ["plan", "--cluster", "-o", "json"];

/// Sets up a domain with a grant in a world of the test's own, in which no operator runs.
async fn scene(name: &'static str) -> (Scene, Viewer) {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, name, DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    scene.grant_to("a", &scene.role("a")).await;
    let viewer = Viewer::of(&scene).await;
    (scene, viewer)
}

#[tokio::test]
async fn no_cluster_no_definitions_and_no_rights() {
    let (scene, viewer) = scene("unreadable").await;
    let with = |kubeconfig: &std::path::Path| {
        let mut command = viewer.command(PLAN);
        command.env("KUBECONFIG", kubeconfig);
        command
    };
    let nowhere = run(with("/nowhere".as_ref()), "").await;
    nowhere.fails_with(&["no cluster to read", "/nowhere", "--kubeconfig"]);
    let mut none = viewer.command(PLAN);
    none.env_remove("KUBECONFIG");
    run(none, "")
        .await
        .fails_with(&["no cluster to read", "--kubeconfig"]);
    let other = viewer
        .run([&PLAN[..], &["--kube-context", "other"]].concat())
        .await;
    other.fails_with(&["no cluster to read", "other", "--kube-context"]);

    let bob = scene.world.cluster().kubeconfig_of("bob");
    let forbidden = run(with(&bob), "").await;
    forbidden.fails_with(&[
        "does not let you list opensearchdomains",
        "\"bob\"",
        "ask for a role",
    ]);
    let file = ["--kubeconfig", bob.to_str().unwrap()];
    let forbidden = viewer.run([&PLAN[..], &file].concat()).await;
    forbidden.fails_with(&["\"bob\""]);
    let broken = std::fs::read_to_string(&bob).unwrap();
    let token = scene.world.cluster().token("bob");
    let stranger = viewer.write("stranger", &broken.replace(token, "no-token"));
    let stranger = run(with(&stranger), "").await;
    stranger.fails_with(&["does not take your credentials"]);
    assert!(viewer.called(&scene.world).is_empty());

    let bare = Cluster::start().await;
    let unknown = run(with(&bare.kubeconfig()), "").await;
    unknown.fails_with(&["does not know OpenSearchDomain", "opensearch-access crds"]);
}

#[tokio::test]
async fn aws_that_does_not_answer_as_wished() {
    let (scene, viewer) = scene("denied").await;
    let scene = scene.unjudged("a domain that AWS does not have");
    let aws = scene.world.aws();
    let place = "<cluster>: OpenSearchDomain denied: ";

    let mut nobody = viewer.command(PLAN);
    nobody.env_remove("AWS_ACCESS_KEY_ID");
    let said = run(nobody, "").await;
    said.fails_with(&[place, "no AWS credentials were found", "AWS_PROFILE"]);
    let held = &said.domain("denied")["held"];
    assert!(
        held.is_string() && said.domain("denied")["refused"] == json!([]),
        "{said:?}"
    );

    for (fault, words) in [
        (
            Fault::AccessDenied,
            ["AWS denied DescribeDomainConfig", "es:DescribeDomainConfig"],
        ),
        (
            Fault::Throttle,
            [
                "AWS throttled DescribeDomainConfig",
                "try again in a moment",
            ],
        ),
    ] {
        aws.faults()
            .inject("DescribeDomainConfig", fault, Times::UntilCleared);
        let said = viewer.run(PLAN).await;
        said.fails_with(&[place]);
        said.fails_with(&words);
        let explained = viewer.run(["explain", "--cluster"]).await;
        explained.fails_with(&words);
        assert_eq!(explained.output, "");
        aws.faults().clear("DescribeDomainConfig");
    }

    let alone = [
        "explain",
        "--live",
        "--domain-name",
        "nowhere",
        "--region",
        REGION,
    ];
    viewer.run(alone).await.fails_with(&[
        "domain nowhere in eu-west-1",
        "correct the name, the region",
    ]);
    aws.domain("denied").delete();
    viewer
        .run(PLAN)
        .await
        .fails_with(&[place, "AWS has no domain arn:aws:es:"]);
    viewer.only_read(&scene.world);
}

#[tokio::test]
async fn what_only_the_operator_may_read_is_a_note() {
    let (scene, viewer) = scene("noted").await;
    let aws = scene.world.aws();
    // Whether the role exists is the operator's to find out.
    aws.faults()
        .inject("GetRole", Fault::AccessDenied, Times::UntilCleared);
    let said = viewer.run(PLAN).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.errors
            .contains("note: noted: not all principals were checked: AWS denied GetRole"),
        "{said:?}"
    );
    assert_eq!(said.domain("noted")["refused"], json!([]));
    aws.faults().clear("GetRole");

    // Its record too.
    let rights = [
        "delete",
        "rolebinding",
        "noted-viewer",
        "-n",
        "opensearch-access",
    ];
    assert!(scene.world.cluster().kubectl(rights).await.status.success());
    let said = viewer.run(PLAN).await;
    assert_eq!(said.code, 2, "{said:?}");
    for part in [
        "note: noted: the cluster does not let you read the operator's record",
        "count as the operator's",
    ] {
        assert!(said.errors.contains(part), "{part}: {said:?}");
    }
    let elsewhere = viewer
        .run([&PLAN[..], &["--operator-namespace", "elsewhere"]].concat())
        .await;
    assert!(
        elsewhere.errors.contains("namespaces \"elsewhere\"")
            || elsewhere.errors.contains("in the namespace \"elsewhere\""),
        "{elsewhere:?}"
    );
}

#[tokio::test]
async fn an_older_object_for_the_same_domain_is_in_charge() {
    let (scene, viewer) = scene("twice").await;
    // The API server's clock has seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut second = scene.domain().await;
    second["metadata"] = json!({"name": "second"});
    scene.world.create(&second).await.unwrap();
    let said = viewer.run(PLAN).await;
    said.fails_with(&[
        "OpenSearchDomain second: OpenSearchDomain \"twice\" is about the same domain",
    ]);
    assert_eq!(said.domain("twice").get("held"), None, "{said:?}");
    assert_eq!(
        said.domain("twice")["added"].as_array().map(Vec::len),
        Some(1)
    );
}
