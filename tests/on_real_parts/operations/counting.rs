//! Metrics, readiness and logs tell what happened, and no secrets.

use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::json;

use super::own;
use crate::common::fake_aws::{DomainOptions, Fault, Period, RoleOptions, Times};
use crate::common::operator::replica::Replica;
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, OPERATOR_NAMESPACE, PATIENCE, REGION, World};
use crate::common::process::send;

const OTHER: &str = "444455556666";

/// Has the operator look at the domain now rather than in its interval.
async fn look_again(scene: &Scene, interval: &str) {
    let spec = json!({"interval": interval});
    scene.change_domain(&json!({"spec": spec})).await;
}

#[tokio::test]
async fn what_happens_is_counted() {
    let scene = own("figures").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let operator = Replica::start(&scene.world, "figures").await;
    scene.grant_to("one", &a).await;
    scene.grant_to("two", &b).await;
    scene.grant_to("missing", &scene.arn("missing")).await;
    let strange = "arn:aws:iam::999999999999:role/strange";
    scene.grant_to("strange", strange).await;
    scene.until_ready(&["one", "two"]).await;
    scene
        .until_says("missing", "False", "PrincipalNotFound")
        .await;
    scene.until_says("strange", "False", "OverCeiling").await;
    let bytes = f64::from(u32::try_from(scene.world.aws().policy("figures").len()).unwrap());
    operator
        .until_metrics(&[
            ("leader", 1.0),
            ("grants{state=\"applied\"}", 2.0),
            ("grants{state=\"pending\"}", 0.0),
            ("grants{state=\"refused\"}", 2.0),
            ("grants_refused{reason=\"PrincipalNotFound\"}", 1.0),
            ("grants_refused{reason=\"OverCeiling\"}", 1.0),
            ("policy_writes_total{outcome=\"written\"}", 1.0),
            (
                "aws_calls_total{operation=\"UpdateDomainConfig\",code=\"OK\"}",
                1.0,
            ),
            (
                "aws_calls_total{operation=\"GetCallerIdentity\",code=\"OK\"}",
                1.0,
            ),
            ("largest_policy_bytes", bytes),
            ("policy_budget_bytes", 97_280.0),
            ("quarantined_principals", 0.0),
            ("drift_total", 0.0),
            ("reconciles_total{outcome=\"failed\"}", 0.0),
        ])
        .await;
    // It is the last thing that a reconcile counts before itself.
    let look = async || {
        let metrics = operator.metrics().await;
        if metrics["last_success_timestamp_seconds"] > 0.0 {
            Ok(metrics)
        } else {
            Err(format!("{metrics:?}"))
        }
    };
    let what = "a domain is in order";
    let metrics = scene.world.eventually(what, PATIENCE, look).await;
    let succeeded = metrics["last_success_timestamp_seconds"];
    let age = Timestamp::now().as_duration().as_secs_f64() - succeeded;
    assert!((0.0..60.0).contains(&age), "{age} s ago");
    let counted = metrics["reconcile_duration_seconds_count"];
    assert!((counted - metrics["reconciles_total{outcome=\"ok\"}"]).abs() < 1e-6);
    let text = operator.get("/metrics").await.unwrap().1;
    for name in ["figures", "missing", ACCOUNT] {
        assert!(!text.contains(name), "{name} is in {text}");
    }

    // Drift: somebody takes what is ours.
    scene.others_write(&[scene.allows(&[&scene.role("theirs")])]);
    look_again(&scene, "11s").await;
    scene
        .until_policy(&[
            scene.allows(&[&a, &b]),
            scene.allows(&[&scene.arn("theirs")]),
        ])
        .await;
    operator
        .until_metrics(&[
            ("drift_total", 1.0),
            ("policy_writes_total{outcome=\"written\"}", 2.0),
        ])
        .await;

    // Failures: a write that is denied, and a read that is throttled, which the SDK does not repeat.
    let faults = scene.world.aws().faults();
    faults.inject("UpdateDomainConfig", Fault::AccessDenied, Times::Exactly(1));
    scene.grant_to("three", &scene.role("c")).await;
    scene.until_ready(&["three"]).await;
    faults.inject("DescribeDomain", Fault::Throttle, Times::Exactly(1));
    look_again(&scene, "12s").await;
    operator
        .until_metrics(&[
            ("policy_writes_total{outcome=\"failed\"}", 1.0),
            ("policy_writes_total{outcome=\"written\"}", 3.0),
            (
                "aws_calls_total{operation=\"UpdateDomainConfig\",code=\"AccessDeniedException\"}",
                1.0,
            ),
            (
                "aws_calls_total{operation=\"DescribeDomain\",code=\"ThrottlingException\"}",
                1.0,
            ),
            ("reconciles_total{outcome=\"failed\"}", 1.0),
            ("reconciles_total{outcome=\"waiting\"}", 1.0),
            ("drift_total", 1.0),
        ])
        .await;

    operator.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_change_of_the_domain_is_counted() {
    let scene = own("waiting").await;
    let operator = Replica::start(&scene.world, "waiting").await;
    let domain = scene.world.aws().domain("waiting");
    domain.processing(Period::UntilFinished);
    scene.grant_to("one", &scene.role("a")).await;
    let pending = ("grants{state=\"pending\"}", 1.0);
    operator.until_metrics(&[pending]).await;
    scene.until_says("one", "False", "Pending").await;
    // From now on the domain says Active before it takes another change.
    domain.processing(Period::Calls(1));
    domain.lag(Period::Calls(1));
    domain.finish_change();
    scene.until_ready(&["one"]).await;
    for (name, role) in [("two", "b"), ("three", "c")] {
        scene.grant_to(name, &scene.role(role)).await;
        scene.until_ready(&[name]).await;
    }
    let metrics = operator.metrics().await;
    let postponed = metrics["policy_writes_total{outcome=\"postponed\"}"];
    let refused =
        metrics["aws_calls_total{operation=\"UpdateDomainConfig\",code=\"ValidationException\"}"];
    assert!(postponed > 0.0 && refused > 0.0, "{metrics:?}");
    operator.stop().await;
}

#[tokio::test]
async fn who_is_quarantined_is_counted_and_what_is_gone_is_not() {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, "quarantine", DomainOptions::default()).await;
    let accounts = json!({"principals": {"accounts": [ACCOUNT, OTHER]}});
    scene
        .add_domain(&json!({"consent": [scene.consent(&accounts)]}))
        .await;
    let operator = Replica::start(&scene.world, "quarantine").await;
    scene.grant_to("one", &scene.role("a")).await;
    scene.world.aws().account(OTHER);
    let nobody = format!("arn:aws:iam::{OTHER}:role/nobody");
    scene.grant_to("nobody", &nobody).await;
    scene
        .until_says("nobody", "False", "PrincipalNotFound")
        .await;
    operator
        .until_metrics(&[
            ("quarantined_principals", 1.0),
            ("grants_refused{reason=\"PrincipalNotFound\"}", 1.0),
            ("grants{state=\"applied\"}", 1.0),
        ])
        .await;

    let calls = scene.world.aws().calls_of("UpdateDomainConfig");
    let refused = calls.iter().filter(|call| call.status != Some(200)).count();
    let refused = f64::from(u32::try_from(refused).unwrap());
    let code = "aws_calls_total{operation=\"UpdateDomainConfig\",code=\"InvalidTypeException\"}";
    let outcome = "policy_writes_total{outcome=\"refused\"}";
    assert!(refused >= 1.0);
    operator
        .until_metrics(&[(code, refused), (outcome, refused)])
        .await;

    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    operator
        .until_metrics(&[
            ("grants{state=\"applied\"}", 0.0),
            ("grants{state=\"refused\"}", 0.0),
            ("grants_refused{reason=\"PrincipalNotFound\"}", 0.0),
            ("quarantined_principals", 0.0),
            ("largest_policy_bytes", 0.0),
        ])
        .await;
    operator.stop().await;
}

