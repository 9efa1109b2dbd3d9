//! A grant that cannot be is refused by itself, with the field and the reason; the others are not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_aws::DomainOptions;
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, World, together};

/// A grant that is refused: what it asks for, the reason, and words of the message.
type Bad = (&'static str, Value, &'static str, &'static [&'static str]);

/// Creates the bad grants beside a good one, and makes sure that it alone is applied.
async fn only_the_good_one_is_applied(scene: &Scene, bad: &[Bad]) {
    let good = scene.role("good");
    together(
        bad.iter()
            .map(|(name, spec, ..)| async { scene.grant(name, spec).await }),
    )
    .await;
    scene.grant_to("good", &good).await;
    scene.until_ready(&["good"]).await;
    for (name, _, reason, words) in bad {
        scene.until_refused(name, reason, words).await;
    }
    scene.until_policy(&[scene.allows(&[&good])]).await;
    assert_eq!(scene.updates(), 1);
    let refused = scene.domain().await["status"]["grants"]["refused"].clone();
    assert_eq!(refused, bad.len());
    for (name, ..) in bad {
        scene.delete_grant(name).await;
        scene.until_gone(name).await;
    }
    assert_eq!(scene.updates(), 1);
}

fn role(arn: &str) -> Value {
    json!([{"iamRole": {"arn": arn}}])
}

#[tokio::test]
async fn what_no_domain_could_grant_is_refused() {
    let scene = Scene::shared("impossible").await;
    let a = scene.role("a");
    let bad: [Bad; 5] = [
        (
            "partition",
            json!({"principals": role("arn:aws-cn:iam::111122223333:role/a")}),
            "InvalidSpec",
            &["spec.principals[0].iamRole.arn", "aws-cn", "partition"],
        ),
        (
            "service-account",
            json!({"principals": [{"serviceAccount": {"name": "search"}}]}),
            "OverCeiling",
            &["spec.principals[0].serviceAccount", "serviceAccounts"],
        ),
        (
            "security-roles",
            json!({"principals": role(&a), "securityRoles": ["reader"]}),
            "NoFineGrainedAccess",
            &["spec.securityRoles"],
        ),
        (
            "expired",
            json!({"principals": role(&a), "expiresAt": "2020-01-01T00:00:00Z"}),
            "Expired",
            &["spec.expiresAt", "2020-01-01T00:00:00Z"],
        ),
        (
            "halves",
            json!({"principals": [{"anonymous": {}}],
                "conditions": {"sourceIps": (0..=127).map(|it| format!("{}.0.0.0/8", it * 2)).collect::<Vec<_>>()}}),
            "PublicAccess",
            &["spec.conditions.sourceIps", "public"],
        ),
    ];
    only_the_good_one_is_applied(&scene, &bad).await;
}

#[tokio::test]
async fn what_the_ceiling_does_not_allow_is_refused() {
    let scene = Scene::bare("ceiling", DomainOptions::default()).await;
    let a = scene.role("a");
    let ceiling = json!({"anonymous": false, "identityPolicies": false, "maxDuration": "90d"});
    scene
        .add_domain(&json!({"consent": [scene.consent(&ceiling)]}))
        .await;
    let bad: [Bad; 7] = [
        (
            "account",
            json!({"principals": role("arn:aws:iam::444455556666:role/a")}),
            "OverCeiling",
            &["spec.principals[0].iamRole.arn", "444455556666"],
        ),
        (
            "whole-account",
            json!({"principals": [{"account": {"id": ACCOUNT}}]}),
            "OverCeiling",
            &["spec.principals[0].account.id", "wholeAccounts"],
        ),
        (
            "anonymous",
            json!({"principals": [{"anonymous": {}}], "conditions": {"sourceIps": ["203.0.113.7"]}}),
            "OverCeiling",
            &["spec.principals[0].anonymous", "unsigned"],
        ),
        (
            "source-ip",
            json!({"principals": role(&a), "conditions": {"sourceIps": ["203.0.113.7", "192.0.2.1"]}}),
            "OverCeiling",
            &["spec.conditions.sourceIps[1]", "192.0.2.1"],
        ),
        (
            "inline",
            json!({"principals": role(&a), "identityPolicy": "Attach"}),
            "OverCeiling",
            &["spec.identityPolicy"],
        ),
        (
            "too-long",
            json!({"principals": role(&a), "expiresAt": "2099-01-01T00:00:00Z"}),
            "OverCeiling",
            &["spec.expiresAt", "maxDuration"],
        ),
        (
            "cross-cluster",
            json!({"principals": role(&a), "access": null, "actions": ["es:ESCrossClusterGet"]}),
            "OverCeiling",
            &["spec.access", "es:ESCrossClusterGet"],
        ),
    ];
    only_the_good_one_is_applied(&scene, &bad).await;
}

