//! The operator works in the account that a domain names, or not at all.

use serde_json::json;

use crate::common::fake_aws::{DomainOptions, RoleOptions};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, REGION, World, meaning, together};

const OTHER: &str = "444455556666";

#[tokio::test]
async fn a_domain_of_another_account_is_not_touched_without_a_role_there() {
    // A domain of the same name is in the operator's own account.
    let scene = Scene::bare("mismatch", DomainOptions::default()).await;
    scene.add_domain(&json!({"accountId": OTHER})).await;
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_domain_says("False", "DomainMismatch").await;
    for word in [ACCOUNT, OTHER, "spec.assumeRole"] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let message = scene.until_says("grant", "False", "DomainMismatch").await;
    assert!(message.contains("domain mismatch"), "{message}");
    assert_eq!(scene.updates(), 0);
}

#[tokio::test]
async fn a_domain_of_another_account_is_reached_through_a_role_and_its_external_id() {
    let world = World::shared().await;
    let aws = world.aws();
    let trusted = RoleOptions::default()
        .trusts(ACCOUNT)
        .external_id("a-shared-word");
    aws.account(OTHER)
        .role_with("opensearch-access", trusted)
        .role("reader");
    aws.account(OTHER).domain("reached", REGION);
    world.namespace("reached", &json!({})).await;
    let scene = Scene::of(world, "reached").of_account(OTHER);
    let role = format!("arn:aws:iam::{OTHER}:role/opensearch-access");
    let ceiling = scene.consent(&json!({"principals": {"accounts": [OTHER]}}));
    let wrong = json!({"arn": role, "externalId": "another-word"});
    scene
        .add_domain(&json!({"accountId": OTHER, "assumeRole": wrong, "consent": [ceiling]}))
        .await;
    let message = scene.until_domain_says("False", "AccessDenied").await;
    assert!(
        message.contains("AssumeRole") && message.contains(&role),
        "{message}"
    );
    assert!(!message.contains("another-word"), "{message}");

    let right = json!({"spec": {"assumeRole": {"externalId": "a-shared-word"}}});
    scene.change_domain(&right).await;
    let reader = format!("arn:aws:iam::{OTHER}:role/reader");
    scene.grant_to("grant", &reader).await;
    scene.until_ready(&["grant"]).await;
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": reader}, "Action": "es:*",
        "Resource": format!("arn:aws:es:{REGION}:{OTHER}:domain/reached/*")});
    assert_eq!(scene.policy(), meaning::of_statements(&[statement]));
    let session =
        format!("arn:aws:sts::{OTHER}:assumed-role/opensearch-access/opensearch-access.reached");
    let calls = scene.world.aws().calls();
    let on_domain: Vec<_> = calls
        .iter()
        .filter(|it| it.domain.as_deref() == Some("reached"))
        .collect();
    assert!(!on_domain.is_empty());
    for call in on_domain {
        assert_eq!(call.caller_arn, session, "{call:?}");
    }
}