#[tokio::test]
async fn an_operator_is_ready_once_it_has_seen_the_cluster() {
    let scene = own("unseen").await;
    let [_, apiserver] = scene.world.cluster().process_ids();
    send(apiserver, "STOP").unwrap();
    let operator = Replica::start(&scene.world, "unseen").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for (path, wanted) in [("/healthz", 200), ("/readyz", 503), ("/other", 404)] {
        assert_eq!(operator.get(path).await.unwrap().0, wanted, "{path}");
    }
    send(apiserver, "CONT").unwrap();
    operator.until_readyz(200).await;
    operator.until_leads().await;
    operator.stop().await;
}

#[tokio::test]
async fn no_secret_is_logged_or_shown_whatever_is_asked_for() {
    let world = World::without_operator().await;
    let aws = world.aws();
    let trusted = RoleOptions::default().trusts(ACCOUNT).external_id("word");
    aws.account(OTHER).role_with("operator", trusted).role("a");
    aws.account(OTHER).domain("traced", REGION);
    world.namespace("traced", &json!({})).await;
    let scene = Scene::of(world, "traced").of_account(OTHER);
    let ceiling = scene.consent(&json!({"principals": {"accounts": [OTHER]}}));
    let role = json!({"arn": format!("arn:aws:iam::{OTHER}:role/operator"), "externalId": "word"});
    let spec = json!({"accountId": OTHER, "assumeRole": role, "consent": [ceiling]});
    scene.add_domain(&spec).await;
    let directives = [
        "trace",
        "aws_runtime=trace",
        "aws_sigv4::http_request=trace",
        "aws_smithy_runtime::client::orchestrator=trace",
        "hyper::proto::h1=trace",
        "hyper_util::client=trace",
    ];
    let log = ["--log", &directives.join(",")];
    let operator = Replica::start_with(&scene.world, "traced", &log).await;
    let a = format!("arn:aws:iam::{OTHER}:role/a");
    let principals = json!([{"iamRole": {"arn": a}}]);
    scene
        .grant(
            "one",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    scene.until_ready(&["one"]).await;
    scene.delete_grant("one").await;
    scene.until_gone("one").await;
    let assumed = "aws_calls_total{operation=\"AssumeRole\",code=\"OK\"}";
    assert!(operator.metrics().await[assumed] >= 1.0);
    // What AWS says on failure is shown: not more than that.
    scene.world.aws().expire_sessions();
    let faults = scene.world.aws().faults();
    faults.inject("UpdateDomainConfig", Fault::AccessDenied, Times::Exactly(1));
    scene.grant_to("two", &a).await;
    scene.until_ready(&["two"]).await;
    let mut shown = vec![operator.get("/metrics").await.unwrap().1];
    for (kind, namespace) in [
        ("Event", None),
        ("ConfigMap", Some(OPERATOR_NAMESPACE)),
        ("OpenSearchDomain", None),
        ("DomainAccess", None),
    ] {
        let objects = scene.world.api(kind, namespace);
        let objects = objects.list(&ListParams::default()).await.unwrap();
        assert!(!objects.items.is_empty(), "no {kind}");
        shown.push(serde_json::to_string(&objects).unwrap());
    }
    let mut secrets = scene.world.aws().secrets();
    secrets.extend(["AWS4-HMAC-SHA256", "Signature="].map(str::to_owned));
    assert!(secrets.len() > 4, "keys of a user and of a session");
    let told = |secret: &&String| shown.iter().any(|text| text.contains(secret.as_str()));
    assert_eq!(secrets.iter().find(told), None);
    operator.stop().await;
    let log = scene.world.log();
    assert!(log.contains("TRACE"), "nothing was traced");
    // The SDK redacts much by itself, but bodies hold whole policies.
    for library in ["aws_sigv4::", "aws_smithy_runtime::", " hyper_util::"] {
        let told = |line: &&str| line.contains(library) && !line.contains(" WARN ");
        assert_eq!(log.lines().find(told), None, "{library}");
    }
    // Dropping the world searches the log for every secret and token that AWS gave out.
}