#[tokio::test]
async fn paths_and_levels_beyond_the_ceiling_are_refused() {
    let scene = Scene::bare("paths", DomainOptions::default()).await;
    let a = scene.role("a");
    let ceiling = json!({"access": "Read", "paths": ["{{namespace}}-*"]});
    scene
        .add_domain(&json!({"consent": [scene.consent(&ceiling)]}))
        .await;
    let bad: [(&str, Value, &[&str]); 4] = [
        (
            "write",
            json!({"access": "ReadWrite", "paths": ["paths-a"]}),
            &["spec.access", "es:ESHttpPut"],
        ),
        ("all", json!({"access": "Read"}), &["spec.paths", "paths-*"]),
        (
            "another",
            json!({"access": "Read", "paths": ["paths-a", "other-*"]}),
            &["spec.paths[1]", "other-*"],
        ),
        (
            "wider",
            json!({"access": "Read", "paths": ["path*"]}),
            &["spec.paths[0]", "path*"],
        ),
    ];
    let with_role = |spec: &Value| {
        let mut spec = spec.clone();
        spec["principals"] = role(&a);
        spec
    };
    for (name, spec, _) in &bad {
        scene.grant(name, &with_role(spec)).await;
    }
    scene
        .grant(
            "good",
            &with_role(&json!({"access": "Read", "paths": ["paths-a*"]})),
        )
        .await;
    // The paths of this domain do not hold for every request, which is said and is no failure.
    scene.until_ready(&["good"]).await;
    for (name, _, words) in bad {
        scene.until_refused(name, "OverCeiling", words).await;
    }
    let granted = scene.policy();
    let ours = scene.resource("paths-a*");
    let scroll = scene.resource("_search/scroll");
    let outside = |line: &&String| !line.contains(&ours) && !line.contains(&scroll);
    assert!(
        !granted.is_empty() && !granted.iter().any(|line| outside(&line)),
        "{granted:#?}"
    );
}

#[tokio::test]
async fn paths_that_nothing_enforces_are_granted_with_a_warning() {
    let scene = Scene::shared("leaky").await;
    let a = scene.role("a");
    let spec = json!({"principals": role(&a), "access": "Read", "paths": ["leaky-a"]});
    scene.grant("paths", &spec).await;
    scene.grant_to("whole", &a).await;
    scene.until_ready(&["paths", "whole"]).await;
    let told = condition(&scene.get_grant("paths").await, "PathsEnforced");
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("False"), &json!("PathsNotEnforced"))
    );
    let told = condition(&scene.get_grant("whole").await, "PathsEnforced");
    assert_eq!(told, json!(null), "there is nothing to enforce");
}

#[tokio::test]
async fn the_youngest_grants_over_the_number_are_refused() {
    let scene = Scene::bare("number", DomainOptions::default()).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene
        .add_domain(&json!({"consent": [scene.consent(&json!({"maxGrants": 1}))]}))
        .await;
    scene.grant_to("z-first", &a).await;
    scene.until_ready(&["z-first"]).await;
    scene.grant_to("a-second", &b).await;
    scene
        .until_refused("a-second", "OverCeiling", &["maxGrants"])
        .await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.delete_grant("z-first").await;
    scene.until_ready(&["a-second"]).await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
}

