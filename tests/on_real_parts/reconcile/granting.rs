//! Grants become one policy.

use serde_json::{Value, json};

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, PATIENCE, REGION, World, meaning, together};

#[tokio::test]
async fn the_examples_become_the_policy_that_they_are_for_in_one_write() {
    const ROLE: &str = "arn:aws:iam::111122223333:role/es-role";
    let world = World::shared().await;
    let account = world.aws().account(ACCOUNT);
    account
        .role("es-role")
        .user("es-user")
        .domain("my-domain", REGION);
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples");
    let applied = world.cluster().kubectl(["apply", "-f", examples]).await;
    assert!(applied.status.success(), "{applied:?}");

    for name in ["office", "principals", "role-identity"] {
        let what = format!("{name} is Ready");
        let look = async || {
            let grant = world.get("DomainAccess", Some("search"), name).await;
            let ready = condition(&grant, "Ready");
            if ready["status"] == "True" {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        };
        world.eventually(&what, PATIENCE, look).await;
    }

    let all = "arn:aws:es:eu-west-1:111122223333:domain/my-domain/*";
    let wanted = [
        json!({"Effect": "Allow", "Principal": {"AWS": [ROLE, "arn:aws:iam::111122223333:user/es-user"]},
            "Action": "es:*", "Resource": all}),
        json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "es:*", "Resource": all,
            "Condition": {"IpAddress": {"aws:SourceIp": ["198.51.100.7", "203.0.113.0/24"]}}}),
    ];
    let policy = meaning::of_document(&world.aws().policy("my-domain"));
    assert_eq!(policy, meaning::of_statements(&wanted));
    assert_eq!(world.aws().updates("my-domain"), 1);

    let inline = world.aws().role_policies(ACCOUNT, "es-role");
    let documents: Vec<Value> = inline
        .values()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let identity = json!({"Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "es:*", "Resource": all}]});
    assert_eq!(documents, [identity], "{inline:?}");
}

#[tokio::test]
async fn a_burst_of_200_grants_is_one_write() {
    let scene = Scene::shared("burst").await;
    // The domain's object alone gives no reason to write.
    scene.until_domain_says("True", "Reconciled").await;
    let names: Vec<String> = (0..200).map(|number| format!("grant-{number}")).collect();
    let roles: Vec<String> = names.iter().map(|name| scene.role(name)).collect();
    for (names, roles) in names.chunks(25).zip(roles.chunks(25)) {
        together(
            names
                .iter()
                .zip(roles)
                .map(|(name, role)| scene.grant_to(name, role)),
        )
        .await;
    }

    let look = async || {
        let grants = scene.grants().await;
        let ready = |it: &&Value| condition(it, "Ready")["status"] == "True";
        match grants.iter().filter(ready).count() {
            200 => Ok(()),
            count => Err(format!("{count} are Ready")),
        }
    };
    scene
        .world
        .eventually("all 200 are Ready", PATIENCE, look)
        .await;
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    scene.until_policy(&[scene.allows(&roles)]).await;
    assert!(scene.updates() <= 2, "{} updates", scene.updates());
    let look = async || match scene.domain().await["status"]["grants"].take() {
        grants if grants["applied"] == 200 => Ok(()),
        grants => Err(grants.to_string()),
    };
    let what = "the domain counts 200 grants";
    scene.world.eventually(what, PATIENCE, look).await;
}

#[tokio::test]
async fn a_changed_grant_changes_what_it_asks_for_and_nothing_else() {
    let scene = Scene::shared("changed").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("stays", &a).await;
    scene.grant_to("changes", &b).await;
    scene.until_ready(&["stays", "changes"]).await;
    let narrower =
        json!({"spec": {"access": null, "actions": ["es:ESHttpGet"], "paths": ["logs-*"]}});
    scene.change_grant("changes", &narrower).await;
    let narrow = json!({"Effect": "Allow", "Principal": {"AWS": b}, "Action": "es:ESHttpGet",
        "Resource": scene.resource("logs-*")});
    scene.until_policy(&[scene.allows(&[&a]), narrow]).await;
    scene.until_ready(&["stays", "changes"]).await;
    assert_eq!(scene.updates(), 2);
    // What is written is told, of the grant that changed.
    for (name, told) in [("stays", 1), ("changes", 2)] {
        let look = async || match scene.world.events("changed", name).await {
            events if events.len() == told => Ok(()),
            events => Err(format!("{events:?}")),
        };
        let what = format!("{told} Events on {name}");
        scene.world.eventually(&what, PATIENCE, look).await;
    }
}

/// Waits for the first Event on an object, which comes after its status, and gives all there are.
async fn until_told(scene: &Scene, namespace: &str, name: &str) -> Vec<(String, String)> {
    let look = async || match scene.world.events(namespace, name).await {
        events if events.is_empty() => Err("no Event".to_owned()),
        events => Ok(events),
    };
    scene.world.eventually("an Event", PATIENCE, look).await
}

#[tokio::test]
async fn what_is_granted_is_told_once() {
    let scene = Scene::shared("told").await;
    scene.grant_to("reader", &scene.role("reader")).await;
    scene.until_ready(&["reader"]).await;
    let events = until_told(&scene, "told", "reader").await;
    let reasons: Vec<&str> = events.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["Reconciled"], "{events:?}");

    let of_domain = scene.world.events("default", "told").await;
    let written = of_domain
        .iter()
        .filter(|(reason, _)| reason == "PolicyWritten")
        .count();
    assert_eq!(written, 1, "{of_domain:?}");
}

