//! A service account is granted access by the role that AWS says is its own, and by no other.

#![allow(
    clippy::unwrap_used,
    reason = "an expectation that fails here is a failed test"
)]

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::common::fake_aws::{DomainOptions, Fault, NewAssociation, Times};
use crate::common::operator::replica::Replica;
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, CLUSTER, IN_CLUSTER, OPERATOR_NAMESPACE, REGION, World};

const OTHER: &str = "444455556666";
const ANNOTATION: &str = "eks.amazonaws.com/role-arn";

/// Sets up a domain that nobody has consented on. Who proves the role of a service account is more
/// than the oracle knows.
async fn bare(name: &'static str) -> Scene {
    let scene = Scene::bare(name, DomainOptions::default()).await;
    scene.unjudged("service accounts")
}

/// Sets up a domain whose consent is for service accounts and for no principal by name.
async fn scene(name: &'static str) -> Scene {
    let scene = bare(name).await;
    consent(&scene, &json!({"accounts": null, "serviceAccounts": true})).await;
    scene
}

/// Creates the `OpenSearchDomain` with a ceiling for principals, changed by a merge patch.
async fn consent(scene: &Scene, principals: &Value) {
    let entry = scene.consent(&json!({ "principals": principals }));
    scene.add_domain(&json!({ "consent": [entry] })).await;
}

impl Scene {
    async fn account(&self, name: &str, role: Option<&str>) {
        let annotations = role.map_or(json!({}), |role| json!({ ANNOTATION: role }));
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": self.name, "annotations": annotations},
        });
        self.world.create(&manifest).await.unwrap();
    }

    async fn annotate(&self, name: &str, role: Option<&str>) {
        let patch = json!({"metadata": {"annotations": { ANNOTATION: role }}});
        self.world
            .change("ServiceAccount", Some(self.name), name, &patch)
            .await;
    }

    async fn delete_account(&self, name: &str) {
        let accounts = self.world.api("ServiceAccount", Some(self.name));
        accounts
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    fn associate(&self, account: &str, role: &str, target: Option<&str>) -> String {
        let new = NewAssociation {
            namespace: self.name.to_owned(),
            service_account: account.to_owned(),
            role: role.to_owned(),
            target_role: target.map(str::to_owned),
            policy: None,
        };
        let aws = self.world.aws();
        aws.account(ACCOUNT).associate(REGION, CLUSTER, new)
    }

    /// Creates a role that a service account of a namespace may assume.
    fn trusting(&self, role: &str, namespace: &str, account: &str) -> String {
        let arn = self.role(role);
        self.trust(role, namespace, account);
        arn
    }

    fn trust(&self, role: &str, namespace: &str, account: &str) {
        let aws = self.world.aws();
        let issuer = self.issuer();
        let document = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}")},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {
                format!("{issuer}:sub"): format!("system:serviceaccount:{namespace}:{account}"),
                format!("{issuer}:aud"): "sts.amazonaws.com",
            }},
        }]});
        aws.set_trust(ACCOUNT, &self.role_name(role), &document);
    }

    fn issuer(&self) -> String {
        let issuer = self.world.aws().issuer(ACCOUNT, REGION, CLUSTER);
        issuer.trim_start_matches("https://").to_owned()
    }

    /// Creates a grant of the whole domain to a service account.
    async fn grant_to_account(&self, name: &str, account: &str) {
        self.grant(
            name,
            &json!({"principals": [{"serviceAccount": {"name": account}}]}),
        )
        .await;
    }

    /// Waits until the grant's status shows a role for its one service account.
    async fn until_shown(&self, grant: &str, account: &str, role: &str, source: &str) {
        let wanted = json!([{"name": account, "roleArn": role, "source": source}]);
        let look = async || match self.get_grant(grant).await["status"]["serviceAccounts"].clone() {
            shown if shown == wanted => Ok(()),
            shown => Err(format!("{shown:#}")),
        };
        let patience = crate::common::operator::PATIENCE;
        self.world
            .eventually("the role is shown", patience, look)
            .await;
    }
}

#[tokio::test]
async fn an_association_wins_over_the_annotation_and_its_target_over_its_role() {
    let scene = scene("associated").await;
    let (a, b, c) = (
        scene.role("a"),
        scene.trusting("b", "associated", "search"),
        scene.role("c"),
    );
    scene.account("search", Some(&b)).await;
    let association = scene.associate("search", &a, None);
    scene.grant_to_account("grant", "search").await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    let source = "PodIdentityAssociation";
    scene.until_shown("grant", "search", &a, source).await;

    let aws = scene.world.aws();
    aws.change_association(&association, &a, Some(&c));
    scene.until_policy(&[scene.allows(&[&c])]).await;
    scene.until_shown("grant", "search", &c, source).await;
    aws.dissociate(&association);
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.until_shown("grant", "search", &b, "Annotation").await;

    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    scene.until_policy(&[]).await;
}