#[tokio::test]
async fn addresses_on_a_domain_inside_a_vpc_are_refused() {
    let scene = Scene::bare("vpc", DomainOptions::default().vpc("vpc-0a1b2c3d")).await;
    scene.add_domain(&json!({})).await;
    let bad: [Bad; 1] = [(
        "office",
        json!({"principals": [{"anonymous": {}}], "conditions": {"sourceIps": ["203.0.113.7"]}}),
        "AddressesOnVpcDomain",
        &["spec.conditions.sourceIps", "security groups"],
    )];
    only_the_good_one_is_applied(&scene, &bad).await;
}

#[tokio::test]
async fn a_role_that_iam_lacks_refuses_its_own_grant_until_it_is_there() {
    let scene = Scene::shared("missing").await;
    let (a, late) = (scene.role("a"), scene.arn("late"));
    scene.grant_to("good", &a).await;
    scene.grant_to("early", &late).await;
    let words = ["spec.principals[0].iamRole.arn", &late, "create it"];
    scene
        .until_refused("early", "PrincipalNotFound", &words)
        .await;
    scene.until_ready(&["good"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    assert_eq!(scene.updates(), 1);
    scene.role("late");
    scene.until_ready(&["early"]).await;
    scene.until_policy(&[scene.allows(&[&a, &late])]).await;
}

#[tokio::test]
async fn a_role_that_other_services_do_not_know_yet_delays_nobody_else() {
    let world = World::start().await;
    let scene = Scene::in_world(world, "unknown-yet", DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    let a = scene.role("a");
    let aws = scene.world.aws();
    aws.principals_propagate_in(Duration::from_secs(20));
    let new = scene.role("new");
    scene.grant_to("new", &new).await;
    scene.grant_to("known", &a).await;
    scene.until_ready(&["known", "new"]).await;
    let alone = crate::common::operator::meaning::of_statements(&[scene.allows(&[&a])]);
    assert!(scene.history().contains(&alone), "{:#?}", scene.history());
    scene.until_policy(&[scene.allows(&[&a, &new])]).await;
}

#[tokio::test]
async fn a_role_under_another_path_is_not_the_one_that_is_named() {
    let scene = Scene::shared("role-path").await;
    let options = crate::common::fake_aws::RoleOptions::default().path("/team/");
    scene
        .world
        .aws()
        .account(ACCOUNT)
        .role_with("role-path-a", options);
    scene.grant_to("wrong", &scene.arn("a")).await;
    scene
        .until_refused("wrong", "PrincipalNotFound", &["path included"])
        .await;
    let right = format!("arn:aws:iam::{ACCOUNT}:role/team/role-path-a");
    scene.grant_to("right", &right).await;
    scene.until_ready(&["right"]).await;
    scene.until_policy(&[scene.allows(&[&right])]).await;
}

#[tokio::test]
async fn a_role_of_another_account_that_does_not_exist_blocks_neither_grants_nor_revocations() {
    const OTHER: &str = "444455556666";
    let scene = Scene::bare("poison", DomainOptions::default()).await;
    let aws = scene.world.aws();
    aws.account(OTHER).role("poison-there");
    let accounts = json!({"principals": {"accounts": [ACCOUNT, OTHER]}});
    scene
        .add_domain(&json!({"consent": [scene.consent(&accounts)]}))
        .await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let there = format!("arn:aws:iam::{OTHER}:role/poison-there");
    let nobody = format!("arn:aws:iam::{OTHER}:role/nobody");
    scene.grant_to("goes", &a).await;
    scene.until_ready(&["goes"]).await;

    scene.grant_to("poison", &nobody).await;
    scene.grant_to("good", &b).await;
    scene.grant_to("there", &there).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_ready(&["good", "there"]).await;
    scene.until_policy(&[scene.allows(&[&b, &there])]).await;
    let words = ["spec.principals[0].iamRole.arn", &nobody];
    scene
        .until_refused("poison", "PrincipalNotFound", &words)
        .await;

    // And it heals by itself.
    aws.account(OTHER).role("nobody");
    scene.until_ready(&["poison"]).await;
    scene
        .until_policy(&[scene.allows(&[&b, &there, &nobody])])
        .await;
}