#[tokio::test]
async fn a_domain_that_aws_does_not_know_is_named_and_holds_nothing_back() {
    let scene = Scene::bare("unknown", DomainOptions::default()).await;
    let scene = scene.unjudged("a domain that AWS does not have");
    scene.world.aws().domain("unknown").delete();
    scene.add_domain(&json!({"deletionPolicy": "Revoke"})).await;
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_domain_says("False", "DomainNotFound").await;
    for word in ["unknown", REGION, ACCOUNT] {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    scene.until_says("grant", "False", "DomainNotFound").await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
}

#[tokio::test]
async fn a_domain_that_is_deleted_in_aws_lets_its_grants_and_its_object_go() {
    let scene = Scene::bare("vanished", DomainOptions::default()).await;
    let scene = scene.unjudged("a domain that AWS does not have");
    scene.add_domain(&json!({"deletionPolicy": "Revoke"})).await;
    let principals = json!([{"iamRole": {"arn": scene.role("a")}}]);
    scene
        .grant(
            "grant",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene.until_ready(&["grant"]).await;
    scene.world.aws().domain("vanished").delete();
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    let left = scene
        .world
        .aws()
        .role_policies(ACCOUNT, &scene.role_name("a"));
    assert!(left.is_empty(), "{left:?}");
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
}

#[tokio::test]
async fn domains_of_one_name_in_several_accounts_and_regions_are_never_mixed_up() {
    const ACCOUNTS: [&str; 3] = ["555566667771", "555566667772", "555566667773"];
    const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
    let world = World::shared().await;
    world.namespace("mixed", &json!({})).await;
    let scene = Scene::of(world, "mixed").unjudged("six domains, judged below");
    let aws = scene.world.aws();
    let role = |account: &str, name: &str| format!("arn:aws:iam::{account}:role/{name}");
    let mut places = Vec::new();
    for account in ACCOUNTS {
        let trusted = RoleOptions::default().trusts(ACCOUNT).external_id(account);
        aws.account(account)
            .role_with("operator", trusted)
            .role("first")
            .role("second");
        for region in REGIONS {
            aws.account(account).domain("mixed", region);
            places.push((account, region, format!("mixed-{account}-{region}")));
        }
    }
    let each = |(account, region, name): &(&str, &str, String)| {
        let ceiling = scene.consent(&json!({"principals": {"accounts": [account]}}));
        let assumed = json!({"arn": role(account, "operator"), "externalId": account});
        let domain = json!({
            "apiVersion": "opensearch-access.io/v1alpha1",
            "kind": "OpenSearchDomain",
            "metadata": {"name": name},
            "spec": {"domainName": "mixed", "accountId": account, "region": region,
                "interval": "10s", "assumeRole": assumed, "consent": [ceiling]},
        });
        let grant = |which: &str| {
            let spec = json!({"domainRef": {"name": name},
                "principals": [{"iamRole": {"arn": role(account, which)}}]});
            (format!("{which}-{name}"), spec)
        };
        (domain, [grant("first"), grant("second")])
    };
    let all: Vec<_> = places.iter().map(each).collect();
    // All at the same time, and then everything once more.
    together(all.iter().map(async |(domain, grants)| {
        scene.world.create(domain).await.unwrap();
        for (name, spec) in grants {
            scene.grant(name, spec).await;
        }
    }))
    .await;
    for (_, grants) in &all {
        scene.until_ready(&[&grants[0].0, &grants[1].0]).await;
    }
    for access in ["ReadWrite", "Read", "Admin", "ReadWrite", "Read"] {
        together(all.iter().map(async |(_, grants)| {
            let changed = json!({"spec": {"access": access}});
            scene.change_grant(&grants[0].0, &changed).await;
        }))
        .await;
        for (_, grants) in &all {
            scene.until_ready(&[&grants[0].0]).await;
        }
    }
    together(all.iter().map(async |(_, grants)| {
        scene.delete_grant(&grants[1].0).await;
    }))
    .await;
    for (_, grants) in &all {
        scene.until_ready(&[&grants[0].0]).await;
        scene.until_gone(&grants[1].0).await;
    }

    let calls = aws.calls();
    for (account, region, _) in &places {
        let arn = format!("arn:aws:es:{region}:{account}:domain/mixed");
        let policy = aws.policy(&arn);
        assert!(policy.contains(&role(account, "first")), "{policy}");
        // Every version ever written names this account alone, and was written by its own session.
        for version in aws.versions(&arn) {
            let others = ACCOUNTS.iter().filter(|other| *other != account);
            for other in others {
                let document = &version.document;
                assert!(!document.contains(other), "{other} on {arn}: {document}");
            }
            let writer = format!("arn:aws:sts::{account}:");
            let written = version.caller_arn.starts_with(&writer);
            assert!(written || version.document.is_empty(), "{arn}: {version:?}");
        }
        let session =
            format!("arn:aws:sts::{account}:assumed-role/operator/opensearch-access.mixed");
        let of_domain = calls
            .iter()
            .filter(|call| call.domain.as_deref() == Some("mixed") && call.region == *region);
        let by_session = of_domain.filter(|call| call.caller_arn == session).count();
        assert!(by_session > 4, "{by_session} calls on {arn}");
    }
    // With another's credentials the domain would not have been found, or not been this one.
    let on_domain = || {
        calls
            .iter()
            .filter(|call| call.domain.as_deref() == Some("mixed"))
    };
    for call in on_domain() {
        assert!(ACCOUNTS.contains(&call.account.as_str()), "{call:?}");
        assert!(matches!(call.status, Some(200)), "{call:?}");
    }
}
