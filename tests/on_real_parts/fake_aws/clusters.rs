//! EKS: a cluster's issuer and its Pod Identity associations.

use std::time::Duration;

use aws_sdk_eks::Client as Eks;
use aws_sdk_eks::types::PodIdentityAssociationSummary as Summary;

use super::{ACCOUNT, REGION, ROLE, Rig, admin, refusal, sdk_config};
use crate::common::fake_aws::{Fault, NewAssociation, Times};

const CLUSTER: &str = "main";
const TARGET: &str = "arn:aws:iam::444455556666:role/target";

impl Rig {
    async fn with_cluster() -> (Self, Eks) {
        let rig = Self::start().await;
        rig.account().cluster(CLUSTER, REGION);
        let eks = rig.eks(ACCOUNT, REGION);
        (rig, eks)
    }

    fn eks(&self, account: &str, region: &str) -> Eks {
        Eks::new(&sdk_config(&self.aws, region, admin(&self.aws, account)))
    }

    fn associate(&self, namespace: &str, account: &str, target: Option<&str>) -> String {
        let new = NewAssociation {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            role: ROLE.to_owned(),
            target_role: target.map(str::to_owned),
            policy: None,
        };
        self.account().associate(REGION, CLUSTER, new)
    }
}

async fn listed(eks: &Eks, namespace: Option<&str>, account: Option<&str>) -> Vec<Summary> {
    let list = eks
        .list_pod_identity_associations()
        .cluster_name(CLUSTER)
        .set_namespace(namespace.map(str::to_owned))
        .set_service_account(account.map(str::to_owned));
    let listed = list.send().await.expect("the cluster exists");
    assert_eq!(listed.next_token(), None);
    listed.associations.expect("it is there even when empty")
}

#[tokio::test]
async fn a_cluster_tells_its_issuer_to_its_account_in_its_region() {
    let (rig, eks) = Rig::with_cluster().await;
    let described = eks.describe_cluster().name(CLUSTER).send().await;
    let cluster = described.expect("it exists").cluster.expect("required");
    let issuer = cluster
        .identity
        .and_then(|it| it.oidc)
        .and_then(|it| it.issuer);
    let issuer = issuer.expect("every cluster has one");
    assert_eq!(issuer, rig.aws.issuer(ACCOUNT, REGION, CLUSTER));
    assert!(issuer.starts_with("https://oidc.eks.eu-west-1.amazonaws.com/id/"));
    for (account, region, name) in [
        (ACCOUNT, REGION, "another"),
        (ACCOUNT, "us-east-1", CLUSTER),
        ("444455556666", REGION, CLUSTER),
    ] {
        let eks = rig.eks(account, region);
        let (code, status, message) = refusal(eks.describe_cluster().name(name).send().await);
        assert_eq!((code.as_str(), status), ("ResourceNotFoundException", 404));
        assert_eq!(message, format!("No cluster found for name: {name}."));
    }
}

#[tokio::test]
async fn a_list_does_not_tell_roles_and_a_description_does() {
    let (rig, eks) = Rig::with_cluster().await;
    let plain = rig.associate("team-a", "search", None);
    let chained = rig.associate("team-a", "chained", Some(TARGET));
    rig.associate("team-b", "search", None);
    assert_eq!(listed(&eks, None, None).await.len(), 3);
    assert_eq!(listed(&eks, Some("team-a"), None).await.len(), 2);
    assert_eq!(listed(&eks, None, Some("search")).await.len(), 2);
    let found = listed(&eks, Some("team-a"), Some("search")).await;
    let [one] = &found[..] else {
        panic!("not one: {found:?}")
    };
    assert_eq!(one.association_id(), Some(plain.as_str()));
    assert!(!format!("{one:?}").contains(ROLE));

    let describe = async |id: &str| {
        let describe = eks.describe_pod_identity_association();
        let described = describe.cluster_name(CLUSTER).association_id(id);
        let described = described.send().await.expect("it exists");
        described.association.expect("required")
    };
    let one = describe(&plain).await;
    assert_eq!((one.role_arn(), one.target_role_arn()), (Some(ROLE), None));
    let other = describe(&chained).await;
    assert_eq!(other.target_role_arn(), Some(TARGET));
    rig.aws.change_association(&plain, TARGET, None);
    assert_eq!(describe(&plain).await.role_arn(), Some(TARGET));
    let gone = eks.describe_pod_identity_association();
    let gone = gone.cluster_name(CLUSTER).association_id("a-nobody");
    let (code, status, _) = refusal(gone.send().await);
    assert_eq!((code.as_str(), status), ("ResourceNotFoundException", 404));
}