#[tokio::test]
async fn a_grant_without_a_domain_says_so_goes_at_once_and_works_once_the_domain_is_there() {
    let scene = Scene::bare("late", DomainOptions::default()).await;
    let role = scene.role("reader");
    together(["goes", "stays", "a", "b", "c", "d"].map(|name| scene.grant_to(name, &role))).await;
    for name in ["goes", "stays"] {
        scene
            .until_refused(name, "DomainNotFound", &["spec.domainRef.name", "\"late\""])
            .await;
    }
    let told = until_told(&scene, "late", "stays").await;
    let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["DomainNotFound"],
        "once, however many there are: {told:?}"
    );
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.add_domain(&json!({})).await;
    scene.until_ready(&["stays"]).await;
    scene.until_policy(&[scene.allows(&[&role])]).await;
    assert_eq!(scene.updates(), 1);
}

#[tokio::test]
async fn namespaces_are_let_in_by_their_labels_and_out_with_them() {
    let scene = Scene::bare("labels", DomainOptions::default()).await;
    let scene = scene.unjudged("namespaces by their labels");
    let (a, b) = (scene.role("a"), scene.role("b"));
    for (namespace, label) in [
        ("labels-one", "yes"),
        ("labels-two", "yes"),
        ("labels-no", "no"),
    ] {
        scene
            .world
            .namespace(namespace, &json!({"search": label}))
            .await;
    }
    let mut consent = scene.consent(&json!({}));
    consent["namespaces"] = json!([]);
    consent["namespaceSelector"] = json!({"matchLabels": {"search": "yes"}});
    // Nothing but the label makes the operator look again.
    let change = json!({"consent": [consent], "interval": "1h"});
    scene.add_domain(&change).await;
    let to = |role: &str| json!({"principals": [{"iamRole": {"arn": role}}]});
    scene
        .try_grant("labels-one", "grant", &to(&a))
        .await
        .unwrap();
    scene
        .try_grant("labels-two", "grant", &to(&b))
        .await
        .unwrap();
    scene
        .try_grant("labels-no", "grant", &to(&scene.role("c")))
        .await
        .unwrap();
    for namespace in ["labels-one", "labels-two"] {
        scene
            .until_grant_says(namespace, "grant", "True", "Reconciled")
            .await;
    }
    let refused = scene
        .until_grant_says("labels-no", "grant", "False", "NotPermitted")
        .await;
    assert!(
        refused.contains("labels-no") && refused.contains("spec.consent"),
        "{refused}"
    );
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;

    let unlabelled = json!({"metadata": {"labels": {"search": null}}});
    scene
        .world
        .change("Namespace", None, "labels-two", &unlabelled)
        .await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene
        .until_grant_says("labels-two", "grant", "False", "NotPermitted")
        .await;
}
