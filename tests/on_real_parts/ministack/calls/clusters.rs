//! Clusters, and the Pod Identity associations of their service accounts.

use aws_config::SdkConfig;
use aws_sdk_eks::Client as Eks;
use aws_sdk_eks::types::{PodIdentityAssociation, PodIdentityAssociationSummary, VpcConfigRequest};

use super::{Log, ROLE};

const TARGET: &str = "arn:aws:iam::444455556666:role/target";

pub(super) async fn of_accounts(config: &SdkConfig, log: &mut Log) {
    let eks = Eks::new(config);
    let list = |cluster: &str| eks.list_pod_identity_associations().cluster_name(cluster);
    let describe_cluster = eks.describe_cluster().name("main");
    log.note(
        "describe an unknown cluster",
        describe_cluster.send().await,
        |_| "accepted",
    );
    log.note(
        "list the associations of an unknown cluster",
        list("main").send().await,
        |_| "accepted",
    );
    let create = || {
        let create = eks.create_cluster().name("main").role_arn(ROLE);
        create.resources_vpc_config(VpcConfigRequest::builder().build())
    };
    let named = |cluster: Option<aws_sdk_eks::types::Cluster>| {
        let cluster = cluster.expect("the model requires it");
        let identity = cluster.identity.and_then(|it| it.oidc);
        let issuer = identity.and_then(|it| it.issuer).unwrap_or_default();
        let arn = cluster.arn.unwrap_or_default();
        format!("{arn} {}", issuer.contains("/id/"))
    };
    log.note("create a cluster", create().send().await, |output| {
        named(output.cluster)
    });
    log.note("create it once more", create().send().await, |_| "accepted");
    let describe_cluster = eks.describe_cluster().name("main");
    log.note(
        "describe the cluster",
        describe_cluster.send().await,
        |output| named(output.cluster),
    );
    let id = associations(&eks, log).await;
    lists(&eks, log).await;
    descriptions(&eks, &id, log).await;
}

fn roles(association: Option<PodIdentityAssociation>) -> String {
    let found = association.expect("the model requires it");
    format!("{:?} {:?}", found.role_arn, found.target_role_arn)
}

/// Makes associations, and returns the id of one.
async fn associations(eks: &Eks, log: &mut Log) -> String {
    let associate = |account: &str, target: Option<&str>| {
        eks.create_pod_identity_association()
            .cluster_name("main")
            .namespace("team-a")
            .service_account(account)
            .role_arn(ROLE)
            .set_target_role_arn(target.map(str::to_owned))
            .send()
    };
    let made = associate("plain", None).await;
    let id = made
        .as_ref()
        .ok()
        .and_then(|output| output.association.as_ref())
        .and_then(|it| it.association_id.clone())
        .unwrap_or_default();
    log.note("associate a service account", made, |output| {
        roles(output.association)
    });
    log.note(
        "associate it again",
        associate("plain", None).await,
        |_| "accepted",
    );
    log.note(
        "associate one with a target role",
        associate("chained", Some(TARGET)).await,
        |output| roles(output.association),
    );
    id
}

async fn lists(eks: &Eks, log: &mut Log) {
    let list = |cluster: &str| eks.list_pod_identity_associations().cluster_name(cluster);
    let accounts = |found: Option<Vec<PodIdentityAssociationSummary>>| {
        let found = found.unwrap_or_default().into_iter();
        let mut all: Vec<String> = found.filter_map(|it| it.service_account).collect();
        all.sort();
        all.join(" ")
    };
    log.note(
        "list the associations of a namespace",
        list("main").namespace("team-a").send().await,
        |output| accounts(output.associations),
    );
    log.note(
        "list the associations of another namespace",
        list("main").namespace("team-b").send().await,
        |output| accounts(output.associations),
    );
    log.note(
        "list the associations of a service account",
        list("main").service_account("plain").send().await,
        |output| accounts(output.associations),
    );
    log.note(
        "list the associations in pages",
        list("main").max_results(1).send().await,
        |output| output.next_token.is_some(),
    );
}

async fn descriptions(eks: &Eks, id: &str, log: &mut Log) {
    let describe = |id: &str| {
        let describe = eks.describe_pod_identity_association();
        describe.cluster_name("main").association_id(id).send()
    };
    log.note("describe an association", describe(id).await, |output| {
        roles(output.association)
    });
    log.note(
        "describe an unknown association",
        describe("a-nobody").await,
        |_| "accepted",
    );
    let delete = eks.delete_pod_identity_association();
    let deleted = delete.cluster_name("main").association_id(id);
    log.note("delete the association", deleted.send().await, |output| {
        roles(output.association)
    });
    log.note(
        "describe a deleted association",
        describe(id).await,
        |_| "accepted",
    );
}