#[tokio::test]
async fn associations_are_listed_in_pages() {
    let (rig, eks) = Rig::with_cluster().await;
    let mut made: Vec<String> = (0..5)
        .map(|it| rig.associate("team-a", &format!("account-{it}"), None))
        .collect();
    let mut found = Vec::new();
    let mut pages = 0;
    let mut next = None;
    loop {
        let list = eks.list_pod_identity_associations().cluster_name(CLUSTER);
        let page = list.max_results(2).set_next_token(next).send().await;
        let page = page.expect("the cluster exists");
        let ids = page.associations.unwrap_or_default().into_iter();
        found.extend(ids.filter_map(|it| it.association_id));
        pages += 1;
        next = page.next_token;
        if next.is_none() {
            break;
        }
    }
    found.sort();
    made.sort();
    assert_eq!((pages, found), (3, made));
    for (size, token) in [(0, None), (101, None), (2, Some("x")), (2, Some("6"))] {
        let list = eks.list_pod_identity_associations().cluster_name(CLUSTER);
        let list = list
            .max_results(size)
            .set_next_token(token.map(str::to_owned));
        assert_eq!(refusal(list.send().await).0, "InvalidParameterException");
    }
}

#[tokio::test]
async fn what_is_made_or_removed_shows_after_a_while() {
    let (rig, eks) = Rig::with_cluster().await;
    let hour = Duration::from_hours(1);
    rig.aws.associations_propagate_in(hour);
    let id = rig.associate("team-a", "search", None);
    assert_eq!(listed(&eks, None, None).await.len(), 0);
    rig.aws.dissociate(&id);
    rig.aws.associations_propagate_in(Duration::ZERO);
    let id = rig.associate("team-a", "search", None);
    assert_eq!(listed(&eks, None, None).await.len(), 1);
    rig.aws.associations_propagate_in(hour);
    rig.aws.dissociate(&id);
    assert_eq!(listed(&eks, None, None).await.len(), 1);
    rig.aws.associations_propagate_in(Duration::ZERO);
    let id = rig.associate("team-b", "search", None);
    rig.aws.dissociate(&id);
    assert_eq!(listed(&eks, Some("team-b"), None).await.len(), 0);
}

#[tokio::test]
async fn faults_speak_as_eks_does() {
    let (rig, eks) = Rig::with_cluster().await;
    for (fault, code, status) in [
        (Fault::Throttle, "ThrottlingException", 429),
        (Fault::Internal, "ServerException", 500),
        (Fault::AccessDenied, "AccessDeniedException", 403),
    ] {
        let faults = rig.aws.faults();
        faults.inject("DescribeCluster", fault, Times::Exactly(1));
        let refused = refusal(eks.describe_cluster().name(CLUSTER).send().await);
        assert_eq!((refused.0.as_str(), refused.1), (code, status));
        if status == 403 {
            assert!(refused.2.contains("eks:DescribeCluster"), "{refused:?}");
        }
    }
    let call = rig
        .aws
        .calls_of("DescribeCluster")
        .pop()
        .expect("it is told");
    assert_eq!((call.service, call.account.as_str()), ("eks", ACCOUNT));
}
