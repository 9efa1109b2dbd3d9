//! Roles that are deleted in IAM: AWS shows their unique id in the place of the ARN.

use serde_json::{Value, json};

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, PATIENCE};

/// Has the operator look at the domain, so many times.
async fn look_again(scene: &Scene, times: usize) {
    let reads = || {
        let calls = scene.world.aws().calls_of("DescribeDomain");
        let of_domain = calls.iter();
        of_domain
            .filter(|call| call.domain.as_deref() == Some(scene.name))
            .count()
    };
    for number in 0..times {
        let before = reads();
        let interval = format!("{}s", 60 + number);
        scene
            .change_domain(&json!({"spec": {"interval": interval}}))
            .await;
        let look = async || {
            (reads() > before)
                .then_some(())
                .ok_or("not read".to_owned())
        };
        scene
            .world
            .eventually("the operator looks", PATIENCE, look)
            .await;
    }
}

fn delete(scene: &Scene, role: &str) -> String {
    let (aws, name) = (scene.world.aws(), scene.role_name(role));
    let id = aws.role_id(ACCOUNT, &name).unwrap();
    assert!(aws.delete_role(ACCOUNT, &name));
    assert!(aws.policy(scene.name).contains(&id));
    id
}

/// Returns how many updates were sent, refused ones and dry runs included.
fn sent(scene: &Scene) -> usize {
    let calls = scene.world.aws().calls_of("UpdateDomainConfig");
    let of_domain = calls.iter();
    of_domain
        .filter(|call| call.domain.as_deref() == Some(scene.name))
        .count()
}

#[tokio::test]
async fn a_role_that_is_gone_is_told_makes_no_write_and_leaves_with_its_grant() {
    let scene = Scene::shared("role-gone").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("gone", &a).await;
    scene.grant_to("stays", &b).await;
    scene.until_ready(&["gone", "stays"]).await;
    let before = sent(&scene);
    let id = delete(&scene, "a");
    look_again(&scene, 10).await;
    let words = [
        "spec.principals[0].iamRole.arn",
        &a,
        "any more",
        "create it",
    ];
    scene
        .until_refused("gone", "PrincipalNotFound", &words)
        .await;
    assert_eq!(sent(&scene), before, "nothing was sent");
    assert!(scene.world.aws().policy(scene.name).contains(&id));

    scene.delete_grant("gone").await;
    scene.until_gone("gone").await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    assert_eq!(sent(&scene), before + 1);
    scene.until_ready(&["stays"]).await;
    look_again(&scene, 2).await;
    assert_eq!(sent(&scene), before + 1);
}

#[tokio::test]
async fn a_role_that_is_made_again_is_granted_anew_and_that_is_told() {
    let scene = Scene::shared("role-again").await;
    let a = scene.role("a");
    scene.grant_to("grant", &a).await;
    scene.until_ready(&["grant"]).await;
    let id = delete(&scene, "a");
    look_again(&scene, 1).await;
    scene
        .until_refused("grant", "PrincipalNotFound", &[&a])
        .await;
    scene.role("a");
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    assert!(!scene.world.aws().policy(scene.name).contains(&id));
    assert_eq!(scene.updates(), 2);
    let look = async || {
        let on_domain = scene.world.events("default", scene.name).await;
        let on_grant = scene.world.events(scene.name, "grant").await;
        let count = |events: &[(String, String)], reason: &str| {
            events.iter().filter(|(it, _)| it == reason).count()
        };
        let told = (
            count(&on_domain, "PolicyWritten"),
            count(&on_grant, "Reconciled"),
        );
        (told == (2, 2)).then_some(()).ok_or(format!("{told:?}"))
    };
    scene
        .world
        .eventually("both are told", PATIENCE, look)
        .await;
}

/// Makes sure that a write for another reason sends no unique id back, and takes nothing else from
/// what others wrote.
async fn ids_of_others(name: &'static str, options: DomainOptions) {
    let scene = Scene::bare(name, options).await;
    let scene = scene.unjudged("roles that turn into ids");
    let (gone, theirs, ours) = (scene.role("gone"), scene.role("theirs"), scene.role("ours"));
    let deny = |principals: Value| {
        let mut statement = scene.allows(&[]);
        statement["Effect"] = json!("Deny");
        statement["Principal"] = json!({ "AWS": principals });
        statement["Action"] = json!("es:ESHttpDelete");
        statement
    };
    let foreign = [scene.allows(&[&gone, &theirs]), deny(json!([gone, theirs]))];
    scene.others_write(&foreign);
    scene.add_domain(&json!({})).await;
    scene.until_domain_says("True", "Reconciled").await;
    let id = delete(&scene, "gone");
    look_again(&scene, 2).await;
    assert_eq!(sent(&scene), 0, "it is another's");
    scene.grant_to("grant", &ours).await;
    scene.until_ready(&["grant"]).await;
    let versions = scene.world.aws().versions(name);
    assert!(!versions.last().unwrap().submitted.contains(&id));
    scene
        .until_policy(&[scene.allows(&[&theirs, &ours]), deny(json!([theirs]))])
        .await;
    assert_eq!((sent(&scene), scene.updates()), (1, 1));
}

#[tokio::test]
async fn ids_of_others_roles_are_not_sent_back_where_aws_refuses_them() {
    ids_of_others("ids-refused", DomainOptions::default()).await;
}

#[tokio::test]
async fn ids_of_others_roles_are_not_sent_back_where_aws_takes_them() {
    ids_of_others("ids-taken", DomainOptions::default().takes_deleted()).await;
}