#[tokio::test]
async fn an_annotation_is_proven_by_the_trust_policy_for_as_long_as_that_stands() {
    let scene = scene("annotated").await;
    let a = scene.trusting("a", "annotated", "search");
    scene.account("search", Some(&a)).await;
    scene.grant_to_account("grant", "search").await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.until_shown("grant", "search", &a, "Annotation").await;

    scene.trust("a", "another", "search");
    scene.until_policy(&[]).await;
    let words = [
        "serviceAccount",
        &a,
        "system:serviceaccount:annotated:search",
    ];
    scene.until_refused("grant", "TrustNotProven", &words).await;
    let shown = scene.get_grant("grant").await["status"]["serviceAccounts"].clone();
    assert_eq!(shown, Value::Null);
    scene.trust("a", "annotated", "search");
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn an_annotation_by_itself_grants_nothing_and_tells_nothing() {
    let scene = bare("claimed").await;
    // Even a ceiling that lets the namespace name every role of the account.
    consent(&scene, &json!({"serviceAccounts": true})).await;
    let victim = scene.trusting("victim", "another-team", "search");
    let own = scene.role("own");
    let nobody = scene.arn("nobody");
    for (name, role) in [
        ("theirs", &victim),
        ("nobodys", &nobody),
        ("untrusting", &own),
    ] {
        scene.account(name, Some(role)).await;
        scene.grant_to_account(name, name).await;
    }
    scene
        .account("odd", Some("arn:aws:iam::111122223333:role/*"))
        .await;
    scene.grant_to_account("odd", "odd").await;
    scene.account("bare", None).await;
    scene.grant_to_account("bare", "bare").await;
    scene.grant_to_account("missing", "missing").await;

    let issuer = scene.issuer();
    let words = [&victim, "does not exist or", &issuer, "oidc-provider"];
    scene
        .until_refused("theirs", "TrustNotProven", &words)
        .await;
    scene
        .until_refused("untrusting", "TrustNotProven", &[&own])
        .await;
    scene
        .until_refused("nobodys", "TrustNotProven", &[&nobody])
        .await;
    let words = ["spec.principals[0].serviceAccount", "odd", "no wildcards"];
    scene.until_refused("odd", "RoleNotResolved", &words).await;
    let words = ["bare", ANNOTATION, "Pod Identity association", CLUSTER];
    scene.until_refused("bare", "RoleNotResolved", &words).await;
    let words = ["missing", "claimed", "create it"];
    scene
        .until_refused("missing", "ServiceAccountNotFound", &words)
        .await;
    assert_eq!(scene.updates(), 0);

    // Whether a role exists is not told either.
    let message = async |grant: &str, role: &str| {
        let ready = condition(&scene.get_grant(grant).await, "Ready");
        let message = ready["message"].as_str().unwrap().to_owned();
        message.replace(role, "ROLE").replace(grant, "NAME")
    };
    assert_eq!(
        message("theirs", &victim).await,
        message("nobodys", &nobody).await
    );
    let accepted = condition(&scene.get_grant("theirs").await, "Accepted");
    let resolved = condition(&scene.get_grant("theirs").await, "ResolvedRefs");
    assert_eq!(
        (&accepted["status"], &resolved["status"]),
        (&json!("True"), &json!("False"))
    );
}

#[tokio::test]
async fn a_grant_follows_its_service_account() {
    let scene = scene("followed").await;
    let a = scene.trusting("a", "followed", "search");
    let b = scene.trusting("b", "followed", "search");
    let theirs = scene.trusting("theirs", "another-team", "search");
    scene.grant_to_account("grant", "search").await;
    scene
        .until_refused("grant", "ServiceAccountNotFound", &["search"])
        .await;
    scene.account("search", Some(&a)).await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.annotate("search", Some(&b)).await;
    scene.until_policy(&[scene.allows(&[&b])]).await;
    scene.annotate("search", Some(&theirs)).await;
    scene.until_policy(&[]).await;
    scene
        .until_refused("grant", "TrustNotProven", &[&theirs])
        .await;
    scene.annotate("search", Some(&a)).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.delete_account("search").await;
    scene.until_policy(&[]).await;
    scene
        .until_refused("grant", "ServiceAccountNotFound", &["search"])
        .await;
    // No version ever had two of the roles, or the one that is another team's.
    let alone: Vec<_> = [&a, &b]
        .map(|role| crate::common::operator::meaning::of_statements(&[scene.allows(&[role])]))
        .into();
    for version in scene.history() {
        assert!(
            version.is_empty() || alone.contains(&version),
            "{version:#?}"
        );
    }
}

#[tokio::test]
async fn service_accounts_need_the_ceilings_word() {
    let scene = bare("unheard").await;
    consent(&scene, &json!({})).await;
    let a = scene.trusting("a", "unheard", "search");
    scene.account("search", Some(&a)).await;
    scene.grant_to_account("grant", "search").await;
    let words = [
        "spec.principals[0].serviceAccount",
        "principals.serviceAccounts",
    ];
    scene.until_refused("grant", "OverCeiling", &words).await;
    assert_eq!(scene.updates(), 0);
    // Nor is AWS asked for whoever may not.
    let asked = scene.world.aws().calls_of("ListPodIdentityAssociations");
    assert!(asked.iter().all(|it| it.body["namespace"] != "unheard"));

    let allowed = scene.consent(&json!({"principals": {"serviceAccounts": true}}));
    scene
        .change_domain(&json!({"spec": {"consent": [allowed]}}))
        .await;
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
    let again = scene.consent(&json!({}));
    scene
        .change_domain(&json!({"spec": {"consent": [again]}}))
        .await;
    scene.until_refused("grant", "OverCeiling", &words).await;
    scene.until_policy(&[]).await;
}

#[tokio::test]
async fn a_forged_finalizer_holds_nobody_back() {
    let scene = Scene::bare("forged", DomainOptions::default()).await;
    let manifest = json!({
        "apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "DomainAccess",
        "metadata": {"name": "forger", "namespace": "forged",
            "finalizers": ["opensearch-access.io/revoke"]},
        "spec": {"domainRef": {"name": "forged"}, "access": "Admin",
            "principals": [{"serviceAccount": {"name": "search"}}]},
    });
    scene.world.create(&manifest).await.unwrap();
    let a = scene.role("a");
    scene.grant_to("other", &a).await;
    // No service account may be named, so none is looked up, and there is no record yet.
    consent(&scene, &json!({})).await;
    scene.until_ready(&["other"]).await;
    let words = ["principals.serviceAccounts"];
    scene.until_refused("forger", "OverCeiling", &words).await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn a_role_of_another_account_needs_an_association_or_the_ceilings_word() {
    let scene = scene("abroad").await;
    let (near, far) = (
        format!("arn:aws:iam::{OTHER}:role/abroad-near"),
        format!("arn:aws:iam::{OTHER}:role/abroad-far"),
    );
    let aws = scene.world.aws();
    aws.account(OTHER).role("abroad-near").role("abroad-far");
    let own = scene.role("own");
    scene.account("associated", None).await;
    scene.associate("associated", &own, Some(&near));
    scene.account("annotated", Some(&far)).await;
    scene.grant_to_account("associated", "associated").await;
    scene.grant_to_account("annotated", "annotated").await;
    scene.until_ready(&["associated"]).await;
    let words = [far.as_str(), "another account", "principals.accounts"];
    scene
        .until_refused("annotated", "OverCeiling", &words)
        .await;
    scene.until_policy(&[scene.allows(&[&near])]).await;

    let principals = json!({"accounts": null, "arns": [far], "serviceAccounts": true});
    let exactly = scene.consent(&json!({ "principals": principals }));
    scene
        .change_domain(&json!({"spec": {"consent": [exactly]}}))
        .await;
    scene.until_ready(&["annotated"]).await;
    scene.until_policy(&[scene.allows(&[&near, &far])]).await;
}

#[tokio::test]
async fn an_inline_policy_is_attached_to_the_role_and_moves_with_it() {
    let scene = scene("attached").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let aws = scene.world.aws();
    scene.account("search", None).await;
    let association = scene.associate("search", &a, None);
    let principals = json!([{"serviceAccount": {"name": "search"}}]);
    let attach = json!({"principals": principals, "identityPolicy": "Attach"});
    scene.grant("grant", &attach).await;
    scene.until_ready(&["grant"]).await;
    let attached = |role: &str| aws.role_policies(ACCOUNT, &scene.role_name(role)).len();
    assert_eq!((attached("a"), attached("b")), (1, 0));

    aws.change_association(&association, &b, None);
    scene.until_policy(&[scene.allows(&[&b])]).await;
    let look = async || match (attached("a"), attached("b")) {
        (0, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let patience = crate::common::operator::PATIENCE;
    let moved = scene.world.eventually("the policy moved", patience, look);
    moved.await;

    let far = format!("arn:aws:iam::{OTHER}:role/elsewhere");
    aws.change_association(&association, &a, Some(&far));
    let words = ["spec.identityPolicy", "another account"];
    scene.until_refused("grant", "InvalidSpec", &words).await;
    scene.until_policy(&[]).await;
    scene.delete_grant("grant").await;
    scene.until_gone("grant").await;
    assert_eq!((attached("a"), attached("b")), (0, 0));
}

#[tokio::test]
async fn without_an_answer_of_eks_what_stands_stays_and_nothing_is_added() {
    let world = World::start().await;
    let scene = Scene::in_world(world, "silent", DomainOptions::default()).await;
    let scene = scene.unjudged("service accounts");
    let both = json!({"serviceAccounts": true});
    consent(&scene, &both).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    scene.account("stays", None).await;
    scene.account("late", None).await;
    scene.associate("stays", &a, None);
    scene.associate("late", &b, None);
    scene.grant_to_account("stays", "stays").await;
    scene.until_ready(&["stays"]).await;

    let aws = scene.world.aws();
    let faults = aws.faults();
    let down = || {
        for operation in [
            "ListPodIdentityAssociations",
            "DescribePodIdentityAssociation",
        ] {
            faults.inject(operation, Fault::Internal, Times::UntilCleared);
        }
    };
    down();
    scene.grant_to_account("late", "late").await;
    let unknown = |name: &'static str| scene.until_says(name, "Unknown", "PrincipalUnknown");
    let message = unknown("late").await;
    assert!(
        message.contains("Pod Identity") && message.contains("stays"),
        "{message}"
    );
    unknown("stays").await;
    scene.until_policy(&[scene.allows(&[&a])]).await;

    // Nothing else waits for it, and a new process knows as much as the old one.
    scene.grant_to("other", &c).await;
    scene.until_ready(&["other"]).await;
    scene.until_policy(&[scene.allows(&[&a, &c])]).await;
    scene.world.kill_operator();
    scene.world.start_operator();
    scene.delete_grant("other").await;
    scene.until_gone("other").await;
    scene.until_policy(&[scene.allows(&[&a])]).await;

    // Without the record too, nobody knows whose the statement is.
    scene.world.stop_operator().await;
    let records = scene.world.api("ConfigMap", Some(OPERATOR_NAMESPACE));
    records
        .delete("domain-state.silent", &DeleteParams::default())
        .await
        .unwrap();
    scene.world.start_operator();
    let message = scene.until_domain_says("False", "PrincipalUnknown").await;
    assert!(message.contains("silent/"), "{message}");
    scene.until_policy(&[scene.allows(&[&a])]).await;

    faults.clear("*");
    scene.until_ready(&["stays", "late"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    for name in ["stays", "late"] {
        scene.delete_grant(name).await;
        scene.until_gone(name).await;
    }
    scene.until_policy(&[]).await;
}

#[tokio::test]
async fn what_the_operator_is_told_of_its_cluster_decides_what_it_asks() {
    let world = World::without_operator().await;
    let scene = Scene::in_world(world, "told", DomainOptions::default()).await;
    let scene = scene.unjudged("service accounts");
    consent(&scene, &json!({"accounts": null, "serviceAccounts": true})).await;
    let a = scene.trusting("a", "told", "search");
    let b = scene.role("b");
    scene.account("search", Some(&a)).await;
    scene.account("associated", None).await;
    scene.associate("associated", &b, None);
    scene.grant_to_account("search", "search").await;
    scene.grant_to_account("associated", "associated").await;

    // Nothing: the flags are named.
    let plain = Replica::start(&scene.world, "plain").await;
    for name in ["search", "associated"] {
        let words = ["--eks-cluster-name", "--oidc-issuer"];
        scene.until_refused(name, "RoleNotResolved", &words).await;
    }
    plain.stop().await;
    assert_eq!(scene.updates(), 0);

    // The issuer alone: annotations, and not a word with EKS.
    let issuer = format!("https://{}", scene.issuer());
    let options = ["--log", "debug", "--oidc-issuer", &issuer];
    let by_issuer = Replica::start_with(&scene.world, "issuer", &options).await;
    scene.until_ready(&["search"]).await;
    scene
        .until_refused("associated", "RoleNotResolved", &[ANNOTATION])
        .await;
    assert!(by_issuer.calls().iter().all(|it| it.service != "eks"));
    by_issuer.stop().await;

    // The cluster: both.
    let mut options = vec!["--log", "debug"];
    options.extend(IN_CLUSTER);
    let told = Replica::start_with(&scene.world, "cluster", &options).await;
    scene.until_ready(&["search", "associated"]).await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    told.stop().await;

    // Nothing again: a flag that was forgotten revokes nothing.
    let forgetful = Replica::start(&scene.world, "forgetful").await;
    for name in ["search", "associated"] {
        scene.until_says(name, "Unknown", "PrincipalUnknown").await;
    }
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    forgetful.stop().await;
}
