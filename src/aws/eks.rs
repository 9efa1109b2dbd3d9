//! EKS: the cluster that the operator runs in, and which roles its service accounts are given.

use std::collections::BTreeMap;

use super::error::Error;
use super::session::Clients;

/// The most associations of a page; the service gives no more.
const PAGE: i32 = 100;

/// Returns the issuer of a cluster's service account tokens; `None` where it has none.
pub async fn issuer(clients: &Clients, cluster: &str) -> Result<Option<String>, Error> {
    let describe = clients.eks.describe_cluster().name(cluster);
    let answer = clients.call("DescribeCluster", describe.send()).await?;
    let identity = answer.cluster.and_then(|cluster| cluster.identity);
    Ok(identity
        .and_then(|identity| identity.oidc)
        .and_then(|oidc| oidc.issuer))
}

/// Returns the ids of the Pod Identity associations of a namespace, by service account.
///
/// The list does not say the roles; [`role`] does, one by one. What was just made or removed may be
/// missing or still there: associations are eventually consistent, for some seconds.
pub async fn associations(
    clients: &Clients,
    cluster: &str,
    namespace: &str,
) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut next = None;
    loop {
        let list = clients
            .eks
            .list_pod_identity_associations()
            .cluster_name(cluster)
            .namespace(namespace)
            .max_results(PAGE)
            .set_next_token(next);
        let page = clients.call("ListPodIdentityAssociations", list.send());
        let page = page.await?;
        for association in page.associations.unwrap_or_default() {
            // The service filters; whoever plays it might not.
            if association.namespace.as_deref() != Some(namespace) {
                continue;
            }
            if let (Some(account), Some(id)) =
                (association.service_account, association.association_id)
            {
                found.entry(account).or_default().push(id);
            }
        }
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// Returns the ARN of the role that pods get by an association: the target role where it has one,
/// which is the identity that other services see; `None` where the association is gone.
pub async fn role(clients: &Clients, cluster: &str, id: &str) -> Result<Option<String>, Error> {
    let describe = clients
        .eks
        .describe_pod_identity_association()
        .cluster_name(cluster)
        .association_id(id);
    let described = clients.call("DescribePodIdentityAssociation", describe.send());
    match described.await {
        Ok(answer) => Ok(answer
            .association
            .and_then(|it| it.target_role_arn.or(it.role_arn))),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
