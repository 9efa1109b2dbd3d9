//! A live plan is what the operator does.

use serde_json::{Value, json};

use super::{Viewer, manifest, text, versions};
use crate::common::fake_aws::{DomainOptions, NewAssociation, RoleOptions};
use crate::common::operator::meaning::{of_document, of_statements};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, CLUSTER, REGION, World};

/// Returns what the planned policy says.
fn planned(domain: &Value) -> crate::common::operator::meaning::Meaning {
    of_document(&domain["accessPolicy"].to_string())
}

#[tokio::test]
async fn a_plan_is_what_the_operator_then_writes_and_nothing_more() {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, "planned", DomainOptions::default()).await;
    let viewer = Viewer::of(&scene).await;
    scene.add_domain(&json!({})).await;
    let [a, b, other] = ["a", "b", "other"].map(|role| scene.role(role));
    scene.others_write(&[scene.allows(&[&other])]);
    scene.grant_to("a", &a).await;
    let json_args = ["plan", "--cluster", "-o", "json"];

    // Nothing was ever written: the operator is to come.
    let before = versions(&scene).await;
    let first = viewer.run(json_args).await;
    let domain = first.domain("planned");
    assert_eq!(first.code, 2, "{first:?}");
    assert_eq!(
        of_statements(domain["added"].as_array().unwrap()),
        of_statements(&[scene.allows(&[&a])])
    );
    assert_eq!(domain["removed"], json!([]));
    assert!(first.errors.contains("has no record"), "{first:?}");
    assert_eq!(versions(&scene).await, before, "reading changes nothing");
    assert_eq!(scene.updates(), 0);

    // The operator writes just that.
    scene.world.start_operator();
    scene.until_ready(&["a"]).await;
    assert_eq!(scene.policy(), planned(&domain));
    scene.world.stop_operator().await;
    let before = versions(&scene).await;
    let settled = viewer.run(json_args).await;
    assert_eq!(
        (settled.code, settled.errors.as_str()),
        (0, ""),
        "{settled:?}"
    );
    let domain = settled.domain("planned");
    assert_eq!(
        (&domain["added"], &domain["removed"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(planned(&domain), scene.policy());
    assert_eq!(versions(&scene).await, before);

    // One comes and one goes while it is away.
    scene.grant_to("b", &b).await;
    scene.delete_grant("a").await;
    let changed = viewer.run(json_args).await;
    let domain = changed.domain("planned");
    assert_eq!(
        (changed.code, changed.errors.as_str()),
        (2, ""),
        "{changed:?}"
    );
    let said = |element: &str| of_statements(domain[element].as_array().unwrap());
    assert_eq!(said("added"), of_statements(&[scene.allows(&[&b])]));
    assert_eq!(said("removed"), of_statements(&[scene.allows(&[&a])]));
    let diff = viewer.run(["plan", "--cluster"]).await;
    assert_eq!(diff.code, 2, "{diff:?}");
    let lines: Vec<&str> = diff.output.lines().collect();
    assert_eq!(
        lines[0].split(';').next(),
        Some("domain planned: 1 statement to add, 1 to remove, 1 of others")
    );
    let marked = |sign: &str, part: &str| {
        lines
            .iter()
            .any(|line| line.trim_start().starts_with(sign) && line.contains(part))
    };
    assert!(marked("+", &b) && marked("-", &a), "{}", diff.output);
    assert!(!diff.output.contains(&other), "{}", diff.output);
    // What is in the policy still is explained still.
    let explained = viewer
        .run([
            "explain",
            "--cluster",
            "-o",
            "json",
            "--action",
            "es:ESHttpGet",
            "--principal",
            &a,
        ])
        .await
        .json();
    assert_eq!(explained["decision"], "Allow", "{explained}");
    assert_eq!(explained["manifests"][0]["name"], "a", "{explained}");

    scene.world.start_operator();
    scene.until_gone("a").await;
    scene.until_ready(&["b"]).await;
    assert_eq!(scene.policy(), planned(&domain));
    let settled = viewer.run(["plan", "--cluster"]).await;
    assert_eq!(
        (settled.code, settled.errors.as_str()),
        (0, ""),
        "{settled:?}"
    );
    assert!(
        !settled.output.contains("\n  "),
        "no statement is shown: {settled:?}"
    );
    viewer.only_read(&scene.world);
}

#[tokio::test]
async fn manifests_over_a_cluster_are_planned_as_if_they_were_applied() {
    let scene = Scene::shared("overlaid").await;
    let viewer = Viewer::of(&scene).await;
    let [a, b, c] = ["a", "b", "c"].map(|role| scene.role(role));
    scene.grant_to("a", &a).await;
    scene.grant_to("b", &b).await;
    scene.until_ready(&["a", "b"]).await;
    let of = |role: &str, rest: &Value| {
        let mut spec =
            json!({"domainRef": {"name": scene.name}, "principals": [{"iamRole": {"arn": role}}]});
        spec.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        spec
    };
    let files = [
        manifest(&scene, "a", &of(&a, &json!({"actions": ["es:ESHttpGet"]}))),
        manifest(&scene, "c", &of(&c, &json!({"access": "Admin"}))),
    ]
    .concat();
    let file = viewer.write("change.yaml", &files);
    let args = ["plan", "--cluster", "--domain", scene.name, "-o", "json"];
    let overlay = viewer.run([&args[..], &["-f", text(&file)]].concat()).await;
    let domain = overlay.domain(scene.name);
    assert_eq!(
        (overlay.code, overlay.errors.as_str()),
        (2, ""),
        "{overlay:?}"
    );
    let domains = overlay.json()["domains"].as_object().unwrap().len();
    assert_eq!(domains, 1, "{overlay:?}");
    let mut gets = scene.allows(&[&a]);
    gets["Action"] = json!("es:ESHttpGet");
    let wanted = [gets, scene.allows(&[&b, &c])];
    assert_eq!(planned(&domain), of_statements(&wanted));
    assert_eq!(
        viewer.run(args).await.code,
        0,
        "the cluster alone has no change"
    );

    // What may not be changed is refused, as the API server would, and changes nothing.
    let moved = manifest(
        &scene,
        "a",
        &json!({"domainRef": {"name": "elsewhere"}, "access": "Admin",
        "principals": [{"iamRole": {"arn": a}}]}),
    );
    let moved = viewer
        .run_on([&args[..], &["-f", "-"]].concat(), &moved)
        .await;
    moved.fails_with(&["-: DomainAccess overlaid/a: spec.domainRef.name: it cannot change"]);
    assert_eq!(moved.domain(scene.name)["added"], json!([]));
    let narrower = json!({"spec": {"access": null, "actions": ["es:ESHttpGet"]}});
    scene.change_grant("a", &narrower).await;
    scene.grant_to("c", &c).await;

    scene.until_policy(&wanted).await;
    scene.until_ready(&["a", "b", "c"]).await;
    let settled = viewer.run(args).await;
    assert_eq!(
        (settled.code, settled.errors.as_str()),
        (0, ""),
        "{settled:?}"
    );
    viewer.only_read(&scene.world);
}

#[tokio::test]
async fn manifests_alone_are_planned_against_the_policy_in_aws() {
    let scene = Scene::bare("no-cluster", DomainOptions::default().fine_grained()).await;
    let viewer = Viewer::of(&scene).await;
    let [a, other] = ["a", "other"].map(|role| scene.role(role));
    scene.others_write(&[scene.allows(&[&other])]);
    let domain = json!({"apiVersion": "opensearch-access.io/v1alpha1", "kind": "OpenSearchDomain",
        "metadata": {"name": scene.name}, "spec": {"domainName": scene.name, "accountId": ACCOUNT,
        "region": REGION, "consent": [scene.consent(&json!({}))]}});
    let spec = json!({"domainRef": {"name": scene.name}, "access": "ReadWrite", "paths": ["x"],
        "principals": [{"iamRole": {"arn": a}}]});
    let files = domain.to_string() + "\n" + &manifest(&scene, "a", &spec);
    let mut command = viewer.command(["plan", "-f", "-", "--live", "-o", "json"]);
    command.env("KUBECONFIG", "/nowhere");
    let said = super::run(command, &files).await;
    let planned = said.domain(scene.name);
    assert_eq!((said.code, said.errors.as_str()), (2, ""), "{said:?}");
    assert_eq!(planned["removed"], json!([]), "{planned}");
    // With fine-grained access control rules on paths are sound, and AWS says that it has that.
    assert_eq!(planned.get("warnings"), None, "{planned}");
    let offline = viewer
        .run_on(["plan", "-f", "-", "-o", "json"], &files)
        .await;
    assert!(
        offline.domain(scene.name)["warnings"].is_array(),
        "{offline:?}"
    );

    // A principal that does not exist would have AWS refuse the whole policy.
    let missing = files.replace(&a, &scene.arn("nobody"));
    let refused = viewer
        .run_on(["plan", "-f", "-", "--live", "-o", "json"], &missing)
        .await;
    refused.fails_with(&["has no IAM role", "nobody"]);
    let refused = &refused.domain(scene.name)["refused"][0];
    assert_eq!(refused["reason"], "PrincipalNotFound", "{refused}");
    viewer.only_read(&scene.world);
}

#[tokio::test]
async fn a_domain_of_another_account_is_read_through_its_role() {
    const OTHER: &str = "444455556666";
    let world = World::shared().await;
    let trusted = RoleOptions::default().trusts(ACCOUNT).external_id("a-word");
    let account = world.aws().account(OTHER);
    account
        .role_with("planning", trusted)
        .domain("elsewhere", REGION);
    world.namespace("elsewhere", &json!({})).await;
    let scene = Scene::of(world, "elsewhere").of_account(OTHER);
    let role = format!("arn:aws:iam::{OTHER}:role/planning");
    let through = json!({"arn": role, "externalId": "a-word"});
    scene
        .add_domain(&json!({"accountId": OTHER, "assumeRole": through, "suspend": true}))
        .await;
    let viewer = Viewer::of(&scene).await;
    let args = ["plan", "--cluster", "--domain", scene.name];
    let said = viewer.run(args).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.output.contains("note: suspend is set"), "{said:?}");
    viewer.only_read(&scene.world);

    let own = viewer.run([&args[..], &["--own-identity"]].concat()).await;
    own.fails_with(&[
        "your AWS identity is of account 111122223333",
        OTHER,
        "AWS_PROFILE",
    ]);
    scene
        .change_domain(&json!({"spec": {"assumeRole": {"externalId": "another"}}}))
        .await;
    let denied = viewer.run(args).await;
    denied.fails_with(&["AWS denied AssumeRole", "--own-identity"]);
}

#[tokio::test]
async fn a_service_account_counts_with_the_role_that_it_was_granted_by() {
    let scene = Scene::bare("accounted", DomainOptions::default()).await;
    let scene = scene.unjudged("service accounts");
    let entry = scene.consent(&json!({"principals": {"accounts": null, "serviceAccounts": true}}));
    scene.add_domain(&json!({ "consent": [entry] })).await;
    let viewer = Viewer::of(&scene).await;
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "search", "namespace": scene.name},
    });
    scene.world.create(&account).await.unwrap();
    let association = NewAssociation {
        namespace: scene.name.to_owned(),
        service_account: "search".to_owned(),
        role: scene.role("a"),
        target_role: None,
        policy: None,
    };
    let aws = scene.world.aws().account(ACCOUNT);
    aws.associate(REGION, CLUSTER, association);
    let principals = json!({"principals": [{"serviceAccount": {"name": "search"}}]});
    scene.grant("grant", &principals).await;
    scene.until_ready(&["grant"]).await;

    let args = ["plan", "--cluster", "--domain", scene.name, "-o", "json"];
    let settled = viewer.run(args).await;
    assert_eq!(settled.code, 0, "{settled:?}");
    assert_eq!(planned(&settled.domain(scene.name)), scene.policy());
}
